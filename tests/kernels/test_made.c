/*
 * test_made.c - weights quantized while they are packed: the same bytes as from a stored block type, on every instruction
 * set; and LLM.int8 (mat_row8.inc), bit for bit against the arithmetic that it defines, with extreme codes, the longest
 * sum, outliers, and rows that are not finite; the same bits for any number of rows.
 */
#include "mat_common.h"

static bool skip_isa(const sill__cpu_isa *isa) {
    const char *only = getenv("SILL_CPU_ISA");
    return !isa->available() || (only && *only && strcmp(only, isa->name));
}

static float chain(const sill__cpu_isa *isa, float a, float b, float c) {
    return strcmp(isa->name, "scalar") ? fmaf(a, b, c) : a * b + c;
}

/* All parts one above the other, as f32 (rows, cols). */
static float *values_of(const sill__weight_src *src) {
    const size_t rows = (size_t)src->rows, cols = (size_t)src->cols;
    float *w = sill__alloc(rows * cols * 4);
    size_t row = 0;
    for (int i = 0; i < src->n_parts; i++) {
        const sill__tensor *t = src->parts[i];
        const size_t n = (size_t)(src->transposed ? t->dims[1] : t->dims[0]), width = sill__row_bytes(t->type, 1);
        for (size_t r = 0; r < n && row < rows; r++, row++)
            for (size_t k = 0; k < cols; k++)
                sill__dequant(t->type, t->data + (src->transposed ? k * n + r : r * cols + k) * width, w + row * cols + k, 1);
    }
    return w;
}

/* ---- blocks */

static const sill__type made_types[] = {SILL__TYPE_Q8_0, SILL__TYPE_Q4_0, SILL__TYPE_Q4_1};

static void check_made(const sill__weight_src *src) {
    float *w = values_of(src);
    for (size_t t = 0; t < SILL_ARRAY_LEN(made_types); t++) {
        sill__tensor stored = {.name = "stored", .type = made_types[t], .n_dims = 2, .dims = {src->rows, src->cols}};
        stored.bytes = (size_t)src->rows * sill__row_bytes(stored.type, src->cols);
        uint8_t *bytes = sill__alloc(stored.bytes);
        sill__quantize(stored.type, w, bytes, (size_t)(src->rows * src->cols));
        stored.data = bytes;
        sill__weight_src made = *src, as_stored = source_of(&stored, SILL__COMPUTE_BLOCK_I8);
        made.compute = SILL__COMPUTE_BLOCK_I8;
        made.as = stored.type;
        for (int i = 0; sill__cpu_isas[i]; i++) {
            sill__cpu_mat a, b;
            if (skip_isa(sill__cpu_isas[i])) continue;
            REQUIRE(packed(sill__cpu_isas[i]->mat, &made, &a) && packed(sill__cpu_isas[i]->mat, &as_stored, &b));
            CHECK(a.form == b.form && a.bytes == b.bytes && a.stored == b.stored && a.has_min == b.has_min && a.zero == b.zero);
            if (a.bytes == b.bytes && memcmp(a.data, b.data, a.bytes))
                FAIL("%s: %s made of %s (%llu, %llu)%s packs to other bytes than the stored one", sill__cpu_isas[i]->name,
                     sill__type_get(stored.type)->name, sill__type_get(src->parts[0]->type)->name,
                     (unsigned long long)src->rows, (unsigned long long)src->cols, src->transposed ? " transposed" : "");
            unpack(&a);
            unpack(&b);
        }
        sill__free(bytes);
    }
    sill__free(w);
}

static void test_made_blocks(void) {
    const sill__type types[] = {SILL__TYPE_F32, SILL__TYPE_F16, SILL__TYPE_BF16};
    const uint64_t shapes[][2] = {{1, 32}, {33, 64}, {47, 96}, {64, 256}, {95, 160}};
    for (size_t i = 0; i < SILL_ARRAY_LEN(types) * SILL_ARRAY_LEN(shapes) * 2; i++) {
        const uint64_t *s = shapes[i / 2 % SILL_ARRAY_LEN(shapes)];
        const bool transposed = i & 1;
        const sill__type type = types[i / (2 * SILL_ARRAY_LEN(shapes))];
        sill__tensor t = transposed ? random_tensor(type, s[1], s[0], i) : random_tensor(type, s[0], s[1], i);
        sill__weight_src src = source_of(&t, SILL__COMPUTE_BLOCK_I8);
        src.transposed = transposed, src.rows = s[0], src.cols = s[1];
        check_made(&src);
        sill__free((void *)(uintptr_t)t.data);
    }
}

