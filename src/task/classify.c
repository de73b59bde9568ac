/*
 * classify.c - labels for texts. Zero-shot: the log-likelihood of each label as the continuation of a prompt. The first
 * token of every label is read off the prompt's last row; labels of more tokens continue forks of the prompt. With a
 * classification head: its outputs for the last token.
 */
#include "task/prompt.h"

#include <math.h>

typedef struct cls_row {
    bool used, truncated;
    uint64_t index;
    size_t n_tokens;
    sill__ids ids;
    double *sums; /* (n_labels) log-likelihoods */
    int32_t n_open;
} cls_row;

typedef struct cls {
    sill_session *session;
    const sill_model *model;
    sill_classify_options o;
    int32_t n_labels, n_ctx, n_rows;
    /* zero-shot */
    sill__prompt prompt;
    sill__ids label_ids;
    size_t *starts;      /* (n_labels + 1) into label_ids */
    int32_t *first_ids;  /* (n_labels) */
    int32_t *longer;     /* labels of more than one token */
    int32_t n_longer, longest;
    sill__ids prefix;    /* the tokens that the shared sequence holds */
    sill__seq shared;
    double *content_free; /* (n_labels) log-likelihoods; set once */
    bool have_content_free;
    /* the call */
    uint32_t flags;
    cls_row *rows;
    sill__ids scratch;
    float *out;          /* (4, n_labels) */
    double *work;        /* (n_labels) */
    sill_next_fn next;
    sill_classified_fn done;
    void *user;
} cls;

/* ------------------------------------------------------------- results */

static sill_status call_done(cls *c, const sill_classified *r, sill_error *err) {
    return c->done(c->user, r) ? sill__fail(err, SILL_ECANCELLED, "cancelled by the caller") : SILL_OK;
}

static sill_status row_failed(cls *c, uint64_t index, const sill_error *why, sill_error *err) {
    sill_classified r = {.index = index, .status = why->code, .error = why->msg, .n_labels = c->n_labels, .label = -1};
    return call_done(c, &r, err);
}

static void softmax(const double *x, int32_t n, float *out) {
    double best = x[0], sum = 0;
    for (int32_t i = 1; i < n; i++) best = x[i] > best ? x[i] : best;
    for (int32_t i = 0; i < n; i++) sum += exp(x[i] - best);
    for (int32_t i = 0; i < n; i++) out[i] = (float)(exp(x[i] - best) / sum);
}

static double plogp(double p) { return p > 0 ? p * log(p) : 0; }

/* The error of a row whose numbers are none. */
static sill_status overflowed(cls *c, cls_row *row, const char *what, double value, sill_error *err) {
    sill_error why = {0};
    row->used = false;
    sill__overflowed(what, value, &why);
    return row_failed(c, row->index, &why, err);
}

/* Label, margin and entropy from r->probs. */
static void decide(const cls *c, sill_classified *r, bool exclusive) {
    int32_t n = c->n_labels, second = -1;
    double entropy = 0;
    r->label = 0;
    for (int32_t i = 1; i < n; i++)
        if (r->probs[i] > r->probs[r->label]) r->label = i;
    for (int32_t i = 0; i < n; i++)
        if (i != r->label && (second < 0 || r->probs[i] > r->probs[second])) second = i;
    for (int32_t i = 0; i < n; i++)
        entropy -= plogp(r->probs[i]) + (exclusive ? 0 : plogp(1.0 - r->probs[i]));
    if (exclusive || second >= 0) r->margin = r->probs[r->label] - (second >= 0 ? r->probs[second] : 0.0f);
    else r->margin = fabsf(2 * r->probs[0] - 1);
    r->entropy = (float)entropy;
    float below = c->o.needs_human_below == 0.0f ? 0.1f : c->o.needs_human_below;
    r->needs_human = r->margin < below || (r->n_tokens == 0 && below >= 0); /* no text: the template alone was labelled */
}

