/*
 * cpu_head.c - the output head: logits of the wanted rows, and of them log-sum-exp, log-probabilities of targets and the k
 * best, without keeping the logits unless they are asked for. Rows go in passes of 64; a task is a fixed chunk of the
 * vocabulary (about 256 logits) for all rows of the pass, which leaves a partial maximum and sum a row. These are
 * joined in the order of the chunks, so that nothing depends on threads, on the other rows, or on what is kept.
 */
#include "backend/cpu/cpu.h"

#include <math.h>

void sill__cpu_head(sill__queue *q, const sill__op_head *op) {
    const sill__batch *b = q->batch;
    cpu_op *r = sill__cpu_record(q, CPU_HEAD, b ? b->n_out : 0);
    if (!r || !sill__cpu_check_weight(q, op->w, "head", false) ||
        !sill__cpu_require(q, op->n_vocab > 0 && op->n_vocab <= op->w->rows, SILL_EINVAL,
                           "head: a vocabulary of %d, the weight has %d rows", op->n_vocab, op->w->rows) ||
        !sill__cpu_require(q, op->n_vocab <= q->max_vocab, SILL_ERANGE,
                           "head: a vocabulary of %d, the queue is made for %d", op->n_vocab, q->max_vocab) ||
        !sill__cpu_require(q, op->n_top >= 0 && (op->n_top <= CPU_MAX_TOP || op->logits.buf), SILL_ERANGE,
                           "head: the %d best of each row; without kept logits at most %d", op->n_top, CPU_MAX_TOP) ||
        !sill__cpu_check_ref(q, "head input", op->in, b->n_tokens, op->w->cols, false) ||
        !sill__cpu_check_ref(q, "head bias", op->bias, 1, op->n_vocab, true) ||
        !sill__cpu_check_ref(q, "logits", op->logits, r->n, op->n_vocab, true) ||
        !sill__cpu_check_ref(q, "lse", op->lse, r->n, 1, true) ||
        !sill__cpu_check_ref(q, "top ids", op->top_ids, r->n, op->n_top, true) ||
        !sill__cpu_check_ref(q, "top logprobs", op->top_logprobs, r->n, op->n_top, true) ||
        !sill__cpu_check_norm(q, &op->norm, op->w->cols))
        return;
    if (op->target_starts && op->target_logprobs.buf) {
        const int32_t *starts = op->target_starts;
        for (int32_t i = 0; i < r->n; i++)
            if (!sill__cpu_require(q, starts[i] >= 0 && starts[i] <= starts[i + 1], SILL_EINVAL, "head: target starts"))
                return;
        if (!sill__cpu_check_ref(q, "target logprobs", op->target_logprobs, 1, starts[r->n], false)) return;
        for (int32_t t = starts[0]; t < starts[r->n]; t++)
            if (!sill__cpu_require(q, op->targets[t] >= 0 && op->targets[t] < op->n_vocab, SILL_ERANGE,
                                   "target id %d of a vocabulary of %d", op->targets[t], op->n_vocab))
                return;
    }
    r->own_rows = r->n <= CPU_OWN_ROWS && (size_t)r->n * (size_t)op->w->cols <= CPU_OWN_VALUES;
    r->u.head = *op;
    q->n_ops++;
}

/* ------------------------------------------------------------------ the best */

static bool better(float a, int32_t a_id, float b, int32_t b_id) { return a > b || (a == b && a_id < b_id); }

/* Puts a value in its place among the at most k best. NaN counts as the least of all; that there was one is seen in the
 * log-sum-exp, and so in the log-probabilities of the best. */
static void best_insert(cpu_best *best, int32_t *n, int32_t k, float value, int32_t id) {
    if (value != value) value = -INFINITY;
    int32_t at = *n;
    if (at == k && !better(value, id, best[k - 1].value, best[k - 1].id)) return;
    if (at < k) (*n)++;
    else at--;
    for (; at > 0 && better(value, id, best[at - 1].value, best[at - 1].id); at--) best[at] = best[at - 1];
    best[at] = (cpu_best){value, id};
}

