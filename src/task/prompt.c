/* prompt.c - see prompt.h. */
#include "task/prompt.h"

static const char hole[] = "{text}";
/* Chosen on film-review sentences with SmolLM2-135M-Instruct: a statement that the label completes does far better with
 * small models than a list of labels to choose from. */
static const char default_template[] = "Text: {text}\nThis text is";
static const char default_question[] = "Text: {text}\nQuestion: Is this text {label}?\nAnswer:";
const char *const sill__yes_no[2] = {"yes", "no"};
#define HOLE (sizeof hole - 1)
#define MAX_TEMPLATE ((size_t)16 << 20)

/* ---- template, labels and examples into what does not change with the row */

typedef struct maker {
    sill__prompt *p;
    const sill__prompt_spec *spec;
    const char *head, *tail;   /* of the template, around {text} */
    size_t n_head, n_common;   /* tail[0, n_common) is the same for all labels */
    size_t n_labels;
} maker;

static const char *word_of(const maker *m, size_t label) {
    if (!m->spec->book) return m->spec->labels[label];
    const sill__book_label *l = &m->spec->book->labels[label];
    return l->word ? l->word : l->name;
}

static const char *described(const maker *m, size_t label) {
    const char *d = m->spec->book ? m->spec->book->labels[label].description : NULL;
    return d ? d : word_of(m, label);
}

/* The first of {label} and {description} in TEXT, and its length. */
static const char *label_hole(const char *text, size_t *n) {
    const char *l = strstr(text, "{label}"), *d = strstr(text, "{description}");
    bool first = l && (!d || l < d);
    *n = first ? sizeof "{label}" - 1 : sizeof "{description}" - 1;
    return first ? l : d;
}

/* TEXT with {label} and {description} filled in; nothing is filled in where labels are no questions. */
static bool put_filled(sill__str *s, const maker *m, const char *text, size_t label) {
    size_t n;
    if (!m->spec->multi_label) return sill__str_puts(s, text);
    for (const char *at; (at = label_hole(text, &n)); text = at + n)
        if (!sill__str_put(s, text, (size_t)(at - text)) || !sill__str_puts(s, at[1] == 'l' ? word_of(m, label) : described(m, label))) return false;
    return sill__str_puts(s, text);
}

/* The text of a tail: spaces at the end go, and in the chat form the last line, where it begins behind the row's text, is the
 * answer's, with the newline before it. */
static void cut_tail(const sill__prompt *p, sill__tail *t, size_t n) {
    while (n && t->text[n - 1] == ' ') n--;
    t->end = t->answer = t->answer_end = n;
    for (size_t i = n; p->chat && i-- > 0;)
        if (t->text[i] == '\n') {
            t->answer = i + 1;
            t->end = i;
            return;
        }
}

static bool make_tails(maker *m) {
    sill__prompt *p = m->p;
    size_t n = m->spec->multi_label ? m->n_labels : 1;
    p->tails = sill__calloc(n, sizeof *p->tails);
    for (size_t i = 0; p->tails && i < n; i++) {
        sill__str s;
        sill__str_init(&s, MAX_TEMPLATE);
        if (!put_filled(&s, m, m->tail, i)) {
            sill__str_free(&s);
            return false;
        }
        p->tails[p->n_tails++].text = s.p ? s.p : sill__strndup("", 0);
        if (!p->tails[i].text) return false;
        cut_tail(p, &p->tails[i], s.n);
    }
    return p->tails != NULL;
}

/* The word behind a tail: whether a space stands between them. */
static bool is_bare(const sill__prompt *p) {
    const sill__tail *t = &p->tails[0];
    return p->chat ? t->answer == t->answer_end : t->end && t->text[t->end - 1] == '\n';
}

static bool put_word(sill__str *s, const sill__prompt *p, const char *word) {
    return (is_bare(p) || *word == ' ' || sill__str_put(s, " ", 1)) && sill__str_puts(s, word);
}

