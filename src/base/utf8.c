/* utf8.c - valid UTF-8 (RFC 3629), and text as a JSON string. */
#include "base/base.h"

int sill__utf8_step(const unsigned char *p, const unsigned char *end) {
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
        int step = *p < 0x80 ? 0 : sill__utf8_step(p, end);
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
