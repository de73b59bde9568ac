/*
 * agree.c - how far coders agree: Krippendorff's alpha at four levels, Cohen's kappa, Fleiss' kappa, shares of agreement; and
 * sill_agree. Units may count several times (ratings.times), which serves tables of distinct rows and the bootstrap alike.
 */
#include "stats/stats.h"

#include <math.h>

static const char one_label[] = "only one label was given, so nothing could differ", no_unit[] = "no unit has two labels";

static double undefined(const char **why, const char *reason) {
    if (why) *why = reason;
    return NAN;
}

static inline double times_of(const sill__ratings *r, size_t u) { return r->times ? r->times[u] : 1; }

static inline int32_t code_of(const sill__ratings *r, size_t c, size_t u) {
    const int32_t v = r->codes[c * r->n_units + u];
    return v >= 0 && (size_t)v < r->n_labels ? v : -1;
}

static inline double value_of(const sill__ratings *r, size_t label) { return r->values ? r->values[label] : (double)label; }

static size_t n_codes(const sill__ratings *r, size_t u) {
    size_t m = 0;
    for (size_t c = 0; c < r->n_coders; c++) m += code_of(r, c, u) >= 0;
    return m;
}

/* ---- Krippendorff's alpha */

/* How often each label was given in units of at least two; returns how many values that is. */
static double count_pairable(const sill__ratings *r, double *n_of) {
    double n = 0;
    memset(n_of, 0, r->n_labels * sizeof *n_of);
    for (size_t u = 0; u < r->n_units; u++) {
        const double t = times_of(r, u);
        const size_t m = n_codes(r, u);
        if (m < 2 || !(t > 0)) continue;
        n += t * (double)m;
        for (size_t c = 0; c < r->n_coders; c++) {
            const int32_t v = code_of(r, c, u);
            if (v >= 0) n_of[v] += t;
        }
    }
    return n;
}

static double distance(double a, double b, sill_level level) {
    double d = a - b;
    if (level == SILL_LEVEL_RATIO) d = a + b == 0 ? 0 : d / (a + b);
    return d * d;
}

/* The sum of distances over the ordered pairs of a unit's M values. OF_UNIT (n_labels) is zero before and after. */
static double unit_distance(const sill__ratings *r, size_t u, size_t m, sill_level level, const double *x, double *of_unit) {
    double sum = 0, mean = 0;
    if (level == SILL_LEVEL_NOMINAL) { /* all pairs but those of equal labels */
        for (size_t c = 0; c < r->n_coders; c++) {
            const int32_t v = code_of(r, c, u);
            if (v >= 0) sum += 2 * of_unit[v], of_unit[v] += 1;
        }
        for (size_t c = 0; c < r->n_coders; c++) {
            const int32_t v = code_of(r, c, u);
            if (v >= 0) of_unit[v] = 0;
        }
        return (double)m * (double)(m - 1) - sum;
    }
    if (level == SILL_LEVEL_RATIO) {
        for (size_t a = 0; a < r->n_coders; a++)
            for (size_t b = a + 1; b < r->n_coders; b++) {
                const int32_t va = code_of(r, a, u), vb = code_of(r, b, u);
                if (va >= 0 && vb >= 0) sum += 2 * distance(x[va], x[vb], level);
            }
        return sum;
    }
    for (size_t c = 0; c < r->n_coders; c++) {
        const int32_t v = code_of(r, c, u);
        if (v >= 0) mean += x[v] / (double)m;
    }
    for (size_t c = 0; c < r->n_coders; c++) {
        const int32_t v = code_of(r, c, u);
        if (v >= 0) sum += 2 * (double)m * (x[v] - mean) * (x[v] - mean);
    }
    return sum;
}

/* The same over all pairs of the N values, whatever their units. */
static double total_distance(const double *n_of, double n, size_t n_labels, sill_level level, const double *x) {
    double sum = 0, mean = 0;
    if (level == SILL_LEVEL_NOMINAL) {
        for (size_t k = 0; k < n_labels; k++) sum += n_of[k] * (n - n_of[k]);
        return sum;
    }
    if (level == SILL_LEVEL_RATIO) {
        for (size_t a = 0; a < n_labels; a++)
            for (size_t b = a + 1; n_of[a] > 0 && b < n_labels; b++)
                if (n_of[b] > 0) sum += 2 * n_of[a] * n_of[b] * distance(x[a], x[b], level);
        return sum;
    }
    for (size_t k = 0; k < n_labels; k++) mean += n_of[k] / n * x[k];
    for (size_t k = 0; k < n_labels; k++) sum += 2 * n * n_of[k] * (x[k] - mean) * (x[k] - mean);
    return sum;
}

