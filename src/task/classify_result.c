/* classify_result.c - see classify.h: log-likelihoods and outputs of heads into probabilities, a choice, and what is said of it. */
#include "task/classify.h"

static sill_status call_done(sill__cls *c, const sill_classified *r, sill_error *err) {
    return c->done(c->user, r) ? sill__fail(err, SILL_ECANCELLED, "cancelled by the caller") : SILL_OK;
}

sill_status sill__cls_failed(sill__cls *c, uint64_t index, const sill_error *why, sill_error *err) {
    sill_classified r = {.index = index, .status = why->code, .error = why->msg, .n_labels = c->n_labels, .label = -1};
    return call_done(c, &r, err);
}

static void softmax(const double *x, int32_t n, float *out) {
    double best = x[0], sum = 0;
    for (int32_t i = 1; i < n; i++) best = x[i] > best ? x[i] : best;
    for (int32_t i = 0; i < n; i++) sum += exp(x[i] - best);
    for (int32_t i = 0; i < n; i++) out[i] = (float)(exp(x[i] - best) / sum);
}

static float sigmoid(double x) { return (float)(1.0 / (1.0 + exp(-x))); }

static double plogp(double p) { return p > 0 ? p * log(p) : 0; }

/* What r->probs say. Exclusive: they sum to 1. */
static void decide(const sill__cls *c, sill_classified *r, bool exclusive) {
    int32_t n = c->n_labels, second = -1;
    float threshold = c->o.threshold == 0 ? 0.5f : c->o.threshold, margin = 2, confidence = 1;
    double entropy = 0;
    r->label = 0;
    for (int32_t i = 1; i < n; i++)
        if (r->probs[i] > r->probs[r->label]) r->label = i;
    for (int32_t i = 0; i < n; i++) {
        float p = r->probs[i];
        if (i != r->label && (second < 0 || p > r->probs[second])) second = i;
        entropy -= plogp(p) + (exclusive ? 0 : plogp(1.0 - (double)p));
        margin = SILL_MIN(margin, 2 * fabsf(p - (c->multi ? threshold : 0.5f)));
        confidence = SILL_MIN(confidence, SILL_MAX(p, 1 - p));
    }
    if (c->multi) {
        for (int32_t i = 0; i < n; i++) r->n_chosen += c->chosen[i] = r->probs[i] >= threshold;
        r->chosen = c->chosen;
    } else if (exclusive || second >= 0) {
        margin = r->probs[r->label] - (second >= 0 ? r->probs[second] : 0.0f);
        confidence = r->probs[r->label];
    }
    r->margin = margin;
    r->entropy = (float)entropy;
    float below = c->o.needs_human_below == 0.0f ? 0.1f : c->o.needs_human_below;
    r->needs_human = r->margin < below || confidence < c->o.min_confidence ||
                     (r->n_tokens == 0 && below >= 0); /* no text: the template alone was labelled */
}

/* Probabilities of all labels from x (n_words). */
static void to_probs(const sill__cls *c, const double *x, float *out) {
    if (!c->multi) softmax(x, c->n_labels, out);
    else
        for (int32_t i = 0; i < c->n_labels; i++) out[i] = sigmoid(x[i] - x[c->n_labels + i]);
}

/* The error of a text, or of the content-free input, which ends the call. */
static sill_status no_result(sill__cls *c, const sill__cls_text *text, const sill_error *why, sill_error *err) {
    if (c->have_content_free) return sill__cls_failed(c, text->index, why, err);
    if (err) *err = *why;
    sill__fail_context(err, "content-free input");
    return why->code;
}

/* The probabilities that sums (n_words) are worth: raw, norm, calibrated, then the logits, each (n_labels). */
static void read_sums(sill__cls *c, const double *sums, float *out) {
    const int32_t n = c->n_labels;
    to_probs(c, sums, out);
    for (int32_t i = 0; i < c->n_words; i++) c->work[i] = sums[i] / (double)sill__cls_length(c, c->multi ? i / n : i);
    to_probs(c, c->work, out + n);
    for (int32_t i = 0; i < c->n_words; i++) c->work[i] = sums[i] - c->content_free[i];
    to_probs(c, c->work, out + 2 * n);
    for (int32_t i = 0; i < n; i++) out[3 * n + i] = (float)(c->multi ? sums[i] - sums[n + i] : sums[i]);
}

