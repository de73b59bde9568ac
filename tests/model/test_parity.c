/*
 * test_parity.c - the tiny models of tools/fixtures/make_models.py against what transformers says of them:
 * logits, loss, hidden states, class logits and greedy ids, on the scalar reference and on the CPU backend under
 * every instruction set that runs here.
 */
#include "rig.h"

static const char *const float_models[] = {
    "gpt2-one", "gpt2-base", "gpt2-nanogpt", "gpt2-nanogpt-bias", "gpt2-bare", "gpt2-shards", "gpt2-padded", "gpt2-class", "gpt2-plain-gguf.gguf",
    "llama-gqa42", "llama-gqa93", "llama-linear", "llama-llama3", "llama-class",
};
static const char *const half_models[] = {"gpt2-f16", "gpt2-bf16", "gpt2-llmc-bf16", "llama-f16", "llama-bf16-bias", "llama-plain-gguf.gguf"};
static const char *const block_models[] = {"gpt2-q8-gguf.gguf", "llama-blocks-gguf.gguf", "llama-k-gguf.gguf"};

/* Types that differ between q, k and v. */
static const char *const mixed_models[] = {"llama-mixed-gguf.gguf"};

static double worst; /* of the test that runs */

static sill_model *open_model(const char *name, const char *device, sill_dtype dtype) {
    char path[256];
    sill_model *m = NULL;
    sill_error err = {0};
    sill_model_options o = {.size = sizeof o, .device = device, .dtype = dtype, .n_threads = 2};
    snprintf(path, sizeof path, FIXTURES "%s", name);
    if (sill_model_load(path, &o, &m, &err) != SILL_OK) FAIL("%s on %s: %s", name, device, err.msg);
    return m;
}

static rig_ref open_reference(const char *name) {
    rig_ref f = {0};
    char stem[64];
    snprintf(stem, sizeof stem, "%s", name);
    char *dot = strstr(stem, ".gguf");
    if (dot) *dot = 0;
    rig_ref_open(&f, stem);
    return f;
}

static void near_rows(const char *what, const char *name, const float *got, const float *want, size_t rows, size_t width,
                      double bound) {
    for (size_t i = 0; i < rows; i++) {
        double d = rig_distance(got + i * width, want + i * width, width);
        if (d > worst) worst = d;
        if (!(d <= bound)) FAIL("%s: %s of row %zu differ by %.3g, allowed %.3g", name, what, i, d, bound);
    }
}

/* Sequence by sequence, fed in chunks of CHUNK tokens. */
static void compare_sequences(const char *name, rig *r, const rig_ref *f, int32_t chunk, double bound, double loss_bound) {
    sill_error err = {0};
    size_t vocab = (size_t)f->n_vocab, embd = (size_t)f->n_embd, labels = (size_t)f->n_labels;
    float *logits = calloc(64 * vocab, sizeof *logits), *hidden = calloc(64 * embd, sizeof *hidden);
    float *classes = calloc(64 * (labels + 1), sizeof *classes), logprobs[64];
    for (int32_t k = 0; k < f->n_sequences; k++) {
        int32_t n = f->sequences[k].n, targets[64] = {0};
        for (int32_t i = 0; i + 1 < n; i++) targets[i] = f->sequences[k].ids[i + 1];
        for (int32_t at = 0; at < n; at += chunk) {
            size_t o = (size_t)at;
            rig_want want = {.hidden = hidden + o * embd};
            if (labels) want.classes = classes + o * labels;
            else {
                want.logits = logits + o * vocab;
                want.targets = targets + at;
                want.logprobs = logprobs + at;
            }
            sill_status s = rig_step(r, f->sequences[k].ids + at, n - at < chunk ? n - at : chunk, at, want, &err);
            if (s != SILL_OK) FAIL("%s: %s", name, err.msg);
        }
        near_rows("hidden states", name, hidden + (size_t)(n - 1) * embd, f->sequences[k].hidden, 1, embd, bound);
        if (labels) {
            near_rows("class logits", name, classes + (size_t)(n - 1) * labels, f->sequences[k].classes, 1, labels, bound);
            continue;
        }
        near_rows("logits", name, logits, f->sequences[k].logits, (size_t)n, vocab, bound);
        double sum = 0;
        for (int32_t i = 0; i + 1 < n; i++) sum -= logprobs[i];
        if (n > 1 && !(fabs(sum / (n - 1) - f->sequences[k].loss) <= loss_bound * f->sequences[k].loss))
            FAIL("%s: loss %.8g, expected %.8g", name, sum / (n - 1), f->sequences[k].loss);
    }
    free(logits);
    free(hidden);
    free(classes);
}

