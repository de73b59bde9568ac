/*
 * model_dir.c - what is written beside weights, as transformers has it in a directory: the configuration, the tokenizer's files,
 * and where the weights themselves go.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#include "base/json.h"
#include "format/write.h"
#include "task/quantize.h"

#define SMALL_FILE_MAX ((size_t)512 << 20)

/* TEXT, a JSON object, with SAID as its first member and without members of the name KEY: of equal keys others take the last. */
static bool replace_member(const char *text, size_t n, const char *key, const char *said, sill__str *out) {
    sill__json j;
    char name[64];
    size_t length;
    sill__json_init(&j, text, n);
    if (!sill__json_enter(&j, SILL__JSON_OBJECT)) return false;
    const char *from = j.p, *last = from;
    sill__str_put(out, text, (size_t)(from - text));
    sill__str_puts(out, said);
    for (bool first = true; sill__json_next_member(&j, name, sizeof name, &length); first = false, last = from = j.p) {
        if (!sill__json_skip(&j)) break;
        if (length == strlen(key) && !memcmp(name, key, length)) continue;
        const char *comma = first ? NULL : memchr(from, ',', (size_t)(j.p - from));
        if (comma) from = comma + 1;
        sill__str_puts(out, ",");
        sill__str_put(out, from, (size_t)(j.p - from));
    }
    sill__str_put(out, last, (size_t)(text + n - last));
    return !j.message;
}

/* The configuration with what transformers needs to know of int8 weights. */
static sill_status write_int8_config(const char *text, size_t n, const char *from, const char *to, sill_error *err) {
    static const char said[] =
        "\n  \"quantization_config\": {\n    \"_load_in_4bit\": false,\n    \"_load_in_8bit\": true,\n"
        "    \"bnb_4bit_compute_dtype\": \"float32\",\n    \"bnb_4bit_quant_storage\": \"uint8\",\n    \"bnb_4bit_quant_type\": \"fp4\",\n"
        "    \"bnb_4bit_use_double_quant\": false,\n    \"llm_int8_enable_fp32_cpu_offload\": false,\n"
        "    \"llm_int8_has_fp16_weight\": false,\n    \"llm_int8_skip_modules\": null,\n    \"llm_int8_threshold\": 6.0,\n"
        "    \"load_in_4bit\": false,\n    \"load_in_8bit\": true,\n    \"quant_method\": \"bitsandbytes\"\n  }";
    sill__str s;
    sill_status st;
    sill__str_init(&s, n + sizeof said + 1);
    if (!replace_member(text, n, "quantization_config", said, &s)) st = sill__fail(err, SILL_EFORMAT, "%s is no JSON object", from);
    else if (s.failed) st = sill__fail(err, SILL_ENOMEM, "no memory for %s", from);
    else st = sill__put_file(to, s.p, s.n, err);
    sill__str_free(&s);
    return st;
}

/* config.json: the file's own, or DIR's. */
static sill_status write_config(const sill__file *f, const char *dir, const char *to_dir, bool int8, sill_error *err) {
    char from[SILL__OUT_PATH], to[SILL__OUT_PATH], *read = NULL;
    const char *text = sill__file_config(f);
    size_t n = text ? strlen(text) : 0;
    sill_status s = SILL_OK;
    if (!sill__path_join(from, sizeof from, dir, "config.json") || !sill__path_join(to, sizeof to, to_dir, "config.json"))
        return sill__fail(err, SILL_ERANGE, "%s: the path is too long", to_dir);
    if (!text) s = sill__read_file(from, SMALL_FILE_MAX, &read, &n, err);
    if (s == SILL_OK && !text) text = read;
    if (s == SILL_OK) s = int8 ? write_int8_config(text, n, from, to, err) : sill__put_file(to, text, n, err);
    sill__free(read);
    return s;
}

static bool has(const char *dir, const char *name) {
    char path[SILL__OUT_PATH];
    return sill__path_join(path, sizeof path, dir, name) && sill__is_file(path);
}

