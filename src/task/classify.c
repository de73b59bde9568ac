/*
 * classify.c - labels for texts. Zero-shot and few-shot: the log-likelihood of each label as the continuation of a prompt. The
 * first token of every label is read off the prompt's last row; labels of more tokens continue forks of the prompt.
 * Multi-label: each label's question is a fork of what comes before the questions, and yes and no are read off its last row.
 * What all rows begin with is computed once. Models with a classification head, and no labels: head.c.
 */
#include "task/classify.h"

typedef sill__cls cls;
typedef sill__cls_row cls_row;
typedef sill__cls_text cls_text;

static void start_prompt(cls *c, cls_row *row, sill__lane *lane) {
    int32_t n = (int32_t)row->ids.n, same = 0, longest = c->n_longer ? n + c->longest - 1 : 0;
    int32_t most = SILL_MIN(n - 1, (int32_t)c->prefix.n);
    while (same < most && row->ids.p[same] == c->prefix.p[same]) same++;
    if (c->shared < 0) same = 0;
    lane->base = same ? c->shared : -1;
    lane->base_n = same;
    lane->tokens = row->ids.p + same;
    lane->n = n - same;
    if (!c->multi) {
        lane->last_targets = c->first_ids;
        lane->n_last_targets = c->n_labels;
    }
    for (int32_t k = 0; c->multi && k < c->n_forks; k++) longest = SILL_MAX(longest, n + (int32_t)(row->fork_starts[k + 1] - row->fork_starts[k]));
    lane->max_length = n;
    lane->fork_length = longest;
    row->n_open = c->n_forks;
    lane->user = row;
}

/* The piece is finished; its text, where that was the last. */
static sill_status finish(cls *c, cls_row *row, sill_error *err) {
    cls_text *text = row->text;
    row->used = false;
    text->n_open--;
    return text->n_open == 0 && text != c->current ? sill__cls_deliver(c, text, err) : SILL_OK;
}

static sill_status take(void *user, const sill_row *in, sill_error *why) {
    cls *c = user;
    cls_text *text = NULL;
    for (int32_t i = 0; i < c->n_rows && !text; i++)
        if (!c->texts[i].used) text = &c->texts[i];
    if (!text) return SILL__BUG(why, "no slot for a text");
    sill_status st = sill__cls_text_begin(c, in, text, why);
    text->used = st == SILL_OK;
    if (text->used) c->current = text;
    return st;
}

static sill_status not_taken(void *user, uint64_t index, const sill_error *why, sill_error *err) { return sill__cls_failed(user, index, why, err); }

static sill_status next_lane(void *user, sill__lane *lane, bool *got, sill_error *err) {
    cls *c = user;
    const sill__pull pull = {.next = c->next, .user = c->user, .task = c, .take = take, .failed = not_taken};
    sill_status st;
    for (;;) {
        sill_error why = {0};
        cls_row *row = NULL;
        if (!c->current && ((st = sill__row_pull(&pull, got, err)) != SILL_OK || !*got)) return st;
        for (int32_t i = 0; i < c->n_rows && !row; i++)
            if (!c->rows[i].used) row = &c->rows[i];
        if (!row) return SILL__BUG(err, "no slot for a piece");
        cls_text *text = c->current;
        if ((st = sill__cls_text_piece(c, row, got, &why)) == SILL_OK && *got) {
            row->used = true;
            text->n_open++;
            start_prompt(c, row, lane);
            return SILL_OK;
        }
        if (sill__is_fatal(st)) {
            if (err) *err = why;
            return st;
        }
        if (st != SILL_OK) text->why = why;
        c->current = NULL;
        if (text->n_open == 0 && (st = sill__cls_deliver(c, text, err)) != SILL_OK) return st;
    }
}

static sill_status refuse(void *user, sill__lane *lane, int64_t need, int64_t have, sill_error *err) {
    cls *c = user;
    cls_row *row = lane->user;
    sill__fail(&row->text->why, SILL_ENOFIT, "the prompt and its labels need %lld positions and the session has room for %lld",
               (long long)need, (long long)have);
    if (c->current == row->text) c->current = NULL;
    return finish(c, row, err);
}

