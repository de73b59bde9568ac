/*
 * head.c - the output head: logits, log-sum-exp, log-probabilities of targets, the best few in order with ties by lower
 * id; with the logits kept and without.
 */
#include "backend/check/internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { FORM, VOCAB, COLS, N, TOP };

typedef struct shape { int32_t vocab, cols, n, top; } shape;
static const shape full[] = {{50257, 33, 9, 5}, {32767, 5, 3, 1}, {32768, 7, 2, 40}, {1009, 64, 17, 7}, {3, 9, 5, 5}};
static const shape quick[] = {{50257, 7, 3, 5}};
#define SPARE 3      /* rows of the matrix behind the vocabulary: never seen */
#define N_FORMS 22   /* of the table: each type once in each way it is computed with */
#define MAX_TOP 40
#define MAX_WORK 20000000

typedef struct head { sill__tensor *w; float *x, *norm; check_rows rows; int32_t starts[66], targets[3 * 66]; } head;

static bool pick_head(check_case *c, sill__check_level level, int i) {
    const shape *list = level == SILL__CHECK_FULL ? full : quick;
    int n = level == SILL__CHECK_FULL ? (int)SILL_ARRAY_LEN(full) : (int)SILL_ARRAY_LEN(quick), form = i / n;
    int last = level == SILL__CHECK_FULL || c->use ? 0 : 6; /* the quick check: types of short blocks */
    if (form >= N_FORMS || (last && form > last)) return false;
    const check_form *f = &sill__check_forms[form];
    const shape *s = &list[i % n];
    /* Blocks of 256 make large matrices: one of them is enough here, products have them all. */
    int32_t vocab = sill__type_get(f->type)->block == 256 && s->vocab > 32000 && s->vocab < 50000 ? s->vocab / 64 : s->vocab;
    c->v[FORM] = form, c->v[VOCAB] = vocab, c->v[COLS] = sill__chk_cols(f, s->cols), c->v[TOP] = s->top;
    c->large = vocab >= CHECK_LARGE;
    c->skip = !sill__chk_uses(c, f);
    c->v[N] = (int32_t)SILL_MAX(1, SILL_MIN(MAX_WORK / ((int64_t)vocab * c->v[COLS]), s->n));
    snprintf(c->name, sizeof c->name, "%s computed in %s, vocabulary %d, %d wide, %d rows", sill__type_get(f->type)->name, f->name,
             (int)vocab, (int)c->v[COLS], (int)c->v[N]);
    return true;
}

/* Every second row of the matrix is as the one before it: two ids with the same logit. */
static bool make_head(check_case *c) {
    const check_form *f = &sill__check_forms[c->v[FORM]];
    head *d = sill__arena_alloc(&c->arena, sizeof *d);
    check_rng r = {0x4ead + (uint64_t)c->v[FORM] * 17 + (uint64_t)c->v[VOCAB]};
    size_t vocab = (size_t)c->v[VOCAB], cols = (size_t)c->v[COLS], n = (size_t)c->v[N];
    char line[40];
    if (!d) return false;
    c->data = d;
    d->w = sill__chk_tensor(c, &r, f->type, vocab + SPARE, cols, 2 / sqrtf((float)cols));
    d->x = sill__chk_floats(c, &r, n * cols, 1.73f);
    d->norm = sill__chk_floats(c, &r, cols, 0.3f);
    if (!d->w || !d->x || !d->norm) return false;
    size_t row_bytes = sill__row_bytes(f->type, cols);
    uint8_t *p = (uint8_t *)(uintptr_t)d->w->data;
    for (size_t i = 1; i < vocab; i += 2) memcpy(p + i * row_bytes, p + (i - 1) * row_bytes, row_bytes);
    for (size_t i = 0; i < cols; i++) d->norm[i] += 1;
    sill__chk_rows_init(&d->rows, c->v[N], 1);
    for (int32_t i = 0, at = 0; i <= c->v[N]; i++) {
        d->starts[i] = at;
        for (int32_t k = 0; k < i % 4 && i < c->v[N]; k++) d->targets[at++] = (i * 7919 + k * (c->v[VOCAB] / 2) + c->v[VOCAB] - 1) % c->v[VOCAB];
    }
    c->types[0] = f->type;
    c->need = (sill__need){.types = c->types, .n_types = 1, .compute = f->compute, .norm = SILL__NORM_RMS, .n_heads = 1,
                           .n_kv_heads = 1, .head_dim = 64};
    c->n_variants = f->compute == SILL__COMPUTE_BLOCK_I8 && f->as == SILL__TYPE_F32 ? 2 : 1;
    double bound = sill__chk_product_bound(c->v[COLS]) * 2;
    if (f->compute == SILL__COMPUTE_BLOCK_I8) bound += f->as == SILL__TYPE_F32 ? 6.0 / 127 / sqrt((double)cols) : 0.04;
    if (f->compute == SILL__COMPUTE_INT8) bound += 6.0 / 127 / sqrt((double)cols);
    if (f->compute == SILL__COMPUTE_BF16) bound += 0x1p-6;
    snprintf(line, sizeof line, "logits, %s", f->name);
    size_t targets = (size_t)d->starts[c->v[N]], top = n * (size_t)c->v[TOP];
    sill__chk_add_out(c, line, n * vocab, bound, 0);
    for (int kept = 1; kept >= 0; kept--) { /* about 1 each, and sums over the vocabulary */
        sill__chk_add_out(c, "log-sum-exp", n, bound * 4 + 40 * 0x1p-24, 1);
        sill__chk_add_out(c, "log-probabilities of targets", targets, bound * 6 + 60 * 0x1p-24, 1);
        sill__chk_add_out(c, "best log-probabilities", top, bound * 6 + 60 * 0x1p-24, 1);
        sill__chk_add_out(c, "order of the best", n, 0, 1);
    }
    return true;
}

