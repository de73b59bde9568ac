/*
 * mat_pack.c - planning and packing of matrices (layout: mat.h), from any stored type and orientation.
 */
#include "backend/cpu/mat.h"

enum {
    CHUNK = 64,   /* inputs moved at a time; the panel's part stays in the first-level cache */
    CONVERT = 256 /* inputs converted at a time; a multiple of every block */
};

static const uint8_t *block_at(const sill__tensor *t, uint64_t row, uint64_t cols, uint64_t k) {
    const sill__type_info *info = sill__type_get(t->type);
    return t->data + row * sill__row_bytes(t->type, cols) + k / info->block * info->block_bytes;
}

uint64_t sill__mat_part_rows(const sill__weight_src *src, int i) {
    const sill__tensor *t = src->parts[i];
    if (src->transposed) return t->dims[t->n_dims - 1];
    uint64_t rows = 1;
    for (int d = 0; d + 1 < t->n_dims; d++) rows *= t->dims[d];
    return rows;
}

static uint64_t part_cols(const sill__weight_src *src, int i) {
    const sill__tensor *t = src->parts[i];
    return src->transposed ? t->dims[0] : t->dims[t->n_dims - 1];
}

int sill__mat_find_part(const sill__weight_src *src, uint64_t *row) {
    int i = 0;
    while (i + 1 < src->n_parts && *row >= sill__mat_part_rows(src, i)) *row -= sill__mat_part_rows(src, i++);
    return i;
}

/* ---- plan */

static sill_status check_source(const sill__weight_src *src, sill_error *err) {
    const char *name = src->name ? src->name : "matrix";
    if (src->n_parts < 1 || src->n_parts > (int)SILL_ARRAY_LEN(src->parts))
        return sill__fail(err, SILL_EINVAL, "%s: %d parts, expected 1 to 4", name, src->n_parts);
    if (src->rows < 1 || src->cols < 1 || src->rows > INT32_MAX - 64 || src->cols > INT32_MAX - 64)
        return sill__fail(err, SILL_ERANGE, "%s: shape (%llu, %llu) is not between 1 and 2^31 - 64", name,
                          (unsigned long long)src->rows, (unsigned long long)src->cols);
    uint64_t rows = 0;
    for (int i = 0; i < src->n_parts; i++) {
        const sill__tensor *t = src->parts[i];
        if (t->n_dims < 1 || (src->transposed && t->n_dims != 2) || part_cols(src, i) != src->cols)
            return sill__fail(err, SILL_EFORMAT, "%s: part %s does not have %llu inputs", name,
                              t->name ? t->name : "?", (unsigned long long)src->cols);
        if (t->type != src->parts[0]->type)
            return sill__fail(err, SILL_EUNSUPPORTED, "%s: parts of types %s and %s in one packed matrix", name,
                              sill__type_get(src->parts[0]->type)->name, sill__type_get(t->type)->name);
        rows += sill__mat_part_rows(src, i);
    }
    if (rows < src->rows)
        return sill__fail(err, SILL_EFORMAT, "%s: %llu rows stored, %llu wanted", name, (unsigned long long)rows,
                          (unsigned long long)src->rows);
    return SILL_OK;
}

/* What plain parts are made into; not before their own type is checked. */
static sill_status plan_made(const sill__mat_rules *rules, const sill__weight_src *src, sill__cpu_mat *mat,
                             sill_error *err) {
    const char *name = src->name ? src->name : "matrix";
    if (src->compute == SILL__COMPUTE_BLOCK_I8) {
        if (!sill__can_quantize(src->as))
            return sill__fail(err, SILL_EUNSUPPORTED, "%s: nothing is quantized to type %s", name,
                              sill__type_get(src->as) ? sill__type_get(src->as)->name : "?");
        if (src->cols % 32)
            return sill__fail(err, SILL_EFORMAT, "%s: %llu inputs are not whole groups of 32", name,
                              (unsigned long long)src->cols);
        mat->stored = src->as;
        return SILL_OK;
    }
    if (src->cols > SILL__INT8_MAX_COLS)
        return sill__fail(err, SILL_EUNSUPPORTED, "%s: %llu inputs; int8 takes up to %d, so that its sums are exact",
                          name, (unsigned long long)src->cols, SILL__INT8_MAX_COLS);
    mat->form = SILL__FORM_ROW8;
    mat->kpack = rules->q8_kpack;
    mat->zero = rules->q8_zero;
    mat->int8_act = true;
    return SILL_OK;
}

