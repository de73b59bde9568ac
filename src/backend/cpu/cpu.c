/*
 * cpu.c - the CPU backend: the device with its instruction set and threads, memory, weights, and the op table.
 */
#include "backend/cpu/cpu.h"

#include <stdio.h>
#include <stdlib.h>

/* ---------------------------------------------------------------- device */

static sill_status find_isa(const char *name, const sill__cpu_isa **out, sill_error *err) {
    char names[160] = "";
    *out = NULL;
    for (int i = 0; sill__cpu_isas[i]; i++) {
        const sill__cpu_isa *isa = sill__cpu_isas[i];
        if (!isa->available()) continue;
        if (!*out && (!name || !*name || !strcmp(name, isa->name))) *out = isa;
        size_t n = strlen(names);
        snprintf(names + n, sizeof names - n, "%s%s", n ? ", " : "", isa->name);
    }
    if (*out) return SILL_OK;
    return sill__fail(err, SILL_EUNSUPPORTED, "instruction set \"%s\" (SILL_CPU_ISA) cannot be used here; there are: %s",
                      name, names);
}

static const char *cpu_isa_at(int i) {
    for (int k = 0; sill__cpu_isas[k]; k++)
        if (sill__cpu_isas[k]->available() && i-- == 0) return sill__cpu_isas[k]->name;
    return NULL;
}

static void cpu_close(sill__device *d) {
    if (!d) return;
    for (cpu_slab *slab = d->slabs, *next; slab; slab = next) {
        next = slab->next;
        if (slab->keep) sill__cpu_cache_put(d, slab);
        if (slab->map.handle) sill__map_close(&slab->map);
        else sill__free_pages(slab->data, slab->bytes);
        sill__free(slab);
    }
    sill__pool_free(d->pool);
    sill__free(d);
}

static sill_status cpu_open(const sill__device_options *options, sill__device **out, sill_error *err) {
    const char *isa = options && options->isa ? options->isa : getenv("SILL_CPU_ISA");
    int32_t n_threads = options ? options->n_threads : 0;
    *out = NULL;
    sill__device *d = sill__calloc(1, sizeof *d);
    if (!d) return sill__fail(err, SILL_ENOMEM, "no memory for the cpu device");
    d->ops = sill__backend_cpu();
    sill_status s = find_isa(isa, &d->isa, err);
    if (s == SILL_OK) s = sill__pool_create(n_threads ? n_threads : sill__n_cores(), &d->pool, err);
    if (s != SILL_OK) {
        cpu_close(d);
        return s;
    }
    d->mat = d->isa->mat;
    d->vec = d->isa->vec;
    d->n_threads = sill__pool_size(d->pool);
    *out = d;
    return SILL_OK;
}

static void cpu_describe(const sill__device *d, char *out, size_t cap) { snprintf(out, cap, "cpu %s", d->isa->name); }
static int32_t cpu_n_threads(const sill__device *d) { return d->n_threads; }

static sill_status check_kv(sill__kv_type type, int32_t head_dim, sill_error *err) {
    if (type != SILL__KV_F32 && type != SILL__KV_F16 && type != SILL__KV_I8)
        return sill__fail(err, SILL_EUNSUPPORTED, "the cpu device keeps keys and values in f32, f16 or int8, not in type %d",
                          (int)type);
    if (head_dim < 1 || head_dim > SILL__MAX_HEAD_DIM)
        return sill__fail(err, SILL_EUNSUPPORTED, "heads of %d values; the cpu device takes 1 to %d", head_dim,
                          SILL__MAX_HEAD_DIM);
    return SILL_OK;
}

static sill_status cpu_supports(const sill__device *d, const sill__need *need, sill_error *err) {
    (void)d;
    for (int i = 0; i < need->n_types + need->n_embed_types; i++) {
        const sill__type_info *t =
            sill__type_get(i < need->n_types ? need->types[i] : need->embed_types[i - need->n_types]);
        if (!t || !t->weight)
            return sill__fail(err, SILL_EUNSUPPORTED, "the cpu device does not compute with weights of type %s",
                              t ? t->name : "unknown");
    }
    if (need->training) return sill__fail(err, SILL_EUNSUPPORTED, "the cpu device does not train");
    return check_kv(need->kv, need->head_dim, err);
}

/* --------------------------------------------------------------- weights */

