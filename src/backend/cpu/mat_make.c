/*
 * mat_make.c - plain weights quantized while they are packed: to the blocks of a stored type (the same bytes as if the
 * file held them), or to int8 with one scale an output. A panel is taken in chunks of inputs that stay in the first-level
 * cache, as f32.
 */
#include "backend/cpu/mat.h"

enum { CHUNK = 64 }; /* inputs at a time; a multiple of 32 */

typedef float chunk[SILL__MAT_MAX_NR][CHUNK];

/* Inputs [k, k + n) of the outputs [row0, row0 + used) as f32; up to the next multiple of 32 there are zeros. */
static void load_chunk(const sill__weight_src *src, uint64_t row0, int32_t used, int32_t k, int32_t n, chunk x) {
    for (int32_t j = 0; j < used;) {
        uint64_t row = row0 + (uint64_t)j;
        const int part = sill__mat_find_part(src, &row);
        const sill__tensor *t = src->parts[part];
        const uint64_t width = sill__type_get(t->type)->block_bytes, stored = sill__mat_part_rows(src, part);
        if (!src->transposed) {
            sill__dequant(t->type, t->data + (row * src->cols + (uint64_t)k) * width, x[j], (size_t)n);
            for (int32_t i = n; i % 32; i++) x[j][i] = 0;
            j++;
            continue;
        }
        const int32_t m = (int32_t)SILL_MIN((uint64_t)(used - j), stored - row);
        for (int32_t i = 0; i < n; i++) {
            float values[SILL__MAT_MAX_NR];
            sill__dequant(t->type, t->data + ((uint64_t)(k + i) * stored + row) * width, values, (size_t)m);
            for (int32_t c = 0; c < m; c++) x[j + c][i] = values[c];
        }
        for (int32_t c = 0; c < m; c++)
            for (int32_t i = n; i % 32; i++) x[j + c][i] = 0;
        j += m;
    }
}

static void make_blocks(const sill__weight_src *src, const sill__cpu_mat *mat, uint64_t row0, int32_t used,
                        uint8_t *panel, const sill__mat_kit *kit) {
    const size_t panel_block = sill__mat_block_bytes(mat);
    chunk x;
    uint8_t made[34]; /* the widest: Q8_0 */
    sill__mat_block b;
    sill__mat_block_info info;
    memset(&b, 0, sizeof b);
    sill__mat_block_info_get(mat->stored, &info);
    for (int32_t k = 0; k < mat->cols; k += CHUNK) {
        const int32_t n = SILL_MIN((int32_t)CHUNK, mat->cols - k);
        load_chunk(src, row0, used, k, n, x);
        for (int32_t j = 0; j < used; j++)
            for (int32_t i = 0; i < n; i += 32) {
                kit->quantize(mat->stored, x[j] + i, made, 32);
                sill__mat_block_read(mat->stored, made, &b);
                sill__mat_put_block(mat, &b, mat->zero - info.zero, j, panel + (size_t)(i / 32) * panel_block);
            }
        panel += (size_t)(n / 32) * panel_block;
    }
}

static void make_row8(const sill__weight_src *src, const sill__cpu_mat *mat, uint64_t row0, int32_t used, uint8_t *panel,
                      const sill__mat_kit *kit) {
    chunk x;
    float most[SILL__MAT_MAX_NR] = {0}, inverse[SILL__MAT_MAX_NR];
    uint8_t codes[CHUNK], *to = panel + (size_t)mat->nr * 4;
    for (int32_t k = 0; k < mat->cols; k += CHUNK) {
        const int32_t n = SILL_MIN((int32_t)CHUNK, mat->cols - k);
        load_chunk(src, row0, used, k, n, x);
        for (int32_t j = 0; j < used; j++) most[j] = kit->peak(x[j], (n + 31) & ~31, most[j]);
    }
    for (int32_t j = 0; j < used; j++) {
        /* Not finite: all products of the output are NaN. */
        const bool some = most[j] >= 1e-30f;
        const float scale = some || most[j] != most[j] ? most[j] / 127.0f : 0.0f;
        inverse[j] = some ? 127.0f / most[j] : 0.0f;
        memcpy(panel + 4 * j, &scale, 4);
    }
    for (int32_t k = 0; k < mat->cols; k += CHUNK) {
        const int32_t n = SILL_MIN((int32_t)CHUNK, mat->cols - k), padded = (n + 31) & ~31;
        load_chunk(src, row0, used, k, n, x);
        for (int32_t j = 0; j < used; j++) {
            if (inverse[j] > 0.0f) kit->codes(x[j], inverse[j], codes, padded);
            else memset(codes, 0, (size_t)padded);
            if (mat->zero)
                for (int32_t i = 0; i < padded; i++) codes[i] = (uint8_t)(codes[i] + mat->zero);
            sill__mat_put_codes(mat, codes, padded, j, to + (size_t)k * (size_t)mat->nr);
        }
    }
}

void sill__mat_pack_made(const sill__weight_src *src, const sill__cpu_mat *mat, uint64_t row0, int32_t used,
                         uint8_t *panel, const sill__mat_kit *kit) {
    if (used < mat->nr || mat->form == SILL__FORM_ROW8) memset(panel, 0, mat->panel_bytes);
    if (mat->form == SILL__FORM_ROW8) make_row8(src, mat, row0, used, panel, kit);
    else make_blocks(src, mat, row0, used, panel, kit);
}
