/*
 * check_models.c - whole models against the reference: logits at every position of a few texts, and the same bits for the
 * texts alone, together, in pieces, and with one thread.
 */
#include "task/check.h"

#include "engine/engine.h"

#include <stdio.h>

#define N_TEXTS 3
#define ROWS 58 /* of all texts */
#define SEQUENCES 64 /* rows with logits in a step, too */

static const int32_t lengths[N_TEXTS] = {40, 1, 17};

typedef struct variety {
    sill__made_model made;
    sill_dtype dtype;
    sill_kv_dtype kv;
    const char *name;
    double bound;  /* of the greatest difference of a logit, over their root mean square */
    bool open;     /* where activations may be int8 or not: the reference in f32 will do as well */
    bool quick;
} variety;

#define GPT2(type) {"gpt2", SILL__TYPE_##type, SILL__TYPE_##type, 64}
#define LLAMA(type) {"llama", SILL__TYPE_##type, SILL__TYPE_##type, 96}
#define BOUND_F32 1e-4
#define BOUND_F16 4e-3   /* keys and values rounded to f16 fall on either side */
#define BOUND_BF16 0.1
#define BOUND_INT8 0.3  /* so do codes of activations */

static const variety varieties[] = {
    {GPT2(F32), SILL_DTYPE_AUTO, SILL_KV_AUTO, "GPT-2, f32", BOUND_F32, false, true},
    {GPT2(F32), SILL_DTYPE_AUTO, SILL_KV_INT8, "GPT-2, f32, kv int8", 0.1, false, false},
    {GPT2(F16), SILL_DTYPE_AUTO, SILL_KV_AUTO, "GPT-2, f16", BOUND_F16, false, false},
    {GPT2(BF16), SILL_DTYPE_AUTO, SILL_KV_AUTO, "GPT-2, bf16", BOUND_BF16, false, false},
    {GPT2(F32), SILL_DTYPE_Q8, SILL_KV_AUTO, "GPT-2, q8", BOUND_INT8, true, false},
    {GPT2(F32), SILL_DTYPE_INT8, SILL_KV_AUTO, "GPT-2, int8", BOUND_INT8, false, false},
    {LLAMA(F32), SILL_DTYPE_AUTO, SILL_KV_AUTO, "Llama, f32", BOUND_F32, false, true},
    {LLAMA(F32), SILL_DTYPE_F16, SILL_KV_AUTO, "Llama, f16", BOUND_F16, false, false},
    {LLAMA(F32), SILL_DTYPE_BF16, SILL_KV_INT8, "Llama, bf16, kv int8", 0.2, false, false},
    {LLAMA(F32), SILL_DTYPE_Q4, SILL_KV_AUTO, "Llama, q4", BOUND_INT8, true, false},
    {LLAMA(F32), SILL_DTYPE_INT8, SILL_KV_AUTO, "Llama, int8", BOUND_INT8, false, false},
    {LLAMA(Q4_1), SILL_DTYPE_AUTO, SILL_KV_AUTO, "Llama of Q4_1", BOUND_INT8, true, true},
    {LLAMA(Q4_1), SILL_DTYPE_F32, SILL_KV_AUTO, "Llama of Q4_1 in f32", BOUND_F32, false, false},
    {{"llama", SILL__TYPE_Q4_K, SILL__TYPE_Q6_K, 256}, SILL_DTYPE_AUTO, SILL_KV_AUTO, "Llama of Q4_K, Q6_K", BOUND_INT8, true, false},
    {{"llama", SILL__TYPE_Q5_0, SILL__TYPE_Q8_0, 96}, SILL_DTYPE_F32, SILL_KV_F16, "Llama of Q5_0, Q8_0 in f32", BOUND_F16, false, false},
};

/* Where a model is run. */
typedef struct place { const sill__backend *ops; const sill__device_options *device; sill_dtype dtype; sill_kv_dtype kv; } place;

/* ------------------------------------------------------------------- running */

static int32_t token_of(int text, int32_t pos, int32_t vocab) { return (text * 331 + pos * 17 + pos * pos) % vocab; }

