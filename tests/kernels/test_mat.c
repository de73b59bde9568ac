/*
 * test_mat.c - packed matrix products of every instruction set that this machine runs: against products in double
 * and, bit for bit, against the arithmetic that mat.inc defines; the same bits for any number of rows and any split
 * of the panels. SILL_CPU_ISA names one instruction set to test alone.
 */
#include "mat_common.h"

enum { MAX_M = 65 };
static const int32_t row_counts[] = {1, 2, 3, 5, 7, 8, 13, 16, 17, 32, 65};

static bool skip_isa(const sill__cpu_isa *isa) {
    const char *only = getenv("SILL_CPU_ISA");
    return !isa->available() || (only && *only && strcmp(only, isa->name));
}

static bool fuses(const sill__cpu_isa *isa) { return strcmp(isa->name, "scalar") != 0; }
static float chain(bool fused, float a, float b, float c) { return fused ? fmaf(a, b, c) : a * b + c; }

/* The weights as the matrix holds them: (rows, cols) f32. */
static float *weights_of(const sill__weight_src *src, const sill__cpu_mat *mat) {
    size_t rows = (size_t)src->rows, cols = (size_t)src->cols;
    float *w = sill__alloc(rows * cols * 4);
    uint64_t row = 0;
    for (int i = 0; i < src->n_parts; i++) {
        const sill__tensor *t = src->parts[i];
        uint64_t n = src->transposed ? t->dims[1] : t->dims[0];
        for (uint64_t r = 0; r < n && row < rows; r++, row++) {
            if (!src->transposed)
                sill__dequant(t->type, t->data + r * sill__row_bytes(t->type, cols), w + row * cols, cols);
            else
                for (size_t k = 0; k < cols; k++)
                    sill__dequant(t->type, t->data + (k * n + r) * sill__type_get(t->type)->block_bytes,
                                  w + row * cols + k, 1);
        }
    }
    for (size_t i = 0; i < rows * cols; i++) {
        if (mat->form == SILL__FORM_F16) w[i] = sill__f16_to_f32(sill__f32_to_f16(w[i]));
        if (mat->form == SILL__FORM_BF16) w[i] = sill__bf16_to_f32(sill__f32_to_bf16(w[i]));
    }
    return w;
}

/* ---- float sums: the chain itself, and the error of the chain against double */

static void check_float_row(const char *what, const sill__cpu_mat *mat, bool fused, const float *w, const float *x,
                            const float *got) {
    for (int32_t j = 0; j < mat->rows; j++) {
        const float *wj = w + (size_t)j * (size_t)mat->cols;
        double sum = 0, size = 0;
        float emulated = 0;
        for (int32_t k = 0; k < mat->cols; k++) {
            float xk = mat->bf16_act ? sill__bf16_to_f32(sill__f32_to_bf16(x[k])) : x[k];
            sum += (double)wj[k] * xk;
            size += fabs((double)wj[k] * xk);
            emulated = chain(fused, wj[k], xk, emulated);
        }
        /* A chain of K additions, each off by half an ulp; the product too where it is rounded by itself. */
        double bound = (mat->cols + 3) * 0x1p-24 * (fused && !mat->bf16_act ? 1 : 2) * size + 1e-36;
        if (!(fabs(got[j] - sum) <= bound)) {
            FAIL("%s: output %d is %.9g, expected %.9g +- %.3g", what, j, got[j], sum, bound);
            return;
        }
        if (!mat->bf16_act && memcmp(&emulated, &got[j], 4)) {
            FAIL("%s: output %d is %a, the chain gives %a", what, j, got[j], emulated);
            return;
        }
    }
}

/* ---- int8: the arithmetic of mat_int8.inc, taken from the stored bytes */

