/*
 * args_mat.h - arguments of the kernels in matvec.metal and matmul.metal, and the codes that host and kernels give to
 * them. See args.h.
 */
#ifndef SILL_MTL_ARGS_MAT_H
#define SILL_MTL_ARGS_MAT_H

/* The values of sill__type are MTL_TYPE_* (args_vec.h); and LLM.int8's codes. */
#define MTL_TYPE_I8 11u

/* Function constants of these kernels: FC0 type of the weights; FC1 shape of a tile; FC2 which rows make a pair; FC3 norm;
 * FC4 activation; FC5 flags; and for qkv FC6 rotation, FC7 type of keys and values. */

/* FC1: rows of a SIMD group (matvec: 2 or 4), lanes along the outputs (matvec_t: 4 or 8), blocks of 8 tokens (skinny: 1 or
 * 2), outputs of a tile (matmul: 32 or 64). */

/* FC2: the two outputs that one thread finishes together. */
#define MTL_PAIRS_APART 0u    /* nothing joins them: half a tile apart */
#define MTL_PAIRS_NEXT 1u     /* 2i and 2i + 1: adjacent rotation */
#define MTL_PAIRS_GATE 2u     /* i of the gate and i of up */
#define MTL_PAIRS_ROTARY 3u   /* i and i + dims / 2 of a head; what is not rotated: neighbours */
#define MTL_NO_ROW 0xffffffffu

/* FC5 */
#define MTL_HAS_GAMMA 1u      /* the norm has a weight */
#define MTL_HAS_BETA 2u       /* the norm has a bias */
#define MTL_HAS_BIAS 4u
#define MTL_RESIDUAL 8u       /* added to what is there */
#define MTL_GATHERED 16u      /* input rows by their numbers */
#define MTL_WIDE 32u          /* 16 bytes of a plain weight lie at a multiple of 4 */
#define MTL_TRANSPOSED 64u    /* stored (cols, rows) */
#define MTL_PARTS 128u        /* two or three parts */
#define MTL_INT8_ROWS 256u    /* activations as in LLM.int8 */
#define MTL_STATS 512u        /* the rows' statistics are given, else every group takes them for itself */
#define MTL_STAGED 1024u      /* matvec: the row is normalized in threadgroup memory */

#define MTL_SLICES 4u         /* a sum over the inputs is that of these slices, each in ascending order, added in order */
#define MTL_TILE_TOKENS 32u   /* rows of a tile of matmul */
#define MTL_THREADS 128u      /* of a group of the tiled kernels */
#define MTL_VEC_THREADS 512u   /* of a group of matvec, at most */
#define MTL_SKINNY_ROWS 16u   /* weight rows of a tile of skinny */
#define MTL_STAGED_MAX 4096u  /* inputs that fit in threadgroup memory */
#define MTL_INT8_OUTLIER 6.0f

/* Floats of threadgroup memory. Weights of a tile lie as blocks of (8 inputs, 8 outputs), 72 floats apart so that the
 * threads that write them meet different banks. */
#define MTL_WEIGHT_STEP(cols) ((cols) / 8 * 72 + 8)
#define MTL_TILE_FLOATS(cols) (4 * MTL_WEIGHT_STEP(cols) + 16 * 64 + 32 * 4)
#define MTL_SKINNY_FLOATS(blocks) (4 * (4 * MTL_WEIGHT_STEP(16) + (blocks) * 4 * 64) + (blocks) * 8 * 4)

struct mtl_mat_args {
    uint32_t n;          /* rows of activations */
    uint32_t k;          /* inputs */
    uint32_t rows;       /* weight rows of this product */
    uint32_t first;      /* the first of them in the weight */
    uint32_t slice;      /* inputs of a slice, a multiple of 32 */
    uint32_t out_stride; /* floats from one output row to the next */
    uint32_t starts[2];  /* weight rows where the second and the third part begin */
    uint32_t strides[3]; /* bytes from one storage row of a part to the next */
    float eps;           /* of the norm */
    uint32_t n_heads, n_kv_heads, head_dim, rope_dims; /* qkv */
    uint32_t layer, n_layers;
    float rope_scale;
    uint32_t padding;
};

#endif
