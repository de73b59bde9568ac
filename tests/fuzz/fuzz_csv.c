/* fuzz_csv.c - any bytes as CSV: every row numbered, cells in bounds, the output written. */
#include "corpus_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    corpus_fuzz(data, size, SILL__FORMAT_CSV);
    return 0;
}
