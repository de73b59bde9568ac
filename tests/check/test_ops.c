/*
 * The check of a device: it passes for every instruction set of the CPU, and it can fail. A backend that does what the CPU
 * does, but for one element of one operation, is caught at every operation, type and case; so are bits that depend on
 * company, an error, a device that offers nothing.
 */
#include "backend/check/check.h"
#include "backend/cpu/kernels.h"
#include "test.h"

static sill__check_target target;

/* ------------------------------------------------------- a backend at fault */

typedef enum fault {
    NONE, EMBED, LINEAR, LINEAR_ONE_ROW, LINEAR_LATENCY, LINEAR_WIDE, LINEAR_HIGH, QKV_Q, QKV_KV, ATTENTION, ATTENTION_COMPANY,
    TAP, LOGITS, LSE, TARGETS, TOP_IDS, TOP_LOGPROBS, HEAD_ONE_ROW, NO_COPY, NOT_FINITE, SUBMIT
} fault;

static fault at_fault;
static sill__path path;
static sill__device *device;
static const sill__batch *batch;
static sill__backend faulty;
static const sill__backend *cpu(void) { return sill__backend_cpu(); }

static float *place(sill__ref r) { return (float *)(void *)((uint8_t *)cpu()->buf_map(device, r.buf) + r.at); }

/* Runs what is recorded so far, then changes the I-th of N values by a little of their size, or by its last bit. */
static void change(sill__queue *q, sill__ref r, size_t i, size_t n, bool last_bit) {
    sill_error err;
    double sum = 0;
    if (!r.buf || n == 0 || cpu()->submit(q, NULL, &err) != SILL_OK) return;
    float *x = place(r);
    for (size_t k = 0; k < n; k++) sum += isfinite(x[k]) ? (double)x[k] * x[k] : 0;
    if (at_fault == NOT_FINITE) x[i] = NAN;
    else if (last_bit) x[i] = nextafterf(x[i], INFINITY);
    else x[i] += 4e-3f * (float)sqrt(sum / (double)n);
}

static sill_status open_faulty(const sill__device_options *o, sill__device **out, sill_error *err) {
    sill_status s = cpu()->open(o, out, err);
    device = *out;
    return s;
}
static void describe(const sill__device *d, char *out, size_t cap) {
    (void)d;
    snprintf(out, cap, "faulty");
}
static sill_status queue_create(sill__device *d, const sill__queue_shape *s, sill__queue **out, sill_error *err) {
    path = s->path;
    return cpu()->queue_create(d, s, out, err);
}
static void begin(sill__queue *q, const sill__batch *b) {
    batch = b;
    cpu()->begin(q, b);
}
static sill_status submit(sill__queue *q, sill__ticket *t, sill_error *err) {
    if (at_fault == SUBMIT) return sill__fail(err, SILL_EDEVICE, "the device was taken away");
    return cpu()->submit(q, t, err);
}
static void embed(sill__queue *q, const sill__op_embed *op) {
    cpu()->embed(q, op);
    if (at_fault == EMBED) change(q, op->out, 0, (size_t)batch->n_tokens * (size_t)op->width, false);
}
static size_t in_cols, out_rows, op_cols; /* of the weights imported last; of the first one behind the embeddings */
static sill_status weight_import(sill__device *d, const sill__weight_src *src, sill__weight **out, sill_error *err) {
    in_cols = src->cols;
    if (src->role != SILL__ROLE_EMBED && !op_cols) op_cols = src->cols;
    out_rows = src->rows;
    return cpu()->weight_import(d, src, out, err);
}
static void linear(sill__queue *q, const sill__op_linear *op) {
    cpu()->linear(q, op);
    size_t n = (size_t)(op->rows == SILL__ROWS_OUT ? batch->n_out : batch->n_tokens);
    size_t all = n * out_rows / (op->act == SILL__ACT_SWIGLU ? 2 : 1);
    if (at_fault == LINEAR || at_fault == NOT_FINITE) change(q, op->out, 0, all, false);
    if (at_fault == LINEAR_ONE_ROW && n == 1) change(q, op->out, 0, all, true);
    if (at_fault == LINEAR_LATENCY && path == SILL__PATH_LATENCY) change(q, op->out, 0, all, false);
    if (at_fault == LINEAR_WIDE && in_cols >= 32767) change(q, op->out, all - 1, all, false);
    if (at_fault == LINEAR_HIGH && out_rows >= 32767) change(q, op->out, all - 1, all, false);
}

