/*
 * vocab.c - the vocabulary while it is built: tokens, the tables that find them and their merges, the trie of
 * added tokens. Nothing here is trusted: ids, lengths and names come from files.
 *
 * Tables are open addressing with linear probing, at most half full, without any allocation per token: a
 * vocabulary of 50,000 is ready in a few milliseconds.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "tokenizer/internal.h"
#include "tokenizer/unicode.h"

#define MAX_PROBES 4096           /* more: the file was made to collide */
#define SPM_MAX_BYTES 256         /* SentencePiece tokens, each of whose splits is tried */
#define TRIE_MAX (1u << 24)
#define AHEAD 8                   /* tokens whose slots are fetched before they are needed */
#define FIRST_TOKENS 2048         /* in the small table: 64 KiB */
#define WORD_MARK "\xe2\x96\x81"  /* U+2581 */

sill_tokenizer *sill__tok_new(void) {
    sill_tokenizer *t = sill__calloc(1, sizeof *t);
    if (!t) return NULL;
    sill__str_init(&t->blob, SILL__TOKENIZER_FILE_MAX);
    t->bos = t->eos = t->pad = t->unk = -1;
    for (int i = 0; i < 256; i++) t->byte_id[i] = SILL__NO_ID;
    for (int i = 0; i < 128; i++) t->char_id[i] = SILL__NO_ID;
    return t;
}

/* Tables are zeroed when empty; large ones lie in huge pages. */
static void *new_table(unsigned bits, size_t slot_bytes) { return sill__alloc_pages(slot_bytes << bits); }
static void free_table(void *table, unsigned bits, size_t slot_bytes) { sill__free_pages(table, slot_bytes << bits); }

void sill_tokenizer_free(sill_tokenizer *t) {
    if (!t) return;
    sill__free(t->chat_template);
    sill__free(t->trie);
    sill__free(t->maybe);
    free_table(t->merges, t->merge_bits, sizeof *t->merges);
    free_table(t->longs, t->long_bits, sizeof *t->longs);
    free_table(t->rest.slots, t->rest.bits, sizeof *t->rest.slots);
    free_table(t->first.slots, t->first.bits, sizeof *t->first.slots);
    sill__str_free(&t->blob);
    sill__free(t->tokens);
    sill__free(t);
}

/* Bytes as they can stand in a message: at most 40, control characters as dots. */
static const char *shown(const void *bytes, size_t n, char out[48]) {
    const uint8_t *p = bytes;
    size_t k = SILL_MIN(n, (size_t)40);
    for (size_t i = 0; i < k; i++) out[i] = (char)(p[i] < 32 || p[i] == 127 ? '.' : p[i]);
    out[k] = 0;
    if (n > k) snprintf(out + k, 48 - k, "...");
    return out;
}

/* ---- tokens */

static sill_status grow(sill_tokenizer *t, uint32_t id, sill_error *err) {
    if (id < t->cap) return SILL_OK;
    size_t cap = SILL_MAX((size_t)id + 1, (size_t)t->cap * 2), bytes;
    cap = SILL_MAX(cap, (size_t)1024);
    if (!sill__mul(cap, sizeof *t->tokens, &bytes)) return sill__fail(err, SILL_ENOMEM, "vocabulary too large");
    sill__token *p = sill__realloc(t->tokens, bytes);
    if (!p) return sill__fail(err, SILL_ENOMEM, "out of memory for a vocabulary of %u tokens", id + 1);
    memset(p + t->cap, 0, (cap - t->cap) * sizeof *p);
    t->tokens = p;
    t->cap = (uint32_t)cap;
    return SILL_OK;
}