static void test_made_parts(void) {
    for (int transposed = 0; transposed < 2; transposed++) {
        const uint64_t parts[] = {50, 7, 1, 61};
        sill__tensor t[4];
        sill__weight_src src = {.n_parts = 4, .transposed = transposed, .rows = 117, .cols = 96, .name = "parts"};
        for (int p = 0; p < 4; p++) {
            t[p] = transposed ? random_tensor(SILL__TYPE_BF16, 96, parts[p], (uint64_t)p + 5)
                              : random_tensor(SILL__TYPE_BF16, parts[p], 96, (uint64_t)p + 5);
            src.parts[p] = &t[p];
        }
        check_made(&src);
        for (int p = 0; p < 4; p++) sill__free((void *)(uintptr_t)t[p].data);
    }
}

/* Groups out of the ordinary: zeros, one value, halves, ends of both signs, the huge, the tiny, what is not finite. */
static void test_made_odd(void) {
    enum { ROWS = 40, COLS = 64 };
    float w[ROWS * COLS];
    uint64_t rng = 11;
    for (int r = 0; r < ROWS; r++)
        for (int k = 0; k < COLS; k++) {
            const float any = random_float(&rng), kinds[] = {
                0.0f, -0.0f, k == 9 ? 1.0f : 0.0f, (float)(k - 31) / 2, (float)(k % 32) * 8.5f - 127.0f, k & 1 ? 1.0f : -1.0f,
                any * 1e-38f, any * 1e-44f, any * 3e38f, any * 1e37f, k == 40 ? NAN : any, k == 3 ? INFINITY : any,
                k == 35 ? -INFINITY : any, fabsf(any), -fabsf(any), k % 32 ? fabsf(any) : 0.0f, k % 32 ? any : -2.0f,
                k == 7 ? 65504.0f * 127 : any, any * 1e-7f, 0.25f};
            w[r * COLS + k] = kinds[r % (int)SILL_ARRAY_LEN(kinds)];
        }
    sill__tensor t = {.name = "odd", .type = SILL__TYPE_F32, .n_dims = 2, .dims = {ROWS, COLS}, .data = (uint8_t *)w, .bytes = sizeof w};
    sill__weight_src src = source_of(&t, SILL__COMPUTE_BLOCK_I8);
    check_made(&src);
}

/* ---- LLM.int8 */

/* The defined arithmetic for one row of x against all outputs. */
static void int8_row(const sill__cpu_isa *isa, const float *w, int32_t rows, int32_t cols, const float *x, float *want) {
    float amax = 0;
    for (int32_t k = 0; k < cols; k++)
        if (fabsf(x[k]) < 6.0f) amax = fmaxf(amax, fabsf(x[k]));
    const float d = amax < 1e-30f ? 0 : amax / 127.0f, inverse = amax < 1e-30f ? 0 : 127.0f / amax;
    for (int32_t j = 0; j < rows; j++) {
        const float *wj = w + (size_t)j * (size_t)cols;
        float most = 0;
        bool finite = true;
        for (int32_t k = 0; k < cols; k++) most = fmaxf(most, fabsf(wj[k])), finite = finite && isfinite(wj[k]);
        const float scale = !finite ? NAN : most < 1e-30f ? 0 : most / 127.0f, wi = finite && most >= 1e-30f ? 127.0f / most : 0;
        int64_t dot = 0;
        for (int32_t k = 0; k < cols; k++)
            if (fabsf(x[k]) < 6.0f && wi > 0) dot += (int64_t)rintf(wj[k] * wi) * (int64_t)rintf(x[k] * inverse);
        if (dot > INT32_MAX || dot < INT32_MIN) FAIL("a sum of %lld", (long long)dot);
        float sum = (float)(int32_t)dot * d;
        for (int32_t k = 0; k < cols; k++)
            if (!(fabsf(x[k]) < 6.0f))
                sum = chain(isa, sill__f16_to_f32(sill__f32_to_f16(x[k])), wi > 0 ? rintf(wj[k] * wi) : 0, sum);
        want[j] = sum * scale;
    }
}

