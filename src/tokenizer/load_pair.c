/*
 * load_pair.c - GPT-2's original pair of files: vocab.json (encoder.json) and merges.txt (vocab.bpe), or the
 * merges alone, from which GPT-2's ids follow.
 */
#include <stdlib.h>

#include "tokenizer/internal.h"

#define END_OF_TEXT "<|endoftext|>"

/* Calls FN for every merge line of TEXT ("#version" lines and empty ones are passed over). */
typedef sill_status (*line_fn)(sill_tokenizer *t, const char *line, size_t n, uint32_t rank, sill_error *err);

static sill_status each_merge(sill_tokenizer *t, const sill__map *map, line_fn fn, uint32_t *n_lines, sill_error *err) {
    const char *p = (const char *)map->data, *end = p + map->bytes;
    uint32_t rank = 0;
    sill_status s = SILL_OK;
    while (p < end && s == SILL_OK) {
        const char *stop = memchr(p, '\n', (size_t)(end - p));
        size_t n = (size_t)((stop ? stop : end) - p);
        size_t used = n && p[n - 1] == '\r' ? n - 1 : n;
        if (used > 0 && !(used >= 8 && !memcmp(p, "#version", 8))) {
            if (rank == SILL__MERGES_MAX) return sill__fail(err, SILL_EFORMAT, "more than %u merges", SILL__MERGES_MAX);
            if (fn) s = fn(t, p, used, rank, err);
            rank++;
        }
        p += stop ? n + 1 : n;
    }
    *n_lines = rank;
    return s;
}

/* The token that a merge makes: id 256 + rank in GPT-2's order. */
static sill_status put_merged(sill_tokenizer *t, const char *line, size_t n, uint32_t rank, sill_error *err) {
    char joined[4 * SILL__TOKEN_MAX_BYTES];
    const char *space = n > 2 ? memchr(line + 1, ' ', n - 2) : NULL;
    if (!space || n > sizeof joined)
        return sill__fail(err, SILL_EFORMAT, "merge %u is not two tokens with a space between", rank);
    size_t k = (size_t)(space - line);
    memcpy(joined, line, k);
    memcpy(joined + k, space + 1, n - k - 1);
    return sill__tok_put_written(t, 256 + (int64_t)rank, joined, n - 1, SILL__ATTR_NORMAL, err);
}

/* GPT-2's ids: the printable bytes of Latin-1, the other bytes, the merges, the end of text. */
static sill_status put_gpt2_ids(sill_tokenizer *t, const sill__map *merges, sill_error *err) {
    int64_t id = 0;
    uint32_t n;
    sill_status s = SILL_OK;
    for (int pass = 0; pass < 2; pass++)
        for (int b = 0; b < 256 && s == SILL_OK; b++) {
            uint8_t c = (uint8_t)b;
            bool printable = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
            if (printable == (pass == 0)) s = sill__tok_put(t, id++, &c, 1, SILL__ATTR_NORMAL, err);
        }
    if (s == SILL_OK) s = each_merge(t, merges, put_merged, &n, err);
    if (s == SILL_OK) s = sill__tok_put_added(t, t->n, END_OF_TEXT, strlen(END_OF_TEXT), true, err);
    return s;
}

/* added_tokens.json: {"text": id}. Not told whether special: as in tokenizer_config.json, else not. */
static sill_status added_member(sill_tokenizer *t, const char *key, size_t n_key, sill__json *j, sill_error *err) {
    int64_t id;
    if (sill__json_peek(j) != SILL__JSON_NUMBER || !sill__json_int(j, &id)) return SILL_OK;
    if (n_key > SILL__TOKEN_MAX_BYTES || memchr(key, 0, n_key)) return sill__tok_bad_added(id, n_key, err);
    return sill__tok_put_added(t, id, key, n_key, false, err);
}

