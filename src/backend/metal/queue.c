/*
 * queue.c - steps. begin puts the batch into a place of its own on the device; operations become a list of calls, with
 * barriers where they depend on each other; submit encodes the list into one command buffer and commits it; wait looks
 * at how it ended. A few steps may be in flight: each has its own place for the batch, and a fence keeps their order.
 * Short steps behind another (begin_behind) share its place, its list and its command buffer. A step that would keep a slow
 * GPU for long becomes several command buffers, between which the same fence keeps the order.
 */
#include "backend/metal/host.h"

#include <stdio.h>

#define IN_FLIGHT 4            /* steps; begin waits for the one before these */
#define UPLOAD_BYTES ((size_t)16384)
#define UPLOADS 12             /* chunks of a step's uploads, each at least twice the one before */
#define ALIGN 256              /* of places in device memory */
#define MAX_SPANS 48           /* touched since the last barrier; one more brings a barrier */
#define BEHIND 3               /* steps behind another for which a place has room, if they are no longer than ... */
#define BEHIND_TOKENS 64
#define PIECES 8               /* command buffers of a step that nobody has waited for: a queue takes 64 of all steps */
/* The system ends a command buffer that runs for some seconds, and the screen waits for long ones. So one ends behind so many
 * seconds of the slowest GPU, an M1, as docs/METAL.md reckons: its products, and its memory. */
#define PIECE_SECONDS 0.3
#define M1_MACS 0.77e12        /* a second */
#define M1_BYTES 60e9

typedef struct binding { mtl_id buffer; size_t at, bytes; } binding;

typedef struct call {
    mtl_id pipeline;
    size_t args_at;
    uint32_t args_size, local_bytes;
    size_t bufs_at;
    int32_t n_bufs;
    bool barrier;          /* in front of it */
    uint32_t groups[3], threads[3];
    double seconds;        /* of an M1, about */
} call;

typedef struct list {
    call *calls;
    size_t n_calls, cap_calls;
    binding *bindings;
    size_t n_bindings, cap_bindings;
    uint8_t *args;
    size_t n_args, cap_args;
} list;

typedef struct memory { mtl_id buffer; uint8_t *data; size_t bytes; } memory;
typedef struct uploads { memory chunks[UPLOADS]; int n, at; size_t used; } uploads;

/* A step's own memory; in flight until its ticket is done. */
typedef struct step {
    memory batch, tables;
    size_t batch_used, tables_used;
    int32_t n;             /* steps in it: one, and those begun behind it */
    uploads uploads;
    mtl_id commands[PIECES]; /* committed and not waited for, in order */
    int n_commands;
} step;

typedef struct span { mtl_id buffer; size_t start, end; bool write; } span;

struct sill__queue {
    sill__device *device;
    sill__queue_shape shape;
    mtl_id queue, fence;
    memory mat, vec;
    step slots[IN_FLIGHT];
    sill__ticket submitted, done;
    bool fenced;           /* the fence was updated: the next step waits for it */
    const sill__batch *batch;
    sill__mtl_batch refs;
    list list;             /* the calls of the step that is being recorded */
    double piece_seconds;  /* of a command buffer */
    uploads *uploads;
    sill_error error;
    sill_error failure;    /* of a command buffer; SILL_OK: none failed. What it was to write is in doubt for good */
    sill__ticket failed;   /* its step */
    span spans[MAX_SPANS];
    int n_spans;
    const sill__kv *checked_kv;
    int32_t checked_token, checked_position;
    sill__mtl_counts counts;
};

/* ------------------------------------------------------------------ errors */

bool sill__mtl_require(sill__queue *q, bool ok, sill_status code, const char *format, ...) {
    if (!ok && q->error.code == SILL_OK) {
        char text[400];
        va_list args;
        va_start(args, format);
        vsnprintf(text, sizeof text, format, args);
        va_end(args);
        sill__fail(&q->error, code, "%s", text);
    }
    return ok && q->error.code == SILL_OK;
}

bool sill__mtl_ok(const sill__queue *q) { return q->error.code == SILL_OK; }

bool sill__mtl_check_ref(sill__queue *q, const char *what, sill__ref r, int64_t rows, int64_t width, bool may_be_absent) {
    if (!r.buf && may_be_absent) return q->error.code == SILL_OK;
    size_t bytes;
    bool fits = r.buf && rows >= 0 && width >= 0 && r.at % 4 == 0 && sill__mul((size_t)rows, (size_t)width, &bytes) &&
                sill__mul(bytes, 4, &bytes) && r.at <= r.buf->bytes && bytes <= r.buf->bytes - r.at;
    return sill__mtl_require(q, fits, SILL_EINVAL, "%s: (%lld, %lld) values do not fit the buffer", what, (long long)rows,
                             (long long)width);
}