static bool same(float a, float b) { return (isnan(a) && isnan(b)) || !memcmp(&a, &b, 4); }

static void check_int8(const sill__weight_src *src, const float *x, int32_t m) {
    const int32_t row_counts[] = {1, 2, 3, 4, 5, 7, 12, 13, 25};
    const int32_t rows = (int32_t)src->rows, cols = (int32_t)src->cols;
    float *w = values_of(src), *want = sill__alloc((size_t)rows * 4);
    const size_t ld = (size_t)rows + 3;
    float *all = sill__alloc((size_t)m * ld * 4), *some = sill__alloc((size_t)m * ld * 4);
    for (int a = 0; sill__cpu_isas[a]; a++) {
        const sill__cpu_isa *isa = sill__cpu_isas[a];
        sill__cpu_mat mat;
        if (skip_isa(isa)) continue;
        REQUIRE(packed(isa->mat, src, &mat));
        CHECK(mat.bytes == mat.panel_bytes * (size_t)mat.n_panels && mat.panel_bytes % 64 == 0);
        uint8_t *acts = prepared(isa->mat, &mat, x, m);
        for (size_t i = 0; i < (size_t)m * ld; i++) all[i] = some[i] = 77.0f;
        isa->mat->matmul(&mat, acts, m, 0, mat.n_panels, all, ld);
        for (int32_t i = 0; i < m; i++) {
            int8_row(isa, w, rows, cols, x + (size_t)i * (size_t)cols, want);
            for (int32_t j = 0; j < rows; j++)
                if (!same(all[(size_t)i * ld + (size_t)j], want[j])) {
                    FAIL("%s (%d, %d): row %d, output %d is %a, the defined arithmetic gives %a", isa->name, rows, cols, i, j,
                         (double)all[(size_t)i * ld + (size_t)j], (double)want[j]);
                    break;
                }
            for (size_t j = (size_t)rows; j < ld; j++)
                if (all[(size_t)i * ld + j] != 77.0f) FAIL("%s: wrote beside row %d", isa->name, i);
        }
        for (size_t c = 0; c < SILL_ARRAY_LEN(row_counts) && row_counts[c] <= m; c++) {
            const int32_t n = row_counts[c], from = m - n;
            isa->mat->matmul(&mat, acts + (size_t)from * isa->mat->act_bytes(&mat), n, 0, mat.n_panels, some, ld);
            bool equal = true; /* of a NaN, which of its operands' bits it has is the compiler's choice */
            for (size_t k = 0; k < (size_t)n * ld; k++) equal = equal && same(some[k], all[(size_t)from * ld + k]);
            if (!equal) FAIL("%s: %d rows give other bits than %d", isa->name, n, m);
        }
        unprepare(isa->mat, &mat, acts, m);
        unpack(&mat);
    }
    sill__free(w);
    sill__free(want);
    sill__free(all);
    sill__free(some);
}

static float *rows_with_outliers(int32_t m, uint64_t cols, uint64_t seed) {
    float *x = sill__alloc((size_t)m * cols * 4);
    uint64_t rng = seed;
    for (size_t i = 0; i < (size_t)m * cols; i++) {
        x[i] = random_float(&rng) * 5.9f;
        if (test_random(&rng) % 37 == 0 && i / cols % 4) x[i] *= 20;
    }
    return x;
}

static void test_int8(void) {
    const sill__type types[] = {SILL__TYPE_F32, SILL__TYPE_F16, SILL__TYPE_BF16};
    const uint64_t shapes[][2] = {{1, 1}, {5, 3}, {31, 33}, {33, 64}, {47, 100}, {64, 257}, {127, 65}, {35, 1031}};
    for (size_t i = 0; i < SILL_ARRAY_LEN(types) * SILL_ARRAY_LEN(shapes) * 2; i++) {
        const uint64_t *s = shapes[i / 2 % SILL_ARRAY_LEN(shapes)];
        const bool transposed = i & 1;
        const sill__type type = types[i / (2 * SILL_ARRAY_LEN(shapes))];
        sill__tensor t = transposed ? random_tensor(type, s[1], s[0], i) : random_tensor(type, s[0], s[1], i);
        float *x = rows_with_outliers(25, s[1], i);
        sill__weight_src src = source_of(&t, SILL__COMPUTE_INT8);
        src.transposed = transposed, src.rows = s[0], src.cols = s[1];
        check_int8(&src, x, 25);
        sill__free(x);
        sill__free((void *)(uintptr_t)t.data);
    }
}

