/*
 * source.c - the bytes of an input: a file or standard input, unpacked on the way where its first bytes say that it is
 * compressed. Nothing is held but a portion of each, so that a small file that unpacks to a large one costs time alone.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "corpus/reader.h"

#define PORTION ((size_t)64 << 10)

sill_status sill__source_open(sill__reader *r, const char *path, bool *is_dir, sill_error *err) {
    struct stat st;
    sill__source *s = &r->source;
    *is_dir = false;
    if (!strcmp(path, "-")) {
        s->fd = STDIN_FILENO;
    } else {
        do { /* opening a pipe waits for its other end, and a signal ends that */
            if (s->stop && *s->stop) return sill__fail(err, SILL_ECANCELLED, "%s: interrupted while opening it", r->name);
            s->fd = open(path, O_RDONLY | O_CLOEXEC);
        } while (s->fd < 0 && errno == EINTR);
        if (s->fd < 0) return sill__fail(err, errno == ENOENT ? SILL_ENOENT : SILL_EIO, "%s: %s", r->name, strerror(errno));
        s->own_fd = true;
    }
    if (fstat(s->fd, &st) != 0) return SILL_OK;
    *is_dir = S_ISDIR(st.st_mode);
    if (*is_dir && !s->own_fd) return sill__fail(err, SILL_EIO, "standard input is a directory; name it instead of '-'");
    if (*is_dir) sill__source_close(s);
    if (S_ISREG(st.st_mode) && st.st_size > 0 && !r->dir) { /* standard input may begin in the middle */
        off_t from = lseek(s->fd, 0, SEEK_CUR);
        r->stats.bytes_total = (uint64_t)(from > 0 && from < st.st_size ? st.st_size - from : st.st_size);
    }
    if (S_ISREG(st.st_mode) && !st.st_size && sill__codec_of_path(s->codecs, path))
        return sill__fail(err, SILL_EFORMAT, "%s is empty, which no %s file is: was it cut off?", r->name,
                          sill__codec_of_path(s->codecs, path)->name);
    return SILL_OK;
}

void sill__source_close(sill__source *s) {
    if (s->own_fd && s->fd >= 0) close(s->fd);
    if (s->codec && s->unpacker) s->codec->unpack_end(s->unpacker);
    sill__free(s->packed);
    *s = (sill__source){.fd = -1, .stop = s->stop, .codecs = s->codecs};
}

/* ---- reading */

/* Waits until there is something to read. A signal may come just before poll is called and then not end it: so it
 * looks up now and then. */
static sill_status wait_for_bytes(sill__reader *r, sill_error *err) {
    struct pollfd p = {.fd = r->source.fd, .events = POLLIN};
    for (;;) {
        if (*r->source.stop) return sill__fail(err, SILL_ECANCELLED, "%s: interrupted while reading", r->name);
        int n = poll(&p, 1, 250);
        if (n > 0 || (n < 0 && errno != EINTR)) return SILL_OK; /* what is wrong, read will say */
    }
}

static sill_status read_bytes(sill__reader *r, char *to, size_t cap, size_t *n, sill_error *err) {
    ssize_t k;
    do {
        sill_status s = r->source.stop ? wait_for_bytes(r, err) : SILL_OK;
        if (s != SILL_OK) return s;
        k = read(r->source.fd, to, cap);
    } while (k < 0 && errno == EINTR);
    if (k < 0) return sill__fail(err, SILL_EIO, "%s: %s", r->name, strerror(errno));
    *n = (size_t)k;
    return SILL_OK;
}

static sill_status damaged(const sill__reader *r, const char *why, sill_error *err) {
    const sill__source *s = &r->source;
    return sill__fail(err, SILL_EFORMAT, "%s: byte %llu: %s; %s tests it, and another copy may be whole", r->name,
                      (unsigned long long)s->at + 1, why, s->codec->test);
}

/* A file that ends before the size that it had was cut while it was read: what is left of its last row is no row. */
static sill_status read_plain(sill__reader *r, char *to, size_t cap, size_t *n, sill_error *err) {
    sill_status s = read_bytes(r, to, cap, n, err);
    r->source.at += *n;
    if (s == SILL_OK && *n == 0 && cap > 0 && !r->dir && r->source.at < r->stats.bytes_total)
        return sill__fail(err, SILL_EIO, "%s ended after %llu of its %llu bytes: was it cut while it was read? When it is whole again, the same "
                          "command goes on", r->name, (unsigned long long)r->source.at, (unsigned long long)r->stats.bytes_total);
    return s;
}

sill_status sill__source_read(sill__reader *r, char *to, size_t cap, size_t *n, sill_error *err) {
    sill__source *s = &r->source;
    *n = 0;
    if (!s->codec) return read_plain(r, to, cap, n, err);
    for (;;) {
        if (s->why) return damaged(r, s->why, err);
        size_t n_in = s->to - s->from, n_out = cap;
        s->why = s->codec->unpack(s->unpacker, s->packed + s->from, &n_in, to, &n_out, &s->whole);
        s->from += n_in;
        s->at += n_in;
        if (!r->dir) r->stats.bytes_done = s->at;
        if (n_out) {
            *n = n_out;
            return SILL_OK;
        }
        if (s->why || n_in) continue;
        if (s->from < s->to) return damaged(r, "nothing can be made of it", err);
        if (s->ended && s->whole) return SILL_OK;
        if (s->ended) return damaged(r, "the file ends within its compressed data: it was cut off", err);
        s->from = s->to = 0;
        sill_status status = read_bytes(r, s->packed, PORTION, &s->to, err);
        if (status != SILL_OK) return status;
        s->ended = s->to == 0;
    }
}

