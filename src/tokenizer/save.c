/*
 * save.c - a tokenizer as GGUF metadata, by the names and rules of llama.cpp, whatever files it came from. What
 * was read is written back in the vocabulary's own letters: tokens, their kinds, merges by rank or (SentencePiece)
 * scores, special ids, the chat template.
 */
#include <stdio.h>
#include <stdlib.h>

#include "format/write.h"
#include "tokenizer/internal.h"

#define KEY(name) "tokenizer.ggml." name

enum { TYPE_NORMAL = 1, TYPE_UNKNOWN, TYPE_CONTROL, TYPE_USER_DEFINED, TYPE_UNUSED, TYPE_BYTE };

/* One byte in GPT-2's alphabet: see bytes_of_letters in vocab.c. */
static size_t letter(uint8_t b, char out[2]) {
    uint32_t c = b;
    if (b < 33) c = 256 + (uint32_t)b;
    else if (b >= 127 && b <= 160) c = 289 + (uint32_t)b - 127;
    else if (b == 173) c = 323;
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    out[0] = (char)(0xc0 | c >> 6);
    out[1] = (char)(0x80 | (c & 63));
    return 2;
}

static uint32_t type_of(const sill_tokenizer *t, uint32_t id) {
    const sill__token *k = &t->tokens[id];
    switch (k->attr) {
    case SILL__ATTR_NORMAL: return TYPE_NORMAL;
    case SILL__ATTR_BYTE: return TYPE_BYTE;
    case SILL__ATTR_UNUSED: return k->added ? TYPE_USER_DEFINED : TYPE_UNUSED;
    case SILL__ATTR_SPECIAL: return t->kind == SILL__TOK_BPE_SPM && (int32_t)id == t->unk ? TYPE_UNKNOWN : TYPE_CONTROL;
    default: return TYPE_UNUSED;
    }
}

/* The token's text as vocabularies write it, into S. */
static void written(const sill_tokenizer *t, uint32_t id, sill__str *s) {
    const sill__token *k = &t->tokens[id];
    const uint8_t *p = sill__tok_text(t, id);
    sill__str_clear(s);
    if (k->attr == SILL__ATTR_HOLE) {
        sill__str_putf(s, "[PAD%u]", id);
    } else if (k->attr == SILL__ATTR_BYTE) {
        sill__str_putf(s, "<0x%02X>", p[0]);
    } else if (k->attr == SILL__ATTR_NORMAL) {
        for (uint32_t i = 0; i < k->n; i++) {
            char c[2];
            if (t->kind == SILL__TOK_BPE_BYTES) sill__str_put(s, c, letter(p[i], c));
            else if (p[i] == ' ') sill__str_put(s, "\xe2\x96\x81", 3);
            else sill__str_put(s, p + i, 1);
        }
    } else {
        sill__str_put(s, p, k->n);
    }
}

sill_status sill_token_text(const sill_tokenizer *t, int32_t id, char *text, size_t cap, size_t *n_bytes, sill_error *err) {
    sill__str s;
    if (!t || !n_bytes || (!text && cap)) return sill__fail(err, SILL_EINVAL, "sill_token_text: a pointer is NULL");
    *n_bytes = 0;
    if (id < 0 || (uint32_t)id >= t->n || t->tokens[id].attr == SILL__ATTR_HOLE)
        return sill__fail(err, SILL_ERANGE, "id %d has no token in the tokenizer's vocabulary of %u", id, t->n);
    sill__str_init(&s, SIZE_MAX / 2);
    written(t, (uint32_t)id, &s);
    bool failed = s.failed;
    *n_bytes = failed ? 0 : s.n;
    if (!failed && s.n && s.n <= cap) memcpy(text, s.p, s.n);
    sill__str_free(&s);
    if (failed) return sill__fail(err, SILL_ENOMEM, "no memory for the text of a token");
    return *n_bytes <= cap ? SILL_OK : sill__fail(err, SILL_ERANGE, "the token has %zu bytes, there is room for %zu", *n_bytes, cap);
}

static int by_rank(const void *a, const void *b) {
    const sill__merge_slot *x = a, *y = b;
    if (x->rank != y->rank) return x->rank < y->rank ? -1 : 1;
    if (x->id != y->id) return x->id < y->id ? -1 : 1;
    return x->left != y->left ? (x->left < y->left ? -1 : 1) : 0;
}