/* Queries by a bias; keys and values by a second run that takes another input for the last row. */
static void qkv(sill__queue *q, const sill__op_qkv *op) {
    sill__op_qkv other = *op;
    sill_error err;
    sill__buf *buf = NULL;
    size_t n = (size_t)batch->n_tokens, rows = (size_t)((op->n_heads + 2 * op->n_kv_heads) * op->head_dim);
    cpu()->qkv(q, op);
    if (at_fault == QKV_Q) change(q, op->q, 0, n * (size_t)(op->n_heads * op->head_dim), false);
    if (at_fault != QKV_KV || cpu()->submit(q, NULL, &err) != SILL_OK) return;
    if (cpu()->buf_create(device, n * rows * 4, &buf, &err) != SILL_OK) return;
    float *x = place(op->in) + (n - 1) * (size_t)op_cols + 2, was = *x;
    *x += 0.25f;
    other.q = (sill__ref){buf, 0};
    cpu()->qkv(q, &other);
    (void)!cpu()->submit(q, NULL, &err);
    *x = was;
    cpu()->buf_free(device, buf);
}
static void attention(sill__queue *q, const sill__op_attention *op) {
    size_t n = (size_t)batch->n_tokens * (size_t)(op->n_heads * op->head_dim);
    cpu()->attention(q, op);
    if (at_fault == ATTENTION) change(q, op->out, n - 1, n, false);
    if (at_fault == ATTENTION_COMPANY && batch->n_runs > 1) change(q, op->out, n - 1, n, true);
}
static void tap(sill__queue *q, const sill__op_tap *op) {
    cpu()->tap(q, op);
    int32_t n = op->rows == SILL__ROWS_OUT ? batch->n_out : batch->n_tokens;
    if (at_fault == TAP) change(q, op->out, 0, (size_t)n * (size_t)op->width, false);
}
static void head(sill__queue *q, const sill__op_head *op) {
    cpu()->head(q, op);
    size_t n = (size_t)batch->n_out, all = n * (size_t)op->n_vocab, wanted = op->target_starts ? (size_t)op->target_starts[n] : 0;
    if (at_fault == LOGITS) change(q, op->logits, all - 1, all, false);
    if (at_fault == LSE) change(q, op->lse, n - 1, n, false);
    if (at_fault == TARGETS) change(q, op->target_logprobs, wanted - 1, wanted, false);
    if (at_fault == TOP_LOGPROBS) change(q, op->top_logprobs, 0, n, false);
    if (at_fault == HEAD_ONE_ROW && n == 1) change(q, op->logits, 0, all, true);
    if (at_fault != TOP_IDS || !op->top_ids.buf) return;
    sill_error err;
    (void)!cpu()->submit(q, NULL, &err);
    int32_t *ids = (int32_t *)(void *)place(op->top_ids);
    ids[0] ^= 1; /* equal logits: the higher id of the two */
}
static void kv_copy(sill__queue *q, sill__kv *kv, int32_t from, int32_t to, int32_t n) {
    if (at_fault != NO_COPY) cpu()->kv_copy(q, kv, from, to, n);
}

static void make_faulty(fault f) {
    sill_error err = {0};
    at_fault = f;
    op_cols = 0;
    faulty = *cpu();
    faulty.name = "faulty";
    faulty.open = open_faulty;
    faulty.describe = describe;
    faulty.queue_create = queue_create;
    faulty.weight_import = weight_import;
    faulty.begin = begin;
    faulty.submit = submit;
    faulty.embed = embed;
    faulty.linear = linear;
    faulty.qkv = qkv;
    faulty.attention = attention;
    faulty.tap = tap;
    faulty.head = head;
    faulty.kv_copy = kv_copy;
    if (faulty.open(&(sill__device_options){.n_threads = 2}, &device, &err) != SILL_OK) FAIL("%s", err.msg);
    sill__check_target_init(&target, &faulty, device, NULL);
}

