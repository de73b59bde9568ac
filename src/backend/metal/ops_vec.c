/*
 * ops_vec.c - the operations that are no matrix products: looking rows up, attention, hidden states, copies of KV
 * blocks, what is wanted of logits, sampling. Each checks what it is given and dispatches the kernels of vec.metal,
 * attention.metal, head.metal and sample.metal.
 */
#include "backend/metal/metal.h"
#include "backend/metal/kernels/args_vec.h"

_Static_assert(MTL_NORM_NONE == SILL__NORM_NONE && MTL_NORM_LAYER == SILL__NORM_LAYER && MTL_NORM_RMS == SILL__NORM_RMS,
               "norms");
_Static_assert(MTL_ACT_NONE == SILL__ACT_NONE && MTL_ACT_GELU_TANH == SILL__ACT_GELU_TANH &&
               MTL_ACT_GELU_ERF == SILL__ACT_GELU_ERF && MTL_ACT_RELU == SILL__ACT_RELU && MTL_ACT_SILU == SILL__ACT_SILU &&
               MTL_ACT_TANH == SILL__ACT_TANH && MTL_ACT_SWIGLU == SILL__ACT_SWIGLU, "activations");
_Static_assert(MTL_ROPE_NONE == SILL__ROPE_NONE && MTL_ROPE_HALF == SILL__ROPE_HALF &&
               MTL_ROPE_ADJACENT == SILL__ROPE_ADJACENT, "rotary embeddings");
_Static_assert(MTL_KV_F32 == SILL__KV_F32 && MTL_KV_F16 == SILL__KV_F16 && MTL_KV_I8 == SILL__KV_I8, "caches");
_Static_assert(MTL_TYPE_F32 == SILL__TYPE_F32 && MTL_TYPE_F16 == SILL__TYPE_F16 && MTL_TYPE_BF16 == SILL__TYPE_BF16 &&
               MTL_TYPE_Q8_0 == SILL__TYPE_Q8_0 && MTL_TYPE_Q4_0 == SILL__TYPE_Q4_0 && MTL_TYPE_Q4_1 == SILL__TYPE_Q4_1 &&
               MTL_TYPE_Q5_0 == SILL__TYPE_Q5_0 && MTL_TYPE_Q5_1 == SILL__TYPE_Q5_1 && MTL_TYPE_Q4_K == SILL__TYPE_Q4_K &&
               MTL_TYPE_Q5_K == SILL__TYPE_Q5_K && MTL_TYPE_Q6_K == SILL__TYPE_Q6_K, "types");
_Static_assert(MTL_KV_BLOCK == SILL__KV_BLOCK, "KV blocks");

#define TILE_ROWS 32     /* query rows of a threadgroup of attention_tiles */
#define VECTOR_ROWS 4    /* most tokens of a step for which attention_vector is used */
#define HEAD_CHUNK 2048  /* logits of a threadgroup of head_chunks */
#define HEAD_MAX_TOP 128
_Static_assert(SILL__MTL_MAX_VOCAB == HEAD_CHUNK * 256, "a thread of head_join holds a chunk's best");
#define HEAD_ROWS 64     /* rows whose partial results are kept at once */

static uint32_t over(int64_t n, int64_t by) { return (uint32_t)((n + by - 1) / by); }

/* The batch, or NULL where there is none or an error is kept. */
static const sill__batch *ready(sill__queue *q) {
    const sill__batch *b = sill__mtl_ok(q) ? sill__mtl_batch_of(q) : NULL;
    return sill__mtl_require(q, b || !sill__mtl_ok(q), SILL_EINVAL, "an operation before the first batch") ? b : NULL;
}

/* ------------------------------------------------------------------- tables */

bool sill__mtl_can_embed(sill__type type) {
    const sill__type_info *info = sill__type_get(type);
    return info && info->weight && (uint32_t)type <= MTL_TYPE_Q6_K;
}

static bool check_table(sill__queue *q, const sill__weight *w, int32_t width) {
    return sill__mtl_require(q, w->cols == width, SILL_EINVAL, "embed: a table of %d columns, expected %d", w->cols, width) &&
           sill__mtl_require(q, w->n_parts == 1 && !w->transposed && sill__mtl_can_embed(w->parts[0].type), SILL_EUNSUPPORTED,
                             "embed: the metal device does not look rows up in such a table");
}

static size_t table_row(const sill__weight *w) {
    return sill__row_bytes(w->parts[0].type, (uint64_t)w->parts[0].stride);
}

