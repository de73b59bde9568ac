/* generate.c - `sill generate`: prompts from arguments, a file or standard input, continued. */
#include <stdlib.h>
#include <string.h>

#include "guess.h"
#include "sampling.h"

typedef struct generate_options {
    cli_model_options model;
    cli_corpus_options corpus;
    cli_text_options text;
    cli_sampling sampling;
    cli_guess guess;
    const char *file;
    int32_t logprobs;
    bool no_special;
} generate_options;

typedef struct generate_task {
    generate_options *o;
    const sill_generate_options *g;
    const sill_tokenizer *tokenizer;
    bool put_prompt, put_sequence, put_tops, put_score;
    /* prompts that are not a file */
    const char *const *texts;
    const size_t *bytes;
    size_t n_texts, next;
    sill__str *answers;  /* (n_texts, n_sequences): waiting to be printed in order */
    size_t printed;
    uint64_t lost;       /* bytes without a token */
    int failed;
    bool echo;           /* to a terminal: prompt, then the text as it is made */
} generate_task;

/* ---- results as rows */

static void put_tops(cli_run *run, sill__record *record, const sill_generated *r, int32_t n) {
    sill__str *s = &run->json;
    sill__str_clear(s);
    sill__str_put(s, "[", 1);
    for (size_t i = 0; r->tops && i < r->n_ids; i++) {
        sill__str_puts(s, i ? ",[" : "[");
        for (int32_t k = 0; k < n; k++) {
            const sill_top *top = &r->tops[i * (size_t)n + (size_t)k];
            sill__str_putf(s, "%s{\"id\":%d,\"logprob\":", k ? "," : "", (int)top->id);
            sill__put_json_f32(s, top->logprob);
            sill__str_put(s, "}", 1);
        }
        sill__str_put(s, "]", 1);
    }
    sill__str_put(s, "]", 1);
    sill__record_json(record, s->p, s->n);
}

static int row_done(void *user, const sill_generated *r) {
    cli_run *run = user;
    generate_task *t = run->task;
    if (!r->final) return cli_stop;
    if (r->status != SILL_OK)
        return t->put_sequence && r->sequence >= 0 ? sill__flow_fail_sequence(run->flow, r->index, r->sequence, r->error)
                                                   : sill__flow_fail(run->flow, r->index, r->error);
    cli_guess_count(&t->o->guess, r);
    sill__record *record = sill__flow_begin(run->flow, r->index, r->sequence);
    if (!record) return 0;
    run->tokens += r->n_ids + (r->sequence > 0 ? 0 : r->n_prompt);
    if (t->put_prompt) {
        const sill__cell *text = &record->row->cells[run->text_slot];
        sill__record_text(record, text->p, text->n);
    }
    sill__record_text(record, r->text, r->n_bytes);
    cli_put_ids(run, record, r->ids, r->n_ids);
    if (r->logprobs) cli_put_floats(run, record, r->logprobs, r->n_ids);
    else sill__record_null(record);
    sill__record_text(record, r->finish_reason ? r->finish_reason : "", r->finish_reason ? strlen(r->finish_reason) : 0);
    sill__record_uint(record, t->g->seed);
    if (t->put_sequence) sill__record_int(record, r->sequence);
    if (t->put_score) sill__record_f32(record, r->score);
    if (t->put_tops) put_tops(run, record, r, t->o->logprobs);
    sill__record_end(record, NULL);
    return sill__flow_commit(run->flow);
}

static const cli_default defaults[] = {{"max-new-tokens", "20"}, {"min-new-tokens", "0"}, {"temperature", "1"}, {"top-k", "50"}, {"top-p", "1"},
                                       {"typical-p", "1"}, {"repetition-penalty", "1"}, {"num-beams", "1"}, {"length-penalty", "1"}, {"early-stopping", "false"}, {"num-return-sequences", "1"}, {"seed", "0"},
                                       {"long", "error"}, {NULL, NULL}};