static sill_status config_member(sill_tokenizer *t, const char *key, size_t n_key, sill__json *j, sill_error *err) {
    static const char *const classes[] = {"GPT2Tokenizer", "GPT2TokenizerFast", "PreTrainedTokenizerFast", "TokenizersBackend"};
    sill__str name;
    char id[24], *rest;
    sill_status s = SILL_OK;
    bool ok = false;
    (void)n_key;
    if (!strcmp(key, "tokenizer_class") && sill__json_peek(j) == SILL__JSON_STRING) {
        sill__str_init(&name, 256);
        if (sill__json_string(j, &name))
            for (size_t i = 0; i < SILL_ARRAY_LEN(classes); i++) ok |= name.n == strlen(classes[i]) && !strcmp(name.p, classes[i]);
        if (!ok) s = sill__fail(err, SILL_EUNSUPPORTED, "tokenizer_class %s without a tokenizer.json; supported: GPT2Tokenizer",
                                name.p ? name.p : "");
        sill__str_free(&name);
        return s;
    }
    if (strcmp(key, "added_tokens_decoder") || sill__json_peek(j) != SILL__JSON_OBJECT) return SILL_OK;
    if (!sill__json_enter(j, SILL__JSON_OBJECT)) return SILL_OK;
    while (s == SILL_OK && sill__json_next_member(j, id, sizeof id, NULL)) {
        long long v = strtoll(id, &rest, 10);
        if (*rest || rest == id) return sill__fail(err, SILL_EFORMAT, "added_tokens_decoder: \"%s\" is not an id", id);
        s = sill__tok_read_added(t, j, v, err);
    }
    return s;
}

static sill_status read_vocab(sill_tokenizer *t, const char *vocab, const char *dir, sill_error *err) {
    sill__map map;
    sill__json j;
    sill_status s = sill__map_open(vocab, &map, err);
    if (s != SILL_OK) return s;
    if (map.bytes > SILL__TOKENIZER_FILE_MAX)
        s = sill__fail(err, SILL_EFORMAT, "%s has %zu bytes; at most %zu can be", vocab, map.bytes, SILL__TOKENIZER_FILE_MAX);
    else {
        sill__json_init(&j, (const char *)map.data, map.bytes);
        s = sill__tok_read_vocab(t, &j, err);
        if (s == SILL_OK && !sill__json_finish(&j)) s = sill__json_fail(&j, vocab, err);
    }
    sill__map_close(&map);
    if (s != SILL_OK) return sill__tok_name_file(err, s, vocab);
    for (uint32_t i = t->n; i-- > 0;) /* GPT-2's one special token is an entry like any other; it comes last */
        if (t->tokens[i].n == strlen(END_OF_TEXT) && !memcmp(sill__tok_text(t, i), END_OF_TEXT, t->tokens[i].n))
            s = sill__tok_put_added(t, i, END_OF_TEXT, strlen(END_OF_TEXT), true, err);
    if (s != SILL_OK) sill__tok_name_file(err, s, vocab);
    if (s == SILL_OK) s = sill__tok_each_member(t, dir, "added_tokens.json", added_member, err);
    if (s == SILL_OK) s = sill__tok_each_member(t, dir, "tokenizer_config.json", config_member, err);
    return s;
}

sill_status sill__tok_load_pair(const char *vocab, const char *merges, const char *dir, sill_tokenizer **out,
                                sill_error *err) {
    sill__map map;
    uint32_t n = 0;
    *out = NULL;
    sill_status s = sill__map_open(merges, &map, err);
    if (s != SILL_OK) return s;
    sill_tokenizer *t = sill__tok_new();
    if (!t) s = sill__fail(err, SILL_ENOMEM, "out of memory for %s", merges);
    else if (map.bytes > SILL__TOKENIZER_FILE_MAX)
        s = sill__fail(err, SILL_EFORMAT, "%s has %zu bytes; at most %zu can be", merges, map.bytes, SILL__TOKENIZER_FILE_MAX);
    if (s == SILL_OK) {
        t->kind = SILL__TOK_BPE_BYTES;
        t->pre = SILL__PRE_GPT2;
        s = vocab ? read_vocab(t, vocab, dir, err) : put_gpt2_ids(t, &map, err);
        if (s != SILL_OK && !vocab) sill__tok_name_file(err, s, merges);
    }
    const char *tokens = vocab ? vocab : merges;
    if (s == SILL_OK && (s = sill__tok_index(t, t->n, err)) != SILL_OK) sill__tok_name_file(err, s, tokens);
    if (s == SILL_OK && (s = each_merge(t, &map, sill__tok_merge_line, &n, err)) != SILL_OK)
        sill__tok_name_file(err, s, merges);
    if (s == SILL_OK && (s = sill__tok_finish(t, err)) != SILL_OK) sill__tok_name_file(err, s, tokens);
    sill__map_close(&map);
    if (s == SILL_OK) s = sill__tok_load_config(t, vocab ? dir : "", err);
    if (s != SILL_OK) {
        sill_tokenizer_free(t);
        return s;
    }
    *out = t;
    return SILL_OK;
}
