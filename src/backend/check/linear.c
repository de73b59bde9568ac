/*
 * linear.c - matrix products: every form of weight over odd shapes, either orientation; and what is fused with a product:
 * norm, bias, activation, residual, gathered rows.
 */
#include "backend/check/internal.h"

#include <math.h>
#include <stdio.h>

#define MAX_ROWS 65
#define MAX_WORK 24000000 /* multiplications of a case: rows are left out above it */

typedef struct shape { int32_t rows, cols, n; } shape;

/* Sizes on both sides of tiles, and those that other programs went wrong with: 2^15 - 1, 2^15, and GPT-2's vocabulary. */
static const shape full[] = {{1, 1, 65},    {5, 3, 65},    {33, 47, 65},  {64, 64, 33},  {97, 1031, 33}, {3, 32767, 5},
                             {5, 32768, 5}, {7, 50257, 9}, {32767, 5, 5}, {32768, 3, 5}, {50257, 7, 9}};
static const shape quick[] = {{33, 47, 33}, {7, 50257, 3}, {50257, 7, 3}};
static const shape turned[] = {{5, 3, 65}, {33, 47, 65}, {97, 1031, 33}, {3, 32767, 5}, {7, 50257, 9}, {32768, 5, 5}, {50257, 7, 9}};
static const shape turned_quick[] = {{33, 47, 33}};

double sill__chk_product_bound(int32_t cols) {
    /* Sums of f32 in any order: a random walk of roundings, the greatest of many outputs. */
    return 0x1p-24 * (40 + 12 * sqrt((double)cols));
}

typedef struct product {
    const check_form *form;
    sill__tensor *w, *made; /* made: w as the block type that it becomes at load */
    float *x, *x_bf16;
    sill__weight_src src;
} product;

/* Activations of about 1, some of 6 and more: outliers of int8. */
static float *make_inputs(check_case *c, check_rng *r, size_t n) {
    float *x = sill__chk_floats(c, r, n, 1.73f);
    for (size_t i = 0; x && i < n; i += 97) x[i] *= 8;
    return x;
}

static bool make_product(check_case *c, check_rng *r, product *p, int32_t rows, int32_t cols, int32_t n, bool transposed) {
    const check_form *f = p->form;
    p->w = sill__chk_tensor(c, r, f->type, (uint64_t)(transposed ? cols : rows), (uint64_t)(transposed ? rows : cols), 1);
    p->x = make_inputs(c, r, (size_t)n * (size_t)cols);
    if (!p->w || !p->x) return false;
    p->src = sill__chk_source(f, p->w, SILL__ROLE_BODY);
    p->src.rows = (uint64_t)rows;
    p->src.cols = (uint64_t)cols;
    p->src.transposed = transposed;
    c->n_variants = sill__chk_second_variant(f) ? 2 : 1;
    c->types[0] = f->type;
    c->need = (sill__need){.types = c->types, .n_types = 1, .compute = f->compute, .n_heads = 1, .n_kv_heads = 1, .head_dim = 64};
    if (f->compute == SILL__COMPUTE_BF16) {
        p->x_bf16 = sill__arena_alloc(&c->arena, (size_t)n * (size_t)cols * sizeof *p->x_bf16);
        for (size_t i = 0; p->x_bf16 && i < (size_t)n * (size_t)cols; i++)
            p->x_bf16[i] = sill__bf16_to_f32(sill__f32_to_bf16(p->x[i]));
        return p->x_bf16 != NULL;
    }
    if (f->as == SILL__TYPE_F32) return true;
    float *row = sill__arena_alloc(&c->arena, (size_t)cols * sizeof *row);
    size_t row_bytes = sill__row_bytes(f->as, (uint64_t)cols), stored = sill__row_bytes(f->type, (uint64_t)cols);
    uint8_t *to = sill__arena_alloc(&c->arena, row_bytes * (size_t)rows);
    p->made = sill__arena_alloc(&c->arena, sizeof *p->made);
    if (!row || !to || !p->made) return false;
    for (int32_t i = 0; i < rows; i++) {
        sill__dequant(f->type, p->w->data + (size_t)i * stored, row, (size_t)cols);
        sill__quantize(f->as, row, to + (size_t)i * row_bytes, (size_t)cols);
    }
    *p->made = (sill__tensor){.name = "check", .type = f->as, .n_dims = 2, .dims = {(uint64_t)rows, (uint64_t)cols},
                              .data = to, .bytes = row_bytes * (size_t)rows};
    return true;
}