/* Greedy ids up to the first step whose margin is within the bound (of logits of a size about ten). */
static void compare_greedy(const char *name, rig *r, const rig_ref *f, double margin) {
    int32_t got[64];
    sill_error err = {0};
    if (f->n_new == 0) return;
    if (rig_greedy(r, f->prompt, f->n_prompt, got, f->n_new, &err) != SILL_OK) FAIL("%s: %s", name, err.msg);
    for (int32_t i = 0; i < f->n_new && f->margins[i] > margin; i++)
        if (got[i] != f->greedy[i]) {
            FAIL("%s: greedy id %d is %d, expected %d (margin %g)", name, i, got[i], f->greedy[i],
                 (double)f->margins[i]);
            break;
        }
}

static void compare(const char *name, const char *device, sill_dtype dtype, sill__kv_type kv, double bound) {
    rig r;
    sill_error err = {0};
    rig_ref f = open_reference(name);
    sill_model *m = f.data ? open_model(name, device, dtype) : NULL;
    if (m) {
        CHECK_INT(m->config.n_vocab, f.n_vocab);
        CHECK_INT(m->config.n_labels, f.n_labels);
        sill_status s = rig_open(&r, m, kv, 64, &err);
        CHECK_OK(s, err);
        if (s == SILL_OK) {
            compare_sequences(name, &r, &f, 64, bound, SILL_MAX(bound / 10, 1e-5));
            compare_sequences(name, &r, &f, 5, bound, SILL_MAX(bound / 10, 1e-5));
            compare_greedy(name, &r, &f, 10 * bound);
            rig_close(&r);
        }
    }
    sill_model_free(m);
    sill__free(f.data);
}

static void compare_all(const char *const *names, size_t n, const char *device, sill_dtype dtype, sill__kv_type kv,
                        double bound) {
    for (size_t i = 0; i < n; i++) compare(names[i], device, dtype, kv, bound);
}
#define ALL(list) list, SILL_ARRAY_LEN(list)

static void test_ref_f32(void) {
    compare_all(ALL(float_models), "ref", SILL_DTYPE_AUTO, SILL__KV_F32, 1e-4);
    compare_all(ALL(half_models), "ref", SILL_DTYPE_F32, SILL__KV_F32, 1e-4);
    compare_all(ALL(block_models), "ref", SILL_DTYPE_F32, SILL__KV_F32, 1e-4);
    compare_all(ALL(mixed_models), "ref", SILL_DTYPE_F32, SILL__KV_F32, 1e-4);
    printf("  largest relative difference %.2g\n", worst);
}

/* Stored in 16 bits and computed with as stored: nothing is lost but in the KV cache. */
static void test_ref_stored_half(void) {
    compare_all(ALL(half_models), "ref", SILL_DTYPE_AUTO, SILL__KV_F32, 1e-4);
    compare_all(ALL(half_models), "ref", SILL_DTYPE_AUTO, SILL__KV_F16, 5e-3);
    printf("  largest relative difference %.2g\n", worst);
}

static void test_ref_rounded_f16(void) {
    compare_all(ALL(float_models), "ref", SILL_DTYPE_F16, SILL__KV_F16, 1e-2);
    printf("  largest relative difference %.2g\n", worst);
}

static void test_ref_rounded_bf16(void) {
    compare_all(ALL(float_models), "ref", SILL_DTYPE_BF16, SILL__KV_F16, 8e-2);
    printf("  largest relative difference %.2g\n", worst);
}

/* int8 activations: random weights have no structure that would average their error out. */
static void test_ref_int8(void) {
    compare_all(ALL(block_models), "ref", SILL_DTYPE_AUTO, SILL__KV_F16, 1.2e-1);
    compare_all(ALL(mixed_models), "ref", SILL_DTYPE_AUTO, SILL__KV_F16, 1.2e-1);
    printf("  largest relative difference %.2g\n", worst);
}

/* Keys and values in int8, everything else exact. */
static void test_ref_kv_int8(void) {
    compare_all(ALL(float_models), "ref", SILL_DTYPE_AUTO, SILL__KV_I8, 8e-2);
    printf("  largest relative difference %.2g\n", worst);
}

/* The CPU backend under each instruction set that this machine has. */
static void on_cpu(void (*compare_them)(void)) {
    for (size_t i = 0; sill__cpu_isas[i]; i++) {
        if (!sill__cpu_isas[i]->available()) continue;
        worst = 0;
        setenv("SILL_CPU_ISA", sill__cpu_isas[i]->name, 1);
        compare_them();
        printf("  %s: largest relative difference %.2g\n", sill__cpu_isas[i]->name, worst);
    }
    unsetenv("SILL_CPU_ISA");
}

static void cpu_f32(void) {
    compare_all(ALL(float_models), "cpu", SILL_DTYPE_AUTO, SILL__KV_F32, 1e-4);
    compare_all(ALL(half_models), "cpu", SILL_DTYPE_F32, SILL__KV_F32, 1e-4);
    compare_all(ALL(block_models), "cpu", SILL_DTYPE_F32, SILL__KV_F32, 1e-4);
    compare_all(ALL(mixed_models), "cpu", SILL_DTYPE_F32, SILL__KV_F32, 1e-4);
}
static void test_cpu_f32(void) { on_cpu(cpu_f32); }

