/*
 * steps.h - ragged batches over five sequences: which tokens come in which step, and what a step looks like as a batch.
 * The ways through the same tokens that must give the same bits.
 */
#ifndef SILL_CHECK_STEPS_H
#define SILL_CHECK_STEPS_H

#include "backend/backend.h"

#define CHECK_SEQS 5
#define CHECK_LEN 602     /* positions of the longest sequence */
#define CHECK_STEP_ROWS 208
#define CHECK_BLOCKS ((CHECK_LEN + SILL__KV_BLOCK - 1) / SILL__KV_BLOCK)

/* n tokens each of some sequences, in this order. */
typedef struct check_part { int seq, n; } check_part;
typedef struct check_step { int n_parts; check_part parts[CHECK_SEQS]; } check_step;
typedef struct check_script { const char *name; int n_steps; check_step steps[6]; } check_script;

/* sill__chk_ragged: prefill of three runs, then decoding with another prompt joining, across block borders. sill__chk_ways: the
 * same tokens on other ways. sill__chk_single: one text, as it is made at a terminal. sill__chk_long: many blocks of one sequence. */
#define N_CHECK_WAYS 3
extern const check_script sill__chk_ragged, sill__chk_ways[N_CHECK_WAYS], sill__chk_single, sill__chk_long;

/* Where the sequences are. Their blocks are not in order, and the last BLOCK is a spare one. */
typedef struct check_seqs { int32_t length[CHECK_SEQS], blocks[CHECK_SEQS][CHECK_BLOCKS], n_blocks, spare; } check_seqs;

static inline void check_seqs_init(check_seqs *s, bool one) {
    const int32_t each = one ? CHECK_BLOCKS : 3, n = one ? CHECK_BLOCKS : CHECK_SEQS * 3;
    memset(s, 0, sizeof *s);
    for (int i = 0; i < (one ? 1 : CHECK_SEQS); i++)
        for (int32_t b = 0; b < each; b++) /* neither 15 nor 19 is a multiple of 7 */
            s->blocks[i][b] = (i + b * (one ? 1 : CHECK_SEQS)) * 7 % n;
    s->spare = n;
    s->n_blocks = n + 1;
}

/* A step as a batch: seq and position of each row; every row is an output row. */
typedef struct check_batch {
    sill__batch batch;
    sill__run runs[CHECK_SEQS];
    int32_t tokens[CHECK_STEP_ROWS], positions[CHECK_STEP_ROWS], out_rows[CHECK_STEP_ROWS], seq[CHECK_STEP_ROWS];
    int32_t target_starts[CHECK_STEP_ROWS + 1], targets[2 * CHECK_STEP_ROWS];
} check_batch;

static inline void check_batch_make(check_batch *b, const check_seqs *s, const check_step *step, int32_t vocab) {
    int32_t n = 0;
    for (int i = 0; i < step->n_parts; i++) {
        int q = step->parts[i].seq;
        b->runs[i] = (sill__run){.first = n, .n = step->parts[i].n, .pos = s->length[q], .blocks = s->blocks[q]};
        for (int k = 0; k < step->parts[i].n; k++, n++) {
            int32_t pos = s->length[q] + k;
            b->seq[n] = q;
            b->positions[n] = pos;
            b->tokens[n] = (q * 31 + pos * 17 + pos * pos) % vocab;
            b->out_rows[n] = n;
            b->target_starts[n] = 2 * n;
            for (int j = 0; j < 2; j++) b->targets[2 * n + j] = (q * 13 + pos * 7 + j * 251 + 1) % vocab;
        }
    }
    b->target_starts[n] = 2 * n;
    b->batch = (sill__batch){n, step->n_parts, n, b->tokens, b->positions, b->runs, b->out_rows};
}

static inline void check_seqs_advance(check_seqs *s, const check_step *step) {
    for (int i = 0; i < step->n_parts; i++) s->length[step->parts[i].seq] += step->parts[i].n;
}

#endif
