/*
 * plan.c - the sizes of a session and whether they fit, decided before anything is allocated.
 *
 * The rule. A session takes KV blocks for at least one sequence of n_ctx tokens (and the partial blocks of its
 * forks). With more sequences in flight it takes max_sequences * min(n_ctx, 512) tokens, but where that is more
 * than one sequence needs, no more than the larger of 256 MiB and the weights. What the options leave open
 * (32 sequences, 512 tokens a batch) is halved step by step until it fits; what they name is kept and refused. Where a device
 * has a greatest size of a buffer, the cache has no more blocks than that, and what needs more is refused.
 */
#include "engine/internal.h"

#include <stdio.h>

#define DEFAULT_SEQUENCES 32
#define DEFAULT_BATCH 512
#define TYPICAL_TOKENS 512 /* of a sequence in flight */
#define KV_FLOOR ((uint64_t)256 << 20)
#define MAX_SEQUENCES 4096
#define MAX_BATCH 65536
#define MIB(bytes) ((double)(bytes) / 1048576.0)

sill_status sill__kv_type_for(sill_kv_dtype wanted, sill__compute compute, sill__kv_type *out, sill_error *err) {
    switch (wanted) {
    case SILL_KV_AUTO: *out = compute == SILL__COMPUTE_F32 ? SILL__KV_F32 : SILL__KV_F16; return SILL_OK;
    case SILL_KV_F32: *out = SILL__KV_F32; return SILL_OK;
    case SILL_KV_F16: *out = SILL__KV_F16; return SILL_OK;
    case SILL_KV_INT8: *out = SILL__KV_I8; return SILL_OK;
    }
    return sill__fail(err, SILL_EINVAL, "kv_dtype %d is none of sill_kv_dtype's values", (int)wanted);
}

sill_status sill__session_options_read(const sill_session_options *in, sill_session_options *out, sill_error *err) {
    sill_status st = sill__options_read(in, out, sizeof *out, "sill_session_options", err);
    if (st != SILL_OK) return st;
    if (out->n_ctx < 0 || out->batch_tokens < 0 || out->max_sequences < 0)
        return sill__fail(err, SILL_EINVAL, "session options: n_ctx %d, batch_tokens %d, max_sequences %d must not be "
                          "negative", out->n_ctx, out->batch_tokens, out->max_sequences);
    if (out->batch_tokens > MAX_BATCH || out->max_sequences > MAX_SEQUENCES)
        return sill__fail(err, SILL_ERANGE, "session options: batch_tokens %d (at most %d), max_sequences %d (at most %d)",
                          out->batch_tokens, MAX_BATCH, out->max_sequences, MAX_SEQUENCES);
    return SILL_OK;
}

/* Puts n elements of `bytes` each behind *end, 256-aligned; returns where. *ok is cleared on overflow. */
static size_t place(size_t *end, size_t n, size_t m, size_t bytes, bool *ok) {
    size_t at = *end, size;
    if (!sill__mul(n, m, &size) || !sill__mul(size, bytes, &size) || !sill__add(at, size, end) ||
        !sill__add(*end, 255, end))
        *ok = false;
    *end &= ~(size_t)255;
    return at;
}

