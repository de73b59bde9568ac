/*
 * beams.c - beam search, as transformers' GenerationMixin._beam_search (5.23, 4.57) has it. A row is a group of num_beams
 * sequences that step together. From all their continuations the best max(2, 1 + ends of text) * num_beams are taken; of
 * these, those among the first num_beams that end are kept with their score, and the best that do not end go on: the first
 * child of a sequence takes over its KV blocks, others share them and copy a partial block (sill__seq_fork). Sequences that
 * nothing continues are freed before.
 *
 * Groups of several rows are in one batch; a row's numbers do not depend on that, so neither do its beams. Equal scores: the
 * lower beam first, then the lower id. Beams that transformers carries at -1e9 where there are fewer continuations than
 * places do not exist here.
 */
#include "task/generate.h"

#define MIB(bytes) ((double)(bytes) / 1048576.0)

typedef struct beam {
    int32_t n_new, state; /* state: of the constraint */
    int32_t *ids;    /* (n_ctx + 1) prompt, then new ids */
    float *logprobs; /* (most_new) */
    sill_top *tops;  /* (most_new, n_tops) */
    char *text;
    size_t text_cap, n_text;
    float score;     /* running: the sum; ended: with the length penalty */
    const char *finish;
    sill__seq seq;   /* of a running one */
} beam;

/* A continuation: of beam FROM by id. */
typedef struct candidate { float score; int32_t from, id; } candidate;

typedef struct group {
    bool used;
    bool open;                 /* a sequence that is kept could still be bettered */
    bool full;                 /* before this step num_beams had ended, and no more are wanted */
    uint64_t index, key;
    int32_t n_prompt, max_new, fed, reserved;
    int32_t n_running, n_next, n_kept;
    beam *running, *next;      /* (n_beams); while the prompt is fed running[0] alone has a sequence */
    beam *kept;                /* (n_beams) that ended, the best first */
} group;

typedef struct beams {
    gen *g;
    int32_t n_beams, n_take, n_top; /* continuations taken of a row; best of each beam asked of the device, 0: logits */
    int32_t n_groups, n_active, blocks, reserved;
    group *groups;
    beam *slots;               /* of all groups */
    size_t n_slots;
    candidate *best;           /* (n_take) */
    candidate *pool;           /* sampling: (n_beams, n_vocab) */
    double *weights;           /* the same */
    float *scores;             /* (n_vocab) log-probabilities of a row */
    sill__span *spans;         /* (max_sequences) */
    int32_t *uses;             /* (n_beams) */
    sill_row row;              /* pulled, but not admitted */
    int32_t row_new;
    bool waiting, ended;
} beams;

sill_status sill__beams_check(const gen *g, sill_error *err) {
    const sill_generate_options *o = &g->o;
    const int32_t most = SILL_MIN(sill__session_max_sequences(g->session), sill__session_batch_tokens(g->session));
    if (o->num_beams > most)
        return sill__fail(err, SILL_ERANGE, "num_beams is %d, and the session has room for %d sequences; ask for fewer beams, or for "
                          "a session with more sequences and batch tokens (--max-sequences, --batch-tokens)", o->num_beams, most);
    if (o->num_return_sequences > o->num_beams)
        return sill__fail(err, SILL_EINVAL, "num_return_sequences %d is more than the %d beams", o->num_return_sequences, o->num_beams);
    if (isinf(o->length_penalty))
        return sill__fail(err, SILL_EINVAL, "length_penalty is %g, expected a number", (double)o->length_penalty);
    if (o->early_stopping < SILL_EARLY_STOPPING_NO || o->early_stopping > SILL_EARLY_STOPPING_NEVER)
        return sill__fail(err, SILL_EINVAL, "early_stopping is %d, none of sill_early_stopping's values", o->early_stopping);
    return SILL_OK;
}

static float penalized(const gen *g, float sum, int32_t length) {
    const float p = g->o.length_penalty;
    return sum / (float)pow(length, isnan(p) ? 0 : p == 0 ? 1 : (double)p);
}

/* ------------------------------------------------------- continuations */

static bool better(const candidate *a, const candidate *b) {
    return a->score != b->score ? a->score > b->score : a->from != b->from ? a->from < b->from : a->id < b->id;
}

