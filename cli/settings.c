/* settings.c - what the results of a run depend on, as names and values. */
#include <stdarg.h>
#include <stdio.h>

#include "journal.h"

void cli_settings_put(cli_settings *s, const char *name, const char *value) {
    if (s->n == s->cap) {
        size_t cap = s->cap ? s->cap * 2 : 64, bytes;
        cli_setting *p = sill__mul(cap, sizeof *p, &bytes) ? sill__realloc(s->items, bytes) : NULL;
        if (!p) {
            s->failed = true;
            return;
        }
        s->items = p;
        s->cap = cap;
    }
    cli_setting item = {sill__strndup(name, strlen(name)), sill__strndup(value, strlen(value))};
    if (!item.name || !item.value) {
        sill__free(item.name);
        sill__free(item.value);
        s->failed = true;
        return;
    }
    s->items[s->n++] = item;
}

void cli_settings_putf(cli_settings *s, const char *name, const char *format, ...) {
    char text[512];
    va_list ap;
    va_start(ap, format);
    int n = vsnprintf(text, sizeof text, format, ap);
    va_end(ap);
    if (n < 0 || (size_t)n >= sizeof text) s->failed = true;
    else cli_settings_put(s, name, text);
}

const char *cli_settings_get(const cli_settings *s, const char *name) {
    for (size_t i = 0; i < s->n; i++)
        if (!strcmp(s->items[i].name, name)) return s->items[i].value;
    return NULL;
}

void cli_settings_free(cli_settings *s) {
    for (size_t i = 0; i < s->n; i++) {
        sill__free(s->items[i].name);
        sill__free(s->items[i].value);
    }
    sill__free(s->items);
    memset(s, 0, sizeof *s);
}

void cli_settings_sha256(const cli_settings *s, char out[65]) {
    sill__sha256 sha;
    uint8_t digest[32];
    sill__sha256_init(&sha);
    for (size_t i = 0; i < s->n; i++) {
        sill__sha256_update(&sha, s->items[i].name, strlen(s->items[i].name) + 1);
        sill__sha256_update(&sha, s->items[i].value, strlen(s->items[i].value) + 1);
    }
    sill__sha256_final(&sha, digest);
    sill__sha256_hex(digest, out);
}

static void say(char *out, size_t cap, size_t n, const char *name, const char *was, const char *is) {
    size_t used = strlen(out);
    if (n > 3) return;
    const char *between = n > 1 ? "; " : "";
    if (n == 3) snprintf(out + used, cap - used, "; and more");
    else if (!was) snprintf(out + used, cap - used, "%s%s was not given, is '%.80s'", between, name, is);
    else if (!is) snprintf(out + used, cap - used, "%s%s was '%.80s', is not given", between, name, was);
    else snprintf(out + used, cap - used, "%s%s was '%.80s', is '%.80s'", between, name, was, is);
}

size_t cli_settings_differ(const cli_settings *was, const cli_settings *is, char *out, size_t cap) {
    size_t n = 0;
    out[0] = 0;
    for (size_t i = 0; i < was->n; i++) {
        const char *now = cli_settings_get(is, was->items[i].name);
        if (!now || strcmp(now, was->items[i].value)) say(out, cap, ++n, was->items[i].name, was->items[i].value, now);
    }
    for (size_t i = 0; i < is->n; i++)
        if (!cli_settings_get(was, is->items[i].name)) say(out, cap, ++n, is->items[i].name, NULL, is->items[i].value);
    return n;
}
