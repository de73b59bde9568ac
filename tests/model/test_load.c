/*
 * test_load.c - loading: what is refused and with which words, what sill_model_get_info tells, files that were
 * cut or flipped, allocations that fail. Models: the tiny ones of tests/fixtures/model with edited configurations.
 */
#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include "rig.h"

static char dir[64]; /* a scratch directory, made anew for each model */

static void remove_dir(void) {
    static const char *const files[] = {"config.json", "generation_config.json", "model.safetensors", "model.gguf"};
    char path[128];
    if (!dir[0]) return;
    for (size_t i = 0; i < SILL_ARRAY_LEN(files); i++) {
        snprintf(path, sizeof path, "%s/%s", dir, files[i]);
        unlink(path);
    }
    rmdir(dir);
    dir[0] = 0;
}

static bool write_file(const char *name, const void *data, size_t n) {
    char path[128];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "wb");
    bool ok = f && fwrite(data, 1, n, f) == n;
    return f && fclose(f) == 0 && ok;
}

static char *read_fixture(const char *name, const char *file, size_t *n) {
    char path[256], *text = NULL;
    sill_error err = {0};
    snprintf(path, sizeof path, FIXTURES "%s%s%s", name, *file ? "/" : "", file);
    if (sill__read_file(path, 1 << 24, &text, n, &err) != SILL_OK) FAIL("%s", err.msg);
    return text;
}

/* The model NAME in the scratch directory, FROM replaced by TO in its config.json. */
static bool edited(const char *name, const char *from, const char *to) {
    size_t n, weights_n;
    bool ok = false;
    remove_dir();
    snprintf(dir, sizeof dir, "/tmp/sill-test-XXXXXX");
    if (!mkdtemp(dir)) {
        dir[0] = 0;
        FAIL("mkdtemp: %s", strerror(errno));
        return false;
    }
    char *text = read_fixture(name, "config.json", &n), *weights = read_fixture(name, "model.safetensors", &weights_n);
    char *at = text ? strstr(text, from) : NULL;
    sill__str s;
    sill__str_init(&s, 1 << 20);
    if (!at) FAIL("%s: no %s in config.json", name, from);
    if (at && weights) {
        sill__str_put(&s, text, (size_t)(at - text));
        sill__str_puts(&s, to);
        sill__str_puts(&s, at + strlen(from));
        ok = write_file("config.json", s.p, s.n) && write_file("model.safetensors", weights, weights_n);
        CHECK(ok);
    }
    sill__str_free(&s);
    sill__free(text);
    sill__free(weights);
    return ok;
}

static sill_status load(const char *path, sill_dtype dtype, uint64_t limit, sill_model **m, sill_error *err) {
    sill_model_options o = {.size = sizeof o, .device = "ref", .dtype = dtype, .memory_limit_bytes = limit};
    memset(err, 0, sizeof *err);
    return sill_model_load(path, &o, m, err);
}

/* Loading the scratch directory fails with this status and words. */
static void refused(sill_status status, const char *words) {
    sill_model *m = (sill_model *)&dir;
    sill_error err;
    sill_status s = load(dir, SILL_DTYPE_AUTO, 0, &m, &err);
    CHECK(m == NULL);
    if (s != status || err.code != s || !strstr(err.msg, words))
        FAIL("got \"%s\" (%s), expected %s and \"%s\"", err.msg, sill_status_text(s), sill_status_text(status), words);
}

static void refuse_edit(const char *name, const char *from, const char *to, sill_status status, const char *words) {
    if (edited(name, from, to)) refused(status, words);
}

