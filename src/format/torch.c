/*
 * torch.c - checkpoints of torch.save: a ZIP archive (torch 1.6 and later) or pickles one behind the other, then the
 * storages (before). Both hold one pickle of what was saved; tensors in it are views of storages. A view that is stored row
 * by row, as nearly all are, is used where it is mapped; others are copied. What was saved is a state_dict, or nanoGPT's
 * dictionary with "model" and "model_args".
 */
#include <stdlib.h>

#include "format/internal.h"

#define PROTOCOL 1001       /* of the old format */
#define KEY_BYTES 64u       /* of a storage's name */

static const uint8_t old_magic[10] = {0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19};

typedef struct place { uint64_t at, bytes; } place;

/* A storage of the old format. */
typedef struct stored { const char *key; uint32_t n_key, element; bool there; place place; } stored;

typedef struct reader {
    sill__file *f;
    const sill__map *map;
    const char *path;
    sill__pickle k;
    sill__zip zip;          /* the new format */
    const char *root;       /* its members' directory, with the slash */
    size_t n_root;
    stored *stored;         /* the old format, by key */
    size_t n_stored;
    uint64_t copied;
} reader;

bool sill__torch_is(const sill__map *map) {
    const uint8_t *p = map->data;
    return (map->bytes >= 4 && !memcmp(p, "PK\3\4", 4)) ||
           (map->bytes >= 14 && p[0] == 0x80 && p[2] == 0x8a && p[3] == 10 && !memcmp(p + 4, old_magic, 10));
}

/* ---- where storages lie */

static sill_status member_stored(const reader *r, const sill__zip_member *m, sill_error *err) {
    return m->method == 0 ? SILL_OK
                          : sill__fail(err, SILL_EUNSUPPORTED, "%s: the member %s is compressed (method %u), which torch.save never does; "
                                       "unpack the archive and pack it again with zip -0 -r", r->path,
                                       sill__show(m->name, m->n_name).text, m->method);
}

static sill_status in_zip(const reader *r, const sill__py *key, place *out, sill_error *err) {
    char name[1024];
    if (key->n > KEY_BYTES || r->n_root + 5 + key->n > sizeof name)
        return sill__fail(err, SILL_EFORMAT, "%s: the storage %s has a name that is too long", r->path, sill__show(key->u.text, key->n).text);
    memcpy(name, r->root, r->n_root);
    memcpy(name + r->n_root, "data/", 5);
    memcpy(name + r->n_root + 5, key->u.text, key->n);
    const sill__zip_member *m = sill__zip_find(&r->zip, name, r->n_root + 5 + key->n);
    if (!m)
        return sill__fail(err, SILL_EFORMAT, "%s: the storage %s is not in the archive", r->path, sill__show(key->u.text, key->n).text);
    *out = (place){m->at, m->bytes};
    return member_stored(r, m, err);
}

static int by_key(const void *a, const void *b) {
    const stored *x = a, *y = b;
    int d = memcmp(x->key, y->key, SILL_MIN(x->n_key, y->n_key));
    return d ? d : x->n_key < y->n_key ? -1 : x->n_key > y->n_key;
}

static stored *old_storage(const reader *r, const sill__py *key) {
    const stored wanted = {.key = key->u.text, .n_key = key->n};
    return r->n_stored ? bsearch(&wanted, r->stored, r->n_stored, sizeof wanted, by_key) : NULL;
}

static sill_status in_old(const reader *r, const sill__py *key, place *out, sill_error *err) {
    const stored *s = old_storage(r, key);
    if (!s || !s->there)
        return sill__fail(err, SILL_EFORMAT, "%s: the storage %s is not in the file", r->path, sill__show(key->u.text, key->n).text);
    *out = s->place;
    return SILL_OK;
}

