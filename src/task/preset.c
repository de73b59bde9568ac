/*
 * preset.c - the generation options that transformers' text-generation pipeline (5.23's generate too) would take for a model:
 * its own defaults, merged with generation_config.json (config.json where there is none) and, in 4.x, with the
 * task_specific_params of config.json. The merging was read from transformers' source (GenerationConfig,
 * Pipeline.__init__, _prepare_generation_config; 4.57.1 and 5.23) and is compared with what both do by
 * tests/task/test_preset.c.
 */
#include "task/task.h"

#include "base/json.h"

#include <float.h>
#include <stdio.h>

#define CONFIG_MAX ((size_t)4 << 20) /* bytes of a file that are read */
#define FILE_GENERATION "generation_config.json"
#define FILE_CONFIG "config.json"
#define TASK "text-generation"

#define NONE ((double)NAN) /* Python's None */

/* The parameters that are merged: X(name, kind, GenerationConfig()'s value in 4.57). */
#define FIELDS(X)                                                                                  \
    X(max_new_tokens, INT, NONE) X(max_length, INT, 20) X(min_new_tokens, INT, NONE) X(min_length, INT, 0) \
    X(do_sample, BOOL, 0) X(temperature, REAL, 1) X(top_k, INT, 50) X(top_p, REAL, 1) X(min_p, REAL, NONE) \
    X(typical_p, REAL, 1) X(epsilon_cutoff, REAL, 0) X(eta_cutoff, REAL, 0) X(repetition_penalty, REAL, 1) \
    X(no_repeat_ngram_size, INT, 0) X(num_return_sequences, INT, 1) X(num_beams, INT, 1) \
    X(length_penalty, REAL, 1) X(early_stopping, EARLY, 0)

typedef enum kind { INT, REAL, BOOL, EARLY } kind;
#define NEVER 2.0 /* early_stopping "never"; else false or true */
enum {
#define X(name, kind, value) AT_##name,
    FIELDS(X)
#undef X
    N_FIELDS
};

/* Lists of ids: where the file has them; read when it is settled which counts. */
enum { BAD_WORDS, BIASES, SUPPRESSED, SUPPRESSED_FIRST, N_LISTS };
static const char *const list_names[N_LISTS] = {"bad_words_ids", "sequence_bias", "suppress_tokens", "begin_suppress_tokens"};
#define MOST_BIASES 10000

/* One of the files, whole and checked. */
typedef struct source {
    char path[4096];
    char *text;
    size_t n;
} source;

/* An object of a source: the whole, or the parameters of the task; or a list. */
typedef struct object { const source *file; sill__json at; } object;

typedef struct values {
    double v[N_FIELDS];
    object lists[N_LISTS]; /* file NULL: None */
} values;

static const char *const names[] = {
#define X(name, kind, value) #name,
    FIELDS(X)
#undef X
};
static const kind kinds[] = {
#define X(name, kind, value) kind,
    FIELDS(X)
#undef X
};

/* Parameters that change the text and that sill has not, or not from a file. They may be there with a value that does
 * nothing: null, false, an empty list or string, or the number given here. */
static const struct { const char *name; double neutral; } refused[] = {
    {"constraints", NONE},        {"dola_layers", NONE},          {"encoder_no_repeat_ngram_size", 0}, {"encoder_repetition_penalty", 1},
    {"exponential_decay_length_penalty", NONE}, {"force_words_ids", NONE}, {"forced_bos_token_id", NONE},
    {"forced_eos_token_id", NONE}, {"guidance_scale", 1},          {"max_time", NONE},
    {"penalty_alpha", 0},         {"stop_strings", NONE},          {"token_healing", NONE},
    {"top_h", NONE},              {"watermarking_config", NONE},
};

static bool same(double a, double b) { return a == b || (isnan(a) && isnan(b)); }

static bool is_name(const char *key, size_t n, const char *name) { return n == strlen(name) && !memcmp(key, name, n); }

/* ------------------------------------------------------------- reading */

