/*
 * ref.c - the scalar reference backend: the meaning of every operation, in plain C. f32 data, sums in double,
 * one thread, weights read from the stored tensor and dequantized row by row; nothing is packed. Faster
 * backends are compared with this one, so it is written to be read, not to be quick. It is always built in.
 */
#include "backend/backend.h"

#include <math.h>
#include <stdio.h>

struct sill__device { const sill__backend *ops; };
struct sill__buf { uint8_t *data; size_t bytes; };

struct sill__weight {
    sill__tensor parts[4];
    uint64_t part_rows[4];
    int n_parts;
    bool transposed;
    int32_t rows, cols;
    sill__compute compute;
    sill__type as;          /* BLOCK_I8: what plain rows are quantized to, or F32 */
    sill__role role;
};

/* (block, layer, k or v, kv head, slot, head_dim) of f32, f16, or int8 codes with scale and offset (f32) behind each slot's. */
struct sill__kv { sill__kv_shape shape; uint8_t *data; size_t bytes; };

#define HEAD_ROWS 16 /* output rows whose logits are held at once */

struct sill__queue {
    const sill__batch *batch;
    sill_error error;       /* the first that happened and was not told yet; code SILL_OK: none */
    sill__ticket n_submitted;
    int32_t max_tokens, max_out, max_width, max_vocab;
    uint8_t *scratch;
    size_t scratch_bytes;
    float *x;               /* (max_tokens, max_width) prepared input rows */
    float *scales;          /* (max_tokens, max_width / 32 + 1) of int8 activations */
    float *row, *row2;      /* (max_width) a dequantized row of weights; the `up` row of SwiGLU */
    float *y;               /* (max_tokens, max_width) outputs of one head of q, k or v */
    double *sums;           /* (max_width) attention's weighted sum of v */
    float *logits;          /* (HEAD_ROWS, max_vocab) */
};

/* ---------------------------------------------------------------- device */

static sill_status ref_open(const sill__device_options *options, sill__device **out, sill_error *err) {
    (void)options;
    *out = sill__calloc(1, sizeof **out);
    if (!*out) return sill__fail(err, SILL_ENOMEM, "no memory for the reference device");
    (*out)->ops = sill__backend_ref();
    return SILL_OK;
}

static void ref_close(sill__device *d) { sill__free(d); }
static void ref_describe(const sill__device *d, char *out, size_t cap) {
    (void)d;
    snprintf(out, cap, "ref");
}
static int32_t ref_n_threads(const sill__device *d) {
    (void)d;
    return 1;
}

static sill_status ref_supports(const sill__device *d, const sill__need *need, sill_error *err) {
    (void)d;
    for (int i = 0; i < need->n_types + need->n_embed_types; i++) {
        const sill__type_info *t =
            sill__type_get(i < need->n_types ? need->types[i] : need->embed_types[i - need->n_types]);
        if (!t || !t->weight)
            return sill__fail(err, SILL_EUNSUPPORTED, "the ref device does not compute with weights of type %s",
                              t ? t->name : "unknown");
    }
    if (need->kv != SILL__KV_F32 && need->kv != SILL__KV_F16 && need->kv != SILL__KV_I8)
        return sill__fail(err, SILL_EUNSUPPORTED, "the ref device keeps keys and values in f32, f16 or int8");
    if (need->training) return sill__fail(err, SILL_EUNSUPPORTED, "the ref device does not train");
    return SILL_OK;
}

/* --------------------------------------------------------------- weights */

static uint64_t ref_weight_bytes(const sill__device *d, const sill__weight_src *src) {
    (void)d;
    uint64_t bytes = 0;
    for (int i = 0; i < src->n_parts; i++) bytes += src->parts[i]->bytes;
    return bytes;
}

static sill_status ref_weight_import(sill__device *d, const sill__weight_src *src, sill__weight **out,
                                     sill_error *err) {
    (void)d;
    uint64_t have = 0;
    *out = NULL;
    if (src->n_parts < 1 || src->n_parts > 4 || src->rows < 1 || src->rows > INT32_MAX || src->cols < 1 ||
        src->cols > INT32_MAX)
        return sill__fail(err, SILL_EINVAL, "%s: a weight has 1 to 4 parts and at least one element",
                          src->name ? src->name : "weight");
    sill__weight *w = sill__calloc(1, sizeof *w);
    if (!w) return sill__fail(err, SILL_ENOMEM, "no memory for a weight");
    for (int i = 0; i < src->n_parts; i++) {
        sill_status s = sill__weight_check_part(src, src->parts[i], src->name ? src->name : src->parts[i]->name, "ref",
                                                &w->part_rows[i], err);
        if (s != SILL_OK) {
            sill__free(w);
            return s;
        }
        w->parts[i] = *src->parts[i];
        have += w->part_rows[i];
    }
    if (have < src->rows) {
        sill__free(w);
        return sill__fail(err, SILL_EINVAL, "%s has %llu rows, expected %llu", src->name ? src->name : "weight",
                          (unsigned long long)have, (unsigned long long)src->rows);
    }
    w->n_parts = src->n_parts;
    w->transposed = src->transposed;
    w->rows = (int32_t)src->rows;
    w->cols = (int32_t)src->cols;
    w->compute = src->compute;
    w->as = src->compute == SILL__COMPUTE_BLOCK_I8 && sill__type_get(src->parts[0]->type)->block == 1 ? src->as
                                                                                                     : SILL__TYPE_F32;
    w->role = src->role;
    *out = w;
    return SILL_OK;
}

