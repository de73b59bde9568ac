/* record.h - the record of a run, OUT.run.json: what was asked, with what, and what came of it. */
#ifndef SILL_CLI_RECORD_H
#define SILL_CLI_RECORD_H

#include "common.h"

typedef struct cli_record {
    char *command, *version, *commit, *started, *finished, *shard; /* shard "I/N", or NULL */
    char **arguments;           /* the command line as it would be given again, without the output */
    size_t n_arguments;
    char *input, *input_sha256; /* NULL: not a file; over the digests of all rows, those of other shards among them */
    char *output_sha256;
    char *model, *model_sha256;
    uint64_t input_rows, rows, failed, long_rows, tokens, sessions, output_bytes, results_per_row;
    double seconds;
    uint64_t *uneven;           /* rows with another number of results: pairs */
    size_t n_uneven;
    uint64_t *failed_rows;      /* in order */
    size_t n_failed_rows;
    char *seed_json, *model_json, *device_json, *options_json, *merged_json; /* as they are written */
    cli_settings settings;
} cli_record;

/* TARGET.run.json; ENOENT when it is not there. */
sill_status cli_record_read(const char *path, cli_record *record, sill_error *err);
/* Whole or not at all. */
sill_status cli_record_write(const char *path, const cli_record *record, sill_error *err);
void cli_record_free(cli_record *record);
/* Shard *I of *N; 1 of 1 and false where it is of a whole run, or says what no run does. */
bool cli_record_shard(const cli_record *record, unsigned *i, unsigned *n);
/* NAME is no option that a record keeps among its arguments: it says where or how a run writes, not what. */
bool cli_record_leaves_out(const char *name);
char *cli_record_path(const char *target); /* free with sill__free */

/* What the results of a run depend on, once its output is described: into run->settings. */
void cli_record_settings(cli_run *run, const char *const *fields, size_t n_fields);
/* The record of a run that has come to its end. */
sill_status cli_record_of_run(cli_run *run, double seconds, cli_record *record, sill_error *err);

#endif