double sill__alpha(const sill__ratings *r, sill_level level, const char **why) {
    double *n_of = r->scratch, *x = n_of + r->n_labels, *of_unit = x + r->n_labels, below = 0, observed = 0;
    const double n = count_pairable(r, n_of);
    size_t used = 0;
    if (!(n > 1)) return undefined(why, no_unit);
    for (size_t k = 0; k < r->n_labels; k++) {
        used += n_of[k] > 0;
        x[k] = level == SILL_LEVEL_ORDINAL ? below + n_of[k] / 2 : level == SILL_LEVEL_RATIO ? value_of(r, k) : value_of(r, k) - value_of(r, 0);
        below += n_of[k];
        of_unit[k] = 0;
    }
    if (used < 2) return undefined(why, one_label);
    for (size_t u = 0; u < r->n_units; u++) {
        const double t = times_of(r, u);
        const size_t m = n_codes(r, u);
        if (m >= 2 && t > 0) observed += t * unit_distance(r, u, m, level, x, of_unit) / (double)(m - 1);
    }
    return 1 - (n - 1) * observed / total_distance(n_of, n, r->n_labels, level, x);
}

/* ---- pairs of coders */

double sill__percent(const sill__ratings *r, size_t a, size_t b, double *n_units, const char **why) {
    double n = 0, same = 0;
    for (size_t u = 0; u < r->n_units; u++) {
        const int32_t va = code_of(r, a, u), vb = code_of(r, b, u);
        if (va < 0 || vb < 0) continue;
        n += times_of(r, u);
        if (va == vb) same += times_of(r, u);
    }
    if (n_units) *n_units = n;
    return n > 0 ? same / n : undefined(why, "no unit is coded by both");
}

/* Mean |x - y|^power of two labels drawn independently, one from each coder's shares P and Q (sums: N). */
static double expected_distance(const sill__ratings *r, const double *p, const double *q, double n, int power) {
    double sum = 0, fp = 0, fq = 0, mp = 0, mq = 0, vp = 0, vq = 0;
    if (power == 0) {
        for (size_t k = 0; k < r->n_labels; k++) sum += p[k] / n * ((n - q[k]) / n);
        return sum;
    }
    if (power == 1) { /* of every gap between neighbours, the share of pairs that lie on its two sides */
        for (size_t k = 0; k + 1 < r->n_labels; k++) {
            fp += p[k] / n;
            fq += q[k] / n;
            sum += (value_of(r, k + 1) - value_of(r, k)) * (fp * (1 - fq) + fq * (1 - fp));
        }
        return sum;
    }
    const double first = value_of(r, 0); /* from it on, so that years lose nothing */
    for (size_t k = 0; k < r->n_labels; k++) {
        mp += p[k] / n * (value_of(r, k) - first);
        mq += q[k] / n * (value_of(r, k) - first);
    }
    for (size_t k = 0; k < r->n_labels; k++) {
        const double x = value_of(r, k) - first;
        vp += p[k] / n * (x - mp) * (x - mp);
        vq += q[k] / n * (x - mq) * (x - mq);
    }
    return vp + vq + (mp - mq) * (mp - mq);
}

double sill__kappa(const sill__ratings *r, size_t a, size_t b, int power, const char **why) {
    double *p = r->scratch, *q = p + r->n_labels, n = 0, observed = 0;
    bool differ = false;
    int32_t first = -1;
    memset(p, 0, 2 * r->n_labels * sizeof *p);
    for (size_t u = 0; u < r->n_units; u++) {
        const double t = times_of(r, u);
        const int32_t va = code_of(r, a, u), vb = code_of(r, b, u);
        if (va < 0 || vb < 0 || !(t > 0)) continue;
        if (first < 0) first = va;
        differ = differ || va != first || vb != first;
        n += t;
        p[va] += t;
        q[vb] += t;
        const double d = fabs(value_of(r, (size_t)va) - value_of(r, (size_t)vb));
        observed += power == 0 ? (va != vb ? t : 0) : power == 1 ? t * d : t * d * d;
    }
    if (!(n > 0)) return undefined(why, "no unit is coded by both");
    if (!differ) return undefined(why, one_label);
    return 1 - observed / n / expected_distance(r, p, q, n, power);
}

/* ---- all coders */

