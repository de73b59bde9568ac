/*
 * tokenize.c - the calls: text to ids, ids to bytes, and what a tokenizer tells about itself. A tokenizer is
 * never written to here but for the answer to "is this token whole", which is the same for every thread.
 */
#include <stdio.h>

#include "tokenizer/chat_form.h"
#include "tokenizer/internal.h"
#include "tokenizer/unicode.h"

#define STACK_SYMBOLS 256

typedef struct writer {
    const sill_tokenizer *t;
    int32_t *ids;
    sill_token_span *spans; /* NULL: not asked for */
    const uint8_t *text;    /* what spans count from */
    size_t cap, n;
    uint32_t *big;         /* symbols of pieces that do not fit on the stack */
    size_t big_cap;
    sill_error *err;
} writer;

static inline void put(writer *w, uint32_t id) {
    if (w->n < w->cap) w->ids[w->n] = (int32_t)id;
    w->n++;
}

/* Room for N symbols: SMALL, or memory that the writer keeps for the next time. NULL: out of memory. */
static uint32_t *symbols(writer *w, size_t n, uint32_t small[STACK_SYMBOLS]) {
    size_t bytes;
    if (n <= STACK_SYMBOLS) return small;
    if (n > w->big_cap) {
        size_t cap = SILL_MAX(n, w->big_cap < SIZE_MAX / 2 ? w->big_cap * 2 : n);
        sill__free(w->big);
        w->big = sill__mul(cap, sizeof *w->big, &bytes) ? sill__alloc(bytes) : NULL;
        w->big_cap = w->big ? cap : 0;
        if (!w->big) sill__fail(w->err, SILL_ENOMEM, "out of memory for a piece of %zu bytes", n);
    }
    return w->big;
}

static sill_status merge_and_put(writer *w, uint32_t *sym, size_t n) {
    sill_status s = n > 1 ? sill__bpe_merge(w->t, sym, &n, w->err) : SILL_OK;
    if (s != SILL_OK) return s;
    for (size_t i = 0; i < n; i++) put(w, sym[i]);
    return SILL_OK;
}

/* ---- pieces */

static size_t byte_symbols(const sill_tokenizer *t, const uint8_t *p, size_t n, uint32_t *sym) {
    size_t k = 0;
    bool unknown_before = false;
    for (size_t i = 0; i < n; i++) {
        uint32_t id = t->byte_id[p[i]];
        bool unknown = id == SILL__NO_ID;
        if (!unknown) sym[k++] = id;
        else if (t->bytes_become_unk && !(t->fuse_unk && unknown_before)) sym[k++] = (uint32_t)t->unk;
        unknown_before = unknown;
    }
    return k;
}

/* The character at P: its length and its token, or SILL__NO_ID. */
static inline size_t char_symbol(const sill_tokenizer *t, const uint8_t *p, const uint8_t *end, uint32_t *id) {
    uint32_t c;
    if (*p < 0x80) {
        *id = t->char_id[*p];
        return 1;
    }
    size_t n = sill__utf8_decode(p, end, &c);
    *id = n ? sill__tok_lookup(t, p, n) : SILL__NO_ID;
    return n ? n : 1;
}

/* Finds out whether the text of a normal token becomes that one token: SILL__WHOLE or SILL__NOT_WHOLE. Tokens have
 * at most SILL__TOKEN_MAX_BYTES. */
static sill_status ask_whole(const sill_tokenizer *t, uint32_t id, uint32_t *answer, sill_error *err) {
    uint32_t sym[SILL__TOKEN_MAX_BYTES];
    const uint8_t *p = sill__tok_text(t, id);
    size_t n = t->tokens[id].n, k = 0;
    bool known = true;
    if (t->kind == SILL__TOK_BPE_BYTES) k = byte_symbols(t, p, n, sym);
    else
        for (size_t i = 0; i < n && known; k++) {
            i += char_symbol(t, p + i, p + n, &sym[k]);
            known = sym[k] != SILL__NO_ID;
        }
    if (known && k > 1) {
        sill_status s = sill__bpe_merge(t, sym, &k, err);
        if (s != SILL_OK) return s;
    }
    *answer = known && k == 1 && sym[0] == id ? SILL__WHOLE : SILL__NOT_WHOLE;
    return SILL_OK;
}

