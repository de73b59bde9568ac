/*
 * pipelines.c - the kernels' text becomes a library, and its functions with their constants become pipelines. The text is
 * compiled once a process, with safe math; what Metal makes of it for this GPU is kept in the user's cache directory,
 * under a name that the text, the system and the GPU decide.
 */
#include "backend/metal/host.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>
#ifdef __APPLE__
#include <sys/sysctl.h>
#endif

#include "metal_source.h" /* static const char metal_source[]: made by make from kernels/ */

#define MISS_FAILS 4 /* MTLPipelineOptionFailOnBinaryArchiveMiss */
#define CACHE_SUB "metal"
#define CACHE_SUFFIX ".archive"
#define CACHE_KEEP ((uint64_t)64 << 20)

typedef struct entry {
    char kernel[56];
    uint32_t constants[SILL__MTL_MAX_CONSTANTS];
    int n_constants;
    mtl_id pipeline;
    uint32_t max_threads;
} entry;

struct sill__mtl_pipelines {
    int users;
    mtl_id device, library, archive;
    sill_error failure;     /* why there is no library; SILL_OK: not tried, or there is */
    entry *table;           /* open addressing; cap is a power of two */
    size_t n, cap;
    char archive_name[96];
    bool archive_grew;      /* holds pipelines that its file does not */
    bool lost;              /* the system takes no work of this process any more */
    sill__mtl_made made;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static sill__mtl_pipelines the; /* the process has one GPU and one text */

/* ------------------------------------------------------------------ texts */

void sill__mtl_error_text(mtl_id error, char *out, size_t cap) {
    mtl_id text = error ? mtl_error_text(error) : NULL;
    const char *utf8 = text ? mtl_string_utf8(text) : NULL;
    snprintf(out, cap, "%s", utf8 ? utf8 : "no reason given");
}

void sill__mtl_system_text(char *out, size_t cap) {
    char build[64] = "";
    struct utsname os;
#ifdef __APPLE__
    size_t n = sizeof build - 1;
    if (sysctlbyname("kern.osversion", build, &n, NULL, 0) != 0) build[0] = 0;
#endif
    if (uname(&os) != 0) snprintf(out, cap, "unknown system");
    else snprintf(out, cap, "%.32s %.64s %.32s%s%s", os.sysname, os.release, os.machine, build[0] ? " " : "", build);
}

/* ---------------------------------------------------- the archive on disk */

static bool cache_wanted(void) {
    const char *text = getenv("SILL_METAL_CACHE");
    return !text || strcmp(text, "0") != 0;
}

/* Text, system and GPU decide the name. */
static void name_archive(sill__mtl_pipelines *p) {
    sill__sha256 hash;
    uint8_t digest[32];
    char hex[65], system[160];
    sill__mtl_system_text(system, sizeof system);
    mtl_id name = mtl_device_name(p->device);
    const char *gpu = name ? mtl_string_utf8(name) : NULL;
    sill__sha256_init(&hash);
    sill__sha256_update(&hash, metal_source, sizeof metal_source);
    sill__sha256_update(&hash, system, strlen(system) + 1);
    if (gpu) sill__sha256_update(&hash, gpu, strlen(gpu) + 1);
    sill__sha256_final(&hash, digest);
    sill__sha256_hex(digest, hex);
    snprintf(p->archive_name, sizeof p->archive_name, "%.40s" CACHE_SUFFIX, hex);
}

/* Autoreleased; NULL when the path does not fit. */
static mtl_id url_of(const char *name) {
    char dir[900], path[1024];
    if (!sill__cache_path(dir, sizeof dir, CACHE_SUB) || !sill__path_join(path, sizeof path, dir, name)) return NULL;
    return mtl_url_with_path(mtl_class("NSURL"), mtl_string(path));
}

/* The archive of an earlier process where there is one that Metal takes, else an empty one; or none. */
static void open_archive(sill__mtl_pipelines *p) {
    struct stat st;
    mtl_id error = NULL, descriptor;
    if (!cache_wanted() || !mtl_has(p->device, MTL_SEL_device_new_archive) ||
        !(descriptor = mtl_new("MTLBinaryArchiveDescriptor")))
        return;
    name_archive(p);
    int dir = sill__cache_dir(CACHE_SUB, false);
    if (dir >= 0 && fstatat(dir, p->archive_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode) && st.st_size > 0) {
        int fd = sill__cache_open(dir, p->archive_name, (uint64_t)st.st_size); /* this user's alone to write */
        mtl_id url = fd >= 0 ? url_of(p->archive_name) : NULL;
        if (fd >= 0) close(fd);
        if (url) {
            mtl_archive_url(descriptor, url);
            p->archive = mtl_device_new_archive(p->device, descriptor, &error);
        }
        if (!p->archive) {
            unlinkat(dir, p->archive_name, 0); /* torn, or of another system */
            mtl_archive_url(descriptor, NULL);
        }
    }
    if (dir >= 0) close(dir);
    if (!p->archive) p->archive = mtl_device_new_archive(p->device, descriptor, &error);
    mtl_release(descriptor);
}

static void write_archive(sill__mtl_pipelines *p) {
    char temp[160];
    mtl_id error = NULL, url;
    if (!p->archive || !p->archive_grew) return;
    p->archive_grew = false;
    int dir = sill__cache_dir(CACHE_SUB, true);
    if (dir < 0) return;
    int fd = sill__cache_begin(dir, p->archive_name, 1 << 20, temp, sizeof temp);
    if (fd >= 0) {
        url = url_of(temp);
        bool whole = url && mtl_archive_write(p->archive, url, &error);
        if (sill__cache_end(dir, fd, temp, p->archive_name, whole))
            sill__cache_trim(dir, CACHE_SUFFIX, p->archive_name, CACHE_KEEP);
    }
    close(dir);
}

/* ------------------------------------------------------------- the library */

static void set_math(mtl_id options) {
    if (mtl_has(options, MTL_SEL_options_math_mode)) {
        mtl_options_math_mode(options, MTL_MATH_SAFE);
        if (mtl_has(options, MTL_SEL_options_math_functions)) mtl_options_math_functions(options, MTL_MATH_FUNCTIONS_PRECISE);
    } else {
        mtl_options_fast_math(options, 0);
    }
}

static sill_status compile(sill__mtl_pipelines *p, sill_error *err) {
    mtl_id error = NULL;
    char text[400];
    if (p->library) return SILL_OK;
    if (p->failure.code == SILL_OK) {
        mtl_id options = mtl_new("MTLCompileOptions"), source = mtl_string(metal_source);
        if (!options || !source) {
            sill__fail(&p->failure, SILL_ENOMEM, "no memory for the text of the Metal kernels");
        } else {
            mtl_options_language(options, MTL_LANGUAGE_3_0);
            set_math(options);
            p->library = mtl_device_new_library(p->device, source, options, &error);
            p->made.libraries++;
            if (!p->library) { /* with a library, the error holds warnings */
                sill__mtl_error_text(error, text, sizeof text);
                sill__fail(&p->failure, SILL_EDEVICE, "the Metal compiler refused the kernels: %s", text);
            }
        }
        if (options) mtl_release(options);
        if (p->library) open_archive(p);
    }
    if (p->failure.code != SILL_OK && err) *err = p->failure;
    return p->failure.code;
}

sill_status sill__mtl_library_compile(sill__mtl_pipelines *p, sill_error *err) {
    void *pool = sill__mtl_rt.pool_push();
    pthread_mutex_lock(&lock);
    sill_status s = compile(p, err);
    pthread_mutex_unlock(&lock);
    sill__mtl_rt.pool_pop(pool);
    return s;
}

/* -------------------------------------------------------------- pipelines */

static size_t hash_of(const char *kernel, const uint32_t *constants, int n) {
    uint64_t h = sill__hash64(kernel, strlen(kernel));
    for (int i = 0; i < n; i++) h = (h ^ constants[i]) * 0x9e3779b97f4a7c15u;
    return (size_t)(h ^ h >> 32);
}

/* Its entry, or the empty one where it belongs. The table is never full. */
static entry *look_up(const sill__mtl_pipelines *p, const char *kernel, const uint32_t *constants, int n) {
    for (size_t i = hash_of(kernel, constants, n);; i++) {
        entry *e = &p->table[i & (p->cap - 1)];
        if (!e->pipeline || (e->n_constants == n && !strcmp(e->kernel, kernel) &&
                             (n == 0 || !memcmp(e->constants, constants, (size_t)n * sizeof *constants))))
            return e;
    }
}

static bool make_room(sill__mtl_pipelines *p) {
    if (p->cap && p->n + 1 <= p->cap / 2) return true;
    entry *old = p->table;
    size_t old_cap = p->cap, cap = old_cap ? 2 * old_cap : 128;
    entry *table = sill__calloc(cap, sizeof *table);
    if (!table) return false;
    p->table = table;
    p->cap = cap;
    for (size_t i = 0; i < old_cap; i++)
        if (old[i].pipeline) *look_up(p, old[i].kernel, old[i].constants, old[i].n_constants) = old[i];
    sill__free(old);
    return true;
}

/* From the archive; where that has not got it, it is put there, so that it is compiled once. */
static mtl_id build(sill__mtl_pipelines *p, mtl_id function, mtl_id *error) {
    mtl_id descriptor = mtl_new("MTLComputePipelineDescriptor"), pipeline = NULL;
    if (!descriptor) return NULL;
    mtl_descriptor_function(descriptor, function);
    if (p->archive) {
        mtl_descriptor_archives(descriptor, mtl_array_with(mtl_class("NSArray"), p->archive));
        pipeline = mtl_device_new_pipeline(p->device, descriptor, MISS_FAILS, NULL, error);
        if (pipeline) p->made.from_archive++;
        else if (mtl_archive_add(p->archive, descriptor, error)) p->archive_grew = true;
    }
    if (!pipeline) pipeline = mtl_device_new_pipeline(p->device, descriptor, 0, NULL, error);
    mtl_release(descriptor);
    return pipeline;
}

static sill_status make(sill__mtl_pipelines *p, entry *e, const char *kernel, const uint32_t *constants, int n,
                        sill_error *err) {
    mtl_id error = NULL, values = mtl_new("MTLFunctionConstantValues"), function = NULL, pipeline = NULL;
    char text[300];
    sill_status s = SILL_OK;
    if (!values) return sill__fail(err, SILL_ENOMEM, "no memory for the Metal kernel %s", kernel);
    for (int i = 0; i < n; i++) mtl_constants_set(values, &constants[i], MTL_DATA_UINT, (mtl_uint)i);
    function = mtl_library_new_function(p->library, mtl_string(kernel), values, &error);
    if (function) pipeline = build(p, function, &error);
    if (!pipeline) {
        sill__mtl_error_text(error, text, sizeof text);
        s = sill__fail(err, SILL_EDEVICE, "the Metal kernel %s cannot be made: %s", kernel, text);
    } else if (mtl_pipeline_width(pipeline) != 32) {
        s = sill__fail(err, SILL_EUNSUPPORTED, "this GPU runs %lu threads in step, the Metal kernels want 32",
                       mtl_pipeline_width(pipeline));
        mtl_release(pipeline);
    } else {
        snprintf(e->kernel, sizeof e->kernel, "%s", kernel);
        if (n) memcpy(e->constants, constants, (size_t)n * sizeof *constants);
        e->n_constants = n;
        e->max_threads = (uint32_t)mtl_pipeline_max_threads(pipeline);
        e->pipeline = pipeline;
        p->n++;
        p->made.pipelines++;
    }
    if (function) mtl_release(function);
    mtl_release(values);
    return s;
}

sill_status sill__mtl_pipeline_get(sill__mtl_pipelines *p, const char *kernel, const uint32_t *constants, int n_constants,
                                   mtl_id *pipeline, uint32_t *max_threads, sill_error *err) {
    sill_status s = SILL_OK;
    if (n_constants < 0 || n_constants > SILL__MTL_MAX_CONSTANTS || strlen(kernel) >= sizeof ((entry *)0)->kernel)
        return SILL__BUG(err, "a kernel's name or constants");
    pthread_mutex_lock(&lock);
    entry *e = p->cap ? look_up(p, kernel, constants, n_constants) : NULL;
    if (!e || !e->pipeline) {
        void *pool = sill__mtl_rt.pool_push();
        s = compile(p, err);
        if (s == SILL_OK && !make_room(p)) s = sill__fail(err, SILL_ENOMEM, "no memory for the list of Metal kernels");
        if (s == SILL_OK) {
            e = look_up(p, kernel, constants, n_constants);
            s = make(p, e, kernel, constants, n_constants, err);
        }
        sill__mtl_rt.pool_pop(pool);
    }
    if (s == SILL_OK) {
        *pipeline = e->pipeline;
        *max_threads = e->max_threads;
    }
    pthread_mutex_unlock(&lock);
    return s;
}

/* ------------------------------------------------------- opening and closing */

sill_status sill__mtl_pipelines_open(sill__mtl_pipelines **out, mtl_id *device, sill_error *err) {
    sill_status s = SILL_OK;
    pthread_mutex_lock(&lock);
    if (the.lost) s = sill__fail(err, SILL_EDEVICE, SILL__MTL_LOST);
    else if (!the.device && !(the.device = sill__mtl_rt.default_device()))
        s = sill__fail(err, SILL_EUNSUPPORTED, "device \"metal\": the system offers no GPU to this process");
    if (s == SILL_OK) {
        the.users++;
        *out = &the;
        *device = the.device;
    }
    pthread_mutex_unlock(&lock);
    return s;
}

void sill__mtl_pipelines_close(sill__mtl_pipelines *p) {
    if (!p) return;
    void *pool = sill__mtl_rt.pool_push();
    pthread_mutex_lock(&lock);
    if (--p->users == 0) write_archive(p);
    pthread_mutex_unlock(&lock);
    sill__mtl_rt.pool_pop(pool);
}

void sill__mtl_lose(sill__mtl_pipelines *p) {
    pthread_mutex_lock(&lock);
    p->lost = true;
    pthread_mutex_unlock(&lock);
}

bool sill__mtl_lost(sill__mtl_pipelines *p) {
    pthread_mutex_lock(&lock);
    bool lost = p->lost;
    pthread_mutex_unlock(&lock);
    return lost;
}

void sill__mtl_forget(void) {
    pthread_mutex_lock(&lock);
    if (the.users == 0 && the.device) {
        void *pool = sill__mtl_rt.pool_push();
        for (size_t i = 0; i < the.cap; i++)
            if (the.table[i].pipeline) mtl_release(the.table[i].pipeline);
        sill__free(the.table);
        if (the.archive) mtl_release(the.archive);
        if (the.library) mtl_release(the.library);
        mtl_release(the.device);
        memset(&the, 0, sizeof the);
        sill__mtl_rt.pool_pop(pool);
    }
    pthread_mutex_unlock(&lock);
}

#ifndef __APPLE__
/* Elsewhere the library is a test's, which counts what is left. On macOS the system takes all back. */
__attribute__((destructor)) static void forget_at_exit(void) { sill__mtl_forget(); }
#endif

sill__mtl_made sill__mtl_made_so_far(void) {
    pthread_mutex_lock(&lock);
    sill__mtl_made made = the.made;
    pthread_mutex_unlock(&lock);
    return made;
}
