/*
 * mask.c - the automaton of a constraint walked over the tree of a vocabulary. The tree lies in an array in preorder: a node has
 * its byte, its depth, the number of nodes below it, and the tokens that end there; walking it is one pass that leaves out
 * what a dead state leads to. The mask of a state is made when it is first asked for and kept, up to MASK_BYTES in all.
 *
 * Distances: the fewest tokens from a state to an end, if single bytes are tokens, else by all tokens. A state from which no
 * token leads to an end (a character that the vocabulary cannot write) is never entered, so a text can always be ended.
 */
#include "constrain/mask.h"

#include "model/model.h"

#include <stdlib.h>

#define MASK_BYTES ((size_t)64 << 20)

typedef struct tree_node { uint8_t byte; uint16_t depth; int32_t below, first, n; } tree_node;

struct sill_constraint {
    const sill_model *model;
    int32_t n_vocab;
    size_t n_words;
    sill__dfa dfa;
    tree_node *nodes;
    int32_t n_nodes, n_tokens, depth;
    int32_t *tokens;       /* (n_tokens) ids in the order of their bytes */
    int32_t *distance;     /* (states) tokens to an end, SILL__FAR: none */
    int32_t farthest;      /* of those that are not */
    int32_t *stack;        /* (depth + 1) states */
    uint64_t **masks;      /* (states), or NULL */
    int32_t *kept;         /* states whose mask is kept, in the order in which they were made */
    size_t n_kept, next_out, most_kept;
    uint64_t *narrow;      /* (n_words): a mask that LEFT narrows */
};

/* ---------------------------------------------------------------- tree */

typedef struct word { const char *p; size_t n; int32_t id; } word;

static int by_bytes(const void *a, const void *b) {
    const word *x = a, *y = b;
    int c = memcmp(x->p, y->p, SILL_MIN(x->n, y->n));
    if (c) return c;
    if (x->n != y->n) return x->n < y->n ? -1 : 1;
    return (x->id > y->id) - (x->id < y->id);
}

static size_t common(const word *a, const word *b) {
    size_t n = 0, most = SILL_MIN(a->n, b->n);
    while (n < most && a->p[n] == b->p[n]) n++;
    return n;
}

/* Nodes of the words in order: each adds those beyond what it shares with the one before. */
static void plant(sill_constraint *c, const word *words, int32_t n, int32_t *open) {
    for (int32_t i = 0; i < n; i++) {
        size_t shared = i ? common(&words[i - 1], &words[i]) : 0;
        for (size_t d = shared; d < words[i].n; d++) {
            c->nodes[c->n_nodes] = (tree_node){.byte = (uint8_t)words[i].p[d], .depth = (uint16_t)d, .first = i};
            open[d] = c->n_nodes++;
        }
        tree_node *end = &c->nodes[open[words[i].n - 1]];
        if (!end->n) end->first = i;
        end->n++;
        c->tokens[i] = words[i].id;
    }
    /* What lies below a node ends where one of its depth or above comes. */
    for (int32_t i = c->n_nodes; i-- > 0;) {
        int32_t at = i + 1;
        while (at < c->n_nodes && c->nodes[at].depth > c->nodes[i].depth) at += 1 + c->nodes[at].below;
        c->nodes[i].below = at - i - 1;
    }
}

static sill_status make_tree(sill_constraint *c, sill_error *err) {
    const sill_tokenizer *t = c->model->tokenizer;
    const int32_t most = SILL_MIN(sill_tokenizer_n_vocab(t), c->n_vocab);
    word *words = sill__calloc((size_t)most + 1, sizeof *words);
    int32_t n = 0, *open = NULL;
    size_t nodes = 0;
    if (!words) return sill__fail(err, SILL_ENOMEM, "no memory for a constraint over %d tokens", most);
    for (int32_t id = 0; id < most; id++) {
        word w = {.id = id};
        w.p = sill__tokenizer_bytes(t, id, &w.n);
        if (!w.p || !w.n || w.n > UINT16_MAX || sill__tokenizer_is_special(t, id) || sill__model_is_eos(c->model, id)) continue;
        words[n++] = w;
        c->depth = SILL_MAX(c->depth, (int32_t)w.n);
    }
    qsort(words, (size_t)n, sizeof *words, by_bytes);
    for (int32_t i = 0; i < n; i++) nodes += words[i].n - (i ? common(&words[i - 1], &words[i]) : 0);
    c->nodes = nodes <= INT32_MAX ? sill__calloc(nodes + 1, sizeof *c->nodes) : NULL;
    c->tokens = sill__calloc((size_t)n + 1, sizeof *c->tokens);
    open = sill__calloc((size_t)c->depth + 1, sizeof *open);
    c->stack = sill__calloc((size_t)c->depth + 2, sizeof *c->stack);
    sill_status st = SILL_OK;
    if (!c->nodes || !c->tokens || !open || !c->stack) st = sill__fail(err, SILL_ENOMEM, "no memory for a constraint over %d tokens", n);
    else plant(c, words, n, open);
    c->n_tokens = n;
    sill__free(open);
    sill__free(words);
    return st;
}

