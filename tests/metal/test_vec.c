/*
 * test_vec.c - the Metal backend's operations that are no products, against the reference or double precision: tables
 * of every type, norms, rotary embedding, attention over ragged batches (head sizes 1 to 256, f32, f16 and int8
 * caches), copies of KV blocks, what the output head gives. And the same bits whatever the company, chunks or blocks.
 * Products are left out: the reference takes q, k and v through an identity matrix, Metal's are put where a product
 * would leave them.
 */
#include "backend/metal/metal.h"
#include "engine/sampler.h"
#include "metal.h"

static uint64_t seed;
static float uniform(float r) { return r * ((float)(test_random(&seed) >> 8) * 0x1p-23f - 1); }

/* A device with its memory and queue. */
typedef struct side {
    const sill__backend *ops;
    sill__device *d;
    sill__queue *queue;
    sill__buf *memory;
    size_t used;
} side;

#define MEMORY (48 << 20)

static bool side_open(side *s, const char *name, sill__path path) {
    const sill__queue_shape shape = {600, 600, 2048, 60000, path};
    sill_error err = {0};
    memset(s, 0, sizeof *s);
    CHECK_OK(sill__backend_find(name, &s->ops, &err), err);
    if (!s->ops) return false;
    CHECK_OK(s->ops->open(&(sill__device_options){0}, &s->d, &err), err);
    if (!s->d) return false;
    CHECK_OK(s->ops->buf_create(s->d, MEMORY, &s->memory, &err), err);
    CHECK_OK(s->ops->queue_create(s->d, &shape, &s->queue, &err), err);
    return s->memory && s->queue;
}

static void side_close(side *s) {
    if (!s->d) return;
    s->ops->queue_free(s->d, s->queue);
    s->ops->buf_free(s->d, s->memory);
    s->ops->close(s->d);
}

/* Room for n floats, filled with them or with NaN. */
static sill__ref put(side *s, const float *from, size_t n) {
    sill__ref r = {s->memory, s->used};
    float *to = (float *)(void *)((uint8_t *)s->ops->buf_map(s->d, s->memory) + s->used);
    for (size_t i = 0; i < n; i++) to[i] = from ? from[i] : NAN;
    s->used += (n * 4 + 63) & ~(size_t)63;
    if (s->used > MEMORY) abort();
    return r;
}

static const float *at(const side *s, sill__ref r) {
    return (const float *)(const void *)((const uint8_t *)s->ops->buf_map(s->d, s->memory) + r.at);
}

static bool finish(side *s) {
    sill_error err = {0};
    sill_status st = s->ops->submit(s->queue, NULL, &err);
    if (st == SILL_OK) st = s->ops->wait(s->queue, 0, &err);
    CHECK_OK(st, err);
    return st == SILL_OK;
}

static double distance(const float *got, const float *want, size_t n) {
    double off = 0, size = 1e-30;
    for (size_t i = 0; i < n; i++) {
        double d = (double)got[i] - want[i];
        off += d == d ? d * d : INFINITY;
        size += (double)want[i] * want[i];
    }
    return off / size;
}

/* -------------------------------------------------------------------- tables */

static uint8_t *random_table(sill__type type, int32_t rows, int32_t cols, sill__tensor *t) {
    *t = (sill__tensor){.name = "t", .type = type, .n_dims = 2, .dims = {(uint64_t)rows, (uint64_t)cols}};
    t->bytes = (size_t)rows * sill__row_bytes(type, (uint64_t)cols);
    uint8_t *p = sill__alloc(t->bytes);
    for (size_t i = 0; i < t->bytes; i++) p[i] = (uint8_t)(test_random(&seed) >> 9);
    /* Every two bytes as an f16 (the scales are some of them) or the upper half of an f32 or bf16 of moderate size. */
    for (size_t i = 1; i < t->bytes; i += 2) p[i] = (uint8_t)((p[i] & 0x83) | 0x38);
    t->data = p;
    return p;
}

