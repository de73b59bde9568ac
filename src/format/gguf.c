/*
 * gguf.c - one GGUF file (versions 2 and 3, little endian): counts, metadata, tensor infos, aligned data.
 * Dimensions are turned around to row-major, outermost first. Metadata values stay in the file; each was
 * walked once here, so that reading them later cannot leave it.
 */
#include "format/internal.h"

#define MAX_NESTING 4            /* arrays in arrays */
#define MAX_ALIGNMENT (1u << 20)

/* Numbers of ggml's types, with the names of those we refuse. */
static const struct { const char *name; int type; } ggml_types[] = {
    [0] = {"F32", SILL__TYPE_F32},   [1] = {"F16", SILL__TYPE_F16},   [2] = {"Q4_0", SILL__TYPE_Q4_0},
    [3] = {"Q4_1", SILL__TYPE_Q4_1}, [4] = {"Q4_2", -1},              [5] = {"Q4_3", -1},
    [6] = {"Q5_0", SILL__TYPE_Q5_0}, [7] = {"Q5_1", SILL__TYPE_Q5_1}, [8] = {"Q8_0", SILL__TYPE_Q8_0},
    [9] = {"Q8_1", -1},              [10] = {"Q2_K", -1},             [11] = {"Q3_K", -1},
    [12] = {"Q4_K", SILL__TYPE_Q4_K}, [13] = {"Q5_K", SILL__TYPE_Q5_K}, [14] = {"Q6_K", SILL__TYPE_Q6_K},
    [15] = {"Q8_K", -1},             [16] = {"IQ2_XXS", -1},          [17] = {"IQ2_XS", -1},
    [18] = {"IQ3_XXS", -1},          [19] = {"IQ1_S", -1},            [20] = {"IQ4_NL", -1},
    [21] = {"IQ3_S", -1},            [22] = {"IQ2_S", -1},            [23] = {"IQ4_XS", -1},
    [24] = {"I8", SILL__TYPE_I8},    [25] = {"I16", SILL__TYPE_I16},  [26] = {"I32", SILL__TYPE_I32},
    [27] = {"I64", SILL__TYPE_I64},  [28] = {"F64", SILL__TYPE_F64},  [29] = {"IQ1_M", -1},
    [30] = {"BF16", SILL__TYPE_BF16}, [31] = {"Q4_0_4_4", -1},        [32] = {"Q4_0_4_8", -1},
    [33] = {"Q4_0_8_8", -1},         [34] = {"TQ1_0", -1},            [35] = {"TQ2_0", -1},
    [36] = {"IQ4_NL_4_4", -1},       [37] = {"IQ4_NL_4_8", -1},       [38] = {"IQ4_NL_8_8", -1},
    [39] = {"MXFP4", -1},            [40] = {"NVFP4", -1},            [41] = {"Q1_0", -1},
};

/* Bytes of a value of each kind; 0: its own length says. */
static const uint8_t kind_bytes[] = {
    [SILL__META_U8] = 1,     [SILL__META_I8] = 1,    [SILL__META_U16] = 2, [SILL__META_I16] = 2,
    [SILL__META_U32] = 4,    [SILL__META_I32] = 4,   [SILL__META_F32] = 4, [SILL__META_BOOL] = 1,
    [SILL__META_STRING] = 0, [SILL__META_ARRAY] = 0, [SILL__META_U64] = 8, [SILL__META_I64] = 8,
    [SILL__META_F64] = 8,
};

static uint64_t le(const uint8_t *p, int n) {
    uint64_t v = 0;
    for (int i = 0; i < n; i++) v |= (uint64_t)p[i] << (8 * i);
    return v;
}

/* A bounded cursor over the map. */
typedef struct reader {
    sill__file *f;
    const sill__map *map;
    const char *path;
    const char *in;   /* what is being read, for messages */
    size_t at;
} reader;

static size_t left(const reader *r) { return r->map->bytes - r->at; }

static sill_status cut_off(const reader *r, uint64_t need, sill_error *err) {
    return sill__fail(err, SILL_EFORMAT,
                      "%s: %s at byte %zu needs %llu bytes, but the file ends after %zu; it is cut off or "
                      "damaged (fetch it again)",
                      r->path, r->in, r->at, (unsigned long long)need, left(r));
}

