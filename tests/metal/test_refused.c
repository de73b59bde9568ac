/*
 * test_refused.c - models and sessions that a GPU does not take: "auto" takes the CPU and says why, "metal" says that it
 * does not; a plan says the same; and the greatest size of a buffer bounds what is planned.
 */
#include "steps.h"

#include "engine/internal.h"

static const shape narrow = {"narrow", 96, 6, 3, 0, 32, 384, 701, 1024};
static char directory[] = "/tmp/sill-refused-XXXXXX", line[1024];
static int n_lines;

static void log_line(void *user, int level, const char *text) {
    (void)user;
    if (level != 1) return;
    n_lines++;
    snprintf(line, sizeof line, "%s", text);
}

static const char *path_of(const shape *s) {
    static char path[128];
    snprintf(path, sizeof path, "%s/%s", directory, s->name);
    if (access(path, F_OK) != 0 && !make_model(s, path)) FAIL("%s cannot be made", s->name);
    return path;
}

/* What a refusal is of; "metal" ends with STATUS and says SAYS, and for "auto" the CPU takes the model. */
static void refused(const char *path, sill_dtype dtype, sill_status status, const char *says) {
    sill_model_options o = {.size = sizeof o, .device = "metal", .dtype = dtype};
    sill_model_info info;
    sill_plan_info plan;
    sill_error err = {0};
    sill_model *m = NULL;
    n_lines = 0;
    CHECK_INT(sill_model_load(path, &o, &m, &err), status);
    if (!strstr(err.msg, says)) FAIL("\"%s\" does not say \"%s\"", err.msg, says);
    CHECK_INT(n_lines, 0);
    o.device = NULL;
    for (int i = 0; i < 2; i++, o.device = "auto") {
        n_lines = 0;
        sill_status s = sill_model_load(path, &o, &m, &err);
        CHECK_OK(s, err);
        if (s != SILL_OK) return;
        sill_model_get_info(m, &info, sizeof info);
        CHECK(!strncmp(info.device, "cpu", 3));
        CHECK_INT(n_lines, 1);
        if (!strstr(line, "device metal does not take this model") || !strstr(line, says)) FAIL("\"%s\" does not say \"%s\"", line, says);
        sill_model_free(m);
        m = NULL;
        sill_status p = sill_plan(path, &o, NULL, &plan, &err);
        CHECK_OK(p, err);
        CHECK_STR(plan.device, "cpu");
    }
    sill__mtl_forget();
    CHECK_INT(fake_totals().live_objects, 0);
}

static void by_its_shape(void) {
    static const shape wide = {"wide", 1024, 1, 2, 0, 512, 8, 50, 8}, many = {"many", 16, 1, 1, 0, 16, 8, 524289, 8};
    sill_model_options o = {.size = sizeof o};
    sill_plan_info plan;
    sill_error err = {0};
    NEEDS_FAKE();
    refused(path_of(&wide), SILL_DTYPE_AUTO, SILL_EUNSUPPORTED, "heads of 512 values");
    refused(path_of(&many), SILL_DTYPE_AUTO, SILL_EUNSUPPORTED, "a vocabulary of 524289");
    CHECK_OK(sill_plan(path_of(&wide), &o, NULL, &plan, &err), err);
    CHECK(strstr(plan.passed_over, "device metal: heads of 512 values"));
    CHECK_OK(sill_plan(path_of(&narrow), &o, NULL, &plan, &err), err);
    CHECK_STR(plan.device, "metal");
    CHECK_STR(plan.passed_over, "");
}

static void by_its_size(void) {
    NEEDS_FAKE();
    fake.set("working-set", 300e3);
    refused(path_of(&narrow), SILL_DTYPE_AUTO, SILL_ENOFIT, "the weights need");
    fake.set("working-set", (double)(10ull << 30));
    fake.set("max-buffer", 100e3);
    refused(path_of(&narrow), SILL_DTYPE_AUTO, SILL_ENOFIT, "in one piece");
    fake.set("max-buffer", (double)(8ull << 30));
}

/* The n-th buffer, whatever it is for, cannot be had: what was taken is given back. The first is the device's own. */
static void by_chance(void) {
    sill_model_options o = {.size = sizeof o, .dtype = SILL_DTYPE_Q8};
    NEEDS_FAKE();
    for (long n = 1; n < 100; n++) {
        sill_model_info info;
        sill_error err = {0};
        sill_model *m = NULL;
        n_lines = 0;
        fake.fault("buffer", n, 1);
        sill_status s = sill_model_load(path_of(&narrow), &o, &m, &err);
        fake.fault("buffer", 1, 0);
        CHECK_OK(s, err);
        REQUIRE(m);
        sill_model_get_info(m, &info, sizeof info);
        sill_model_free(m);
        sill__mtl_forget();
        CHECK_INT(fake_totals().live_objects, 0);
        const bool on_cpu = !strncmp(info.device, "cpu", 3);
        CHECK_INT(n_lines, on_cpu && n > 1);
        if (!on_cpu) {
            CHECK(n > 10);
            return;
        }
        if (n > 1 && !strstr(line, "does not take this model, so the CPU is used: ")) FAIL("%s", line);
    }
    FAIL("loading never ends");
}

