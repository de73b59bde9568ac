/*
 * load_json.c - tokenizer.json. The file describes a tokenizer as a chain of named parts; those chains that we
 * know are recognised as a whole, and anything else is refused by the name of the part that is not known.
 */
#include <stdio.h>

#include "tokenizer/internal.h"

#define MAX_STEPS 8
#define WORD_MARK "\xe2\x96\x81"

/* One part of a normalizer, pre-tokenizer, post-processor or decoder. Flags are -1 where the file has none. */
typedef struct step {
    char type[40], pattern[512], content[64], scheme[16], behavior[40];
    bool regex;
    int add_prefix_space, use_regex, individual_digits, split, invert;
    int64_t start, stop;
    char before[SILL__TOKEN_MAX_BYTES + 1]; /* TemplateProcessing: special tokens before and behind the text */
    int n_before, n_behind;
} step;

typedef struct chain { step *steps; int n; bool seen; } chain;

typedef struct parts {
    sill_tokenizer *t;
    const char *path;
    chain normalizer, pre, post, decoder;
    sill__json added, model, vocab, merges; /* places to come back to */
    char unk[SILL__TOKEN_MAX_BYTES + 1]; /* the model's unk_token; "" for none */
    bool has_added, has_model, has_vocab, has_merges, byte_fallback_seen, vocab_done, merges_done, kind_known;
} parts;

/* ---- reading */

/* A string into OUT, which holds CAP bytes with the NUL; one that does not fit becomes "?". N: its bytes, or 0 where
 * there is a NUL among them. */
static bool take_counted(sill__json *j, char *out, size_t cap, size_t *n) {
    sill__str s;
    sill__str_init(&s, (size_t)1 << 20);
    bool ok = sill__json_string(j, &s);
    if (ok && s.n < cap && (!s.n || !memchr(s.p, 0, s.n))) {
        if (s.n) memcpy(out, s.p, s.n);
        out[s.n] = 0;
    } else if (ok) snprintf(out, cap, "?");
    *n = s.n && memchr(s.p, 0, s.n) ? 0 : s.n;
    sill__str_free(&s);
    return ok;
}

static bool take_string(sill__json *j, char *out, size_t cap) {
    size_t n;
    return take_counted(j, out, cap, &n);
}

static bool take_flag(sill__json *j, int *out) {
    bool b;
    sill__json_kind k = sill__json_peek(j);
    if (k != SILL__JSON_TRUE && k != SILL__JSON_FALSE) return sill__json_skip(j);
    if (!sill__json_bool(j, &b)) return false;
    *out = b;
    return true;
}

/* {"String": "..."} or {"Regex": "..."} */
static bool take_pattern(sill__json *j, step *s) {
    char key[16];
    if (!sill__json_enter(j, SILL__JSON_OBJECT)) return false;
    while (sill__json_next_member(j, key, sizeof key, NULL)) {
        s->regex = !strcmp(key, "Regex");
        if (!take_string(j, s->pattern, sizeof s->pattern)) return false;
    }
    return !j->message;
}

/* TemplateProcessing's "single": [{"SpecialToken": {"id": "<s>", ...}}, {"Sequence": {"id": "A", ...}}, ...] */
static bool take_template(sill__json *j, step *s) {
    char key[24], inner[16];
    bool behind = false;
    if (!sill__json_enter(j, SILL__JSON_ARRAY)) return false;
    while (sill__json_next_element(j)) {
        if (!sill__json_enter(j, SILL__JSON_OBJECT)) return false;
        while (sill__json_next_member(j, key, sizeof key, NULL)) {
            bool special = !strcmp(key, "SpecialToken");
            if (!special) behind = true;
            if (special && behind) s->n_behind++;
            if (!special || behind || sill__json_peek(j) != SILL__JSON_OBJECT) continue;
            s->n_before++;
            if (!sill__json_enter(j, SILL__JSON_OBJECT)) return false;
            while (sill__json_next_member(j, inner, sizeof inner, NULL))
                if (!strcmp(inner, "id")) {
                    size_t n = 0;
                    if (!take_counted(j, s->before, sizeof s->before, &n)) return false;
                    if (n != strlen(s->before)) s->before[0] = 0; /* which no token is */
                }
        }
    }
    return !j->message;
}