bool sill__mtl_check_norm(sill__queue *q, const sill__norm *norm, int32_t width) {
    return norm->kind == SILL__NORM_NONE || (sill__mtl_check_ref(q, "norm weight", norm->weight, 1, width, true) &&
                                             sill__mtl_check_ref(q, "norm bias", norm->bias, 1, width, true));
}

/* ------------------------------------------------------------------ memory */

static bool memory_new(sill__queue *q, memory *m, size_t bytes, const char *what) {
    void *contents;
    *m = (memory){0};
    if (bytes == 0) return true;
    if (sill__mtl_buffer_new(q->device, bytes, what, &m->buffer, &contents, q->error.code == SILL_OK ? &q->error : NULL) != SILL_OK)
        return false;
    m->data = contents;
    m->bytes = bytes;
    return true;
}

static void memory_drop(sill__queue *q, memory *m) {
    sill__mtl_buffer_drop(q->device, m->buffer, m->bytes);
    *m = (memory){0};
}

static size_t aligned(size_t n) { return (n + ALIGN - 1) & ~(size_t)(ALIGN - 1); }

/* Where the arrays of a batch lie. */
typedef struct places { size_t tokens, positions, row_run, runs, out_rows, end; } places;

static places lay_out(int32_t n_tokens, int32_t n_runs, int32_t n_out) {
    places p = {0};
    p.positions = p.tokens + aligned((size_t)n_tokens * 4);
    p.row_run = p.positions + aligned((size_t)n_tokens * 4);
    p.runs = p.row_run + aligned((size_t)n_tokens * 4);
    p.out_rows = p.runs + aligned((size_t)n_runs * sizeof(struct mtl_run));
    p.end = p.out_rows + aligned((size_t)n_out * 4);
    return p;
}

static int32_t most_out(const sill__queue_shape *s) { return SILL_MAX(s->max_out, s->max_tokens); }

static bool sound(const sill__queue_shape *s) {
    return s->max_tokens >= 1 && s->max_tokens <= 1 << 24 && s->max_out >= 0 && s->max_out <= 1 << 24 && s->max_width >= 1 &&
           s->max_vocab >= 0 && (s->path == SILL__PATH_BATCH || s->path == SILL__PATH_LATENCY);
}

static size_t batch_bytes(const sill__queue_shape *s) {
    const int32_t few = SILL_MIN(s->max_tokens, BEHIND_TOKENS);
    return lay_out(s->max_tokens, s->max_tokens, most_out(s)).end + BEHIND * lay_out(few, few, few).end;
}

/* Block tables grow with the sequences; this is what they begin with. */
static size_t first_tables(const sill__queue_shape *s) { return aligned(((size_t)s->max_tokens * 4 + 1024) * 4); }

uint64_t sill__mtl_queue_bytes(const sill__device *d, const sill__queue_shape *s) {
    (void)d;
    if (!sound(s)) return UINT64_MAX;
    uint64_t mat = sill__mtl_scratch_bytes_mat(s), vec = sill__mtl_scratch_bytes_vec(s);
    size_t bytes = batch_bytes(s) + first_tables(s) + UPLOAD_BYTES;
    if (mat > UINT64_MAX / 4 || vec > UINT64_MAX / 4) return UINT64_MAX;
    return mat + vec + IN_FLIGHT * (uint64_t)bytes;
}

void sill__mtl_queue_free(sill__device *d, sill__queue *q) {
    (void)d;
    if (!q) return;
    void *pool = sill__mtl_rt.pool_push();
    sill__mtl_wait(q, 0, NULL);
    for (int i = 0; i < IN_FLIGHT; i++) {
        memory_drop(q, &q->slots[i].batch);
        memory_drop(q, &q->slots[i].tables);
        for (int k = 0; k < UPLOADS; k++) memory_drop(q, &q->slots[i].uploads.chunks[k]);
    }
    memory_drop(q, &q->mat);
    memory_drop(q, &q->vec);
    if (q->fence) mtl_release(q->fence);
    if (q->queue) mtl_release(q->queue);
    sill__mtl_rt.pool_pop(pool);
    sill__free(q->list.calls);
    sill__free(q->list.bindings);
    sill__free(q->list.args);
    sill__free(q);
}

static bool list_grow(void **at, size_t *cap, size_t need, size_t size) {
    if (need <= *cap) return true;
    size_t cap_new = SILL_MAX(need, 2 * *cap), bytes;
    void *grown = sill__mul(cap_new, size, &bytes) ? sill__realloc(*at, bytes) : NULL;
    if (!grown) return false;
    *at = grown;
    *cap = cap_new;
    return true;
}

