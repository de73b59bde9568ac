/*
 * classify_pieces.c - see classify.h: a row's text as one prompt or, where that is longer than the session, in pieces.
 *
 * The text is cut where tokens of its own begin, at whole characters; white space where it is cut is left out. Each piece stands
 * in the whole prompt, as a text of its own, and has as many tokens as the prompt leaves room for (fewer by what is too much,
 * where they join with the prompt's into more). SPLIT_MEAN: side by side; WINDOW: each begins in the middle of the one before
 * it. A piece counts with the tokens that it adds.
 */
#include "task/classify.h"

typedef sill__cls cls;
typedef sill__cls_row cls_row;
typedef sill__cls_text cls_text;

static size_t limit_of(const cls *c) { return (size_t)SILL_MAX(0, c->n_ctx - (c->longest - 1)); }

static sill_status too_long(const cls *c, size_t n, sill_error *why) {
    return sill__fail(why, SILL_ERANGE, "the prompt with the text has %zu tokens, more than the %zu that fit into the session's %d "
                      "positions; shorten the text or choose the long policy truncate, window or split-mean (--long truncate)", n, limit_of(c), c->n_ctx);
}

static sill_status text_ids(cls *c, const sill_row *in, uint32_t flags, sill_error *why) {
    c->scratch.n = 0;
    return sill__ids_text(&c->scratch, c->model->tokenizer, in->text, in->n_bytes,
                          flags | (c->prompt.chat ? 0 : c->o.tokenize_flags), why); /* no control tokens inside a message */
}

sill_status sill__cls_text_begin(cls *c, const sill_row *in, cls_text *text, sill_error *why) {
    sill_status st = SILL_OK;
    c->whole = *in;
    c->n_ends = 0;
    text->index = in->index;
    text->truncated = false;
    text->n_pieces = text->n_open = 0;
    text->why = (sill_error){0};
    text->n_tokens = in->n_ids;
    if (!in->ids && in->text && (st = text_ids(c, in, 0, why)) == SILL_OK) text->n_tokens = c->scratch.n;
    return st;
}

/* ---- the prompts of one piece */

/* The prompts of all labels, one behind the other, into row->forks. */
static sill_status all_prompts(cls *c, sill_row *in, cls_row *row, bool cut, size_t *longest, sill_error *why) {
    sill_status st = SILL_OK;
    row->forks.n = 0;
    *longest = 0;
    for (int32_t i = 0; st == SILL_OK && i < c->n_labels; i++) {
        st = cut ? sill__prompt_truncate(&c->prompt, in, (size_t)i, limit_of(c), &c->scratch, why)
                 : sill__prompt_ids(&c->prompt, in, (size_t)i, &c->scratch, why);
        row->prompt_starts[i] = row->forks.n;
        if (st == SILL_OK) st = sill__ids_put(&row->forks, c->scratch.p, c->scratch.n, why);
        *longest = SILL_MAX(*longest, c->scratch.n);
    }
    row->prompt_starts[c->n_labels] = row->forks.n;
    return st;
}

/* What the prompts of all labels begin with goes into row->ids; what each goes on with, and behind it all tokens of yes or no but
 * the last, stays in row->forks: once where both words are one token, else once for each. */
static sill_status cut_prompts(cls *c, cls_row *row, sill_error *why) {
    const int32_t *first = row->forks.p;
    size_t same = row->prompt_starts[1] - 1;
    sill_status st = SILL_OK;
    for (int32_t i = 1; i < c->n_labels; i++) {
        const int32_t *p = row->forks.p + row->prompt_starts[i];
        size_t n = SILL_MIN(same, row->prompt_starts[i + 1] - row->prompt_starts[i] - 1), k = 0;
        while (k < n && p[k] == first[k]) k++;
        same = k;
    }
    if (!same) return sill__fail(why, SILL_EINVAL, "the prompts of the labels have no beginning in common; put words in front of {text}");
    row->ids.n = 0;
    if ((st = sill__ids_put(&row->ids, first, same, why)) != SILL_OK) return st;
    size_t copies = c->n_longer ? 2 : 1;
    c->scratch.n = 0;
    for (int32_t k = 0; st == SILL_OK && k < c->n_forks; k++) {
        size_t label = (size_t)k / copies, word = (size_t)k % copies, from = row->prompt_starts[label] + same;
        row->fork_starts[k] = c->scratch.n;
        st = sill__ids_put(&c->scratch, row->forks.p + from, row->prompt_starts[label + 1] - from, why);
        if (st == SILL_OK && copies == 2) st = sill__ids_put(&c->scratch, c->label_ids.p + c->starts[word], sill__cls_length(c, (int32_t)word) - 1, why);
    }
    row->fork_starts[c->n_forks] = c->scratch.n;
    sill__ids prompts = row->forks;
    row->forks = c->scratch;
    c->scratch = prompts;
    return st;
}

