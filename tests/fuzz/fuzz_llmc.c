/* fuzz_llmc.c - llm.c's header: the numbers are the input, the parameters behind it zeros. */
#include "fuzz_format.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    const uint8_t magic[4] = {0xc6, 0xd7, 0x34, 1};
    if (n < 2) return 0;
    const size_t bytes = 1024 + ((size_t)data[0] << 8 | data[1]);
    uint8_t *p = calloc(bytes, 1);
    memcpy(p, data + 2, SILL_MIN(n - 2, bytes));
    memcpy(p, magic, 4);
    open_and_walk(p, bytes, "x.bin");
    free(p);
    return 0;
}
