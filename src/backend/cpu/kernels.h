/*
 * kernels.h - the seam inside the CPU backend. cpu.c (the op table, threads, buffers) calls the kernels of one
 * instruction set through these tables; each isa_<name>.c makes them by including the bodies vec.inc (vectors,
 * norms, attention), mat.inc (packed matrices) and limits.inc (what is measured beside them).
 *
 * Order of sums (the same-bits rule): every output element of a matrix product is one chain over K, in
 * ascending k (or group of k), the same for one row and for many; lanes are outputs, never pieces of a sum.
 */
#ifndef SILL_CPU_KERNELS_H
#define SILL_CPU_KERNELS_H

#include "backend/backend.h"

/* ---- packed matrices (mat*.c, mat.inc) */

/* Forms of a packed matrix. The layout is each instruction set's own; panels of `nr` outputs, K ascending. */
typedef enum sill__form {
    SILL__FORM_F32, SILL__FORM_F16, SILL__FORM_BF16, /* bf16 widened, or multiplied natively in pairs of k */
    SILL__FORM_Q8, /* 8-bit codes, one scale (and one minimum where the type has it) a group */
    SILL__FORM_Q4, /* 4-bit codes, the same */
    SILL__FORM_ROW8 /* 8-bit codes, one scale an output */
} sill__form;

typedef struct sill__cpu_mat {
    sill__form form;
    sill__compute compute;
    sill__type stored;       /* of the source, or what it is quantized to */
    int32_t rows, cols;      /* logical: outputs, inputs */
    int32_t nr, n_panels;    /* outputs in a panel; panels (the last one padded with zeros) */
    int32_t group;           /* inputs that share a scale: 32 or 16; 0 for plain forms */
    int32_t block;           /* inputs under one header of scales: 32, or 256 with two levels of scales; 0 */
    int32_t kpack;           /* neighbouring inputs of one output that lie together */
    int32_t zero;            /* the code that stands for 0 */
    bool has_min, int8_act, bf16_act;
    size_t panel_bytes, bytes;
    uint8_t *data;           /* sill__alloc_pages */
} sill__cpu_mat;

typedef struct sill__cpu_mat_kernels {
    /* Sets form, nr, group, sizes for a source; no memory yet. */
    sill_status (*plan)(const sill__weight_src *src, sill__cpu_mat *mat, sill_error *err);
    /* Packs panels [first, end) from the source; called by several threads on distinct ranges. */
    void (*pack)(const sill__weight_src *src, sill__cpu_mat *mat, int32_t first, int32_t end);
    /* A prepared activation row: as the form wants it (f32 copy, bf16, int8 groups with scales and sums). */
    size_t (*act_bytes)(const sill__cpu_mat *mat);
    void (*act_prepare)(const sill__cpu_mat *mat, const float *x, void *act);
    /* out[i * ld + j] for rows i < m and the outputs j (counted from the matrix's first) of panels [first, end);
     * outputs beyond mat->rows are not written. acts: m prepared rows, act_bytes apart. Any m >= 1. */
    void (*matmul)(const sill__cpu_mat *mat, const void *acts, int32_t m, int32_t first, int32_t end, float *out,
                   size_t ld);
} sill__cpu_mat_kernels;

/* ---- vectors (vec.inc) */

/* KV tiles of one block, layer and kv head. K is (head_dim, 32) with positions across, so that scores are a chain over
 * head_dim with positions in lanes; V is (32, head_dim rounded up to 16). Elements are f32, f16, or int8 codes. Of
 * these a position's k is offset + scale * code (range of its values / 255, codes from -128), its v scale * code (absmax /
 * 127); behind the codes of a tile lie the 32 f32 scales, behind those of K the 32 offsets. */
#define SILL__MAX_HEAD_DIM 512
#define SILL__ATTEND_QUERIES 32 /* most queries that one call of attend takes */
static inline size_t sill__kv_dim(int32_t head_dim) { return ((size_t)head_dim + 15) & ~(size_t)15; }
static inline size_t sill__kv_element(sill__kv_type type) {
    return type == SILL__KV_F32 ? 4 : type == SILL__KV_F16 ? 2 : 1;
}
static inline size_t sill__k_tile_bytes(sill__kv_type type, int32_t head_dim) {
    return SILL__KV_BLOCK * ((size_t)head_dim * sill__kv_element(type) + (type == SILL__KV_I8 ? 8 : 0));
}
static inline size_t sill__v_tile_bytes(sill__kv_type type, int32_t head_dim) {
    return SILL__KV_BLOCK * (sill__kv_dim(head_dim) * sill__kv_element(type) + (type == SILL__KV_I8 ? 4 : 0));
}
/* Floats of scratch that attend needs, aligned to 64 bytes: two widened tiles and the sums of its queries. */
static inline size_t sill__attend_floats(int32_t head_dim) {
    return sill__kv_dim(head_dim) * (2 * SILL__KV_BLOCK + SILL__ATTEND_QUERIES);
}

/* One sequence's keys and values of one layer and kv head: the K tile of its i-th block is at
 * tiles + blocks[i] * stride, the V tile v_at bytes behind it. */
