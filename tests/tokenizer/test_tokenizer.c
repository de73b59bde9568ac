/* test_tokenizer.c - the calls of the tokenizer: special tokens, bounds, errors, streams of bytes, threads. */
#include "tok_test.h"

#include <pthread.h>

#include "tokenizer/internal.h"

static const char *const every[] = {"gpt2/vocab.bpe", "smollm.json", "smollm.gguf", "llama3.json", "spm.gguf", "spm.json"};

static void gpt2_reference_ids(void) { /* from transformers, see also test_gpt2.c */
    sill_tokenizer *t = load(FIXTURES "gpt2/vocab.bpe");
    REQUIRE(t);
    CHECK_IDS(t, "Hello  world\n\n x", 0, 15496, 220, 995, 628, 2124);
    CHECK_IDS(t, "I'll don'T", 0, 40, 1183, 836, 6, 51);
    CHECK_IDS(t, "na\xc3\xafve caf\xc3\xa9 \xe6\x97\xa5\xe6\x9c\xac\xe8\xaa\x9e \xf0\x9f\x98\x80", 0, 2616, 38776, 40304, 10545, 245, 98,
              17312, 105, 45739, 252, 30325, 222);
    CHECK_IDS(t, "\xc2\xa0" "a\xe3\x80\x80" "b", 0, 1849, 64, 5099, 222, 65);
    CHECK_STR(sill__tokenizer_pre(t), "gpt2");
    CHECK_INT(sill__tokenizer_kind(t), SILL__TOK_BPE_BYTES);
    sill_tokenizer_free(t);
}

static void special_tokens_only_when_asked(void) {
    sill_tokenizer *t = load(FIXTURES "gpt2/vocab.bpe");
    REQUIRE(t);
    CHECK_IDS(t, "<|endoftext|>hi", SILL_TOKENIZE_SPECIAL, 50256, 5303);
    CHECK_IDS(t, "<|endoftext|>hi", 0, 27, 91, 437, 1659, 5239, 91, 29, 5303);
    CHECK_IDS(t, "<|endoftext<|endoftext|>", SILL_TOKENIZE_SPECIAL, 27, 91, 437, 1659, 5239, 50256);
    CHECK_IDS(t, "hi", SILL_TOKENIZE_BOS, 50256, 5303);
    sill_tokenizer_free(t);
    t = load(STORIES);
    REQUIRE(t);
    /* "</s>" and "<0x41>" in a text are characters, not the tokens of these names. */
    for (int i = 0; i < 2; i++) {
        size_t n = 0;
        const char *text = i ? "a</s>b" : "<0x41>";
        int32_t *ids = encode(t, text, strlen(text), 0, &n);
        for (size_t k = 0; k < n; k++) CHECK(ids[k] != 2 && ids[k] != 3 + 0x41);
        free(ids);
    }
    CHECK_INT(sill__tokenizer_bos(t), 1);
    CHECK_INT(sill__tokenizer_eos(t), 2);
    CHECK(sill__tokenizer_add_bos(t));
    CHECK_STR(sill__tokenizer_pre(t), "spm");
    CHECK_IDS(t, "Once upon a time", SILL_TOKENIZE_BOS, 1, 403, 407, 261, 378);
    CHECK_IDS(t, "", SILL_TOKENIZE_BOS, 1);
    sill_tokenizer_free(t);
}

/* U+2581 stands for a space in such vocabularies; in a text it is a character and comes back. */
static void the_mark_of_a_space_is_text_too(void) {
    static const char text[] = "a\xe2\x96\x81 b\xe2\x96\x81\xe2\x96\x81";
    static const char *const models[] = {STORIES, "tests/fixtures/tokenizer/spm.json", "tests/fixtures/tokenizer/spm.gguf"};
    for (size_t i = 0; i < SILL_ARRAY_LEN(models); i++) {
        sill_tokenizer *t = load(models[i]);
        REQUIRE(t);
        size_t n = 0, m = 0;
        int32_t *ids = encode(t, text, strlen(text), 0, &n);
        char *back = decode(t, ids, n, 0, &m);
        CHECK_STR(back, text);
        free(back);
        free(ids);
        sill_tokenizer_free(t);
    }
}

