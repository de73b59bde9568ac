/*
 * memory.c - buffers, weights, keys and values. All buffers are shared with the host and their hazards not tracked by
 * Metal. Weights stay in the mapped file where their stored form can be computed with; the others are converted, one
 * tensor at a time.
 */
#include "backend/metal/host.h"

#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/pool.h"

#define PAGE ((size_t)16384)           /* of Apple silicon: what a buffer over mapped memory begins and ends at */
#define GAP ((size_t)1 << 20)          /* stretches of a file that lie closer share a window */
#define OPTIONS (MTL_STORAGE_SHARED | MTL_UNTRACKED)
#define MIB(bytes) ((double)(bytes) / 1048576.0)

/* Bytes [start, end) of a mapped file, as a buffer. */
struct sill__mtl_map { const uint8_t *base; size_t start, end; mtl_id buffer; sill__mtl_map *next; };

/* ----------------------------------------------------------------- buffers */

static void make_resident(sill__device *d, mtl_id buffer, size_t bytes) {
    pthread_mutex_lock(&d->lock);
    d->in_use += bytes;
    if (d->residency) {
        mtl_residency_add(d->residency, buffer);
        mtl_commit(d->residency);
        d->unrequested = true;
    }
    pthread_mutex_unlock(&d->lock);
}

static void request_added(sill__device *d) {
    if (d->residency && d->unrequested) mtl_residency_request(d->residency);
    d->unrequested = false;
}

void sill__mtl_residency_request(sill__device *d) {
    pthread_mutex_lock(&d->lock);
    request_added(d);
    pthread_mutex_unlock(&d->lock);
}

/* Nothing uses it any more. */
static void give_back(sill__device *d, mtl_id buffer) {
    if (d->residency) {
        mtl_residency_remove(d->residency, buffer);
        mtl_commit(d->residency);
    }
    mtl_release(buffer);
}

sill_status sill__mtl_buffer_new(sill__device *d, size_t bytes, const char *what, mtl_id *out, void **contents, sill_error *err) {
    *out = NULL;
    *contents = NULL;
    if (bytes == 0) bytes = 16;
    if (bytes > d->max_buffer)
        return sill__fail(err, SILL_ENOFIT, "%s: %.1f MiB in one piece, %s takes at most %.1f", what, MIB(bytes), d->name,
                          MIB(d->max_buffer));
    void *pool = sill__mtl_rt.pool_push();
    mtl_id buffer = mtl_device_new_buffer(d->id, bytes, OPTIONS);
    *contents = buffer ? mtl_buffer_contents(buffer) : NULL;
    if (buffer && !*contents) {
        mtl_release(buffer);
        buffer = NULL;
    }
    if (buffer) make_resident(d, buffer, bytes);
    sill__mtl_rt.pool_pop(pool);
    if (!buffer) return sill__fail(err, SILL_ENOMEM, "%s: the GPU has no memory for %.1f MiB", what, MIB(bytes));
    *out = buffer;
    return SILL_OK;
}

/* Command buffers do not retain what they use: what one in flight may use waits until none is. */
void sill__mtl_buffer_drop(sill__device *d, mtl_id buffer, size_t bytes) {
    if (!buffer) return;
    void *pool = sill__mtl_rt.pool_push();
    pthread_mutex_lock(&d->lock);
    d->in_use -= SILL_MIN(d->in_use, bytes ? bytes : 16);
    bool later = d->n_working > 0;
    if (later && d->n_dropped == d->cap_dropped) {
        size_t cap = d->cap_dropped ? 2 * d->cap_dropped : 16;
        mtl_id *grown = sill__realloc(d->dropped, cap * sizeof *grown);
        if (grown) {
            d->dropped = grown;
            d->cap_dropped = cap;
        }
    }
    if (!later) give_back(d, buffer);
    else if (d->n_dropped < d->cap_dropped) d->dropped[d->n_dropped++] = buffer;
    /* else it is lost to this process: better than to be freed under the GPU */
    pthread_mutex_unlock(&d->lock);
    sill__mtl_rt.pool_pop(pool);
}

