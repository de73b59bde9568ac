/*
 * config_gguf.c - the configuration of a GGUF: metadata under the architecture's name, as llama.cpp's
 * conversion scripts write it.
 */
#include "model/family.h"

#include <math.h>
#include <stdio.h>

typedef struct meta {
    const sill__file *file;
    const char *arch;
    sill_status status;
    sill_error *err;
} meta;

static const char *key_of(const meta *m, const char *name, char *key, size_t cap) {
    snprintf(key, cap, "%s.%s", m->arch, name);
    return key;
}

/* A number under the architecture; MISSING when absent and not REQUIRED. */
static int32_t get_int(meta *m, const char *name, bool required, int32_t missing) {
    char key[96];
    int64_t v;
    if (m->status != SILL_OK) return missing;
    const sill__meta *there = sill__file_find_meta(m->file, key_of(m, name, key, sizeof key));
    if (!there && !required) return missing;
    if (!there) m->status = sill__fail(m->err, SILL_EFORMAT, "%s: %s is missing", sill__file_path(m->file), key);
    else if (there->kind == SILL__META_ARRAY)
        m->status = sill__fail(m->err, SILL_EUNSUPPORTED, "%s: %s differs by layer, which is not supported",
                               sill__file_path(m->file), key);
    else if (!sill__meta_int(m->file, key, &v) || v < INT32_MIN || v > INT32_MAX)
        m->status = sill__fail(m->err, SILL_EFORMAT, "%s: %s is not a whole number of 32 bits",
                               sill__file_path(m->file), key);
    return m->status == SILL_OK ? (int32_t)v : missing;
}

static double get_float(meta *m, const char *name, double missing) {
    char key[96];
    double v;
    if (m->status != SILL_OK || !sill__file_find_meta(m->file, key_of(m, name, key, sizeof key))) return missing;
    if (sill__meta_float(m->file, key, &v)) return v;
    m->status = sill__fail(m->err, SILL_EFORMAT, "%s: %s is not a number", sill__file_path(m->file), key);
    return missing;
}

static void refuse(meta *m, const char *what) {
    if (m->status == SILL_OK)
        m->status = sill__fail(m->err, SILL_EUNSUPPORTED, "%s: %s is not supported", sill__file_path(m->file), what);
}

static void read_rope(meta *m, sill__config *c) {
    char key[96], what[128];
    const char *type;
    size_t n;
    c->rope = SILL__ROPE_ADJACENT; /* the rows of q and k are permuted on conversion */
    c->rope_dims = get_int(m, "rope.dimension_count", false, c->head_dim);
    c->rope_base = get_float(m, "rope.freq_base", 10000);
    c->rope_factor = get_float(m, "rope.scaling.factor", 1);
    double old = get_float(m, "rope.scale_linear", 1); /* the older name of a linear factor */
    const sill__meta *there = sill__file_find_meta(m->file, key_of(m, "rope.scaling.type", key, sizeof key));
    if (there && there->kind != SILL__META_STRING && m->status == SILL_OK)
        m->status = sill__fail(m->err, SILL_EFORMAT, "%s: %s is not a string", sill__file_path(m->file), key);
    if (sill__meta_string(m->file, key, &type, &n)) {
        if (n == 6 && !memcmp(type, "linear", 6)) c->rope_scaling = SILL__ROPE_SCALING_LINEAR;
        else if (!(n == 4 && !memcmp(type, "none", 4))) {
            snprintf(what, sizeof what, "rotary scaling \"%.*s\"", (int)SILL_MIN(n, (size_t)64), type);
            refuse(m, what);
        }
    } else if (old != 1 && old != 0) {
        c->rope_scaling = SILL__ROPE_SCALING_LINEAR;
        c->rope_factor = old;
    }
}