static sill_status plan_form(const sill__mat_rules *rules, const sill__weight_src *src, sill__cpu_mat *mat,
                             sill_error *err) {
    const char *name = src->name ? src->name : "matrix", *type = sill__type_get(mat->stored)->name;
    sill__mat_block_info info;
    bool blocks = sill__mat_block_info_get(mat->stored, &info);
    if (!blocks && mat->stored != SILL__TYPE_F32 && mat->stored != SILL__TYPE_F16 &&
        mat->stored != SILL__TYPE_BF16)
        return sill__fail(err, SILL_EUNSUPPORTED, "%s: weights of type %s are not supported", name, type);
    if (blocks && (src->transposed || src->cols % (uint64_t)info.block))
        return sill__fail(err, SILL_EFORMAT, "%s: %llu inputs of type %s are not whole blocks of %d", name,
                          (unsigned long long)src->cols, type, info.block);
    if (src->compute == SILL__COMPUTE_INT8 && blocks)
        return sill__fail(err, SILL_EUNSUPPORTED, "%s: int8 is made of floating-point weights, these are %s", name, type);
    if (src->compute == SILL__COMPUTE_INT8 || (!blocks && src->compute == SILL__COMPUTE_BLOCK_I8 && src->as)) {
        sill_status st = plan_made(rules, src, mat, err);
        if (st != SILL_OK || mat->form == SILL__FORM_ROW8) return st;
        blocks = sill__mat_block_info_get(mat->stored, &info);
    }
    if (!blocks && src->compute == SILL__COMPUTE_BLOCK_I8)
        return sill__fail(err, SILL_EUNSUPPORTED, "%s: int8 activations need quantized weights, these are %s",
                          name, type);
    mat->kpack = 1;
    if (src->compute == SILL__COMPUTE_BF16 || (src->compute == SILL__COMPUTE_F32 && mat->stored == SILL__TYPE_BF16)) {
        mat->form = SILL__FORM_BF16;
        mat->bf16_act = rules->bf16_kpack && src->compute == SILL__COMPUTE_BF16;
        mat->kpack = mat->bf16_act ? rules->bf16_kpack : 2;
    } else if (src->compute == SILL__COMPUTE_F16 || mat->stored == SILL__TYPE_F16) {
        mat->form = SILL__FORM_F16;
    } else if (!blocks) {
        mat->form = SILL__FORM_F32;
    } else {
        mat->int8_act = src->compute == SILL__COMPUTE_BLOCK_I8;
        mat->form = info.four_bits ? SILL__FORM_Q4 : SILL__FORM_Q8;
        mat->kpack = !mat->int8_act ? 4 : info.four_bits ? rules->q4_kpack : rules->q8_kpack;
        mat->block = info.block;
        mat->group = info.group;
        mat->has_min = info.has_min;
        mat->zero = info.four_bits ? info.zero : mat->int8_act && !info.has_min ? rules->q8_zero : 0;
    }
    return SILL_OK;
}

sill_status sill__mat_plan(const sill__mat_rules *rules, const sill__weight_src *src, sill__cpu_mat *mat,
                           sill_error *err) {
    memset(mat, 0, sizeof *mat);
    sill_status st = check_source(src, err);
    if (st != SILL_OK) return st;
    mat->stored = src->parts[0]->type;
    mat->compute = src->compute;
    mat->rows = (int32_t)src->rows;
    mat->cols = (int32_t)src->cols;
    mat->nr = rules->nr;
    mat->n_panels = (int32_t)((src->rows + (uint64_t)rules->nr - 1) / (uint64_t)rules->nr);
    st = plan_form(rules, src, mat, err);
    if (st != SILL_OK) return st;
    size_t units, unit_bytes, bytes;
    if (mat->form == SILL__FORM_ROW8) {
        units = sill__mat_row8_inputs(mat) + 4; /* 4: the scales */
        unit_bytes = (size_t)mat->nr;
    } else if (mat->block) {
        units = (size_t)(mat->cols / mat->block);
        unit_bytes = sill__mat_block_bytes(mat);
    } else {
        units = (size_t)((mat->cols + mat->kpack - 1) / mat->kpack);
        unit_bytes = (size_t)mat->nr * (size_t)mat->kpack * (mat->form == SILL__FORM_F32 ? 4 : 2);
    }
    if (!sill__mul(units, unit_bytes, &bytes) || !sill__add(bytes, 63, &bytes) ||
        !sill__mul(bytes & ~(size_t)63, (size_t)mat->n_panels, &mat->bytes))
        return sill__fail(err, SILL_ERANGE, "%s: a packed matrix of shape (%d, %d) is too large",
                          src->name ? src->name : "matrix", mat->rows, mat->cols);
    mat->panel_bytes = bytes & ~(size_t)63;
    return SILL_OK;
}

