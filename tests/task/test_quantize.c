/* test_quantize.c - smaller files: what is written, refused and left behind. */
#include <math.h>
#include <sys/stat.h>
#include <unistd.h>

#include "format/write.h"
#include "task/quantize.h"
#include "test.h"

#define STORIES "tests/fixtures/stories260K/stories260K.gguf"
#define GPT2 "tests/fixtures/task/quantize/gpt2"

static char dir[64];

static const char *in_dir(const char *name) {
    static char paths[4][160];
    static int at;
    at = (at + 1) % 4;
    snprintf(paths[at], sizeof paths[at], "%s/%s", dir, name);
    return paths[at];
}

static const char *const one_text[] = {"Once upon a time there was a little girl. She had a red ball, and she liked to play with it "
                                       "in the park. One day, the ball was gone. The girl was sad and looked for it everywhere."};
static size_t one_size[1];

static sill_quantize_options some(sill_quantize_to to) {
    one_size[0] = strlen(one_text[0]);
    return (sill_quantize_options){.size = sizeof(sill_quantize_options), .to = to, .texts = one_text, .text_bytes = one_size,
                                   .n_texts = 1};
}

static bool exists(const char *path) { return access(path, F_OK) == 0; }

/* scipy.stats.t.ppf(0.975, n), and printed tables. */
static void intervals_are_students(void) {
    static const struct { size_t freedom; double t; } known[] = {
        {1, 12.706205}, {2, 4.302653}, {3, 3.182446}, {4, 2.776445}, {5, 2.570582}, {10, 2.228139}, {30, 2.042272}, {99, 1.984217}, {4095, 1.960542}};
    for (size_t i = 0; i < SILL_ARRAY_LEN(known); i++)
        if (!(fabs(sill__student_975(known[i].freedom) / known[i].t - 1) < 2e-3))
            FAIL("%zu: %.6f, not %.6f", known[i].freedom, sill__student_975(known[i].freedom), known[i].t);
    CHECK(isinf(sill__student_975(0)));
}

/* Table I of Newcombe (1998), the score method without continuity correction, to its four places; no rows say nothing. */
static void shares_have_wilsons_interval(void) {
    static const struct { uint64_t k, n; double low, high; } known[] = {
        {81, 263, 0.2553, 0.3662}, {15, 148, 0.0624, 0.1605}, {0, 20, 0, 0.1611}, {1, 29, 0.0061, 0.1718}, {0, 0, 0, 1}};
    double low, high;
    for (size_t i = 0; i < SILL_ARRAY_LEN(known); i++)
        for (int turned = 0; turned < 2; turned++) {
            sill__wilson_95(turned ? known[i].n - known[i].k : known[i].k, known[i].n, &low, &high);
            CHECK_NEAR(turned ? 1 - high : low, known[i].low, 5.1e-5);
            CHECK_NEAR(turned ? 1 - low : high, known[i].high, 5.1e-5);
        }
    sill__wilson_95(0, 72, &low, &high); /* what sill.h says of the default limits */
    CHECK(low == 0 && high > 0.05);
    sill__wilson_95(0, 73, &low, &high);
    CHECK(high < 0.05);
    sill__wilson_95(0, 21, &low, &high);
    CHECK(high > 0.15);
    sill__wilson_95(0, 22, &low, &high);
    CHECK(high < 0.15);
}

/* Every tensor has gguf-py's bytes (LLM.int8: bitsandbytes' rule in numpy), and the file is the same for any number of
 * threads. */
