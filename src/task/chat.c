/*
 * chat.c - conversations to token ids, in the two forms that small instruct models use: ChatML (SmolLM2, Qwen) and
 * Zephyr's (TinyLlama). Equal to transformers' apply_chat_template with add_generation_prompt.
 */
#include "task/chat.h"

#include "model/model.h"

static int32_t control(const sill_tokenizer *t, const char *text) { return sill__tokenizer_find(t, text, strlen(text)); }

sill__chat_form sill__chat_kind(const sill_tokenizer *t) {
    const char *template = t ? sill__tokenizer_chat_template(t) : NULL;
    if (!template) return SILL__CHAT_NONE;
    if (strstr(template, "<|im_start|>") && strstr(template, "<|im_end|>"))
        return control(t, "<|im_start|>") >= 0 && control(t, "<|im_end|>") >= 0 ? SILL__CHAT_CHATML : SILL__CHAT_NONE;
    if (strstr(template, "<|user|>") && strstr(template, "<|assistant|>") && strstr(template, "eos_token"))
        return sill__tokenizer_eos(t) >= 0 ? SILL__CHAT_ZEPHYR : SILL__CHAT_NONE;
    return SILL__CHAT_NONE;
}

/* A system message that the template itself writes when the conversation has none: text between
 * "<|im_start|>system\n" and "<|im_end|>" inside one string literal. Newlines may be written as \n. */
