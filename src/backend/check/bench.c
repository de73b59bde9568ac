/* bench.c - running cases: buffers, weights and a queue on a device, freed together; and made-up data. */
#include "backend/check/internal.h"

#include <stdio.h>

/* ----------------------------------------------------------------- bench */

void sill__chk_bench_open(check_bench *b, const sill__backend *ops, sill__device *device) {
    memset(b, 0, sizeof *b);
    b->ops = ops;
    b->device = device;
}

void sill__chk_bench_close(check_bench *b) {
    if (b->queue) b->ops->queue_free(b->device, b->queue);
    if (b->kv) b->ops->kv_free(b->device, b->kv);
    for (int i = 0; i < b->n_weights; i++) b->ops->weight_free(b->device, b->weights[i]);
    for (int i = 0; i < b->n_bufs; i++) b->ops->buf_free(b->device, b->bufs[i]);
    b->queue = NULL;
    b->kv = NULL;
    b->n_weights = b->n_bufs = 0;
}

bool sill__chk_ok(const check_bench *b) { return b->status == SILL_OK; }

sill__ref sill__chk_room(check_bench *b, size_t n) {
    sill__ref none = {0};
    if (!sill__chk_ok(b)) return none;
    if (b->n_bufs == BENCH_MAX) {
        b->status = SILL__BUG(&b->err, "buffers of a check");
        return none;
    }
    b->status = b->ops->buf_create(b->device, SILL_MAX(n, (size_t)1) * 4, &b->bufs[b->n_bufs], &b->err);
    return sill__chk_ok(b) ? (sill__ref){b->bufs[b->n_bufs++], 0} : none;
}

void sill__chk_write(check_bench *b, sill__ref to, const void *values, size_t n) {
    if (sill__chk_ok(b) && n && b->ops->buf_write(b->device, to, values, n * 4) != SILL_OK)
        b->status = sill__fail(&b->err, SILL_EDEVICE, "cannot write %zu bytes to the device", n * 4);
}

void sill__chk_read(check_bench *b, sill__ref from, void *values, size_t n) {
    if (sill__chk_ok(b) && n && b->ops->buf_read(b->device, from, values, n * 4) != SILL_OK)
        b->status = sill__fail(&b->err, SILL_EDEVICE, "cannot read %zu bytes from the device", n * 4);
}

sill__ref sill__chk_put(check_bench *b, const void *values, size_t n) {
    sill__ref r = sill__chk_room(b, n);
    sill__chk_write(b, r, values, n);
    return r;
}

sill__weight *sill__chk_import(check_bench *b, const sill__weight_src *src) {
    if (!sill__chk_ok(b)) return NULL;
    if (b->n_weights == BENCH_MAX) {
        b->status = SILL__BUG(&b->err, "weights of a check");
        return NULL;
    }
    b->status = b->ops->weight_import(b->device, src, &b->weights[b->n_weights], &b->err);
    return sill__chk_ok(b) ? b->weights[b->n_weights++] : NULL;
}

void sill__chk_queue(check_bench *b, int32_t tokens, int32_t width, int32_t vocab, sill__path path) {
    if (!sill__chk_ok(b)) return;
    if (b->queue) b->ops->queue_free(b->device, b->queue);
    b->queue = NULL;
    b->status = b->ops->queue_create(b->device, &(sill__queue_shape){tokens, tokens, width, vocab, path}, &b->queue, &b->err);
}

void sill__chk_kv(check_bench *b, const sill__kv_shape *shape) {
    if (sill__chk_ok(b)) b->status = b->ops->kv_create(b->device, shape, &b->kv, &b->err);
}

void sill__chk_begin(check_bench *b, const sill__batch *batch) {
    if (sill__chk_ok(b)) b->ops->begin(b->queue, batch);
}

void sill__chk_end(check_bench *b) {
    if (sill__chk_ok(b)) b->status = b->ops->submit(b->queue, NULL, &b->err);
    if (sill__chk_ok(b)) b->status = b->ops->wait(b->queue, 0, &b->err);
}

