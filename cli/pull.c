/*
 * pull.c - `sill pull`: a model from a hub into the cache that huggingface_hub uses, so that neither fetches what the other has.
 * Nothing that the server says is trusted: names stay below the snapshot, what arrives is what its hash says, and a blob gets its
 * name when it is whole.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/json.h"
#include "common.h"
#include "http.h"
#include "hub.h"

/* The one place that names a hub: what HF_ENDPOINT replaces. */
static const char default_endpoint[] = "https://huggingface.co";

#define MAX_LIST ((size_t)64 << 20) /* bytes of the list of a repository's files */
#define MAX_FILES 10000u
#define MAX_NAME 255u
#define MAX_TRIES 5                 /* without a byte in between */
#define STEP ((size_t)1 << 20)

typedef struct pull_options {
    const char *revision;
    arg_list files;
    bool dry_run;
} pull_options;

typedef struct pull {
    const pull_options *o;
    const char *name, *revision;
    char endpoint[512], folder[CLI_HUB_PATH], commit[41];
    cli_http *http;
    char **files; /* of the repository */
    size_t n_files;
    uint64_t fetched, kept;
} pull;

/* ---- small things */

static bool is_on(const char *variable) {
    const char *v = getenv(variable);
    static const char *const on[] = {"1", "ON", "YES", "TRUE", "on", "yes", "true", "On", "Yes", "True"};
    for (size_t i = 0; v && i < SILL_ARRAY_LEN(on); i++)
        if (!strcmp(v, on[i])) return true;
    return false;
}

/* A file's name as the server tells it: below the snapshot, of characters that need no thought. */
static bool is_file_name(const char *s) {
    size_t n = strlen(s);
    if (n == 0 || n > MAX_NAME || s[0] == '/' || s[n - 1] == '/' || strstr(s, "//")) return false;
    for (const char *p = s; *p; p++) {
        if ((unsigned char)*p < 33 || *p == 127 || *p == '\\' || *p == '?' || *p == '#' || *p == '%' || *p == ':') return false;
        if ((p == s || p[-1] == '/') && *p == '.' && (p[1] == '/' || p[1] == 0 || (p[1] == '.' && (p[2] == '/' || p[2] == 0)))) return false;
    }
    return true;
}

/* The hash that names a blob, out of an ETag: quotes and "weak" taken off. False when it is no plain name. */
static bool etag_of(const char *raw, char out[130]) {
    if (!strncmp(raw, "W/", 2)) raw += 2;
    size_t n = strlen(raw);
    if (n >= 2 && raw[0] == '"' && raw[n - 1] == '"') raw++, n -= 2;
    if (n == 0 || n > 128 || raw[0] == '.') return false;
    for (size_t i = 0; i < n; i++)
        if (!((raw[i] >= '0' && raw[i] <= '9') || (raw[i] >= 'a' && raw[i] <= 'z') || (raw[i] >= 'A' && raw[i] <= 'Z') || raw[i] == '-' || raw[i] == '_' || raw[i] == '.'))
            return false;
    memcpy(out, raw, n);
    out[n] = 0;
    return true;
}

static sill_status make_dirs(const char *path, sill_error *err) {
    char part[CLI_HUB_PATH];
    size_t n = strlen(path);
    if (n >= sizeof part) return sill__fail(err, SILL_ERANGE, "%.200s...: the path is too long", path);
    memcpy(part, path, n + 1);
    for (size_t i = 1; i <= n; i++) {
        if (path[i] != '/' && path[i] != 0) continue;
        part[i] = 0;
        const int why = mkdir(part, 0777) == 0 ? 0 : errno;
        if (why && why != EEXIST && !sill__is_dir(part)) /* of what is there some systems say that it may not be made */
            return sill__fail(err, SILL_EIO, "cannot create %s: %s", part, strerror(why));
        part[i] = path[i];
    }
    return SILL_OK;
}

static sill_status path_of(char out[CLI_HUB_PATH], sill_error *err, const char *a, const char *b, const char *c) {
    int n = snprintf(out, CLI_HUB_PATH, "%s/%s%s", a, b, c);
    return n > 0 && n < CLI_HUB_PATH ? SILL_OK : sill__fail(err, SILL_ERANGE, "%.200s...: the path is too long", a);
}

static void pause_for(double seconds) {
    struct timespec t = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};
    nanosleep(&t, NULL); /* an interruption ends it */
}

