/*
 * test_load.c - where tokenizers come from: directories, pairs of files, small configuration files, GGUF; what is
 * refused, and by which name.
 */
#include "tok_test.h"

#include <sys/stat.h>

static char dir[] = "/tmp/sill-tok-XXXXXX";

static const char *in_dir(const char *name) {
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return path;
}

static void put(const char *name, const char *text) { write_file(in_dir(name), text, strlen(text)); }
static void drop(const char *name) { unlink(in_dir(name)); }

/* ---- a small tokenizer.json with parts that a test can change */

#define VOCAB "{\"a\": 0, \"b\": 1, \"c\": 2, \"ab\": 3, \"abc\": 4, \"\\u0120\": 5}"
#define MERGES "[\"a b\", \"ab c\"]"
#define GPT2_PRE "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"trim_offsets\": true, \"use_regex\": true}"
#define BOTH_ENDS "[{\"id\": 6, \"content\": \"<|endoftext|>\", \"special\": true, \"single_word\": false, \"lstrip\": false, " \
                  "\"rstrip\": false, \"normalized\": false}]"

typedef struct shape { const char *added, *normalizer, *pre, *post, *decoder, *model, *vocab, *merges; } shape;

static void put_json(shape s) {
    char text[8192];
    snprintf(text, sizeof text,
             "{\"version\": \"1.0\", \"truncation\": null, \"padding\": null, \"added_tokens\": %s, \"normalizer\": %s, "
             "\"pre_tokenizer\": %s, \"post_processor\": %s, \"decoder\": %s, \"model\": {\"type\": \"BPE\", \"dropout\": null, "
             "\"unk_token\": null, \"continuing_subword_prefix\": \"\", \"fuse_unk\": false, \"byte_fallback\": false%s, "
             "\"vocab\": %s, \"merges\": %s}}",
             s.added ? s.added : BOTH_ENDS, s.normalizer ? s.normalizer : "null", s.pre ? s.pre : GPT2_PRE,
             s.post ? s.post : "null", s.decoder ? s.decoder : "{\"type\": \"ByteLevel\"}", s.model ? s.model : "",
             s.vocab ? s.vocab : VOCAB, s.merges ? s.merges : MERGES);
    put("tokenizer.json", text);
}

static void check_refused_at(int line, sill_status want, const char *says) {
    sill_tokenizer *t = (sill_tokenizer *)1;
    sill_error err = {0};
    sill_status s = sill_tokenizer_load(dir, &t, &err);
    if (s != want || t != NULL || !strstr(err.msg, says))
        FAIL("line %d: status %d, expected %d with \"%s\": %s", line, s, want, says, err.msg);
    if (s == SILL_OK) sill_tokenizer_free(t);
}
#define CHECK_REFUSED(shape_, want, says)                                                                              \
    do {                                                                                                               \
        put_json(shape_);                                                                                              \
        check_refused_at(__LINE__, want, says);                                                                        \
    } while (0)

static void small_json_loads(void) {
    put_json((shape){0});
    sill_tokenizer *t = load(dir);
    REQUIRE(t);
    CHECK_INT(sill_tokenizer_n_vocab(t), 7);
    CHECK_INT(sill__tokenizer_missing_bytes(t), 252);
    CHECK_INT(sill__tokenizer_bos(t), 6);
    CHECK_INT(sill__tokenizer_pad(t), -1);
    CHECK(sill__tokenizer_chat_template(t) == NULL);
    CHECK_IDS(t, "abc ab<|endoftext|>", SILL_TOKENIZE_SPECIAL, 4, 5, 3, 6);
    CHECK_IDS(t, "axb", 0, 3); /* no token for x: left out, as by tokenizers 0.23 */
    sill_tokenizer_free(t);
    put_json((shape){.model = ", \"unk_token\": \"c\""}); /* with an unknown token: one for each byte, or one for all */
    t = load(dir);
    REQUIRE(t);
    CHECK_IDS(t, "axyb", 0, 0, 2, 2, 1);
    sill_tokenizer_free(t);
    put_json((shape){.model = ", \"unk_token\": \"c\", \"fuse_unk\": true"});
    t = load(dir);
    REQUIRE(t);
    CHECK_IDS(t, "axyb", 0, 0, 2, 1);
    sill_tokenizer_free(t);
    /* Merges as pairs, in another order of members. */
    put("tokenizer.json", "{\"model\": {\"merges\": [[\"a\", \"b\"], [\"ab\", \"c\"]], \"vocab\": " VOCAB ", \"type\": \"BPE\"}, "
                          "\"decoder\": {\"type\": \"ByteLevel\"}, \"pre_tokenizer\": " GPT2_PRE ", \"added_tokens\": " BOTH_ENDS "}");
    t = load(in_dir("tokenizer.json"));
    REQUIRE(t);
    CHECK_IDS(t, "abc ab<|endoftext|>", SILL_TOKENIZE_SPECIAL, 4, 5, 3, 6);
    sill_tokenizer_free(t);
}