/* Sizes for one choice of n_ctx, batch_tokens and max_sequences (set in *l). False when they overflow. */
static bool lay_out(sill__layout *l, const sill__config *c, const sill__backend *ops, const sill__device *device,
                    sill__kv_type kv, uint64_t weight_bytes) {
    size_t tokens = (size_t)l->batch_tokens, rows = (size_t)l->max_sequences;
    bool ok = true;
    int32_t one = sill__blocks_needed(l->n_ctx) + 2, typical = sill__blocks_needed(SILL_MIN(l->n_ctx, TYPICAL_TOKENS)) + 1;
    l->n_vocab = c->n_vocab;
    l->n_labels = c->n_labels;
    l->n_handles = 2 * l->max_sequences + 4;
    l->max_targets = l->batch_tokens + SILL__MAX_LAST_TARGETS;
    l->kv = (sill__kv_shape){.n_layers = c->n_layers, .n_kv_heads = c->n_kv_heads, .head_dim = c->head_dim, .type = kv,
                             .n_blocks = 1};
    uint64_t block = ops->kv_bytes(device, &l->kv), cap = SILL_MAX(KV_FLOOR, weight_bytes) / SILL_MAX(block, 1);
    int64_t want = l->max_sequences == 1 ? 0 : (int64_t)typical * l->max_sequences;
    const uint64_t most = ops->largest ? ops->largest(device) : UINT64_MAX;
    cap = SILL_MIN(cap, most / SILL_MAX(block, 1));
    if ((uint64_t)want > cap) want = (int64_t)cap;
    l->kv.n_blocks = (int32_t)SILL_MAX(want, one);
    l->kv_bytes = ops->kv_bytes(device, &l->kv);
    if (block == UINT64_MAX || l->kv_bytes == UINT64_MAX) return false;

    int32_t q_width = c->n_heads * c->head_dim;
    int32_t max_width = SILL_MAX(SILL_MAX(q_width + 2 * c->n_kv_heads * c->head_dim, 2 * c->n_ff),
                                 SILL_MAX(c->n_embd, c->n_labels));
    l->work_bytes = l->out_bytes = 0;
    l->x = place(&l->work_bytes, tokens, (size_t)c->n_embd, 4, &ok);
    l->q = place(&l->work_bytes, tokens, (size_t)q_width, 4, &ok);
    l->attn = place(&l->work_bytes, tokens, (size_t)q_width, 4, &ok);
    l->ff = place(&l->work_bytes, tokens, (size_t)c->n_ff, 4, &ok);
    l->logits = place(&l->out_bytes, rows, (size_t)c->n_vocab, 4, &ok);
    l->lse = place(&l->out_bytes, rows, 1, 4, &ok);
    l->target_logprobs = place(&l->out_bytes, (size_t)l->max_targets, 1, 4, &ok);
    /* the top of rows with logits, of those without and of those drawn from have each their own place */
    l->top_ids = place(&l->out_bytes, (ops->sample ? 3 : 2) * rows, SILL__MAX_TOP, 4, &ok);
    l->top_logprobs = place(&l->out_bytes, (ops->sample ? 3 : 2) * rows, SILL__MAX_TOP, 4, &ok);
    size_t ring = ops->take_ids ? SILL__AHEAD_RINGS * (size_t)SILL_MIN(l->max_sequences, SILL__AHEAD_SPANS) : 0;
    l->ring_ids = place(&l->out_bytes, ring, SILL__AHEAD_TOP, 4, &ok);
    l->ring_logprobs = place(&l->out_bytes, ring, SILL__AHEAD_TOP, 4, &ok);
    l->drawn_ids = place(&l->out_bytes, ops->sample ? rows + ring : 0, 1, 4, &ok);
    l->drawn_logprobs = place(&l->out_bytes, ops->sample ? rows + ring : 0, 1, 4, &ok);
    l->hidden = place(&l->out_bytes, tokens, (size_t)c->n_embd, 4, &ok);
    l->scores = place(&l->out_bytes, rows, (size_t)c->n_labels, 4, &ok);
    l->queue = (sill__queue_shape){.path = l->path, .max_tokens = l->batch_tokens, .max_out = SILL_MAX(l->batch_tokens, l->max_sequences),
                                   .max_width = max_width, .max_vocab = c->n_vocab};
    uint64_t queue = ops->queue_bytes(device, &l->queue);
    uint64_t tables = (uint64_t)l->n_handles * (uint64_t)sill__blocks_needed(l->n_ctx) * 4 + (uint64_t)l->max_targets * 16;
    /* Generating: the ids of every slot, what comes of each new token, and the sampler. */
    uint64_t positions = (uint64_t)l->kv.n_blocks * SILL__KV_BLOCK + (uint64_t)l->n_ctx;
    l->call_bytes = (2 * (uint64_t)l->max_sequences + 1) * ((uint64_t)l->n_ctx * 4 + 1024) + positions * 32 +
                    (uint64_t)c->n_vocab * 40;
    l->scratch_bytes = l->work_bytes + l->out_bytes + queue + tables + l->call_bytes;
    /* a queue's scratch is one buffer but for little */
    l->largest_bytes = SILL_MAX(SILL_MAX(l->kv_bytes, (uint64_t)l->work_bytes), SILL_MAX((uint64_t)l->out_bytes, queue));
    l->in_pieces = l->largest_bytes <= most;
    return ok && queue != UINT64_MAX && l->scratch_bytes >= queue;
}

static bool fits(const sill__layout *l, uint64_t room) {
    return l->in_pieces && l->kv_bytes <= room && l->scratch_bytes <= room - l->kv_bytes;
}