/* Offers n logits, the first of them with id FIRST. `max` is their maximum. */
static void best_offer(cpu_best *best, int32_t *n_best, int32_t k, const float *x, int32_t n, int32_t first, float max) {
    if (*n_best == k && max < best[k - 1].value) return;
    for (int32_t i = 0; i < n; i++)
        if (*n_best < k || x[i] >= best[k - 1].value) best_insert(best, n_best, k, x[i], first + i);
}

/* ------------------------------------------------------------------- a pass */

typedef struct pass {
    int32_t first, rows;       /* output rows [first, first + rows) */
    int32_t n_panels, per;     /* panels that the vocabulary takes, and those of a chunk */
    int32_t n_chunks;
} pass;

static bool want_top(const sill__op_head *h) { return h->n_top > 0 && h->top_ids.buf; }
static bool best_from_tiles(const sill__op_head *h) { return want_top(h) && h->n_top <= CPU_MAX_TOP; }

/* What is taken from a row's logits [col, col + n) while they are at hand. */
static void reduce(const cpu_walk *w, const sill__op_head *h, const pass *p, int32_t i, int32_t chunk, const float *x,
                   int32_t col, int32_t n) {
    int32_t row = p->first + i;
    float *stats = w->q->stats + ((size_t)i * (size_t)w->q->max_chunks + (size_t)chunk) * 2;
    w->vec->softmax_stats(x, n, &stats[0], &stats[1]);
    if (h->logits.buf)
        memcpy(sill__cpu_f32(h->logits) + (size_t)row * (size_t)h->n_vocab + col, x, (size_t)n * sizeof *x);
    if (h->target_starts && h->target_logprobs.buf)
        for (int32_t t = h->target_starts[row]; t < h->target_starts[row + 1]; t++)
            if (h->targets[t] >= col && h->targets[t] < col + n)
                sill__cpu_f32(h->target_logprobs)[t] = x[h->targets[t] - col];
    if (best_from_tiles(h))
        best_offer(w->own->best + (size_t)i * CPU_MAX_TOP, &w->own->n_best[i], h->n_top, x, n, col, stats[0]);
}

static void chunk_of_vocabulary(const cpu_walk *w, const sill__op_head *h, const pass *p, const uint8_t *acts,
                                int32_t chunk) {
    const sill__cpu_mat *mat = &h->w->mat;
    const float *bias = sill__cpu_f32(h->bias);
    int32_t panel = chunk * p->per, end = SILL_MIN(panel + p->per, p->n_panels), col = panel * mat->nr;
    int32_t n = SILL_MIN(end * mat->nr, h->n_vocab) - col;
    size_t ld = (size_t)(end - panel) * (size_t)mat->nr;
    float *x = w->own->tile;
    float *origin = (float *)(void *)((uintptr_t)(void *)x - (uintptr_t)col * sizeof(float));
    w->mat->matmul(mat, acts, p->rows, panel, end, origin, ld);
    for (int32_t i = 0; i < p->rows; i++, x += ld) {
        if (bias) w->vec->epilogue(x, bias + col, SILL__ACT_NONE, n);
        reduce(w, h, p, i, chunk, x, col, n);
    }
}

static double join_stats(const cpu_walk *w, const pass *p, int32_t i) {
    const float *stats = w->q->stats + (size_t)i * (size_t)w->q->max_chunks * 2;
    double max = -INFINITY, sum = 0;
    for (int32_t c = 0; c < p->n_chunks; c++)
        if (!((double)stats[2 * c] <= max)) max = (double)stats[2 * c];
    if (max == -INFINITY) max = 0;
    /* A NaN among the logits is one in its chunk's sum, and so in this: every log-probability of the row is NaN then. */
    for (int32_t c = 0; c < p->n_chunks; c++) sum += (double)stats[2 * c + 1] * exp((double)stats[2 * c] - max);
    return max + log(sum);
}

/* The k best of a row out of the threads' lists. Returns how many there are. */
static int32_t best_of_lists(const cpu_walk *w, const sill__op_head *h, int32_t i, cpu_best *best) {
    int32_t n = 0;
    for (int t = 0; t < w->n; t++) {
        const cpu_own *own = &w->q->own[t];
        for (int32_t j = 0; j < own->n_best[i]; j++) {
            const cpu_best *b = &own->best[(size_t)i * CPU_MAX_TOP + (size_t)j];
            best_insert(best, &n, h->n_top, b->value, b->id);
        }
    }
    return n;
}

