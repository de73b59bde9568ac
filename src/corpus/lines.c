/*
 * lines.c - reads JSON Lines and plain text. The rules, each with a test in tests/corpus:
 *  - A line ends with LF or CRLF (a CR elsewhere is an ordinary character). Lines without any character
 *    are no rows; JSONL lines of white space neither. A UTF-8 byte order mark is dropped.
 *  - Text: the line's bytes are the row, NUL bytes among them. What is not UTF-8 is read as declared (encoding.c), JSONL
 *    too; a line with a byte that is no character is a row with an error.
 *  - JSONL: a line is one JSON object of at most 64 levels; another value or broken JSON is a row with an
 *    error. The line's own bytes are kept, so that numbers, key order and escapes go to the output
 *    unchanged. NaN, Infinity and -Infinity are read as numbers. A lone surrogate escape in a selected
 *    text becomes U+FFFD and is counted. Of a key that occurs twice the last value counts (as in Python).
 *    Where a text is wanted, a number, true or false is its own bytes (1.50 is the text 1.50); null is no text.
 *  - A line above the size limit becomes a row with an error.
 */
#include "corpus/reader.h"

#include <stdio.h>

#include "base/json.h"

/* The next line that is not blank, in the window at start: its bytes without the line end and the bytes to
 * consume. *end at the end of the input; too_long when the limit came before a line end. */
typedef struct line_span { size_t bytes, consume; bool end, too_long; } line_span;

static sill_status find_line(sill__reader *r, line_span *span, sill_error *err) {
    size_t looked = 0;
    memset(span, 0, sizeof *span);
    for (;;) {
        size_t have = r->end - r->start;
        char *p = r->buf + r->start, *nl = have > looked ? memchr(p + looked, '\n', have - looked) : NULL;
        if (nl || (r->eof && have)) {
            span->bytes = nl ? (size_t)(nl - p) : have;
            span->consume = span->bytes + (nl != NULL);
            if (nl && span->bytes && p[span->bytes - 1] == '\r') span->bytes--;
            span->too_long = span->bytes > r->max_row;
            return SILL_OK;
        }
        looked = have;
        bool more = false;
        if (have <= r->max_row) {
            sill_status s = sill__reader_fill(r, &more, err);
            if (s != SILL_OK) return s;
        }
        if (!more && have > r->max_row) {
            span->too_long = true;
            return SILL_OK;
        }
        span->end = !more && r->eof && have == 0;
        if (span->end) return SILL_OK;
    }
}

static bool is_space(char c) { return c == ' ' || c == '\t' || c == '\r'; }

static bool is_blank(const sill__reader *r, const char *p, size_t n) {
    if (r->format != SILL__FORMAT_JSONL) return n == 0;
    while (n && is_space(p[n - 1])) n--;
    return n == 0;
}

/* The next line that is a row; blank ones are consumed and counted. */
static sill_status find_row(sill__reader *r, line_span *span, sill_error *err) {
    for (;;) {
        sill_status s = find_line(r, span, err);
        if (s != SILL_OK || span->end || span->too_long) return s;
        if (!is_blank(r, r->buf + r->start, span->bytes)) return SILL_OK;
        r->stats.blank_lines++;
        sill__reader_consume(r, span->consume);
    }
}

/* ---- JSON */

/* Lone surrogates in the escapes of a JSON string: each becomes U+FFFD in the text. */
static size_t count_lone_surrogates(const char *p, size_t n) {
    size_t lone = 0;
    const char *end = p + n;
    bool high = false;
    while (p < end) {
        unsigned unit = 0;
        if (*p != '\\' || end - p < 2) {
            lone += high;
            high = false;
            p++;
            continue;
        }
        if (p[1] != 'u' || end - p < 6) {
            lone += high;
            high = false;
            p += 2;
            continue;
        }
        for (int i = 2; i < 6; i++) {
            unsigned c = (unsigned char)p[i];
            unit = unit * 16 + (c <= '9' ? c - '0' : (c | 32) - 'a' + 10);
        }
        if (unit >= 0xdc00 && unit <= 0xdfff) lone += !high, high = false;
        else lone += high, high = unit >= 0xd800 && unit <= 0xdbff;
        p += 6;
    }
    return lone + high;
}

