/* fuzz_tensorflow.c - TensorFlow's index: the input as it is, then with the checksums of its blocks made right where they can be found. */
#include "../format/bundle_memory.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static uint32_t turned(uint32_t crc) { return (crc >> 15 | crc << 17) + 0xa282ead8u; }

static uint64_t number(const uint8_t **p, const uint8_t *end) {
    uint64_t v = 0;
    for (unsigned shift = 0; *p < end && shift < 64; shift += 7) {
        v |= (uint64_t)(**p & 127) << shift;
        if (*(*p)++ < 128) break;
    }
    return v;
}

/* The block at AT of P (N bytes) gets its checksum. */
static void sum(uint8_t *p, size_t n, uint64_t at, uint64_t size) {
    if (at >= n || size > n - at || n - at - size < 5) return;
    const uint32_t crc = turned(sill__crc32c(0, p + at, (size_t)size + 1));
    for (int k = 0; k < 4; k++) p[at + size + 1 + (size_t)k] = (uint8_t)(crc >> 8 * k);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    static const uint8_t values[4096];
    sill_error e = {0};
    bool ok;
    read_bundle(data, n, values, sizeof values, &ok, &e);
    if (!ok) abort();
    if (n < 64) return 0;
    uint8_t *p = malloc(n);
    memcpy(p, data, n);
    memcpy(p + n - 8, "\x57\xfb\x80\x8b\x24\x75\x47\xdb", 8);
    const uint8_t *at = p + n - 48, *end = p + n - 8;
    (void)number(&at, end);
    (void)number(&at, end);
    const uint64_t index = number(&at, end), size = number(&at, end);
    sum(p, n, index, size);
    /* The first entry of the index tells where the first block ends: shared, more and value's lengths, the key, two numbers. */
    if (index < n && size < n - index && size > 8) {
        at = p + index, end = p + index + size;
        (void)number(&at, end);
        const uint64_t key = number(&at, end);
        (void)number(&at, end);
        if (key < (uint64_t)(end - at)) {
            at += key;
            const uint64_t from = number(&at, end), bytes = number(&at, end);
            sum(p, n, from, bytes);
        }
    }
    read_bundle(p, n, values, sizeof values, &ok, &e);
    if (!ok) abort();
    free(p);
    return 0;
}