/* Few rows of it. */
static sill__mtl_arg table_arg(const sill__weight *w) {
    sill__mtl_arg a = sill__mtl_part_arg(&w->parts[0]);
    a.some = true;
    return a;
}

void sill__mtl_embed(sill__queue *q, const sill__op_embed *op) {
    const sill__batch *b = ready(q);
    const sill__weight *wte = op->wte, *wpe = op->wpe;
    if (!b || !check_table(q, wte, op->width) || (wpe && !check_table(q, wpe, op->width)) ||
        !sill__mtl_check_ids(q, wte->rows, wpe ? wpe->rows : INT32_MAX) ||
        !sill__mtl_check_ref(q, "embedding", op->out, b->n_tokens, op->width, false))
        return;
    const struct mtl_embed_args args = {.width = (uint32_t)op->width, .n_ids = (uint32_t)wte->rows,
        .n_positions = wpe ? (uint32_t)wpe->rows : 0, .wte_row = table_row(wte), .wpe_row = wpe ? table_row(wpe) : 0};
    const sill__mtl_batch *refs = sill__mtl_batch_refs(q);
    sill__mtl_dispatch(q, &(sill__mtl_call){
        .kernel = "embed_rows", .args = &args, .args_size = sizeof args,
        .constants = {wte->parts[0].type, wpe != NULL, wpe ? wpe->parts[0].type : 0}, .n_constants = 3,
        .bufs = {table_arg(wte), wpe ? table_arg(wpe) : (sill__mtl_arg){0},
                 refs->tokens, refs->positions, sill__mtl_out(op->out, (size_t)b->n_tokens * (size_t)op->width * 4)},
        .n_bufs = 5, .groups = {over(op->width, 128), (uint32_t)b->n_tokens, 1}, .threads = {128, 1, 1}});
}

void sill__mtl_tap(sill__queue *q, const sill__op_tap *op) {
    const sill__batch *b = ready(q);
    const sill__norm *norm = &op->norm;
    const bool gather = op->rows == SILL__ROWS_OUT;
    const int32_t n = !b ? 0 : gather ? b->n_out : b->n_tokens;
    if (!b || !sill__mtl_check_ref(q, "tap input", op->in, b->n_tokens, op->width, false) ||
        !sill__mtl_check_ref(q, "tap output", op->out, n, op->width, false) || !sill__mtl_check_norm(q, norm, op->width))
        return;
    const struct mtl_norm_args args = {.n = (uint32_t)n, .width = (uint32_t)op->width, .eps = norm->eps};
    const bool weight = norm->kind != SILL__NORM_NONE && norm->weight.buf, bias = norm->kind != SILL__NORM_NONE && norm->bias.buf;
    const size_t width = (size_t)op->width * 4;
    sill__mtl_dispatch(q, &(sill__mtl_call){
        .kernel = "norm_rows", .args = &args, .args_size = sizeof args,
        .constants = {norm->kind, weight, bias, gather}, .n_constants = 4,
        .bufs = {sill__mtl_in(op->in, (size_t)b->n_tokens * width),
                 weight ? sill__mtl_in(norm->weight, width) : (sill__mtl_arg){0},
                 bias ? sill__mtl_in(norm->bias, width) : (sill__mtl_arg){0},
                 gather ? sill__mtl_batch_refs(q)->out_rows : (sill__mtl_arg){0}, sill__mtl_out(op->out, (size_t)n * width)},
        .n_bufs = 5, .groups = {over(n, 4), 1, 1}, .threads = {128, 1, 1}});
}

/* ---------------------------------------------------------- keys and values */

size_t sill__mtl_kv_block_bytes(const sill__kv_shape *s, sill_error *err) {
    size_t n;
    if (s->type != SILL__KV_F32 && s->type != SILL__KV_F16 && s->type != SILL__KV_I8) {
        sill__fail(err, SILL_EUNSUPPORTED, "the metal device keeps keys and values in f32, f16 or int8");
        return 0;
    }
    if (s->head_dim < 1 || s->head_dim > MTL_MAX_HEAD_DIM) {
        sill__fail(err, SILL_EUNSUPPORTED, "heads of %d values; the metal device takes 1 to %d", s->head_dim, MTL_MAX_HEAD_DIM);
        return 0;
    }
    n = s->type == SILL__KV_F32 ? 4 * (size_t)s->head_dim : s->type == SILL__KV_F16 ? 2 * (size_t)s->head_dim
                                                                                   : (size_t)s->head_dim + 8;
    if (s->n_layers < 1 || s->n_kv_heads < 1 || !sill__mul(n, 2 * SILL__KV_BLOCK, &n) ||
        !sill__mul(n, (size_t)s->n_layers, &n) || !sill__mul(n, (size_t)s->n_kv_heads, &n)) {
        sill__fail(err, SILL_EINVAL, "keys and values of %d layers with %d heads", s->n_layers, s->n_kv_heads);
        return 0;
    }
    return n;
}