/* Cuts off the parts of the first one's type into *one; true when parts of another type are left in *src. */
static bool cut_by_type(sill__weight_src *src, sill__weight_src *one) {
    uint64_t rows = 0;
    int n = 0;
    *one = *src;
    for (; n < src->n_parts && src->parts[n]->type == src->parts[0]->type; n++) {
        const sill__tensor *t = src->parts[n];
        rows += src->transposed ? t->dims[t->n_dims - 1] : t->n_dims == 2 ? t->dims[0] : 1;
    }
    if (n == src->n_parts || rows >= src->rows) return false;
    one->n_parts = n;
    one->rows = rows;
    src->n_parts -= n;
    src->rows -= rows;
    memmove(src->parts, src->parts + n, (size_t)src->n_parts * sizeof src->parts[0]);
    return true;
}

static uint64_t cpu_weight_bytes(const sill__device *d, const sill__weight_src *src) {
    sill__cpu_mat mat;
    sill__weight_src rest = *src, one;
    uint64_t bytes = 0;
    bool more = src->role != SILL__ROLE_EMBED; /* an embedding's own pages in the file are read */
    while (more) {
        more = cut_by_type(&rest, &one);
        if (d->mat->plan(&one, &mat, NULL) == SILL_OK) bytes += mat.bytes;
    }
    return bytes;
}

static sill_status import_embed(const sill__weight_src *src, sill__weight *w, sill_error *err) {
    const sill__tensor *t = src->parts[0];
    const char *name = src->name ? src->name : "embedding";
    if (src->n_parts != 1 || src->transposed || t->n_dims != 2 || t->dims[1] != src->cols || src->rows > t->dims[0] ||
        src->rows < 1 || src->cols < 1 || src->rows > INT32_MAX || src->cols > INT32_MAX)
        return sill__fail(err, SILL_EINVAL, "%s: not one stored table of (%llu, %llu)", name,
                          (unsigned long long)src->rows, (unsigned long long)src->cols);
    const sill__type_info *info = sill__type_get(t->type);
    w->row_bytes = info && info->weight ? sill__row_bytes(t->type, src->cols) : 0;
    if (w->row_bytes == 0)
        return sill__fail(err, SILL_EUNSUPPORTED, "%s: rows of %llu values of type %s cannot be looked up", name,
                          (unsigned long long)src->cols, info ? info->name : "unknown");
    w->source = *t;
    return SILL_OK;
}

typedef struct pack_job {
    const sill__device *d;
    const sill__weight_src *src;
    sill__cpu_mat *mat;
    atomic_int next;
    int32_t end, step;
} pack_job;

static void pack_some(void *arg, int i, int n) {
    pack_job *job = arg;
    (void)i, (void)n;
    for (;;) {
        int32_t first = atomic_fetch_add(&job->next, job->step);
        if (first >= job->end) return;
        job->d->mat->pack(job->src, job->mat, first, SILL_MIN(first + job->step, job->end));
    }
}

/* Gives back the source's pages behind rows [row, end). */
static void release_rows(const sill__weight_src *src, uint64_t row, uint64_t end) {
    uint64_t start = 0;
    for (int i = 0; i < src->n_parts; i++) {
        const sill__tensor *t = src->parts[i];
        size_t cols = (size_t)src->cols, row_bytes = sill__row_bytes(t->type, cols);
        uint64_t rows = row_bytes ? t->bytes / row_bytes : 0, a = SILL_MAX(row, start), b = SILL_MIN(end, start + rows);
        if (t->map && a < b)
            sill__map_release(t->map, (size_t)(t->data - t->map->data) + (size_t)(a - start) * row_bytes,
                              (size_t)(b - a) * row_bytes);
        start += rows;
    }
}

static void release_all(const sill__weight_src *src) {
    for (int i = 0; i < src->n_parts; i++) {
        const sill__tensor *t = src->parts[i];
        if (t->map) sill__map_release(t->map, (size_t)(t->data - t->map->data), t->bytes);
    }
}

/* Packs all panels, in stretches of about 16 MiB of source whose pages are released before the next: never much more
 * than the packed form is resident. A transposed source is read from end to end by every panel: one stretch. */
