/*
 * backend.h - the table of operations that a device offers. A backend does arithmetic on opaque
 * buffers and knows nothing of models; the model files are straight lists of these calls.
 *
 * Order of use: device_open -> weight_import, buffer and kv creation -> per step: begin(batch), ops,
 * submit, wait -> read. Ops are recorded into the queue and may run at any time until wait; a backend
 * that runs them at once is right too. The first error while recording or running is kept in the queue, over
 * later begins, and what is recorded behind it is dropped; the next submit or wait that sees it returns it, once,
 * and clears it. Work that the device could not finish leaves the queue useless: every later step and wait says so.
 * Weights are shared by the sessions of one device; a queue belongs to one
 * session. Nothing is allocated between begin and wait.
 *
 * Same bits: for each op, a row of the output is a function of that row's input and of shapes alone; never
 * of the number of rows, of the other rows, or of threads.
 */
#ifndef SILL_BACKEND_H
#define SILL_BACKEND_H

#include "base/base.h"
#include "format/format.h"

typedef struct sill__device sill__device; /* an opened device; first member: const sill__backend *ops */
typedef struct sill__queue sill__queue;   /* recorded work of one session */
typedef struct sill__weight sill__weight; /* a matrix (or table) imported by a device */
typedef struct sill__buf sill__buf;       /* device memory */
typedef struct sill__kv sill__kv;         /* KV cache blocks of one session */

/* A place in device memory, in bytes from the buffer's start. buf == NULL: absent. */
typedef struct sill__ref { sill__buf *buf; size_t at; } sill__ref;

/* ------------------------------------------------------------------ weights */

/* What a matrix is computed with. */
typedef enum sill__compute {
    SILL__COMPUTE_F32,  /* stored values exactly (dequantized on the fly), f32 activations */
    SILL__COMPUTE_F16,  /* weights f16, f32 activations */
    SILL__COMPUTE_BF16, /* weights bf16; activations rounded to bf16 where the device multiplies bf16 natively */
    SILL__COMPUTE_BLOCK_I8, /* block types (stored, or made by `as`), activations int8 in groups of 32 */
    SILL__COMPUTE_INT8  /* LLM.int8: plain types made int8 with one scale a row; activations int8 with one scale a
                         * row, but for those of 6 and more, which are kept in f16 (SILL__INT8_OUTLIER) */
} sill__compute;

#define SILL__INT8_OUTLIER 6.0f
#define SILL__INT8_MAX_COLS 131072 /* 128 * 127 * this still fits 32 bits: every sum is exact */

typedef enum sill__role { SILL__ROLE_BODY, SILL__ROLE_HEAD, SILL__ROLE_EMBED } sill__role;

/* A matrix (rows = outputs, cols = inputs) to import: parts one above the other (q, k, v of Llama). */
typedef struct sill__weight_src {
    const sill__tensor *parts[4];
    int n_parts;
    bool transposed;       /* stored (cols, rows): GPT-2's Conv1D in safetensors; plain types only */
    uint64_t rows, cols;   /* of the whole; fewer rows than stored: the rest is left out */
    sill__compute compute; /* EMBED ignores it: rows are looked up and widened exactly */
    sill__type as;         /* BLOCK_I8 with plain parts: the block type that they are quantized to while they are
                            * imported, row by row, as sill__quantize does; F32 (0): as stored */
    sill__role role;
    const char *name;      /* for messages and the packed cache */
} sill__weight_src;

/* One part of SRC, for backends that read weights as they are stored: its shape, type and computation fit. *rows: outputs
 * in it. NAME and DEVICE are for messages. */
sill_status sill__weight_check_part(const sill__weight_src *src, const sill__tensor *t, const char *name, const char *device,
                                    uint64_t *rows, sill_error *err);

/* ---------------------------------------------------------------- the batch */

#define SILL__KV_BLOCK 32 /* positions in a KV block */

