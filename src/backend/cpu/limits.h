/*
 * limits.h - the most that this machine can do with one instruction set: reading memory, multiply-adds, a barrier.
 * Speeds are held against these, measured in the same minutes (sill bench, bench/kernels/bench_mat.c).
 */
#ifndef SILL_CPU_LIMITS_H
#define SILL_CPU_LIMITS_H

#include "backend/cpu/kernels.h"
#include "base/pool.h"

/* Times of one and the same piece of work. */
typedef struct sill__times { double best, worst, sum; int n; } sill__times;
void sill__times_add(sill__times *t, double seconds);

/* NULL or "": what SILL_CPU_ISA or this machine chooses; NULL when there is none of that name that runs here. */
const sill__cpu_isa *sill__cpu_limits_isa(const char *name);
/* Memory for sill__cpu_limits_read, each page written. HUGE_PAGES false: none that are huge, where the system can be
 * told so. Free with sill__free_pages. */
uint8_t *sill__cpu_limits_block(size_t bytes, bool huge_pages);
/* Reads BYTES (a multiple of 4096) with all threads, at least three times and for SECONDS. */
sill__times sill__cpu_limits_read(sill__pool *pool, const sill__cpu_isa *isa, const uint8_t *block, size_t bytes, double seconds);
/* Operations that all threads do in one of the TIMES (a multiply and an add are two); 0 where the set lacks it. */
double sill__cpu_limits_ops(sill__pool *pool, const sill__cpu_isa *isa, sill__limit limit, double seconds, sill__times *times);
/* One barrier of the pool's threads. */
sill__times sill__cpu_limits_barrier(sill__pool *pool, double seconds);

#endif