/* Where the storage's elements are: exactly as many as it says. */
static sill_status find_storage(const reader *r, const sill__py *storage, place *out, sill_error *err) {
    const sill__py *key = sill__py_at(&r->k, storage->u.storage.key);
    const uint32_t element = sill__type_get(storage->u.storage.type)->block_bytes;
    sill_status s = r->stored ? in_old(r, key, out, err) : in_zip(r, key, out, err);
    if (s == SILL_OK && (storage->n64 > UINT64_MAX / element || storage->n64 * element != out->bytes))
        s = sill__fail(err, SILL_EFORMAT, "%s: the storage %s has %llu bytes in the file, but its %llu elements of type %s need another "
                       "number", r->path, sill__show(key->u.text, key->n).text, (unsigned long long)out->bytes,
                       (unsigned long long)storage->n64, sill__type_get(storage->u.storage.type)->name);
    return s;
}

/* ---- tensors */

/* The last element's place plus one, in elements; false on overflow. */
static bool reach(const sill__py_tensor *t, uint64_t *out) {
    uint64_t at = (uint64_t)t->offset;
    for (int i = 0; i < t->n_dims; i++) {
        if (t->dims[i] == 0) {
            *out = 0;
            return true;
        }
        size_t step;
        if (!sill__mul((size_t)(t->dims[i] - 1), (size_t)t->strides[i], &step) || at + step < at) return false;
        at += step;
    }
    *out = at + 1;
    return at != UINT64_MAX;
}

static bool row_by_row(const sill__py_tensor *t) {
    int64_t step = 1;
    for (int i = t->n_dims; i-- > 0; step *= t->dims[i])
        if (t->dims[i] > 1 && t->strides[i] != step) return false;
    return true;
}

/* TO gets the elements in order; their number fits, and all of them are in the storage. */
static void gather(const sill__py_tensor *t, const uint8_t *from, size_t element, uint8_t *to) {
    int64_t at[SILL__PY_DIMS] = {0};
    const int last = t->n_dims - 1;
    uint64_t first = 0;
    for (;;) {
        for (int64_t i = 0; i < t->dims[last]; i++, to += element)
            memcpy(to, from + (first + (uint64_t)i * (uint64_t)t->strides[last]) * element, element);
        int k = last - 1;
        for (; k >= 0; k--) {
            first += (uint64_t)t->strides[k];
            if (++at[k] < t->dims[k]) break;
            first -= (uint64_t)t->dims[k] * (uint64_t)t->strides[k];
            at[k] = 0;
        }
        if (k < 0) return;
    }
}

/* Values of a tensor that is turned or picked from its storage. All copies together are no larger than the file, so that
 * a small file cannot ask for much memory. */
static sill_status copy_values(reader *r, const sill__py_tensor *t, const uint8_t *from, sill__tensor *out, sill_error *err) {
    uint8_t *p;
    if (out->bytes > r->map->bytes - r->copied)
        return sill__fail(err, SILL_EFORMAT, "%s: tensors that are not stored row by row (%s is the last) need more memory than the file has "
                          "bytes (%zu); save them with .contiguous()", r->path, sill__show(out->name, strlen(out->name)).text,
                          r->map->bytes);
    r->copied += out->bytes;
    sill_status s = sill__file_copy_new(r->f, r->path, out->bytes, &p, err);
    if (s != SILL_OK) return s;
    gather(t, from, sill__type_get(out->type)->block_bytes, p);
    out->data = p;
    out->map = NULL;
    return SILL_OK;
}