double sill__fleiss(const sill__ratings *r, double *n_units, const char **why) {
    double *n_of = r->scratch, n = 0, same = 0, chance = 0, raters = (double)r->n_coders;
    double *of_unit = n_of + r->n_labels;
    size_t used = 0;
    memset(n_of, 0, 2 * r->n_labels * sizeof *n_of);
    for (size_t u = 0; u < r->n_units; u++) {
        const double t = times_of(r, u);
        if (n_codes(r, u) != r->n_coders || !(t > 0)) continue;
        n += t;
        for (size_t c = 0; c < r->n_coders; c++) n_of[code_of(r, c, u)] += t;
        same += t * (raters * (raters - 1) - unit_distance(r, u, r->n_coders, SILL_LEVEL_NOMINAL, NULL, of_unit));
    }
    if (n_units) *n_units = n;
    if (r->n_coders < 2 || !(n > 0)) return undefined(why, "no unit is coded by all coders");
    for (size_t k = 0; k < r->n_labels; k++) {
        used += n_of[k] > 0;
        chance += n_of[k] / (n * raters) * (n_of[k] / (n * raters));
    }
    if (used < 2) return undefined(why, one_label);
    return (same / (n * raters * (raters - 1)) - chance) / (1 - chance);
}

double sill__percent_all(const sill__ratings *r, double *n_units, double *n_values, const char **why) {
    double *of_unit = r->scratch, n = 0, values = 0, same = 0;
    memset(of_unit, 0, r->n_labels * sizeof *of_unit);
    for (size_t u = 0; u < r->n_units; u++) {
        const double t = times_of(r, u);
        const size_t m = n_codes(r, u);
        if (m < 2 || !(t > 0)) continue;
        n += t;
        values += t * (double)m;
        same += t * (1 - unit_distance(r, u, m, SILL_LEVEL_NOMINAL, NULL, of_unit) / ((double)m * (double)(m - 1)));
    }
    if (n_units) *n_units = n;
    if (n_values) *n_values = values;
    return n > 0 ? same / n : undefined(why, no_unit);
}

/* ---- sill_agree */

typedef struct job { sill__ratings r; const sill_agree_options *o; double *scratch; } job;

/* Kappa of two coders, else the mean over the pairs for which it is defined. */
static double mean_kappa(const sill__ratings *r, int power) {
    double sum = 0, n = 0;
    for (size_t a = 0; a < r->n_coders; a++)
        for (size_t b = a + 1; b < r->n_coders; b++) {
            const double k = sill__kappa(r, a, b, power, NULL);
            if (!isnan(k)) sum += k, n++;
        }
    return n > 0 ? sum / n : NAN;
}

static void compute(void *user, int thread, const double *times, double *stats) {
    const job *j = user;
    sill__ratings r = j->r;
    r.times = times;
    r.scratch = j->scratch + (size_t)thread * SILL__SCRATCH(r.n_labels);
    stats[0] = sill__percent_all(&r, NULL, NULL, NULL);
    stats[1] = mean_kappa(&r, 0);
    stats[2] = mean_kappa(&r, 2);
    stats[3] = sill__fleiss(&r, NULL, NULL);
    stats[4] = sill__alpha(&r, j->o->level, NULL);
}

static sill_status check_values(const double *v, size_t n, sill_level level, sill_error *err) {
    for (size_t i = 0; v && i < n; i++) {
        if (!isfinite(v[i])) return sill__fail(err, SILL_ERANGE, "values[%zu] is not a finite number", i);
        if (i && !(v[i] > v[i - 1]))
            return sill__fail(err, SILL_ERANGE, "values[%zu] is %g, not above the one before it: they ascend", i, v[i]);
        if (level == SILL_LEVEL_RATIO && v[i] < 0)
            return sill__fail(err, SILL_ERANGE, "values[%zu] is %g; at the level of ratios values are from 0", i, v[i]);
    }
    return SILL_OK;
}

static sill_status check_agree(const int32_t *codes, size_t n_coders, size_t n_units, size_t n_labels,
                               const sill_agree_options *o, sill_error *err) {
    size_t n, bytes;
    if (!codes) return sill__fail(err, SILL_EINVAL, "sill_agree: codes is NULL");
    if (n_coders < 2) return sill__fail(err, SILL_EINVAL, "sill_agree: %zu coders; agreement takes two and more", n_coders);
    if (n_labels < 1 || n_labels > INT32_MAX / 64) return sill__fail(err, SILL_ERANGE, "sill_agree: %zu labels; 1 to %d", n_labels, INT32_MAX / 64);
    if (n_units > UINT32_MAX || !sill__mul(n_coders, n_units, &n) || !sill__mul(n, sizeof *codes, &bytes))
        return sill__fail(err, SILL_ERANGE, "sill_agree: %zu units of %zu coders; at most %u units", n_units, n_coders, UINT32_MAX);
    for (size_t i = 0; i < n; i++)
        if (codes[i] < -1 || (codes[i] >= 0 && (size_t)codes[i] >= n_labels))
            return sill__fail(err, SILL_ERANGE, "sill_agree: coder %zu gave unit %zu the code %d; codes are -1 to %zu", i / n_units,
                              i % n_units, (int)codes[i], n_labels - 1);
    if ((unsigned)o->level > SILL_LEVEL_RATIO) return sill__fail(err, SILL_EINVAL, "sill_agree: no level %d", (int)o->level);
    if (!(o->confidence > 0 && o->confidence < 1))
        return sill__fail(err, SILL_ERANGE, "sill_agree: confidence is %g; above 0 and below 1", o->confidence);
    if (o->n_bootstrap > SILL__MAX_REPLICATES)
        return sill__fail(err, SILL_ERANGE, "sill_agree: n_bootstrap is %d; at most %d", (int)o->n_bootstrap, SILL__MAX_REPLICATES);
    if (o->n_threads < 0 || o->n_threads > 1024) return sill__fail(err, SILL_ERANGE, "sill_agree: n_threads is %d; 0 to 1024", (int)o->n_threads);
    return check_values(o->values, n_labels, o->level, err);
}

