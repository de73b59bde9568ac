/*
 * generate.c - continuing prompts: rows become lanes, tokens are chosen by the sampler, text is made as it comes with
 * partial characters and possible stop strings held back.
 *
 * All memory of a call is taken at its start: slots for as many rows and sequences as the session's blocks let run. Two
 * things grow, by doubling: the token list for a longer prompt than any before, before that row's first step, and the
 * text of a slot whose tokens are unusually long.
 */
#include "task/generate.h"

#define MAX_RETURN_SEQUENCES 4096
#define MAX_BEAMS 1024
#define CONSTRAINED_NEW 256
#define MIB(bytes) ((double)(bytes) / 1048576.0)

/* ------------------------------------------------------------- results */

sill_status sill__gen_done(gen *g, const sill_generated *result, sill_error *err) {
    return g->done(g->user, result) ? sill__fail(err, SILL_ECANCELLED, "cancelled by the caller") : SILL_OK;
}

sill_status sill__gen_failed(gen *g, uint64_t index, int32_t sequence, size_t n_prompt, const sill_error *why, sill_error *err) {
    if (g->n_return == 1) sequence = 0;
    sill_generated r = {.index = index, .sequence = sequence, .final = 1, .status = why->code, .error = why->msg,
                        .text = "", .n_prompt = n_prompt};
    return sill__gen_done(g, &r, err);
}

static void free_seq(const gen *g, gen_seq *q) {
    sill__guess_free(g, q);
    if (--q->row->n_open == 0) q->row->used = false;
    q->used = false;
}

/* Hands out what is new and sure since the last piece. */
static sill_status send_piece(gen *g, gen_seq *q, size_t sure, bool quiet, sill_error *err) {
    int32_t new_ids = q->n_new - q->n_sent_ids;
    if (!g->stream || sure <= q->n_sent) return SILL_OK;
    sill_generated r = {.index = q->row->index, .sequence = q->sequence, .text = q->text + q->n_sent,
                        .n_bytes = sure - q->n_sent, .ids = q->ids + q->row->n_prompt + q->n_sent_ids,
                        .logprobs = q->logprobs + q->n_sent_ids, .n_ids = (size_t)new_ids,
                        .n_prompt = (size_t)q->row->n_prompt};
    if (g->n_tops) r.tops = q->tops + (size_t)q->n_sent_ids * (size_t)g->n_tops;
    q->n_sent = sure;
    q->n_sent_ids = q->n_new;
    return quiet ? SILL_OK : sill__gen_done(g, &r, err);
}

static sill_status deliver(gen *g, gen_seq *q, sill_error *err) {
    sill_generated r = {.index = q->row->index, .sequence = q->sequence, .final = 1, .status = SILL_OK, .text = q->text,
                        .n_bytes = q->n_text, .ids = q->ids + q->row->n_prompt, .logprobs = q->logprobs,
                        .n_ids = (size_t)q->n_new, .n_prompt = (size_t)q->row->n_prompt, .finish_reason = q->finish,
                        .n_drafted = q->n_drafted, .n_accepted = q->n_accepted};
    if (g->n_tops) r.tops = q->tops;
    return sill__gen_done(g, &r, err);
}

/* ---------------------------------------------------------------- text */

bool sill__gen_stops(const gen *g, const char *text, size_t *n, size_t from) {
    size_t start = from >= g->longest_stop ? from - g->longest_stop + 1 : 0;
    for (size_t at = start; at < *n; at++)
        for (size_t i = 0; i < g->o.n_stop; i++)
            if (g->stop_bytes[i] <= *n - at && !memcmp(text + at, g->o.stop[i], g->stop_bytes[i])) {
                *n = at;
                return true;
            }
    return false;
}

sill_status sill__gen_allow(gen *g, int32_t state, int32_t left, sill_error *why) {
    sill_constraint *c = g->o.constraint;
    const sill__config *config = &g->model->config;
    const uint64_t *mask;
    if (!c) return SILL_OK;
    sill_status st = sill__constraint_mask(c, state, left, &mask, why);
    if (st != SILL_OK) return st;
    memcpy(g->allowed, mask, ((size_t)config->n_vocab + 63) / 64 * sizeof *mask);
    for (int32_t i = 0; i < config->n_eos && !g->o.ignore_eos && sill__constraint_may_end(c, state); i++)
        if (config->eos_ids[i] >= 0 && config->eos_ids[i] < config->n_vocab)
            g->allowed[config->eos_ids[i] / 64] |= (uint64_t)1 << (config->eos_ids[i] % 64);
    sill__sampler_allow(g->sampler, g->allowed);
    return SILL_OK;
}

