/* test_json.c - the JSON scanner against Python's json module, its bounds, and texts that end early. */
#include "base/json.h"
#include "test.h"

#define CASES "tests/fixtures/format/json_cases.txt"

/* Prints the value at J in the notation of the fixture. */
static bool canonical(sill__json *j, sill__str *out) {
    sill__str s;
    int64_t i;
    double d;
    bool b, first = true;
    sill__json copy;
    switch (sill__json_peek(j)) {
    case SILL__JSON_NULL: return sill__str_puts(out, "n") && sill__json_skip(j);
    case SILL__JSON_TRUE:
    case SILL__JSON_FALSE: return sill__json_bool(j, &b) && sill__str_puts(out, b ? "t" : "f");
    case SILL__JSON_NUMBER:
        copy = *j;
        if (!sill__json_double(&copy, &d)) {
            *j = copy;
            return false;
        }
        for (const char *p = j->p; p < copy.p; p++)
            if (strchr(".eENI", *p)) goto real;
        b = *j->p == '-';
        {
            sill__json at = *j;
            if (sill__json_int(&at, &i)) {
                CHECK(at.p == copy.p);
                *j = copy;
                return sill__str_putf(out, "i%lld", (long long)i);
            }
        }
    real:
        *j = copy;
        if (d != d) return sill__str_puts(out, "dnan");
        uint64_t bits;
        memcpy(&bits, &d, 8);
        return sill__str_putf(out, "d%016llx", (unsigned long long)bits);
    case SILL__JSON_STRING:
        sill__str_init(&s, 1 << 20);
        b = sill__json_string(j, &s);
        sill__str_puts(out, "\"");
        for (size_t k = 0; k < s.n; k++) sill__str_putf(out, "%02x", (uint8_t)s.p[k]);
        sill__str_puts(out, "\"");
        sill__str_free(&s);
        return b;
    case SILL__JSON_ARRAY:
        if (!sill__json_enter(j, SILL__JSON_ARRAY)) return false;
        sill__str_puts(out, "[");
        for (; sill__json_next_element(j); first = false) {
            if (!first) sill__str_puts(out, ",");
            if (!canonical(j, out)) return false;
        }
        sill__str_puts(out, "]");
        return !j->message;
    case SILL__JSON_OBJECT: {
        char key[256];
        size_t n;
        if (!sill__json_enter(j, SILL__JSON_OBJECT)) return false;
        sill__str_puts(out, "{");
        for (; sill__json_next_member(j, key, sizeof key, &n); first = false) {
            sill__str_puts(out, first ? "\"" : ",\"");
            for (size_t k = 0; k < n; k++) sill__str_putf(out, "%02x", (uint8_t)key[k]);
            sill__str_puts(out, "\":");
            if (!canonical(j, out)) return false;
        }
        sill__str_puts(out, "}");
        return !j->message;
    }
    default: return false;
    }
}

/* A copy without a byte behind its end, so that the sanitizer sees any reading past it. */
static char *exact(const char *text, size_t n) {
    char *p = malloc(n ? n : 1);
    if (n) memcpy(p, text, n);
    return p;
}