/* What a status other than success means here. */
static sill_status refused(const pull *p, const cli_http_head *h, const char *what, sill_error *err) {
    const char *more = h->error[0] ? h->error : "";
    if (h->status == 401 || h->status == 403)
        return sill__fail(err, SILL_EIO, "%s: access to %s is refused (status %ld)%s%s; a private or gated model needs a token that may read it "
                          "(HF_TOKEN)", what, p->name, h->status, *more ? ": " : "", more);
    if (h->status == 404)
        return sill__fail(err, SILL_ENOENT, "%s: %s has no such model, revision or file (status 404)%s%s; private ones need a token (HF_TOKEN)",
                          what, p->endpoint, *more ? ": " : "", more);
    return sill__fail(err, SILL_EIO, "%s: %s answers with status %ld%s%s", what, p->endpoint, h->status, *more ? ": " : "", more);
}

static bool is_passing(long status) { return status == 429 || status >= 500; }

/* ---- SHA-1, by which git names small files: of "blob N", a NUL and the file (FIPS 180-4) */

typedef struct sha1 { uint32_t h[5]; uint64_t n; uint8_t block[64]; } sha1;

static void sha1_block(sha1 *s) {
    uint32_t w[80], v[5];
    for (int i = 0; i < 16; i++)
        w[i] = (uint32_t)s->block[4 * i] << 24 | (uint32_t)s->block[4 * i + 1] << 16 | (uint32_t)s->block[4 * i + 2] << 8 | s->block[4 * i + 3];
    for (int i = 16; i < 80; i++) {
        uint32_t x = w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16];
        w[i] = x << 1 | x >> 31;
    }
    memcpy(v, s->h, sizeof v);
    for (int i = 0; i < 80; i++) {
        static const uint32_t k[4] = {0x5a827999u, 0x6ed9eba1u, 0x8f1bbcdcu, 0xca62c1d6u};
        uint32_t f = i < 20 ? (v[1] & v[2]) | (~v[1] & v[3]) : i < 40 || i >= 60 ? v[1] ^ v[2] ^ v[3] : (v[1] & v[2]) | (v[1] & v[3]) | (v[2] & v[3]);
        uint32_t t = (v[0] << 5 | v[0] >> 27) + f + v[4] + k[i / 20] + w[i];
        v[4] = v[3], v[3] = v[2], v[2] = v[1] << 30 | v[1] >> 2, v[1] = v[0], v[0] = t;
    }
    for (int i = 0; i < 5; i++) s->h[i] += v[i];
}

static void sha1_put(sha1 *s, const uint8_t *p, size_t n) {
    for (; n > 0; n--) {
        s->block[s->n++ % 64] = *p++;
        if (s->n % 64 == 0) sha1_block(s);
    }
}

static void sha1_hex(sha1 *s, char out[41]) {
    const uint64_t bits = s->n * 8;
    const uint8_t one = 0x80, zero = 0;
    sha1_put(s, &one, 1);
    while (s->n % 64 != 56) sha1_put(s, &zero, 1);
    for (int i = 7; i >= 0; i--) sha1_put(s, &(uint8_t){(uint8_t)(bits >> 8 * i)}, 1);
    for (int i = 0; i < 5; i++) snprintf(out + 8 * i, 9, "%08x", s->h[i]);
}

/* What the file of N bytes at FD is called if its hash is of LENGTH digits: 64 SHA-256, 40 git's. */
static bool hash_of(int fd, uint64_t n, size_t length, char out[65]) {
    char head[40];
    uint8_t digest[32], *buffer = sill__alloc(STEP);
    sill__sha256 a;
    sha1 b = {.h = {0x67452301u, 0xefcdab89u, 0x98badcfeu, 0x10325476u, 0xc3d2e1f0u}};
    sill__sha256_init(&a);
    sha1_put(&b, (const uint8_t *)head, (size_t)snprintf(head, sizeof head, "blob %llu", (unsigned long long)n) + 1);
    ssize_t k = -1;
    for (uint64_t at = 0; buffer && !cli_stop && (k = pread(fd, buffer, STEP, (off_t)at)) > 0; at += (uint64_t)k) {
        if (length == 64) sill__sha256_update(&a, buffer, (size_t)k);
        else sha1_put(&b, buffer, (size_t)k);
    }
    sill__free(buffer);
    sill__sha256_final(&a, digest);
    if (length == 64) sill__sha256_hex(digest, out);
    else sha1_hex(&b, out);
    return k == 0;
}

static bool is_hash(const char *etag) {
    size_t n = strlen(etag);
    return (n == 64 || n == 40) && strspn(etag, "0123456789abcdef") == n;
}

/* ---- one file */

