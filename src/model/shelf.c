/* shelf.c - see shelf.h. A list that only grows, at its head: readers need no lock. */
#include "model/shelf.h"

#include "base/base.h"

#include <stdatomic.h>

typedef struct block {
    struct block *next;
    size_t n;
    max_align_t bytes[];
} block;

struct sill__shelf { _Atomic(block *) head; };

sill__shelf *sill__shelf_make(void) { return sill__calloc(1, sizeof(sill__shelf)); }

void sill__shelf_free(sill__shelf *s) {
    block *next;
    if (!s) return;
    for (block *b = atomic_load(&s->head); b; b = next) {
        next = b->next;
        sill__free(b);
    }
    sill__free(s);
}

const void *sill__shelf_put(sill__shelf *s, const void *bytes, size_t n) {
    size_t all;
    block *head = atomic_load(&s->head), *mine;
    for (const block *b = head; b; b = b->next)
        if (b->n == n && !memcmp(b->bytes, bytes, n)) return b->bytes;
    if (!sill__add(n, sizeof *mine, &all)) return NULL;
    mine = sill__alloc(all);
    if (!mine) return NULL;
    mine->n = n;
    memcpy(mine->bytes, bytes, n);
    do mine->next = head;
    while (!atomic_compare_exchange_weak(&s->head, &head, mine));
    return mine->bytes;
}
