/* test_constrain.c - the tokens that a constraint allows, against a search over all texts; refusals; limits. The language itself is
 * compared with Python's re and jsonschema in tests/cli/test_constraints.py. */
#include "test.h"

#include "constrain/mask.h"
#include "model/model.h"

static sill_model *model;

static sill_constraint *regex(const char *pattern, sill_status want, const char *says) {
    sill_error err = {0};
    sill_constraint *c = NULL;
    sill_status st = sill_constraint_regex(model, pattern, strlen(pattern), &c, &err);
    if (st != want || (st != SILL_OK && (!strstr(err.msg, says) || c))) FAIL("%s: status %d, expected %d: %s", pattern, st, want, err.msg);
    return c;
}

static int32_t byte_ids[256]; /* a token of each single byte */

/* Whether the constraint takes TEXT, byte by byte. */
static bool matches(const sill_constraint *c, const char *text, size_t n) {
    int32_t state = SILL__CONSTRAINT_START;
    for (size_t i = 0; i < n && state != SILL__DEAD; i++) state = sill__constraint_next(c, state, byte_ids[(uint8_t)text[i]]);
    return state != SILL__DEAD && sill__constraint_may_end(c, state);
}

static void languages(void) {
    static const struct { const char *pattern, *yes, *no; } all[] = {
        {"abc", "abc", "ab|abcd||abd"}, {"a|bc|", "a|bc|", "b|abc|ac"}, {"a*", "|a|aaaa", "b|ab"}, {"(ab)+c?", "ab|ababc", "|c|aba|abcc"},
        {"a{2}", "aa", "a|aaa|"}, {"a{2,}", "aa|aaaaa", "a|"}, {"a{,2}", "|a|aa", "aaa"}, {"a{1,3}b", "ab|aaab", "b|aaaab"},
        {"(a{2}){2,3}", "aaaa|aaaaaa", "aa|aaa|aaaaa|aaaaaaaa"}, {"[a-c]x[^a-c]", "axd|bx1|cx\n", "dxd|axa|ax"}, {"[]a]", "]|a", "b|[]"},
        {"[a-]", "a|-", "b"}, {"[\\d_]+", "0_9", "a|"}, {"\\w\\W\\s\\S", "a- b", "aa b|a-bb"}, {".", "x|\xc3\xa4|\xf0\x9f\x98\x80", "\n||xx|\xc3|\x80"},
        {"\\x41\\u00e4\\.", "A\xc3\xa4.", "A\xc3\xa4x|B"}, {"[\\u00e0-\\u1234]", "\xc3\xa4|\xe1\x88\xb4", "\xc3\x9f|\xe1\x88\xb5|a"},
        {"[^a]", "b|\xe2\x82\xac|\xf4\x8f\xbf\xbf", "a|\xed\xa0\x80|\xf4\x90\x80\x80|\xc0\x80|\xe0\x80\x80"}, {"^ab$", "ab", "b"}, {"(?:a|b){2}c", "abc|bbc", "ac"},
        {"((a|b)*c)*", "|c|abcc|bbac", "a|ca"}, {"\\{\\}\\[\\]\\(\\)\\*\\+\\?\\^\\$\\|\\\\", "{}[]()*+?^$|\\", "{}"}};
    for (size_t i = 0; i < SILL_ARRAY_LEN(all); i++) {
        sill_constraint *c = regex(all[i].pattern, SILL_OK, "");
        for (int no = 0; no < 2 && c; no++)
            for (const char *p = no ? all[i].no : all[i].yes;; p++) {
                size_t n = strcspn(p, "|");
                if (!strcmp(all[i].pattern + strlen(all[i].pattern) - 1, "\\")) n = strlen(p); /* the case with a | of its own */
                if (matches(c, p, n) != !no) FAIL("%s: '%.*s' is%s taken", all[i].pattern, (int)n, p, no ? "" : " not");
                p += n;
                if (!*p) break;
            }
        sill_constraint_free(c);
    }
}

