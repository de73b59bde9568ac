// Kernels without mistakes, for what the language and the collectives are to give: test_run.c.
#include <metal_stdlib>
#include <metal_simdgroup_matrix>
using namespace metal;
#pragma METAL fp contract(off)
#define TWICE(x) ((x) * 2)
constant uint width [[function_constant(0)]];
constant bool with_bias [[function_constant(1)]];
constant uint shift_given [[function_constant(2)]];
constant uint shift = is_function_constant_defined(shift_given) ? shift_given : 7;
constant float table[4] = { 0.5, 1.5f, 2.5e0, 3.5 };
struct Args { uint n; float scale; uint2 two; };
struct block { half d; packed_char4 q[8]; };
typedef float4 quad;

kernel void positions(device uint *o [[buffer(0)]], uint3 g [[threadgroup_position_in_grid]], uint3 t [[thread_position_in_threadgroup]],
                      uint3 n [[threads_per_threadgroup]], uint3 gs [[threadgroups_per_grid]], uint3 p [[thread_position_in_grid]],
                      uint3 all [[threads_per_grid]], uint li [[thread_index_in_threadgroup]], ushort lane [[thread_index_in_simdgroup]],
                      ushort sg [[simdgroup_index_in_threadgroup]], ushort nsg [[simdgroups_per_threadgroup]])
{
    device uint *q = o + 20 * ((p.z * all.y + p.y) * all.x + p.x);
    q[0] = g.x; q[1] = g.y; q[2] = g.z; q[3] = t.x; q[4] = t.y; q[5] = t.z; q[6] = n.x; q[7] = n.y; q[8] = n.z;
    q[9] = gs.x; q[10] = gs.y; q[11] = gs.z; q[12] = p.x; q[13] = p.y; q[14] = p.z; q[15] = li; q[16] = lane; q[17] = sg; q[18] = nsg; q[19] = all.x;
}
kernel void collectives(device float *o [[buffer(0)]], ushort lane [[thread_index_in_simdgroup]], ushort sg [[simdgroup_index_in_threadgroup]])
{
    const float v = float(lane) + 1.0f;
    device float *q = o + (sg * 32 + lane) * 16;
    q[0] = simd_sum(v);
    q[1] = simd_max(v);
    q[2] = simd_min(v);
    q[3] = simd_shuffle(v, 5);
    q[4] = simd_shuffle_xor(v, 3);
    q[5] = lane < 31 ? simd_shuffle_down(v, 1) : (simd_shuffle_down(v, 1), 0.0f);
    q[6] = simd_broadcast_first(v);
    q[7] = simd_prefix_exclusive_sum(v);
    q[8] = simd_prefix_inclusive_sum(v);
    q[9] = simd_all(lane < 32) ? 1.0f : 0.0f;
    q[10] = simd_any(lane == 40) ? 1.0f : 0.0f;
    q[11] = float((simd_vote::vote_t)simd_ballot(lane % 2 == 0));
    q[12] = quad_sum(v);
    q[13] = float(simd_sum(uint(lane)));
    const float4 s4 = simd_sum(float4(v, 1.0f, 0.0f, 2.0));
    q[14] = s4.x + s4.y + s4.w;
    q[15] = float(simd_max(half(v)));
}
kernel void matrices(device const half *a [[buffer(0)]], device const float *b [[buffer(1)]], device float *c [[buffer(2)]],
                     threadgroup float *t [[threadgroup(0)]], ushort lane [[thread_index_in_simdgroup]], ushort sg [[simdgroup_index_in_threadgroup]])
{
    threadgroup float *own = t + sg * 64;
    simdgroup_half8x8 ma;
    simdgroup_float8x8 mb, acc = make_filled_simdgroup_matrix<float, 8>(0.0f), copy;
    for (uint k = 0; k < 16; k += 8) {
        simdgroup_load(ma, a + k, 16);
        simdgroup_load(mb, b + k, 16, ulong2(0, 0), true);          // b is (8, 16): transposed
        simdgroup_multiply_accumulate(acc, ma, mb, acc);
    }
    copy = acc;
    copy.thread_elements()[0] *= 2.0f;
    copy.thread_elements()[1] *= 2.0f;
    simdgroup_float8x8 one(1.0f), sum;
    simdgroup_multiply_accumulate(sum, copy, one, acc);             // 2 acc + acc
    simdgroup_store(sum, own, 8);
    simdgroup_barrier(mem_flags::mem_threadgroup);
    c[sg * 64 + lane] = own[lane];
    c[sg * 64 + 32 + lane] = own[32 + lane];
}
template<typename T, typename T4> kernel void vectors(device const T *x [[buffer(0)]], device float *o [[buffer(1)]], constant Args &args [[buffer(2)]], uint i [[thread_position_in_grid]])
{
    if (i >= args.n) return;
    const T4 v = T4(x[4 * i], x[4 * i + 1], x[4 * i + 2], x[4 * i + 3]);
    const float4 f = (float4)v * args.scale, g = -(float4)v;
    device float *q = o + 8 * i;
    q[0] = dot(f, float4(1));
    q[1] = max(f.x, 2.0f) + min(f, float4(0.25)).y;
    q[2] = float(as_type<uint>(f.x) >> 23);
    q[3] = TWICE(f.wzyx).x + float(args.two.y);
    q[4] = all(f > 0.0f) ? 1.0f : 2.0f;
    q[5] = select(f, g, f > 1.5f).x;
    q[6] = fma(f.x, 3.0f, 1.0) + clamp(f.y, 0.0f, 1.0f) + 1e-3 * table[i & 3];
    q[7] = float(quad(f.xy, 5.0, 6.0f).w) + float2(half2(f.xy)).x + vec<float, 2>(f.zw).y;
}
template [[host_name("vectors_float")]] [[kernel]] decltype(vectors<float, float4>) vectors<float, float4>;
template [[host_name("vectors_half")]] [[kernel]] decltype(vectors<half, half4>) vectors<half, half4>;
kernel void constants(device uint *o [[buffer(0)]], device const uint *bias [[buffer(1), function_constant(with_bias)]], uint i [[thread_position_in_grid]])
{
    o[i] = width + (with_bias ? bias[i] : 0) + (1u << shift);
}
kernel void blocks(device const block *w [[buffer(0)]], device float *o [[buffer(1)]], uint i [[thread_position_in_grid]])
{
    float s = 0;
    for (uint k = 0; k < 8; k++) s += dot(float4(char4(w[i].q[k])), float4(1.0f));
    o[i] = s * float(w[i].d) + float(*(device const half *)(device const uchar *)&w[i].d);
}
kernel void counting(device atomic_uint *n [[buffer(0)]], device uint *o [[buffer(1)]], uint i [[thread_position_in_grid]])
{
    o[i] = atomic_fetch_add_explicit(n, 1u, memory_order_relaxed);
}
kernel void sum_of_group(device const float *x [[buffer(0)]], device float *o [[buffer(1)]], ushort i [[thread_index_in_threadgroup]], ushort n [[threads_per_threadgroup]],
                         uint g [[threadgroup_position_in_grid]])
{
    threadgroup float part[32], all[1];
    float s = simd_sum(x[g * n + i]);
    if (i % 32 == 0) part[i / 32] = s;
    threadgroup_barrier(mem_flags::mem_threadgroup);
    if (i < 32) {
        s = simd_sum(i < (n + 31) / 32 ? part[i] : 0.0f);
        if (i == 0) all[0] = s;
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    if (i == 1) o[g] = all[0];
}
kernel void copied(device const float *x [[buffer(0)]], device float *o [[buffer(1)]], uint i [[thread_position_in_grid]]) { o[i] = x[i / 2]; }
