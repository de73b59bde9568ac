/*
 * write.c - see write.h: the file on its way, the rows of tensors as they are written, and the two formats
 * around them. Memory: a tile of rows.
 */
#include "format/write.h"

#include "format/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

/* ---- the file */

sill_status sill__out_adopt(int fd, const char *path, sill__out **out, sill_error *err) {
    sill__out *o = sill__calloc(1, sizeof *o);
    *out = NULL;
    if (!o || !(o->path = sill__strndup(path, strlen(path)))) {
        sill__free(o);
        close(fd);
        return sill__fail(err, SILL_ENOMEM, "no memory to write %s", path);
    }
    o->fd = fd;
    sill__sha256_init(&o->hash);
    *out = o;
    return SILL_OK;
}

sill_status sill__out_create(const char *path, sill__out **out, sill_error *err) {
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    *out = NULL;
    if (fd < 0) return sill__fail(err, errno == ENOENT ? SILL_ENOENT : SILL_EIO, "cannot create %s: %s", path, strerror(errno));
    sill_status s = sill__out_adopt(fd, path, out, err);
    if (s != SILL_OK) unlink(path);
    return s;
}

static sill_status drain(sill__out *o, const uint8_t *p, size_t n, sill_error *err) {
    const int why = sill__write_all(o->fd, p, n, NULL);
    return why ? sill__fail(err, SILL_EIO, "cannot write %s: %s", o->path, strerror(why)) : SILL_OK;
}

sill_status sill__out_put(sill__out *o, const void *bytes, size_t n, sill_error *err) {
    const uint8_t *p = bytes;
    o->n += n;
    sill__sha256_update(&o->hash, p, n);
    while (n > 0) {
        if (o->held == 0 && n >= sizeof o->buffer) return drain(o, p, n, err);
        size_t k = SILL_MIN(n, sizeof o->buffer - o->held);
        memcpy(o->buffer + o->held, p, k);
        o->held += k;
        p += k;
        n -= k;
        if (o->held < sizeof o->buffer) continue;
        sill_status s = drain(o, o->buffer, o->held, err);
        if (s != SILL_OK) return s;
        o->held = 0;
    }
    return SILL_OK;
}

sill_status sill__out_finish(sill__out *o, uint8_t digest[32], sill_error *err) {
    sill_status s = drain(o, o->buffer, o->held, err);
    if (s == SILL_OK && fsync(o->fd) != 0 && errno != EINVAL)
        s = sill__fail(err, SILL_EIO, "cannot write %s: %s", o->path, strerror(errno));
    if (s != SILL_OK) {
        sill__out_drop(o);
        return s;
    }
    if (close(o->fd) != 0) {
        s = sill__fail(err, SILL_EIO, "cannot write %s: %s", o->path, strerror(errno));
        unlink(o->path);
    }
    if (digest) sill__sha256_final(&o->hash, digest);
    sill__free(o->path);
    sill__free(o);
    return s;
}

void sill__out_drop(sill__out *o) {
    if (!o) return;
    close(o->fd);
    unlink(o->path);
    sill__free(o->path);
    sill__free(o);
}

sill_status sill__put_file(const char *path, const void *bytes, size_t n, sill_error *err) {
    sill__out *out;
    sill_status s = sill__out_create(path, &out, err);
    if (s != SILL_OK) return s;
    if ((s = sill__out_put(out, bytes, n, err)) == SILL_OK) return sill__out_finish(out, NULL, err);
    sill__out_drop(out);
    return s;
}

static sill_status pad(sill__out *o, uint64_t to, sill_error *err) {
    static const uint8_t zeros[64];
    sill_status s = SILL_OK;
    while (s == SILL_OK && o->n % to) s = sill__out_put(o, zeros, (size_t)SILL_MIN(to - o->n % to, sizeof zeros), err);
    return s;
}

/* ---- rows */

static uint64_t rows_of(const sill__copy *c) {
    uint64_t n = 1;
    for (int i = 0; i + 1 < c->n_dims; i++) n *= c->dims[i];
    return n;
}

