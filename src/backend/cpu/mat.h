/*
 * mat.h - packed matrices: what all instruction sets share. Planning and packing (mat_pack.c, mat_blocks.c) are
 * plain C steered by a few numbers of the instruction set; the products are in mat.inc.
 *
 * Layout. A matrix is cut into panels of nr outputs, each one linear run of memory, inputs (k) ascending:
 *  - F32, F16, BF16: (k / kpack, nr, kpack) elements, kpack 2 or the rules' bf16_kpack for BF16, else 1; outputs and inputs beyond
 *    the matrix are zeros.
 *  - Q8, Q4: blocks of `block` inputs. A block opens with its header
 *        block 32:   f16 scale[nr], then f16 min[nr] if has_min
 *        block 256:  f16 scale[nr], then f16 min[nr] if has_min, i8 step[256 / group][nr], then u8 min_step
 *                    (the same shape) if has_min; a group's scale is scale * step, its minimum min * min_step
 *    and goes on with the codes of its groups: Q8 (group / kpack, nr, kpack) bytes; Q4 (16 / kpack, nr, kpack)
 *    bytes, the low nibble for input k and the high one for k + 16 of the group.
 *    Plain sources with an `as` are quantized while they are packed: the same bytes as from a stored block type.
 *    A weight is scale * (code - zero) + min: the product rounded, then the sum (sill__dequant, bit for bit).
 *  - ROW8: f32 scale[nr], then codes (cols rounded up to 32 / kpack, nr, kpack) bytes, as Q8 with q8_zero. A weight is
 *    scale * (code - zero), scale = max |w| / 127 of the output, code = w * (127 / max |w|) to the nearest even.
 */
#ifndef SILL_CPU_MAT_H
#define SILL_CPU_MAT_H

#include "backend/cpu/kernels.h"

#define SILL__MAT_MAX_NR 32

/* What an instruction set wants of the layout. */
typedef struct sill__mat_rules {
    int32_t nr;                 /* outputs in a panel */
    int32_t q8_kpack, q4_kpack; /* with int8 activations; 4 with f32 ones */
    int32_t q8_zero;            /* 128: signed codes are stored unsigned, for u8 x s8 products */
    int32_t bf16_kpack;         /* bf16 multiplied natively, by activations rounded to bf16; 0: it is not */
} sill__mat_rules;

sill_status sill__mat_plan(const sill__mat_rules *rules, const sill__weight_src *src, sill__cpu_mat *mat,
                           sill_error *err);
/* What packing computes, in the vectors of an instruction set; the results do not depend on it. */
typedef struct sill__mat_kit {
    /* Rounds n values to the nearest f16 or bf16, as sill__f32_to_f16 and sill__f32_to_bf16 do. */
    void (*round)(const float *x, uint16_t *y, int32_t n, bool f16);
    /* sill__quantize of n (a multiple of 32) values. */
    void (*quantize)(sill__type type, const float *x, uint8_t *to, int32_t n);
    /* The largest |x| of n (a multiple of 32) values and of `most`; NaN when one is not finite. */
    float (*peak)(const float *x, int32_t n, float most);
    /* x * inverse to the nearest even, n (a multiple of 32) values. */
    void (*codes)(const float *x, float inverse, uint8_t *to, int32_t n);
} sill__mat_kit;
/* Packs panels [first, end). */
void sill__mat_pack(const sill__weight_src *src, sill__cpu_mat *mat, int32_t first, int32_t end,
                    const sill__mat_kit *kit);
/* mat_make.c: a panel of a plain source, `used` outputs from row0 on, quantized to Q8, Q4 or ROW8. */
void sill__mat_pack_made(const sill__weight_src *src, const sill__cpu_mat *mat, uint64_t row0, int32_t used,
                         uint8_t *panel, const sill__mat_kit *kit);

/* Inputs of a ROW8 matrix with their padding. */
static inline size_t sill__mat_row8_inputs(const sill__cpu_mat *mat) { return ((size_t)mat->cols + 31) & ~(size_t)31; }

/* Bytes of a block's header and of a whole block. */
static inline size_t sill__mat_header_bytes(const sill__cpu_mat *mat) {
    size_t per_output = mat->has_min ? 4 : 2;
    if (mat->block > 32) per_output += (size_t)(mat->block / mat->group) * (mat->has_min ? 2 : 1);
    return per_output * (size_t)mat->nr;
}
static inline size_t sill__mat_block_bytes(const sill__cpu_mat *mat) {
    return sill__mat_header_bytes(mat) +
           (size_t)mat->block * (size_t)mat->nr / (mat->form == SILL__FORM_Q4 ? 2 : 1);
}

/* n codes of output j into the (n / kpack, nr, kpack) bytes at `to`. */
static inline void sill__mat_put_codes(const sill__cpu_mat *mat, const uint8_t *codes, int32_t n, int32_t j, uint8_t *to) {
    const int32_t kp = mat->kpack, step = mat->nr * kp;
    to += j * kp;
    if (kp == 4)
        for (int32_t k = 0; k < n; k += 4, to += step) memcpy(to, codes + k, 4);
    else if (kp == 2)
        for (int32_t k = 0; k < n; k += 2, to += step) memcpy(to, codes + k, 2);
    else
        for (int32_t k = 0; k < n; k += kp, to += step) memcpy(to, codes + k, (size_t)kp);
}

/* mat_pack.c: a row of a part is its (row, k)-th element's block; transposed sources have dims (cols, rows). */
uint64_t sill__mat_part_rows(const sill__weight_src *src, int i);
/* The part that holds output `row`; *row is then counted from that part's first. */
int sill__mat_find_part(const sill__weight_src *src, uint64_t *row);

/* mat_blocks.c: one stored block of a quantized type taken apart. Codes are 0 .. 15/31/63, or signed (Q8_0);
 * `zero` of the type is not yet taken off. */
typedef struct sill__mat_block {
    uint16_t scale, min;    /* f16 bits; value = scale * step * (code - zero) + min * min_step */
    int8_t steps[16];       /* blocks of 256 only */
    uint8_t min_steps[16];
    uint8_t codes[256];
} sill__mat_block;
typedef struct sill__mat_block_info { int32_t block, group, zero; bool has_min, four_bits; } sill__mat_block_info;
/* False for plain types. */
bool sill__mat_block_info_get(sill__type type, sill__mat_block_info *info);
void sill__mat_block_read(sill__type type, const uint8_t *src, sill__mat_block *out);
/* mat_pack.c: one output's block into lane j of the panel's block at `to`; `shift` is added to its codes. */
void sill__mat_put_block(const sill__cpu_mat *mat, sill__mat_block *b, int shift, int32_t j, uint8_t *to);

#endif
