/*
 * test_mat.c - the products of the Metal backend against the reference: every type of weights, both orientations, odd
 * shapes, every number of rows at which another tile is taken, both paths; and that tiles never show in the bits.
 */
#include "metal.h"

#define MAX_ROWS 80
#define MAX_WIDTH 4224
#define MAX_OUT 4128

static uint64_t seed;
static float uniform(float r) { return r * ((float)(test_random(&seed) >> 8) * 0x1p-23f - 1); }

/* ------------------------------------------------------------------ a device */

typedef struct side {
    const sill__backend *ops;
    sill__device *d;
    sill__queue *queue;
    sill__buf *memory;
    sill__ref in, out, gamma, beta, bias, inv_freq;
} side;

typedef struct shape {
    sill__type type;
    sill__compute compute;
    bool transposed;
    int32_t n_parts, rows[3], cols;
} shape;

static bool side_open(side *s, const sill__backend *ops, sill__path path) {
    static float values[MAX_OUT > MAX_WIDTH ? MAX_OUT : MAX_WIDTH];
    const size_t n = SILL_ARRAY_LEN(values), big = (size_t)MAX_ROWS * MAX_WIDTH;
    sill_error err = {0};
    memset(s, 0, sizeof *s);
    s->ops = ops;
    CHECK_OK(ops->open(&(sill__device_options){0}, &s->d, &err), err);
    if (!s->d) return false;
    CHECK_OK(ops->buf_create(s->d, (2 * big + 4 * n) * 4, &s->memory, &err), err);
    const sill__queue_shape q = {MAX_ROWS, MAX_ROWS, MAX_WIDTH, MAX_OUT, path};
    CHECK_OK(ops->queue_create(s->d, &q, &s->queue, &err), err);
    if (!s->memory || !s->queue) return false;
    sill__ref *refs[] = {&s->gamma, &s->beta, &s->bias, &s->inv_freq};
    s->in = (sill__ref){s->memory, 0};
    s->out = (sill__ref){s->memory, big * 4};
    seed = 3;
    for (size_t k = 0; k < 4; k++) {
        *refs[k] = (sill__ref){s->memory, (2 * big + k * n) * 4};
        for (size_t i = 0; i < n; i++)
            values[i] = k == 0 ? 1 + uniform(0.5f) : k < 3 ? uniform(0.3f) : powf(100, -(float)(i % 64) / 20.0f);
        CHECK_INT(ops->buf_write(s->d, *refs[k], values, sizeof values), SILL_OK);
    }
    return true;
}

static void side_close(side *s) {
    if (!s->d) return;
    if (s->queue) s->ops->queue_free(s->d, s->queue);
    if (s->memory) s->ops->buf_free(s->d, s->memory);
    s->ops->close(s->d);
}

static bool step_end(side *s) {
    sill_error err = {0};
    CHECK_OK(s->ops->submit(s->queue, NULL, &err), err);
    sill_status st = s->ops->wait(s->queue, 0, &err);
    CHECK_OK(st, err);
    return st == SILL_OK;
}

static void read_out(side *s, float *to, size_t n) { CHECK_INT(s->ops->buf_read(s->d, s->out, to, n * 4), SILL_OK); }

/* ------------------------------------------------------------------- weights */

static sill__tensor make_tensor(sill__type type, int32_t rows, int32_t cols, bool transposed) {
    sill__tensor t = {.name = "t", .type = type, .n_dims = 2, .dims = {(uint64_t)rows, (uint64_t)cols}};
    if (transposed) t.dims[0] = (uint64_t)cols, t.dims[1] = (uint64_t)rows;
    const float size = 1.7f / sqrtf((float)cols);
    const size_t step = sill__type_get(type)->block_bytes;
    t.bytes = (size_t)t.dims[0] * sill__row_bytes(type, t.dims[1]);
    uint8_t *p = sill__alloc(t.bytes + 16);
    for (size_t at = 0; at < t.bytes; at += step) {
        float f = uniform(size);
        uint16_t h = type == SILL__TYPE_BF16 ? sill__f32_to_bf16(f) : sill__f32_to_f16(f);
        if (step == 4) memcpy(p + at, &f, 4);
        else if (step == 2) memcpy(p + at, &h, 2);
        else {
            for (size_t i = 0; i < step; i++) p[at + i] = (uint8_t)(test_random(&seed) >> 9);
            const float unit = size * (1 + uniform(0.3f)) / (type == SILL__TYPE_Q8_0 ? 128.0f : type == SILL__TYPE_Q6_K ? 2048.0f :
                               type >= SILL__TYPE_Q4_K ? 512.0f : 12.0f);
            h = sill__f32_to_f16(unit);
            memcpy(p + at + (type == SILL__TYPE_Q6_K ? 208 : 0), &h, 2);
            h = sill__f32_to_f16(type >= SILL__TYPE_Q4_K ? 8 * unit : -7.5f * unit);
            if (type == SILL__TYPE_Q4_1 || type == SILL__TYPE_Q5_1 || type == SILL__TYPE_Q4_K || type == SILL__TYPE_Q5_K)
                memcpy(p + at + 2, &h, 2);
        }
    }
    t.data = p;
    return t;
}

typedef struct matrix { sill__tensor parts[3]; sill__weight *w[2]; int32_t rows; } matrix;

