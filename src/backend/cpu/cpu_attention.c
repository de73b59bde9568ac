/*
 * cpu_attention.c - attention of the batch's rows over their sequences, and copies of KV blocks. A task is one kv head
 * and up to 32 rows of one run, with all query heads that share it: they read each tile once.
 */
#include "backend/cpu/cpu.h"

/* Whether it reads the queries, keys and values of this qkv op. */
static bool fits(const sill__op_qkv *a, const sill__op_attention *b) {
    return a->q.buf == b->q.buf && a->q.at == b->q.at && a->kv == b->kv && a->layer == b->layer && a->n_heads == b->n_heads &&
           a->n_kv_heads == b->n_kv_heads && a->head_dim == b->head_dim;
}

void sill__cpu_attention(sill__queue *q, const sill__op_attention *op) {
    const sill__batch *b = q->batch;
    cpu_op *r = sill__cpu_record(q, CPU_ATTENTION, b ? b->n_tokens : 0);
    if (!r || !sill__cpu_require(q, !op->lse.buf, SILL_EUNSUPPORTED, "the cpu device does not train") ||
        !sill__cpu_require(q, op->n_heads > 0 && op->n_kv_heads > 0 && op->n_heads % op->n_kv_heads == 0,
                           SILL_EINVAL, "attention of %d heads over %d", op->n_heads, op->n_kv_heads) ||
        !sill__cpu_require(q, op->kv && op->kv->shape.head_dim == op->head_dim &&
                                  op->kv->shape.n_kv_heads == op->n_kv_heads && op->layer >= 0 &&
                                  op->layer < op->kv->shape.n_layers && op->head_dim <= q->max_width &&
                                  (b->n_tokens == 0 || b->n_runs > 0),
                           SILL_EINVAL, "attention: the KV cache has another shape") ||
        !sill__cpu_check_ref(q, "attention q", op->q, b->n_tokens, op->n_heads * op->head_dim, false) ||
        !sill__cpu_check_ref(q, "attention output", op->out, b->n_tokens, op->n_heads * op->head_dim, false) ||
        !sill__cpu_check_blocks(q, op->kv))
        return;
    cpu_op *before = q->n_ops ? r - 1 : NULL;
    if (before && before->kind == CPU_QKV && fits(&before->u.qkv, op)) {
        before->placed_later = true;
        r->place = &before->u.qkv;
    }
    r->u.attention = *op;
    q->n_ops++;
}

/* The run that stretch CHUNK of rows belongs to. */
static int32_t run_of(const sill__queue *q, int32_t chunk) {
    int32_t low = 0, high = q->batch->n_runs - 1;
    while (low < high) {
        int32_t mid = low + (high - low + 1) / 2;
        if (q->run_tasks[mid] <= chunk) low = mid;
        else high = mid - 1;
    }
    return low;
}

/* The first tile that task T begins with. */
static const uint8_t *tile_of(const cpu_walk *w, const sill__op_attention *o, int32_t t) {
    const sill__run *run = &w->q->batch->runs[run_of(w->q, t / o->n_kv_heads)];
    return sill__kv_tiles(o->kv, o->layer, t % o->n_kv_heads) + (size_t)run->blocks[0] * o->kv->stride;
}

static void attend_rows(const cpu_walk *w, const cpu_op *op, int32_t chunk, int32_t kv_head, const uint8_t *then) {
    const sill__op_attention *o = &op->u.attention;
    int32_t r = run_of(w->q, chunk), group = o->n_heads / o->n_kv_heads, n = 0;
    const sill__run *run = &w->q->batch->runs[r];
    int32_t first = (chunk - w->q->run_tasks[r]) * CPU_QUERY_ROWS, rows = SILL_MIN(CPU_QUERY_ROWS, run->n - first);
    const float *q = sill__cpu_f32(o->q), *in[SILL__ATTEND_QUERIES];
    float *out = sill__cpu_f32(o->out), *to[SILL__ATTEND_QUERIES];
    int32_t n_positions[SILL__ATTEND_QUERIES];
    sill__attend a = {
        .type = o->kv->shape.type, .tiles = sill__kv_tiles(o->kv, o->layer, kv_head), .stride = o->kv->stride,
        .v_at = o->kv->v_at, .blocks = run->blocks, .head_dim = o->head_dim, .scale = o->scale, .scratch = w->own->tile,
        .then = then,
    };
    if (op->place && sill__cpu_short(run)) sill__cpu_place(w, op->place, run->first, run->n, kv_head);
    for (int32_t h = 0; h < group; h++)
        for (int32_t i = 0; i < rows; i++) {
            size_t row = (size_t)(run->first + first + i), head = (size_t)(kv_head * group + h);
            size_t at = (row * (size_t)o->n_heads + head) * (size_t)o->head_dim;
            in[n] = q + at;
            to[n] = out + at;
            n_positions[n++] = run->pos + first + i + 1;
            if (n < SILL__ATTEND_QUERIES && (h + 1 < group || i + 1 < rows)) continue;
            w->vec->attend(&a, n, to, in, n_positions);
            n = 0;
        }
}

void sill__cpu_walk_attention(const cpu_walk *w, cpu_op *op) {
    const sill__op_attention *o = &op->u.attention;
    const int32_t tasks = w->q->run_tasks[w->q->batch->n_runs] * o->n_kv_heads;
    /* Short runs: a stretch for each thread, whose heads' tiles lie one behind the other. Tasks of a long run differ too much. */
    const bool share = !w->q->long_runs;
    const int32_t step = share ? 1 : w->n;
    for (int32_t t; (t = share ? sill__cpu_take_share(w, 0, tasks) : sill__cpu_take(&op->next[0], tasks)) >= 0;) {
        int32_t back = tasks - 1 - t; /* later rows see more positions: the long tasks first */
        attend_rows(w, op, back / o->n_kv_heads, back % o->n_kv_heads, back >= step ? tile_of(w, o, back - step) : NULL);
    }
}

/* ------------------------------------------------------------------ copies */

void sill__cpu_kv_copy(sill__queue *q, sill__kv *kv, int32_t from, int32_t to, int32_t n) {
    cpu_op *r = sill__cpu_record(q, CPU_KV_COPY, 0);
    if (!r || !sill__cpu_require(q, kv && from >= 0 && from < kv->shape.n_blocks && to >= 0 && to < kv->shape.n_blocks &&
                                        n >= 0 && n <= SILL__KV_BLOCK,
                                 SILL_EINVAL, "copy of %d positions of KV block %d to %d", n, from, to))
        return;
    r->u.copy = (cpu_copy){kv, from, to, n};
    if (from != to && n > 0) q->n_ops++;
}

/* Whole tiles: positions lie across K's rows, and those at n and above are never read. */
void sill__cpu_walk_kv_copy(const cpu_walk *w, cpu_op *op) {
    const cpu_copy *c = &op->u.copy;
    int32_t heads = c->kv->shape.n_kv_heads;
    (void)w;
    for (int32_t t; (t = sill__cpu_take(&op->next[0], c->kv->shape.n_layers * heads)) >= 0;) {
        uint8_t *tiles = sill__kv_tiles(c->kv, t / heads, t % heads);
        memcpy(tiles + (size_t)c->to * c->kv->stride, tiles + (size_t)c->from * c->kv->stride, c->kv->tile);
    }
}
