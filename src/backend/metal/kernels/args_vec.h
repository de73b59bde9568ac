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

/* The values of sill__type. */
#define MTL_TYPE_F32 0u
#define MTL_TYPE_F16 1u
#define MTL_TYPE_BF16 2u
#define MTL_TYPE_Q8_0 3u
#define MTL_TYPE_Q4_0 4u
#define MTL_TYPE_Q4_1 5u
#define MTL_TYPE_Q5_0 6u
#define MTL_TYPE_Q5_1 7u
#define MTL_TYPE_Q4_K 8u
#define MTL_TYPE_Q5_K 9u
#define MTL_TYPE_Q6_K 10u

#define MTL_MAX_HEAD_DIM 256 /* widest heads that attention takes */

/* Rows of tables: bytes of a stored row, and how many rows there are. */
struct mtl_embed_args { uint32_t width, n_ids, n_positions, padding; uint64_t wte_row, wpe_row; };
struct mtl_norm_args { uint32_t n, width; float eps; };
struct mtl_rope_kv_args { uint32_t n_heads, n_kv_heads, layer, n_layers; float rope_scale; };
struct mtl_kv_copy_args { uint32_t from, to, n, n_panels; }; /* blocks, positions, panels of a block */
struct mtl_attention_args {
    uint32_t n_runs, n_heads, n_kv_heads, layer, n_layers;
    uint32_t one_tile_each; /* the query rows of each run and KV head fit one tile */
    float scale;
};
struct mtl_head_args { uint32_t n_vocab, stride, n_chunks, n_top, first_target; };
struct mtl_sample_args { uint32_t n_vocab, want_logprobs; };
struct mtl_sample_row {
    float temperature, top_p, min_p;
    int32_t top_k;
    uint32_t seed_low, seed_high, key_low, key_high, sequence, step;
};

#endif
