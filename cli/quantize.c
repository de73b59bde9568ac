/* quantize.c - `sill quantize`: a smaller model file, and the certificate of what was lost. */
#include <math.h>
#include <string.h>

#include "build_info.h"
#include "common.h"
#include "sample_text.h"
#include "task/quantize.h"


typedef struct quantize_options {
    const char *output, *text, *labels, *prompt, *device;
    int to_kind;
    bool overwrite, force, json;
    float max_loss, max_kl, min_agreement, max_changed;
    int32_t max_tokens, window, threads, memory_mib;
} quantize_options;

static const char *const kinds[] = {"q8", "q4", "int8", NULL};

/* ---- the texts */

typedef struct texts {
    const char **p;
    size_t *n;
    size_t count, cap;
    sill__str bytes;   /* rows of a file, one behind the other */
    sill__corpus_row *whole; /* a plain text */
    const char *name, *path;
    char file[4096];   /* of FILE:COLUMN */
} texts;

static bool add_text(texts *t, size_t at, size_t n) {
    if (t->count == t->cap) {
        size_t cap = t->cap ? 2 * t->cap : 256;
        const char **p = sill__realloc(t->p, cap * sizeof *p);
        if (p) t->p = p;
        size_t *sizes = p ? sill__realloc(t->n, cap * sizeof *sizes) : NULL;
        if (!sizes) return false;
        t->n = sizes;
        t->cap = cap;
    }
    t->p[t->count] = (const char *)at; /* an offset until the bytes stand still */
    t->n[t->count++] = n;
    return true;
}

static int out_of_memory(void) {
    fprintf(stderr, "sill: error: no memory for the texts\n");
    return EXIT_FAILED;
}

/* Rows of a CSV, TSV or JSONL file. -1 or the exit status. */
static int read_rows(texts *t, const char *file, const cli_corpus_options *corpus) {
    cli_run run;
    sill__corpus_row *r;
    sill_error err = {0};
    sill_status s;
    uint64_t bad = 0;
    int status = cli_run_input(&run, "quantize", file, corpus, NULL);
    if (status >= 0) return status;
    sill__str_init(&t->bytes, (size_t)1 << 32);
    while ((s = sill__reader_next(run.reader, &r, &err)) == SILL_OK && r) {
        const sill__cell *cell = &r->cells[run.text_slot];
        bool fine = !r->error && (cell->kind == SILL__CELL_TEXT || cell->kind == SILL__CELL_LITERAL);
        bad += !fine;
        if (fine && (!add_text(t, t->bytes.n, cell->n) || !sill__str_put(&t->bytes, cell->p, cell->n))) status = out_of_memory();
        sill__row_free(r);
        if (status >= 0) break;
    }
    if (s != SILL_OK) status = cli_fail(&err);
    cli_run_free(&run);
    for (size_t i = 0; i < t->count; i++) t->p[i] = t->bytes.p + (size_t)t->p[i];
    if (status < 0 && t->count == 0) status = args_usage("quantize", "--text %.200s: the column has no text to measure a loss on", t->name);
    if (bad && status < 0) cli_say("warning: %llu rows have no text and are left out", (unsigned long long)bad);
    return status;
}

static int one_text(texts *t, const char *p, size_t n) {
    if (!add_text(t, 0, n)) return out_of_memory();
    t->p[0] = p;
    return -1;
}