static void skipping_special_tokens(void) {
    sill_tokenizer *t = load(STORIES);
    REQUIRE(t);
    size_t n = 0, m = 0;
    const char *text = "<s>Once upon</s>";
    int32_t *ids = encode(t, text, strlen(text), SILL_TOKENIZE_SPECIAL, &n);
    CHECK_INT(ids[0], 1);
    CHECK_INT(ids[n - 1], 2);
    char *back = decode(t, ids, n, SILL_DETOKENIZE_SKIP_SPECIAL, &m);
    CHECK_STR(back, "Once upon");
    free(back);
    back = decode(t, ids, n, SILL_DETOKENIZE_SKIP_SPECIAL | SILL_DETOKENIZE_CONTINUATION, &m);
    CHECK_STR(back, " Once upon");
    free(back);
    back = decode(t, ids, n, 0, &m); /* as tokenizers: the dummy space is not at the start of this text */
    CHECK_STR(back, "<s> Once upon</s>");
    free(back);
    free(ids);
    sill_tokenizer_free(t);
}

static void too_little_room_and_bad_arguments(void) {
    sill_tokenizer *t = load(FIXTURES "gpt2/vocab.bpe");
    sill_error err = {0};
    int32_t ids[4] = {0, 0, -7, -7};
    char text[8] = "........";
    size_t n = 0;
    REQUIRE(t);
    CHECK_INT(sill_tokenize(t, "I'll don'T", 10, 0, ids, 2, &n, &err), SILL_ERANGE);
    CHECK(n == 5 && ids[0] == 40 && ids[1] == 1183 && ids[2] == -7);
    CHECK(strstr(err.msg, "5 tokens") != NULL);
    CHECK_INT(sill_tokenize(t, "abc", 3, 0, NULL, 0, &n, NULL), SILL_ERANGE);
    CHECK_INT(n, 1);
    CHECK_INT(sill_tokenize(t, NULL, 3, 0, ids, 4, &n, &err), SILL_EINVAL);
    CHECK_INT(sill_tokenize(t, "a", 1, 64, ids, 4, &n, &err), SILL_EINVAL);
    CHECK_OK(sill_tokenize(t, NULL, 0, 0, NULL, 0, &n, &err), err);
    CHECK_INT(n, 0);
    const int32_t hi[] = {15496, 995}, padded[] = {15496, 50257}, negative[] = {-1};
    CHECK_INT(sill_detokenize(t, hi, 2, 0, text, 7, &n, &err), SILL_ERANGE);
    CHECK_INT(n, 11);
    CHECK(!memcmp(text, "Hello..", 7)); /* whole tokens only */
    CHECK_INT(sill_detokenize(t, padded, 2, 0, text, 8, &n, &err), SILL_ERANGE);
    CHECK(strstr(err.msg, "50257") && strstr(err.msg, "padded"));
    CHECK_INT(sill_detokenize(t, negative, 1, 0, text, 8, &n, &err), SILL_ERANGE);
    CHECK_INT(sill_detokenize(t, hi, 2, 128, text, 8, &n, &err), SILL_EINVAL);
    CHECK_INT(sill_tokenizer_n_vocab(t), 50257);
    CHECK_INT(sill__tokenizer_find(t, " the", 4), 262);
    CHECK_INT(sill__tokenizer_find(t, "<|endoftext|>", 13), 50256);
    CHECK_INT(sill__tokenizer_find(t, "\xff\xff\xff", 3), -1);
    const char *bytes = sill__tokenizer_bytes(t, 262, &n);
    CHECK(bytes && n == 4 && !memcmp(bytes, " the", 4));
    CHECK(sill__tokenizer_bytes(t, 50257, &n) == NULL && sill__tokenizer_bytes(t, -1, &n) == NULL);
    sill_tokenizer_free(t);
    sill_tokenizer_free(NULL);
}