/* The same weights on both sides; the reference computes block types in f32, as the GPU does. */
static bool matrix_make(matrix *m, side *a, side *b, const shape *s) {
    sill_error err = {0};
    memset(m, 0, sizeof *m);
    seed = 17 + (uint64_t)s->type;
    sill__weight_src src = {.n_parts = s->n_parts, .transposed = s->transposed, .cols = (uint64_t)s->cols, .compute = s->compute,
                            .role = SILL__ROLE_BODY, .name = "test"};
    for (int i = 0; i < s->n_parts; i++) {
        /* Mixed: the last part of Q4_K's weights is Q6_K. */
        m->parts[i] = make_tensor(s->type == SILL__TYPE_Q4_K && i == 2 ? SILL__TYPE_Q6_K : s->type, s->rows[i], s->cols,
                                  s->transposed);
        src.parts[i] = &m->parts[i];
        m->rows += s->rows[i];
    }
    src.rows = (uint64_t)m->rows;
    CHECK_OK(b->ops->weight_import(b->d, &src, &m->w[1], &err), err);
    if (src.compute == SILL__COMPUTE_BLOCK_I8) src.compute = SILL__COMPUTE_F32;
    CHECK_OK(a->ops->weight_import(a->d, &src, &m->w[0], &err), err);
    return m->w[0] && m->w[1];
}

static void matrix_free(matrix *m, side *a, side *b) {
    a->ops->weight_free(a->d, m->w[0]);
    b->ops->weight_free(b->d, m->w[1]);
    for (int i = 0; i < 3; i++) sill__free((void *)(uintptr_t)m->parts[i].data);
}

/* ------------------------------------------------------------------- inputs */

static float input[MAX_ROWS * MAX_WIDTH], before[MAX_ROWS * MAX_OUT], got[MAX_ROWS * MAX_OUT], want[MAX_ROWS * MAX_OUT],
    again[MAX_ROWS * MAX_OUT];

static void make_inputs(int32_t cols) {
    seed = 23;
    for (int i = 0; i < MAX_ROWS * cols; i++) input[i] = uniform(2) + (i % 37 == 5 ? uniform(9) : 0);
    for (int i = 0; i < MAX_ROWS * MAX_OUT; i++) before[i] = uniform(1);
}

static double normalized_error(const float *a, const float *b, size_t n) {
    double error = 0, size = 1e-30;
    for (size_t i = 0; i < n; i++) {
        error += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        size += (double)b[i] * b[i];
    }
    return error / size;
}

typedef struct call { sill__norm_kind norm; bool bias, residual, gathered; sill__act act; } call;

/* Rows [first, first + n) of the inputs; gathered: those are every other row of what lies there. */
static void run_linear(side *s, const sill__weight *w, const call *c, int32_t cols, int32_t width, int32_t first, int32_t n,
                       float *out) {
    int32_t out_rows[MAX_ROWS], numbers[MAX_ROWS] = {0};
    const int32_t in_rows = c->gathered ? 2 * n - 1 : n;
    for (int32_t i = 0; i < n; i++) out_rows[i] = 2 * i;
    const sill__run run = {0, in_rows, 0, numbers};
    const sill__batch batch = {in_rows, 1, c->gathered ? n : 0, numbers, numbers, &run, out_rows};
    CHECK_INT(s->ops->buf_write(s->d, s->in, input + (size_t)first * (size_t)cols, (size_t)in_rows * (size_t)cols * 4), SILL_OK);
    CHECK_INT(s->ops->buf_write(s->d, s->out, before, (size_t)n * (size_t)width * 4), SILL_OK);
    sill__op_linear op = {.in = s->in, .out = s->out, .w = w, .rows = c->gathered ? SILL__ROWS_OUT : SILL__ROWS_ALL,
                          .norm = {.kind = c->norm, .eps = 1e-5f}, .act = c->act, .residual = c->residual};
    if (c->norm != SILL__NORM_NONE) op.norm.weight = s->gamma;
    if (c->norm == SILL__NORM_LAYER) op.norm.bias = s->beta;
    if (c->bias) op.bias = s->bias;
    s->ops->begin(s->queue, &batch);
    s->ops->linear(s->queue, &op);
    if (step_end(s)) read_out(s, out, (size_t)n * (size_t)width);
}

static const int32_t row_counts[] = {1, 2, 7, 8, 9, 16, 17, 33, 65};
static const call calls[] = {
    {SILL__NORM_NONE, false, false, false, SILL__ACT_NONE},
    {SILL__NORM_LAYER, true, false, false, SILL__ACT_GELU_TANH},
    {SILL__NORM_RMS, false, true, false, SILL__ACT_SWIGLU},
    {SILL__NORM_NONE, true, true, false, SILL__ACT_NONE},
    {SILL__NORM_LAYER, true, false, true, SILL__ACT_TANH},
};

static side ref, metal[2]; /* metal: by path */

static bool open_all(void) {
    static bool tried, all;
    if (!tried)
        all = side_open(&ref, sill__backend_ref(), SILL__PATH_BATCH) &&
              side_open(&metal[0], sill__backend_metal(), SILL__PATH_BATCH) &&
              side_open(&metal[1], sill__backend_metal(), SILL__PATH_LATENCY);
    else if (!all) FAIL("there is no device, as told above");
    tried = true;
    return all;
}

static void close_all(void) {
    side_close(&ref);
    side_close(&metal[0]);
    side_close(&metal[1]);
}

