/*
 * run.c - a corpus run as the commands see it: input and its columns, output, progress on a terminal, the
 * list of failed rows, the summary and the exit status.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pack.h"
#include "record.h"

static sill__format to_format(int choice) { return (sill__format)choice; } /* the tables are in the enum's order */
static sill__format to_output_format(int choice) { return choice == 4 ? SILL__FORMAT_NPY : (sill__format)choice; }

static bool is_npy(const char *path) {
    size_t n = path ? strlen(path) : 0;
    return n > 4 && !strcmp(path + n - 4, ".npy");
}

static bool is_stdin(const char *file) { return !strcmp(file, "-"); }

static int pick_delimiter(const char *command, const char *d, char *out) {
    *out = 0;
    if (!d) return -1;
    if (!strcmp(d, "\\t") || !strcmp(d, "tab")) *out = '\t';
    else if (strlen(d) == 1 && *d != '"' && *d != '\n' && *d != '\r' && (unsigned char)*d < 0x80) *out = *d;
    else return args_usage(command, "--delimiter is '%.20s'; it takes one character of ASCII, or tab", d);
    return -1;
}

/* Lock and journal come beside the output. */
static int check_directory(const char *target) {
    sill_error err = {0};
    const char *slash = strrchr(target, '/');
    char *dir = slash ? sill__strndup(target, slash == target ? 1 : (size_t)(slash - target)) : NULL;
    const bool there = !slash || (dir && sill__is_dir(dir));
    if (!there) sill__fail(&err, SILL_EIO, "%s: there is no directory %s; make it first", target, dir ? dir : "");
    sill__free(dir);
    return there ? -1 : cli_fail(&err);
}

/* Refuses an output that exists before minutes are spent on a model. */
static int check_output(cli_run *run) {
    const cli_corpus_options *o = run->options;
    const bool npy = to_output_format(o->output_format) == SILL__FORMAT_NPY || (is_npy(o->output) && !o->output_format && !o->json);
    if (npy && strcmp(run->command, "embed")) return args_usage(run->command, "a .npy file holds vectors; %s has none", run->command);
    if (npy && (!o->output || is_stdin(o->output))) return args_usage(run->command, "vectors as .npy need a file: -o OUT.npy");
    if (!o->output || is_stdin(o->output)) return -1;
    if (!o->output_format && !o->json && !npy) {
        sill__format f = sill__format_of_path(o->output);
        if (f == SILL__FORMAT_AUTO || f == SILL__FORMAT_TXT)
            return args_usage(run->command, "cannot write results as '%s'; name it .csv, .tsv or .jsonl (with .gz or .zst behind it, if "
                              "you like), or give --output-format", o->output);
    }
    bool regular = sill__is_file(o->output), any = regular || sill__is_dir(o->output) || access(o->output, F_OK) == 0;
    if (cli_replay.rows || (any && !regular)) return -1; /* a pipe, a device: nothing is kept of it */
    run->target = sill__writer_target(o->output);
    char *record = run->target ? cli_record_path(run->target) : NULL;
    bool known = record && (sill__is_file(record) || cli_journal_exists(run->target));
    sill__free(record);
    if (regular && !o->overwrite && !known) /* else what it is is found out when all is known of this run */
        return args_usage(run->command, "%s exists; --overwrite replaces it", o->output);
    return run->target ? check_directory(run->target) : -1; /* its name is too long: told where it is opened */
}

int cli_run_select(cli_run *run, const char *name, size_t *slot) {
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
    run->shard = run->shards = 1;
    run->started = sill__now();
    sill__str_init(&run->json, (size_t)1 << 30);
}

/* --shard I/N */
static int pick_shard(cli_run *run) {
    unsigned long i, n;
    char *end = NULL, *end2 = NULL;
    const char *text = run->options->shard;
    if (!text) return -1;
    i = strtoul(text, &end, 10);
    n = *end == '/' ? strtoul(end + 1, &end2, 10) : 0;
    if (text[0] < '0' || text[0] > '9' || *end != '/' || end[1] < '0' || end[1] > '9' || *end2 || i < 1 || i > n || n > CLI_MAX_SHARDS)
        return args_usage(run->command, "--shard is '%.40s'; it takes I/N, such as 1/8, with I from 1 to N", text);
    run->shard = (unsigned)i;
    run->shards = (unsigned)n;
    return -1;
}

