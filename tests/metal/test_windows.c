/* test_windows.c - tests/task/test_windows.c on the fake Metal: embeddings, heads and scores of long texts as transformers. */
#define WINDOWS_ON_METAL
#include "../task/test_windows.c"

#include "metal.h"

static void metal_as_transformers(void) {
    NEEDS_FAKE();
    on("metal");
}
static void metal_same_bits(void) {
    NEEDS_FAKE();
    same_bits();
}
static void metal_rows_that_fail(void) {
    NEEDS_FAKE();
    rows_that_fail_and_options_that_are_refused();
}
int main(int argc, char **argv) {
    device = "metal";
    fake_open(argv[0]);
    if (fake.handle) fake.set("fast", 1); /* the checks of every access are test_model's */
    TEST(metal_as_transformers);
    TEST(metal_same_bits);
    TEST(metal_rows_that_fail);
    TEST_EXIT();
}
