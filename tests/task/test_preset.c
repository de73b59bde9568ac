/*
 * test_preset.c - sill_generate_preset: what the pipelines of transformers 4.57 and 5.23 would take for small models with
 * all sorts of files (tools/fixtures/make_presets.py), files that lie, and what the call leaves alone.
 */
#include "records.h"

#include <float.h>
#include <limits.h>
#include <unistd.h>

static char dir[PATH_MAX - 64];

static void put_file(const char *name, const char *text) {
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    REQUIRE(f);
    CHECK(fputs(text, f) >= 0);
    CHECK(fclose(f) == 0);
}

static void drop_file(const char *name) {
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    unlink(path);
}

/* The directory becomes the weights of BASE with these files. */
static bool make_dir(const char *base, const char *config, const char *generation) {
    char from[PATH_MAX], real[PATH_MAX], to[PATH_MAX];
    snprintf(from, sizeof from, "tests/fixtures/%s/model.safetensors", base);
    snprintf(to, sizeof to, "%s/model.safetensors", dir);
    unlink(to);
    drop_file("generation_config.json");
    if (!realpath(from, real) || symlink(real, to) != 0) {
        FAIL("no link to %s", from);
        return false;
    }
    put_file("config.json", config);
    if (generation) put_file("generation_config.json", generation);
    return true;
}

static sill_status load(sill_model **m, sill_error *err) {
    sill_model_options o = {.size = sizeof o, .device = "ref", .n_threads = 1, .no_cache = 1};
    return sill_model_load(dir, &o, m, err);
}

/* What an option of transformers is for us; those that do nothing may be written in two ways. */
static double effect(const char *name, double v) {
    bool none = isnan(v);
    if (!strcmp(name, "top_k")) return none || v <= 0 ? 0 : v;
    if (!strcmp(name, "top_p")) return none || v >= 1 ? 1 : SILL_MAX((float)v, FLT_MIN);
    if (!strcmp(name, "typical_p")) return none || v >= 1 || v == 0 ? 0 : v;
    if (!strcmp(name, "temperature") || !strcmp(name, "repetition_penalty") || !strcmp(name, "num_return_sequences") ||
        !strcmp(name, "num_beams") || !strcmp(name, "length_penalty")) return none ? 1 : v;
    if (!strcmp(name, "epsilon_cutoff") || !strcmp(name, "eta_cutoff")) return v > 0 && v < 1 ? v : 0;
    return none || v < 0 ? 0 : v;
}

static void put_ids(sill__str *s, const int32_t *ids, size_t n) {
    for (size_t i = 0; i < n; i++) sill__str_putf(s, "%s%d", i ? ", " : "[", ids[i]);
    sill__str_puts(s, n ? "]" : "[]");
}

/* Lists as Python's json.dumps has them; where there is nothing, null and an empty list are the same. */
static void check_list(const rec *r, const char *name, sill__str *ours) {
    char want[256];
    const char *theirs = rec_text(r, name);
    if (!theirs) FAIL("%s: no %s", rec_text(r, "name"), name);
    snprintf(want, sizeof want, "%s", theirs && strcmp(theirs, "-") ? theirs : "[]");
    char *empty = strstr(want, ", []"); /* a word of no ids, which forbids nothing */
    if (empty) memmove(empty, empty + 4, strlen(empty + 4) + 1);
    if (strcmp(ours->p, want) != 0) FAIL("%s: %s is %s, expected %s", rec_text(r, "name"), name, ours->p, want);
    sill__str_clear(ours);
}

static void check_lists(const rec *r, const sill_generate_options *o) {
    sill__str s;
    sill__str_init(&s, 4096);
    put_ids(&s, o->suppress_tokens, o->n_suppress);
    check_list(r, "suppress_tokens", &s);
    put_ids(&s, o->begin_suppress_tokens, o->n_begin_suppress);
    check_list(r, "begin_suppress_tokens", &s);
    for (size_t i = 0, at = 0; i < o->n_bad_words; at = o->bad_word_ends[i++]) {
        sill__str_puts(&s, i ? ", " : "[");
        put_ids(&s, o->bad_words + at, o->bad_word_ends[i] - at);
    }
    sill__str_puts(&s, o->n_bad_words ? "]" : "[]");
    check_list(r, "bad_words_ids", &s);
    for (size_t i = 0, at = 0; i < o->n_bias_words; at = o->bias_word_ends[i++]) {
        sill__str_puts(&s, i ? ", [" : "[[");
        put_ids(&s, o->bias_words + at, o->bias_word_ends[i] - at);
        if (isinf(o->bias_word_values[i])) sill__str_puts(&s, ", -Infinity]");
        else sill__str_putf(&s, ", %.1f]", (double)o->bias_word_values[i]);
    }
    sill__str_puts(&s, o->n_bias_words ? "]" : "[]");
    check_list(r, "sequence_bias", &s);
    sill__str_free(&s);
}

