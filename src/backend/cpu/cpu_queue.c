/*
 * cpu_queue.c - a session's queue: its scratch, recording with checks, and the walk of all threads through the program.
 * Also the ops on single rows (embedding, tap) and the preparation of input rows that all products begin with.
 */
#include "backend/cpu/cpu.h"

#include <stdio.h>

/* ---------------------------------------------------------------- layout */

/* Bytes that hold one prepared row of COLS values in any form: the widest is that of LLM.int8, with 16-bit codes, all
 * values once more as f16, and a bit for each. */
static size_t act_bound(size_t cols) { return ((cols * 4 + cols / 8 + 63) & ~(size_t)63) + 320; }

typedef struct layout { uint8_t *base; size_t at; bool ok; } layout;

/* The next n * bytes, aligned to 64; with no base only counted. */
static void *take(layout *l, size_t n, size_t bytes) {
    size_t size, end;
    void *p = l->base ? l->base + l->at : NULL;
    l->ok = l->ok && sill__mul(n, bytes, &size) && sill__add(size, 63, &size) && sill__add(l->at, size & ~(size_t)63, &end);
    if (l->ok) l->at = end;
    return p;
}

/* Lays everything out behind base (NULL: counts only). SIZE_MAX when the sizes are no sizes. */
static size_t lay_out(sill__queue *q, uint8_t *base, int n_threads, const sill__queue_shape *s) {
    if (s->max_tokens < 1 || s->max_out < 0 || s->max_width < 1 || s->max_vocab < 0) return SIZE_MAX;
    layout l = {.base = base, .ok = true};
    size_t tokens = (size_t)s->max_tokens, rows = (size_t)SILL_MAX(s->max_tokens, s->max_out), width = (size_t)s->max_width;
    size_t attend = sill__attend_floats((int32_t)SILL_MIN(width, (size_t)SILL__MAX_HEAD_DIM));
    q->max_tokens = s->max_tokens;
    q->max_out = s->max_out;
    q->max_width = s->max_width;
    q->max_vocab = s->max_vocab;
    q->max_chunks = s->max_vocab / (CPU_HEAD_COLS - 64) + 2; /* a chunk is whole panels: at least so many columns */
    q->ops = take(&l, CPU_MAX_OPS, sizeof *q->ops);
    q->row_run = take(&l, rows, sizeof *q->row_run);
    q->run_tasks = take(&l, rows + 1, sizeof *q->run_tasks);
    q->acts = take(&l, rows, act_bound(width));
    q->wide = take(&l, tokens, width * sizeof *q->wide);
    q->cos = take(&l, tokens, CPU_ROPE_DIMS / 2 * sizeof *q->cos);
    q->sin = take(&l, tokens, CPU_ROPE_DIMS / 2 * sizeof *q->sin);
    q->stats = take(&l, (size_t)q->max_chunks, CPU_ROW_BLOCK * 2 * sizeof *q->stats);
    q->own = take(&l, (size_t)n_threads, sizeof *q->own);
    q->shares = take(&l, (size_t)n_threads, sizeof *q->shares);
    for (int i = 0; i < n_threads; i++) {
        cpu_own own;
        own.row = take(&l, width, sizeof *own.row);
        own.acts = take(&l, act_bound(CPU_OWN_VALUES) + CPU_OWN_ROWS * act_bound(0), 1);
        own.tile = take(&l, SILL_MAX(CPU_TILE_FLOATS, attend), sizeof *own.tile);
        own.best = take(&l, (size_t)CPU_ROW_BLOCK * CPU_MAX_TOP, sizeof *own.best);
        own.n_best = take(&l, CPU_ROW_BLOCK, sizeof *own.n_best);
        if (base) q->own[i] = own;
        if (base) atomic_init(&q->shares[i].at, 0);
    }
    return l.ok ? l.at : SIZE_MAX;
}

uint64_t sill__cpu_queue_bytes(const sill__device *d, const sill__queue_shape *shape) {
    sill__queue q;
    size_t bytes = lay_out(&q, NULL, d->n_threads, shape);
    return bytes == SIZE_MAX ? UINT64_MAX : bytes;
}

