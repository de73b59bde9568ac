/* The translator's tokens and what it found: translate.c, lint.c. */
#ifndef TRANSLATE_H
#define TRANSLATE_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
typedef struct tr_tok {
    const char *s, *ws;
    char *rep, *after;                  /* what stands there instead, and after it */
    size_t n, ws_n, match;              /* match: the other bracket */
    int line;
    char kind;                          /* i identifier, 0 number, " string, p punctuation, D line marker or pragma */
    bool gone, dead;
} tr_tok;
typedef struct tr_text { char *s; size_t n, cap; } tr_text;
typedef struct tr_names { char **s; size_t n; } tr_names;
typedef struct tr_param { char kind; int index; size_t name, fc; } tr_param;
typedef struct tr_func { size_t start, name, open, body; bool kernel, is_template; unsigned max_threads, tg_from, tg_to; tr_param param[40]; int n_params; } tr_func;
typedef struct tr_constant { size_t name, from, to, eq; int index; } tr_constant;
typedef struct tr_inst { size_t host, name, close; } tr_inst;
typedef struct tr {
    tr_tok *tok;
    size_t n;
    const char *tail;
    tr_text log;
    int errors, n_tgvars;
    tr_names types, structs, constants;
    tr_func *func; size_t n_funcs;
    tr_constant *constant; size_t n_constants;
    tr_inst *inst; size_t n_insts;
} tr;
bool tr_is(const tr *t, size_t i, const char *word);
bool tr_in(const tr *t, size_t i, const char *const *list);
bool tr_has(const tr_names *l, const tr_tok *k);
bool tr_vector_name(const char *s, size_t n);
size_t tr_next(const tr *t, size_t i);
size_t tr_prev(const tr *t, size_t i);
size_t tr_angle(const tr *t, size_t i);
__attribute__((format(printf, 3, 4))) void tr_error(tr *t, size_t i, const char *f, ...);
__attribute__((format(printf, 2, 3))) void tr_put(tr_text *o, const char *f, ...);
void tr_lint(tr *t);
#endif