static void check_int8_row(const char *what, const sill__weight_src *src, const sill__cpu_mat *mat, bool fused,
                           const float *x, const float *got) {
    const int32_t cols = mat->cols, block = (int32_t)sill__type_get(mat->stored)->block;
    const size_t block_bytes = sill__type_get(mat->stored)->block_bytes;
    int32_t *codes = sill__alloc((size_t)cols * 4);
    float *d = sill__alloc((size_t)cols / 32 * 4);
    sill__mat_block_info info;
    sill__mat_block_info_get(mat->stored, &info);
    for (int32_t g = 0; g < cols / 32; g++) {
        float amax = 0;
        for (int32_t i = 0; i < 32; i++) amax = fmaxf(amax, fabsf(x[g * 32 + i]));
        bool none = amax < 1e-30f;
        d[g] = none ? 0 : amax / 127.0f;
        for (int32_t i = 0; i < 32; i++)
            codes[g * 32 + i] = none ? 0 : (int32_t)rintf(x[g * 32 + i] * (127.0f / amax));
    }
    for (int32_t j = 0; j < mat->rows; j++) {
        float sum = 0;
        const uint8_t *row = src->parts[0]->data + (size_t)j * sill__row_bytes(mat->stored, (uint64_t)cols);
        for (int32_t k = 0; k < cols; k += mat->group) {
            sill__mat_block b;
            memset(&b, 0, sizeof b);
            sill__mat_block_read(mat->stored, row + (size_t)(k / block) * block_bytes, &b);
            int32_t dot = 0, n = 0, in = k % block, g = in / mat->group;
            for (int32_t i = 0; i < mat->group; i++) {
                int32_t c = mat->stored == SILL__TYPE_Q8_0 ? (int8_t)b.codes[in + i] : b.codes[in + i];
                dot += (c - info.zero) * codes[k + i];
                n += codes[k + i];
            }
            float scale = sill__f16_to_f32(b.scale), min = sill__f16_to_f32(b.min);
            if (block == 256) scale *= (float)b.steps[g], min *= (float)b.min_steps[g];
            sum = chain(fused, (float)dot, scale * d[k / 32], sum);
            if (info.has_min) sum = chain(fused, min, d[k / 32] * (float)n, sum);
        }
        if (memcmp(&sum, &got[j], 4)) {
            FAIL("%s: output %d is %a, the defined arithmetic gives %a", what, j, got[j], sum);
            break;
        }
    }
    sill__free(codes);
    sill__free(d);
}

/* ---- one matrix: values, then the same bits for every m and split, and nothing written elsewhere */

static const float UNTOUCHED = 12345.5f;

static void product(const sill__cpu_mat_kernels *k, const sill__cpu_mat *mat, const uint8_t *acts, int32_t m,
                    int32_t split, float *out, size_t ld) {
    for (size_t i = 0; i < (size_t)m * ld; i++) out[i] = UNTOUCHED;
    if (split > 0 && split < mat->n_panels) {
        k->matmul(mat, acts, m, split, mat->n_panels, out, ld);
        k->matmul(mat, acts, m, 0, split, out, ld);
    } else {
        k->matmul(mat, acts, m, 0, mat->n_panels, out, ld);
    }
}

static void check_matrix(const sill__cpu_isa *isa, const sill__weight_src *src, int32_t max_m, const float *x,
                         bool sample) {
    const sill__cpu_mat_kernels *k = isa->mat;
    sill__cpu_mat mat;
    char what[160];
    snprintf(what, sizeof what, "%s %s compute %d (%d, %d)%s", isa->name, sill__type_get(src->parts[0]->type)->name,
             (int)src->compute, (int)src->rows, (int)src->cols, src->transposed ? " transposed" : "");
    if (!packed(k, src, &mat)) {
        FAIL("%s: not planned", what);
        return;
    }
    CHECK(mat.bytes == mat.panel_bytes * (size_t)mat.n_panels && mat.panel_bytes % 64 == 0);
    const size_t ld = (size_t)mat.rows + 5, n = (size_t)max_m * ld;
    uint8_t *acts = prepared(k, &mat, x, max_m);
    float *all = sill__alloc(n * 4), *some = sill__alloc(n * 4);
    product(k, &mat, acts, max_m, 0, all, ld);
    const int32_t checked[] = {0, max_m / 2, max_m - 1};
    float *w = mat.int8_act ? NULL : weights_of(src, &mat);
    for (int i = sample ? 1 : 0; i < (sample ? 2 : 3); i++) {
        const float *xi = x + (size_t)checked[i] * (size_t)mat.cols, *got = all + (size_t)checked[i] * ld;
        if (mat.int8_act) check_int8_row(what, src, &mat, fuses(isa), xi, got);
        else check_float_row(what, &mat, fuses(isa), w, xi, got);
    }
    for (int32_t i = 0; i < max_m; i++)
        for (size_t j = (size_t)mat.rows; j < ld; j++)
            if (all[(size_t)i * ld + j] != UNTOUCHED) FAIL("%s: wrote beside row %d", what, i);
    for (size_t c = 0; c < SILL_ARRAY_LEN(row_counts); c++) {
        int32_t m = row_counts[c], from = m == 1 ? max_m - 1 : max_m - m;
        if (m > max_m) break;
        product(k, &mat, acts + (size_t)from * k->act_bytes(&mat), m, 1 + (int32_t)c % SILL_MAX(mat.n_panels - 1, 1),
                some, ld);
        if (memcmp(some, all + (size_t)from * ld, (size_t)m * ld * 4))
            FAIL("%s: %d rows from %d give other bits than %d rows", what, m, from, max_m);
    }
    sill__free(w);
    sill__free(all);
    sill__free(some);
    unprepare(k, &mat, acts, max_m);
    unpack(&mat);
}

