/*
 * inspect.c - sill_inspect: what is in a model file, as JSON, from its headers alone. Also tells about files of
 * families that sill does not run.
 */
#include "model/family.h"

#define JSON_MAX ((size_t)256 << 20)
#define TEXT_MAX 2048 /* bytes of a metadata string that are shown */

static void put_text(sill__str *o, const char *s) { (void)sill__put_json_string(o, s, strlen(s)); }

static void put_number(sill__str *o, double v) {
    if (v != v || v > 1e300 || v < -1e300) sill__str_puts(o, "null");
    else sill__str_putf(o, "%.9g", v);
}

static void put_tensors(sill__str *o, const sill__file *file) {
    sill__str_puts(o, "\"tensors\": [");
    for (size_t i = 0; i < sill__file_n_tensors(file); i++) {
        const sill__tensor *t = sill__file_tensor(file, i);
        sill__str_puts(o, i ? ",\n  {\"name\": " : "\n  {\"name\": ");
        put_text(o, t->name);
        sill__str_putf(o, ", \"type\": \"%s\", \"shape\": [", sill__type_get(t->type)->name);
        for (int k = 0; k < t->n_dims; k++) sill__str_putf(o, "%s%llu", k ? ", " : "", (unsigned long long)t->dims[k]);
        sill__str_putf(o, "], \"bytes\": %zu}", t->bytes);
    }
    sill__str_puts(o, "]");
}

/* One scalar of GGUF metadata; arrays are told by their length. */
static void put_meta_value(sill__str *o, const sill__file *file, const sill__meta *m) {
    int64_t i;
    double d;
    bool b;
    const char *s;
    size_t n;
    if (m->kind == SILL__META_ARRAY) sill__str_putf(o, "{\"array\": %llu}", (unsigned long long)m->n);
    else if (m->kind == SILL__META_BOOL && sill__meta_bool(file, m->key, &b)) sill__str_puts(o, b ? "true" : "false");
    else if (m->kind == SILL__META_STRING && sill__meta_string(file, m->key, &s, &n)) (void)sill__put_json_string(o, s, SILL_MIN(n, (size_t)TEXT_MAX));
    else if ((m->kind == SILL__META_F32 || m->kind == SILL__META_F64) && sill__meta_float(file, m->key, &d)) put_number(o, d);
    else if (sill__meta_int(file, m->key, &i)) sill__str_putf(o, "%lld", (long long)i);
    else sill__str_puts(o, "null");
}

static void put_meta(sill__str *o, const sill__file *file) {
    sill__str_puts(o, "\"metadata\": {");
    for (size_t i = 0; i < sill__file_n_meta(file); i++) {
        const sill__meta *m = sill__file_meta(file, i);
        sill__str_puts(o, i ? ",\n  " : "\n  ");
        put_text(o, m->key);
        sill__str_puts(o, ": ");
        put_meta_value(o, file, m);
    }
    sill__str_puts(o, "},\n");
}

static void put_labels(sill__str *o, const sill__config *c) {
    static const char *const problems[] = {"single_label_classification", "multi_label_classification", "regression"};
    sill__str_puts(o, "\"labels\": [");
    for (int32_t i = 0; i < c->n_labels; i++) {
        if (i) sill__str_puts(o, ", ");
        put_text(o, c->labels[i]);
    }
    sill__str_putf(o, "], \"problem_type\": \"%s\",\n", problems[c->problem]);
}

