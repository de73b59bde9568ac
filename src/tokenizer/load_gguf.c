/*
 * load_gguf.c - the tokenizer inside a GGUF: tokenizer.ggml.model "gpt2" (byte-level) or "llama" (SentencePiece).
 * Absent keys mean what they mean to llama.cpp, which defines the format's tokenizers.
 */
#include "format/format.h"
#include "tokenizer/internal.h"

#define KEY(name) "tokenizer.ggml." name

/* GGUF's token types. */
enum { TYPE_NORMAL = 1, TYPE_UNKNOWN, TYPE_CONTROL, TYPE_USER_DEFINED, TYPE_UNUSED, TYPE_BYTE };

/* A key that is there but holds something else is no key that is absent. */
static sill_status wrong_kind(const sill__meta *m, const char *expected, sill_error *err) {
    static const char *const kinds[] = {"u8", "i8", "u16", "i16", "u32", "i32", "f32", "bool", "string", "array", "u64",
                                        "i64", "f64"};
    bool array = m->kind == SILL__META_ARRAY;
    sill__meta_kind kind = array ? m->element : m->kind;
    return sill__fail(err, SILL_EFORMAT, "%s is %s%s, expected %s", m->key, array ? "an array of " : "",
                      (size_t)kind < SILL_ARRAY_LEN(kinds) ? kinds[kind] : "an unknown kind", expected);
}

/* These three leave OUT as it is where the key is absent. */
static sill_status take_array(const sill__file *f, const char *key, sill__meta_kind a, sill__meta_kind b,
                              const char *expected, const sill__meta **out, sill_error *err) {
    const sill__meta *m = sill__file_find_meta(f, key);
    if (!m) return SILL_OK;
    if (m->kind != SILL__META_ARRAY || (m->element != a && m->element != b)) return wrong_kind(m, expected, err);
    *out = m;
    return SILL_OK;
}

static sill_status take_string(const sill__file *f, const char *key, const char **out, size_t *n, sill_error *err) {
    const sill__meta *m = sill__file_find_meta(f, key);
    return !m || sill__meta_string(f, key, out, n) ? SILL_OK : wrong_kind(m, "a string", err);
}

static sill_status take_flag(const sill__file *f, const char *key, bool *out, sill_error *err) {
    const sill__meta *m = sill__file_find_meta(f, key);
    int64_t v;
    if (!m || sill__meta_bool(f, key, out)) return SILL_OK;
    if (!sill__meta_int(f, key, &v)) return wrong_kind(m, "true or false", err);
    if (v != 0 && v != 1)
        return sill__fail(err, SILL_EFORMAT, "%s is %lld, expected true or false", key, (long long)v);
    *out = v == 1;
    return SILL_OK;
}

