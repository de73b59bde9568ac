/* reader.c - opening an input, its sliding window, columns, and the making of rows. */
#include "corpus/reader.h"

#include <stdio.h>
#include <sys/stat.h>

#define DEFAULT_MAX_ROW ((size_t)16 << 20)
#define FIRST_WINDOW ((size_t)64 << 10)
#define MAX_COLUMNS 65536

sill_status sill__reader_fill(sill__reader *r, bool *more, sill_error *err) {
    *more = false;
    if (r->eof) return SILL_OK;
    if (r->end == r->cap) {
        size_t have = r->end - r->start;
        bool enough = have > r->max_row + 1; /* a row of the greatest size and its line end */
        if (r->start >= r->cap / 2 || (r->start > 0 && enough)) {
            memmove(r->buf, r->buf + r->start, have);
            r->start = 0;
            r->end = have;
        } else {
            if (enough) return SILL_OK;
            size_t cap = r->cap * 2;
            char *p = sill__realloc(r->buf, cap);
            if (!p) return sill__fail(err, SILL_ENOMEM, "%s: no memory for a row of %zu bytes", r->name, cap);
            r->buf = p;
            r->cap = cap;
        }
    }
    size_t n = 0;
    sill_status s = sill__source_read(r, r->buf + r->end, SILL_MIN(r->cap - r->end, SILL_IO_MAX), &n, err);
    if (s != SILL_OK) return s;
    r->eof = n == 0;
    r->end += n;
    *more = n > 0;
    return SILL_OK;
}

void sill__reader_consume(sill__reader *r, size_t n) {
    const char *p = r->buf + r->start, *end = p + n;
    while (p < end && (p = memchr(p, '\n', (size_t)(end - p)))) {
        r->line++;
        p++;
    }
    r->start += n;
    if (!r->source.codec && !r->dir) r->stats.bytes_done += n;
}

sill_status sill__reader_decode(sill__reader *r, const char **p, size_t *n, const char **error, sill_error *err) {
    size_t bad;
    const char *from = *p;
    if (!sill__decode(r->encoding, from, *n, &r->decoded, p, n, &bad))
        return sill__fail(err, SILL_ENOMEM, "%s: no memory for a row of %zu bytes", r->name, *n);
    *error = NULL;
    if (bad == SIZE_MAX) return SILL_OK;
    bool utf8 = r->encoding == SILL__ENCODING_UTF8;
    snprintf(r->why, sizeof r->why, "byte %zu of the row (0x%02x) is no character of %s%s", bad + 1, (unsigned)(unsigned char)from[bad],
             sill__encoding_name(r->encoding), utf8 ? "; is the file in another encoding (--encoding latin-1 or windows-1252)?" : "");
    *error = r->why;
    return SILL_OK;
}

sill_status sill__reader_skip_line(sill__reader *r, sill_error *err) {
    for (bool more = true; more;) {
        size_t have = r->end - r->start;
        char *nl = have ? memchr(r->buf + r->start, '\n', have) : NULL;
        if (nl) {
            sill__reader_consume(r, (size_t)(nl - (r->buf + r->start)) + 1);
            return SILL_OK;
        }
        sill__reader_consume(r, have);
        sill_status s = sill__reader_fill(r, &more, err);
        if (s != SILL_OK) return s;
    }
    return SILL_OK;
}

bool sill__reader_want_cells(sill__reader *r, size_t n) {
    if (n <= r->cells_cap) return true;
    size_t cap = SILL_MAX(n, r->cells_cap * 2), bytes;
    if (!sill__mul(cap, sizeof *r->cells, &bytes)) return false;
    sill__cell *p = sill__realloc(r->cells, bytes);
    if (!p) return false;
    r->cells = p;
    r->cells_cap = cap;
    return true;
}

