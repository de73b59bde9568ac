/*
 * family.h - inside src/model: how configurations are read, and the list of tensors ("slots") that a model
 * of a family is made of. The same list tells the memory needed and then loads the weights.
 */
#ifndef SILL_MODEL_FAMILY_H
#define SILL_MODEL_FAMILY_H

#include "model/model.h"

#define SILL__FAMILIES "GPT-2 (gpt2) and Llama (llama)"

/* ---- configuration */

/* config.json and generation_config.json beside a safetensors checkpoint; metadata of a GGUF. Ranges are
 * checked by sill__config_read afterwards. */
sill_status sill__config_json(const sill__file *file, sill__config *config, sill_error *err);
sill_status sill__config_gguf(const sill__file *file, sill__config *config, sill_error *err);
/* Adds an id that ends a text; ids that are negative or there already are passed over. */
void sill__config_add_eos(sill__config *config, int64_t id);
/* Adds the ends of text that the tokenizer tells: its own where the configuration names none; where there is a chat
 * template the end of a turn; for GGUF files, whose metadata name one end only, the usual control tokens. */
void sill__config_add_ends(sill__config *config, const sill__file *file, const sill_tokenizer *tokenizer);
/* The activation of transformers' name (n bytes); false when unknown. */
bool sill__config_act(const char *name, sill__act *act);
/* Inverse frequencies of the rotary pairs, f32 (rope_dims / 2), after scaling. */
void sill__rope_inv_freq(const sill__config *config, float *out);

/* ---- slots */

#define SILL__PART_NAME 96
typedef struct sill__part { char name[SILL__PART_NAME]; uint64_t rows; } sill__part;
sill__part sill__part_of(uint64_t rows, const char *format, ...) SILL_PRINTF(2, 3);

typedef struct sill__slot {
    sill__weight_src src;
    bool rows8;            /* its parts are sill__rows8 */
    sill__weight **to;
    char name[96];
} sill__slot;

typedef struct sill__vector {
    const sill__tensor *parts[3]; /* one behind the other; of inv_freq: divisors, or none */
    int n_parts;
    size_t n;              /* f32 elements */
    size_t at;             /* bytes from the start of the model's vectors */
    sill__ref *to;
} sill__vector;

/* Errors are kept: after the first one further calls do nothing. */
typedef struct sill__slots {
    sill_model *model;     /* file, config, dtype, main_type, quantized, layers must be set */
    sill__slot *weights;
    sill__vector *vectors;
    size_t n_weights, n_vectors, weights_cap, vectors_cap;
    size_t vector_bytes;
    uint64_t n_params;
    size_t n_used;         /* tensors of the file that are used */
    sill_status status;
    sill_error *err;
} sill__slots;

sill_status sill__slots_make(sill_model *model, sill__slots *slots, sill_error *err);
void sill__slots_free(sill__slots *slots);

enum {
    SILL__SLOT_TRANSPOSED = 1,
    SILL__SLOT_PADDED = 2,  /* more rows than asked are allowed */
    SILL__SLOT_ONE_TYPE = 4 /* all parts must be stored in one type */
};
void sill__slots_weight(sill__slots *s, sill__weight **to, sill__role role, const sill__part *parts, int n_parts,
                        uint64_t cols, int flags);
void sill__slots_vector(sill__slots *s, sill__ref *to, const sill__part *parts, int n_parts);
bool sill__slots_has(const sill__slots *s, const sill__part *part);
/* Both are there and are the same bytes of the file: tied weights as torch.save keeps them. */
bool sill__slots_same(const sill__slots *s, const sill__part *a, const sill__part *b);

/* ---- LLM.int8 as stored: rows8.c */

typedef struct sill__rows8 { sill__tensor tensor; const sill__tensor *codes, *scales; } sill__rows8; /* tensor: F32, of no file */
/* True for a matrix of int8 codes that has its scales beside it. */
bool sill__rows8_is(const sill__file *file, const char *name);
bool sill__rows8_any(const sill__file *file);
/* The f32 matrix that they stand for, without its values yet; lives as the model. */
sill_status sill__rows8_find(sill_model *m, const char *name, uint64_t rows, uint64_t cols, const sill__tensor **out,
                             sill_error *err);
/* Its values, before it is imported (from ARENA, or NULL: until they are dropped), and their end. */
sill_status sill__rows8_make(const sill__weight_src *src, sill__arena *arena, sill_error *err);
void sill__rows8_drop(const sill__weight_src *src);

/* ---- families */

void sill__gpt2_slots(sill__slots *s);
void sill__llama_slots(sill__slots *s);
void sill__gpt2_forward(const sill_model *model, sill__queue *queue, const sill__work *work);
void sill__llama_forward(const sill_model *model, sill__queue *queue, const sill__work *work);

#endif
