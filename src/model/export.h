/*
 * export.h - a model of ours as another program expects its file: which tensors, under which names, turned
 * which way, in which types; and what is said about them. Nothing is written here (format/write.h does).
 */
#ifndef SILL_MODEL_EXPORT_H
#define SILL_MODEL_EXPORT_H

#include "format/write.h"
#include "model/model.h"

typedef struct sill__export {
    sill__copy *copies;
    size_t n, cap;
    sill__gguf_head head;  /* GGUF only */
    float *factors;        /* of Llama 3's rotation */
    bool reduced;          /* some matrix has a smaller type than before */
} sill__export;

/* GGUF with BODY as the type of matrices and OUTER that of embedding and head. A GGUF's own metadata are copied; else
 * they are made by llama.cpp's conventions, TOKENIZER included (NULL: none). Matrices that are in blocks of no more bits
 * already stay, as does what has no whole blocks in a row. */
sill_status sill__export_gguf(const sill__file *file, const sill__config *config, const sill_tokenizer *tokenizer,
                              const char *name, sill__type body, sill__type outer, sill__export *out, sill_error *err);
/* safetensors as bitsandbytes keeps LLM.int8: the matrices of the layers as I8 (outputs, inputs), their row scales
 * (SCB, the greatest magnitude of a row) and weight_format beside them; the rest as stored. */
sill_status sill__export_int8(const sill__file *file, const sill__config *config, sill__export *out, sill_error *err);
/* safetensors as transformers keeps the model: the tensors it is made of, in the types they are stored in; GPT-2's matrices as
 * Conv1D has them. Not from a GGUF. */
sill_status sill__export_plain(const sill__file *file, const sill__config *config, sill__export *out, sill_error *err);
void sill__export_free(sill__export *e);

#endif