/* Under the lock that every change of the residency set takes: another thread's addition is wholly before or wholly behind. */
void sill__mtl_work_commit(sill__device *d, mtl_id commands) {
    pthread_mutex_lock(&d->lock);
    d->n_working++;
    request_added(d);
    mtl_commit(commands);
    pthread_mutex_unlock(&d->lock);
}

void sill__mtl_work_ended(sill__device *d) {
    pthread_mutex_lock(&d->lock);
    if (--d->n_working == 0)
        while (d->n_dropped) give_back(d, d->dropped[--d->n_dropped]);
    pthread_mutex_unlock(&d->lock);
}

sill_status sill__mtl_buf_create(sill__device *d, size_t bytes, sill__buf **out, sill_error *err) {
    void *contents;
    *out = NULL;
    sill__buf *b = sill__calloc(1, sizeof *b);
    if (!b) return sill__fail(err, SILL_ENOMEM, "no memory for a buffer of %zu bytes", bytes);
    sill_status s = sill__mtl_buffer_new(d, bytes, "a buffer", &b->buffer, &contents, err);
    if (s != SILL_OK) {
        sill__free(b);
        return s;
    }
    b->data = memset(contents, 0, bytes);
    b->bytes = bytes;
    *out = b;
    return SILL_OK;
}

void sill__mtl_buf_free(sill__device *d, sill__buf *b) {
    if (!b) return;
    sill__mtl_buffer_drop(d, b->buffer, b->bytes);
    sill__free(b);
}

static bool in_buf(sill__ref r, size_t bytes) {
    return r.buf && r.at <= r.buf->bytes && bytes <= r.buf->bytes - r.at;
}

sill_status sill__mtl_buf_write(sill__device *d, sill__ref to, const void *from, size_t bytes) {
    (void)d;
    if (!in_buf(to, bytes)) return SILL_EINVAL;
    if (bytes) memcpy(to.buf->data + to.at, from, bytes);
    return SILL_OK;
}

sill_status sill__mtl_buf_read(sill__device *d, sill__ref from, void *to, size_t bytes) {
    (void)d;
    if (!in_buf(from, bytes)) return SILL_EINVAL;
    if (bytes) memcpy(to, from.buf->data + from.at, bytes);
    return SILL_OK;
}

void *sill__mtl_buf_map(sill__device *d, sill__buf *b) {
    (void)d;
    return b->data;
}

/* --------------------------------------------------------- keys and values */

uint64_t sill__mtl_kv_bytes(const sill__device *d, const sill__kv_shape *shape) {
    size_t n = 0;
    (void)d;
    if (shape->n_layers < 1 || shape->n_kv_heads < 1 || shape->n_blocks < 1 ||
        !sill__mul(sill__mtl_kv_block_bytes(shape, NULL), (size_t)shape->n_blocks, &n) || n == 0)
        return UINT64_MAX;
    return n;
}

sill_status sill__mtl_kv_create(sill__device *d, const sill__kv_shape *shape, sill__kv **out, sill_error *err) {
    void *contents;
    *out = NULL;
    if (sill__mtl_kv_block_bytes(shape, err) == 0) return SILL_EUNSUPPORTED;
    uint64_t bytes = sill__mtl_kv_bytes(d, shape);
    if (bytes >= SIZE_MAX)
        return sill__fail(err, SILL_ERANGE, "no such KV cache: %d layers, %d heads, %d blocks", shape->n_layers,
                          shape->n_kv_heads, shape->n_blocks);
    sill__kv *kv = sill__calloc(1, sizeof *kv);
    if (!kv) return sill__fail(err, SILL_ENOMEM, "no memory for a KV cache");
    kv->shape = *shape;
    kv->bytes = (size_t)bytes;
    sill_status s = sill__mtl_buffer_new(d, kv->bytes, "keys and values", &kv->buffer, &contents, err);
    if (s == SILL_OK) *out = kv;
    else sill__free(kv);
    return s;
}

void sill__mtl_kv_free(sill__device *d, sill__kv *kv) {
    if (!kv) return;
    sill__mtl_buffer_drop(d, kv->buffer, kv->bytes);
    sill__free(kv);
}

