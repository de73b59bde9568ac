/* reader.c - opening an input, its sliding window, columns, and the making of rows. */
#include "corpus/reader.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#define DEFAULT_MAX_ROW ((size_t)16 << 20)
#define FIRST_WINDOW ((size_t)64 << 10)
#define MAX_COLUMNS 65536

/* Waits until there is something to read. A signal may come just before poll is called and then not end it: so it
 * looks up now and then. */
static sill_status wait_for_bytes(sill__reader *r, sill_error *err) {
    struct pollfd p = {.fd = r->fd, .events = POLLIN};
    for (;;) {
        if (*r->stop) return sill__fail(err, SILL_ECANCELLED, "%s: interrupted while reading", r->name);
        int n = poll(&p, 1, 250);
        if (n > 0 || (n < 0 && errno != EINTR)) return SILL_OK; /* what is wrong, read will say */
    }
}

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
    ssize_t n;
    do {
        sill_status s = r->stop ? wait_for_bytes(r, err) : SILL_OK;
        if (s != SILL_OK) return s;
        n = read(r->fd, r->buf + r->end, SILL_MIN(r->cap - r->end, SILL_IO_MAX));
    } while (n < 0 && errno == EINTR);
    if (n < 0) return sill__fail(err, SILL_EIO, "%s: %s", r->name, strerror(errno));
    if (n == 0) r->eof = true;
    r->end += (size_t)n;
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
    r->stats.bytes_done += n;
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
    if (row->error && !row->raw) sill__sha256_update(&s, row->error, strlen(row->error) + 1);
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

static sill_status open_source(sill__reader *r, const char *path, sill_error *err) {
    struct stat st;
    if (!strcmp(path, "-")) {
        r->fd = STDIN_FILENO;
    } else {
        do { /* opening a pipe waits for its other end, and a signal ends that */
            if (r->stop && *r->stop) return sill__fail(err, SILL_ECANCELLED, "%s: interrupted while opening it", path);
            r->fd = open(path, O_RDONLY | O_CLOEXEC);
        } while (r->fd < 0 && errno == EINTR);
        if (r->fd < 0)
            return sill__fail(err, errno == ENOENT ? SILL_ENOENT : SILL_EIO, "%s: %s", path, strerror(errno));
        r->own_fd = true;
    }
    if (fstat(r->fd, &st) == 0) {
        if (S_ISDIR(st.st_mode)) return sill__fail(err, SILL_EIO, "%s is a directory, not a file of texts", path);
        if (S_ISREG(st.st_mode) && st.st_size > 0) r->stats.bytes_total = (uint64_t)st.st_size;
    }
    return SILL_OK;
}

/* Byte order marks: UTF-8's is dropped, UTF-16's and compressed files are refused with a way out. */
static sill_status check_start(sill__reader *r, sill_error *err) {
    sill_status s = SILL_OK;
    bool more = true;
    while (s == SILL_OK && more && r->end - r->start < 4) s = sill__reader_fill(r, &more, err);
    if (s != SILL_OK) return s;
    const unsigned char *p = (const unsigned char *)r->buf + r->start;
    size_t n = r->end - r->start;
    if (n >= 3 && p[0] == 0xef && p[1] == 0xbb && p[2] == 0xbf) {
        sill__reader_consume(r, 3);
        return SILL_OK;
    }
    if (n >= 2 && ((p[0] == 0xff && p[1] == 0xfe) || (p[0] == 0xfe && p[1] == 0xff)))
        return sill__fail(err, SILL_EFORMAT, "%s is UTF-16; convert it first: iconv -f UTF-16 -t UTF-8", r->name);
    if (n >= 2 && p[0] == 0x1f && p[1] == 0x8b)
        return sill__fail(err, SILL_EUNSUPPORTED, "%s is compressed with gzip; use: gzip -dc %s | sill ... -",
                          r->name, r->name);
    if (n >= 4 && p[0] == 0x28 && p[1] == 0xb5 && p[2] == 0x2f && p[3] == 0xfd)
        return sill__fail(err, SILL_EUNSUPPORTED, "%s is compressed with zstd; use: zstd -dc %s | sill ... -",
                          r->name, r->name);
    return SILL_OK;
}

