/*
 * bootstrap.c - percentile intervals from resamples. Replicates are shared out to threads; each depends on its number alone.
 */
#include "stats/stats.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/pool.h"

double sill__quantile(const double *sorted, size_t n, double share) {
    if (n == 0) return NAN;
    double at = share * (double)(n - 1);
    size_t i = (size_t)at;
    return i + 1 < n ? sorted[i] + (at - (double)i) * (sorted[i + 1] - sorted[i]) : sorted[n - 1];
}

typedef struct work {
    const sill__bootstrap *b;
    double *stats;      /* (n_replicates, n_stats) */
    double *times;      /* (n_threads, n_patterns) */
    atomic_int stopped;
} work;

static void draw(const sill__bootstrap *b, int32_t replicate, double *times) {
    uint32_t words[4] = {0};
    memset(times, 0, b->n_patterns * sizeof *times);
    for (size_t j = 0; j < b->n_items; j++) {
        if (j % 4 == 0) sill__philox(b->seed, (uint64_t)replicate, b->stream, (uint32_t)(j / 4), words);
        const size_t item = (size_t)(((uint64_t)words[j % 4] * (uint64_t)b->n_items) >> 32);
        times[b->pattern ? b->pattern[item] : item] += 1;
    }
}

static void some_replicates(void *arg, int thread, int n_threads) {
    work *w = arg;
    const sill__bootstrap *b = w->b;
    double *times = w->times + (size_t)thread * b->n_patterns;
    for (int32_t i = thread; i < b->n_replicates; i += n_threads) {
        if (b->stop && *b->stop) atomic_store(&w->stopped, 1);
        if (atomic_load(&w->stopped)) return;
        draw(b, i, times);
        b->fn(b->user, thread, times, w->stats + (size_t)i * b->n_stats);
    }
}

static int ascending(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void interval(const work *w, size_t which, double *sorted, sill__interval *out) {
    const sill__bootstrap *b = w->b;
    size_t n = 0;
    for (int32_t i = 0; i < b->n_replicates; i++) {
        const double v = w->stats[(size_t)i * b->n_stats + which];
        if (!isnan(v)) sorted[n++] = v;
    }
    *out = (sill__interval){NAN, NAN, (size_t)b->n_replicates - n};
    if (n == 0 || out->n_undefined * 20 > (size_t)b->n_replicates) return;
    qsort(sorted, n, sizeof *sorted, ascending);
    out->low = sill__quantile(sorted, n, (1 - b->confidence) / 2);
    out->high = sill__quantile(sorted, n, 1 - (1 - b->confidence) / 2);
}

sill_status sill__bootstrap_run(const sill__bootstrap *b, sill__interval *out, sill_error *err) {
    work w = {.b = b};
    size_t n_stats, n_times;
    const int n_threads = SILL_MAX(1, SILL_MIN(b->n_threads, b->n_replicates));
    sill__pool *pool = NULL;
    sill_status s = SILL_OK;
    const bool fits = sill__mul((size_t)b->n_replicates, b->n_stats, &n_stats) && sill__mul((size_t)n_threads, b->n_patterns, &n_times);
    w.stats = fits ? sill__calloc(n_stats, sizeof(double)) : NULL;
    w.times = fits ? sill__calloc(n_times, sizeof(double)) : NULL;
    double *sorted = sill__calloc((size_t)b->n_replicates, sizeof *sorted);
    if (!w.stats || !w.times || !sorted)
        s = sill__fail(err, SILL_ENOMEM, "no memory for %d resamples of %zu items", (int)b->n_replicates, b->n_items);
    if (s == SILL_OK) s = sill__pool_create(n_threads, &pool, err);
    if (s == SILL_OK) {
        sill__pool_run(pool, some_replicates, &w);
        if (atomic_load(&w.stopped)) s = sill__fail(err, SILL_ECANCELLED, "interrupted while resampling");
    }
    for (size_t i = 0; s == SILL_OK && i < b->n_stats; i++) interval(&w, i, sorted, &out[i]);
    sill__pool_free(pool);
    sill__free(sorted);
    sill__free(w.stats);
    sill__free(w.times);
    return s;
}
