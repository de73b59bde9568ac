/*
 * file.c - the open model file whatever its kind: tensors and metadata by number and by name, and the
 * checks that the readers share. Finding the right file, and telling kinds apart, is open.c's.
 */
#include "format/internal.h"

bool sill__tensor_size(sill__type type, const uint64_t *dims, int n_dims, size_t *bytes) {
    const sill__type_info *info = sill__type_get(type);
    size_t n = 1;
    bool empty = false;
    /* A zero makes the product harmless, but the rest must not overflow for others who multiply it. */
    for (int i = 0; i < n_dims; i++) {
        if (dims[i] > SIZE_MAX) return false;
        if (dims[i] == 0) empty = true;
        else if (!sill__mul(n, (size_t)dims[i], &n)) return false;
    }
    if (!empty && n % info->block) return false;
    if (!sill__mul(n / info->block, info->block_bytes, bytes)) return false;
    if (empty) *bytes = 0;
    return true;
}

sill_status sill__file_reserve(sill__file *f, size_t n, const char *path, sill_error *err) {
    size_t need, bytes;
    if (!sill__add(f->n_tensors, n, &need) || need > SILL__MAX_TENSORS)
        return sill__fail(err, SILL_EFORMAT, "%s: more than the limit of %u tensors", path,
                          SILL__MAX_TENSORS);
    if (need <= f->cap_tensors) return SILL_OK;
    size_t cap = SILL_MAX(need, 2 * f->cap_tensors);
    sill__tensor *t = sill__mul(cap, sizeof *t, &bytes) ? sill__realloc(f->tensors, bytes) : NULL;
    if (!t) return sill__fail(err, SILL_ENOMEM, "%s: no memory for %zu tensors", path, cap);
    f->tensors = t;
    f->cap_tensors = cap;
    return SILL_OK;
}

sill_status sill__file_tensor_new(sill__file *f, const char *path, const char *name, size_t n, sill__tensor **out, sill_error *err) {
    if (n == 0 || n > SILL__MAX_NAME || memchr(name, 0, n))
        return sill__fail(err, SILL_EFORMAT, "%s: the tensor name %s has %zu bytes, expected 1 to %u and no NUL among them", path,
                          sill__show(name, SILL_MIN(n, (size_t)SILL__MAX_NAME)).text, n, SILL__MAX_NAME);
    sill_status s = sill__file_reserve(f, 1, path, err);
    if (s != SILL_OK) return s;
    char *copy = sill__arena_alloc(&f->strings, n + 1);
    if (!copy) return sill__fail(err, SILL_ENOMEM, "%s: no memory for the tensor names", path);
    memcpy(copy, name, n);
    *out = &f->tensors[f->n_tensors];
    memset(*out, 0, sizeof **out);
    (*out)->name = copy;
    return SILL_OK;
}

sill_status sill__file_copy_new(sill__file *f, const char *path, size_t bytes, uint8_t **out, sill_error *err) {
    uint8_t **list = sill__realloc(f->copies, (f->n_copies + 1) * sizeof *list);
    if (list) f->copies = list;
    uint8_t *p = list ? sill__calloc(SILL_MAX(bytes, (size_t)1), 1) : NULL;
    if (!p) return sill__fail(err, SILL_ENOMEM, "%s: no memory for %zu bytes of a tensor that is not stored row by row", path, bytes);
    f->copies[f->n_copies++] = *out = p;
    return SILL_OK;
}

sill_status sill__file_set_gpt2(sill__file *f, int64_t n_layer, int64_t n_head, int64_t n_embd, int64_t n_ctx, int64_t n_vocab,
                                const char *act, sill_error *err) {
    sill__str s;
    sill__str_init(&s, 4096);
    sill__str_putf(&s, "{\n  \"activation_function\": \"%s\",\n  \"architectures\": [\"GPT2LMHeadModel\"],\n  \"attn_pdrop\": 0.0,\n", act);
    sill__str_putf(&s, "  \"bos_token_id\": %d,\n  \"embd_pdrop\": 0.0,\n  \"eos_token_id\": %d,\n", n_vocab > 50256 ? 50256 : 0,
                   n_vocab > 50256 ? 50256 : 0);
    sill__str_putf(&s, "  \"layer_norm_epsilon\": 1e-05,\n  \"model_type\": \"gpt2\",\n  \"n_ctx\": %lld,\n  \"n_embd\": %lld,\n",
                   (long long)n_ctx, (long long)n_embd);
    sill__str_putf(&s, "  \"n_head\": %lld,\n  \"n_layer\": %lld,\n  \"n_positions\": %lld,\n  \"resid_pdrop\": 0.0,\n",
                   (long long)n_head, (long long)n_layer, (long long)n_ctx);
    sill__str_putf(&s, "  \"tie_word_embeddings\": true,\n  \"vocab_size\": %lld\n}\n", (long long)n_vocab);
    if (!s.failed) sill__free(f->config);
    if (s.failed || !(f->config = sill__strndup(s.p, s.n))) {
        sill__str_free(&s);
        return sill__fail(err, SILL_ENOMEM, "%s: no memory for the configuration", f->path);
    }
    sill__str_free(&s);
    return SILL_OK;
}

