/*
 * mat.h - packed matrices: what all instruction sets share. Planning and packing (mat_pack.c, mat_blocks.c) are
 * plain C steered by a few numbers of the instruction set; the products are in mat.inc.
 *
 * Layout. A matrix is cut into panels of nr outputs, each one linear run of memory, inputs (k) ascending:
 *  - F32, F16, BF16: (k / kpack, nr, kpack) elements; outputs and inputs beyond the matrix are zeros.
 *  - Q8, Q4: blocks of `block` inputs. A block opens with its header
 *        block 32:   f16 scale[nr], then f16 min[nr] if has_min
 *        block 256:  f16 scale[nr], then f16 min[nr] if has_min, i8 step[256 / group][nr], then u8 min_step
 *                    (the same shape) if has_min; a group's scale is scale * step, its minimum min * min_step
 *    and goes on with the codes of its groups: Q8 (group / kpack, nr, kpack) bytes; Q4 (16 / kpack, nr, kpack)
 *    bytes, the low nibble for input k and the high one for k + 16 of the group.
 *    A weight is scale * (code - zero) + min: the product rounded, then the sum (sill__dequant, bit for bit).
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
    bool bf16_act;              /* bf16 is multiplied natively, by activations rounded to bf16 */
} sill__mat_rules;

sill_status sill__mat_plan(const sill__mat_rules *rules, const sill__weight_src *src, sill__cpu_mat *mat,
                           sill_error *err);
/* Rounds n values to the nearest f16 or bf16, as sill__f32_to_f16 and sill__f32_to_bf16 do. */
typedef void (*sill__mat_round)(const float *x, uint16_t *y, int32_t n, bool f16);
/* Packs panels [first, end). */
void sill__mat_pack(const sill__weight_src *src, sill__cpu_mat *mat, int32_t first, int32_t end, sill__mat_round round);

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

#endif