static bool list_room(list *l, size_t calls, size_t bindings, size_t args) {
    return list_grow((void **)&l->calls, &l->cap_calls, l->n_calls + calls, sizeof *l->calls) &&
           list_grow((void **)&l->bindings, &l->cap_bindings, l->n_bindings + bindings, sizeof *l->bindings) &&
           list_grow((void **)&l->args, &l->cap_args, l->n_args + args, 1);
}

static double piece_seconds = PIECE_SECONDS;
void sill__mtl_piece_seconds(double seconds) { piece_seconds = seconds > 0 ? seconds : PIECE_SECONDS; }

sill_status sill__mtl_queue_create(sill__device *d, const sill__queue_shape *s, sill__queue **out, sill_error *err) {
    *out = NULL;
    if (sill__mtl_queue_bytes(d, s) == UINT64_MAX)
        return sill__fail(err, SILL_EINVAL, "a queue for %d tokens of width %d", s->max_tokens, s->max_width);
    if (sill__mtl_lost(d->pipelines)) return sill__fail(err, SILL_EDEVICE, SILL__MTL_LOST);
    sill_status st = sill__mtl_library_compile(d->pipelines, err);
    if (st != SILL_OK) return st;
    sill__queue *q = sill__calloc(1, sizeof *q);
    if (!q) return sill__fail(err, SILL_ENOMEM, "no memory for a queue");
    q->device = d;
    q->shape = *s;
    q->piece_seconds = piece_seconds;
    void *pool = sill__mtl_rt.pool_push();
    q->queue = mtl_device_new_queue(d->id);
    q->fence = mtl_device_new_fence(d->id);
    if (q->queue && d->residency) mtl_queue_add_residency(q->queue, d->residency);
    sill__mtl_rt.pool_pop(pool);
    bool ok = sill__mtl_require(q, q->queue && q->fence, SILL_EDEVICE, "the GPU gives no command queue") &&
              memory_new(q, &q->mat, (size_t)sill__mtl_scratch_bytes_mat(s), "scratch of products") &&
              memory_new(q, &q->vec, (size_t)sill__mtl_scratch_bytes_vec(s), "scratch of rows");
    for (int i = 0; ok && i < IN_FLIGHT; i++) {
        step *slot = &q->slots[i];
        ok = memory_new(q, &slot->batch, batch_bytes(s), "batches") &&
             memory_new(q, &slot->tables, first_tables(s), "block tables") &&
             memory_new(q, &slot->uploads.chunks[0], UPLOAD_BYTES, "a step's data");
        slot->uploads.n = ok;
    }
    ok = ok && sill__mtl_require(q, list_room(&q->list, 1024, 16384, 131072), SILL_ENOMEM, "no memory for the list of calls");
    q->counts = (sill__mtl_counts){0};
    sill__mtl_residency_request(d);
    if (ok) {
        *out = q;
        return SILL_OK;
    }
    st = q->error.code;
    if (err) *err = q->error;
    sill__mtl_queue_free(d, q);
    return st;
}

sill__mtl_counts sill__mtl_queue_counts(const sill__queue *q) { return q->counts; }

/* --------------------------------------------------------------- the batch */

static bool check_batch(sill__queue *q, const sill__batch *b) {
    int32_t row = 0;
    if (!sill__mtl_require(q, b->n_tokens >= 0 && b->n_tokens <= q->shape.max_tokens && b->n_out >= 0 &&
                                  b->n_out <= most_out(&q->shape) && b->n_runs >= 0 && b->n_runs <= q->shape.max_tokens,
                           SILL_ERANGE, "a batch of %d tokens, %d runs, %d outputs; the queue is made for %d tokens, %d outputs",
                           b->n_tokens, b->n_runs, b->n_out, q->shape.max_tokens, q->shape.max_out))
        return false;
    for (int32_t r = 0; r < b->n_runs; r++) {
        const sill__run *run = &b->runs[r];
        if (!sill__mtl_require(q, run->first == row && run->n >= 1 && run->n <= b->n_tokens - row && run->pos >= 0 &&
                                      run->pos <= INT32_MAX - run->n - SILL__KV_BLOCK,
                               SILL_EINVAL, "run %d has rows %d + %d of %d, position %d", r, run->first, run->n,
                               b->n_tokens, run->pos))
            return false;
        row += run->n;
    }
    for (int32_t i = 0; i < b->n_out; i++)
        if (!sill__mtl_require(q, b->out_rows[i] >= 0 && b->out_rows[i] < b->n_tokens, SILL_EINVAL,
                               "output row %d of %d tokens", b->out_rows[i], b->n_tokens))
            return false;
    return sill__mtl_require(q, b->n_runs == 0 || row == b->n_tokens, SILL_EINVAL, "runs of %d rows in a batch of %d",
                             row, b->n_tokens);
}

