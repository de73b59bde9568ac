/*
 * ops_mat.c - the operations that are matrix products: linear, qkv, and the product of the output head. Chooses kernels
 * and shapes of tiles, and divides weights of several parts or types into dispatches.
 *
 * Which kernel: a single row of an interactive sequence (PATH_LATENCY) goes through matvec; everything else through
 * tiles, whose sums do not depend on their shape, so that the choice by the number of rows never shows in the numbers.
 */
#include "backend/metal/metal.h"
#include "backend/metal/kernels/args_mat.h"
#include "backend/metal/kernels/args_vec.h"

_Static_assert((int)MTL_TYPE_F32 == SILL__TYPE_F32 && (int)MTL_TYPE_F16 == SILL__TYPE_F16 && (int)MTL_TYPE_BF16 == SILL__TYPE_BF16 &&
               (int)MTL_TYPE_Q8_0 == SILL__TYPE_Q8_0 && (int)MTL_TYPE_Q4_0 == SILL__TYPE_Q4_0 && (int)MTL_TYPE_Q4_1 == SILL__TYPE_Q4_1 &&
               (int)MTL_TYPE_Q5_0 == SILL__TYPE_Q5_0 && (int)MTL_TYPE_Q5_1 == SILL__TYPE_Q5_1 && (int)MTL_TYPE_Q4_K == SILL__TYPE_Q4_K &&
               (int)MTL_TYPE_Q5_K == SILL__TYPE_Q5_K && (int)MTL_TYPE_Q6_K == SILL__TYPE_Q6_K && (int)MTL_TYPE_I8 == SILL__TYPE_I8,
               "the kernels' types are those of sill__type");
_Static_assert(sizeof(struct mtl_mat_args) % 8 == 0, "arguments are laid out alike on both sides");

#define OWN_STATS_QKV 64        /* up to so many rows, and in decode steps of any number, the groups of qkv take the rows' statistics for
                                 * themselves, as all do up to a tile: 5 % more work in that product, and six dispatches a layer
                                 * instead of seven. The numbers are the same */
#define HEAD_ROWS 64            /* output rows whose logits are kept at once */
#define FEW_TILES 64            /* with fewer tiles of 64 outputs, tiles of 32 */
#define MANY_ROWS 2048          /* weight rows from which a SIMD group of matvec takes 4: fewer reads of the activations */

bool sill__mtl_can_multiply(sill__type type) { return (unsigned)type <= SILL__TYPE_I8; }

/* ---------------------------------------------------------------- scratch */

/* Statistics of rows; one prepared row; many of them, or q, k and v before they go where they belong; logits. */
typedef struct scratch { size_t stats, row, rows, logits, bytes; } scratch;

static bool lay_out(const sill__queue_shape *s, scratch *out) {
    size_t n = (size_t)SILL_MAX(s->max_tokens, s->max_out), bytes;
    *out = (scratch){0};
    if (!sill__mul(n, 16, &bytes) || !sill__add(bytes, 255, &bytes)) return false;
    out->row = bytes & ~(size_t)255;
    if (!sill__mul((size_t)s->max_width, 4, &bytes) || !sill__add(bytes, out->row + 255, &bytes)) return false;
    out->rows = bytes & ~(size_t)255;
    if (!sill__mul(n, (size_t)s->max_width, &bytes) || !sill__mul(bytes, 4, &bytes) ||
        !sill__add(bytes, out->rows + 255, &bytes))
        return false;
    out->logits = bytes & ~(size_t)255;
    return sill__mul((size_t)SILL_MIN(s->max_out, HEAD_ROWS), (size_t)s->max_vocab, &bytes) &&
           sill__mul(bytes, 4, &bytes) && sill__add(bytes, out->logits, &out->bytes);
}

uint64_t sill__mtl_scratch_bytes_mat(const sill__queue_shape *shape) {
    scratch s;
    return lay_out(shape, &s) ? s.bytes : UINT64_MAX;
}

/* ---------------------------------------------------------------- products */

/* out = act(norm(in) w^T + bias), the first n_rows rows of w; or what qkv makes of it. */
typedef struct product {
    const sill__weight *w;
    int32_t n_rows, n, in_rows; /* rows of w, of activations, and of `in` that these may be */
    sill__mtl_arg in, out;
    sill__mtl_arg gather;       /* numbers of the rows of `in`, or absent */
    int32_t out_stride;
    const sill__norm *norm;
    sill__ref bias;
    sill__act act;
    bool residual;
    uint32_t pairs;
    const sill__op_qkv *qkv;    /* fused: out is q; else NULL */
} product;