/* Moves the span at I of the heap of N spans down to its place. Ordered by (begin, end). */
static void sift(sill__span *a, size_t i, size_t n) {
    sill__span x = a[i];
    for (size_t k; (k = 2 * i + 1) < n; i = k) {
        if (k + 1 < n &&
            (a[k].begin < a[k + 1].begin || (a[k].begin == a[k + 1].begin && a[k].end < a[k + 1].end)))
            k++;
        if (x.begin > a[k].begin || (x.begin == a[k].begin && x.end >= a[k].end)) break;
        a[i] = a[k];
    }
    a[i] = x;
}

void sill__sort_spans(sill__span *spans, size_t n) { /* heap sort: no memory, no bad case */
    for (size_t i = n / 2; i-- > 0;) sift(spans, i, n);
    for (size_t end = n; end > 1;) {
        sill__span x = spans[--end];
        spans[end] = spans[0];
        spans[0] = x;
        sift(spans, 0, end);
    }
}

sill__shown sill__show(const char *s, size_t n) {
    sill__shown out;
    size_t k = 0;
    for (; k < n && k < 63; k++) out.text[k] = s[k] >= 32 && s[k] < 127 ? s[k] : '?';
    if (k < n) memcpy(out.text + 60, "...", 3);
    out.text[k] = 0;
    return out;
}

/* ---- names */

/* The slot of NAME: its own, or the empty one where it would go. NAME_AT tells the name of item I. */
static uint32_t *slot_of(const sill__names *names, const void *items,
                         const char *(*name_at)(const void *, size_t), const char *name) {
    size_t i = (size_t)sill__hash64(name, strlen(name)) & names->mask;
    while (names->slots[i] && strcmp(name_at(items, names->slots[i] - 1), name)) i = (i + 1) & names->mask;
    return &names->slots[i];
}

static const char *tensor_name(const void *items, size_t i) { return ((const sill__tensor *)items)[i].name; }
static const char *meta_key(const void *items, size_t i) { return ((const sill__meta *)items)[i].key; }

static sill_status index_names(sill__names *names, const char *path, const char *what, const void *items,
                               size_t n, const char *(*name_at)(const void *, size_t), sill_error *err) {
    size_t size = 8;
    while (size < 2 * n) size *= 2;
    if (!(names->slots = sill__calloc(size, sizeof *names->slots)))
        return sill__fail(err, SILL_ENOMEM, "%s: no memory for the table of %zu names", path, n);
    names->mask = size - 1;
    for (size_t i = 0; i < n; i++) {
        const char *name = name_at(items, i);
        uint32_t *slot = slot_of(names, items, name_at, name);
        if (*slot)
            return sill__fail(err, SILL_EFORMAT, "%s: two %s with the name %s", path, what,
                              sill__show(name, strlen(name)).text);
        *slot = (uint32_t)i + 1;
    }
    return SILL_OK;
}

sill_status sill__file_index(sill__file *f, sill_error *err) {
    sill_status s =
        index_names(&f->tensor_names, f->path, "tensors", f->tensors, f->n_tensors, tensor_name, err);
    return s != SILL_OK
               ? s
               : index_names(&f->meta_names, f->path, "metadata entries", f->meta, f->n_meta, meta_key, err);
}

const sill__tensor *sill__file_find(const sill__file *file, const char *name) {
    uint32_t slot = *slot_of(&file->tensor_names, file->tensors, tensor_name, name);
    return slot ? &file->tensors[slot - 1] : NULL;
}

const sill__meta *sill__file_find_meta(const sill__file *file, const char *key) {
    uint32_t slot = *slot_of(&file->meta_names, file->meta, meta_key, key);
    return slot ? &file->meta[slot - 1] : NULL;
}

/* ---- access */

sill__file_kind sill__file_get_kind(const sill__file *file) { return file->kind; }
const char *sill__file_kind_name(sill__file_kind kind) {
    static const char *const names[] = {"safetensors", "gguf", "pytorch", "nanogpt", "llm.c", "tensorflow"};
    return names[kind];
}
const char *sill__file_config(const sill__file *file) { return file->config; }
bool sill__file_is_linear(const sill__file *file) { return file->linear; }
const char *sill__file_dir(const sill__file *file) { return file->dir; }
const char *sill__file_path(const sill__file *file) { return file->path; }
bool sill__file_is_part(const sill__file *file, uint64_t device, uint64_t inode) {
    for (size_t i = 0; i < file->n_maps; i++)
        if (file->maps[i].id.device == device && file->maps[i].id.inode == inode) return true;
    return false;
}
size_t sill__file_n_tensors(const sill__file *file) { return file->n_tensors; }
const sill__tensor *sill__file_tensor(const sill__file *file, size_t i) {
    return i < file->n_tensors ? &file->tensors[i] : NULL;
}
size_t sill__file_n_meta(const sill__file *file) { return file->n_meta; }
const sill__meta *sill__file_meta(const sill__file *file, size_t i) {
    return i < file->n_meta ? &file->meta[i] : NULL;
}

void sill__file_close(sill__file *file) {
    if (!file) return;
    for (size_t i = 0; i < file->n_maps; i++) sill__map_close(&file->maps[i]);
    for (size_t i = 0; i < file->n_copies; i++) sill__free(file->copies[i]);
    sill__free(file->copies);
    sill__free(file->config);
    sill__free(file->maps);
    sill__free(file->tensors);
    sill__free(file->meta);
    sill__free(file->tensor_names.slots);
    sill__free(file->meta_names.slots);
    sill__arena_free(&file->strings);
    sill__free(file->path);
    sill__free(file->dir);
    sill__free(file);
}
