/*
 * step.c - one ragged step: spans of distinct sequences become one batch, the model runs, and what was asked of
 * each row comes back. Nothing is allocated here.
 *
 * Rows are asked for different things: log-probabilities of targets, the best few, full logits, hidden states,
 * scores. Each kind is one pass over its own rows after the layers, so that only rows that want full logits keep
 * them. A batch of one kind, the rule, has one pass.
 */
#include "engine/internal.h"

static sill_status check_ids(const sill_session *s, const int32_t *ids, int32_t n, const char *what, sill_error *err) {
    for (int32_t i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= s->layout.n_vocab)
            return sill__fail(err, SILL_ERANGE, "%s %d is outside the model's vocabulary of %d", what, ids[i],
                              s->layout.n_vocab);
    return SILL_OK;
}

static sill_status check_span(const sill_session *s, const sill__span *p, sill_error *err) {
    if (p->seq < 0 || p->seq >= s->layout.n_handles || !s->seqs[p->seq].used || p->n <= 0 || !p->tokens)
        return SILL__BUG(err, "a span without a sequence or tokens");
    if (p->first_out < 0 || (p->targets && p->n_last_targets) || p->n_top < 0 || p->n_top > SILL__MAX_TOP || p->n_more < 0 ||
        p->n_last < 0 || p->n_last > p->n || (p->n_last > 1 && (p->n_more || p->all_logits)) ||
        (p->draw && (p->want_logits || p->all_logits || !s->model->ops->sample)))
        return SILL__BUG(err, "a span's outputs");
    if (!s->model->head && (p->targets || p->n_last_targets || p->n_top || p->want_logits || p->all_logits || p->draw))
        return sill__fail(err, SILL_EUNSUPPORTED, "the model has no language-model head, only a classification head: it "
                          "can classify, but not generate or score");
    if (!s->model->score && p->want_scores)
        return sill__fail(err, SILL_EUNSUPPORTED, "the model has no classification head");
    if (p->n > s->layout.n_ctx - s->seqs[p->seq].n_tokens)
        return sill__fail(err, SILL_ERANGE, "%d more tokens after %d do not fit into %d positions", p->n,
                          s->seqs[p->seq].n_tokens, s->layout.n_ctx);
    sill_status st = check_ids(s, p->tokens, p->n, "token id", err);
    if (st == SILL_OK && p->targets && p->first_out < p->n)
        st = check_ids(s, p->targets, p->n - p->first_out, "target id", err);
    if (st == SILL_OK) st = check_ids(s, p->last_targets, p->n_last_targets, "target id", err);
    return st;
}

/* Gives every span the blocks it needs; when they run out, those given are taken back. */
static sill_status take_blocks(sill_session *s, const sill__span *spans, int32_t n_spans, sill_error *err) {
    for (int32_t i = 0; i < n_spans; i++) {
        sill__seq_state *q = &s->seqs[spans[i].seq];
        int32_t need = sill__blocks_needed(q->n_tokens + spans[i].n);
        while (q->n_blocks < need) {
            int32_t block = sill__blocks_take(&s->blocks);
            if (block < 0) {
                for (; i >= 0; i--) {
                    q = &s->seqs[spans[i].seq];
                    while (q->n_blocks > sill__blocks_needed(q->n_tokens))
                        sill__blocks_drop(&s->blocks, q->blocks[--q->n_blocks]);
                }
                return sill__fail(err, SILL_ENOFIT, "all %d KV blocks of the session are in use", s->blocks.n);
            }
            q->blocks[q->n_blocks++] = block;
        }
    }
    return SILL_OK;
}

/* Which pass a row that logits, the best or a draw are wanted of belongs to; and how many rows of the span these are. */
static int kind_of(const sill__span *p) { return p->want_logits ? SILL__PASS_LOGITS : p->draw ? SILL__PASS_DRAW : SILL__PASS_TOP; }
static int32_t last_rows(const sill__span *p) { return SILL_MAX(1, p->n_last); }

