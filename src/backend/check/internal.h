/*
 * internal.h - what the files of src/backend/check share: a case with its inputs and expected outputs, and the bench
 * that runs it on a device. The same code runs a case on the reference and on the device that is checked.
 */
#ifndef SILL_CHECK_INTERNAL_H
#define SILL_CHECK_INTERNAL_H

#include "backend/check/check.h"

/* ---- a case */

#define CHECK_MAX_OUTS 16
#define CHECK_VARIANTS 2

typedef struct check_out {
    char line[40];         /* of the report that it counts for */
    size_t n;              /* f32 values */
    double bound;
    double scale;          /* errors are over this; 0: over the root mean square of what is expected */
    bool mean;             /* the root mean square of all differences counts, not the greatest difference */
    float *want[CHECK_VARIANTS];
} check_out;

#define CHECK_LARGE 32767 /* rows or columns from which a product is a large case */

typedef struct check_bench check_bench;
typedef struct check_case check_case;

/* A kind of case. */
typedef struct check_kind {
    const char *name;
    /* Sets the case's name and numbers for the I-th of its list; false behind its end. */
    bool (*pick)(check_case *c, sill__check_level level, int i);
    /* Inputs and the list of outputs; false: no memory. */
    bool (*make)(check_case *c);
    /* Runs it; outs[i] has room for c->outs[i].n values. Variant 0: as it is. 1, on the reference only: what a device may
     * do instead, where the contract leaves it open (see n_variants). */
    void (*run)(const check_case *c, check_bench *b, int variant, float *const *outs);
    /* Runs it in other company and says in b->differs what has other bits than OUTS. The bench is still that of run, with its
     * buffers and weights. May be NULL. */
    void (*bits)(const check_case *c, check_bench *b, float *const *outs);
    const char *bits_line;
} check_kind;

struct check_case {
    const check_kind *kind;
    char name[80];
    sill__check_level level;
    const sill__use *use;  /* NULL, or the model that the quick check is for */
    bool skip;             /* set by pick: that model does not take it */
    bool large;            /* one set of those that share its code is enough */
    bool no_bits;          /* nothing to compare in other company */
    int32_t v[8];          /* the kind's own numbers */
    const void *spec;      /* and its table row */
    void *data;            /* and its inputs, in the arena */
    sill__arena arena;
    sill__need need;       /* asked of the device before it is run */
    sill__type types[2];
    int n_outs, n_variants; /* more than one variant: a result near either is right */
    int first;             /* the variant that is expected; the other is computed where that one is missed */
    bool have[CHECK_VARIANTS];
    check_out outs[CHECK_MAX_OUTS];
    sill_status status;    /* of making it and of the reference */
    sill_error err;
};

/* Adds an output. */
void sill__chk_add_out(check_case *c, const char *line, size_t n, double bound, double scale);

/* ---- the kinds */
extern const check_kind sill__check_linear, sill__check_extras, sill__check_embed, sill__check_norms, sill__check_attention,
    sill__check_head, sill__check_layers;

/* ---- the bench: everything that one run makes on a device. The first error stays, and what follows does nothing. */

#define BENCH_MAX 24

struct check_bench {
    const sill__backend *ops;
    sill__device *device;
    sill_status status;
    sill_error err;
    sill__buf *bufs[BENCH_MAX];
    sill__weight *weights[BENCH_MAX];
    int n_bufs, n_weights;
    sill__queue *queue;
    sill__kv *kv;
    char differs[120];     /* what has other bits; empty: nothing */
};

void sill__chk_bench_open(check_bench *b, const sill__backend *ops, sill__device *device);
void sill__chk_bench_close(check_bench *b);
bool sill__chk_ok(const check_bench *b);
/* A buffer of N f32 (or i32) values, zero. */
sill__ref sill__chk_room(check_bench *b, size_t n);
/* The same with these values. */
sill__ref sill__chk_put(check_bench *b, const void *values, size_t n);
void sill__chk_write(check_bench *b, sill__ref to, const void *values, size_t n);
void sill__chk_read(check_bench *b, sill__ref from, void *values, size_t n);
sill__weight *sill__chk_import(check_bench *b, const sill__weight_src *src);
void sill__chk_queue(check_bench *b, int32_t tokens, int32_t width, int32_t vocab, sill__path path);
void sill__chk_kv(check_bench *b, const sill__kv_shape *shape);
void sill__chk_begin(check_bench *b, const sill__batch *batch);
void sill__chk_end(check_bench *b); /* submit and wait */

/* ---- made-up data */

typedef struct check_rng { uint64_t state; } check_rng;
uint64_t sill__chk_next(check_rng *r);
static inline float check_uniform(check_rng *r) { return (float)(int32_t)(sill__chk_next(r) >> 32) * 0x1p-31f; } /* [-1, 1) */
float *sill__chk_floats(check_case *c, check_rng *r, size_t n, float size);
/* Values of about +-size, whatever the type. NULL: no memory. */
sill__tensor *sill__chk_tensor(check_case *c, check_rng *r, sill__type type, uint64_t rows, uint64_t cols, float size);

/* A weight as it is stored and computed with. */
typedef struct check_form { const char *name; sill__type type; sill__compute compute; sill__type as; } check_form;
extern const check_form sill__check_forms[];
extern const int sill__check_n_forms;
static inline bool check_plain(const check_form *f) { return sill__type_get(f->type)->block == 1; }
/* Whether the model that is checked for has matrices of this form; true where there is none. */
bool sill__chk_uses(const check_case *c, const check_form *f);
/* Columns of at least N that the form's blocks fit. */
int32_t sill__chk_cols(const check_form *f, int32_t n);
/* The bound of a product over COLS values: for the order of the sums. */
double sill__chk_product_bound(int32_t cols);
/* Where the contract leaves open how activations are rounded: int8 or not at all, bf16 or not at all. */
bool sill__chk_second_variant(const check_form *f);
sill__weight_src sill__chk_source(const check_form *f, const sill__tensor *t, sill__role role);

/* Scratch of a batch of one run from position 0. */
#define CHECK_MAX_ROWS 160
typedef struct check_rows {
    sill__batch batch;
    sill__run run;
    int32_t tokens[CHECK_MAX_ROWS], positions[CHECK_MAX_ROWS], out_rows[CHECK_MAX_ROWS], blocks[CHECK_MAX_ROWS / SILL__KV_BLOCK];
} check_rows;
/* N rows, of which STEP-th ones are output rows (1: all). */
void sill__chk_rows_init(check_rows *r, int32_t n, int32_t step);

#endif
