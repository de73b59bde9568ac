/*
 * mat_scalar.h - what mat.inc needs beyond simd_scalar.h, in plain C. Hosts are little endian: byte i of a word of
 * codes is its i-th input.
 */
enum { VL = LANES, NV = 8 };
#define MR_FLOAT 2 /* most rows of a tile */
#define MR_CODES 2
#define MR_HELD 1 /* most rows whose f32 sums are held beside the integer ones */
#define MR_WHOLE MR_CODES /* most rows whose integer sums of all outputs fit */
#define MR_ROW8 MR_CODES

/* The first and the second of a pair of bf16. */
SILL__INLINE uint32_t load_word(const uint8_t *p) {
    uint32_t w;
    memcpy(&w, p, 4);
    return w;
}
SILL__INLINE vf vf_load_bf16_even(const uint8_t *p) { return sill__bits_f32(load_word(p) << 16); }
SILL__INLINE vf vf_load_bf16_odd(const uint8_t *p) { return sill__bits_f32(load_word(p) & 0xffff0000u); }

typedef uint32_t vc; /* 4 codes */
SILL__INLINE vc vc_load(const uint8_t *p) { return load_word(p); }
SILL__INLINE vc vc_low(vc a) { return a & 0x0f0f0f0fu; }
SILL__INLINE vc vc_high(vc a) { return a >> 4 & 0x0f0f0f0fu; }
SILL__INLINE vf vc_float(vc a, int i) { return (float)(int8_t)(a >> (8 * i) & 255); }

/* Sixteen rounded activations: stored, and their sum. */
SILL__INLINE void x16_store_i8(uint8_t *p, const vi *a) {
    for (int i = 0; i < 16; i++) p[i] = (uint8_t)a[i];
}
SILL__INLINE void x16_store_i16(uint8_t *p, const vi *a) { (void)p, (void)a; } /* not wanted here */
SILL__INLINE int32_t x16_sum(const vi *a) {
    uint32_t s = 0;
    for (int i = 0; i < 16; i++) s += a[i];
    return (int32_t)s;
}

typedef int32_t vsum;
typedef vc vq;
SILL__INLINE vf vsum_float(vsum a) { return (float)a; }

enum { Q8_KPACK = 4, Q4_KPACK = 4, Q8_ZERO = 0, Q8_ACT_BYTES = 1, BF16_KPACK = 0 };
SILL__INLINE vsum q8_start(int32_t correction) { return correction; }
SILL__INLINE vq q8_weights(const uint8_t *p) { return vc_load(p); }
SILL__INLINE vq q_inputs(const uint8_t *x) { return vc_load(x); }
SILL__INLINE vsum q8_dot(vsum acc, vq w, vq x) {
    for (int i = 0; i < 32; i += 8) acc += (int8_t)(w >> i & 255) * (int8_t)(x >> i & 255);
    return acc;
}
SILL__INLINE vsum q8_done(vsum acc, int32_t correction) { return (void)correction, acc; }
SILL__INLINE vsum q4_start(int32_t correction) { return correction; }
SILL__INLINE vsum q4_dot(vsum acc, vq w, vq x) { return q8_dot(acc, w, x); }
SILL__INLINE vsum q4_done(vsum acc, int32_t correction) { return (void)correction, acc; }
