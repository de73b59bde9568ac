/*
 * test.h - the test harness. A test file lists its tests in main with TEST(fn); each prints one line
 * PASS, FAIL or SKIP, which tests/run.sh counts. `test_x NAME` runs one test.
 */
#ifndef SILL_TEST_H
#define SILL_TEST_H

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"

static int test_failures, test_bad;
static const char *test_skipped;

#define FAIL(...)                                                                                  \
    do {                                                                                           \
        if (test_failures++ < 10) {                                                                \
            printf("  %s:%d: ", __FILE__, __LINE__);                                               \
            printf(__VA_ARGS__);                                                                   \
            printf("\n");                                                                          \
        }                                                                                          \
    } while (0)
#define CHECK(cond)                                                                                \
    do {                                                                                           \
        if (!(cond)) FAIL("not true: %s", #cond);                                                  \
    } while (0)
/* Checks and leaves the test function when it fails. */
#define REQUIRE(cond)                                                                              \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            FAIL("not true: %s", #cond);                                                           \
            return;                                                                                \
        }                                                                                          \
    } while (0)
#define CHECK_INT(got, want)                                                                       \
    do {                                                                                           \
        long long g_ = (long long)(got), w_ = (long long)(want);                                   \
        if (g_ != w_) FAIL("%s is %lld, expected %lld", #got, g_, w_);                             \
    } while (0)
#define CHECK_STR(got, want)                                                                       \
    do {                                                                                           \
        const char *g_ = (got), *w_ = (want);                                                      \
        if (!g_ || strcmp(g_, w_)) FAIL("%s is \"%s\", expected \"%s\"", #got, g_ ? g_ : "(null)", w_); \
    } while (0)
#define CHECK_NEAR(got, want, tolerance)                                                           \
    do {                                                                                           \
        double g_ = (got), w_ = (want), t_ = (tolerance);                                          \
        if (!(fabs(g_ - w_) <= t_)) FAIL("%s is %.9g, expected %.9g +- %.3g", #got, g_, w_, t_);   \
    } while (0)
#define CHECK_OK(status, err)                                                                      \
    do {                                                                                           \
        if ((status) != SILL_OK) FAIL("%s failed: %s", #status, (err).msg);                        \
    } while (0)
#define SKIP(reason)                                                                               \
    do {                                                                                           \
        test_skipped = (reason);                                                                   \
        return;                                                                                    \
    } while (0)

#define TEST(fn)                                                                                   \
    do {                                                                                           \
        if (argc < 2 || !strcmp(argv[1], #fn)) {                                                   \
            test_failures = 0;                                                                     \
            test_skipped = NULL;                                                                   \
            fn();                                                                                  \
            fflush(stdout);                                                                        \
            if (test_failures) test_bad++;                                                         \
            if (test_failures) printf("FAIL %s (%d checks)\n", #fn, test_failures);                \
            else if (test_skipped) printf("SKIP %s: %s\n", #fn, test_skipped);                     \
            else printf("PASS %s\n", #fn);                                                         \
            fflush(stdout);                                                                        \
        }                                                                                          \
    } while (0)
#define TEST_EXIT() return test_bad ? 1 : 0

/* Deterministic numbers for tests. */
static inline uint32_t test_random(uint64_t *state) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    uint32_t x = (uint32_t)(((*state >> 18) ^ *state) >> 27), r = (uint32_t)(*state >> 59);
    return x >> r | x << ((32 - r) & 31);
}

#endif
