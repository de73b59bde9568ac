/*
 * mask.h - a constraint on generated text over one vocabulary: from a state, the tokens that may follow. States are
 * numbers; tokens that stand for no text (special ones) never follow.
 */
#ifndef SILL_CONSTRAIN_MASK_H
#define SILL_CONSTRAIN_MASK_H

#include "constrain/constrain.h"

/* The start of every text. */
#define SILL__CONSTRAINT_START 0
/* Tokens that may follow in STATE as bits by id, (n_vocab + 63) / 64 words, so that the text can still end within LEFT tokens, this one
 * included, where that is possible at all. Valid until the next call. */
sill_status sill__constraint_mask(sill_constraint *c, int32_t state, int32_t left, const uint64_t **mask, sill_error *err);
/* The state behind a token that the mask allows. */
int32_t sill__constraint_next(const sill_constraint *c, int32_t state, int32_t id);
/* The text may end here; nothing can follow. */
bool sill__constraint_may_end(const sill_constraint *c, int32_t state);
bool sill__constraint_must_end(const sill_constraint *c, int32_t state);
/* Of tokens, at most: the shortest text of all, by single bytes where the vocabulary has them. */
int32_t sill__constraint_shortest(const sill_constraint *c);
const sill_model *sill__constraint_model(const sill_constraint *c);

#endif
