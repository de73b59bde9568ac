/* describe.c - a run in words: the settings that its results depend on, and its record. */
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "build_info.h"
#include "pack.h"
#include "record.h"

/* Options that change no byte of the results, or that are among the settings as what came of them. */
static bool is_aside(const char *name) {
    static const char *const names[] = {"output", "overwrite", "quiet", "verbose", "threads", "batch-tokens", "max-sequences", "memory", "no-cache",
        "model", "device", "dtype", "kv-dtype", "ctx", "file", "format", "delimiter", "output-format", "json", "shard", "journal-rows", "progress",
        "codebook", "no-shared-prefix", "show-prompt", "prompt-lookup-num-tokens", "max-matching-ngram-size", "draft-model", "num-assistant-tokens"};
    for (size_t i = 0; i < SILL_ARRAY_LEN(names); i++)
        if (!strcmp(name, names[i])) return true;
    return false;
}

static const char *value_by_default(const cli_run *run, const char *name) {
    for (const cli_default *d = run->defaults; d && d->name; d++)
        if (!strcmp(d->name, name)) return d->value;
    return NULL;
}

/* ---- settings */

typedef struct visitor { cli_run *run; sill__str *s; cli_record *record; const char *last; bool list; } visitor;

static void put_setting(void *user, const arg_option *o, const char *value) {
    visitor *v = user;
    char name[96];
    if (is_aside(o->name) || !value) return;
    snprintf(name, sizeof name, "--%s", o->name);
    cli_settings_put(&v->run->settings, name, o->type == ARG_FLAG ? "yes" : value);
}

static void put_names(cli_settings *settings, const char *name, const char *const *names, size_t n) {
    sill__str s;
    sill__str_init(&s, (size_t)1 << 28);
    for (size_t i = 0; i < n; i++) {
        if (i) sill__str_puts(&s, ",");
        sill__put_csv_value(&s, names[i], strlen(names[i]), ',');
    }
    if (s.failed) settings->failed = true;
    else cli_settings_put(settings, name, s.p ? s.p : "");
    sill__str_free(&s);
}

void cli_record_settings(cli_run *run, const char *const *fields, size_t n_fields) {
    cli_settings *s = &run->settings;
    visitor v = {.run = run};
    const char *const *columns = NULL;
    size_t n_columns = 0;
    char delimiter[2] = {sill__reader_delimiter(run->reader), 0};
    cli_settings_put(s, "command", run->command);
    cli_settings_put(s, "version", sill_version());
    cli_settings_put(s, "commit", SILL_BUILD_COMMIT);
    args_visit(put_setting, &v);
    cli_settings_put(s, "input format", sill__format_name(sill__reader_format(run->reader)));
    if (sill__reader_format(run->reader) == SILL__FORMAT_CSV) cli_settings_put(s, "delimiter", delimiter);
    if (sill__reader_columns(run->reader, &columns, &n_columns, NULL) != SILL_OK) s->failed = true;
    put_names(s, "columns", columns, n_columns);
    cli_settings_put(s, "output format", sill__format_name(cli_run_output_format(run)));
    put_names(s, "results", fields, n_fields);
    if (run->codebook_sha256) cli_settings_put(s, "codebook sha256", run->codebook_sha256);
    if (run->constraint_sha256) cli_settings_put(s, "constraint sha256", run->constraint_sha256);
    if (run->vector) cli_settings_putf(s, "vector", "%zu", run->vector);
    if (run->shards > 1) cli_settings_putf(s, "shard", "%u/%u", run->shard, run->shards);
    if (!run->engine->model) return;
    cli_settings_put(s, "device", run->engine->info.device);
    cli_settings_put(s, "dtype", run->engine->info.dtype);
    cli_settings_put(s, "kv-dtype", run->engine->kv_dtype);
    cli_settings_putf(s, "ctx", "%d", (int)run->engine->plan.n_ctx);
}

/* ---- the record */

static void put_argument(cli_record *r, const char *format, const char *name, const char *value) {
    sill__str s;
    char **p = sill__realloc(r->arguments, (r->n_arguments + 1) * sizeof *p);
    sill__str_init(&s, (size_t)1 << 30);
    if (p) r->arguments = p;
    sill__str_puts(&s, format);
    sill__str_puts(&s, name);
    if (value) sill__str_puts(&s, "=");
    if (value) sill__str_puts(&s, value);
    char *text = p && !s.failed ? sill__strndup(s.p, s.n) : NULL;
    if (text) r->arguments[r->n_arguments++] = text;
    else r->settings.failed = true;
    sill__str_free(&s);
}

