/*
 * chat_form.h - the chat forms that sill renders itself, and how a tokenizer's template is recognised as one by its text.
 */
#ifndef SILL_TOKENIZER_CHAT_FORM_H
#define SILL_TOKENIZER_CHAT_FORM_H

#include "tokenizer/tokenizer.h"

#define SILL__MAX_TEMPLATE ((size_t)64 << 10) /* longer templates are none that we know */

typedef enum sill__chat_form {
    SILL__CHAT_NONE,   /* no template, or one that is not supported */
    SILL__CHAT_CHATML, /* <|im_start|>role\ncontent<|im_end|>\n */
    SILL__CHAT_ZEPHYR  /* <|role|>\ncontent + eos + \n */
} sill__chat_form;

/* The form of the tokenizer's template (t may be NULL). NONE also where the vocabulary lacks its control tokens. */
sill__chat_form sill__chat_kind(const sill_tokenizer *t);

/* The id that ends a turn; -1 where there is no form. */
int32_t sill__chat_end(const sill_tokenizer *t);

/* The template where it is there and short enough to be looked into, else NULL. t may be NULL. */
const char *sill__chat_template(const sill_tokenizer *t);
/* The id of a control token: -1 where the vocabulary lacks it or has it as ordinary text. */
int32_t sill__chat_control(const sill_tokenizer *t, const char *text);

#endif
