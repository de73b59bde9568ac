/*
 * open.c - from a path to an open model: which file of a directory, which kind by its contents, the shards
 * of an index, and by name what is none of ours.
 */
#include <dirent.h>
#include <stdio.h>

#include "base/json.h"
#include "format/internal.h"

#define MAX_INDEX ((size_t)64 << 20) /* bytes of model.safetensors.index.json */

static const char supported[] = "sill reads safetensors, GGUF, checkpoints of PyTorch, nanoGPT and llm.c, and TensorFlow's of GPT-2";

/* ---- kinds */

/* Files that are met in practice and not read: their first bytes, and what to do. */
static const struct { const char *magic; size_t at, n; const char *what;
} foreign[] = {
    {"\x80\2", 0, 2, "a Python pickle, but not one of torch.save; save the weights with safetensors"},
    {"\x80\3", 0, 2, "a Python pickle, but not one of torch.save; save the weights with safetensors"},
    {"\x80\4", 0, 2, "a Python pickle, but not one of torch.save; save the weights with safetensors"},
    {"\x80\5", 0, 2, "a Python pickle, but not one of torch.save; save the weights with safetensors"},
    {"\xc7\xd7\x34\1", 0, 4, "one of llm.c's debug states, not a model"},
    {"\xc8\xd7\x34\1", 0, 4, "llm.c's tokenizer, not a model; name the checkpoint beside it"},
    {"\x88\xd8\x34\1", 0, 4, "tokens that llm.c trains on, not a model"},
    {"\x89HDF\r\n\x1a\n", 0, 8, "an HDF5 file, probably a Keras checkpoint; save it again with safetensors"},
    {"lmgg", 0, 4, "a file in the old GGML format, before GGUF; convert the original model to GGUF"},
    {"fmgg", 0, 4, "a file in the old GGMF format, before GGUF; convert the original model to GGUF"},
    {"tjgg", 0, 4, "a file in the old GGJT format, before GGUF; convert the original model to GGUF"},
    {"algg", 0, 4, "a GGML adapter (GGLA), not a model"},
    {"version https://git-lfs", 0, 23, "a Git LFS pointer, not the file itself; fetch it with git lfs pull"},
    {"\x93NUMPY", 0, 6, "a NumPy array, not a model"},
    {"TFL3", 4, 4, "a TensorFlow Lite model; take the safetensors form of the model"},
    {"\x1f\x8b", 0, 2, "gzip-compressed; unpack it first"},
    {"\x28\xb5\x2f\xfd", 0, 4, "zstd-compressed; unpack it first"},
    {"<!DOCTYPE", 0, 9, "a web page, not a model; the download went wrong"},
    {"<html", 0, 5, "a web page, not a model; the download went wrong"},
    {"model_checkpoint_path", 0, 21, "the state file of a TensorFlow checkpoint; name the .index file beside it"},
    {"{", 0, 1, "JSON text, not weights; give the directory that it is in"},
};

/* Says by name what a file is that is not read. */
static sill_status refuse(const sill__map *map, const char *path, sill_error *err) {
    const uint8_t *p = map->data;
    const char *what = NULL;
    if (map->bytes == 0) return sill__fail(err, SILL_EFORMAT, "%s: the file is empty (fetch it again)", path);
    for (size_t i = 0; i < SILL_ARRAY_LEN(foreign) && !what; i++)
        if (map->bytes >= foreign[i].at + foreign[i].n &&
            !memcmp(p + foreign[i].at, foreign[i].magic, foreign[i].n))
            what = foreign[i].what;
    if (!what && (strstr(path, ".data-000") || sill__ends_with(path, strlen(path), ".meta")))
        what = "a part of a TensorFlow checkpoint; name the .index file beside it";
    /* ONNX: field 1 (a small version number), then field 2 (a text) of a protocol buffer. */
    if (!what && (sill__ends_with(path, strlen(path), ".onnx") || (map->bytes >= 4 && p[0] == 8 && p[1] < 32 && p[2] == 0x12)))
        what = "an ONNX model; take the safetensors form of the model";
    if (!what && sill__ends_with(path, strlen(path), ".pb")) what = "a TensorFlow graph; take the safetensors form of the model";
    if (!what && sill__ends_with(path, strlen(path), ".msgpack"))
        what = "a Flax checkpoint; take the safetensors form of the model";
    if (what) return sill__fail(err, SILL_EUNSUPPORTED, "%s is %s (%s)", path, what, supported);
    return sill__fail(
        err, SILL_EFORMAT,
        "%s is neither a safetensors nor a GGUF file (it starts with the bytes %02x %02x %02x %02x), nor another that is read", path,
        p[0], map->bytes > 1 ? p[1] : 0, map->bytes > 2 ? p[2] : 0, map->bytes > 3 ? p[3] : 0);
}

