/*
 * Preloaded into sill by test_resume.py: ends the process without a word (SIGKILL) in front of the N-th call that changes
 * files (FAULTS_KILL=N), writes how many there were (FAULTS_COUNT=file), or has no file locks (FAULTS_LOCKS=1), as some
 * network file systems, or says that a disk has so many bytes free (FAULTS_FREE=N).
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/statvfs.h>
#include <unistd.h>

static long calls, at = -1;

static void step(void) {
    if (at < 0) at = getenv("FAULTS_KILL") ? atol(getenv("FAULTS_KILL")) : 0;
    if (++calls == at) raise(SIGKILL);
}

#define REAL(type, name, ...) type (*real)(__VA_ARGS__) = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

int fsync(int fd) { REAL(int, "fsync", int); step(); return real(fd); }
int fdatasync(int fd) { REAL(int, "fdatasync", int); step(); return real(fd); }
int unlink(const char *p) { REAL(int, "unlink", const char *); step(); return real(p); }
int rename(const char *a, const char *b) { REAL(int, "rename", const char *, const char *); step(); return real(a, b); }
int link(const char *a, const char *b) { REAL(int, "link", const char *, const char *); step(); return real(a, b); }
int ftruncate(int fd, off_t n) { REAL(int, "ftruncate", int, off_t); step(); return real(fd, n); }
int ftruncate64(int fd, off64_t n) { REAL(int, "ftruncate64", int, off64_t); step(); return real(fd, n); }
ssize_t write(int fd, const void *p, size_t n) {
    REAL(ssize_t, "write", int, const void *, size_t);
    if (fd > 2) step();
    return real(fd, p, n);
}
ssize_t pwrite(int fd, const void *p, size_t n, off_t o) { REAL(ssize_t, "pwrite", int, const void *, size_t, off_t); step(); return real(fd, p, n, o); }
ssize_t pwrite64(int fd, const void *p, size_t n, off64_t o) { REAL(ssize_t, "pwrite64", int, const void *, size_t, off64_t); step(); return real(fd, p, n, o); }

static int no_lock(int command) { return getenv("FAULTS_LOCKS") && (command == F_SETLK || command == F_SETLKW || command == F_GETLK); }
#define FCNTL(name)                                          \
    int name(int fd, int command, ...) {                     \
        REAL(int, #name, int, int, void *);                  \
        va_list ap;                                          \
        va_start(ap, command);                               \
        void *p = va_arg(ap, void *);                        \
        va_end(ap);                                          \
        if (no_lock(command)) { errno = ENOLCK; return -1; } \
        return real(fd, command, p);                         \
    }
FCNTL(fcntl)
FCNTL(fcntl64)
int flock(int fd, int operation) {
    REAL(int, "flock", int, int);
    if (getenv("FAULTS_LOCKS")) { errno = ENOLCK; return -1; }
    return real(fd, operation);
}

#define STATVFS(name, type)                                                                                       \
    int name(int fd, struct type *v) {                                                                            \
        REAL(int, #name, int, struct type *);                                                                     \
        int rc = real(fd, v);                                                                                     \
        if (rc == 0 && getenv("FAULTS_FREE")) v->f_bavail = strtoull(getenv("FAULTS_FREE"), NULL, 10) / v->f_frsize; \
        return rc;                                                                                                \
    }
STATVFS(fstatvfs, statvfs)
STATVFS(fstatvfs64, statvfs64)

__attribute__((destructor)) static void tell(void) {
    const char *path = getenv("FAULTS_COUNT");
    FILE *f = path ? fopen(path, "w") : NULL;
    if (f) { fprintf(f, "%ld\n", calls); fclose(f); }
}