static void check_case(const rec *r, const sill_generate_options *o) {
    const struct { const char *name; double ours; bool drawn; } all[] = {
        {"max_new_tokens", o->max_new_tokens, false}, {"max_length", o->max_length, false},
        {"min_new_tokens", o->min_new_tokens, false}, {"do_sample", o->do_sample, false},
        {"temperature", o->temperature, true}, {"top_k", o->top_k < 0 ? 0 : o->top_k, true}, {"top_p", o->top_p, true},
        {"min_p", o->min_p, true}, {"typical_p", o->typical_p, true}, {"epsilon_cutoff", o->epsilon_cutoff, true},
        {"eta_cutoff", o->eta_cutoff, true}, {"repetition_penalty", o->repetition_penalty, false},
        {"no_repeat_ngram_size", o->no_repeat_ngram_size, false}, {"num_return_sequences", o->num_return_sequences, false},
        {"num_beams", SILL_MAX(1, o->num_beams), false},
        {"length_penalty", isnan(o->length_penalty) ? 0 : o->length_penalty == 0 ? 1 : (double)o->length_penalty, false},
        {"early_stopping", o->early_stopping, false}, {"min_length", o->min_length, false}};
    const bool beams = o->num_beams > 1;
    for (size_t i = 0; i < SILL_ARRAY_LEN(all); i++) {
        const char *s = rec_text(r, all[i].name);
        if (!s) {
            FAIL("%s: no %s", rec_text(r, "name"), all[i].name);
            continue;
        }
        if (all[i].drawn && !o->do_sample) continue; /* of no effect */
        if (!beams && (!strcmp(all[i].name, "length_penalty") || !strcmp(all[i].name, "early_stopping"))) continue;
        if (!strcmp(all[i].name, "min_length") && strcmp(rec_text(r, "min_new_tokens"), "-")) s = "0"; /* which wins */
        double want = effect(all[i].name, strcmp(s, "-") ? strtod(s, NULL) : (double)NAN);
        if ((float)all[i].ours != (float)want) FAIL("%s: %s is %g, expected %g", rec_text(r, "name"), all[i].name, all[i].ours, want);
    }
}

static void compare(const char *name, const char *file) {
    recs rs = {0};
    size_t n;
    sill_error err = {0};
    int cases = 0, refusals = 0, lists = 0;
    if (sill__read_file(file, (size_t)1 << 20, &rs.text, &n, &err) != SILL_OK) {
        FAIL("%s", err.msg);
        return;
    }
    rs.at = rs.text;
    while (recs_next(&rs, "preset")) {
        const rec *r = &rs.now;
        const char *generation = rec_text(r, "generation"), *title = rec_text(r, "name");
        sill_model *m = NULL;
        sill_generate_options o = {.size = sizeof o};
        cases++;
        if (!make_dir(rec_text(r, "base"), rec_text(r, "config"), strcmp(generation, "-") ? generation : NULL)) break;
        sill_status s = load(&m, &err);
        if (s == SILL_OK) s = sill_generate_preset(m, name, &o, &err);
        if (rec_number(r, "refused") == 1) {
            refusals++;
            if (s != SILL_EFORMAT) FAIL("%s: status %d, expected a refusal", title, s);
        } else if (s != SILL_OK) {
            FAIL("%s: %s", title, err.msg);
        } else {
            check_case(r, &o);
            check_lists(r, &o);
            lists += o.n_bad_words + o.n_bias_words + o.n_suppress + o.n_begin_suppress > 0;
        }
        sill_model_free(m);
    }
    recs_close(&rs);
    CHECK(cases >= 40);
    CHECK(refusals >= 3 && refusals < cases / 4);
    CHECK(lists >= 8);
}

