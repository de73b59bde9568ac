/*
 * score.c - log-probability of every token of every row given those before it.
 *
 * A text longer than the session is scored in windows of n_ctx tokens that start `stride` apart: the first scores all
 * its tokens, each further one those that no window before it has scored, with at least n_ctx - stride tokens before
 * them. So every token is scored exactly once. With stride = n_ctx the windows have nothing in common, and the first token
 * of each is not scored. A BOS stands in front of the text only, not of later windows.
 */
#include "task/task.h"

#include <math.h>

typedef struct score_row {
    bool used, truncated, overflowed;
    uint64_t index;
    sill__ids ids;        /* the front (BOS), then the text's */
    float *logprobs;      /* (cap) of ids */
    size_t cap, front;
    size_t begin, scored; /* next window's start; ids before `scored` belong to windows that were started */
    int32_t n_open, n_windows;
} score_row;

typedef struct score {
    const sill_model *model;
    sill_score_options o;
    int32_t n_ctx, stride, front_id, n_rows;
    score_row *rows, *current; /* current: the row whose windows are being started */
    sill_next_fn next;
    sill_scored_fn done;
    void *user;
} score;

static sill_status call_done(score *s, const sill_scored *r, sill_error *err) {
    return s->done(s->user, r) ? sill__fail(err, SILL_ECANCELLED, "cancelled by the caller") : SILL_OK;
}

static sill_status row_failed(score *s, uint64_t index, const sill_error *why, sill_error *err) {
    sill_scored r = {.index = index, .status = why->code, .error = why->msg};
    return call_done(s, &r, err);
}

static sill_status deliver(score *s, score_row *row, sill_error *err) {
    sill_scored r = {.index = row->index, .ids = row->ids.p + row->front, .logprobs = row->logprobs + row->front,
                     .n_ids = row->ids.n - row->front, .n_windows = row->n_windows, .truncated = row->truncated};
    sill_status st;
    row->used = false;
    if (row->overflowed) {
        sill_error why = {0};
        sill__overflowed("the log-probability of a token", NAN, &why);
        return row_failed(s, row->index, &why, err);
    }
    for (size_t i = 0; i < row->ids.n; i++) {
        bool first = s->stride == s->n_ctx ? i % (size_t)s->stride == 0 : i == 0;
        if (first) row->logprobs[i] = NAN;
        else r.sum_logprob += (double)row->logprobs[i];
        r.n_scored += !first;
    }
    st = call_done(s, &r, err);
    return st;
}

/* Reads a row into a slot. The errors are the row's. */
static sill_status read_row(score *s, const sill_row *in, score_row *row, sill_error *why) {
    sill_status st;
    size_t bytes;
    row->index = in->index;
    row->truncated = row->overflowed = false;
    row->ids.n = row->front = row->begin = row->scored = 0;
    row->n_open = row->n_windows = 0;
    if (s->o.bos) {
        row->front = 1;
        if ((st = sill__ids_put(&row->ids, &s->front_id, 1, why)) != SILL_OK) return st;
    }
    if ((st = sill__row_ids(s->model, in, s->o.tokenize_flags, &row->ids, why)) != SILL_OK) return st;
    if (row->ids.n > (size_t)s->n_ctx) {
        if (s->o.long_policy == SILL_LONG_ERROR)
            return sill__fail(why, SILL_ERANGE, "the text has %zu tokens, more than the %d positions of the session; "
                              "shorten it or choose the long policy window or truncate (--long window)", row->ids.n, s->n_ctx);
        if (s->o.long_policy == SILL_LONG_TRUNCATE) {
            row->ids.n = (size_t)s->n_ctx;
            row->truncated = true;
        }
    }
    if (row->ids.n > row->cap) {
        float *p = sill__mul(row->ids.n, sizeof *p, &bytes) ? sill__realloc(row->logprobs, bytes) : NULL;
        if (!p) return sill__fail(why, SILL_ENOMEM, "no memory for %zu log-probabilities", row->ids.n);
        row->logprobs = p;
        row->cap = row->ids.n;
    }
    return SILL_OK;
}

/* The next window of the current row as a lane. */
static void next_window(score *s, sill__lane *lane) {
    score_row *row = s->current;
    size_t begin = row->begin, end = SILL_MIN(begin + (size_t)s->n_ctx, row->ids.n), first = SILL_MAX(row->scored, begin + 1);
    lane->tokens = row->ids.p + begin;
    lane->n = (int32_t)(end - 1 - begin);
    lane->first_out = (int32_t)(first - 1 - begin);
    lane->targets = row->ids.p + first;
    lane->max_length = lane->n;
    lane->user = row;
    lane->index = row->n_windows++; /* starts at index * stride */
    row->n_open++;
    row->scored = end;
    row->begin += (size_t)s->stride;
    if (end == row->ids.n || row->ids.n - row->begin < 2) s->current = NULL; /* one token follows nothing in its window */
}

