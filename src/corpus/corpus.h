/*
 * corpus.h - rows of text in, rows of results out, in constant memory. Readers for CSV, TSV, JSON Lines and
 * plain text; writers for CSV, TSV and JSON Lines; the flow between them, which puts results that come
 * in completion order back into the order of the input. Knows nothing of models.
 *
 * The rules of the formats are written at the head of csv.c and lines.c. They never change a value: what
 * is not understood becomes a row with an error, and reading goes on.
 */
#ifndef SILL_CORPUS_H
#define SILL_CORPUS_H

#include "base/base.h"

typedef enum sill__format {
    SILL__FORMAT_AUTO, SILL__FORMAT_CSV, SILL__FORMAT_TSV, SILL__FORMAT_JSONL,
    SILL__FORMAT_TXT, /* plain text, a line a row */
    SILL__FORMAT_FILE, /* plain text, a file a row: one file, or all of a directory */
    SILL__FORMAT_NPY /* output only: vectors, as numpy's .npy */
} sill__format;

/* By the extension of PATH (.csv .tsv .tab .jsonl .ndjson .txt .text, any case, .gz or .zst behind it); AUTO when unknown. */
sill__format sill__format_of_path(const char *path);
const char *sill__format_name(sill__format format);

/* ---- text (text.c): numbers and JSON strings as they are written everywhere */

/* Shortest decimal that reads back as the same float or double; "" for NaN and infinities. */
void sill__f32_text(float value, char out[32]);
void sill__f64_text(double value, char out[32]);
/* The same as a JSON value: NaN and infinities become null. */
void sill__put_json_f32(sill__str *s, float value);
void sill__put_json_f64(sill__str *s, double value);
/* A CSV value, quoted where it must be. */
void sill__put_csv_value(sill__str *s, const char *text, size_t n_bytes, char delimiter);

/* ---- encodings (encoding.c) */

typedef enum sill__encoding {
    SILL__ENCODING_UTF8, SILL__ENCODING_LATIN1, SILL__ENCODING_WINDOWS1252,
    SILL__ENCODING_BYTES /* not looked at: every byte is kept */
} sill__encoding;
const char *sill__encoding_name(sill__encoding encoding);
/* The N bytes at P in UTF-8: *OUT is P where nothing changes, else it points into SCRATCH. *BAD is where the first byte is
 * that is no character (each becomes U+FFFD), SIZE_MAX where there is none. False: no memory. */
bool sill__decode(sill__encoding encoding, const char *p, size_t n, sill__str *scratch, const char **out, size_t *n_out,
                  size_t *bad);

/* ---- compressed files. The library has no decompressor, so that it links nothing: who opens readers and writers brings
 * them along (the program: cli/pack.c), as it does the store of finished rows. */

typedef struct sill__codec {
    const char *name, *extension; /* "gzip", ".gz" */
    const char *test;             /* a command that tests such a file: "gzip -t" */
    /* Whether a file that begins with these N bytes (all of it, or 4 at least) is one. */
    bool (*begins)(const uint8_t *p, size_t n);
    void *(*unpack_begin)(void);  /* NULL: no memory */
    /* Takes at most *N_IN bytes of IN, makes at most *N_OUT of OUT, and sets both to what it took and made. *WHOLE: the
     * file may end here. Returns NULL or what is wrong with the file; what was made before that counts. */
    const char *(*unpack)(void *state, const void *in, size_t *n_in, void *out, size_t *n_out, bool *whole);
    void (*unpack_end)(void *state);
    void *(*pack_begin)(void);
    /* Appends to OUT what N bytes become, and with LAST the end of the file. False: no memory. The same calls give the
     * same bytes. */
    bool (*pack)(void *state, const void *in, size_t n, bool last, sill__str *out);
    void (*pack_end)(void *state);
} sill__codec;
/* The codec whose extension PATH has, or NULL; CODECS ends with NULL and may be NULL. */
const sill__codec *sill__codec_of_path(const sill__codec *const *codecs, const char *path);

/* ---- rows */

typedef enum sill__cell_kind {
    SILL__CELL_MISSING, /* not in the row, or null */
    SILL__CELL_TEXT,
    SILL__CELL_LITERAL, /* JSON number, true or false: its own bytes */
    SILL__CELL_JSON     /* JSON array or object: its own bytes */
} sill__cell_kind;

typedef struct sill__cell { const char *p; size_t n; sill__cell_kind kind; } sill__cell;