static void hf_4(void) { compare("hf-4", FIXTURES "presets-hf-4.txt"); }
static void hf_5(void) { compare("hf-5", FIXTURES "presets-hf-5.txt"); }
static void hf_5_generate(void) { compare("hf-5-generate", FIXTURES "presets-hf-5-generate.txt"); }

/* ------------------------------------------------------ files that lie */

#define CONFIG "{\"model_type\": \"gpt2\", \"n_embd\": 28, \"n_head\": 2, \"n_layer\": 2, \"n_positions\": 192, \"vocab_size\": 340%s}"

static sill_status with(const char *name, const char *in_config, const char *generation, sill_generate_options *o, sill_error *err) {
    char config[4096];
    sill_model *m = NULL;
    snprintf(config, sizeof config, CONFIG, in_config);
    *o = (sill_generate_options){.size = sizeof *o, .seed = 7};
    *err = (sill_error){0};
    if (!make_dir("task/gpt2", config, generation)) return SILL_EINTERNAL;
    sill_status s = load(&m, err);
    CHECK_OK(s, *err);
    if (s == SILL_OK) s = sill_generate_preset(m, name, o, err);
    if (s != SILL_OK) {
        CHECK(err->code == s && strlen(err->msg) > 8);
        CHECK(o->seed == 7 && !o->do_sample && !o->max_new_tokens && !o->temperature); /* as it was */
    }
    sill_model_free(m);
    return s;
}

/* Both presets refuse it, and say which parameter of which file. */
static void refused(const char *in_config, const char *generation, sill_status code, const char *says) {
    sill_generate_options o;
    sill_error err;
    static const char *const presets[] = {"hf-4", "hf-5"};
    for (size_t i = 0; i < SILL_ARRAY_LEN(presets); i++) {
        sill_status s = with(presets[i], in_config, generation, &o, &err);
        if (s != code || !strstr(err.msg, says))
            FAIL("%s%s: %s: status %d %s, expected %d and '%s'", in_config, generation ? generation : "", presets[i], s, err.msg, code, says);
    }
}

