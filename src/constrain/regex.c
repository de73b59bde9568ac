/*
 * regex.c - the dialect that docs/CONSTRAINTS.md states: literals, classes, groups, alternatives, repetitions; the whole text
 * must match. It is Python's re with ASCII classes (re.ASCII) less what no automaton over bytes has. Characters become
 * sequences of byte ranges (as in Russ Cox's "Regular Expression Matching in the Wild"), so no text that is matched holds
 * invalid UTF-8. A repetition's automaton is made by parsing its operand again for each copy.
 */
#include "constrain/constrain.h"

#include <stdlib.h>

#define CODE_MAX 0x10ffff
#define DEPTH_MAX 200
#define REPEAT_MAX 10000

typedef struct range { int32_t low, high; } range;
typedef struct set { range *r; size_t n, cap; } set; /* of characters */

/* Part of an automaton: from `start` to `end`, an empty node that goes nowhere yet. */
typedef struct part { int32_t start, end; } part;

typedef struct parser {
    const char *what, *text;
    size_t n, at;
    int depth;
    sill__nfa *a;
    sill_error *err;
    sill_status status;
} parser;

static void fail(parser *p, sill_status status, const char *why) {
    if (p->status != SILL_OK) return;
    p->status = sill__fail(p->err, status, "%s: %s at byte %zu of %zu", p->what, why, p->at + 1, p->n);
}

/* ------------------------------------------------------------- nodes */

static int32_t node(parser *p, sill__nfa_node v) {
    sill__nfa *a = p->a;
    if (p->status != SILL_OK) return 0;
    if (a->n == SILL__NFA_MAX) {
        p->status = sill__fail(p->err, SILL_ERANGE, "%s: the pattern has more than %d steps; shorten its repetitions", p->what, SILL__NFA_MAX);
        return 0;
    }
    if (a->n == a->cap) {
        int32_t cap = SILL_MIN(a->cap ? a->cap * 2 : 256, SILL__NFA_MAX);
        sill__nfa_node *grown = sill__realloc(a->nodes, (size_t)cap * sizeof *grown);
        if (!grown) {
            p->status = sill__fail(p->err, SILL_ENOMEM, "%s: no memory for a pattern of %d steps", p->what, cap);
            return 0;
        }
        a->nodes = grown;
        a->cap = cap;
    }
    a->nodes[a->n] = v;
    return a->n++;
}

static int32_t empty(parser *p, int32_t next, int32_t other) { return node(p, (sill__nfa_node){.next = next, .other = other}); }

static void join(parser *p, int32_t from, int32_t to) {
    if (p->status == SILL_OK) p->a->nodes[from].next = to;
}

static part nothing(parser *p) {
    int32_t at = empty(p, -1, -1);
    return (part){at, at};
}

static part both(parser *p, part a, part b) {
    join(p, a.end, b.start);
    return (part){a.start, b.end};
}

static part either(parser *p, part a, part b) {
    int32_t end = empty(p, -1, -1), start = empty(p, a.start, b.start);
    join(p, a.end, end);
    join(p, b.end, end);
    return (part){start, end};
}

static part maybe(parser *p, part a) {
    int32_t end = empty(p, -1, -1), start = empty(p, a.start, end);
    join(p, a.end, end);
    return (part){start, end};
}

static part star(parser *p, part a) {
    int32_t end = empty(p, -1, -1), start = empty(p, a.start, end);
    join(p, a.end, start);
    return (part){start, end};
}

/* -------------------------------------------------------- characters */

static part bytes(parser *p, const uint8_t *low, const uint8_t *high, int n) {
    int32_t end = empty(p, -1, -1), next = end;
    for (int i = n; i-- > 0;) next = node(p, (sill__nfa_node){.next = next, .other = -1, .low = low[i], .high = high[i], .reads = true});
    return (part){next, end};
}

static int encode(int32_t c, uint8_t *to) {
    if (c < 0x80) return to[0] = (uint8_t)c, 1;
    if (c < 0x800) return to[0] = (uint8_t)(0xc0 | c >> 6), to[1] = (uint8_t)(0x80 | (c & 63)), 2;
    if (c < 0x10000)
        return to[0] = (uint8_t)(0xe0 | c >> 12), to[1] = (uint8_t)(0x80 | (c >> 6 & 63)), to[2] = (uint8_t)(0x80 | (c & 63)), 3;
    to[0] = (uint8_t)(0xf0 | c >> 18);
    to[1] = (uint8_t)(0x80 | (c >> 12 & 63));
    to[2] = (uint8_t)(0x80 | (c >> 6 & 63));
    to[3] = (uint8_t)(0x80 | (c & 63));
    return 4;
}