static sill_status add_tensor(reader *r, const char *name, size_t n, const sill__py *v, sill_error *err) {
    const sill__py_tensor *t = v->u.tensor;
    const sill__py *storage = sill__py_at(&r->k, t->storage);
    sill__tensor *out;
    place p;
    uint64_t end;
    sill_status s = sill__file_tensor_new(r->f, r->path, name, n, &out, err);
    if (s == SILL_OK) s = find_storage(r, storage, &p, err);
    if (s != SILL_OK) return s;
    const sill__shown shown = sill__show(name, n);
    if (t->n_dims > SILL__MAX_DIMS)
        return sill__fail(err, SILL_EUNSUPPORTED, "%s: tensor %s has more than %d dimensions", r->path, shown.text, SILL__MAX_DIMS);
    out->type = storage->u.storage.type;
    out->n_dims = t->n_dims;
    for (int i = 0; i < t->n_dims; i++) out->dims[i] = (uint64_t)t->dims[i];
    if (!sill__tensor_size(out->type, out->dims, out->n_dims, &out->bytes) || !reach(t, &end) || end > storage->n64)
        return sill__fail(err, SILL_EFORMAT, "%s: tensor %s reaches past the %llu elements of its storage", r->path, shown.text,
                          (unsigned long long)storage->n64);
    const size_t element = sill__type_get(out->type)->block_bytes;
    const uint8_t *from = r->map->data + p.at + (out->bytes ? (uint64_t)t->offset * element : 0);
    out->data = from;
    out->map = r->map;
    if (out->bytes && !row_by_row(t)) s = copy_values(r, t, from, out, err);
    if (s == SILL_OK) r->f->n_tensors++;
    return s;
}

static bool starts_with(const char **name, size_t *n, const char *prefix) {
    size_t k = strlen(prefix);
    if (*n < k || memcmp(*name, prefix, k)) return false;
    *name += k;
    *n -= k;
    return true;
}

/* Adds the tensors of a state_dict. What wraps a module (torch.compile, data parallelism) stands before the names. */
static sill_status add_tensors(reader *r, const sill__py *dict, size_t *n_tensors, sill_error *err) {
    sill_status s = SILL_OK;
    for (uint32_t i = 0; s == SILL_OK && i + 1 < dict->n; i += 2) {
        const sill__py *key = sill__py_at(&r->k, dict->u.items[i]), *v = sill__py_at(&r->k, dict->u.items[i + 1]);
        if (key->kind != SILL__PY_TEXT || v->kind != SILL__PY_TENSOR) continue;
        const char *name = key->u.text;
        size_t n = key->n;
        while (starts_with(&name, &n, "_orig_mod.") || starts_with(&name, &n, "module.")) {}
        s = add_tensor(r, name, n, v, err);
        if (s == SILL_OK) ++*n_tensors;
    }
    return s;
}

/* ---- nanoGPT */

static bool int_arg(const reader *r, const sill__py *args, const char *name, int64_t *out) {
    const sill__py *v = sill__py_get(&r->k, args, name);
    if (!v || v->kind != SILL__PY_INT || v->u.i < 1 || v->u.i > INT32_MAX) return false;
    *out = v->u.i;
    return true;
}

/* Its forks add switches of their own; one that is on changes the model. */
static sill_status refuse_args(const reader *r, const sill__py *args, sill_error *err) {
    static const char *const known[] = {"n_layer", "n_head", "n_embd", "block_size", "bias", "vocab_size", "dropout"};
    for (uint32_t i = 0; i + 1 < args->n; i += 2) {
        const sill__py *key = sill__py_at(&r->k, args->u.items[i]), *v = sill__py_at(&r->k, args->u.items[i + 1]);
        bool fine = (v->kind == SILL__PY_BOOL && !v->u.i) || v->kind == SILL__PY_NONE;
        for (size_t k = 0; key->kind == SILL__PY_TEXT && k < SILL_ARRAY_LEN(known); k++)
            fine = fine || (key->n == strlen(known[k]) && !memcmp(key->u.text, known[k], key->n));
        if (!fine)
            return sill__fail(err, SILL_EUNSUPPORTED, "%s: model_args has %s, which nanoGPT does not know: a model of another program, or of a "
                              "changed nanoGPT", r->path, key->kind == SILL__PY_TEXT ? sill__show(key->u.text, key->n).text : "a key that is no text");
    }
    return SILL_OK;
}

