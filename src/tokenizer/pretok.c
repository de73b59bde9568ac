/*
 * pretok.c - pre-tokenizers: where a text is cut before merging. Hand-written scanners for the three
 * patterns that we know; each takes linear time, since no place is looked at more than twice.
 */
#include "tokenizer/internal.h"
#include "tokenizer/unicode.h"

const char sill__pattern_gpt2[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
const char sill__pattern_llama3[] =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*"
    "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

const char sill__pretok_supported[] = "supported: gpt-2, smollm, llama-bpe (llama3)";

/* Place behind the characters of class KIND that begin at P. */
static inline const uint8_t *pass(const uint8_t *p, const uint8_t *end, int kind) {
    while (p < end) {
        int k = sill__unicode_ascii[*p];
        size_t n = 1;
        if (k == SILL__CHAR_MULTI) k = sill__utf8_class(p, end, &n);
        if (k != kind) break;
        p += n;
    }
    return p;
}

/* Place behind the white space at P (there is some); *last is the place of its last character. */
static const uint8_t *pass_space(const uint8_t *p, const uint8_t *end, const uint8_t **last) {
    size_t n;
    while (p < end && sill__utf8_class(p, end, &n) == SILL__CHAR_SPACE) {
        *last = p;
        p += n;
    }
    return p;
}

/* White space at P: all of it at the end of the text, else without its last character (which goes with the
 * word behind it), unless it is the only one: \s+(?!\S)|\s+ */
static inline size_t space_piece(const uint8_t *p, const uint8_t *behind, const uint8_t *last, bool at_end) {
    return (size_t)((at_end || last == p ? behind : last) - p);
}

/* GPT-2's pattern. DIGITS: each number character is a piece of its own, cut off before the pattern is
 * applied, so that a number ends the text as far as the pattern can see. */
static inline size_t gpt2_piece(const uint8_t *p, const uint8_t *end, bool digits) {
    const uint8_t *q = p, *last = p;
    size_t n;
    if (*p == '\'' && end - p >= 2) {
        switch (p[1]) {
        case 's': case 't': case 'm': case 'd': return 2;
        case 'r': case 'v': if (end - p >= 3 && p[2] == 'e') return 3; break;
        case 'l': if (end - p >= 3 && p[2] == 'l') return 3; break;
        default: break;
        }
    }
    int kind = sill__utf8_class(p, end, &n);
    if (*p == ' ' && end - p >= 2) {
        int next = sill__utf8_class(p + 1, end, &n);
        if (next != SILL__CHAR_SPACE && !(digits && next == SILL__CHAR_NUMBER)) {
            kind = next;
            q = p + 1;
        }
    }
    if (kind != SILL__CHAR_SPACE) {
        if (digits && kind == SILL__CHAR_NUMBER) return n;
        return (size_t)(pass(q + n, end, kind) - p);
    }
    const uint8_t *behind = pass_space(p, end, &last);
    bool at_end = behind == end || (digits && sill__utf8_class(behind, end, &n) == SILL__CHAR_NUMBER);
    return space_piece(p, behind, last, at_end);
}

static size_t piece_gpt2(const uint8_t *p, const uint8_t *end) { return gpt2_piece(p, end, false); }
static size_t piece_smollm(const uint8_t *p, const uint8_t *end) { return gpt2_piece(p, end, true); }

/* (?i:'s|'t|'re|'ve|'m|'ll|'d): the long s (U+017F) is an s when case does not count. */
static size_t contraction(const uint8_t *p, const uint8_t *end) {
    if (end - p < 2) return 0;
    int a = p[1] | 32, b = end - p >= 3 ? p[2] | 32 : 0;
    if (a == 's' || a == 't' || a == 'm' || a == 'd') return 2;
    if ((a == 'r' || a == 'v') && b == 'e') return 3;
    if (a == 'l' && b == 'l') return 3;
    if (end - p >= 3 && p[1] == 0xc5 && p[2] == 0xbf) return 3;
    return 0;
}

static inline bool is_line_end(uint8_t c) { return c == '\r' || c == '\n'; }

static size_t piece_llama3(const uint8_t *p, const uint8_t *end) {
    const uint8_t *q, *last = p, *line = NULL;
    size_t n, m;
    if (*p == '\'' && (n = contraction(p, end)) != 0) return n;
    int kind = sill__utf8_class(p, end, &n);
    if (kind == SILL__CHAR_LETTER) return (size_t)(pass(p + n, end, SILL__CHAR_LETTER) - p);
    if (kind == SILL__CHAR_NUMBER) { /* \p{N}{1,3} */
        q = p + n;
        for (int i = 1; i < 3 && q < end && sill__utf8_class(q, end, &m) == SILL__CHAR_NUMBER; i++) q += m;
        return (size_t)(q - p);
    }
    /* [^\r\n\p{L}\p{N}]?\p{L}+ */
    int next = p + n < end ? sill__utf8_class(p + n, end, &m) : SILL__CHAR_SPACE;
    if (next == SILL__CHAR_LETTER && !is_line_end(*p)) return (size_t)(pass(p + n + m, end, SILL__CHAR_LETTER) - p);
    /*  ?[^\s\p{L}\p{N}]+[\r\n]* */
    if (kind == SILL__CHAR_OTHER || (*p == ' ' && next == SILL__CHAR_OTHER)) {
        q = pass(kind == SILL__CHAR_OTHER ? p + n : p + n + m, end, SILL__CHAR_OTHER);
        while (q < end && is_line_end(*q)) q++;
        return (size_t)(q - p);
    }
    /* \s*[\r\n]+ : up to the last line end of the white space; else as in GPT-2's. */
    for (q = p; q < end && sill__utf8_class(q, end, &m) == SILL__CHAR_SPACE; q += m) {
        if (is_line_end(*q)) line = q;
        last = q;
    }
    if (line) return (size_t)(line + 1 - p);
    return space_piece(p, q, last, q == end);
}

sill__pretok_fn sill__pretok_get(sill__pre pre) {
    switch (pre) {
    case SILL__PRE_SMOLLM: return piece_smollm;
    case SILL__PRE_LLAMA3: return piece_llama3;
    default: return piece_gpt2;
    }
}

bool sill__pretok_by_name(const char *name, size_t n, sill__pre *pre) {
    static const struct { const char *name; sill__pre pre; } known[] = {
        {"gpt-2", SILL__PRE_GPT2}, {"gpt2", SILL__PRE_GPT2}, {"smollm", SILL__PRE_SMOLLM},
        {"llama-bpe", SILL__PRE_LLAMA3}, {"llama3", SILL__PRE_LLAMA3}, {"llama-v3", SILL__PRE_LLAMA3},
    };
    for (size_t i = 0; i < SILL_ARRAY_LEN(known); i++)
        if (strlen(known[i].name) == n && !memcmp(known[i].name, name, n)) {
            *pre = known[i].pre;
            return true;
        }
    return false;
}
