/*
 * ahead.c - steps computed before they are asked for. Where all sequences of a step go on by the token that it chooses, the
 * best one or one that the device draws, the next steps are known but for that token: a device that runs steps by itself
 * gets them at once, several in one submission, and takes their tokens from its own results. A step that is then asked for
 * costs only the wait. A sequence may end by what its tokens say: then its row in the steps under way is lost work, what
 * those wrote lies behind its end, where nothing reads before another has written there, and the rows of others hold. A
 * step that is not asked for at all is forgotten.
 *
 * How far: two submissions beyond the one waited for, of one step each at first, of more the longer all go on, so that
 * what may be in vain is a small share of what was used. Never beyond what the spans say (n_more), so the blocks that
 * sequences grow into are those that were reserved for them.
 *
 * The kernels are the same, so are the bits: a row does not depend on when or with which others it is computed.
 */
#include "engine/internal.h"

/* The next token follows from what the step itself chooses. */
static bool goes_on(const sill__span *p) {
    return p->n_more > 0 && (!p->targets || p->first_out >= p->n) && !p->n_last_targets && !p->want_logits && !p->all_logits &&
           !p->want_hidden && !p->want_scores && (p->draw || p->n_top >= 1) && p->n_top <= SILL__AHEAD_TOP;
}

static sill__places places_of(const sill_session *s, const sill__ahead_step *step) {
    return sill__result_places(&s->layout, s->ahead.draws ? SILL__PASS_DRAW : SILL__PASS_TOP, step->ring);
}

static const int32_t *ids_at(const sill_session *s, size_t at) { return (const int32_t *)(const void *)(s->out + at); }
static const float *floats_at(const sill_session *s, size_t at) { return (const float *)(const void *)(s->out + at); }

/* What row I of a step chose. */
static int32_t chosen(const sill_session *s, const sill__ahead_step *step, int32_t i) {
    const sill__places at = places_of(s, step);
    return s->ahead.draws ? ids_at(s, at.drawn_ids)[i] : ids_at(s, at.top_ids)[(size_t)i * (size_t)s->ahead.n_top];
}

static int32_t row_of(const sill__ahead_step *step, sill__seq seq) {
    for (int32_t i = 0; i < step->n; i++)
        if (step->seqs[i] == seq) return i;
    return -1;
}

static int32_t n_alive(const sill__ahead_step *step) {
    int32_t n = 0;
    for (int32_t i = 0; i < step->n; i++) n += step->seqs[i] >= 0;
    return n;
}

static void give_up(sill_session *s) {
    sill__ahead *a = &s->ahead;
    a->n_lost += (uint64_t)a->n_steps;
    if (a->n_steps) a->run = 0;
    a->n_steps = 0;
    a->error.code = SILL_OK;
    a->since = 0;
}

void sill__ahead_stop(sill_session *s) {
    give_up(s);
    s->ahead.last.n = 0;
}

static int32_t next_ring(sill_session *s) { return s->ahead.ring = (s->ahead.ring + 1) % SILL__AHEAD_RINGS; }

static bool has_block(sill_session *s, sill__seq_state *q, int32_t length) {
    while (q->n_blocks < sill__blocks_needed(length)) {
        const int32_t block = sill__blocks_take(&s->blocks);
        if (block < 0) return false;
        q->blocks[q->n_blocks++] = block;
    }
    return true;
}

/* The step that follows `front`, as a batch. False where there is none. */
static bool make_next(sill_session *s, const sill__ahead_step *front, sill__ahead_step *next) {
    sill__ahead *a = &s->ahead;
    next->n = 0;
    for (int32_t i = 0; i < front->n; i++) {
        if (front->seqs[i] < 0) continue;
        sill__seq_state *q = &s->seqs[front->seqs[i]];
        const int32_t length = front->ends[i];
        if (length >= s->layout.n_ctx || !has_block(s, q, length + 1)) return false;
        a->tokens[next->n] = 0;
        a->positions[next->n] = length;
        a->rows[next->n] = next->n;
        a->from[next->n] = a->draws ? i : i * a->n_top;
        a->runs[next->n] = (sill__run){.first = next->n, .n = 1, .pos = length, .blocks = q->blocks};
        next->draws[next->n] = front->draws[i];
        next->draws[next->n].step++;
        next->seqs[next->n] = front->seqs[i];
        next->ends[next->n++] = length + 1;
    }
    a->batch = (sill__batch){.n_tokens = next->n, .n_runs = next->n, .n_out = next->n, .tokens = a->tokens,
                             .positions = a->positions, .runs = a->runs, .out_rows = a->rows};
    return next->n > 0;
}