/* The value at the current place into a cell whose bytes are put into scratch. */
static bool read_cell(sill__reader *r, sill__json *j, sill__cell *cell) {
    sill__json_kind kind = sill__json_peek(j);
    const char *from = j->p;
    size_t at = r->scratch.n;
    if (kind == SILL__JSON_STRING) {
        if (!sill__json_string(j, &r->scratch)) return false;
        if (memchr(from, '\\', (size_t)(j->p - from)))
            r->stats.lone_surrogates += count_lone_surrogates(from, (size_t)(j->p - from));
        *cell = (sill__cell){(const char *)at, r->scratch.n - at, SILL__CELL_TEXT};
        return true;
    }
    if (!sill__json_skip(j)) return false;
    if (kind == SILL__JSON_NULL) {
        *cell = (sill__cell){NULL, 0, SILL__CELL_MISSING};
        return true;
    }
    while (from < j->p && (is_space(*from) || *from == ',' || *from == ':' || *from == '\n')) from++;
    sill__str_put(&r->scratch, from, (size_t)(j->p - from));
    bool whole = kind == SILL__JSON_OBJECT || kind == SILL__JSON_ARRAY;
    *cell = (sill__cell){(const char *)at, r->scratch.n - at, whole ? SILL__CELL_JSON : SILL__CELL_LITERAL};
    return true;
}

static bool read_object(sill__reader *r, const char *p, size_t n, uint64_t *clashes, size_t *extra,
                        sill__json *j) {
    char key[256];
    size_t key_bytes;
    sill__json_init(j, p, n);
    if (sill__json_peek(j) != SILL__JSON_OBJECT) {
        if (!j->message) j->message = "not a JSON object";
        return false;
    }
    if (!sill__json_enter(j, SILL__JSON_OBJECT)) return false;
    while (sill__json_next_member(j, key, sizeof key, &key_bytes)) {
        size_t slot = 0;
        bool whole = key_bytes < sizeof key && strlen(key) == key_bytes;
        for (size_t i = 0; whole && i < r->n_watched; i++)
            if (!strcmp(key, r->watched[i])) *clashes |= (uint64_t)1 << i;
        while (slot < r->n_selected && !(whole && !strcmp(key, r->selected[slot]))) slot++;
        if (slot == r->n_selected) {
            ++*extra;
            if (!sill__json_skip(j)) return false;
        } else if (!read_cell(r, j, &r->cells[slot])) return false;
    }
    return !j->message && sill__json_finish(j);
}

bool sill__json_has_key(const char *raw, size_t n_raw, const char *key) {
    sill__json j;
    char name[256];
    size_t n;
    sill__json_init(&j, raw, n_raw);
    if (!sill__json_enter(&j, SILL__JSON_OBJECT)) return false;
    while (sill__json_next_member(&j, name, sizeof name, &n)) {
        if (n < sizeof name && !strcmp(name, key)) return true;
        if (!sill__json_skip(&j)) return false;
    }
    return false;
}

sill_status sill__lines_first_keys(sill__reader *r, sill_error *err) {
    line_span span;
    sill__json j;
    char key[256];
    size_t n;
    sill_status s = find_row(r, &span, err);
    if (s != SILL_OK || span.end || span.too_long) return s;
    const char *p = r->buf + r->start, *why;
    s = sill__reader_decode(r, &p, &span.bytes, &why, err);
    if (s != SILL_OK) return s;
    sill__json_init(&j, p, span.bytes);
    if (!sill__json_enter(&j, SILL__JSON_OBJECT)) return SILL_OK; /* the row will say so */
    while (sill__json_next_member(&j, key, sizeof key, &n)) {
        bool known = n >= sizeof key;
        for (size_t i = 0; i < r->n_columns && !known; i++) known = !strcmp(key, r->columns[i]);
        if (!known && !sill__reader_add_name(&r->columns, &r->n_columns, key, n))
            return sill__fail(err, SILL_ENOMEM, "%s: no memory for the columns", r->name);
        if (!sill__json_skip(&j)) break;
    }
    return SILL_OK;
}