sill_status sill__tok_put(sill_tokenizer *t, int64_t id, const void *bytes, size_t n, sill__tok_attr attr,
                          sill_error *err) {
    char name[48];
    if (id < 0 || id >= (int64_t)SILL__VOCAB_MAX)
        return sill__fail(err, SILL_EFORMAT, "token \"%s\" has the id %lld; ids go from 0 to %u", shown(bytes, n, name),
                          (long long)id, SILL__VOCAB_MAX - 1);
    if (n > SILL__TOKEN_MAX_BYTES)
        return sill__fail(err, SILL_EFORMAT, "token %lld has %zu bytes; at most %d can be", (long long)id, n,
                          SILL__TOKEN_MAX_BYTES);
    sill_status s = grow(t, (uint32_t)id, err);
    if (s != SILL_OK) return s;
    sill__token *k = &t->tokens[id];
    if (k->attr != SILL__ATTR_HOLE)
        return sill__fail(err, SILL_EFORMAT, "two tokens have the id %lld, the second is \"%s\"", (long long)id,
                          shown(bytes, n, name));
    k->start = (uint32_t)t->blob.n;
    k->n = (uint16_t)n;
    k->attr = (uint8_t)(n == 0 && attr == SILL__ATTR_NORMAL ? SILL__ATTR_UNUSED : attr);
    k->added = attr == SILL__ATTR_SPECIAL;
    if (!sill__str_put(&t->blob, bytes, n)) return sill__fail(err, SILL_ENOMEM, "out of memory for the vocabulary");
    t->n = SILL_MAX(t->n, (uint32_t)id + 1);
    return SILL_OK;
}

/* GPT-2 writes each byte as one printable character: those that are printable in Latin-1 as themselves, the
 * other 68, in order, as U+0100 and following. False if TEXT has any other character. */
static bool bytes_of_letters(const char *text, size_t n, uint8_t out[SILL__TOKEN_MAX_BYTES], size_t *n_out) {
    const uint8_t *p = (const uint8_t *)text, *end = p + n;
    size_t k = 0;
    while (p < end) {
        uint32_t c = *p;
        if (c < 0x80) p++;
        else {
            size_t m = sill__utf8_decode(p, end, &c);
            if (m == 0) return false;
            p += m;
        }
        if (c >= 256 && c < 324) c = c < 289 ? c - 256 : c < 323 ? c - 289 + 127 : 173;
        else if (!((c >= 33 && c <= 126) || (c >= 161 && c <= 172) || (c >= 174 && c <= 255))) return false;
        if (k == SILL__TOKEN_MAX_BYTES) return false;
        out[k++] = (uint8_t)c;
    }
    *n_out = k;
    return true;
}

/* SentencePiece writes a space as U+2581. False if TEXT has a space of its own, which no text can become. */
static bool bytes_of_marks(const char *text, size_t n, uint8_t out[SILL__TOKEN_MAX_BYTES], size_t *n_out) {
    size_t k = 0;
    for (size_t i = 0; i < n;) {
        if (text[i] == ' ' || k == SILL__TOKEN_MAX_BYTES) return false;
        if (n - i >= 3 && !memcmp(text + i, WORD_MARK, 3)) {
            out[k++] = ' ';
            i += 3;
        } else out[k++] = (uint8_t)text[i++];
    }
    *n_out = k;
    return true;
}

static bool bytes_of(const sill_tokenizer *t, const char *text, size_t n, uint8_t out[SILL__TOKEN_MAX_BYTES],
                     size_t *n_out) {
    return t->kind == SILL__TOK_BPE_SPM ? bytes_of_marks(text, n, out, n_out) : bytes_of_letters(text, n, out, n_out);
}

static int hex_digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return -1;
}

/* The byte of "<0xAB>", or -1. */
static int byte_of_name(const char *p, size_t n) {
    if (n != 6 || memcmp(p, "<0x", 3) || p[5] != '>' || hex_digit(p[3]) < 0 || hex_digit(p[4]) < 0) return -1;
    return hex_digit(p[3]) << 4 | hex_digit(p[4]);
}