static sill_status next_lane(void *user, sill__lane *lane, bool *got, sill_error *err) {
    score *s = user;
    sill_status st;
    while (!s->current) {
        sill_row in;
        sill_error why = {0};
        score_row *row = NULL;
        if ((st = sill__row_next(s->next, s->user, &in, got, err)) != SILL_OK || !*got) return st;
        for (int32_t i = 0; i < s->n_rows && !row; i++)
            if (!s->rows[i].used) row = &s->rows[i];
        if (!row) return SILL__BUG(err, "no slot for a row");
        if ((st = read_row(s, &in, row, &why)) != SILL_OK) {
            if (sill__is_fatal(st)) {
                if (err) *err = why;
                return st;
            }
            st = row_failed(s, in.index, &why, err);
        } else if (row->ids.n < 2) { /* nothing that follows anything */
            st = deliver(s, row, err);
        } else {
            row->used = true;
            s->current = row;
        }
        if (st != SILL_OK) return st;
    }
    next_window(s, lane);
    *got = true;
    return SILL_OK;
}

static sill_status refuse(void *user, sill__lane *lane, int64_t need, int64_t have, sill_error *err) {
    (void)user;
    (void)lane;
    (void)need;
    (void)have;
    return SILL__BUG(err, "a window is longer than the session"); /* the pool always holds n_ctx positions */
}

static sill_status rows_done(void *user, sill__lane *lane, const sill__span *span, int32_t at, bool last,
                             sill__fed *then, sill_error *err) {
    score *s = user;
    score_row *row = lane->user;
    if (span->targets) {
        size_t to = (size_t)lane->index * (size_t)s->stride + (size_t)(at + span->first_out) + 1;
        memcpy(row->logprobs + to, span->target_logprobs, (size_t)(span->n - span->first_out) * sizeof(float));
        for (int32_t i = 0; i < span->n - span->first_out; i++)
            if (!sill__is_logprob(span->target_logprobs[i])) row->overflowed = true;
    }
    if (!last) return SILL_OK;
    *then = SILL__FED_DONE;
    row->n_open--;
    return row->n_open == 0 && row != s->current ? deliver(s, row, err) : SILL_OK;
}

static sill_status check_options(score *s, sill_error *err) {
    const sill_score_options *o = &s->o;
    if (o->long_policy == SILL_LONG_DEFAULT) s->o.long_policy = SILL_LONG_WINDOW;
    if (s->o.long_policy != SILL_LONG_ERROR && s->o.long_policy != SILL_LONG_TRUNCATE && s->o.long_policy != SILL_LONG_WINDOW)
        return sill__fail(err, SILL_EINVAL, "a long text can be scored in windows, truncated or refused, not split");
    if (s->n_ctx < 2) return sill__fail(err, SILL_EINVAL, "scoring needs a session of at least 2 positions");
    s->stride = o->stride ? o->stride : s->n_ctx / 2;
    if (s->stride < 1 || s->stride > s->n_ctx)
        return sill__fail(err, SILL_ERANGE, "stride is %d, expected 1 to %d (the session's positions)", s->stride, s->n_ctx);
    s->front_id = sill__start_id(s->model);
    if (o->bos && s->front_id < 0)
        return sill__fail(err, SILL_EINVAL, "bos was asked for, and the model has no BOS or EOS token");
    if (!s->model->head)
        return sill__fail(err, SILL_EUNSUPPORTED, "the model has no language-model head, only a classification head: it "
                          "cannot score");
    return SILL_OK;
}

sill_status sill_score(sill_session *session, const sill_score_options *options, sill_next_fn next, sill_scored_fn done,
                       void *user, sill_error *err) {
    if (!session || !next || !done)
        return sill__fail(err, SILL_EINVAL, "sill_score: session, next and done must not be NULL");
    score s = {.model = sill__session_model(session), .next = next, .done = done, .user = user,
               .n_ctx = sill__session_n_ctx(session), .n_rows = sill__session_max_sequences(session) + 2};
    sill_status st = sill__options_read(options, &s.o, sizeof s.o, "sill_score_options", err);
    if (st == SILL_OK) st = check_options(&s, err);
    if (st != SILL_OK) return st;
    s.rows = sill__calloc((size_t)s.n_rows, sizeof *s.rows);
    if (!s.rows) return sill__fail(err, SILL_ENOMEM, "no memory for %d rows", s.n_rows);
    sill__task task = {.user = &s, .next = next_lane, .refuse = refuse, .rows = rows_done};
    st = sill__sched_run(session, &task, err);
    for (int32_t i = 0; i < s.n_rows; i++) {
        sill__ids_free(&s.rows[i].ids);
        sill__free(s.rows[i].logprobs);
    }
    sill__free(s.rows);
    return st;
}