static sill_status rows_done(void *user, sill__lane *lane, const sill__span *span, int32_t at, bool last,
                             sill__fed *then, sill_error *err) {
    cls *c = user;
    cls_row *row = lane->user;
    double *sums = sill__cls_sums(c, row);
    (void)at;
    *then = SILL__FED_DONE;
    if (lane->parent) { /* a longer label: its tokens after the first; a question: the first of both words, or all of one */
        for (int32_t i = 0; span->targets && i < span->n - span->first_out; i++)
            sums[lane->index] += (double)span->target_logprobs[i];
        for (int32_t i = 0; last && i < lane->n_last_targets; i++)
            sums[i * c->n_labels + lane->index] = (double)span->target_logprobs[i];
        return last && --row->n_open == 0 ? finish(c, row, err) : SILL_OK;
    }
    if (!last) return SILL_OK;
    for (int32_t i = 0; !c->multi && i < c->n_labels; i++) sums[i] = (double)span->target_logprobs[i];
    if (!c->n_forks) return finish(c, row, err);
    lane->n_forks = c->n_forks;
    *then = SILL__FED_FORK;
    return SILL_OK;
}

static sill_status fork_lane(void *user, sill__lane *parent, int32_t i, sill__lane *child, sill_error *err) {
    cls *c = user;
    cls_row *row = parent->user;
    (void)err;
    child->user = row;
    if (!c->multi) {
        int32_t label = c->longer[i];
        child->tokens = c->label_ids.p + c->starts[label];
        child->n = (int32_t)sill__cls_length(c, label) - 1;
        child->targets = child->tokens + 1;
        child->index = label;
        return SILL_OK;
    }
    child->tokens = row->forks.p + row->fork_starts[i];
    child->n = (int32_t)(row->fork_starts[i + 1] - row->fork_starts[i]);
    child->index = i;
    if (!c->n_longer) {
        child->last_targets = c->first_ids;
        child->n_last_targets = 2;
        return SILL_OK;
    }
    int32_t word = i % 2;
    child->first_out = child->n - (int32_t)sill__cls_length(c, word);
    child->targets = c->label_ids.p + c->starts[word];
    child->index = word * c->n_labels + i / 2;
    return SILL_OK;
}

/* ------------------------------------------------------------ the call */

static sill_status read_words(cls *c, sill_error *err) {
    sill_status st;
    c->longest = 1;
    for (int32_t i = 0; i < c->n_kinds; i++) {
        c->starts[i] = c->label_ids.n;
        if ((st = sill__prompt_label(&c->prompt, c->words[i], &c->label_ids, err)) != SILL_OK) return st;
        int32_t n = (int32_t)(c->label_ids.n - c->starts[i]);
        if (n > 1) c->longer[c->n_longer++] = i;
        c->longest = SILL_MAX(c->longest, n);
        for (int32_t j = 0; j < i; j++)
            if (c->starts[j + 1] - c->starts[j] == (size_t)n &&
                !memcmp(c->label_ids.p + c->starts[j], c->label_ids.p + c->starts[i], (size_t)n * sizeof(int32_t)))
                return sill__fail(err, SILL_EINVAL, "labels %d and %d are the same: \"%.80s\"", j + 1, i + 1, c->words[i]);
        c->starts[i + 1] = c->label_ids.n;
    }
    for (int32_t i = 0; i < c->n_kinds; i++) c->first_ids[i] = c->label_ids.p[c->starts[i]];
    c->n_forks = !c->multi ? c->n_longer : c->n_longer ? 2 * c->n_labels : c->n_labels;
    return SILL_OK;
}

/* Computes the tokens that the prompts of all rows begin with. Found as what two prompts of different texts share: where
 * a text changes the tokens before it, those are not in. */
static sill_status share_prefix(cls *c, sill_error *err) {
    sill__ids other = {0};
    sill_row a = {.text = "a", .n_bytes = 1}, b = {.text = "1", .n_bytes = 1};
    sill_status st = sill__prompt_ids(&c->prompt, &a, 0, &c->prefix, err);
    if (st == SILL_OK) st = sill__prompt_ids(&c->prompt, &b, 0, &other, err);
    size_t n = 0;
    while (st == SILL_OK && n < c->prefix.n && n < other.n && c->prefix.p[n] == other.p[n]) n++;
    sill__ids_free(&other);
    c->prefix.n = n;
    if (st == SILL_OK && n >= (size_t)c->n_ctx)
        return sill__fail(err, SILL_ERANGE, "the prompt has %zu tokens before the row's text, and the session %d positions for all; leave "
                          "examples out, or give a longer context (--ctx)", n, c->n_ctx);
    if (st != SILL_OK || n == 0) return st;
    if ((c->shared = sill__seq_new(c->session)) < 0) return SILL__BUG(err, "no sequence for the shared prefix");
    size_t chunk = (size_t)sill__session_batch_tokens(c->session);
    for (size_t at = 0; at < c->prefix.n && st == SILL_OK; at += chunk) {
        sill__span span = {.seq = c->shared, .tokens = c->prefix.p + at, .n = (int32_t)SILL_MIN(chunk, c->prefix.n - at)};
        st = sill__step(c->session, &span, 1, err);
    }
    return st;
}