static void agrees_with_python(void) {
    static char line[65536];
    int n_cases = 0, n_refused = 0;
    FILE *f = fopen(CASES, "r");
    REQUIRE(f);
    while (fgets(line, sizeof line, f)) {
        if (line[0] == '#') continue;
        char *want = strchr(line, ' ');
        REQUIRE(want);
        *want++ = 0;
        want[strcspn(want, "\n")] = 0;
        size_t n = line[0] == '-' ? 0 : strlen(line) / 2;
        char *text = malloc(n + 1);
        for (size_t k = 0; k < n; k++) {
            unsigned v;
            sscanf(line + 2 * k, "%2x", &v);
            text[k] = (char)v;
        }
        text[n] = 0;
        char *tight = exact(text, n);
        sill__json j, skipper;
        sill__str got;
        sill__str_init(&got, 1 << 20);
        sill__json_init(&j, tight, n);
        skipper = j;
        bool ok = canonical(&j, &got) && sill__json_finish(&j);
        bool skipped = sill__json_skip(&skipper) && sill__json_finish(&skipper);
        bool large = j.message && !strcmp(j.message, "a number too large for a double");
        if (strcmp(ok ? got.p : "refused", want)) FAIL("%s gives %s, expected %s (%s)", text, ok ? got.p : "refused", want, j.message ? j.message : "");
        if (skipped != ok && !large) FAIL("skipping %s: %d, walking: %d", text, skipped, ok);
        if (!ok) CHECK(j.message && j.p >= tight && j.p <= tight + n);
        sill__str_free(&got);
        free(tight);
        free(text);
        n_cases++;
        n_refused += !ok;
    }
    fclose(f);
    CHECK(n_cases > 700 && n_refused > 200 && n_refused < n_cases - 200);
}

static void every_prefix_is_refused(void) {
    const char *text = "{\"a\":[1.5e3,-2,null,true,false,NaN,-Infinity],\"b\\u00e9\\ud83d\\ude00\":{\"c\":\"x\\ny\"}}";
    for (size_t n = 0; n < strlen(text); n++) {
        char *t = exact(text, n);
        sill__json j, k;
        sill__str out;
        sill__str_init(&out, 1000);
        sill__json_init(&j, t, n);
        k = j;
        CHECK(!canonical(&j, &out) && j.message);
        CHECK(!sill__json_skip(&k) && k.message);
        sill__str_free(&out);
        free(t);
    }
}

static void depth_is_bounded(void) {
    for (int kind = 0; kind < 2; kind++)
        for (int depth = 63; depth <= 66; depth++) {
            sill__str s;
            sill__json j, k;
            sill__str_init(&s, 10000);
            for (int i = 0; i < depth; i++) sill__str_puts(&s, kind ? "{\"k\":" : "[");
            sill__str_puts(&s, "1");
            for (int i = 0; i < depth; i++) sill__str_puts(&s, kind ? "}" : "]");
            sill__json_init(&j, s.p, s.n);
            k = j;
            CHECK_INT(sill__json_skip(&j) && sill__json_finish(&j), depth <= 64);
            int entered = 0;
            char key[8];
            while (sill__json_enter(&k, kind ? SILL__JSON_OBJECT : SILL__JSON_ARRAY)) {
                entered++;
                CHECK(kind ? sill__json_next_member(&k, key, sizeof key, NULL) : sill__json_next_element(&k));
                if (entered == 60) { /* skipping counts from the level it starts at */
                    sill__json here = k;
                    CHECK_INT(sill__json_skip(&here), depth <= 64);
                }
            }
            CHECK_INT(entered, SILL_MIN(depth, 64));
            sill__str_free(&s);
        }
}

static void a_million_brackets_do_not_hurt(void) {
    char *t = malloc(1000000);
    memset(t, '[', 1000000);
    sill__json j;
    sill__json_init(&j, t, 1000000);
    CHECK(!sill__json_skip(&j));
    CHECK_STR(j.message, "more than 64 levels of nesting");
    CHECK_INT(j.p - j.start, 64);
    free(t);
}

static void values_left_alone_are_passed_over(void) {
    const char *text = "{\"skip\":{\"x\":[1,2,{}]},\"list\":[[1],{\"a\":2},3,\"s\"],\"last\":7}";
    sill__json j;
    char key[16];
    int members = 0, elements = 0;
    int64_t last = 0;
    sill__json_init(&j, text, strlen(text));
    REQUIRE(sill__json_enter(&j, SILL__JSON_OBJECT));
    while (sill__json_next_member(&j, key, sizeof key, NULL)) {
        members++;
        if (!strcmp(key, "list")) {
            REQUIRE(sill__json_enter(&j, SILL__JSON_ARRAY));
            while (sill__json_next_element(&j)) elements++;
        }
        if (!strcmp(key, "last")) CHECK(sill__json_int(&j, &last));
    }
    CHECK(sill__json_finish(&j));
    CHECK_INT(members, 3);
    CHECK_INT(elements, 4);
    CHECK_INT(last, 7);
}