static void hostile_values(void) {
    refused("", "{\"temperature\": \"hot\"}", SILL_EFORMAT, "generation_config.json: temperature is not");
    refused("", "{\"temperature\": true}", SILL_EFORMAT, "temperature");
    refused("", "{\"temperature\": {\"a\": [1]}}", SILL_EFORMAT, "temperature");
    refused("", "{\"temperature\": 1e999}", SILL_EFORMAT, "temperature");
    refused("", "{\"repetition_penalty\": NaN}", SILL_EFORMAT, "repetition_penalty");
    refused("", "{\"repetition_penalty\": -Infinity}", SILL_EFORMAT, "repetition_penalty");
    refused("", "{\"repetition_penalty\": 1e39}", SILL_EFORMAT, "repetition_penalty");
    refused("", "{\"top_k\": 99999999999}", SILL_EFORMAT, "top_k");
    refused("", "{\"top_k\": 1e400}", SILL_EFORMAT, "top_k");
    refused("", "{\"top_k\": 2.5}", SILL_EFORMAT, "top_k");
    refused("", "{\"top_k\": [50]}", SILL_EFORMAT, "top_k");
    refused("", "{\"do_sample\": 1}", SILL_EFORMAT, "do_sample");
    refused("", "{\"do_sample\": \"yes\"}", SILL_EFORMAT, "do_sample");
    refused("", "{\"max_length\": -5}", SILL_EFORMAT, "max_length");
    refused("", "{\"max_length\": 1}", SILL_EFORMAT, "max_length");
    refused("", "{\"num_return_sequences\": 0}", SILL_EFORMAT, "num_return_sequences");
    refused("", "{\"num_return_sequences\": -2147483649}", SILL_EFORMAT, "num_return_sequences");
    refused(", \"temperature\": \"hot\"", NULL, SILL_EFORMAT, "config.json: temperature");
    refused("", "{\"num_beams\": 0}", SILL_EFORMAT, "num_beams is 0");
    refused("", "{\"num_beams\": 2, \"early_stopping\": \"always\"}", SILL_EFORMAT, "early_stopping");
    refused("", "{\"num_beams\": 2, \"early_stopping\": 3}", SILL_EFORMAT, "early_stopping");
    refused("", "{\"num_beams\": 2, \"num_return_sequences\": 3}", SILL_EFORMAT, "num_return_sequences");
    refused("", "{\"suppress_tokens\": 4}", SILL_EFORMAT, "generation_config.json: suppress_tokens");
    refused("", "{\"suppress_tokens\": [[4]]}", SILL_EFORMAT, "suppress_tokens");
    refused("", "{\"begin_suppress_tokens\": [4, \"a\"]}", SILL_EFORMAT, "begin_suppress_tokens");
    refused("", "{\"bad_words_ids\": [[5], [340]]}", SILL_EFORMAT, "bad_words_ids holds id 340");
    refused("", "{\"bad_words_ids\": [[5], [99999999999]]}", SILL_EFORMAT, "bad_words_ids");
    refused("", "{\"bad_words_ids\": {\"5\": 1}}", SILL_EFORMAT, "bad_words_ids");
    refused("", "{\"bad_words_ids\": [[[5]]]}", SILL_EFORMAT, "bad_words_ids");
    refused("", "{\"sequence_bias\": [[[5]]]}", SILL_EFORMAT, "sequence_bias");
    refused("", "{\"sequence_bias\": [[[], 1.0]]}", SILL_EFORMAT, "sequence_bias");
    refused("", "{\"sequence_bias\": [[5, 1.0]]}", SILL_EFORMAT, "sequence_bias");
    refused("", "{\"sequence_bias\": [[[5], NaN]]}", SILL_EFORMAT, "sequence_bias");
    refused("", "{\"sequence_bias\": [[[5], Infinity]]}", SILL_EFORMAT, "sequence_bias");
    refused("", "{\"sequence_bias\": [[[5], \"1\"]]}", SILL_EFORMAT, "sequence_bias");
    refused("", "{\"sequence_bias\": [[[5, 340], 1.0]]}", SILL_EFORMAT, "sequence_bias holds id 340");
    refused(", \"bad_words_ids\": [[\"\"]]", NULL, SILL_EFORMAT, "config.json: bad_words_ids");
    refused("", "{\"stop_strings\": \"x\"}", SILL_EUNSUPPORTED, "stop_strings");
    refused("", "{\"guidance_scale\": 1.5}", SILL_EUNSUPPORTED, "guidance_scale");
    refused(", \"prefix\": \"Once \"", "{}", SILL_EUNSUPPORTED, "prefix");
}

static void hostile_task_values(void) {
    static const struct { const char *params; sill_status code; const char *says; } all[] = {
        {"3", SILL_EFORMAT, "task_specific_params"},
        {"{\"text-generation\": []}", SILL_EFORMAT, "task_specific_params"},
        {"{\"text-generation\": null}", SILL_EFORMAT, "task_specific_params"},
        {"{\"text-generation\": {\"top_p\": \"0.9\"}}", SILL_EFORMAT, "config.json: top_p"},
        {"{\"text-generation\": {\"max_length\": 1e300}}", SILL_EFORMAT, "config.json: max_length"},
        {"{\"text-generation\": {\"max_new_tokens\": -1}}", SILL_EFORMAT, "max_new_tokens"},
        {"{\"text-generation\": {\"num_beams\": -5}}", SILL_EFORMAT, "num_beams is -5"},
        {"{\"text-generation\": {\"prefix\": \"x\"}}", SILL_EUNSUPPORTED, "prefix"},
        {"{\"text-generation\": {\"bad_words_ids\": [1]}}", SILL_EFORMAT, "config.json: bad_words_ids"}};
    sill_generate_options o;
    sill_error err;
    for (size_t i = 0; i < SILL_ARRAY_LEN(all); i++) {
        char more[512];
        snprintf(more, sizeof more, ", \"task_specific_params\": %s", all[i].params);
        sill_status s = with("hf-4", more, "{}", &o, &err);
        if (s != all[i].code || !strstr(err.msg, all[i].says)) FAIL("%s: status %d, %s", all[i].params, s, err.msg);
        CHECK_OK(with("hf-5", more, "{}", &o, &err), err); /* which does not look there */
        CHECK_INT(o.max_new_tokens, 256);
    }
    CHECK_INT(with("hf-4", "", "{\"transformers_version\": 4}", &o, &err), SILL_EFORMAT);
    CHECK_INT(with("hf-4", "", "{\"transformers_version\": \"new\"}", &o, &err), SILL_EFORMAT);
    CHECK_INT(with("hf-4", "", "{\"transformers_version\": \"99999999999999999999.1\"}", &o, &err), SILL_EFORMAT);
}

