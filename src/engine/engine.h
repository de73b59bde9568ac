/*
 * engine.h - sessions: sequences in KV blocks, ragged steps, and the scheduler that keeps the batch full.
 */
#ifndef SILL_ENGINE_H
#define SILL_ENGINE_H

#include "model/model.h"

#define SILL__MAX_TOP 128        /* most alternatives that one row can be asked for */
#define SILL__MAX_LAST_TARGETS 4096 /* most targets of one row (labels) */

/* One timeline. Blocks are shared by reference count; a fork shares whole blocks and copies a partial one. */
typedef int32_t sill__seq; /* handle, >= 0 */

/* Tokens to append to one sequence in a step, and what is wanted of their rows. */
typedef struct sill__span {
    sill__seq seq;
    const int32_t *tokens; int32_t n;  /* appended to the sequence */
    int32_t first_out;                 /* rows [first_out, n) have a target each; n: none have */
    const int32_t *targets;            /* one target a row from first_out on (score), or NULL */
    const int32_t *last_targets; int32_t n_last_targets; /* several targets of the last row (labels), or none; not
                                          together with `targets` */
    bool want_logits;                  /* full logits of the last row (sampling), and their log-sum-exp */
    bool all_logits;                   /* full logits of every row; n <= max_sequences */
    bool want_hidden;                  /* final-normed hidden state of the last row (embeddings) */
    bool all_hidden;                   /* the same of every row */
    int32_t n_last;                    /* want_logits, n_top and draw are for the last n_last rows; a draw's
                                          step counts up from row to row. 0: for the last alone */
    bool want_scores;                  /* outputs of the classification head for the last row */
    int32_t n_top;                     /* the k best of the last row; <= SILL__MAX_TOP */
    const sill__sample_row *draw;      /* a token drawn from the last row, or NULL; only where sill__session_draws */
    int32_t n_more;                    /* the sequence will go on by the token drawn, else by the best one, for at most so
                                          many more steps, unless it ends: these may be computed ahead. 0: it may not */
    /* results, filled by step; point into the session until the next step */
    const float *target_logprobs;      /* (n - first_out) or (n_last_targets) */
    const float *logits;               /* (n_last, n_vocab), or (n, n_vocab) with all_logits */
    const float *lse;                  /* (n_last), with want_logits */
    const float *hidden;               /* (n_embd), or (n, n_embd) with all_hidden */
    const float *scores;               /* (n_labels) */
    const int32_t *top_ids;            /* (n_last) rows of n_top, top_stride apart */
    const float *top_logprobs;
    int32_t top_stride;
    const int32_t *drawn_id;           /* (n_last) as sill__op_sample gives it: below 0 where the logits are no numbers */
    const float *drawn_logprob;        /* (n_last) of the distribution before the filters */
} sill__span;

const sill_model *sill__session_model(const sill_session *s);
int32_t sill__session_n_ctx(const sill_session *s);
int32_t sill__session_batch_tokens(const sill_session *s);
int32_t sill__session_max_sequences(const sill_session *s);
int32_t sill__session_free_blocks(const sill_session *s);
uint64_t sill__session_spare_bytes(const sill_session *s); /* what the memory limit leaves to a task call */
uint64_t sill__session_n_computed(const sill_session *s); /* tokens that steps have computed so far, but for those ahead */
int32_t sill__session_max_targets(const sill_session *s); /* most targets in one step */
bool sill__session_draws(const sill_session *s); /* the device can draw tokens */
/* Steps that are computed ahead, and whether the next of them has this sequence. Who asks next for anything but exactly
 * those sequences that it has loses them. */
int32_t sill__session_n_ahead(const sill_session *s);
bool sill__session_is_ahead(const sill_session *s, sill__seq seq);

/* A new empty sequence, or -1 when all handles are in use. */
sill__seq sill__seq_new(sill_session *s);
/* A sequence that continues PARENT's first n positions. -1 when handles or blocks are out. */
sill__seq sill__seq_fork(sill_session *s, sill__seq parent, int32_t n);
void sill__seq_free(sill_session *s, sill__seq seq);
/* Cuts the sequence to its first n positions and gives back the blocks behind them. A block in which it then ends and that
 * others share is copied, as at a fork: false, and nothing is changed, where no block is free for that. */
bool sill__seq_truncate(sill_session *s, sill__seq seq, int32_t n);
int32_t sill__seq_length(const sill_session *s, sill__seq seq);
/* Blocks that appending n tokens would take. */
int32_t sill__seq_blocks_for(const sill_session *s, sill__seq seq, int32_t n);

/* Blocks that hold n tokens. */
static inline int32_t sill__blocks_needed(int32_t n) {
    return n / SILL__KV_BLOCK + (n % SILL__KV_BLOCK != 0);
}

/* One ragged step over spans of distinct sequences, in any order. Total tokens <= batch_tokens. On failure
 * the sequences are as before. */
sill_status sill__step(sill_session *s, sill__span *spans, int32_t n_spans, sill_error *err);

#endif