typedef struct transfer {
    int fd;
    uint64_t n, size;   /* bytes that are there; that will be (UINT64_MAX: not told) */
    uint64_t arrived;
    bool told, ranged;  /* where this answer begins is settled; there was something before it */
    double said;
    const char *name;
    sill_error why;     /* of the last try */
} transfer;

static void say_progress(transfer *t) {
    const double now = sill__now(), mib = 1048576.0;
    if (now - t->said < 5) return;
    t->said = now;
    if (t->size != UINT64_MAX) cli_say("%s: %.1f of %.1f MiB", t->name, (double)t->n / mib, (double)t->size / mib);
    else cli_say("%s: %.1f MiB", t->name, (double)t->n / mib);
}

static bool take_body(void *user, const cli_http_head *head, const void *bytes, size_t n) {
    transfer *t = user;
    if (!t->told && t->n && !head->ranges) { /* the server begins at the start all the same */
        if (ftruncate(t->fd, 0) != 0) return sill__fail(&t->why, SILL_EIO, "%s: %s", t->name, strerror(errno)), false;
        t->n = 0;
    }
    t->told = true;
    if (n > t->size - t->n)
        return sill__fail(&t->why, SILL_EFORMAT, "%s: more than the %llu bytes that it should have arrive", t->name, (unsigned long long)t->size), false;
    const int why = sill__pwrite_all(t->fd, bytes, n, t->n);
    if (why) return sill__fail(&t->why, SILL_EIO, "%s cannot be written: %s", t->name, strerror(why)), false;
    t->n += n;
    t->arrived += n;
    say_progress(t);
    return true;
}

/* Gets what is missing, again and again while something arrives. */
static sill_status transfer_rest(pull *p, transfer *t, const char *url, sill_error *err) {
    cli_http_head head;
    for (int tries = 0;; tries++) {
        const uint64_t before = t->n;
        if (t->n == t->size && t->n > 0) return SILL_OK;
        t->told = false;
        t->ranged = t->ranged || t->n > 0;
        t->why.code = SILL_OK;
        sill_status s = cli_http_run(p->http, &(cli_http_request){.url = url, .from = t->n, .body = take_body, .user = t}, &head, &t->why);
        if (s == SILL_OK && head.status == 416 && t->n) { /* nothing behind what is there, which is not what should be */
            const bool cut = ftruncate(t->fd, 0) == 0;
            s = sill__fail(&t->why, SILL_EIO, "%s: %s", t->name, cut ? "the server has fewer bytes than are here" : strerror(errno));
            t->n = 0;
        } else if (s == SILL_OK && head.status != 200 && head.status != 206 && !is_passing(head.status)) {
            return refused(p, &head, t->name, err);
        } else if (s == SILL_OK && head.status < 300 && (t->size == UINT64_MAX || t->n == t->size)) {
            return SILL_OK;
        } else if (s == SILL_OK && head.status < 300) {
            s = sill__fail(&t->why, SILL_EIO, "%s: only %llu of %llu bytes arrive", t->name, (unsigned long long)t->n, (unsigned long long)t->size);
        } else if (s == SILL_OK) {
            s = refused(p, &head, t->name, &t->why);
        }
        if (t->n > before) tries = 0;
        const bool ours = t->why.code == SILL_EFORMAT || (t->why.code == SILL_EIO && strstr(t->why.msg, "cannot be written"));
        if (s == SILL_ECANCELLED || ours || tries + 1 >= MAX_TRIES || cli_stop) {
            *err = t->why;
            return cli_stop ? SILL_ECANCELLED : err->code ? err->code : SILL_EIO;
        }
        if (s != SILL_OK) cli_say("%s; trying again", t->why.msg);
        pause_for(is_on("SILL_PULL_HASTE") ? 0.01 : 0.5 * (double)(1 << tries));
    }
}

