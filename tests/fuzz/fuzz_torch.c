/* fuzz_torch.c - archives of torch.save: the input as it is, and with the checksum of its pickle made right. */
#include "fuzz_format.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    sill__zip z;
    sill_error e = {0};
    const sill__map map = {.data = data, .bytes = n};
    open_and_walk(data, n, "x.bin");
    if (sill__zip_read(&z, &map, "x.bin", &e) == SILL_OK && n > 4) {
        uint8_t *p = malloc(n);
        memcpy(p, data, n);
        for (size_t i = 0; i < z.n; i++) { /* in the directory, 30 bytes before the name */
            const sill__zip_member *m = &z.members[i];
            uint32_t crc = m->method == 0 ? sill__crc32(0, data + m->at, (size_t)m->bytes) : 0;
            uint8_t *to = p + ((const uint8_t *)m->name - data) - 30;
            for (int k = 0; k < 4; k++) to[k] = (uint8_t)(crc >> 8 * k);
        }
        open_and_walk(p, n, "x.bin");
        free(p);
    }
    sill__zip_free(&z);
    return 0;
}