/* Puts C among the best n_take, which are in order. */
static void offer(beams *b, int32_t *n, candidate c) {
    int32_t at = *n;
    if (!(c.score > -INFINITY) || (at == b->n_take && !better(&c, &b->best[at - 1]))) return;
    if (at < b->n_take) ++*n;
    else at--;
    for (; at > 0 && better(&c, &b->best[at - 1]); at--) b->best[at] = b->best[at - 1];
    b->best[at] = c;
}

/* The processed log-probabilities of a row: n ids and scores. */
static sill_status process(beams *b, const group *r, const beam *q, const sill__span *span, int32_t *n, const int32_t **ids,
                           const float **scores, sill_error *why) {
    gen *g = b->g;
    const int32_t vocab = g->model->config.n_vocab;
    if (!sill__is_logprob(-(double)span->lse[0])) return sill__overflowed("a logit of the next token", (double)span->lse[0], why);
    for (int32_t i = 0; i < vocab; i++) b->scores[i] = span->logits[i] - span->lse[0];
    sill_status st = sill__gen_allow(g, q->state, r->max_new - q->n_new, why);
    if (st != SILL_OK) return st;
    st = sill__sampler_filter(g->sampler, b->scores, q->ids, r->n_prompt + q->n_new, q->n_new, why);
    if (st == SILL_ERANGE) *n = 0; /* no token can follow: others may go on */
    else if (st == SILL_OK) *n = sill__sampler_scores(g->sampler, ids, scores);
    return st == SILL_ERANGE ? SILL_OK : st;
}

/* n_take of the pool, drawn one by one without replacement, as transformers' multinomial does. */
static int32_t draw(beams *b, const group *r, size_t n) {
    double most = -INFINITY, sum = 0;
    int32_t taken = 0;
    for (size_t i = 0; i < n; i++) most = SILL_MAX(most, (double)b->pool[i].score);
    for (size_t i = 0; i < n; i++) sum += b->weights[i] = exp((double)b->pool[i].score - most);
    for (; taken < b->n_take; taken++) {
        double u = sill__uniform(b->g->o.seed, r->key, (uint32_t)taken, (uint32_t)r->running[0].n_new) * sum, at = 0;
        size_t last = n;
        sum = 0;
        for (size_t i = 0; i < n; i++) {
            if (!(b->weights[i] > 0)) continue;
            if (last == n || at <= u) last = i; /* the first whose end lies beyond u, else the last there is */
            at += b->weights[i];
        }
        if (last == n) break;
        b->best[taken] = b->pool[last];
        b->weights[last] = 0;
        for (size_t i = 0; i < n; i++) sum += b->weights[i];
    }
    return taken;
}

/* The continuations of a row into b->best; returns how many, or tells why there are no numbers. */
static sill_status continuations(beams *b, const group *r, const sill__span *spans, int32_t *n_best, sill_error *why) {
    gen *g = b->g;
    size_t pool = 0;
    *n_best = 0;
    for (int32_t k = 0; k < r->n_running; k++) {
        const beam *q = &r->running[k];
        const sill__span *span = &spans[k];
        const int32_t *ids = span->top_ids;
        const float *scores = span->top_logprobs;
        int32_t n = b->n_top;
        sill_status st = SILL_OK;
        if (!n) st = process(b, r, q, span, &n, &ids, &scores, why);
        if (st != SILL_OK) return st;
        for (int32_t i = 0; i < n; i++) {
            if (ids[i] < 0 || !sill__is_logprob(scores[i])) return sill__overflowed("a logit of the next token", (double)NAN, why);
            candidate c = {scores[i] + q->score, k, ids[i]};
            if (g->o.do_sample) b->pool[pool++] = c;
            else offer(b, n_best, c);
        }
    }
    if (g->o.do_sample) *n_best = draw(b, r, pool);
    return SILL_OK;
}

/* ------------------------------------------------------------ sequences */

