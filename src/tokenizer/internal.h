/*
 * internal.h - the tokenizer's own structures, shared by its files: the vocabulary and its tables (vocab.c),
 * the merge engine (bpe.c), pre-tokenizers (pretok.c), the loaders (load*.c) and the calls (tokenize.c).
 */
#ifndef SILL_TOKENIZER_INTERNAL_H
#define SILL_TOKENIZER_INTERNAL_H

#include <stdatomic.h>

#include "base/json.h"
#include "tokenizer/tokenizer.h"

/* Limits that a file is held to. The longest token of a published vocabulary has about 200 bytes. */
#define SILL__TOKEN_MAX_BYTES 1024
#define SILL__VOCAB_MAX (1u << 22)
#define SILL__MERGES_MAX (1u << 24)
#define SILL__TOKENIZER_FILE_MAX ((size_t)512 << 20)

#define SILL__NO_ID UINT32_MAX
#define SILL__WAITING 8
#define SILL__KEY_BYTES 11 /* tokens up to this length have their bytes in the table itself */

/* What a token is. Only normal tokens can come out of ordinary text; byte tokens through byte fallback. */
typedef enum sill__tok_attr {
    SILL__ATTR_HOLE,    /* no token has this id */
    SILL__ATTR_NORMAL,
    SILL__ATTR_BYTE,    /* SentencePiece's <0x00> to <0xFF> */
    SILL__ATTR_UNUSED,  /* has a text, but no ordinary text becomes it */
    SILL__ATTR_SPECIAL  /* parsed with SILL_TOKENIZE_SPECIAL, left out by SILL_DETOKENIZE_SKIP_SPECIAL */
} sill__tok_attr;

typedef enum sill__pre { SILL__PRE_SPM, SILL__PRE_GPT2, SILL__PRE_SMOLLM, SILL__PRE_LLAMA3 } sill__pre;

/* Where SentencePiece's dummy space goes. */
typedef enum sill__prefix {
    SILL__PREFIX_NONE,
    SILL__PREFIX_EACH,      /* before every stretch of text between special tokens */
    SILL__PREFIX_META_EACH, /* the same, unless the stretch begins with a space (Metaspace) */
    SILL__PREFIX_META_FIRST /* before the first one only, unless it begins with a space */
} sill__prefix;

/* How SentencePiece text is cut before merging. */
typedef enum sill__cut {
    SILL__CUT_NONE,  /* some token has a space behind another character: the whole text is one piece */
    SILL__CUT_WORDS, /* no token has: merges cannot cross the place before a run of spaces */
    SILL__CUT_SPACES /* Metaspace with split: before every space */
} sill__cut;

/* added: parsed with SILL_TOKENIZE_SPECIAL (special tokens, and added ones that are not special). */
typedef struct sill__token { uint32_t start; uint16_t n; uint8_t attr, added; } sill__token;

/* Tables hold ids with two bits of an answer: does the token's own text become this one token? Neither bit:
 * not asked yet. Any thread may write the one right answer. Not every token can: its bytes may be merged on
 * another way first. */
#define SILL__WHOLE 0x40000000u
#define SILL__NOT_WHOLE 0x80000000u
#define SILL__ID_MASK 0x3fffffffu
typedef _Atomic uint32_t sill__slot_id;

/* A normal token of at most 11 bytes: the bytes zero-padded in lo and hi, the length in hi's top byte (0 where
 * the slot is empty). Longer ones: part of the hash (0: empty). */
typedef struct sill__short_slot { uint64_t lo; uint32_t hi; sill__slot_id id; } sill__short_slot;
typedef struct sill__long_slot { uint32_t tag; sill__slot_id id; } sill__long_slot;
typedef struct sill__short_table { sill__short_slot *slots; unsigned bits; } sill__short_table;
/* left is the id + 1 (0: empty). */
typedef struct sill__merge_slot { uint32_t left, right, rank, id; } sill__merge_slot;
/* Node of the trie of added tokens; children are a linked list. */
typedef struct sill__trie_node { uint32_t child, sibling, id; uint8_t byte; } sill__trie_node;

struct sill_tokenizer {
    sill__tok_kind kind;
    sill__pre pre;
    uint32_t n, cap;           /* ids 0 .. n - 1 */
    sill__token *tokens;       /* (n) */
    sill__str blob;            /* the tokens' bytes; SentencePiece's word mark is a space here */
    uint32_t longest;          /* bytes of the longest normal token */

