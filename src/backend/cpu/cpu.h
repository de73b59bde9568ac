/*
 * cpu.h - what the files of the CPU backend share: cpu.c (device, memory, weights), cpu_queue.c (recording and running a
 * program of ops), cpu_linear.c, cpu_attention.c, cpu_head.c (the ops), cpu_cache.c (packed weights kept on disk).
 *
 * Ops are recorded into a fixed program. submit lets every thread of the pool walk the whole program; each op is one
 * or more phases, and within a phase the threads take tasks from a counter, or from
 * counters of their own and then of others (sill__cpu_take_share). A task computes whole outputs, so that neither the split nor who took it shows in the numbers. Behind a phase is a barrier, but not
 * where every thread prepares the rows for itself (own_rows) or the barrier behind the op will do (placed_later).
 */
#ifndef SILL_CPU_H
#define SILL_CPU_H

#include <stdatomic.h>

#include "backend/cpu/kernels.h"
#include "base/pool.h"

/* The packed matrices of one model, one behind the other, and what a copy of them on disk goes by. */
typedef struct cpu_slab {
    struct cpu_slab *next;
    uint8_t *data;          /* in huge pages, or mapped from the copy: then not to be written */
    size_t bytes;           /* with a key: whole huge pages */
    sill__map map;          /* of the copy; handle NULL: none */
    bool keyed, keep;       /* name and key are set; to be kept when the device closes */
    char name[48];
    uint8_t key[32];
} cpu_slab;

struct sill__device {
    const sill__backend *ops;
    const sill__cpu_isa *isa;
    const sill__cpu_mat_kernels *mat;
    const sill__cpu_vec_kernels *vec;
    sill__pool *pool;
    int n_threads;
    cpu_slab *slabs;
};

struct sill__buf { uint8_t *data; size_t bytes; };

struct sill__weight {
    sill__role role;
    int32_t rows, cols;
    sill__cpu_mat mat;     /* BODY and HEAD: packed */
    bool in_slab;          /* mat.data is the device's */
    sill__weight *next;    /* rows below those of `mat`, where the parts have several types (qkv only) */
    sill__tensor source;   /* EMBED: the stored tensor, widened row by row */
    size_t row_bytes;
};

/* A block holds the tiles of all layers and heads, one behind the other, so that a pool that is never full touches its
 * first blocks only. tile: bytes of a K and a V tile; stride: from block to block. */
struct sill__kv { sill__kv_shape shape; uint8_t *data; size_t bytes, v_at, tile, stride; };

/* Tiles of one layer and kv head: block b at + b * stride. */
static inline uint8_t *sill__kv_tiles(const sill__kv *kv, int32_t layer, int32_t head) {
    return kv->data + ((size_t)layer * (size_t)kv->shape.n_kv_heads + (size_t)head) * kv->tile;
}

/* ---- sizes */
#define CPU_MAX_OPS 512        /* recorded before the program is run to make room */
#define CPU_ROW_BLOCK 64       /* rows of a task; also rows of a pass of the output head */
#define CPU_TILE_COLS 512      /* outputs of a task, at most */
#define CPU_TILE_FLOATS ((size_t)CPU_ROW_BLOCK * (CPU_TILE_COLS + 128))
#define CPU_OWN_ROWS 4         /* up to so many rows every thread prepares its own copy, */
#define CPU_OWN_VALUES 8192    /* if they are not more values than this: cheaper than a barrier */
#define CPU_HEAD_COLS 256      /* logits reduced together: fixed, since sums over the vocabulary follow it */
#define CPU_MAX_TOP 128        /* top-k without kept logits */
#define CPU_ROPE_DIMS SILL__MAX_HEAD_DIM /* most rotated values of a head */
#define CPU_QUERY_ROWS 32      /* rows of an attention task */

typedef struct cpu_copy { sill__kv *kv; int32_t from, to, n; } cpu_copy;

typedef enum cpu_kind { CPU_EMBED, CPU_LINEAR, CPU_QKV, CPU_ATTENTION, CPU_TAP, CPU_HEAD, CPU_KV_COPY } cpu_kind;

typedef struct cpu_op {
    cpu_kind kind;
    int32_t n;              /* rows */
    bool own_rows;          /* every thread prepares the input rows for itself */
    bool fill_rope;         /* the table of cos and sin is not made yet */
    bool placed_later;      /* qkv: the attention behind it puts short runs' heads where they belong */
    const sill__op_qkv *place; /* attention: the qkv op whose heads it places, or NULL */
    atomic_int next[4];     /* tasks taken, by phase */
    union {
        sill__op_embed embed;
        sill__op_linear linear;
        sill__op_qkv qkv;
        sill__op_attention attention;
        sill__op_tap tap;
        sill__op_head head;
        cpu_copy copy;
    } u;
} cpu_op;

