/*
 * mat_blocks.c - GGUF's block types taken apart into codes, scales and minima for packing. The layouts are those
 * of ggml's block structs; the values agree with sill__dequant bit for bit.
 */
#include "backend/cpu/mat.h"

bool sill__mat_block_info_get(sill__type type, sill__mat_block_info *info) {
    switch (type) {
    case SILL__TYPE_Q8_0: *info = (sill__mat_block_info){32, 32, 0, false, false}; return true;
    case SILL__TYPE_Q4_0: *info = (sill__mat_block_info){32, 32, 8, false, true}; return true;
    case SILL__TYPE_Q4_1: *info = (sill__mat_block_info){32, 32, 0, true, true}; return true;
    case SILL__TYPE_Q5_0: *info = (sill__mat_block_info){32, 32, 16, false, false}; return true;
    case SILL__TYPE_Q5_1: *info = (sill__mat_block_info){32, 32, 0, true, false}; return true;
    case SILL__TYPE_Q4_K: *info = (sill__mat_block_info){256, 32, 0, true, true}; return true;
    case SILL__TYPE_Q5_K: *info = (sill__mat_block_info){256, 32, 0, true, false}; return true;
    case SILL__TYPE_Q6_K: *info = (sill__mat_block_info){256, 16, 32, false, false}; return true;
    default: return false;
    }
}

static uint16_t get_u16(const uint8_t *p) { return (uint16_t)(p[0] | p[1] << 8); }

/* 16 bytes of nibbles: low ones are codes 0..15, high ones 16..31. */
static void nibbles(const uint8_t *restrict q, uint8_t *restrict codes) {
    for (int i = 0; i < 16; i++) codes[i] = q[i] & 15;
    for (int i = 0; i < 16; i++) codes[16 + i] = q[i] >> 4;
}

static void fifth_bits(const uint8_t *restrict high, uint8_t *restrict codes) {
    uint32_t h = (uint32_t)high[0] | (uint32_t)high[1] << 8 | (uint32_t)high[2] << 16 | (uint32_t)high[3] << 24;
    for (int i = 0; i < 32; i++) codes[i] = (uint8_t)(codes[i] | (h >> i & 1) << 4);
}

/* The twelve bytes of Q4_K and Q5_K: eight 6-bit scales and eight 6-bit minima. The minimum is subtracted
 * there and added here: the caller turns the sign of its f16 factor. */
static void k_steps(const uint8_t *q, sill__mat_block *out) {
    for (int j = 0; j < 4; j++) {
        out->steps[j] = (int8_t)(q[j] & 63);
        out->min_steps[j] = q[j + 4] & 63;
        out->steps[j + 4] = (int8_t)((q[j + 8] & 15) | q[j] >> 6 << 4);
        out->min_steps[j + 4] = (uint8_t)(q[j + 8] >> 4 | q[j + 4] >> 6 << 4);
    }
}

static void k_nibbles(const uint8_t *restrict q, uint8_t *restrict codes) {
    for (int c = 0; c < 4; c++, q += 32, codes += 64) {
        for (int i = 0; i < 32; i++) codes[i] = q[i] & 15;
        for (int i = 0; i < 32; i++) codes[32 + i] = q[i] >> 4;
    }
}

static void k_fifth_bits(const uint8_t *restrict high, uint8_t *restrict codes) {
    for (int g = 0; g < 8; g++)
        for (int i = 0; i < 32; i++) codes[32 * g + i] = (uint8_t)(codes[32 * g + i] | (high[i] >> g & 1) << 4);
}

static void q6_codes(const uint8_t *restrict low, const uint8_t *restrict high, uint8_t *restrict codes) {
    for (int half = 0; half < 2; half++, low += 64, high += 32, codes += 128) {
        for (int i = 0; i < 32; i++) {
            codes[i] = (uint8_t)((low[i] & 15) | (high[i] & 3) << 4);
            codes[32 + i] = (uint8_t)((low[32 + i] & 15) | (high[i] >> 2 & 3) << 4);
            codes[64 + i] = (uint8_t)(low[i] >> 4 | (high[i] >> 4 & 3) << 4);
            codes[96 + i] = (uint8_t)(low[32 + i] >> 4 | high[i] >> 6 << 4);
        }
    }
}

void sill__mat_block_read(sill__type type, const uint8_t *src, sill__mat_block *out) {
    out->min = 0;
    switch (type) {
    case SILL__TYPE_Q8_0:
        out->scale = get_u16(src);
        memcpy(out->codes, src + 2, 32);
        break;
    case SILL__TYPE_Q4_0:
        out->scale = get_u16(src);
        nibbles(src + 2, out->codes);
        break;
    case SILL__TYPE_Q4_1:
        out->scale = get_u16(src), out->min = get_u16(src + 2);
        nibbles(src + 4, out->codes);
        break;
    case SILL__TYPE_Q5_0:
        out->scale = get_u16(src);
        nibbles(src + 6, out->codes);
        fifth_bits(src + 2, out->codes);
        break;
    case SILL__TYPE_Q5_1:
        out->scale = get_u16(src), out->min = get_u16(src + 2);
        nibbles(src + 8, out->codes);
        fifth_bits(src + 4, out->codes);
        break;
    case SILL__TYPE_Q4_K:
        out->scale = get_u16(src), out->min = get_u16(src + 2) ^ 0x8000u;
        k_steps(src + 4, out);
        k_nibbles(src + 16, out->codes);
        break;
    case SILL__TYPE_Q5_K:
        out->scale = get_u16(src), out->min = get_u16(src + 2) ^ 0x8000u;
        k_steps(src + 4, out);
        k_nibbles(src + 48, out->codes);
        k_fifth_bits(src + 16, out->codes);
        break;
    case SILL__TYPE_Q6_K:
        q6_codes(src, src + 128, out->codes);
        memcpy(out->steps, src + 192, 16);
        out->scale = get_u16(src + 208);
        break;
    default: break;
    }
}
