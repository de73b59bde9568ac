/*
 * lock.c - TARGET.lock: one line, HOST PID START, where START tells a process from a later one of the same number. It is
 * made by link(2), which network file systems do in one step where they have no locks, from a file TARGET.lock.PID.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "journal.h"

#define LINE 512

/* When a process began, in ticks since the system did; 0 where the system does not tell. */
static unsigned long long started(long pid) {
    char path[64], text[1024];
    unsigned long long ticks = 0;
    snprintf(path, sizeof path, "/proc/%ld/stat", pid);
    FILE *f = fopen(path, "re");
    if (!f) return 0;
    size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[n] = 0;
    char *p = strrchr(text, ')'); /* the name in front may hold anything */
    for (int i = 0; p && i < 20; i++) p = strchr(p + 1, ' ');
    if (p) ticks = strtoull(p, NULL, 10);
    return ticks;
}

static void own_line(char line[LINE]) {
    char host[256] = "";
    if (gethostname(host, sizeof host - 1) != 0 || !host[0]) snprintf(host, sizeof host, "localhost");
    for (char *p = host; *p; p++)
        if (*p == ' ' || *p == '\n') *p = '_';
    snprintf(line, LINE, "%s %ld %llu\n", host, (long)getpid(), started((long)getpid()));
}

static bool read_line(const char *path, char line[LINE]) {
    FILE *f = fopen(path, "re");
    line[0] = 0;
    if (!f) return false;
    size_t n = fread(line, 1, LINE - 1, f);
    fclose(f);
    line[n] = 0;
    return true;
}

static int make_file(const char *path, const char *line) {
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd < 0) return errno;
    int why = sill__write_all(fd, line, strlen(line), NULL);
    if (close(fd) != 0 && !why) why = errno;
    if (why) unlink(path);
    return why;
}

/* The lock with LINE in it: 0, EEXIST, or why not. */
static int make(const char *path, const char *temp, const char *line) {
    unlink(temp); /* of an earlier process of this number */
    int why = make_file(temp, line);
    if (why) return why;
    why = link(temp, path) == 0 ? 0 : errno;
    unlink(temp);
    return why == EPERM || why == ENOTSUP || why == ENOSYS || why == EMLINK ? make_file(path, line) : why;
}

typedef enum holder { GONE, RUNS, ELSEWHERE, UNREADABLE } holder;

static holder who(const char *line, const char *own, char host[256], long *pid) {
    char mine[256];
    long my_pid;
    unsigned long long start, my_start;
    if (sscanf(line, "%255s %ld %llu", host, pid, &start) != 3 || *pid < 1) return UNREADABLE;
    if (sscanf(own, "%255s %ld %llu", mine, &my_pid, &my_start) != 3 || strcmp(mine, host)) return ELSEWHERE;
    if (kill((pid_t)*pid, 0) != 0 && errno == ESRCH) return GONE;
    unsigned long long now = started(*pid);
    return start && now && now != start ? GONE : RUNS;
}

static sill_status refuse(holder h, const char *path, const char *host, long pid, sill_error *err) {
    if (h == RUNS) return sill__fail(err, SILL_EINVAL, "another run, process %ld, is writing this output (%s); wait for it, or end it", pid, path);
    if (h == ELSEWHERE)
        return sill__fail(err, SILL_EINVAL, "process %ld on host %s is writing this output, or was when it ended (%s); if no run "
                          "is left there, remove that file and give the same command again", pid, host, path);
    return sill__fail(err, SILL_EINVAL, "%s is no lock of sill, or torn; if no run is writing this output, remove it and give the "
                      "same command again", path);
}

/* A lock that is left of a process that is gone: moved aside, and looked at again, since another may have been quicker. */
static bool take_over(const char *path, const char *aside, const char *line) {
    char now[LINE];
    if (rename(path, aside) != 0) return false;
    bool same = read_line(aside, now) && !strcmp(now, line);
    if (!same && link(aside, path) != 0) {} /* the other's: back where it was */
    unlink(aside);
    return same;
}

/* Removes what processes that are gone left of making the lock. Should it be another host's, that one makes it again. */
static void sweep(const char *path) {
    const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path;
    char *dir = slash ? sill__strndup(path, (size_t)(slash - path)) : sill__strndup(".", 1), file[4096];
    size_t n = strlen(base);
    DIR *d = dir ? opendir(dir[0] ? dir : "/") : NULL;
    for (struct dirent *e; d && (e = readdir(d));) {
        char *end = NULL;
        if (strncmp(e->d_name, base, n) || e->d_name[n] != '.') continue;
        long pid = strtol(e->d_name + n + 1, &end, 10);
        bool gone = pid > 0 && !*end && kill((pid_t)pid, 0) != 0 && errno == ESRCH;
        if (gone && sill__path_join(file, sizeof file, dir[0] ? dir : "/", e->d_name)) unlink(file);
    }
    if (d) closedir(d);
    sill__free(dir);
}

sill_status cli_lock_take(cli_lock *lock, const char *target, sill_error *err) {
    char own[LINE], line[LINE], host[256] = "";
    sill__str path, temp;
    long pid = 0;
    sill_status s = SILL_OK;
    lock->path = NULL;
    sill__str_init(&path, 65536);
    sill__str_init(&temp, 65536);
    own_line(own);
    if (!sill__str_putf(&path, "%s.lock", target) || !sill__str_putf(&temp, "%s.lock.%ld", target, (long)getpid()))
        s = sill__fail(err, SILL_ENOMEM, "no memory for a lock");
    for (int i = 0; s == SILL_OK && !lock->path; i++) {
        int why = make(path.p, temp.p, own);
        if (!why && !(lock->path = sill__strndup(path.p, path.n))) s = sill__fail(err, SILL_ENOMEM, "no memory for a lock");
        if (why == ENOENT && i < 3) continue; /* swept away just then */
        if (why && why != EEXIST) s = sill__fail(err, SILL_EIO, "%s: %s", path.p, strerror(why));
        if (why != EEXIST || !read_line(path.p, line)) {
            if (why == EEXIST && i > 100) s = sill__fail(err, SILL_EIO, "%s cannot be read", path.p);
            continue;
        }
        holder h = who(line, own, host, &pid);
        if (h != GONE || (!take_over(path.p, temp.p, line) && i > 100)) s = refuse(h == GONE ? UNREADABLE : h, path.p, host, pid, err);
    }
    if (lock->path) sweep(lock->path);
    sill__str_free(&path);
    sill__str_free(&temp);
    return s;
}

void cli_lock_drop(cli_lock *lock) {
    if (!lock->path) return;
    unlink(lock->path);
    sill__free(lock->path);
    lock->path = NULL;
}