static bool take_step_member(sill__json *j, const char *key, step *s) {
    bool string = sill__json_peek(j) == SILL__JSON_STRING;
    if (string && !strcmp(key, "type")) return take_string(j, s->type, sizeof s->type);
    if (string && (!strcmp(key, "content") || !strcmp(key, "prepend") || !strcmp(key, "replacement")))
        return take_string(j, s->content, sizeof s->content);
    if (string && !strcmp(key, "prepend_scheme")) return take_string(j, s->scheme, sizeof s->scheme);
    if (string && !strcmp(key, "behavior")) return take_string(j, s->behavior, sizeof s->behavior);
    if (!strcmp(key, "pattern")) return take_pattern(j, s);
    if (!strcmp(key, "add_prefix_space")) return take_flag(j, &s->add_prefix_space);
    if (!strcmp(key, "use_regex")) return take_flag(j, &s->use_regex);
    if (!strcmp(key, "individual_digits")) return take_flag(j, &s->individual_digits);
    if (!strcmp(key, "split")) return take_flag(j, &s->split);
    if (!strcmp(key, "invert")) return take_flag(j, &s->invert);
    if (!strcmp(key, "start")) return sill__json_int(j, &s->start);
    if (!strcmp(key, "stop")) return sill__json_int(j, &s->stop);
    if (!strcmp(key, "single") && sill__json_peek(j) == SILL__JSON_ARRAY) return take_template(j, s);
    return sill__json_skip(j);
}

/* A part, or a Sequence of parts, onto the chain. */
static sill_status take_chain(parts *p, sill__json *j, chain *c, int depth, sill_error *err) {
    static const char *const lists[] = {"normalizers", "pretokenizers", "processors", "decoders"};
    char key[32];
    sill_status st = SILL_OK;
    bool sequence = false;
    step s = {.add_prefix_space = -1, .use_regex = -1, .individual_digits = -1, .split = -1, .invert = -1};
    c->seen = true;
    if (sill__json_peek(j) == SILL__JSON_NULL) return sill__json_skip(j) ? SILL_OK : sill__json_fail(j, p->path, err);
    if (!c->steps && !(c->steps = sill__calloc(MAX_STEPS, sizeof *c->steps)))
        return sill__fail(err, SILL_ENOMEM, "out of memory for %s", p->path);
    if (depth > 3) return sill__fail(err, SILL_EUNSUPPORTED, "%s: sequences nested more than 3 deep", p->path);
    if (!sill__json_enter(j, SILL__JSON_OBJECT)) return sill__json_fail(j, p->path, err);
    while (sill__json_next_member(j, key, sizeof key, NULL)) {
        bool list = false;
        for (size_t i = 0; i < SILL_ARRAY_LEN(lists); i++) list |= !strcmp(key, lists[i]);
        if (!list) {
            if (!take_step_member(j, key, &s)) break;
            continue;
        }
        sequence = true; /* itself no part */
        if (!sill__json_enter(j, SILL__JSON_ARRAY)) break;
        while (sill__json_next_element(j))
            if ((st = take_chain(p, j, c, depth + 1, err)) != SILL_OK) return st;
    }
    if (j->message) return sill__json_fail(j, p->path, err);
    if (sequence) return SILL_OK;
    if (c->n == MAX_STEPS)
        return sill__fail(err, SILL_EUNSUPPORTED, "%s: a chain of more than %d parts", p->path, MAX_STEPS);
    c->steps[c->n++] = s;
    return SILL_OK;
}

/* ---- recognising */

static bool is(const chain *c, int i, const char *type) { return i < c->n && !strcmp(c->steps[i].type, type); }

static sill_status refuse(const parts *p, const char *what, const char *name, sill_error *err) {
    return sill__fail(err, SILL_EUNSUPPORTED, "%s: %s %s is not supported (byte-level BPE with GPT-2's, SmolLM's or "
                      "Llama-3's pre-tokenizer, and SentencePiece-style BPE are)", p->path, what, name);
}

/* The byte-level pre-tokenizers. False: none that we know. */
static bool byte_level_pre(const chain *c, sill__pre *pre) {
    const step *last = &c->steps[c->n - 1];
    if (strcmp(last->type, "ByteLevel") || last->add_prefix_space != 0) return false;
    if (c->n == 1) {
        *pre = SILL__PRE_GPT2;
        return last->use_regex != 0;
    }
    const step *s = &c->steps[0];
    if (c->n != 2) return false;
    if (!strcmp(s->type, "Digits")) {
        *pre = SILL__PRE_SMOLLM;
        return s->individual_digits == 1 && last->use_regex != 0;
    }
    if (strcmp(s->type, "Split") || !s->regex || strcmp(s->behavior, "Isolated") || s->invert == 1 || last->use_regex != 0)
        return false;
    *pre = !strcmp(s->pattern, sill__pattern_gpt2) ? SILL__PRE_GPT2 : SILL__PRE_LLAMA3;
    return *pre == SILL__PRE_GPT2 || !strcmp(s->pattern, sill__pattern_llama3);
}