/* All codes at their ends over the longest sum that is taken. */
static void test_int8_extremes(void) {
    const uint64_t cols = SILL__INT8_MAX_COLS;
    float *w = sill__alloc(cols * 3 * 4), *x = sill__alloc(cols * 3 * 4);
    for (uint64_t k = 0; k < cols; k++)
        for (uint64_t j = 0; j < 3; j++) {
            w[j * cols + k] = j == 0 ? 1.0f : j == 1 ? -1.0f : k & 1 ? 1.0f : -1.0f;
            x[j * cols + k] = j == 0 ? 5.5f : j == 1 ? -5.5f : k & 1 ? 5.5f : -5.5f;
        }
    sill__tensor t = {.name = "ends", .type = SILL__TYPE_F32, .n_dims = 2, .dims = {3, cols}, .data = (uint8_t *)w,
                      .bytes = (size_t)cols * 12};
    sill__weight_src src = source_of(&t, SILL__COMPUTE_INT8);
    check_int8(&src, x, 3);
    t.dims[1] = src.cols = cols + 1, t.dims[0] = src.rows = 2;
    for (int a = 0; sill__cpu_isas[a]; a++) {
        sill__cpu_mat mat;
        sill_error err;
        CHECK_INT(sill__cpu_isas[a]->mat->plan(&src, &mat, &err), SILL_EUNSUPPORTED);
        CHECK(strstr(err.msg, "131072") != NULL);
    }
    sill__free(w);
    sill__free(x);
}

/* At the threshold; outliers only; a zero row; what is not finite stays in its row, weights and activations alike. */
static void test_int8_odd(void) {
    enum { COLS = 70, M = 10 };
    sill__tensor t = random_tensor(SILL__TYPE_F32, 37, COLS, 3);
    float x[M * COLS] = {0}, *w = (float *)(uintptr_t)t.data;
    for (int k = 0; k < COLS; k++) {
        const float v = (float)(k - 35) / 10;
        x[k] = k == 69 ? 6.0f : v;
        x[COLS + k] = k == 69 ? nextafterf(6.0f, 0.0f) : v;
        x[2 * COLS + k] = k & 1 ? -6.0f : 100.0f + (float)k;
        x[4 * COLS + k] = k == 40 ? NAN : v;
        x[5 * COLS + k] = k == 3 ? -INFINITY : v;
        x[6 * COLS + k] = k == 66 ? 1e6f : v; /* beyond f16 */
        x[7 * COLS + k] = 1e-38f;
        x[8 * COLS + k] = v;
        x[9 * COLS + k] = k == 5 ? -65504.0f : v;
    }
    for (int k = 0; k < COLS; k++) w[5 * COLS + k] = 0, w[7 * COLS + k] *= 1e-36f;
    w[9 * COLS + 68] = NAN;
    w[11 * COLS + 1] = INFINITY;
    sill__weight_src src = source_of(&t, SILL__COMPUTE_INT8);
    check_int8(&src, x, M);
    for (int a = 0; sill__cpu_isas[a]; a++) {
        sill__cpu_mat mat;
        float out[M * 37];
        if (skip_isa(sill__cpu_isas[a])) continue;
        REQUIRE(packed(sill__cpu_isas[a]->mat, &src, &mat));
        uint8_t *acts = prepared(sill__cpu_isas[a]->mat, &mat, x, M);
        sill__cpu_isas[a]->mat->matmul(&mat, acts, M, 0, mat.n_panels, out, 37);
        for (int i = 0; i < M; i++)
            for (int j = 0; j < 37; j++)
                if (isfinite(out[i * 37 + j]) != (i < 4 || i > 6) && j != 5 && j != 9 && j != 11)
                    FAIL("%s: row %d, output %d is %g", sill__cpu_isas[a]->name, i, j, (double)out[i * 37 + j]);
                else if ((j == 9 || j == 11) && !isnan(out[i * 37 + j]))
                    FAIL("%s: row %d of weights that are not finite gives %g", sill__cpu_isas[a]->name, i, (double)out[i * 37 + j]);
        unprepare(sill__cpu_isas[a]->mat, &mat, acts, M);
        unpack(&mat);
    }
    sill__free((void *)(uintptr_t)t.data);
}

