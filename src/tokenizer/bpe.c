/*
 * bpe.c - merging: from symbols to tokens. Always the pair of the lowest rank, the leftmost among equals, one
 * at a time, as tiktoken and tokenizers do. Short pieces (nearly all) by looking for the lowest rank again and
 * again; long ones with a heap, in O(n log n) whatever the text.
 */
#include "tokenizer/internal.h"

#define SHORT_PIECE 48
#define LONG_PIECE 1024

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

/* Takes the pair at I together; the node behind it is gone. */
static void join(node *v, uint32_t *sym, uint32_t i) {
    uint32_t next = v[i].next;
    sym[i] = v[i].id;
    v[next].rank = UINT32_MAX;
    v[i].next = v[next].next;
    if (v[i].next != UINT32_MAX) v[v[i].next].prev = i;
}

static void set_nodes(const sill_tokenizer *t, node *v, const uint32_t *sym, size_t n) {
    for (size_t i = 0; i < n; i++) {
        pair p = i + 1 < n ? pair_of(t, sym[i], sym[i + 1]) : (pair){UINT32_MAX, SILL__NO_ID};
        v[i] = (node){i ? (uint32_t)i - 1 : UINT32_MAX, i + 1 < n ? (uint32_t)i + 1 : UINT32_MAX, p.rank, p.id};
    }
}

static sill_status merge_by_heap(const sill_tokenizer *t, uint32_t *sym, node *v, size_t n, sill_error *err) {
    /* Each merge takes one entry off and puts at most two on: never more than twice the symbols. */
    heap h = {sill__alloc(2 * n * sizeof *h.p), 0};
    if (!h.p) return sill__fail(err, SILL_ENOMEM, "out of memory for a piece of %zu symbols", n);
    for (size_t i = 0; i < n; i++)
        if (v[i].rank != UINT32_MAX) h.p[h.n++] = (uint64_t)v[i].rank << 32 | i;
    for (size_t i = h.n / 2; i-- > 0;) sift_down(&h, i, h.p[i]);
    while (h.n > 0) {
        uint64_t top = pop(&h);
        uint32_t i = (uint32_t)top;
        if (v[i].rank != (uint32_t)(top >> 32)) continue; /* the pair has changed since */
        join(v, sym, i);
        set_pair(t, v, sym, i, &h);
        if (v[i].prev != UINT32_MAX) set_pair(t, v, sym, v[i].prev, &h);
    }
    sill__free(h.p);
    return SILL_OK;
}

/* ---- rank by rank. A merge mostly makes pairs of higher ranks: then all places of one rank are known when its
 * turn comes, and are worked off from left to right. A pair of a lower or the same rank (SentencePiece can put a
 * token together in ways that were not its training's) lies at or left of the place in work, so it comes before the
 * places that are left; such pairs wait in a heap, which is worked off after every merge. */

typedef struct entry { uint32_t place, next; } entry;
typedef struct ranks {
    uint32_t *head, *tail;  /* (n_ranks) lists of entries, UINT32_MAX where empty */
    uint64_t *filled;       /* (n_ranks bits) */
    entry *pool;            /* three for each symbol: the first pairs, and at most two for each merge */
    uint32_t n_pool, current;
    heap early;             /* pairs of ranks up to the current one */
} ranks;

static void list(ranks *k, uint32_t rank, uint32_t place) {
    uint32_t e = k->n_pool++;
    k->pool[e] = (entry){place, UINT32_MAX};
    if (k->filled[rank >> 6] >> (rank & 63) & 1) k->pool[k->tail[rank]].next = e;
    else {
        k->filled[rank >> 6] |= (uint64_t)1 << (rank & 63);
        k->head[rank] = e;
    }
    k->tail[rank] = e;
}

static void list_pair(const sill_tokenizer *t, node *v, const uint32_t *sym, uint32_t i, ranks *k) {
    pair p = {UINT32_MAX, SILL__NO_ID};
    if (v[i].next != UINT32_MAX) p = pair_of(t, sym[i], sym[v[i].next]);
    v[i].rank = p.rank;
    v[i].id = p.id;
    if (p.rank == UINT32_MAX) return;
    if (p.rank > k->current) list(k, p.rank, i);
    else push(&k->early, (uint64_t)p.rank << 32 | i);
}

static void merge_at(const sill_tokenizer *t, node *v, uint32_t *sym, uint32_t i, ranks *k) {
    join(v, sym, i);
    list_pair(t, v, sym, i, k);
    if (v[i].prev != UINT32_MAX) list_pair(t, v, sym, v[i].prev, k);
}