static void unknown_parts_are_refused_by_name(void) {
    CHECK_REFUSED(((shape){.normalizer = "{\"type\": \"NFC\"}"}), SILL_EUNSUPPORTED, "NFC");
    CHECK_REFUSED(((shape){.pre = "{\"type\": \"BertPreTokenizer\"}"}), SILL_EUNSUPPORTED, "BertPreTokenizer");
    CHECK_REFUSED(((shape){.pre = "{\"type\": \"ByteLevel\", \"add_prefix_space\": true, \"use_regex\": true}"}), SILL_EUNSUPPORTED, "ByteLevel");
    CHECK_REFUSED(((shape){.pre = "{\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Split\", \"pattern\": {\"Regex\": \"[0-9]\"}, "
                                  "\"behavior\": \"Isolated\", \"invert\": false}, {\"type\": \"ByteLevel\", \"add_prefix_space\": false, "
                                  "\"use_regex\": false}]}"}), SILL_EUNSUPPORTED, "Split + ByteLevel");
    CHECK_REFUSED(((shape){.pre = "null"}), SILL_EUNSUPPORTED, "word marks");
    CHECK_REFUSED(((shape){.decoder = "{\"type\": \"WordPiece\"}"}), SILL_EUNSUPPORTED, "WordPiece");
    CHECK_REFUSED(((shape){.post = "{\"type\": \"BertProcessing\"}"}), SILL_EUNSUPPORTED, "BertProcessing");
    CHECK_REFUSED(((shape){.post = "{\"type\": \"TemplateProcessing\", \"single\": [{\"Sequence\": {\"id\": \"A\"}}, "
                                   "{\"SpecialToken\": {\"id\": \"<|endoftext|>\"}}]}"}), SILL_EUNSUPPORTED, "before the text");
    CHECK_REFUSED(((shape){.model = ", \"type\": \"Unigram\""}), SILL_EUNSUPPORTED, "Unigram");
    CHECK_REFUSED(((shape){.model = ", \"end_of_word_suffix\": \"</w>\""}), SILL_EUNSUPPORTED, "end_of_word_suffix");
    CHECK_REFUSED(((shape){.added = "[{\"id\": 6, \"content\": \"<mask>\", \"special\": true, \"lstrip\": true}]"}), SILL_EUNSUPPORTED, "lstrip");
    CHECK_REFUSED(((shape){.added = "[{\"id\": 6, \"content\": \"<mask>\", \"special\": true, \"single_word\": true}]"}), SILL_EUNSUPPORTED, "single_word");
}

