/*
 * ops_common.h - small models of odd shapes on any backend, for the tests of its ops: random weights, sessions, ragged
 * steps, and what they leave behind.
 */
#ifndef SILL_TEST_OPS_COMMON_H
#define SILL_TEST_OPS_COMMON_H

#include "backend/check/shapes.h"
#include "backend/cpu/kernels.h"
#include "test.h"

#define N_SEQS 5
#define MAX_LEN 70
#define MAX_ROWS 160
#define BLOCKS_EACH 3
#define SPARE_BLOCKS 2 /* for forks */
#define N_TOP 5

typedef sill__check_shape shape;
#define shapes sill__check_layer_shapes

/* ------------------------------------------------------------------ weights */

static uint64_t seed;
static inline float uniform(float r) { return r * ((float)(test_random(&seed) >> 8) * 0x1p-23f - 1); }

typedef struct tensors { sill__tensor wte, wpe, qkv, out, in, back, head; } tensors;

/* Values of about 1 / sqrt(cols), so that rows keep their size from op to op. */
static inline sill__tensor make_tensor(sill__type type, int32_t rows, int32_t cols) {
    sill__tensor t = {.name = "t", .type = type, .n_dims = 2, .dims = {(uint64_t)rows, (uint64_t)cols}};
    float size = 1.7f / sqrtf((float)cols);
    t.bytes = (size_t)rows * sill__row_bytes(type, (uint64_t)cols);
    uint8_t *p = sill__alloc(t.bytes);
    size_t step = sill__type_get(type)->block_bytes;
    for (size_t at = 0; at < t.bytes; at += step) {
        float f = uniform(size);
        uint16_t h = type == SILL__TYPE_BF16 ? sill__f32_to_bf16(f) : sill__f32_to_f16(f);
        if (type == SILL__TYPE_F32) memcpy(p + at, &f, 4);
        else if (step == 2) memcpy(p + at, &h, 2);
        else {
            for (size_t i = 2; i < step; i++) p[at + i] = (uint8_t)(test_random(&seed) >> 9);
            f = size / (type == SILL__TYPE_Q8_0 ? 128.0f : 8.0f);
            h = sill__f32_to_f16(f);
            memcpy(p + at, &h, 2);
            h = sill__f32_to_f16(-7.5f * f);
            if (type == SILL__TYPE_Q4_1) memcpy(p + at + 2, &h, 2);
        }
    }
    t.data = p;
    return t;
}

static inline int32_t qkv_rows(const shape *s) { return (s->n_heads + 2 * s->n_kv_heads) * s->head_dim; }

static inline void make_tensors(const shape *s, tensors *t) {
    int32_t q = s->n_heads * s->head_dim;
    sill__type out_type = sill__row_bytes(s->type, (uint64_t)q) ? s->type : SILL__TYPE_F32;
    seed = 11;
    t->wte = make_tensor(s->type, s->vocab, s->width);
    t->wpe = make_tensor(SILL__TYPE_F32, MAX_LEN, s->width);
    t->qkv = make_tensor(s->type, qkv_rows(s), s->width);
    t->out = make_tensor(out_type, s->width, q);
    t->in = make_tensor(s->type, s->act == SILL__ACT_SWIGLU ? 2 * s->n_ff : s->n_ff, s->width);
    t->back = make_tensor(s->type, s->width, s->n_ff);
    t->head = make_tensor(s->type, s->vocab + s->spare, s->width);
}

static inline void free_tensors(tensors *t) {
    sill__tensor *all[] = {&t->wte, &t->wpe, &t->qkv, &t->out, &t->in, &t->back, &t->head};
    for (size_t i = 0; i < SILL_ARRAY_LEN(all); i++) sill__free((void *)(uintptr_t)all[i]->data);
}

/* -------------------------------------------------------------------- world */

/* What a step leaves behind, by row; from T_HIDDEN on by output row. */
enum { T_EMBED, T_Q, T_ATTN, T_MID, T_FF, T_END, T_HIDDEN, T_SCORE, T_LOGITS, T_LSE, T_TARGETS, T_TOP, N_TRACES };
static const char *const trace_names[N_TRACES] = {"embed", "q", "attention", "linear+residual", "linear+activation",
                                                  "second layer", "tap", "linear of chosen rows", "logits", "lse", "target logprobs",
                                                  "top logprobs"};

typedef struct world {
    const sill__backend *ops;
    const shape *s;
    sill__device *d;
    sill__weight *wte, *wpe, *qkv, *out, *in, *back, *head;
    sill__buf *memory, *vectors;
    sill__ref x, traces[N_TRACES], top_ids, norm_w, norm_b, bias, inv_freq;
    size_t widths[N_TRACES];
    sill__kv *kv;
    sill__queue *queue;
    int32_t lengths[N_SEQS], blocks[N_SEQS][BLOCKS_EACH];
    bool guest; /* device and weights are another world's */
} world;