/* ---- bytes */

static void random_bytes_come_back(void) {
    uint64_t state = 5;
    for (size_t k = 0; k < SILL_ARRAY_LEN(every); k++) {
        char path[256], text[600];
        snprintf(path, sizeof path, FIXTURES "%s", every[k]);
        sill_tokenizer *t = load(path);
        REQUIRE(t);
        for (int round = 0; round < 2000; round++) {
            size_t n = test_random(&state) % (round % 10 ? 40 : sizeof text);
            for (size_t i = 0; i < n; i++) {
                uint32_t r = test_random(&state);
                if (round % 3 == 0) text[i] = (char)r;
                else if (round % 3 == 1) text[i] = "ab ' \n\xe6\x97\xa5\xf0\x9f\xe2\x96\x81"[r % 14];
                else text[i] = (char)((r >> 8) % 8 ? r & 127 : r);
            }
            check_round_trip(t, text, n, 0);
            check_round_trip(t, text, n, SILL_TOKENIZE_NO_PREFIX);
        }
        sill_tokenizer_free(t);
    }
}

static const char mixed[] = "A\xc3\xa9\xe6\x97\xa5\xf0\x9f\x98\x80 \xef\xbf\xbd z\xed\x9f\xbf\xf4\x8f\xbf\xbf\xe2\x96\x81.\n";

static void every_prefix_comes_back(void) {
    for (size_t k = 0; k < SILL_ARRAY_LEN(every); k++) {
        char path[256];
        snprintf(path, sizeof path, FIXTURES "%s", every[k]);
        sill_tokenizer *t = load(path);
        REQUIRE(t);
        for (size_t i = 0; i < sizeof mixed; i++)
            for (size_t j = i; j < sizeof mixed; j++) check_round_trip(t, mixed + i, j - i, 0);
        sill_tokenizer_free(t);
    }
}

static void every_character_comes_back(void) {
    char *text = malloc(0x110000 * 5), *p = text;
    REQUIRE(text);
    for (uint32_t c = 0; c < 0x110000; c++) {
        if (c < 0x80) *p++ = (char)c;
        else if (c < 0x800) p += snprintf(p, 8, "%c%c", (int)(0xc0 | c >> 6), (int)(0x80 | (c & 63)));
        else if (c < 0x10000) p += snprintf(p, 8, "%c%c%c", (int)(0xe0 | c >> 12), (int)(0x80 | (c >> 6 & 63)), (int)(0x80 | (c & 63)));
        else p += snprintf(p, 8, "%c%c%c%c", (int)(0xf0 | c >> 18), (int)(0x80 | (c >> 12 & 63)), (int)(0x80 | (c >> 6 & 63)), (int)(0x80 | (c & 63)));
        if (c % 7 == 0) *p++ = ' ';
    }
    for (size_t k = 0; k < SILL_ARRAY_LEN(every); k++) {
        char path[256];
        snprintf(path, sizeof path, FIXTURES "%s", every[k]);
        sill_tokenizer *t = load(path);
        REQUIRE(t);
        check_round_trip(t, text, (size_t)(p - text), 0);
        sill_tokenizer_free(t);
    }
    free(text);
}

/* A proper beginning of some character, by trying all ways to go on. */
static bool can_go_on(const uint8_t *p, size_t n) {
    for (uint32_t c = 0x80; c < 0x110000; c = c < 0x800 ? c + 1 : c + 64 - c % 64) { /* last byte does not matter */
        uint8_t b[4];
        size_t k;
        if (c >= 0xd800 && c < 0xe000) continue;
        if (c < 0x800) k = 2, b[0] = (uint8_t)(0xc0 | c >> 6);
        else if (c < 0x10000) k = 3, b[0] = (uint8_t)(0xe0 | c >> 12), b[1] = (uint8_t)(0x80 | (c >> 6 & 63));
        else k = 4, b[0] = (uint8_t)(0xf0 | c >> 18), b[1] = (uint8_t)(0x80 | (c >> 12 & 63)), b[2] = (uint8_t)(0x80 | (c >> 6 & 63));
        if (n < k && !memcmp(p, b, n)) return true;
    }
    return false;
}