/* ENOENT when there is none: no error then. */
static sill_status open_source(const char *dir, const char *name, source *s, sill_error *err) {
    sill__json j;
    s->text = NULL;
    if (!sill__path_join(s->path, sizeof s->path, *dir ? dir : ".", name))
        return sill__fail(err, SILL_ERANGE, "the path of the model is too long");
    if (!sill__is_file(s->path)) return SILL_ENOENT;
    sill_status st = sill__read_file(s->path, CONFIG_MAX, &s->text, &s->n, err);
    if (st != SILL_OK) return st;
    sill__json_init(&j, s->text, s->n);
    bool is_object = sill__json_peek(&j) == SILL__JSON_OBJECT;
    if (!sill__json_skip(&j) || !sill__json_finish(&j)) st = sill__json_fail(&j, s->path, err);
    else if (!is_object) st = sill__fail(err, SILL_EFORMAT, "%s is no JSON object", s->path);
    if (st != SILL_OK) {
        sill__free(s->text);
        s->text = NULL;
    }
    return st;
}

static object whole(const source *s) {
    object o = {.file = s};
    sill__json_init(&o.at, s->text, s->n);
    return o;
}

static sill_status wrong(const object *o, const char *name, const char *expected, sill_error *err) {
    return sill__fail(err, SILL_EFORMAT, "%s: %s is not %s", o->file->path, name, expected);
}

static sill_status read_value(const object *o, int i, sill__json *j, double *out, sill_error *err) {
    int64_t n;
    bool b;
    if (sill__json_peek(j) == SILL__JSON_NULL) {
        *out = NONE;
        return sill__json_skip(j) ? SILL_OK : wrong(o, names[i], "readable", err);
    }
    if (kinds[i] == EARLY && sill__json_peek(j) == SILL__JSON_STRING) {
        static const char never[] = "\"never\"";
        sill__json from = *j;
        if (!sill__json_skip(j)) return wrong(o, names[i], "readable", err);
        while (from.p < j->p && *from.p != '"') from.p++;
        if (j->p - from.p != (ptrdiff_t)sizeof never - 1 || memcmp(from.p, never, sizeof never - 1))
            return wrong(o, names[i], "true, false or \"never\"", err);
        *out = NEVER;
    } else if (kinds[i] == BOOL || kinds[i] == EARLY) {
        if (!sill__json_bool(j, &b)) return wrong(o, names[i], "true or false", err);
        *out = b;
    } else if (kinds[i] == INT) {
        if (!sill__json_int(j, &n) || n < INT32_MIN || n > INT32_MAX)
            return wrong(o, names[i], "a whole number of 32 bits", err);
        if (i == AT_max_new_tokens && n < 1) return wrong(o, names[i], "1 or more", err); /* whatever wins over it */
        *out = (double)n;
    } else if (sill__json_peek(j) != SILL__JSON_NUMBER || !sill__json_double(j, out) || !isfinite((float)*out)) {
        return wrong(o, names[i], "a finite number of 32 bits", err);
    }
    return SILL_OK;
}

/* True where the value at J does nothing. */
static bool does_nothing(sill__json j, double neutral) {
    double d;
    switch (sill__json_peek(&j)) {
        case SILL__JSON_NULL:
        case SILL__JSON_FALSE: return true;
        case SILL__JSON_NUMBER: return sill__json_double(&j, &d) && d == neutral;
        case SILL__JSON_ARRAY: return sill__json_enter(&j, SILL__JSON_ARRAY) && !sill__json_next_element(&j);
        case SILL__JSON_OBJECT: return sill__json_enter(&j, SILL__JSON_OBJECT) && !sill__json_next_member(&j, (char[2]){0}, 2, NULL);
        case SILL__JSON_STRING: {
            sill__json from = j;
            if (!sill__json_skip(&j)) return false;
            while (from.p < j.p && *from.p != '"') from.p++;
            return j.p - from.p == 2;
        }
        default: return false;
    }
}

/* A member of an object of parameters. Others than those known are none of ours. */
static sill_status read_member(const object *o, const char *key, size_t n, sill__json *j, values *out, sill_error *err) {
    for (int i = 0; i < N_FIELDS; i++)
        if (is_name(key, n, names[i])) return read_value(o, i, j, &out->v[i], err);
    for (int i = 0; i < N_LISTS; i++)
        if (is_name(key, n, list_names[i])) {
            out->lists[i] = (object){sill__json_peek(j) == SILL__JSON_NULL ? NULL : o->file, *j};
            return SILL_OK;
        }
    for (size_t i = 0; i < SILL_ARRAY_LEN(refused); i++)
        if (is_name(key, n, refused[i].name) && !does_nothing(*j, refused[i].neutral))
            return sill__fail(err, SILL_EUNSUPPORTED, "%s sets %s, which is not supported; choose the options without a preset",
                              o->file->path, refused[i].name);
    return SILL_OK;
}

