/*
 * bundle.c - TensorFlow's checkpoints (version 2), as OpenAI published GPT-2 in: PREFIX.index, a sorted table of names in the
 * format of LevelDB's, whose values are protocol buffers that tell type, shape, place and checksum of a tensor in
 * PREFIX.data-NNNNN-of-NNNNN; and hparams.json beside them. Names become transformers'; every tensor that is known is checked
 * against its checksum.
 */
#include <stdio.h>

#include "base/json.h"
#include "format/internal.h"

#define FOOTER_BYTES 48u
#define TRAILER_BYTES 5u     /* of a block: compression, checksum */
#define MAX_HPARAMS ((size_t)1 << 20)

static const uint8_t magic[8] = {0x57, 0xfb, 0x80, 0x8b, 0x24, 0x75, 0x47, 0xdb};

bool sill__bundle_is(const sill__map *map) {
    return map->bytes >= FOOTER_BYTES && !memcmp(map->data + map->bytes - 8, magic, 8);
}

typedef struct bytes { const uint8_t *p, *end; } bytes;

typedef struct reader {
    sill__file *f;
    const sill__map *map;    /* of the index; data files follow it */
    const char *path;
    char key[SILL__MAX_NAME + 1];
    size_t n_key;
    uint32_t n_shards;       /* 0: the header has not come yet */
    bool maps_open;
    uint64_t block_at;       /* blocks of entries come one behind the other: none is read twice */
    uint64_t left;           /* bytes of the data files of which no variable is yet: each is summed once */
    sill_error *err;
} reader;

static sill_status damaged(const reader *r, const char *what) {
    return sill__fail(r->err, SILL_EFORMAT, "%s: %s; the file is damaged (fetch it again)", r->path, what);
}

/* ---- numbers */

static bool varint(bytes *b, uint64_t *out) {
    *out = 0;
    for (unsigned shift = 0; shift < 64 && b->p < b->end; shift += 7) {
        const uint8_t c = *b->p++;
        *out |= (uint64_t)(c & 127) << shift;
        if (c < 128) return true;
    }
    return false;
}

static uint32_t fixed32(const uint8_t *p) { return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24; }

/* Checksums are kept turned, so that a checksum of data with checksums in them is a good one. */
static uint32_t masked(uint32_t crc) { return (crc >> 15 | crc << 17) + 0xa282ead8u; }

/* ---- protocol buffers: one field; false at the end, or with b->p NULL when they are broken */

typedef struct field { uint32_t number, wire; uint64_t value; bytes inside; } field;

static bool next_field(bytes *b, field *f) {
    uint64_t tag, n;
    if (b->p == b->end) return false;
    if (!varint(b, &tag) || tag >> 3 == 0 || tag >> 3 > 1u << 29) goto broken;
    *f = (field){.number = (uint32_t)(tag >> 3), .wire = (uint32_t)(tag & 7)};
    switch (f->wire) {
    case 0:
        if (!varint(b, &f->value)) goto broken;
        return true;
    case 1: case 5:
        n = f->wire == 1 ? 8 : 4;
        if ((uint64_t)(b->end - b->p) < n) goto broken;
        f->value = fixed32(b->p);
        b->p += n;
        return true;
    case 2:
        if (!varint(b, &n) || (uint64_t)(b->end - b->p) < n) goto broken;
        f->inside = (bytes){b->p, b->p + n};
        b->p += n;
        return true;
    default: break;
    }
broken:
    b->p = NULL;
    return false;
}

/* ---- blocks of the table */

typedef sill_status (*entry_fn)(reader *r, bytes value);

/* The block at AT: entries whose keys share their beginnings; FN is called for each. */
static sill_status walk_block(reader *r, uint64_t at, uint64_t n, entry_fn fn) {
    const uint64_t most = r->map->bytes - FOOTER_BYTES;
    if (at > most || n > most - at || most - at - n < TRAILER_BYTES || n < 4) return damaged(r, "a block of the index lies outside it");
    const uint8_t *p = r->map->data + at;
    if (masked(sill__crc32c(0, p, (size_t)n + 1)) != fixed32(p + n + 1)) return damaged(r, "the checksum of a block of the index is wrong");
    if (p[n] != 0)
        return sill__fail(r->err, SILL_EUNSUPPORTED, "%s: a block of the index is compressed (method %d)", r->path, p[n]);
    const uint64_t restarts = fixed32(p + n - 4);
    if (restarts > (n - 4) / 4) return damaged(r, "a block of the index has more restarts than bytes");
    bytes b = {p, p + n - 4 - 4 * restarts};
    sill_status s = SILL_OK;
    for (r->n_key = 0; s == SILL_OK && b.p < b.end;) {
        uint64_t shared, more, value;
        if (!varint(&b, &shared) || !varint(&b, &more) || !varint(&b, &value) || shared > r->n_key || more > SILL__MAX_NAME - shared ||
            (uint64_t)(b.end - b.p) < more || (uint64_t)(b.end - b.p) - more < value)
            return damaged(r, "an entry of the index is no entry");
        memcpy(r->key + shared, b.p, (size_t)more);
        r->n_key = (size_t)(shared + more);
        r->key[r->n_key] = 0;
        s = fn(r, (bytes){b.p + more, b.p + more + value});
        b.p += more + value;
    }
    return s;
}

