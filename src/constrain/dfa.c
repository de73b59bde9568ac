/*
 * dfa.c - a deterministic automaton of a nondeterministic one, by sets of nodes (Rabin and Scott 1959), over classes of bytes
 * that no node tells apart. A set holds nodes that read, and the end.
 */
#include "constrain/constrain.h"

#include <stdlib.h>

typedef struct builder {
    const sill__nfa *nfa;
    sill__dfa *out;
    const char *what;
    int32_t *sets;         /* nodes of all states, one behind the other */
    size_t n_sets, cap_sets;
    size_t *starts;        /* (SILL__DFA_MAX + 1) of a state's nodes */
    int32_t *table;        /* open addressing: state + 1 */
    size_t n_table;
    uint32_t *seen, stamp; /* (nodes) */
    int32_t *stack, *now;  /* (nodes) */
    int32_t cap_states;
    sill_error *err;
} builder;

/* Adds what is reached from NODE without reading. */
static int32_t close_over(builder *b, int32_t from, int32_t n) {
    int32_t top = 0;
    b->stack[top++] = from;
    while (top) {
        int32_t at = b->stack[--top];
        const sill__nfa_node *v = &b->nfa->nodes[at];
        if (b->seen[at] == b->stamp) continue;
        b->seen[at] = b->stamp;
        if (v->reads || at == b->nfa->end) b->now[n++] = at;
        if (v->reads) continue;
        if (v->other >= 0 && b->seen[v->other] != b->stamp) b->stack[top++] = v->other;
        if (v->next >= 0 && b->seen[v->next] != b->stamp) b->stack[top++] = v->next;
    }
    return n;
}

static int by_number(const void *a, const void *b) {
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

static bool grow(void *pointer, size_t n, size_t bytes) {
    void **at = pointer;
    size_t size;
    void *p = sill__mul(n, bytes, &size) ? sill__realloc(*at, size) : NULL;
    if (p) *at = p;
    return p != NULL;
}

/* Room for one state more. */
static bool room(builder *b) {
    sill__dfa *a = b->out;
    if (a->n < b->cap_states) return true;
    int32_t cap = SILL_MIN(b->cap_states ? b->cap_states * 2 : 64, SILL__DFA_MAX);
    if (!grow(&a->next, (size_t)cap * (size_t)a->n_classes, sizeof *a->next) || !grow(&a->accepts, (size_t)cap, sizeof *a->accepts)) return false;
    b->cap_states = cap;
    return true;
}

/* The state of the n nodes in b->now, which may be new; SILL__DEAD for none. */
static sill_status state_of(builder *b, int32_t n, int32_t *state) {
    sill__dfa *a = b->out;
    if (n == 0) {
        *state = SILL__DEAD;
        return SILL_OK;
    }
    qsort(b->now, (size_t)n, sizeof *b->now, by_number);
    uint64_t h = 1469598103934665603u;
    for (int32_t i = 0; i < n; i++) h = (h ^ (uint32_t)b->now[i]) * 1099511628211u;
    size_t at = (size_t)(h ^ h >> 29) & (b->n_table - 1);
    for (; b->table[at]; at = (at + 1) & (b->n_table - 1)) {
        const size_t s = (size_t)b->table[at] - 1;
        if (b->starts[s + 1] - b->starts[s] == (size_t)n && !memcmp(b->sets + b->starts[s], b->now, (size_t)n * sizeof *b->now)) {
            *state = (int32_t)s;
            return SILL_OK;
        }
    }
    if (a->n == SILL__DFA_MAX)
        return sill__fail(b->err, SILL_ERANGE, "%s: the pattern needs more than %d states; shorten its repetitions or alternatives", b->what,
                          SILL__DFA_MAX);
    size_t cap = b->cap_sets;
    while (cap - b->n_sets < (size_t)n) cap = cap ? cap * 2 : 1024;
    if (cap > (size_t)64 << 20)
        return sill__fail(b->err, SILL_ERANGE, "%s: the pattern's states are too large; shorten its repetitions or alternatives", b->what);
    if ((cap != b->cap_sets && !grow(&b->sets, cap, sizeof *b->sets)) || !room(b))
        return sill__fail(b->err, SILL_ENOMEM, "%s: no memory for the states of the pattern", b->what);
    b->cap_sets = cap;
    memcpy(b->sets + b->n_sets, b->now, (size_t)n * sizeof *b->now);
    b->n_sets += (size_t)n;
    b->table[at] = a->n + 1;
    a->accepts[a->n] = false;
    for (int32_t i = 0; i < n; i++) a->accepts[a->n] |= b->now[i] == b->nfa->end;
    *state = a->n++;
    b->starts[a->n] = b->n_sets;
    return SILL_OK;
}

/* Classes of bytes: a new one begins where a node's range begins or ends. */
static void classes(builder *b) {
    bool begins[257] = {true};
    int32_t n = -1;
    for (int32_t i = 0; i < b->nfa->n; i++)
        if (b->nfa->nodes[i].reads) begins[b->nfa->nodes[i].low] = begins[b->nfa->nodes[i].high + 1] = true;
    for (int i = 0; i < 256; i++) b->out->classes[i] = (uint8_t)(n += begins[i]);
    b->out->n_classes = n + 1;
}

static sill_status explore(builder *b) {
    sill__dfa *a = b->out;
    int32_t start;
    b->stamp++;
    sill_status st = state_of(b, close_over(b, b->nfa->start, 0), &start);
    for (int32_t s = 0; s < a->n && st == SILL_OK; s++)
        for (int byte = 0; byte < 256 && st == SILL_OK; byte++) {
            int32_t n = 0, to;
            if (byte && a->classes[byte] == a->classes[byte - 1]) continue;
            b->stamp++;
            for (size_t i = b->starts[s]; i < b->starts[s + 1]; i++) {
                const sill__nfa_node *v = &b->nfa->nodes[b->sets[i]];
                if (v->reads && byte >= v->low && byte <= v->high) n = close_over(b, v->next, n);
            }
            st = state_of(b, n, &to);
            a->next[(size_t)s * (size_t)a->n_classes + a->classes[byte]] = st == SILL_OK ? to : SILL__DEAD;
        }
    return st;
}

sill_status sill__dfa_make(const sill__nfa *nfa, const char *what, sill__dfa *out, sill_error *err) {
    builder b = {.nfa = nfa, .out = out, .what = what, .n_table = 65536, .err = err};
    const size_t nodes = (size_t)nfa->n;
    memset(out, 0, sizeof *out);
    classes(&b);
    b.starts = sill__calloc(SILL__DFA_MAX + 1, sizeof *b.starts);
    b.table = sill__calloc(b.n_table, sizeof *b.table);
    b.seen = sill__calloc(nodes, sizeof *b.seen);
    b.stack = sill__calloc(2 * nodes + 2, sizeof *b.stack);
    b.now = sill__calloc(nodes, sizeof *b.now);
    sill_status st = b.starts && b.table && b.seen && b.stack && b.now
                         ? explore(&b) : sill__fail(err, SILL_ENOMEM, "%s: no memory for the states of the pattern", what);
    sill__free(b.now);
    sill__free(b.stack);
    sill__free(b.seen);
    sill__free(b.table);
    sill__free(b.starts);
    sill__free(b.sets);
    if (st != SILL_OK) sill__dfa_free(out);
    return st;
}

void sill__dfa_free(sill__dfa *a) {
    sill__free(a->next);
    sill__free(a->accepts);
    memset(a, 0, sizeof *a);
}
