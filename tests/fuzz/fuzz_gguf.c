/* fuzz_gguf.c - the GGUF reader: the magic is put in front, so that every input reaches it. */
#include "fuzz_format.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    if (n < 4) return 0;
    uint8_t *p = malloc(n);
    memcpy(p, data, n);
    memcpy(p, "GGUF", 4);
    open_and_walk(p, n, "x.gguf");
    free(p);
    return 0;
}