typedef struct one_row { sill_row row; bool given; } one_row;

static int one_next(void *user, sill_row *row) {
    one_row *o = user;
    if (o->given) return 0;
    o->given = true;
    *row = o->row;
    return 1;
}

static sill__prompt_spec prompt_spec(const cls *c) {
    const sill_classify_options *o = &c->o;
    return (sill__prompt_spec){.template = o->prompt, .book = o->codebook, .labels = c->labels, .n_labels = (size_t)c->n_labels,
                               .no_chat = o->no_chat != 0, .chat = o->chat != 0, .multi_label = c->multi, .tokenize_flags = o->tokenize_flags};
}

/* The words and where their sums go. */
static sill_status make_words(cls *c, sill_error *err) {
    size_t n = (size_t)c->n_labels, kinds = c->multi ? 2 : n;
    c->n_kinds = (int32_t)kinds;
    c->n_words = c->multi ? 2 * c->n_labels : c->n_labels;
    c->words = sill__calloc(kinds, sizeof *c->words);
    c->starts = sill__calloc(kinds + 1, sizeof *c->starts);
    c->first_ids = sill__calloc(kinds, sizeof *c->first_ids);
    c->longer = sill__calloc(kinds, sizeof *c->longer);
    c->content_free = sill__calloc((size_t)c->n_words, sizeof *c->content_free);
    if (!c->words || !c->starts || !c->first_ids || !c->longer || !c->content_free)
        return sill__fail(err, SILL_ENOMEM, "no memory for %zu labels", n);
    for (size_t i = 0; i < kinds; i++) {
        const sill__book_label *l = c->o.codebook ? &c->o.codebook->labels[i] : NULL;
        c->words[i] = c->multi ? sill__yes_no[i] : l && l->word ? l->word : c->labels[i];
    }
    return read_words(c, err);
}

static sill_status prepare_labels(cls *c, const sill__task *task, sill_error *err) {
    const char *text = c->o.content_free ? c->o.content_free : "N/A";
    one_row only = {.row = {.text = text, .n_bytes = strlen(text)}};
    sill__prompt_spec spec = prompt_spec(c);
    sill_status st = sill__prompt_init(&c->prompt, c->model, &spec, err);
    if (st == SILL_OK) st = make_words(c, err);
    if (st != SILL_OK) return st;
    for (int32_t i = 0; i < c->n_rows; i++) {
        if (c->multi) c->rows[i].prompt_starts = sill__calloc((size_t)c->n_labels + 1, sizeof(size_t));
        if (c->multi) c->rows[i].fork_starts = sill__calloc((size_t)c->n_forks + 1, sizeof(size_t));
        if (c->multi && (!c->rows[i].fork_starts || !c->rows[i].prompt_starts))
            return sill__fail(err, SILL_ENOMEM, "no memory for %d labels", c->n_labels);
    }
    if (!c->o.no_shared_prefix && (st = share_prefix(c, err)) != SILL_OK) return st;
    sill_next_fn next = c->next;
    void *user = c->user;
    c->next = one_next;
    c->user = &only;
    st = sill__sched_run(c->session, task, err);
    c->next = next;
    c->user = user;
    return st;
}

/* ---- options */

static sill_status check_numbers(const sill_classify_options *o, sill_error *err) {
    if ((unsigned)o->prob > SILL_PROB_CALIBRATED)
        return sill__fail(err, SILL_EINVAL, "prob %d is none of sill_prob's values", (int)o->prob);
    if ((unsigned)o->head_function > SILL_HEAD_NONE)
        return sill__fail(err, SILL_EINVAL, "head_function %d is none of sill_head_function's values", (int)o->head_function);
    if (isnan(o->needs_human_below))
        return sill__fail(err, SILL_EINVAL, "needs_human_below is NaN, expected a number");
    if (!(o->threshold >= 0 && o->threshold <= 1))
        return sill__fail(err, SILL_ERANGE, "threshold is %g, expected a probability (0: 0.5)", (double)o->threshold);
    if (!(o->min_confidence >= 0 && o->min_confidence <= 1))
        return sill__fail(err, SILL_ERANGE, "min_confidence is %g, expected a probability (0: none)", (double)o->min_confidence);
    if ((unsigned)o->long_policy > SILL_LONG_SPLIT_MEAN)
        return sill__fail(err, SILL_EINVAL, "long_policy %d is none of sill_long's values", (int)o->long_policy);
    return SILL_OK;
}