/* TO becomes FROM and one token more. */
static sill_status extend(beams *b, const group *r, const beam *from, const candidate *c, const sill__span *span, beam *to,
                          sill_error *err) {
    gen *g = b->g;
    const size_t n = (size_t)from->n_new, tops = (size_t)g->n_tops;
    size_t bytes = 0, before = from->n_text;
    const char *text = sill__gen_bytes(g, c->id, &bytes);
    if (!sill__gen_room(&to->text, &to->text_cap, 0, before + bytes))
        return sill__fail(err, SILL_ENOMEM, "no memory for a text of %zu bytes", before + bytes);
    memcpy(to->ids, from->ids, ((size_t)r->n_prompt + n) * sizeof *to->ids);
    memcpy(to->logprobs, from->logprobs, n * sizeof *to->logprobs);
    memcpy(to->text, from->text, before);
    if (text) memcpy(to->text + before, text, bytes);
    to->n_text = before + bytes;
    to->ids[(size_t)r->n_prompt + n] = c->id;
    to->logprobs[n] = span->logits ? span->logits[c->id] - span->lse[0] : 0;
    for (int32_t i = 0; span->top_ids && i < SILL_MAX(b->n_top, g->n_tops); i++)
        if (span->top_ids[i] == c->id) to->logprobs[n] = span->top_logprobs[i];
    if (tops) memcpy(to->tops, from->tops, n * tops * sizeof *to->tops);
    for (size_t i = 0; i < tops; i++) to->tops[n * tops + i] = (sill_top){span->top_ids[i], span->top_logprobs[i]};
    to->n_new = from->n_new + 1;
    to->score = c->score;
    to->finish = NULL;
    to->seq = -1;
    const bool end = sill__gen_ends(g, c->id);
    to->state = g->o.constraint && !end ? sill__constraint_next(g->o.constraint, from->state, c->id) : from->state;
    if (end || sill__gen_must_end(g, to->state) || (g->o.n_stop && sill__gen_stops(g, to->text, &to->n_text, before))) to->finish = "stop";
    else if (to->n_new == r->max_new) to->finish = "length";
    return SILL_OK;
}

static void swap(beam *a, beam *b) {
    beam t = *a;
    *a = *b;
    *b = t;
}

/* Keeps the ended sequence in the slot behind those that go on, if it is among the best; the slot stays a slot. */
static void keep(beams *b, group *r, beam *ended) {
    int32_t at = r->n_kept;
    ended->score = penalized(b->g, ended->score, ended->n_new);
    if (!r->open || r->full) return;
    if (at == b->n_beams && !(ended->score > r->kept[at - 1].score)) return;
    if (at < b->n_beams) r->n_kept++;
    else at--;
    swap(&r->kept[at], ended);
    for (; at > 0 && r->kept[at].score > r->kept[at - 1].score; at--) swap(&r->kept[at], &r->kept[at - 1]);
}

/* The sequences that go on get KV blocks: their parents', or shares of them. */
static sill_status hand_over(beams *b, group *r, const int32_t *from, sill_error *err) {
    sill_session *s = b->g->session;
    memset(b->uses, 0, (size_t)b->n_beams * sizeof *b->uses);
    for (int32_t i = 0; i < r->n_next; i++) b->uses[from[i]]++;
    for (int32_t k = 0; k < r->n_running; k++)
        if (!b->uses[k]) sill__seq_free(s, r->running[k].seq);
    for (int32_t i = 0; i < r->n_next; i++) {
        const beam *parent = &r->running[from[i]];
        const bool last = --b->uses[from[i]] == 0; /* the others have forked it by then */
        r->next[i].seq = last ? parent->seq : sill__seq_fork(s, parent->seq, sill__seq_length(s, parent->seq));
        if (r->next[i].seq < 0) return SILL__BUG(err, "a beam finds no sequence or block");
    }
    beam *t = r->running;
    r->running = r->next;
    r->next = t;
    r->n_running = r->n_next;
    return SILL_OK;
}

/* ------------------------------------------------------------- the rows */

static void close_group(beams *b, group *r) {
    for (int32_t k = 0; k < r->n_running; k++)
        if (r->running[k].seq >= 0) sill__seq_free(b->g->session, r->running[k].seq);
    r->used = false;
    b->reserved -= r->reserved;
    b->n_active--;
}

static sill_status deliver(beams *b, group *r, sill_error *err) {
    gen *g = b->g;
    sill_status st = SILL_OK;
    for (int32_t i = 0; i < g->n_return && st == SILL_OK; i++) {
        const beam *q = &r->kept[i];
        if (i >= r->n_kept) {
            sill_error why = {0};
            sill__fail(&why, SILL_ERANGE, "only %d sequences can be made under the options that forbid tokens", r->n_kept);
            st = sill__gen_failed(g, r->index, r->n_kept ? i : WHOLE_ROW, (size_t)r->n_prompt, &why, err);
            if (!r->n_kept) break;
            continue;
        }
        sill_generated out = {.index = r->index, .sequence = i, .final = 1, .status = SILL_OK, .text = q->text, .n_bytes = q->n_text,
                              .ids = q->ids + r->n_prompt, .logprobs = q->logprobs, .n_ids = (size_t)q->n_new,
                              .n_prompt = (size_t)r->n_prompt, .finish_reason = q->finish, .score = q->score};
        if (g->n_tops) out.tops = q->tops;
        st = sill__gen_done(g, &out, err);
    }
    close_group(b, r);
    return st;
}