static size_t blocks_of(const sill__run *run) { return (size_t)(run->pos + run->n - 1) / SILL__KV_BLOCK + 1; }

bool sill__mtl_check_blocks(sill__queue *q, const sill__kv *kv) {
    if (q->checked_kv == kv || q->error.code != SILL_OK) return q->error.code == SILL_OK;
    for (int32_t r = 0; r < q->batch->n_runs; r++) {
        const sill__run *run = &q->batch->runs[r];
        for (size_t i = 0; i < blocks_of(run); i++)
            if (!sill__mtl_require(q, run->blocks && run->blocks[i] >= 0 && run->blocks[i] < kv->shape.n_blocks, SILL_EINVAL,
                                   "run %d names KV block %d of %d", r, run->blocks ? run->blocks[i] : -1, kv->shape.n_blocks))
                return false;
    }
    q->checked_kv = kv;
    return true;
}

bool sill__mtl_check_ids(sill__queue *q, int32_t n_tokens, int32_t n_positions) {
    for (int32_t i = 0; i < q->batch->n_tokens; i++) {
        int32_t id = q->batch->tokens[i], position = n_positions < INT32_MAX ? q->batch->positions[i] : 0;
        if (!sill__mtl_require(q, id >= 0 && id < n_tokens, SILL_ERANGE, "token id %d of a vocabulary of %d", id, n_tokens) ||
            !sill__mtl_require(q, position >= 0 && position < n_positions, SILL_ERANGE, "position %d, the model has %d",
                               position, n_positions))
            return false;
    }
    return q->error.code == SILL_OK;
}

static step *next_slot(sill__queue *q) { return &q->slots[(q->submitted + 1) % IN_FLIGHT]; }

static sill__mtl_arg place(const memory *m, size_t at, size_t bytes) {
    return (sill__mtl_arg){.buffer = m->buffer, .at = at, .bytes = SILL_MAX(bytes, (size_t)4)};
}

static size_t table_entries(const sill__batch *b) {
    size_t n = 0;
    for (int32_t r = 0; r < b->n_runs; r++) n += b->runs[r].blocks ? blocks_of(&b->runs[r]) : 0;
    return n;
}

static bool put_tables(sill__queue *q, step *slot, const sill__batch *b, struct mtl_run *runs) {
    const size_t n = table_entries(b);
    size_t at = 0;
    if (slot->tables_used + n * 4 > slot->tables.bytes) { /* never for a step behind another, whose tables are in use */
        if (!sill__mtl_require(q, n <= INT32_MAX / 2, SILL_ERANGE, "block tables of %zu entries", n)) return false;
        memory_drop(q, &slot->tables);
        q->counts.grown++;
        if (!memory_new(q, &slot->tables, aligned(n * 8), "block tables")) return false;
    }
    uint8_t *to = slot->tables.data + slot->tables_used;
    for (int32_t r = 0; r < b->n_runs; r++) {
        const sill__run *run = &b->runs[r];
        size_t count = run->blocks ? blocks_of(run) : 0;
        runs[r] = (struct mtl_run){.first = run->first, .n = run->n, .pos = run->pos, .table = (int32_t)at};
        if (count) memcpy(to + at * 4, run->blocks, count * 4);
        at += count;
    }
    q->refs.tables = place(&slot->tables, slot->tables_used, n * 4);
    slot->tables_used += aligned(n * 4);
    return true;
}

/* Nothing can be built on a step that failed: its results, keys and values are anything. */
static bool still_works(sill__queue *q) {
    return sill__mtl_require(q, !sill__mtl_lost(q->device->pipelines), SILL_EDEVICE, SILL__MTL_LOST) &&
           sill__mtl_require(q, q->failure.code == SILL_OK, q->failure.code, "this session's numbers are in doubt since an "
                             "earlier step failed, make a new one (%.380s)", q->failure.msg);
}

