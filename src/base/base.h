/*
 * base.h - what every part of sill stands on: errors, memory, growing buffers, file maps, hashes,
 * random numbers, logging. Knows nothing of models. json.h and pool.h are beside it.
 */
#ifndef SILL_BASE_H
#define SILL_BASE_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "sill.h"

#if defined(__GNUC__) || defined(__clang__)
#define SILL_PRINTF(a, b) __attribute__((format(printf, a, b)))
#else
#define SILL_PRINTF(a, b)
#endif

#define SILL_ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
#define SILL_MIN(a, b) ((a) < (b) ? (a) : (b))
#define SILL_MAX(a, b) ((a) > (b) ? (a) : (b))

/* ---- errors: sill__fail sets *err (may be NULL) and returns the code, so `return sill__fail(...)`. */
sill_status sill__fail(sill_error *err, sill_status code, const char *format, ...) SILL_PRINTF(3, 4);
/* Copies a caller's option struct (first member: its size) of any version into OUT, zeroed first. in may be NULL. */
sill_status sill__options_read(const void *in, void *out, size_t out_bytes, const char *name, sill_error *err);
/* Puts "CONTEXT: " in front of the message already in *err. */
void sill__fail_context(sill_error *err, const char *format, ...) SILL_PRINTF(2, 3);
/* Control characters and what is no UTF-8 become "?", in place: messages quote files, and end on terminals. Done to
 * every message of sill__fail and sill__log. */
void sill__plain(char *text);
/* A broken invariant of ours: aborts in debug builds (SILL_DEBUG), else EINTERNAL. */
sill_status sill__bug(sill_error *err, const char *file, int line, const char *what);
#define SILL__BUG(err, what) sill__bug((err), __FILE__, __LINE__, (what))

/* ---- memory: all heap memory goes through these. Zero bytes gives a valid pointer. */
void *sill__alloc(size_t bytes);              /* NULL when out of memory */
void *sill__calloc(size_t n, size_t bytes);   /* zeroed, n * bytes checked */
void *sill__realloc(void *ptr, size_t bytes);
void sill__free(void *ptr);
char *sill__strndup(const char *s, size_t n); /* adds a NUL */
/* Aligned to 64 bytes; asks for huge pages from 2 MiB up. Contents zero. Free with its size. */
void *sill__alloc_pages(size_t bytes);
void sill__free_pages(void *ptr, size_t bytes);
/* Touches a mapped stretch and tells whether it then lies in huge pages. False where the system does not tell. */
bool sill__in_huge_pages(const void *ptr, size_t bytes);
/* Test hooks: number of allocations so far; make the n-th one from now fail (0: off). */
uint64_t sill__alloc_count(void);
void sill__alloc_fail_at(uint64_t n);

bool sill__mul(size_t a, size_t b, size_t *out); /* false on overflow */
bool sill__add(size_t a, size_t b, size_t *out);

/* A bump arena: freed as a whole. Blocks are zeroed and 64-byte aligned. */
typedef struct sill__arena { struct sill__arena_block *head; size_t used; } sill__arena;
void *sill__arena_alloc(sill__arena *arena, size_t bytes);
void sill__arena_free(sill__arena *arena);

/* ---- growing byte buffer with a hard maximum. Always NUL-terminated behind its length. */
typedef struct sill__str { char *p; size_t n, cap, max; bool failed; } sill__str;
void sill__str_init(sill__str *s, size_t max_bytes);
bool sill__str_put(sill__str *s, const void *bytes, size_t n); /* false and failed set when it cannot */
bool sill__str_puts(sill__str *s, const char *z);
bool sill__str_putf(sill__str *s, const char *format, ...) SILL_PRINTF(2, 3);
/* A JSON string. Bytes that are not UTF-8 become U+FFFD; returns how many did. */
size_t sill__put_json_string(sill__str *s, const char *text, size_t n_bytes);
/* Length of the valid UTF-8 character at P (before END), or minus the bytes of the longest part of one that is valid
 * so far (at least 1): what is replaced by one U+FFFD. */
int sill__utf8_step(const unsigned char *p, const unsigned char *end);
void sill__str_clear(sill__str *s);
void sill__str_free(sill__str *s);

/* ---- files */
/* What tells one state of a file from another; all zeros: nothing is known of it. */
typedef struct sill__file_id { uint64_t device, inode, bytes, modified_ns, changed_ns; } sill__file_id;
typedef struct sill__map {
    const uint8_t *data;
    size_t bytes;
    void *handle;
    size_t span; /* from handle on; 0: bytes */
    sill__file_id id;
} sill__map;
/* Maps a regular file read-only, at a multiple of 16 KiB and with zeros up to one behind its end: what a GPU can take as
 * it stands. An empty file gives data != NULL, bytes 0. */
sill_status sill__map_open(const char *path, sill__map *map, sill_error *err);
void sill__map_close(sill__map *map);
/* Tells the system that these pages will not be needed again soon. */
void sill__map_release(const sill__map *map, size_t offset, size_t bytes);
/* Reads a whole file of at most MAX bytes; NUL added behind. Free with sill__free. */
sill_status sill__read_file(const char *path, size_t max_bytes, char **data, size_t *bytes, sill_error *err);
bool sill__is_dir(const char *path);
bool sill__is_file(const char *path);
/* dir + "/" + name in caller's buffer; false when it does not fit. */
bool sill__path_join(char *out, size_t cap, const char *dir, const char *name);