sill_status sill__reader_make_row(sill__reader *r, size_t n_cells, const char *raw, size_t n_raw,
                                  const char *error, sill__corpus_row **row, sill_error *err) {
    size_t n_error = error ? strlen(error) + 1 : 0;
    size_t cells_bytes = n_cells * sizeof(sill__cell), bytes = sizeof(sill__corpus_row) + 1;
    if (!sill__add(bytes, cells_bytes, &bytes) || !sill__add(bytes, r->scratch.n, &bytes) ||
        !sill__add(bytes, n_raw, &bytes) || !sill__add(bytes, n_error, &bytes) || r->scratch.failed)
        return sill__fail(err, SILL_ENOMEM, "%s: no memory for row %llu", r->name,
                          (unsigned long long)r->stats.rows + 1);
    sill__corpus_row *out = sill__calloc(1, bytes);
    if (!out) return sill__fail(err, SILL_ENOMEM, "%s: no memory for a row of %zu bytes", r->name, bytes);
    char *p = (char *)(out + 1);
    out->bytes = bytes;
    out->number = ++r->stats.rows;
    out->line = r->line;
    out->cells = (sill__cell *)p;
    out->n_cells = n_cells;
    p += cells_bytes;
    if (r->scratch.n) memcpy(p, r->scratch.p, r->scratch.n);
    for (size_t i = 0; i < n_cells; i++) {
        out->cells[i] = r->cells[i];
        out->cells[i].p = r->cells[i].kind == SILL__CELL_MISSING ? NULL : p + (size_t)r->cells[i].p;
    }
    p += r->scratch.n;
    if (raw) {
        if (n_raw) memcpy(p, raw, n_raw);
        out->raw = p;
        out->n_raw = n_raw;
        p += n_raw;
    }
    if (error) {
        memcpy(p, error, n_error);
        out->error = p;
    }
    *row = out;
    return SILL_OK;
}

void sill__row_free(sill__corpus_row *row) { sill__free(row); }

void sill__row_digest(const sill__corpus_row *row, uint8_t out[32]) {
    sill__sha256 s;
    sill__sha256_init(&s);
    if (row->raw) {
        sill__sha256_update(&s, row->raw, row->n_raw);
    } else {
        for (size_t i = 0; i < row->n_cells; i++) {
            uint64_t head = (uint64_t)row->cells[i].n << 2 | (uint64_t)row->cells[i].kind;
            sill__sha256_update(&s, &head, sizeof head);
            if (row->cells[i].n) sill__sha256_update(&s, row->cells[i].p, row->cells[i].n);
        }
    }
    if (row->error) sill__sha256_update(&s, row->error, strlen(row->error) + 1);
    sill__sha256_final(&s, out);
}

char **sill__reader_add_name(char ***names, size_t *n, const char *name, size_t n_bytes) {
    size_t bytes;
    if (!sill__mul(*n + 1, sizeof(char *), &bytes)) return NULL;
    char **p = sill__realloc(*names, bytes);
    if (!p) return NULL;
    *names = p;
    p[*n] = sill__strndup(name, n_bytes);
    if (!p[*n]) return NULL;
    (*n)++;
    return p;
}

/* ---- open and close */

/* Column names that are known when the source is open. */
static sill_status first_columns(sill__reader *r, const sill__reader_options *o, sill_error *err) {
    sill_status s = SILL_OK;
    const char *name = o->txt_column ? o->txt_column : "text";
    if (r->format == SILL__FORMAT_CSV || r->format == SILL__FORMAT_TSV) {
        s = sill__csv_header(r, r->format == SILL__FORMAT_CSV && !o->delimiter, err);
        r->have_columns = true;
        if (s == SILL_OK && r->n_columns > MAX_COLUMNS)
            s = sill__fail(err, SILL_ERANGE, "%s: the header has %zu columns, at most %d are read", r->name,
                           r->n_columns, MAX_COLUMNS);
    }
    if (r->format == SILL__FORMAT_TXT || r->format == SILL__FORMAT_FILE) {
        if ((r->format == SILL__FORMAT_FILE && !sill__reader_add_name(&r->columns, &r->n_columns, "file", 4)) ||
            !sill__reader_add_name(&r->columns, &r->n_columns, name, strlen(name)))
            s = sill__fail(err, SILL_ENOMEM, "no memory for a reader");
        r->have_columns = true;
    }
    return s;
}

