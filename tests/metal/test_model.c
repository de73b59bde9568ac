/*
 * test_model.c - whole small models on the fake Metal: against the scalar reference with every type of weights and of
 * keys and values; same bits in any company, order and chunks and with a shared prefix; the latency path within a bound;
 * how many kernels and command buffers a decoded token takes; what loading leaves behind when it fails.
 */
#include "../model/rig.h"

#include "engine/internal.h"
#include "metal.h"

static double worst; /* of the test that runs */

static sill_model *load(const char *path, const char *device, sill_dtype dtype) {
    char full[256];
    sill_model *m = NULL;
    sill_error err = {0};
    sill_model_options o = {.size = sizeof o, .device = device, .dtype = dtype, .n_threads = 2};
    snprintf(full, sizeof full, "%s%s", strchr(path, '/') ? "" : FIXTURES, path);
    if (sill_model_load(full, &o, &m, &err) != SILL_OK) FAIL("%s on %s: %s", path, device, err.msg);
    return m;
}

/* -------------------------------------------------------- against the reference */

/* Sequence by sequence in chunks of CHUNK tokens: logits, or outputs of the classification head. */
static void compare_sequence(const char *name, rig *a, rig *b, const int32_t *ids, int32_t n, int32_t chunk, double bound) {
    sill_error err = {0};
    const sill__config *c = &a->m->config;
    const size_t width = (size_t)(c->n_labels ? c->n_labels : c->n_vocab), room = 64 * width;
    float *got = calloc(room, sizeof *got), *want = calloc(room, sizeof *want);
    for (int32_t at = 0; at < n; at += chunk) {
        int32_t k = SILL_MIN(chunk, n - at);
        rig_want in_a = {.logits = got}, in_b = {.logits = want};
        if (c->n_labels) {
            in_a = (rig_want){.classes = got};
            in_b = (rig_want){.classes = want};
        }
        sill_status s = rig_step(a, ids + at, k, at, in_a, &err);
        if (s == SILL_OK) s = rig_step(b, ids + at, k, at, in_b, &err);
        if (s != SILL_OK) {
            FAIL("%s: %s", name, err.msg);
            break;
        }
        for (int32_t i = 0; i < k; i++) {
            double d = rig_distance(got + (size_t)i * width, want + (size_t)i * width, width);
            if (!(d <= worst)) worst = d;
            if (!(d <= bound)) FAIL("%s: row %d differs by %.3g, allowed %.3g", name, at + i, d, bound);
        }
    }
    free(got);
    free(want);
}

static void compare_with(const char *name, sill_dtype on_metal, const char *ref, sill_dtype on_ref, sill__kv_type kv, double bound) {
    sill_error err = {0};
    uint64_t seed = 77;
    rig a = {0}, b = {0};
    sill_model *m = load(name, "metal", on_metal), *r = load(ref, "ref", on_ref);
    if (m && r && rig_open(&a, m, kv, 64, &err) == SILL_OK && rig_open(&b, r, kv, 64, &err) == SILL_OK) {
        int32_t ids[45];
        for (int32_t i = 0; i < 45; i++) ids[i] = (int32_t)(test_random(&seed) % (uint32_t)m->config.n_vocab);
        compare_sequence(name, &a, &b, ids, 45, 45, bound);
        compare_sequence(name, &a, &b, ids, 13, 1, bound);
    } else {
        FAIL("%s: %s", name, err.msg);
    }
    rig_close(&a);
    rig_close(&b);
    sill_model_free(m);
    sill_model_free(r);
}

static void compare(const char *name, sill_dtype on_metal, sill_dtype on_ref, sill__kv_type kv, double bound) {
    compare_with(name, on_metal, name, on_ref, kv, bound);
}

static void compare_all(const char *const *names, size_t n, sill_dtype on_metal, sill_dtype on_ref, sill__kv_type kv, double bound) {
    worst = 0;
    for (size_t i = 0; i < n; i++) compare(names[i], on_metal, on_ref, kv, bound);
    printf("  largest relative difference %.2g\n", worst);
}
#define ALL(list) list, SILL_ARRAY_LEN(list)

static const char *const float_models[] = {"gpt2-one", "gpt2-bare", "gpt2-shards", "gpt2-padded", "gpt2-class",
                                           "gpt2-plain-gguf.gguf", "llama-gqa42", "llama-gqa93", "llama-linear",
                                           "llama-llama3", "llama-class"};