static void tensors_are_those_expected(void) {
    static const char *const kinds[] = {"q8", "q4", "int8"}, *const models[] = {"gpt2", "llama"};
    sill_error e = {0};
    char *text, name[96], model[8], kind[8], type[8], shape[32], sha[65], got[65];
    size_t bytes;
    REQUIRE(sill__read_file("tests/fixtures/task/quantize/expected.txt", 1 << 20, &text, &bytes, &e) == SILL_OK);
    for (int m = 0; m < 2; m++)
        for (int k = 0; k < 3; k++) {
            char source[96], first[65] = "";
            sill__file *f;
            size_t n = 0, more = 0;
            snprintf(source, sizeof source, "tests/fixtures/task/quantize/%s", models[m]);
            snprintf(name, sizeof name, "%s-%s", models[m], kinds[k]);
            for (int threads = 1; threads <= 3; threads += 2) {
                sill_quantize_options o = {.size = sizeof o, .to = (sill_quantize_to)k, .overwrite = 1, .n_threads = threads};
                sill_certificate c;
                CHECK_OK(sill_quantize(source, in_dir(name), &o, &c, &e), e);
                CHECK(strlen(c.before_sha256) == 64 && strlen(c.after_sha256) == 64 && c.n_tokens == 0);
                if (threads > 1) CHECK_STR(c.after_sha256, first);
                memcpy(first, c.after_sha256, sizeof first);
            }
            REQUIRE(sill__file_open(in_dir(name), &f, &e) == SILL_OK);
            for (const char *p = text; *p; p = strchr(p, '\n') + 1) {
                REQUIRE(sscanf(p, "%7s %7s %95s %7s %31s %64s", model, kind, name, type, shape, sha) == 6);
                if (strcmp(model, models[m]) || strcmp(kind, kinds[k])) continue;
                const sill__tensor *t = sill__file_find(f, name);
                n++;
                if (!t) {
                    FAIL("%s %s: no tensor %s", model, kind, name);
                    continue;
                }
                uint8_t digest[32];
                sill__sha256 h;
                char dims[32] = "";
                size_t at = 0;
                for (int d = 0; d < t->n_dims; d++) at += (size_t)snprintf(dims + at, sizeof dims - at, "%s%llu", d ? "x" : "", (unsigned long long)t->dims[d]);
                if (t->n_dims) CHECK_STR(dims, shape);
                CHECK_STR(sill__type_get(t->type)->name, type);
                sill__sha256_init(&h);
                sill__sha256_update(&h, t->data, t->bytes);
                sill__sha256_final(&h, digest);
                sill__sha256_hex(digest, got);
                if (strcmp(got, sha)) FAIL("%s %s: other bytes in %s", model, kind, name);
            }
            for (size_t i = 0; i < sill__file_n_tensors(f); i++) more++;
            CHECK(n > 10);
            CHECK_INT(more, n);
            sill__file_close(f);
        }
    sill__free(text);
}

/* What a few tokens cannot tell is not certified: which it is follows from the interval of the paired loss. */
static void few_tokens_are_no_proof(void) {
    sill_quantize_options o = some(SILL_QUANTIZE_Q4);
    sill_certificate c;
    sill_error e = {0};
    o.window = 16;
    o.max_tokens = 2;
    o.max_kl = o.min_agreement = -1;
    o.max_loss = -1; /* with no limit there is nothing to tell but the interval */
    CHECK_OK(sill_quantize(STORIES, in_dir("few.gguf"), &o, &c, &e), e);
    CHECK(c.n_tokens == 2 && c.certainty == SILL_CERTAINTY_LOW);
    CHECK(c.loss_percent_low < c.loss_percent && c.loss_percent < c.loss_percent_high);
    /* the limit set where each case begins, by the interval of the same tokens */
    const double spread = 100 * (log1p(c.loss_percent_high / 100) - log1p(c.loss_percent / 100)), high = c.loss_percent_high;
    const double even_none = 100 * expm1(spread / 100);
    CHECK(spread > 0);
    o.overwrite = 1;
    o.max_loss = fmax(c.loss_percent, 0) + 1e-6;
    REQUIRE(o.max_loss < even_none);
    CHECK_INT(sill_quantize(STORIES, in_dir("few.gguf"), &o, &c, &e), SILL_ERANGE);
    CHECK(c.certainty == SILL_CERTAINTY_NONE && !c.passed && strstr(e.msg, "2 tokens") && strstr(e.msg, "more text"));
    o.force = 1;
    CHECK_OK(sill_quantize(STORIES, in_dir("few.gguf"), &o, &c, &e), e);
    CHECK(c.forced && !c.passed);
    o.force = 0;
    o.max_loss = fmax(high, even_none) * 1.01; /* the interval fits, but two tokens are few */
    CHECK_OK(sill_quantize(STORIES, in_dir("few.gguf"), &o, &c, &e), e);
    CHECK(c.certainty == SILL_CERTAINTY_LOW && c.passed);
    o = some(SILL_QUANTIZE_Q8);
    o.overwrite = 1;
    one_size[0] = 60;
    sill_status s = sill_quantize(STORIES, in_dir("few.gguf"), &o, &c, &e);
    CHECK(c.n_tokens < 100 && c.certainty != SILL_CERTAINTY_HIGH && (s == SILL_OK) == (c.certainty == SILL_CERTAINTY_LOW));
    o = some(SILL_QUANTIZE_Q4);
    o.overwrite = 1;
    char *much = NULL;
    size_t n = 0;
    REQUIRE(sill__read_file("examples/sample.txt", 1 << 20, &much, &n, &e) == SILL_OK);
    o.texts = (const char *const[]){much};
    o.text_bytes = &n;
    o.max_tokens = 400;
    CHECK_OK(sill_quantize(STORIES, in_dir("few.gguf"), &o, &c, &e), e);
    CHECK(c.certainty == (c.loss_percent_high > 10 ? SILL_CERTAINTY_LOW : SILL_CERTAINTY_HIGH));
    o.max_loss = c.loss_percent_high * 1.01;
    CHECK_OK(sill_quantize(STORIES, in_dir("few.gguf"), &o, &c, &e), e);
    CHECK(c.certainty == SILL_CERTAINTY_HIGH && c.n_tokens == 400);
    o.max_loss = c.loss_percent_high * 0.99; /* above the loss, within its interval */
    REQUIRE(o.max_loss > c.loss_percent && o.max_loss > 100 * expm1(log1p(c.loss_percent_high / 100) - log1p(c.loss_percent / 100)));
    CHECK_OK(sill_quantize(STORIES, in_dir("few.gguf"), &o, &c, &e), e);
    CHECK(c.certainty == SILL_CERTAINTY_LOW && c.passed);
    sill__free(much);
}