sill_status sill__tok_put_written(sill_tokenizer *t, int64_t id, const char *text, size_t n, sill__tok_attr attr,
                                  sill_error *err) {
    uint8_t bytes[SILL__TOKEN_MAX_BYTES];
    char name[48];
    size_t k;
    if (attr == SILL__ATTR_BYTE) {
        int b = byte_of_name(text, n);
        if (b < 0)
            return sill__fail(err, SILL_EFORMAT, "byte token %lld is \"%s\", expected <0x00> to <0xFF>", (long long)id,
                              shown(text, n, name));
        bytes[0] = (uint8_t)b;
        return sill__tok_put(t, id, bytes, 1, attr, err);
    }
    if (attr == SILL__ATTR_SPECIAL) return sill__tok_put(t, id, text, n, attr, err);
    if (!bytes_of(t, text, n, bytes, &k)) return sill__tok_put(t, id, text, n, SILL__ATTR_UNUSED, err);
    return sill__tok_put(t, id, bytes, k, attr, err);
}

sill_status sill__tok_put_added(sill_tokenizer *t, int64_t id, const char *text, size_t n, bool special,
                                sill_error *err) {
    char name[48];
    sill_status s = SILL_OK;
    if (n == 0) return sill__fail(err, SILL_EFORMAT, "added token %lld has no text", (long long)id);
    if (id < 0 || id >= (int64_t)t->n || t->tokens[id].attr == SILL__ATTR_HOLE) {
        s = sill__tok_put(t, id, text, n, SILL__ATTR_UNUSED, err);
        if (s != SILL_OK) return s;
    } else {
        const sill__token *k = &t->tokens[id];
        uint8_t bytes[SILL__TOKEN_MAX_BYTES];
        size_t m = 0;
        bool same = k->n == n && !memcmp(sill__tok_text(t, (uint32_t)id), text, n);
        if (!same && !(bytes_of(t, text, n, bytes, &m) && k->n == m && !memcmp(sill__tok_text(t, (uint32_t)id), bytes, m)))
            return sill__fail(err, SILL_EFORMAT, "added token \"%s\" has the id %lld of another token", shown(text, n, name),
                              (long long)id);
    }
    sill__token *k = &t->tokens[id];
    k->added = 1;
    if (special && k->attr != SILL__ATTR_BYTE) k->attr = SILL__ATTR_SPECIAL;
    return SILL_OK;
}

/* ---- tables of tokens */

/* Bytes P (N of them, 1 to 11) as a key, without reading beyond them. */
static inline void short_key(const uint8_t *p, size_t n, uint64_t *lo, uint32_t *hi) {
    uint64_t a = 0, b = 0;
    uint32_t x, y;
    if (n >= 8) {
        memcpy(&a, p, 8);
        memcpy(&b, p + n - 8, 8);
        b = n == 8 ? 0 : b >> (8 * (16 - n));
    } else if (n >= 4) {
        memcpy(&x, p, 4);
        memcpy(&y, p + n - 4, 4);
        a = x | (uint64_t)y << (8 * (n - 4));
    } else a = p[0] | (uint64_t)p[n >> 1] << (8 * (n >> 1)) | (uint64_t)p[n - 1] << (8 * (n - 1));
    *lo = a;
    *hi = (uint32_t)b | (uint32_t)n << 24;
}

static inline sill__slot_id *find_short(const sill__short_table *t, uint64_t lo, uint32_t hi, uint64_t hash) {
    uint32_t mask = ((uint32_t)1 << t->bits) - 1;
    for (uint32_t i = (uint32_t)(hash >> (64 - t->bits));; i = (i + 1) & mask) {
        sill__short_slot *s = &t->slots[i];
        if (s->lo == lo && s->hi == hi) return &s->id;
        if (s->hi == 0) return NULL;
    }
}

static bool same_token(const sill_tokenizer *t, uint32_t id, const uint8_t *p, size_t n) {
    return t->tokens[id].n == n && !memcmp(sill__tok_text(t, id), p, n);
}