static const char *const half_models[] = {"gpt2-f16", "gpt2-bf16", "llama-f16", "llama-bf16-bias", "llama-plain-gguf.gguf"};
static const char *const block_models[] = {"gpt2-q8-gguf.gguf", "llama-blocks-gguf.gguf", "llama-k-gguf.gguf", "llama-mixed-gguf.gguf"};
static const char *const two_models[] = {"gpt2-one", "llama-gqa42"};

static void weights_in_f32(void) {
    NEEDS_FAKE();
    compare_all(ALL(float_models), SILL_DTYPE_AUTO, SILL_DTYPE_AUTO, SILL__KV_F32, 5e-5);
}
static void weights_stored_in_16_bits(void) {
    NEEDS_FAKE();
    compare_all(ALL(half_models), SILL_DTYPE_F32, SILL_DTYPE_F32, SILL__KV_F32, 5e-5);
    compare_all(ALL(half_models), SILL_DTYPE_AUTO, SILL_DTYPE_AUTO, SILL__KV_F16, 2e-3);
}
static void weights_rounded_to_16_bits(void) {
    NEEDS_FAKE();
    compare_all(ALL(two_models), SILL_DTYPE_F16, SILL_DTYPE_F16, SILL__KV_F32, 5e-5);
    compare_all(ALL(two_models), SILL_DTYPE_BF16, SILL_DTYPE_BF16, SILL__KV_F32, 5e-5);
}
/* Blocks are multiplied as they are with f32 activations: the reference does so with dtype f32. */
static void weights_in_blocks(void) {
    NEEDS_FAKE();
    compare_all(ALL(block_models), SILL_DTYPE_F32, SILL_DTYPE_F32, SILL__KV_F32, 5e-5);
    compare_all(ALL(block_models), SILL_DTYPE_AUTO, SILL_DTYPE_F32, SILL__KV_F32, 5e-5);
}
/* q8 and q4 of f32 weights beside the reference on files that hold the same blocks, as gguf-py made them, with f32 activations on
 * both sides. LLM.int8: test_int8. */
static void weights_made_of_blocks(void) {
    NEEDS_FAKE();
    worst = 0;
    compare_with("gpt2-made", SILL_DTYPE_Q8, "gpt2-made-q8.gguf", SILL_DTYPE_F32, SILL__KV_F32, 5e-5);
    compare_with("gpt2-made", SILL_DTYPE_Q4, "gpt2-made-q4.gguf", SILL_DTYPE_F32, SILL__KV_F32, 5e-5);
    printf("  largest relative difference %.2g\n", worst);
}
static void keys_and_values(void) {
    NEEDS_FAKE();
    compare_all(ALL(float_models), SILL_DTYPE_AUTO, SILL_DTYPE_AUTO, SILL__KV_F16, 2e-3);
    compare_all(ALL(float_models), SILL_DTYPE_AUTO, SILL_DTYPE_AUTO, SILL__KV_I8, 3e-2);
}

/* q8 or q4 of f32 weights gives the bits of the file that holds the same blocks. */
static void bits_as_stored(sill_dtype dtype, const char *stored_name) {
    static float logits[2][45 * 256];
    for (int stored = 0; stored < 2; stored++) {
        rig r;
        int32_t ids[45];
        sill_error err = {0};
        sill_model *m = load(stored ? stored_name : "gpt2-made", "metal", stored ? SILL_DTYPE_AUTO : dtype);
        REQUIRE(m && m->config.n_vocab <= 256);
        for (int32_t i = 0; i < 45; i++) ids[i] = i * 5 % m->config.n_vocab;
        sill_status s = rig_open(&r, m, SILL__KV_F16, 64, &err);
        CHECK_OK(s, err);
        if (s != SILL_OK) {
            sill_model_free(m);
            return;
        }
        memset(logits[stored], stored, sizeof logits[stored]);
        CHECK_OK(rig_step(&r, ids, 45, 0, (rig_want){.logits = logits[stored]}, &err), err);
        CHECK(logits[stored][0] != logits[stored][1]);
        if (stored) CHECK(!memcmp(logits[0], logits[1], 45 * (size_t)m->config.n_vocab * 4));
        rig_close(&r);
        sill_model_free(m);
    }
}

