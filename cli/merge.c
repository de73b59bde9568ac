/* merge.c - `sill merge`: the outputs of the shards of a run as the one file that a run without shards writes. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "pack.h"
#include "results.h"

typedef struct merge_options { const char *output; bool overwrite; } merge_options;
typedef struct shard { const char *path; cli_record record; cli_results results; unsigned i, n; } shard;
typedef struct merging { shard *shards; size_t n; uint64_t *uneven; size_t n_uneven, cap; } merging;

/* ---- whether they belong together */

static sill_status read_shard(shard *s, sill_error *err) {
    sill_error own = {0};
    struct stat st;
    char *target = sill__writer_target(s->path), *path = target ? cli_record_path(target) : NULL;
    sill_status status = path ? cli_record_read(path, &s->record, &own) : sill__fail(&own, SILL_ENOMEM, "no memory for records");
    bool unfinished = target && cli_journal_exists(target);
    sill__free(target);
    sill__free(path);
    if (unfinished)
        status = sill__fail(&own, SILL_EINVAL, "%s is not finished: its run is under way, or ended before (%s.journal); give its command "
                            "again", s->path, s->path);
    else if (status == SILL_ENOENT)
        status = sill__fail(&own, SILL_EINVAL, "%s%s", s->path, sill__is_file(s->path) ? " has no record of its run (.run.json) beside it" :
                            " is not there: has its run finished?");
    else if (status == SILL_OK && !cli_record_shard(&s->record, &s->i, &s->n))
        status = sill__fail(&own, SILL_EINVAL, "%s is no shard: its run had no --shard", s->path);
    else if (status == SILL_OK && (stat(s->path, &st) != 0 || (uint64_t)st.st_size != s->record.output_bytes))
        status = sill__fail(&own, SILL_EINVAL, "%s was changed since its run", s->path);
    if (status != SILL_OK) *err = own;
    return status;
}

static void drop_setting(cli_settings *s, const char *name) {
    for (size_t i = 0; i < s->n; i++)
        if (!strcmp(s->items[i].name, name)) {
            sill__free(s->items[i].name);
            sill__free(s->items[i].value);
            memmove(s->items + i, s->items + i + 1, (--s->n - i) * sizeof *s->items);
            return;
        }
}

static sill_status same_run(const shard *a, const shard *b, sill_error *err) {
    char what[1024];
    if (a->n != b->n)
        return sill__fail(err, SILL_EINVAL, "%s is shard %s, %s is shard %s: of different runs", a->path, a->record.shard, b->path, b->record.shard);
    if (cli_settings_differ(&a->record.settings, &b->record.settings, what, sizeof what))
        return sill__fail(err, SILL_EINVAL, "%s and %s have different configurations: %s", a->path, b->path, what);
    if (strcmp(a->record.input_sha256, b->record.input_sha256))
        return sill__fail(err, SILL_EINVAL, "%s and %s were made of different inputs (%llu and %llu rows)", a->path, b->path,
                          (unsigned long long)a->record.input_rows, (unsigned long long)b->record.input_rows);
    if (strcmp(a->record.model_sha256, b->record.model_sha256))
        return sill__fail(err, SILL_EINVAL, "%s and %s were made with different models", a->path, b->path);
    return SILL_OK;
}

static int by_index(const void *a, const void *b) { return (int)((const shard *)a)->i - (int)((const shard *)b)->i; }

static sill_status check_shards(merging *m, sill_error *err) {
    char missing[256] = "";
    size_t n_missing = 0, at = 0, used = 0;
    for (size_t i = 0; i < m->n; i++) drop_setting(&m->shards[i].record.settings, "shard");
    for (size_t i = 1; i < m->n; i++) {
        sill_status s = same_run(&m->shards[0], &m->shards[i], err);
        if (s != SILL_OK) return s;
    }
    qsort(m->shards, m->n, sizeof *m->shards, by_index);
    for (size_t i = 1; i < m->n; i++)
        if (m->shards[i].i == m->shards[i - 1].i)
            return sill__fail(err, SILL_EINVAL, "%s and %s are both shard %s", m->shards[i - 1].path, m->shards[i].path, m->shards[i].record.shard);
    for (unsigned i = 1; i <= m->shards[0].n; i++) {
        if (at < m->n && m->shards[at].i == i) {
            at++;
            continue;
        }
        if (n_missing++ < 10) used += (size_t)snprintf(missing + used, sizeof missing - used, "%s%u/%u", n_missing > 1 ? ", " : "", i, m->shards[0].n);
    }
    return n_missing ? sill__fail(err, SILL_EINVAL, "%zu of %u shards are missing: %s%s", n_missing, m->shards[0].n, missing,
                                  n_missing > 10 ? ", ..." : "") : SILL_OK;
}

/* ---- joining */