/* A header length below 4 GiB and an opening brace behind it: nothing else that is known looks so. */
static bool looks_like_safetensors(const sill__map *map) {
    static const uint8_t zero[4] = {0};
    return map->bytes > 8 && !memcmp(map->data + 4, zero, 4) && map->data[8] == '{';
}

static bool looks_like_gguf(const sill__map *map) { return map->bytes >= 4 && !memcmp(map->data, "GGUF", 4); }

/* ---- the open file */

static sill_status set_text(char **out, const char *s, size_t n, sill_error *err) {
    *out = sill__strndup(s, n);
    return *out ? SILL_OK : sill__fail(err, SILL_ENOMEM, "no memory for a path");
}

/* Maps PATH as the next of the maps that there is room for. */
static sill_status add_map(sill__file *f, const char *path, sill_error *err) {
    /* Devices and pipes are kept away from open, which could block on them. */
    if (sill__is_dir(path)) return sill__fail(err, SILL_EIO, "%s is a directory, expected a file", path);
    sill_status s = sill__is_file(path)
                        ? sill__map_open(path, &f->maps[f->n_maps], err)
                        : sill__fail(err, SILL_ENOENT, "%s: no such file, or not a regular one", path);
    if (s == SILL_OK) f->n_maps++;
    return s;
}

static sill_status room_for_maps(sill__file *f, size_t n, sill_error *err) {
    f->maps = sill__calloc(n, sizeof *f->maps);
    return f->maps ? SILL_OK : sill__fail(err, SILL_ENOMEM, "no memory for %zu files", n);
}

/* Reads the one file of F, whose map is there. */
static sill_status read_single(sill__file *f, const char *path, sill_error *err) {
    const char *slash = strrchr(path, '/');
    size_t n = !slash ? 0 : slash == path ? 1 : (size_t)(slash - path);
    const sill__map *map = &f->maps[0];
    sill_status s;
    if (looks_like_gguf(map)) {
        f->kind = SILL__FILE_GGUF;
        if ((s = set_text(&f->dir, "", 0, err)) != SILL_OK) return s;
        return sill__gguf_read(f, map, path, err);
    }
    if ((s = set_text(&f->dir, slash ? path : ".", slash ? n : 1, err)) != SILL_OK) return s;
    if (sill__torch_is(map)) {
        s = sill__torch_read(f, map, path, err);
    } else if (sill__llmc_is(map)) {
        s = sill__llmc_read(f, map, path, err);
    } else if (sill__bundle_is(map)) {
        s = sill__bundle_read(f, path, f->dir, err);
    } else if (looks_like_safetensors(map) || (sill__ends_with(path, strlen(path), ".safetensors") && map->bytes > 0 && map->bytes <= 8)) {
        f->kind = SILL__FILE_SAFETENSORS;
        s = sill__safetensors_read(f, map, path, err);
    } else {
        s = refuse(map, path, err);
    }
    return s == SILL_OK ? sill__file_index(f, err) : s;
}

static sill_status open_single(sill__file *f, const char *path, sill_error *err) {
    sill_status s;
    if ((s = set_text(&f->path, path, strlen(path), err)) != SILL_OK ||
        (s = room_for_maps(f, 1, err)) != SILL_OK || (s = add_map(f, path, err)) != SILL_OK)
        return s;
    return read_single(f, path, err);
}