static sill_status check_head(cls *c, sill_error *err) {
    sill_classify_options *o = &c->o;
    sill__problem problem = c->model->config.problem;
    if (!c->model->score)
        return sill__fail(err, SILL_EINVAL, "no labels were given, and the model has no classification head of its own");
    c->n_labels = c->model->config.n_labels;
    if (problem == SILL__PROBLEM_REGRESSION && (o->multi_label || o->head_function == SILL_HEAD_SOFTMAX || o->head_function == SILL_HEAD_SIGMOID))
        return sill__fail(err, SILL_EUNSUPPORTED, "the model's head is made for regression: its outputs are values, no labels");
    if (o->multi_label && o->head_function != SILL_HEAD_AUTO && o->head_function != SILL_HEAD_SIGMOID)
        return sill__fail(err, SILL_EINVAL, "multi_label takes the sigmoid of a head's outputs, no other head_function");
    if (o->head_function == SILL_HEAD_AUTO)
        o->head_function = problem == SILL__PROBLEM_REGRESSION ? SILL_HEAD_NONE
                         : problem == SILL__PROBLEM_MULTI || o->multi_label || c->n_labels == 1 ? SILL_HEAD_SIGMOID : SILL_HEAD_SOFTMAX;
    c->multi = o->head_function == SILL_HEAD_SIGMOID && (c->n_labels > 1 || problem == SILL__PROBLEM_MULTI || o->multi_label);
    return SILL_OK;
}

sill_status sill__cls_options(cls *c, const sill_classify_options *options, sill_error *err) {
    sill_classify_options *o = &c->o;
    sill_status st = sill__options_read(options, o, sizeof *o, "sill_classify_options", err);
    if (st == SILL_OK) st = check_numbers(o, err);
    if (st != SILL_OK) return st;
    if (o->labels && o->codebook)
        return sill__fail(err, SILL_EINVAL, "labels and a codebook were given; a codebook has its own labels");
    if (o->chat && o->no_chat) return sill__fail(err, SILL_EINVAL, "chat and no_chat exclude each other");
    c->labels = o->codebook ? o->codebook->names : o->labels;
    size_t n = o->codebook ? o->codebook->n_labels : o->n_labels;
    if (!c->labels) return check_head(c, err);
    if (n == 0 || n > SILL__MAX_LAST_TARGETS)
        return sill__fail(err, SILL_ERANGE, "%zu labels, expected 1 to %d", n, SILL__MAX_LAST_TARGETS);
    for (size_t i = 0; i < n; i++)
        if (!c->labels[i] || !*c->labels[i]) return sill__fail(err, SILL_EINVAL, "label %zu is empty", i + 1);
    if (!c->model->head)
        return sill__fail(err, SILL_EUNSUPPORTED, "the model has a classification head and no language-model head: it gives "
                          "its own labels, not others");
    c->n_labels = (int32_t)n;
    c->multi = o->multi_label || (o->codebook && o->codebook->multi_label);
    return SILL_OK;
}

void sill__cls_free(cls *c) {
    for (int32_t i = 0; c->rows && i < c->n_rows; i++) {
        sill__ids_free(&c->rows[i].ids);
        sill__ids_free(&c->rows[i].forks);
        sill__free(c->rows[i].fork_starts);
        sill__free(c->rows[i].prompt_starts);
    }
    for (int32_t i = 0; c->texts && i < c->n_rows; i++) {
        sill__free(c->texts[i].sums);
        sill__free(c->texts[i].weights);
    }
    sill__prompt_free(&c->prompt);
    sill__ids_free(&c->label_ids);
    sill__ids_free(&c->prefix);
    sill__ids_free(&c->scratch);
    sill__free(c->words);
    sill__free(c->starts);
    sill__free(c->first_ids);
    sill__free(c->longer);
    sill__free(c->content_free);
    sill__free(c->work);
    sill__free(c->out);
    sill__free(c->mean);
    sill__free(c->chosen);
    sill__free(c->ends);
    sill__free(c->texts);
    sill__free(c->rows);
}

/* ---- the calls */