/* A row owns one block of memory that holds everything it points to. Free with sill__row_free. */
typedef struct sill__corpus_row {
    uint64_t number;      /* from 1, bad rows counted, blank lines not */
    uint64_t line;        /* line of the file on which it begins, from 1; 0: the row is a file */
    sill__cell *cells;    /* CSV, TSV, TXT, FILE: by column; JSONL: by selected slot */
    size_t n_cells;
    const char *raw;      /* JSONL: the line's own bytes, without white space at its ends */
    size_t n_raw;
    const char *error;    /* NULL, or why the row cannot be used */
    uint64_t clashes;     /* JSONL: bit i: the i-th watched name is a key of this row (which is then an error row) */
    size_t n_extra;       /* JSONL: keys that were not selected */
    size_t bytes;         /* size of the block */
} sill__corpus_row;
void sill__row_free(sill__corpus_row *row);
/* SHA-256 over what the row holds (its cells, or its own bytes of JSONL): tells a changed row. */
void sill__row_digest(const sill__corpus_row *row, uint8_t out[32]);

/* ---- reader */

typedef struct sill__reader sill__reader;
typedef struct sill__reader_options {
    sill__format format;   /* AUTO: by extension */
    char delimiter;        /* CSV; 0: ',' unless the header line has none and has ';' or a tab */
    size_t max_row_bytes;  /* 0: 16 MiB; a longer row becomes a row with an error */
    const char *txt_column; /* name of the column of plain text; NULL: "text" */
    sill__encoding encoding;
    const sill__codec *const *codecs; /* ends with NULL; NULL: compressed files are refused */
    const volatile int *stop; /* non-zero: reading ends with ECANCELLED, also where it waits for bytes; may be NULL */
} sill__reader_options;

/* Opens PATH ("-": standard input). A compressed file is known by its first bytes, whatever its name. A directory is read
 * as FORMAT_FILE: the .txt and .text files in it and below it (also .gz and .zst of such), in the order of their paths'
 * bytes; names that begin with a dot and links to directories are passed over. Errors: ENOENT, EIO, EINVAL (format unknown),
 * EFORMAT (no header, another encoding, a directory without texts), EUNSUPPORTED (compressed otherwise; says how to read it),
 * ECANCELLED. */
sill_status sill__reader_open(const char *path, const sill__reader_options *options, sill__reader **out,
                              sill_error *err);
/* Rows from memory: N texts, kept by reference, as one column. Its format is TXT. */
sill_status sill__reader_open_texts(const char *column, const char *const *texts, const size_t *n_bytes, size_t n,
                                    sill__reader **out, sill_error *err);
void sill__reader_free(sill__reader *reader);
sill__format sill__reader_format(const sill__reader *reader);
char sill__reader_delimiter(const sill__reader *reader);
/* True when PATH is the very file that is read (a regular one, by whatever name), or one of them. */
bool sill__reader_is_file(const sill__reader *reader, const char *path);
/* Column names: the header; one for plain text, behind "file" where a file is a row; for JSONL the keys of the first line. */
sill_status sill__reader_columns(sill__reader *reader, const char *const **names, size_t *n, sill_error *err);
/* Slot of a column in row.cells. CSV, TSV, TXT, FILE: ENOENT with the names there are, EFORMAT when the header
 * has the name twice. JSONL: any name may be selected; a row without it has a MISSING cell. */
sill_status sill__reader_select(sill__reader *reader, const char *name, size_t *slot, sill_error *err);
/* JSONL: a row that has one of these names as a key becomes a row with an error, which keeps its own bytes; its
 * row.clashes says which (at most 64 names, kept by reference). */
void sill__reader_watch(sill__reader *reader, const char *const *names, size_t n);
/* The next row, the caller's; *row is NULL at the end. Fails only when reading itself fails: EIO, EFORMAT (a compressed file
 * that is damaged or cut off, with the byte), ECANCELLED, ENOMEM. */
sill_status sill__reader_next(sill__reader *reader, sill__corpus_row **row, sill_error *err);
typedef struct sill__reader_stats {
    uint64_t rows, blank_lines, lone_surrogates;
    uint64_t bytes_done;   /* of the file as it lies there, compressed; of a directory: files */
    uint64_t bytes_total;  /* 0: unknown (a pipe) */
    uint64_t passed_over, links; /* of a directory: files that are no texts, links to directories */
} sill__reader_stats;
sill__reader_stats sill__reader_get_stats(const sill__reader *reader);

/* ---- writer */

