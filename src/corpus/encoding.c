/*
 * encoding.c - texts of declared encodings as UTF-8, row by row: the bytes that rows are cut at (line ends, delimiters,
 * quotes) are the same in all of them. UTF-8 is checked, not converted; a byte that is no character becomes U+FFFD, and
 * whoever asked is told where it is. In windows-1252 five bytes are no characters (81, 8d, 8f, 90, 9d; so in Python's
 * cp1252).
 */
#include "corpus/corpus.h"

const char *sill__encoding_name(sill__encoding encoding) {
    static const char *const names[] = {"utf-8", "latin-1", "windows-1252", "bytes"};
    return (unsigned)encoding < SILL_ARRAY_LEN(names) ? names[encoding] : "?";
}

/* Bytes at the start of P that are ASCII. */
static size_t ascii(const unsigned char *p, size_t n) {
    size_t i = 0;
    for (uint64_t word; i + sizeof word <= n; i += sizeof word) {
        memcpy(&word, p + i, sizeof word);
        if (word & 0x8080808080808080u) break;
    }
    while (i < n && p[i] < 0x80) i++;
    return i;
}

static unsigned character(sill__encoding encoding, unsigned char byte) {
    static const uint16_t high[32] = {0x20ac, 0, 0x201a, 0x0192, 0x201e, 0x2026, 0x2020, 0x2021, 0x02c6, 0x2030, 0x0160,
        0x2039, 0x0152, 0, 0x017d, 0, 0, 0x2018, 0x2019, 0x201c, 0x201d, 0x2022, 0x2013, 0x2014, 0x02dc, 0x2122, 0x0161,
        0x203a, 0x0153, 0, 0x017e, 0x0178};
    return encoding == SILL__ENCODING_WINDOWS1252 && byte >= 0x80 && byte < 0xa0 ? high[byte - 0x80] : byte;
}

/* A character of the basic plane. */
static bool put_character(sill__str *s, unsigned c) {
    char b[3];
    if (c < 0x800) {
        b[0] = (char)(0xc0 | c >> 6);
        b[1] = (char)(0x80 | (c & 63));
        return sill__str_put(s, b, 2);
    }
    b[0] = (char)(0xe0 | c >> 12);
    b[1] = (char)(0x80 | (c >> 6 & 63));
    b[2] = (char)(0x80 | (c & 63));
    return sill__str_put(s, b, 3);
}

/* How far P is valid UTF-8. */
static size_t valid(const unsigned char *p, size_t n) {
    size_t i = 0;
    while ((i += ascii(p + i, n - i)) < n) {
        int step = sill__utf8_step(p + i, p + n);
        if (step < 0) break;
        i += (size_t)step;
    }
    return i;
}

bool sill__decode(sill__encoding encoding, const char *text, size_t n, sill__str *scratch, const char **out, size_t *n_out,
                  size_t *bad) {
    const unsigned char *p = (const unsigned char *)text;
    bool utf8 = encoding == SILL__ENCODING_UTF8;
    size_t i = encoding == SILL__ENCODING_BYTES ? n : utf8 ? valid(p, n) : ascii(p, n);
    *out = text;
    *n_out = n;
    *bad = SIZE_MAX;
    if (i == n) return true;
    sill__str_clear(scratch);
    scratch->failed = false;
    sill__str_put(scratch, text, i);
    while (i < n) {
        int step = utf8 ? sill__utf8_step(p + i, p + n) : 1;
        unsigned c = utf8 ? 0 : character(encoding, p[i]);
        if (*bad == SIZE_MAX && (step < 0 || (!utf8 && !c))) *bad = i;
        if (utf8 && step > 0) sill__str_put(scratch, p + i, (size_t)step);
        else put_character(scratch, c ? c : 0xfffd);
        i += (size_t)(step < 0 ? -step : step);
        size_t plain = utf8 ? valid(p + i, n - i) : ascii(p + i, n - i);
        sill__str_put(scratch, p + i, plain);
        i += plain;
    }
    *out = scratch->p ? scratch->p : "";
    *n_out = scratch->n;
    return !scratch->failed;
}
