/*
 * test_nomem.c - every allocation fails once: loading, a session and each task end with ENOMEM and a message, hold
 * nothing afterwards (the leak checker of the sanitize build looks), and work when tried again.
 */
#include "test.h"

#define MODEL "tests/fixtures/stories260K/stories260K.gguf"
#define DIRECTORY "tests/fixtures/task/gpt2"

static int given;
static int next(void *user, sill_row *row) {
    (void)user;
    if (given == 2) return 0;
    *row = (sill_row){.index = (uint64_t)given++, .text = "Once upon a time", .n_bytes = 16};
    return 1;
}

/* Results, so that a row that failed for want of memory is seen too. */
static sill_status row_status;
static int generated(void *user, const sill_generated *g) { (void)user; if (g->status != SILL_OK) row_status = g->status; return 0; }
static int scored(void *user, const sill_scored *s) { (void)user; if (s->status != SILL_OK) row_status = s->status; return 0; }
static int embedded(void *user, const sill_embedded *s) { (void)user; if (s->status != SILL_OK) row_status = s->status; return 0; }
static int classified(void *user, const sill_classified *c) { (void)user; if (c->status != SILL_OK) row_status = c->status; return 0; }

static sill_model *model, *directory;
static sill_session *session;

static sill_status try_load(sill_error *err) {
    sill_model *m = NULL;
    sill_status status = sill_model_load(MODEL, NULL, &m, err);
    CHECK((status == SILL_OK) == (m != NULL));
    sill_model_free(m);
    return status;
}
static sill_status try_session(sill_error *err) {
    sill_session *s = NULL;
    sill_session_options o = {.size = sizeof o, .n_ctx = 128};
    sill_status status = sill_session_create(model, &o, &s, err);
    CHECK((status == SILL_OK) == (s != NULL));
    sill_session_free(s);
    return status;
}
static sill_status try_generate(sill_error *err) {
    sill_generate_options o = {.size = sizeof o, .max_new_tokens = 4, .do_sample = 1, .top_p = 0.9f, .repetition_penalty = 1.1f, .logprobs = 2};
    return sill_generate(session, &o, next, generated, 1, NULL, err);
}
static sill_status try_guesses(sill_error *err) {
    sill_session *s = NULL;
    sill_session_options so = {.size = sizeof so, .n_ctx = 128, .max_sequences = 4};
    sill_generate_options o = {.size = sizeof o, .max_new_tokens = 8, .prompt_lookup_num_tokens = 3};
    sill_status status = sill_generate(session, &o, next, generated, 1, NULL, err);
    if (status == SILL_OK) status = sill_session_create(model, &so, &s, err);
    o = (sill_generate_options){.size = sizeof o, .max_new_tokens = 8, .assistant = s};
    if (status == SILL_OK) status = sill_generate(session, &o, next, generated, 1, NULL, err);
    sill_session_free(s);
    return status;
}
static sill_status try_preset(sill_error *err) {
    sill_generate_options o = {.size = sizeof o};
    sill_status status = sill_generate_preset(directory, "hf-4", &o, err);
    CHECK((status == SILL_OK) == (o.max_new_tokens != 0));
    return status;
}
static sill_status try_score(sill_error *err) { return sill_score(session, NULL, next, scored, NULL, err); }
static sill_status try_boundaries(sill_error *err) {
    sill_score_options o = {.size = sizeof o, .boundaries = 1, .bos = 1};
    return sill_score(session, &o, next, scored, NULL, err);
}
static sill_status try_embed(sill_error *err) { return sill_embed(session, NULL, next, embedded, NULL, err); }
static sill_status try_classify(sill_error *err) {
    const char *labels[] = {"good", "bad", "neither"};
    sill_classify_options o = {.size = sizeof o, .labels = labels, .n_labels = 3, .prob = SILL_PROB_CALIBRATED};
    return sill_classify(session, &o, next, classified, NULL, err);
}
static sill_status try_codebook(sill_error *err) {
    static const char text[] = "{\"multi_label\": true, \"labels\": [\"good\", \"bad\"], \"examples\": [{\"text\": \"x\", \"labels\": [\"bad\"]}]}";
    sill_codebook *book = NULL;
    int32_t *ids = NULL;
    size_t n, n_prompt;
    sill_status status = sill_codebook_parse(text, sizeof text - 1, "book", &book, err);
    sill_classify_options o = {.size = sizeof o, .codebook = book};
    if (status == SILL_OK) status = sill_classify(session, &o, next, classified, NULL, err);
    if (status == SILL_OK) status = sill_classify_prompt(model, &o, "x", 1, 1, &ids, &n, &n_prompt, err);
    CHECK((status == SILL_OK) == (ids != NULL));
    sill_free(ids);
    sill_codebook_free(book);
    return status;
}
static sill_status try_inspect(sill_error *err) {
    char *json = NULL;
    sill_status status = sill_inspect(MODEL, &json, err);
    CHECK((status == SILL_OK) == (json != NULL));
    sill_free(json);
    return status;
}