static void broken_vocabularies_are_refused(void) {
    CHECK_REFUSED(((shape){.vocab = "{\"a\": 0, \"b\": 1, \"c\": 2, \"ab\": 3, \"abc\": 3}"}), SILL_EFORMAT, "the id 3");
    CHECK_REFUSED(((shape){.vocab = "{\"a\": 0, \"b\": 1, \"c\": 2, \"ab\": 3, \"abc\": 4, \"a\": 5}"}), SILL_EFORMAT, "tokens 0 and 5");
    CHECK_REFUSED(((shape){.vocab = "{\"a\": -1, \"b\": 1}"}), SILL_EFORMAT, "-1");
    CHECK_REFUSED(((shape){.vocab = "{\"a\": 4194304, \"b\": 1}"}), SILL_EFORMAT, "4194303");
    CHECK_REFUSED(((shape){.vocab = "{\"a\": 99999999999999999999, \"b\": 1}"}), SILL_EFORMAT, "tokenizer.json");
    CHECK_REFUSED(((shape){.vocab = "{\"a\": 1.5}"}), SILL_EFORMAT, "tokenizer.json");
    CHECK_REFUSED(((shape){.vocab = "{\"a\": \"x\"}"}), SILL_EFORMAT, "tokenizer.json");
    CHECK_REFUSED(((shape){.vocab = "[]"}), SILL_EFORMAT, "tokenizer.json");
    CHECK_REFUSED(((shape){.vocab = "{}", .added = "[]", .merges = "[]"}), SILL_EFORMAT, "empty");
    CHECK_REFUSED(((shape){.vocab = "{\"ab\": 0}", .merges = "[]"}), SILL_EFORMAT, "single byte");
    CHECK_REFUSED(((shape){.model = ", \"unk_token\": \"zz\""}), SILL_EFORMAT, "unk_token");
    CHECK_REFUSED(((shape){.merges = "[\"a b\", \"b x\"]"}), SILL_EFORMAT, "merge 1");
    CHECK_REFUSED(((shape){.merges = "[\"a c\"]"}), SILL_EFORMAT, "joined");
    CHECK_REFUSED(((shape){.merges = "[\"ab\"]"}), SILL_EFORMAT, "merge 0");
    CHECK_REFUSED(((shape){.merges = "[[\"a\"]]"}), SILL_EFORMAT, "merge 0");
    CHECK_REFUSED(((shape){.merges = "[[\"a\", \"b\", \"c\"]]"}), SILL_EFORMAT, "merge 0");
    CHECK_REFUSED(((shape){.merges = "[7]"}), SILL_EFORMAT, "tokenizer.json");
    CHECK_REFUSED(((shape){.added = "[{\"id\": 3, \"content\": \"zzz\", \"special\": true}]"}), SILL_EFORMAT, "another token");
    CHECK_REFUSED(((shape){.added = "[{\"id\": -5, \"content\": \"zzz\", \"special\": true}]"}), SILL_EFORMAT, "-5");
    CHECK_REFUSED(((shape){.added = "[{\"id\": 6, \"content\": \"\", \"special\": true}]"}), SILL_EFORMAT, "no text");
    CHECK_REFUSED(((shape){.added = "[{\"id\": 6, \"content\": \"z\", \"special\": true}, {\"id\": 7, \"content\": \"z\"}]"}), SILL_EFORMAT, "6 and 7");
    CHECK_REFUSED(((shape){.post = "{\"type\": \"TemplateProcessing\", \"single\": [{\"SpecialToken\": {\"id\": \"<x>\"}}]}"}), SILL_EFORMAT, "<x>");
    CHECK_REFUSED(((shape){.vocab = "{\"a\": 0, \"b\": 1, \"c\": 2, \"ab\": 3, \"abc\": 3}"}), SILL_EFORMAT, "tokenizer.json: ");
    CHECK_REFUSED(((shape){.added = "[{\"id\": 6, \"content\": \"a\\u0000b\", \"special\": true}]"}), SILL_EFORMAT, "added token 6 has a NUL");
    char wide[2000];
    snprintf(wide, sizeof wide, "[{\"content\": \"%01025d\", \"special\": true, \"id\": 6}]", 7);
    CHECK_REFUSED(((shape){.added = wide}), SILL_EFORMAT, "added token 6 has 1025 bytes");
    put("tokenizer.json", "{\"model\": {\"type\": \"BPE\"}}");
    check_refused_at(__LINE__, SILL_EUNSUPPORTED, "word marks");
    put("tokenizer.json", "{\"pre_tokenizer\": " GPT2_PRE ", \"model\": {\"type\": \"BPE\", \"merges\": []}}");
    check_refused_at(__LINE__, SILL_EFORMAT, "no vocab");
    put("tokenizer.json", "{}");
    check_refused_at(__LINE__, SILL_EFORMAT, "no \"model\"");
    put("tokenizer.json", "");
    check_refused_at(__LINE__, SILL_EFORMAT, "tokenizer.json");
    char *big = malloc(5000);
    memset(big, 'a', 5000);
    memcpy(big, "{\"", 2);
    memcpy(big + 4990, "\": 0}", 6);
    CHECK_REFUSED(((shape){.vocab = big}), SILL_EFORMAT, "1024");
    free(big);
}

/* An id without a token is a hole: its neighbours work, itself stands for nothing. */
static void holes_are_outside_the_vocabulary(void) {
    put_json((shape){.vocab = "{\"a\": 0, \"b\": 1, \"c\": 2, \"ab\": 3, \"abc\": 9, \"\\u0120\": 5}"});
    sill_tokenizer *t = load(dir);
    sill_error err = {0};
    const int32_t hole = 7;
    size_t n;
    char text[8];
    REQUIRE(t);
    CHECK_INT(sill_tokenizer_n_vocab(t), 10);
    CHECK_IDS(t, "abcab", 0, 9, 3);
    CHECK_INT(sill_detokenize(t, &hole, 1, 0, text, sizeof text, &n, &err), SILL_ERANGE);
    CHECK(sill__tokenizer_bytes(t, 7, &n) == NULL && !sill__tokenizer_is_special(t, 7));
    sill_tokenizer_free(t);
}

/* Merges need not make a token that is in the vocabulary out of its own bytes. */
static void unreachable_tokens_stay_unreachable(void) {
    put_json((shape){.vocab = "{\"a\": 0, \"b\": 1, \"c\": 2, \"bc\": 3, \"abc\": 4, \"ab\": 5}", .merges = "[\"b c\", \"a b\", \"ab c\"]"});
    sill_tokenizer *t = load(dir);
    REQUIRE(t);
    CHECK_IDS(t, "abc", 0, 0, 3); /* tokenizers 0.23 gives the same */
    CHECK_IDS(t, "abc", 0, 0, 3);
    sill_tokenizer_free(t);
    put_json((shape){.vocab = "{\"a\": 0, \"b\": 1, \"c\": 2, \"bc\": 3, \"abc\": 4, \"ab\": 5}", .merges = "[\"b c\", \"a b\", \"ab c\"]",
                     .model = ", \"ignore_merges\": true"});
    t = load(dir);
    REQUIRE(t);
    CHECK_IDS(t, "abc", 0, 4);
    sill_tokenizer_free(t);
}

