/*
 * tokenizer.h - what the rest of sill needs of tokenizers beyond sill.h: loading from an open model
 * file, special ids, streaming decode, chat-safe pieces.
 */
#ifndef SILL_TOKENIZER_H
#define SILL_TOKENIZER_H

#include "base/base.h"
#include "format/format.h"

typedef enum sill__tok_kind { SILL__TOK_BPE_BYTES, SILL__TOK_BPE_SPM } sill__tok_kind;

/* Tokenizer of an open model: inside a GGUF, or tokenizer.json / vocab.json + merges.txt in its
 * directory. ENOENT when the files have none. */
sill_status sill__tokenizer_from_file(const sill__file *file, sill_tokenizer **out, sill_error *err);

sill__tok_kind sill__tokenizer_kind(const sill_tokenizer *t);
const char *sill__tokenizer_pre(const sill_tokenizer *t);  /* "gpt2", "smollm", "llama3", "spm" */
/* Special ids as the tokenizer's files tell them; -1 where there is none. */
int32_t sill__tokenizer_bos(const sill_tokenizer *t);
int32_t sill__tokenizer_eos(const sill_tokenizer *t);
int32_t sill__tokenizer_pad(const sill_tokenizer *t);
bool sill__tokenizer_add_bos(const sill_tokenizer *t);     /* files say: BOS before every text */
bool sill__tokenizer_is_special(const sill_tokenizer *t, int32_t id);
/* Id of a special or ordinary token by its text, -1 if none. */
int32_t sill__tokenizer_find(const sill_tokenizer *t, const char *text, size_t n);
/* Raw bytes of one id (the vocabulary's, byte-decoded; SPM: with the word mark as a space). Points into
 * the tokenizer. NULL for an id outside the vocabulary. */
const char *sill__tokenizer_bytes(const sill_tokenizer *t, int32_t id, size_t *n);
/* The chat template's text (GGUF tokenizer.chat_template, tokenizer_config.json, chat_template.jinja);
 * NULL when there is none. NUL-terminated, lives as long as the tokenizer. */
const char *sill__tokenizer_chat_template(const sill_tokenizer *t);
/* Byte-level vocabularies: how many of the 256 bytes have no token (21 in SmolLM2's). Such bytes are left
 * out of the ids, as the reference tokenizers do. */
uint32_t sill__tokenizer_missing_bytes(const sill_tokenizer *t);
/* Appends the tokenizer as GGUF metadata for a model of N_VOCAB rows. EUNSUPPORTED for more tokens than rows. */
struct sill__gguf_head;
sill_status sill__tokenizer_to_gguf(const sill_tokenizer *t, uint32_t n_vocab, struct sill__gguf_head *head, sill_error *err);
/* Writes GPT-2's pair of files, vocab.json and merges.txt, into DIR; neither may exist. EUNSUPPORTED for other tokenizers than
 * byte-level ones with GPT-2's rules. */
sill_status sill__tokenizer_save_pair(const sill_tokenizer *t, const char *dir, sill_error *err);
/* SHA-256 over the tokenizer's defining contents. */
void sill__tokenizer_hash(const sill_tokenizer *t, uint8_t out[32]);

#endif