/* ----------------------------------------------------------- distances */

/* The state behind each node that STATE reaches; calls with every token's end. Returns the least distance found. */
static int32_t walk(const sill_constraint *c, int32_t state, int32_t within, uint64_t *mask) {
    int32_t least = SILL__FAR;
    c->stack[0] = state;
    for (int32_t i = 0; i < c->n_nodes;) {
        const tree_node *v = &c->nodes[i];
        int32_t to = sill__dfa_step(&c->dfa, c->stack[v->depth], v->byte);
        if (to == SILL__DEAD) {
            i += 1 + v->below;
            continue;
        }
        c->stack[v->depth + 1] = to;
        i++;
        if (!v->n) continue;
        least = SILL_MIN(least, c->distance[to]);
        if (!mask || c->distance[to] > within) continue;
        for (int32_t k = v->first; k < v->first + v->n; k++) mask[c->tokens[k] / 64] |= (uint64_t)1 << (c->tokens[k] % 64);
    }
    return least;
}

/* Backwards from the ends, by bytes that are tokens. True when every state has a distance. */
static bool by_single_bytes(sill_constraint *c) {
    bool single[256] = {false}, changed = true, all = true;
    for (int32_t i = 0; i < c->n_nodes; i++)
        if (c->nodes[i].depth == 0 && c->nodes[i].n) single[c->nodes[i].byte] = true;
    for (int32_t s = 0; s < c->dfa.n; s++) c->distance[s] = c->dfa.accepts[s] ? 0 : SILL__FAR;
    /* Rounds over all states, the last first: automata mostly lead onwards, so few rounds are needed. */
    while (changed) {
        changed = false;
        for (int32_t s = c->dfa.n; s-- > 0;)
            for (int b = 0; b < 256; b++) {
                int32_t to = single[b] ? sill__dfa_step(&c->dfa, s, (uint8_t)b) : SILL__DEAD;
                if (to == SILL__DEAD || c->distance[to] == SILL__FAR || c->distance[to] + 1 >= c->distance[s]) continue;
                c->distance[s] = c->distance[to] + 1;
                changed = true;
            }
    }
    for (int32_t s = 0; s < c->dfa.n; s++) all &= c->distance[s] != SILL__FAR;
    return all;
}

static sill_status measure(sill_constraint *c, const char *what, sill_error *err) {
    bool changed = !by_single_bytes(c);
    while (changed) {
        changed = false;
        for (int32_t s = c->dfa.n; s-- > 0;) {
            if (c->dfa.accepts[s]) continue;
            int32_t least = walk(c, s, 0, NULL);
            if (least == SILL__FAR || least + 1 >= c->distance[s]) continue;
            c->distance[s] = least + 1;
            changed = true;
        }
    }
    for (int32_t s = 0; s < c->dfa.n; s++)
        if (c->distance[s] != SILL__FAR) c->farthest = SILL_MAX(c->farthest, c->distance[s]);
    if (c->distance[0] == SILL__FAR)
        return sill__fail(err, SILL_ERANGE, "%s: no text that matches can be written with the model's vocabulary", what);
    return SILL_OK;
}

/* --------------------------------------------------------------- masks */

sill_status sill__constraint_mask(sill_constraint *c, int32_t state, int32_t left, const uint64_t **mask, sill_error *err) {
    if (left <= c->farthest) {
        /* One is taken now, so the rest must fit LEFT - 1; where it does not from here, on a shortest way. */
        const int32_t within = SILL_MAX(left, c->distance[state]) - 1;
        memset(c->narrow, 0, c->n_words * sizeof *c->narrow);
        walk(c, state, within, c->narrow);
        *mask = c->narrow;
        return SILL_OK;
    }
    if (!c->masks[state]) {
        uint64_t *m;
        if (c->n_kept < c->most_kept) {
            m = sill__calloc(c->n_words, sizeof *m);
            if (!m) return sill__fail(err, SILL_ENOMEM, "no memory for a constraint's tokens");
            c->kept[c->n_kept++] = state;
        } else { /* the oldest goes */
            int32_t *out = &c->kept[c->next_out++ % c->most_kept];
            m = c->masks[*out];
            c->masks[*out] = NULL;
            memset(m, 0, c->n_words * sizeof *m);
            *out = state;
        }
        walk(c, state, SILL__FAR - 1, m);
        c->masks[state] = m;
    }
    *mask = c->masks[state];
    return SILL_OK;
}

int32_t sill__constraint_next(const sill_constraint *c, int32_t state, int32_t id) {
    size_t n = 0;
    const char *p = sill__tokenizer_bytes(c->model->tokenizer, id, &n);
    for (size_t i = 0; p && i < n && state != SILL__DEAD; i++) state = sill__dfa_step(&c->dfa, state, (uint8_t)p[i]);
    return state;
}

bool sill__constraint_may_end(const sill_constraint *c, int32_t state) { return c->dfa.accepts[state]; }

