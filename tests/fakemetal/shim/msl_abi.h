/* What libfakemetal (C) and a translated kernel library (C++) agree on: the worker that runs a threadgroup, the functions
   that the shim calls, and the tables that a library exports. No header is included here: MSL has none either. */
#pragma once
#if defined(__cplusplus)
#define MSL_ALIGN(n) alignas(n)
#else
#define MSL_ALIGN(n) _Alignas(n)
#endif
enum {
    MSL_ABI = 6,
    MSL_BUFFERS = 31,
    MSL_MAX_THREADS = 1024,
    MSL_TG_MEMORY = 32768,              /* what a threadgroup may use: family Apple7 */
    MSL_REGION = 1 << 26,               /* a worker and the stacks of its threads: one block of this size and alignment */
};
/* operations that a whole SIMD-group must meet in; the name is for messages */
#define MSL_OPS(X) \
    X(BARRIER, "simdgroup_barrier") X(SUM, "simd_sum") X(PRODUCT, "simd_product") X(MAX, "simd_max") X(MIN, "simd_min") \
    X(AND, "simd_and") X(OR, "simd_or") X(XOR, "simd_xor") X(PREFIX_IN, "simd_prefix_inclusive_sum") \
    X(PREFIX_EX, "simd_prefix_exclusive_sum") X(ALL, "simd_all") X(ANY, "simd_any") X(BALLOT, "simd_ballot") \
    X(SHUFFLE, "simd_shuffle") X(SHUFFLE_XOR, "simd_shuffle_xor") X(SHUFFLE_UP, "simd_shuffle_up") \
    X(SHUFFLE_DOWN, "simd_shuffle_down") X(BROADCAST, "simd_broadcast") X(BROADCAST_FIRST, "simd_broadcast_first") \
    X(QUAD_SUM, "quad_sum") X(QUAD_MAX, "quad_max") X(QUAD_MIN, "quad_min") X(QUAD_SHUFFLE, "quad_shuffle") \
    X(ELEMENTS, "thread_elements") X(GATHER, "a matrix operation after thread_elements")
#define MSL_OP_ENUM(id, name) MSL_OP_##id,
enum { MSL_OPS(MSL_OP_ENUM) MSL_N_OPS };

struct msl_worker;
typedef struct msl_rt {                 /* implemented by run.c and check.c */
    int (*meet)(struct msl_worker *w, int op, int line);     /* 1: the caller is the last of its SIMD-group to arrive */
    void (*barrier)(struct msl_worker *w, unsigned flags, int line);
    void (*simd_barrier)(struct msl_worker *w, unsigned flags, int line);
    void *(*tgvar)(struct msl_worker *w, unsigned id, unsigned long size, unsigned long align, const char *name);
    void (*fail)(struct msl_worker *w, int line, const char *what);
    void (*touch)(struct msl_worker *w, unsigned long addr, unsigned long size, int write);
} msl_rt;
typedef struct msl_thread {
    void *sp;
    unsigned tid, pos[3];
    unsigned char lane, sg, state, par; /* par: which half of the slots its next operation uses */
    unsigned short stack;
    unsigned short op;
    int line;                           /* where it waits */
    unsigned atomic;                    /* inside an atomic operation: no race */
    unsigned long mat_hash;             /* matrix operations since the last meeting: the same in all lanes */
} msl_thread;
typedef struct msl_sg {
    MSL_ALIGN(64) unsigned char slot[2][32][16];
    MSL_ALIGN(16) unsigned char res[2][16];
    const void *matrix[32];
    unsigned lanes, done, ready, waiting, barrier;            /* masks */
    int op, line, leader_line;
    unsigned epoch;                     /* counts barriers that order threadgroup memory within the SIMD-group */
    unsigned long mat_hash;
} msl_sg;
typedef struct msl_worker {
    const msl_rt *rt;
    msl_thread *t;                      /* the running one */
    unsigned long pc;                   /* of its last access */
    unsigned long tg_base, tg_size;     /* threadgroup memory, redzones included */
    void *buf[MSL_BUFFERS];             /* bindings, offset applied */
    void *tgmem[MSL_BUFFERS];
    unsigned tgpos[3], tgs[3], tpt[3], nominal[3], grid[3];
    unsigned n, n_sg;                   /* threads and SIMD-groups of this threadgroup */
    msl_sg sg[32];
    msl_thread thread[MSL_MAX_THREADS];
} msl_worker;

typedef struct msl_bind {               /* one parameter of a kernel */
    char kind;                          /* b buffer, t threadgroup memory, or a built-in: see msl_arg in msl_run.h */
    short index;
    short fc;                           /* index into msl_constants of a bool that must be true, or -1 */
    const char *name;
    char constant;                      /* a buffer in the constant address space */
} msl_bind;
typedef struct msl_param { unsigned size, align; char ref, konst; } msl_param;   /* of what the parameter points at; of a built-in: size 0, align = its dimensions */
typedef struct msl_kernel {
    const char *name;
    void (*body)(msl_worker *w);        /* runs one thread */
    const msl_bind *bind;
    const msl_param *param;
    int n;
    unsigned max_threads;               /* [[max_total_threads_per_threadgroup]], 0: none */
    unsigned long needs[4];             /* function constants that the kernel uses: bits of msl_constants */
    unsigned tg_from, tg_to;            /* its threadgroup variables: those with these numbers, times 16 */
} msl_kernel;
typedef struct msl_constant { const char *name; unsigned index, type; void *at; unsigned size; unsigned char *defined; char optional; } msl_constant;
typedef struct msl_tg_entry { unsigned id; unsigned long size; } msl_tg_entry;     /* one threadgroup variable, in the section msl_tg */
typedef struct msl_library {
    unsigned abi;
    const msl_kernel *kernels;
    unsigned n_kernels;
    const msl_constant *constants;
    unsigned n_constants;
    void (*init_constants)(void);       /* what is computed from function constants */
    const msl_tg_entry *tg, *tg_end;
} msl_library;
