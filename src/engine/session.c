/*
 * session.c - making and freeing sessions: every buffer that a step will use is allocated here. Also the logits
 * of one sequence for tests and bindings.
 */
#include "engine/internal.h"

#define MIB(bytes) ((double)(bytes) / 1048576.0)

/* The host arrays of a step, in the session's arena. */
static bool host_arrays(sill_session *s) {
    const sill__layout *l = &s->layout;
    size_t tokens = (size_t)l->batch_tokens, rows = (size_t)l->max_sequences, table = (size_t)sill__blocks_needed(l->n_ctx);
    size_t handles = (size_t)l->n_handles;
    s->tokens = sill__arena_alloc(&s->arena, tokens * sizeof *s->tokens);
    s->positions = sill__arena_alloc(&s->arena, tokens * sizeof *s->positions);
    s->target_starts = sill__arena_alloc(&s->arena, (tokens + 1) * sizeof *s->target_starts);
    s->targets = sill__arena_alloc(&s->arena, (size_t)l->max_targets * sizeof *s->targets);
    s->runs = sill__arena_alloc(&s->arena, handles * sizeof *s->runs);
    s->draws = sill__arena_alloc(&s->arena, rows * sizeof *s->draws);
    s->seqs = sill__arena_alloc(&s->arena, handles * sizeof *s->seqs);
    s->tables = sill__arena_alloc(&s->arena, handles * table * sizeof *s->tables);
    if (!s->tokens || !s->positions || !s->target_starts || !s->targets || !s->runs || !s->draws || !s->seqs || !s->tables)
        return false;
    for (size_t i = 0; i < handles; i++) s->seqs[i].blocks = s->tables + i * table;
    for (int i = 0; i < SILL__N_PASSES; i++) {
        s->passes[i].max_rows = (int32_t)(i == SILL__PASS_TARGETS || i == SILL__PASS_HIDDEN ? tokens : rows);
        s->passes[i].rows = sill__arena_alloc(&s->arena, (size_t)s->passes[i].max_rows * sizeof(int32_t));
        if (!s->passes[i].rows) return false;
    }
    return true;
}

static sill_status device_memory(sill_session *s, sill_error *err) {
    const sill__backend *ops = s->model->ops;
    sill__device *device = s->model->device;
    const sill__layout *l = &s->layout;
    sill_status st;
    if ((st = ops->kv_create(device, &l->kv, &s->kv, err)) != SILL_OK ||
        (st = ops->buf_create(device, l->work_bytes, &s->work_buf, err)) != SILL_OK ||
        (st = ops->buf_create(device, l->out_bytes, &s->out_buf, err)) != SILL_OK ||
        (st = ops->queue_create(device, &l->queue, &s->queue, err)) != SILL_OK)
        return st;
    s->work = (sill__work){.x = {s->work_buf, l->x}, .q = {s->work_buf, l->q}, .attn = {s->work_buf, l->attn},
                           .ff = {s->work_buf, l->ff}, .kv = s->kv};
    s->out = ops->buf_map(device, s->out_buf);
    if (!s->out) {
        s->out = s->out_copy = sill__alloc_pages(l->out_bytes);
        if (!s->out) return sill__fail(err, SILL_ENOMEM, "no memory for %zu bytes of results", l->out_bytes);
    }
    return SILL_OK;
}

sill_status sill_session_create(sill_model *model, const sill_session_options *options, sill_session **out,
                                sill_error *err) {
    sill_session_options o;
    sill_plan_info plan;
    sill__kv_type kv = SILL__KV_F32;
    sill_session *s = NULL;
    sill_status st;
    if (out) *out = NULL;
    if (!model || !out) return sill__fail(err, SILL_EINVAL, "sill_session_create: model and out must not be NULL");
    if ((st = sill__session_options_read(options, &o, err)) != SILL_OK ||
        (st = sill__kv_type_for(o.kv_dtype, model->compute, &kv, err)) != SILL_OK)
        return st;
    if (!(s = sill__calloc(1, sizeof *s))) return sill__fail(err, SILL_ENOMEM, "no memory for a session");
    s->model = model;
    s->ahead.patience = SILL__AHEAD_SECONDS;
    uint64_t available = sill__device_available(model->ops, model->device, o.memory_limit_bytes);
    st = sill__layout_plan(&model->config, model->ops, model->device, kv, &o, model->weight_bytes, 0, available,
                           &s->layout, &plan, err);
    if (st != SILL_OK) goto fail;
    if (!plan.fits) {
        st = sill__fail(err, SILL_ENOFIT, "a session needs %.1f MiB (KV %.1f, scratch %.1f) for %d sequences, %d tokens "
                        "a batch and %d positions, but %.1f MiB are %s; %s", MIB(plan.kv_bytes + plan.scratch_bytes),
                        MIB(plan.kv_bytes), MIB(plan.scratch_bytes), plan.max_sequences, plan.batch_tokens, plan.n_ctx,
                        MIB(available), o.memory_limit_bytes ? "allowed" : "free", plan.advice);
        goto fail;
    }
    s->limited = o.memory_limit_bytes != 0;
    s->spare_bytes = s->layout.call_bytes;
    if (available == 0) s->spare_bytes = UINT64_MAX; /* the system does not tell */
    else if (available > plan.kv_bytes + plan.scratch_bytes) s->spare_bytes += available - plan.kv_bytes - plan.scratch_bytes;
    if (!host_arrays(s)) {
        st = sill__fail(err, SILL_ENOMEM, "no memory for the tables of a session");
        goto fail;
    }
    if ((st = sill__blocks_init(&s->blocks, s->layout.kv.n_blocks, err)) != SILL_OK ||
        (st = device_memory(s, err)) != SILL_OK)
        goto fail;
    *out = s;
    return SILL_OK;
fail:
    sill_session_free(s);
    return st;
}