/* SentencePiece's word marks: by normalizers (Prepend, Replace) or by the pre-tokenizer Metaspace. */
static sill_status spm_marks(parts *p, sill_error *err) {
    const chain *n = &p->normalizer;
    sill_tokenizer *t = p->t;
    bool replace = false;
    t->cut = SILL__CUT_WORDS;
    for (int i = 0; i < n->n; i++) {
        const step *s = &n->steps[i];
        if (is(n, i, "Prepend") && !strcmp(s->content, WORD_MARK)) t->prefix = SILL__PREFIX_EACH;
        else if (is(n, i, "Replace") && !s->regex && !strcmp(s->pattern, " ") && !strcmp(s->content, WORD_MARK)) replace = true;
        else return refuse(p, "the normalizer", s->type, err);
    }
    if (p->pre.n == 0)
        return replace ? SILL_OK : refuse(p, "a tokenizer without pre-tokenizer and", "without word marks", err);
    const step *s = &p->pre.steps[0];
    if (n->n > 0) return refuse(p, "a normalizer together with the pre-tokenizer", s->type, err);
    if (strcmp(s->content, WORD_MARK)) return refuse(p, "Metaspace with the replacement", s->content, err);
    const char *scheme = s->scheme[0] ? s->scheme : s->add_prefix_space == 0 ? "never" : "always";
    if (!strcmp(scheme, "always")) t->prefix = SILL__PREFIX_META_EACH;
    else if (!strcmp(scheme, "first")) t->prefix = SILL__PREFIX_META_FIRST;
    else if (strcmp(scheme, "never")) return refuse(p, "Metaspace with prepend_scheme", scheme, err);
    if (s->split != 0) t->cut = SILL__CUT_SPACES;
    return SILL_OK;
}

static sill_status spm_decoder(parts *p, sill_error *err) {
    static const char *const known[] = {"Replace", "ByteFallback", "Fuse", "Strip", "Metaspace"};
    for (int i = 0; i < p->decoder.n; i++) {
        const step *s = &p->decoder.steps[i];
        bool ok = false;
        for (size_t k = 0; k < SILL_ARRAY_LEN(known); k++) ok |= !strcmp(s->type, known[k]);
        if (!ok) return refuse(p, "the decoder", s->type, err);
        if (!strcmp(s->type, "Strip")) {
            if (strcmp(s->content, " ") || s->start < 0 || s->start > 1 || s->stop != 0)
                return refuse(p, "a decoder that strips other than one leading space,", "Strip", err);
            p->t->strip_prefix |= s->start == 1;
        } else if (!strcmp(s->type, "Metaspace"))
            p->t->strip_prefix |= strcmp(s->scheme, "never") && (s->scheme[0] || s->add_prefix_space != 0);
    }
    return SILL_OK;
}

/* What kind of tokenizer the chains make. */
static sill_status decide_kind(parts *p, sill_error *err) {
    sill_tokenizer *t = p->t;
    sill_status s;
    p->kind_known = true;
    if (p->pre.n > 0 && !is(&p->pre, 0, "Metaspace")) {
        char names[256] = "";
        size_t at = 0;
        for (int i = 0; i < p->pre.n && at < sizeof names; i++) {
            int k = snprintf(names + at, sizeof names - at, "%s%s", i ? " + " : "", p->pre.steps[i].type);
            at += k > 0 ? (size_t)k : 0;
        }
        if (!byte_level_pre(&p->pre, &t->pre)) return refuse(p, "the pre-tokenizer", names, err);
        if (p->normalizer.n > 0) return refuse(p, "the normalizer", p->normalizer.steps[0].type, err);
        if (p->decoder.n > 1 || (p->decoder.n == 1 && !is(&p->decoder, 0, "ByteLevel")))
            return refuse(p, "the decoder", p->decoder.steps[0].type, err);
        t->kind = SILL__TOK_BPE_BYTES;
        return SILL_OK;
    }
    if (p->pre.n > 1) return refuse(p, "a pre-tokenizer after Metaspace,", p->pre.steps[1].type, err);
    t->kind = SILL__TOK_BPE_SPM;
    t->pre = SILL__PRE_SPM;
    if ((s = spm_marks(p, err)) != SILL_OK) return s;
    return spm_decoder(p, err);
}

