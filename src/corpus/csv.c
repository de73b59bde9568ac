/*
 * csv.c - reads CSV and TSV. The rules, each with a test in tests/corpus:
 *  - RFC 4180: values may be quoted with ", "" inside means one ", quoted values may hold the delimiter and
 *    line ends. Lines end with LF, CRLF or CR. TSV is the same with a tab as the delimiter.
 *  - Values are kept byte for byte: spaces, NUL bytes, CR inside quotes. What is not UTF-8 is read as declared
 *    (encoding.c); a row with a byte that is no character is a row with an error.
 *  - A quote inside a value that did not begin with one is an ordinary character; text behind a closing
 *    quote is appended to the value ("a"b is ab). (So reads Python's csv module, the oracle of the tests.)
 *  - A line without any character is no row. A UTF-8 byte order mark is dropped.
 *  - A row with more or fewer values than the header is a row with an error: its values are kept as far as
 *    there are columns, reading goes on with the next row.
 *  - A quote that never closes, or a row above the size limit: the line on which it began becomes a row with
 *    an error and reading goes on at the line after it, so that one stray quote does not swallow the rest.
 * Why not libcsv (3.0.3): it reads `"abc"def,x` LF as one value that runs on to the next quote in the file,
 * it cannot bound or resume a row with an open quote, and its callbacks cannot stop it.
 */
#include "corpus/reader.h"

#include <stdio.h>

#define RESCAN_LIMIT ((uint64_t)2 << 30)

/* Where a row ends. */
typedef struct row_span {
    size_t bytes;       /* of the row, without its line end */
    size_t line_end;    /* 0, 1 or 2 bytes */
    size_t n_values;
    bool open_quote, too_long;
} row_span;

enum { AT_START, UNQUOTED, QUOTED, QUOTE_IN_QUOTED };

/* Finds the end of the row at the start of the window, reading on as needed. */
static sill_status find_row(sill__reader *r, row_span *span, sill_error *err) {
    int state = AT_START;
    const size_t limit = r->max_row + 2; /* what decides does not depend on how the input was cut into reads */
    size_t i = 0;
    memset(span, 0, sizeof *span);
    span->n_values = 1;
    for (;;) {
        const char *p = r->buf + r->start;
        size_t have = SILL_MIN(r->end - r->start, limit);
        while (i < have) {
            char c = p[i];
            if (state == QUOTED) {
                const char *q = memchr(p + i, '"', have - i);
                if (!q) {
                    i = have;
                    break;
                }
                i = (size_t)(q - p) + 1;
                state = QUOTE_IN_QUOTED;
                continue;
            }
            if (c == '"' && state == AT_START) state = QUOTED;
            else if (c == '"' && state == QUOTE_IN_QUOTED) state = QUOTED;
            else if (c == r->delimiter) state = AT_START, span->n_values++;
            else if (c == '\n' || c == '\r') {
                if (c == '\r' && i + 1 == have && !r->eof) break; /* is a line feed behind it? */
                span->bytes = i;
                span->line_end = c == '\r' && i + 1 < have && p[i + 1] == '\n' ? 2 : 1;
                span->too_long = i > r->max_row;
                return SILL_OK;
            } else state = UNQUOTED;
            i++;
        }
        bool more = false;
        if (have < limit) {
            sill_status s = sill__reader_fill(r, &more, err);
            if (s != SILL_OK) return s;
            if (more || i < have) continue; /* i < have: the CR that waited, now at the end of the input */
        }
        span->bytes = have;
        span->too_long = have > r->max_row;
        span->open_quote = state == QUOTED;
        return SILL_OK;
    }
}