/* Units with at least two labels are what intervals resample. */
static sill_status keep_pairable(const int32_t *codes, size_t n_coders, size_t n_units, int32_t **kept, size_t *n_kept, sill_error *err) {
    size_t n = 0, at = 0, cells, bytes;
    for (int pass = 0; pass < 2; pass++) {
        for (size_t u = 0; u < n_units; u++) {
            size_t m = 0;
            for (size_t c = 0; c < n_coders; c++) m += codes[c * n_units + u] >= 0;
            if (m < 2) continue;
            if (pass == 0) n++;
            for (size_t c = 0; pass == 1 && c < n_coders; c++) (*kept)[c * n + at] = codes[c * n_units + u];
            at += pass == 1;
        }
        if (pass == 0 && (!sill__mul(n, n_coders, &cells) || !sill__mul(cells, sizeof **kept, &bytes) || !(*kept = sill__alloc(bytes))))
            return sill__fail(err, SILL_ENOMEM, "no memory for %zu units of %zu coders", n, n_coders);
    }
    *n_kept = n;
    return SILL_OK;
}

sill_status sill_agree(const int32_t *codes, size_t n_coders, size_t n_units, size_t n_labels, const sill_agree_options *options,
                       sill_agreement *out, sill_error *err) {
    sill_agree_options o;
    sill_status s = sill__options_read(options, &o, sizeof o, "sill_agree_options", err);
    if (s != SILL_OK) return s;
    if (!out) return sill__fail(err, SILL_EINVAL, "sill_agree: out is NULL");
    if (o.confidence == 0) o.confidence = 0.95;
    if (o.n_bootstrap == 0) o.n_bootstrap = 1000;
    if ((s = check_agree(codes, n_coders, n_units, n_labels, &o, err)) != SILL_OK) return s;
    const int n_threads = o.n_threads ? o.n_threads : sill__n_cores();
    int32_t *kept = NULL;
    size_t n_kept = 0, bytes;
    double stats[5], n_values = 0, n = 0;
    sill__interval intervals[5];
    if ((s = keep_pairable(codes, n_coders, n_units, &kept, &n_kept, err)) != SILL_OK) return s;
    job j = {.r = {.n_coders = n_coders, .n_units = n_kept, .n_labels = n_labels, .codes = kept, .values = o.values}, .o = &o};
    j.scratch = sill__mul((size_t)n_threads * SILL__SCRATCH(n_labels), sizeof(double), &bytes) ? sill__alloc(bytes) : NULL;
    if (!j.scratch) s = sill__fail(err, SILL_ENOMEM, "no memory for %zu labels", n_labels);
    for (int i = 0; i < 5; i++) intervals[i] = (sill__interval){NAN, NAN, 0};
    if (s == SILL_OK) {
        compute(&j, 0, NULL, stats);
        j.r.scratch = j.scratch;
        sill__percent_all(&j.r, &n, &n_values, NULL);
        sill__bootstrap b = {.n_items = n_kept, .n_patterns = n_kept, .n_stats = 5, .n_replicates = o.n_bootstrap, .n_threads = n_threads,
                             .seed = o.seed, .confidence = o.confidence, .fn = compute, .user = &j};
        if (o.n_bootstrap > 0 && n_kept) s = sill__bootstrap_run(&b, intervals, err);
    }
    if (s == SILL_OK) {
        sill_estimate *to[5] = {&out->percent, &out->kappa, &out->weighted, &out->fleiss, &out->alpha};
        for (int i = 0; i < 5; i++) *to[i] = (sill_estimate){stats[i], intervals[i].low, intervals[i].high};
        out->n_units = n_kept;
        out->n_values = (uint64_t)n_values;
    }
    sill__free(j.scratch);
    sill__free(kept);
    return s;
}