static void made_as_stored(void) {
    NEEDS_FAKE();
    bits_as_stored(SILL_DTYPE_Q8, "gpt2-made-q8.gguf");
    bits_as_stored(SILL_DTYPE_Q4, "gpt2-made-q4.gguf");
}

/* ------------------------------------------------------------------ same bits */

#define N_SEQS 5
#define MORE 3 /* tokens decoded one by one behind the prompts */
static const int32_t lengths[N_SEQS] = {3, 41, 33, 47, 17};

typedef struct bits { sill_model *m; sill_session *s; int32_t ids[N_SEQS][80]; float *alone[N_SEQS]; } bits;

/* Runs the sequences of `which` together, `chunk` tokens of each a step, those of the prefix taken from a fork, and
 * compares the logits of every last row with those kept, or keeps them. */
static void run_together(bits *b, const char *what, const int32_t *which, int32_t n, int32_t chunk, sill__seq prefix,
                         int32_t n_prefix, bool keep) {
    sill__seq seqs[N_SEQS];
    int32_t at[N_SEQS];
    sill_error err = {0};
    size_t vocab = (size_t)b->m->config.n_vocab;
    for (int32_t i = 0; i < n; i++) {
        seqs[i] = prefix >= 0 ? sill__seq_fork(b->s, prefix, n_prefix) : sill__seq_new(b->s);
        at[i] = n_prefix;
        REQUIRE(seqs[i] >= 0);
    }
    for (bool going = true; going;) {
        sill__span spans[N_SEQS];
        int32_t of[N_SEQS], n_spans = 0, room = sill__session_batch_tokens(b->s);
        going = false;
        for (int32_t i = 0; i < n; i++) {
            int32_t prompt = lengths[which[i]], end = prompt + MORE;
            int32_t k = SILL_MIN(at[i] < prompt ? SILL_MIN(chunk, prompt - at[i]) : SILL_MIN(1, end - at[i]), room);
            if (k <= 0) continue;
            spans[n_spans] = (sill__span){.seq = seqs[i], .tokens = b->ids[which[i]] + at[i], .n = k, .first_out = k,
                                          .want_logits = at[i] + k >= prompt};
            of[n_spans++] = i;
            room -= k;
        }
        if (!n_spans) break;
        sill_status st = sill__step(b->s, spans, n_spans, &err);
        if (st != SILL_OK) {
            FAIL("%s: %s", what, err.msg);
            break;
        }
        going = true;
        for (int32_t k = 0; k < n_spans; k++) {
            int32_t i = of[k], row = at[i] + spans[k].n - lengths[which[i]];
            at[i] += spans[k].n;
            if (row < 0) continue;
            float *kept = b->alone[which[i]] + (size_t)row * vocab;
            if (keep) memcpy(kept, spans[k].logits, vocab * sizeof *kept);
            else if (memcmp(kept, spans[k].logits, vocab * sizeof *kept))
                FAIL("%s: sequence %d has other bits %d tokens behind its prompt (%.2g)", what, which[i], row,
                     rig_distance(spans[k].logits, kept, vocab));
        }
    }
    for (int32_t i = 0; i < n; i++) sill__seq_free(b->s, seqs[i]);
}