static sill_status open_session(sill__file *file, const place *p, sill_model **model, sill_session **session, sill_error *err) {
    sill_session_options so = {.size = sizeof so, .n_ctx = 64, .batch_tokens = 64, .max_sequences = SEQUENCES, .kv_dtype = p->kv};
    *session = NULL;
    sill_status s = sill__model_load_on(file, p->ops, p->device, p->dtype, model, err);
    if (s != SILL_OK) return s;
    so.n_ctx = SILL_MIN(so.n_ctx, (*model)->config.n_ctx);
    s = sill_session_create(*model, &so, session, err);
    if (s == SILL_OK) return s;
    sill_model_free(*model);
    *model = NULL;
    return s;
}

static sill_status alone(sill_session *session, float *out, sill_error *err) {
    int32_t vocab = sill__session_model(session)->config.n_vocab, ids[64];
    sill_status s = SILL_OK;
    for (int text = 0; text < N_TEXTS && s == SILL_OK; text++) {
        for (int32_t i = 0; i < lengths[text]; i++) ids[i] = token_of(text, i, vocab);
        s = sill_logits(session, ids, (size_t)lengths[text], out, err);
        out += (size_t)lengths[text] * (size_t)vocab;
    }
    return s;
}

/* All texts in two steps: 25 + 1 + 5 tokens, then the rest of the longer two; or their last tokens one by one. */
static sill_status together(sill_session *session, bool one_by_one, float *out, sill_error *err) {
    size_t vocab = (size_t)sill__session_model(session)->config.n_vocab, at[N_TEXTS] = {0, 40, 41};
    int32_t ids[64], have[N_TEXTS] = {0};
    sill__seq seqs[N_TEXTS];
    sill_status s = SILL_OK;
    for (int i = 0; i < N_TEXTS; i++) seqs[i] = sill__seq_new(session);
    while (s == SILL_OK && (have[0] < lengths[0] || have[2] < lengths[2])) {
        sill__span spans[N_TEXTS];
        int which[N_TEXTS], n = 0;
        int32_t *p = ids;
        for (int text = N_TEXTS - 1; text >= 0; text--) {
            const int32_t left = lengths[text] - have[text], first[N_TEXTS] = {25, 1, 5}, all_but_3[N_TEXTS] = {37, 1, 14};
            int32_t take = have[text] ? (one_by_one ? 1 : left) : one_by_one ? all_but_3[text] : first[text];
            if (left == 0) continue;
            for (int32_t i = 0; i < take; i++) p[i] = token_of(text, have[text] + i, (int32_t)vocab);
            spans[n] = (sill__span){.seq = seqs[text], .tokens = p, .n = take, .first_out = take, .all_logits = true};
            which[n++] = text;
            p += take;
        }
        s = sill__step(session, spans, n, err);
        for (int i = 0; i < n && s == SILL_OK; i++) {
            int text = which[i];
            memcpy(out + (at[text] + (size_t)have[text]) * vocab, spans[i].logits, (size_t)spans[i].n * vocab * sizeof *out);
            have[text] += spans[i].n;
        }
    }
    for (int i = 0; i < N_TEXTS; i++)
        if (seqs[i] >= 0) sill__seq_free(session, seqs[i]);
    return s;
}

static sill_status reference(const char *bytes, size_t n, const variety *v, sill_dtype dtype, float *out, sill_error *err) {
    sill_model *model = NULL;
    sill_session *session = NULL;
    sill__file *file;
    place p = {sill__backend_ref(), NULL, dtype, v->kv};
    if (v->kv == SILL_KV_AUTO && dtype != v->dtype) p.kv = SILL_KV_F16;
    sill_status s = sill__file_open_memory(bytes, n, v->name, &file, err);
    if (s == SILL_OK) s = open_session(file, &p, &model, &session, err);
    if (s == SILL_OK) s = alone(session, out, err);
    sill_session_free(session);
    sill_model_free(model);
    return s;
}

/* ----------------------------------------------------------------- comparing */

static void differ(sill__check_target *t, const variety *v, const char *how) {
    sill__check_line *bits = sill__check_line_of(t, "same bits, models");
    if (!bits) return;
    bits->bits = true;
    bits->n_cases++;
    if (how) sill__check_fail(bits, "%s: %s", v->name, how);
}

