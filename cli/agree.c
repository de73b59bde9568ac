/*
 * agree.c - `sill agree`: how far coders agree, how right they are, and what their labels say about all rows. The options, and
 * what is computed from the columns read: rows that are alike are counted once, which makes resampling of many rows cheap.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agree.h"

const char *const agree_levels[] = {"nominal", "ordinal", "interval", "ratio", NULL};

/* ---- agreement of the coders */

typedef struct table { /* rows with two labels and more, alike ones together */
    size_t n_items, n_patterns;
    uint32_t *pattern;   /* (n_items) */
    int32_t *codes;      /* (n_coders, n_patterns) */
    double *times;       /* (n_patterns) */
} table;

static void free_table(table *t) {
    sill__free(t->pattern);
    sill__free(t->codes);
    sill__free(t->times);
}

static bool same_row(const agree_data *d, size_t u, size_t v) {
    for (size_t c = 0; c < d->n_coders; c++)
        if (d->codes[c][u] != d->codes[c][v]) return false;
    return true;
}

static bool make_table(const agree_data *d, table *t) {
    size_t n_slots = 1024;
    int32_t key[AGREE_MAX_CODERS];
    while (n_slots < 2 * d->n_rows) n_slots *= 2;
    uint32_t *slots = sill__calloc(n_slots, sizeof *slots), *first = sill__calloc(d->n_rows + 1, sizeof *first);
    t->pattern = sill__calloc(d->n_rows + 1, sizeof *t->pattern);
    bool ok = slots && first && t->pattern;
    for (size_t u = 0; ok && u < d->n_rows; u++) {
        size_t m = 0;
        for (size_t c = 0; c < d->n_coders; c++) {
            key[c] = d->codes[c][u];
            m += key[c] >= 0;
        }
        if (m < 2) continue;
        size_t i = (size_t)sill__hash64(key, d->n_coders * sizeof *key) & (n_slots - 1);
        while (slots[i] && !same_row(d, u, first[slots[i] - 1])) i = (i + 1) & (n_slots - 1);
        if (!slots[i]) {
            first[t->n_patterns++] = (uint32_t)u;
            slots[i] = (uint32_t)t->n_patterns;
        }
        t->pattern[t->n_items++] = slots[i] - 1;
    }
    if (ok) ok = (t->codes = sill__calloc(d->n_coders * t->n_patterns + 1, sizeof *t->codes)) && (t->times = sill__calloc(t->n_patterns + 1, sizeof *t->times));
    for (size_t c = 0; ok && c < d->n_coders; c++)
        for (size_t i = 0; i < t->n_patterns; i++) t->codes[c * t->n_patterns + i] = d->codes[c][first[i]];
    for (size_t u = 0; ok && u < t->n_items; u++) t->times[t->pattern[u]] += 1;
    sill__free(slots);
    sill__free(first);
    return ok;
}

#define N_ALL 4      /* percent, alpha, fleiss, mean kappa; then four numbers a pair */
#define A_PAIR 4

typedef struct agreement {
    sill__ratings ratings;
    const agree_data *d;
    double *scratch;
} agreement;

static void agreement_of(const agreement *a, const sill__ratings *r, double *stats, const char **why) {
    const bool weighted = a->d->o->level != SILL_LEVEL_NOMINAL;
    double sum = 0, n = 0, *pair = stats + N_ALL;
    stats[0] = sill__percent_all(r, NULL, NULL, &why[0]);
    stats[1] = sill__alpha(r, (sill_level)a->d->o->level, &why[1]);
    stats[2] = sill__fleiss(r, NULL, &why[2]);
    for (size_t i = 0; i < r->n_coders; i++)
        for (size_t j = i + 1; j < r->n_coders; j++, pair += A_PAIR) {
            const char **of = why + (pair - stats);
            pair[0] = sill__percent(r, i, j, NULL, &of[0]);
            pair[1] = sill__kappa(r, i, j, 0, &of[1]);
            pair[2] = weighted ? sill__kappa(r, i, j, 1, &of[2]) : NAN;
            pair[3] = weighted ? sill__kappa(r, i, j, 2, &of[3]) : NAN;
            if (!isnan(pair[1])) sum += pair[1], n++;
        }
    stats[3] = n > 0 ? sum / n : NAN;
    if (!(n > 0)) why[3] = "it is defined for no pair";
}

