/* system.c - files, memory and cores as the operating system tells them. */
#include "base/base.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>
#ifdef __linux__
#include <sched.h>
#endif
#ifdef __APPLE__
#include <mach/mach.h>
#include <sys/sysctl.h>
#endif

static uint64_t in_ns(struct timespec t) { return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec; }

static sill__file_id identify(const struct stat *st) {
#ifdef __APPLE__
    struct timespec modified = st->st_mtimespec, changed = st->st_ctimespec;
#else
    struct timespec modified = st->st_mtim, changed = st->st_ctim;
#endif
    return (sill__file_id){.device = (uint64_t)st->st_dev, .inode = (uint64_t)st->st_ino, .bytes = (uint64_t)st->st_size,
                           .modified_ns = in_ns(modified), .changed_ns = in_ns(changed)};
}

size_t sill__page_bytes(void) {
    long page = sysconf(_SC_PAGESIZE);
    return page > 0 ? (size_t)page : 16384;
}

/* Pages of 16 KiB, those of Apple silicon, also where the system's are smaller: a stretch is reserved, the file mapped into
 * it, and the rest given back. MAP_FAILED and errno where that does not work. */
static void *map_file(int fd, size_t bytes, size_t *span) {
    const size_t page = 16384, system_page = sill__page_bytes();
#ifdef __APPLE__
    const int kind = MAP_SHARED; /* a GPU's buffer over it sees the very pages of the file */
#else
    const int kind = MAP_PRIVATE;
#endif
    if (bytes > SIZE_MAX - 2 * page) {
        errno = ENOMEM;
        return MAP_FAILED;
    }
    *span = (bytes + page - 1) & ~(page - 1);
    if (system_page >= page) return mmap(NULL, bytes, PROT_READ, kind, fd, 0);
    uint8_t *base = mmap(NULL, *span + page, PROT_READ, MAP_PRIVATE | MAP_ANON, -1, 0);
    if (base == MAP_FAILED) return MAP_FAILED;
    size_t head = (page - (uintptr_t)base % page) % page, tail = page - head;
    if (head) munmap(base, head);
    munmap(base + head + *span, tail);
    void *p = mmap(base + head, bytes, PROT_READ, kind | MAP_FIXED, fd, 0);
    if (p == MAP_FAILED) {
        int e = errno;
        munmap(base + head, *span);
        errno = e;
    }
    return p;
}

sill_status sill__map_open(const char *path, sill__map *map, sill_error *err) {
    struct stat st;
    memset(map, 0, sizeof *map);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return sill__fail(err, errno == ENOENT || errno == ENOTDIR ? SILL_ENOENT : SILL_EIO,
                          "cannot open %s: %s", path, strerror(errno));
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        close(fd);
        return sill__fail(err, SILL_EIO, "%s is not a regular file", path);
    }
    map->bytes = (size_t)st.st_size;
    map->id = identify(&st);
    if (map->bytes == 0) {
        close(fd);
        map->data = (const uint8_t *)"";
        return SILL_OK;
    }
    void *p = map_file(fd, map->bytes, &map->span);
    int e = errno;
    close(fd);
    if (p == MAP_FAILED) {
        map->bytes = 0;
        return sill__fail(err, SILL_EIO, "cannot map %s: %s", path, strerror(e));
    }
    map->data = map->handle = p;
    return SILL_OK;
}

void sill__map_close(sill__map *map) {
    if (map->handle) munmap(map->handle, map->span ? map->span : map->bytes);
    memset(map, 0, sizeof *map);
}

void sill__map_release(const sill__map *map, size_t offset, size_t bytes) {
    if (!map->handle || offset >= map->bytes) return;
    size_t mask = sill__page_bytes() - 1, end = offset + SILL_MIN(bytes, map->bytes - offset);
    size_t start = (offset + mask) & ~mask;
    end &= ~mask;
    if (start < end) madvise((uint8_t *)map->handle + start, end - start, MADV_DONTNEED);
}

sill_status sill__read_file(const char *path, size_t max_bytes, char **data, size_t *bytes, sill_error *err) {
    sill__map map;
    *data = NULL;
    *bytes = 0;
    sill_status s = sill__map_open(path, &map, err);
    if (s != SILL_OK) return s;
    if (map.bytes > max_bytes)
        s = sill__fail(err, SILL_ERANGE, "%s has %zu bytes, more than the limit of %zu", path, map.bytes, max_bytes);
    else if (!(*data = sill__strndup((const char *)map.data, map.bytes)))
        s = sill__fail(err, SILL_ENOMEM, "no memory for the %zu bytes of %s", map.bytes, path);
    else
        *bytes = map.bytes;
    sill__map_close(&map);
    return s;
}