/* Copies the batch behind what the place holds already. */
static bool put_batch(sill__queue *q, step *slot, const sill__batch *b) {
    q->batch = b;
    q->checked_kv = NULL;
    if (!check_batch(q, b)) return false;
    places p = lay_out(b->n_tokens, b->n_runs, b->n_out);
    const size_t from = slot->batch_used;
    uint8_t *to = slot->batch.data + from;
    size_t tokens = (size_t)b->n_tokens * 4, out = (size_t)b->n_out * 4;
    if (tokens && b->tokens) memcpy(to + p.tokens, b->tokens, tokens);
    if (tokens && b->positions) memcpy(to + p.positions, b->positions, tokens);
    if (out) memcpy(to + p.out_rows, b->out_rows, out);
    int32_t *row_run = (int32_t *)(void *)(to + p.row_run);
    for (int32_t r = 0; r < b->n_runs; r++)
        for (int32_t i = 0; i < b->runs[r].n; i++) row_run[b->runs[r].first + i] = r;
    q->refs = (sill__mtl_batch){.tokens = place(&slot->batch, from + p.tokens, tokens),
                                .positions = place(&slot->batch, from + p.positions, tokens),
                                .row_run = place(&slot->batch, from + p.row_run, tokens),
                                .runs = place(&slot->batch, from + p.runs, (size_t)b->n_runs * sizeof(struct mtl_run)),
                                .out_rows = place(&slot->batch, from + p.out_rows, out)};
    slot->batch_used += p.end;
    slot->n++;
    return put_tables(q, slot, b, (struct mtl_run *)(void *)(to + p.runs));
}

/* Copies the batch into the next step's place; the step that used it last is waited for. */
static bool stage(sill__queue *q, const sill__batch *b) {
    step *slot = next_slot(q);
    if (q->submitted + 1 > IN_FLIGHT && q->done < q->submitted + 1 - IN_FLIGHT) {
        sill_error earlier = {0};
        sill_status st = sill__mtl_wait(q, q->submitted + 1 - IN_FLIGHT, &earlier);
        if (st != SILL_OK) q->error = earlier; /* told by the next submit or wait */
    }
    slot->uploads.at = slot->uploads.used = slot->batch_used = slot->tables_used = 0;
    slot->n = 0;
    q->batch = b;
    return still_works(q) && put_batch(q, slot, b);
}

static void start_list(sill__queue *q) {
    q->uploads = &next_slot(q)->uploads;
    q->list.n_calls = q->list.n_bindings = q->list.n_args = 0;
    q->n_spans = 0;
}

void sill__mtl_begin(sill__queue *q, const sill__batch *batch) {
    start_list(q);
    stage(q, batch);
}

/* N things took so much of a place; one more of the same size fits. */
static bool fits_again(size_t used, int32_t n, size_t cap) { return used + used / (size_t)n <= cap; }

bool sill__mtl_begin_behind(sill__queue *q, const sill__batch *b) {
    step *slot = next_slot(q);
    const list *l = &q->list;
    if (q->error.code != SILL_OK || slot->n < 1 || slot->uploads.at > 0 ||
        slot->batch_used + lay_out(b->n_tokens, b->n_runs, b->n_out).end > slot->batch.bytes ||
        slot->tables_used + table_entries(b) * 4 > slot->tables.bytes ||
        !fits_again(slot->uploads.used, slot->n, slot->uploads.chunks[0].bytes) || !fits_again(l->n_calls, slot->n, l->cap_calls) ||
        !fits_again(l->n_bindings + SILL__MTL_MAX_BUFS, slot->n, l->cap_bindings) || !fits_again(l->n_args, slot->n, l->cap_args))
        return false;
    return put_batch(q, slot, b);
}

const sill__mtl_batch *sill__mtl_batch_refs(const sill__queue *q) { return &q->refs; }
const sill__batch *sill__mtl_batch_of(const sill__queue *q) { return q->batch; }
const sill__queue_shape *sill__mtl_shape_of(const sill__queue *q) { return &q->shape; }
const sill__device *sill__mtl_device_of(const sill__queue *q) { return q->device; }

static sill__mtl_arg scratch(const memory *m, size_t at, size_t bytes, bool write) {
    return (sill__mtl_arg){.buffer = m->buffer, .at = at, .bytes = bytes, .write = write};
}
sill__mtl_arg sill__mtl_scratch_mat(const sill__queue *q, size_t at, size_t bytes, bool write) {
    return scratch(&q->mat, at, bytes, write);
}
sill__mtl_arg sill__mtl_scratch_vec(const sill__queue *q, size_t at, size_t bytes, bool write) {
    return scratch(&q->vec, at, bytes, write);
}

