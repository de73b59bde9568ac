/*
 * The check of a device's first use: what it keeps and when it is run again; a device that computes wrong is not what
 * "auto" takes, and that is said.
 */
#include <dirent.h>
#include <unistd.h>

#include "backend/check/check.h"
#include "test.h"

static char cache[] = "/tmp/sill_first_use_XXXXXX", lines[8][1024];
static int levels[8], n_lines, n_checks;
static bool wrong, unwilling;
static const sill__use *use; /* the model that the device is chosen for; NULL: any */
static char version[16];

static void log_line(void *user, int level, const char *line) {
    (void)user;
    if (level > 1 || n_lines == 8) return;
    levels[n_lines] = level;
    snprintf(lines[n_lines++], sizeof lines[0], "%s", line);
}

/* ------------------------------------------- another device: the CPU's, but for its name and one number */

static sill__backend other;
static sill__device *device;
static const sill__backend *cpu(void) { return sill__backend_cpu(); }

static sill_status open_other(const sill__device_options *o, sill__device **out, sill_error *err) {
    if (unwilling) return sill__fail(err, SILL_EUNSUPPORTED, "no such hardware");
    sill_status s = cpu()->open(o, out, err);
    device = *out;
    return s;
}
static void describe(const sill__device *d, char *out, size_t cap) {
    (void)d;
    snprintf(out, cap, "other");
}
static void identify(const sill__device *d, char *out, size_t cap) {
    (void)d;
    snprintf(out, cap, "driver %s", version);
}
static void embed(sill__queue *q, const sill__op_embed *op) {
    sill_error err;
    n_checks++;
    cpu()->embed(q, op);
    if (!wrong || cpu()->submit(q, NULL, &err) != SILL_OK) return;
    *(float *)(void *)((uint8_t *)cpu()->buf_map(device, op->out.buf) + op->out.at) += 1;
}

static void make_other(bool is_wrong, const char *driver) {
    other = *cpu();
    other.name = "other";
    other.open = open_other;
    other.describe = describe;
    other.identify = identify;
    other.embed = embed;
    wrong = is_wrong;
    unwilling = false;
    snprintf(version, sizeof version, "%s", driver);
    n_lines = n_checks = 0;
}

static int files(void) {
    char path[64];
    int n = 0;
    snprintf(path, sizeof path, "%s/checked", cache);
    DIR *d = opendir(path);
    for (struct dirent *e; d && (e = readdir(d));) n += e->d_name[0] != '.';
    if (d) closedir(d);
    return n;
}

/* What "auto" takes of {other, cpu}; its name. */
static const char *chosen(void) {
    const sill__backend *list[] = {&other, sill__backend_cpu(), NULL}, *ops = NULL;
    sill__device *d = NULL;
    sill_error err = {0};
    CHECK_OK(sill__device_choose(list, &(sill__device_options){.n_threads = 1, .use = use}, true, &ops, &d, &err), err);
    if (d) ops->close(d);
    return ops ? ops->name : "none";
}

static void what_was_found_is_kept(void) {
    make_other(false, "1");
    CHECK_STR(chosen(), "other");
    CHECK(n_checks > 0);
    CHECK_INT(files(), 1);
    n_checks = 0;
    CHECK_STR(chosen(), "other");
    CHECK_INT(n_checks, 0);
    snprintf(version, sizeof version, "2"); /* another driver: checked again */
    CHECK_STR(chosen(), "other");
    CHECK(n_checks > 0);
    CHECK_INT(files(), 2);
    CHECK_INT(n_lines, 0);
}