bool sill__constraint_must_end(const sill_constraint *c, int32_t state) {
    for (int32_t k = 0; k < c->dfa.n_classes; k++) {
        const int32_t to = c->dfa.next[(size_t)state * (size_t)c->dfa.n_classes + (size_t)k];
        if (to != SILL__DEAD && c->distance[to] != SILL__FAR) return false;
    }
    return true;
}

int32_t sill__constraint_shortest(const sill_constraint *c) { return c->distance[0]; }
const sill_model *sill__constraint_model(const sill_constraint *c) { return c->model; }

/* ---------------------------------------------------------------- making */

static sill_status build(sill_constraint *c, const char *pattern, size_t n, const char *what, sill_error *err) {
    sill__nfa nfa;
    sill_status st = sill__regex_parse(pattern, n, what, &nfa, err);
    if (st != SILL_OK) return st;
    st = sill__dfa_make(&nfa, what, &c->dfa, err);
    sill__nfa_free(&nfa);
    if (st == SILL_OK) st = make_tree(c, err);
    if (st != SILL_OK) return st;
    const size_t states = (size_t)c->dfa.n;
    c->n_words = ((size_t)c->n_vocab + 63) / 64;
    c->most_kept = SILL_MIN(states, SILL_MAX((size_t)16, MASK_BYTES / (c->n_words * 8)));
    c->distance = sill__calloc(states, sizeof *c->distance);
    c->masks = sill__calloc(states, sizeof *c->masks);
    c->kept = sill__calloc(c->most_kept, sizeof *c->kept);
    c->narrow = sill__calloc(c->n_words, sizeof *c->narrow);
    if (!c->distance || !c->masks || !c->kept || !c->narrow) return sill__fail(err, SILL_ENOMEM, "no memory for the %zu states of %s", states, what);
    return measure(c, what, err);
}

static sill_status make(const sill_model *model, const char *pattern, size_t n, const char *what, sill_constraint **out, sill_error *err) {
    if (!model->tokenizer)
        return sill__fail(err, SILL_EUNSUPPORTED, "a constraint needs a tokenizer, and the model's files hold none");
    sill_constraint *c = sill__calloc(1, sizeof *c);
    if (!c) return sill__fail(err, SILL_ENOMEM, "no memory for a constraint");
    c->model = model;
    c->n_vocab = model->config.n_vocab;
    sill_status st = build(c, pattern, n, what, err);
    if (st == SILL_OK) *out = c;
    else sill_constraint_free(c);
    return st;
}

void sill_constraint_free(sill_constraint *c) {
    if (!c) return;
    for (size_t i = 0; i < c->n_kept; i++) sill__free(c->masks[c->kept[i]]);
    sill__free(c->narrow);
    sill__free(c->kept);
    sill__free(c->masks);
    sill__free(c->distance);
    sill__free(c->stack);
    sill__free(c->tokens);
    sill__free(c->nodes);
    sill__dfa_free(&c->dfa);
    sill__free(c);
}

sill_status sill_constraint_regex(const sill_model *model, const char *pattern, size_t n_bytes, sill_constraint **out, sill_error *err) {
    if (out) *out = NULL;
    if (!model || !pattern || !out) return sill__fail(err, SILL_EINVAL, "sill_constraint_regex: model, pattern and out must not be NULL");
    return make(model, pattern, n_bytes, "the regular expression", out, err);
}

sill_status sill_constraint_choices(const sill_model *model, const char *const *choices, size_t n, sill_constraint **out, sill_error *err) {
    sill__str pattern;
    if (out) *out = NULL;
    if (!model || !choices || !n || !out)
        return sill__fail(err, SILL_EINVAL, "sill_constraint_choices: model, choices and out must not be NULL, and one choice must be there");
    sill__str_init(&pattern, (size_t)64 << 20);
    for (size_t i = 0; i < n; i++) {
        if (!choices[i] || !*choices[i]) {
            sill__str_free(&pattern);
            return sill__fail(err, SILL_EINVAL, "choice %zu is empty", i + 1);
        }
        if (i) sill__str_put(&pattern, "|", 1);
        sill__pattern_literal(&pattern, choices[i], strlen(choices[i]));
    }
    sill_status st = pattern.failed ? sill__fail(err, SILL_ENOMEM, "no memory for %zu choices", n)
                                    : make(model, pattern.p, pattern.n, "the choices", out, err);
    sill__str_free(&pattern);
    return st;
}

sill_status sill_constraint_json_schema(const sill_model *model, const char *schema, size_t n_bytes, sill_constraint **out, sill_error *err) {
    sill__str pattern;
    if (out) *out = NULL;
    if (!model || !schema || !out)
        return sill__fail(err, SILL_EINVAL, "sill_constraint_json_schema: model, schema and out must not be NULL");
    sill__str_init(&pattern, (size_t)64 << 20);
    sill_status st = sill__schema_pattern(schema, n_bytes, &pattern, err);
    if (st == SILL_OK) st = make(model, pattern.p, pattern.n, "the JSON schema", out, err);
    sill__str_free(&pattern);
    return st;
}