/* The next smaller choice of one kind that fits, in words. */
static void advise(char *out, size_t cap, const sill__layout *l, const sill__config *c, const sill__backend *ops,
                   const sill__device *device, sill__kv_type kv, uint64_t weight_bytes, uint64_t room) {
    sill__layout t = *l;
    if (!l->in_pieces) {
        int n = snprintf(out, cap, "%s takes %.1f MiB in one piece, and the %s device at most %.1f; ",
                         l->largest_bytes == l->kv_bytes ? "the KV cache" : "scratch", MIB(l->largest_bytes), ops->name,
                         MIB(ops->largest(device)));
        out += n;
        cap -= (size_t)n;
    }
    if (room == 0) {
        snprintf(out, cap, "the weights alone need %.0f MiB; choose a smaller type (--dtype) or model", MIB(weight_bytes));
        return;
    }
    while (t.max_sequences > 1 || t.batch_tokens > 64) {
        t.max_sequences = SILL_MAX(1, t.max_sequences / 2);
        t.batch_tokens = t.batch_tokens > 64 ? SILL_MAX(64, t.batch_tokens / 2) : t.batch_tokens;
        if (lay_out(&t, c, ops, device, kv, weight_bytes) && fits(&t, room)) {
            snprintf(out, cap, "max_sequences %d with batch_tokens %d would fit", t.max_sequences, t.batch_tokens);
            return;
        }
    }
    for (; t.n_ctx > 32; t.n_ctx /= 2)
        if (lay_out(&t, c, ops, device, kv, weight_bytes) && fits(&t, room)) {
            snprintf(out, cap, "n_ctx %d with max_sequences %d and batch_tokens %d would fit", t.n_ctx, t.max_sequences,
                     t.batch_tokens);
            return;
        }
    snprintf(out, cap, "choose a smaller type (--dtype) or model, or end other programs");
}

sill_status sill__layout_plan(const sill__config *config, const sill__backend *ops, const sill__device *device,
                              sill__kv_type kv, const sill_session_options *options, uint64_t weight_bytes,
                              uint64_t weights_to_come, uint64_t available, sill__layout *layout,
                              sill_plan_info *plan, sill_error *err) {
    memset(layout, 0, sizeof *layout);
    memset(plan, 0, sizeof *plan);
    if (options->n_ctx > config->n_ctx)
        return sill__fail(err, SILL_ERANGE, "n_ctx %d is more than the %d positions that the model was made for",
                          options->n_ctx, config->n_ctx);
    layout->n_ctx = options->n_ctx ? options->n_ctx : config->n_ctx;
    layout->max_sequences = options->max_sequences ? options->max_sequences : DEFAULT_SEQUENCES;
    layout->batch_tokens = options->batch_tokens ? options->batch_tokens : DEFAULT_BATCH;
    layout->path = options->interactive ? SILL__PATH_LATENCY : SILL__PATH_BATCH;
    if (available == 0) available = UINT64_MAX / 2; /* the system does not tell */
    uint64_t room = available > weights_to_come ? available - weights_to_come : 0;
    if (options->memory_limit_bytes) room = SILL_MIN(room, options->memory_limit_bytes);
    for (;;) {
        if (!lay_out(layout, config, ops, device, kv, weight_bytes)) {
            const sill__need need = {.kv = kv, .act = config->act, .rope = config->rope, .rope_dims = config->rope_dims,
                                     .n_heads = config->n_heads, .n_kv_heads = config->n_kv_heads, .head_dim = config->head_dim,
                                     .n_vocab = config->n_vocab};
            sill_status st = ops->supports(device, &need, err); /* what the device does not take has no size there */
            if (st != SILL_OK) return st;
            return sill__fail(err, SILL_ERANGE, "a session of %d sequences, %d tokens a batch and %d positions is too "
                              "large to count in bytes", layout->max_sequences, layout->batch_tokens, layout->n_ctx);
        }
        if (room && fits(layout, room)) {
            plan->fits = 1;
            break;
        }
        bool fewer = !options->max_sequences && layout->max_sequences > 1;
        bool smaller = !options->batch_tokens && layout->batch_tokens > 64;
        if (!fewer && !smaller) break;
        if (fewer) layout->max_sequences /= 2;
        if (smaller) layout->batch_tokens /= 2;
    }
    plan->weight_bytes = weight_bytes;
    plan->kv_bytes = layout->kv_bytes;
    plan->scratch_bytes = layout->scratch_bytes;
    plan->total_bytes = weight_bytes + layout->kv_bytes + layout->scratch_bytes;
    plan->available_bytes = available == UINT64_MAX / 2 ? 0 : available;
    plan->n_ctx = layout->n_ctx;
    plan->batch_tokens = layout->batch_tokens;
    plan->max_sequences = layout->max_sequences;
    if (!plan->fits) advise(plan->advice, sizeof plan->advice, layout, config, ops, device, kv, weight_bytes, room);
    return SILL_OK;
}

