/*
 * device.c - the Metal device: opening it, what it offers, and the table of its operations.
 */
#include "backend/metal/host.h"

#include <stdio.h>

static const sill__backend metal_backend;

/* ---------------------------------------------------------------- opening */

static void close_device(sill__device *d) {
    if (!d) return;
    if (d->id) {
        void *pool = sill__mtl_rt.pool_push();
        sill__mtl_maps_close(d);
        if (d->nothing) sill__mtl_buffer_drop(d, d->nothing, 256);
        while (d->n_dropped) mtl_release(d->dropped[--d->n_dropped]); /* queues are gone: nothing runs */
        if (d->residency) {
            mtl_residency_end(d->residency);
            mtl_release(d->residency);
        }
        sill__mtl_pipelines_close(d->pipelines);
        sill__mtl_rt.pool_pop(pool);
    }
    pthread_mutex_destroy(&d->lock);
    sill__free(d->dropped);
    sill__free(d);
}

/* What every kernel counts on: memory shared with the host, and the operations of an M1. */
static sill_status check_gpu(sill__device *d, sill_error *err) {
    mtl_id name = mtl_device_name(d->id);
    const char *text = name ? mtl_string_utf8(name) : NULL;
    snprintf(d->name, sizeof d->name, "%s", text ? text : "GPU");
    sill__plain(d->name);
    for (d->family = 0; d->family < 3 && mtl_device_is_family(d->id, MTL_FAMILY_APPLE7 + d->family); d->family++) {}
    if (d->family == 0 || !mtl_device_unified(d->id))
        return sill__fail(err, SILL_EUNSUPPORTED, "device \"metal\" needs Apple silicon (M1 or later), and a virtual machine offers less; "
                          "this Mac has %s", d->name);
    d->family += 6;
    d->working_set = mtl_device_working_set(d->id);
    d->max_buffer = mtl_device_max_buffer(d->id);
    return SILL_OK;
}

/* Keeps all buffers resident, so that none is looked up for every command buffer. Since macOS 15. What is added is committed at
 * once, and residency is requested for it before the next work (sill__mtl_work_commit). */
static void open_residency(sill__device *d) {
    mtl_id error = NULL, descriptor = NULL;
    if (!mtl_has(d->id, MTL_SEL_device_new_residency) || !(descriptor = mtl_new("MTLResidencySetDescriptor"))) return;
    d->residency = mtl_device_new_residency(d->id, descriptor, &error);
    mtl_release(descriptor);
}

static sill_status open_device(const sill__device_options *options, sill__device **out, sill_error *err) {
    (void)options; /* threads and instruction sets are the CPU's */
    *out = NULL;
    sill_status s = sill__mtl_runtime_open(err);
    if (s != SILL_OK) return s;
    sill__device *d = sill__calloc(1, sizeof *d);
    if (!d) return sill__fail(err, SILL_ENOMEM, "no memory for the metal device");
    d->ops = &metal_backend;
    pthread_mutex_init(&d->lock, NULL);
    void *contents, *pool = sill__mtl_rt.pool_push();
    s = sill__mtl_pipelines_open(&d->pipelines, &d->id, err);
    if (s == SILL_OK) s = check_gpu(d, err);
    if (s == SILL_OK) open_residency(d);
    if (s == SILL_OK) s = sill__mtl_buffer_new(d, 256, "absent arguments", &d->nothing, &contents, err);
    sill__mtl_rt.pool_pop(pool);
    if (s == SILL_OK) *out = d;
    else close_device(d);
    return s;
}

static void describe(const sill__device *d, char *out, size_t cap) { snprintf(out, cap, "metal %s", d->name); }

static void identify(const sill__device *d, char *out, size_t cap) {
    char system[160];
    sill__mtl_system_text(system, sizeof system);
    snprintf(out, cap, "metal %s, %s", d->name, system);
}

static int32_t n_threads(const sill__device *d) {
    (void)d;
    return 1; /* the host only encodes */
}