/* Whether the N bytes of S end with TAIL. */
bool sill__ends_with(const char *s, size_t n, const char *tail);

/* The most that one call of read, write, pread or pwrite is asked for: macOS refuses more than INT_MAX bytes. */
#define SILL_IO_MAX ((size_t)1 << 30)
/* All N bytes to or from a file, through interruptions and partial calls; the p forms at AT. 0, or why not as errno has it:
 * ENOSPC where nothing more is taken, EIO where the file ends. *DONE (may be NULL): bytes written, in either case. */
int sill__write_all(int fd, const void *from, size_t n, size_t *done);
int sill__pwrite_all(int fd, const void *from, size_t n, uint64_t at);
int sill__pread_all(int fd, void *to, size_t n, uint64_t at);

/* ---- the user's cache directory (cache.c). Nothing here reports errors: what does not work is not cached. */
/* SUB in it: $SILL_CACHE/SUB, $XDG_CACHE_HOME/sill/SUB or ~/.cache/sill/SUB; false when it does not fit. */
bool sill__cache_path(char *out, size_t cap, const char *sub);
/* Opens it (made, mode 0700, when MAKE); -1 unless it is this user's alone to write. */
int sill__cache_dir(const char *sub, bool make);
/* Opens a file of exactly BYTES bytes that is this user's alone to write; -1 otherwise. Counts as use. */
int sill__cache_open(int dir, const char *name, uint64_t bytes);
/* A new private file of BYTES bytes to come, under the temporary name TEMP; -1 when there is no room or no right. Then
 * end: with WHOLE it becomes NAME, in one step, else it is removed. */
int sill__cache_begin(int dir, const char *name, uint64_t bytes, char *temp, size_t cap);
bool sill__cache_end(int dir, int fd, const char *temp, const char *name, bool whole);
/* Removes files ending in SUFFIX, longest unused first, until all but BUT have at most KEEP bytes; and temporary files
 * that were left behind. */
void sill__cache_trim(int dir, const char *suffix, const char *but, uint64_t keep);

/* ---- system */
/* Memory that can be used without swapping, cgroup limits heeded (file cache counts as free); 0: the system does not
 * tell. */
uint64_t sill__available_bytes(void);
#ifdef __linux__
uint64_t sill__available_bytes_under(const char *root); /* the same by the files under `root`, for tests */
#endif
/* The system and its version in one line: "Linux 6.1.0-18-amd64 x86_64", "macOS 14.5 (23F79) arm64". */
void sill__os_version(char *out, size_t cap);
size_t sill__page_bytes(void);         /* of memory: 4 KiB on x86-64, 16 KiB on Apple silicon, up to 64 KiB elsewhere */
int sill__n_cores(void);               /* physical (performance) cores that this process may use */
int sill__n_processors(void);          /* all that this process may run on */
double sill__now(void);                /* seconds, monotonic */
uint64_t sill__clock_ns(void);         /* nanoseconds since 1970, as files are stamped */

/* ---- hashes */
typedef struct sill__sha256 { uint32_t h[8]; uint64_t n; uint8_t block[64]; } sill__sha256;
void sill__sha256_init(sill__sha256 *s);
void sill__sha256_update(sill__sha256 *s, const void *data, size_t n);
void sill__sha256_final(sill__sha256 *s, uint8_t out[32]);
void sill__sha256_hex(const uint8_t digest[32], char out[65]);
uint64_t sill__hash64(const void *data, size_t n); /* FNV-1a finished with a mixer; for tables and keys */
uint64_t sill__sum64(const void *data, size_t n); /* as fast as memory; finds accidents, not malice */

/* ---- counter-based random numbers: Philox 4x32-10 (Salmon et al. 2011, "Parallel random numbers: as
 * easy as 1, 2, 3"). Same (seed, key, sequence, step) = same numbers, anywhere. */
void sill__philox(uint64_t seed, uint64_t row_key, uint32_t sequence, uint32_t step, uint32_t out[4]);
double sill__uniform(uint64_t seed, uint64_t row_key, uint32_t sequence, uint32_t step); /* [0, 1), 53 bits */

/* ---- logging through sill_set_log */
void sill__log(int level, const char *format, ...) SILL_PRINTF(2, 3);

/* ---- 16-bit floats (portable, exact; used where no instruction does it) */
static inline float sill__bits_f32(uint32_t u) { float f; memcpy(&f, &u, 4); return f; }
static inline uint32_t sill__f32_bits(float f) { uint32_t u; memcpy(&u, &f, 4); return u; }
static inline float sill__bf16_to_f32(uint16_t h) { return sill__bits_f32((uint32_t)h << 16); }
static inline uint16_t sill__f32_to_bf16(float f) { /* round to nearest even; NaN stays NaN */
    uint32_t u = sill__f32_bits(f);
    if ((u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)((u >> 16) | 64u);
    return (uint16_t)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}
float sill__f16_to_f32(uint16_t h);
uint16_t sill__f32_to_f16(float f); /* round to nearest even, overflow to infinity */

#endif