static uint64_t cols_of(const sill__copy *c) { return c->n_dims ? c->dims[c->n_dims - 1] : 1; }

bool sill__copy_bytes(const sill__copy *c, size_t *bytes) {
    size_t n = sill__row_bytes(c->type, cols_of(c));
    if (n == 0 && cols_of(c) > 0) return false;
    for (int i = 0; i + 1 < c->n_dims; i++)
        if (c->dims[i] > SIZE_MAX || !sill__mul(n, (size_t)c->dims[i], &n)) return false;
    *bytes = n;
    return true;
}

/* Row R of the source that row R of the copy is. Rotation: halves (j, j + d/2) become neighbours (2j, 2j + 1). */
static uint64_t source_row(const sill__copy *c, uint64_t r, uint64_t n_rows) {
    if (!c->rotary_heads) return r;
    uint64_t d = n_rows / c->rotary_heads, in = r % d;
    return r - in + in / 2 + (in % 2) * (d / 2);
}

/* N rows from FIRST of the stored matrix (n_rows, cols) as f32. */
static void read_rows(const sill__copy *c, uint64_t first, uint64_t n, uint64_t n_rows, uint64_t cols, float *to, float *line) {
    const sill__tensor *t = c->src;
    if (!t) {
        memcpy(to, c->values + first * cols, (size_t)(n * cols) * sizeof *to);
        return;
    }
    if (!c->transposed) {
        size_t row = sill__row_bytes(t->type, cols);
        for (uint64_t i = 0; i < n; i++)
            sill__dequant(t->type, t->data + source_row(c, first + i, n_rows) * row, to + i * cols, (size_t)cols);
        return;
    }
    size_t element = sill__type_get(t->type)->block_bytes; /* plain types only */
    for (uint64_t k = 0; k < cols; k++) {
        sill__dequant(t->type, t->data + (k * n_rows + first) * element, line, (size_t)n);
        for (uint64_t i = 0; i < n; i++) to[i * cols + k] = line[i];
    }
}

static bool all_finite(const float *x, size_t n) {
    uint32_t bad = 0;
    for (size_t i = 0; i < n; i++) bad |= (sill__f32_bits(x[i]) & 0x7f800000u) == 0x7f800000u;
    return !bad;
}

static float greatest(const float *x, size_t n) {
    float max = 0;
    for (size_t i = 0; i < n; i++) {
        const float a = x[i] < 0 ? -x[i] : x[i];
        max = a > max ? a : max;
    }
    return max;
}

/* Halves to even, |v| up to 127 and a rounding. */
static int nearest(float v) {
    const float magic = 12582912.0f; /* 1.5 * 2^23: the sum has no fraction left */
    return (int)(v + magic - magic);
}

/* One row as it is written. False when the type cannot hold a value. */
static bool encode_row(const sill__copy *c, const float *x, uint64_t cols, uint8_t *to) {
    const size_t n = (size_t)cols;
    if (c->row_scales) {
        const float max = greatest(x, n), scale = max > 1e-35f ? 127.0f / max : 0;
        if (c->type == SILL__TYPE_F32) memcpy(to, &max, 4);
        else
            for (size_t i = 0; i < n; i++) to[i] = (uint8_t)(int8_t)nearest(x[i] * scale);
        return true;
    }
    if (c->type == SILL__TYPE_F32) {
        memcpy(to, x, n * 4);
    } else if (c->type == SILL__TYPE_F16 || c->type == SILL__TYPE_BF16) {
        for (size_t i = 0; i < n; i++) {
            uint16_t h = c->type == SILL__TYPE_F16 ? sill__f32_to_f16(x[i]) : sill__f32_to_bf16(x[i]);
            memcpy(to + 2 * i, &h, 2);
            if (c->type == SILL__TYPE_F16 && (h & 0x7c00) == 0x7c00) return false;
        }
    } else {
        sill__quantize(c->type, x, to, n);
        const size_t block = sill__type_get(c->type)->block_bytes;
        const bool minimum = c->type == SILL__TYPE_Q4_1;
        for (size_t b = 0; b < n / 32; b++)
            for (int k = 0; k <= minimum; k++)
                if ((to[b * block + 1 + 2 * (size_t)k] & 0x7c) == 0x7c) return false; /* infinite in half precision */
    }
    return true;
}