/* ---- the first bytes */

static bool starts(const uint8_t *p, size_t n, const char *what, size_t k) { return n >= k && !memcmp(p, what, k); }

static sill_status refuse_start(const sill__reader *r, const uint8_t *p, size_t n, sill_error *err) {
    static const struct { const char *bytes; size_t n; const char *name, *program; } packed[] = {
        {"\x1f\x8b", 2, "gzip", "gzip"}, {"\x28\xb5\x2f\xfd", 4, "zstd", "zstd"}, {"\xfd""7zX", 4, "xz", "xz"}};
    if (starts(p, n, "\xff\xfe\0\0", 4) || starts(p, n, "\0\0\xfe\xff", 4))
        return sill__fail(err, SILL_EFORMAT, "%s is UTF-32; convert it first: iconv -f UTF-32 -t UTF-8", r->name);
    if (starts(p, n, "\xff\xfe", 2) || starts(p, n, "\xfe\xff", 2))
        return sill__fail(err, SILL_EFORMAT, "%s is UTF-16; convert it first: iconv -f UTF-16 -t UTF-8", r->name);
    if (starts(p, n, "PK\3\4", 4))
        return sill__fail(err, SILL_EUNSUPPORTED, "%s is a zip archive (as are Excel's .xlsx); unpack it, or save it as CSV", r->name);
    for (size_t i = 0; i < SILL_ARRAY_LEN(packed); i++) {
        if (!starts(p, n, packed[i].bytes, packed[i].n)) continue;
        if (r->source.codec)
            return sill__fail(err, SILL_EUNSUPPORTED, "%s is compressed more than once; unpack it first: %s -dc", r->name, r->source.codec->name);
        return sill__fail(err, SILL_EUNSUPPORTED, "%s is compressed with %s; use: %s -dc %s | sill ... -", r->name, packed[i].name,
                          packed[i].program, r->name);
    }
    return SILL_OK;
}

/* What is in the window was read as it lies in the file: it is unpacked from there on. */
static sill_status unpack_window(sill__reader *r, const sill__codec *codec, sill_error *err) {
    sill__source *s = &r->source;
    s->packed = sill__alloc(SILL_MAX(PORTION, r->cap));
    s->unpacker = s->packed ? codec->unpack_begin() : NULL;
    if (!s->unpacker) return sill__fail(err, SILL_ENOMEM, "%s: no memory to unpack it", r->name);
    s->codec = codec;
    s->to = r->end - r->start;
    memcpy(s->packed, r->buf + r->start, s->to);
    s->ended = r->eof;
    s->at = 0;
    r->start = r->end = 0;
    r->eof = false;
    return SILL_OK;
}

static sill_status fill_start(sill__reader *r, sill_error *err) {
    sill_status s = SILL_OK;
    bool more = true;
    while (s == SILL_OK && more && r->end - r->start < 4) s = sill__reader_fill(r, &more, err);
    return s;
}

sill_status sill__source_start(sill__reader *r, sill_error *err) {
    sill_status s = fill_start(r, err);
    for (const sill__codec *const *c = r->source.codecs; s == SILL_OK && c && *c; c++) {
        if (!(*c)->begins((const uint8_t *)r->buf + r->start, r->end - r->start)) continue;
        s = unpack_window(r, *c, err);
        if (s == SILL_OK) s = fill_start(r, err);
        break;
    }
    if (s != SILL_OK) return s;
    const uint8_t *p = (const uint8_t *)r->buf + r->start;
    size_t n = r->end - r->start;
    if (!starts(p, n, "\xef\xbb\xbf", 3)) return refuse_start(r, p, n, err);
    if (r->encoding == SILL__ENCODING_LATIN1 || r->encoding == SILL__ENCODING_WINDOWS1252)
        return sill__fail(err, SILL_EFORMAT, "%s begins with the byte order mark of UTF-8, and --encoding says %s; leave --encoding out",
                          r->name, sill__encoding_name(r->encoding));
    sill__reader_consume(r, 3);
    return SILL_OK;
}

sill_status sill__source_refuse_name(const char *path, const sill__codec *const *codecs, sill_error *err) {
    static const struct { const char *end, *name, *program; } kinds[] = {
        {".gz", "gzip", "gzip"}, {".zst", "zstd", "zstd"}, {".xz", "xz", "xz"}, {".bz2", "bzip2", "bzip2"}};
    static const char *const sheets[] = {".xlsx", ".xls", ".ods"};
    size_t n = strlen(path);
    for (size_t i = 0; i < SILL_ARRAY_LEN(sheets); i++)
        if (n > strlen(sheets[i]) && !strcasecmp(path + n - strlen(sheets[i]), sheets[i]))
            return sill__fail(err, SILL_EUNSUPPORTED, "%s is a spreadsheet; save it as CSV in UTF-8, and give that", path);
    for (size_t i = 0; i < SILL_ARRAY_LEN(kinds); i++) {
        size_t m = strlen(kinds[i].end);
        if (n <= m || strcasecmp(path + n - m, kinds[i].end) || sill__codec_of_path(codecs, path) || !sill__is_file(path)) continue;
        char *inner = sill__strndup(path, n - m);
        sill__format f = inner ? sill__format_of_path(inner) : SILL__FORMAT_AUTO;
        sill__free(inner);
        bool say = f != SILL__FORMAT_AUTO && f != SILL__FORMAT_TXT;
        return sill__fail(err, SILL_EUNSUPPORTED, "%s is compressed with %s; use: %s -dc %s | sill ... -%s%s", path,
                          kinds[i].name, kinds[i].program, path, say ? " --format " : "", say ? sill__format_name(f) : "");
    }
    return SILL_OK;
}
