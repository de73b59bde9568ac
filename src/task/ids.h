/*
 * ids.h - a growing list of token ids, and text into it.
 */
#ifndef SILL_TASK_IDS_H
#define SILL_TASK_IDS_H

#include "base/base.h"

typedef struct sill__ids { int32_t *p; size_t n, cap; } sill__ids;

void sill__ids_free(sill__ids *ids);
sill_status sill__ids_reserve(sill__ids *ids, size_t n_more, sill_error *err);
sill_status sill__ids_put(sill__ids *ids, const int32_t *more, size_t n, sill_error *err);
/* Appends the ids of a text. */
sill_status sill__ids_text(sill__ids *ids, const sill_tokenizer *t, const char *text, size_t n_bytes, uint32_t flags,
                           sill_error *err);

#endif
