/*
 * run.c - a corpus run as the commands see it: input and its columns, output, progress on a terminal, the
 * list of failed rows, the summary and the exit status.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common.h"

static sill__format to_format(int choice) { return (sill__format)choice; } /* the tables are in the enum's order */

static bool is_stdin(const char *file) { return !strcmp(file, "-"); }

static int pick_delimiter(const cli_run *run, char *out) {
    const char *d = run->options->delimiter;
    *out = 0;
    if (!d) return -1;
    if (!strcmp(d, "\\t") || !strcmp(d, "tab")) *out = '\t';
    else if (strlen(d) == 1 && *d != '"' && *d != '\n' && *d != '\r') *out = *d;
    else return args_usage(run->command, "--delimiter is '%.20s'; it takes one character, or tab", d);
    return -1;
}

/* Refuses an output that exists before minutes are spent on a model. */
static int check_output(const cli_run *run) {
    const cli_corpus_options *o = run->options;
    if (!o->output || is_stdin(o->output)) return -1;
    if (!o->output_format && !o->json) {
        sill__format f = sill__format_of_path(o->output);
        if (f == SILL__FORMAT_AUTO || f == SILL__FORMAT_TXT)
            return args_usage(run->command, "cannot write results as '%s'; name it .csv, .tsv or .jsonl, or give "
                              "--output-format", o->output);
    }
    if (sill__is_file(o->output) && !o->overwrite)
        return args_usage(run->command, "%s exists; --overwrite replaces it", o->output);
    return -1;
}

static int select_column(cli_run *run, const char *name, size_t *slot) {
    sill_error err = {0};
    sill_status s = sill__reader_select(run->reader, name, slot, &err);
    if (s == SILL_OK) return -1;
    int status = cli_fail(&err);
    return s == SILL_ENOENT ? EXIT_USAGE : status;
}

static void init_run(cli_run *run, const char *command, const cli_corpus_options *options) {
    memset(run, 0, sizeof *run);
    run->command = command;
    run->options = options;
    run->started = sill__now();
    sill__str_init(&run->json, (size_t)1 << 30);
}

int cli_run_texts(cli_run *run, const char *command, const cli_corpus_options *options, const char *column,
                  const char *const *texts, const size_t *n_bytes, size_t n) {
    sill_error err = {0};
    init_run(run, command, options);
    int status = check_output(run);
    if (status >= 0) return status;
    return sill__reader_open_texts(column, texts, n_bytes, n, &run->reader, &err) == SILL_OK ? -1 : cli_fail(&err);
}

int cli_run_input(cli_run *run, const char *command, const char *file, const cli_corpus_options *options,
                  const char *txt_column) {
    sill_error err = {0};
    sill__reader_options ro = {.format = to_format(options->format), .txt_column = txt_column, .stop = &cli_stop};
    int status;
    init_run(run, command, options);
    if ((status = pick_delimiter(run, &ro.delimiter)) >= 0 || (status = check_output(run)) >= 0) return status;
    if (is_stdin(file) && !ro.format) {
        if (options->text) return args_usage(command, "--text from standard input needs --format csv, tsv or jsonl");
        ro.format = SILL__FORMAT_TXT;
    }
    sill_status s = sill__reader_open(file, &ro, &run->reader, &err);
    if (s != SILL_OK) {
        status = cli_fail(&err);
        return s == SILL_EINVAL ? EXIT_USAGE : status;
    }
    const char *text = options->text, *output = options->output;
    if (output && !is_stdin(output) && sill__reader_is_file(run->reader, output)) {
        cli_run_free(run);
        return args_usage(command, "the output %s is the input; give it another name", output);
    }
    if (!text) {
        if (sill__reader_format(run->reader) != SILL__FORMAT_TXT) {
            cli_run_free(run);
            return args_usage(command, "%s needs --text COLUMN: which one holds the text?", file);
        }
        text = txt_column ? txt_column : "text";
    }
    status = select_column(run, text, &run->text_slot);
    if (status < 0 && options->id) status = select_column(run, options->id, &run->id_slot);
    if (status >= 0) {
        cli_run_free(run);
        return status;
    }
    if (!ro.delimiter && sill__reader_format(run->reader) == SILL__FORMAT_CSV && sill__reader_delimiter(run->reader) != ',')
        cli_say("%s: the header has no comma, values are taken as separated by %s", file,
                sill__reader_delimiter(run->reader) == '\t' ? "tabs" : "';'");
    return -1;
}

