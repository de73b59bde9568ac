/* guess.c - see guess.h. */
#include "guess.h"

arg_table cli_guess_table(cli_guess *g) {
    static const arg_option options[] = {
        {"prompt-lookup-num-tokens", 0, ARG_INT, offsetof(cli_guess, lookup), 1, 1024, NULL, "N",
         "try up to N tokens at once that followed the same last tokens before, in prompt and text (transformers: 10)"},
        {"max-matching-ngram-size", 0, ARG_INT, offsetof(cli_guess, ngram), 1, 1024, NULL, "N", "how many last tokens, at most, are looked up (default 2)"},
        {"draft-model", 0, ARG_TEXT, offsetof(cli_guess, draft_model), 0, 0, NULL, "MODEL",
         "try the tokens of this smaller model with the same vocabulary"},
        {"num-assistant-tokens", 0, ARG_INT, offsetof(cli_guess, tokens), 1, 1024, NULL, "N", "how many of them at once, at first (default 5)"},
    };
    return (arg_table){"speculative decoding: the same text, sooner where the tokens that are tried are right", options, SILL_ARRAY_LEN(options), g};
}

bool cli_guess_is_on(const cli_guess *g) { return g->lookup || g->draft_model; }

int cli_guess_check(const cli_guess *g, const sill_generate_options *o, const char *command) {
    if (g->lookup && g->draft_model) return args_usage(command, "--prompt-lookup-num-tokens and --draft-model exclude each other");
    if (g->ngram && !g->lookup) return args_usage(command, "--max-matching-ngram-size is for --prompt-lookup-num-tokens");
    if (g->tokens && !g->draft_model) return args_usage(command, "--num-assistant-tokens is for --draft-model");
    if (cli_guess_is_on(g) && o->num_beams > 1)
        return args_usage(command, "--%s is for one text at a time, not for beams", g->lookup ? "prompt-lookup-num-tokens" : "draft-model");
    return -1;
}

int cli_guess_open(cli_guess *g, const char *command, const cli_model_options *options, const cli_engine *engine, sill_generate_options *o) {
    o->prompt_lookup_num_tokens = g->lookup;
    o->max_matching_ngram_size = g->ngram;
    o->num_assistant_tokens = g->tokens;
    if (!g->draft_model) return -1;
    cli_model_options mo = *options;
    mo.model = g->draft_model;
    mo.tokenizer = NULL;
    mo.dtype = SILL_DTYPE_AUTO; /* --dtype, --ctx and --kv-dtype are the model's, and a draft may be of another kind */
    mo.kv_dtype = SILL_KV_AUTO;
    mo.n_ctx = mo.batch_tokens = 0;
    mo.max_sequences = engine->plan.max_sequences;
    if (mo.memory_mib) mo.memory_mib = (int32_t)SILL_MAX(1, (int64_t)mo.memory_mib - (int64_t)(engine->plan.total_bytes >> 20) - 1);
    const cli_needs needs = {.no_text = true};
    const int status = cli_engine_open(command, &mo, &needs, &g->draft);
    o->assistant = g->draft.session;
    return status;
}

void cli_guess_count(cli_guess *g, const sill_generated *r) {
    g->n_drafted += (uint64_t)SILL_MAX(0, r->n_drafted);
    g->n_accepted += (uint64_t)SILL_MAX(0, r->n_accepted);
}

void cli_guess_say(const cli_guess *g) {
    if (cli_guess_is_on(g))
        cli_say("%llu of %llu tokens that were tried were right", (unsigned long long)g->n_accepted, (unsigned long long)g->n_drafted);
}

void cli_guess_close(cli_guess *g) { cli_engine_close(&g->draft); }