bool sill__gen_must_end(const gen *g, int32_t state) {
    return g->o.constraint && sill__constraint_may_end(g->o.constraint, state) && sill__constraint_must_end(g->o.constraint, state);
}

bool sill__gen_ends(const gen *g, int32_t id) { return !g->o.ignore_eos && sill__model_is_eos(g->model, id); }

const char *sill__gen_bytes(const gen *g, int32_t id, size_t *n) {
    const sill_tokenizer *t = g->model->tokenizer;
    *n = 0;
    return !t || sill__gen_ends(g, id) || sill__tokenizer_is_special(t, id) ? NULL : sill__tokenizer_bytes(t, id, n);
}

/* Bytes that no stop string can take back any more and that end on a whole character. */
static size_t sure_bytes(const gen *g, const gen_seq *q) {
    size_t held = 0;
    for (size_t i = 0; i < g->o.n_stop; i++)
        for (size_t n = SILL_MIN(g->stop_bytes[i] - 1, q->n_text); n > held; n--)
            if (!memcmp(q->text + q->n_text - n, g->o.stop[i], n)) held = n;
    size_t end = q->n_text - held;
    return end <= q->n_sent ? q->n_sent : q->n_sent + sill_utf8_complete(q->text + q->n_sent, end - q->n_sent);
}

bool sill__gen_room(char **text, size_t *cap, size_t used, size_t n) {
    size_t more;
    if (n <= *cap - used) return true;
    if (!sill__add(*cap, SILL_MAX(*cap, n), &more)) return false;
    char *p = sill__realloc(*text, more);
    if (!p) return false;
    *text = p;
    *cap = more;
    return true;
}

/* Takes a token as the sequence's next. Sets q->finish when it was the last. */
static sill_status accept(gen *g, gen_seq *q, int32_t id, float logprob, const sill_top *tops, bool quiet,
                          sill_error *err) {
    gen_row *row = q->row;
    size_t before = q->n_text, n = 0;
    q->ids[row->n_prompt + q->n_new] = id;
    q->logprobs[q->n_new] = logprob;
    if (g->n_tops) memcpy(q->tops + (size_t)q->n_new * (size_t)g->n_tops, tops, (size_t)g->n_tops * sizeof *tops);
    q->n_new++;
    const char *bytes = sill__gen_bytes(g, id, &n);
    if (bytes && n) {
        if (!sill__gen_room(&q->text, &q->text_cap, q->n_text, n))
            return sill__fail(err, SILL_ENOMEM, "no memory for a text of %zu bytes", q->n_text + n);
        memcpy(q->text + q->n_text, bytes, n);
        q->n_text += n;
    }
    const bool end = sill__gen_ends(g, id);
    if (g->o.constraint && !end) q->state = sill__constraint_next(g->o.constraint, q->state, id);
    if (end || sill__gen_must_end(g, q->state) || (g->o.n_stop && sill__gen_stops(g, q->text, &q->n_text, before))) q->finish = "stop";
    else if (q->n_new == row->max_new) q->finish = "length";
    return send_piece(g, q, q->finish ? q->n_text : sure_bytes(g, q), quiet, err);
}

/* ------------------------------------------------------- choosing tokens */

/* The tops of a row, in the caller's form. */
static void read_tops(const gen *g, const sill__span *span, sill_top *out) {
    for (int32_t i = 0; i < g->n_tops; i++) out[i] = (sill_top){span->top_ids[i], span->top_logprobs[i]};
}

static sill_status filter(gen *g, const gen_seq *q, const sill__span *span, sill_error *why) {
    if (!span->logits) return SILL_OK;
    sill_status st = sill__gen_allow(g, q->state, q->row->max_new - q->n_new, why);
    if (st != SILL_OK) return st;
    return sill__sampler_filter(g->sampler, span->logits, q->ids, q->row->n_prompt + q->n_new, q->n_new, why);
}

