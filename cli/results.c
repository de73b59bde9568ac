/* results.c - what the writer wrote, cut into rows again. */
#include <errno.h>
#include <string.h>

#include "results.h"

sill_status cli_results_open(cli_results *r, const char *path, const cli_record *record, const uint64_t *uneven, size_t n_uneven,
                             sill_error *err) {
    const char *format = cli_settings_get(&record->settings, "output format");
    memset(r, 0, sizeof *r);
    r->path = path;
    r->record = record;
    r->uneven = uneven;
    r->n_uneven = n_uneven;
    r->quoted = format && strcmp(format, "jsonl") != 0;
    sill__str_init(&r->text, (size_t)1 << 31);
    sill__sha256_init(&r->sha);
    r->file = fopen(path, "rbe");
    return r->file ? SILL_OK : sill__fail(err, errno == ENOENT ? SILL_ENOENT : SILL_EIO, "%s: %s", path, strerror(errno));
}

/* One result behind results->text, its line end with it. */
static sill_status next(cli_results *r, sill_error *err) {
    bool inside = false;
    size_t from = r->text.n;
    for (int c; (c = getc_unlocked(r->file)) != EOF;) {
        char byte = (char)c;
        if (!sill__str_put(&r->text, &byte, 1)) return sill__fail(err, SILL_ENOMEM, "%s: no memory for a row", r->path);
        if (r->quoted && c == '"') inside = !inside;
        if (c == '\n' && !inside) {
            sill__sha256_update(&r->sha, r->text.p + from, r->text.n - from);
            r->bytes += r->text.n - from;
            return SILL_OK;
        }
    }
    return sill__fail(err, SILL_EFORMAT, "%s has fewer rows than the record of its run says: was it changed?", r->path);
}

sill_status cli_results_header(cli_results *r, sill_error *err) {
    sill__str_clear(&r->text);
    return r->quoted ? next(r, err) : SILL_OK;
}

sill_status cli_results_row(cli_results *r, uint64_t number, uint64_t *n, sill_error *err) {
    sill_status s = SILL_OK;
    while (r->at < r->n_uneven && r->uneven[2 * r->at] < number) r->at++;
    bool other = r->at < r->n_uneven && r->uneven[2 * r->at] == number;
    *n = other ? r->uneven[2 * r->at + 1] : r->record->results_per_row;
    sill__str_clear(&r->text);
    for (uint64_t i = 0; s == SILL_OK && i < *n; i++) s = next(r, err);
    return s;
}

bool cli_results_at_end(cli_results *r) { return getc_unlocked(r->file) == EOF && !ferror(r->file); }

void cli_results_sha256(const cli_results *r, char out[65]) {
    sill__sha256 copy = r->sha;
    uint8_t digest[32];
    sill__sha256_final(&copy, digest);
    sill__sha256_hex(digest, out);
}

void cli_results_close(cli_results *r) {
    if (r->file) fclose(r->file);
    r->file = NULL;
    sill__str_free(&r->text);
}
