/*
 * score.c - log-probability of every token of every row given those before it.
 *
 * A text longer than the session is scored in windows of n_ctx tokens that start `stride` apart: the first scores all
 * its tokens, each further one those that no window before it has scored, with at least n_ctx - stride tokens before
 * them. So every token is scored exactly once. With stride = n_ctx the windows have nothing in common, and the first token
 * of each is not scored. A BOS stands in front of the text only, not of later windows; but SILL_LONG_SPLIT_MEAN makes of
 * the windows texts of their own, with a BOS each.
 *
 * A row's context stands in front of its text in one sequence. Both are tokenized as one string, of which the text's are
 * the tokens from the first on that the context alone has not; white space at the context's end counts with the text.
 *
 * Rows that follow each other with the same context share it: its tokens but the last (which is given anew with each text, to
 * say what the text's first is worth) are fed once, and each text is a fork of that.
 *
 * Boundaries need the whole distribution behind every token: full logits, of which the step takes max_sequences rows.
 */
#include "task/task.h"

#include <math.h>

#define COMPANY 32 /* most rows that share a context: all are read before the first is computed */

typedef struct score_row {
    bool truncated, overflowed, split; /* split: a BOS at every n_ctx-th place of ids */
    uint64_t index;
    const char *context;  /* as the source gave it */
    const int32_t *context_ids;
    size_t n_context;     /* bytes or ids */
    sill__ids ids;        /* the front (BOS), the context's, then the text's */
    float *logprobs;      /* (cap) of ids */
    float *boundaries;    /* (cap + 1) in front of ids, and behind the last; NULL unless wanted */
    size_t cap, front, text; /* ids of the front; where the text's begin */
    size_t begin, scored; /* next window's start; ids before `scored` belong to windows that were started */
    int32_t n_open, n_windows;
    int32_t n_company;    /* of the first of rows that share a context: they and itself */
    struct score_row *next, *next_made; /* of the company, or of those to spare; of all */
} score_row;

typedef struct score {
    const sill_model *model;
    sill_score_options o;
    int32_t n_ctx, stride, front_id, n_blocks;
    score_row *made, *spare;
    score_row *current;   /* the row whose windows are being started */
    score_row *ahead;     /* was read to see whether it has the context of those before it */
    bool ended;           /* the source */
    sill__ids scratch;
    sill__str string;
    uint8_t *begins;      /* (n_vocab) with boundaries: the token begins a word, or ends the text */
    sill_next_fn next;
    sill_scored_fn done;
    void *user;
} score;

static sill_status call_done(score *s, const sill_scored *r, sill_error *err) {
    return s->done(s->user, r) ? sill__fail(err, SILL_ECANCELLED, "cancelled by the caller") : SILL_OK;
}

static sill_status row_failed(void *user, uint64_t index, const sill_error *why, sill_error *err) {
    score *s = user;
    sill_scored r = {.index = index, .status = why->code, .error = why->msg};
    return call_done(s, &r, err);
}

/* Takes the BOS of the pieces out again. */
static void join(score *s, score_row *row) {
    size_t n = 0;
    for (size_t i = 0; i < row->ids.n; i++) {
        if (i % (size_t)s->n_ctx == 0) continue;
        row->ids.p[n] = row->ids.p[i];
        row->logprobs[n] = row->logprobs[i];
        if (s->begins) row->boundaries[n] = row->boundaries[i];
        n++;
    }
    if (s->begins) row->boundaries[n] = row->boundaries[row->ids.n];
    row->ids.n = n;
}

static score_row *new_row(score *s) {
    score_row *row = s->spare;
    if (row) s->spare = row->next;
    else if ((row = sill__calloc(1, sizeof *row))) row->next_made = s->made, s->made = row;
    return row;
}

static void drop_row(score *s, score_row *row) {
    row->next = s->spare;
    s->spare = row;
}

