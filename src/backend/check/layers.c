/*
 * layers.c - two layers of small models of odd shapes, from ids to logits: operations one behind the other, as models have
 * them, over ragged steps.
 */
#include "backend/check/internal.h"
#include "backend/check/shapes.h"
#include "backend/check/steps.h"

#include <math.h>
#include <stdio.h>

#define LEN 70
#define N_TOP 5
#define N_VECTOR 1024 /* room for norms, biases, frequencies */

enum { WTE, WPE, QKV, OUT, IN, BACK, HEAD, N_TENSORS };
enum { O_LAST, O_TAP, O_SCORE, O_LSE, O_TARGETS, O_TOP, N_OUTS };

enum { LATENCY };

typedef struct model {
    sill__tensor *t[N_TENSORS], *made[N_TENSORS];
    float *norm_w, *norm_b, *bias, *inv_freq;
    sill__type as;         /* that plain types become with COMPUTE_BLOCK_I8 */
    sill__check_shape own; /* of the model at hand */
} model;

static const sill__check_shape *shape_of(const check_case *c) { return c->spec; }

/* What adds more pipelines than it says is done in the quick check with the first shape alone: scores of chosen rows, steps of
 * so many rows that qkv has their statistics taken before, other ways through the same tokens. */
static bool scores(const check_case *c) { return c->level == SILL__CHECK_FULL || c->spec == &sill__check_layer_shapes[0]; }
static bool whole(const check_case *c) { return c->use || scores(c); }

/* A few narrow layers of the model at hand: its types, norm, activation, rotation and heads. */
static sill__check_shape shape_for(const sill__use *use) {
    static const double bounds[] = {[SILL__COMPUTE_F32] = 1e-11, [SILL__COMPUTE_F16] = 1e-7, [SILL__COMPUTE_BF16] = 2e-5,
                                    [SILL__COMPUTE_BLOCK_I8] = 2e-4, [SILL__COMPUTE_INT8] = 5e-4};
    const int32_t n_kv_heads = SILL_MIN(use->n_kv_heads, 2), wide = sill__type_get(use->type)->block == 256 ? 256 : 96;
    const bool gpt2 = use->norm == SILL__NORM_LAYER, bias = gpt2 && (use->group + 2) * n_kv_heads * use->head_dim <= N_VECTOR;
    sill__check_shape s = {.name = "as the model", .width = wide, .n_heads = use->group * n_kv_heads, .n_kv_heads = n_kv_heads,
                           .head_dim = use->head_dim, .n_ff = 2 * wide, .vocab = 523, .norm = use->norm, .act = use->act, .rope = use->rope,
                           .rope_dims = use->rope == SILL__ROPE_NONE ? 0 : use->rope_dims, .bias = bias, .positions = gpt2,
                           .type = use->type, .compute = use->compute, .kv = use->kv, .bound = bounds[use->compute]};
    if (use->kv == SILL__KV_F16) s.bound = SILL_MAX(s.bound, 1e-7);
    return s;
}

static bool pick_layers(check_case *c, sill__check_level level, int i) {
    static const int quick[] = {0, 2, 4, 6, 9, 11}; /* both families, plain and block types, all caches */
    int n = level == SILL__CHECK_FULL ? (int)SILL_ARRAY_LEN(sill__check_layer_shapes) : (int)SILL_ARRAY_LEN(quick);
    if (c->use) {
        c->v[LATENCY] = c->no_bits = i == 1;
        snprintf(c->name, sizeof c->name, "as the model%s", i == 1 ? ", one interactive text" : "");
        return i < 2;
    }
    if (i >= 2 * n) return false;
    c->spec = &sill__check_layer_shapes[level == SILL__CHECK_FULL ? i % n : quick[i % n]];
    c->v[LATENCY] = i >= n;
    c->no_bits = i >= n || !whole(c);
    snprintf(c->name, sizeof c->name, "%s%s", shape_of(c)->name, i >= n ? ", one interactive text" : "");
    return true;
}

