/* fuzz_json.c - any bytes through the JSON scanner: skipping and walking must agree and stay inside. */
#include <stdlib.h>

#include "base/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static bool walk(sill__json *j) {
    char key[16];
    int64_t i;
    double d;
    bool b, ok;
    sill__str s;
    sill__json copy = *j;
    switch (sill__json_peek(j)) {
    case SILL__JSON_TRUE:
    case SILL__JSON_FALSE: return sill__json_bool(j, &b);
    case SILL__JSON_NULL: return sill__json_skip(j);
    case SILL__JSON_NUMBER:
        if (sill__json_int(&copy, &i)) {
            sill__json other = *j;
            if (!sill__json_double(&other, &d) || other.p != copy.p) abort();
        }
        return sill__json_double(j, &d);
    case SILL__JSON_STRING:
        sill__str_init(&s, (size_t)(j->end - j->p) * 3);
        ok = sill__json_string(j, &s);
        sill__str_free(&s);
        return ok;
    case SILL__JSON_ARRAY:
        if (!sill__json_enter(j, SILL__JSON_ARRAY)) return false;
        while (sill__json_next_element(j))
            if (!walk(j)) return false;
        return !j->message;
    case SILL__JSON_OBJECT:
        if (!sill__json_enter(j, SILL__JSON_OBJECT)) return false;
        while (sill__json_next_member(j, key, sizeof key, NULL))
            if (!walk(j)) return false;
        return !j->message;
    default: return false;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    sill__json j, k, find;
    sill_error e;
    sill__json_init(&j, (const char *)data, n);
    k = find = j;
    bool walked = walk(&j) && sill__json_finish(&j), skipped = sill__json_skip(&k) && sill__json_finish(&k);
    if (walked && !skipped) abort();
    /* Too large or too long to convert is no fault of the text. */
    if (skipped && !walked && !strstr(j.message, "too large for a double") &&
        !strstr(j.message, "512 characters"))
        abort();
    if (!walked) {
        if (j.p < j.start || j.p > j.end || !j.message) abort();
        sill__json_fail(&j, "x", &e);
    }
    if (sill__json_find(&find, "a", "b", NULL)) sill__json_skip(&find);
    return 0;
}
