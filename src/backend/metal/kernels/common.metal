/*
 * common.metal - what the kernels share: function constants, sums in a fixed order, norms, activations, rotary
 * embedding, and the layout of keys and values. It stands in front of the other kernels (after args*.h), and needs
 * no more than family Apple7 (M1) and MSL 2.3 have.
 *
 * Sums over lanes go through butterflies of shuffles and over SIMD groups in ascending order, so that they are a
 * function of their values alone, on every device alike. Fused multiply-adds are written where they are meant; the
 * library is compiled without contraction. Only precise:: functions.
 */
#include <metal_stdlib>
#include <metal_simdgroup_matrix>
using namespace metal;

/* Shared by all kernels, which give them names of their own by macros: an index may be declared once. */
constant uint FC0 [[function_constant(0)]];
constant uint FC1 [[function_constant(1)]];
constant uint FC2 [[function_constant(2)]];
constant uint FC3 [[function_constant(3)]];
constant uint FC4 [[function_constant(4)]];
constant uint FC5 [[function_constant(5)]];
constant uint FC6 [[function_constant(6)]];
constant uint FC7 [[function_constant(7)]];
constant uint FC8 [[function_constant(8)]];
constant uint FC9 [[function_constant(9)]];
constant uint FC10 [[function_constant(10)]];
constant uint FC11 [[function_constant(11)]];

/* In front of a loop whose counter indexes an array that is to stay in registers. */
#ifndef UNROLL
#define UNROLL _Pragma("clang loop unroll(full)")
#endif

/* ------------------------------------------------------------ sums and maxima */

/* In all 32 lanes, the same bits in each. */
static inline float simd_total(float v) {
    v += simd_shuffle_xor(v, (ushort)16);
    v += simd_shuffle_xor(v, (ushort)8);
    v += simd_shuffle_xor(v, (ushort)4);
    v += simd_shuffle_xor(v, (ushort)2);
    return v + simd_shuffle_xor(v, (ushort)1);
}

/* The larger one; a NaN where either is one. */
static inline float larger(float a, float b) { return a > b || a != a ? a : b; }
static inline float smaller(float a, float b) { return a < b || a != a ? a : b; }

static inline float simd_largest(float v) {
    v = larger(v, simd_shuffle_xor(v, (ushort)16));
    v = larger(v, simd_shuffle_xor(v, (ushort)8));
    v = larger(v, simd_shuffle_xor(v, (ushort)4));
    v = larger(v, simd_shuffle_xor(v, (ushort)2));
    return larger(v, simd_shuffle_xor(v, (ushort)1));
}

static inline float simd_smallest(float v) { return -simd_largest(-v); }

/* Over the SIMD groups of a threadgroup; v is the same in all lanes of a group. All threads call it and get it; `part`
 * holds n_groups values and is free again afterwards. */
static inline float group_total_of(float v, threadgroup float *part, uint group, uint n_groups, uint lane) {
    if (lane == 0) part[group] = v;
    threadgroup_barrier(mem_flags::mem_threadgroup);
    float sum = part[0];
    for (uint i = 1; i < n_groups; i++) sum += part[i];
    threadgroup_barrier(mem_flags::mem_threadgroup);
    return sum;
}
static inline float group_total(float v, threadgroup float *part, uint group, uint n_groups, uint lane) {
    return group_total_of(simd_total(v), part, group, n_groups, lane);
}
static inline float group_largest(float v, threadgroup float *part, uint group, uint n_groups, uint lane) {
    v = simd_largest(v);
    if (lane == 0) part[group] = v;
    threadgroup_barrier(mem_flags::mem_threadgroup);
    float most = part[0];
    for (uint i = 1; i < n_groups; i++) most = larger(most, part[i]);
    threadgroup_barrier(mem_flags::mem_threadgroup);
    return most;
}

/* --------------------------------------------------------------------- norms */

