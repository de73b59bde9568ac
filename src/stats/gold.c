/* gold.c - labels against a gold standard: scores, calibration of probabilities, prevalence corrected with a sample. */
#include "stats/stats.h"

#include <math.h>

void sill__score_cells(const double *cells, size_t n_labels, sill__label_score *labels, sill__scores *out) {
    double same = 0, chance = 0, n = 0, n_used = 0;
    memset(out, 0, sizeof *out);
    for (size_t i = 0; i < n_labels * n_labels; i++) n += cells[i];
    for (size_t k = 0; k < n_labels; k++) {
        sill__label_score l = {.n_both = cells[k * n_labels + k]};
        for (size_t i = 0; i < n_labels; i++) l.n_gold += cells[k * n_labels + i], l.n_given += cells[i * n_labels + k];
        const double used = l.n_gold + l.n_given;
        l.precision = l.n_given > 0 ? l.n_both / l.n_given : NAN;
        l.recall = l.n_gold > 0 ? l.n_both / l.n_gold : NAN;
        l.f1 = used > 0 ? 2 * l.n_both / used : NAN;
        if (labels) labels[k] = l;
        if (!(used > 0)) continue;
        same += l.n_both;
        chance += l.n_gold / n * (l.n_given / n);
        n_used++;
        const double precision = l.n_given > 0 ? l.precision : 0, recall = l.n_gold > 0 ? l.recall : 0;
        out->macro.precision += precision;
        out->macro.recall += recall;
        out->macro.f1 += l.f1;
        out->weighted.precision += l.n_gold / n * precision;
        out->weighted.recall += l.n_gold / n * recall;
        out->weighted.f1 += l.n_gold / n * l.f1;
    }
    out->n = n;
    out->accuracy = n > 0 ? same / n : NAN;
    out->micro = (sill__averages){out->accuracy, out->accuracy, out->accuracy};
    out->kappa = n_used > 1 ? (out->accuracy - chance) / (1 - chance) : NAN;
    out->macro.precision = n_used > 0 ? out->macro.precision / n_used : NAN;
    out->macro.recall = n_used > 0 ? out->macro.recall / n_used : NAN;
    out->macro.f1 = n_used > 0 ? out->macro.f1 / n_used : NAN;
    if (!(n > 0)) out->weighted = out->macro;
}

/* ---- calibration */

size_t sill__bin_of(double confidence, size_t n_bins) {
    size_t i = (size_t)SILL_MAX(0.0, ceil(confidence * (double)n_bins) - 1);
    while (i > 0 && confidence <= (double)i / (double)n_bins) i--; /* the product's rounding */
    while (i + 1 < n_bins && confidence > (double)(i + 1) / (double)n_bins) i++;
    return SILL_MIN(i, n_bins - 1);
}

void sill__calibrate(const sill__bin *bins, size_t n_bins, sill__calibration *out) {
    memset(out, 0, sizeof *out);
    for (size_t i = 0; i < n_bins; i++) {
        if (!(bins[i].n > 0)) continue;
        const double gap = fabs(bins[i].hits - bins[i].confidence);
        out->n += bins[i].n;
        out->ece += gap;
        out->mce = fmax(out->mce, gap / bins[i].n);
        out->accuracy += bins[i].hits;
        out->confidence += bins[i].confidence;
    }
    if (!(out->n > 0)) out->mce = NAN;
    out->ece /= out->n > 0 ? out->n : NAN;
    out->accuracy /= out->n > 0 ? out->n : NAN;
    out->confidence /= out->n > 0 ? out->n : NAN;
}

/* ---- prevalence */

/* By bisection on erfc: exact to the last places, and needed a few times only. */
double sill__normal_quantile(double p) {
    double low = -40, high = 40;
    if (!(p > 0 && p < 1)) return NAN;
    for (int i = 0; i < 200 && low < high; i++) {
        const double middle = low + (high - low) / 2;
        if (middle == low || middle == high) break;
        if (erfc(-middle / sqrt(2)) / 2 < p) low = middle;
        else high = middle;
    }
    return high;
}

void sill__correct_prevalence(double n_all, double share, const uint8_t *gold, const uint8_t *machine, const double *weight,
                              size_t n_gold, double confidence, sill__prevalence *out) {
    double sum_w = 0, mean = 0, variance = 0;
    const double n = (double)n_gold, equal = n_gold ? n_all / n : NAN, z = sill__normal_quantile(0.5 + confidence / 2);
    for (size_t i = 0; i < n_gold; i++) {
        const double w = weight ? weight[i] : equal;
        sum_w += w;
        mean += w * ((double)gold[i] - (double)machine[i]);
    }
    mean = n_gold ? mean / sum_w : NAN;
    for (size_t i = 0; i < n_gold; i++) {
        const double w = weight ? weight[i] : equal, d = (double)gold[i] - (double)machine[i] - mean;
        variance += (w - 1) * w * d * d; /* (1 - 1/w) w^2 */
    }
    *out = (sill__prevalence){.machine = share, .corrected = share + mean};
    out->se = n_gold > 1 ? sqrt(n / (n - 1) * SILL_MAX(variance, 0)) / sum_w : NAN;
    out->low = isnan(out->se) ? NAN : SILL_MIN(1, SILL_MAX(0, out->corrected - z * out->se));
    out->high = isnan(out->se) ? NAN : SILL_MIN(1, SILL_MAX(0, out->corrected + z * out->se));
}