/* ---- pack: plain forms */

/* One output's n elements of 2 bytes to their places, kpack of 1, 2 or 4 beside each other. */
static void scatter_16(const void *from, uint8_t *to, int32_t n, int32_t nr, int32_t kpack) {
    const uint8_t *p = from;
    if (kpack == 1) {
        for (int32_t k = 0; k < n; k++) memcpy(to + (size_t)(k * nr) * 2, p + 2 * k, 2);
        return;
    }
    const int32_t whole = n & ~(kpack - 1);
    if (kpack == 2)
        for (int32_t k = 0; k < whole; k += 2) memcpy(to + (size_t)(k * nr) * 2, p + 2 * k, 4);
    else
        for (int32_t k = 0; k < whole; k += 4) memcpy(to + (size_t)(k * nr) * 2, p + 2 * k, 8);
    if (whole < n) memcpy(to + (size_t)(whole * nr) * 2, p + 2 * whole, (size_t)(n - whole) * 2);
}

/* Elements of 2 or 4 bytes moved as they are: inputs [k0, k0 + n) of the panel's outputs. */
static void move_rows(const sill__weight_src *src, const sill__cpu_mat *mat, uint64_t row0, int32_t used, int32_t k0,
                      int32_t n, int width, uint8_t *panel) {
    const int32_t nr = mat->nr, kp = mat->kpack;
    for (int32_t j = 0; j < used; j++) {
        uint64_t row = row0 + (uint64_t)j;
        const sill__tensor *t = src->parts[sill__mat_find_part(src, &row)];
        const uint8_t *from = t->data + (row * (uint64_t)mat->cols + (uint64_t)k0) * (uint64_t)width;
        if (width == 4)
            for (int32_t k = 0; k < n; k++) memcpy(panel + ((size_t)(k0 + k) * (size_t)nr + (size_t)j) * 4, from + 4 * k, 4);
        else scatter_16(from, panel + ((size_t)k0 * (size_t)nr + (size_t)(j * kp)) * 2, n, nr, kp);
    }
}

static void move_columns(const sill__weight_src *src, const sill__cpu_mat *mat, uint64_t row0, int32_t used,
                         int width, uint8_t *panel) {
    const int32_t nr = mat->nr, kp = mat->kpack;
    for (int32_t done = 0; done < used;) {
        uint64_t row = row0 + (uint64_t)done;
        int part = sill__mat_find_part(src, &row);
        const sill__tensor *t = src->parts[part];
        uint64_t stride = sill__mat_part_rows(src, part);
        int32_t n = (int32_t)SILL_MIN((uint64_t)(used - done), stride - row);
        for (int32_t k = 0; k < mat->cols; k++) {
            const uint8_t *from = t->data + ((uint64_t)k * stride + row) * (uint64_t)width;
            uint8_t *to = panel + ((size_t)(k - k % kp) * (size_t)nr + (size_t)(done * kp + k % kp)) * (size_t)width;
            if (kp == 1) memcpy(to, from, (size_t)n * (size_t)width);
            else
                for (int32_t j = 0; j < n; j++) memcpy(to + (size_t)(j * kp) * 2, from + 2 * j, 2);
        }
        done += n;
    }
}

