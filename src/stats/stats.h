/*
 * stats.h - statistics of coded data: agreement of coders (agree.c), coders against a gold standard, calibration and
 * corrected prevalence (gold.c), bootstrap intervals (bootstrap.c). Plain arrays in, numbers out; knows nothing of models or files.
 *
 * Every statistic may be undefined: then it is NAN and *why (if asked for) says why, in words for people.
 */
#ifndef SILL_STATS_H
#define SILL_STATS_H

#include "base/base.h"

/* ---- ratings: labels that coders gave to units */

typedef struct sill__ratings {
    size_t n_coders, n_units, n_labels;
    const int32_t *codes;        /* of coder c and unit u at [c * n_units + u]; other than 0 .. n_labels - 1: none */
    const double *values;        /* (n_labels) for the distances between labels, ascending; NULL: 0, 1, 2, ... */
    const double *times;         /* (n_units) how often a unit counts: a whole number; NULL: once */
    double *scratch;             /* (SILL__SCRATCH(n_labels)) of the caller's, one for each thread */
} sill__ratings;
#define SILL__SCRATCH(n_labels) (4 * (n_labels) + 4)

/* Krippendorff's alpha at a level of measurement ("Computing Krippendorff's Alpha-Reliability", 2011; Content Analysis, 4th
 * ed., 2018, chapter 12): 1 - Do / De over the units with at least two values. Missing values and any number of coders.
 * Distances: ordinal by mid-ranks of the values at hand (which is his sum over the ranks between, squared), interval
 * (a - b)^2, ratio ((a - b) / (a + b))^2, which takes n_labels^2 steps. Undefined where only one label was given. */
double sill__alpha(const sill__ratings *r, sill_level level, const char **why);

/* Cohen's kappa of coders A and B over the units that both coded ("A coefficient of agreement for nominal scales", 1960).
 * POWER 0: as it stands; 1, 2: weighted (Cohen 1968) by |distance| or its square. */
double sill__kappa(const sill__ratings *r, size_t a, size_t b, int power, const char **why);
/* Share of the units coded by both to which they gave the same label; *n_units (may be NULL) of how many. */
double sill__percent(const sill__ratings *r, size_t a, size_t b, double *n_units, const char **why);

/* Fleiss' kappa ("Measuring nominal scale agreement among many raters", 1971) over the units that all coders coded. */
double sill__fleiss(const sill__ratings *r, double *n_units, const char **why);
/* Mean over units with at least two values of the share of its pairs of values that agree (Fleiss' P). */
double sill__percent_all(const sill__ratings *r, double *n_units, double *n_values, const char **why);

/* ---- against a gold standard */

/* CELLS (n_labels, n_labels): row gold, column given. */
typedef struct sill__label_score { double n_gold, n_given, n_both, precision, recall, f1; } sill__label_score;
typedef struct sill__averages { double precision, recall, f1; } sill__averages;
typedef struct sill__scores {
    double n, accuracy, kappa;
    sill__averages macro, micro, weighted;
} sill__scores;
/* LABELS (n_labels) may be NULL. Of a label: precision without a use of it, recall without it in gold, are NAN; in averages they
 * count as 0. macro: mean over the labels used by either side; weighted: by their number in gold; micro: of all decisions
 * (with one label a row: the accuracy). */
void sill__score_cells(const double *cells, size_t n_labels, sill__label_score *labels, sill__scores *out);

/* Bins of confidence: (0, 1/n], (1/n, 2/n], ... (Guo et al. 2017, "On Calibration of Modern Neural Networks"; confidence 0 is in
 * the first). */
typedef struct sill__bin { double n, confidence, hits; } sill__bin; /* sums */
size_t sill__bin_of(double confidence, size_t n_bins);
typedef struct sill__calibration { double n, ece, mce, accuracy, confidence; } sill__calibration;
/* Expected and maximum calibration error, mean |accuracy - confidence| weighted by the bins' counts, and the largest. */
void sill__calibrate(const sill__bin *bins, size_t n_bins, sill__calibration *out);

/* ---- prevalence corrected with a gold sample: the difference estimator (Sarndal, Swensson and Wretman 1992, "Model Assisted
 * Survey Sampling", 6.3; the same idea with machine labels: Angelopoulos et al. 2023, Egami et al. 2023) */
typedef struct sill__prevalence { double machine, corrected, se, low, high; } sill__prevalence;
/* Of one label. N_ALL rows, SHARE of which the machine gave it; for the N_GOLD sampled ones gold[i] and machine[i] say whether
 * each gave it, and weight[i] is 1 / the probability of being drawn (NULL: simple random sampling without replacement).
 * se: sqrt(n / (n - 1) sum((1 - 1 / w) w^2 (d - mean d)^2)) / sum(w), which for equal weights is the classical
 * sqrt((1 - n / N) s^2 / n). The interval is normal, cut to [0, 1]. NAN: se of less than two rows. */
void sill__correct_prevalence(double n_all, double share, const uint8_t *gold, const uint8_t *machine, const double *weight,
                              size_t n_gold, double confidence, sill__prevalence *out);
/* The standard normal's quantile. */
double sill__normal_quantile(double p);

/* ---- bootstrap */

#define SILL__MAX_REPLICATES 100000

/* Percentile intervals (Efron and Tibshirani 1993, chapter 13). Replicate b draws n_items items with replacement: draw j is item
 * floor(word * n_items / 2^32) where word is number j mod 4 of Philox(seed, key b, sequence STREAM, step j / 4). Each item is of one
 * of n_patterns patterns; FN gets how often each pattern was drawn and fills n_stats numbers (NAN: undefined). */
typedef struct sill__bootstrap {
    size_t n_items, n_patterns, n_stats;
    const uint32_t *pattern;     /* (n_items); NULL: item i is pattern i */
    int32_t n_replicates, n_threads;
    uint64_t seed;
    uint32_t stream;
    double confidence;
    void (*fn)(void *user, int thread, const double *times, double *stats);
    void *user;
    const volatile int *stop;    /* non-zero: ends with ECANCELLED; may be NULL */
} sill__bootstrap;
typedef struct sill__interval { double low, high; size_t n_undefined; } sill__interval;
/* out (n_stats): the quantiles (1 - confidence) / 2 and 1 - that of the defined replicates, linear between neighbours. NAN when
 * more than one in twenty is undefined. The same for any number of threads. Errors: ENOMEM, ECANCELLED. */
sill_status sill__bootstrap_run(const sill__bootstrap *b, sill__interval *out, sill_error *err);
/* The value below which SHARE of the N sorted values lie, linear between neighbours (numpy's default). */
double sill__quantile(const double *sorted, size_t n, double share);

#endif