/* Zeros for a bias that the model has not: adding them changes nothing, and GPT-2 has one everywhere. */
static sill_status add_bias(reader *r, const uint8_t *zeros, int64_t layer, const char *name, int64_t n, sill_error *err) {
    sill__str s;
    sill__tensor *t;
    sill__str_init(&s, 96);
    if (layer < 0) sill__str_putf(&s, "transformer.%s.bias", name);
    else sill__str_putf(&s, "transformer.h.%lld.%s.bias", (long long)layer, name);
    sill_status st = s.failed ? sill__fail(err, SILL_ENOMEM, "%s: no memory for a name", r->path)
                              : sill__file_tensor_new(r->f, r->path, s.p, s.n, &t, err);
    sill__str_free(&s);
    if (st != SILL_OK) return st;
    t->n_dims = 1;
    t->dims[0] = (uint64_t)n;
    t->bytes = (size_t)n * 4;
    t->data = zeros;
    r->f->n_tensors++;
    return SILL_OK;
}

static sill_status add_biases(reader *r, int64_t n_layer, int64_t n_embd, sill_error *err) {
    static const struct { const char *name; int64_t times; } biases[] = {
        {"ln_1", 1}, {"attn.c_attn", 3}, {"attn.c_proj", 1}, {"ln_2", 1}, {"mlp.c_fc", 4}, {"mlp.c_proj", 1}};
    uint8_t *zeros;
    if (n_embd > 65536 || n_layer > 1024)
        return sill__fail(err, SILL_EFORMAT, "%s: model_args say %lld layers of width %lld, at most 1024 and 65536 can be", r->path,
                          (long long)n_layer, (long long)n_embd);
    sill_status s = sill__file_copy_new(r->f, r->path, (size_t)n_embd * 4 * sizeof(float), &zeros, err);
    for (int64_t i = 0; s == SILL_OK && i < n_layer; i++)
        for (size_t k = 0; s == SILL_OK && k < SILL_ARRAY_LEN(biases); k++)
            s = add_bias(r, zeros, i, biases[k].name, biases[k].times * n_embd, err);
    return s == SILL_OK ? add_bias(r, zeros, -1, "ln_f", n_embd, err) : s;
}

static sill_status read_nanogpt(reader *r, const sill__py *model, const sill__py *args, sill_error *err) {
    int64_t layers, heads, embd, ctx, vocab;
    size_t n = 0;
    const sill__py *bias = sill__py_get(&r->k, args, "bias");
    r->f->kind = SILL__FILE_NANOGPT;
    r->f->linear = true;
    if (!int_arg(r, args, "n_layer", &layers) || !int_arg(r, args, "n_head", &heads) || !int_arg(r, args, "n_embd", &embd) ||
        !int_arg(r, args, "block_size", &ctx) || !int_arg(r, args, "vocab_size", &vocab))
        return sill__fail(err, SILL_EFORMAT, "%s: model_args lack one of n_layer, n_head, n_embd, block_size, vocab_size as a number from 1 "
                          "up", r->path);
    sill_status s = refuse_args(r, args, err);
    if (s == SILL_OK) s = add_tensors(r, model, &n, err);
    if (s == SILL_OK && bias && bias->kind == SILL__PY_BOOL && !bias->u.i) s = add_biases(r, layers, embd, err);
    /* nn.GELU is the exact one; transformers calls it "gelu". */
    return s == SILL_OK ? sill__file_set_gpt2(r->f, layers, heads, embd, ctx, vocab, "gelu", err) : s;
}

/* ---- what was saved */

static sill_status read_saved(reader *r, sill_error *err) {
    const sill__py *top = sill__py_at(&r->k, r->k.top);
    const sill__py *model = sill__py_get(&r->k, top, "model"), *args = sill__py_get(&r->k, top, "model_args");
    size_t n = 0;
    if (model && args && model->kind == SILL__PY_DICT && args->kind == SILL__PY_DICT) return read_nanogpt(r, model, args, err);
    r->f->kind = SILL__FILE_TORCH;
    if (top->kind != SILL__PY_DICT)
        return sill__fail(err, SILL_EUNSUPPORTED, "%s: what was saved with torch is no dictionary of tensors (state_dict)", r->path);
    sill_status s = add_tensors(r, top, &n, err);
    if (s != SILL_OK || n) return s;
    const sill__py *key = top->n ? sill__py_at(&r->k, top->u.items[0]) : NULL;
    return sill__fail(err, SILL_EUNSUPPORTED, "%s: the dictionary that was saved with torch has neither tensors by name (a state_dict) nor "
                      "nanoGPT's \"model\" and \"model_args\"; its first key is %s", r->path,
                      key && key->kind == SILL__PY_TEXT ? sill__show(key->u.text, key->n).text : "not there");
}