/* Stored bytes that need no change. */
static bool as_stored(const sill__copy *c) {
    return c->src && c->src->type == c->type && !c->transposed && !c->rotary_heads && !c->row_scales;
}

static sill_status convert(const sill__copy *c, sill__out *out, sill_error *err) {
    /* The scales are a vector: a row of the source each. */
    const bool scales = c->row_scales && c->type == SILL__TYPE_F32;
    const bool turned = c->rotary_heads && c->n_dims == 1; /* a bias: rows of one */
    const uint64_t n_rows = scales || turned ? c->dims[0] : rows_of(c);
    const uint64_t cols = scales ? c->src->dims[c->transposed ? 0 : 1] : turned ? 1 : cols_of(c);
    const size_t row = scales ? 4 : sill__row_bytes(c->type, cols);
    if (n_rows == 0 || cols == 0) return SILL_OK;
    if (row == 0 || (c->rotary_heads && n_rows % (2 * c->rotary_heads)) ||
        (c->src && sill__tensor_elements(c->src) != n_rows * cols) ||
        (c->src && sill__type_get(c->src->type)->block > 1 && (c->transposed || cols % sill__type_get(c->src->type)->block)))
        return sill__fail(err, SILL_EFORMAT, "tensor %s has a shape that does not fit the model", c->name);
    const uint64_t tile = SILL_MIN(SILL_MAX((uint64_t)(1 << 18) / cols, (uint64_t)16), n_rows);
    size_t bytes;
    sill_status s = SILL_OK;
    if (!sill__mul((size_t)tile, (size_t)cols * sizeof(float), &bytes))
        return sill__fail(err, SILL_ERANGE, "tensor %s is too large", c->name);
    float *x = sill__alloc(bytes), *line = sill__alloc((size_t)tile * sizeof *line);
    uint8_t *to = sill__alloc(row);
    if (!x || !line || !to) s = sill__fail(err, SILL_ENOMEM, "no memory to write tensor %s", c->name);
    for (uint64_t r = 0; s == SILL_OK && r < n_rows; r += tile) {
        uint64_t n = SILL_MIN(tile, n_rows - r);
        read_rows(c, r, n, n_rows, cols, x, line);
        if (!all_finite(x, (size_t)(n * cols)))
            s = sill__fail(err, SILL_EFORMAT, "tensor %s holds a value that is not a number or infinite: the weights are damaged", c->name);
        for (uint64_t i = 0; s == SILL_OK && i < n; i++) {
            if (!encode_row(c, x + i * cols, cols, to))
                s = sill__fail(err, SILL_ERANGE, "tensor %s holds a value that %s cannot", c->name, sill__type_get(c->type)->name);
            if (s == SILL_OK) s = sill__out_put(out, to, row, err);
        }
    }
    sill__free(to);
    sill__free(line);
    sill__free(x);
    return s;
}

sill_status sill__copy_write(const sill__copy *c, sill__out *out, sill_error *err) {
    sill_status s;
    if (c->row_format) s = sill__out_put(out, "", 1, err);
    else if (as_stored(c)) s = sill__out_put(out, c->src->data, c->src->bytes, err);
    else s = convert(c, out, err);
    if (c->src && c->src->map) sill__map_release(c->src->map, (size_t)(c->src->data - c->src->map->data), c->src->bytes);
    return s;
}

/* ---- GGUF */

static void put_u64(sill__str *s, uint64_t v) {
    uint8_t b[8];
    for (int i = 0; i < 8; i++) b[i] = (uint8_t)(v >> 8 * i);
    sill__str_put(s, b, 8);
}

