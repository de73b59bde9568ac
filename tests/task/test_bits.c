/*
 * test_bits.c - same bits: what a row gives does not depend on the other rows, their number and order, the size of
 * chunks, the number of threads, or whether its prompt's head was shared. On the reference, and on every instruction set
 * that this machine has, for f32, bf16 and f16 weights, those quantized at load, quantized files, and every type of the
 * KV cache. TEST_SMALL=1, for emulators: fewer and shorter rows in three ways, of the same models and types.
 */
#include "records.h"

enum { N_ROWS = 64, MAX_IDS = 120, N_LABELS = 4 };

typedef struct corpus {
    sill_row rows[N_ROWS];
    int32_t ids[N_ROWS][MAX_IDS];
} corpus;

/* Rows of any length, a few tokens to nearly the whole context. */
static void make_corpus(corpus *c, int32_t vocab, int longest, uint64_t seed) {
    uint64_t random = seed;
    for (int i = 0; i < N_ROWS; i++) {
        int n = i % 3 == 0 ? 2 + (int)(test_random(&random) % 8) : 2 + (int)(test_random(&random) % (uint32_t)(longest - 2));
        for (int k = 0; k < n; k++) c->ids[i][k] = (int32_t)(test_random(&random) % (uint32_t)vocab);
        c->rows[i] = (sill_row){.index = (uint64_t)i, .key = 1000u + (uint64_t)i, .ids = c->ids[i], .n_ids = (size_t)n};
    }
}

typedef struct results {
    float score[N_ROWS][MAX_IDS], label[N_ROWS][N_LABELS], new_lp[N_ROWS][2][16];
    int32_t new_ids[N_ROWS][2][16], n_new[N_ROWS][2];
    int n_scored, n_labelled, n_generated;
} results;

typedef struct run { test_rows source; results *out; } run;

static int next_row(void *user, sill_row *row) { return test_next(&((run *)user)->source, row); }

static int on_score(void *user, const sill_scored *r) {
    results *out = ((run *)user)->out;
    if (r->status != SILL_OK) FAIL("%s", r->error);
    for (size_t i = 1; i < r->n_ids && i < MAX_IDS; i++) out->score[r->index][i] = r->logprobs[i];
    out->n_scored++;
    return 0;
}

static int on_label(void *user, const sill_classified *r) {
    results *out = ((run *)user)->out;
    if (r->status != SILL_OK) FAIL("%s", r->error);
    else memcpy(out->label[r->index], r->logits, sizeof out->label[0]);
    out->n_labelled++;
    return 0;
}

static int on_text(void *user, const sill_generated *r) {
    results *out = ((run *)user)->out;
    if (r->status != SILL_OK) FAIL("%s", r->error);
    out->n_new[r->index][r->sequence] = (int32_t)r->n_ids;
    for (size_t i = 0; i < r->n_ids && i < 16; i++) {
        out->new_ids[r->index][r->sequence][i] = r->ids[i];
        out->new_lp[r->index][r->sequence][i] = r->logprobs[i];
    }
    out->n_generated++;
    return 0;
}

/* One way of working. */
typedef struct way { int batch, sequences, threads, rows_at_once; bool reversed, shared; } way;
static sill_kv_dtype kv_dtype = SILL_KV_AUTO;
static int n_rows = N_ROWS; /* fewer where TEST_SMALL is set */

static void shuffle(sill_row *rows, int n, uint64_t seed) {
    for (int i = n - 1; i > 0; i--) {
        int k = (int)(test_random(&seed) % (uint32_t)(i + 1));
        sill_row t = rows[i];
        rows[i] = rows[k];
        rows[k] = t;
    }
}

