/* fuzz_format.h - any bytes as a model file; what opens is read wholly. */
#include <stdlib.h>

#include "../format/walk.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void open_and_walk(const uint8_t *data, size_t n, const char *path) {
    sill__file *f = NULL;
    sill_error e = {0};
    sill_status s = sill__file_open_memory(data, n, path, &f, &e);
    if (s == SILL_OK ? !walk_file(f) : f || e.code != s || !e.msg[0]) abort();
    sill__file_close(f);
}