/* Puts the token that the piece is as a whole; *done tells whether there is one. */
static inline sill_status whole_piece(writer *w, const uint8_t *p, size_t n, bool *done) {
    sill__slot_id *slot = sill__tok_slot(w->t, p, n);
    *done = false;
    if (!slot) return SILL_OK;
    uint32_t v = atomic_load_explicit(slot, memory_order_relaxed), id = v & SILL__ID_MASK;
    if (!(v & (SILL__WHOLE | SILL__NOT_WHOLE)) && !w->t->ignore_merges) {
        uint32_t answer;
        sill_status s = ask_whole(w->t, id, &answer, w->err);
        if (s != SILL_OK) return s;
        v |= answer;
        atomic_store_explicit(slot, v, memory_order_relaxed);
    }
    *done = w->t->ignore_merges || (v & SILL__WHOLE);
    if (*done) put(w, id);
    return SILL_OK;
}

/* Bytes that the token ID takes of the piece from P on. */
static size_t taken(const sill_tokenizer *t, uint32_t id, const uint8_t *p, const uint8_t *end) {
    bool bytes = t->kind == SILL__TOK_BPE_BYTES;
    uint32_t c;
    if (t->tokens[id].attr == SILL__ATTR_BYTE) return 1;
    if ((int32_t)id != t->unk) return t->tokens[id].n;
    size_t n = bytes ? 1 : char_symbol(t, p, end, &c);
    for (size_t m; t->fuse_unk && p + n < end; n += m) { /* one unknown token stands for a run */
        if (bytes) m = 1, c = t->byte_id[p[n]];
        else m = char_symbol(t, p + n, end, &c);
        if (c != SILL__NO_ID) break;
    }
    return n;
}

/* Where the tokens from FIRST on stand, which the piece [p, end) became: it is the text from AT on, behind a space that the text
 * has not where DUMMY. */
static void locate(writer *w, size_t first, const uint8_t *p, const uint8_t *end, const uint8_t *at, bool dummy) {
    const sill_tokenizer *t = w->t;
    const uint8_t *q = p;
    size_t from = (size_t)(at - w->text);
    if (!w->spans) return;
    for (size_t i = first; i < w->n && i < w->cap; i++) {
        if (t->kind == SILL__TOK_BPE_BYTES && !t->bytes_become_unk)
            while (q < end && t->byte_id[*q] == SILL__NO_ID) q++;
        size_t begin = (size_t)(q - p);
        size_t n = q < end ? SILL_MIN(taken(t, (uint32_t)w->ids[i], q, end), (size_t)(end - q)) : 0;
        q += n;
        w->spans[i].begin = from + begin - (dummy && begin > 0);
        w->spans[i].end = from + begin + n - (dummy && begin + n > 0);
    }
}

static sill_status byte_piece(writer *w, const uint8_t *p, size_t n) {
    uint32_t small[STACK_SYMBOLS], *sym;
    bool done;
    sill_status s = whole_piece(w, p, n, &done);
    if (s != SILL_OK || done) return s;
    if (!(sym = symbols(w, n, small))) return SILL_ENOMEM;
    return merge_and_put(w, sym, byte_symbols(w->t, p, n, sym));
}

/* A character that has no token: its bytes, or the unknown token. */
static void put_unknown(writer *w, const uint8_t *p, size_t n, bool *unknown_before) {
    const sill_tokenizer *t = w->t;
    bool bytes = t->byte_fallback;
    for (size_t i = 0; i < n && bytes; i++) bytes = t->byte_id[p[i]] != SILL__NO_ID;
    if (bytes) {
        for (size_t i = 0; i < n; i++) put(w, t->byte_id[p[i]]);
        *unknown_before = false;
    } else if (t->unk >= 0) {
        if (!(t->fuse_unk && *unknown_before)) put(w, (uint32_t)t->unk);
        *unknown_before = true;
    }
}

