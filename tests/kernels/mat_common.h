/*
 * mat_common.h - random weights of every stored type, and packing, for the tests of packed matrices.
 */
#ifndef SILL_TEST_MAT_COMMON_H
#define SILL_TEST_MAT_COMMON_H

#include "backend/cpu/mat.h"
#include "test.h"

static const sill__type all_types[] = {SILL__TYPE_F32,  SILL__TYPE_F16,  SILL__TYPE_BF16, SILL__TYPE_Q8_0,
                                       SILL__TYPE_Q4_0, SILL__TYPE_Q4_1, SILL__TYPE_Q5_0, SILL__TYPE_Q5_1,
                                       SILL__TYPE_Q4_K, SILL__TYPE_Q5_K, SILL__TYPE_Q6_K};

static float random_float(uint64_t *rng) { return (float)((double)test_random(rng) / 2147483648.0 - 1.0); }

static bool is_plain(sill__type t) { return sill__type_get(t)->block == 1; }

/* Where a block of the type holds its one or two f16 factors. */
static int factor_offset(sill__type t) { return t == SILL__TYPE_Q6_K ? 208 : 0; }
static bool has_second_factor(sill__type t) {
    return t == SILL__TYPE_Q4_1 || t == SILL__TYPE_Q5_1 || t == SILL__TYPE_Q4_K || t == SILL__TYPE_Q5_K;
}

/* A tensor of random weights; blocks are random bytes with small random factors. Free data with sill__free. */
static sill__tensor random_tensor(sill__type type, uint64_t d0, uint64_t d1, uint64_t seed) {
    uint64_t rng = seed * 0x9e3779b97f4a7c15u + (uint64_t)type;
    sill__tensor t = {.name = "w", .type = type, .n_dims = 2, .dims = {d0, d1}};
    t.bytes = d0 * sill__row_bytes(type, d1);
    uint8_t *p = sill__alloc(t.bytes);
    t.data = p;
    if (is_plain(type)) {
        for (uint64_t i = 0; i < d0 * d1; i++) {
            float f = random_float(&rng);
            uint16_t h = type == SILL__TYPE_F16 ? sill__f32_to_f16(f) : sill__f32_to_bf16(f);
            if (type == SILL__TYPE_F32) memcpy(p + 4 * i, &f, 4);
            else memcpy(p + 2 * i, &h, 2);
        }
        return t;
    }
    for (size_t i = 0; i < t.bytes; i++) p[i] = (uint8_t)(test_random(&rng) >> 7);
    size_t step = sill__type_get(type)->block_bytes;
    for (size_t at = 0; at < t.bytes; at += step) {
        uint16_t h = sill__f32_to_f16(random_float(&rng) * 0.05f);
        memcpy(p + at + factor_offset(type), &h, 2);
        h = sill__f32_to_f16(random_float(&rng) * 0.05f);
        if (has_second_factor(type)) memcpy(p + at + factor_offset(type) + 2, &h, 2);
    }
    return t;
}

static sill__weight_src source_of(const sill__tensor *t, sill__compute compute) {
    return (sill__weight_src){.parts = {t}, .n_parts = 1, .rows = t->dims[0], .cols = t->dims[1],
                              .compute = compute, .name = "w"};
}

/* Plans and packs in uneven ranges of panels; checks that nothing is written outside. */
static bool packed(const sill__cpu_mat_kernels *k, const sill__weight_src *src, sill__cpu_mat *mat) {
    sill_error err;
    if (k->plan(src, mat, &err) != SILL_OK) return false;
    mat->data = sill__alloc_pages(mat->bytes + 64);
    memset(mat->data, 0xa5, mat->bytes + 64);
    for (int32_t p = mat->n_panels, n = 1; p > 0; p -= n, n = n % 3 + 1) {
        n = SILL_MIN(n, p);
        k->pack(src, mat, p - n, p);
    }
    for (int i = 0; i < 64; i++)
        if (mat->data[mat->bytes + (size_t)i] != 0xa5) {
            FAIL("pack wrote behind the matrix");
            break;
        }
    return true;
}
static void unpack(sill__cpu_mat *mat) { sill__free_pages(mat->data, mat->bytes + 64); }

/* Prepared rows of x (m, cols). */
static uint8_t *prepared(const sill__cpu_mat_kernels *k, const sill__cpu_mat *mat, const float *x, int32_t m) {
    size_t step = k->act_bytes(mat);
    uint8_t *acts = sill__alloc_pages(step * (size_t)m + 64);
    memset(acts, 0x5a, step * (size_t)m + 64);
    for (int32_t i = 0; i < m; i++) k->act_prepare(mat, x + (size_t)i * (size_t)mat->cols, acts + (size_t)i * step);
    for (int i = 0; i < 64; i++)
        if (acts[step * (size_t)m + (size_t)i] != 0x5a) {
            FAIL("act_prepare wrote behind the row");
            break;
        }
    return acts;
}
static void unprepare(const sill__cpu_mat_kernels *k, const sill__cpu_mat *mat, uint8_t *acts, int32_t m) {
    sill__free_pages(acts, k->act_bytes(mat) * (size_t)m + 64);
}

#endif
