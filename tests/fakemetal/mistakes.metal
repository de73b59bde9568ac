// Kernels with mistakes that show when they run: test_kernels.c. And "twice", which has none.
#include <metal_stdlib>
#include <metal_simdgroup_matrix>
using namespace metal;
#pragma METAL fp contract(off)
constant uint kind [[function_constant(0)]];

kernel void twice(device float *x [[buffer(0)]], constant uint &n [[buffer(1)]], uint i [[thread_position_in_grid]]) { if (i < n) x[i] *= 2.0f; }
kernel void aligned(device float4 *x [[buffer(0)]], uint i [[thread_position_in_grid]]) { if (i == 0) x[0] = float4(0.0f); }
kernel void needs_kind(device float *x [[buffer(0)]], uint i [[thread_position_in_grid]]) { if (i == 0) x[0] = float(kind); }
kernel void reads_past(device const float *x [[buffer(0)]], device float *y [[buffer(1)]], uint i [[thread_position_in_grid]]) { y[i] = x[i + 1]; }
kernel void reads_before(device const float *x [[buffer(0)]], device float *y [[buffer(1)]], uint i [[thread_position_in_grid]]) { y[i] = x[(int)i - 1]; }
kernel void writes_past(device float *y [[buffer(0)]], uint i [[thread_position_in_grid]]) { y[i + 1] = 1.0f; }
kernel void half_barrier(device float *y [[buffer(0)]], ushort i [[thread_position_in_threadgroup]])
{
    if (i < 32) threadgroup_barrier(mem_flags::mem_threadgroup);
    y[i] = 1.0f;
}
kernel void half_sum(device float *y [[buffer(0)]], ushort i [[thread_position_in_threadgroup]])
{
    float s = 1.0f;
    if (i % 32 < 16) s = simd_sum(s);
    y[i] = s;
}
kernel void two_barriers(device float *y [[buffer(0)]], ushort i [[thread_position_in_threadgroup]])
{
    if (i < 32) threadgroup_barrier(mem_flags::mem_threadgroup);
    else threadgroup_barrier(mem_flags::mem_threadgroup | mem_flags::mem_device), y[i] = 0.0f;
}
kernel void no_barrier(device float *y [[buffer(0)]], ushort i [[thread_position_in_threadgroup]])
{
    threadgroup float t[64];
    t[i] = float(i);
    y[i] = t[63 - i];
}
kernel void barrier_of_other_memory(device float *y [[buffer(0)]], ushort i [[thread_position_in_threadgroup]])
{
    threadgroup float t[64];
    t[i] = float(i);
    threadgroup_barrier(mem_flags::mem_device);
    y[i] = t[63 - i];
}
kernel void no_simd_barrier(device float *y [[buffer(0)]], ushort i [[thread_position_in_threadgroup]])
{
    threadgroup float t[32];
    t[i] = float(i);
    y[i] = t[31 - i];
}
kernel void device_race(device float *y [[buffer(0)]], ushort i [[thread_position_in_threadgroup]])
{
    y[i] = float(i);
    threadgroup_barrier(mem_flags::mem_threadgroup);
    if (i == 0) y[64] = y[63];
}
kernel void groups_race(device float *y [[buffer(0)]], ushort i [[thread_position_in_threadgroup]], uint g [[threadgroup_position_in_grid]])
{
    if (i == 0) y[0] = float(g);
}
kernel void outside_tg(device float *y [[buffer(0)]], threadgroup float *t [[threadgroup(0)]], ushort i [[thread_position_in_threadgroup]])
{
    t[i] = 1.0f;
    y[i] = t[i];
}
kernel void too_much_tg(device float *y [[buffer(0)]], threadgroup float *d [[threadgroup(0)]], ushort i [[thread_position_in_threadgroup]])
{
    threadgroup float t[6144];
    t[i] = d[i] = 1.0f;
    y[i] = t[i] + d[i];
}
kernel void far_too_much_tg(device float *y [[buffer(0)]], ushort i [[thread_position_in_threadgroup]])
{
    threadgroup float t[9000];
    t[i] = 1.0f;
    y[i] = t[i];
}
kernel void different_matrices(device float *y [[buffer(0)]], ushort i [[thread_position_in_threadgroup]])
{
    simdgroup_float8x8 m;
    simdgroup_load(m, y + (i & 1) * 64, 8);
    simdgroup_store(m, y, 8);
    threadgroup_barrier(mem_flags::mem_device);
}
kernel void returned_early(device float *y [[buffer(0)]], ushort i [[thread_position_in_threadgroup]])
{
    if (i == 5) return;
    y[i] = simd_sum(1.0f);
}
[[kernel, max_total_threads_per_threadgroup(64)]] void at_most_64(device float *y [[buffer(0)]], ushort i [[thread_position_in_threadgroup]]) { y[i] = 1.0f; }
kernel void deep(device float *y [[buffer(0)]], ushort i [[thread_position_in_threadgroup]])
{
    float own[20000];
    for (uint k = 0; k < 20000; k++) own[k] = y[128 + (k & 7)];
    for (uint k = 1; k < 20000; k++) own[k] += own[(k * 7919u) % k];
    y[i] = own[(uint)y[128] % 20000];
}