typedef struct sill__writer sill__writer;
typedef struct sill__writer_options {
    const char *path;      /* NULL or "-": standard output */
    sill__format format;   /* CSV, TSV or JSONL; AUTO: by extension */
    char delimiter;        /* CSV; 0: ',' */
    bool overwrite;        /* replace an existing file (when the run is finished, not before) */
    bool resumed;          /* what is there, PATH or PATH.partial, is this run's own: it is written anew */
    size_t vector;         /* NPY: values of a row, float32; a row without a vector is NaN */
    bool raw;              /* no header and no fields: whole rows are put, header among them */
    const volatile int *stop; /* non-zero: opening a pipe ends with ECANCELLED; may be NULL */
    const sill__codec *const *codecs; /* by the extension of PATH the output is compressed; ends with NULL, may be NULL */
} sill__writer_options;

/* Opens an output whose rows are the columns of READER (may be NULL), then FIELDS, then "error". A field
 * whose name is a column already gets "sill_" in front. From JSONL to JSONL the columns are the keys of the
 * first line, so that all lines have the same names; a later line whose own key is one of these names is
 * a row with an error: it keeps its key, ours of that name is left out, and an error is then "sill_error".
 * A file is written as PATH.partial and gets its name in sill__writer_finish; of a symbolic link, the file that it
 * leads to. A compressed output is a regular file; its bytes depend on the rows alone, not on when they came. Errors: EINVAL (exists and not overwrite; is what READER reads; format unknown), EIO, ECANCELLED. */
sill_status sill__writer_open(const sill__writer_options *options, sill__reader *reader,
                              const char *const *fields, size_t n_fields, sill__writer **out,
                              sill_error *err);
/* Appends results of a row (made by sill__record_*); sill__writer_end_row behind its last one. */
sill_status sill__writer_put(sill__writer *writer, const char *bytes, size_t n, sill_error *err);
sill_status sill__writer_end_row(sill__writer *writer, sill_error *err);
/* PATH with its symbolic links followed: the file that is written. NULL where they lead in a circle. Free with sill__free. */
char *sill__writer_target(const char *path);
/* Names of the output's own fields, "error" last: NULL at the end. */
const char *sill__writer_field(const sill__writer *writer, size_t i);
/* Bytes of the output that the system has taken, and their SHA-256 (of a file that gets its name at the end). */
uint64_t sill__writer_bytes(const sill__writer *writer);
void sill__writer_sha256(const sill__writer *writer, char out[65]);
/* How many whole rows the system has taken so far; of a compressed output none before it is finished. */
uint64_t sill__writer_rows(const sill__writer *writer);
/* Hands what was put to the system, so that a reader of a pipe sees it. */
sill_status sill__writer_flush(sill__writer *writer, sill_error *err);
/* Flushes, checks, renames PATH.partial to PATH. */
sill_status sill__writer_finish(sill__writer *writer, sill_error *err);
/* Frees. What was not finished stays as PATH.partial when it holds rows, and is removed when not (or compressed). */
void sill__writer_free(sill__writer *writer);
/* Name of the unfinished file, or NULL when it is standard output or not a regular file. */
const char *sill__writer_partial(const sill__writer *writer);
/* Things said once: renamed fields and such; NULL at the end of the list. */
const char *sill__writer_note(const sill__writer *writer, size_t i);

/* ---- .npy (npy.c): version 1.0, '<f4', C order, (rows, width), in a header of SILL__NPY_HEADER bytes */
#define SILL__NPY_HEADER 128
void sill__npy_header(uint64_t rows, size_t width, char out[SILL__NPY_HEADER]);
/* Appends float32 as they stand in the file; NULL: NaN. */
void sill__npy_put(sill__str *s, const float *values, size_t n);

/* A row of output under construction. Fields are given in the order of FIELDS; those not given when the
 * record ends are empty (null). */
typedef struct sill__record {
    sill__writer *writer;
    const sill__corpus_row *row;
    sill__str out;          /* whole rows; the caller's to use after sill__record_end */
    size_t field;
    uint64_t bad_utf8;      /* bytes replaced by U+FFFD so far */
} sill__record;
void sill__record_init(sill__record *record, sill__writer *writer);
void sill__record_free(sill__record *record);
void sill__record_begin(sill__record *record, const sill__corpus_row *row);
void sill__record_null(sill__record *record);
void sill__record_text(sill__record *record, const char *text, size_t n_bytes);
void sill__record_int(sill__record *record, int64_t value);
void sill__record_uint(sill__record *record, uint64_t value);
void sill__record_f32(sill__record *record, float value);
void sill__record_f64(sill__record *record, double value);
void sill__record_bool(sill__record *record, bool value);      /* true/false; 1/0 in CSV */
void sill__record_json(sill__record *record, const char *json, size_t n_bytes); /* a cell of JSON in CSV */
void sill__record_vector(sill__record *record, const float *values, size_t n); /* NPY */
void sill__record_end(sill__record *record, const char *error); /* NULL: the row succeeded */