bool cli_record_leaves_out(const char *name) {
    return !strcmp(name, "output") || !strcmp(name, "overwrite") || !strcmp(name, "quiet") || !strcmp(name, "verbose") || !strcmp(name, "shard") ||
           !strcmp(name, "journal-rows") || !strcmp(name, "progress");
}

static void put_given(void *user, const arg_option *o, const char *value) {
    visitor *v = user;
    if (!value || cli_record_leaves_out(o->name)) return;
    char *path = !strcmp(o->name, "codebook") || !strcmp(o->name, "draft-model") ? realpath(value, NULL) : NULL; /* a replay may run elsewhere */
    put_argument(v->record, "--", o->name, o->type == ARG_FLAG ? NULL : path ? path : value);
    free(path);
}

static void put_json(sill__str *s, const char *value) {
    if (value) sill__put_json_string(s, value, strlen(value));
    else sill__str_puts(s, "null");
}

static const char *resolved(const cli_run *run, const char *name, char text[64]) {
    const cli_engine *e = run->engine->model ? run->engine : NULL;
    const char *d = value_by_default(run, name);
    if (!d && !strcmp(name, "max-row")) return "16";
    if (!e || d) return d;
    if (!strcmp(name, "device")) return e->info.device;
    if (!strcmp(name, "dtype")) return e->info.dtype;
    if (!strcmp(name, "kv-dtype")) return e->kv_dtype;
    if (!strcmp(name, "model")) return e->path;
    int n = !strcmp(name, "threads") ? e->info.n_threads : !strcmp(name, "ctx") ? e->plan.n_ctx : !strcmp(name, "batch-tokens") ?
            e->plan.batch_tokens : !strcmp(name, "max-sequences") ? e->plan.max_sequences : 0;
    snprintf(text, 64, "%d", n);
    return n ? text : NULL;
}

static void put_option(void *user, const arg_option *o, const char *value) {
    visitor *v = user;
    char text[64];
    if (cli_record_leaves_out(o->name)) return;
    if (v->last && !strcmp(v->last, o->name)) { /* one more of a list */
        sill__str_puts(v->s, ", ");
        put_json(v->s, value);
        return;
    }
    sill__str_puts(v->s, v->list ? "],\n    " : v->last ? ",\n    " : "\n    ");
    v->last = o->name;
    v->list = o->type == ARG_LIST && value;
    put_json(v->s, o->name);
    sill__str_puts(v->s, v->list ? ": [" : ": ");
    if (o->type == ARG_FLAG) sill__str_puts(v->s, value || value_by_default(v->run, o->name) ? "true" : "false");
    else if (!value && o->type == ARG_CHOICE && !resolved(v->run, o->name, text)) put_json(v->s, o->choices[0]);
    else put_json(v->s, value ? value : resolved(v->run, o->name, text));
}

static char *take(sill__str *s, bool *ok) {
    char *out = s->failed ? NULL : sill__strndup(s->p ? s->p : "", s->n);
    if (!out) *ok = false;
    sill__str_free(s);
    return out;
}

static char *model_json(cli_run *run, bool *ok) {
    sill__str s;
    size_t n = 0;
    char *path = realpath(run->engine->path, NULL);
    sill__str_init(&s, (size_t)1 << 26);
    sill__str_puts(&s, "{\"file\": ");
    put_json(&s, path ? path : run->engine->path);
    sill__str_puts(&s, ", \"sha256\": ");
    put_json(&s, cli_identity_sha256(run->identity));
    sill__str_puts(&s, ", \"tokenizer_sha256\": ");
    put_json(&s, cli_identity_tokenizer(run->identity));
    sill__str_puts(&s, ", \"files\": [");
    const cli_file_hash *files = cli_identity_files(run->identity, &n);
    for (size_t i = 0; i < n; i++) {
        sill__str_puts(&s, i ? ", {\"name\": " : "{\"name\": ");
        put_json(&s, files[i].name);
        sill__str_putf(&s, ", \"bytes\": %llu, \"sha256\": \"%s\"}", (unsigned long long)files[i].bytes, files[i].sha256);
    }
    sill__str_puts(&s, "]}");
    free(path);
    return take(&s, ok);
}

