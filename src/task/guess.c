/*
 * guess.c - tokens that may come next, for speculative decoding: looked up in the prompt and the text so far, or made by
 * an assistant, a smaller model with the same vocabulary. generate.c checks them: what a sequence becomes does not depend
 * on what is guessed here, only how many steps it takes.
 *
 * The assistant chooses as the model does, with the same filters and random numbers, so that one that is as good as the
 * model is always right, also where tokens are drawn. It has a session, and in it a sequence for each of ours, which is
 * cut back to what came true before it goes on.
 */
#include "task/generate.h"

#define ASSISTANT_TOKENS 5   /* transformers' num_assistant_tokens with its schedule "heuristic" */
#define MATCHING_NGRAM 2     /* transformers' max_matching_ngram_size */

typedef struct gen_guess {
    int32_t max_ngram, n_ask;
    sill_session *assistant;
    /* lanes of one question */
    sill__span *spans;       /* (max_sequences) */
    int32_t *of;             /* (max_sequences) the lane of a span */
    int32_t *want, *states;  /* (max_sequences) of a lane: guesses it may get; what the constraint is in behind them */
    sill__sample_row *rows;  /* (max_sequences) of a span */
} gen_guess;

/* ------------------------------------------------------------- options */

/* Whether an id stands for the same bytes in both, for all ids. */
static bool same_vocabulary(const sill_model *a, const sill_model *b) {
    if (a->config.n_vocab != b->config.n_vocab) return false;
    for (int32_t i = 0; a->tokenizer && b->tokenizer && i < a->config.n_vocab; i++) {
        size_t n = 0, m = 0;
        const char *p = sill__tokenizer_bytes(a->tokenizer, i, &n), *q = sill__tokenizer_bytes(b->tokenizer, i, &m);
        if (!p != !q || (p && (n != m || memcmp(p, q, n)))) return false;
    }
    return true;
}

sill_status sill__guess_check(const gen *g, sill_error *err) {
    const sill_generate_options *o = &g->o;
    if (o->prompt_lookup_num_tokens < 0 || o->max_matching_ngram_size < 0 || o->num_assistant_tokens < 0)
        return sill__fail(err, SILL_EINVAL, "prompt_lookup_num_tokens %d, max_matching_ngram_size %d and num_assistant_tokens %d must "
                          "not be negative", o->prompt_lookup_num_tokens, o->max_matching_ngram_size, o->num_assistant_tokens);
    if (!o->prompt_lookup_num_tokens && !o->assistant) return SILL_OK;
    if (o->prompt_lookup_num_tokens && o->assistant)
        return sill__fail(err, SILL_EINVAL, "tokens are guessed by prompt lookup or by an assistant, not by both");
    if (o->num_beams > 1)
        return sill__fail(err, SILL_EINVAL, "prompt lookup and an assistant are for one text at a time: num_beams must be 1, not %d",
                          o->num_beams);
    const int32_t rows = SILL_MIN(sill__session_max_sequences(g->session), sill__session_batch_tokens(g->session));
    if (rows < 2)
        return sill__fail(err, SILL_ERANGE, "a session for %d sequences and batches of %d tokens has no room for guessed tokens; it "
                          "needs more of both (--max-sequences, --batch-tokens)", sill__session_max_sequences(g->session),
                          sill__session_batch_tokens(g->session));
    if (!o->assistant) return SILL_OK;
    const sill_model *m = sill__session_model(o->assistant);
    if (o->assistant == g->session) return sill__fail(err, SILL_EINVAL, "the assistant must be another session than the one it helps");
    if (!m->head)
        return sill__fail(err, SILL_EUNSUPPORTED, "the assistant has no language-model head, only a classification head");
    if (!same_vocabulary(g->model, m))
        return sill__fail(err, SILL_EINVAL, "the assistant has another vocabulary than the model (%d ids and %d): its tokens would be "
                          "other texts", m->config.n_vocab, g->model->config.n_vocab);
    return SILL_OK;
}