sill_status sill__cpu_queue_create(sill__device *d, const sill__queue_shape *shape, sill__queue **out, sill_error *err) {
    *out = NULL;
    sill__queue *q = sill__calloc(1, sizeof *q);
    if (!q) return sill__fail(err, SILL_ENOMEM, "no memory for a queue");
    size_t bytes = lay_out(q, NULL, d->n_threads, shape);
    if (bytes == SIZE_MAX) {
        sill__free(q);
        return sill__fail(err, SILL_EINVAL, "no queue for %d tokens, %d outputs, width %d, vocabulary %d",
                          shape->max_tokens, shape->max_out, shape->max_width, shape->max_vocab);
    }
    q->memory = sill__alloc_pages(bytes);
    if (!q->memory) {
        sill__free(q);
        return sill__fail(err, SILL_ENOMEM, "no memory for %zu bytes of scratch", bytes);
    }
    q->memory_bytes = bytes;
    q->device = d;
    q->serial = 1;
    lay_out(q, q->memory, d->n_threads, shape);
    *out = q;
    return SILL_OK;
}

void sill__cpu_queue_free(sill__device *d, sill__queue *q) {
    (void)d;
    if (!q) return;
    sill__free_pages(q->memory, q->memory_bytes);
    sill__free(q);
}

/* ------------------------------------------------------------- recording */

bool sill__cpu_require(sill__queue *q, bool ok, sill_status code, const char *format, ...) {
    if (!ok && q->error.code == SILL_OK) {
        char what[256];
        va_list ap;
        va_start(ap, format);
        vsnprintf(what, sizeof what, format, ap);
        va_end(ap);
        sill__fail(&q->error, code, "cpu device: %s", what);
    }
    return q->error.code == SILL_OK;
}

cpu_op *sill__cpu_record(sill__queue *q, cpu_kind kind, int32_t n) {
    if (!sill__cpu_require(q, q->batch != NULL, SILL_EINVAL, "an operation before begin")) return NULL;
    if (q->n_ops == CPU_MAX_OPS) sill__cpu_run(q);
    cpu_op *op = &q->ops[q->n_ops];
    memset(op, 0, sizeof *op);
    for (size_t i = 0; i < SILL_ARRAY_LEN(op->next); i++) atomic_init(&op->next[i], 0);
    op->kind = kind;
    op->n = n;
    return op; /* the caller counts it once it is checked */
}

bool sill__cpu_check_ref(sill__queue *q, const char *what, sill__ref r, int32_t rows, int32_t width, bool may_lack) {
    size_t bytes;
    if (!r.buf) return sill__cpu_require(q, may_lack, SILL_EINVAL, "%s: no buffer", what);
    bool ok = rows >= 0 && width >= 0 && sill__mul((size_t)rows, (size_t)width, &bytes) && sill__mul(bytes, 4, &bytes) &&
              r.at % 4 == 0 && r.at <= r.buf->bytes && bytes <= r.buf->bytes - r.at;
    return sill__cpu_require(q, ok, SILL_EINVAL, "%s: (%d, %d) values do not fit the buffer", what, rows, width);
}

bool sill__cpu_check_norm(sill__queue *q, const sill__norm *norm, int32_t width) {
    return norm->kind == SILL__NORM_NONE || (sill__cpu_check_ref(q, "norm weight", norm->weight, 1, width, true) &&
                                             sill__cpu_check_ref(q, "norm bias", norm->bias, 1, width, true));
}

bool sill__cpu_check_weight(sill__queue *q, const sill__weight *w, const char *what, bool may_be_list) {
    return sill__cpu_require(q, w && w->mat.data, SILL_EINVAL, "%s: not a packed weight", what) &&
           sill__cpu_require(q, may_be_list || !w->next, SILL_EUNSUPPORTED, "%s: a matrix of parts of several types", what) &&
           (!w->next || sill__cpu_check_weight(q, w->next, what, true)) &&
           sill__cpu_require(q, w->cols <= q->max_width, SILL_ERANGE, "%s: %d inputs, the queue is made for %d", what,
                             w->cols, q->max_width) &&
           sill__cpu_require(q, q->device->mat->act_bytes(&w->mat) <= act_bound((size_t)w->cols), SILL_EINTERNAL,
                             "%s: prepared rows are wider than expected", what);
}

bool sill__cpu_own_rows(const sill__queue *q, const sill__weight *w, sill__ref in, sill__ref out, int32_t n,
                        size_t out_bytes) {
    size_t in_bytes = (size_t)q->max_tokens * (size_t)w->cols * 4;
    /* Without a barrier nobody may write what another still reads. */
    bool apart = in.buf != out.buf || in.at + in_bytes <= out.at || out.at + out_bytes <= in.at;
    return apart && n <= CPU_OWN_ROWS && (size_t)n * (size_t)w->cols <= CPU_OWN_VALUES;
}

