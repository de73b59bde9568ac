/*
 * pool.c - the thread pool. A wait of any kind (for work, for the others at a barrier, for the end) goes through one
 * function: spin for some tens of microseconds, then yield, then park on a condition variable. Spinning makes a
 * barrier cost well under a microsecond on an idle machine; yielding and parking keep it from collapsing where there
 * are more threads than free cores.
 */
#include "base/pool.h"

#include "base/crowd.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
#ifdef __APPLE__
#include <pthread/qos.h>
#endif

#define SPINS 1024       /* pauses before the first yield: 20 to 50 us */
#define YIELDS 64        /* yields before parking */
/* Seconds from which on a late thread counts as robbed. Few threads are reduced only when half of the time is lost, so
 * that short waits may count too; with many a tenth is enough, which waking parked threads could come to. */
#define LATE_OF_FEW 0.00002
#define LATE_OF_MANY 0.0005
#define FEW 4
#define CACHE_LINE 64
#define MAX_THREADS 1024

/* The seconds of one thread in one piece of work: those in which it had something to do, those of them that it got a core
 * for, and those that passed between the end of a wait and its going on. Waiting itself is neither. */
typedef struct account {
    _Alignas(CACHE_LINE) double wall, cpu, late;
} account;

typedef struct worker { struct sill__pool *pool; pthread_t thread; int i; } worker;

struct sill__pool {
    int n, n_started, spins;
    worker *workers;             /* (n - 1) */
    account *accounts;           /* (n) of the work that is running, where it is watched */
    sill__crowd crowd;
    sill__pool_fn fn;
    void *arg;
    int active;                  /* threads of the work that is running */
    bool watched, stop;
    pthread_mutex_t callers;     /* sill__pool_lock */
    pthread_mutex_t park;
    pthread_cond_t wake;
    /* Each on its own cache line, since all threads watch them. */
    /* What was started last: its number, and in one word with it the threads that it is for: a worker that is left out
     * may see it late, when the next is running, and must not take the one's number for the other's. */
    _Alignas(CACHE_LINE) atomic_uint started;
    _Alignas(CACHE_LINE) atomic_uint ended;   /* `started` of the work that all its workers have ended */
    _Alignas(CACHE_LINE) atomic_uint running; /* workers that have not ended it */
    _Alignas(CACHE_LINE) atomic_uint arrived; /* threads at the barrier */
    _Alignas(CACHE_LINE) atomic_uint phase;   /* barriers passed */
    _Alignas(CACHE_LINE) atomic_uint parked;
    /* Threads that wait beyond the first spins; for them, when the last word changed, to what, and at what time. */
    _Alignas(CACHE_LINE) atomic_uint n_waiting;
    _Alignas(CACHE_LINE) atomic_uint changed_to;
    _Atomic double changed_at;
};

static inline void pause_cpu(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("isb" ::: "memory"); /* about as long as x86's pause; yield is next to nothing */
#endif
}

