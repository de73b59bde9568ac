/*
 * export.c - see export.h. The names on the left are transformers', those on the right llama.cpp's.
 */
#include "model/export.h"

#include <stdio.h>

#include "model/family.h"

typedef struct rule { const char *hub, *gguf; } rule;

static const rule gpt2_layer[] = {
    {"ln_1.weight", "attn_norm.weight"}, {"ln_1.bias", "attn_norm.bias"},
    {"attn.c_attn.weight", "attn_qkv.weight"}, {"attn.c_attn.bias", "attn_qkv.bias"},
    {"attn.c_proj.weight", "attn_output.weight"}, {"attn.c_proj.bias", "attn_output.bias"},
    {"ln_2.weight", "ffn_norm.weight"}, {"ln_2.bias", "ffn_norm.bias"},
    {"mlp.c_fc.weight", "ffn_up.weight"}, {"mlp.c_fc.bias", "ffn_up.bias"},
    {"mlp.c_proj.weight", "ffn_down.weight"}, {"mlp.c_proj.bias", "ffn_down.bias"},
};
static const rule gpt2_outer[] = {
    {"wte.weight", "token_embd.weight"}, {"wpe.weight", "position_embd.weight"},
    {"ln_f.weight", "output_norm.weight"}, {"ln_f.bias", "output_norm.bias"},
};
static const rule llama_layer[] = {
    {"input_layernorm.weight", "attn_norm.weight"}, {"post_attention_layernorm.weight", "ffn_norm.weight"},
    {"self_attn.q_proj.weight", "attn_q.weight"}, {"self_attn.q_proj.bias", "attn_q.bias"},
    {"self_attn.k_proj.weight", "attn_k.weight"}, {"self_attn.k_proj.bias", "attn_k.bias"},
    {"self_attn.v_proj.weight", "attn_v.weight"}, {"self_attn.v_proj.bias", "attn_v.bias"},
    {"self_attn.o_proj.weight", "attn_output.weight"}, {"self_attn.o_proj.bias", "attn_output.bias"},
    {"mlp.gate_proj.weight", "ffn_gate.weight"}, {"mlp.gate_proj.bias", "ffn_gate.bias"},
    {"mlp.up_proj.weight", "ffn_up.weight"}, {"mlp.up_proj.bias", "ffn_up.bias"},
    {"mlp.down_proj.weight", "ffn_down.weight"}, {"mlp.down_proj.bias", "ffn_down.bias"},
};
static const rule llama_outer[] = {{"embed_tokens.weight", "token_embd.weight"}, {"norm.weight", "output_norm.weight"}};

static bool starts(const char *s, const char *with) { return !strncmp(s, with, strlen(with)); }

static sill__copy *add(sill__export *e, const sill__tensor *t, sill_error *err) {
    if (e->n == e->cap) {
        size_t cap = e->cap ? e->cap * 2 : 64;
        sill__copy *p = sill__realloc(e->copies, cap * sizeof *p);
        if (!p) {
            sill__fail(err, SILL_ENOMEM, "no memory for the list of tensors");
            return NULL;
        }
        e->copies = p;
        e->cap = cap;
    }
    sill__copy *c = &e->copies[e->n++];
    memset(c, 0, sizeof *c);
    c->src = t;
    if (!t) return c;
    c->type = t->type;
    c->n_dims = t->n_dims;
    memcpy(c->dims, t->dims, sizeof c->dims);
    return c;
}

static double bits_of(sill__type type) {
    const sill__type_info *info = sill__type_get(type);
    return 8.0 * info->block_bytes / info->block;
}

/* A matrix gets the wanted type where that makes it smaller and its rows are whole blocks. */
static void shrink(sill__export *e, sill__copy *c, sill__type want) {
    if (c->n_dims != 2 || c->dims[1] % 32 || bits_of(c->type) <= bits_of(want)) return;
    c->type = want;
    e->reduced = true;
}