/* A row's mean (0 for RMS) and 1 / deviation, by one SIMD group: lane i takes values i, i + 32, ... in order. */
static inline void norm_stats(device const float *x, uint n, uint kind, float eps, uint lane, thread float &mean,
                              thread float &scale) {
    float sum = 0.0f, square = 0.0f;
    if (kind == MTL_NORM_LAYER) {
        for (uint i = lane; i < n; i += 32) sum += x[i];
        sum = simd_total(sum) / (float)n;
    }
    for (uint i = lane; i < n; i += 32) {
        const float d = x[i] - sum;
        square = fma(d, d, square);
    }
    mean = sum;
    scale = 1.0f / precise::sqrt(simd_total(square) / (float)n + eps);
}

/* (x - mean) * scale * weight + bias; weight and bias may be absent. */
static inline float norm_value(float x, float mean, float scale, float weight, float bias) {
    return fma((x - mean) * scale, weight, bias);
}

/* --------------------------------------------------------------- activations */

/* 0.5 (1 + tanh u) is 1 / (1 + e^-2u), which keeps the small values that the sum would lose. */
static inline float act_gelu_tanh(float x) {
    const float u = -1.5957691216f * fma(0.044715f, x * x * x, x);
    return x / (1.0f + precise::exp(u));
}

/* x times the normal distribution function. erfc(a) = e^(-a^2) P(1 / (1 + 0.3 a)) for a = |x| / sqrt(2); P is a
 * least-maximum fit to erfc(a) e^(a^2) on 0 <= a <= 10 with relative error below 5e-8, as on the CPU. */
static inline float act_gelu_erf(float x) {
    const float t = 1.0f / fma(0.3f, fabs(x) * 0.70710678118f, 1.0f);
    float p = fma(-0.12652000784873962f, t, 0.46884119510650635f);
    p = fma(p, t, -0.47181275486946106f);
    p = fma(p, t, 0.49195048213005066f);
    p = fma(p, t, -0.04647788405418396f);
    p = fma(p, t, 0.18791811168193817f);
    p = fma(p, t, 0.15815474092960358f);
    p = fma(p, t, 0.16848774254322052f);
    p = fma(p, t, 0.16947418451309204f);
    p = fma(p, t, -1.5852750948397443e-5f);
    const float tail = 0.5f * p * precise::exp(-0.5f * x * x);
    return x * (x < 0.0f ? tail : 1.0f - tail);
}

static inline float act_silu(float x) { return x / (1.0f + precise::exp(-x)); }

/* SwiGLU's: that of the gate. */
static inline float activate(uint act, float x) {
    switch (act) {
    case MTL_ACT_GELU_TANH: return act_gelu_tanh(x);
    case MTL_ACT_GELU_ERF: return act_gelu_erf(x);
    case MTL_ACT_RELU: return x < 0.0f ? 0.0f : x;
    case MTL_ACT_SILU:
    case MTL_ACT_SWIGLU: return act_silu(x);
    case MTL_ACT_TANH: return precise::tanh(x);
    default: return x;
    }
}

/* ---------------------------------------------------------- rotary embedding */

/* Rotates the pair (x, y) of one head by position * inv_freq: the angle is their product in f32. scale: of cosine and
 * sine. */
static inline void rope_pair(thread float &x, thread float &y, int position, float inv_freq, float scale) {
    const float angle = (float)position * inv_freq;
    const float c = precise::cos(angle) * scale, s = precise::sin(angle) * scale;
    const float a = x, b = y;
    x = fma(a, c, -(b * s));
    y = fma(a, s, b * c);
}

/* The other one of value i's pair in a head (i itself: it is not rotated), and the pair's number. */
static inline uint rope_partner(uint kind, uint dims, uint i, thread uint &pair) {
    const uint half_dims = dims / 2;
    pair = kind == MTL_ROPE_HALF ? (i < half_dims ? i : i - half_dims) : i / 2;
    if (kind == MTL_ROPE_NONE || i >= dims) return i;
    return kind == MTL_ROPE_HALF ? (i < half_dims ? i + half_dims : i - half_dims) : i ^ 1u;
}