static void same_bits(const char *path, sill_dtype dtype, sill_kv_dtype kv) {
    bits b = {0};
    uint64_t seed = 5;
    sill_error err = {0};
    sill_session_options o = {.size = sizeof o, .n_ctx = 80, .batch_tokens = 160, .max_sequences = 6, .kv_dtype = kv};
    char what[160];
    b.m = load(path, "metal", dtype);
    if (!b.m || sill_session_create(b.m, &o, &b.s, &err) != SILL_OK) {
        FAIL("%s: %s", path, err.msg);
        sill_model_free(b.m);
        return;
    }
    for (int32_t i = 0; i < N_SEQS; i++) {
        b.alone[i] = calloc((MORE + 1) * (size_t)b.m->config.n_vocab, sizeof(float));
        for (int32_t k = 0; k < 80; k++) b.ids[i][k] = (int32_t)(test_random(&seed) % (uint32_t)b.m->config.n_vocab);
        memcpy(b.ids[i], b.ids[0], 2 * sizeof b.ids[i][0]); /* all begin alike, two of them for longer */
    }
    memcpy(b.ids[3], b.ids[1], 38 * sizeof b.ids[3][0]);
    const int32_t all[] = {0, 1, 2, 3, 4}, turned[] = {3, 1, 4, 0, 2}, some[] = {4, 2}, alike[] = {1, 3};
#define RUN(text, list, chunk, prefix, n_prefix, keep)                                              \
    (snprintf(what, sizeof what, "%s, %s", path, text),                                             \
     run_together(&b, what, list, SILL_ARRAY_LEN(list), chunk, prefix, n_prefix, keep))
    for (int32_t i = 0; i < N_SEQS; i++) run_together(&b, path, &i, 1, 80, -1, 0, true);
    RUN("together", all, 80, -1, 0, false);
    RUN("in another order", turned, 80, -1, 0, false);
    RUN("two of them", some, 80, -1, 0, false);
    RUN("in chunks of 7", all, 7, -1, 0, false);
    RUN("token by token", some, 1, -1, 0, false);
    for (int32_t n = 32; n <= 38; n += 6) {
        sill__seq prefix = sill__seq_new(b.s);
        sill__span span = {.seq = prefix, .tokens = b.ids[1], .n = n, .first_out = n};
        CHECK_OK(sill__step(b.s, &span, 1, &err), err);
        RUN("with a shared prefix", alike, 80, prefix, n, false);
        RUN("with a shared prefix, in chunks", alike, 5, prefix, n, false);
        sill__seq_free(b.s, prefix);
    }
#undef RUN
    for (int32_t i = 0; i < N_SEQS; i++) free(b.alone[i]);
    sill_session_free(b.s);
    sill_model_free(b.m);
}

static void same_bits_of_gpt2(void) {
    NEEDS_FAKE();
    same_bits("tests/fixtures/task/gpt2", SILL_DTYPE_AUTO, SILL_KV_AUTO);
    same_bits("tests/fixtures/task/gpt2", SILL_DTYPE_INT8, SILL_KV_INT8);
}
static void same_bits_of_llama(void) {
    NEEDS_FAKE();
    same_bits("tests/fixtures/task/llama", SILL_DTYPE_F16, SILL_KV_F16);
}
static void same_bits_of_stories(void) {
    NEEDS_FAKE();
    same_bits("tests/fixtures/stories260K/stories260K.gguf", SILL_DTYPE_Q8, SILL_KV_AUTO);
}

/* ------------------------------------------------------- the path of one text */

static const char *const counted_models[] = {"tests/fixtures/task/gpt2", "tests/fixtures/task/llama",
                                             "tests/fixtures/stories260K/stories260K.gguf"};

/* Greedy ids and logits of one sequence on a path; and what decoding took. */
static void decode(sill_model *m, int32_t interactive, int32_t n, float *logits, fakemetal_totals *took, uint64_t *grown) {
    sill_session *s = NULL;
    sill_error err = {0};
    sill_session_options o = {.size = sizeof o, .n_ctx = 100, .batch_tokens = 64, .max_sequences = 1, .interactive = interactive};
    CHECK_OK(sill_session_create(m, &o, &s, &err), err);
    if (!s) return;
    int32_t ids[64];
    size_t vocab = (size_t)m->config.n_vocab;
    for (int32_t i = 0; i < 9; i++) ids[i] = (i * 7 + 1) % m->config.n_vocab;
    sill__seq seq = sill__seq_new(s);
    sill__span span = {.seq = seq, .tokens = ids, .n = 9, .first_out = 9, .want_logits = true, .n_top = 1};
    CHECK_OK(sill__step(s, &span, 1, &err), err);
    memcpy(logits, span.logits, vocab * 4);
    for (int32_t i = 1; i <= n; i++) {
        if (i == 3) fake.reset(); /* from here on all pipelines are there */
        int32_t id = (i * 11) % m->config.n_vocab;
        span = (sill__span){.seq = seq, .tokens = &id, .n = 1, .first_out = 1, .want_logits = true, .n_top = 1};
        CHECK_OK(sill__step(s, &span, 1, &err), err);
        memcpy(logits + (size_t)i * vocab, span.logits, vocab * 4);
    }
    *took = fake_totals();
    *grown = sill__mtl_queue_counts(s->queue).grown;
    sill_session_free(s);
}

