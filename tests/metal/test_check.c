/*
 * test_check.c - `sill check` of the Metal device on the fake Metal, from its public function: opening, operations, small
 * models, the report. The first-use check here; with SILL_TEST_FULL=1 (tools/test_all.sh) all of it, and that alone.
 */
#include "metal.h"

#include "backend/check/check.h"
#include "sill.h"

static char cache[] = "/tmp/sill_metal_check_XXXXXX";

/* The kernels' accesses are not checked: the other tests do that, this one would take an hour. */
static void run_fast(void) {
    sill__mtl_forget();
    fake.set("fast", 1);
    fake.reset();
}

static int count(const char *text, const char *what) {
    int n = 0;
    for (const char *p = text; (p = strstr(p, what)); p += strlen(what)) n++;
    return n;
}

static void check(bool quick) {
    char *json = NULL;
    int32_t passed = 0;
    sill_error err = {0};
    sill_check_options o = {.size = sizeof o, .device = "metal", .quick = quick};
    run_fast();
    sill_status s = sill_check(&o, &json, &passed, &err);
    CHECK_OK(s, err);
    if (s != SILL_OK) return;
    if (!passed) printf("%s", json);
    for (const char *p = json; (p = strstr(p, "\"first_failed\":\"")); p += 16) FAIL("%.200s", p + 16);
    CHECK(passed && strstr(json, "\"device\":\"metal Fake Apple GPU"));
    CHECK(count(json, "\"passed\":true") > (quick ? 40 : 50) && count(json, "\"passed\":false") == 0);
    /* The only shape that is not offered is the one that is refused at load. */
    CHECK_INT(count(json, "why_not_offered"), quick ? 0 : 2);
    if (!quick) CHECK_INT(count(json, "\"why_not_offered\":\"widest_heads"), 2);
    sill__mtl_made made = sill__mtl_made_so_far();
    fakemetal_totals t = fake_totals();
    printf("  %d pipelines, %d command buffers, %d kernels, %d buffers\n", (int)made.pipelines, (int)t.command_buffers,
           (int)t.dispatches, (int)t.buffers_made);
    /* Each is compiled before the first use: docs/METAL.md has the number. */
    if (quick) CHECK(made.pipelines > 150 && made.pipelines <= 196);
    CHECK_INT(t.unpooled, 0);
    sill_free(json);
    sill__mtl_forget();
    CHECK_INT(fake_totals().live_objects, 0);
}

static void before_the_first_use(void) {
    NEEDS_FAKE();
    check(true);
}
static void all_of_it(void) {
    NEEDS_FAKE();
    check(false);
}

/* For a model that is there: its own pipelines, and few others. docs/METAL.md has these numbers. */
static int first_use(const char *name, const sill__use *use) {
    const sill__backend *ops = sill__backend_metal();
    sill__device *d = NULL;
    sill__check_record record = {.verdict = SILL__CHECK_UNKNOWN};
    sill_error err = {0};
    run_fast();
    CHECK_OK(ops->open(NULL, &d, &err), err);
    if (!d) return 0;
    CHECK_OK(sill__check_first_use(ops, d, use, &record, &err), err);
    if (record.verdict != SILL__CHECK_PASSED) FAIL("%s: %s", name, record.what);
    const int n = (int)sill__mtl_made_so_far().pipelines;
    const fakemetal_totals t = fake_totals();
    printf("  %s: %d pipelines, %d command buffers, %d kernels\n", name, n, (int)t.command_buffers, (int)t.dispatches);
    CHECK(n > 20);
    ops->close(d);
    sill__mtl_forget();
    return n;
}

static void for_a_model(void) {
    const sill__use gpt2 = {.types = {[SILL__COMPUTE_F16] = 1u << SILL__TYPE_F16}, .embed_types = 1u << SILL__TYPE_F16, .type = SILL__TYPE_F16,
                            .compute = SILL__COMPUTE_F16, .kv = SILL__KV_F16, .norm = SILL__NORM_LAYER, .act = SILL__ACT_GELU_TANH, .group = 1,
                            .n_kv_heads = 12, .head_dim = 64};
    const sill__use smollm2 = {.types = {[SILL__COMPUTE_BLOCK_I8] = 1u << SILL__TYPE_Q4_1 | 1u << SILL__TYPE_Q8_0},
                               .embed_types = 1u << SILL__TYPE_Q8_0, .type = SILL__TYPE_Q4_1, .compute = SILL__COMPUTE_BLOCK_I8,
                               .kv = SILL__KV_F16, .norm = SILL__NORM_RMS, .act = SILL__ACT_SWIGLU, .rope = SILL__ROPE_ADJACENT,
                               .rope_dims = 64, .group = 3, .n_kv_heads = 3, .head_dim = 64};
    NEEDS_FAKE();
    CHECK(first_use("GPT-2 in f16", &gpt2) <= 70);
    CHECK(first_use("SmolLM2 in Q4_1", &smollm2) <= 70);
}

/* The same by loading one. */
static void a_model_that_is_loaded(void) {
    sill_model *m = NULL;
    sill_error err = {0};
    sill_model_info info = {0};
    sill_model_options o = {.size = sizeof o, .device = "metal", .n_threads = 1};
    NEEDS_FAKE();
    run_fast();
    unsetenv("SILL_FIRST_USE_CHECK");
    CHECK_OK(sill_model_load("tests/fixtures/stories260K/stories260K.gguf", &o, &m, &err), err);
    setenv("SILL_FIRST_USE_CHECK", "0", 1);
    REQUIRE(m);
    const int checked = (int)sill__mtl_made_so_far().pipelines;
    sill_model_get_info(m, &info, sizeof info);
    CHECK(!strncmp(info.device_check, "passed ", 7));
    sill_model_free(m);
    printf("  stories260K: %d pipelines\n", checked);
    CHECK(checked > 20 && checked <= 70);
    sill__mtl_forget();
    CHECK_INT(fake_totals().live_objects, 0);
}

/* A GPU that fails in between is not asked everything, and does not pass. */
static void a_gpu_that_is_taken_away(void) {
    char *json = NULL;
    int32_t passed = 1;
    sill_error err = {0};
    sill_check_options o = {.size = sizeof o, .device = "metal", .quick = true};
    NEEDS_FAKE();
    run_fast();
    fake.fault("access-revoked", 40, 1);
    sill_status s = sill_check(&o, &json, &passed, &err);
    fake.fault("access-revoked", 1, 0);
    CHECK_OK(s, err);
    CHECK(!passed && json && strstr(json, "\"stopped\":true"));
    CHECK(json && strstr(json, "is no longer taken by the system"));
    sill_free(json);
    sill__mtl_forget();
    CHECK_INT(fake_totals().live_objects, 0);
}

int main(int argc, char **argv) {
    fake_open(argv[0]);
    if (!mkdtemp(cache)) return 1;
    setenv("SILL_CACHE", cache, 1);
    const char *full = getenv("SILL_TEST_FULL");
    if (full && !strcmp(full, "1")) {
        TEST(all_of_it);
    } else {
        TEST(for_a_model);            /* before all was found right */
        TEST(a_model_that_is_loaded);
        TEST(before_the_first_use);
        TEST(a_gpu_that_is_taken_away);
    }
    char command[80];
    snprintf(command, sizeof command, "rm -rf %s", cache);
    return system(command) != 0 || test_bad;
}