static void embeddings_are_those_of_the_reference(void) {
    static const struct { sill__type wte, wpe; int32_t width; bool positions; } cases[] = {
        {SILL__TYPE_F32, SILL__TYPE_F32, 35, true},    {SILL__TYPE_F16, SILL__TYPE_F16, 129, true},
        {SILL__TYPE_BF16, SILL__TYPE_BF16, 1, true},   {SILL__TYPE_Q8_0, SILL__TYPE_F32, 96, true},
        {SILL__TYPE_Q4_0, SILL__TYPE_F32, 160, false}, {SILL__TYPE_Q4_1, SILL__TYPE_Q8_0, 64, true},
        {SILL__TYPE_Q5_0, SILL__TYPE_F32, 96, false},  {SILL__TYPE_Q5_1, SILL__TYPE_F32, 32, true},
        {SILL__TYPE_Q4_K, SILL__TYPE_F32, 512, false}, {SILL__TYPE_Q5_K, SILL__TYPE_F32, 256, false},
        {SILL__TYPE_Q6_K, SILL__TYPE_Q6_K, 512, true},
    };
    side sides[2];
    int32_t tokens[7] = {0, 12, 3, 3, 40, 7, 1}, positions[7] = {0, 1, 2, 20, 5, 6, 3};
    const sill__batch batch = {.n_tokens = 7, .tokens = tokens, .positions = positions};
    bool open = side_open(&sides[0], "ref", SILL__PATH_BATCH) & (int)side_open(&sides[1], "metal", SILL__PATH_BATCH);
    seed = 3;
    for (size_t k = 0; open && k < SILL_ARRAY_LEN(cases); k++) {
        sill__tensor wte, wpe;
        sill__ref out[2] = {{0}};
        sill_error err = {0};
        size_t width = (size_t)cases[k].width;
        uint8_t *tables[2] = {random_table(cases[k].wte, 41, cases[k].width, &wte), random_table(cases[k].wpe, 21, cases[k].width, &wpe)};
        for (int i = 0; i < 2; i++) {
            side *s = &sides[i];
            sill__weight *w[2] = {NULL, NULL};
            for (int j = 0; j < 2; j++) {
                sill__weight_src src = {.parts = {j ? &wpe : &wte}, .n_parts = 1, .rows = j ? 21 : 41, .cols = width,
                                        .role = SILL__ROLE_EMBED, .name = "table"};
                CHECK_OK(s->ops->weight_import(s->d, &src, &w[j], &err), err);
            }
            out[i] = put(s, NULL, 7 * width);
            if (w[0] && w[1]) {
                s->ops->begin(s->queue, &batch);
                s->ops->embed(s->queue, &(sill__op_embed){.wte = w[0], .wpe = cases[k].positions ? w[1] : NULL, .out = out[i], .width = cases[k].width});
                finish(s);
            }
            for (int j = 0; j < 2; j++) s->ops->weight_free(s->d, w[j]);
        }
        if (memcmp(at(&sides[0], out[0]), at(&sides[1], out[1]), 7 * width * 4))
            FAIL("%s + %s, width %d: other values than the reference's", sill__type_get(cases[k].wte)->name,
                 sill__type_get(cases[k].wpe)->name, cases[k].width);
        sill__free(tables[0]);
        sill__free(tables[1]);
    }
    for (int i = 0; i < 2; i++) side_close(&sides[i]);
}

static void norms_and_gathering(void) {
    static const int32_t widths[] = {1, 31, 35, 64, 768, 1601};
    static float x[9 * 1601];
    side sides[2];
    int32_t tokens[9] = {0}, out_rows[] = {1, 4, 8};
    const sill__batch batch = {.n_tokens = 9, .n_out = 3, .tokens = tokens, .positions = tokens, .out_rows = out_rows};
    bool open = side_open(&sides[0], "ref", SILL__PATH_BATCH) & (int)side_open(&sides[1], "metal", SILL__PATH_BATCH);
    seed = 4;
    for (size_t i = 0; i < SILL_ARRAY_LEN(x); i++) x[i] = 5 + uniform(2);
    for (size_t k = 0; open && k < SILL_ARRAY_LEN(widths) * 6; k++) {
        const int32_t width = widths[k / 6];
        const sill__norm_kind kind = (sill__norm_kind)(k % 3);
        const size_t n = (size_t)width * (k % 2 ? 3 : 9);
        sill__ref out[2];
        for (int i = 0; i < 2; i++) {
            side *s = &sides[i];
            sill__ref in = put(s, x, 9 * (size_t)width), weight = put(s, x + 7, (size_t)width), bias = put(s, x + 3, (size_t)width);
            sill__norm norm = {kind, k % 4 < 3 ? weight : (sill__ref){0}, k % 5 < 3 ? bias : (sill__ref){0}, 1e-5f};
            out[i] = put(s, NULL, n);
            s->ops->begin(s->queue, &batch);
            s->ops->tap(s->queue, &(sill__op_tap){in, out[i], norm, width, k % 2 ? SILL__ROWS_OUT : SILL__ROWS_ALL});
            finish(s);
        }
        double d = distance(at(&sides[1], out[1]), at(&sides[0], out[0]), n);
        if (!(d <= 1e-12)) FAIL("norm %d of width %d: distance %g", (int)kind, width, d);
        sides[0].used = sides[1].used = 0;
    }
    for (int i = 0; i < 2; i++) side_close(&sides[i]);
}

/* ----------------------------------------------------------------- attention */

typedef struct heads {
    sill__kv_type kv;
    int32_t n_heads, n_kv_heads, dim;
    sill__rope_kind rope;
    int32_t rope_dims;
} heads;

