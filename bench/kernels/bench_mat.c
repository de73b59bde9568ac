/*
 * bench_mat.c - speed of the packed matrix products beside the limits of the machine measured in the same run: read
 * bandwidth for few rows, multiply-add rates for many. Prints one JSON object a line.
 *     bench_mat [-t THREADS] [-i ISA] [-s SECONDS] [-q FORM] [-k KIB]
 * THREADS defaults to all cores, ISA to the best, SECONDS (a figure's time) to 0.5; FORM names one line of `cases`; the
 * matrix of few rows has KIB of weights (163840; less than a cache holds shows what the arithmetic alone allows).
 * The best of many runs is given: a busy machine makes some of them slow.
 */
#include <stdio.h>
#include <stdlib.h>

#include "backend/cpu/limits.h"

typedef struct bench_case { const char *name; sill__type type; sill__compute compute; sill__limit limit; } bench_case;
static const bench_case cases[] = {
    {"f32", SILL__TYPE_F32, SILL__COMPUTE_F32, SILL__LIMIT_FMA},
    {"f16", SILL__TYPE_F16, SILL__COMPUTE_F16, SILL__LIMIT_FMA},
    {"bf16-f32", SILL__TYPE_BF16, SILL__COMPUTE_F32, SILL__LIMIT_FMA},
    {"bf16", SILL__TYPE_BF16, SILL__COMPUTE_BF16, SILL__LIMIT_BF16},
    {"q8_0", SILL__TYPE_Q8_0, SILL__COMPUTE_BLOCK_I8, SILL__LIMIT_INT8},
    {"q4_0", SILL__TYPE_Q4_0, SILL__COMPUTE_BLOCK_I8, SILL__LIMIT_INT8},
    {"q4_1", SILL__TYPE_Q4_1, SILL__COMPUTE_BLOCK_I8, SILL__LIMIT_INT8},
    {"q5_0", SILL__TYPE_Q5_0, SILL__COMPUTE_BLOCK_I8, SILL__LIMIT_INT8},
    {"q5_1", SILL__TYPE_Q5_1, SILL__COMPUTE_BLOCK_I8, SILL__LIMIT_INT8},
    {"q4_k", SILL__TYPE_Q4_K, SILL__COMPUTE_BLOCK_I8, SILL__LIMIT_INT8},
    {"q5_k", SILL__TYPE_Q5_K, SILL__COMPUTE_BLOCK_I8, SILL__LIMIT_INT8},
    {"q6_k", SILL__TYPE_Q6_K, SILL__COMPUTE_BLOCK_I8, SILL__LIMIT_INT8},
    {"q8_0-f32", SILL__TYPE_Q8_0, SILL__COMPUTE_F32, SILL__LIMIT_FMA},
    {"q4_1-f32", SILL__TYPE_Q4_1, SILL__COMPUTE_F32, SILL__LIMIT_FMA},
};

typedef struct work {
    const sill__cpu_mat_kernels *k;
    sill__cpu_mat mat;
    sill__tensor tensor;
    sill__weight_src src;
    const uint8_t *acts;
    float *out;
    int32_t m;
    const uint8_t *read;
    size_t read_bytes;
} work;

static double seconds_each = 0.5;

static double best_of(sill__pool *pool, sill__pool_fn fn, work *w) {
    double best = 1e9, end = sill__now() + seconds_each;
    for (int i = 0; i < 3 || sill__now() < end; i++) {
        double t = sill__now();
        sill__pool_run(pool, fn, w);
        t = sill__now() - t;
        best = SILL_MIN(best, t);
    }
    return best;
}

static double read_rate(sill__pool *pool, const sill__cpu_isa *isa, const work *w) {
    return (double)w->read_bytes / sill__cpu_limits_read(pool, isa, w->read, w->read_bytes, seconds_each).best;
}

/* Operations (a multiply and an add are two) a second; 0 where the instruction set has none. */
static double op_rate(sill__pool *pool, const sill__cpu_isa *isa, sill__limit limit) {
    sill__times times;
    double done = sill__cpu_limits_ops(pool, isa, limit, seconds_each, &times);
    return done > 0 ? done / times.best : 0;
}

/* ---- products */

static void pack_part(void *arg, int i, int n) {
    work *w = arg;
    int32_t p = w->mat.n_panels;
    w->k->pack(&w->src, &w->mat, (int32_t)((int64_t)p * i / n), (int32_t)((int64_t)p * (i + 1) / n));
}

static void product_part(void *arg, int i, int n) {
    work *w = arg;
    int32_t p = w->mat.n_panels;
    w->k->matmul(&w->mat, w->acts, w->m, (int32_t)((int64_t)p * i / n), (int32_t)((int64_t)p * (i + 1) / n), w->out,
                 (size_t)w->mat.rows);
}

static void prepare_part(void *arg, int i, int n) {
    work *w = arg;
    const size_t step = w->k->act_bytes(&w->mat);
    if (i) return;
    (void)n;
    for (int32_t r = 0; r < w->m; r++)
        w->k->act_prepare(&w->mat, (const float *)(const void *)w->read, (uint8_t *)(uintptr_t)w->acts + (size_t)r * step);
}

static void fill(const sill__tensor *t, uint8_t *p) {
    uint32_t s = 1;
    for (size_t i = 0; i < t->bytes; i++) s = s * 1664525u + 1013904223u, p[i] = (uint8_t)(s >> 25);
}

