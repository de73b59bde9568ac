/*
 * quantize_out.c - where sill quantize writes: which names are free or may be replaced, the output on its way that one run
 * owns, and how it gets its name. Nothing is removed here but what sill writes itself.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "task/quantize.h"

const char *const sill__model_files[] = {
    "config.json", "model.safetensors", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "tokenizer.model",
    "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt", "chat_template.jinja", NULL};

static bool there(const char *path, struct stat *st) { return lstat(path, st) == 0; }

static bool is_one(const struct stat *a, const struct stat *b) { return a->st_dev == b->st_dev && a->st_ino == b->st_ino; }

static bool is_at(const char *path, const struct stat *st) {
    struct stat other;
    return path && *path && stat(path, &other) == 0 && is_one(&other, st);
}

sill_status sill__output_names(sill__output *o, const char *out, sill_error *err) {
    size_t n = strlen(out);
    while (n > 1 && out[n - 1] == '/') n--;
    if (n == 0 || n + 32 >= sizeof o->out) return sill__fail(err, SILL_EINVAL, "the output needs a name of 1 to %zu bytes", sizeof o->out - 32);
    snprintf(o->out, sizeof o->out, "%.*s", (int)n, out);
    snprintf(o->partial, sizeof o->partial, "%.*s.partial", (int)n, out);
    snprintf(o->record, sizeof o->record, "%.*s.certificate.json", (int)n, out);
    snprintf(o->record_partial, sizeof o->record_partial, "%.*s.certificate.partial", (int)n, out);
    snprintf(o->spool, sizeof o->spool, "%.*s.logits.partial", (int)n, out);
    snprintf(o->old, sizeof o->old, "%.*s.old", (int)n, out);
    const char *last = strrchr(o->out, '/');
    struct stat st;
    last = last ? last + 1 : o->out;
    if (!*last || !strcmp(last, ".") || !strcmp(last, "..") || (stat(o->out, &st) == 0 && (is_at(".", &st) || is_at("/", &st))))
        return sill__fail(err, SILL_EINVAL, "%s is the working directory, one above it or the root; name a new output", o->out);
    return SILL_OK;
}

/* ---- what must not be lost */

const char *sill__output_is_read(const sill__output_reads *r, const struct stat *st) {
    static const char *const more[] = {"model.safetensors.index.json", "pytorch_model.bin.index.json", "encoder.json", "vocab.bpe", "hparams.json",
                                       "gpt2_tokenizer.bin", NULL};
    const char *const *const lists[] = {sill__model_files, more};
    char path[SILL__OUT_PATH];
    if (is_at(r->model, st) || is_at(sill__file_path(r->file), st)) return "the model itself";
    if (sill__file_is_part(r->file, (uint64_t)st->st_dev, (uint64_t)st->st_ino)) return "a file of the model's weights";
    if (is_at(r->text, st)) return "the text";
    const char *dir = sill__file_dir(r->file);
    if (!*dir) return NULL;
    if (is_at(dir, st)) return "the directory of the model";
    for (size_t i = 0; i < SILL_ARRAY_LEN(lists); i++)
        for (const char *const *name = lists[i]; *name; name++)
            if (sill__path_join(path, sizeof path, dir, *name) && is_at(path, st)) return "a file that is read with the model";
    return NULL;
}

static bool is_ours(const char *name) {
    for (const char *const *p = sill__model_files; *p; p++)
        if (!strcmp(*p, name)) return true;
    return false;
}