static void one_text(void) {
    enum { N = 36 };
    NEEDS_FAKE();
    for (size_t i = 0; i < SILL_ARRAY_LEN(counted_models); i++) {
        sill_model *m = load(counted_models[i], "metal", SILL_DTYPE_AUTO);
        REQUIRE(m);
        const uint64_t layers = (uint64_t)m->config.n_layers, steps = N - 2;
        const size_t vocab = (size_t)m->config.n_vocab;
        float *logits[2];
        fakemetal_totals took[2];
        uint64_t grown[2];
        for (int path = 0; path < 2; path++) {
            logits[path] = calloc((N + 1) * vocab, sizeof(float));
            decode(m, path, N, logits[path], &took[path], &grown[path]);
            CHECK_INT(took[path].command_buffers, steps);
            CHECK_INT(took[path].buffers_made, 0);
            CHECK_INT(took[path].pipelines_made, 0);
            CHECK_INT(took[path].unpooled, 0);
            CHECK_INT(grown[path], 0);
            printf("  %s, %s: %.1f kernels a token, %.2f a layer\n", counted_models[i], path ? "one text" : "corpora",
                   (double)took[path].dispatches / (double)steps, (double)took[path].dispatches / (double)(steps * layers));
        }
        CHECK(took[1].dispatches <= steps * (6 * layers + 6));
        worst = 0;
        for (size_t k = 0; k <= N; k++) {
            double d = rig_distance(logits[1] + k * vocab, logits[0] + k * vocab, vocab);
            if (!(d <= worst)) worst = d;
        }
        printf("  the paths differ by at most %.2g\n", worst);
        CHECK(worst <= 1e-3);
        free(logits[0]);
        free(logits[1]);
        sill_model_free(m);
    }
}

/* -------------------------------------------------------------- memory over rows */

#define N_ROWS 1000
#define WARM 200 /* rows until every kind of step has come */
typedef struct flat { sill_session *s; int32_t next, done, ids[64]; uint64_t seed, in_use, grown; fakemetal_totals warm; } flat;

static int flat_next(void *user, sill_row *row) {
    flat *f = user;
    if (f->next == N_ROWS) return 0;
    *row = (sill_row){.index = (uint64_t)f->next++, .ids = f->ids, .n_ids = 1 + test_random(&f->seed) % 24};
    return 1;
}

static int flat_done(void *user, const sill_scored *r) {
    flat *f = user;
    if (r->status != SILL_OK) FAIL("%s", r->error);
    if (++f->done != WARM) return 0;
    f->warm = fake_totals();
    f->in_use = f->s->model->device->in_use;
    f->grown = sill__mtl_queue_counts(f->s->queue).grown;
    return 0;
}

/* Steps of several command buffers, on both paths and schedules: the same bits as of one. */
static void in_pieces(void) {
    enum { N = 6 };
    NEEDS_FAKE();
    for (size_t k = 0; k < SILL_ARRAY_LEN(counted_models); k++) {
        sill_model *m = load(counted_models[k], "metal", SILL_DTYPE_AUTO);
        REQUIRE(m);
        const size_t n = (N + 1) * (size_t)m->config.n_vocab;
        float *whole = calloc(n, sizeof *whole), *got = calloc(n, sizeof *got);
        for (int32_t interactive = 0; interactive < 2; interactive++) {
            fakemetal_totals one = {0}, took = {0};
            uint64_t grown = 0;
            decode(m, interactive, N, whole, &one, &grown);
            for (int of = 0; of < 4; of++) { /* every call by itself, or some together */
                sill__mtl_piece_seconds(of < 2 ? 1e-12 : 3e-7);
                fake.set("schedule", of % 2);
                memset(got, 0, n * sizeof *got);
                decode(m, interactive, N, got, &took, &grown);
                CHECK(!memcmp(got, whole, n * sizeof *got));
                CHECK_INT(took.dispatches, one.dispatches);
                CHECK(of < 2 ? took.command_buffers == took.dispatches && took.barriers == 0
                             : took.command_buffers > one.command_buffers && took.command_buffers < took.dispatches);
                CHECK_INT(grown, 0);
            }
            sill__mtl_piece_seconds(0);
            fake.set("schedule", 0);
            CHECK_INT(one.command_buffers, N - 2);
        }
        free(whole);
        free(got);
        sill_model_free(m);
    }
}