/* FILE, or FILE:COLUMN. -1 or the exit status. */
static int read_texts(texts *t, const quantize_options *o) {
    size_t n;
    sill_error err = {0};
    cli_corpus_options corpus = {.in.encoding = SILL__ENCODING_BYTES}; /* any bytes are tokens */
    if (!o->text) {
        t->name = "the sample text of sill";
        return one_text(t, cli_sample_text, sizeof cli_sample_text - 1);
    }
    t->name = t->path = o->text;
    const char *colon = strrchr(o->text, ':');
    if (colon && !sill__is_file(o->text)) {
        n = (size_t)(colon - o->text);
        if (n >= sizeof t->file) return args_usage("quantize", "--text: the path is too long");
        memcpy(t->file, o->text, n);
        t->file[n] = 0;
        t->path = t->file;
        corpus.in.text = colon + 1;
        return read_rows(t, t->file, &corpus);
    }
    sill__format format = sill__format_of_path(o->text);
    if (format != SILL__FORMAT_AUTO && format != SILL__FORMAT_TXT)
        return args_usage("quantize", "--text %.200s has columns: name one, --text FILE:COLUMN", o->text);
    if (cli_read_text(o->text, SILL__ENCODING_BYTES, &t->whole, &err) != SILL_OK) return cli_fail(&err);
    return one_text(t, t->whole->cells[1].p, t->whole->cells[1].n);
}

static void free_texts(texts *t) {
    sill__free(t->p);
    sill__free(t->n);
    sill__row_free(t->whole);
    if (t->bytes.cap) sill__str_free(&t->bytes);
}

/* ---- the run */

static int progress(void *user, const char *stage, double share) {
    const char **said = user;
    (void)share;
    if (*said != stage) cli_say("%s", stage);
    *said = stage;
    return cli_stop;
}

static void print_number(const char *name, double v, bool last) {
    char text[32];
    sill__f64_text(v, text);
    printf("\"%s\":%s%s", name, text[0] ? text : "null", last ? "" : ",");
}

