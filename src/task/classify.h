/*
 * classify.h - what the parts of classification share: classify_pieces.c makes prompts of rows, classify.c lanes of prompts,
 * classify_result.c results of what comes back; head.c runs classification heads.
 */
#ifndef SILL_TASK_CLASSIFY_H
#define SILL_TASK_CLASSIFY_H

#include "task/prompt.h"
#include "task/windows.h"

/* A row's text: one piece, or several where it is longer than the prompt leaves room for. */
typedef struct sill__cls_text {
    bool used, truncated;
    uint64_t index;
    size_t n_tokens;
    int32_t n_pieces, n_open; /* started; of these not finished */
    double *sums;        /* (n_pieces, n_words) log-likelihoods */
    double *weights;     /* (n_pieces) tokens that a piece adds to those before it */
    size_t cap;          /* pieces */
    sill_error why;      /* what failed: the text has no result */
} sill__cls_text;

/* A piece under way. */
typedef struct sill__cls_row {
    bool used;
    sill__cls_text *text;
    int32_t piece;
    sill__ids ids;       /* the prompt; multi-label: what the prompts of all labels begin with */
    sill__ids forks;     /* multi-label: what they go on with, and the words behind it */
    size_t *fork_starts; /* multi-label: (n_forks + 1) into forks */
    size_t *prompt_starts; /* multi-label: (n_labels + 1) into forks while it still holds whole prompts */
    int32_t n_open;      /* forks */
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
    sill__cls_row *rows;   /* (n_rows) */
    sill__cls_text *texts; /* (n_rows) */
    sill__cls_text *current; /* of which more pieces are to be started */
    sill_row whole;      /* as the source gave it */
    size_t *ends;        /* (n_ends + 1) bytes (of ids: ids) of the current text before its token i */
    size_t n_ends, ends_cap;
    size_t at, covered, body; /* tokens: where the next piece begins; those in a piece before it; the most of a piece */
    sill__ids scratch;
    float *out;          /* (4, n_labels) */
    double *work;        /* (n_words) */
    double *mean;        /* (4, n_labels) */
    uint8_t *chosen;     /* (n_labels) */
    sill_next_fn next;
    sill_classified_fn done;
    void *user;
} sill__cls;

static inline size_t sill__cls_length(const sill__cls *c, int32_t word) { return c->starts[word + 1] - c->starts[word]; }

/* What sill_classify's options come to, for a model: the labels' words, checked. */
sill_status sill__cls_options(sill__cls *c, const sill_classify_options *options, sill_error *err);
void sill__cls_free(sill__cls *c);

/* classify_pieces.c: a row becomes a text, and c->current its next piece, ready to run, in ROW; c->current is NULL behind its last.
 * *got false: it had no further piece. The errors are the row's. */
sill_status sill__cls_text_begin(sill__cls *c, const sill_row *in, sill__cls_text *text, sill_error *why);
sill_status sill__cls_text_piece(sill__cls *c, sill__cls_row *row, bool *got, sill_error *why);

static inline double *sill__cls_sums(const sill__cls *c, const sill__cls_row *row) { return row->text->sums + (size_t)row->piece * (size_t)c->n_words; }

/* A text's result to the caller; the text is free again. */
sill_status sill__cls_deliver(sill__cls *c, sill__cls_text *text, sill_error *err);
/* MEAN (2, n_labels): a head's outputs, and what they say. */
sill_status sill__cls_deliver_scores(sill__cls *c, const sill__windows_row *row, const double *mean, sill_error *err);
/* All rows through the model's head. */
sill_status sill__cls_head(sill__cls *c, sill_error *err);
sill_status sill__cls_failed(sill__cls *c, uint64_t index, const sill_error *why, sill_error *err);

/* The tokens of the shortest and of the longest of the labels' words (multi-label: of yes and no) that the options come to. */
sill_status sill__classify_lengths(const sill_model *model, const sill_classify_options *options, size_t *least, size_t *most, sill_error *err);

#endif
