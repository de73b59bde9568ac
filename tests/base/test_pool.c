/* The thread pool: every thread runs, barriers separate phases, also with more threads than cores. */
#include "base/crowd.h"
#include "base/pool.h"
#include "test.h"

#include <pthread.h>

#define MAX_THREADS 8
#define ROUNDS 200

typedef struct state {
    sill__pool *pool;
    int seen[MAX_THREADS];
    long values[MAX_THREADS], sums[MAX_THREADS];
    int wrong;
} state;

/* Each round every thread writes its value, and after a barrier all must read the same sum of all. */
static void rounds(void *arg, int i, int n) {
    state *s = arg;
    s->seen[i]++;
    for (int r = 0; r < ROUNDS; r++) {
        s->values[i] = (long)r * (i + 1);
        sill__pool_barrier(s->pool);
        long sum = 0;
        for (int j = 0; j < n; j++) sum += s->values[j];
        s->sums[i] = sum;
        sill__pool_barrier(s->pool);
        if (s->sums[(i + 1) % n] != (long)r * n * (n + 1) / 2) __atomic_fetch_add(&s->wrong, 1, __ATOMIC_RELAXED);
    }
}

static void pool_runs_all_threads_with_barriers(void) {
    for (int n = 1; n <= MAX_THREADS; n++) {
        state s = {0};
        sill_error err = {0};
        CHECK_OK(sill__pool_create(n, &s.pool, &err), err);
        REQUIRE(s.pool);
        CHECK_INT(sill__pool_size(s.pool), n);
        for (int k = 0; k < 20; k++) sill__pool_run(s.pool, rounds, &s);
        for (int i = 0; i < MAX_THREADS; i++) CHECK_INT(s.seen[i], i < n ? 20 : 0);
        CHECK_INT(s.wrong, 0);
        sill__pool_free(s.pool);
    }
}

static void touch(void *arg, int i, int n) {
    (void)n;
    ((state *)arg)->seen[i]++;
}

/* Between runs the workers park: longer pauses than they spin. */
static void pool_wakes_parked_workers(void) {
    state s = {0};
    sill_error err = {0};
    CHECK_OK(sill__pool_create(4, &s.pool, &err), err);
    REQUIRE(s.pool);
    for (int k = 0; k < 20; k++) {
        struct timespec t = {0, k % 4 * 1000000};
        nanosleep(&t, NULL);
        sill__pool_run(s.pool, touch, &s);
    }
    for (int i = 0; i < 4; i++) CHECK_INT(s.seen[i], 20);
    sill__pool_free(s.pool);
}

/* As many as there is room for, from call to call another number (eight threads want two cores here), between runs of all. */
static void pool_runs_some_threads(void) {
    state s = {0};
    sill_error err = {0};
    enum { RUNS = 150 };
    CHECK_OK(sill__pool_create(MAX_THREADS, &s.pool, &err), err);
    REQUIRE(s.pool);
    for (int k = 0; k < RUNS; k++) {
        sill__pool_run_some(s.pool, rounds, &s);
        if (k % 8 == 0) sill__pool_run(s.pool, touch, &s);
    }
    CHECK_INT(s.wrong, 0);
    CHECK_INT(s.seen[0], RUNS + (RUNS + 7) / 8);
    for (int i = 1; i < MAX_THREADS; i++) {
        CHECK(s.seen[i] <= s.seen[i - 1]);
        CHECK(s.seen[i] >= (RUNS + 7) / 8);
    }
    sill__pool_free(s.pool);
}

/* Work of SECONDS on a machine with FREE cores for N threads: those beyond share one with another program. */
static double saw(sill__crowd *c, double now, int free_cores) {
    int n = sill__crowd_threads(c, now);
    sill__crowd_saw(c, now + 0.01, 0.01, n > free_cores ? 0.006 : 0.0001);
    return now + 0.01;
}

static void crowd_leaves_robbed_threads_out(void) {
    sill__crowd c = {.n = 8};
    double now = 100;
    for (int k = 0; k < 100; k++) now = saw(&c, now, 8);
    CHECK_INT(sill__crowd_threads(&c, now), 8);
    int most = 0, tried = 0;
    for (int k = 0; k < 2000; k++) { /* 20 s with two cores taken */
        now = saw(&c, now, 6);
        most = SILL_MAX(most, k < 20 ? 0 : sill__crowd_threads(&c, now));
        tried += sill__crowd_threads(&c, now) > 6;
    }
    CHECK_INT(most, 7);       /* one more is tried, never two */
    CHECK(tried > 5 && tried < 100); /* now and then, ever more rarely */
    for (int k = 0; k < 1000; k++) now = saw(&c, now, 8);
    CHECK_INT(sill__crowd_threads(&c, now), 8);
    /* Where fewer do not help, all are used again, and at most half are ever left out. */
    int least = 8, all = 0;
    for (int k = 0; k < 1000; k++) {
        now = saw(&c, now, 0);
        least = SILL_MIN(least, sill__crowd_threads(&c, now));
        all += sill__crowd_threads(&c, now) == 8;
    }
    CHECK(least >= 4 && least < 8);
    CHECK(all > 800);
    sill__crowd two = {.n = 2};
    for (int k = 0; k < 100; k++) now = saw(&two, now, 1);
    CHECK_INT(sill__crowd_threads(&two, now), 1);
}

static void *caller(void *arg) {
    state *s = arg;
    for (int k = 0; k < 50; k++) {
        sill__pool_lock(s->pool);
        sill__pool_run(s->pool, touch, s);
        sill__pool_unlock(s->pool);
    }
    return NULL;
}

static void pool_is_shared_by_callers(void) {
    state s = {0};
    sill_error err = {0};
    pthread_t t[3];
    CHECK_OK(sill__pool_create(3, &s.pool, &err), err);
    REQUIRE(s.pool);
    for (int i = 0; i < 3; i++) REQUIRE(pthread_create(&t[i], NULL, caller, &s) == 0);
    for (int i = 0; i < 3; i++) pthread_join(t[i], NULL);
    for (int i = 0; i < 3; i++) CHECK_INT(s.seen[i], 150);
    sill__pool_free(s.pool);
}

static void pool_refuses_and_fails_cleanly(void) {
    sill__pool *pool = (sill__pool *)(void *)&pool;
    sill_error err = {0};
    CHECK_INT(sill__pool_create(0, &pool, &err), SILL_ERANGE);
    CHECK(pool == NULL);
    CHECK(strstr(err.msg, "1024") != NULL);
    for (uint64_t n = 1; n <= 2; n++) {
        sill__alloc_fail_at(n);
        CHECK_INT(sill__pool_create(2, &pool, &err), SILL_ENOMEM);
        sill__alloc_fail_at(0);
        CHECK(pool == NULL);
    }
    sill__pool_free(NULL);
}

static void set_aside(void *arg) { *(int *)arg = 7; }

/* A thread beside the caller. */
static void test_aside(void) {
    for (int i = 0; i < 100; i++) {
        int x = 0;
        sill__aside a;
        REQUIRE(sill__aside_start(&a, set_aside, &x));
        sill__aside_join(&a);
        CHECK_INT(x, 7);
    }
}

int main(int argc, char **argv) {
    TEST(pool_runs_all_threads_with_barriers);
    TEST(pool_wakes_parked_workers);
    TEST(pool_runs_some_threads);
    TEST(crowd_leaves_robbed_threads_out);
    TEST(pool_is_shared_by_callers);
    TEST(pool_refuses_and_fails_cleanly);
    TEST(test_aside);
    TEST_EXIT();
}
