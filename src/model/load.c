/*
 * load.c - from a path to a model that is ready: opens the file, settles types and device, checks that it
 * fits in memory, imports the weights. Also what sill.h tells about a loaded model.
 */
#include "backend/check/check.h"
#include "base/pool.h"
#include "model/family.h"
#include "tokenizer/chat_form.h"

#include <stdio.h>

static const char *compute_name(sill__compute compute) {
    switch (compute) {
    case SILL__COMPUTE_F32: return "f32";
    case SILL__COMPUTE_F16: return "f16";
    case SILL__COMPUTE_BF16: return "bf16";
    case SILL__COMPUTE_BLOCK_I8:
    case SILL__COMPUTE_INT8: break;
    }
    return "int8";
}

/* ----------------------------------------------------------------- types */

/* The stored type of most parameters, and whether matrices are stored in blocks. With BLOCKS_ONLY plain
 * types are left out. */
static sill__type survey(const sill__file *file, bool blocks_only, bool *quantized) {
    uint64_t count[SILL__TYPE_COUNT] = {0};
    sill__type best = SILL__TYPE_F32;
    for (size_t i = 0; i < sill__file_n_tensors(file); i++) {
        const sill__tensor *t = sill__file_tensor(file, i);
        const sill__type_info *info = sill__type_get(t->type);
        if (!info || !info->weight || (blocks_only && info->block == 1)) continue;
        if (info->block > 1 && quantized) *quantized = true;
        count[t->type] += sill__tensor_elements(t);
        if (count[t->type] > count[best]) best = t->type;
    }
    return best;
}

static sill_status settle_types(sill_model *m, sill_dtype dtype, sill_error *err) {
    static const char *const names[] = {"auto", "f32", "f16", "bf16", "q8", "q4", "int8"};
    const char *path = sill__file_path(m->file);
    if ((unsigned)dtype >= SILL_ARRAY_LEN(names)) return sill__fail(err, SILL_EINVAL, "no dtype has the number %d", dtype);
    m->main_type = survey(m->file, false, &m->quantized);
    m->int8 = sill__rows8_any(m->file);
    m->dtype = m->int8 && dtype == SILL_DTYPE_AUTO ? SILL_DTYPE_INT8 : dtype;
    if (m->int8 && dtype != SILL_DTYPE_AUTO && dtype != SILL_DTYPE_F32 && dtype != SILL_DTYPE_INT8)
        return sill__fail(err, SILL_EINVAL, "%s holds weights quantized as int8: dtype %s is for floating-point checkpoints; "
                          "take auto, int8 or f32", path, names[dtype]);
    dtype = m->dtype;
    if (m->quantized && dtype != SILL_DTYPE_AUTO && dtype != SILL_DTYPE_F32)
        return sill__fail(err, SILL_EINVAL, "%s holds weights quantized as %s: dtype %s is for floating-point "
                          "checkpoints; take auto or f32", path,
                          sill__type_get(survey(m->file, true, NULL))->name, names[dtype]);
    if (dtype == SILL_DTYPE_F16) m->compute = SILL__COMPUTE_F16;
    else if (dtype == SILL_DTYPE_BF16) m->compute = SILL__COMPUTE_BF16;
    else if (dtype == SILL_DTYPE_F32) m->compute = SILL__COMPUTE_F32;
    else if (dtype == SILL_DTYPE_INT8) m->compute = SILL__COMPUTE_INT8;
    else if (m->quantized || dtype == SILL_DTYPE_Q8 || dtype == SILL_DTYPE_Q4) m->compute = SILL__COMPUTE_BLOCK_I8;
    else if (m->main_type == SILL__TYPE_F16) m->compute = SILL__COMPUTE_F16;
    else if (m->main_type == SILL__TYPE_BF16) m->compute = SILL__COMPUTE_BF16;
    else m->compute = SILL__COMPUTE_F32;
    if (m->int8) m->main_type = SILL__TYPE_I8;
    return SILL_OK;
}

