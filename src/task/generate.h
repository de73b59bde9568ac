/*
 * generate.h - what generate.c, beams.c and guess.c share: a call of sill_generate, its rows' prompts, stop strings and results.
 */
#ifndef SILL_TASK_GENERATE_H
#define SILL_TASK_GENERATE_H

#include "task/task.h"

#include "constrain/mask.h"
#include "engine/sampler.h"

#define GEN_BYTES_A_TOKEN 8 /* of text, for which room is taken at the start */
#define WHOLE_ROW (-1)

/* Rows and sequences of generate.c and guess.c. */
typedef struct gen_row {
    bool used;
    uint64_t index, key;
    int32_t n_prompt, max_new, n_open; /* sequences not delivered yet */
    int32_t *going;                    /* (n_return) sequences that go on after their first token ... */
    int32_t *first_ids;                /* (n_return) ... which was this */
    float *first_logprobs;
    sill_top *first_tops;              /* (n_tops), the same for all */
} gen_row;

typedef struct gen_seq {
    bool used;
    gen_row *row;
    int32_t sequence, n_new, n_sent_ids, state; /* state: of the constraint */
    int32_t *ids;    /* (n_ctx + 1) prompt, then new ids, then those guessed */
    float *logprobs; /* (max_new) */
    sill_top *tops;  /* (max_new, n_tops) */
    char *text;      /* (text_cap) */
    size_t text_cap, n_text, n_sent;
    const char *finish;
    sill__seq draft;      /* what of it the assistant has computed; -1: nothing */
    int32_t n_ask;        /* tokens that are guessed at once */
    int32_t n_drafted, n_accepted;
} gen_seq;

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
    struct gen_guess *guess; /* NULL: every token is a step */
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

/* ---- guess.c's */
sill_status sill__guess_check(const gen *g, sill_error *err);
/* Takes what guessing needs from the call's arena, if the options ask for it. */
sill_status sill__guess_begin(gen *g, sill_error *err);
/* The scheduler's question. */
sill_status sill__guess_lanes(void *user, sill__lane *const *lanes, int32_t n, int32_t room, sill_error *err);
/* Of N guesses OK came true. */
void sill__guess_learn(const gen *g, gen_seq *q, int32_t n, int32_t ok);
/* The sequence begins; it ends. */
void sill__guess_new(const gen *g, gen_seq *q);
void sill__guess_free(const gen *g, gen_seq *q);
/* Where the ids that transformers' prompt lookup would try next begin in ids (n), *n_found of them, at most `most`. */
int32_t sill__prompt_lookup(const int32_t *ids, int32_t n, int32_t max_ngram, int32_t most, int32_t *n_found);

/* ---- beams.c's */
sill_status sill__beams_check(const gen *g, sill_error *err);
/* All rows of the call. */
sill_status sill__beams_run(gen *g, sill_error *err);

#endif