/* The file of DIR that is written as NAME: OpenAI's names of GPT-2's tokenizer are not read by transformers. */
static const char *source_of(const char *dir, const char *name) {
    const bool vocab = !strcmp(name, "vocab.json"), merges = !strcmp(name, "merges.txt");
    if ((!vocab && !merges) || has(dir, "tokenizer.json") || (has(dir, "vocab.json") && has(dir, "merges.txt")) ||
        !has(dir, "encoder.json") || !has(dir, "vocab.bpe"))
        return name;
    return vocab ? "encoder.json" : "vocab.bpe";
}

static bool is_weights(const char *name) { return !strcmp(name, "config.json") || !strcmp(name, "model.safetensors"); }

/* What belongs to the model, not to its tokenizer. */
static bool of_model(const char *name) { return is_weights(name) || !strcmp(name, "generation_config.json"); }

/* Copies DIR's files beside weights; *N of them are a tokenizer's. With TOKENIZER only those. */
static sill_status copy_files(const char *dir, const char *to_dir, bool tokenizer, int *n_copied, sill_error *err) {
    char from[SILL__OUT_PATH], to[SILL__OUT_PATH], *text;
    size_t n;
    sill_status s = SILL_OK;
    for (const char *const *name = sill__model_files; s == SILL_OK && *name; name++) {
        if (is_weights(*name) || of_model(*name) == tokenizer) continue;
        if (!sill__path_join(from, sizeof from, dir, source_of(dir, *name)) || !sill__is_file(from)) continue;
        if (!sill__path_join(to, sizeof to, to_dir, *name)) return sill__fail(err, SILL_ERANGE, "%s: the path is too long", to_dir);
        s = sill__read_file(from, SMALL_FILE_MAX, &text, &n, err);
        if (s == SILL_OK) {
            s = sill__put_file(to, text, n, err);
            sill__free(text);
            *n_copied += !strcmp(*name, "tokenizer.json") || !strcmp(*name, "vocab.json") || !strcmp(*name, "tokenizer.model");
        }
    }
    return s;
}

sill_status sill__model_dir_write(const sill__file *f, const char *tokenizer_path, const sill_tokenizer *tokenizer, const char *to_dir,
                                  bool int8, sill_error *err) {
    const char *dir = *sill__file_dir(f) ? sill__file_dir(f) : ".";
    int n = 0;
    sill_status s = write_config(f, dir, to_dir, int8, err);
    if (s == SILL_OK) s = copy_files(dir, to_dir, false, &n, err);
    if (s != SILL_OK) return s;
    n = 0;
    if (!tokenizer_path) s = copy_files(dir, to_dir, true, &n, err);
    else if (sill__is_dir(tokenizer_path)) s = copy_files(tokenizer_path, to_dir, true, &n, err);
    /* What no file says in transformers' words is written anew: llm.c's tokens, merges alone. */
    return s == SILL_OK && n == 0 && tokenizer ? sill__tokenizer_save_pair(tokenizer, to_dir, err) : s;
}

void sill__model_base_name(const char *path, char out[128]) {
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/') n--;
    size_t from = n;
    while (from > 0 && path[from - 1] != '/') from--;
    snprintf(out, 128, "%.*s", (int)SILL_MIN(n - from, (size_t)127), path + from);
    char *dot = strrchr(out, '.');
    if (dot && dot != out && (!strcmp(dot, ".gguf") || !strcmp(dot, ".safetensors"))) *dot = 0;
    sill__plain(out);
}

sill_status sill__output_weights(sill__output *o, sill__out **out, sill_error *err) {
    char weights[SILL__OUT_PATH];
    sill_status s = sill__output_claim(o, err);
    if (s != SILL_OK) return s;
    if (!o->directory) {
        int fd = fcntl(o->lock, F_DUPFD_CLOEXEC, 0);
        return fd < 0 ? sill__fail(err, SILL_EIO, "cannot write %s: %s", o->partial, strerror(errno))
                      : sill__out_adopt(fd, o->partial, out, err);
    }
    if (!sill__path_join(weights, sizeof weights, o->partial, "model.safetensors"))
        return sill__fail(err, SILL_ERANGE, "%s: the path is too long", o->partial);
    return sill__out_create(weights, out, err);
}