static void read_gpt2(meta *m, sill__config *c) {
    c->family = SILL__FAMILY_GPT2;
    c->act = SILL__ACT_GELU_TANH;
    c->norm_eps = (float)get_float(m, "attention.layer_norm_epsilon", 1e-5);
    c->head_dim = c->n_heads > 0 ? c->n_embd / c->n_heads : 0;
    if (m->status == SILL_OK && (c->n_heads < 1 || c->n_embd % c->n_heads))
        m->status = sill__fail(m->err, SILL_EFORMAT, "%s: an embedding of %d does not divide into %d heads",
                               sill__file_path(m->file), c->n_embd, c->n_heads);
}

static void read_llama(meta *m, sill__config *c) {
    c->family = SILL__FAMILY_LLAMA;
    c->act = SILL__ACT_SWIGLU;
    c->n_kv_heads = get_int(m, "attention.head_count_kv", false, c->n_heads);
    c->norm_eps = (float)get_float(m, "attention.layer_norm_rms_epsilon", 1e-5);
    c->head_dim = get_int(m, "attention.key_length", false, c->n_heads > 0 ? c->n_embd / c->n_heads : 0);
    if (get_int(m, "attention.value_length", false, c->head_dim) != c->head_dim)
        refuse(m, "a value size other than the key size");
    if (get_int(m, "expert_count", false, 0) > 0) refuse(m, "a mixture of experts");
    if (get_int(m, "attention.sliding_window", false, 0) > 0) refuse(m, "a sliding attention window");
    c->attn_bias = sill__file_find(m->file, "blk.0.attn_q.bias") != NULL;
    c->mlp_bias = sill__file_find(m->file, "blk.0.ffn_gate.bias") != NULL;
    read_rope(m, c);
}

static void read_id(const sill__file *file, const char *key, int32_t *out) {
    int64_t id;
    if (sill__meta_int(file, key, &id) && id >= 0 && id <= INT32_MAX) *out = (int32_t)id;
}

sill_status sill__config_gguf(const sill__file *file, sill__config *c, sill_error *err) {
    char name[64];
    const char *arch;
    size_t n;
    if (!sill__meta_string(file, "general.architecture", &arch, &n))
        return sill__fail(err, SILL_EFORMAT, "%s: general.architecture is missing", sill__file_path(file));
    snprintf(name, sizeof name, "%.*s", (int)SILL_MIN(n, sizeof name - 1), arch);
    if (strcmp(name, "gpt2") && strcmp(name, "llama"))
        return sill__fail(err, SILL_EUNSUPPORTED, "%s: models of the family \"%s\" are not supported; sill runs "
                          SILL__FAMILIES, sill__file_path(file), name);
    meta m = {file, name, SILL_OK, err};
    c->n_layers = get_int(&m, "block_count", true, 0);
    c->n_heads = c->n_kv_heads = get_int(&m, "attention.head_count", true, 0);
    c->n_embd = get_int(&m, "embedding_length", true, 0);
    c->n_ctx = get_int(&m, "context_length", true, 0);
    c->n_ff = get_int(&m, "feed_forward_length", true, 0);
    const sill__tensor *wte = sill__file_find(file, "token_embd.weight");
    if (m.status == SILL_OK && !wte)
        m.status = sill__fail(err, SILL_EFORMAT, "%s: tensor token_embd.weight is missing", sill__file_path(file));
    if (m.status == SILL_OK && (wte->n_dims != 2 || wte->dims[0] > INT32_MAX))
        m.status = sill__fail(err, SILL_EFORMAT, "%s: tensor token_embd.weight is no matrix of a vocabulary",
                              sill__file_path(file));
    if (m.status != SILL_OK) return m.status;
    c->n_vocab = (int32_t)wte->dims[0];
    c->tied = sill__file_find(file, "output.weight") == NULL;
    if (name[0] == 'g') read_gpt2(&m, c);
    else read_llama(&m, c);
    int32_t end = -1;
    read_id(file, "tokenizer.ggml.eos_token_id", &end);
    sill__config_add_eos(c, end);
    end = -1;
    read_id(file, "tokenizer.ggml.eot_token_id", &end);
    sill__config_add_eos(c, end);
    read_id(file, "tokenizer.ggml.bos_token_id", &c->bos_id);
    read_id(file, "tokenizer.ggml.padding_token_id", &c->pad_id);
    return m.status;
}
