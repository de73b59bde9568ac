/* results.h - files of results read back, row by row of their input (for sill merge and sill verify). */
#ifndef SILL_CLI_RESULTS_H
#define SILL_CLI_RESULTS_H

#include "record.h"

typedef struct cli_results {
    FILE *file;
    char *raw, *block;        /* as the file has it, and unpacked; the same where it is not compressed */
    size_t raw_at, raw_n, block_at, block_n;
    const sill__codec *codec;
    void *unpacker;
    const char *path;
    const cli_record *record; /* how many results a row has */
    const uint64_t *uneven;
    size_t n_uneven, at;      /* pairs, and the next one of them */
    size_t row_bytes;         /* NPY: of every row; 0: lines */
    bool quoted;              /* CSV, TSV: line ends may stand in quotes */
    sill__str text;           /* what was read last */
    sill__sha256 sha;         /* of what was read of the file */
} cli_results;

/* UNEVEN: rows with another number of results than record->results_per_row, pairs in ascending order. */
sill_status cli_results_open(cli_results *results, const char *path, const cli_record *record, const uint64_t *uneven, size_t n_uneven,
                             sill_error *err);
/* The header of a CSV or TSV, into results->text; nothing for JSONL. */
sill_status cli_results_header(cli_results *results, sill_error *err);
/* All results of row NUMBER, which comes next, into results->text, and how many they are. */
sill_status cli_results_row(cli_results *results, uint64_t number, uint64_t *n, sill_error *err);
bool cli_results_at_end(cli_results *results);
/* Of the file, when its end was reached. */
void cli_results_sha256(const cli_results *results, char out[65]);
void cli_results_close(cli_results *results);

#endif