static sill_status number(reader *r, int bytes, uint64_t *out, sill_error *err) {
    *out = 0;
    if (left(r) < (size_t)bytes) return cut_off(r, (uint64_t)bytes, err);
    *out = le(r->map->data + r->at, bytes);
    r->at += (size_t)bytes;
    return SILL_OK;
}

/* A length-prefixed string in the file. */
static sill_status string(reader *r, const char **s, size_t *n, sill_error *err) {
    uint64_t length;
    sill_status status = number(r, 8, &length, err);
    if (status != SILL_OK) return status;
    if (length > left(r)) return cut_off(r, length, err);
    *s = (const char *)r->map->data + r->at;
    *n = (size_t)length;
    r->at += (size_t)length;
    return SILL_OK;
}

/* A name or key: bounded, no NUL inside, copied with a NUL behind. */
static sill_status name_of(reader *r, size_t limit, const char **out, sill_error *err) {
    const char *s;
    char *copy;
    size_t n, at = r->at;
    sill_status status = string(r, &s, &n, err);
    if (status != SILL_OK) return status;
    if (n == 0 || n > limit || memchr(s, 0, n))
        return sill__fail(
            err, SILL_EFORMAT,
            "%s: %s at byte %zu has a name of %zu bytes, expected 1 to %zu and no NUL among them", r->path,
            r->in, at, n, limit);
    if (!(copy = sill__arena_alloc(&r->f->strings, n + 1)))
        return sill__fail(err, SILL_ENOMEM, "%s: no memory for the names", r->path);
    memcpy(copy, s, n);
    *out = copy;
    return SILL_OK;
}

static sill_status kind_of(reader *r, const char *key, sill__meta_kind *kind, sill_error *err) {
    uint64_t v;
    sill_status s = number(r, 4, &v, err);
    if (s != SILL_OK) return s;
    if (v >= SILL_ARRAY_LEN(kind_bytes))
        return sill__fail(err, SILL_EFORMAT, "%s: metadata %s has the unknown type %llu (0 to 12 are known)",
                          r->path, sill__show(key, strlen(key)).text, (unsigned long long)v);
    *kind = (sill__meta_kind)v;
    return SILL_OK;
}

/* Element type and count of the array at the cursor. The count is checked against what the file has left. */
static sill_status array_head(reader *r, const char *key, sill__meta_kind *element, uint64_t *n,
                              sill_error *err) {
    sill_status s = kind_of(r, key, element, err);
    if (s != SILL_OK || (s = number(r, 8, n, err)) != SILL_OK) return s;
    size_t least = *element == SILL__META_STRING  ? 8
                   : *element == SILL__META_ARRAY ? 12
                                                  : kind_bytes[*element];
    if (*n > left(r) / least)
        return sill__fail(err, SILL_EFORMAT,
                          "%s: metadata %s is an array of %llu elements, more than the %zu bytes left hold",
                          r->path, sill__show(key, strlen(key)).text, (unsigned long long)*n, left(r));
    return SILL_OK;
}

/* Passes over N values of a kind. Every value takes at least a byte: the time is bounded by the file. */
static sill_status pass_values(reader *r, const char *key, sill__meta_kind kind, uint64_t n, int depth,
                               sill_error *err) {
    sill_status s = SILL_OK;
    if (kind_bytes[kind]) {
        if (n > left(r) / kind_bytes[kind]) return cut_off(r, n * kind_bytes[kind], err);
        r->at += (size_t)n * kind_bytes[kind];
        return SILL_OK;
    }
    for (uint64_t i = 0; i < n && s == SILL_OK; i++) {
        if (kind == SILL__META_STRING) {
            const char *text;
            size_t length;
            s = string(r, &text, &length, err);
        } else {
            sill__meta_kind element;
            uint64_t m;
            if (depth >= MAX_NESTING)
                return sill__fail(err, SILL_EFORMAT, "%s: metadata %s nests arrays more than %d deep",
                                  r->path, sill__show(key, strlen(key)).text, MAX_NESTING);
            s = array_head(r, key, &element, &m, err);
            if (s == SILL_OK) s = pass_values(r, key, element, m, depth + 1, err);
        }
    }
    return s;
}