static void incomplete_characters_are_held_back(void) {
    static const uint8_t interesting[] = {0x00, 0x41, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc1, 0xc2, 0xdf, 0xe0, 0xe1,
                                          0xec, 0xed, 0xee, 0xef, 0xf0, 0xf1, 0xf3, 0xf4, 0xf5, 0xff};
    enum { N = SILL_ARRAY_LEN(interesting) };
    static bool one[N], two[N][N], three[N][N][N];
    for (int a = 0; a < N; a++) {
        uint8_t p[4] = {interesting[a], 0, 0, 0};
        one[a] = can_go_on(p, 1);
        for (int b = 0; b < N; b++) {
            p[1] = interesting[b];
            two[a][b] = one[a] && can_go_on(p, 2);
            for (int c = 0; c < N && two[a][b]; c++) {
                p[2] = interesting[c];
                three[a][b][c] = can_go_on(p, 3);
            }
        }
    }
    for (int a = 0; a < N; a++)
        for (int b = 0; b < N; b++)
            for (int c = 0; c < N; c++)
                for (int d = 0; d < N; d++) {
                    const uint8_t p[4] = {interesting[a], interesting[b], interesting[c], interesting[d]};
                    size_t want = one[d] ? 3 : two[c][d] ? 2 : three[b][c][d] ? 1 : 4;
                    size_t got = sill_utf8_complete((const char *)p, 4);
                    if (got != want) FAIL("%02x %02x %02x %02x: %zu, expected %zu", p[0], p[1], p[2], p[3], got, want);
                }
    CHECK_INT(sill_utf8_complete("", 0), 0);
    CHECK_INT(sill_utf8_complete("\xe6\x97", 2), 0);
    CHECK_INT(sill_utf8_complete("a\xf0\x9f\x98", 4), 1);
    CHECK_INT(sill_utf8_complete("\x98\x80\x80", 3), 3);
}

static void streams_join_to_the_whole(void) {
    static const char text[] = " na\xc3\xafve \xe6\x97\xa5\xe6\x9c\xac \xf0\x9f\x98\x80\xf0\x9f\x98\x80 end";
    for (size_t k = 0; k < SILL_ARRAY_LEN(every); k++) {
        char path[256], sent[256];
        size_t n = 0, n_sent = 0, held = 0;
        snprintf(path, sizeof path, FIXTURES "%s", every[k]);
        sill_tokenizer *t = load(path);
        REQUIRE(t);
        int32_t *ids = encode(t, text, sizeof text - 1, 0, &n);
        for (size_t i = 0; i < n; i++) {
            size_t m = 0;
            char *piece = decode(t, ids + i, 1, i ? SILL_DETOKENIZE_CONTINUATION : 0, &m);
            memcpy(sent + n_sent + held, piece, m);
            size_t whole = sill_utf8_complete(sent + n_sent, held + m);
            CHECK_INT(sill_utf8_complete(sent, n_sent + whole), n_sent + whole);
            n_sent += whole;
            held = held + m - whole;
            free(piece);
        }
        CHECK_INT(held, 0);
        CHECK(n_sent == sizeof text - 1 && !memcmp(sent, text, n_sent));
        free(ids);
        sill_tokenizer_free(t);
    }
}

/* Texts that make careless tokenizers slow; a hang would end at the runner's limit. */
static void long_runs_come_back(void) {
    static const char *const units[] = {"a", " ", "1", "ab", "\n", "\xf0\x9f\x98\x80", "\xe6\x97\xa5\xe6\x9c\xac\xe8\xaa\x9e", ".", "'", "<|endoftext", "\xff", " a"};
    size_t n = (size_t)1 << 20;
    char *text = malloc(n + 8);
    REQUIRE(text);
    for (size_t k = 0; k < SILL_ARRAY_LEN(every); k++) {
        char path[256];
        snprintf(path, sizeof path, FIXTURES "%s", every[k]);
        sill_tokenizer *t = load(path);
        REQUIRE(t);
        for (size_t u = 0; u < SILL_ARRAY_LEN(units); u++) {
            size_t m = strlen(units[u]), k_bytes = n / m * m;
            for (size_t i = 0; i < k_bytes; i++) text[i] = units[u][i % m];
            check_round_trip(t, text, k_bytes, SILL_TOKENIZE_SPECIAL);
        }
        sill_tokenizer_free(t);
    }
    free(text);
}

