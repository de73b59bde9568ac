/*
 * agree.h - inside `sill agree`: what is read (agree_data.c), what is found (agree.c), and how it is shown as a table or JSON
 * (agree_out.c) and as a page (agree_html.c, whose plots are agree_plots.c).
 */
#ifndef SILL_CLI_AGREE_H
#define SILL_CLI_AGREE_H

#include "common.h"
#include "stats/stats.h"

#define AGREE_MAX_CODERS 64
#define AGREE_MAX_LABELS 1024    /* nominal, ordinal, and whatever is compared with gold */
#define AGREE_MAX_VALUES 65536   /* interval */
#define AGREE_MAX_RATIOS 4096    /* ratio: its cost is their square */
#define AGREE_MAX_GROUPS 1000    /* values of --by */

typedef struct agree_options {
    arg_list coders, missing;
    cli_input_options in;
    const char *gold, *prob, *weight, *by, *order, *html;
    int level;
    int32_t boot, bins, threads;
    uint64_t seed;
    float confidence;
    bool json, overwrite;
} agree_options;

typedef struct agree_text { char *p; size_t n; } agree_text;

/* Texts by number, each once. */
typedef struct agree_names {
    agree_text *items;
    size_t n, cap, max, n_slots;
    uint32_t *slots;
} agree_names;

typedef struct agree_data {
    const agree_options *o;
    const char *file, *order_text;
    agree_text coders[AGREE_MAX_CODERS]; /* names of columns */
    size_t n_coders;
    bool numeric;                /* labels are numbers, and equal numbers one label */
    agree_names labels, groups;  /* sorted when all is read */
    double *values;              /* (labels.n) when numeric */
    size_t n_rows, cap_rows;
    int32_t *codes[AGREE_MAX_CODERS + 1]; /* (n_rows) of each coder, then of gold; -1: none */
    int32_t *group;              /* (n_rows) with --by */
    double *weight;              /* (n_rows) with --weight; of rows without gold 0 */
    /* rows with gold and probabilities */
    size_t n_probs, cap_probs, n_odd_sums;
    double *confidence, *brier;
    uint8_t *hit;
    bool has_probs;
    uint64_t n_failed, n_blank;
    char failures[5][200];
} agree_data;

typedef struct agree_stat { double value, low, high; const char *why; } agree_stat;

typedef struct agree_pair {
    size_t a, b;
    double n;
    agree_stat percent, kappa, linear, quadratic; /* the last two not for nominal labels */
} agree_pair;

typedef struct agree_versus {
    size_t coder;
    double *cells;               /* (n_labels, n_labels): gold, given */
    sill__label_score *labels;
    sill__scores scores;
    sill__interval *intervals;   /* accuracy, kappa, macro and weighted p r f1, then p r f1 of each label */
    double n_all, n_sample;
    sill__prevalence *prevalence;
} agree_versus;

typedef struct agree_result {
    const agree_data *data;
    double confidence, n_units, n_values, n_complete;
    agree_stat percent, alpha, fleiss, mean_kappa;
    size_t n_pairs, n_versus;
    agree_pair *pairs;
    agree_versus *versus;        /* of each coder that is not gold itself */
    double *counts;              /* (n_coders, n_labels) */
    double *by;                  /* (groups.n, n_labels) of the first coder */
    sill__bin *bins;
    sill__calibration calibration;
    agree_stat ece, brier;
} agree_result;

/* Opens and reads the file. Returns -1 or the exit status, the message said. */
int agree_read(agree_data *data, const char *file);
void agree_data_free(agree_data *data);
sill_status agree_compute(agree_result *r, const agree_data *data, sill_error *err);
void agree_result_free(agree_result *r);

extern const char *const agree_levels[];
void agree_put_table(sill__str *s, const agree_result *r);
void agree_put_json(sill__str *s, const agree_result *r);
void agree_put_html(sill__str *s, const agree_result *r);

/* Text for HTML and for attributes in quotes: markup escaped, what is no UTF-8 and control characters replaced. At most
 * MAX characters (0: all), then an ellipsis. */
void agree_put_escaped(sill__str *s, agree_text text, size_t max);
/* A number with PLACES decimals, "-" for NAN; grouped by commas when whole. */
void agree_put_number(sill__str *s, double value, int places);
void agree_put_count(sill__str *s, double value);

/* Plots: inline SVG that takes its colours from the page. */
void agree_plot_estimates(sill__str *s, const agree_result *r);
void agree_plot_confusion(sill__str *s, const agree_result *r, const agree_versus *v);
void agree_plot_reliability(sill__str *s, const agree_result *r);
void agree_plot_groups(sill__str *s, const agree_result *r);
void agree_plot_prevalence(sill__str *s, const agree_result *r, const agree_versus *v);

#endif