static sill_status spm_piece(writer *w, const uint8_t *p, size_t n) {
    uint32_t small[STACK_SYMBOLS], *sym;
    const uint8_t *end = p + n;
    size_t k = 0;
    bool done, unknown_before = false;
    sill_status s = whole_piece(w, p, n, &done);
    if (s != SILL_OK || done) return s;
    if (!(sym = symbols(w, n, small))) return SILL_ENOMEM;
    while (p < end) {
        size_t m = char_symbol(w->t, p, end, &sym[k]);
        if (sym[k] != SILL__NO_ID) {
            k++;
            unknown_before = false;
        } else { /* no merge goes across it */
            if ((s = merge_and_put(w, sym, k)) != SILL_OK) return s;
            k = 0;
            put_unknown(w, p, m, &unknown_before);
        }
        p += m;
    }
    return merge_and_put(w, sym, k);
}

/* ---- stretches of text between special tokens */

static sill_status byte_stretch(writer *w, const uint8_t *p, const uint8_t *end) {
    sill__pretok_fn next = sill__pretok_get(w->t->pre);
    while (p < end) {
        size_t n = next(p, end), first = w->n;
        sill_status s = byte_piece(w, p, n);
        if (s != SILL_OK) return s;
        locate(w, first, p, p + n, p, false);
        p += n;
    }
    return SILL_OK;
}

static const uint8_t *spm_cut(sill__cut cut, const uint8_t *p, const uint8_t *end) {
    if (cut == SILL__CUT_NONE) return end;
    if (*p == ' ') p++;
    if (cut == SILL__CUT_WORDS)
        while (p < end && *p == ' ') p++;
    const uint8_t *space = p < end ? memchr(p, ' ', (size_t)(end - p)) : NULL;
    return space ? space : end;
}

static sill_status spm_stretch(writer *w, const uint8_t *p, const uint8_t *end, bool prefix) {
    sill_status s = SILL_OK;
    if (prefix) { /* the first piece with a space in front */
        uint8_t small[512], *copy = small;
        const uint8_t *cut = spm_cut(w->t->cut, p, end);
        size_t n = (size_t)(cut - p);
        if (n + 1 > sizeof small && !(copy = sill__alloc(n + 1)))
            return sill__fail(w->err, SILL_ENOMEM, "out of memory for a text of %zu bytes", n);
        size_t first = w->n;
        copy[0] = ' ';
        memcpy(copy + 1, p, n);
        s = spm_piece(w, copy, n + 1);
        if (s == SILL_OK) locate(w, first, copy, copy + n + 1, p, true);
        if (copy != small) sill__free(copy);
        p = cut;
    }
    while (p < end && s == SILL_OK) {
        const uint8_t *cut = spm_cut(w->t->cut, p, end);
        size_t first = w->n;
        s = spm_piece(w, p, (size_t)(cut - p));
        if (s == SILL_OK) locate(w, first, p, cut, p, false);
        p = cut;
    }
    return s;
}

/* [p, end) has no special token in it. AT_START: it is the beginning of the text. */
static sill_status stretch(writer *w, const uint8_t *p, const uint8_t *end, bool at_start, uint32_t flags) {
    if (p == end) return SILL_OK;
    if (w->t->kind == SILL__TOK_BPE_BYTES) return byte_stretch(w, p, end);
    bool prefix = w->t->prefix == SILL__PREFIX_EACH ||
                  (w->t->prefix == SILL__PREFIX_META_EACH && *p != ' ') ||
                  (w->t->prefix == SILL__PREFIX_META_FIRST && *p != ' ' && at_start);
    if (at_start && (flags & SILL_TOKENIZE_NO_PREFIX)) prefix = false;
    return spm_stretch(w, p, end, prefix);
}

/* The longest added token at P: its length, 0 if none. */
static size_t match_added(const sill_tokenizer *t, const uint8_t *p, const uint8_t *end, uint32_t *id) {
    size_t best = 0;
    uint32_t at = 0;
    for (const uint8_t *q = p; q < end;) {
        uint32_t c = t->trie[at].child;
        while (c != SILL__NO_ID && t->trie[c].byte != *q) c = t->trie[c].sibling;
        if (c == SILL__NO_ID) break;
        at = c;
        q++;
        if (t->trie[at].id != SILL__NO_ID) {
            best = (size_t)(q - p);
            *id = t->trie[at].id;
        }
    }
    return best;
}