/* ---- threads */

typedef struct job { const sill_tokenizer *t; const char *text; size_t n; uint64_t hash; } job;

static void *run_job(void *arg) {
    job *j = arg;
    for (int i = 0; i < 20; i++) {
        size_t n = 0;
        int32_t *ids = encode(j->t, j->text, j->n, 0, &n);
        j->hash = sill__hash64(ids, n * sizeof *ids);
        free(ids);
    }
    return NULL;
}

static void threads_share_a_tokenizer(void) {
    static const char text[] = "It is a truth universally acknowledged, that a single man in possession of a good fortune, must be in "
                               "want of a wife. aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    for (size_t k = 0; k < SILL_ARRAY_LEN(every); k++) {
        char path[256];
        pthread_t thread[4];
        job jobs[5];
        snprintf(path, sizeof path, FIXTURES "%s", every[k]);
        sill_tokenizer *t = load(path), *fresh = load(path);
        REQUIRE(t && fresh);
        for (int i = 0; i < 5; i++) jobs[i] = (job){i < 4 ? t : fresh, text, sizeof text - 1, 0};
        for (int i = 0; i < 4; i++) pthread_create(&thread[i], NULL, run_job, &jobs[i]);
        for (int i = 0; i < 4; i++) pthread_join(thread[i], NULL);
        run_job(&jobs[4]);
        for (int i = 0; i < 4; i++) CHECK(jobs[i].hash == jobs[4].hash);
        sill_tokenizer_free(t);
        sill_tokenizer_free(fresh);
    }
}

/* The spans of a text's tokens: the same ids, ascending, and where the vocabulary has a token's very bytes, these. */
static void check_spans(const sill_tokenizer *t, const char *p, size_t n, uint32_t flags) {
    size_t n_ids = 0, m = 0, end = 0;
    sill_error err = {0};
    int32_t *ids = encode(t, p, n, flags, &n_ids), *again = malloc((n_ids + 1) * sizeof *again);
    sill_token_span *spans = malloc((n_ids + 1) * sizeof *spans);
    CHECK_OK(sill_tokenize_spans(t, p, n, flags, again, spans, n_ids, &m, &err), err);
    CHECK(m == n_ids && !memcmp(ids, again, n_ids * sizeof *ids));
    for (size_t i = 0; i < n_ids; i++) {
        size_t k = 0, from = spans[i].begin, to = spans[i].end;
        const char *bytes = sill__tokenizer_bytes(t, ids[i], &k);
        if (from < end || to < from || to > n) FAIL("token %zu at %zu to %zu behind %zu of %zu", i, from, to, end, n);
        end = to;
        if (from == to || to > n) continue; /* BOS, the dummy space */
        bool same = k == to - from && !memcmp(bytes, p + from, k);
        bool dummy = from == 0 && k == to + 1 && bytes[0] == ' ' && !memcmp(bytes + 1, p, to);
        if (!same && !dummy && ids[i] != t->unk) FAIL("token %zu is not what stands at %zu to %zu", i, from, to);
    }
    if (n_ids > 1) CHECK_INT(sill_tokenize_spans(t, p, n, flags, again, spans, 1, &m, &err), SILL_ERANGE);
    free(ids), free(again), free(spans);
}