static void resampled_agreement(void *user, int thread, const double *times, double *stats) {
    const agreement *a = user;
    const char *why[N_ALL + A_PAIR * AGREE_MAX_CODERS * (AGREE_MAX_CODERS - 1) / 2];
    sill__ratings r = a->ratings;
    r.times = times;
    r.scratch = a->scratch + (size_t)thread * SILL__SCRATCH(r.n_labels);
    agreement_of(a, &r, stats, why);
}

static sill_status out_of_memory(sill_error *err) { return sill__fail(err, SILL_ENOMEM, "no memory for the numbers of this file"); }

static int n_threads(const agree_data *d) { return d->o->threads ? d->o->threads : sill__n_cores(); }

static sill__bootstrap resampling(const agree_data *d, uint32_t stream) {
    double confidence = round((double)d->o->confidence * 1e6) / 1e6; /* what was meant by a float */
    return (sill__bootstrap){.n_replicates = d->o->boot, .n_threads = n_threads(d), .seed = d->o->seed, .stream = stream,
                             .confidence = confidence, .stop = &cli_stop};
}

static agree_stat stat_of(double value, const sill__interval *i, const char *why) {
    return (agree_stat){value, isnan(value) ? NAN : i->low, isnan(value) ? NAN : i->high, isnan(value) ? why : NULL};
}

static sill_status compute_agreement(agree_result *r, sill_error *err) {
    const agree_data *d = r->data;
    const size_t n_stats = N_ALL + A_PAIR * r->n_pairs;
    table t = {0};
    agreement a = {.d = d};
    double *stats = sill__calloc(n_stats, sizeof *stats);
    const char **why = sill__calloc(n_stats, sizeof *why);
    sill__interval *in = sill__calloc(n_stats, sizeof *in);
    a.scratch = sill__calloc((size_t)n_threads(d) * SILL__SCRATCH(d->labels.n), sizeof *a.scratch);
    sill_status s = stats && why && in && a.scratch && make_table(d, &t) ? SILL_OK : out_of_memory(err);
    if (s == SILL_OK) {
        a.ratings = (sill__ratings){.n_coders = d->n_coders, .n_units = t.n_patterns, .n_labels = d->labels.n, .codes = t.codes,
                                    .values = d->values, .times = t.times, .scratch = a.scratch};
        for (size_t i = 0; i < n_stats; i++) in[i] = (sill__interval){NAN, NAN, 0};
        agreement_of(&a, &a.ratings, stats, why);
        sill__percent_all(&a.ratings, &r->n_units, &r->n_values, NULL);
        sill__fleiss(&a.ratings, &r->n_complete, NULL);
        sill__bootstrap b = resampling(d, 0);
        b.n_items = t.n_items;
        b.n_patterns = t.n_patterns;
        b.pattern = t.pattern;
        b.n_stats = n_stats;
        b.fn = resampled_agreement;
        b.user = &a;
        if (d->o->boot && t.n_items) s = sill__bootstrap_run(&b, in, err);
    }
    if (s == SILL_OK) {
        agree_stat *to[N_ALL] = {&r->percent, &r->alpha, &r->fleiss, &r->mean_kappa};
        for (size_t i = 0; i < N_ALL; i++) *to[i] = stat_of(stats[i], &in[i], why[i]);
        for (size_t p = 0, i = 0; i < d->n_coders; i++)
            for (size_t j = i + 1; j < d->n_coders; j++, p++) {
                const size_t k = N_ALL + A_PAIR * p;
                r->pairs[p] = (agree_pair){.a = i, .b = j, .percent = stat_of(stats[k], &in[k], why[k]), .kappa = stat_of(stats[k + 1], &in[k + 1], why[k + 1]),
                                           .linear = stat_of(stats[k + 2], &in[k + 2], why[k + 2]), .quadratic = stat_of(stats[k + 3], &in[k + 3], why[k + 3])};
                sill__percent(&a.ratings, i, j, &r->pairs[p].n, NULL);
            }
    }
    free_table(&t);
    sill__free(stats);
    sill__free(why);
    sill__free(in);
    sill__free(a.scratch);
    return s;
}

/* ---- against gold */

typedef struct versus_job { size_t n_labels; sill__label_score *labels; /* (threads, n_labels) */ } versus_job;