/* Fetches the blob into its temporary name and checks it. */
static sill_status fetch_blob(pull *p, const char *name, const char *url, const char *etag, uint64_t size, const char *blob, sill_error *err) {
    char partial[CLI_HUB_PATH], hash[65] = "";
    struct stat st;
    sill_status s = path_of(partial, err, p->folder, "blobs/", etag);
    if (s != SILL_OK || strlen(partial) + 12 > sizeof partial) return sill__fail(err, SILL_ERANGE, "%s: the path is too long", p->folder);
    memcpy(partial + strlen(partial), ".incomplete", 12);
    transfer t = {.fd = open(partial, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0666), .size = size, .name = name, .said = sill__now()};
    if (t.fd < 0 || fstat(t.fd, &st) != 0) {
        s = sill__fail(err, SILL_EIO, "cannot write %s: %s", partial, strerror(errno));
        if (t.fd >= 0) close(t.fd);
        return s;
    }
    for (int again = 0; again < 2; again++) {
        t.n = again ? 0 : (uint64_t)st.st_size;
        if ((again || t.n > t.size) && ftruncate(t.fd, 0) == 0) t.n = 0;
        const bool resumed = t.n > 0;
        s = transfer_rest(p, &t, url, err);
        if (s != SILL_OK || !is_hash(etag)) break;
        if (!hash_of(t.fd, t.n, strlen(etag), hash))
            s = cli_stop ? sill__fail(err, SILL_ECANCELLED, "interrupted") : sill__fail(err, SILL_EIO, "%s cannot be read", partial);
        else if (strcmp(hash, etag)) {
            s = sill__fail(err, SILL_EFORMAT, "%s: what arrived has the hash %s, and should have %s; it is not kept", name, hash, etag);
            if (ftruncate(t.fd, 0) != 0 || unlink(partial) != 0) sill__log(1, "%s stays, and is of no use", partial);
            if (!(resumed || t.ranged) || again) break;
            cli_say("%s: what was fetched in parts does not fit together; from the start again", name); /* parts of another state */
            close(t.fd);
            t.fd = open(partial, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0666);
            t.ranged = false;
            if (t.fd < 0) return sill__fail(err, SILL_EIO, "cannot write %s: %s", partial, strerror(errno));
            continue;
        }
        break;
    }
    if (s == SILL_OK && fsync(t.fd) != 0 && errno != EINVAL) s = sill__fail(err, SILL_EIO, "cannot write %s: %s", partial, strerror(errno));
    close(t.fd);
    if (s == SILL_OK && rename(partial, blob) != 0) s = sill__fail(err, SILL_EIO, "cannot rename %s: %s", partial, strerror(errno));
    if (s == SILL_OK && !is_hash(etag)) sill__log(1, "%s: the server tells no hash of it, so only its length was checked", name);
    p->fetched += t.arrived;
    return s;
}

/* One process at a time fetches a blob: huggingface_hub's lock, of the same name. Where there are no locks, none is taken. */
static int lock_blob(const pull *p, const char *etag) {
    char path[CLI_HUB_PATH], root[CLI_HUB_PATH];
    const char *slash = strrchr(p->folder, '/');
    if (!cli_hub_root(root, sizeof root) || !slash) return -1;
    if (snprintf(path, sizeof path, "%s/.locks/%s", root, slash + 1) >= (int)sizeof path || make_dirs(path, NULL) != SILL_OK) return -1;
    size_t n = strlen(path);
    if (snprintf(path + n, sizeof path - n, "/%s.lock", etag) >= (int)(sizeof path - n)) return -1;
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    for (bool said = false; fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK && !cli_stop; said = true) {
        if (!said) cli_say("another program fetches this file; waiting");
        pause_for(0.2);
    }
    return fd;
}

/* snapshots/COMMIT/NAME becomes a link to the blob, in one step. */
static sill_status link_file(const pull *p, const char *name, const char *etag, sill_error *err) {
    char link[CLI_HUB_PATH], temp[CLI_HUB_PATH], target[1024], dir[CLI_HUB_PATH];
    size_t n = 0;
    sill_status s = path_of(link, err, p->folder, "snapshots/", p->commit);
    if (s != SILL_OK || snprintf(dir, sizeof dir, "%s/%s", link, name) >= (int)sizeof dir - 16) return sill__fail(err, SILL_ERANGE, "%s: the path is too long", name);
    memcpy(link, dir, strlen(dir) + 1);
    *strrchr(dir, '/') = 0;
    if ((s = make_dirs(dir, err)) != SILL_OK) return s;
    for (const char *c = name; *c && n < 512; c++)
        if (*c == '/') n += (size_t)snprintf(target + n, sizeof target - n, "../");
    snprintf(target + n, sizeof target - n, "../../blobs/%s", etag);
    char was[1024];
    ssize_t k = readlink(link, was, sizeof was - 1);
    if (k >= 0 && (was[k] = 0, !strcmp(was, target))) return SILL_OK;
    if (snprintf(temp, sizeof temp, "%s.%ld.new", link, (long)getpid()) >= (int)sizeof temp) return sill__fail(err, SILL_ERANGE, "%s: the path is too long", name);
    unlink(temp);
    if (symlink(target, temp) == 0 && rename(temp, link) == 0) return SILL_OK;
    s = sill__fail(err, SILL_EIO, "cannot create the link %s: %s", link, strerror(errno));
    unlink(temp);
    return s;
}