/* Takes what the object says into OUT; of equal names the last, as Python does. */
static sill_status read_object(object o, values *out, sill_error *err) {
    char key[64];
    size_t n;
    sill_status s = SILL_OK;
    if (!sill__json_enter(&o.at, SILL__JSON_OBJECT))
        return wrong(&o, "task_specific_params[\"" TASK "\"]", "an object", err);
    while (s == SILL_OK && sill__json_next_member(&o.at, key, sizeof key, &n)) s = read_member(&o, key, n, &o.at, out, err);
    return s == SILL_OK && o.at.message ? sill__json_fail(&o.at, o.file->path, err) : s;
}

/* A prompt's prefix, which the pipeline puts in front by itself. */
static sill_status refuse_prefix(object o, sill_error *err) {
    if (!sill__json_find(&o.at, "prefix", (char *)NULL) || does_nothing(o.at, NONE)) return SILL_OK;
    return sill__fail(err, SILL_EUNSUPPORTED, "%s sets a prefix of every prompt, which is not supported; put it in front of the "
                      "prompts and choose the options without a preset", o.file->path);
}

/* True when generation_config.json was written by transformers before 4.50. */
static sill_status read_is_old(object o, bool *old, sill_error *err) {
    int major = 0, minor = 0;
    sill__str s;
    *old = false;
    if (!sill__json_find(&o.at, "transformers_version", (char *)NULL)) return SILL_OK;
    if (sill__json_peek(&o.at) == SILL__JSON_NULL) return SILL_OK;
    sill__str_init(&s, 64);
    bool good = sill__json_peek(&o.at) == SILL__JSON_STRING && sill__json_string(&o.at, &s) && s.n &&
                strspn(s.p, "0123456789") < 6 && sscanf(s.p, "%5d.%5d", &major, &minor) >= 1;
    sill__str_free(&s);
    if (o.at.message) return sill__json_fail(&o.at, o.file->path, err);
    if (!good) return wrong(&o, "transformers_version", "a version", err);
    *old = major < 4 || (major == 4 && minor < 50);
    return SILL_OK;
}

/* ------------------------------------------------------------- merging */

static values all_none(void) {
    values x = {.v = {0}};
    for (int i = 0; i < N_FIELDS; i++) x.v[i] = NONE;
    return x;
}

static const values global_4 = {.v = {
#define X(name, kind, value) value,
    FIELDS(X)
#undef X
}};

/* 4.57: where TO has the global default, MODEL's value. */
static void take_model_4(values *to, const values *model) {
    for (int i = 0; i < N_FIELDS; i++)
        if (same(to->v[i], global_4.v[i])) to->v[i] = model->v[i];
    for (int i = 0; i < N_LISTS; i++)
        if (!to->lists[i].file) to->lists[i] = model->lists[i];
    if (to->v[AT_temperature] == 0) to->v[AT_do_sample] = 0;
}

/* The files of a model, opened: MODEL is generation_config.json or, without one, config.json. */
typedef struct files { source config, generation; const source *model; } files;

static sill_status merge_4(const files *f, values *out, sill_error *err) {
    values model = global_4;
    bool old = false;
    sill_status s = SILL_OK;
    *out = global_4;
    out->v[AT_max_new_tokens] = 256;
    out->v[AT_do_sample] = 1;
    out->v[AT_temperature] = 0.7;
    if (!f->model) return SILL_OK;
    if ((s = read_object(whole(f->model), &model, err)) != SILL_OK) return s;
    if (f->model == &f->generation && (s = read_is_old(whole(f->model), &old, err)) != SILL_OK) return s;
    take_model_4(out, &model);
    if (!isnan(out->v[AT_max_length]) && out->v[AT_max_length] != 20) out->v[AT_max_new_tokens] = NONE;
    object task = whole(&f->config);
    if (sill__json_find(&task.at, "task_specific_params", (char *)NULL) && sill__json_peek(&task.at) != SILL__JSON_NULL) {
        if (sill__json_peek(&task.at) != SILL__JSON_OBJECT) return wrong(&task, "task_specific_params", "an object", err);
        if (sill__json_find(&task.at, TASK, (char *)NULL)) {
            if ((s = read_object(task, out, err)) != SILL_OK) return s;
            if ((s = refuse_prefix(task, err)) != SILL_OK) return s;
        }
    }
    if (!old) take_model_4(out, &model); /* generate merges again, unless the file is older than that */
    if (out->v[AT_max_length] == 20) out->v[AT_max_length] = NONE; /* the default: 20 new tokens, not 20 in all */
    return SILL_OK;
}