static sill_status rows(cli_run *run, sill_error *err) {
    const generate_task *t = run->task;
    return sill_generate(run->engine->session, t->g, cli_run_next, row_done, 0, run, err);
}

static int run_rows(cli_run *run, generate_task *t, const cli_engine *engine) {
    const char *fields[10];
    size_t n = 0;
    bool named_prompt = run->options->in.text ? !strcmp(run->options->in.text, "prompt")
                                           : sill__reader_format(run->reader) == SILL__FORMAT_TXT || sill__reader_format(run->reader) == SILL__FORMAT_FILE;
    t->put_prompt = !named_prompt;
    t->put_sequence = t->g->num_return_sequences > 1;
    t->put_score = t->g->num_beams > 1;
    t->put_tops = t->o->logprobs > 0;
    if (t->put_prompt) fields[n++] = "prompt";
    fields[n++] = "text";
    fields[n++] = "ids";
    fields[n++] = "logprobs";
    fields[n++] = "finish_reason";
    fields[n++] = "seed";
    if (t->put_sequence) fields[n++] = "sequence";
    if (t->put_score) fields[n++] = "score";
    if (t->put_tops) fields[n++] = "top_logprobs";
    run->constraint_sha256 = t->o->sampling.constraint ? t->o->sampling.constraint_sha256 : NULL;
    const cli_work work = {.fields = fields, .n_fields = n, .n_sequences = t->g->num_return_sequences, .long_policy = t->o->text.long_policy,
                           .defaults = t->o->sampling.compat ? NULL : defaults, /* a preset's are transformers' own */
                           .task = t, .rows = rows};
    return cli_run_rows(run, engine, &work);
}

/* ---- results as plain text */

static int text_next(void *user, sill_row *row) {
    generate_task *t = user;
    if (cli_stop) return -1;
    if (t->next == t->n_texts) return 0;
    memset(row, 0, sizeof *row);
    row->index = t->next;
    row->key = t->next + 1;
    row->text = t->texts[t->next];
    row->n_bytes = t->bytes[t->next++];
    t->lost += cli_lost_bytes(t->tokenizer, row->text, row->n_bytes);
    if (t->echo) fwrite(row->text, 1, row->n_bytes, stdout), fflush(stdout);
    return 1;
}

/* On a terminal: pieces as they come, one prompt at a time. */
static int piece_done(void *user, const sill_generated *r) {
    generate_task *t = user;
    if (r->status != SILL_OK) {
        fprintf(stderr, "\nsill: prompt %llu: %s\n", (unsigned long long)r->index + 1, r->error);
        t->failed++;
        return cli_stop;
    }
    if (r->final) cli_guess_count(&t->o->guess, r);
    if (r->final) putchar('\n');
    else fwrite(r->text, 1, r->n_bytes, stdout);
    fflush(stdout);
    return cli_stop;
}

static void answer(generate_task *t, size_t slot, const char *text, size_t n) {
    if (t->answers[slot].n) return;
    sill__str_init(&t->answers[slot], SIZE_MAX / 2);
    sill__str_put(&t->answers[slot], text, n);
    sill__str_put(&t->answers[slot], "\n", 1);
}

/* Else: whole texts in the order of the prompts. */
static int text_done(void *user, const sill_generated *r) {
    generate_task *t = user;
    size_t n_sequences = t->g->num_return_sequences > 1 ? (size_t)t->g->num_return_sequences : 1;
    size_t slot = (size_t)r->index * n_sequences + (size_t)SILL_MAX(0, r->sequence);
    if (!r->final || slot >= t->n_texts * n_sequences) return cli_stop;
    if (r->status != SILL_OK) {
        fprintf(stderr, "sill: prompt %llu: %s\n", (unsigned long long)r->index + 1, r->error);
        t->failed++;
        for (size_t i = 0; i < n_sequences; i++)
            if (r->sequence < 0 || i == (size_t)r->sequence) answer(t, r->index * n_sequences + i, "", 0);
    } else {
        cli_guess_count(&t->o->guess, r);
        answer(t, slot, r->text, r->n_bytes);
    }
    for (; t->printed < t->n_texts * n_sequences && t->answers[t->printed].n; t->printed++)
        fwrite(t->answers[t->printed].p, 1, t->answers[t->printed].n, stdout);
    fflush(stdout);
    return cli_stop;
}