static void compare_linear(const shape *s, double bound) {
    matrix m;
    make_inputs(s->cols);
    if (!matrix_make(&m, &ref, &metal[0], s)) return;
    for (size_t k = 0; k < SILL_ARRAY_LEN(calls); k++) {
        const call *c = &calls[k];
        const int32_t width = c->act == SILL__ACT_SWIGLU ? m.rows / 2 : m.rows;
        if (c->act == SILL__ACT_SWIGLU && (m.rows % 2 || (s->type == SILL__TYPE_Q4_K && s->n_parts == 3))) continue;
        const int32_t most = c->gathered ? 33 : 65;
        run_linear(&ref, m.w[0], c, s->cols, width, 0, most, want);
        for (size_t i = 0; i < SILL_ARRAY_LEN(row_counts) && row_counts[i] <= most; i++) {
            const int32_t n = row_counts[i];
            run_linear(&metal[0], m.w[1], c, s->cols, width, 0, n, got);
            double e = normalized_error(got, want, (size_t)n * (size_t)width);
            if (!(e <= bound)) FAIL("%s %dx%d%s, call %zu, %d rows: error %.3g", sill__type_get(s->type)->name, m.rows, s->cols,
                                    s->transposed ? " transposed" : "", k, n, e);
            if (i && memcmp(got, again, (size_t)row_counts[i - 1] * (size_t)width * 4))
                FAIL("%s %dx%d%s, call %zu: %d rows have other bits among %d", sill__type_get(s->type)->name, m.rows, s->cols,
                     s->transposed ? " transposed" : "", k, row_counts[i - 1], n);
            memcpy(again, got, (size_t)n * (size_t)width * 4);
        }
        run_linear(&metal[1], m.w[1], c, s->cols, width, 0, 1, got);
        double e = normalized_error(got, want, (size_t)width);
        if (!(e <= bound)) FAIL("%s %dx%d%s, call %zu, matvec: error %.3g", sill__type_get(s->type)->name, m.rows, s->cols,
                                s->transposed ? " transposed" : "", k, e);
        /* Rows elsewhere in a tile: the last ones alone. */
        if (!c->gathered) {
            run_linear(&metal[0], m.w[1], c, s->cols, width, 60, 3, got);
            if (!c->residual && memcmp(got, again + 60 * (size_t)width, 3 * (size_t)width * 4))
                FAIL("%s, call %zu: the last rows have other bits alone", sill__type_get(s->type)->name, k);
        }
    }
    matrix_free(&m, &ref, &metal[0]);
}

/* ------------------------------------------------------------------ linear */

static void plain_types(void) {
    if (!open_all()) return;
    static const shape shapes[] = {
        {SILL__TYPE_F32, SILL__COMPUTE_F32, false, 1, {70}, 67},      {SILL__TYPE_F16, SILL__COMPUTE_F16, false, 1, {98}, 129},
        {SILL__TYPE_F16, SILL__COMPUTE_F16, false, 1, {64}, 768},     {SILL__TYPE_BF16, SILL__COMPUTE_BF16, false, 1, {34}, 130},
        {SILL__TYPE_BF16, SILL__COMPUTE_F32, false, 1, {130}, 31},    {SILL__TYPE_F32, SILL__COMPUTE_F32, false, 1, {10}, 9},
        {SILL__TYPE_F16, SILL__COMPUTE_F16, false, 3, {48, 16, 16}, 80}, {SILL__TYPE_F32, SILL__COMPUTE_F16, false, 2, {37, 37}, 47},
    };
    for (size_t i = 0; i < SILL_ARRAY_LEN(shapes); i++) compare_linear(&shapes[i], 1e-11);
}

static void transposed_types(void) {
    if (!open_all()) return;
    static const shape shapes[] = {
        {SILL__TYPE_F32, SILL__COMPUTE_F32, true, 1, {70}, 67},   {SILL__TYPE_F16, SILL__COMPUTE_F16, true, 1, {98}, 129},
        {SILL__TYPE_F16, SILL__COMPUTE_F16, true, 1, {71}, 64},   {SILL__TYPE_BF16, SILL__COMPUTE_BF16, true, 1, {100}, 33},
        {SILL__TYPE_F32, SILL__COMPUTE_F32, true, 2, {24, 24}, 40},
        {SILL__TYPE_F16, SILL__COMPUTE_F16, true, 1, {64}, 1030}, {SILL__TYPE_F32, SILL__COMPUTE_F16, true, 1, {71}, 33},
    };
    for (size_t i = 0; i < SILL_ARRAY_LEN(shapes); i++) compare_linear(&shapes[i], 1e-11);
}

static void blocks(void) {
    if (!open_all()) return;
    static const sill__type types[] = {SILL__TYPE_Q8_0, SILL__TYPE_Q4_0, SILL__TYPE_Q4_1, SILL__TYPE_Q5_0, SILL__TYPE_Q5_1};
    for (size_t i = 0; i < SILL_ARRAY_LEN(types); i++) {
        compare_linear(&(shape){types[i], SILL__COMPUTE_BLOCK_I8, false, 1, {70}, 96}, 1e-11);
        compare_linear(&(shape){types[i], SILL__COMPUTE_F32, false, 3, {32, 16, 16}, 320}, 1e-11);
    }
}

static void super_blocks(void) {
    if (!open_all()) return;
    static const sill__type types[] = {SILL__TYPE_Q4_K, SILL__TYPE_Q5_K, SILL__TYPE_Q6_K};
    for (size_t i = 0; i < SILL_ARRAY_LEN(types); i++) {
        compare_linear(&(shape){types[i], SILL__COMPUTE_BLOCK_I8, false, 1, {38}, 256}, 1e-11);
        compare_linear(&(shape){types[i], SILL__COMPUTE_BLOCK_I8, false, 3, {32, 8, 8}, 768}, 1e-11);
    }
}