static void resampled_scores(void *user, int thread, const double *times, double *stats) {
    const versus_job *j = user;
    sill__label_score *labels = j->labels + (size_t)thread * j->n_labels;
    sill__scores s;
    sill__score_cells(times, j->n_labels, labels, &s);
    const double all[] = {s.accuracy, s.kappa, s.macro.precision, s.macro.recall, s.macro.f1, s.weighted.precision, s.weighted.recall, s.weighted.f1};
    memcpy(stats, all, sizeof all);
    for (size_t k = 0; k < j->n_labels; k++) {
        stats[8 + 3 * k] = labels[k].precision;
        stats[9 + 3 * k] = labels[k].recall;
        stats[10 + 3 * k] = labels[k].f1;
    }
}

static sill_status compute_prevalence(agree_versus *v, const agree_data *d, double confidence, sill_error *err) {
    const int32_t *given = d->codes[v->coder], *gold = d->codes[d->n_coders];
    const size_t n = (size_t)v->n_sample;
    double *share = sill__calloc(d->labels.n + 1, sizeof *share), *weight = sill__calloc(n + 1, sizeof *weight);
    uint8_t *is_gold = sill__calloc(n + 1, 1), *is_given = sill__calloc(n + 1, 1);
    const bool ok = share && weight && is_gold && is_given;
    for (size_t u = 0; ok && u < d->n_rows; u++)
        if (given[u] >= 0) share[given[u]] += 1 / v->n_all;
    for (size_t k = 0; ok && k < d->labels.n; k++) {
        size_t i = 0;
        for (size_t u = 0; u < d->n_rows; u++) {
            if (given[u] < 0 || gold[u] < 0) continue;
            is_gold[i] = gold[u] == (int32_t)k;
            is_given[i] = given[u] == (int32_t)k;
            weight[i++] = d->weight ? d->weight[u] : 0;
        }
        sill__correct_prevalence(v->n_all, share[k], is_gold, is_given, d->weight ? weight : NULL, n, confidence, &v->prevalence[k]);
    }
    sill__free(share);
    sill__free(weight);
    sill__free(is_gold);
    sill__free(is_given);
    return ok ? SILL_OK : out_of_memory(err);
}

static sill_status compute_versus(agree_result *r, agree_versus *v, size_t coder, sill_error *err) {
    const agree_data *d = r->data;
    const size_t n_labels = d->labels.n, n_stats = 8 + 3 * n_labels;
    const int32_t *given = d->codes[coder], *gold = d->codes[d->n_coders];
    uint32_t *pattern = sill__calloc(d->n_rows + 1, sizeof *pattern);
    versus_job j = {.n_labels = n_labels, .labels = sill__calloc((size_t)n_threads(d) * n_labels, sizeof *j.labels)};
    v->coder = coder;
    v->cells = sill__calloc(n_labels * n_labels, sizeof *v->cells);
    v->labels = sill__calloc(n_labels, sizeof *v->labels);
    v->intervals = sill__calloc(n_stats, sizeof *v->intervals);
    v->prevalence = sill__calloc(n_labels, sizeof *v->prevalence);
    sill_status s = pattern && j.labels && v->cells && v->labels && v->intervals && v->prevalence ? SILL_OK : out_of_memory(err);
    size_t n = 0;
    for (size_t u = 0; s == SILL_OK && u < d->n_rows; u++) {
        if (given[u] < 0) continue;
        v->n_all++;
        if (gold[u] < 0) continue;
        pattern[n] = (uint32_t)((size_t)gold[u] * n_labels + (size_t)given[u]);
        v->cells[pattern[n++]] += 1;
    }
    v->n_sample = (double)n;
    if (s == SILL_OK) {
        for (size_t i = 0; i < n_stats; i++) v->intervals[i] = (sill__interval){NAN, NAN, 0};
        sill__score_cells(v->cells, n_labels, v->labels, &v->scores);
        sill__bootstrap b = resampling(d, 1 + (uint32_t)coder);
        b.n_items = n;
        b.n_patterns = n_labels * n_labels;
        b.pattern = pattern;
        b.n_stats = n_stats;
        b.fn = resampled_scores;
        b.user = &j;
        if (d->o->boot && n) s = sill__bootstrap_run(&b, v->intervals, err);
        if (s == SILL_OK) s = compute_prevalence(v, d, r->confidence, err);
    }
    sill__free(pattern);
    sill__free(j.labels);
    return s;
}