/* "q4_1+int8": the block type of most parameters, in small letters; "q8+int8" where it is made at load. */
static void dtype_text(const sill_model *m, char *out, size_t cap) {
    if (m->compute != SILL__COMPUTE_BLOCK_I8 || !m->quantized) {
        snprintf(out, cap, "%s%s", m->dtype == SILL_DTYPE_Q8 ? "q8+" : m->dtype == SILL_DTYPE_Q4 ? "q4+" : "",
                 compute_name(m->compute));
        return;
    }
    snprintf(out, cap, "%s+int8", sill__type_get(survey(m->file, true, NULL))->name);
    for (char *p = out; *p; p++)
        if (*p >= 'A' && *p <= 'Z') *p = (char)(*p + ('a' - 'A'));
}

sill_status sill__model_compute(const sill__file *file, sill_dtype dtype, sill__compute *out, sill_error *err) {
    sill_model m = {.file = (sill__file *)file};
    sill_status s = settle_types(&m, dtype, err);
    *out = m.compute;
    return s;
}

/* Notes a source's types in a list without repeats. */
static void note_types(const sill__weight_src *src, sill__type *types, int *n, bool *seen) {
    for (int k = 0; k < src->n_parts; k++) {
        if (!seen[src->parts[k]->type]) types[(*n)++] = src->parts[k]->type;
        seen[src->parts[k]->type] = true;
    }
}

/* Devices whose buffers have a greatest size: no matrix may be larger. */
static sill_status check_largest(const sill_model *m, const sill__slots *slots, sill_error *err) {
    const double mib = 1024.0 * 1024.0;
    const uint64_t most = m->ops->largest ? m->ops->largest(m->device) : UINT64_MAX;
    for (size_t i = 0; i < slots->n_weights; i++) {
        const sill__weight_src *src = &slots->weights[i].src;
        const uint64_t bytes = m->ops->weight_bytes(m->device, src);
        if (bytes > most)
            return sill__fail(err, SILL_ENOFIT, "%s: %s takes %.1f MiB in one piece, and the %s device takes at most %.1f",
                              sill__file_path(m->file), src->name ? src->name : "a matrix", (double)bytes / mib, m->ops->name,
                              (double)most / mib);
    }
    return SILL_OK;
}

/* The device must offer what the model's layers are made of, and every stored type with what it is computed with. */
static sill_status check_support(const sill_model *m, const sill__slots *slots, sill_error *err) {
    const sill__config *c = &m->config;
    sill__type types[SILL__TYPE_COUNT], embed_types[SILL__TYPE_COUNT];
    for (int compute = 0; compute <= SILL__COMPUTE_INT8; compute++) {
        bool seen[SILL__TYPE_COUNT] = {false}, embed_seen[SILL__TYPE_COUNT] = {false};
        sill__need need = {.types = types, .embed_types = embed_types, .compute = (sill__compute)compute,
                           .kv = m->compute == SILL__COMPUTE_F32 ? SILL__KV_F32 : SILL__KV_F16, .act = c->act,
                           .norm = c->family == SILL__FAMILY_GPT2 ? SILL__NORM_LAYER : SILL__NORM_RMS, .rope = c->rope,
                           .rope_dims = c->rope_dims, .n_heads = c->n_heads, .n_kv_heads = c->n_kv_heads,
                           .head_dim = c->head_dim, .n_vocab = c->n_vocab};
        for (size_t i = 0; i < slots->n_weights; i++) {
            const sill__weight_src *src = &slots->weights[i].src;
            if (src->role == SILL__ROLE_EMBED) note_types(src, embed_types, &need.n_embed_types, embed_seen);
            else if (src->compute == need.compute) note_types(src, types, &need.n_types, seen);
        }
        if (need.n_types == 0) continue;
        sill_status s = m->ops->supports(m->device, &need, err);
        if (s != SILL_OK) return s;
    }
    return check_largest(m, slots, err);
}

