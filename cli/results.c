/* results.c - what the writer wrote, cut into rows again. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "pack.h"
#include "results.h"

#define PORTION ((size_t)64 << 10)

static bool read_raw(cli_results *r) {
    r->raw_at = 0;
    r->raw_n = fread(r->raw, 1, PORTION, r->file);
    sill__sha256_update(&r->sha, r->raw, r->raw_n);
    return r->raw_n > 0;
}

/* The next bytes into r->block; false at the end of the file, and where it is damaged. */
static bool fill(cli_results *r) {
    bool whole;
    r->block_at = r->block_n = 0;
    if (!r->codec) {
        if (r->raw_at == r->raw_n && !read_raw(r)) return false;
        memcpy(r->block, r->raw + r->raw_at, r->raw_n - r->raw_at);
        r->block_n = r->raw_n - r->raw_at;
        r->raw_at = r->raw_n;
        return true;
    }
    for (;;) {
        size_t n_in = r->raw_n - r->raw_at, n_out = PORTION;
        const char *why = r->codec->unpack(r->unpacker, r->raw + r->raw_at, &n_in, r->block, &n_out, &whole);
        r->raw_at += n_in;
        r->block_n = n_out;
        if (n_out) return true;
        if (why || (!n_in && r->raw_at < r->raw_n) || (r->raw_at == r->raw_n && !read_raw(r))) return false;
    }
}

static int next_byte(cli_results *r) {
    if (r->block_at == r->block_n && !fill(r)) return EOF;
    return (unsigned char)r->block[r->block_at++];
}

static sill_status begin(cli_results *r, sill_error *err) {
    r->raw = sill__alloc(PORTION);
    r->block = sill__alloc(PORTION);
    if (!r->raw || !r->block) return sill__fail(err, SILL_ENOMEM, "%s: no memory to read it", r->path);
    (void)read_raw(r);
    for (size_t i = 0; cli_codecs[i]; i++)
        if (cli_codecs[i]->begins((const uint8_t *)r->raw, r->raw_n)) r->codec = cli_codecs[i];
    if (r->codec && !(r->unpacker = r->codec->unpack_begin())) return sill__fail(err, SILL_ENOMEM, "%s: no memory to unpack it", r->path);
    return SILL_OK;
}

sill_status cli_results_open(cli_results *r, const char *path, const cli_record *record, const uint64_t *uneven, size_t n_uneven,
                             sill_error *err) {
    const char *format = cli_settings_get(&record->settings, "output format");
    memset(r, 0, sizeof *r);
    r->path = path;
    r->record = record;
    r->uneven = uneven;
    r->n_uneven = n_uneven;
    const char *vector = cli_settings_get(&record->settings, "vector");
    if (format && !strcmp(format, "npy")) r->row_bytes = 4 * (vector ? strtoul(vector, NULL, 10) : 0);
    r->quoted = format && strcmp(format, "jsonl") != 0 && !r->row_bytes;
    sill__str_init(&r->text, (size_t)1 << 31);
    sill__sha256_init(&r->sha);
    r->file = fopen(path, "rbe");
    return r->file ? begin(r, err) : sill__fail(err, errno == ENOENT ? SILL_ENOENT : SILL_EIO, "%s: %s", path, strerror(errno));
}

/* N bytes behind results->text. */
static sill_status next_bytes(cli_results *r, size_t n, sill_error *err) {
    for (int c; n; n--) {
        if ((c = next_byte(r)) == EOF)
            return sill__fail(err, SILL_EFORMAT, "%s has fewer rows than the record of its run says: was it changed?", r->path);
        char byte = (char)c;
        if (!sill__str_put(&r->text, &byte, 1)) return sill__fail(err, SILL_ENOMEM, "%s: no memory for a row", r->path);
    }
    return SILL_OK;
}

/* One result behind results->text, its line end with it. */
static sill_status next(cli_results *r, sill_error *err) {
    bool inside = false;
    if (r->row_bytes) return next_bytes(r, r->row_bytes, err);
    for (int c; (c = next_byte(r)) != EOF;) {
        char byte = (char)c;
        if (!sill__str_put(&r->text, &byte, 1)) return sill__fail(err, SILL_ENOMEM, "%s: no memory for a row", r->path);
        if (r->quoted && c == '"') inside = !inside;
        if (c == '\n' && !inside) return SILL_OK;
    }
    return sill__fail(err, SILL_EFORMAT, "%s has fewer rows than the record of its run says: was it changed?", r->path);
}

sill_status cli_results_header(cli_results *r, sill_error *err) {
    sill__str_clear(&r->text);
    return r->row_bytes ? next_bytes(r, SILL__NPY_HEADER, err) : r->quoted ? next(r, err) : SILL_OK;
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

bool cli_results_at_end(cli_results *r) { return next_byte(r) == EOF && !ferror(r->file); }

void cli_results_sha256(const cli_results *r, char out[65]) {
    sill__sha256 copy = r->sha;
    uint8_t digest[32];
    sill__sha256_final(&copy, digest);
    sill__sha256_hex(digest, out);
}

void cli_results_close(cli_results *r) {
    if (r->file) fclose(r->file);
    r->file = NULL;
    if (r->unpacker) r->codec->unpack_end(r->unpacker);
    r->unpacker = NULL;
    sill__free(r->raw);
    sill__free(r->block);
    r->raw = r->block = NULL;
    sill__str_free(&r->text);
}