static sill_status tell(score *s, score_row *row, sill_error *err) {
    if (row->overflowed) {
        sill_error why = {0};
        sill__overflowed("the log-probability of a token", NAN, &why);
        return row_failed(s, row->index, &why, err);
    }
    for (size_t i = 0; i < row->ids.n; i++)
        if (s->stride == s->n_ctx ? i % (size_t)s->stride == 0 : i == 0) row->logprobs[i] = NAN;
    if (row->split) {
        join(s, row);
        row->text = 0;
    }
    sill_scored r = {.index = row->index, .ids = row->ids.p + row->text, .logprobs = row->logprobs + row->text,
                     .n_ids = row->ids.n - row->text, .n_windows = row->n_windows, .truncated = row->truncated,
                     .n_context = row->split ? 0 : row->text - row->front};
    if (s->begins) r.boundaries = row->boundaries + row->text;
    for (size_t i = 0; i < r.n_ids; i++) {
        if (isnan(r.logprobs[i])) continue;
        r.sum_logprob += (double)r.logprobs[i];
        r.n_scored++;
    }
    return call_done(s, &r, err);
}

static sill_status deliver(score *s, score_row *row, sill_error *err) {
    sill_status st = tell(s, row, err);
    drop_row(s, row);
    return st;
}

/* ---------------------------------------------------------------- rows */

/* Context and text as one string into row->ids, and where the text begins. */
static sill_status read_strings(score *s, const sill_row *in, score_row *row, sill_error *why) {
    size_t n = in->n_context_bytes, at = 0;
    const sill_tokenizer *t = s->model->tokenizer;
    while (n && sill__is_space(in->context[n - 1])) n--;
    sill__str_clear(&s->string);
    if (!sill__str_put(&s->string, in->context, in->n_context_bytes) || !sill__str_put(&s->string, in->text, in->n_bytes))
        return sill__fail(why, SILL_ENOMEM, "no memory for a context of %zu bytes", in->n_context_bytes);
    s->scratch.n = 0;
    sill_status st = n ? sill__ids_text(&s->scratch, t, in->context, n, s->o.tokenize_flags, why) : SILL_OK;
    if (st == SILL_OK && s->string.n) st = sill__ids_text(&row->ids, t, s->string.p, s->string.n, s->o.tokenize_flags, why);
    while (st == SILL_OK && at < s->scratch.n && row->front + at < row->ids.n && row->ids.p[row->front + at] == s->scratch.p[at]) at++;
    row->text = row->front + at;
    return st == SILL_OK ? sill__ids_known(s->model, &row->ids, why) : st;
}

static sill_status read_ids(score *s, const sill_row *in, score_row *row, sill_error *why) {
    sill_status st;
    row->ids.n = row->front = 0;
    if (s->o.bos) {
        row->front = 1;
        if ((st = sill__ids_put(&row->ids, &s->front_id, 1, why)) != SILL_OK) return st;
    }
    row->text = row->front;
    if (!in->context && !in->context_ids) return sill__row_ids(s->model, in, s->o.tokenize_flags, &row->ids, why);
    if (in->context_ids ? !in->ids : in->ids || !in->text)
        return sill__fail(why, SILL_EINVAL, "a row's context and its text must both be text or both ids");
    if (in->context) return read_strings(s, in, row, why);
    if ((st = sill__ids_put(&row->ids, in->context_ids, in->n_context_ids, why)) != SILL_OK) return st;
    row->text = row->ids.n;
    return sill__row_ids(s->model, in, s->o.tokenize_flags, &row->ids, why); /* checks them all */
}

/* The end of the context and the start of the text; of the context at least one token, unless a BOS is there. */
static void truncate(score *s, score_row *row) {
    const size_t room = (size_t)s->n_ctx - row->front, context = row->text - row->front, text = row->ids.n - row->text;
    const size_t keep = SILL_MIN(context, text < room ? room - text : (size_t)(row->front == 0 && context > 0));
    memmove(row->ids.p + row->front, row->ids.p + row->text - keep, (keep + text) * sizeof *row->ids.p);
    row->text = row->front + keep;
    row->ids.n = SILL_MIN(row->text + text, (size_t)s->n_ctx);
    row->truncated = true;
}

/* A BOS in front of every n_ctx - 1 tokens. */
static sill_status split(score *s, score_row *row, sill_error *why) {
    sill__ids *to = &s->scratch;
    sill_status st = SILL_OK;
    to->n = 0;
    for (size_t i = row->front, n; st == SILL_OK && i < row->ids.n; i += n) {
        n = SILL_MIN((size_t)s->n_ctx - 1, row->ids.n - i);
        st = sill__ids_put(to, &s->front_id, 1, why);
        if (st == SILL_OK) st = sill__ids_put(to, row->ids.p + i, n, why);
    }
    if (st != SILL_OK) return st;
    row->ids.n = 0;
    row->split = true;
    return sill__ids_put(&row->ids, to->p, to->n, why);
}

