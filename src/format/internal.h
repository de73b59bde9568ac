/*
 * internal.h - what the readers of src/format share: the open file and the checks common to them. Every
 * reader gets a whole map and never looks outside it.
 */
#ifndef SILL_FORMAT_INTERNAL_H
#define SILL_FORMAT_INTERNAL_H

#include "format/format.h"

#define SILL__MAX_TENSORS 65536u  /* of a model, over all shards */
#define SILL__MAX_META 65536u
#define SILL__MAX_SHARDS 1000u
#define SILL__MAX_NAME 511u       /* bytes of a tensor's name */
#define SILL__MAX_KEY 65535u      /* bytes of a GGUF key, as its specification says */
#define SILL__MAX_PATH 4096u

/* Open addressing over names: a slot holds 1 + the item's number, 0 is empty. */
typedef struct sill__names { uint32_t *slots; size_t mask; } sill__names;

struct sill__file {
    sill__file_kind kind;
    char *path, *dir;
    sill__map *maps;   /* one a shard; never moved, tensors point at them */
    size_t n_maps;
    sill__tensor *tensors;
    size_t n_tensors, cap_tensors;
    sill__meta *meta;
    size_t n_meta;
    sill__names tensor_names, meta_names;
    sill__arena strings;
    char *config;      /* config.json in transformers' words, where the file itself tells it; NULL */
    bool linear;       /* GPT-2's matrices are (outputs, inputs), not as Conv1D has them */
    uint8_t **copies;  /* values of tensors that are not stored row by row */
    size_t n_copies;
};

/* Bytes of the tensor with these dims; false when the number overflows or a row is no whole blocks. */
bool sill__tensor_size(sill__type type, const uint64_t *dims, int n_dims, size_t *bytes);

/* Room for N tensors more. */
sill_status sill__file_reserve(sill__file *f, size_t n, const char *path, sill_error *err);
/* Hash tables over the names; a name that comes twice is refused. */
sill_status sill__file_index(sill__file *f, sill_error *err);

/* A stretch of the data section, for the check that none overlaps another. */
typedef struct sill__span { uint64_t begin, end; uint32_t tensor; } sill__span;
void sill__sort_spans(sill__span *spans, size_t n);

/* S for a message: at most 63 characters, control characters and bytes that are not ASCII as '?'. */
typedef struct sill__shown { char text[68]; } sill__shown;
sill__shown sill__show(const char *s, size_t n);

/* One tensor more, of this name of N bytes, zeros but for the name; the reader fills it and then adds one to n_tensors. */
sill_status sill__file_tensor_new(sill__file *f, const char *path, const char *name, size_t n, sill__tensor **out, sill_error *err);
/* BYTES bytes that live as the file. */
sill_status sill__file_copy_new(sill__file *f, const char *path, size_t bytes, uint8_t **out, sill_error *err);
/* f->config of GPT-2 with these sizes; ACT in transformers' words. */
sill_status sill__file_set_gpt2(sill__file *f, int64_t n_layer, int64_t n_head, int64_t n_embd, int64_t n_ctx, int64_t n_vocab,
                                const char *act, sill_error *err);

/* The readers: add the tensors of MAP (file PATH) to F. They do not free F on failure. */
sill_status sill__safetensors_read(sill__file *f, const sill__map *map, const char *path, sill_error *err);
sill_status sill__gguf_read(sill__file *f, const sill__map *map, const char *path, sill_error *err);
/* torch.save's two formats. Sets f->kind: a plain state_dict, or nanoGPT's checkpoint, which brings its configuration. */
sill_status sill__torch_read(sill__file *f, const sill__map *map, const char *path, sill_error *err);
bool sill__torch_is(const sill__map *map);
/* llm.c's checkpoint: brings its configuration. */
sill_status sill__llmc_read(sill__file *f, const sill__map *map, const char *path, sill_error *err);
bool sill__llmc_is(const sill__map *map);

/* A TensorFlow checkpoint: f->maps[0] is PATH, its .index; the data files beside it are opened. Brings its configuration, from
 * hparams.json in DIR. */
sill_status sill__bundle_read(sill__file *f, const char *path, const char *dir, sill_error *err);
bool sill__bundle_is(const sill__map *map);

/* ---- ZIP as torch.save writes it: members stored as they are; nothing is unpacked */
typedef struct sill__zip_member { const char *name; size_t n_name; uint64_t at, bytes; uint32_t crc; uint16_t method; } sill__zip_member;
typedef struct sill__zip { sill__zip_member *members; size_t n; } sill__zip; /* by name */
/* Members lie inside the map, none over another, no name twice. Free with sill__zip_free, also after failure. */
sill_status sill__zip_read(sill__zip *z, const sill__map *map, const char *path, sill_error *err);
/* NULL when there is none. */
const sill__zip_member *sill__zip_find(const sill__zip *z, const char *name, size_t n);
void sill__zip_free(sill__zip *z);

/* CRC of N bytes behind CRC (0 at first), reflected: of ZIP, and CRC-32C (Castagnoli). */
uint32_t sill__crc32(uint32_t crc, const void *data, size_t n);
uint32_t sill__crc32c(uint32_t crc, const void *data, size_t n);

/* ---- pickles, of which tensors are read and no code is run: pickle.c */
typedef enum sill__py_kind {
    SILL__PY_NONE, SILL__PY_BOOL, SILL__PY_INT, SILL__PY_FLOAT, SILL__PY_TEXT, SILL__PY_TUPLE, SILL__PY_LIST, SILL__PY_DICT,
    SILL__PY_CALLABLE, SILL__PY_STORAGE, SILL__PY_TENSOR
} sill__py_kind;
#define SILL__PY_DIMS 8
typedef struct sill__py_tensor {
    uint32_t storage;      /* the value of kind STORAGE */
    int n_dims;
    int64_t offset, dims[SILL__PY_DIMS], strides[SILL__PY_DIMS]; /* elements; all checked to be 0 or more */
} sill__py_tensor;
typedef struct sill__py {
    sill__py_kind kind;
    uint32_t n, cap;       /* TEXT: bytes; containers: items (DICT: keys and values in turn) */
    union {
        int64_t i;         /* INT, BOOL; CALLABLE: which */
        double f;
        const char *text;  /* into the pickle */
        uint32_t *items;   /* numbers of values */
        sill__py_tensor *tensor;
        struct { uint32_t key; sill__type type; } storage; /* key: a TEXT; n64: elements */
    } u;
    uint64_t n64;
} sill__py;
typedef struct sill__pickle {
    sill__py *values;
    size_t n, cap;
    sill__arena tensors;
    uint32_t top;          /* what the pickle holds */
} sill__pickle;
/* Reads one pickle; *USED is where its STOP ends. EUNSUPPORTED names what is not on the list of what is allowed. Free with
 * sill__pickle_free, also after failure. */
sill_status sill__pickle_read(sill__pickle *k, const uint8_t *p, size_t n, const char *path, size_t *used, sill_error *err);
void sill__pickle_free(sill__pickle *k);
static inline const sill__py *sill__py_at(const sill__pickle *k, uint32_t i) { return &k->values[i]; }
/* The value of a dictionary's text key; NULL when V is no dictionary or has none. The last of equal keys. */
const sill__py *sill__py_get(const sill__pickle *k, const sill__py *v, const char *key);

#endif
