/* fuzz_codebook.c - any bytes as a codebook: an answer whose parts hold together, or an error with a message. */
#include <stdlib.h>

#include "task/codebook.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    sill_codebook *b = NULL, *v = NULL;
    sill_error err = {0};
    sill_status s = sill_codebook_parse((const char *)data, n, "x", &b, &err);
    if (s != SILL_OK) {
        if (b || !err.msg[0] || err.code != s) abort();
        return 0;
    }
    if (!b->n_labels || (b->n_labels < 2 && !b->multi_label)) abort();
    for (size_t i = 0; i < b->n_labels; i++)
        if (!b->names[i][0] || strcmp(b->names[i], b->labels[i].name)) abort();
    for (size_t i = 0; i < b->n_examples; i++)
        for (size_t k = 0; k < b->examples[i].n_labels; k++)
            if (b->examples[i].labels[k] < 0 || (size_t)b->examples[i].labels[k] >= b->n_labels) abort();
    if (sill__codebook_vary(b, NULL, NULL, b->n_paraphrases ? 0 : -1, &v, &err) != SILL_OK) abort();
    sill_codebook_free(v);
    sill_codebook_free(b);
    return 0;
}
