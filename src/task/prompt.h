/*
 * prompt.h - the prompts of zero-shot classification: template, row text and chat form into token ids; labels as
 * continuations.
 *
 * The rule of boundaries. Template and text are tokenized as one string, as if written by hand; what comes before the
 * text is shared between rows as far as its tokens agree, never cut by hand. In the chat form the template is the user's
 * message, but its last line, where that stands wholly behind the text, begins the assistant's answer. Spaces at the
 * template's end move to the label: a label continues the prompt with one space in front, or with none after a line's end
 * and where it is the assistant's whole answer.
 */
#ifndef SILL_TASK_PROMPT_H
#define SILL_TASK_PROMPT_H

#include "task/task.h"

typedef struct sill__prompt {
    const sill_model *model;
    uint32_t flags;        /* of the tokenizer, BOS included where the model wants it */
    bool chat;
    sill__chat form;       /* where `chat` */
    char *text;            /* the template, owned */
    /* text[0, head) goes before the row's text, text[tail, end) behind it, text[answer, answer_end) begins the answer
     * (chat; else empty) */
    size_t head, tail, end, answer, answer_end;
    sill__str scratch;
} sill__prompt;

/* TEMPLATE with one {text}, or NULL for the default. */
sill_status sill__prompt_init(sill__prompt *p, const sill_model *model, const char *template, bool no_chat,
                              uint32_t tokenize_flags, sill_error *err);
void sill__prompt_free(sill__prompt *p);
/* The prompt for a row (its text, or its ids when it has any), into OUT, which is emptied first. */
sill_status sill__prompt_ids(sill__prompt *p, const sill_row *row, sill__ids *out, sill_error *err);
/* Appends the label as it continues the prompt. */
sill_status sill__prompt_label(sill__prompt *p, const char *label, sill__ids *out, sill_error *err);
/* Shortens the row's text from its end, at whole characters, until the prompt has at most LIMIT tokens. */
sill_status sill__prompt_truncate(sill__prompt *p, sill_row *row, size_t limit, sill__ids *out, sill_error *err);

#endif
