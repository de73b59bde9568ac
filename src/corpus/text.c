/* text.c - how numbers and texts are written: shortest decimals, CSV values, format names. */
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

static bool ends_with(const char *path, size_t n, const char *end) {
    size_t m = strlen(end);
    return n > m && !strncasecmp(path + n - m, end, m);
}

sill__format sill__format_of_path(const char *path) {
    size_t n = strlen(path);
    if (ends_with(path, n, ".gz")) n -= 3;
    else if (ends_with(path, n, ".zst")) n -= 4;
    for (size_t i = 0; i < SILL_ARRAY_LEN(extensions); i++)
        if (ends_with(path, n, extensions[i].extension)) return extensions[i].format;
    return SILL__FORMAT_AUTO;
}

const sill__codec *sill__codec_of_path(const sill__codec *const *codecs, const char *path) {
    for (; codecs && *codecs; codecs++)
        if (ends_with(path, strlen(path), (*codecs)->extension)) return *codecs;
    return NULL;
}

const char *sill__format_name(sill__format format) {
    static const char *const names[] = {"auto", "csv", "tsv", "jsonl", "txt", "file", "npy"};
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