/* A run of consecutive tokens of one sequence, the only one of it in its batch. */
typedef struct sill__run {
    int32_t first, n;      /* rows [first, first + n) of the batch */
    int32_t pos;           /* position of its first token; earlier ones are in the KV cache */
    const int32_t *blocks; /* KV block of positions 32*i .. 32*i+31, for all positions up to pos + n */
} sill__run;

/* A ragged batch: no padding. All arrays are the engine's, on the host, unchanged until wait. */
typedef struct sill__batch {
    int32_t n_tokens, n_runs, n_out;
    const int32_t *tokens;    /* (n_tokens) */
    const int32_t *positions; /* (n_tokens) */
    const sill__run *runs;    /* (n_runs), in order of first */
    const int32_t *out_rows;  /* (n_out) ascending rows whose hidden state or logits are wanted */
} sill__batch;

typedef enum sill__rows { SILL__ROWS_ALL, SILL__ROWS_OUT } sill__rows; /* ROWS_OUT: rows gathered by out_rows */

/* ------------------------------------------------------------ op arguments */

typedef enum sill__norm_kind { SILL__NORM_NONE, SILL__NORM_LAYER, SILL__NORM_RMS } sill__norm_kind;
/* y = (x - mean) / sqrt(var + eps) * weight + bias, or x / sqrt(mean(x^2) + eps) * weight. f32 vectors. */
typedef struct sill__norm { sill__norm_kind kind; sill__ref weight, bias; float eps; } sill__norm;

typedef enum sill__act {
    SILL__ACT_NONE,
    SILL__ACT_GELU_TANH, /* gelu_new, gelu_pytorch_tanh: 0.5x(1+tanh(sqrt(2/pi)(x+0.044715x^3))) */
    SILL__ACT_GELU_ERF,  /* gelu: 0.5x(1+erf(x/sqrt(2))) */
    SILL__ACT_RELU, SILL__ACT_SILU, SILL__ACT_TANH,
    SILL__ACT_SWIGLU     /* w holds gate rows, then up rows: out = silu(gate) * up, half as wide */
} sill__act;

/* x row i = tokens[i]'s row of wte (+ row positions[i] of wpe). All activations are f32 (rows, width). */
typedef struct sill__op_embed { const sill__weight *wte, *wpe; sill__ref out; int32_t width; } sill__op_embed;

/* out = act(norm(in) w^T + bias), added to out when `residual` is set. in: (n, cols), out: (n, rows). */
typedef struct sill__op_linear {
    sill__ref in, out;
    sill__rows rows;       /* ROWS_OUT: input rows are gathered, output is (n_out, rows) */
    sill__norm norm;
    const sill__weight *w;
    sill__ref bias;        /* f32 (w rows) or absent */
    sill__act act;
    bool residual;
    sill__ref pre;         /* training: out f32, the values before the activation; else absent */
} sill__op_linear;

typedef enum sill__rope_kind { SILL__ROPE_NONE, SILL__ROPE_HALF, SILL__ROPE_ADJACENT } sill__rope_kind;
/* HALF: pairs (i, i + dims/2), as in transformers. ADJACENT: pairs (2i, 2i+1), as in llama2.c and GGUF.
 * Angle of pair i at position p: p * inv_freq[i]; the rest of the head beyond dims is left as it is. */
typedef struct sill__rope {
    sill__rope_kind kind;
    int32_t dims;
    sill__ref inv_freq;    /* f32 (dims / 2) */
    float scale;           /* of cos and sin; 1 unless a scaling says otherwise */
} sill__rope;

/* qkv = norm(in) w^T + bias; q and k rotated; q -> q (n, n_heads * head_dim); k, v -> KV blocks of `layer`
 * at each row's position. w rows: q heads, k heads, v heads. */
typedef struct sill__op_qkv {
    sill__ref in, q;
    sill__norm norm;
    const sill__weight *w;
    sill__ref bias;
    sill__rope rope;
    sill__kv *kv;
    int32_t layer, n_heads, n_kv_heads, head_dim;
    sill__ref k, v;        /* training: out f32 (n, n_kv_heads * head_dim), what went to the KV blocks; else absent */
} sill__op_qkv;