static sill_status note_uneven(merging *m, uint64_t row, uint64_t n, sill_error *err) {
    if (m->n_uneven == m->cap) {
        size_t cap = m->cap ? 2 * m->cap : 64;
        uint64_t *p = sill__realloc(m->uneven, cap * 2 * sizeof *p);
        if (!p) return sill__fail(err, SILL_ENOMEM, "no memory for the numbers of failed rows");
        m->uneven = p;
        m->cap = cap;
    }
    m->uneven[2 * m->n_uneven] = row;
    m->uneven[2 * m->n_uneven++ + 1] = n;
    return SILL_OK;
}

static sill_status open_shards(merging *m, sill__writer *w, sill_error *err) {
    sill_status s = SILL_OK;
    for (size_t i = 0; s == SILL_OK && i < m->n; i++) {
        shard *h = &m->shards[i];
        s = cli_results_open(&h->results, h->path, &h->record, h->record.uneven, h->record.n_uneven, err);
        if (s == SILL_OK) s = cli_results_header(&h->results, err);
        if (s == SILL_OK && h->results.text.n && i == 0 && !h->results.row_bytes) s = sill__writer_put(w, h->results.text.p, h->results.text.n, err);
    }
    return s;
}

static sill_status join_rows(merging *m, sill__writer *w, sill_error *err) {
    char sha[65];
    sill_status s = open_shards(m, w, err);
    for (uint64_t row = 1; s == SILL_OK && row <= m->shards[0].record.input_rows; row++) {
        uint64_t n = 0;
        cli_results *r = &m->shards[(row - 1) % m->n].results;
        s = cli_stop ? sill__fail(err, SILL_ECANCELLED, "interrupted") : cli_results_row(r, row, &n, err);
        if (s == SILL_OK) s = sill__writer_put(w, r->text.p ? r->text.p : "", r->text.n, err);
        if (s == SILL_OK) s = sill__writer_end_row(w, err);
        if (s == SILL_OK && n != r->record->results_per_row) s = note_uneven(m, row, n, err);
    }
    for (size_t i = 0; s == SILL_OK && i < m->n; i++) {
        bool end = cli_results_at_end(&m->shards[i].results);
        cli_results_sha256(&m->shards[i].results, sha);
        if (!end || strcmp(sha, m->shards[i].record.output_sha256))
            s = sill__fail(err, SILL_EINVAL, "%s was changed since its run: its SHA-256 is another than its record says", m->shards[i].path);
    }
    return s;
}

static void keep_text(char **to, const char *from, bool later) {
    int d = strcmp(from, *to);
    char *copy = (later ? d > 0 : d < 0) ? sill__strndup(from, strlen(from)) : NULL;
    if (!copy) return;
    sill__free(*to);
    *to = copy;
}