static void paths_are_found(void) {
    const char *text = "{\"version\":1,\"model\":{\"kind\":{},\"ty\\u0070e\":\"BPE\",\"type\":\"second\"},\"n\":null}";
    sill__json j, at;
    sill__str s;
    sill__str_init(&s, 100);
    sill__json_init(&j, text, strlen(text));
    at = j;
    CHECK(sill__json_find(&at, "model", "type", NULL));
    CHECK(sill__json_string(&at, &s));
    CHECK_STR(s.p, "BPE");
    at = j;
    CHECK(!sill__json_find(&at, "model", "absent", NULL));
    CHECK(!at.message && at.p == j.p);
    CHECK(!sill__json_find(&at, "version", "x", NULL) && !at.message);
    CHECK(!sill__json_find(&at, "mode", NULL) && !at.message);
    CHECK(sill__json_find(&at, "n", NULL) && sill__json_peek(&at) == SILL__JSON_NULL);
    const char *broken = "{\"a\":1,\"b\" 2}";
    sill__json_init(&at, broken, strlen(broken));
    CHECK(!sill__json_find(&at, "c", NULL));
    CHECK(at.message && at.p == broken + 11);
    sill__str_free(&s);
}

static void numbers_as_integers(void) {
    static const struct { const char *text; bool ok; int64_t v; } cases[] = {
        {"0", true, 0}, {"-0", true, 0}, {"1.0", true, 1}, {"1e3", true, 1000}, {"-25e-1", false, 0}, {"12.50e2", true, 1250},
        {"1.5", false, 0}, {"9223372036854775807", true, INT64_MAX}, {"-9223372036854775808", true, INT64_MIN},
        {"9223372036854775808", false, 0}, {"-9223372036854775809", false, 0}, {"99999999999999999999999", false, 0},
        {"1e15", true, 1000000000000000}, {"1e30", false, 0}, {"1e999", false, 0}, {"NaN", false, 0}, {"Infinity", false, 0},
        {"true", false, 0}, {"\"1\"", false, 0}, {"[1]", false, 0}, {"9007199254740992.0", true, 9007199254740992}};
    for (size_t i = 0; i < SILL_ARRAY_LEN(cases); i++) {
        sill__json j;
        int64_t v = -77;
        sill__json_init(&j, cases[i].text, strlen(cases[i].text));
        bool ok = sill__json_int(&j, &v);
        if (ok != cases[i].ok || (ok && v != cases[i].v)) FAIL("%s: %d %lld", cases[i].text, ok, (long long)v);
        CHECK(ok == !j.message);
        if (!ok) CHECK_INT(v, -77);
    }
    char text[700];
    double d;
    sill__json j;
    memset(text, '7', sizeof text);
    sill__json_init(&j, text, 512);
    CHECK(!sill__json_double(&j, &d)); /* beyond a double */
    sill__json_init(&j, text, 300);
    CHECK(sill__json_double(&j, &d) && d > 7.7e299 && d < 7.8e299);
    sill__json_init(&j, text, 600);
    CHECK(!sill__json_double(&j, &d));
    CHECK_STR(j.message, "a number of more than 512 characters");
}