typedef struct best { float value; int32_t id; } best;
static int by_value(const void *a, const void *b) {
    const best *x = a, *y = b;
    return x->value > y->value ? -1 : x->value < y->value ? 1 : x->id < y->id ? -1 : x->id > y->id;
}

/* How many of the ids are not those that the row's own logits ask for. */
static float wrong_order(const float *logits, int32_t vocab, const int32_t *ids, int32_t n, best *sorted) {
    int32_t have = 0, wrong = 0;
    for (int32_t i = 0; i < vocab; i++) { /* the n best so far, kept sorted */
        best one = {logits[i], i};
        if (have == n && by_value(&one, &sorted[have - 1]) > 0) continue;
        int32_t at = have < n ? have++ : have - 1;
        while (at > 0 && by_value(&one, &sorted[at - 1]) < 0) {
            sorted[at] = sorted[at - 1];
            at--;
        }
        sorted[at] = one;
    }
    for (int32_t i = 0; i < n; i++) wrong += ids[i] != (i < have ? sorted[i].id : -1);
    return (float)wrong;
}

static void run_head(const check_case *c, check_bench *b, int variant, float *const *outs) {
    const head *d = c->data;
    const check_form *f = &sill__check_forms[c->v[FORM]];
    sill__weight_src src = sill__chk_source(f, d->w, SILL__ROLE_HEAD);
    const size_t n = (size_t)c->v[N], vocab = (size_t)c->v[VOCAB], top = n * (size_t)c->v[TOP];
    if (variant == 1) src.compute = SILL__COMPUTE_F32;
    sill__weight *w = sill__chk_import(b, &src);
    sill__ref none = {0}, in = sill__chk_put(b, d->x, n * (size_t)c->v[COLS]), norm = sill__chk_put(b, d->norm, (size_t)c->v[COLS]);
    sill__ref logits = sill__chk_room(b, n * vocab), lse = sill__chk_room(b, n), targets = sill__chk_room(b, c->outs[2].n);
    sill__ref ids = sill__chk_room(b, top), logprobs = sill__chk_room(b, top);
    int32_t *got = sill__alloc((top + 1) * sizeof *got);
    best sorted[MAX_TOP];
    if (!got) b->status = sill__fail(&b->err, SILL_ENOMEM, "no memory for ids");
    sill__chk_queue(b, c->v[N], c->v[COLS], c->v[VOCAB], SILL__PATH_BATCH);
    for (int kept = 1; kept >= 0; kept--) {
        const int at = kept ? 1 : 5;
        sill__chk_begin(b, &d->rows.batch);
        if (sill__chk_ok(b))
            b->ops->head(b->queue, &(sill__op_head){.in = in, .norm = {SILL__NORM_RMS, norm, none, 1e-5f}, .w = w, .n_vocab = c->v[VOCAB],
                                                    .logits = kept ? logits : none, .lse = lse, .target_starts = d->starts,
                                                    .targets = d->targets, .target_logprobs = targets, .n_top = c->v[TOP],
                                                    .top_ids = ids, .top_logprobs = logprobs});
        sill__chk_end(b);
        if (kept) sill__chk_read(b, logits, outs[0], n * vocab);
        sill__chk_read(b, lse, outs[at], n);
        sill__chk_read(b, targets, outs[at + 1], c->outs[2].n);
        sill__chk_read(b, logprobs, outs[at + 2], top);
        sill__chk_read(b, ids, got, top);
        for (size_t i = 0; sill__chk_ok(b) && i < n; i++)
            outs[at + 3][i] = wrong_order(outs[0] + i * vocab, c->v[VOCAB], got + i * (size_t)c->v[TOP], c->v[TOP], sorted);
    }
    sill__free(got);
}

/* The last row alone. */
static void bits_head(const check_case *c, check_bench *b, float *const *outs) {
    const head *d = c->data;
    const size_t vocab = (size_t)c->v[VOCAB], cols = (size_t)c->v[COLS], last = (size_t)c->v[N] - 1;
    float *got = sill__alloc((vocab + 1) * sizeof *got);
    check_rows rows;
    const sill__weight *w = b->weights[0]; /* as run_head left it */
    sill__ref none = {0}, in = sill__chk_put(b, d->x + last * cols, cols), norm = sill__chk_put(b, d->norm, cols);
    sill__ref logits = sill__chk_room(b, vocab), lse = sill__chk_room(b, 1);
    if (!got) b->status = sill__fail(&b->err, SILL_ENOMEM, "no memory for logits");
    sill__chk_queue(b, c->v[N], c->v[COLS], c->v[VOCAB], SILL__PATH_BATCH);
    sill__chk_rows_init(&rows, 1, 1);
    sill__chk_begin(b, &rows.batch);
    if (sill__chk_ok(b))
        b->ops->head(b->queue, &(sill__op_head){.in = in, .norm = {SILL__NORM_RMS, norm, none, 1e-5f}, .w = w, .n_vocab = c->v[VOCAB],
                                                .logits = logits, .lse = lse});
    sill__chk_end(b);
    sill__chk_read(b, logits, got, vocab);
    sill__chk_read(b, lse, got + vocab, 1);
    if (sill__chk_ok(b) && (memcmp(got, outs[0] + last * vocab, vocab * sizeof *got) || memcmp(got + vocab, outs[1] + last, sizeof *got)))
        snprintf(b->differs, sizeof b->differs, "a row alone has other bits than among %d", (int)c->v[N]);
    sill__free(got);
}

const check_kind sill__check_head = {"head", pick_head, make_head, run_head, bits_head, "same bits, head"};
