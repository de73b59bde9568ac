/*
 * host.h - what only the host's side of the Metal backend shares: device.c, memory.c, queue.c, pipelines.c.
 */
#ifndef SILL_METAL_HOST_H
#define SILL_METAL_HOST_H

#include "backend/metal/metal.h"
#include "backend/metal/objc.h"

/* ------------------------------------------------------------ pipelines.c */

/* The system's device, the library and its pipelines are one for a process. Each open needs a close; the library is
 * compiled at the first pipeline and kept until the process ends. */
sill_status sill__mtl_pipelines_open(sill__mtl_pipelines **out, mtl_id *device, sill_error *err);
void sill__mtl_pipelines_close(sill__mtl_pipelines *p);
/* The pipeline of a kernel with these constants; *max_threads: most threads of a threadgroup. */
sill_status sill__mtl_pipeline_get(sill__mtl_pipelines *p, const char *kernel, const uint32_t *constants, int n_constants,
                                   mtl_id *pipeline, uint32_t *max_threads, sill_error *err);
/* Compiles the library now, where that has not been done. */
sill_status sill__mtl_library_compile(sill__mtl_pipelines *p, sill_error *err);
/* The system took the GPU away: only a new process gets it back. */
#define SILL__MTL_LOST "the system took the GPU away from this process: start it anew, or use --device cpu"
void sill__mtl_lose(sill__mtl_pipelines *p);
bool sill__mtl_lost(sill__mtl_pipelines *p);
/* For tests: gives back what is kept while no device is open; and how often was compiled, how many pipelines made and
 * how many of them found in the archive. */
void sill__mtl_forget(void);
typedef struct sill__mtl_made { uint32_t libraries, pipelines, from_archive; } sill__mtl_made;
sill__mtl_made sill__mtl_made_so_far(void);
/* Name, version and build of the operating system, whose parts Metal and its compiler are. */
void sill__mtl_system_text(char *out, size_t cap);
/* Text of an NSError, in place of nothing where there is none. */
void sill__mtl_error_text(mtl_id error, char *out, size_t cap);

/* --------------------------------------------------------------- memory.c */

/* A shared buffer, contents undefined. Counted in d->in_use and made resident. */
sill_status sill__mtl_buffer_new(sill__device *d, size_t bytes, const char *what, mtl_id *out, void **contents, sill_error *err);
/* Gives a buffer back as soon as no submitted work can use it. */
void sill__mtl_buffer_drop(sill__device *d, mtl_id buffer, size_t bytes);
/* Asks for residency of what was added: when a queue is made, and before work, should it have grown. */
void sill__mtl_residency_request(sill__device *d);
/* Commits a command buffer, with everything in it resident. Work in flight is counted, so that nothing is freed under it. */
void sill__mtl_work_commit(sill__device *d, mtl_id commands);
void sill__mtl_work_ended(sill__device *d);
void sill__mtl_maps_close(sill__device *d);

uint64_t sill__mtl_weight_bytes(const sill__device *d, const sill__weight_src *src);
uint64_t sill__mtl_weights_bytes(const sill__device *d, const sill__weight_src *const *srcs, size_t n);
sill_status sill__mtl_weight_import(sill__device *d, const sill__weight_src *src, sill__weight **out, sill_error *err);
void sill__mtl_weight_free(sill__device *d, sill__weight *w);
sill_status sill__mtl_weights_import(sill__device *d, const sill__weight_src *const *srcs, sill__weight **const *to,
                                     size_t n, bool keep, sill_error *err);
sill_status sill__mtl_buf_create(sill__device *d, size_t bytes, sill__buf **out, sill_error *err);
void sill__mtl_buf_free(sill__device *d, sill__buf *b);
sill_status sill__mtl_buf_write(sill__device *d, sill__ref to, const void *from, size_t bytes);
sill_status sill__mtl_buf_read(sill__device *d, sill__ref from, void *to, size_t bytes);
void *sill__mtl_buf_map(sill__device *d, sill__buf *b);
uint64_t sill__mtl_kv_bytes(const sill__device *d, const sill__kv_shape *shape);
sill_status sill__mtl_kv_create(sill__device *d, const sill__kv_shape *shape, sill__kv **out, sill_error *err);
void sill__mtl_kv_free(sill__device *d, sill__kv *kv);

/* ---------------------------------------------------------------- queue.c */

uint64_t sill__mtl_queue_bytes(const sill__device *d, const sill__queue_shape *shape);
sill_status sill__mtl_queue_create(sill__device *d, const sill__queue_shape *shape, sill__queue **out, sill_error *err);
void sill__mtl_queue_free(sill__device *d, sill__queue *q);
void sill__mtl_begin(sill__queue *q, const sill__batch *batch);
bool sill__mtl_begin_behind(sill__queue *q, const sill__batch *batch);
void sill__mtl_take_ids(sill__queue *q, sill__ref ids, const int32_t *rows);
sill_status sill__mtl_submit(sill__queue *q, sill__ticket *ticket, sill_error *err);
sill_status sill__mtl_wait(sill__queue *q, sill__ticket ticket, sill_error *err);

/* What a queue has done since it was made. */
typedef struct sill__mtl_counts {
    uint64_t commands, dispatches, barriers; /* command buffers, kernels, memory barriers */
    uint64_t grown;                          /* allocations after creation */
    double gpu_seconds;
} sill__mtl_counts;
sill__mtl_counts sill__mtl_queue_counts(const sill__queue *q);
/* How many command buffers submit makes of what is recorded, and what the longest and all of them take, in seconds of an M1
 * (estimated). */
typedef struct sill__mtl_pieces { uint64_t n; double longest, all; } sill__mtl_pieces;
sill__mtl_pieces sill__mtl_queue_pieces(const sill__queue *q);
/* For tests: queues made from now on begin another command buffer behind so many of those seconds; 0: as always. */
void sill__mtl_piece_seconds(double seconds);

#endif
