/*
 * bpe.c - merging: from symbols to tokens. Always the pair of the lowest rank, the leftmost among equals, one
 * at a time, as tiktoken and tokenizers do. Short pieces (nearly all) by looking for the lowest rank again and
 * again; long ones with a heap, in O(n log n) whatever the text.
 */
#include "tokenizer/internal.h"

#define SHORT_PIECE 48

typedef struct pair { uint32_t rank, id; } pair;

static inline pair pair_of(const sill_tokenizer *t, uint32_t left, uint32_t right) {
    const sill__merge_slot *m = sill__tok_find_merge(t, left, right);
    return m ? (pair){m->rank, m->id} : (pair){UINT32_MAX, SILL__NO_ID};
}

static size_t merge_short(const sill_tokenizer *t, uint32_t *sym, size_t n) {
    uint32_t rank[SHORT_PIECE], id[SHORT_PIECE];
    for (size_t i = 0; i + 1 < n; i++) {
        pair p = pair_of(t, sym[i], sym[i + 1]);
        rank[i] = p.rank;
        id[i] = p.id;
    }
    while (n > 1) {
        size_t best = 0;
        uint32_t low = rank[0];
        for (size_t i = 1; i + 1 < n; i++)
            if (rank[i] < low) {
                low = rank[i];
                best = i;
            }
        if (low == UINT32_MAX) break;
        sym[best] = id[best];
        n--;
        for (size_t i = best + 1; i < n; i++) sym[i] = sym[i + 1];
        for (size_t i = best; i + 1 < n; i++) {
            rank[i] = rank[i + 1];
            id[i] = id[i + 1];
        }
        if (best + 1 < n) {
            pair p = pair_of(t, sym[best], sym[best + 1]);
            rank[best] = p.rank;
            id[best] = p.id;
        }
        if (best > 0) {
            pair p = pair_of(t, sym[best - 1], sym[best]);
            rank[best - 1] = p.rank;
            id[best - 1] = p.id;
        }
    }
    return n;
}

/* A binary heap of rank << 32 | place, lowest first. */
typedef struct heap { uint64_t *p; size_t n; } heap;

static void sift_down(heap *h, size_t i, uint64_t x) {
    for (;;) {
        size_t c = 2 * i + 1;
        if (c >= h->n) break;
        if (c + 1 < h->n && h->p[c + 1] < h->p[c]) c++;
        if (h->p[c] >= x) break;
        h->p[i] = h->p[c];
        i = c;
    }
    h->p[i] = x;
}

static void push(heap *h, uint64_t x) {
    size_t i = h->n++;
    while (i > 0 && h->p[(i - 1) / 2] > x) {
        h->p[i] = h->p[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    h->p[i] = x;
}

static uint64_t pop(heap *h) {
    uint64_t top = h->p[0];
    h->n--;
    if (h->n > 0) sift_down(h, 0, h->p[h->n]);
    return top;
}

typedef struct node { uint32_t prev, next, rank, id; } node; /* rank and id of the pair that begins here */

static void set_pair(const sill_tokenizer *t, node *v, const uint32_t *sym, uint32_t i, heap *h) {
    pair p = {UINT32_MAX, SILL__NO_ID};
    if (v[i].next != UINT32_MAX) p = pair_of(t, sym[i], sym[v[i].next]);
    v[i].rank = p.rank;
    v[i].id = p.id;
    if (p.rank != UINT32_MAX) push(h, (uint64_t)p.rank << 32 | i);
}

static sill_status merge_long(const sill_tokenizer *t, uint32_t *sym, size_t *n_sym, sill_error *err) {
    size_t n = *n_sym, bytes, heap_bytes, k = 0;
    sill_status s = SILL_OK;
    heap h = {NULL, 0};
    node *v = NULL;
    if (n >= UINT32_MAX / 2 || !sill__mul(n, sizeof *v, &bytes) || !sill__mul(2 * n, sizeof *h.p, &heap_bytes))
        return sill__fail(err, SILL_ERANGE, "a piece of %zu symbols without a place to cut it", n);
    v = sill__alloc(bytes);
    /* Each merge takes one entry off and puts at most two on: never more than twice the symbols. */
    h.p = sill__alloc(heap_bytes);
    if (!v || !h.p) {
        s = sill__fail(err, SILL_ENOMEM, "out of memory for a piece of %zu symbols", n);
        goto done;
    }
    for (size_t i = 0; i < n; i++) {
        pair p = i + 1 < n ? pair_of(t, sym[i], sym[i + 1]) : (pair){UINT32_MAX, SILL__NO_ID};
        v[i] = (node){i ? (uint32_t)i - 1 : UINT32_MAX, i + 1 < n ? (uint32_t)i + 1 : UINT32_MAX, p.rank, p.id};
        if (p.rank != UINT32_MAX) h.p[h.n++] = (uint64_t)p.rank << 32 | i;
    }
    for (size_t i = h.n / 2; i-- > 0;) sift_down(&h, i, h.p[i]);
    while (h.n > 0) {
        uint64_t top = pop(&h);
        uint32_t i = (uint32_t)top, next;
        if (v[i].rank != (uint32_t)(top >> 32)) continue; /* the pair has changed since */
        next = v[i].next;
        sym[i] = v[i].id;
        v[next].rank = UINT32_MAX;
        v[i].next = v[next].next;
        if (v[i].next != UINT32_MAX) v[v[i].next].prev = i;
        set_pair(t, v, sym, i, &h);
        if (v[i].prev != UINT32_MAX) set_pair(t, v, sym, v[i].prev, &h);
    }
    for (uint32_t i = 0; i != UINT32_MAX; i = v[i].next) sym[k++] = sym[i];
    *n_sym = k;
done:
    sill__free(h.p);
    sill__free(v);
    return s;
}

sill_status sill__bpe_merge(const sill_tokenizer *t, uint32_t *sym, size_t *n, sill_error *err) {
    if (*n > SHORT_PIECE) return merge_long(t, sym, n, err);
    *n = merge_short(t, sym, *n);
    return SILL_OK;
}