static void strings_and_keys_are_bounded(void) {
    const char *text = "{\"a key of some length\":\"a value of some length \\u20ac\"}";
    sill__json j;
    sill__str s;
    for (size_t cap = 0; cap < 24; cap++) {
        char *key = malloc(cap + 1);
        size_t n = 0;
        memset(key, '#', cap + 1);
        sill__json_init(&j, text, strlen(text));
        CHECK(sill__json_enter(&j, SILL__JSON_OBJECT) && sill__json_next_member(&j, key, cap, &n));
        CHECK_INT(n, 20);
        CHECK_INT(key[cap], '#');
        if (cap) CHECK(strlen(key) == SILL_MIN(cap - 1, (size_t)20) && !strncmp(key, "a key of some length", strlen(key)));
        free(key);
    }
    for (size_t max = 0; max < 30; max++) {
        char key[32];
        sill__json_init(&j, text, strlen(text));
        CHECK(sill__json_enter(&j, SILL__JSON_OBJECT) && sill__json_next_member(&j, key, sizeof key, NULL));
        sill__str_init(&s, max);
        CHECK_INT(sill__json_string(&j, &s), max >= 26);
        CHECK(s.n <= max);
        sill__str_free(&s);
    }
    const char *nul = "{\"a\\u0000b\":1}";
    char key[32];
    size_t n = 0;
    sill__json_init(&j, nul, strlen(nul));
    CHECK(sill__json_enter(&j, SILL__JSON_OBJECT) && sill__json_next_member(&j, key, sizeof key, &n));
    CHECK(n == 3 && !memcmp(key, "a\0b", 4));
}

static void errors_say_where(void) {
    sill__json j;
    sill_error e = {0};
    const char *text = "{\"a\": [1, 2,, 3]}";
    sill__json_init(&j, text, strlen(text));
    CHECK(!sill__json_skip(&j));
    CHECK_INT(sill__json_fail(&j, "config.json", &e), SILL_EFORMAT);
    CHECK_STR(e.msg, "config.json: at byte 12: a value was expected here");
    CHECK(!sill__json_skip(&j) && sill__json_peek(&j) == SILL__JSON_ERROR && !sill__json_finish(&j)); /* stays failed */
    sill__json_init(&j, NULL, 0);
    CHECK(!sill__json_skip(&j));
    CHECK_STR(j.message, "there is no value, the text is empty");
    sill__json_init(&j, "\xef\xbb\xbf{}", 5);
    CHECK(!sill__json_skip(&j));
    sill__json_init(&j, "1", 1);
    CHECK(sill__json_skip(&j) && sill__json_peek(&j) == SILL__JSON_END && !sill__json_skip(&j) && j.message);
}

/* Random bytes of JSON's own alphabet: the walk and the skip agree, and neither leaves the text. */
static void random_texts(void) {
    static const char alphabet[] = "{}[]:,\"\\ 0123456789.eE+-truefalsnuNI\n\xc3\xa9";
    uint64_t seed = 20240611, state = seed;
    for (int i = 0; i < 20000; i++) {
        size_t n = test_random(&state) % 24;
        char *t = malloc(n + 1);
        for (size_t k = 0; k < n; k++) t[k] = alphabet[test_random(&state) % (sizeof alphabet - 1)];
        char *tight = exact(t, n);
        sill__json j, k;
        sill__str s;
        sill__str_init(&s, 4096);
        sill__json_init(&j, tight, n);
        k = j;
        bool walked = canonical(&j, &s) && sill__json_finish(&j), skipped = sill__json_skip(&k) && sill__json_finish(&k);
        bool large = j.message && !strcmp(j.message, "a number too large for a double");
        t[n] = 0;
        if (walked != skipped && !large) FAIL("seed %llu case %d: %s", (unsigned long long)seed, i, t);
        sill__str_free(&s);
        free(tight);
        free(t);
    }
}

int main(int argc, char **argv) {
    TEST(agrees_with_python);
    TEST(every_prefix_is_refused);
    TEST(depth_is_bounded);
    TEST(a_million_brackets_do_not_hurt);
    TEST(values_left_alone_are_passed_over);
    TEST(paths_are_found);
    TEST(numbers_as_integers);
    TEST(strings_and_keys_are_bounded);
    TEST(errors_say_where);
    TEST(random_texts);
    TEST_EXIT();
}