static const heads shapes[] = {
    {SILL__KV_F32, 2, 2, 64, SILL__ROPE_NONE, 0},    {SILL__KV_F16, 3, 1, 64, SILL__ROPE_HALF, 64},
    {SILL__KV_I8, 2, 1, 64, SILL__ROPE_ADJACENT, 32}, {SILL__KV_F32, 1, 1, 80, SILL__ROPE_ADJACENT, 80},
    {SILL__KV_F16, 5, 1, 33, SILL__ROPE_HALF, 32},   {SILL__KV_I8, 1, 1, 96, SILL__ROPE_NONE, 0},
    {SILL__KV_F32, 2, 1, 128, SILL__ROPE_HALF, 128}, {SILL__KV_F16, 7, 7, 5, SILL__ROPE_NONE, 0},
    {SILL__KV_I8, 3, 3, 13, SILL__ROPE_HALF, 2},     {SILL__KV_F32, 16, 1, 1, SILL__ROPE_NONE, 0},
    {SILL__KV_F16, 1, 1, 256, SILL__ROPE_HALF, 256}, {SILL__KV_I8, 2, 2, 17, SILL__ROPE_NONE, 0},
    {SILL__KV_F32, 40, 1, 8, SILL__ROPE_NONE, 0},    {SILL__KV_I8, 1, 1, 200, SILL__ROPE_HALF, 200},
};

#define N_SEQS 4
#define MAX_LEN 140
#define BLOCKS_EACH 5

/* A cache, the sequences in it, and (for the reference) the identity as q, k and v's matrix. */
typedef struct world {
    side *s;
    const heads *h;
    sill__kv *kv;
    sill__weight *identity;
    float *ones;
    sill__ref inv_freq;
    int32_t lengths[N_SEQS], blocks[N_SEQS][BLOCKS_EACH];
} world;

static int32_t width_of(const heads *h) { return (h->n_heads + 2 * h->n_kv_heads) * h->dim; }

static bool world_open(world *w, side *s, const heads *h) {
    const int32_t width = width_of(h);
    const size_t n = (size_t)width;
    const sill__kv_shape shape = {2, h->n_kv_heads, h->dim, h->kv, N_SEQS * BLOCKS_EACH + 2};
    float freq[128];
    sill_error err = {0};
    memset(w, 0, sizeof *w);
    w->s = s;
    w->h = h;
    s->used = 0;
    CHECK_OK(s->ops->kv_create(s->d, &shape, &w->kv, &err), err);
    for (int32_t i = 0; i < h->rope_dims / 2; i++) freq[i] = powf(50, -2.0f * (float)i / (float)h->rope_dims);
    w->inv_freq = put(s, freq, (size_t)h->rope_dims / 2 + 1);
    for (int i = 0; i < N_SEQS; i++)
        for (int b = 0; b < BLOCKS_EACH; b++) w->blocks[i][b] = (i + b * N_SEQS) * 7 % (N_SEQS * BLOCKS_EACH);
    if (s->ops == sill__backend_ref()) {
        w->ones = sill__calloc(n * n, sizeof *w->ones);
        for (size_t i = 0; i < n; i++) w->ones[i * n + i] = 1;
        const sill__tensor t = {.name = "t", .n_dims = 2, .dims = {n, n}, .data = (const uint8_t *)w->ones, .bytes = n * n * 4};
        sill__weight_src src = {.parts = {&t}, .n_parts = 1, .rows = n, .cols = n, .role = SILL__ROLE_BODY, .name = "identity"};
        CHECK_OK(s->ops->weight_import(s->d, &src, &w->identity, &err), err);
    }
    return w->kv != NULL;
}

static void world_close(world *w) {
    if (w->identity) w->s->ops->weight_free(w->s->d, w->identity);
    w->s->ops->kv_free(w->s->d, w->kv);
    sill__free(w->ones);
}

typedef struct part { int seq, n; } part;
typedef struct step { int n_parts; part parts[8]; } step;

/* What a product would give for value i at a position of a sequence. */
static float value_of(int seq, int pos, int layer, int i) {
    uint64_t state = (uint64_t)((seq * 1000 + pos) * 2 + layer) * 100003u + (uint64_t)i * 7919u;
    test_random(&state);
    return 2.0f * ((float)(test_random(&state) >> 8) * 0x1p-23f - 1);
}

/* Runs a step, and keeps each row's q and attention of layer 1: (seq, pos) -> 2 * n_heads * dim. */
typedef struct kept { float *rows[N_SEQS][MAX_LEN]; } kept;

static void kept_free(kept *k) {
    for (int i = 0; i < N_SEQS * MAX_LEN; i++) sill__free(k->rows[i / MAX_LEN][i % MAX_LEN]);
}

