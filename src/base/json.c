/*
 * json.c - the bounded streaming JSON scanner of json.h. Owns the grammar (RFC 8259, plus NaN, Infinity
 * and -Infinity as numbers, which Python writes); allocates nothing but what the caller's buffer takes.
 */
#include "base/json.h"

#include <math.h>
#include <stdlib.h>

enum { AT_VALUE, AT_INSIDE, AT_BEHIND };

#define MAX_NUMBER 512 /* characters of a number that is converted */

static const char e_end[] = "the text ends in the middle of a value";
static const char e_control[] = "a control character inside a string (it must be escaped)";
static const char e_escape[] = "an escape that JSON does not have";
static const char e_number[] = "a malformed number";
static const char e_value[] = "a value was expected here";
static const char e_depth[] = "more than 64 levels of nesting";
static const char e_memory[] = "no memory for a string";

static bool fail(sill__json *j, const char *p, const char *message) {
    if (!j->message) {
        j->p = p;
        j->message = message;
    }
    return false;
}

static const char *skip_space(const char *p, const char *end) {
    while (p < end && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t')) p++;
    return p;
}

void sill__json_init(sill__json *j, const char *text, size_t n_bytes) {
    memset(j, 0, sizeof *j);
    if (!text) text = ""; /* an empty buffer; arithmetic on NULL is undefined */
    j->p = j->start = text;
    j->end = text + n_bytes;
    j->at = AT_VALUE;
    if (n_bytes >= 3 && !memcmp(text, "\xef\xbb\xbf", 3))
        j->message = "a byte order mark, which JSON does not allow";
}

/* ---- tokens: each takes the place of the token's first byte and returns the place behind it, or NULL
 * with *bad set to the offending place and *why to the reason. */

typedef struct trouble { const char *at, *why; } trouble;

static const char *bad(trouble *t, const char *at, const char *why) {
    t->at = at;
    t->why = why;
    return NULL;
}

/* First byte at or behind P that is a quote, a backslash or a control character; END if none. */
static const char *scan_plain(const char *p, const char *end) {
    const uint64_t ones = 0x0101010101010101u, high = 0x8080808080808080u;
    while (end - p >= 8) {
        uint64_t x, q, b;
        memcpy(&x, p, 8);
        q = x ^ ones * '"';
        b = x ^ ones * '\\';
        /* A byte's top bit is set where the byte is zero (quote, backslash) or below 32. A borrow can
         * raise false marks, never hide one; the loop below looks at the bytes again. */
        if ((((q - ones) & ~q) | ((b - ones) & ~b) | ((x - ones * 32) & ~x)) & high) break;
        p += 8;
    }
    while (p < end && *p != '"' && *p != '\\' && (uint8_t)*p >= 32) p++;
    return p;
}

static int hex4(const char *p, const char *end) {
    int v = 0;
    if (end - p < 4) return -1;
    for (int i = 0; i < 4; i++) {
        int c = (uint8_t)p[i], d;
        if (c >= '0' && c <= '9') d = c - '0';
        else if ((c | 32) >= 'a' && (c | 32) <= 'f') d = (c | 32) - 'a' + 10;
        else return -1;
        v = v << 4 | d;
    }
    return v;
}

static size_t put_utf8(uint32_t c, char out[4]) {
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xc0 | c >> 6);
        out[1] = (char)(0x80 | (c & 63));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (char)(0xe0 | c >> 12);
        out[1] = (char)(0x80 | (c >> 6 & 63));
        out[2] = (char)(0x80 | (c & 63));
        return 3;
    }
    out[0] = (char)(0xf0 | c >> 18);
    out[1] = (char)(0x80 | (c >> 12 & 63));
    out[2] = (char)(0x80 | (c >> 6 & 63));
    out[3] = (char)(0x80 | (c & 63));
    return 4;
}