/* Causal attention of every row over its sequence's positions 0 .. its own, grouped-query: KV blocks are
 * walked from position 0, the softmax state updated once a block. out: (n, n_heads * head_dim). */
typedef struct sill__op_attention {
    sill__ref q, out;
    sill__kv *kv;
    int32_t layer, n_heads, n_kv_heads, head_dim;
    float scale;
    sill__ref lse;         /* training: out f32 (n, n_heads), log-sum-exp of the scores; else absent */
} sill__op_attention;

/* Rows gathered by out_rows and normalized: hidden states for embeddings and taps. out: (n_out, width). */
typedef struct sill__op_tap { sill__ref in, out; sill__norm norm; int32_t width; sill__rows rows; } sill__op_tap;

/* The output head over the rows of out_rows: logits = norm(in) w^T (+ bias), and what is wanted of them.
 * Vocabulary rows at n_vocab and above are left out everywhere. With no `logits` nothing of that size is kept. */
typedef struct sill__op_head {
    sill__ref in;          /* hidden states (n_tokens, cols) */
    sill__norm norm;
    const sill__weight *w;
    sill__ref bias;
    int32_t n_vocab;
    sill__ref logits;      /* out f32 (n_out, n_vocab), or absent */
    sill__ref lse;         /* out f32 (n_out): log-sum-exp, or absent */
    const int32_t *target_starts; /* (n_out + 1) into targets, or NULL */
    const int32_t *targets;       /* ids whose log-probability is wanted */
    sill__ref target_logprobs;    /* out f32 (target_starts[n_out]) */
    int32_t n_top;         /* k best per row, ties by lower id; 0: none; 1: argmax */
    sill__ref top_ids;     /* out i32 (n_out, n_top) */
    sill__ref top_logprobs; /* out f32 (n_out, n_top) */
} sill__op_head;

/* Device-side sampling from logits kept by op_head, for devices where reading them back is dear. Optional. The logits as
 * they stand, filtered as src/engine/sampler.c does it. ids: -1 where a logit is NaN or +infinity, -2 where all are
 * -infinity. logprobs: of the logits unfiltered. */
typedef struct sill__sample_row { float temperature, top_p, min_p; int32_t top_k; uint64_t seed, key; uint32_t sequence, step; } sill__sample_row;
typedef struct sill__op_sample {
    sill__ref logits; int32_t n_vocab; const sill__sample_row *rows; /* (n_out) */
    sill__ref ids, logprobs; /* out i32 (n_out), f32 (n_out) */
} sill__op_sample;

/* ------------------------------------------------------- training (optional) */

/* Backward forms: gradients are added to the d_* outputs that are present. Saved inputs are the caller's: what the
 * forward ops put out in pre, k, v and lse, which only devices that train give. Runs are those of the batch, each from
 * position 0. */
typedef struct sill__op_linear_bwd { sill__ref in, d_out, d_in, d_w, d_bias; const sill__weight *w; int32_t n; } sill__op_linear_bwd;
typedef struct sill__op_norm_bwd { sill__ref in, d_out, d_in, d_weight, d_bias; sill__norm norm; int32_t n, width; } sill__op_norm_bwd;
typedef struct sill__op_act_bwd { sill__ref in, d_out, d_in; sill__act act; int32_t n, width; } sill__op_act_bwd;
typedef struct sill__op_attention_bwd {
    sill__ref q, k, v, out, lse; /* q and k as rotated; k, v: (n, n_kv_heads * head_dim) */
    sill__ref d_out, d_q, d_k, d_v; /* d_q and d_k rotated back: gradients of what the matrix gave */
    int32_t n_heads, n_kv_heads, head_dim;
    float scale;
    sill__rope rope;
} sill__op_attention_bwd;
typedef struct sill__op_embed_bwd { sill__ref d_out, d_wte, d_wpe; int32_t width; } sill__op_embed_bwd;
/* Mean cross-entropy of logits (n, n_vocab) against targets (n; -100: left out); loss: f32 (n); d_logits. */
typedef struct sill__op_xent { sill__ref logits, loss, d_logits; const int32_t *targets; int32_t n, n_vocab; } sill__op_xent;
typedef struct sill__op_adamw { sill__ref param, grad, m, v; size_t n; float lr, beta1, beta2, eps, decay; int32_t step; } sill__op_adamw;