/* A run of parts of one type, which one dispatch can take. */
typedef struct parts { int first, n; int32_t row, rows; } parts;

static size_t in_bytes(const product *p) { return (size_t)p->in_rows * (size_t)p->w->cols * 4; }

/* What all kernels of a product share: the activations' side. */
static void set_inputs(const product *p, sill__mtl_call *c, struct mtl_mat_args *a) {
    const sill__norm *norm = p->norm;
    a->n = (uint32_t)p->n;
    a->k = (uint32_t)p->w->cols;
    a->eps = norm->eps;
    a->slice = ((uint32_t)p->w->cols + 32 * MTL_SLICES - 1) / (32 * MTL_SLICES) * 32;
    c->args = a;
    c->args_size = sizeof *a;
    c->n_constants = 8;
    c->constants[3] = (uint32_t)norm->kind;
    if (norm->kind != SILL__NORM_NONE)
        c->constants[5] |= (norm->weight.buf ? MTL_HAS_GAMMA : 0u) | (norm->bias.buf ? MTL_HAS_BETA : 0u);
    if (p->gather.buffer) c->constants[5] |= MTL_GATHERED;
}

/* The rows on their own: mat_stats, or mat_prepare. */
static void dispatch_rows(sill__queue *q, const product *p, const char *kernel, sill__mtl_arg out, bool int8) {
    struct mtl_mat_args a = {0};
    sill__mtl_call c = {.kernel = kernel, .n_bufs = 5, .groups = {((uint32_t)p->n + 3) / 4, 1, 1}, .threads = {128, 1, 1}};
    const size_t vector = (size_t)p->w->cols * 4;
    set_inputs(p, &c, &a);
    if (int8) c.constants[5] |= MTL_INT8_ROWS;
    c.bufs[0] = p->in;
    c.bufs[1] = sill__mtl_in(p->norm->weight, vector);
    c.bufs[2] = sill__mtl_in(p->norm->bias, vector);
    c.bufs[3] = p->gather;
    c.bufs[4] = out;
    sill__mtl_dispatch(q, &c);
}

static uint32_t row_bytes(const sill__mtl_part *part) {
    const sill__type_info *info = sill__type_get(part->type);
    return (uint32_t)part->stride / info->block * info->block_bytes;
}

/* 16 bytes of a plain weight can be read at once from every place where 16 bytes begin. */
static bool is_wide(const sill__mtl_part *part) {
    return sill__type_get(part->type)->block == 1 && part->at % 4 == 0 && row_bytes(part) % 4 == 0;
}

static void set_weights(const product *p, const parts *of, sill__mtl_call *c, struct mtl_mat_args *a) {
    const sill__weight *w = p->w;
    const sill__mtl_part *part = &w->parts[of->first];
    bool wide = true;
    a->rows = (uint32_t)of->rows;
    a->first = (uint32_t)of->row;
    a->starts[0] = a->starts[1] = UINT32_MAX;
    for (int i = 0; i < of->n; i++) {
        wide = wide && is_wide(&part[i]);
        a->strides[i] = row_bytes(&part[i]);
        if (i) a->starts[i - 1] = (uint32_t)(part[i].first - part[0].first);
        c->bufs[i] = sill__mtl_part_arg(&part[i]);
    }
    if (part->type == SILL__TYPE_I8)
        c->bufs[3] = (sill__mtl_arg){.buffer = w->scales, .at = w->scales_at, .bytes = (size_t)w->rows * 4};
    c->constants[0] = (uint32_t)part->type;
    c->constants[5] |= (wide ? MTL_WIDE : 0u) | (w->transposed ? MTL_TRANSPOSED : 0u) | (of->n > 1 ? MTL_PARTS : 0u);
}

