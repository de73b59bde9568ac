/* classify.c - `sill classify`: labels with all their probabilities for the rows of a file. */
#include <string.h>

#include "common.h"


typedef struct classify_options {
    cli_model_options model;
    cli_corpus_options corpus;
    cli_text_options text;
    const char *labels, *prompt, *content_free;
    int prob;
    bool all_probs, logits, no_chat;
    float needs_human_below;
} classify_options;

typedef struct classify_task {
    const classify_options *o;
    bool zero_shot, json;
    size_t n_labels;
    const char *labels[CLI_MAX_LABELS];
    char *label_text;             /* what labels of --labels point into */
    char *names;                  /* what composed field names point into */
    const char **fields;
    size_t n_fields;
} classify_task;

/* ---- labels and fields */

/* One column a label for CSV ("prob_LABEL"), one object for JSONL. */
static bool add_probs(classify_task *t, sill__str *names, const char *prefix, const char *object) {
    if (t->json) {
        t->fields[t->n_fields++] = object;
        return true;
    }
    for (size_t i = 0; i < t->n_labels; i++) {
        t->fields[t->n_fields++] = (const char *)names->n; /* an offset until the text stands still */
        if (!sill__str_putf(names, "%s%s", prefix, t->labels[i]) || !sill__str_put(names, "", 1)) return false;
    }
    return true;
}

static bool make_fields(classify_task *t) {
    static const char *const first[] = {"label", "margin", "entropy", "n_tokens", "needs_human"};
    sill__str names;
    sill__str_init(&names, (size_t)1 << 26);
    t->fields = sill__calloc(SILL_ARRAY_LEN(first) + 4 * t->n_labels + 8, sizeof *t->fields);
    if (!t->fields) return false;
    for (size_t i = 0; i < SILL_ARRAY_LEN(first); i++) t->fields[t->n_fields++] = first[i];
    size_t from = t->n_fields;
    bool ok = add_probs(t, &names, "prob_", "probs");
    if (t->o->all_probs && t->zero_shot)
        ok = ok && add_probs(t, &names, "prob_raw_", "probs_raw") && add_probs(t, &names, "prob_norm_", "probs_norm") &&
             add_probs(t, &names, "prob_calibrated_", "probs_calibrated");
    t->names = names.p;
    for (size_t i = from; ok && !t->json && i < t->n_fields; i++) t->fields[i] = names.p + (size_t)t->fields[i];
    if (t->o->logits) t->fields[t->n_fields++] = "logits";
    return ok;
}

/* ---- results */

static void put_object(cli_run *run, sill__record *record, const classify_task *t, const float *values) {
    sill__str *s = &run->json;
    sill__str_clear(s);
    sill__str_put(s, "{", 1);
    for (size_t i = 0; i < t->n_labels; i++) {
        if (i) sill__str_put(s, ",", 1);
        sill__put_json_string(s, t->labels[i], strlen(t->labels[i]));
        sill__str_put(s, ":", 1);
        sill__put_json_f32(s, values[i]);
    }
    sill__str_put(s, "}", 1);
    sill__record_json(record, s->p, s->n);
}

static void put_probs(cli_run *run, sill__record *record, const classify_task *t, const float *values) {
    if (t->json && values) put_object(run, record, t, values);
    else if (t->json) sill__record_null(record);
    else
        for (size_t i = 0; i < t->n_labels; i++) {
            if (values) sill__record_f32(record, values[i]);
            else sill__record_null(record);
        }
}

static int done(void *user, const sill_classified *r) {
    cli_run *run = user;
    const classify_task *t = run->task;
    if (r->status != SILL_OK) return sill__flow_fail(run->flow, r->index, r->error);
    sill__record *record = sill__flow_begin(run->flow, r->index, 0);
    if (!record) return 0;
    run->tokens += r->n_tokens;
    const char *label = r->label >= 0 && (size_t)r->label < t->n_labels ? t->labels[r->label] : "";
    if (r->label < 0) sill__record_null(record); /* a regression's outputs are no labels to choose from */
    else sill__record_text(record, label, strlen(label));
    sill__record_f32(record, r->margin);
    sill__record_f32(record, r->entropy);
    sill__record_int(record, (int64_t)r->n_tokens);
    sill__record_bool(record, r->needs_human != 0);
    put_probs(run, record, t, r->probs);
    if (t->o->all_probs && t->zero_shot) {
        put_probs(run, record, t, r->raw);
        put_probs(run, record, t, r->norm);
        put_probs(run, record, t, r->calibrated);
    }
    if (t->o->logits) {
        if (r->logits) put_object(run, record, t, r->logits);
        else sill__record_null(record);
    }
    sill__record_end(record, NULL);
    return sill__flow_commit(run->flow);
}

static const cli_default defaults[] = {{"prob", "norm"}, {"needs-human-below", "0.1"}, {"content-free", "N/A"}, {"long", "error"},
                                       {"prompt", "Text: {text}\nThis text is"}, {NULL, NULL}};