/* P at a backslash: the place behind the escape; its UTF-8 bytes in OUT, their number in *N. */
static const char *unescape(const char *p, const char *end, char out[4], size_t *n, trouble *t) {
    *n = 1;
    if (end - p < 2) return bad(t, end, e_end);
    switch (p[1]) {
    case '"': case '\\': case '/': out[0] = p[1]; return p + 2;
    case 'b': out[0] = '\b'; return p + 2;
    case 'f': out[0] = '\f'; return p + 2;
    case 'n': out[0] = '\n'; return p + 2;
    case 'r': out[0] = '\r'; return p + 2;
    case 't': out[0] = '\t'; return p + 2;
    case 'u': break;
    default: return bad(t, p, e_escape);
    }
    int c = hex4(p + 2, end), low;
    if (c < 0) return bad(t, p, "\\u without four hexadecimal digits");
    p += 6;
    if (c >= 0xd800 && c < 0xe000) {
        if (c < 0xdc00 && end - p >= 2 && p[0] == '\\' && p[1] == 'u' && (low = hex4(p + 2, end)) >= 0xdc00 &&
            low < 0xe000) {
            *n = put_utf8(0x10000u + ((uint32_t)(c - 0xd800) << 10) + (uint32_t)(low - 0xdc00), out);
            return p + 6;
        }
        c = 0xfffd; /* a lone surrogate stands for no character */
    }
    *n = put_utf8((uint32_t)c, out);
    return p;
}

/* P behind the opening quote: the place behind the closing one. */
static const char *pass_string(const char *p, const char *end, trouble *t) {
    char out[4];
    size_t n;
    for (;;) {
        p = scan_plain(p, end);
        if (p == end) return bad(t, p, e_end);
        if (*p == '"') return p + 1;
        if (*p != '\\') return bad(t, p, e_control);
        if (!(p = unescape(p, end, out, &n, t))) return NULL;
    }
}

static const char *pass_word(const char *p, const char *end, const char *word, trouble *t) {
    size_t n = strlen(word);
    if ((size_t)(end - p) < n || memcmp(p, word, n)) return bad(t, p, e_value);
    return p + n;
}

static const char *pass_digits(const char *p, const char *end, trouble *t) {
    if (p == end) return bad(t, p, e_end);
    if (*p < '0' || *p > '9') return bad(t, p, e_number);
    while (p < end && *p >= '0' && *p <= '9') p++;
    return p;
}

/* Also NaN, Infinity, -Infinity. */
static const char *pass_number(const char *p, const char *end, trouble *t) {
    if (*p == 'N') return pass_word(p, end, "NaN", t);
    if (*p == '-') p++;
    if (p == end) return bad(t, p, e_end);
    if (*p == 'I') return pass_word(p, end, "Infinity", t);
    if (*p == '0') {
        p++;
        if (p < end && *p >= '0' && *p <= '9') return bad(t, p, "a number with a leading zero");
    } else if (!(p = pass_digits(p, end, t))) return NULL;
    if (p < end && *p == '.' && !(p = pass_digits(p + 1, end, t))) return NULL;
    if (p < end && (*p == 'e' || *p == 'E')) {
        p++;
        if (p < end && (*p == '+' || *p == '-')) p++;
        if (!(p = pass_digits(p, end, t))) return NULL;
    }
    return p;
}

static sill__json_kind kind_of(char c) {
    switch (c) {
    case '{': return SILL__JSON_OBJECT;
    case '[': return SILL__JSON_ARRAY;
    case '"': return SILL__JSON_STRING;
    case 't': return SILL__JSON_TRUE;
    case 'f': return SILL__JSON_FALSE;
    case 'n': return SILL__JSON_NULL;
    case '-': case 'N': case 'I':
    case '0': case '1': case '2': case '3': case '4': case '5': case '6': case '7': case '8': case '9':
        return SILL__JSON_NUMBER;
    default: return SILL__JSON_ERROR;
    }
}

/* ---- places */

sill__json_kind sill__json_peek(sill__json *j) {
    if (j->message) return SILL__JSON_ERROR;
    const char *p = skip_space(j->p, j->end);
    if (j->at != AT_VALUE) {
        if (j->at == AT_BEHIND && j->depth == 0 && p == j->end) return SILL__JSON_END;
        fail(j, p, e_value);
        return SILL__JSON_ERROR;
    }
    if (p == j->end) {
        fail(j, p, j->depth == 0 ? "there is no value, the text is empty" : e_end);
        return SILL__JSON_ERROR;
    }
    sill__json_kind kind = kind_of(*p);
    if (kind == SILL__JSON_ERROR) fail(j, p, e_value);
    return kind;
}

