/* test_gpt2.c - GPT-2's tokenizer against the 220 examples on which tokenizers and tiktoken agree. */
#include "test.h"

#include <sys/stat.h>
#include <unistd.h>

#include "base/json.h"
#include "tokenizer/tokenizer.h"

#define DIR "tests/fixtures/tokenizer/gpt2/"

static int base64_digit(char c) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *p = c ? strchr(digits, c) : NULL;
    return p ? (int)(p - digits) : -1;
}

static size_t from_base64(char *s, size_t n) {
    uint32_t v = 0;
    int bits = 0;
    size_t k = 0;
    for (size_t i = 0; i < n && base64_digit(s[i]) >= 0; i++) {
        v = v << 6 | (uint32_t)base64_digit(s[i]);
        if ((bits += 6) >= 8) s[k++] = (char)(v >> (bits -= 8));
    }
    return k;
}

typedef struct example { sill__str text; int32_t ids[512]; size_t n_ids; bool special; } example;

/* One line of tokenizer_examples.jsonl; false for the header. */
static bool read_example(const char *line, size_t n, example *e) {
    sill__json j;
    char key[8];
    bool got = false, base64 = false;
    sill__json_init(&j, line, n);
    sill__str_clear(&e->text);
    e->n_ids = 0;
    e->special = false;
    sill__json_enter(&j, SILL__JSON_OBJECT);
    while (sill__json_next_member(&j, key, sizeof key, NULL)) {
        int64_t v;
        if (!strcmp(key, "t") || !strcmp(key, "b")) {
            base64 = key[0] == 'b';
            if (sill__json_peek(&j) == SILL__JSON_STRING) sill__json_string(&j, &e->text);
        } else if (!strcmp(key, "s")) {
            sill__json_int(&j, &v);
            e->special = v == 1;
        } else if (!strcmp(key, "ids")) {
            got = true;
            sill__json_enter(&j, SILL__JSON_ARRAY);
            while (sill__json_next_element(&j) && sill__json_int(&j, &v) && e->n_ids < 512) e->ids[e->n_ids++] = (int32_t)v;
        }
    }
    CHECK(sill__json_finish(&j));
    if (base64) e->text.n = from_base64(e->text.p, e->text.n);
    return got;
}

static void check_examples(const char *path) {
    sill_tokenizer *t = NULL;
    sill_error err = {0};
    char *data = NULL;
    size_t bytes = 0;
    int count = 0;
    example e;
    CHECK_OK(sill_tokenizer_load(path, &t, &err), err);
    CHECK_OK(sill__read_file(DIR "tokenizer_examples.jsonl", 1 << 20, &data, &bytes, &err), err);
    REQUIRE(t && data);
    CHECK_INT(sill_tokenizer_n_vocab(t), 50257);
    CHECK_INT(sill__tokenizer_bos(t), 50256);
    CHECK_INT(sill__tokenizer_eos(t), 50256);
    CHECK(sill__tokenizer_is_special(t, 50256) && !sill__tokenizer_is_special(t, 50255));
    CHECK(!sill__tokenizer_add_bos(t));
    CHECK_INT(sill__tokenizer_missing_bytes(t), 0);
    sill__str_init(&e.text, 1 << 16);
    for (char *p = data, *stop; p < data + bytes; p = stop + 1) {
        int32_t ids[1024];
        char back[4096];
        size_t n = 0, m = 0;
        if (!(stop = strchr(p, '\n'))) stop = data + bytes;
        if (!read_example(p, (size_t)(stop - p), &e)) continue;
        count++;
        CHECK(sill_tokenize_bound(t, e.text.n) <= 1024);
        CHECK_OK(sill_tokenize(t, e.text.p ? e.text.p : "", e.text.n, e.special ? SILL_TOKENIZE_SPECIAL : 0, ids, 1024, &n, &err), err);
        if (n != e.n_ids || memcmp(ids, e.ids, n * sizeof *ids)) FAIL("other ids for %.*s", (int)(stop - p), p);
        CHECK_OK(sill_detokenize(t, e.ids, e.n_ids, 0, back, sizeof back, &m, &err), err);
        if (m != e.text.n || (m && memcmp(back, e.text.p, m))) FAIL("other bytes for %.*s", (int)(stop - p), p);
    }
    CHECK_INT(count, 220);
    sill__str_free(&e.text);
    sill__free(data);
    sill_tokenizer_free(t);
}

static void examples_from_merges_alone(void) { check_examples(DIR "vocab.bpe"); }

int main(int argc, char **argv) {
    TEST(examples_from_merges_alone);
    TEST_EXIT();
}