static bool add_row(sill__pass *pass, int32_t row, int32_t n_top) {
    if (pass->n_rows == pass->max_rows) return false;
    pass->rows[pass->n_rows++] = row;
    pass->n_top = SILL_MAX(pass->n_top, n_top);
    return true;
}

/* Adds the span's output rows to the passes; its first row in the batch is `first`. */
static bool add_outputs(sill_session *s, const sill__span *p, int32_t first, int32_t *n_targets) {
    int32_t last = first + p->n - 1;
    sill__pass *t = &s->passes[SILL__PASS_TARGETS];
    bool ok = true;
    if (p->targets)
        for (int32_t i = p->first_out; i < p->n && ok; i++) {
            if (*n_targets == s->layout.max_targets) return false;
            s->target_starts[t->n_rows] = *n_targets;
            s->targets[(*n_targets)++] = p->targets[i - p->first_out];
            ok = add_row(t, first + i, 0);
        }
    if (p->n_last_targets) {
        if (p->n_last_targets > s->layout.max_targets - *n_targets) return false;
        s->target_starts[t->n_rows] = *n_targets;
        memcpy(s->targets + *n_targets, p->last_targets, (size_t)p->n_last_targets * sizeof *s->targets);
        *n_targets += p->n_last_targets;
        ok = ok && add_row(t, last, 0);
    }
    if (p->all_logits)
        for (int32_t i = 0; i < p->n; i++) ok = ok && add_row(&s->passes[SILL__PASS_LOGITS], first + i, 0);
    else if (p->want_logits || p->draw || p->n_top)
        for (int32_t i = 0, n = last_rows(p); i < n && ok; i++) {
            sill__pass *pass = &s->passes[kind_of(p)];
            if (!(ok = add_row(pass, last - n + 1 + i, p->n_top)) || kind_of(p) != SILL__PASS_DRAW) continue;
            s->draws[pass->n_rows - 1] = *p->draw;
            s->draws[pass->n_rows - 1].step += (uint32_t)i;
        }
    if (p->all_hidden)
        for (int32_t i = 0; i < p->n; i++) ok = ok && add_row(&s->passes[SILL__PASS_HIDDEN], first + i, 0);
    else if (p->want_hidden) ok = ok && add_row(&s->passes[SILL__PASS_HIDDEN], last, 0);
    if (p->want_scores) ok = ok && add_row(&s->passes[SILL__PASS_SCORES], last, 0);
    return ok;
}

/* The best of each kind of pass have a place of their own, and so have steps in the ring, whose results are read later. */
sill__places sill__result_places(const sill__layout *l, int kind, int32_t ring) {
    const size_t rows = (size_t)l->max_sequences, few = (size_t)SILL_MIN(l->max_sequences, SILL__AHEAD_SPANS);
    const size_t top = (kind == SILL__PASS_LOGITS ? 0 : kind == SILL__PASS_TOP ? 1 : 2) * rows * SILL__MAX_TOP * 4;
    const size_t in_ring = ring < 0 ? 0 : (size_t)ring * few * SILL__AHEAD_TOP * 4;
    const size_t drawn = ring < 0 ? 0 : (rows + (size_t)ring * few) * 4;
    return (sill__places){.top_ids = ring < 0 ? l->top_ids + top : l->ring_ids + in_ring,
                          .top_logprobs = ring < 0 ? l->top_logprobs + top : l->ring_logprobs + in_ring,
                          .drawn_ids = l->drawn_ids + drawn, .drawn_logprobs = l->drawn_logprobs + drawn};
}
static sill__places places_of(const sill_session *s, int kind) {
    const bool in_ring = s->ahead.last.n && (kind == SILL__PASS_TOP || kind == SILL__PASS_DRAW);
    return sill__result_places(&s->layout, kind, in_ring ? s->ahead.last.ring : -1);
}