static void spans_are_where_tokens_stand(void) {
    static const char *const texts[] = {"", "Hello  world\n\n x", "na\xc3\xafve caf\xc3\xa9 \xe6\x97\xa5\xe6\x9c\xac\xe8\xaa\x9e \xf0\x9f\x98\x80!",
                                        "<|endoftext|>a<s> b</s>", " \xe2\x96\x81x", "\xff\xfe\x80 a\xc3", "a\x01\x02\x03z", "\xd1\x8f \xd8\xb9\xd8\xb1"};
    for (size_t k = 0; k < SILL_ARRAY_LEN(every); k++) {
        char path[256], random[200];
        snprintf(path, sizeof path, FIXTURES "%s", every[k]);
        sill_tokenizer *t = load(path);
        REQUIRE(t);
        for (uint32_t flags = 0; flags < 8; flags++) {
            if ((flags & SILL_TOKENIZE_BOS) && sill__tokenizer_bos(t) < 0) continue;
            for (size_t i = 0; i < SILL_ARRAY_LEN(texts); i++) check_spans(t, texts[i], strlen(texts[i]), flags);
            for (int r = 0; r < 50; r++) {
                for (size_t i = 0; i < sizeof random; i++) random[i] = (char)((r * 7919 + (int)i * (104729 + r)) >> (r % 5));
                check_spans(t, random, sizeof random, flags);
            }
        }
        sill_tokenizer_free(t);
    }
}

static void what_a_tokenizer_tells(void) {
    sill_tokenizer *t = load(FIXTURES "gpt2/vocab.bpe");
    sill_error err = {0};
    sill_tokenizer_info info;
    char text[16];
    size_t n = 0;
    REQUIRE(t);
    sill_tokenizer_get_info(t, &info, sizeof info);
    CHECK_INT(info.n_vocab, sill_tokenizer_n_vocab(t));
    CHECK_INT(info.eos_id, info.n_vocab - 1);
    CHECK_STR(info.kind, "gpt2");
    CHECK(sill_token_is_special(t, info.eos_id) && !sill_token_is_special(t, 0) && !sill_token_is_special(t, -1));
    CHECK_OK(sill_token_text(t, info.eos_id, text, sizeof text, &n, &err), err);
    CHECK(n == 13 && !memcmp(text, "<|endoftext|>", n));
    CHECK_OK(sill_token_text(t, 220, text, sizeof text, &n, &err), err); /* a space is U+0120 */
    CHECK(n == 2 && !memcmp(text, "\xc4\xa0", n));
    CHECK_INT(sill_token_text(t, 220, text, 1, &n, &err), SILL_ERANGE);
    CHECK_INT(n, 2);
    CHECK_INT(sill_token_text(t, info.n_vocab, text, sizeof text, &n, &err), SILL_ERANGE);
    CHECK_INT(sill_token_text(t, -1, text, sizeof text, &n, &err), SILL_ERANGE);
    CHECK_INT(sill_token_text(t, 1, NULL, 4, &n, &err), SILL_EINVAL);
    sill_tokenizer_free(t);
    REQUIRE(t = load(FIXTURES "spm.json"));
    int found = 0;
    for (int32_t i = 0; i < sill_tokenizer_n_vocab(t); i++) {
        if (sill_token_text(t, i, text, sizeof text, &n, &err) != SILL_OK) continue;
        found += (n == 6 && !memcmp(text, "<0x41>", 6)) || (n == 3 && !memcmp(text, "\xe2\x96\x81", 3));
    }
    CHECK_INT(found, 2);
    sill_tokenizer_free(t);
}

int main(int argc, char **argv) {
    TEST(gpt2_reference_ids);
    TEST(special_tokens_only_when_asked);
    TEST(the_mark_of_a_space_is_text_too);
    TEST(skipping_special_tokens);
    TEST(too_little_room_and_bad_arguments);
    TEST(random_bytes_come_back);
    TEST(every_prefix_comes_back);
    TEST(every_character_comes_back);
    TEST(incomplete_characters_are_held_back);
    TEST(streams_join_to_the_whole);
    TEST(long_runs_come_back);
    TEST(threads_share_a_tokenizer);
    TEST(spans_are_where_tokens_stand);
    TEST(what_a_tokenizer_tells);
    TEST_EXIT();
}
