/*
 * test_int8.c - LLM.int8 of whole models on the fake Metal, operation by operation. Activations become codes: where a number lies
 * at the border between two, the reference's norm (in double) and the device's (in f32) may take different ones, and what follows
 * then differs by far more than roundings do. So:
 *   - every product of every layer is compared with the reference's over the device's own normalized inputs: codes are the
 *     same there, and only the order of the sum is left (1e-5 of the root mean square);
 *   - the codes of the two runs are compared, one by one: the first that differ must lie at a border (within 1e-3 of a code);
 *   - rows in front of the first such code agree with the reference as closely as they do in f32.
 */
#include "../model/rig.h"

#include "metal.h"

#define MAX_TOKENS 64
#define MAX_COLS 512
#define MAX_OUTS 1024
#define MAX_OPS 64
#define OUTLIER 1000 /* in place of a code */

typedef struct product { const sill__weight *w; sill__norm norm; int16_t codes[MAX_TOKENS][MAX_COLS]; float at[MAX_TOKENS][MAX_COLS]; } product;

static struct {
    const sill__backend *metal, *ref;
    sill__backend metal_spy, ref_spy;
    rig *a, *b;                        /* on the device, on the reference */
    const sill__batch *batch;
    product *ops;                      /* of the reference's step */
    int n_ops, at;
    int first_op, first_row, n_tipped; /* codes that differ; the first of them */
    double worst, farthest;            /* error of a product; distance of a tipped code from its border */
    sill__buf *rows, *identity_out, *ref_rows, *ref_out, *out;
    sill__weight *identity;
    int32_t identity_cols;
    float values[MAX_TOKENS * MAX_COLS], got[MAX_TOKENS * MAX_OUTS], want[MAX_TOKENS * MAX_OUTS];
} spy;

/* Codes of a row, as ref.c makes them; at: the number that was rounded. */
static void codes_of(const float *y, int32_t n, int16_t *codes, float *at) {
    float most = 0;
    for (int32_t i = 0; i < n; i++)
        if (fabsf(y[i]) < SILL__INT8_OUTLIER) most = fmaxf(most, fabsf(y[i]));
    const float inverse = most < 1e-30f ? 0 : 127.0f / most;
    for (int32_t i = 0; i < n; i++) {
        const bool outlier = !(fabsf(y[i]) < SILL__INT8_OUTLIER);
        codes[i] = outlier ? OUTLIER : (int16_t)rintf(y[i] * inverse);
        at[i] = outlier ? 0 : y[i] * inverse;
    }
}

static void read_floats(const rig *r, const sill__backend *ops, sill__ref from, float *to, size_t n) {
    CHECK_INT(ops->buf_read(r->m->device, from, to, n * 4), SILL_OK);
}

/* ------------------------------------------------------------ the reference's step */

/* What the reference's norm makes of its input rows. */
static void note_ref(const sill__weight *w, int32_t cols, sill__ref in, sill__norm norm) {
    const sill__backend *ops = spy.ref;
    static float x[MAX_COLS], g[MAX_COLS], beta[MAX_COLS], y[MAX_COLS];
    REQUIRE(spy.n_ops < MAX_OPS && cols <= MAX_COLS);
    product *p = &spy.ops[spy.n_ops++];
    p->w = w;
    p->norm = norm;
    for (int32_t k = 0; k < cols; k++) g[k] = 1, beta[k] = 0;
    if (norm.kind != SILL__NORM_NONE && norm.weight.buf) read_floats(spy.b, ops, norm.weight, g, (size_t)cols);
    if (norm.kind != SILL__NORM_NONE && norm.bias.buf) read_floats(spy.b, ops, norm.bias, beta, (size_t)cols);
    for (int32_t i = 0; i < spy.batch->n_tokens; i++) {
        read_floats(spy.b, ops, (sill__ref){in.buf, in.at + (size_t)i * (size_t)cols * 4}, x, (size_t)cols);
        double mean = 0, var = 0;
        for (int32_t k = 0; k < cols && norm.kind == SILL__NORM_LAYER; k++) mean += x[k];
        mean /= cols;
        for (int32_t k = 0; k < cols; k++) var += (x[k] - mean) * (x[k] - mean);
        const double r = 1.0 / sqrt(var / cols + norm.eps);
        for (int32_t k = 0; k < cols; k++) y[k] = norm.kind == SILL__NORM_NONE ? x[k] : (float)((x[k] - mean) * r * g[k] + beta[k]);
        codes_of(y, cols, p->codes[i], p->at[i]);
    }
}