/* Submits up to N steps behind `front` at once. */
static bool submit(sill_session *s, const sill__ahead_step *front, int32_t n) {
    sill__ahead *a = &s->ahead;
    const sill__backend *ops = s->model->ops;
    sill__ticket ticket = 0;
    int32_t made = 0;
    for (; made < n; made++) {
        sill__ahead_step *next = &a->steps[a->n_steps + made];
        if (!make_next(s, front, next)) break;
        if (made == 0) ops->begin(s->queue, &a->batch);
        else if (!ops->begin_behind || !ops->begin_behind(s->queue, &a->batch)) break;
        const sill__places of = places_of(s, front);
        ops->take_ids(s->queue, (sill__ref){s->out_buf, a->draws ? of.drawn_ids : of.top_ids}, a->from);
        next->ring = next_ring(s);
        next->opens = made == 0;
        const sill__places at = places_of(s, next);
        sill__model_forward(s->model, s->queue, &s->work);
        sill__record_rows(s, &at, a->n_top, a->draws ? next->draws : NULL);
        front = next;
    }
    if (made == 0 || ops->submit(s->queue, &ticket, &a->error) != SILL_OK) return false;
    for (int32_t i = 0; i < made; i++) a->steps[a->n_steps + i].ticket = ticket;
    a->n_steps += made;
    a->n_submitted++;
    return true;
}

/* Steps of the next submission. */
static int32_t burst(const sill__ahead *a) {
    int32_t n = SILL_MIN(SILL_MAX(a->run / SILL__AHEAD_RUN, 1), SILL__AHEAD_BURST);
    while (n > 1 && a->seconds * n > a->patience) n--;
    return n;
}

/* Keeps two submissions under way behind `front`. */
static void extend(sill_session *s, const sill__ahead_step *front) {
    sill__ahead *a = &s->ahead;
    while (a->error.code == SILL_OK) {
        const sill__ahead_step *tail = a->n_steps ? &a->steps[a->n_steps - 1] : front;
        const int32_t n = burst(a), most = SILL_MIN(n, a->left - a->n_steps);
        int32_t under_way = 0;
        for (int32_t i = 0; i < a->n_steps; i++) under_way += a->steps[i].opens;
        if (most < 1 || a->n_steps > n || under_way >= 2 || !submit(s, tail, most)) return;
    }
}

void sill__ahead_forget(sill_session *s, sill__seq seq) {
    sill__ahead *a = &s->ahead;
    bool any = false;
    const int32_t last = row_of(&a->last, seq);
    if (last >= 0) a->last.seqs[last] = -1;
    for (int32_t k = 0; k < a->n_steps; k++) {
        const int32_t row = row_of(&a->steps[k], seq);
        if (row < 0) continue;
        a->steps[k].seqs[row] = -1;
        any = true;
    }
    if (any) a->run /= 2;
    if (n_alive(&a->last) == 0) sill__ahead_stop(s);
}

bool sill__ahead_begin(sill_session *s, const sill__span *spans, int32_t n_spans) {
    sill__ahead *a = &s->ahead;
    sill__ahead_stop(s);
    if (!s->model->ops->take_ids || n_spans > SILL__AHEAD_SPANS) return false;
    for (int32_t i = 0; i < n_spans; i++)
        if (!goes_on(&spans[i]) || spans[i].n_top != spans[0].n_top || !spans[i].draw != !spans[0].draw) return false;
    a->n_top = spans[0].n_top;
    a->draws = spans[0].draw != NULL;
    a->left = INT32_MAX;
    a->last.n = n_spans;
    a->last.ring = next_ring(s);
    for (int32_t i = 0; i < n_spans; i++) {
        a->last.seqs[i] = spans[i].seq;
        a->last.ends[i] = s->seqs[spans[i].seq].n_tokens + spans[i].n;
        a->last.draws[i] = spans[i].draw ? *spans[i].draw : (sill__sample_row){0};
        a->left = SILL_MIN(a->left, spans[i].n_more);
    }
    return true;
}

void sill__ahead_follow(sill_session *s) { extend(s, &s->ahead.last); }

static bool same_draw(const sill__sample_row *a, const sill__sample_row *b) {
    return a->temperature == b->temperature && a->top_p == b->top_p && a->min_p == b->min_p && a->top_k == b->top_k &&
           a->seed == b->seed && a->key == b->key && a->sequence == b->sequence && a->step == b->step;
}

