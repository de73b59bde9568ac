/*
 * cpu_linear.c - products with packed weights: linear with its norm before and its bias, activation, gate and residual
 * behind, and qkv with rotation and the writing of keys and values.
 */
#include "backend/cpu/cpu.h"

#include <math.h>

#define TASK_BYTES ((size_t)32 << 10)  /* least weight bytes of a task of few rows */
#define CACHE_BYTES ((size_t)384 << 10) /* most weight bytes of a task of many rows: they are read once a row block */

/* How the outputs of a product are cut into tasks: row blocks, fastest, times stretches of panels. */
typedef struct cut { int32_t m, n_units, per, row_blocks, n_tasks; } cut;

static cut cut_product(const cpu_walk *w, const sill__cpu_mat *mat, int32_t m, int32_t n_out, int32_t max_cols) {
    cut c = {.m = m, .n_units = (n_out + mat->nr - 1) / mat->nr, .row_blocks = (m + CPU_ROW_BLOCK - 1) / CPU_ROW_BLOCK};
    int32_t max_per = SILL_MAX(1, max_cols / mat->nr), per;
    if (m <= CPU_OWN_ROWS) {
        int32_t least = (int32_t)SILL_MIN((TASK_BYTES + mat->panel_bytes - 1) / mat->panel_bytes, (size_t)max_per);
        per = SILL_MAX(least, c.n_units / (8 * w->n));
    } else {
        per = (int32_t)SILL_MIN(CACHE_BYTES / mat->panel_bytes, (size_t)max_per);
        per = SILL_MIN(per, c.n_units * c.row_blocks / (4 * w->n));
    }
    c.per = SILL_MAX(1, SILL_MIN(per, max_per));
    c.n_tasks = (c.n_units + c.per - 1) / c.per * c.row_blocks;
    return c;
}

/* Stretches of weights that many row blocks share are taken one after the other by all, while they are in the caches. */
static int32_t take_part(const cpu_walk *w, cpu_op *op, const cut *c, int32_t base) {
    return c->row_blocks == 1 ? sill__cpu_take_share(w, base, c->n_tasks) : sill__cpu_take(&op->next[1], base + c->n_tasks);
}

/* A task's rows [row, row + rows) and outputs [col, col + cols). */
typedef struct part { int32_t row, rows, col, cols; } part;

static part part_of(const cut *c, const sill__cpu_mat *mat, int32_t task, int32_t n_out) {
    part p;
    p.row = task % c->row_blocks * CPU_ROW_BLOCK;
    p.rows = SILL_MIN(CPU_ROW_BLOCK, c->m - p.row);
    p.col = task / c->row_blocks * c->per * mat->nr;
    p.cols = SILL_MIN(c->per * mat->nr, n_out - p.col);
    return p;
}

/* The product's outputs from column COL on lie at OUT, rows LD apart; COL need not begin a panel: what comes before
 * it in its panel is written in front, within LD. Returns where COL is. */
static float *product_at(const cpu_walk *w, const sill__cpu_mat *mat, const uint8_t *acts, int32_t rows, int32_t col,
                         int32_t cols, float *out, size_t ld) {
    int32_t first = col / mat->nr, end = (col + cols + mat->nr - 1) / mat->nr;
    /* matmul counts outputs from the matrix's first: step back by those of the panels before. */
    float *origin = (float *)(void *)((uintptr_t)(void *)out - (uintptr_t)first * (uintptr_t)mat->nr * sizeof(float));
    w->mat->matmul(mat, acts, rows, first, end, origin, ld);
    return out + (col - first * mat->nr);
}

/* ---------------------------------------------------------------- linear */

void sill__cpu_linear(sill__queue *q, const sill__op_linear *op) {
    const sill__batch *b = q->batch;
    cpu_op *r = sill__cpu_record(q, CPU_LINEAR, !b ? 0 : op->rows == SILL__ROWS_OUT ? b->n_out : b->n_tokens);
    bool glu = op->act == SILL__ACT_SWIGLU;
    if (!r || !sill__cpu_require(q, !op->pre.buf, SILL_EUNSUPPORTED, "the cpu device does not train") ||
        !sill__cpu_check_weight(q, op->w, "linear", false) ||
        !sill__cpu_require(q, !glu || op->w->rows % 2 == 0, SILL_EINVAL, "linear: gate and up of %d rows", op->w->rows) ||
        !sill__cpu_check_ref(q, "linear input", op->in, b->n_tokens, op->w->cols, false) ||
        !sill__cpu_check_ref(q, "linear output", op->out, r->n, glu ? op->w->rows / 2 : op->w->rows, false) ||
        !sill__cpu_check_ref(q, "linear bias", op->bias, 1, op->w->rows, true) ||
        !sill__cpu_check_norm(q, &op->norm, op->w->cols))
        return;
    r->own_rows = sill__cpu_own_rows(q, op->w, op->in, op->out, r->n, (size_t)r->n * (size_t)op->w->rows * 4);
    r->u.linear = *op;
    q->n_ops++;
}