sill_status sill_classify(sill_session *session, const sill_classify_options *options, sill_next_fn next,
                          sill_classified_fn done, void *user, sill_error *err) {
    if (!session || !next || !done)
        return sill__fail(err, SILL_EINVAL, "sill_classify: session, next and done must not be NULL");
    cls c = {.session = session, .model = sill__session_model(session), .shared = -1, .next = next, .done = done,
             .user = user, .n_ctx = sill__session_n_ctx(session), .n_rows = sill__session_max_sequences(session) + 1};
    sill_status st = sill__cls_options(&c, options, err);
    if (st != SILL_OK) return st;
    c.flags = c.o.tokenize_flags;
    if (c.model->tokenizer && sill__tokenizer_add_bos(c.model->tokenizer)) c.flags |= SILL_TOKENIZE_BOS;
    sill__task task = {.user = &c, .next = next_lane, .refuse = refuse, .rows = rows_done, .fork = fork_lane};
    c.rows = sill__calloc((size_t)c.n_rows, sizeof *c.rows);
    c.texts = sill__calloc((size_t)c.n_rows, sizeof *c.texts);
    c.mean = sill__calloc(4 * (size_t)c.n_labels, sizeof *c.mean);
    c.out = sill__calloc(4 * (size_t)c.n_labels, sizeof *c.out);
    c.work = sill__calloc(2 * (size_t)c.n_labels, sizeof *c.work);
    c.chosen = sill__calloc((size_t)c.n_labels, sizeof *c.chosen);
    if (!c.rows || !c.texts || !c.mean || !c.out || !c.work || !c.chosen) st = sill__fail(err, SILL_ENOMEM, "no memory for %d labels", c.n_labels);
    if (st == SILL_OK && !c.labels) st = sill__cls_head(&c, err);
    if (st == SILL_OK && c.labels) st = prepare_labels(&c, &task, err);
    if (st == SILL_OK && c.labels) st = sill__sched_run(session, &task, err);
    if (c.shared >= 0) sill__seq_free(session, c.shared);
    sill__cls_free(&c);
    return st;
}

/* The prompt and the labels' words, without a session; sill__cls_free either way. */
static sill_status make_prompt(cls *c, const sill_classify_options *options, sill_error *err) {
    sill_status st = sill__cls_options(c, options, err);
    if (st != SILL_OK) return st;
    if (!c->labels) return sill__fail(err, SILL_EINVAL, "a classification head has no prompt; give labels or a codebook");
    sill__prompt_spec spec = prompt_spec(c);
    st = sill__prompt_init(&c->prompt, c->model, &spec, err);
    return st == SILL_OK ? make_words(c, err) : st;
}

sill_status sill__classify_lengths(const sill_model *model, const sill_classify_options *options, size_t *least, size_t *most, sill_error *err) {
    cls c = {.model = model};
    sill_status st = make_prompt(&c, options, err);
    *least = SIZE_MAX;
    *most = 0;
    for (int32_t i = 0; st == SILL_OK && i < c.n_kinds; i++) {
        *least = SILL_MIN(*least, sill__cls_length(&c, i));
        *most = SILL_MAX(*most, sill__cls_length(&c, i));
    }
    sill__cls_free(&c);
    return st;
}

sill_status sill_classify_prompt(const sill_model *model, const sill_classify_options *options, const char *text, size_t n_bytes,
                                 int32_t label, int32_t **ids, size_t *n_ids, size_t *n_prompt, sill_error *err) {
    if (ids) *ids = NULL;
    if (!model || !text || !ids || !n_ids || !n_prompt)
        return sill__fail(err, SILL_EINVAL, "sill_classify_prompt: model, text, ids, n_ids and n_prompt must not be NULL");
    cls c = {.model = model};
    sill_row row = {.text = text, .n_bytes = n_bytes};
    sill__ids out = {0};
    sill_status st = make_prompt(&c, options, err);
    if (st == SILL_OK && (label < 0 || label >= c.n_labels)) st = sill__fail(err, SILL_ERANGE, "label %d, expected 0 to %d", label, c.n_labels - 1);
    if (st == SILL_OK) st = sill__prompt_ids(&c.prompt, &row, c.multi ? (size_t)label : 0, &out, err);
    *n_prompt = out.n;
    int32_t word = c.multi ? 0 : label;
    if (st == SILL_OK) st = sill__ids_put(&out, c.label_ids.p + c.starts[word], sill__cls_length(&c, word), err);
    *n_ids = out.n;
    if (st == SILL_OK) *ids = out.p;
    else sill__ids_free(&out);
    sill__cls_free(&c);
    return st;
}