/* WHY is set where the numbers of the row are none. */
static sill_status choose(gen *g, const gen_seq *q, const sill__span *span, int32_t *id, float *logprob, sill_error *why) {
    if (span->drawn_id) {
        *id = span->drawn_id[0];
        *logprob = span->drawn_logprob[0];
    } else if (span->logits) {
        *id = sill__sampler_draw(g->sampler, q->row->key, (uint32_t)q->sequence, (uint32_t)q->n_new);
        *logprob = span->logits[*id] - span->lse[0];
    } else {
        *id = span->top_ids[0];
        *logprob = span->top_logprobs[0];
    }
    if (*id < 0) return sill__overflowed("a logit of the next token", (double)NAN, why);
    /* The backend's own number where it gives one: the same to the last bit as among the alternatives. */
    for (int32_t i = 0; i < g->n_tops; i++)
        if (span->top_ids[i] == *id) *logprob = span->top_logprobs[i];
    return sill__is_logprob(*logprob) ? SILL_OK : sill__overflowed("the log-probability of the next token", *logprob, why);
}

/* What the lane's next row is asked for. By the options alone, whatever else is under way: the host and the device may
 * choose otherwise where a border lies within rounding. */
static void wants(const gen *g, const gen_seq *q, bool several, sill__lane *lane) {
    lane->draw = g->draw && !several;
    lane->want_logits = g->need_logits && !lane->draw;
    lane->n_top = g->need_logits ? g->n_tops : SILL_MAX(1, g->n_tops);
    lane->guesses = g->guess && !several;
    lane->goes_on = !lane->want_logits && !g->guess;
    lane->sample = g->sample;
    lane->sample.key = q->row->key;
    lane->sample.sequence = (uint32_t)q->sequence;
    lane->sample.step = (uint32_t)q->n_new;
}

/* The outputs of row I of those that a span has some of. */
static sill__span row_of(const gen *g, const sill__span *span, int32_t i) {
    const size_t k = (size_t)i;
    sill__span row = *span;
    if (row.logits) row.logits += k * (size_t)g->model->config.n_vocab, row.lse += k;
    if (row.top_ids) row.top_ids += k * (size_t)row.top_stride, row.top_logprobs += k * (size_t)row.top_stride;
    if (row.drawn_id) row.drawn_id += k, row.drawn_logprob += k;
    return row;
}

/* The token that a row chooses becomes the sequence's next; WHY is set where none can. */
static sill_status next_token(gen *g, gen_seq *q, const sill__span *row, int32_t *id, sill_error *why, sill_error *err) {
    sill_top tops[SILL__MAX_TOP];
    float logprob;
    if (filter(g, q, row, why) != SILL_OK || choose(g, q, row, id, &logprob, why) != SILL_OK) return SILL_OK;
    read_tops(g, row, tops);
    return accept(g, q, *id, logprob, tops, false, err);
}

/* The next tokens of one sequence: one, and one more for each guess that was right. */
static sill_status one_row(gen *g, sill__lane *lane, gen_seq *q, const sill__span *span, sill__fed *then,
                           sill_error *err) {
    const int32_t n_guess = lane->n_guess;
    int32_t n_right = 0;
    sill_error why = {0};
    sill_status st;
    *then = SILL__FED_DONE;
    bool right = true;
    for (int32_t i = 0; right && i <= n_guess && !q->finish; i++) {
        const sill__span row = row_of(g, span, i);
        const int32_t guess = i < n_guess ? q->ids[q->row->n_prompt + q->n_new] : -1;
        int32_t id = -1;
        if ((st = next_token(g, q, &row, &id, &why, err)) != SILL_OK) return st;
        if (why.code != SILL_OK) {
            st = sill__gen_failed(g, q->row->index, q->sequence, (size_t)q->row->n_prompt, &why, err);
            free_seq(g, q);
            return st;
        }
        right = id == guess;
        n_right += right;
    }
    if (n_guess) sill__guess_learn(g, q, n_guess, n_right);
    if (q->finish) {
        st = deliver(g, q, err);
        free_seq(g, q);
        return st;
    }
    if (n_guess && !sill__seq_truncate(g->session, lane->seq, q->row->n_prompt + q->n_new - 1))
        return SILL__BUG(err, "a sequence cannot be cut to what came true of it");
    lane->tokens = q->ids + q->row->n_prompt + q->n_new - 1;
    lane->n = 1;
    wants(g, q, false, lane);
    *then = SILL__FED_MORE;
    return SILL_OK;
}

static void reset_seq(const gen *g, gen_seq *q, int32_t sequence) {
    q->sequence = sequence;
    q->n_new = q->n_sent_ids = 0;
    q->n_text = q->n_sent = 0;
    q->state = SILL__CONSTRAINT_START;
    q->finish = NULL;
    sill__guess_new(g, q);
}