static void set_outputs(sill__queue *q, const product *p, sill__mtl_call *c, struct mtl_mat_args *a) {
    const sill__op_qkv *op = p->qkv;
    const size_t vector = (size_t)p->w->cols * 4;
    a->out_stride = (uint32_t)p->out_stride;
    c->constants[2] = p->pairs;
    c->constants[4] = (uint32_t)p->act;
    c->constants[5] |= (p->bias.buf ? MTL_HAS_BIAS : 0u) | (p->residual ? MTL_RESIDUAL : 0u);
    c->bufs[4] = p->in;
    c->bufs[5] = sill__mtl_in(p->norm->weight, vector);
    c->bufs[6] = sill__mtl_in(p->norm->bias, vector);
    c->bufs[7] = sill__mtl_in(p->bias, (size_t)p->w->rows * 4);
    c->bufs[8] = p->out;
    c->bufs[9] = p->gather;
    c->n_bufs = 10;
    if (!op) return;
    const sill__mtl_batch *b = sill__mtl_batch_refs(q);
    const sill__kv_shape *kv = &op->kv->shape;
    c->bufs[9] = b->positions;
    c->bufs[10] = b->row_run;
    c->bufs[11] = b->runs;
    c->bufs[12] = b->tables;
    c->bufs[13] = sill__mtl_in(op->rope.inv_freq, (size_t)op->rope.dims / 2 * 4);
    c->bufs[14] = sill__mtl_kv_arg(op->kv, true);
    c->n_bufs = 15;
    c->constants[6] = (uint32_t)op->rope.kind;
    c->constants[7] = (uint32_t)kv->type;
    a->n_heads = (uint32_t)op->n_heads;
    a->n_kv_heads = (uint32_t)op->n_kv_heads;
    a->head_dim = (uint32_t)op->head_dim;
    a->rope_dims = op->rope.kind == SILL__ROPE_NONE ? 0 : (uint32_t)op->rope.dims;
    a->rope_scale = op->rope.scale;
    a->layer = (uint32_t)op->layer;
    a->n_layers = (uint32_t)kv->n_layers;
}

/* One row of activations. */
static void shape_matvec(const product *p, sill__mtl_call *c, const struct mtl_mat_args *a) {
    const bool staged = (c->constants[5] & MTL_STAGED) != 0;
    uint32_t floats = 32 + (staged ? (a->k + 31) / 32 * 32 : 0), groups, n_sg;
    c->kernel = p->qkv ? "matvec_qkv" : "matvec";
    if (p->w->transposed) {
        const uint32_t each = c->constants[0] == MTL_TYPE_F32 ? 4 : 8, lanes = a->rows >= each * 8 * 32 ? 8 : 4;
        c->constants[1] = lanes;
        n_sg = a->k >= 2048 ? MTL_VEC_THREADS / 32 : 8;
        floats += n_sg * 64;
        groups = (a->rows + each * lanes - 1) / (each * lanes);
    } else {
        const uint32_t rows = a->rows >= MANY_ROWS ? 4 : 2;
        c->constants[1] = rows;
        /* A staged row serves the whole group: more rows for it where there are many, or where it takes much memory. */
        n_sg = !staged ? 2 : a->rows >= 8 * MANY_ROWS || a->k > 1536 ? 8 : 4;
        groups = (a->rows + rows * n_sg - 1) / (rows * n_sg);
    }
    c->groups[0] = groups;
    c->groups[1] = c->groups[2] = 1;
    c->threads[0] = 32 * n_sg;
    c->local_bytes = floats * 4;
}

static void shape_tiles(const product *p, sill__mtl_call *c, const struct mtl_mat_args *a) {
    uint32_t tokens = MTL_TILE_TOKENS, cols;
    if (p->n <= 16) {
        const uint32_t blocks = p->n <= 8 ? 1 : 2;
        c->kernel = p->qkv ? "skinny_qkv" : "skinny";
        c->constants[1] = blocks;
        c->local_bytes = MTL_SKINNY_FLOATS(blocks) * 4;
        tokens = blocks * 8;
        cols = MTL_SKINNY_ROWS;
    } else {
        const uint64_t tiles = (uint64_t)((a->rows + 63) / 64) * ((a->n + tokens - 1) / tokens);
        cols = tiles < FEW_TILES ? 32 : 64;
        c->kernel = p->qkv ? "matmul_qkv" : "matmul";
        c->constants[1] = cols;
        c->local_bytes = (cols == 32 ? MTL_TILE_FLOATS(32) : MTL_TILE_FLOATS(64)) * 4;
    }
    c->groups[0] = (a->n + tokens - 1) / tokens;
    c->groups[1] = (a->rows + cols - 1) / cols;
    c->groups[2] = 1;
    c->threads[0] = MTL_THREADS;
}