static bool default_system(const char *template, sill__str *out) {
    static const char start[] = "<|im_start|>system", end[] = "<|im_end|>";
    for (const char *p = template; (p = strstr(p, start)); p += sizeof start - 1) {
        const char *s = p + sizeof start - 1, *e = strstr(s, end);
        if (*s == '\n') s++;
        else if (s[0] == '\\' && s[1] == 'n') s += 2;
        else continue;
        if (!e || e <= s || memchr(s, '\'', (size_t)(e - s)) || memchr(s, '{', (size_t)(e - s))) continue;
        for (; s < e; s++) {
            bool newline = s[0] == '\\' && s + 1 < e && s[1] == 'n';
            if (newline) s++;
            if (!sill__str_put(out, newline ? "\n" : s, 1)) return false;
        }
        return true;
    }
    return false;
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

static sill_status chatml_message(const sill_tokenizer *t, sill__str *s, const sill__message *m, sill__ids *out,
                                  sill_error *err) {
    int32_t start = control(t, "<|im_start|>"), end = control(t, "<|im_end|>");
    char head[24];
    sill_status st = sill__ids_put(out, &start, 1, err);
    size_t n = strlen(m->role);
    memcpy(head, m->role, n);
    memcpy(head + n, "\n", 2);
    if (st == SILL_OK) st = segment(t, s, head, m, out, err);
    if (st == SILL_OK) st = sill__ids_put(out, &end, 1, err);
    if (st == SILL_OK) st = segment(t, s, "\n", NULL, out, err);
    return st;
}

static sill_status render_chatml(const sill_tokenizer *t, sill__str *s, const sill__message *messages, size_t n,
                                 sill__ids *out, sill_error *err) {
    int32_t start = control(t, "<|im_start|>");
    sill_status st = SILL_OK;
    sill__str system;
    sill__str_init(&system, 65536);
    if (strcmp(messages[0].role, "system") && default_system(sill__tokenizer_chat_template(t), &system)) {
        sill__message first = {.role = "system", .text = system.p, .n_text = system.n};
        st = chatml_message(t, s, &first, out, err);
    }
    sill__str_free(&system);
    for (size_t i = 0; i < n && st == SILL_OK; i++) st = chatml_message(t, s, &messages[i], out, err);
    if (st == SILL_OK) st = sill__ids_put(out, &start, 1, err);
    if (st == SILL_OK) st = segment(t, s, "assistant\n", NULL, out, err);
    return st;
}

/* "<|role|>\ncontent" and eos. The newline after eos belongs to the next segment, as does "<|role|>" itself where the
 * vocabulary has no token of that name. */
static sill_status zephyr_turn(const sill_tokenizer *t, sill__str *s, const char *role, const sill__message *m,
                               bool first, sill__ids *out, sill_error *err) {
    char name[24] = "<|", head[32] = "\n";
    size_t n = strlen(role);
    memcpy(name + 2, role, n);
    memcpy(name + 2 + n, "|>", 3);
    int32_t id = control(t, name), eos = sill__tokenizer_eos(t);
    sill_status st = SILL_OK;
    if (id >= 0 && sill__tokenizer_is_special(t, id)) {
        if (!first) st = segment(t, s, "\n", NULL, out, err);
        if (st == SILL_OK) st = sill__ids_put(out, &id, 1, err);
    } else {
        size_t at = first ? 0 : 1;
        memcpy(head + at, name, n + 4);
        memcpy(head + at + n + 4, "\n", 2);
    }
    if (st == SILL_OK) st = segment(t, s, head, m, out, err);
    if (st == SILL_OK && m) st = sill__ids_put(out, &eos, 1, err);
    return st;
}

static sill_status render_zephyr(const sill_tokenizer *t, sill__str *s, const sill__message *messages, size_t n,
                                 sill__ids *out, sill_error *err) {
    sill_status st = SILL_OK;
    for (size_t i = 0; i < n && st == SILL_OK; i++)
        st = zephyr_turn(t, s, messages[i].role, &messages[i], i == 0, out, err);
    if (st == SILL_OK) st = zephyr_turn(t, s, "assistant", NULL, false, out, err);
    return st;
}

sill_status sill__chat_render(const sill_tokenizer *t, const sill__message *messages, size_t n, sill__ids *out,
                              sill_error *err) {
    sill__chat_form form = sill__chat_kind(t);
    sill__str s;
    sill_status st = SILL_OK;
    if (form == SILL__CHAT_NONE)
        return sill__fail(err, SILL_EUNSUPPORTED, "the model has no chat template that sill knows (ChatML or Zephyr's form); "
                          "use plain prompts");
    if (n == 0) return sill__fail(err, SILL_EINVAL, "a conversation needs at least one message");
    for (size_t i = 0; i < n; i++)
        if (!messages[i].role || (strcmp(messages[i].role, "system") && strcmp(messages[i].role, "user") &&
                                  strcmp(messages[i].role, "assistant")))
            return sill__fail(err, SILL_EINVAL, "message %zu has the role \"%.40s\", expected system, user or assistant",
                              i + 1, messages[i].role ? messages[i].role : "(null)");
    sill__str_init(&s, SIZE_MAX / 2);
    if (strstr(sill__tokenizer_chat_template(t), "bos_token") && sill__tokenizer_bos(t) >= 0) {
        int32_t bos = sill__tokenizer_bos(t);
        st = sill__ids_put(out, &bos, 1, err);
    }
    if (st == SILL_OK)
        st = (form == SILL__CHAT_CHATML ? render_chatml : render_zephyr)(t, &s, messages, n, out, err);
    sill__str_free(&s);
    return st;
}

sill_status sill_chat_ids(const sill_model *model, const char *const *roles, const char *const *contents,
                          size_t n_messages, int32_t **out, size_t *n_ids, sill_error *err) {
    sill__ids ids = {0};
    sill_status st;
    if (out) *out = NULL;
    if (!model || !out || !n_ids || (n_messages && (!roles || !contents)))
        return sill__fail(err, SILL_EINVAL, "sill_chat_ids: model, roles, contents, out and n_ids must not be NULL");
    sill__message *messages = sill__calloc(n_messages, sizeof *messages);
    if (!messages) return sill__fail(err, SILL_ENOMEM, "no memory for %zu messages", n_messages);
    for (size_t i = 0; i < n_messages; i++) {
        const char *text = contents[i] ? contents[i] : "";
        messages[i] = (sill__message){.role = roles[i], .text = text, .n_text = strlen(text)};
    }
    st = sill__chat_render(model->tokenizer, messages, n_messages, &ids, err);
    sill__free(messages);
    if (st == SILL_OK) {
        *out = ids.p;
        *n_ids = ids.n;
    } else {
        sill__ids_free(&ids);
    }
    return st;
}
