/*
 * rows8.c - matrices that a checkpoint keeps as LLM.int8 (bitsandbytes): codes of 8 bits, one scale a row beside them. To the
 * devices they are f32 matrices, made one at a time while they are imported; quantizing them to int8 again gives the same
 * codes, since the greatest of a row is 127.
 */
#include "model/family.h"

#include <stdio.h>

/* "X.weight" -> "X.END"; NULL where the file has none. */
static const sill__tensor *beside(const sill__file *file, const char *name, const char *end) {
    char other[SILL__PART_NAME];
    size_t n = strlen(name);
    if (n < 7 || strcmp(name + n - 7, ".weight")) return NULL;
    int k = snprintf(other, sizeof other, "%.*s.%s", (int)(n - 7), name, end);
    return k > 0 && (size_t)k < sizeof other ? sill__file_find(file, other) : NULL;
}

bool sill__rows8_is(const sill__file *file, const char *name) {
    const sill__tensor *t = sill__file_find(file, name);
    return t && t->type == SILL__TYPE_I8 && beside(file, name, "SCB");
}

bool sill__rows8_any(const sill__file *file) {
    for (size_t i = 0; i < sill__file_n_tensors(file); i++)
        if (sill__rows8_is(file, sill__file_tensor(file, i)->name)) return true;
    return false;
}

sill_status sill__rows8_find(sill_model *m, const char *name, uint64_t rows, uint64_t cols, const sill__tensor **out,
                             sill_error *err) {
    const sill__tensor *codes = sill__file_find(m->file, name), *scales = beside(m->file, name, "SCB");
    const sill__tensor *format = beside(m->file, name, "weight_format");
    const char *path = sill__file_path(m->file);
    *out = NULL;
    if (codes->n_dims != 2 || codes->dims[0] != rows || codes->dims[1] != cols)
        return sill__fail(err, SILL_EFORMAT, "%s: tensor %s of int8 codes is not [%llu,%llu]", path, name,
                          (unsigned long long)rows, (unsigned long long)cols);
    if (scales->type != SILL__TYPE_F32 || sill__tensor_elements(scales) != rows)
        return sill__fail(err, SILL_EFORMAT, "%s: the scales (SCB) of %s are not %llu values of F32", path, name,
                          (unsigned long long)rows);
    if (format && (sill__tensor_elements(format) != 1 || format->type != SILL__TYPE_U8 || format->data[0] != 0))
        return sill__fail(err, SILL_EUNSUPPORTED, "%s: tensor %s is kept in an order of columns that is not supported "
                          "(weight_format other than row)", path, name);
    sill__rows8 *r = sill__arena_alloc(&m->rows8, sizeof *r);
    if (!r) return sill__fail(err, SILL_ENOMEM, "no memory for the list of tensors");
    r->tensor = *codes;
    r->tensor.type = SILL__TYPE_F32;
    r->tensor.data = NULL;
    r->tensor.bytes *= 4; /* bounded by the shape that the configuration asks for */
    r->tensor.map = NULL;
    r->codes = codes;
    r->scales = scales;
    *out = &r->tensor;
    return SILL_OK;
}

sill_status sill__rows8_make(const sill__weight_src *src, sill__arena *arena, sill_error *err) {
    for (int i = 0; i < src->n_parts; i++) {
        sill__rows8 *r = (sill__rows8 *)(void *)src->parts[i]; /* its first member */
        const uint64_t rows = r->codes->dims[0], cols = r->codes->dims[1];
        float *values = arena ? sill__arena_alloc(arena, r->tensor.bytes) : sill__alloc(r->tensor.bytes);
        if (!values) return sill__fail(err, SILL_ENOMEM, "no memory for tensor %s", r->codes->name);
        for (uint64_t k = 0; k < rows; k++) {
            float scale;
            memcpy(&scale, r->scales->data + 4 * k, 4);
            scale /= 127.0f;
            sill__dequant(SILL__TYPE_I8, r->codes->data + k * cols, values + k * cols, (size_t)cols);
            for (uint64_t c = 0; c < cols; c++) values[k * cols + c] *= scale;
        }
        r->tensor.data = (const uint8_t *)values;
        if (r->codes->map) sill__map_release(r->codes->map, (size_t)(r->codes->data - r->codes->map->data), r->codes->bytes);
    }
    return SILL_OK;
}

void sill__rows8_drop(const sill__weight_src *src) {
    for (int i = 0; i < src->n_parts; i++) {
        sill__rows8 *r = (sill__rows8 *)(void *)src->parts[i];
        sill__free((void *)r->tensor.data);
        r->tensor.data = NULL;
    }
}