static sill_status with_added(writer *w, const uint8_t *p, const uint8_t *end, uint32_t flags) {
    const uint8_t *start = p, *from = p;
    while (p < end) {
        uint32_t id = 0;
        size_t n = w->t->trie_starts[*p] ? match_added(w->t, p, end, &id) : 0;
        if (n == 0) {
            p++;
            continue;
        }
        sill_status s = stretch(w, from, p, from == start, flags);
        if (s != SILL_OK) return s;
        put(w, id);
        if (w->spans && w->n <= w->cap) w->spans[w->n - 1] = (sill_token_span){(size_t)(p - w->text), (size_t)(p - w->text) + n};
        from = p += n;
    }
    return stretch(w, from, end, from == start, flags);
}

/* ---- public calls */

size_t sill_tokenize_bound(const sill_tokenizer *t, size_t n_bytes) {
    size_t n;
    /* SentencePiece: a dummy space before each stretch of text, of which there are at most n + 1. */
    if (t->kind == SILL__TOK_BPE_SPM) return sill__mul(n_bytes, 2, &n) && sill__add(n, 3, &n) ? n : SIZE_MAX;
    return sill__add(n_bytes, 1, &n) ? n : SIZE_MAX;
}

static sill_status tokenize(const char *name, const sill_tokenizer *t, const char *text, size_t n_bytes, uint32_t flags,
                            int32_t *ids, sill_token_span *spans, size_t cap, size_t *n_ids, sill_error *err) {
    const uint32_t known = SILL_TOKENIZE_SPECIAL | SILL_TOKENIZE_BOS | SILL_TOKENIZE_NO_PREFIX;
    sill_status s = SILL_OK;
    if (!t || !n_ids || (!text && n_bytes) || (!ids && cap)) return sill__fail(err, SILL_EINVAL, "%s: a pointer is NULL", name);
    if (flags & ~known) return sill__fail(err, SILL_EINVAL, "%s: unknown flags 0x%x", name, flags & ~known);
    const uint8_t *p = (const uint8_t *)text;
    writer w = {.t = t, .ids = ids, .spans = spans, .text = p, .cap = cap, .err = err};
    *n_ids = 0;
    if (flags & SILL_TOKENIZE_BOS) {
        if (t->bos < 0) return sill__fail(err, SILL_ERANGE, "the tokenizer has no token for the beginning of text (BOS)");
        put(&w, (uint32_t)t->bos);
        if (spans && cap) spans[0] = (sill_token_span){0, 0};
    }
    if (n_bytes > 0) {
        if ((flags & SILL_TOKENIZE_SPECIAL) && t->n_trie > 0) s = with_added(&w, p, p + n_bytes, flags);
        else s = stretch(&w, p, p + n_bytes, true, flags);
    }
    sill__free(w.big);
    if (s != SILL_OK) return s;
    *n_ids = w.n;
    if (w.n > cap)
        return sill__fail(err, SILL_ERANGE, "the text has %zu tokens, there is room for %zu", w.n, cap);
    return SILL_OK;
}

sill_status sill_tokenize(const sill_tokenizer *t, const char *text, size_t n_bytes, uint32_t flags, int32_t *ids,
                          size_t cap, size_t *n_ids, sill_error *err) {
    return tokenize("sill_tokenize", t, text, n_bytes, flags, ids, NULL, cap, n_ids, err);
}

sill_status sill_tokenize_spans(const sill_tokenizer *t, const char *text, size_t n_bytes, uint32_t flags, int32_t *ids,
                                sill_token_span *spans, size_t cap, size_t *n_ids, sill_error *err) {
    if (!spans && cap) return sill__fail(err, SILL_EINVAL, "sill_tokenize_spans: a pointer is NULL");
    return tokenize("sill_tokenize_spans", t, text, n_bytes, flags, ids, spans, cap, n_ids, err);
}

