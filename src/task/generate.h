/*
 * generate.h - what generate.c and beams.c share: a call of sill_generate, its rows' prompts, stop strings and results.
 */
#ifndef SILL_TASK_GENERATE_H
#define SILL_TASK_GENERATE_H

#include "task/task.h"

#include "constrain/mask.h"
#include "engine/sampler.h"

#define GEN_BYTES_A_TOKEN 8 /* of text, for which room is taken at the start */
#define WHOLE_ROW (-1)

typedef struct gen_row gen_row;
typedef struct gen_seq gen_seq;

typedef struct gen {
    sill_session *session;
    const sill_model *model;
    sill_generate_options o;
    uint32_t flags;
    sill__sampler *sampler;
    bool need_logits, stream;
    bool draw;               /* the device draws, but for the first tokens of several sequences of a row */
    sill__sample_row sample;
    int32_t n_ctx, n_return, n_tops, most_new, n_rows, n_seqs;
    uint64_t *allowed;       /* tokens that the constraint allows */
    size_t longest_stop, *stop_bytes;
    gen_row *rows;
    gen_seq *seqs;
    sill__ids prompt;        /* of the row that was pulled last */
    sill__arena arena;
    sill_next_fn next;
    sill_generated_fn done;
    void *user;
} gen;

/* ---- generate.c's */
sill_status sill__gen_done(gen *g, const sill_generated *result, sill_error *err);
/* A failed SEQUENCE, or WHOLE_ROW. */
sill_status sill__gen_failed(gen *g, uint64_t index, int32_t sequence, size_t n_prompt, const sill_error *why, sill_error *err);
/* The row's ids into g->prompt, and how many it may be continued by. */
sill_status sill__gen_prompt(gen *g, const sill_row *row, int32_t *max_new, sill_error *why);
bool sill__gen_ends(const gen *g, int32_t id);
/* Before a row is filtered: what the constraint, in STATE, allows of its next token; LEFT: tokens that may still come. */
sill_status sill__gen_allow(gen *g, int32_t state, int32_t left, sill_error *why);
/* The text is whole, and nothing may follow. */
bool sill__gen_must_end(const gen *g, int32_t state);
/* The text that a token stands for in an answer, or NULL. */
const char *sill__gen_bytes(const gen *g, int32_t id, size_t *n);
/* Cuts the text before the first stop string, looking where `from` and later bytes can end one. */
bool sill__gen_stops(const gen *g, const char *text, size_t *n, size_t from);
/* Makes room for n bytes more behind those used. */
bool sill__gen_room(char **text, size_t *cap, size_t used, size_t n);
void *sill__gen_take(gen *g, size_t n, size_t m, size_t bytes); /* n * m * bytes from the call's arena */

/* ---- beams.c's */
sill_status sill__beams_check(const gen *g, sill_error *err);
/* All rows of the call. */
sill_status sill__beams_run(gen *g, sill_error *err);

#endif