static void test_families(void) {
    refuse_edit("gpt2-one", "\"gpt2\"", "\"qwen2\"", SILL_EUNSUPPORTED, "family \"qwen2\" are not supported; sill runs GPT-2 (gpt2) and Llama (llama)");
    refuse_edit("gpt2-one", "\"model_type\"", "\"modeltype\"", SILL_EFORMAT, "no model_type");
    refuse_edit("gpt2-one", "\"gelu_new\"", "\"mish\"", SILL_EUNSUPPORTED, "activation \"mish\"");
    refuse_edit("gpt2-one", "\"add_cross_attention\": false", "\"add_cross_attention\": true", SILL_EUNSUPPORTED, "cross-attention");
    refuse_edit("gpt2-one", "GPT2LMHeadModel", "GPT2ForTokenClassification", SILL_EUNSUPPORTED, "ForTokenClassification");
    refuse_edit("gpt2-one", "GPT2LMHeadModel", "GPT2ForSequenceClassification", SILL_EFORMAT, "score.weight is missing");
    refuse_edit("gpt2-one", "{", "{\"quantization_config\": {\"quant_method\": \"gptq\"},", SILL_EUNSUPPORTED, "gptq");
    refuse_edit("llama-gqa42", "\"silu\"", "\"gelu\"", SILL_EUNSUPPORTED, "hidden_act");
    refuse_edit("llama-linear", "\"linear\"", "\"yarn\"", SILL_EUNSUPPORTED, "\"yarn\" is not supported (default, linear and llama3 are)");
    refuse_edit("llama-linear", "\"factor\": 4.0", "\"partial_rotary_factor\": 0.5", SILL_EUNSUPPORTED, "partial_rotary_factor");
    refuse_edit("llama-linear", "\"factor\": 4.0", "\"factor\": 0", SILL_EFORMAT, "scaling factor");
    refuse_edit("llama-linear", "\"factor\": 4.0", "\"other\": 4.0", SILL_EFORMAT, "it is missing");
    refuse_edit("llama-llama3", "\"low_freq_factor\": 1.0", "\"low_freq_factor\": 4.0", SILL_EFORMAT, "low_freq_factor");
    refuse_edit("llama-gqa42", "{", "{\"rope_parameters\": \"linear\",", SILL_EFORMAT, "rope_parameters is not an object");
    refuse_edit("llama-gqa42", "{", "{\"rope_scaling\": [4],", SILL_EFORMAT, "rope_scaling is not an object");
    refuse_edit("gpt2-one", "\"gpt2\"", "\"gp\\u001b[31mt\"", SILL_EUNSUPPORTED, "family \"gp?[31mt\"");
    refuse_edit("gpt2-one", "\"n_positions\": 64", "\"n_positions\": -1", SILL_EFORMAT, "/config.json: the number of positions is -1");
    remove_dir();
}

static void test_shapes(void) {
    refuse_edit("gpt2-one", "\"n_inner\": 37", "\"n_inner\": 38", SILL_EFORMAT,
                "tensor transformer.h.0.mlp.c_fc.weight is [20,37], expected [20,38]");
    refuse_edit("gpt2-one", "\"n_layer\": 1", "\"n_layer\": 2", SILL_EFORMAT, "tensor transformer.h.1.ln_1.weight is missing");
    refuse_edit("gpt2-one", "\"vocab_size\": 101", "\"vocab_size\": 102", SILL_EFORMAT,
                "tensor transformer.wte.weight is [101,20], expected [102,20]");
    refuse_edit("gpt2-one", "\"n_positions\": 64", "\"n_positions\": 65", SILL_EFORMAT, "is [64,20], expected [65,20]");
    refuse_edit("llama-gqa42", "\"num_key_value_heads\": 2", "\"num_key_value_heads\": 4", SILL_EFORMAT,
                "tensor model.layers.0.self_attn.k_proj.weight is [12,24], expected [24,24]");
    refuse_edit("llama-gqa42", "\"attention_bias\": false", "\"attention_bias\": true", SILL_EFORMAT,
                "self_attn.q_proj.bias is missing");
    refuse_edit("llama-gqa93", "\"head_dim\": 6", "\"head_dim\": 8", SILL_EFORMAT, "q_proj.weight is [54,27], expected [72,27]");
    refuse_edit("llama-f16", "\"vocab_size\": 103", "\"vocab_size\": 104", SILL_EFORMAT, "embed_tokens.weight is [103,24]");
    remove_dir();
}

