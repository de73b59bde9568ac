/* mem.c - heap memory, arenas, growing buffers and checked sizes. The one place that calls malloc. */
#include "base/base.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

static atomic_uint_fast64_t n_allocs;
static atomic_uint_fast64_t fail_at;

/* Counts an allocation; true when the test hook wants this one to fail. */
static bool counted_to_fail(void) {
    uint64_t n = atomic_fetch_add_explicit(&n_allocs, 1, memory_order_relaxed) + 1;
    uint64_t f = atomic_load_explicit(&fail_at, memory_order_relaxed);
    return f != 0 && n == f;
}

uint64_t sill__alloc_count(void) { return atomic_load(&n_allocs); }
void sill__alloc_fail_at(uint64_t n) { atomic_store(&fail_at, n ? atomic_load(&n_allocs) + n : 0); }

void *sill__alloc(size_t bytes) {
    if (counted_to_fail()) return NULL;
    return malloc(bytes ? bytes : 1);
}

void *sill__calloc(size_t n, size_t bytes) {
    if (counted_to_fail()) return NULL;
    return calloc(n ? n : 1, bytes ? bytes : 1);
}

void *sill__realloc(void *ptr, size_t bytes) {
    if (counted_to_fail()) return NULL;
    return realloc(ptr, bytes ? bytes : 1);
}

void sill__free(void *ptr) { free(ptr); }
void sill_free(void *ptr) { free(ptr); }

char *sill__strndup(const char *s, size_t n) {
    char *p;
    size_t bytes;
    if (!sill__add(n, 1, &bytes) || !(p = sill__alloc(bytes))) return NULL;
    if (n) memcpy(p, s, n);
    p[n] = 0;
    return p;
}

#define HUGE_PAGE ((size_t)2 << 20)

/* munmap takes whole pages only. */
static size_t whole_pages(size_t bytes) {
    const size_t mask = sill__page_bytes() - 1;
    return (bytes + mask) & ~mask;
}

void *sill__alloc_pages(size_t bytes) {
    if (counted_to_fail()) return NULL;
    if (bytes < HUGE_PAGE) {
        void *p = NULL;
        if (posix_memalign(&p, 64, bytes ? bytes : 64)) return NULL;
        return memset(p, 0, bytes);
    }
    /* Map one huge page more and give the ends back, so that the block starts on a huge page. */
    size_t size = whole_pages(bytes), span;
    if (size < bytes || !sill__add(size, HUGE_PAGE, &span)) return NULL;
    uint8_t *base = mmap(NULL, span, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON, -1, 0);
    if (base == MAP_FAILED) return NULL;
    uintptr_t start = ((uintptr_t)base + HUGE_PAGE - 1) & ~(uintptr_t)(HUGE_PAGE - 1);
    size_t head = start - (uintptr_t)base, tail = span - head - size;
    if (head) munmap(base, head);
    if (tail) munmap((uint8_t *)start + size, tail);
#ifdef MADV_HUGEPAGE
    madvise((void *)start, size, MADV_HUGEPAGE);
#endif
    return (void *)start;
}

void sill__free_pages(void *ptr, size_t bytes) {
    if (!ptr) return;
    if (bytes < HUGE_PAGE) free(ptr);
    else munmap(ptr, whole_pages(bytes));
}

bool sill__mul(size_t a, size_t b, size_t *out) { return !__builtin_mul_overflow(a, b, out); }
bool sill__add(size_t a, size_t b, size_t *out) { return !__builtin_add_overflow(a, b, out); }

struct sill__arena_block { struct sill__arena_block *next; size_t bytes, used; };
#define ARENA_HEAD 64

void *sill__arena_alloc(sill__arena *arena, size_t bytes) {
    size_t need, block;
    struct sill__arena_block *b = arena->head;
    if (!sill__add(bytes, 63, &need)) return NULL;
    need &= ~(size_t)63;
    if (!b || b->bytes - b->used < need) {
        if (!sill__add(SILL_MAX(need, (size_t)65536), ARENA_HEAD, &block)) return NULL;
        b = sill__alloc_pages(block);
        if (!b) return NULL;
        b->next = arena->head;
        b->bytes = block;
        b->used = ARENA_HEAD;
        arena->head = b;
    }
    void *p = (uint8_t *)b + b->used;
    b->used += need;
    arena->used += need;
    return p;
}

void sill__arena_free(sill__arena *arena) {
    for (struct sill__arena_block *b = arena->head, *next; b; b = next) {
        next = b->next;
        sill__free_pages(b, b->bytes);
    }
    memset(arena, 0, sizeof *arena);
}

void sill__str_init(sill__str *s, size_t max_bytes) {
    memset(s, 0, sizeof *s);
    s->max = max_bytes;
}

bool sill__str_put(sill__str *s, const void *bytes, size_t n) {
    size_t need;
    if (s->failed || !sill__add(s->n, n, &need) || need > s->max || need == SIZE_MAX) {
        s->failed = true;
        return false;
    }
    if (need + 1 > s->cap) {
        size_t cap = SILL_MAX(need + 1, s->cap < SIZE_MAX / 2 ? s->cap * 2 : need + 1);
        char *p = sill__realloc(s->p, SILL_MAX(cap, (size_t)64));
        if (!p) {
            s->failed = true;
            return false;
        }
        s->p = p;
        s->cap = SILL_MAX(cap, (size_t)64);
    }
    if (n) memcpy(s->p + s->n, bytes, n);
    s->n = need;
    s->p[need] = 0;
    return true;
}

bool sill__str_puts(sill__str *s, const char *z) { return sill__str_put(s, z, strlen(z)); }

bool sill__str_putf(sill__str *s, const char *format, ...) {
    char small[512];
    va_list ap;
    va_start(ap, format);
    int n = vsnprintf(small, sizeof small, format, ap);
    va_end(ap);
    if (n < 0) {
        s->failed = true;
        return false;
    }
    if ((size_t)n < sizeof small) return sill__str_put(s, small, (size_t)n);
    char *big = sill__alloc((size_t)n + 1);
    if (!big) {
        s->failed = true;
        return false;
    }
    va_start(ap, format);
    vsnprintf(big, (size_t)n + 1, format, ap);
    va_end(ap);
    bool ok = sill__str_put(s, big, (size_t)n);
    sill__free(big);
    return ok;
}

void sill__str_clear(sill__str *s) {
    s->n = 0;
    s->failed = false;
    if (s->p) s->p[0] = 0;
}

void sill__str_free(sill__str *s) {
    sill__free(s->p);
    s->p = NULL;
    s->n = s->cap = 0;
}