static int run_texts(generate_task *t, const cli_engine *engine) {
    sill_error err = {0};
    sill_status s = SILL_OK;
    size_t n_sequences = t->g->num_return_sequences > 1 ? (size_t)t->g->num_return_sequences : 1;
    size_t all = t->n_texts;
    t->echo = cli_is_terminal(stdout) && n_sequences == 1;
    t->answers = sill__calloc(all * n_sequences, sizeof *t->answers);
    if (!t->answers) s = sill__fail(&err, SILL_ENOMEM, "no memory for %zu answers", all);
    if (t->echo) {
        for (size_t i = 1; s == SILL_OK && i <= all; i++) {
            t->n_texts = i;
            s = sill_generate(engine->session, t->g, text_next, piece_done, 1, t, &err);
        }
    } else if (s == SILL_OK) {
        s = sill_generate(engine->session, t->g, text_next, text_done, 0, t, &err);
    }
    for (size_t i = 0; t->answers && i < all * n_sequences; i++) sill__str_free(&t->answers[i]);
    sill__free(t->answers);
    cli_say_lost(t->lost);
    if (cli_stop) {
        fprintf(stderr, "\nsill: interrupted\n");
        return EXIT_INTERRUPTED;
    }
    if (s != SILL_OK) return cli_fail(&err);
    int status = cli_flush_stdout();
    if (status == EXIT_OK && t->failed) return all == 1 ? EXIT_FAILED : EXIT_ROWS;
    return status;
}

/* ---- the command */

static int run_generate(generate_options *o, generate_task *t) {
    cli_run run;
    cli_engine engine;
    bool rows = o->file || o->corpus.json || o->corpus.output;
    int status = -1;
    memset(&run, 0, sizeof run);
    if (o->file) status = cli_run_input(&run, "generate", o->file, &o->corpus, "prompt");
    else if (rows) status = cli_run_texts(&run, "generate", &o->corpus, "prompt", t->texts, t->bytes, t->n_texts);
    if (status >= 0) return status;
    /* On a GPU an interactive session's kernels differ with the number of tokens in a step; then guesses would not be exact. */
    const cli_needs needs = {.interactive = !rows && !cli_guess_is_on(&o->guess) && t->n_texts == 1 && o->sampling.o.num_return_sequences <= 1 && o->sampling.o.num_beams <= 1};
    status = cli_engine_open("generate", &o->model, &needs, &engine);
    if (status < 0) status = cli_sampling_prepare(&o->sampling, "generate", &engine);
    if (status < 0) status = cli_guess_check(&o->guess, &o->sampling.o, "generate"); /* again: a preset may want beams */
    if (status < 0) status = cli_guess_open(&o->guess, "generate", &o->model, &engine, &o->sampling.o);
    if (status < 0) {
        t->o = o;
        t->tokenizer = sill_model_tokenizer(engine.model);
        t->g = &o->sampling.o;
        status = rows ? run_rows(&run, t, &engine) : run_texts(t, &engine);
        if (rows || cli_general.verbose) cli_guess_say(&o->guess);
    }
    cli_run_free(&run);
    cli_guess_close(&o->guess);
    cli_engine_close(&engine);
    return status;
}