static void test_numbers(void) {
    static const char *const bad[] = {"0", "-1", "7", "1.5", "\"20\"", "[20]", "99999999999999999999", "1e308", "NaN", "2147483647"};
    static const char *const fields[][2] = {
        {"gpt2-one", "\"n_embd\": 20"}, {"gpt2-one", "\"n_head\": 4"}, {"gpt2-one", "\"n_layer\": 1"},
        {"gpt2-one", "\"n_inner\": 37"}, {"gpt2-one", "\"vocab_size\": 101"}, {"gpt2-one", "\"n_positions\": 64"},
        {"llama-gqa42", "\"hidden_size\": 24"}, {"llama-gqa42", "\"num_attention_heads\": 4"},
        {"llama-gqa42", "\"num_key_value_heads\": 2"}, {"llama-gqa42", "\"head_dim\": 6"},
        {"llama-gqa42", "\"intermediate_size\": 33"}, {"llama-gqa42", "\"rope_theta\": 10000.0"},
        {"llama-gqa42", "\"rms_norm_eps\": 1e-05"},
    };
    for (size_t i = 0; i < SILL_ARRAY_LEN(fields); i++)
        for (size_t k = 0; k < SILL_ARRAY_LEN(bad); k++) {
            char to[128];
            sill_model *m;
            sill_error err;
            /* Smaller tables than stored are allowed, a rotary base and an epsilon may be many numbers. */
            bool allowed = (strstr(fields[i][1], "vocab") || strstr(fields[i][1], "positions") || strstr(fields[i][1], "rope_theta")) && !strcmp(bad[k], "7");
            allowed = allowed || (strstr(fields[i][1], "rope_theta") && (!strcmp(bad[k], "1.5") || !strcmp(bad[k], "2147483647")));
            allowed = allowed || (strstr(fields[i][1], "eps") && !strcmp(bad[k], "0"));
            snprintf(to, sizeof to, "%.*s%s", (int)(strchr(fields[i][1], ':') - fields[i][1] + 1), fields[i][1], bad[k]);
            if (!edited(fields[i][0], fields[i][1], to)) continue;
            sill_status s = load(dir, SILL_DTYPE_AUTO, 0, &m, &err);
            if (allowed ? s != SILL_OK : s != SILL_EFORMAT && s != SILL_EUNSUPPORTED)
                FAIL("%s with %s: %s (%s)", fields[i][0], to, sill_status_text(s), err.msg);
            sill_model_free(m);
        }
    remove_dir();
}

static void test_files(void) {
    sill_model *m;
    sill_error err;
    char path[128];
    CHECK_INT(load("/nonexistent", SILL_DTYPE_AUTO, 0, &m, &err), SILL_ENOENT);
    CHECK(strstr(err.msg, "/nonexistent") != NULL);
    CHECK_INT(load("", SILL_DTYPE_AUTO, 0, &m, &err), SILL_EINVAL);
    CHECK_INT(load("tests", SILL_DTYPE_AUTO, 0, &m, &err), SILL_ENOENT);
    if (edited("gpt2-one", "{", "{")) {
        snprintf(path, sizeof path, "%s/config.json", dir);
        unlink(path);
        refused(SILL_ENOENT, "no config.json");
    }
    sill_model_options o = {.size = 0};
    CHECK_INT(sill_model_load(FIXTURES "gpt2-one", &o, &m, &err), SILL_EINVAL);
    o = (sill_model_options){.size = sizeof o, .device = "abacus"};
    CHECK_INT(sill_model_load(FIXTURES "gpt2-one", &o, &m, &err), SILL_EUNSUPPORTED);
    CHECK(strstr(err.msg, "abacus") != NULL);
    o = (sill_model_options){.size = sizeof o, .device = "ref", .n_threads = -1};
    CHECK_INT(sill_model_load(FIXTURES "gpt2-one", &o, &m, &err), SILL_EINVAL);
    /* A .safetensors file with its configuration beside it. */
    CHECK_INT(load(FIXTURES "gpt2-one/model.safetensors", SILL_DTYPE_AUTO, 0, &m, &err), SILL_OK);
    sill_model_free(m);
    sill_model_free(NULL);
    remove_dir();
}

