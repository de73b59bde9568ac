/*
 * stability.c - `sill stability`: a sample of rows labelled with prompts that ought to say the same (paraphrases, labels and examples
 * in other orders), and how far those runs agree: Krippendorff's alpha over all, by what was varied, by label; the rows that
 * change.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common.h"
#include "task/codebook.h"

#define MAX_RUNS 256
enum { KIND_BASE, KIND_PARAPHRASE, KIND_LABELS, KIND_EXAMPLES, N_KINDS };
static const char *const kind_names[] = {"as it is", "paraphrases", "label orders", "example orders"};
static const char *const kind_keys[] = {"base", "paraphrases", "label_orders", "example_orders"};

typedef struct stability_options {
    cli_model_options model;
    cli_corpus_options corpus;
    cli_text_options text;
    const char *labels, *codebook;
    arg_list paraphrases;
    int prob;
    bool chat, no_chat, multi_label;
    float threshold;
    int32_t rows, orders, shown, boot;
    uint64_t seed;
} stability_options;

typedef struct variant {
    int kind;
    int32_t index;           /* within its kind, from 1 */
    sill_codebook *book;
    double same;             /* share of the rows with the labels of the first run */
} variant;

typedef struct stability {
    const stability_options *o;
    sill_codebook *book;
    sill_codebook_info info;
    bool multi;
    size_t n_labels, n_rows, n_read, n_failed, n_runs, n_units, next, n_changed;
    sill__corpus_row **rows; /* (n_rows) the sample, by number */
    variant runs[MAX_RUNS];
    int32_t *codes;          /* (n_runs, n_units): of a row its label; multi-label: of a row and label, 1 or 0. -1: failed */
    size_t text_slot, run;   /* the run under way */
} stability;

static sill_status no_memory(sill_error *err) { return sill__fail(err, SILL_ENOMEM, "no memory for the rows of the sample"); }

/* ---- the sample: each row of the file is as likely as any other (Vitter's algorithm R), by the seed alone */

static int by_number(const void *a, const void *b) {
    uint64_t x = (*(sill__corpus_row *const *)a)->number, y = (*(sill__corpus_row *const *)b)->number;
    return x < y ? -1 : x > y;
}

static sill_status read_sample(stability *s, cli_run *run, sill_error *err) {
    size_t most = (size_t)s->o->rows;
    sill__corpus_row *row = NULL;
    sill_status st;
    s->rows = sill__calloc(most, sizeof(sill__corpus_row *));
    if (!s->rows) return no_memory(err);
    while ((st = sill__reader_next(run->reader, &row, err)) == SILL_OK && row) {
        const sill__cell *c = row->error ? NULL : &row->cells[run->text_slot];
        if (!c || c->kind != SILL__CELL_TEXT) { /* what cannot be read is in no sample */
            sill__row_free(row);
            continue;
        }
        s->n_read++;
        size_t at = s->n_rows;
        if (s->n_rows < most) s->n_rows++;
        else at = (size_t)(sill__uniform(s->o->seed, s->n_read, 0, 0) * (double)s->n_read);
        if (at >= most) {
            sill__row_free(row);
            continue;
        }
        sill__row_free(s->rows[at]);
        s->rows[at] = row;
    }
    if (st == SILL_OK && !s->n_rows) st = sill__fail(err, SILL_EINVAL, "%s has no row with a text", run->input);
    s->text_slot = run->text_slot;
    if (st == SILL_OK) qsort(s->rows, s->n_rows, sizeof *s->rows, by_number);
    return st;
}

/* ---- the variants */

static bool add_variant(stability *s, int kind, const int32_t *labels, const int32_t *examples, int32_t paraphrase, sill_error *err) {
    if (s->n_runs == MAX_RUNS) return true;
    variant *v = &s->runs[s->n_runs];
    *v = (variant){.kind = kind, .index = 1};
    for (size_t i = 0; i < s->n_runs; i++) v->index += s->runs[i].kind == kind;
    if (sill__codebook_vary(s->book, labels, examples, paraphrase, &v->book, err) != SILL_OK) return false;
    s->n_runs++;
    return true;
}

