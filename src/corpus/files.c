/*
 * files.c - plain text with a file a row: one file, or those of a directory. The rules, each with a test in tests/cli:
 *  - Of a directory the files are read whose names end in .txt or .text (any case, also with .gz or .zst behind), in it and in the
 *    directories below it, in the order of the bytes of their paths within it, which are the column "file". Others are counted.
 *  - Names that begin with a dot are passed over, and so are links to directories, so that none leads in a circle; links to
 *    files are read.
 *  - The text is the whole file, line ends included, without a byte order mark; an empty file is an empty text.
 *  - A file that cannot be read, is no regular file, or is longer than the limit of a row, is a row with an error. A directory
 *    that cannot be read ends the run before it begins, since how many rows are missing is not known.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "corpus/reader.h"

#define MAX_FILES ((size_t)1 << 28)

/* ---- the list */

typedef struct names { char **p; size_t n, cap; } names;

static bool add(names *list, const char *dir, const char *name) {
    sill__str s;
    if (list->n == list->cap) {
        size_t cap = list->cap ? 2 * list->cap : 256, bytes;
        char **p = cap <= MAX_FILES && sill__mul(cap, sizeof *p, &bytes) ? sill__realloc(list->p, bytes) : NULL;
        if (!p) return false;
        list->p = p;
        list->cap = cap;
    }
    sill__str_init(&s, 65536);
    bool ok = sill__str_puts(&s, dir) && (!dir[0] || sill__str_puts(&s, "/")) && sill__str_puts(&s, name);
    list->p[list->n] = ok ? sill__strndup(s.p, s.n) : NULL;
    sill__str_free(&s);
    return list->p[list->n] && ++list->n;
}

static void drop(names *list) {
    for (size_t i = 0; i < list->n; i++) sill__free(list->p[i]);
    sill__free(list->p);
}

/* One directory, at PATH, which is SUB within the one that is read. */
static sill_status list_one(sill__reader *r, const char *path, const char *sub, names *files, names *dirs, sill_error *err) {
    sill_status s = SILL_OK;
    DIR *d = opendir(path);
    if (!d) return sill__fail(err, SILL_EIO, "%s: %s", path, strerror(errno));
    while (s == SILL_OK) {
        struct stat st = {0}, to = {0};
        errno = 0;
        struct dirent *e = readdir(d);
        if (!e && errno) s = sill__fail(err, SILL_EIO, "%s: %s", path, strerror(errno));
        if (!e) break;
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
        if (r->source.stop && *r->source.stop) s = sill__fail(err, SILL_ECANCELLED, "%s: interrupted while listing it", path);
        if (fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0) {
            if (errno == ENOENT) continue; /* it has just gone */
            s = sill__fail(err, SILL_EIO, "%s/%s: %s", path, e->d_name, strerror(errno));
            break;
        }
        bool link = S_ISLNK(st.st_mode), hidden = e->d_name[0] == '.';
        if (link && fstatat(dirfd(d), e->d_name, &to, 0) == 0) st = to;
        if (S_ISDIR(st.st_mode) && link) r->stats.links++;
        else if (S_ISDIR(st.st_mode) && hidden) r->stats.passed_over++;
        else if (hidden || (!S_ISDIR(st.st_mode) && sill__format_of_path(e->d_name) != SILL__FORMAT_TXT)) r->stats.passed_over++;
        else if (!add(S_ISDIR(st.st_mode) ? dirs : files, sub, e->d_name))
            s = sill__fail(err, SILL_ENOMEM, "%s: no memory for the names of %zu files", path, files->n);
    }
    closedir(d);
    return s;
}

static int by_bytes(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

/* SUB within r->dir. Free with sill__free. */
static char *path_of(const sill__reader *r, const char *sub) {
    sill__str s;
    sill__str_init(&s, 65536);
    sill__str_puts(&s, r->dir);
    if (sub[0]) sill__str_puts(&s, "/");
    sill__str_puts(&s, sub);
    char *path = s.failed ? NULL : sill__strndup(s.p, s.n);
    sill__str_free(&s);
    return path;
}

sill_status sill__files_list(sill__reader *r, const char *path, sill_error *err) {
    names files = {0}, dirs = {0};
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/') n--;
    r->dir = sill__strndup(path, n);
    sill_status s = r->dir && add(&dirs, "", "") ? SILL_OK : sill__fail(err, SILL_ENOMEM, "%s: no memory for its files", path);
    for (size_t i = 0; s == SILL_OK && i < dirs.n; i++) { /* those below are found on the way */
        char *at = path_of(r, dirs.p[i]);
        s = at ? list_one(r, at, dirs.p[i], &files, &dirs, err) : sill__fail(err, SILL_ENOMEM, "%s: no memory for its files", path);
        sill__free(at);
    }
    drop(&dirs);
    if (files.n) qsort(files.p, files.n, sizeof *files.p, by_bytes);
    r->files = files.p;
    r->n_files = files.n;
    r->stats.bytes_total = files.n;
    if (s == SILL_OK && !files.n)
        s = sill__fail(err, SILL_EFORMAT, "%s has no .txt file in it (%llu others were passed over)", path, (unsigned long long)r->stats.passed_over);
    return s;
}

bool sill__files_have(const sill__reader *r, uint64_t device, uint64_t inode) {
    bool found = false;
    for (size_t i = 0; i < r->n_files && !found; i++) {
        struct stat st;
        char *path = path_of(r, r->files[i]);
        found = path && stat(path, &st) == 0 && (uint64_t)st.st_dev == device && (uint64_t)st.st_ino == inode;
        sill__free(path);
    }
    return found;
}

/* ---- rows */

/* The rest of the source into the window; *N is SIZE_MAX when it is longer than a row may be. */
static sill_status read_whole(sill__reader *r, size_t *n, sill_error *err) {
    sill_status s = SILL_OK;
    for (bool more = true; s == SILL_OK && more;) s = sill__reader_fill(r, &more, err);
    *n = r->end - r->start;
    if (s == SILL_OK && (!r->eof || *n > r->max_row)) *n = SIZE_MAX;
    return s;
}

static const char *base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash && slash[1] ? slash + 1 : path;
}

