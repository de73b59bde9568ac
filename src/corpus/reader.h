/*
 * reader.h - what the readers of the formats share: a window of bytes over the input that slides and grows
 * up to a limit, and the making of rows. Private to src/corpus.
 */
#ifndef SILL_CORPUS_READER_H
#define SILL_CORPUS_READER_H

#include "corpus/corpus.h"

struct sill__reader {
    sill__format format;
    char delimiter;
    int fd;
    bool own_fd, eof;
    const volatile int *stop;
    char *name;             /* for messages */
    char *buf;
    size_t cap, start, end; /* bytes [start, end) are read and not yet consumed */
    size_t max_row;
    char **columns;         /* header (CSV, TSV, TXT) or keys of the first line (JSONL) */
    size_t n_columns;
    bool have_columns;
    char **selected;        /* JSONL: names that have a slot */
    size_t n_selected;
    const char *const *watched;
    size_t n_watched;
    const char *const *texts; /* rows from memory; NULL: from fd */
    const size_t *texts_bytes;
    size_t n_texts;
    uint64_t line;          /* line at buf[start], from 1 */
    uint64_t rescanned;     /* bytes looked at again after quotes that never closed */
    sill__reader_stats stats;
    sill__str scratch;
    sill__cell *cells;      /* row under construction: p is an offset into scratch until it is made */
    size_t cells_cap;
};

/* One more portion of input behind buf[end]; *more is false at the end of the input or when the window has
 * reached its limit (a row's limit and a little). Offsets relative to start stay true. */
sill_status sill__reader_fill(sill__reader *reader, bool *more, sill_error *err);
/* Consumes N bytes and counts their lines. */
void sill__reader_consume(sill__reader *reader, size_t n);
/* Consumes through the next line feed, however far. */
sill_status sill__reader_skip_line(sill__reader *reader, sill_error *err);
/* Makes a row from reader->cells and scratch; ERROR may be NULL. */
sill_status sill__reader_make_row(sill__reader *reader, size_t n_cells, const char *raw, size_t n_raw,
                                  const char *error, sill__corpus_row **row, sill_error *err);
bool sill__reader_want_cells(sill__reader *reader, size_t n);
char **sill__reader_add_name(char ***names, size_t *n, const char *name, size_t n_bytes);

/* csv.c */
sill_status sill__csv_header(sill__reader *reader, bool sniff, sill_error *err);
sill_status sill__csv_next(sill__reader *reader, sill__corpus_row **row, sill_error *err);
/* lines.c */
sill_status sill__lines_next(sill__reader *reader, sill__corpus_row **row, sill_error *err);
sill_status sill__lines_first_keys(sill__reader *reader, sill_error *err);
/* True when the JSON object RAW has KEY at its top level. */
bool sill__json_has_key(const char *raw, size_t n_raw, const char *key);

#endif