/* A token with a space inside: then words cannot be merged apart from each other. Ids from tokenizers 0.23. */
static void tokens_across_words(void) {
    put_json((shape){.added = "[{\"id\": 0, \"content\": \"<unk>\", \"special\": true}]", .pre = "null", .decoder = "null",
                     .normalizer = "{\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"Prepend\", \"prepend\": \"\xe2\x96\x81\"}, "
                                   "{\"type\": \"Replace\", \"pattern\": {\"String\": \" \"}, \"content\": \"\xe2\x96\x81\"}]}",
                     .vocab = "{\"<unk>\": 0, \"\\u2581\": 1, \"a\": 2, \"b\": 3, \"a\\u2581\": 4, \"a\\u2581b\": 5}",
                     .merges = "[\"a \\u2581\", \"a\\u2581 b\"]"});
    sill_tokenizer *t = load(dir);
    REQUIRE(t);
    CHECK_IDS(t, "a b a  b", 0, 1, 5, 1, 4, 1, 3);
    sill_tokenizer_free(t);
}

static void post_processor_and_config_tell_bos(void) {
    put_json((shape){.post = "{\"type\": \"TemplateProcessing\", \"single\": [{\"SpecialToken\": {\"id\": \"<|endoftext|>\", \"type_id\": 0}}, "
                             "{\"Sequence\": {\"id\": \"A\", \"type_id\": 0}}]}"});
    sill_tokenizer *t = load(dir);
    REQUIRE(t);
    CHECK(sill__tokenizer_add_bos(t));
    sill_tokenizer_free(t);
    put("tokenizer_config.json", "{\"add_bos_token\": false, \"bos_token\": {\"content\": \"ab\", \"lstrip\": false}, \"eos_token\": \"<|endoftext|>\","
                                 " \"pad_token\": null, \"chat_template\": [{\"name\": \"tool_use\", \"template\": \"no\"}, "
                                 "{\"template\": \"{{yes}}\", \"name\": \"default\"}]}");
    put("special_tokens_map.json", "{\"pad_token\": \"c\", \"eos_token\": \"b\"}");
    t = load(dir);
    REQUIRE(t);
    CHECK(!sill__tokenizer_add_bos(t));
    CHECK_INT(sill__tokenizer_bos(t), 6); /* the post-processor's comes first */
    CHECK_INT(sill__tokenizer_eos(t), 6);
    CHECK_INT(sill__tokenizer_pad(t), 2);
    CHECK_STR(sill__tokenizer_chat_template(t), "{{yes}}");
    sill_tokenizer_free(t);
    put("tokenizer_config.json", "{\"chat_template\": \"{{one}}\", \"eos_token\": \"nowhere\"}");
    put("special_tokens_map.json", "{}");
    put("config.json", "{\"bos_token_id\": 3, \"eos_token_id\": [4, 5], \"pad_token_id\": 1000}");
    put("chat_template.jinja", "{{file}}");
    put_json((shape){0});
    t = load(dir);
    REQUIRE(t);
    CHECK_INT(sill__tokenizer_bos(t), 3);
    CHECK_INT(sill__tokenizer_eos(t), 4);
    CHECK_INT(sill__tokenizer_pad(t), -1);
    CHECK_STR(sill__tokenizer_chat_template(t), "{{file}}");
    sill_tokenizer_free(t);
    put("tokenizer_config.json", "{\"eos_token\": ");
    check_refused_at(__LINE__, SILL_EFORMAT, "tokenizer_config.json");
    put("tokenizer_config.json", "{\"add_prefix_space\": true}");
    check_refused_at(__LINE__, SILL_EUNSUPPORTED, "add_prefix_space");
    drop("tokenizer_config.json");
    drop("special_tokens_map.json");
    drop("config.json");
    drop("chat_template.jinja");
}

/* ---- GPT-2's pair of files */

static void put_letter(sill__str *s, uint8_t b) {
    uint32_t c = b;
    if (b < 33) c = 256u + b;
    else if (b >= 127 && b <= 160) c = 289u + b - 127;
    else if (b == 173) c = 323;
    if (c == '"' || c == '\\') sill__str_putf(s, "\\%c", (int)c);
    else if (c < 128) sill__str_putf(s, "%c", (int)c);
    else sill__str_putf(s, "\\u%04x", c);
}

