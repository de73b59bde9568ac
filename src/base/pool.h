/*
 * pool.h - the thread pool: workers that spin briefly and then park. The caller is thread 0.
 */
#ifndef SILL_BASE_POOL_H
#define SILL_BASE_POOL_H

#include <pthread.h>

#include "base/base.h"

typedef struct sill__pool sill__pool;
/* Runs in every thread: I of N. */
typedef void (*sill__pool_fn)(void *arg, int i, int n);

/* N threads in all, the caller's included (1: no workers). */
sill_status sill__pool_create(int n_threads, sill__pool **out, sill_error *err);
void sill__pool_free(sill__pool *pool);
int sill__pool_size(const sill__pool *pool);
/* Runs FN in all threads and returns when all have ended. Not reentrant; callers must serialize
 * (sill__pool_lock/unlock: models are shared by sessions of several threads). */
void sill__pool_run(sill__pool *pool, sill__pool_fn fn, void *arg);
/* The same in as many of the threads as find cores of their own: on a machine that others use too, one that shares its
 * core would keep all waiting at every barrier. N tells how many, from call to call another number. */
void sill__pool_run_some(sill__pool *pool, sill__pool_fn fn, void *arg);
void sill__pool_lock(sill__pool *pool);
void sill__pool_unlock(sill__pool *pool);
/* Runs FN(ARG) in a thread of its own until join. False when no thread can be had. Takes no signals. */
typedef struct sill__aside { pthread_t thread; void (*fn)(void *arg); void *arg; } sill__aside;
bool sill__aside_start(sill__aside *aside, void (*fn)(void *arg), void *arg);
void sill__aside_join(sill__aside *aside);
/* Barrier among the threads of the FN that is running; spins, yields when the machine is busy. */
void sill__pool_barrier(sill__pool *pool);

#endif