/* The prompt for a text, of multi-label all of them, and the tokens of the longest. */
static sill_status put_prompt(cls *c, sill_row *in, cls_row *row, size_t *n, sill_error *why) {
    if (c->multi) return all_prompts(c, in, row, false, n, why);
    sill_status st = sill__prompt_ids(&c->prompt, in, 0, &row->ids, why);
    *n = row->ids.n;
    return st;
}

static sill_status truncate(cls *c, sill_row *in, cls_row *row, sill_error *why) {
    size_t n;
    if (!c->multi) return sill__prompt_truncate(&c->prompt, in, 0, limit_of(c), &row->ids, why);
    sill_status st = all_prompts(c, in, row, true, &n, why); /* each may shorten the text for those before it */
    if (st == SILL_OK) st = all_prompts(c, in, row, false, &n, why);
    return st == SILL_OK && n > limit_of(c) ? too_long(c, n, why) : st;
}

/* ---- pieces */

/* Room for one piece more, whose sums are zeros. */
static sill_status add_piece(const cls *c, cls_text *text, double weight, sill_error *why) {
    const size_t n = (size_t)text->n_pieces, width = (size_t)c->n_words;
    size_t bytes, all;
    if (n == text->cap) {
        const size_t cap = n ? 2 * n : 1;
        if (cap > INT32_MAX || !sill__mul(cap, width, &all) || !sill__mul(all, sizeof(double), &bytes))
            return sill__fail(why, SILL_ERANGE, "a text of %zu tokens has too many pieces", text->n_tokens);
        double *sums = sill__realloc(text->sums, bytes);
        if (sums) text->sums = sums;
        double *weights = sums ? sill__realloc(text->weights, cap * sizeof *weights) : NULL;
        if (!weights) return sill__fail(why, SILL_ENOMEM, "no memory for the results of %zu pieces", cap);
        text->weights = weights;
        text->cap = cap;
    }
    memset(text->sums + n * width, 0, width * sizeof(double));
    text->weights[n] = weight;
    text->n_pieces++;
    return SILL_OK;
}

/* Where the text's tokens begin. Bytes that the vocabulary has no tokens for may move a cut, but are in a piece. */
static sill_status find_ends(cls *c, sill_error *why) {
    const sill_row *in = &c->whole;
    const sill_tokenizer *t = c->model->tokenizer;
    size_t bytes, n;
    sill_status st = in->ids ? SILL_OK : text_ids(c, in, SILL_TOKENIZE_NO_PREFIX, why);
    if (st != SILL_OK) return st;
    c->n_ends = in->ids ? in->n_ids : c->scratch.n;
    if (c->n_ends >= c->ends_cap) {
        size_t *p = sill__mul(c->n_ends + 1, sizeof *p, &bytes) ? sill__realloc(c->ends, bytes) : NULL;
        if (!p) return sill__fail(why, SILL_ENOMEM, "no memory to cut a text of %zu tokens", c->n_ends);
        c->ends = p;
        c->ends_cap = c->n_ends + 1;
    }
    c->ends[0] = 0;
    for (size_t i = 0; i < c->n_ends; i++) {
        n = 1;
        if (!in->ids && !sill__tokenizer_bytes(t, c->scratch.p[i], &n)) n = 0;
        c->ends[i + 1] = in->ids ? i + 1 : SILL_MIN(in->n_bytes, c->ends[i] + n);
    }
    if (!in->ids) c->ends[c->n_ends] = in->n_bytes;
    return SILL_OK;
}