static void pack_all(sill__device *d, const sill__weight_src *src, sill__cpu_mat *mat) {
    size_t row_bytes = SILL_MAX(sill__row_bytes(src->parts[0]->type, src->cols), (size_t)1);
    int64_t stretch = src->transposed ? mat->n_panels : (int64_t)((16u << 20) / row_bytes / (size_t)mat->nr) + 1;
    for (int64_t first = 0; first < mat->n_panels; first += stretch) {
        int32_t end = (int32_t)SILL_MIN(first + stretch, (int64_t)mat->n_panels);
        pack_job job = {.d = d, .src = src, .mat = mat, .end = end};
        job.step = SILL_MAX(1, (end - (int32_t)first) / (4 * d->n_threads));
        atomic_init(&job.next, (int)first);
        sill__pool_lock(d->pool);
        sill__pool_run(d->pool, pack_some, &job);
        sill__pool_unlock(d->pool);
        if (!src->transposed) release_rows(src, (uint64_t)first * (uint64_t)mat->nr, (uint64_t)end * (uint64_t)mat->nr);
    }
    release_all(src);
}

static void cpu_weight_free(sill__device *d, sill__weight *w) {
    (void)d;
    for (sill__weight *next; w; w = next) {
        next = w->next;
        if (w->mat.data && !w->in_slab) sill__free_pages(w->mat.data, w->mat.bytes);
        sill__free(w);
    }
}

static sill_status plan_one(sill__device *d, const sill__weight_src *src, sill__weight *w, sill_error *err) {
    sill_status s = d->mat->plan(src, &w->mat, err);
    if (s == SILL_OK && (w->mat.nr < 1 || w->mat.nr > 64)) return SILL__BUG(err, "panels of more than 64 outputs");
    return s;
}

/* Parts of several types are packed one by one. */
static sill_status plan_list(sill__device *d, const sill__weight_src *src, sill__weight *w, sill_error *err) {
    sill__weight_src rest = *src, one;
    for (;;) {
        bool more = cut_by_type(&rest, &one);
        sill_status s = plan_one(d, &one, w, err);
        if (s != SILL_OK || !more) return s;
        w->next = sill__calloc(1, sizeof *w);
        if (!w->next) return sill__fail(err, SILL_ENOMEM, "no memory for a weight");
        w = w->next;
        w->role = rest.role;
        w->rows = (int32_t)rest.rows;
        w->cols = (int32_t)rest.cols;
    }
}

/* Packs what plan_list planned; what has no memory yet gets its own. */
static sill_status pack_list(sill__device *d, const sill__weight_src *src, sill__weight *w, sill_error *err) {
    sill__weight_src rest = *src, one;
    sill_status s = SILL_OK;
    for (; w && s == SILL_OK; w = w->next) {
        cut_by_type(&rest, &one);
        if (!w->mat.data && !(w->mat.data = sill__alloc_pages(w->mat.bytes)))
            return sill__fail(err, SILL_ENOMEM, "no memory for the %zu bytes of %s", w->mat.bytes,
                              src->name ? src->name : "a weight");
        pack_all(d, &one, &w->mat);
    }
    return s;
}

/* A weight with all but its packed matrices. */
static sill_status plan_weight(sill__device *d, const sill__weight_src *src, sill__weight **out, sill_error *err) {
    *out = NULL;
    if (src->n_parts < 1 || src->n_parts > (int)SILL_ARRAY_LEN(src->parts))
        return sill__fail(err, SILL_EINVAL, "%s: %d parts; a weight has 1 to 4", src->name ? src->name : "weight",
                          src->n_parts);
    sill__weight *w = sill__calloc(1, sizeof *w);
    if (!w) return sill__fail(err, SILL_ENOMEM, "no memory for a weight");
    w->role = src->role;
    w->rows = (int32_t)src->rows;
    w->cols = (int32_t)src->cols;
    sill_status s = src->role == SILL__ROLE_EMBED ? import_embed(src, w, err) : plan_list(d, src, w, err);
    if (s == SILL_OK) *out = w;
    else cpu_weight_free(d, w);
    return s;
}

static sill_status cpu_weight_import(sill__device *d, const sill__weight_src *src, sill__weight **out,
                                     sill_error *err) {
    sill_status s = plan_weight(d, src, out, err);
    if (s == SILL_OK && src->role != SILL__ROLE_EMBED) s = pack_list(d, src, *out, err);
    if (s != SILL_OK && *out) {
        cpu_weight_free(d, *out);
        *out = NULL;
    }
    return s;
}