/* Shapes at which the host takes wider tiles, more lanes, more rows a SIMD group; and rows too wide to be staged. */
static void large_shapes(void) {
    if (!open_all()) return;
    static const shape shapes[] = {
        {SILL__TYPE_F16, SILL__COMPUTE_F16, false, 1, {4106}, 40}, {SILL__TYPE_Q4_1, SILL__COMPUTE_BLOCK_I8, false, 1, {4098}, 32},
        {SILL__TYPE_F16, SILL__COMPUTE_F16, true, 1, {2052}, 35},  {SILL__TYPE_F32, SILL__COMPUTE_F32, true, 1, {1026}, 20},
        {SILL__TYPE_F16, SILL__COMPUTE_F16, true, 1, {18}, 2050},  {SILL__TYPE_F32, SILL__COMPUTE_F32, false, 1, {18}, 4200},
        {SILL__TYPE_Q6_K, SILL__COMPUTE_BLOCK_I8, false, 1, {10}, 4096},
    };
    for (size_t i = 0; i < SILL_ARRAY_LEN(shapes); i++) compare_linear(&shapes[i], 1e-11);
    compare_linear(&(shape){SILL__TYPE_F32, SILL__COMPUTE_INT8, false, 1, {12}, 4130}, 1e-5);
}

/* Output over input. */
static void output_over_input(void) {
    if (!open_all()) return;
    static const shape s = {SILL__TYPE_F16, SILL__COMPUTE_F16, false, 1, {48}, 48};
    matrix m;
    make_inputs(s.cols);
    if (!matrix_make(&m, &ref, &metal[0], &s)) return;
    for (int32_t n = 1; n <= 40; n += 13) {
        side *sides[] = {&ref, &metal[0], &metal[1]};
        for (int k = 0; k < 3; k++) {
            const int32_t numbers[MAX_ROWS] = {0};
            const sill__run run = {0, n, 0, numbers};
            const sill__batch batch = {n, 1, 0, numbers, numbers, &run, numbers};
            const sill__ref x = sides[k]->out;
            CHECK_INT(sides[k]->ops->buf_write(sides[k]->d, x, input, (size_t)n * 48 * 4), SILL_OK);
            sides[k]->ops->begin(sides[k]->queue, &batch);
            sides[k]->ops->linear(sides[k]->queue, &(sill__op_linear){.in = x, .out = x, .w = m.w[k > 0], .residual = true,
                                  .norm = {.kind = SILL__NORM_LAYER, .weight = sides[k]->gamma, .eps = 1e-5f}});
            if (step_end(sides[k])) read_out(sides[k], k ? got : want, (size_t)n * 48);
            double e = k ? normalized_error(got, want, (size_t)n * 48) : 0;
            if (!(e <= 1e-11)) FAIL("%d rows in place, path %d: error %.3g", n, k - 1, e);
        }
    }
    matrix_free(&m, &ref, &metal[0]);
}

static void int8_products(void) {
    if (!open_all()) return;
    compare_linear(&(shape){SILL__TYPE_F32, SILL__COMPUTE_INT8, false, 1, {70}, 67}, 1e-5);
    compare_linear(&(shape){SILL__TYPE_F16, SILL__COMPUTE_INT8, true, 1, {48}, 128}, 1e-5);
    compare_linear(&(shape){SILL__TYPE_BF16, SILL__COMPUTE_INT8, false, 3, {32, 16, 16}, 100}, 1e-5);
}

/* --------------------------------------------------------------------- qkv */

typedef struct heads { int32_t n, n_kv, dim, rope_dims; sill__rope_kind rope; sill__kv_type kv; sill__norm_kind norm; bool bias; } heads;

/* Two sequences of one step, then one more token of each; what attention makes of it. */
static void run_qkv(side *s, const sill__weight *w, const heads *h, int32_t cols, const int32_t *lengths, float *q, float *attn) {
    sill_error err = {0};
    const sill__kv_shape kv_shape = {2, h->n_kv, h->dim, h->kv, 6};
    sill__kv *kv = NULL;
    CHECK_OK(s->ops->kv_create(s->d, &kv_shape, &kv, &err), err);
    if (!kv) return;
    const int32_t width = h->n * h->dim, tables[2][3] = {{4, 1, 3}, {0, 5, 2}}, numbers[MAX_ROWS] = {0};
    const sill__ref to = {s->memory, s->out.at + (size_t)MAX_ROWS * (size_t)width * 4};
    int32_t row = 0, positions[MAX_ROWS], pos[2] = {0, 0};
    for (int step = 0; step < 2; step++) {
        sill__run runs[2];
        int32_t n = 0, first = row;
        for (int i = 0; i < 2; i++) {
            runs[i] = (sill__run){n, step ? 1 : lengths[i], pos[i], tables[i]};
            for (int k = 0; k < runs[i].n; k++) positions[n++] = pos[i]++;
        }
        row += n;
        const sill__batch batch = {n, 2, 0, numbers, positions, runs, numbers};
        CHECK_INT(s->ops->buf_write(s->d, s->in, input + (size_t)first * (size_t)cols, (size_t)n * (size_t)cols * 4), SILL_OK);
        sill__op_qkv op = {.in = s->in, .q = s->out, .w = w, .kv = kv, .layer = 1, .n_heads = h->n, .n_kv_heads = h->n_kv,
                           .head_dim = h->dim, .norm = {.kind = h->norm, .eps = 1e-5f},
                           .rope = {.kind = h->rope, .dims = h->rope_dims, .inv_freq = s->inv_freq, .scale = 1.25f}};
        if (h->norm != SILL__NORM_NONE) op.norm.weight = s->gamma;
        if (h->bias) op.bias = s->bias;
        s->ops->begin(s->queue, &batch);
        s->ops->qkv(s->queue, &op);
        s->ops->attention(s->queue, &(sill__op_attention){.q = s->out, .out = to, .kv = kv, .layer = 1, .n_heads = h->n,
                                                          .n_kv_heads = h->n_kv, .head_dim = h->dim, .scale = 0.3f});
        if (!step_end(s)) break;
        CHECK_INT(s->ops->buf_read(s->d, s->out, q + (size_t)first * (size_t)width, (size_t)n * (size_t)width * 4), SILL_OK);
        CHECK_INT(s->ops->buf_read(s->d, to, attn + (size_t)first * (size_t)width, (size_t)n * (size_t)width * 4), SILL_OK);
    }
    s->ops->kv_free(s->d, kv);
}

