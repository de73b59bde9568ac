/*
 * args_vec.h - arguments of the kernels in vec.metal, attention.metal, head.metal and sample.metal, and the codes that
 * host and kernels give to kinds. See args.h.
 */
#ifndef SILL_MTL_ARGS_VEC_H
#define SILL_MTL_ARGS_VEC_H

/* The values of sill__norm_kind, sill__act, sill__rope_kind and sill__kv_type. */
#define MTL_NORM_NONE 0u
#define MTL_NORM_LAYER 1u
#define MTL_NORM_RMS 2u
#define MTL_ACT_NONE 0u
#define MTL_ACT_GELU_TANH 1u
#define MTL_ACT_GELU_ERF 2u
#define MTL_ACT_RELU 3u
#define MTL_ACT_SILU 4u
#define MTL_ACT_TANH 5u
#define MTL_ACT_SWIGLU 6u
#define MTL_ROPE_NONE 0u
#define MTL_ROPE_HALF 1u
#define MTL_ROPE_ADJACENT 2u
#define MTL_KV_F32 0u
#define MTL_KV_F16 1u
#define MTL_KV_I8 2u

#define MTL_MAX_HEAD_DIM 256

#endif