static int run_classify(const classify_options *o, classify_task *t, cli_run *run, const cli_engine *engine) {
    sill_error err = {0};
    sill_status s;
    sill_classify_options co = {.size = sizeof co, .prompt = o->prompt, .content_free = o->content_free,
                                .prob = (sill_prob)o->prob, .no_chat = o->no_chat, .long_policy = (sill_long)o->text.long_policy,
                                .tokenize_flags = o->text.special ? SILL_TOKENIZE_SPECIAL : 0};
    co.needs_human_below = o->needs_human_below < 0 ? 0 : o->needs_human_below == 0 ? -1 : o->needs_human_below;
    if (t->zero_shot) {
        co.labels = t->labels;
        co.n_labels = t->n_labels;
    } else {
        if (engine->info.n_labels < 1)
            return args_usage("classify", "%s has no classification head; give --labels a,b,c", engine->path);
        if (engine->info.n_labels > CLI_MAX_LABELS)
            return args_usage("classify", "%s has %d labels, more than %d", engine->path, (int)engine->info.n_labels, CLI_MAX_LABELS);
        for (int32_t i = 0; i < engine->info.n_labels; i++) t->labels[t->n_labels++] = sill_model_label(engine->model, i);
    }
    t->o = o;
    t->json = cli_run_output_format(run) == SILL__FORMAT_JSONL;
    if (!make_fields(t)) {
        fprintf(stderr, "sill: error: no memory for the labels\n");
        return EXIT_FAILED;
    }
    run->task = t;
    run->tokenizer = sill_model_tokenizer(engine->model);
    run->engine = engine;
    run->model_path = engine->path;
    run->defaults = defaults;
    int status = cli_run_output(run, t->fields, t->n_fields, 1);
    if (status >= 0) return status;
    do s = sill_classify(engine->session, &co, cli_run_next, done, run, &err);
    while (s == SILL_OK && sill__flow_more(run->flow));
    return cli_run_end(run, s, &err, engine);
}

static const char notes[] =
    "Adds label, margin (probability of the first label minus the second's), entropy (nats), n_tokens, needs_human\n"
    "and the probability of every label: columns prob_LABEL in CSV, an object probs in JSONL. Without --labels the\n"
    "model's own classification head is used. --prob: norm (default) is the softmax of the mean log-probability of\n"
    "a label's tokens, raw of their sum, calibrated divides raw by what the label gets for --content-free text.\n"
    "A head made for regression has no label, margin and entropy: they are null (empty in CSV).\n"
    "Blank lines of a plain-text file are skipped and counted.\n";

int cli_classify(int argc, char **argv) {
    static classify_options o;
    static const char *const probs[] = {"norm", "raw", "calibrated", NULL};
    static const arg_option own[] = {
        {"labels", 0, ARG_TEXT, offsetof(classify_options, labels), 0, 0, NULL, "A,B,C", "the labels to choose from"},
        {"codebook", 0, ARG_LATER, 0, 0, 0, NULL, NULL, NULL},
        {"prompt", 0, ARG_TEXT, offsetof(classify_options, prompt), 0, 0, NULL, "TEMPLATE", "what the label continues; holds {text} once (default: Text: {text}, a new line, This text is)"},
        {"prob", 0, ARG_CHOICE, offsetof(classify_options, prob), 0, 0, probs, "KIND", "which probabilities choose the label: norm, raw, calibrated"},
        {"all-probs", 0, ARG_FLAG, offsetof(classify_options, all_probs), 0, 0, NULL, NULL, "all three kinds (prob_raw_LABEL ... or probs_raw ...)"},
        {"logits", 0, ARG_FLAG, offsetof(classify_options, logits), 0, 0, NULL, NULL, "also logits (a head's) or summed log-probabilities, as an object"},
        {"needs-human-below", 0, ARG_FLOAT, offsetof(classify_options, needs_human_below), 0, 1, NULL, "M", "margin under which a person should look (default 0.1; 0: never)"},
        {"content-free", 0, ARG_TEXT, offsetof(classify_options, content_free), 0, 0, NULL, "TEXT", "for --prob calibrated (default N/A)"},
        {"no-chat", 0, ARG_FLAG, offsetof(classify_options, no_chat), 0, 0, NULL, NULL, "no chat template around the prompt of an instruct model"},
    };
    const arg_command command = {
        "classify", "FILE --text COLUMN --labels A,B,C [-o OUT]", "Labels every row of a file, with the probabilities of all labels.",
        {{"labels", own, SILL_ARRAY_LEN(own), &o}, cli_corpus_table(&o.corpus), cli_text_table(&o.text, false),
         cli_model_table(&o.model), cli_general_table()},
        notes, 1, 1};
    char **files;
    int n;
    cli_run run = {0};
    cli_engine engine = {0};
    classify_task t = {0};
    o.needs_human_below = -1;
    int status = args_parse(&command, argc, argv, &files, &n);
    if (status >= 0) return status;
    t.zero_shot = o.labels != NULL;
    if ((status = cli_check_long("classify", &o.text, false)) >= 0) return status;
    const char *hole = o.prompt ? strstr(o.prompt, "{text}") : NULL;
    if (hole && strstr(hole + 1, "{text}")) return args_usage("classify", "--prompt has {text} more than once");
    if (o.prompt && !hole) return args_usage("classify", "--prompt has no {text}: where does the row's text go?");
    if (o.labels) {
        t.label_text = sill__strndup(o.labels, strlen(o.labels));
        status = t.label_text ? cli_split_labels("classify", t.label_text, t.labels, &t.n_labels) : EXIT_FAILED;
    }
    if (status < 0) status = cli_run_input(&run, "classify", files[0], &o.corpus, NULL);
    if (status < 0) {
        status = cli_engine_open("classify", &o.model, NULL, &engine);
        if (status < 0) status = run_classify(&o, &t, &run, &engine);
        cli_run_free(&run);
        cli_engine_close(&engine);
    }
    sill__free(t.label_text);
    sill__free(t.names);
    sill__free(t.fields);
    return status;
}
