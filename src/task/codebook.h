/*
 * codebook.h - what coders are told, from a file: labels with descriptions, examples, an instruction, the prompt. Two forms, JSON
 * and lines of text; docs/CODEBOOK.md is their manual.
 */
#ifndef SILL_TASK_CODEBOOK_H
#define SILL_TASK_CODEBOOK_H

#include "base/base.h"

typedef struct sill__book_label { char *name, *description, *word; size_t line; } sill__book_label; /* the latter two may be NULL */
typedef struct sill__book_example {
    char *text;
    int32_t *labels; /* (n_labels) indices; one, unless the book is multi-label */
    size_t n_labels, line;
} sill__book_example;

struct sill_codebook {
    char *instruction, *prompt; /* NULL: none, the default */
    bool multi_label;
    sill__book_label *labels;
    const char **names;         /* (n_labels) */
    sill__book_example *examples;
    char **paraphrases;         /* of the prompt where they hold {text}, else of the instruction */
    size_t n_labels, n_examples, n_paraphrases;
    char sha256[65];            /* of the file's bytes */
};

#define SILL__MAX_BOOK ((size_t)4 << 20)
#define SILL__MAX_BOOK_LABELS 1024
#define SILL__MAX_BOOK_EXAMPLES 1000
#define SILL__MAX_BOOK_PARAPHRASES 100

/* A copy with other texts and orders, for runs that differ from each other in one thing. LABELS (n_labels), EXAMPLES
 * (n_examples): the index of what comes first, second, ...; NULL: as it is. PARAPHRASE: below 0 none. */
sill_status sill__codebook_vary(const sill_codebook *book, const int32_t *labels, const int32_t *examples, int32_t paraphrase,
                                sill_codebook **out, sill_error *err);

#endif
