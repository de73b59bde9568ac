/* records.h - reads tests/fixtures/task/records.txt (see tools/fixtures/make_task.py), and models by name. */
#ifndef SILL_TEST_RECORDS_H
#define SILL_TEST_RECORDS_H

#include "test.h"

#define FIXTURES "tests/fixtures/task/"

typedef struct rec {
    char kind[16];
    int n;
    char *keys[32], *values[32];
} rec;

typedef struct recs {
    char *text, *at;
    rec now;
} recs;

static inline bool recs_open_file(recs *r, const char *name) {
    size_t n;
    char path[128];
    sill_error err = {0};
    memset(r, 0, sizeof *r);
    snprintf(path, sizeof path, FIXTURES "%s", name);
    if (sill__read_file(path, (size_t)16 << 20, &r->text, &n, &err) != SILL_OK) {
        FAIL("%s", err.msg);
        return false;
    }
    r->at = r->text;
    return true;
}

static inline bool recs_open(recs *r) { return recs_open_file(r, "records.txt"); }

static inline void recs_close(recs *r) { sill__free(r->text); }

static inline void rec_unescape(char *s) {
    char *to = s;
    for (; *s; s++) {
        if (*s == '\\' && s[1]) {
            s++;
            *to++ = *s == 'n' ? '\n' : *s;
        } else {
            *to++ = *s;
        }
    }
    *to = 0;
}

/* The next record of KIND. */
static inline bool recs_next(recs *r, const char *kind) {
    rec *now = &r->now;
    while (*r->at) {
        now->n = 0;
        char *line = r->at, *end;
        snprintf(now->kind, sizeof now->kind, "%.*s", (int)strcspn(line + 7, "\n"), line + 7);
        for (line += strcspn(line, "\n") + 1; *line && *line != '\n'; line = end + 1) {
            end = line + strcspn(line, "\n");
            *end = 0;
            char *space = strchr(line, ' ');
            if (space && now->n < (int)SILL_ARRAY_LEN(now->keys)) {
                *space = 0;
                rec_unescape(space + 1);
                now->keys[now->n] = line;
                now->values[now->n++] = space + 1;
            }
        }
        r->at = *line ? line + 1 : line;
        if (!strcmp(now->kind, kind)) return true;
    }
    return false;
}

static inline char *rec_text(const rec *r, const char *key) {
    for (int i = 0; i < r->n; i++)
        if (!strcmp(r->keys[i], key)) return r->values[i];
    return NULL;
}

static inline double rec_number(const rec *r, const char *key) {
    const char *s = rec_text(r, key);
    return s ? strtod(s, NULL) : 0;
}

/* Lists into the caller's array; returns their length. */
static inline int rec_floats(const rec *r, const char *key, double *out, int cap) {
    char *s = rec_text(r, key);
    int n = 0;
    while (s && *s && n < cap) {
        char *end;
        double d = strtod(s, &end);
        if (end == s) break;
        out[n++] = d;
        s = end;
    }
    return n;
}

static inline int rec_ints(const rec *r, const char *key, int32_t *out, int cap) {
    double d[1024];
    int n = rec_floats(r, key, d, SILL_MIN(cap, 1024));
    for (int i = 0; i < n; i++) out[i] = (int32_t)d[i];
    return n;
}

/* Splits at '|' in place. */
static inline int rec_split(char *s, const char **out, int cap) {
    int n = 0;
    while (s && n < cap) {
        out[n++] = s;
        s = strchr(s, '|');
        if (s) *s++ = 0;
    }
    return n;
}

static inline sill_model *test_model(const char *path, const char *device, int threads) {
    sill_model_options o = {.size = sizeof o, .device = device, .n_threads = threads};
    sill_error err = {0};
    sill_model *m = NULL;
    CHECK_OK(sill_model_load(path, &o, &m, &err), err);
    return m;
}

static inline sill_session *test_session_kv(sill_model *m, int n_ctx, int batch, int sequences, sill_kv_dtype kv) {
    sill_session_options o = {.size = sizeof o, .n_ctx = n_ctx, .batch_tokens = batch, .max_sequences = sequences,
                              .kv_dtype = kv};
    sill_error err = {0};
    sill_session *s = NULL;
    if (m) CHECK_OK(sill_session_create(m, &o, &s, &err), err);
    return s;
}
static inline sill_session *test_session(sill_model *m, int n_ctx, int batch, int sequences) {
    return test_session_kv(m, n_ctx, batch, sequences, SILL_KV_AUTO);
}

/* A source of rows from an array. */
typedef struct test_rows { const sill_row *rows; int n, at; } test_rows;

static inline int test_next(test_rows *s, sill_row *row) {
    if (s->at == s->n) return 0;
    *row = s->rows[s->at++];
    return 1;
}

/* Models of the fixtures, loaded once a device; free_models gives them back. */
static struct { char name[32], device[8]; sill_model *model; } model_cache[32];

static inline sill_model *model_of(const rec *r, const char *device) {
    const char *name = rec_text(r, "model");
    char path[128];
    for (size_t i = 0; i < SILL_ARRAY_LEN(model_cache); i++) {
        if (model_cache[i].model && !strcmp(model_cache[i].name, name) && !strcmp(model_cache[i].device, device)) return model_cache[i].model;
        if (model_cache[i].model) continue;
        snprintf(model_cache[i].name, sizeof model_cache[i].name, "%s", name);
        snprintf(model_cache[i].device, sizeof model_cache[i].device, "%s", device);
        snprintf(path, sizeof path, FIXTURES "%s", name);
        return model_cache[i].model = test_model(path, device, 2);
    }
    return NULL;
}

static inline void free_models(void) {
    for (size_t i = 0; i < SILL_ARRAY_LEN(model_cache); i++) {
        sill_model_free(model_cache[i].model);
        model_cache[i].model = NULL;
    }
}

#endif