static double thread_seconds(void) {
    struct timespec t;
    return clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t) ? 0 : (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Adds (SIGN 1) or takes away (-1) the seconds so far. */
static void count(account *a, double sign) {
    a->wall += sign * sill__now();
    a->cpu += sign * thread_seconds();
}

/* Returns once *word is no longer OLD. WAITER: its account, or NULL. */
static void wait_change(sill__pool *p, atomic_uint *word, unsigned old, account *waiter) {
    for (int i = 0; i < p->spins; i++) {
        if (atomic_load_explicit(word, memory_order_acquire) != old) return;
        pause_cpu();
    }
    const double since = waiter ? sill__now() : 0;
    if (waiter) count(waiter, 1);
    atomic_fetch_add(&p->n_waiting, 1);
    bool changed = false;
    for (int i = 0; i < YIELDS && !changed; i++) {
        changed = atomic_load_explicit(word, memory_order_acquire) != old;
        if (!changed) sched_yield();
    }
    if (!changed) {
        /* `parked` is raised before the word is looked at again, and publish() looks at it after changing the word: in
         * the one order of these four one of the two sees the other. */
        atomic_fetch_add(&p->parked, 1);
        pthread_mutex_lock(&p->park);
        while (atomic_load(word) == old) pthread_cond_wait(&p->wake, &p->park);
        pthread_mutex_unlock(&p->park);
        atomic_fetch_sub(&p->parked, 1);
    }
    atomic_fetch_sub(&p->n_waiting, 1);
    if (!waiter) return;
    count(waiter, -1);
    const double at = atomic_load(&p->changed_at), late = sill__now() - SILL_MAX(at, since);
    if (late > (p->n <= FEW ? LATE_OF_FEW : LATE_OF_MANY) && atomic_load(&p->changed_to) == atomic_load(word)) waiter->late += late;
}

static void publish(sill__pool *p, atomic_uint *word, unsigned value) {
    if (atomic_load(&p->n_waiting)) {
        atomic_store(&p->changed_at, sill__now());
        atomic_store(&p->changed_to, value);
    }
    atomic_store(word, value);
    if (atomic_load(&p->parked) == 0) return;
    pthread_mutex_lock(&p->park);
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->park);
}

static _Thread_local account *mine; /* of the thread that is in watched work, else NULL */

static void run_part(sill__pool *p, int i) {
    if (!p->watched) {
        p->fn(p->arg, i, p->active);
        return;
    }
    mine = &p->accounts[i];
    mine->wall = mine->cpu = mine->late = 0;
    count(mine, -1);
    p->fn(p->arg, i, p->active);
    count(mine, 1);
    mine = NULL;
}

static void *work(void *arg) {
    worker *w = arg;
    sill__pool *p = w->pool;
    unsigned seen = 0;
#ifdef __APPLE__
    pthread_set_qos_class_self_np(QOS_CLASS_USER_INITIATED, 0); /* performance cores */
#endif
    for (;;) {
        wait_change(p, &p->started, seen, NULL);
        seen = atomic_load_explicit(&p->started, memory_order_acquire);
        if ((unsigned)w->i >= seen % (2 * MAX_THREADS)) continue; /* left out of this one */
        if (p->stop) return NULL;
        run_part(p, w->i);
        if (atomic_fetch_sub(&p->running, 1) == 1) publish(p, &p->ended, seen);
    }
}

/* Starts work of ACTIVE threads: what `ended` will be when the workers have ended it. */
static unsigned start(sill__pool *p, sill__pool_fn fn, void *arg, int active, bool watched) {
    unsigned last = atomic_load_explicit(&p->started, memory_order_relaxed) / (2 * MAX_THREADS);
    unsigned number = (last + 1) * (2 * MAX_THREADS) + (unsigned)active;
    p->fn = fn;
    p->arg = arg;
    p->active = active;
    p->watched = watched;
    atomic_store_explicit(&p->running, (unsigned)(active - 1), memory_order_relaxed);
    publish(p, &p->started, number);
    return number;
}

void sill__pool_run(sill__pool *p, sill__pool_fn fn, void *arg) {
    if (p->n == 1) {
        fn(arg, 0, 1);
        return;
    }
    unsigned before = atomic_load_explicit(&p->ended, memory_order_relaxed);
    start(p, fn, arg, p->n, false);
    fn(arg, 0, p->n);
    wait_change(p, &p->ended, before, NULL);
}

void sill__pool_run_some(sill__pool *p, sill__pool_fn fn, void *arg) {
    if (p->n == 1) {
        fn(arg, 0, 1);
        return;
    }
    double began = sill__now(), robbed = 0;
    int active = sill__crowd_threads(&p->crowd, began);
    unsigned before = atomic_load_explicit(&p->ended, memory_order_relaxed);
    start(p, fn, arg, active, true);
    run_part(p, 0);
    if (active > 1) wait_change(p, &p->ended, before, NULL);
    for (int i = 0; i < active; i++) {
        const account *a = &p->accounts[i];
        robbed = SILL_MAX(robbed, a->wall - a->cpu + a->late);
    }
    double now = sill__now();
    sill__crowd_saw(&p->crowd, now, now - began, robbed);
}

