/*
 * fuzz_tokenize.c - any bytes as text, in each kind of tokenizer: the ids are within bounds and give the bytes
 * back. The first byte chooses the tokenizer and the flags.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tokenizer/tokenizer.h"

#define REQUIRE(c) do { if (!(c)) { fprintf(stderr, "not true: %s\n", #c); abort(); } } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char *const names[] = {"gpt2/vocab.bpe", "smollm.json", "llama3.json", "spm.gguf", "spm.json"};
    static sill_tokenizer *all[5];
    sill_error err = {0};
    char path[256];
    if (size == 0) return 0;
    int which = data[0] % 5;
    uint32_t flags = data[0] / 5 & 1 ? SILL_TOKENIZE_NO_PREFIX : 0;
    snprintf(path, sizeof path, "tests/fixtures/tokenizer/%s", names[which]);
    if (!all[which]) REQUIRE(sill_tokenizer_load(path, &all[which], &err) == SILL_OK);
    const sill_tokenizer *t = all[which];
    const char *text = (const char *)data + 1;
    size_t n = size - 1, cap = sill_tokenize_bound(t, n), n_ids = 0, m = 0, k = 0;
    int32_t *ids = malloc((cap + 1) * sizeof *ids);
    REQUIRE(sill_tokenize(t, text, n, flags, ids, cap, &n_ids, &err) == SILL_OK && n_ids <= cap);
    size_t bytes = sill_detokenize_bound(t, ids, n_ids);
    char *back = malloc(bytes + 1), *want = malloc(n + 1);
    REQUIRE(sill_detokenize(t, ids, n_ids, flags ? SILL_DETOKENIZE_CONTINUATION : 0, back, bytes, &m, &err) == SILL_OK);
    for (size_t i = 0; i < n; i++)
        if (!sill__tokenizer_missing_bytes(t) || sill__tokenizer_find(t, text + i, 1) >= 0) want[k++] = text[i];
    REQUIRE(m == k && !memcmp(back, want, m));
    REQUIRE(sill_utf8_complete(text, n) <= n && sill_utf8_complete(text, n) + 3 >= n);
    REQUIRE(sill_tokenize(t, text, n, flags | SILL_TOKENIZE_SPECIAL, ids, cap, &n_ids, &err) == SILL_OK);
    free(want);
    free(back);
    free(ids);
    return 0;
}