static void turn(sill__copy *c) {
    uint64_t rows = c->dims[1];
    c->dims[1] = c->dims[0];
    c->dims[0] = rows;
    c->transposed = true;
}

/* ---- from GGUF */

static sill_status from_gguf(const sill__file *file, sill__type body, sill__type outer, sill__export *e, sill_error *err) {
    for (size_t i = 0; i < sill__file_n_tensors(file); i++) {
        const sill__tensor *t = sill__file_tensor(file, i);
        sill__copy *c = add(e, t, err);
        if (!c) return SILL_ENOMEM;
        if (strlen(t->name) >= sizeof c->name)
            return sill__fail(err, SILL_EUNSUPPORTED, "the tensor name %.64s... is too long", t->name);
        snprintf(c->name, sizeof c->name, "%s", t->name);
        bool is_outer = !strcmp(t->name, "token_embd.weight") || !strcmp(t->name, "output.weight");
        size_t n = strlen(t->name);
        bool weight = n > 7 && !strcmp(t->name + n - 7, ".weight") && starts(t->name, "blk.");
        if (is_outer || weight) shrink(e, c, is_outer ? outer : body);
    }
    return SILL_OK;
}

static void copy_meta(const sill__file *file, sill__gguf_head *h) {
    static const char *const ours[] = {"general.file_type", "general.quantization_version", "general.alignment"};
    for (size_t i = 0; i < sill__file_n_meta(file); i++) {
        const sill__meta *m = sill__file_meta(file, i);
        bool skip = false;
        for (size_t k = 0; k < SILL_ARRAY_LEN(ours); k++) skip = skip || !strcmp(m->key, ours[k]);
        if (!skip) sill__gguf_meta(h, m);
    }
}

/* ---- from safetensors */

static const rule *find_rule(const rule *rules, size_t n, const char *name) {
    for (size_t i = 0; i < n; i++)
        if (!strcmp(rules[i].hub, name)) return &rules[i];
    return NULL;
}

/* "h.3.attn.c_attn.weight" -> 3 and the rest; false for other names. */
static bool layer_of(const char *name, const char *prefix, int32_t *layer, const char **rest) {
    size_t n = strlen(prefix), digits;
    if (!starts(name, prefix)) return false;
    name += n;
    digits = strspn(name, "0123456789");
    if (digits == 0 || digits > 6 || name[digits] != '.') return false;
    *layer = 0;
    for (size_t i = 0; i < digits; i++) *layer = *layer * 10 + (name[i] - '0');
    *rest = name + digits + 1;
    return true;
}

static sill_status add_factors(const sill__config *c, sill__export *e, sill_error *err) {
    sill__config plain = *c;
    int32_t n = c->rope_dims / 2;
    float *base = sill__calloc((size_t)n, sizeof *base);
    e->factors = sill__calloc((size_t)n, sizeof *e->factors);
    sill__copy *copy = base && e->factors ? add(e, NULL, err) : NULL;
    if (!copy) {
        sill__free(base);
        return sill__fail(err, SILL_ENOMEM, "no memory for the rotary factors");
    }
    plain.rope_scaling = SILL__ROPE_SCALING_NONE;
    sill__rope_inv_freq(&plain, base);
    sill__rope_inv_freq(c, e->factors);
    for (int32_t i = 0; i < n; i++) e->factors[i] = base[i] / e->factors[i];
    sill__free(base);
    snprintf(copy->name, sizeof copy->name, "rope_freqs.weight");
    copy->type = SILL__TYPE_F32;
    copy->n_dims = 1;
    copy->dims[0] = (uint64_t)n;
    copy->values = e->factors;
    return SILL_OK;
}