/* n values of output j from input k on, into a plain form. */
static void put_inputs(const sill__cpu_mat *mat, const float *x, int32_t k, int32_t n, int32_t j, uint8_t *panel,
                       const sill__mat_kit *kit) {
    const int32_t nr = mat->nr, kp = mat->kpack;
    uint16_t y[CONVERT];
    if (mat->form == SILL__FORM_F32) {
        for (int32_t i = 0; i < n; i++) memcpy(panel + ((size_t)(k + i) * (size_t)nr + (size_t)j) * 4, x + i, 4);
        return;
    }
    kit->round(x, y, n, mat->form == SILL__FORM_F16);
    scatter_16(y, panel + ((size_t)k * (size_t)nr + (size_t)(j * kp)) * 2, n, nr, kp); /* k is a multiple of kpack */
}

/* n outputs' values of input k from output j on, into a plain form. */
static void put_outputs(const sill__cpu_mat *mat, const float *x, int32_t k, int32_t n, int32_t j, uint8_t *panel,
                        const sill__mat_kit *kit) {
    const int32_t nr = mat->nr, kp = mat->kpack;
    uint16_t y[SILL__MAT_MAX_NR];
    size_t at = (size_t)(k - k % kp) * (size_t)nr + (size_t)(j * kp + k % kp);
    if (mat->form == SILL__FORM_F32) {
        memcpy(panel + at * 4, x, (size_t)n * 4);
        return;
    }
    kit->round(x, y, n, mat->form == SILL__FORM_F16);
    for (int32_t i = 0; i < n; i++) memcpy(panel + (at + (size_t)(i * kp)) * 2, y + i, 2);
}

/* Any type to any plain form by way of f32. */
static void convert_rows(const sill__weight_src *src, const sill__cpu_mat *mat, uint64_t row0, int32_t used,
                         uint8_t *panel, const sill__mat_kit *kit) {
    float x[CONVERT];
    for (int32_t k = 0; k < mat->cols; k += CONVERT) {
        int32_t n = SILL_MIN((int32_t)CONVERT, mat->cols - k);
        for (int32_t j = 0; j < used; j++) {
            uint64_t row = row0 + (uint64_t)j;
            const sill__tensor *t = src->parts[sill__mat_find_part(src, &row)];
            sill__dequant(t->type, block_at(t, row, (uint64_t)mat->cols, (uint64_t)k), x, (size_t)n);
            put_inputs(mat, x, k, n, j, panel, kit);
        }
    }
}

static void convert_columns(const sill__weight_src *src, const sill__cpu_mat *mat, uint64_t row0, int32_t used,
                            uint8_t *panel, const sill__mat_kit *kit) {
    float x[SILL__MAT_MAX_NR];
    for (int32_t done = 0, n; done < used; done += n) {
        uint64_t row = row0 + (uint64_t)done;
        int part = sill__mat_find_part(src, &row);
        const sill__tensor *t = src->parts[part];
        const uint64_t stride = sill__mat_part_rows(src, part), width = sill__type_get(t->type)->block_bytes;
        n = (int32_t)SILL_MIN((uint64_t)(used - done), stride - row);
        for (int32_t k = 0; k < mat->cols; k++) {
            sill__dequant(t->type, t->data + ((uint64_t)k * stride + row) * width, x, (size_t)n);
            put_outputs(mat, x, k, n, done, panel, kit);
        }
    }
}

static void pack_plain(const sill__weight_src *src, const sill__cpu_mat *mat, uint64_t row0, int32_t used,
                       uint8_t *panel, const sill__mat_kit *kit) {
    bool same = (mat->form == SILL__FORM_F32 && mat->stored == SILL__TYPE_F32) ||
                (mat->form == SILL__FORM_F16 && mat->stored == SILL__TYPE_F16) ||
                (mat->form == SILL__FORM_BF16 && mat->stored == SILL__TYPE_BF16);
    int width = mat->form == SILL__FORM_F32 ? 4 : 2;
    if (used < mat->nr || mat->cols % mat->kpack) memset(panel, 0, mat->panel_bytes);
    if (!same && src->transposed) convert_columns(src, mat, row0, used, panel, kit);
    else if (!same) convert_rows(src, mat, row0, used, panel, kit);
    else if (src->transposed) move_columns(src, mat, row0, used, width, panel);
    else
        for (int32_t k0 = 0; k0 < mat->cols; k0 += CHUNK)
            move_rows(src, mat, row0, used, k0, SILL_MIN((int32_t)CHUNK, mat->cols - k0), width, panel);
}