sill_status sill__file_open_memory(const void *data, size_t bytes, const char *path, sill__file **out,
                                   sill_error *err) {
    sill_status s;
    *out = NULL;
    sill__file *f = sill__calloc(1, sizeof *f);
    if (!f) return sill__fail(err, SILL_ENOMEM, "no memory to open %s", path);
    if ((s = set_text(&f->path, path, strlen(path), err)) == SILL_OK &&
        (s = room_for_maps(f, 1, err)) == SILL_OK) {
        f->maps[0] = (sill__map){.data = data, .bytes = bytes};
        f->n_maps = 1;
        s = read_single(f, path, err);
    }
    if (s != SILL_OK) sill__file_close(f);
    else *out = f;
    return s;
}

/* ---- shards */

typedef struct shards {
    const char *index;   /* path of the index file */
    const char *text;    /* of the index */
    size_t bytes;
    char **names;
    size_t n, cap;
    sill__str name;      /* of the shard at hand */
} shards;

/* A shard is a plain name beside its index. */
static bool is_plain_name(const sill__str *s) {
    for (size_t i = 0; i < s->n; i++)
        if (s->p[i] == '/' || s->p[i] == '\\' || (uint8_t)s->p[i] < 32) return false;
    return s->n > 0 && s->n <= 255 && s->p[0] != '.';
}

static sill_status add_shard(shards *sh, sill_error *err) {
    for (size_t i = sh->n; i-- > 0;) /* tensors of a shard mostly stand together: the last one first */
        if (!strcmp(sh->names[i], sh->name.p)) return SILL_OK;
    if (sh->n == SILL__MAX_SHARDS)
        return sill__fail(err, SILL_EFORMAT, "%s: more than the limit of %u shards", sh->index,
                          SILL__MAX_SHARDS);
    if (sh->n == sh->cap) {
        size_t cap = sh->cap ? 2 * sh->cap : 8;
        char **p = sill__realloc(sh->names, cap * sizeof *p);
        if (!p) return sill__fail(err, SILL_ENOMEM, "%s: no memory for the names of the shards", sh->index);
        sh->names = p;
        sh->cap = cap;
    }
    sill_status s = set_text(&sh->names[sh->n], sh->name.p, sh->name.n, err);
    if (s == SILL_OK) sh->n++;
    return s;
}

/* Walks weight_map. Without F: collects the shards' names. With F: checks that every tensor named is in
 * the shard that the index says. */
static sill_status walk_index(shards *sh, const sill__file *f, sill_error *err) {
    sill__json j;
    char tensor[SILL__MAX_NAME + 1];
    size_t n, count = 0;
    sill_status s = SILL_OK;
    sill__json_init(&j, sh->text, sh->bytes);
    if (!sill__json_find(&j, "weight_map", NULL))
        return j.message ? sill__json_fail(&j, sh->index, err)
                         : sill__fail(err, SILL_EFORMAT, "%s: no weight_map in this index", sh->index);
    if (!sill__json_enter(&j, SILL__JSON_OBJECT)) return sill__json_fail(&j, sh->index, err);
    while (s == SILL_OK && sill__json_next_member(&j, tensor, sizeof tensor, &n)) {
        sill__str_clear(&sh->name);
        if (!sill__json_string(&j, &sh->name)) return sill__json_fail(&j, sh->index, err);
        if (++count > SILL__MAX_TENSORS)
            return sill__fail(err, SILL_EFORMAT, "%s: more than the limit of %u tensors", sh->index,
                              SILL__MAX_TENSORS);
        if (!is_plain_name(&sh->name))
            return sill__fail(err, SILL_EFORMAT,
                              "%s: the shard name %s is not the plain name of a file beside the index",
                              sh->index, sill__show(sh->name.p ? sh->name.p : "", sh->name.n).text);
        if (!f) {
            s = add_shard(sh, err);
            continue;
        }
        const sill__tensor *t =
            n <= SILL__MAX_NAME && !memchr(tensor, 0, n) ? sill__file_find(f, tensor) : NULL;
        if (!t || (t->map && strcmp(sh->names[t->map - f->maps], sh->name.p))) /* no map: copied, of whichever shard */
            return sill__fail(err, SILL_EFORMAT, "%s: tensor %s is not in %s, where the index says it is",
                              sh->index, sill__show(tensor, strlen(tensor)).text,
                              sill__show(sh->name.p, sh->name.n).text);
    }
    if (s == SILL_OK && j.message) s = sill__json_fail(&j, sh->index, err);
    if (s == SILL_OK && sh->n == 0)
        s = sill__fail(err, SILL_EFORMAT, "%s: the weight_map is empty", sh->index);
    return s;
}