static void ref_weight_free(sill__device *d, sill__weight *w) {
    (void)d;
    sill__free(w);
}

/* Each group of 32 to the block type and back. */
static void through_blocks(sill__type type, float *x, size_t n) {
    uint8_t block[64];
    for (; n >= 32; n -= 32, x += 32) {
        sill__quantize(type, x, block, 32);
        sill__dequant(type, block, x, 32);
    }
}

/* LLM.int8's weights: codes of -127 .. 127 and the row's scale. */
static void through_int8(float *x, size_t n) {
    float amax = 0;
    bool finite = true;
    for (size_t i = 0; i < n; i++) {
        amax = fmaxf(amax, fabsf(x[i]));
        finite = finite && isfinite(x[i]);
    }
    const float scale = !finite ? NAN : amax < 1e-30f ? 0 : amax / 127.0f, inverse = amax < 1e-30f ? 0 : 127.0f / amax;
    for (size_t i = 0; i < n; i++) x[i] = finite ? scale * rintf(x[i] * inverse) : NAN;
}

/* Row R as f32: the stored values, as they are after rounding to the computed type. */
static void weight_row(const sill__weight *w, int32_t r, float *out) {
    uint64_t at = (uint64_t)r;
    int p = 0;
    while (p + 1 < w->n_parts && at >= w->part_rows[p]) at -= w->part_rows[p++];
    const sill__tensor *t = &w->parts[p];
    size_t cols = (size_t)w->cols;
    if (w->transposed) {
        size_t size = sill__row_bytes(t->type, 1), step = size * (size_t)w->part_rows[p];
        const uint8_t *from = t->data + size * (size_t)at;
        for (size_t c = 0; c < cols; c++) sill__dequant(t->type, from + c * step, out + c, 1);
    } else {
        sill__dequant(t->type, t->data + (size_t)at * sill__row_bytes(t->type, cols), out, cols);
    }
    if (w->role == SILL__ROLE_EMBED) return;
    if (w->as != SILL__TYPE_F32) through_blocks(w->as, out, cols);
    if (w->compute == SILL__COMPUTE_INT8) through_int8(out, cols);
    if (w->compute == SILL__COMPUTE_BF16)
        for (size_t c = 0; c < cols; c++) out[c] = sill__bf16_to_f32(sill__f32_to_bf16(out[c]));
    if (w->compute == SILL__COMPUTE_F16)
        for (size_t c = 0; c < cols; c++) out[c] = sill__f16_to_f32(sill__f32_to_f16(out[c]));
}

/* ---------------------------------------------------------------- memory */

static sill_status ref_buf_create(sill__device *d, size_t bytes, sill__buf **out, sill_error *err) {
    (void)d;
    *out = NULL;
    sill__buf *b = sill__calloc(1, sizeof *b);
    if (b && (b->data = sill__alloc_pages(bytes))) {
        b->bytes = bytes;
        *out = b;
        return SILL_OK;
    }
    sill__free(b);
    return sill__fail(err, SILL_ENOMEM, "no memory for a buffer of %zu bytes", bytes);
}

static void ref_buf_free(sill__device *d, sill__buf *b) {
    (void)d;
    if (!b) return;
    sill__free_pages(b->data, b->bytes);
    sill__free(b);
}

static bool in_buf(sill__ref ref, size_t bytes) {
    return ref.buf && ref.at <= ref.buf->bytes && bytes <= ref.buf->bytes - ref.at;
}

static sill_status ref_buf_write(sill__device *d, sill__ref to, const void *from, size_t bytes) {
    (void)d;
    if (!in_buf(to, bytes)) return SILL_EINVAL;
    if (bytes) memcpy(to.buf->data + to.at, from, bytes);
    return SILL_OK;
}

static sill_status ref_buf_read(sill__device *d, sill__ref from, void *to, size_t bytes) {
    (void)d;
    if (!in_buf(from, bytes)) return SILL_EINVAL;
    if (bytes) memcpy(to, from.buf->data + from.at, bytes);
    return SILL_OK;
}