/* Splits N bytes into cells, at most MAX of them are kept. An open quote ends with the bytes. */
static bool split(sill__reader *r, const char *p, size_t n, size_t max) {
    size_t cell = 0;
    const char *end = p + n;
    sill__str_clear(&r->scratch);
    for (;; cell++) {
        size_t from = r->scratch.n;
        bool keep = cell < max;
        if (p < end && *p == '"') {
            p++;
            for (;;) {
                const char *q = memchr(p, '"', (size_t)(end - p));
                const char *stop = q ? q : end;
                if (keep) sill__str_put(&r->scratch, p, (size_t)(stop - p));
                p = stop;
                if (!q) break;
                p++;
                if (p >= end || *p != '"') break;
                if (keep) sill__str_put(&r->scratch, "\"", 1);
                p++;
            }
        }
        const char *d = p < end ? memchr(p, r->delimiter, (size_t)(end - p)) : NULL;
        const char *stop = d ? d : end;
        if (keep) {
            sill__str_put(&r->scratch, p, (size_t)(stop - p));
            r->cells[cell].kind = SILL__CELL_TEXT;
            r->cells[cell].p = (const char *)from;
            r->cells[cell].n = r->scratch.n - from;
        }
        if (!d) break;
        p = d + 1;
    }
    for (cell++; cell < max; cell++) r->cells[cell] = (sill__cell){NULL, 0, SILL__CELL_MISSING};
    return !r->scratch.failed;
}

/* A lone CR ends a line too; the line feeds are counted by consume. */
static void consume_row(sill__reader *r, const row_span *span) {
    bool lone_cr = span->line_end == 1 && r->buf[r->start + span->bytes] == '\r';
    sill__reader_consume(r, span->bytes + span->line_end);
    if (lone_cr) r->line++;
}

/* The first line of a row whose quote never closed: bytes before its line feed, or SIZE_MAX. */
static size_t first_line(const sill__reader *r, size_t bytes) {
    const char *p = r->buf + r->start, *nl = bytes ? memchr(p, '\n', bytes) : NULL;
    return nl ? (size_t)(nl - p) : SIZE_MAX;
}

static sill_status recover(sill__reader *r, const row_span *span, sill__corpus_row **row, sill_error *err) {
    char message[200];
    size_t n = first_line(r, span->bytes), keep;
    sill_status s;
    if (span->open_quote && span->too_long)
        snprintf(message, sizeof message, "a quote opened on line %llu is not closed within %zu bytes; close it, or let --max-row allow longer rows",
                 (unsigned long long)r->line, r->max_row);
    else if (span->open_quote)
        snprintf(message, sizeof message, "a quote opened on line %llu is not closed within the file", (unsigned long long)r->line);
    else snprintf(message, sizeof message, "the row is longer than %zu bytes; --max-row allows more", r->max_row);
    r->rescanned += span->bytes;
    if (r->rescanned > RESCAN_LIMIT)
        return sill__fail(err, SILL_EFORMAT, "%s: line %llu: too many quotes that never close; is this CSV?",
                          r->name, (unsigned long long)r->line);
    keep = n == SIZE_MAX ? (span->too_long ? 0 : span->bytes) : n;
    if (!span->open_quote) keep = 0;
    if (keep && r->buf[r->start + keep - 1] == '\r') keep--;
    const char *p = r->buf + r->start, *why;
    s = sill__reader_decode(r, &p, &keep, &why, err);
    if (s != SILL_OK) return s;
    if (!split(r, p, keep, r->n_columns))
        return sill__fail(err, SILL_ENOMEM, "%s: no memory for a row", r->name);
    if (!keep)
        for (size_t i = 0; i < r->n_columns; i++) r->cells[i].kind = SILL__CELL_MISSING;
    s = sill__reader_make_row(r, r->n_columns, NULL, 0, message, row, err);
    if (s != SILL_OK) return s;
    if (span->open_quote && n != SIZE_MAX) sill__reader_consume(r, n + 1);
    else if (span->too_long && span->line_end) consume_row(r, span);
    else if (span->too_long) s = sill__reader_skip_line(r, err);
    else sill__reader_consume(r, span->bytes);
    return s;
}