/* What a device is to be checked with before its first use for this model. */
static sill__use use_of(const sill_model *m, const sill__slots *slots) {
    const sill__config *c = &m->config;
    uint64_t most = 0;
    sill__use use = {.kv = m->compute == SILL__COMPUTE_F32 ? SILL__KV_F32 : SILL__KV_F16, .act = c->act,
                     .norm = c->family == SILL__FAMILY_GPT2 ? SILL__NORM_LAYER : SILL__NORM_RMS, .rope = c->rope,
                     .rope_dims = c->rope_dims, .group = c->n_heads / SILL_MAX(c->n_kv_heads, 1), .n_kv_heads = c->n_kv_heads,
                     .head_dim = c->head_dim};
    for (size_t i = 0; i < slots->n_weights; i++) {
        const sill__weight_src *src = &slots->weights[i].src;
        for (int k = 0; k < src->n_parts; k++) {
            const sill__type type = src->parts[k]->type;
            if (src->role == SILL__ROLE_EMBED) use.embed_types |= 1u << type;
            else use.types[src->compute] |= 1u << sill__use_type(type, src->compute, src->as);
        }
        if (src->role != SILL__ROLE_BODY || src->rows * src->cols <= most) continue;
        most = src->rows * src->cols;
        use.type = sill__type_get(src->parts[0]->type)->weight ? src->parts[0]->type : SILL__TYPE_F32;
        use.as = src->as;
        use.compute = src->compute;
    }
    return use;
}

sill_status sill__model_use(const sill__file *file, const sill__config *config, sill_dtype dtype, sill__use *use, sill_error *err) {
    sill__slots slots = {0};
    sill_model m = {.config = *config, .file = (sill__file *)file};
    sill_status s = settle_types(&m, dtype, err);
    memset(use, 0, sizeof *use);
    m.layers = sill__calloc((size_t)config->n_layers, sizeof *m.layers);
    if (s == SILL_OK && !m.layers) s = sill__fail(err, SILL_ENOMEM, "no memory for %d layers", config->n_layers);
    if (s == SILL_OK) s = sill__slots_make(&m, &slots, err);
    if (s == SILL_OK) *use = use_of(&m, &slots);
    sill__slots_free(&slots);
    sill__arena_free(&m.rows8);
    sill__free(m.layers);
    return s;
}

/* ---------------------------------------------------------------- memory */

/* What a step reads of the weights. */
static uint64_t slots_bytes(const sill__slots *slots, const sill__backend *ops, sill__device *device) {
    uint64_t bytes = slots->vector_bytes;
    for (size_t i = 0; i < slots->n_weights; i++) bytes += ops->weight_bytes(device, &slots->weights[i].src);
    return bytes;
}

static const sill__weight_src **list_of(const sill__slots *slots) {
    const sill__weight_src **srcs = sill__calloc(slots->n_weights, sizeof *srcs);
    for (size_t i = 0; srcs && i < slots->n_weights; i++) srcs[i] = &slots->weights[i].src;
    return srcs;
}

/* What the weights take of the device's memory. */
static uint64_t slots_memory(const sill__slots *slots, const sill__backend *ops, sill__device *device) {
    const sill__weight_src **srcs = ops->weights_bytes ? list_of(slots) : NULL;
    if (!srcs) return slots_bytes(slots, ops, device);
    uint64_t bytes = ops->weights_bytes(device, srcs, slots->n_weights);
    sill__free(srcs);
    return bytes == UINT64_MAX ? slots_bytes(slots, ops, device) : slots->vector_bytes + bytes;
}

/* What importing takes on top for a moment: the f32 values of a matrix that is stored as int8. The reference keeps them, and
 * counts them as weights. */
static uint64_t import_bytes(const sill__slots *slots, const sill__backend *ops) {
    uint64_t most = 0;
    for (size_t i = 0; i < slots->n_weights && ops != sill__backend_ref(); i++)
        if (slots->weights[i].rows8) most = SILL_MAX(most, slots->weights[i].src.rows * slots->weights[i].src.cols * 4);
    return most;
}

