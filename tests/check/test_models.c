/*
 * Whole models on a device against the reference: the CPU passes, a device with a fault somewhere does not, and the report
 * of sill_check says what it should.
 */
#include "base/json.h"
#include "format/format.h"
#include "model/model.h"
#include "task/check.h"
#include "test.h"

static sill__check_target target;
static sill__backend faulty;
static sill__device *device;
static const sill__batch *batch;
static enum { NONE, VALUE, COMPANY, THREADS } at_fault;
static int n_threads;
static const sill__device_options options = {.n_threads = 2};
static const sill__backend *cpu(void) { return sill__backend_cpu(); }

static sill_status open_faulty(const sill__device_options *o, sill__device **out, sill_error *err) {
    sill_status s = cpu()->open(o, out, err);
    device = *out;
    n_threads = o ? o->n_threads : 0;
    return s;
}
static void begin(sill__queue *q, const sill__batch *b) {
    batch = b;
    cpu()->begin(q, b);
}
/* One value of the last row, as attention leaves it. */
static void attention(sill__queue *q, const sill__op_attention *op) {
    sill_error err;
    cpu()->attention(q, op);
    bool here = at_fault == VALUE || (at_fault == COMPANY && batch->n_runs > 1) || (at_fault == THREADS && n_threads == 1);
    if (!here || cpu()->submit(q, NULL, &err) != SILL_OK) return;
    float *x = (float *)(void *)((uint8_t *)cpu()->buf_map(device, op->out.buf) + op->out.at);
    x += (batch->n_tokens - 1) * op->n_heads * op->head_dim;
    if (at_fault == VALUE) *x += 0.1f;
    else for (int i = 0; i < op->n_heads * op->head_dim; i++) x[i] *= 1 + 0x1p-22f; /* the last bits of a whole row */
}

static const sill__check_line *line(const char *name) {
    for (int i = 0; i < target.n_lines; i++)
        if (!strcmp(target.lines[i].name, name)) return &target.lines[i];
    FAIL("no line %s", name);
    return NULL;
}

static void run(int fault) {
    sill_error err = {0};
    at_fault = fault;
    faulty = *cpu();
    faulty.open = open_faulty;
    faulty.begin = begin;
    faulty.attention = attention;
    sill__device *d = NULL;
    REQUIRE(cpu()->open(&options, &d, &err) == SILL_OK);
    sill__check_target_init(&target, &faulty, d, NULL);
    CHECK_OK(sill__check_models(&target, (const sill__device_options *const[]){&options}, 1, SILL__CHECK_QUICK, NULL, NULL, &err), err);
    cpu()->close(d);
}

static void the_cpu_passes(void) {
    run(NONE);
    const sill__check_line *failed = sill__check_first_failed(&target);
    if (failed) FAIL("%s: %s", failed->name, failed->failed_at);
    CHECK(sill__check_passed(&target));
    CHECK(line("GPT-2, f32") && line("GPT-2, f32")->worst < 0.5 && line("Llama, f32") && line("Llama of Q4_1"));
    CHECK_INT(line("same bits, models")->n_cases, 9);
}

static void a_value_of_one_row(void) {
    run(VALUE);
    CHECK_INT(line("GPT-2, f32")->n_failed, 1);
    CHECK_INT(line("Llama, f32")->n_failed, 1);
    CHECK(!sill__check_passed(&target));
}

static void last_bits_in_company(void) {
    run(COMPANY);
    CHECK_INT(line("GPT-2, f32")->n_failed, 0);
    CHECK(line("same bits, models")->n_failed >= 3);
    CHECK(strstr(line("same bits, models")->failed_at, "together") != NULL);
}

static void last_bits_with_one_thread(void) {
    run(THREADS);
    CHECK_INT(line("Llama, f32")->n_failed, 0);
    CHECK_INT(line("same bits, models")->n_failed, 3);
    CHECK(strstr(line("same bits, models")->failed_at, "one thread") != NULL);
}