/* The next best of kept logits behind the last one written, at most CPU_MAX_TOP: for k of any size. */
static int32_t best_of_logits(const float *x, int32_t n_vocab, cpu_best last, int32_t k, cpu_best *best) {
    int32_t n = 0;
    k = SILL_MIN(k, CPU_MAX_TOP);
    for (int32_t c = 0; c < n_vocab; c++) {
        float value = x[c] == x[c] ? x[c] : -INFINITY;
        if (better(last.value, last.id, value, c)) best_insert(best, &n, k, value, c);
    }
    return n;
}

static void write_best(const cpu_walk *w, const sill__op_head *h, int32_t i, int32_t row, double lse) {
    size_t at = (size_t)row * (size_t)h->n_top;
    int32_t *ids = (int32_t *)(void *)(h->top_ids.buf->data + h->top_ids.at) + at, done = 0;
    float *logprobs = h->top_logprobs.buf ? sill__cpu_f32(h->top_logprobs) + at : NULL;
    cpu_best *best = (cpu_best *)(void *)w->own->tile, last = {INFINITY, -1};
    while (done < h->n_top) {
        int32_t n;
        if (!best_from_tiles(h))
            n = best_of_logits(sill__cpu_f32(h->logits) + (size_t)row * (size_t)h->n_vocab, h->n_vocab, last,
                               h->n_top - done, best);
        else
            n = done ? 0 : best_of_lists(w, h, i, best);
        if (n == 0) break;
        for (int32_t j = 0; j < n; j++, done++) {
            ids[done] = best[j].id;
            if (logprobs) logprobs[done] = (float)((double)best[j].value - lse);
        }
        last = best[n - 1];
    }
    for (; done < h->n_top; done++) { /* the vocabulary is smaller */
        ids[done] = -1;
        if (logprobs) logprobs[done] = -INFINITY;
    }
}

static void finish_row(const cpu_walk *w, const sill__op_head *h, const pass *p, int32_t i) {
    int32_t row = p->first + i;
    double lse = join_stats(w, p, i);
    if (h->lse.buf) sill__cpu_f32(h->lse)[row] = (float)lse;
    if (h->target_starts && h->target_logprobs.buf)
        for (int32_t t = h->target_starts[row]; t < h->target_starts[row + 1]; t++) {
            float *x = &sill__cpu_f32(h->target_logprobs)[t];
            *x = (float)((double)*x - lse);
        }
    if (want_top(h)) write_best(w, h, i, row, lse);
}

void sill__cpu_walk_head(const cpu_walk *w, cpu_op *op) {
    const sill__op_head *h = &op->u.head;
    int32_t nr = h->w->mat.nr;
    pass p = {.n_panels = (h->n_vocab + nr - 1) / nr, .per = SILL_MAX(1, CPU_HEAD_COLS / nr)};
    p.n_chunks = (p.n_panels + p.per - 1) / p.per;
    for (int32_t k = 0; k * CPU_ROW_BLOCK < op->n; k++) {
        p.first = k * CPU_ROW_BLOCK;
        p.rows = SILL_MIN(CPU_ROW_BLOCK, op->n - p.first);
        for (int32_t i = 0; i < p.rows; i++) w->own->n_best[i] = 0;
        const uint8_t *acts = sill__cpu_prepare(w, op, h->w, h->in, SILL__ROWS_OUT, &h->norm, p.first, p.rows,
                                                &op->next[0], p.first);
        for (int32_t c; (c = sill__cpu_take_share(w, k * p.n_chunks, p.n_chunks)) >= 0;)
            chunk_of_vocabulary(w, h, &p, acts, c - k * p.n_chunks);
        sill__cpu_barrier(w);
        for (int32_t i; (i = sill__cpu_take(&op->next[2], p.first + p.rows)) >= 0;) finish_row(w, h, &p, i - p.first);
        if (p.first + p.rows < op->n) sill__cpu_barrier(w);
    }
}