void sill__record_rows(sill_session *s, const sill__places *at, int32_t n_top, const sill__sample_row *draws) {
    const sill_model *m = s->model;
    const sill__layout *l = &s->layout;
    const size_t behind = (size_t)s->passes[SILL__PASS_LOGITS].n_rows * (size_t)l->n_vocab * 4;
    sill__op_head head = {.in = s->work.x, .norm = m->norm_f, .w = m->head, .bias = m->head_b, .n_vocab = l->n_vocab, .n_top = n_top};
    if (n_top) head.top_ids = (sill__ref){s->out_buf, at->top_ids};
    if (n_top) head.top_logprobs = (sill__ref){s->out_buf, at->top_logprobs};
    if (draws) head.logits = (sill__ref){s->out_buf, l->logits + behind};
    m->ops->head(s->queue, &head);
    if (draws)
        m->ops->sample(s->queue, &(sill__op_sample){.logits = head.logits, .n_vocab = l->n_vocab, .rows = draws,
                                                    .ids = {s->out_buf, at->drawn_ids}, .logprobs = {s->out_buf, at->drawn_logprobs}});
}

static void record_pass(sill_session *s, int kind) {
    const sill_model *m = s->model;
    const sill__layout *l = &s->layout;
    const sill__pass *pass = &s->passes[kind];
    if (kind == SILL__PASS_HIDDEN) {
        sill__op_tap tap = {.in = s->work.x, .out = {s->out_buf, l->hidden}, .norm = m->norm_f,
                            .width = m->config.n_embd, .rows = SILL__ROWS_OUT};
        m->ops->tap(s->queue, &tap);
        return;
    }
    if (kind == SILL__PASS_SCORES) {
        sill__op_linear score = {.in = s->work.x, .out = {s->out_buf, l->scores}, .rows = SILL__ROWS_OUT,
                                 .norm = m->norm_f, .w = m->score, .bias = m->score_b};
        m->ops->linear(s->queue, &score);
        return;
    }
    const sill__places at = places_of(s, kind);
    if (kind == SILL__PASS_TOP || kind == SILL__PASS_DRAW) {
        sill__record_rows(s, &at, pass->n_top, kind == SILL__PASS_DRAW ? s->draws : NULL);
        return;
    }
    sill__op_head head = {.in = s->work.x, .norm = m->norm_f, .w = m->head, .bias = m->head_b, .n_vocab = l->n_vocab};
    if (kind == SILL__PASS_TARGETS) {
        head.target_starts = s->target_starts;
        head.targets = s->targets;
        head.target_logprobs = (sill__ref){s->out_buf, l->target_logprobs};
    }
    if (kind == SILL__PASS_LOGITS) {
        head.logits = (sill__ref){s->out_buf, l->logits};
        head.lse = (sill__ref){s->out_buf, l->lse};
    }
    if (pass->n_top) {
        head.n_top = pass->n_top;
        head.top_ids = (sill__ref){s->out_buf, at.top_ids};
        head.top_logprobs = (sill__ref){s->out_buf, at.top_logprobs};
    }
    m->ops->head(s->queue, &head);
}

/* Records the layers and the passes, and waits. */
static sill_status run(sill_session *s, const sill__batch *batch, bool ahead, sill_error *err) {
    const sill__backend *ops = s->model->ops;
    sill_status st = SILL_OK, ended;
    sill__ticket ticket = 0;
    bool forwarded = false;
    for (int k = 0; k <= SILL__N_PASSES && st == SILL_OK; k++) {
        /* One round more where no row is wanted: the layers still have to run. */
        sill__pass *pass = k < SILL__N_PASSES ? &s->passes[k] : NULL;
        if (pass ? pass->n_rows == 0 : forwarded) continue;
        sill__batch *b = pass ? &pass->batch : &s->passes[0].batch;
        *b = *batch;
        b->n_out = pass ? pass->n_rows : 0;
        b->out_rows = pass ? pass->rows : NULL;
        ops->begin(s->queue, b);
        if (!forwarded) sill__model_forward(s->model, s->queue, &s->work);
        forwarded = true;
        if (pass) record_pass(s, k);
        st = ops->submit(s->queue, &ticket, err);
    }
    if (st == SILL_OK && ahead) sill__ahead_follow(s);
    ended = ops->wait(s->queue, ticket, st == SILL_OK ? err : NULL);
    return st != SILL_OK ? st : ended;
}