/* Up to ORDERS orders of N things, each another than the given one and those before: by Fisher and Yates, of seed, kind and try. */
static bool add_orders(stability *s, int kind, size_t n, sill_error *err) {
    size_t want = (size_t)s->o->orders, got = 0;
    int32_t *all = n > 1 ? sill__calloc((want + 1) * n, sizeof *all) : NULL;
    if (n < 2) return true;
    if (!all) {
        (void)no_memory(err);
        return false;
    }
    for (size_t i = 0; i < n; i++) all[i] = (int32_t)i;
    bool ok = true;
    for (uint32_t attempt = 0; ok && got < want && attempt < 100 + 10 * (uint32_t)want; attempt++) {
        int32_t *order = all + (got + 1) * n;
        bool new = true;
        memcpy(order, all, n * sizeof *order);
        for (size_t i = n - 1; i > 0; i--) {
            size_t j = (size_t)(sill__uniform(s->o->seed, attempt, (uint32_t)kind, (uint32_t)i) * (double)(i + 1));
            int32_t swap = order[i];
            order[i] = order[j];
            order[j] = swap;
        }
        for (size_t k = 0; k <= got; k++) new = new && memcmp(all + k * n, order, n * sizeof *order) != 0;
        if (!new) continue;
        got++;
        ok = add_variant(s, kind, kind == KIND_LABELS ? order : NULL, kind == KIND_EXAMPLES ? order : NULL, -1, err);
    }
    sill__free(all);
    return ok;
}

/* Whether the prompt tells the order of the labels. */
static bool order_is_told(const stability *s) {
    bool told = (s->book->instruction && strstr(s->book->instruction, "{labels}")) || (s->multi && s->book->n_examples);
    for (size_t i = 0; i < s->n_labels; i++) told = told || s->book->labels[i].description;
    return told;
}

static bool make_variants(stability *s, sill_error *err) {
    bool ok = add_variant(s, KIND_BASE, NULL, NULL, -1, err);
    for (int32_t i = 0; ok && i < s->info.n_paraphrases; i++) ok = add_variant(s, KIND_PARAPHRASE, NULL, NULL, i, err);
    if (ok && order_is_told(s)) ok = add_orders(s, KIND_LABELS, s->n_labels, err);
    if (ok) ok = add_orders(s, KIND_EXAMPLES, s->book->n_examples, err);
    return ok;
}

/* ---- the runs */

static int next_row(void *user, sill_row *row) {
    stability *s = user;
    if (cli_stop) return -1;
    if (s->next == s->n_rows) return 0;
    const sill__cell *c = &s->rows[s->next]->cells[s->text_slot];
    *row = (sill_row){.index = s->next++, .text = c->p ? c->p : "", .n_bytes = c->n};
    return 1;
}

static int32_t *code_at(stability *s, size_t run, size_t row) { return s->codes + run * s->n_units + row * (s->multi ? s->n_labels : 1); }

static int done(void *user, const sill_classified *r) {
    stability *s = user;
    int32_t *code = code_at(s, s->run, (size_t)r->index);
    if (r->status != SILL_OK) {
        if (s->run == 0) s->n_failed++;
        if (s->run == 0 && s->n_failed <= 3) cli_say("row %llu: %s", (unsigned long long)s->rows[r->index]->number, r->error);
        return cli_stop;
    }
    for (int32_t i = 0; i < r->n_labels; i++) { /* a variant's labels by name: their order may be another */
        const char *name = s->runs[s->run].book->names[i];
        size_t k = 0;
        while (strcmp(s->info.labels[k], name)) k++;
        if (s->multi) code[k] = r->chosen[i];
        else if (i == r->label) *code = (int32_t)k;
    }
    return cli_stop;
}

static sill_status run_all(stability *s, const cli_engine *engine, sill_error *err) {
    const stability_options *o = s->o;
    sill_status st = SILL_OK;
    s->n_units = s->n_rows * (s->multi ? s->n_labels : 1);
    s->codes = sill__calloc(s->n_runs * s->n_units, sizeof *s->codes);
    if (!s->codes) return no_memory(err);
    for (size_t i = 0; i < s->n_runs * s->n_units; i++) s->codes[i] = -1;
    for (s->run = 0; st == SILL_OK && s->run < s->n_runs; s->run++) {
        const variant *v = &s->runs[s->run];
        sill_classify_options co = {.size = sizeof co, .codebook = v->book, .prob = (sill_prob)o->prob, .chat = o->chat, .no_chat = o->no_chat,
                                    .multi_label = o->multi_label, .threshold = o->threshold, .long_policy = (sill_long)o->text.long_policy,
                                    .tokenize_flags = o->text.special ? SILL_TOKENIZE_SPECIAL : 0};
        s->next = 0;
        cli_say("run %zu of %zu: %s %d", s->run + 1, s->n_runs, kind_names[v->kind], (int)v->index);
        st = sill_classify(engine->session, &co, next_row, done, s, err);
    }
    return st;
}