static float *random_rows(int32_t m, uint64_t cols, uint64_t seed) {
    float *x = sill__alloc((size_t)m * cols * 4);
    uint64_t rng = seed;
    for (size_t i = 0; i < (size_t)m * cols; i++) x[i] = random_float(&rng) * (i % 7 ? 1.0f : 8.0f);
    return x;
}

static void check_shape(sill__type type, sill__compute compute, uint64_t rows, uint64_t cols, int32_t max_m,
                        bool sample) {
    sill__tensor t = random_tensor(type, rows, cols, rows * 131 + cols);
    float *x = random_rows(max_m, cols, rows + cols);
    sill__weight_src src = source_of(&t, compute);
    for (int i = 0; sill__cpu_isas[i]; i++)
        if (!skip_isa(sill__cpu_isas[i])) check_matrix(sill__cpu_isas[i], &src, max_m, x, sample);
    sill__free(x);
    sill__free((void *)(uintptr_t)t.data);
}

/* ---- tests */

static const uint64_t plain_shapes[][2] = {{1, 1},   {1, 64},  {5, 3},    {31, 33},   {32, 31},  {33, 47},   {47, 5},
                                           {64, 65}, {65, 127}, {127, 64}, {97, 1031}, {2, 768}, {200, 513}};

static void plain_compute(sill__compute compute) {
    const sill__type types[] = {SILL__TYPE_F32, SILL__TYPE_F16, SILL__TYPE_BF16};
    for (size_t t = 0; t < SILL_ARRAY_LEN(types); t++)
        for (size_t s = 0; s < SILL_ARRAY_LEN(plain_shapes); s++)
            check_shape(types[t], compute, plain_shapes[s][0], plain_shapes[s][1], MAX_M, false);
}

static void test_plain_f32(void) { plain_compute(SILL__COMPUTE_F32); }
static void test_plain_f16(void) { plain_compute(SILL__COMPUTE_F16); }
static void test_plain_bf16(void) { plain_compute(SILL__COMPUTE_BF16); }

static void blocks_compute(sill__compute compute) {
    const uint64_t shapes[][2] = {{1, 1}, {5, 3}, {31, 1}, {33, 2}, {47, 3}, {65, 1}, {127, 2}, {64, 5}};
    for (size_t t = 3; t < SILL_ARRAY_LEN(all_types); t++)
        for (size_t s = 0; s < SILL_ARRAY_LEN(shapes); s++) {
            uint64_t block = sill__type_get(all_types[t])->block;
            check_shape(all_types[t], compute, shapes[s][0], shapes[s][1] * SILL_MAX(block, block == 32 && s % 2 ? 96 : 0),
                        MAX_M, false);
        }
}

static void test_blocks_int8(void) { blocks_compute(SILL__COMPUTE_BLOCK_I8); }
static void test_blocks_f32(void) { blocks_compute(SILL__COMPUTE_F32); }
static void test_blocks_to_float(void) {
    for (size_t t = 3; t < SILL_ARRAY_LEN(all_types); t++) {
        check_shape(all_types[t], SILL__COMPUTE_F16, 37, 512, 13, false);
        check_shape(all_types[t], SILL__COMPUTE_BF16, 37, 512, 13, false);
    }
}

