/*
 * config_json.c - the configuration of a safetensors checkpoint: config.json as transformers writes it (old
 * and new names, its defaults where a field is missing) and generation_config.json.
 */
#include "base/json.h"
#include "model/family.h"

#include <stdio.h>

#define CONFIG_MAX ((size_t)4 << 20) /* bytes of config.json that are read */
#define LABELS_MAX 65536

/* A whole, checked JSON text. The first error is kept and makes further calls return their defaults. */
typedef struct fields {
    const char *path, *text;
    size_t n;
    sill_status status;
    sill_error *err;
} fields;

/* Places J at a member that is there and not null. Every name is tried; names ends with NULL. */
static bool find(const fields *f, const char *outer, const char *const *names, sill__json *j) {
    for (; f->status == SILL_OK && *names; names++) {
        sill__json_init(j, f->text, f->n);
        bool there = outer ? sill__json_find(j, outer, *names, (char *)NULL) : sill__json_find(j, *names, (char *)NULL);
        if (there && sill__json_peek(j) != SILL__JSON_NULL) return true;
    }
    return false;
}

#define NAMES(...) ((const char *const[]){__VA_ARGS__, NULL})

static void wrong(fields *f, const char *name, const char *expected) {
    if (f->status == SILL_OK) f->status = sill__fail(f->err, SILL_EFORMAT, "%s: %s is not %s", f->path, name, expected);
}

static int32_t get_int(fields *f, const char *const *names, int32_t missing) {
    sill__json j;
    int64_t v = 0;
    if (!find(f, NULL, names, &j)) return missing;
    if (!sill__json_int(&j, &v) || v < INT32_MIN || v > INT32_MAX) wrong(f, names[0], "a whole number of 32 bits");
    return f->status == SILL_OK ? (int32_t)v : missing;
}

static double get_double(fields *f, const char *outer, const char *const *names, double missing) {
    sill__json j;
    double v = 0;
    if (!find(f, outer, names, &j)) return missing;
    if (!sill__json_double(&j, &v)) wrong(f, names[0], "a number");
    return f->status == SILL_OK ? v : missing;
}

static bool get_bool(fields *f, const char *name, bool missing) {
    sill__json j;
    bool v = missing;
    if (find(f, NULL, NAMES(name), &j) && !sill__json_bool(&j, &v)) wrong(f, name, "true or false");
    return v;
}

/* A token id: -1 when it is null, MISSING when it is not there. */
static int32_t get_id(fields *f, const char *name, int32_t missing) {
    sill__json j;
    sill__json_init(&j, f->text, f->n);
    bool null = sill__json_find(&j, name, (char *)NULL) && sill__json_peek(&j) == SILL__JSON_NULL;
    return null ? -1 : get_int(f, NAMES(name), missing);
}

/* A short string; false when absent. */
static bool get_string(fields *f, const char *outer, const char *const *names, char *out, size_t cap) {
    sill__json j;
    sill__str s;
    out[0] = 0;
    if (!find(f, outer, names, &j)) return false;
    sill__str_init(&s, cap - 1);
    if (sill__json_peek(&j) != SILL__JSON_STRING || !sill__json_string(&j, &s)) wrong(f, names[0], "a short string");
    else if (s.n) memcpy(out, s.p, s.n + 1);
    sill__str_free(&s);
    return f->status == SILL_OK;
}

/* eos_token_id: null, a number or a list of numbers. */
static void get_eos(fields *f, sill__config *c, int32_t missing) {
    sill__json j;
    int64_t id;
    if (f->status != SILL_OK) return;
    sill__json_init(&j, f->text, f->n);
    if (!sill__json_find(&j, "eos_token_id", (char *)NULL)) {
        sill__config_add_eos(c, missing);
        return;
    }
    if (sill__json_peek(&j) == SILL__JSON_NULL) return;
    c->n_eos = 0;
    if (sill__json_peek(&j) == SILL__JSON_ARRAY) {
        sill__json_enter(&j, SILL__JSON_ARRAY);
        while (sill__json_next_element(&j) && sill__json_int(&j, &id)) sill__config_add_eos(c, id);
        if (j.message) wrong(f, "eos_token_id", "a number or a list of numbers");
    } else if (sill__json_int(&j, &id)) {
        sill__config_add_eos(c, id);
    } else {
        wrong(f, "eos_token_id", "a number or a list of numbers");
    }
}