/* ---- agreement */

static bool row_changes(stability *s, size_t row, size_t run) {
    size_t n = s->multi ? s->n_labels : 1;
    return memcmp(code_at(s, 0, row), code_at(s, run, row), n * sizeof(int32_t)) != 0;
}

static void count_changes(stability *s) {
    for (size_t i = 0; i < s->n_rows; i++) {
        bool any = false;
        for (size_t r = 0; r < s->n_runs; r++) {
            bool other = row_changes(s, i, r);
            any = any || other;
            s->runs[r].same += !other;
        }
        s->n_changed += any;
    }
    for (size_t r = 0; r < s->n_runs; r++) s->runs[r].same /= (double)s->n_rows;
}

/* Alpha of the first run and those of KIND (BASE: all). LABEL: of it against the others; below 0: of all labels. */
static sill_status alpha_of(stability *s, int kind, int32_t label, sill_estimate *out, size_t *n_runs, sill_error *err) {
    size_t units = s->multi && label >= 0 ? s->n_rows : s->n_units, n = 0;
    int32_t *codes = sill__calloc(s->n_runs * units, sizeof *codes);
    sill_agreement a = {0};
    sill_agree_options ao = {.size = sizeof ao, .n_bootstrap = s->o->boot ? s->o->boot : -1, .seed = s->o->seed, .n_threads = s->o->model.threads};
    if (!codes) return no_memory(err);
    for (size_t r = 0; r < s->n_runs; r++) {
        if (r && kind != KIND_BASE && s->runs[r].kind != kind) continue;
        for (size_t u = 0; u < units; u++) {
            int32_t c = s->codes[r * s->n_units + (s->multi && label >= 0 ? u * s->n_labels + (size_t)label : u)];
            codes[n * units + u] = c < 0 || label < 0 || s->multi ? c : c == label;
        }
        n++;
    }
    *n_runs = n;
    sill_status st = n < 2 ? SILL_OK : sill_agree(codes, n, units, s->multi || label >= 0 ? 2 : s->n_labels, &ao, &a, err);
    *out = n < 2 ? (sill_estimate){NAN, NAN, NAN} : a.alpha;
    sill__free(codes);
    return st;
}

/* ---- the report */

static void put_estimate(sill__str *out, const sill_estimate *e, bool json) {
    if (json) {
        sill__str_puts(out, "{\"value\":");
        sill__put_json_f64(out, e->value);
        sill__str_puts(out, ",\"low\":");
        sill__put_json_f64(out, e->low);
        sill__str_puts(out, ",\"high\":");
        sill__put_json_f64(out, e->high);
        sill__str_puts(out, "}");
        return;
    }
    if (isnan(e->value)) sill__str_puts(out, "undefined (one label only)");
    else sill__str_putf(out, "%.3f", e->value);
    if (!isnan(e->low)) sill__str_putf(out, " (%.3f to %.3f)", e->low, e->high);
}

static void put_name(sill__str *out, const char *name, bool json) {
    char plain[512];
    if (json) {
        sill__put_json_string(out, name, strlen(name));
        return;
    }
    snprintf(plain, sizeof plain, "%s", name);
    sill__plain(plain);
    sill__str_puts(out, plain);
}

static void put_row_labels(sill__str *out, stability *s, size_t row, size_t run, bool json) {
    const int32_t *code = code_at(s, run, row);
    bool any = false;
    if (*code < 0) {
        sill__str_puts(out, json ? "null" : "-");
        return;
    }
    if (!s->multi) {
        put_name(out, s->info.labels[*code], json);
        return;
    }
    sill__str_puts(out, "[");
    for (size_t k = 0; k < s->n_labels; k++) {
        if (!code[k]) continue;
        if (any) sill__str_puts(out, json ? "," : ", ");
        any = true;
        put_name(out, s->info.labels[k], json);
    }
    sill__str_puts(out, "]");
}