sill_status sill__fetch(sill_session *s, size_t at, size_t bytes, sill_error *err) {
    if (!s->out_copy || !bytes) return SILL_OK;
    if (s->model->ops->buf_read(s->model->device, (sill__ref){s->out_buf, at}, s->out + at, bytes) != SILL_OK)
        return sill__fail(err, SILL_EDEVICE, "cannot read %zu bytes of results from the device", bytes);
    return SILL_OK;
}

static sill_status fetch_all(sill_session *s, int32_t n_targets, sill_error *err) {
    const sill__layout *l = &s->layout;
    sill_status st = sill__fetch(s, l->target_logprobs, (size_t)n_targets * 4, err);
    size_t logits = (size_t)s->passes[SILL__PASS_LOGITS].n_rows;
    if (st == SILL_OK) st = sill__fetch(s, l->logits, logits * (size_t)l->n_vocab * 4, err);
    if (st == SILL_OK) st = sill__fetch(s, l->lse, logits * 4, err);
    for (int k = SILL__PASS_TOP; k <= SILL__PASS_DRAW; k++) {
        size_t n = (size_t)s->passes[k].n_rows * (size_t)s->passes[k].n_top * 4;
        const sill__places at = places_of(s, k);
        if (st == SILL_OK) st = sill__fetch(s, at.top_ids, n, err);
        if (st == SILL_OK) st = sill__fetch(s, at.top_logprobs, n, err);
    }
    const size_t drawn = (size_t)s->passes[SILL__PASS_DRAW].n_rows * 4;
    const sill__places at = places_of(s, SILL__PASS_DRAW);
    if (st == SILL_OK) st = sill__fetch(s, at.drawn_ids, drawn, err);
    if (st == SILL_OK) st = sill__fetch(s, at.drawn_logprobs, drawn, err);
    if (st == SILL_OK)
        st = sill__fetch(s, l->hidden, (size_t)s->passes[SILL__PASS_HIDDEN].n_rows * (size_t)s->model->config.n_embd * 4, err);
    if (st == SILL_OK)
        st = sill__fetch(s, l->scores, (size_t)s->passes[SILL__PASS_SCORES].n_rows * (size_t)l->n_labels * 4, err);
    return st;
}

/* Hands the results out in the order in which add_outputs took the rows. */
static void scatter(sill_session *s, sill__span *spans, int32_t n_spans) {
    const sill__layout *l = &s->layout;
    size_t targets = 0, row[SILL__N_PASSES] = {0};
    for (int32_t i = 0; i < n_spans; i++) {
        sill__span *p = &spans[i];
        const int kind = kind_of(p);
        const size_t n_last = (size_t)last_rows(p);
        const sill__places at = places_of(s, kind);
        p->target_logprobs = p->logits = p->lse = p->hidden = p->scores = p->top_logprobs = p->drawn_logprob = NULL;
        p->top_ids = p->drawn_id = NULL;
        p->top_stride = s->passes[kind].n_top;
        size_t n = (p->targets ? (size_t)SILL_MAX(0, p->n - p->first_out) : 0) + (size_t)p->n_last_targets;
        if (n) p->target_logprobs = (const float *)(void *)(s->out + l->target_logprobs) + targets;
        targets += n;
        if (p->n_top && !p->all_logits) {
            size_t tops = row[kind] * (size_t)s->passes[kind].n_top * 4;
            p->top_ids = (const int32_t *)(void *)(s->out + at.top_ids + tops);
            p->top_logprobs = (const float *)(void *)(s->out + at.top_logprobs + tops);
        }
        if (p->want_logits || p->all_logits) {
            size_t r = row[SILL__PASS_LOGITS];
            p->logits = (const float *)(void *)(s->out + l->logits) + r * (size_t)l->n_vocab;
            p->lse = (const float *)(void *)(s->out + l->lse) + r;
            row[SILL__PASS_LOGITS] += p->all_logits ? (size_t)p->n : n_last;
        } else if (p->draw) {
            p->drawn_id = (const int32_t *)(void *)(s->out + at.drawn_ids) + row[SILL__PASS_DRAW];
            p->drawn_logprob = (const float *)(void *)(s->out + at.drawn_logprobs) + row[SILL__PASS_DRAW];
            row[SILL__PASS_DRAW] += n_last;
        } else if (p->n_top) {
            row[SILL__PASS_TOP] += n_last;
        }
        if (p->want_hidden || p->all_hidden) {
            p->hidden = (const float *)(void *)(s->out + l->hidden) + row[SILL__PASS_HIDDEN] * (size_t)s->model->config.n_embd;
            row[SILL__PASS_HIDDEN] += p->all_hidden ? (size_t)p->n : 1;
        }
        if (p->want_scores)
            p->scores = (const float *)(void *)(s->out + l->scores) + row[SILL__PASS_SCORES]++ * (size_t)l->n_labels;
    }
}