static bool get_act(fields *f, const char *const *names, const char *missing, sill__act *act) {
    char name[64];
    if (!get_string(f, NULL, names, name, sizeof name)) snprintf(name, sizeof name, "%s", missing);
    if (f->status == SILL_OK && !sill__config_act(name, act))
        f->status = sill__fail(f->err, SILL_EUNSUPPORTED,
                               "%s: the activation \"%s\" is not supported (gelu_new, gelu_pytorch_tanh, gelu, relu, "
                               "silu, tanh are)",
                               f->path, name);
    return f->status == SILL_OK;
}

static void read_gpt2(fields *f, sill__config *c) {
    c->family = SILL__FAMILY_GPT2;
    c->n_layers = get_int(f, NAMES("n_layer", "num_hidden_layers"), 12);
    c->n_heads = c->n_kv_heads = get_int(f, NAMES("n_head", "num_attention_heads"), 12);
    c->n_embd = get_int(f, NAMES("n_embd", "hidden_size"), 768);
    c->n_ctx = get_int(f, NAMES("n_positions", "max_position_embeddings", "n_ctx"), 1024);
    c->n_vocab = get_int(f, NAMES("vocab_size"), 50257);
    c->n_ff = get_int(f, NAMES("n_inner"), c->n_embd <= 65536 ? 4 * c->n_embd : 0);
    c->norm_eps = (float)get_double(f, NULL, NAMES("layer_norm_epsilon"), 1e-5);
    c->tied = get_bool(f, "tie_word_embeddings", true);
    c->attn_scale_by_layer = get_bool(f, "scale_attn_by_inverse_layer_idx", false);
    c->bos_id = get_id(f, "bos_token_id", 50256);
    get_act(f, NAMES("activation_function"), "gelu_new", &c->act);
    if (f->status == SILL_OK && (c->n_heads < 1 || c->n_embd < 1 || c->n_embd % c->n_heads))
        f->status = sill__fail(f->err, SILL_EFORMAT, "%s: n_embd %d is not a multiple of n_head %d", f->path, c->n_embd,
                               c->n_heads);
    if (f->status != SILL_OK) return;
    c->head_dim = c->n_embd / c->n_heads;
    if (!get_bool(f, "scale_attn_weights", true)) c->attn_scale = 1;
    if (get_bool(f, "add_cross_attention", false))
        f->status = sill__fail(f->err, SILL_EUNSUPPORTED, "%s: GPT-2 with cross-attention is not supported", f->path);
}