/* Instruction and descriptions, and an empty line behind them. "{labels}" in the instruction is the list of their words. */
static bool put_front(sill__str *s, const maker *m) {
    const sill_codebook *b = m->spec->book;
    bool ok = true, any = false;
    if (!b) return true;
    for (const char *text = b->instruction, *at; ok && text; text = at ? at + sizeof "{labels}" - 1 : NULL) {
        at = strstr(text, "{labels}");
        ok = at ? sill__str_put(s, text, (size_t)(at - text)) : sill__str_puts(s, text) && sill__str_puts(s, "\n");
        for (size_t i = 0; ok && at && i < b->n_labels; i++) ok = (!i || sill__str_puts(s, ", ")) && sill__str_puts(s, word_of(m, i));
    }
    for (size_t i = 0; ok && i < b->n_labels; i++) {
        if (!b->labels[i].description) continue;
        any = true;
        ok = sill__str_putf(s, "%s: ", word_of(m, i)) && sill__str_puts(s, b->labels[i].description) && sill__str_puts(s, "\n");
    }
    return ok && (!(any || b->instruction) || sill__str_puts(s, "\n"));
}

static bool has_label(const sill__book_example *e, size_t label) {
    for (size_t i = 0; i < e->n_labels; i++)
        if (e->labels[i] == (int32_t)label) return true;
    return false;
}

static const char *answer_of(const maker *m, const sill__book_example *e, size_t tail) {
    return m->spec->multi_label ? sill__yes_no[!has_label(e, tail)] : word_of(m, (size_t)e->labels[0]);
}

/* Examples as one text; their questions follow each other. */
static bool put_examples(sill__str *s, const maker *m) {
    const sill_codebook *b = m->spec->book;
    bool ok = true;
    for (size_t i = 0; ok && b && i < b->n_examples; i++) {
        const sill__book_example *e = &b->examples[i];
        ok = sill__str_put(s, m->head, m->n_head) && sill__str_puts(s, e->text);
        for (size_t k = 0; ok && k < m->p->n_tails; k++) {
            const sill__tail *t = &m->p->tails[k];
            size_t from = k ? m->n_common : 0;
            ok = (!k || t->text[from] == '\n' || sill__str_puts(s, "\n")) && sill__str_put(s, t->text + from, t->end - from) &&
                 put_word(s, m->p, answer_of(m, e, k));
        }
        ok = ok && sill__str_puts(s, "\n\n");
    }
    return ok;
}

static bool add_turn(sill__prompt *p, sill__str *s) {
    p->n_turn[p->n_turns] = s->n;
    p->turns[p->n_turns] = sill__strndup(s->p ? s->p : "", s->n);
    bool ok = !s->failed && p->turns[p->n_turns] != NULL;
    if (ok) p->n_turns++;
    sill__str_clear(s);
    return ok;
}

/* Examples as turns of a conversation, the first with what stands in front of all. */
static bool make_turns(maker *m, sill__str *s) {
    sill__prompt *p = m->p;
    const sill_codebook *b = m->spec->book;
    size_t most = b ? 2 * b->n_examples * p->n_tails : 0;
    p->turns = sill__calloc(most + 1, sizeof *p->turns);
    p->n_turn = sill__calloc(most + 1, sizeof *p->n_turn);
    p->messages = sill__calloc(most + 1, sizeof *p->messages);
    bool ok = p->turns && p->n_turn && p->messages && put_front(s, m);
    for (size_t i = 0; ok && b && i < b->n_examples; i++)
        for (size_t k = 0; ok && k < p->n_tails; k++) {
            const sill__tail *t = &p->tails[k];
            size_t from = k ? SILL_MIN(m->n_common, t->end) : 0;
            if (!k) ok = sill__str_put(s, m->head, m->n_head) && sill__str_puts(s, b->examples[i].text);
            else if (from < t->end && t->text[from] == '\n') from++;
            ok = ok && sill__str_put(s, t->text + from, t->end - from) && add_turn(p, s);
            ok = ok && sill__str_put(s, t->text + t->answer, t->answer_end - t->answer) && put_word(s, p, answer_of(m, &b->examples[i], k)) && add_turn(p, s);
        }
    for (size_t i = 0; ok && i < p->n_turns; i++)
        p->messages[i] = (sill__message){.role = i % 2 ? "assistant" : "user", .text = p->turns[i], .n_text = p->n_turn[i]};
    return ok && sill__str_put(s, m->head, m->n_head);
}