/* -------------------------------------------------- what becomes of a tensor */

typedef enum fate { FATE_MAP, FATE_COPY, FATE_CONVERT, FATE_QUANTIZE } fate;

typedef struct part_plan {
    const sill__tensor *t;
    fate fate;
    sill__type type;        /* as it will lie */
    uint64_t rows;          /* of the weight in this part */
    uint64_t lines, line;   /* storage rows and their elements, as they will lie */
    size_t bytes;
} part_plan;

typedef struct weight_plan { part_plan parts[4]; int n; bool transposed; size_t own_bytes, scales_at; } weight_plan;

/* Mapped at a page of Apple silicon, and the data where kernels can read it. */
static bool can_map(const sill__tensor *t, uint64_t block) {
    uintptr_t align = block > 1 ? 4 : 8;
    return t->map && t->map->handle && (uintptr_t)t->map->handle % PAGE == 0 && (uintptr_t)t->data % align == 0 &&
           t->data >= t->map->data && t->bytes <= t->map->bytes &&
           (size_t)(t->data - t->map->data) <= t->map->bytes - t->bytes;
}

/* The type that a part will have, and what has to be done for it. */
static void decide(const sill__weight_src *src, part_plan *p) {
    const sill__type_info *info = sill__type_get(p->t->type);
    p->type = p->t->type;
    p->fate = can_map(p->t, info->block) ? FATE_MAP : FATE_COPY;
    if (src->role == SILL__ROLE_EMBED) return;
    switch (src->compute) {
    case SILL__COMPUTE_F32: break;
    case SILL__COMPUTE_F16: p->type = SILL__TYPE_F16; break;
    case SILL__COMPUTE_BF16: p->type = SILL__TYPE_BF16; break;
    case SILL__COMPUTE_BLOCK_I8: p->type = info->block == 1 ? src->as : p->t->type; break;
    case SILL__COMPUTE_INT8: p->type = SILL__TYPE_I8; break;
    }
    if (p->type == p->t->type) return;
    p->fate = p->type == SILL__TYPE_F16 || p->type == SILL__TYPE_BF16 ? FATE_CONVERT : FATE_QUANTIZE;
    /* Made anew as it is, a matrix gets its rows along memory, which the kernel for a single row divides better. */
    if (p->fate == FATE_CONVERT && src->transposed && src->n_parts == 1) p->fate = FATE_QUANTIZE;
}

static sill_status plan_weight(const sill__weight_src *src, weight_plan *plan, sill_error *err) {
    const char *name = src->name ? src->name : "a weight";
    uint64_t have = 0;
    memset(plan, 0, sizeof *plan);
    if (src->n_parts < 1 || src->n_parts > 4 || src->rows < 1 || src->rows > INT32_MAX || src->cols < 1 ||
        src->cols > INT32_MAX)
        return sill__fail(err, SILL_EINVAL, "%s: a weight has 1 to 4 parts and at least one element", name);
    if (src->role == SILL__ROLE_EMBED && (src->n_parts != 1 || src->transposed))
        return sill__fail(err, SILL_EINVAL, "%s: not one stored table", name);
    plan->transposed = src->transposed;
    for (int i = 0; i < src->n_parts && have < src->rows; i++) {
        part_plan *p = &plan->parts[i];
        uint64_t stored;
        p->t = src->parts[i];
        sill_status s = sill__weight_check_part(src, p->t, p->t->name && src->n_parts > 1 ? p->t->name : name, "metal",
                                                &stored, err);
        if (s != SILL_OK) return s;
        decide(src, p);
        if (p->fate == FATE_QUANTIZE) plan->transposed = false;
        p->rows = SILL_MIN(stored, src->rows - have);
        p->lines = src->transposed ? src->cols : p->rows;
        p->line = src->transposed ? stored : src->cols;
        have += p->rows;
        plan->n++;
    }
    if (have < src->rows)
        return sill__fail(err, SILL_EINVAL, "%s has %llu rows, expected %llu", name, (unsigned long long)have,
                          (unsigned long long)src->rows);
    for (int i = 0; i < plan->n; i++) {
        part_plan *p = &plan->parts[i];
        if (p->fate == FATE_QUANTIZE) {
            p->lines = p->rows;
            p->line = src->cols;
        }
        if (!sill__mul(sill__row_bytes(p->type, p->line), (size_t)p->lines, &p->bytes) || p->bytes > SIZE_MAX / 16)
            return sill__fail(err, SILL_ERANGE, "%s: its bytes cannot be counted", name);
        if (p->fate != FATE_MAP) plan->own_bytes += (p->bytes + 63) & ~(size_t)63;
    }
    plan->scales_at = plan->own_bytes;
    if (src->role != SILL__ROLE_EMBED && src->compute == SILL__COMPUTE_INT8) plan->own_bytes += (size_t)src->rows * 4;
    return SILL_OK;
}