void sill__chk_rows_init(check_rows *r, int32_t n, int32_t step) {
    memset(r, 0, sizeof *r);
    for (int32_t i = 0; i < n; i++) r->positions[i] = i;
    for (int32_t i = 0; i < (n + SILL__KV_BLOCK - 1) / SILL__KV_BLOCK; i++) r->blocks[i] = i;
    r->run = (sill__run){.first = 0, .n = n, .pos = 0, .blocks = r->blocks};
    r->batch = (sill__batch){.n_tokens = n, .n_runs = 1, .tokens = r->tokens, .positions = r->positions, .runs = &r->run,
                             .out_rows = r->out_rows};
    for (int32_t i = step - 1; i < n; i += step) r->out_rows[r->batch.n_out++] = i;
}

void sill__chk_add_out(check_case *c, const char *line, size_t n, double bound, double scale) {
    check_out *o = &c->outs[c->n_outs++];
    snprintf(o->line, sizeof o->line, "%s", line);
    o->n = n;
    o->bound = bound;
    o->scale = scale;
}

/* ------------------------------------------------------------------ data */

uint64_t sill__chk_next(check_rng *r) { /* xorshift64*, Vigna 2014 */
    r->state ^= r->state >> 12;
    r->state ^= r->state << 25;
    r->state ^= r->state >> 27;
    return r->state * 0x2545f4914f6cdd1du;
}

float *sill__chk_floats(check_case *c, check_rng *r, size_t n, float size) {
    float *x = sill__arena_alloc(&c->arena, SILL_MAX(n, (size_t)1) * sizeof *x);
    for (size_t i = 0; x && i < n; i++) x[i] = check_uniform(r) * size;
    return x;
}

/* Where a block has its factor, and its second one behind it; random bytes else. The factors make the values about as
 * large as asked. */
static void fill_blocks(check_rng *r, sill__type type, uint8_t *p, size_t bytes, float size) {
    size_t step = sill__type_get(type)->block_bytes, at = type == SILL__TYPE_Q6_K ? 208 : 0;
    bool second = type == SILL__TYPE_Q4_1 || type == SILL__TYPE_Q5_1 || type == SILL__TYPE_Q4_K || type == SILL__TYPE_Q5_K;
    float codes = type == SILL__TYPE_Q8_0   ? 127
                  : type == SILL__TYPE_Q6_K ? 32 * 127
                  : type == SILL__TYPE_Q4_K ? 15 * 63
                  : type == SILL__TYPE_Q5_K ? 31 * 63
                  : type == SILL__TYPE_Q5_0 ? 16
                  : type == SILL__TYPE_Q5_1 ? 31
                                            : type == SILL__TYPE_Q4_1 ? 15 : 8;
    size_t words = bytes / 8;
    for (size_t i = 0; i < words; i++) {
        uint64_t v = sill__chk_next(r);
        memcpy(p + 8 * i, &v, 8);
    }
    for (size_t i = 8 * words; i < bytes; i++) p[i] = (uint8_t)(sill__chk_next(r) >> 40);
    for (; bytes >= step; bytes -= step, p += step) {
        float d = size / codes * (0.75f + 0.25f * check_uniform(r)) * (second ? 2 : sill__chk_next(r) >> 63 ? 1 : -1);
        uint16_t h = sill__f32_to_f16(d);
        memcpy(p + at, &h, 2);
        h = sill__f32_to_f16(type == SILL__TYPE_Q4_K || type == SILL__TYPE_Q5_K ? size / 63 : -size);
        if (second) memcpy(p + at + 2, &h, 2);
    }
}

sill__tensor *sill__chk_tensor(check_case *c, check_rng *r, sill__type type, uint64_t rows, uint64_t cols, float size) {
    sill__tensor *t = sill__arena_alloc(&c->arena, sizeof *t);
    size_t bytes = (size_t)rows * sill__row_bytes(type, cols), n = (size_t)rows * (size_t)cols;
    uint8_t *p = sill__arena_alloc(&c->arena, bytes + 8);
    if (!t || !p) return NULL;
    *t = (sill__tensor){.name = "check", .type = type, .n_dims = 2, .dims = {rows, cols}, .data = p, .bytes = bytes};
    if (sill__type_get(type)->block > 1) {
        fill_blocks(r, type, p, bytes, size);
        return t;
    }
    for (size_t i = 0; i < n; i++) {
        float f = check_uniform(r) * size;
        uint16_t h = type == SILL__TYPE_F16 ? sill__f32_to_f16(f) : sill__f32_to_bf16(f);
        if (type == SILL__TYPE_F32) memcpy(p + 4 * i, &f, 4);
        else memcpy(p + 2 * i, &h, 2);
    }
    return t;
}

