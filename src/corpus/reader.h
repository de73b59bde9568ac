/*
 * reader.h - what the readers of the formats share: a window of bytes over the input that slides and grows
 * up to a limit, and the making of rows. Private to src/corpus.
 */
#ifndef SILL_CORPUS_READER_H
#define SILL_CORPUS_READER_H

#include "corpus/corpus.h"

/* Where bytes come from (source.c): a file, unpacked where it is compressed. */
typedef struct sill__source {
    int fd;
    bool own_fd;
    const volatile int *stop;
    const sill__codec *const *codecs;
    const sill__codec *codec; /* NULL: bytes as they lie there */
    void *unpacker;
    char *packed;           /* bytes [from, to) were read and not yet unpacked */
    size_t from, to;
    uint64_t at;            /* bytes of the file that were read, or unpacked */
    bool ended, whole;      /* all of the file was read; it may end where it is unpacked to */
    const char *why;        /* what is wrong behind the bytes that came last */
} sill__source;

struct sill__reader {
    sill__format format;
    char delimiter;
    sill__source source;
    bool eof;
    sill__encoding encoding;
    char *name;             /* for messages */
    char *dir;              /* a directory: where its files are, sorted */
    char **files;
    size_t n_files, at_file;
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
    sill__str scratch, decoded;
    char why[200];          /* of the row under construction */
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
/* A row's bytes in UTF-8, valid until the next call. *ERROR, where a byte is no character: which. */
sill_status sill__reader_decode(sill__reader *reader, const char **p, size_t *n, const char **error, sill_error *err);
char **sill__reader_add_name(char ***names, size_t *n, const char *name, size_t n_bytes);

/* source.c: opens PATH, a file or "-"; EISDIR is told by *IS_DIR. */
sill_status sill__source_open(sill__reader *reader, const char *path, bool *is_dir, sill_error *err);
/* Looks at the first bytes, which are in the window then: unpacks from now on, drops UTF-8's byte order mark, refuses. */
sill_status sill__source_start(sill__reader *reader, sill_error *err);
/* At most CAP more bytes; *N is 0 at the end. */
sill_status sill__source_read(sill__reader *reader, char *to, size_t cap, size_t *n, sill_error *err);
void sill__source_close(sill__source *source);
/* A name such as x.csv.xz: says how to read it. SILL_OK when it is no such name. */
sill_status sill__source_refuse_name(const char *path, const sill__codec *const *codecs, sill_error *err);
/* files.c: the texts of the directory PATH; the next file as a row. */
sill_status sill__files_list(sill__reader *reader, const char *path, sill_error *err);
sill_status sill__files_next(sill__reader *reader, sill__corpus_row **row, sill_error *err);
bool sill__files_have(const sill__reader *reader, uint64_t device, uint64_t inode);
/* csv.c */
sill_status sill__csv_header(sill__reader *reader, bool sniff, sill_error *err);
sill_status sill__csv_next(sill__reader *reader, sill__corpus_row **row, sill_error *err);
/* lines.c */
sill_status sill__lines_next(sill__reader *reader, sill__corpus_row **row, sill_error *err);
sill_status sill__lines_first_keys(sill__reader *reader, sill_error *err);
/* True when the JSON object RAW has KEY at its top level. */
bool sill__json_has_key(const char *raw, size_t n_raw, const char *key);

#endif
