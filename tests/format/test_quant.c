/* test_quant.c - quantizing to blocks: gguf-py's bytes, and what has no meaning in a block. */
#include "format/format.h"
#include "test.h"

static const sill__type kinds[3] = {SILL__TYPE_Q8_0, SILL__TYPE_Q4_0, SILL__TYPE_Q4_1};

static void blocks_are_those_of_gguf(void) {
    sill_error e = {0};
    char *file;
    size_t bytes;
    uint32_t n;
    REQUIRE(sill__read_file("tests/fixtures/format/quant.bin", 1 << 20, &file, &bytes, &e) == SILL_OK);
    memcpy(&n, file, 4);
    REQUIRE(n > 100 && bytes == 4 + (size_t)n * (128 + 34 + 18 + 20));
    float *x = malloc((size_t)n * 128);
    uint8_t *got = malloc((size_t)n * 34 + 1);
    memcpy(x, file + 4, (size_t)n * 128);
    const uint8_t *want = (const uint8_t *)file + 4 + (size_t)n * 128;
    for (int k = 0; k < 3; k++) {
        const size_t block = sill__type_get(kinds[k])->block_bytes;
        CHECK(sill__can_quantize(kinds[k]));
        sill__quantize(kinds[k], x, got + 1, (size_t)n * 32); /* on an odd address */
        for (uint32_t i = 0; i < n; i++)
            if (memcmp(got + 1 + i * block, want + i * block, block))
                FAIL("%s: block %u differs from gguf's", sill__type_get(kinds[k])->name, i);
        want += n * block;
    }
    CHECK(!sill__can_quantize(SILL__TYPE_Q6_K) && !sill__can_quantize(SILL__TYPE_F32));
    free(got);
    free(x);
    sill__free(file);
}

static void nan_and_infinity_are_not_hidden(void) {
    static const uint32_t bits[] = {0x7fc00000u, 0xffc00001u, 0x7f800000u, 0xff800000u};
    for (int k = 0; k < 3; k++)
        for (size_t b = 0; b < SILL_ARRAY_LEN(bits); b++) {
            float x[96], y[96];
            uint8_t q[3 * 34];
            for (int i = 0; i < 96; i++) x[i] = (float)(i % 7) - 3.0f;
            x[32 + 7 * b] = sill__bits_f32(bits[b]);
            sill__quantize(kinds[k], x, q, 96);
            sill__dequant(kinds[k], q, y, 96);
            for (int i = 0; i < 96; i++) CHECK((i / 32 == 1) == (y[i] != y[i]));
        }
}

/* The largest, the smallest, and signed zeros: no undefined conversion (the sanitizers watch), codes in range. */
static void the_ends_of_the_range(void) {
    static const float ends[] = {3.4e38f, -3.4e38f, 1.5e-45f, -1.5e-45f, 0.0f, -0.0f, 1e-38f, 8.3e6f, 5.9e-8f};
    for (size_t a = 0; a < SILL_ARRAY_LEN(ends); a++)
        for (size_t b = 0; b < SILL_ARRAY_LEN(ends); b++)
            for (int k = 0; k < 3; k++) {
                float x[32], y[32];
                uint8_t q[34];
                for (int i = 0; i < 32; i++) x[i] = i & 1 ? ends[a] : ends[b];
                sill__quantize(kinds[k], x, q, 32);
                sill__dequant(kinds[k], q, y, 32);
                if (fabsf(ends[a]) > 1e-4f && fabsf(ends[a]) < 1e6f)
                    for (int i = 1; i < 32; i += 2) CHECK_NEAR(y[i], x[i], fabsf(x[i]) / 100);
                if (fabsf(ends[a]) < 1e-30f && fabsf(ends[b]) < 1e-30f)
                    for (int i = 0; i < 32; i++) CHECK(y[i] == 0);
            }
}

int main(int argc, char **argv) {
    TEST(blocks_are_those_of_gguf);
    TEST(nan_and_infinity_are_not_hidden);
    TEST(the_ends_of_the_range);
    TEST_EXIT();
}
