/*
 * safetensors.c - one safetensors file: 8 bytes of header length, a JSON header, the data. The data must
 * be covered by the tensors without overlap and without holes, as the format demands.
 */
#include "base/json.h"
#include "format/internal.h"

#define MAX_HEADER 100000000u /* the reference reader's limit */

static const struct { const char *name; sill__type type; } dtypes[] = {
    {"F32", SILL__TYPE_F32}, {"F16", SILL__TYPE_F16}, {"BF16", SILL__TYPE_BF16}, {"F64", SILL__TYPE_F64},
    {"I8", SILL__TYPE_I8},   {"I16", SILL__TYPE_I16}, {"I32", SILL__TYPE_I32},   {"I64", SILL__TYPE_I64},
    {"U8", SILL__TYPE_U8},   {"BOOL", SILL__TYPE_BOOL},
};

/* A reader at work on one file. */
typedef struct reader {
    sill__file *f;
    const sill__map *map;
    const char *path;
    sill__json j;
    sill__shown name; /* of the tensor at hand */
    size_t data_at, data_bytes;
    sill__str text;   /* the dtype's name */
} reader;

static sill_status broken(const reader *r, sill_error *err) { return sill__json_fail(&r->j, r->path, err); }

static sill_status read_dtype(reader *r, sill__tensor *t, sill_error *err) {
    sill__str_clear(&r->text);
    if (!sill__json_string(&r->j, &r->text)) return broken(r, err);
    for (size_t i = 0; i < SILL_ARRAY_LEN(dtypes); i++)
        if (r->text.n == strlen(dtypes[i].name) && !memcmp(r->text.p, dtypes[i].name, r->text.n)) {
            t->type = dtypes[i].type;
            return SILL_OK;
        }
    return sill__fail(
        err, SILL_EUNSUPPORTED,
        "%s: tensor %s has the type %s, which is not supported (F32, F16, BF16 and, outside of weights, "
        "F64, I8, I16, I32, I64, U8, BOOL are)",
        r->path, r->name.text, sill__show(r->text.p, r->text.n).text);
}

static sill_status read_shape(reader *r, sill__tensor *t, sill_error *err) {
    int64_t v;
    if (!sill__json_enter(&r->j, SILL__JSON_ARRAY)) return broken(r, err);
    t->n_dims = 0;
    while (sill__json_next_element(&r->j)) {
        if (!sill__json_int(&r->j, &v)) return broken(r, err);
        if (v < 0)
            return sill__fail(err, SILL_EFORMAT, "%s: tensor %s has the negative dimension %lld", r->path,
                              r->name.text, (long long)v);
        if (t->n_dims == SILL__MAX_DIMS)
            return sill__fail(err, SILL_EUNSUPPORTED, "%s: tensor %s has more than %d dimensions", r->path,
                              r->name.text, SILL__MAX_DIMS);
        t->dims[t->n_dims++] = (uint64_t)v;
    }
    return r->j.message ? broken(r, err) : SILL_OK;
}

static sill_status read_offsets(reader *r, uint64_t offsets[2], sill_error *err) {
    int n = 0;
    int64_t v;
    if (!sill__json_enter(&r->j, SILL__JSON_ARRAY)) return broken(r, err);
    while (sill__json_next_element(&r->j)) {
        if (!sill__json_int(&r->j, &v)) return broken(r, err);
        if (n == 2 || v < 0)
            return sill__fail(err, SILL_EFORMAT,
                              "%s: data_offsets of tensor %s are not two numbers from 0 up", r->path,
                              r->name.text);
        offsets[n++] = (uint64_t)v;
    }
    if (r->j.message) return broken(r, err);
    if (n != 2)
        return sill__fail(err, SILL_EFORMAT, "%s: data_offsets of tensor %s are %d numbers, expected 2",
                          r->path, r->name.text, n);
    return SILL_OK;
}