/* Whether the row goes on behind a step. ALL: every continuation that was taken ended. */
static bool goes_on(const beams *b, group *r, bool all) {
    const sill_generate_options *o = &b->g->o;
    const bool full = r->n_kept == b->n_beams;
    if (all || r->n_running == 0) return false;
    const float p = isnan(o->length_penalty) ? 0 : o->length_penalty == 0 ? 1 : o->length_penalty;
    const int32_t length = o->early_stopping == SILL_EARLY_STOPPING_NEVER && p > 0 ? r->max_new : r->running[0].n_new;
    if (full && !(penalized(b->g, r->running[0].score, length) > r->kept[b->n_beams - 1].score)) r->open = false;
    return r->open && !(full && o->early_stopping == SILL_EARLY_STOPPING_YES);
}

/* Behind a step: what continues the group's sequences, whose rows are SPANS. */
static sill_status select_next(beams *b, group *r, const sill__span *spans, sill_error *err) {
    sill_error why = {0};
    int32_t n = 0, n_ended = 0, *from = b->uses + b->n_beams;
    sill_status st = continuations(b, r, spans, &n, &why);
    if (st != SILL_OK) {
        st = sill__gen_failed(b->g, r->index, WHOLE_ROW, (size_t)r->n_prompt, &why, err);
        close_group(b, r);
        return st;
    }
    r->n_next = 0;
    r->full = r->n_kept == b->n_beams && b->g->o.early_stopping == SILL_EARLY_STOPPING_YES;
    for (int32_t i = 0; i < n; i++) {
        const candidate *c = &b->best[i];
        beam *to = &r->next[b->n_beams]; /* one slot more than beams */
        if ((st = extend(b, r, &r->running[c->from], c, &spans[c->from], to, err)) != SILL_OK) return st;
        if (to->finish) {
            n_ended++;
            if (i < b->n_beams) keep(b, r, to);
            continue;
        }
        /* In the order of their scores: drawn ones come in another. */
        int32_t at = r->n_next;
        if (at == b->n_beams && !(to->score > r->next[at - 1].score)) continue;
        if (at < b->n_beams) r->n_next++;
        else at--;
        swap(&r->next[at], to);
        from[at] = c->from;
        for (; at > 0 && r->next[at].score > r->next[at - 1].score; at--) {
            int32_t t = from[at];
            swap(&r->next[at], &r->next[at - 1]);
            from[at] = from[at - 1];
            from[at - 1] = t;
        }
    }
    if ((st = hand_over(b, r, from, err)) != SILL_OK) return st;
    return goes_on(b, r, n_ended == n) ? SILL_OK : deliver(b, r, err);
}

/* ----------------------------------------------------------- admission */

static int32_t needs_blocks(const beams *b, int32_t n_prompt, int32_t max_new) {
    const int32_t shared = n_prompt / SILL__KV_BLOCK;
    return shared + b->n_beams * (sill__blocks_needed(n_prompt + max_new - 1) - shared);
}

static void start(beams *b, int32_t need) {
    gen *g = b->g;
    group *r = b->groups;
    while (r->used) r++;
    r->used = r->open = true;
    r->index = b->row.index;
    r->key = b->row.key;
    r->n_prompt = (int32_t)g->prompt.n;
    r->max_new = b->row_new;
    r->fed = r->n_kept = 0;
    r->reserved = need;
    r->n_running = 1;
    beam *q = &r->running[0];
    q->n_new = 0;
    q->state = SILL__CONSTRAINT_START;
    q->n_text = 0;
    q->score = 0;
    q->seq = sill__seq_new(g->session);
    memcpy(q->ids, g->prompt.p, g->prompt.n * sizeof *q->ids);
    b->reserved += need;
    b->n_active++;
    b->waiting = false;
}

