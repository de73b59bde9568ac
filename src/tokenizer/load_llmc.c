/*
 * load_llmc.c - llm.c's gpt2_tokenizer.bin: 256 numbers of 32 bits, then every token's length (a byte) and bytes, in the order
 * of their ids. It is made for decoding and holds no merges; they follow from the order, since a token's id is the rank of the merge
 * that made it: what GPT-2's rules make of its bytes with the merges before it is two tokens, and those were joined.
 */
#include "tokenizer/internal.h"

#define MAGIC 20240328u
#define HEADER_BYTES 1024u
#define LONGEST 255u

static uint32_t number(const sill__map *map, size_t i) {
    uint32_t v = 0;
    for (size_t b = 0; b < 4; b++) v |= (uint32_t)map->data[4 * i + b] << 8 * b;
    return v;
}

bool sill__tok_is_llmc(const sill__map *map) { return map->bytes >= HEADER_BYTES && number(map, 0) == MAGIC; }

static sill_status put_tokens(sill_tokenizer *t, const sill__map *map, uint32_t n, uint32_t end, sill_error *err) {
    const char text[] = "<|endoftext|>";
    size_t at = HEADER_BYTES;
    sill_status s = SILL_OK;
    for (uint32_t id = 0; s == SILL_OK && id < n; id++) {
        if (at == map->bytes || map->bytes - at - 1 < map->data[at])
            return sill__fail(err, SILL_EFORMAT, "token %u of %u is past the end of the file", id, n);
        const size_t length = map->data[at];
        const uint8_t *p = map->data + at + 1;
        at += 1 + length;
        if (id == end) s = sill__tok_put_added(t, id, text, sizeof text - 1, true, err);
        else if (length == 0 || (id < 256) != (length == 1)) s = sill__fail(err, SILL_EFORMAT, "token %u has %zu bytes; GPT-2's first 256 are "
                                                                            "single bytes, and no others", id, length);
        else s = sill__tok_put(t, id, p, length, SILL__ATTR_NORMAL, err);
    }
    if (s == SILL_OK && at != map->bytes) s = sill__fail(err, SILL_EFORMAT, "%zu bytes behind the last token", map->bytes - at);
    return s;
}

/* The two tokens that ID was made of; false when there are no such two. */
static bool split(const sill_tokenizer *t, uint32_t id, uint32_t *left, uint32_t *right) {
    const uint8_t *p = sill__tok_text(t, id);
    size_t n = t->tokens[id].n, at[LONGEST + 1]; /* where parts begin; the end behind them */
    for (size_t i = 0; i <= n; i++) at[i] = i;
    while (n > 2) {
        uint32_t best = id;
        size_t where = 0;
        for (size_t i = 0; i + 2 <= n; i++) {
            uint32_t joined = sill__tok_lookup(t, p + at[i], at[i + 2] - at[i]);
            if (joined < best) best = joined, where = i;
        }
        if (best == id) return false;
        memmove(at + where + 1, at + where + 2, (n - where - 1) * sizeof *at);
        n--;
    }
    *left = sill__tok_lookup(t, p, at[1]);
    *right = sill__tok_lookup(t, p + at[1], at[2] - at[1]);
    return n == 2 && *left < id && *right < id;
}

static sill_status load(sill_tokenizer *t, const sill__map *map, sill_error *err) {
    const uint32_t version = number(map, 1), n = number(map, 2), end = version == 1 ? n - 1 : number(map, 3);
    t->kind = SILL__TOK_BPE_BYTES;
    t->pre = SILL__PRE_GPT2;
    if (version < 1 || version > 2) return sill__fail(err, SILL_EUNSUPPORTED, "version %u of llm.c's tokenizer; 1 and 2 are supported", version);
    if (n < 257 || n > SILL__VOCAB_MAX || end != n - 1)
        return sill__fail(err, SILL_EFORMAT, "%u tokens, the end of text %u: expected 257 and more, the end last", n, end);
    sill_status s = put_tokens(t, map, n, end, err);
    if (s == SILL_OK) s = sill__tok_index(t, n, err);
    for (uint32_t id = 256; s == SILL_OK && id < end; id++) {
        uint32_t left, right;
        if (!split(t, id, &left, &right)) s = sill__fail(err, SILL_EFORMAT, "token %u is not made of two tokens before it", id);
        else s = sill__tok_merge_ids(t, left, right, id - 256, id, err);
    }
    return s == SILL_OK ? sill__tok_finish(t, err) : s;
}

sill_status sill__tok_load_llmc(const char *path, sill_tokenizer **out, sill_error *err) {
    sill__map map;
    *out = NULL;
    sill_status s = sill__map_open(path, &map, err);
    if (s != SILL_OK) return s;
    sill_tokenizer *t = sill__tok_new();
    if (!t) s = sill__fail(err, SILL_ENOMEM, "out of memory for %s", path);
    else if (!sill__tok_is_llmc(&map)) s = sill__fail(err, SILL_EFORMAT, "%s: not llm.c's tokenizer", path);
    else if ((s = load(t, &map, err)) != SILL_OK) sill__tok_name_file(err, s, path);
    sill__map_close(&map);
    if (s == SILL_OK) sill__tok_default_ids(t);
    if (s == SILL_OK) *out = t;
    else sill_tokenizer_free(t);
    return s;
}