void sill_session_free(sill_session *s) {
    if (!s) return;
    const sill__backend *ops = s->model->ops;
    sill__device *device = s->model->device;
    if (s->out_copy) sill__free_pages(s->out_copy, s->layout.out_bytes);
    if (s->queue) ops->queue_free(device, s->queue);
    if (s->out_buf) ops->buf_free(device, s->out_buf);
    if (s->work_buf) ops->buf_free(device, s->work_buf);
    if (s->kv) ops->kv_free(device, s->kv);
    sill__blocks_free(&s->blocks);
    sill__arena_free(&s->arena);
    sill__free(s);
}

const sill_model *sill__session_model(const sill_session *s) { return s->model; }
int32_t sill__session_n_ctx(const sill_session *s) { return s->layout.n_ctx; }
int32_t sill__session_batch_tokens(const sill_session *s) { return s->layout.batch_tokens; }
int32_t sill__session_max_sequences(const sill_session *s) { return s->layout.max_sequences; }
uint64_t sill__session_n_computed(const sill_session *s) { return s->n_computed; }
int32_t sill__session_max_targets(const sill_session *s) { return s->layout.max_targets; }
bool sill__session_draws(const sill_session *s) { return s->model->ops->sample != NULL; }

uint64_t sill__session_spare_bytes(const sill_session *s) {
    uint64_t now = s->limited ? 0 : sill__available_bytes();
    return now ? SILL_MIN(now, s->spare_bytes) : s->spare_bytes;
}

/* Rows of logits or hidden states of one sequence, in chunks that the session has room for. */
static sill_status all_rows(sill_session *s, const char *name, const int32_t *ids, size_t n_ids, bool hidden, float *out,
                            sill_error *err) {
    sill_status st = SILL_OK;
    if (!s || (n_ids && (!ids || !out))) return sill__fail(err, SILL_EINVAL, "%s: session, ids and out must not be NULL", name);
    if (n_ids > (size_t)s->layout.n_ctx)
        return sill__fail(err, SILL_ERANGE, "%zu tokens are more than the session's %d positions", n_ids, s->layout.n_ctx);
    sill__seq seq = sill__seq_new(s);
    if (seq < 0) return sill__fail(err, SILL_ERANGE, "all %d sequences of the session are in use", s->layout.n_handles);
    size_t chunk = (size_t)(hidden ? s->layout.batch_tokens : SILL_MIN(s->layout.max_sequences, s->layout.batch_tokens));
    size_t width = (size_t)(hidden ? s->model->config.n_embd : s->layout.n_vocab);
    for (size_t at = 0; at < n_ids; at += chunk) {
        size_t n = SILL_MIN(chunk, n_ids - at);
        sill__span span = {.seq = seq, .tokens = ids + at, .n = (int32_t)n, .first_out = (int32_t)n, .all_logits = !hidden,
                           .all_hidden = hidden};
        if ((st = sill__step(s, &span, 1, err)) != SILL_OK) break;
        memcpy(out + at * width, hidden ? span.hidden : span.logits, n * width * sizeof *out);
    }
    sill__seq_free(s, seq);
    return st;
}

sill_status sill_logits(sill_session *s, const int32_t *ids, size_t n_ids, float *out, sill_error *err) {
    return all_rows(s, "sill_logits", ids, n_ids, false, out, err);
}

sill_status sill_hidden_states(sill_session *s, const int32_t *ids, size_t n_ids, float *out, sill_error *err) {
    return all_rows(s, "sill_hidden_states", ids, n_ids, true, out, err);
}