/* A directory may be replaced when it holds nothing but files with names that are written here. */
static sill_status check_entries(const char *program, const char *path, const sill__output_reads *r, sill_error *err) {
    char inside[SILL__OUT_PATH];
    sill_status s = SILL_OK;
    struct stat st, at;
    DIR *d = opendir(path);
    if (!d) return sill__fail(err, SILL_EIO, "cannot read the directory %s: %s", path, strerror(errno));
    for (struct dirent *e; s == SILL_OK && (e = readdir(d));) {
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
        const char *what = NULL;
        if (!is_ours(e->d_name) || !sill__path_join(inside, sizeof inside, path, e->d_name) || !there(inside, &st) || !S_ISREG(st.st_mode))
            s = sill__fail(err, SILL_EINVAL, "%s holds %.200s, which %s does not write: it is not replaced; name a new output",
                           path, e->d_name, program);
        else if (r && stat(inside, &at) == 0 && (what = sill__output_is_read(r, &at)))
            s = sill__fail(err, SILL_EINVAL, "%s is %s; name another output", inside, what);
    }
    closedir(d);
    return s;
}

/* Removes the files that sill writes; what else is there stays. */
static void empty_directory(const char *path) {
    char inside[SILL__OUT_PATH];
    struct stat st;
    for (const char *const *p = sill__model_files; *p; p++)
        if (sill__path_join(inside, sizeof inside, path, *p) && there(inside, &st) && S_ISREG(st.st_mode)) unlink(inside);
}

/* ---- before any work */

sill_status sill__output_check(const sill__output *o, const sill__output_reads *r, sill_error *err) {
    const char *const paths[] = {o->out, o->record, o->partial, o->record_partial, o->spool};
    struct stat st, at;
    for (size_t i = 0; i < SILL_ARRAY_LEN(paths); i++) {
        const bool directory = o->directory && (i == 0 || i == 2);
        const char *what;
        if (!there(paths[i], &st)) continue;
        if (stat(paths[i], &at) == 0 && (what = sill__output_is_read(r, &at)))
            return sill__fail(err, SILL_EINVAL, "%s is %s; name another output", paths[i], what);
        if (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode))
            return sill__fail(err, SILL_EINVAL, "%s is neither a file nor a directory", paths[i]);
        if (S_ISDIR(st.st_mode) != directory)
            return sill__fail(err, SILL_EINVAL, "%s is a %s, but %s writes a %s", paths[i], directory ? "file" : "directory",
                              o->kind, directory ? "directory" : "file");
        if (!o->overwrite)
            return sill__fail(err, SILL_EINVAL, "%s exists%s; --overwrite replaces it", paths[i],
                              i >= 2 ? " (another run writes it, or was interrupted)" : "");
        sill_status s = directory ? check_entries(o->program, paths[i], r, err) : SILL_OK;
        if (s != SILL_OK) return s;
    }
    if (o->directory && there(o->out, &st) && there(o->old, &at))
        return sill__fail(err, SILL_EINVAL, "%s exists; the present %s would be put there: move it away first", o->old, o->out);
    return SILL_OK;
}

/* ---- the output on its way */

/* The partial output is still the one that this run locked. */
static bool is_owned(const sill__output *o) {
    struct stat mine, st;
    return o->lock >= 0 && fstat(o->lock, &mine) == 0 && there(o->partial, &st) && is_one(&mine, &st);
}

static int open_partial(const sill__output *o, bool *made) {
    int fd;
    *made = true;
    if (o->directory) {
        *made = mkdir(o->partial, 0777) == 0;
        return *made || errno == EEXIST ? open(o->partial, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC) : -1;
    }
    fd = open(o->partial, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd >= 0 || errno != EEXIST) return fd;
    *made = false;
    return open(o->partial, O_WRONLY | O_NOFOLLOW | O_CLOEXEC);
}