/* Pulls and starts rows while they fit. */
static sill_status admit(beams *b, sill_error *err) {
    gen *g = b->g;
    sill_status st;
    while (b->n_active < b->n_groups) {
        sill_error why = {0};
        bool got = false;
        if (!b->waiting) {
            if (b->ended) return SILL_OK;
            if ((st = sill__row_next(g->next, g->user, &b->row, &got, err)) != SILL_OK) return st;
            if (!got) {
                b->ended = true;
                return SILL_OK;
            }
            if ((st = sill__gen_prompt(g, &b->row, &b->row_new, &why)) != SILL_OK) {
                if (sill__is_fatal(st)) {
                    if (err) *err = why;
                    return st;
                }
                if ((st = sill__gen_failed(g, b->row.index, WHOLE_ROW, g->prompt.n, &why, err)) != SILL_OK) return st;
                continue;
            }
            b->waiting = true;
        }
        const int32_t need = needs_blocks(b, (int32_t)g->prompt.n, b->row_new);
        if (need > b->blocks) {
            sill__fail(&why, SILL_ENOFIT, "the prompt and its %d beams need %d blocks of %d positions and the session has %d; make "
                       "the session larger or ask for fewer tokens or beams", b->n_beams, need, SILL__KV_BLOCK, b->blocks);
            b->waiting = false;
            if ((st = sill__gen_failed(g, b->row.index, WHOLE_ROW, g->prompt.n, &why, err)) != SILL_OK) return st;
            continue;
        }
        if (need > b->blocks - b->reserved) return SILL_OK;
        start(b, need);
    }
    return SILL_OK;
}

/* ------------------------------------------------------------ the call */

static void wants(const beams *b, sill__span *p, sill__seq seq, const int32_t *tokens, int32_t n, bool last) {
    *p = (sill__span){.seq = seq, .tokens = tokens, .n = n, .first_out = n};
    if (!last) return;
    p->n_top = SILL_MAX(b->n_top, b->g->n_tops);
    p->want_logits = b->n_top == 0;
}

/* All sequences that have begun, then prompts, cut to the tokens that are left. */
static int32_t build(beams *b, int32_t *first) {
    int32_t tokens = sill__session_batch_tokens(b->g->session), n = 0;
    for (int32_t i = 0; i < b->n_groups; i++) {
        const group *r = &b->groups[i];
        first[i] = -1;
        if (!r->used || r->fed < r->n_prompt) continue;
        first[i] = n;
        tokens -= r->n_running;
        for (int32_t k = 0; k < r->n_running; k++, n++)
            wants(b, &b->spans[n], r->running[k].seq, r->running[k].ids + r->n_prompt + r->running[k].n_new - 1, 1, true);
    }
    for (int32_t i = 0; i < b->n_groups; i++) {
        group *r = &b->groups[i];
        const int32_t more = SILL_MIN(tokens, r->n_prompt - r->fed);
        if (!r->used || first[i] >= 0 || more <= 0) continue;
        first[i] = n;
        wants(b, &b->spans[n++], r->running[0].seq, r->running[0].ids + r->fed, more, r->fed + more == r->n_prompt);
        r->fed += more;
        tokens -= more;
    }
    return n;
}

/* A piece without anything in it, for a caller that wants to cancel: what a beam holds is no result yet. */
static sill_status ask_caller(beams *b, sill_error *err) {
    const group *r = b->groups;
    while (!r->used) r++;
    sill_generated out = {.index = r->index, .status = SILL_OK, .text = "", .n_prompt = (size_t)r->n_prompt};
    return sill__gen_done(b->g, &out, err);
}

static sill_status steps(beams *b, int32_t *first, sill_error *err) {
    sill_status st;
    for (;;) {
        if ((st = admit(b, err)) != SILL_OK) return st;
        if (b->n_active == 0) return SILL_OK;
        const int32_t n = build(b, first);
        if ((st = sill__step(b->g->session, b->spans, n, err)) != SILL_OK) return st;
        if (b->g->stream && (st = ask_caller(b, err)) != SILL_OK) return st;
        for (int32_t i = 0; i < b->n_groups; i++) {
            group *r = &b->groups[i];
            if (!r->used || first[i] < 0 || r->fed < r->n_prompt) continue;
            if ((st = select_next(b, r, b->spans + first[i], err)) != SILL_OK) return st;
        }
    }
}

