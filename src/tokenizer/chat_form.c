/*
 * chat_form.c - which of the chat forms that sill renders a template is: no template language is run.
 */
#include "tokenizer/chat_form.h"

int32_t sill__chat_control(const sill_tokenizer *t, const char *text) {
    int32_t id = sill__tokenizer_find(t, text, strlen(text));
    return id >= 0 && sill__tokenizer_is_special(t, id) ? id : -1;
}

const char *sill__chat_template(const sill_tokenizer *t) {
    const char *template = t ? sill__tokenizer_chat_template(t) : NULL;
    return template && strnlen(template, SILL__MAX_TEMPLATE + 1) <= SILL__MAX_TEMPLATE ? template : NULL;
}

sill__chat_form sill__chat_kind(const sill_tokenizer *t) {
    const char *template = sill__chat_template(t);
    if (!template) return SILL__CHAT_NONE;
    if (strstr(template, "<|im_start|>") && strstr(template, "<|im_end|>"))
        return sill__chat_control(t, "<|im_start|>") >= 0 && sill__chat_control(t, "<|im_end|>") >= 0 ? SILL__CHAT_CHATML : SILL__CHAT_NONE;
    if (strstr(template, "<|user|>") && strstr(template, "<|assistant|>") && strstr(template, "eos_token"))
        return sill__tokenizer_eos(t) >= 0 ? SILL__CHAT_ZEPHYR : SILL__CHAT_NONE;
    return SILL__CHAT_NONE;
}

int32_t sill__chat_end(const sill_tokenizer *t) {
    switch (sill__chat_kind(t)) {
    case SILL__CHAT_NONE: return -1;
    case SILL__CHAT_CHATML: return sill__chat_control(t, "<|im_end|>");
    case SILL__CHAT_ZEPHYR: return sill__tokenizer_eos(t);
    }
    return -1;
}