/* Finds the next row that is not a blank line; *end at the end of the input. */
static sill_status find_next(sill__reader *r, row_span *span, bool *end, sill_error *err) {
    for (;;) {
        sill_status s = find_row(r, span, err);
        if (s != SILL_OK) return s;
        *end = span->bytes == 0 && span->line_end == 0;
        if (*end || span->bytes) return SILL_OK;
        r->stats.blank_lines++;
        consume_row(r, span);
    }
}

/* The header has no comma outside quotes but has another delimiter: take that one. */
static char sniff_delimiter(const char *p, size_t n) {
    size_t commas = 0, semicolons = 0, tabs = 0;
    bool quoted = false;
    for (size_t i = 0; i < n; i++) {
        if (p[i] == '"') quoted = !quoted;
        if (quoted) continue;
        if (p[i] == '\n' || p[i] == '\r') break;
        commas += p[i] == ',';
        semicolons += p[i] == ';';
        tabs += p[i] == '\t';
    }
    if (commas) return ',';
    return semicolons && !tabs ? ';' : tabs && !semicolons ? '\t' : ',';
}

sill_status sill__csv_header(sill__reader *r, bool sniff, sill_error *err) {
    row_span span;
    bool end;
    sill_status s = find_next(r, &span, &end, err);
    if (s != SILL_OK) return s;
    if (sniff && span.bytes) {
        r->delimiter = sniff_delimiter(r->buf + r->start, span.bytes);
        if (r->delimiter != ',' && (s = find_row(r, &span, err)) != SILL_OK) return s;
    }
    if (end) return sill__fail(err, SILL_EFORMAT, "%s is empty: the first line must name the columns", r->name);
    if (span.open_quote || span.too_long)
        return sill__fail(err, SILL_EFORMAT, "%s: the header line %s", r->name,
                          span.open_quote ? "opens a quote that never closes" : "is too long");
    if (span.n_values > 65536)
        return sill__fail(err, SILL_ERANGE, "%s: the header has %zu columns, at most 65536 are read", r->name,
                          span.n_values);
    const char *p = r->buf + r->start, *why;
    size_t n = span.bytes;
    s = sill__reader_decode(r, &p, &n, &why, err);
    if (s == SILL_OK && why) s = sill__fail(err, SILL_EFORMAT, "%s: the header: %s", r->name, why);
    if (s != SILL_OK) return s;
    if (!sill__reader_want_cells(r, span.n_values) || !split(r, p, n, span.n_values))
        return sill__fail(err, SILL_ENOMEM, "%s: no memory for the header", r->name);
    for (size_t i = 0; i < span.n_values; i++)
        if (!sill__reader_add_name(&r->columns, &r->n_columns,
                                   r->scratch.p ? r->scratch.p + (size_t)r->cells[i].p : "", r->cells[i].n))
            return sill__fail(err, SILL_ENOMEM, "%s: no memory for the header", r->name);
    consume_row(r, &span);
    return SILL_OK;
}

sill_status sill__csv_next(sill__reader *r, sill__corpus_row **row, sill_error *err) {
    row_span span;
    char message[160];
    bool end;
    sill_status s = find_next(r, &span, &end, err);
    if (s != SILL_OK || end) return s;
    if (span.open_quote || span.too_long) return recover(r, &span, row, err);
    const char *p = r->buf + r->start, *why;
    size_t n = span.bytes;
    s = sill__reader_decode(r, &p, &n, &why, err);
    if (s != SILL_OK) return s;
    if (!split(r, p, n, r->n_columns)) return sill__fail(err, SILL_ENOMEM, "%s: no memory for a row", r->name);
    bool ragged = span.n_values != r->n_columns;
    if (ragged)
        snprintf(message, sizeof message, "the row has %zu value%s, the header names %zu column%s", span.n_values,
                 span.n_values == 1 ? "" : "s", r->n_columns, r->n_columns == 1 ? "" : "s");
    s = sill__reader_make_row(r, r->n_columns, NULL, 0, why ? why : ragged ? message : NULL, row, err);
    if (s == SILL_OK) consume_row(r, &span);
    return s;
}
