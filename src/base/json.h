/*
 * json.h - a bounded streaming scanner for JSON we do not trust: config.json, tokenizer.json,
 * safetensors headers. No tree is built; the caller walks the text. Depth, string length and counts
 * are bounded. (Values for people and results go through jansson; see docs/INTERNALS.md.)
 */
#ifndef SILL_BASE_JSON_H
#define SILL_BASE_JSON_H

#include "base/base.h"

typedef enum sill__json_kind {
    SILL__JSON_ERROR, SILL__JSON_END, SILL__JSON_NULL, SILL__JSON_TRUE, SILL__JSON_FALSE,
    SILL__JSON_NUMBER, SILL__JSON_STRING, SILL__JSON_OBJECT, SILL__JSON_ARRAY
} sill__json_kind;

/* A place in the text. Copy it to remember a place. */
typedef struct sill__json {
    const char *p, *end, *start;
    int depth;             /* containers entered; at most 64 */
    int at;                /* internal: before a value, just inside a container, or behind a value */
    const char *message;   /* set on error, and every later call then fails; NULL while all is well */
} sill__json;
#define SILL__JSON_MAX_DEPTH 64

void sill__json_init(sill__json *j, const char *text, size_t n_bytes);
/* Kind of the value at the current place, without moving. */
sill__json_kind sill__json_peek(sill__json *j);
/* Passes over one whole value. */
bool sill__json_skip(sill__json *j);
/* Enter an object or array; then next_* until it returns false; check j->message after the loop. A
 * value that the loop's body does not read is passed over. */
bool sill__json_enter(sill__json *j, sill__json_kind container);
/* Next member: its key, unescaped, into KEY (cap bytes with NUL; longer keys are cut; *key_bytes gets
 * the full length and may be NULL). False at the end of the object (or on error). A key may hold NUL
 * bytes (\u0000): where that matters compare the length too. */
bool sill__json_next_member(sill__json *j, char *key, size_t cap, size_t *key_bytes);
bool sill__json_next_element(sill__json *j);
/* Scalars: false (with message) when the value is not of that kind or is outside the range. To try a
 * value as one kind and then as another, peek or work on a copy. */
bool sill__json_int(sill__json *j, int64_t *out);   /* accepts 1.0 and 1e3 when integral */
bool sill__json_double(sill__json *j, double *out); /* NaN, Infinity and -Infinity accepted */
bool sill__json_bool(sill__json *j, bool *out);
/* Appends the unescaped bytes (UTF-8; a lone surrogate becomes U+FFFD) to OUT, which the caller bounds. */
bool sill__json_string(sill__json *j, sill__str *out);
/* True when nothing but white space is left and no error happened. */
bool sill__json_finish(sill__json *j);
/* Byte offset and message as a status: "FILE: at byte N: MESSAGE". EFORMAT, or ENOMEM where it was that. */
sill_status sill__json_fail(const sill__json *j, const char *file, sill_error *err);
/* Finds a path of keys ("model", "type", NULL) from the object at J; leaves J at the value. When there is
 * none: false, J as it was (with a message only where the text is malformed). The first of equal keys. */
bool sill__json_find(sill__json *j, const char *key, ...);

#endif
