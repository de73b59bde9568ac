/*
 * slots.c - the list of tensors that a model is made of: finds each in the file, checks its shape and type
 * against the configuration, and chooses what it is computed with.
 */
#include "model/family.h"

#include <stdio.h>

sill__part sill__part_of(uint64_t rows, const char *format, ...) {
    sill__part part = {.rows = rows};
    va_list ap;
    va_start(ap, format);
    vsnprintf(part.name, sizeof part.name, format, ap);
    va_end(ap);
    return part;
}

bool sill__slots_has(const sill__slots *s, const sill__part *part) {
    return sill__file_find(s->model->file, part->name) != NULL;
}

bool sill__slots_same(const sill__slots *s, const sill__part *a, const sill__part *b) {
    const sill__tensor *x = sill__file_find(s->model->file, a->name), *y = sill__file_find(s->model->file, b->name);
    return x && y && x->data == y->data && x->bytes == y->bytes && x->type == y->type && x->n_dims == y->n_dims &&
           !memcmp(x->dims, y->dims, sizeof x->dims[0] * (size_t)x->n_dims);
}

static void shape_text(const uint64_t *dims, int n, char *out, size_t cap) {
    size_t at = 0;
    out[0] = 0;
    for (int i = 0; i < n && at < cap; i++)
        at += (size_t)snprintf(out + at, cap - at, "%s%llu", i ? "," : "", (unsigned long long)dims[i]);
}

/* The tensor of that name with these dimensions; with PADDED the first may be larger. */
static const sill__tensor *find_tensor(sill__slots *s, const char *name, const uint64_t *dims, int n_dims, bool padded) {
    if (s->status != SILL_OK) return NULL;
    const char *path = sill__file_path(s->model->file);
    const sill__tensor *t = sill__file_find(s->model->file, name);
    if (!t) {
        s->status = sill__fail(s->err, SILL_EFORMAT, "%s: tensor %s is missing", path, name);
        return NULL;
    }
    bool same = t->n_dims == n_dims;
    for (int i = 0; same && i < n_dims; i++) same = t->dims[i] == dims[i] || (i == 0 && padded && t->dims[i] > dims[i]);
    if (!same) {
        char has[96], wants[96];
        shape_text(t->dims, t->n_dims, has, sizeof has);
        shape_text(dims, n_dims, wants, sizeof wants);
        s->status = sill__fail(s->err, SILL_EFORMAT, "%s: tensor %s is [%s], expected [%s]", path, name, has, wants);
        return NULL;
    }
    const sill__type_info *info = sill__type_get(t->type);
    if (!info || !info->weight) {
        s->status = sill__fail(s->err, SILL_EUNSUPPORTED, "%s: tensor %s has type %s, which sill does not compute with",
                               path, name, info ? info->name : "unknown");
        return NULL;
    }
    /* A tied head uses the embedding's tensor, which comes first, a second time. */
    if (s->n_weights > 0 && s->weights[0].src.parts[0] == t) return t;
    s->n_used++;
    s->n_params += sill__tensor_elements(t);
    return t;
}

/* Room for one more element of SIZE bytes in *list. */
static void *grow(sill__slots *s, void *list, size_t n, size_t *cap, size_t size) {
    size_t more = *cap ? *cap * 2 : 32, bytes;
    if (n < *cap) return list;
    void *p = sill__mul(more, size, &bytes) ? sill__realloc(list, bytes) : NULL;
    if (!p) {
        s->status = sill__fail(s->err, SILL_ENOMEM, "no memory for the list of tensors");
        return NULL;
    }
    *cap = more;
    return p;
}

/* What a matrix is computed with: the option's type, or as each tensor is stored. Parts of plain and of block
 * types in one matrix have only f32 in common. */