/* [low, high] cut until the bytes of what is left are a product of ranges. */
static void add_range(parser *p, int32_t low, int32_t high, part *all, bool *any) {
    static const int32_t borders[] = {0x7f, 0x7ff, 0xd7ff, 0xdfff, 0xffff};
    uint8_t a[4], b[4];
    if (p->status != SILL_OK || low > high) return;
    for (size_t i = 0; i < SILL_ARRAY_LEN(borders); i++)
        if (low <= borders[i] && high > borders[i]) {
            add_range(p, low, borders[i], all, any);
            add_range(p, borders[i] + 1, high, all, any);
            return;
        }
    if (low >= 0xd800 && high <= 0xdfff) return; /* surrogates are no characters */
    for (int bits = 6; bits <= 18; bits += 6) {
        const int32_t mask = (1 << bits) - 1;
        if ((low | mask) >= (high | mask) || low < 0x80) break; /* the bytes above are the same */
        if (low & mask) {
            add_range(p, low, low | mask, all, any);
            add_range(p, (low | mask) + 1, high, all, any);
            return;
        }
        if ((high & mask) != mask) {
            add_range(p, low, (high & ~mask) - 1, all, any);
            add_range(p, high & ~mask, high, all, any);
            return;
        }
    }
    int n = encode(low, a);
    encode(high, b);
    part one = bytes(p, a, b, n);
    *all = *any ? either(p, *all, one) : one;
    *any = true;
}

static void put(parser *p, set *s, int32_t low, int32_t high) {
    if (s->n == s->cap) {
        size_t cap = s->cap ? s->cap * 2 : 16;
        range *r = sill__realloc(s->r, cap * sizeof *r);
        if (!r) {
            if (p->status == SILL_OK) p->status = sill__fail(p->err, SILL_ENOMEM, "no memory for a class of characters");
            return;
        }
        s->r = r;
        s->cap = cap;
    }
    s->r[s->n++] = (range){low, high};
}

static int by_low(const void *a, const void *b) {
    int32_t x = ((const range *)a)->low, y = ((const range *)b)->low;
    return (x > y) - (x < y);
}

/* In order and apart; NEGATE: all others. */
static void settle(parser *p, set *s, bool negate) {
    size_t n = 0;
    if (s->n) qsort(s->r, s->n, sizeof *s->r, by_low);
    for (size_t i = 0; i < s->n; i++) {
        if (n && s->r[i].low <= s->r[n - 1].high + 1) s->r[n - 1].high = SILL_MAX(s->r[n - 1].high, s->r[i].high);
        else s->r[n++] = s->r[i];
    }
    s->n = n;
    if (!negate) return;
    set other = {0};
    int32_t from = 0;
    for (size_t i = 0; i < n; i++) {
        if (s->r[i].low > from) put(p, &other, from, s->r[i].low - 1);
        from = s->r[i].high + 1;
    }
    if (from <= CODE_MAX) put(p, &other, from, CODE_MAX);
    sill__free(s->r);
    *s = other;
}

static part of_set(parser *p, set *s, bool negate) {
    part all = {0, 0};
    bool any = false;
    settle(p, s, negate);
    for (size_t i = 0; i < s->n; i++) add_range(p, s->r[i].low, s->r[i].high, &all, &any);
    if (!any) fail(p, SILL_EFORMAT, "a class that no character is in");
    sill__free(s->r);
    return all;
}

/* ------------------------------------------------------------ parsing */

static bool more(const parser *p) { return p->status == SILL_OK && p->at < p->n; }
static char peek(const parser *p) { return p->at < p->n ? p->text[p->at] : 0; }
static bool take(parser *p, char c) {
    if (!more(p) || p->text[p->at] != c) return false;
    p->at++;
    return true;
}

/* The character at p->at. */
static int32_t character(parser *p) {
    const uint8_t *s = (const uint8_t *)p->text + p->at;
    size_t left = p->n - p->at;
    int n = s[0] < 0x80 ? 1 : s[0] >= 0xc2 && s[0] < 0xe0 ? 2 : s[0] >= 0xe0 && s[0] < 0xf0 ? 3 : s[0] >= 0xf0 && s[0] < 0xf5 ? 4 : 0;
    int32_t c = n == 1 ? s[0] : n == 2 ? s[0] & 31 : n == 3 ? s[0] & 15 : s[0] & 7;
    bool good = n && (size_t)n <= left;
    for (int i = 1; good && i < n; i++) {
        good = (s[i] & 0xc0) == 0x80;
        c = c << 6 | (s[i] & 63);
    }
    if (!good || (n == 3 && (c < 0x800 || (c >= 0xd800 && c < 0xe000))) || (n == 4 && (c < 0x10000 || c > CODE_MAX))) {
        fail(p, SILL_EFORMAT, "not UTF-8");
        return 0;
    }
    p->at += (size_t)n;
    return c;
}