static sill_status reserve(score *s, score_row *row, sill_error *why) {
    size_t bytes;
    if (row->ids.n <= row->cap) return SILL_OK;
    float *p = sill__mul(row->ids.n, sizeof *p, &bytes) ? sill__realloc(row->logprobs, bytes) : NULL;
    if (p) row->logprobs = p;
    float *b = p && s->begins ? sill__realloc(row->boundaries, bytes + sizeof *b) : NULL;
    if (b) row->boundaries = b;
    if (!p || (s->begins && !b)) return sill__fail(why, SILL_ENOMEM, "no memory for %zu log-probabilities", row->ids.n);
    row->cap = row->ids.n;
    return SILL_OK;
}

/* Reads a row into a slot. The errors are the row's. */
static sill_status read_row(score *s, const sill_row *in, score_row *row, sill_error *why) {
    sill_status st;
    row->index = in->index;
    row->context = in->context;
    row->context_ids = in->context_ids;
    row->n_context = in->context ? in->n_context_bytes : in->n_context_ids;
    row->truncated = row->overflowed = row->split = false;
    row->begin = 0;
    row->n_open = row->n_windows = 0;
    row->n_company = 1;
    row->next = NULL;
    if ((st = read_ids(s, in, row, why)) != SILL_OK) return st;
    if (row->ids.n > (size_t)s->n_ctx) {
        const char *what = row->text > row->front ? "the text with its context" : "the text";
        if (s->o.long_policy == SILL_LONG_ERROR)
            return sill__fail(why, SILL_ERANGE, "%s has %zu tokens, more than the %d positions of the session; "
                              "shorten it or choose the long policy window or truncate (--long window)", what, row->ids.n, s->n_ctx);
        if (s->o.long_policy == SILL_LONG_SPLIT_MEAN && row->text > row->front)
            return sill__fail(why, SILL_ERANGE, "%s has %zu tokens, more than the %d positions of the session, and a text with a context "
                              "cannot be split; choose the long policy window or truncate", what, row->ids.n, s->n_ctx);
        if (s->o.long_policy == SILL_LONG_TRUNCATE) truncate(s, row);
        else if (s->o.long_policy == SILL_LONG_SPLIT_MEAN && row->front && (st = split(s, row, why)) != SILL_OK) return st;
    }
    if ((st = reserve(s, row, why)) != SILL_OK) return st;
    for (size_t i = 0; s->begins && i <= row->ids.n; i++) row->boundaries[i] = NAN;
    while (row->begin + (size_t)s->n_ctx <= row->text) row->begin += (size_t)s->stride; /* windows of context alone */
    if (row->begin) row->truncated = true; /* the context's beginning is in none */
    row->scored = row->text;
    return SILL_OK;
}

/* One token follows nothing in its window; only what comes behind it may be wanted. */
static bool has_window(const score *s, const score_row *row) {
    return row->ids.n > row->scored && row->ids.n > row->begin + (s->begins ? 0 : 1);
}

/* The next window of ROW as a lane that has the first BASE tokens already. */
static void start_window(score *s, score_row *row, size_t base, sill__lane *lane) {
    size_t begin = row->begin, end = SILL_MIN(begin + (size_t)s->n_ctx, row->ids.n), first = SILL_MAX(row->scored, begin + 1);
    lane->tokens = row->ids.p + begin + base;
    lane->n = (int32_t)(end - 1 - begin - base);
    lane->first_out = (int32_t)(first - 1 - begin - base);
    if (s->begins) {
        lane->all_logits = true;
        lane->n += end == row->ids.n; /* what comes behind the text */
    } else {
        lane->targets = row->ids.p + first;
    }
    lane->max_length = (int32_t)base + lane->n;
    lane->user = row;
    lane->index = (int32_t)(begin / (size_t)s->stride);
    row->n_windows++;
    row->n_open++;
    row->scored = end;
    row->begin += (size_t)s->stride;
}

/* The longest that the sequence of a row of one window becomes. */
static int32_t length_of(const score *s, const score_row *row) { return (int32_t)row->ids.n - (s->begins ? 0 : 1); }

/* The row has a context that a fork can begin with, which takes a block more than the row alone where it ends within one. */
static bool may_share(const score *s, const score_row *row) {
    return !s->o.no_shared_prefix && (row->context || row->context_ids) && !row->truncated && row->ids.n <= (size_t)s->n_ctx &&
           row->text >= 2 && sill__blocks_needed(length_of(s, row)) < s->n_blocks;
}