/* ---- calibration */

typedef struct calibration_job { const agree_data *d; sill__bin *bins; /* (threads, bins) */ uint8_t *bin_of; } calibration_job;

static void calibration_of(const calibration_job *j, int thread, const double *times, sill__bin *bins, double *stats) {
    const agree_data *d = j->d;
    const size_t n_bins = (size_t)d->o->bins;
    sill__calibration c;
    double brier = 0, n = 0;
    (void)thread;
    memset(bins, 0, n_bins * sizeof *bins);
    for (size_t i = 0; i < d->n_probs; i++) {
        const double t = times ? times[i] : 1;
        sill__bin *b = &bins[j->bin_of[i]];
        b->n += t;
        b->confidence += t * d->confidence[i];
        b->hits += t * d->hit[i];
        brier += t * d->brier[i];
        n += t;
    }
    sill__calibrate(bins, n_bins, &c);
    stats[0] = c.ece;
    stats[1] = n > 0 ? brier / n : NAN;
}

static void resampled_calibration(void *user, int thread, const double *times, double *stats) {
    const calibration_job *j = user;
    calibration_of(j, thread, times, j->bins + (size_t)thread * (size_t)j->d->o->bins, stats);
}

static sill_status compute_calibration(agree_result *r, sill_error *err) {
    const agree_data *d = r->data;
    const size_t n_bins = (size_t)d->o->bins;
    double stats[2];
    sill__interval in[2] = {{NAN, NAN, 0}, {NAN, NAN, 0}};
    calibration_job j = {.d = d, .bins = sill__calloc((size_t)n_threads(d) * n_bins, sizeof *j.bins), .bin_of = sill__calloc(d->n_probs + 1, 1)};
    sill_status s = j.bins && j.bin_of && (r->bins = sill__calloc(n_bins, sizeof *r->bins)) ? SILL_OK : out_of_memory(err);
    for (size_t i = 0; s == SILL_OK && i < d->n_probs; i++) j.bin_of[i] = (uint8_t)sill__bin_of(d->confidence[i], n_bins);
    if (s == SILL_OK) {
        calibration_of(&j, 0, NULL, r->bins, stats);
        sill__calibrate(r->bins, n_bins, &r->calibration);
        sill__bootstrap b = resampling(d, 1 + AGREE_MAX_CODERS);
        b.n_items = b.n_patterns = d->n_probs;
        b.n_stats = 2;
        b.fn = resampled_calibration;
        b.user = &j;
        if (d->o->boot) s = sill__bootstrap_run(&b, in, err);
        r->ece = stat_of(stats[0], &in[0], NULL);
        r->brier = stat_of(stats[1], &in[1], NULL);
    }
    sill__free(j.bins);
    sill__free(j.bin_of);
    return s;
}

/* ---- all of it */

static bool count_labels(agree_result *r) {
    const agree_data *d = r->data;
    const size_t k = d->labels.n;
    r->counts = sill__calloc(d->n_coders * k + 1, sizeof *r->counts);
    r->by = sill__calloc(d->groups.n * k + 1, sizeof *r->by);
    if (!r->counts || !r->by) return false;
    for (size_t u = 0; u < d->n_rows; u++) {
        for (size_t c = 0; c < d->n_coders; c++)
            if (d->codes[c][u] >= 0) r->counts[c * k + (size_t)d->codes[c][u]] += 1;
        if (d->group && d->codes[0][u] >= 0) r->by[(size_t)d->group[u] * k + (size_t)d->codes[0][u]] += 1;
    }
    return true;
}

sill_status agree_compute(agree_result *r, const agree_data *d, sill_error *err) {
    memset(r, 0, sizeof *r);
    r->data = d;
    r->confidence = round((double)d->o->confidence * 1e6) / 1e6;
    r->n_pairs = d->n_coders * (d->n_coders - 1) / 2;
    r->pairs = sill__calloc(r->n_pairs + 1, sizeof *r->pairs);
    r->versus = sill__calloc(d->n_coders, sizeof *r->versus);
    sill_status s = r->pairs && r->versus && count_labels(r) ? SILL_OK : out_of_memory(err);
    if (s == SILL_OK && d->n_coders > 1) s = compute_agreement(r, err);
    for (size_t c = 0; s == SILL_OK && d->o->gold && c < d->n_coders; c++)
        if (strcmp(d->coders[c].p, d->o->gold)) s = compute_versus(r, &r->versus[r->n_versus++], c, err);
    if (s == SILL_OK && d->n_probs) s = compute_calibration(r, err);
    return s;
}