static sill_status put_alphas(sill__str *out, stability *s, bool json, sill_error *err) {
    sill_status st = SILL_OK;
    size_t n;
    sill_estimate e;
    for (int kind = 0; st == SILL_OK && kind < N_KINDS; kind++) {
        if ((st = alpha_of(s, kind, -1, &e, &n, err)) != SILL_OK) break;
        if (kind && n < 2) continue;
        if (json) sill__str_putf(out, kind ? ",\"%s\":" : " \"alpha\":{\"%s\":", kind ? kind_keys[kind] : "all");
        else if (kind) sill__str_putf(out, "  of the first and %zu %s: ", n - 1, kind_names[kind]);
        else sill__str_putf(out, "Krippendorff's alpha of all %zu runs: ", n);
        put_estimate(out, &e, json);
        if (!json) sill__str_puts(out, "\n");
    }
    sill__str_puts(out, json ? "},\n \"labels\":[" : "by label:\n");
    for (size_t k = 0; st == SILL_OK && k < s->n_labels; k++) {
        if ((st = alpha_of(s, KIND_BASE, (int32_t)k, &e, &n, err)) != SILL_OK) break;
        sill__str_puts(out, json ? (k ? ",\n  {\"label\":" : "\n  {\"label\":") : "  ");
        put_name(out, s->info.labels[k], json);
        sill__str_puts(out, json ? ",\"alpha\":" : ": ");
        put_estimate(out, &e, json);
        sill__str_puts(out, json ? "}" : "\n");
    }
    if (json) sill__str_puts(out, "],\n");
    return st;
}

static void put_runs(sill__str *out, stability *s, bool json) {
    sill__str_puts(out, json ? " \"runs\":[" : "share of the rows labelled as in the first run:\n");
    for (size_t r = 0; r < s->n_runs; r++) {
        const variant *v = &s->runs[r];
        if (!json && !r) continue;
        if (!json) {
            sill__str_putf(out, "  %s %d: %.3f\n", kind_names[v->kind], (int)v->index, v->same);
            continue;
        }
        sill__str_putf(out, "%s\n  {\"varied\":\"%s\",\"number\":%d,\"same\":", r ? "," : "", kind_keys[v->kind], (int)v->index);
        sill__put_json_f64(out, v->same);
        sill__str_puts(out, ",\"order\":[");
        for (size_t k = 0; k < s->n_labels; k++) {
            if (k) sill__str_puts(out, ",");
            put_name(out, v->book->names[k], true);
        }
        sill__str_puts(out, "],\"paraphrase\":");
        if (v->kind == KIND_PARAPHRASE) put_name(out, s->book->paraphrases[v->index - 1], true);
        else sill__str_puts(out, "null");
        sill__str_puts(out, "}");
    }
    if (json) sill__str_puts(out, "],\n");
}

/* The rows that change; in JSON all rows, with the labels of all runs. */
static void put_rows(sill__str *out, stability *s, bool json) {
    size_t shown = 0;
    if (json) sill__str_puts(out, " \"rows\":[");
    else sill__str_putf(out, "rows that change: %zu of %zu\n", s->n_changed, s->n_rows);
    for (size_t i = 0; i < s->n_rows; i++) {
        bool any = false;
        for (size_t r = 0; r < s->n_runs; r++) any = any || row_changes(s, i, r);
        if (!json && (!any || shown == (size_t)s->o->shown)) continue;
        sill__str_putf(out, json ? "%s\n  {\"row\":%llu,\"labels\":[" : "%s  row %llu: ", json && i ? "," : "", (unsigned long long)s->rows[i]->number);
        for (size_t r = 0; r < s->n_runs; r++) {
            if (r) sill__str_puts(out, json ? "," : " | ");
            put_row_labels(out, s, i, r, json);
        }
        sill__str_puts(out, json ? "]}" : "\n");
        shown++;
    }
    if (json) sill__str_puts(out, "]}\n");
    else if (shown < s->n_changed) sill__str_putf(out, "  and %zu more (--json has all)\n", s->n_changed - shown);
}