static int print(const quantize_options *o, const sill_certificate *c, const char *out, bool kept) {
    const double mib = 1048576.0;
    if (o->json) {
        printf("{\"to\":\"%s\",\"kept\":%s,\"passed\":%s,\"forced\":%s,", kinds[o->to_kind], kept ? "true" : "false",
               c->passed ? "true" : "false", c->forced ? "true" : "false");
        print_number("perplexity_before", c->n_tokens ? c->perplexity_before : (double)NAN, false);
        print_number("perplexity_after", c->n_tokens ? c->perplexity_after : (double)NAN, false);
        print_number("perplexity_before_se", c->n_tokens ? c->perplexity_before_se : (double)NAN, false);
        print_number("perplexity_after_se", c->n_tokens ? c->perplexity_after_se : (double)NAN, false);
        print_number("loss_percent", c->n_tokens ? c->loss_percent : (double)NAN, false);
        print_number("loss_percent_se", c->n_tokens ? c->loss_percent_se : (double)NAN, false);
        print_number("loss_percent_low", c->n_tokens ? c->loss_percent_low : (double)NAN, false);
        print_number("loss_percent_high", c->n_tokens ? c->loss_percent_high : (double)NAN, false);
        printf("\"certainty\":\"%s\",", sill__certainty_name(c->certainty));
        print_number("kl_mean", c->n_tokens ? c->kl_mean : (double)NAN, false);
        print_number("kl_mean_se", c->n_tokens ? c->kl_mean_se : (double)NAN, false);
        print_number("kl_p99", c->n_tokens ? c->kl_p99 : (double)NAN, false);
        print_number("top1_agreement", c->n_tokens ? c->top1_agreement : (double)NAN, false);
        print_number("alpha", c->alpha, false);
        print_number("changed_percent", c->changed_percent, false);
        print_number("changed_percent_low", c->changed_percent_low, false);
        print_number("changed_percent_high", c->changed_percent_high, false);
        printf("\"rows\":%llu,\"rows_failed\":%llu,\"rows_lost\":%llu,\"changed\":%llu,\"n_tokens\":%llu,",
               (unsigned long long)c->n_rows, (unsigned long long)c->n_rows_failed, (unsigned long long)c->n_rows_lost,
               (unsigned long long)c->n_changed, (unsigned long long)c->n_tokens);
        printf("\"bytes_before\":%llu,\"bytes_after\":%llu}\n", (unsigned long long)c->bytes_before, (unsigned long long)c->bytes_after);
        return cli_flush_stdout();
    }
    printf("%s: %.1f MiB -> %.1f MiB (%s, %s -> %s)%s\n", out, (double)c->bytes_before / mib, (double)c->bytes_after / mib,
           kinds[o->to_kind], c->before_dtype, c->after_dtype, kept ? "" : ", not kept");
    if (c->n_tokens) {
        printf("perplexity         %.4f +- %.4f  ->  %.4f +- %.4f\n", c->perplexity_before, c->perplexity_before_se,
               c->perplexity_after, c->perplexity_after_se);
        printf("loss of perplexity %+.3f %% +- %.3f %% (95 %%: %+.3g to %+.3g %%; allowed: %.4g %%)\n", c->loss_percent, c->loss_percent_se,
               c->loss_percent_low, c->loss_percent_high, c->max_loss);
        if (c->certainty_of_loss == SILL_CERTAINTY_LOW && c->n_tokens < 100) printf("                   few tokens: these errors are rough\n");
        else if (c->certainty_of_loss == SILL_CERTAINTY_LOW) printf("                   more than is allowed may have been lost: too few tokens to tell\n");
        else if (c->certainty_of_loss == SILL_CERTAINTY_NONE) printf("                   too few tokens to tell anything of what is allowed\n");
        printf("KL divergence      mean %.6f +- %.6f nats (allowed: %.4g), 99th percentile %.6f\n", c->kl_mean, c->kl_mean_se,
               c->max_kl, c->kl_p99);
        printf("same first choice  %.2f %% of %llu tokens in %llu windows of up to %d (asked: %.4g %%)\n", 100 * c->top1_agreement,
               (unsigned long long)c->n_tokens, (unsigned long long)c->n_windows, (int)c->window, 100 * c->min_agreement);
    }
    if (c->n_rows + c->n_rows_failed) {
        printf("labels             %llu of %llu rows change (95 %%: %.3g to %.3g %%; allowed: %.4g %%; Krippendorff's alpha %.4f)%s\n",
               (unsigned long long)c->n_changed, (unsigned long long)c->n_rows, c->changed_percent_low, c->changed_percent_high,
               c->max_changed, c->alpha, c->n_rows_failed ? "; some rows could not be labelled" : "");
        if (c->certainty_of_labels == SILL_CERTAINTY_LOW) printf("                   more may change in other texts: too few rows to tell\n");
        else if (c->certainty_of_labels == SILL_CERTAINTY_NONE) printf("                   too few rows to tell anything of what is allowed\n");
    }
    if (c->n_rows_lost)
        printf("                   %llu rows have no label from the new model\n", (unsigned long long)c->n_rows_lost);
    if (c->forced) printf("kept by --force, although more was lost than is allowed\n");
    return cli_flush_stdout();
}

static int run_quantize(const quantize_options *o, const char *model, const texts *t, const char *const *labels, size_t n_labels) {
    char path[1024];
    sill_error err = {0};
    sill_certificate c;
    const char *said = NULL;
    sill_quantize_options qo = {
        .size = sizeof qo, .to = (sill_quantize_to)o->to_kind, .overwrite = o->overwrite, .force = o->force, .texts = t->p,
        .text_bytes = t->n, .n_texts = t->count, .text_name = t->name, .text_path = t->path, .max_tokens = o->max_tokens, .window = o->window,
        .max_loss = o->max_loss, .max_kl = o->max_kl, .min_agreement = (double)o->min_agreement / 100,
        .max_changed = o->max_changed, .labels = labels, .n_labels = n_labels, .prompt = o->prompt, .device = o->device,
        .n_threads = o->threads, .memory_limit_bytes = (uint64_t)o->memory_mib << 20, .commit = SILL_BUILD_COMMIT,
        .progress = progress, .user = &said};
    if (cli_model_path(model, path, sizeof path, &err) != SILL_OK) return cli_fail(&err);
    sill_status s = sill_quantize(path, o->output, &qo, &c, &err);
    if (s == SILL_ECANCELLED) { /* an interruption that came too late changes nothing */
        fprintf(stderr, "sill: interrupted; nothing is kept\n");
        return EXIT_INTERRUPTED;
    }
    bool measured = s == SILL_OK || (s == SILL_ERANGE && c.max_loss > 0);
    int status = measured ? print(o, &c, o->output, s == SILL_OK) : EXIT_OK;
    if (s == SILL_EINVAL) return cli_fail_model(&err);
    if (s != SILL_OK) return cli_fail(&err);
    if (c.certainty_of_loss == SILL_CERTAINTY_LOW)
        cli_say("warning: %llu tokens were scored, too few to be sure that no more than %.4g %% was lost; more text (--text, --tokens) tells",
                (unsigned long long)c.n_tokens, c.max_loss);
    if (c.certainty_of_labels == SILL_CERTAINTY_LOW)
        cli_say("warning: %llu texts were labelled, too few to be sure that no more than %.4g %% of labels change; more rows (--text) tell",
                (unsigned long long)c.n_rows, c.max_changed);
    cli_say("the certificate is %s.certificate.json", o->output);
    return status;
}