size_t sill_detokenize_bound(const sill_tokenizer *t, const int32_t *ids, size_t n_ids) {
    size_t n = 0;
    for (size_t i = 0; i < n_ids; i++)
        if (ids[i] >= 0 && (uint32_t)ids[i] < t->n) n += t->tokens[ids[i]].n;
    return n;
}

sill_status sill_detokenize(const sill_tokenizer *t, const int32_t *ids, size_t n_ids, uint32_t flags, char *text,
                            size_t cap, size_t *n_bytes, sill_error *err) {
    const uint32_t known = SILL_DETOKENIZE_SKIP_SPECIAL | SILL_DETOKENIZE_CONTINUATION;
    if (!t || !n_bytes || (!ids && n_ids) || (!text && cap))
        return sill__fail(err, SILL_EINVAL, "sill_detokenize: a pointer is NULL");
    if (flags & ~known) return sill__fail(err, SILL_EINVAL, "sill_detokenize: unknown flags 0x%x", flags & ~known);
    bool strip = t->strip_prefix && !(flags & SILL_DETOKENIZE_CONTINUATION);
    size_t n = 0;
    *n_bytes = 0;
    for (size_t i = 0; i < n_ids; i++) {
        if (ids[i] < 0 || (uint32_t)ids[i] >= t->n || t->tokens[ids[i]].attr == SILL__ATTR_HOLE)
            return sill__fail(err, SILL_ERANGE, "id %d at place %zu is outside the tokenizer's vocabulary of %u tokens%s",
                              ids[i], i, t->n, ids[i] >= 0 ? " (a model's own vocabulary may be padded above it)" : "");
        const sill__token *k = &t->tokens[ids[i]];
        const uint8_t *p = sill__tok_text(t, (uint32_t)ids[i]);
        size_t m = k->n;
        if (m == 0 || (k->attr == SILL__ATTR_SPECIAL && (flags & SILL_DETOKENIZE_SKIP_SPECIAL))) continue;
        if (strip && *p == ' ') {
            p++;
            m--;
        }
        strip = false;
        if (m && n <= cap && m <= cap - n) memcpy(text + n, p, m);
        n += m;
    }
    *n_bytes = n;
    if (n > cap) return sill__fail(err, SILL_ERANGE, "the ids stand for %zu bytes, there is room for %zu", n, cap);
    return SILL_OK;
}

size_t sill_utf8_complete(const char *text, size_t n_bytes) {
    const uint8_t *p = (const uint8_t *)text;
    for (size_t back = 1; back <= 3 && back <= n_bytes; back++) {
        const uint8_t *q = p + n_bytes - back;
        if ((*q & 0xc0) == 0x80) continue;
        /* The last byte that begins a character. Could more bytes make it whole? */
        size_t need = *q >= 0xc2 && *q <= 0xdf ? 2 : *q >= 0xe0 && *q <= 0xef ? 3 : *q >= 0xf0 && *q <= 0xf4 ? 4 : 1;
        if (back >= need) return n_bytes;
        if (back >= 2) {
            uint8_t low = *q == 0xe0 ? 0xa0 : *q == 0xf0 ? 0x90 : 0x80, high = *q == 0xed ? 0x9f : *q == 0xf4 ? 0x8f : 0xbf;
            if (q[1] < low || q[1] > high) return n_bytes;
        }
        return n_bytes - back;
    }
    return n_bytes;
}

int32_t sill_tokenizer_n_vocab(const sill_tokenizer *t) { return (int32_t)t->n; }

void sill_tokenizer_get_info(const sill_tokenizer *t, sill_tokenizer_info *info, size_t info_size) {
    sill_tokenizer_info i = {.n_vocab = (int32_t)t->n, .bos_id = t->bos, .eos_id = t->eos, .unk_id = t->unk, .pad_id = t->pad,
                             .add_bos = t->add_bos, .has_chat = sill__chat_kind(t) != SILL__CHAT_NONE};
    if (!info) return;
    snprintf(i.kind, sizeof i.kind, "%s", sill__tokenizer_pre(t));
    memcpy(info, &i, SILL_MIN(info_size, sizeof i));
}