sill_status sill__guess_begin(gen *g, sill_error *err) {
    const sill_generate_options *o = &g->o;
    const size_t rows = (size_t)sill__session_max_sequences(g->session);
    if (!o->prompt_lookup_num_tokens && !o->assistant) return SILL_OK;
    gen_guess *d = sill__gen_take(g, 1, 1, sizeof *d);
    if (d) {
        d->assistant = o->assistant;
        d->max_ngram = o->max_matching_ngram_size ? o->max_matching_ngram_size : MATCHING_NGRAM;
        d->n_ask = o->prompt_lookup_num_tokens ? o->prompt_lookup_num_tokens : o->num_assistant_tokens ? o->num_assistant_tokens : ASSISTANT_TOKENS;
        d->spans = sill__gen_take(g, rows, 1, sizeof *d->spans);
        d->of = sill__gen_take(g, rows, 1, sizeof *d->of);
        d->want = sill__gen_take(g, rows, 1, sizeof *d->want);
        d->states = sill__gen_take(g, rows, 1, sizeof *d->states);
        d->rows = sill__gen_take(g, rows, 1, sizeof *d->rows);
    }
    if (!d || !d->spans || !d->of || !d->want || !d->states || !d->rows) return sill__fail(err, SILL_ENOMEM, "no memory for guessing tokens");
    g->guess = d;
    return SILL_OK;
}

void sill__guess_new(const gen *g, gen_seq *q) {
    q->draft = -1;
    q->n_ask = g->guess ? g->guess->n_ask : 0;
    q->n_drafted = q->n_accepted = 0;
}

void sill__guess_free(const gen *g, gen_seq *q) {
    if (g->guess && g->guess->assistant && q->draft >= 0) sill__seq_free(g->guess->assistant, q->draft);
    q->draft = -1;
}

void sill__guess_learn(const gen *g, gen_seq *q, int32_t n, int32_t ok) {
    const int32_t most = g->o.prompt_lookup_num_tokens ? g->guess->n_ask : INT32_MAX - 2;
    q->n_drafted += n;
    q->n_accepted += ok;
    q->n_ask = ok == n ? SILL_MIN(q->n_ask + 2, most) : SILL_MAX(q->n_ask - 1, 1);
}

/* ------------------------------------------------------- prompt lookup */

int32_t sill__prompt_lookup(const int32_t *ids, int32_t n, int32_t max_ngram, int32_t most, int32_t *n_found) {
    *n_found = 0;
    for (int32_t k = SILL_MIN(max_ngram, n - 1); k > 0; k--)
        for (int32_t at = 0; at + k < n; at++)
            if (ids[at + k - 1] == ids[n - 1] && !memcmp(ids + at, ids + n - k, (size_t)k * sizeof *ids)) {
                *n_found = SILL_MIN(most, n - at - k);
                return at + k;
            }
    return n;
}

/* Up to `most` ids behind those of the sequence. */
static int32_t look_up(const gen *g, gen_seq *q, int32_t most) {
    const int32_t n = q->row->n_prompt + q->n_new;
    int32_t n_found, found = 0;
    const int32_t from = sill__prompt_lookup(q->ids, n, g->guess->max_ngram, most, &n_found);
    for (; found < n_found && !sill__gen_ends(g, q->ids[from + found]); found++) q->ids[n + found] = q->ids[from + found];
    return found;
}

/* -------------------------------------------------------- an assistant */

/* The sequence's counterpart, cut to what came true; a sibling's prompt is shared. False: there is no room for it. */
static bool counterpart(gen *g, gen_seq *q) {
    sill_session *s = g->guess->assistant;
    const int32_t sure = q->row->n_prompt + q->n_new - 1;
    for (int32_t i = 0; i < g->n_seqs && q->draft < 0 && g->n_return > 1; i++) {
        const gen_seq *other = &g->seqs[i];
        if (other->used && other->row == q->row && other->draft >= 0 && sill__seq_length(s, other->draft) >= q->row->n_prompt)
            q->draft = sill__seq_fork(s, other->draft, q->row->n_prompt);
    }
    if (q->draft < 0) q->draft = sill__seq_new(s);
    return q->draft >= 0 && sill__seq_truncate(s, q->draft, SILL_MIN(sure, sill__seq_length(s, q->draft)));
}

/* What a span of the assistant is asked for, as generate.c asks the model. */
static void wants(const gen *g, const gen_seq *q, int32_t step, sill__span *p, sill__sample_row *row) {
    *row = g->sample;
    row->key = q->row->key;
    row->sequence = (uint32_t)q->sequence;
    row->step = (uint32_t)step;
    if (!g->need_logits) p->n_top = 1;
    else if (g->draw && sill__session_draws(g->guess->assistant)) p->draw = row;
    else p->want_logits = true;
}