/* Fails the 1st, 2nd, ... allocation until the work gets through; far ones in growing steps, to stay quick. */
static void torture(const char *name, sill_status (*work)(sill_error *)) {
    uint64_t before = sill__alloc_count();
    sill_error err = {0};
    given = 0;
    row_status = SILL_OK;
    sill_status status = work(&err);
    CHECK_OK(status, err);
    CHECK_INT(row_status, SILL_OK);
    uint64_t total = sill__alloc_count() - before;
    uint64_t refused = 0;
    for (uint64_t n = 1; n <= total; n += n < 150 ? 1 : 1 + n / 64) {
        err = (sill_error){0};
        given = 0;
        row_status = SILL_OK;
        sill__alloc_fail_at(n);
        status = work(&err);
        sill__alloc_fail_at(0);
        if (status == SILL_OK && row_status == SILL_OK) continue; /* an allocation it can do without */
        refused++;
        if (status != SILL_OK && status != SILL_ENOMEM) FAIL("%s: allocation %llu failed with status %d: %s", name, (unsigned long long)n, status, err.msg);
        if (status == SILL_OK && row_status != SILL_ENOMEM) FAIL("%s: allocation %llu gave a row status %d", name, (unsigned long long)n, row_status);
        if (status != SILL_OK && !err.msg[0]) FAIL("%s: allocation %llu failed without a message", name, (unsigned long long)n);
    }
    CHECK(total == 0 || refused > 0);
    err = (sill_error){0};
    given = 0;
    row_status = SILL_OK;
    status = work(&err);
    CHECK_OK(status, err);
    CHECK_INT(row_status, SILL_OK);
}

static void test_load_without_memory(void) { torture("load", try_load); }
static void test_session_without_memory(void) { torture("session", try_session); }
static void test_generate_without_memory(void) { torture("generate", try_generate); }
static void test_guesses_without_memory(void) { torture("guesses", try_guesses); }
static void test_preset_without_memory(void) { torture("preset", try_preset); }
static void test_score_without_memory(void) { torture("score", try_score); }
static void test_boundaries_without_memory(void) { torture("boundaries", try_boundaries); }
static void test_embed_without_memory(void) { torture("embed", try_embed); }
static void test_classify_without_memory(void) { torture("classify", try_classify); }
static void test_codebook_without_memory(void) { torture("codebook", try_codebook); }
static void test_inspect_without_memory(void) { torture("inspect", try_inspect); }

int main(int argc, char **argv) {
    sill_error err = {0};
    sill_session_options so = {.size = sizeof so, .n_ctx = 256};
    if (sill_model_load(MODEL, NULL, &model, &err) != SILL_OK || sill_session_create(model, &so, &session, &err) != SILL_OK ||
        sill_model_load(DIRECTORY, NULL, &directory, &err) != SILL_OK) {
        printf("FAIL loading %s or %s: %s\n", MODEL, DIRECTORY, err.msg);
        return 1;
    }
    TEST(test_load_without_memory);
    TEST(test_session_without_memory);
    TEST(test_generate_without_memory);
    TEST(test_guesses_without_memory);
    TEST(test_preset_without_memory);
    TEST(test_score_without_memory);
    TEST(test_boundaries_without_memory);
    TEST(test_embed_without_memory);
    TEST(test_classify_without_memory);
    TEST(test_codebook_without_memory);
    TEST(test_inspect_without_memory);
    sill_session_free(session);
    sill_model_free(directory);
    sill_model_free(model);
    TEST_EXIT();
}
