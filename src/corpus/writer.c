/*
 * writer.c - result rows as CSV, TSV or JSON Lines, and the output file: written under PATH.partial and
 * renamed when it is whole, so that PATH never holds half a result.
 *  - CSV and TSV: one header line; the input's columns, the new fields, "error"; a value is quoted only where
 *    it must be; lines end with LF.
 *  - JSONL from JSONL: the line's own bytes, then the new fields, whose names are settled by the keys of the first
 *    line. From other inputs: an object of strings; of a header's names that are the same, all but the first get a number.
 *  - CSV from JSONL: the columns are the keys of the first line, then those that were selected and are not among
 *    them; texts as they are, other values as JSON.
 *  - NPY: nothing but vectors; the header gets the number of rows at the end.
 *  - When the system takes no more (a full disk), PATH.partial is cut back to its last whole row.
 *  - A compressed file is packed in blocks of one size, whenever their bytes came, so that the same rows give the same file.
 *    Half of one is worth nothing: what is not finished is removed, and the rows are in the store.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "corpus/reader.h"

#define BUFFER ((size_t)256 << 10)
#define BLOCK ((size_t)128 << 10) /* that is packed at once */
#define MAX_RECORD ((size_t)1 << 30)

struct sill__writer {
    sill__format format;
    char delimiter;
    size_t vector;           /* NPY */
    int fd;
    bool own_fd, renames, finished;
    sill__sha256 sha;        /* of what the system has taken, where it renames */
    char *path, *partial;
    const volatile int *stop;
    sill__str buffer;
    const sill__codec *codec; /* NULL: not compressed */
    void *packer;
    sill__str packed;
    uint64_t put, written;   /* bytes of the output: put so far, and taken by the system */
    uint64_t *ends;          /* where rows end that are not wholly written */
    size_t n_ends, ends_cap;
    uint64_t rows_put;       /* rows of a compressed output, which count when it is finished */
    uint64_t rows, rows_end; /* whole rows written, and where the last of them (or the header) ends */
    sill_status broken;      /* writing failed: nothing more is written */
    bool from_jsonl;
    char **columns;          /* of the input, in order */
    size_t *slots;           /* their cells in a row */
    size_t n_columns;
    const char *const *taken; /* JSONL from JSONL: keys of the first line (the reader's) */
    size_t n_taken;
    char **fields;           /* new fields as named in the output; "error" last */
    size_t n_fields;
    char **notes;
    size_t n_notes;
    bool noted_extra;
};

const char *sill__writer_note(const sill__writer *w, size_t i) { return i < w->n_notes ? w->notes[i] : NULL; }
const char *sill__writer_partial(const sill__writer *w) { return w->renames ? w->partial : NULL; }
uint64_t sill__writer_rows(const sill__writer *w) { return w->rows; }
const char *sill__writer_field(const sill__writer *w, size_t i) { return i < w->n_fields ? w->fields[i] : NULL; }
uint64_t sill__writer_bytes(const sill__writer *w) { return w->written; }
void sill__writer_sha256(const sill__writer *w, char out[65]) {
    sill__sha256 copy = w->sha;
    uint8_t digest[32];
    sill__sha256_final(&copy, digest);
    sill__sha256_hex(digest, out);
}

static bool is_column(const sill__writer *w, const char *name) {
    for (size_t i = 0; i < w->n_columns; i++)
        if (!strcmp(w->columns[i], name)) return true;
    for (size_t i = 0; i < w->n_taken; i++)
        if (!strcmp(w->taken[i], name)) return true;
    for (size_t i = 0; i < w->n_fields; i++)
        if (!strcmp(w->fields[i], name)) return true;
    return false;
}

static void note_rename(sill__writer *w, const char *name, const char *renamed) {
    sill__str s;
    sill__str_init(&s, 1024);
    if (sill__str_putf(&s, "there is a column '%s' already; the new one is '%s'", name, renamed))
        (void)sill__reader_add_name(&w->notes, &w->n_notes, s.p, s.n);
    sill__str_free(&s);
}