static void a_wrong_device_is_not_taken(void) {
    make_other(true, "3");
    for (int again = 0; again < 2; again++) {
        n_lines = n_checks = 0;
        CHECK_STR(chosen(), "cpu");
        CHECK((n_checks > 0) == (again == 0));
        REQUIRE(n_lines == 1);
        CHECK_INT(levels[0], 0);
        CHECK(strstr(lines[0], "device other computes wrong") && strstr(lines[0], "embedding") &&
              strstr(lines[0], "sill check --device other") && strstr(lines[0], "sill doctor --report"));
    }
    wrong = false; /* `sill check` afterwards finds it right */
    sill__check_record r = {.verdict = SILL__CHECK_PASSED, .full = true, .when = "2026-01-02T03:04:05Z"};
    REQUIRE(other.open(&(sill__device_options){.n_threads = 1, .use = use}, &device, NULL) == SILL_OK);
    sill__check_keep(&other, device, &r);
    memset(&r, 0, sizeof r);
    char text[80];
    CHECK(sill__check_recall(&other, device, &r));
    sill__check_record_text(&r, text, sizeof text);
    CHECK_STR(text, "passed 2026-01-02T03:04:05Z (sill check)");
    cpu()->close(device);
    n_lines = 0;
    CHECK_STR(chosen(), "other");
    CHECK_INT(n_lines, 0);
}

/* Each model once, with what it takes; what is found wrong with one goes for all. */
static void for_a_model(void) {
    sill__use gpt2 = {.types = {[SILL__COMPUTE_F32] = 1u << SILL__TYPE_F32}, .embed_types = 1u << SILL__TYPE_F32, .norm = SILL__NORM_LAYER,
                      .act = SILL__ACT_GELU_TANH, .group = 1, .n_kv_heads = 12, .head_dim = 64};
    sill__use llama = {.types = {[SILL__COMPUTE_BLOCK_I8] = 1u << SILL__TYPE_Q4_1 | 1u << SILL__TYPE_Q8_0}, .embed_types = 1u << SILL__TYPE_Q8_0,
                       .type = SILL__TYPE_Q4_1, .compute = SILL__COMPUTE_BLOCK_I8, .kv = SILL__KV_F16, .norm = SILL__NORM_RMS,
                       .act = SILL__ACT_SWIGLU, .rope = SILL__ROPE_ADJACENT, .rope_dims = 64, .group = 3, .n_kv_heads = 3, .head_dim = 64};
    const sill__use *const order[] = {&gpt2, &llama, &gpt2, &llama, NULL};
    make_other(false, "4");
    for (int i = 0; i < 5; i++) {
        n_checks = 0;
        use = order[i];
        CHECK_STR(chosen(), "other");
        CHECK((n_checks > 0) == (i < 2));
    }
    use = &llama;
    llama.head_dim = 128; /* another model */
    wrong = true;
    CHECK_STR(chosen(), "cpu");
    use = &gpt2;
    n_checks = 0;
    CHECK_STR(chosen(), "cpu");
    CHECK_INT(n_checks, 0);
    use = NULL;
}

/* What is left out for a model is what it does not have. */
static void cases_of_a_model(void) {
    static sill__check_target t;
    sill_error err = {0};
    sill__use q8 = {.types = {[SILL__COMPUTE_BLOCK_I8] = 1u << SILL__TYPE_Q8_0}, .embed_types = 1u << SILL__TYPE_F16, .type = SILL__TYPE_F16,
                    .as = SILL__TYPE_Q8_0, .compute = SILL__COMPUTE_BLOCK_I8, .kv = SILL__KV_F16, .norm = SILL__NORM_RMS,
                    .act = SILL__ACT_SWIGLU, .rope = SILL__ROPE_HALF, .rope_dims = 80, .group = 2, .n_kv_heads = 4, .head_dim = 80};
    make_other(false, "5");
    REQUIRE(other.open(&(sill__device_options){.n_threads = 1}, &device, NULL) == SILL_OK);
    sill__check_target_init(&t, &other, device, NULL);
    t.use = &q8;
    CHECK_OK(sill__check_ops(&t, 1, SILL__CHECK_QUICK, NULL, NULL, &err), err);
    CHECK(sill__check_passed(&t));
    static const char *const wanted[] = {"product, q8_0", "product, q8 at load", "norm, bias, activation, residual", "embedding", "rms norm",
                                         "attention, kv f16", "logits, q8 at load", "two layers of odd shapes",
                                         "two layers, one interactive text", "same bits, two layers", "same bits, attention"};
    static const char *const absent[] = {"product, f32", "product, f16", "product, int8", "product, q4_1", "layer norm", "attention, kv f32",
                                         "attention, kv int8", "logits, f32"};
    for (int i = 0; i < t.n_lines; i++)
        for (size_t k = 0; k < SILL_ARRAY_LEN(absent); k++)
            if (!strcmp(t.lines[i].name, absent[k])) FAIL("%s", absent[k]);
    for (size_t k = 0; k < SILL_ARRAY_LEN(wanted); k++) {
        bool found = false;
        for (int i = 0; i < t.n_lines; i++) found = found || (!strcmp(t.lines[i].name, wanted[k]) && t.lines[i].n_cases > 0 && !t.lines[i].n_skipped);
        if (!found) FAIL("%s is missing", wanted[k]);
    }
    cpu()->close(device);
}