sill_status sill__model_weight_bytes(const sill__file *file, const sill__config *config, const sill__backend *ops,
                                     sill__device *device, sill_dtype dtype, uint64_t *bytes, uint64_t *import, sill_error *err) {
    sill__slots slots;
    sill_model *m = sill__calloc(1, sizeof *m);
    *bytes = *import = 0;
    if (!m) return sill__fail(err, SILL_ENOMEM, "no memory for a model");
    m->config = *config; /* its labels stay the caller's */
    m->file = (sill__file *)file;
    m->ops = ops;
    m->device = device;
    sill_status s = settle_types(m, dtype, err);
    m->layers = sill__calloc((size_t)config->n_layers, sizeof *m->layers);
    if (s == SILL_OK && !m->layers) s = sill__fail(err, SILL_ENOMEM, "no memory for %d layers", config->n_layers);
    if (s == SILL_OK) s = sill__slots_make(m, &slots, err);
    if (s == SILL_OK) {
        s = check_support(m, &slots, err);
        *bytes = slots_memory(&slots, ops, device);
        *import = import_bytes(&slots, ops);
        sill__slots_free(&slots);
    }
    sill__arena_free(&m->rows8);
    sill__free(m->layers);
    sill__free(m);
    return s;
}

/* Refuses what would not fit, with the numbers and the next smaller choice. */
static sill_status check_fits(sill_model *m, uint64_t weights, uint64_t import, uint64_t limit, sill_error *err) {
    const double mib = 1024.0 * 1024.0;
    uint64_t free_bytes = sill__device_available(m->ops, m->device, limit), smaller, other;
    char advice[160] = "take a smaller or a quantized model";
    if (free_bytes == 0 || weights + import <= free_bytes) return SILL_OK; /* 0: the system does not tell */
    if (import && weights <= free_bytes)
        return sill__fail(err, SILL_ENOFIT, "%s: the weights need %.1f MiB, their largest matrix %.1f MiB more while it is loaded, and "
                          "%.1f MiB are %s; take a smaller model", sill__file_path(m->file), (double)weights / mib,
                          (double)import / mib, (double)free_bytes / mib, limit ? "allowed" : "free");
    if (m->quantized) snprintf(advice, sizeof advice, "take a smaller model");
    /* The largest of the smaller types that fits; where none does, the smallest with its number. */
    static const struct { sill_dtype dtype; const char *name; } plain[] = {
        {SILL_DTYPE_BF16, "bf16"}, {SILL_DTYPE_Q8, "q8"}, {SILL_DTYPE_Q4, "q4"}}, stored[] = {{SILL_DTYPE_AUTO, "auto"}};
    const bool none = m->quantized && m->dtype != SILL_DTYPE_F32;
    for (size_t i = 0; !none && i < (m->quantized ? SILL_ARRAY_LEN(stored) : SILL_ARRAY_LEN(plain)); i++) {
        const char *name = m->quantized ? stored[i].name : plain[i].name;
        if (sill__model_weight_bytes(m->file, &m->config, m->ops, m->device, m->quantized ? stored[i].dtype : plain[i].dtype,
                                     &smaller, &other, NULL) != SILL_OK || smaller >= weights)
            continue;
        snprintf(advice, sizeof advice, "dtype %s would need %.1f MiB%s", name, (double)smaller / mib,
                 smaller <= free_bytes ? "" : ", still too much: take a smaller model");
        if (smaller <= free_bytes) break;
    }
    char type[16] = "stored";
    if (!m->quantized) dtype_text(m, type, sizeof type);
    return sill__fail(err, SILL_ENOFIT, "%s: the weights need %.1f MiB as %s and %.1f MiB are %s; %s",
                      sill__file_path(m->file), (double)weights / mib,
                      type, (double)free_bytes / mib,
                      limit ? "allowed" : "free", advice);
}