/* Best logits of a row seen by one thread, falling; ties by lower id. */
typedef struct cpu_best { float value; int32_t id; } cpu_best;

/* A thread's stretch of a product's tasks: the serial number of the op that it was last taken from for, and the next task. */
typedef struct cpu_share { _Alignas(64) _Atomic uint64_t at; } cpu_share;

/* Memory of one thread. */
typedef struct cpu_own {
    float *row;             /* (max_width) */
    uint8_t *acts;          /* CPU_OWN_ROWS prepared rows */
    float *tile;            /* CPU_TILE_FLOATS, or attend's scratch */
    cpu_best *best;         /* (CPU_ROW_BLOCK, CPU_MAX_TOP) */
    int32_t *n_best;        /* (CPU_ROW_BLOCK) */
} cpu_own;

struct sill__queue {
    sill__device *device;
    int32_t max_tokens, max_out, max_width, max_vocab;
    uint8_t *memory;
    size_t memory_bytes;
    /* the batch */
    const sill__batch *batch;
    sill_error error;       /* the first that happened and was not told yet; code SILL_OK: none */
    sill__ticket n_submitted;
    const sill__kv *checked_kv; /* whose blocks the runs' tables were checked against */
    const sill__rope *rope; /* of the op that fills the table, or NULL */
    bool long_runs;         /* the batch has runs of more rows than an attention task takes */
    int32_t looked_up;      /* rows of tables since their pages in the file were given back */
    /* laid out in memory */
    cpu_op *ops;            /* (CPU_MAX_OPS) */
    int32_t n_ops;
    int32_t *row_run;       /* (rows) run of each row */
    int32_t *run_tasks;     /* (rows + 1) attention tasks of the runs before */
    uint8_t *acts;          /* (rows) prepared input rows */
    float *wide;            /* (max_tokens, max_width) q, k and v before they go where they belong */
    float *cos, *sin;       /* (max_tokens, CPU_ROPE_DIMS / 2), rows as long as the model needs */
    float *stats;           /* (CPU_ROW_BLOCK, n_chunks, 2) maximum and sum of each chunk of the vocabulary */
    int32_t max_chunks;
    cpu_own *own;           /* (n_threads) */
    cpu_share *shares;      /* (n_threads) */
    uint32_t serial;        /* of ops[0]; every op that is run has another one than those before */
};

/* One thread on its walk through the program. */
typedef struct cpu_walk {
    sill__queue *q;
    const sill__cpu_mat_kernels *mat;
    const sill__cpu_vec_kernels *vec;
    const cpu_own *own;
    int i, n;
    uint32_t serial;        /* of the op */
} cpu_walk;

/* ---- shared helpers (cpu_queue.c) */

/* Takes the next task of a phase below LIMIT; -1 when there is none left. */
static inline int32_t sill__cpu_take(atomic_int *next, int32_t limit) {
    int task = atomic_load_explicit(next, memory_order_relaxed);
    while (task < limit)
        if (atomic_compare_exchange_weak_explicit(next, &task, task + 1, memory_order_relaxed, memory_order_relaxed))
            return task;
    return -1;
}
/* Takes a task of [base, base + n), where base is above all that this op has had before; -1 when there is none left. A thread
 * goes through a stretch of its own, so that it reads weights (or keys and values) as they lie, and then helps the others. */
int32_t sill__cpu_take_share(const cpu_walk *w, int32_t base, int32_t n);
static inline float *sill__cpu_f32(sill__ref r) { return r.buf ? (float *)(void *)(r.buf->data + r.at) : NULL; }
static inline void sill__cpu_barrier(const cpu_walk *w) { sill__pool_barrier(w->q->device->pool); }

/* y = norm(x); with NORM_NONE a copy. */
void sill__cpu_norm(const cpu_walk *w, const sill__norm *norm, float *y, const float *x, int32_t n);
/* Phase 0 of all products: rows gathered, normalized and put into the weight's form of activations. `first` counts
 * output rows with ROWS_OUT; `next` counts the phase's tasks, from `next_base` to `next_base` + n. Returns the prepared rows; a barrier is
 * included unless they are the thread's own. */
