/* limits.c - measures what limits.h describes, with all threads of a pool. */
#include "backend/cpu/limits.h"

#include <stdlib.h>
#include <sys/mman.h>

enum { CHAIN_STEPS = 1000000, BARRIERS = 1000, MAX_THREADS = 1024, LEAST_RUNS = 3 };

typedef struct work {
    const sill__cpu_isa *isa;
    const uint8_t *block;
    size_t bytes;
    sill__limit limit;
    sill__pool *pool;
    double done[MAX_THREADS]; /* of each thread; what was read is kept so that it must be read */
} work;

void sill__times_add(sill__times *t, double seconds) {
    t->best = t->n ? SILL_MIN(t->best, seconds) : seconds;
    t->worst = t->n ? SILL_MAX(t->worst, seconds) : seconds;
    t->sum += seconds;
    t->n++;
}

const sill__cpu_isa *sill__cpu_limits_isa(const char *name) {
    if (!name || !*name) name = getenv("SILL_CPU_ISA");
    for (int i = 0; sill__cpu_isas[i]; i++)
        if (sill__cpu_isas[i]->available() && (!name || !*name || !strcmp(name, sill__cpu_isas[i]->name))) return sill__cpu_isas[i];
    return NULL;
}

static sill__times repeat(sill__pool *pool, sill__pool_fn fn, work *w, double seconds) {
    sill__times times = {0};
    double end = sill__now() + seconds;
    for (int i = 0; i < LEAST_RUNS || sill__now() < end; i++) {
        double from = sill__now();
        sill__pool_run(pool, fn, w);
        sill__times_add(&times, sill__now() - from);
    }
    return times;
}

uint8_t *sill__cpu_limits_block(size_t bytes, bool huge_pages) {
    uint8_t *block = sill__alloc_pages(bytes);
    if (!block) return NULL;
#ifdef MADV_NOHUGEPAGE
    if (!huge_pages) madvise(block, bytes, MADV_NOHUGEPAGE);
#else
    (void)huge_pages;
#endif
    memset(block, 0x3f, bytes); /* pages of its own; as floats 0.747 */
    return block;
}

static void read_part(void *arg, int i, int n) {
    work *w = arg;
    const size_t part = w->bytes / (size_t)n & ~(size_t)511;
    w->done[i] += (double)w->isa->limits->read(w->block + part * (size_t)i, part);
}

sill__times sill__cpu_limits_read(sill__pool *pool, const sill__cpu_isa *isa, const uint8_t *block, size_t bytes, double seconds) {
    work w = {.isa = isa, .block = block, .bytes = bytes};
    return repeat(pool, read_part, &w, seconds);
}

static void chain_part(void *arg, int i, int n) {
    work *w = arg;
    (void)n;
    w->done[i] = w->isa->limits->ops[w->limit](CHAIN_STEPS);
}

double sill__cpu_limits_ops(sill__pool *pool, const sill__cpu_isa *isa, sill__limit limit, double seconds, sill__times *times) {
    work w = {.isa = isa, .limit = limit};
    memset(times, 0, sizeof *times);
    if (!isa->limits->ops[limit]) return 0;
    *times = repeat(pool, chain_part, &w, seconds);
    return w.done[0] * sill__pool_size(pool);
}

static void barrier_part(void *arg, int i, int n) {
    work *w = arg;
    (void)i, (void)n;
    for (int k = 0; k < BARRIERS; k++) sill__pool_barrier(w->pool);
}

sill__times sill__cpu_limits_barrier(sill__pool *pool, double seconds) {
    work w = {.pool = pool};
    sill__times times = repeat(pool, barrier_part, &w, seconds);
    times.best /= BARRIERS;
    times.worst /= BARRIERS;
    times.sum /= BARRIERS;
    return times;
}