/* Other texts have another hash, also where they join to the same bytes; that of one text is that of its bytes. */
static void the_hash_tells_texts_apart(void) {
    static const char *const whole[] = {"Once upon a time"}, *const two[] = {"Once upon", " a time"}, *const others[] = {"Once", " upon a time"};
    static const char *const *const cases[] = {whole, two, others};
    char seen[3][65], want[65];
    uint8_t digest[32];
    sill_error e = {0};
    sill_certificate c;
    for (int i = 0; i < 3; i++) {
        sill_quantize_options o = some(SILL_QUANTIZE_Q8);
        size_t sizes[2] = {strlen(cases[i][0]), i ? strlen(cases[i][1]) : 0};
        o.texts = cases[i];
        o.text_bytes = sizes;
        o.n_texts = i ? 2 : 1;
        o.max_loss = -1;
        o.overwrite = 1;
        CHECK_OK(sill_quantize(STORIES, in_dir("h.gguf"), &o, &c, &e), e);
        memcpy(seen[i], c.text_sha256, 65);
    }
    CHECK(strcmp(seen[0], seen[1]) && strcmp(seen[0], seen[2]) && strcmp(seen[1], seen[2]));
    sill__sha256 h;
    sill__sha256_init(&h);
    sill__sha256_update(&h, whole[0], strlen(whole[0]));
    sill__sha256_final(&h, digest);
    sill__sha256_hex(digest, want);
    CHECK(!strcmp(seen[0], want));
    sill__sha256_init(&h); /* of several: each one's length in 8 bytes, the lowest first, before its bytes */
    for (int i = 0; i < 2; i++) {
        uint8_t length[8] = {(uint8_t)strlen(two[i])};
        sill__sha256_update(&h, length, 8);
        sill__sha256_update(&h, two[i], strlen(two[i]));
    }
    sill__sha256_final(&h, digest);
    sill__sha256_hex(digest, want);
    CHECK(!strcmp(seen[1], want));
}

static void a_certificate_holds_together(void) {
    sill_quantize_options o = some(SILL_QUANTIZE_Q8);
    sill_certificate c;
    sill_error e = {0};
    struct stat st;
    o.max_tokens = 40;
    o.window = 16;
    CHECK_OK(sill_quantize(STORIES, in_dir("c.gguf"), &o, &c, &e), e);
    CHECK_INT(c.n_tokens, 40);
    CHECK_INT(c.n_windows, 3);
    CHECK_INT(c.n_texts, 1);
    CHECK(c.passed && !c.forced && c.max_loss == 2);
    CHECK(c.perplexity_before > 1 && c.perplexity_before < 100 && c.perplexity_before_se > 0);
    CHECK_NEAR(100 * (c.perplexity_after / c.perplexity_before - 1), c.loss_percent, 1e-9);
    CHECK(c.kl_mean > 0 && c.kl_mean < 0.05 && c.kl_p99 >= c.kl_mean && c.kl_max >= c.kl_p99);
    CHECK(c.top1_agreement > 0.8 && c.top1_agreement <= 1);
    CHECK(isnan(c.alpha) && c.n_rows == 0);
    CHECK(stat(in_dir("c.gguf"), &st) == 0 && (uint64_t)st.st_size == c.bytes_after && c.bytes_before > 2 * c.bytes_after);
    CHECK(exists(in_dir("c.gguf.certificate.json")));
    CHECK(!exists(in_dir("c.gguf.partial")) && !exists(in_dir("c.gguf.logits.partial")));
}

/* What is written as LLM.int8 is computed as LLM.int8 when it is loaded again, on both devices; without its scales it is
 * refused. */