static void *ref_buf_map(sill__device *d, sill__buf *b) {
    (void)d;
    return b->data;
}

static float *ref_f32(sill__ref r) { return r.buf ? (float *)(void *)(r.buf->data + r.at) : NULL; }

/* Bytes of one position's k or v of one head. */
static size_t kv_row_bytes(const sill__kv_shape *s) {
    size_t dim = (size_t)s->head_dim;
    return s->type == SILL__KV_F32 ? 4 * dim : s->type == SILL__KV_F16 ? 2 * dim : dim + 8;
}

static uint64_t ref_kv_bytes(const sill__device *d, const sill__kv_shape *s) {
    (void)d;
    size_t n = 2 * SILL__KV_BLOCK * kv_row_bytes(s);
    if (!sill__mul(n, (size_t)s->n_layers, &n) || !sill__mul(n, (size_t)s->n_kv_heads, &n) ||
        !sill__mul(n, (size_t)s->n_blocks, &n))
        return UINT64_MAX;
    return n;
}

static sill_status ref_kv_create(sill__device *d, const sill__kv_shape *shape, sill__kv **out, sill_error *err) {
    *out = NULL;
    uint64_t bytes = ref_kv_bytes(d, shape);
    sill__kv *kv = bytes < SIZE_MAX ? sill__calloc(1, sizeof *kv) : NULL;
    if (kv && (kv->data = sill__alloc_pages((size_t)bytes))) {
        kv->bytes = (size_t)bytes;
        kv->shape = *shape;
        *out = kv;
        return SILL_OK;
    }
    sill__free(kv);
    return sill__fail(err, SILL_ENOMEM, "no memory for %llu bytes of keys and values", (unsigned long long)bytes);
}

static void ref_kv_free(sill__device *d, sill__kv *kv) {
    (void)d;
    if (!kv) return;
    sill__free_pages(kv->data, kv->bytes);
    sill__free(kv);
}

/* Address of one position's k (which = 0) or v (1) of one head. */
static uint8_t *kv_at(const sill__kv *kv, int32_t block, int32_t layer, int which, int32_t head, int32_t slot) {
    const sill__kv_shape *s = &kv->shape;
    size_t i = (((size_t)block * (size_t)s->n_layers + (size_t)layer) * 2 + (size_t)which) * (size_t)s->n_kv_heads;
    i = (i + (size_t)head) * SILL__KV_BLOCK + (size_t)slot;
    return kv->data + i * kv_row_bytes(s);
}

/* ----------------------------------------------------------------- queue */

/* Lays the scratch out; with q NULL only counts its bytes. SIZE_MAX on overflow. */
static size_t lay_out(sill__queue *q, int32_t max_tokens, int32_t max_width, int32_t max_vocab) {
    size_t width = (size_t)max_width, at = 0, sizes[7], offsets[7], tokens = (size_t)max_tokens;
    if (!sill__mul(tokens, width, &sizes[0]) || !sill__mul(sizes[0], 4, &sizes[0])) return SIZE_MAX;
    if (!sill__mul(tokens, (width / 32 + 1) * 4, &sizes[1])) return SIZE_MAX;
    sizes[2] = sizes[3] = width * 4;
    sizes[4] = sizes[0];
    sizes[5] = width * 8;
    sizes[6] = (size_t)max_vocab * 4 * HEAD_ROWS;
    for (int i = 0; i < 7; i++) {
        offsets[i] = at;
        if (!sill__add(at, sizes[i], &at) || !sill__add(at, 63, &at)) return SIZE_MAX;
        at &= ~(size_t)63;
    }
    if (q) {
        q->x = (float *)(void *)(q->scratch + offsets[0]);
        q->scales = (float *)(void *)(q->scratch + offsets[1]);
        q->row = (float *)(void *)(q->scratch + offsets[2]);
        q->row2 = (float *)(void *)(q->scratch + offsets[3]);
        q->y = (float *)(void *)(q->scratch + offsets[4]);
        q->sums = (double *)(void *)(q->scratch + offsets[5]);
        q->logits = (float *)(void *)(q->scratch + offsets[6]);
    }
    return at;
}

static bool sound(const sill__queue_shape *s) {
    return s->max_tokens >= 1 && s->max_out >= 0 && s->max_width >= 1 && s->max_vocab >= 0;
}

static uint64_t ref_queue_bytes(const sill__device *d, const sill__queue_shape *s) {
    (void)d;
    return sound(s) ? lay_out(NULL, s->max_tokens, s->max_width, s->max_vocab) : UINT64_MAX;
}