static sill__slot_id *find_long(const sill_tokenizer *t, const uint8_t *p, size_t n) {
    uint64_t h = sill__hash64(p, n);
    uint32_t mask = ((uint32_t)1 << t->long_bits) - 1;
    for (uint32_t i = (uint32_t)(h >> (64 - t->long_bits));; i = (i + 1) & mask) {
        sill__long_slot *s = &t->longs[i];
        if (s->tag == 0) return NULL;
        if (s->tag == ((uint32_t)h | 1) &&
            same_token(t, atomic_load_explicit(&s->id, memory_order_relaxed) & SILL__ID_MASK, p, n)) return &s->id;
    }
}

sill__slot_id *sill__tok_slot(const sill_tokenizer *t, const uint8_t *p, size_t n) {
    uint64_t lo;
    uint32_t hi;
    if (n == 0 || n > t->longest) return NULL;
    if (n > SILL__KEY_BYTES) return find_long(t, p, n);
    short_key(p, n, &lo, &hi);
    uint64_t hash = sill__tok_mix(lo, hi);
    sill__slot_id *slot = find_short(&t->first, lo, hi, hash);
    return slot ? slot : find_short(&t->rest, lo, hi, hash);
}

uint32_t sill__tok_search(const sill_tokenizer *t, const char *p, size_t n) {
    uint32_t id = sill__tok_lookup(t, (const uint8_t *)p, n);
    if (id != SILL__NO_ID) return id;
    for (id = 0; id < t->n; id++) {
        const sill__token *k = &t->tokens[id];
        if (k->attr != SILL__ATTR_HOLE && k->attr != SILL__ATTR_NORMAL && k->attr != SILL__ATTR_BYTE && k->n == n &&
            !memcmp(sill__tok_text(t, id), p, n))
            return id;
    }
    return SILL__NO_ID;
}

/* Bits of a table for N entries, at most half full. */
static unsigned table_bits(size_t n) {
    unsigned bits = 4;
    while (((size_t)1 << bits) < 2 * n) bits++;
    return bits;
}

static sill_status collided(sill_error *err) {
    return sill__fail(err, SILL_EFORMAT, "the vocabulary's entries collide on purpose");
}

static sill_status twins(const sill_tokenizer *t, uint32_t a, uint32_t b, sill_error *err) {
    char name[48];
    return sill__fail(err, SILL_EFORMAT, "tokens %u and %u are the same, \"%s\"", SILL_MIN(a, b), SILL_MAX(a, b),
                      shown(sill__tok_text(t, a), t->tokens[a].n, name));
}

static sill_status insert_short(sill_tokenizer *t, sill__short_table *table, uint32_t id, sill_error *err) {
    uint64_t lo;
    uint32_t hi, mask = ((uint32_t)1 << table->bits) - 1;
    unsigned probes = 0;
    short_key(sill__tok_text(t, id), t->tokens[id].n, &lo, &hi);
    uint64_t hash = sill__tok_mix(lo, hi);
    if (table != &t->first) {
        sill__slot_id *twin = find_short(&t->first, lo, hi, hash);
        if (twin) return twins(t, *twin, id, err);
    }
    uint32_t i = (uint32_t)(hash >> (64 - table->bits));
    for (; table->slots[i].hi != 0; i = (i + 1) & mask) {
        if (table->slots[i].lo == lo && table->slots[i].hi == hi) return twins(t, table->slots[i].id, id, err);
        if (++probes > MAX_PROBES) return collided(err);
    }
    table->slots[i].lo = lo;
    table->slots[i].hi = hi;
    table->slots[i].id = id;
    return SILL_OK;
}

static sill_status insert_long(sill_tokenizer *t, uint32_t id, sill_error *err) {
    const uint8_t *p = sill__tok_text(t, id);
    size_t n = t->tokens[id].n;
    uint64_t h = sill__hash64(p, n);
    uint32_t mask = ((uint32_t)1 << t->long_bits) - 1, i = (uint32_t)(h >> (64 - t->long_bits));
    unsigned probes = 0;
    for (; t->longs[i].tag != 0; i = (i + 1) & mask) {
        const sill__long_slot *s = &t->longs[i];
        if (s->tag == ((uint32_t)h | 1) && same_token(t, s->id, p, n)) return twins(t, s->id, id, err);
        if (++probes > MAX_PROBES) return collided(err);
    }
    t->longs[i].tag = (uint32_t)h | 1;
    t->longs[i].id = id;
    return SILL_OK;
}