static bool check_heads(sill__queue *q, const sill__kv *kv, int32_t layer, int32_t n_heads, int32_t n_kv_heads,
                        int32_t head_dim) {
    const sill__kv_shape *s = &kv->shape;
    return sill__mtl_require(q, layer >= 0 && layer < s->n_layers && n_kv_heads == s->n_kv_heads && head_dim == s->head_dim,
                             SILL_EINVAL, "layer %d with %d heads of %d: the cache has %d layers with %d of %d", layer,
                             n_kv_heads, head_dim, s->n_layers, s->n_kv_heads, s->head_dim) &&
           sill__mtl_require(q, n_heads >= n_kv_heads && n_heads % n_kv_heads == 0, SILL_EINVAL,
                             "%d heads do not share %d of keys and values", n_heads, n_kv_heads) &&
           sill__mtl_check_blocks(q, kv);
}

void sill__mtl_rope_kv(sill__queue *q, const sill__op_qkv *op, sill__mtl_arg rows) {
    const sill__batch *b = ready(q);
    const sill__rope *rope = &op->rope;
    const bool turned = rope->kind != SILL__ROPE_NONE;
    const int64_t n_heads = (int64_t)op->n_heads + 2 * (int64_t)op->n_kv_heads;
    if (!b || !check_heads(q, op->kv, op->layer, op->n_heads, op->n_kv_heads, op->head_dim) ||
        !sill__mtl_check_ref(q, "queries", op->q, b->n_tokens, (int64_t)op->n_heads * op->head_dim, false) ||
        !sill__mtl_require(q, !turned || (rope->dims >= 2 && rope->dims % 2 == 0 && rope->dims <= op->head_dim), SILL_EINVAL,
                           "rotary embedding of %d values of %d", rope->dims, op->head_dim) ||
        (turned && !sill__mtl_check_ref(q, "inverse frequencies", rope->inv_freq, 1, rope->dims / 2, false)))
        return;
    const struct mtl_rope_kv_args args = {.n_heads = (uint32_t)op->n_heads, .n_kv_heads = (uint32_t)op->n_kv_heads,
        .layer = (uint32_t)op->layer, .n_layers = (uint32_t)op->kv->shape.n_layers, .rope_scale = rope->scale};
    const sill__mtl_batch *refs = sill__mtl_batch_refs(q);
    sill__mtl_dispatch(q, &(sill__mtl_call){
        .kernel = "rope_kv", .args = &args, .args_size = sizeof args,
        .constants = {rope->kind, turned ? (uint32_t)rope->dims : 0, op->kv->shape.type, (uint32_t)op->head_dim},
        .n_constants = 4,
        .bufs = {rows, turned ? sill__mtl_in(rope->inv_freq, (size_t)rope->dims * 2) : (sill__mtl_arg){0}, refs->positions,
                 refs->row_run, refs->runs, refs->tables,
                 sill__mtl_out(op->q, (size_t)b->n_tokens * (size_t)op->n_heads * (size_t)op->head_dim * 4),
                 sill__mtl_kv_arg(op->kv, true)},
        .n_bufs = 8, .groups = {over(n_heads, 4), (uint32_t)b->n_tokens, 1}, .threads = {128, 1, 1}});
}

void sill__mtl_kv_copy(sill__queue *q, sill__kv *kv, int32_t from, int32_t to, int32_t n_positions) {
    const sill__kv_shape *s = &kv->shape;
    if (!sill__mtl_ok(q) ||
        !sill__mtl_require(q, from >= 0 && from < s->n_blocks && to >= 0 && to < s->n_blocks && n_positions >= 0 &&
                           n_positions <= SILL__KV_BLOCK, SILL_EINVAL, "copy of %d positions of KV block %d to %d of %d",
                           n_positions, from, to, s->n_blocks) ||
        from == to || n_positions == 0)
        return;
    const uint32_t n_panels = (uint32_t)s->n_layers * 2 * (uint32_t)s->n_kv_heads;
    const struct mtl_kv_copy_args args = {.from = (uint32_t)from, .to = (uint32_t)to, .n = (uint32_t)n_positions,
                                          .n_panels = n_panels};
    sill__mtl_dispatch(q, &(sill__mtl_call){
        .kernel = "kv_copy", .args = &args, .args_size = sizeof args, .constants = {s->type, (uint32_t)s->head_dim},
        .n_constants = 2, .bufs = {sill__mtl_kv_arg(kv, true)}, .n_bufs = 1, .groups = {n_panels, 1, 1},
        .threads = {128, 1, 1}});
}

