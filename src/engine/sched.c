/*
 * sched.c - see sched.h. Active lanes are at most max_sequences, and so are root lanes, those included that are parked
 * while their forks run. Each step takes lanes with one token left first (decoding), then prompts in the order of admission, cut to
 * the tokens that are left in the batch. Where steps are computed ahead, lanes that they do not have wait until those that
 * are under way are used up.
 */
#include "engine/sched.h"

enum { LANE_FREE, LANE_ACTIVE, LANE_PARKED };

typedef struct sill__sched {
    sill_session *s;
    const sill__task *task;
    int32_t n_lanes;         /* 2 * max_sequences */
    int32_t n_active, n_parked, n_roots, n_spans;
    int32_t available, reserved; /* blocks */
    uint64_t order;
    sill__lane *lanes, **by_order, **of_span;
    sill__span *spans;
    sill__lane waiting;      /* the next lane, pulled but not admitted */
    bool has_waiting, ended;
} sill__sched;

static sill__lane *free_lane(sill__sched *c) {
    for (int32_t i = 0; i < c->n_lanes; i++)
        if (c->lanes[i].state == LANE_FREE) return &c->lanes[i];
    return NULL;
}

/* Blocks that a sequence of `length` holds beyond those shared with the first `shared` positions of another. */
static int32_t own_blocks(int32_t length, int32_t shared) {
    return sill__blocks_needed(length) - shared / SILL__KV_BLOCK;
}

static int32_t fork_blocks(const sill__lane *root) {
    return root->fork_length ? own_blocks(root->fork_length, root->max_length) : 0;
}

static sill_status start(sill__sched *c, sill__lane *lane, sill_error *err) {
    lane->seq = lane->base >= 0 ? sill__seq_fork(c->s, lane->base, lane->base_n) : sill__seq_new(c->s);
    if (lane->seq < 0) return SILL__BUG(err, "an admitted lane finds no sequence or block");
    lane->state = LANE_ACTIVE;
    lane->at = 0;
    lane->order = c->order++;
    c->n_active++;
    c->reserved += lane->reserved;
    return SILL_OK;
}

/* Starts forks of parked lanes while they fit. */
static sill_status admit_forks(sill__sched *c, sill_error *err) {
    for (int32_t i = 0; i < c->n_lanes && c->n_parked; i++) {
        sill__lane *parent = &c->lanes[i];
        if (parent->state != LANE_PARKED) continue;
        while (parent->next_fork < parent->n_forks && c->n_active < sill__session_max_sequences(c->s)) {
            int32_t need = parent->lent ? fork_blocks(parent) : 0;
            if (need > c->available - c->reserved) break;
            sill__lane *child = free_lane(c);
            if (!child) break;
            memset(child, 0, sizeof *child);
            sill_status st = c->task->fork(c->task->user, parent, parent->next_fork, child, err);
            if (st != SILL_OK) return st;
            child->base = parent->seq;
            child->base_n = sill__seq_length(c->s, parent->seq);
            child->parent = parent;
            child->max_length = parent->fork_length;
            child->lent = !parent->lent;
            child->reserved = need;
            parent->lent = true;
            parent->next_fork++;
            parent->n_children++;
            if ((st = start(c, child, err)) != SILL_OK) return st;
        }
    }
    return SILL_OK;
}

/* Pulls and starts new lanes while they fit. */
static sill_status admit_roots(sill__sched *c, sill_error *err) {
    sill_status st;
    while (c->n_active < sill__session_max_sequences(c->s) && c->n_roots < sill__session_max_sequences(c->s)) {
        sill__lane *w = &c->waiting;
        if (!c->has_waiting) {
            bool got = false;
            if (c->ended) return SILL_OK;
            memset(w, 0, sizeof *w);
            w->base = -1;
            if ((st = c->task->next(c->task->user, w, &got, err)) != SILL_OK) return st;
            if (!got) {
                c->ended = true;
                return SILL_OK;
            }
            c->has_waiting = true;
            w->reserved = own_blocks(w->max_length, w->base >= 0 ? w->base_n : 0) + fork_blocks(w);
        }
        if (w->reserved > c->available || w->max_length > sill__session_n_ctx(c->s) ||
            w->fork_length > sill__session_n_ctx(c->s)) {
            int64_t need = SILL_MAX((int64_t)w->max_length, w->fork_length);
            int64_t have = SILL_MIN((int64_t)c->available * SILL__KV_BLOCK, sill__session_n_ctx(c->s));
            c->has_waiting = false;
            if ((st = c->task->refuse(c->task->user, w, need, have, err)) != SILL_OK) return st;
            continue;
        }
        if (w->reserved > c->available - c->reserved) return SILL_OK;
        sill__lane *lane = free_lane(c);
        if (!lane) return SILL__BUG(err, "no lane is free");
        *lane = *w;
        c->has_waiting = false;
        c->n_roots++;
        if ((st = start(c, lane, err)) != SILL_OK) return st;
    }
    return SILL_OK;
}

