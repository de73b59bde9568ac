/* record.c - OUT.run.json written and read; what goes into it is in describe.c. */
#include "record.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"

#define MAX_RECORD_FILE ((size_t)1 << 30)

char *cli_record_path(const char *target) {
    sill__str s;
    sill__str_init(&s, 65536);
    char *path = sill__str_putf(&s, "%s.run.json", target) ? sill__strndup(s.p, s.n) : NULL;
    sill__str_free(&s);
    return path;
}

void cli_record_free(cli_record *r) {
    char **texts[] = {&r->command, &r->version, &r->commit, &r->started, &r->finished, &r->shard, &r->input, &r->input_sha256, &r->output_sha256,
                      &r->model, &r->model_sha256, &r->seed_json, &r->model_json, &r->device_json, &r->options_json, &r->merged_json};
    for (size_t i = 0; i < SILL_ARRAY_LEN(texts); i++) sill__free(*texts[i]);
    for (size_t i = 0; i < r->n_arguments; i++) sill__free(r->arguments[i]);
    sill__free(r->arguments);
    sill__free(r->uneven);
    sill__free(r->failed_rows);
    cli_settings_free(&r->settings);
    memset(r, 0, sizeof *r);
}

/* ---- writing */

static void put_text(sill__str *s, const char *name, const char *value) {
    sill__str_putf(s, "\"%s\": ", name);
    if (value) sill__put_json_string(s, value, strlen(value));
    else sill__str_puts(s, "null");
}

static void put_member(sill__str *s, const char *name, const char *value) {
    sill__str_puts(s, "  ");
    put_text(s, name, value);
    sill__str_puts(s, ",\n");
}

static void put_raw(sill__str *s, const char *name, const char *json) {
    if (json) sill__str_putf(s, "  \"%s\": ", name);
    if (json) sill__str_puts(s, json);
    if (json) sill__str_puts(s, ",\n");
}

static void put_number(sill__str *s, const char *name, uint64_t n) { sill__str_putf(s, "  \"%s\": %llu,\n", name, (unsigned long long)n); }

static void put_record(sill__str *s, const cli_record *r) {
    char sha[65];
    sill__str_puts(s, "{\n  \"sill_run\": 1,\n");
    put_member(s, "command", r->command);
    sill__str_puts(s, "  \"arguments\": [");
    for (size_t i = 0; i < r->n_arguments; i++) {
        if (i) sill__str_puts(s, ", ");
        sill__put_json_string(s, r->arguments[i], strlen(r->arguments[i]));
    }
    sill__str_puts(s, "],\n");
    put_member(s, "version", r->version);
    put_member(s, "commit", r->commit);
    put_member(s, "started", r->started);
    put_member(s, "finished", r->finished);
    sill__str_putf(s, "  \"seconds\": %.3f,\n", r->seconds);
    put_number(s, "sessions", r->sessions);
    put_number(s, "rows", r->rows);
    put_number(s, "failed", r->failed);
    sill__str_puts(s, "  \"failed_rows\": [");
    for (size_t i = 0; i < r->n_failed_rows; i++) sill__str_putf(s, i ? ", %llu" : "%llu", (unsigned long long)r->failed_rows[i]);
    sill__str_puts(s, "],\n");
    put_number(s, "long_rows", r->long_rows);
    put_number(s, "tokens", r->tokens);
    put_raw(s, "seed", r->seed_json);
    put_member(s, "shard", r->shard);
    put_raw(s, "merged", r->merged_json);
    sill__str_puts(s, "  \"input\": {");
    put_text(s, "file", r->input);
    sill__str_putf(s, ", \"rows\": %llu, ", (unsigned long long)r->input_rows);
    put_text(s, "rows_sha256", r->input_sha256);
    sill__str_putf(s, "},\n  \"output\": {\"bytes\": %llu, ", (unsigned long long)r->output_bytes);
    put_text(s, "sha256", r->output_sha256);
    sill__str_putf(s, ", \"results_per_row\": %llu, \"other\": [", (unsigned long long)r->results_per_row);
    for (size_t i = 0; i < r->n_uneven; i++)
        sill__str_putf(s, "%s[%llu, %llu]", i ? ", " : "", (unsigned long long)r->uneven[2 * i], (unsigned long long)r->uneven[2 * i + 1]);
    sill__str_puts(s, "]},\n");
    put_raw(s, "model", r->model_json);
    put_raw(s, "device", r->device_json);
    put_raw(s, "options", r->options_json);
    sill__str_puts(s, "  \"settings\": {");
    for (size_t i = 0; i < r->settings.n; i++) {
        sill__str_puts(s, i ? ",\n    " : "\n    ");
        sill__put_json_string(s, r->settings.items[i].name, strlen(r->settings.items[i].name));
        sill__str_puts(s, ": ");
        sill__put_json_string(s, r->settings.items[i].value, strlen(r->settings.items[i].value));
    }
    cli_settings_sha256(&r->settings, sha);
    sill__str_putf(s, "\n  },\n  \"settings_sha256\": \"%s\"\n}\n", sha);
}