bool sill__cpu_check_blocks(sill__queue *q, const sill__kv *kv) {
    if (q->checked_kv == kv) return q->error.code == SILL_OK;
    for (int32_t r = 0; r < q->batch->n_runs; r++) {
        const sill__run *run = &q->batch->runs[r];
        for (int32_t i = 0; i < (run->pos + run->n + SILL__KV_BLOCK - 1) / SILL__KV_BLOCK; i++)
            if (!sill__cpu_require(q, run->blocks[i] >= 0 && run->blocks[i] < kv->shape.n_blocks, SILL_EINVAL,
                                   "run %d names KV block %d of %d", r, run->blocks[i], kv->shape.n_blocks))
                return false;
    }
    q->checked_kv = kv;
    return true;
}

static bool check_batch(sill__queue *q, const sill__batch *b) {
    if (!sill__cpu_require(q, b->n_tokens >= 0 && b->n_tokens <= q->max_tokens && b->n_out >= 0 &&
                                  b->n_out <= SILL_MAX(q->max_out, q->max_tokens) && b->n_runs >= 0 &&
                                  b->n_runs <= q->max_tokens,
                           SILL_ERANGE, "a batch of %d tokens, %d runs, %d outputs; the queue is made for %d tokens, %d outputs",
                           b->n_tokens, b->n_runs, b->n_out, q->max_tokens, q->max_out))
        return false;
    int32_t row = 0, tasks = 0;
    q->long_runs = false;
    for (int32_t r = 0; r < b->n_runs; r++) {
        const sill__run *run = &b->runs[r];
        if (!sill__cpu_require(q, run->first == row && run->n >= 1 && run->n <= b->n_tokens - row && run->pos >= 0 &&
                                      run->pos <= INT32_MAX - run->n - SILL__KV_BLOCK,
                               SILL_EINVAL, "run %d has rows %d + %d of %d, position %d", r, run->first, run->n,
                               b->n_tokens, run->pos))
            return false;
        q->run_tasks[r] = tasks;
        q->long_runs = q->long_runs || !sill__cpu_short(run);
        tasks += (run->n + CPU_QUERY_ROWS - 1) / CPU_QUERY_ROWS;
        for (int32_t i = 0; i < run->n; i++) q->row_run[row++] = r;
    }
    q->run_tasks[b->n_runs] = tasks;
    for (int32_t i = 0; i < b->n_out; i++)
        if (!sill__cpu_require(q, b->out_rows[i] >= 0 && b->out_rows[i] < b->n_tokens, SILL_EINVAL,
                               "output row %d of %d tokens", b->out_rows[i], b->n_tokens))
            return false;
    return sill__cpu_require(q, b->n_runs == 0 || row == b->n_tokens, SILL_EINVAL, "runs of %d rows in a batch of %d",
                             row, b->n_tokens);
}

void sill__cpu_begin(sill__queue *q, const sill__batch *batch) {
    q->n_ops = 0;
    q->checked_kv = NULL;
    q->rope = NULL;
    q->batch = batch;
    check_batch(q, batch);
}

/* --------------------------------------------------------------- running */

static int32_t take_of(cpu_share *share, uint32_t serial, int32_t first, int32_t end) {
    uint64_t at = atomic_load_explicit(&share->at, memory_order_relaxed), next;
    do {
        int32_t task = (uint32_t)(at >> 32) == serial ? SILL_MAX((int32_t)(uint32_t)at, first) : first;
        if (task >= end) return -1;
        next = (uint64_t)serial << 32 | (uint32_t)(task + 1);
    } while (!atomic_compare_exchange_weak_explicit(&share->at, &at, next, memory_order_relaxed, memory_order_relaxed));
    return (int32_t)(uint32_t)next - 1;
}

int32_t sill__cpu_take_share(const cpu_walk *w, int32_t base, int32_t n) {
    for (int k = 0, i = w->i; k < w->n; k++, i = i + 1 < w->n ? i + 1 : 0) {
        const int32_t first = (int32_t)((int64_t)n * i / w->n), end = (int32_t)((int64_t)n * (i + 1) / w->n);
        const int32_t task = take_of(&w->q->shares[i], w->serial, base + first, base + end);
        if (task >= 0) return task;
    }
    return -1;
}