static sill_status read_meta(reader *r, sill__meta *m, sill_error *err) {
    sill_status s;
    r->in = "a metadata key";
    if ((s = name_of(r, SILL__MAX_KEY, &m->key, err)) != SILL_OK) return s;
    r->in = "a metadata value";
    if ((s = kind_of(r, m->key, &m->kind, err)) != SILL_OK) return s;
    m->n = 1;
    m->element = m->kind;
    if (m->kind == SILL__META_ARRAY && (s = array_head(r, m->key, &m->element, &m->n, err)) != SILL_OK)
        return s;
    size_t start = r->at;
    s = pass_values(r, m->key, m->kind == SILL__META_ARRAY ? m->element : m->kind, m->n, 1, err);
    m->data = r->map->data + start;
    m->bytes = r->at - start;
    if (s == SILL_OK && m->kind == SILL__META_STRING) { /* the bytes alone, without their length */
        m->data += 8;
        m->bytes -= 8;
    }
    return s;
}

/* The offset is left in bytes of the data section: t->bytes is known, t->data not yet. */
static sill_status read_info(reader *r, sill__tensor *t, uint64_t *offset, sill_error *err) {
    sill_status s;
    uint64_t v, dims[SILL__MAX_DIMS];
    r->in = "a tensor info";
    if ((s = name_of(r, SILL__MAX_NAME, &t->name, err)) != SILL_OK) return s;
    sill__shown name = sill__show(t->name, strlen(t->name));
    if ((s = number(r, 4, &v, err)) != SILL_OK) return s;
    if (v > SILL__MAX_DIMS)
        return sill__fail(err, SILL_EFORMAT, "%s: tensor %s has %llu dimensions, more than the limit of %d",
                          r->path, name.text, (unsigned long long)v, SILL__MAX_DIMS);
    t->n_dims = (int)v;
    for (int i = 0; i < t->n_dims; i++) {
        if ((s = number(r, 8, &dims[i], err)) != SILL_OK) return s;
        if (dims[i] > INT64_MAX)
            return sill__fail(err, SILL_EFORMAT, "%s: tensor %s has the negative dimension %lld", r->path,
                              name.text, (long long)dims[i]);
    }
    for (int i = 0; i < t->n_dims; i++) t->dims[i] = dims[t->n_dims - 1 - i];
    if ((s = number(r, 4, &v, err)) != SILL_OK) return s;
    if (v >= SILL_ARRAY_LEN(ggml_types))
        return sill__fail(err, SILL_EUNSUPPORTED, "%s: tensor %s has the unknown type number %llu", r->path,
                          name.text, (unsigned long long)v);
    if (ggml_types[v].type < 0)
        return sill__fail(
            err, SILL_EUNSUPPORTED,
            "%s: tensor %s has the type %s, which is not supported (F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, "
            "Q5_1, Q4_K, Q5_K and Q6_K are); take another file of this model",
            r->path, name.text, ggml_types[v].name);
    t->type = (sill__type)ggml_types[v].type;
    if ((s = number(r, 8, offset, err)) != SILL_OK) return s;
    const sill__type_info *info = sill__type_get(t->type);
    uint64_t row = t->n_dims ? t->dims[t->n_dims - 1] : 1;
    if (row % info->block)
        return sill__fail(err, SILL_EFORMAT,
                          "%s: tensor %s of type %s has rows of %llu elements, not a multiple of %u", r->path,
                          name.text, info->name, (unsigned long long)row, info->block);
    if (!sill__tensor_size(t->type, t->dims, t->n_dims, &t->bytes))
        return sill__fail(err, SILL_EFORMAT,
                          "%s: the dimensions of tensor %s multiply to more than %zu bytes", r->path,
                          name.text, SIZE_MAX);
    t->map = r->map;
    return SILL_OK;
}