/* The token that the assistant takes as number `step` of the new ones; -1: none. */
static int32_t choose(gen *g, const gen_seq *q, int32_t state, int32_t step, const sill__span *p) {
    int32_t id;
    if (p->drawn_id) id = p->drawn_id[0];
    else if (!p->logits) id = p->top_ids[0];
    else if (sill__gen_allow(g, state, q->row->max_new - step, NULL) != SILL_OK ||
             sill__sampler_filter(g->sampler, p->logits, q->ids, q->row->n_prompt + step, step, NULL) != SILL_OK) return -1;
    else id = sill__sampler_draw(g->sampler, q->row->key, (uint32_t)q->sequence, (uint32_t)step);
    return id < g->model->config.n_vocab && !sill__gen_ends(g, id) ? id : -1;
}

/* One step of the assistant for the lanes that want more guesses and that it has room for; others want no more. */
static int32_t build(gen *g, sill__lane *const *lanes, int32_t n) {
    gen_guess *d = g->guess;
    sill_session *s = d->assistant;
    int32_t tokens = sill__session_batch_tokens(s), blocks = sill__session_free_blocks(s), n_spans = 0;
    for (int32_t i = 0; i < n; i++) {
        gen_seq *q = lanes[i]->user;
        if (lanes[i]->n_guess >= d->want[i] || tokens == 0 || n_spans == sill__session_max_sequences(s)) continue;
        const int32_t fed = sill__seq_length(s, q->draft), step = q->n_new + lanes[i]->n_guess;
        const int32_t left = q->row->n_prompt + step - fed, take = SILL_MIN(left, tokens);
        const int32_t need = sill__seq_blocks_for(s, q->draft, take);
        if (need > blocks || take > sill__session_n_ctx(s) - fed) {
            d->want[i] = lanes[i]->n_guess;
            continue;
        }
        sill__span *p = &d->spans[n_spans];
        *p = (sill__span){.seq = q->draft, .tokens = q->ids + fed, .n = take, .first_out = take};
        if (take == left) wants(g, q, step, p, &d->rows[n_spans]);
        d->of[n_spans++] = i;
        tokens -= take;
        blocks -= need;
    }
    return n_spans;
}

static sill_status assist(gen *g, sill__lane *const *lanes, int32_t n, sill_error *err) {
    gen_guess *d = g->guess;
    for (int32_t i = 0; i < n; i++) {
        gen_seq *q = lanes[i]->user;
        d->states[i] = q->state;
        if (d->want[i] && !counterpart(g, q)) d->want[i] = 0;
    }
    for (;;) {
        const int32_t n_spans = build(g, lanes, n);
        if (n_spans == 0) return SILL_OK;
        sill_status st = sill__step(d->assistant, d->spans, n_spans, err);
        if (st != SILL_OK) {
            sill__fail_context(err, "the assistant");
            return st;
        }
        for (int32_t k = 0; k < n_spans; k++) {
            const sill__span *p = &d->spans[k];
            const int32_t i = d->of[k];
            gen_seq *q = lanes[i]->user;
            if (!p->logits && !p->drawn_id && !p->top_ids) continue; /* a part of the prompt */
            const int32_t id = choose(g, q, d->states[i], q->n_new + lanes[i]->n_guess, p);
            if (id < 0) {
                d->want[i] = lanes[i]->n_guess;
                continue;
            }
            q->ids[q->row->n_prompt + q->n_new + lanes[i]->n_guess++] = id;
            lanes[i]->n++;
            if (g->o.constraint) d->states[i] = sill__constraint_next(g->o.constraint, d->states[i], id);
            if (sill__gen_must_end(g, d->states[i])) d->want[i] = lanes[i]->n_guess;
        }
    }
}

/* ----------------------------------------------------------- the lanes */

sill_status sill__guess_lanes(void *user, sill__lane *const *lanes, int32_t n, int32_t room, sill_error *err) {
    gen *g = user;
    gen_guess *d = g->guess;
    for (int32_t i = 0; i < n; i++) { /* a fair share of the room, and what others left of theirs */
        gen_seq *q = lanes[i]->user;
        int32_t most = SILL_MIN(SILL_MIN(q->n_ask, room / (n - i)), q->row->max_new - q->n_new - 1);
        if (!d->assistant) {
            most = look_up(g, q, most);
            lanes[i]->n_guess = most;
            lanes[i]->n += most;
        }
        d->want[i] = most;
        room -= most;
    }
    return d->assistant ? assist(g, lanes, n, err) : SILL_OK;
}