/* Long chains and many outputs. */
static void test_large(void) {
    const sill__type plain[] = {SILL__TYPE_F32, SILL__TYPE_F16, SILL__TYPE_BF16};
    for (size_t t = 0; t < SILL_ARRAY_LEN(plain); t++) {
        check_shape(plain[t], SILL__COMPUTE_F32, 33, 32767, 13, true);
        check_shape(plain[t], SILL__COMPUTE_F32, 50257, 7, 3, true);
        check_shape(plain[t], SILL__COMPUTE_BF16, 3, 32768, 17, true);
    }
    check_shape(SILL__TYPE_Q8_0, SILL__COMPUTE_BLOCK_I8, 33, 32768, 13, true);
    check_shape(SILL__TYPE_Q4_1, SILL__COMPUTE_BLOCK_I8, 33, 32768, 13, true);
    check_shape(SILL__TYPE_Q6_K, SILL__COMPUTE_F32, 33, 32768, 13, true);
    check_shape(SILL__TYPE_Q4_0, SILL__COMPUTE_BLOCK_I8, 50257, 32, 3, true);
    check_shape(SILL__TYPE_Q5_1, SILL__COMPUTE_F32, 32767, 32, 3, true);
}

/* GPT-2's Conv1D orientation, stacked parts, and fewer rows than stored. */
static void test_sources(void) {
    const sill__type types[] = {SILL__TYPE_F32, SILL__TYPE_F16, SILL__TYPE_BF16, SILL__TYPE_Q8_0, SILL__TYPE_Q4_K};
    const sill__compute computes[] = {SILL__COMPUTE_F32, SILL__COMPUTE_F16, SILL__COMPUTE_BF16, SILL__COMPUTE_BLOCK_I8};
    for (size_t i = 0; i < SILL_ARRAY_LEN(types) * SILL_ARRAY_LEN(computes) * 2; i++) {
        sill__type type = types[i / 8];
        bool plain = is_plain(type), transposed = i & 1;
        sill__compute compute = computes[i / 2 % 4];
        if ((transposed && !plain) || (plain && compute == SILL__COMPUTE_BLOCK_I8)) continue;
        uint64_t cols = plain ? 75 : 256, parts[] = {50, 7, 1, 61}, total = 119;
        if (compute == SILL__COMPUTE_BLOCK_I8) total = 50; /* the emulation reads one part */
        sill__tensor t[4];
        sill__weight_src src = {.n_parts = 4, .transposed = transposed, .rows = total, .cols = cols,
                                .compute = compute, .name = "parts"};
        for (int p = 0; p < 4; p++) {
            t[p] = transposed ? random_tensor(type, cols, parts[p], 9 + (uint64_t)p)
                              : random_tensor(type, parts[p], cols, 9 + (uint64_t)p);
            src.parts[p] = &t[p];
        }
        float *x = random_rows(17, cols, i);
        for (int a = 0; sill__cpu_isas[a]; a++)
            if (!skip_isa(sill__cpu_isas[a])) check_matrix(sill__cpu_isas[a], &src, 17, x, false);
        sill__free(x);
        for (int p = 0; p < 4; p++) sill__free((void *)(uintptr_t)t[p].data);
    }
}

/* Codes and activations at their ends, of one sign or alternating: nothing may saturate. */
static void test_extreme_codes(void) {
    const uint8_t fills[][2] = {{0x80, 0x80}, {0x7f, 0x7f}, {0x80, 0x7f}, {0xff, 0xff}, {0x00, 0xff}, {0x81, 0x80}};
    for (size_t t = 3; t < SILL_ARRAY_LEN(all_types); t++)
        for (size_t f = 0; f < SILL_ARRAY_LEN(fills) * 3; f++) {
            const sill__type type = all_types[t];
            const uint64_t cols = 512, rows = 35;
            sill__tensor w = random_tensor(type, rows, cols, 1);
            uint8_t *bytes = (uint8_t *)(uintptr_t)w.data;
            size_t step = sill__type_get(type)->block_bytes;
            for (size_t i = 0; i < w.bytes; i++) bytes[i] = fills[f / 3][i & 1];
            for (size_t at = 0; at < w.bytes; at += step) {
                uint16_t h = sill__f32_to_f16(0.37f);
                memcpy(bytes + at + factor_offset(type), &h, 2);
                if (has_second_factor(type)) memcpy(bytes + at + factor_offset(type) + 2, &h, 2);
            }
            float x[13 * 512];
            for (size_t i = 0; i < SILL_ARRAY_LEN(x); i++) x[i] = f % 3 == 0 ? 3.0f : f % 3 == 1 ? -3.0f : i & 1 ? 3.0f : -3.0f;
            sill__weight_src src = source_of(&w, SILL__COMPUTE_BLOCK_I8);
            for (int a = 0; sill__cpu_isas[a]; a++)
                if (!skip_isa(sill__cpu_isas[a])) check_matrix(sill__cpu_isas[a], &src, 13, x, false);
            sill__free(bytes);
        }
}