static sill_status deliver(cls *c, cls_row *row, sill_error *err) {
    int32_t n = c->n_labels;
    float *raw = c->out, *norm = raw + n, *calibrated = norm + n, *logits = calibrated + n;
    double worst = 0;
    for (int32_t i = 0; i < n; i++)
        if (!sill__is_logprob(row->sums[i])) worst = row->sums[i];
    if (!c->have_content_free) { /* the content-free input's own row */
        if (!sill__is_logprob(worst)) {
            sill__overflowed("the log-probability of a label", worst, err);
            sill__fail_context(err, "content-free input");
            return SILL_EDEVICE;
        }
        memcpy(c->content_free, row->sums, (size_t)n * sizeof *row->sums);
        c->have_content_free = true;
        row->used = false;
        return SILL_OK;
    }
    if (!sill__is_logprob(worst)) return overflowed(c, row, "the log-probability of a label", worst, err);
    softmax(row->sums, n, raw);
    for (int32_t i = 0; i < n; i++) c->work[i] = row->sums[i] / (double)(c->starts[i + 1] - c->starts[i]);
    softmax(c->work, n, norm);
    for (int32_t i = 0; i < n; i++) c->work[i] = row->sums[i] - c->content_free[i];
    softmax(c->work, n, calibrated);
    for (int32_t i = 0; i < n; i++) logits[i] = (float)row->sums[i];
    sill_classified r = {.index = row->index, .n_labels = n, .raw = raw, .norm = norm, .calibrated = calibrated,
                         .logits = logits, .n_tokens = row->n_tokens, .truncated = row->truncated};
    r.probs = c->o.prob == SILL_PROB_RAW ? raw : c->o.prob == SILL_PROB_CALIBRATED ? calibrated : norm;
    for (int32_t i = 0; i < n; i++) /* all labels at -infinity */
        if (isnan(r.probs[i])) return overflowed(c, row, "the probability of a label", NAN, err);
    decide(c, &r, true);
    sill_status st = call_done(c, &r, err);
    row->used = false;
    return st;
}

static sill_status deliver_scores(cls *c, cls_row *row, const float *scores, sill_error *err) {
    int32_t n = c->n_labels;
    sill__problem problem = c->model->config.problem;
    bool sigmoid = problem != SILL__PROBLEM_REGRESSION && (problem == SILL__PROBLEM_MULTI || n == 1);
    for (int32_t i = 0; i < n; i++) {
        if (!isfinite(scores[i])) return overflowed(c, row, "an output of the classification head", scores[i], err);
        c->work[i] = scores[i];
        c->out[i] = sigmoid ? (float)(1.0 / (1.0 + exp(-(double)scores[i]))) : scores[i];
    }
    if (problem == SILL__PROBLEM_SINGLE && n > 1) softmax(c->work, n, c->out);
    sill_classified r = {.index = row->index, .n_labels = n, .probs = c->out, .logits = scores,
                         .n_tokens = row->n_tokens, .truncated = row->truncated};
    if (problem != SILL__PROBLEM_REGRESSION) decide(c, &r, !sigmoid);
    else r.label = -1, r.margin = r.entropy = NAN; /* a value, no choice */
    sill_status st = call_done(c, &r, err);
    row->used = false;
    return st;
}

/* ---------------------------------------------------------------- rows */

static sill_status too_long(const cls *c, size_t n, size_t limit, sill_error *why) {
    return sill__fail(why, SILL_ERANGE, "the %s has %zu tokens, more than the %zu that fit into the session's %d positions; "
                      "shorten the text or choose the long policy truncate (--long truncate)", c->o.labels ? "prompt with the text" : "text",
                      n, limit, c->n_ctx);
}

static sill_status read_prompt(cls *c, sill_row *in, cls_row *row, sill_error *why) {
    size_t limit = (size_t)SILL_MAX(0, c->n_ctx - (c->longest - 1));
    sill_status st = sill__prompt_ids(&c->prompt, in, &row->ids, why);
    if (st != SILL_OK) return st;
    row->n_tokens = in->n_ids;
    if (!in->ids) {
        c->scratch.n = 0;
        st = sill__ids_text(&c->scratch, c->model->tokenizer, in->text, in->n_bytes,
                            c->prompt.chat ? 0 : c->o.tokenize_flags, why); /* no control tokens inside a message */
        row->n_tokens = c->scratch.n;
        if (st != SILL_OK) return st;
    }
    if (row->ids.n <= limit) return SILL_OK;
    if (c->o.long_policy != SILL_LONG_TRUNCATE) return too_long(c, row->ids.n, limit, why);
    row->truncated = true;
    return sill__prompt_truncate(&c->prompt, in, limit, &row->ids, why);
}

