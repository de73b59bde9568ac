/*
 * chat.c - conversations to token ids, in the two forms that small instruct models use: ChatML (SmolLM2, Qwen) and
 * Zephyr's (TinyLlama). Equal to transformers' apply_chat_template with add_generation_prompt.
 */
#include "task/chat.h"

#include "model/model.h"

/* A system message that the template itself writes when the conversation has none: text between
 * "<|im_start|>system\n" and "<|im_end|>" inside one string literal. Newlines may be written as \n. False: no memory. */
static bool default_system(const char *template, sill__str *out, bool *found) {
    static const char start[] = "<|im_start|>system", end[] = "<|im_end|>";
    const char *e = template;
    for (const char *p = template; e && (p = strstr(p, start)); p += sizeof start - 1) {
        const char *s = p + sizeof start - 1;
        if (e < s && !(e = strstr(s, end))) return true; /* none behind a later start either */
        if (*s == '\n') s++;
        else if (s[0] == '\\' && s[1] == 'n') s += 2;
        else continue;
        if (e <= s || memchr(s, '\'', (size_t)(e - s)) || memchr(s, '{', (size_t)(e - s))) continue;
        for (; s < e; s++) {
            bool newline = s[0] == '\\' && s + 1 < e && s[1] == 'n';
            if (newline) s++;
            if (!sill__str_put(out, newline ? "\n" : s, 1)) return false;
        }
        *found = true;
        return true;
    }
    return true;
}

sill_status sill__chat_init(sill__chat *c, const sill_tokenizer *t, sill_error *err) {
    static const char *const names[] = {"<|system|>", "<|user|>", "<|assistant|>"};
    memset(c, 0, sizeof *c);
    sill__str_init(&c->system, SILL__MAX_TEMPLATE);
    c->t = t;
    c->form = sill__chat_kind(t);
    c->bos = c->start = c->end = -1;
    if (c->form == SILL__CHAT_NONE) return SILL_OK;
    const char *template = sill__chat_template(t);
    if (strstr(template, "bos_token")) c->bos = sill__tokenizer_bos(t);
    if (c->form == SILL__CHAT_ZEPHYR) {
        c->end = sill__tokenizer_eos(t);
        for (size_t i = 0; i < SILL_ARRAY_LEN(names); i++) c->roles[i] = sill__chat_control(t, names[i]);
        return SILL_OK;
    }
    c->start = sill__chat_control(t, "<|im_start|>");
    c->end = sill__chat_control(t, "<|im_end|>");
    if (default_system(template, &c->system, &c->has_system)) return SILL_OK;
    sill__chat_free(c);
    return sill__fail(err, SILL_ENOMEM, "no memory for the chat template's system message");
}

void sill__chat_free(sill__chat *c) {
    sill__str_free(&c->system);
    memset(c, 0, sizeof *c);
}

/* Parts of the segment between two control tokens. Text beside text is tokenized as one. */
static sill_status segment(const sill_tokenizer *t, sill__str *s, const char *head, const sill__message *m,
                           sill__ids *out, sill_error *err) {
    sill_status st;
    sill__str_clear(s);
    if (!sill__str_puts(s, head) || (m && !sill__str_put(s, m->text, m->n_text)) ||
        (m && !m->ids && !sill__str_put(s, m->tail, m->n_tail)))
        return sill__fail(err, SILL_ENOMEM, "no memory for a message of %zu bytes", m ? m->n_text : 0);
    if ((st = sill__ids_text(out, t, s->p, s->n, 0, err)) != SILL_OK || !m || !m->ids) return st;
    if ((st = sill__ids_put(out, m->ids, m->n_ids, err)) != SILL_OK || !m->n_tail) return st;
    return sill__ids_text(out, t, m->tail, m->n_tail, SILL_TOKENIZE_NO_PREFIX, err);
}

static sill_status chatml_message(const sill__chat *c, sill__str *s, const sill__message *m, sill__ids *out,
                                  sill_error *err) {
    char head[24];
    sill_status st = sill__ids_put(out, &c->start, 1, err);
    size_t n = strlen(m->role);
    memcpy(head, m->role, n);
    memcpy(head + n, "\n", 2);
    if (st == SILL_OK) st = segment(c->t, s, head, m, out, err);
    if (st == SILL_OK) st = sill__ids_put(out, &c->end, 1, err);
    if (st == SILL_OK) st = segment(c->t, s, "\n", NULL, out, err);
    return st;
}

static sill_status render_chatml(const sill__chat *c, sill__str *s, const sill__message *messages, size_t n, bool answer,
                                 sill__ids *out, sill_error *err) {
    sill_status st = SILL_OK;
    if (c->has_system && strcmp(messages[0].role, "system")) {
        sill__message first = {.role = "system", .text = c->system.p, .n_text = c->system.n};
        st = chatml_message(c, s, &first, out, err);
    }
    for (size_t i = 0; i < n && st == SILL_OK; i++) st = chatml_message(c, s, &messages[i], out, err);
    if (st == SILL_OK && answer) st = sill__ids_put(out, &c->start, 1, err);
    if (st == SILL_OK && answer) st = segment(c->t, s, "assistant\n", NULL, out, err);
    return st;
}

/* "<|role|>\ncontent" and eos. The newline after eos belongs to the next segment, as does "<|role|>" itself where the
 * vocabulary has no token of that name. */