/* The means over a text's pieces into c->out, in the order of the text, so that they are the same bits whatever finished first. */
static void read_pieces(sill__cls *c, const sill__cls_text *text) {
    const int32_t n = 4 * c->n_labels;
    double weight = 0;
    for (int32_t i = 0; i < n; i++) c->mean[i] = 0;
    for (int32_t k = 0; k < text->n_pieces; k++) {
        read_sums(c, text->sums + (size_t)k * (size_t)c->n_words, c->out);
        for (int32_t i = 0; i < n; i++) c->mean[i] += text->weights[k] * (double)c->out[i];
        weight += text->weights[k];
    }
    for (int32_t i = 0; text->n_pieces > 1 && i < n; i++) c->out[i] = (float)(c->mean[i] / weight);
}

static sill_status tell(sill__cls *c, const sill__cls_text *text, sill_error *err) {
    const int32_t n = c->n_labels;
    float *raw = c->out, *norm = raw + n, *calibrated = norm + n, *logits = calibrated + n;
    sill_error why = {0};
    if (text->why.code != SILL_OK) return no_result(c, text, &text->why, err);
    for (size_t i = 0; i < (size_t)text->n_pieces * (size_t)c->n_words; i++)
        if (!sill__is_logprob(text->sums[i])) {
            sill__overflowed("the log-probability of a label", text->sums[i], &why);
            return no_result(c, text, &why, err);
        }
    if (!c->have_content_free) { /* the content-free input's own row */
        memcpy(c->content_free, text->sums, (size_t)c->n_words * sizeof *text->sums);
        c->have_content_free = true;
        return SILL_OK;
    }
    read_pieces(c, text);
    sill_classified r = {.index = text->index, .n_labels = n, .raw = raw, .norm = norm, .calibrated = calibrated, .logits = logits,
                         .n_tokens = text->n_tokens, .truncated = text->truncated, .n_windows = text->n_pieces};
    r.probs = c->o.prob == SILL_PROB_RAW ? raw : c->o.prob == SILL_PROB_CALIBRATED ? calibrated : norm;
    for (int32_t i = 0; i < n; i++) /* all labels at -infinity */
        if (isnan(r.probs[i])) {
            sill__overflowed("the probability of a label", NAN, &why);
            return sill__cls_failed(c, text->index, &why, err);
        }
    decide(c, &r, !c->multi);
    return call_done(c, &r, err);
}

sill_status sill__cls_deliver(sill__cls *c, sill__cls_text *text, sill_error *err) {
    sill_status st = tell(c, text, err);
    text->used = false;
    return st;
}

sill_status sill__cls_deliver_scores(sill__cls *c, const sill__windows_row *row, const double *mean, sill_error *err) {
    int32_t n = c->n_labels;
    float *logits = c->out + n;
    sill_error why = {0};
    for (int32_t i = 0; i < n; i++) {
        if (!isfinite(mean[i])) {
            sill__overflowed("an output of the classification head", mean[i], &why);
            return sill__cls_failed(c, row->index, &why, err);
        }
        logits[i] = (float)mean[i];
        c->out[i] = (float)mean[n + i];
    }
    sill_classified r = {.index = row->index, .n_labels = n, .probs = c->out, .logits = logits, .n_tokens = row->n_tokens,
                         .truncated = row->truncated, .n_windows = row->n_windows};
    if (c->o.head_function != SILL_HEAD_NONE) {
        decide(c, &r, c->o.head_function == SILL_HEAD_SOFTMAX);
    } else {
        r.margin = r.entropy = NAN;
        for (int32_t i = 1; i < n; i++) /* a regression's outputs are values, no choice */
            if (logits[i] > logits[r.label]) r.label = i;
        if (c->model->config.problem == SILL__PROBLEM_REGRESSION) r.label = -1;
    }
    return call_done(c, &r, err);
}