static sill_status read_text(cls *c, const sill_row *in, cls_row *row, sill_error *why) {
    row->ids.n = 0;
    sill_status st = sill__row_ids(c->model, in, c->flags, &row->ids, why);
    if (st != SILL_OK) return st;
    bool bos = !in->ids && (c->flags & SILL_TOKENIZE_BOS);
    row->n_tokens = row->ids.n - (bos && row->ids.n ? 1 : 0);
    if (row->ids.n == 0) return sill__fail(why, SILL_EINVAL, "the text is empty: it has no token to classify");
    if (row->ids.n > (size_t)c->n_ctx) {
        if (c->o.long_policy != SILL_LONG_TRUNCATE) return too_long(c, row->ids.n, (size_t)c->n_ctx, why);
        row->ids.n = (size_t)c->n_ctx;
        row->truncated = true;
    }
    /* transformers takes the rightmost token that is not padding, the first if all are. */
    int32_t pad = c->model->config.pad_id;
    while (pad >= 0 && row->ids.n > 1 && row->ids.p[row->ids.n - 1] == pad) row->ids.n--;
    return SILL_OK;
}

static void start_prompt(cls *c, cls_row *row, sill__lane *lane) {
    int32_t n = (int32_t)row->ids.n, same = 0;
    int32_t most = SILL_MIN(n - 1, (int32_t)c->prefix.n);
    while (same < most && row->ids.p[same] == c->prefix.p[same]) same++;
    if (c->shared < 0) same = 0;
    lane->base = same ? c->shared : -1;
    lane->base_n = same;
    lane->tokens = row->ids.p + same;
    lane->n = n - same;
    lane->last_targets = c->first_ids;
    lane->n_last_targets = c->n_labels;
    lane->max_length = n;
    lane->fork_length = c->n_longer ? n + c->longest - 1 : 0;
    row->n_open = c->n_longer;
}

static sill_status next_lane(void *user, sill__lane *lane, bool *got, sill_error *err) {
    cls *c = user;
    sill_status st;
    for (;;) {
        sill_row in;
        sill_error why = {0};
        cls_row *row = NULL;
        if ((st = sill__row_next(c->next, c->user, &in, got, err)) != SILL_OK || !*got) return st;
        for (int32_t i = 0; i < c->n_rows && !row; i++)
            if (!c->rows[i].used) row = &c->rows[i];
        if (!row) return SILL__BUG(err, "no slot for a row");
        row->index = in.index;
        row->truncated = false;
        st = c->o.labels ? read_prompt(c, &in, row, &why) : read_text(c, &in, row, &why);
        if (st == SILL_OK) {
            row->used = true;
            lane->user = row;
            if (c->o.labels) {
                start_prompt(c, row, lane);
                return SILL_OK;
            }
            lane->tokens = row->ids.p;
            lane->n = lane->max_length = (int32_t)row->ids.n;
            lane->want_scores = true;
            return SILL_OK;
        }
        if (sill__is_fatal(st)) {
            if (err) *err = why;
            return st;
        }
        if (!c->have_content_free && c->o.labels) {
            if (err) *err = why;
            sill__fail_context(err, "content-free input");
            return st;
        }
        if ((st = row_failed(c, in.index, &why, err)) != SILL_OK) return st;
    }
}

static sill_status refuse(void *user, sill__lane *lane, int64_t need, int64_t have, sill_error *err) {
    cls *c = user;
    cls_row *row = lane->user;
    sill_error why = {0};
    sill__fail(&why, SILL_ENOFIT, "the prompt and its labels need %lld positions and the session has room for %lld",
               (long long)need, (long long)have);
    row->used = false;
    if (c->o.labels && !c->have_content_free) {
        if (err) *err = why;
        return why.code;
    }
    return row_failed(c, row->index, &why, err);
}

static sill_status rows_done(void *user, sill__lane *lane, const sill__span *span, int32_t at, bool last,
                             sill__fed *then, sill_error *err) {
    cls *c = user;
    cls_row *row = lane->user;
    (void)at;
    *then = SILL__FED_DONE;
    if (lane->parent) { /* a longer label: its tokens after the first */
        for (int32_t i = 0; span->targets && i < span->n - span->first_out; i++)
            row->sums[lane->index] += (double)span->target_logprobs[i];
        return last && --row->n_open == 0 ? deliver(c, row, err) : SILL_OK;
    }
    if (!last) return SILL_OK;
    if (!c->o.labels) return deliver_scores(c, row, span->scores, err);
    for (int32_t i = 0; i < c->n_labels; i++) row->sums[i] = (double)span->target_logprobs[i];
    if (!c->n_longer) return deliver(c, row, err);
    lane->n_forks = c->n_longer;
    *then = SILL__FED_FORK;
    return SILL_OK;
}