/* Variant 1: activations in f32 on weights in blocks, or rounded to bf16 on weights in bf16. */
static sill__weight *import(const product *p, check_bench *b, int variant) {
    sill__weight_src src = p->src;
    if (variant == 1 && src.compute == SILL__COMPUTE_BLOCK_I8) {
        src.compute = SILL__COMPUTE_F32;
        src.as = SILL__TYPE_F32;
        if (p->made) src.parts[0] = p->made;
    }
    return sill__chk_import(b, &src);
}

static const float *inputs(const product *p, int variant) { return variant == 1 && p->x_bf16 ? p->x_bf16 : p->x; }

/* -------------------------------------------------------- products alone */

enum { FORM, ROWS, COLS, N, TRANSPOSED, ALONE };
#define HIGH 2048 /* a GPU has other pipelines for an interactive row times so many rows; a model has mostly such */

/* Whether one interactive row is multiplied, too. The quick check does it where it says most for its pipelines: f32 of all
 * shapes, other types once, and int8 with rows that do not fit in a group's memory. */
static bool with_one(const check_case *c, const check_form *f) {
    return c->level == SILL__CHECK_FULL || f == sill__check_forms || c->v[TRANSPOSED] || c->v[ROWS] >= HIGH ||
           (f->compute == SILL__COMPUTE_INT8 && c->v[COLS] >= CHECK_LARGE);
}

static bool pick_linear(check_case *c, sill__check_level level, int i) {
    const shape *const lists[] = {level == SILL__CHECK_FULL ? full : quick, level == SILL__CHECK_FULL ? turned : turned_quick};
    const int sizes[] = {level == SILL__CHECK_FULL ? (int)SILL_ARRAY_LEN(full) : (int)SILL_ARRAY_LEN(quick),
                         level == SILL__CHECK_FULL ? (int)SILL_ARRAY_LEN(turned) : (int)SILL_ARRAY_LEN(turned_quick)};
    for (int form = 0; form < sill__check_n_forms; form++) {
        const check_form *f = &sill__check_forms[form];
        for (int t = 0; t < 2; t++) {
            if (t && (!check_plain(f) || f->as != SILL__TYPE_F32)) break; /* GPT-2's orientation: plain types alone */
            if (i >= sizes[t]) {
                i -= sizes[t];
                continue;
            }
            const shape *s = &lists[t][i];
            int32_t cols = sill__chk_cols(f, s->cols);
            int64_t most = MAX_WORK / ((int64_t)s->rows * cols) / (level == SILL__CHECK_FULL ? 1 : 4);
            c->v[FORM] = form, c->v[ROWS] = s->rows, c->v[COLS] = cols, c->v[TRANSPOSED] = t;
            c->v[N] = (int32_t)SILL_MAX(2, SILL_MIN(most, s->n));
            c->large = s->rows >= CHECK_LARGE || cols >= CHECK_LARGE;
            c->v[ALONE] = with_one(c, f);
            c->skip = !sill__chk_uses(c, f);
            snprintf(c->name, sizeof c->name, "%s computed in %s, %d x %d%s, %d rows", sill__type_get(f->type)->name, f->name,
                     (int)s->rows, (int)cols, t ? " transposed" : "", (int)c->v[N]);
            return true;
        }
    }
    return false;
}

