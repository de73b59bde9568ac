/*
 * load.c - where a tokenizer comes from: a path, a directory, an open model. Also what the small files beside
 * a vocabulary tell: special ids, BOS, the chat template.
 */
#include "tokenizer/internal.h"

#define MAX_PATH 4096
#define SMALL_FILE_MAX ((size_t)64 << 20)
#define TEMPLATE_MAX ((size_t)1 << 20)

/* ---- tokenizer_config.json and its neighbours */

/* A special token as these files name it: a string, or an object with "content". Empty when it is null. */
static bool token_name(sill__json *j, sill__str *out) {
    char key[32];
    sill__str_clear(out);
    switch (sill__json_peek(j)) {
    case SILL__JSON_NULL: return sill__json_skip(j);
    case SILL__JSON_STRING: return sill__json_string(j, out);
    case SILL__JSON_OBJECT:
        if (!sill__json_enter(j, SILL__JSON_OBJECT)) return false;
        while (sill__json_next_member(j, key, sizeof key, NULL))
            if (!strcmp(key, "content") && sill__json_peek(j) == SILL__JSON_STRING) {
                sill__str_clear(out);
                if (!sill__json_string(j, out)) return false;
            }
        return !j->message;
    default: return sill__json_skip(j);
    }
}

static sill_status set_by_name(sill_tokenizer *t, sill__json *j, int32_t *id, const char *what, sill_error *err) {
    sill__str name;
    sill_status s = SILL_OK;
    uint32_t bit = 1u << (*what == 'b' ? 0 : *what == 'e' ? 1 : *what == 'p' ? 2 : 3);
    /* The search may go through the whole vocabulary: once for a file, whatever it repeats. */
    if (*id >= 0 || (t->keys_seen & bit)) return SILL_OK;
    t->keys_seen |= bit;
    sill__str_init(&name, SILL__TOKEN_MAX_BYTES);
    if (token_name(j, &name) && name.n > 0) {
        uint32_t found = sill__tok_search(t, name.p, name.n);
        /* A name that the vocabulary lacks (a pad token to be added by the user, say) is no error. */
        if (found == SILL__NO_ID) sill__log(1, "tokenizer: %s \"%s\" is not in the vocabulary", what, name.p);
        else *id = (int32_t)found;
    } else if (name.failed)
        s = sill__fail(err, SILL_EFORMAT, "%s is longer than %d bytes", what, SILL__TOKEN_MAX_BYTES);
    sill__str_free(&name);
    return s;
}

sill_status sill__tok_set_template(sill_tokenizer *t, const char *p, size_t n, sill_error *err) {
    if (n > TEMPLATE_MAX)
        return sill__fail(err, SILL_EFORMAT, "a chat template of %zu bytes; at most %zu can be", n, TEMPLATE_MAX);
    char *copy = sill__strndup(p, n);
    if (!copy) return sill__fail(err, SILL_ENOMEM, "out of memory for the chat template");
    sill__free(t->chat_template);
    t->chat_template = copy;
    return SILL_OK;
}

/* "chat_template": a string, or a list of {"name", "template"} of which "default" counts. */
static sill_status read_template(sill_tokenizer *t, sill__json *j, sill_error *err) {
    sill__str text, name;
    sill_status s = SILL_OK;
    char key[32];
    bool chosen = false;
    sill__str_init(&text, TEMPLATE_MAX);
    sill__str_init(&name, 256);
    switch (sill__json_peek(j)) {
    case SILL__JSON_STRING: chosen = sill__json_string(j, &text); break;
    case SILL__JSON_ARRAY:
        sill__json_enter(j, SILL__JSON_ARRAY);
        while (!chosen && sill__json_next_element(j)) {
            sill__str_clear(&text);
            sill__str_clear(&name);
            if (sill__json_peek(j) != SILL__JSON_OBJECT) continue;
            sill__json_enter(j, SILL__JSON_OBJECT);
            while (sill__json_next_member(j, key, sizeof key, NULL)) {
                if (sill__json_peek(j) != SILL__JSON_STRING) continue;
                if (!strcmp(key, "name")) sill__json_string(j, &name);
                else if (!strcmp(key, "template")) sill__json_string(j, &text);
            }
            chosen = !j->message && text.n > 0 && name.n == 7 && !memcmp(name.p, "default", 7);
        }
        while (!j->message && sill__json_next_element(j)) {}
        break;
    default: sill__json_skip(j); break;
    }
    if (chosen && !j->message) s = sill__tok_set_template(t, text.p ? text.p : "", text.n, err);
    sill__str_free(&name);
    sill__str_free(&text);
    return s;
}