/* ---- what entries mean */

static bool take(const char **s, const char *head) {
    size_t n = strlen(head);
    if (strncmp(*s, head, n)) return false;
    *s += n;
    return true;
}

/* "model/h3/attn/c_attn/w" -> "transformer.h.3.attn.c_attn.weight"; false for other variables. */
static bool hub_name(const char *key, char *out, size_t cap) {
    static const char *const inside[] = {"ln_1", "ln_2", "attn/c_attn", "attn/c_proj", "mlp/c_fc", "mlp/c_proj"};
    const char *s = key;
    if (!take(&s, "model/")) return false;
    if (!strcmp(s, "wte") || !strcmp(s, "wpe")) return snprintf(out, cap, "transformer.%s.weight", s) > 0;
    if (take(&s, "ln_f/")) return (!strcmp(s, "g") || !strcmp(s, "b")) && snprintf(out, cap, "transformer.ln_f.%s", *s == 'g' ? "weight" : "bias") > 0;
    if (!take(&s, "h")) return false;
    size_t digits = strspn(s, "0123456789");
    if (digits == 0 || digits > 4 || s[digits] != '/') return false;
    const char *rest = s + digits + 1;
    for (size_t i = 0; i < SILL_ARRAY_LEN(inside); i++) {
        const char *last = rest;
        if (!take(&last, inside[i]) || *last++ != '/') continue;
        if (strcmp(last, i < 2 ? "g" : "w") && strcmp(last, "b")) return false;
        int n = snprintf(out, cap, "transformer.h.%.*s.%s.%s", (int)digits, s, inside[i], *last == 'b' ? "bias" : "weight");
        for (char *p = out; *p; p++)
            if (*p == '/') *p = '.';
        return n > 0 && (size_t)n < cap;
    }
    return false;
}

static bool type_of(uint64_t number, sill__type *type) {
    static const struct { uint64_t number; sill__type type; } types[] = {
        {1, SILL__TYPE_F32}, {2, SILL__TYPE_F64}, {3, SILL__TYPE_I32}, {4, SILL__TYPE_U8}, {5, SILL__TYPE_I16}, {6, SILL__TYPE_I8},
        {9, SILL__TYPE_I64}, {10, SILL__TYPE_BOOL}, {14, SILL__TYPE_BF16}, {19, SILL__TYPE_F16}};
    for (size_t i = 0; i < SILL_ARRAY_LEN(types); i++)
        if (types[i].number == number) {
            *type = types[i].type;
            return true;
        }
    return false;
}

typedef struct entry {
    uint64_t type, shard, offset, size;
    uint32_t crc;
    bool sliced;
    int n_dims;              /* -1: more than are supported */
    uint64_t dims[SILL__MAX_DIMS];
} entry;

static bool read_shape(bytes b, entry *e) {
    field f, d;
    while (next_field(&b, &f)) {
        if (f.number != 2 || f.wire != 2) continue;
        uint64_t size = 0;
        bytes in = f.inside;
        while (next_field(&in, &d))
            if (d.number == 1 && d.wire == 0) size = d.value;
        if (!in.p || size > INT64_MAX) return false;
        if (e->n_dims < 0 || e->n_dims == SILL__MAX_DIMS) e->n_dims = -1;
        else e->dims[e->n_dims++] = size;
    }
    return b.p != NULL;
}

static bool read_entry(bytes b, entry *e) {
    field f;
    memset(e, 0, sizeof *e);
    while (next_field(&b, &f)) {
        if (f.number == 1 && f.wire == 0) e->type = f.value;
        else if (f.number == 2 && f.wire == 2 && !read_shape(f.inside, e)) return false;
        else if (f.number == 3 && f.wire == 0) e->shard = f.value;
        else if (f.number == 4 && f.wire == 0) e->offset = f.value;
        else if (f.number == 5 && f.wire == 0) e->size = f.value;
        else if (f.number == 6 && f.wire == 5) e->crc = (uint32_t)f.value;
        else if (f.number == 7) e->sliced = true;
    }
    return b.p != NULL;
}