int cli_run_texts(cli_run *run, const char *command, const cli_corpus_options *options, const char *column,
                  const char *const *texts, const size_t *n_bytes, size_t n) {
    sill_error err = {0};
    init_run(run, command, options);
    int status = pick_shard(run);
    if (status < 0) status = check_output(run);
    if (status >= 0) {
        cli_run_free(run);
        return status;
    }
    return sill__reader_open_texts(column, texts, n_bytes, n, &run->reader, &err) == SILL_OK ? -1 : cli_fail(&err);
}

static bool is_plain(sill__format format) { return format == SILL__FORMAT_TXT || format == SILL__FORMAT_FILE; }

static void say_directory(const cli_run *run) {
    sill__reader_stats s = sill__reader_get_stats(run->reader);
    if (s.passed_over)
        cli_say("%s: %llu other files are passed over (no .txt, or hidden)", run->input, (unsigned long long)s.passed_over);
    if (s.links) cli_say("%s: %llu links to directories are not followed", run->input, (unsigned long long)s.links);
}

sill_status cli_read_text(const char *file, sill__encoding encoding, sill__corpus_row **row, sill_error *err) {
    sill__reader_options ro = {.format = SILL__FORMAT_FILE, .stop = &cli_stop, .encoding = encoding, .max_row_bytes = (size_t)1 << 30,
                               .codecs = cli_codecs};
    sill__reader *reader = NULL;
    *row = NULL;
    if (sill__is_dir(file)) return sill__fail(err, SILL_EIO, "%s is a directory, not a text", file);
    sill_status s = sill__reader_open(file, &ro, &reader, err);
    if (s == SILL_OK) s = sill__reader_next(reader, row, err);
    if (s == SILL_OK && (*row)->error) s = sill__fail(err, SILL_EFORMAT, "%s: %s", file, (*row)->error);
    if (s != SILL_OK) {
        sill__row_free(*row);
        *row = NULL;
    }
    sill__reader_free(reader);
    return s;
}

int cli_open_reader(const char *command, const char *file, const cli_input_options *o, const char *txt_column, sill__reader **reader) {
    sill_error err = {0};
    sill__reader_options ro = {.format = to_format(o->format), .txt_column = txt_column, .stop = &cli_stop, .encoding = (sill__encoding)o->encoding,
                              .max_row_bytes = (size_t)o->max_row << 20, .codecs = cli_codecs};
    int status = pick_delimiter(command, o->delimiter, &ro.delimiter);
    if (status >= 0) return status;
    if (is_stdin(file) && !ro.format) {
        if (o->text) return args_usage(command, "--text from standard input needs --format csv, tsv or jsonl");
        ro.format = SILL__FORMAT_TXT;
    }
    sill_status s = sill__reader_open(file, &ro, reader, &err);
    if (s == SILL_OK) return -1;
    status = cli_fail(&err);
    return s == SILL_EINVAL ? EXIT_USAGE : status;
}

int cli_run_input(cli_run *run, const char *command, const char *file, const cli_corpus_options *options,
                  const char *txt_column) {
    init_run(run, command, options);
    run->input = file;
    int status = pick_shard(run);
    if (status < 0) status = check_output(run);
    if (status < 0 && (status = cli_open_reader(command, file, &options->in, txt_column, &run->reader)) >= 0 && run->target &&
        cli_journal_exists(run->target))
        cli_say("finished rows are kept in %s.journal; when the input is back, the same command goes on from there", run->target);
    if (status >= 0) {
        cli_run_free(run);
        return status;
    }
    const char *text = options->in.text, *output = options->output;
    if (output && !is_stdin(output) && sill__reader_is_file(run->reader, output)) {
        cli_run_free(run);
        return args_usage(command, "the output %s is the input; give it another name", output);
    }
    if (!text) {
        if (!is_plain(sill__reader_format(run->reader))) {
            cli_run_free(run);
            return args_usage(command, "%s needs --text COLUMN: which one holds the text?", file);
        }
        text = txt_column ? txt_column : "text";
    }
    status = cli_run_select(run, text, &run->text_slot);
    if (status < 0 && options->id) status = cli_run_select(run, options->id, &run->id_slot);
    if (status >= 0) {
        cli_run_free(run);
        return status;
    }
    say_directory(run);
    if (!options->in.delimiter && sill__reader_format(run->reader) == SILL__FORMAT_CSV && sill__reader_delimiter(run->reader) != ',')
        cli_say("%s: the header has no comma, values are taken as separated by %s", file,
                sill__reader_delimiter(run->reader) == '\t' ? "tabs" : "';'");
    return -1;
}

