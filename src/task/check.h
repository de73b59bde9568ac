/*
 * check.h - whole models on a device against the reference: small ones made in memory, and the user's.
 */
#ifndef SILL_TASK_CHECK_H
#define SILL_TASK_CHECK_H

#include "backend/check/check.h"

/* A model of a few hundred kilobytes as the bytes of a GGUF, the same on every machine. */
typedef struct sill__made_model { const char *family; sill__type type, head_type; int32_t n_embd; } sill__made_model;
/* Free *bytes with sill__free. */
sill_status sill__made_model_write(const sill__made_model *made, char **bytes, size_t *n, sill_error *err);

/* Logits of small GPT-2 and Llama models in every type that weights are computed with, and the same bits for texts alone,
 * together, in pieces and with one thread, on all targets that were not stopped; devices[i] is how targets[i] was opened. */
sill_status sill__check_models(sill__check_target *targets, const sill__device_options *const *devices, int n_targets,
                               sill__check_level level, sill__check_progress progress, void *user, sill_error *err);
/* Logits of the model at PATH on a short text. */
sill_status sill__check_model_file(sill__check_target *target, const sill__device_options *device, const char *path,
                                   sill_error *err);

#endif