/* Shards are safetensors, or of torch.save. */
static sill_status open_shards(sill__file *f, const char *dir, const char *index, sill_error *err) {
    shards sh = {.index = index};
    char path[SILL__MAX_PATH];
    char *text = NULL;
    sill_status s;
    sill__str_init(&sh.name, 4096);
    if ((s = set_text(&f->path, index, strlen(index), err)) != SILL_OK ||
        (s = set_text(&f->dir, dir, strlen(dir), err)) != SILL_OK ||
        (s = sill__read_file(index, MAX_INDEX, &text, &sh.bytes, err)) != SILL_OK)
        goto done;
    sh.text = text;
    f->kind = SILL__FILE_SAFETENSORS;
    if ((s = walk_index(&sh, NULL, err)) != SILL_OK || (s = room_for_maps(f, sh.n, err)) != SILL_OK)
        goto done;
    for (size_t i = 0; i < sh.n; i++) {
        if (!sill__path_join(path, sizeof path, dir, sh.names[i])) {
            s = sill__fail(err, SILL_ERANGE, "%s: a path of more than %u bytes", index, SILL__MAX_PATH - 1);
            goto done;
        }
        if ((s = add_map(f, path, err)) != SILL_OK) {
            sill__fail_context(err, "%s names a shard that cannot be read", index);
            goto done;
        }
        s = looks_like_safetensors(&f->maps[i]) ? sill__safetensors_read(f, &f->maps[i], path, err)
            : sill__torch_is(&f->maps[i])       ? sill__torch_read(f, &f->maps[i], path, err)
                                                : refuse(&f->maps[i], path, err);
        if (s == SILL_OK && f->config)
            s = sill__fail(err, SILL_EFORMAT, "%s is a checkpoint of its own, not a shard of %s", path, index);
        if (s != SILL_OK) goto done;
    }
    if ((s = sill__file_index(f, err)) == SILL_OK) s = walk_index(&sh, f, err);
done:
    sill__str_free(&sh.name);
    for (size_t i = 0; i < sh.n; i++) sill__free(sh.names[i]);
    sill__free(sh.names);
    sill__free(text);
    return s;
}

/* ---- directories */

/* What of interest lies in a directory that has no model.safetensors: of each kind how many, and the first by name,
 * whatever order the directory is in. */
typedef struct listing {
    struct { char first[256]; int n; } gguf, index, pt, llmc, other;
} listing;

/* NAME counts as one more of these. */
#define LIST(of, name, n_name)                                                                               \
    do {                                                                                                     \
        if (!(of).n++ || strcmp((name), (of).first) < 0) memcpy((of).first, (name), (n_name) + 1);           \
    } while (0)

/* A .bin of llm.c's: many programs use the ending. */
static bool is_llmc(const char *dir, const char *name) {
    char path[SILL__MAX_PATH];
    sill__map map;
    if (!sill__path_join(path, sizeof path, dir, name) || !sill__is_file(path) || sill__map_open(path, &map, NULL) != SILL_OK) return false;
    bool is = sill__llmc_is(&map);
    sill__map_close(&map);
    return is;
}