static sill_status config_member(sill_tokenizer *t, const char *key, size_t n_key, sill__json *j, sill_error *err) {
    bool flag;
    (void)n_key;
    if (!strcmp(key, "bos_token")) return set_by_name(t, j, &t->bos, key, err);
    if (!strcmp(key, "eos_token")) return set_by_name(t, j, &t->eos, key, err);
    if (!strcmp(key, "pad_token")) return set_by_name(t, j, &t->pad, key, err);
    if (!strcmp(key, "unk_token")) return set_by_name(t, j, &t->unk, key, err);
    if (!strcmp(key, "chat_template")) return read_template(t, j, err);
    if (!strcmp(key, "add_bos_token")) {
        sill__json_kind kind = sill__json_peek(j);
        if ((kind == SILL__JSON_TRUE || kind == SILL__JSON_FALSE) && sill__json_bool(j, &flag)) t->add_bos = flag;
    }
    if (!strcmp(key, "add_prefix_space") && t->kind == SILL__TOK_BPE_BYTES && sill__json_peek(j) == SILL__JSON_TRUE)
        return sill__fail(err, SILL_EUNSUPPORTED, "add_prefix_space is not supported for byte-level tokenizers");
    return SILL_OK;
}

sill_status sill__tok_name_file(sill_error *err, sill_status s, const char *path) {
    if (err && !strstr(err->msg, path)) sill__fail_context(err, "%s", path);
    return s;
}

sill_status sill__tok_each_member(sill_tokenizer *t, const char *dir, const char *name, sill__tok_member_fn fn,
                                  sill_error *err) {
    char path[MAX_PATH], key[SILL__TOKEN_MAX_BYTES + 1], *data = NULL;
    size_t bytes = 0, n_key = 0;
    sill__json j;
    t->keys_seen = 0;
    if (!sill__path_join(path, sizeof path, dir, name) || !sill__is_file(path)) return SILL_OK;
    sill_status s = sill__read_file(path, SMALL_FILE_MAX, &data, &bytes, err);
    if (s != SILL_OK) return s;
    sill__json_init(&j, data, bytes);
    if (sill__json_enter(&j, SILL__JSON_OBJECT))
        while (s == SILL_OK && sill__json_next_member(&j, key, sizeof key, &n_key)) s = fn(t, key, n_key, &j, err);
    if (s == SILL_OK && !sill__json_finish(&j)) s = sill__json_fail(&j, path, err);
    else if (s != SILL_OK) sill__fail_context(err, "%s", path);
    sill__free(data);
    return s;
}

/* config.json's ids, where the tokenizer's own files name none. eos_token_id may be a list: the first. */
static sill_status model_config_member(sill_tokenizer *t, const char *key, size_t n_key, sill__json *j, sill_error *err) {
    int32_t *id = !strcmp(key, "bos_token_id") ? &t->bos : !strcmp(key, "eos_token_id") ? &t->eos
                : !strcmp(key, "pad_token_id") ? &t->pad : NULL;
    int64_t v;
    sill__json at = *j;
    (void)n_key;
    (void)err;
    if (!id || *id >= 0) return SILL_OK;
    if (sill__json_peek(&at) == SILL__JSON_ARRAY && !(sill__json_enter(&at, SILL__JSON_ARRAY) && sill__json_next_element(&at)))
        return SILL_OK;
    if (sill__json_peek(&at) == SILL__JSON_NUMBER && sill__json_int(&at, &v) && v >= 0 && v < (int64_t)t->n) *id = (int32_t)v;
    return SILL_OK;
}

