/*
 * attention.c - attention over keys and values that every type of cache holds exactly (small whole numbers), so that its
 * own arithmetic is seen, and the way there (the KV write of op_qkv) to the bit. Ragged steps, grouped queries, block
 * borders, a copied block.
 */
#include "backend/check/internal.h"
#include "backend/check/steps.h"

#include <math.h>
#include <stdio.h>

typedef struct heads { int32_t n_heads, n_kv_heads, head_dim; bool lengthy; } heads;

static const heads full[] = {{7, 7, 5, false},   {4, 4, 16, false}, {6, 2, 24, false},   {5, 1, 33, false}, {12, 12, 64, false},
                             {9, 3, 64, false},  {3, 1, 80, false}, {16, 4, 96, false},  {4, 1, 128, false}, {2, 1, 256, false},
                             {4, 2, 64, true},   {8, 1, 48, false}};
static const heads quick[] = {{9, 3, 64, false}}; /* layers.c has other sizes */
static const char *const kv_names[] = {"f32", "f16", "int8"};

enum { KV };

typedef struct inputs { sill__tensor *w; float *x; int32_t width; heads own; } inputs;

static const heads *shape_of(const check_case *c) { return c->spec; }
static size_t out_width(const heads *h) { return (size_t)h->n_heads * (size_t)h->head_dim; }

/* Heads as the model at hand has them, a few of them. */
static heads heads_of(const sill__use *use) {
    const int32_t n_kv_heads = SILL_MIN(use->n_kv_heads, 2);
    return (heads){use->group * n_kv_heads, n_kv_heads, use->head_dim, false};
}

static bool pick_attention(check_case *c, sill__check_level level, int i) {
    if (c->use) {
        const heads own = heads_of(c->use);
        c->v[KV] = c->use->kv;
        snprintf(c->name, sizeof c->name, "%d heads of %d over %d in %s", (int)own.n_heads, (int)own.head_dim, (int)own.n_kv_heads,
                 kv_names[c->v[KV]]);
        return i == 0;
    }
    const heads *list = level == SILL__CHECK_FULL ? full : quick;
    int n = level == SILL__CHECK_FULL ? (int)SILL_ARRAY_LEN(full) : (int)SILL_ARRAY_LEN(quick);
    if (i >= 3 * n) return false;
    const heads *h = &list[i % n];
    c->spec = h;
    c->v[KV] = i / n;
    c->large = c->no_bits = h->lengthy;
    snprintf(c->name, sizeof c->name, "%d heads of %d over %d in %s%s", (int)h->n_heads, (int)h->head_dim, (int)h->n_kv_heads,
             kv_names[i / n], h->lengthy ? ", 602 positions" : "");
    return true;
}

/* Row j of a head takes one input, so that q, k and v are inputs: whole numbers over 64, keys of all -128 .. 127, values
 * of all -127 .. 127, of which int8's steps are exact. Queries are halved, some negative. */
static bool make_weight(check_case *c, inputs *d) {
    const heads *h = shape_of(c);
    int32_t rows = (h->n_heads + 2 * h->n_kv_heads) * h->head_dim;
    float *w = sill__arena_alloc(&c->arena, (size_t)rows * (size_t)d->width * sizeof *w);
    d->w = sill__arena_alloc(&c->arena, sizeof *d->w);
    if (!w || !d->w) return false;
    for (int32_t head = 0; head < h->n_heads + 2 * h->n_kv_heads; head++)
        for (int32_t j = 0; j < h->head_dim; j++) {
            bool query = head < h->n_heads, value = head >= h->n_heads + h->n_kv_heads;
            int32_t from = 2 + (j * 5 + head * 3) % (d->width - 2); /* any but the two extremes */
            if (!query && j == 0) from = 1;
            if (!query && !value && j == 1) from = 0;
            w[((size_t)head * (size_t)h->head_dim + (size_t)j) * (size_t)d->width + (size_t)from] =
                query ? (j % 3 == head % 3 ? -0.5f : 0.5f) : 1.0f;
        }
    *d->w = (sill__tensor){.name = "check", .type = SILL__TYPE_F32, .n_dims = 2, .dims = {(uint64_t)rows, (uint64_t)d->width},
                           .data = (const uint8_t *)w, .bytes = (size_t)rows * (size_t)d->width * sizeof *w};
    return true;
}