typedef struct sill__attend {
    sill__kv_type type;
    const uint8_t *tiles;
    size_t stride, v_at;
    const int32_t *blocks;
    int32_t head_dim;
    float scale;
    float *scratch;
    const uint8_t *then; /* tiles that are wanted next, or NULL: asked for beside the last block */
} sill__attend;

typedef struct sill__cpu_vec_kernels {
    /* One row: y = norm(x). weight, bias: f32 or NULL. y may be x. */
    void (*norm_layer)(float *y, const float *x, const float *weight, const float *bias, int32_t n, float eps);
    void (*norm_rms)(float *y, const float *x, const float *weight, const float *bias, int32_t n, float eps);
    /* In place on n values: bias (may be NULL) added, then the activation (not SWIGLU). */
    void (*epilogue)(float *y, const float *bias, sill__act act, int32_t n);
    void (*add)(float *y, const float *x, int32_t n); /* y += x */
    void (*swiglu)(float *y, const float *gate, const float *up, int32_t n);
    /* Rotates one head in place; cos, sin: (dims / 2) of its position. */
    void (*rope)(float *head, const float *cos, const float *sin, int32_t dims, sill__rope_kind kind);
    /* Writes k and v of one head, n positions from slot on (all of one block), into a KV block's tiles; the positions'
     * k and v are ld floats apart. */
    void (*kv_put)(sill__kv_type type, void *k_tile, void *v_tile, int32_t slot, int32_t n, const float *k, const float *v,
                   size_t ld, int32_t head_dim);
    /* Attention of n_queries <= SILL__ATTEND_QUERIES query heads over the same sequence and kv head: query i sees its
     * first n_positions[i] positions. Each query's arithmetic is its own chain, the same alone as in company. */
    void (*attend)(const sill__attend *a, int32_t n_queries, float *const *out, const float *const *q,
                   const int32_t *n_positions);
    /* Partial log-sum-exp of n logits: their maximum and the sum of exp(x - max). Fixed order. */
    void (*softmax_stats)(const float *x, int32_t n, float *max, float *sum);
    /* y = exp(x), for the tests of the functions inside. */
    void (*exp)(float *y, const float *x, int32_t n);
} sill__cpu_vec_kernels;

/* ---- limits (limits.inc): what one thread can do at most, for measuring */

typedef enum sill__limit { SILL__LIMIT_FMA, SILL__LIMIT_BF16, SILL__LIMIT_INT8, SILL__LIMIT_COUNT } sill__limit;
typedef struct sill__cpu_limit_kernels {
    uint64_t (*read)(const uint8_t *p, size_t bytes); /* a multiple of 512 bytes */
    /* Multiply-adds in f32, of bf16 pairs, of int8: operations done in STEPS rounds. NULL: not in this set. */
    double (*ops[SILL__LIMIT_COUNT])(int32_t steps);
} sill__cpu_limit_kernels;

/* What a set has code of its own for, beside that of the next better one of sill__cpu_isas. */
typedef enum sill__isa_own {
    SILL__OWN_CODES, /* products with weights in codes: blocks, int8 */
    SILL__OWN_BF16,  /* products in bf16, and no others */
    SILL__OWN_ALL
} sill__isa_own;

typedef struct sill__cpu_isa {
    const char *name;                 /* "scalar", "avx2", "avx512", "avx512vnni", "avx512bf16", "neon", ... */
    sill__isa_own own;
    bool (*available)(void);
    const sill__cpu_mat_kernels *mat;
    const sill__cpu_vec_kernels *vec;
    const sill__cpu_limit_kernels *limits;
} sill__cpu_isa;

/* An isa_<name>.c defines ISA as its name and includes one simd_*.h, vec.inc, mat.inc and limits.inc, which define the
 * tables sill__cpu_vec_<name>, sill__cpu_mat_<name> and sill__cpu_limits_<name>:  const sill__cpu_mat_kernels SILL__ISA_TABLE(mat, ISA) = {...}; */
#define SILL__ISA_TABLE_(kind, isa) sill__cpu_##kind##_##isa
#define SILL__ISA_TABLE(kind, isa) SILL__ISA_TABLE_(kind, isa)
#define SILL__ISA_LIST(X) X(scalar) X(avx2) X(avx512) X(avx512vnni) X(avx512bf16) X(neon) X(neon_dotprod) X(neon_i8mm)
#define SILL__ISA_EXTERN(isa)                                                                                          \
    extern const sill__cpu_vec_kernels sill__cpu_vec_##isa;                                                            \
    extern const sill__cpu_mat_kernels sill__cpu_mat_##isa;                                                            \
    extern const sill__cpu_limit_kernels sill__cpu_limits_##isa;
SILL__ISA_LIST(SILL__ISA_EXTERN)

/* The build's own architecture only, best first; ends with NULL. (cpu_isa.c) */
extern const sill__cpu_isa *const sill__cpu_isas[];
/* See sill__backend.isa_shares. */
bool sill__cpu_isa_shares(const char *isa, const char *other, sill__type type, sill__compute compute);

/* Loops over arrays of registers must be unrolled whole for the arrays to be registers. */
#if defined(__clang__)
#define SILL__UNROLL _Pragma("clang loop unroll(full)")
#else
#define SILL__UNROLL _Pragma("GCC unroll 64")
#endif
#define SILL__INLINE static inline __attribute__((always_inline))

#endif