static void note_extra(sill__writer *w, uint64_t number) {
    sill__str s;
    sill__str_init(&s, 1024);
    if (sill__str_putf(&s, "row %llu has fields that the first row has not; %s leaves them out (write .jsonl to keep all)",
                       (unsigned long long)number, sill__format_name(w->format)))
        (void)sill__reader_add_name(&w->notes, &w->n_notes, s.p, s.n);
    sill__str_free(&s);
}

/* Adds a field, with "sill_" in front as often as it takes to differ from the columns before it. */
static bool add_field(sill__writer *w, const char *name) {
    sill__str s;
    sill__str_init(&s, 65536);
    sill__str_puts(&s, name);
    while (!s.failed && is_column(w, s.p)) {
        char *old = sill__strndup(s.p, s.n);
        sill__str_clear(&s);
        if (!old || !sill__str_putf(&s, "sill_%s", old)) s.failed = true;
        sill__free(old);
    }
    bool ok = !s.failed && sill__reader_add_name(&w->fields, &w->n_fields, s.p, s.n);
    if (ok && strcmp(s.p, name)) note_rename(w, name, s.p);
    sill__str_free(&s);
    return ok;
}

/* ---- the file */

/* Counts the rows that are wholly written. */
static void settle_rows(sill__writer *w) {
    size_t n = 0;
    while (n < w->n_ends && w->ends[n] <= w->written) n++;
    if (!n) return;
    w->rows += n;
    w->rows_end = w->ends[n - 1];
    memmove(w->ends, w->ends + n, (w->n_ends - n) * sizeof *w->ends);
    w->n_ends -= n;
}

static sill_status write_bytes(sill__writer *w, const char *p, size_t n, sill_error *err) {
    size_t done;
    const int why = sill__write_all(w->fd, p, n, &done);
    if (w->renames) sill__sha256_update(&w->sha, p, done);
    w->written += done;
    settle_rows(w);
    if (!why) return SILL_OK;
    w->broken = SILL_EIO;
    if (w->renames && ftruncate(w->fd, (off_t)w->rows_end) != 0) {} /* a torn row stays then: it is not counted */
    return sill__fail(err, SILL_EIO, "%s: %s", w->path, strerror(why));
}

/* Whole blocks, and what is left when LAST. */
static sill_status pack_bytes(sill__writer *w, bool last, sill_error *err) {
    size_t n = w->buffer.n, at = 0;
    bool ok = true;
    sill__str_clear(&w->packed);
    for (; ok && n - at >= BLOCK; at += BLOCK) ok = w->codec->pack(w->packer, w->buffer.p + at, BLOCK, false, &w->packed);
    if (ok && last) {
        ok = w->codec->pack(w->packer, n > at ? w->buffer.p + at : "", n - at, true, &w->packed);
        at = n;
    }
    if (!ok) return sill__fail(err, w->broken = SILL_ENOMEM, "%s: no memory to pack it", w->path);
    if (at && at < n) memmove(w->buffer.p, w->buffer.p + at, n - at);
    w->buffer.n = n - at;
    return w->packed.n ? write_bytes(w, w->packed.p, w->packed.n, err) : SILL_OK;
}

static sill_status flush_bytes(sill__writer *w, bool last, sill_error *err) {
    if (w->broken) return sill__fail(err, w->broken, "%s: an earlier write failed", w->path);
    if (w->codec) return pack_bytes(w, last, err);
    sill_status s = write_bytes(w, w->buffer.p, w->buffer.n, err);
    sill__str_clear(&w->buffer);
    return s;
}

/* The file that PATH, a symbolic link, leads to, there or not: it is what gets written, not the link. */
char *sill__writer_target(const char *path) {
    char to[PATH_MAX], at[PATH_MAX];
    size_t n = strlen(path);
    if (n >= sizeof at) return NULL;
    memcpy(at, path, n + 1);
    for (int depth = 0; depth < 40; depth++) {
        ssize_t k = readlink(at, to, sizeof to - 1);
        if (k < 0) return sill__strndup(at, strlen(at));
        to[k] = 0;
        char *slash = strrchr(at, '/');
        size_t dir = to[0] == '/' || !slash ? 0 : (size_t)(slash - at) + 1;
        if (dir + (size_t)k >= sizeof at) return NULL;
        memcpy(at + dir, to, (size_t)k + 1);
    }
    return NULL;
}

