/*
 * task.h - what the tasks share: reading option structs, pulling rows, turning a row into ids.
 */
#ifndef SILL_TASK_TASK_H
#define SILL_TASK_TASK_H

#include "engine/sched.h"
#include "task/chat.h"
#include "task/ids.h"

#include <math.h>

/* Pulls a row: *got false at the end; ECANCELLED when the callback asked for it. */
sill_status sill__row_next(sill_next_fn next, void *user, sill_row *row, bool *got, sill_error *err);
/* Where a task's rows come from, and what becomes of them. */
typedef struct sill__pull {
    sill_next_fn next;
    void *user;                  /* of next */
    void *task;                  /* of the following */
    sill_status (*take)(void *task, const sill_row *in, sill_error *why); /* its errors are the row's, unless they are fatal */
    sill_status (*failed)(void *task, uint64_t index, const sill_error *why, sill_error *err); /* tells them */
} sill__pull;
/* The next row that is taken; *got false at the end. */
sill_status sill__row_pull(const sill__pull *pull, bool *got, sill_error *err);
/* ERANGE when an id has no row in the model: its tokenizer may know more than the model does. */
sill_status sill__ids_known(const sill_model *model, const sill__ids *ids, sill_error *err);
/* Appends the row's own ids, or its text's. The errors are the row's. */
sill_status sill__row_ids(const sill_model *model, const sill_row *row, uint32_t flags, sill__ids *out,
                          sill_error *err);
/* A status that ends the whole call rather than the row: memory, device, cancellation, our own bugs. */
bool sill__is_fatal(sill_status status);
static inline bool sill__is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); } /* ASCII's */
/* A log-probability, which may be -infinity but neither NaN nor +infinity. */
static inline bool sill__is_logprob(double x) { return x < (double)INFINITY; } /* false for NaN */
/* The error of a row whose numbers are none. */
sill_status sill__overflowed(const char *what, double value, sill_error *err);
/* BOS as the model's or the tokenizer's files tell it, -1 if none. */
int32_t sill__bos_id(const sill_model *model);
/* The id that stands in front of a text that needs something before it: BOS, else EOS, else -1. */
int32_t sill__start_id(const sill_model *model);

#endif