static void refusals(void) {
    static const struct { const char *pattern; sill_status status; const char *says; } all[] = {
        {"a**", SILL_EFORMAT, "byte 3"}, {"*a", SILL_EFORMAT, "nothing is there"}, {"(a", SILL_EFORMAT, "not closed"}, {"a)", SILL_EFORMAT, "without its ("},
        {"[a", SILL_EFORMAT, "not closed"}, {"[b-a]", SILL_EFORMAT, "range"}, {"a{3,2}", SILL_EFORMAT, "less than"}, {"a{x}", SILL_EFORMAT, "numbers"},
        {"a{2", SILL_EFORMAT, "not closed"}, {"\\", SILL_EFORMAT, "backslash"}, {"\\x4", SILL_EFORMAT, "digits"}, {"\\ud800", SILL_EFORMAT, "number"},
        {"\xff", SILL_EFORMAT, "UTF-8"}, {"[\\d\\D]x[^\\d\\D]", SILL_EFORMAT, "no character"}, {"a*?", SILL_EUNSUPPORTED, "lazy"},
        {"a++", SILL_EUNSUPPORTED, "possessive"}, {"(?=a)", SILL_EUNSUPPORTED, "(?:"}, {"(?P<n>a)", SILL_EUNSUPPORTED, "(?:"}, {"(a)\\1", SILL_EUNSUPPORTED, "reference"},
        {"\\bword", SILL_EUNSUPPORTED, "border"}, {"a^b", SILL_EUNSUPPORTED, "beginning"}, {"\\pL", SILL_EUNSUPPORTED, "escape"},
        {"[[:alpha:]]", SILL_EUNSUPPORTED, "POSIX"}, {"a{20000}", SILL_ERANGE, "10000"}, {"(.{100}){1000}", SILL_ERANGE, "steps"},
        {"(a|b)*a(a|b){18}", SILL_ERANGE, "states"}};
    for (size_t i = 0; i < SILL_ARRAY_LEN(all); i++) sill_constraint_free(regex(all[i].pattern, all[i].status, all[i].says));
    char deep[1001];
    memset(deep, '(', 500);
    memset(deep + 500, ')', 500);
    deep[1000] = 0;
    sill_constraint_free(regex(deep, SILL_ERANGE, "deep"));
}

/* Every token of the vocabulary in many states: allowed if its bytes lead somewhere from which the text can end in time. */
static void masks(void) {
    static const char *const patterns[] = {"(one|two|three)( (four|five))*", "[^\"]{0,9}", "\\d{2,4}-\\d\\d", ".*\xe2\x82\xac", "(a|the|once upon) time"};
    const sill_tokenizer *t = sill_model_tokenizer(model);
    const int32_t vocab = sill_tokenizer_n_vocab(t);
    uint64_t random = 7;
    int narrowed = 0;
    for (size_t p = 0; p < SILL_ARRAY_LEN(patterns); p++) {
        sill_constraint *c = regex(patterns[p], SILL_OK, "");
        REQUIRE(c);
        for (int walk = 0; walk < 30; walk++) {
            int32_t state = SILL__CONSTRAINT_START, left = walk % 2 ? 1000 : sill__constraint_shortest(c) + walk / 4;
            for (int step = 0; step < 40 && left > 0 && !sill__constraint_must_end(c, state); step++, left--) {
                const uint64_t *mask;
                sill_error err = {0};
                int32_t some[4096], n = 0;
                CHECK_OK(sill__constraint_mask(c, state, left, &mask, &err), err);
                for (int32_t id = 0; id < vocab; id++) {
                    bool allowed = mask[id / 64] >> (id % 64) & 1;
                    size_t bytes = 0;
                    const char *text = sill__tokenizer_bytes(t, id, &bytes);
                    bool leads = text && bytes && !sill__tokenizer_is_special(t, id) && sill__constraint_next(c, state, id) != SILL__DEAD;
                    if (allowed && !leads) FAIL("%s: token %d is allowed and leads nowhere", patterns[p], id);
                    if (!allowed && leads && left == 1000) FAIL("%s: token %d is not allowed", patterns[p], id);
                    narrowed += !allowed && leads;
                    if (allowed && n < 4096) some[n++] = id;
                }
                if (n == 0) {
                    if (!sill__constraint_may_end(c, state)) FAIL("%s: nothing follows, and the text may not end", patterns[p]);
                    break;
                }
                state = sill__constraint_next(c, state, some[test_random(&random) % (uint32_t)n]);
            }
            if (left < 1000 - 40 && !sill__constraint_may_end(c, state)) FAIL("%s: the text did not end in time", patterns[p]);
        }
        sill_constraint_free(c);
    }
    CHECK(narrowed > 100);
}

