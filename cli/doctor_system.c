/* doctor_system.c - what `sill doctor` tells of the system: versions, processor, memory, caches, variables. */
#include "doctor.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#ifdef __APPLE__
#include <sys/sysctl.h>
#endif
#ifdef __GLIBC__
#include <gnu/libc-version.h>
#endif

#include "backend/backend.h"
#include "build_info.h"

extern char **environ;

/* The first line of a small file that begins with KEY, what stands behind it; false when there is none. */
static bool line_of(const char *path, const char *key, char *out, size_t cap) {
    char line[512];
    bool found = false;
    FILE *f = fopen(path, "r");
    while (f && !found && fgets(line, sizeof line, f)) {
        if (strncmp(line, key, strlen(key))) continue;
        const char *p = line + strlen(key);
        while (*p == ' ' || *p == '\t' || *p == ':' || *p == '"') p++;
        snprintf(out, cap, "%.*s", (int)strcspn(p, "\"\n"), p);
        found = true;
    }
    if (f) fclose(f);
    return found;
}

void doctor_versions(doctor *d) {
    char os[160], name[128];
    sill__os_version(os, sizeof os);
    doctor_add(d, "versions", "sill", "%s (%s)", sill_version(), SILL_BUILD_COMMIT);
#if defined(__clang__)
    doctor_add(d, "versions", "compiler", "%s", __VERSION__);
#else
    doctor_add(d, "versions", "compiler", "gcc %s", __VERSION__);
#endif
#ifdef __GLIBC__
    doctor_add(d, "versions", "C library", "glibc %s", gnu_get_libc_version());
#endif
    doctor_add(d, "versions", "libraries", "none but the system's");
    if (line_of("/etc/os-release", "PRETTY_NAME=", name, sizeof name)) doctor_add(d, "versions", "system", "%s; %s", name, os);
    else doctor_add(d, "versions", "system", "%s", os);
}

void doctor_processor(doctor *d) {
    char name[160] = "", sets[256] = "";
    const sill__backend *cpu = sill__backend_cpu();
    const char *forced = getenv("SILL_CPU_ISA"), *isa;
#ifdef __APPLE__
    size_t size = sizeof name;
    if (sysctlbyname("machdep.cpu.brand_string", name, &size, NULL, 0) != 0) name[0] = 0;
#else
    if (!line_of("/proc/cpuinfo", "model name", name, sizeof name)) name[0] = 0;
#endif
    if (name[0]) doctor_add(d, "processor", "name", "%s", name);
    doctor_add(d, "processor", "cores", "%d physical%s, %ld logical; threads: %d", sill__n_cores(),
#ifdef __APPLE__
               " (performance)",
#else
               "",
#endif
               sysconf(_SC_NPROCESSORS_ONLN), sill__n_cores());
    for (int i = 0; cpu->isa_at && (isa = cpu->isa_at(i)); i++) {
        size_t n = strlen(sets);
        snprintf(sets + n, sizeof sets - n, "%s%s", n ? ", " : "", isa);
    }
    doctor_add(d, "processor", "instruction sets", "%s%s%s", sets, forced && *forced ? "; SILL_CPU_ISA takes " : "; the first is taken",
               forced && *forced ? forced : "");
}

void doctor_memory(doctor *d) {
    double total = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE) / 1048576.0;
    uint64_t available = sill__available_bytes();
    char huge[128];
    doctor_add(d, "memory", "total", "%.0f MiB", total);
    if (available) doctor_add(d, "memory", "free", "%.0f MiB can be used without swapping (limits of a container heeded)", (double)available / 1048576.0);
    else doctor_add(d, "memory", "free", "the system does not tell");
    doctor_add(d, "memory", "pages", "%ld KiB", sysconf(_SC_PAGESIZE) / 1024);
    if (line_of("/sys/kernel/mm/transparent_hugepage/enabled", "", huge, sizeof huge)) {
        bool never = strstr(huge, "[never]") != NULL;
        doctor_add(d, "memory", "huge pages", "%s%s", huge, never ? ": decoding is slower without them; `madvise` is enough" : "");
        if (never) doctor_wrong(d);
    }
}

/* Files below DIR, one level, and their bytes. */
static int count_files(const char *dir, uint64_t *bytes) {
    DIR *open_dir = opendir(dir);
    int n = 0;
    *bytes = 0;
    for (struct dirent *e; open_dir && (e = readdir(open_dir));) {
        struct stat st;
        if (e->d_name[0] == '.' || fstatat(dirfd(open_dir), e->d_name, &st, 0) != 0) continue;
        n++;
        if (S_ISREG(st.st_mode)) *bytes += (uint64_t)st.st_size;
    }
    if (open_dir) closedir(open_dir);
    return n;
}

static void list_models(doctor *d, const char *dir) {
    DIR *open_dir = d->report ? NULL : opendir(dir); /* names of models may be nobody else's business */
    for (struct dirent *e; open_dir && (e = readdir(open_dir));) {
        struct stat st;
        size_t n = strlen(e->d_name);
        bool mark = n > 8 && !strcmp(e->d_name + n - 8, ".checked"); /* tools/fetch_model.sh: the sum was right */
        if (e->d_name[0] == '.' || mark || fstatat(dirfd(open_dir), e->d_name, &st, 0) != 0) continue;
        if (S_ISDIR(st.st_mode)) doctor_add(d, "models", "directory", "%s", e->d_name);
        else doctor_add(d, "models", "file", "%s, %.0f MiB", e->d_name, (double)st.st_size / 1048576.0);
    }
    if (open_dir) closedir(open_dir);
}

void doctor_caches(doctor *d) {
    static const struct { const char *sub, *what; } known[] = {
        {"models", "fetched models"}, {"packed", "packed copies of weights"}, {"checked", "checks of devices"}, {"metal", "compiled kernels"}};
    char path[1024], shown[600];
    uint64_t bytes;
    if (!sill__cache_path(path, sizeof path, "") || path[0] != '/') {
        doctor_add(d, "caches", "directory", "none: neither SILL_CACHE nor XDG_CACHE_HOME nor HOME is set");
        doctor_wrong(d);
        return;
    }
    path[strlen(path) - 1] = 0;
    doctor_path(d, path, shown, sizeof shown);
    doctor_add(d, "caches", "directory", "%s", shown);
    for (size_t i = 0; i < SILL_ARRAY_LEN(known); i++) {
        if (!sill__cache_path(path, sizeof path, known[i].sub)) continue;
        int n = count_files(path, &bytes);
        int fd = sill__is_dir(path) ? sill__cache_dir(known[i].sub, false) : 0;
        doctor_add(d, "caches", known[i].sub, "%s: %d files, %.1f MiB%s", known[i].what, n, (double)bytes / 1048576.0,
                   fd < 0 ? "; others may write to it: it is not used" : "");
        if (fd < 0) doctor_wrong(d);
        if (fd > 0) close(fd);
    }
    if (sill__cache_path(path, sizeof path, "models")) list_models(d, path);
}

/* What changes how sill runs. Values are left out of a report. */
void doctor_environment(doctor *d) {
    for (char **e = environ; *e; e++) {
        char name[48];
        size_t n = strcspn(*e, "=");
        if (strncmp(*e, "SILL_", 5) || n >= sizeof name) continue;
        snprintf(name, sizeof name, "%.*s", (int)n, *e);
        doctor_add(d, "environment", name, "%s", d->report ? "is set" : *e + n + ((*e)[n] == '='));
    }
}
