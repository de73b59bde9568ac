/*
 * cpu_cache.c - the packed copy: the packed matrices of a model kept in the user's cache directory, so that the next
 * process maps them instead of packing again.
 *
 * The file: a header, a table of checksums (one for each CPU_SLAB_ALIGN bytes of data), a hole up to the next multiple
 * of CPU_SLAB_ALIGN, the slab as it lies in memory. The header holds a key: SHA-256 of everything that decides the
 * packed bytes (the files' identities, every matrix's plan and source, instruction set, the code that packs). Offsets
 * are not read from the file: they follow from the plan, the file's size must agree, and every byte of the data is
 * checked against its checksum before use, in all threads, which brings it into memory as well.
 *
 * Where the system maps files in huge pages (Linux with ext4 or XFS of large folios: both ends lie on CPU_SLAB_ALIGN for
 * it) the map is used as it is, and shared by processes; elsewhere, since matrices in 4 KiB pages decode slower, the file
 * is read into huge pages.
 *
 * The copy is written when the device closes, so that nothing waits for it but the end; under a temporary name without
 * fsync: what a crash tears fails its checksums and is packed again.
 *
 * Trust: whoever can write into the directory is the user already (mode 0700, owner checked). The checksums find
 * accidents, not malice; a forged copy can change numbers but no address, as a forged model can. Like the model's own
 * file, a copy must not be changed in place while a process has it mapped; sill itself only renames and removes.
 */
#include "backend/cpu/cpu.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "pack_build.h"

#define SUBDIR "packed"
#define SUFFIX ".packed"
#define VERSION 1
#define MAX_MIB 4096    /* of all copies together */
#define MIN_MIB 16      /* smaller ones are packed again in a few milliseconds */
#define READ_BYTES ((size_t)256 << 10)
#define FRESH_NS 100000000u /* a file changed so shortly ago may change again without its time showing it */

/* Without padding. */
typedef struct pack_header {
    char magic[8];
    uint32_t version, endian;
    uint8_t key[32];
    uint64_t data_at, data_bytes, n_sums;
    uint64_t sums;    /* checksum of the table */
    uint64_t sum;     /* of everything above */
} pack_header;

typedef struct pack_job {
    cpu_slab *slab;
    uint64_t *sums;
    uint64_t at;      /* of the data in the file */
    int fd;
    bool from_file;   /* the data must be read first */
    atomic_int next;
    int n;
    atomic_bool failed;
} pack_job;

/* The variable's MiB in bytes; what is no number is said, with SAY, and is OTHERWISE. */
static uint64_t mib_variable(const char *name, uint64_t otherwise, bool say) {
    const char *text = getenv(name);
    char *end;
    if (!text || !*text) return otherwise << 20;
    errno = 0;
    unsigned long long v = *text >= '0' && *text <= '9' ? strtoull(text, &end, 10) : 0;
    if (*text >= '0' && *text <= '9' && !*end && !errno && v <= UINT64_MAX >> 20) return (uint64_t)v << 20;
    if (say) sill__log(1, "%s is '%.40s', which is no number of MiB; taken as %llu", name, text, (unsigned long long)otherwise);
    return otherwise << 20;
}

/* ---- sizes */

static size_t n_sums(const cpu_slab *slab) { return slab->bytes / CPU_SLAB_ALIGN; }
static size_t head_bytes(const cpu_slab *slab) { return sizeof(pack_header) + n_sums(slab) * sizeof(uint64_t); }
static uint64_t data_at(const cpu_slab *slab) {
    return ((uint64_t)head_bytes(slab) + CPU_SLAB_ALIGN - 1) / CPU_SLAB_ALIGN * CPU_SLAB_ALIGN;
}

/* ---- the key */

static void add(sill__sha256 *h, const void *data, size_t n) { sill__sha256_update(h, data, n); }
static void add_text(sill__sha256 *h, const char *text) { add(h, text, strlen(text) + 1); }

/* All of a source but where things lie in memory. */
static void add_source(sill__sha256 *h, const sill__weight_src *src) {
    sill__weight_src plain;
    memcpy(&plain, src, sizeof plain);
    memset(plain.parts, 0, sizeof plain.parts);
    plain.name = NULL;
    add(h, &plain, sizeof plain);
    add_text(h, src->name ? src->name : "");
    for (int i = 0; i < src->n_parts; i++) {
        const sill__tensor *t = src->parts[i];
        uint64_t place[5] = {(uint64_t)(t->data - t->map->data), t->bytes, (uint64_t)t->type, t->map->id.device,
                             t->map->id.inode};
        add_text(h, t->name);
        add(h, place, sizeof place);
        add(h, t->dims, sizeof t->dims[0] * (size_t)t->n_dims);
    }
}