static void run_step(world *w, const step *st, kept *out) {
    const heads *h = w->h;
    side *s = w->s;
    const size_t width = (size_t)width_of(h), q_width = (size_t)(h->n_heads * h->dim), used = s->used;
    int32_t n = 0, positions[600], tokens[600] = {0};
    sill__run runs[8];
    static float rows[600 * 400];
    for (int i = 0; i < st->n_parts; i++) {
        int seq = st->parts[i].seq;
        runs[i] = (sill__run){n, st->parts[i].n, w->lengths[seq], w->blocks[seq]};
        for (int k = 0; k < st->parts[i].n; k++) positions[n++] = w->lengths[seq] + k;
    }
    const sill__batch batch = {.n_tokens = n, .n_runs = st->n_parts, .tokens = tokens, .positions = positions, .runs = runs};
    if ((size_t)n * width > SILL_ARRAY_LEN(rows)) abort();
    sill__ref q = put(s, NULL, (size_t)n * q_width), attn = put(s, NULL, (size_t)n * q_width);
    s->ops->begin(s->queue, &batch);
    for (int32_t layer = 0; layer < 2; layer++) {
        for (int i = 0; i < st->n_parts; i++)
            for (int k = 0; k < runs[i].n; k++)
                for (size_t c = 0; c < width; c++)
                    rows[(size_t)(runs[i].first + k) * width + c] = value_of(st->parts[i].seq, runs[i].pos + k, layer, (int)c);
        sill__ref in = put(s, rows, (size_t)n * width);
        const sill__op_qkv op = {.in = in, .q = q, .w = w->identity, .rope = {h->rope, h->rope_dims, w->inv_freq, 1.0f},
                                 .kv = w->kv, .layer = layer, .n_heads = h->n_heads, .n_kv_heads = h->n_kv_heads, .head_dim = h->dim};
        if (w->identity) s->ops->qkv(s->queue, &op);
        else sill__mtl_rope_kv(s->queue, &op, sill__mtl_in(in, (size_t)n * width * 4));
        s->ops->attention(s->queue, &(sill__op_attention){
            .q = q, .out = attn, .kv = w->kv, .layer = layer, .n_heads = h->n_heads, .n_kv_heads = h->n_kv_heads,
            .head_dim = h->dim, .scale = 1 / sqrtf((float)h->dim)});
    }
    if (!finish(s)) return;
    for (int i = 0; i < st->n_parts; i++) {
        int seq = st->parts[i].seq;
        for (int k = 0; k < runs[i].n; k++) {
            float **to = &out->rows[seq][w->lengths[seq] + k];
            size_t row = (size_t)(runs[i].first + k);
            if (!*to) *to = sill__alloc(2 * q_width * 4);
            memcpy(*to, at(s, q) + row * q_width, q_width * 4);
            memcpy(*to + q_width, at(s, attn) + row * q_width, q_width * 4);
        }
        w->lengths[seq] += runs[i].n;
    }
    s->used = used;
}

/* Ragged: prompts, a prompt behind another's token, decoding in company and alone, tiles that are nearly empty. */
static const step ragged[] = {
    {3, {{0, 43}, {1, 9}, {2, 1}}}, {4, {{2, 33}, {0, 1}, {3, 8}, {1, 1}}}, {4, {{3, 1}, {2, 1}, {1, 1}, {0, 1}}},
    {1, {{0, 17}}}, {1, {{0, 1}}}, {2, {{1, 1}, {0, 5}}},
};

static void run_all(side *s, const heads *h, const step *steps, size_t n, kept *out) {
    world w;
    if (world_open(&w, s, h))
        for (size_t i = 0; i < n; i++) run_step(&w, &steps[i], out);
    world_close(&w);
}

/* In int8 a code may round the other way: one of 255 steps. */
static double bound_of(const heads *h) { return h->kv == SILL__KV_I8 ? 2e-6 : h->kv == SILL__KV_F16 ? 1e-7 : 1e-11; }

static void compare(const heads *h, const kept *want, const kept *got, const char *what) {
    const size_t n = (size_t)(h->n_heads * h->dim);
    double worst[2] = {0, 0};
    int n_rows = 0;
    for (int i = 0; i < N_SEQS * MAX_LEN; i++) {
        const float *a = want->rows[i / MAX_LEN][i % MAX_LEN], *b = got->rows[i / MAX_LEN][i % MAX_LEN];
        if (!a != !b) FAIL("%s: position %d of sequence %d is missing", what, i % MAX_LEN, i / MAX_LEN);
        if (!a || !b) continue;
        n_rows++;
        for (int k = 0; k < 2; k++) worst[k] = fmax(worst[k], distance(b + (size_t)k * n, a + (size_t)k * n, n));
    }
    if (!(worst[0] <= 1e-12) || !(worst[1] <= bound_of(h)) || n_rows < 90)
        FAIL("%s: kv type %d, %d heads over %d of %d: distances %g (q), %g (attention) in %d rows", what, (int)h->kv, h->n_heads,
             h->n_kv_heads, h->dim, worst[0], worst[1], n_rows);
}

