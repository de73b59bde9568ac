/* rows.c - operations on single rows: embeddings looked up, norms. */
#include "backend/check/internal.h"

#include <stdio.h>

/* ------------------------------------------------------------- embeddings */

enum { TYPE, WIDTH, POSITIONS };

static const sill__type types[] = {SILL__TYPE_F32,  SILL__TYPE_F16,  SILL__TYPE_BF16, SILL__TYPE_Q8_0, SILL__TYPE_Q4_0, SILL__TYPE_Q4_1,
                                   SILL__TYPE_Q5_0, SILL__TYPE_Q5_1, SILL__TYPE_Q4_K, SILL__TYPE_Q5_K, SILL__TYPE_Q6_K};
#define VOCAB 50257
#define N_POSITIONS 1031
#define N_TOKENS 65

typedef struct tables { sill__tensor *wte, *wpe; check_rows rows; } tables;

static bool pick_embed(check_case *c, sill__check_level level, int i) {
    static const int32_t widths[] = {1, 33, 768};
    int n = level == SILL__CHECK_FULL ? 3 : 1;
    if (i >= n * (int)SILL_ARRAY_LEN(types)) return false;
    check_form f = {.type = types[i / n]};
    c->v[TYPE] = types[i / n];
    c->v[WIDTH] = sill__chk_cols(&f, level == SILL__CHECK_FULL ? widths[i % n] : 33);
    c->v[POSITIONS] = i % 2;
    c->skip = c->use && !(c->use->embed_types >> c->v[TYPE] & 1);
    snprintf(c->name, sizeof c->name, "%s, %d wide%s", sill__type_get(f.type)->name, (int)c->v[WIDTH],
             c->v[POSITIONS] ? ", with positions" : "");
    return true;
}

static bool make_embed(check_case *c) {
    tables *t = sill__arena_alloc(&c->arena, sizeof *t);
    check_rng r = {0xe3bedu + (uint64_t)c->v[TYPE]};
    uint64_t rows = c->v[WIDTH] > 256 ? 1009 : VOCAB;
    if (!t) return false;
    c->data = t;
    t->wte = sill__chk_tensor(c, &r, (sill__type)c->v[TYPE], rows, (uint64_t)c->v[WIDTH], 1);
    t->wpe = sill__chk_tensor(c, &r, SILL__TYPE_F32, N_POSITIONS, (uint64_t)c->v[WIDTH], 1);
    if (!t->wte || !t->wpe) return false;
    sill__chk_rows_init(&t->rows, N_TOKENS, 1);
    for (int i = 0; i < N_TOKENS; i++) {
        t->rows.tokens[i] = (int32_t)(sill__chk_next(&r) >> 33) % (int32_t)rows;
        t->rows.positions[i] = i;
    }
    t->rows.tokens[0] = (int32_t)rows - 1;
    t->rows.tokens[1] = 0;
    c->types[0] = (sill__type)c->v[TYPE];
    c->types[1] = SILL__TYPE_F32;
    c->need = (sill__need){.types = c->types + 1, .n_types = 1, .embed_types = c->types, .n_embed_types = 2, .n_heads = 1, .n_kv_heads = 1, .head_dim = 64};
    c->n_variants = 1;
    sill__chk_add_out(c, "embedding", (size_t)N_TOKENS * (size_t)c->v[WIDTH], 4 * 0x1p-24, 0);
    return true;
}

static void run_embed(const check_case *c, check_bench *b, int variant, float *const *outs) {
    const tables *t = c->data;
    sill__weight_src wte = {.parts = {t->wte}, .n_parts = 1, .rows = t->wte->dims[0], .cols = t->wte->dims[1],
                            .role = SILL__ROLE_EMBED, .name = "check"};
    sill__weight_src wpe = {.parts = {t->wpe}, .n_parts = 1, .rows = t->wpe->dims[0], .cols = t->wpe->dims[1],
                            .role = SILL__ROLE_EMBED, .name = "check"};
    (void)variant;
    sill__weight *table = sill__chk_import(b, &wte), *positions = c->v[POSITIONS] ? sill__chk_import(b, &wpe) : NULL;
    sill__ref out = sill__chk_room(b, c->outs[0].n);
    sill__chk_queue(b, N_TOKENS, c->v[WIDTH], 1, SILL__PATH_BATCH);
    sill__chk_begin(b, &t->rows.batch);
    if (sill__chk_ok(b)) b->ops->embed(b->queue, &(sill__op_embed){.wte = table, .wpe = positions, .out = out, .width = c->v[WIDTH]});
    sill__chk_end(b);
    sill__chk_read(b, out, outs[0], c->outs[0].n);
}