/* Activations out of the ordinary: tiny ones count as zero, what is not finite stays in its row. */
static void test_odd_activations(void) {
    sill__tensor w = random_tensor(SILL__TYPE_Q4_0, 40, 64, 3);
    sill__weight_src src = source_of(&w, SILL__COMPUTE_BLOCK_I8);
    for (int a = 0; sill__cpu_isas[a]; a++) {
        if (skip_isa(sill__cpu_isas[a])) continue;
        const sill__cpu_mat_kernels *k = sill__cpu_isas[a]->mat;
        sill__cpu_mat mat;
        REQUIRE(packed(k, &src, &mat));
        float x[4 * 64], out[4 * 40], alone[40];
        for (int i = 0; i < 64; i++) {
            x[i] = (float)(i - 30);
            x[64 + i] = i == 40 ? NAN : 1.0f;
            x[128 + i] = i == 3 ? -INFINITY : 1.0f;
            x[192 + i] = 1e-38f;
        }
        uint8_t *acts = prepared(k, &mat, x, 4);
        k->matmul(&mat, acts, 4, 0, mat.n_panels, out, 40);
        k->matmul(&mat, acts, 1, 0, mat.n_panels, alone, 40);
        CHECK(!memcmp(out, alone, sizeof alone));
        for (int j = 0; j < 40; j++) {
            CHECK(isfinite(out[j]));
            CHECK(isnan(out[40 + j]));
            CHECK(isnan(out[80 + j]));
            CHECK(out[120 + j] == 0.0f);
        }
        unprepare(k, &mat, acts, 4);
        unpack(&mat);
    }
    sill__free((void *)(uintptr_t)w.data);
}

static void test_refusals(void) {
    sill__tensor f32 = {.name = "a", .type = SILL__TYPE_F32, .n_dims = 2, .dims = {8, 64}};
    sill__tensor q8 = {.name = "b", .type = SILL__TYPE_Q8_0, .n_dims = 2, .dims = {8, 64}};
    sill__tensor i64 = {.name = "c", .type = SILL__TYPE_I64, .n_dims = 2, .dims = {8, 64}};
    for (int a = 0; sill__cpu_isas[a]; a++) {
        const sill__cpu_mat_kernels *k = sill__cpu_isas[a]->mat;
        sill__cpu_mat mat;
        sill_error err;
        sill__weight_src src = source_of(&f32, SILL__COMPUTE_BLOCK_I8);
        CHECK_INT(k->plan(&src, &mat, &err), SILL_EUNSUPPORTED);
        src = source_of(&i64, SILL__COMPUTE_F32);
        CHECK_INT(k->plan(&src, &mat, &err), SILL_EUNSUPPORTED);
        src = source_of(&f32, SILL__COMPUTE_F32);
        src.parts[1] = &q8, src.n_parts = 2;
        CHECK_INT(k->plan(&src, &mat, &err), SILL_EUNSUPPORTED);
        src = source_of(&f32, SILL__COMPUTE_F32);
        src.rows = 9;
        CHECK_INT(k->plan(&src, &mat, &err), SILL_EFORMAT);
        src.rows = 8, src.cols = 63;
        CHECK_INT(k->plan(&src, &mat, &err), SILL_EFORMAT);
        src.cols = 64, src.rows = 0;
        CHECK_INT(k->plan(&src, &mat, &err), SILL_ERANGE);
        src = source_of(&q8, SILL__COMPUTE_F32);
        src.transposed = true, src.rows = 64, src.cols = 8;
        CHECK_INT(k->plan(&src, &mat, &err), SILL_EFORMAT);
    }
}

int main(int argc, char **argv) {
    TEST(test_plain_f32);
    TEST(test_plain_f16);
    TEST(test_plain_bf16);
    TEST(test_blocks_int8);
    TEST(test_blocks_f32);
    TEST(test_blocks_to_float);
    TEST(test_large);
    TEST(test_sources);
    TEST(test_extreme_codes);
    TEST(test_odd_activations);
    TEST(test_refusals);
    TEST_EXIT();
}