/* BOS from the post-processor. */
static sill_status take_post(parts *p, sill_error *err) {
    for (int i = 0; i < p->post.n; i++) {
        const step *s = &p->post.steps[i];
        if (!strcmp(s->type, "ByteLevel")) continue; /* about offsets only */
        if (strcmp(s->type, "TemplateProcessing")) return refuse(p, "the post-processor", s->type, err);
        if (s->n_behind > 0 || s->n_before > 1)
            return refuse(p, "a post-processor that adds more than one token before the text,", s->type, err);
        if (s->n_before == 0) continue;
        int32_t id = sill__tokenizer_find(p->t, s->before, strlen(s->before));
        if (id < 0)
            return sill__fail(err, SILL_EFORMAT, "%s: the post-processor's token \"%s\" is not in the vocabulary", p->path,
                              s->before);
        p->t->add_bos = true;
        p->t->bos = id;
    }
    return SILL_OK;
}

/* ---- the model */

sill_status sill__tok_read_vocab(sill_tokenizer *t, sill__json *j, sill_error *err) {
    char key[2 * SILL__TOKEN_MAX_BYTES + 2];
    size_t n;
    int64_t id;
    if (!sill__json_enter(j, SILL__JSON_OBJECT)) return SILL_OK; /* the caller looks at j */
    while (sill__json_next_member(j, key, sizeof key, &n)) {
        if (n >= sizeof key)
            return sill__fail(err, SILL_EFORMAT, "a token of %zu bytes; at most %d can be", n, SILL__TOKEN_MAX_BYTES);
        if (!sill__json_int(j, &id)) break;
        sill__tok_attr attr = SILL__ATTR_NORMAL;
        if (t->kind == SILL__TOK_BPE_SPM && t->byte_fallback && n == 6 && !memcmp(key, "<0x", 3) && key[5] == '>')
            attr = SILL__ATTR_BYTE;
        sill_status s = sill__tok_put_written(t, id, key, n, attr, err);
        if (s != SILL_OK) return s;
    }
    return SILL_OK;
}

static sill_status read_vocab(parts *p, sill__json *j, sill_error *err) {
    sill_status s = sill__tok_read_vocab(p->t, j, err);
    if (s == SILL_OK && j->message) return sill__json_fail(j, p->path, err);
    p->vocab_done = true;
    if (s == SILL_OK && p->has_added) {
        sill__json a = p->added;
        if (sill__json_peek(&a) == SILL__JSON_NULL) sill__json_skip(&a);
        else if (sill__json_enter(&a, SILL__JSON_ARRAY))
            while (s == SILL_OK && sill__json_next_element(&a)) s = sill__tok_read_added(p->t, &a, -1, err);
        if (s == SILL_OK && a.message) return sill__json_fail(&a, p->path, err);
    }
    if (s == SILL_OK) s = sill__tok_index(p->t, p->t->n, err);
    return s;
}

/* Merges: "left right", or ["left", "right"] since tokenizers 0.20. */
static sill_status read_merges(parts *p, sill__json *j, sill_error *err) {
    sill__str s, right;
    sill_status st = SILL_OK;
    uint32_t rank = 0;
    sill__str_init(&s, 4 * SILL__TOKEN_MAX_BYTES + 1);
    sill__str_init(&right, 2 * SILL__TOKEN_MAX_BYTES);
    if (sill__json_enter(j, SILL__JSON_ARRAY))
        while (st == SILL_OK && sill__json_next_element(j)) {
            sill__str_clear(&s);
            sill__str_clear(&right);
            if (rank == SILL__MERGES_MAX) st = sill__fail(err, SILL_EFORMAT, "more than %u merges", SILL__MERGES_MAX);
            else if (sill__json_peek(j) == SILL__JSON_STRING) {
                if (!sill__json_string(j, &s)) break;
                st = sill__tok_merge_line(p->t, s.p ? s.p : "", s.n, rank++, err);
            } else {
                bool two = sill__json_enter(j, SILL__JSON_ARRAY) && sill__json_next_element(j) && sill__json_string(j, &s) &&
                           sill__json_next_element(j) && sill__json_string(j, &right);
                if (!two || sill__json_next_element(j)) {
                    if (!j->message) st = sill__fail(err, SILL_EFORMAT, "merge %u is not a pair of tokens", rank);
                    break;
                }
                if (j->message) break;
                st = sill__tok_merge_written(p->t, s.p ? s.p : "", s.n, right.p ? right.p : "", right.n, rank++, err);
            }
        }
    sill__str_free(&right);
    sill__str_free(&s);
    if (st == SILL_OK && j->message) return sill__json_fail(j, p->path, err);
    p->merges_done = true;
    return st;
}