/* What does nothing is no reason to refuse; of equal names the last counts. */
static void harmless_values(void) {
    sill_generate_options o;
    sill_error err;
    const char *harmless = "{\"suppress_tokens\": [], \"bad_words_ids\": null, \"sequence_bias\": null, \"stop_strings\": \"\", "
                           "\"guidance_scale\": 1.0, \"token_healing\": false, \"penalty_alpha\": 0, \"num_beams\": 1, \"min_length\": 0, "
                           "\"my_own\": {\"temperature\": \"hot\"}, \"temperature\": 0.5, \"temperature\": 0.25}";
    CHECK_OK(with("hf-5", ", \"prefix\": \"\"", harmless, &o, &err), err);
    CHECK(o.temperature == 0.25f && o.do_sample == 1 && o.max_new_tokens == 256 && o.top_k == 50);
}

/* Ids outside the vocabulary forbid nothing; of equal sequences the last bias counts; the lists are the model's, once. */
static void lists_of_ids(void) {
    sill_generate_options o, again;
    sill_error err = {0};
    sill_model *m = NULL;
    REQUIRE(make_dir("task/gpt2", "{\"model_type\": \"gpt2\", \"n_embd\": 28, \"n_head\": 2, \"n_layer\": 2, \"n_positions\": 192, \"vocab_size\": 340}",
                     "{\"suppress_tokens\": [-1, 5, 340, 99999999999, 7], \"bad_words_ids\": [[3, 4], [5]], "
                     "\"sequence_bias\": [[[7], 1.0], [[8, 9], 2.0], [[7], 3.0, 4], [[8], -0.5]]}"));
    CHECK_OK(load(&m, &err), err);
    REQUIRE(m);
    int32_t mine[] = {1};
    o = again = (sill_generate_options){.size = sizeof o, .begin_suppress_tokens = mine, .n_begin_suppress = 1};
    CHECK_OK(sill_generate_preset(m, "hf-5-generate", &o, &err), err);
    CHECK(o.n_suppress == 2 && o.suppress_tokens[0] == 5 && o.suppress_tokens[1] == 7);
    CHECK(o.begin_suppress_tokens == mine && o.n_begin_suppress == 1); /* the files do not set it */
    CHECK(o.n_bad_words == 2 && o.bad_word_ends[0] == 2 && o.bad_word_ends[1] == 3 && o.bad_words[2] == 5);
    REQUIRE(o.n_bias_words == 3);
    CHECK(o.bias_words[0] == 7 && o.bias_word_values[0] == 3.0f && o.bias_word_values[1] == 2.0f && o.bias_word_values[2] == -0.5f);
    CHECK(o.bias_word_ends[0] == 1 && o.bias_word_ends[1] == 3 && o.bias_word_ends[2] == 4 && o.bias_words[3] == 8);
    CHECK_OK(sill_generate_preset(m, "hf-4", &again, &err), err);
    CHECK(again.bad_words == o.bad_words && again.bias_words == o.bias_words && again.suppress_tokens == o.suppress_tokens);
    sill_model_free(m);
}

/* min_new_tokens wins, also where it does nothing, as in transformers' _prepare_generated_length. */
static void min_lengths(void) {
    sill_generate_options o;
    sill_error err;
    CHECK_OK(with("hf-5", "", "{\"min_length\": 10}", &o, &err), err);
    CHECK(o.min_length == 10 && o.min_new_tokens == 0);
    CHECK_OK(with("hf-4", "", "{\"min_length\": 10, \"min_new_tokens\": 3}", &o, &err), err);
    CHECK(o.min_length == 0 && o.min_new_tokens == 3);
    CHECK_OK(with("hf-5", "", "{\"min_length\": 10, \"min_new_tokens\": 0}", &o, &err), err);
    CHECK(o.min_length == 0 && o.min_new_tokens == 0);
}