/* Where the file is, what it is called and how long it is, without its contents. */
static sill_status ask_file(pull *p, const char *name, const char *url, char etag[130], uint64_t *size, sill_error *err) {
    cli_http_head head;
    sill_status s = SILL_OK;
    for (int tries = 0; tries < MAX_TRIES; tries++) {
        if (tries) pause_for(is_on("SILL_PULL_HASTE") ? 0.01 : 0.5 * (double)(1 << tries));
        s = cli_http_run(p->http, &(cli_http_request){.url = url, .head_only = true, .local_redirects = true}, &head, err);
        if (s == SILL_ECANCELLED || (s == SILL_OK && !is_passing(head.status))) break;
    }
    if (s != SILL_OK) return s;
    if (head.status >= 400 || head.status < 200) return refused(p, &head, name, err);
    if (head.commit[0] && strcmp(head.commit, p->commit))
        return sill__fail(err, SILL_EFORMAT, "%s: asked for commit %s, and the server answers with %.40s", name, p->commit, head.commit);
    if (!etag_of(head.linked_etag[0] ? head.linked_etag : head.etag, etag))
        return sill__fail(err, SILL_EUNSUPPORTED, "%s: the server tells no ETag that a blob could be called by; is %s a hub?", name, p->endpoint);
    const int64_t n = head.linked_size >= 0 ? head.linked_size : head.status < 300 ? head.length : -1;
    *size = n >= 0 ? (uint64_t)n : UINT64_MAX;
    return SILL_OK;
}

static sill_status pull_file(pull *p, const char *name, sill_error *err) {
    char url[2048], etag[130], blob[CLI_HUB_PATH];
    uint64_t size = UINT64_MAX;
    struct stat st;
    if (snprintf(url, sizeof url, "%s/%s/resolve/%s/%s", p->endpoint, p->name, p->commit, name) >= (int)sizeof url)
        return sill__fail(err, SILL_ERANGE, "%s: the address is too long", name);
    sill_status s = ask_file(p, name, url, etag, &size, err);
    if (s == SILL_OK) s = path_of(blob, err, p->folder, "blobs/", etag);
    if (s != SILL_OK) return s;
    int lock = lock_blob(p, etag);
    if (stat(blob, &st) == 0 && S_ISREG(st.st_mode) && (size == UINT64_MAX || (uint64_t)st.st_size == size)) {
        p->kept += (uint64_t)st.st_size;
    } else {
        if (size != UINT64_MAX) cli_say("%s: %.1f MiB", name, (double)size / 1048576.0);
        else cli_say("%s", name);
        s = fetch_blob(p, name, url, etag, size, blob, err);
    }
    if (lock >= 0) close(lock);
    return s == SILL_OK ? link_file(p, name, etag, err) : s;
}

/* ---- which files */

static bool take_list(void *user, const cli_http_head *head, const void *bytes, size_t n) {
    (void)head;
    return sill__str_put(user, bytes, n);
}

/* {"sha": commit, "siblings": [{"rfilename": name}, ...]} */
static sill_status read_list(pull *p, const sill__str *text, sill_error *err) {
    sill__json j;
    sill__str s;
    char key[32];
    bool ok = true, many = false;
    sill__str_init(&s, 1024);
    sill__json_init(&j, text->p, text->n);
    ok = sill__json_find(&j, "sha", (char *)NULL) && sill__json_peek(&j) == SILL__JSON_STRING && sill__json_string(&j, &s) && cli_hub_is_commit(s.p);
    if (ok) memcpy(p->commit, s.p, 41);
    sill__json_init(&j, text->p, text->n);
    ok = ok && sill__json_find(&j, "siblings", (char *)NULL) && sill__json_enter(&j, SILL__JSON_ARRAY);
    while (ok && sill__json_next_element(&j)) {
        ok = sill__json_enter(&j, SILL__JSON_OBJECT);
        while (ok && sill__json_next_member(&j, key, sizeof key, NULL)) {
            if (strcmp(key, "rfilename") || sill__json_peek(&j) != SILL__JSON_STRING) continue;
            sill__str_clear(&s);
            ok = sill__json_string(&j, &s) && !(many = p->n_files == MAX_FILES);
            if (ok && strlen(s.p) == s.n && is_file_name(s.p)) ok = (p->files[p->n_files] = sill__strndup(s.p, s.n)) && ++p->n_files;
        }
    }
    ok = ok && !j.message;
    sill__str_free(&s);
    if (many) return sill__fail(err, SILL_EUNSUPPORTED, "%s: more than the limit of %u files in it; it is probably no model", p->name, MAX_FILES);
    return ok ? SILL_OK : sill__fail(err, SILL_EFORMAT, "%s: the answer of %s is no list of a model's files; is it a hub?", p->name, p->endpoint);
}