/* --------------------------------------------------------------- weights */

static sill_status load_vectors(sill_model *m, const sill__slots *slots, sill_error *err) {
    uint8_t *all = sill__calloc(1, SILL_MAX(slots->vector_bytes, (size_t)1));
    if (!all) return sill__fail(err, SILL_ENOMEM, "no memory for norms and biases");
    for (size_t i = 0; i < slots->n_vectors; i++) {
        const sill__vector *v = &slots->vectors[i];
        float *to = (float *)(void *)(all + v->at);
        size_t at = 0;
        for (int k = 0; k < v->n_parts; k++) {
            size_t n = (size_t)sill__tensor_elements(v->parts[k]);
            sill__dequant(v->parts[k]->type, v->parts[k]->data, to + at, n);
            at += n;
        }
        if (v->to != &m->inv_freq) continue;
        float *inv_freq = sill__calloc(v->n, sizeof *inv_freq);
        if (!inv_freq) {
            sill__free(all);
            return sill__fail(err, SILL_ENOMEM, "no memory for the rotary frequencies");
        }
        sill__rope_inv_freq(&m->config, inv_freq);
        for (size_t k = 0; k < v->n; k++) to[k] = v->n_parts ? inv_freq[k] / to[k] : inv_freq[k];
        sill__free(inv_freq);
    }
    m->vectors_bytes = slots->vector_bytes;
    sill_status s = m->ops->buf_create(m->device, slots->vector_bytes, &m->vectors, err);
    if (s == SILL_OK) {
        s = m->ops->buf_write(m->device, (sill__ref){m->vectors, 0}, all, slots->vector_bytes);
        if (s != SILL_OK) sill__fail(err, s, "cannot write norms and biases to the device");
    }
    for (size_t i = 0; s == SILL_OK && i < slots->n_vectors; i++)
        *slots->vectors[i].to = (sill__ref){m->vectors, slots->vectors[i].at};
    sill__free(all);
    return s;
}

static sill_status import_together(sill_model *m, const sill__slots *slots, bool keep, sill_error *err) {
    sill_status s = SILL_OK;
    const sill__weight_src **srcs = list_of(slots);
    sill__weight ***to = sill__calloc(slots->n_weights, sizeof *to);
    if (!srcs || !to) s = sill__fail(err, SILL_ENOMEM, "no memory for the list of weights");
    for (size_t i = 0; s == SILL_OK && i < slots->n_weights; i++) to[i] = slots->weights[i].to;
    if (s == SILL_OK) s = m->ops->weights_import(m->device, srcs, to, slots->n_weights, keep, err);
    sill__free(to);
    sill__free(srcs);
    return s;
}

static sill_status import_weights(sill_model *m, const sill__slots *slots, bool keep, sill_error *err) {
    sill_status s = load_vectors(m, slots, err);
    if (s == SILL_OK && m->ops->weights_import && !m->int8) return import_together(m, slots, keep, err);
    for (size_t i = 0; s == SILL_OK && i < slots->n_weights; i++) {
        const sill__slot *slot = &slots->weights[i];
        const bool stays = m->ops == sill__backend_ref(); /* the reference reads weights where they are stored */
        if (slot->rows8) s = sill__rows8_make(&slot->src, stays ? &m->rows8 : NULL, err);
        if (s == SILL_OK) s = m->ops->weight_import(m->device, &slot->src, slot->to, err);
        if (slot->rows8 && !stays) sill__rows8_drop(&slot->src);
    }
    return s;
}

/* Buffers that every GPT-2 checkpoint of old carries and no computation wants. */
static bool is_known_extra(const char *name) {
    static const char *const ends[] = {".attn.bias", ".attn.masked_bias", ".rotary_emb.inv_freq", ".SCB",
                                       ".weight_format"};
    size_t n = strlen(name);
    for (size_t i = 0; i < SILL_ARRAY_LEN(ends); i++) {
        size_t k = strlen(ends[i]);
        if (n >= k && !strcmp(name + n - k, ends[i])) return true;
    }
    return false;
}