/* NAME behind the prefix that this checkpoint's names have (as the loader finds it); NULL where it lacks it. */
static const char *inner_name(const sill__file *file, const sill__config *c, const char *name) {
    const bool gpt2 = c->family == SILL__FAMILY_GPT2;
    const char *prefix = gpt2 ? "transformer." : "model.";
    if (!sill__file_find(file, gpt2 ? "transformer.h.0.ln_1.weight" : "model.norm.weight")) return name;
    return starts(name, prefix) ? name + strlen(prefix) : NULL;
}

static sill_status from_hub(const sill__file *file, const sill__config *c, sill__type body, sill__type outer, sill__export *e,
                            sill_error *err) {
    const bool gpt2 = c->family == SILL__FAMILY_GPT2;
    for (size_t i = 0; i < sill__file_n_tensors(file); i++) {
        const sill__tensor *t = sill__file_tensor(file, i);
        const char *name = inner_name(file, c, t->name), *rest;
        int32_t layer;
        const rule *r;
        if (!name) name = "";
        bool in_layer = layer_of(name, gpt2 ? "h." : "layers.", &layer, &rest) && layer < c->n_layers;
        bool head = !strcmp(t->name, "lm_head.weight");
        if (in_layer) r = gpt2 ? find_rule(gpt2_layer, SILL_ARRAY_LEN(gpt2_layer), rest) : find_rule(llama_layer, SILL_ARRAY_LEN(llama_layer), rest);
        else r = gpt2 ? find_rule(gpt2_outer, SILL_ARRAY_LEN(gpt2_outer), name) : find_rule(llama_outer, SILL_ARRAY_LEN(llama_outer), name);
        if (!r && !head) continue; /* buffers of old checkpoints: the loader knows and warns of others */
        const char *to = head ? "output.weight" : r->gguf;
        if (head && c->tied && !sill__file_find(file, gpt2 ? "wte.weight" : "embed_tokens.weight") &&
            !sill__file_find(file, gpt2 ? "transformer.wte.weight" : "model.embed_tokens.weight"))
            to = "token_embd.weight"; /* saved once, under the head's name */
        sill__copy *copy = add(e, t, err);
        if (!copy) return SILL_ENOMEM;
        if (in_layer) snprintf(copy->name, sizeof copy->name, "blk.%d.%s", layer, to);
        else snprintf(copy->name, sizeof copy->name, "%s", to);
        bool qk = in_layer && !gpt2 && (starts(to, "attn_q.") || starts(to, "attn_k."));
        if (qk) copy->rotary_heads = (uint64_t)(starts(to, "attn_q.") ? c->n_heads : c->n_kv_heads);
        if (gpt2 && in_layer && copy->n_dims == 2 && !sill__file_is_linear(file)) turn(copy);
        if (copy->n_dims == 1 || !strcmp(to, "position_embd.weight")) copy->type = SILL__TYPE_F32;
        else shrink(e, copy, in_layer ? body : outer);
    }
    return c->rope_scaling == SILL__ROPE_SCALING_LLAMA3 ? add_factors(c, e, err) : SILL_OK;
}

/* What llama.cpp's forward pass of the family cannot do. */
static sill_status expressible(const sill__config *c, sill_error *err) {
    const char *what = NULL;
    if (c->n_labels > 0) what = "a classification head";
    else if (c->family == SILL__FAMILY_GPT2 && c->act != SILL__ACT_GELU_TANH) what = "GPT-2 with an activation other than gelu_new";
    else if (c->attn_scale_by_layer) what = "scale_attn_by_inverse_layer_idx";
    else if (c->family == SILL__FAMILY_GPT2 && c->attn_scale == 1 && c->head_dim != 1) what = "scale_attn_weights false";
    return what ? sill__fail(err, SILL_EUNSUPPORTED, "%s does not fit a GGUF; safetensors keep it (sill quantize --to int8 does too)", what) : SILL_OK;
}

