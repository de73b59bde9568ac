/*
 * types.c - the element types: names, block sizes, and the exact f32 values of stored bytes. The block
 * layouts are ggml's (little endian); every product and sum is rounded to f32 in the order written here,
 * which is that of ggml's reference dequantizers and of gguf-py.
 */
#include "format/format.h"

static const sill__type_info types[SILL__TYPE_COUNT] = {
    [SILL__TYPE_F32] = {"F32", 1, 4, true},     [SILL__TYPE_F16] = {"F16", 1, 2, true},
    [SILL__TYPE_BF16] = {"BF16", 1, 2, true},   [SILL__TYPE_Q8_0] = {"Q8_0", 32, 34, true},
    [SILL__TYPE_Q4_0] = {"Q4_0", 32, 18, true}, [SILL__TYPE_Q4_1] = {"Q4_1", 32, 20, true},
    [SILL__TYPE_Q5_0] = {"Q5_0", 32, 22, true}, [SILL__TYPE_Q5_1] = {"Q5_1", 32, 24, true},
    [SILL__TYPE_Q4_K] = {"Q4_K", 256, 144, true}, [SILL__TYPE_Q5_K] = {"Q5_K", 256, 176, true},
    [SILL__TYPE_Q6_K] = {"Q6_K", 256, 210, true}, [SILL__TYPE_I8] = {"I8", 1, 1, false},
    [SILL__TYPE_I16] = {"I16", 1, 2, false},    [SILL__TYPE_I32] = {"I32", 1, 4, false},
    [SILL__TYPE_I64] = {"I64", 1, 8, false},    [SILL__TYPE_U8] = {"U8", 1, 1, false},
    [SILL__TYPE_BOOL] = {"BOOL", 1, 1, false},  [SILL__TYPE_F64] = {"F64", 1, 8, false},
};

const sill__type_info *sill__type_get(sill__type type) {
    return (unsigned)type < SILL__TYPE_COUNT ? &types[type] : NULL;
}

uint64_t sill__tensor_elements(const sill__tensor *t) {
    uint64_t n = 1; /* the readers have checked that this does not overflow */
    for (int i = 0; i < t->n_dims; i++) n *= t->dims[i];
    return n;
}

size_t sill__row_bytes(sill__type type, uint64_t cols) {
    const sill__type_info *info = sill__type_get(type);
    size_t bytes;
    if (!info || cols % info->block || cols > SIZE_MAX) return 0;
    return sill__mul((size_t)(cols / info->block), info->block_bytes, &bytes) ? bytes : 0;
}

static inline float half_at(const uint8_t *p) {
    uint16_t h;
    memcpy(&h, p, 2);
    return sill__f16_to_f32(h);
}

/* Q4_0: d, 16 bytes of nibbles: element j in the low half of byte j, element j + 16 in the high half. */
static void block_q4_0(const uint8_t *b, float *y) {
    const float d = half_at(b);
    b += 2;
    for (int j = 0; j < 16; j++) {
        y[j] = (float)((b[j] & 15) - 8) * d;
        y[j + 16] = (float)((b[j] >> 4) - 8) * d;
    }
}

/* Q4_1: d, m, nibbles as Q4_0. */
static void block_q4_1(const uint8_t *b, float *y) {
    const float d = half_at(b), m = half_at(b + 2);
    b += 4;
    for (int j = 0; j < 16; j++) {
        y[j] = (float)(b[j] & 15) * d + m;
        y[j + 16] = (float)(b[j] >> 4) * d + m;
    }
}

/* Fifth bits of a Q5 block, element I in bit I, into 0 or 16. */
static void fifth_bits(const uint8_t *b, uint8_t high[32]) {
    for (int i = 0; i < 32; i++) high[i] = (uint8_t)((b[i >> 3] >> (i & 7) & 1) << 4);
}

/* Q5_0: d, 32 fifth bits, nibbles. */
static void block_q5_0(const uint8_t *b, float *y) {
    const float d = half_at(b);
    uint8_t high[32];
    fifth_bits(b + 2, high);
    b += 6;
    for (int j = 0; j < 16; j++) {
        y[j] = (float)(((b[j] & 15) | high[j]) - 16) * d;
        y[j + 16] = (float)((b[j] >> 4 | high[j + 16]) - 16) * d;
    }
}

/* Q5_1: d, m, 32 fifth bits, nibbles. */
static void block_q5_1(const uint8_t *b, float *y) {
    const float d = half_at(b), m = half_at(b + 2);
    uint8_t high[32];
    fifth_bits(b + 4, high);
    b += 8;
    for (int j = 0; j < 16; j++) {
        y[j] = (float)((b[j] & 15) | high[j]) * d + m;
        y[j + 16] = (float)(b[j] >> 4 | high[j + 16]) * d + m;
    }
}

static void block_q8_0(const uint8_t *b, float *y) {
    const float d = half_at(b);
    const int8_t *q = (const int8_t *)(b + 2);
    for (int j = 0; j < 32; j++) y[j] = (float)q[j] * d;
}