static void test_types(void) {
    static const struct { const char *name; sill_dtype dtype; const char *stored, *computed; } good[] = {
        {"gpt2-one", SILL_DTYPE_AUTO, "F32", "f32"},       {"gpt2-one", SILL_DTYPE_BF16, "F32", "bf16"},
        {"gpt2-f16", SILL_DTYPE_AUTO, "F16", "f16"},       {"gpt2-f16", SILL_DTYPE_F32, "F16", "f32"},
        {"gpt2-bf16", SILL_DTYPE_AUTO, "BF16", "bf16"},    {"gpt2-bf16", SILL_DTYPE_F16, "BF16", "f16"},
        {"gpt2-q8-gguf.gguf", SILL_DTYPE_AUTO, "Q8_0", "q8_0+int8"}, {"gpt2-q8-gguf.gguf", SILL_DTYPE_F32, "Q8_0", "f32"},
        {"llama-k-gguf.gguf", SILL_DTYPE_AUTO, "Q4_K", "q4_k+int8"},
        {"gpt2-one", SILL_DTYPE_Q8, "F32", "q8+int8"}, {"gpt2-f16", SILL_DTYPE_Q4, "F16", "q4+int8"},
        {"gpt2-bf16", SILL_DTYPE_INT8, "BF16", "int8"},
    };
    sill_model *m;
    sill_error err;
    char path[128];
    for (size_t i = 0; i < SILL_ARRAY_LEN(good); i++) {
        sill_model_info info;
        snprintf(path, sizeof path, FIXTURES "%s", good[i].name);
        sill_status s = load(path, good[i].dtype, 0, &m, &err);
        CHECK_OK(s, err);
        if (s != SILL_OK) continue;
        sill_model_get_info(m, &info, sizeof info);
        CHECK_STR(info.stored_type, good[i].stored);
        CHECK_STR(info.dtype, good[i].computed);
        CHECK_STR(info.device, "ref");
        sill_model_free(m);
    }
    static const struct { sill_dtype dtype; const char *name; } floats[] = {{SILL_DTYPE_F16, "f16"}, {SILL_DTYPE_BF16, "bf16"},
        {SILL_DTYPE_Q8, "q8"}, {SILL_DTYPE_Q4, "q4"}, {SILL_DTYPE_INT8, "int8"}};
    for (size_t i = 0; i < SILL_ARRAY_LEN(floats); i++) {
        snprintf(path, sizeof path, "quantized as Q8_0: dtype %s is for floating-point", floats[i].name);
        CHECK_INT(load(FIXTURES "gpt2-q8-gguf.gguf", floats[i].dtype, 0, &m, &err), SILL_EINVAL);
        CHECK(strstr(err.msg, path) != NULL);
    }
    CHECK_INT(load(FIXTURES "gpt2-one", (sill_dtype)99, 0, &m, &err), SILL_EINVAL);
}

static void test_memory_limit(void) {
    sill_model *m;
    sill_error err;
    sill_model_info info;
    REQUIRE(load(FIXTURES "llama-k-gguf.gguf", SILL_DTYPE_AUTO, 1 << 20, &m, &err) == SILL_OK);
    sill_model_get_info(m, &info, sizeof info);
    sill_model_free(m);
    CHECK(info.weight_bytes > 200000 && info.weight_bytes < 400000);
    CHECK_INT(load(FIXTURES "llama-k-gguf.gguf", SILL_DTYPE_AUTO, info.weight_bytes, &m, &err), SILL_OK);
    sill_model_free(m);
    CHECK_INT(load(FIXTURES "llama-k-gguf.gguf", SILL_DTYPE_AUTO, info.weight_bytes - 1, &m, &err), SILL_ENOFIT);
    CHECK(m == NULL && strstr(err.msg, "need 0.3 MiB") && strstr(err.msg, "0.3 MiB are allowed") && strstr(err.msg, "smaller model"));
    /* On a device that packs, bf16 halves an f32 checkpoint: the message says so. */
    sill_model_options o = {.size = sizeof o, .device = "cpu", .memory_limit_bytes = 1000};
    CHECK_INT(sill_model_load(FIXTURES "gpt2-one", &o, &m, &err), SILL_ENOFIT);
    CHECK(strstr(err.msg, "dtype bf16 would need") != NULL);
}