static int report(stability *s, const cli_run *run, const cli_engine *engine) {
    sill__str out;
    sill_error err = {0};
    bool json = s->o->corpus.json;
    sill__str_init(&out, (size_t)1 << 30);
    count_changes(s);
    if (json) {
        sill__str_puts(&out, "{\"file\":");
        put_name(&out, run->input, true);
        sill__str_puts(&out, ",\"model\":");
        put_name(&out, engine->path, true);
        sill__str_putf(&out, ",\"rows_sampled\":%zu,\"rows_read\":%zu,\"failed\":%zu,\"changed\":%zu,\"seed\":%llu,\"codebook_sha256\":", s->n_rows, s->n_read,
                       s->n_failed, s->n_changed, (unsigned long long)s->o->seed);
        if (s->o->codebook) put_name(&out, s->info.sha256, true);
        else sill__str_puts(&out, "null");
        sill__str_puts(&out, ",\n");
    } else {
        sill__str_putf(&out, "%zu of %zu rows, %zu runs\n", s->n_rows, s->n_read, s->n_runs);
    }
    sill_status st = put_alphas(&out, s, json, &err);
    put_runs(&out, s, json);
    put_rows(&out, s, json);
    if (st == SILL_OK && out.failed) st = no_memory(&err);
    if (st == SILL_OK) fwrite(out.p, 1, out.n, stdout);
    sill__str_free(&out);
    int status = st == SILL_OK ? cli_flush_stdout() : cli_fail(&err);
    return status == EXIT_OK && s->n_failed ? EXIT_ROWS : status;
}

/* ---- the command */

static const char notes[] =
    "The first run takes labels or codebook as they are; each other changes one thing: a paraphrase of the prompt or the\n"
    "instruction (the codebook's, or --paraphrase), the order of the labels (where the prompt tells it: descriptions,\n"
    "{labels} in the instruction), the order of the examples. Alpha near 1: the labels do not depend on it; Krippendorff\n"
    "asks for 0.8, and 0.667 for tentative conclusions. Intervals resample\n"
    "rows (of several labels: pairs of row and label). --json has the labels of all runs.\n";

/* --labels and --paraphrase as a codebook. */
static sill_status make_book(const stability_options *o, const char *const *labels, size_t n, sill_codebook **book, sill_error *err) {
    sill__str s;
    sill__str_init(&s, (size_t)1 << 24);
    sill__str_puts(&s, o->multi_label ? "{\"multi_label\":true,\"labels\":[" : "{\"labels\":[");
    for (size_t i = 0; i < n; i++) {
        if (i) sill__str_puts(&s, ",");
        sill__put_json_string(&s, labels[i], strlen(labels[i]));
    }
    sill__str_puts(&s, "]");
    for (size_t i = 0; i < o->paraphrases.n; i++) {
        sill__str_puts(&s, i ? "," : ",\"paraphrases\":[");
        sill__put_json_string(&s, o->paraphrases.items[i], strlen(o->paraphrases.items[i]));
    }
    sill__str_puts(&s, o->paraphrases.n ? "]}" : "}");
    sill_status st = s.failed ? no_memory(err) : sill_codebook_parse(s.p, s.n, "--labels and --paraphrase", book, err);
    sill__str_free(&s);
    return st;
}

static int read_book(const stability_options *o, stability *s) {
    static const char *labels[CLI_MAX_LABELS];
    sill_error err = {0};
    size_t n = 0;
    if (!o->labels == !o->codebook) return args_usage("stability", "give --labels A,B,C or --codebook FILE, one of them");
    if (o->codebook && o->paraphrases.n) return args_usage("stability", "--paraphrase goes with --labels; a codebook has its own paraphrases");
    if (o->chat && o->no_chat) return args_usage("stability", "--chat and --no-chat exclude each other");
    char *text = o->labels ? sill__strndup(o->labels, strlen(o->labels)) : NULL;
    int status = o->labels ? (text ? cli_split_labels("stability", text, o->multi_label ? 1 : 2, labels, &n) : EXIT_FAILED) : -1;
    if (status < 0) {
        sill_status st = o->labels ? make_book(o, labels, n, &s->book, &err) : sill_codebook_load(o->codebook, &s->book, &err);
        if (st != SILL_OK) status = cli_fail(&err);
        if (st == SILL_EFORMAT || st == SILL_ENOENT) status = EXIT_USAGE;
    }
    sill__free(text);
    if (status >= 0) return status;
    sill_codebook_get_info(s->book, &s->info, sizeof s->info);
    s->n_labels = (size_t)s->info.n_labels;
    s->multi = o->multi_label || s->info.multi_label;
    if (!make_variants(s, &err)) return cli_fail(&err);
    if (s->n_runs < 2)
        return args_usage("stability", "there is nothing to vary: give paraphrases (--paraphrase, or in the codebook), examples, or descriptions of the labels");
    return -1;
}

