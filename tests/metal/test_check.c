/*
 * test_check.c - `sill check` of the Metal device on the fake Metal, from its public function: opening, operations, small
 * models, the report. The first-use check here; all of it with SILL_TEST_FULL=1 (tools/test_all.sh), some minutes.
 */
#include "metal.h"

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
    const char *full = getenv("SILL_TEST_FULL");
    NEEDS_FAKE();
    if (!full || strcmp(full, "1")) return;
    check(false);
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
    TEST(before_the_first_use);
    TEST(all_of_it);
    TEST(a_gpu_that_is_taken_away);
    char command[80];
    snprintf(command, sizeof command, "rm -rf %s", cache);
    return system(command) != 0 || test_bad;
}