static int write_whole(const char *path, const char *bytes, size_t n) {
    unlink(path); /* of an earlier end; nor is a link there followed */
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666), why = fd < 0 ? errno : 0;
    if (!why) why = sill__write_all(fd, bytes, n, NULL);
    if (fd >= 0 && !why && fsync(fd) != 0 && errno != EINVAL && errno != ENOTSUP) why = errno;
    if (fd >= 0 && close(fd) != 0 && !why) why = errno;
    return why;
}

sill_status cli_record_write(const char *path, const cli_record *r, sill_error *err) {
    sill__str s, temp;
    int why = 0;
    sill__str_init(&s, MAX_RECORD_FILE);
    sill__str_init(&temp, 65536);
    put_record(&s, r);
    bool ok = !s.failed && sill__str_putf(&temp, "%s.partial", path);
    if (ok && !(why = write_whole(temp.p, s.p, s.n)) && rename(temp.p, path) != 0) why = errno;
    if (ok && why) unlink(temp.p);
    sill__str_free(&s);
    sill__str_free(&temp);
    if (!ok) return sill__fail(err, SILL_ENOMEM, "no memory for the record of the run");
    return why ? sill__fail(err, SILL_EIO, "%s: %s", path, strerror(why)) : SILL_OK;
}

/* ---- reading */

bool cli_record_shard(const cli_record *r, unsigned *i, unsigned *n) {
    char *end = r->shard;
    *i = *n = 1;
    if (!r->shard) return false;
    const unsigned long at = strtoul(r->shard, &end, 10), all = *end == '/' ? strtoul(end + 1, &end, 10) : 0;
    if (*end || at < 1 || at > all || all > CLI_MAX_SHARDS) return false;
    *i = (unsigned)at;
    *n = (unsigned)all;
    return true;
}

static char *text_of(sill__json *j) {
    sill__str s;
    if (sill__json_peek(j) == SILL__JSON_NULL) {
        sill__json_skip(j);
        return NULL;
    }
    sill__str_init(&s, MAX_RECORD_FILE);
    char *out = sill__json_string(j, &s) ? sill__strndup(s.p ? s.p : "", s.n) : NULL;
    sill__str_free(&s);
    return out;
}

static char *raw_of(sill__json *j) {
    sill__json_peek(j);
    const char *from = j->p;
    if (!sill__json_skip(j)) return NULL;
    while (from < j->p && strchr(" \t\r\n:", *from)) from++;
    return sill__strndup(from, (size_t)(j->p - from));
}

static uint64_t count_of(sill__json *j) {
    int64_t v = 0;
    return sill__json_int(j, &v) && v > 0 ? (uint64_t)v : 0;
}

static void read_arguments(sill__json *j, cli_record *r) {
    if (!sill__json_enter(j, SILL__JSON_ARRAY)) return;
    while (sill__json_next_element(j)) {
        char **p = sill__realloc(r->arguments, (r->n_arguments + 1) * sizeof *p);
        char *text = text_of(j);
        if (p) r->arguments = p;
        if (p && text) r->arguments[r->n_arguments++] = text;
        else sill__free(text);
    }
}

static void read_failed_rows(sill__json *j, cli_record *r) {
    size_t cap = r->n_failed_rows;
    if (!sill__json_enter(j, SILL__JSON_ARRAY)) return;
    while (sill__json_next_element(j)) {
        if (r->n_failed_rows == cap) {
            uint64_t *p = sill__realloc(r->failed_rows, (cap = cap ? 2 * cap : 64) * sizeof *p);
            if (!p) return;
            r->failed_rows = p;
        }
        r->failed_rows[r->n_failed_rows++] = count_of(j);
    }
}

static void read_uneven(sill__json *j, cli_record *r) {
    size_t cap = r->n_uneven;
    if (!sill__json_enter(j, SILL__JSON_ARRAY)) return;
    while (sill__json_next_element(j)) {
        if (r->n_uneven == cap) {
            uint64_t *p = sill__realloc(r->uneven, (cap = cap ? 2 * cap : 64) * 2 * sizeof *p);
            if (!p) return;
            r->uneven = p;
        }
        uint64_t *at = &r->uneven[2 * r->n_uneven];
        at[0] = at[1] = 0;
        if (!sill__json_enter(j, SILL__JSON_ARRAY)) return;
        for (size_t i = 0; sill__json_next_element(j); i++)
            if (i < 2) at[i] = count_of(j);
        r->n_uneven++;
    }
}

static void read_setting(sill__json *j, const char *name, cli_record *r) {
    char *value = text_of(j);
    if (value) cli_settings_put(&r->settings, name, value);
    sill__free(value);
}