/* A file, or a directory, whose files are opened one by one. */
static sill_status open_path(sill__reader *r, const char *path, const sill__reader_options *o, sill_error *err) {
    bool is_dir = false;
    sill_status s = SILL_OK;
    if (r->format == SILL__FORMAT_AUTO && !sill__is_dir(path)) {
        s = sill__source_refuse_name(path, o->codecs, err);
        return s != SILL_OK ? s : sill__fail(err, SILL_EINVAL, "cannot tell the format of '%s' from its name; give --format csv, tsv, "
                                             "jsonl, txt or file", path);
    }
    s = sill__source_open(r, path, &is_dir, err);
    if (s != SILL_OK) return s;
    if (is_dir && o->format != SILL__FORMAT_AUTO && o->format != SILL__FORMAT_FILE)
        return sill__fail(err, SILL_EINVAL, "%s is a directory, of which each .txt file is a row: its format is file, not %s", path,
                          sill__format_name(o->format));
    if (is_dir) {
        r->format = SILL__FORMAT_FILE;
        return sill__files_list(r, path, err);
    }
    return sill__source_start(r, err);
}

sill_status sill__reader_open(const char *path, const sill__reader_options *options, sill__reader **out,
                              sill_error *err) {
    static const sill__reader_options none;
    const sill__reader_options *o = options ? options : &none;
    sill__reader *r = sill__calloc(1, sizeof *r);
    *out = NULL;
    if (!r) return sill__fail(err, SILL_ENOMEM, "no memory for a reader");
    r->source.fd = -1;
    r->source.stop = o->stop;
    r->source.codecs = o->codecs;
    r->line = 1;
    r->format = o->format ? o->format : sill__format_of_path(path);
    r->encoding = o->encoding;
    r->max_row = o->max_row_bytes ? SILL_MIN(o->max_row_bytes, SIZE_MAX / 8) : DEFAULT_MAX_ROW;
    r->delimiter = r->format == SILL__FORMAT_TSV ? '\t' : o->delimiter ? o->delimiter : ',';
    r->name = strcmp(path, "-") ? sill__strndup(path, strlen(path)) : sill__strndup("standard input", 14);
    r->buf = sill__alloc(FIRST_WINDOW);
    r->cap = FIRST_WINDOW;
    sill__str_init(&r->scratch, 3 * r->max_row + 65536); /* a byte is three at most in UTF-8 */
    sill__str_init(&r->decoded, 3 * r->max_row + 65536);
    sill_status s = SILL_OK;
    if (!r->name || !r->buf) s = sill__fail(err, SILL_ENOMEM, "no memory for a reader");
    if (s == SILL_OK) s = open_path(r, path, o, err);
    if (s == SILL_OK) s = first_columns(r, o, err);
    if (s != SILL_OK) {
        sill__reader_free(r);
        return s;
    }
    *out = r;
    return SILL_OK;
}

sill_status sill__reader_open_texts(const char *column, const char *const *texts, const size_t *n_bytes, size_t n,
                                    sill__reader **out, sill_error *err) {
    sill__reader *r = sill__calloc(1, sizeof *r);
    *out = NULL;
    if (r) r->name = sill__strndup("the arguments", 13);
    if (!r || !r->name || !sill__reader_add_name(&r->columns, &r->n_columns, column, strlen(column))) {
        sill__reader_free(r);
        return sill__fail(err, SILL_ENOMEM, "no memory for a reader");
    }
    r->source.fd = -1;
    r->format = SILL__FORMAT_TXT;
    r->have_columns = r->eof = true;
    r->texts = texts;
    r->texts_bytes = n_bytes;
    r->n_texts = n;
    for (size_t i = 0; i < n; i++) r->stats.bytes_total += n_bytes[i];
    sill__str_init(&r->scratch, SIZE_MAX);
    *out = r;
    return SILL_OK;
}

static sill_status next_text(sill__reader *r, sill__corpus_row **row, sill_error *err) {
    if (r->stats.rows == r->n_texts) return SILL_OK;
    const char *text = r->texts[r->stats.rows];
    size_t n = r->texts_bytes[r->stats.rows];
    sill__str_clear(&r->scratch);
    if (!sill__reader_want_cells(r, 1) || !sill__str_put(&r->scratch, text, n))
        return sill__fail(err, SILL_ENOMEM, "no memory for a text of %zu bytes", n);
    r->cells[0] = (sill__cell){(const char *)0, n, SILL__CELL_TEXT};
    r->line++;
    r->stats.bytes_done += n;
    return sill__reader_make_row(r, 1, NULL, 0, NULL, row, err);
}