static int32_t ref_cols[MAX_OPS]; /* by the order of products: the device's weights say it */
static void ref_begin(sill__queue *q, const sill__batch *b) {
    spy.batch = b;
    spy.ref->begin(q, b);
}

/* The order of products is the device's; what its k-th one looks like was noted there beforehand. */
static int ref_at;
static void ref_linear(sill__queue *q, const sill__op_linear *op) {
    if (ref_cols[ref_at]) note_ref(op->w, ref_cols[ref_at], op->in, op->norm);
    ref_at++;
    spy.ref->linear(q, op);
}
static void ref_qkv(sill__queue *q, const sill__op_qkv *op) {
    if (ref_cols[ref_at]) note_ref(op->w, ref_cols[ref_at], op->in, op->norm);
    ref_at++;
    spy.ref->qkv(q, op);
}
static void ref_head(sill__queue *q, const sill__op_head *op) {
    if (ref_cols[ref_at]) note_ref(op->w, ref_cols[ref_at], op->in, op->norm);
    ref_at++;
    spy.ref->head(q, op);
}

/* --------------------------------------------------------------- the device's step */

static bool noting; /* the first time: only which products there are */
static int n_noted;

static void flush(sill__queue *q) {
    sill_error err = {0};
    sill_status s = spy.metal->submit(q, NULL, &err);
    CHECK_OK(s, err);
    s = spy.metal->wait(q, 0, &err);
    CHECK_OK(s, err);
    spy.metal->begin(q, spy.batch);
}

/* The device's own normalized rows: a product in f32 with the identity changes no bit of them. */
static void normalized(sill__queue *q, sill__ref in, sill__norm norm, int32_t n, int32_t cols) {
    sill_error err = {0};
    if (norm.kind == SILL__NORM_NONE) {
        read_floats(spy.a, spy.metal, in, spy.values, (size_t)n * (size_t)cols);
        return;
    }
    if (spy.identity_cols != cols) {
        static float one[MAX_COLS * MAX_COLS];
        memset(one, 0, sizeof one);
        for (int32_t k = 0; k < cols; k++) one[k * cols + k] = 1;
        sill__tensor t = {.name = "identity", .type = SILL__TYPE_F32, .n_dims = 2, .dims = {(uint64_t)cols, (uint64_t)cols},
                          .data = (const uint8_t *)one, .bytes = (size_t)cols * (size_t)cols * 4};
        sill__weight_src src = {.parts = {&t}, .n_parts = 1, .rows = (uint64_t)cols, .cols = (uint64_t)cols, .role = SILL__ROLE_BODY, .name = "identity"};
        if (spy.identity) spy.metal->weight_free(spy.a->m->device, spy.identity);
        spy.identity = NULL;
        CHECK_OK(spy.metal->weight_import(spy.a->m->device, &src, &spy.identity, &err), err);
        spy.identity_cols = cols;
    }
    spy.metal->linear(q, &(sill__op_linear){.in = in, .out = {spy.identity_out, 0}, .norm = norm, .w = spy.identity});
    flush(q);
    read_floats(spy.a, spy.metal, (sill__ref){spy.identity_out, 0}, spy.values, (size_t)n * (size_t)cols);
}

static void compare_codes(const product *p, int32_t n, int32_t cols) {
    static int16_t codes[MAX_COLS];
    static float at[MAX_COLS];
    const int op = spy.at;
    for (int32_t i = 0; i < n; i++) {
        codes_of(spy.values + (size_t)i * (size_t)cols, cols, codes, at);
        for (int32_t k = 0; k < cols; k++) {
            if (codes[k] == p->codes[i][k]) continue;
            const double border = fabs(fabs(p->at[i][k] - floor((double)p->at[i][k])) - 0.5);
            spy.n_tipped++;
            if (spy.first_op < 0) spy.first_op = op;
            spy.first_row = SILL_MIN(spy.first_row, i);
            if (spy.first_op != op) continue; /* behind the first ones all may differ */
            spy.farthest = fmax(spy.farthest, border);
            if (border > 1e-3 || abs(codes[k] - p->codes[i][k]) != 1)
                FAIL("product %d, row %d, input %d: code %d, the reference's is %d, of %.6f", op, i, k, codes[k], p->codes[i][k], p->at[i][k]);
        }
    }
}