static sill_status check_place(const reader *r, sill__tensor *t, const uint64_t at[2], sill_error *err) {
    if (at[0] > at[1])
        return sill__fail(err, SILL_EFORMAT,
                          "%s: data_offsets of tensor %s end (%llu) before they begin (%llu)", r->path,
                          r->name.text, (unsigned long long)at[1], (unsigned long long)at[0]);
    if (at[1] > r->data_bytes)
        return sill__fail(
            err, SILL_EFORMAT,
            "%s: tensor %s ends at byte %llu of the data, but the file has %zu bytes of data; it is cut off "
            "or damaged (fetch it again)",
            r->path, r->name.text, (unsigned long long)at[1], r->data_bytes);
    if (!sill__tensor_size(t->type, t->dims, t->n_dims, &t->bytes))
        return sill__fail(err, SILL_EFORMAT,
                          "%s: the dimensions of tensor %s multiply to more than %zu bytes", r->path,
                          r->name.text, SIZE_MAX);
    if (t->bytes != at[1] - at[0])
        return sill__fail(err, SILL_EFORMAT,
                          "%s: tensor %s takes %llu bytes in the file, but its shape and type need %zu",
                          r->path, r->name.text, (unsigned long long)(at[1] - at[0]), t->bytes);
    t->data = r->map->data + r->data_at + at[0];
    t->map = r->map;
    return SILL_OK;
}

/* The value of one member of the header: {"dtype": ..., "shape": [...], "data_offsets": [b, e]}. */
static sill_status read_tensor(reader *r, sill__tensor *t, sill_error *err) {
    static const char *const fields[] = {"dtype", "shape", "data_offsets"};
    unsigned seen = 0;
    char key[32];
    uint64_t at[2] = {0, 0};
    sill_status s = SILL_OK;
    if (!sill__json_enter(&r->j, SILL__JSON_OBJECT)) return broken(r, err);
    while (s == SILL_OK && sill__json_next_member(&r->j, key, sizeof key, NULL)) {
        unsigned k = 0;
        while (k < SILL_ARRAY_LEN(fields) && strcmp(key, fields[k])) k++;
        if (k < SILL_ARRAY_LEN(fields) && seen >> k & 1)
            return sill__fail(err, SILL_EFORMAT, "%s: tensor %s has two fields %s", r->path, r->name.text,
                              fields[k]);
        seen |= 1u << k;
        s = k == 0   ? read_dtype(r, t, err)
            : k == 1 ? read_shape(r, t, err)
            : k == 2 ? read_offsets(r, at, err)
                     : SILL_OK; /* unknown fields are passed over */
    }
    if (s != SILL_OK) return s;
    if (r->j.message) return broken(r, err);
    for (unsigned k = 0; k < SILL_ARRAY_LEN(fields); k++)
        if (!(seen >> k & 1))
            return sill__fail(err, SILL_EFORMAT, "%s: tensor %s has no field %s", r->path, r->name.text,
                              fields[k]);
    return check_place(r, t, at, err);
}

static sill_status read_header(reader *r, sill_error *err) {
    sill__file *f = r->f;
    char name[SILL__MAX_NAME + 1];
    bool metadata = false;
    if (!sill__json_enter(&r->j, SILL__JSON_OBJECT)) return broken(r, err);
    for (size_t n; sill__json_next_member(&r->j, name, sizeof name, &n);) {
        sill__tensor *t;
        char *copy;
        sill_status s;
        r->name = sill__show(name, SILL_MIN(n, sizeof name - 1));
        if (n == 12 && !memcmp(name, "__metadata__", 12)) { /* free text about the file; not used */
            if (metadata)
                return sill__fail(err, SILL_EFORMAT, "%s: the header has two __metadata__", r->path);
            metadata = true;
            if (!sill__json_skip(&r->j)) return broken(r, err);
            continue;
        }
        if (n == 0 || n > SILL__MAX_NAME || memchr(name, 0, n))
            return sill__fail(err, SILL_EFORMAT,
                              "%s: the tensor name %s has %zu bytes, expected 1 to %u and no NUL among them",
                              r->path, r->name.text, n, SILL__MAX_NAME);
        if ((s = sill__file_reserve(f, 1, r->path, err)) != SILL_OK) return s;
        if (!(copy = sill__arena_alloc(&f->strings, n + 1)))
            return sill__fail(err, SILL_ENOMEM, "%s: no memory for the tensor names", r->path);
        memcpy(copy, name, n);
        t = &f->tensors[f->n_tensors];
        memset(t, 0, sizeof *t);
        t->name = copy;
        if ((s = read_tensor(r, t, err)) != SILL_OK) return s;
        f->n_tensors++;
    }
    return sill__json_finish(&r->j) ? SILL_OK : broken(r, err);
}

