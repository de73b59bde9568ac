/*
 * config.c - the configuration of a model: which family it is, that its numbers make sense, and what
 * follows from them. The two places they are read from are in config_json.c and config_gguf.c.
 */
#include "model/family.h"
#include "tokenizer/chat_form.h"

#include <math.h>

void sill__config_add_eos(sill__config *c, int64_t id) {
    if (id < 0 || id > INT32_MAX) return;
    for (int32_t i = 0; i < c->n_eos; i++)
        if (c->eos_ids[i] == id) return;
    if (c->n_eos < (int32_t)SILL_ARRAY_LEN(c->eos_ids)) c->eos_ids[c->n_eos++] = (int32_t)id;
    else c->eos_cut = true;
}

void sill__config_add_ends(sill__config *c, const sill__file *file, const sill_tokenizer *t) {
    static const char *const ends[] = {"<|endoftext|>", "<|im_end|>", "<|eot_id|>", "<|end_of_text|>", "<|end|>"};
    if (c->n_eos == 0 && sill__tokenizer_eos(t) < c->n_vocab) sill__config_add_eos(c, sill__tokenizer_eos(t));
    if (sill__file_get_kind(file) != SILL__FILE_GGUF) {
        /* generation_config.json names all of them but, at times, the end of a turn. */
        sill__config_add_eos(c, sill__chat_end(t));
        return;
    }
    for (size_t i = 0; i < SILL_ARRAY_LEN(ends); i++) {
        int32_t id = sill__tokenizer_find(t, ends[i], strlen(ends[i]));
        if (id >= 0 && id < c->n_vocab && sill__tokenizer_is_special(t, id)) sill__config_add_eos(c, id);
    }
}

bool sill__config_act(const char *name, sill__act *act) {
    static const struct { const char *name; sill__act act; } acts[] = {
        {"gelu_new", SILL__ACT_GELU_TANH},  {"gelu_pytorch_tanh", SILL__ACT_GELU_TANH},
        {"gelu_fast", SILL__ACT_GELU_TANH}, {"gelu", SILL__ACT_GELU_ERF},
        {"gelu_python", SILL__ACT_GELU_ERF}, {"relu", SILL__ACT_RELU},
        {"silu", SILL__ACT_SILU},           {"swish", SILL__ACT_SILU},
        {"tanh", SILL__ACT_TANH},
    };
    for (size_t i = 0; i < SILL_ARRAY_LEN(acts); i++)
        if (!strcmp(acts[i].name, name)) {
            *act = acts[i].act;
            return true;
        }
    return false;
}

/* As transformers' _compute_*_rope_parameters do it, in f32 where they do. */
void sill__rope_inv_freq(const sill__config *c, float *out) {
    const double two_pi = 6.283185307179586;
    for (int32_t i = 0; i < c->rope_dims / 2; i++) {
        float exponent = (float)(2 * i) / (float)c->rope_dims;
        float f = 1.0f / (float)pow(c->rope_base, (double)exponent);
        if (c->rope_scaling == SILL__ROPE_SCALING_LINEAR) f /= (float)c->rope_factor;
        if (c->rope_scaling == SILL__ROPE_SCALING_LLAMA3) {
            double wave = two_pi / f, ctx = c->rope_original_ctx;
            double smooth = (ctx / wave - c->rope_low) / (c->rope_high - c->rope_low);
            if (wave > ctx / c->rope_low) f = (float)(f / c->rope_factor);
            else if (!(wave < ctx / c->rope_high)) f = (float)((1 - smooth) * (f / c->rope_factor) + smooth * f);
        }
        out[i] = f;
    }
}

typedef struct limit { const char *name; int64_t value, min, max; } limit;