/* ---- the two formats */

static sill_status read_zip(reader *r, sill_error *err) {
    size_t used;
    const sill__zip_member *pickle = NULL;
    char name[1024];
    sill_status s = sill__zip_read(&r->zip, r->map, r->path, err);
    if (s != SILL_OK) return s;
    for (size_t i = 0; i < r->zip.n; i++) {
        const sill__zip_member *m = &r->zip.members[i];
        const char *slash = memchr(m->name, '/', m->n_name);
        if (slash && sill__ends_with(m->name, m->n_name, "/data.pkl") && (size_t)(slash - m->name) == m->n_name - 9) pickle = m;
        else if (slash && sill__ends_with(m->name, m->n_name, "/constants.pkl") && (size_t)(slash - m->name) == m->n_name - 14)
            return sill__fail(err, SILL_EUNSUPPORTED, "%s holds a TorchScript program, not weights alone; save its state_dict", r->path);
    }
    if (!pickle)
        return sill__fail(err, SILL_EUNSUPPORTED, "%s is a ZIP archive, but not one of torch.save: it has no data.pkl", r->path);
    if ((s = member_stored(r, pickle, err)) != SILL_OK) return s;
    r->root = pickle->name;
    r->n_root = pickle->n_name - 8;
    if (r->n_root + 16 > sizeof name) return sill__fail(err, SILL_EFORMAT, "%s: the names in the archive are too long", r->path);
    memcpy(name, r->root, r->n_root);
    memcpy(name + r->n_root, "byteorder", 9);
    const sill__zip_member *order = sill__zip_find(&r->zip, name, r->n_root + 9);
    if (order && !(order->method == 0 && order->bytes == 6 && !memcmp(r->map->data + order->at, "little", 6)))
        return sill__fail(err, SILL_EUNSUPPORTED, "%s was saved on a big-endian machine", r->path);
    const uint8_t *p = r->map->data + pickle->at;
    if (sill__crc32(0, p, (size_t)pickle->bytes) != pickle->crc)
        return sill__fail(err, SILL_EFORMAT, "%s: the checksum of data.pkl is wrong; the file is damaged (fetch it again)", r->path);
    s = sill__pickle_read(&r->k, p, (size_t)pickle->bytes, r->path, &used, err);
    return s == SILL_OK ? read_saved(r, err) : s;
}

/* One of the small pickles at the head of the old format. *AT moves behind it. */
static sill_status read_head(const reader *r, size_t *at, sill__pickle *k, sill_error *err) {
    size_t used = 0;
    sill_status s = sill__pickle_read(k, r->map->data + *at, r->map->bytes - *at, r->path, &used, err);
    *at += used;
    return s;
}

/* The storages that the pickle names, by key: their types are told nowhere else. */
static sill_status list_stored(reader *r, sill_error *err) {
    size_t n = 0;
    for (size_t i = 0; i < r->k.n; i++) n += r->k.values[i].kind == SILL__PY_STORAGE;
    if (!(r->stored = sill__calloc(n + 1, sizeof *r->stored)))
        return sill__fail(err, SILL_ENOMEM, "%s: no memory for %zu storages", r->path, n);
    for (size_t i = 0; i < r->k.n; i++) {
        const sill__py *v = &r->k.values[i];
        if (v->kind != SILL__PY_STORAGE) continue;
        const sill__py *key = sill__py_at(&r->k, v->u.storage.key);
        r->stored[r->n_stored++] = (stored){.key = key->u.text, .n_key = key->n,
                                            .element = sill__type_get(v->u.storage.type)->block_bytes};
    }
    qsort(r->stored, r->n_stored, sizeof *r->stored, by_key);
    size_t kept = 0; /* a storage is named by every tensor that views it */
    for (size_t i = 0; i < r->n_stored; i++)
        if (!kept || by_key(&r->stored[i], &r->stored[kept - 1])) r->stored[kept++] = r->stored[i];
    r->n_stored = kept;
    return SILL_OK;
}