static const char notes[] =
    "q8 and q4 are written as GGUF, which llama.cpp reads too: q8 has groups of 32 weights with one scale (Q8_0), q4 with\n"
    "scale and minimum (Q4_1; embedding and head Q8_0). int8 (LLM.int8) is written as a directory of safetensors in\n"
    "bitsandbytes' layout, which transformers reads; sill chooses the outlier columns for every token by itself,\n"
    "bitsandbytes once for the batch, so that with sill the batch cannot change a result. Matrices whose rows are no\n"
    "multiple of 32 stay as they are.\n"
    "The loss is measured on --text, FILE or FILE:COLUMN, by default a sample of public-domain prose: perplexity before and\n"
    "after, the divergence of the next-token distributions, how often the first choice stays the same, and with --labels\n"
    "how many texts change their label (and Krippendorff's alpha of the two models). Your own text tells more than ours.\n"
    "All of it is in OUT.certificate.json too. Meanwhile logits wait beside OUT: --tokens x vocabulary x 4 bytes of disk\n"
    "(GPT-2, 4096 tokens: 785 MiB), and a --window of them in memory, twice. With few tokens the loss has a wide 95 %\n"
    "interval: where it reaches past --max-loss, or fewer than 100 tokens were scored, that is said; where it is wider than\n"
    "--max-loss, so that not even no loss could be told from too much, nothing is kept. The same holds of the share of\n"
    "labels that change and --max-changed: 5 % need 73 labelled texts, 15 % 22 (fewer are refused at once), and fewer than\n"
    "30 are said. Past --max-loss, --max-kl, --min-agreement or --max-changed nothing is kept and the exit status is 1.\n"
    "--overwrite replaces a directory only if it holds nothing but files that sill writes.\n";