/* Gives every matrix of W its place in the slab, or with BASE NULL only counts; each begins on a page of its own. */
static bool place_list(sill__weight *w, uint8_t *base, size_t *at) {
    for (; w; w = w->next) {
        size_t bytes;
        if (w->role == SILL__ROLE_EMBED) continue;
        if (base) {
            w->mat.data = base + *at;
            w->in_slab = true;
        }
        if (!sill__add(w->mat.bytes, 4095, &bytes) || !sill__add(*at, bytes & ~(size_t)4095, at)) return false;
    }
    return true;
}

static sill_status new_slab(sill__device *d, sill__weight *const *w, size_t n, cpu_slab **out, sill_error *err) {
    size_t bytes = 0;
    for (size_t i = 0; i < n; i++)
        if (!place_list(w[i], NULL, &bytes)) return sill__fail(err, SILL_ERANGE, "the weights' bytes cannot be counted");
    if (bytes > SIZE_MAX - CPU_SLAB_ALIGN) return sill__fail(err, SILL_ERANGE, "the weights' bytes cannot be counted");
    cpu_slab *slab = sill__calloc(1, sizeof *slab);
    if (!slab) return sill__fail(err, SILL_ENOMEM, "no memory for the list of weights");
    slab->bytes = bytes;
    slab->next = d->slabs;
    *out = d->slabs = slab;
    return SILL_OK;
}

/* Reading one page of a mapped file brings its neighbours too, so around every matrix and norm some stay that nobody needs:
 * 14 MiB of SmolLM2's file where large pages are its cache. */
static void release_files(const sill__weight_src *const *srcs, size_t n) {
    const sill__map *last = NULL;
    for (size_t i = 0; i < n; i++)
        for (int k = 0; k < srcs[i]->n_parts; k++) {
            const sill__map *map = srcs[i]->parts[k]->map;
            if (map && map != last) sill__map_release(map, 0, map->bytes);
            last = map;
        }
}

static sill_status cpu_weights_import(sill__device *d, const sill__weight_src *const *srcs, sill__weight **const *to,
                                      size_t n, bool keep, sill_error *err) {
    sill__weight **w = sill__calloc(n, sizeof *w);
    cpu_slab *slab = NULL;
    bool taken = false;
    size_t at = 0;
    sill_status s = w ? SILL_OK : sill__fail(err, SILL_ENOMEM, "no memory for the list of weights");
    for (size_t i = 0; i < n && s == SILL_OK; i++) s = plan_weight(d, srcs[i], &w[i], err);
    if (s == SILL_OK) s = new_slab(d, w, n, &slab, err);
    if (s == SILL_OK && keep) {
        sill__cpu_cache_key(d, srcs, w, n, slab);
        taken = sill__cpu_cache_take(d, slab);
    }
    if (s == SILL_OK && !taken && slab->bytes && !(slab->data = sill__alloc_pages(slab->bytes)))
        s = sill__fail(err, SILL_ENOMEM, "no memory for the %zu bytes of the weights", slab->bytes);
    for (size_t i = 0; i < n && s == SILL_OK; i++) {
        place_list(w[i], slab->data, &at);
        if (!taken && srcs[i]->role != SILL__ROLE_EMBED) s = pack_list(d, srcs[i], w[i], err);
    }
    if (s == SILL_OK) slab->keep = slab->keyed && !taken;
    release_files(srcs, n);
    for (size_t i = 0; w && i < n; i++) {
        if (s == SILL_OK) *to[i] = w[i];
        else if (w[i]) cpu_weight_free(d, w[i]);
    }
    sill__free(w);
    return s;
}

/* ---------------------------------------------------------------- memory */

static sill_status cpu_buf_create(sill__device *d, size_t bytes, sill__buf **out, sill_error *err) {
    (void)d;
    *out = NULL;
    sill__buf *b = sill__calloc(1, sizeof *b);
    if (!b || !(b->data = sill__alloc_pages(bytes))) {
        sill__free(b);
        return sill__fail(err, SILL_ENOMEM, "no memory for a buffer of %zu bytes", bytes);
    }
    b->bytes = bytes;
    *out = b;
    return SILL_OK;
}

static void cpu_buf_free(sill__device *d, sill__buf *b) {
    (void)d;
    if (!b) return;
    sill__free_pages(b->data, b->bytes);
    sill__free(b);
}

static bool in_buf(sill__ref r, size_t bytes) {
    return r.buf && r.at <= r.buf->bytes && bytes <= r.buf->bytes - r.at;
}

