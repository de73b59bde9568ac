/*
 * mat_avx512.h - what mat.inc needs beyond simd_avx512.h on AVX-512 (F, BW, VL, DQ; with VNNI and BF16 where the compiler flags give them).
 */

enum { VL = LANES, NV = 2 };
#define MR_FLOAT 12 /* most rows of a tile */
#define MR_CODES 8
#define MR_HELD 8  /* most rows whose f32 sums fit beside integer ones */
#define MR_WHOLE 6 /* most rows whose f32 sums fit beside the integer ones of all outputs */
#define MR_ROW8 12
typedef __m512i vc; /* VL outputs x 4 codes */

/* The first and the second of VL pairs of bf16. */
SILL__INLINE vf vf_load_bf16_even(const uint8_t *p) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_loadu_si512((const void *)p), 16));
}
SILL__INLINE vf vf_load_bf16_odd(const uint8_t *p) {
    return _mm512_castsi512_ps(_mm512_and_si512(_mm512_loadu_si512((const void *)p), _mm512_set1_epi32((int)0xffff0000u)));
}

SILL__INLINE vc vc_load(const uint8_t *p) { return _mm512_loadu_si512((const void *)p); }
SILL__INLINE vc vc_low(vc a) { return _mm512_and_si512(a, _mm512_set1_epi8(15)); }
SILL__INLINE vc vc_high(vc a) { return _mm512_and_si512(_mm512_srli_epi16(a, 4), _mm512_set1_epi8(15)); }
/* The i-th of each lane's four signed codes. */
SILL__INLINE vf vc_float(vc a, int i) {
    return _mm512_cvtepi32_ps(_mm512_srai_epi32(_mm512_slli_epi32(a, (unsigned)(24 - 8 * i)), 24));
}

typedef __m512i vsum; /* VL outputs' integer sums, or partial ones that q4_done brings together */
typedef __m512i vq;   /* codes or activations, ready for the product */
SILL__INLINE vf vsum_float(vsum a) { return _mm512_cvtepi32_ps(a); }
SILL__INLINE vq q_inputs(const uint8_t *x) {
    int32_t v;
    memcpy(&v, x, 4);
    return _mm512_set1_epi32(v);
}

/* Sixteen rounded activations: stored, and their sum. */
SILL__INLINE void x16_store_i8(uint8_t *p, const vi *a) { _mm_storeu_si128((void *)p, _mm512_cvtepi32_epi8(a[0])); }
SILL__INLINE void x16_store_i16(uint8_t *p, const vi *a) { _mm256_storeu_si256((void *)p, _mm512_cvtepi32_epi16(a[0])); }
SILL__INLINE int32_t x16_sum(const vi *a) { return _mm512_reduce_add_epi32(a[0]); }

#ifdef __AVX512VNNI__
/* u8 codes by s8 activations; the sum starts at -zero * (sum of activations). */
enum { Q8_KPACK = 4, Q4_KPACK = 4, Q8_ZERO = 128, Q8_ACT_BYTES = 1 };
SILL__INLINE vsum q8_start(int32_t correction) { return _mm512_set1_epi32(correction); }
SILL__INLINE vq q8_weights(const uint8_t *p) { return _mm512_loadu_si512((const void *)p); }
SILL__INLINE vsum q8_dot(vsum acc, vq w, vq x) { return _mm512_dpbusd_epi32(acc, w, x); }
SILL__INLINE vsum q8_done(vsum acc, int32_t correction) { (void)correction; return acc; }
SILL__INLINE vsum q4_start(int32_t correction) { return _mm512_set1_epi32(correction); }
SILL__INLINE vsum q4_dot(vsum acc, vq w, vq x) { return _mm512_dpbusd_epi32(acc, w, x); }
SILL__INLINE vsum q4_done(vsum acc, int32_t correction) { (void)correction; return acc; }
#else
/* Keeps the compiler from gathering the integer sums of many steps into a tree, for which it lacks registers. */
SILL__INLINE vsum in_order(vsum a) {
    __asm__("" : "+v"(a));
    return a;
}
/* Signed codes and activations widened to 16 bits: products of pairs fit 32 bits for every stored byte. */
enum { Q8_KPACK = 2, Q4_KPACK = 4, Q8_ZERO = 0, Q8_ACT_BYTES = 2 };
SILL__INLINE vsum q8_start(int32_t correction) { return _mm512_set1_epi32(correction); }
SILL__INLINE vq q8_weights(const uint8_t *p) { return _mm512_cvtepi8_epi16(_mm256_loadu_si256((const void *)p)); }
SILL__INLINE vsum q8_dot(vsum acc, vq w, vq x) { return in_order(_mm512_add_epi32(acc, _mm512_madd_epi16(w, x))); }
SILL__INLINE vsum q8_done(vsum acc, int32_t correction) { (void)correction; return acc; }
/* Four-bit codes: a group's sums of pairs fit 16 bits (8 * 2 * 15 * 127 = 30,480). */
SILL__INLINE vsum q4_start(int32_t correction) { (void)correction; return _mm512_setzero_si512(); }
SILL__INLINE vsum q4_dot(vsum acc, vq w, vq x) { return in_order(_mm512_add_epi16(acc, _mm512_maddubs_epi16(w, x))); }
SILL__INLINE vsum q4_done(vsum acc, int32_t correction) {
    return _mm512_add_epi32(_mm512_madd_epi16(acc, _mm512_set1_epi16(1)), _mm512_set1_epi32(correction));
}
#endif

#ifdef __AVX512BF16__
enum { BF16_KPACK = 2 };
#define MAT_HAS_BF16_DOT
SILL__INLINE vf bf16_dot(vf acc, const uint8_t *w, const uint8_t *x) {
    int32_t pair;
    memcpy(&pair, x, 4);
    return _mm512_dpbf16_ps(acc, (__m512bh)_mm512_loadu_si512(w), (__m512bh)_mm512_set1_epi32(pair));
}
#else
enum { BF16_KPACK = 0 };
#endif