sill__format cli_run_output_format(const cli_run *run) {
    const cli_corpus_options *o = run->options;
    if (o->json) return SILL__FORMAT_JSONL;
    if (o->output_format) return to_format(o->output_format);
    if (o->output && !is_stdin(o->output)) return sill__format_of_path(o->output);
    sill__format in = sill__reader_format(run->reader);
    return in == SILL__FORMAT_TXT ? SILL__FORMAT_CSV : in;
}

/* ---- progress */

static void tick(void *user) {
    cli_run *run = user;
    double now = sill__now();
    if (!run->bar || now - run->last_tick < 0.1) return;
    run->last_tick = now;
    sill__flow_counts c = sill__flow_get_counts(run->flow);
    sill__reader_stats stats = sill__reader_get_stats(run->reader);
    double seconds = now - run->started, share = stats.bytes_total ? (double)stats.bytes_done / (double)stats.bytes_total : 0;
    fprintf(stderr, "\r\033[K%s: %llu rows", run->command, (unsigned long long)c.written);
    if (c.failed) fprintf(stderr, ", %llu failed", (unsigned long long)c.failed);
    if (seconds > 0) fprintf(stderr, ", %.1f rows/s", (double)c.written / seconds);
    if (share > 0.01 && c.written) {
        int cells = (int)(share * 20);
        double left = seconds * (1 - share) / share;
        fprintf(stderr, " [%.*s%*s] %.0f %%, %.0f s left", cells, "####################", 20 - cells, "", share * 100, left);
    }
    fflush(stderr);
}

int cli_run_output(cli_run *run, const char *const *fields, size_t n_fields, int32_t n_sequences) {
    sill_error err = {0};
    const cli_corpus_options *o = run->options;
    sill__writer_options wo = {.path = o->output, .format = cli_run_output_format(run), .overwrite = o->overwrite, .stop = &cli_stop};
    sill__flow_options fo = {.text_slot = run->text_slot, .json_text = run->json_text, .has_id = o->id != NULL, .id_slot = run->id_slot,
                             .n_sequences = n_sequences, .stop = &cli_stop, .tick = tick, .user = run};
    if (sill__reader_format(run->reader) == SILL__FORMAT_CSV) wo.delimiter = sill__reader_delimiter(run->reader);
    sill_status s = sill__writer_open(&wo, run->reader, fields, n_fields, &run->writer, &err);
    if (s == SILL_OK) s = sill__flow_create(run->reader, run->writer, &fo, &run->flow, &err);
    if (s != SILL_OK) {
        int status = cli_fail(&err);
        cli_run_free(run);
        return s == SILL_EINVAL ? EXIT_USAGE : status;
    }
    run->bar = !cli_general.quiet && cli_is_terminal(stderr) && (o->output ? !is_stdin(o->output) : !cli_is_terminal(stdout));
    run->started = sill__now();
    return -1;
}

int cli_run_next(void *user, sill_row *row) {
    cli_run *run = user;
    int more = sill__flow_next(run->flow, row);
    if (more == 1 && run->tokenizer) run->lost += cli_lost_bytes(run->tokenizer, row->text, row->n_bytes);
    return more;
}

/* ---- the end */

static void say_failures(const cli_run *run, const sill__flow_counts *c) {
    size_t n = 0;
    for (const char *line; (line = sill__flow_failure(run->flow, n)); n++) cli_say("%s", line);
    if (c->failed > n)
        cli_say("and %llu more failed rows: see the error column", (unsigned long long)(c->failed - n));
}

static void say_notes(const cli_run *run, const sill__flow_counts *c, const sill__reader_stats *stats) {
    for (size_t i = 0; sill__writer_note(run->writer, i); i++) cli_say("%s", sill__writer_note(run->writer, i));
    if (stats->lone_surrogates)
        cli_say("warning: %llu lone surrogates in the texts were read as U+FFFD", (unsigned long long)stats->lone_surrogates);
    if (c->bad_utf8)
        cli_say("warning: %llu bytes that are not UTF-8 are U+FFFD in the JSON output", (unsigned long long)c->bad_utf8);
    cli_say_lost(run->lost);
    if (stats->blank_lines) cli_say("%llu blank lines skipped", (unsigned long long)stats->blank_lines);
}