static char *device_json(const cli_run *run, bool *ok) {
    sill__str s;
    char os[256];
    const cli_engine *e = run->engine->model ? run->engine : NULL;
    sill__str_init(&s, (size_t)1 << 20);
    sill__os_version(os, sizeof os);
    sill__str_puts(&s, "{\"system\": ");
    put_json(&s, os);
    if (e) {
        const struct { const char *name, *value; } texts[] = {{"device", e->info.device}, {"check", e->info.device_check}, {"stored_type",
            e->info.stored_type}, {"dtype", e->info.dtype}, {"kv_dtype", e->kv_dtype}, {"kernels", "batched"}};
        for (size_t i = 0; i < SILL_ARRAY_LEN(texts); i++) {
            sill__str_putf(&s, ", \"%s\": ", texts[i].name);
            put_json(&s, texts[i].value);
        }
        sill__str_putf(&s, ", \"threads\": %d", (int)e->info.n_threads);
    }
    const sill__codec *codec = run->target ? sill__codec_of_path(cli_codecs, run->options->output) : NULL;
    if (codec) sill__str_putf(&s, ", \"packed\": \"%s %s\"", codec->name, cli_codec_version(codec));
    sill__str_puts(&s, "}");
    return take(&s, ok);
}

static char *copy(const char *text, bool *ok) {
    char *out = text ? sill__strndup(text, strlen(text)) : NULL;
    if (text && !out) *ok = false;
    return out;
}

static void copy_settings(const cli_settings *from, cli_settings *to) {
    for (size_t i = 0; i < from->n; i++) cli_settings_put(to, from->items[i].name, from->items[i].value);
}

sill_status cli_record_of_run(cli_run *run, double seconds, cli_record *r, sill_error *err) {
    bool ok = true;
    char now[32], sha[65], shard[32];
    time_t t = time(NULL);
    int n = 0;
    sill__str options;
    memset(r, 0, sizeof *r);
    sill__flow_counts c = sill__flow_get_counts(run->flow);
    cli_journal_past past = cli_journal_get_past(run->journal);
    visitor v = {.run = run, .s = &options, .record = r};
    strftime(now, sizeof now, "%Y-%m-%dT%H:%M:%SZ", gmtime(&t));
    snprintf(shard, sizeof shard, "%u/%u", run->shard, run->shards);
    r->command = copy(run->command, &ok);
    r->version = copy(sill_version(), &ok);
    r->commit = copy(SILL_BUILD_COMMIT, &ok);
    r->started = copy(past.started, &ok);
    r->finished = copy(now, &ok);
    r->shard = run->shards > 1 ? copy(shard, &ok) : NULL;
    r->seconds = past.seconds + seconds;
    r->sessions = past.sessions + 1;
    r->rows = c.written;
    r->failed = c.failed;
    r->long_rows = past.long_rows + run->long_rows;
    r->tokens = past.tokens + run->tokens;
    put_argument(r, "", run->command, NULL);
    args_visit(put_given, &v);
    char **words = args_positional(&n);
    put_argument(r, "", "--", NULL);
    for (int i = 0; i < n; i++) put_argument(r, "", words[i], NULL);
    char *path = run->input && strcmp(run->input, "-") ? realpath(run->input, NULL) : NULL;
    r->input = copy(path ? path : run->input && strcmp(run->input, "-") ? run->input : NULL, &ok);
    free(path);
    r->input_rows = c.read;
    sill__flow_input_sha256(run->flow, sha);
    r->input_sha256 = copy(sha, &ok);
    r->output_bytes = sill__writer_bytes(run->writer);
    sill__writer_sha256(run->writer, sha);
    r->output_sha256 = copy(sha, &ok);
    r->results_per_row = (uint64_t)run->n_sequences;
    const uint64_t *uneven = sill__flow_uneven(run->flow, &r->n_uneven);
    r->uneven = sill__calloc(2 * r->n_uneven + 1, sizeof *r->uneven);
    if (r->uneven && r->n_uneven) memcpy(r->uneven, uneven, 2 * r->n_uneven * sizeof *uneven);
    const uint64_t *failed = sill__flow_failed(run->flow, &r->n_failed_rows);
    r->failed_rows = sill__calloc(r->n_failed_rows + 1, sizeof *r->failed_rows);
    if (r->failed_rows && r->n_failed_rows) memcpy(r->failed_rows, failed, r->n_failed_rows * sizeof *failed);
    r->model_sha256 = copy(cli_identity_sha256(run->identity), &ok);
    r->model_json = model_json(run, &ok);
    r->device_json = device_json(run, &ok);
    const char *seed = cli_settings_get(&run->settings, "--seed");
    r->seed_json = copy(seed ? seed : !strcmp(run->command, "generate") ? "0" : "null", &ok);
    sill__str_init(&options, (size_t)1 << 28);
    sill__str_puts(&options, "{");
    args_visit(put_option, &v);
    sill__str_puts(&options, v.list ? "]\n  }" : "\n  }");
    r->options_json = take(&options, &ok);
    copy_settings(&run->settings, &r->settings);
    if (ok && r->uneven && r->failed_rows && !r->settings.failed) return SILL_OK;
    cli_record_free(r);
    return sill__fail(err, SILL_ENOMEM, "no memory for the record of the run");
}
