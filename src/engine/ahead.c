/*
 * ahead.c - steps computed before they are asked for. When sequences are decoded one token after another and each token
 * was the best of the step in front, the next steps are likely to be the same with the best tokens of those in between:
 * a device that runs steps by itself gets them at once, and takes their tokens from its own results. A step that is then
 * asked for costs only the wait. One that is not is forgotten: what it wrote lies behind the ends of its sequences, where
 * nothing reads before the right step has written there.
 *
 * The kernels are the same, so are the bits: a row does not depend on when or with which others it is computed.
 */
#include "engine/internal.h"

static bool is_decoding(const sill__span *p) {
    return p->n == 1 && p->first_out >= 1 && !p->n_last_targets && !p->want_logits && !p->all_logits && !p->want_hidden &&
           !p->want_scores && p->n_top >= 1 && p->n_top <= SILL__AHEAD_TOP;
}

static const int32_t *ids_of(const sill_session *s, const sill__ahead_step *step) {
    return (const int32_t *)(void *)(s->out + sill__top_at(&s->layout, s->layout.top_ids, SILL__PASS_TOP, step->ring));
}

static const float *logprobs_of(const sill_session *s, const sill__ahead_step *step) {
    return (const float *)(void *)(s->out + sill__top_at(&s->layout, s->layout.top_logprobs, SILL__PASS_TOP, step->ring));
}

/* Row of step A whose sequence the span continues by its best token, or -1. */
static int32_t row_continued(const sill_session *s, const sill__ahead_step *a, const sill__span *p) {
    for (int32_t i = 0; i < a->n; i++)
        if (a->seqs[i] == p->seq && a->lengths[i] + 1 == s->seqs[p->seq].n_tokens)
            return ids_of(s, a)[(size_t)i * (size_t)a->n_top] == p->tokens[0] ? i : -1;
    return -1;
}

/* All spans go on from the last step by its best tokens. */
static bool goes_on(const sill_session *s, const sill__span *spans, int32_t n_spans) {
    for (int32_t i = 0; i < n_spans; i++)
        if (row_continued(s, &s->ahead.last, &spans[i]) < 0) return false;
    return true;
}

static void give_up(sill_session *s) {
    s->ahead.n_lost += (uint64_t)s->ahead.n_steps;
    s->ahead.n_steps = 0;
}

static int32_t next_ring(sill_session *s) { return s->ahead.ring = (s->ahead.ring + 1) % SILL__AHEAD_RINGS; }

/* Submits the step that follows `front` for its sequences that have room in their blocks. False when it cannot. */
static bool submit_next(sill_session *s, const sill__ahead_step *front, sill__ahead_step *next) {
    sill__ahead *a = &s->ahead;
    const sill_model *m = s->model;
    const sill__layout *l = &s->layout;
    *next = (sill__ahead_step){.n_top = front->n_top};
    for (int32_t i = 0; i < front->n; i++) {
        const sill__seq_state *q = &s->seqs[front->seqs[i]];
        int32_t length = front->lengths[i] + 1;
        if (!q->used || length >= l->n_ctx || length >= q->n_blocks * SILL__KV_BLOCK) continue;
        a->tokens[next->n] = 0;
        a->positions[next->n] = length;
        a->rows[next->n] = next->n;
        a->from[next->n] = i * front->n_top;
        a->runs[next->n] = (sill__run){.first = next->n, .n = 1, .pos = length, .blocks = q->blocks};
        next->seqs[next->n] = front->seqs[i];
        next->lengths[next->n++] = length;
    }
    if (next->n < front->n) return false; /* the next steps would be asked for with them */
    next->ring = next_ring(s);
    a->batch = (sill__batch){.n_tokens = next->n, .n_runs = next->n, .n_out = next->n, .tokens = a->tokens,
                             .positions = a->positions, .runs = a->runs, .out_rows = a->rows};
    m->ops->begin(s->queue, &a->batch);
    m->ops->take_ids(s->queue, (sill__ref){s->out_buf, sill__top_at(l, l->top_ids, SILL__PASS_TOP, front->ring)}, a->from);
    sill__model_forward(m, s->queue, &s->work);
    m->ops->head(s->queue, &(sill__op_head){
        .in = s->work.x, .norm = m->norm_f, .w = m->head, .bias = m->head_b, .n_vocab = l->n_vocab, .n_top = next->n_top,
        .top_ids = {s->out_buf, sill__top_at(l, l->top_ids, SILL__PASS_TOP, next->ring)},
        .top_logprobs = {s->out_buf, sill__top_at(l, l->top_logprobs, SILL__PASS_TOP, next->ring)}});
    /* An error stays in the queue where the next step finds it only if it is told by that one's submit or wait. */
    return m->ops->submit(s->queue, &next->ticket, NULL) == SILL_OK;
}