sill__format cli_run_output_format(const cli_run *run) {
    const cli_corpus_options *o = run->options;
    if (o->json) return SILL__FORMAT_JSONL;
    if (o->output_format) return to_output_format(o->output_format);
    if (is_npy(o->output)) return SILL__FORMAT_NPY;
    if (o->output && !is_stdin(o->output)) return sill__format_of_path(o->output);
    sill__format in = sill__reader_format(run->reader);
    return is_plain(in) ? SILL__FORMAT_CSV : in;
}

/* ---- the run */

cli_replaying cli_replay;

static void tick(void *user) {
    cli_run *run = user;
    cli_progress_tick(run);
    cli_keep_tick(run);
}

static int by_number(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* Shards deal rows out in turn; a replay has its own list. */
static bool wanted(void *user, uint64_t number) {
    const cli_run *run = user;
    if (cli_replay.rows) return bsearch(&number, cli_replay.rows, cli_replay.n_rows, sizeof number, by_number) != NULL;
    return (number - 1) % run->shards == run->shard - 1;
}

int cli_run_output(cli_run *run, const char *const *fields, size_t n_fields, int32_t n_sequences) {
    sill_error err = {0};
    const cli_corpus_options *o = run->options;
    sill__writer_options wo = {.path = o->output, .format = cli_run_output_format(run),
                               .overwrite = o->overwrite || cli_replay.rows, .vector = run->vector, .stop = &cli_stop, .codecs = cli_codecs};
    sill__flow_options fo = {.text_slot = run->text_slot, .json_text = run->json_text, .has_context = run->has_context,
                             .context_slot = run->context_slot, .has_id = o->id != NULL, .id_slot = run->id_slot,
                             .n_sequences = n_sequences, .stop = &cli_stop, .tick = tick, .user = run, .digest = cli_replay.rows != NULL};
    run->n_sequences = SILL_MAX(1, n_sequences);
    int kept = cli_keep_open(run, fields, n_fields);
    if (kept >= 0) {
        cli_run_free(run);
        return kept;
    }
    if (run->journal) {
        fo.store = cli_journal_store(run->journal);
        wo.resumed = cli_journal_get_past(run->journal).resumed;
    }
    if (run->shards > 1 || cli_replay.rows) fo.wanted = wanted;
    if (sill__reader_format(run->reader) == SILL__FORMAT_CSV) wo.delimiter = sill__reader_delimiter(run->reader);
    sill_status s = sill__writer_open(&wo, run->reader, fields, n_fields, &run->writer, &err);
    run->opened = s == SILL_OK;
    if (s == SILL_OK) s = sill__flow_create(run->reader, run->writer, &fo, &run->flow, &err);
    if (s != SILL_OK) {
        int status = cli_fail(&err);
        cli_run_free(run);
        return s == SILL_EINVAL ? EXIT_USAGE : status;
    }
    run->started = sill__now();
    cli_progress_begin(run);
    return -1;
}

int cli_run_rows(cli_run *run, const cli_engine *engine, const cli_work *work) {
    sill_error err = {0};
    sill_status s;
    run->task = work->task;
    run->engine = engine;
    run->tokenizer = sill_model_tokenizer(engine->model);
    run->defaults = work->defaults;
    run->long_policy = work->long_policy;
    int status = cli_run_output(run, work->fields, work->n_fields, work->n_sequences);
    if (status >= 0) return status;
    do s = work->rows(run, &err);
    while (s == SILL_OK && sill__flow_more(run->flow));
    return cli_run_end(run, s, &err);
}

int cli_run_next(void *user, sill_row *row) {
    cli_run *run = user;
    int more = sill__flow_next(run->flow, row);
    if (more == 1 && run->tokenizer)
        run->lost += cli_lost_bytes(run->tokenizer, row->text, row->n_bytes) + cli_lost_bytes(run->tokenizer, row->context, row->n_context_bytes);
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
    uint64_t long_rows = run->long_before + run->long_rows;
    if (long_rows)
        cli_say("rows longer than the context of %d tokens: %llu, %s", (int)run->engine->plan.n_ctx, (unsigned long long)long_rows,
                run->long_policy == SILL_LONG_TRUNCATE ? "of which what does not fit was left out" : run->long_policy == SILL_LONG_SPLIT_MEAN ?
                "split into pieces" : "read in windows that overlap");
    if (stats->blank_lines) cli_say("%llu blank lines skipped", (unsigned long long)stats->blank_lines);
}

static void say_summary(const cli_run *run, const sill__flow_counts *c) {
    const cli_engine *engine = run->engine;
    double seconds = sill__now() - run->started;
    char failed[48] = "", kept[64] = "", tokens[64] = "";
    if (c->failed) snprintf(failed, sizeof failed, " (%llu failed)", (unsigned long long)c->failed);
    if (c->kept) snprintf(kept, sizeof kept, " (%llu were there already)", (unsigned long long)c->kept);
    if (run->tokens && seconds > 0) snprintf(tokens, sizeof tokens, ", %.0f tokens/s", (double)run->tokens / seconds);
    cli_say("%s: %llu rows%s%s in %.2f s, %.1f rows/s%s%s%s", run->command, (unsigned long long)c->written, failed, kept, seconds,
            seconds > 0 ? (double)(c->written - c->kept) / seconds : 0.0, tokens, run->options->output ? " -> " : "",
            run->options->output ? run->options->output : "");
    if (!engine->model) return;
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
    cli_keep_free(run);
    run->flow = NULL;
    run->writer = NULL;
    run->reader = NULL;
}

/* Where the finished rows of a run are that has not come to its end. */
static void say_kept(const cli_run *run, const char *partial, uint64_t in_partial, bool interrupted) {
    uint64_t kept = run->journal ? cli_journal_rows(run->journal) : 0;
    if (run->journal && kept)
        fprintf(stderr, "sill: %llu finished rows are kept in %s.journal; %sthe same command goes on from there\n", (unsigned long long)kept,
                run->target, interrupted ? "" : "when that is put right, ");
    else if (partial && in_partial) fprintf(stderr, "sill: %llu finished rows are in %s\n", (unsigned long long)in_partial, partial);
}

/* What a replay has to tell. */
static void tell_replay(cli_run *run) {
    size_t n;
    const uint64_t *uneven = sill__flow_uneven(run->flow, &n);
    sill__flow_input_sha256(run->flow, cli_replay.input_sha256);
    cli_replay.input_rows = sill__flow_get_counts(run->flow).read;
    uint64_t *copy = sill__calloc(2 * n + 1, sizeof *copy);
    if (copy && n) memcpy(copy, uneven, 2 * n * sizeof *copy);
    cli_replay.uneven = copy;
    cli_replay.n_uneven = copy ? n : 0;
    if (run->identity) snprintf(cli_replay.model_sha256, sizeof cli_replay.model_sha256, "%s", cli_identity_sha256(run->identity));
}

int cli_run_end(cli_run *run, sill_status status, const sill_error *err) {
    sill_error own = {0};
    sill__flow_counts c = sill__flow_get_counts(run->flow);
    sill__reader_stats stats = sill__reader_get_stats(run->reader);
    const char *partial = sill__writer_partial(run->writer);
    int exit_status;
    cli_progress_end(run);
    if (sill__flow_status(run->flow, &own) != SILL_OK) { /* the reader or writer is why the task was cancelled */
        err = &own;
        status = own.code;
    } else if (cli_stop && (status == SILL_OK || status == SILL_ECANCELLED)) {
        status = SILL_ECANCELLED;
    } else if (status == SILL_OK && (status = cli_keep_finish(run, &own)) != SILL_OK) {
        err = &own;
    }
    sill_error last = {0};
    if (status != SILL_OK) {
        sill_status s = sill__writer_flush(run->writer, &last);
        if (s == SILL_OK) s = cli_keep_save(run, &last);
        else (void)cli_keep_save(run, &(sill_error){0});
        if (status == SILL_ECANCELLED && s != SILL_OK) {
            err = &last;
            status = s;
        }
    }
    say_notes(run, &c, &stats);
    say_failures(run, &c);
    if (status == SILL_OK) {
        say_summary(run, &c);
        if (cli_replay.rows) tell_replay(run);
        exit_status = c.failed ? EXIT_ROWS : EXIT_OK;
    } else {
        if (status == SILL_ECANCELLED) fprintf(stderr, "sill: interrupted after %llu rows\n", (unsigned long long)c.written);
        exit_status = status == SILL_ECANCELLED ? EXIT_INTERRUPTED : status == SILL_EINVAL && run->journal ? (cli_fail(err), EXIT_USAGE) : cli_fail(err);
        say_kept(run, partial, sill__writer_rows(run->writer), status == SILL_ECANCELLED);
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