/* The next run of parts behind `at` that one dispatch takes; rows beyond n_rows are left out. */
static bool next_parts(const product *p, parts *of) {
    const sill__weight *w = p->w;
    const int first = of->first + of->n;
    if (first >= w->n_parts || w->parts[first].first >= p->n_rows) return false;
    *of = (parts){.first = first, .n = 1, .row = w->parts[first].first, .rows = w->parts[first].rows};
    const bool alone = w->transposed && p->pairs <= MTL_PAIRS_NEXT;
    while (!alone && of->n < 3 && first + of->n < w->n_parts && w->parts[first + of->n].type == w->parts[first].type &&
           w->parts[first + of->n].first < p->n_rows)
        of->rows += w->parts[first + of->n++].rows;
    of->rows = SILL_MIN(of->rows, p->n_rows - of->row);
    return true;
}

static bool overlap(const sill__mtl_arg *a, size_t a_bytes, const sill__mtl_arg *b, size_t b_bytes) {
    return a->buffer == b->buffer && a->at < b->at + b_bytes && b->at < a->at + a_bytes;
}

/* From here on the activations are these rows, ready. */
static void prepare(sill__queue *q, product *p, const scratch *s, bool int8, const sill__norm *none) {
    const size_t bytes = (size_t)p->n * (size_t)p->w->cols * 4, at = p->n == 1 ? s->row : s->rows;
    dispatch_rows(q, p, "mat_prepare", sill__mtl_scratch_mat(q, at, bytes, true), int8);
    p->in = sill__mtl_scratch_mat(q, at, bytes, false);
    p->in_rows = p->n;
    p->gather = (sill__mtl_arg){0};
    p->norm = none;
}

static void run_product(sill__queue *q, product p) {
    static const sill__norm none = {.kind = SILL__NORM_NONE};
    const sill__weight *w = p.w;
    const sill__queue_shape *shape = sill__mtl_shape_of(q);
    bool int8 = w->compute == SILL__COMPUTE_INT8;
    uint32_t flags = 0;
    scratch s;
    parts of = {0};
    if (p.n == 0 || !sill__mtl_require(q, lay_out(shape, &s), SILL_EINTERNAL, "the scratch of a queue")) return;
    const bool vector = shape->path == SILL__PATH_LATENCY && p.n == 1 && (!w->transposed || p.pairs == MTL_PAIRS_APART);
    const bool changes = p.norm->kind != SILL__NORM_NONE || int8;
    const sill__batch *b = sill__mtl_batch_of(q);
    const int32_t own_stats = !p.qkv ? (int32_t)MTL_TILE_TOKENS : b->n_tokens == b->n_runs ? INT32_MAX : OWN_STATS_QKV;
    /* Groups write while others still read their rows. */
    const bool in_place = overlap(&p.in, in_bytes(&p), &p.out, ((size_t)(p.n - 1) * (size_t)p.out_stride + (size_t)w->rows) * 4);
    if (in_place || (vector && changes && w->cols > (int32_t)MTL_STAGED_MAX)) {
        prepare(q, &p, &s, int8, &none);
        int8 = false;
    } else if (vector && changes) {
        flags |= MTL_STAGED;
    } else if (changes && p.n > own_stats) {
        dispatch_rows(q, &p, "mat_stats", sill__mtl_scratch_mat(q, s.stats, (size_t)p.n * 16, true), int8);
        flags |= MTL_STATS;
    }
    if (int8) flags |= MTL_INT8_ROWS;
    while (next_parts(&p, &of)) {
        struct mtl_mat_args a = {0};
        sill__mtl_call c = {.constants = {0}};
        set_inputs(&p, &c, &a);
        c.constants[5] |= flags;
        set_weights(&p, &of, &c, &a);
        set_outputs(q, &p, &c, &a);
        c.macs = (double)p.n * of.rows * w->cols;
        c.threads[1] = c.threads[2] = 1;
        if (vector) shape_matvec(&p, &c, &a);
        else {
            shape_tiles(&p, &c, &a);
            c.bufs[c.n_bufs++] = sill__mtl_scratch_mat(q, s.stats, (size_t)p.n * 16, false);
        }
        sill__mtl_dispatch(q, &c);
    }
}

/* ------------------------------------------------------------------ checks */

