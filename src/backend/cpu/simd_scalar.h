/*
 * simd_scalar.h - the vocabulary of simd_avx2.h in plain C: 1 float. For machines without a body of their own, and for
 * finding out whether an instruction set is at fault. vf_fma is a product and a sum, each rounded: no library call.
 */
#ifndef SILL_CPU_SIMD_H
#define SILL_CPU_SIMD_H

#include <stdint.h>
#include <string.h>

#include "base/base.h"

#define LANES 1
typedef float vf;
typedef uint32_t vi;

static inline vf vf_zero(void) { return 0; }
static inline vf vf_set1(float x) { return x; }
static inline vf vf_load(const float *p) { return *p; }
static inline vf vf_load_n(const float *p, int n) { return n ? *p : 0; }
static inline void vf_store(float *p, vf v) { *p = v; }
static inline void vf_store_n(float *p, vf v, int n) {
    if (n) *p = v;
}
static inline vf vf_add(vf a, vf b) { return a + b; }
static inline vf vf_sub(vf a, vf b) { return a - b; }
static inline vf vf_mul(vf a, vf b) { return a * b; }
static inline vf vf_div(vf a, vf b) { return a / b; }
static inline vf vf_max(vf a, vf b) { return a > b ? a : b; }
static inline vf vf_min(vf a, vf b) { return a < b ? a : b; }
static inline vf vf_fma(vf a, vf b, vf c) { return a * b + c; }
static inline vf vf_fnma(vf a, vf b, vf c) { return c - a * b; }
static inline vf vf_abs(vf a) { return __builtin_fabsf(a); }
static inline vf vf_copysign(vf a, vf sign) { return __builtin_copysignf(a, sign); }
static inline vf vf_if_less(vf a, vf b, vf x, vf y) { return a < b ? x : y; }
static inline vf vf_keep(vf v, int n, vf other) { return n > 0 ? v : other; }

static inline vi vi_set1(int32_t x) { return (uint32_t)x; }
static inline vi vi_add(vi a, vi b) { return a + b; }
static inline vi vi_sub(vi a, vi b) { return a - b; }
static inline vi vi_max(vi a, vi b) { return (int32_t)a > (int32_t)b ? a : b; }
static inline int32_t vi_highest(vi a) { return (int32_t)a; }
static inline vi vi_shl(vi a, int n) { return a << n; }
static inline vi vi_sar(vi a, int n) { return a >> n | (a >> 31 ? ~(~0u >> n) : 0u); }
static inline vi vi_from_bits(vf a) { return sill__f32_bits(a); }
static inline vf vf_from_bits(vi a) { return sill__bits_f32(a); }

static inline vf vf_load_f16(const uint16_t *p) { return sill__f16_to_f32(*p); }
static inline void vf_store_f16(uint16_t *p, vf v) { *p = sill__f32_to_f16(v); }
static inline vf vf_load_bf16(const uint16_t *p) { return sill__bf16_to_f32(*p); }
static inline vf vf_load_i8(const uint8_t *p) { return (int8_t)*p; }

static inline float vf_sum(vf v) { return v; }
static inline float vf_highest(vf v) { return v; }

#endif