static void int8_is_read_again(void) {
    static const char *const devices[] = {"cpu", "ref"};
    sill_quantize_options o = some(SILL_QUANTIZE_INT8);
    sill_certificate c;
    sill_error e = {0};
    char *text, weights[200];
    size_t bytes, n_cut = 0;
    sill_model *m;
    o.overwrite = 1;
    for (int i = 0; i < 2; i++) {
        o.device = devices[i];
        CHECK_OK(sill_quantize(GPT2, in_dir("i8"), &o, &c, &e), e);
        CHECK_STR(c.after_dtype, "int8");
        CHECK(c.kl_mean > 0 && c.kl_mean < 1e-3 && fabs(c.loss_percent) < 2);
    }
    REQUIRE(sill_model_load(in_dir("i8"), NULL, &m, &e) == SILL_OK);
    sill_model_free(m);
    /* The largest matrix is f32 while it is imported: GPT-2's c_fc or c_attn here. */
    sill_model_options mo = {.size = sizeof mo};
    sill_model_info info;
    sill_plan_info plan;
    REQUIRE(sill_model_load(in_dir("i8"), NULL, &m, &e) == SILL_OK);
    sill_model_get_info(m, &info, sizeof info);
    sill_model_free(m);
    const uint64_t most = 4u * (uint64_t)info.n_embd * (uint64_t)SILL_MAX(info.n_ff, 3 * info.n_embd);
    mo.memory_limit_bytes = info.weight_bytes + most - 1;
    CHECK_INT(sill_model_load(in_dir("i8"), &mo, &m, &e), SILL_ENOFIT);
    CHECK(strstr(e.msg, "while it is loaded"));
    sill_session_options so = {.size = sizeof so, .n_ctx = 1, .max_sequences = 1, .batch_tokens = 1};
    CHECK_OK(sill_plan(in_dir("i8"), &mo, &so, &plan, &e), e);
    CHECK(!plan.fits && plan.total_bytes >= info.weight_bytes + most);
    mo.memory_limit_bytes++;
    CHECK_OK(sill_model_load(in_dir("i8"), &mo, &m, &e), e);
    sill_model_free(m);
    mo = (sill_model_options){.size = sizeof mo, .dtype = SILL_DTYPE_BF16};
    CHECK_INT(sill_model_load(in_dir("i8"), &mo, &m, &e), SILL_EINVAL);
    snprintf(weights, sizeof weights, "%s/model.safetensors", in_dir("i8"));
    REQUIRE(sill__read_file(weights, 1 << 24, &text, &bytes, &e) == SILL_OK);
    for (size_t i = 0; i + 4 < bytes; i++)
        if (!memcmp(text + i, ".SCB\"", 5)) {
            text[i + 3] = 'X';
            n_cut++;
        }
    CHECK_INT(n_cut, 4);
    FILE *f = fopen(weights, "wb");
    REQUIRE(f && fwrite(text, 1, bytes, f) == bytes && fclose(f) == 0);
    CHECK_INT(sill_model_load(in_dir("i8"), NULL, &m, &e), SILL_EFORMAT); /* not GPT-2's orientation without them */
    CHECK(strstr(e.msg, "c_attn.weight"));
    sill__free(text);
}

/* N texts, all different; what they are labelled is for the models to say. */
static void label_some(sill_quantize_options *o, size_t n, const char *(*texts)[120], size_t (*sizes)[120]) {
    static char bytes[120][64];
    static const char *const who[] = {"She", "The dog", "A bird", "Tom", "My friend"}, *const did[] = {"had", "saw", "lost", "liked"},
                      *const what[] = {"a red ball.", "the big tree.", "no cake.", "a sad cat.", "the sun.", "a new toy."};
    static const char *const labels[] = {"big", "little", "small", "nice"}; /* the model sees little between them */
    for (size_t i = 0; i < n; i++) {
        snprintf(bytes[i], sizeof bytes[i], "%s %s %s", who[i % 5], did[i / 5 % 4], what[i / 20]);
        (*texts)[i] = bytes[i];
        (*sizes)[i] = strlen(bytes[i]);
    }
    o->texts = *texts;
    o->text_bytes = *sizes;
    o->n_texts = n;
    o->labels = labels;
    o->n_labels = 4;
    o->prompt = "{text}";
    o->overwrite = 1;
    o->max_tokens = 400;
    o->max_loss = o->max_kl = o->min_agreement = -1;
}

