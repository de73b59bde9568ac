/*
 * mat_avx2.h - what mat.inc needs beyond simd_avx2.h on AVX2 with FMA and F16C.
 */

enum { VL = LANES, NV = 2 };
#define MR_FLOAT 6 /* most rows of a tile */
#define MR_CODES 4
#define MR_HELD 1 /* most rows whose f32 sums fit beside the integer ones */
#define MR_WHOLE MR_CODES /* most rows whose integer sums of all outputs fit */
#define MR_ROW8 MR_CODES
typedef __m256i vc; /* VL outputs x 4 codes */

/* The first and the second of VL pairs of bf16. */
SILL__INLINE vf vf_load_bf16_even(const uint8_t *p) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_loadu_si256((const void *)p), 16));
}
SILL__INLINE vf vf_load_bf16_odd(const uint8_t *p) {
    __m256i w = _mm256_loadu_si256((const void *)p); /* two shifts: no register is left for a mask */
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_srli_epi32(w, 16), 16));
}

SILL__INLINE vc vc_load(const uint8_t *p) { return _mm256_loadu_si256((const void *)p); }
SILL__INLINE vc vc_low(vc a) { return _mm256_and_si256(a, _mm256_set1_epi8(15)); }
SILL__INLINE vc vc_high(vc a) { return _mm256_and_si256(_mm256_srli_epi16(a, 4), _mm256_set1_epi8(15)); }
/* The i-th of each lane's four signed codes. */
SILL__INLINE vf vc_float(vc a, int i) {
    return _mm256_cvtepi32_ps(_mm256_srai_epi32(_mm256_slli_epi32(a, 24 - 8 * i), 24));
}

typedef __m256i vsum; /* VL outputs' integer sums, or partial ones that q4_done brings together */
typedef __m256i vq;   /* codes or activations, ready for the product */
SILL__INLINE vf vsum_float(vsum a) { return _mm256_cvtepi32_ps(a); }
SILL__INLINE vq q_inputs(const uint8_t *x) {
    int32_t v;
    memcpy(&v, x, 4);
    return _mm256_set1_epi32(v);
}

/* Sixteen rounded activations: stored, and their sum. */
SILL__INLINE __m256i x16_narrow(const vi *a) { return _mm256_permute4x64_epi64(_mm256_packs_epi32(a[0], a[1]), 0xd8); }
SILL__INLINE void x16_store_i8(uint8_t *p, const vi *a) {
    __m256i h = x16_narrow(a);
    _mm_storeu_si128((void *)p, _mm_packs_epi16(_mm256_castsi256_si128(h), _mm256_extracti128_si256(h, 1)));
}
SILL__INLINE void x16_store_i16(uint8_t *p, const vi *a) { _mm256_storeu_si256((void *)p, x16_narrow(a)); }
SILL__INLINE int32_t x16_sum(const vi *a) {
    __m256i t = _mm256_add_epi32(a[0], a[1]);
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(t), _mm256_extracti128_si256(t, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
}

/* Keeps the compiler from gathering the integer sums of many steps into a tree, for which it lacks registers. */
SILL__INLINE vsum in_order(vsum a) {
    __asm__("" : "+x"(a));
    return a;
}
/* Signed codes and activations widened to 16 bits: products of pairs fit 32 bits for every stored byte. */
enum { Q8_KPACK = 2, Q4_KPACK = 4, Q8_ZERO = 0, Q8_ACT_BYTES = 2 };
SILL__INLINE vsum q8_start(int32_t correction) { return _mm256_set1_epi32(correction); }
SILL__INLINE vq q8_weights(const uint8_t *p) { return _mm256_cvtepi8_epi16(_mm_loadu_si128((const void *)p)); }
SILL__INLINE vsum q8_dot(vsum acc, vq w, vq x) { return in_order(_mm256_add_epi32(acc, _mm256_madd_epi16(w, x))); }
SILL__INLINE vsum q8_done(vsum acc, int32_t correction) { (void)correction; return acc; }
/* Four-bit codes: a group's sums of pairs fit 16 bits (8 * 2 * 15 * 127 = 30,480). */
SILL__INLINE vsum q4_start(int32_t correction) { (void)correction; return _mm256_setzero_si256(); }
SILL__INLINE vsum q4_dot(vsum acc, vq w, vq x) { return in_order(_mm256_add_epi16(acc, _mm256_maddubs_epi16(w, x))); }
SILL__INLINE vsum q4_done(vsum acc, int32_t correction) {
    return _mm256_add_epi32(_mm256_madd_epi16(acc, _mm256_set1_epi16(1)), _mm256_set1_epi32(correction));
}

enum { BF16_KPACK = 0 };
