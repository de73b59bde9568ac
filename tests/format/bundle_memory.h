/* bundle_memory.h - a TensorFlow checkpoint that lies in memory: index and data in blocks of just their size. */
#ifndef SILL_TEST_BUNDLE_MEMORY_H
#define SILL_TEST_BUNDLE_MEMORY_H

#include "walk.h"

/* hparams.json is not there: what is right in all else ends with ENOENT. *OK: whether what was read keeps its promises. */
static sill_status read_bundle(const void *index, size_t n_index, const void *data, size_t n_data, bool *ok, sill_error *err) {
    sill__file *f = sill__calloc(1, sizeof *f);
    uint8_t *a = malloc(n_index ? n_index : 1), *b = malloc(n_data ? n_data : 1);
    if (n_index) memcpy(a, index, n_index);
    if (n_data) memcpy(b, data, n_data);
    *ok = true;
    f->path = sill__strndup("x.index", 7);
    f->dir = sill__strndup("/nowhere", 8);
    f->maps = sill__calloc(2, sizeof *f->maps);
    f->maps[0] = (sill__map){.data = a, .bytes = n_index};
    f->maps[1] = (sill__map){.data = b, .bytes = n_data};
    f->n_maps = 2;
    sill_status s = sill__bundle_is(&f->maps[0]) ? sill__bundle_read(f, f->path, f->dir, err) : sill__fail(err, SILL_EFORMAT, "x.index: no bundle");
    if (s == SILL_ENOENT && sill__file_index(f, err) == SILL_OK) *ok = walk_file(f);
    f->n_maps = 0; /* not mapped */
    sill__file_close(f);
    free(a);
    free(b);
    return s;
}

#endif
