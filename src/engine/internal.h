/*
 * internal.h - what the files of the engine share: the block pool, a session's insides, its plan.
 */
#ifndef SILL_ENGINE_INTERNAL_H
#define SILL_ENGINE_INTERNAL_H

#include "engine/engine.h"

/* ---- KV blocks by number: reference counts and a stack of free ones, lowest first, so that a pool that is
 * never full touches its first blocks only. */
typedef struct sill__blocks {
    int32_t n, n_free;
    int32_t *refs;  /* (n) */
    int32_t *stack; /* (n): the first n_free are free */
} sill__blocks;

sill_status sill__blocks_init(sill__blocks *b, int32_t n, sill_error *err);
void sill__blocks_free(sill__blocks *b);
int32_t sill__blocks_take(sill__blocks *b);           /* with one reference; -1 when none is free */
void sill__blocks_ref(sill__blocks *b, int32_t block);
void sill__blocks_drop(sill__blocks *b, int32_t block);

/* ---- sizes of a session, decided before anything is allocated */
typedef struct sill__layout {
    int32_t n_ctx, batch_tokens, max_sequences, n_handles, max_targets;
    sill__path path;
    sill__queue_shape queue;
    int32_t n_vocab, n_labels;
    sill__kv_shape kv;
    /* byte offsets in the work buffer (x, q, attn, ff) and in the result buffer, each 256-aligned */
    size_t x, q, attn, ff, work_bytes;
    size_t logits, lse, target_logprobs, top_ids, top_logprobs, hidden, scores, out_bytes;
    size_t ring_ids, ring_logprobs, drawn_ids, drawn_logprobs; /* of steps that have a place in the ring (ahead.c) */
    uint64_t kv_bytes, scratch_bytes;
    uint64_t largest_bytes; /* of one buffer */
    bool in_pieces;         /* the device takes buffers of that size */
    uint64_t call_bytes; /* of scratch_bytes: not the session's, but left to a task call of the usual size */
} sill__layout;

/* Decides the sizes: what the options name is kept, what they leave open is chosen so that KV + scratch +
 * `weights_to_come` fit in `available` where that is possible. plan->fits and advice say whether it is. */
sill_status sill__layout_plan(const sill__config *config, const sill__backend *ops, const sill__device *device,
                              sill__kv_type kv, const sill_session_options *options, uint64_t weight_bytes,
                              uint64_t weights_to_come, uint64_t available, sill__layout *layout,
                              sill_plan_info *plan, sill_error *err);
/* The KV type that the options and the compute type ask for. */
sill_status sill__kv_type_for(sill_kv_dtype wanted, sill__compute compute, sill__kv_type *out, sill_error *err);
/* Session options after defaults; checks the struct's size. */
sill_status sill__session_options_read(const sill_session_options *in, sill_session_options *out, sill_error *err);

/* ---- a session */
typedef struct sill__seq_state {
    bool used;
    int32_t n_tokens, n_blocks;
    int32_t *blocks; /* (blocks of n_ctx) */
} sill__seq_state;

/* What is computed of the output rows of a step; each kind is one pass over its own rows. */
enum { SILL__PASS_TARGETS, SILL__PASS_TOP, SILL__PASS_LOGITS, SILL__PASS_DRAW, SILL__PASS_HIDDEN, SILL__PASS_SCORES, SILL__N_PASSES };
typedef struct sill__pass {
    int32_t n_rows, max_rows, n_top;
    int32_t *rows;     /* (max_rows) */
    sill__batch batch; /* the step's batch with this pass's rows */
} sill__pass;

/* ---- steps ahead (ahead.c): where a device runs steps by itself, those that decoding will ask for next, unless a
 * sequence ends, are submitted before they are asked for, with tokens that the device takes from the step in front. */
#define SILL__AHEAD_SPANS 64   /* sequences decoded together */
#define SILL__AHEAD_TOP 16     /* best tokens of a row */
#define SILL__AHEAD_BURST 4    /* most steps of one submission */
#define SILL__AHEAD (2 * SILL__AHEAD_BURST) /* most steps ahead of the one waited for */
#define SILL__AHEAD_RINGS (SILL__AHEAD + 2) /* places for results: of the steps ahead, the one read, the one before it */
#define SILL__AHEAD_RUN 32     /* steps in a row that were asked for, for each step of a submission: of a text no more than a
                                * sixteenth is computed in vain, or two steps */
