/*
 * metal.h - what the files of the Metal backend share: its structs, and the interface through which operations
 * dispatch kernels. device.c: opening, limits, the table. memory.c: buffers, weights, keys and values. queue.c: steps.
 * pipelines.c: the kernels' text becomes pipelines. ops_mat.c and ops_vec.c: which kernels make up an operation.
 */
#ifndef SILL_METAL_H
#define SILL_METAL_H

#include <pthread.h>

#include "backend/backend.h"
#include "backend/metal/kernels/args.h"

typedef struct objc_object *mtl_id; /* an Objective-C object; NULL is nil */

typedef struct sill__mtl_pipelines sill__mtl_pipelines; /* pipelines.c */
typedef struct sill__mtl_map sill__mtl_map;             /* memory.c: a window of a mapped file as a buffer */

struct sill__device {
    const sill__backend *ops;
    mtl_id id;
    sill__mtl_pipelines *pipelines;
    mtl_id nothing;         /* a buffer that is bound where an argument is absent */
    uint64_t working_set;   /* recommendedMaxWorkingSetSize; 0: not told */
    uint64_t max_buffer;    /* maxBufferLength */
    int family;             /* 7: Apple7 (M1), 8: M2, 9: M3 and later */
    char name[64];
    pthread_mutex_t lock;   /* of what follows: sessions in several threads share the device */
    sill__mtl_map *maps;
    mtl_id residency;       /* MTLResidencySet, or NULL before macOS 15 */
    bool unrequested;       /* buffers were added to it since residency was last requested */
    uint64_t in_use;        /* bytes of all buffers */
    int32_t n_working;      /* submitted command buffers that nobody has waited for */
    mtl_id *dropped;        /* buffers to give back when there are none */
    size_t n_dropped, cap_dropped;
};

struct sill__buf { mtl_id buffer; size_t bytes; uint8_t *data; };

/* Rows [first, first + rows) of a weight, as they lie in memory. `at` is a multiple of 8 for plain types and of 4 for
 * blocks. Plain types: transposed: (cols, stride) with the weight's rows along the storage row, else (rows, stride). */
typedef struct sill__mtl_part {
    mtl_id buffer;
    size_t at, bytes;
    sill__type type;        /* I8: codes of LLM.int8, one f32 scale a row in sill__weight.scales */
    int32_t first, rows;
    int32_t stride;         /* elements from one storage row to the next (block types: cols) */
} sill__mtl_part;

struct sill__weight {
    sill__role role;
    sill__compute compute;  /* INT8: activations as in ref.c. All others: f32 activations, the weights as they lie */
    int32_t rows, cols;
    bool transposed;        /* plain types only; all parts alike */
    int n_parts;
    sill__mtl_part parts[4];
    mtl_id scales;          /* f32 (rows), INT8 only */
    size_t scales_at;
    mtl_id own;             /* the buffer that this weight made, if it did */
    size_t own_bytes;
};

struct sill__kv { sill__kv_shape shape; mtl_id buffer; size_t bytes; };

/* ------------------------------------------------------------ dispatching */

typedef struct sill__mtl_arg {
    mtl_id buffer;          /* NULL: absent; something is bound all the same, not to be read */
    size_t at;
    bool write;             /* the kernel writes (and may read) it */
    bool some;              /* it touches a small part of that, which `moved` of the call counts where it matters */
    size_t bytes;           /* that it touches, for the barriers; 0: all from `at` on */
} sill__mtl_arg;

#define SILL__MTL_MAX_BUFS 16
#define SILL__MTL_MAX_CONSTANTS 12

typedef struct sill__mtl_call {
    const char *kernel;     /* name of the kernel function; static */
    uint32_t constants[SILL__MTL_MAX_CONSTANTS]; /* function constants 0 .. n-1, all uint */
    int n_constants;
    const void *args;       /* at buffer(0), by value, <= 4096 bytes */
    uint32_t args_size;
    sill__mtl_arg bufs[SILL__MTL_MAX_BUFS]; /* bufs[i] at buffer(i + 1) */
    int n_bufs;
    uint32_t groups[3], threads[3];
    uint32_t local_bytes;   /* threadgroup memory at index 0; 0: none. A multiple of 16 */
    double macs, moved;     /* multiply-adds, and bytes beside the arguments' (all but those marked `some`): about, for how long it takes */
} sill__mtl_call;

/* Adds a call to the step. A barrier goes in front of it where it reads or writes what a call since the last barrier
 * wrote, or writes what one read. Everything is copied. Groups of 0 in any dimension: nothing happens. */
void sill__mtl_dispatch(sill__queue *q, const sill__mtl_call *call);

/* The batch on the device; valid until the next begin. */
typedef struct sill__mtl_batch {
    sill__mtl_arg tokens;    /* i32 (n_tokens) */
    sill__mtl_arg positions; /* i32 (n_tokens) */
    sill__mtl_arg row_run;   /* i32 (n_tokens): run of each row */
    sill__mtl_arg runs;      /* mtl_run (n_runs) */
    sill__mtl_arg out_rows;  /* i32 (n_out) */
    sill__mtl_arg tables;    /* i32: KV blocks */
} sill__mtl_batch;
const sill__mtl_batch *sill__mtl_batch_refs(const sill__queue *q);
/* A copy of host data that this step's kernels can read (targets, sampling rows). */
sill__mtl_arg sill__mtl_upload(sill__queue *q, const void *data, size_t bytes);