/* ---------------------------------------------------------------- attention */

/* Query rows of all runs and one KV head in tiles of 32, a run's last one partly filled: at most so many, whatever the
 * runs' lengths are. */
static uint32_t n_tiles(const sill__batch *b, int64_t group, bool one_each) {
    if (one_each) return (uint32_t)b->n_runs;
    return (uint32_t)(((int64_t)b->n_tokens * group + (int64_t)b->n_runs * (TILE_ROWS - 1)) / TILE_ROWS);
}

/* About: two products for each pair of a row and a position that it sees, at half the speed of a matrix's, since each pair has
 * an exponential, too; keys and values are read once. */
static void set_work(const sill__batch *b, const sill__op_attention *op, sill__mtl_call *c) {
    const sill__kv_shape *s = &op->kv->shape;
    double pairs = 0, positions = 0;
    for (int32_t r = 0; r < b->n_runs; r++) {
        const double n = b->runs[r].n, pos = b->runs[r].pos;
        pairs += n * (pos + (n + 1) / 2);
        positions += n + pos;
    }
    c->macs = pairs * op->n_heads * op->head_dim * 4;
    c->moved = positions * (double)sill__mtl_kv_block_bytes(s, NULL) / (SILL__KV_BLOCK * (double)s->n_layers);
}

void sill__mtl_attention(sill__queue *q, const sill__op_attention *op) {
    const sill__batch *b = ready(q);
    const size_t bytes = b ? (size_t)b->n_tokens * (size_t)op->n_heads * (size_t)op->head_dim * 4 : 0;
    if (!b || !check_heads(q, op->kv, op->layer, op->n_heads, op->n_kv_heads, op->head_dim) ||
        !sill__mtl_require(q, !op->lse.buf, SILL_EUNSUPPORTED, "the metal device does not train") ||
        !sill__mtl_check_ref(q, "queries", op->q, b->n_tokens, (int64_t)op->n_heads * op->head_dim, false) ||
        !sill__mtl_check_ref(q, "attention", op->out, b->n_tokens, (int64_t)op->n_heads * op->head_dim, false))
        return;
    const int32_t group = op->n_heads / op->n_kv_heads;
    const bool one_each = b->n_tokens == b->n_runs && group <= TILE_ROWS;
    const struct mtl_attention_args args = {.n_runs = (uint32_t)b->n_runs, .n_heads = (uint32_t)op->n_heads,
        .n_kv_heads = (uint32_t)op->n_kv_heads, .layer = (uint32_t)op->layer, .n_layers = (uint32_t)op->kv->shape.n_layers,
        .one_tile_each = one_each, .scale = op->scale};
    const sill__mtl_batch *refs = sill__mtl_batch_refs(q);
    sill__mtl_call call = {.args = &args, .args_size = sizeof args,
        .constants = {op->kv->shape.type, (uint32_t)op->head_dim, (uint32_t)group}, .n_constants = 3,
        .bufs = {sill__mtl_in(op->q, bytes), sill__mtl_kv_arg(op->kv, false), refs->runs, refs->tables}};
    if (sill__mtl_shape_of(q)->path == SILL__PATH_LATENCY && b->n_tokens <= VECTOR_ROWS) {
        call.kernel = "attention_vector";
        call.bufs[4] = refs->row_run;
        call.bufs[5] = refs->positions;
        call.bufs[6] = sill__mtl_out(op->out, bytes);
        call.n_bufs = 7;
        memcpy(call.groups, (uint32_t[3]){(uint32_t)op->n_heads, (uint32_t)b->n_tokens, 1}, sizeof call.groups);
        memcpy(call.threads, (uint32_t[3]){256, 1, 1}, sizeof call.threads);
    } else {
        call.kernel = "attention_tiles";
        call.bufs[4] = sill__mtl_out(op->out, bytes);
        call.n_bufs = 5;
        memcpy(call.groups, (uint32_t[3]){n_tiles(b, group, one_each), (uint32_t)op->n_kv_heads, 1}, sizeof call.groups);
        memcpy(call.threads, (uint32_t[3]){128, 1, 1}, sizeof call.threads);
    }
    set_work(b, op, &call);
    sill__mtl_dispatch(q, &call);
}