    /* The first tokens of a vocabulary are by far the most frequent: they have a table of their own, small
     * enough to stay in the nearest cache. */
    sill__short_table first, rest;
    sill__long_slot *longs;
    sill__merge_slot *merges;
    /* Four bits for each slot of `merges`, by another part of the hash; zero: there is no such merge. Most questions
     * are about pairs that do not merge, and these bits stay in a core's cache, as the table does not. */
    uint64_t *maybe;
    unsigned long_bits, merge_bits;
    uint32_t n_merges, n_ranks, last_merged;
    sill__merge_slot waiting[SILL__WAITING]; /* merges whose slots are on their way into the cache */
    unsigned n_waiting;
    uint32_t byte_id[256];     /* byte-level: the byte's token; SentencePiece: its <0x..> token */
    uint32_t char_id[128];     /* SentencePiece: token of an ASCII character */
    uint32_t n_missing_bytes;  /* byte-level: bytes that have no token */

    sill__trie_node *trie;
    uint32_t n_trie;
    bool trie_starts[256];

    int32_t bos, eos, pad, unk;
    uint32_t keys_seen;        /* while a small file is read: which of those four it has named */
    bool add_bos;
    bool ignore_merges;        /* a piece that is a token is that token, whatever the merges say */
    bool fuse_unk, byte_fallback;
    bool bytes_become_unk;     /* byte-level: bytes without a token become the unknown token, else nothing */
    bool strip_prefix;         /* decoding takes one leading space off */
    sill__prefix prefix;
    sill__cut cut;
    char *chat_template;
};

/* ---- vocab.c: building. All of them leave the tokenizer to be freed with sill_tokenizer_free. */
sill_tokenizer *sill__tok_new(void);
/* The token of an id; an id can be put once. N bytes, at most SILL__TOKEN_MAX_BYTES. */
sill_status sill__tok_put(sill_tokenizer *t, int64_t id, const void *bytes, size_t n, sill__tok_attr attr,
                          sill_error *err);
/* The same for a token as files write it: GPT-2's byte alphabet, or SentencePiece's word mark and <0x..>. */
sill_status sill__tok_put_written(sill_tokenizer *t, int64_t id, const char *text, size_t n, sill__tok_attr attr,
                                  sill_error *err);
/* An added token in its plain text, over the vocabulary's own entry of that id if it has the same text. */
sill_status sill__tok_put_added(sill_tokenizer *t, int64_t id, const char *text, size_t n, bool special,
                                sill_error *err);
/* After the last token, before the first merge: the tables, that of merges for about N_MERGES. */
sill_status sill__tok_index(sill_tokenizer *t, size_t n_merges, sill_error *err);
/* Merge of the given rank, both sides as files write them. */
sill_status sill__tok_merge_written(sill_tokenizer *t, const char *left, size_t n_left, const char *right,
                                    size_t n_right, uint32_t rank, sill_error *err);
/* The same by the tokens' ids, which must be there. */
sill_status sill__tok_merge_ids(sill_tokenizer *t, uint32_t left, uint32_t right, uint32_t rank, uint32_t id, sill_error *err);
/* The same from one string "LEFT RIGHT". */
sill_status sill__tok_merge_line(sill_tokenizer *t, const char *line, size_t n, uint32_t rank, sill_error *err);
/* SentencePiece's merges: every split of every normal token, ranked by the tokens' scores (n of them). */
sill_status sill__tok_merges_from_scores(sill_tokenizer *t, const float *scores, sill_error *err);
/* After the last merge: what follows from the rest. */
sill_status sill__tok_finish(sill_tokenizer *t, sill_error *err);
/* Where a normal token's id stands, by its bytes; NULL if there is none. */
sill__slot_id *sill__tok_slot(const sill_tokenizer *t, const uint8_t *p, size_t n);
static inline uint32_t sill__tok_lookup(const sill_tokenizer *t, const uint8_t *p, size_t n) {
    const sill__slot_id *slot = sill__tok_slot(t, p, n);
    return slot ? atomic_load_explicit(slot, memory_order_relaxed) & SILL__ID_MASK : SILL__NO_ID;
}
/* Id of a token of any kind, the whole list searched where the tables have none. */
uint32_t sill__tok_search(const sill_tokenizer *t, const char *p, size_t n);

static inline const uint8_t *sill__tok_text(const sill_tokenizer *t, uint32_t id) {
    return (const uint8_t *)t->blob.p + t->tokens[id].start;
}