static const char notes[] =
    "Text given as arguments or on standard input is printed as text: on a terminal the prompt and what follows\n"
    "as it is made, otherwise the new text alone, a line end behind each. With -f, --json or -o results are rows:\n"
    "the input's columns, then prompt, text (new text only), ids (new tokens), logprobs (natural logarithms under\n"
    "the raw logits), finish_reason (stop or length), seed, error; with beams also score (transformers' sequences_scores).\n"
    "Prompts given as arguments or on standard input may hold control tokens unless --no-special; those of a file\n"
    "only with --special. The random numbers of a row depend on the seed and on --id, or its number.\n"
    "Blank lines of a plain-text file are skipped and counted.\n"
    "Options that are given win over --compat, also where transformers would prefer its own default (--max-length\n"
    "over 256 new tokens in 4.57). The random numbers are ours, so a sampled text is not transformers'.\n";

int cli_generate(int argc, char **argv) {
    static generate_options o;
    char **prompts = NULL, *piped = NULL;
    size_t one_bytes = 0, *bytes = NULL;
    int n = 0;
    generate_task t = {0};
    static const arg_option own[] = {
        {"file", 'f', ARG_TEXT, offsetof(generate_options, file), 0, 0, NULL, "FILE", "prompts from a file ('-': standard input), with --text COLUMN"},
        {"logprobs", 0, ARG_INT, offsetof(generate_options, logprobs), 1, 128, NULL, "N", "also the N likeliest tokens of every step (top_logprobs)"},
        {"no-special", 0, ARG_FLAG, offsetof(generate_options, no_special), 0, 0, NULL, NULL, NULL},
    };
    cli_sampling_init(&o.sampling);
    const arg_command command = {
        "generate", "[-m MODEL] [PROMPT...]", "Continues prompts: arguments, -f FILE, or standard input as one prompt.",
        {{"prompts", own, SILL_ARRAY_LEN(own), &o}, cli_sampling_table(&o.sampling), cli_guess_table(&o.guess), cli_model_table(&o.model),
         cli_input_table(&o.corpus.in, true), cli_output_table(&o.corpus), cli_text_table(&o.text, CLI_LONG_CUT), cli_general_table()},
        notes, 0, -1};
    int status = args_parse(&command, argc, argv, &prompts, &n);
    if (status < 0) status = cli_check_long("generate", &o.text, CLI_LONG_CUT);
    if (status < 0) status = cli_sampling_check(&o.sampling, "generate");
    if (status < 0) status = cli_guess_check(&o.guess, &o.sampling.o, "generate");
    if (status >= 0) goto end;
    if (o.file && n) {
        status = args_usage("generate", "prompts come from -f %s or from arguments, not both", o.file);
        goto end;
    }
    if (!o.file && (o.corpus.in.text || o.corpus.id || o.corpus.in.format)) {
        status = args_usage("generate", "--text, --id and --format need -f FILE");
        goto end;
    }
    bytes = sill__calloc((size_t)n + 1, sizeof *bytes);
    if (!o.file && n == 0) {
        sill_error err = {0};
        if (cli_read_stdin((size_t)64 << 20, &piped, &one_bytes, &err) != SILL_OK) {
            status = cli_fail(&err);
            goto end;
        }
        if (one_bytes && piped[one_bytes - 1] == '\n') one_bytes--;
        if (one_bytes && piped[one_bytes - 1] == '\r') one_bytes--;
        prompts = &piped;
        n = 1;
    }
    for (int i = 0; bytes && i < n; i++) bytes[i] = piped ? one_bytes : strlen(prompts[i]);
    t.texts = (const char *const *)prompts;
    t.bytes = bytes;
    t.n_texts = (size_t)n;
    if (o.file ? o.text.special : !o.no_special) o.sampling.o.tokenize_flags |= SILL_TOKENIZE_SPECIAL;
    o.sampling.o.long_policy = (sill_long)o.text.long_policy;
    o.sampling.o.logprobs = o.logprobs ? o.logprobs : o.file || o.corpus.json || o.corpus.output ? 1 : 0;
    status = bytes ? run_generate(&o, &t) : EXIT_FAILED;
end:
    sill__free(bytes);
    sill__free(piped);
    cli_sampling_free(&o.sampling);
    return status;
}
