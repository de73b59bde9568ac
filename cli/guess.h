/* guess.h - speculative decoding as options: prompt lookup, or a draft model beside the one that generates. */
#ifndef SILL_CLI_GUESS_H
#define SILL_CLI_GUESS_H

#include "common.h"

typedef struct cli_guess {
    int32_t lookup, ngram, tokens; /* 0: not given */
    const char *draft_model;
    cli_engine draft;              /* what it is when open */
    uint64_t n_drafted, n_accepted;
} cli_guess;

arg_table cli_guess_table(cli_guess *g);
/* What can be checked without a model. Returns -1 or the exit status. */
int cli_guess_check(const cli_guess *g, const sill_generate_options *o, const char *command);
/* Any of the options asks for guesses. */
bool cli_guess_is_on(const cli_guess *g);
/* Sets the options, and opens the draft model in what memory ENGINE, which is open, leaves of --memory. -1 or the exit status. */
int cli_guess_open(cli_guess *g, const char *command, const cli_model_options *options, const cli_engine *engine, sill_generate_options *o);
/* Counts a whole result's guesses; tells them. */
void cli_guess_count(cli_guess *g, const sill_generated *r);
void cli_guess_say(const cli_guess *g);
void cli_guess_close(cli_guess *g);

#endif
