/* walk.h - touches everything an open file offers; for files that were damaged and still opened. */
#ifndef SILL_TEST_WALK_H
#define SILL_TEST_WALK_H

#include <stdlib.h>

#include "format/internal.h"

/* Reads all tensors and all metadata; false when the file's promises do not hold. */
static bool walk_file(const sill__file *f) {
    bool ok = true;
    float y[256];
    for (size_t i = 0; i < sill__file_n_tensors(f); i++) {
        const sill__tensor *t = sill__file_tensor(f, i);
        const sill__type_info *info = sill__type_get(t->type);
        uint64_t n = sill__tensor_elements(t);
        ok = ok && sill__file_find(f, t->name) == t && n % info->block == 0 &&
             n / info->block * info->block_bytes == t->bytes &&
             (!t->map || (t->data >= t->map->data && t->data + t->bytes <= t->map->data + t->map->bytes)); /* copies: the sanitizers */
        if (!ok) return false;
        for (uint64_t k = 0; k < n; k += 256) {
            size_t m = (size_t)SILL_MIN(n - k, (uint64_t)256);
            sill__dequant(t->type, t->data + k / info->block * info->block_bytes, y, m);
        }
    }
    for (size_t i = 0; i < sill__file_n_meta(f); i++) {
        const sill__meta *m = sill__file_meta(f, i);
        int64_t v;
        double d;
        bool b;
        const char *s;
        size_t n, at = 0;
        uint64_t strings = 0;
        unsigned sum = 0;
        for (size_t k = 0; k < m->bytes; k++) sum += m->data[k];
        ok = ok && sum <= 255u * m->bytes && sill__file_find_meta(f, m->key) == m;
        bool number = sill__meta_int(f, m->key, &v);
        int kinds = (int)number + sill__meta_float(f, m->key, &d) + sill__meta_bool(f, m->key, &b) +
                    sill__meta_string(f, m->key, &s, &n);
        ok = ok && kinds <= 1;
        for (; sill__meta_next_string(m, &at, &s, &n); strings++)
            for (size_t k = 0; k < n; k++) sum += (uint8_t)s[k];
        ok = ok && (m->kind != SILL__META_ARRAY || m->element != SILL__META_STRING ||
                    (strings == m->n && at == m->bytes));
    }
    return ok;
}

#endif