uint64_t sill__mtl_weight_bytes(const sill__device *d, const sill__weight_src *src) {
    weight_plan plan;
    (void)d;
    if (plan_weight(src, &plan, NULL) != SILL_OK) return 0;
    uint64_t bytes = plan.own_bytes;
    for (int i = 0; i < plan.n && src->role != SILL__ROLE_EMBED; i++) /* of a table a step reads a few rows */
        if (plan.parts[i].fate == FATE_MAP) bytes += plan.parts[i].bytes;
    return bytes;
}

/* ----------------------------------------------------- windows of the file */

static sill__mtl_map *find_window(sill__device *d, const sill__tensor *t, size_t bytes) {
    for (sill__mtl_map *m = d->maps; m; m = m->next)
        if (m->base == t->map->data && (size_t)(t->data - m->base) >= m->start &&
            (size_t)(t->data - m->base) + bytes <= m->end)
            return m;
    return NULL;
}

/* A buffer over bytes [start, end) of a mapped file, widened to whole pages. */
static sill_status open_window(sill__device *d, const sill__map *file, size_t start, size_t end, sill_error *err) {
    start &= ~(PAGE - 1);
    end = (end + PAGE - 1) & ~(PAGE - 1);
    if (end - start > d->max_buffer)
        return sill__fail(err, SILL_ENOFIT, "%.1f MiB of the model's file in one piece, %s takes at most %.1f", MIB(end - start),
                          d->name, MIB(d->max_buffer));
    sill__mtl_map *m = sill__calloc(1, sizeof *m);
    if (!m) return sill__fail(err, SILL_ENOMEM, "no memory for a window of the model's file");
    void *pool = sill__mtl_rt.pool_push();
    m->buffer = mtl_device_wrap_buffer(d->id, (uint8_t *)file->handle + start, end - start, OPTIONS, NULL);
    if (m->buffer) make_resident(d, m->buffer, end - start);
    sill__mtl_rt.pool_pop(pool);
    if (!m->buffer) {
        sill__free(m);
        return sill__fail(err, SILL_ENOMEM, "the GPU does not take %.1f MiB of the model's file", MIB(end - start));
    }
    m->base = file->data;
    m->start = start;
    m->end = end;
    m->next = d->maps;
    d->maps = m;
    return SILL_OK;
}

void sill__mtl_maps_close(sill__device *d) {
    for (sill__mtl_map *m = d->maps, *next; m; m = next) {
        next = m->next;
        sill__mtl_buffer_drop(d, m->buffer, m->end - m->start);
        sill__free(m);
    }
    d->maps = NULL;
}

typedef struct stretch { const sill__map *file; size_t start, end; } stretch;

static int by_place(const void *a, const void *b) {
    const stretch *x = a, *y = b;
    if (x->file != y->file) return (uintptr_t)x->file < (uintptr_t)y->file ? -1 : 1;
    return x->start < y->start ? -1 : x->start > y->start;
}

/* The window over sorted stretches from *i on: those that lie close together share one, as large as a buffer may be. Moves *i
 * behind them. */