/* Labels have a limit of their own, and as many texts are asked for as tell it from nothing. */
static void labels_are_compared(void) {
    const char *texts[120];
    size_t sizes[120];
    sill_quantize_options o = some(SILL_QUANTIZE_Q4);
    sill_certificate c;
    sill_error e = {0};
    label_some(&o, 120, &texts, &sizes);
    o.max_changed = -1;
    CHECK_OK(sill_quantize(STORIES, in_dir("l.gguf"), &o, &c, &e), e);
    CHECK_INT(c.n_rows, 120);
    REQUIRE(c.n_changed > 0 && c.n_changed < 40);
    CHECK_NEAR(c.changed_percent, 100.0 * (double)c.n_changed / 120, 1e-12);
    CHECK(c.alpha < 1 && isinf(c.max_loss) && isinf(c.max_changed) && c.passed && c.certainty_of_labels == SILL_CERTAINTY_HIGH);
    CHECK(c.changed_percent_low < c.changed_percent && c.changed_percent < c.changed_percent_high);
    const double seen = c.changed_percent, high = c.changed_percent_high;
    o.max_changed = high * 1.0001; /* the whole interval is allowed */
    CHECK_OK(sill_quantize(STORIES, in_dir("l.gguf"), &o, &c, &e), e);
    CHECK(c.passed && c.certainty == SILL_CERTAINTY_HIGH && c.max_changed == o.max_changed);
    o.max_changed = (seen + high) / 2; /* what was seen is allowed, its interval is not */
    CHECK_OK(sill_quantize(STORIES, in_dir("l.gguf"), &o, &c, &e), e);
    CHECK(c.passed && c.certainty == SILL_CERTAINTY_LOW && c.certainty_of_labels == SILL_CERTAINTY_LOW &&
          c.certainty_of_loss == SILL_CERTAINTY_HIGH);
    o.max_changed = seen * 0.999;
    unlink(in_dir("l.gguf"));
    CHECK_INT(sill_quantize(STORIES, in_dir("l.gguf"), &o, &c, &e), SILL_ERANGE);
    CHECK(strstr(e.msg, "--max-changed") && strstr(e.msg, "of 120 labels change") && !c.passed && !exists(in_dir("l.gguf")));
    o.force = 1;
    CHECK_OK(sill_quantize(STORIES, in_dir("l.gguf"), &o, &c, &e), e);
    CHECK(c.forced && !c.passed);
    o.max_changed = NAN;
    CHECK_INT(sill_quantize(STORIES, in_dir("l.gguf"), &o, &c, &e), SILL_EINVAL);
}

static int never(void *user, const char *stage, double share) {
    (void)share;
    *(const char **)user = stage;
    return 1;
}

/* Where no outcome could pass nothing is begun, and the rows that would do are told. */
/* The logits of a window count as memory, twice while the second model runs: 400 tokens x 512 of the vocabulary here. */
static void the_logits_of_a_window_count(void) {
    sill_quantize_options o = some(SILL_QUANTIZE_Q8);
    sill_certificate c;
    sill_plan_info plan[2];
    sill_error e = {0};
    const uint64_t one = (uint64_t)400 * 512 * 4;
    const sill_session_options so = {.size = sizeof so, .n_ctx = 400, .max_sequences = 16, .batch_tokens = 16};
    const sill_model_options f32 = {.size = sizeof f32, .dtype = SILL_DTYPE_F32}, stored = {.size = sizeof stored};
    o.window = 400;
    o.overwrite = 1;
    o.max_loss = -1;
    CHECK_OK(sill_quantize(STORIES, in_dir("w.gguf"), &o, &c, &e), e);
    CHECK_OK(sill_plan(STORIES, &f32, &so, &plan[0], &e), e);
    CHECK_OK(sill_plan(in_dir("w.gguf"), &stored, &so, &plan[1], &e), e);
    const uint64_t need[2] = {plan[0].total_bytes + one, plan[1].total_bytes + 2 * one};
    const uint64_t both = SILL_MAX(need[0], need[1]), slack = 64 << 10;
    o.memory_limit_bytes = both + slack;
    CHECK_OK(sill_quantize(STORIES, in_dir("w.gguf"), &o, &c, &e), e);
    o.memory_limit_bytes = both - slack;
    CHECK_INT(sill_quantize(STORIES, in_dir("w.gguf"), &o, &c, &e), SILL_ENOFIT);
    CHECK(strstr(e.msg, "--window") && strstr(e.msg, "400 tokens"));
    o.window = 16; /* what is said to help does */
    CHECK_OK(sill_quantize(STORIES, in_dir("w.gguf"), &o, &c, &e), e);
}

