/* tok_test.h - what the tokenizer's tests share. */
#ifndef TOK_TEST_H
#define TOK_TEST_H

#include "test.h"

#include <unistd.h>

#include "base/json.h"
#include "tokenizer/tokenizer.h"

#define FIXTURES "tests/fixtures/tokenizer/"
#define STORIES "tests/fixtures/stories260K/stories260K.gguf"

static inline sill_tokenizer *load(const char *path) {
    sill_tokenizer *t = NULL;
    sill_error err = {0};
    CHECK_OK(sill_tokenizer_load(path, &t, &err), err);
    return t;
}

/* The ids of a text, into memory that the caller frees. */
static inline int32_t *encode(const sill_tokenizer *t, const char *p, size_t n, uint32_t flags, size_t *n_ids) {
    sill_error err = {0};
    size_t cap = sill_tokenize_bound(t, n);
    int32_t *ids = malloc((cap + 1) * sizeof *ids);
    CHECK_OK(sill_tokenize(t, p, n, flags, ids, cap, n_ids, &err), err);
    CHECK(*n_ids <= cap);
    return ids;
}

static inline char *decode(const sill_tokenizer *t, const int32_t *ids, size_t n_ids, uint32_t flags, size_t *n) {
    sill_error err = {0};
    size_t cap = sill_detokenize_bound(t, ids, n_ids);
    char *text = malloc(cap + 1);
    CHECK_OK(sill_detokenize(t, ids, n_ids, flags, text, cap, n, &err), err);
    text[*n] = 0;
    return text;
}

static inline void check_ids_at(int line, const sill_tokenizer *t, const char *text, uint32_t flags, const int32_t *want, size_t n_want) {
    size_t n = 0;
    int32_t *ids = encode(t, text, strlen(text), flags, &n);
    bool same = n == n_want && !memcmp(ids, want, n * sizeof *ids);
    if (!same) {
        FAIL("line %d: \"%s\" has other ids:", line, text);
        for (size_t i = 0; i < n; i++) printf(" %d", ids[i]);
        printf("\n");
    }
    free(ids);
}
#define CHECK_IDS(t, text, flags, ...)                                                                                 \
    do {                                                                                                               \
        static const int32_t want_[] = {__VA_ARGS__};                                                                  \
        check_ids_at(__LINE__, t, text, flags, want_, SILL_ARRAY_LEN(want_));                                          \
    } while (0)

/* Checks that the text comes back, less the bytes that the vocabulary has no token for. */
static inline void check_round_trip(const sill_tokenizer *t, const char *p, size_t n, uint32_t flags) {
    size_t n_ids = 0, m = 0, k = 0;
    int32_t *ids = encode(t, p, n, flags, &n_ids);
    char *back = decode(t, ids, n_ids, (flags & SILL_TOKENIZE_NO_PREFIX) ? SILL_DETOKENIZE_CONTINUATION : 0, &m);
    char *want = malloc(n + 1);
    for (size_t i = 0; i < n; i++)
        if (!sill__tokenizer_missing_bytes(t) || sill__tokenizer_find(t, p + i, 1) >= 0) want[k++] = p[i];
    if (m != k || memcmp(back, want, m)) FAIL("%zu bytes became %zu other ones", n, m);
    free(want);
    free(back);
    free(ids);
}

static inline void write_file(const char *path, const void *data, size_t n) {
    FILE *f = fopen(path, "wb");
    CHECK(f && fwrite(data, 1, n, f) == n);
    if (f) fclose(f);
}

#endif