int sill__write_all(int fd, const void *from, size_t n, size_t *done) {
    const uint8_t *p = from;
    size_t at = 0;
    int why = 0;
    while (at < n && !why) {
        ssize_t k = write(fd, p + at, SILL_MIN(n - at, SILL_IO_MAX));
        if (k > 0) at += (size_t)k;
        else if (k == 0 || errno != EINTR) why = k == 0 ? ENOSPC : errno;
    }
    if (done) *done = at;
    return why;
}

int sill__pwrite_all(int fd, const void *from, size_t n, uint64_t at) {
    for (const uint8_t *p = from; n;) {
        ssize_t k = pwrite(fd, p, SILL_MIN(n, SILL_IO_MAX), (off_t)at);
        if (k < 0 && errno == EINTR) continue;
        if (k <= 0) return k ? errno : ENOSPC;
        p += k;
        at += (uint64_t)k;
        n -= (size_t)k;
    }
    return 0;
}

int sill__pread_all(int fd, void *to, size_t n, uint64_t at) {
    for (uint8_t *p = to; n;) {
        ssize_t k = pread(fd, p, SILL_MIN(n, SILL_IO_MAX), (off_t)at);
        if (k < 0 && errno == EINTR) continue;
        if (k <= 0) return k ? errno : EIO;
        p += k;
        at += (uint64_t)k;
        n -= (size_t)k;
    }
    return 0;
}

bool sill__is_dir(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

bool sill__is_file(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

bool sill__ends_with(const char *s, size_t n, const char *tail) {
    size_t k = strlen(tail);
    return n >= k && !memcmp(s + n - k, tail, k);
}

bool sill__path_join(char *out, size_t cap, const char *dir, const char *name) {
    size_t n = strlen(dir);
    int w = snprintf(out, cap, "%s%s%s", dir, n && dir[n - 1] == '/' ? "" : "/", name);
    return w >= 0 && (size_t)w < cap;
}

double sill__now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

uint64_t sill__clock_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return in_ns(t);
}

void sill__os_version(char *out, size_t cap) {
    struct utsname u;
    if (uname(&u) != 0) memset(&u, 0, sizeof u);
#ifdef __APPLE__
    char version[32] = "", build[32] = "";
    size_t n = sizeof version, m = sizeof build;
    if (sysctlbyname("kern.osproductversion", version, &n, NULL, 0) == 0 &&
        sysctlbyname("kern.osversion", build, &m, NULL, 0) == 0) {
        snprintf(out, cap, "macOS %.31s (%.31s) %s", version, build, u.machine);
        return;
    }
#endif
    snprintf(out, cap, "%s %s %s", u.sysname, u.release, u.machine);
}

#ifdef __linux__
/* A number from a small text file such as those of /sys; false when absent or "max". */
static bool read_number(const char *path, uint64_t *out) {
    char line[64];
    FILE *f = fopen(path, "r");
    if (!f) return false;
    char *got = fgets(line, sizeof line, f);
    fclose(f);
    if (!got) return false;
    char *end;
    errno = 0;
    unsigned long long v = strtoull(line, &end, 10);
    if (end == line || errno) return false;
    *out = v;
    return true;
}

bool sill__in_huge_pages(const void *ptr, size_t bytes) {
    char line[256], start[32];
    bool here = false, huge = false;
    unsigned long kib;
    for (size_t i = 0; i < bytes; i += 4096) (void)((const volatile uint8_t *)ptr)[i];
    int n = snprintf(start, sizeof start, "%lx-", (unsigned long)(uintptr_t)ptr);
    FILE *f = fopen("/proc/self/smaps", "r");
    if (!f) return false;
    while (fgets(line, sizeof line, f)) {
        if (!here) here = !strncmp(line, start, (size_t)n);
        else if (sscanf(line, "FilePmdMapped: %lu kB", &kib) == 1) {
            huge = kib * 1024 >= bytes;
            break;
        }
    }
    fclose(f);
    return huge;
}

/* The value of KEY in a file of "key value" lines; 0 when absent. */
static uint64_t read_key(const char *path, const char *key) {
    char line[128], name[64];
    unsigned long long v, found = 0;
    FILE *f = fopen(path, "r");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "%63s %llu", name, &v) == 2 && !strcmp(name, key)) found = v;
    if (f) fclose(f);
    return found;
}

/* Lowers *best to what one cgroup leaves. File cache that nobody uses counts as used there and is given back when
 * memory runs short, so it is not taken off. */
static void heed_cgroup(const char *dir, const char *max, const char *current, const char *cache, uint64_t *best) {
    char path[4352];
    uint64_t limit, used;
    snprintf(path, sizeof path, "%s/%s", dir, max);
    if (!read_number(path, &limit)) return;
    snprintf(path, sizeof path, "%s/%s", dir, current);
    if (!read_number(path, &used)) return;
    snprintf(path, sizeof path, "%s/memory.stat", dir);
    uint64_t reclaimable = read_key(path, cache);
    used -= SILL_MIN(used, reclaimable);
    uint64_t left = limit > used ? limit - used : 0;
    if (*best == 0 || left < *best) *best = left;
}

