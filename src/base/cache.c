/*
 * cache.c - the user's cache directory: private files that only save time, may vanish at any moment, and are never a
 * reason to fail. What is not this user's alone to write is not used, symbolic links are not followed, and files
 * appear whole under their names or not at all.
 */
#include "base/base.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#define MAX_PATH 1024
#define TEMP_SUFFIX ".new"
#define TEMP_SECONDS 3600 /* a temporary file older than this was left behind */

bool sill__cache_path(char *out, size_t cap, const char *sub) {
    const char *cache = getenv("SILL_CACHE"), *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    int n = -1;
    if (cache && *cache) n = snprintf(out, cap, "%s/%s", cache, sub);
    else if (xdg && *xdg) n = snprintf(out, cap, "%s/sill/%s", xdg, sub);
#ifdef __APPLE__
    else n = snprintf(out, cap, "%s/Library/Caches/sill/%s", home ? home : "", sub);
#else
    else n = snprintf(out, cap, "%s/.cache/sill/%s", home ? home : "", sub);
#endif
    return n > 0 && (size_t)n < cap;
}

/* This user's, and nobody else may write. */
static bool is_private(const struct stat *st) { return st->st_uid == geteuid() && (st->st_mode & 022) == 0; }

int sill__cache_dir(const char *sub, bool make) {
    char path[MAX_PATH];
    struct stat st;
    const char *cache = getenv("SILL_CACHE"), *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    if ((!cache || !*cache) && (!xdg || !*xdg) && (!home || !*home)) return -1;
    if (!sill__cache_path(path, sizeof path, sub)) return -1;
    for (char *p = path + 1; make && *p; p++) {
        if (*p != '/') continue;
        *p = 0;
        mkdir(path, 0700); /* what matters is whether it is there in the end */
        *p = '/';
    }
    if (make) mkdir(path, 0700);
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd >= 0 && (fstat(fd, &st) != 0 || !is_private(&st))) {
        close(fd);
        fd = -1;
    }
    return fd;
}

int sill__cache_open(int dir, const char *name, uint64_t bytes) {
    struct stat st;
    int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) return -1;
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && is_private(&st) && (uint64_t)st.st_size == bytes) {
        futimens(fd, NULL); /* used just now: the last to be removed */
        return fd;
    }
    close(fd);
    return -1;
}

/* A limit on the size of files whose signal would end the process, or a disk that this would leave all but full. */
static bool has_room(int dir, uint64_t bytes) {
    struct rlimit limit;
    struct sigaction action;
    struct statvfs fs;
    if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY && limit.rlim_cur < bytes &&
        (sigaction(SIGXFSZ, NULL, &action) != 0 || action.sa_handler == SIG_DFL))
        return false;
    return fstatvfs(dir, &fs) != 0 || (uint64_t)fs.f_bavail * (uint64_t)fs.f_frsize / 2 >= bytes;
}

int sill__cache_begin(int dir, const char *name, uint64_t bytes, char *temp, size_t cap) {
    if (!has_room(dir, bytes)) return -1;
    for (int i = 0; i < 16; i++) {
        int n = snprintf(temp, cap, "%s.%ld.%d" TEMP_SUFFIX, name, (long)getpid(), i);
        if (n < 0 || (size_t)n >= cap) return -1;
        int fd = openat(dir, temp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
        if (fd >= 0 || errno != EEXIST) return fd;
    }
    return -1;
}

bool sill__cache_end(int dir, int fd, const char *temp, const char *name, bool whole) {
    if (close(fd) != 0) whole = false;
    if (whole && renameat(dir, temp, dir, name) == 0) return true;
    unlinkat(dir, temp, 0);
    return false;
}

static uint64_t used_ns(const struct stat *st) {
#ifdef __APPLE__
    struct timespec t = st->st_mtimespec;
#else
    struct timespec t = st->st_mtim;
#endif
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Bytes of all files of SUFFIX but BUT; the oldest one's name. Temporary files left behind are removed. */
static uint64_t survey(DIR *d, const char *suffix, const char *but, char oldest[256]) {
    uint64_t total = 0, first = 0;
    time_t now = time(NULL);
    oldest[0] = 0;
    rewinddir(d);
    for (struct dirent *e; (e = readdir(d));) {
        struct stat st;
        size_t n = strlen(e->d_name);
        /* (with something in front) */
        bool temp = sill__ends_with(e->d_name + 1, n - 1, TEMP_SUFFIX);
        if (n >= 256 || (!temp && !sill__ends_with(e->d_name + 1, n - 1, suffix)) || !strcmp(e->d_name, but) ||
            fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISREG(st.st_mode))
            continue;
        if (temp && st.st_mtime < now - TEMP_SECONDS && unlinkat(dirfd(d), e->d_name, 0) == 0) continue;
        total += (uint64_t)st.st_size;
        if (temp || (oldest[0] && used_ns(&st) >= first)) continue;
        first = used_ns(&st);
        memcpy(oldest, e->d_name, n + 1);
    }
    return total;
}

void sill__cache_trim(int dir, const char *suffix, const char *but, uint64_t keep) {
    char oldest[256];
    int fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
    if (!d) {
        if (fd >= 0) close(fd);
        return;
    }
    while (survey(d, suffix, but, oldest) > keep && oldest[0])
        if (unlinkat(dir, oldest, 0) != 0) break;
    closedir(d);
}