/* The first tokens of all sequences of a prompt; those that go on are forked from it. */
static sill_status first_tokens(gen *g, sill__lane *lane, gen_seq *q, const sill__span *span, sill__fed *then,
                                sill_error *err) {
    gen_row *row = q->row;
    sill_error why = {0};
    int32_t n_going = 0;
    sill_status st = filter(g, q, span, &why);
    *then = SILL__FED_DONE;
    read_tops(g, span, row->first_tops);
    for (int32_t i = 0; i < g->n_return && st == SILL_OK; i++) {
        reset_seq(g, q, i);
        st = choose(g, q, span, &row->first_ids[n_going], &row->first_logprobs[n_going], &why);
        if (st != SILL_OK) break; /* at the first sequence, or never: all choose from the same numbers */
        st = accept(g, q, row->first_ids[n_going], row->first_logprobs[n_going], row->first_tops, false, err);
        if (st != SILL_OK) break;
        if (q->finish) {
            st = deliver(g, q, err);
            row->n_open--;
        } else {
            row->going[n_going++] = i;
        }
    }
    if (why.code != SILL_OK) {
        q->used = row->used = false;
        return sill__gen_failed(g, row->index, WHOLE_ROW, (size_t)row->n_prompt, &why, err);
    }
    if (st != SILL_OK) return st;
    if (n_going) {
        lane->n_forks = n_going;
        *then = SILL__FED_FORK;
    } else {
        q->used = row->used = false;
    }
    return SILL_OK;
}

/* ----------------------------------------------------------- the task */

static gen_seq *take_seq(gen *g, gen_row *row, int32_t sequence) {
    for (int32_t i = 0; i < g->n_seqs; i++)
        if (!g->seqs[i].used) {
            reset_seq(g, &g->seqs[i], sequence);
            g->seqs[i].used = true;
            g->seqs[i].row = row;
            return &g->seqs[i];
        }
    return NULL;
}

static gen_row *take_row(gen *g) {
    for (int32_t i = 0; i < g->n_rows; i++)
        if (!g->rows[i].used) {
            g->rows[i].used = true;
            return &g->rows[i];
        }
    return NULL;
}

/* Cuts the prompt's start to n ids; a BOS that was put in front stays. */
static void keep_end(gen *g, int32_t n) {
    sill__ids *p = &g->prompt;
    size_t keep = (size_t)n, bos = (g->flags & SILL_TOKENIZE_BOS) && p->n && p->p[0] == sill__bos_id(g->model) && n > 1;
    memmove(p->p + bos, p->p + p->n - (keep - bos), (keep - bos) * sizeof *p->p);
    p->n = keep;
}

/* How many tokens the prompt may be continued by; cuts it where the policy says so. */
static sill_status settle_length(gen *g, int32_t *max_new, sill_error *why) {
    const sill_generate_options *o = &g->o;
    bool cut = o->long_policy == SILL_LONG_TRUNCATE;
    int64_t n = (int64_t)g->prompt.n, limit = g->n_ctx;
    if (o->max_new_tokens) {
        int64_t most = SILL_MIN(o->max_new_tokens, limit - 1);
        if (limit < 2) return sill__fail(why, SILL_ERANGE, "a context of %d leaves no room for a new token", g->n_ctx);
        if (n + o->max_new_tokens > limit && !cut)
            return sill__fail(why, SILL_ERANGE, "the prompt has %lld tokens, and %d new ones make %lld, more than the %d "
                              "positions of the session; shorten it, ask for fewer, or choose the long policy truncate "
                              "(--long truncate)",
                              (long long)n, o->max_new_tokens, (long long)n + o->max_new_tokens, g->n_ctx);
        if (n + most > limit) keep_end(g, (int32_t)(limit - most));
        *max_new = (int32_t)most;
        return SILL_OK;
    }
    if (o->max_length) limit = SILL_MIN(limit, o->max_length);
    if (n >= limit && !cut)
        return sill__fail(why, SILL_ERANGE, "the prompt has %lld tokens, and %s is %lld, which leaves no room for a new one; "
                          "shorten it or choose the long policy truncate (--long truncate)", (long long)n,
                          limit == g->n_ctx ? "the number of positions" : "max_length", (long long)limit);
    if (limit < 2) return sill__fail(why, SILL_ERANGE, "max_length %lld leaves no room for a new token", (long long)limit);
    if (n >= limit) keep_end(g, (int32_t)(limit - 1));
    limit -= (int64_t)g->prompt.n;
    *max_new = (int32_t)(o->max_length ? limit : SILL_MIN(limit, 20));
    return SILL_OK;
}