static sill_status merge_table(sill_tokenizer *t, size_t n, sill_error *err) {
    if (n > SILL__MERGES_MAX)
        return sill__fail(err, SILL_EFORMAT, "%zu merges; at most %u can be", n, SILL__MERGES_MAX);
    free_table(t->merges, t->merge_bits, sizeof *t->merges);
    sill__free(t->maybe);
    t->n_merges = 0;
    t->merge_bits = table_bits(n);
    t->merges = new_table(t->merge_bits, sizeof *t->merges);
    t->maybe = sill__calloc(((size_t)4 << t->merge_bits) / 64, sizeof *t->maybe);
    return t->merges && t->maybe ? SILL_OK : sill__fail(err, SILL_ENOMEM, "out of memory for %zu merges", n);
}

/* Brings the slot that a token will go to into the cache. */
static void fetch_slot(const sill_tokenizer *t, uint32_t id) {
    uint64_t lo;
    uint32_t hi;
    if (t->tokens[id].n == 0 || t->tokens[id].n > SILL__KEY_BYTES) return;
    short_key(sill__tok_text(t, id), t->tokens[id].n, &lo, &hi);
    __builtin_prefetch(&t->rest.slots[sill__tok_mix(lo, hi) >> (64 - t->rest.bits)], 1);
}

sill_status sill__tok_index(sill_tokenizer *t, size_t n_merges, sill_error *err) {
    size_t n_short = 0, n_long = 0;
    sill_status s = SILL_OK;
    if (t->n == 0) return sill__fail(err, SILL_EFORMAT, "the vocabulary is empty");
    for (uint32_t i = 0; i < t->n; i++) {
        const sill__token *k = &t->tokens[i];
        if (k->attr == SILL__ATTR_BYTE) {
            uint32_t *b = &t->byte_id[*sill__tok_text(t, i)];
            if (*b != SILL__NO_ID) return twins(t, *b, i, err);
            *b = i;
        }
        if (k->attr != SILL__ATTR_NORMAL) continue;
        if (t->kind == SILL__TOK_BPE_SPM && k->n > SPM_MAX_BYTES)
            return sill__fail(err, SILL_EFORMAT, "token %u has %u bytes; at most %d can be", i, k->n, SPM_MAX_BYTES);
        t->longest = SILL_MAX(t->longest, k->n);
        if (k->n <= SILL__KEY_BYTES) n_short++;
        else n_long++;
    }
    t->first.bits = table_bits(SILL_MIN(n_short, (size_t)FIRST_TOKENS));
    t->rest.bits = table_bits(n_short - SILL_MIN(n_short, (size_t)FIRST_TOKENS));
    t->long_bits = table_bits(n_long);
    t->first.slots = new_table(t->first.bits, sizeof *t->first.slots);
    t->rest.slots = new_table(t->rest.bits, sizeof *t->rest.slots);
    t->longs = new_table(t->long_bits, sizeof *t->longs);
    if (!t->first.slots || !t->rest.slots || !t->longs)
        return sill__fail(err, SILL_ENOMEM, "out of memory for a vocabulary of %u tokens", t->n);
    for (uint32_t i = 0, k = 0; i < t->n && s == SILL_OK; i++) {
        if (i + AHEAD < t->n) fetch_slot(t, i + AHEAD);
        if (t->tokens[i].attr != SILL__ATTR_NORMAL) continue;
        if (t->tokens[i].n > SILL__KEY_BYTES) s = insert_long(t, i, err);
        else s = insert_short(t, k++ < FIRST_TOKENS ? &t->first : &t->rest, i, err);
    }
    return s == SILL_OK ? merge_table(t, n_merges, err) : s;
}