static sill_status ref_queue_create(sill__device *d, const sill__queue_shape *s, sill__queue **out, sill_error *err) {
    (void)d;
    *out = NULL;
    if (!sound(s)) return sill__fail(err, SILL_EINVAL, "a queue for %d tokens of width %d", s->max_tokens, s->max_width);
    size_t bytes = lay_out(NULL, s->max_tokens, s->max_width, s->max_vocab);
    sill__queue *q = bytes < SIZE_MAX ? sill__calloc(1, sizeof *q) : NULL;
    if (!q || !(q->scratch = sill__alloc_pages(bytes))) {
        sill__free(q);
        return sill__fail(err, SILL_ENOMEM, "no memory for %zu bytes of scratch", bytes);
    }
    q->scratch_bytes = bytes;
    q->max_tokens = s->max_tokens;
    q->max_out = s->max_out;
    q->max_width = s->max_width;
    q->max_vocab = s->max_vocab;
    lay_out(q, s->max_tokens, s->max_width, s->max_vocab);
    *out = q;
    return SILL_OK;
}

static void ref_queue_free(sill__device *d, sill__queue *q) {
    (void)d;
    if (!q) return;
    sill__free_pages(q->scratch, q->scratch_bytes);
    sill__free(q);
}

/* Keeps the first error; false, so that an op can `return` on it. */
static bool require(sill__queue *q, bool ok, const char *what) {
    if (!ok && q->error.code == SILL_OK) sill__fail(&q->error, SILL_EINTERNAL, "ref device: %s", what);
    return ok && q->error.code == SILL_OK;
}

static void ref_begin(sill__queue *q, const sill__batch *batch) {
    q->batch = batch;
    require(q, batch->n_tokens <= q->max_tokens && batch->n_out <= q->max_out, "the batch is larger than the queue");
}

static sill_status ref_wait(sill__queue *q, sill__ticket ticket, sill_error *err) {
    sill_status st = q->error.code;
    (void)ticket; /* ops run at once */
    if (st != SILL_OK && err) *err = q->error;
    memset(&q->error, 0, sizeof q->error);
    return st;
}

static sill_status ref_submit(sill__queue *q, sill__ticket *ticket, sill_error *err) {
    if (ticket) *ticket = ++q->n_submitted;
    return ref_wait(q, 0, err);
}

/* ------------------------------------------------------------- arithmetic */

/* Four chains over k, added in order: depends on n alone. */
static double dot(const float *a, const float *b, int32_t n) {
    double s0 = 0, s1 = 0, s2 = 0, s3 = 0;
    int32_t i = 0;
    for (; i + 4 <= n; i += 4) {
        s0 += (double)a[i] * b[i];
        s1 += (double)a[i + 1] * b[i + 1];
        s2 += (double)a[i + 2] * b[i + 2];
        s3 += (double)a[i + 3] * b[i + 3];
    }
    for (; i < n; i++) s0 += (double)a[i] * b[i];
    return (s0 + s1) + (s2 + s3);
}

static void norm_row(const sill__norm *norm, const float *x, float *y, int32_t n) {
    const float *weight = ref_f32(norm->weight), *bias = ref_f32(norm->bias);
    double mean = 0, var = 0;
    if (norm->kind == SILL__NORM_NONE) {
        memmove(y, x, (size_t)n * sizeof *x);
        return;
    }
    if (norm->kind == SILL__NORM_LAYER) {
        for (int32_t i = 0; i < n; i++) mean += x[i];
        mean /= n;
    }
    for (int32_t i = 0; i < n; i++) var += (x[i] - mean) * (x[i] - mean);
    double r = 1.0 / sqrt(var / n + norm->eps);
    for (int32_t i = 0; i < n; i++) {
        double v = (x[i] - mean) * r;
        if (weight) v *= weight[i];
        if (bias) v += bias[i];
        y[i] = (float)v;
    }
}

/* int8 activations: each group of 32 becomes scale * code, scale = max |x| / 127, code rounded to nearest even. */
static void quantize_row(float *x, float *scales, int32_t n) {
    for (int32_t g = 0; g < n / 32; g++) {
        float *v = x + (size_t)g * 32, amax = 0;
        for (int i = 0; i < 32; i++) amax = fmaxf(amax, fabsf(v[i]));
        float inv = amax > 0 ? 127.0f / amax : 0;
        scales[g] = amax / 127.0f;
        for (int i = 0; i < 32; i++) v[i] = rintf(v[i] * inv);
    }
}

/* LLM.int8: what is below the threshold becomes scale * code, with one scale for the row; outliers are kept as f16. */
static void quantize_whole_row(float *x, int32_t n) {
    float amax = 0;
    for (int32_t i = 0; i < n; i++)
        if (fabsf(x[i]) < SILL__INT8_OUTLIER) amax = fmaxf(amax, fabsf(x[i]));
    const float scale = amax < 1e-30f ? 0 : amax / 127.0f, inverse = amax < 1e-30f ? 0 : 127.0f / amax;
    for (int32_t i = 0; i < n; i++)
        x[i] = fabsf(x[i]) < SILL__INT8_OUTLIER ? scale * rintf(x[i] * inverse) : sill__f16_to_f32(sill__f32_to_f16(x[i]));
}

