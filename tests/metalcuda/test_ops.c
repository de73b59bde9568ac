/*
 * test_ops.c - the Metal kernels on an NVIDIA GPU: the whole check of operations (backend/check) against the scalar
 * reference, every type of weights, odd and large shapes, same bits. On SILL_METAL_LIBRARY=libmetalcuda.so alone: the fake
 * Metal on the CPU would take hours.
 */
#include "backend/check/check.h"
#include "test.h"

#include <stdlib.h>

static void every_operation(void) {
    static sill__check_target t;
    const char *library = getenv("SILL_METAL_LIBRARY");
    const sill__backend *ops = NULL;
    sill__device *d = NULL;
    sill_error err = {0};
    if (!library || !strstr(library, "metalcuda")) SKIP("this machine's Metal is not on CUDA (make metal-cuda)");
    if (sill__backend_find("metal", &ops, &err) != SILL_OK || ops->open(NULL, &d, &err) != SILL_OK) {
        printf("  %s\n", err.msg);
        SKIP("this machine has no NVIDIA GPU");
    }
    sill__check_target_init(&t, ops, d, NULL);
    CHECK_OK(sill__check_ops(&t, 1, SILL__CHECK_FULL, NULL, NULL, &err), err);
    int32_t cases = 0;
    for (int i = 0; i < t.n_lines; i++) {
        const sill__check_line *l = &t.lines[i];
        cases += l->n_cases;
        printf("  %-38s %5d cases", l->name, l->n_cases);
        if (l->n_skipped) printf(", %d skipped (%s)", l->n_skipped, l->skipped_why);
        if (l->bits) printf(", same bits\n");
        else printf(", worst %.2g of bound %.2g (%s)\n", l->worst_error, l->worst_bound, l->worst_at);
        if (l->n_failed) FAIL("%s: %d of %d: %s", l->name, l->n_failed, l->n_cases, l->failed_at);
    }
    printf("  %s: %d cases, %.1f s\n", t.name, cases, t.seconds);
    CHECK(sill__check_passed(&t));
    ops->close(d);
}

int main(int argc, char **argv) {
    TEST(every_operation);
    TEST_EXIT();
}