/* The lock goes with the file: another run has renamed its output already, and its certificate not yet. */
static bool is_being_published(const sill__output *o) {
    const int fd = open(o->out, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) return false;
    const bool busy = flock(fd, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK;
    close(fd);
    return busy;
}

sill_status sill__output_claim(sill__output *o, sill_error *err) {
    bool made = false;
    sill_status s = SILL_OK;
    for (int tries = 0; o->lock < 0; tries++) {
        int fd = open_partial(o, &made);
        if (fd < 0 && errno == ENOENT && !made && tries < 8) continue; /* whoever had it has just ended */
        if (fd < 0)
            return sill__fail(err, errno == ENOENT ? SILL_ENOENT : SILL_EIO, "cannot create %s: %s", o->partial, strerror(errno));
        o->lock = fd;
        /* A file system without locks: what this run created is its own all the same. */
        const bool locked = flock(fd, LOCK_EX | LOCK_NB) == 0, busy = !locked && errno == EWOULDBLOCK;
        if (busy || (!made && !(o->overwrite && locked)))
            s = sill__fail(err, SILL_EINVAL, "%s exists: another run %s it%s", o->partial, busy ? "writes" : "writes, or left",
                           busy ? "" : "; --overwrite replaces one that was left");
        else if (is_owned(o)) break;
        close(fd);
        o->lock = -1;
        if (s != SILL_OK) return s;
        if (tries == 8) return sill__fail(err, SILL_EIO, "cannot create %s: other runs replace it", o->partial);
    }
    if (made && o->overwrite && is_being_published(o)) {
        if (o->directory) rmdir(o->partial);
        else unlink(o->partial);
        s = sill__fail(err, SILL_EINVAL, "%s: another run gives it its name just now", o->out);
    }
    if (!made && o->directory && (s = check_entries(o->program, o->partial, NULL, err)) == SILL_OK) empty_directory(o->partial);
    if (!made && !o->directory && ftruncate(o->lock, 0) != 0) s = sill__fail(err, SILL_EIO, "cannot write %s: %s", o->partial, strerror(errno));
    if (s == SILL_OK) {
        if (o->overwrite) unlink(o->record_partial); /* regular files: sill__output_check; they may be left without the model */
        if (o->overwrite) unlink(o->spool);
        return SILL_OK;
    }
    close(o->lock);
    o->lock = -1;
    return s;
}

/* ---- its name */

static sill_status publish_failed(sill__output *o, const char *what, sill_error *err) {
    o->keep = true;
    return sill__fail(err, SILL_EIO, "cannot rename %s to %s: %s; the new model is kept as %s", o->partial, o->out, what, o->partial);
}

/* The certificate of an earlier output never stands beside another model, whenever the run ends. */
static void drop_record(const sill__output *o) {
    struct stat st;
    if (o->overwrite && there(o->record, &st) && S_ISREG(st.st_mode)) unlink(o->record);
}

static sill_status publish_model(sill__output *o, sill_error *err) {
    struct stat st;
    const bool was = there(o->out, &st);
    if (was && !o->overwrite) return publish_failed(o, "it has appeared meanwhile", err);
    if (!was || !o->directory) {
        drop_record(o);
        return rename(o->partial, o->out) == 0 ? SILL_OK : publish_failed(o, strerror(errno), err);
    }
    /* A directory cannot be replaced in one step. */
    if (rename(o->out, o->old) != 0) return publish_failed(o, strerror(errno), err);
    drop_record(o);
    if (rename(o->partial, o->out) != 0) {
        const int e = errno;
        if (rename(o->old, o->out) != 0) sill__log(1, "what was %s is %s", o->out, o->old);
        return publish_failed(o, strerror(e), err);
    }
    empty_directory(o->old);
    if (rmdir(o->old) != 0) sill__log(1, "the replaced output is kept as %s: %s", o->old, strerror(errno));
    return SILL_OK;
}

sill_status sill__output_publish(sill__output *o, bool record, sill_error *err) {
    sill_status s = publish_model(o, err);
    if (s != SILL_OK) return s;
    if (record && rename(o->record_partial, o->record) != 0)
        return sill__fail(err, SILL_EIO, "%s is whole and in place, but its certificate stays %s: cannot rename it to %s: %s", o->out,
                          o->record_partial, o->record, strerror(errno));
    return SILL_OK;
}

void sill__output_end(sill__output *o) {
    if (o->lock < 0) return;
    if (!o->keep && is_owned(o)) {
        unlink(o->record_partial);
        if (o->directory) empty_directory(o->partial);
        if (o->directory) rmdir(o->partial);
        else unlink(o->partial);
    }
    close(o->lock);
    o->lock = -1;
}