void agree_result_free(agree_result *r) {
    for (size_t i = 0; r->versus && i < r->n_versus; i++) {
        sill__free(r->versus[i].cells);
        sill__free(r->versus[i].labels);
        sill__free(r->versus[i].intervals);
        sill__free(r->versus[i].prevalence);
    }
    sill__free(r->pairs);
    sill__free(r->versus);
    sill__free(r->counts);
    sill__free(r->by);
    sill__free(r->bins);
}

/* ---- output */

static int fail_write(const char *path, int number) {
    sill_error err = {0};
    sill__fail(&err, SILL_EIO, "cannot write %s: %s", path, strerror(number));
    return cli_fail(&err);
}

/* The page appears when it is whole: until then it is PATH.partial. */
static int write_page(const char *path, const sill__str *page) {
    sill__str partial;
    sill__str_init(&partial, 8192);
    if (!sill__str_putf(&partial, "%s.partial", path)) return fail_write(path, ENAMETOOLONG);
    FILE *f = fopen(partial.p, "wb");
    bool ok = f != NULL;
    int number = errno;
    if (ok && page->n) ok = fwrite(page->p, 1, page->n, f) == page->n;
    if (f && !ok) number = errno;
    if (f && fclose(f) && ok) ok = false, number = errno;
    if (ok && rename(partial.p, path)) ok = false, number = errno;
    if (f && !ok) unlink(partial.p);
    sill__str_free(&partial);
    return ok ? EXIT_OK : fail_write(path, number);
}

static int show(const agree_result *r) {
    const agree_options *o = r->data->o;
    sill__str s;
    const bool page_to_stdout = o->html && !strcmp(o->html, "-");
    int status = EXIT_OK;
    sill__str_init(&s, (size_t)1 << 30);
    if (o->html) agree_put_html(&s, r);
    if (o->html && !s.failed && !page_to_stdout) status = write_page(o->html, &s);
    if (!page_to_stdout) {
        const bool failed = s.failed;
        sill__str_clear(&s);
        if (o->json) agree_put_json(&s, r);
        else agree_put_table(&s, r);
        s.failed = s.failed || failed;
    }
    if (s.failed) {
        const sill_error err = {.code = SILL_ENOMEM};
        status = cli_fail(&err);
    } else {
        fwrite(s.p, 1, s.n, stdout);
        const int flushed = cli_flush_stdout();
        if (status == EXIT_OK) status = flushed;
    }
    sill__str_free(&s);
    return status;
}

/* ---- the command */

static const char notes[] =
    "Reads columns of labels, as people and `sill classify` write them; an empty value is no label. Agreement of the coders\n"
    "is that over rows with two labels and more: Krippendorff's alpha at the level of --level, Fleiss' kappa, Cohen's kappa\n"
    "of each pair (also weighted, linear and quadratic, where labels are more than nominal; ordinal ones by their order).\n"
    "With --gold: each coder's accuracy, precision, recall, F1 and confusion matrix; its share of each label in all rows,\n"
    "corrected by the rows with gold (difference estimator: they must be a random sample, or --weight says how they were\n"
    "drawn); with columns prob_LABEL (JSON Lines: an object probs) the calibration of the most probable label.\n"
    "Intervals: percentiles over --boot resamples of the rows compared; of corrected shares: normal.\n";

static int check_options(const agree_options *o) {
    if (!o->coders.n) return args_usage("agree", "--coders A,B,... is missing: which columns hold the labels?");
    if (o->order && o->level != SILL_LEVEL_ORDINAL) return args_usage("agree", "--order is for --level ordinal");
    if (o->weight && !o->gold) return args_usage("agree", "--weight says how the rows with gold were drawn; it needs --gold");
    if (o->prob && !o->gold) return args_usage("agree", "--prob needs --gold COLUMN: what were the right labels?");
    if (o->confidence >= 1) return args_usage("agree", "--confidence is 1; it takes a number above 0 and below 1");
    if (o->html && o->html[0] == 0) return args_usage("agree", "--html is empty");
    if (o->html && !strcmp(o->html, "-") && o->json) return args_usage("agree", "--html - and --json both go to standard output");
    if (o->html && strcmp(o->html, "-") && !o->overwrite && access(o->html, F_OK) == 0)
        return args_usage("agree", "%s exists; --overwrite replaces it", o->html);
    return -1;
}