static void schemas(void) {
    static const struct { const char *schema; sill_status status; const char *says; } all[] = {
        {"{\"type\": \"strin\"}", SILL_EUNSUPPORTED, "\"type\""}, {"{\"$ref\": \"#\"}", SILL_EUNSUPPORTED, "\"$ref\""}, {"{}", SILL_EUNSUPPORTED, "\"type\" is missing"},
        {"true", SILL_EUNSUPPORTED, "no object"}, {"{\"type\": \"integer\", \"minimum\": 3}", SILL_EUNSUPPORTED, "\"minimum\""}, {"{\"type\": ", SILL_EFORMAT, "byte"},
        {"{\"type\": \"array\"}", SILL_EUNSUPPORTED, "\"items\""}, {"{\"enum\": []}", SILL_EUNSUPPORTED, "empty"}, {"{\"enum\": 3}", SILL_EUNSUPPORTED, "no array"},
        {"{\"type\": \"object\", \"properties\": {}, \"required\": [\"a\"]}", SILL_EUNSUPPORTED, "\"required\""}, {"{\"type\": []}", SILL_EUNSUPPORTED, "empty"},
        {"{\"type\": \"string\", \"minLength\": 3, \"maxLength\": 2}", SILL_EUNSUPPORTED, "minLength"}, {"{\"type\": \"string\", \"maxLength\": -1}", SILL_EUNSUPPORTED, "maxLength"},
        {"{\"type\": \"string\", \"maxLength\": 9999}", SILL_ERANGE, "steps"}, {"{\"anyOf\": [true]}", SILL_EUNSUPPORTED, "no object"},
        {"{\"type\": \"object\", \"properties\": {\"a\": {\"pattern\": \"x\"}}}", SILL_EUNSUPPORTED, "\"pattern\""}, {"{\"enum\": [1], \"const\": 1}", SILL_EUNSUPPORTED, "beside"}};
    char deep[2000] = "";
    for (size_t i = 0; i < SILL_ARRAY_LEN(all); i++) {
        sill_error err = {0};
        sill_constraint *c = NULL;
        sill_status st = sill_constraint_json_schema(model, all[i].schema, strlen(all[i].schema), &c, &err);
        if (st != all[i].status || !strstr(err.msg, all[i].says) || c) FAIL("%s: status %d: %s", all[i].schema, st, err.msg);
    }
    for (int i = 0; i < 20; i++) strcat(deep, "{\"type\": \"array\", \"items\": ");
    strcat(deep, "{\"type\": \"null\"}");
    for (int i = 0; i < 20; i++) strcat(deep, "}");
    sill_error err = {0};
    sill_constraint *c = NULL;
    CHECK_INT(sill_constraint_json_schema(model, deep, strlen(deep), &c, &err), SILL_EUNSUPPORTED);
    CHECK(strstr(err.msg, "deep"));
    CHECK_INT(sill_constraint_choices(model, NULL, 1, &c, &err), SILL_EINVAL);
    const char *empty[] = {"a", ""}, *bad[] = {"\xff"};
    CHECK_INT(sill_constraint_choices(model, empty, 2, &c, &err), SILL_EINVAL);
    CHECK_INT(sill_constraint_choices(model, bad, 1, &c, &err), SILL_EFORMAT);
}

int main(int argc, char **argv) {
    sill_error err = {0};
    if (sill_model_load("tests/fixtures/stories260K/stories260K.gguf", NULL, &model, &err) != SILL_OK) {
        printf("FAIL %s\n", err.msg);
        return 1;
    }
    for (int32_t id = 0; id < sill_tokenizer_n_vocab(sill_model_tokenizer(model)); id++) {
        size_t n = 0;
        const char *p = sill__tokenizer_bytes(sill_model_tokenizer(model), id, &n);
        if (p && n == 1) byte_ids[(uint8_t)*p] = id;
    }
    TEST(languages);
    TEST(refusals);
    TEST(masks);
    TEST(schemas);
    sill_model_free(model);
    TEST_EXIT();
}