static void test_info(void) {
    sill_model *m;
    sill_error err;
    sill_model_info i;
    REQUIRE(load(FIXTURES "llama-gqa93", SILL_DTYPE_AUTO, 0, &m, &err) == SILL_OK);
    sill_model_get_info(m, &i, sizeof i);
    CHECK_STR(i.family, "llama");
    CHECK_INT(i.n_layers, 2);
    CHECK_INT(i.n_heads, 9);
    CHECK_INT(i.n_kv_heads, 3);
    CHECK_INT(i.head_dim, 6);
    CHECK_INT(i.n_embd, 27);
    CHECK_INT(i.n_ff, 33);
    CHECK_INT(i.n_ctx, 64);
    CHECK_INT(i.n_vocab, 103);
    CHECK_INT(i.bos_id, 1);
    CHECK_INT(i.eos_id, 2);
    CHECK_INT(i.pad_id, -1);
    CHECK_INT(i.n_labels, 0);
    CHECK_INT(i.n_params, 2 * 103 * 27 + 27 + 2 * (2 * 27 + 54 * 27 + 2 * 18 * 27 + 27 * 54 + 3 * 33 * 27));
    CHECK(sill_model_label(m, 0) == NULL);
    char few[20];
    memset(few, 'x', sizeof few);
    sill_model_get_info(m, (sill_model_info *)(void *)few, 8);
    CHECK(!memcmp(few, "llama\0\0\0xxx", 11));
    sill_model_free(m);
    /* A tied head is counted once, and an explicit but equal one is not asked for. */
    REQUIRE(load(FIXTURES "llama-gqa42", SILL_DTYPE_AUTO, 0, &m, &err) == SILL_OK);
    sill_model_get_info(m, &i, sizeof i);
    CHECK_INT(i.n_params, 103 * 24 + 24 + 2 * (2 * 24 + 2 * 24 * 24 + 2 * 12 * 24 + 3 * 33 * 24));
    sill_model_free(m);
}

static void test_labels(void) {
    sill_model *m;
    sill_error err;
    REQUIRE(load(FIXTURES "gpt2-class", SILL_DTYPE_AUTO, 0, &m, &err) == SILL_OK);
    CHECK_INT(m->config.n_labels, 3);
    CHECK_INT(m->config.problem, SILL__PROBLEM_SINGLE);
    CHECK_STR(sill_model_label(m, 0), "negative");
    CHECK_STR(sill_model_label(m, 2), "very \"positive\" \xc3\xbc");
    CHECK(sill_model_label(m, 3) == NULL && sill_model_label(m, -1) == NULL);
    sill_model_free(m);
    REQUIRE(load(FIXTURES "llama-class", SILL_DTYPE_AUTO, 0, &m, &err) == SILL_OK);
    CHECK_INT(m->config.problem, SILL__PROBLEM_MULTI);
    CHECK_STR(sill_model_label(m, 1), "LABEL_1");
    sill_model_free(m);
    if (edited("llama-class", "multi_label_classification", "regression")) {
        REQUIRE(load(dir, SILL_DTYPE_AUTO, 0, &m, &err) == SILL_OK);
        CHECK_INT(m->config.problem, SILL__PROBLEM_REGRESSION);
        sill_model_free(m);
    }
    refuse_edit("llama-class", "multi_label_classification", "ranking", SILL_EFORMAT, "problem_type");
    refuse_edit("gpt2-class", "\"2\": \"very", "\"3\": \"very", SILL_EFORMAT, "id2label");
    refuse_edit("gpt2-class", "\"1\": \"neutral\"", "\"1\": 5", SILL_EFORMAT, "id2label");
    refuse_edit("gpt2-class", "\"1\": \"neutral\"", "\"0\": \"again\"", SILL_EFORMAT, "id2label");
    remove_dir();
}