static bool make_attention(check_case *c) {
    char line[40];
    inputs *d = sill__arena_alloc(&c->arena, sizeof *d);
    size_t rows = CHECK_SEQS * (size_t)CHECK_LEN;
    if (!d) return false;
    c->data = d;
    if (c->use) {
        d->own = heads_of(c->use);
        c->spec = &d->own;
    }
    const heads *h = shape_of(c);
    check_rng r = {0xa77e + (uint64_t)h->head_dim * 64 + (uint64_t)h->n_heads};
    d->width = 61;
    d->x = sill__arena_alloc(&c->arena, rows * (size_t)d->width * sizeof *d->x);
    if (!d->x || !make_weight(c, d)) return false;
    for (size_t i = 0; i < rows; i++) {
        float *x = d->x + i * (size_t)d->width;
        for (int32_t k = 0; k < d->width; k++) x[k] = (float)((int32_t)(sill__chk_next(&r) >> 40) % 255 - 127) / 64;
        x[0] = -2;
        x[1] = 127.0f / 64;
    }
    c->types[0] = SILL__TYPE_F32;
    c->need = (sill__need){.types = c->types, .n_types = 1, .kv = (sill__kv_type)c->v[KV], .n_heads = h->n_heads,
                           .n_kv_heads = h->n_kv_heads, .head_dim = h->head_dim};
    c->n_variants = 1;
    size_t n = (h->lengthy ? 1 : CHECK_SEQS) * (size_t)(h->lengthy ? CHECK_LEN : 70) * out_width(h);
    snprintf(line, sizeof line, "attention, kv %s", kv_names[c->v[KV]]);
    sill__chk_add_out(c, "queries, exact", n, 0, 1);
    sill__chk_add_out(c, line, n, (100 + 12 * sqrt((double)h->head_dim)) * 0x1p-24, 0);
    if (!h->lengthy) sill__chk_add_out(c, "copy of a KV block", 3 * out_width(h), c->outs[1].bound, 0);
    return true;
}

typedef struct memory { sill__weight *w; sill__ref x, q, out; check_batch batch; check_seqs seqs; } memory;

static memory *open_memory(const check_case *c, check_bench *b) {
    const heads *h = shape_of(c);
    const inputs *d = c->data;
    sill__weight_src src = {.parts = {d->w}, .n_parts = 1, .rows = d->w->dims[0], .cols = d->w->dims[1], .name = "check"};
    memory *m = sill__calloc(1, sizeof *m);
    if (!m) {
        b->status = sill__fail(&b->err, SILL_ENOMEM, "no memory for a batch");
        return NULL;
    }
    m->w = sill__chk_import(b, &src);
    m->x = sill__chk_room(b, (CHECK_STEP_ROWS + 1) * (size_t)d->width);
    m->q = sill__chk_room(b, CHECK_STEP_ROWS * out_width(h));
    m->out = sill__chk_room(b, CHECK_STEP_ROWS * out_width(h));
    sill__chk_queue(b, CHECK_STEP_ROWS, (int32_t)d->w->dims[0], 1, SILL__PATH_BATCH);
    check_seqs_init(&m->seqs, h->lengthy);
    sill__chk_kv(b, &(sill__kv_shape){2, h->n_kv_heads, h->head_dim, (sill__kv_type)c->v[KV], m->seqs.n_blocks});
    return m;
}

