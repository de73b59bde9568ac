/*
 * gpt2.c - the GPT-2 family: how its tensors are named in safetensors and GGUF, and its forward pass.
 * Learned positions, LayerNorm before attention and feed-forward, biases everywhere.
 */
#include "model/family.h"

/* Names of one storage: of the whole, and of layer parts behind "h.N." or "blk.N.". */
typedef struct names {
    const char *prefix, *layer;
    const char *wte, *wpe, *norm_f, *head;
    const char *norm1, *qkv, *attn_out, *norm2, *mlp_in, *mlp_out;
    int transposed; /* safetensors keep Conv1D's (inputs, outputs) */
} names;

static const names hub_names = {
    "", "h", "wte", "wpe", "ln_f", "lm_head",
    "ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj", SILL__SLOT_TRANSPOSED,
};
static const names gguf_names = {
    "", "blk", "token_embd", "position_embd", "output_norm", "output",
    "attn_norm", "attn_qkv", "attn_output", "ffn_norm", "ffn_up", "ffn_down", 0,
};

static void add_norm(sill__slots *s, sill__norm *norm, uint64_t n, const char *name) {
    sill__part weight = sill__part_of(n, "%s.weight", name), bias = sill__part_of(n, "%s.bias", name);
    norm->kind = SILL__NORM_LAYER;
    norm->eps = s->model->config.norm_eps;
    sill__slots_vector(s, &norm->weight, &weight, 1);
    sill__slots_vector(s, &norm->bias, &bias, 1);
}

static void add_linear(sill__slots *s, sill__weight **w, sill__ref *b, uint64_t rows, uint64_t cols, int flags,
                       const char *layer, const char *name) {
    sill__part weight = sill__part_of(rows, "%s.%s.weight", layer, name);
    sill__part bias = sill__part_of(rows, "%s.%s.bias", layer, name);
    sill__slots_weight(s, w, SILL__ROLE_BODY, &weight, 1, cols, flags);
    sill__slots_vector(s, b, &bias, 1);
}

void sill__gpt2_slots(sill__slots *s) {
    sill_model *m = s->model;
    const sill__config *c = &m->config;
    uint64_t n = (uint64_t)c->n_embd, vocab = (uint64_t)c->n_vocab, ff = (uint64_t)c->n_ff;
    names t = sill__file_get_kind(m->file) == SILL__FILE_GGUF ? gguf_names : hub_names;
    if (sill__file_find(m->file, "transformer.h.0.ln_1.weight")) t.prefix = "transformer.";
    if (sill__file_is_linear(m->file)) t.transposed = 0;

    sill__part wte = sill__part_of(vocab, "%s%s.weight", t.prefix, t.wte);
    sill__part wpe = sill__part_of((uint64_t)c->n_ctx, "%s%s.weight", t.prefix, t.wpe);
    sill__part head = sill__part_of(vocab, "%s.weight", t.head), score = sill__part_of((uint64_t)c->n_labels, "score.weight");
    if (c->tied && !sill__slots_has(s, &wte)) wte = head; /* saved once, under the head's name */
    sill__slots_weight(s, &m->wte, SILL__ROLE_EMBED, &wte, 1, n, SILL__SLOT_PADDED);
    sill__slots_weight(s, &m->wpe, SILL__ROLE_EMBED, &wpe, 1, n, SILL__SLOT_PADDED);
    for (int32_t i = 0; i < c->n_layers; i++) {
        sill__layer *l = &m->layers[i];
        sill__part layer = sill__part_of(0, "%s%s.%d", t.prefix, t.layer, i);
        sill__part norm1 = sill__part_of(0, "%s.%s", layer.name, t.norm1);
        sill__part norm2 = sill__part_of(0, "%s.%s", layer.name, t.norm2);
        add_norm(s, &l->norm1, n, norm1.name);
        add_linear(s, &l->qkv, &l->qkv_b, 3 * n, n, t.transposed, layer.name, t.qkv);
        add_linear(s, &l->attn_out, &l->attn_out_b, n, n, t.transposed, layer.name, t.attn_out);
        add_norm(s, &l->norm2, n, norm2.name);
        add_linear(s, &l->mlp_in, &l->mlp_in_b, ff, n, t.transposed, layer.name, t.mlp_in);
        add_linear(s, &l->mlp_out, &l->mlp_out_b, n, ff, t.transposed, layer.name, t.mlp_out);
    }
    sill__part norm_f = sill__part_of(0, "%s%s", t.prefix, t.norm_f);
    add_norm(s, &m->norm_f, n, norm_f.name);
    if (c->n_labels > 0) {
        sill__slots_weight(s, &m->score, SILL__ROLE_BODY, &score, 1, n, 0);
    } else {
        /* A head of its own is used where there is one, also when the configuration calls it tied. */
        bool own = !c->tied || (sill__slots_has(s, &head) && !sill__slots_same(s, &head, &wte));
        sill__slots_weight(s, &m->head, SILL__ROLE_HEAD, own ? &head : &wte, 1, n, SILL__SLOT_PADDED);
    }
}

void sill__gpt2_forward(const sill_model *m, sill__queue *queue, const sill__work *work) {
    const sill__config *c = &m->config;
    const sill__backend *ops = m->ops;
    const sill__norm no_norm = {.kind = SILL__NORM_NONE};

    ops->embed(queue, &(sill__op_embed){.wte = m->wte, .wpe = m->wpe, .out = work->x, .width = c->n_embd});
    for (int32_t i = 0; i < c->n_layers; i++) {
        const sill__layer *l = &m->layers[i];
        ops->qkv(queue, &(sill__op_qkv){
            .in = work->x, .q = work->q, .norm = l->norm1, .w = l->qkv, .bias = l->qkv_b,
            .rope = {.kind = SILL__ROPE_NONE}, .kv = work->kv, .layer = i,
            .n_heads = c->n_heads, .n_kv_heads = c->n_kv_heads, .head_dim = c->head_dim});
        ops->attention(queue, &(sill__op_attention){
            .q = work->q, .out = work->attn, .kv = work->kv, .layer = i,
            .n_heads = c->n_heads, .n_kv_heads = c->n_kv_heads, .head_dim = c->head_dim,
            .scale = c->attn_scale_by_layer ? c->attn_scale / (float)(i + 1) : c->attn_scale});
        ops->linear(queue, &(sill__op_linear){
            .in = work->attn, .out = work->x, .norm = no_norm, .w = l->attn_out, .bias = l->attn_out_b,
            .residual = true});
        ops->linear(queue, &(sill__op_linear){
            .in = work->x, .out = work->ff, .norm = l->norm2, .w = l->mlp_in, .bias = l->mlp_in_b, .act = c->act});
        ops->linear(queue, &(sill__op_linear){
            .in = work->ff, .out = work->x, .norm = no_norm, .w = l->mlp_out, .bias = l->mlp_out_b,
            .residual = true});
    }
}