/* With every access checked: what the fences between a step's command buffers order, which nothing else does. */
static void accesses_in_pieces(void) {
    enum { N = 2 };
    fakemetal_totals took = {0};
    uint64_t grown = 0;
    NEEDS_FAKE();
    check_accesses(true);
    for (size_t k = 0; k < 2; k++) {
        sill_model *m = load(counted_models[k], "metal", SILL_DTYPE_AUTO);
        REQUIRE(m);
        const size_t n = (N + 1) * (size_t)m->config.n_vocab;
        float *whole = calloc(n, sizeof *whole), *got = calloc(n, sizeof *got);
        decode(m, (int32_t)k, N, whole, &took, &grown);
        sill__mtl_piece_seconds(k ? 3e-7 : 1e-12);
        decode(m, (int32_t)k, N, got, &took, &grown);
        sill__mtl_piece_seconds(0);
        CHECK(!memcmp(got, whole, n * sizeof *got));
        free(whole);
        free(got);
        sill_model_free(m);
    }
    check_accesses(false);
}

/* A thousand texts of 1 to 24 tokens: the same buffers, and no new object but pipelines. */
static void memory_over_rows(void) {
    sill_error err = {0};
    flat f = {.seed = 12};
    sill_session_options o = {.size = sizeof o, .n_ctx = 64, .batch_tokens = 64, .max_sequences = 6};
    NEEDS_FAKE();
    sill_model *m = load("llama-gqa42", "metal", SILL_DTYPE_AUTO);
    REQUIRE(m);
    CHECK_OK(sill_session_create(m, &o, &f.s, &err), err);
    REQUIRE(f.s);
    for (int32_t i = 0; i < 64; i++) f.ids[i] = (i * 17 + 3) % m->config.n_vocab;
    CHECK_OK(sill_score(f.s, NULL, flat_next, flat_done, &f, &err), err);
    CHECK_INT(f.done, N_ROWS);
    const fakemetal_totals t = fake_totals();
    printf("  %d rows, %.0f command buffers; %.0f pipelines behind row %d\n", N_ROWS, (double)t.command_buffers,
           (double)(t.pipelines_made - f.warm.pipelines_made), WARM);
    CHECK(t.command_buffers > f.warm.command_buffers + 100);
    CHECK_INT(t.buffers_made, f.warm.buffers_made);
    CHECK_INT(t.allocated, f.warm.allocated);
    CHECK_INT(t.unpooled, 0);
    CHECK_INT(m->device->in_use, f.in_use);
    CHECK_INT(sill__mtl_queue_counts(f.s->queue).grown, f.grown);
    CHECK(t.live_objects <= f.warm.live_objects + 2 * (t.pipelines_made - f.warm.pipelines_made) + 8); /* and steps in flight */
    sill_session_free(f.s);
    sill_model_free(m);
}

/* ---------------------------------------------------------- failing and leaving */

static void loading_that_fails(void) {
    sill_error err = {0};
    sill_model_options o = {.size = sizeof o, .device = "metal", .dtype = SILL_DTYPE_F16};
    NEEDS_FAKE();
    sill_model *m = NULL;
    for (long n = 1; n < 200; n++) { /* the n-th buffer cannot be had */
        uint64_t before = fake_totals().live_objects;
        fake.fault("buffer", n, 1);
        sill_status s = sill_model_load(FIXTURES "llama-gqa42", &o, &m, &err);
        sill_session *session = NULL;
        if (s == SILL_OK) s = sill_session_create(m, NULL, &session, &err);
        fake.fault("buffer", 1, 0);
        if (s == SILL_OK) {
            printf("  %ld buffers\n", n - 1);
            CHECK(n > 10);
            sill_session_free(session);
            sill_model_free(m);
            return;
        }
        CHECK_INT(s, SILL_ENOMEM);
        sill_model_free(m);
        m = NULL;
        sill__mtl_made made = sill__mtl_made_so_far();
        uint64_t kept = 2 + made.pipelines * 2; /* device and library, kept for the process; a pipeline and its function */
        if (fake_totals().live_objects > SILL_MAX(before, kept)) FAIL("buffer %ld: objects are left", n);
    }
    FAIL("loading never ends");
}