static inline bool import(world *w, const sill__tensor *t, sill__compute compute, sill__role role, sill__weight **out) {
    sill_error err = {0};
    sill__weight_src src = {.parts = {t}, .n_parts = 1, .rows = t->dims[0], .cols = t->dims[1], .compute = compute,
                            .role = role, .name = "test"};
    if (role != SILL__ROLE_EMBED && sill__type_get(t->type)->block == 1 && compute == SILL__COMPUTE_BLOCK_I8)
        src.as = SILL__TYPE_Q8_0;
    sill_status s = w->ops->weight_import(w->d, &src, out, &err);
    CHECK_OK(s, err);
    return s == SILL_OK;
}

static inline sill__ref place(world *w, size_t *at, size_t n) {
    sill__ref r = {w->memory, *at};
    *at += (n * 4 + 63) & ~(size_t)63;
    return r;
}

static inline void fill_vectors(world *w) {
    const shape *s = w->s;
    enum { N = 1024 };
    static float v[N];
    sill_error err = {0};
    seed = 5;
    CHECK_OK(w->ops->buf_create(w->d, 4 * N * sizeof *v, &w->vectors, &err), err);
    w->norm_w = (sill__ref){w->vectors, 0};
    w->norm_b = (sill__ref){w->vectors, sizeof v};
    w->bias = (sill__ref){w->vectors, 2 * sizeof v};
    w->inv_freq = (sill__ref){w->vectors, 3 * sizeof v};
    for (int i = 0; i < N; i++) v[i] = 1 + uniform(0.5f);
    CHECK_INT(w->ops->buf_write(w->d, w->norm_w, v, sizeof v), SILL_OK);
    for (int i = 0; i < N; i++) v[i] = uniform(0.3f);
    CHECK_INT(w->ops->buf_write(w->d, w->norm_b, v, sizeof v), SILL_OK);
    for (int i = 0; i < N; i++) v[i] = uniform(0.3f);
    CHECK_INT(w->ops->buf_write(w->d, w->bias, v, sizeof v), SILL_OK);
    for (int i = 0; i < N && s->rope_dims; i++) v[i] = powf(100, -2.0f * (float)i / (float)s->rope_dims);
    CHECK_INT(w->ops->buf_write(w->d, w->inv_freq, v, sizeof v), SILL_OK);
}

/* What belongs to one session of an open device: memory, KV cache, queue. */
static inline bool session_open(world *w) {
    const shape *s = w->s;
    const sill__backend *ops = w->ops;
    sill_error err = {0};
    size_t width = (size_t)s->width, q = (size_t)(s->n_heads * s->head_dim), vocab = (size_t)s->vocab, at = 0;
    size_t sizes[N_TRACES] = {width, q, q, width, (size_t)s->n_ff, width, width, (size_t)s->n_ff, vocab, 1, 2, N_TOP};
    memcpy(w->widths, sizes, sizeof sizes);
    for (int k = 0; k < 2; k++) { /* sizes, then places */
        at = 0;
        w->x = place(w, &at, width * MAX_ROWS);
        for (int i = 0; i < N_TRACES; i++) w->traces[i] = place(w, &at, sizes[i] * MAX_ROWS);
        w->top_ids = place(w, &at, N_TOP * MAX_ROWS);
        if (k == 0) CHECK_OK(ops->buf_create(w->d, at, &w->memory, &err), err);
    }
    sill__kv_shape kv = {2, s->n_kv_heads, s->head_dim, s->kv, N_SEQS * BLOCKS_EACH + SPARE_BLOCKS};
    CHECK_OK(ops->kv_create(w->d, &kv, &w->kv, &err), err);
    int32_t max_width = SILL_MAX(SILL_MAX(s->width, qkv_rows(s)), 2 * s->n_ff);
    CHECK_OK(ops->queue_create(w->d, &(sill__queue_shape){MAX_ROWS, MAX_ROWS, max_width, s->vocab, 0}, &w->queue, &err), err);
    for (int i = 0; i < N_SEQS; i++) {
        w->lengths[i] = 0;
        for (int b = 0; b < BLOCKS_EACH; b++) w->blocks[i][b] = (i + b * N_SEQS) * 7 % (N_SEQS * BLOCKS_EACH);
    }
    return w->memory && w->kv && w->queue;
}

