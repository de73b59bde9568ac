/*
 * mat_avx2.h - what mat.inc needs beyond simd_avx2.h on AVX2 with FMA and F16C.
 */

enum { VL = LANES, NV = 2, MR_F32 = 6, MR_I8 = 6 };
typedef __m256i vc; /* VL outputs x 4 codes */

SILL__INLINE vf vf_load_i8(const uint8_t *p) { return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const void *)p))); }
SILL__INLINE void vf_load_bf16x2(const uint8_t *p, vf *even, vf *odd) {
    __m256i w = _mm256_loadu_si256((const void *)p);
    *even = _mm256_castsi256_ps(_mm256_slli_epi32(w, 16));
    *odd = _mm256_castsi256_ps(_mm256_and_si256(w, _mm256_set1_epi32((int)0xffff0000u)));
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

/* Signed codes and activations widened to 16 bits: products of pairs fit 32 bits for every stored byte. */
enum { Q8_KPACK = 2, Q4_KPACK = 4, Q8_ZERO = 0, Q8_ACT_BYTES = 2 };
SILL__INLINE vsum q8_start(int32_t correction) { return _mm256_set1_epi32(correction); }
SILL__INLINE vq q8_weights(const uint8_t *p) { return _mm256_cvtepi8_epi16(_mm_loadu_si128((const void *)p)); }
SILL__INLINE vsum q8_dot(vsum acc, vq w, vq x) { return _mm256_add_epi32(acc, _mm256_madd_epi16(w, x)); }
SILL__INLINE vsum q8_done(vsum acc, int32_t correction) { (void)correction; return acc; }
/* Four-bit codes: a group's sums of pairs fit 16 bits (8 * 2 * 15 * 127 = 30,480). */
SILL__INLINE vsum q4_start(int32_t correction) { (void)correction; return _mm256_setzero_si256(); }
SILL__INLINE vsum q4_dot(vsum acc, vq w, vq x) { return _mm256_add_epi16(acc, _mm256_maddubs_epi16(w, x)); }
SILL__INLINE vsum q4_done(vsum acc, int32_t correction) {
    return _mm256_add_epi32(_mm256_madd_epi16(acc, _mm256_set1_epi16(1)), _mm256_set1_epi32(correction));
}

enum { BF16_NATIVE = 0 };