static void walk(void *arg, int i, int n) {
    sill__queue *q = arg;
    cpu_walk w = {.q = q, .mat = q->device->mat, .vec = q->device->vec, .own = &q->own[i], .i = i, .n = n};
    for (int32_t k = 0; k < q->n_ops; k++) {
        cpu_op *op = &q->ops[k];
        w.serial = q->serial + (uint32_t)k;
        switch (op->kind) {
        case CPU_EMBED: sill__cpu_walk_embed(&w, op); break;
        case CPU_LINEAR: sill__cpu_walk_linear(&w, op); break;
        case CPU_QKV: sill__cpu_walk_qkv(&w, op); break;
        case CPU_ATTENTION: sill__cpu_walk_attention(&w, op); break;
        case CPU_TAP: sill__cpu_walk_tap(&w, op); break;
        case CPU_HEAD: sill__cpu_walk_head(&w, op); break;
        case CPU_KV_COPY: sill__cpu_walk_kv_copy(&w, op); break;
        }
        if (k + 1 < q->n_ops) sill__cpu_barrier(&w);
    }
}

/* A row looked up in a mapped table brings 64 KiB of the file and more into the process, where they would stay until in the end
 * the whole table is there beside the packed weights: every so many rows it is given back to the page cache. */
static void release_tables(sill__queue *q) {
    enum { ROWS = 128 };
    for (int32_t k = 0; k < q->n_ops; k++) {
        const cpu_op *op = &q->ops[k];
        if (op->kind != CPU_EMBED || (q->looked_up += op->n) < ROWS) continue;
        const sill__tensor *t = &op->u.embed.wte->source;
        if (t->map) sill__map_release(t->map, (size_t)(t->data - t->map->data), t->bytes);
        q->looked_up = 0;
    }
}

void sill__cpu_run(sill__queue *q) {
    if (q->n_ops && q->error.code == SILL_OK) {
        sill__pool_lock(q->device->pool);
        sill__pool_run_some(q->device->pool, walk, q);
        sill__pool_unlock(q->device->pool);
        release_tables(q);
    }
    q->serial += (uint32_t)q->n_ops;
    q->n_ops = 0;
    q->rope = NULL; /* it may point into an op that is gone; the table is filled again */
}

/* The work is done within submit; an error stays in the queue until the next begin. */
sill_status sill__cpu_submit(sill__queue *q, sill__ticket *ticket, sill_error *err) {
    sill__cpu_run(q);
    if (ticket) *ticket = ++q->n_submitted;
    return sill__cpu_wait(q, 0, err);
}

sill_status sill__cpu_wait(sill__queue *q, sill__ticket ticket, sill_error *err) {
    sill_status st = q->error.code;
    (void)ticket; /* what was submitted is done */
    if (st != SILL_OK && err) *err = q->error;
    memset(&q->error, 0, sizeof q->error);
    return st;
}

/* ------------------------------------------------------------------ rows */

void sill__cpu_norm(const cpu_walk *w, const sill__norm *norm, float *y, const float *x, int32_t n) {
    const float *weight = sill__cpu_f32(norm->weight), *bias = sill__cpu_f32(norm->bias);
    switch (norm->kind) {
    case SILL__NORM_LAYER: w->vec->norm_layer(y, x, weight, bias, n, norm->eps); break;
    case SILL__NORM_RMS: w->vec->norm_rms(y, x, weight, bias, n, norm->eps); break;
    case SILL__NORM_NONE: memmove(y, x, (size_t)n * sizeof *x); break;
    }
}

static void prepare_row(const cpu_walk *w, const sill__weight *weight, const float *x, const sill__norm *norm,
                        uint8_t *act) {
    if (norm->kind != SILL__NORM_NONE) {
        sill__cpu_norm(w, norm, w->own->row, x, weight->cols);
        x = w->own->row;
    }
    w->mat->act_prepare(&weight->mat, x, act);
}