/* Scale and minimum J of the 8 pairs of 6 bits in 12 bytes (Q4_K, Q5_K): bytes 0-3 and 4-7 hold the low
 * four pairs whole and, in their upper two bits, the top of the high four; bytes 8-11 hold the rest. */
static void scale_min(const uint8_t *s, int j, int *scale, int *min) {
    if (j < 4) {
        *scale = s[j] & 63;
        *min = s[j + 4] & 63;
    } else {
        *scale = (s[j + 4] & 15) | s[j - 4] >> 6 << 4;
        *min = s[j + 4] >> 4 | s[j] >> 6 << 4;
    }
}

/* Q4_K and Q5_K: d, dmin, 12 bytes of scales, (Q5_K: 32 bytes of fifth bits, group g in bit g), 128 bytes of
 * nibbles. Groups of 32; groups 2i and 2i + 1 are the low and high halves of the same 32 bytes. */
static void block_k(const uint8_t *b, float *y, bool five) {
    const float d = half_at(b), dmin = half_at(b + 2);
    const uint8_t *scales = b + 4, *high = b + 16, *q = b + (five ? 48 : 16);
    for (int g = 0; g < 8; g++, y += 32) {
        int scale, min;
        scale_min(scales, g, &scale, &min);
        const float dg = d * (float)scale, mg = dmin * (float)min;
        const uint8_t *p = q + 32 * (g >> 1);
        const int shift = 4 * (g & 1);
        if (five)
            for (int i = 0; i < 32; i++)
                y[i] = dg * (float)((p[i] >> shift & 15) | (high[i] >> g & 1) << 4) - mg;
        else
            for (int i = 0; i < 32; i++) y[i] = dg * (float)(p[i] >> shift & 15) - mg;
    }
}

/* Q6_K: 128 bytes of low nibbles, 64 bytes of upper pairs of bits, 16 signed scales (one for 16
 * elements), d. Each half of 128 elements is four groups of 32: nibbles low, low, high, high of 64 bytes. */
static void block_q6_k(const uint8_t *b, float *y) {
    const int8_t *scales = (const int8_t *)(b + 192);
    const float d = half_at(b + 208);
    for (int half = 0; half < 2; half++)
        for (int g = 0; g < 4; g++, y += 32) {
            const uint8_t *low = b + 64 * half + 32 * (g & 1), *high = b + 128 + 32 * half;
            const float d0 = d * (float)scales[8 * half + 2 * g],
                        d1 = d * (float)scales[8 * half + 2 * g + 1];
            for (int i = 0; i < 32; i++) {
                int q = ((low[i] >> 4 * (g >> 1) & 15) | (high[i] >> 2 * g & 3) << 4) - 32;
                y[i] = (i < 16 ? d0 : d1) * (float)q;
            }
        }
}

#define BLOCKS(size, bytes, call)                                                                  \
    for (; n >= (size); n -= (size), p += (bytes), dst += (size)) call;                            \
    return

#define PLAIN(c_type, value)                                                                       \
    for (size_t i = 0; i < n; i++) {                                                               \
        c_type v;                                                                                  \
        memcpy(&v, p + i * sizeof v, sizeof v);                                                    \
        dst[i] = (value);                                                                          \
    }                                                                                              \
    return

void sill__dequant(sill__type type, const void *src, float *dst, size_t n) {
    const uint8_t *p = src;
    switch (type) {
    case SILL__TYPE_F32:
        if (n) memcpy(dst, p, n * 4);
        return;
    case SILL__TYPE_F16: PLAIN(uint16_t, sill__f16_to_f32(v));
    case SILL__TYPE_BF16: PLAIN(uint16_t, sill__bf16_to_f32(v));
    case SILL__TYPE_Q8_0: BLOCKS(32, 34, block_q8_0(p, dst));
    case SILL__TYPE_Q4_0: BLOCKS(32, 18, block_q4_0(p, dst));
    case SILL__TYPE_Q4_1: BLOCKS(32, 20, block_q4_1(p, dst));
    case SILL__TYPE_Q5_0: BLOCKS(32, 22, block_q5_0(p, dst));
    case SILL__TYPE_Q5_1: BLOCKS(32, 24, block_q5_1(p, dst));
    case SILL__TYPE_Q4_K: BLOCKS(256, 144, block_k(p, dst, false));
    case SILL__TYPE_Q5_K: BLOCKS(256, 176, block_k(p, dst, true));
    case SILL__TYPE_Q6_K: BLOCKS(256, 210, block_q6_k(p, dst));
    case SILL__TYPE_I8: PLAIN(int8_t, (float)v);
    case SILL__TYPE_I16: PLAIN(int16_t, (float)v);
    case SILL__TYPE_I32: PLAIN(int32_t, (float)v);
    case SILL__TYPE_I64: PLAIN(int64_t, (float)v);
    case SILL__TYPE_U8: PLAIN(uint8_t, (float)v);
    case SILL__TYPE_BOOL: PLAIN(uint8_t, v ? 1.0f : 0.0f);
    case SILL__TYPE_F64: PLAIN(double, (float)v);
    case SILL__TYPE_COUNT: return;
    }
}