static sill_status fork_lane(void *user, sill__lane *parent, int32_t i, sill__lane *child, sill_error *err) {
    cls *c = user;
    int32_t label = c->longer[i];
    (void)err;
    child->tokens = c->label_ids.p + c->starts[label];
    child->n = (int32_t)(c->starts[label + 1] - c->starts[label]) - 1;
    child->targets = child->tokens + 1;
    child->user = parent->user;
    child->index = label;
    return SILL_OK;
}

/* ------------------------------------------------------------ the call */

static sill_status read_labels(cls *c, sill_error *err) {
    const sill_classify_options *o = &c->o;
    sill_status st;
    for (int32_t i = 0; i < c->n_labels; i++) {
        c->starts[i] = c->label_ids.n;
        if ((st = sill__prompt_label(&c->prompt, o->labels[i], &c->label_ids, err)) != SILL_OK) return st;
        int32_t n = (int32_t)(c->label_ids.n - c->starts[i]);
        if (n > 1) c->longer[c->n_longer++] = i;
        c->longest = SILL_MAX(c->longest, n);
        for (int32_t j = 0; j < i; j++)
            if (c->starts[j + 1] - c->starts[j] == (size_t)n &&
                !memcmp(c->label_ids.p + c->starts[j], c->label_ids.p + c->starts[i], (size_t)n * sizeof(int32_t)))
                return sill__fail(err, SILL_EINVAL, "labels %d and %d are the same: \"%.80s\"", j + 1, i + 1, o->labels[i]);
        c->starts[i + 1] = c->label_ids.n;
    }
    for (int32_t i = 0; i < c->n_labels; i++) c->first_ids[i] = c->label_ids.p[c->starts[i]];
    return SILL_OK;
}

/* Computes the tokens that the prompts of all rows begin with. Found as what two prompts of different texts share: where
 * a text changes the tokens before it, those are not in. */
static sill_status share_prefix(cls *c, sill_error *err) {
    sill__ids other = {0};
    sill_row a = {.text = "a", .n_bytes = 1}, b = {.text = "1", .n_bytes = 1};
    sill_status st = sill__prompt_ids(&c->prompt, &a, &c->prefix, err);
    if (st == SILL_OK) st = sill__prompt_ids(&c->prompt, &b, &other, err);
    size_t n = 0;
    while (st == SILL_OK && n < c->prefix.n && n < other.n && c->prefix.p[n] == other.p[n]) n++;
    sill__ids_free(&other);
    c->prefix.n = SILL_MIN(n, (size_t)c->n_ctx);
    if (st != SILL_OK || c->prefix.n == 0) return st;
    if ((c->shared = sill__seq_new(c->session)) < 0) return SILL__BUG(err, "no sequence for the shared prefix");
    size_t chunk = (size_t)sill__session_batch_tokens(c->session);
    for (size_t at = 0; at < c->prefix.n && st == SILL_OK; at += chunk) {
        sill__span span = {.seq = c->shared, .tokens = c->prefix.p + at, .n = (int32_t)SILL_MIN(chunk, c->prefix.n - at)};
        st = sill__step(c->session, &span, 1, err);
    }
    return st;
}

typedef struct one_row { sill_row row; bool given; } one_row;

static int one_next(void *user, sill_row *row) {
    one_row *o = user;
    if (o->given) return 0;
    o->given = true;
    *row = o->row;
    return 1;
}

static sill_status prepare_labels(cls *c, const sill__task *task, sill_error *err) {
    const char *text = c->o.content_free ? c->o.content_free : "N/A";
    one_row only = {.row = {.text = text, .n_bytes = strlen(text)}};
    size_t n = (size_t)c->n_labels;
    sill_status st = sill__prompt_init(&c->prompt, c->model, c->o.prompt, c->o.no_chat != 0, c->o.tokenize_flags, err);
    if (st != SILL_OK) return st;
    c->starts = sill__calloc(n + 1, sizeof *c->starts);
    c->first_ids = sill__calloc(n, sizeof *c->first_ids);
    c->longer = sill__calloc(n, sizeof *c->longer);
    c->content_free = sill__calloc(n, sizeof *c->content_free);
    if (!c->starts || !c->first_ids || !c->longer || !c->content_free)
        return sill__fail(err, SILL_ENOMEM, "no memory for %zu labels", n);
    for (int32_t i = 0; i < c->n_rows; i++)
        if (!(c->rows[i].sums = sill__calloc(n, sizeof(double))))
            return sill__fail(err, SILL_ENOMEM, "no memory for %zu labels", n);
    if ((st = read_labels(c, err)) != SILL_OK) return st;
    if (!c->o.no_shared_prefix && (st = share_prefix(c, err)) != SILL_OK) return st;
    sill_next_fn next = c->next;
    void *user = c->user;
    c->next = one_next;
    c->user = &only;
    st = sill__sched_run(c->session, task, err);
    c->next = next;
    c->user = user;
    return st;
}