static bool make_linear(check_case *c) {
    product *p = sill__arena_alloc(&c->arena, sizeof *p);
    check_rng r = {0x5117u + (uint64_t)c->v[FORM] * 977 + (uint64_t)c->v[ROWS] * 31 + (uint64_t)c->v[COLS]};
    char line[40];
    if (!p) return false;
    c->data = p;
    p->form = &sill__check_forms[c->v[FORM]];
    snprintf(line, sizeof line, "product, %s", p->form->name);
    double bound = sill__chk_product_bound(c->v[COLS]);
    sill__chk_add_out(c, line, (size_t)c->v[N] * (size_t)c->v[ROWS], bound, 0);
    if (c->v[ALONE]) sill__chk_add_out(c, "product, one interactive row", (size_t)c->v[ROWS], bound * 2, 0.5 * sqrt((double)c->v[COLS]));
    return make_product(c, &r, p, c->v[ROWS], c->v[COLS], c->v[N], c->v[TRANSPOSED]);
}

/* Rows [first, first + n) of the inputs alone. */
static void multiply(const check_case *c, check_bench *b, const sill__weight *w, sill__ref in, sill__ref out, const float *x,
                     int32_t first, int32_t n, float *to) {
    check_rows rows;
    sill__chk_rows_init(&rows, n, 1);
    sill__chk_write(b, in, x + (size_t)first * (size_t)c->v[COLS], (size_t)n * (size_t)c->v[COLS]);
    sill__chk_begin(b, &rows.batch);
    if (sill__chk_ok(b)) b->ops->linear(b->queue, &(sill__op_linear){.in = in, .out = out, .w = w});
    sill__chk_end(b);
    sill__chk_read(b, out, to, (size_t)n * (size_t)c->v[ROWS]);
}

static void run_linear(const check_case *c, check_bench *b, int variant, float *const *outs) {
    const product *p = c->data;
    sill__weight *w = import(p, b, variant);
    sill__ref in = sill__chk_room(b, (size_t)c->v[N] * (size_t)c->v[COLS]), out = sill__chk_room(b, c->outs[0].n);
    sill__chk_queue(b, c->v[N], SILL_MAX(c->v[ROWS], c->v[COLS]), 1, SILL__PATH_BATCH);
    multiply(c, b, w, in, out, inputs(p, variant), 0, c->v[N], outs[0]);
    if (!c->v[ALONE]) return;
    sill__chk_queue(b, 1, SILL_MAX(c->v[ROWS], c->v[COLS]), 1, SILL__PATH_LATENCY);
    multiply(c, b, w, in, out, inputs(p, variant), 0, 1, outs[1]);
}

/* The same rows a few at a time: the kernels that a few rows take give the same bits as those for many. The quick check takes
 * f32 through all, other types through those of one row. */
static void bits_linear(const check_case *c, check_bench *b, float *const *outs) {
    static const int32_t counts[] = {1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64};
    const product *p = c->data;
    const size_t width = (size_t)c->v[ROWS];
    float *some = sill__alloc(c->outs[0].n * sizeof *some);
    const sill__weight *w = b->weights[0]; /* as run_linear left them */
    const sill__ref in = {b->bufs[0], 0}, out = {b->bufs[1], 0};
    sill__chk_queue(b, c->v[N], SILL_MAX(c->v[ROWS], c->v[COLS]), 1, SILL__PATH_BATCH);
    if (!some) b->status = sill__fail(&b->err, SILL_ENOMEM, "no memory for %zu outputs", c->outs[0].n);
    for (size_t i = 0; i < SILL_ARRAY_LEN(counts) && sill__chk_ok(b); i++) {
        int32_t n = counts[i], first = c->v[N] - n;
        bool large = (int64_t)c->v[ROWS] * c->v[COLS] > 65536;
        if (n >= c->v[N]) break;
        if (c->level == SILL__CHECK_QUICK && c->v[FORM] && n != 1) break;
        if (large && n != 1 && n != 3 && n != 8 && n != 17) continue;
        if (i % 2 == 0) first /= 2;
        multiply(c, b, w, in, out, p->x, first, n, some);
        if (sill__chk_ok(b) && memcmp(some, outs[0] + (size_t)first * width, (size_t)n * width * sizeof *some)) {
            snprintf(b->differs, sizeof b->differs, "%d rows alone have other bits than among %d", (int)n, (int)c->v[N]);
            break;
        }
    }
    sill__free(some);
}

