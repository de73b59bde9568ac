/*
 * rig.h - runs a loaded model without the session layer: one queue, one KV cache, batches made by hand.
 * Also reads the reference files of tools/fixtures/make_models.py.
 */
#ifndef TESTS_MODEL_RIG_H
#define TESTS_MODEL_RIG_H

#include <stdlib.h>

#include "backend/cpu/kernels.h"
#include "model/model.h"
#include "test.h"

#define FIXTURES "tests/fixtures/model/"

/* ---- running */

typedef struct rig {
    sill_model *m;
    sill__queue *q;
    sill__kv *kv;
    sill__buf *mem, *out;
    sill__work work;
    int32_t max_tokens, n_vocab;
    int32_t *ids, *positions, *rows, *blocks;
    size_t hidden_at, targets_at, top_at, class_at; /* in out, behind the logits */
} rig;

static inline int32_t rig_max(int32_t a, int32_t b) { return a > b ? a : b; }

static inline void rig_close(rig *r) {
    if (!r->m) return;
    const sill__backend *ops = r->m->ops;
    if (r->q) ops->queue_free(r->m->device, r->q);
    if (r->kv) ops->kv_free(r->m->device, r->kv);
    if (r->mem) ops->buf_free(r->m->device, r->mem);
    if (r->out) ops->buf_free(r->m->device, r->out);
    free(r->ids);
    memset(r, 0, sizeof *r);
}

/* Room for MAX_TOKENS positions in all, any number of them in a step. */
static inline sill_status rig_open(rig *r, sill_model *m, sill__kv_type type, int32_t max_tokens, sill_error *err) {
    const sill__config *c = &m->config;
    const sill__backend *ops = m->ops;
    sill__device *d = m->device;
    int32_t heads = c->n_heads * c->head_dim, wide = (c->n_heads + 2 * c->n_kv_heads) * c->head_dim;
    int32_t width = rig_max(rig_max(c->n_embd, wide), 2 * c->n_ff), n_blocks = max_tokens / SILL__KV_BLOCK + 1;
    size_t t = (size_t)max_tokens, vocab = (size_t)c->n_vocab;
    memset(r, 0, sizeof *r);
    r->m = m;
    r->max_tokens = max_tokens;
    r->n_vocab = c->n_vocab;
    r->ids = calloc(4 * t + 8, sizeof *r->ids);
    r->positions = r->ids + t;
    r->rows = r->positions + t;
    r->blocks = r->rows + t;
    for (int32_t i = 0; i < n_blocks; i++) r->blocks[i] = n_blocks - 1 - i; /* blocks need not be in order */
    sill__kv_shape shape = {c->n_layers, c->n_kv_heads, c->head_dim, type, n_blocks};
    size_t at[4], bytes = 0, widths[4] = {(size_t)c->n_embd, (size_t)heads, (size_t)heads, (size_t)c->n_ff};
    for (int i = 0; i < 4; i++) {
        at[i] = bytes;
        bytes += (widths[i] * t * 4 + 63) & ~(size_t)63;
    }
    r->hidden_at = SILL_MIN(t, (size_t)64) * vocab * 4; /* logits of at most 64 rows a step */
    r->targets_at = r->hidden_at + (size_t)c->n_embd * t * 4;
    r->top_at = r->targets_at + t * 4;
    r->class_at = r->top_at + 2 * 5 * t * 4;
    sill_status s = ops->queue_create(d, &(sill__queue_shape){max_tokens, max_tokens, width, c->n_vocab, 0}, &r->q, err);
    if (s == SILL_OK) s = ops->kv_create(d, &shape, &r->kv, err);
    if (s == SILL_OK) s = ops->buf_create(d, bytes, &r->mem, err);
    if (s == SILL_OK) s = ops->buf_create(d, r->class_at + (size_t)(c->n_labels + 1) * t * 4, &r->out, err);
    r->work = (sill__work){{r->mem, at[0]}, {r->mem, at[1]}, {r->mem, at[2]}, {r->mem, at[3]}, r->kv};
    if (s != SILL_OK) rig_close(r);
    return s;
}

/* One step: N ids at positions POS ..; output rows are all of them. What is wanted stands in non-NULL places:
 * logits (n, n_vocab), hidden (n, n_embd), classes (n, n_labels), log-probabilities of targets (n), top five. */
typedef struct rig_want {
    float *logits, *hidden, *classes, *logprobs, *top_logprobs;
    const int32_t *targets;
    int32_t *top_ids;
} rig_want;