static sill_status read_header(reader *r, bytes b) {
    field f;
    uint64_t shards = 1, endian = 0;
    while (next_field(&b, &f))
        if (f.wire == 0 && f.number == 1) shards = f.value;
        else if (f.wire == 0 && f.number == 2) endian = f.value;
    if (!b.p) return damaged(r, "the header is no header");
    if (endian) return sill__fail(r->err, SILL_EUNSUPPORTED, "%s was saved on a big-endian machine", r->path);
    if (shards < 1 || shards > SILL__MAX_SHARDS)
        return sill__fail(r->err, SILL_EFORMAT, "%s: %llu data files, expected 1 to %u", r->path, (unsigned long long)shards, SILL__MAX_SHARDS);
    r->n_shards = (uint32_t)shards;
    return SILL_OK;
}

static sill_status add_tensor(reader *r, const entry *e) {
    char name[SILL__MAX_NAME + 1];
    sill__tensor *t;
    sill__type type;
    const sill__shown shown = sill__show(r->key, r->n_key);
    const bool known = !memchr(r->key, 0, r->n_key) && hub_name(r->key, name, sizeof name);
    if (!type_of(e->type, &type) || e->sliced || e->n_dims < 0) /* texts, what is cut up: not of a model, and not kept */
        return known ? sill__fail(r->err, SILL_EUNSUPPORTED, "%s: variable %s is cut into slices, or has the type %llu, or too many "
                                  "dimensions", r->path, shown.text, (unsigned long long)e->type) : SILL_OK;
    sill_status s = sill__file_tensor_new(r->f, r->path, known ? name : r->key, known ? strlen(name) : r->n_key, &t, r->err);
    if (s != SILL_OK) return s;
    if (e->shard >= r->n_shards)
        return sill__fail(r->err, SILL_EFORMAT, "%s: variable %s is in data file %llu of %u", r->path, shown.text,
                          (unsigned long long)e->shard, r->n_shards);
    const sill__map *map = &r->f->maps[1 + e->shard];
    t->type = type;
    t->n_dims = e->n_dims;
    memcpy(t->dims, e->dims, sizeof t->dims);
    if (!sill__tensor_size(t->type, t->dims, t->n_dims, &t->bytes) || t->bytes != e->size || e->offset > map->bytes ||
        e->size > map->bytes - e->offset)
        return sill__fail(r->err, SILL_EFORMAT, "%s: variable %s (%llu bytes from byte %llu on) is not in its data file of %zu bytes, or does "
                          "not fit its shape; a file is cut off or damaged (fetch it again)", r->path, shown.text,
                          (unsigned long long)e->size, (unsigned long long)e->offset, map->bytes);
    if (known && t->bytes > r->left)
        return sill__fail(r->err, SILL_EFORMAT, "%s: the variables (%s is the last) have more bytes than the data files: some overlap; the file "
                          "is damaged (fetch it again)", r->path, shown.text);
    if (known) r->left -= t->bytes;
    t->data = map->data + e->offset;
    t->map = map;
    if (known && t->n_dims == 3 && t->dims[0] == 1) { /* a convolution of width 1 */
        t->n_dims = 2;
        t->dims[0] = t->dims[1];
        t->dims[1] = t->dims[2];
    }
    if (known && masked(sill__crc32c(0, t->data, t->bytes)) != e->crc)
        return sill__fail(r->err, SILL_EFORMAT, "%s: the checksum of variable %s is wrong; the data file is damaged (fetch it again)",
                          r->path, shown.text);
    if (known) sill__map_release(map, (size_t)e->offset, t->bytes);
    r->f->n_tensors++;
    return SILL_OK;
}

static sill_status visit(reader *r, bytes value) {
    entry e;
    if (r->n_key == 0) return r->n_shards ? damaged(r, "two headers") : read_header(r, value);
    if (r->n_shards == 0) return damaged(r, "no header in the index");
    if (!r->maps_open) return SILL_OK;
    if (!read_entry(value, &e)) return damaged(r, "an entry is no description of a variable");
    return add_tensor(r, &e);
}