static stretch next_window(const sill__device *d, const stretch *all, size_t n, size_t *i) {
    stretch w = all[(*i)++];
    for (; *i < n && all[*i].file == w.file && (all[*i].start <= w.end || all[*i].start - w.end <= GAP); (*i)++) {
        size_t wider = SILL_MAX(w.end, all[*i].end);
        if (wider - w.start > d->max_buffer - 2 * PAGE) break;
        w.end = wider;
    }
    return w;
}

static sill_status open_windows(sill__device *d, const stretch *all, size_t n, sill_error *err) {
    sill_status s = SILL_OK;
    for (size_t i = 0; i < n && s == SILL_OK;) {
        stretch w = next_window(d, all, n, &i);
        s = open_window(d, w.file, w.start, w.end, err);
    }
    return s;
}

/* Adds the parts of PLAN that stay in their file. */
static void note_mapped(const weight_plan *plan, stretch *all, size_t *n) {
    for (int k = 0; k < plan->n; k++) {
        const part_plan *p = &plan->parts[k];
        if (p->fate != FATE_MAP) continue;
        size_t start = (size_t)(p->t->data - p->t->map->data);
        all[(*n)++] = (stretch){.file = p->t->map, .start = start, .end = start + p->bytes};
    }
}

/* Tables that stay in the file are in a window like all else, and with it in the GPU's working set. */
uint64_t sill__mtl_weights_bytes(const sill__device *d, const sill__weight_src *const *srcs, size_t n) {
    stretch *mapped = sill__calloc(n, 4 * sizeof *mapped);
    size_t n_mapped = 0;
    uint64_t bytes = 0;
    if (!mapped) return UINT64_MAX;
    for (size_t i = 0; i < n; i++) {
        weight_plan plan;
        if (plan_weight(srcs[i], &plan, NULL) != SILL_OK) continue; /* importing it will say why */
        bytes += plan.own_bytes;
        note_mapped(&plan, mapped, &n_mapped);
    }
    qsort(mapped, n_mapped, sizeof *mapped, by_place);
    for (size_t i = 0; i < n_mapped;) {
        stretch w = next_window(d, mapped, n_mapped, &i);
        bytes += ((w.end + PAGE - 1) & ~(PAGE - 1)) - (w.start & ~(PAGE - 1));
    }
    sill__free(mapped);
    return bytes;
}

/* ----------------------------------------------------------------- making */

typedef struct make_job {
    const sill__weight_src *src;
    const part_plan *part;
    uint8_t *to;
    float *scales;          /* of this part's rows: INT8 */
    atomic_size_t next;
    atomic_bool failed;
} make_job;

#define TILE 64 /* weight rows made at once where the storage is transposed, so that lines are read in pieces */

/* Rows [first, first + n) as f32, whatever the orientation. */
static void read_rows(const make_job *job, uint64_t first, uint64_t n, float *rows) {
    const sill__tensor *t = job->part->t;
    size_t cols = (size_t)job->src->cols, size = sill__row_bytes(t->type, 1);
    if (!job->src->transposed) {
        sill__dequant(t->type, t->data + (size_t)first * sill__row_bytes(t->type, cols), rows, (size_t)n * cols);
        return;
    }
    float piece[TILE];
    size_t line = size * (size_t)t->dims[1];
    for (size_t c = 0; c < cols; c++) {
        sill__dequant(t->type, t->data + c * line + (size_t)first * size, piece, (size_t)n);
        for (size_t r = 0; r < n; r++) rows[r * cols + c] = piece[r];
    }
}

/* LLM.int8: codes of -127 .. 127 and the row's scale, as the reference makes them. */
static void make_int8(const float *x, size_t n, int8_t *codes, float *scale) {
    float amax = 0;
    bool finite = true;
    for (size_t i = 0; i < n; i++) {
        amax = fmaxf(amax, fabsf(x[i]));
        finite = finite && isfinite(x[i]);
    }
    const float inverse = finite && amax >= 1e-30f ? 127.0f / amax : 0;
    *scale = !finite ? NAN : amax < 1e-30f ? 0 : amax / 127.0f;
    for (size_t i = 0; i < n; i++) codes[i] = finite ? (int8_t)rintf(x[i] * inverse) : 0;
}

