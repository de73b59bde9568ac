/* error.c - statuses, error messages and the log callback. */
#include "base/base.h"

#include <stdio.h>
#include <stdlib.h>

const char *sill_version(void) { return SILL_VERSION_STRING; }

const char *sill_status_text(sill_status status) {
    switch (status) {
#define SILL_X(name, value, text)                                                                  \
    case SILL_##name: return text;
        SILL_STATUS_LIST(SILL_X)
#undef SILL_X
    }
    return "unknown status";
}

/* Bytes of the character at P when it is valid UTF-8 and no control character, else 0. */
static size_t printable(const unsigned char *p) {
    if (p[0] < 0x80) return p[0] >= 0x20 && p[0] != 0x7f;
    size_t n = p[0] >= 0xc2 && p[0] < 0xe0 ? 2 : p[0] >= 0xe0 && p[0] < 0xf0 ? 3 : p[0] >= 0xf0 && p[0] < 0xf5 ? 4 : 0;
    for (size_t i = 1; i < n; i++)
        if ((p[i] & 0xc0) != 0x80) return 0; /* the NUL at the end among them */
    if (p[0] == 0xc2 && p[1] < 0xa0) return 0; /* C1 */
    if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] >= 0xa0) || (p[0] == 0xf0 && p[1] < 0x90) ||
        (p[0] == 0xf4 && p[1] >= 0x90)) return 0;
    return n;
}

void sill__plain(char *text) {
    for (unsigned char *p = (unsigned char *)text; *p;) {
        size_t n = printable(p);
        if (n == 0) *p = '?';
        p += n ? n : 1;
    }
}

sill_status sill__fail(sill_error *err, sill_status code, const char *format, ...) {
    if (err) {
        va_list ap;
        va_start(ap, format);
        err->code = code;
        vsnprintf(err->msg, sizeof err->msg, format, ap);
        va_end(ap);
        sill__plain(err->msg);
    }
    return code;
}

void sill__fail_context(sill_error *err, const char *format, ...) {
    char head[sizeof err->msg], tail[sizeof err->msg];
    va_list ap;
    size_t n;
    if (!err) return;
    va_start(ap, format);
    vsnprintf(head, sizeof head, format, ap);
    va_end(ap);
    memcpy(tail, err->msg, sizeof tail);
    n = strlen(head);
    snprintf(err->msg, sizeof err->msg, "%s", head);
    if (snprintf(err->msg + n, sizeof err->msg - n, ": %s", tail) < 0) err->msg[n] = 0; /* a long tail is cut */
    sill__plain(err->msg);
}

sill_status sill__bug(sill_error *err, const char *file, int line, const char *what) {
#ifdef SILL_DEBUG
    fprintf(stderr, "%s:%d: bug: %s\n", file, line, what);
    abort();
#endif
    return sill__fail(err, SILL_EINTERNAL, "internal error at %s:%d: %s; please report it", file, line, what);
}

static sill_log_fn log_fn;
static void *log_user;

void sill_set_log(sill_log_fn fn, void *user) {
    log_fn = fn;
    log_user = user;
}

void sill__log(int level, const char *format, ...) {
    char line[1024];
    va_list ap;
    if (!log_fn) return;
    va_start(ap, format);
    vsnprintf(line, sizeof line, format, ap);
    va_end(ap);
    sill__plain(line);
    log_fn(log_user, level, line);
}

sill_status sill__options_read(const void *in, void *out, size_t out_bytes, const char *name, sill_error *err) {
    size_t size = 0;
    memset(out, 0, out_bytes);
    if (in) {
        memcpy(&size, in, sizeof size);
        if (size < sizeof size || size > out_bytes)
            return sill__fail(err, SILL_EINVAL, "%s.size is %zu, expected sizeof (%zu)", name, size, out_bytes);
        memcpy(out, in, size);
    }
    memcpy(out, &out_bytes, sizeof out_bytes);
    return SILL_OK;
}
