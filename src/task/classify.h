/*
 * classify.h - what the two halves of classification share: classify.c makes lanes of rows, classify_result.c makes results of
 * what comes back; head.c runs classification heads.
 */
#ifndef SILL_TASK_CLASSIFY_H
#define SILL_TASK_CLASSIFY_H

#include "task/prompt.h"
#include "task/windows.h"

typedef struct sill__cls_row {
    bool used, truncated;
    uint64_t index;
    size_t n_tokens;
    sill__ids ids;       /* the prompt; multi-label: what the prompts of all labels begin with */
    sill__ids forks;     /* multi-label: what they go on with, and the words behind it */
    size_t *fork_starts; /* multi-label: (n_forks + 1) into forks */
    size_t *prompt_starts; /* multi-label: (n_labels + 1) into forks while it still holds whole prompts */
    double *sums;        /* (n_words) log-likelihoods */
    int32_t n_open;
} sill__cls_row;

typedef struct sill__cls {
    sill_session *session;
    const sill_model *model;
    sill_classify_options o;
    const char *const *labels; /* (n_labels) their words, or NULL: the head's */
    bool multi;
    int32_t n_labels, n_ctx, n_rows;
    /* zero-shot. Words: the labels' words; multi-label: yes and no. What is summed are n_words log-likelihoods a row: of the
     * labels; multi-label: of yes for each label, then of no for each. */
    sill__prompt prompt;
    int32_t n_words, n_kinds;  /* kinds: words that differ; 2 for multi-label */
    const char **words;        /* (n_kinds) */
    sill__ids label_ids;
    size_t *starts;      /* (n_kinds + 1) into label_ids */
    int32_t *first_ids;  /* (n_kinds) */
    int32_t *longer;     /* words of more than one token */
    int32_t n_longer, longest;
    int32_t n_forks;     /* of a row */
    sill__ids prefix;    /* the tokens that the shared sequence holds */
    sill__seq shared;
    double *content_free; /* (n_words) log-likelihoods; set once */
    bool have_content_free;
    /* the call */
    uint32_t flags;
    sill__cls_row *rows;
    sill__ids scratch;
    float *out;          /* (4, n_labels) */
    double *work;        /* (n_labels) */
    uint8_t *chosen;     /* (n_labels) */
    sill_next_fn next;
    sill_classified_fn done;
    void *user;
} sill__cls;

static inline size_t sill__cls_length(const sill__cls *c, int32_t word) { return c->starts[word + 1] - c->starts[word]; }

/* What sill_classify's options come to, for a model: the labels' words, checked. */
sill_status sill__cls_options(sill__cls *c, const sill_classify_options *options, sill_error *err);
void sill__cls_free(sill__cls *c);

/* A row's result to the caller; the row is free again. */
sill_status sill__cls_deliver(sill__cls *c, sill__cls_row *row, sill_error *err);
/* MEAN (2, n_labels): a head's outputs, and what they say. */
sill_status sill__cls_deliver_scores(sill__cls *c, const sill__windows_row *row, const double *mean, sill_error *err);
/* All rows through the model's head. */
sill_status sill__cls_head(sill__cls *c, sill_error *err);
sill_status sill__cls_failed(sill__cls *c, uint64_t index, const sill_error *why, sill_error *err);

#endif