const check_kind sill__check_linear = {"product", pick_linear, make_linear, run_linear, bits_linear, "same bits, product"};

/* ------------------------------------------------- what is fused with them */

typedef struct extra { sill__norm_kind norm; sill__act act; bool bias, residual, gathered; float size; } extra;

static const extra extras[] = {
    {SILL__NORM_LAYER, SILL__ACT_GELU_TANH, true, false, false, 1},
    {SILL__NORM_RMS, SILL__ACT_SWIGLU, false, false, false, 1},
    {SILL__NORM_NONE, SILL__ACT_NONE, true, true, false, 1},
    {SILL__NORM_LAYER, SILL__ACT_GELU_ERF, true, false, true, 1},
    {SILL__NORM_RMS, SILL__ACT_SWIGLU, true, true, true, 1},
    {SILL__NORM_NONE, SILL__ACT_RELU, true, false, false, 1},
    {SILL__NORM_NONE, SILL__ACT_SILU, false, true, false, 1},
    {SILL__NORM_RMS, SILL__ACT_TANH, true, false, false, 1},
    /* as large as exponentials overflow */
    {SILL__NORM_NONE, SILL__ACT_GELU_TANH, false, false, false, 40},
    {SILL__NORM_NONE, SILL__ACT_GELU_ERF, false, false, false, 40},
    {SILL__NORM_NONE, SILL__ACT_SILU, true, false, false, 40},
    {SILL__NORM_NONE, SILL__ACT_SWIGLU, false, false, false, 40},
    {SILL__NORM_NONE, SILL__ACT_TANH, false, false, false, 40},
};
/* Each activation once, and once as large as its exponential overflows. */
static const int quick_extras[] = {0, 2, 4, 5, 8, 9, 10, 11, 12};
static const char *const extra_forms[] = {"f32", "f16", "bf16", "int8", "q4_1", "q8 at load"};

typedef struct fused { product p; float *norm_w, *norm_b, *bias, *out; } fused;

static const check_form *form_of(const char *name) {
    int i = 0;
    while (strcmp(sill__check_forms[i].name, name)) i++;
    return &sill__check_forms[i];
}

static bool pick_extras(check_case *c, sill__check_level level, int i) {
    static const char *const acts[] = {"no activation", "gelu_tanh", "gelu", "relu", "silu", "tanh", "swiglu"};
    static const char *const norms[] = {"", "layer norm, ", "rms norm, "};
    int n_forms = level == SILL__CHECK_FULL ? (int)SILL_ARRAY_LEN(extra_forms) : 1, n = (int)SILL_ARRAY_LEN(extras);
    if (i >= (level == SILL__CHECK_FULL ? n * n_forms : (int)SILL_ARRAY_LEN(quick_extras))) return false;
    if (level == SILL__CHECK_QUICK) i = quick_extras[i];
    const extra *e = &extras[i % n];
    const check_form *f = form_of(extra_forms[i / n]);
    if (c->use) { /* in the form that the model has, and with what it has */
        for (size_t k = SILL_ARRAY_LEN(extra_forms); k-- > 0;)
            if (sill__chk_uses(c, form_of(extra_forms[k]))) f = form_of(extra_forms[k]);
        c->skip = (e->act != SILL__ACT_NONE && e->act != c->use->act) || (e->norm != SILL__NORM_NONE && e->norm != c->use->norm);
    }
    c->spec = e;
    c->v[FORM] = (int32_t)(f - sill__check_forms);
    c->v[ROWS] = 70 + i % 3 * 2;
    c->v[COLS] = sill__chk_cols(f, 67 + i % 5);
    c->v[N] = 17 + i % 4;
    snprintf(c->name, sizeof c->name, "%s: %s%s%s%s%s", f->name, norms[e->norm], acts[e->act], e->bias ? ", bias" : "",
             e->residual ? ", residual" : "", e->gathered ? ", chosen rows" : "");
    return true;
}