static void pair_of_files_equals_merges_alone(void) {
    sill_tokenizer *t = load(FIXTURES "gpt2/vocab.bpe"), *u;
    sill__str json;
    sill_error err = {0};
    uint8_t a[32], b[32];
    char *merges = NULL;
    size_t n = 0;
    REQUIRE(t);
    CHECK_OK(sill__read_file(FIXTURES "gpt2/vocab.bpe", 1 << 20, &merges, &n, &err), err);
    sill__str_init(&json, 1 << 24);
    for (int32_t i = 0; i < sill_tokenizer_n_vocab(t); i++) {
        size_t m = 0;
        const uint8_t *p = (const uint8_t *)sill__tokenizer_bytes(t, i, &m);
        sill__str_puts(&json, i ? ", \"" : "{\"");
        for (size_t k = 0; k < m; k++) put_letter(&json, p[k]);
        sill__str_putf(&json, "\": %d", i);
    }
    sill__str_puts(&json, "}");
    REQUIRE(!json.failed && merges);
    drop("tokenizer.json");
    sill__tokenizer_hash(t, a);
    static const char *const names[][2] = {{"vocab.json", "merges.txt"}, {"encoder.json", "vocab.bpe"}};
    for (int k = 0; k < 2; k++) {
        write_file(in_dir(names[k][0]), json.p, json.n);
        check_refused_at(__LINE__, SILL_ENOENT, "merges.txt");
        write_file(in_dir(names[k][1]), merges, n);
        for (int from_file = 0; from_file < 2; from_file++) {
            u = load(from_file ? in_dir(names[k][0]) : dir);
            REQUIRE(u);
            sill__tokenizer_hash(u, b);
            CHECK(!memcmp(a, b, 32));
            CHECK_INT(sill__tokenizer_eos(u), 50256);
            CHECK_IDS(u, "<|endoftext|>hi", SILL_TOKENIZE_SPECIAL, 50256, 5303);
            sill_tokenizer_free(u);
        }
        drop(names[k][0]);
        drop(names[k][1]);
    }
    sill__str_free(&json);
    sill__free(merges);
    sill_tokenizer_free(t);
}

static void pair_with_added_tokens_and_classes(void) {
    put("vocab.json", VOCAB);
    put("merges.txt", "#version: 0.2\r\na b\r\nab c\r\n\r\n");
    put("added_tokens.json", "{\"<x>\": 6}");
    put("tokenizer_config.json", "{\"tokenizer_class\": \"GPT2Tokenizer\", \"added_tokens_decoder\": {\"7\": {\"content\": \"<y>\", \"special\": true}}}");
    sill_tokenizer *t = load(dir);
    REQUIRE(t);
    CHECK_IDS(t, "abc<x><y>", SILL_TOKENIZE_SPECIAL, 4, 6, 7);
    CHECK(!sill__tokenizer_is_special(t, 6) && sill__tokenizer_is_special(t, 7));
    sill_tokenizer_free(t);
    put("tokenizer_config.json", "{\"tokenizer_class\": \"BloomTokenizer\"}");
    check_refused_at(__LINE__, SILL_EUNSUPPORTED, "BloomTokenizer");
    drop("tokenizer_config.json");
    put("added_tokens.json", "{\"x\\u0000y\": 6}");
    check_refused_at(__LINE__, SILL_EFORMAT, "added token 6 has a NUL");
    char wide[1100];
    snprintf(wide, sizeof wide, "{\"%01025d\": 6}", 7);
    put("added_tokens.json", wide);
    check_refused_at(__LINE__, SILL_EFORMAT, "added token 6 has 1025 bytes");
    drop("added_tokens.json");
    put("vocab.json", "{\"a\": 0, \"b\": 0}");
    check_refused_at(__LINE__, SILL_EFORMAT, "vocab.json: two tokens");
    put("vocab.json", VOCAB);
    put("merges.txt", "a b\nb z\n");
    check_refused_at(__LINE__, SILL_EFORMAT, "merges.txt: merge 1");
    drop("vocab.json");
    drop("merges.txt");
    put("tokenizer.model", "x");
    check_refused_at(__LINE__, SILL_EUNSUPPORTED, "tokenizer.json is needed");
    drop("tokenizer.model");
    put("vocab.txt", "x");
    check_refused_at(__LINE__, SILL_EUNSUPPORTED, "WordPiece");
    drop("vocab.txt");
}

/* ---- GGUF */

/* smollm.gguf or spm.gguf with one string replaced by another of the same length. */
static void put_patched(const char *fixture, const char *from, const char *to) {
    char path[256], *data = NULL;
    size_t n = 0, k = strlen(from), found = 0;
    sill_error err = {0};
    snprintf(path, sizeof path, FIXTURES "%s", fixture);
    CHECK_OK(sill__read_file(path, 1 << 24, &data, &n, &err), err);
    REQUIRE(data);
    for (size_t i = 0; i + k <= n; i++)
        if (!memcmp(data + i, from, k)) {
            memcpy(data + i, to, k);
            found++;
        }
    CHECK(found > 0);
    write_file(in_dir("x.gguf"), data, n);
    sill__free(data);
}

static void check_gguf_refused_at(int line, sill_status want, const char *says) {
    sill_tokenizer *t = NULL;
    sill_error err = {0};
    sill_status s = sill_tokenizer_load(in_dir("x.gguf"), &t, &err);
    if (s != want || t || !strstr(err.msg, says)) FAIL("line %d: status %d, expected %d with \"%s\": %s", line, s, want, says, err.msg);
    sill_tokenizer_free(t);
}