static void qkv_of_ragged_steps(void) {
    if (!open_all()) return;
    static const struct { shape s; heads h; } all[] = {
        {{SILL__TYPE_F16, SILL__COMPUTE_F16, true, 1, {96}, 40}, {2, 2, 16, 0, SILL__ROPE_NONE, SILL__KV_F32, SILL__NORM_LAYER, true}},
        {{SILL__TYPE_F32, SILL__COMPUTE_F32, false, 1, {105}, 35}, {7, 7, 5, 0, SILL__ROPE_NONE, SILL__KV_F32, SILL__NORM_LAYER, true}},
        {{SILL__TYPE_BF16, SILL__COMPUTE_BF16, false, 3, {64, 32, 32}, 64}, {4, 2, 16, 16, SILL__ROPE_HALF, SILL__KV_F16, SILL__NORM_RMS, false}},
        {{SILL__TYPE_Q4_0, SILL__COMPUTE_BLOCK_I8, false, 3, {72, 24, 24}, 64}, {3, 1, 24, 16, SILL__ROPE_HALF, SILL__KV_F32, SILL__NORM_RMS, true}},
        {{SILL__TYPE_Q8_0, SILL__COMPUTE_BLOCK_I8, false, 3, {80, 40, 40}, 96}, {2, 1, 40, 24, SILL__ROPE_ADJACENT, SILL__KV_F32, SILL__NORM_NONE, false}},
        {{SILL__TYPE_Q4_K, SILL__COMPUTE_BLOCK_I8, false, 3, {64, 32, 32}, 256}, {4, 2, 16, 16, SILL__ROPE_HALF, SILL__KV_F16, SILL__NORM_RMS, false}},
        {{SILL__TYPE_F32, SILL__COMPUTE_F32, false, 1, {51}, 33}, {1, 1, 17, 16, SILL__ROPE_HALF, SILL__KV_F32, SILL__NORM_RMS, false}},
        {{SILL__TYPE_F32, SILL__COMPUTE_F32, false, 1, {128}, 48}, {2, 1, 32, 32, SILL__ROPE_HALF, SILL__KV_I8, SILL__NORM_RMS, false}},
        {{SILL__TYPE_F32, SILL__COMPUTE_INT8, false, 3, {64, 32, 32}, 48}, {2, 1, 32, 32, SILL__ROPE_ADJACENT, SILL__KV_F16, SILL__NORM_RMS, false}},
    };
    static float q[2][MAX_ROWS * 256], attn[2][MAX_ROWS * 256];
    static const int32_t lengths[][2] = {{3, 2}, {9, 5}, {40, 33}};
    for (size_t i = 0; i < SILL_ARRAY_LEN(all); i++)
        for (size_t k = 0; k < SILL_ARRAY_LEN(lengths); k++) {
            matrix m;
            const heads *h = &all[i].h;
            const size_t n = (size_t)(lengths[k][0] + lengths[k][1] + 2) * (size_t)(h->n * h->dim);
            make_inputs(all[i].s.cols);
            if (!matrix_make(&m, &ref, &metal[0], &all[i].s)) return;
            run_qkv(&ref, m.w[0], h, all[i].s.cols, lengths[k], q[0], attn[0]);
            run_qkv(&metal[0], m.w[1], h, all[i].s.cols, lengths[k], q[1], attn[1]);
            const bool rough = h->kv != SILL__KV_F32 || all[i].s.compute == SILL__COMPUTE_INT8;
            double e = normalized_error(q[1], q[0], n), e2 = normalized_error(attn[1], attn[0], n);
            if (!(e <= (all[i].s.compute == SILL__COMPUTE_INT8 ? 1e-5 : 1e-11))) FAIL("qkv %zu, lengths %zu: error of q %.3g", i, k, e);
            if (!(e2 <= (rough ? 2e-5 : 1e-11))) FAIL("qkv %zu, lengths %zu: error of attention %.3g", i, k, e2);
            matrix_free(&m, &ref, &metal[0]);
        }
}