static void what_does_not_fit(void) {
    sill_plan_info plan;
    sill_error err = {0};
    sill_model *m = NULL;
    sill_model_options o = {.size = sizeof o, .device = "metal"};
    NEEDS_FAKE();
    CHECK_OK(sill_plan("tests/fixtures/task/llama", &o, NULL, &plan, &err), err);
    CHECK(plan.fits && plan.weight_bytes > 20000);
    fake.set("working-set", (double)(plan.weight_bytes / 2));
    CHECK_OK(sill_plan("tests/fixtures/task/llama", &o, NULL, &plan, &err), err);
    CHECK(!plan.fits && plan.available_bytes <= plan.weight_bytes / 2);
    CHECK_INT(sill_model_load("tests/fixtures/task/llama", &o, &m, &err), SILL_ENOFIT);
    fake.set("working-set", (double)(plan.weight_bytes + plan.weight_bytes / 2));
    sill_session *s = NULL;
    sill_session_options so = {.size = sizeof so, .max_sequences = 64};
    CHECK_OK(sill_model_load("tests/fixtures/task/llama", &o, &m, &err), err);
    CHECK_INT(m ? sill_session_create(m, &so, &s, &err) : SILL_ENOFIT, SILL_ENOFIT);
    CHECK(strstr(err.msg, "MiB"));
    sill_model_free(m);
    fake.set("working-set", (double)(10ull << 30));
}

/* What is planned is what buffers take, tables that stay in the file included, so nothing that loads exceeds the working set. */
static void working_set(void) {
    const char *const *lists[] = {float_models, half_models, block_models};
    const size_t n[] = {SILL_ARRAY_LEN(float_models), SILL_ARRAY_LEN(half_models), SILL_ARRAY_LEN(block_models)};
    const sill_dtype types[] = {SILL_DTYPE_AUTO, SILL_DTYPE_F16, SILL_DTYPE_Q8};
    NEEDS_FAKE();
    for (size_t i = 0; i < SILL_ARRAY_LEN(lists); i++)
        for (size_t k = 0; k < n[i]; k++)
            for (size_t t = 0; t < (i < 2 ? SILL_ARRAY_LEN(types) : 1); t++) {
                char path[256];
                sill_plan_info plan;
                sill_error err = {0};
                sill_session *s = NULL;
                sill_model *m = NULL;
                sill_model_options o = {.size = sizeof o, .device = "metal", .dtype = types[t]};
                sill_session_options so = {.size = sizeof so, .n_ctx = 64, .batch_tokens = 64, .max_sequences = 2};
                snprintf(path, sizeof path, FIXTURES "%s", lists[i][k]);
                CHECK_OK(sill_plan(path, &o, &so, &plan, &err), err);
                CHECK_OK(sill_model_load(path, &o, &m, &err), err);
                REQUIRE(m);
                const uint64_t empty = 256; /* what an open device binds in place of nothing */
                CHECK_INT(m->device->in_use - empty, plan.weight_bytes);
                CHECK_OK(sill_session_create(m, &so, &s, &err), err);
                CHECK(m->device->in_use <= plan.total_bytes && m->device->in_use > plan.weight_bytes + plan.kv_bytes);
                sill_session_free(s);
                sill_model_free(m);
                fake.set("working-set", (double)(plan.weight_bytes + empty));
                CHECK_OK(sill_model_load(path, &o, &m, &err), err);
                sill_model_free(m);
                fake.set("working-set", (double)(plan.weight_bytes + empty - 1));
                CHECK_INT(sill_model_load(path, &o, &m, &err), SILL_ENOFIT);
                CHECK_INT(sill_plan(path, &o, &so, &plan, &err), SILL_OK);
                CHECK(!plan.fits && plan.available_bytes == plan.weight_bytes - 1);
                fake.set("working-set", (double)(plan.total_bytes + empty));
                CHECK_INT(sill_plan(path, &o, &so, &plan, &err), SILL_OK);
                CHECK(plan.fits && plan.available_bytes == plan.total_bytes);
                fake.set("working-set", (double)(10ull << 30));
            }
}

int main(int argc, char **argv) {
    fake_open(argv[0]);
    check_accesses(true);
    TEST(weights_in_f32);
    TEST(weights_in_blocks);
    check_accesses(false);
    TEST(weights_stored_in_16_bits);
    TEST(weights_rounded_to_16_bits);
    TEST(weights_made_of_blocks);
    TEST(keys_and_values);
    TEST(made_as_stored);
    TEST(same_bits_of_gpt2);
    TEST(same_bits_of_llama);
    TEST(same_bits_of_stories);
    TEST(one_text);
    TEST(in_pieces);
    TEST(accesses_in_pieces);
    TEST(memory_over_rows);
    TEST(loading_that_fails);
    TEST(what_does_not_fit);
    TEST(working_set);
    TEST(nothing_is_left);
    TEST_EXIT();
}