/* ----------------------------------------------------------------- forms */

#define BLOCKS(id, name) \
    {name, SILL__TYPE_##id, SILL__COMPUTE_BLOCK_I8, SILL__TYPE_F32}, {name, SILL__TYPE_##id, SILL__COMPUTE_F32, SILL__TYPE_F32}

const check_form sill__check_forms[] = {
    {"f32", SILL__TYPE_F32, SILL__COMPUTE_F32, SILL__TYPE_F32},
    {"f16", SILL__TYPE_F16, SILL__COMPUTE_F16, SILL__TYPE_F32},
    {"bf16", SILL__TYPE_BF16, SILL__COMPUTE_BF16, SILL__TYPE_F32},
    {"int8", SILL__TYPE_F32, SILL__COMPUTE_INT8, SILL__TYPE_F32},
    BLOCKS(Q8_0, "q8_0"),
    BLOCKS(Q4_0, "q4_0"),
    BLOCKS(Q4_1, "q4_1"),
    BLOCKS(Q5_0, "q5_0"),
    BLOCKS(Q5_1, "q5_1"),
    BLOCKS(Q4_K, "q4_k"),
    BLOCKS(Q5_K, "q5_k"),
    BLOCKS(Q6_K, "q6_k"),
    {"q8 at load", SILL__TYPE_F32, SILL__COMPUTE_BLOCK_I8, SILL__TYPE_Q8_0},
    {"q4 at load", SILL__TYPE_BF16, SILL__COMPUTE_BLOCK_I8, SILL__TYPE_Q4_1},
    /* stored in one type, computed with in another */
    {"f32", SILL__TYPE_F16, SILL__COMPUTE_F32, SILL__TYPE_F32},
    {"f32", SILL__TYPE_BF16, SILL__COMPUTE_F32, SILL__TYPE_F32},
    {"f16", SILL__TYPE_F32, SILL__COMPUTE_F16, SILL__TYPE_F32},
    {"bf16", SILL__TYPE_F32, SILL__COMPUTE_BF16, SILL__TYPE_F32},
    {"int8", SILL__TYPE_F16, SILL__COMPUTE_INT8, SILL__TYPE_F32},
    {"int8", SILL__TYPE_BF16, SILL__COMPUTE_INT8, SILL__TYPE_F32},
    {"q8 at load", SILL__TYPE_F16, SILL__COMPUTE_BLOCK_I8, SILL__TYPE_Q8_0},
};
const int sill__check_n_forms = (int)SILL_ARRAY_LEN(sill__check_forms);

bool sill__chk_uses(const check_case *c, const check_form *f) {
    return !c->use || (c->use->types[f->compute] >> sill__use_type(f->type, f->compute, f->as) & 1) != 0;
}

int32_t sill__chk_cols(const check_form *f, int32_t n) {
    int32_t block = (int32_t)sill__type_get(f->type)->block;
    if (f->compute == SILL__COMPUTE_BLOCK_I8) block = SILL_MAX(block, 32);
    return (n + block - 1) / block * block;
}

bool sill__chk_second_variant(const check_form *f) {
    return f->compute == SILL__COMPUTE_BLOCK_I8 || f->compute == SILL__COMPUTE_BF16;
}

sill__weight_src sill__chk_source(const check_form *f, const sill__tensor *t, sill__role role) {
    return (sill__weight_src){.parts = {t}, .n_parts = 1, .rows = t->dims[0], .cols = t->dims[1], .compute = f->compute,
                              .as = f->as, .role = role, .name = "check"};
}