/* PIPELINE: with its own defaults, else as model.generate() takes them. */
static sill_status merge_5(const files *f, bool pipeline, values *out, sill_error *err) {
    sill_status s = SILL_OK;
    *out = all_none();
    if (f->model && (s = read_object(whole(f->model), out, err)) != SILL_OK) return s;
    if (pipeline) {
        if (isnan(out->v[AT_max_new_tokens]) && isnan(out->v[AT_max_length])) out->v[AT_max_new_tokens] = 256;
        if (isnan(out->v[AT_do_sample])) out->v[AT_do_sample] = 1;
        if (isnan(out->v[AT_temperature])) out->v[AT_temperature] = 0.7;
    }
    for (int i = 0; i < N_FIELDS; i++)
        if (isnan(out->v[i]) && i != AT_max_length) out->v[i] = global_4.v[i];
    return SILL_OK;
}

/* ------------------------------------------------------------- options */

static sill_status bad_value(const files *f, const values *x, int i, const char *expected, sill_error *err) {
    return sill__fail(err, SILL_EFORMAT, "%s: %s is %g for generation, expected %s", f->model ? f->model->path : "the preset",
                      names[i], x->v[i], expected);
}

/* A value of 32 bits that is not 0, which would mean the default. */
static float above_0(double v) { return SILL_MAX((float)v, FLT_MIN); }

