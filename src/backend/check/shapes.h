/*
 * shapes.h - small models of odd shapes on which whole layers are compared with the reference; the tests of the CPU's
 * kernels use the same.
 */
#ifndef SILL_CHECK_SHAPES_H
#define SILL_CHECK_SHAPES_H

#include "backend/backend.h"

typedef struct sill__check_shape {
    const char *name;
    int32_t width, n_heads, n_kv_heads, head_dim, n_ff, vocab, spare; /* spare: rows of the head beyond the vocabulary */
    sill__norm_kind norm;
    sill__act act;
    sill__rope_kind rope;
    int32_t rope_dims;
    bool bias, positions;
    sill__type type;
    sill__compute compute;
    sill__kv_type kv;
    double bound; /* normalized squared error against the reference */
} sill__check_shape;

static const sill__check_shape sill__check_layer_shapes[] = {
    {"gpt2", 35, 7, 7, 5, 129, 1009, 3, SILL__NORM_LAYER, SILL__ACT_GELU_TANH, SILL__ROPE_NONE, 0, true, true,
     SILL__TYPE_F32, SILL__COMPUTE_F32, SILL__KV_F32, 1e-11},
    {"gpt2_f16kv", 64, 4, 4, 16, 192, 523, 0, SILL__NORM_LAYER, SILL__ACT_GELU_ERF, SILL__ROPE_NONE, 0, true, true,
     SILL__TYPE_F16, SILL__COMPUTE_F16, SILL__KV_F16, 1e-7},
    {"llama_odd", 47, 6, 2, 24, 37, 257, 0, SILL__NORM_RMS, SILL__ACT_SWIGLU, SILL__ROPE_HALF, 16, false, false,
     SILL__TYPE_F32, SILL__COMPUTE_F32, SILL__KV_F32, 1e-11},
    {"llama_bias", 48, 3, 1, 80, 64, 300, 20, SILL__NORM_RMS, SILL__ACT_SWIGLU, SILL__ROPE_ADJACENT, 80, true, false,
     SILL__TYPE_F32, SILL__COMPUTE_F16, SILL__KV_F16, 1e-7},
    {"bf16", 66, 5, 1, 33, 70, 401, 0, SILL__NORM_RMS, SILL__ACT_SILU, SILL__ROPE_HALF, 32, false, true,
     SILL__TYPE_F32, SILL__COMPUTE_BF16, SILL__KV_F32, 2e-5},
    {"bf16_exact", 31, 2, 2, 17, 40, 97, 0, SILL__NORM_LAYER, SILL__ACT_RELU, SILL__ROPE_HALF, 2, true, false,
     SILL__TYPE_BF16, SILL__COMPUTE_F32, SILL__KV_F32, 1e-11},
    {"q4_1", 64, 4, 2, 16, 96, 700, 4, SILL__NORM_RMS, SILL__ACT_SWIGLU, SILL__ROPE_ADJACENT, 16, false, false,
     SILL__TYPE_Q4_1, SILL__COMPUTE_BLOCK_I8, SILL__KV_F16, 2e-4},
    {"q8_0", 96, 3, 3, 32, 64, 331, 0, SILL__NORM_LAYER, SILL__ACT_TANH, SILL__ROPE_NONE, 0, true, true, SILL__TYPE_Q8_0,
     SILL__COMPUTE_BLOCK_I8, SILL__KV_F32, 2e-4},
    {"q4_0_f32", 32, 16, 1, 1, 32, 64, 0, SILL__NORM_RMS, SILL__ACT_SWIGLU, SILL__ROPE_NONE, 0, false, true,
     SILL__TYPE_Q4_0, SILL__COMPUTE_F32, SILL__KV_F32, 1e-11},
    {"gpt2_i8kv", 64, 4, 4, 16, 192, 523, 0, SILL__NORM_LAYER, SILL__ACT_GELU_TANH, SILL__ROPE_NONE, 0, true, true,
     SILL__TYPE_F32, SILL__COMPUTE_F32, SILL__KV_I8, 2e-6},
    {"llama_i8kv", 47, 9, 3, 24, 37, 257, 0, SILL__NORM_RMS, SILL__ACT_SWIGLU, SILL__ROPE_HALF, 24, false, false,
     SILL__TYPE_F32, SILL__COMPUTE_F32, SILL__KV_I8, 2e-6},
    {"int8", 67, 5, 5, 13, 70, 211, 0, SILL__NORM_LAYER, SILL__ACT_GELU_TANH, SILL__ROPE_NONE, 0, true, true, SILL__TYPE_F32,
     SILL__COMPUTE_INT8, SILL__KV_F16, 5e-4},
    {"made_q8", 64, 4, 2, 16, 96, 300, 0, SILL__NORM_RMS, SILL__ACT_SWIGLU, SILL__ROPE_HALF, 16, false, false,
     SILL__TYPE_BF16, SILL__COMPUTE_BLOCK_I8, SILL__KV_F16, 2e-4},
    {"widest_heads", 40, 2, 1, 512, 48, 97, 0, SILL__NORM_RMS, SILL__ACT_SWIGLU, SILL__ROPE_HALF, 512, false, false,
     SILL__TYPE_F32, SILL__COMPUTE_F32, SILL__KV_F32, 1e-11},
};

#endif
