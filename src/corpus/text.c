/* text.c - how numbers and texts are written: shortest decimals, JSON strings, CSV values, format names. */
#include "corpus/corpus.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

static const struct { const char *extension; sill__format format; } extensions[] = {
    {".csv", SILL__FORMAT_CSV},     {".tsv", SILL__FORMAT_TSV},      {".tab", SILL__FORMAT_TSV},
    {".jsonl", SILL__FORMAT_JSONL}, {".ndjson", SILL__FORMAT_JSONL}, {".txt", SILL__FORMAT_TXT},
    {".text", SILL__FORMAT_TXT},
};

sill__format sill__format_of_path(const char *path) {
    size_t n = strlen(path);
    for (size_t i = 0; i < SILL_ARRAY_LEN(extensions); i++) {
        size_t m = strlen(extensions[i].extension);
        if (n > m && !strcasecmp(path + n - m, extensions[i].extension)) return extensions[i].format;
    }
    return SILL__FORMAT_AUTO;
}

const char *sill__format_name(sill__format format) {
    static const char *const names[] = {"auto", "csv", "tsv", "jsonl", "txt"};
    return (unsigned)format < SILL_ARRAY_LEN(names) ? names[format] : "?";
}

/* Fewest digits that read back the same: reading back decides, from one digit up. What %g writes with an
 * exponent though it is an everyday number (5e+01) is written out; else 1e+20 becomes 1e20. */
static void tidy_number(char out[32], double value, int digits) {
    char *e = strchr(out, 'e');
    if (!e) return;
    int exponent = (int)strtol(e + 1, NULL, 10);
    if (exponent >= -5 && exponent < 16) {
        snprintf(out, 32, "%.*f", SILL_MAX(0, digits - 1 - exponent), value);
        return;
    }
    snprintf(e + 1, (size_t)(out + 32 - (e + 1)), "%d", exponent);
}

void sill__f32_text(float value, char out[32]) {
    int digits = 1;
    out[0] = 0;
    if (!isfinite(value)) return;
    for (;; digits++) {
        snprintf(out, 32, "%.*g", digits, (double)value);
        if (digits == 9 || strtof(out, NULL) == value) break;
    }
    tidy_number(out, (double)value, digits);
}

void sill__f64_text(double value, char out[32]) {
    int digits = 1;
    out[0] = 0;
    if (!isfinite(value)) return;
    for (;; digits++) {
        snprintf(out, 32, "%.*g", digits, value);
        if (digits == 17 || strtod(out, NULL) == value) break;
    }
    tidy_number(out, value, digits);
}

void sill__put_json_f32(sill__str *s, float value) {
    char text[32];
    sill__f32_text(value, text);
    sill__str_puts(s, text[0] ? text : "null");
}

void sill__put_json_f64(sill__str *s, double value) {
    char text[32];
    sill__f64_text(value, text);
    sill__str_puts(s, text[0] ? text : "null");
}

/* Length of the valid UTF-8 character at P (at most END), or minus the bytes of the longest part of
 * one that is valid so far (at least 1): what is replaced by one U+FFFD. */
static int utf8_step(const unsigned char *p, const unsigned char *end) {
    unsigned c = p[0];
    int need = c < 0x80 ? 0 : c >= 0xc2 && c <= 0xdf ? 1 : c >= 0xe0 && c <= 0xef ? 2 : c >= 0xf0 && c <= 0xf4 ? 3 : -1;
    if (need < 0) return -1;
    unsigned low = c == 0xe0 ? 0xa0 : c == 0xf0 ? 0x90 : 0x80;
    unsigned high = c == 0xed ? 0x9f : c == 0xf4 ? 0x8f : 0xbf;
    for (int i = 1; i <= need; i++) {
        if (p + i >= end || p[i] < low || p[i] > high) return -i;
        low = 0x80;
        high = 0xbf;
    }
    return need + 1;
}

size_t sill__put_json_string(sill__str *s, const char *text, size_t n_bytes) {
    const unsigned char *p = (const unsigned char *)(n_bytes ? text : ""), *end = p + n_bytes, *run = p;
    size_t bad = 0;
    sill__str_put(s, "\"", 1);
    while (p < end) {
        if (*p >= 0x20 && *p < 0x7f && *p != '"' && *p != '\\') {
            p++;
            continue;
        }
        int step = *p < 0x80 ? 0 : utf8_step(p, end);
        if (step > 0) {
            p += step;
            continue;
        }
        sill__str_put(s, run, (size_t)(p - run));
        if (step < 0) {
            sill__str_puts(s, "\xef\xbf\xbd");
            bad += (size_t)-step;
            p += -step;
        } else {
            switch (*p) {
                case '"': sill__str_puts(s, "\\\""); break;
                case '\\': sill__str_puts(s, "\\\\"); break;
                case '\n': sill__str_puts(s, "\\n"); break;
                case '\r': sill__str_puts(s, "\\r"); break;
                case '\t': sill__str_puts(s, "\\t"); break;
                default: sill__str_putf(s, "\\u%04x", *p);
            }
            p++;
        }
        run = p;
    }
    sill__str_put(s, run, (size_t)(end - run));
    sill__str_put(s, "\"", 1);
    return bad;
}

void sill__put_csv_value(sill__str *s, const char *text, size_t n_bytes, char delimiter) {
    bool quote = false;
    for (size_t i = 0; i < n_bytes && !quote; i++)
        quote = text[i] == delimiter || text[i] == '"' || text[i] == '\n' || text[i] == '\r';
    if (!quote) {
        sill__str_put(s, text, n_bytes);
        return;
    }
    sill__str_put(s, "\"", 1);
    const char *end = text + n_bytes;
    for (const char *p = text; p < end;) {
        const char *q = memchr(p, '"', (size_t)(end - p));
        size_t n = q ? (size_t)(q - p) + 1 : (size_t)(end - p);
        sill__str_put(s, p, n);
        if (q) sill__str_put(s, "\"", 1);
        p += n;
    }
    sill__str_put(s, "\"", 1);
}