/* The kind of the value at J, with J moved to its first byte. */
static sill__json_kind start_value(sill__json *j) {
    sill__json_kind kind = sill__json_peek(j);
    if (kind == SILL__JSON_END) {
        fail(j, j->p, e_value);
        return SILL__JSON_ERROR;
    }
    if (kind != SILL__JSON_ERROR) j->p = skip_space(j->p, j->end);
    return kind;
}

static bool ended(sill__json *j, const char *p, const trouble *t) {
    if (!p) return fail(j, t->at, t->why);
    j->p = p;
    j->at = AT_BEHIND;
    return true;
}

static const char *pass_scalar(const char *p, const char *end, trouble *t) {
    switch (*p) {
    case '"': return pass_string(p + 1, end, t);
    case 't': return pass_word(p, end, "true", t);
    case 'f': return pass_word(p, end, "false", t);
    case 'n': return pass_word(p, end, "null", t);
    default: return kind_of(*p) == SILL__JSON_NUMBER ? pass_number(p, end, t) : bad(t, p, e_value);
    }
}

/* P at a key's opening quote: the place of the member's value. */
static const char *pass_key(const char *p, const char *end, trouble *t) {
    if (p == end) return bad(t, p, e_end);
    if (*p != '"') return bad(t, p, "a key in quotes was expected here");
    if (!(p = pass_string(p + 1, end, t))) return NULL;
    p = skip_space(p, end);
    if (p == end) return bad(t, p, e_end);
    if (*p != ':') return bad(t, p, "a colon was expected here");
    return skip_space(p + 1, end);
}

/* A whole value without recursion: bit D of OBJECTS tells whether level D is an object. */
static const char *pass_value(const char *p, const char *end, int depth, trouble *t) {
    uint64_t objects = 0;
    int d = 0;
    for (;;) {
        if (p == end) return bad(t, p, e_end);
        if (*p == '{' || *p == '[') {
            bool object = *p == '{';
            if (depth + d >= SILL__JSON_MAX_DEPTH) return bad(t, p, e_depth);
            p = skip_space(p + 1, end);
            if (p == end) return bad(t, p, e_end);
            if (*p != (object ? '}' : ']')) {
                objects = object ? objects | (uint64_t)1 << d : objects & ~((uint64_t)1 << d);
                d++;
                if (object && !(p = pass_key(p, end, t))) return NULL;
                continue;
            }
            p++;
        } else if (!(p = pass_scalar(p, end, t))) return NULL;
        /* Behind a value: close levels, or go on to the next value of this one. */
        for (;;) {
            if (d == 0) return p;
            bool object = objects >> (d - 1) & 1;
            p = skip_space(p, end);
            if (p == end) return bad(t, p, e_end);
            if (*p == (object ? '}' : ']')) {
                p++;
                d--;
                continue;
            }
            if (*p != ',')
                return bad(t, p,
                           object ? "a comma or } was expected here" : "a comma or ] was expected here");
            p = skip_space(p + 1, end);
            if (object && !(p = pass_key(p, end, t))) return NULL;
            break;
        }
    }
}

bool sill__json_skip(sill__json *j) {
    trouble t;
    if (start_value(j) == SILL__JSON_ERROR) return false;
    return ended(j, pass_value(j->p, j->end, j->depth, &t), &t);
}

bool sill__json_enter(sill__json *j, sill__json_kind container) {
    sill__json_kind kind = start_value(j);
    if (kind == SILL__JSON_ERROR) return false;
    if (kind != container || (kind != SILL__JSON_OBJECT && kind != SILL__JSON_ARRAY))
        return fail(j, j->p,
                    container == SILL__JSON_OBJECT ? "an object was expected here"
                                                   : "an array was expected here");
    if (j->depth >= SILL__JSON_MAX_DEPTH) return fail(j, j->p, e_depth);
    j->depth++;
    j->p++;
    j->at = AT_INSIDE;
    return true;
}

/* Moves to the first byte of the next member or element; false at the closing bracket or on error. */
static bool next_item(sill__json *j, char close, const char *expected) {
    if (j->message) return false;
    if (j->at == AT_VALUE && !sill__json_skip(j)) return false;
    const char *p = skip_space(j->p, j->end);
    if (p == j->end) return fail(j, p, e_end);
    if (j->depth == 0) return fail(j, p, "not inside an object or array");
    if (*p == close) {
        j->p = p + 1;
        j->depth--;
        j->at = AT_BEHIND;
        return false;
    }
    if (j->at == AT_BEHIND) {
        if (*p != ',') return fail(j, p, expected);
        p = skip_space(p + 1, j->end);
        if (p == j->end) return fail(j, p, e_end);
    }
    j->p = p;
    j->at = AT_VALUE;
    return true;
}