/* rope_parameters (transformers 5) or rope_scaling (4). */
static void read_rope(fields *f, sill__config *c) {
    char type[64];
    const char *outer = "rope_parameters";
    sill__json j;
    if (find(f, NULL, NAMES("rope_scaling"), &j) && sill__json_peek(&j) != SILL__JSON_OBJECT)
        wrong(f, "rope_scaling", "an object");
    if (!find(f, NULL, NAMES(outer), &j)) outer = "rope_scaling";
    else if (sill__json_peek(&j) != SILL__JSON_OBJECT) wrong(f, outer, "an object");
    c->rope_base = get_double(f, NULL, NAMES("rope_theta"), 10000);
    c->rope_base = get_double(f, outer, NAMES("rope_theta"), c->rope_base);
    if (get_double(f, outer, NAMES("partial_rotary_factor"), 1) != 1 ||
        get_double(f, NULL, NAMES("partial_rotary_factor"), 1) != 1) {
        f->status = sill__fail(f->err, SILL_EUNSUPPORTED, "%s: partial_rotary_factor is not supported", f->path);
        return;
    }
    if (!get_string(f, outer, NAMES("rope_type", "type"), type, sizeof type) || !strcmp(type, "default")) return;
    if (strcmp(type, "linear") && strcmp(type, "llama3")) {
        if (f->status == SILL_OK)
            f->status = sill__fail(f->err, SILL_EUNSUPPORTED,
                                   "%s: rotary scaling \"%s\" is not supported (default, linear and llama3 are)",
                                   f->path, type);
        return;
    }
    c->rope_scaling = type[1] == 'i' ? SILL__ROPE_SCALING_LINEAR : SILL__ROPE_SCALING_LLAMA3;
    if (!find(f, outer, NAMES("factor"), &j) && f->status == SILL_OK)
        f->status = sill__fail(f->err, SILL_EFORMAT, "%s: rotary scaling \"%s\" needs a factor, and it is missing", f->path, type);
    c->rope_factor = get_double(f, outer, NAMES("factor"), -1);
    c->rope_low = get_double(f, outer, NAMES("low_freq_factor"), -1);
    c->rope_high = get_double(f, outer, NAMES("high_freq_factor"), -1);
    double ctx = get_double(f, outer, NAMES("original_max_position_embeddings"), c->n_ctx);
    c->rope_original_ctx = ctx >= 1 && ctx <= 1 << 24 ? (int32_t)ctx : -1;
}

static void read_llama(fields *f, sill__config *c) {
    c->family = SILL__FAMILY_LLAMA;
    c->n_layers = get_int(f, NAMES("num_hidden_layers"), 32);
    c->n_heads = get_int(f, NAMES("num_attention_heads"), 32);
    c->n_kv_heads = get_int(f, NAMES("num_key_value_heads"), c->n_heads);
    c->n_embd = get_int(f, NAMES("hidden_size"), 4096);
    c->n_ff = get_int(f, NAMES("intermediate_size"), 11008);
    c->n_ctx = get_int(f, NAMES("max_position_embeddings"), 2048);
    c->n_vocab = get_int(f, NAMES("vocab_size"), 32000);
    c->norm_eps = (float)get_double(f, NULL, NAMES("rms_norm_eps"), 1e-6);
    c->tied = get_bool(f, "tie_word_embeddings", false);
    c->attn_bias = get_bool(f, "attention_bias", false);
    c->mlp_bias = get_bool(f, "mlp_bias", false);
    c->bos_id = get_id(f, "bos_token_id", 1);
    if (f->status == SILL_OK && c->n_heads < 1)
        f->status = sill__fail(f->err, SILL_EFORMAT, "%s: num_attention_heads is %d", f->path, c->n_heads);
    if (f->status != SILL_OK) return;
    c->head_dim = get_int(f, NAMES("head_dim"), c->n_embd / c->n_heads);
    c->rope = SILL__ROPE_HALF;
    c->rope_dims = c->head_dim;
    read_rope(f, c);
    if (get_act(f, NAMES("hidden_act"), "silu", &c->act) && c->act != SILL__ACT_SILU)
        f->status = sill__fail(f->err, SILL_EUNSUPPORTED, "%s: Llama with hidden_act other than silu is not supported",
                               f->path);
    c->act = SILL__ACT_SWIGLU;
}

