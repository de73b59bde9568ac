/*
 * model.h - a loaded model: configuration, weights on a device, tokenizer. gpt2.c and llama.c each hold one
 * family: how tensors are named, and the forward pass as a straight list of backend calls.
 */
#ifndef SILL_MODEL_H
#define SILL_MODEL_H

#include "backend/backend.h"
#include "format/format.h"
#include "model/shelf.h"
#include "tokenizer/tokenizer.h"

typedef enum sill__family { SILL__FAMILY_GPT2, SILL__FAMILY_LLAMA } sill__family;

/* How a classification head's logits become probabilities (transformers' problem_type). */
typedef enum sill__problem { SILL__PROBLEM_SINGLE, SILL__PROBLEM_MULTI, SILL__PROBLEM_REGRESSION } sill__problem;

/* How rotary frequencies are stretched beyond the context of the first training (transformers' rope_type). */
typedef enum sill__rope_scaling { SILL__ROPE_SCALING_NONE, SILL__ROPE_SCALING_LINEAR, SILL__ROPE_SCALING_LLAMA3 } sill__rope_scaling;

typedef struct sill__config {
    sill__family family;
    int32_t n_layers, n_heads, n_kv_heads, head_dim, n_embd, n_ff, n_ctx;
    int32_t n_vocab;              /* rows of wte (may be padded) */
    sill__act act;
    float norm_eps;
    float attn_scale;             /* 1/sqrt(head_dim) as a rule (GPT-2: scale_attn_weights) */
    bool attn_scale_by_layer;     /* GPT-2: scale_attn_by_inverse_layer_idx */
    sill__rope_kind rope;
    int32_t rope_dims;
    double rope_base;
    sill__rope_scaling rope_scaling;
    double rope_factor, rope_low, rope_high; /* factor; llama3: low_freq_factor, high_freq_factor */
    int32_t rope_original_ctx;    /* llama3: positions of the first training */
    bool tied;                    /* head = wte */
    bool attn_bias, mlp_bias;     /* Llama variants with biases */
    int32_t bos_id, eos_ids[8], n_eos, pad_id; /* from config/generation_config; -1: none */
    bool eos_cut;          /* there were more */
    int32_t n_labels;             /* > 0: a classification head `score` */
    sill__problem problem;
    char **labels;                /* (n_labels) */
} sill__config;

typedef struct sill__layer {
    sill__norm norm1, norm2;
    sill__weight *qkv, *attn_out, *mlp_in, *mlp_out; /* mlp_in: Llama gate rows, then up rows */
    sill__ref qkv_b, attn_out_b, mlp_in_b, mlp_out_b; /* absent where there is none */
} sill__layer;

struct sill_model {
    sill__config config;
    sill__file *file;
    const sill__backend *ops;
    sill__device *device;
    sill_tokenizer *tokenizer;    /* may be NULL */
    sill__shelf *shelf;           /* what sill_generate_preset found in the files */
    sill_dtype dtype;
    sill__compute compute;
    bool quantized;               /* stored in block types */
    bool int8;                    /* stored as LLM.int8 */
    sill__arena rows8;            /* what stands for its matrices */
    sill__type main_type;         /* stored type of most parameters */
    uint64_t n_params, weight_bytes;
    sill__buf *vectors;           /* all norms and biases, f32 */
    size_t vectors_bytes;
    sill__weight *wte, *wpe;      /* EMBED; wpe: GPT-2 only */
    sill__weight *head, *score;   /* one of them: the language model's output, or a classification head */
    sill__ref head_b, score_b, inv_freq;
    sill__norm norm_f;
    sill__layer *layers;          /* (n_layers) */
};

/* Loads from an open file, which it takes over, on a backend that has no name: for checks. */
sill_status sill__model_load_on(sill__file *file, const sill__backend *ops, const sill__device_options *device, sill_dtype dtype,
                                sill_model **out, sill_error *err);
/* Reads config.json (+ generation_config.json) or GGUF metadata. Refuses other families by name. */
sill_status sill__config_read(const sill__file *file, sill__config *config, sill_error *err);
void sill__config_free(sill__config *config);
/* What the weights take of the device's memory in computed form, and what loading takes on top for a moment; without loading (sill_plan). */
sill_status sill__model_weight_bytes(const sill__file *file, const sill__config *config, const sill__backend *ops,
                                     sill__device *device, sill_dtype dtype, uint64_t *bytes, uint64_t *import, sill_error *err);
/* What a device is to be checked with before its first use for a model. */
sill_status sill__model_use(const sill__file *file, const sill__config *config, sill_dtype dtype, sill__use *use, sill_error *err);
/* What a file would be computed with, without loading (sill_plan). */
sill_status sill__model_compute(const sill__file *file, sill_dtype dtype, sill__compute *out, sill_error *err);
/* True for an id that ends a text. */
bool sill__model_is_eos(const sill_model *model, int32_t id);

/* Buffers of one forward pass, made by the session: f32 rows for max_tokens. */
typedef struct sill__work {
    sill__ref x;       /* (tokens, n_embd) residual stream; after forward: the last layer's output, not normalized */
    sill__ref q;       /* (tokens, n_heads * head_dim) */
    sill__ref attn;    /* (tokens, n_heads * head_dim) */
    sill__ref ff;      /* (tokens, n_ff) */
    sill__kv *kv;
} sill__work;
/* Records the layers for the batch that was begun; the caller then records head or tap with model->norm_f. */
void sill__model_forward(const sill_model *model, sill__queue *queue, const sill__work *work);

#endif