static sill__compute choose_compute(const sill_model *m, const sill__tensor *const *parts, int n) {
    int blocks = 0;
    bool same = true;
    for (int i = 0; i < n; i++) {
        blocks += sill__type_get(parts[i]->type)->block > 1;
        same = same && parts[i]->type == parts[0]->type;
    }
    if (m->dtype == SILL_DTYPE_F32) return SILL__COMPUTE_F32;
    if (blocks > 0) return blocks == n && m->dtype == SILL_DTYPE_AUTO ? SILL__COMPUTE_BLOCK_I8 : SILL__COMPUTE_F32;
    const bool stored = m->dtype != SILL_DTYPE_F16 && m->dtype != SILL_DTYPE_BF16; /* or made of it: choose_made */
    if (m->dtype == SILL_DTYPE_F16 || (stored && same && parts[0]->type == SILL__TYPE_F16))
        return SILL__COMPUTE_F16;
    if (m->dtype == SILL_DTYPE_BF16 || (stored && same && parts[0]->type == SILL__TYPE_BF16))
        return SILL__COMPUTE_BF16;
    return SILL__COMPUTE_F32;
}

/* Quantized at load, where the option says so and the shape allows: a matrix whose inputs are no whole groups stays as it
 * is stored, as does a classification head, whose few rows cost nothing. */
static void choose_made(const sill_model *m, sill__weight_src *src, bool score) {
    const bool wide = src->cols > SILL__INT8_MAX_COLS, groups = src->cols % 32 == 0;
    for (int i = 0; i < src->n_parts; i++)
        if (sill__type_get(src->parts[i]->type)->block > 1) return;
    if (src->role == SILL__ROLE_EMBED || score) return;
    if (m->dtype == SILL_DTYPE_INT8 && !wide) {
        src->compute = SILL__COMPUTE_INT8;
    } else if ((m->dtype == SILL_DTYPE_Q8 || m->dtype == SILL_DTYPE_Q4) && groups) {
        src->compute = SILL__COMPUTE_BLOCK_I8;
        src->as = m->dtype == SILL_DTYPE_Q8 || src->role == SILL__ROLE_HEAD ? SILL__TYPE_Q8_0 : SILL__TYPE_Q4_1;
    }
}

void sill__slots_weight(sill__slots *s, sill__weight **to, sill__role role, const sill__part *parts, int n_parts,
                        uint64_t cols, int flags) {
    if (s->status != SILL_OK) return;
    sill__slot *list = grow(s, s->weights, s->n_weights, &s->weights_cap, sizeof *list);
    if (!list) return;
    s->weights = list;
    sill__slot *slot = &list[s->n_weights];
    memset(slot, 0, sizeof *slot);
    const bool rows8 = sill__rows8_is(s->model->file, parts[0].name); /* always (outputs, inputs) */
    bool transposed = (flags & SILL__SLOT_TRANSPOSED) && !rows8;
    if (rows8 && role == SILL__ROLE_EMBED) { /* its rows are read in the file itself */
        s->status = sill__fail(s->err, SILL_EUNSUPPORTED, "%s: tensor %s is an embedding kept as int8, which is not supported",
                               sill__file_path(s->model->file), parts[0].name);
        return;
    }
    for (int i = 0; i < n_parts; i++) {
        if (rows8 != sill__rows8_is(s->model->file, parts[i].name)) {
            s->status = sill__fail(s->err, SILL_EUNSUPPORTED, "%s: tensors %s and %s must be both int8 or both not",
                                   sill__file_path(s->model->file), parts[0].name, parts[i].name);
            return;
        }
        if (rows8) {
            s->status = sill__rows8_find(s->model, parts[i].name, parts[i].rows, cols, &slot->src.parts[i], s->err);
            if (s->status != SILL_OK) return;
            slot->src.rows += parts[i].rows;
            s->n_used++;
            s->n_params += parts[i].rows * cols;
            continue;
        }
        uint64_t dims[2] = {transposed ? cols : parts[i].rows, transposed ? parts[i].rows : cols};
        slot->src.parts[i] = find_tensor(s, parts[i].name, dims, 2, flags & SILL__SLOT_PADDED);
        if (!slot->src.parts[i]) return;
        slot->src.rows += parts[i].rows;
        if ((flags & SILL__SLOT_ONE_TYPE) && slot->src.parts[i]->type != slot->src.parts[0]->type) {
            s->status = sill__fail(s->err, SILL_EUNSUPPORTED, "%s: tensors %s (%s) and %s (%s) must have one type",
                                   sill__file_path(s->model->file), parts[0].name,
                                   sill__type_get(slot->src.parts[0]->type)->name, parts[i].name,
                                   sill__type_get(slot->src.parts[i]->type)->name);
            return;
        }
        if (sill__row_bytes(slot->src.parts[i]->type, slot->src.parts[i]->dims[1]) == 0 ||
            (transposed && sill__type_get(slot->src.parts[i]->type)->block > 1)) {
            s->status = sill__fail(s->err, SILL_EFORMAT, "%s: the blocks of tensor %s (%s) do not fit its rows",
                                   sill__file_path(s->model->file), parts[i].name,
                                   sill__type_get(slot->src.parts[i]->type)->name);
            return;
        }
    }
    snprintf(slot->name, sizeof slot->name, "%s", parts[0].name);
    slot->src.n_parts = n_parts;
    slot->src.transposed = transposed;
    slot->rows8 = rows8;
    slot->src.cols = cols;
    slot->src.role = role;
    slot->src.compute = choose_compute(s->model, slot->src.parts, n_parts);
    /* What a checkpoint of int8 keeps in another type was not meant to be int8: the head. */
    if (rows8 || !s->model->int8) choose_made(s->model, &slot->src, to == &s->model->score);
    slot->to = to;
    s->n_weights++;
}