/* Names of the labels by their numbers: {"0": "NEGATIVE", ...}; LABEL_i where one is missing. */
static void read_labels(fields *f, sill__config *c) {
    sill__json j;
    char key[16];
    size_t n;
    sill__str s;
    if (c->n_labels < 1 || c->n_labels > LABELS_MAX) return; /* refused by the range check */
    c->labels = sill__calloc((size_t)c->n_labels, sizeof *c->labels);
    if (!c->labels) {
        f->status = sill__fail(f->err, SILL_ENOMEM, "no memory for %d labels", c->n_labels);
        return;
    }
    sill__str_init(&s, 4096);
    if (find(f, NULL, NAMES("id2label"), &j)) {
        if (!sill__json_enter(&j, SILL__JSON_OBJECT)) wrong(f, "id2label", "an object");
        while (f->status == SILL_OK && sill__json_next_member(&j, key, sizeof key, &n)) {
            int32_t id = -1;
            if (n > 0 && n < 8 && strspn(key, "0123456789") == n) sscanf(key, "%d", &id);
            sill__str_clear(&s);
            if (id < 0 || id >= c->n_labels || c->labels[id] || sill__json_peek(&j) != SILL__JSON_STRING ||
                !sill__json_string(&j, &s))
                wrong(f, "id2label", "one name for each row of score.weight");
            else if (!(c->labels[id] = sill__strndup(s.p ? s.p : "", s.n)))
                f->status = sill__fail(f->err, SILL_ENOMEM, "no memory for label names");
        }
        if (j.message) wrong(f, "id2label", "an object of strings");
    }
    for (int32_t i = 0; f->status == SILL_OK && i < c->n_labels; i++) {
        sill__str_clear(&s);
        if (!c->labels[i] && (!sill__str_putf(&s, "LABEL_%d", i) || !(c->labels[i] = sill__strndup(s.p, s.n))))
            f->status = sill__fail(f->err, SILL_ENOMEM, "no memory for label names");
    }
    sill__str_free(&s);
}

/* A sequence-classification head is told by its tensor; the configuration must agree. */
static void read_head(fields *f, const sill__file *file, sill__config *c) {
    static const char *const refused[] = {"ForTokenClassification", "ForQuestionAnswering", "VisionModel"};
    sill__json j;
    char problem[64], *text;
    bool says_head = false;
    if (find(f, NULL, NAMES("architectures"), &j)) {
        const char *from = j.p;
        if (!sill__json_skip(&j) || !(text = sill__strndup(from, (size_t)(j.p - from)))) {
            f->status = sill__fail(f->err, SILL_ENOMEM, "no memory for the configuration");
            return;
        }
        says_head = strstr(text, "ForSequenceClassification") != NULL;
        for (size_t i = 0; i < SILL_ARRAY_LEN(refused); i++)
            if (strstr(text, refused[i]))
                f->status = sill__fail(f->err, SILL_EUNSUPPORTED,
                                       "%s: models %s are not supported (language models and sequence classification are)",
                                       f->path, refused[i]);
        sill__free(text);
    }
    const sill__tensor *score = sill__file_find(file, "score.weight");
    if (!score && says_head && f->status == SILL_OK)
        f->status = sill__fail(f->err, SILL_EFORMAT, "%s: tensor score.weight is missing", sill__file_path(file));
    if (!score || f->status != SILL_OK) return;
    if (score->n_dims != 2 || score->dims[0] < 1 || score->dims[0] > LABELS_MAX) {
        f->status = sill__fail(f->err, SILL_EFORMAT, "%s: tensor score.weight is no matrix of 1 to %d rows",
                               sill__file_path(file), LABELS_MAX);
        return;
    }
    c->n_labels = (int32_t)score->dims[0];
    read_labels(f, c);
    c->problem = SILL__PROBLEM_SINGLE; /* also of one label, for which the pipeline of transformers takes the sigmoid */
    if (!get_string(f, NULL, NAMES("problem_type"), problem, sizeof problem)) return;
    if (!strcmp(problem, "single_label_classification")) c->problem = SILL__PROBLEM_SINGLE;
    else if (!strcmp(problem, "multi_label_classification")) c->problem = SILL__PROBLEM_MULTI;
    else if (!strcmp(problem, "regression")) c->problem = SILL__PROBLEM_REGRESSION;
    else wrong(f, "problem_type", "one that transformers knows");
}

/* Checks that the text is one object. */
static sill_status check_fields(fields *f, const char *path, const char *text, sill_error *err) {
    sill__json j;
    sill__json_init(&j, text, f->n);
    if (sill__json_peek(&j) != SILL__JSON_OBJECT) {
        if (!j.message) return sill__fail(err, SILL_EFORMAT, "%s is no JSON object", path);
        return sill__json_fail(&j, path, err);
    }
    if (!sill__json_skip(&j) || !sill__json_finish(&j)) return sill__json_fail(&j, path, err);
    f->path = path;
    f->text = text;
    f->err = err;
    return SILL_OK;
}