static void list_dir(const char *dir, listing *l) {
    static const char *const tails[] = {".bin", ".h5", ".ckpt", ".onnx", ".msgpack", ".pb", ".npz"};
    memset(l, 0, sizeof *l);
    DIR *d = opendir(dir);
    if (!d) return;
    for (struct dirent *e; (e = readdir(d));) {
        const char *name = e->d_name;
        size_t n = strlen(name);
        if (n >= sizeof l->gguf.first || name[0] == '.') continue;
        if (sill__ends_with(name, strlen(name), ".gguf")) LIST(l->gguf, name, n);
        if (sill__ends_with(name, strlen(name), ".index")) LIST(l->index, name, n);
        if (sill__ends_with(name, strlen(name), ".pt") || sill__ends_with(name, strlen(name), ".pth")) LIST(l->pt, name, n);
        if (sill__ends_with(name, strlen(name), ".bin") && is_llmc(dir, name)) {
            LIST(l->llmc, name, n);
            continue;
        }
        for (size_t i = 0; i < SILL_ARRAY_LEN(tails); i++)
            if (sill__ends_with(name, strlen(name), tails[i])) {
                LIST(l->other, name, n);
                break;
            }
    }
    closedir(d);
}

/* The one file of a kind. */
static sill_status open_only(sill__file *f, const char *dir, const char *ending, const char *first, int n, sill_error *err) {
    char path[SILL__MAX_PATH];
    if (n > 1)
        return sill__fail(err, SILL_EINVAL, "%s holds %d %s files; name one of them (%s, for example)", dir, n, ending,
                          sill__show(first, strlen(first)).text);
    if (!sill__path_join(path, sizeof path, dir, first)) return sill__fail(err, SILL_ERANGE, "%s: a path that is too long", dir);
    return open_single(f, path, err);
}

static bool there(char path[SILL__MAX_PATH], const char *dir, const char *name) {
    return sill__path_join(path, SILL__MAX_PATH, dir, name) && sill__is_file(path);
}

static sill_status open_dir(sill__file *f, const char *dir, sill_error *err) {
    char path[SILL__MAX_PATH];
    listing l;
    if (!sill__path_join(path, sizeof path - 32, dir, "model.safetensors.index.json"))
        return sill__fail(err, SILL_ERANGE, "a path of more than %u bytes", SILL__MAX_PATH - 33);
    if (there(path, dir, "model.safetensors")) return open_single(f, path, err);
    if (there(path, dir, "model.safetensors.index.json")) return open_shards(f, dir, path, err);
    list_dir(dir, &l);
    if (l.gguf.n) return open_only(f, dir, ".gguf", l.gguf.first, l.gguf.n, err);
    if (there(path, dir, "pytorch_model.bin")) return open_single(f, path, err);
    if (there(path, dir, "pytorch_model.bin.index.json")) return open_shards(f, dir, path, err);
    if (there(path, dir, "model.ckpt.index")) return open_single(f, path, err);
    if (l.index.n) return open_only(f, dir, ".index", l.index.first, l.index.n, err);
    if (there(path, dir, "ckpt.pt")) return open_single(f, path, err);
    if (l.pt.n) return open_only(f, dir, ".pt", l.pt.first, l.pt.n, err);
    if (l.llmc.n) return open_only(f, dir, ".bin", l.llmc.first, l.llmc.n, err);
    if (l.other.n)
        return sill__fail(err, SILL_EUNSUPPORTED, "%s holds no model.safetensors, only %s, which is not supported; save the model again with "
                          "safetensors (%s)", dir, sill__show(l.other.first, strlen(l.other.first)).text, supported);
    return sill__fail(err, SILL_ENOENT, "%s holds no model.safetensors, model.safetensors.index.json or .gguf file, nor a checkpoint of "
                      "another kind", dir);
}

sill_status sill__file_open(const char *path, sill__file **out, sill_error *err) {
    *out = NULL;
    if (!path || !path[0]) return sill__fail(err, SILL_EINVAL, "the path of the model is empty");
    sill__file *f = sill__calloc(1, sizeof *f);
    if (!f) return sill__fail(err, SILL_ENOMEM, "no memory to open %s", path);
    sill_status s = sill__is_dir(path) ? open_dir(f, path, err) : open_single(f, path, err);
    if (s != SILL_OK) sill__file_close(f);
    else *out = f;
    return s;
}
