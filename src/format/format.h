/*
 * format.h - checkpoint files behind one small interface: names, shapes, types, bytes, metadata.
 * Readers check every count, length and offset against the file before anything is allocated.
 */
#ifndef SILL_FORMAT_H
#define SILL_FORMAT_H

#include "base/base.h"

/* Element types as stored. The block types are GGUF's (ggml's block layouts, little endian). */
typedef enum sill__type {
    SILL__TYPE_F32, SILL__TYPE_F16, SILL__TYPE_BF16,
    SILL__TYPE_Q8_0, SILL__TYPE_Q4_0, SILL__TYPE_Q4_1, SILL__TYPE_Q5_0, SILL__TYPE_Q5_1,
    SILL__TYPE_Q4_K, SILL__TYPE_Q5_K, SILL__TYPE_Q6_K,
    SILL__TYPE_I8, SILL__TYPE_I16, SILL__TYPE_I32, SILL__TYPE_I64, SILL__TYPE_U8, SILL__TYPE_BOOL, SILL__TYPE_F64,
    SILL__TYPE_COUNT
} sill__type;

typedef struct sill__type_info {
    const char *name;      /* "F32", "Q4_1", ... */
    uint32_t block;        /* elements in a block (1 for plain types) */
    uint32_t block_bytes;
    bool weight;           /* can be a weight that we compute with */
} sill__type_info;
const sill__type_info *sill__type_get(sill__type type);

#define SILL__MAX_DIMS 4
/* A stored tensor: row-major, dims[0] outermost (GGUF's order is turned around on reading); the last
 * dimension is contiguous. data points into the mapped file, on any byte (use memcpy for wider reads);
 * no dimensions means one element, a dimension may be 0. Lives as long as the file. */
typedef struct sill__tensor {
    const char *name;
    sill__type type;
    int n_dims;
    uint64_t dims[SILL__MAX_DIMS];
    const uint8_t *data;
    size_t bytes;
    const sill__map *map;  /* for sill__map_release; NULL: in memory */
} sill__tensor;

uint64_t sill__tensor_elements(const sill__tensor *t);
/* Bytes of one row of COLS elements (COLS a multiple of the block; 0 otherwise). */
size_t sill__row_bytes(sill__type type, uint64_t cols);
/* Dequantizes N elements (a multiple of the block, starting at a block) to f32: the exact meaning of
 * the stored bytes, each product and sum in f32 as ggml's reference does. Reference code, also used for
 * packing and embedding rows. */
void sill__dequant(sill__type type, const void *src, float *dst, size_t n);
/* Quantizes N elements (a multiple of 32) of f32 to TYPE (Q8_0, Q4_0, Q4_1: those that can_quantize), the
 * bytes of ggml's reference. A block with a NaN or an infinity gets the scale NaN, zeros else. No alignment
 * is asked of TO. */
bool sill__can_quantize(sill__type type);
void sill__quantize(sill__type type, const float *x, void *to, size_t n);

/* Of every kind but GGUF the tensors have transformers' names. */
typedef enum sill__file_kind {
    SILL__FILE_SAFETENSORS, SILL__FILE_GGUF,
    SILL__FILE_TORCH,     /* torch.save of a state_dict: pytorch_model.bin, also in shards */
    SILL__FILE_NANOGPT,   /* torch.save of nanoGPT's checkpoint */
    SILL__FILE_LLMC,      /* llm.c's .bin */
    SILL__FILE_TENSORFLOW /* OpenAI's GPT-2: model.ckpt.index, .data, hparams.json */
} sill__file_kind;

typedef struct sill__file sill__file;
/* Opens a model: a directory, or one file. Of a directory it is the first of model.safetensors, model.safetensors.index.json with
 * its shards, the only .gguf, pytorch_model.bin, pytorch_model.bin.index.json, TensorFlow's model.ckpt.index (or the only
 * .index), ckpt.pt (or the only .pt or .pth), llm.c's only .bin. The kind of a file is told by contents, not by name. A
 * file of another kind (HDF5, say) is refused by name. */
sill_status sill__file_open(const char *path, sill__file **out, sill_error *err);
/* One file that lies in memory, which must outlive it; PATH stands in messages. For checks and tests: the sanitizers see
 * the true end of the bytes, which a map's last page hides. */
sill_status sill__file_open_memory(const void *data, size_t bytes, const char *path, sill__file **out, sill_error *err);
void sill__file_close(sill__file *file);
sill__file_kind sill__file_get_kind(const sill__file *file);
/* "safetensors", "gguf", "pytorch", "nanogpt", "llm.c", "tensorflow". */
const char *sill__file_kind_name(sill__file_kind kind);
/* What config.json would say, where the file itself tells it (nanoGPT, llm.c, TensorFlow); NULL: it is in the directory. */
const char *sill__file_config(const sill__file *file);
/* GPT-2's matrices are (outputs, inputs), as torch.nn.Linear has them, not (inputs, outputs). */
bool sill__file_is_linear(const sill__file *file);
/* Directory that config.json and tokenizer.json are looked for in ("" for a GGUF). */
const char *sill__file_dir(const sill__file *file);
/* The file itself: also for a directory the .safetensors, index or .gguf that was opened in it. */
const char *sill__file_path(const sill__file *file);
/* True when one of the files that hold its tensors has this device and inode. */
bool sill__file_is_part(const sill__file *file, uint64_t device, uint64_t inode);
size_t sill__file_n_tensors(const sill__file *file);
const sill__tensor *sill__file_tensor(const sill__file *file, size_t i);
/* By exact name; NULL when absent. Hashed. */
const sill__tensor *sill__file_find(const sill__file *file, const char *name);

/* GGUF metadata (absent for safetensors, whose config is config.json). */
typedef enum sill__meta_kind {
    SILL__META_U8, SILL__META_I8, SILL__META_U16, SILL__META_I16, SILL__META_U32, SILL__META_I32,
    SILL__META_F32, SILL__META_BOOL, SILL__META_STRING, SILL__META_ARRAY, SILL__META_U64, SILL__META_I64,
    SILL__META_F64
} sill__meta_kind;
typedef struct sill__meta {
    const char *key;       /* NUL-terminated */
    sill__meta_kind kind, element; /* element: of an array */
    uint64_t n;            /* array: elements; else 1 */
    const uint8_t *data;   /* little-endian bytes in the file; array of strings: see the iterator; a
                            * string's bytes without its length */
    size_t bytes;
} sill__meta;
size_t sill__file_n_meta(const sill__file *file);
const sill__meta *sill__file_meta(const sill__file *file, size_t i);
const sill__meta *sill__file_find_meta(const sill__file *file, const char *key);
/* Typed access: false when absent or of another kind; integers of every width are converted when they fit. */
bool sill__meta_int(const sill__file *file, const char *key, int64_t *out);
bool sill__meta_float(const sill__file *file, const char *key, double *out);
bool sill__meta_bool(const sill__file *file, const char *key, bool *out);
/* String: points into the file, not NUL-terminated. */
bool sill__meta_string(const sill__file *file, const char *key, const char **s, size_t *n);
/* Walks an array of strings: *at starts at 0 and moves on; false at its end. */
bool sill__meta_next_string(const sill__meta *array, size_t *at, const char **s, size_t *n);


#endif