/* Places the tensors: aligned, inside the data section, none over another. */
static sill_status place(reader *r, sill__span *spans, uint64_t alignment, sill_error *err) {
    sill__file *f = r->f;
    size_t pad = (size_t)((alignment - r->at % alignment) % alignment);
    size_t start = pad <= left(r) ? r->at + pad : r->map->bytes, size = r->map->bytes - start;
    for (size_t i = 0; i < f->n_tensors; i++) {
        sill__tensor *t = &f->tensors[i];
        sill__shown name = sill__show(t->name, strlen(t->name));
        if (spans[i].begin % alignment)
            return sill__fail(
                err, SILL_EFORMAT, "%s: tensor %s is at offset %llu, not a multiple of the alignment %llu",
                r->path, name.text, (unsigned long long)spans[i].begin, (unsigned long long)alignment);
        if (spans[i].begin > size || t->bytes > size - spans[i].begin)
            return sill__fail(err, SILL_EFORMAT,
                              "%s: tensor %s takes %zu bytes from byte %llu of the data, but the file has "
                              "%zu bytes of data; it is cut off or damaged (fetch it again)",
                              r->path, name.text, t->bytes, (unsigned long long)spans[i].begin, size);
        t->data = r->map->data + start + spans[i].begin;
        spans[i].end = spans[i].begin + t->bytes;
        spans[i].tensor = (uint32_t)i;
    }
    sill__sort_spans(spans, f->n_tensors);
    uint64_t end = 0;
    for (size_t i = 0; i < f->n_tensors; i++) {
        const char *name = f->tensors[spans[i].tensor].name;
        if (spans[i].begin == spans[i].end) continue;
        if (spans[i].begin < end)
            return sill__fail(
                err, SILL_EFORMAT,
                "%s: tensor %s begins at byte %llu of the data, overlapping the one that ends at byte %llu",
                r->path, sill__show(name, strlen(name)).text, (unsigned long long)spans[i].begin,
                (unsigned long long)end);
        end = spans[i].end;
    }
    return SILL_OK;
}

static sill_status read_alignment(const reader *r, uint64_t *alignment, sill_error *err) {
    const sill__meta *m = sill__file_find_meta(r->f, "general.alignment");
    *alignment = 32;
    if (!m) return SILL_OK;
    if (m->kind != SILL__META_U32)
        return sill__fail(err, SILL_EFORMAT,
                          "%s: metadata general.alignment is of type %d, expected 4 (a 32-bit number)",
                          r->path, (int)m->kind);
    *alignment = le(m->data, 4);
    if (*alignment == 0 || *alignment & (*alignment - 1) || *alignment > MAX_ALIGNMENT)
        return sill__fail(err, SILL_EFORMAT, "%s: an alignment of %llu, expected a power of two up to %u",
                          r->path, (unsigned long long)*alignment, MAX_ALIGNMENT);
    return SILL_OK;
}

static sill_status read_version(reader *r, sill_error *err) {
    uint64_t v;
    r->at = 4;
    sill_status s = number(r, 4, &v, err);
    if (s != SILL_OK) return s;
    if (v != 0 && (v & 0xffff) == 0)
        return sill__fail(err, SILL_EUNSUPPORTED,
                          "%s: a big-endian GGUF file; only little-endian ones are supported", r->path);
    if (v != 2 && v != 3)
        return sill__fail(err, SILL_EUNSUPPORTED, "%s: GGUF version %llu; versions 2 and 3 are supported",
                          r->path, (unsigned long long)v);
    return SILL_OK;
}

/* COUNT items of at least LEAST bytes must fit into what is left, and be no more than LIMIT. */
static sill_status check_count(const reader *r, const char *what, uint64_t count, size_t least,
                               uint64_t limit, sill_error *err) {
    if (count > limit)
        return sill__fail(err, SILL_EFORMAT, "%s: %llu %s, more than the limit of %llu", r->path,
                          (unsigned long long)count, what, (unsigned long long)limit);
    if (count > left(r) / least)
        return sill__fail(
            err, SILL_EFORMAT,
            "%s: %llu %s cannot be in the %zu bytes that the file has left; it is cut off or damaged",
            r->path, (unsigned long long)count, what, left(r));
    return SILL_OK;
}

