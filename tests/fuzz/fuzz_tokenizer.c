/*
 * fuzz_tokenizer.c - any bytes as a tokenizer file (tokenizer.json, vocab.json, merges, GGUF): an error, or a
 * tokenizer whose ids lie in its vocabulary and decode.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "sill.h"

#define REQUIRE(c) do { if (!(c)) { fprintf(stderr, "not true: %s\n", #c); abort(); } } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char text[] = "The don't 12 \xe6\x97\xa5 <s>a \xff aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n";
    enum { N = sizeof text - 1 };
    char path[64], back[65536];
    int32_t ids[2 * N + 3];
    size_t n = 0, m = 0;
    sill_error err = {0};
    sill_tokenizer *t = NULL;
    int fd = memfd_create("fuzz", 0);
    if (fd < 0) return 0;
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    REQUIRE(write(fd, data, size) == (ssize_t)size);
    sill_status s = sill_tokenizer_load(path, &t, &err);
    close(fd);
    REQUIRE((s == SILL_OK) == (t != NULL) && s != SILL_EINTERNAL);
    if (!t) return 0;
    REQUIRE(sill_tokenize_bound(t, N) <= 2 * N + 3);
    for (uint32_t flags = 0; flags < 8; flags += flags == 1 ? 3 : 1) {
        s = sill_tokenize(t, text, N, flags, ids, 2 * N + 3, &n, &err);
        REQUIRE(s == SILL_OK || s == SILL_ERANGE);
        for (size_t i = 0; i < n && s == SILL_OK; i++) REQUIRE(ids[i] >= 0 && ids[i] < sill_tokenizer_n_vocab(t));
        if (s == SILL_OK && sill_detokenize_bound(t, ids, n) <= sizeof back)
            REQUIRE(sill_detokenize(t, ids, n, 0, back, sizeof back, &m, &err) == SILL_OK);
    }
    sill_tokenizer_free(t);
    return 0;
}
