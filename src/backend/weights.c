/* weights.c - what a matrix to import must be for backends that read weights as they are stored. */
#include "backend/backend.h"

sill_status sill__weight_check_part(const sill__weight_src *src, const sill__tensor *t, const char *name, const char *device,
                                    uint64_t *rows, sill_error *err) {
    const sill__type_info *info = sill__type_get(t->type);
    uint64_t cols = t->n_dims >= 1 ? t->dims[t->n_dims - 1] : 0;
    *rows = t->n_dims == 2 ? t->dims[0] : 1;
    if (src->transposed) {
        uint64_t swap = cols;
        cols = *rows;
        *rows = swap;
    }
    if (!info || !info->weight)
        return sill__fail(err, SILL_EUNSUPPORTED, "%s: the %s device does not compute with type %s", name, device,
                          info ? info->name : "unknown");
    if (t->n_dims < 1 || t->n_dims > 2 || cols != src->cols || *rows == 0 || (src->transposed && t->n_dims != 2))
        return sill__fail(err, SILL_EINVAL, "%s: a part has another shape than %llu columns", name,
                          (unsigned long long)src->cols);
    if (src->transposed ? info->block != 1 : sill__row_bytes(t->type, cols) == 0)
        return sill__fail(err, SILL_EUNSUPPORTED, "%s: %s blocks do not fit rows of %llu columns", name, info->name,
                          (unsigned long long)cols);
    if (src->role == SILL__ROLE_EMBED) return SILL_OK;
    bool made = sill__can_quantize(src->as) && info->block == 1;
    if (src->compute == SILL__COMPUTE_BLOCK_I8 && ((info->block == 1 && !made) || cols % 32))
        return sill__fail(err, SILL_EUNSUPPORTED, "%s: int8 activations are for block types, not %s", name, info->name);
    if (src->compute == SILL__COMPUTE_INT8 && (info->block > 1 || cols > SILL__INT8_MAX_COLS))
        return sill__fail(err, SILL_EUNSUPPORTED, "%s: int8 is made of floating-point weights of up to %d inputs, not of %s",
                          name, SILL__INT8_MAX_COLS, info->name);
    return SILL_OK;
}