static void work(const char *path, const char *device, sill_dtype dtype, const corpus *c, const way *w, bool text, int longest,
                 results *out) {
    static const char *labels[N_LABELS] = {"a", "I", "good", "the film"};
    sill_row rows[N_ROWS];
    sill_error err = {0};
    sill_model_options mo = {.size = sizeof mo, .device = device, .dtype = dtype, .n_threads = w->threads};
    sill_model *m = NULL;
    CHECK_OK(sill_model_load(path, &mo, &m, &err), err);
    sill_session *s = test_session_kv(m, longest, w->batch, w->sequences, kv_dtype);
    memset(out, 0, sizeof *out);
    if (!s) return;
    memcpy(rows, c->rows, sizeof rows);
    if (w->reversed) shuffle(rows, n_rows, (uint64_t)w->batch * 31 + (uint64_t)w->sequences);
    for (int at = 0; at < n_rows; at += w->rows_at_once) {
        int n = SILL_MIN(w->rows_at_once, n_rows - at);
        run r = {.source = {.rows = rows + at, .n = n}, .out = out};
        CHECK_OK(sill_score(s, NULL, next_row, on_score, &r, &err), err);
        for (int i = at; i < at + n; i++) rows[i].n_ids = SILL_MIN(rows[i].n_ids, (size_t)24); /* a prompt for the rest */
        sill_generate_options g = {.size = sizeof g, .max_new_tokens = 6, .do_sample = 1, .seed = 5,
                                   .num_return_sequences = 2, .top_p = 0.9f};
        r.source.at = 0;
        CHECK_OK(sill_generate(s, &g, next_row, on_text, 0, &r, &err), err);
        if (!text) continue;
        sill_classify_options o = {.size = sizeof o, .labels = labels, .n_labels = N_LABELS, .no_chat = 1,
                                   .prompt = "This is a text: {text} It is", .no_shared_prefix = !w->shared};
        r.source.at = 0;
        CHECK_OK(sill_classify(s, &o, next_row, on_label, &r, &err), err);
    }
    CHECK_INT(out->n_scored, n_rows);
    CHECK_INT(out->n_generated, 2 * n_rows);
    if (text) CHECK_INT(out->n_labelled, n_rows);
    sill_session_free(s);
    sill_model_free(m);
}

static void compare(const char *what, const way *w, const results *a, const results *b) {
    for (int i = 0; i < n_rows; i++) {
        if (memcmp(a->score[i], b->score[i], sizeof a->score[i]) || memcmp(a->label[i], b->label[i], sizeof a->label[i]) ||
            memcmp(a->new_ids[i], b->new_ids[i], sizeof a->new_ids[i]) ||
            memcmp(a->new_lp[i], b->new_lp[i], sizeof a->new_lp[i]) || memcmp(a->n_new[i], b->n_new[i], sizeof a->n_new[i])) {
            FAIL("%s: row %d differs with batch %d, %d sequences, %d threads, %d rows at once, %s, prefix %s", what, i, w->batch,
                 w->sequences, w->threads, w->rows_at_once, w->reversed ? "shuffled" : "in order",
                 w->shared ? "shared" : "not shared");
            return;
        }
    }
}

/* Everything alone, one thread, one chunk, nothing shared; and then otherwise. `few` for slow devices. */
static void same_bits(const char *path, const char *device, sill_dtype dtype, int32_t vocab, int longest, bool text, bool few) {
    static const way alone = {512, 1, 1, 1, false, false};
    static const way ways[] = {
        {512, 64, 1, 64, false, true}, {7, 16, 2, 64, true, true},    {512, 32, 8, 64, false, false},
        {64, 2, 1, 2, false, true},    {1, 3, 1, 5, true, false},     {33, 5, 3, 64, true, true},
        {3, 2, 1, 64, false, true},    {100, 64, 1, 17, true, false}, {65, 33, 4, 64, true, true},
    };
    static corpus c;
    static results first, other;
    char name[160];
    const char *isa = getenv("SILL_CPU_ISA");
    snprintf(name, sizeof name, "%s %s %s dtype %d kv %d", path, device, isa ? isa : "", (int)dtype, (int)kv_dtype);
    const bool small = getenv("TEST_SMALL") != NULL;
    if (small) n_rows = 12, longest = SILL_MIN(longest, 96); /* still over three blocks of keys and values */
    const size_t n_ways = few ? 2 : small ? 3 : SILL_ARRAY_LEN(ways);
    make_corpus(&c, vocab, longest - 24, 99);
    work(path, device, dtype, &c, &alone, text, longest, &first);
    for (size_t i = 0; i < n_ways && !test_failures; i++) {
        work(path, device, dtype, &c, &ways[i], text, longest, &other);
        compare(name, &ways[i], &first, &other);
    }
}

