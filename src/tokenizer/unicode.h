/*
 * unicode.h - UTF-8 and the three classes of characters that pre-tokenizers know. The tables are generated
 * (tools/unicode_tables.py) from the engines that the reference tokenizers use: Unicode 16.
 */
#ifndef SILL_TOKENIZER_UNICODE_H
#define SILL_TOKENIZER_UNICODE_H

#include "base/base.h"

/* SILL__CHAR_MULTI stands in sill__unicode_ascii for bytes that do not end a character by themselves. */
enum { SILL__CHAR_OTHER, SILL__CHAR_LETTER, SILL__CHAR_NUMBER, SILL__CHAR_SPACE, SILL__CHAR_MULTI };

extern const uint8_t sill__unicode_index[0x1100];
extern const uint8_t sill__unicode_blocks[][64];
extern const uint8_t sill__unicode_ascii[256];

/* Class of a code point below 0x110000. */
static inline int sill__unicode_class(uint32_t c) {
    return sill__unicode_blocks[sill__unicode_index[c >> 8]][(c & 255) >> 2] >> ((c & 3) * 2) & 3;
}

/* Length of the well-formed UTF-8 sequence at P (P < END) and its code point; 0 where there is none: then
 * the byte at P stands alone. Overlong forms, surrogates and code points above 0x10ffff are not well formed. */
static inline size_t sill__utf8_decode(const uint8_t *p, const uint8_t *end, uint32_t *c) {
    uint32_t a = p[0], b;
    size_t left = (size_t)(end - p);
    if (a < 0x80) {
        *c = a;
        return 1;
    }
    if (a < 0xc2 || a > 0xf4 || left < 2) return 0;
    b = p[1] ^ 0x80u;
    if (b > 0x3f) return 0;
    if (a < 0xe0) {
        *c = (a & 0x1f) << 6 | b;
        return 2;
    }
    if (left < 3 || (p[2] & 0xc0) != 0x80) return 0;
    if (a < 0xf0) {
        *c = (a & 0x0f) << 12 | b << 6 | (p[2] & 0x3fu);
        return *c >= 0x800 && (*c < 0xd800 || *c > 0xdfff) ? 3 : 0;
    }
    if (left < 4 || (p[3] & 0xc0) != 0x80) return 0;
    *c = (a & 7) << 18 | b << 12 | (p[2] & 0x3fu) << 6 | (p[3] & 0x3fu);
    return *c >= 0x10000 && *c < 0x110000 ? 4 : 0;
}

/* Class and length of the character at P (P < END). A byte that is no part of a well-formed sequence counts
 * as one character that is neither letter, number nor white space. */
static inline int sill__utf8_class(const uint8_t *p, const uint8_t *end, size_t *n) {
    uint32_t c;
    int k = sill__unicode_ascii[*p];
    *n = 1;
    if (k != SILL__CHAR_MULTI) return k;
    size_t length = sill__utf8_decode(p, end, &c);
    if (length == 0) return SILL__CHAR_OTHER;
    *n = length;
    return sill__unicode_class(c);
}

#endif