/* Many rows: a prompt's norms are taken by a kernel of their own, those of a decode step by the product; the bits are the same. */
static void qkv_of_many_rows(void) {
    enum { ROWS = 73 };
    static const shape all[] = {{SILL__TYPE_F16, SILL__COMPUTE_F16, true, 1, {96}, 40}, {SILL__TYPE_F32, SILL__COMPUTE_INT8, false, 3, {32, 32, 32}, 48}};
    static float q[3][ROWS * 32];
    if (!open_all()) return;
    for (size_t i = 0; i < SILL_ARRAY_LEN(all); i++) {
        side *s = &metal[0];
        matrix m;
        sill__kv *kv = NULL;
        sill_error err = {0};
        int32_t blocks[ROWS], numbers[ROWS] = {0}, positions[ROWS];
        sill__run each[ROWS];
        make_inputs(all[i].cols);
        if (!matrix_make(&m, &ref, s, &all[i])) return;
        CHECK_OK(s->ops->kv_create(s->d, &(sill__kv_shape){1, 2, 16, SILL__KV_F32, ROWS}, &kv, &err), err);
        REQUIRE(kv);
        for (int32_t r = 0; r < ROWS; r++) {
            blocks[r] = positions[r] = r;
            each[r] = (sill__run){r, 1, r, blocks}; /* only the norms matter here */
        }
        const sill__run whole = {0, ROWS, 0, blocks}, few = {0, 20, 0, blocks};
        const sill__batch batches[] = {{ROWS, 1, 0, numbers, positions, &whole, numbers}, {ROWS, ROWS, 0, numbers, positions, each, numbers},
                                       {20, 1, 0, numbers, positions, &few, numbers}};
        CHECK_INT(s->ops->buf_write(s->d, s->in, input, (size_t)ROWS * (size_t)all[i].cols * 4), SILL_OK);
        for (int k = 0; k < 3; k++) {
            fake.reset();
            s->ops->begin(s->queue, &batches[k]);
            s->ops->qkv(s->queue, &(sill__op_qkv){.in = s->in, .q = s->out, .w = m.w[1], .kv = kv, .n_heads = 2, .n_kv_heads = 2, .head_dim = 16,
                                                  .norm = {.kind = SILL__NORM_LAYER, .weight = s->gamma, .eps = 1e-5f}});
            if (!step_end(s)) return;
            CHECK_INT(fake_totals().dispatches, k == 0 ? 2 : 1);
            CHECK_INT(s->ops->buf_read(s->d, s->out, q[k], (size_t)batches[k].n_tokens * 32 * 4), SILL_OK);
        }
        CHECK(!memcmp(q[0], q[1], sizeof q[0]) && !memcmp(q[0], q[2], 20 * 32 * 4));
        s->ops->kv_free(s->d, kv);
        matrix_free(&m, &ref, s);
    }
}

/* One interactive sequence: a token at a time. */
static void qkv_token_by_token(void) {
    if (!open_all()) return;
    static const struct { shape s; heads h; } all[] = {
        {{SILL__TYPE_F16, SILL__COMPUTE_F16, true, 1, {96}, 40}, {2, 2, 16, 0, SILL__ROPE_NONE, SILL__KV_F32, SILL__NORM_LAYER, true}},
        {{SILL__TYPE_BF16, SILL__COMPUTE_BF16, false, 3, {64, 32, 32}, 64}, {4, 2, 16, 12, SILL__ROPE_HALF, SILL__KV_F32, SILL__NORM_RMS, false}},
        {{SILL__TYPE_Q8_0, SILL__COMPUTE_BLOCK_I8, false, 3, {80, 40, 40}, 96}, {2, 1, 40, 24, SILL__ROPE_ADJACENT, SILL__KV_F32, SILL__NORM_NONE, true}},
        {{SILL__TYPE_Q4_K, SILL__COMPUTE_BLOCK_I8, false, 3, {64, 32, 32}, 256}, {4, 2, 16, 16, SILL__ROPE_HALF, SILL__KV_F32, SILL__NORM_RMS, false}},
    };
    static float q[2][256], attn[2][256];
    for (size_t i = 0; i < SILL_ARRAY_LEN(all); i++) {
        matrix m;
        const heads *h = &all[i].h;
        const int32_t width = h->n * h->dim;
        make_inputs(all[i].s.cols);
        if (!matrix_make(&m, &ref, &metal[0], &all[i].s)) return;
        side *sides[2] = {&ref, &metal[1]};
        sill__kv *kv[2] = {NULL, NULL};
        sill_error err = {0};
        for (int k = 0; k < 2; k++)
            CHECK_OK(sides[k]->ops->kv_create(sides[k]->d, &(sill__kv_shape){2, h->n_kv, h->dim, h->kv, 2}, &kv[k], &err), err);
        for (int32_t pos = 0; pos < 35 && kv[0] && kv[1]; pos++) {
            for (int k = 0; k < 2; k++) {
                side *s = sides[k];
                const int32_t table[2] = {1, 0}, zero = 0;
                const sill__run run = {0, 1, pos, table};
                const sill__batch batch = {1, 1, 0, &zero, &pos, &run, &zero};
                const sill__ref to = {s->memory, s->out.at + 4096};
                CHECK_INT(s->ops->buf_write(s->d, s->in, input + (size_t)pos * (size_t)all[i].s.cols, (size_t)all[i].s.cols * 4), SILL_OK);
                sill__op_qkv op = {.in = s->in, .q = s->out, .w = m.w[k], .kv = kv[k], .layer = 1, .n_heads = h->n,
                                   .n_kv_heads = h->n_kv, .head_dim = h->dim, .norm = {.kind = h->norm, .eps = 1e-5f},
                                   .rope = {.kind = h->rope, .dims = h->rope_dims, .inv_freq = s->inv_freq, .scale = 1}};
                if (h->norm != SILL__NORM_NONE) op.norm.weight = s->gamma;
                if (h->norm == SILL__NORM_LAYER) op.norm.bias = s->beta;
                if (h->bias) op.bias = s->bias;
                s->ops->begin(s->queue, &batch);
                s->ops->qkv(s->queue, &op);
                s->ops->attention(s->queue, &(sill__op_attention){.q = s->out, .out = to, .kv = kv[k], .layer = 1, .n_heads = h->n,
                                                                  .n_kv_heads = h->n_kv, .head_dim = h->dim, .scale = 0.3f});
                if (!step_end(s)) break;
                CHECK_INT(s->ops->buf_read(s->d, s->out, q[k], (size_t)width * 4), SILL_OK);
                CHECK_INT(s->ops->buf_read(s->d, to, attn[k], (size_t)width * 4), SILL_OK);
            }
            double e = normalized_error(q[1], q[0], (size_t)width), e2 = normalized_error(attn[1], attn[0], (size_t)width);
            if (!(e <= 1e-11 && e2 <= 1e-11)) FAIL("qkv %zu at %d: errors %.3g and %.3g", i, pos, e, e2);
        }
        for (int k = 0; k < 2; k++) sides[k]->ops->kv_free(sides[k]->d, kv[k]);
        matrix_free(&m, &ref, &metal[0]);
    }
}