static sill_status check(const sill__file *file, sill__config *c, sill_error *err) {
    const limit limits[] = {
        {"the number of layers", c->n_layers, 1, 1024},
        {"the number of heads", c->n_heads, 1, 1024},
        {"the number of key-value heads", c->n_kv_heads, 1, c->n_heads},
        {"the head size", c->head_dim, 1, 1024},
        {"the embedding size", c->n_embd, 1, 65536},
        {"the feed-forward size", c->n_ff, 1, 1 << 20},
        {"the number of positions", c->n_ctx, 1, 1 << 24},
        {"the vocabulary size", c->n_vocab, 1, 1 << 22},
        {"the number of labels", c->n_labels, 0, 65536},
    };
    const char *path = sill__file_path(file), *dir = sill__file_dir(file);
    char config[4096];
    if (sill__file_get_kind(file) != SILL__FILE_GGUF && !sill__file_config(file) &&
        sill__path_join(config, sizeof config, *dir ? dir : ".", "config.json"))
        path = config;
    for (size_t i = 0; i < SILL_ARRAY_LEN(limits); i++)
        if (limits[i].value < limits[i].min || limits[i].value > limits[i].max)
            return sill__fail(err, SILL_EFORMAT, "%s: %s is %lld, expected %lld to %lld", path, limits[i].name,
                              (long long)limits[i].value, (long long)limits[i].min, (long long)limits[i].max);
    if (c->n_heads % c->n_kv_heads)
        return sill__fail(err, SILL_EFORMAT, "%s: %d heads cannot share %d key-value heads evenly", path, c->n_heads,
                          c->n_kv_heads);
    if (!(c->norm_eps >= 0 && c->norm_eps <= 1))
        return sill__fail(err, SILL_EFORMAT, "%s: the epsilon of the norms is %g, expected 0 to 1", path,
                          (double)c->norm_eps);
    if (c->rope != SILL__ROPE_NONE) {
        if (c->rope_dims < 2 || c->rope_dims > c->head_dim || c->rope_dims % 2)
            return sill__fail(err, SILL_EFORMAT, "%s: %d rotary dimensions, expected an even number from 2 to %d", path,
                              c->rope_dims, c->head_dim);
        if (!(c->rope_base >= 1 && c->rope_base <= 1e12))
            return sill__fail(err, SILL_EFORMAT, "%s: the rotary base is %g, expected 1 to 1e12", path, c->rope_base);
        if (c->rope_scaling != SILL__ROPE_SCALING_NONE && !(c->rope_factor >= 1e-3 && c->rope_factor <= 1e6))
            return sill__fail(err, SILL_EFORMAT, "%s: the rotary scaling factor is %g, expected 0.001 to 1e6", path,
                              c->rope_factor);
        if (c->rope_scaling == SILL__ROPE_SCALING_LLAMA3 &&
            !(c->rope_low > 0 && c->rope_high > c->rope_low && c->rope_high <= 1e6 && c->rope_original_ctx > 0))
            return sill__fail(err, SILL_EFORMAT,
                              "%s: llama3 rotary scaling needs 0 < low_freq_factor < high_freq_factor, not %g and %g, "
                              "and original_max_position_embeddings above 0",
                              path, c->rope_low, c->rope_high);
    }
    return SILL_OK;
}

/* Ids beyond the vocabulary can never come: configurations of small models often keep GPT-2's 50256. */
static void drop_foreign_ids(sill__config *c) {
    int32_t n = 0;
    for (int32_t i = 0; i < c->n_eos; i++)
        if (c->eos_ids[i] < c->n_vocab) c->eos_ids[n++] = c->eos_ids[i];
    c->n_eos = n;
    if (c->bos_id >= c->n_vocab) c->bos_id = -1;
    if (c->pad_id >= c->n_vocab) c->pad_id = -1;
}

sill_status sill__config_read(const sill__file *file, sill__config *c, sill_error *err) {
    memset(c, 0, sizeof *c);
    c->bos_id = c->pad_id = -1;
    c->rope_factor = 1;
    sill_status s = sill__file_get_kind(file) == SILL__FILE_GGUF ? sill__config_gguf(file, c, err)
                                                                 : sill__config_json(file, c, err);
    if (s == SILL_OK) s = check(file, c, err);
    if (s == SILL_OK && c->attn_scale == 0) c->attn_scale = (float)(1.0 / sqrt((double)c->head_dim));
    if (s == SILL_OK && c->eos_cut)
        sill__log(1, "%s: more than %zu ends of text (eos_token_id); the others are passed over", sill__file_path(file),
                  SILL_ARRAY_LEN(c->eos_ids));
    if (s == SILL_OK) drop_foreign_ids(c);
    else sill__config_free(c);
    return s;
}

void sill__config_free(sill__config *c) {
    if (c->labels)
        for (int32_t i = 0; i < c->n_labels; i++) sill__free(c->labels[i]);
    sill__free(c->labels);
    c->labels = NULL;
}