/* Keeps SILL__AHEAD steps under way behind `front`. */
static void extend(sill_session *s, const sill__ahead_step *front) {
    sill__ahead *a = &s->ahead;
    while (a->n_steps < SILL__AHEAD) {
        const sill__ahead_step *tail = a->n_steps ? &a->steps[a->n_steps - 1] : front;
        if (!submit_next(s, tail, &a->steps[a->n_steps])) return;
        a->n_steps++;
    }
}

void sill__ahead_forget(sill_session *s, sill__seq seq) {
    sill__ahead *a = &s->ahead;
    for (int32_t i = 0; i < a->last.n; i++)
        if (a->last.seqs[i] == seq) {
            a->last.n = 0;
            give_up(s);
        }
}

bool sill__ahead_begin(sill_session *s, const sill__span *spans, int32_t n_spans) {
    sill__ahead *a = &s->ahead;
    bool decoding = s->model->ops->take_ids && !s->out_copy && n_spans <= SILL__AHEAD_SPANS, greedy;
    give_up(s);
    for (int32_t i = 0; i < n_spans && decoding; i++) decoding = is_decoding(&spans[i]) && spans[i].n_top == spans[0].n_top;
    greedy = decoding && a->last.n && goes_on(s, spans, n_spans);
    a->last.n = 0;
    if (!decoding) return false;
    a->last = (sill__ahead_step){.n = n_spans, .n_top = spans[0].n_top, .ring = next_ring(s)};
    for (int32_t i = 0; i < n_spans; i++) {
        a->last.seqs[i] = spans[i].seq;
        a->last.lengths[i] = s->seqs[spans[i].seq].n_tokens;
    }
    return greedy;
}

void sill__ahead_follow(sill_session *s) { extend(s, &s->ahead.last); }

bool sill__ahead_take(sill_session *s, sill__span *spans, int32_t n_spans, sill_status *st, sill_error *err) {
    sill__ahead *a = &s->ahead;
    if (a->n_steps == 0 || a->steps[0].n != n_spans) return false;
    sill__ahead_step step = a->steps[0];
    for (int32_t i = 0; i < n_spans; i++)
        if (!is_decoding(&spans[i]) || spans[i].n_top != step.n_top || spans[i].seq != step.seqs[i]) return false;
    if (!goes_on(s, spans, n_spans)) return false;
    memmove(a->steps, a->steps + 1, (size_t)--a->n_steps * sizeof a->steps[0]);
    extend(s, &step);
    *st = s->model->ops->wait(s->queue, step.ticket, err);
    if (*st != SILL_OK) {
        give_up(s);
        a->last.n = 0;
        return true;
    }
    a->last = step;
    a->n_used++;
    for (int32_t i = 0; i < n_spans; i++) {
        sill__span *p = &spans[i];
        s->seqs[p->seq].n_tokens++;
        p->target_logprobs = p->logits = p->lse = p->hidden = p->scores = NULL;
        p->top_ids = ids_of(s, &step) + (size_t)i * (size_t)step.n_top;
        p->top_logprobs = logprobs_of(s, &step) + (size_t)i * (size_t)step.n_top;
    }
    return true;
}