static void say_summary(const cli_run *run, const sill__flow_counts *c, const cli_engine *engine) {
    double seconds = sill__now() - run->started;
    char failed[48] = "";
    if (c->failed) snprintf(failed, sizeof failed, " (%llu failed)", (unsigned long long)c->failed);
    cli_say("%s: %llu rows%s in %.2f s, %.1f rows/s%s%s", run->command, (unsigned long long)c->written, failed, seconds,
            seconds > 0 ? (double)c->written / seconds : 0.0, run->options->output ? " -> " : "",
            run->options->output ? run->options->output : "");
    if (!engine || !engine->model) return;
    const sill_model_info *i = &engine->info;
    const char *name = strrchr(engine->path, '/');
    bool hint = !strcmp(i->stored_type, "F32") && !strcmp(i->dtype, "f32") && strncmp(i->device, "ref", 3);
    cli_say("%s on %s, %d threads, computed in %s, stored in %s%s", name && name[1] ? name + 1 : engine->path, i->device,
            (int)i->n_threads, i->dtype, i->stored_type,
            hint ? "; --dtype bf16 would read half the bytes a token, with a small loss of precision" : "");
}

void cli_run_free(cli_run *run) {
    sill__flow_free(run->flow);
    sill__writer_free(run->writer);
    sill__reader_free(run->reader);
    sill__str_free(&run->json);
    run->flow = NULL;
    run->writer = NULL;
    run->reader = NULL;
}

int cli_run_end(cli_run *run, sill_status status, const sill_error *err, const cli_engine *engine) {
    sill_error own = {0};
    sill__flow_counts c = sill__flow_get_counts(run->flow);
    sill__reader_stats stats = sill__reader_get_stats(run->reader);
    const char *partial = sill__writer_partial(run->writer);
    int exit_status;
    if (run->bar) fputs("\r\033[K", stderr);
    if (sill__flow_status(run->flow, &own) != SILL_OK) { /* the reader or writer is why the task was cancelled */
        err = &own;
        status = own.code;
    } else if (cli_stop && (status == SILL_OK || status == SILL_ECANCELLED)) {
        status = SILL_ECANCELLED;
    } else if (status == SILL_OK && (status = sill__writer_finish(run->writer, &own)) != SILL_OK) {
        err = &own;
    }
    sill_error last = {0};
    if (status == SILL_ECANCELLED && sill__writer_flush(run->writer, &last) != SILL_OK) { /* it says what is kept below */
        err = &last;
        status = last.code;
    } else if (status != SILL_OK) {
        (void)sill__writer_flush(run->writer, NULL);
    }
    uint64_t kept = sill__writer_rows(run->writer);
    say_notes(run, &c, &stats);
    say_failures(run, &c);
    if (status == SILL_OK) {
        say_summary(run, &c, engine);
        exit_status = c.failed ? EXIT_ROWS : EXIT_OK;
    } else if (status == SILL_ECANCELLED) {
        if (partial && kept)
            fprintf(stderr, "sill: interrupted; %llu finished rows are in %s\n", (unsigned long long)kept, partial);
        else fprintf(stderr, "sill: interrupted after %llu rows\n", (unsigned long long)c.written);
        exit_status = EXIT_INTERRUPTED;
    } else {
        exit_status = cli_fail(err);
        if (partial && kept) cli_say("%llu finished rows are in %s", (unsigned long long)kept, partial);
    }
    cli_run_free(run);
    return exit_status;
}

/* ---- lists */

void cli_put_ids(cli_run *run, sill__record *record, const int32_t *ids, size_t n) {
    sill__str_clear(&run->json);
    sill__str_put(&run->json, "[", 1);
    for (size_t i = 0; i < n; i++) sill__str_putf(&run->json, i ? ",%d" : "%d", (int)ids[i]);
    sill__str_put(&run->json, "]", 1);
    sill__record_json(record, run->json.p, run->json.n);
}

void cli_put_floats(cli_run *run, sill__record *record, const float *values, size_t n) {
    sill__str_clear(&run->json);
    sill__str_put(&run->json, "[", 1);
    for (size_t i = 0; i < n; i++) {
        if (i) sill__str_put(&run->json, ",", 1);
        sill__put_json_f32(&run->json, values[i]);
    }
    sill__str_put(&run->json, "]", 1);
    sill__record_json(record, run->json.p, run->json.n);
}