static void test_ends_of_text(void) {
    sill_model *m;
    sill_error err;
    /* what generation_config.json names replaces config.json's; where it names none, those stay */
    static const char *const generation[] = {"{\"eos_token_id\": [7, 2, 999999, 3]}", "{\"eos_token_id\": 7}",
                                             "{\"eos_token_id\": null}", "{}"};
    static const char *const ends[] = {"[7, 2, 3]", "[7]", "[2, 5]", "[2, 5]"};
    for (size_t i = 0; i < SILL_ARRAY_LEN(generation); i++) {
        char wanted[64], *json = NULL;
        if (!edited("llama-gqa42", "\"eos_token_id\": 2", "\"eos_token_id\": [2, 5]")) return;
        CHECK(write_file("generation_config.json", generation[i], strlen(generation[i])));
        REQUIRE(load(dir, SILL_DTYPE_AUTO, 0, &m, &err) == SILL_OK);
        for (int32_t id = 0; id < 103; id++) {
            bool end = (id == 2 && i != 1) || (id == 5 && i > 1) || (id == 7 && i < 2) || (id == 3 && i == 0);
            if (sill__model_is_eos(m, id) != end) FAIL("%s: id %d: %s", generation[i], id, end ? "is an end" : "is no end");
        }
        sill_model_free(m); /* 999999 is no token of this model */
        CHECK_OK(sill_inspect(dir, &json, &err), err);
        snprintf(wanted, sizeof wanted, "\"eos_ids\": %s", ends[i]);
        if (!json || !strstr(json, wanted)) FAIL("%s: no %s in what inspect tells", generation[i], wanted);
        sill_free(json);
    }
    /* A chat template adds the end of a turn, and none of the other usual ends that a vocabulary may hold. */
    static const char chatml[] = "{\"chat_template\": \"<|im_start|>{{ role }}<|im_end|>\"}";
    static const char tokens[] = "{\"added_tokens\": [{\"id\": 0, \"content\": \"<|endoftext|>\", \"special\": true}, "
                                 "{\"id\": 1, \"content\": \"<|im_start|>\", \"special\": true}, "
                                 "{\"id\": 2, \"content\": \"<|im_end|>\", \"special\": true}], \"pre_tokenizer\": "
                                 "{\"type\": \"ByteLevel\", \"add_prefix_space\": false}, \"decoder\": {\"type\": \"ByteLevel\"}, "
                                 "\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 3}, \"merges\": []}}";
    if (edited("llama-gqa42", "\"eos_token_id\": 2", "\"eos_token_id\": 5")) {
        CHECK(write_file("tokenizer.json", tokens, strlen(tokens)));
        CHECK(write_file("tokenizer_config.json", chatml, strlen(chatml)));
        CHECK_INT(load(dir, SILL_DTYPE_AUTO, 0, &m, &err), SILL_OK);
        REQUIRE(m);
        CHECK(sill__model_is_eos(m, 5) && sill__model_is_eos(m, 2) && !sill__model_is_eos(m, 0));
        sill_model_free(m);
    }
    if (edited("llama-gqa42", "\"eos_token_id\": 2", "\"eos_token_id\": null")) {
        REQUIRE(load(dir, SILL_DTYPE_AUTO, 0, &m, &err) == SILL_OK);
        CHECK_INT(m->config.n_eos, 0);
        sill_model_free(m);
    }
    refuse_edit("llama-gqa42", "\"eos_token_id\": 2", "\"eos_token_id\": \"</s>\"", SILL_EFORMAT, "eos_token_id");
    if (edited("llama-gqa42", "{", "{") && write_file("generation_config.json", "{\"eos", 5)) refused(SILL_EFORMAT, "generation_config.json");
    remove_dir();
}

