/*
 * metal.h - what the tests of the Metal backend share: the fake Metal beside the build (or the real one on macOS), its own
 * functions, and a device on it. SILL_METAL_LIBRARY names another fake.
 */
#ifndef TESTS_METAL_H
#define TESTS_METAL_H

#include <dlfcn.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "backend/metal/host.h"
#include "fakemetal/fakemetal.h"
#include "test.h"

static struct {
    void *handle;
    void (*totals)(fakemetal_totals *);
    void (*reset)(void);
    size_t (*dispatches)(fakemetal_dispatch *, size_t);
    void (*buffer_bytes)(struct fake_obj *, uint64_t *, uint64_t *);
    void (*keep)(bool);
    int (*fault)(const char *, long, long);
    int (*set)(const char *, double);
    const char *(*compiler)(void);
} fake;

/* Finds the fake and settles its environment. Before anything of sill opens a device. */
static inline void fake_open(const char *argv0) {
    char path[1024];
    const char *build = getenv("BUILD"), *named = getenv("SILL_METAL_LIBRARY");
    setenv("SILL_METAL_CACHE", "0", 0);
    if (!named) {
        if (build) snprintf(path, sizeof path, "%s/libfakemetal.so", build);
        else snprintf(path, sizeof path, "%.900s", argv0);
        if (!build) { /* BUILD/tests/metal/test_x */
            for (int i = 0; i < 3; i++) {
                char *slash = strrchr(path, '/');
                if (slash) *slash = 0;
            }
            strcat(path, "/libfakemetal.so");
        }
        setenv("SILL_METAL_LIBRARY", named = path, 1);
    }
    fake.handle = dlopen(named, RTLD_NOW | RTLD_LOCAL);
    if (!fake.handle) return;
#define FAKE_FIND(name, symbol) *(void **)(void *)&fake.name = dlsym(fake.handle, "fakemetal_" symbol)
    FAKE_FIND(totals, "totals_get");
    FAKE_FIND(reset, "counters_reset");
    FAKE_FIND(dispatches, "dispatches");
    FAKE_FIND(buffer_bytes, "buffer_bytes");
    FAKE_FIND(keep, "keep_dispatches");
    FAKE_FIND(fault, "fault");
    FAKE_FIND(set, "set");
    FAKE_FIND(compiler, "compiler");
#undef FAKE_FIND
}

/* Where there is neither a fake nor a compiler for its kernels, the tests are skipped. */
static inline const char *fake_missing(void) {
    if (!fake.handle) return "no fake Metal in this build (make tests)";
    return fake.compiler && !fake.compiler() ? "no clang++ for the kernels of the fake Metal (tools/deps.sh --test)" : NULL;
}
#define NEEDS_FAKE()                          \
    do {                                      \
        if (fake_missing()) SKIP(fake_missing()); \
    } while (0)

static inline fakemetal_totals fake_totals(void) {
    fakemetal_totals t = {0};
    fake.totals(&t);
    return t;
}

/* The fake either checks every access of a kernel, or runs it several times as fast; FAKEMETAL_FAST=1 wants it fast throughout
 * (an emulator: what the checks find does not depend on the processor). */
static inline void check_accesses(bool on) {
    const char *always = getenv("FAKEMETAL_FAST");
    sill__mtl_forget();
    if (fake.handle) fake.set("fast", !on || (always && always[0] == '1'));
}

/* The last test of a program. */
static inline void nothing_is_left(void) {
    NEEDS_FAKE();
    sill__mtl_forget();
    fakemetal_totals t = fake_totals();
    CHECK_INT(t.live_objects, 0);
    CHECK_INT(t.unpooled, 0);
}

static inline sill__device *metal_device(void) {
    sill__device *d = NULL;
    sill_error err = {0};
    if (sill__backend_metal()->open(NULL, &d, &err) != SILL_OK) FAIL("%s", err.msg);
    return d;
}

#endif