static sill_status model_member(parts *p, const char *key, sill__json *j, sill_error *err) {
    sill_tokenizer *t = p->t;
    char text[SILL__TOKEN_MAX_BYTES];
    int flag = 0;
    sill__json_kind kind = sill__json_peek(j);
    if (!strcmp(key, "type") && kind == SILL__JSON_STRING) {
        if (take_string(j, text, sizeof text) && strcmp(text, "BPE")) return refuse(p, "the model", text, err);
    } else if (!strcmp(key, "unk_token")) {
        if (kind == SILL__JSON_STRING) take_string(j, p->unk, sizeof p->unk);
    } else if (!strcmp(key, "byte_fallback")) {
        p->byte_fallback_seen = true;
        if (take_flag(j, &flag)) t->byte_fallback = flag;
    } else if (!strcmp(key, "fuse_unk")) {
        if (take_flag(j, &flag)) t->fuse_unk = flag;
    } else if (!strcmp(key, "ignore_merges")) {
        if (take_flag(j, &flag)) t->ignore_merges = flag;
    } else if (!strcmp(key, "continuing_subword_prefix") || !strcmp(key, "end_of_word_suffix")) {
        if (kind != SILL__JSON_STRING) return SILL_OK;
        if (take_string(j, text, sizeof text) && text[0]) return refuse(p, "a model with", key, err);
    } else if (!strcmp(key, "vocab")) {
        p->vocab = *j;
        p->has_vocab = true;
        if (p->kind_known && p->byte_fallback_seen && p->has_added && !p->vocab_done) return read_vocab(p, j, err);
    } else if (!strcmp(key, "merges")) {
        p->merges = *j;
        p->has_merges = true;
        if (p->vocab_done && !p->merges_done) return read_merges(p, j, err);
    }
    return SILL_OK;
}

static sill_status read_model(parts *p, sill__json *j, sill_error *err) {
    char key[32];
    sill_status s = SILL_OK;
    sill__json m;
    if (!sill__json_enter(j, SILL__JSON_OBJECT)) return sill__json_fail(j, p->path, err);
    while (s == SILL_OK && sill__json_next_member(j, key, sizeof key, NULL)) s = model_member(p, key, j, err);
    if (s == SILL_OK && j->message) return sill__json_fail(j, p->path, err);
    if (s != SILL_OK) return s;
    if (!p->has_vocab || !p->has_merges)
        return sill__fail(err, SILL_EFORMAT, "%s: the model has no %s", p->path, p->has_vocab ? "merges" : "vocab");
    if (!p->vocab_done) {
        m = p->vocab;
        s = read_vocab(p, &m, err);
    }
    if (s == SILL_OK && !p->merges_done) {
        m = p->merges;
        s = read_merges(p, &m, err);
    }
    if (s == SILL_OK && p->unk[0]) {
        int32_t id = sill__tokenizer_find(p->t, p->unk, strlen(p->unk));
        if (id < 0) return sill__fail(err, SILL_EFORMAT, "%s: unk_token \"%.64s\" is not in the vocabulary", p->path, p->unk);
        p->t->unk = id;
        p->t->bytes_become_unk = p->t->kind == SILL__TOK_BPE_BYTES;
    }
    return s;
}

/* ---- added tokens */

sill_status sill__tok_bad_added(int64_t id, size_t n, sill_error *err) {
    if (n > SILL__TOKEN_MAX_BYTES)
        return sill__fail(err, SILL_EFORMAT, "added token %lld has %zu bytes; at most %d can be", (long long)id, n,
                          SILL__TOKEN_MAX_BYTES);
    return sill__fail(err, SILL_EFORMAT, "added token %lld has a NUL in its text", (long long)id);
}