static void put_config(sill__str *o, const sill__file *file, const sill_tokenizer *t) {
    static const char *const acts[] = {"none", "gelu_tanh", "gelu", "relu", "silu", "tanh", "swiglu"};
    sill__config c;
    sill_error why = {0};
    if (sill__config_read(file, &c, &why) != SILL_OK) {
        sill__str_puts(o, "\"family\": null, \"unsupported\": ");
        put_text(o, why.msg);
        sill__str_puts(o, ",\n");
        return;
    }
    if (t) sill__config_add_ends(&c, file, t); /* as a loaded model has them */
    sill__str_putf(o, "\"family\": \"%s\",\n", c.family == SILL__FAMILY_GPT2 ? "gpt2" : "llama");
    sill__str_putf(o,
                   "\"n_layers\": %d, \"n_heads\": %d, \"n_kv_heads\": %d, \"head_dim\": %d, \"n_embd\": %d, "
                   "\"n_ff\": %d, \"n_ctx\": %d, \"n_vocab\": %d, \"activation\": \"%s\", \"norm_eps\": ",
                   c.n_layers, c.n_heads, c.n_kv_heads, c.head_dim, c.n_embd, c.n_ff, c.n_ctx, c.n_vocab, acts[c.act]);
    put_number(o, c.norm_eps);
    sill__str_putf(o, ", \"tied\": %s,\n", c.tied ? "true" : "false");
    if (c.rope != SILL__ROPE_NONE) {
        sill__str_putf(o, "\"rope\": {\"layout\": \"%s\", \"dims\": %d, \"scaling\": \"%s\", \"base\": ",
                       c.rope == SILL__ROPE_HALF ? "half" : "adjacent", c.rope_dims,
                       c.rope_scaling == SILL__ROPE_SCALING_NONE ? "none"
                       : c.rope_scaling == SILL__ROPE_SCALING_LINEAR ? "linear" : "llama3");
        put_number(o, c.rope_base);
        sill__str_puts(o, "},\n");
    }
    sill__str_putf(o, "\"bos_id\": %d, \"pad_id\": %d, \"eos_ids\": [", c.bos_id, c.pad_id);
    for (int32_t i = 0; i < c.n_eos; i++) sill__str_putf(o, "%s%d", i ? ", " : "", c.eos_ids[i]);
    sill__str_puts(o, "],\n");
    if (c.n_labels) put_labels(o, &c);
    sill__config_free(&c);
}

/* T was read with status S. */
static void put_tokenizer(sill__str *o, const sill_tokenizer *t, sill_status s, const sill_error *why) {
    if (s == SILL_ENOENT) {
        sill__str_puts(o, "\"tokenizer\": null,\n");
    } else if (s != SILL_OK) {
        sill__str_puts(o, "\"tokenizer\": {\"unsupported\": ");
        put_text(o, why->msg);
        sill__str_puts(o, "},\n");
    } else {
        sill__str_putf(o,
                       "\"tokenizer\": {\"kind\": \"%s\", \"pre\": \"%s\", \"n_vocab\": %d, \"bos_id\": %d, "
                       "\"eos_id\": %d, \"pad_id\": %d, \"add_bos\": %s, \"chat_template\": %s},\n",
                       sill__tokenizer_kind(t) == SILL__TOK_BPE_BYTES ? "byte-level BPE" : "SentencePiece BPE",
                       sill__tokenizer_pre(t), sill_tokenizer_n_vocab(t), sill__tokenizer_bos(t),
                       sill__tokenizer_eos(t), sill__tokenizer_pad(t), sill__tokenizer_add_bos(t) ? "true" : "false",
                       sill__tokenizer_chat_template(t) ? "true" : "false");
    }
}

sill_status sill_inspect(const char *path, char **json, sill_error *err) {
    sill__file *file = NULL;
    sill__str o;
    if (!json || !path || !*path) return sill__fail(err, SILL_EINVAL, "sill_inspect needs a path and a place for the text");
    *json = NULL;
    sill_status s = sill__file_open(path, &file, err);
    if (s != SILL_OK) return s;
    sill__str_init(&o, JSON_MAX);
    uint64_t n_params = 0, bytes = 0;
    for (size_t i = 0; i < sill__file_n_tensors(file); i++) {
        n_params += sill__tensor_elements(sill__file_tensor(file, i));
        bytes += sill__file_tensor(file, i)->bytes;
    }
    sill__str_puts(&o, "{\"path\": ");
    put_text(&o, path);
    sill__str_putf(&o, ", \"format\": \"%s\",\n", sill__file_kind_name(sill__file_get_kind(file)));
    sill_error why = {0};
    sill_tokenizer *t = NULL;
    s = sill__tokenizer_from_file(file, &t, &why);
    put_config(&o, file, s == SILL_OK ? t : NULL);
    put_tokenizer(&o, t, s, &why);
    sill_tokenizer_free(t);
    if (s != SILL_ENOMEM) s = SILL_OK;
    sill__str_putf(&o, "\"n_tensors\": %zu, \"n_elements\": %llu, \"tensor_bytes\": %llu,\n",
                   sill__file_n_tensors(file), (unsigned long long)n_params, (unsigned long long)bytes);
    if (sill__file_get_kind(file) == SILL__FILE_GGUF) put_meta(&o, file);
    put_tensors(&o, file);
    sill__str_puts(&o, "}\n");
    if (s != SILL_OK || o.failed) {
        sill__str_free(&o);
        s = sill__fail(err, SILL_ENOMEM, "no memory for the description of %s", path);
    } else {
        *json = o.p; /* from sill__realloc, which sill_free frees */
    }
    sill__file_close(file);
    return s;
}