typedef struct sill__train_ops {
    sill_status (*weight_values)(sill__device *, sill__weight *, sill__ref *values); /* f32 master copy */
    sill_status (*weight_refresh)(sill__device *, sill__weight *);                   /* repack after a step */
    void (*linear_bwd)(sill__queue *, const sill__op_linear_bwd *);
    void (*norm_bwd)(sill__queue *, const sill__op_norm_bwd *);
    void (*act_bwd)(sill__queue *, const sill__op_act_bwd *);
    void (*attention_bwd)(sill__queue *, const sill__op_attention_bwd *);
    void (*embed_bwd)(sill__queue *, const sill__op_embed_bwd *);
    void (*xent)(sill__queue *, const sill__op_xent *);
    void (*adamw)(sill__queue *, const sill__op_adamw *);
} sill__train_ops;

/* --------------------------------------------------------------- the table */

typedef struct sill__use sill__use;
typedef struct sill__device_options {
    int32_t n_threads;     /* 0: default */
    const char *isa;       /* NULL: environment SILL_CPU_ISA, else the best */
    const sill__use *use;  /* the model that it is opened for, whose operations a first use is checked with; NULL: any */
} sill__device_options;

typedef enum sill__kv_type { SILL__KV_F32, SILL__KV_F16, SILL__KV_I8 } sill__kv_type;
/* A model, as far as the check of a device's first use goes by it: which kernels its layers will take. */
struct sill__use {
    uint32_t types[SILL__COMPUTE_INT8 + 1]; /* by how they are computed with, a bit for each type that matrices have once
                                             * they are imported (sill__use_type) */
    uint32_t embed_types;  /* a bit for each stored type of the tables */
    sill__type type, as;   /* most matrices: as stored, what they become (as in sill__weight_src), and how they are */
    sill__compute compute; /* computed with */
    sill__kv_type kv;      /* what a session takes by itself */
    sill__norm_kind norm;
    sill__act act;
    sill__rope_kind rope;
    int32_t rope_dims, group, n_kv_heads, head_dim; /* group: query heads that share one of keys and values */
};
/* The type that a matrix stored as TYPE is multiplied in. */
static inline sill__type sill__use_type(sill__type type, sill__compute compute, sill__type as) {
    if (compute == SILL__COMPUTE_F16) return SILL__TYPE_F16;
    if (compute == SILL__COMPUTE_BF16) return SILL__TYPE_BF16;
    if (compute == SILL__COMPUTE_INT8) return SILL__TYPE_I8;
    return compute == SILL__COMPUTE_BLOCK_I8 && as != SILL__TYPE_F32 && sill__type_get(type)->block == 1 ? as : type;
}
typedef struct sill__kv_shape { int32_t n_layers, n_kv_heads, head_dim; sill__kv_type type; int32_t n_blocks; } sill__kv_shape;

/* What is asked of a device before load: all of it must be offered. */
typedef struct sill__need {
    const sill__type *types; int n_types; /* stored types of the weights */
    const sill__type *embed_types; int n_embed_types; /* of the tables that rows are looked up in */
    sill__compute compute;
    sill__kv_type kv;
    sill__norm_kind norm;
    sill__act act;
    sill__rope_kind rope;
    int32_t rope_dims, n_heads, n_kv_heads, head_dim, n_vocab;
    bool training;
} sill__need;

/* Which kernels a queue uses where a device has two: the choice follows the task, never the number of rows. */
typedef enum sill__path {
    SILL__PATH_BATCH,  /* one fixed order of sums for any number of rows: corpora, training */
    SILL__PATH_LATENCY /* a single interactive sequence; agrees within a stated bound. On the CPU the same as BATCH */
} sill__path;