static double activate(sill__act act, double x) {
    switch (act) {
    case SILL__ACT_GELU_TANH: return 0.5 * x * (1 + tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)));
    case SILL__ACT_GELU_ERF: return 0.5 * x * (1 + erf(x * 0.7071067811865476));
    case SILL__ACT_RELU: return x > 0 ? x : 0;
    case SILL__ACT_SILU:
    case SILL__ACT_SWIGLU: return x / (1 + exp(-x));
    case SILL__ACT_TANH: return tanh(x);
    case SILL__ACT_NONE: break;
    }
    return x;
}

/* Prepares N input rows in q->x: gathered, normalized, quantized where the weight wants int8. */
static bool prepare(sill__queue *q, const sill__weight *w, sill__ref in, sill__rows rows, const sill__norm *norm,
                    int32_t first, int32_t n) {
    if (!require(q, w->cols <= q->max_width && n <= q->max_tokens, "a weight is wider than the queue")) return false;
    const float *x = ref_f32(in);
    size_t cols = (size_t)w->cols, groups = (size_t)q->max_width / 32 + 1;
    for (int32_t i = 0; i < n; i++) {
        int32_t r = rows == SILL__ROWS_OUT ? q->batch->out_rows[first + i] : first + i;
        float *y = q->x + (size_t)i * cols;
        norm_row(norm, x + (size_t)r * cols, y, w->cols);
        if (w->compute == SILL__COMPUTE_BLOCK_I8) quantize_row(y, q->scales + (size_t)i * groups, w->cols);
        if (w->compute == SILL__COMPUTE_INT8) quantize_whole_row(y, w->cols);
    }
    return true;
}

/* Product of the prepared input row i with a dequantized weight row. */
static double product(const sill__queue *q, const sill__weight *w, const float *row, int32_t i) {
    const float *x = q->x + (size_t)i * (size_t)w->cols;
    if (w->compute != SILL__COMPUTE_BLOCK_I8) return dot(x, row, w->cols);
    const float *scales = q->scales + (size_t)i * ((size_t)q->max_width / 32 + 1);
    double sum = 0;
    for (int32_t g = 0; g < w->cols / 32; g++) sum += scales[g] * dot(x + (size_t)g * 32, row + (size_t)g * 32, 32);
    return sum;
}

/* -------------------------------------------------------------------- ops */

static void ref_embed(sill__queue *q, const sill__op_embed *op) {
    const sill__batch *b = q->batch;
    float *out = ref_f32(op->out);
    size_t width = (size_t)op->width;
    if (!require(q, op->width <= q->max_width && op->wte->cols == op->width, "embedding width")) return;
    for (int32_t i = 0; i < b->n_tokens; i++) {
        float *y = out + (size_t)i * width;
        if (!require(q, b->tokens[i] >= 0 && b->tokens[i] < op->wte->rows, "token id outside the vocabulary")) return;
        weight_row(op->wte, b->tokens[i], y);
        if (!op->wpe) continue;
        if (!require(q, b->positions[i] >= 0 && b->positions[i] < op->wpe->rows, "position outside the table")) return;
        weight_row(op->wpe, b->positions[i], q->row);
        for (size_t c = 0; c < width; c++) y[c] += q->row[c];
    }
}

static void ref_linear(sill__queue *q, const sill__op_linear *op) {
    const sill__weight *w = op->w;
    const float *bias = ref_f32(op->bias);
    float *out = ref_f32(op->out);
    bool glu = op->act == SILL__ACT_SWIGLU;
    int32_t n = op->rows == SILL__ROWS_OUT ? q->batch->n_out : q->batch->n_tokens;
    int32_t rows = glu ? w->rows / 2 : w->rows;
    if (!require(q, !op->pre.buf, "it does not train") || !prepare(q, w, op->in, op->rows, &op->norm, 0, n)) return;
    for (int32_t j = 0; j < rows; j++) {
        weight_row(w, j, q->row);
        if (glu) weight_row(w, rows + j, q->row2);
        for (int32_t i = 0; i < n; i++) {
            double v = product(q, w, q->row, i) + (bias ? bias[j] : 0);
            v = activate(op->act, v);
            if (glu) v *= product(q, w, q->row2, i) + (bias ? bias[rows + j] : 0);
            float *y = out + (size_t)i * (size_t)rows + j;
            *y = (float)(op->residual ? *y + v : v);
        }
    }
}