static void hopeless_labels_are_refused_first(void) {
    static const struct { size_t n; sill_quantize_to to; double allowed; const char *need; } cases[] = {
        {1, SILL_QUANTIZE_Q8, 0, "73 rows"}, {72, SILL_QUANTIZE_Q8, 0, "73 rows"}, {21, SILL_QUANTIZE_Q4, 0, "22 rows"},
        {72, SILL_QUANTIZE_INT8, 0, "73 rows"}, {120, SILL_QUANTIZE_Q8, 3, "125 rows"}, {3, SILL_QUANTIZE_Q8, 50, "4 rows"}};
    const char *texts[120], *stage = NULL;
    size_t sizes[120];
    sill_certificate c;
    sill_error e = {0};
    for (size_t i = 0; i < SILL_ARRAY_LEN(cases); i++) {
        sill_quantize_options o = some(cases[i].to);
        label_some(&o, cases[i].n, &texts, &sizes);
        o.max_changed = cases[i].allowed;
        o.progress = never;
        o.user = &stage;
        CHECK_INT(sill_quantize(cases[i].to == SILL_QUANTIZE_INT8 ? GPT2 : STORIES, in_dir("hl"), &o, &c, &e), SILL_ERANGE);
        CHECK(!stage && strstr(e.msg, cases[i].need) && strstr(e.msg, "--max-changed") && !exists(in_dir("hl.partial")));
    }
    sill_quantize_options o = some(SILL_QUANTIZE_Q8);
    label_some(&o, 73, &texts, &sizes);
    o.progress = never;
    o.user = &stage;
    CHECK_INT(sill_quantize(STORIES, in_dir("hl"), &o, &c, &e), SILL_ECANCELLED);
    o.n_texts = 1;
    o.force = 1;
    CHECK_INT(sill_quantize(STORIES, in_dir("hl"), &o, &c, &e), SILL_ECANCELLED);
    o.force = 0;
    o.max_changed = -1;
    CHECK_INT(sill_quantize(STORIES, in_dir("hl"), &o, &c, &e), SILL_ECANCELLED);
}

static void few_labels_are_no_proof(void) {
    static const struct { size_t n; sill_certainty certainty; } cases[] = {
        {1, SILL_CERTAINTY_NONE}, {72, SILL_CERTAINTY_NONE}, {73, SILL_CERTAINTY_LOW}, {120, SILL_CERTAINTY_LOW}};
    const char *texts[120];
    size_t sizes[120];
    sill_certificate c;
    sill_error e = {0};
    for (size_t i = 0; i < SILL_ARRAY_LEN(cases); i++) {
        sill_quantize_options o = some(SILL_QUANTIZE_Q8);
        label_some(&o, cases[i].n, &texts, &sizes);
        o.force = cases[i].certainty == SILL_CERTAINTY_NONE; /* refused before any work else */
        CHECK_OK(sill_quantize(STORIES, in_dir("fl.gguf"), &o, &c, &e), e);
        CHECK(c.n_rows == cases[i].n && c.max_changed == 5);
        REQUIRE(c.changed_percent <= 5);
        const sill_certainty want = cases[i].certainty == SILL_CERTAINTY_LOW && c.changed_percent_high <= 5 ? SILL_CERTAINTY_HIGH : cases[i].certainty;
        CHECK_INT(c.certainty_of_labels, want);
        CHECK(c.passed == (want != SILL_CERTAINTY_NONE) && c.certainty >= c.certainty_of_labels);
        CHECK(c.forced == !c.passed);
    }
    sill_quantize_options o = some(SILL_QUANTIZE_Q4);
    label_some(&o, 22, &texts, &sizes);
    if (sill_quantize(STORIES, in_dir("fl.gguf"), &o, &c, &e) == SILL_OK) CHECK_INT(c.certainty_of_labels, SILL_CERTAINTY_LOW);
    CHECK(c.max_changed == 15 && (c.certainty_of_labels != SILL_CERTAINTY_NONE) && c.passed == (c.changed_percent <= 15));
}

static void too_much_lost_leaves_nothing(void) {
    sill_quantize_options o = some(SILL_QUANTIZE_Q4);
    sill_certificate c;
    sill_error e = {0};
    o.max_loss = 1e-12;
    sill_status s = sill_quantize(GPT2, in_dir("r.gguf"), &o, &c, &e);
    if (s == SILL_OK) { /* four bits happened to be better here: ask for the impossible with the other model */
        unlink(in_dir("r.gguf"));
        unlink(in_dir("r.gguf.certificate.json"));
        s = sill_quantize(STORIES, in_dir("r.gguf"), &o, &c, &e);
    }
    CHECK_INT(s, SILL_ERANGE);
    CHECK(!c.passed && c.loss_percent > 0 && c.n_tokens > 0);
    CHECK(strstr(e.msg, "--force"));
    CHECK(!exists(in_dir("r.gguf")) && !exists(in_dir("r.gguf.certificate.json")) && !exists(in_dir("r.gguf.partial")));
    o.force = 1;
    CHECK_OK(sill_quantize(STORIES, in_dir("r.gguf"), &o, &c, &e), e);
    CHECK(exists(in_dir("r.gguf")));
}

static int stop_at_measuring(void *user, const char *stage, double share) {
    (void)share;
    return strstr(stage, user) != NULL;
}