const uint8_t *sill__cpu_prepare(const cpu_walk *w, const cpu_op *op, const sill__weight *weight, sill__ref in,
                                 sill__rows rows, const sill__norm *norm, int32_t first, int32_t n, atomic_int *next,
                                 int32_t next_base);

/* Keeps the first error; returns whether the queue is still without one. */
bool sill__cpu_require(sill__queue *q, bool ok, sill_status code, const char *format, ...) SILL_PRINTF(4, 5);
/* Room for one more op, zeroed; NULL when the queue has an error. */
cpu_op *sill__cpu_record(sill__queue *q, cpu_kind kind, int32_t n);
/* The place holds (rows, width) f32 values, or is absent where that is allowed. */
bool sill__cpu_check_ref(sill__queue *q, const char *what, sill__ref r, int32_t rows, int32_t width, bool may_lack);
bool sill__cpu_check_norm(sill__queue *q, const sill__norm *norm, int32_t width);
/* A packed matrix that fits the scratch; whether its rows can be prepared by every thread for itself. */
bool sill__cpu_check_weight(sill__queue *q, const sill__weight *w, const char *what, bool may_be_list);
bool sill__cpu_own_rows(const sill__queue *q, const sill__weight *w, sill__ref in, sill__ref out, int32_t n,
                        size_t out_bytes);
/* Every block that the batch's runs name exists in KV. */
bool sill__cpu_check_blocks(sill__queue *q, const sill__kv *kv);
/* Runs what was recorded. */
void sill__cpu_run(sill__queue *q);

/* ---- the packed copy (cpu_cache.c) */

#define CPU_SLAB_ALIGN ((size_t)2 << 20)
/* Sets name and key (and rounds the size up), when a copy of weights of this size is wanted and their files are known. */
void sill__cpu_cache_key(const sill__device *d, const sill__weight_src *const *srcs, sill__weight *const *weights,
                         size_t n, cpu_slab *slab);
/* Sets data from the copy, when there is one and it is whole. */
bool sill__cpu_cache_take(sill__device *d, cpu_slab *slab);
void sill__cpu_cache_put(sill__device *d, const cpu_slab *slab);

/* ---- ops: recording, and their part in one thread's walk */
void sill__cpu_embed(sill__queue *q, const sill__op_embed *op);
void sill__cpu_linear(sill__queue *q, const sill__op_linear *op);
void sill__cpu_qkv(sill__queue *q, const sill__op_qkv *op);
void sill__cpu_attention(sill__queue *q, const sill__op_attention *op);
void sill__cpu_tap(sill__queue *q, const sill__op_tap *op);
void sill__cpu_head(sill__queue *q, const sill__op_head *op);
void sill__cpu_kv_copy(sill__queue *q, sill__kv *kv, int32_t from, int32_t to, int32_t n);
/* Rows [row, row + n), of one run, and one kv head out of `wide`: queries to q, keys and values into the cache. */
void sill__cpu_place(const cpu_walk *w, const sill__op_qkv *o, int32_t row, int32_t n, int32_t kv_head);
/* Runs that are one attention task for each head: nobody else reads what such a task has placed. */
static inline bool sill__cpu_short(const sill__run *run) { return run->n <= CPU_QUERY_ROWS; }

void sill__cpu_walk_embed(const cpu_walk *w, cpu_op *op);
void sill__cpu_walk_linear(const cpu_walk *w, cpu_op *op);
void sill__cpu_walk_qkv(const cpu_walk *w, cpu_op *op);
void sill__cpu_walk_attention(const cpu_walk *w, cpu_op *op);
void sill__cpu_walk_tap(const cpu_walk *w, cpu_op *op);
void sill__cpu_walk_head(const cpu_walk *w, cpu_op *op);
void sill__cpu_walk_kv_copy(const cpu_walk *w, cpu_op *op);

/* ---- the queue's part of the op table (cpu_queue.c) */
uint64_t sill__cpu_queue_bytes(const sill__device *d, const sill__queue_shape *shape);
sill_status sill__cpu_queue_create(sill__device *d, const sill__queue_shape *shape, sill__queue **out, sill_error *err);
void sill__cpu_queue_free(sill__device *d, sill__queue *q);
void sill__cpu_begin(sill__queue *q, const sill__batch *batch);
sill_status sill__cpu_submit(sill__queue *q, sill__ticket *ticket, sill_error *err);
sill_status sill__cpu_wait(sill__queue *q, sill__ticket ticket, sill_error *err);

#endif