sill_status sill__tok_read_added(sill_tokenizer *t, sill__json *j, int64_t id, sill_error *err) {
    static const char *const refused[] = {"single_word", "lstrip", "rstrip"};
    char key[32], text[SILL__TOKEN_MAX_BYTES + 1] = "";
    int special = 0, flag;
    size_t n = 0;
    if (!sill__json_enter(j, SILL__JSON_OBJECT)) return SILL_OK;
    const char *unsupported = NULL;
    while (sill__json_next_member(j, key, sizeof key, NULL)) {
        if (!strcmp(key, "content")) take_counted(j, text, sizeof text, &n);
        else if (!strcmp(key, "id") && id < 0) sill__json_int(j, &id);
        else if (!strcmp(key, "special")) take_flag(j, &special);
        for (size_t i = 0; i < SILL_ARRAY_LEN(refused); i++)
            if (!strcmp(key, refused[i])) {
                flag = 0;
                if (take_flag(j, &flag) && flag == 1) unsupported = refused[i];
            }
    }
    if (j->message) return SILL_OK; /* the caller looks at j */
    if (unsupported)
        return sill__fail(err, SILL_EUNSUPPORTED, "added token \"%.64s\" is marked %s, which is not supported", text,
                          unsupported);
    if (n != strlen(text)) return sill__tok_bad_added(id, n, err);
    return sill__tok_put_added(t, id, text, n, special == 1, err);
}

/* ---- the file */

static sill_status top_member(parts *p, const char *key, sill__json *j, sill_error *err) {
    if (!strcmp(key, "added_tokens")) {
        p->added = *j;
        p->has_added = true;
    } else if (!strcmp(key, "normalizer")) return take_chain(p, j, &p->normalizer, 0, err);
    else if (!strcmp(key, "pre_tokenizer")) return take_chain(p, j, &p->pre, 0, err);
    else if (!strcmp(key, "post_processor")) return take_chain(p, j, &p->post, 0, err);
    else if (!strcmp(key, "decoder")) return take_chain(p, j, &p->decoder, 0, err);
    else if (!strcmp(key, "model")) {
        /* The library writes the model last: then it is read on the way, else it is come back to. */
        sill_status s;
        p->model = *j;
        if (p->has_model) return sill__fail(err, SILL_EFORMAT, "%s: two models", p->path);
        p->has_model = true;
        if (!p->normalizer.seen || !p->pre.seen || !p->decoder.seen) return SILL_OK;
        if ((s = decide_kind(p, err)) != SILL_OK) return s;
        return read_model(p, j, err);
    }
    return SILL_OK;
}

static sill_status read_file(parts *p, const sill__map *map, sill_error *err) {
    char key[32];
    sill_status s = SILL_OK;
    sill__json j, m;
    sill__json_init(&j, (const char *)map->data, map->bytes);
    if (sill__json_enter(&j, SILL__JSON_OBJECT))
        while (s == SILL_OK && sill__json_next_member(&j, key, sizeof key, NULL)) s = top_member(p, key, &j, err);
    if (s == SILL_OK && !sill__json_finish(&j)) return sill__json_fail(&j, p->path, err);
    if (s != SILL_OK) return s;
    if (!p->has_model) return sill__fail(err, SILL_EFORMAT, "%s: no \"model\"", p->path);
    if (!p->kind_known) {
        m = p->model;
        if ((s = decide_kind(p, err)) == SILL_OK) s = read_model(p, &m, err);
    }
    if (s == SILL_OK) s = sill__tok_finish(p->t, err);
    if (s == SILL_OK) s = take_post(p, err);
    return s;
}

sill_status sill__tok_load_json(const char *path, const char *dir, sill_tokenizer **out, sill_error *err) {
    parts p = {.path = path};
    sill__map map;
    *out = NULL;
    sill_status s = sill__map_open(path, &map, err);
    if (s != SILL_OK) return s;
    if (!(p.t = sill__tok_new())) s = sill__fail(err, SILL_ENOMEM, "out of memory for %s", path);
    else if (map.bytes > SILL__TOKENIZER_FILE_MAX)
        s = sill__fail(err, SILL_EFORMAT, "%s has %zu bytes; at most %zu can be", path, map.bytes, SILL__TOKENIZER_FILE_MAX);
    else if ((s = read_file(&p, &map, err)) != SILL_OK) sill__tok_name_file(err, s, path);
    sill__map_close(&map);
    if (s == SILL_OK) s = sill__tok_load_config(p.t, dir, err);
    sill__free(p.normalizer.steps);
    sill__free(p.pre.steps);
    sill__free(p.post.steps);
    sill__free(p.decoder.steps);
    if (s != SILL_OK) {
        sill_tokenizer_free(p.t);
        return s;
    }
    *out = p.t;
    return SILL_OK;
}