static void cpu_f16(void) {
    compare_all(ALL(float_models), "cpu", SILL_DTYPE_F16, SILL__KV_F16, 1e-2);
    compare("gpt2-f16", "cpu", SILL_DTYPE_AUTO, SILL__KV_F16, 5e-3);
    compare("llama-f16", "cpu", SILL_DTYPE_AUTO, SILL__KV_F16, 5e-3);
}
static void test_cpu_f16(void) { on_cpu(cpu_f16); }

static void cpu_bf16(void) {
    compare_all(ALL(float_models), "cpu", SILL_DTYPE_BF16, SILL__KV_F16, 8e-2);
    compare("gpt2-bf16", "cpu", SILL_DTYPE_AUTO, SILL__KV_F16, 8e-2);
    compare("llama-bf16-bias", "cpu", SILL_DTYPE_AUTO, SILL__KV_F16, 8e-2);
}
static void test_cpu_bf16(void) { on_cpu(cpu_bf16); }

static void cpu_int8(void) {
    compare_all(ALL(block_models), "cpu", SILL_DTYPE_AUTO, SILL__KV_F16, 1.2e-1);
    compare_all(ALL(mixed_models), "cpu", SILL_DTYPE_AUTO, SILL__KV_F16, 1.2e-1);
}
static void test_cpu_int8(void) { on_cpu(cpu_int8); }

static void cpu_kv_int8(void) { compare_all(ALL(float_models), "cpu", SILL_DTYPE_AUTO, SILL__KV_I8, 8e-2); }
static void test_cpu_kv_int8(void) { on_cpu(cpu_kv_int8); }

/* Quantized while loading, against transformers on the f32 weights. */
static void made(const char *device) {
    compare("gpt2-made", device, SILL_DTYPE_Q8, SILL__KV_F16, 8e-2);
    compare("gpt2-made", device, SILL_DTYPE_Q4, SILL__KV_F16, 4e-1);
    compare_all(ALL(float_models), device, SILL_DTYPE_INT8, SILL__KV_F16, 1.2e-1);
}
static void test_ref_made(void) {
    made("ref");
    printf("  largest relative difference %.2g\n", worst);
}
static void cpu_made(void) { made("cpu"); }
static void test_cpu_made(void) { on_cpu(cpu_made); }

/* q8 of f32 weights gives the bits of the GGUF that gguf-py made of them. */
static void one_as_stored(const char *device, sill_dtype dtype, const char *name) {
    enum { MOST = 48 * 61 };
    static float logits[2][MOST];
    rig_ref f = open_reference("gpt2-made");
    REQUIRE(f.data);
    int32_t k = 0; /* the longest */
    for (int32_t i = 1; i < f.n_sequences; i++)
        if (f.sequences[i].n > f.sequences[k].n) k = i;
    for (int stored = 0; stored < 2; stored++) {
        rig r;
        sill_error err = {0};
        sill_model *m = open_model(stored ? name : "gpt2-made", device, stored ? SILL_DTYPE_AUTO : dtype);
        REQUIRE(m && f.sequences[k].n * f.n_vocab <= MOST);
        CHECK_OK(rig_open(&r, m, SILL__KV_F16, 64, &err), err);
        memset(logits[stored], stored, sizeof logits[stored]);
        CHECK_OK(rig_step(&r, f.sequences[k].ids, f.sequences[k].n, 0, (rig_want){.logits = logits[stored]}, &err), err);
        rig_close(&r);
        sill_model_free(m);
    }
    const size_t n = (size_t)f.sequences[k].n * (size_t)f.n_vocab;
    CHECK(n > 100 && logits[0][0] != logits[0][1]);
    if (memcmp(logits[0], logits[1], n * sizeof(float))) FAIL("%s: other bits than %s", device, name);
    sill__free(f.data);
}
static void same_as_stored(const char *device) {
    one_as_stored(device, SILL_DTYPE_Q8, "gpt2-made-q8.gguf");
    one_as_stored(device, SILL_DTYPE_Q4, "gpt2-made-q4.gguf");
}
static void cpu_same_as_stored(void) { same_as_stored("cpu"); }
static void test_made_as_stored(void) {
    same_as_stored("ref");
    on_cpu(cpu_same_as_stored);
}

int main(int argc, char **argv) {
#define RUN(fn) do { worst = 0; TEST(fn); } while (0)
    RUN(test_ref_f32);
    RUN(test_ref_stored_half);
    RUN(test_ref_rounded_f16);
    RUN(test_ref_rounded_bf16);
    RUN(test_ref_int8);
    RUN(test_ref_kv_int8);
    RUN(test_cpu_f32);
    RUN(test_cpu_f16);
    RUN(test_cpu_bf16);
    RUN(test_cpu_int8);
    RUN(test_cpu_kv_int8);
    RUN(test_ref_made);
    RUN(test_cpu_made);
    RUN(test_made_as_stored);
    TEST_EXIT();
}