/* Gate and up of one layer must be stored alike: the type of one F16 tensor is renamed to BF16, of the same size. */
static void test_gate_and_up_types(void) {
    static const char name[] = "blk.1.ffn_up.weight";
    size_t n;
    char *data = read_fixture("llama-plain-gguf.gguf", "", &n), path[128];
    if (!data || !edited("gpt2-one", "{", "{")) return;
    char *at = memmem(data, n, name, sizeof name - 1);
    REQUIRE(at != NULL);
    at += sizeof name - 1 + 4 + 2 * 8; /* name, number of dimensions, two dimensions */
    CHECK_INT(*at, 1);
    *at = 30;
    CHECK(write_file("model.gguf", data, n));
    sill_model *m;
    sill_error err;
    snprintf(path, sizeof path, "%s/model.gguf", dir);
    CHECK_INT(load(path, SILL_DTYPE_AUTO, 0, &m, &err), SILL_EUNSUPPORTED);
    CHECK(strstr(err.msg, "blk.1.ffn_gate.weight (F16) and blk.1.ffn_up.weight (BF16) must have one type") != NULL);
    sill__free(data);
    remove_dir();
}

static int n_lines;
static char last_line[512];
static void on_log(void *user, int level, const char *line) {
    (void)user;
    (void)level;
    n_lines++;
    snprintf(last_line, sizeof last_line, "%s", line);
}

