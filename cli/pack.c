/*
 * pack.c - compressed files, through zlib and zstd, which are the program's alone: the library takes them as sill__codec
 * (corpus.h). What is written depends on the bytes alone: no name and no time stands in a gzip header, levels are the
 * programs' own (6 and 3), one thread packs, and the writer hands over blocks of one size.
 */
#include <string.h>
#include <zlib.h>
#include <zstd.h>
#include <zstd_errors.h>

#include "pack.h"

/* ---- gzip: members one behind the other are one file; zeros behind one are padding (tapes) */

typedef struct gunzip { z_stream z; bool between; } gunzip; /* between: a member has ended, none is begun */

static bool gzip_begins(const uint8_t *p, size_t n) { return n >= 2 && p[0] == 0x1f && p[1] == 0x8b; }

static void *gunzip_begin(void) {
    gunzip *g = sill__calloc(1, sizeof *g);
    if (g && inflateInit2(&g->z, 15 + 16) == Z_OK) return g;
    sill__free(g);
    return NULL;
}

static void gunzip_end(void *state) {
    gunzip *g = state;
    inflateEnd(&g->z);
    sill__free(g);
}

static const char *gunzip_step(void *state, const void *in, size_t *n_in, void *out, size_t *n_out, bool *whole) {
    gunzip *g = state;
    const uInt in_bytes = (uInt)SILL_MIN(*n_in, SILL_IO_MAX), out_bytes = (uInt)SILL_MIN(*n_out, SILL_IO_MAX);
    int code = Z_OK;
    g->z.next_in = (Bytef *)(uintptr_t)in;
    g->z.avail_in = in_bytes;
    g->z.next_out = out;
    g->z.avail_out = out_bytes;
    while (code == Z_OK) {
        if (g->between) {
            while (g->z.avail_in && !*g->z.next_in) g->z.next_in++, g->z.avail_in--;
            if (!g->z.avail_in) break;
            if (inflateReset(&g->z) != Z_OK) code = Z_STREAM_ERROR;
            g->between = false;
        }
        if (code == Z_OK) code = inflate(&g->z, Z_NO_FLUSH);
        if (code == Z_STREAM_END) {
            g->between = true;
            code = Z_OK;
        }
        if (!g->z.avail_out) break;
    }
    *n_in = in_bytes - g->z.avail_in;
    *n_out = out_bytes - g->z.avail_out;
    *whole = g->between;
    if (code == Z_OK || code == Z_BUF_ERROR) return NULL;
    if (code == Z_MEM_ERROR) return "no memory to unpack it";
    return code == Z_NEED_DICT ? "it needs a dictionary" : g->z.msg ? g->z.msg : "damaged";
}

static void *gzip_begin(void) {
    static gz_header header = {.os = 255}; /* unknown: the same on every system */
    z_stream *z = sill__calloc(1, sizeof *z);
    if (z && deflateInit2(z, Z_DEFAULT_COMPRESSION, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) == Z_OK && deflateSetHeader(z, &header) == Z_OK)
        return z;
    sill__free(z);
    return NULL;
}

static void gzip_end(void *state) {
    deflateEnd(state);
    sill__free(state);
}

static bool gzip_step(void *state, const void *in, size_t n, bool last, sill__str *out) {
    unsigned char made[16384];
    z_stream *z = state;
    int code = Z_OK;
    z->next_in = (Bytef *)(uintptr_t)in;
    z->avail_in = (uInt)n; /* a block */
    do {
        z->next_out = made;
        z->avail_out = sizeof made;
        code = deflate(z, last ? Z_FINISH : Z_NO_FLUSH);
        if (code == Z_STREAM_ERROR || !sill__str_put(out, made, sizeof made - z->avail_out)) return false;
    } while (!z->avail_out || (last && code != Z_STREAM_END));
    return true;
}

/* ---- zstd: frames one behind the other are one file; those to be skipped are skipped */

typedef struct unzstd { ZSTD_DStream *z; bool whole; } unzstd;

static bool zstd_begins(const uint8_t *p, size_t n) {
    return n >= 4 && (!memcmp(p, "\x28\xb5\x2f\xfd", 4) || ((p[0] & 0xf0) == 0x50 && !memcmp(p + 1, "\x2a\x4d\x18", 3)));
}

static void *unzstd_begin(void) {
    unzstd *u = sill__calloc(1, sizeof *u);
    if (u && (u->z = ZSTD_createDStream())) return u;
    sill__free(u);
    return NULL;
}

static void unzstd_end(void *state) {
    unzstd *u = state;
    ZSTD_freeDStream(u->z);
    sill__free(u);
}

static const char *unzstd_step(void *state, const void *in, size_t *n_in, void *out, size_t *n_out, bool *whole) {
    unzstd *u = state;
    ZSTD_inBuffer from = {in, *n_in, 0};
    ZSTD_outBuffer to = {out, *n_out, 0};
    const char *why = NULL;
    while (!why && to.pos < to.size && (from.pos < from.size || !u->whole)) {
        size_t before = from.pos + to.pos, code = ZSTD_decompressStream(u->z, &to, &from);
        if (ZSTD_isError(code)) why = ZSTD_getErrorCode(code) == ZSTD_error_frameParameter_windowTooLarge ?
                                          "its window is above 128 MiB (unpack it: zstd -d --long=31)" : ZSTD_getErrorName(code);
        else u->whole = code == 0;
        if (from.pos + to.pos == before) break;
    }
    *n_in = from.pos;
    *n_out = to.pos;
    *whole = u->whole;
    return why;
}

static void *zstd_begin(void) {
    ZSTD_CCtx *z = ZSTD_createCCtx();
    if (z && !ZSTD_isError(ZSTD_CCtx_setParameter(z, ZSTD_c_checksumFlag, 1))) return z;
    ZSTD_freeCCtx(z);
    return NULL;
}

static void zstd_end(void *state) { ZSTD_freeCCtx(state); }

static bool zstd_step(void *state, const void *in, size_t n, bool last, sill__str *out) {
    char made[16384];
    ZSTD_inBuffer from = {in, n, 0};
    size_t left;
    do {
        ZSTD_outBuffer to = {made, sizeof made, 0};
        left = ZSTD_compressStream2(state, &to, &from, last ? ZSTD_e_end : ZSTD_e_continue);
        if (ZSTD_isError(left) || !sill__str_put(out, made, to.pos)) return false;
    } while (last ? left != 0 : from.pos < from.size);
    return true;
}

static const sill__codec gzip = {"gzip", ".gz", "gzip -t", gzip_begins, gunzip_begin, gunzip_step, gunzip_end, gzip_begin, gzip_step, gzip_end};
static const sill__codec zstd = {"zstd", ".zst", "zstd -t", zstd_begins, unzstd_begin, unzstd_step, unzstd_end, zstd_begin, zstd_step, zstd_end};
const sill__codec *const cli_codecs[] = {&gzip, &zstd, NULL};

const char *cli_codec_version(const sill__codec *codec) { return codec == &gzip ? zlibVersion() : ZSTD_versionString(); }