/* A row of NAME, which need be no UTF-8, and the N bytes at TEXT (NULL: none). */
static sill_status make(sill__reader *r, const char *name, const char *text, size_t n, const char *error, sill__corpus_row **row,
                        sill_error *err) {
    const char *utf8, *why = NULL;
    size_t n_name, bad;
    if (text) {
        sill_status s = sill__reader_decode(r, &text, &n, &why, err);
        if (s != SILL_OK) return s;
    }
    sill__str_clear(&r->scratch);
    if (text) sill__str_put(&r->scratch, text, n);
    bool ok = sill__reader_want_cells(r, 2) && sill__decode(SILL__ENCODING_UTF8, name, strlen(name), &r->decoded, &utf8, &n_name, &bad);
    if (!ok || !sill__str_put(&r->scratch, utf8, n_name)) return sill__fail(err, SILL_ENOMEM, "%s: no memory for a row", r->name);
    r->cells[0] = (sill__cell){(const char *)(text ? n : 0), n_name, SILL__CELL_TEXT};
    r->cells[1] = (sill__cell){(const char *)0, text ? n : 0, text ? SILL__CELL_TEXT : SILL__CELL_MISSING};
    r->line = 0;
    return sill__reader_make_row(r, 2, NULL, 0, error ? error : why, row, err);
}

static sill_status whole_row(sill__reader *r, const char *name, sill__corpus_row **row, sill_error *err) {
    size_t n;
    char message[80];
    sill_status s = read_whole(r, &n, err);
    if (s != SILL_OK) return s;
    if (n != SIZE_MAX) return make(r, name, r->buf + r->start, n, NULL, row, err);
    snprintf(message, sizeof message, "the file is longer than %zu bytes; --max-row allows more", r->max_row);
    return make(r, name, NULL, 0, message, row, err);
}

/* The file at PATH, called r->name: what is wrong with it is in *OWN. */
static sill_status open_one(sill__reader *r, const char *path, sill_error *own) {
    struct stat st;
    bool is_dir;
    if (stat(path, &st) != 0) return sill__fail(own, SILL_EIO, "%s: %s", r->name, strerror(errno));
    if (!S_ISREG(st.st_mode)) return sill__fail(own, SILL_EIO, "%s is no regular file", r->name);
    sill_status s = sill__source_open(r, path, &is_dir, own);
    return s == SILL_OK ? sill__source_start(r, own) : s;
}

/* One file of many: what is wrong with it is wrong with its row. */
static sill_status next_of_dir(sill__reader *r, sill__corpus_row **row, sill_error *err) {
    sill_error own = {0};
    if (r->at_file == r->n_files) return SILL_OK;
    const char *name = r->files[r->at_file++];
    char *path = path_of(r, name), *called = sill__strndup(name, strlen(name));
    if (called) {
        sill__free(r->name);
        r->name = called;
    }
    sill_status s = path && called ? open_one(r, path, &own) : sill__fail(&own, SILL_ENOMEM, "no memory for a row");
    if ((s == SILL_EIO || s == SILL_ENOENT) && !sill__is_dir(r->dir)) { /* a disk that is gone is no matter of one row */
        sill__free(path);
        return sill__fail(err, SILL_EIO, "%s is gone, with %zu of its %zu files still to be read; when it is back, the same command goes on", r->dir,
                          r->n_files - r->at_file + 1, r->n_files);
    }
    if (s == SILL_OK) s = whole_row(r, name, row, &own);
    if (s != SILL_OK && s != SILL_ECANCELLED && s != SILL_ENOMEM) s = make(r, name, NULL, 0, own.msg, row, &own);
    if (s != SILL_OK && err) *err = own;
    sill__source_close(&r->source);
    r->start = r->end = 0;
    r->eof = false;
    r->stats.bytes_done = r->at_file;
    sill__free(path);
    return s;
}

sill_status sill__files_next(sill__reader *r, sill__corpus_row **row, sill_error *err) {
    if (r->dir) return next_of_dir(r, row, err);
    if (r->at_file) return SILL_OK;
    sill_status s = whole_row(r, r->source.own_fd ? base_name(r->name) : "-", row, err);
    if (s != SILL_OK) return s;
    r->at_file = 1;
    sill__reader_consume(r, r->end - r->start);
    /* what is behind the limit, so that all of the input was seen */
    for (bool more = true; s == SILL_OK && more;) {
        s = sill__reader_fill(r, &more, err);
        sill__reader_consume(r, r->end - r->start);
    }
    if (s != SILL_OK) {
        sill__row_free(*row);
        *row = NULL;
    }
    return s;
}