static void round_values(sill__type type, const float *values, uint16_t *out, size_t n) {
    if (type == SILL__TYPE_F16)
        for (size_t i = 0; i < n; i++) out[i] = sill__f32_to_f16(values[i]);
    else
        for (size_t i = 0; i < n; i++) out[i] = sill__f32_to_bf16(values[i]);
}

/* Row by row, from any orientation. */
static void quantize_rows(const make_job *job, uint64_t first, uint64_t n, const float *rows) {
    const part_plan *p = job->part;
    size_t cols = (size_t)job->src->cols, bytes = sill__row_bytes(p->type, cols);
    for (uint64_t r = 0; r < n; r++) {
        uint8_t *to = job->to + (size_t)(first + r) * bytes;
        const float *row = rows + (size_t)r * cols;
        if (p->type == SILL__TYPE_I8) make_int8(row, cols, (int8_t *)to, &job->scales[first + r]);
        else if (sill__type_get(p->type)->block == 1) round_values(p->type, row, (uint16_t *)(void *)to, cols);
        else sill__quantize(p->type, row, to, cols);
    }
}

static void convert_line(const part_plan *p, uint64_t line, float *values, uint8_t *to) {
    const size_t n = (size_t)p->line;
    uint16_t *out = (uint16_t *)(void *)(to + (size_t)line * n * 2);
    sill__dequant(p->t->type, p->t->data + (size_t)line * sill__row_bytes(p->t->type, n), values, n);
    round_values(p->type, values, out, n);
}

static void make_some(void *arg, int i, int n) {
    make_job *job = arg;
    const part_plan *p = job->part;
    const uint64_t step = p->fate == FATE_QUANTIZE ? (job->src->transposed ? TILE : 4) : 16;
    float *values = sill__alloc((p->fate == FATE_QUANTIZE ? (size_t)step : 1) * (size_t)p->line * sizeof *values);
    (void)i, (void)n;
    if (!values) atomic_store(&job->failed, true);
    for (uint64_t first; values && (first = atomic_fetch_add(&job->next, (size_t)step)) < p->lines;) {
        uint64_t count = SILL_MIN(step, p->lines - first);
        if (p->fate == FATE_QUANTIZE) {
            read_rows(job, first, count, values);
            quantize_rows(job, first, count, values);
        } else {
            for (uint64_t l = first; l < first + count; l++) convert_line(p, l, values, job->to);
        }
    }
    sill__free(values);
}

/* One part into its place; the source's pages are given back. */
static sill_status make_part(const sill__weight_src *src, const part_plan *p, uint8_t *to, float *scales, sill__pool *pool,
                             sill_error *err) {
    make_job job = {.src = src, .part = p, .to = to, .scales = scales};
    atomic_init(&job.next, 0);
    atomic_init(&job.failed, false);
    if (p->fate == FATE_COPY) {
        memcpy(to, p->t->data, p->bytes);
    } else if (pool && p->bytes > 1 << 18) {
        sill__pool_lock(pool);
        sill__pool_run(pool, make_some, &job);
        sill__pool_unlock(pool);
    } else {
        make_some(&job, 0, 1);
    }
    if (atomic_load(&job.failed)) return sill__fail(err, SILL_ENOMEM, "no memory to convert %s", p->t->name);
    if (src->role != SILL__ROLE_EMBED && p->t->map)
        sill__map_release(p->t->map, (size_t)(p->t->data - p->t->map->data), p->t->bytes);
    return SILL_OK;
}

void sill__mtl_weight_free(sill__device *d, sill__weight *w) {
    if (!w) return;
    sill__mtl_buffer_drop(d, w->own, w->own_bytes);
    sill__free(w);
}