sill__mtl_arg sill__mtl_upload(sill__queue *q, const void *data, size_t bytes) {
    uploads *u = q->uploads;
    sill__mtl_arg none = {0};
    if (q->error.code != SILL_OK || bytes == 0) return none;
    while (u->at < u->n && u->used + bytes > u->chunks[u->at].bytes) {
        u->at++;
        u->used = 0;
    }
    if (u->at == u->n) {
        size_t last = u->n ? u->chunks[u->n - 1].bytes : UPLOAD_BYTES / 2;
        if (!sill__mtl_require(q, u->n < UPLOADS, SILL_ERANGE, "a step's data take more than %zu bytes", last)) return none;
        q->counts.grown++;
        if (!memory_new(q, &u->chunks[u->n], aligned(SILL_MAX(2 * last, bytes)), "a step's data")) return none;
        u->n++;
    }
    sill__mtl_arg arg = place(&u->chunks[u->at], u->used, bytes);
    memcpy(u->chunks[u->at].data + u->used, data, bytes);
    u->used = aligned(u->used + bytes);
    return arg;
}

/* ------------------------------------------------------------- dispatching */

static span span_of(const sill__mtl_arg *a) {
    size_t end = a->bytes && a->at + a->bytes > a->at ? a->at + a->bytes : SIZE_MAX;
    return (span){.buffer = a->buffer, .start = a->at, .end = end, .write = a->write};
}

static bool depends(const sill__queue *q, const span *s) {
    for (int i = 0; i < q->n_spans; i++) {
        const span *e = &q->spans[i];
        if (e->buffer == s->buffer && (e->write || s->write) && e->start < s->end && s->start < e->end) return true;
    }
    return false;
}

/* True where C has to wait for what was recorded since the last barrier. */
static bool needs_barrier(sill__queue *q, const sill__mtl_call *c) {
    bool barrier = q->n_spans + c->n_bufs > MAX_SPANS;
    for (int i = 0; i < c->n_bufs && !barrier; i++) {
        span s = span_of(&c->bufs[i]);
        barrier = s.buffer && depends(q, &s);
    }
    if (barrier) q->n_spans = 0;
    for (int i = 0; i < c->n_bufs; i++)
        if (c->bufs[i].buffer) q->spans[q->n_spans++] = span_of(&c->bufs[i]);
    return barrier;
}

/* The longer of arithmetic and memory. */
static double seconds_of(const sill__mtl_call *c) {
    double bytes = c->moved;
    for (int i = 0; i < c->n_bufs; i++) bytes += c->bufs[i].buffer && !c->bufs[i].some ? (double)c->bufs[i].bytes : 0;
    return SILL_MAX(c->macs / M1_MACS, bytes / M1_BYTES);
}

void sill__mtl_dispatch(sill__queue *q, const sill__mtl_call *c) {
    mtl_id pipeline = NULL;
    uint32_t max_threads = 0;
    list *l = &q->list;
    uint64_t threads = (uint64_t)c->threads[0] * c->threads[1] * c->threads[2];
    if (q->error.code != SILL_OK || c->groups[0] == 0 || c->groups[1] == 0 || c->groups[2] == 0) return;
    if (!sill__mtl_require(q, c->n_bufs >= 0 && c->n_bufs <= SILL__MTL_MAX_BUFS && c->args_size <= 4096 && threads > 0 &&
                                  c->local_bytes % 16 == 0 && c->local_bytes <= 32768,
                           SILL_EINTERNAL, "the call of kernel %s", c->kernel))
        return;
    if (sill__mtl_pipeline_get(q->device->pipelines, c->kernel, c->constants, c->n_constants, &pipeline, &max_threads,
                               &q->error) != SILL_OK)
        return;
    if (!sill__mtl_require(q, threads <= max_threads, SILL_EDEVICE, "the GPU runs kernel %s with at most %u threads, not %llu",
                           c->kernel, max_threads, (unsigned long long)threads))
        return;
    size_t args = (c->args_size + 15) & ~(size_t)15;
    if (l->n_calls == l->cap_calls || l->n_bindings + SILL__MTL_MAX_BUFS > l->cap_bindings || l->n_args + args > l->cap_args) {
        q->counts.grown++;
        if (!sill__mtl_require(q, list_room(l, 1, SILL__MTL_MAX_BUFS, args), SILL_ENOMEM, "no memory for the list of calls")) return;
    }
    call *n = &l->calls[l->n_calls++];
    *n = (call){.pipeline = pipeline, .args_at = l->n_args, .args_size = c->args_size, .local_bytes = c->local_bytes,
                .bufs_at = l->n_bindings, .n_bufs = c->n_bufs, .barrier = needs_barrier(q, c), .seconds = seconds_of(c)};
    memcpy(n->groups, c->groups, sizeof n->groups);
    memcpy(n->threads, c->threads, sizeof n->threads);
    if (c->args_size) memcpy(l->args + l->n_args, c->args, c->args_size);
    l->n_args += args;
    for (int i = 0; i < c->n_bufs; i++) {
        const sill__mtl_arg *a = &c->bufs[i];
        binding b = {.buffer = a->buffer ? a->buffer : q->device->nothing, .at = a->buffer ? a->at : 0, .bytes = a->buffer ? a->bytes : 0};
        l->bindings[l->n_bindings++] = b;
    }
}

