/*
 * sched.h - the scheduler: pulls lanes from a task while they fit, packs prompts and decoded tokens into ragged steps,
 * and hands the rows back. A lane is one sequence with tokens to feed; a task says what to feed and what it wants.
 *
 * A lane is admitted only when the KV blocks of its longest possible sequence are free, those of one fork included, so
 * that nothing that runs can run out of blocks. Forks of admitted lanes go before new lanes.
 *
 * A task may guess how lanes go on that have one token left to feed: the guessed tokens are fed with it, their rows come
 * together, and where they were wrong the task cuts the sequence again. Rows for guesses are those that lanes leave: a step
 * has room for the outputs of max_sequences rows.
 */
#ifndef SILL_ENGINE_SCHED_H
#define SILL_ENGINE_SCHED_H

#include "engine/engine.h"

typedef struct sill__lane {
    /* The task's, set before the lane starts and again whenever it goes on. Outputs are wanted as in sill__span;
     * those of the last row come with the last of the tokens. */
    const int32_t *tokens;
    int32_t n;
    int32_t first_out;             /* targets[i - first_out] is the target of token i */
    const int32_t *targets;
    const int32_t *last_targets;
    int32_t n_last_targets;
    int32_t n_top;
    bool want_logits, want_hidden, want_scores;
    bool all_logits;               /* full logits of every token: of a step in all, max_sequences tokens of such lanes */
    bool all_hidden;               /* the hidden state of every token, not of the last alone */
    bool draw;                     /* a token is drawn from the last row by `sample`, where sill__session_draws */
    sill__sample_row sample;
    bool guesses;                  /* the task is asked for guesses */
    int32_t n_guess;               /* tokens behind the first that it guessed; each of the 1 + n_guess rows has the outputs
                                      that the last is asked for (span->n_last) */
    bool goes_on;                  /* it will go on by the token drawn, else by the best one, unless it ends */
    /* The task's, before the lane starts. */
    sill__seq base;                /* continues a copy of this sequence's first base_n positions; -1: starts empty */
    int32_t base_n;
    int32_t max_length;            /* the longest that the sequence will become */
    int32_t fork_length;           /* the longest that a fork of it will become; 0: it has none */
    void *user;
    int32_t index;
    /* The scheduler's. */
    sill__seq seq;
    int32_t at;                    /* tokens fed */
    int32_t state, n_forks, next_fork, n_children, reserved;
    bool lent;                     /* parent: the reserved fork runs; child: it runs on its parent's reserve */
    struct sill__lane *parent;
    uint64_t order;
} sill__lane;

typedef enum sill__fed { SILL__FED_DONE, SILL__FED_MORE, SILL__FED_FORK } sill__fed;

typedef struct sill__task {
    void *user;
    /* Sets *lane (zeroed, base -1) and *got; *got false: there are no more. */
    sill_status (*next)(void *user, sill__lane *lane, bool *got, sill_error *err);
    /* The lane can never run in this session: it needs `need` tokens of KV and the session has `have`. */
    sill_status (*refuse)(void *user, sill__lane *lane, int64_t need, int64_t have, sill_error *err);
    /* Tokens [at, at + span->n) of the lane were computed. With `last`, all were, and *then says what follows: DONE (the
     * sequence is freed), MORE (the task has set tokens, n and what is wanted), FORK (the task has set lane->n_forks; the
     * sequence is kept until all forks are done). */
    sill_status (*rows)(void *user, sill__lane *lane, const sill__span *span, int32_t at, bool last, sill__fed *then,
                        sill_error *err);
    /* Sets the I-th fork of a lane: *child is zeroed and continues the whole parent. NULL: the task never forks. */
    sill_status (*fork)(void *user, sill__lane *parent, int32_t i, sill__lane *child, sill_error *err);
    /* Before a step: lanes with `guesses` and one token left, which may get up to `room` guesses together (lane->n_guess, and
     * lane->n with them; within max_length). A guess lives for that step. NULL: the task never guesses. */
    sill_status (*guess)(void *user, sill__lane *const *lanes, int32_t n, int32_t room, sill_error *err);
} sill__task;

/* Runs until the task has no more lanes. A status other than OK from a callback ends the run and is returned. All
 * sequences that the run made are freed in any case. */
sill_status sill__sched_run(sill_session *s, const sill__task *task, sill_error *err);

#endif