/* ---- merges */

static uint32_t merge_home(const sill_tokenizer *t, uint32_t left, uint32_t right) {
    return (uint32_t)(sill__tok_mix(left, right) >> (64 - t->merge_bits));
}

static sill_status insert_merge(sill_tokenizer *t, const sill__merge_slot *m, sill_error *err) {
    uint32_t mask = ((uint32_t)1 << t->merge_bits) - 1, i = merge_home(t, m->left - 1, m->right);
    unsigned probes = 0;
    t->n_ranks = SILL_MAX(t->n_ranks, m->rank + 1);
    for (; t->merges[i].left != 0; i = (i + 1) & mask) {
        if (t->merges[i].left == m->left && t->merges[i].right == m->right) { /* listed twice: the later one counts */
            t->merges[i].rank = m->rank;
            return SILL_OK;
        }
        if (++probes > MAX_PROBES) return collided(err);
    }
    t->merges[i] = *m;
    uint32_t bit = sill__tok_maybe(t, sill__tok_mix(m->left - 1, m->right));
    t->maybe[bit >> 6] |= (uint64_t)1 << (bit & 63);
    t->n_merges++;
    return SILL_OK;
}

static sill_status insert_waiting(sill_tokenizer *t, sill_error *err) {
    sill_status s = SILL_OK;
    for (unsigned i = 0; i < t->n_waiting && s == SILL_OK; i++) s = insert_merge(t, &t->waiting[i], err);
    t->n_waiting = 0;
    return s;
}

/* A table of twice the size once half of it is full: JSON does not announce how many merges follow. */
static sill_status grow_merges(sill_tokenizer *t, sill_error *err) {
    sill__merge_slot *old = t->merges;
    unsigned bits = t->merge_bits;
    size_t slots = (size_t)1 << bits;
    if ((size_t)t->n_merges * 2 < slots) return SILL_OK;
    t->merges = NULL;
    sill_status s = merge_table(t, slots, err);
    for (size_t i = 0; i < slots && s == SILL_OK; i++)
        if (old[i].left != 0) s = insert_merge(t, &old[i], err);
    free_table(old, bits, sizeof *old);
    return s;
}

/* The table is larger than a core's cache: a merge waits until its slot has been fetched. */
static sill_status add_merge(sill_tokenizer *t, uint32_t left, uint32_t right, uint32_t rank, uint32_t id,
                             sill_error *err) {
    __builtin_prefetch(&t->merges[merge_home(t, left, right)], 1);
    t->waiting[t->n_waiting++] = (sill__merge_slot){left + 1, right, rank, id};
    if (t->n_waiting < SILL__WAITING) return SILL_OK;
    sill_status s = insert_waiting(t, err);
    return s == SILL_OK ? grow_merges(t, err) : s;
}

sill_status sill__tok_merge_ids(sill_tokenizer *t, uint32_t left, uint32_t right, uint32_t rank, uint32_t id, sill_error *err) {
    return add_merge(t, left, right, rank, id, err);
}

sill_status sill__tok_merge_written(sill_tokenizer *t, const char *left, size_t n_left, const char *right,
                                    size_t n_right, uint32_t rank, sill_error *err) {
    uint8_t bytes[2 * SILL__TOKEN_MAX_BYTES];
    char a[48], b[48];
    size_t n = 0, m = 0;
    uint32_t l = SILL__NO_ID, r = SILL__NO_ID, id = SILL__NO_ID;
    if (bytes_of(t, left, n_left, bytes, &n) && bytes_of(t, right, n_right, bytes + n, &m)) {
        l = sill__tok_lookup(t, bytes, n);
        r = sill__tok_lookup(t, bytes + n, m);
        /* Vocabularies list the results of merges in the order of the merges: mostly no search is needed. */
        uint32_t guess = t->last_merged + 1;
        if (guess < t->n && t->tokens[guess].attr == SILL__ATTR_NORMAL && same_token(t, guess, bytes, n + m)) id = guess;
        else id = sill__tok_lookup(t, bytes, n + m);
    }
    if (l == SILL__NO_ID || r == SILL__NO_ID || id == SILL__NO_ID)
        return sill__fail(err, SILL_EFORMAT, "merge %u, \"%s\" and \"%s\": %s not in the vocabulary", rank,
                          shown(left, n_left, a), shown(right, n_right, b),
                          l == SILL__NO_ID ? "the first is" : r == SILL__NO_ID ? "the second is" : "the two joined are");
    t->last_merged = id;
    return add_merge(t, l, r, rank, id, err);
}