sill_status sill__gen_prompt(gen *g, const sill_row *row, int32_t *max_new, sill_error *why) {
    g->prompt.n = 0;
    sill_status st = sill__row_ids(g->model, row, g->flags, &g->prompt, why);
    if (st == SILL_OK && g->prompt.n == 0) {
        int32_t start = sill__start_id(g->model);
        if (start < 0)
            return sill__fail(why, SILL_EINVAL, "the prompt is empty, and the model has no BOS or EOS token to start from");
        st = sill__ids_put(&g->prompt, &start, 1, why);
    }
    return st == SILL_OK ? settle_length(g, max_new, why) : st;
}

static sill_status next_lane(void *user, sill__lane *lane, bool *got, sill_error *err) {
    gen *g = user;
    sill_status st;
    for (;;) {
        sill_row in;
        sill_error why = {0};
        int32_t max_new = 0;
        if ((st = sill__row_next(g->next, g->user, &in, got, err)) != SILL_OK || !*got) return st;
        st = sill__gen_prompt(g, &in, &max_new, &why);
        if (st != SILL_OK) {
            if (sill__is_fatal(st)) {
                if (err) *err = why;
                return st;
            }
            if ((st = sill__gen_failed(g, in.index, WHOLE_ROW, g->prompt.n, &why, err)) != SILL_OK) return st;
            continue;
        }
        gen_row *row = take_row(g);
        gen_seq *q = row ? take_seq(g, row, 0) : NULL;
        if (!q) return SILL__BUG(err, "no slot for a row");
        row->index = in.index;
        row->key = in.key;
        row->n_prompt = (int32_t)g->prompt.n;
        row->max_new = max_new;
        row->n_open = g->n_return;
        memcpy(q->ids, g->prompt.p, g->prompt.n * sizeof *q->ids);
        lane->tokens = q->ids;
        lane->n = row->n_prompt;
        bool forks = g->n_return > 1 && max_new > 1;
        lane->max_length = row->n_prompt + (g->n_return > 1 ? 0 : max_new - 1);
        lane->fork_length = forks ? row->n_prompt + max_new - 1 : 0;
        lane->user = q;
        wants(g, q, g->n_return > 1, lane);
        return SILL_OK;
    }
}

static sill_status refuse(void *user, sill__lane *lane, int64_t need, int64_t have, sill_error *err) {
    gen *g = user;
    gen_seq *q = lane->user;
    sill_error why = {0};
    sill__fail(&why, SILL_ENOFIT, "the prompt and its continuation need %lld positions and the session has room for %lld; "
               "make the session larger or ask for fewer tokens", (long long)need, (long long)have);
    sill_status st = sill__gen_failed(g, q->row->index, WHOLE_ROW, (size_t)q->row->n_prompt, &why, err);
    q->used = q->row->used = false;
    return st;
}

static sill_status rows_done(void *user, sill__lane *lane, const sill__span *span, int32_t at, bool last,
                             sill__fed *then, sill_error *err) {
    gen *g = user;
    gen_seq *q = lane->user;
    (void)at;
    if (!last) return SILL_OK;
    if (g->n_return > 1 && !lane->parent) return first_tokens(g, lane, q, span, then, err);
    return one_row(g, lane, q, span, then, err);
}

static sill_status fork_lane(void *user, sill__lane *parent, int32_t i, sill__lane *child, sill_error *err) {
    gen *g = user;
    gen_seq *proto = parent->user;
    gen_row *row = proto->row;
    gen_seq *q = proto;
    /* The last fork takes over the slot that held the prompt. */
    if (i + 1 < parent->n_forks && !(q = take_seq(g, row, 0))) return SILL__BUG(err, "no slot for a sequence");
    reset_seq(g, q, row->going[i]);
    if (q != proto) memcpy(q->ids, proto->ids, (size_t)row->n_prompt * sizeof *q->ids);
    sill_status st = accept(g, q, row->first_ids[i], row->first_logprobs[i], row->first_tops, true, err);
    child->tokens = q->ids + row->n_prompt;
    child->n = 1;
    child->user = q;
    wants(g, q, false, child);
    return st;
}