static void swiglu_part(const cpu_walk *w, const sill__op_linear *l, const uint8_t *acts, const part *p, int32_t n_out) {
    const sill__cpu_mat *mat = &l->w->mat;
    const float *bias = sill__cpu_f32(l->bias);
    float *y = sill__cpu_f32(l->out);
    size_t ld = (size_t)p->cols + 2 * (size_t)mat->nr; /* the up rows need not begin with a panel */
    float *gate = product_at(w, mat, acts, p->rows, p->col, p->cols, w->own->tile, ld);
    float *up = product_at(w, mat, acts, p->rows, n_out + p->col, p->cols, w->own->tile + ld * CPU_ROW_BLOCK, ld);
    for (int32_t i = 0; i < p->rows; i++, gate += ld, up += ld) {
        float *out = y + (size_t)(p->row + i) * (size_t)n_out + p->col;
        if (bias) {
            w->vec->epilogue(gate, bias + p->col, SILL__ACT_NONE, p->cols);
            w->vec->epilogue(up, bias + n_out + p->col, SILL__ACT_NONE, p->cols);
        }
        if (l->residual) {
            w->vec->swiglu(gate, gate, up, p->cols);
            w->vec->add(out, gate, p->cols);
        } else {
            w->vec->swiglu(out, gate, up, p->cols);
        }
    }
}

static void linear_part(const cpu_walk *w, const sill__op_linear *l, const uint8_t *acts, const part *p, int32_t n_out) {
    const sill__cpu_mat *mat = &l->w->mat;
    const float *bias = sill__cpu_f32(l->bias);
    float *y = sill__cpu_f32(l->out) + (size_t)p->row * (size_t)n_out + p->col;
    size_t ld = l->residual ? (size_t)p->cols + (size_t)mat->nr : (size_t)n_out;
    float *out = product_at(w, mat, acts, p->rows, p->col, p->cols, l->residual ? w->own->tile : y, ld);
    for (int32_t i = 0; i < p->rows; i++, out += ld, y += n_out) {
        w->vec->epilogue(out, bias ? bias + p->col : NULL, l->act, p->cols);
        if (l->residual) w->vec->add(y, out, p->cols);
    }
}

void sill__cpu_walk_linear(const cpu_walk *w, cpu_op *op) {
    const sill__op_linear *l = &op->u.linear;
    const sill__cpu_mat *mat = &l->w->mat;
    bool glu = l->act == SILL__ACT_SWIGLU;
    int32_t n_out = glu ? mat->rows / 2 : mat->rows;
    if (op->n == 0) return;
    const uint8_t *acts = sill__cpu_prepare(w, op, l->w, l->in, l->rows, &l->norm, 0, op->n, &op->next[0], 0);
    size_t act_bytes = w->mat->act_bytes(mat);
    cut c = cut_product(w, mat, op->n, n_out, glu ? CPU_TILE_COLS / 2 - 64 : CPU_TILE_COLS);
    for (int32_t t; (t = take_part(w, op, &c, 0)) >= 0;) {
        part p = part_of(&c, mat, t, n_out);
        const uint8_t *rows = acts + (size_t)p.row * act_bytes;
        if (glu) swiglu_part(w, l, rows, &p, n_out);
        else linear_part(w, l, rows, &p, n_out);
    }
}

/* ------------------------------------------------------------------- qkv */

static bool same_rope(const sill__rope *a, const sill__rope *b) {
    return a->dims == b->dims && a->inv_freq.buf == b->inv_freq.buf && a->inv_freq.at == b->inv_freq.at &&
           a->scale == b->scale;
}

/* Whether the table has to be made for this op; later ones of the batch use it as it is. */
static bool check_rope(sill__queue *q, cpu_op *r, const sill__op_qkv *op) {
    const sill__rope *rope = &op->rope;
    if (rope->kind == SILL__ROPE_NONE) return true;
    if (!sill__cpu_require(q, rope->dims > 0 && rope->dims % 2 == 0 && rope->dims <= op->head_dim &&
                                  rope->dims <= CPU_ROPE_DIMS,
                           SILL_EUNSUPPORTED, "rotary embedding of %d of %d values of a head (at most %d)", rope->dims,
                           op->head_dim, CPU_ROPE_DIMS) ||
        !sill__cpu_check_ref(q, "rotary frequencies", rope->inv_freq, 1, rope->dims / 2, false))
        return false;
    r->fill_rope = !q->rope || !same_rope(q->rope, rope);
    return true;
}