static void make_meta(const sill__config *c, const char *name, sill__gguf_head *h) {
    const bool gpt2 = c->family == SILL__FAMILY_GPT2;
    const char *arch = gpt2 ? "gpt2" : "llama";
    char key[96];
#define KEY(k) (snprintf(key, sizeof key, "%s.%s", arch, k), key)
    sill__gguf_string(h, "general.architecture", arch, strlen(arch));
    sill__gguf_string(h, "general.type", "model", 5);
    sill__gguf_string(h, "general.name", name, strlen(name));
    sill__gguf_u32(h, KEY("block_count"), (uint32_t)c->n_layers);
    sill__gguf_u32(h, KEY("context_length"), (uint32_t)c->n_ctx);
    sill__gguf_u32(h, KEY("embedding_length"), (uint32_t)c->n_embd);
    sill__gguf_u32(h, KEY("feed_forward_length"), (uint32_t)c->n_ff);
    sill__gguf_u32(h, KEY("attention.head_count"), (uint32_t)c->n_heads);
    if (gpt2) {
        sill__gguf_f32(h, KEY("attention.layer_norm_epsilon"), c->norm_eps);
        return;
    }
    sill__gguf_u32(h, KEY("attention.head_count_kv"), (uint32_t)c->n_kv_heads);
    sill__gguf_f32(h, KEY("attention.layer_norm_rms_epsilon"), c->norm_eps);
    sill__gguf_u32(h, KEY("attention.key_length"), (uint32_t)c->head_dim);
    sill__gguf_u32(h, KEY("attention.value_length"), (uint32_t)c->head_dim);
    sill__gguf_u32(h, KEY("vocab_size"), (uint32_t)c->n_vocab);
    sill__gguf_u32(h, KEY("rope.dimension_count"), (uint32_t)c->rope_dims);
    sill__gguf_f32(h, KEY("rope.freq_base"), (float)c->rope_base);
    if (c->rope_scaling == SILL__ROPE_SCALING_LINEAR) {
        sill__gguf_string(h, KEY("rope.scaling.type"), "linear", 6);
        sill__gguf_f32(h, KEY("rope.scaling.factor"), (float)c->rope_factor);
    }
#undef KEY
}

/* GGUF's number for the type of most weights in matrices. */
static uint32_t file_type(const sill__export *e) {
    static const struct { sill__type type; uint32_t number; } numbers[] = {
        {SILL__TYPE_F32, 0}, {SILL__TYPE_F16, 1}, {SILL__TYPE_Q4_0, 2}, {SILL__TYPE_Q4_1, 3}, {SILL__TYPE_Q8_0, 7}, {SILL__TYPE_Q5_0, 8},
        {SILL__TYPE_Q5_1, 9}, {SILL__TYPE_Q4_K, 15}, {SILL__TYPE_Q5_K, 17}, {SILL__TYPE_Q6_K, 18}, {SILL__TYPE_BF16, 32}};
    uint64_t count[SILL__TYPE_COUNT] = {0};
    sill__type best = SILL__TYPE_F32;
    for (size_t i = 0; i < e->n; i++)
        if (e->copies[i].n_dims == 2 && (count[e->copies[i].type] += e->copies[i].dims[0] * e->copies[i].dims[1]) > count[best])
            best = e->copies[i].type;
    for (size_t i = 0; i < SILL_ARRAY_LEN(numbers); i++)
        if (numbers[i].type == best) return numbers[i].number;
    return 0;
}

/* Codes without their scales are no weights. */
static sill_status check_source(const sill__file *file, sill_error *err) {
    return sill__rows8_any(file) ? sill__fail(err, SILL_EUNSUPPORTED, "%s holds weights quantized as int8; quantize the original",
                                              sill__file_path(file)) : SILL_OK;
}