static void warn_unused(const sill_model *m, const sill__slots *slots) {
    size_t n = 0;
    const char *first = NULL;
    for (size_t i = 0; i < sill__file_n_tensors(m->file); i++) {
        const sill__tensor *t = sill__file_tensor(m->file, i);
        bool used = is_known_extra(t->name) || sill__rows8_is(m->file, t->name);
        for (size_t k = 0; !used && k < slots->n_weights; k++)
            for (int p = 0; p < slots->weights[k].src.n_parts; p++) used = used || slots->weights[k].src.parts[p] == t;
        for (size_t k = 0; !used && k < slots->n_vectors; k++)
            for (int p = 0; p < slots->vectors[k].n_parts; p++) used = used || slots->vectors[k].parts[p] == t;
        if (used) continue;
        n++;
        if (!first) first = t->name;
    }
    if (n) sill__log(1, "%s: %zu tensors are not used by this model, the first is %s", sill__file_path(m->file), n, first);
}

/* ------------------------------------------------------------------ load */

/* The tokenizer is read beside the weights: it is one thread's work, and a good part of a start from the packed copy. */
typedef struct tokenizer_job { const sill__file *file; const char *path; sill_tokenizer *tokenizer; sill_status status; sill_error err; } tokenizer_job;

static void read_tokenizer(void *arg) {
    tokenizer_job *job = arg;
    job->status = job->path ? sill_tokenizer_load(job->path, &job->tokenizer, &job->err)
                            : sill__tokenizer_from_file(job->file, &job->tokenizer, &job->err);
}

static sill_status take_tokenizer(sill_model *m, const tokenizer_job *job, sill_error *err) {
    if (job->status == SILL_ENOENT && !job->path) return SILL_OK;
    if (job->status != SILL_OK) {
        if (err) *err = job->err;
        return job->status;
    }
    if (sill_tokenizer_n_vocab(m->tokenizer) > m->config.n_vocab)
        sill__log(1, "%s: the tokenizer knows %d tokens, the model only %d", sill__file_path(m->file),
                  sill_tokenizer_n_vocab(m->tokenizer), m->config.n_vocab);
    sill__config_add_ends(&m->config, m->file, m->tokenizer);
    return SILL_OK;
}

static sill_status load_weights(sill_model *m, const sill_model_options *o, const sill__slots *slots, sill_error *err) {
    m->n_params = slots->n_params;
    m->weight_bytes = slots_bytes(slots, m->ops, m->device);
    sill_status s = check_fits(m, slots_memory(slots, m->ops, m->device), import_bytes(slots, m->ops),
                               o->memory_limit_bytes, err);
    if (s == SILL_OK) s = import_weights(m, slots, !o->no_cache, err);
    if (s == SILL_OK) warn_unused(m, slots);
    return s;
}

/* Where the device comes from: its name, or (checks) its backend and how it is to be opened. */
typedef struct device_from { const sill__backend *ops; const sill__device_options *options; } device_from;

static sill_status open_device(sill_model *m, const sill_model_options *o, const sill__slots *slots, const device_from *from,
                               const sill__backend *behind, sill_error *err) {
    const sill__use use = use_of(m, slots);
    sill__device_options options = {.n_threads = o->n_threads, .use = &use};
    if (!from) return sill__device_open(o->device, &options, true, behind, &m->ops, &m->device, err);
    m->ops = from->ops;
    return from->ops->open(from->options, &m->device, err);
}

static void free_weight(sill_model *m, sill__weight **w) {
    if (*w) m->ops->weight_free(m->device, *w);
    *w = NULL;
}