static void attention_of_ragged_batches(void) {
    side sides[3];
    bool open = side_open(&sides[0], "ref", SILL__PATH_BATCH) & (int)side_open(&sides[1], "metal", SILL__PATH_BATCH) &
                (int)side_open(&sides[2], "metal", SILL__PATH_LATENCY);
    for (size_t k = 0; open && k < SILL_ARRAY_LEN(shapes); k++) {
        kept out[3] = {{{{0}}}};
        for (int i = 0; i < 3; i++) run_all(&sides[i], &shapes[k], ragged, SILL_ARRAY_LEN(ragged), &out[i]);
        compare(&shapes[k], &out[0], &out[1], "batch");
        compare(&shapes[k], &out[0], &out[2], "latency");
        for (int i = 0; i < 3; i++) kept_free(&out[i]);
    }
    for (int i = 0; i < 3; i++) side_close(&sides[i]);
}

static void same(const heads *h, const kept *want, const kept *got, const char *what) {
    const size_t n = (size_t)(h->n_heads * h->dim);
    for (int i = 0; i < N_SEQS * MAX_LEN; i++) {
        const float *a = want->rows[i / MAX_LEN][i % MAX_LEN], *b = got->rows[i / MAX_LEN][i % MAX_LEN];
        if (a && b && memcmp(a, b, 2 * n * 4)) {
            FAIL("%s: %d heads over %d of %d: other bits at position %d of sequence %d", what, h->n_heads, h->n_kv_heads, h->dim,
                 i % MAX_LEN, i / MAX_LEN);
            return;
        }
    }
}

/* The same texts as above: each alone and whole; token by token in company; in chunks, the other way round. */
static void the_same_bits_whatever_the_company(void) {
    static const step alone[] = {{1, {{0, 68}}}, {1, {{3, 9}}}, {1, {{1, 12}}}, {1, {{2, 35}}}};
    static const step chunks[] = {{4, {{3, 9}, {2, 2}, {1, 5}, {0, 31}}}, {2, {{1, 7}, {0, 2}}}, {2, {{0, 34}, {2, 33}}}, {1, {{0, 1}}}};
    static const size_t some[] = {1, 2, 4, 6, 8, 10, 12};
    side s;
    bool open = side_open(&s, "metal", SILL__PATH_BATCH);
    for (size_t n = 0; open && n < SILL_ARRAY_LEN(some); n++) {
        const size_t k = some[n];
        kept out[4] = {{{{0}}}};
        step each[35];
        for (int i = 0; i < 35; i++) each[i] = (step){i < 9 ? 4 : 2, {{2, 1}, {0, 1}, {3, 1}, {1, 1}}};
        run_all(&s, &shapes[k], ragged, SILL_ARRAY_LEN(ragged), &out[0]);
        run_all(&s, &shapes[k], alone, SILL_ARRAY_LEN(alone), &out[1]);
        run_all(&s, &shapes[k], chunks, SILL_ARRAY_LEN(chunks), &out[2]);
        run_all(&s, &shapes[k], each, 35, &out[3]);
        same(&shapes[k], &out[1], &out[0], "ragged");
        same(&shapes[k], &out[1], &out[2], "in chunks");
        same(&shapes[k], &out[1], &out[3], "token by token");
        for (int i = 0; i < 4; i++) kept_free(&out[i]);
    }
    side_close(&s);
}

/* Sequence 1 goes on behind 40 positions of sequence 0: its first block is shared, the second copied at the fork and
 * overwritten at home. */
static void a_shared_prefix_and_a_fork(void) {
    static const size_t some[] = {1, 2, 4, 7, 8};
    static const step whole = {1, {{0, 48}}}, prefix = {1, {{0, 40}}}, rest = {1, {{0, 8}}};
    side s;
    bool open = side_open(&s, "metal", SILL__PATH_BATCH);
    for (size_t n = 0; open && n < SILL_ARRAY_LEN(some); n++) {
        const size_t k = some[n];
        kept want = {{{0}}}, got = {{{0}}};
        world w;
        run_all(&s, &shapes[k], &whole, 1, &want);
        if (world_open(&w, &s, &shapes[k])) {
            const sill__batch none = {0};
            const int32_t spare = N_SEQS * BLOCKS_EACH;
            run_step(&w, &prefix, &got);
            s.ops->begin(s.queue, &none);
            s.ops->kv_copy(s.queue, w.kv, w.blocks[0][1], spare, 8);
            s.ops->kv_copy(s.queue, w.kv, w.blocks[0][0], w.blocks[0][1], 32);
            s.ops->kv_copy(s.queue, w.kv, w.blocks[0][0], w.blocks[0][0], 32);
            finish(&s);
            w.blocks[0][1] = spare;
            run_step(&w, &rest, &got);
        }
        world_close(&w);
        same(&shapes[k], &want, &got, "forked");
        CHECK(got.rows[0][47] != NULL);
        kept_free(&want);
        kept_free(&got);
    }
    side_close(&s);
}

/* ------------------------------------------------------------------- the head */