static void gguf_tokenizers_are_refused_by_name(void) {
    put_patched("smollm.gguf", "smollm", "qwen2x");
    check_gguf_refused_at(__LINE__, SILL_EUNSUPPORTED, "\"qwen2x\" is not supported; supported: gpt-2, smollm, llama-bpe");
    put_patched("smollm.gguf", "tokenizer.ggml.pre", "tokenizer.ggml.prx");
    check_gguf_refused_at(__LINE__, SILL_EUNSUPPORTED, "does not name its pre-tokenizer");
    put_patched("smollm.gguf", "tokenizer.ggml.merges", "tokenizer.ggml.mergez");
    check_gguf_refused_at(__LINE__, SILL_EFORMAT, "merges");
    put_patched("smollm.gguf", "tokenizer.ggml.tokens", "tokenizer.ggml.tokenz");
    check_gguf_refused_at(__LINE__, SILL_ENOENT, "no tokenizer");
    put_patched("smollm.gguf", "gpt2", "bert");
    check_gguf_refused_at(__LINE__, SILL_EUNSUPPORTED, "\"bert\"");
    put_patched("spm.gguf", "tokenizer.ggml.scores", "tokenizer.ggml.scorez");
    check_gguf_refused_at(__LINE__, SILL_EFORMAT, "scores");
    drop("x.gguf");
}

/* FIXTURE with N bytes behind the key KEY replaced: its kind, and what follows. */
static void put_behind_key(const char *fixture, const char *key, const void *to, size_t n_to) {
    char path[256], *data = NULL, *at = NULL;
    size_t n = 0, k = strlen(key);
    sill_error err = {0};
    snprintf(path, sizeof path, FIXTURES "%s", fixture);
    CHECK_OK(sill__read_file(path, 1 << 24, &data, &n, &err), err);
    REQUIRE(data);
    at = memmem(data, n, key, k);
    REQUIRE(at && (size_t)(at - data) + k + n_to <= n);
    memcpy(at + k, to, n_to);
    write_file(in_dir("x.gguf"), data, n);
    sill__free(data);
}

static void gguf_keys_of_another_kind_are_refused(void) {
    static const uint8_t floats[8] = {9, 0, 0, 0, 6}, plain[8] = {9, 0, 0, 0, 4}, integers[8] = {9, 0, 0, 0, 5};
    put_behind_key("smollm.gguf", "tokenizer.ggml.token_type", floats, 8);
    check_gguf_refused_at(__LINE__, SILL_EFORMAT, "tokenizer.ggml.token_type is an array of f32, expected an array of i32");
    put_behind_key("spm.gguf", "tokenizer.ggml.scores", integers, 8);
    check_gguf_refused_at(__LINE__, SILL_EFORMAT, "tokenizer.ggml.scores is an array of i32, expected an array of f32");
    put_behind_key("smollm.gguf", "tokenizer.ggml.token_type", plain, 8);
    sill_tokenizer_free(load(in_dir("x.gguf")));
    /* The key of bos, one byte longer, becomes a flag that is a u32. */
    static const char old[] = "tokenizer.ggml.bos_token_id", flag[] = "tokenizer.ggml.add_bos_token";
    char *data = NULL;
    size_t n = 0, k = sizeof old - 1;
    sill_error err = {0};
    CHECK_OK(sill__read_file(FIXTURES "spm.gguf", 1 << 24, &data, &n, &err), err);
    REQUIRE(data);
    char *longer = malloc(n + 1), *at = memmem(data, n, old, k);
    REQUIRE(at && longer);
    size_t i = (size_t)(at - data);
    memcpy(longer, data, i);
    longer[i - 8] = (char)(k + 1);
    memcpy(longer + i, flag, k + 1);
    memcpy(longer + i + k + 1, at + k, n - i - k);
    for (char value = 0; value < 3; value++) {
        longer[i + k + 1 + 4] = value;
        write_file(in_dir("x.gguf"), longer, n + 1);
        if (value == 2) {
            check_gguf_refused_at(__LINE__, SILL_EFORMAT, "tokenizer.ggml.add_bos_token is 2, expected true or false");
            continue;
        }
        sill_tokenizer *t = load(in_dir("x.gguf"));
        CHECK(t && sill__tokenizer_add_bos(t) == (value == 1));
        sill_tokenizer_free(t);
    }
    free(longer);
    sill__free(data);
    drop("x.gguf");
}

static int n_warnings;
static void count_warnings(void *user, int level, const char *line) {
    (void)user;
    n_warnings += level == 1 && strstr(line, "not in the vocabulary") != NULL;
}

/* A key that repeats is looked up once: a file of them must not cost a search of the vocabulary each. */
static void repeated_keys_are_searched_once(void) {
    sill__str s;
    sill__str_init(&s, 1 << 20);
    sill__str_puts(&s, "{\"unk_token\": \"none\"");
    for (int i = 0; i < 1000; i++) sill__str_puts(&s, ", \"pad_token\": \"nowhere\"");
    sill__str_puts(&s, "}");
    put_json((shape){0});
    write_file(in_dir("tokenizer_config.json"), s.p, s.n);
    n_warnings = 0;
    sill_set_log(count_warnings, NULL);
    sill_tokenizer_free(load(dir));
    sill_set_log(NULL, NULL);
    CHECK_INT(n_warnings, 2);
    sill__str_free(&s);
    drop("tokenizer_config.json");
    drop("tokenizer.json");
}

