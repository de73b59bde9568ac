/*
 * test_golden.c - pieces and ids of 58 to 62 texts in each of eight small tokenizers against tokenizers, tiktoken
 * and sentencepiece (tools/fixtures/make_tokenizer.py): 37 languages, speeches, books, strings made to be nasty.
 */
#include "tok_test.h"

#include "tokenizer/internal.h"

typedef struct group { char name[64]; char **strings; size_t *bytes, n; } group;
static group groups[128];
static size_t n_groups;

static void read_strings(sill__json *j, group *g) {
    size_t cap = 0;
    sill__json_enter(j, SILL__JSON_ARRAY);
    while (sill__json_next_element(j)) {
        sill__str s;
        sill__str_init(&s, 1 << 20);
        sill__json_string(j, &s);
        if (g->n == cap) {
            cap = cap ? cap * 2 : 64;
            g->strings = realloc(g->strings, cap * sizeof *g->strings);
            g->bytes = realloc(g->bytes, cap * sizeof *g->bytes);
        }
        g->bytes[g->n] = s.n;
        g->strings[g->n++] = s.p;
    }
}

static void read_texts(void) {
    sill_error err = {0};
    char *data = NULL;
    size_t bytes = 0;
    CHECK_OK(sill__read_file(FIXTURES "texts.jsonl", 1 << 24, &data, &bytes, &err), err);
    REQUIRE(data);
    for (char *p = data, *stop; p < data + bytes && n_groups < SILL_ARRAY_LEN(groups); p = stop + 1) {
        sill__json j;
        sill__str name;
        char key[8];
        group *g = &groups[n_groups++];
        if (!(stop = memchr(p, '\n', (size_t)(data + bytes - p)))) stop = data + bytes;
        sill__str_init(&name, sizeof g->name - 1);
        sill__json_init(&j, p, (size_t)(stop - p));
        sill__json_enter(&j, SILL__JSON_OBJECT);
        while (sill__json_next_member(&j, key, sizeof key, NULL)) {
            if (!strcmp(key, "name")) sill__json_string(&j, &name);
            else if (!strcmp(key, "t")) read_strings(&j, g);
        }
        CHECK(sill__json_finish(&j));
        memcpy(g->name, name.p, name.n + 1);
        sill__str_free(&name);
    }
    sill__free(data);
}

static const group *find_group(const char *name) {
    for (size_t i = 0; i < n_groups; i++)
        if (!strcmp(groups[i].name, name)) return &groups[i];
    return NULL;
}

static void digest(const sill_tokenizer *t, const group *g, uint32_t flags, size_t *total, char hex[65]) {
    static const uint8_t end[4] = {255, 255, 255, 255};
    sill__sha256 h;
    uint8_t sum[32];
    sill__sha256_init(&h);
    *total = 0;
    for (size_t i = 0; i < g->n; i++) {
        size_t n = 0;
        int32_t *ids = encode(t, g->strings[i], g->bytes[i], flags, &n);
        sill__sha256_update(&h, ids, n * sizeof *ids); /* little endian, as all machines that we run on */
        sill__sha256_update(&h, end, 4);
        *total += n;
        free(ids);
    }
    sill__sha256_final(&h, sum);
    sill__sha256_hex(sum, hex);
}

/* The same of the lengths of the pieces that a pre-tokenizer cuts. */
static void digest_pieces(sill__pretok_fn next, const group *g, size_t *total, char hex[65]) {
    sill__sha256 h;
    uint8_t sum[32];
    sill__sha256_init(&h);
    *total = 0;
    for (size_t i = 0; i < g->n; i++) {
        const uint8_t *p = (const uint8_t *)g->strings[i], *end = p + g->bytes[i];
        int32_t n;
        for (; p < end; p += n) {
            n = (int32_t)next(p, end);
            REQUIRE(n > 0 && n <= end - p);
            sill__sha256_update(&h, &n, 4);
            ++*total;
        }
        n = -1;
        sill__sha256_update(&h, &n, 4);
    }
    sill__sha256_final(&h, sum);
    sill__sha256_hex(sum, hex);
}

/* The next line of golden.tsv for SET. */
static bool next_line(FILE *f, const char *set, char line[512], char *field[5]) {
    while (fgets(line, 512, f)) {
        char *p = line;
        for (int i = 0; i < 5; i++) {
            field[i] = p;
            p += strcspn(p, "\t\n");
            *p++ = 0;
        }
        if (!strcmp(field[0], set)) return true;
    }
    return false;
}

static bool as_expected(const char *field[5], size_t total, char hex[65]) {
    hex[16] = 0;
    if (total == (size_t)strtoull(field[3], NULL, 10) && !strcmp(hex, field[4])) return true;
    FAIL("%s, %s %s: %zu %s, expected %s %s", field[0], field[1], field[2], total, hex, field[3], field[4]);
    return false;
}

static void check_pieces(const char *set, sill__pre pre) {
    char line[512], hex[65], *field[5];
    size_t count = 0, total = 0;
    FILE *f = fopen(FIXTURES "golden.tsv", "r");
    REQUIRE(f);
    for (; next_line(f, set, line, field); count++) {
        const group *g = find_group(field[1]);
        REQUIRE(g);
        digest_pieces(sill__pretok_get(pre), g, &total, hex);
        as_expected((const char **)field, total, hex);
    }
    CHECK(count >= 58);
    fclose(f);
}

