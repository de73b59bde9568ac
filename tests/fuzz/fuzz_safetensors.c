/* fuzz_safetensors.c - the safetensors reader: the input as it is, then with a header length that reaches to
 * its last brace, so that most inputs get into the header. */
#include "fuzz_format.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    open_and_walk(data, n, "x.safetensors");
    if (n < 10 || data[8] != '{') return 0;
    uint8_t *p = malloc(n);
    size_t end = n;
    memcpy(p, data, n);
    while (end > 9 && p[end - 1] != '}') end--;
    for (int i = 0; i < 8; i++) p[i] = (uint8_t)((uint64_t)(end - 8) >> (8 * i));
    open_and_walk(p, n, "x.safetensors");
    free(p);
    return 0;
}