static sill_status cpu_buf_write(sill__device *d, sill__ref to, const void *from, size_t bytes) {
    (void)d;
    if (!in_buf(to, bytes)) return SILL_EINVAL;
    if (bytes) memcpy(to.buf->data + to.at, from, bytes);
    return SILL_OK;
}

static sill_status cpu_buf_read(sill__device *d, sill__ref from, void *to, size_t bytes) {
    (void)d;
    if (!in_buf(from, bytes)) return SILL_EINVAL;
    if (bytes) memcpy(to, from.buf->data + from.at, bytes);
    return SILL_OK;
}

static void *cpu_buf_map(sill__device *d, sill__buf *b) {
    (void)d;
    return b->data;
}

/* UINT64_MAX when the shape is no shape. */
static uint64_t cpu_kv_bytes(const sill__device *d, const sill__kv_shape *s) {
    (void)d;
    size_t n = sill__k_tile_bytes(s->type, s->head_dim) + sill__v_tile_bytes(s->type, s->head_dim);
    if (s->n_layers < 1 || s->n_kv_heads < 1 || s->n_blocks < 1 || check_kv(s->type, s->head_dim, NULL) != SILL_OK ||
        !sill__mul(n, (size_t)s->n_layers, &n) || !sill__mul(n, (size_t)s->n_kv_heads, &n) ||
        !sill__mul(n, (size_t)s->n_blocks, &n))
        return UINT64_MAX;
    return n;
}

static sill_status cpu_kv_create(sill__device *d, const sill__kv_shape *shape, sill__kv **out, sill_error *err) {
    *out = NULL;
    sill_status s = check_kv(shape->type, shape->head_dim, err);
    if (s != SILL_OK) return s;
    uint64_t bytes = cpu_kv_bytes(d, shape);
    if (bytes >= SIZE_MAX)
        return sill__fail(err, SILL_ERANGE, "no such KV cache: %d layers, %d heads, %d blocks", shape->n_layers,
                          shape->n_kv_heads, shape->n_blocks);
    sill__kv *kv = sill__calloc(1, sizeof *kv);
    if (!kv || !(kv->data = sill__alloc_pages((size_t)bytes))) {
        sill__free(kv);
        return sill__fail(err, SILL_ENOMEM, "no memory for %llu bytes of keys and values", (unsigned long long)bytes);
    }
    kv->bytes = (size_t)bytes;
    kv->shape = *shape;
    kv->v_at = sill__k_tile_bytes(shape->type, shape->head_dim);
    kv->tile = kv->v_at + sill__v_tile_bytes(shape->type, shape->head_dim);
    kv->stride = kv->tile * (size_t)shape->n_layers * (size_t)shape->n_kv_heads;
    *out = kv;
    return SILL_OK;
}

static void cpu_kv_free(sill__device *d, sill__kv *kv) {
    (void)d;
    if (!kv) return;
    sill__free_pages(kv->data, kv->bytes);
    sill__free(kv);
}

static const sill__backend cpu_backend = {
    .name = "cpu",
    .open = cpu_open,
    .isa_at = cpu_isa_at,
    .isa_shares = sill__cpu_isa_shares,
    .close = cpu_close,
    .describe = cpu_describe,
    .n_threads = cpu_n_threads,
    .supports = cpu_supports,
    .weight_bytes = cpu_weight_bytes,
    .weight_import = cpu_weight_import,
    .weight_free = cpu_weight_free,
    .weights_import = cpu_weights_import,
    .buf_create = cpu_buf_create,
    .buf_free = cpu_buf_free,
    .buf_write = cpu_buf_write,
    .buf_read = cpu_buf_read,
    .buf_map = cpu_buf_map,
    .kv_bytes = cpu_kv_bytes,
    .kv_create = cpu_kv_create,
    .kv_free = cpu_kv_free,
    .queue_bytes = sill__cpu_queue_bytes,
    .queue_create = sill__cpu_queue_create,
    .queue_free = sill__cpu_queue_free,
    .begin = sill__cpu_begin,
    .submit = sill__cpu_submit,
    .wait = sill__cpu_wait,
    .embed = sill__cpu_embed,
    .linear = sill__cpu_linear,
    .qkv = sill__cpu_qkv,
    .attention = sill__cpu_attention,
    .tap = sill__cpu_tap,
    .head = sill__cpu_head,
    .kv_copy = sill__cpu_kv_copy,
};

const sill__backend *sill__backend_cpu(void) { return &cpu_backend; }