static sill_status visit_block(reader *r, bytes handle) {
    uint64_t at, n;
    char key[sizeof r->key];
    const size_t n_key = r->n_key;
    if (!varint(&handle, &at) || !varint(&handle, &n)) return damaged(r, "a block's place is no place");
    if (at < r->block_at) return damaged(r, "blocks of the index overlap");
    r->block_at = at + n;
    memcpy(key, r->key, sizeof key); /* keys of the index share their beginnings too */
    sill_status s = walk_block(r, at, n, visit);
    memcpy(r->key, key, sizeof key);
    r->n_key = n_key;
    return s;
}

/* All entries: first for the header alone, then, the data files open, for the variables. */
static sill_status walk(reader *r) {
    bytes b = {r->map->data + r->map->bytes - FOOTER_BYTES, r->map->data + r->map->bytes - 8};
    uint64_t at, n;
    if (!varint(&b, &at) || !varint(&b, &n) || !varint(&b, &at) || !varint(&b, &n)) return damaged(r, "the footer is no footer");
    r->n_shards = 0;
    r->block_at = 0;
    sill_status s = walk_block(r, at, n, visit_block);
    return s == SILL_OK && r->n_shards == 0 ? damaged(r, "no header in the index") : s;
}

static sill_status read_hparams(reader *r, const char *dir) {
    static const char *const names[] = {"n_layer", "n_head", "n_embd", "n_ctx", "n_vocab"};
    char path[SILL__MAX_PATH], *text = NULL;
    int64_t v[5];
    size_t n;
    if (!sill__path_join(path, sizeof path, dir, "hparams.json")) return sill__fail(r->err, SILL_ERANGE, "%s: the path is too long", dir);
    if (!sill__is_file(path))
        return sill__fail(r->err, SILL_ENOENT, "%s: there is no hparams.json beside it, which tells the model's sizes (OpenAI published it with "
                          "the checkpoint)", r->path);
    sill_status s = sill__read_file(path, MAX_HPARAMS, &text, &n, r->err);
    for (size_t i = 0; s == SILL_OK && i < SILL_ARRAY_LEN(names); i++) {
        sill__json j;
        sill__json_init(&j, text, n);
        if (!sill__json_find(&j, names[i], (char *)NULL) || !sill__json_int(&j, &v[i]) || v[i] < 1 || v[i] > INT32_MAX)
            s = j.message ? sill__json_fail(&j, path, r->err)
                          : sill__fail(r->err, SILL_EFORMAT, "%s: %s is not there, or no number from 1 up", path, names[i]);
    }
    sill__free(text);
    if (s != SILL_OK) return s;
    return sill__file_set_gpt2(r->f, v[0], v[1], v[2], v[3], v[4], "gelu_new", r->err);
}

sill_status sill__bundle_read(sill__file *f, const char *path, const char *dir, sill_error *err) {
    char data[SILL__MAX_PATH];
    reader r = {.f = f, .map = &f->maps[0], .path = path, .err = err};
    const size_t n = strlen(path), tail = strlen(".index");
    f->kind = SILL__FILE_TENSORFLOW;
    sill_status s = walk(&r);
    if (s != SILL_OK) return s;
    if (n <= tail || strcmp(path + n - tail, ".index") || n + 32 > sizeof data)
        return sill__fail(err, SILL_EUNSUPPORTED, "%s is the index of a TensorFlow checkpoint, but its name does not end in .index, from which "
                          "those of its data files follow", path);
    if (f->n_maps > 1 && r.n_shards != f->n_maps - 1) return damaged(&r, "another number of data files than there are"); /* in memory */
    sill__map *maps = sill__realloc(f->maps, (1 + (size_t)r.n_shards) * sizeof *maps);
    if (!maps) return sill__fail(err, SILL_ENOMEM, "%s: no memory for %u files", path, r.n_shards);
    f->maps = maps;
    r.map = &maps[0];
    for (uint32_t i = 0; s == SILL_OK && f->n_maps <= r.n_shards; i++) {
        snprintf(data, sizeof data, "%.*s.data-%05u-of-%05u", (int)(n - tail), path, i, r.n_shards);
        s = sill__is_file(data) ? sill__map_open(data, &maps[f->n_maps], err)
                                : sill__fail(err, SILL_ENOENT, "%s: there is no %s beside it", path, data);
        if (s == SILL_OK) f->n_maps++;
    }
    r.maps_open = true;
    for (size_t i = 1; s == SILL_OK && i < f->n_maps; i++) r.left += maps[i].bytes;
    if (s == SILL_OK) s = walk(&r);
    return s == SILL_OK ? read_hparams(&r, dir) : s;
}