void sill__gguf_put_u32(sill__gguf_head *h, uint32_t v) {
    const uint8_t b[4] = {(uint8_t)v, (uint8_t)(v >> 8), (uint8_t)(v >> 16), (uint8_t)(v >> 24)};
    sill__str_put(&h->text, b, 4);
}

void sill__gguf_put_string(sill__gguf_head *h, const char *s, size_t n) {
    put_u64(&h->text, n);
    sill__str_put(&h->text, s, n);
}

void sill__gguf_init(sill__gguf_head *h) {
    sill__str_init(&h->text, (size_t)1 << 30);
    h->n = 0;
}

static void key(sill__gguf_head *h, const char *name, sill__meta_kind kind) {
    sill__gguf_put_string(h, name, strlen(name));
    sill__gguf_put_u32(h, (uint32_t)kind); /* the kinds have GGUF's numbers */
    h->n++;
}

void sill__gguf_u32(sill__gguf_head *h, const char *name, uint32_t v) {
    key(h, name, SILL__META_U32);
    sill__gguf_put_u32(h, v);
}

void sill__gguf_f32(sill__gguf_head *h, const char *name, float v) {
    key(h, name, SILL__META_F32);
    sill__gguf_put_u32(h, sill__f32_bits(v));
}

void sill__gguf_bool(sill__gguf_head *h, const char *name, bool v) {
    key(h, name, SILL__META_BOOL);
    sill__str_put(&h->text, v ? "\1" : "", 1);
}

void sill__gguf_string(sill__gguf_head *h, const char *name, const char *s, size_t n) {
    key(h, name, SILL__META_STRING);
    sill__gguf_put_string(h, s, n);
}

void sill__gguf_array(sill__gguf_head *h, const char *name, sill__meta_kind element, uint64_t n) {
    key(h, name, SILL__META_ARRAY);
    sill__gguf_put_u32(h, (uint32_t)element);
    put_u64(&h->text, n);
}

void sill__gguf_meta(sill__gguf_head *h, const sill__meta *m) {
    if (m->kind == SILL__META_ARRAY) sill__gguf_array(h, m->key, m->element, m->n);
    else key(h, m->key, m->kind);
    if (m->kind == SILL__META_STRING) put_u64(&h->text, m->bytes);
    sill__str_put(&h->text, m->data, m->bytes);
}

static const int32_t gguf_types[SILL__TYPE_COUNT] = {
    [SILL__TYPE_F32] = 0, [SILL__TYPE_F16] = 1, [SILL__TYPE_BF16] = 30, [SILL__TYPE_Q4_0] = 2, [SILL__TYPE_Q4_1] = 3,
    [SILL__TYPE_Q5_0] = 6, [SILL__TYPE_Q5_1] = 7, [SILL__TYPE_Q8_0] = 8, [SILL__TYPE_Q4_K] = 12, [SILL__TYPE_Q5_K] = 13,
    [SILL__TYPE_Q6_K] = 14, [SILL__TYPE_I8] = 24, [SILL__TYPE_I16] = 25, [SILL__TYPE_I32] = 26, [SILL__TYPE_I64] = 27,
    [SILL__TYPE_F64] = 28, [SILL__TYPE_U8] = -1, [SILL__TYPE_BOOL] = -1,
};