static inline uint64_t sill__tok_mix(uint64_t a, uint64_t b) {
    uint64_t h = (a ^ b * 0xc2b2ae3d27d4eb4fu) * 0x9e3779b97f4a7c15u;
    return (h ^ h >> 32) * 0xd6e8feb86659fd93u;
}

/* Place of a pair's bit in `maybe`. */
static inline uint32_t sill__tok_maybe(const sill_tokenizer *t, uint64_t hash) {
    return (uint32_t)(hash >> 16) & (((uint32_t)4 << t->merge_bits) - 1);
}

/* The merge of two tokens, or NULL. */
static inline const sill__merge_slot *sill__tok_find_merge(const sill_tokenizer *t, uint32_t left, uint32_t right) {
    uint64_t hash = sill__tok_mix(left, right);
    uint32_t mask = ((uint32_t)1 << t->merge_bits) - 1, bit = sill__tok_maybe(t, hash);
    if (!(t->maybe[bit >> 6] >> (bit & 63) & 1)) return NULL;
    for (uint32_t i = (uint32_t)(hash >> (64 - t->merge_bits));; i = (i + 1) & mask) {
        const sill__merge_slot *m = &t->merges[i];
        if (m->left == left + 1 && m->right == right) return m;
        if (m->left == 0) return NULL;
    }
}

/* ---- bpe.c: merges the symbols SYM (n of them; none is SILL__NO_ID) in place, lowest rank first, leftmost first among
 * equals, until no pair can merge; *n is their new number. ENOMEM only for long input. */
sill_status sill__bpe_merge(const sill_tokenizer *t, uint32_t *sym, size_t *n, sill_error *err);

/* ---- pretok.c: length of the piece that begins at P (P < END). Byte-level pre-tokenizers only. */
typedef size_t (*sill__pretok_fn)(const uint8_t *p, const uint8_t *end);
sill__pretok_fn sill__pretok_get(sill__pre pre);
/* The patterns as tokenizer.json writes them. */
extern const char sill__pattern_gpt2[];
extern const char sill__pattern_llama3[];
/* GGUF's tokenizer.ggml.pre; false for a name that is not known. */
bool sill__pretok_by_name(const char *name, size_t n, sill__pre *pre);
extern const char sill__pretok_supported[]; /* for messages */

/* ---- loaders */
typedef sill_status (*sill__tok_member_fn)(sill_tokenizer *t, const char *key, size_t n_key, sill__json *j, sill_error *err);
/* Calls FN for the members of DIR/NAME, an object; keys longer than a token can be are cut, N_KEY is their full
 * length. A file that does not exist is no error. */
sill_status sill__tok_each_member(sill_tokenizer *t, const char *dir, const char *name, sill__tok_member_fn fn,
                                  sill_error *err);
/* Reads one added token, an object as in tokenizer.json; its id there, or ID where that is not negative. Flags
 * that we do not support are refused by name. */
sill_status sill__tok_read_added(sill_tokenizer *t, sill__json *j, int64_t id, sill_error *err);
/* An added token whose text of N bytes cannot be one. */
sill_status sill__tok_bad_added(int64_t id, size_t n, sill_error *err);
/* {"token": id, ...} */
sill_status sill__tok_read_vocab(sill_tokenizer *t, sill__json *j, sill_error *err);
sill_status sill__tok_load_gguf(const sill__file *file, sill_tokenizer **out, sill_error *err);
/* tokenizer.json; DIR ("" for none) has the files beside it. */
sill_status sill__tok_load_json(const char *path, const char *dir, sill_tokenizer **out, sill_error *err);
/* vocab.json + merges.txt, or merges.txt alone (VOCAB NULL: ids in GPT-2's order). */
sill_status sill__tok_load_pair(const char *vocab, const char *merges, const char *dir, sill_tokenizer **out,
                                sill_error *err);
/* llm.c's gpt2_tokenizer.bin. */
sill_status sill__tok_load_llmc(const char *path, sill_tokenizer **out, sill_error *err);
bool sill__tok_is_llmc(const sill__map *map);
/* tokenizer_config.json, special_tokens_map.json, config.json, chat_template.jinja in DIR, where they exist;
 * then the names that special tokens usually have. */
sill_status sill__tok_load_config(sill_tokenizer *t, const char *dir, sill_error *err);
void sill__tok_default_ids(sill_tokenizer *t);
/* Puts PATH in front of a message that does not name it. Returns the error's code. */
sill_status sill__tok_name_file(sill_error *err, sill_status s, const char *path);
sill_status sill__tok_set_template(sill_tokenizer *t, const char *p, size_t n, sill_error *err);

#endif