/* LIST holds the storages' keys; from AT on each is its number of elements, then those. */
static sill_status find_places(reader *r, const sill__pickle *list, size_t at, sill_error *err) {
    const sill__py *keys = sill__py_at(list, list->top);
    sill_status s = list_stored(r, err);
    if (s != SILL_OK) return s;
    if (keys->kind != SILL__PY_LIST) return sill__fail(err, SILL_EFORMAT, "%s: the storages' names are no list", r->path);
    for (uint32_t i = 0; i < keys->n; i++) {
        const sill__py *key = sill__py_at(list, keys->u.items[i]);
        uint64_t n = 0;
        if (key->kind != SILL__PY_TEXT) return sill__fail(err, SILL_EFORMAT, "%s: a storage's name is no text", r->path);
        const sill__shown shown = sill__show(key->u.text, key->n);
        stored *to = old_storage(r, key);
        if (!to || to->there)
            return sill__fail(err, SILL_EFORMAT, "%s: the storage %s %s", r->path, shown.text, to ? "comes twice" : "belongs to no tensor");
        if (r->map->bytes - at < 8)
            return sill__fail(err, SILL_EFORMAT, "%s: the storage %s is missing; the file is cut off (fetch it again)", r->path, shown.text);
        for (size_t b = 0; b < 8; b++) n |= (uint64_t)r->map->data[at + b] << 8 * b;
        at += 8;
        if (n > (r->map->bytes - at) / to->element)
            return sill__fail(err, SILL_EFORMAT, "%s: the storage %s has %llu elements, past the end of the file (fetch it again)", r->path,
                              shown.text, (unsigned long long)n);
        to->place = (place){at, n * to->element};
        to->there = true;
        at += (size_t)to->place.bytes;
    }
    return SILL_OK;
}

static sill_status read_old(reader *r, sill_error *err) {
    size_t at = 0;
    sill_status s = SILL_OK;
    for (int i = 0; s == SILL_OK && i < 3; i++) { /* the magic number, the protocol, what the machine was like */
        sill__pickle head;
        s = read_head(r, &at, &head, err);
        const sill__py *v = s == SILL_OK ? sill__py_at(&head, head.top) : NULL, *little = sill__py_get(&head, v, "little_endian");
        if (v && i == 1 && (v->kind != SILL__PY_INT || v->u.i != PROTOCOL))
            s = sill__fail(err, SILL_EUNSUPPORTED, "%s: an old PyTorch checkpoint of a protocol other than %d", r->path, PROTOCOL);
        if (i == 2 && little && !(little->kind == SILL__PY_BOOL && little->u.i))
            s = sill__fail(err, SILL_EUNSUPPORTED, "%s was saved on a big-endian machine", r->path);
        sill__pickle_free(&head);
    }
    if (s == SILL_OK) s = read_head(r, &at, &r->k, err);
    if (s != SILL_OK) return s;
    sill__pickle list;
    s = read_head(r, &at, &list, err);
    if (s == SILL_OK) s = find_places(r, &list, at, err);
    if (s == SILL_OK) s = read_saved(r, err);
    sill__pickle_free(&list);
    return s;
}

sill_status sill__torch_read(sill__file *f, const sill__map *map, const char *path, sill_error *err) {
    reader r = {.f = f, .map = map, .path = path};
    sill_status s = map->bytes > 2 && map->data[0] == 'P' ? read_zip(&r, err) : read_old(&r, err);
    sill__pickle_free(&r.k);
    sill__zip_free(&r.zip);
    sill__free(r.stored);
    return s;
}