/* Scratch for batches of at most these sizes; width: the widest row of activations. */
typedef struct sill__queue_shape { int32_t max_tokens, max_out, max_width, max_vocab; sill__path path; } sill__queue_shape;

/* Work submitted to a queue: tickets count up from 1. */
typedef uint64_t sill__ticket;

typedef struct sill__backend {
    const char *name;      /* "cpu", "ref", "metal", "cuda" */

    sill_status (*open)(const sill__device_options *, sill__device **out, sill_error *err);
    /* The I-th name that options.isa may take on this machine, the best first; NULL behind them. NULL: there are none. */
    const char *(*isa_at)(int i);
    /* Whether products with these weights are computed in the form ISA by the code that OTHER has, only compiled once more.
     * NULL: no two forms share any. */
    bool (*isa_shares)(const char *isa, const char *other, sill__type type, sill__compute compute);
    void (*close)(sill__device *);
    void (*describe)(const sill__device *, char *out, size_t cap); /* "cpu avx512", for people and records */
    int32_t (*n_threads)(const sill__device *);
    /* What its results depend on beyond this program, in one line: hardware, driver, their versions. A first-use check
     * holds as long as it stays the same. NULL: describe says all. */
    void (*identify)(const sill__device *, char *out, size_t cap);
    /* Bytes that the device can still take beside what it holds, where that is less than the system's memory; NULL: it
     * has no limit of its own. */
    uint64_t (*room)(const sill__device *);
    /* The most bytes that one weight, KV cache or buffer may have. NULL: any. */
    uint64_t (*largest)(const sill__device *);
    /* OK, or EUNSUPPORTED with the reason: never a silent fallback. */
    sill_status (*supports)(const sill__device *, const sill__need *, sill_error *err);

    /* Weights. import copies or maps: a source tensor that lies in a mapped file (its map is set) stays valid as long
     * as the device, others as long as the weight for EMBED; the backend may release pages of the others. Imports of one device
     * come one at a time. The weight's bytes in the computed form: weight_bytes (before import). */
    uint64_t (*weight_bytes)(const sill__device *, const sill__weight_src *);
    /* What all weights of a model take of the device's memory when they are imported together, with tables that stay in the
     * file where those count. NULL: the sum of weight_bytes. */
    uint64_t (*weights_bytes)(const sill__device *, const sill__weight_src *const *srcs, size_t n);
    sill_status (*weight_import)(sill__device *, const sill__weight_src *, sill__weight **out, sill_error *err);
    void (*weight_free)(sill__device *, sill__weight *);
    /* All weights of a model at once: *to[i] becomes srcs[i], as by weight_import; those set before a failure are the
     * caller's to free. With KEEP the backend may keep what it makes of them in the user's cache directory and take it
     * from there the next time, which never changes a result nor is a reason to fail. NULL: one by one. */
    sill_status (*weights_import)(sill__device *, const sill__weight_src *const *srcs, sill__weight **const *to, size_t n,
                                  bool keep, sill_error *err);

    /* Device memory, zeroed. */
    sill_status (*buf_create)(sill__device *, size_t bytes, sill__buf **out, sill_error *err);
    void (*buf_free)(sill__device *, sill__buf *);
    sill_status (*buf_write)(sill__device *, sill__ref, const void *, size_t bytes);
    sill_status (*buf_read)(sill__device *, sill__ref, void *, size_t bytes);
    /* Host address of a buffer where the memory is shared, else NULL. Valid after wait. */
    void *(*buf_map)(sill__device *, sill__buf *);

    uint64_t (*kv_bytes)(const sill__device *, const sill__kv_shape *);
    sill_status (*kv_create)(sill__device *, const sill__kv_shape *, sill__kv **out, sill_error *err);
    void (*kv_free)(sill__device *, sill__kv *);

    /* queue_bytes: UINT64_MAX where there is no such queue. */
    uint64_t (*queue_bytes)(const sill__device *, const sill__queue_shape *);
    sill_status (*queue_create)(sill__device *, const sill__queue_shape *, sill__queue **out, sill_error *err);
    void (*queue_free)(sill__device *, sill__queue *);
    void (*begin)(sill__queue *, const sill__batch *);
    /* Starts the recorded ops; several may be in flight. *ticket (may be NULL) names them. */
    sill_status (*submit)(sill__queue *, sill__ticket *ticket, sill_error *err);
    /* Until the work of that ticket and all before it is done; 0: all that was submitted. */
    sill_status (*wait)(sill__queue *, sill__ticket ticket, sill_error *err);

    void (*embed)(sill__queue *, const sill__op_embed *);
    void (*linear)(sill__queue *, const sill__op_linear *);
    void (*qkv)(sill__queue *, const sill__op_qkv *);
    void (*attention)(sill__queue *, const sill__op_attention *);
    void (*tap)(sill__queue *, const sill__op_tap *);
    void (*head)(sill__queue *, const sill__op_head *);
    /* Copies positions [0, n_positions) of a block, all layers: a fork inside a block. */
    void (*kv_copy)(sill__queue *, sill__kv *, int32_t from_block, int32_t to_block, int32_t n_positions);

    void (*sample)(sill__queue *, const sill__op_sample *);  /* NULL: the host samples */
    /* Optional, for devices whose steps run by themselves: right behind begin, before anything else of the step. Token i
     * becomes the i32 at ids + 4 * rows[i], as it is when the step runs: what a step in front of it put out. rows[i] < 0, or
     * an id below 0: it stays. So several steps can be under way. Such a device copies all that begin and operations are
     * given. */
    void (*take_ids)(sill__queue *, sill__ref ids, const int32_t *rows);
    /* Optional, beside take_ids: as begin, but behind the operations of the step that is being recorded; one submit, and its
     * ticket, are for both. False where there is no room for one more, or an error is kept: then submit, and begin. */
    bool (*begin_behind)(sill__queue *, const sill__batch *);
    const sill__train_ops *train;                            /* NULL: no training here */
} sill__backend;

