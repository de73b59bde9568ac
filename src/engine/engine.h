/*
 * engine.h - sessions: sequences in KV blocks, ragged steps, and the scheduler that keeps the batch full.
 */
#ifndef SILL_ENGINE_H
#define SILL_ENGINE_H

#include "model/model.h"

/* One timeline. Blocks are shared by reference count; a fork shares whole blocks and copies a partial one. */
typedef int32_t sill__seq; /* handle, >= 0 */

/* Tokens to append to one sequence in a step, and what is wanted of their rows. */
typedef struct sill__span {
    sill__seq seq;
    const int32_t *tokens; int32_t n;  /* appended to the sequence */
    int32_t first_out;                 /* rows [first_out, n) of the span are output rows; n: none */
    const int32_t *targets;            /* one target a row from first_out on (score), or NULL */
    const int32_t *last_targets; int32_t n_last_targets; /* several targets of the last row (labels), or none */
    bool want_logits;                  /* full logits of the last row (sampling) */
    bool want_hidden;                  /* final-normed hidden state of the last row (heads, embeddings) */
    /* results, filled by step; point into the session until the next step */
    const float *target_logprobs;      /* (n - first_out) or (n_last_targets) */
    const float *logits;               /* (n_vocab) */
    const float *hidden;               /* (n_embd) */
} sill__span;

const sill_model *sill__session_model(const sill_session *s);
int32_t sill__session_n_ctx(const sill_session *s);
int32_t sill__session_batch_tokens(const sill_session *s);
int32_t sill__session_max_sequences(const sill_session *s);
int32_t sill__session_free_blocks(const sill_session *s);

/* A new empty sequence, or -1 when all handles are in use. */
sill__seq sill__seq_new(sill_session *s);
/* A sequence that continues PARENT's first n positions. -1 when handles or blocks are out. */
sill__seq sill__seq_fork(sill_session *s, sill__seq parent, int32_t n);
void sill__seq_free(sill_session *s, sill__seq seq);
int32_t sill__seq_length(const sill_session *s, sill__seq seq);
/* Blocks that appending n tokens would take. */
int32_t sill__seq_blocks_for(const sill_session *s, sill__seq seq, int32_t n);

/* One ragged step over spans of distinct sequences, in any order. Total tokens <= batch_tokens. On failure
 * the sequences are as before. */
sill_status sill__step(sill_session *s, sill__span *spans, int32_t n_spans, sill_error *err);

#endif