/* ------------------------------------------------------- what one buffer may have */

/* Opens a session as planned on metal; what it took of KV in *bytes, 0 where it was refused. */
static void session(const sill_session_options *so, sill_plan_info *plan, uint64_t *bytes, sill_error *err) {
    sill_model_options o = {.size = sizeof o, .device = "metal"};
    sill_model *m = NULL;
    sill_session *s = NULL;
    *bytes = 0;
    CHECK_OK(sill_plan(path_of(&narrow), &o, so, plan, err), *err);
    CHECK_OK(sill_model_load(path_of(&narrow), &o, &m, err), *err);
    REQUIRE(m);
    sill_status st = sill_session_create(m, so, &s, err);
    CHECK_INT(st, plan->fits ? SILL_OK : SILL_ENOFIT);
    if (s) *bytes = s->layout.kv_bytes;
    sill_session_free(s);
    sill_model_free(m);
}

/* Fewer blocks where the options leave them open: one lane is always possible that fits one buffer. */
static void keys_and_values(void) {
    sill_session_options so = {.size = sizeof so};
    sill_plan_info plan, less;
    sill_error err = {0};
    uint64_t whole, some;
    NEEDS_FAKE();
    session(&so, &plan, &whole, &err);
    REQUIRE(plan.fits && whole == plan.kv_bytes);
    const uint64_t block = 6 * 2 * 3 * 32 * 32 * 2, one = 34 * block;
    CHECK(whole > 4 * one);
    fake.set("max-buffer", (double)(3 * one));
    session(&so, &less, &some, &err);
    CHECK(less.fits && some == 3 * one && less.kv_bytes == some && less.max_sequences == plan.max_sequences);
    fake.set("max-buffer", (double)(3 * one - 1)); /* whole blocks alone */
    session(&so, &less, &some, &err);
    CHECK(less.fits && some == 3 * one - block);
    so = (sill_session_options){.size = sizeof so, .batch_tokens = 64, .max_sequences = 1};
    fake.set("max-buffer", (double)one);
    session(&so, &less, &some, &err);
    CHECK(less.fits && some == one);
    fake.set("max-buffer", (double)(one - 1));
    session(&so, &less, &some, &err);
    CHECK(!less.fits && strstr(less.advice, "the KV cache takes 2.4 MiB in one piece, and the metal device at most 2.4; n_ctx 512"));
    CHECK(strstr(err.msg, "in one piece"));
    sill_model_options o = {.size = sizeof o};
    CHECK_OK(sill_plan(path_of(&narrow), &o, &so, &less, &err), err); /* auto: the CPU has no such limit */
    CHECK(less.fits && !strcmp(less.device, "cpu") && strstr(less.passed_over, "in one piece"));
    so.n_ctx = 512;
    session(&so, &less, &some, &err);
    CHECK(less.fits && some > 0);
    /* Scratch: the results of as many lanes as were named. */
    so = (sill_session_options){.size = sizeof so, .n_ctx = 32, .max_sequences = 1024};
    session(&so, &less, &some, &err);
    CHECK(!less.fits && strstr(less.advice, "scratch takes"));
    fake.set("max-buffer", (double)(8ull << 30));
}

static void all_is_given_back(void) {
    NEEDS_FAKE();
    sill__mtl_forget();
    CHECK_INT(fake_totals().live_objects, 0);
    CHECK_INT(fake_totals().unpooled, 0);
}

int main(int argc, char **argv) {
    fake_open(argv[0]);
    setenv("SILL_FIRST_USE_CHECK", "0", 1);
    setenv("SILL_PACKED_MAX_MIB", "0", 1);
    if (!mkdtemp(directory)) return 1;
    sill_set_log(log_line, NULL);
    if (fake.handle) fake.set("fast", 1);
    TEST(by_its_shape);
    TEST(by_its_size);
    TEST(by_chance);
    TEST(keys_and_values);
    TEST(all_is_given_back);
    char command[80];
    snprintf(command, sizeof command, "rm -rf %s", directory);
    return system(command) != 0 || test_bad;
}
