/*
 * identity.c - the SHA-256 of a model's files. A file that was hashed before is known by device, inode, size and the time of
 * its last change: hashes/ of the cache directory holds a file of 64 characters for each. A file that changed within the
 * last two seconds is not remembered, since a next change might not show.
 */
#include "identity.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define KEEP_BYTES ((uint64_t)1 << 18) /* of remembered hashes */
#define STEP ((size_t)1 << 20)

typedef struct stamp { uint64_t device, inode, bytes, modified; } stamp;

struct cli_identity {
    cli_file_hash *files;
    char **paths;
    stamp *stamps;
    size_t n, cap;
    sill__str id;
    char all[65], tokenizer[65];
    const volatile int *stop;
    atomic_bool ready, give_up;
    pthread_t thread;
    bool runs, failed;
};

static bool stamp_of(const char *path, stamp *out) {
    struct stat st;
    if (stat(path, &st) != 0 || !S_ISREG(st.st_mode)) return false;
#ifdef __APPLE__
    struct timespec t = st.st_mtimespec;
#else
    struct timespec t = st.st_mtim;
#endif
    *out = (stamp){(uint64_t)st.st_dev, (uint64_t)st.st_ino, (uint64_t)st.st_size, (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec};
    return true;
}

static bool ends(const char *s, const char *tail) {
    size_t n = strlen(s), k = strlen(tail);
    return n >= k && !strcmp(s + n - k, tail);
}

static const char *const tokenizer_files[] = {"tokenizer.json", "vocab.json", "merges.txt", "encoder.json", "vocab.bpe", "gpt2_tokenizer.bin",
                                              "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja",
                                              "chat_template.json"};

static bool of_tokenizer(const char *name) {
    for (size_t i = 0; i < SILL_ARRAY_LEN(tokenizer_files); i++)
        if (!strcmp(name, tokenizer_files[i])) return true;
    return false;
}

static bool of_config(const char *name) { return !strcmp(name, "config.json") || !strcmp(name, "generation_config.json"); }

/* Weights of other programs: of a directory they count where there are neither safetensors nor GGUF. */
static bool of_checkpoint(const char *name) {
    return ends(name, ".bin") || ends(name, ".pt") || ends(name, ".pth") || ends(name, ".bin.index.json") || ends(name, ".index") ||
           strstr(name, ".data-") || !strcmp(name, "hparams.json");
}

static bool is_main(const char *name) { return ends(name, ".safetensors") || ends(name, ".gguf"); }

static bool of_model(const char *name) {
    return of_tokenizer(name) || of_config(name) || ends(name, ".safetensors") || ends(name, ".safetensors.index.json") || ends(name, ".gguf");
}

/* NAME belongs to the checkpoint that is named itself, NAMED: it, what lies beside a TensorFlow index. */
static bool of_named(const char *name, const char *named) {
    const size_t stem = strlen(named) - (ends(named, ".index") ? strlen(".index") : 0);
    return !strcmp(name, named) || (named[stem] && (!strcmp(name, "hparams.json") || (!strncmp(name, named, stem) && !strncmp(name + stem, ".data-", 6))));
}

static void add_file(cli_identity *k, const char *path, const char *name, bool tokenizer) {
    stamp st;
    if (k->failed || !stamp_of(path, &st)) return;
    if (k->n == k->cap) {
        size_t cap = k->cap ? k->cap * 2 : 16;
        cli_file_hash *files = sill__realloc(k->files, cap * sizeof *files);
        if (files) k->files = files;
        char **paths = files ? sill__realloc(k->paths, cap * sizeof *paths) : NULL;
        if (paths) k->paths = paths;
        stamp *stamps = paths ? sill__realloc(k->stamps, cap * sizeof *stamps) : NULL;
        if (stamps) k->stamps = stamps;
        k->failed = !stamps;
        if (k->failed) return;
        k->cap = cap;
    }
    cli_file_hash f = {.name = sill__strndup(name, strlen(name)), .bytes = st.bytes, .tokenizer = tokenizer};
    k->paths[k->n] = sill__strndup(path, strlen(path));
    k->stamps[k->n] = st;
    k->files[k->n++] = f;
    k->failed = !f.name || !k->paths[k->n - 1];
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

/* The files of DIR; of the weights only those of NAMED unless that is NULL. The tokenizer's count unless it is ELSEWHERE. */
static void add_dir(cli_identity *k, const char *dir, const char *named, bool elsewhere) {
    char **names = NULL, path[4096];
    size_t n = 0, cap = 0;
    bool has_main = false;
    DIR *d = opendir(dir);
    for (struct dirent *e; d && (e = readdir(d));) {
        if (!of_model(e->d_name) && !of_checkpoint(e->d_name) && !(named && !strcmp(e->d_name, named))) continue;
        has_main = has_main || is_main(e->d_name);
        if (n == cap) {
            char **p = sill__realloc(names, (cap = cap ? 2 * cap : 32) * sizeof *p);
            if (!p) break;
            names = p;
        }
        if ((names[n] = sill__strndup(e->d_name, strlen(e->d_name)))) n++;
    }
    if (d) closedir(d);
    if (n) qsort(names, n, sizeof *names, by_name);
    for (size_t i = 0; i < n; i++) {
        const bool tokenizer = of_tokenizer(names[i]);
        const bool counts = tokenizer ? !elsewhere : of_config(names[i]) || (named ? of_named(names[i], named) : of_model(names[i]) || !has_main);
        if (counts && sill__path_join(path, sizeof path, dir, names[i])) add_file(k, path, names[i], tokenizer);
        sill__free(names[i]);
    }
    sill__free(names);
}

/* The directory of PATH; false when its name is too long. */
static bool dir_of(const char *path, char out[4096]) {
    const char *slash = strrchr(path, '/');
    int n = snprintf(out, 4096, "%.*s", slash ? (int)SILL_MAX(slash - path, (ptrdiff_t)1) : 1, slash ? path : ".");
    return n > 0 && n < 4096;
}

/* What --tokenizer names: a file counts with those that are read beside it. */
static void add_tokenizer(cli_identity *k, const char *path) {
    char dir[4096], file[4096];
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    const bool whole = sill__is_dir(path);
    if (!whole && !of_tokenizer(name)) add_file(k, path, name, true);
    if (ends(path, ".gguf") || !(whole ? snprintf(dir, sizeof dir, "%s", path) < (int)sizeof dir : dir_of(path, dir))) return;
    for (size_t i = 0; i < SILL_ARRAY_LEN(tokenizer_files); i++)
        if (sill__path_join(file, sizeof file, dir, tokenizer_files[i])) add_file(k, file, tokenizer_files[i], true);
}

/* ---- hashing */

static void entry_name(const stamp *st, char out[80]) {
    uint8_t digest[32];
    sill__sha256 s;
    sill__sha256_init(&s);
    sill__sha256_update(&s, st, sizeof *st);
    sill__sha256_final(&s, digest);
    sill__sha256_hex(digest, out);
    memcpy(out + 64, ".sha256", 8);
}

static bool remembered(const stamp *st, char out[65]) {
    char name[80];
    int dir = sill__cache_dir("hashes", false);
    if (dir < 0) return false;
    entry_name(st, name);
    int fd = sill__cache_open(dir, name, 64);
    bool ok = fd >= 0 && sill__pread_all(fd, out, 64, 0) == 0;
    for (int i = 0; ok && i < 64; i++) ok = (out[i] >= '0' && out[i] <= '9') || (out[i] >= 'a' && out[i] <= 'f');
    out[ok ? 64 : 0] = 0;
    if (fd >= 0) close(fd);
    close(dir);
    return ok;
}

static void remember(const stamp *st, const char sha256[65]) {
    char name[80], temp[256];
    if (st->modified + 2000000000u > sill__clock_ns()) return;
    int dir = sill__cache_dir("hashes", true);
    if (dir < 0) return;
    entry_name(st, name);
    int fd = sill__cache_begin(dir, name, 64, temp, sizeof temp);
    if (fd >= 0) sill__cache_end(dir, fd, temp, name, sill__write_all(fd, sha256, 64, NULL) == 0);
    sill__cache_trim(dir, ".sha256", name, KEEP_BYTES);
    close(dir);
}

static bool given_up(const cli_identity *k) { return atomic_load(&k->give_up) || (k->stop && *k->stop); }

static bool hash_file(cli_identity *k, size_t i) {
    uint8_t digest[32], *buffer;
    sill__sha256 s;
    stamp now;
    ssize_t n = -1;
    if (remembered(&k->stamps[i], k->files[i].sha256)) return true;
    int fd = open(k->paths[i], O_RDONLY | O_CLOEXEC);
    buffer = fd >= 0 ? sill__alloc(STEP) : NULL; /* read, not mapped: the process stays as small as it is */
    sill__sha256_init(&s);
    while (buffer && !given_up(k) && (n = read(fd, buffer, STEP)) > 0) sill__sha256_update(&s, buffer, (size_t)n);
    bool whole = n == 0;
    if (fd >= 0) close(fd);
    sill__free(buffer);
    sill__sha256_final(&s, digest);
    if (!whole || !stamp_of(k->paths[i], &now) || memcmp(&now, &k->stamps[i], sizeof now)) return false; /* changed meanwhile */
    sill__sha256_hex(digest, k->files[i].sha256);
    remember(&now, k->files[i].sha256);
    return true;
}

static void join(const cli_identity *k, bool tokenizer, char out[65]) {
    uint8_t digest[32];
    size_t n = 0, one = 0;
    sill__sha256 s;
    sill__sha256_init(&s);
    for (size_t i = 0; i < k->n; i++) {
        const cli_file_hash *f = &k->files[i];
        if (tokenizer && !f->tokenizer && k->n > 1) continue;
        sill__sha256_update(&s, f->sha256, 64);
        sill__sha256_update(&s, "  ", 2);
        sill__sha256_update(&s, f->name, strlen(f->name));
        sill__sha256_update(&s, "\n", 1);
        n++;
        one = i;
    }
    sill__sha256_final(&s, digest);
    sill__sha256_hex(digest, out);
    if (n == 1) memcpy(out, k->files[one].sha256, 65);
    if (n == 0) out[0] = 0;
}

static void *work(void *user) {
    cli_identity *k = user;
    bool ok = k->n > 0 && !k->failed;
    for (size_t i = 0; ok && i < k->n; i++) ok = hash_file(k, i);
    if (ok) {
        join(k, false, k->all);
        join(k, true, k->tokenizer);
    }
    atomic_store(&k->ready, true);
    return NULL;
}

cli_identity *cli_identity_start(const char *path, const char *tokenizer, const volatile int *stop) {
    char dir[4096];
    cli_identity *k = sill__calloc(1, sizeof *k);
    if (!k) return NULL;
    k->stop = stop;
    sill__str_init(&k->id, (size_t)1 << 20);
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    if (sill__is_dir(path)) add_dir(k, path, NULL, tokenizer);
    else if (ends(path, ".gguf") || !dir_of(path, dir)) add_file(k, path, name, false);
    else add_dir(k, dir, of_model(name) ? NULL : name, tokenizer); /* one of a directory's files: others count too */
    if (tokenizer) add_tokenizer(k, tokenizer);
    for (size_t i = 0; i < k->n; i++)
        sill__str_putf(&k->id, "%s%llu:%llu:%llu:%llu", i ? " " : "", (unsigned long long)k->stamps[i].device,
                       (unsigned long long)k->stamps[i].inode, (unsigned long long)k->stamps[i].bytes, (unsigned long long)k->stamps[i].modified);
    k->runs = pthread_create(&k->thread, NULL, work, k) == 0;
    if (!k->runs) work(k);
    return k;
}

static void finish(cli_identity *k) {
    if (k->runs) pthread_join(k->thread, NULL);
    k->runs = false;
}

const char *cli_identity_id(const cli_identity *k) { return k->id.p ? k->id.p : ""; }
bool cli_identity_ready(cli_identity *k) { return atomic_load(&k->ready); }
const char *cli_identity_sha256(cli_identity *k) {
    finish(k);
    return k->all;
}
const char *cli_identity_tokenizer(cli_identity *k) {
    finish(k);
    return k->tokenizer;
}
const cli_file_hash *cli_identity_files(cli_identity *k, size_t *n) {
    finish(k);
    *n = k->n;
    return k->files;
}

void cli_identity_free(cli_identity *k) {
    if (!k) return;
    atomic_store(&k->give_up, true);
    finish(k);
    for (size_t i = 0; i < k->n; i++) {
        sill__free(k->files[i].name);
        sill__free(k->paths[i]);
    }
    sill__free(k->files);
    sill__free(k->paths);
    sill__free(k->stamps);
    sill__str_free(&k->id);
    sill__free(k);
}
