/*
 * llama.c - the Llama family (SmolLM2, TinyLlama, Llama 2 and 3): how its tensors are named in safetensors
 * and GGUF, and its forward pass. Rotary positions, RMSNorm, grouped-query attention, SwiGLU.
 */
#include "model/family.h"

typedef struct names {
    const char *layer, *wte, *norm_f, *head;
    const char *norm1, *q, *k, *v, *attn_out, *norm2, *gate, *up, *down;
} names;

static const names hub_names = {
    "layers", "embed_tokens", "norm", "lm_head",
    "input_layernorm", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
    "post_attention_layernorm", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
};
static const names gguf_names = {
    "blk", "token_embd", "output_norm", "output",
    "attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm", "ffn_gate", "ffn_up", "ffn_down",
};

static void add_norm(sill__slots *s, sill__norm *norm, uint64_t n, const char *layer, const char *name) {
    sill__part weight = sill__part_of(n, "%s%s.weight", layer, name);
    norm->kind = SILL__NORM_RMS;
    norm->eps = s->model->config.norm_eps;
    sill__slots_vector(s, &norm->weight, &weight, 1);
}

/* Up to three matrices one above the other, with their biases where the configuration has them. */
static void add_linear(sill__slots *s, sill__weight **w, sill__ref *b, const sill__part *stems, int n, uint64_t cols,
                       bool biased) {
    sill__part parts[3] = {{.rows = 0}};
    for (int i = 0; i < n; i++) parts[i] = sill__part_of(stems[i].rows, "%.80s.weight", stems[i].name);
    sill__slots_weight(s, w, SILL__ROLE_BODY, parts, n, cols, n == 2 ? SILL__SLOT_ONE_TYPE : 0);
    for (int i = 0; i < n; i++) parts[i] = sill__part_of(stems[i].rows, "%.80s.bias", stems[i].name);
    if (biased) sill__slots_vector(s, b, parts, n);
}

static void add_layer(sill__slots *s, sill__layer *l, const names *t, const char *layer) {
    const sill__config *c = &s->model->config;
    uint64_t n = (uint64_t)c->n_embd, ff = (uint64_t)c->n_ff;
    uint64_t q = (uint64_t)c->n_heads * (uint64_t)c->head_dim, kv = (uint64_t)c->n_kv_heads * (uint64_t)c->head_dim;
    /* llama.cpp's conversion keeps a bias of the output projection only where the model has one. */
    sill__part out_bias = sill__part_of(n, "%s%s.bias", layer, t->attn_out);
    bool gguf = sill__file_get_kind(s->model->file) == SILL__FILE_GGUF;
    bool out_biased = gguf ? sill__slots_has(s, &out_bias) : c->attn_bias;

    sill__part qkv[3] = {sill__part_of(q, "%s%s", layer, t->q), sill__part_of(kv, "%s%s", layer, t->k),
                         sill__part_of(kv, "%s%s", layer, t->v)};
    sill__part attn_out = sill__part_of(n, "%s%s", layer, t->attn_out);
    sill__part mlp_in[2] = {sill__part_of(ff, "%s%s", layer, t->gate), sill__part_of(ff, "%s%s", layer, t->up)};
    sill__part mlp_out = sill__part_of(n, "%s%s", layer, t->down);
    add_norm(s, &l->norm1, n, layer, t->norm1);
    add_linear(s, &l->qkv, &l->qkv_b, qkv, 3, n, c->attn_bias);
    add_linear(s, &l->attn_out, &l->attn_out_b, &attn_out, 1, q, out_biased);
    add_norm(s, &l->norm2, n, layer, t->norm2);
    add_linear(s, &l->mlp_in, &l->mlp_in_b, mlp_in, 2, n, c->mlp_bias);
    add_linear(s, &l->mlp_out, &l->mlp_out_b, &mlp_out, 1, ff, c->mlp_bias);
}