/* False when a file's identity is not known, or could still change unnoticed. */
static bool is_settled(const sill__weight_src *src, uint64_t now) {
    for (int i = 0; i < src->n_parts; i++) {
        const sill__map *map = src->parts[i]->map;
        if (!map || map->id.bytes == 0 || map->id.changed_ns + FRESH_NS > now) return false;
    }
    return true;
}

void sill__cpu_cache_key(const sill__device *d, const sill__weight_src *const *srcs, sill__weight *const *weights,
                         size_t n, cpu_slab *slab) {
    const uint64_t now = sill__clock_ns(), most = mib_variable("SILL_PACKED_MAX_MIB", MAX_MIB, true);
    const uint64_t least = mib_variable("SILL_PACKED_MIN_MIB", MIN_MIB, true);
    uint8_t digest[32];
    char hex[65];
    sill__sha256 h, name;
    cpu_slab whole = {.bytes = (slab->bytes + CPU_SLAB_ALIGN - 1) / CPU_SLAB_ALIGN * CPU_SLAB_ALIGN};
    if (slab->bytes < least || data_at(&whole) + whole.bytes > most) return; /* the limit is for the file */
    sill__sha256_init(&h);
    add_text(&h, d->isa->name);
    for (size_t i = 0; i < n; i++) {
        if (!is_settled(srcs[i], now)) return;
        if (srcs[i]->role == SILL__ROLE_EMBED) continue;
        add_source(&h, srcs[i]);
        for (const sill__weight *w = weights[i]; w; w = w->next) {
            sill__cpu_mat mat;
            memcpy(&mat, &w->mat, sizeof mat);
            mat.data = NULL;
            add(&h, &mat, sizeof mat);
        }
    }
    /* What follows changes when a file is changed in place or sill is: the new copy then takes the old one's name. */
    name = h;
    add_text(&h, SILL_PACK_BUILD);
    for (size_t i = 0; i < n; i++)
        for (int k = 0; k < srcs[i]->n_parts; k++) add(&h, &srcs[i]->parts[k]->map->id, sizeof(sill__file_id));
    sill__sha256_final(&name, digest);
    sill__sha256_hex(digest, hex);
    snprintf(slab->name, sizeof slab->name, "%.32s" SUFFIX, hex);
    sill__sha256_final(&h, slab->key);
    slab->bytes = whole.bytes;
    slab->keyed = true;
}

/* ---- the file */

static pack_header make_header(const cpu_slab *slab, const uint64_t *sums) {
    pack_header h = {.magic = {'s', 'i', 'l', 'l', 'p', 'a', 'c', 'k'}, .version = VERSION, .endian = 0x01020304, .data_at = data_at(slab),
                     .data_bytes = slab->bytes, .n_sums = n_sums(slab)};
    memcpy(h.key, slab->key, sizeof h.key);
    h.sums = sill__sum64(sums, n_sums(slab) * sizeof *sums);
    h.sum = sill__sum64(&h, offsetof(pack_header, sum));
    return h;
}

static void run_job(sill__device *d, pack_job *job, sill__pool_fn fn) {
    job->n = (int)n_sums(job->slab);
    atomic_init(&job->next, 0);
    atomic_init(&job->failed, false);
    sill__pool_lock(d->pool);
    sill__pool_run(d->pool, fn, job);
    sill__pool_unlock(d->pool);
}

/* ---- taking */

static void check_some(void *arg, int i, int n) {
    pack_job *job = arg;
    (void)i;
    (void)n;
    for (int c; (c = sill__cpu_take(&job->next, job->n)) >= 0 && !atomic_load(&job->failed);) {
        uint8_t *chunk = job->slab->data + (size_t)c * CPU_SLAB_ALIGN;
        uint64_t at = job->at + (uint64_t)c * CPU_SLAB_ALIGN;
        bool ok = true;
        for (size_t k = 0; job->from_file && ok && k < CPU_SLAB_ALIGN; k += READ_BYTES)
            ok = sill__pread_all(job->fd, chunk + k, READ_BYTES, at + k) == 0;
        if (!ok || sill__sum64(chunk, CPU_SLAB_ALIGN) != job->sums[c]) atomic_store(&job->failed, true);
    }
}

/* The header and table of FD, checked; NULL when they are not what they must be. */
static uint64_t *read_sums(const cpu_slab *slab, int fd) {
    pack_header h;
    uint64_t *sums = sill__alloc(n_sums(slab) * sizeof *sums);
    if (sums && sill__pread_all(fd, &h, sizeof h, 0) == 0 &&
        sill__pread_all(fd, sums, n_sums(slab) * sizeof *sums, sizeof h) == 0) {
        pack_header must = make_header(slab, sums);
        if (!memcmp(&h, &must, sizeof h)) return sums;
    }
    sill__free(sums);
    return NULL;
}

