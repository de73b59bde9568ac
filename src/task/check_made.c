/* check_made.c - models made in memory, with random weights: the GPT-2 and Llama families as GGUF. */
#include "task/check.h"

#include "backend/check/internal.h"

#include <math.h>
#include <stdio.h>

#define N_LAYERS 2
#define N_CTX 128
#define VOCAB 1009
#define MAX_TENSORS 64
#define ALIGNMENT 32

typedef struct entry { char name[48]; sill__tensor *t; } entry;
typedef struct maker {
    check_case memory; /* its arena holds the tensors */
    check_rng rng;
    entry list[MAX_TENSORS];
    int n;
    bool failed;
} maker;

/* ggml's numbers of the types; kinds of metadata. */
static uint32_t ggml_type(sill__type t) {
    switch (t) {
    case SILL__TYPE_F16: return 1;
    case SILL__TYPE_Q4_0: return 2;
    case SILL__TYPE_Q4_1: return 3;
    case SILL__TYPE_Q5_0: return 6;
    case SILL__TYPE_Q5_1: return 7;
    case SILL__TYPE_Q8_0: return 8;
    case SILL__TYPE_Q4_K: return 12;
    case SILL__TYPE_Q5_K: return 13;
    case SILL__TYPE_Q6_K: return 14;
    case SILL__TYPE_BF16: return 30;
    default: return 0; /* F32 */
    }
}

static void matrix(maker *m, const char *name, sill__type type, int32_t rows, int32_t cols) {
    if (m->n == MAX_TENSORS || m->failed) return;
    entry *e = &m->list[m->n++];
    snprintf(e->name, sizeof e->name, "%s", name);
    e->t = sill__chk_tensor(&m->memory, &m->rng, type, (uint64_t)rows, (uint64_t)cols, 1.7f / sqrtf((float)cols));
    m->failed = !e->t;
}

/* Around CENTRE. */
static void vector(maker *m, const char *name, int32_t n, float centre) {
    matrix(m, name, SILL__TYPE_F32, 1, n);
    if (m->failed) return;
    sill__tensor *t = m->list[m->n - 1].t;
    float *x = (float *)(uintptr_t)t->data, size = sqrtf((float)n) / 1.7f;
    for (int32_t i = 0; i < n; i++) x[i] = centre + 0.3f * size * x[i];
    t->n_dims = 1;
    t->dims[0] = (uint64_t)n;
}

static void linear(maker *m, const char *layer, const char *name, sill__type type, int32_t rows, int32_t cols, bool bias) {
    char full[48];
    snprintf(full, sizeof full, "%s.%s.weight", layer, name);
    matrix(m, full, type, rows, cols);
    snprintf(full, sizeof full, "%s.%s.bias", layer, name);
    if (bias) vector(m, full, rows, 0);
}

static void norm(maker *m, const char *layer, const char *name, int32_t n, bool bias) {
    char full[48];
    snprintf(full, sizeof full, "%s%s%s.weight", layer, *layer ? "." : "", name);
    vector(m, full, n, 1);
    snprintf(full, sizeof full, "%s%s%s.bias", layer, *layer ? "." : "", name);
    if (bias) vector(m, full, n, 0);
}

/* Heads of 16, 24 or 32 values; a feed-forward of one and a half. */
typedef struct sizes { int32_t embd, heads, kv_heads, dim, ff; } sizes;
static sizes sizes_of(const sill__made_model *made) {
    bool gpt2 = made->family[0] == 'g', wide = made->n_embd % 256 == 0;
    int32_t dim = wide ? 32 : 16, heads = made->n_embd / dim;
    return (sizes){made->n_embd, heads, gpt2 ? heads : heads / (heads % 3 ? 4 : 3), dim, wide ? 512 : made->n_embd / 32 * 48 / 32 * 32 + 32};
}

static void make_tensors(maker *m, const sill__made_model *made) {
    sizes s = sizes_of(made);
    bool gpt2 = made->family[0] == 'g';
    matrix(m, "token_embd.weight", made->type, VOCAB, s.embd);
    if (gpt2) matrix(m, "position_embd.weight", SILL__TYPE_F32, N_CTX, s.embd);
    for (int i = 0; i < N_LAYERS; i++) {
        char layer[16];
        snprintf(layer, sizeof layer, "blk.%d", i);
        norm(m, layer, "attn_norm", s.embd, gpt2);
        if (gpt2) {
            linear(m, layer, "attn_qkv", made->type, 3 * s.embd, s.embd, true);
        } else {
            linear(m, layer, "attn_q", made->type, s.heads * s.dim, s.embd, false);
            linear(m, layer, "attn_k", made->type, s.kv_heads * s.dim, s.embd, false);
            linear(m, layer, "attn_v", made->type, s.kv_heads * s.dim, s.embd, false);
            linear(m, layer, "ffn_gate", made->type, s.ff, s.embd, false);
        }
        linear(m, layer, "attn_output", made->type, s.embd, s.heads * s.dim, gpt2);
        norm(m, layer, "ffn_norm", s.embd, gpt2);
        linear(m, layer, "ffn_up", made->type, s.ff, s.embd, gpt2);
        linear(m, layer, "ffn_down", made->type, s.embd, s.ff, gpt2);
    }
    norm(m, "", "output_norm", s.embd, gpt2);
    if (!gpt2) matrix(m, "output.weight", made->head_type, VOCAB, s.embd);
}