sill_status sill__step(sill_session *s, sill__span *spans, int32_t n_spans, sill_error *err) {
    sill_status st;
    int32_t n_tokens = 0, n_targets = 0;
    if (s->fork_error.code != SILL_OK) {
        if (err) *err = s->fork_error;
        st = s->fork_error.code;
        memset(&s->fork_error, 0, sizeof s->fork_error);
        return st;
    }
    if (n_spans <= 0 || n_spans > s->layout.n_handles) return SILL__BUG(err, "number of spans");
    for (int32_t i = 0; i < n_spans; i++) {
        if ((st = check_span(s, &spans[i], err)) != SILL_OK) return st;
        if (spans[i].n > s->layout.batch_tokens - n_tokens) return SILL__BUG(err, "more tokens than batch_tokens");
        n_tokens += spans[i].n;
    }
    if (sill__ahead_take(s, spans, n_spans, &st, err)) return st;
    const bool ahead = sill__ahead_begin(s, spans, n_spans);
    for (int k = 0; k < SILL__N_PASSES; k++) s->passes[k].n_rows = s->passes[k].n_top = 0;
    n_tokens = 0;
    for (int32_t i = 0; i < n_spans; i++) {
        const sill__span *p = &spans[i];
        const sill__seq_state *q = &s->seqs[p->seq];
        if (!add_outputs(s, p, n_tokens, &n_targets)) return SILL__BUG(err, "more output rows than the session has room for");
        s->runs[i] = (sill__run){.first = n_tokens, .n = p->n, .pos = q->n_tokens, .blocks = q->blocks};
        memcpy(s->tokens + n_tokens, p->tokens, (size_t)p->n * sizeof *s->tokens);
        for (int32_t j = 0; j < p->n; j++) s->positions[n_tokens + j] = q->n_tokens + j;
        n_tokens += p->n;
    }
    if (s->passes[SILL__PASS_LOGITS].n_rows > s->layout.max_sequences - s->passes[SILL__PASS_DRAW].n_rows)
        return SILL__BUG(err, "more rows of logits than the session has room for");
    s->target_starts[s->passes[SILL__PASS_TARGETS].n_rows] = n_targets;
    if ((st = take_blocks(s, spans, n_spans, err)) != SILL_OK) return st;
    sill__batch batch = {.n_tokens = n_tokens, .n_runs = n_spans, .tokens = s->tokens, .positions = s->positions,
                         .runs = s->runs};
    st = run(s, &batch, ahead, err);
    if (st == SILL_OK) st = fetch_all(s, n_targets, err);
    if (st != SILL_OK) {
        sill__ahead_stop(s);
        for (int32_t i = 0; i < n_spans; i++) {
            sill__seq_state *q = &s->seqs[spans[i].seq];
            while (q->n_blocks > sill__blocks_needed(q->n_tokens)) sill__blocks_drop(&s->blocks, q->blocks[--q->n_blocks]);
        }
        return st;
    }
    for (int32_t i = 0; i < n_spans; i++) s->seqs[spans[i].seq].n_tokens += spans[i].n;
    s->n_computed += (uint64_t)n_tokens;
    scatter(s, spans, n_spans);
    return SILL_OK;
}