void sill__slots_vector(sill__slots *s, sill__ref *to, const sill__part *parts, int n_parts) {
    if (s->status != SILL_OK) return;
    sill__vector *list = grow(s, s->vectors, s->n_vectors, &s->vectors_cap, sizeof *list);
    if (!list) return;
    s->vectors = list;
    sill__vector *v = &list[s->n_vectors];
    memset(v, 0, sizeof *v);
    for (int i = 0; i < n_parts; i++) {
        if (!(v->parts[i] = find_tensor(s, parts[i].name, &parts[i].rows, 1, false))) return;
        if (sill__row_bytes(v->parts[i]->type, parts[i].rows) == 0) {
            s->status = sill__fail(s->err, SILL_EFORMAT, "%s: the blocks of tensor %s do not fit its length",
                                   sill__file_path(s->model->file), parts[i].name);
            return;
        }
        v->n += parts[i].rows;
    }
    if (to == &s->model->inv_freq) v->n = (size_t)s->model->config.rope_dims / 2;
    v->n_parts = n_parts;
    v->to = to;
    v->at = s->vector_bytes;
    s->vector_bytes += (v->n * sizeof(float) + 63) & ~(size_t)63; /* sizes are bounded by sill__config_read */
    s->n_vectors++;
}

sill_status sill__slots_make(sill_model *model, sill__slots *s, sill_error *err) {
    memset(s, 0, sizeof *s);
    s->model = model;
    s->err = err;
    switch (model->config.family) {
    case SILL__FAMILY_GPT2: sill__gpt2_slots(s); break;
    case SILL__FAMILY_LLAMA: sill__llama_slots(s); break;
    }
    /* The strings of the list move while it grows: point at them when it is whole. */
    for (size_t i = 0; i < s->n_weights; i++) s->weights[i].src.name = s->weights[i].name;
    if (s->status != SILL_OK) sill__slots_free(s);
    return s->status;
}

void sill__slots_free(sill__slots *s) {
    sill__free(s->weights);
    sill__free(s->vectors);
    s->weights = NULL;
    s->vectors = NULL;
    s->n_weights = s->n_vectors = 0;
}