/* Where the template's text and labels go. */
static sill_status read_template(maker *m, const char *template, sill_error *err) {
    const char *at = strstr(template, hole), *label;
    size_t n;
    if (!at || strstr(at + HOLE, hole))
        return sill__fail(err, SILL_EINVAL, "the prompt holds {text} %s, expected it once", at ? "more than once" : "nowhere");
    m->head = template;
    m->n_head = (size_t)(at - template);
    m->tail = at + HOLE;
    if (!m->spec->multi_label) return SILL_OK;
    label = label_hole(template, &n);
    if (!label || label < at)
        return sill__fail(err, SILL_EINVAL, "the prompt holds {label} %s; of several labels each is asked for behind {text}, as in \"%s\"",
                          label ? "in front of {text}" : "nowhere", default_question);
    for (size_t i = 0; m->tail + i < label; i++) /* the question begins with the line that has {label} first */
        if (m->tail[i] == '\n') m->n_common = i;
    return SILL_OK;
}

sill_status sill__prompt_init(sill__prompt *p, const sill_model *model, const sill__prompt_spec *spec, sill_error *err) {
    const sill_codebook *book = spec->book;
    maker m = {.p = p, .spec = spec, .n_labels = book ? book->n_labels : spec->n_labels};
    const char *template = spec->template ? spec->template : book && book->prompt ? book->prompt : spec->multi_label ? default_question : default_template;
    sill__str s;
    sill_status st;
    memset(p, 0, sizeof *p);
    sill__str_init(&p->scratch, SIZE_MAX / 2);
    p->model = model;
    p->flags = spec->tokenize_flags;
    if (!model->tokenizer)
        return sill__fail(err, SILL_EUNSUPPORTED, "labels need a tokenizer, and the model's files hold none");
    if (!spec->no_chat && (st = sill__chat_init(&p->form, model->tokenizer, err)) != SILL_OK) return st;
    p->chat = p->form.form != SILL__CHAT_NONE;
    if (spec->chat && !p->chat)
        return sill__fail(err, SILL_EUNSUPPORTED, "the model has no chat template that sill knows (ChatML or Zephyr's form); leave the "
                          "choice open, and the prompt is plain text");
    if (!p->chat && sill__tokenizer_add_bos(model->tokenizer)) p->flags |= SILL_TOKENIZE_BOS;
    if ((st = read_template(&m, template, err)) != SILL_OK) return st;
    sill__str_init(&s, MAX_TEMPLATE);
    bool ok = make_tails(&m);
    if (p->chat) ok = ok && make_turns(&m, &s);
    else ok = ok && put_front(&s, &m) && put_examples(&s, &m) && sill__str_put(&s, m.head, m.n_head);
    p->n_head = s.n;
    p->head = ok ? sill__strndup(s.p ? s.p : "", s.n) : NULL;
    sill__str_free(&s);
    if (!p->head) return sill__fail(err, SILL_ENOMEM, "no memory for the prompt, or it is longer than %zu bytes", MAX_TEMPLATE);
    return SILL_OK;
}

void sill__prompt_free(sill__prompt *p) {
    for (size_t i = 0; i < p->n_tails; i++) sill__free(p->tails[i].text);
    for (size_t i = 0; i < p->n_turns; i++) sill__free(p->turns[i]);
    sill__free(p->tails);
    sill__free(p->turns);
    sill__free(p->n_turn);
    sill__free(p->messages);
    sill__free(p->head);
    sill__chat_free(&p->form);
    sill__str_free(&p->scratch);
    memset(p, 0, sizeof *p);
}

/* ---- rows */

static sill_status plain_ids(sill__prompt *p, const sill_row *row, const sill__tail *tail, sill__ids *out, sill_error *err) {
    const sill_tokenizer *t = p->model->tokenizer;
    sill__str *s = &p->scratch;
    sill_status st = SILL_OK;
    sill__str_clear(s);
    bool ok = sill__str_put(s, p->head, p->n_head);
    if (!row->ids) ok = ok && sill__str_put(s, row->text, row->n_bytes) && sill__str_put(s, tail->text, tail->end);
    if (!ok) return sill__fail(err, SILL_ENOMEM, "no memory for a prompt with %zu bytes of text", row->n_bytes);
    if (s->n || (p->flags & SILL_TOKENIZE_BOS)) st = sill__ids_text(out, t, s->p ? s->p : "", s->n, p->flags, err);
    if (st != SILL_OK || !row->ids) return st;
    if ((st = sill__ids_put(out, row->ids, row->n_ids, err)) != SILL_OK || !tail->end) return st;
    uint32_t flags = (p->flags & ~(uint32_t)SILL_TOKENIZE_BOS) | SILL_TOKENIZE_NO_PREFIX;
    return sill__ids_text(out, t, tail->text, tail->end, flags, err);
}