/* Slots for as many rows as the session has sequences for; what they take against what its limit leaves. */
static sill_status take_slots(beams *b, int32_t **first, sill_error *err) {
    gen *g = b->g;
    const size_t k = (size_t)b->n_beams, vocab = (size_t)g->model->config.n_vocab, new = (size_t)g->most_new;
    const size_t tops = (size_t)g->n_tops, text = new * GEN_BYTES_A_TOKEN + 64, a_group = 3 * k + 2, pool = g->o.do_sample ? k : 0;
    const uint64_t one = ((uint64_t)g->n_ctx + 1) * 4 + new * (4 + tops * sizeof(sill_top)) + text + sizeof(beam);
    const uint64_t need = one * a_group * (uint64_t)b->n_groups + (uint64_t)vocab * (44 + pool * 20);
    const uint64_t spare = sill__session_spare_bytes(g->session);
    if (need > spare)
        return sill__fail(err, SILL_ENOFIT, "beams need %.1f MiB for %d rows of %d beams and up to %d new tokens, and the memory that "
                          "is left is %.1f MiB; ask for fewer tokens or beams, or a session for fewer sequences", MIB(need),
                          b->n_groups, b->n_beams, g->most_new, MIB(spare));
    b->n_slots = a_group * (size_t)b->n_groups;
    b->groups = sill__gen_take(g, (size_t)b->n_groups, 1, sizeof *b->groups);
    *first = sill__gen_take(g, (size_t)b->n_groups, 1, sizeof **first);
    b->slots = sill__gen_take(g, b->n_slots, 1, sizeof *b->slots);
    b->best = sill__gen_take(g, (size_t)b->n_take, 1, sizeof *b->best);
    b->pool = sill__gen_take(g, pool, vocab, sizeof *b->pool);
    b->weights = sill__gen_take(g, pool, vocab, sizeof *b->weights);
    b->scores = sill__gen_take(g, vocab, 1, sizeof *b->scores);
    b->spans = sill__gen_take(g, (size_t)b->n_groups * k, 1, sizeof *b->spans);
    b->uses = sill__gen_take(g, 2 * k, 1, sizeof *b->uses);
    bool ok = b->groups && *first && b->slots && b->best && b->pool && b->weights && b->scores && b->spans && b->uses;
    for (size_t i = 0; ok && i < b->n_slots; i++) {
        beam *q = &b->slots[i];
        q->ids = sill__gen_take(g, (size_t)g->n_ctx + 1, 1, sizeof *q->ids);
        q->logprobs = sill__gen_take(g, new, 1, sizeof *q->logprobs);
        q->tops = sill__gen_take(g, new, tops, sizeof *q->tops);
        q->text = sill__alloc(text);
        q->text_cap = text;
        ok = q->ids && q->logprobs && q->tops && q->text;
    }
    for (size_t i = 0; ok && i < (size_t)b->n_groups; i++) {
        b->groups[i].running = b->slots + i * a_group;
        b->groups[i].next = b->groups[i].running + k + 1;
        b->groups[i].kept = b->groups[i].next + k + 1;
    }
    return ok ? SILL_OK : sill__fail(err, SILL_ENOMEM, "no memory for %d rows of %d beams", b->n_groups, b->n_beams);
}

sill_status sill__beams_run(gen *g, sill_error *err) {
    const sill_generate_options *o = &g->o;
    const sill__config *c = &g->model->config;
    const int32_t room = SILL_MIN(sill__session_max_sequences(g->session), sill__session_batch_tokens(g->session));
    const int32_t n_eos = o->ignore_eos ? 0 : c->n_eos;
    beams b = {.g = g, .n_beams = o->num_beams, .n_groups = room / o->num_beams, .blocks = sill__session_free_blocks(g->session)};
    int32_t *first = NULL;
    b.n_take = SILL_MAX(2, 1 + n_eos) * b.n_beams;
    if (!g->need_logits && b.n_take <= SILL_MIN(SILL__MAX_TOP, c->n_vocab)) b.n_top = b.n_take;
    g->most_new = SILL_MIN(o->max_new_tokens ? o->max_new_tokens : o->max_length ? o->max_length : 20, g->n_ctx);
    sill_status st = take_slots(&b, &first, err);
    if (st == SILL_OK) st = steps(&b, first, err);
    for (int32_t i = 0; b.groups && i < b.n_groups; i++)
        if (b.groups[i].used) close_group(&b, &b.groups[i]);
    for (size_t i = 0; b.slots && i < b.n_slots; i++) sill__free(b.slots[i].text);
    return st;
}