/* ------------------------------------------------------------ the call */

static sill_status check_options(gen *g, sill_error *err) {
    sill_generate_options *o = &g->o;
    if (o->max_new_tokens < 0 || o->max_length < 0)
        return sill__fail(err, SILL_EINVAL, "max_new_tokens %d and max_length %d must not be negative", o->max_new_tokens,
                          o->max_length);
    if (o->num_return_sequences < 0 || o->num_return_sequences > MAX_RETURN_SEQUENCES)
        return sill__fail(err, SILL_ERANGE, "num_return_sequences is %d, expected 1 to %d", o->num_return_sequences,
                          MAX_RETURN_SEQUENCES);
    if (o->num_beams < 0 || o->num_beams > MAX_BEAMS)
        return sill__fail(err, SILL_ERANGE, "num_beams is %d, expected 1 to %d", o->num_beams, MAX_BEAMS);
    sill_status st = o->num_beams > 1 ? sill__beams_check(g, err) : SILL_OK;
    if (st != SILL_OK) return st;
    if (o->num_return_sequences > 1 && !o->do_sample && o->num_beams <= 1)
        return sill__fail(err, SILL_EINVAL, "num_return_sequences %d needs do_sample or as many beams: without these all would be the same",
                          o->num_return_sequences);
    if (o->logprobs > SILL_MIN(SILL__MAX_TOP, g->model->config.n_vocab))
        return sill__fail(err, SILL_ERANGE, "logprobs is %d, at most %d alternatives are told", o->logprobs,
                          SILL_MIN(SILL__MAX_TOP, g->model->config.n_vocab));
    if (o->long_policy != SILL_LONG_DEFAULT && o->long_policy != SILL_LONG_ERROR && o->long_policy != SILL_LONG_TRUNCATE)
        return sill__fail(err, SILL_EINVAL, "a prompt can be refused or truncated when it is too long, not split or windowed");
    if (o->n_stop && !o->stop) return sill__fail(err, SILL_EINVAL, "stop must not be NULL when n_stop is %zu", o->n_stop);
    if (o->n_stop && !g->model->tokenizer)
        return sill__fail(err, SILL_EUNSUPPORTED, "stop strings need a tokenizer, and the model's files hold none");
    for (size_t i = 0; i < o->n_stop; i++)
        if (!o->stop[i] || !*o->stop[i]) return sill__fail(err, SILL_EINVAL, "stop string %zu is empty", i + 1);
    if (o->constraint && sill__constraint_model(o->constraint) != g->model)
        return sill__fail(err, SILL_EINVAL, "the constraint was made for another model");
    if (!o->max_new_tokens && !o->max_length && o->constraint) o->max_new_tokens = SILL_MIN(CONSTRAINED_NEW, SILL_MAX(1, g->n_ctx / 2));
    if ((st = sill__guess_check(g, err)) != SILL_OK) return st;
    if (!g->model->head)
        return sill__fail(err, SILL_EUNSUPPORTED, "the model has no language-model head, only a classification head: it "
                          "cannot generate");
    return SILL_OK;
}

/* How many rows and sequences can have a slot at once. Every row reserves blocks for its prompt and new tokens, and every
 * fork some for the new ones; one row more may be waiting. */
static void count_slots(gen *g) {
    const sill_generate_options *o = &g->o;
    int32_t free = sill__session_free_blocks(g->session), max = sill__session_max_sequences(g->session);
    int32_t most = g->n_ctx - 1, row, fork = 1;
    g->most_new = o->max_new_tokens ? SILL_MIN(o->max_new_tokens, g->n_ctx)
                                    : SILL_MIN(o->max_length ? o->max_length : 20, g->n_ctx);
    if (o->max_new_tokens) {
        most = SILL_MIN(o->max_new_tokens, most);
        fork = SILL_MAX(1, sill__blocks_needed(SILL_MAX(0, most - 1)));
    } else {
        most = SILL_MIN(o->max_length ? o->max_length - 1 : 20, most);
    }
    row = SILL_MAX(1, sill__blocks_needed(SILL_MAX(0, most)));
    g->n_rows = SILL_MIN(max, free / row) + 1;
    g->n_seqs = g->n_rows + (g->n_return > 1 ? SILL_MIN(max, free / fork) : 0);
}