/* Sorts the N numbers in A by merging the ascending runs that they come in, which are few. B is of the same size;
 * returns which of the two holds the result. */
static uint32_t *sort_places(uint32_t *a, uint32_t *b, size_t n) {
    for (;;) {
        for (size_t i = 0, m, e; i < n; i = e) {
            for (m = i + 1; m < n && a[m - 1] <= a[m]; m++) {}
            if (i == 0 && m == n) return a;
            for (e = m < n ? m + 1 : m; e < n && a[e - 1] <= a[e]; e++) {}
            for (size_t x = i, y = m, o = i; o < e; o++) b[o] = y == e || (x < m && a[x] <= a[y]) ? a[x++] : a[y++];
        }
        uint32_t *swap = a;
        a = b;
        b = swap;
    }
}

static void work_off(const sill_tokenizer *t, node *v, uint32_t *sym, ranks *k, uint32_t *batch, size_t n) {
    uint32_t rank = k->current;
    size_t m = 0;
    for (uint32_t e = k->head[rank]; e != UINT32_MAX; e = k->pool[e].next)
        if (v[k->pool[e].place].rank == rank) batch[m++] = k->pool[e].place;
    const uint32_t *places = m ? sort_places(batch, batch + n, m) : batch;
    for (size_t j = 0; j < m; j++) {
        if (v[places[j]].rank != rank) continue; /* its symbols are no longer what they were */
        merge_at(t, v, sym, places[j], k);
        while (k->early.n > 0) {
            uint64_t top = pop(&k->early);
            if (v[(uint32_t)top].rank == (uint32_t)(top >> 32)) merge_at(t, v, sym, (uint32_t)top, k);
        }
    }
}

static sill_status merge_by_rank(const sill_tokenizer *t, uint32_t *sym, node *v, size_t n, sill_error *err) {
    size_t words = (t->n_ranks + 63) / 64;
    uint32_t *batch = sill__alloc(2 * n * sizeof *batch);
    ranks k = {sill__alloc(t->n_ranks * sizeof *k.head), sill__alloc(t->n_ranks * sizeof *k.tail),
               sill__calloc(words, sizeof *k.filled), sill__alloc(3 * n * sizeof *k.pool), 0, 0,
               {sill__alloc(2 * n * sizeof *k.early.p), 0}};
    sill_status s = SILL_OK;
    if (!batch || !k.head || !k.tail || !k.filled || !k.pool || !k.early.p) {
        s = sill__fail(err, SILL_ENOMEM, "out of memory for a piece of %zu symbols", n);
        goto done;
    }
    for (size_t i = 0; i < n; i++)
        if (v[i].rank != UINT32_MAX) list(&k, v[i].rank, (uint32_t)i);
    for (size_t w = 0; w < words; w++)
        while (k.filled[w]) { /* merging may set later bits of this word */
            k.current = (uint32_t)(w * 64) + (uint32_t)__builtin_ctzll(k.filled[w]);
            work_off(t, v, sym, &k, batch, n);
            k.filled[w] &= k.filled[w] - 1;
        }
done:
    sill__free(k.early.p);
    sill__free(k.pool);
    sill__free(k.filled);
    sill__free(k.tail);
    sill__free(k.head);
    sill__free(batch);
    return s;
}

static sill_status merge_long(const sill_tokenizer *t, uint32_t *sym, size_t *n_sym, sill_error *err) {
    size_t n = *n_sym, bytes, k = 0;
    if (n >= UINT32_MAX / 4 || !sill__mul(n, sizeof(entry) * 3, &bytes))
        return sill__fail(err, SILL_ERANGE, "a piece of %zu symbols without a place to cut it", n);
    node *v = sill__alloc(n * sizeof *v);
    if (!v) return sill__fail(err, SILL_ENOMEM, "out of memory for a piece of %zu symbols", n);
    set_nodes(t, v, sym, n);
    bool by_rank = n >= LONG_PIECE && t->n_ranks <= 65536 + 16 * n; /* else its lists would outgrow the text */
    sill_status s = by_rank ? merge_by_rank(t, sym, v, n, err) : merge_by_heap(t, sym, v, n, err);
    for (uint32_t i = 0; s == SILL_OK && i != UINT32_MAX; i = v[i].next) sym[k++] = sym[i];
    if (s == SILL_OK) *n_sym = k;
    sill__free(v);
    return s;
}

sill_status sill__bpe_merge(const sill_tokenizer *t, uint32_t *sym, size_t *n, sill_error *err) {
    if (*n > SHORT_PIECE) return merge_long(t, sym, n, err);
    *n = merge_short(t, sym, *n);
    return SILL_OK;
}