/* A GGUF with nothing but a tokenizer: pairs of key and value. */
static sill__str gguf;
static int n_pairs;

static void put_u(uint64_t v, int bytes) {
    for (int i = 0; i < bytes; i++) sill__str_put(&gguf, &(char){(char)(v >> 8 * i)}, 1);
}
static void put_string(const char *z) {
    put_u(strlen(z), 8);
    sill__str_puts(&gguf, z);
}
static void gguf_start(void) {
    sill__str_free(&gguf);
    sill__str_init(&gguf, 1 << 20);
    n_pairs = 0;
}
static void gguf_string(const char *key, const char *value) {
    put_string(key);
    put_u(8, 4);
    put_string(value);
    n_pairs++;
}
static void gguf_u32(const char *key, uint32_t value) {
    put_string(key);
    put_u(4, 4);
    put_u(value, 4);
    n_pairs++;
}
static void gguf_strings(const char *key, const char *const *values, size_t n) {
    put_string(key);
    put_u(9, 4);
    put_u(8, 4);
    put_u(n, 8);
    for (size_t i = 0; i < n; i++) put_string(values[i]);
    n_pairs++;
}
static void gguf_types(const int *values, size_t n) {
    put_string("tokenizer.ggml.token_type");
    put_u(9, 4);
    put_u(5, 4);
    put_u(n, 8);
    for (size_t i = 0; i < n; i++) put_u((uint64_t)values[i], 4);
    n_pairs++;
}
static void gguf_write(void) {
    sill__str head = gguf;
    memset(&gguf, 0, sizeof gguf);
    sill__str_init(&gguf, 1 << 20);
    sill__str_puts(&gguf, "GGUF");
    put_u(3, 4);
    put_u(0, 8);
    put_u((uint64_t)n_pairs, 8);
    sill__str_put(&gguf, head.p, head.n);
    put_u(0, 8);
    put_u(0, 8);
    put_u(0, 8);
    put_u(0, 8);
    CHECK(!gguf.failed);
    write_file(in_dir("x.gguf"), gguf.p, gguf.n);
    sill__str_free(&head);
    sill__str_free(&gguf);
}

static const char *const few[] = {"a", "b", "ab", "1", "11", "<|end|>", "<|user", "[PAD]"};
static const char *const few_merges[] = {"a b", "1 1"};

static void gguf_few(const char *arch, const char *pre, bool types) {
    static const int kinds[] = {1, 1, 1, 1, 1, 3, 4, 5};
    gguf_start();
    gguf_string("general.architecture", arch);
    gguf_string("tokenizer.ggml.model", "gpt2");
    if (pre) gguf_string("tokenizer.ggml.pre", pre);
    gguf_strings("tokenizer.ggml.tokens", few, SILL_ARRAY_LEN(few));
    if (types) gguf_types(kinds, SILL_ARRAY_LEN(kinds));
    gguf_strings("tokenizer.ggml.merges", few_merges, SILL_ARRAY_LEN(few_merges));
    gguf_u32("tokenizer.ggml.eos_token_id", 5);
    gguf_u32("tokenizer.ggml.padding_token_id", UINT32_MAX); /* some writers' "none" */
    gguf_string("tokenizer.chat_template", "{{hi}}");
    gguf_write();
}

static void gguf_names_of_pre_tokenizers(void) {
    static const struct { const char *arch, *given, *pre; bool add_bos; } cases[] = {
        {"llama", "gpt-2", "gpt2", false}, {"llama", "smollm", "smollm", false}, {"llama", "llama-bpe", "llama3", true},
        {"llama", "llama3", "llama3", true}, {"llama", "llama-v3", "llama3", true}, {"gpt2", NULL, "gpt2", false},
        {"gpt2", "default", "gpt2", false}, {"llama", "default", NULL, false}, {"llama", NULL, NULL, false}, {"gpt2", "refact", NULL, false},
    };
    for (size_t i = 0; i < SILL_ARRAY_LEN(cases); i++) {
        gguf_few(cases[i].arch, cases[i].given, true);
        if (!cases[i].pre) {
            check_gguf_refused_at(__LINE__, SILL_EUNSUPPORTED, "pre-tokenizer");
            continue;
        }
        sill_tokenizer *t = load(in_dir("x.gguf"));
        REQUIRE(t);
        CHECK_STR(sill__tokenizer_pre(t), cases[i].pre);
        CHECK_INT(sill__tokenizer_add_bos(t), cases[i].add_bos);
        CHECK_STR(sill__tokenizer_chat_template(t), "{{hi}}");
        CHECK_INT(sill__tokenizer_eos(t), 5);
        CHECK_INT(sill__tokenizer_pad(t), -1);
        if (!strcmp(cases[i].pre, "smollm")) CHECK_IDS(t, "ab11", 0, 2, 3, 3);
        else CHECK_IDS(t, "ab11", 0, 2, 4);
        CHECK_IDS(t, "ab<|end|><|user[PAD]", SILL_TOKENIZE_SPECIAL, 2, 5, 6); /* [PAD] is not used: its letters are not in the vocabulary */
        CHECK_IDS(t, "ab<|end|>", 0, 2);
        CHECK(sill__tokenizer_is_special(t, 5) && !sill__tokenizer_is_special(t, 6) && !sill__tokenizer_is_special(t, 7));
        sill_tokenizer_free(t);
    }
    gguf_few("gpt2", NULL, false); /* without types, the ids tell what is special */
    sill_tokenizer *t = load(in_dir("x.gguf"));
    REQUIRE(t);
    CHECK(sill__tokenizer_is_special(t, 5) && !sill__tokenizer_is_special(t, 6));
    sill_tokenizer_free(t);
    drop("x.gguf");
}