const sill__backend *sill__backend_cpu(void);
const sill__backend *sill__backend_ref(void);
/* Those of this build, in the order in which "auto" tries them, the CPU's and the reference last; NULL behind. */
const sill__backend *sill__backend_at(int i);
const sill__backend *sill__backend_metal(void); /* where the Metal backend is built (SILL_METAL) */
/* "auto", "cpu", "ref", ...; EUNSUPPORTED names what there is. */
sill_status sill__backend_find(const char *name, const sill__backend **out, sill_error *err);
/* Bytes that can be taken on a device: LIMIT (0: what the system says is free), or less where the device has less room;
 * 0 where nothing is known. (registry.c) */
uint64_t sill__device_available(const sill__backend *ops, const sill__device *device, uint64_t limit);
/* Opens the device that NAME (NULL: "auto") stands for. "auto": the first of the list that opens and does not fail the
 * check of its first use (check/check.h); a device that fails it is named in a log line of level 0, with what to do. A
 * device that was named is used all the same, after that line. ANNOUNCE false: nothing is logged, since the device will be
 * opened again. BEHIND: only those behind it in the list are tried, NULL: all. (choose.c) */
sill_status sill__device_open(const char *name, const sill__device_options *options, bool announce, const sill__backend *behind,
                              const sill__backend **ops, sill__device **out, sill_error *err);
/* Whether what a model ended with on the device OPS may go well on the next one: NAME left the choice open, there is one
 * behind, and the failure is of the device (it does not offer that, has not the memory, or broke down). (choose.c) */
bool sill__device_may_pass(const char *name, const sill__backend *ops, sill_status failure);
/* The same with these backends in the place of "auto"'s, NULL behind them; the last is taken without a check. */
sill_status sill__device_choose(const sill__backend *const *list, const sill__device_options *options, bool announce,
                                const sill__backend **ops, sill__device **out, sill_error *err);

#endif