/* The lines of golden.tsv for one tokenizer. */
static void check_set(const char *set, size_t at_least, bool round_trip) {
    char path[256], line[512], hex[65], *field[5];
    size_t count = 0, total = 0;
    FILE *f = fopen(FIXTURES "golden.tsv", "r");
    snprintf(path, sizeof path, FIXTURES "%s", set);
    sill_tokenizer *t = load(path);
    REQUIRE(f && t && n_groups > 0);
    for (; next_line(f, set, line, field); count++) {
        const group *g = find_group(field[1]);
        REQUIRE(g);
        digest(t, g, field[2][0] ? SILL_TOKENIZE_SPECIAL : 0, &total, hex);
        as_expected((const char **)field, total, hex);
        for (size_t i = 0; round_trip && !field[2][0] && i < g->n; i++) {
            check_round_trip(t, g->strings[i], g->bytes[i], 0);
            check_round_trip(t, g->strings[i], g->bytes[i], SILL_TOKENIZE_NO_PREFIX);
        }
    }
    CHECK(count >= at_least);
    fclose(f);
    sill_tokenizer_free(t);
}

/* Bytes outside well-formed UTF-8 are one character each, neither letter, number nor space: what follows of that
 * where the libraries cannot be asked. */
static void pieces_of_stray_bytes(void) {
    static const struct { sill__pre pre; const char *text; size_t first; } cases[] = {
        {SILL__PRE_LLAMA3, "\xed\xa0\x80" "a", 3},          /* a surrogate: three characters, then a letter */
        {SILL__PRE_LLAMA3, "\xe0\x80\x80" "a", 3},          /* overlong */
        {SILL__PRE_LLAMA3, "\xf4\x90\x80\x80" "a", 4},      /* beyond U+10FFFF */
        {SILL__PRE_LLAMA3, "\xf0\x9f\x98" "a", 3},          /* cut off */
        {SILL__PRE_LLAMA3, "\xff" "a", 2},                  /* one character before letters goes with them */
        {SILL__PRE_LLAMA3, "\xe2\x80\x94" "a", 4},          /* as a dash, which is one character */
        {SILL__PRE_LLAMA3, " \xff\xfe a", 3}, {SILL__PRE_GPT2, " \xff\xfe" "a", 3}, {SILL__PRE_GPT2, "a\xc3", 1},
        {SILL__PRE_GPT2, "\xc3\xa9\xc3", 2}, {SILL__PRE_GPT2, "\xc2\xa0\xc2", 2}, {SILL__PRE_SMOLLM, "\xd9\xa3\xd9\xa3", 2},
        {SILL__PRE_SMOLLM, "\xd9", 1}, {SILL__PRE_GPT2, "  \xff", 1},
    };
    for (size_t i = 0; i < SILL_ARRAY_LEN(cases); i++) {
        const uint8_t *p = (const uint8_t *)cases[i].text;
        size_t n = sill__pretok_get(cases[i].pre)(p, p + strlen(cases[i].text));
        if (n != cases[i].first) FAIL("case %zu: the first piece has %zu bytes, expected %zu", i, n, cases[i].first);
    }
}

static void gpt2_pieces(void) { check_pieces("pre:gpt2", SILL__PRE_GPT2); }
static void smollm_pieces(void) { check_pieces("pre:smollm", SILL__PRE_SMOLLM); }
static void llama3_pieces(void) { check_pieces("pre:llama3", SILL__PRE_LLAMA3); }
static void gpt2_ids(void) { check_set("gpt2/vocab.bpe", 59, true); }
static void smollm_json_ids(void) { check_set("smollm.json", 60, true); }
static void smollm_gguf_ids(void) { check_set("smollm.gguf", 60, true); }
static void llama3_ids(void) { check_set("llama3.json", 60, true); }
static void sentencepiece_gguf_ids(void) { check_set("spm.gguf", 60, true); }
static void sentencepiece_json_ids(void) { check_set("spm.json", 60, true); }
/* Metaspace gives "a" and " a" the same ids; without bytes, unknown characters are lost: no way back. */
static void sentencepiece_metaspace_ids(void) { check_set("spm_meta.json", 60, false); }
static void sentencepiece_unknown_ids(void) { check_set("spm_nofallback.json", 60, false); }

int main(int argc, char **argv) {
    read_texts();
    TEST(pieces_of_stray_bytes);
    TEST(gpt2_pieces);
    TEST(smollm_pieces);
    TEST(llama3_pieces);
    TEST(gpt2_ids);
    TEST(smollm_json_ids);
    TEST(smollm_gguf_ids);
    TEST(llama3_ids);
    TEST(sentencepiece_gguf_ids);
    TEST(sentencepiece_json_ids);
    TEST(sentencepiece_metaspace_ids);
    TEST(sentencepiece_unknown_ids);
    for (size_t i = 0; i < n_groups; i++) {
        for (size_t k = 0; k < groups[i].n; k++) sill__free(groups[i].strings[k]);
        free(groups[i].strings);
        free(groups[i].bytes);
    }
    TEST_EXIT();
}
