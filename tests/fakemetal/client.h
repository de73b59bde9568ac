/* What the fake's own tests share: a small Objective-C client, and children that are expected to be stopped. */
#ifndef CLIENT_H
#define CLIENT_H
#include "fakemetal/fakemetal.h"
#include "test.h"
#include <dlfcn.h>
#include <sys/wait.h>
#include <unistd.h>

typedef void *oid;
typedef void *osel;
typedef struct { unsigned long w, h, d; } osize;
typedef struct { unsigned long at, n; } orange;
static void (*o_send)(void);
static osel (*o_sel)(const char *);
static oid (*o_class)(const char *), (*o_device)(void);
static void *(*o_push)(void), (*o_pop_)(void *);
static void *o_lib;
static oid dev;
/* CALL(result, object, "selector:", (types after self and _cmd), arguments...) */
#define CALL_TYPES(...) (oid, osel, ##__VA_ARGS__)
#define CALL(R, o, s, T, ...) (((R(*) CALL_TYPES T)o_send)((o), o_sel(s), ##__VA_ARGS__))
#define CALL0(R, o, s) (((R(*)(oid, osel))o_send)((o), o_sel(s)))
#define FAKE(name, T) ((T)dlsym(o_lib, "fakemetal_" #name))

static inline oid str(const char *s) { return ((oid(*)(oid, osel, const char *))o_send)(o_class("NSString"), o_sel("stringWithUTF8String:"), s); }
static inline const char *chars(oid s) { return CALL0(const char *, s, "UTF8String"); }
static inline const char *reason(oid err) { return err ? chars(CALL0(oid, err, "localizedDescription")) : "(no error)"; }
static inline oid made(const char *class) { return CALL0(oid, CALL0(oid, o_class(class), "alloc"), "init"); }

/* The library beside the build; false where it is not, or there is no compiler for kernels. */
static inline bool client_open(const char *argv0)
{
    char path[1024];
    const char *build = getenv("BUILD");
    if (build) snprintf(path, sizeof path, "%.900s/libfakemetal.so", build);
    else {
        snprintf(path, sizeof path, "%.900s", argv0);
        for (int i = 0; i < 3; i++) { char *c = strrchr(path, '/'); if (c) *c = 0; }
        strcat(path, "/libfakemetal.so");
    }
    o_lib = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!o_lib) { printf("SKIP fakemetal: %s\n", dlerror()); return false; }
    *(void **)&o_send = dlsym(o_lib, "objc_msgSend");
    *(void **)&o_sel = dlsym(o_lib, "sel_registerName");
    *(void **)&o_class = dlsym(o_lib, "objc_getClass");
    *(void **)&o_device = dlsym(o_lib, "MTLCreateSystemDefaultDevice");
    *(void **)&o_push = dlsym(o_lib, "objc_autoreleasePoolPush");
    *(void **)&o_pop_ = dlsym(o_lib, "objc_autoreleasePoolPop");
    if (!((const char *(*)(void))dlsym(o_lib, "fakemetal_compiler"))()) { printf("SKIP fakemetal: clang 16 or later is not installed (tools/deps.sh --test)\n"); return false; }
    o_push();
    dev = o_device();
    return true;
}
static inline int set(const char *what, double v) { return ((int (*)(const char *, double))dlsym(o_lib, "fakemetal_set"))(what, v); }
static inline int fault(const char *what, long after, long times) { return ((int (*)(const char *, long, long))dlsym(o_lib, "fakemetal_fault"))(what, after, times); }
static inline void totals(fakemetal_totals *t) { ((void (*)(fakemetal_totals *))dlsym(o_lib, "fakemetal_totals_get"))(t); }
static inline void counters_reset(void) { ((void (*)(void))dlsym(o_lib, "fakemetal_counters_reset"))(); }

static inline oid safe_options(void)
{
    oid o = made("MTLCompileOptions");
    CALL(void, o, "setMathMode:", (long), 0l);
    CALL(void, o, "setMathFloatingPointFunctions:", (long), 1l);
    return o;
}
static inline oid library(const char *source, oid *err)
{
    oid o = safe_options(), e = NULL;
    oid l = CALL(oid, dev, "newLibraryWithSource:options:error:", (oid, oid, oid *), str(source), o, &e);
    CALL0(void, o, "release");
    if (err) *err = e;
    return l;
}
static inline char *slurp(const char *path)
{
    FILE *f = fopen(path, "rb");
    if (!f) return NULL;
    char *s = calloc(1, 1 << 20);
    if (s && fread(s, 1, (1 << 20) - 1, f) == 0) s[0] = 0;
    fclose(f);
    return s;
}
static inline oid pipeline(oid lib, const char *name)
{
    oid e = NULL, f = CALL(oid, lib, "newFunctionWithName:", (oid), str(name));
    oid p = f ? CALL(oid, dev, "newComputePipelineStateWithFunction:error:", (oid, oid *), f, &e) : NULL;
    if (f) CALL0(void, f, "release");
    return p;
}
static inline oid buffer(size_t n) { return CALL(oid, dev, "newBufferWithLength:options:", (unsigned long, unsigned long), n, 0ul); }
static inline void *contents(oid b) { return CALL0(void *, b, "contents"); }
static inline oid encoder(oid cb, unsigned long type) { return CALL(oid, cb, "computeCommandEncoderWithDispatchType:", (unsigned long), type); }
static inline void bind(oid e, oid b, size_t at, unsigned long i) { CALL(void, e, "setBuffer:offset:atIndex:", (oid, unsigned long, unsigned long), b, at, i); }
static inline void bytes(oid e, const void *p, size_t n, unsigned long i) { CALL(void, e, "setBytes:length:atIndex:", (const void *, unsigned long, unsigned long), p, n, i); }
static inline void dispatch(oid e, unsigned long groups, unsigned long threads)
{
    osize g = { groups, 1, 1 }, t = { threads, 1, 1 };
    CALL(void, e, "dispatchThreadgroups:threadsPerThreadgroup:", (osize, osize), g, t);
}
static inline void use(oid e, oid p) { CALL(void, e, "setComputePipelineState:", (oid), p); }

/* Runs FN in a child. It must be stopped, with TEXT in what it says; TEXT NULL: it must not be stopped. */
static inline void stopped(const char *what, void (*fn)(void), const char *text)
{
    int fd[2], st = 0;
    char said[4096];
    size_t n = 0;
    fflush(NULL);
    if (pipe(fd)) { FAIL("pipe"); return; }
    pid_t p = fork();
    if (p == 0) {
        dup2(fd[1], 2);
        close(fd[0]);
        close(fd[1]);
        fn();
        _exit(0);
    }
    close(fd[1]);
    for (ssize_t k; n < sizeof said - 1 && (k = read(fd[0], said + n, sizeof said - 1 - n)) > 0;) n += (size_t)k;
    said[n] = 0;
    close(fd[0]);
    waitpid(p, &st, 0);
    const bool aborted = WIFSIGNALED(st) && WTERMSIG(st) == SIGABRT;
    if (!text) { if (st != 0) FAIL("%s: stopped with \"%s\"", what, said); }
    else if (!aborted) FAIL("%s: not stopped (status %d, said \"%s\")", what, st, said);
    else if (!strstr(said, text)) FAIL("%s: said \"%s\", expected \"%s\"", what, said, text);
}
#endif