void sill__llama_slots(sill__slots *s) {
    sill_model *m = s->model;
    const sill__config *c = &m->config;
    uint64_t n = (uint64_t)c->n_embd, vocab = (uint64_t)c->n_vocab;
    const names *t = sill__file_get_kind(m->file) == SILL__FILE_GGUF ? &gguf_names : &hub_names;
    const char *prefix = sill__file_find(m->file, "model.norm.weight") ? "model." : "";

    sill__part wte = sill__part_of(vocab, "%s%s.weight", prefix, t->wte);
    sill__part head = sill__part_of(vocab, "%s.weight", t->head), score = sill__part_of((uint64_t)c->n_labels, "score.weight");
    if (c->tied && !sill__slots_has(s, &wte)) wte = head; /* saved once, under the head's name */
    sill__slots_weight(s, &m->wte, SILL__ROLE_EMBED, &wte, 1, n, SILL__SLOT_PADDED);
    for (int32_t i = 0; i < c->n_layers; i++) {
        sill__part layer = sill__part_of(0, "%s%s.%d.", prefix, t->layer, i);
        add_layer(s, &m->layers[i], t, layer.name);
    }
    add_norm(s, &m->norm_f, n, prefix, t->norm_f);
    /* Divisors of the rotary frequencies: how GGUF keeps the scaling of Llama 3. */
    sill__part divisors = sill__part_of((uint64_t)c->rope_dims / 2, "rope_freqs.weight");
    sill__slots_vector(s, &m->inv_freq, &divisors, sill__slots_has(s, &divisors) ? 1 : 0);
    if (c->n_labels > 0) {
        sill__slots_weight(s, &m->score, SILL__ROLE_BODY, &score, 1, n, 0);
    } else {
        /* A head of its own is used where there is one, also when the configuration calls it tied. */
        bool own = !c->tied || (sill__slots_has(s, &head) && !sill__slots_same(s, &head, &wte));
        sill__slots_weight(s, &m->head, SILL__ROLE_HEAD, own ? &head : &wte, 1, n, SILL__SLOT_PADDED);
    }
}

void sill__llama_forward(const sill_model *m, sill__queue *queue, const sill__work *work) {
    const sill__config *c = &m->config;
    const sill__backend *ops = m->ops;
    const sill__norm no_norm = {.kind = SILL__NORM_NONE};
    const sill__rope rope = {.kind = c->rope, .dims = c->rope_dims, .inv_freq = m->inv_freq, .scale = 1};

    ops->embed(queue, &(sill__op_embed){.wte = m->wte, .out = work->x, .width = c->n_embd});
    for (int32_t i = 0; i < c->n_layers; i++) {
        const sill__layer *l = &m->layers[i];
        ops->qkv(queue, &(sill__op_qkv){
            .in = work->x, .q = work->q, .norm = l->norm1, .w = l->qkv, .bias = l->qkv_b, .rope = rope,
            .kv = work->kv, .layer = i,
            .n_heads = c->n_heads, .n_kv_heads = c->n_kv_heads, .head_dim = c->head_dim});
        ops->attention(queue, &(sill__op_attention){
            .q = work->q, .out = work->attn, .kv = work->kv, .layer = i,
            .n_heads = c->n_heads, .n_kv_heads = c->n_kv_heads, .head_dim = c->head_dim, .scale = c->attn_scale});
        ops->linear(queue, &(sill__op_linear){
            .in = work->attn, .out = work->x, .norm = no_norm, .w = l->attn_out, .bias = l->attn_out_b,
            .residual = true});
        ops->linear(queue, &(sill__op_linear){
            .in = work->x, .out = work->ff, .norm = l->norm2, .w = l->mlp_in, .bias = l->mlp_in_b,
            .act = SILL__ACT_SWIGLU});
        ops->linear(queue, &(sill__op_linear){
            .in = work->ff, .out = work->x, .norm = no_norm, .w = l->mlp_out, .bias = l->mlp_out_b,
            .residual = true});
    }
}