/* The span is row `row` of what follows `front`. */
static bool follows(const sill_session *s, const sill__ahead_step *front, int32_t row, const sill__span *p) {
    const sill__ahead *a = &s->ahead;
    if (row < 0 || p->n != 1 || front->ends[row] != s->seqs[p->seq].n_tokens || chosen(s, front, row) != p->tokens[0] ||
        p->n_top != a->n_top || !p->draw != !a->draws || p->want_logits || p->all_logits || p->want_hidden || p->want_scores ||
        p->n_last_targets || (p->targets && p->first_out < p->n))
        return false;
    sill__sample_row drawn = front->draws[row];
    drawn.step++;
    return !p->draw || same_draw(&drawn, p->draw);
}

/* Waits for a step and hands it out; those of its submission behind it are then done too. */
static sill_status hand_out(sill_session *s, const sill__ahead_step *step, sill__span *spans, int32_t n_spans, sill_error *err) {
    sill__ahead *a = &s->ahead;
    const sill__places at = places_of(s, step);
    const size_t rows = (size_t)step->n * 4, tops = rows * (size_t)a->n_top;
    sill_status st = s->model->ops->wait(s->queue, step->ticket, err);
    if (st == SILL_OK && a->n_top) st = sill__fetch(s, at.top_ids, tops, err);
    if (st == SILL_OK && a->n_top) st = sill__fetch(s, at.top_logprobs, tops, err);
    if (st == SILL_OK && a->draws) st = sill__fetch(s, at.drawn_ids, rows, err);
    if (st == SILL_OK && a->draws) st = sill__fetch(s, at.drawn_logprobs, rows, err);
    for (int32_t i = 0; i < n_spans && st == SILL_OK; i++) {
        sill__span *p = &spans[i];
        const size_t row = (size_t)row_of(step, p->seq);
        s->seqs[p->seq].n_tokens++;
        p->target_logprobs = p->logits = p->lse = p->hidden = p->scores = p->top_logprobs = p->drawn_logprob = NULL;
        p->top_ids = p->drawn_id = NULL;
        if (a->n_top) p->top_ids = ids_at(s, at.top_ids) + row * (size_t)a->n_top;
        if (a->n_top) p->top_logprobs = floats_at(s, at.top_logprobs) + row * (size_t)a->n_top;
        if (a->draws) p->drawn_id = ids_at(s, at.drawn_ids) + row;
        if (a->draws) p->drawn_logprob = floats_at(s, at.drawn_logprobs) + row;
    }
    return st;
}

/* What a step takes, from one submission that was waited for to the next. */
static void measure(sill__ahead *a, bool opens) {
    if (opens) {
        const double now = sill__now();
        if (a->since > 0 && a->n_since > 0) a->seconds = (now - a->since) / a->n_since;
        a->since = now;
        a->n_since = 0;
    }
    a->n_since++;
}

bool sill__ahead_take(sill_session *s, sill__span *spans, int32_t n_spans, sill_status *st, sill_error *err) {
    sill__ahead *a = &s->ahead;
    if (a->last.n == 0 || (a->n_steps == 0 && a->error.code == SILL_OK)) return false;
    int32_t left = INT32_MAX;
    for (int32_t i = 0; i < n_spans; i++) {
        if (!follows(s, &a->last, row_of(&a->last, spans[i].seq), &spans[i])) return false;
        left = SILL_MIN(left, spans[i].n_more);
    }
    if (n_spans != n_alive(&a->last)) return false;
    if (a->n_steps == 0) { /* it should have been there */
        if (err) *err = a->error;
        *st = a->error.code;
        sill__ahead_stop(s);
        return true;
    }
    a->last = a->steps[0];
    a->left = left;
    memmove(a->steps, a->steps + 1, (size_t)--a->n_steps * sizeof a->steps[0]);
    a->n_used++;
    a->run = SILL_MIN(a->run + 1, SILL__AHEAD_RUN * SILL__AHEAD_BURST);
    extend(s, &a->last);
    *st = hand_out(s, &a->last, spans, n_spans, err);
    measure(a, a->last.opens);
    if (*st != SILL_OK) sill__ahead_stop(s);
    return true;
}

int32_t sill__session_n_ahead(const sill_session *s) { return s->ahead.n_steps; }
bool sill__session_is_ahead(const sill_session *s, sill__seq seq) {
    return s->ahead.n_steps > 0 && row_of(&s->ahead.last, seq) >= 0;
}