/* All merges in the order of their ranks; *n of them. */
static sill__merge_slot *merges_of(const sill_tokenizer *t, size_t *n) {
    size_t k = 0, slots = (size_t)1 << t->merge_bits;
    sill__merge_slot *list = sill__calloc((size_t)t->n_merges + 1, sizeof *list);
    for (size_t i = 0; list && i < slots && k < t->n_merges; i++)
        if (t->merges[i].left != 0) list[k++] = t->merges[i];
    if (list) qsort(list, k, sizeof *list, by_rank);
    *n = k;
    return list;
}

static sill_status put_merges(const sill_tokenizer *t, sill__gguf_head *h, const sill__merge_slot *m, size_t n, sill_error *err) {
    sill__str left, right;
    bool spaced = false;
    sill__str_init(&left, 4 * SILL__TOKEN_MAX_BYTES);
    sill__str_init(&right, 2 * SILL__TOKEN_MAX_BYTES);
    sill__gguf_array(h, KEY("merges"), SILL__META_STRING, n);
    for (size_t i = 0; i < n; i++) {
        written(t, m[i].left - 1, &left);
        written(t, m[i].right, &right);
        spaced = spaced || !left.n || !right.n || memchr(left.p, ' ', left.n) || memchr(right.p, ' ', right.n);
        sill__str_puts(&left, " ");
        sill__str_put(&left, right.p, right.n);
        sill__gguf_put_string(h, left.p, left.n);
    }
    bool failed = left.failed || right.failed;
    sill__str_free(&right);
    sill__str_free(&left);
    if (failed) return sill__fail(err, SILL_ENOMEM, "no memory for the merges");
    return spaced ? sill__fail(err, SILL_EUNSUPPORTED, "a merge of tokens with spaces in them does not fit a GGUF") : SILL_OK;
}

/* The score of a token is minus the rank of its first merge: SentencePiece joins the pair whose result has the highest
 * score, the leftmost among equals. Tokens that no merge makes need none. */
static sill_status put_scores(const sill_tokenizer *t, sill__gguf_head *h, const sill__merge_slot *m, size_t n, uint32_t n_vocab,
                              sill_error *err) {
    float *scores = sill__calloc((size_t)n_vocab + 1, sizeof *scores);
    bool *seen = sill__calloc((size_t)n_vocab + 1, sizeof *seen);
    size_t again = 0;
    if (!scores || !seen) {
        sill__free(scores);
        sill__free(seen);
        return sill__fail(err, SILL_ENOMEM, "no memory for %u scores", n_vocab);
    }
    for (size_t i = 0; i < n; i++) {
        uint32_t id = m[i].id;
        if (id >= n_vocab) continue;
        if (!seen[id]) scores[id] = -(float)m[i].rank;
        else again += m[i].rank != m[i - 1].rank && m[i - 1].id != id;
        seen[id] = true;
    }
    for (uint32_t i = 0; i < n_vocab; i++)
        if (!seen[i] && i < t->n && t->tokens[i].attr == SILL__ATTR_NORMAL) scores[i] = -(float)t->n_ranks;
    sill__gguf_array(h, KEY("scores"), SILL__META_F32, n_vocab);
    for (uint32_t i = 0; i < n_vocab; i++) sill__gguf_put_u32(h, sill__f32_bits(scores[i]));
    sill__free(seen);
    sill__free(scores);
    if (again) sill__log(1, "tokenizer: %zu merges are not in the order of their results; a GGUF keeps one place for each token", again);
    return SILL_OK;
}

static void put_id(sill__gguf_head *h, const char *key, int32_t id) {
    if (id >= 0) sill__gguf_u32(h, key, (uint32_t)id);
}