/* -------------------------------------------------------------------- head */

static void head_products(void) {
    if (!open_all()) return;
    static const shape shapes[] = {
        {SILL__TYPE_F16, SILL__COMPUTE_F16, false, 1, {1009}, 48}, {SILL__TYPE_Q8_0, SILL__COMPUTE_BLOCK_I8, false, 1, {301}, 64},
    };
    static const int32_t counts[] = {1, 3, 20, 70};
    for (size_t i = 0; i < SILL_ARRAY_LEN(shapes); i++)
        for (size_t k = 0; k < SILL_ARRAY_LEN(counts); k++)
            for (int path = 0; path < 2; path++) {
                matrix m;
                const int32_t vocab = shapes[i].rows[0] - 3, n = counts[k], n_in = SILL_MIN(n + 5, MAX_ROWS);
                make_inputs(shapes[i].cols);
                if (!matrix_make(&m, &ref, &metal[path], &shapes[i])) return;
                side *sides[2] = {&ref, &metal[path]};
                for (int k2 = 0; k2 < 2; k2++) {
                    side *s = sides[k2];
                    int32_t rows[MAX_ROWS], numbers[MAX_ROWS] = {0};
                    for (int32_t r = 0; r < n; r++) rows[r] = r + (r > 0 ? n_in - n : 0);
                    const sill__run run = {0, n_in, 0, numbers};
                    const sill__batch batch = {n_in, 1, n, numbers, numbers, &run, rows};
                    CHECK_INT(s->ops->buf_write(s->d, s->in, input, (size_t)n_in * (size_t)shapes[i].cols * 4), SILL_OK);
                    s->ops->begin(s->queue, &batch);
                    s->ops->head(s->queue, &(sill__op_head){.in = s->in, .w = m.w[k2], .n_vocab = vocab, .logits = s->out,
                                 .norm = {.kind = SILL__NORM_LAYER, .weight = s->gamma, .bias = s->beta, .eps = 1e-5f}});
                    if (step_end(s)) read_out(s, k2 ? got : want, (size_t)n * (size_t)vocab);
                }
                double e = normalized_error(got, want, (size_t)n * (size_t)vocab);
                if (!(e <= 1e-11)) FAIL("head %zu, %d rows, path %d: error %.3g", i, n, path, e);
                matrix_free(&m, &ref, &metal[path]);
            }
}

/* ------------------------------------------------------------------- bytes */

/* Accesses are neither checked nor counted. */
static const char *why_fast(void) {
    const char *runner = getenv("RUNNER");
    return runner && *runner ? "this machine emulates the processor: too slow to check accesses" : "the fake Metal is in its fast mode";
}

/* What a product reads and writes is little more than its weights, rows, vectors and outputs, each once. */
static void every_byte_is_read_once(void) {
    static const shape shapes[] = {
        {SILL__TYPE_F16, SILL__COMPUTE_F16, false, 1, {384}, 256}, {SILL__TYPE_F16, SILL__COMPUTE_F16, true, 1, {384}, 256},
        {SILL__TYPE_Q8_0, SILL__COMPUTE_BLOCK_I8, false, 1, {512}, 256},
        {SILL__TYPE_Q4_1, SILL__COMPUTE_BLOCK_I8, false, 1, {640}, 256},
        {SILL__TYPE_Q4_K, SILL__COMPUTE_BLOCK_I8, false, 1, {640}, 256},
    };
    static const call c = {SILL__NORM_LAYER, true, false, false, SILL__ACT_GELU_TANH};
    if (!fake.handle) SKIP("this machine has a real Metal device, which does not count");
    if (!open_all()) return;
    fake.keep(true);
    for (size_t i = 0; i < SILL_ARRAY_LEN(shapes); i++)
        for (int path = 0; path < 2; path++) {
            matrix m;
            fakemetal_dispatch d[4];
            const size_t rows = (size_t)shapes[i].rows[0], cols = (size_t)shapes[i].cols, n = path ? 1 : 8;
            make_inputs(shapes[i].cols);
            if (!matrix_make(&m, &ref, &metal[path], &shapes[i])) return;
            fake.reset();
            run_linear(&metal[path], m.w[1], &c, shapes[i].cols, shapes[i].rows[0], 0, (int32_t)n, got);
            CHECK_INT(fake.dispatches(d, 4), 1);
            const double reads = (double)(m.parts[0].bytes + (n * cols + 2 * cols + rows) * 4), writes = (double)(n * rows * 4);
            if (d[0].bytes_read == 0 && d[0].bytes_written == 0) test_skipped = why_fast();
            else if ((double)d[0].bytes_read > 1.01 * reads + 256 || (double)d[0].bytes_written != writes)
                FAIL("%s %zux%zu, path %d: %llu bytes read of %.0f, %llu written of %.0f", sill__type_get(shapes[i].type)->name,
                     rows, cols, path, (unsigned long long)d[0].bytes_read, reads, (unsigned long long)d[0].bytes_written, writes);
            matrix_free(&m, &ref, &metal[path]);
        }
    fake.keep(false);
}

