/*
 * chat.h - the chat forms that sill renders itself: no template language is run, a template is recognised by its text.
 */
#ifndef SILL_TASK_CHAT_H
#define SILL_TASK_CHAT_H

#include "tokenizer/chat_form.h"
#include "task/ids.h"

/* What a tokenizer's template comes to, found once for many conversations. */
typedef struct sill__chat {
    const sill_tokenizer *t;
    sill__chat_form form;
    int32_t bos, start, end; /* ids; bos -1: none. Zephyr: end is eos */
    int32_t roles[3];        /* Zephyr: of <|system|>, <|user|>, <|assistant|>; -1: written as text */
    bool has_system;
    sill__str system;        /* the message that the template writes itself */
} sill__chat;
sill_status sill__chat_init(sill__chat *c, const sill_tokenizer *t, sill_error *err);
void sill__chat_free(sill__chat *c);

/* A message: text, then ids, then more text; the parts but `text` are as a rule absent. */
typedef struct sill__message {
    const char *role, *text, *tail;
    size_t n_text, n_tail;
    const int32_t *ids;
    size_t n_ids;
} sill__message;

/* Appends the conversation up to where the assistant's answer begins. Control tokens go in as ids; what messages say is
 * never parsed for them. */
sill_status sill__chat_render(const sill__chat *c, const sill__message *messages, size_t n, sill__ids *out,
                              sill_error *err);

#endif