/* The angle is the f32 product of position and inverse frequency, as transformers computes it. */
static void rotate(const sill__rope *rope, float *head, int32_t pos) {
    const float *inv_freq = ref_f32(rope->inv_freq);
    int32_t half = rope->dims / 2;
    if (rope->kind == SILL__ROPE_NONE) return;
    for (int32_t i = 0; i < half; i++) {
        float angle = (float)pos * inv_freq[i];
        double c = cos((double)angle) * rope->scale, s = sin((double)angle) * rope->scale;
        float *a = rope->kind == SILL__ROPE_HALF ? head + i : head + 2 * i;
        float *b = rope->kind == SILL__ROPE_HALF ? head + half + i : a + 1;
        double x = *a, y = *b;
        *a = (float)(x * c - y * s);
        *b = (float)(x * s + y * c);
    }
}

/* int8: offset + scale * code, rounded to nearest even. k: its range cut into 255 steps, codes -128 .. 127; v: codes
 * -127 .. 127 of max |x| / 127, offset 0. No steps where the range is below 1e-30. Values that are not finite make the
 * scale NaN. */
static void kv_store_i8(uint8_t *at, int which, const float *x, int32_t n) {
    float low = x[0], high = x[0], odd = 0, first = which ? -127 : -128, steps = which ? 127 : 255;
    for (int32_t i = 0; i < n; i++) {
        low = fminf(low, x[i]);
        high = fmaxf(high, x[i]);
        odd += x[i] * 0.0f;
    }
    float span = which ? fmaxf(-low, high) : high - low, inv = span > 1e-30f ? steps / span : 0;
    float shift = which ? 0 : -low * inv - 128, scale = span / steps + odd, offset = which ? 0 : low + 128 * scale;
    for (int32_t i = 0; i < n; i++) {
        int8_t code = (int8_t)fmaxf(fminf(rintf(x[i] * inv + shift), 127), first);
        memcpy(at + i, &code, 1);
    }
    memcpy(at + n, &scale, 4);
    memcpy(at + n + 4, &offset, 4);
}

static void kv_store(const sill__op_qkv *op, const sill__run *run, int32_t pos, int which, int32_t head,
                     const float *x) {
    uint8_t *at = kv_at(op->kv, run->blocks[pos / SILL__KV_BLOCK], op->layer, which, head, pos % SILL__KV_BLOCK);
    if (op->kv->shape.type == SILL__KV_F32) {
        memcpy(at, x, (size_t)op->head_dim * sizeof *x);
        return;
    }
    if (op->kv->shape.type == SILL__KV_I8) {
        kv_store_i8(at, which, x, op->head_dim);
        return;
    }
    for (int32_t i = 0; i < op->head_dim; i++) {
        uint16_t h = sill__f32_to_f16(x[i]);
        memcpy(at + 2 * (size_t)i, &h, 2);
    }
}

static void ref_qkv(sill__queue *q, const sill__op_qkv *op) {
    const sill__batch *b = q->batch;
    const sill__weight *w = op->w;
    const float *bias = ref_f32(op->bias);
    float *out = ref_f32(op->q);
    int32_t dim = op->head_dim, heads = op->n_heads + 2 * op->n_kv_heads;
    if (!require(q, !op->k.buf && !op->v.buf, "it does not train") ||
        !require(q, w->rows == heads * dim && dim <= q->max_width, "qkv rows") ||
        !prepare(q, w, op->in, SILL__ROWS_ALL, &op->norm, 0, b->n_tokens))
        return;
    for (int32_t h = 0; h < heads; h++) {
        for (int32_t j = 0; j < dim; j++) {
            weight_row(w, h * dim + j, q->row);
            for (int32_t i = 0; i < b->n_tokens; i++)
                q->y[(size_t)i * (size_t)dim + (size_t)j] =
                    (float)(product(q, w, q->row, i) + (bias ? bias[h * dim + j] : 0));
        }
        for (int32_t r = 0; r < b->n_runs; r++) {
            const sill__run *run = &b->runs[r];
            for (int32_t i = 0; i < run->n; i++) {
                float *y = q->y + (size_t)(run->first + i) * (size_t)dim;
                if (h < op->n_heads + op->n_kv_heads) rotate(&op->rope, y, run->pos + i);
                if (h < op->n_heads)
                    memcpy(out + ((size_t)(run->first + i) * (size_t)op->n_heads + (size_t)h) * (size_t)dim, y,
                           (size_t)dim * sizeof *y);
                else if (h < op->n_heads + op->n_kv_heads)
                    kv_store(op, run, run->pos + i, 0, h - op->n_heads, y);
                else
                    kv_store(op, run, run->pos + i, 1, h - op->n_heads - op->n_kv_heads, y);
            }
        }
    }
}