static void read_part(sill__json *j, const char *part, cli_record *r) {
    const struct { const char *part, *name; char **text; uint64_t *count; } members[] = {
        {"input", "file", &r->input, NULL}, {"input", "rows", NULL, &r->input_rows}, {"input", "rows_sha256", &r->input_sha256, NULL},
        {"output", "bytes", NULL, &r->output_bytes}, {"output", "sha256", &r->output_sha256, NULL},
        {"output", "results_per_row", NULL, &r->results_per_row}, {"model", "file", &r->model, NULL}, {"model", "sha256", &r->model_sha256, NULL}};
    char key[80];
    if (!sill__json_enter(j, SILL__JSON_OBJECT)) return;
    while (sill__json_next_member(j, key, sizeof key, NULL)) {
        size_t i = 0;
        while (i < SILL_ARRAY_LEN(members) && (strcmp(part, members[i].part) != 0 || strcmp(key, members[i].name) != 0)) i++;
        const bool known = i < SILL_ARRAY_LEN(members);
        if (!strcmp(part, "settings")) read_setting(j, key, r);
        else if (!strcmp(part, "output") && !strcmp(key, "other")) read_uneven(j, r);
        else if (known && members[i].count) *members[i].count = count_of(j);
        else if (known && !*members[i].text) *members[i].text = text_of(j);
        else sill__json_skip(j);
    }
}

/* A part that is kept as it stands, and read too. */
static char *kept_part(sill__json *j, const char *part, cli_record *r) {
    sill__json copy = *j;
    read_part(&copy, part, r);
    return raw_of(j);
}

static void read_member(sill__json *j, const char *key, cli_record *r) {
    const struct { const char *name; char **to; } texts[] = {
        {"command", &r->command}, {"version", &r->version}, {"commit", &r->commit}, {"started", &r->started}, {"finished", &r->finished},
        {"shard", &r->shard}}, raws[] = {{"seed", &r->seed_json}, {"device", &r->device_json}, {"options", &r->options_json},
        {"merged", &r->merged_json}};
    const struct { const char *name; uint64_t *to; } counts[] = {
        {"sessions", &r->sessions}, {"rows", &r->rows}, {"failed", &r->failed}, {"long_rows", &r->long_rows}, {"tokens", &r->tokens}};
    for (size_t i = 0; i < SILL_ARRAY_LEN(texts); i++)
        if (!strcmp(key, texts[i].name)) {
            if (!*texts[i].to) *texts[i].to = text_of(j);
            return;
        }
    for (size_t i = 0; i < SILL_ARRAY_LEN(raws); i++)
        if (!strcmp(key, raws[i].name)) {
            if (!*raws[i].to) *raws[i].to = raw_of(j);
            return;
        }
    for (size_t i = 0; i < SILL_ARRAY_LEN(counts); i++)
        if (!strcmp(key, counts[i].name)) {
            *counts[i].to = count_of(j);
            return;
        }
    if (!strcmp(key, "seconds")) sill__json_double(j, &r->seconds);
    else if (!strcmp(key, "arguments")) read_arguments(j, r);
    else if (!strcmp(key, "failed_rows")) read_failed_rows(j, r);
    else if (!strcmp(key, "input") || !strcmp(key, "output") || !strcmp(key, "settings")) read_part(j, key, r);
    else if (!strcmp(key, "model") && !r->model_json) r->model_json = kept_part(j, key, r);
    else sill__json_skip(j);
}

sill_status cli_record_read(const char *path, cli_record *r, sill_error *err) {
    char *text = NULL, key[80], sha[65], stored[65] = "";
    size_t n = 0;
    int64_t kind = 0;
    sill__json j;
    memset(r, 0, sizeof *r);
    sill_status s = sill__read_file(path, MAX_RECORD_FILE, &text, &n, err);
    if (s != SILL_OK) return s;
    sill__json_init(&j, text, n);
    if (sill__json_enter(&j, SILL__JSON_OBJECT))
        while (sill__json_next_member(&j, key, sizeof key, NULL)) {
            if (!strcmp(key, "sill_run")) sill__json_int(&j, &kind);
            else if (!strcmp(key, "settings_sha256")) {
                char *sum = text_of(&j);
                if (sum && strlen(sum) < sizeof stored) memcpy(stored, sum, strlen(sum) + 1);
                sill__free(sum);
            } else read_member(&j, key, r);
        }
    if (!sill__json_finish(&j)) s = sill__json_fail(&j, path, err);
    cli_settings_sha256(&r->settings, sha);
    bool whole = kind == 1 && r->command && r->version && r->commit && r->started && r->finished && r->input_sha256 && r->output_sha256 &&
                 r->model_sha256 && r->results_per_row && r->n_arguments && !r->settings.failed;
    if (s == SILL_OK && !whole) s = sill__fail(err, SILL_EFORMAT, "%s is no record of a run that this version of sill reads", path);
    if (s == SILL_OK && strcmp(sha, stored)) s = sill__fail(err, SILL_EFORMAT, "%s was changed: its settings have another SHA-256 than it says", path);
    sill__free(text);
    if (s != SILL_OK) cli_record_free(r);
    return s;
}