/* Scratch of a queue: each file of operations says how many bytes it wants for a shape (UINT64_MAX: no such queue) and
 * divides its own. */
uint64_t sill__mtl_scratch_bytes_mat(const sill__queue_shape *shape);
uint64_t sill__mtl_scratch_bytes_vec(const sill__queue_shape *shape);
sill__mtl_arg sill__mtl_scratch_mat(const sill__queue *q, size_t at, size_t bytes, bool write);
sill__mtl_arg sill__mtl_scratch_vec(const sill__queue *q, size_t at, size_t bytes, bool write);

/* The step's batch on the host, the queue's shape (with its path) and its device. */
const sill__batch *sill__mtl_batch_of(const sill__queue *q);
const sill__queue_shape *sill__mtl_shape_of(const sill__queue *q);
const sill__device *sill__mtl_device_of(const sill__queue *q);

/* ------------------------------------------- checks: the first error is kept in the queue, and false returned */
bool sill__mtl_require(sill__queue *q, bool ok, sill_status code, const char *format, ...) SILL_PRINTF(4, 5);
bool sill__mtl_ok(const sill__queue *q);
/* `rows` rows of `width` 4-byte values lie in the buffer. */
bool sill__mtl_check_ref(sill__queue *q, const char *what, sill__ref r, int64_t rows, int64_t width, bool may_be_absent);
bool sill__mtl_check_norm(sill__queue *q, const sill__norm *norm, int32_t width);
/* The batch's ids are below n_tokens and its positions below n_positions (INT32_MAX: any). */
bool sill__mtl_check_ids(sill__queue *q, int32_t n_tokens, int32_t n_positions);
/* The runs' blocks are this cache's. */
bool sill__mtl_check_blocks(sill__queue *q, const sill__kv *kv);

/* Arguments out of what the operations name. */
static inline sill__mtl_arg sill__mtl_in(sill__ref r, size_t bytes) {
    return (sill__mtl_arg){.buffer = r.buf ? r.buf->buffer : NULL, .at = r.at, .bytes = bytes};
}
static inline sill__mtl_arg sill__mtl_out(sill__ref r, size_t bytes) {
    return (sill__mtl_arg){.buffer = r.buf ? r.buf->buffer : NULL, .at = r.at, .bytes = bytes, .write = true};
}
static inline sill__mtl_arg sill__mtl_part_arg(const sill__mtl_part *p) {
    return (sill__mtl_arg){.buffer = p->buffer, .at = p->at, .bytes = p->bytes};
}
/* The whole of a KV cache: its kernels find blocks by the tables. */
static inline sill__mtl_arg sill__mtl_kv_arg(const sill__kv *kv, bool write) {
    return (sill__mtl_arg){.buffer = kv->buffer, .write = write, .some = true, .bytes = kv->bytes};
}

/* ------------------------------------------------------- operations: ops_mat.c */
void sill__mtl_linear(sill__queue *q, const sill__op_linear *op);
void sill__mtl_qkv(sill__queue *q, const sill__op_qkv *op);
void sill__mtl_head(sill__queue *q, const sill__op_head *op);
/* Whether matrices of this stored type (or made type: Q8_0, Q4_0, Q4_1, I8) can be multiplied with. */
bool sill__mtl_can_multiply(sill__type type);

/* ------------------------------------------------------- operations: ops_vec.c */
void sill__mtl_embed(sill__queue *q, const sill__op_embed *op);
void sill__mtl_attention(sill__queue *q, const sill__op_attention *op);
void sill__mtl_tap(sill__queue *q, const sill__op_tap *op);
void sill__mtl_kv_copy(sill__queue *q, sill__kv *kv, int32_t from_block, int32_t to_block, int32_t n_positions);
void sill__mtl_sample(sill__queue *q, const sill__op_sample *op);
/* For ops_mat.c. rows: f32 (n_tokens, (n_heads + 2 n_kv_heads) * head_dim), bias added, not rotated: rotates them, puts
 * q out, k and v into the KV cache. */
void sill__mtl_rope_kv(sill__queue *q, const sill__op_qkv *op, sill__mtl_arg rows);
/* For ops_mat.c. What op wants of the logits f32 (n, stride) of output rows [first, first + n). */
void sill__mtl_head_rows(sill__queue *q, const sill__op_head *op, int32_t first, int32_t n, sill__mtl_arg logits,
                         int32_t stride);
bool sill__mtl_can_embed(sill__type type);
#define SILL__MTL_MAX_VOCAB (2048 * 256) /* logits of a chunk of the head, and chunks that one group joins */
/* Bytes of one KV block (all layers), 0 where there is no such cache; and the reason, if err is not NULL. */
size_t sill__mtl_kv_block_bytes(const sill__kv_shape *shape, sill_error *err);

#endif