static double kv_value(const uint8_t *at, const sill__kv_shape *shape, int32_t i) {
    sill__kv_type type = shape->type;
    uint16_t h;
    float f;
    if (type == SILL__KV_I8) {
        float offset;
        memcpy(&f, at + shape->head_dim, 4);
        memcpy(&offset, at + shape->head_dim + 4, 4);
        return offset + (double)f * (int8_t)at[i];
    }
    if (type == SILL__KV_F32) {
        memcpy(&f, at + 4 * (size_t)i, 4);
        return f;
    }
    memcpy(&h, at + 2 * (size_t)i, 2);
    return sill__f16_to_f32(h);
}

/* One query head over positions 0 .. pos: the running maximum and sums are renewed once a block. */
static void attend(sill__queue *q, const sill__op_attention *op, const sill__run *run, int32_t pos, int32_t head,
                   const float *x, float *out) {
    const sill__kv_shape *shape = &op->kv->shape;
    int32_t dim = op->head_dim, kv_head = head / (op->n_heads / op->n_kv_heads);
    double max = -INFINITY, total = 0, scores[SILL__KV_BLOCK];
    memset(q->sums, 0, (size_t)dim * sizeof *q->sums);
    for (int32_t start = 0; start <= pos; start += SILL__KV_BLOCK) {
        int32_t n = SILL_MIN(SILL__KV_BLOCK, pos + 1 - start), block = run->blocks[start / SILL__KV_BLOCK];
        double top = max;
        for (int32_t s = 0; s < n; s++) {
            const uint8_t *k = kv_at(op->kv, block, op->layer, 0, kv_head, s);
            double sum = 0;
            for (int32_t i = 0; i < dim; i++) sum += x[i] * kv_value(k, shape, i);
            scores[s] = sum * op->scale;
            if (scores[s] > top) top = scores[s];
        }
        double shrink = max == -INFINITY ? 0 : exp(max - top);
        total *= shrink;
        for (int32_t i = 0; i < dim; i++) q->sums[i] *= shrink;
        for (int32_t s = 0; s < n; s++) {
            const uint8_t *v = kv_at(op->kv, block, op->layer, 1, kv_head, s);
            double p = exp(scores[s] - top);
            total += p;
            for (int32_t i = 0; i < dim; i++) q->sums[i] += p * kv_value(v, shape, i);
        }
        max = top;
    }
    for (int32_t i = 0; i < dim; i++) out[i] = (float)(q->sums[i] / total);
}

static void ref_attention(sill__queue *q, const sill__op_attention *op) {
    const sill__batch *b = q->batch;
    const float *in = ref_f32(op->q);
    float *out = ref_f32(op->out);
    if (!require(q, op->head_dim <= q->max_width && op->n_heads % op->n_kv_heads == 0 && !op->lse.buf, "attention heads")) return;
    for (int32_t r = 0; r < b->n_runs; r++)
        for (int32_t i = 0; i < b->runs[r].n; i++)
            for (int32_t h = 0; h < op->n_heads; h++) {
                size_t at = ((size_t)(b->runs[r].first + i) * (size_t)op->n_heads + (size_t)h) * (size_t)op->head_dim;
                attend(q, op, &b->runs[r], b->runs[r].pos + i, h, in + at, out + at);
            }
}

static void ref_tap(sill__queue *q, const sill__op_tap *op) {
    const float *in = ref_f32(op->in);
    float *out = ref_f32(op->out);
    int32_t n = op->rows == SILL__ROWS_OUT ? q->batch->n_out : q->batch->n_tokens;
    for (int32_t i = 0; i < n; i++) {
        int32_t r = op->rows == SILL__ROWS_OUT ? q->batch->out_rows[i] : i;
        norm_row(&op->norm, in + (size_t)r * (size_t)op->width, out + (size_t)i * (size_t)op->width, op->width);
    }
}

static double log_sum_exp(const float *x, int32_t n) {
    double max = -INFINITY, sum = 0;
    for (int32_t i = 0; i < n; i++)
        if (x[i] > max) max = x[i];
    if (max == -INFINITY) max = 0; /* nothing but -infinity and NaN; a NaN makes the sum one */
    for (int32_t i = 0; i < n; i++) sum += exp(x[i] - max);
    return max + log(sum);
}

/* The k best in falling order, ties by lower id; ids -1 where the vocabulary is smaller than k. */
static void top_k(const float *x, int32_t n, double lse, int32_t k, int32_t *ids, float *logprobs) {
    int32_t have = 0;
    for (int32_t i = 0; i < n; i++) {
        int32_t at = have;
        while (at > 0 && x[i] > x[ids[at - 1]]) at--;
        if (at >= k) continue;
        if (have < k) have++;
        for (int32_t j = have - 1; j > at; j--) ids[j] = ids[j - 1];
        ids[at] = i;
    }
    for (int32_t j = 0; j < k; j++) {
        if (j >= have) ids[j] = -1;
        if (logprobs) logprobs[j] = j < have ? (float)(x[ids[j]] - lse) : -INFINITY;
    }
}