static void made_models_are_models(void) {
    const sill__made_model made[] = {{"gpt2", SILL__TYPE_F16, SILL__TYPE_F16, 64}, {"llama", SILL__TYPE_Q4_K, SILL__TYPE_Q6_K, 256}};
    for (int i = 0; i < 2; i++) {
        char *bytes = NULL, *again = NULL;
        size_t n = 0, m = 0;
        sill__file *file = NULL;
        sill__config config = {0};
        sill_error err = {0};
        REQUIRE(sill__made_model_write(&made[i], &bytes, &n, &err) == SILL_OK);
        REQUIRE(sill__made_model_write(&made[i], &again, &m, &err) == SILL_OK);
        CHECK(n == m && !memcmp(bytes, again, n)); /* the same everywhere */
        CHECK_OK(sill__file_open_memory(bytes, n, "made", &file, &err), err);
        CHECK_OK(sill__config_read(file, &config, &err), err);
        CHECK_INT(config.n_embd, made[i].n_embd);
        CHECK_INT(config.n_layers, 2);
        CHECK(i == 0 || config.n_heads > config.n_kv_heads);
        sill__config_free(&config);
        sill__file_close(file);
        sill__free(bytes);
        sill__free(again);
    }
}

static void a_model_of_the_users(void) {
    sill_error err = {0};
    sill__device *d = NULL;
    REQUIRE(cpu()->open(&options, &d, &err) == SILL_OK);
    sill__check_target_init(&target, cpu(), d, NULL);
    CHECK_OK(sill__check_model_file(&target, &options, "tests/fixtures/stories260K/stories260K.gguf", &err), err);
    CHECK_INT(line("your model")->n_cases, 1);
    CHECK_INT(line("your model")->n_failed, 0);
    CHECK_INT(sill__check_model_file(&target, &options, "tests/fixtures/none.gguf", &err), SILL_ENOENT);
    cpu()->close(d);
}

static int n_calls;
static int count(void *user, double share) {
    CHECK(user == &n_calls && share > 0 && share <= 1);
    return n_calls++ == 40;
}

static void the_library_call(void) {
    sill_check_options o = {.size = sizeof o, .device = "cpu", .quick = 1, .progress = count, .user = &n_calls};
    char *json = NULL;
    int32_t passed = 1;
    sill_error err = {0};
    CHECK_INT(sill_check(&o, &json, &passed, &err), SILL_ECANCELLED);
    CHECK(!json && !passed);
    o.progress = NULL;
    o.device = "tpu";
    CHECK_INT(sill_check(&o, &json, &passed, &err), SILL_EUNSUPPORTED);
    o.device = "auto";
    CHECK_INT(sill_check(&o, &json, &passed, &err), SILL_EINVAL);
    o.device = "cpu";
    o.n_threads = -1;
    CHECK_INT(sill_check(&o, &json, &passed, &err), SILL_EINVAL);
    CHECK_INT(sill_check(&o, NULL, &passed, &err), SILL_EINVAL);
    o.n_threads = 2;
    setenv("SILL_CPU_ISA", "scalar", 1);
    CHECK_OK(sill_check(&o, &json, &passed, &err), err);
    unsetenv("SILL_CPU_ISA");
    CHECK_INT(passed, 1);
    REQUIRE(json != NULL);
    sill__json j;
    sill__json_init(&j, json, strlen(json));
    CHECK(sill__json_skip(&j) && sill__json_finish(&j));
    CHECK(strstr(json, "\"device\":\"cpu scalar\"") && !strstr(json, "avx") && strstr(json, "\"bound\":"));
    sill_free(json);
}

int main(int argc, char **argv) {
    setenv("SILL_CACHE", "/dev/null/none", 1); /* nothing is kept */
    TEST(the_cpu_passes);
    TEST(a_value_of_one_row);
    TEST(last_bits_in_company);
    TEST(last_bits_with_one_thread);
    TEST(made_models_are_models);
    TEST(a_model_of_the_users);
    TEST(the_library_call);
    TEST_EXIT();
}
