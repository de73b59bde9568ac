/*
 * quant.c - from f32 to blocks: the inverse of sill__dequant for the block types that we make. The rules
 * are those of ggml's reference quantizers, step by step in f32, so that a file written by either has the
 * same bytes: Q8_0 rounds half away from zero, Q4_0 takes its scale from the element of the largest
 * magnitude (its first, with its sign), Q4_1 spans minimum to maximum.
 */
#include "format/format.h"

/* What has no meaning in a block (NaN, infinity) makes the whole block NaN: it then shows in every product
 * instead of passing for a number. */
#define HALF_NAN 0x7e00u

static bool finite_block(const float *x) {
    uint32_t bad = 0;
    for (int i = 0; i < 32; i++) bad |= (sill__f32_bits(x[i]) & 0x7f800000u) == 0x7f800000u;
    return !bad;
}

static void put_half(uint8_t *b, float v) {
    const uint16_t h = sill__f32_to_f16(v);
    memcpy(b, &h, 2);
}

/* 1 / D, or 0 where that is no number: below 2^-128 D is 0 in half precision too, and so is the block. */
static float inverse(float d) {
    const float i = d != 0.0f ? 1.0f / d : 0.0f;
    return (sill__f32_bits(i) & 0x7f800000u) == 0x7f800000u ? 0.0f : i;
}

static void block_q8_0(const float *x, uint8_t *b) {
    float max = 0.0f;
    for (int i = 0; i < 32; i++) {
        const float a = x[i] < 0.0f ? -x[i] : x[i];
        max = a > max ? a : max;
    }
    const float d = max / 127.0f, id = inverse(d);
    put_half(b, d);
    for (int i = 0; i < 32; i++) {
        const float v = x[i] * id; /* |v| is at most 127 and a rounding */
        const int t = (int)v;
        const float rest = v - (float)t; /* exact */
        b[2 + i] = (uint8_t)(int8_t)(t + (rest >= 0.5f) - (rest <= -0.5f));
    }
}

/* v >= 0.5, or NaN where a block spans more than a float does. */
static int nibble(float v) { return v < 15.0f ? (int)v : 15; }

static void block_q4_0(const float *x, uint8_t *b) {
    float max = 0.0f, peak = 0.0f;
    for (int i = 0; i < 32; i++) {
        const float a = x[i] < 0.0f ? -x[i] : x[i];
        if (a > max) {
            max = a;
            peak = x[i];
        }
    }
    const float d = peak / -8.0f, id = inverse(d);
    put_half(b, d);
    for (int i = 0; i < 16; i++)
        b[2 + i] = (uint8_t)(nibble(x[i] * id + 8.5f) | nibble(x[i + 16] * id + 8.5f) << 4);
}

static void block_q4_1(const float *x, uint8_t *b) {
    float min = x[0], max = x[0];
    for (int i = 1; i < 32; i++) {
        min = x[i] < min ? x[i] : min;
        max = x[i] > max ? x[i] : max;
    }
    const float d = (max - min) / 15.0f, id = inverse(d);
    put_half(b, d);
    put_half(b + 2, min);
    for (int i = 0; i < 16; i++)
        b[4 + i] = (uint8_t)(nibble((x[i] - min) * id + 0.5f) | nibble((x[i + 16] - min) * id + 0.5f) << 4);
}

bool sill__can_quantize(sill__type type) {
    return type == SILL__TYPE_Q8_0 || type == SILL__TYPE_Q4_0 || type == SILL__TYPE_Q4_1;
}

void sill__quantize(sill__type type, const float *x, void *to, size_t n) {
    const size_t bytes = sill__type_get(type)->block_bytes;
    uint8_t *b = to;
    for (; n >= 32; n -= 32, x += 32, b += bytes) {
        if (!finite_block(x)) {
            memset(b, 0, bytes);
            b[0] = HALF_NAN & 255u;
            b[1] = HALF_NAN >> 8;
        } else if (type == SILL__TYPE_Q8_0) {
            block_q8_0(x, b);
        } else if (type == SILL__TYPE_Q4_0) {
            block_q4_0(x, b);
        } else {
            block_q4_1(x, b);
        }
    }
}