static void bench_one(sill__pool *pool, const sill__cpu_isa *isa, const bench_case *c, uint64_t rows, uint64_t cols,
                      const int32_t *ms, int n_ms, work *w) {
    sill__tensor t = {.name = "w", .type = c->type, .n_dims = 2, .dims = {rows, cols}};
    t.bytes = rows * sill__row_bytes(c->type, cols);
    uint8_t *bytes = sill__alloc_pages(t.bytes);
    t.data = bytes;
    w->tensor = t;
    sill__weight_src src = {.parts = {&w->tensor}, .n_parts = 1, .rows = rows, .cols = cols, .compute = c->compute};
    w->k = isa->mat, w->src = src;
    sill_error err;
    if (!bytes || w->k->plan(&w->src, &w->mat, &err) != SILL_OK || !(w->mat.data = sill__alloc_pages(w->mat.bytes))) return;
    fill(&t, bytes);
    sill__pool_run(pool, pack_part, w);
    double pack = best_of(pool, pack_part, w);
    const int32_t most = ms[n_ms - 1];
    const size_t acts_bytes = w->k->act_bytes(&w->mat) * (size_t)most, out_bytes = (size_t)most * rows * 4;
    w->acts = sill__alloc_pages(acts_bytes);
    w->out = sill__alloc_pages(out_bytes);
    for (int i = 0; i < n_ms; i++) {
        w->m = most;
        double prepare = best_of(pool, prepare_part, w) / most;
        w->m = ms[i];
        double read = read_rate(pool, isa, w), ops = op_rate(pool, isa, c->limit);
        double s = best_of(pool, product_part, w);
        double read2 = read_rate(pool, isa, w), ops2 = op_rate(pool, isa, c->limit);
        read = SILL_MAX(read, read2), ops = SILL_MAX(ops, ops2);
        double gbs = (double)w->mat.bytes / s, rate = 2.0 * (double)rows * (double)cols * ms[i] / s;
        printf("{\"isa\":\"%s\",\"form\":\"%s\",\"threads\":%d,\"rows\":%d,\"cols\":%d,\"m\":%d,\"us\":%.1f,\"GB/s\":%.1f,"
               "\"read GB/s\":%.1f,\"read share\":%.2f,\"Gop/s\":%.1f,\"peak Gop/s\":%.1f,\"peak share\":%.2f,"
               "\"pack GB/s\":%.2f,\"prepare ns\":%.0f}\n",
               isa->name, c->name, sill__pool_size(pool), (int)rows, (int)cols, ms[i], s * 1e6, gbs / 1e9, read / 1e9,
               gbs / read, rate / 1e9, ops / 1e9, ops > 0 ? rate / ops : 0.0, (double)t.bytes / pack / 1e9, prepare * 1e9);
        fflush(stdout);
    }
    sill__free_pages((void *)(uintptr_t)w->acts, acts_bytes);
    sill__free_pages(w->out, out_bytes);
    sill__free_pages(w->mat.data, w->mat.bytes);
    sill__free_pages(bytes, t.bytes);
}

int main(int argc, char **argv) {
    int threads = sill__n_cores();
    uint64_t kib = 160 << 10;
    const char *want = NULL, *form = NULL;
    for (int i = 1; i + 1 < argc; i += 2) {
        if (!strcmp(argv[i], "-t")) threads = (int)strtol(argv[i + 1], NULL, 10);
        else if (!strcmp(argv[i], "-i")) want = argv[i + 1];
        else if (!strcmp(argv[i], "-s")) seconds_each = strtod(argv[i + 1], NULL);
        else if (!strcmp(argv[i], "-q")) form = argv[i + 1];
        else if (!strcmp(argv[i], "-k")) kib = strtoull(argv[i + 1], NULL, 10);
    }
    const sill__cpu_isa *isa = sill__cpu_limits_isa(want);
    sill__pool *pool;
    sill_error err;
    if (!isa || threads < 1 || threads > 256 || sill__pool_create(threads, &pool, &err) != SILL_OK) {
        fprintf(stderr, "bench_mat: this instruction set or number of threads cannot be had here\n");
        return 1;
    }
    static work w;
    const int32_t few[] = {1, 2, 4, 8, 16, 32, 64}, many[] = {512};
    w.read_bytes = (size_t)256 << 20;
    uint8_t *read = sill__cpu_limits_block(w.read_bytes, true);
    if (!read) return 1;
    w.read = read;
    for (size_t c = 0; c < SILL_ARRAY_LEN(cases); c++) {
        if (form && strcmp(form, cases[c].name)) continue;
        /* Few rows: packed bytes well beyond the caches, unless -k says otherwise. */
        uint64_t rows = (kib << 10) / sill__row_bytes(cases[c].type, 768) / 64 * 64;
        bench_one(pool, isa, &cases[c], rows, 768, few, SILL_ARRAY_LEN(few), &w);
        bench_one(pool, isa, &cases[c], 3072, 768, many, SILL_ARRAY_LEN(many), &w);
        bench_one(pool, isa, &cases[c], 1280, 5120, many, SILL_ARRAY_LEN(many), &w);
    }
    sill__free_pages(read, w.read_bytes);
    sill__pool_free(pool);
    return 0;
}