/* All lines that begin with NAME have failed, in at least LEAST of their cases (0: in all); others have not, if ALONE. */
static void caught(fault f, const char *kind, const char *name, int least, bool alone) {
    sill_error err = {0};
    int found = 0;
    make_faulty(f);
    CHECK_OK(sill__check_kind(kind, &target, 1, SILL__CHECK_QUICK, &err), err);
    for (int i = 0; i < target.n_lines; i++) {
        const sill__check_line *l = &target.lines[i];
        bool here = !strncmp(l->name, name, strlen(name)) && (strcmp(name, "product, ") || strcmp(l->name, "product, one interactive row"));
        found += here;
        if (here && l->n_failed < (least ? least : l->n_cases)) FAIL("fault %d: %s: %d of %d cases failed", (int)f, l->name, l->n_failed, l->n_cases);
        if (!here && alone && l->n_failed) FAIL("fault %d: %s failed too: %s", (int)f, l->name, l->failed_at);
    }
    CHECK(found > 0);
    CHECK(!sill__check_passed(&target));
    CHECK(sill__check_first_failed(&target) && sill__check_first_failed(&target)->failed_at[0]);
    cpu()->close(device);
}

/* -------------------------------------------------------------------- tests */

static int n_exact;

/* The reference with f32 activations on weights in blocks. */
static sill_status import_exact(sill__device *d, const sill__weight_src *src, sill__weight **out, sill_error *err) {
    sill__weight_src exact = *src;
    const bool blocks = src->compute == SILL__COMPUTE_BLOCK_I8 && sill__type_get(src->parts[0]->type)->block > 1;
    if (blocks) exact.compute = SILL__COMPUTE_F32;
    n_exact += blocks;
    return sill__backend_ref()->weight_import(d, &exact, out, err);
}

static void every_instruction_set_passes(void) {
    for (int i = 0; sill__cpu_isas[i]; i++) {
        sill_error err = {0};
        if (!sill__cpu_isas[i]->available()) continue;
        REQUIRE(cpu()->open(&(sill__device_options){.n_threads = 2, .isa = sill__cpu_isas[i]->name}, &device, &err) == SILL_OK);
        sill__check_target_init(&target, cpu(), device, NULL);
        CHECK_OK(sill__check_ops(&target, 1, SILL__CHECK_QUICK, NULL, NULL, &err), err);
        const sill__check_line *failed = sill__check_first_failed(&target);
        if (failed) FAIL("%s: %s: %s", target.name, failed->name, failed->failed_at);
        CHECK(sill__check_passed(&target));
        CHECK(target.n_lines > 30);
        cpu()->close(device);
    }
}

/* The largest cases are left out where a set before has run their very code, and nowhere else: its weights' types decide. */
static void lesser_sets_share_large_cases(void) {
    static sill__check_target t[8];
    int n = 0;
    sill_error err = {0};
    for (int i = 0; sill__cpu_isas[i] && n < 8; i++) {
        if (!sill__cpu_isas[i]->available()) continue;
        REQUIRE(cpu()->open(&(sill__device_options){.n_threads = 2, .isa = sill__cpu_isas[i]->name}, &device, &err) == SILL_OK);
        sill__check_target_init(&t[n++], cpu(), device, sill__cpu_isas[i]->name);
    }
    CHECK_OK(sill__check_kind("product", t, n, SILL__CHECK_QUICK, &err), err);
    CHECK_INT(t[0].n_shared, 0);
    for (int i = 0; i < n; i++) {
        CHECK(sill__check_passed(&t[i]));
        CHECK_INT(t[i].n_lines, t[0].n_lines); /* of no type nothing */
        for (int k = 0; k < t[i].n_lines; k++) CHECK(t[i].lines[k].n_cases > 0);
        const bool own = !strcmp(t[i].isa, "avx2") || !strcmp(t[i].isa, "scalar");
        if (own) CHECK_INT(t[i].n_shared, 0);
        if (i > 0 && !own) CHECK(t[i].n_shared > 0 && t[i].lines[0].n_cases < t[0].lines[0].n_cases);
        CHECK_INT(t[i].n_left_out, 0);
        cpu()->close(t[i].device);
    }
}

