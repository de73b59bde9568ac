/* The fake Metal's own functions, for tests: exported by libfakemetal.so beside those of the Objective-C runtime and Metal. */
#ifndef FAKEMETAL_H
#define FAKEMETAL_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#define FAKEMETAL_API __attribute__((visibility("default")))

typedef struct fakemetal_dispatch {     /* one dispatch that ran */
    char kernel[96];
    uint32_t groups[3], threads[3];
    uint64_t command_buffer;            /* numbered from 1 in the order of commit */
    uint32_t encoder, interval;         /* numbered within the command buffer; an interval ends at a barrier */
    uint64_t bytes_read, bytes_written; /* distinct bytes of device memory; 0 when not counted (mode fast) */
    double seconds;
} fakemetal_dispatch;
struct fake_obj;                        /* an object of the runtime */
typedef struct fakemetal_totals {
    uint64_t command_buffers, encoders, dispatches, barriers;
    uint64_t bytes_read, bytes_written; /* sums over dispatches */
    uint64_t live_objects, unpooled;    /* objects not freed; autoreleased without a pool */
    uint64_t allocated, allocated_peak; /* bytes of MTLBuffers that Metal allocated (no-copy ones are not counted) */
    uint64_t buffers_made, pipelines_made, libraries_made;
} fakemetal_totals;

FAKEMETAL_API void fakemetal_totals_get(fakemetal_totals *t);
FAKEMETAL_API void fakemetal_counters_reset(void);           /* all but what is alive */
FAKEMETAL_API size_t fakemetal_dispatches(fakemetal_dispatch *out, size_t max); /* how many ran since the reset; the first max of them */
/* Of the bytes counted in totals since the reset, those of one buffer. */
FAKEMETAL_API void fakemetal_buffer_bytes(struct fake_obj *buffer, uint64_t *read, uint64_t *written);
FAKEMETAL_API void fakemetal_keep_dispatches(bool on);       /* keep the list (off at first: long runs) */

/* What is to fail: "command-buffer", "buffer", "library", "pipeline", "queue", "residency-set", "archive"; the after-th call from
 * now on (1: the next) fails, `times` times. A command buffer that fails has run by half. It fails as MTLCommandBufferError says with
 * "internal", "timeout", "page-fault", "access-revoked", "not-permitted", "out-of-memory", "invalid-resource", "device-removed",
 * "stack-overflow"; after "access-revoked" and "device-removed" all others do as well, until those are named again. */
FAKEMETAL_API int fakemetal_fault(const char *what, long after, long times);
/* Settings that environment variables give as well (FAKEMETAL_OS, ...): "os" 13.0, "family" 1007, "working-set" bytes,
 * "max-threads" 1024, "schedule" 0 up 1 down, "async" 0 or 1,
 * "workers" threads, "races" 0 or 1, "fast" 0 or 1 (libraries made from then on), "error-code" of a command buffer that is to
 * fail (MTLCommandBufferError). 0: done. */
FAKEMETAL_API int fakemetal_set(const char *what, double value);
FAKEMETAL_API void fakemetal_skip_barrier(int line);         /* kernel barriers of this source line do nothing; 0: none, -1: forget those seen */
FAKEMETAL_API size_t fakemetal_barriers(int *lines, size_t max); /* source lines of the kernel barriers that ran */
FAKEMETAL_API const char *fakemetal_compiler(void);          /* the C++ compiler's command, or NULL when none was found */
/* Between setBuffer and dispatch: only so many bytes of the buffer at an index are meant, from its offset on; 0: all. */
FAKEMETAL_API void fakemetal_extent(struct fake_obj *encoder, unsigned long index, unsigned long bytes);
/* Compiles a text of kernels as newLibraryWithSource would; NULL: it compiles, else what is wrong (to be freed). */
FAKEMETAL_API char *fakemetal_compile(const char *source);
#endif