static double log_sum_exp(const float *x, int32_t n) {
    double max = -INFINITY, sum = 0;
    for (int32_t i = 0; i < n; i++) max = x[i] > max ? x[i] : max;
    if (max == -INFINITY) max = 0;
    for (int32_t i = 0; i < n; i++) sum += exp((double)x[i] - max);
    return max + log(sum);
}

/* The next best behind (value, id); NaN counts as -infinity. */
static int32_t next_best(const float *x, int32_t n, float value, int32_t id) {
    int32_t best = -1;
    for (int32_t i = 0; i < n; i++) {
        float v = x[i] == x[i] ? x[i] : -INFINITY;
        if (v > value || (v == value && i <= id)) continue;
        if (best < 0 || v > (x[best] == x[best] ? x[best] : -INFINITY)) best = i;
    }
    return best;
}

static void check_head(side *s, int32_t n_vocab, int32_t n_rows, int32_t n_top, int kind) {
    const int32_t stride = n_vocab + 5;
    const size_t n = (size_t)n_rows;
    float *x = sill__alloc(n * (size_t)stride * 4);
    int32_t tokens[80] = {0}, out_rows[80], starts[81], targets[400], n_targets = 0;
    for (size_t i = 0; i < n * (size_t)stride; i++) {
        x[i] = kind == 1 ? rintf(uniform(3)) : uniform(9) - 60;
        if (kind == 2 && i % 3) x[i] = -INFINITY;
        if (i % (size_t)stride >= (size_t)n_vocab) x[i] = 1000; /* not of the vocabulary */
    }
    if (kind == 3) x[(size_t)stride * (n - 1)] = NAN;
    if (kind == 4) for (int32_t i = 0; i < n_vocab; i++) x[(size_t)stride * (n - 1) + (size_t)i] = -INFINITY;
    for (int32_t i = 0; i < n_rows; i++) {
        out_rows[i] = i;
        starts[i] = n_targets;
        for (int k = 0; k < i % 4; k++) targets[n_targets++] = (int32_t)(test_random(&seed) % (uint32_t)n_vocab);
    }
    starts[n_rows] = n_targets;
    s->used = 0;
    sill__ref logits = put(s, x, n * (size_t)stride), lse = put(s, NULL, n), wanted = put(s, NULL, (size_t)n_targets + 1);
    sill__ref ids = put(s, NULL, n * (size_t)n_top + 1), logprobs = put(s, NULL, n * (size_t)n_top + 1);
    const sill__batch batch = {.n_tokens = n_rows, .n_out = n_rows, .tokens = tokens, .positions = tokens, .out_rows = out_rows};
    const sill__op_head op = {.n_vocab = n_vocab, .lse = lse, .target_starts = starts, .targets = targets, .target_logprobs = wanted,
                              .n_top = n_top, .top_ids = ids, .top_logprobs = logprobs};
    s->ops->begin(s->queue, &batch);
    /* In two pieces, as a head goes through many rows. */
    const int32_t first = n_rows / 3;
    sill__mtl_arg in = sill__mtl_in(logits, n * (size_t)stride * 4);
    if (first) sill__mtl_head_rows(s->queue, &op, 0, first, in, stride);
    in.at += (size_t)first * (size_t)stride * 4;
    in.bytes -= (size_t)first * (size_t)stride * 4;
    sill__mtl_head_rows(s->queue, &op, first, n_rows - first, in, stride);
    if (finish(s))
        for (int32_t i = 0; i < n_rows; i++) {
            const float *row = x + (size_t)i * (size_t)stride;
            const double l = log_sum_exp(row, n_vocab);
            const int32_t *got_ids = (const int32_t *)(const void *)at(s, ids) + i * n_top;
            const bool odd = l != l || l == -INFINITY;
            if (odd ? (l != l) != isnan(at(s, lse)[i]) : !(fabs(at(s, lse)[i] - l) <= 2e-5)) /* lse itself is near -55 */
                FAIL("lse of %d logits: %g, expected %g", n_vocab, (double)at(s, lse)[i], l);
            for (int32_t t = starts[i]; t < starts[i + 1]; t++)
                if (!odd && !(fabs(at(s, wanted)[t] - (row[targets[t]] - l)) <= 4e-6 || row[targets[t]] == -INFINITY))
                    FAIL("target %d of %d: %g, expected %g", targets[t], n_vocab, (double)at(s, wanted)[t], row[targets[t]] - l);
            float value = INFINITY;
            for (int32_t k = 0, id = -1; k < n_top; k++) {
                id = k < n_vocab ? next_best(row, n_vocab, value, id) : -1;
                if (got_ids[k] != id) {
                    FAIL("best %d of %d: id %d, expected %d", k, n_vocab, got_ids[k], id);
                    break;
                }
                float got = at(s, logprobs)[i * n_top + k];
                if (id < 0) CHECK(got == -INFINITY);
                else if (!odd && row[id] > -INFINITY) CHECK_NEAR(got, row[id] - l, 4e-6);
                if (id >= 0) value = row[id] == row[id] ? row[id] : -INFINITY;
            }
        }
    sill__free(x);
}