/* A brief target has the large cases only where no target before it is of its backend and at work. */
static void brief_targets_leave_large_cases_out(void) {
    static sill__check_target t[3];
    sill_error err = {0};
    for (int i = 0; i < 3; i++) {
        REQUIRE(cpu()->open(&(sill__device_options){.n_threads = 2, .isa = "scalar"}, &device, &err) == SILL_OK);
        sill__check_target_init(&t[i], cpu(), device, NULL);
        t[i].brief = i != 1;
    }
    CHECK_OK(sill__check_kind("product", t, 3, SILL__CHECK_QUICK, &err), err);
    CHECK_INT(t[0].n_left_out + t[1].n_left_out, 0);
    CHECK(t[2].n_left_out > 0 && t[2].n_shared == 0);
    int32_t n = 0;
    for (int k = 0; k < t[0].n_lines; k++)
        if (!strncmp(t[0].lines[k].name, "product, ", 9) && strcmp(t[0].lines[k].name, "product, one interactive row")) n += t[0].lines[k].n_cases - t[2].lines[k].n_cases;
    CHECK_INT(n, t[2].n_left_out);
    CHECK_INT(t[1].lines[0].n_cases, t[0].lines[0].n_cases);
    for (int i = 0; i < 3; i++) {
        CHECK(sill__check_passed(&t[i]));
        cpu()->close(t[i].device);
    }
}

static void code_that_sets_share(void) {
    static const struct { const char *isa, *other; sill__type type; sill__compute compute; bool shares; } cases[] = {
        {"avx512vnni", "avx512bf16", SILL__TYPE_F32, SILL__COMPUTE_F32, true},   {"avx512vnni", "avx512bf16", SILL__TYPE_Q4_K, SILL__COMPUTE_BLOCK_I8, true},
        {"avx512vnni", "avx512bf16", SILL__TYPE_BF16, SILL__COMPUTE_BF16, false}, {"avx512", "avx512bf16", SILL__TYPE_F16, SILL__COMPUTE_F16, true},
        {"avx512", "avx512vnni", SILL__TYPE_BF16, SILL__COMPUTE_BF16, true},      {"avx512", "avx512vnni", SILL__TYPE_F32, SILL__COMPUTE_INT8, false},
        {"avx512", "avx512bf16", SILL__TYPE_Q8_0, SILL__COMPUTE_F32, false},      {"avx2", "avx512", SILL__TYPE_F32, SILL__COMPUTE_F32, false},
        {"scalar", "avx512bf16", SILL__TYPE_F32, SILL__COMPUTE_F32, false},       {"avx512bf16", "avx512vnni", SILL__TYPE_F32, SILL__COMPUTE_F32, false},
        {"avx2", "avx2", SILL__TYPE_F32, SILL__COMPUTE_F32, false}};
#if defined(__x86_64__)
    for (size_t i = 0; i < SILL_ARRAY_LEN(cases); i++)
        if (cpu()->isa_shares(cases[i].isa, cases[i].other, cases[i].type, cases[i].compute) != cases[i].shares)
            FAIL("%s with %s: case %zu", cases[i].isa, cases[i].other, i);
#else
    (void)cases;
#endif
}

/* A right result of the other kind (f32 activations, where int8 ones are expected) is found right, whichever came first. */
static void either_rounding_is_right(void) {
    sill_error err = {0};
    const sill__backend *ref = sill__backend_ref();
    faulty = *ref;
    faulty.weight_import = import_exact;
    faulty.describe = describe;
    REQUIRE(ref->open(NULL, &device, &err) == SILL_OK);
    sill__check_target_init(&target, &faulty, device, NULL);
    CHECK_OK(sill__check_kind("product", &target, 1, SILL__CHECK_QUICK, &err), err);
    const sill__check_line *failed = sill__check_first_failed(&target);
    if (failed) FAIL("%s: %s", failed->name, failed->failed_at);
    CHECK(sill__check_passed(&target) && n_exact > 20);
    for (int i = 0; i < target.n_lines; i++)
        if (!target.lines[i].bits && !(target.lines[i].worst == 0)) FAIL("%s is not the reference's own: %g", target.lines[i].name, target.lines[i].worst);
    ref->close(device);
}