void sill__tok_default_ids(sill_tokenizer *t) {
    static const struct { const char *bos, *eos; } names[] = {
        {"<|endoftext|>", "<|endoftext|>"}, {"<s>", "</s>"}, {"<|begin_of_text|>", "<|end_of_text|>"},
    };
    for (size_t i = 0; i < SILL_ARRAY_LEN(names) && (t->bos < 0 || t->eos < 0); i++) {
        int32_t bos = sill__tokenizer_find(t, names[i].bos, strlen(names[i].bos));
        int32_t eos = sill__tokenizer_find(t, names[i].eos, strlen(names[i].eos));
        if (!sill__tokenizer_is_special(t, bos) || !sill__tokenizer_is_special(t, eos)) continue;
        if (t->bos < 0) t->bos = bos;
        if (t->eos < 0) t->eos = eos;
    }
    if (t->unk < 0) {
        int32_t unk = sill__tokenizer_find(t, "<unk>", 5);
        if (t->kind == SILL__TOK_BPE_SPM && sill__tokenizer_is_special(t, unk)) t->unk = unk;
    }
}

sill_status sill__tok_load_config(sill_tokenizer *t, const char *dir, sill_error *err) {
    char path[MAX_PATH], *data = NULL;
    size_t bytes = 0;
    sill_status s = SILL_OK;
    if (dir[0]) {
        s = sill__tok_each_member(t, dir, "tokenizer_config.json", config_member, err);
        if (s == SILL_OK) s = sill__tok_each_member(t, dir, "special_tokens_map.json", config_member, err);
        if (s == SILL_OK) s = sill__tok_each_member(t, dir, "config.json", model_config_member, err);
        if (s == SILL_OK && sill__path_join(path, sizeof path, dir, "chat_template.jinja") && sill__is_file(path)) {
            s = sill__read_file(path, TEMPLATE_MAX, &data, &bytes, err);
            if (s == SILL_OK && (s = sill__tok_set_template(t, data, bytes, err)) != SILL_OK) sill__tok_name_file(err, s, path);
            sill__free(data);
        }
    }
    if (s == SILL_OK) sill__tok_default_ids(t);
    return s;
}

/* ---- places */

/* DIR/NAME into PATH, true when it is a file. */
static bool there(char path[MAX_PATH], const char *dir, const char *name) {
    return sill__path_join(path, MAX_PATH, dir, name) && sill__is_file(path);
}

static sill_status load_dir(const char *dir, sill_tokenizer **out, sill_error *err) {
    static const char *const pairs[][2] = {{"vocab.json", "merges.txt"}, {"encoder.json", "vocab.bpe"}};
    char a[MAX_PATH], b[MAX_PATH];
    if (there(a, dir, "tokenizer.json")) return sill__tok_load_json(a, dir, out, err);
    for (size_t i = 0; i < SILL_ARRAY_LEN(pairs); i++)
        if (there(a, dir, pairs[i][0]) && there(b, dir, pairs[i][1])) return sill__tok_load_pair(a, b, dir, out, err);
    if (there(a, dir, "gpt2_tokenizer.bin")) return sill__tok_load_llmc(a, out, err);
    if (there(a, dir, "tokenizer.model"))
        return sill__fail(err, SILL_EUNSUPPORTED, "%s: a tokenizer.model alone is not read; tokenizer.json is needed "
                          "(transformers writes it: AutoTokenizer.from_pretrained(...).save_pretrained(...))", dir);
    if (there(a, dir, "vocab.txt"))
        return sill__fail(err, SILL_EUNSUPPORTED, "%s: vocab.txt belongs to a WordPiece tokenizer, which is not "
                          "supported; supported: byte-level BPE, SentencePiece BPE", dir);
    return sill__fail(err, SILL_ENOENT, "%s: no tokenizer.json, and no vocab.json with merges.txt", dir);
}