static void gguf_ids_and_scores_are_checked(void) {
    sill_error err = {0};
    char *data = NULL;
    size_t n = 0;
    CHECK_OK(sill__read_file(FIXTURES "spm.gguf", 1 << 24, &data, &n, &err), err);
    REQUIRE(data);
    char *scores = memmem(data, n, "tokenizer.ggml.scores", 21), *eos = memmem(data, n, "tokenizer.ggml.eos_token_id", 27);
    REQUIRE(scores && eos);
    memset(scores + 21 + 16 + 4 * 300, 0xff, 4); /* behind the array's kind, element kind and count */
    write_file(in_dir("x.gguf"), data, n);
    check_gguf_refused_at(__LINE__, SILL_EFORMAT, "score of token 300");
    memset(scores + 21 + 16 + 4 * 300, 0, 4);
    memset(eos + 27 + 4, 0x7f, 4);
    write_file(in_dir("x.gguf"), data, n);
    check_gguf_refused_at(__LINE__, SILL_EFORMAT, "eos_token_id");
    sill__free(data);
    drop("x.gguf");
}

static void hashes_tell_tokenizers_apart(void) {
    static const char *const names[] = {"gpt2/vocab.bpe", "smollm.json", "llama3.json", "spm.json", "spm_meta.json", "spm_nofallback.json"};
    uint8_t hash[SILL_ARRAY_LEN(names)][32], again[32];
    for (size_t i = 0; i < SILL_ARRAY_LEN(names); i++) {
        char path[256];
        snprintf(path, sizeof path, FIXTURES "%s", names[i]);
        sill_tokenizer *t = load(path);
        REQUIRE(t);
        sill__tokenizer_hash(t, hash[i]);
        free(encode(t, "some text", 9, 0, &(size_t){0}));
        sill__tokenizer_hash(t, again); /* using it changes nothing */
        CHECK(!memcmp(hash[i], again, 32));
        for (size_t k = 0; k < i; k++) CHECK(memcmp(hash[i], hash[k], 32));
        sill_tokenizer_free(t);
    }
}

static void other_files_are_refused(void) {
    sill_tokenizer *t = NULL;
    sill_error err = {0};
    CHECK_INT(sill_tokenizer_load("/nonexistent/x.json", &t, &err), SILL_ENOENT);
    CHECK_INT(sill_tokenizer_load("tests/test.h", &t, &err), SILL_EFORMAT);
    CHECK_INT(sill_tokenizer_load(NULL, &t, &err), SILL_EINVAL);
    CHECK_INT(sill_tokenizer_load("tests/tokenizer", &t, &err), SILL_ENOENT);
    put("other.json", "{\"a\": 0}");
    CHECK_INT(sill_tokenizer_load(in_dir("other.json"), &t, &err), SILL_EFORMAT);
    drop("other.json");
    CHECK(t == NULL);
}

int main(int argc, char **argv) {
    if (!mkdtemp(dir)) return 1;
    TEST(small_json_loads);
    TEST(unknown_parts_are_refused_by_name);
    TEST(broken_vocabularies_are_refused);
    TEST(holes_are_outside_the_vocabulary);
    TEST(unreachable_tokens_stay_unreachable);
    TEST(tokens_across_words);
    TEST(post_processor_and_config_tell_bos);
    TEST(pair_of_files_equals_merges_alone);
    TEST(pair_with_added_tokens_and_classes);
    TEST(gguf_tokenizers_are_refused_by_name);
    TEST(gguf_keys_of_another_kind_are_refused);
    TEST(repeated_keys_are_searched_once);
    TEST(gguf_names_of_pre_tokenizers);
    TEST(gguf_ids_and_scores_are_checked);
    TEST(hashes_tell_tokenizers_apart);
    TEST(other_files_are_refused);
    drop("tokenizer.json");
    rmdir(dir);
    TEST_EXIT();
}
