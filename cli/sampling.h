/* sampling.h - the options that say how text is generated; shared by generate and chat. */
#ifndef SILL_CLI_SAMPLING_H
#define SILL_CLI_SAMPLING_H

#include "common.h"

typedef struct cli_sampling {
    sill_generate_options o; /* zero: default; before cli_sampling_prepare also -1 where 0 is a value: not given */
    bool do_sample, greedy, ignore_eos;
    int32_t top_k;           /* -1: not given; 0: off, as in transformers */
    int32_t default_new_tokens; /* of the command, where neither maximum is given */
    arg_list choices;
    const char *regex, *schema, **choice_texts;
    const sill_model *model;
    sill_constraint *constraint;
    char constraint_sha256[65]; /* of what it was made of */
    int early_stopping;      /* index in the option's choices; -1: not given */
    float length_penalty;    /* NaN: not given */
    int compat;              /* index in the option's choices; 0: none */
    arg_list stop, bias, bad_words, suppress, begin_suppress;
    int32_t *bias_ids, *bad_ids, *suppress_ids, *begin_ids, *word_ids;
    float *bias_values, *word_values;
    size_t *bad_ends, *bias_ends;
} cli_sampling;

void cli_sampling_init(cli_sampling *s);
arg_table cli_sampling_table(cli_sampling *s);
arg_table cli_sampling_table_chat(cli_sampling *s); /* the same, as a conversation has it */
/* What can be checked and converted without a model. Returns -1 or the exit status. */
int cli_sampling_check(cli_sampling *s, const char *command);
/* Completes s->o with what needs the model: the defaults of --compat, bad words, biased ids. */
int cli_sampling_prepare(cli_sampling *s, const char *command, const cli_engine *engine);
void cli_sampling_free(cli_sampling *s);

#endif