const uint8_t *sill__cpu_prepare(const cpu_walk *w, const cpu_op *op, const sill__weight *weight, sill__ref in,
                                 sill__rows rows, const sill__norm *norm, int32_t first, int32_t n, atomic_int *next,
                                 int32_t next_base) {
    const sill__batch *b = w->q->batch;
    const float *x = sill__cpu_f32(in);
    size_t bytes = w->mat->act_bytes(&weight->mat), cols = (size_t)weight->cols;
    uint8_t *acts = op->own_rows ? w->own->acts : w->q->acts;
    for (int32_t i = 0;; i++) {
        if (!op->own_rows) {
            i = sill__cpu_take(next, next_base + n) - next_base;
            if (i < 0) break;
        } else if (i == n) {
            break;
        }
        int32_t row = rows == SILL__ROWS_OUT ? b->out_rows[first + i] : first + i;
        prepare_row(w, weight, x + (size_t)row * cols, norm, acts + (size_t)i * bytes);
    }
    if (!op->own_rows) sill__cpu_barrier(w);
    return acts;
}

/* ----------------------------------------------------------- embed and tap */

void sill__cpu_embed(sill__queue *q, const sill__op_embed *op) {
    cpu_op *r = sill__cpu_record(q, CPU_EMBED, q->batch ? q->batch->n_tokens : 0);
    const sill__batch *b = q->batch;
    if (!r || !sill__cpu_require(q, op->wte && op->wte->row_bytes && op->wte->cols == op->width, SILL_EINVAL,
                                 "embedding table") ||
        !sill__cpu_require(q, !op->wpe || (op->wpe->row_bytes && op->wpe->cols == op->width), SILL_EINVAL,
                           "position table") ||
        !sill__cpu_require(q, op->width <= q->max_width, SILL_ERANGE, "embeddings of %d values", op->width) ||
        !sill__cpu_check_ref(q, "embedding", op->out, r->n, op->width, false))
        return;
    for (int32_t i = 0; i < b->n_tokens; i++) {
        if (!sill__cpu_require(q, b->tokens[i] >= 0 && b->tokens[i] < op->wte->rows, SILL_ERANGE,
                               "token id %d of a vocabulary of %d", b->tokens[i], op->wte->rows) ||
            !sill__cpu_require(q, !op->wpe || (b->positions[i] >= 0 && b->positions[i] < op->wpe->rows), SILL_ERANGE,
                               "position %d, the model has %d", b->positions[i], op->wpe ? op->wpe->rows : 0))
            return;
    }
    r->u.embed = *op;
    q->n_ops++;
}

static void table_row(const sill__weight *table, int32_t row, float *out) {
    sill__dequant(table->source.type, table->source.data + (size_t)row * table->row_bytes, out, (size_t)table->cols);
}

void sill__cpu_walk_embed(const cpu_walk *w, cpu_op *op) {
    const sill__op_embed *e = &op->u.embed;
    const sill__batch *b = w->q->batch;
    for (int32_t i; (i = sill__cpu_take(&op->next[0], op->n)) >= 0;) {
        float *out = sill__cpu_f32(e->out) + (size_t)i * (size_t)e->width;
        table_row(e->wte, b->tokens[i], out);
        if (!e->wpe) continue;
        table_row(e->wpe, b->positions[i], w->own->row);
        w->vec->add(out, w->own->row, e->width);
    }
}

void sill__cpu_tap(sill__queue *q, const sill__op_tap *op) {
    const sill__batch *b = q->batch;
    cpu_op *r = sill__cpu_record(q, CPU_TAP, !b ? 0 : op->rows == SILL__ROWS_OUT ? b->n_out : b->n_tokens);
    if (!r || !sill__cpu_check_ref(q, "tap input", op->in, b->n_tokens, op->width, false) ||
        !sill__cpu_check_ref(q, "tap output", op->out, r->n, op->width, false) ||
        !sill__cpu_check_norm(q, &op->norm, op->width) ||
        !sill__cpu_require(q, op->rows == SILL__ROWS_ALL || op->in.buf != op->out.buf || op->in.at != op->out.at,
                           SILL_EINVAL, "tap: gathered rows over their own input"))
        return;
    r->u.tap = *op;
    q->n_ops++;
}

void sill__cpu_walk_tap(const cpu_walk *w, cpu_op *op) {
    const sill__op_tap *t = &op->u.tap;
    size_t width = (size_t)t->width;
    for (int32_t i; (i = sill__cpu_take(&op->next[0], op->n)) >= 0;) {
        int32_t row = t->rows == SILL__ROWS_OUT ? w->q->batch->out_rows[i] : i;
        sill__cpu_norm(w, &t->norm, sill__cpu_f32(t->out) + (size_t)i * width, sill__cpu_f32(t->in) + (size_t)row * width,
                       t->width);
    }
}