static uint32_t u32_at(const sill__meta *m, size_t i) {
    const uint8_t *p = m->data + 4 * i;
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/* The pre-tokenizer of a byte-level vocabulary. Where no name is given, or "default", the text does not say
 * how it is cut; only the gpt2 architecture knows no other way than GPT-2's. */
static sill_status choose_pre(const sill__file *f, sill_tokenizer *t, sill_error *err) {
    const char *name = NULL, *arch = "";
    size_t n = 0, n_arch = 0;
    sill_status s = take_string(f, KEY("pre"), &name, &n, err);
    if (s != SILL_OK) return s;
    bool given = name != NULL;
    if (given && sill__pretok_by_name(name, n, &t->pre)) return SILL_OK;
    sill__meta_string(f, "general.architecture", &arch, &n_arch);
    if ((!given || (n == 7 && !memcmp(name, "default", 7))) && n_arch == 4 && !memcmp(arch, "gpt2", 4)) {
        t->pre = SILL__PRE_GPT2;
        return SILL_OK;
    }
    if (!given) return sill__fail(err, SILL_EUNSUPPORTED, "the file does not name its pre-tokenizer (" KEY("pre") "); %s",
                                  sill__pretok_supported);
    return sill__fail(err, SILL_EUNSUPPORTED, "pre-tokenizer \"%.*s\" is not supported; %s", (int)SILL_MIN(n, (size_t)64), name,
                      sill__pretok_supported);
}

static sill_status put_tokens(const sill__file *f, sill_tokenizer *t, const sill__meta *tokens, sill_error *err) {
    const sill__meta *types = NULL;
    const char *p;
    size_t at = 0, n;
    sill_status s = take_array(f, KEY("token_type"), SILL__META_I32, SILL__META_U32, "an array of i32", &types, err);
    if (s != SILL_OK) return s;
    if (types && types->n != tokens->n)
        return sill__fail(err, SILL_EFORMAT, "%llu tokens but %llu token types", (unsigned long long)tokens->n,
                          (unsigned long long)types->n);
    for (int64_t i = 0; s == SILL_OK && sill__meta_next_string(tokens, &at, &p, &n); i++) {
        uint32_t type = types ? u32_at(types, (size_t)i) : TYPE_NORMAL;
        switch (type) {
        case TYPE_UNKNOWN: case TYPE_CONTROL:
            s = sill__tok_put_written(t, i, p, n, SILL__ATTR_SPECIAL, err);
            break;
        case TYPE_USER_DEFINED:
            if (t->kind == SILL__TOK_BPE_SPM) s = sill__tok_put_written(t, i, p, n, SILL__ATTR_UNUSED, err);
            else s = sill__tok_put(t, i, p, n, SILL__ATTR_UNUSED, err);
            if (s == SILL_OK) t->tokens[i].added = n > 0;
            break;
        case TYPE_UNUSED: s = sill__tok_put_written(t, i, p, n, SILL__ATTR_UNUSED, err); break;
        case TYPE_BYTE:
            t->byte_fallback = t->kind == SILL__TOK_BPE_SPM;
            s = sill__tok_put_written(t, i, p, n, t->byte_fallback ? SILL__ATTR_BYTE : SILL__ATTR_NORMAL, err);
            break;
        default: s = sill__tok_put_written(t, i, p, n, SILL__ATTR_NORMAL, err); break;
        }
    }
    return s;
}

static sill_status take_id(const sill__file *f, const sill_tokenizer *t, const char *key, int32_t *id, sill_error *err) {
    int64_t v;
    if (!sill__file_find_meta(f, key)) return SILL_OK;
    if (!sill__meta_int(f, key, &v) || v < 0 || v >= (int64_t)t->n) {
        if (sill__meta_int(f, key, &v) && (v == -1 || v == UINT32_MAX)) return SILL_OK; /* some writers' "none" */
        return sill__fail(err, SILL_EFORMAT, "%s is not an id of the vocabulary of %u tokens", key, t->n);
    }
    *id = (int32_t)v;
    return SILL_OK;
}

static sill_status take_ids(const sill__file *f, sill_tokenizer *t, sill_error *err) {
    sill_status s = take_id(f, t, KEY("bos_token_id"), &t->bos, err);
    if (s == SILL_OK) s = take_id(f, t, KEY("eos_token_id"), &t->eos, err);
    if (s == SILL_OK) s = take_id(f, t, KEY("padding_token_id"), &t->pad, err);
    if (s == SILL_OK) s = take_id(f, t, KEY("unknown_token_id"), &t->unk, err);
    if (s != SILL_OK || sill__file_find_meta(f, KEY("token_type"))) return s;
    /* Without token types the ids alone tell which tokens are special. */
    const int32_t ids[] = {t->bos, t->eos, t->pad, t->unk};
    for (size_t i = 0; i < SILL_ARRAY_LEN(ids); i++)
        if (ids[i] >= 0 && t->tokens[ids[i]].n > 1) {
            t->tokens[ids[i]].attr = SILL__ATTR_SPECIAL;
            t->tokens[ids[i]].added = 1;
        }
    return SILL_OK;
}

static sill_status put_merges(const sill__file *f, sill_tokenizer *t, sill_error *err) {
    const sill__meta *m = NULL;
    const char *p;
    size_t at = 0, n;
    sill_status s = take_array(f, KEY("merges"), SILL__META_STRING, SILL__META_STRING, "an array of strings", &m, err);
    if (s != SILL_OK) return s;
    if (!m) return sill__fail(err, SILL_EFORMAT, "no " KEY("merges"));
    if (m->n > SILL__MERGES_MAX)
        return sill__fail(err, SILL_EFORMAT, "%llu merges; at most %u can be", (unsigned long long)m->n, SILL__MERGES_MAX);
    s = sill__tok_index(t, (size_t)m->n, err);
    for (uint32_t rank = 0; s == SILL_OK && sill__meta_next_string(m, &at, &p, &n); rank++)
        s = sill__tok_merge_line(t, p, n, rank, err);
    return s;
}

static sill_status put_scores(const sill__file *f, sill_tokenizer *t, sill_error *err) {
    const sill__meta *m = NULL;
    sill_status s = take_array(f, KEY("scores"), SILL__META_F32, SILL__META_F32, "an array of f32", &m, err);
    if (s != SILL_OK) return s;
    if (!m || m->n != t->n)
        return sill__fail(err, SILL_EFORMAT, "%s", m ? KEY("scores") " and " KEY("tokens") " differ in number" : "no " KEY("scores"));
    float *scores = sill__alloc(t->n * sizeof *scores);
    if (!scores) return sill__fail(err, SILL_ENOMEM, "out of memory for %u scores", t->n);
    for (uint32_t i = 0; i < t->n; i++) scores[i] = sill__bits_f32(u32_at(m, i));
    s = sill__tok_index(t, 0, err);
    if (s == SILL_OK) s = sill__tok_merges_from_scores(t, scores, err);
    sill__free(scores);
    return s;
}

static sill_status load(const sill__file *f, sill_tokenizer *t, sill_error *err) {
    const sill__meta *tokens = NULL;
    const char *model = NULL, *text = NULL;
    size_t n = 0;
    bool prefix = true, strips = false;
    sill_status s = take_array(f, KEY("tokens"), SILL__META_STRING, SILL__META_STRING, "an array of strings", &tokens, err);
    if (s == SILL_OK) s = take_string(f, KEY("model"), &model, &n, err);
    if (s != SILL_OK) return s;
    if (!model || !tokens)
        return sill__fail(err, SILL_ENOENT, "there is no tokenizer in it");
    if (tokens->n > SILL__VOCAB_MAX)
        return sill__fail(err, SILL_EFORMAT, "%llu tokens; at most %u can be", (unsigned long long)tokens->n, SILL__VOCAB_MAX);
    bool bytes = n == 4 && !memcmp(model, "gpt2", 4), spm = n == 5 && !memcmp(model, "llama", 5);
    if (!bytes && !spm)
        return sill__fail(err, SILL_EUNSUPPORTED, "tokenizer \"%.*s\" is not supported; supported: gpt2 (byte-level BPE), "
                          "llama (SentencePiece BPE)", (int)SILL_MIN(n, (size_t)64), model);
    if (spm) {
        t->kind = SILL__TOK_BPE_SPM;
        t->pre = SILL__PRE_SPM;
        t->cut = SILL__CUT_WORDS;
        t->fuse_unk = t->add_bos = true;
        if ((s = take_flag(f, KEY("add_space_prefix"), &prefix, err)) != SILL_OK) return s;
        if ((s = take_flag(f, KEY("remove_extra_whitespaces"), &strips, err)) != SILL_OK) return s;
        t->prefix = prefix ? SILL__PREFIX_EACH : SILL__PREFIX_NONE;
        t->strip_prefix = prefix;
        if (strips)
            return sill__fail(err, SILL_EUNSUPPORTED, "a tokenizer that removes white space is not supported");
        if (sill__file_find_meta(f, KEY("precompiled_charsmap")))
            return sill__fail(err, SILL_EUNSUPPORTED, "a tokenizer with a character map is not supported");
    } else {
        t->kind = SILL__TOK_BPE_BYTES;
        if ((s = choose_pre(f, t, err)) != SILL_OK) return s;
        t->ignore_merges = t->add_bos = t->pre == SILL__PRE_LLAMA3;
    }
    if ((s = take_flag(f, KEY("add_bos_token"), &t->add_bos, err)) != SILL_OK) return s;
    if ((s = put_tokens(f, t, tokens, err)) != SILL_OK) return s;
    if ((s = take_ids(f, t, err)) != SILL_OK) return s;
    if ((s = spm ? put_scores(f, t, err) : put_merges(f, t, err)) != SILL_OK) return s;
    if ((s = sill__tok_finish(t, err)) != SILL_OK) return s;
    if ((s = take_string(f, "tokenizer.chat_template", &text, &n, err)) != SILL_OK) return s;
    if (text) s = sill__tok_set_template(t, text, n, err);
    sill__tok_default_ids(t);
    return s;
}

sill_status sill__tok_load_gguf(const sill__file *file, sill_tokenizer **out, sill_error *err) {
    sill_tokenizer *t = sill__tok_new();
    *out = NULL;
    if (!t) return sill__fail(err, SILL_ENOMEM, "out of memory for the tokenizer of %s", sill__file_path(file));
    sill_status s = load(file, t, err);
    if (s != SILL_OK) {
        sill__fail_context(err, "%s", sill__file_path(file));
        sill_tokenizer_free(t);
        return s;
    }
    *out = t;
    return SILL_OK;
}
