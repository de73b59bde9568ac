/*
 * constrain.h - texts that match a regular expression: a pattern becomes a nondeterministic automaton over bytes of UTF-8
 * (regex.c), that a deterministic one (dfa.c), and with a vocabulary the tokens that may follow in each of its states
 * (mask.c). schema.c writes the expression of a JSON schema.
 */
#ifndef SILL_CONSTRAIN_CONSTRAIN_H
#define SILL_CONSTRAIN_CONSTRAIN_H

#include "tokenizer/tokenizer.h"

#define SILL__NFA_MAX 200000  /* nodes */
#define SILL__DFA_MAX 20000   /* states */
#define SILL__DEAD (-1)
#define SILL__FAR INT32_MAX   /* no end can be reached */

/* A node reads a byte of [low, high] and goes on to `next`, or reads nothing and goes on to `next` and `other` (-1: none). */
typedef struct sill__nfa_node { int32_t next, other; uint8_t low, high; bool reads; } sill__nfa_node;
typedef struct sill__nfa { sill__nfa_node *nodes; int32_t n, cap, start, end; } sill__nfa;

/* PATTERN (UTF-8, n bytes) as an automaton of the texts that it matches whole. WHAT is named in errors.
 * EFORMAT: no such pattern (with the byte where); EUNSUPPORTED: not in the dialect; ERANGE: too large. */
sill_status sill__regex_parse(const char *pattern, size_t n, const char *what, sill__nfa *out, sill_error *err);
void sill__nfa_free(sill__nfa *a);

typedef struct sill__dfa {
    int32_t n, n_classes;
    uint8_t classes[256];  /* bytes that no state tells apart */
    int32_t *next;         /* (n, n_classes) */
    bool *accepts;         /* (n) */
} sill__dfa;

/* State 0 is the start; states that reach no end are none (SILL__DEAD). ERANGE: more than SILL__DFA_MAX states. */
sill_status sill__dfa_make(const sill__nfa *nfa, const char *what, sill__dfa *out, sill_error *err);
void sill__dfa_free(sill__dfa *a);
static inline int32_t sill__dfa_step(const sill__dfa *a, int32_t state, uint8_t byte) {
    return a->next[(size_t)state * (size_t)a->n_classes + a->classes[byte]];
}

/* The pattern of what is valid under a JSON schema (as OUT, freed by the caller's sill__str_free). */
sill_status sill__schema_pattern(const char *schema, size_t n, sill__str *out, sill_error *err);
/* Appends TEXT as a pattern of itself. */
void sill__pattern_literal(sill__str *out, const char *text, size_t n);

#endif