static sill_status chat_ids(sill__prompt *p, const sill_row *row, const sill__tail *tail, sill__ids *out, sill_error *err) {
    sill__str *s = &p->scratch;
    sill__message *m = &p->messages[p->n_turns];
    *m = (sill__message){.role = "user", .tail = tail->text, .n_tail = tail->end, .ids = row->ids, .n_ids = row->n_ids};
    sill__str_clear(s);
    if (!sill__str_put(s, p->head, p->n_head) || (!row->ids && !sill__str_put(s, row->text, row->n_bytes)))
        return sill__fail(err, SILL_ENOMEM, "no memory for a prompt with %zu bytes of text", row->n_bytes);
    m->text = s->p ? s->p : "";
    m->n_text = s->n;
    sill_status st = sill__chat_render(&p->form, p->messages, p->n_turns + 1, out, err);
    if (st != SILL_OK || tail->answer == tail->answer_end) return st;
    return sill__ids_text(out, p->model->tokenizer, tail->text + tail->answer, tail->answer_end - tail->answer,
                          SILL_TOKENIZE_NO_PREFIX, err);
}

sill_status sill__prompt_ids(sill__prompt *p, const sill_row *row, size_t tail, sill__ids *out, sill_error *err) {
    out->n = 0;
    if (!row->ids && !row->text) return sill__fail(err, SILL_EINVAL, "the row has neither text nor ids");
    sill_status st = (p->chat ? chat_ids : plain_ids)(p, row, &p->tails[tail], out, err);
    if (st == SILL_OK) st = sill__ids_known(p->model, out, err);
    if (st != SILL_OK || out->n) return st;
    int32_t start = sill__start_id(p->model);
    if (start < 0) return sill__fail(err, SILL_EINVAL, "the prompt is empty, and the model has no BOS or EOS token");
    return sill__ids_put(out, &start, 1, err);
}

sill_status sill__prompt_label(sill__prompt *p, const char *word, sill__ids *out, sill_error *err) {
    size_t before = out->n;
    if (!word || !*word) return sill__fail(err, SILL_EINVAL, "a label is empty");
    sill__str_clear(&p->scratch);
    if (!put_word(&p->scratch, p, word)) return sill__fail(err, SILL_ENOMEM, "no memory for a label");
    sill_status st = sill__ids_text(out, p->model->tokenizer, p->scratch.p, p->scratch.n, SILL_TOKENIZE_NO_PREFIX, err);
    if (st == SILL_OK && out->n == before) return sill__fail(err, SILL_EINVAL, "label \"%.80s\" has no tokens", word);
    return st == SILL_OK ? sill__ids_known(p->model, out, err) : st;
}

/* Bytes of the text's first n tokens, at most: a guess that the caller checks. */
static sill_status bytes_of_tokens(sill__prompt *p, const sill_row *row, size_t drop, size_t *bytes, sill__ids *out,
                                   sill_error *err) {
    const sill_tokenizer *t = p->model->tokenizer;
    uint32_t flags = (p->flags & ~(uint32_t)SILL_TOKENIZE_BOS) | SILL_TOKENIZE_NO_PREFIX;
    out->n = 0;
    sill_status st = sill__ids_text(out, t, row->text, row->n_bytes, flags, err);
    *bytes = 0;
    for (size_t i = 0, n; st == SILL_OK && i + drop < out->n; i++)
        if (sill__tokenizer_bytes(t, out->p[i], &n)) *bytes += n;
    if (*bytes >= row->n_bytes) *bytes = row->n_bytes ? row->n_bytes - 1 : 0;
    return st;
}

sill_status sill__prompt_truncate(sill__prompt *p, sill_row *row, size_t tail, size_t limit, sill__ids *out, sill_error *err) {
    for (;;) {
        sill_status st = sill__prompt_ids(p, row, tail, out, err);
        if (st != SILL_OK || out->n <= limit) return st;
        size_t excess = out->n - limit, bytes;
        if (row->ids ? row->n_ids == 0 : row->n_bytes == 0)
            return sill__fail(err, SILL_ERANGE, "the prompt's template alone has %zu tokens, more than the %zu that fit",
                              out->n, limit);
        if (row->ids) {
            row->n_ids -= SILL_MIN(excess, row->n_ids);
            continue;
        }
        if ((st = bytes_of_tokens(p, row, excess, &bytes, out, err)) != SILL_OK) return st;
        row->n_bytes = sill_utf8_complete(row->text, bytes);
    }
}