/* What sampling takes; None and what does nothing are off. */
static sill_status put_sampling(const files *f, const values *x, sill_generate_options *o, sill_error *err) {
    const double *v = x->v;
    bool on = o->do_sample; /* else what cannot be used is not refused, as it is not used */
#define CHECK_RANGE(name, good, expected) \
    if (!(good)) { if (on) return bad_value(f, x, AT_##name, expected, err); } else
    o->temperature = o->top_p = 1;
    o->top_k = -1;
    o->min_p = o->typical_p = o->epsilon_cutoff = o->eta_cutoff = 0;
    CHECK_RANGE(temperature, isnan(v[AT_temperature]) || v[AT_temperature] > 0, "above 0")
        o->temperature = isnan(v[AT_temperature]) ? 1 : above_0(v[AT_temperature]);
    CHECK_RANGE(top_k, isnan(v[AT_top_k]) || v[AT_top_k] >= 0, "0 (off) or more")
        o->top_k = isnan(v[AT_top_k]) || v[AT_top_k] == 0 ? -1 : (int32_t)v[AT_top_k];
    CHECK_RANGE(top_p, isnan(v[AT_top_p]) || v[AT_top_p] >= 0, "0 to 1")
        o->top_p = isnan(v[AT_top_p]) || v[AT_top_p] >= 1 ? 1 : above_0(v[AT_top_p]);
    CHECK_RANGE(min_p, isnan(v[AT_min_p]) || (v[AT_min_p] >= 0 && v[AT_min_p] <= 1), "0 to 1")
        o->min_p = isnan(v[AT_min_p]) ? 0 : (float)v[AT_min_p];
    CHECK_RANGE(typical_p, isnan(v[AT_typical_p]) || v[AT_typical_p] > 0, "above 0")
        o->typical_p = isnan(v[AT_typical_p]) || v[AT_typical_p] >= 1 ? 0 : above_0(v[AT_typical_p]);
#undef CHECK_RANGE
    if (v[AT_epsilon_cutoff] > 0 && (float)v[AT_epsilon_cutoff] < 1) o->epsilon_cutoff = above_0(v[AT_epsilon_cutoff]);
    if (v[AT_eta_cutoff] > 0 && (float)v[AT_eta_cutoff] < 1) o->eta_cutoff = above_0(v[AT_eta_cutoff]);
    return SILL_OK;
}

static sill_status put_options(const files *f, const values *x, sill_generate_options *o, sill_error *err) {
    const double *v = x->v;
    if (v[AT_num_beams] < 1) return bad_value(f, x, AT_num_beams, "1 or more", err);
    if (isnan(v[AT_max_new_tokens]) && v[AT_max_length] < 2) return bad_value(f, x, AT_max_length, "2 or more", err);
    if (v[AT_num_return_sequences] < 1) return bad_value(f, x, AT_num_return_sequences, "1 or more", err);
    if (!isnan(v[AT_repetition_penalty]) && !(v[AT_repetition_penalty] > 0))
        return bad_value(f, x, AT_repetition_penalty, "above 0", err);
    o->max_new_tokens = isnan(v[AT_max_new_tokens]) ? 0 : (int32_t)v[AT_max_new_tokens];
    o->max_length = o->max_new_tokens || isnan(v[AT_max_length]) ? 0 : (int32_t)v[AT_max_length];
    o->min_new_tokens = v[AT_min_new_tokens] > 0 ? (int32_t)v[AT_min_new_tokens] : 0;
    o->min_length = isnan(v[AT_min_new_tokens]) && v[AT_min_length] > 0 ? (int32_t)v[AT_min_length] : 0;
    o->do_sample = v[AT_do_sample] == 1;
    o->repetition_penalty = isnan(v[AT_repetition_penalty]) ? 1 : above_0(v[AT_repetition_penalty]);
    o->no_repeat_ngram_size = v[AT_no_repeat_ngram_size] > 0 ? (int32_t)v[AT_no_repeat_ngram_size] : 0;
    o->num_return_sequences = isnan(v[AT_num_return_sequences]) ? 1 : (int32_t)v[AT_num_return_sequences];
    if (v[AT_num_beams] > 1 && v[AT_num_return_sequences] > v[AT_num_beams])
        return bad_value(f, x, AT_num_return_sequences, "no more than num_beams", err);
    o->num_beams = v[AT_num_beams] > 1 ? (int32_t)v[AT_num_beams] : 0;
    o->length_penalty = 0;
    o->early_stopping = SILL_EARLY_STOPPING_NO;
    if (o->num_beams) {
        const double p = v[AT_length_penalty], early = v[AT_early_stopping];
        o->length_penalty = isnan(p) ? 0 : (float)p == 0 ? (float)NAN : (float)p;
        o->early_stopping = early == NEVER ? SILL_EARLY_STOPPING_NEVER : early == 1 ? SILL_EARLY_STOPPING_YES : SILL_EARLY_STOPPING_NO;
    }
    return put_sampling(f, x, o, err);
}

/* ------------------------------------------------------- lists of ids */

/* Sequences of ids: the end of each, and its bias. */
typedef struct sequences { sill__ids ids, ends, biases; } sequences; /* biases: the bits of a float */

static void sequences_free(sequences *q) {
    sill__ids_free(&q->ids);
    sill__ids_free(&q->ends);
    sill__ids_free(&q->biases);
}

/* Appends one list. STRICT: ids outside the vocabulary are refused, else left out. */
static sill_status read_ids(object *o, const char *name, int32_t n_vocab, bool strict, sill__ids *out, sill_error *err) {
    int64_t id;
    sill_status s = SILL_OK;
    if (!sill__json_enter(&o->at, SILL__JSON_ARRAY)) return wrong(o, name, "made of lists of ids", err);
    while (s == SILL_OK && sill__json_next_element(&o->at)) {
        if (!sill__json_int(&o->at, &id)) return wrong(o, name, "made of ids", err);
        const bool known = id >= 0 && id < n_vocab;
        if (strict && !known)
            return sill__fail(err, SILL_EFORMAT, "%s: %s holds id %lld, and the model's are 0 to %d", o->file->path, name, (long long)id, n_vocab - 1);
        const int32_t id32 = (int32_t)(known ? id : 0);
        if (known) s = sill__ids_put(out, &id32, 1, err);
    }
    return s == SILL_OK && o->at.message ? sill__json_fail(&o->at, o->file->path, err) : s;
}

/* A bias, which Python must have as a float: with a point, an exponent, or infinite. */
static sill_status read_bias(object *o, const char *name, sill__ids *out, sill_error *err) {
    sill__json from = o->at;
    double v = 0;
    if (!sill__json_double(&o->at, &v) || isnan(v)) return wrong(o, name, "made of lists of ids, each with a number", err);
    bool is_float = !isfinite(v);
    for (; from.p < o->at.p && !is_float; from.p++) is_float = *from.p == '.' || *from.p == 'e' || *from.p == 'E';
    if (!is_float || v == (double)INFINITY) return wrong(o, name, "made of numbers with a point", err);
    const int32_t bits = (int32_t)sill__f32_bits((float)v);
    return sill__ids_put(out, &bits, 1, err);
}

/* Of equal sequences the last bias counts, as in a dictionary. */
static void merge_equal(sequences *q) {
    const int32_t *ends = q->ends.p, last = (int32_t)q->ends.n - 1, from = last ? ends[last - 1] : 0, n = ends[last] - from;
    for (int32_t i = 0, at = 0; i < last; at = ends[i++]) {
        if (ends[i] - at != n || memcmp(q->ids.p + at, q->ids.p + from, (size_t)n * sizeof *q->ids.p) != 0) continue;
        q->biases.p[i] = q->biases.p[last];
        q->biases.n--;
        q->ends.n--;
        q->ids.n = (size_t)from;
        return;
    }
}

/* bad_words_ids: [[id, ...], ...]; sequence_bias: [[[id, ...], bias], ...]. A bad word of no ids is none. */
static sill_status read_sequences(object o, int list, int32_t n_vocab, sequences *q, sill_error *err) {
    const char *name = list_names[list];
    sill_status s = SILL_OK;
    bool any = false;
    if (!sill__json_enter(&o.at, SILL__JSON_ARRAY)) return wrong(&o, name, "a list", err);
    for (; s == SILL_OK && sill__json_next_element(&o.at); any = true) {
        const size_t before = q->ids.n;
        if (list == BIASES && (!sill__json_enter(&o.at, SILL__JSON_ARRAY) || !sill__json_next_element(&o.at)))
            return wrong(&o, name, "made of lists of ids, each with a number", err);
        s = read_ids(&o, name, n_vocab, true, &q->ids, err);
        if (s == SILL_OK && q->ids.n == before) {
            if (list == BIASES) return wrong(&o, name, "made of lists that are not empty", err);
            continue;
        }
        const int32_t end = (int32_t)q->ids.n;
        if (s == SILL_OK) s = sill__ids_put(&q->ends, &end, 1, err);
        if (s != SILL_OK || list != BIASES) continue;
        if (!sill__json_next_element(&o.at)) return wrong(&o, name, "made of lists of ids, each with a number", err);
        if ((s = read_bias(&o, name, &q->biases, err)) != SILL_OK) return s;
        while (sill__json_next_element(&o.at)) {} /* more is not looked at */
        merge_equal(q);
        if (q->ends.n > MOST_BIASES)
            return sill__fail(err, SILL_ERANGE, "%s: %s has more than %d sequences", o.file->path, name, MOST_BIASES);
    }
    if (s == SILL_OK && o.at.message) return sill__json_fail(&o.at, o.file->path, err);
    return s == SILL_OK && !any ? wrong(&o, name, "a list with anything in it", err) : s;
}

/* The ends, then the biases, then the ids, in one block of the model's. */
static sill_status keep_sequences(const sill_model *m, const sequences *q, const size_t **ends, const float **biases,
                                  const int32_t **ids, sill_error *err) {
    const size_t n = q->ends.n, bytes = n * (sizeof(size_t) + sizeof(float)) + q->ids.n * sizeof(int32_t);
    char *all = sill__alloc(bytes);
    const char *kept = NULL;
    if (all) {
        for (size_t i = 0; i < n; i++) ((size_t *)(void *)all)[i] = (size_t)q->ends.p[i];
        memset(all + n * sizeof(size_t), 0, n * sizeof(float));
        if (q->biases.n) memcpy(all + n * sizeof(size_t), q->biases.p, n * sizeof(float));
        memcpy(all + n * (sizeof(size_t) + sizeof(float)), q->ids.p, q->ids.n * sizeof(int32_t));
        kept = sill__shelf_put(m->shelf, all, bytes);
    }
    sill__free(all);
    if (!kept) return sill__fail(err, SILL_ENOMEM, "no memory for %zu sequences of ids", n);
    *ends = (const size_t *)(const void *)kept;
    *biases = (const float *)(const void *)(kept + n * sizeof(size_t));
    *ids = (const int32_t *)(const void *)(kept + n * (sizeof(size_t) + sizeof(float)));
    return SILL_OK;
}

static sill_status put_sequences(const sill_model *m, const object *o, int list, sill_generate_options *out, sill_error *err) {
    sequences q = {.ids = {0}};
    const float *biases = NULL;
    sill_status s = read_sequences(*o, list, m->config.n_vocab, &q, err);
    if (s == SILL_OK && list == BAD_WORDS && q.ends.n) {
        s = keep_sequences(m, &q, &out->bad_word_ends, &biases, &out->bad_words, err);
        out->n_bad_words = q.ends.n;
    } else if (s == SILL_OK && list == BIASES) {
        s = keep_sequences(m, &q, &out->bias_word_ends, &out->bias_word_values, &out->bias_words, err);
        out->n_bias_words = q.ends.n;
    }
    sequences_free(&q);
    return s;
}

static sill_status put_ids(const sill_model *m, object o, int list, const int32_t **out, size_t *n, sill_error *err) {
    sill__ids ids = {0};
    sill_status s = read_ids(&o, list_names[list], m->config.n_vocab, false, &ids, err);
    if (s == SILL_OK && ids.n) {
        const void *kept = sill__shelf_put(m->shelf, ids.p, ids.n * sizeof *ids.p);
        if (!kept) s = sill__fail(err, SILL_ENOMEM, "no memory for %zu ids", ids.n);
        *out = kept;
    }
    if (s == SILL_OK) *n = ids.n;
    sill__ids_free(&ids);
    return s;
}

static sill_status put_lists(const sill_model *m, const values *x, sill_generate_options *o, sill_error *err) {
    sill_status s = SILL_OK;
    for (int i = BAD_WORDS; i <= BIASES && s == SILL_OK; i++)
        if (x->lists[i].file) s = put_sequences(m, &x->lists[i], i, o, err);
    if (s == SILL_OK && x->lists[SUPPRESSED].file)
        s = put_ids(m, x->lists[SUPPRESSED], SUPPRESSED, &o->suppress_tokens, &o->n_suppress, err);
    if (s == SILL_OK && x->lists[SUPPRESSED_FIRST].file)
        s = put_ids(m, x->lists[SUPPRESSED_FIRST], SUPPRESSED_FIRST, &o->begin_suppress_tokens, &o->n_begin_suppress, err);
    return s;
}

/* config.json may be wanted for the task's parameters also where there is a generation_config.json. */
static sill_status open_files(const sill_model *model, files *f, sill_error *err) {
    const char *dir = sill__file_dir(model->file);
    f->model = NULL;
    if (sill__file_get_kind(model->file) == SILL__FILE_GGUF || sill__file_config(model->file)) return SILL_OK; /* holds no such parameters */
    sill_status s = open_source(dir, FILE_CONFIG, &f->config, err);
    if (s == SILL_ENOENT) return sill__fail(err, s, "%s is not there any more", f->config.path);
    if (s == SILL_OK) s = refuse_prefix(whole(&f->config), err);
    if (s == SILL_OK) s = open_source(dir, FILE_GENERATION, &f->generation, err);
    if (s != SILL_OK && s != SILL_ENOENT) return s;
    f->model = s == SILL_OK ? &f->generation : &f->config;
    return SILL_OK;
}

sill_status sill_generate_preset(const sill_model *model, const char *name, sill_generate_options *out, sill_error *err) {
    sill_generate_options o;
    files *f = NULL;
    values merged;
    size_t size;
    if (!model || !name || !out)
        return sill__fail(err, SILL_EINVAL, "sill_generate_preset: model, name and out must not be NULL");
    bool is_4 = !strcmp(name, "hf-4"), is_5 = !strcmp(name, "hf-5");
    if (!is_4 && !is_5 && strcmp(name, "hf-5-generate") != 0)
        return sill__fail(err, SILL_EINVAL, "there is no preset \"%.60s\"; known are hf-4, hf-5 and hf-5-generate", name);
    sill_status s = sill__options_read(out, &o, sizeof o, "sill_generate_options", err);
    if (s != SILL_OK) return s;
    size = out->size;
    f = sill__calloc(1, sizeof *f);
    if (!f) return sill__fail(err, SILL_ENOMEM, "no memory for the preset");
    s = open_files(model, f, err);
    if (s == SILL_OK) s = is_4 ? merge_4(f, &merged, err) : merge_5(f, is_5, &merged, err);
    if (s == SILL_OK) s = put_options(f, &merged, &o, err);
    if (s == SILL_OK) s = put_lists(model, &merged, &o, err);
    if (s == SILL_OK) {
        o.size = size;
        memcpy(out, &o, size);
    }
    sill__free(f->generation.text);
    sill__free(f->config.text);
    sill__free(f);
    return s;
}