static sill__tensor *quantized(check_case *c, const sill__tensor *t, sill__type as) {
    size_t cols = (size_t)t->dims[1], row_bytes = sill__row_bytes(as, cols), rows = (size_t)t->dims[0];
    sill__tensor *q = sill__arena_alloc(&c->arena, sizeof *q);
    uint8_t *to = sill__arena_alloc(&c->arena, row_bytes * rows + 1);
    float *row = sill__arena_alloc(&c->arena, cols * sizeof *row);
    if (!q || !to || !row || !row_bytes) return NULL;
    for (size_t i = 0; i < rows; i++) {
        sill__dequant(t->type, t->data + i * sill__row_bytes(t->type, cols), row, cols);
        sill__quantize(as, row, to + i * row_bytes, cols);
    }
    *q = *t;
    q->type = as;
    q->data = to;
    q->bytes = row_bytes * rows;
    return q;
}

static bool make_layers(check_case *c) {
    model *m = sill__arena_alloc(&c->arena, sizeof *m);
    if (!m) return false;
    m->as = c->use && c->use->as != SILL__TYPE_F32 ? c->use->as : SILL__TYPE_Q8_0;
    if (c->use) {
        m->own = shape_for(c->use);
        c->spec = &m->own;
    }
    const sill__check_shape *s = shape_of(c);
    check_rng r = {0x1a7e25 + (c->use ? 99 : (uint64_t)(s - sill__check_layer_shapes))};
    const int32_t q = s->n_heads * s->head_dim, in = s->act == SILL__ACT_SWIGLU ? 2 * s->n_ff : s->n_ff;
    const int32_t rows[] = {s->vocab, LEN, (s->n_heads + 2 * s->n_kv_heads) * s->head_dim, s->width, in, s->width, s->vocab + s->spare};
    const int32_t cols[] = {s->width, s->width, s->width, q, s->width, s->n_ff, s->width};
    c->data = m;
    c->n_variants = s->compute == SILL__COMPUTE_BLOCK_I8 ? 2 : 1;
    for (int i = 0; i < N_TENSORS; i++) {
        bool plain = i == WPE || sill__row_bytes(s->type, (uint64_t)cols[i]) == 0;
        m->t[i] = sill__chk_tensor(c, &r, plain ? SILL__TYPE_F32 : s->type, (uint64_t)rows[i], (uint64_t)cols[i], 1.7f / sqrtf((float)cols[i]));
        if (!m->t[i]) return false;
        if (s->compute != SILL__COMPUTE_BLOCK_I8 || i <= WPE || sill__type_get(m->t[i]->type)->block > 1) continue;
        if (!(m->made[i] = quantized(c, m->t[i], m->as))) return false;
    }
    m->norm_w = sill__chk_floats(c, &r, N_VECTOR, 0.5f);
    m->norm_b = sill__chk_floats(c, &r, N_VECTOR, 0.3f);
    m->bias = sill__chk_floats(c, &r, N_VECTOR, 0.3f);
    m->inv_freq = sill__chk_floats(c, &r, N_VECTOR, 0);
    if (!m->norm_w || !m->norm_b || !m->bias || !m->inv_freq) return false;
    for (int i = 0; i < N_VECTOR; i++) m->norm_w[i] += 1;
    for (int i = 0; i < N_VECTOR && s->rope_dims; i++) m->inv_freq[i] = powf(100, -2.0f * (float)i / (float)s->rope_dims);
    c->types[0] = s->type;
    c->types[1] = SILL__TYPE_F32;
    c->need = (sill__need){.types = c->types, .n_types = 1, .embed_types = c->types, .n_embed_types = 2, .compute = s->compute,
                           .kv = s->kv, .norm = s->norm, .act = s->act, .rope = s->rope, .rope_dims = s->rope_dims,
                           .n_heads = s->n_heads, .n_kv_heads = s->n_kv_heads, .head_dim = s->head_dim};
    const size_t n = CHECK_SEQS * LEN, widths[N_OUTS] = {(size_t)s->width, (size_t)s->width, scores(c) ? (size_t)s->n_ff : 0, 1, 2, N_TOP};
    for (int i = 0; i < N_OUTS; i++) {
        sill__chk_add_out(c, c->v[LATENCY] ? "two layers, one interactive text" : "two layers of odd shapes", n * widths[i], 1.5 * sqrt(s->bound), 0);
        c->outs[i].mean = true;
    }
    return true;
}

typedef struct world {
    sill__weight *w[N_TENSORS];
    sill__ref x, q, attn, ff, norm_w, norm_b, bias, inv_freq, top_ids, out[N_OUTS];
    check_batch batch;
    check_seqs seqs;
} world;