const check_kind sill__check_embed = {"embedding", pick_embed, make_embed, run_embed, NULL, NULL};

/* ------------------------------------------------------------------ norms */

enum { KIND, GATHERED = 2 };
#define N_ROWS 19

typedef struct normed { float *x, *w, *b; check_rows rows; } normed;

static bool pick_norms(check_case *c, sill__check_level level, int i) {
    static const int32_t widths[] = {1, 2, 31, 33, 768, 1031, 4096, 5120};
    static const char *const names[] = {"none", "layer", "rms"};
    int n = level == SILL__CHECK_FULL ? (int)SILL_ARRAY_LEN(widths) : 2;
    if (i >= 3 * n) return false;
    c->v[KIND] = i / n;
    c->skip = c->use && c->v[KIND] != (int32_t)c->use->norm;
    c->v[WIDTH] = widths[level == SILL__CHECK_FULL ? i % n : 3 + i % n];
    c->v[GATHERED] = i % 2;
    snprintf(c->name, sizeof c->name, "%s, %d wide%s", names[c->v[KIND]], (int)c->v[WIDTH], c->v[GATHERED] ? ", chosen rows" : "");
    return true;
}

/* Rows around 0, far from 0, all alike, very small, very large. */
static bool make_norms(check_case *c) {
    static const char *const lines[] = {"rows copied", "layer norm", "rms norm"};
    normed *d = sill__arena_alloc(&c->arena, sizeof *d);
    check_rng r = {0x2047u + (uint64_t)c->v[WIDTH]};
    size_t width = (size_t)c->v[WIDTH];
    if (!d) return false;
    c->data = d;
    d->x = sill__chk_floats(c, &r, N_ROWS * width, 2);
    d->w = sill__chk_floats(c, &r, width, 0.5f);
    d->b = sill__chk_floats(c, &r, width, 0.5f);
    if (!d->x || !d->w || !d->b) return false;
    for (size_t k = 0; k < width; k++) {
        d->w[k] += 1;
        d->x[3 * width + k] += 50;
        d->x[4 * width + k] = 1.5f;
        d->x[5 * width + k] *= 1e-4f;
        d->x[6 * width + k] *= 1e6f;
        d->x[7 * width + k] = 0;
    }
    sill__chk_rows_init(&d->rows, N_ROWS, c->v[GATHERED] ? 2 : 1);
    c->types[0] = SILL__TYPE_F32;
    c->need = (sill__need){.types = c->types, .n_types = 1, .norm = (sill__norm_kind)c->v[KIND], .n_heads = 1, .n_kv_heads = 1, .head_dim = 64};
    c->n_variants = 1;
    /* A row 50 from 0 with a spread of 1 loses 50 units of its last place. */
    double bound = c->v[KIND] == SILL__NORM_NONE ? 0 : c->v[KIND] == SILL__NORM_RMS ? 60 * 0x1p-24 : 1000 * 0x1p-24;
    sill__chk_add_out(c, lines[c->v[KIND]], (size_t)d->rows.batch.n_out * width, bound, c->v[KIND] == SILL__NORM_NONE ? 1 : 0);
    return true;
}

static void run_norms(const check_case *c, check_bench *b, int variant, float *const *outs) {
    const normed *d = c->data;
    sill__norm norm = {.kind = (sill__norm_kind)c->v[KIND], .eps = 1e-5f};
    (void)variant;
    if (norm.kind != SILL__NORM_NONE) norm.weight = sill__chk_put(b, d->w, (size_t)c->v[WIDTH]);
    if (norm.kind == SILL__NORM_LAYER) norm.bias = sill__chk_put(b, d->b, (size_t)c->v[WIDTH]);
    sill__ref in = sill__chk_put(b, d->x, N_ROWS * (size_t)c->v[WIDTH]), out = sill__chk_room(b, c->outs[0].n);
    sill__chk_queue(b, N_ROWS, c->v[WIDTH], 1, SILL__PATH_BATCH);
    sill__chk_begin(b, &d->rows.batch);
    if (sill__chk_ok(b))
        b->ops->tap(b->queue, &(sill__op_tap){in, out, norm, c->v[WIDTH], c->v[GATHERED] ? SILL__ROWS_OUT : SILL__ROWS_ALL});
    sill__chk_end(b);
    sill__chk_read(b, out, outs[0], c->outs[0].n);
}

const check_kind sill__check_norms = {"norm", pick_norms, make_norms, run_norms, NULL, NULL};