sill_status sill__export_gguf(const sill__file *file, const sill__config *c, const sill_tokenizer *tokenizer, const char *name,
                              sill__type body, sill__type outer, sill__export *e, sill_error *err) {
    memset(e, 0, sizeof *e);
    sill__gguf_init(&e->head);
    const bool gguf = sill__file_get_kind(file) == SILL__FILE_GGUF;
    sill_status s = check_source(file, err);
    if (s == SILL_OK && !gguf) s = expressible(c, err);
    if (s == SILL_OK) s = gguf ? from_gguf(file, body, outer, e, err) : from_hub(file, c, body, outer, e, err);
    if (s == SILL_OK && gguf) copy_meta(file, &e->head);
    if (s == SILL_OK && !gguf) {
        make_meta(c, name, &e->head);
        if (tokenizer) s = sill__tokenizer_to_gguf(tokenizer, (uint32_t)c->n_vocab, &e->head, err);
    }
    if (s == SILL_OK) {
        sill__gguf_u32(&e->head, "general.file_type", body == SILL__TYPE_Q8_0 ? 7 : body == SILL__TYPE_Q4_1 ? 3 : file_type(e));
        sill__gguf_u32(&e->head, "general.quantization_version", 2);
        if (e->head.text.failed) s = sill__fail(err, SILL_ENOMEM, "no memory for the metadata");
    }
    if (s != SILL_OK) sill__export_free(e);
    return s;
}

/* ---- safetensors */

/* True for what the model is made of: buffers, and what training left, are not. */
static bool is_of_model(const sill__file *file, const sill__config *c, const sill__tensor *t, bool *matrix) {
    const bool gpt2 = c->family == SILL__FAMILY_GPT2;
    const char *name = inner_name(file, c, t->name), *rest;
    int32_t layer;
    *matrix = false;
    if (!strcmp(t->name, "score.weight")) return c->n_labels > 0;
    if (!strcmp(t->name, "lm_head.weight")) return c->n_labels == 0;
    if (!name) return false;
    if (layer_of(name, gpt2 ? "h." : "layers.", &layer, &rest) && layer < c->n_layers) {
        *matrix = t->n_dims == 2;
        return gpt2 ? find_rule(gpt2_layer, SILL_ARRAY_LEN(gpt2_layer), rest) != NULL
                    : find_rule(llama_layer, SILL_ARRAY_LEN(llama_layer), rest) != NULL;
    }
    return gpt2 ? find_rule(gpt2_outer, SILL_ARRAY_LEN(gpt2_outer), name) != NULL
                : find_rule(llama_outer, SILL_ARRAY_LEN(llama_outer), name) != NULL;
}

/* The head is the embedding's bytes, which transformers ties by the configuration. */
static bool is_tied_copy(const sill__file *file, const sill__config *c, const sill__tensor *t) {
    static const char *const names[] = {"transformer.wte.weight", "wte.weight", "model.embed_tokens.weight", "embed_tokens.weight"};
    for (size_t i = 0; c->tied && !strcmp(t->name, "lm_head.weight") && i < SILL_ARRAY_LEN(names); i++) {
        const sill__tensor *w = sill__file_find(file, names[i]);
        if (w && w->type == t->type && w->bytes == t->bytes && !memcmp(w->data, t->data, t->bytes)) return true;
    }
    return false;
}

sill_status sill__export_plain(const sill__file *file, const sill__config *config, sill__export *e, sill_error *err) {
    sill_status s = check_source(file, err);
    memset(e, 0, sizeof *e);
    sill__gguf_init(&e->head);
    if (s == SILL_OK && sill__file_get_kind(file) == SILL__FILE_GGUF)
        s = sill__fail(err, SILL_EUNSUPPORTED, "%s: safetensors are not written from a GGUF; take the checkpoint that it was made of",
                       sill__file_path(file));
    for (size_t i = 0; s == SILL_OK && i < sill__file_n_tensors(file); i++) {
        const sill__tensor *t = sill__file_tensor(file, i);
        bool matrix;
        if (!is_of_model(file, config, t, &matrix) || is_tied_copy(file, config, t)) continue;
        sill__copy *c = add(e, t, err);
        if (!c) s = SILL_ENOMEM;
        else if (strlen(t->name) >= sizeof c->name) s = sill__fail(err, SILL_EUNSUPPORTED, "the tensor name %.64s... is too long", t->name);
        else snprintf(c->name, sizeof c->name, "%s", t->name);
        if (s == SILL_OK && matrix && config->family == SILL__FAMILY_GPT2 && sill__file_is_linear(file)) turn(c);
    }
    if (s != SILL_OK) sill__export_free(e);
    return s;
}

