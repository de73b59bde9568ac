/*
 * head.c - labels from a model's own classification head: its outputs for the last token of a text, through a sigmoid, a
 * softmax or nothing, as transformers' pipeline does. Of a text read in windows the probabilities are averaged, each window
 * counted with the tokens that it adds: so a window that is sure of itself weighs no more than its length, and what adds up
 * to 1 still does. The logits that are told are averaged in the same way.
 */
#include "task/classify.h"

/* Logits of a window, then what they say, each (n_labels), with its weight. */
static void take(void *task, const float *logits, double weight, double *part) {
    const sill__cls *c = task;
    const int32_t n = c->n_labels;
    const bool softmax = c->o.head_function == SILL_HEAD_SOFTMAX, sigmoid = c->o.head_function == SILL_HEAD_SIGMOID;
    double best = (double)logits[0], sum = 0;
    for (int32_t i = 0; i < n; i++) part[i] = weight * (double)logits[i];
    for (int32_t i = 1; i < n; i++) best = SILL_MAX(best, (double)logits[i]);
    for (int32_t i = 0; softmax && i < n; i++) sum += exp((double)logits[i] - best);
    for (int32_t i = 0; i < n; i++) {
        const double x = (double)logits[i];
        part[n + i] = weight * (softmax ? exp(x - best) / sum : sigmoid ? 1.0 / (1.0 + exp(-x)) : x);
    }
}

static sill_status row_done(void *task, const sill__windows_row *row, const double *mean, const sill_error *why, sill_error *err) {
    sill__cls *c = task;
    return why ? sill__cls_failed(c, row->index, why, err) : sill__cls_deliver_scores(c, row, mean, err);
}

sill_status sill__cls_head(sill__cls *c, sill_error *err) {
    sill__windows w = {.session = c->session, .width = 2 * c->n_labels, .scores = true, .flags = c->flags, .long_policy = c->o.long_policy,
                       .what = "classify", .next = c->next, .user = c->user, .task = c, .take = take, .done = row_done};
    return sill__windows_run(&w, err);
}