static sill_status ask_list(pull *p, sill_error *err) {
    char url[2048], revision[3 * CLI_HUB_REVISION + 1];
    cli_http_head head;
    sill__str text;
    size_t n = 0, n_put;
    for (const char *c = p->revision; *c; c++, n += n_put) { /* one part of the address, whatever it holds */
        n_put = *c == '/' ? 3 : 1;
        memcpy(revision + n, *c == '/' ? "%2F" : c, n_put);
    }
    revision[n] = 0;
    if (snprintf(url, sizeof url, "%s/api/models/%s/revision/%s", p->endpoint, p->name, revision) >= (int)sizeof url)
        return sill__fail(err, SILL_ERANGE, "%s: the address is too long", p->name);
    if (!(p->files = sill__calloc(MAX_FILES, sizeof *p->files))) return sill__fail(err, SILL_ENOMEM, "no memory for the list of files");
    sill__str_init(&text, MAX_LIST);
    sill_status s = SILL_OK;
    for (int tries = 0; tries < MAX_TRIES; tries++) {
        if (tries) pause_for(is_on("SILL_PULL_HASTE") ? 0.01 : 0.5 * (double)(1 << tries));
        sill__str_clear(&text);
        s = cli_http_run(p->http, &(cli_http_request){.url = url, .body = take_list, .user = &text}, &head, err);
        if (s == SILL_ECANCELLED || text.failed || (s == SILL_OK && !is_passing(head.status))) break;
    }
    if (text.failed) s = sill__fail(err, SILL_EFORMAT, "%s: a list of more than %zu bytes", p->name, MAX_LIST);
    if (s == SILL_OK && head.status != 200) s = refused(p, &head, p->name, err);
    if (s == SILL_OK) s = read_list(p, &text, err);
    sill__str_free(&text);
    if (s == SILL_OK && cli_hub_is_commit(p->revision) && strcmp(p->revision, p->commit))
        s = sill__fail(err, SILL_EFORMAT, "%s: asked for commit %s, and the server answers with %s", p->name, p->revision, p->commit);
    return s;
}

static bool has(const pull *p, const char *name) {
    for (size_t i = 0; i < p->n_files; i++)
        if (!strcmp(p->files[i], name)) return true;
    return false;
}

static bool is_shard(const char *name, const char *stem, const char *ending) {
    return !strncmp(name, stem, strlen(stem)) && sill__ends_with(name, strlen(name), ending) && strstr(name, "-of-");
}

/* What runs a model, not all that a repository holds: the weights once, in the form that sill takes first. */
static bool wanted(const pull *p, const char *name, const char *gguf) {
    static const char *const beside[] = {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "tokenizer.model",
                                         "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt", "chat_template.jinja"};
    const arg_list *own = &p->o->files;
    for (size_t i = 0; i < own->n; i++)
        if (!strcmp(own->items[i], name)) return true;
    for (size_t i = 0; i < SILL_ARRAY_LEN(beside); i++)
        if (!strcmp(beside[i], name)) return !gguf;
    if (own->n) return false;
    if (gguf) return !strcmp(name, gguf);
    if (has(p, "model.safetensors")) return !strcmp(name, "model.safetensors");
    if (has(p, "model.safetensors.index.json")) return !strcmp(name, "model.safetensors.index.json") || is_shard(name, "model-", ".safetensors");
    if (has(p, "pytorch_model.bin")) return !strcmp(name, "pytorch_model.bin");
    return !strcmp(name, "pytorch_model.bin.index.json") || is_shard(name, "pytorch_model-", ".bin");
}

static sill_status check_wanted(const pull *p, const char **gguf, sill_error *err) {
    static const char *const weights[] = {"model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json"};
    size_t n = 0;
    *gguf = NULL;
    for (size_t i = 0; i < p->o->files.n; i++) {
        const char *name = p->o->files.items[i];
        if (!has(p, name)) return sill__fail(err, SILL_ENOENT, "%s has no file %.200s at revision %s", p->name, name, p->revision);
        if (sill__ends_with(name, strlen(name), ".gguf")) *gguf = name;
    }
    if (p->o->files.n) return SILL_OK;
    for (size_t i = 0; i < SILL_ARRAY_LEN(weights); i++)
        if (has(p, weights[i])) return SILL_OK;
    for (size_t i = 0; i < p->n_files; i++)
        if (sill__ends_with(p->files[i], strlen(p->files[i]), ".gguf") && !strchr(p->files[i], '/') && !n++) *gguf = p->files[i];
    if (n == 1) return SILL_OK;
    if (n > 1) return sill__fail(err, SILL_EINVAL, "%s holds %zu .gguf files: name one, --file %s for example", p->name, n, *gguf);
    return sill__fail(err, SILL_EUNSUPPORTED, "%s holds no weights that sill reads (safetensors, pytorch_model.bin, GGUF); --file NAME fetches "
                      "a file all the same", p->name);
}