void sill__pool_barrier(sill__pool *p) {
    if (p->active == 1) return;
    unsigned phase = atomic_load_explicit(&p->phase, memory_order_relaxed);
    if (atomic_fetch_add(&p->arrived, 1) + 1 == (unsigned)p->active) {
        atomic_store_explicit(&p->arrived, 0, memory_order_relaxed);
        publish(p, &p->phase, phase + 1);
    } else {
        wait_change(p, &p->phase, phase, mine);
    }
}

int sill__pool_size(const sill__pool *p) { return p->n; }
void sill__pool_lock(sill__pool *p) { pthread_mutex_lock(&p->callers); }
void sill__pool_unlock(sill__pool *p) { pthread_mutex_unlock(&p->callers); }

/* Workers take no signals: those are for the program's own threads. */
static int start_worker(sill__pool *p, int i) {
    sigset_t all, old;
    worker *w = &p->workers[i - 1];
    *w = (worker){.pool = p, .i = i};
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int failed = pthread_create(&w->thread, NULL, work, w);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (!failed) p->n_started++;
    return failed;
}

static void *run_aside(void *arg) {
    sill__aside *a = arg;
    a->fn(a->arg);
    return NULL;
}

bool sill__aside_start(sill__aside *a, void (*fn)(void *arg), void *arg) {
    sigset_t all, old;
    a->fn = fn;
    a->arg = arg;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int failed = pthread_create(&a->thread, NULL, run_aside, a);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return !failed;
}

void sill__aside_join(sill__aside *a) { pthread_join(a->thread, NULL); }

static void release(sill__pool *p, int n) {
    if (!p) return;
    sill__free(p->workers);
    sill__free_pages(p->accounts, (size_t)n * sizeof *p->accounts);
    sill__free_pages(p, sizeof *p);
}

sill_status sill__pool_create(int n_threads, sill__pool **out, sill_error *err) {
    *out = NULL;
    if (n_threads < 1 || n_threads > MAX_THREADS)
        return sill__fail(err, SILL_ERANGE, "%d threads; from 1 to 1024 are possible", n_threads);
    sill__pool *p = sill__alloc_pages(sizeof *p);
    if (p) {
        p->workers = sill__calloc((size_t)n_threads, sizeof *p->workers);
        p->accounts = sill__alloc_pages((size_t)n_threads * sizeof *p->accounts);
    }
    if (!p || !p->workers || !p->accounts) {
        release(p, n_threads);
        return sill__fail(err, SILL_ENOMEM, "no memory for a pool of %d threads", n_threads);
    }
    p->n = p->crowd.n = p->active = n_threads;
    /* More threads than processors: whoever is awaited needs the core that a spinner holds. */
    p->spins = n_threads <= sill__n_processors() ? SPINS : 16;
    pthread_mutex_init(&p->callers, NULL);
    pthread_mutex_init(&p->park, NULL);
    pthread_cond_init(&p->wake, NULL);
    for (int i = 1; i < n_threads; i++) {
        int failed = start_worker(p, i);
        if (failed) {
            sill__pool_free(p);
            return sill__fail(err, SILL_ENOMEM, "cannot start thread %d of %d: %s; ask for fewer", i + 1, n_threads,
                              strerror(failed));
        }
    }
    *out = p;
    return SILL_OK;
}

void sill__pool_free(sill__pool *p) {
    if (!p) return;
    if (p->n_started) {
        p->stop = true;
        start(p, NULL, NULL, p->n, false);
        for (int i = 0; i < p->n_started; i++) pthread_join(p->workers[i].thread, NULL);
    }
    pthread_cond_destroy(&p->wake);
    pthread_mutex_destroy(&p->park);
    pthread_mutex_destroy(&p->callers);
    release(p, p->n);
}