static uint64_t room(const sill__device *d) {
    sill__device *device = (sill__device *)d;
    pthread_mutex_lock(&device->lock);
    uint64_t in_use = d->in_use;
    pthread_mutex_unlock(&device->lock);
    if (d->working_set == 0) return UINT64_MAX;
    return d->working_set > in_use ? d->working_set - in_use : 0;
}

static uint64_t largest(const sill__device *d) { return d->max_buffer; }

/* --------------------------------------------------------------- supports */

/* The type that a stored one is multiplied in. */
static sill__type computed_type(sill__type stored, sill__compute compute) {
    if (compute == SILL__COMPUTE_F16) return SILL__TYPE_F16;
    if (compute == SILL__COMPUTE_BF16) return SILL__TYPE_BF16;
    return compute == SILL__COMPUTE_INT8 ? SILL__TYPE_I8 : stored;
}

static sill_status supports(const sill__device *d, const sill__need *need, sill_error *err) {
    const sill__kv_shape kv = {.n_layers = 1, .n_kv_heads = need->n_kv_heads, .head_dim = need->head_dim, .type = need->kv,
                               .n_blocks = 1};
    (void)d;
    for (int i = 0; i < need->n_types + need->n_embed_types; i++) {
        const bool embed = i >= need->n_types;
        sill__type type = embed ? need->embed_types[i - need->n_types] : need->types[i];
        const sill__type_info *t = sill__type_get(type);
        if (!t || !t->weight || !(embed ? sill__mtl_can_embed(type) : sill__mtl_can_multiply(computed_type(type, need->compute))))
            return sill__fail(err, SILL_EUNSUPPORTED, "the metal device does not %s weights of type %s",
                              embed ? "look up rows of" : "compute with", t ? t->name : "unknown");
    }
    if (need->training) return sill__fail(err, SILL_EUNSUPPORTED, "the metal device does not train");
    if (need->n_kv_heads < 1 || need->n_heads % need->n_kv_heads)
        return sill__fail(err, SILL_EUNSUPPORTED, "%d heads over %d of keys", need->n_heads, need->n_kv_heads);
    if (need->n_vocab > SILL__MTL_MAX_VOCAB)
        return sill__fail(err, SILL_EUNSUPPORTED, "a vocabulary of %d; the metal device takes at most %d: use --device cpu",
                          need->n_vocab, SILL__MTL_MAX_VOCAB);
    return sill__mtl_kv_block_bytes(&kv, err) ? SILL_OK : SILL_EUNSUPPORTED;
}

static const sill__backend metal_backend = {
    .name = "metal",
    .open = open_device,
    .close = close_device,
    .describe = describe,
    .n_threads = n_threads,
    .identify = identify,
    .room = room,
    .largest = largest,
    .supports = supports,
    .weight_bytes = sill__mtl_weight_bytes,
    .weights_bytes = sill__mtl_weights_bytes,
    .weight_import = sill__mtl_weight_import,
    .weight_free = sill__mtl_weight_free,
    .weights_import = sill__mtl_weights_import,
    .buf_create = sill__mtl_buf_create,
    .buf_free = sill__mtl_buf_free,
    .buf_write = sill__mtl_buf_write,
    .buf_read = sill__mtl_buf_read,
    .buf_map = sill__mtl_buf_map,
    .kv_bytes = sill__mtl_kv_bytes,
    .kv_create = sill__mtl_kv_create,
    .kv_free = sill__mtl_kv_free,
    .queue_bytes = sill__mtl_queue_bytes,
    .queue_create = sill__mtl_queue_create,
    .queue_free = sill__mtl_queue_free,
    .begin = sill__mtl_begin,
    .submit = sill__mtl_submit,
    .wait = sill__mtl_wait,
    .embed = sill__mtl_embed,
    .linear = sill__mtl_linear,
    .qkv = sill__mtl_qkv,
    .attention = sill__mtl_attention,
    .tap = sill__mtl_tap,
    .head = sill__mtl_head,
    .kv_copy = sill__mtl_kv_copy,
    .sample = sill__mtl_sample,
    .take_ids = sill__mtl_take_ids,
    .begin_behind = sill__mtl_begin_behind,
};

const sill__backend *sill__backend_metal(void) { return &metal_backend; }
