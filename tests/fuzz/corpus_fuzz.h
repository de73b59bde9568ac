/* corpus_fuzz.h - bytes through a reader of one format and out through a writer, for fuzz_csv.c and fuzz_jsonl.c. */
#ifndef CORPUS_FUZZ_H
#define CORPUS_FUZZ_H

#include <stdlib.h>
#include <unistd.h>

#include "corpus/corpus.h"

/* The first byte chooses the row limit, the output's format and the encoding; the rest is the file. */
static void corpus_fuzz(const uint8_t *data, size_t size, sill__format format) {
    static const char *const fields[] = {"text", "n"};
    sill__reader_options ro = {.format = format};
    sill__writer_options wo = {.path = "/dev/null"};
    sill__reader *reader = NULL;
    sill__writer *writer = NULL;
    sill__record record;
    sill__corpus_row *row = NULL;
    size_t slot;
    uint64_t last = 0;
    int pipe_ends[2];
    if (size < 1 || size > 60000) return; /* what a pipe holds without a reader */
    ro.max_row_bytes = data[0] & 1 ? 16 : 4096;
    ro.encoding = (sill__encoding)(data[0] >> 2 & 3);
    wo.format = data[0] & 2 ? SILL__FORMAT_CSV : SILL__FORMAT_JSONL;
    if (pipe(pipe_ends)) abort();
    if (write(pipe_ends[1], data + 1, size - 1) != (ssize_t)(size - 1)) abort();
    close(pipe_ends[1]);
    dup2(pipe_ends[0], 0);
    close(pipe_ends[0]);
    if (sill__reader_open("-", &ro, &reader, NULL) == SILL_OK &&
        sill__writer_open(&wo, reader, fields, 2, &writer, NULL) == SILL_OK) {
        (void)sill__reader_select(reader, "text", &slot, NULL);
        sill__record_init(&record, writer);
        while (sill__reader_next(reader, &row, NULL) == SILL_OK && row) {
            if (row->number != ++last || row->line < last) abort();
            for (size_t i = 0; i < row->n_cells; i++)
                if ((row->cells[i].kind != SILL__CELL_MISSING && !row->cells[i].p) || row->cells[i].n > 3 * 4096) abort(); /* a byte is three at most in UTF-8 */
            sill__str_clear(&record.out);
            sill__record_begin(&record, row);
            if (!row->error && row->n_cells) sill__record_text(&record, row->cells[0].p, row->cells[0].n);
            sill__record_end(&record, row->error);
            if (record.out.failed || sill__writer_put(writer, record.out.p, record.out.n, NULL) != SILL_OK ||
                sill__writer_end_row(writer, NULL) != SILL_OK) abort();
            sill__row_free(row);
        }
        if (sill__reader_get_stats(reader).bytes_done != size - 1 && row) abort();
        sill__record_free(&record);
    }
    sill__writer_free(writer);
    sill__reader_free(reader);
}

#endif