/* --------------------------------------------------------- the call */

static void the_call(void) {
    sill_error err = {0};
    sill_model *m = NULL;
    sill_generate_options o = {.size = sizeof o, .seed = 5, .logprobs = 3, .n_stop = 9, .max_length = 4, .top_p = 0.5f}, before;
    CHECK_OK(sill_model_load("tests/fixtures/stories260K/stories260K.gguf", NULL, &m, &err), err);
    REQUIRE(m);
    CHECK_OK(sill_generate_preset(m, "hf-5", &o, &err), err); /* a GGUF holds no such parameters */
    CHECK(o.size == sizeof o && o.seed == 5 && o.logprobs == 3 && o.n_stop == 9);
    CHECK(o.max_new_tokens == 256 && o.max_length == 0 && o.do_sample == 1 && o.temperature == 0.7f && o.top_k == 50 && o.top_p == 1.0f);
    before = o;
    CHECK_INT(sill_generate_preset(m, "hf-6", &o, &err), SILL_EINVAL);
    CHECK(strstr(err.msg, "hf-6") && strstr(err.msg, "hf-4") && strstr(err.msg, "hf-5"));
    CHECK_INT(sill_generate_preset(m, "", &o, &err), SILL_EINVAL);
    CHECK_INT(sill_generate_preset(NULL, "hf-5", &o, &err), SILL_EINVAL);
    CHECK_INT(sill_generate_preset(m, NULL, &o, &err), SILL_EINVAL);
    CHECK_INT(sill_generate_preset(m, "hf-5", NULL, &err), SILL_EINVAL);
    CHECK(!memcmp(&before, &o, sizeof o));
    o.size = sizeof o + 8;
    CHECK_INT(sill_generate_preset(m, "hf-5", &o, &err), SILL_EINVAL);
    struct { size_t size; int32_t max_new_tokens, max_length; unsigned char behind[sizeof o]; } old; /* a caller's shorter struct */
    memset(&old, 0xa5, sizeof old);
    old.size = sizeof old.size + 2 * sizeof(int32_t);
    memcpy(&o, &old, sizeof o);
    CHECK_OK(sill_generate_preset(m, "hf-4", &o, &err), err);
    CHECK_INT(o.max_new_tokens, 256);
    CHECK(!memcmp((char *)&o + old.size, (char *)&old + old.size, sizeof o - old.size));
    sill_model_free(m);
}

static void files_gone(void) {
    sill_error err = {0};
    sill_model *m = NULL;
    char config[4096];
    sill_generate_options o = {.size = sizeof o};
    snprintf(config, sizeof config, CONFIG, "");
    if (!make_dir("task/gpt2", config, "{}")) return;
    CHECK_OK(load(&m, &err), err);
    REQUIRE(m);
    put_file("generation_config.json", "[1, 2");
    CHECK_INT(sill_generate_preset(m, "hf-5", &o, &err), SILL_EFORMAT);
    put_file("generation_config.json", "[]");
    CHECK_INT(sill_generate_preset(m, "hf-5", &o, &err), SILL_EFORMAT);
    drop_file("config.json");
    CHECK_INT(sill_generate_preset(m, "hf-5", &o, &err), SILL_ENOENT);
    sill_model_free(m);
}

int main(int argc, char **argv) {
    const char *tmp = getenv("TMPDIR");
    snprintf(dir, sizeof dir, "%s/sill_preset_XXXXXX", tmp && *tmp ? tmp : "/tmp");
    if (!mkdtemp(dir)) {
        printf("FAIL no directory %s\n", dir);
        return 1;
    }
    TEST(hf_4);
    TEST(hf_5);
    TEST(hf_5_generate);
    TEST(hostile_values);
    TEST(hostile_task_values);
    TEST(harmless_values);
    TEST(lists_of_ids);
    TEST(min_lengths);
    TEST(the_call);
    TEST(files_gone);
    drop_file("model.safetensors");
    drop_file("config.json");
    drop_file("generation_config.json");
    rmdir(dir);
    TEST_EXIT();
}