static int32_t width_of(const check_case *c) {
    return ((const extra *)c->spec)->act == SILL__ACT_SWIGLU ? c->v[ROWS] / 2 : c->v[ROWS];
}

static bool make_extras(check_case *c) {
    const extra *e = c->spec;
    fused *d = sill__arena_alloc(&c->arena, sizeof *d);
    check_rng r = {0xac7u + (uint64_t)c->v[FORM] * 131 + (uint64_t)(e - extras)};
    if (!d) return false;
    c->data = d;
    d->p.form = &sill__check_forms[c->v[FORM]];
    size_t rows = (size_t)c->v[ROWS], cols = (size_t)c->v[COLS];
    size_t out = (size_t)width_of(c) * (size_t)(e->gathered ? c->v[N] / 2 : c->v[N]);
    if (!make_product(c, &r, &d->p, c->v[ROWS], c->v[COLS], c->v[N], false)) return false;
    d->norm_w = sill__chk_floats(c, &r, cols, 0.4f);
    d->norm_b = sill__chk_floats(c, &r, cols, 0.3f);
    d->bias = sill__chk_floats(c, &r, rows, 0.5f);
    d->out = sill__chk_floats(c, &r, out, 1);
    if (!d->norm_w || !d->norm_b || !d->bias || !d->out) return false;
    for (size_t i = 0; i < cols; i++) d->norm_w[i] += 1;
    for (size_t i = 0; i < (size_t)c->v[N] * cols; i++) {
        d->p.x[i] *= e->size / 4;
        if (d->p.x_bf16) d->p.x_bf16[i] = sill__bf16_to_f32(sill__f32_to_bf16(d->p.x[i]));
    }
    double bound = sill__chk_product_bound(c->v[COLS]) * 2 * e->size;
    /* Behind a norm a code may fall on either side, and activations are rounded to bf16 or not. */
    bool norm = e->norm != SILL__NORM_NONE;
    if (d->p.form->compute >= SILL__COMPUTE_BLOCK_I8 && norm) bound += 6.0 / 127 / sqrt((double)cols);
    if (d->p.form->compute == SILL__COMPUTE_BF16 && norm) bound += 0x1p-4;
    sill__chk_add_out(c, "norm, bias, activation, residual", out, bound, 0);
    c->need.norm = e->norm;
    c->need.act = e->act;
    return true;
}

static void run_extras(const check_case *c, check_bench *b, int variant, float *const *outs) {
    const extra *e = c->spec;
    const fused *d = c->data;
    sill__ref none = {0};
    check_rows rows;
    sill__weight *w = import(&d->p, b, variant);
    sill__ref in = sill__chk_put(b, inputs(&d->p, variant), (size_t)c->v[N] * (size_t)c->v[COLS]), out = sill__chk_put(b, d->out, c->outs[0].n);
    sill__norm norm = {.kind = e->norm, .eps = 1e-5f};
    if (e->norm != SILL__NORM_NONE) norm.weight = sill__chk_put(b, d->norm_w, (size_t)c->v[COLS]);
    if (e->norm == SILL__NORM_LAYER) norm.bias = sill__chk_put(b, d->norm_b, (size_t)c->v[COLS]);
    sill__ref bias = e->bias ? sill__chk_put(b, d->bias, (size_t)c->v[ROWS]) : none;
    sill__chk_queue(b, c->v[N], SILL_MAX(c->v[ROWS], c->v[COLS]), 1, SILL__PATH_BATCH);
    sill__chk_rows_init(&rows, c->v[N], e->gathered ? 2 : 1);
    sill__chk_begin(b, &rows.batch);
    if (sill__chk_ok(b))
        b->ops->linear(b->queue, &(sill__op_linear){.in = in, .out = out, .rows = e->gathered ? SILL__ROWS_OUT : SILL__ROWS_ALL,
                                                    .norm = norm, .w = w, .bias = bias, .act = e->act, .residual = e->residual});
    sill__chk_end(b);
    sill__chk_read(b, out, outs[0], c->outs[0].n);
}

const check_kind sill__check_extras = {"fused", pick_extras, make_extras, run_extras, NULL, NULL};