/* Adds as much of the lane to the step as the budgets allow. */
static void add_span(sill__sched *c, sill__lane *lane, int32_t *tokens, int32_t *targets, int32_t *logits) {
    int32_t n = SILL_MIN(lane->n - lane->at, *tokens), wanted;
    if (lane->all_logits) n = SILL_MIN(n, *logits);
    for (;; n--) {
        if (n <= 0) return;
        bool last = lane->at + n == lane->n;
        wanted = (last ? lane->n_last_targets : 0);
        if (lane->targets) wanted += SILL_MAX(0, lane->at + n - SILL_MAX(lane->first_out, lane->at));
        if (wanted <= *targets) break;
    }
    bool last = lane->at + n == lane->n;
    sill__span *p = &c->spans[c->n_spans];
    memset(p, 0, sizeof *p);
    p->seq = lane->seq;
    p->tokens = lane->tokens + lane->at;
    p->n = n;
    p->first_out = n;
    p->all_hidden = lane->all_hidden;
    p->all_logits = lane->all_logits;
    if (lane->all_logits) *logits -= n;
    if (lane->targets && lane->at + n > lane->first_out) {
        int32_t first = SILL_MAX(lane->first_out, lane->at);
        p->first_out = first - lane->at;
        p->targets = lane->targets + (first - lane->first_out);
    }
    if (last) {
        p->last_targets = lane->last_targets;
        p->n_last_targets = lane->n_last_targets;
        p->n_top = lane->n_top;
        p->want_logits = lane->want_logits;
        p->want_hidden = lane->want_hidden;
        p->want_scores = lane->want_scores;
        p->draw = lane->draw ? &lane->sample : NULL;
        p->n_last = 1 + lane->n_guess;
        if (lane->goes_on) p->n_more = SILL_MAX(0, lane->max_length - sill__seq_length(c->s, lane->seq) - n);
    }
    c->of_span[c->n_spans++] = lane;
    *tokens -= n;
    *targets -= wanted;
}

static bool decodes(const sill__lane *lane) { return lane->n - lane->at - lane->n_guess == 1; }

/* Guesses for those of the n lanes by order that take them, in the rows of outputs and tokens that lanes leave. */
static sill_status ask_guesses(sill__sched *c, int32_t n, sill_error *err) {
    const int32_t room = SILL_MIN(sill__session_max_sequences(c->s), sill__session_batch_tokens(c->s)) - c->n_active;
    int32_t n_asked = 0;
    for (int32_t i = 0; i < n; i++)
        if (c->by_order[i]->guesses && decodes(c->by_order[i])) c->of_span[n_asked++] = c->by_order[i];
    return n_asked && room > 0 ? c->task->guess(c->task->user, c->of_span, n_asked, room, err) : SILL_OK;
}