/* Files of block types, with int8 activations and dequantized. */
static void quantized(const char *device) {
    static const char *const names[] = {"llama-blocks-gguf", "llama-k-gguf", "gpt2-q8-gguf"};
    for (size_t i = 0; i < SILL_ARRAY_LEN(names); i++) {
        char path[96];
        sill_model_info info;
        snprintf(path, sizeof path, "tests/fixtures/model/%s.gguf", names[i]);
        sill_model *m = test_model(path, device, 1);
        REQUIRE(m);
        sill_model_get_info(m, &info, sizeof info);
        sill_model_free(m);
        int longest = SILL_MIN(info.n_ctx, MAX_IDS);
        if (longest < 40) FAIL("%s has %d positions only", names[i], info.n_ctx);
        same_bits(path, device, SILL_DTYPE_AUTO, info.n_vocab, longest, false, true);
        if (i == 0) same_bits(path, device, SILL_DTYPE_F32, info.n_vocab, longest, false, true);
    }
}

static bool isa_works(const char *isa) {
    sill_model_options o = {.size = sizeof o, .device = "cpu", .n_threads = 1};
    sill_model *m = NULL;
    sill_error err = {0};
    setenv("SILL_CPU_ISA", isa, 1);
    sill_status st = sill_model_load(FIXTURES "gpt2", &o, &m, &err);
    sill_model_free(m);
    if (st != SILL_OK) unsetenv("SILL_CPU_ISA");
    return st == SILL_OK;
}

static void on_isa(const char *isa) {
    if (!isa_works(isa)) SKIP("this processor or build does not have it");
    same_bits(FIXTURES "gpt2", "cpu", SILL_DTYPE_AUTO, 300, 120, true, false);
    same_bits(FIXTURES "llama", "cpu", SILL_DTYPE_AUTO, 512, 120, true, false);
    same_bits(FIXTURES "gpt2", "cpu", SILL_DTYPE_BF16, 300, 120, true, true);
    same_bits(FIXTURES "llama", "cpu", SILL_DTYPE_F16, 512, 120, true, true);
    same_bits("tests/fixtures/model/gpt2-made", "cpu", SILL_DTYPE_Q8, 61, 48, false, true);
    same_bits("tests/fixtures/model/gpt2-made", "cpu", SILL_DTYPE_Q4, 61, 48, false, true);
    same_bits(FIXTURES "gpt2", "cpu", SILL_DTYPE_INT8, 300, 120, true, true);
    quantized("cpu");
    kv_dtype = SILL_KV_INT8;
    same_bits(FIXTURES "gpt2", "cpu", SILL_DTYPE_AUTO, 300, 120, true, false);
    same_bits(FIXTURES "llama", "cpu", SILL_DTYPE_BF16, 512, 120, true, true);
    kv_dtype = SILL_KV_F16;
    same_bits(FIXTURES "llama", "cpu", SILL_DTYPE_AUTO, 512, 120, true, true);
    kv_dtype = SILL_KV_AUTO;
    unsetenv("SILL_CPU_ISA");
}

static void ref(void) {
    same_bits(FIXTURES "gpt2", "ref", SILL_DTYPE_AUTO, 300, 100, true, true);
    same_bits(FIXTURES "llama", "ref", SILL_DTYPE_BF16, 512, 100, true, true);
    same_bits(FIXTURES "gpt2", "ref", SILL_DTYPE_INT8, 300, 100, false, true);
    quantized("ref");
    kv_dtype = SILL_KV_INT8;
    same_bits(FIXTURES "llama", "ref", SILL_DTYPE_AUTO, 512, 100, true, true);
    kv_dtype = SILL_KV_AUTO;
}
static void cpu_scalar(void) { on_isa("scalar"); }
static void cpu_avx2(void) { on_isa("avx2"); }
static void cpu_avx512(void) { on_isa("avx512"); }
static void cpu_avx512vnni(void) { on_isa("avx512vnni"); }
static void cpu_avx512bf16(void) { on_isa("avx512bf16"); }
static void cpu_neon(void) { on_isa("neon"); }
static void cpu_neon_dotprod(void) { on_isa("neon_dotprod"); }
static void cpu_neon_i8mm(void) { on_isa("neon_i8mm"); }

int main(int argc, char **argv) {
    TEST(ref);
    TEST(cpu_scalar);
    TEST(cpu_avx2);
    TEST(cpu_avx512);
    TEST(cpu_avx512vnni);
    TEST(cpu_avx512bf16);
    TEST(cpu_neon);
    TEST(cpu_neon_dotprod);
    TEST(cpu_neon_i8mm);
    TEST_EXIT();
}