/* ------------------------------------------------------------------ writing */

static void put_u32(sill__str *s, uint32_t v) {
    uint8_t b[4] = {(uint8_t)v, (uint8_t)(v >> 8), (uint8_t)(v >> 16), (uint8_t)(v >> 24)};
    sill__str_put(s, b, 4);
}
static void put_u64(sill__str *s, uint64_t v) {
    put_u32(s, (uint32_t)v);
    put_u32(s, (uint32_t)(v >> 32));
}
static void put_name(sill__str *s, const char *z) {
    put_u64(s, strlen(z));
    sill__str_puts(s, z);
}

enum { KIND_U32 = 4, KIND_F32 = 6, KIND_STRING = 8 };

static void put_key(sill__str *s, const char *family, const char *key, uint32_t kind) {
    char full[96];
    snprintf(full, sizeof full, "%s.%s", family, key);
    put_name(s, full);
    put_u32(s, kind);
}

static int put_metadata(sill__str *s, const sill__made_model *made) {
    sizes z = sizes_of(made);
    const struct { const char *key; int32_t value; } numbers[] = {
        {"block_count", N_LAYERS}, {"context_length", N_CTX}, {"embedding_length", z.embd}, {"feed_forward_length", z.ff},
        {"attention.head_count", z.heads}, {"attention.head_count_kv", z.kv_heads}};
    float eps = 1e-5f;
    put_key(s, "general", "architecture", KIND_STRING);
    put_name(s, made->family);
    for (size_t i = 0; i < SILL_ARRAY_LEN(numbers); i++) {
        put_key(s, made->family, numbers[i].key, KIND_U32);
        put_u32(s, (uint32_t)numbers[i].value);
    }
    put_key(s, made->family, made->family[0] == 'g' ? "attention.layer_norm_epsilon" : "attention.layer_norm_rms_epsilon", KIND_F32);
    put_u32(s, sill__f32_bits(eps));
    return 2 + (int)SILL_ARRAY_LEN(numbers);
}

static void align(sill__str *s) {
    static const char zeros[ALIGNMENT];
    sill__str_put(s, zeros, (ALIGNMENT - s->n % ALIGNMENT) % ALIGNMENT);
}

static void put_file(sill__str *s, const maker *m, const sill__made_model *made) {
    sill__str meta;
    uint64_t at = 0;
    sill__str_init(&meta, 1 << 16);
    int n_meta = put_metadata(&meta, made);
    sill__str_puts(s, "GGUF");
    put_u32(s, 3);
    put_u64(s, (uint64_t)m->n);
    put_u64(s, (uint64_t)n_meta);
    sill__str_put(s, meta.p, meta.n);
    s->failed = s->failed || meta.failed;
    sill__str_free(&meta);
    for (int i = 0; i < m->n; i++) {
        const sill__tensor *t = m->list[i].t;
        put_name(s, m->list[i].name);
        put_u32(s, (uint32_t)t->n_dims);
        for (int k = t->n_dims - 1; k >= 0; k--) put_u64(s, t->dims[k]);
        put_u32(s, ggml_type(t->type));
        put_u64(s, at);
        at += (t->bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    }
    align(s);
    for (int i = 0; i < m->n; i++) {
        sill__str_put(s, m->list[i].t->data, m->list[i].t->bytes);
        align(s);
    }
}

sill_status sill__made_model_write(const sill__made_model *made, char **bytes, size_t *n, sill_error *err) {
    maker *m = sill__calloc(1, sizeof *m);
    sill__str s;
    *bytes = NULL;
    if (!m) return sill__fail(err, SILL_ENOMEM, "no memory for a model");
    m->rng.state = 0x6b0de1 + (uint64_t)made->type * 7 + (uint64_t)made->n_embd;
    sill__str_init(&s, (size_t)64 << 20);
    make_tensors(m, made);
    if (!m->failed) put_file(&s, m, made);
    bool failed = m->failed || s.failed;
    sill__arena_free(&m->memory.arena);
    sill__free(m);
    if (failed) {
        sill__str_free(&s);
        return sill__fail(err, SILL_ENOMEM, "no memory for a model");
    }
    *bytes = s.p;
    *n = s.n;
    return SILL_OK;
}