static bool same_context(const score_row *a, const score_row *b) {
    if (a->n_context != b->n_context || !a->context != !b->context) return false;
    return a->context ? !memcmp(a->context, b->context, a->n_context)
                      : !memcmp(a->context_ids, b->context_ids, a->n_context * sizeof *a->context_ids);
}

static sill_status take(void *user, const sill_row *in, sill_error *why) {
    score *s = user;
    score_row *row = new_row(s);
    if (!row) return sill__fail(why, SILL_ENOMEM, "no memory for a row");
    sill_status st = read_row(s, in, row, why);
    if (st == SILL_OK) s->ahead = row;
    else drop_row(s, row);
    return st;
}

/* The next row of which something is to be computed; NULL at the end. */
static sill_status pull(score *s, score_row **out, sill_error *err) {
    const sill__pull from = {.next = s->next, .user = s->user, .task = s, .take = take, .failed = row_failed};
    sill_status st = SILL_OK;
    for (bool got = true; !s->ended && !(s->ahead && has_window(s, s->ahead)); s->ended = !got) {
        score_row *bare = s->ahead; /* nothing in it follows anything */
        s->ahead = NULL;
        if (bare && (st = deliver(s, bare, err)) != SILL_OK) return st;
        if ((st = sill__row_pull(&from, &got, err)) != SILL_OK) return st;
    }
    *out = s->ahead;
    s->ahead = NULL;
    return st;
}

/* The rows that follow FIRST with its context, as FIRST's company. Their tokens are those of the context alone up to each one's
 * text, so they agree up to the earliest of these. */
static sill_status find_company(score *s, score_row *first, sill__lane *lane, sill_error *err) {
    score_row *last = first, *row;
    size_t text = first->text;
    int32_t longest = length_of(s, first);
    while (first->n_company < COMPANY) {
        sill_status st = pull(s, &row, err);
        if (st != SILL_OK || !row) return st;
        if (!may_share(s, row) || !same_context(first, row)) {
            s->ahead = row;
            break;
        }
        last->next = row;
        last = row;
        first->n_company++;
        text = SILL_MIN(text, row->text);
        longest = SILL_MAX(longest, length_of(s, row));
        lane->tokens = first->ids.p;
        lane->n = lane->max_length = (int32_t)text - 1;
        lane->fork_length = longest;
        lane->user = first;
    }
    return SILL_OK;
}

static sill_status next_lane(void *user, sill__lane *lane, bool *got, sill_error *err) {
    score *s = user;
    sill_status st;
    *got = true;
    if (!s->current) {
        if ((st = pull(s, &s->current, err)) != SILL_OK) return st;
        if (!s->current) {
            *got = false;
            return SILL_OK;
        }
        if (may_share(s, s->current) && (st = find_company(s, s->current, lane, err)) != SILL_OK) return st;
        if (s->current->n_company > 1) {
            s->current = NULL;
            return SILL_OK;
        }
    }
    start_window(s, s->current, 0, lane);
    if (!has_window(s, s->current)) s->current = NULL;
    return SILL_OK;
}

/* The next row of a company. */
static sill_status fork_lane(void *user, sill__lane *parent, int32_t i, sill__lane *child, sill_error *err) {
    score_row *row = parent->user;
    (void)i;
    (void)err;
    parent->user = row->next;
    start_window(user, row, (size_t)parent->n, child);
    return SILL_OK;
}

static sill_status refuse(void *user, sill__lane *lane, int64_t need, int64_t have, sill_error *err) {
    (void)user;
    (void)lane;
    (void)need;
    (void)have;
    return SILL__BUG(err, "a window is longer than the session"); /* the pool always holds n_ctx positions */
}

/* What full logits say of the rows of a span, whose first token is number FROM of the row's. */
static void take_logits(score *s, score_row *row, const sill__lane *lane, const sill__span *span, size_t from, int32_t at) {
    const size_t n_vocab = (size_t)s->model->config.n_vocab;
    for (int32_t i = SILL_MAX(0, lane->first_out - at); i < span->n; i++) {
        const float *logits = span->logits + (size_t)i * n_vocab;
        const double lse = (double)span->lse[i];
        const size_t to = from + (size_t)i + 1;
        double sum = 0;
        for (size_t k = 0; k < n_vocab; k++)
            if (s->begins[k]) sum += exp((double)logits[k] - lse);
        row->boundaries[to] = (float)log(sum);
        if (to < row->ids.n) row->logprobs[to] = (float)((double)logits[row->ids.p[to]] - lse);
        if (isnan(sum) || (to < row->ids.n && !sill__is_logprob(row->logprobs[to]))) row->overflowed = true;
    }
}