static bool check_weight(sill__queue *q, const sill__weight *w, const char *what) {
    const sill__queue_shape *s = sill__mtl_shape_of(q);
    if (!sill__mtl_require(q, w && w->role != SILL__ROLE_EMBED, SILL_EINVAL, "%s: not a matrix to multiply with", what) ||
        !sill__mtl_require(q, w->cols <= s->max_width, SILL_EINVAL, "%s: %d inputs are more than the queue's %d", what,
                           w->cols, s->max_width))
        return false;
    for (int i = 0; i < w->n_parts; i++)
        if (!sill__mtl_require(q, sill__mtl_can_multiply(w->parts[i].type), SILL_EUNSUPPORTED,
                               "%s: no products with this type of weights", what))
            return false;
    return true;
}

/* Gate and up lie in one dispatch. */
static bool check_gate(sill__queue *q, const sill__weight *w) {
    bool one = w->n_parts <= 3 && w->rows % 2 == 0;
    for (int i = 1; i < w->n_parts; i++) one = one && w->parts[i].type == w->parts[0].type;
    return sill__mtl_require(q, one, SILL_EUNSUPPORTED, "gate and up are of different types or of %d rows", w->rows);
}

/* ----------------------------------------------------------------------- ops */

void sill__mtl_linear(sill__queue *q, const sill__op_linear *op) {
    const sill__batch *b = sill__mtl_batch_of(q);
    const sill__weight *w = op->w;
    const bool out_rows = op->rows == SILL__ROWS_OUT, glu = op->act == SILL__ACT_SWIGLU;
    if (!sill__mtl_ok(q) || !check_weight(q, w, "linear")) return;
    const int32_t n = out_rows ? b->n_out : b->n_tokens, width = glu ? w->rows / 2 : w->rows;
    if (!sill__mtl_require(q, !op->pre.buf, SILL_EUNSUPPORTED, "the metal device does not train") ||
        (glu && !check_gate(q, w)) || !sill__mtl_check_ref(q, "linear input", op->in, b->n_tokens, w->cols, false) ||
        !sill__mtl_check_ref(q, "linear output", op->out, n, width, false) ||
        !sill__mtl_check_ref(q, "linear bias", op->bias, 1, w->rows, true) || !sill__mtl_check_norm(q, &op->norm, w->cols))
        return;
    product p = {.w = w, .n_rows = w->rows, .n = n, .in_rows = b->n_tokens, .out_stride = width, .norm = &op->norm,
                 .bias = op->bias, .act = op->act, .residual = op->residual,
                 .pairs = glu ? MTL_PAIRS_GATE : MTL_PAIRS_APART};
    p.in = sill__mtl_in(op->in, in_bytes(&p));
    p.out = sill__mtl_out(op->out, (size_t)n * (size_t)width * 4);
    if (out_rows) p.gather = sill__mtl_batch_refs(q)->out_rows;
    run_product(q, p);
}

/* Rotation joins two rows of a head, and int8 keys and values need a whole head: what the products' ends can do. */
static bool can_fuse(const sill__op_qkv *op) {
    if (op->kv->shape.type == SILL__KV_I8) return false;
    if (op->rope.kind == SILL__ROPE_NONE) return true;
    for (int i = 0; i < op->w->n_parts; i++)
        if (op->w->parts[i].first % op->head_dim) return false;
    return op->head_dim % 2 == 0;
}

