/*
 * embed.c - a vector for every row: hidden states behind the model's final norm, of all tokens in the mean (as
 * sentence-transformers pools them, BOS included where the tokenizer adds it) or of the last token alone.
 */
#include "task/windows.h"

typedef struct embedding {
    sill_embed_options o;
    int32_t width;
    float *values; /* (width) */
    sill_embedded_fn done;
    void *user;
} embedding;

static sill_status call_done(embedding *e, const sill_embedded *r, sill_error *err) {
    return e->done(e->user, r) ? sill__fail(err, SILL_ECANCELLED, "cancelled by the caller") : SILL_OK;
}

static sill_status row_done(void *task, const sill__windows_row *row, const double *mean, const sill_error *why, sill_error *err) {
    embedding *e = task;
    sill_error own = {0};
    double square = 0, scale = 1;
    for (int32_t k = 0; mean && k < e->width; k++) square += mean[k] * mean[k];
    if (mean && !(square < (double)INFINITY)) {
        sill__overflowed("the length of the embedding", sqrt(square), &own);
        why = &own;
    }
    if (why) return call_done(e, &(sill_embedded){.index = row->index, .status = why->code, .error = why->msg}, err);
    if (e->o.normalize) scale = 1.0 / fmax(sqrt(square), 1e-12); /* torch.nn.functional.normalize */
    for (int32_t k = 0; k < e->width; k++) e->values[k] = (float)(mean[k] * scale);
    return call_done(e, &(sill_embedded){.index = row->index, .values = e->values, .n_values = e->width, .n_tokens = row->n_tokens,
                                         .n_windows = row->n_windows, .truncated = row->truncated}, err);
}

sill_status sill_embed(sill_session *session, const sill_embed_options *options, sill_next_fn next, sill_embedded_fn done,
                       void *user, sill_error *err) {
    if (!session || !next || !done)
        return sill__fail(err, SILL_EINVAL, "sill_embed: session, next and done must not be NULL");
    const sill_model *model = sill__session_model(session);
    embedding e = {.width = model->config.n_embd, .done = done, .user = user};
    sill_status st = sill__options_read(options, &e.o, sizeof e.o, "sill_embed_options", err);
    if (st != SILL_OK) return st;
    if ((unsigned)e.o.pooling > SILL_POOLING_LAST)
        return sill__fail(err, SILL_EINVAL, "pooling %d is none of sill_pooling's values", (int)e.o.pooling);
    if (!(e.values = sill__calloc((size_t)e.width, sizeof *e.values)))
        return sill__fail(err, SILL_ENOMEM, "no memory for a vector of %d values", e.width);
    sill__windows w = {.session = session, .width = e.width, .all_tokens = e.o.pooling == SILL_POOLING_MEAN,
                       .flags = e.o.tokenize_flags, .long_policy = e.o.long_policy, .what = "embed", .next = next, .user = user,
                       .task = &e, .done = row_done};
    if (model->tokenizer && sill__tokenizer_add_bos(model->tokenizer)) w.flags |= SILL_TOKENIZE_BOS;
    st = sill__windows_run(&w, err);
    sill__free(e.values);
    return st;
}