bool sill__json_next_element(sill__json *j) { return next_item(j, ']', "a comma or ] was expected here"); }

bool sill__json_next_member(sill__json *j, char *key, size_t cap, size_t *key_bytes) {
    trouble t;
    char out[4];
    if (cap) key[0] = 0;
    if (key_bytes) *key_bytes = 0;
    if (!next_item(j, '}', "a comma or } was expected here")) return false;
    const char *p = j->p, *end = j->end;
    size_t n = 0, k;
    if (*p != '"') return fail(j, p, "a key in quotes was expected here");
    p++;
    for (;;) {
        const char *q = scan_plain(p, end), *from = p;
        k = (size_t)(q - p);
        if (q < end && *q == '"') p = q + 1;
        else if (q < end && *q != '\\') return fail(j, q, e_control);
        else if (q == end) return fail(j, q, e_end);
        else p = q;
        if (n < cap && k) memcpy(key + n, from, SILL_MIN(k, cap - n));
        n += k;
        if (*q == '"') break;
        if (!(p = unescape(q, end, out, &k, &t))) return fail(j, t.at, t.why);
        if (n < cap) memcpy(key + n, out, SILL_MIN(k, cap - n));
        n += k;
    }
    if (cap) key[SILL_MIN(n, cap - 1)] = 0;
    if (key_bytes) *key_bytes = n;
    p = skip_space(p, end);
    if (p == end) return fail(j, p, e_end);
    if (*p != ':') return fail(j, p, "a colon was expected here");
    j->p = skip_space(p + 1, end);
    return true;
}

/* ---- scalars */

/* The number at J: its text in [j->p, *behind). */
static bool start_number(sill__json *j, const char **behind) {
    trouble t;
    sill__json_kind kind = start_value(j);
    if (kind == SILL__JSON_ERROR) return false;
    if (kind != SILL__JSON_NUMBER) return fail(j, j->p, "a number was expected here");
    *behind = pass_number(j->p, j->end, &t);
    return *behind ? true : fail(j, t.at, t.why);
}

/* [p, end) is a number of the grammar. */
static bool to_double(const char *p, const char *end, double *out, const char **why) {
    char text[MAX_NUMBER + 32];
    size_t n = 0;
    long exponent = 0, fraction = 0;
    bool negative = *p == '-', point = false;
    if (negative) p++;
    if (*p == 'N' || *p == 'I') {
        *out = *p == 'N' ? (double)NAN : negative ? -(double)INFINITY : (double)INFINITY;
        return true;
    }
    if (end - p > MAX_NUMBER) {
        *why = "a number of more than 512 characters";
        return false;
    }
    /* The digits without their point and an exponent that makes up for it: strtod then meets no decimal
     * point, whose character depends on the locale. */
    for (; p < end && *p != 'e' && *p != 'E'; p++) {
        if (*p == '.') point = true;
        else {
            text[n++] = *p;
            fraction += point;
        }
    }
    if (p < end) {
        bool minus = *++p == '-';
        if (*p == '-' || *p == '+') p++;
        for (; p < end; p++)
            if (exponent < 100000) exponent = exponent * 10 + (*p - '0');
        if (minus) exponent = -exponent;
    }
    exponent -= fraction;
    text[n++] = 'e';
    if (exponent < 0) text[n++] = '-';
    unsigned long e = exponent < 0 ? (unsigned long)-exponent : (unsigned long)exponent;
    char digits[24];
    size_t m = 0;
    do digits[m++] = (char)('0' + e % 10);
    while (e /= 10);
    while (m) text[n++] = digits[--m];
    text[n] = 0;
    double v = strtod(text, NULL);
    if (isinf(v)) {
        *why = "a number too large for a double";
        return false;
    }
    *out = negative ? -v : v;
    return true;
}