sill_status sill__tokenizer_from_file(const sill__file *file, sill_tokenizer **out, sill_error *err) {
    *out = NULL;
    if (sill__file_get_kind(file) == SILL__FILE_GGUF) return sill__tok_load_gguf(file, out, err);
    const char *dir = sill__file_dir(file);
    return load_dir(dir[0] ? dir : ".", out, err);
}

static sill_status load_gguf_path(const char *path, sill_tokenizer **out, sill_error *err) {
    sill__file *file;
    sill_status s = sill__file_open(path, &file, err);
    if (s != SILL_OK) return s;
    s = sill__tokenizer_from_file(file, out, err);
    sill__file_close(file);
    return s;
}

static const char *base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* The directory of PATH ("." where it names none). */
static bool dir_of(const char *path, char out[MAX_PATH]) {
    size_t n = (size_t)(base_name(path) - path);
    if (n >= MAX_PATH) return false;
    if (n == 0) return memcpy(out, ".", 2) != NULL;
    n -= n > 1;
    memcpy(out, path, n);
    out[n] = 0;
    return true;
}

/* A JSON file: tokenizer.json has a "model", a vocabulary has tokens. */
static sill_status load_json_path(const char *path, const char *dir, const char *head, size_t n, sill_tokenizer **out,
                                  sill_error *err) {
    sill__json j;
    char merges[MAX_PATH];
    const char *name = base_name(path);
    sill__json_init(&j, head, n);
    if (sill__json_find(&j, "model", "type", NULL) && sill__json_peek(&j) == SILL__JSON_STRING)
        return sill__tok_load_json(path, dir, out, err);
    if (there(merges, dir, strcmp(name, "encoder.json") ? "merges.txt" : "vocab.bpe"))
        return sill__tok_load_pair(path, merges, dir, out, err);
    return sill__fail(err, SILL_EFORMAT, "%s: not a tokenizer.json, and no merges.txt beside it", path);
}

sill_status sill_tokenizer_load(const char *path, sill_tokenizer **out, sill_error *err) {
    char dir[MAX_PATH];
    size_t i = 0;
    sill__map map;
    sill_status s;
    if (!path || !out) return sill__fail(err, SILL_EINVAL, "sill_tokenizer_load: a pointer is NULL");
    *out = NULL;
    if (sill__is_dir(path)) return load_dir(path, out, err);
    if (!dir_of(path, dir)) return sill__fail(err, SILL_EINVAL, "a path of more than %d bytes", MAX_PATH - 1);
    if ((s = sill__map_open(path, &map, err)) != SILL_OK) return s;
    bool gguf = map.bytes >= 4 && !memcmp(map.data, "GGUF", 4);
    while (i < map.bytes && (map.data[i] == ' ' || map.data[i] == '\n' || map.data[i] == '\r' || map.data[i] == '\t')) i++;
    bool json = i < map.bytes && map.data[i] == '{';
    bool merges = map.bytes >= 9 && !memcmp(map.data, "#version:", 9), llmc = sill__tok_is_llmc(&map);
    if (json) s = load_json_path(path, dir, (const char *)map.data, map.bytes, out, err);
    sill__map_close(&map);
    if (gguf) return load_gguf_path(path, out, err);
    if (llmc) return sill__tok_load_llmc(path, out, err);
    if (json) return s;
    if (merges) return sill__tok_load_pair(NULL, path, dir, out, err);
    return sill__fail(err, SILL_EFORMAT, "%s: not a tokenizer (tokenizer.json, vocab.json with merges.txt, a directory "
                      "with them, llm.c's gpt2_tokenizer.bin, or GGUF)", path);
}