static int32_t hex(parser *p, int n) {
    int32_t c = 0;
    for (int i = 0; i < n; i++) {
        char d = peek(p);
        int v = d >= '0' && d <= '9' ? d - '0' : d >= 'a' && d <= 'f' ? d - 'a' + 10 : d >= 'A' && d <= 'F' ? d - 'A' + 10 : -1;
        if (v < 0) {
            fail(p, SILL_EFORMAT, "hexadecimal digits are missing");
            return 0;
        }
        c = c * 16 + v;
        p->at++;
    }
    return c;
}

/* Behind a backslash: a class goes into S and -1 comes back, a character comes back. */
static int32_t escaped(parser *p, set *s) {
    static const range digits[] = {{'0', '9'}}, words[] = {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}}, spaces[] = {{9, 13}, {' ', ' '}};
    char c = peek(p);
    const range *r = c == 'd' || c == 'D' ? digits : c == 'w' || c == 'W' ? words : c == 's' || c == 'S' ? spaces : NULL;
    size_t n = r == digits ? 1 : r == words ? 4 : 2;
    if (!more(p)) fail(p, SILL_EFORMAT, "a backslash at the end");
    if (p->status != SILL_OK) return 0;
    if (r) {
        int32_t from = 0;
        p->at++;
        for (size_t i = 0; i < n; i++) {
            if (c >= 'a') put(p, s, r[i].low, r[i].high);
            else if (r[i].low > from) put(p, s, from, r[i].low - 1);
            from = r[i].high + 1;
        }
        if (c < 'a') put(p, s, from, CODE_MAX);
        return -1;
    }
    if (c == 'x' || c == 'u' || c == 'U') {
        p->at++;
        int32_t v = hex(p, c == 'x' ? 2 : c == 'u' ? 4 : 8);
        if (v < 0 || v > CODE_MAX || (v >= 0xd800 && v < 0xe000)) fail(p, SILL_EFORMAT, "no character has this number");
        return v;
    }
    static const char names[] = "ntrfva", values[] = "\n\t\r\f\v\a";
    const char *name = strchr(names, c);
    if (c && name) {
        p->at++;
        return values[name - names];
    }
    if ((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) {
        fail(p, SILL_EUNSUPPORTED, c == 'b' || c == 'B' || c == 'A' || c == 'Z' ? "a word border or anchor is not supported"
                                   : c >= '0' && c <= '9' ? "a reference to a group is not supported" : "an escape that is not supported");
        return 0;
    }
    return character(p);
}

static part class_of(parser *p) {
    set s = {0};
    bool negate = take(p, '^');
    for (bool first = true; p->status == SILL_OK; first = false) {
        if (!more(p)) {
            fail(p, SILL_EFORMAT, "a class is not closed with ]");
            break;
        }
        if (!first && take(p, ']')) break;
        if (peek(p) == '[' && p->at + 1 < p->n && strchr(":.=", p->text[p->at + 1])) {
            fail(p, SILL_EUNSUPPORTED, "a class of POSIX is not supported");
            break;
        }
        int32_t low = take(p, '\\') ? escaped(p, &s) : character(p), high = low;
        if (peek(p) == '-' && p->at + 1 < p->n && p->text[p->at + 1] != ']' && p->status == SILL_OK) {
            p->at++;
            if (low >= 0) high = take(p, '\\') ? escaped(p, &s) : character(p);
            if (low < 0 || high < low) fail(p, SILL_EFORMAT, "a range of characters that is none");
        }
        if (low >= 0) put(p, &s, low, high);
    }
    if (p->status != SILL_OK) {
        sill__free(s.r);
        return (part){0, 0};
    }
    return of_set(p, &s, negate);
}

static part alternatives(parser *p);

static part group(parser *p) {
    if (take(p, '?') && !take(p, ':')) {
        fail(p, SILL_EUNSUPPORTED, "of groups with (? only (?:...) is supported: no names, flags, looking ahead or behind");
        return (part){0, 0};
    }
    if (++p->depth > DEPTH_MAX) fail(p, SILL_ERANGE, "groups lie too deep in each other");
    part a = p->status == SILL_OK ? alternatives(p) : (part){0, 0};
    p->depth--;
    if (!take(p, ')')) fail(p, SILL_EFORMAT, "a group is not closed with )");
    return a;
}

static part atom(parser *p) {
    set s = {0};
    char c = peek(p);
    if (take(p, '(')) return group(p);
    if (take(p, '[')) return class_of(p);
    if (take(p, '.')) {
        put(p, &s, '\n', '\n');
        return of_set(p, &s, true);
    }
    if (take(p, '\\')) {
        int32_t v = escaped(p, &s);
        if (v >= 0) put(p, &s, v, v);
        return of_set(p, &s, false);
    }
    if (c == '^' || c == '$') {
        fail(p, SILL_EUNSUPPORTED, "^ and $ are supported at the beginning and end of the pattern only (the whole text matches anyway)");
        return (part){0, 0};
    }
    if (c == '*' || c == '+' || c == '?' || c == '{') {
        fail(p, SILL_EFORMAT, "nothing is there to be repeated");
        return (part){0, 0};
    }
    int32_t v = character(p);
    put(p, &s, v, v);
    return of_set(p, &s, false);
}

