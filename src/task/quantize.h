/*
 * quantize.h - inside sill quantize: the comparison of two models on texts (certify.c), and agreement of coders
 * (agree.c).
 */
#ifndef SILL_TASK_QUANTIZE_H
#define SILL_TASK_QUANTIZE_H

#include "task/task.h"

/* Krippendorff's alpha for nominal data: VALUES (n_coders, n_units), row-major, labels 0 .. n_labels - 1, -1 where a coder
 * gave none. Units with fewer than two values do not count. 1 when only one label was ever given (nothing to disagree
 * about); NAN when no unit counts or memory is short. */
double sill__alpha_nominal(const int32_t *values, size_t n_coders, size_t n_units, size_t n_labels);

/* The value below which SHARE of the N sorted values lie, linear between neighbours (numpy's default). */
double sill__quantile(const double *sorted, size_t n, double share);

/* Compares the model at BEFORE with that at AFTER on o->texts; fills the counts, means and errors of *c. SPOOL is a path
 * that does not exist: logits of the first are kept there while the second runs, so that one model is in memory at a time. */
sill_status sill__certify(const char *before, const char *after, const char *spool, const sill_quantize_options *o,
                          sill_certificate *c, sill_error *err);

#endif