sill_status sill__tok_merge_line(sill_tokenizer *t, const char *line, size_t n, uint32_t rank, sill_error *err) {
    char name[48];
    const char *space = n > 2 ? memchr(line + 1, ' ', n - 2) : NULL;
    if (!space) return sill__fail(err, SILL_EFORMAT, "merge %u, \"%s\", is not two tokens with a space between", rank,
                                  shown(line, n, name));
    size_t k = (size_t)(space - line);
    return sill__tok_merge_written(t, line, k, space + 1, n - k - 1, rank, err);
}

typedef struct scored { float score; uint32_t id; } scored;

static int by_score(const void *a, const void *b) {
    const scored *x = a, *y = b;
    if (x->score != y->score) return x->score > y->score ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

typedef struct triple { uint32_t left, right, id; } triple;
typedef struct triples { triple *p; size_t n, cap; } triples;

static sill_status push_triple(triples *v, triple x, sill_error *err) {
    if (v->n == v->cap) {
        size_t cap = v->cap ? v->cap * 2 : 4096;
        if (v->n >= SILL__MERGES_MAX)
            return sill__fail(err, SILL_EFORMAT, "the vocabulary has more than %u merges", SILL__MERGES_MAX);
        triple *p = sill__realloc(v->p, cap * sizeof *p);
        if (!p) return sill__fail(err, SILL_ENOMEM, "out of memory for the vocabulary's merges");
        v->p = p;
        v->cap = cap;
    }
    v->p[v->n++] = x;
    return SILL_OK;
}

/* Each way to put token ID together from two tokens. */
static sill_status splits_of(const sill_tokenizer *t, uint32_t id, triples *v, sill_error *err) {
    const uint8_t *p = sill__tok_text(t, id);
    size_t n = t->tokens[id].n;
    sill_status s = SILL_OK;
    for (size_t i = 1; i < n && s == SILL_OK; i++) {
        if ((p[i] & 0xc0) == 0x80) continue;
        uint32_t left = sill__tok_lookup(t, p, i);
        if (left == SILL__NO_ID) continue;
        uint32_t right = sill__tok_lookup(t, p + i, n - i);
        if (right != SILL__NO_ID) s = push_triple(v, (triple){left, right, id}, err);
    }
    return s;
}

sill_status sill__tok_merges_from_scores(sill_tokenizer *t, const float *scores, sill_error *err) {
    scored *order = sill__alloc(t->n * sizeof *order);
    uint32_t *rank = sill__calloc(t->n, sizeof *rank), n = 0;
    triples v = {0};
    sill_status s = SILL_OK;
    if (!order || !rank) {
        s = sill__fail(err, SILL_ENOMEM, "out of memory for the scores of %u tokens", t->n);
        goto done;
    }
    for (uint32_t i = 0; i < t->n; i++) {
        if (t->tokens[i].attr != SILL__ATTR_NORMAL) continue;
        if (isnan(scores[i])) {
            s = sill__fail(err, SILL_EFORMAT, "the score of token %u is not a number", i);
            goto done;
        }
        order[n++] = (scored){scores[i], i};
    }
    qsort(order, n, sizeof *order, by_score);
    /* Equal scores get equal ranks: then the leftmost pair comes first, as in SentencePiece. */
    for (uint32_t i = 1; i < n; i++)
        rank[order[i].id] = rank[order[i - 1].id] + (order[i].score != order[i - 1].score);
    for (uint32_t i = 0; i < t->n && s == SILL_OK; i++)
        if (t->tokens[i].attr == SILL__ATTR_NORMAL) s = splits_of(t, i, &v, err);
    if (s == SILL_OK) s = merge_table(t, v.n, err);
    for (size_t i = 0; i < v.n && s == SILL_OK; i++)
        s = add_merge(t, v.p[i].left, v.p[i].right, rank[v.p[i].id], v.p[i].id, err);
done:
    sill__free(v.p);
    sill__free(rank);
    sill__free(order);
    return s;
}

/* ---- added tokens */

static sill_status trie_add(sill_tokenizer *t, uint32_t id, size_t *cap, sill_error *err) {
    const uint8_t *p = sill__tok_text(t, id);
    size_t n = t->tokens[id].n;
    uint32_t at = 0;
    if ((size_t)t->n_trie + n + 1 > *cap) {
        size_t want = SILL_MAX(*cap * 2, t->n_trie + n + 1024);
        if (t->n_trie + n > TRIE_MAX) return sill__fail(err, SILL_EFORMAT, "the added tokens are too long together");
        sill__trie_node *q = sill__realloc(t->trie, want * sizeof *q);
        if (!q) return sill__fail(err, SILL_ENOMEM, "out of memory for the added tokens");
        t->trie = q;
        *cap = want;
    }
    if (t->n_trie == 0) t->trie[t->n_trie++] = (sill__trie_node){SILL__NO_ID, SILL__NO_ID, SILL__NO_ID, 0};
    t->trie_starts[p[0]] = true;
    for (size_t i = 0; i < n; i++) {
        uint32_t c = t->trie[at].child;
        while (c != SILL__NO_ID && t->trie[c].byte != p[i]) c = t->trie[c].sibling;
        if (c == SILL__NO_ID) {
            c = t->n_trie++;
            t->trie[c] = (sill__trie_node){SILL__NO_ID, t->trie[at].child, SILL__NO_ID, p[i]};
            t->trie[at].child = c;
        }
        at = c;
    }
    if (t->trie[at].id != SILL__NO_ID) return twins(t, t->trie[at].id, id, err);
    t->trie[at].id = id;
    return SILL_OK;
}

/* Whether some token has a space behind another character. */
static bool space_inside(const sill_tokenizer *t) {
    for (uint32_t i = 0; i < t->n; i++) {
        const uint8_t *p = sill__tok_text(t, i);
        if (t->tokens[i].attr != SILL__ATTR_NORMAL) continue;
        for (size_t j = 1; j < t->tokens[i].n; j++)
            if (p[j] == ' ' && p[j - 1] != ' ') return true;
    }
    return false;
}

sill_status sill__tok_finish(sill_tokenizer *t, sill_error *err) {
    size_t cap = 0;
    sill_status s = insert_waiting(t, err);
    if (s != SILL_OK) return s;
    for (uint32_t i = 0; i < t->n; i++)
        if (t->tokens[i].added && (s = trie_add(t, i, &cap, err)) != SILL_OK) return s;
    if (t->kind == SILL__TOK_BPE_SPM) {
        for (int i = 0; i < 128; i++) {
            uint8_t c = (uint8_t)i;
            t->char_id[i] = sill__tok_lookup(t, &c, 1);
        }
        if (t->cut == SILL__CUT_WORDS && space_inside(t)) t->cut = SILL__CUT_NONE;
        return SILL_OK;
    }
    for (int i = 0; i < 256; i++) {
        uint8_t c = (uint8_t)i;
        t->byte_id[i] = sill__tok_lookup(t, &c, 1);
        t->n_missing_bytes += t->byte_id[i] == SILL__NO_ID;
    }
    if (t->n_missing_bytes == 256)
        return sill__fail(err, SILL_EFORMAT, "no token of the vocabulary is a single byte; it is not a byte-level one");
    return SILL_OK;
}