/* PATH.partial as w->partial, and PATH with its links followed as w->path. */
static sill_status name_files(sill__writer *w, const char *path, sill_error *err) {
    sill__str name;
    char *target = sill__writer_target(path);
    if (!target) return sill__fail(err, SILL_EIO, "%s: its name is too long, or its links lead in a circle", path);
    sill__free(w->path);
    w->path = target;
    sill__str_init(&name, 65536);
    sill__str_putf(&name, "%s.partial", target);
    w->partial = name.failed ? NULL : sill__strndup(name.p, name.n);
    sill__str_free(&name);
    return w->partial ? SILL_OK : sill__fail(err, SILL_ENOMEM, "no memory for a writer");
}

/* Opening a pipe waits for its other end, and a signal ends that. */
static sill_status open_pipe(sill__writer *w, const char *path, sill_error *err) {
    do {
        if (w->stop && *w->stop) return sill__fail(err, SILL_ECANCELLED, "%s: interrupted while opening it", path);
        w->fd = open(path, O_WRONLY | O_CLOEXEC);
    } while (w->fd < 0 && errno == EINTR);
    return w->fd < 0 ? sill__fail(err, SILL_EIO, "%s: %s", path, strerror(errno)) : SILL_OK;
}

static sill_status open_file(sill__writer *w, const sill__reader *reader, const sill__writer_options *o, sill_error *err) {
    const char *path = o->path;
    bool overwrite = o->overwrite || o->resumed;
    struct stat st;
    bool exists = stat(path, &st) == 0;
    if (exists && S_ISDIR(st.st_mode)) return sill__fail(err, SILL_EINVAL, "%s is a directory", path);
    w->own_fd = true;
    if (exists && !S_ISREG(st.st_mode) && w->codec)
        return sill__fail(err, SILL_EINVAL, "%s is a pipe or a device; what is compressed goes into a file (or: sill ... | %s)", path, w->codec->name);
    if (exists && !S_ISREG(st.st_mode)) return open_pipe(w, path, err); /* or a device: nothing to rename */
    if (exists && !overwrite)
        return sill__fail(err, SILL_EINVAL, "%s exists; give --overwrite to replace it", path);
    sill_status s = name_files(w, path, err);
    if (s != SILL_OK) return s;
    if (reader && (sill__reader_is_file(reader, w->path) || sill__reader_is_file(reader, w->partial)))
        return sill__fail(err, SILL_EINVAL, "the output %s is the input, or %s is; give it another name", w->path, w->partial);
    if (!overwrite && stat(w->partial, &st) == 0 && st.st_size > 0)
        return sill__fail(err, SILL_EINVAL, "%s is left from an unfinished run (or one that is running); move it "
                          "away, or give --overwrite to start again", w->partial);
    w->fd = open(w->partial, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0666);
    if (w->fd < 0 && errno == ELOOP)
        return sill__fail(err, SILL_EINVAL, "%s is a symbolic link, and what it leads to would be written over; remove it", w->partial);
    if (w->fd < 0) return sill__fail(err, SILL_EIO, "%s: %s", w->partial, strerror(errno));
    if (flock(w->fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) /* some file systems have no locks */
        return sill__fail(err, SILL_EINVAL, "%s is being written by another run", w->partial);
    w->renames = true;
    if (ftruncate(w->fd, 0) != 0) return sill__fail(err, SILL_EIO, "%s: %s", w->partial, strerror(errno));
    return SILL_OK;
}

static sill_status write_header(sill__writer *w, sill_error *err) {
    if (w->format == SILL__FORMAT_JSONL) return SILL_OK;
    if (w->format == SILL__FORMAT_NPY) {
        char head[SILL__NPY_HEADER];
        sill__npy_header(0, w->vector, head);
        w->put = w->rows_end = sizeof head;
        return sill__str_put(&w->buffer, head, sizeof head) ? SILL_OK : sill__fail(err, SILL_ENOMEM, "no memory for the header");
    }
    for (size_t i = 0; i < w->n_columns + w->n_fields; i++) {
        const char *name = i < w->n_columns ? w->columns[i] : w->fields[i - w->n_columns];
        if (i) sill__str_put(&w->buffer, &w->delimiter, 1);
        sill__put_csv_value(&w->buffer, name, strlen(name), w->delimiter);
    }
    sill__str_put(&w->buffer, "\n", 1);
    w->put = w->buffer.n;
    return w->buffer.failed ? sill__fail(err, SILL_ENOMEM, "no memory for the header") : SILL_OK;
}

/* A column of the input as it is named in the output. JSON's readers keep one of two fields of the same name. */
static bool add_column(sill__writer *w, const char *name) {
    sill__str s;
    if (w->format != SILL__FORMAT_JSONL || !is_column(w, name)) return sill__reader_add_name(&w->columns, &w->n_columns, name, strlen(name)) != NULL;
    sill__str_init(&s, 65536);
    for (unsigned i = 2; !s.failed && (!s.n || is_column(w, s.p)); i++) {
        sill__str_clear(&s);
        sill__str_putf(&s, "%s_%u", name, i);
    }
    bool ok = !s.failed && sill__reader_add_name(&w->columns, &w->n_columns, s.p, s.n);
    if (ok) note_rename(w, name, s.p);
    sill__str_free(&s);
    return ok;
}

static sill_status take_column(sill__writer *w, sill__reader *reader, const char *name, size_t slot, sill_error *err) {
    w->slots[w->n_columns] = slot;
    if (!add_column(w, name)) return sill__fail(err, SILL_ENOMEM, "no memory for the columns");
    return w->from_jsonl ? sill__reader_select(reader, name, &w->slots[w->n_columns - 1], err) : SILL_OK;
}

static sill_status take_columns(sill__writer *w, sill__reader *reader, sill_error *err) {
    const char *const *names;
    size_t n, n_selected = reader->n_selected;
    sill_status s;
    w->from_jsonl = sill__reader_format(reader) == SILL__FORMAT_JSONL;
    s = sill__reader_columns(reader, &names, &n, err);
    if (s != SILL_OK) return s;
    if (w->from_jsonl && w->format == SILL__FORMAT_JSONL) { /* raw lines */
        w->taken = names;
        w->n_taken = n;
        return SILL_OK;
    }
    w->slots = sill__calloc(n + n_selected + 1, sizeof *w->slots);
    if (!w->slots) return sill__fail(err, SILL_ENOMEM, "no memory for %zu columns", n);
    for (size_t i = 0; i < n; i++)
        if ((s = take_column(w, reader, names[i], i, err)) != SILL_OK) return s;
    for (size_t i = 0; i < n_selected; i++) /* an option names it: it is a column, whatever the first row has */
        if (!is_column(w, reader->selected[i]) && (s = take_column(w, reader, reader->selected[i], i, err)) != SILL_OK) return s;
    return SILL_OK;
}

static sill_status choose_codec(sill__writer *w, const sill__writer_options *o, sill_error *err) {
    size_t n = strlen(o->path);
    w->codec = sill__codec_of_path(o->codecs, o->path);
    if (!w->codec && ((n > 3 && !strcasecmp(o->path + n - 3, ".gz")) || (n > 4 && !strcasecmp(o->path + n - 4, ".zst"))))
        return sill__fail(err, SILL_EUNSUPPORTED, "%s: nothing here packs it; give it a name without %s", o->path, strrchr(o->path, '.'));
    if (w->codec && !(w->packer = w->codec->pack_begin())) return sill__fail(err, SILL_ENOMEM, "no memory for a writer");
    return SILL_OK;
}

sill_status sill__writer_open(const sill__writer_options *o, sill__reader *reader, const char *const *fields,
                              size_t n_fields, sill__writer **out, sill_error *err) {
    bool to_stdout = !o->path || !strcmp(o->path, "-");
    sill__format format = o->format ? o->format : to_stdout ? SILL__FORMAT_AUTO : sill__format_of_path(o->path);
    *out = NULL;
    if (format == SILL__FORMAT_AUTO || format == SILL__FORMAT_TXT || format == SILL__FORMAT_FILE)
        return sill__fail(err, SILL_EINVAL, "cannot write results as '%s'; the output is .csv, .tsv or .jsonl",
                          to_stdout ? sill__format_name(format) : o->path);
    sill__writer *w = sill__calloc(1, sizeof *w);
    if (!w) return sill__fail(err, SILL_ENOMEM, "no memory for a writer");
    sill_status s = SILL_OK;
    w->fd = to_stdout ? STDOUT_FILENO : -1;
    w->stop = o->stop;
    w->format = format;
    w->vector = o->vector;
    w->delimiter = format == SILL__FORMAT_TSV ? '\t' : o->delimiter ? o->delimiter : ',';
    sill__str_init(&w->buffer, MAX_RECORD);
    sill__str_init(&w->packed, 2 * MAX_RECORD);
    w->path = to_stdout ? sill__strndup("standard output", 15) : sill__strndup(o->path, strlen(o->path));
    if (!w->path) s = sill__fail(err, SILL_ENOMEM, "no memory for a writer");
    sill__sha256_init(&w->sha);
    if (s == SILL_OK && !to_stdout) s = choose_codec(w, o, err);
    if (s == SILL_OK && reader && !o->raw) s = take_columns(w, reader, err);
    for (size_t i = 0; s == SILL_OK && !o->raw && i <= n_fields; i++)
        if (!add_field(w, i < n_fields ? fields[i] : "error"))
            s = sill__fail(err, SILL_ENOMEM, "no memory for %zu fields", n_fields);
    if (s == SILL_OK && !to_stdout) s = open_file(w, reader, o, err);
    if (s == SILL_OK && format == SILL__FORMAT_NPY && (!w->renames || w->codec))
        s = sill__fail(err, SILL_EINVAL, "%s: a .npy file's header says how many rows there are, so it needs a regular file that is not compressed (-o OUT.npy)", w->path);
    if (s == SILL_OK && (!o->raw || format == SILL__FORMAT_NPY)) s = write_header(w, err);
    if (s != SILL_OK) {
        sill__writer_free(w);
        return s;
    }
    if (reader && w->from_jsonl && format == SILL__FORMAT_JSONL)
        sill__reader_watch(reader, (const char *const *)w->fields, w->n_fields);
    *out = w;
    return SILL_OK;
}

sill_status sill__writer_put(sill__writer *w, const char *bytes, size_t n, sill_error *err) {
    if (!sill__str_put(&w->buffer, bytes, n)) return sill__fail(err, SILL_ENOMEM, "no memory for a row of %zu bytes", n);
    w->put += n;
    return w->buffer.n >= BUFFER ? flush_bytes(w, false, err) : SILL_OK;
}

sill_status sill__writer_end_row(sill__writer *w, sill_error *err) {
    if (w->codec) {
        w->rows_put++;
        return SILL_OK;
    }
    if (w->n_ends == w->ends_cap) {
        size_t cap = SILL_MAX((size_t)256, w->ends_cap * 2);
        uint64_t *p = sill__realloc(w->ends, cap * sizeof *p);
        if (!p) return sill__fail(err, SILL_ENOMEM, "no memory for a row");
        w->ends = p;
        w->ends_cap = cap;
    }
    w->ends[w->n_ends++] = w->put;
    settle_rows(w);
    return SILL_OK;
}

sill_status sill__writer_flush(sill__writer *w, sill_error *err) { return flush_bytes(w, false, err); }

/* The header with the number of rows, and the SHA-256 of the file that this makes. */
static sill_status settle_npy(sill__writer *w, sill_error *err) {
    char head[SILL__NPY_HEADER], piece[65536];
    sill__npy_header(w->rows, w->vector, head);
    int why = sill__pwrite_all(w->fd, head, sizeof head, 0);
    sill__sha256_init(&w->sha);
    for (uint64_t at = 0; !why && at < w->written; at += sizeof piece) {
        const size_t n = (size_t)SILL_MIN(sizeof piece, w->written - at);
        why = sill__pread_all(w->fd, piece, n, at);
        if (!why) sill__sha256_update(&w->sha, piece, n);
    }
    return why ? sill__fail(err, SILL_EIO, "%s: %s", w->partial, strerror(why)) : SILL_OK;
}

sill_status sill__writer_finish(sill__writer *w, sill_error *err) {
    sill_status s = flush_bytes(w, true, err);
    if (s == SILL_OK && w->format == SILL__FORMAT_NPY) s = settle_npy(w, err);
    if (s != SILL_OK) return s;
    w->rows += w->rows_put;
    if (w->renames) {
        if (fsync(w->fd) != 0 && errno != EINVAL && errno != ENOTSUP)
            return sill__fail(err, SILL_EIO, "%s: %s", w->partial, strerror(errno));
        if (rename(w->partial, w->path) != 0)
            return sill__fail(err, SILL_EIO, "cannot rename %s to %s: %s", w->partial, w->path, strerror(errno));
    }
    w->finished = true;
    return SILL_OK;
}

static void free_names(char **names, size_t n) {
    for (size_t i = 0; i < n; i++) sill__free(names[i]);
    sill__free(names);
}

void sill__writer_free(sill__writer *w) {
    if (!w) return;
    if (!w->finished && !w->broken && w->fd >= 0 && (w->rows || w->n_ends)) (void)flush_bytes(w, false, NULL);
    if (!w->finished && w->renames && !w->rows) unlink(w->partial);
    if (w->own_fd && w->fd >= 0) close(w->fd);
    if (w->packer) w->codec->pack_end(w->packer);
    sill__str_free(&w->packed);
    free_names(w->columns, w->n_columns);
    free_names(w->fields, w->n_fields);
    free_names(w->notes, w->n_notes);
    sill__str_free(&w->buffer);
    sill__free(w->slots);
    sill__free(w->ends);
    sill__free(w->partial);
    sill__free(w->path);
    sill__free(w);
}

/* ---- records */

void sill__record_init(sill__record *r, sill__writer *writer) {
    memset(r, 0, sizeof *r);
    r->writer = writer;
    sill__str_init(&r->out, MAX_RECORD);
}

void sill__record_free(sill__record *r) { sill__str_free(&r->out); }

static void put_cell(sill__record *r, const sill__cell *cell) {
    if (r->writer->format != SILL__FORMAT_JSONL) {
        sill__put_csv_value(&r->out, cell->p, cell->kind == SILL__CELL_MISSING ? 0 : cell->n, r->writer->delimiter);
    } else if (cell->kind == SILL__CELL_MISSING) {
        sill__str_puts(&r->out, "null");
    } else {
        r->bad_utf8 += sill__put_json_string(&r->out, cell->p, cell->n);
    }
}

/* A row of a CSV with one empty value would be a blank line: it is written as "". Fields follow always, so
 * this cannot happen here. */
void sill__record_begin(sill__record *r, const sill__corpus_row *row) {
    sill__writer *w = r->writer;
    static const sill__cell missing;
    r->row = row;
    r->field = 0;
    if (w->format == SILL__FORMAT_NPY) return;
    if (w->from_jsonl && w->format != SILL__FORMAT_JSONL && row && row->n_extra && !w->noted_extra) {
        w->noted_extra = true;
        note_extra(w, row->number);
    }
    if (w->format != SILL__FORMAT_JSONL) {
        for (size_t i = 0; i < w->n_columns; i++) {
            if (i) sill__str_put(&r->out, &w->delimiter, 1);
            put_cell(r, row && w->slots[i] < row->n_cells ? &row->cells[w->slots[i]] : &missing);
        }
        return;
    }
    sill__str_put(&r->out, "{", 1);
    if (w->from_jsonl && w->n_columns == 0) {
        size_t from = 0, n = row ? row->n_raw : 0;
        while (n && row->raw[--n] != '}') {}
        while (n > 1 && memchr(" \t\r\n", row->raw[n - 1], 4)) n--;
        if (n) from = 1;
        if (n > from) sill__str_put(&r->out, row->raw + from, n - from);
        return;
    }
    for (size_t i = 0; i < w->n_columns; i++) {
        if (i) sill__str_put(&r->out, ",", 1);
        r->bad_utf8 += sill__put_json_string(&r->out, w->columns[i], strlen(w->columns[i]));
        sill__str_put(&r->out, ":", 1);
        put_cell(r, row && w->slots[i] < row->n_cells ? &row->cells[w->slots[i]] : &missing);
    }
}

static bool clashes(const sill__record *r, size_t field) {
    const sill__writer *w = r->writer;
    return w->from_jsonl && w->format == SILL__FORMAT_JSONL && r->row && field < 64 && r->row->clashes >> field & 1;
}

/* The field's name in this row of JSONL. Where the row's own key has taken the name of the error, the error gets
 * another, so that it is not lost. */
static void put_name(sill__record *r, size_t field) {
    sill__writer *w = r->writer;
    sill__str name, next;
    if (!clashes(r, field)) {
        sill__put_json_string(&r->out, w->fields[field], strlen(w->fields[field]));
        return;
    }
    sill__str_init(&name, 65536);
    sill__str_init(&next, 65536);
    sill__str_puts(&name, w->fields[field]);
    while (!name.failed && sill__json_has_key(r->row->raw, r->row->n_raw, name.p)) {
        sill__str_clear(&next);
        if (!sill__str_putf(&next, "sill_%s", name.p)) name.failed = true;
        sill__str_clear(&name);
        sill__str_put(&name, next.p, next.n);
    }
    if (name.failed) r->out.failed = true;
    else sill__put_json_string(&r->out, name.p, name.n);
    sill__str_free(&name);
    sill__str_free(&next);
}

/* Opens the next field: delimiter and name. False when all are given already, or when the row keeps a key of its own
 * by that name (never the error, which comes last). */
static bool next_field(sill__record *r) {
    const sill__writer *w = r->writer;
    if (r->field >= w->n_fields || w->format == SILL__FORMAT_NPY) return false;
    if (r->field + 1 < w->n_fields && clashes(r, r->field)) {
        r->field++;
        return false;
    }
    if (w->format == SILL__FORMAT_JSONL) {
        if (r->out.n && r->out.p[r->out.n - 1] != '{') sill__str_put(&r->out, ",", 1);
        put_name(r, r->field);
        sill__str_put(&r->out, ":", 1);
    } else if (w->n_columns || r->field) {
        sill__str_put(&r->out, &w->delimiter, 1);
    }
    r->field++;
    return true;
}

static bool is_json(const sill__record *r) { return r->writer->format == SILL__FORMAT_JSONL; }

void sill__record_null(sill__record *r) {
    if (next_field(r) && is_json(r)) sill__str_puts(&r->out, "null");
}

void sill__record_text(sill__record *r, const char *text, size_t n_bytes) {
    if (!next_field(r)) return;
    if (is_json(r)) r->bad_utf8 += sill__put_json_string(&r->out, text, n_bytes);
    else sill__put_csv_value(&r->out, text, n_bytes, r->writer->delimiter);
}

void sill__record_int(sill__record *r, int64_t value) {
    if (next_field(r)) sill__str_putf(&r->out, "%lld", (long long)value);
}

void sill__record_uint(sill__record *r, uint64_t value) {
    if (next_field(r)) sill__str_putf(&r->out, "%llu", (unsigned long long)value);
}

static void put_number(sill__record *r, const char *text) {
    if (!text[0]) text = is_json(r) ? "null" : "";
    sill__str_puts(&r->out, text);
}

void sill__record_f32(sill__record *r, float value) {
    char text[32];
    sill__f32_text(value, text);
    if (next_field(r)) put_number(r, text);
}

void sill__record_f64(sill__record *r, double value) {
    char text[32];
    sill__f64_text(value, text);
    if (next_field(r)) put_number(r, text);
}

void sill__record_bool(sill__record *r, bool value) {
    if (next_field(r)) sill__str_puts(&r->out, is_json(r) ? (value ? "true" : "false") : (value ? "1" : "0"));
}

void sill__record_json(sill__record *r, const char *json, size_t n_bytes) {
    if (!next_field(r)) return;
    if (is_json(r)) sill__str_put(&r->out, json, n_bytes);
    else sill__put_csv_value(&r->out, json, n_bytes, r->writer->delimiter);
}

void sill__record_vector(sill__record *r, const float *values, size_t n) {
    if (r->writer->format == SILL__FORMAT_NPY && n == r->writer->vector) sill__npy_put(&r->out, values, n);
}

void sill__record_end(sill__record *r, const char *error) {
    if (r->writer->format == SILL__FORMAT_NPY) {
        if (error || !r->out.n) sill__str_clear(&r->out), sill__npy_put(&r->out, NULL, r->writer->vector);
        return;
    }
    while (r->field + 1 < r->writer->n_fields) sill__record_null(r);
    if (error) sill__record_text(r, error, strlen(error));
    else sill__record_null(r);
    sill__str_puts(&r->out, is_json(r) ? "}\n" : "\n");
}