static sill_status check_options(cls *c, sill_error *err) {
    const sill_classify_options *o = &c->o;
    if (o->labels && (o->n_labels == 0 || o->n_labels > SILL__MAX_LAST_TARGETS))
        return sill__fail(err, SILL_ERANGE, "%zu labels, expected 1 to %d", o->n_labels, SILL__MAX_LAST_TARGETS);
    for (size_t i = 0; o->labels && i < o->n_labels; i++)
        if (!o->labels[i] || !*o->labels[i]) return sill__fail(err, SILL_EINVAL, "label %zu is empty", i + 1);
    if (o->labels && !c->model->head)
        return sill__fail(err, SILL_EUNSUPPORTED, "the model has a classification head and no language-model head: it gives "
                          "its own labels, not others");
    if (!o->labels && !c->model->score)
        return sill__fail(err, SILL_EINVAL, "no labels were given, and the model has no classification head of its own");
    if ((unsigned)o->prob > SILL_PROB_CALIBRATED)
        return sill__fail(err, SILL_EINVAL, "prob %d is none of sill_prob's values", (int)o->prob);
    if (isnan(o->needs_human_below))
        return sill__fail(err, SILL_EINVAL, "needs_human_below is NaN, expected a number");
    if (o->long_policy != SILL_LONG_DEFAULT && o->long_policy != SILL_LONG_ERROR && o->long_policy != SILL_LONG_TRUNCATE)
        return sill__fail(err, SILL_EUNSUPPORTED, "a long text can be refused or truncated here, not split or windowed");
    return SILL_OK;
}

sill_status sill_classify(sill_session *session, const sill_classify_options *options, sill_next_fn next,
                          sill_classified_fn done, void *user, sill_error *err) {
    if (!session || !next || !done)
        return sill__fail(err, SILL_EINVAL, "sill_classify: session, next and done must not be NULL");
    cls c = {.session = session, .model = sill__session_model(session), .shared = -1, .next = next, .done = done,
             .user = user, .n_ctx = sill__session_n_ctx(session), .n_rows = sill__session_max_sequences(session) + 1};
    sill_status st = sill__options_read(options, &c.o, sizeof c.o, "sill_classify_options", err);
    if (st == SILL_OK) st = check_options(&c, err);
    if (st != SILL_OK) return st;
    c.n_labels = c.o.labels ? (int32_t)c.o.n_labels : c.model->config.n_labels;
    c.flags = c.o.tokenize_flags;
    if (c.model->tokenizer && sill__tokenizer_add_bos(c.model->tokenizer)) c.flags |= SILL_TOKENIZE_BOS;
    sill__task task = {.user = &c, .next = next_lane, .refuse = refuse, .rows = rows_done, .fork = fork_lane};
    c.rows = sill__calloc((size_t)c.n_rows, sizeof *c.rows);
    c.out = sill__calloc(4 * (size_t)c.n_labels, sizeof *c.out);
    c.work = sill__calloc((size_t)c.n_labels, sizeof *c.work);
    if (!c.rows || !c.out || !c.work) st = sill__fail(err, SILL_ENOMEM, "no memory for %d labels", c.n_labels);
    if (st == SILL_OK && c.o.labels) st = prepare_labels(&c, &task, err);
    if (st == SILL_OK) st = sill__sched_run(session, &task, err);
    if (c.shared >= 0) sill__seq_free(session, c.shared);
    for (int32_t i = 0; c.rows && i < c.n_rows; i++) {
        sill__ids_free(&c.rows[i].ids);
        sill__free(c.rows[i].sums);
    }
    sill__prompt_free(&c.prompt);
    sill__ids_free(&c.label_ids);
    sill__ids_free(&c.prefix);
    sill__ids_free(&c.scratch);
    sill__free(c.starts);
    sill__free(c.first_ids);
    sill__free(c.longer);
    sill__free(c.content_free);
    sill__free(c.work);
    sill__free(c.out);
    sill__free(c.rows);
    return st;
}