#define SILL__AHEAD_SECONDS 0.02 /* a submission of several steps takes no longer: tokens come out as they are ready */

typedef struct sill__ahead_step {
    sill__ticket ticket;
    bool opens;                /* the first of its submission */
    int32_t n, ring;
    sill__seq seqs[SILL__AHEAD_SPANS];  /* -1: it has ended */
    int32_t ends[SILL__AHEAD_SPANS];    /* tokens in the sequence behind the step */
    sill__sample_row draws[SILL__AHEAD_SPANS];
} sill__ahead_step;

typedef struct sill__ahead {
    sill__ahead_step last;     /* the step whose results were handed out last; n 0: none that others may follow */
    sill__ahead_step steps[SILL__AHEAD]; /* submitted behind it, in order */
    int32_t n_steps, ring;
    int32_t n_top;             /* of them all */
    bool draws;
    int32_t left;              /* steps behind `last` that may be asked for */
    int32_t run;               /* steps that were asked for since some were not */
    sill_error error;          /* why there are no more steps: told to who asks for the next */
    double patience, since, seconds; /* SECONDS above; when a submission was last waited for; what a step takes */
    int32_t n_since;           /* steps handed out since then */
    uint64_t n_used, n_lost, n_submitted; /* steps that were asked for, that were not; submissions */
    /* of the step that is being submitted */
    int32_t tokens[SILL__AHEAD_SPANS], positions[SILL__AHEAD_SPANS], rows[SILL__AHEAD_SPANS], from[SILL__AHEAD_SPANS];
    sill__run runs[SILL__AHEAD_SPANS];
    sill__batch batch;
} sill__ahead;

struct sill_session {
    sill_model *model;
    sill__layout layout;
    sill__kv *kv;
    sill__queue *queue;
    sill__buf *work_buf, *out_buf;
    sill__work work;
    uint8_t *out;      /* the result buffer as the host sees it */
    uint8_t *out_copy; /* where the device's memory is not shared: the host's copy (out points to it) */
    sill__blocks blocks;
    sill__seq_state *seqs; /* (n_handles) */
    int32_t *tables;       /* block tables of all handles */
    sill_error fork_error; /* of a copy at a fork: comes out of the next step */
    sill__batch empty;
    /* the step's arrays */
    int32_t *tokens, *positions, *target_starts, *targets;
    sill__run *runs;
    sill__sample_row *draws; /* (max_sequences) */
    sill__pass passes[SILL__N_PASSES];
    sill__ahead ahead;
    sill__arena arena;
    uint64_t spare_bytes; /* what the memory limit leaves to a task call */
    bool limited;         /* the caller named the limit */
    uint64_t n_computed;  /* tokens that steps have computed, but for those ahead */
};

/* ---- step.c's, for ahead.c */
/* Bytes from the result buffer's start where the best ids of a pass go and their log-probabilities, and what is drawn. ring
 * below 0: the step has no place in the ring. */
typedef struct sill__places { size_t top_ids, top_logprobs, drawn_ids, drawn_logprobs; } sill__places;
sill__places sill__result_places(const sill__layout *l, int kind, int32_t ring);
/* What a decoding step does with its rows, behind the layers. draws: NULL where the best are wanted alone. */
void sill__record_rows(sill_session *s, const sill__places *at, int32_t n_top, const sill__sample_row *draws);
/* Brings results to the host where the memory is not shared. */
sill_status sill__fetch(sill_session *s, size_t at, size_t bytes, sill_error *err);

/* ---- ahead.c's, for step.c */
/* The step was computed ahead: its results are handed out, or *st tells what failed. */
bool sill__ahead_take(sill_session *s, sill__span *spans, int32_t n_spans, sill_status *st, sill_error *err);
/* A step of these spans comes: true where others may follow it; then s->ahead.last.ring says where its results go. What
 * was submitted for another future is given up. */
bool sill__ahead_begin(sill_session *s, const sill__span *spans, int32_t n_spans);
/* Behind its submit. */
void sill__ahead_follow(sill_session *s);
/* The step failed. */
void sill__ahead_stop(sill_session *s);
/* The sequence ends: its number may become another's. */
void sill__ahead_forget(sill_session *s, sill__seq seq);

#endif