int32_t sill_token_is_special(const sill_tokenizer *t, int32_t id) { return sill__tokenizer_is_special(t, id); }

/* ---- for the rest of sill */

sill__tok_kind sill__tokenizer_kind(const sill_tokenizer *t) { return t->kind; }

const char *sill__tokenizer_pre(const sill_tokenizer *t) {
    switch (t->pre) {
    case SILL__PRE_GPT2: return "gpt2";
    case SILL__PRE_SMOLLM: return "smollm";
    case SILL__PRE_LLAMA3: return "llama3";
    default: return "spm";
    }
}

int32_t sill__tokenizer_bos(const sill_tokenizer *t) { return t->bos; }
int32_t sill__tokenizer_eos(const sill_tokenizer *t) { return t->eos; }
int32_t sill__tokenizer_pad(const sill_tokenizer *t) { return t->pad; }
bool sill__tokenizer_add_bos(const sill_tokenizer *t) { return t->add_bos; }
const char *sill__tokenizer_chat_template(const sill_tokenizer *t) { return t->chat_template; }
uint32_t sill__tokenizer_missing_bytes(const sill_tokenizer *t) { return t->n_missing_bytes; }

bool sill__tokenizer_is_special(const sill_tokenizer *t, int32_t id) {
    return id >= 0 && (uint32_t)id < t->n && t->tokens[id].attr == SILL__ATTR_SPECIAL;
}

int32_t sill__tokenizer_find(const sill_tokenizer *t, const char *text, size_t n) {
    uint32_t id = sill__tok_search(t, text, n);
    return id == SILL__NO_ID ? -1 : (int32_t)id;
}

const char *sill__tokenizer_bytes(const sill_tokenizer *t, int32_t id, size_t *n) {
    if (id < 0 || (uint32_t)id >= t->n || t->tokens[id].attr == SILL__ATTR_HOLE) return NULL;
    *n = t->tokens[id].n;
    return (const char *)sill__tok_text(t, (uint32_t)id);
}

static void hash_numbers(sill__sha256 *h, const uint32_t *v, size_t n) {
    uint8_t b[64];
    size_t k = 0;
    for (size_t i = 0; i < n; i++)
        for (int j = 0; j < 4; j++) b[k++] = (uint8_t)(v[i] >> (8 * j));
    sill__sha256_update(h, b, k);
}

void sill__tokenizer_hash(const sill_tokenizer *t, uint8_t out[32]) {
    sill__sha256 h;
    const uint32_t head[] = {1, (uint32_t)t->kind, (uint32_t)t->pre, t->n, t->n_merges, (uint32_t)t->bos, (uint32_t)t->eos,
                             (uint32_t)t->unk, t->add_bos, t->ignore_merges, t->fuse_unk, t->byte_fallback,
                             t->strip_prefix, (uint32_t)t->prefix, (uint32_t)t->cut};
    sill__sha256_init(&h);
    hash_numbers(&h, head, SILL_ARRAY_LEN(head));
    for (uint32_t i = 0; i < t->n; i++) {
        const uint32_t v[] = {t->tokens[i].n, t->tokens[i].attr, t->tokens[i].added};
        hash_numbers(&h, v, 3);
        sill__sha256_update(&h, sill__tok_text(t, i), t->tokens[i].n);
    }
    /* The merges lie in the table in no order that means anything: a sum over all of them. */
    uint64_t sum[2] = {0, 0};
    for (size_t i = 0; i < (size_t)1 << t->merge_bits; i++) {
        const sill__merge_slot *m = &t->merges[i];
        if (m->left == 0) continue;
        uint64_t x = sill__tok_mix(m->left, m->right), y = sill__tok_mix(m->rank, m->id);
        sum[0] += sill__tok_mix(x, y);
        sum[1] += sill__tok_mix(y, x ^ 0x5851f42d4c957f2du);
    }
    const uint32_t v[] = {(uint32_t)sum[0], (uint32_t)(sum[0] >> 32), (uint32_t)sum[1], (uint32_t)(sum[1] >> 32)};
    hash_numbers(&h, v, 4);
    sill__sha256_final(&h, out);
}