static sill__weight *import(check_bench *b, const check_case *c, int i, int variant) {
    const sill__check_shape *s = shape_of(c);
    const model *m = c->data;
    const sill__tensor *t = variant == 1 && m->made[i] ? m->made[i] : m->t[i];
    sill__weight_src src = {.parts = {t}, .n_parts = 1, .rows = t->dims[0], .cols = t->dims[1], .name = "check",
                            .compute = variant == 1 ? SILL__COMPUTE_F32 : s->compute,
                            .role = i <= WPE ? SILL__ROLE_EMBED : i == HEAD ? SILL__ROLE_HEAD : SILL__ROLE_BODY};
    if (m->made[i] && variant == 0) src.as = m->as;
    return sill__chk_import(b, &src);
}

static world *open_world(const check_case *c, check_bench *b, int variant) {
    const sill__check_shape *s = shape_of(c);
    const model *m = c->data;
    const size_t q = (size_t)(s->n_heads * s->head_dim), rows = CHECK_STEP_ROWS;
    world *w = sill__calloc(1, sizeof *w);
    if (!w) {
        b->status = sill__fail(&b->err, SILL_ENOMEM, "no memory for a batch");
        return NULL;
    }
    for (int i = 0; i < N_TENSORS; i++) w->w[i] = import(b, c, i, variant);
    w->norm_w = sill__chk_put(b, m->norm_w, N_VECTOR);
    w->norm_b = sill__chk_put(b, m->norm_b, N_VECTOR);
    w->bias = sill__chk_put(b, m->bias, N_VECTOR);
    w->inv_freq = sill__chk_put(b, m->inv_freq, N_VECTOR);
    w->x = sill__chk_room(b, rows * (size_t)s->width);
    w->q = sill__chk_room(b, rows * q);
    w->attn = sill__chk_room(b, rows * q);
    w->ff = sill__chk_room(b, rows * (size_t)s->n_ff);
    w->top_ids = sill__chk_room(b, rows * N_TOP);
    for (int i = 0; i < N_OUTS; i++) w->out[i] = sill__chk_room(b, rows * (c->outs[i].n / (CHECK_SEQS * LEN)));
    check_seqs_init(&w->seqs, false);
    sill__chk_kv(b, &(sill__kv_shape){2, s->n_kv_heads, s->head_dim, s->kv, w->seqs.n_blocks});
    int32_t width = SILL_MAX(SILL_MAX(s->width, (s->n_heads + 2 * s->n_kv_heads) * s->head_dim), 2 * s->n_ff);
    sill__chk_queue(b, CHECK_STEP_ROWS, width, s->vocab, c->v[LATENCY] ? SILL__PATH_LATENCY : SILL__PATH_BATCH);
    return w;
}

static void record(const check_case *c, check_bench *b, world *w) {
    const sill__check_shape *s = shape_of(c);
    const sill__backend *ops = b->ops;
    sill__ref none = {0}, bias = s->bias ? w->bias : none;
    sill__norm norm = {s->norm, w->norm_w, s->norm == SILL__NORM_LAYER ? w->norm_b : none, 1e-5f};
    ops->embed(b->queue, &(sill__op_embed){.wte = w->w[WTE], .wpe = s->positions ? w->w[WPE] : NULL, .out = w->x, .width = s->width});
    for (int32_t layer = 0; layer < 2; layer++) {
        ops->qkv(b->queue, &(sill__op_qkv){.in = w->x, .q = w->q, .norm = norm, .w = w->w[QKV], .bias = bias,
                                           .rope = {s->rope, s->rope_dims, w->inv_freq, 1.0f}, .kv = b->kv, .layer = layer,
                                           .n_heads = s->n_heads, .n_kv_heads = s->n_kv_heads, .head_dim = s->head_dim});
        ops->attention(b->queue, &(sill__op_attention){.q = w->q, .out = w->attn, .kv = b->kv, .layer = layer,
                                                       .n_heads = s->n_heads, .n_kv_heads = s->n_kv_heads, .head_dim = s->head_dim,
                                                       .scale = 1 / sqrtf((float)s->head_dim)});
        ops->linear(b->queue, &(sill__op_linear){.in = w->attn, .out = w->x, .w = w->w[OUT], .bias = bias, .residual = true});
        ops->linear(b->queue, &(sill__op_linear){.in = w->x, .out = w->ff, .norm = norm, .w = w->w[IN], .bias = bias, .act = s->act});
        ops->linear(b->queue, &(sill__op_linear){.in = w->ff, .out = w->x, .w = w->w[BACK], .bias = bias, .residual = true});
    }
    ops->tap(b->queue, &(sill__op_tap){.in = w->x, .out = w->out[O_LAST], .width = s->width, .rows = SILL__ROWS_ALL});
    ops->tap(b->queue, &(sill__op_tap){.in = w->x, .out = w->out[O_TAP], .norm = norm, .width = s->width, .rows = SILL__ROWS_OUT});
    if (scores(c))
        ops->linear(b->queue, &(sill__op_linear){.in = w->x, .out = w->out[O_SCORE], .rows = SILL__ROWS_OUT, .norm = norm, .w = w->w[IN],
                                                 .act = s->act});
    ops->head(b->queue, &(sill__op_head){.in = w->x, .norm = norm, .w = w->w[HEAD], .bias = bias, .n_vocab = s->vocab,
                                         .lse = w->out[O_LSE], .target_starts = w->batch.target_starts, .targets = w->batch.targets,
                                         .target_logprobs = w->out[O_TARGETS], .n_top = N_TOP, .top_ids = w->top_ids,
                                         .top_logprobs = w->out[O_TOP]});
}