static inline bool world_open(world *w, const sill__backend *ops, const char *isa, int n_threads, const shape *s, const tensors *t) {
    sill_error err = {0};
    sill__device_options options = {.n_threads = n_threads, .isa = isa};
    memset(w, 0, sizeof *w);
    w->ops = ops;
    w->s = s;
    CHECK_OK(ops->open(&options, &w->d, &err), err);
    if (!w->d) return false;
    fill_vectors(w);
    sill__need need = {.types = &s->type, .n_types = 1, .compute = s->compute, .kv = s->kv, .head_dim = s->head_dim};
    CHECK_OK(ops->supports(w->d, &need, &err), err);
    return session_open(w) && import(w, &t->wte, s->compute, SILL__ROLE_EMBED, &w->wte) &&
           import(w, &t->wpe, s->compute, SILL__ROLE_EMBED, &w->wpe) &&
           import(w, &t->qkv, s->compute, SILL__ROLE_BODY, &w->qkv) &&
           import(w, &t->out, s->compute, SILL__ROLE_BODY, &w->out) &&
           import(w, &t->in, s->compute, SILL__ROLE_BODY, &w->in) &&
           import(w, &t->back, s->compute, SILL__ROLE_BODY, &w->back) &&
           import(w, &t->head, s->compute, SILL__ROLE_HEAD, &w->head);
}

/* Another session on the device and weights of HOST, which must outlive it. */
static inline bool world_join(world *w, const world *host) {
    *w = *host;
    w->guest = true;
    w->memory = NULL;
    w->kv = NULL;
    w->queue = NULL;
    return session_open(w);
}

static inline void world_close(world *w) {
    if (!w->d) return;
    sill__weight *all[] = {w->wte, w->wpe, w->qkv, w->out, w->in, w->back, w->head};
    w->ops->queue_free(w->d, w->queue);
    w->ops->kv_free(w->d, w->kv);
    w->ops->buf_free(w->d, w->memory);
    if (w->guest) return;
    for (size_t i = 0; i < SILL_ARRAY_LEN(all); i++) w->ops->weight_free(w->d, all[i]);
    w->ops->buf_free(w->d, w->vectors);
    w->ops->close(w->d);
}

/* ---------------------------------------------------------------------- step */

/* n tokens each of some sequences, in this order. */
typedef struct part { int seq, n; } part;
typedef struct step { int n_parts; part parts[N_SEQS]; } step;

static inline int32_t token_of(const shape *s, int seq, int pos) { return (seq * 31 + pos * 17 + pos * pos) % s->vocab; }
static inline int32_t target_of(const shape *s, int seq, int pos, int k) { return (seq * 13 + pos * 7 + k * 251 + 1) % s->vocab; }

typedef struct rows {
    sill__batch batch;
    sill__run runs[N_SEQS];
    int32_t tokens[MAX_ROWS], positions[MAX_ROWS], out_rows[MAX_ROWS];
    int32_t target_starts[MAX_ROWS + 1], targets[2 * MAX_ROWS], seq[MAX_ROWS];
} rows;

/* Outputs are wanted of all rows but every third position's. */
static inline void make_rows(const world *w, const step *st, rows *r) {
    int32_t n = 0, n_out = 0;
    for (int i = 0; i < st->n_parts; i++) {
        int q = st->parts[i].seq;
        r->runs[i] = (sill__run){.first = n, .n = st->parts[i].n, .pos = w->lengths[q], .blocks = w->blocks[q]};
        for (int k = 0; k < st->parts[i].n; k++, n++) {
            int pos = w->lengths[q] + k;
            r->tokens[n] = token_of(w->s, q, pos);
            r->positions[n] = pos;
            if (pos % 3 == 1) continue;
            r->seq[n_out] = q;
            r->out_rows[n_out] = n;
            r->target_starts[n_out] = 2 * n_out;
            for (int j = 0; j < 2; j++) r->targets[2 * n_out + j] = target_of(w->s, q, pos, j);
            n_out++;
        }
    }
    r->target_starts[n_out] = 2 * n_out;
    r->batch = (sill__batch){n, st->n_parts, n_out, r->tokens, r->positions, r->runs, r->out_rows};
}

static inline void copy_rows(world *w, sill__ref from, int trace) {
    w->ops->tap(w->queue, &(sill__op_tap){.in = from, .out = w->traces[trace], .norm = {.kind = SILL__NORM_NONE},
                                         .width = (int32_t)w->widths[trace], .rows = SILL__ROWS_ALL});
}