sill_status sill__gguf_read(sill__file *f, const sill__map *map, const char *path, sill_error *err) {
    reader r = {.f = f, .map = map, .path = path, .in = "the header"};
    uint64_t n_tensors, n_meta = 0, alignment;
    int64_t split = 0;
    sill__span *spans = NULL;
    sill_status s;
    if (map->bytes < 4 || memcmp(map->data, "GGUF", 4))
        return sill__fail(err, SILL_EFORMAT, "%s: not a GGUF file", path);
    if ((s = read_version(&r, err)) != SILL_OK || (s = number(&r, 8, &n_tensors, err)) != SILL_OK ||
        (s = number(&r, 8, &n_meta, err)) != SILL_OK ||
        (s = check_count(&r, "tensors", n_tensors, 24, SILL__MAX_TENSORS, err)) != SILL_OK ||
        (s = check_count(&r, "metadata entries", n_meta, 13, SILL__MAX_META, err)) != SILL_OK)
        return s;
    if (!(f->meta = sill__calloc((size_t)n_meta, sizeof *f->meta)))
        return sill__fail(err, SILL_ENOMEM, "%s: no memory for %llu metadata entries", path,
                          (unsigned long long)n_meta);
    for (uint64_t i = 0; i < n_meta; i++) {
        if ((s = read_meta(&r, &f->meta[i], err)) != SILL_OK) return s;
        f->n_meta++;
    }
    if ((s = check_count(&r, "tensors", n_tensors, 24, SILL__MAX_TENSORS, err)) != SILL_OK ||
        (s = sill__file_reserve(f, (size_t)n_tensors, path, err)) != SILL_OK)
        return s;
    if (!(spans = sill__calloc((size_t)n_tensors, sizeof *spans)))
        return sill__fail(err, SILL_ENOMEM, "%s: no memory for %llu tensors", path,
                          (unsigned long long)n_tensors);
    for (uint64_t i = 0; i < n_tensors && s == SILL_OK; i++) {
        memset(&f->tensors[i], 0, sizeof f->tensors[i]);
        if ((s = read_info(&r, &f->tensors[i], &spans[i].begin, err)) == SILL_OK) f->n_tensors++;
    }
    if (s != SILL_OK || (s = sill__file_index(f, err)) != SILL_OK ||
        (s = read_alignment(&r, &alignment, err)) != SILL_OK)
        goto done;
    if (sill__meta_int(f, "split.count", &split) && split > 1) {
        s = sill__fail(
            err, SILL_EUNSUPPORTED,
            "%s: one part of a model split into %lld GGUF files; join them first (gguf-split --merge)", path,
            (long long)split);
        goto done;
    }
    s = place(&r, spans, alignment, err);
done:
    sill__free(spans);
    return s;
}

/* ---- metadata access; the values were walked above, so their lengths can be trusted */

bool sill__meta_int(const sill__file *file, const char *key, int64_t *out) {
    const sill__meta *m = sill__file_find_meta(file, key);
    if (!m) return false;
    switch (m->kind) {
    case SILL__META_U8: *out = m->data[0]; return true;
    case SILL__META_I8: *out = (int8_t)m->data[0]; return true;
    case SILL__META_U16: *out = (int64_t)le(m->data, 2); return true;
    case SILL__META_I16: *out = (int16_t)le(m->data, 2); return true;
    case SILL__META_U32: *out = (int64_t)le(m->data, 4); return true;
    case SILL__META_I32: *out = (int32_t)le(m->data, 4); return true;
    case SILL__META_I64: *out = (int64_t)le(m->data, 8); return true;
    case SILL__META_U64:
        if (le(m->data, 8) > INT64_MAX) return false;
        *out = (int64_t)le(m->data, 8);
        return true;
    default: return false;
    }
}

bool sill__meta_float(const sill__file *file, const char *key, double *out) {
    const sill__meta *m = sill__file_find_meta(file, key);
    if (m && m->kind == SILL__META_F32) {
        *out = (double)sill__bits_f32((uint32_t)le(m->data, 4));
        return true;
    }
    if (m && m->kind == SILL__META_F64) {
        uint64_t bits = le(m->data, 8);
        memcpy(out, &bits, 8);
        return true;
    }
    return false;
}

bool sill__meta_bool(const sill__file *file, const char *key, bool *out) {
    const sill__meta *m = sill__file_find_meta(file, key);
    if (!m || m->kind != SILL__META_BOOL) return false;
    *out = m->data[0] != 0;
    return true;
}

bool sill__meta_string(const sill__file *file, const char *key, const char **s, size_t *n) {
    const sill__meta *m = sill__file_find_meta(file, key);
    if (!m || m->kind != SILL__META_STRING) return false;
    *s = (const char *)m->data;
    *n = m->bytes;
    return true;
}

bool sill__meta_next_string(const sill__meta *array, size_t *at, const char **s, size_t *n) {
    if (array->kind != SILL__META_ARRAY || array->element != SILL__META_STRING) return false;
    if (*at > array->bytes || array->bytes - *at < 8) return false;
    uint64_t length = le(array->data + *at, 8);
    if (length > array->bytes - *at - 8) return false;
    *s = (const char *)array->data + *at + 8;
    *n = (size_t)length;
    *at += 8 + (size_t)length;
    return true;
}
