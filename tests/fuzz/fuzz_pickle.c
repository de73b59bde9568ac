/* fuzz_pickle.c - the pickle reader and what torch.c makes of a pickle: the input as an old checkpoint's pickle, behind a right head, and
 * as it is. */
#include "fuzz_format.h"

static const uint8_t head[] = "\x80\2\x8a\nl\xfc\x9c""F\xf9 j\xa8P\x19.\x80\2M\xe9\3.\x80\2}.";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    const size_t k = sizeof head - 1;
    uint8_t *p = malloc(k + n);
    memcpy(p, head, k);
    if (n) memcpy(p + k, data, n);
    open_and_walk(p, k + n, "x.pt");
    free(p);
    sill__pickle pickle;
    size_t used;
    sill_error e = {0};
    if (sill__pickle_read(&pickle, data, n, "x.pkl", &used, &e) == SILL_OK && used > n) abort();
    sill__pickle_free(&pickle);
    return 0;
}