/* Results go to their places by sequence and position. */
static void walk(const check_case *c, check_bench *b, int variant, const check_script *script, float *const *outs) {
    world *w = open_world(c, b, variant);
    float *rows = NULL;
    for (int k = 0; w && sill__chk_ok(b) && k < script->n_steps; k++) {
        check_batch_make(&w->batch, &w->seqs, &script->steps[k], shape_of(c)->vocab);
        size_t n = (size_t)w->batch.batch.n_tokens;
        sill__chk_begin(b, &w->batch.batch);
        record(c, b, w);
        sill__chk_end(b);
        for (int i = 0; sill__chk_ok(b) && i < N_OUTS; i++) {
            size_t width = c->outs[i].n / (CHECK_SEQS * LEN);
            if (!width) continue;
            if (!(rows = sill__alloc(n * width * sizeof *rows))) b->status = sill__fail(&b->err, SILL_ENOMEM, "no memory for rows");
            else sill__chk_read(b, w->out[i], rows, n * width);
            for (size_t r = 0; sill__chk_ok(b) && r < n; r++)
                memcpy(outs[i] + ((size_t)w->batch.seq[r] * LEN + (size_t)w->batch.positions[r]) * width, rows + r * width, width * sizeof *rows);
            sill__free(rows);
        }
        check_seqs_advance(&w->seqs, &script->steps[k]);
    }
    sill__free(w);
}

static void run_layers(const check_case *c, check_bench *b, int variant, float *const *outs) {
    static const check_script few = {"few", 3, {{3, {{2, 37}, {0, 1}, {4, 10}}}, {4, {{0, 1}, {2, 1}, {4, 1}, {1, 33}}}, {1, {{3, 5}}}}};
    walk(c, b, variant, c->v[LATENCY] ? &sill__chk_single : whole(c) ? &sill__chk_ragged : &few, outs);
}

static void bits_layers(const check_case *c, check_bench *b, float *const *outs) {
    float *got[N_OUTS] = {NULL};
    size_t total = 0, at = 0;
    for (int i = 0; i < N_OUTS; i++) total += c->outs[i].n;
    float *all = sill__calloc(total, sizeof *all);
    if (!all) b->status = sill__fail(&b->err, SILL_ENOMEM, "no memory for outputs");
    for (int i = 0; all && i < N_OUTS; at += c->outs[i++].n) got[i] = all + at;
    for (size_t k = 0; all && k < N_CHECK_WAYS && sill__chk_ok(b) && !b->differs[0]; k++) {
        check_bench other;
        sill__chk_bench_open(&other, b->ops, b->device);
        walk(c, &other, 0, &sill__chk_ways[k], got);
        b->status = other.status;
        b->err = other.err;
        for (int i = 0; sill__chk_ok(b) && i < N_OUTS; i++)
            if (memcmp(got[i], outs[i], c->outs[i].n * sizeof *all))
                snprintf(b->differs, sizeof b->differs, "%s other bits than ragged", sill__chk_ways[k].name);
        sill__chk_bench_close(&other);
    }
    sill__free(all);
}

const check_kind sill__check_layers = {"layers", pick_layers, make_layers, run_layers, bits_layers, "same bits, two layers"};