void sill__mtl_take_ids(sill__queue *q, sill__ref ids, const int32_t *rows) {
    int32_t n = q->error.code == SILL_OK ? q->batch->n_tokens : 0, most = -1;
    for (int32_t i = 0; i < n; i++) most = SILL_MAX(most, rows[i]);
    if (most < 0 || !sill__mtl_check_ref(q, "ids", ids, 1, (int64_t)most + 1, false)) return;
    const struct mtl_take_ids_args args = {.n = (uint32_t)n};
    sill__mtl_arg tokens = q->refs.tokens;
    tokens.write = true;
    sill__mtl_dispatch(q, &(sill__mtl_call){
        .kernel = "take_ids", .args = &args, .args_size = sizeof args,
        .bufs = {sill__mtl_in(ids, ((size_t)most + 1) * 4), sill__mtl_upload(q, rows, (size_t)n * 4), tokens},
        .n_bufs = 3, .groups = {((uint32_t)n + 31) / 32, 1, 1}, .threads = {32, 1, 1}});
}

/* --------------------------------------------------------------- encoding */

/* Calls [from, end) of the list. */
static void encode(sill__queue *q, mtl_id encoder, size_t from, size_t end) {
    const list *l = &q->list;
    mtl_id pipeline = NULL, bound[SILL__MTL_MAX_BUFS] = {0};
    size_t bound_at[SILL__MTL_MAX_BUFS];
    uint32_t local = 0;
    for (size_t i = from; i < end; i++) {
        const call *c = &l->calls[i];
        if (c->barrier && i > from) { /* in front of the first, the fence is one */
            mtl_encoder_barrier(encoder, MTL_BARRIER_BUFFERS);
            q->counts.barriers++;
        }
        if (c->pipeline != pipeline) mtl_encoder_pipeline(encoder, pipeline = c->pipeline);
        if (c->args_size) mtl_encoder_bytes(encoder, l->args + c->args_at, c->args_size, 0);
        for (int k = 0; k < c->n_bufs; k++) {
            const binding *b = &l->bindings[c->bufs_at + (size_t)k];
            if (bound[k] != b->buffer || bound_at[k] != b->at) mtl_encoder_buffer(encoder, b->buffer, b->at, (mtl_uint)k + 1);
            bound[k] = b->buffer;
            bound_at[k] = b->at;
            if (sill__mtl_rt.extent) sill__mtl_rt.extent(encoder, (mtl_uint)k + 1, b->bytes);
        }
        /* The length stays for the calls behind, where it would count beside what their kernels declare. */
        uint32_t wanted = c->local_bytes ? c->local_bytes : SILL_MIN(local, 16u);
        if (wanted != local) mtl_encoder_local(encoder, local = wanted, 0);
        mtl_encoder_dispatch(encoder, (mtl_size){c->groups[0], c->groups[1], c->groups[2]},
                             (mtl_size){c->threads[0], c->threads[1], c->threads[2]});
        q->counts.dispatches++;
    }
}

/* One command buffer with calls [from, end) of the list, committed. */
static bool commit(sill__queue *q, step *slot, size_t from, size_t end) {
    void *pool = sill__mtl_rt.pool_push();
    mtl_id commands = mtl_queue_commands(q->queue);
    mtl_id encoder = commands ? mtl_commands_encoder(commands, MTL_DISPATCH_CONCURRENT) : NULL;
    if (sill__mtl_require(q, encoder != NULL, SILL_EDEVICE, "the GPU gives no command buffer")) {
        if (q->fenced) mtl_encoder_wait_fence(encoder, q->fence);
        encode(q, encoder, from, end);
        mtl_encoder_update_fence(encoder, q->fence);
        mtl_encoder_end(encoder);
        q->fenced = true;
        slot->commands[slot->n_commands++] = mtl_retain(commands);
        sill__mtl_work_commit(q->device, commands);
        q->counts.commands++;
    }
    sill__mtl_rt.pool_pop(pool);
    return encoder != NULL;
}

/* The end of the command buffer that begins with the call `from`, and how long it takes. */
static size_t piece_end(const sill__queue *q, size_t from, double *seconds) {
    const list *l = &q->list;
    size_t end = from + 1;
    *seconds = l->calls[from].seconds;
    while (end < l->n_calls && *seconds + l->calls[end].seconds <= q->piece_seconds) *seconds += l->calls[end++].seconds;
    return end;
}