/* ---- LLM.int8 */

/* The matrices of a layer; norms are vectors. */
static bool is_layer_matrix(const sill__file *file, const sill__config *c, const sill__tensor *t) {
    const bool gpt2 = c->family == SILL__FAMILY_GPT2;
    const char *name = inner_name(file, c, t->name), *rest;
    int32_t layer;
    if (t->n_dims != 2 || !name || !layer_of(name, gpt2 ? "h." : "layers.", &layer, &rest) || layer >= c->n_layers) return false;
    return gpt2 ? find_rule(gpt2_layer, SILL_ARRAY_LEN(gpt2_layer), rest) != NULL
                : find_rule(llama_layer, SILL_ARRAY_LEN(llama_layer), rest) != NULL;
}

static sill_status add_int8(const sill__tensor *t, bool transposed, sill__export *e, sill_error *err) {
    sill__copy *c;
    size_t stem = strlen(t->name) - strlen("weight");
    if (sill__type_get(t->type)->block > 1) return sill__fail(err, SILL_EUNSUPPORTED, "tensor %s is quantized already", t->name);
    if (!(c = add(e, t, err))) return SILL_ENOMEM;
    snprintf(c->name, sizeof c->name, "%s", t->name);
    c->type = SILL__TYPE_I8;
    c->row_scales = true;
    if (transposed) turn(c);
    const uint64_t rows = c->dims[0];
    if (!(c = add(e, t, err))) return SILL_ENOMEM;
    snprintf(c->name, sizeof c->name, "%.*sSCB", (int)stem, t->name);
    c->type = SILL__TYPE_F32;
    c->row_scales = true;
    c->transposed = transposed;
    c->n_dims = 1;
    c->dims[0] = rows;
    if (!(c = add(e, NULL, err))) return SILL_ENOMEM;
    snprintf(c->name, sizeof c->name, "%.*sweight_format", (int)stem, t->name);
    c->type = SILL__TYPE_U8;
    c->row_format = true;
    e->reduced = true;
    return SILL_OK;
}

sill_status sill__export_int8(const sill__file *file, const sill__config *config, sill__export *e, sill_error *err) {
    sill_status s = check_source(file, err);
    memset(e, 0, sizeof *e);
    sill__gguf_init(&e->head);
    if (sill__file_get_kind(file) == SILL__FILE_GGUF)
        return sill__fail(err, SILL_EUNSUPPORTED, "%s: LLM.int8 is written from a safetensors checkpoint, not from a GGUF; take "
                          "--to q8", sill__file_path(file));
    for (size_t i = 0; s == SILL_OK && i < sill__file_n_tensors(file); i++) {
        const sill__tensor *t = sill__file_tensor(file, i);
        if (strlen(t->name) + 8 >= sizeof e->copies->name)
            s = sill__fail(err, SILL_EUNSUPPORTED, "the tensor name %.64s... is too long", t->name);
        else if (is_layer_matrix(file, config, t))
            s = add_int8(t, config->family == SILL__FAMILY_GPT2 && !sill__file_is_linear(file), e, err);
        else {
            sill__copy *c = add(e, t, err);
            if (c) snprintf(c->name, sizeof c->name, "%s", t->name);
            else s = SILL_ENOMEM;
        }
    }
    if (s != SILL_OK) sill__export_free(e);
    return s;
}

void sill__export_free(sill__export *e) {
    sill__str_free(&e->head.text);
    sill__free(e->copies);
    sill__free(e->factors);
    memset(e, 0, sizeof *e);
}
