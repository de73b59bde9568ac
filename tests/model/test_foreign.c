/*
 * test_foreign.c - GPT-2 in the files of other programs (tools/fixtures/make_foreign.py): the same weights give the same bits as
 * their safetensors form, whatever file they come from. Against transformers: test_parity.c.
 */
#include "rig.h"

static const char *const same[] = {"gpt2-torch", "gpt2-torch-old", "gpt2-torch-views", "gpt2-torch-shards", "gpt2-llmc", "gpt2-tensorflow"};

static sill_model *open_model(const char *name, const char *device, sill_dtype dtype) {
    char path[256];
    sill_model *m = NULL;
    sill_error err = {0};
    sill_model_options o = {.size = sizeof o, .device = device, .dtype = dtype, .n_threads = 2};
    snprintf(path, sizeof path, FIXTURES "%s", name);
    if (sill_model_load(path, &o, &m, &err) != SILL_OK) FAIL("%s on %s: %s", name, device, err.msg);
    return m;
}

/* Logits of 40 ids (40, n_vocab). */
static float *logits_of(const char *name, const char *device, sill_dtype dtype, size_t *n) {
    sill_error err = {0};
    int32_t ids[40];
    rig r;
    sill_model *m = open_model(name, device, dtype);
    if (!m) return NULL;
    *n = 40 * (size_t)m->config.n_vocab;
    float *out = calloc(*n, sizeof *out);
    for (int i = 0; i < 40; i++) ids[i] = (i * 17 + 5) % m->config.n_vocab;
    sill_status s = rig_open(&r, m, SILL__KV_F32, 64, &err);
    CHECK_OK(s, err);
    if (s == SILL_OK) {
        s = rig_step(&r, ids, 40, 0, (rig_want){.logits = out}, &err);
        CHECK_OK(s, err);
        rig_close(&r);
    }
    sill_model_free(m);
    return out;
}

static void same_bits(void) {
    static const struct { const char *device; sill_dtype dtype; } how[] = {
        {"ref", SILL_DTYPE_AUTO}, {"cpu", SILL_DTYPE_AUTO}, {"cpu", SILL_DTYPE_BF16}, {"cpu", SILL_DTYPE_INT8}};
    for (size_t k = 0; k < SILL_ARRAY_LEN(how); k++) {
        size_t n = 0, m = 0;
        float *want = logits_of("gpt2-base", how[k].device, how[k].dtype, &n);
        REQUIRE(want);
        for (size_t i = 0; i < SILL_ARRAY_LEN(same); i++) {
            float *got = logits_of(same[i], how[k].device, how[k].dtype, &m);
            if (!got || m != n || memcmp(got, want, n * sizeof *got)) FAIL("%s on %s differs from gpt2-base", same[i], how[k].device);
            free(got);
        }
        free(want);
    }
}

static sill__file *open_file(const char *name) {
    char path[256];
    sill_error e = {0};
    sill__file *f = NULL;
    snprintf(path, sizeof path, FIXTURES "%s", name);
    CHECK_OK(sill__file_open(path, &f, &e), e);
    return f;
}

static void kinds_and_configurations(void) {
    static const struct { const char *name, *kind; sill__act act; int32_t vocab; } cases[] = {
        {"gpt2-torch", "pytorch", SILL__ACT_GELU_TANH, 61}, {"gpt2-torch-shards", "pytorch", SILL__ACT_GELU_TANH, 61},
        {"gpt2-nanogpt", "nanogpt", SILL__ACT_GELU_ERF, 64}, {"gpt2-llmc", "llm.c", SILL__ACT_GELU_TANH, 61},
        {"gpt2-tensorflow", "tensorflow", SILL__ACT_GELU_TANH, 61}};
    for (size_t i = 0; i < SILL_ARRAY_LEN(cases); i++) {
        sill_error e = {0};
        sill__config c;
        sill__file *f = open_file(cases[i].name);
        if (!f) continue;
        CHECK_STR(sill__file_kind_name(sill__file_get_kind(f)), cases[i].kind);
        CHECK_OK(sill__config_read(f, &c, &e), e);
        CHECK(c.act == cases[i].act && c.n_vocab == cases[i].vocab && c.n_layers == 2 && c.n_heads == 2 && c.n_embd == 12 && c.n_ctx == 64);
        sill__config_free(&c);
        sill__file_close(f);
    }
}

/* Stored row by row: used where it is mapped. Turned or with a step: a copy. */
static void nothing_is_copied_that_need_not_be(void) {
    static const char *const names[] = {"gpt2-torch", "gpt2-torch-old", "gpt2-torch-shards", "gpt2-llmc", "gpt2-tensorflow"};
    for (size_t k = 0; k < SILL_ARRAY_LEN(names); k++) {
        sill__file *f = open_file(names[k]);
        for (size_t i = 0; f && i < sill__file_n_tensors(f); i++)
            if (!sill__file_tensor(f, i)->map) FAIL("%s: %s is copied", names[k], sill__file_tensor(f, i)->name);
        sill__file_close(f);
    }
    sill__file *f = open_file("gpt2-torch-views");
    REQUIRE(f);
    CHECK(!sill__file_find(f, "transformer.h.0.attn.c_attn.weight")->map && !sill__file_find(f, "transformer.h.1.ln_2.weight")->map);
    CHECK(sill__file_find(f, "transformer.h.0.ln_1.bias")->map && sill__file_find(f, "transformer.h.0.mlp.c_fc.weight")->map);
    sill__file_close(f);
}

/* wte and the head are one storage: read, packed and counted once. */
static void tied_weights_are_one(void) {
    sill_model *a = open_model("gpt2-base", "cpu", SILL_DTYPE_AUTO), *b = open_model("gpt2-torch", "cpu", SILL_DTYPE_AUTO);
    if (a && b) CHECK(a->n_params == b->n_params && a->weight_bytes == b->weight_bytes);
    sill_model_free(a);
    sill_model_free(b);
}

int main(int argc, char **argv) {
    TEST(kinds_and_configurations);
    TEST(nothing_is_copied_that_need_not_be);
    TEST(tied_weights_are_one);
    TEST(same_bits);
    TEST_EXIT();
}
