/*
 * test_hostile.c - broken tokenizer files: every prefix, random flips, failing allocations. Whatever happens, an
 * error or a tokenizer that works; under the sanitizers nothing out of bounds and nothing lost.
 */
#include "tok_test.h"

static char path[64] = "/tmp/sill-tok-hostile-XXXXXX";

/* Loads the file; one that loads has to give ids within its vocabulary and to decode them. */
static bool survives(const void *data, size_t n) {
    static const char text[] = "The don't 123 \xe6\x97\xa5 <s> \xff\xfe  aaa aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n";
    sill_tokenizer *t = NULL;
    sill_error err = {0};
    write_file(path, data, n);
    sill_status s = sill_tokenizer_load(path, &t, &err);
    if (s != SILL_OK) {
        CHECK(t == NULL && err.code == s && err.msg[0] && s != SILL_EINTERNAL);
        return false;
    }
    for (uint32_t flags = 0; flags < 8; flags++) {
        size_t n_ids = 0, m = 0, cap = sill_tokenize_bound(t, sizeof text - 1);
        int32_t *ids = malloc(cap * sizeof *ids);
        s = sill_tokenize(t, text, sizeof text - 1, flags, ids, cap, &n_ids, &err);
        CHECK(s == SILL_OK || (s == SILL_ERANGE && (flags & SILL_TOKENIZE_BOS) && n_ids == 0));
        for (size_t i = 0; i < n_ids && s == SILL_OK; i++) CHECK(ids[i] >= 0 && ids[i] < sill_tokenizer_n_vocab(t));
        if (s == SILL_OK) free(decode(t, ids, n_ids, flags & 3, &m));
        free(ids);
    }
    sill_tokenizer_free(t);
    return true;
}

static char *read_fixture(const char *name, size_t *n) {
    sill_error err = {0};
    char file[256], *data = NULL;
    snprintf(file, sizeof file, FIXTURES "%s", name);
    CHECK_OK(sill__read_file(file, 1 << 24, &data, n, &err), err);
    return data;
}

static void prefixes(const char *name, size_t step) {
    size_t n = 0, loaded = 0;
    char *data = read_fixture(name, &n);
    REQUIRE(data);
    CHECK(survives(data, n));
    for (size_t i = 0; i < n; i += i < 3000 ? SILL_MIN(step, (size_t)7) : step) loaded += survives(data, i);
    CHECK_INT(loaded, 0);
    sill__free(data);
}

static void every_prefix_is_refused(void) {
    prefixes("smollm.json", 211);
    prefixes("smollm.gguf", 211);
    prefixes("spm.json", 211);
    prefixes("spm.gguf", 211);
}

static void flips(const char *name, int rounds, uint64_t seed) {
    size_t n = 0, loaded = 0;
    char *data = read_fixture(name, &n);
    REQUIRE(data);
    char *copy = malloc(n);
    for (int r = 0; r < rounds; r++) {
        memcpy(copy, data, n);
        for (uint32_t k = 1 + test_random(&seed) % 4; k > 0; k--) {
            size_t at = test_random(&seed) % (r % 2 ? n : SILL_MIN(n, (size_t)1500)); /* half of them near the head */
            copy[at] = (char)(r % 3 ? copy[at] ^ 1 << test_random(&seed) % 8 : (int)(test_random(&seed) >> 8));
        }
        loaded += survives(copy, n);
    }
    CHECK(loaded > 0 && loaded < (size_t)rounds); /* both ways were taken */
    free(copy);
    sill__free(data);
}

static void ten_thousand_flips(void) {
    flips("spm.gguf", 3500, 1);
    flips("spm.json", 3000, 2);
    flips("smollm.gguf", 2000, 3);
    flips("llama3.json", 1500, 4);
}

/* Fails the n-th allocation for every n until loading and tokenizing go through. */
static void failing_allocations(void) {
    static const char *const names[] = {"smollm.json", "smollm.gguf", "spm.gguf", "spm_meta.json", "gpt2/vocab.bpe"};
    char text[3000];
    memset(text, 'a', sizeof text);
    for (size_t k = 0; k < SILL_ARRAY_LEN(names); k++) {
        char file[256];
        snprintf(file, sizeof file, FIXTURES "%s", names[k]);
        uint64_t n = 1;
        for (bool through = false; !through && n < 100000; n += n < 40 ? 1 : n < 400 ? 13 : 211) {
            sill_tokenizer *t = NULL;
            sill_error err = {0};
            int32_t ids[sizeof text + 8];
            size_t n_ids = 0;
            sill__alloc_fail_at(n);
            sill_status s = sill_tokenizer_load(file, &t, &err);
            if (s == SILL_OK) s = sill_tokenize(t, text, sizeof text, 0, ids, SILL_ARRAY_LEN(ids), &n_ids, &err);
            sill__alloc_fail_at(0);
            through = s == SILL_OK;
            if (s != SILL_OK && s != SILL_ENOMEM && s != SILL_EFORMAT) FAIL("%s, allocation %d: %s", names[k], (int)n, err.msg);
            if (s != SILL_OK && t == NULL) CHECK(err.msg[0]);
            sill_tokenizer_free(t);
        }
        CHECK(n > 10 && n < 100000);
    }
}

/* Vocabularies in which every token is made from every other one: no time without bounds. */
static void greedy_vocabulary(void) {
    sill__str s;
    sill__str_init(&s, 1 << 24);
    sill__str_puts(&s, "{\"added_tokens\": [], \"normalizer\": null, \"pre_tokenizer\": {\"type\": \"ByteLevel\", \"add_prefix_space\": false, "
                       "\"use_regex\": true}, \"decoder\": {\"type\": \"ByteLevel\"}, \"model\": {\"type\": \"BPE\", \"byte_fallback\": false, \"vocab\": {");
    for (int i = 1; i <= 300; i++) {
        sill__str_puts(&s, i > 1 ? ", \"" : "\"");
        for (int k = 0; k < i; k++) sill__str_puts(&s, "a");
        sill__str_putf(&s, "\": %d", i - 1);
    }
    sill__str_puts(&s, "}, \"merges\": [");
    bool first = true;
    for (int i = 300; i > 1; i--) /* the long ones first: each merge makes room for an earlier one */
        for (int l = 1; l < i; l += 7) {
            sill__str_puts(&s, first ? "[\"" : ", [\"");
            first = false;
            for (int k = 0; k < l; k++) sill__str_puts(&s, "a");
            sill__str_puts(&s, "\", \"");
            for (int k = l; k < i; k++) sill__str_puts(&s, "a");
            sill__str_puts(&s, "\"]");
        }
    sill__str_puts(&s, "]}}");
    REQUIRE(!s.failed);
    CHECK(survives(s.p, s.n));
    sill_tokenizer *t = load(path);
    REQUIRE(t);
    char *text = malloc(200000);
    memset(text, 'a', 200000);
    check_round_trip(t, text, 200000, 0);
    free(text);
    sill_tokenizer_free(t);
    sill__str_free(&s);
}

int main(int argc, char **argv) {
    int fd = mkstemp(path);
    if (fd < 0) return 1;
    close(fd);
    TEST(every_prefix_is_refused);
    TEST(ten_thousand_flips);
    TEST(failing_allocations);
    TEST(greedy_vocabulary);
    unlink(path);
    TEST_EXIT();
}