/* ----------------------------------------------------------- keys and values */

/* The cache is (block, layer, k or v, kv head) panels of 32 positions: f32 or f16 (32, dim), or int8 codes (32, dim)
 * followed by (32, 2) f32, scale and offset of each position: a value is offset + scale * code (v: offset 0). */
static inline uint kv_panel_bytes(uint type, uint dim) {
    return MTL_KV_BLOCK * (type == MTL_KV_F32 ? 4 * dim : type == MTL_KV_F16 ? 2 * dim : dim + 8);
}
static inline ulong kv_panel_at(uint type, uint dim, uint n_layers, uint n_heads, uint block, uint layer, uint which,
                                uint head) {
    return (((ulong)block * n_layers + layer) * 2 + which) * ((ulong)n_heads * kv_panel_bytes(type, dim)) +
           (ulong)head * kv_panel_bytes(type, dim);
}

/* The f32 or f16 value i of a position's key or value. */
static inline void kv_store(device uchar *panel, uint type, uint dim, uint slot, uint i, float x) {
    if (type == MTL_KV_F32) ((device float *)panel)[slot * dim + i] = x;
    else ((device half *)panel)[slot * dim + i] = (half)x;
}

/* All of an int8 position by one SIMD group: lane l holds values l, l + 32, ... of x, n of them in all (n <= 32 * the
 * length of x). Codes as in ref.c: k: the range cut into 255 steps, v: max |x| / 127. */
static inline void kv_store_i8(device uchar *panel, uint dim, uint slot, bool is_v, thread const float *x, uint lane) {
    float low = INFINITY, high = -INFINITY, odd = 0.0f;
    for (uint i = lane, k = 0; i < dim; i += 32, k++) {
        low = min(low, x[k]);
        high = max(high, x[k]);
        odd += x[k] * 0.0f;
    }
    low = simd_smallest(low);
    high = simd_largest(high);
    odd = simd_total(odd);
    const float span = is_v ? max(-low, high) : high - low, steps = is_v ? 127.0f : 255.0f;
    const float inv = span > 1e-30f ? steps / span : 0.0f, shift = is_v ? 0.0f : -low * inv - 128.0f;
    for (uint i = lane, k = 0; i < dim; i += 32, k++) {
        const float code = max(min(rint(x[k] * inv + shift), 127.0f), is_v ? -127.0f : -128.0f);
        ((device char *)panel)[slot * dim + i] = (char)code;
    }
    if (lane == 0) {
        device float *end = (device float *)(panel + MTL_KV_BLOCK * dim) + 2 * slot;
        end[0] = span / steps + odd;
        end[1] = is_v ? 0.0f : low + 128.0f * (span / steps + odd);
    }
}

/* Values [i, i + 4) of a position, 0 from dim on; i is a multiple of 4. */
static inline float4 kv_load4(device const uchar *panel, uint type, uint dim, uint slot, uint i) {
    const uint at = slot * dim + i;
    float4 v = float4(0.0f);
    if (type == MTL_KV_F32) {
        device const float *p = (device const float *)panel + at;
        if (dim % 4 == 0) return *(device const float4 *)p;
        for (uint k = 0; k < 4 && i + k < dim; k++) v[k] = p[k];
    } else if (type == MTL_KV_F16) {
        device const half *p = (device const half *)panel + at;
        if (dim % 4 == 0) return float4(*(device const half4 *)p);
        for (uint k = 0; k < 4 && i + k < dim; k++) v[k] = (float)p[k];
    } else {
        device const char *p = (device const char *)panel + at;
        device const float *end = (device const float *)(panel + MTL_KV_BLOCK * dim) + 2 * slot;
        const float scale = end[0], offset = end[1];
        if (dim % 4 == 0) return fma(float4(*(device const char4 *)p), float4(scale), float4(offset));
        for (uint k = 0; k < 4 && i + k < dim; k++) v[k] = fma((float)p[k], scale, offset);
    }
    return v;
}