static sill_status zephyr_turn(const sill__chat *c, sill__str *s, const char *role, const sill__message *m, bool first,
                               sill__ids *out, sill_error *err) {
    char head[32] = "\n";
    size_t n = strlen(role), at = first ? 0 : 1;
    int32_t id = c->roles[*role == 's' ? 0 : *role == 'u' ? 1 : 2];
    sill_status st = SILL_OK;
    if (id >= 0) {
        if (!first) st = segment(c->t, s, "\n", NULL, out, err);
        if (st == SILL_OK) st = sill__ids_put(out, &id, 1, err);
    } else {
        memcpy(head + at, "<|", 2);
        memcpy(head + at + 2, role, n);
        memcpy(head + at + 2 + n, "|>\n", 4);
    }
    if (st == SILL_OK) st = segment(c->t, s, head, m, out, err);
    if (st == SILL_OK && m) st = sill__ids_put(out, &c->end, 1, err);
    return st;
}

static sill_status render_zephyr(const sill__chat *c, sill__str *s, const sill__message *messages, size_t n, bool answer,
                                 sill__ids *out, sill_error *err) {
    sill_status st = SILL_OK;
    for (size_t i = 0; i < n && st == SILL_OK; i++)
        st = zephyr_turn(c, s, messages[i].role, &messages[i], i == 0, out, err);
    if (st != SILL_OK) return st;
    return answer ? zephyr_turn(c, s, "assistant", NULL, false, out, err) : segment(c->t, s, "\n", NULL, out, err);
}

static sill_status render(const sill__chat *c, const sill__message *messages, size_t n, bool answer, sill__ids *out,
                          sill_error *err) {
    sill__str s;
    sill_status st = SILL_OK;
    if (c->form == SILL__CHAT_NONE)
        return sill__fail(err, SILL_EUNSUPPORTED, "the model has no chat template that sill knows (ChatML or Zephyr's form); "
                          "use plain prompts");
    if (n == 0) return sill__fail(err, SILL_EINVAL, "a conversation needs at least one message");
    for (size_t i = 0; i < n; i++)
        if (!messages[i].role || (strcmp(messages[i].role, "system") && strcmp(messages[i].role, "user") &&
                                  strcmp(messages[i].role, "assistant")))
            return sill__fail(err, SILL_EINVAL, "message %zu has the role \"%.40s\", expected system, user or assistant",
                              i + 1, messages[i].role ? messages[i].role : "(null)");
    sill__str_init(&s, SIZE_MAX / 2);
    if (c->bos >= 0) st = sill__ids_put(out, &c->bos, 1, err);
    if (st == SILL_OK)
        st = (c->form == SILL__CHAT_CHATML ? render_chatml : render_zephyr)(c, &s, messages, n, answer, out, err);
    sill__str_free(&s);
    return st;
}

sill_status sill__chat_render(const sill__chat *c, const sill__message *messages, size_t n, sill__ids *out,
                              sill_error *err) {
    return render(c, messages, n, true, out, err);
}

static sill_status conversation(const char *name, const sill_tokenizer *t, const char *const *roles, const char *const *contents,
                                size_t n_messages, bool answer, int32_t **out, size_t *n_ids, sill_error *err) {
    sill__ids ids = {0};
    sill__chat chat;
    sill_status st;
    if (out) *out = NULL;
    if (!out || !n_ids || (n_messages && (!roles || !contents)))
        return sill__fail(err, SILL_EINVAL, "%s: roles, contents, out and n_ids must not be NULL", name);
    sill__message *messages = sill__calloc(n_messages, sizeof *messages);
    if (!messages) return sill__fail(err, SILL_ENOMEM, "no memory for %zu messages", n_messages);
    for (size_t i = 0; i < n_messages; i++) {
        const char *text = contents[i] ? contents[i] : "";
        messages[i] = (sill__message){.role = roles[i], .text = text, .n_text = strlen(text)};
    }
    st = sill__chat_init(&chat, t, err);
    if (st == SILL_OK) st = render(&chat, messages, n_messages, answer, &ids, err);
    sill__chat_free(&chat); /* empty when it failed */
    sill__free(messages);
    if (st == SILL_OK) {
        *out = ids.p;
        *n_ids = ids.n;
    } else {
        sill__ids_free(&ids);
    }
    return st;
}

sill_status sill_chat_ids(const sill_model *model, const char *const *roles, const char *const *contents,
                          size_t n_messages, int32_t **out, size_t *n_ids, sill_error *err) {
    if (out) *out = NULL;
    if (!model) return sill__fail(err, SILL_EINVAL, "sill_chat_ids: model must not be NULL");
    return conversation("sill_chat_ids", model->tokenizer, roles, contents, n_messages, true, out, n_ids, err);
}

sill_status sill_tokenizer_chat(const sill_tokenizer *t, const char *const *roles, const char *const *contents,
                                size_t n_messages, uint32_t flags, int32_t **out, size_t *n_ids, sill_error *err) {
    if (out) *out = NULL;
    if (!t) return sill__fail(err, SILL_EINVAL, "sill_tokenizer_chat: tokenizer must not be NULL");
    if (flags & ~(uint32_t)SILL_CHAT_NO_ANSWER) return sill__fail(err, SILL_EINVAL, "sill_tokenizer_chat: unknown flags 0x%x", flags);
    return conversation("sill_tokenizer_chat", t, roles, contents, n_messages, !(flags & SILL_CHAT_NO_ANSWER), out, n_ids, err);
}