static void examine(sill__queue *q, sill__ref in, sill__norm norm, const sill__weight *w) {
    const int32_t n = spy.batch->n_tokens, cols = w->cols, rows = w->rows;
    const size_t outs = (size_t)n * (size_t)rows;
    const bool int8 = w->compute == SILL__COMPUTE_INT8;
    sill_error err = {0};
    if (noting) {
        if (n_noted < MAX_OPS) ref_cols[n_noted++] = int8 ? cols : 0;
        return;
    }
    if (!int8) return;
    REQUIRE(cols <= MAX_COLS && rows <= MAX_OUTS && n <= MAX_TOKENS && spy.at < spy.n_ops);
    const product *p = &spy.ops[spy.at];
    flush(q);
    normalized(q, in, norm, n, cols);
    compare_codes(p, n, cols);
    spy.metal->linear(q, &(sill__op_linear){.in = in, .out = {spy.out, 0}, .norm = norm, .w = w});
    flush(q);
    read_floats(spy.a, spy.metal, (sill__ref){spy.out, 0}, spy.got, outs);
    CHECK_INT(spy.ref->buf_write(spy.b->m->device, (sill__ref){spy.ref_rows, 0}, spy.values, (size_t)n * (size_t)cols * 4), SILL_OK);
    spy.ref->begin(spy.b->q, spy.batch);
    spy.ref->linear(spy.b->q, &(sill__op_linear){.in = {spy.ref_rows, 0}, .out = {spy.ref_out, 0}, .w = p->w});
    CHECK_OK(spy.ref->submit(spy.b->q, NULL, &err), err);
    CHECK_OK(spy.ref->wait(spy.b->q, 0, &err), err);
    read_floats(spy.b, spy.ref, (sill__ref){spy.ref_out, 0}, spy.want, outs);
    double size = 1e-30;
    for (size_t i = 0; i < outs; i++) size += (double)spy.want[i] * spy.want[i];
    size = sqrt(size / (double)outs);
    for (size_t i = 0; i < outs; i++) {
        const double e = fabs((double)spy.got[i] - spy.want[i]) / size;
        if (!(e <= spy.worst)) spy.worst = e;
    }
    if (!(spy.worst <= 1e-5)) FAIL("product %d: error %.3g over the same codes", spy.at, spy.worst);
    spy.at++;
}

static void metal_begin(sill__queue *q, const sill__batch *b) {
    spy.batch = b;
    spy.metal->begin(q, b);
}
static void metal_linear(sill__queue *q, const sill__op_linear *op) {
    examine(q, op->in, op->norm, op->w);
    spy.metal->linear(q, op);
}
static void metal_qkv(sill__queue *q, const sill__op_qkv *op) {
    examine(q, op->in, op->norm, op->w);
    spy.metal->qkv(q, op);
}
static void metal_head(sill__queue *q, const sill__op_head *op) {
    examine(q, op->in, op->norm, op->w);
    spy.metal->head(q, op);
}

/* -------------------------------------------------------------------- models */

static sill_model *load(const char *name, const char *device) {
    char path[256];
    sill_model *m = NULL;
    sill_error err = {0};
    sill_model_options o = {.size = sizeof o, .device = device, .dtype = SILL_DTYPE_INT8, .n_threads = 2};
    snprintf(path, sizeof path, "%s%s", FIXTURES, name);
    if (sill_model_load(path, &o, &m, &err) != SILL_OK) FAIL("%s on %s: %s", name, device, err.msg);
    return m;
}

static bool open_spies(rig *a, rig *b) {
    const size_t in = MAX_TOKENS * MAX_COLS * 4, out = MAX_TOKENS * MAX_OUTS * 4;
    sill_error err = {0};
    spy.metal = a->m->ops;
    spy.ref = b->m->ops;
    spy.metal_spy = *spy.metal;
    spy.metal_spy.begin = metal_begin;
    spy.metal_spy.linear = metal_linear;
    spy.metal_spy.qkv = metal_qkv;
    spy.metal_spy.head = metal_head;
    spy.ref_spy = *spy.ref;
    spy.ref_spy.begin = ref_begin;
    spy.ref_spy.linear = ref_linear;
    spy.ref_spy.qkv = ref_qkv;
    spy.ref_spy.head = ref_head;
    spy.a = a;
    spy.b = b;
    spy.ops = calloc(MAX_OPS, sizeof *spy.ops);
    bool ok = spy.metal->buf_create(a->m->device, in, &spy.identity_out, &err) == SILL_OK && spy.metal->buf_create(a->m->device, out, &spy.out, &err) == SILL_OK &&
              spy.ref->buf_create(b->m->device, in, &spy.ref_rows, &err) == SILL_OK && spy.ref->buf_create(b->m->device, out, &spy.ref_out, &err) == SILL_OK;
    CHECK_OK(err.code, err);
    return ok && spy.ops;
}

