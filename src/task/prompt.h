/*
 * prompt.h - the prompts of zero-shot and few-shot classification: codebook, template, row text and chat form into token ids;
 * labels as continuations.
 *
 * The rule of boundaries. Template and text are tokenized as one string, as if written by hand; what comes before the
 * text is shared between rows as far as its tokens agree, never cut by hand. In the chat form the template is the user's
 * message, but its last line, where that stands wholly behind the text, begins the assistant's answer. Spaces at the
 * template's end move to the label: a label continues the prompt with one space in front, or with none after a line's end
 * and where it is the assistant's whole answer.
 *
 * Plain: instruction and descriptions, an empty line, each example as the template with its label behind it and an empty
 * line, the template with the row. Chat: instruction and descriptions begin the first message of the user, each example is a
 * message and its answer. Multi-label: what stands behind the text and holds {label} is asked once for each label; an example
 * has all its questions answered, a row's prompt has one.
 */
#ifndef SILL_TASK_PROMPT_H
#define SILL_TASK_PROMPT_H

#include "task/codebook.h"
#include "task/task.h"

/* What stands behind the row's text: text[0, end), then text[answer, answer_end) begins the answer (chat; else empty). */
typedef struct sill__tail { char *text; size_t end, answer, answer_end; } sill__tail;

typedef struct sill__prompt {
    const sill_model *model;
    uint32_t flags;        /* of the tokenizer, BOS included where the model wants it */
    bool chat;
    sill__chat form;       /* where `chat` */
    char *head;            /* what stands before the row's text in its own message */
    size_t n_head;
    sill__tail *tails;     /* (n_tails): one, or one a label */
    size_t n_tails;
    char **turns;          /* chat: examples, messages of the user and the assistant in turn */
    size_t *n_turn;
    size_t n_turns;
    sill__message *messages; /* (n_turns + 1) */
    sill__str scratch;
} sill__prompt;

typedef struct sill__prompt_spec {
    const char *template;  /* with one {text}; NULL: the book's or the default */
    const sill_codebook *book; /* may be NULL */
    const char *const *labels; /* (n_labels), where there is no book */
    size_t n_labels;
    bool no_chat, chat, multi_label;
    uint32_t tokenize_flags;
} sill__prompt_spec;

extern const char *const sill__yes_no[2];

sill_status sill__prompt_init(sill__prompt *p, const sill_model *model, const sill__prompt_spec *spec, sill_error *err);
void sill__prompt_free(sill__prompt *p);
/* The prompt for a row (its text, or its ids when it has any) with a tail, into OUT, which is emptied first. */
sill_status sill__prompt_ids(sill__prompt *p, const sill_row *row, size_t tail, sill__ids *out, sill_error *err);
/* Appends the word of a label as it continues the prompt. */
sill_status sill__prompt_label(sill__prompt *p, const char *word, sill__ids *out, sill_error *err);
/* Shortens the row's text from its end, at whole characters, until the prompt has at most LIMIT tokens. */
sill_status sill__prompt_truncate(sill__prompt *p, sill_row *row, size_t tail, size_t limit, sill__ids *out, sill_error *err);

#endif