/* One step in layer 1 (of two, and a copy of a block takes both: layer 0 holds other tokens' keys and values); rows go to their places by sequence and position, or one behind the other. */
static void attend(const check_case *c, check_bench *b, memory *m, const check_step *step, float *q, float *out, bool placed) {
    const heads *h = shape_of(c);
    const inputs *d = c->data;
    size_t width = out_width(h), in = (size_t)d->width, len = h->lengthy ? CHECK_LEN : 70;
    check_batch_make(&m->batch, &m->seqs, step, 1);
    int32_t n = m->batch.batch.n_tokens;
    float *x = sill__alloc((CHECK_STEP_ROWS * (in + 2 * width) + in) * sizeof *x), *got_q = x + (CHECK_STEP_ROWS + 1) * in;
    if (!x) b->status = sill__fail(&b->err, SILL_ENOMEM, "no memory for rows");
    for (int32_t i = 0; x && i < n; i++)
        memcpy(x + (size_t)i * in, d->x + ((size_t)m->batch.seq[i] * CHECK_LEN + (size_t)m->batch.positions[i]) * in, in * sizeof *x);
    if (x) memcpy(x + (size_t)n * in, x, in * sizeof *x);
    sill__chk_write(b, m->x, x, ((size_t)n + 1) * in);
    sill__chk_begin(b, &m->batch.batch);
    if (sill__chk_ok(b)) {
        sill__op_qkv qkv = {.in = {m->x.buf, m->x.at + in * sizeof *x}, .q = m->q, .w = m->w, .kv = b->kv, .layer = 0, .n_heads = h->n_heads,
                            .n_kv_heads = h->n_kv_heads, .head_dim = h->head_dim};
        if (!h->lengthy) b->ops->qkv(b->queue, &qkv); /* each token has the next one's there */
        qkv.in = m->x;
        qkv.layer = 1;
        b->ops->qkv(b->queue, &qkv);
        b->ops->attention(b->queue, &(sill__op_attention){.q = m->q, .out = m->out, .kv = b->kv, .layer = 1, .n_heads = h->n_heads,
                                                          .n_kv_heads = h->n_kv_heads, .head_dim = h->head_dim,
                                                          .scale = 1 / sqrtf((float)h->head_dim)});
    }
    sill__chk_end(b);
    sill__chk_read(b, m->q, got_q, (size_t)n * width);
    sill__chk_read(b, m->out, got_q + CHECK_STEP_ROWS * width, (size_t)n * width);
    for (int32_t i = 0; sill__chk_ok(b) && i < n; i++) {
        size_t row = placed ? (size_t)m->batch.seq[i] * len + (size_t)m->batch.positions[i] : (size_t)i;
        if (q) memcpy(q + row * width, got_q + (size_t)i * width, width * sizeof *x);
        memcpy(out + row * width, got_q + (CHECK_STEP_ROWS + (size_t)i) * width, width * sizeof *x);
    }
    check_seqs_advance(&m->seqs, step);
    sill__free(x);
}

/* Sequence 3 (6 positions) goes on in a copy of its block; the block itself is overwritten by sequence 4's. */
static void fork_block(const check_case *c, check_bench *b, memory *m, float *out) {
    static const check_step next = {1, {{3, 3}}};
    sill__batch none = {0};
    int32_t old = m->seqs.blocks[3][0];
    sill__chk_begin(b, &none);
    if (sill__chk_ok(b)) {
        b->ops->kv_copy(b->queue, b->kv, old, m->seqs.spare, 6);
        b->ops->kv_copy(b->queue, b->kv, m->seqs.blocks[4][0], old, SILL__KV_BLOCK);
    }
    sill__chk_end(b);
    m->seqs.blocks[3][0] = m->seqs.spare;
    attend(c, b, m, &next, NULL, out, false);
}

static void run_attention(const check_case *c, check_bench *b, int variant, float *const *outs) {
    const heads *h = shape_of(c);
    const check_script *script = h->lengthy ? &sill__chk_long : &sill__chk_ragged;
    memory *m = open_memory(c, b);
    (void)variant;
    for (int i = 0; m && i < script->n_steps; i++) attend(c, b, m, &script->steps[i], outs[0], outs[1], true);
    if (m && !h->lengthy) fork_block(c, b, m, outs[2]);
    sill__free(m);
}

static void bits_attention(const check_case *c, check_bench *b, float *const *outs) {
    float *got = sill__calloc(c->outs[1].n, sizeof *got);
    if (!got) b->status = sill__fail(&b->err, SILL_ENOMEM, "no memory for %zu outputs", c->outs[1].n);
    for (size_t k = 0; k < N_CHECK_WAYS && sill__chk_ok(b) && !b->differs[0]; k++) {
        check_bench other;
        sill__chk_bench_open(&other, b->ops, b->device);
        memory *m = open_memory(c, &other);
        for (int i = 0; m && i < sill__chk_ways[k].n_steps; i++) attend(c, &other, m, &sill__chk_ways[k].steps[i], NULL, got, true);
        if (sill__chk_ok(&other) && memcmp(got, outs[1], c->outs[1].n * sizeof *got))
            snprintf(b->differs, sizeof b->differs, "%s other bits than ragged", sill__chk_ways[k].name);
        if (!sill__chk_ok(&other)) b->err = other.err, b->status = other.status;
        sill__free(m);
        sill__chk_bench_close(&other);
    }
    sill__free(got);
}

const check_kind sill__check_attention = {"attention", pick_attention, make_attention, run_attention, bits_attention, "same bits, attention"};