/* The target's logits in OUT, those of other ways compared with them bit for bit. MORE has as much room. */
static sill_status on_target(sill__check_target *t, const sill__device_options *device, const char *bytes, size_t n, const variety *v,
                             size_t n_logits, float *out, float *more, sill_error *err) {
    sill__device_options one = *device;
    one.n_threads = 1;
    for (int round = 0; round < 2; round++) { /* the threads that were asked for, then one */
        sill_model *model = NULL;
        sill_session *session = NULL;
        sill__file *file;
        place p = {t->ops, round ? &one : device, v->dtype, v->kv};
        sill_status s = sill__file_open_memory(bytes, n, v->name, &file, err);
        if (s == SILL_OK) s = open_session(file, &p, &model, &session, err);
        if (s == SILL_OK) s = alone(session, round ? more : out, err);
        if (s == SILL_OK && round) differ(t, v, memcmp(out, more, n_logits * sizeof *out) ? "other bits with one thread" : NULL);
        for (int way = 0; way < 2 && s == SILL_OK && !round; way++) {
            memset(more, 0, n_logits * sizeof *more);
            s = together(session, way == 1, more, err);
            if (s == SILL_OK)
                differ(t, v, memcmp(out, more, n_logits * sizeof *out) ? way ? "other bits token by token" : "other bits together" : NULL);
        }
        sill_session_free(session);
        sill_model_free(model);
        if (s != SILL_OK) return s;
    }
    return SILL_OK;
}

/* What the device refuses is skipped, what it does wrong is the line's; memory is the check's own trouble. */
static sill_status settle(sill__check_line *line, const char *name, sill_status s, const sill_error *why, sill_error *err) {
    if (s == SILL_ENOMEM || s == SILL_ENOFIT) {
        if (err) *err = *why;
        return s;
    }
    if (s == SILL_EUNSUPPORTED) {
        if (line && !line->n_skipped++) snprintf(line->skipped_why, sizeof line->skipped_why, "%.190s", why->msg);
    } else if (line) {
        line->n_cases++;
        sill__check_fail(line, "%s: %s", name, why->msg);
    }
    return SILL_OK;
}

/* A model as bytes, and what the reference makes of it: once for all targets. */
typedef struct made { const variety *v; char *bytes; size_t n, n_logits; float *want, *other, *got; } made;

static sill_status make(made *m, sill_error *err) {
    const variety *v = m->v;
    m->n_logits = (size_t)ROWS * 1009;
    sill_status s = sill__made_model_write(&v->made, &m->bytes, &m->n, err);
    if (s == SILL_OK && !(m->want = sill__alloc(4 * m->n_logits * sizeof *m->want))) s = sill__fail(err, SILL_ENOMEM, "no memory for logits");
    if (s != SILL_OK) return s;
    m->other = m->want + m->n_logits;
    m->got = m->other + m->n_logits;
    s = reference(m->bytes, m->n, v, v->dtype, m->want, err);
    if (s == SILL_OK && v->open && v->made.type != SILL__TYPE_F32) s = reference(m->bytes, m->n, v, SILL_DTYPE_F32, m->other, err);
    return s;
}

static sill_status check_made(sill__check_target *t, const sill__device_options *device, const made *m, sill_error *err) {
    const variety *v = m->v;
    sill_error why = {.code = SILL_OK};
    char line_name[40];
    double from = sill__now();
    snprintf(line_name, sizeof line_name, "%s", v->name);
    sill__check_line *line = sill__check_line_of(t, line_name);
    sill_status s = on_target(t, device, m->bytes, m->n, v, m->n_logits, m->got, m->got + m->n_logits, &why);
    if (s == SILL_OK) {
        double e = sill__check_distance(m->got, m->want, m->n_logits);
        if (v->open && v->made.type != SILL__TYPE_F32) e = SILL_MIN(e, sill__check_distance(m->got, m->other, m->n_logits));
        sill__check_note(line, v->name, e, v->bound);
    } else {
        s = settle(line, v->name, s, &why, err);
    }
    t->seconds += sill__now() - from;
    return s;
}

sill_status sill__check_models(sill__check_target *targets, const sill__device_options *const *devices, int n_targets,
                               sill__check_level level, sill__check_progress progress, void *user, sill_error *err) {
    sill_status s = SILL_OK;
    for (size_t i = 0; i < SILL_ARRAY_LEN(varieties) && s == SILL_OK; i++) {
        made m = {.v = &varieties[i]};
        if (level != SILL__CHECK_FULL && !varieties[i].quick) continue;
        s = make(&m, err);
        for (int k = 0; k < n_targets && s == SILL_OK; k++)
            if (!targets[k].stopped) s = check_made(&targets[k], devices[k], &m, err);
        sill__free(m.want);
        sill__free(m.bytes);
        if (s == SILL_OK && progress && progress(user, (double)(i + 1) / SILL_ARRAY_LEN(varieties)))
            s = sill__fail(err, SILL_ECANCELLED, "the check was cancelled");
    }
    return s;
}