/* A name such as x.csv.gz: says how to read it. SILL_OK when it is no such name. */
static sill_status refuse_compressed(const char *path, sill_error *err) {
    static const struct { const char *end, *name, *program; } kinds[] = {
        {".gz", "gzip", "gzip"}, {".zst", "zstd", "zstd"}, {".xz", "xz", "xz"}, {".bz2", "bzip2", "bzip2"}};
    size_t n = strlen(path);
    for (size_t i = 0; i < SILL_ARRAY_LEN(kinds); i++) {
        size_t m = strlen(kinds[i].end);
        if (n <= m || strcasecmp(path + n - m, kinds[i].end) || !sill__is_file(path)) continue;
        char *inner = sill__strndup(path, n - m);
        sill__format f = inner ? sill__format_of_path(inner) : SILL__FORMAT_AUTO;
        sill__free(inner);
        bool say = f != SILL__FORMAT_AUTO && f != SILL__FORMAT_TXT;
        return sill__fail(err, SILL_EUNSUPPORTED, "%s is compressed with %s; use: %s -dc %s | sill ... -%s%s", path,
                          kinds[i].name, kinds[i].program, path, say ? " --format " : "", say ? sill__format_name(f) : "");
    }
    return SILL_OK;
}

sill_status sill__reader_open(const char *path, const sill__reader_options *options, sill__reader **out,
                              sill_error *err) {
    static const sill__reader_options none;
    const sill__reader_options *o = options ? options : &none;
    sill__format format = o->format ? o->format : sill__format_of_path(path);
    *out = NULL;
    if (format == SILL__FORMAT_AUTO && refuse_compressed(path, err) != SILL_OK) return SILL_EUNSUPPORTED;
    if (format == SILL__FORMAT_AUTO)
        return sill__fail(err, SILL_EINVAL, "cannot tell the format of '%s' from its name; give --format csv, tsv, "
                          "jsonl or txt", path);
    sill__reader *r = sill__calloc(1, sizeof *r);
    if (!r) return sill__fail(err, SILL_ENOMEM, "no memory for a reader");
    r->fd = -1;
    r->line = 1;
    r->stop = o->stop;
    r->format = format;
    r->max_row = o->max_row_bytes ? SILL_MIN(o->max_row_bytes, SIZE_MAX / 4) : DEFAULT_MAX_ROW;
    r->delimiter = format == SILL__FORMAT_TSV ? '\t' : o->delimiter ? o->delimiter : ',';
    r->name = strcmp(path, "-") ? sill__strndup(path, strlen(path)) : sill__strndup("standard input", 14);
    r->buf = sill__alloc(FIRST_WINDOW);
    r->cap = FIRST_WINDOW;
    sill__str_init(&r->scratch, r->max_row > SIZE_MAX / 4 ? SIZE_MAX : 2 * r->max_row + 65536);
    sill_status s = SILL_OK;
    if (!r->name || !r->buf) s = sill__fail(err, SILL_ENOMEM, "no memory for a reader");
    if (s == SILL_OK) s = open_source(r, path, err);
    if (s == SILL_OK) s = check_start(r, err);
    if (s == SILL_OK && (format == SILL__FORMAT_CSV || format == SILL__FORMAT_TSV)) {
        s = sill__csv_header(r, format == SILL__FORMAT_CSV && !o->delimiter, err);
        r->have_columns = true;
        if (s == SILL_OK && r->n_columns > MAX_COLUMNS)
            s = sill__fail(err, SILL_ERANGE, "%s: the header has %zu columns, at most %d are read", r->name,
                           r->n_columns, MAX_COLUMNS);
    }
    if (s == SILL_OK && format == SILL__FORMAT_TXT) {
        const char *name = o->txt_column ? o->txt_column : "text";
        if (!sill__reader_add_name(&r->columns, &r->n_columns, name, strlen(name)))
            s = sill__fail(err, SILL_ENOMEM, "no memory for a reader");
        r->have_columns = true;
    }
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
    r->fd = -1;
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
    if (r->own_fd) close(r->fd);
    free_names(r->columns, r->n_columns);
    free_names(r->selected, r->n_selected);
    sill__str_free(&r->scratch);
    sill__free(r->cells);
    sill__free(r->buf);
    sill__free(r->name);
    sill__free(r);
}

sill__format sill__reader_format(const sill__reader *r) { return r->format; }
char sill__reader_delimiter(const sill__reader *r) { return r->delimiter; }
bool sill__reader_is_file(const sill__reader *r, const char *path) {
    struct stat mine, other;
    return r->fd >= 0 && fstat(r->fd, &mine) == 0 && S_ISREG(mine.st_mode) && stat(path, &other) == 0 &&
           mine.st_dev == other.st_dev && mine.st_ino == other.st_ino;
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
    if (r->format == SILL__FORMAT_CSV || r->format == SILL__FORMAT_TSV) return sill__csv_next(r, row, err);
    return sill__lines_next(r, row, err);
}
