/*
 * bench_vec.c - the CPU's vector kernels and its whole op list, one JSON line each (the best of many runs).
 *   bench_vec [ISA [THREADS]]          kernels: ns a call, GB/s or GFLOP/s
 *   bench_vec step [ISA [THREADS [KIND]]]  a GPT-2-small-shaped model of random weights, op by op: decode at 128, 512 and
 *                                          1,000 positions with 1, 8 and 32 sequences, prefill of 512 tokens; KIND: part of
 *                                          "bf16, kv int8" and the like
 *   bench_vec prompt [ISA [THREADS [KIND]]]  its prefill alone
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "backend/cpu/limits.h"

/* With one thread its own processor time, which other programs on the machine disturb less. */
static bool one_thread;
static double now(void) {
    struct timespec t;
    clock_gettime(one_thread ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

#define BEST_OF(result, runs, inner, ...)                                                                              \
    do {                                                                                                               \
        result = 1e9;                                                                                                  \
        for (int run_ = 0; run_ < (runs); run_++) {                                                                    \
            double from_ = now();                                                                                \
            for (int k_ = 0; k_ < (inner); k_++) __VA_ARGS__;                                                          \
            double t_ = (now() - from_) / (inner);                                                               \
            if (t_ < result) result = t_;                                                                              \
        }                                                                                                              \
    } while (0)

static void say(const char *test, const char *isa, double seconds, double per_second, const char *unit) {
    printf("{\"test\": \"%s\", \"isa\": \"%s\", \"ns\": %.0f, \"%s\": %.2f}\n", test, isa, seconds * 1e9, unit,
           per_second / seconds * 1e-9);
    fflush(stdout);
}

static void fill(float *x, size_t n) {
    uint32_t s = 1;
    for (size_t i = 0; i < n; i++) {
        s = s * 1664525u + 1013904223u;
        x[i] = (float)(s >> 8) * 0x1p-23f - 1;
    }
}

/* ------------------------------------------------------------------ kernels */

static void bench_rows(const sill__cpu_isa *isa, float *x, float *y) {
    const sill__cpu_vec_kernels *v = isa->vec;
    double t;
    BEST_OF(t, 200, 20, v->norm_layer(y, x, x, x, 768, 1e-5f));
    say("norm_layer 768", isa->name, t, 768, "values_per_ns");
    BEST_OF(t, 200, 20, v->norm_rms(y, x, x, NULL, 768, 1e-5f));
    say("norm_rms 768", isa->name, t, 768, "values_per_ns");
    BEST_OF(t, 200, 20, v->exp(y, x, 3072));
    say("exp 3072", isa->name, t, 3072, "values_per_ns");
    static const char *const names[] = {"", "gelu_tanh 3072", "gelu_erf 3072", "relu 3072", "silu 3072", "tanh 3072"};
    for (int act = SILL__ACT_GELU_TANH; act <= SILL__ACT_TANH; act++) {
        BEST_OF(t, 200, 20, { /* in place: from the same values each time */
            memcpy(y, x, 3072 * sizeof *y);
            v->epilogue(y, x, (sill__act)act, 3072);
        });
        say(names[act], isa->name, t, 3072, "values_per_ns");
    }
    float max, sum;
    BEST_OF(t, 200, 20, v->softmax_stats(x, 256, &max, &sum));
    say("softmax_stats 256", isa->name, t, 256, "values_per_ns");
}

static void bench_attention(const sill__cpu_isa *isa, float *x) {
    enum { N = 1024, DIM = 64, MANY = SILL__ATTEND_QUERIES };
    static const char *const names[] = {"f32", "f16", "int8"};
    for (int type = SILL__KV_F32; type <= SILL__KV_I8; type++) {
        sill__kv_type kv = (sill__kv_type)type;
        char label[64];
        int32_t blocks[N / 32], n_positions[MANY];
        const float *q[MANY];
        float *out[MANY], *scratch = sill__alloc_pages(sill__attend_floats(DIM) * 4), *y = sill__alloc_pages(MANY * DIM * 4);
        size_t v_at = sill__k_tile_bytes(kv, DIM), stride = v_at + sill__v_tile_bytes(kv, DIM);
        uint8_t *tiles = sill__alloc_pages(stride * (N / 32));
        sill__attend a = {kv, tiles, stride, v_at, blocks, DIM, 0.125f, scratch, NULL};
        double t;
        for (int b = 0; b < N / 32; b++) blocks[b] = b;
        for (int p = 0; p < N; p++) {
            uint8_t *tile = tiles + (size_t)(p / 32) * stride;
            isa->vec->kv_put(kv, tile, tile + v_at, p % 32, 1, x + p, x + 2 * p, 0, DIM);
        }
        for (int i = 0; i < MANY; i++) {
            q[i] = x + 100 * i;
            out[i] = y + DIM * i;
            n_positions[i] = N;
        }
        for (int n = 1; n <= MANY; n += n < 4 ? 1 : n < 16 ? 4 : 16) {
            BEST_OF(t, 100, 3, isa->vec->attend(&a, n, out, q, n_positions));
            snprintf(label, sizeof label, "attend %s, %d queries, 1024 x 64", names[type], n);
            if (n < 4) say(label, isa->name, t, (double)stride * N / 32, "gb_per_s");
            else say(label, isa->name, t, n * 4.0 * N * DIM, "gflop_per_s");
        }
        for (int i = 0; i < MANY; i++) n_positions[i] = 240 + i + 1; /* rows of a prompt, at the diagonal */
        BEST_OF(t, 100, 3, isa->vec->attend(&a, MANY, out, q, n_positions));
        snprintf(label, sizeof label, "attend %s, %d rows of a prompt, 256 x 64", names[type], MANY);
        say(label, isa->name, t, MANY * 4.0 * (240.5 + MANY / 2) * DIM, "gflop_per_s");
        sill__free_pages(tiles, stride * (N / 32));
        sill__free_pages(y, MANY * DIM * 4);
        sill__free_pages(scratch, sill__attend_floats(DIM) * 4);
    }
}

static void bench_pool(int n_threads) {
    sill__pool *pool;
    if (sill__pool_create(n_threads, &pool, NULL) != SILL_OK) return;
    printf("{\"test\": \"barrier\", \"threads\": %d, \"ns\": %.0f}\n", n_threads, sill__cpu_limits_barrier(pool, 0.05).best * 1e9);
    sill__pool_free(pool);
}

/* --------------------------------------------------------------------- step */

enum { LAYERS = 12, WIDTH = 768, HEADS = 12, FF = 3072, VOCAB = 50257, TOKENS = 512, SEQUENCES = 32, BLOCKS_EACH = 32 };

typedef struct model {
    const sill__backend *ops;
    sill__device *d;
    sill__weight *wte, *qkv[LAYERS], *out[LAYERS], *in[LAYERS], *back[LAYERS], *head;
    sill__buf *memory;
    sill__ref x, q, attn, ff, vectors, ids;
    sill__kv *kv;
    sill__queue *queue;
} model;

static sill__weight *import(model *m, const float *values, uint64_t rows, uint64_t cols, sill__compute compute,
                            sill__role role, sill__type as) {
    sill__tensor t = {.name = "w", .type = SILL__TYPE_F32, .n_dims = 2, .dims = {rows, cols},
                      .data = (const uint8_t *)(const void *)values, .bytes = rows * cols * 4};
    sill__weight_src src = {.parts = {&t}, .n_parts = 1, .rows = rows, .cols = cols, .compute = compute, .role = role, .as = as};
    sill__weight *w = NULL;
    sill_error err = {0};
    if (m->ops->weight_import(m->d, &src, &w, &err) != SILL_OK) fprintf(stderr, "%s\n", err.msg);
    return w;
}

/* Up to LEVEL ops of each layer; LEVEL 5 is all, with the head. */
static double step(model *m, const sill__batch *b, int level) {
    const sill__norm norm = {SILL__NORM_LAYER, m->vectors, m->vectors, 1e-5f}, none = {.kind = SILL__NORM_NONE};
    double from = now();
    sill_error err = {0};
    m->ops->begin(m->queue, b);
    m->ops->embed(m->queue, &(sill__op_embed){m->wte, NULL, m->x, WIDTH});
    for (int i = 0; i < LAYERS; i++) {
        if (level > 0)
            m->ops->qkv(m->queue, &(sill__op_qkv){.in = m->x, .q = m->q, .norm = norm, .w = m->qkv[i], .bias = m->vectors,
                                                 .kv = m->kv, .layer = i, .n_heads = HEADS, .n_kv_heads = HEADS,
                                                 .head_dim = 64});
        if (level > 1)
            m->ops->attention(m->queue, &(sill__op_attention){m->q, m->attn, m->kv, i, HEADS, HEADS, 64, 0.125f, {NULL, 0}});
        if (level > 2)
            m->ops->linear(m->queue, &(sill__op_linear){.in = m->attn, .out = m->x, .norm = none, .w = m->out[i],
                                                       .bias = m->vectors, .residual = true});
        if (level > 3)
            m->ops->linear(m->queue, &(sill__op_linear){.in = m->x, .out = m->ff, .norm = norm, .w = m->in[i],
                                                       .bias = m->vectors, .act = SILL__ACT_GELU_TANH});
        if (level > 4)
            m->ops->linear(m->queue, &(sill__op_linear){.in = m->ff, .out = m->x, .norm = none, .w = m->back[i],
                                                       .bias = m->vectors, .residual = true});
    }
    if (level > 5)
        m->ops->head(m->queue, &(sill__op_head){.in = m->x, .norm = norm, .w = m->head, .n_vocab = VOCAB, .n_top = 1,
                                               .top_ids = m->ids});
    if (m->ops->submit(m->queue, NULL, &err) != SILL_OK) fprintf(stderr, "%s\n", err.msg);
    m->ops->wait(m->queue, 0, &err);
    return now() - from;
}

static bool open_model(model *m, const char *isa, int n_threads, sill__compute compute, sill__type as, sill__kv_type type) {
    sill_error err = {0};
    float *values = sill__alloc_pages((size_t)VOCAB * WIDTH * 4);
    m->ops = sill__backend_cpu();
    if (m->ops->open(&(sill__device_options){.n_threads = n_threads, .isa = isa}, &m->d, &err) != SILL_OK) {
        fprintf(stderr, "%s\n", err.msg);
        return false;
    }
    fill(values, (size_t)VOCAB * WIDTH);
    for (size_t i = 0; i < (size_t)VOCAB * WIDTH; i++) values[i] *= 0.03f;
    m->wte = import(m, values, VOCAB, WIDTH, compute, SILL__ROLE_EMBED, as);
    for (int i = 0; i < LAYERS; i++) {
        m->qkv[i] = import(m, values, 3 * WIDTH, WIDTH, compute, SILL__ROLE_BODY, as);
        m->out[i] = import(m, values, WIDTH, WIDTH, compute, SILL__ROLE_BODY, as);
        m->in[i] = import(m, values, FF, WIDTH, compute, SILL__ROLE_BODY, as);
        m->back[i] = import(m, values, WIDTH, FF, compute, SILL__ROLE_BODY, as);
    }
    m->head = import(m, values, VOCAB, WIDTH, compute, SILL__ROLE_HEAD, as);
    size_t row = (size_t)TOKENS * 4;
    m->ops->buf_create(m->d, row * (3 * WIDTH + FF) + 65536, &m->memory, &err);
    m->x = (sill__ref){m->memory, 0};
    m->q = (sill__ref){m->memory, row * WIDTH};
    m->attn = (sill__ref){m->memory, row * 2 * WIDTH};
    m->ff = (sill__ref){m->memory, row * 3 * WIDTH};
    m->vectors = m->ids = (sill__ref){m->memory, row * (3 * WIDTH + FF)};
    m->ids.at += 32768;
    m->ops->buf_write(m->d, m->vectors, values, 4 * FF);
    sill__kv_shape kv = {LAYERS, HEADS, 64, type, SEQUENCES * BLOCKS_EACH};
    return m->ops->kv_create(m->d, &kv, &m->kv, &err) == SILL_OK &&
           m->ops->queue_create(m->d, &(sill__queue_shape){TOKENS, 32, FF, VOCAB, 0}, &m->queue, &err) == SILL_OK;
}

static void close_model(model *m) {
    m->ops->queue_free(m->d, m->queue);
    m->ops->kv_free(m->d, m->kv);
    m->ops->buf_free(m->d, m->memory);
    for (int i = 0; i < LAYERS; i++) {
        sill__weight *const all[] = {m->qkv[i], m->out[i], m->in[i], m->back[i]};
        for (size_t k = 0; k < SILL_ARRAY_LEN(all); k++) m->ops->weight_free(m->d, all[k]);
    }
    m->ops->weight_free(m->d, m->wte);
    m->ops->weight_free(m->d, m->head);
    m->ops->close(m->d);
}

/* BATCH sequences of n tokens each at position pos. */
static void bench_steps(model *m, const char *what, int batch, int n, int pos) {
    static int32_t tokens[TOKENS], positions[TOKENS], blocks[SEQUENCES][BLOCKS_EACH], outs[SEQUENCES];
    static sill__run runs[SEQUENCES];
    double last = 0, best[7];
    for (int s = 0; s < batch; s++) {
        for (int b = 0; b < BLOCKS_EACH; b++) blocks[s][b] = b * SEQUENCES + s; /* as sequences grow side by side */
        runs[s] = (sill__run){s * n, n, pos, blocks[s]};
        outs[s] = (s + 1) * n - 1;
        for (int i = 0; i < n; i++) tokens[s * n + i] = (s * 7 + i * 13) % VOCAB;
    }
    sill__batch b = {batch * n, batch, batch, tokens, positions, runs, outs};
    printf("{\"test\": \"%s\", \"batch\": %d, \"tokens\": %d, \"position\": %d", what, batch, batch * n, pos);
    static const char *const names[] = {"embed", "qkv", "attention", "attn_out", "mlp_in", "mlp_out", "head"};
    for (int level = 0; level < 7; level++) {
        best[level] = 1e9;
        for (int k = 0; k < (n > 1 ? 5 : batch > 1 ? 10 : 30); k++) best[level] = SILL_MIN(best[level], step(m, &b, level));
        printf(", \"%s_ms\": %.3f", names[level], (best[level] - last) * 1e3);
        last = best[level];
    }
    printf(", \"ms\": %.3f, \"tokens_per_s\": %.1f}\n", last * 1e3, batch * n / last);
    fflush(stdout);
}

int main(int argc, char **argv) {
    bool prompt = argc > 1 && !strcmp(argv[1], "prompt"), steps = prompt || (argc > 1 && !strcmp(argv[1], "step"));
    const char *name = argc > 1 + steps ? argv[1 + steps] : NULL;
    int n_threads = argc > 2 + steps ? (int)strtol(argv[2 + steps], NULL, 10) : sill__n_cores();
    static float x[65536], y[65536];
    one_thread = n_threads == 1;
    fill(x, 65536);
    for (int i = 0; sill__cpu_isas[i] && !steps; i++) {
        const sill__cpu_isa *isa = sill__cpu_isas[i];
        if (!isa->available() || (name && strcmp(name, isa->name))) continue;
        bench_rows(isa, x, y);
        bench_attention(isa, x);
    }
    if (!steps) bench_pool(n_threads);
    static const struct { const char *name; sill__compute compute; sill__type as; sill__kv_type kv; } kinds[] = {
        {"f32, kv f32", SILL__COMPUTE_F32, SILL__TYPE_F32, SILL__KV_F32},
        {"bf16, kv f16", SILL__COMPUTE_BF16, SILL__TYPE_F32, SILL__KV_F16},
        {"bf16, kv int8", SILL__COMPUTE_BF16, SILL__TYPE_F32, SILL__KV_I8},
        {"q8, kv f16", SILL__COMPUTE_BLOCK_I8, SILL__TYPE_Q8_0, SILL__KV_F16},
    };
    for (size_t k = 0; k < SILL_ARRAY_LEN(kinds) && steps; k++) {
        static const int batches[] = {1, 8, 32}, places[] = {127, 511, 999};
        model m;
        memset(&m, 0, sizeof m);
        if (argc > 4 && !strstr(kinds[k].name, argv[4])) continue;
        if (!open_model(&m, name, n_threads, kinds[k].compute, kinds[k].as, kinds[k].kv)) return 1;
        for (int b = 0; b < 3 && !prompt; b++)
            for (int p = 0; p < 3; p++) bench_steps(&m, kinds[k].name, batches[b], 1, places[p]);
        bench_steps(&m, kinds[k].name, 1, TOKENS, 0);
        close_model(&m);
    }
    return 0;
}
