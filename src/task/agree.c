/*
 * agree.c - how far coders agree: Krippendorff's alpha ("Computing Krippendorff's Alpha-Reliability", 2011), nominal
 * data, any number of coders, missing values.
 */
#include "task/quantize.h"

double sill__alpha_nominal(const int32_t *values, size_t n_coders, size_t n_units, size_t n_labels) {
    double *of_unit = sill__calloc(n_labels + 1, sizeof *of_unit), *total = sill__calloc(n_labels + 1, sizeof *total);
    double n = 0, agree = 0, squares = 0;
    for (size_t u = 0; of_unit && total && u < n_units; u++) {
        double m = 0;
        memset(of_unit, 0, n_labels * sizeof *of_unit);
        for (size_t c = 0; c < n_coders; c++) {
            int32_t v = values[c * n_units + u];
            if (v < 0 || (size_t)v >= n_labels) continue;
            of_unit[v] += 1;
            m += 1;
        }
        if (m < 2) continue;
        n += m;
        for (size_t k = 0; k < n_labels; k++) {
            agree += of_unit[k] * (of_unit[k] - 1) / (m - 1); /* the diagonal of the coincidence matrix */
            total[k] += of_unit[k];
        }
    }
    for (size_t k = 0; total && k < n_labels; k++) squares += total[k] * (total[k] - 1);
    bool fine = of_unit && total && n > 1;
    sill__free(of_unit);
    sill__free(total);
    if (!fine) return NAN;
    double expected = n * (n - 1) - squares; /* pairs of different labels if chance alone decided, times (n - 1) */
    return expected > 0 ? 1 - (n - 1) * (n - agree) / expected : 1;
}
