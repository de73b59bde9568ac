/* Inside libfakemetal: objects, settings, and what its files ask of one another. */
#ifndef FAKE_H
#define FAKE_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "fakemetal.h"
#include "shim/msl_abi.h"

typedef struct fake_obj *id;
typedef const char *SEL;                /* the one copy of the name that sel_registerName keeps */
typedef unsigned long NSUInteger;
typedef signed char OBJCBOOL;
typedef struct { NSUInteger w, h, d; } MTLSize;
typedef struct { NSUInteger at, n; } NSRange;
typedef void (*IMP)(void);
#define EXPORT __attribute__((visibility("default")))

/* ---- settings (settings.c) */
typedef struct fake_settings {
    double os;                          /* 13.0, 14.0, 15.0: what the emulated macOS offers */
    long family;                        /* the newest Apple family that the device supports: 1007 = M1 */
    uint64_t working_set, max_buffer;
    unsigned max_threads;               /* of a pipeline: heavy kernels get less than 1024 on hardware */
    unsigned schedule;                  /* 0: first to last, 1: last to first */
    bool fast;                          /* no checks of each access */
    bool async;                         /* command buffers run by themselves, on another thread */
    bool races;                         /* look for races (checked mode) */
    bool keep_all;                      /* keep the list of dispatches */
    unsigned workers;
    long error_code;                    /* of a command buffer that is to fail */
    const char *path, *cache;           /* a report to write; where compiled kernels are kept */
} fake_settings;
extern fake_settings fake_set;
void fake_settings_load(void);
bool fake_fault(const char *what);      /* is this call to fail? */
bool fake_ending(long *code, char *text, size_t cap);  /* is this command buffer to fail? */
__attribute__((noreturn, format(printf, 1, 2))) void fake_die(const char *f, ...);
extern char fake_doing[160];            /* what runs, for messages */