/* The call's slots against what the session's limit leaves. */
static sill_status check_memory(const gen *g, size_t text_bytes, sill_error *err) {
    uint64_t new = (uint64_t)g->most_new, tops = (uint64_t)g->n_tops * sizeof(sill_top), k = (uint64_t)g->n_return;
    uint64_t seq = ((uint64_t)g->n_ctx + 1) * sizeof(int32_t) + new * (sizeof(float) + tops) + text_bytes;
    uint64_t row = k * (2 * sizeof(int32_t) + sizeof(float)) + tops;
    uint64_t need = (uint64_t)g->n_seqs * seq + (uint64_t)g->n_rows * row, spare = sill__session_spare_bytes(g->session);
    if (g->need_logits) need += (uint64_t)g->model->config.n_vocab * 40; /* of the sampler, whose scratch is a row's */
    if (need <= spare) return SILL_OK;
    return sill__fail(err, SILL_ENOFIT, "generating needs %.1f MiB for %d sequences of up to %d new tokens%s, and the session's "
                      "memory leaves %.1f MiB; ask for fewer tokens%s or make the session for fewer sequences", MIB(need),
                      g->n_seqs, g->most_new, g->n_tops ? " with their alternatives" : "", MIB(spare),
                      g->n_tops ? " or logprobs" : "");
}

void *sill__gen_take(gen *g, size_t n, size_t m, size_t bytes) {
    size_t size;
    return sill__mul(n, m, &size) && sill__mul(size, bytes, &size) ? sill__arena_alloc(&g->arena, size) : NULL;
}

static sill_status measure_stops(gen *g, sill_error *err) {
    g->stop_bytes = sill__gen_take(g, g->o.n_stop, 1, sizeof *g->stop_bytes);
    if (!g->stop_bytes) return sill__fail(err, SILL_ENOMEM, "no memory for %zu stop strings", g->o.n_stop);
    for (size_t i = 0; i < g->o.n_stop; i++) {
        g->stop_bytes[i] = strlen(g->o.stop[i]);
        g->longest_stop = SILL_MAX(g->longest_stop, g->stop_bytes[i]);
    }
    return SILL_OK;
}

static sill_status take_slots(gen *g, sill_error *err) {
    size_t k = (size_t)g->n_return, new = (size_t)g->most_new, tops = (size_t)g->n_tops, text = new * GEN_BYTES_A_TOKEN + 64;
    sill_status st = check_memory(g, text, err);
    if (st != SILL_OK) return st;
    g->rows = sill__gen_take(g, (size_t)g->n_rows, 1, sizeof *g->rows);
    g->seqs = sill__gen_take(g, (size_t)g->n_seqs, 1, sizeof *g->seqs);
    if (!g->rows || !g->seqs) goto nomem;
    for (int32_t i = 0; i < g->n_rows; i++) {
        gen_row *r = &g->rows[i];
        r->going = sill__gen_take(g, k, 1, sizeof *r->going);
        r->first_ids = sill__gen_take(g, k, 1, sizeof *r->first_ids);
        r->first_logprobs = sill__gen_take(g, k, 1, sizeof *r->first_logprobs);
        r->first_tops = sill__gen_take(g, tops, 1, sizeof *r->first_tops);
        if (!r->going || !r->first_ids || !r->first_logprobs || !r->first_tops) goto nomem;
    }
    for (int32_t i = 0; i < g->n_seqs; i++) {
        gen_seq *q = &g->seqs[i];
        q->ids = sill__gen_take(g, (size_t)g->n_ctx + 1, 1, sizeof *q->ids);
        q->logprobs = sill__gen_take(g, new, 1, sizeof *q->logprobs);
        q->tops = sill__gen_take(g, new, tops, sizeof *q->tops);
        q->text = sill__alloc(text);
        q->text_cap = text;
        if (!q->ids || !q->logprobs || !q->tops || !q->text) goto nomem;
    }
    return SILL_OK;
nomem:
    return sill__fail(err, SILL_ENOMEM, "no memory for %d sequences of up to %d new tokens", g->n_seqs, g->most_new);
}