static void one_element_of_a_product(void) { caught(LINEAR, "product", "product, ", 0, false); }
static void a_row_alone(void) { caught(LINEAR_ONE_ROW, "product", "same bits, product", 0, true); }
static void the_interactive_path(void) { caught(LINEAR_LATENCY, "product", "product, one interactive row", 0, true); }
static void only_wide_matrices(void) { caught(LINEAR_WIDE, "product", "product, ", 1, false); }
static void only_high_matrices(void) { caught(LINEAR_HIGH, "product", "product, f32", 1, false); }
static void no_number(void) {
    caught(NOT_FINITE, "product", "product, ", 0, false);
    CHECK(isinf(sill__check_first_failed(&target)->worst));
}
static void what_is_fused(void) { caught(LINEAR, "fused", "norm, bias", 0, true); }
static void embeddings(void) { caught(EMBED, "embedding", "embedding", 0, true); }
static void norms(void) {
    caught(TAP, "norm", "rms norm", 0, false);
    caught(TAP, "norm", "layer norm", 0, false);
    caught(TAP, "norm", "rows copied", 0, false);
}
static void queries_keys_values(void) {
    caught(QKV_Q, "attention", "queries, exact", 0, false);
    caught(QKV_KV, "attention", "attention, kv", 0, false);
}
static void attention_itself(void) {
    caught(ATTENTION, "attention", "attention, kv", 0, false);
    caught(ATTENTION_COMPANY, "attention", "same bits, attention", 0, true);
}
static void copies(void) { caught(NO_COPY, "attention", "copy of a KV block", 0, true); }
static void the_head(void) {
    caught(LOGITS, "head", "logits, f32", 0, false);
    caught(LSE, "head", "log-sum-exp", 1, false);
    caught(TARGETS, "head", "log-probabilities of targets", 1, false);
    caught(TOP_LOGPROBS, "head", "best log-probabilities", 1, false);
    caught(TOP_IDS, "head", "order of the best", 0, true);
    caught(HEAD_ONE_ROW, "head", "same bits, head", 0, false);
}
static void layers(void) {
    caught(QKV_KV, "layers", "two layers", 1, false);
    caught(ATTENTION, "layers", "two layers", 1, false);
}

/* A device that fails is not asked a thousand times. */
static void errors_of_the_device(void) {
    caught(SUBMIT, "product", "product, f32", 1, false);
    CHECK(target.stopped);
    CHECK(strstr(target.lines[0].failed_at, "taken away") != NULL);
}

static sill_status offers_nothing(const sill__device *d, const sill__need *need, sill_error *err) {
    (void)d, (void)need;
    return sill__fail(err, SILL_EUNSUPPORTED, "no such thing here");
}

static void what_is_not_offered_is_skipped_not_passed(void) {
    sill_error err = {0};
    make_faulty(NONE);
    faulty.supports = offers_nothing;
    CHECK_OK(sill__check_kind("embedding", &target, 1, SILL__CHECK_QUICK, &err), err);
    CHECK_INT(target.n_lines, 1);
    CHECK(target.lines[0].n_skipped > 0 && target.lines[0].n_cases == 0 && strstr(target.lines[0].skipped_why, "no such thing"));
    CHECK(!sill__check_passed(&target) && !sill__check_first_failed(&target));
    cpu()->close(device);
}

static int cancel(void *user, double share) {
    CHECK(share > 0 && share <= 1);
    return ++*(int *)user == 3;
}

static void cancelled(void) {
    sill_error err = {0};
    int calls = 0;
    make_faulty(NONE);
    CHECK_INT(sill__check_ops(&target, 1, SILL__CHECK_QUICK, cancel, &calls, &err), SILL_ECANCELLED);
    CHECK_INT(calls, 3);
    cpu()->close(device);
}

static void distances(void) {
    const float a[] = {1, 2, 3, 4}, b[] = {1, 2, 3, 4.5f}, bad[] = {1, 2, 3, NAN}, inf[] = {1, -INFINITY};
    CHECK_NEAR(sill__check_distance(a, a, 4), 0, 0);
    CHECK_NEAR(sill__check_distance(b, a, 4), 0.5 / sqrt(7.5), 1e-12);
    CHECK(isinf(sill__check_distance(bad, a, 4)));
    CHECK(isinf(sill__check_distance(a, bad, 4)));
    CHECK_NEAR(sill__check_distance(inf, inf, 2), 0, 0);
}

int main(int argc, char **argv) {
    TEST(every_instruction_set_passes);
    TEST(lesser_sets_share_large_cases);
    TEST(brief_targets_leave_large_cases_out);
    TEST(code_that_sets_share);
    TEST(either_rounding_is_right);
    TEST(one_element_of_a_product);
    TEST(a_row_alone);
    TEST(the_interactive_path);
    TEST(only_wide_matrices);
    TEST(only_high_matrices);
    TEST(no_number);
    TEST(what_is_fused);
    TEST(embeddings);
    TEST(norms);
    TEST(queries_keys_values);
    TEST(attention_itself);
    TEST(copies);
    TEST(the_head);
    TEST(layers);
    TEST(errors_of_the_device);
    TEST(what_is_not_offered_is_skipped_not_passed);
    TEST(cancelled);
    TEST(distances);
    TEST_EXIT();
}
