/* hash.c - SHA-256 (FIPS 180-4), the 64-bit table hash, the fast checksum, Philox 4x32-10, 16-bit floats. */
#include "base/base.h"

static const uint32_t sha_k[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static uint32_t rotr(uint32_t x, int n) { return x >> n | x << (32 - n); }

static void sha_block(uint32_t h[8], const uint8_t *p) {
    uint32_t w[64], v[8];
    for (int i = 0; i < 16; i++)
        w[i] = (uint32_t)p[4 * i] << 24 | (uint32_t)p[4 * i + 1] << 16 | (uint32_t)p[4 * i + 2] << 8 | p[4 * i + 3];
    for (int i = 16; i < 64; i++) {
        uint32_t a = w[i - 15], b = w[i - 2];
        w[i] = w[i - 16] + w[i - 7] + (rotr(a, 7) ^ rotr(a, 18) ^ a >> 3) + (rotr(b, 17) ^ rotr(b, 19) ^ b >> 10);
    }
    memcpy(v, h, sizeof v);
    for (int i = 0; i < 64; i++) {
        uint32_t s1 = rotr(v[4], 6) ^ rotr(v[4], 11) ^ rotr(v[4], 25);
        uint32_t t1 = v[7] + s1 + ((v[4] & v[5]) ^ (~v[4] & v[6])) + sha_k[i] + w[i];
        uint32_t s0 = rotr(v[0], 2) ^ rotr(v[0], 13) ^ rotr(v[0], 22);
        uint32_t t2 = s0 + ((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));
        memmove(v + 1, v, 7 * sizeof v[0]);
        v[4] += t1;
        v[0] = t1 + t2;
    }
    for (int i = 0; i < 8; i++) h[i] += v[i];
}

void sill__sha256_init(sill__sha256 *s) {
    static const uint32_t h0[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                   0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    memset(s, 0, sizeof *s);
    memcpy(s->h, h0, sizeof h0);
}

void sill__sha256_update(sill__sha256 *s, const void *data, size_t n) {
    const uint8_t *p = data;
    size_t have = s->n & 63;
    s->n += n;
    if (have) {
        size_t take = SILL_MIN(64 - have, n);
        memcpy(s->block + have, p, take);
        p += take;
        n -= take;
        if (have + take < 64) return;
        sha_block(s->h, s->block);
    }
    for (; n >= 64; p += 64, n -= 64) sha_block(s->h, p);
    if (n) memcpy(s->block, p, n);
}

void sill__sha256_final(sill__sha256 *s, uint8_t out[32]) {
    uint64_t bits = s->n * 8;
    uint8_t pad[72] = {0x80};
    size_t n = 64 - ((s->n + 8) & 63);
    for (int i = 0; i < 8; i++) pad[n + (size_t)i] = (uint8_t)(bits >> (56 - 8 * i));
    sill__sha256_update(s, pad, n + 8);
    for (int i = 0; i < 32; i++) out[i] = (uint8_t)(s->h[i / 4] >> (24 - 8 * (i % 4)));
}

void sill__sha256_hex(const uint8_t digest[32], char out[65]) {
    for (int i = 0; i < 32; i++) {
        out[2 * i] = "0123456789abcdef"[digest[i] >> 4];
        out[2 * i + 1] = "0123456789abcdef"[digest[i] & 15];
    }
    out[64] = 0;
}

uint64_t sill__hash64(const void *data, size_t n) {
    const uint8_t *p = data;
    uint64_t h = 14695981039346656037u;
    for (size_t i = 0; i < n; i++) h = (h ^ p[i]) * 1099511628211u;
    h ^= h >> 33;
    h *= 0xff51afd7ed558ccdu;
    return h ^ h >> 33;
}

uint64_t sill_row_key(const char *id, size_t n_bytes) { return sill__hash64(id, n_bytes); }

void sill__philox(uint64_t seed, uint64_t row_key, uint32_t sequence, uint32_t step, uint32_t out[4]) {
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    uint32_t c0 = step, c1 = sequence, c2 = (uint32_t)row_key, c3 = (uint32_t)(row_key >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

double sill__uniform(uint64_t seed, uint64_t row_key, uint32_t sequence, uint32_t step) {
    uint32_t r[4];
    sill__philox(seed, row_key, sequence, step, r);
    uint64_t u = ((uint64_t)r[0] << 32 | r[1]) >> 11;
    return (double)u * 0x1p-53;
}

/* Eight chains side by side, each step a bijection of its state: one changed word always changes the sum. */
uint64_t sill__sum64(const void *data, size_t n) {
    const uint64_t k = 0x9e3779b97f4a7c15u;
    const uint8_t *p = data;
    uint64_t h[8], sum = n * k, w[8] = {0};
    for (int i = 0; i < 8; i++) h[i] = k * (uint64_t)(i + 1);
    for (; n >= 64; p += 64, n -= 64) {
        memcpy(w, p, 64);
        for (int i = 0; i < 8; i++) {
            uint64_t x = h[i] ^ w[i];
            h[i] = (x << 29 | x >> 35) * k;
        }
    }
    if (n) {
        memset(w, 0, sizeof w);
        memcpy(w, p, n);
        for (int i = 0; i < 8; i++) {
            uint64_t x = h[i] ^ w[i];
            h[i] = (x << 29 | x >> 35) * k;
        }
    }
    for (int i = 0; i < 8; i++) {
        sum = (sum ^ h[i]) * k;
        sum ^= sum >> 31;
    }
    return sum;
}

float sill__f16_to_f32(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, e = (h >> 10) & 31u, m = h & 1023u;
    if (e == 31) return sill__bits_f32(sign | 0x7f800000u | m << 13);
    if (e) return sill__bits_f32(sign | (e + 112) << 23 | m << 13);
    float f = (float)m * 0x1p-24f;
    return sign ? -f : f;
}

uint16_t sill__f32_to_f16(float f) {
    uint32_t u = sill__f32_bits(f), sign = u >> 16 & 0x8000u, a = u & 0x7fffffffu;
    if (a > 0x7f800000u) return (uint16_t)(sign | 0x7e00u | (a >> 13 & 0x3ffu));
    if (a >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u); /* 65520 and above round to infinity */
    if (a < 0x38800000u) { /* subnormal: adding 0.5 leaves the rounded value in the low bits */
        uint32_t v = sill__f32_bits(sill__bits_f32(a) + 0.5f);
        return (uint16_t)(sign | (v - 0x3f000000u));
    }
    return (uint16_t)(sign | ((a + 0xc8000fffu + (a >> 13 & 1u)) >> 13));
}