bool sill__json_double(sill__json *j, double *out) {
    const char *end, *why = NULL;
    if (!start_number(j, &end)) return false;
    if (!to_double(j->p, end, out, &why)) return fail(j, j->p, why);
    return ended(j, end, NULL);
}

bool sill__json_int(sill__json *j, int64_t *out) {
    static const char range[] = "an integer out of range";
    const char *end, *why = NULL, *p;
    if (!start_number(j, &end)) return false;
    bool negative = *j->p == '-';
    uint64_t v = 0, limit = (uint64_t)INT64_MAX + negative;
    for (p = j->p + negative; p < end && *p >= '0' && *p <= '9'; p++) {
        unsigned d = (unsigned)(*p - '0');
        if (v > (UINT64_MAX - d) / 10) return fail(j, j->p, range);
        v = v * 10 + d;
    }
    if (p < end) { /* 1.0 or 1e3; only as far as a double holds every integer */
        double x;
        if (!to_double(j->p, end, &x, &why)) return fail(j, j->p, why);
        if (!(fabs(x) <= 0x1p53)) return fail(j, j->p, range);
        if (x != floor(x)) return fail(j, j->p, "an integer was expected here");
        *out = (int64_t)x;
        return ended(j, end, NULL);
    }
    if (v > limit) return fail(j, j->p, range);
    *out = negative ? (int64_t)(0 - v) : (int64_t)v;
    return ended(j, end, NULL);
}

bool sill__json_bool(sill__json *j, bool *out) {
    trouble t;
    sill__json_kind kind = start_value(j);
    if (kind == SILL__JSON_ERROR) return false;
    if (kind != SILL__JSON_TRUE && kind != SILL__JSON_FALSE)
        return fail(j, j->p, "true or false was expected here");
    if (!ended(j, pass_scalar(j->p, j->end, &t), &t)) return false;
    *out = kind == SILL__JSON_TRUE;
    return true;
}

static bool append(sill__json *j, sill__str *out, const char *p, size_t n) {
    if (n > out->max - SILL_MIN(out->n, out->max)) return fail(j, j->p, "a string longer than allowed here");
    return sill__str_put(out, p, n) || fail(j, j->p, e_memory);
}

bool sill__json_string(sill__json *j, sill__str *out) {
    trouble t;
    char c[4];
    size_t n;
    sill__json_kind kind = start_value(j);
    if (kind == SILL__JSON_ERROR) return false;
    if (kind != SILL__JSON_STRING) return fail(j, j->p, "a string was expected here");
    const char *p = j->p + 1, *end = j->end;
    for (;;) {
        const char *q = scan_plain(p, end);
        if (q == end) return fail(j, q, e_end);
        if (!append(j, out, p, (size_t)(q - p))) break;
        if (*q == '"') return ended(j, q + 1, NULL);
        if (*q != '\\') return fail(j, q, e_control);
        if (!(p = unescape(q, end, c, &n, &t))) return fail(j, t.at, t.why);
        if (!append(j, out, c, n)) break;
    }
    return false;
}

/* ---- the whole */

bool sill__json_finish(sill__json *j) {
    if (j->message) return false;
    if (j->at != AT_BEHIND || j->depth != 0) return fail(j, j->p, e_end);
    const char *p = skip_space(j->p, j->end);
    if (p != j->end) return fail(j, p, "text behind the end of the value");
    j->p = p;
    return true;
}

sill_status sill__json_fail(const sill__json *j, const char *file, sill_error *err) {
    return sill__fail(err, j->message == e_memory ? SILL_ENOMEM : SILL_EFORMAT, "%s: at byte %zu: %s", file,
                      (size_t)(j->p - j->start), j->message ? j->message : "not what was expected");
}

bool sill__json_find(sill__json *j, const char *key, ...) {
    sill__json place = *j;
    char name[256];
    size_t n;
    va_list ap;
    bool found = true;
    va_start(ap, key);
    for (; found && key; key = va_arg(ap, const char *)) {
        found = false;
        if (sill__json_peek(&place) != SILL__JSON_OBJECT || !sill__json_enter(&place, SILL__JSON_OBJECT))
            break;
        while (!found && sill__json_next_member(&place, name, sizeof name, &n))
            found = n == strlen(key) && n < sizeof name && !memcmp(name, key, n);
    }
    va_end(ap);
    if (found || place.message) *j = place;
    return found;
}