static sill_status jsonl_row(sill__reader *r, const char *p, size_t n, const char *why, sill__corpus_row **row, sill_error *err) {
    char message[512];
    bool broken;
    uint64_t clashes = 0;
    size_t extra = 0;
    sill__json j;
    while (n && is_space(p[n - 1])) n--;
    while (n && is_space(*p)) p++, n--;
    if (!sill__reader_want_cells(r, r->n_selected))
        return sill__fail(err, SILL_ENOMEM, "%s: no memory for a row", r->name);
    for (size_t i = 0; i < r->n_selected; i++) r->cells[i] = (sill__cell){NULL, 0, SILL__CELL_MISSING};
    sill__str_clear(&r->scratch);
    broken = !read_object(r, p, n, &clashes, &extra, &j);
    if (broken) {
        snprintf(message, sizeof message, "byte %zu of the line: %s", (size_t)(j.p - j.start) + 1,
                 j.message ? j.message : "text behind the object");
        why = message;
        clashes = 0; /* the line's bytes are not written, so no name is taken */
        extra = 0;
        sill__str_clear(&r->scratch);
        r->scratch.failed = false;
        for (size_t i = 0; i < r->n_selected; i++) r->cells[i] = (sill__cell){NULL, 0, SILL__CELL_MISSING};
    } else if (clashes) {
        size_t i = 0;
        while (!(clashes >> i & 1)) i++;
        snprintf(message, sizeof message, "the row has a field '%.200s', which the first row has not, and a field of the "
                 "results has that name; rename it", r->watched[i]);
        why = message;
    }
    sill_status s = sill__reader_make_row(r, r->n_selected, broken ? NULL : p, broken ? 0 : n, why, row, err);
    if (s == SILL_OK) {
        (*row)->clashes = clashes;
        (*row)->n_extra = extra;
    }
    return s;
}

sill_status sill__lines_next(sill__reader *r, sill__corpus_row **row, sill_error *err) {
    line_span span;
    char message[120];
    sill_status s = find_row(r, &span, err);
    if (s != SILL_OK || span.end) return s;
    bool jsonl = r->format == SILL__FORMAT_JSONL;
    if (span.too_long) {
        size_t n_cells = jsonl ? r->n_selected : 1;
        snprintf(message, sizeof message, "the line is longer than %zu bytes; --max-row allows more", r->max_row);
        sill__str_clear(&r->scratch);
        if (!sill__reader_want_cells(r, n_cells))
            return sill__fail(err, SILL_ENOMEM, "%s: no memory for a row", r->name);
        for (size_t i = 0; i < n_cells; i++) r->cells[i] = (sill__cell){NULL, 0, SILL__CELL_MISSING};
        s = sill__reader_make_row(r, n_cells, NULL, 0, message, row, err);
        if (s == SILL_OK && (s = sill__reader_skip_line(r, err)) != SILL_OK) {
            sill__row_free(*row);
            *row = NULL;
        }
        return s;
    }
    const char *p = r->buf + r->start, *why;
    size_t n = span.bytes;
    s = sill__reader_decode(r, &p, &n, &why, err);
    if (s != SILL_OK) return s;
    if (jsonl) {
        s = jsonl_row(r, p, n, why, row, err);
    } else {
        sill__str_clear(&r->scratch);
        sill__str_put(&r->scratch, p, n);
        if (!sill__reader_want_cells(r, 1)) return sill__fail(err, SILL_ENOMEM, "%s: no memory for a row", r->name);
        r->cells[0] = (sill__cell){(const char *)0, n, SILL__CELL_TEXT};
        s = sill__reader_make_row(r, 1, NULL, 0, why, row, err);
    }
    if (s == SILL_OK) sill__reader_consume(r, span.consume);
    return s;
}
