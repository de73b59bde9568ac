/*
 * write.h - writing checkpoints: GGUF and safetensors, tensor by tensor in constant memory. What is
 * written depends on the input alone: the same bytes on every run.
 */
#ifndef SILL_FORMAT_WRITE_H
#define SILL_FORMAT_WRITE_H

#include "format/format.h"

/* ---- a file on its way: everything is appended; hashed as it goes. */
typedef struct sill__out {
    int fd;
    char *path;
    uint64_t n;            /* bytes so far */
    sill__sha256 hash;
    size_t held;
    uint8_t buffer[1 << 16];
} sill__out;
/* Creates PATH, which must not exist. *out is the caller's: sill__out_finish or sill__out_drop. */
sill_status sill__out_create(const char *path, sill__out **out, sill_error *err);
/* The same into FD, an empty file open for writing at PATH; FD is closed in any case. */
sill_status sill__out_adopt(int fd, const char *path, sill__out **out, sill_error *err);
sill_status sill__out_put(sill__out *o, const void *bytes, size_t n, sill_error *err);
/* Writes what is held, asks the system to keep it, closes, frees. DIGEST may be NULL. */
sill_status sill__out_finish(sill__out *o, uint8_t digest[32], sill_error *err);
/* Closes, removes the file, frees. NULL is allowed. */
void sill__out_drop(sill__out *o);
/* A new file of these bytes. */
sill_status sill__put_file(const char *path, const void *bytes, size_t n, sill_error *err);

/* ---- tensors */

/* A tensor to be written: the rows of a stored one, as TYPE, turned around on the way. */
typedef struct sill__copy {
    char name[128];
    sill__type type;
    int n_dims;
    uint64_t dims[SILL__MAX_DIMS]; /* as written, outermost first */
    const sill__tensor *src;       /* NULL: values */
    bool transposed;               /* src is (cols, rows) */
    uint64_t rotary_heads;         /* > 0: rows of a head go from halves to adjacent pairs, as GGUF's rotation has them */
    const float *values;           /* of a vector that no file has */
    bool row_scales;               /* F32 vector: the greatest magnitude of each row of src; I8: rounded by it */
    bool row_format;               /* U8 scalar 0: bitsandbytes' weight_format "row" */
} sill__copy;
/* Bytes as written; false when it overflows or rows are no whole blocks. */
bool sill__copy_bytes(const sill__copy *c, size_t *bytes);
/* Appends it. A value that is not finite is EFORMAT, the tensor named. */
sill_status sill__copy_write(const sill__copy *c, sill__out *out, sill_error *err);

/* ---- GGUF (version 3, alignment 32) */
typedef struct sill__gguf_head { sill__str text; uint64_t n; } sill__gguf_head;
void sill__gguf_init(sill__gguf_head *h);
void sill__gguf_u32(sill__gguf_head *h, const char *key, uint32_t v);
void sill__gguf_f32(sill__gguf_head *h, const char *key, float v);
void sill__gguf_bool(sill__gguf_head *h, const char *key, bool v);
void sill__gguf_string(sill__gguf_head *h, const char *key, const char *s, size_t n);
void sill__gguf_meta(sill__gguf_head *h, const sill__meta *m); /* as it stands */
/* An array: its head, then elements with the two calls below (or sill__str_put of plain ones). */
void sill__gguf_array(sill__gguf_head *h, const char *key, sill__meta_kind element, uint64_t n);
void sill__gguf_put_u32(sill__gguf_head *h, uint32_t v);
void sill__gguf_put_string(sill__gguf_head *h, const char *s, size_t n);
sill_status sill__gguf_write(const sill__gguf_head *h, const sill__copy *copies, size_t n, sill__out *out,
                             sill_error *err);

/* ---- safetensors: one file, the tensors in the order given */
sill_status sill__safetensors_write(const sill__copy *copies, size_t n, sill__out *out, sill_error *err);

/* SHA-256 over the files of weights, shards one behind the other, and their size. Their pages are given back. */
void sill__file_hash(const sill__file *file, uint8_t digest[32], uint64_t *bytes);

#endif