/* Gives back all that the device holds of the model, and the device. */
static void leave_device(sill_model *m) {
    for (int32_t i = 0; m->layers && i < m->config.n_layers; i++) {
        free_weight(m, &m->layers[i].qkv);
        free_weight(m, &m->layers[i].attn_out);
        free_weight(m, &m->layers[i].mlp_in);
        free_weight(m, &m->layers[i].mlp_out);
    }
    free_weight(m, &m->wte);
    free_weight(m, &m->wpe);
    free_weight(m, &m->head);
    free_weight(m, &m->score);
    if (m->vectors) m->ops->buf_free(m->device, m->vectors);
    if (m->device) m->ops->close(m->device);
    m->vectors = NULL;
    m->device = NULL;
}

/* Opens the device and puts the weights there. Where the device was ours to choose and does not take the model, the next one. */
static sill_status settle_device(sill_model *m, const sill_model_options *o, const device_from *from, const sill__slots *slots,
                                 sill_error *err) {
    sill_error why = {.code = SILL_OK};
    for (const sill__backend *behind = NULL;; behind = m->ops) {
        sill_status s = open_device(m, o, slots, from, behind, &why);
        if (s == SILL_OK) s = check_support(m, slots, &why);
        if (s == SILL_OK) s = load_weights(m, o, slots, &why);
        if (s == SILL_OK || from || !m->device || !sill__device_may_pass(o->device, m->ops, s)) {
            if (s != SILL_OK && err) *err = why;
            return s;
        }
        sill__log(1, "device %s does not take this model, so the CPU is used: %s", m->ops->name, why.msg);
        leave_device(m);
    }
}

/* Of m->file. */
static sill_status load(const sill_model_options *o, const device_from *from, sill_model *m, sill__slots *slots, sill_error *err) {
    sill_status s = sill__config_read(m->file, &m->config, err);
    if (s == SILL_OK) s = settle_types(m, o->dtype, err);
    if (s != SILL_OK) return s;
    m->layers = sill__calloc((size_t)m->config.n_layers, sizeof *m->layers);
    if (!m->layers) return sill__fail(err, SILL_ENOMEM, "no memory for %d layers", m->config.n_layers);
    s = sill__slots_make(m, slots, err);
    if (s != SILL_OK) return s;
    tokenizer_job job = {.file = m->file, .path = o->tokenizer};
    sill__aside aside;
    bool beside = sill__aside_start(&aside, read_tokenizer, &job);
    if (!beside) read_tokenizer(&job);
    s = settle_device(m, o, from, slots, err);
    if (beside) sill__aside_join(&aside);
    m->tokenizer = job.status == SILL_OK ? job.tokenizer : NULL;
    return s == SILL_OK ? take_tokenizer(m, &job, err) : s;
}

/* Takes the file over. */
static sill_status load_file(sill__file *file, const sill_model_options *o, const device_from *from, sill_model **out,
                             sill_error *err) {
    sill__slots slots = {0};
    sill_model *m = sill__calloc(1, sizeof *m);
    if (!m) {
        sill__file_close(file);
        return sill__fail(err, SILL_ENOMEM, "no memory for a model");
    }
    m->file = file;
    m->shelf = sill__shelf_make();
    sill_status s = m->shelf ? load(o, from, m, &slots, err) : sill__fail(err, SILL_ENOMEM, "no memory for a model");
    sill__slots_free(&slots);
    if (s == SILL_OK) *out = m;
    else sill_model_free(m);
    return s;
}

sill_status sill_model_load(const char *path, const sill_model_options *options, sill_model **out, sill_error *err) {
    sill_model_options o;
    const sill__backend *ops;
    sill__file *file = NULL;
    if (!out) return sill__fail(err, SILL_EINVAL, "sill_model_load needs a place for the model");
    *out = NULL;
    if (!path || !*path) return sill__fail(err, SILL_EINVAL, "sill_model_load needs a path");
    sill_status s = sill__options_read(options, &o, sizeof o, "sill_model_options", err);
    if (s != SILL_OK) return s;
    if (o.n_threads < 0) return sill__fail(err, SILL_EINVAL, "%d threads; 0 means all cores", o.n_threads);
    s = sill__backend_find(o.device, &ops, err); /* a name that is not there, before anything is read */
    if (s == SILL_OK) s = sill__file_open(path, &file, err);
    return s == SILL_OK ? load_file(file, &o, NULL, out, err) : s;
}