int cli_quantize(int argc, char **argv) {
    static quantize_options o;
    static const arg_option own[] = {
        {"to", 0, ARG_CHOICE, offsetof(quantize_options, to_kind), 0, 0, kinds, "TYPE", "q8, q4 or int8"},
        {"output", 'o', ARG_TEXT, offsetof(quantize_options, output), 0, 0, NULL, "OUT", "the new model: a .gguf file, for int8 a directory"},
        {"overwrite", 0, ARG_FLAG, offsetof(quantize_options, overwrite), 0, 0, NULL, NULL, "replace OUT if it exists"},
        {"text", 0, ARG_TEXT, offsetof(quantize_options, text), 0, 0, NULL, "FILE[:COLUMN]", "text to measure the loss on: a plain file, or a column of CSV, TSV, JSONL"},
        {"tokens", 0, ARG_INT, offsetof(quantize_options, max_tokens), 2, 1 << 24, NULL, "N", "tokens that are scored at most (default 4096)"},
        {"window", 0, ARG_INT, offsetof(quantize_options, window), 2, 1 << 20, NULL, "N", "tokens read together (default 256)"},
        {"labels", 0, ARG_TEXT, offsetof(quantize_options, labels), 0, 0, NULL, "A,B,C", "also label each text with both models"},
        {"prompt", 0, ARG_TEXT, offsetof(quantize_options, prompt), 0, 0, NULL, "TEMPLATE", "for the labels, as in sill classify"},
        {"max-loss", 0, ARG_ABOVE, offsetof(quantize_options, max_loss), 0, 1e30, NULL, "PERCENT", "of perplexity that may be lost (default 2 for q8 and int8, 10 for q4)"},
        {"max-kl", 0, ARG_ABOVE, offsetof(quantize_options, max_kl), 0, 1e30, NULL, "NATS", "of mean divergence that are allowed (default 0.1 for q8 and int8, 0.5 for q4)"},
        {"min-agreement", 0, ARG_ABOVE, offsetof(quantize_options, min_agreement), 0, 100, NULL, "PERCENT", "of tokens whose first choice must stay (default 80 for q8 and int8, 60 for q4)"},
        {"max-changed", 0, ARG_ABOVE, offsetof(quantize_options, max_changed), 0, 100, NULL, "PERCENT", "of labels that may change (default 5 for q8 and int8, 15 for q4)"},
        {"force", 0, ARG_FLAG, offsetof(quantize_options, force), 0, 0, NULL, NULL, "keep the output whatever was lost"},
        {"json", 0, ARG_FLAG, offsetof(quantize_options, json), 0, 0, NULL, NULL, "the numbers as JSON"},
        {"device", 0, ARG_TEXT, offsetof(quantize_options, device), 0, 0, NULL, "NAME", "auto, cpu or ref, to measure with"},
        {"threads", 0, ARG_INT, offsetof(quantize_options, threads), 1, 1024, NULL, "N", "threads (default: the physical cores)"},
        {"memory", 0, ARG_INT, offsetof(quantize_options, memory_mib), 1, INT32_MAX, NULL, "MIB", "refuse what needs more"},
    };
    const arg_command command = {
        "quantize", "MODEL --to q8|q4|int8 -o OUT [--text FILE]", "Writes a smaller model, and certifies what was lost.",
        {{"quantize", own, SILL_ARRAY_LEN(own), &o}, cli_general_table()}, notes, 1, 1};
    char **models, *list = NULL;
    const char *labels[CLI_MAX_LABELS];
    size_t n_labels = 0, n_output;
    texts t = {0};
    int n;
    o.to_kind = -1;
    int status = args_parse(&command, argc, argv, &models, &n);
    if (status >= 0) return status;
    if (o.to_kind < 0) return args_usage("quantize", "--to q8, q4 or int8 is needed");
    if (!o.output || !*o.output) return args_usage("quantize", "-o OUT is needed");
    if (!strcmp(o.output, "-")) return args_usage("quantize", "a model cannot be written to standard output");
    n_output = strlen(o.output);
    while (n_output > 1 && o.output[n_output - 1] == '/') n_output--; /* slashes at the end are no part of the name */
    cli_model_options mo = {.device = o.device};
    if ((status = cli_check_model("quantize", &mo)) >= 0) return status;
    if (o.prompt && !o.labels) return args_usage("quantize", "--prompt is for --labels");
    if (o.prompt && !strstr(o.prompt, "{text}")) return args_usage("quantize", "--prompt has no {text}: where does the row's text go?");
    if (o.labels && !(list = sill__strndup(o.labels, strlen(o.labels)))) return out_of_memory();
    char *output = sill__strndup(o.output, n_output);
    if (!output) status = out_of_memory();
    o.output = output;
    if (status < 0 && list) status = cli_split_labels("quantize", list, 2, labels, &n_labels);
    if (status < 0) status = read_texts(&t, &o);
    if (status < 0) status = run_quantize(&o, models[0], &t, labels, n_labels);
    free_texts(&t);
    sill__free(list);
    sill__free(output);
    return status;
}
