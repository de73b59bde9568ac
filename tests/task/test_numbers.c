/*
 * test_numbers.c - numbers that are none. Copies of the fixtures with weights that are NaN or overflow: every task gives
 * such rows an error and the others their results, on the reference and on every instruction set that is here.
 */
#include "records.h"

#include <errno.h>
#include <unistd.h>

static char dir[64];
static const char *const files[] = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
                                    "tokenizer_config.json"};

static void remove_dir(void) {
    char path[128];
    for (size_t i = 0; dir[0] && i < SILL_ARRAY_LEN(files); i++) {
        snprintf(path, sizeof path, "%s/%s", dir, files[i]);
        unlink(path);
    }
    if (dir[0]) rmdir(dir);
    dir[0] = 0;
}

/* Puts VALUE at elements [at, at + n) of an f32 tensor in the bytes of a safetensors file. */
static bool patch(char *data, size_t bytes, const char *tensor, size_t at, size_t n, float value) {
    uint64_t header;
    char key[96];
    unsigned long long from = 0, to = 0;
    memcpy(&header, data, 8);
    snprintf(key, sizeof key, "\"%s\"", tensor);
    char *p = strstr(data + 8, key), *offsets = p ? strstr(p, "data_offsets") : NULL;
    if (!offsets || sscanf(offsets, "data_offsets\":[%llu,%llu", &from, &to) != 2 || (at + n) * 4 > to - from ||
        8 + header + to > bytes || strncmp(strstr(p, "dtype"), "dtype\":\"F32\"", 12))
        return false;
    for (size_t i = 0; i < n; i++) memcpy(data + 8 + header + from + (at + i) * 4, &value, 4);
    return true;
}

/* A copy of a fixture in the scratch directory with one weight changed. */
static bool damaged(const char *name, const char *tensor, size_t at, size_t n_values, float value) {
    bool ok = true;
    remove_dir();
    snprintf(dir, sizeof dir, "/tmp/sill-test-XXXXXX");
    if (!mkdtemp(dir)) {
        dir[0] = 0;
        FAIL("mkdtemp: %s", strerror(errno));
        return false;
    }
    for (size_t i = 0; i < SILL_ARRAY_LEN(files) && ok; i++) {
        char path[192], *data = NULL;
        size_t n;
        sill_error err = {0};
        snprintf(path, sizeof path, FIXTURES "%s/%s", name, files[i]);
        if (!sill__is_file(path)) continue;
        ok = sill__read_file(path, 1 << 24, &data, &n, &err) == SILL_OK;
        if (ok && !strcmp(files[i], "model.safetensors")) ok = patch(data, n, tensor, at, n_values, value);
        snprintf(path, sizeof path, "%s/%s", dir, files[i]);
        FILE *f = ok ? fopen(path, "wb") : NULL;
        ok = f && fwrite(data, 1, n, f) == n;
        if (f && fclose(f)) ok = false;
        sill__free(data);
    }
    if (!ok) FAIL("%s: cannot be copied with %s changed", name, tensor);
    return ok;
}

typedef struct call {
    test_rows source;
    int n_ok, n_failed, n_whole;
} call;

static int next_row(void *user, sill_row *row) { return test_next(&((call *)user)->source, row); }

static void count(call *c, uint64_t index, sill_status status, const char *error) {
    if (status == SILL_OK) {
        if (index >= 2) FAIL("row %d has a result", (int)index);
        c->n_ok++;
        return;
    }
    CHECK_INT(status, SILL_EDEVICE);
    if (!error || !strstr(error, "overflowed (not a number)") || !strstr(error, "try dtype f32"))
        FAIL("the error is \"%s\"", error ? error : "NULL");
    c->n_failed++;
}

static int on_text(void *user, const sill_generated *r) {
    call *c = user;
    count(c, r->index, r->status, r->error);
    c->n_whole += r->sequence < 0;
    for (size_t i = 0; i < r->n_ids; i++) CHECK(isfinite(r->logprobs[i]));
    return 0;
}
static int on_score(void *user, const sill_scored *r) {
    count(user, r->index, r->status, r->error);
    if (r->status == SILL_OK) CHECK(isfinite(r->sum_logprob));
    return 0;
}
static int on_label(void *user, const sill_classified *r) {
    count(user, r->index, r->status, r->error);
    if (r->status == SILL_OK) CHECK(isfinite(r->margin) && isfinite(r->entropy));
    else CHECK_INT(r->label, -1);
    return 0;
}

enum { N_ROWS = 4, SHORT = 5, LONG = 24 };