sill_status sill_generate(sill_session *session, const sill_generate_options *options, sill_next_fn next,
                          sill_generated_fn done, int stream, void *user, sill_error *err) {
    if (!session || !next || !done)
        return sill__fail(err, SILL_EINVAL, "sill_generate: session, next and done must not be NULL");
    gen g = {.session = session, .model = sill__session_model(session), .stream = stream != 0, .next = next, .done = done,
             .user = user, .n_ctx = sill__session_n_ctx(session)};
    sill_status st = sill__options_read(options, &g.o, sizeof g.o, "sill_generate_options", err);
    if (st == SILL_OK) st = check_options(&g, err);
    if (st != SILL_OK) return st;
    const sill__config *c = &g.model->config;
    bool add_bos = g.model->tokenizer && sill__tokenizer_add_bos(g.model->tokenizer);
    g.flags = g.o.tokenize_flags | (add_bos ? SILL_TOKENIZE_BOS : 0u);
    if (g.o.no_bos) g.flags &= ~(uint32_t)SILL_TOKENIZE_BOS;
    g.n_return = SILL_MAX(1, g.o.num_return_sequences);
    g.n_tops = SILL_MAX(0, g.o.logprobs);
    st = sill__sampler_create(&g.o, c->n_vocab, c->eos_ids, g.o.ignore_eos ? 0 : c->n_eos, &g.sampler, err);
    if (st == SILL_OK) st = measure_stops(&g, err);
    if (st == SILL_OK && g.o.constraint) {
        g.allowed = sill__gen_take(&g, ((size_t)c->n_vocab + 63) / 64, 1, sizeof *g.allowed);
        if (!g.allowed) st = sill__fail(err, SILL_ENOMEM, "no memory for a constraint");
    }
    if (st == SILL_OK && g.o.num_beams > 1) {
        g.need_logits = sill__sampler_needs_logits(g.sampler);
        st = sill__beams_run(&g, err);
    } else if (st == SILL_OK) {
        g.need_logits = sill__sampler_needs_logits(g.sampler);
        g.draw = sill__sampler_row(g.sampler, &g.sample) && sill__session_draws(session);
        count_slots(&g);
        st = take_slots(&g, err);
        sill__task task = {.user = &g, .next = next_lane, .refuse = refuse, .rows = rows_done, .fork = fork_lane};
        if (st == SILL_OK) st = sill__guess_begin(&g, err);
        if (g.guess) task.guess = sill__guess_lanes;
        if (st == SILL_OK) st = sill__sched_run(session, &task, err);
        for (int32_t i = 0; g.seqs && i < g.n_seqs; i++)
            if (g.seqs[i].used) sill__guess_free(&g, &g.seqs[i]);
    }
    sill__sampler_free(g.sampler);
    sill__ids_free(&g.prompt);
    for (int32_t i = 0; g.seqs && i < g.n_seqs; i++) sill__free(g.seqs[i].text);
    sill__arena_free(&g.arena);
    return st;
}

/* ---------------------------------------------------------- one prompt */

typedef struct one {
    const char *prompt;
    char *text;
    size_t cap, n_bytes;
    bool given;
    sill_error error;
} one;

static int one_next(void *user, sill_row *row) {
    one *o = user;
    if (o->given) return 0;
    o->given = true;
    row->text = o->prompt;
    row->n_bytes = strlen(o->prompt);
    return 1;
}

static int one_done(void *user, const sill_generated *r) {
    one *o = user;
    if (r->sequence > 0) return 0;
    if (r->status != SILL_OK) {
        sill__fail(&o->error, r->status, "%s", r->error);
        return 0;
    }
    o->n_bytes = r->n_bytes;
    if (r->n_bytes >= o->cap) {
        sill__fail(&o->error, SILL_ERANGE, "the new text has %zu bytes, the buffer has room for %zu", r->n_bytes,
                   o->cap ? o->cap - 1 : 0);
        return 0;
    }
    memcpy(o->text, r->text, r->n_bytes);
    o->text[r->n_bytes] = 0;
    return 0;
}

sill_status sill_generate_text(sill_session *session, const char *prompt, const sill_generate_options *options,
                               char *text, size_t cap, size_t *n_bytes, sill_error *err) {
    one o = {.prompt = prompt, .text = text, .cap = cap};
    if (!prompt || (!text && cap)) return sill__fail(err, SILL_EINVAL, "sill_generate_text: prompt and text must not be NULL");
    sill_status st = sill_generate(session, options, one_next, one_done, 0, &o, err);
    if (n_bytes) *n_bytes = o.n_bytes;
    if (st == SILL_OK && o.error.code != SILL_OK) {
        if (err) *err = o.error;
        st = o.error.code;
    }
    return st;
}