/* How many tokens the prompt leaves to a piece. */
static sill_status begin_cutting(cls *c, cls_row *row, sill_error *why) {
    sill_row none = c->whole;
    size_t frame;
    none.n_ids = none.n_bytes = 0;
    sill_status st = put_prompt(c, &none, row, &frame, why);
    if (st == SILL_OK && frame >= limit_of(c))
        return sill__fail(why, SILL_ERANGE, "the prompt's template alone has %zu tokens, and %zu fit: no room for a piece of the text", frame, limit_of(c));
    c->body = st == SILL_OK ? limit_of(c) - frame : 0;
    c->at = c->covered = 0;
    return st == SILL_OK ? find_ends(c, why) : st;
}

static sill_row part(const cls *c, size_t from, size_t to) {
    sill_row p = c->whole;
    if (p.ids) {
        p.ids += from;
        p.n_ids = to - from;
        return p;
    }
    size_t begin = sill_utf8_complete(p.text, c->ends[from]), end = sill_utf8_complete(p.text, c->ends[to]);
    if (to == c->n_ends) end = p.n_bytes;
    while (from && begin < end && sill__is_space(p.text[begin])) begin++;
    p.text += begin;
    p.n_bytes = end - begin;
    return p;
}

/* Behind a piece of the tokens [from, to). */
static void go_on(cls *c, size_t from, size_t to) {
    c->covered = to;
    c->at = c->o.long_policy == SILL_LONG_SPLIT_MEAN ? to : from + SILL_MAX((to - from) / 2, 1);
    if (to == c->n_ends) c->current = NULL;
}

/* The next piece that is not white space alone. */
static sill_status next_cut(cls *c, cls_row *row, bool *got, sill_error *why) {
    for (*got = false; c->current;) {
        const size_t from = c->at, limit = limit_of(c);
        for (size_t to = SILL_MIN(from + c->body, c->n_ends), n;;) {
            sill_row p = part(c, from, to);
            if (from && !p.ids && !p.n_bytes) {
                go_on(c, from, to);
                break;
            }
            sill_status st = put_prompt(c, &p, row, &n, why);
            if (st == SILL_OK && n > limit && to == from + 1) st = too_long(c, n, why);
            if (st != SILL_OK) return st;
            if (n <= limit) {
                *got = true;
                st = add_piece(c, c->current, (double)(to - SILL_MAX(from, c->covered)), why);
                go_on(c, from, to);
                return st;
            }
            to -= SILL_MIN(n - limit, to - from - 1);
        }
    }
    return SILL_OK;
}

sill_status sill__cls_text_piece(cls *c, cls_row *row, bool *got, sill_error *why) {
    cls_text *text = c->current;
    sill_row in = c->whole;
    sill_status st = SILL_OK;
    const bool cuts = c->have_content_free && (c->o.long_policy == SILL_LONG_WINDOW || c->o.long_policy == SILL_LONG_SPLIT_MEAN);
    size_t n;
    *got = true;
    if (!c->n_ends) {
        st = put_prompt(c, &in, row, &n, why);
        if (st == SILL_OK && n > limit_of(c)) {
            if (cuts) st = begin_cutting(c, row, why);
            else if (c->o.long_policy == SILL_LONG_TRUNCATE) st = truncate(c, &in, row, why);
            else st = too_long(c, n, why);
            text->truncated = !cuts;
        }
        if (st != SILL_OK) return st;
        if (!c->n_ends) {
            c->current = NULL;
            st = add_piece(c, text, 1, why);
        }
    }
    if (st == SILL_OK && c->n_ends) {
        st = next_cut(c, row, got, why);
        if (!c->current && text->n_pieces == 1) text->truncated = true; /* only white space is left, which is no piece */
    }
    if (st != SILL_OK || !*got) return st;
    row->text = text;
    row->piece = text->n_pieces - 1;
    return c->multi ? cut_prompts(c, row, why) : SILL_OK;
}