/* What is wanted of one output row's logits. */
static void head_row(sill__queue *q, const sill__op_head *op, int32_t i, const float *x) {
    double lse = log_sum_exp(x, op->n_vocab);
    size_t row = (size_t)i;
    if (op->logits.buf) memcpy(ref_f32(op->logits) + row * (size_t)op->n_vocab, x, (size_t)op->n_vocab * sizeof *x);
    if (op->lse.buf) ref_f32(op->lse)[row] = (float)lse;
    if (op->target_starts && op->target_logprobs.buf)
        for (int32_t t = op->target_starts[i]; t < op->target_starts[i + 1]; t++) {
            int32_t id = op->targets[t];
            if (!require(q, id >= 0 && id < op->n_vocab, "target id outside the vocabulary")) return;
            ref_f32(op->target_logprobs)[t] = (float)(x[id] - lse);
        }
    if (op->n_top > 0 && op->top_ids.buf) {
        size_t at = row * (size_t)op->n_top;
        int32_t *ids = (int32_t *)(void *)(op->top_ids.buf->data + op->top_ids.at);
        float *logprobs = ref_f32(op->top_logprobs);
        top_k(x, op->n_vocab, lse, op->n_top, ids + at, logprobs ? logprobs + at : NULL);
    }
}

static void ref_head(sill__queue *q, const sill__op_head *op) {
    const sill__weight *w = op->w;
    const float *bias = ref_f32(op->bias);
    int32_t n_out = q->batch->n_out;
    if (!require(q, op->n_vocab > 0 && op->n_vocab <= w->rows && op->n_vocab <= q->max_vocab, "head rows")) return;
    for (int32_t first = 0; first < n_out; first += HEAD_ROWS) {
        int32_t n = SILL_MIN(SILL_MIN(HEAD_ROWS, q->max_tokens), n_out - first);
        if (!prepare(q, w, op->in, SILL__ROWS_OUT, &op->norm, first, n)) return;
        for (int32_t j = 0; j < op->n_vocab; j++) {
            weight_row(w, j, q->row);
            for (int32_t i = 0; i < n; i++)
                q->logits[(size_t)i * (size_t)op->n_vocab + (size_t)j] =
                    (float)(product(q, w, q->row, i) + (bias ? bias[j] : 0));
        }
        for (int32_t i = 0; i < n; i++) head_row(q, op, first + i, q->logits + (size_t)i * (size_t)op->n_vocab);
    }
}

static void ref_kv_copy(sill__queue *q, sill__kv *kv, int32_t from, int32_t to, int32_t n_positions) {
    const sill__kv_shape *s = &kv->shape;
    if (!require(q, from >= 0 && from < s->n_blocks && to >= 0 && to < s->n_blocks && n_positions <= SILL__KV_BLOCK,
                 "KV block to copy"))
        return;
    size_t bytes = (size_t)n_positions * kv_row_bytes(s);
    for (int32_t layer = 0; layer < s->n_layers; layer++)
        for (int which = 0; which < 2; which++)
            for (int32_t head = 0; head < s->n_kv_heads; head++)
                memmove(kv_at(kv, to, layer, which, head, 0), kv_at(kv, from, layer, which, head, 0), bytes);
}

static const sill__backend ref_backend = {
    .name = "ref",
    .open = ref_open,
    .close = ref_close,
    .describe = ref_describe,
    .n_threads = ref_n_threads,
    .supports = ref_supports,
    .weight_bytes = ref_weight_bytes,
    .weight_import = ref_weight_import,
    .weight_free = ref_weight_free,
    .buf_create = ref_buf_create,
    .buf_free = ref_buf_free,
    .buf_write = ref_buf_write,
    .buf_read = ref_buf_read,
    .buf_map = ref_buf_map,
    .kv_bytes = ref_kv_bytes,
    .kv_create = ref_kv_create,
    .kv_free = ref_kv_free,
    .queue_bytes = ref_queue_bytes,
    .queue_create = ref_queue_create,
    .queue_free = ref_queue_free,
    .begin = ref_begin,
    .submit = ref_submit,
    .wait = ref_wait,
    .embed = ref_embed,
    .linear = ref_linear,
    .qkv = ref_qkv,
    .attention = ref_attention,
    .tap = ref_tap,
    .head = ref_head,
    .kv_copy = ref_kv_copy,
};

const sill__backend *sill__backend_ref(void) { return &ref_backend; }