/* Opens and checks one JSON file of the model's directory. ENOENT is left to the caller. */
static sill_status open_fields(fields *f, const char *dir, const char *name, char *path, size_t cap, char **text,
                               sill_error *err) {
    memset(f, 0, sizeof *f);
    *text = NULL;
    if (!sill__path_join(path, cap, *dir ? dir : ".", name))
        return sill__fail(err, SILL_ERANGE, "the path of the model is too long");
    if (!sill__is_file(path)) return SILL_ENOENT;
    sill_status s = sill__read_file(path, CONFIG_MAX, text, &f->n, err);
    return s == SILL_OK ? check_fields(f, path, *text, err) : s;
}

static void read_family(fields *f, const sill__file *file, sill__config *c) {
    char type[64];
    sill__json j;
    if (!get_string(f, NULL, NAMES("model_type"), type, sizeof type)) {
        if (f->status == SILL_OK)
            f->status = sill__fail(f->err, SILL_EFORMAT, "%s names no model_type; sill runs " SILL__FAMILIES, f->path);
        return;
    }
    if (find(f, NULL, NAMES("quantization_config"), &j)) {
        char method[64];
        get_string(f, "quantization_config", NAMES("quant_method"), method, sizeof method);
        bool eight = false;
        if (!strcmp(method, "bitsandbytes") && find(f, "quantization_config", NAMES("load_in_8bit"), &j) &&
            !sill__json_bool(&j, &eight))
            wrong(f, "load_in_8bit", "true or false");
        if (f->status == SILL_OK && !eight)
            f->status = sill__fail(f->err, SILL_EUNSUPPORTED,
                                   "%s: weights quantized by %s are not supported (bitsandbytes' LLM.int8 is); use the float "
                                   "checkpoint or a GGUF",
                                   f->path, method[0] ? method : "another program");
        if (f->status != SILL_OK) return;
    }
    if (!strcmp(type, "gpt2")) read_gpt2(f, c);
    else if (!strcmp(type, "llama")) read_llama(f, c);
    else if (f->status == SILL_OK)
        f->status = sill__fail(f->err, SILL_EUNSUPPORTED, "%s: models of the family \"%s\" are not supported; sill runs "
                               SILL__FAMILIES, f->path, type);
    if (f->status == SILL_OK) read_head(f, file, c);
}

sill_status sill__config_json(const sill__file *file, sill__config *c, sill_error *err) {
    fields f;
    char path[4096], *text = NULL;
    const char *dir = sill__file_dir(file), *own = sill__file_config(file);
    sill_status s;
    if (own) {
        f = (fields){.n = strlen(own)};
        s = check_fields(&f, sill__file_path(file), own, err);
    } else {
        s = open_fields(&f, dir, "config.json", path, sizeof path, &text, err);
    }
    if (s == SILL_ENOENT)
        s = sill__fail(err, SILL_ENOENT, "%s: there is no config.json beside the weights", *dir ? dir : ".");
    if (s == SILL_OK) {
        read_family(&f, file, c);
        get_eos(&f, c, c->family == SILL__FAMILY_GPT2 ? 50256 : 2);
        c->pad_id = get_int(&f, NAMES("pad_token_id"), -1);
        s = f.status;
    }
    sill__free(text);
    if (s != SILL_OK || own) return s;
    /* transformers generates by this file where there is one: the ends of text that it names replace those above. */
    s = open_fields(&f, dir, "generation_config.json", path, sizeof path, &text, err);
    if (s == SILL_OK) {
        get_eos(&f, c, -1);
        s = f.status;
    } else if (s == SILL_ENOENT) {
        s = SILL_OK;
    }
    sill__free(text);
    return s;
}
