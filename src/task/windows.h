/*
 * windows.h - rows of which one result each is wanted (a hidden state, the outputs of a classification head), read whole
 * or, where they are longer than the session, in windows whose results are averaged.
 *
 * Windows hold as many tokens as the session takes, BOS included where a text begins with it: it stands in front of each.
 * SPLIT_MEAN: windows side by side. WINDOW: each moves on by half of its tokens, so that what it adds has half a window
 * before it. A window counts with the tokens that it adds, and in the order of the text, so that the sum is the same bits
 * whatever finishes first.
 */
#ifndef SILL_TASK_WINDOWS_H
#define SILL_TASK_WINDOWS_H

#include "task/task.h"

typedef struct sill__windows_row {
    bool used, truncated;
    uint64_t index;
    size_t n_tokens;             /* of the text, BOS not counted */
    int32_t n_windows, n_open;
    sill__ids ids, wide;         /* the text; of more than one window: these one behind the other, `stride` ids each */
    size_t stride, step, body, front;
    double *parts;               /* (n_windows, width): what each window gave, added up over the tokens that it adds */
    size_t parts_cap;
} sill__windows_row;

typedef struct sill__windows {
    /* The task's. */
    sill_session *session;
    int32_t width;               /* values of a result */
    bool scores, all_tokens;     /* outputs of the head; hidden states of all tokens, added up; neither: of the last token */
    uint32_t flags;              /* of the tokenizer */
    sill_long long_policy;
    const char *what;            /* "embed": for messages */
    sill_next_fn next;
    void *user;                  /* of next */
    void *task;                  /* of the following */
    /* What a window gave (n: of `width`, or of the head's outputs), counted with WEIGHT, into a row of parts; NULL: itself. */
    void (*take)(void *task, const float *result, double weight, double *part);
    /* MEAN: (width), or the row's error. */
    sill_status (*done)(void *task, const sill__windows_row *row, const double *mean, const sill_error *why, sill_error *err);
    /* Its own. */
    sill__windows_row *rows, *current;
    int32_t n_rows, n_ctx, n_started;
    double *mean;
} sill__windows;

/* Checks the policy, then runs all rows. */
sill_status sill__windows_run(sill__windows *w, sill_error *err);

#endif