sill_status sill__gguf_write(const sill__gguf_head *h, const sill__copy *copies, size_t n, sill__out *out, sill_error *err) {
    sill__gguf_head head;
    uint64_t at = 0;
    sill_status s = SILL_OK;
    sill__gguf_init(&head);
    sill__str_put(&head.text, "GGUF", 4);
    sill__gguf_put_u32(&head, 3);
    put_u64(&head.text, n);
    put_u64(&head.text, h->n);
    sill__str_put(&head.text, h->text.p, h->text.n);
    for (size_t i = 0; s == SILL_OK && i < n; i++) {
        const sill__copy *c = &copies[i];
        size_t bytes;
        if (gguf_types[c->type] < 0 || !sill__copy_bytes(c, &bytes)) {
            s = sill__fail(err, SILL_EUNSUPPORTED, "tensor %s does not fit a GGUF as %s", c->name, sill__type_get(c->type)->name);
            break;
        }
        sill__gguf_put_string(&head, c->name, strlen(c->name));
        sill__gguf_put_u32(&head, (uint32_t)c->n_dims);
        for (int k = c->n_dims - 1; k >= 0; k--) put_u64(&head.text, c->dims[k]);
        sill__gguf_put_u32(&head, (uint32_t)gguf_types[c->type]);
        put_u64(&head.text, at);
        at += ((uint64_t)bytes + 31) & ~(uint64_t)31;
    }
    if (s == SILL_OK && (head.text.failed || h->text.failed)) s = sill__fail(err, SILL_ENOMEM, "no memory for the metadata");
    if (s == SILL_OK) s = sill__out_put(out, head.text.p, head.text.n, err);
    sill__str_free(&head.text);
    if (s == SILL_OK) s = pad(out, 32, err);
    for (size_t i = 0; s == SILL_OK && i < n; i++) {
        s = sill__copy_write(&copies[i], out, err);
        if (s == SILL_OK) s = pad(out, 32, err);
    }
    return s;
}

/* ---- safetensors */

sill_status sill__safetensors_write(const sill__copy *copies, size_t n, sill__out *out, sill_error *err) {
    static const uint8_t spaces[8] = "       ";
    sill__str head, size;
    uint64_t at = 0;
    sill_status s = SILL_OK;
    sill__str_init(&head, (size_t)100 << 20);
    sill__str_init(&size, 8);
    sill__str_puts(&head, "{\"__metadata__\":{\"format\":\"pt\"}");
    for (size_t i = 0; s == SILL_OK && i < n; i++) {
        const sill__copy *c = &copies[i];
        size_t bytes;
        if (!sill__copy_bytes(c, &bytes) || sill__type_get(c->type)->block > 1) {
            s = sill__fail(err, SILL_EUNSUPPORTED, "tensor %s does not fit safetensors as %s", c->name, sill__type_get(c->type)->name);
            break;
        }
        for (const char *p = c->name; *p; p++) /* names of tensors that models are made of: no character to escape */
            if ((unsigned char)*p < ' ' || *p == '"' || *p == '\\')
                s = sill__fail(err, SILL_EUNSUPPORTED, "tensor %s: its name holds a control character or a quote", c->name);
        sill__str_putf(&head, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[", c->name, sill__type_get(c->type)->name);
        for (int k = 0; k < c->n_dims; k++) sill__str_putf(&head, "%s%llu", k ? "," : "", (unsigned long long)c->dims[k]);
        sill__str_putf(&head, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)at, (unsigned long long)(at + bytes));
        at += bytes;
    }
    sill__str_puts(&head, "}");
    sill__str_put(&head, spaces, (8 - head.n % 8) % 8);
    put_u64(&size, head.n);
    if (s == SILL_OK && (head.failed || size.failed)) s = sill__fail(err, SILL_ENOMEM, "no memory for the names of the tensors");
    if (s == SILL_OK) s = sill__out_put(out, size.p, size.n, err);
    if (s == SILL_OK) s = sill__out_put(out, head.p, head.n, err);
    sill__str_free(&size);
    sill__str_free(&head);
    for (size_t i = 0; s == SILL_OK && i < n; i++) s = sill__copy_write(&copies[i], out, err);
    return s;
}

/* ---- hash */

void sill__file_hash(const sill__file *f, uint8_t digest[32], uint64_t *bytes) {
    sill__sha256 h;
    *bytes = 0;
    sill__sha256_init(&h);
    for (size_t i = 0; i < f->n_maps; i++) {
        sill__sha256_update(&h, f->maps[i].data, f->maps[i].bytes);
        sill__map_release(&f->maps[i], 0, f->maps[i].bytes);
        *bytes += f->maps[i].bytes;
    }
    sill__sha256_final(&h, digest);
}
