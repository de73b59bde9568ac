/*
 * mat_neon.h - what mat.inc needs beyond simd_neon.h: AArch64 NEON, with the dot products and bf16 where the compiler
 * flags give them.
 */
enum { VL = LANES, NV = 4 };
#define MR_FLOAT 6 /* most rows of a tile */
/* Compilers move the loads of the next steps ahead, and then have too few registers for the sums: hold them back. */
#define PIN(a) __asm__ volatile("" : "+w"(a) : : "memory")
#ifdef __ARM_FEATURE_DOTPROD
#define PIN_SUM PIN
#else
#define PIN_SUM(a) __asm__ volatile("" : "+w"((a).val[0]), "+w"((a).val[1]) : : "memory")
#endif
#ifdef __ARM_FEATURE_DOTPROD
#define MR_CODES 4
#else
#define MR_CODES 2 /* an integer sum takes two registers */
#endif
#define MR_HELD 1 /* most rows whose f32 sums fit beside the integer ones */
#define MR_WHOLE MR_CODES /* most rows whose integer sums of all outputs fit */
#define MR_ROW8 MR_CODES

/* The first and the second of VL pairs of bf16. */
SILL__INLINE vf vf_load_bf16_even(const uint8_t *p) {
    return vreinterpretq_f32_u32(vshlq_n_u32(vreinterpretq_u32_u8(vld1q_u8(p)), 16));
}
SILL__INLINE vf vf_load_bf16_odd(const uint8_t *p) {
    return vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_u8(vld1q_u8(p)), vdupq_n_u32(0xffff0000u)));
}

typedef int8x16_t vc; /* VL outputs x 4 codes */
SILL__INLINE vc vc_load(const uint8_t *p) { return vreinterpretq_s8_u8(vld1q_u8(p)); }
SILL__INLINE vc vc_low(vc a) { return vandq_s8(a, vdupq_n_s8(15)); }
SILL__INLINE vc vc_high(vc a) { return vreinterpretq_s8_u8(vshrq_n_u8(vreinterpretq_u8_s8(a), 4)); }
/* The i-th of each lane's four signed codes. */
SILL__INLINE vf vc_float(vc a, int i) {
    int32x4_t up = vshlq_s32(vreinterpretq_s32_s8(a), vdupq_n_s32(24 - 8 * i));
    return vcvtq_f32_s32(vshrq_n_s32(up, 24));
}

/* Sixteen rounded activations: stored, and their sum. */
SILL__INLINE void x16_store_i8(uint8_t *p, const vi *a) {
    int16x8_t lo = vcombine_s16(vmovn_s32(a[0]), vmovn_s32(a[1])), hi = vcombine_s16(vmovn_s32(a[2]), vmovn_s32(a[3]));
    vst1q_u8(p, vreinterpretq_u8_s8(vcombine_s8(vmovn_s16(lo), vmovn_s16(hi))));
}
SILL__INLINE void x16_store_i16(uint8_t *p, const vi *a) { (void)p, (void)a; } /* not wanted here */
SILL__INLINE int32_t x16_sum(const vi *a) {
    return vaddvq_s32(vaddq_s32(vaddq_s32(a[0], a[1]), vaddq_s32(a[2], a[3])));
}

/* Signed codes by signed activations. */
enum { Q8_ZERO = 0, Q8_ACT_BYTES = 1 };
#ifdef __ARM_FEATURE_MATMUL_INT8
enum { Q8_KPACK = 8, Q4_KPACK = 8 };
#define MAT_PAIRS /* mat_pairs.inc has the products */
#else
enum { Q8_KPACK = 4, Q4_KPACK = 4 };
#endif
typedef int8x16_t vq; /* codes or activations, ready for the product */
#ifdef MAT_PAIRS
typedef int32x4_t vsum; /* VL outputs' integer sums */
SILL__INLINE vsum q8_start(int32_t correction) { return (void)correction, vdupq_n_s32(0); }
SILL__INLINE vsum q8_done(vsum acc, int32_t correction) { return vaddq_s32(acc, vdupq_n_s32(correction)); }
SILL__INLINE vf vsum_float(vsum a) { return vcvtq_f32_s32(a); }
#else
SILL__INLINE vq q8_weights(const uint8_t *p) { return vc_load(p); }
SILL__INLINE vq q_inputs(const uint8_t *x) {
    int32_t v;
    memcpy(&v, x, 4);
    return vreinterpretq_s8_s32(vdupq_n_s32(v));
}
#ifdef __ARM_FEATURE_DOTPROD
typedef int32x4_t vsum; /* VL outputs' integer sums */
SILL__INLINE vsum q8_start(int32_t correction) { return vdupq_n_s32(correction); }
SILL__INLINE vsum q8_dot(vsum acc, vq w, vq x) { return vdotq_s32(acc, w, x); }
SILL__INLINE vsum q8_done(vsum acc, int32_t correction) { return (void)correction, acc; }
SILL__INLINE vf vsum_float(vsum a) { return vcvtq_f32_s32(a); }
#else
typedef int32x4x2_t vsum; /* two partial sums of each of VL outputs, which q8_done brings together */
SILL__INLINE vsum q8_start(int32_t correction) {
    (void)correction;
    return (vsum){{vdupq_n_s32(0), vdupq_n_s32(0)}};
}
SILL__INLINE vsum q8_dot(vsum acc, vq w, vq x) { /* a product fits 16 bits for every byte, -128 included */
    acc.val[0] = vpadalq_s16(acc.val[0], vmull_s8(vget_low_s8(w), vget_low_s8(x)));
    acc.val[1] = vpadalq_s16(acc.val[1], vmull_high_s8(w, x));
    return acc;
}
SILL__INLINE vsum q8_done(vsum acc, int32_t correction) {
    acc.val[0] = vaddq_s32(vpaddq_s32(acc.val[0], acc.val[1]), vdupq_n_s32(correction));
    return acc;
}
SILL__INLINE vf vsum_float(vsum a) { return vcvtq_f32_s32(a.val[0]); }
#endif
SILL__INLINE vsum q4_dot(vsum acc, vq w, vq x) { return q8_dot(acc, w, x); }
#endif
SILL__INLINE vsum q4_start(int32_t correction) { return q8_start(correction); }
SILL__INLINE vsum q4_done(vsum acc, int32_t correction) { return q8_done(acc, correction); }

#ifdef __ARM_FEATURE_BF16_VECTOR_ARITHMETIC
enum { BF16_KPACK = 4 };
#define MAT_HAS_BF16_DOT
#define MAT_BF16_PAIRS /* mat_bf16_pairs.inc has the products */
#else
enum { BF16_KPACK = 0 };
#endif