void sill__cpu_qkv(sill__queue *q, const sill__op_qkv *op) {
    const sill__batch *b = q->batch;
    cpu_op *r = sill__cpu_record(q, CPU_QKV, b ? b->n_tokens : 0);
    int32_t heads = op->n_heads + 2 * op->n_kv_heads;
    if (!r || !sill__cpu_require(q, !op->k.buf && !op->v.buf, SILL_EUNSUPPORTED, "the cpu device does not train") ||
        !sill__cpu_check_weight(q, op->w, "qkv", true) ||
        !sill__cpu_require(q, op->n_heads > 0 && op->n_kv_heads > 0 && op->n_heads % op->n_kv_heads == 0 &&
                                  op->w->rows / op->head_dim == heads && op->w->rows % op->head_dim == 0,
                           SILL_EINVAL, "qkv: %d rows for %d + 2 * %d heads of %d", op->w->rows, op->n_heads,
                           op->n_kv_heads, op->head_dim) ||
        !sill__cpu_require(q, op->w->rows <= q->max_width, SILL_ERANGE, "qkv: %d outputs, the queue is made for %d",
                           op->w->rows, q->max_width) ||
        !sill__cpu_require(q, op->kv && op->kv->shape.head_dim == op->head_dim &&
                                  op->kv->shape.n_kv_heads == op->n_kv_heads && op->layer >= 0 &&
                                  op->layer < op->kv->shape.n_layers && (b->n_tokens == 0 || b->n_runs > 0),
                           SILL_EINVAL, "qkv: the KV cache has another shape") ||
        !sill__cpu_check_ref(q, "qkv input", op->in, b->n_tokens, op->w->cols, false) ||
        !sill__cpu_check_ref(q, "q", op->q, b->n_tokens, op->n_heads * op->head_dim, false) ||
        !sill__cpu_check_ref(q, "qkv bias", op->bias, 1, op->w->rows, true) ||
        !sill__cpu_check_norm(q, &op->norm, op->w->cols) || !sill__cpu_check_blocks(q, op->kv) || !check_rope(q, r, op))
        return;
    r->own_rows = sill__cpu_own_rows(q, op->w, op->in, (sill__ref){0}, r->n, 0);
    r->u.qkv = *op;
    if (r->fill_rope) q->rope = &r->u.qkv.rope;
    q->n_ops++;
}

/* cos and sin of every row's angles. The angle is the f32 product of position and frequency, as transformers has it. */
static void fill_rope(const cpu_walk *w, cpu_op *op) {
    const sill__rope *rope = &op->u.qkv.rope;
    const float *freq = sill__cpu_f32(rope->inv_freq);
    int32_t half = rope->dims / 2;
    for (int32_t i; (i = sill__cpu_take(&op->next[2], op->n)) >= 0;) {
        const sill__run *run = &w->q->batch->runs[w->q->row_run[i]];
        float pos = (float)(run->pos + i - run->first);
        float *c = w->q->cos + (size_t)i * (size_t)half, *s = w->q->sin + (size_t)i * (size_t)half;
        for (int32_t k = 0; k < half; k++) {
            double angle = (double)(pos * freq[k]);
            c[k] = (float)(cos(angle) * (double)rope->scale);
            s[k] = (float)(sin(angle) * (double)rope->scale);
        }
    }
}

/* One row, one kv head: its query heads go to q; its key is rotated where it lies. */
static void place_queries(const cpu_walk *w, const sill__op_qkv *o, int32_t row, int32_t kv_head) {
    int32_t dim = o->head_dim, group = o->n_heads / o->n_kv_heads;
    size_t n = (size_t)dim, table = (size_t)row * (size_t)(o->rope.dims / 2);
    float *x = w->q->wide + (size_t)row * (size_t)o->w->rows;
    float *qs = x + (size_t)(kv_head * group) * n, *k = x + (size_t)(o->n_heads + kv_head) * n;
    float *out = sill__cpu_f32(o->q) + ((size_t)row * (size_t)o->n_heads + (size_t)(kv_head * group)) * n;
    if (o->rope.kind != SILL__ROPE_NONE) {
        const float *c = w->q->cos + table, *s = w->q->sin + table;
        for (int32_t h = 0; h < group; h++) w->vec->rope(qs + (size_t)h * n, c, s, o->rope.dims, o->rope.kind);
        w->vec->rope(k, c, s, o->rope.dims, o->rope.kind);
    }
    memcpy(out, qs, (size_t)group * n * sizeof *out);
}

