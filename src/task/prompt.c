/* prompt.c - see prompt.h. */
#include "task/prompt.h"

static const char hole[] = "{text}";
/* Chosen on film-review sentences with SmolLM2-135M-Instruct: a statement that the label completes does far better with
 * small models than a list of labels to choose from. */
static const char default_template[] = "Text: {text}\nThis text is";
#define HOLE (sizeof hole - 1)
#define MAX_TEMPLATE ((size_t)16 << 20)

sill_status sill__prompt_init(sill__prompt *p, const sill_model *model, const char *template, bool no_chat,
                              uint32_t tokenize_flags, sill_error *err) {
    sill__str s;
    sill_status st;
    memset(p, 0, sizeof *p);
    sill__str_init(&p->scratch, SIZE_MAX / 2);
    p->model = model;
    p->flags = tokenize_flags;
    if (!model->tokenizer)
        return sill__fail(err, SILL_EUNSUPPORTED, "labels need a tokenizer, and the model's files hold none");
    if (!no_chat && (st = sill__chat_init(&p->form, model->tokenizer, err)) != SILL_OK) return st;
    p->chat = p->form.form != SILL__CHAT_NONE;
    if (!p->chat && sill__tokenizer_add_bos(model->tokenizer)) p->flags |= SILL_TOKENIZE_BOS;
    sill__str_init(&s, MAX_TEMPLATE);
    if (!sill__str_puts(&s, template ? template : default_template)) {
        sill__str_free(&s);
        return sill__fail(err, SILL_ENOMEM, "no memory for the prompt, or it is longer than %zu bytes", MAX_TEMPLATE);
    }
    char *at = strstr(s.p, hole);
    if (!at || strstr(at + HOLE, hole)) {
        sill__str_free(&s);
        return sill__fail(err, SILL_EINVAL, "the prompt holds {text} %s, expected it once", at ? "more than once" : "nowhere");
    }
    p->text = s.p;
    p->head = (size_t)(at - s.p);
    p->tail = p->head + HOLE;
    p->end = s.n;
    while (p->end > p->tail && p->text[p->end - 1] == ' ') p->end--;
    p->answer = p->answer_end = p->end;
    if (!p->chat) return SILL_OK;
    /* The last line, where it begins behind the text, and the newline before it. */
    for (size_t i = p->end; i-- > p->tail;)
        if (p->text[i] == '\n') {
            p->answer = i + 1;
            p->end = i;
            break;
        }
    return SILL_OK;
}

void sill__prompt_free(sill__prompt *p) {
    sill__free(p->text);
    sill__chat_free(&p->form);
    sill__str_free(&p->scratch);
    memset(p, 0, sizeof *p);
}

static sill_status plain_ids(sill__prompt *p, const sill_row *row, sill__ids *out, sill_error *err) {
    const sill_tokenizer *t = p->model->tokenizer;
    sill__str *s = &p->scratch;
    sill_status st = SILL_OK;
    sill__str_clear(s);
    bool ok = sill__str_put(s, p->text, p->head);
    if (!row->ids) ok = ok && sill__str_put(s, row->text, row->n_bytes) && sill__str_put(s, p->text + p->tail, p->end - p->tail);
    if (!ok) return sill__fail(err, SILL_ENOMEM, "no memory for a prompt with %zu bytes of text", row->n_bytes);
    if (s->n || (p->flags & SILL_TOKENIZE_BOS)) st = sill__ids_text(out, t, s->p ? s->p : "", s->n, p->flags, err);
    if (st != SILL_OK || !row->ids) return st;
    if ((st = sill__ids_put(out, row->ids, row->n_ids, err)) != SILL_OK || p->end == p->tail) return st;
    uint32_t flags = (p->flags & ~(uint32_t)SILL_TOKENIZE_BOS) | SILL_TOKENIZE_NO_PREFIX;
    return sill__ids_text(out, t, p->text + p->tail, p->end - p->tail, flags, err);
}

static sill_status chat_ids(sill__prompt *p, const sill_row *row, sill__ids *out, sill_error *err) {
    sill__str *s = &p->scratch;
    sill__message m = {.role = "user", .tail = p->text + p->tail, .n_tail = p->end - p->tail, .ids = row->ids,
                       .n_ids = row->n_ids};
    sill__str_clear(s);
    if (!sill__str_put(s, p->text, p->head) || (!row->ids && !sill__str_put(s, row->text, row->n_bytes)))
        return sill__fail(err, SILL_ENOMEM, "no memory for a prompt with %zu bytes of text", row->n_bytes);
    m.text = s->p ? s->p : "";
    m.n_text = s->n;
    sill_status st = sill__chat_render(&p->form, &m, 1, out, err);
    if (st != SILL_OK || p->answer == p->answer_end) return st;
    return sill__ids_text(out, p->model->tokenizer, p->text + p->answer, p->answer_end - p->answer,
                          SILL_TOKENIZE_NO_PREFIX, err);
}

sill_status sill__prompt_ids(sill__prompt *p, const sill_row *row, sill__ids *out, sill_error *err) {
    out->n = 0;
    if (!row->ids && !row->text) return sill__fail(err, SILL_EINVAL, "the row has neither text nor ids");
    sill_status st = p->chat ? chat_ids(p, row, out, err) : plain_ids(p, row, out, err);
    if (st == SILL_OK) st = sill__ids_known(p->model, out, err);
    if (st != SILL_OK || out->n) return st;
    int32_t start = sill__start_id(p->model);
    if (start < 0) return sill__fail(err, SILL_EINVAL, "the prompt is empty, and the model has no BOS or EOS token");
    return sill__ids_put(out, &start, 1, err);
}

sill_status sill__prompt_label(sill__prompt *p, const char *label, sill__ids *out, sill_error *err) {
    bool bare = p->chat ? p->answer == p->answer_end : p->end > p->tail && p->text[p->end - 1] == '\n';
    size_t before = out->n;
    if (!label || !*label) return sill__fail(err, SILL_EINVAL, "a label is empty");
    sill__str_clear(&p->scratch);
    if ((!bare && label[0] != ' ' && !sill__str_puts(&p->scratch, " ")) || !sill__str_puts(&p->scratch, label))
        return sill__fail(err, SILL_ENOMEM, "no memory for a label");
    sill_status st = sill__ids_text(out, p->model->tokenizer, p->scratch.p, p->scratch.n, SILL_TOKENIZE_NO_PREFIX, err);
    if (st == SILL_OK && out->n == before) return sill__fail(err, SILL_EINVAL, "label \"%.80s\" has no tokens", label);
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

sill_status sill__prompt_truncate(sill__prompt *p, sill_row *row, size_t limit, sill__ids *out, sill_error *err) {
    for (;;) {
        sill_status st = sill__prompt_ids(p, row, out, err);
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