sill_status sill__model_load_on(sill__file *file, const sill__backend *ops, const sill__device_options *device, sill_dtype dtype,
                                sill_model **out, sill_error *err) {
    sill_model_options o = {.size = sizeof o, .dtype = dtype, .no_cache = 1};
    *out = NULL;
    return load_file(file, &o, &(device_from){ops, device}, out, err);
}

void sill_model_free(sill_model *m) {
    if (!m) return;
    leave_device(m);
    sill_tokenizer_free(m->tokenizer);
    sill__shelf_free(m->shelf);
    sill__arena_free(&m->rows8);
    sill__free(m->layers);
    sill__config_free(&m->config);
    sill__file_close(m->file);
    sill__free(m);
}

/* ----------------------------------------------------- telling about it */

void sill__model_forward(const sill_model *m, sill__queue *queue, const sill__work *work) {
    switch (m->config.family) {
    case SILL__FAMILY_GPT2: sill__gpt2_forward(m, queue, work); break;
    case SILL__FAMILY_LLAMA: sill__llama_forward(m, queue, work); break;
    }
}

bool sill__model_is_eos(const sill_model *m, int32_t id) {
    for (int32_t i = 0; i < m->config.n_eos; i++)
        if (m->config.eos_ids[i] == id) return true;
    return false;
}

const sill_tokenizer *sill_model_tokenizer(const sill_model *m) { return m->tokenizer; }

const char *sill_model_label(const sill_model *m, int32_t i) {
    return i >= 0 && i < m->config.n_labels ? m->config.labels[i] : NULL;
}

void sill_model_get_info(const sill_model *m, sill_model_info *info, size_t info_size) {
    sill_model_info i = {0};
    const sill__config *c = &m->config;
    snprintf(i.family, sizeof i.family, "%s", c->family == SILL__FAMILY_GPT2 ? "gpt2" : "llama");
    m->ops->describe(m->device, i.device, sizeof i.device);
    snprintf(i.stored_type, sizeof i.stored_type, "%s", sill__type_get(m->main_type)->name);
    dtype_text(m, i.dtype, sizeof i.dtype);
    i.n_layers = c->n_layers;
    i.n_heads = c->n_heads;
    i.n_kv_heads = c->n_kv_heads;
    i.head_dim = c->head_dim;
    i.n_embd = c->n_embd;
    i.n_ff = c->n_ff;
    i.n_ctx = c->n_ctx;
    i.n_vocab = c->n_vocab;
    i.n_labels = c->n_labels;
    if (c->n_labels > 0)
        snprintf(i.problem_type, sizeof i.problem_type, "%s", c->problem == SILL__PROBLEM_REGRESSION ? "regression" :
                 c->problem == SILL__PROBLEM_MULTI ? "multi_label_classification" : "single_label_classification");
    i.n_params = m->n_params;
    i.weight_bytes = m->weight_bytes;
    i.bos_id = c->bos_id;
    i.eos_id = c->n_eos ? c->eos_ids[0] : -1;
    i.pad_id = c->pad_id;
    if (m->tokenizer) {
        if (i.bos_id < 0) i.bos_id = sill__tokenizer_bos(m->tokenizer);
        if (i.pad_id < 0) i.pad_id = sill__tokenizer_pad(m->tokenizer);
        i.add_bos = sill__tokenizer_add_bos(m->tokenizer);
        i.is_instruct = sill__chat_kind(m->tokenizer) != SILL__CHAT_NONE;
    }
    i.n_threads = m->ops->n_threads(m->device);
    sill__check_record record;
    (void)sill__check_recall(m->ops, m->device, &record);
    sill__check_record_text(&record, i.device_check, sizeof i.device_check);
    memcpy(info, &i, SILL_MIN(info_size, sizeof i));
}