static int by_number(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static bool add_failed(cli_record *r, const cli_record *o) {
    const size_t n = r->n_failed_rows + o->n_failed_rows;
    uint64_t *p = sill__realloc(r->failed_rows, (n + 1) * sizeof *p);
    if (!p) return false;
    r->failed_rows = p;
    if (o->n_failed_rows) memcpy(p + r->n_failed_rows, o->failed_rows, o->n_failed_rows * sizeof *p);
    qsort(p, n, sizeof *p, by_number);
    r->n_failed_rows = n;
    return true;
}

/* The record that a run without shards would have, but for the times. */
static sill_status write_record(merging *m, const sill__writer *w, const char *target, sill_error *err) {
    cli_record *r = &m->shards[0].record;
    char sha[65], *path = cli_record_path(target);
    sill_status s = SILL_OK;
    sill__str names;
    sill__str_init(&names, (size_t)1 << 24);
    for (size_t i = 0; i < m->n; i++) {
        const cli_record *o = &m->shards[i].record;
        const char *slash = strrchr(m->shards[i].path, '/');
        sill__str_puts(&names, i ? ", " : "[");
        sill__put_json_string(&names, slash ? slash + 1 : m->shards[i].path, strlen(slash ? slash + 1 : m->shards[i].path));
        if (!i) continue;
        keep_text(&r->started, o->started, false);
        keep_text(&r->finished, o->finished, true);
        r->seconds += o->seconds;
        r->sessions += o->sessions;
        r->rows += o->rows;
        r->failed += o->failed;
        if (!add_failed(r, o)) s = sill__fail(err, SILL_ENOMEM, "no memory for the numbers of failed rows");
        r->long_rows += o->long_rows;
        r->tokens += o->tokens;
    }
    sill__str_puts(&names, "]");
    sill__free(r->shard);
    r->shard = NULL;
    sill__free(r->merged_json);
    r->merged_json = names.failed ? NULL : sill__strndup(names.p, names.n);
    sill__str_free(&names);
    sill__free(r->uneven);
    r->uneven = m->uneven;
    r->n_uneven = m->n_uneven;
    m->uneven = NULL;
    r->output_bytes = sill__writer_bytes(w);
    sill__writer_sha256(w, sha);
    memcpy(r->output_sha256, sha, SILL_MIN(strlen(r->output_sha256), sizeof sha - 1));
    if (s == SILL_OK) s = path && r->merged_json ? cli_record_write(path, r, err) : sill__fail(err, SILL_ENOMEM, "no memory for a record");
    sill__free(path);
    return s;
}

static sill_status merge(merging *m, const merge_options *o, sill_error *err) {
    sill__writer *w = NULL;
    sill_status s = SILL_OK;
    for (size_t i = 0; i < m->n; i++) { /* all that is wrong is told at once: each means another run to be given again */
        sill_error why = {0};
        if (read_shard(&m->shards[i], &why) == SILL_OK) continue;
        if (s != SILL_OK) (void)cli_fail(err);
        *err = why;
        s = why.code;
    }
    if (s == SILL_OK) s = check_shards(m, err);
    if (s != SILL_OK) return s;
    const char *format = cli_settings_get(&m->shards[0].record.settings, "output format"), *vector = cli_settings_get(&m->shards[0].record.settings, "vector");
    const bool npy = format && !strcmp(format, "npy");
    sill__writer_options wo = {.path = o->output, .overwrite = o->overwrite, .raw = true, .vector = vector ? strtoul(vector, NULL, 10) : 0, .stop = &cli_stop, .codecs = cli_codecs,
                               .format = npy ? SILL__FORMAT_NPY : !format || !strcmp(format, "jsonl") ? SILL__FORMAT_JSONL : !strcmp(format, "tsv") ? SILL__FORMAT_TSV : SILL__FORMAT_CSV};
    char *target = sill__writer_target(o->output);
    for (size_t i = 0; s == SILL_OK && target && i < m->n; i++) {
        struct stat a, b;
        if (stat(target, &a) == 0 && stat(m->shards[i].path, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino)
            s = sill__fail(err, SILL_EINVAL, "the output %s is one of the shards; give it another name", o->output);
    }
    if (s == SILL_OK && !target) s = sill__fail(err, SILL_EIO, "%s: its name is too long, or its links lead in a circle", o->output);
    if (s == SILL_OK && cli_journal_exists(target))
        s = sill__fail(err, SILL_EINVAL, "%s has the journal of a run that is not finished beside it; finish that, or give another name", o->output);
    if (s == SILL_OK) s = sill__writer_open(&wo, NULL, NULL, 0, &w, err);
    if (s == SILL_OK) s = join_rows(m, w, err);
    if (s == SILL_OK) s = sill__writer_finish(w, err);
    if (s == SILL_OK && sill__is_file(target)) s = write_record(m, w, target, err);
    sill__free(target);
    sill__writer_free(w);
    return s;
}

static const char notes[] =
    "Every row of the input is in one shard; the merged file holds them in the input's order, byte for byte as a run\n"
    "without --shard writes it. Refused, with what to do: shards that are missing, not finished, changed since their run,\n"
    "or of different configurations, inputs or models.\n";

int cli_merge(int argc, char **argv) {
    static merge_options o;
    static const arg_option own[] = {
        {"output", 'o', ARG_TEXT, offsetof(merge_options, output), 0, 0, NULL, "OUT", "the merged file"},
        {"overwrite", 0, ARG_FLAG, offsetof(merge_options, overwrite), 0, 0, NULL, NULL, "replace OUT if it exists"},
    };
    const arg_command command = {"merge", "SHARD... -o OUT", "Joins the outputs of runs with --shard.",
                                 {{"output", own, SILL_ARRAY_LEN(own), &o}, cli_general_table()}, notes, 1, -1};
    char **files;
    int n;
    sill_error err = {0};
    merging m = {0};
    int status = args_parse(&command, argc, argv, &files, &n);
    if (status >= 0) return status;
    if (!o.output || !strcmp(o.output, "-")) return args_usage("merge", "-o OUT is missing: the merged file needs a name");
    m.shards = sill__calloc((size_t)n, sizeof *m.shards);
    m.n = m.shards ? (size_t)n : 0;
    for (size_t i = 0; i < m.n; i++) m.shards[i].path = files[i];
    sill_status s = m.shards ? merge(&m, &o, &err) : sill__fail(&err, SILL_ENOMEM, "no memory for %d shards", n);
    if (s == SILL_OK) {
        cli_say("merge: %llu rows of %zu shards -> %s", (unsigned long long)m.shards[0].record.rows, m.n, o.output);
        status = m.shards[0].record.failed ? EXIT_ROWS : EXIT_OK;
    } else {
        status = cli_fail(&err);
        if (s == SILL_EINVAL) status = EXIT_USAGE;
    }
    for (size_t i = 0; i < m.n; i++) {
        cli_results_close(&m.shards[i].results);
        cli_record_free(&m.shards[i].record);
    }
    sill__free(m.shards);
    sill__free(m.uneven);
    return status;
}