void sill__cpu_place(const cpu_walk *w, const sill__op_qkv *o, int32_t row, int32_t n, int32_t kv_head) {
    const sill__run *run = &w->q->batch->runs[w->q->row_run[row]];
    const size_t ld = (size_t)o->w->rows, dim = (size_t)o->head_dim;
    const int32_t end = row + n;
    for (int32_t i = row; i < end; i++) place_queries(w, o, i, kv_head);
    while (row < end) { /* as many at a time as lie in one block */
        int32_t pos = run->pos + row - run->first, slot = pos % SILL__KV_BLOCK, some = SILL_MIN(end - row, SILL__KV_BLOCK - slot);
        const float *k = w->q->wide + (size_t)row * ld + (size_t)(o->n_heads + kv_head) * dim, *v = k + (size_t)o->n_kv_heads * dim;
        uint8_t *tile = sill__kv_tiles(o->kv, o->layer, kv_head) + (size_t)run->blocks[pos / SILL__KV_BLOCK] * o->kv->stride;
        w->vec->kv_put(o->kv->shape.type, tile, tile + o->kv->v_at, slot, some, k, v, ld, o->head_dim);
        row += some;
    }
}

/* Rows [row, end) of one kv head, but for those that attention places. */
static void place_heads(const cpu_walk *w, const cpu_op *op, int32_t row, int32_t end, int32_t kv_head) {
    while (row < end) {
        const sill__run *run = &w->q->batch->runs[w->q->row_run[row]];
        int32_t n = SILL_MIN(end, run->first + run->n) - row;
        if (!op->placed_later || !sill__cpu_short(run)) sill__cpu_place(w, &op->u.qkv, row, n, kv_head);
        row += n;
    }
}

/* The product of one matrix of the list, into columns of `wide` from COL on. Returns its number of tasks. */
static int32_t qkv_product(const cpu_walk *w, cpu_op *op, const sill__weight *weight, int32_t col, int32_t rows_base,
                           int32_t task_base) {
    const sill__op_qkv *o = &op->u.qkv;
    const sill__cpu_mat *mat = &weight->mat;
    const float *bias = sill__cpu_f32(o->bias);
    size_t ld = (size_t)o->w->rows, act_bytes = w->mat->act_bytes(mat);
    const uint8_t *acts = sill__cpu_prepare(w, op, weight, o->in, SILL__ROWS_ALL, &o->norm, 0, op->n, &op->next[0], rows_base);
    cut c = cut_product(w, mat, op->n, mat->rows, CPU_TILE_COLS);
    for (int32_t t; (t = take_part(w, op, &c, task_base)) >= 0;) {
        part p = part_of(&c, mat, t - task_base, mat->rows);
        float *out = w->q->wide + (size_t)p.row * ld + (col + p.col);
        product_at(w, mat, acts + (size_t)p.row * act_bytes, p.rows, p.col, p.cols, out, ld);
        for (int32_t i = 0; bias && i < p.rows; i++, out += ld)
            w->vec->epilogue(out, bias + col + p.col, SILL__ACT_NONE, p.cols);
    }
    return c.n_tasks;
}

void sill__cpu_walk_qkv(const cpu_walk *w, cpu_op *op) {
    const sill__op_qkv *o = &op->u.qkv;
    if (op->n == 0) return;
    if (op->fill_rope) fill_rope(w, op);
    const bool later = op->placed_later && !w->q->long_runs; /* all of it: the barrier behind the op will do */
    int32_t col = 0, rows_base = 0, task_base = 0;
    for (const sill__weight *weight = o->w; weight; weight = weight->next) {
        task_base += qkv_product(w, op, weight, col, rows_base, task_base);
        col += weight->mat.rows;
        rows_base += op->n;
        /* Behind the last all outputs are there; before, the shared prepared rows are written anew. */
        if (weight->next ? !op->own_rows : !later) sill__cpu_barrier(w);
    }
    if (later) return;
    int32_t chunks = (op->n + CPU_QUERY_ROWS - 1) / CPU_QUERY_ROWS;
    for (int32_t t; (t = sill__cpu_take(&op->next[3], chunks * o->n_kv_heads)) >= 0;) {
        int32_t first = t / o->n_kv_heads * CPU_QUERY_ROWS, end = SILL_MIN(first + CPU_QUERY_ROWS, op->n);
        place_heads(w, op, first, end, t % o->n_kv_heads);
    }
}