/* The products of tools/fixtures/make_int8.py, which it compares with bitsandbytes. */
static void test_int8_defined(void) {
    enum { MOST = 1 << 15 };
    static uint8_t bytes[MOST];
    FILE *f = fopen("tests/fixtures/kernels/int8.bin", "rb");
    REQUIRE(f);
    size_t n = fread(bytes, 1, MOST, f);
    fclose(f);
    int32_t shape[3];
    memcpy(shape, bytes, sizeof shape);
    const size_t rows = (size_t)shape[0], cols = (size_t)shape[1], m = (size_t)shape[2], at = 12 + rows * cols * 4;
    REQUIRE(n == at + m * cols * 4 + m * rows * 8);
    sill__tensor t = {.name = "w", .type = SILL__TYPE_F32, .n_dims = 2, .dims = {rows, cols}, .data = bytes + 12,
                      .bytes = rows * cols * 4};
    sill__weight_src src = source_of(&t, SILL__COMPUTE_INT8);
    for (int a = 0; sill__cpu_isas[a]; a++) {
        const sill__cpu_mat_kernels *k = sill__cpu_isas[a]->mat;
        sill__cpu_mat mat;
        float x[1024], out[1024];
        if (skip_isa(sill__cpu_isas[a])) continue;
        REQUIRE(m * cols <= 1024 && m * rows <= 1024 && packed(k, &src, &mat));
        memcpy(x, bytes + at, m * cols * 4);
        uint8_t *acts = prepared(k, &mat, x, (int32_t)m);
        k->matmul(&mat, acts, (int32_t)m, 0, mat.n_panels, out, rows);
        double off = 0, all = 0;
        for (size_t i = 0; i < m * rows; i++) {
            double want;
            memcpy(&want, bytes + at + m * cols * 4 + i * 8, 8);
            off = fmax(off, fabs(out[i] - want)), all = fmax(all, fabs(want));
        }
        if (!(off <= 2e-6 * all)) FAIL("%s: off by %.3g of %.3g", sill__cpu_isas[a]->name, off, all);
        unprepare(k, &mat, acts, (int32_t)m);
        unpack(&mat);
    }
}

static void test_refused(void) {
    sill__tensor f32 = {.name = "a", .type = SILL__TYPE_F32, .n_dims = 2, .dims = {8, 64}};
    sill__tensor q8 = {.name = "b", .type = SILL__TYPE_Q8_0, .n_dims = 2, .dims = {8, 64}};
    for (int a = 0; sill__cpu_isas[a]; a++) {
        const sill__cpu_mat_kernels *k = sill__cpu_isas[a]->mat;
        sill__cpu_mat mat;
        sill_error err;
        sill__weight_src src = source_of(&f32, SILL__COMPUTE_BLOCK_I8);
        src.as = SILL__TYPE_Q6_K;
        CHECK_INT(k->plan(&src, &mat, &err), SILL_EUNSUPPORTED);
        src.as = SILL__TYPE_Q8_0, f32.dims[1] = src.cols = 48;
        CHECK_INT(k->plan(&src, &mat, &err), SILL_EFORMAT);
        f32.dims[1] = 64;
        src = source_of(&q8, SILL__COMPUTE_INT8);
        CHECK_INT(k->plan(&src, &mat, &err), SILL_EUNSUPPORTED);
        /* stored blocks stay what they are */
        src = source_of(&q8, SILL__COMPUTE_BLOCK_I8);
        src.as = SILL__TYPE_Q4_0;
        CHECK_INT(k->plan(&src, &mat, &err), SILL_OK);
        CHECK_INT(mat.stored, SILL__TYPE_Q8_0);
    }
}

int main(int argc, char **argv) {
    TEST(test_made_blocks);
    TEST(test_made_parts);
    TEST(test_made_odd);
    TEST(test_int8);
    TEST(test_int8_extremes);
    TEST(test_int8_odd);
    TEST(test_int8_defined);
    TEST(test_refused);
    TEST_EXIT();
}