void sill__mtl_qkv(sill__queue *q, const sill__op_qkv *op) {
    const sill__batch *b = sill__mtl_batch_of(q);
    const sill__weight *w = op->w;
    const int64_t heads = (int64_t)op->n_heads + 2 * (int64_t)op->n_kv_heads;
    scratch s;
    if (!sill__mtl_ok(q) || !check_weight(q, w, "qkv") ||
        !sill__mtl_require(q, !op->k.buf && !op->v.buf, SILL_EUNSUPPORTED, "the metal device does not train") ||
        !sill__mtl_require(q, op->head_dim >= 1 && w->rows == heads * op->head_dim && op->n_kv_heads == op->kv->shape.n_kv_heads &&
                           op->head_dim == op->kv->shape.head_dim && op->layer < op->kv->shape.n_layers,
                           SILL_EINVAL, "qkv: %d rows of weights do not make these heads", w->rows) ||
        !sill__mtl_require(q, op->rope.kind == SILL__ROPE_NONE || (op->rope.dims <= op->head_dim && op->rope.dims % 2 == 0),
                           SILL_EINVAL, "qkv: %d rotated values of %d", op->rope.dims, op->head_dim) ||
        !sill__mtl_check_blocks(q, op->kv) ||
        !sill__mtl_check_ref(q, "qkv input", op->in, b->n_tokens, w->cols, false) ||
        !sill__mtl_check_ref(q, "q", op->q, b->n_tokens, (int64_t)op->n_heads * op->head_dim, false) ||
        !sill__mtl_check_ref(q, "qkv bias", op->bias, 1, w->rows, true) || !sill__mtl_check_norm(q, &op->norm, w->cols) ||
        !sill__mtl_check_ref(q, "rotary frequencies", op->rope.inv_freq, 1, op->rope.dims / 2, op->rope.kind == SILL__ROPE_NONE))
        return;
    product p = {.w = w, .n_rows = w->rows, .n = b->n_tokens, .in_rows = b->n_tokens, .norm = &op->norm, .bias = op->bias};
    p.in = sill__mtl_in(op->in, in_bytes(&p));
    if (can_fuse(op)) {
        p.qkv = op;
        p.pairs = op->rope.kind == SILL__ROPE_HALF ? MTL_PAIRS_ROTARY
                : op->rope.kind == SILL__ROPE_ADJACENT ? MTL_PAIRS_NEXT : MTL_PAIRS_APART;
        p.out_stride = op->n_heads * op->head_dim;
        p.out = sill__mtl_out(op->q, (size_t)b->n_tokens * (size_t)p.out_stride * 4);
        run_product(q, p);
        return;
    }
    if (!sill__mtl_require(q, w->rows <= sill__mtl_shape_of(q)->max_width, SILL_EINVAL,
                           "qkv: %d outputs are more than the queue's %d", w->rows, sill__mtl_shape_of(q)->max_width) ||
        !sill__mtl_require(q, lay_out(sill__mtl_shape_of(q), &s), SILL_EINTERNAL, "the scratch of a queue"))
        return;
    const size_t bytes = (size_t)b->n_tokens * (size_t)w->rows * 4;
    p.out_stride = w->rows;
    p.out = sill__mtl_scratch_mat(q, s.rows, bytes, true);
    run_product(q, p);
    if (b->n_tokens) sill__mtl_rope_kv(q, op, sill__mtl_scratch_mat(q, s.rows, bytes, false));
}

void sill__mtl_head(sill__queue *q, const sill__op_head *op) {
    const sill__batch *b = sill__mtl_batch_of(q);
    const sill__queue_shape *shape = sill__mtl_shape_of(q);
    const sill__weight *w = op->w;
    scratch s;
    if (!sill__mtl_ok(q) || !check_weight(q, w, "head") ||
        !sill__mtl_require(q, op->n_vocab >= 1 && op->n_vocab <= w->rows && op->n_vocab <= shape->max_vocab, SILL_EINVAL,
                           "head: a vocabulary of %d with %d rows of weights and a queue for %d", op->n_vocab, w->rows,
                           shape->max_vocab) ||
        !sill__mtl_check_ref(q, "head input", op->in, b->n_tokens, w->cols, false) ||
        !sill__mtl_check_ref(q, "head bias", op->bias, 1, w->rows, true) || !sill__mtl_check_norm(q, &op->norm, w->cols) ||
        !sill__mtl_check_ref(q, "logits", op->logits, b->n_out, op->n_vocab, true) ||
        !sill__mtl_require(q, lay_out(shape, &s), SILL_EINTERNAL, "the scratch of a queue"))
        return;
    const int32_t step = op->logits.buf ? SILL_MAX(b->n_out, 1) : HEAD_ROWS;
    for (int32_t first = 0; first < b->n_out; first += step) {
        const int32_t n = SILL_MIN(step, b->n_out - first);
        const size_t bytes = (size_t)n * (size_t)op->n_vocab * 4;
        product p = {.w = w, .n_rows = op->n_vocab, .n = n, .in_rows = b->n_tokens, .out_stride = op->n_vocab,
                     .norm = &op->norm, .bias = op->bias};
        p.in = sill__mtl_in(op->in, in_bytes(&p));
        p.gather = sill__mtl_batch_refs(q)->out_rows;
        p.gather.at += (size_t)first * 4;
        p.gather.bytes = (size_t)n * 4;
        p.out = op->logits.buf ? sill__mtl_out(op->logits, bytes) : sill__mtl_scratch_mat(q, s.logits, bytes, true);
        run_product(q, p);
        p.out.write = false;
        sill__mtl_head_rows(q, op, first, n, p.out, op->n_vocab);
    }
}