/* ---------------------------------------------------------------- barriers */

#include "metal_source.h"

/* All kernels of products once: in a process of its own with one barrier left out. */
static void barrier_probe(void) {
    static const shape shapes[] = {
        {SILL__TYPE_F16, SILL__COMPUTE_F16, false, 1, {38}, 200}, {SILL__TYPE_F16, SILL__COMPUTE_F16, true, 1, {38}, 200},
        {SILL__TYPE_F32, SILL__COMPUTE_INT8, false, 1, {38}, 160},
    };
    static const struct { int path, n; } ways[] = {{1, 1}, {0, 8}, {0, 33}};
    static const call c = {SILL__NORM_LAYER, true, false, false, SILL__ACT_GELU_TANH};
    if (!open_all()) return;
    for (size_t i = 0; i < SILL_ARRAY_LEN(shapes); i++)
        for (size_t k = 0; k < SILL_ARRAY_LEN(ways); k++) {
            const shape *s = &shapes[i];
            matrix m;
            make_inputs(s->cols);
            if (!matrix_make(&m, &ref, &metal[ways[k].path], s)) return;
            run_linear(&ref, m.w[0], &c, s->cols, s->rows[0], 0, ways[k].n, want);
            run_linear(&metal[ways[k].path], m.w[1], &c, s->cols, s->rows[0], 0, ways[k].n, got);
            double e = normalized_error(got, want, (size_t)(ways[k].n * s->rows[0]));
            if (!(e <= (s->compute == SILL__COMPUTE_INT8 ? 1e-5 : 1e-11))) FAIL("shape %zu, %d rows: error %.3g", i, ways[k].n, e);
            matrix_free(&m, &ref, &metal[ways[k].path]);
        }
}

/* Whether line LINE of the kernels' text says that the fake keeps this order without its barrier. */
static bool known_order(int line) {
    const char *at = metal_source;
    while (--line > 0 && at) at = strchr(at, '\n') ? strchr(at, '\n') + 1 : NULL;
    const char *end = at ? strchr(at, '\n') : NULL, *note = at ? strstr(at, "not seen on the fake") : NULL;
    return note && end && note < end;
}

/* The line of the kernels' text with this in it. */
static int line_with(const char *text) {
    const char *at = strstr(metal_source, text);
    int line = 1;
    for (const char *p = metal_source; at && p < at; p++) line += *p == '\n';
    return at ? line : 0;
}

static const char *program;

/* A barrier of mat.metal, matmul.metal or matvec.metal that may be left out unnoticed is one too many, or not tested. */
static void every_barrier_matters(void) {
    int lines[64];
    char command[1200];
    if (!fake.handle) SKIP("this machine has a real Metal device, whose barriers stay");
    size_t (*barriers)(int *, size_t);
    *(void **)(void *)&barriers = dlsym(fake.handle, "fakemetal_barriers");
    fakemetal_dispatch d[1];
    fake.keep(true);
    fake.reset();
    barrier_probe();
    fake.keep(false);
    const char *runner = getenv("RUNNER");
    if (fake.dispatches(d, 1) > 0 && d[0].bytes_read == 0) SKIP(why_fast());
    const size_t n = barriers(lines, SILL_ARRAY_LEN(lines));
    const int first = line_with(" * mat.metal - "), end = line_with(" * sample.metal - ");
    int tried = 0;
    CHECK(n < SILL_ARRAY_LEN(lines) && first > 0 && end > first);
    for (size_t i = 0; i < n && i < SILL_ARRAY_LEN(lines); i++) {
        char text[16];
        int status = 0;
        if (lines[i] < first || lines[i] >= end) continue;
        tried++;
        snprintf(text, sizeof text, "%d", lines[i]);
        fflush(stdout);
        pid_t child = fork();
        if (child == 0) {
            setenv("FAKEMETAL_SKIP_BARRIER", text, 1);
            if (!freopen("/dev/null", "w", stdout) || !freopen("/dev/null", "w", stderr)) _exit(0);
            /* runner: an emulator, without which the system does not start the program */
            snprintf(command, sizeof command, "exec %s %s barrier_probe", runner ? runner : "", program);
            if (runner && *runner) execl("/bin/sh", "sh", "-c", command, (char *)NULL);
            else execl("/proc/self/exe", "test_mat", "barrier_probe", (char *)NULL);
            _exit(0);
        }
        if (child < 0 || waitpid(child, &status, 0) != child) FAIL("no process to try line %d in", lines[i]);
        else if ((status == 0) != known_order(lines[i])) FAIL("the barrier of line %d: its absence %s", lines[i],
                                                               status ? "shows, against the note there" : "does not show");
    }
    CHECK_INT(tried, 11);
}

int main(int argc, char **argv) {
    fake_open(argv[0]);
    program = argv[0];
#ifndef __APPLE__
    if (fake_missing()) {
        printf("SKIP products: %s\n", fake_missing());
        return 0;
    }
#endif
    TEST(plain_types);
    TEST(transposed_types);
    TEST(blocks);
    TEST(super_blocks);
    TEST(int8_products);
    TEST(large_shapes);
    TEST(output_over_input);
    TEST(qkv_of_ragged_steps);
    TEST(qkv_of_many_rows);
    TEST(qkv_token_by_token);
    TEST(head_products);
    TEST(every_byte_is_read_once);
    TEST(every_barrier_matters);
    if (argc > 1) TEST(barrier_probe);
    close_all();
    sill__mtl_forget(); /* so that the fake device has nothing to complain of */
    TEST_EXIT();
}