static void refusals_leave_nothing(void) {
    sill_quantize_options o = some(SILL_QUANTIZE_Q8);
    sill_error e = {0};
    CHECK_OK(sill_quantize(STORIES, in_dir("x.gguf"), &o, NULL, &e), e);
    CHECK_INT(sill_quantize(STORIES, in_dir("x.gguf"), &o, NULL, &e), SILL_EINVAL);
    CHECK(strstr(e.msg, "exists") && strstr(e.msg, "--overwrite"));
    CHECK_INT(sill_quantize(in_dir("x.gguf"), in_dir("x.gguf"), &o, NULL, &e), SILL_EINVAL); /* the model itself */
    CHECK_INT(sill_quantize(in_dir("x.gguf"), in_dir("y.gguf"), &o, NULL, &e), SILL_EUNSUPPORTED); /* nothing gets smaller */
    CHECK(strstr(e.msg, "already") && !exists(in_dir("y.gguf")) && !exists(in_dir("y.gguf.partial")));
    CHECK_INT(sill_quantize(in_dir("none"), in_dir("y.gguf"), &o, NULL, &e), SILL_ENOENT);
    CHECK(sill_quantize(STORIES, in_dir("no/such/dir"), &o, NULL, &e) == SILL_ENOENT);
    o.to = SILL_QUANTIZE_INT8;
    CHECK_INT(sill_quantize(STORIES, in_dir("y"), &o, NULL, &e), SILL_EUNSUPPORTED); /* from a GGUF */
    o.overwrite = 1;
    CHECK_INT(sill_quantize(GPT2, in_dir("x.gguf"), &o, NULL, &e), SILL_EINVAL); /* a file where a directory goes */
    o.to = SILL_QUANTIZE_Q8;
    o.n_texts = 1;
    one_size[0] = 0;
    CHECK_INT(sill_quantize(STORIES, in_dir("y.gguf"), &o, NULL, &e), SILL_EINVAL); /* an empty text measures nothing */
    CHECK(!exists(in_dir("y.gguf")) && !exists(in_dir("y.gguf.partial")));
    o.n_texts = 0;
    CHECK_INT(sill_quantize("tests/fixtures/task/head-gpt2", in_dir("y.gguf"), &o, NULL, &e), SILL_EUNSUPPORTED);
    CHECK(strstr(e.msg, "classification head"));
    char stage[] = "measuring the new";
    o = some(SILL_QUANTIZE_Q8);
    o.progress = stop_at_measuring;
    o.user = stage;
    CHECK_INT(sill_quantize(STORIES, in_dir("y.gguf"), &o, NULL, &e), SILL_ECANCELLED);
    CHECK(!exists(in_dir("y.gguf")) && !exists(in_dir("y.gguf.partial")) && !exists(in_dir("y.gguf.logits.partial")));
}

/* Something takes the output's name while the last windows are measured. */
static int take_the_name(void *user, const char *stage, double share) {
    (void)share;
    if (!strstr(stage, "measuring the new")) return 0;
    mkdir(user, 0700);
    return 0;
}

/* Giving the name is the last step: where it fails the work is not thrown away, and the old output is where it was. */
static void a_name_that_is_taken_keeps_the_work(void) {
    sill_quantize_options o = some(SILL_QUANTIZE_Q8);
    sill_error e = {0};
    char name[160], inside[200];
    o.progress = take_the_name;
    for (int overwrite = 0; overwrite < 2; overwrite++) {
        o.overwrite = overwrite;
        snprintf(name, sizeof name, "%s", in_dir(overwrite ? "t1.gguf" : "t0.gguf"));
        o.user = name;
        CHECK_INT(sill_quantize(STORIES, name, &o, NULL, &e), SILL_EIO);
        snprintf(inside, sizeof inside, "%s.partial", name);
        CHECK(strstr(e.msg, "is kept as") && strstr(e.msg, inside) && exists(inside));
        CHECK(rmdir(name) == 0 && access(inside, R_OK) == 0);
    }
    o = some(SILL_QUANTIZE_INT8);
    snprintf(name, sizeof name, "%s", in_dir("t2"));
    CHECK_OK(sill_quantize(GPT2, name, &o, NULL, &e), e);
    snprintf(inside, sizeof inside, "%s.old", name);
    o.overwrite = 1;
    o.progress = take_the_name;
    o.user = inside;
    char deep[224];
    snprintf(deep, sizeof deep, "%s/x", inside);
    CHECK(mkdir(inside, 0700) == 0);
    CHECK_INT(sill_quantize(GPT2, name, &o, NULL, &e), SILL_EINVAL); /* before any work */
    CHECK(rmdir(inside) == 0);
    CHECK_OK(sill_quantize(GPT2, name, &o, NULL, &e), e); /* an empty one that appears later is in nobody's way */
    CHECK(!exists(inside));
    snprintf(deep, sizeof deep, "%s/model.safetensors", name);
    CHECK(exists(deep));
}