/* All tasks; rows 0 and 1 are short. N_OK of the rows have results. */
static void tasks(const char *device, int n_ok, int max_new) {
    static int32_t ids[N_ROWS][LONG];
    sill_row rows[N_ROWS];
    sill_error err = {0};
    for (int i = 0; i < N_ROWS; i++) {
        for (int k = 0; k < LONG; k++) ids[i][k] = 20 + (i * 31 + k * 7) % 200;
        rows[i] = (sill_row){.index = (uint64_t)i, .key = (uint64_t)i, .ids = ids[i], .n_ids = i < 2 ? SHORT : LONG};
    }
    sill_model *m = test_model(dir, device, 1);
    sill_session *s = test_session(m, 0, 0, 3);
    REQUIRE(s);
    sill_generate_options greedy = {.size = sizeof greedy, .max_new_tokens = max_new, .ignore_eos = 1},
                          penalized = {.size = sizeof greedy, .max_new_tokens = max_new, .ignore_eos = 1, .logprobs = 3,
                                       .repetition_penalty = 1.1f},
                          sampled = {.size = sizeof sampled, .max_new_tokens = max_new, .ignore_eos = 1, .do_sample = 1,
                                     .num_return_sequences = 3};
    const sill_generate_options *ways[] = {&greedy, &penalized, &sampled};
    for (int i = 0; i < 3; i++) {
        call c = {.source = {.rows = rows, .n = N_ROWS}};
        CHECK_OK(sill_generate(s, ways[i], next_row, on_text, 0, &c, &err), err);
        CHECK_INT(c.n_ok, n_ok * (i == 2 ? 3 : 1));
        CHECK_INT(c.n_failed, N_ROWS - n_ok); /* a row that fails as a whole: one result */
        CHECK_INT(c.n_whole, i == 2 ? N_ROWS - n_ok : 0);
    }
    call c = {.source = {.rows = rows, .n = N_ROWS}};
    CHECK_OK(sill_score(s, NULL, next_row, on_score, &c, &err), err);
    CHECK_INT(c.n_ok, n_ok);
    CHECK_INT(c.n_failed, N_ROWS - n_ok);
    static const char *labels[] = {"good", "bad", "the end"};
    sill_classify_options o = {.size = sizeof o, .labels = labels, .n_labels = 3, .no_chat = 1, .prompt = "{text}:",
                               .content_free = "-"};
    c = (call){.source = {.rows = rows, .n = N_ROWS}};
    sill_status st = sill_classify(s, &o, next_row, on_label, &c, &err);
    if (n_ok == 0) { /* already the content-free input has no numbers */
        CHECK_INT(st, SILL_EDEVICE);
        CHECK(strstr(err.msg, "content-free") && strstr(err.msg, "overflowed"));
    } else {
        CHECK_OK(st, err);
        CHECK_INT(c.n_ok, n_ok);
        CHECK_INT(c.n_failed, N_ROWS - n_ok);
    }
    sill_session_free(s);
    sill_model_free(m);
}

static void heads(const char *device) {
    static int32_t ids[2] = {3, 4};
    sill_row row = {.index = 2, .ids = ids, .n_ids = 2};
    static const char *const names[] = {"head-gpt2", "head-gpt2-multi", "head-gpt2-one", "head-gpt2-regression"};
    static const float values[] = {NAN, INFINITY};
    for (size_t i = 0; i < SILL_ARRAY_LEN(names); i++)
        for (size_t k = 0; k < SILL_ARRAY_LEN(values); k++) {
            sill_error err = {0};
            call c = {.source = {.rows = &row, .n = 1}};
            if (!damaged(names[i], "score.weight", 0, 1, values[k])) return;
            sill_model *m = test_model(dir, device, 1);
            sill_session *s = test_session(m, 0, 0, 3);
            REQUIRE(s);
            CHECK_OK(sill_classify(s, NULL, next_row, on_label, &c, &err), err);
            CHECK(c.n_failed == 1 && c.n_ok == 0);
            sill_session_free(s);
            sill_model_free(m);
        }
}

static void on(const char *device) {
    /* the norm before the head: every logit; one token's row: that logit; a product that overflows */
    if (damaged("gpt2", "transformer.ln_f.weight", 3, 1, NAN)) tasks(device, 0, 4);
    if (damaged("gpt2", "transformer.wte.weight", 7, 1, NAN)) tasks(device, 0, 4);
    if (damaged("gpt2", "transformer.ln_f.weight", 0, 1, INFINITY)) tasks(device, 0, 4);
    /* one position: rows that do not get there have their results */
    if (damaged("gpt2", "transformer.wpe.weight", 20 * 28, 1, NAN)) tasks(device, 2, 4);
    heads(device);
    remove_dir();
}

static void on_isa(const char *isa) {
    sill_model_options o = {.size = sizeof o, .device = "cpu", .n_threads = 1};
    sill_model *m = NULL;
    setenv("SILL_CPU_ISA", isa, 1);
    sill_status st = sill_model_load(FIXTURES "gpt2", &o, &m, NULL);
    sill_model_free(m);
    if (st == SILL_OK) on("cpu");
    unsetenv("SILL_CPU_ISA");
    if (st != SILL_OK) SKIP("this processor or build does not have it");
}

static void ref(void) { on("ref"); }
static void cpu_scalar(void) { on_isa("scalar"); }
static void cpu_avx2(void) { on_isa("avx2"); }
static void cpu_avx512(void) { on_isa("avx512"); }
static void cpu_avx512vnni(void) { on_isa("avx512vnni"); }
static void cpu_avx512bf16(void) { on_isa("avx512bf16"); }
static void cpu_neon(void) { on_isa("neon"); }

int main(int argc, char **argv) {
    TEST(ref);
    TEST(cpu_scalar);
    TEST(cpu_avx2);
    TEST(cpu_avx512);
    TEST(cpu_avx512vnni);
    TEST(cpu_avx512bf16);
    TEST(cpu_neon);
    remove_dir();
    TEST_EXIT();
}