/* ---- the run */

static sill_status write_ref(const pull *p, sill_error *err) {
    char path[CLI_HUB_PATH], temp[CLI_HUB_PATH];
    if (!strcmp(p->revision, p->commit)) return SILL_OK;
    sill_status s = path_of(path, err, p->folder, "refs/", p->revision);
    if (s != SILL_OK) return s;
    memcpy(temp, path, strlen(path) + 1);
    *strrchr(temp, '/') = 0;
    if ((s = make_dirs(temp, err)) != SILL_OK) return s;
    if (snprintf(temp, sizeof temp, "%s.%ld.new", path, (long)getpid()) >= (int)sizeof temp) return sill__fail(err, SILL_ERANGE, "%s: the path is too long", path);
    int fd = open(temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    int why = fd < 0 ? errno : sill__write_all(fd, p->commit, 40, NULL);
    if (fd >= 0 && close(fd) != 0 && !why) why = errno;
    if (!why && rename(temp, path) != 0) why = errno;
    if (!why) return SILL_OK;
    s = sill__fail(err, SILL_EIO, "cannot write %s: %s", path, strerror(why));
    unlink(temp);
    return s;
}

/* HF_TOKEN, or what `hf auth login` has kept. Free with sill__free. */
static char *find_token(void) {
    const char *own = getenv("HF_TOKEN"), *path = getenv("HF_TOKEN_PATH");
    char kept[CLI_HUB_PATH], home[CLI_HUB_PATH], *text = NULL;
    size_t n = 0, at = 0;
    if (!own || !*own) own = getenv("HUGGING_FACE_HUB_TOKEN");
    if (own && *own) return sill__strndup(own, strlen(own));
    if (path && *path) snprintf(kept, sizeof kept, "%s", path);
    else if (!cli_hub_home(home, sizeof home) || !sill__path_join(kept, sizeof kept, home, "token")) return NULL;
    if (!sill__is_file(kept) || sill__read_file(kept, 4096, &text, &n, NULL) != SILL_OK) return NULL;
    while (n > 0 && (text[n - 1] == '\n' || text[n - 1] == '\r' || text[n - 1] == ' ')) text[--n] = 0;
    while (text[at] == ' ') at++;
    memmove(text, text + at, n - at + 1);
    return text;
}

static sill_status pull_all(pull *p, sill_error *err) {
    const char *gguf;
    char blobs[CLI_HUB_PATH];
    sill_status s = ask_list(p, err);
    if (s == SILL_OK) s = check_wanted(p, &gguf, err);
    if (s == SILL_OK) s = path_of(blobs, err, p->folder, "blobs", "");
    if (s == SILL_OK && !p->o->dry_run) s = make_dirs(blobs, err);
    for (size_t i = 0; s == SILL_OK && i < p->n_files; i++) {
        if (!wanted(p, p->files[i], gguf)) continue;
        if (cli_stop) s = sill__fail(err, SILL_ECANCELLED, "interrupted");
        else if (p->o->dry_run) printf("%s\n", p->files[i]);
        else s = pull_file(p, p->files[i], err);
    }
    return s == SILL_OK && !p->o->dry_run ? write_ref(p, err) : s;
}

static int say_end(const pull *p, sill_status s, const sill_error *err) {
    const double mib = 1048576.0;
    if (s == SILL_ECANCELLED) {
        fprintf(stderr, "sill: interrupted; the same command goes on from there\n");
        return EXIT_INTERRUPTED;
    }
    if (s == SILL_EINVAL) return cli_fail_model(err);
    if (s != SILL_OK) return cli_fail(err);
    if (p->o->dry_run) return cli_flush_stdout();
    cli_say("%.1f MiB fetched, %.1f MiB were there; -m %s%s%s is it", (double)p->fetched / mib, (double)p->kept / mib, p->name,
            strcmp(p->revision, "main") ? "@" : "", strcmp(p->revision, "main") ? p->revision : "");
    printf("%s/snapshots/%s\n", p->folder, p->commit);
    return cli_flush_stdout();
}

static int offline(const char *name) {
    char path[CLI_HUB_PATH];
    sill_error err = {0};
    if (cli_hub_find(name, path, sizeof path)) {
        printf("%s\n", path);
        return cli_flush_stdout();
    }
    sill__fail(&err, SILL_ENOENT, "%s is not in the cache, and HF_HUB_OFFLINE forbids to fetch it", name);
    return cli_fail(&err);
}

static const char notes[] =
    "MODEL is a name on the hub: gpt2, owner/name; name@revision is --revision. Fetched are config.json, the tokenizer's files and the\n"
    "weights once: safetensors, else pytorch_model.bin, else the only .gguf; --file NAME (again for more) takes others instead. They go\n"
    "into the cache that huggingface_hub shares (HF_HUB_CACHE, HF_HOME/hub, ~/.cache/huggingface/hub), where -m NAME finds them too,\n"
    "and the snapshot's directory is printed. What is there is not fetched again; what was cut off goes on where it ended. Every file is\n"
    "checked against its hash (SHA-256, of small ones git's; where a mirror tells none, its length, with a warning). HF_ENDPOINT: another\n"
    "hub or mirror. HF_TOKEN (or the file that `hf auth login` keeps): for private models; it is sent to the endpoint alone.\n"
    "HF_HUB_OFFLINE=1: nothing is asked of the network. libcurl does the fetching; proxies are taken from https_proxy and the like.\n";

int cli_pull(int argc, char **argv) {
    static pull_options o;
    static const arg_option own[] = {
        {"revision", 0, ARG_TEXT, offsetof(pull_options, revision), 0, 0, NULL, "REVISION", "branch, tag or commit (default: main)"},
        {"file", 0, ARG_LIST, offsetof(pull_options, files), 0, 0, NULL, "NAME", "this file, instead of the weights that would be chosen"},
        {"dry-run", 0, ARG_FLAG, offsetof(pull_options, dry_run), 0, 0, NULL, NULL, "list the files that would be fetched"},
    };
    const arg_command command = {"pull", "MODEL", "Fetches a model from a hub into the cache.",
                                 {{"pull", own, SILL_ARRAY_LEN(own), &o}, cli_general_table()}, notes, 1, 1};
    char **names, name[128], whole[512];
    int n;
    sill_error err = {0};
    pull p = {.o = &o};
    int status = args_parse(&command, argc, argv, &names, &n);
    if (status >= 0) return status;
    const char *at = strchr(names[0], '@'), *endpoint = getenv("HF_ENDPOINT");
    const size_t length = at ? (size_t)(at - names[0]) : strlen(names[0]);
    if (at && o.revision) return args_usage("pull", "%.100s names a revision, and --revision another", names[0]);
    p.revision = at ? at + 1 : o.revision ? o.revision : "main";
    if (!cli_hub_is_name(names[0], length)) return args_usage("pull", "'%.100s' is no name of a model: name or owner/name", names[0]);
    if (!cli_hub_is_revision(p.revision)) return args_usage("pull", "'%.100s' is no revision", p.revision);
    for (size_t i = 0; i < o.files.n; i++)
        if (!is_file_name(o.files.items[i])) return args_usage("pull", "--file '%.100s' is no name of a file", o.files.items[i]);
    snprintf(name, sizeof name, "%.*s", (int)length, names[0]);
    p.name = name;
    cli_show_log();
    snprintf(whole, sizeof whole, "%s@%s", name, p.revision);
    if (is_on("HF_HUB_OFFLINE")) return offline(whole);
    if (!endpoint || !*endpoint) endpoint = default_endpoint;
    size_t k = strlen(endpoint);
    while (k > 0 && endpoint[k - 1] == '/') k--;
    if (k >= sizeof p.endpoint) return args_usage("pull", "HF_ENDPOINT is too long");
    snprintf(p.endpoint, sizeof p.endpoint, "%.*s", (int)k, endpoint);
    char *token = find_token();
    sill_status s = cli_hub_folder(p.folder, sizeof p.folder, name, length) ? SILL_OK : sill__fail(&err, SILL_ERANGE, "the cache directory's name is too long");
    if (s == SILL_OK) s = cli_http_open(p.endpoint, token, &cli_stop, &p.http, &err);
    if (s == SILL_OK) s = pull_all(&p, &err);
    status = say_end(&p, s, &err);
    cli_http_close(p.http);
    for (size_t i = 0; i < p.n_files; i++) sill__free(p.files[i]);
    sill__free(p.files);
    sill__free(token);
    return status;
}