static void results_of_the_output_head(void) {
    static const struct { int32_t n_vocab, n_rows, n_top; int kind; } cases[] = {
        {1, 3, 2, 0}, {5, 70, 8, 0}, {2047, 3, 3, 0}, {2048, 3, 128, 0}, {2049, 2, 128, 1}, {4097, 4, 40, 1}, {257, 5, 0, 0},
        {32767, 2, 1, 0}, {32768, 2, 5, 0}, {50257, 3, 1, 1}, {50257, 2, 20, 0}, {700, 3, 9, 2}, {3000, 3, 4, 3}, {3000, 3, 4, 4},
    };
    side s;
    seed = 8;
    if (side_open(&s, "metal", SILL__PATH_BATCH))
        for (size_t k = 0; k < SILL_ARRAY_LEN(cases); k++)
            check_head(&s, cases[k].n_vocab, cases[k].n_rows, cases[k].n_top, cases[k].kind);
    side_close(&s);
}

/* ------------------------------------------------------------------- sampling */

/* What the host chooses; *margin: how far its uniform number is from where the choice would change. */
static int32_t host_choice(const float *x, int32_t n_vocab, const sill__sample_row *r, double *margin) {
    const sill_generate_options o = {.size = sizeof o, .do_sample = true, .temperature = r->temperature, .top_k = r->top_k,
                                     .top_p = r->top_p, .min_p = r->min_p, .seed = r->seed};
    sill__sampler *sampler = NULL;
    sill_error err = {0};
    const int32_t *ids, none = 0;
    const double *probs;
    int32_t id = -3;
    CHECK_OK(sill__sampler_create(&o, n_vocab, NULL, 0, &sampler, &err), err);
    if (!sampler) return -3;
    sill_status st = sill__sampler_filter(sampler, x, &none, 0, 0, &err);
    *margin = 1;
    if (st == SILL_OK) {
        double sum = 0, u = sill__uniform(r->seed, r->key, r->sequence, r->step);
        id = sill__sampler_draw(sampler, r->key, r->sequence, r->step);
        for (int32_t i = 0, n = sill__sampler_left(sampler, &ids, &probs); i < n; i++) *margin = fmin(*margin, fabs(u - (sum += probs[i])));
    } else {
        id = st == SILL_EDEVICE ? -1 : -2;
    }
    sill__sampler_free(sampler);
    return id;
}

static void check_sample(side *s, int32_t n_vocab, int kind, int *n_near) {
    static const sill__sample_row settings[] = {
        {.temperature = 1, .top_p = 1, .top_k = -1}, {.temperature = 0.7f, .top_p = 1, .top_k = 50},
        {.temperature = 1.3f, .top_p = 0.9f, .top_k = 50}, {.temperature = 1, .top_p = 0.9f, .top_k = -1},
        {.temperature = 0.5f, .top_p = 1, .min_p = 0.05f, .top_k = -1}, {.temperature = 1e-38f, .top_p = 1, .top_k = 20},
        {.temperature = 1, .top_p = 1, .top_k = 1}, {.temperature = 2, .top_p = 0.95f, .top_k = 700},
        {.temperature = 1, .top_p = 0.5f, .min_p = 0.01f, .top_k = 300}, {.temperature = 0.9f, .top_p = 0.3f, .min_p = 0.001f, .top_k = -1},
        {.temperature = 1, .top_p = 1e-4f, .top_k = -1},
    };
    enum { EACH = 4, N = EACH * SILL_ARRAY_LEN(settings) };
    sill__sample_row rows[N];
    int32_t tokens[N] = {0}, out_rows[N];
    const size_t vocab = (size_t)n_vocab;
    float *x = sill__alloc(N * vocab * 4);
    for (size_t i = 0; i < N * vocab; i++) {
        x[i] = kind == 1 ? rintf(uniform(4)) : uniform(6) + uniform(6) - 40;
        if (kind == 2 && test_random(&seed) % 5 < 3) x[i] = -INFINITY;
    }
    for (int i = 0; i < N; i++) {
        rows[i] = settings[i / EACH];
        rows[i].seed = (uint64_t)test_random(&seed) << 32 | test_random(&seed);
        rows[i].key = (uint64_t)test_random(&seed) << 32 | test_random(&seed);
        rows[i].sequence = test_random(&seed) % 5;
        rows[i].step = test_random(&seed) % 1000;
        out_rows[i] = i;
        if (kind == 3 && i % 4 == 1) x[vocab * (size_t)i + vocab - 1] = NAN;
        if (kind == 3 && i % 4 == 2) x[vocab * (size_t)i] = INFINITY;
        for (size_t c = 0; kind == 3 && i % 4 == 3 && c < vocab; c++) x[vocab * (size_t)i + c] = -INFINITY;
    }
    s->used = 0;
    const sill__batch batch = {.n_tokens = N, .n_out = N, .tokens = tokens, .positions = tokens, .out_rows = out_rows};
    const sill__op_sample op = {.logits = put(s, x, N * vocab), .n_vocab = n_vocab, .rows = rows, .ids = put(s, NULL, N),
                                .logprobs = put(s, NULL, N)};
    s->ops->begin(s->queue, &batch);
    s->ops->sample(s->queue, &op);
    if (finish(s))
        for (int i = 0; i < N; i++) {
            double margin = 1;
            const float *row = x + vocab * (size_t)i, logprob = at(s, op.logprobs)[i];
            const int32_t want = host_choice(row, n_vocab, &rows[i], &margin), got = ((const int32_t *)(const void *)at(s, op.ids))[i];
            if (got != want && margin < 2e-6) ++*n_near;
            else if (got != want) FAIL("setting %d, %d logits of kind %d: id %d, the host takes %d", i / EACH, n_vocab, kind, got, want);
            else if (want >= 0) CHECK_NEAR(logprob, row[want] - log_sum_exp(row, n_vocab), 4e-6);
            else CHECK(isnan(logprob));
        }
    sill__free(x);
}

