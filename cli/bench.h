/*
 * bench.h - what the files of `sill bench` share: its options, one measurement, and where measurements go.
 */
#ifndef SILL_CLI_BENCH_H
#define SILL_CLI_BENCH_H

#include "backend/cpu/limits.h"
#include "common.h"
#include "format/format.h"

#define BENCH_MAX_BATCHES 16

enum { BENCH_LIMITS, BENCH_START, BENCH_PREFILL, BENCH_DECODE, BENCH_CLASSIFY, BENCH_PROCESS, BENCH_MEMORY, BENCH_TESTS };
enum { BENCH_MD = 1, BENCH_CSV, BENCH_JSONL };

typedef struct bench_options {
    cli_model_options model;
    const char *tests, *batches, *output;
    int format;
    int32_t reps, n_prompt, n_prefill, n_gen, n_texts; /* the sizes are 0 until the context is known, where they are left open */
    bool overwrite, no_limits;
    /* read from the texts above */
    bool wanted[BENCH_TESTS];
    int32_t batch[BENCH_MAX_BATCHES];
    int n_batches;
} bench_options;

/* One measurement. NAN or -1: not for this one. */
typedef struct bench_row {
    const char *test, *unit;
    int32_t batch, n_prompt, n_gen;
    double value, mean, spread, tokens_per_s, bandwidth_share, peak_share;
    int reps;
} bench_row;

typedef struct bench_out {
    FILE *to;
    char path[4096], temp[4096 + 16]; /* the file, and the one beside it that takes its name when all is measured; or empty */
    int format;
    size_t n_rows;
    char model[256], sha256[65], machine[160], device[32], dtype[16];
    int32_t threads;
} bench_out;

typedef struct bench_run {
    bench_options *o;
    cli_engine engine;
    bench_out out;
    int32_t n_ctx; /* of the session, and so the longest sequence of a test */
    /* The machine's limits; 0: not measured. */
    sill__pool *pool;
    const sill__cpu_isa *isa;
    uint8_t *block[2]; /* ordinary and huge pages */
    int best_block;
    double read_rate, ops[SILL__LIMIT_COUNT];
    /* Of fresh processes, measured before anything is loaded here. */
    sill__times first_token, first_token_memory;
    int32_t first_token_prompt;
    double peak_memory;
} bench_run;

/* ---- bench_out.c */
/* Opens the output; -1 or the exit status. What has that name stays as it is until bench_out_close. */
int bench_out_open(bench_out *out, const bench_options *o);
/* Fills what is the same for every row. HASH: the model's file too, which takes a moment. */
sill_status bench_out_describe(bench_out *out, const cli_engine *engine, bool hash, sill_error *err);
void bench_out_row(bench_out *out, const bench_row *row);
/* The output is none of what is read as the model. */
sill_status bench_out_check(const bench_out *out, const sill__file *model, sill_error *err);
/* KEEP: the file gets its name; else nothing is left of it. The exit status. */
int bench_out_close(bench_out *out, bool keep);

/* ---- bench_work.c: each measures and writes its rows; ECANCELLED when interrupted. */
/* A row without numbers. */
bench_row bench_empty_row(const char *test, const char *unit);
/* Fills value, mean and spread from times: WORK a second, or seconds themselves where WORK is 0. */
void bench_row_times(bench_row *row, const sill__times *times, double work);
sill_status bench_limits(bench_run *run, bool print, sill_error *err);
void bench_limits_free(bench_run *run);
sill_status bench_prefill(bench_run *run, sill_error *err);
sill_status bench_decode(bench_run *run, sill_error *err);
sill_status bench_classify(bench_run *run, sill_error *err);
/* BATCH prompts of N_PROMPT ids continued by N_GEN tokens each: how long it took. */
sill_status bench_generate(bench_run *run, int32_t batch, int32_t n_prompt, int32_t n_gen, double *seconds, sill_error *err);

/* ---- bench_process.c: fresh processes of this very program. They are measured first, since a process counts among the
 * most memory that it had what its parent had when it was started; their rows come later. */
sill_status bench_process_measure(bench_run *run, const char *path, sill_error *err);
sill_status bench_memory_measure(bench_run *run, const char *path, sill_error *err);
sill_status bench_process(bench_run *run, sill_error *err);
sill_status bench_memory(bench_run *run, sill_error *err);

#endif