static sill_status build(sill__sched *c, sill_error *err) {
    int32_t tokens = sill__session_batch_tokens(c->s), targets = sill__session_max_targets(c->s), n = 0;
    int32_t logits = sill__session_max_sequences(c->s);
    const bool ahead = sill__session_n_ahead(c->s) > 0;
    for (int32_t i = 0; i < c->n_lanes; i++) {
        sill__lane *lane = &c->lanes[i];
        if (lane->state != LANE_ACTIVE || (ahead && !sill__session_is_ahead(c->s, lane->seq))) continue;
        int32_t at = n++;
        for (; at > 0 && c->by_order[at - 1]->order > lane->order; at--) c->by_order[at] = c->by_order[at - 1];
        c->by_order[at] = lane;
    }
    sill_status st = c->task->guess ? ask_guesses(c, n, err) : SILL_OK;
    if (st != SILL_OK) return st;
    c->n_spans = 0;
    for (int32_t i = 0; i < n; i++)
        if (decodes(c->by_order[i])) add_span(c, c->by_order[i], &tokens, &targets, &logits);
    for (int32_t i = 0; i < n; i++)
        if (!decodes(c->by_order[i])) add_span(c, c->by_order[i], &tokens, &targets, &logits);
    if (c->n_spans < c->n_active) /* others want to join */
        for (int32_t i = 0; i < c->n_spans; i++) c->spans[i].n_more = 0;
    return SILL_OK;
}

/* Ends a lane; the last child ends its parent too. */
static void end(sill__sched *c, sill__lane *lane) {
    sill__lane *parent = lane->parent;
    sill__seq_free(c->s, lane->seq);
    c->reserved -= lane->reserved;
    if (lane->state == LANE_PARKED) c->n_parked--;
    else c->n_active--;
    lane->state = LANE_FREE;
    if (!parent) {
        c->n_roots--;
        return;
    }
    if (lane->lent) parent->lent = false;
    if (--parent->n_children == 0 && parent->next_fork == parent->n_forks) end(c, parent);
}

static sill_status deliver(sill__sched *c, sill_error *err) {
    for (int32_t i = 0; i < c->n_spans; i++) {
        sill__lane *lane = c->of_span[i];
        const sill__span *p = &c->spans[i];
        int32_t at = lane->at;
        bool last = at + p->n == lane->n;
        sill__fed then = SILL__FED_DONE;
        lane->at += p->n;
        sill_status st = c->task->rows(c->task->user, lane, p, at, last, &then, err);
        if (st != SILL_OK) return st;
        if (!last) continue;
        if (then == SILL__FED_MORE) {
            lane->at = lane->n_guess = 0;
            if (lane->n <= 0) return SILL__BUG(err, "a lane goes on without tokens");
        } else if (then == SILL__FED_FORK && lane->n_forks > 0 && !lane->parent) {
            lane->state = LANE_PARKED;
            lane->next_fork = lane->n_children = 0;
            lane->lent = false;
            c->n_active--;
            c->n_parked++;
        } else {
            end(c, lane);
        }
    }
    return SILL_OK;
}

sill_status sill__sched_run(sill_session *s, const sill__task *task, sill_error *err) {
    int32_t max = sill__session_max_sequences(s);
    sill__sched c = {.s = s, .task = task, .n_lanes = 2 * max, .available = sill__session_free_blocks(s)};
    sill_status st = SILL_OK;
    c.lanes = sill__calloc((size_t)c.n_lanes, sizeof *c.lanes);
    c.by_order = sill__calloc((size_t)c.n_lanes, sizeof *c.by_order);
    c.of_span = sill__calloc((size_t)c.n_lanes, sizeof *c.of_span);
    c.spans = sill__calloc((size_t)c.n_lanes, sizeof *c.spans);
    if (!c.lanes || !c.by_order || !c.of_span || !c.spans) {
        st = sill__fail(err, SILL_ENOMEM, "no memory for a scheduler of %d sequences", max);
        goto out;
    }
    for (;;) {
        if ((st = admit_forks(&c, err)) != SILL_OK || (st = admit_roots(&c, err)) != SILL_OK) break;
        if (c.n_active == 0) {
            if (c.has_waiting || c.n_parked) st = SILL__BUG(err, "the scheduler waits for nothing");
            break;
        }
        if ((st = build(&c, err)) != SILL_OK) break;
        if ((st = sill__step(s, c.spans, c.n_spans, err)) != SILL_OK || (st = deliver(&c, err)) != SILL_OK) break;
    }
    for (int32_t i = 0; i < c.n_lanes; i++)
        if (c.lanes[i].state != LANE_FREE) sill__seq_free(s, c.lanes[i].seq);
out:
    sill__free(c.spans);
    sill__free(c.of_span);
    sill__free(c.by_order);
    sill__free(c.lanes);
    return st;
}