sill__mtl_pieces sill__mtl_queue_pieces(const sill__queue *q) {
    sill__mtl_pieces p = {0};
    double seconds;
    for (size_t from = 0; from < q->list.n_calls;) {
        from = piece_end(q, from, &seconds);
        p.n++;
        p.longest = SILL_MAX(p.longest, seconds);
        p.all += seconds;
    }
    return p;
}

/* ---------------------------------------------------- how work has ended */

/* MTLCommandBufferError. */
static void note_failure(sill__queue *q, sill__ticket ticket, mtl_id error) {
    char text[300];
    long code = error ? mtl_error_code(error) : 0;
    const char *what = "failed";
    sill_status status = SILL_EDEVICE;
    sill__mtl_error_text(error, text, sizeof text);
    sill__plain(text);
    switch (code) {
    case 2: what = "took longer than the system allows (fewer tokens a batch make shorter steps), or hung"; break;
    case 3: what = "touched memory that is not its own"; break;
    case 7: what = "may not run now (the program is in the background)"; break;
    case 8:
        what = "ran out of memory (a smaller batch or context, or --dtype q8, needs less)";
        status = SILL_ENOMEM;
        break;
    case 9: what = "named memory that it may not use"; break;
    case 12: what = "ran out of stack"; break;
    case 4:
    case 11:
        what = "is no longer taken by the system from this process; start it anew, or use --device cpu";
        sill__mtl_lose(q->device->pipelines);
        break;
    default: break;
    }
    sill_error e = {.code = SILL_OK};
    sill__fail(&e, status, "the GPU's work %s: %s (code %ld)", what, text, code);
    sill__mtl_require(q, false, status, "%s", e.msg);
    if (q->failure.code != SILL_OK) return;
    q->failure = e;
    q->failed = ticket;
}

/* Waits for the first of a step's command buffers. */
static void finish_first(sill__queue *q, step *slot, sill__ticket ticket) {
    void *pool = sill__mtl_rt.pool_push();
    mtl_id commands = slot->commands[0];
    mtl_commands_wait(commands);
    if (mtl_commands_status(commands) != MTL_STATUS_COMPLETED) note_failure(q, ticket, mtl_commands_error(commands));
    else q->counts.gpu_seconds += mtl_commands_end(commands) - mtl_commands_start(commands);
    mtl_release(commands);
    memmove(slot->commands, slot->commands + 1, (size_t)--slot->n_commands * sizeof slot->commands[0]);
    sill__mtl_work_ended(q->device);
    sill__mtl_rt.pool_pop(pool);
}

/* Waits for the first step that nobody has waited for. */
static void finish_step(sill__queue *q) {
    step *slot = &q->slots[++q->done % IN_FLIGHT];
    while (slot->n_commands) finish_first(q, slot, q->done);
}

/* ------------------------------------------------------- submit and wait */

/* Tells the kept error, once. */
static sill_status tell(sill__queue *q, sill_error *err) {
    sill_status st = q->error.code;
    if (st != SILL_OK && err) *err = q->error;
    q->error.code = SILL_OK;
    return st;
}

/* A long step's command buffers are committed as those in front of them end. False where one of them, or of the steps in
 * front, failed. */
static bool room_for_piece(sill__queue *q, step *slot) {
    if (slot->n_commands < PIECES) return true;
    while (q->done < q->submitted) finish_step(q);
    finish_first(q, slot, q->submitted + 1);
    return q->error.code == SILL_OK;
}

sill_status sill__mtl_submit(sill__queue *q, sill__ticket *ticket, sill_error *err) {
    step *slot = next_slot(q);
    const size_t n = q->error.code == SILL_OK ? q->list.n_calls : 0;
    double seconds;
    for (size_t from = 0, end; from < n; from = end) {
        end = piece_end(q, from, &seconds);
        if (!room_for_piece(q, slot) || !commit(q, slot, from, end)) break;
    }
    q->submitted++;
    if (ticket) *ticket = q->submitted;
    next_slot(q)->n = 0;
    start_list(q);
    return tell(q, err);
}

sill_status sill__mtl_wait(sill__queue *q, sill__ticket ticket, sill_error *err) {
    if (ticket == 0 || ticket > q->submitted) ticket = q->submitted;
    while (q->done < ticket) finish_step(q);
    if (q->error.code == SILL_OK && q->failure.code != SILL_OK && ticket >= q->failed) q->error = q->failure;
    return tell(q, err);
}