sill_status sill__tokenizer_to_gguf(const sill_tokenizer *t, uint32_t n_vocab, sill__gguf_head *h, sill_error *err) {
    static const char *const pres[] = {[SILL__PRE_SPM] = "default", [SILL__PRE_GPT2] = "gpt-2", [SILL__PRE_SMOLLM] = "smollm",
                                       [SILL__PRE_LLAMA3] = "llama-bpe"};
    const bool spm = t->kind == SILL__TOK_BPE_SPM;
    const char *model = spm ? "llama" : "gpt2";
    size_t n_merges = 0;
    sill__str s;
    if (t->n > n_vocab)
        return sill__fail(err, SILL_EUNSUPPORTED, "the tokenizer knows %u tokens, the model only %u: a GGUF must have one row for "
                          "each token", t->n, n_vocab);
    sill__gguf_string(h, KEY("model"), model, strlen(model));
    sill__gguf_string(h, KEY("pre"), pres[t->pre], strlen(pres[t->pre]));
    sill__gguf_array(h, KEY("tokens"), SILL__META_STRING, n_vocab);
    sill__str_init(&s, 4 * SILL__TOKEN_MAX_BYTES);
    for (uint32_t i = 0; i < n_vocab; i++) {
        if (i < t->n) written(t, i, &s);
        else sill__str_clear(&s), sill__str_putf(&s, "[PAD%u]", i);
        sill__gguf_put_string(h, s.p ? s.p : "", s.n);
    }
    bool failed = s.failed;
    sill__str_free(&s);
    sill__gguf_array(h, KEY("token_type"), SILL__META_I32, n_vocab);
    for (uint32_t i = 0; i < n_vocab; i++) sill__gguf_put_u32(h, i < t->n ? type_of(t, i) : TYPE_UNUSED);
    sill__merge_slot *merges = merges_of(t, &n_merges);
    if (!merges || failed) {
        sill__free(merges);
        return sill__fail(err, SILL_ENOMEM, "no memory for the vocabulary");
    }
    sill_status st = spm ? put_scores(t, h, merges, n_merges, n_vocab, err) : put_merges(t, h, merges, n_merges, err);
    sill__free(merges);
    put_id(h, KEY("bos_token_id"), t->bos);
    put_id(h, KEY("eos_token_id"), t->eos);
    put_id(h, KEY("unknown_token_id"), t->unk);
    put_id(h, KEY("padding_token_id"), t->pad);
    sill__gguf_bool(h, KEY("add_bos_token"), t->add_bos);
    if (spm) sill__gguf_bool(h, KEY("add_space_prefix"), t->prefix != SILL__PREFIX_NONE);
    if (t->chat_template) sill__gguf_string(h, "tokenizer.chat_template", t->chat_template, strlen(t->chat_template));
    return st;
}

/* ---- GPT-2's pair of files */

static sill_status put_file(const char *dir, const char *name, const sill__str *s, sill_error *err) {
    char path[4096];
    if (s->failed) return sill__fail(err, SILL_ENOMEM, "no memory for %s", name);
    if (!sill__path_join(path, sizeof path, dir, name)) return sill__fail(err, SILL_ERANGE, "%s: the path is too long", dir);
    return sill__put_file(path, s->p, s->n, err);
}

sill_status sill__tokenizer_save_pair(const sill_tokenizer *t, const char *dir, sill_error *err) {
    sill__str file, text;
    size_t n = 0;
    if (t->kind != SILL__TOK_BPE_BYTES || t->pre != SILL__PRE_GPT2 || t->ignore_merges)
        return sill__fail(err, SILL_EUNSUPPORTED, "the tokenizer (%s) does not fit vocab.json and merges.txt, which are GPT-2's; put its "
                          "tokenizer.json beside the weights", sill__tokenizer_pre(t));
    sill__merge_slot *merges = merges_of(t, &n);
    if (!merges) return sill__fail(err, SILL_ENOMEM, "no memory for the merges");
    sill__str_init(&file, (size_t)1 << 30);
    sill__str_init(&text, 4 * SILL__TOKEN_MAX_BYTES);
    sill__str_puts(&file, "{");
    for (uint32_t i = 0; i < t->n; i++) {
        if (t->tokens[i].attr == SILL__ATTR_HOLE) continue;
        written(t, i, &text);
        if (file.n > 1) sill__str_puts(&file, ", ");
        sill__put_json_string(&file, text.p ? text.p : "", text.n);
        sill__str_putf(&file, ": %u", i);
    }
    sill__str_puts(&file, "}\n");
    sill_status s = put_file(dir, "vocab.json", &file, err);
    sill__str_clear(&file);
    sill__str_puts(&file, "#version: 0.2\n");
    for (size_t i = 0; i < n; i++)
        for (int k = 0; k < 2; k++) {
            written(t, k ? merges[i].right : merges[i].left - 1, &text);
            sill__str_put(&file, text.p ? text.p : "", text.n);
            sill__str_puts(&file, k ? "\n" : " ");
        }
    sill__free(merges);
    if (s == SILL_OK && text.failed) s = sill__fail(err, SILL_ENOMEM, "no memory for the merges");
    if (s == SILL_OK) s = put_file(dir, "merges.txt", &file, err);
    sill__str_free(&text);
    sill__str_free(&file);
    return s;
}