/* A loss below zero says nothing alone: the distributions are other ones. */
static void agreement_and_divergence_have_limits(void) {
    sill_quantize_options o = some(SILL_QUANTIZE_Q4);
    sill_certificate c;
    sill_error e = {0};
    CHECK_OK(sill_quantize(STORIES, in_dir("g.gguf"), &o, &c, &e), e);
    CHECK(c.max_kl == 0.5 && c.min_agreement == 0.6 && c.max_loss == 10);
    o.overwrite = 1;
    o.max_loss = -1;
    o.max_kl = 1e-9;
    CHECK_INT(sill_quantize(STORIES, in_dir("g.gguf"), &o, &c, &e), SILL_ERANGE);
    CHECK(strstr(e.msg, "--max-kl") && !c.passed && exists(in_dir("g.gguf")) && !exists(in_dir("g.gguf.partial")));
    o.max_kl = -1;
    o.min_agreement = 1;
    CHECK_INT(sill_quantize(STORIES, in_dir("g.gguf"), &o, &c, &e), SILL_ERANGE);
    CHECK(strstr(e.msg, "--min-agreement") && c.top1_agreement < 1);
    o.min_agreement = -1;
    CHECK_OK(sill_quantize(STORIES, in_dir("g.gguf"), &o, &c, &e), e);
    CHECK(isinf(c.max_kl) && c.min_agreement == 0 && c.passed);
    o.min_agreement = 1.5;
    CHECK_INT(sill_quantize(STORIES, in_dir("g.gguf"), &o, &c, &e), SILL_EINVAL);
    const char *stage = NULL;
    o = some(SILL_QUANTIZE_Q8);
    o.progress = never;
    o.user = &stage;
    CHECK_INT(sill_quantize("tests/fixtures/model/gpt2-one", in_dir("mute.gguf"), &o, NULL, &e), SILL_EUNSUPPORTED);
    CHECK(!stage && strstr(e.msg, "no tokenizer")); /* before any work */
}

/* A weight that is not finite is named; nothing is left. */
static void damaged_weights_are_named(void) {
    float x[64];
    for (int i = 0; i < 64; i++) x[i] = (float)i;
    x[40] = NAN;
    sill__tensor t = {.name = "w", .type = SILL__TYPE_F32, .n_dims = 2, .dims = {2, 32}, .data = (const uint8_t *)x, .bytes = sizeof x};
    sill__copy c = {.name = "blk.0.w", .type = SILL__TYPE_Q8_0, .n_dims = 2, .dims = {2, 32}, .src = &t};
    sill__out *out;
    sill_error e = {0};
    REQUIRE(sill__out_create(in_dir("damaged"), &out, &e) == SILL_OK);
    CHECK_INT(sill__copy_write(&c, out, &e), SILL_EFORMAT);
    CHECK(strstr(e.msg, "blk.0.w"));
    x[40] = 3e38f; /* a scale that half precision cannot hold */
    CHECK_INT(sill__copy_write(&c, out, &e), SILL_ERANGE);
    sill__out_drop(out);
    CHECK(!exists(in_dir("damaged")));
}

static void no_memory_leaves_nothing(void) {
    sill_quantize_options o = {.size = sizeof o, .to = SILL_QUANTIZE_Q8, .overwrite = 1};
    sill_error e = {0};
    uint64_t before = sill__alloc_count();
    REQUIRE(sill_quantize(GPT2, in_dir("m.gguf"), &o, NULL, &e) == SILL_OK);
    uint64_t n = sill__alloc_count() - before;
    unlink(in_dir("m.gguf"));
    for (uint64_t i = 1; i <= n; i += 1 + n / 300) {
        sill__alloc_fail_at(i);
        sill_status s = sill_quantize(GPT2, in_dir("m.gguf"), &o, NULL, &e);
        sill__alloc_fail_at(0);
        if (s == SILL_OK) unlink(in_dir("m.gguf"));
        CHECK(!exists(in_dir("m.gguf")) && !exists(in_dir("m.gguf.partial")));
    }
}

int main(int argc, char **argv) {
    snprintf(dir, sizeof dir, "/tmp/sill_quantize_%ld", (long)getpid());
    if (mkdir(dir, 0700) != 0) return 2;
    TEST(tensors_are_those_expected);
    TEST(a_certificate_holds_together);
    TEST(intervals_are_students);
    TEST(few_tokens_are_no_proof);
    TEST(the_hash_tells_texts_apart);
    TEST(int8_is_read_again);
    TEST(shares_have_wilsons_interval);
    TEST(labels_are_compared);
    TEST(the_logits_of_a_window_count);
    TEST(hopeless_labels_are_refused_first);
    TEST(few_labels_are_no_proof);
    TEST(too_much_lost_leaves_nothing);
    TEST(refusals_leave_nothing);
    TEST(a_name_that_is_taken_keeps_the_work);
    TEST(agreement_and_divergence_have_limits);
    TEST(damaged_weights_are_named);
    TEST(no_memory_leaves_nothing);
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    if (system(command) != 0) return 2;
    TEST_EXIT();
}