/* ---- runtime (objc.c) */
typedef struct fake_method { const char *sel; IMP imp; double since; } fake_method;     /* sel begins with + or - */
typedef struct fake_class {
    struct fake_class *isa_slot;        /* a class is an object too */
    long rc;
    const struct fake_class *self;
    const char *name;
    const fake_method *methods;
    size_t n_methods;
    void (*dealloc)(id);
    size_t size;                        /* for +alloc; 0: not to be made by +alloc */
    double since;
    SEL sel[96];                        /* filled at the first message */
    bool ready;
} fake_class;
#define FAKE_HEAD fake_class *isa; long rc; fake_class *was
struct fake_obj { FAKE_HEAD; };
id fake_new(fake_class *c, size_t size);
id fake_retain(id o);
void fake_release(id o);
id fake_autorelease(id o);
bool fake_is(id o, const fake_class *c);
extern fake_class fake_NSString, fake_NSError, fake_NSURL, fake_NSArray, fake_NSDictionary, fake_NSNumber;
void fake_class_add(fake_class *c);     /* makes objc_getClass find it */
#define FAKE_CLASS(var, cname, de, sz, since_, ...) \
    static const fake_method var##_methods[] = { __VA_ARGS__ }; \
    fake_class var = { NULL, 1, NULL, cname, var##_methods, sizeof var##_methods / sizeof *var##_methods, de, sz, since_, { NULL }, false }
#define M(sel, f) { "-" sel, (IMP)(void (*)(void))f, 0 }
#define M15(sel, f) { "-" sel, (IMP)(void (*)(void))f, 15.0 }
#define M14(sel, f) { "-" sel, (IMP)(void (*)(void))f, 14.0 }
#define C(sel, f) { "+" sel, (IMP)(void (*)(void))f, 0 }
const char *fake_str(id string);        /* NULL for nil; stops when it is not a string */
id fake_string(const char *text);       /* autoreleased */
id fake_error(const char *domain, long code, const char *text); /* autoreleased */
const char *fake_url_path(id url);
size_t fake_array_count(id array);
id fake_array(id *objects, size_t n);    /* autoreleased */
id fake_array_at(id array, size_t i);
typedef struct fake_block { void *isa; int flags, reserved; void (*invoke)(void *, ...); struct { unsigned long reserved, size; void (*copy)(void *, const void *); void (*dispose)(const void *); } *descriptor; } fake_block;
void *fake_block_copy(const void *b);
void fake_block_release(const void *b);
void fake_objc_totals(fakemetal_totals *t);
void fake_pool_enter(void **token);
void fake_pool_leave(void *token);

/* ---- objects of Metal */
typedef struct fake_lib { FAKE_HEAD; void *so; const msl_library *l; char *source; unsigned long lo, hi; } fake_lib;
typedef struct fake_fn { FAKE_HEAD; fake_lib *lib; const msl_kernel *k; bool specialized; unsigned char *values; unsigned char *defined; } fake_fn;
typedef struct fake_pso { FAKE_HEAD; fake_fn *fn; unsigned max_threads; bool needs_full_simd; size_t static_tg; } fake_pso;
typedef struct fake_buf {
    FAKE_HEAD;
    char *p;
    size_t n;
    char *map;                          /* with guard pages; NULL: the host's own memory */
    size_t map_bytes;
    NSUInteger options;
    bool read_only;                     /* memory of the host's that is mapped without the right to write */
    void *deallocator;
    uint64_t id;
    struct fake_shadow *shadow;         /* check.c: who wrote and read what; made when needed */
    uint64_t bytes_read, bytes_written; /* as counted */
    void *elsewhere;                    /* what fake_elsewhere keeps of it */
    struct fake_buf *next, *prev;       /* all of them */
} fake_buf;
extern fake_class fake_Device, fake_Queue, fake_Lib, fake_Fn, fake_Pso, fake_Buf, fake_Cmd, fake_Enc, fake_Options, fake_Constants,
    fake_PsoDesc, fake_Archive, fake_ArchiveDesc, fake_Residency, fake_ResidencyDesc, fake_Event, fake_SharedEvent, fake_Fence, fake_Blit,
    fake_CmdDesc;
id fake_queue_new(id device);
extern fake_buf *fake_buffers;
fake_buf *fake_buffer_at(const void *p, size_t n);      /* the buffer that holds these bytes */
bool fake_residency_has(id set, const fake_buf *b);
void fake_residency_check(id set);
bool fake_buffer_in_flight(const fake_buf *b);  /* a committed command buffer that has not completed binds it */

/* ---- kernels that run elsewhere than on this CPU (tests/metalcuda); NULL: run.c runs them */
struct fake_run;
typedef struct fake_executor {
    const char *(*name)(void);          /* of the device; NULL: there is none */
    void (*dispatch)(struct fake_run *r);       /* may return before it has run */
    void (*finish)(void);               /* all that was dispatched has run; the host may look */
    void (*gone)(struct fake_buf *b);
} fake_executor;
extern const fake_executor *fake_elsewhere;

/* ---- compile.c, translate.c */
/* NULL: *log (to be freed) says why. */
const char *fake_compiler(void);
char *fake_library_path(const char *source, long language, char **log);
/* The text through preprocessor and translator, in the directory tmp. NULL: *log says what is wrong. */
char *fake_library_text(const char *source, const char *version, const char *macros, const char *tmp, char **log);
bool fake_run_command(char **log, const char *f, ...);
uint64_t fake_hash(uint64_t h, const char *s);
extern const char fake_msl[], fake_msl_abi[], fake_translator_hash[];
/* C++ text of an MSL text that has been through the preprocessor; NULL: *log says what is wrong. */
char *fake_translate(const char *text, char **log);

/* ---- run.c */
typedef struct fake_binding { const void *p; size_t n; fake_buf *buf; size_t at; } fake_binding;
typedef struct fake_run {               /* a dispatch */
    const fake_fn *fn;
    fake_binding bind[MSL_BUFFERS];
    size_t tgmem[MSL_BUFFERS];
    bool uses_tg[MSL_BUFFERS];          /* declared by the kernel */
    uint32_t groups[3], threads[3], grid[3];
    bool exact;                         /* dispatchThreads: the last groups are smaller */
    id *resident; size_t n_resident;    /* buffers that may be read through addresses */
    uint64_t bytes_read, bytes_written;
    uint64_t serial;                    /* number of the dispatch */
    uint64_t cmd; uint32_t encoder, interval; bool concurrent;
    bool ordered;                       /* after all that ran before in other encoders */
} fake_run;
void fake_run_dispatch(fake_run *r);    /* runs it; a mistake ends the process with a message */
extern const msl_rt fake_rt;

/* ---- check.c */
struct fake_worker;
void fake_check_begin(fake_run *r);
void fake_check_end(fake_run *r);
void fake_check_worker(struct fake_worker *w, size_t arena);
void fake_check_buffer_gone(fake_buf *b);
void fake_touch(msl_worker *w, unsigned long addr, unsigned long size, int write);
typedef struct fake_worker {            /* at the start of a worker's region, before the stacks */
    msl_worker m;                       /* first: the kernels know it */
    msl_rt rt;                          /* in the region: a kernel's reads of it are no accesses */
    fake_run *run;
    void *main_sp;
    void (*body)(msl_worker *w);
    unsigned live, sg_ready, tg_waiting, tg_flags, n_free, down, index;
    int tg_line;
    unsigned epoch_tg, epoch_dev;       /* barriers so far, by the memory that they order */
    uint64_t group;                     /* number of the threadgroup */
    unsigned short free_stack[MSL_MAX_THREADS];
    unsigned n_tgvars, n_tgvars_seen;
    struct { unsigned id; unsigned long at, size; const char *name; } tgvar[64];
    unsigned long tg_used, tg_bytes, tg_dynamic;       /* end in the arena; bytes that count; end of the dynamic part */
    struct { unsigned long at, n; } tg_range[MSL_BUFFERS + 64]; unsigned n_tg_ranges, last_tg, last_region;
    struct fake_tgcell *tgcell;         /* one for each byte of threadgroup memory */
    unsigned tg_serial;
    uint64_t n_read, n_written;
} fake_worker;
const char *fake_source_line(const fake_lib *l, int line, char *out, size_t n);
const char *fake_where(const fake_worker *w, char *out, size_t n);
__attribute__((noreturn, format(printf, 3, 4))) void fake_kernel_die(fake_worker *w, int line, const char *f, ...);
#endif