static void a_device_that_does_not_open(void) {
    make_other(false, "9");
    unwilling = true;
    CHECK_STR(chosen(), "cpu");
    CHECK_INT(n_lines, 0); /* nothing is wrong */
}

static void told_once(void) {
    const sill__backend *list[] = {&other, sill__backend_cpu(), NULL}, *ops;
    sill__device *d;
    sill_error err = {0};
    make_other(true, "10");
    CHECK_OK(sill__device_choose(list, NULL, false, &ops, &d, &err), err);
    CHECK_STR(ops->name, "cpu");
    cpu()->close(d);
    CHECK_INT(n_lines, 0);
}

/* A torn or foreign file is no record. */
static void damaged_records(void) {
    sill__check_record r;
    char path[64], name[400] = "", text[4096];
    make_other(false, "6");
    CHECK_STR(chosen(), "other");
    snprintf(path, sizeof path, "%s/checked", cache);
    DIR *d = opendir(path);
    REQUIRE(d != NULL);
    for (struct dirent *e; (e = readdir(d));) {
        snprintf(name, sizeof name, "%s/%s", path, e->d_name);
        FILE *f = e->d_name[0] == '.' ? NULL : fopen(name, "r+");
        if (!f) continue;
        size_t n = fread(text, 1, sizeof text, f);
        CHECK_INT(n, 2048);
        rewind(f);
        for (size_t i = 0; i < n; i++) text[i] = (char)(text[i] == 'p' ? 'q' : text[i]);
        fwrite(text, 1, n, f);
        fclose(f);
    }
    closedir(d);
    REQUIRE(other.open(&(sill__device_options){.n_threads = 1, .use = use}, &device, NULL) == SILL_OK);
    CHECK(!sill__check_recall(&other, device, &r));
    CHECK_INT(r.verdict, SILL__CHECK_UNKNOWN);
    cpu()->close(device);
    n_checks = 0;
    CHECK_STR(chosen(), "other");
    CHECK(n_checks > 0);
}

static void nothing_is_checked_when_told_so(void) {
    make_other(true, "7");
    setenv("SILL_FIRST_USE_CHECK", "0", 1);
    CHECK_STR(chosen(), "other");
    CHECK_INT(n_checks, 0);
    unsetenv("SILL_FIRST_USE_CHECK");
}

/* No cache, no record: checked every time. */
static void without_a_cache(void) {
    make_other(false, "8");
    setenv("SILL_CACHE", "/dev/null/none", 1);
    for (int i = 0; i < 2; i++) {
        n_checks = 0;
        CHECK_STR(chosen(), "other");
        CHECK(n_checks > 0);
    }
    setenv("SILL_CACHE", cache, 1);
}

int main(int argc, char **argv) {
    if (!mkdtemp(cache)) return 1;
    setenv("SILL_CACHE", cache, 1);
    unsetenv("SILL_FIRST_USE_CHECK");
    sill_set_log(log_line, NULL);
    TEST(what_was_found_is_kept);
    TEST(a_wrong_device_is_not_taken);
    TEST(for_a_model);
    TEST(cases_of_a_model);
    TEST(a_device_that_does_not_open);
    TEST(told_once);
    TEST(damaged_records);
    TEST(nothing_is_checked_when_told_so);
    TEST(without_a_cache);
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", cache);
    if (system(command) != 0) return 1;
    TEST_EXIT();
}