/* Loading is over before a session begins, so the greater of the two counts. */
static void count_import(sill_plan_info *plan, uint64_t import) {
    if (import == 0) return;
    plan->total_bytes = SILL_MAX(plan->total_bytes, plan->weight_bytes + import);
    if (!plan->fits || !plan->available_bytes || plan->weight_bytes + import <= plan->available_bytes) return;
    plan->fits = 0;
    snprintf(plan->advice, sizeof plan->advice, "loading the largest matrix takes %.0f MiB on top of the weights; choose a smaller model",
             MIB(import));
}

typedef struct plan_job { sill__file *file; const sill__config *config; sill_model_options model; sill_session_options session; } plan_job;

/* On an open device. */
static sill_status plan_on(const plan_job *j, const sill__backend *ops, sill__device *device, sill_plan_info *plan, sill_error *err) {
    sill__compute compute;
    sill__kv_type kv = SILL__KV_F32;
    sill__layout layout;
    uint64_t weights = 0, import = 0;
    sill_status st;
    if ((st = sill__model_compute(j->file, j->model.dtype, &compute, err)) != SILL_OK ||
        (st = sill__kv_type_for(j->session.kv_dtype, compute, &kv, err)) != SILL_OK ||
        (st = sill__model_weight_bytes(j->file, j->config, ops, device, j->model.dtype, &weights, &import, err)) != SILL_OK)
        return st;
    uint64_t limit = sill__device_available(ops, device, j->model.memory_limit_bytes);
    st = sill__layout_plan(j->config, ops, device, kv, &j->session, weights, weights, limit, &layout, plan, err);
    if (st == SILL_OK) count_import(plan, import);
    return st;
}

/* Of the device that loading takes: where it is ours to choose, the first that the model and the session fit. */
static sill_status plan_somewhere(const plan_job *j, sill_plan_info *plan, sill_error *err) {
    sill__use use;
    const sill__device_options options = {.n_threads = j->model.n_threads, .use = &use}; /* scratch grows with the threads */
    char passed_over[sizeof plan->passed_over] = "";
    sill_error why = {.code = SILL_OK};
    sill_status made = sill__model_use(j->file, j->config, j->model.dtype, &use, err);
    if (made != SILL_OK) return made;
    for (const sill__backend *ops = NULL;;) {
        sill__device *device = NULL;
        sill_status st = sill__device_open(j->model.device, &options, false, ops, &ops, &device, &why);
        if (st == SILL_OK) st = plan_on(j, ops, device, plan, &why);
        if (device) ops->close(device);
        if (st == SILL_OK) {
            snprintf(plan->device, sizeof plan->device, "%s", ops->name);
            memcpy(plan->passed_over, passed_over, sizeof passed_over);
        }
        if ((st == SILL_OK && plan->fits) || !device || !sill__device_may_pass(j->model.device, ops, st == SILL_OK ? SILL_ENOFIT : st)) {
            if (st != SILL_OK && err) *err = why;
            return st;
        }
        if (st == SILL_OK)
            snprintf(passed_over, sizeof passed_over, "device %s: %.1f MiB are needed and %.1f MiB are free; %s", ops->name,
                     MIB(plan->total_bytes), MIB(plan->available_bytes), plan->advice);
        else snprintf(passed_over, sizeof passed_over, "device %s: %.290s", ops->name, why.msg);
    }
}

sill_status sill_plan(const char *path, const sill_model_options *mo, const sill_session_options *so,
                      sill_plan_info *plan, sill_error *err) {
    plan_job j = {.file = NULL};
    const sill__backend *ops = NULL;
    sill__config config = {0};
    sill_status st;
    if (!path || !*path || !plan) return sill__fail(err, SILL_EINVAL, "sill_plan: path and plan must not be NULL");
    memset(plan, 0, sizeof *plan);
    if ((st = sill__options_read(mo, &j.model, sizeof j.model, "sill_model_options", err)) != SILL_OK) return st;
    if ((st = sill__session_options_read(so, &j.session, err)) != SILL_OK ||
        (st = sill__backend_find(j.model.device, &ops, err)) != SILL_OK ||
        (st = sill__file_open(path, &j.file, err)) != SILL_OK)
        return st;
    j.config = &config;
    if ((st = sill__config_read(j.file, &config, err)) == SILL_OK) st = plan_somewhere(&j, plan, err);
    sill__config_free(&config);
    sill__file_close(j.file);
    return st;
}
