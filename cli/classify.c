/* classify.c - `sill classify`: labels with all their probabilities for the rows of a file. */
#include <string.h>

#include "common.h"
#include "task/classify.h"

typedef struct classify_options {
    cli_model_options model;
    cli_corpus_options corpus;
    cli_text_options text;
    const char *labels, *codebook, *prompt, *content_free;
    int prob, function;
    bool all_probs, logits, chat, no_chat, multi_label, show_prompt, no_shared_prefix;
    float needs_human_below, min_confidence, threshold;
} classify_options;

typedef struct classify_task {
    const classify_options *o;
    bool zero_shot, json, multi;
    sill_codebook *book;
    sill_codebook_info book_info;
    sill_classify_options co;
    size_t n_labels;
    const char *labels[CLI_MAX_LABELS];
    char *label_text;             /* what labels of --labels point into */
    char *names;                  /* what composed field names point into */
    const char **fields;
    size_t n_fields;
    cli_default defaults[16];
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
    const char *const first[] = {t->multi ? "labels" : "label", "margin", "entropy", "n_tokens", "needs_human"};
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

static void put_chosen(cli_run *run, sill__record *record, const classify_task *t, const uint8_t *chosen) {
    sill__str *s = &run->json;
    bool any = false;
    sill__str_clear(s);
    sill__str_put(s, "[", 1);
    for (size_t i = 0; i < t->n_labels; i++) {
        if (!chosen[i]) continue;
        if (any) sill__str_put(s, ",", 1);
        any = true;
        sill__put_json_string(s, t->labels[i], strlen(t->labels[i]));
    }
    sill__str_put(s, "]", 1);
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
    run->long_rows += r->truncated || r->n_windows > 1;
    const char *label = r->label >= 0 && (size_t)r->label < t->n_labels ? t->labels[r->label] : "";
    if (t->multi) put_chosen(run, record, t, r->chosen);
    else if (r->label < 0) sill__record_null(record); /* a regression's outputs are no labels to choose from */
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

/* ---- the run */

#define COMMON_DEFAULTS {"prob", "norm"}, {"needs-human-below", "0.1"}, {"min-confidence", "0"}, {"content-free", "N/A"}, {"long", "error"}, \
    {"threshold", "0.5"}
/* What options that were not given mean, for the record. */
static const cli_default *defaults_of(classify_task *t, const cli_engine *engine) {
    const cli_default common[] = {COMMON_DEFAULTS};
    size_t n = SILL_ARRAY_LEN(common);
    memcpy(t->defaults, common, sizeof common);
    if (t->zero_shot)
        t->defaults[n++] = (cli_default){"prompt", t->book && t->book_info.prompt ? "the codebook's" :
                                         t->multi ? "Text: {text}\nQuestion: Is this text {label}?\nAnswer:" : "Text: {text}\nThis text is"};
    if (t->zero_shot && engine->info.is_instruct && !t->o->no_chat) t->defaults[n++] = (cli_default){"chat", "yes"};
    t->defaults[n] = (cli_default){NULL, NULL};
    return t->defaults;
}

/* Labels of the model's own head. */
static int take_head(classify_task *t, const cli_engine *engine) {
    const classify_options *o = t->o;
    bool regression = !strcmp(engine->info.problem_type, "regression"), multi = !strcmp(engine->info.problem_type, "multi_label_classification");
    if (engine->info.n_labels < 1)
        return args_usage("classify", "%s has no classification head; give --labels a,b,c or --codebook FILE", engine->path);
    if (engine->info.n_labels > CLI_MAX_LABELS)
        return args_usage("classify", "%s has %d labels, more than %d", engine->path, (int)engine->info.n_labels, CLI_MAX_LABELS);
    if (o->show_prompt) return args_usage("classify", "--show-prompt: a classification head has no prompt; give --labels or --codebook");
    if (regression && (o->multi_label || o->function == SILL_HEAD_SOFTMAX || o->function == SILL_HEAD_SIGMOID))
        return args_usage("classify", "%s has a head made for regression: its outputs are values, no labels", engine->path);
    t->multi = (o->function == SILL_HEAD_AUTO && !regression && (multi || o->multi_label)) ||
               (o->function == SILL_HEAD_SIGMOID && (engine->info.n_labels > 1 || multi || o->multi_label));
    for (int32_t i = 0; i < engine->info.n_labels; i++) t->labels[t->n_labels++] = sill_model_label(engine->model, i);
    return -1;
}

static void fill_options(classify_task *t) {
    const classify_options *o = t->o;
    sill_classify_options *co = &t->co;
    *co = (sill_classify_options){.size = sizeof *co, .prompt = o->prompt, .content_free = o->content_free, .codebook = t->book,
                                  .prob = (sill_prob)o->prob, .no_chat = o->no_chat, .chat = o->chat, .long_policy = (sill_long)o->text.long_policy,
                                  .tokenize_flags = o->text.special ? SILL_TOKENIZE_SPECIAL : 0, .multi_label = o->multi_label,
                                  .threshold = o->threshold, .min_confidence = o->min_confidence, .no_shared_prefix = o->no_shared_prefix,
                                  .head_function = (sill_head_function)o->function};
    co->needs_human_below = o->needs_human_below < 0 ? 0 : o->needs_human_below == 0 ? -1 : o->needs_human_below;
    if (o->labels) {
        co->labels = t->labels;
        co->n_labels = t->n_labels;
    }
}

/* The text that ids [from, n) stand for, control tokens among it. */
static bool put_ids_text(sill__str *s, const sill_tokenizer *tokenizer, const int32_t *ids, size_t from, size_t n) {
    uint32_t flags = from ? SILL_DETOKENIZE_CONTINUATION : 0;
    size_t bytes = 0, cap = sill_detokenize_bound(tokenizer, ids + from, n - from);
    char *text = sill__alloc(cap + 1);
    bool ok = text && sill_detokenize(tokenizer, ids + from, n - from, flags, text, cap, &bytes, NULL) == SILL_OK && sill__str_put(s, text, bytes);
    sill__free(text);
    return ok;
}

/* The prompt of label I for TEXT, as text; what follows it is in NEXT. */
static sill_status one_prompt(const classify_task *t, const cli_engine *engine, const sill__cell *text, size_t i, sill__str *prompt, sill__str *next,
                              size_t *n_prompt, sill_error *err) {
    int32_t *ids;
    size_t n;
    sill__str_clear(prompt);
    sill__str_clear(next);
    sill_status s = sill_classify_prompt(engine->model, &t->co, text->p ? text->p : "", text->n, (int32_t)i, &ids, &n, n_prompt, err);
    if (s != SILL_OK) return s;
    bool ok = put_ids_text(prompt, sill_model_tokenizer(engine->model), ids, 0, *n_prompt) &&
              put_ids_text(next, sill_model_tokenizer(engine->model), ids, *n_prompt, n);
    sill_free(ids);
    return ok ? SILL_OK : sill__fail(err, SILL_ENOMEM, "no memory for the prompt");
}

/* --show-prompt: the prompt of the first row that can be read, on standard output; with --json that of each label. */
static int show_prompt(const classify_task *t, cli_run *run, const cli_engine *engine) {
    sill_error err = {0};
    sill__corpus_row *row = NULL;
    sill__str prompt, next, all;
    size_t n_prompt = 0;
    sill_status s = SILL_OK;
    sill__str_init(&prompt, (size_t)1 << 30);
    sill__str_init(&next, (size_t)1 << 30);
    sill__str_init(&all, (size_t)1 << 30);
    while ((s = sill__reader_next(run->reader, &row, &err)) == SILL_OK && row && row->error) sill__row_free(row);
    if (s == SILL_OK && !row) s = sill__fail(&err, SILL_EINVAL, "%s has no row that a prompt could be shown for", run->input);
    for (size_t i = 0; s == SILL_OK && i < t->n_labels; i++) {
        s = one_prompt(t, engine, &row->cells[run->text_slot], i, &prompt, &next, &n_prompt, &err);
        if (s != SILL_OK) break;
        if (t->o->corpus.json) {
            sill__str_puts(&all, "{\"label\":");
            sill__put_json_string(&all, t->labels[i], strlen(t->labels[i]));
            sill__str_puts(&all, ",\"prompt\":");
            sill__put_json_string(&all, prompt.p ? prompt.p : "", prompt.n);
            sill__str_puts(&all, ",\"continuation\":");
            sill__put_json_string(&all, next.p ? next.p : "", next.n);
            sill__str_putf(&all, ",\"n_tokens\":%zu}\n", n_prompt);
        } else if (i == 0) {
            sill__str_put(&all, prompt.p ? prompt.p : "", prompt.n);
            sill__str_puts(&all, "\n");
            cli_say("the prompt of the first row, %zu tokens%s; compared as what follows: '%s'%s", n_prompt,
                    t->multi ? " (of the first label)" : "", next.p ? next.p : "", t->multi ? " and no" : "");
        } else if (!t->multi) {
            cli_say("or '%s'", next.p ? next.p : "");
        }
    }
    if (s == SILL_OK) fwrite(all.p ? all.p : "", 1, all.n, stdout);
    int status = s == SILL_OK ? cli_flush_stdout() : cli_fail(&err);
    sill__row_free(row);
    sill__str_free(&prompt);
    sill__str_free(&next);
    sill__str_free(&all);
    return status;
}

static sill_status rows(cli_run *run, sill_error *err) {
    const classify_task *t = run->task;
    return sill_classify(run->engine->session, &t->co, cli_run_next, done, run, err);
}

/* The mean log-probability of a token favours words of several tokens, of which the later ones are certain: told once. */
static sill_status tell_lengths(const classify_task *t, const cli_engine *engine, sill_error *err) {
    size_t least, most;
    if (!t->zero_shot || t->multi || t->o->prob != SILL_PROB_NORM) return SILL_OK;
    sill_status s = sill__classify_lengths(engine->model, &t->co, &least, &most, err);
    if (s == SILL_OK && least < most)
        cli_say("the labels have %zu to %zu tokens, and --prob norm favours some of them for that; compare --prob calibrated (--all-probs"
                " gives both), or take words of one length in a codebook", least, most);
    return s;
}

static int run_classify(const classify_options *o, classify_task *t, cli_run *run, const cli_engine *engine) {
    int status = t->zero_shot ? -1 : take_head(t, engine);
    if (status >= 0) return status;
    if (o->chat && !engine->info.is_instruct)
        return args_usage("classify", "--chat: %s has no chat template that is known here; leave it out for a plain prompt", engine->path);
    fill_options(t);
    if (o->show_prompt) return show_prompt(t, run, engine);
    sill_error err = {0};
    if (tell_lengths(t, engine, &err) != SILL_OK) return cli_fail(&err);
    t->json = cli_run_output_format(run) == SILL__FORMAT_JSONL;
    if (!make_fields(t)) {
        fprintf(stderr, "sill: error: no memory for the labels\n");
        return EXIT_FAILED;
    }
    run->codebook_sha256 = t->book ? t->book_info.sha256 : NULL;
    const cli_work work = {.fields = t->fields, .n_fields = t->n_fields, .defaults = defaults_of(t, engine), .long_policy = o->text.long_policy,
                           .task = t, .rows = rows};
    return cli_run_rows(run, engine, &work);
}

static const char notes[] =
    "Adds label, margin (probability of the first label minus the second's), entropy (nats), n_tokens, needs_human\n"
    "and the probability of every label: columns prob_LABEL in CSV, an object probs in JSONL. Without --labels and\n"
    "--codebook the model's own classification head is used. --prob: norm (default) is the softmax of the mean\n"
    "log-probability of a label's tokens, raw of their sum, calibrated divides raw by what the label gets for\n"
    "--content-free text. A codebook (docs/CODEBOOK.md) holds labels, descriptions, examples, an instruction, the\n"
    "prompt; --show-prompt shows what comes of it. An instruct model is asked in its chat template, which labels\n"
    "better (docs/QUALITY.md). --multi-label: labels (a JSON list) instead of label; margin is the least 2 |p - T|\n"
    "of all labels, entropy the sum. A head made for regression has no label, margin and entropy: they are null\n"
    "(empty in CSV). Texts above the context: --long truncate labels their beginning, split-mean cuts them into pieces\n"
    "side by side, window into pieces that overlap by half, each with the whole prompt around it: probabilities and\n"
    "logits are the means over the pieces, each counted with the tokens that it adds (docs/CODEBOOK.md). error (default)\n"
    "labels none. The summary and the record (long_rows) say how many rows that are.\n"
    "Blank lines of a plain-text file are skipped and counted.\n";

/* What the options rule out by themselves. */
static int check_options(const classify_options *o, bool multi) {
    const char *hole = o->prompt ? strstr(o->prompt, "{text}") : NULL;
    if (o->labels && o->codebook) return args_usage("classify", "--labels and --codebook: a codebook has its own labels; give one of them");
    if (o->chat && o->no_chat) return args_usage("classify", "--chat and --no-chat exclude each other");
    if (hole && strstr(hole + 1, "{text}")) return args_usage("classify", "--prompt has {text} more than once");
    if (o->prompt && !hole) return args_usage("classify", "--prompt has no {text}: where does the row's text go?");
    if (hole && multi && !strstr(hole, "{label}") && !strstr(hole, "{description}"))
        return args_usage("classify", "--prompt has no {label} behind {text}: with --multi-label each label is asked for");
    if (o->function && (o->labels || o->codebook)) return args_usage("classify", "--function-to-apply is for a classification head, not for labels");
    if (o->multi_label && o->function && o->function != SILL_HEAD_SIGMOID)
        return args_usage("classify", "--multi-label takes the sigmoid of a head's outputs, no other --function-to-apply");
    if (o->show_prompt && o->corpus.output) return args_usage("classify", "--show-prompt writes to standard output; leave -o out");
    return -1;
}

static int read_labels(const classify_options *o, classify_task *t) {
    sill_error err = {0};
    if (o->labels) {
        t->label_text = sill__strndup(o->labels, strlen(o->labels));
        return t->label_text ? cli_split_labels("classify", t->label_text, o->multi_label ? 1 : 2, t->labels, &t->n_labels) : EXIT_FAILED;
    }
    if (!o->codebook) return -1;
    if (sill_codebook_load(o->codebook, &t->book, &err) != SILL_OK) {
        int status = cli_fail(&err);
        return err.code == SILL_EFORMAT || err.code == SILL_ENOENT ? EXIT_USAGE : status;
    }
    sill_codebook_get_info(t->book, &t->book_info, sizeof t->book_info);
    for (int32_t i = 0; i < t->book_info.n_labels; i++) t->labels[t->n_labels++] = t->book_info.labels[i];
    t->multi = t->multi || t->book_info.multi_label;
    return -1;
}

#define AT(member) offsetof(classify_options, member)

int cli_classify(int argc, char **argv) {
    static classify_options o;
    static const char *const probs[] = {"norm", "raw", "calibrated", NULL}, *const functions[] = {"auto", "softmax", "sigmoid", "none", NULL};
    static const arg_option own[] = {
        {"labels", 0, ARG_TEXT, AT(labels), 0, 0, NULL, "A,B,C", "the labels to choose from (\"a, b\" in quotes is one)"},
        {"codebook", 0, ARG_TEXT, AT(codebook), 0, 0, NULL, "FILE", "labels, descriptions, examples, instruction and prompt (docs/CODEBOOK.md)"},
        {"prompt", 0, ARG_TEXT, AT(prompt), 0, 0, NULL, "TEMPLATE", "what the label continues; holds {text} once (default: Text: {text}, a new line, This text is)"},
        {"show-prompt", 0, ARG_FLAG, AT(show_prompt), 0, 0, NULL, NULL, "print the prompt of the first row (--json: of each label) and end"},
        {"prob", 0, ARG_CHOICE, AT(prob), 0, 0, probs, "KIND", "which probabilities choose the label: norm, raw, calibrated"},
        {"all-probs", 0, ARG_FLAG, AT(all_probs), 0, 0, NULL, NULL, "all three kinds (prob_raw_LABEL ... or probs_raw ...)"},
        {"logits", 0, ARG_FLAG, AT(logits), 0, 0, NULL, NULL, "also logits (a head's) or summed log-probabilities, as an object"},
        {"needs-human-below", 0, ARG_FLOAT, AT(needs_human_below), 0, 1, NULL, "M", "margin under which a person should look (default 0.1; 0: never)"},
        {"min-confidence", 0, ARG_FLOAT, AT(min_confidence), 0, 1, NULL, "P", "a person should also look where the first label's probability is under P (default 0: never)"},
        {"multi-label", 0, ARG_FLAG, AT(multi_label), 0, 0, NULL, NULL, "a row may have any number of the labels: each is a question of its own, answered yes or no"},
        {"threshold", 0, ARG_ABOVE, AT(threshold), 0, 1, NULL, "T", "multi-label: probability from which a label is given (default 0.5)"},
        {"content-free", 0, ARG_TEXT, AT(content_free), 0, 0, NULL, "TEXT", "for --prob calibrated (default N/A)"},
        {"chat", 0, ARG_FLAG, AT(chat), 0, 0, NULL, NULL, "the model's chat template around the prompt (the default where it has one; refused where not)"},
        {"no-chat", 0, ARG_FLAG, AT(no_chat), 0, 0, NULL, NULL, "no chat template around the prompt of an instruct model"},
        {"function-to-apply", 0, ARG_CHOICE, AT(function), 0, 0, functions, "NAME",
         "to a head's outputs, as in transformers: auto (by the model's problem_type), softmax, sigmoid, none"},
        {"no-shared-prefix", 0, ARG_FLAG, AT(no_shared_prefix), 0, 0, NULL, NULL, "compute instruction and examples again for every row (the same results, more slowly)"},
    };
    const arg_command command = {
        "classify", "FILE --text COLUMN (--labels A,B,C | --codebook BOOK) [-o OUT]", "Labels every row of a file, with the probabilities of all labels.",
        {{"labels", own, SILL_ARRAY_LEN(own), &o}, cli_input_table(&o.corpus.in, true), cli_output_table(&o.corpus), cli_text_table(&o.text, CLI_LONG_MEAN),
         cli_model_table(&o.model), cli_general_table()},
        notes, 1, 1};
    char **files;
    int n;
    cli_run run = {0};
    cli_engine engine = {0};
    classify_task t = {.o = &o};
    memset(&o, 0, sizeof o); /* a replay comes after another command, with its own */
    o.needs_human_below = -1;
    int status = args_parse(&command, argc, argv, &files, &n);
    if (status >= 0) return status;
    t.zero_shot = o.labels || o.codebook;
    t.multi = o.multi_label;
    status = cli_check_long("classify", &o.text, CLI_LONG_MEAN);
    if (status < 0) status = read_labels(&o, &t);
    if (status < 0) status = check_options(&o, t.multi);
    if (status < 0) status = cli_run_input(&run, "classify", files[0], &o.corpus, NULL);
    if (status < 0) {
        status = cli_engine_open("classify", &o.model, NULL, &engine);
        if (status < 0) status = run_classify(&o, &t, &run, &engine);
        cli_run_free(&run);
        cli_engine_close(&engine);
    }
    sill_codebook_free(t.book);
    sill__free(t.label_text);
    sill__free(t.names);
    sill__free(t.fields);
    return status;
}