/* -------------------------------------------------------------- output head */

/* Partial results: statistics of each chunk of each row, then its best. */
static size_t stats_bytes(int64_t max_out, int64_t max_vocab) {
    return (size_t)SILL_MIN(max_out, HEAD_ROWS) * over(max_vocab, HEAD_CHUNK) * 8;
}

uint64_t sill__mtl_scratch_bytes_vec(const sill__queue_shape *shape) {
    if (shape->max_out < 0 || shape->max_vocab < 0 || shape->max_vocab > SILL__MTL_MAX_VOCAB) return UINT64_MAX;
    return (uint64_t)stats_bytes(shape->max_out, shape->max_vocab) * (1 + HEAD_MAX_TOP);
}

static bool check_head(sill__queue *q, const sill__op_head *op) {
    const sill__queue_shape *shape = sill__mtl_shape_of(q);
    const int32_t n = sill__mtl_batch_of(q)->n_out, *starts = op->target_starts;
    if (!sill__mtl_require(q, op->n_vocab > 0 && op->n_vocab <= shape->max_vocab, SILL_ERANGE,
                           "head: a vocabulary of %d, the queue is made for %d", op->n_vocab, shape->max_vocab) ||
        !sill__mtl_require(q, op->n_top >= 0 && op->n_top <= HEAD_MAX_TOP, SILL_ERANGE,
                           "head: the %d best of each row; the metal device gives at most %d", op->n_top, HEAD_MAX_TOP) ||
        !sill__mtl_check_ref(q, "lse", op->lse, n, 1, true) ||
        !sill__mtl_check_ref(q, "top ids", op->top_ids, n, op->n_top, true) ||
        !sill__mtl_check_ref(q, "top logprobs", op->top_logprobs, n, op->n_top, true))
        return false;
    if (!starts || !op->target_logprobs.buf) return true;
    for (int32_t i = 0; i < n; i++)
        if (!sill__mtl_require(q, starts[i] >= 0 && starts[i] <= starts[i + 1], SILL_EINVAL, "head: target starts"))
            return false;
    if (!sill__mtl_check_ref(q, "target logprobs", op->target_logprobs, 1, starts[n], false)) return false;
    for (int32_t t = starts[0]; t < starts[n]; t++)
        if (!sill__mtl_require(q, op->targets[t] >= 0 && op->targets[t] < op->n_vocab, SILL_ERANGE,
                               "target id %d of a vocabulary of %d", op->targets[t], op->n_vocab))
            return false;
    return true;
}

static sill__ref moved(sill__ref r, size_t bytes) {
    if (r.buf) r.at += bytes;
    return r;
}

/* At most HEAD_ROWS rows, whose logits begin at `logits`. */
static void reduce_rows(sill__queue *q, const sill__op_head *op, int32_t first, int32_t n, sill__mtl_arg logits, int32_t stride) {
    const uint32_t n_chunks = over(op->n_vocab, HEAD_CHUNK), n_top = op->top_ids.buf ? (uint32_t)op->n_top : 0;
    const bool with_targets = op->target_starts && op->target_logprobs.buf && op->target_starts[first] < op->target_starts[first + n];
    const size_t rows = (size_t)n, from = (size_t)first, stats = rows * n_chunks * 8;
    if (!with_targets && !n_top && !op->lse.buf) return;
    struct mtl_head_args args = {.n_vocab = (uint32_t)op->n_vocab, .stride = (uint32_t)stride, .n_chunks = n_chunks,
                                       .n_top = n_top};
    logits.bytes = ((rows - 1) * (size_t)stride + (size_t)op->n_vocab) * 4;
    logits.write = false;
    sill__mtl_call call = {.kernel = "head_chunks", .args = &args, .args_size = sizeof args,
        .bufs = {logits, sill__mtl_scratch_vec(q, 0, stats, true),
                 n_top ? sill__mtl_scratch_vec(q, stats, stats * n_top, true) : (sill__mtl_arg){0}},
        .n_bufs = 3, .groups = {n_chunks, (uint32_t)n, 1}, .threads = {256, 1, 1}};
    sill__mtl_dispatch(q, &call);

    sill__mtl_arg starts = {0}, targets = {0}, logprobs = {0};
    if (with_targets) {
        const int32_t *s = op->target_starts + first;
        args.first_target = (uint32_t)s[0];
        starts = sill__mtl_upload(q, s, (rows + 1) * 4);
        targets = sill__mtl_upload(q, op->targets + s[0], (size_t)(s[n] - s[0]) * 4);
        logprobs = sill__mtl_out(moved(op->target_logprobs, (size_t)s[0] * 4), (size_t)(s[n] - s[0]) * 4);
    }
    call = (sill__mtl_call){.kernel = "head_join", .args = &args, .args_size = sizeof args,
        .constants = {op->lse.buf != NULL, with_targets, n_top && op->top_logprobs.buf}, .n_constants = 3,
        .bufs = {logits, sill__mtl_scratch_vec(q, 0, stats, false),
                 n_top ? sill__mtl_scratch_vec(q, stats, stats * n_top, false) : (sill__mtl_arg){0}, starts, targets,
                 sill__mtl_out(moved(op->lse, from * 4), rows * 4), logprobs,
                 n_top ? sill__mtl_out(moved(op->top_ids, from * n_top * 4), rows * n_top * 4) : (sill__mtl_arg){0},
                 n_top ? sill__mtl_out(moved(op->top_logprobs, from * n_top * 4), rows * n_top * 4) : (sill__mtl_arg){0}},
        .n_bufs = 9, .groups = {(uint32_t)n, 1, 1}, .threads = {256, 1, 1}};
    sill__mtl_dispatch(q, &call);
}