static void drop_map(cpu_slab *slab) {
    if (slab->map.handle) munmap(slab->map.handle, slab->map.bytes);
    memset(&slab->map, 0, sizeof slab->map);
    slab->data = NULL;
}

/* Maps the data at an address that huge pages can begin at; false when it cannot, or would lie in small pages. */
static bool map_data(cpu_slab *slab, int fd) {
    size_t span = slab->bytes + CPU_SLAB_ALIGN;
    uint8_t *base = mmap(NULL, span, PROT_NONE, MAP_PRIVATE | MAP_ANON, -1, 0);
    if (base == MAP_FAILED) return false;
    slab->map.handle = base;
    slab->map.bytes = span;
    uint8_t *start = (uint8_t *)(((uintptr_t)base + CPU_SLAB_ALIGN - 1) & ~(uintptr_t)(CPU_SLAB_ALIGN - 1));
    if (mmap(start, slab->bytes, PROT_READ, MAP_PRIVATE | MAP_FIXED, fd, (off_t)data_at(slab)) == MAP_FAILED) {
        drop_map(slab);
        return false;
    }
#ifdef MADV_HUGEPAGE
    madvise(start, slab->bytes, MADV_HUGEPAGE); /* read ahead, where the file is not in memory */
#endif
    slab->data = start;
    slab->map.data = start;
    return true;
}

bool sill__cpu_cache_take(sill__device *d, cpu_slab *slab) {
    pack_job job = {.slab = slab, .at = data_at(slab)};
    if (!slab->keyed) return false;
    int dir = sill__cache_dir(SUBDIR, false);
    if (dir < 0) return false;
    job.fd = sill__cache_open(dir, slab->name, job.at + slab->bytes);
    close(dir);
    if (job.fd < 0) return false;
    if ((job.sums = read_sums(slab, job.fd))) {
        bool mapped = map_data(slab, job.fd);
        if (mapped && !sill__in_huge_pages(slab->data, CPU_SLAB_ALIGN)) {
            drop_map(slab);
            mapped = false;
        }
        if (!mapped) slab->data = sill__alloc_pages(slab->bytes);
        job.from_file = !mapped;
        if (slab->data) {
            run_job(d, &job, check_some);
            if (atomic_load(&job.failed)) {
                if (!mapped) sill__free_pages(slab->data, slab->bytes);
                slab->data = NULL;
                drop_map(slab);
            }
        }
    }
    sill__free(job.sums);
    close(job.fd);
    if (slab->data) sill__log(2, "packed weights %s from the copy %s", slab->map.handle ? "mapped" : "read", slab->name);
    else sill__log(2, "the packed copy %s is not what it should be; packing again", slab->name);
    return slab->data != NULL;
}

/* ---- putting */

/* Whole huge pages at a time, which is what lets the system keep the file in huge pages. */
static void write_some(void *arg, int i, int n) {
    pack_job *job = arg;
    (void)i;
    (void)n;
    for (int c; (c = sill__cpu_take(&job->next, job->n)) >= 0 && !atomic_load(&job->failed);) {
        const uint8_t *chunk = job->slab->data + (size_t)c * CPU_SLAB_ALIGN;
        job->sums[c] = sill__sum64(chunk, CPU_SLAB_ALIGN);
        if (sill__pwrite_all(job->fd, chunk, CPU_SLAB_ALIGN, job->at + (uint64_t)c * CPU_SLAB_ALIGN) != 0)
            atomic_store(&job->failed, true);
    }
}

void sill__cpu_cache_put(sill__device *d, const cpu_slab *slab) {
    cpu_slab copy = *slab;
    pack_job job = {.slab = &copy, .at = data_at(slab)};
    char temp[96];
    uint64_t bytes = job.at + slab->bytes, most = mib_variable("SILL_PACKED_MAX_MIB", MAX_MIB, false);
    if (!slab->keyed || bytes > most) return;
    int dir = sill__cache_dir(SUBDIR, true);
    if (dir < 0) return;
    sill__cache_trim(dir, SUFFIX, slab->name, most - bytes);
    job.sums = sill__alloc(n_sums(slab) * sizeof *job.sums);
    job.fd = job.sums ? sill__cache_begin(dir, slab->name, bytes, temp, sizeof temp) : -1;
    if (job.fd >= 0) {
        run_job(d, &job, write_some);
        pack_header h = make_header(slab, job.sums);
        bool ok = !atomic_load(&job.failed) && sill__pwrite_all(job.fd, &h, sizeof h, 0) == 0 &&
                  sill__pwrite_all(job.fd, job.sums, n_sums(slab) * sizeof *job.sums, sizeof h) == 0;
        ok = sill__cache_end(dir, job.fd, temp, slab->name, ok);
        sill__log(2, ok ? "packed weights kept as %s" : "packed weights cannot be kept as %s", slab->name);
    }
    sill__free(job.sums);
    close(dir);
}