/* This process's cgroup of one hierarchy (listed in the file `groups`) and all above it, as far as they are mounted
 * under `root`. */
static void heed_cgroups(const char *root, const char *groups, const char *controller, const char *max, const char *current,
                         const char *cache, uint64_t *best) {
    char line[4096] = "", dir[4224], *path = NULL;
    FILE *f = fopen(groups, "r");
    while (f && !path && fgets(line, sizeof line, f)) { /* "0::/user.slice/x" or "4:memory:/x" */
        char *first = strchr(line, ':'), *second = first ? strchr(first + 1, ':') : NULL;
        if (!second || second[1] != '/') continue;
        *second = 0;
        if (!strcmp(first + 1, controller)) path = second + 1;
    }
    if (f) fclose(f);
    if (path) path[strcspn(path, "\n")] = 0;
    while (path && *path) {
        snprintf(dir, sizeof dir, "%s%s", root, path);
        heed_cgroup(dir, max, current, cache, best);
        *strrchr(path, '/') = 0;
    }
    heed_cgroup(root, max, current, cache, best);
}

uint64_t sill__available_bytes_under(const char *root) {
    uint64_t best = 0;
    char line[128], path[512], groups[512];
    unsigned long long kib;
    snprintf(path, sizeof path, "%s/proc/meminfo", root);
    FILE *f = fopen(path, "r");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "MemAvailable: %llu kB", &kib) == 1) best = (uint64_t)kib * 1024;
    if (f) fclose(f);
    snprintf(groups, sizeof groups, "%s/proc/self/cgroup", root);
    snprintf(path, sizeof path, "%s/sys/fs/cgroup", root);
    heed_cgroups(path, groups, "", "memory.max", "memory.current", "inactive_file", &best);
    snprintf(path, sizeof path, "%s/sys/fs/cgroup/memory", root);
    heed_cgroups(path, groups, "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file", &best);
    return best;
}

uint64_t sill__available_bytes(void) { return sill__available_bytes_under(""); }

int sill__n_processors(void) {
    cpu_set_t set;
    CPU_ZERO(&set);
    return sched_getaffinity(0, sizeof set, &set) == 0 ? SILL_MAX(1, CPU_COUNT(&set)) : SILL_MAX(1, (int)sysconf(_SC_NPROCESSORS_ONLN));
}

/* Cores that share no physical core, among those this process may run on. */
int sill__n_cores(void) {
    cpu_set_t set;
    int n = 0;
    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof set, &set) != 0) return SILL_MAX(1, (int)sysconf(_SC_NPROCESSORS_ONLN));
    for (int i = 0; i < CPU_SETSIZE; i++) {
        char path[96];
        uint64_t first;
        if (!CPU_ISSET(i, &set)) continue;
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", i);
        /* The list starts with the lowest sibling: count a core at that one. */
        if (!read_number(path, &first) || (int)first == i || first >= CPU_SETSIZE || !CPU_ISSET((int)first, &set)) n++;
    }
    return SILL_MAX(1, n);
}
#elif defined(__APPLE__)
/* A map is good enough as it is: pages have 16 KiB on Apple silicon, and files are never in larger ones here. */
bool sill__in_huge_pages(const void *ptr, size_t bytes) {
    (void)ptr;
    (void)bytes;
    return true;
}

uint64_t sill__available_bytes(void) {
    vm_statistics64_data_t vm = {0};
    mach_msg_type_number_t count = HOST_VM_INFO64_COUNT;
    mach_port_t host = mach_host_self();
    kern_return_t failed = host_statistics64(host, HOST_VM_INFO64, (host_info64_t)&vm, &count);
    mach_port_deallocate(mach_task_self(), host);
    if (failed != KERN_SUCCESS) return 0;
    /* Free pages (the speculative ones, read ahead from files, are counted among them), the rest of the file cache, and
     * what its owners called volatile. Other inactive pages hold data that would have to be compressed or swapped. The
     * count of file pages has been seen too high: they are among these three kinds. */
    uint64_t files = vm.external_page_count, most = (uint64_t)vm.active_count + vm.inactive_count + vm.speculative_count;
    files = SILL_MIN(files, most);
    files -= SILL_MIN(files, (uint64_t)vm.speculative_count);
    return (vm.free_count + files + vm.purgeable_count) * (uint64_t)vm_kernel_page_size;
}

int sill__n_processors(void) { return SILL_MAX(1, (int)sysconf(_SC_NPROCESSORS_ONLN)); }

int sill__n_cores(void) {
    int n = 0;
    size_t size = sizeof n;
    if (sysctlbyname("hw.perflevel0.physicalcpu", &n, &size, NULL, 0) == 0 && n > 0) return n;
    size = sizeof n;
    if (sysctlbyname("hw.physicalcpu", &n, &size, NULL, 0) == 0 && n > 0) return n;
    return 1;
}
#endif