static void free_names(char **names, size_t n) {
    for (size_t i = 0; i < n; i++) sill__free(names[i]);
    sill__free(names);
}

void sill__reader_free(sill__reader *r) {
    if (!r) return;
    sill__source_close(&r->source);
    free_names(r->columns, r->n_columns);
    free_names(r->selected, r->n_selected);
    free_names(r->files, r->n_files);
    sill__str_free(&r->scratch);
    sill__str_free(&r->decoded);
    sill__free(r->dir);
    sill__free(r->cells);
    sill__free(r->buf);
    sill__free(r->name);
    sill__free(r);
}

sill__format sill__reader_format(const sill__reader *r) { return r->format; }
char sill__reader_delimiter(const sill__reader *r) { return r->delimiter; }
bool sill__reader_is_file(const sill__reader *r, const char *path) {
    struct stat mine, other;
    if (stat(path, &other) != 0 || !S_ISREG(other.st_mode)) return false;
    if (r->dir) return sill__files_have(r, (uint64_t)other.st_dev, (uint64_t)other.st_ino);
    return r->source.fd >= 0 && fstat(r->source.fd, &mine) == 0 && mine.st_dev == other.st_dev && mine.st_ino == other.st_ino;
}
sill__reader_stats sill__reader_get_stats(const sill__reader *r) { return r->stats; }

void sill__reader_watch(sill__reader *r, const char *const *names, size_t n) {
    r->watched = names;
    r->n_watched = SILL_MIN(n, (size_t)64);
}

/* ---- columns */

sill_status sill__reader_columns(sill__reader *r, const char *const **names, size_t *n, sill_error *err) {
    if (!r->have_columns) {
        sill_status s = sill__lines_first_keys(r, err);
        if (s != SILL_OK) return s;
        r->have_columns = true;
    }
    *names = (const char *const *)r->columns;
    *n = r->n_columns;
    return SILL_OK;
}

static sill_status no_column(const sill__reader *r, const char *name, sill_error *err) {
    char list[300];
    size_t used = 0;
    list[0] = 0;
    for (size_t i = 0; i < r->n_columns; i++) {
        int n = snprintf(list + used, sizeof list - used, "%s%s", i ? ", " : "", r->columns[i]);
        if (n < 0 || (size_t)n >= sizeof list - used) {
            snprintf(list + SILL_MIN(used, sizeof list - 6), 6, ", ...");
            break;
        }
        used += (size_t)n;
    }
    return sill__fail(err, SILL_ENOENT, "%s has no column '%s'; it has: %s", r->name, name, list);
}

sill_status sill__reader_select(sill__reader *r, const char *name, size_t *slot, sill_error *err) {
    bool jsonl = r->format == SILL__FORMAT_JSONL;
    char **names = jsonl ? r->selected : r->columns;
    size_t n = jsonl ? r->n_selected : r->n_columns, found = SIZE_MAX;
    for (size_t i = 0; i < n; i++) {
        if (strcmp(names[i], name)) continue;
        if (found != SIZE_MAX)
            return sill__fail(err, SILL_EFORMAT, "%s: the header names column '%s' twice; rename one", r->name, name);
        found = i;
    }
    if (found == SIZE_MAX && !jsonl) return no_column(r, name, err);
    if (found == SIZE_MAX) {
        if (!sill__reader_add_name(&r->selected, &r->n_selected, name, strlen(name)))
            return sill__fail(err, SILL_ENOMEM, "no memory for a column");
        found = r->n_selected - 1;
    }
    *slot = found;
    return SILL_OK;
}

sill_status sill__reader_next(sill__reader *r, sill__corpus_row **row, sill_error *err) {
    *row = NULL;
    if (r->texts) return next_text(r, row, err);
    if (r->format == SILL__FORMAT_FILE) return sill__files_next(r, row, err);
    if (r->format == SILL__FORMAT_CSV || r->format == SILL__FORMAT_TSV) return sill__csv_next(r, row, err);
    return sill__lines_next(r, row, err);
}