/* ------------------------------------------------------------ the user's own */

#define MAX_IDS 12
static const char text[] = "The film was good, but nobody in the room had expected it to be";

static sill_status file_logits(const char *path, const place *p, int32_t *n_ids, float **out, size_t *n_logits, double *bound,
                               bool *open, sill_error *err) {
    sill_model *model = NULL;
    sill_session *session = NULL;
    sill__file *file;
    int32_t ids[256];
    size_t n = 0;
    sill_status s = sill__file_open(path, &file, err);
    if (s == SILL_OK) s = open_session(file, p, &model, &session, err);
    if (s != SILL_OK) return s;
    if (!model->head) s = sill__fail(err, SILL_EUNSUPPORTED, "%s has no language-model head", path);
    if (model->tokenizer && s == SILL_OK) (void)!sill_tokenize(model->tokenizer, text, sizeof text - 1, 0, ids, SILL_ARRAY_LEN(ids), &n, NULL);
    n = SILL_MIN(n, (size_t)MAX_IDS);
    for (; n < MAX_IDS; n++) ids[n] = token_of(1, (int32_t)n, model->config.n_vocab); /* no tokenizer */
    n = SILL_MIN(n, (size_t)model->config.n_ctx);
    *n_ids = (int32_t)n;
    *n_logits = n * (size_t)model->config.n_vocab;
    *open = model->compute == SILL__COMPUTE_BLOCK_I8;
    *bound = model->compute >= SILL__COMPUTE_BLOCK_I8 ? 0.25 : model->compute == SILL__COMPUTE_BF16 ? BOUND_BF16 : BOUND_F16;
    if (model->compute == SILL__COMPUTE_F32) *bound = 5 * BOUND_F32;
    if (s == SILL_OK && !(*out = sill__alloc(*n_logits * sizeof **out))) s = sill__fail(err, SILL_ENOMEM, "no memory for logits");
    if (s == SILL_OK) s = sill_logits(session, ids, n, *out, err);
    sill_session_free(session);
    sill_model_free(model);
    return s;
}

sill_status sill__check_model_file(sill__check_target *t, const sill__device_options *device, const char *path, sill_error *err) {
    float *got = NULL, *want = NULL, *exact = NULL;
    int32_t n_ids = 0;
    size_t n = 0;
    double bound = 0, unused, from = sill__now(), e = 0;
    bool open = false, open_too;
    char where[96];
    sill_error why = {.code = SILL_OK};
    place here = {t->ops, device, SILL_DTYPE_AUTO, SILL_KV_AUTO}, ref = {sill__backend_ref(), NULL, SILL_DTYPE_AUTO, SILL_KV_AUTO};
    sill__check_line *line = sill__check_line_of(t, "your model");
    sill_status s = file_logits(path, &ref, &n_ids, &want, &n, &bound, &open, err);
    sill_status done = s == SILL_OK ? file_logits(path, &here, &n_ids, &got, &n, &unused, &open_too, &why) : s;
    if (s == SILL_OK && done != SILL_OK) s = settle(line, path, done, &why, err);
    if (done == SILL_OK) e = sill__check_distance(got, want, n);
    if (done == SILL_OK && open) { /* with the stored weights exactly, and keys and values as before */
        ref.dtype = SILL_DTYPE_F32;
        ref.kv = SILL_KV_F16;
        s = file_logits(path, &ref, &n_ids, &exact, &n, &unused, &open_too, err);
        if (s == SILL_OK) e = SILL_MIN(e, sill__check_distance(got, exact, n));
    }
    snprintf(where, sizeof where, "logits of %d tokens", (int)n_ids);
    if (s == SILL_OK && done == SILL_OK) sill__check_note(line, where, e, bound);
    sill__free(exact);
    sill__free(want);
    sill__free(got);
    t->seconds += sill__now() - from;
    return s;
}