static inline void record(world *w, const rows *r, bool keep_logits) {
    const shape *s = w->s;
    const sill__backend *ops = w->ops;
    sill__ref none = {0}, bias = s->bias ? w->bias : none;
    sill__norm norm = {s->norm, w->norm_w, s->norm == SILL__NORM_LAYER ? w->norm_b : none, 1e-5f}, no_norm = {.eps = 0};
    ops->embed(w->queue, &(sill__op_embed){.wte = w->wte, .wpe = s->positions ? w->wpe : NULL, .out = w->x, .width = s->width});
    for (int32_t layer = 0; layer < 2; layer++) {
        if (layer == 0) copy_rows(w, w->x, T_EMBED);
        ops->qkv(w->queue, &(sill__op_qkv){
            .in = w->x, .q = w->traces[T_Q], .norm = norm, .w = w->qkv, .bias = bias,
            .rope = {s->rope, s->rope_dims, w->inv_freq, 1.0f}, .kv = w->kv, .layer = layer, .n_heads = s->n_heads,
            .n_kv_heads = s->n_kv_heads, .head_dim = s->head_dim});
        ops->attention(w->queue, &(sill__op_attention){
            .q = w->traces[T_Q], .out = w->traces[T_ATTN], .kv = w->kv, .layer = layer, .n_heads = s->n_heads,
            .n_kv_heads = s->n_kv_heads, .head_dim = s->head_dim, .scale = 1 / sqrtf((float)s->head_dim)});
        ops->linear(w->queue, &(sill__op_linear){.in = w->traces[T_ATTN], .out = w->x, .norm = no_norm, .w = w->out,
                                                 .bias = bias, .residual = true});
        copy_rows(w, w->x, T_MID);
        ops->linear(w->queue, &(sill__op_linear){.in = w->x, .out = w->traces[T_FF], .norm = norm, .w = w->in,
                                                 .bias = bias, .act = s->act});
        ops->linear(w->queue, &(sill__op_linear){.in = w->traces[T_FF], .out = w->x, .norm = no_norm, .w = w->back,
                                                 .bias = bias, .residual = true});
    }
    copy_rows(w, w->x, T_END);
    ops->tap(w->queue, &(sill__op_tap){.in = w->x, .out = w->traces[T_HIDDEN], .norm = norm, .width = s->width,
                                      .rows = SILL__ROWS_OUT});
    ops->linear(w->queue, &(sill__op_linear){.in = w->x, .out = w->traces[T_SCORE], .rows = SILL__ROWS_OUT, .norm = norm,
                                             .w = w->in, .act = s->act});
    ops->head(w->queue, &(sill__op_head){
        .in = w->x, .norm = norm, .w = w->head, .bias = bias, .n_vocab = s->vocab,
        .logits = keep_logits ? w->traces[T_LOGITS] : none, .lse = w->traces[T_LSE], .target_starts = r->target_starts,
        .targets = r->targets, .target_logprobs = w->traces[T_TARGETS], .n_top = N_TOP, .top_ids = w->top_ids,
        .top_logprobs = w->traces[T_TOP]});
}

static inline void run_step(world *w, const step *st, rows *r, bool keep_logits) {
    sill_error err = {0};
    make_rows(w, st, r);
    uint64_t before = sill__alloc_count();
    w->ops->begin(w->queue, &r->batch);
    record(w, r, keep_logits);
    CHECK_OK(w->ops->submit(w->queue, NULL, &err), err);
    CHECK_OK(w->ops->wait(w->queue, 0, &err), err);
    CHECK_INT(sill__alloc_count() - before, 0);
    for (int i = 0; i < st->n_parts; i++) w->lengths[st->parts[i].seq] += st->parts[i].n;
}

static const float *trace(const world *w, int t) {
    return (const float *)(const void *)((const uint8_t *)w->ops->buf_map(w->d, w->memory) + w->traces[t].at);
}
static const int32_t *top_ids(const world *w) {
    return (const int32_t *)(const void *)((const uint8_t *)w->ops->buf_map(w->d, w->memory) + w->top_ids.at);
}

/* Results by sequence and position. */
typedef struct results {
    float hidden[N_SEQS][MAX_LEN][96], score[N_SEQS][MAX_LEN][192], lse[N_SEQS][MAX_LEN], targets[N_SEQS][MAX_LEN][2], top[N_SEQS][MAX_LEN][N_TOP];
    int32_t ids[N_SEQS][MAX_LEN][N_TOP];
} results;

static inline void collect(const world *w, const rows *r, results *out) {
    size_t width = w->widths[T_HIDDEN];
    for (int32_t i = 0; i < r->batch.n_out; i++) {
        int q = r->seq[i], pos = r->positions[r->out_rows[i]];
        memcpy(out->hidden[q][pos], trace(w, T_HIDDEN) + (size_t)i * width, width * 4);
        memcpy(out->score[q][pos], trace(w, T_SCORE) + (size_t)i * w->widths[T_SCORE], w->widths[T_SCORE] * 4);
        out->lse[q][pos] = trace(w, T_LSE)[i];
        memcpy(out->targets[q][pos], trace(w, T_TARGETS) + 2 * i, 8);
        memcpy(out->top[q][pos], trace(w, T_TOP) + N_TOP * i, N_TOP * 4);
        memcpy(out->ids[q][pos], top_ids(w) + N_TOP * i, N_TOP * 4);
    }
}

#endif