static inline sill_status rig_step(rig *r, const int32_t *ids, int32_t n, int32_t pos, rig_want want, sill_error *err) {
    const sill_model *m = r->m;
    const sill__backend *ops = m->ops;
    int32_t starts[4097];
    if (n > r->max_tokens || n > 4096 || (want.logits && n > 64)) return sill__fail(err, SILL_ERANGE, "rig: too many tokens");
    for (int32_t i = 0; i < n; i++) {
        r->ids[i] = ids[i];
        r->positions[i] = pos + i;
        r->rows[i] = i;
        starts[i] = i;
    }
    starts[n] = n;
    sill__run run = {0, n, pos, r->blocks};
    sill__batch batch = {n, 1, n, r->ids, r->positions, &run, r->rows};
    ops->begin(r->q, &batch);
    sill__model_forward(m, r->q, &r->work);
    if (want.hidden)
        ops->tap(r->q, &(sill__op_tap){.in = r->work.x, .out = {r->out, r->hidden_at}, .norm = m->norm_f,
                                       .width = m->config.n_embd, .rows = SILL__ROWS_OUT});
    if (want.classes)
        ops->linear(r->q, &(sill__op_linear){.in = r->work.x, .out = {r->out, r->class_at}, .rows = SILL__ROWS_OUT,
                                             .norm = m->norm_f, .w = m->score});
    if (want.logits || want.logprobs || want.top_ids) {
        sill__op_head head = {.in = r->work.x, .norm = m->norm_f, .w = m->head, .n_vocab = m->config.n_vocab};
        if (want.logits) head.logits = (sill__ref){r->out, 0};
        if (want.logprobs) {
            head.target_starts = starts;
            head.targets = want.targets;
            head.target_logprobs = (sill__ref){r->out, r->targets_at};
        }
        if (want.top_ids) {
            head.n_top = 5;
            head.top_ids = (sill__ref){r->out, r->top_at};
            head.top_logprobs = (sill__ref){r->out, r->top_at + 5 * (size_t)r->max_tokens * 4};
        }
        ops->head(r->q, &head);
    }
    sill_status s = ops->submit(r->q, NULL, err);
    if (s == SILL_OK) s = ops->wait(r->q, 0, err);
    if (s != SILL_OK) return s;
    size_t rows = (size_t)n * 4;
#define RIG_READ(to, offset, width) \
    if ((to) && ops->buf_read(m->device, (sill__ref){r->out, (offset)}, (to), rows * (size_t)(width)) != SILL_OK) \
        return sill__fail(err, SILL_EDEVICE, "rig: cannot read")
    RIG_READ(want.logits, 0, r->n_vocab);
    RIG_READ(want.hidden, r->hidden_at, m->config.n_embd);
    RIG_READ(want.classes, r->class_at, m->config.n_labels);
    RIG_READ(want.logprobs, r->targets_at, 1);
    RIG_READ(want.top_ids, r->top_at, 5);
    RIG_READ(want.top_logprobs, r->top_at + 5 * (size_t)r->max_tokens * 4, 5);
#undef RIG_READ
    return SILL_OK;
}

/* N greedy ids after the prompt. */
static inline sill_status rig_greedy(rig *r, const int32_t *prompt, int32_t n_prompt, int32_t *out, int32_t n, sill_error *err) {
    int32_t top[5 * 256];
    int32_t have = 0, last = 0;
    for (int32_t at = 0; at < n_prompt;) {
        int32_t k = n_prompt - at < 256 ? n_prompt - at : 256;
        sill_status s = rig_step(r, prompt + at, k, at, (rig_want){.top_ids = top}, err);
        if (s != SILL_OK) return s;
        at += k;
        last = k - 1;
    }
    while (have < n) {
        out[have++] = top[5 * last];
        if (have == n) break;
        sill_status s = rig_step(r, &out[have - 1], 1, n_prompt + have - 1, (rig_want){.top_ids = top}, err);
        if (s != SILL_OK) return s;
        last = 0;
    }
    return SILL_OK;
}

/* ---- references */

typedef struct rig_ref {
    int32_t n_vocab, n_embd, n_labels, n_sequences, n_prompt, n_new;
    struct { int32_t n; const int32_t *ids; const float *logits, *hidden, *classes; double loss; } sequences[8];
    const int32_t *prompt, *greedy;
    const float *margins;
    char *data;
} rig_ref;

static inline bool rig_ref_open(rig_ref *f, const char *name) {
    char path[256];
    size_t bytes;
    sill_error err = {0};
    memset(f, 0, sizeof *f);
    snprintf(path, sizeof path, FIXTURES "%s.ref", name);
    if (sill__read_file(path, 1 << 24, &f->data, &bytes, &err) != SILL_OK || bytes < 24 || memcmp(f->data, "SILLREF1", 8)) {
        FAIL("%s: no reference: %s", path, err.msg);
        sill__free(f->data);
        return false;
    }
    const char *p = f->data + 8;
#define RIG_TAKE(to, count) ((to) = (const void *)p, p += (size_t)(count) * 4)
    memcpy(&f->n_vocab, p, 16); /* four numbers in a row */
    p += 16;
    for (int32_t i = 0; i < f->n_sequences && i < 8; i++) {
        memcpy(&f->sequences[i].n, p, 4);
        p += 4;
        RIG_TAKE(f->sequences[i].ids, f->sequences[i].n);
        if (f->n_labels == 0) RIG_TAKE(f->sequences[i].logits, (size_t)f->sequences[i].n * (size_t)f->n_vocab);
        memcpy(&f->sequences[i].loss, p, 8);
        p += 8;
        RIG_TAKE(f->sequences[i].hidden, f->n_embd);
        RIG_TAKE(f->sequences[i].classes, f->n_labels);
    }
    memcpy(&f->n_prompt, p, 8);
    p += 8;
    RIG_TAKE(f->prompt, f->n_prompt);
    RIG_TAKE(f->greedy, f->n_new);
    RIG_TAKE(f->margins, f->n_new);
#undef RIG_TAKE
    if (p == f->data + bytes) return true;
    FAIL("%s: %zu bytes, read %zu", path, bytes, (size_t)(p - f->data));
    sill__free(f->data);
    return false;
}

/* Largest difference of two rows over the largest magnitude of the second. */
static inline double rig_distance(const float *a, const float *b, size_t n) {
    double worst = 0, size = 0;
    for (size_t i = 0; i < n; i++) {
        double d = fabs((double)a[i] - b[i]);
        if (!(d <= worst)) worst = d; /* a NaN stays */
        if (fabs((double)b[i]) > size) size = fabs((double)b[i]);
    }
    return size > 0 ? worst / size : worst;
}

#endif