/* ---- pack: codes */

/* A group's codes of output j. */
static void put_group(const sill__cpu_mat *mat, const uint8_t *codes, int32_t j, uint8_t *to) {
    uint8_t half[16];
    int32_t n = mat->group;
    if (mat->form == SILL__FORM_Q4) {
        for (int i = 0; i < 16; i++) half[i] = (uint8_t)(codes[i] | codes[i + 16] << 4);
        codes = half;
        n = 16;
    }
    sill__mat_put_codes(mat, codes, n, j, to);
}

void sill__mat_put_block(const sill__cpu_mat *mat, sill__mat_block *b, int shift, int32_t j, uint8_t *to) {
    const int32_t nr = mat->nr, groups = mat->block / mat->group;
    const size_t group_bytes = (size_t)(mat->group * nr) / (mat->form == SILL__FORM_Q4 ? 2 : 1);
    uint8_t *at = to;
    memcpy(at + 2 * j, &b->scale, 2);
    at += 2 * nr;
    if (mat->has_min) {
        memcpy(at + 2 * j, &b->min, 2);
        at += 2 * nr;
    }
    if (mat->block > 32) {
        for (int32_t g = 0; g < groups; g++) memcpy(at + g * nr + j, &b->steps[g], 1);
        at += groups * nr;
        if (mat->has_min) {
            for (int32_t g = 0; g < groups; g++) at[g * nr + j] = b->min_steps[g];
            at += groups * nr;
        }
    }
    if (shift)
        for (int32_t k = 0; k < mat->block; k += 32)
            for (int32_t i = 0; i < 32; i++) b->codes[k + i] = (uint8_t)(b->codes[k + i] + shift);
    for (int32_t g = 0; g < groups; g++, at += group_bytes) put_group(mat, b->codes + g * mat->group, j, at);
}

static void pack_blocks(const sill__weight_src *src, const sill__cpu_mat *mat, uint64_t row0, int32_t used,
                        uint8_t *panel) {
    const size_t block_bytes = sill__mat_block_bytes(mat);
    sill__mat_block b;
    sill__mat_block_info info;
    memset(&b, 0, sizeof b);
    sill__mat_block_info_get(mat->stored, &info);
    /* Added to a stored code so that it counts from mat->zero. */
    int shift = mat->zero - info.zero;
    if (used < mat->nr) memset(panel, 0, mat->panel_bytes);
    const uint8_t *at[SILL__MAT_MAX_NR];
    const size_t stored_bytes = sill__type_get(mat->stored)->block_bytes;
    for (int32_t j = 0; j < used; j++) {
        uint64_t row = row0 + (uint64_t)j;
        const sill__tensor *t = src->parts[sill__mat_find_part(src, &row)];
        at[j] = block_at(t, row, (uint64_t)mat->cols, 0);
    }
    for (int32_t k = 0; k < mat->cols; k += mat->block, panel += block_bytes)
        for (int32_t j = 0; j < used; j++, at[j - 1] += stored_bytes) {
            sill__mat_block_read(mat->stored, at[j], &b);
            sill__mat_put_block(mat, &b, shift, j, panel);
        }
}

/* Quantized while it is packed. */
static bool made(const sill__weight_src *src, const sill__cpu_mat *mat) {
    return mat->form == SILL__FORM_ROW8 || (mat->block && mat->stored != src->parts[0]->type);
}

void sill__mat_pack(const sill__weight_src *src, sill__cpu_mat *mat, int32_t first, int32_t end, const sill__mat_kit *kit) {
    for (int32_t p = first; p < end; p++) {
        uint64_t row0 = (uint64_t)p * (uint64_t)mat->nr;
        int32_t used = (int32_t)SILL_MIN((uint64_t)mat->nr, (uint64_t)mat->rows - row0);
        uint8_t *panel = mat->data + (size_t)p * mat->panel_bytes;
        if (made(src, mat)) sill__mat_pack_made(src, mat, row0, used, panel, kit);
        else if (mat->block) pack_blocks(src, mat, row0, used, panel);
        else pack_plain(src, mat, row0, used, panel, kit);
    }
}