static int32_t count(parser *p) {
    int32_t n = 0;
    bool any = false;
    for (; more(p) && peek(p) >= '0' && peek(p) <= '9'; any = true) {
        n = n * 10 + (peek(p) - '0');
        p->at++;
        if (n > REPEAT_MAX) fail(p, SILL_ERANGE, "more than 10000 repetitions");
    }
    return any ? n : -1;
}

/* {m}, {m,}, {,n}, {m,n} behind an atom; *most -1: any number. */
static void bounds(parser *p, int32_t *least, int32_t *most) {
    *least = count(p);
    *most = *least;
    if (take(p, ',')) {
        *most = count(p);
        if (*least < 0 && *most < 0) fail(p, SILL_EFORMAT, "a repetition without numbers (a { of the text is written \\{)");
        *least = SILL_MAX(*least, 0);
    } else if (*least < 0) {
        fail(p, SILL_EFORMAT, "a repetition without numbers (a { of the text is written \\{)");
    }
    if (!take(p, '}')) fail(p, SILL_EFORMAT, "a repetition is not closed with }");
    if (*most >= 0 && *most < *least) fail(p, SILL_EFORMAT, "a repetition whose most is less than its least");
}

/* The atom between `from` and p->at again. */
static part again(parser *p, size_t from) {
    size_t at = p->at;
    p->at = from;
    part a = atom(p);
    p->at = at;
    return a;
}

static part repeated(parser *p) {
    size_t from = p->at;
    int32_t least = 1, most = 1;
    part a = atom(p);
    if (take(p, '*')) least = 0, most = -1;
    else if (take(p, '+')) most = -1;
    else if (take(p, '?')) least = 0;
    else if (take(p, '{')) bounds(p, &least, &most);
    else return a;
    char c = peek(p);
    if (c == '?' || c == '+') fail(p, SILL_EUNSUPPORTED, "lazy and possessive repetitions are not supported");
    if (c == '*' || c == '{') fail(p, SILL_EFORMAT, "a repetition of a repetition");
    if (most == 0) return nothing(p);
    part all = nothing(p);
    for (int32_t i = 0; i < SILL_MAX(least, 1) && p->status == SILL_OK; i++) {
        part one = i ? again(p, from) : a;
        if (i + 1 == SILL_MAX(least, 1) && most < 0) one = least ? both(p, one, star(p, again(p, from))) : star(p, one);
        else if (i >= least) one = maybe(p, one);
        all = both(p, all, one);
    }
    /* What may be left out lies in each other, so that the automaton leaves it in one step: a(a(a)?)? */
    int32_t rest = most < 0 ? 0 : most - SILL_MAX(least, 1);
    if (rest > 0 && p->status == SILL_OK) {
        int32_t end = empty(p, -1, -1), at;
        part tail = all;
        for (int32_t i = 0; i < rest && p->status == SILL_OK; i++) {
            part one = again(p, from);
            at = empty(p, one.start, end);
            join(p, tail.end, at);
            tail.end = one.end;
        }
        join(p, tail.end, end);
        all.end = end;
    }
    return all;
}

static part sequence(parser *p) {
    part all = nothing(p);
    while (more(p) && peek(p) != '|' && peek(p) != ')') {
        if (p->depth == 0 && peek(p) == '$' && p->at + 1 == p->n) {
            p->at++;
            break;
        }
        part one = repeated(p);
        all = both(p, all, one);
    }
    return all;
}

static part alternatives(parser *p) {
    part all = sequence(p);
    while (take(p, '|')) {
        part one = sequence(p);
        all = either(p, all, one);
    }
    return all;
}

sill_status sill__regex_parse(const char *pattern, size_t n, const char *what, sill__nfa *out, sill_error *err) {
    parser p = {.what = what, .text = pattern, .n = n, .a = out, .err = err};
    memset(out, 0, sizeof *out);
    take(&p, '^'); /* the whole text matches anyway */
    part all = alternatives(&p);
    if (p.status == SILL_OK && p.at < n) fail(&p, SILL_EFORMAT, "a ) without its (");
    if (p.status != SILL_OK) {
        sill__nfa_free(out);
        return p.status;
    }
    out->start = all.start;
    out->end = all.end;
    return SILL_OK;
}

void sill__nfa_free(sill__nfa *a) {
    sill__free(a->nodes);
    memset(a, 0, sizeof *a);
}