/* The tensors from FIRST on must cover the data exactly. */
static sill_status check_cover(const reader *r, size_t first, sill_error *err) {
    const sill__file *f = r->f;
    const uint8_t *data = r->map->data + r->data_at;
    size_t n = f->n_tensors - first;
    uint64_t at = 0;
    sill_status s = SILL_OK;
    sill__span *spans = sill__calloc(n, sizeof *spans);
    if (!spans) return sill__fail(err, SILL_ENOMEM, "%s: no memory for %zu tensors", r->path, n);
    for (size_t i = 0; i < n; i++) {
        const sill__tensor *t = &f->tensors[first + i];
        uint64_t begin = (uint64_t)(t->data - data);
        spans[i] = (sill__span){begin, begin + t->bytes, (uint32_t)(first + i)};
    }
    sill__sort_spans(spans, n);
    for (size_t i = 0; i < n && s == SILL_OK; at = spans[i++].end) {
        const char *name = f->tensors[spans[i].tensor].name;
        if (spans[i].begin != at)
            s = sill__fail(err, SILL_EFORMAT, "%s: tensor %s begins at byte %llu of the data, %s byte %llu",
                           r->path, sill__show(name, strlen(name)).text, (unsigned long long)spans[i].begin,
                           spans[i].begin < at ? "overlapping the one that ends at" : "leaving a hole behind",
                           (unsigned long long)at);
    }
    if (s == SILL_OK && at != r->data_bytes)
        s = sill__fail(err, SILL_EFORMAT,
                       "%s: the tensors end at byte %llu of the data, but the file has %zu bytes of data",
                       r->path, (unsigned long long)at, r->data_bytes);
    sill__free(spans);
    return s;
}

sill_status sill__safetensors_read(sill__file *f, const sill__map *map, const char *path, sill_error *err) {
    reader r = {.f = f, .map = map, .path = path};
    uint64_t n = 0;
    size_t first = f->n_tensors;
    if (map->bytes < 8)
        return sill__fail(err, SILL_EFORMAT,
                          "%s: %zu bytes are too few for a safetensors file (fetch it again)", path,
                          map->bytes);
    for (int i = 0; i < 8; i++) n |= (uint64_t)map->data[i] << (8 * i);
    if (n > MAX_HEADER)
        return sill__fail(err, SILL_EFORMAT, "%s: a header of %llu bytes, more than the limit of %u", path,
                          (unsigned long long)n, MAX_HEADER);
    if (n > map->bytes - 8)
        return sill__fail(err, SILL_EFORMAT,
                          "%s: a header of %llu bytes, but the file has only %zu; it is cut off or damaged "
                          "(fetch it again)",
                          path, (unsigned long long)n, map->bytes);
    r.data_at = 8 + (size_t)n;
    r.data_bytes = map->bytes - r.data_at;
    sill__str_init(&r.text, 64);
    sill__json_init(&r.j, (const char *)map->data + 8, (size_t)n);
    sill_status s = read_header(&r, err);
    if (s == SILL_OK) s = check_cover(&r, first, err);
    sill__str_free(&r.text);
    return s;
}