static void close_spies(void) {
    if (spy.identity) spy.metal->weight_free(spy.a->m->device, spy.identity);
    if (spy.identity_out) spy.metal->buf_free(spy.a->m->device, spy.identity_out);
    if (spy.out) spy.metal->buf_free(spy.a->m->device, spy.out);
    if (spy.ref_rows) spy.ref->buf_free(spy.b->m->device, spy.ref_rows);
    if (spy.ref_out) spy.ref->buf_free(spy.b->m->device, spy.ref_out);
    free(spy.ops);
    spy.a->m->ops = spy.metal;
    spy.b->m->ops = spy.ref;
    memset(&spy, 0, sizeof spy);
}

static void one_model(const char *name) {
    enum { N = 45 };
    sill_error err = {0};
    uint64_t seed = 77;
    rig a = {0}, b = {0};
    int32_t ids[N];
    sill_model *m = load(name, "metal"), *r = load(name, "ref");
    if (!m || !r || rig_open(&a, m, SILL__KV_F32, 64, &err) != SILL_OK || rig_open(&b, r, SILL__KV_F32, 64, &err) != SILL_OK) {
        FAIL("%s: %s", name, err.msg);
    } else if (open_spies(&a, &b)) {
        const sill__config *c = &m->config;
        const size_t width = (size_t)(c->n_labels ? c->n_labels : c->n_vocab);
        float *got = calloc(N * width, sizeof *got), *want = calloc(N * width, sizeof *want);
        rig_want in_a = c->n_labels ? (rig_want){.classes = got} : (rig_want){.logits = got};
        rig_want in_b = c->n_labels ? (rig_want){.classes = want} : (rig_want){.logits = want};
        for (int32_t i = 0; i < N; i++) ids[i] = (int32_t)(test_random(&seed) % (uint32_t)c->n_vocab);
        m->ops = &spy.metal_spy;
        r->ops = &spy.ref_spy;
        n_noted = ref_at = 0;
        noting = true;
        CHECK_OK(rig_step(&a, ids, N, 0, in_a, &err), err);
        noting = false;
        CHECK_OK(rig_step(&b, ids, N, 0, in_b, &err), err);
        r->ops = spy.ref;
        CHECK(n_noted == ref_at && spy.n_ops >= 4 * c->n_layers);
        spy.first_op = -1;
        spy.first_row = N;
        CHECK_OK(rig_step(&a, ids, N, 0, in_a, &err), err);
        CHECK_INT(spy.at, spy.n_ops);
        double before = 0, behind = 0;
        for (int32_t i = 0; i < N; i++) {
            const double d = rig_distance(got + (size_t)i * width, want + (size_t)i * width, width);
            if (i < spy.first_row) before = fmax(before, d);
            else behind = fmax(behind, d);
            if (!(d <= (i < spy.first_row ? 5e-5 : 8e-2))) FAIL("%s: row %d differs by %.3g; codes differ from row %d on", name, i, d, spy.first_row);
        }
        printf("  %s: %d products, worst %.2g; %d codes differ, the first in product %d within %.1e of a border, from row %d on; rows in front %.1g, behind %.2g\n",
               name, spy.n_ops, spy.worst, spy.n_tipped, spy.first_op, spy.farthest, spy.first_row, before, behind);
        free(got);
        free(want);
        close_spies();
    }
    rig_close(&a);
    rig_close(&b);
    sill_model_free(m);
    sill_model_free(r);
}

static void operation_by_operation(void) {
    static const char *const names[] = {"gpt2-one", "gpt2-bare", "gpt2-shards", "gpt2-padded", "gpt2-class", "gpt2-plain-gguf.gguf",
                                        "llama-gqa42", "llama-gqa93", "llama-linear", "llama-llama3", "llama-class"};
    NEEDS_FAKE();
    for (size_t i = 0; i < SILL_ARRAY_LEN(names); i++) one_model(names[i]);
}

int main(int argc, char **argv) {
    fake_open(argv[0]);
    if (fake.handle) fake.set("fast", 1);
    TEST(operation_by_operation);
    TEST_EXIT();
}
