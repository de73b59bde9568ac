/* embed.c - `sill embed`: a vector for every row of a file. */
#include <string.h>

#include "common.h"

typedef struct embed_options {
    cli_model_options model;
    cli_corpus_options corpus;
    cli_text_options text;
    int pooling;
    bool normalize;
} embed_options;

typedef struct embed_task {
    bool npy, json;
    sill_embed_options eo;
    char *names;          /* what field names point into */
    const char **fields;
    size_t n_fields;
} embed_task;

/* n_tokens, then the vector: in JSONL one array, else one column a value. A .npy file holds the vectors alone. */
static bool make_fields(embed_task *t, int32_t width) {
    sill__str names;
    sill__str_init(&names, (size_t)1 << 26);
    t->fields = sill__calloc((size_t)width + 2, sizeof *t->fields);
    if (!t->fields) return false;
    if (!t->npy) t->fields[t->n_fields++] = "n_tokens";
    if (t->npy || t->json) {
        t->fields[t->n_fields++] = "embedding";
        return true;
    }
    bool ok = true;
    for (int32_t i = 0; ok && i < width; i++) {
        t->fields[t->n_fields++] = (const char *)names.n; /* an offset until the text stands still */
        ok = sill__str_putf(&names, "embedding_%d", (int)i) && sill__str_put(&names, "", 1);
    }
    t->names = names.p;
    for (size_t i = 1; ok && i < t->n_fields; i++) t->fields[i] = names.p + (size_t)t->fields[i];
    return ok;
}

static int done(void *user, const sill_embedded *r) {
    cli_run *run = user;
    const embed_task *t = run->task;
    if (r->status != SILL_OK) return sill__flow_fail(run->flow, r->index, r->error);
    sill__record *record = sill__flow_begin(run->flow, r->index, 0);
    if (!record) return 0;
    run->tokens += r->n_tokens;
    run->long_rows += r->truncated || r->n_windows > 1;
    if (!t->npy) sill__record_int(record, (int64_t)r->n_tokens);
    if (t->npy) sill__record_vector(record, r->values, (size_t)r->n_values);
    else if (t->json) cli_put_floats(run, record, r->values, (size_t)r->n_values);
    else
        for (int32_t i = 0; i < r->n_values; i++) sill__record_f32(record, r->values[i]);
    sill__record_end(record, NULL);
    return sill__flow_commit(run->flow);
}

static const cli_default defaults[] = {{"pooling", "mean"}, {"long", "error"}, {NULL, NULL}};

static sill_status rows(cli_run *run, sill_error *err) {
    const embed_task *t = run->task;
    return sill_embed(run->engine->session, &t->eo, cli_run_next, done, run, err);
}

static int run_embed(const embed_options *o, embed_task *t, cli_run *run, const cli_engine *engine) {
    t->eo = (sill_embed_options){.size = sizeof t->eo, .pooling = (sill_pooling)o->pooling, .normalize = o->normalize,
                                 .long_policy = (sill_long)o->text.long_policy, .tokenize_flags = o->text.special ? SILL_TOKENIZE_SPECIAL : 0};
    t->npy = cli_run_output_format(run) == SILL__FORMAT_NPY;
    t->json = cli_run_output_format(run) == SILL__FORMAT_JSONL;
    if (!make_fields(t, engine->info.n_embd)) {
        fprintf(stderr, "sill: error: no memory for the columns\n");
        return EXIT_FAILED;
    }
    run->vector = (size_t)engine->info.n_embd;
    const cli_work work = {.fields = t->fields, .n_fields = t->n_fields, .defaults = defaults, .long_policy = o->text.long_policy, .task = t,
                           .rows = rows};
    return cli_run_rows(run, engine, &work);
}

static const char notes[] =
    "Adds n_tokens and the vector: in JSONL an array embedding, in CSV the columns embedding_0, embedding_1, ...\n"
    "-o OUT.npy writes the vectors alone, a numpy array (rows, values) of float32 with a row for every row of the input, in\n"
    "its order; rows that failed are NaN, and OUT.npy.run.json lists their numbers (failed_rows, from 1).\n"
    "The vector is the hidden state behind the model's final norm: --pooling mean of all tokens (as sentence-transformers\n"
    "pools, with the beginning-of-text token where the tokenizer adds it), last of the last token. --normalize: length 1.\n"
    "Texts above the context: --long split-mean cuts them into pieces side by side, window into pieces that overlap by half;\n"
    "the vector is the mean over the pieces, each counted with the tokens that it adds. truncate embeds their beginning,\n"
    "error (default) none. The summary and the record (long_rows) say how many rows that are.\n"
    "Blank lines of a plain-text file are skipped and counted.\n";

int cli_embed(int argc, char **argv) {
    static embed_options o;
    static const char *const poolings[] = {"mean", "last", NULL};
    static const arg_option own[] = {
        {"pooling", 0, ARG_CHOICE, offsetof(embed_options, pooling), 0, 0, poolings, "HOW", "mean of all tokens (default), or the last token's"},
        {"normalize", 0, ARG_FLAG, offsetof(embed_options, normalize), 0, 0, NULL, NULL, "vectors of length 1"},
    };
    const arg_command command = {
        "embed", "FILE [--text COLUMN] [-o OUT.npy]", "A vector for every row of a file: the model's hidden states, pooled.",
        {{"vectors", own, SILL_ARRAY_LEN(own), &o}, cli_input_table(&o.corpus.in, true), cli_output_table(&o.corpus), cli_text_table(&o.text, CLI_LONG_MEAN),
         cli_model_table(&o.model), cli_general_table()},
        notes, 1, 1};
    char **files;
    int n;
    cli_run run = {0};
    cli_engine engine = {0};
    embed_task t = {0};
    int status = args_parse(&command, argc, argv, &files, &n);
    if (status < 0) status = cli_check_long("embed", &o.text, CLI_LONG_MEAN);
    if (status < 0) status = cli_run_input(&run, "embed", files[0], &o.corpus, NULL);
    if (status >= 0) return status;
    status = cli_engine_open("embed", &o.model, NULL, &engine);
    if (status < 0) status = run_embed(&o, &t, &run, &engine);
    cli_run_free(&run);
    cli_engine_close(&engine);
    sill__free(t.names);
    sill__free(t.fields);
    return status;
}