static void test_unused_tensors(void) {
    sill_model *m;
    sill_error err;
    sill_set_log(on_log, NULL);
    n_lines = 0;
    CHECK_INT(load(FIXTURES "gpt2-bare", SILL_DTYPE_AUTO, 0, &m, &err), SILL_OK); /* has the old mask buffers */
    sill_model_free(m);
    CHECK_INT(n_lines, 0);
    if (edited("llama-gqa42", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1")) {
        CHECK_INT(load(dir, SILL_DTYPE_AUTO, 0, &m, &err), SILL_OK);
        sill_model_free(m);
        CHECK_INT(n_lines, 1);
        CHECK(strstr(last_line, "9 tensors are not used") && strstr(last_line, "model.layers.1."));
    }
    sill_set_log(NULL, NULL);
    remove_dir();
}

/* ---- hostile files */

static void try_config(const char *text, size_t n, size_t *loaded, const char *what, size_t at) {
    sill_model *m = NULL;
    sill_error err;
    if (!write_file("config.json", text, n)) FAIL("cannot write");
    sill_status s = load(dir, SILL_DTYPE_AUTO, 0, &m, &err);
    if ((s == SILL_OK) != (m != NULL) || (s != SILL_OK && !err.msg[0])) FAIL("%s %zu: status %d without a message", what, at, s);
    if (s == SILL_OK && loaded) (*loaded)++;
    sill_model_free(m);
}

static void test_cut_config(void) {
    static const char *const names[] = {"gpt2-class", "llama-llama3"};
    for (size_t k = 0; k < 2; k++) {
        size_t n, loaded = 0;
        char *text = read_fixture(names[k], "config.json", &n);
        if (!text || !edited(names[k], "{", "{")) continue;
        while (n > 0 && strchr(" \n", text[n - 1])) n--;
        for (size_t cut = 0; cut < n; cut++) try_config(text, cut, &loaded, "cut at", cut);
        CHECK_INT(loaded, 0);
        sill__free(text);
    }
    remove_dir();
}

static void test_flipped_config(void) {
    static const char *const names[] = {"gpt2-class", "llama-llama3"};
    uint64_t state = 5;
    for (size_t k = 0; k < 2; k++) {
        size_t n;
        char *text = read_fixture(names[k], "config.json", &n);
        if (!text || !edited(names[k], "{", "{")) continue;
        for (int i = 0; i < 5000; i++) {
            size_t at = test_random(&state) % n, bit = test_random(&state) % 8;
            text[at] = (char)(text[at] ^ (1 << bit));
            try_config(text, n, NULL, "flip at", at);
            text[at] = (char)(text[at] ^ (1 << bit));
        }
        sill__free(text);
    }
    remove_dir();
}

/* Metadata, names and shapes of a GGUF are in its first kilobytes. */
static void test_flipped_gguf(void) {
    size_t n;
    uint64_t state = 9;
    char *data = read_fixture("gpt2-q8-gguf.gguf", "", &n), path[128];
    if (!data || !edited("gpt2-one", "{", "{")) return;
    snprintf(path, sizeof path, "%s/model.gguf", dir);
    for (int i = 0; i < 10000; i++) {
        sill_model *m;
        sill_error err;
        size_t at = test_random(&state) % (i % 10 ? SILL_MIN(n, (size_t)2500) : n), bit = test_random(&state) % 8;
        data[at] = (char)(data[at] ^ (1 << bit));
        CHECK(write_file("model.gguf", data, n));
        sill_status s = load(path, SILL_DTYPE_AUTO, 0, &m, &err);
        if ((s == SILL_OK) != (m != NULL) || (s != SILL_OK && !err.msg[0])) FAIL("flip at %zu: status %d", at, s);
        sill_model_free(m);
        data[at] = (char)(data[at] ^ (1 << bit));
    }
    sill__free(data);
    remove_dir();
}

static void fail_allocations(const char *name, const char *device) {
    char path[128];
    snprintf(path, sizeof path, FIXTURES "%s", name);
    for (uint64_t i = 1;; i++) {
        sill_model *m = NULL;
        sill_error err = {0};
        sill_model_options o = {.size = sizeof o, .device = device, .n_threads = 2};
        sill__alloc_fail_at(i);
        sill_status s = sill_model_load(path, &o, &m, &err);
        sill__alloc_fail_at(0);
        if (s == SILL_OK) {
            sill_model_free(m);
            if (i < 20) FAIL("%s: loads in %llu allocations", name, (unsigned long long)i);
            return;
        }
        if (m || !err.msg[0]) FAIL("%s: allocation %llu failed: status %d", name, (unsigned long long)i, s);
        if (i > 100000) {
            FAIL("%s: never loads", name);
            return;
        }
    }
}

static void test_allocations(void) {
    static const char *const names[] = {"gpt2-class", "gpt2-shards", "llama-gqa42", "llama-mixed-gguf.gguf"};
    for (size_t i = 0; i < SILL_ARRAY_LEN(names); i++) {
        fail_allocations(names[i], "ref");
        fail_allocations(names[i], "cpu");
    }
}

static void test_inspect(void) {
    char *json = NULL;
    sill_error err = {0};
    REQUIRE(sill_inspect(FIXTURES "llama-blocks-gguf.gguf", &json, &err) == SILL_OK);
    CHECK(strstr(json, "\"family\": \"llama\"") && strstr(json, "\"name\": \"blk.1.attn_q.weight\", \"type\": \"Q4_1\", \"shape\": [32, 32]"));
    CHECK(strstr(json, "\"llama.attention.head_count_kv\": 2") != NULL);
    sill_free(json);
    REQUIRE(sill_inspect(FIXTURES "gpt2-class", &json, &err) == SILL_OK);
    CHECK(strstr(json, "\"labels\": [\"negative\", \"neutral\", \"very \\\"positive\\\" \xc3\xbc\"]") != NULL);
    sill_free(json);
    if (edited("gpt2-one", "\"gpt2\"", "\"bert\"")) {
        REQUIRE(sill_inspect(dir, &json, &err) == SILL_OK);
        CHECK(strstr(json, "\"family\": null, \"unsupported\": ") && strstr(json, "\\\"bert\\\""));
        sill_free(json);
    }
    CHECK_INT(sill_inspect("/nonexistent", &json, &err), SILL_ENOENT);
    CHECK(json == NULL);
    remove_dir();
}

int main(int argc, char **argv) {
    TEST(test_families);
    TEST(test_shapes);
    TEST(test_numbers);
    TEST(test_files);
    TEST(test_types);
    TEST(test_memory_limit);
    TEST(test_info);
    TEST(test_labels);
    TEST(test_ends_of_text);
    TEST(test_gate_and_up_types);
    TEST(test_unused_tensors);
    TEST(test_cut_config);
    TEST(test_flipped_config);
    TEST(test_flipped_gguf);
    TEST(test_allocations);
    TEST(test_inspect);
    TEST_EXIT();
}
