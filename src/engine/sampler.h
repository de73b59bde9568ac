/*
 * sampler.h - from logits to the next token: transformers' processors in transformers' order, then one draw by a
 * counter-based random number. Knows nothing of sessions.
 *
 * Order: logit bias (of ids and of sequences), repetition penalty, no_repeat_ngram_size, bad words, end of text suppressed
 * while fewer than min_new_tokens are made (or the whole is shorter than min_length), suppress_tokens,
 * begin_suppress_tokens; and where tokens are sampled: temperature, top_k (keeps ties), top_p, min_p, typical_p,
 * epsilon_cutoff, eta_cutoff. Scores are f32 as there; probabilities and their sums are double.
 */
#ifndef SILL_ENGINE_SAMPLER_H
#define SILL_ENGINE_SAMPLER_H

#include "backend/backend.h"

typedef struct sill__sampler sill__sampler;

/* Checks the options that choose tokens (EINVAL, ERANGE name the field, its value and its limits) and makes the
 * scratch for a vocabulary of n_vocab. Arrays of the options stay the caller's and must outlive the sampler. */
sill_status sill__sampler_create(const sill_generate_options *options, int32_t n_vocab, const int32_t *eos_ids,
                                 int32_t n_eos, sill__sampler **out, sill_error *err);
void sill__sampler_free(sill__sampler *s);
/* False when the argmax of the raw logits is all that is wanted. */
bool sill__sampler_needs_logits(const sill__sampler *s);

/* The options as a device that samples takes them (sill__op_sample), but for what belongs to a row: key, sequence, step.
 * False where the device would draw from another distribution: with processors, typical_p or a cutoff, or the best. */
bool sill__sampler_row(const sill__sampler *s, sill__sample_row *row);

/* Tokens that the next filter leaves, as bits by id; NULL: all. */
void sill__sampler_allow(sill__sampler *s, const uint64_t *mask);
/* Processes the logits of one row: history is the prompt and the new tokens so far, n_new of them new.
 * ERANGE when every token is forbidden, EDEVICE when the logits hold a NaN or +infinity. */
sill_status sill__sampler_filter(sill__sampler *s, const float *logits, const int32_t *history, int32_t n_history,
                                 int32_t n_new, sill_error *err);
/* A token of the filtered row: the best (ties: lowest id), or drawn with (seed, row key, sequence, step). */
int32_t sill__sampler_draw(const sill__sampler *s, uint64_t row_key, uint32_t sequence, uint32_t step);
/* The same before the softmax: their scores. With num_beams above 1 the caller gives log-probabilities for logits, and the
 * filters leave one token more than there are ends of text. */
int32_t sill__sampler_scores(const sill__sampler *s, const int32_t **ids, const float **scores);
/* What the filter left: n ids in ascending order and their probabilities (for tests and for drawing). */
int32_t sill__sampler_left(const sill__sampler *s, const int32_t **ids, const double **probs);

#endif