static void free_all(stability *s) {
    for (size_t i = 0; s->rows && i < s->n_rows; i++) sill__row_free(s->rows[i]);
    for (size_t i = 0; i < s->n_runs; i++) sill_codebook_free(s->runs[i].book);
    sill_codebook_free(s->book);
    sill__free(s->rows);
    sill__free(s->codes);
}

#define AT(member) offsetof(stability_options, member)

int cli_stability(int argc, char **argv) {
    static stability_options o = {.rows = 200, .orders = 3, .shown = 10, .boot = 1000};
    static const char *const probs[] = {"norm", "raw", "calibrated", NULL};
    static const arg_option own[] = {
        {"labels", 0, ARG_TEXT, AT(labels), 0, 0, NULL, "A,B,C", "the labels to choose from"},
        {"codebook", 0, ARG_TEXT, AT(codebook), 0, 0, NULL, "FILE", "labels, examples, paraphrases (docs/CODEBOOK.md)"},
        {"paraphrase", 0, ARG_LIST, AT(paraphrases), 0, 0, NULL, "TEXT", "with --labels: another prompt (with {text}) or instruction; may be given again"},
        {"rows", 0, ARG_INT, AT(rows), 1, 1000000, NULL, "N", "size of the sample (default 200)"},
        {"orders", 0, ARG_INT, AT(orders), 0, 50, NULL, "N", "other orders of the labels, and of the examples (default 3)"},
        {"seed", 0, ARG_U64, AT(seed), 0, 0, NULL, "N", "of the sample, the orders, the intervals (default 0)"},
        {"show", 0, ARG_INT, AT(shown), 0, 1000000, NULL, "N", "rows that change, in the table (default 10)"},
        {"boot", 0, ARG_INT, AT(boot), 0, 100000, NULL, "N", "resamples for intervals (default 1000; 0: none)"},
        {"prob", 0, ARG_CHOICE, AT(prob), 0, 0, probs, "KIND", "which probabilities choose the label: norm, raw, calibrated"},
        {"multi-label", 0, ARG_FLAG, AT(multi_label), 0, 0, NULL, NULL, "any number of labels a row; agreement is over rows and labels"},
        {"threshold", 0, ARG_ABOVE, AT(threshold), 0, 1, NULL, "T", "multi-label: probability from which a label is given (default 0.5)"},
        {"chat", 0, ARG_FLAG, AT(chat), 0, 0, NULL, NULL, "the model's chat template around the prompt (the default where it has one)"},
        {"no-chat", 0, ARG_FLAG, AT(no_chat), 0, 0, NULL, NULL, "no chat template"},
    };
    static const arg_option output[] = {
        {"json", 0, ARG_FLAG, AT(corpus.json), 0, 0, NULL, NULL, "the report as JSON, with the labels of all runs"},
    };
    const arg_command command = {
        "stability", "FILE --text COLUMN (--labels A,B,C --paraphrase TEXT | --codebook BOOK)",
        "How far labels depend on how the question is put: a sample of rows labelled with prompts that ought to say the same.",
        {{"what is varied", own, SILL_ARRAY_LEN(own), &o}, cli_input_table(&o.corpus.in, true), {"output", output, SILL_ARRAY_LEN(output), &o},
         cli_text_table(&o.text, CLI_LONG_MEAN),
         cli_model_table(&o.model), cli_general_table()},
        notes, 1, 1};
    char **files;
    int n;
    sill_error err = {0};
    cli_run run = {0};
    cli_engine engine = {0};
    stability s = {.o = &o};
    int status = args_parse(&command, argc, argv, &files, &n);
    if (status >= 0) return status;
    status = cli_check_long("stability", &o.text, CLI_LONG_MEAN);
    if (status < 0) status = read_book(&o, &s);
    if (status < 0) status = cli_run_input(&run, "stability", files[0], &o.corpus, NULL);
    if (status < 0) {
        sill_status st = read_sample(&s, &run, &err);
        status = st == SILL_OK ? cli_engine_open("stability", &o.model, NULL, &engine) : cli_fail(&err);
        if (status < 0 && o.chat && !engine.info.is_instruct)
            status = args_usage("stability", "--chat: %s has no chat template that is known here", engine.path);
        if (status < 0 && run_all(&s, &engine, &err) != SILL_OK) status = cli_fail(&err);
        if (status < 0) status = report(&s, &run, &engine);
        cli_run_free(&run);
        cli_engine_close(&engine);
    }
    free_all(&s);
    return status;
}