#define AT(member) offsetof(agree_options, member)

int cli_agree(int argc, char **argv) {
    static agree_options o;
    static const arg_option own[] = {
        {"coders", 0, ARG_LIST, AT(coders), 0, 0, NULL, "A,B,C", "columns of labels (may be given again)"},
        {"gold", 0, ARG_TEXT, AT(gold), 0, 0, NULL, "COLUMN", "column of the right labels, empty where there is none"},
        {"level", 0, ARG_CHOICE, AT(level), 0, 0, agree_levels, "LEVEL", "of measurement: nominal (default), ordinal, interval, ratio"},
        {"order", 0, ARG_TEXT, AT(order), 0, 0, NULL, "LOW,...,HIGH", "order of ordinal labels that are no numbers"},
        {"missing", 0, ARG_LIST, AT(missing), 0, 0, NULL, "TEXT", "a value that means no label, besides the empty one (may be given again)"},
        {"prob", 0, ARG_TEXT, AT(prob), 0, 0, NULL, "PREFIX", "columns of probabilities: PREFIX and the label (default prob_, where there are some); JSON Lines: the object's name (default probs)"},
        {"bins", 0, ARG_INT, AT(bins), 1, 100, NULL, "N", "bins of the calibration (default 10)"},
        {"weight", 0, ARG_TEXT, AT(weight), 0, 0, NULL, "COLUMN", "1 / the probability with which a row was drawn for gold (default: all alike)"},
        {"by", 0, ARG_TEXT, AT(by), 0, 0, NULL, "COLUMN", "the first coder's labels by the values of this column: a year, a source"},
    };
    static const arg_option numbers[] = {
        {"boot", 0, ARG_INT, AT(boot), 0, SILL__MAX_REPLICATES, NULL, "N", "resamples for the intervals (default 1000; 0: no intervals)"},
        {"confidence", 0, ARG_ABOVE, AT(confidence), 0, 1, NULL, "P", "of the intervals (default 0.95)"},
        {"seed", 0, ARG_U64, AT(seed), 0, 0, NULL, "N", "of the resamples (default 0)"},
        {"threads", 0, ARG_INT, AT(threads), 1, 1024, NULL, "N", "threads (default: the physical cores); no result depends on it"},
    };
    static const arg_option files[] = {
        {"json", 0, ARG_FLAG, AT(json), 0, 0, NULL, NULL, "JSON instead of the table"},
        {"html", 0, ARG_TEXT, AT(html), 0, 0, NULL, "FILE", "also a page with plots, whole in one file"},
        {"overwrite", 0, ARG_FLAG, AT(overwrite), 0, 0, NULL, NULL, "replace FILE if it exists"},
    };
    const arg_command command = {
        "agree", "FILE --coders A,B,C [--gold COLUMN] [--html PAGE]",
        "How far coders agree, people or machines; how right they are where the right label is known; and what share each label has, "
        "corrected by a sample coded by hand.",
        {{"agreement", own, SILL_ARRAY_LEN(own), &o}, {"intervals", numbers, SILL_ARRAY_LEN(numbers), &o},
         cli_input_table(&o.in, false), {"output", files, SILL_ARRAY_LEN(files), &o}, cli_general_table()}, notes, 1, 1};
    char **args;
    int n;
    agree_data data = {.o = &o};
    agree_result result = {0};
    sill_error err = {0};
    o.boot = 1000;
    int status = args_parse(&command, argc, argv, &args, &n);
    if (status >= 0 || (status = check_options(&o)) >= 0) return status;
    if (o.confidence == 0) o.confidence = 0.95f;
    if (o.bins == 0) o.bins = 10;
    status = agree_read(&data, args[0]);
    if (status < 0) status = agree_compute(&result, &data, &err) == SILL_OK ? show(&result) : cli_fail(&err);
    if (status == EXIT_OK && data.n_failed) status = EXIT_ROWS;
    agree_result_free(&result);
    agree_data_free(&data);
    return status;
}
