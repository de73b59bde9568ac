/* ids.c - see ids.h. */
#include "task/ids.h"

void sill__ids_free(sill__ids *ids) {
    sill__free(ids->p);
    memset(ids, 0, sizeof *ids);
}

sill_status sill__ids_reserve(sill__ids *ids, size_t n_more, sill_error *err) {
    size_t need, bytes;
    if (ids->p && n_more <= ids->cap - ids->n) return SILL_OK;
    if (!sill__add(ids->n, n_more, &need) || need > (size_t)INT32_MAX)
        return sill__fail(err, SILL_ERANGE, "a list of %zu token ids is longer than %d", ids->n, INT32_MAX);
    size_t cap = SILL_MAX(SILL_MAX(need, ids->cap + ids->cap / 2), (size_t)64);
    if (!sill__mul(cap, sizeof *ids->p, &bytes)) return sill__fail(err, SILL_ERANGE, "a list of %zu token ids", need);
    int32_t *p = sill__realloc(ids->p, bytes);
    if (!p) return sill__fail(err, SILL_ENOMEM, "no memory for %zu token ids", need);
    ids->p = p;
    ids->cap = cap;
    return SILL_OK;
}

sill_status sill__ids_put(sill__ids *ids, const int32_t *more, size_t n, sill_error *err) {
    sill_status st = sill__ids_reserve(ids, n, err);
    if (st == SILL_OK && n) memcpy(ids->p + ids->n, more, n * sizeof *more);
    if (st == SILL_OK) ids->n += n;
    return st;
}

sill_status sill__ids_text(sill__ids *ids, const sill_tokenizer *t, const char *text, size_t n_bytes, uint32_t flags,
                           sill_error *err) {
    size_t n = 0;
    if (!t)
        return sill__fail(err, SILL_EUNSUPPORTED, "the model's files hold no tokenizer: give token ids instead of text");
    sill_status st = sill__ids_reserve(ids, sill_tokenize_bound(t, n_bytes), err);
    if (st == SILL_OK) st = sill_tokenize(t, text, n_bytes, flags, ids->p + ids->n, ids->cap - ids->n, &n, err);
    if (st == SILL_OK) ids->n += n;
    return st;
}