/* ---- a store of finished rows, so that a run that was ended can go on: the flow asks it for every row before the task
 * sees it, and gives it every finished row, in the order in which they finish */

typedef struct sill__kept {
    const char *bytes; /* the row's results as they are written */
    size_t n;
    uint32_t n_records; /* lines of results */
    const char *error; /* NULL, or why the row failed */
} sill__kept;
typedef struct sill__store {
    /* *FOUND: the results of this row; what OUT points to is valid until the next call. */
    sill_status (*get)(void *user, const sill__corpus_row *row, const uint8_t digest[32], bool *found, sill__kept *out,
                       sill_error *err);
    sill_status (*put)(void *user, uint64_t number, const uint8_t digest[32], const sill__kept *kept, sill_error *err);
    void *user;
} sill__store;

/* ---- flow: reader -> task -> writer */

typedef struct sill__flow sill__flow;
typedef struct sill__flow_options {
    size_t text_slot;
    bool json_text;              /* a JSON array or object is a text too (lists of ids); else such a row fails */
    bool has_context;
    size_t context_slot;         /* what stands before the text */
    bool has_id;
    size_t id_slot;              /* the row's random-number key; else its number */
    int32_t n_sequences;         /* results a row; 0: 1 */
    size_t window_rows;          /* most rows between the oldest unfinished and the newest; 0: 65,536 */
    size_t window_bytes;         /* most bytes of rows and results held back; 0: 256 MiB */
    const volatile int *stop;    /* non-zero: end as soon as possible */
    void (*tick)(void *user);    /* called after every row; may be NULL */
    bool (*wanted)(void *user, uint64_t number); /* other rows are read and passed over; NULL: all are wanted */
    void *user;
    const sill__store *store;    /* may be NULL */
    bool digest;                 /* the input's digest is wanted (with a store it is made anyway) */
} sill__flow_options;

typedef struct sill__flow_counts {
    uint64_t rows, failed, written;
    uint64_t kept;     /* of these, results that the store had */
    uint64_t read;     /* rows of the input, those passed over among them */
    uint64_t bad_utf8; /* bytes that JSON cannot hold, replaced by U+FFFD */
} sill__flow_counts;

sill_status sill__flow_create(sill__reader *reader, sill__writer *writer, const sill__flow_options *options,
                              sill__flow **out, sill_error *err);
void sill__flow_free(sill__flow *flow);
/* A sill_next_fn whose user is the flow. Rows that cannot be used are answered here. It returns 0 at the end
 * and also when too much is held back behind a slow row: then the task is called again. Where the input breaks off (EIO,
 * EFORMAT) the rows before that are finished first, and sill__flow_status tells. */
int sill__flow_next(void *flow, sill_row *row);
/* True until the input has ended: `do status = sill_score(...); while (status == SILL_OK && flow_more)`. */
bool sill__flow_more(const sill__flow *flow);
/* The record of one result of row INDEX: NULL when that row is not open (already answered). Fill it, then
 * sill__flow_commit. Results of one row may come in any order. */
sill__record *sill__flow_begin(sill__flow *flow, uint64_t index, int32_t sequence);
/* Non-zero when the run must end (stop, or the output failed: see sill__flow_status). */
int sill__flow_commit(sill__flow *flow);
/* Answers row INDEX wholly with an error. */
int sill__flow_fail(sill__flow *flow, uint64_t index, const char *message);
/* Answers one of its results with an error; the row's other results go on. The row counts as failed. */
int sill__flow_fail_sequence(sill__flow *flow, uint64_t index, int32_t sequence, const char *message);
/* First failure of the reader or the writer. */
sill_status sill__flow_status(const sill__flow *flow, sill_error *err);
sill__flow_counts sill__flow_get_counts(const sill__flow *flow);
/* SHA-256 over the digests of all rows read so far, in order. */
void sill__flow_input_sha256(const sill__flow *flow, char out[65]);
/* Rows whose number of results is not n_sequences (one that failed wholly has one): pairs of row and results. */
const uint64_t *sill__flow_uneven(const sill__flow *flow, size_t *n_pairs);
/* Rows that failed, in order. */
const uint64_t *sill__flow_failed(const sill__flow *flow, size_t *n);
/* The first failed rows as "row N (line L): message"; NULL at the end. */
const char *sill__flow_failure(const sill__flow *flow, size_t i);

#endif