static sill_status rows_done(void *user, sill__lane *lane, const sill__span *span, int32_t at, bool last,
                             sill__fed *then, sill_error *err) {
    score *s = user;
    score_row *row = lane->user;
    const size_t from = (size_t)lane->index * (size_t)s->stride + (size_t)lane->base_n + (size_t)at;
    if (lane->fork_length && !lane->parent) { /* a context */
        lane->n_forks = row->n_company;
        *then = SILL__FED_FORK;
        return SILL_OK;
    }
    if (lane->all_logits) take_logits(s, row, lane, span, from, at);
    if (span->targets) {
        memcpy(row->logprobs + from + (size_t)span->first_out + 1, span->target_logprobs, (size_t)(span->n - span->first_out) * sizeof(float));
        for (int32_t i = 0; i < span->n - span->first_out; i++)
            if (!sill__is_logprob(span->target_logprobs[i])) row->overflowed = true;
    }
    if (!last) return SILL_OK;
    *then = SILL__FED_DONE;
    row->n_open--;
    return row->n_open == 0 && row != s->current ? deliver(s, row, err) : SILL_OK;
}

/* The tokens with which a word begins, or the text ends. */
static sill_status find_beginnings(score *s, sill_error *err) {
    const int32_t n = s->model->config.n_vocab;
    if (!s->model->tokenizer)
        return sill__fail(err, SILL_EUNSUPPORTED, "boundaries of words need a tokenizer, and the model's files hold none");
    if (!(s->begins = sill__calloc((size_t)n, 1))) return sill__fail(err, SILL_ENOMEM, "no memory for %d tokens", n);
    for (int32_t i = 0; i < n; i++) {
        size_t bytes = 0;
        const char *p = sill__tokenizer_bytes(s->model->tokenizer, i, &bytes);
        s->begins[i] = sill__tokenizer_is_special(s->model->tokenizer, i) || (p && bytes && sill__is_space(p[0]));
    }
    return SILL_OK;
}

static sill_status check_options(score *s, sill_error *err) {
    const sill_score_options *o = &s->o;
    if (o->long_policy == SILL_LONG_DEFAULT) s->o.long_policy = SILL_LONG_WINDOW;
    if ((unsigned)s->o.long_policy > SILL_LONG_SPLIT_MEAN)
        return sill__fail(err, SILL_EINVAL, "long_policy %d is none of sill_long's values", (int)s->o.long_policy);
    if (s->o.long_policy == SILL_LONG_SPLIT_MEAN && o->stride && o->stride != s->n_ctx)
        return sill__fail(err, SILL_EINVAL, "stride is for windows that overlap, and a split text has none");
    if (s->n_ctx < 2) return sill__fail(err, SILL_EINVAL, "scoring needs a session of at least 2 positions");
    s->stride = o->stride ? o->stride : s->o.long_policy == SILL_LONG_SPLIT_MEAN ? s->n_ctx : s->n_ctx / 2;
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
               .n_ctx = sill__session_n_ctx(session), .n_blocks = sill__session_free_blocks(session)};
    sill_status st = sill__options_read(options, &s.o, sizeof s.o, "sill_score_options", err);
    if (st == SILL_OK) st = check_options(&s, err);
    if (st == SILL_OK && s.o.boundaries) st = find_beginnings(&s, err);
    if (st != SILL_OK) return st;
    sill__str_init(&s.string, SIZE_MAX / 2);
    sill__task task = {.user = &s, .next = next_lane, .refuse = refuse, .rows = rows_done, .fork = fork_lane};
    st = sill__sched_run(session, &task, err);
    for (score_row *row = s.made, *next_made; row; row = next_made) {
        next_made = row->next_made;
        sill__ids_free(&row->ids);
        sill__free(row->logprobs);
        sill__free(row->boundaries);
        sill__free(row);
    }
    sill__ids_free(&s.scratch);
    sill__str_free(&s.string);
    sill__free(s.begins);
    return st;
}