static void samples_as_the_host_does(void) {
    static const struct { int32_t n_vocab; int kind; } cases[] = {{1, 0}, {2, 0}, {33, 0}, {511, 0}, {513, 1}, {1500, 2}, {5000, 0},
                                                                 {3000, 1}, {700, 3}, {32768, 0}, {50257, 0}};
    side s;
    int n_near = 0;
    seed = 21;
    if (side_open(&s, "metal", SILL__PATH_BATCH))
        for (size_t k = 0; k < SILL_ARRAY_LEN(cases); k++) check_sample(&s, cases[k].n_vocab, cases[k].kind, &n_near);
    CHECK(n_near <= 2);
    side_close(&s);
}

static void what_is_refused(void) {
    side s;
    sill_error err = {0};
    int32_t token = 5, position = 0, out_row = 0;
    float values[64] = {0};
    const sill__run run = {0, 1, 0, &position};
    const sill__batch batch = {1, 1, 1, &token, &position, &run, &out_row};
    if (side_open(&s, "metal", SILL__PATH_BATCH)) {
        const sill__kv_shape shape = {1, 2, 8, SILL__KV_F16, 3};
        sill__kv *kv = NULL;
        sill__ref x = put(&s, values, 64);
        CHECK_OK(s.ops->kv_create(s.d, &shape, &kv, &err), err);
        for (int k = 0; kv && k < 6; k++) {
            s.ops->begin(s.queue, &batch);
            if (k == 0) s.ops->attention(s.queue, &(sill__op_attention){.q = x, .out = x, .kv = kv, .n_heads = 3, .n_kv_heads = 2, .head_dim = 8});
            if (k == 1) s.ops->attention(s.queue, &(sill__op_attention){.q = x, .out = x, .kv = kv, .layer = 1, .n_heads = 2, .n_kv_heads = 2, .head_dim = 8});
            if (k == 2) s.ops->kv_copy(s.queue, kv, 0, 3, 1);
            if (k == 3) s.ops->tap(s.queue, &(sill__op_tap){.in = x, .out = x, .width = 1 << 30});
            if (k == 4) s.ops->sample(s.queue, &(sill__op_sample){.logits = x, .n_vocab = 64, .rows = &(sill__sample_row){0}, .ids = x});
            if (k == 5) sill__mtl_head_rows(s.queue, &(sill__op_head){.n_vocab = 64, .n_top = 129, .top_ids = x}, 0, 1, sill__mtl_in(x, 256), 64);
            sill_status st = s.ops->submit(s.queue, NULL, &err);
            if (st == SILL_OK) st = s.ops->wait(s.queue, 0, &err);
            CHECK_INT(st, k == 5 ? SILL_ERANGE : SILL_EINVAL);
        }
        s.ops->kv_free(s.d, kv);
        const sill__queue_shape many = {4, 4, 64, 600000, SILL__PATH_BATCH};
        CHECK(s.ops->queue_bytes(s.d, &many) == UINT64_MAX);
    }
    side_close(&s);
}

int main(int argc, char **argv) {
    fake_open(argv[0]);
#ifndef __APPLE__
    if (fake_missing()) {
        printf("SKIP metal: %s\n", fake_missing());
        return 0;
    }
#endif
    TEST(embeddings_are_those_of_the_reference);
    TEST(norms_and_gathering);
    TEST(attention_of_ragged_batches);
    TEST(the_same_bits_whatever_the_company);
    TEST(a_shared_prefix_and_a_fork);
    TEST(results_of_the_output_head);
    TEST(samples_as_the_host_does);
    TEST(what_is_refused);
    sill__mtl_forget(); /* so that the fake device has nothing to complain of */
    TEST_EXIT();
}