void sill__mtl_head_rows(sill__queue *q, const sill__op_head *op, int32_t first, int32_t n, sill__mtl_arg logits, int32_t stride) {
    if (!ready(q) || (first == 0 && !check_head(q, op))) return;
    for (int32_t i = 0; i < n; i += HEAD_ROWS) {
        reduce_rows(q, op, first + i, SILL_MIN(HEAD_ROWS, n - i), logits, stride);
        logits.at += (size_t)HEAD_ROWS * (size_t)stride * 4;
    }
}

/* ----------------------------------------------------------------- sampling */

#define SAMPLE_ROWS 64 /* rows told to the device at once */

void sill__mtl_sample(sill__queue *q, const sill__op_sample *op) {
    const sill__batch *b = ready(q);
    const int32_t n = b ? b->n_out : 0;
    const size_t vocab = (size_t)op->n_vocab;
    struct mtl_sample_row rows[SAMPLE_ROWS];
    if (!b || !sill__mtl_require(q, op->n_vocab > 0, SILL_EINVAL, "sample: a vocabulary of %d", op->n_vocab) ||
        !sill__mtl_check_ref(q, "logits", op->logits, n, op->n_vocab, false) ||
        !sill__mtl_check_ref(q, "sampled ids", op->ids, n, 1, false) ||
        !sill__mtl_check_ref(q, "sampled logprobs", op->logprobs, n, 1, true))
        return;
    const struct mtl_sample_args args = {.n_vocab = (uint32_t)op->n_vocab, .want_logprobs = op->logprobs.buf != NULL};
    for (int32_t first = 0; first < n; first += SAMPLE_ROWS) {
        const int32_t some = SILL_MIN(SAMPLE_ROWS, n - first);
        for (int32_t i = 0; i < some; i++) {
            const sill__sample_row *r = &op->rows[first + i];
            if (!sill__mtl_require(q, r->temperature > 0, SILL_EINVAL, "sample: a temperature of %g", (double)r->temperature))
                return;
            rows[i] = (struct mtl_sample_row){.temperature = r->temperature, .top_p = r->top_p, .min_p = r->min_p,
                .top_k = r->top_k, .seed_low = (uint32_t)r->seed, .seed_high = (uint32_t)(r->seed >> 32),
                .key_low = (uint32_t)r->key, .key_high = (uint32_t)(r->key >> 32), .sequence = r->sequence, .step = r->step};
        }
        const size_t from = (size_t)first, count = (size_t)some;
        sill__mtl_dispatch(q, &(sill__mtl_call){
            .kernel = "sample_rows", .args = &args, .args_size = sizeof args,
            .bufs = {sill__mtl_in(moved(op->logits, from * vocab * 4), count * vocab * 4),
                     sill__mtl_upload(q, rows, count * sizeof *rows),
                     sill__mtl_out(moved(op->ids, from * 4), count * 4),
                     sill__mtl_out(moved(op->logprobs, from * 4), count * 4)},
            .n_bufs = 4, .groups = {(uint32_t)some, 1, 1}, .threads = {512, 1, 1}});
    }
}