static sill_status make_weight(sill__device *d, const sill__weight_src *src, const weight_plan *plan, sill__weight *w,
                               sill__pool *pool, sill_error *err) {
    void *contents = NULL;
    size_t at = 0;
    int32_t first = 0;
    sill_status s = SILL_OK;
    if (plan->own_bytes) {
        s = sill__mtl_buffer_new(d, plan->own_bytes, src->name ? src->name : "a weight", &w->own, &contents, err);
        if (s != SILL_OK) return s;
        w->own_bytes = plan->own_bytes;
    }
    if (src->role != SILL__ROLE_EMBED && src->compute == SILL__COMPUTE_INT8) {
        w->scales = w->own;
        w->scales_at = plan->scales_at;
    }
    for (int i = 0; i < plan->n && s == SILL_OK; i++) {
        const part_plan *p = &plan->parts[i];
        sill__mtl_part *part = &w->parts[i];
        *part = (sill__mtl_part){.buffer = w->own, .at = at, .bytes = p->bytes, .type = p->type, .first = first,
                                 .rows = (int32_t)p->rows, .stride = (int32_t)p->line};
        first += part->rows;
        if (p->fate == FATE_MAP) {
            sill__mtl_map *m = find_window(d, p->t, p->bytes);
            if (!m) {
                size_t start = (size_t)(p->t->data - p->t->map->data);
                s = open_window(d, p->t->map, start, start + p->bytes, err);
                m = d->maps;
            }
            if (s != SILL_OK) break;
            part->buffer = m->buffer;
            part->at = (size_t)(p->t->data - m->base) - m->start;
            continue;
        }
        float *scales = w->scales ? (float *)(void *)((uint8_t *)contents + w->scales_at) + part->first : NULL;
        s = make_part(src, p, (uint8_t *)contents + at, scales, pool, err);
        at += (p->bytes + 63) & ~(size_t)63;
    }
    return s;
}

static sill_status import_one(sill__device *d, const sill__weight_src *src, const weight_plan *plan, sill__pool *pool,
                              sill__weight **out, sill_error *err) {
    sill__weight *w = sill__calloc(1, sizeof *w);
    if (!w) return sill__fail(err, SILL_ENOMEM, "no memory for a weight");
    w->role = src->role;
    w->compute = src->compute;
    w->rows = (int32_t)src->rows;
    w->cols = (int32_t)src->cols;
    w->transposed = plan->transposed;
    w->n_parts = plan->n;
    sill_status s = make_weight(d, src, plan, w, pool, err);
    if (s == SILL_OK) *out = w;
    else sill__mtl_weight_free(d, w);
    return s;
}

sill_status sill__mtl_weight_import(sill__device *d, const sill__weight_src *src, sill__weight **out, sill_error *err) {
    weight_plan plan;
    *out = NULL;
    sill_status s = plan_weight(src, &plan, err);
    return s == SILL_OK ? import_one(d, src, &plan, NULL, out, err) : s;
}

sill_status sill__mtl_weights_import(sill__device *d, const sill__weight_src *const *srcs, sill__weight **const *to,
                                     size_t n, bool keep, sill_error *err) {
    weight_plan *plans = sill__calloc(n, sizeof *plans);
    stretch *mapped = sill__calloc(n, 4 * sizeof *mapped);
    sill__pool *pool = NULL;
    size_t n_mapped = 0;
    bool making = false;
    (void)keep; /* what is mapped needs no copy, and what is converted is quickly made */
    sill_status s = plans && mapped ? SILL_OK : sill__fail(err, SILL_ENOMEM, "no memory for the list of weights");
    for (size_t i = 0; i < n && s == SILL_OK; i++) {
        s = plan_weight(srcs[i], &plans[i], err);
        if (s != SILL_OK) break;
        for (int k = 0; k < plans[i].n; k++)
            making = making || plans[i].parts[k].fate == FATE_CONVERT || plans[i].parts[k].fate == FATE_QUANTIZE;
        note_mapped(&plans[i], mapped, &n_mapped);
    }
    if (s == SILL_OK && making && sill__pool_create(sill__n_cores(), &pool, NULL) != SILL_OK) pool = NULL;
    if (s == SILL_OK && n_mapped) {
        qsort(mapped, n_mapped, sizeof *mapped, by_place);
        s = open_windows(d, mapped, n_mapped, err);
    }
    for (size_t i = 0; i < n && s == SILL_OK; i++) s = import_one(d, srcs[i], &plans[i], pool, to[i], err);
    sill__pool_free(pool);
    sill__free(mapped);
    sill__free(plans);
    return s;
}
