/*
 * quantize.h - inside sill quantize: the comparison of two models on texts (certify.c), and where the output goes
 * (quantize_out.c).
 */
#ifndef SILL_TASK_QUANTIZE_H
#define SILL_TASK_QUANTIZE_H

#include "task/task.h"

/* Student's t that a value of N degrees of freedom exceeds with probability 0.025; INFINITY for none. */
double sill__student_975(size_t n);

/* Wilson's 95 % interval of a share of which K of N were seen; 0 to 1 for N 0. */
void sill__wilson_95(uint64_t k, uint64_t n, double *low, double *high);

/* The fewest rows of which none is seen whose interval ends at or below SHARE; 0 for a SHARE of 1 and more. */
double sill__rows_needed(double share);

/* "high", "low" or "none". */
const char *sill__certainty_name(sill_certainty c);

/* Compares the model at BEFORE with that at AFTER on o->texts; fills the counts, means and errors of *c. SPOOL is a path
 * that does not exist: logits of the first are kept there while the second runs, so that one model is in memory at a time. */
sill_status sill__certify(const char *before, const char *after, const char *spool, const sill_quantize_options *o,
                          sill_certificate *c, sill_error *err);

/* ---- the output */

#define SILL__OUT_PATH 4096

/* The names of the files of a model's directory that are written, and read where they are there; ends with NULL. */
extern const char *const sill__model_files[];

typedef struct sill__output {
    const char *program;   /* "sill quantize", for messages, as is kind: "--to q8" */
    char kind[32];
    bool directory, overwrite;
    int lock;              /* of the partial output while this run owns it; -1 before */
    bool keep;             /* only giving it its name failed: it stays */
    char out[SILL__OUT_PATH], partial[SILL__OUT_PATH], record[SILL__OUT_PATH], record_partial[SILL__OUT_PATH],
        spool[SILL__OUT_PATH], old[SILL__OUT_PATH];
} sill__output;

/* ---- model_dir.c: what a model's directory holds */

struct sill__out;
/* Into TO_DIR: config.json (F's own or that of its directory; with INT8 also what transformers needs to know of int8 weights), and
 * the files beside F's weights. The tokenizer's are those beside them, or at TOKENIZER_PATH when it is not NULL; where there are none,
 * TOKENIZER (may be NULL) is written as vocab.json and merges.txt. */
sill_status sill__model_dir_write(const sill__file *f, const char *tokenizer_path, const sill_tokenizer *tokenizer, const char *to_dir,
                                  bool int8, sill_error *err);
/* The last part of the model's path, without the end of a file's name: general.name. */
void sill__model_base_name(const char *path, char out[128]);

/* What is read, and so never written. */
typedef struct sill__output_reads { const sill__file *file; const char *model, *text; } sill__output_reads;

struct stat;
/* What the file or directory of ST is to a run that reads R; NULL: nothing. */
const char *sill__output_is_read(const sill__output_reads *r, const struct stat *st);
sill_status sill__output_names(sill__output *o, const char *out, sill_error *err);
/* Nothing in the way, or only what may be replaced; nothing is changed. */
sill_status sill__output_check(const sill__output *o, const sill__output_reads *r, sill_error *err);
/* Creates the partial output, or takes over one that was left, and locks it until sill__output_end. */
sill_status sill__output_claim(sill__output *o, sill_error *err);
/* Where the weights go: the partial output itself, or a file in it. Claims it. */
sill_status sill__output_weights(sill__output *o, struct sill__out **out, sill_error *err);
/* Gives it its name, and the certificate beside it with RECORD. */
sill_status sill__output_publish(sill__output *o, bool record, sill_error *err);
/* Removes what this run created and did not publish; gives the lock back. */
void sill__output_end(sill__output *o);

#endif
