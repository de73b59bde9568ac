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

/* The readers: add the tensors of MAP (file PATH) to F. They do not free F on failure. */
sill_status sill__safetensors_read(sill__file *f, const sill__map *map, const char *path, sill_error *err);
sill_status sill__gguf_read(sill__file *f, const sill__map *map, const char *path, sill_error *err);

#endif
