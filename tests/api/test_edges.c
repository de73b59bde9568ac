/*
 * test_edges.c - the edges of sill.h: what a caller may get wrong comes back as a status and a message that names
 * it, never as a crash; old and new option sizes; results too large for their buffers; cancelling.
 */
#include <limits.h>
#include "test.h"

#define MODEL "tests/fixtures/stories260K/stories260K.gguf"
#define PROMPT "Once upon a time"

static sill_model *model;
static sill_session *session;
static sill_error err;

/* Options that make no sense: the caller's fault, by whichever name fits, and said. */
static bool refused(sill_status status) {
    return (status == SILL_EINVAL || status == SILL_ERANGE || status == SILL_EUNSUPPORTED) && err.code == status && strlen(err.msg) > 8;
}

/* A refusal: the wanted code, a message, and the same code in the error. */
#define REFUSED(call, want)                                                                        \
    do {                                                                                           \
        err = (sill_error){0};                                                                     \
        sill_status got_ = (call);                                                                 \
        CHECK_INT(got_, want);                                                                     \
        CHECK_INT(err.code, got_);                                                                 \
        CHECK(strlen(err.msg) > 8);                                                                \
    } while (0)

/* A row that is given COUNT times, and what came of it. */
typedef struct rows {
    sill_row row;
    int count, given, answers, bad, cancel_next, cancel_done;
    sill_status status;
    char text[512], error[512];
} rows;

static rows rows_of(const char *text, int count) {
    return (rows){.row = {.text = text, .n_bytes = strlen(text)}, .count = count};
}
static int next(void *user, sill_row *row) {
    rows *r = user;
    if (r->cancel_next) return -1;
    if (r->given == r->count) return 0;
    *row = r->row;
    row->index = (uint64_t)r->given++;
    return 1;
}
static int note(rows *r, sill_status status, const char *error) {
    r->answers++;
    r->status = status;
    if (status != SILL_OK) r->bad++;
    snprintf(r->error, sizeof r->error, "%s", error ? error : "");
    return r->cancel_done;
}
static int generated(void *user, const sill_generated *g) {
    rows *r = user;
    if (!g->final) return 0;
    snprintf(r->text, sizeof r->text, "%.*s", (int)g->n_bytes, g->n_bytes ? g->text : "");
    return note(r, g->status, g->error);
}
static int scored(void *user, const sill_scored *s) { return note(user, s->status, s->error); }
static int classified(void *user, const sill_classified *c) { return note(user, c->status, c->error); }

static void test_status_texts(void) {
#define SILL_X(name, value, text) CHECK_STR(sill_status_text(SILL_##name), text);
    SILL_STATUS_LIST(SILL_X)
#undef SILL_X
    CHECK_STR(sill_status_text((sill_status)99), "unknown status");
    CHECK_STR(sill_status_text((sill_status)-1), "unknown status");
    CHECK_STR(sill_version(), SILL_VERSION_STRING);
}

static void test_free_null(void) {
    sill_free(NULL);
    sill_model_free(NULL);
    sill_session_free(NULL);
    sill_tokenizer_free(NULL);
}

static void test_load_refuses(void) {
    sill_model *m = (sill_model *)(void *)&model;
    REFUSED(sill_model_load(NULL, NULL, &m, &err), SILL_EINVAL);
    CHECK(!m);
    REFUSED(sill_model_load(MODEL, NULL, NULL, &err), SILL_EINVAL);
    REFUSED(sill_model_load("tests/no/such/model", NULL, &m, &err), SILL_ENOENT);
    REFUSED(sill_model_load("", NULL, &m, &err), SILL_EINVAL);
    sill_model_options o = {0};
    REFUSED(sill_model_load(MODEL, &o, &m, &err), SILL_EINVAL); /* size forgotten */
    o = (sill_model_options){.size = sizeof o, .dtype = (sill_dtype)77};
    REFUSED(sill_model_load(MODEL, &o, &m, &err), SILL_EINVAL);
    o = (sill_model_options){.size = sizeof o, .n_threads = -1};
    REFUSED(sill_model_load(MODEL, &o, &m, &err), SILL_EINVAL);
    o = (sill_model_options){.size = sizeof o, .device = "abacus"};
    REFUSED(sill_model_load(MODEL, &o, &m, &err), SILL_EUNSUPPORTED);
    o = (sill_model_options){.size = sizeof o, .memory_limit_bytes = 1000};
    REFUSED(sill_model_load(MODEL, &o, &m, &err), SILL_ENOFIT);
    REFUSED(sill_model_load("tests/test.h", NULL, &m, &err), SILL_EFORMAT); /* a file, but no model */
    CHECK(!m);
    CHECK_INT(sill_model_load("tests/no/such/model", NULL, &m, NULL), SILL_ENOENT); /* no error wanted */
}

static void test_session_refuses(void) {
    sill_session *s = NULL;
    REFUSED(sill_session_create(NULL, NULL, &s, &err), SILL_EINVAL);
    REFUSED(sill_session_create(model, NULL, NULL, &err), SILL_EINVAL);
    sill_session_options o = {0};
    REFUSED(sill_session_create(model, &o, &s, &err), SILL_EINVAL);
    o = (sill_session_options){.size = sizeof o, .kv_dtype = (sill_kv_dtype)9};
    REFUSED(sill_session_create(model, &o, &s, &err), SILL_EINVAL);
    o = (sill_session_options){.size = sizeof o, .n_ctx = -5};
    REFUSED(sill_session_create(model, &o, &s, &err), SILL_EINVAL);
    o = (sill_session_options){.size = sizeof o, .batch_tokens = -1};
    REFUSED(sill_session_create(model, &o, &s, &err), SILL_EINVAL);
    o = (sill_session_options){.size = sizeof o, .max_sequences = INT_MIN};
    REFUSED(sill_session_create(model, &o, &s, &err), SILL_EINVAL);
    o = (sill_session_options){.size = sizeof o, .memory_limit_bytes = 100};
    REFUSED(sill_session_create(model, &o, &s, &err), SILL_ENOFIT);
    CHECK(!s);
    sill_plan_info plan;
    REFUSED(sill_plan(NULL, NULL, NULL, &plan, &err), SILL_EINVAL);
    REFUSED(sill_plan(MODEL, NULL, NULL, NULL, &err), SILL_EINVAL);
    REFUSED(sill_plan("tests/no/such/model", NULL, NULL, &plan, &err), SILL_ENOENT);
    char *json = NULL;
    REFUSED(sill_inspect(NULL, &json, &err), SILL_EINVAL);
    REFUSED(sill_inspect(MODEL, NULL, &err), SILL_EINVAL);
}

/* A caller built against an older header passes a smaller struct: the fields it does not know are defaults. */
static void test_older_structs(void) {
    err = (sill_error){0};
    sill_model *m = NULL;
    sill_model_options o = {.size = offsetof(sill_model_options, n_threads), .n_threads = -1};
    sill_status status = sill_model_load(MODEL, &o, &m, &err);
    CHECK_OK(status, err);
    sill_model_free(m);
    char text[256];
    size_t n = 0;
    sill_generate_options g = {.size = offsetof(sill_generate_options, max_length), .max_new_tokens = 3, .temperature = -1};
    status = sill_generate_text(session, PROMPT, &g, text, sizeof text, &n, &err);
    CHECK_OK(status, err);
    sill_model_info info;
    memset(&info, 0x55, sizeof info);
    sill_model_get_info(model, &info, offsetof(sill_model_info, device));
    CHECK_STR(info.family, "llama");
    CHECK_INT(info.device[0], 0x55);
    CHECK_INT(info.n_threads, 0x55555555);
}

static void test_info(void) {
    sill_model_info info;
    sill_model_get_info(model, &info, sizeof info);
    CHECK_STR(info.family, "llama");
    CHECK_INT(info.n_layers, 5);
    CHECK_INT(info.n_vocab, 512);
    CHECK_INT(info.n_labels, 0);
    CHECK(!sill_model_label(model, 0) && !sill_model_label(model, -1));
    CHECK(sill_model_tokenizer(model) != NULL);
    CHECK_INT(sill_tokenizer_n_vocab(sill_model_tokenizer(model)), 512);
    CHECK(sill_row_key("a", 1) != sill_row_key("b", 1));
    CHECK(sill_row_key("a", 1) == sill_row_key("a", 1));
    CHECK(sill_row_key(NULL, 0) == sill_row_key("", 0));
}

static void test_tokenizer_edges(void) {
    const sill_tokenizer *t = sill_model_tokenizer(model);
    int32_t ids[64];
    char text[64];
    size_t n = 99;
    err = (sill_error){0};
    sill_tokenizer *other = NULL;
    REFUSED(sill_tokenizer_load(NULL, &other, &err), SILL_EINVAL);
    REFUSED(sill_tokenizer_load(MODEL, NULL, &err), SILL_EINVAL);
    REFUSED(sill_tokenize(NULL, "a", 1, 0, ids, 64, &n, &err), SILL_EINVAL);
    REFUSED(sill_tokenize(t, NULL, 5, 0, ids, 64, &n, &err), SILL_EINVAL);
    REFUSED(sill_tokenize(t, "a", 1, 0, NULL, 64, &n, &err), SILL_EINVAL);
    REFUSED(sill_tokenize(t, "a", 1, 0, ids, 64, NULL, &err), SILL_EINVAL);
    sill_token_span spans[64];
    char token[8];
    int32_t *chat = NULL;
    const char *role = "user";
    REFUSED(sill_tokenize_spans(NULL, "a", 1, 0, ids, spans, 64, &n, &err), SILL_EINVAL);
    REFUSED(sill_tokenize_spans(t, "a", 1, 0, ids, NULL, 64, &n, &err), SILL_EINVAL);
    REFUSED(sill_tokenize_spans(t, "a", 1, 64, ids, spans, 64, &n, &err), SILL_EINVAL);
    REFUSED(sill_token_text(NULL, 1, token, sizeof token, &n, &err), SILL_EINVAL);
    REFUSED(sill_token_text(t, 1, token, sizeof token, NULL, &err), SILL_EINVAL);
    REFUSED(sill_token_text(t, 1 << 30, token, sizeof token, &n, &err), SILL_ERANGE);
    REFUSED(sill_tokenizer_chat(NULL, &role, &role, 1, 0, &chat, &n, &err), SILL_EINVAL);
    REFUSED(sill_tokenizer_chat(t, &role, NULL, 1, 0, &chat, &n, &err), SILL_EINVAL);
    REFUSED(sill_tokenizer_chat(t, &role, &role, 1, 2, &chat, &n, &err), SILL_EINVAL);
    REFUSED(sill_tokenizer_chat(t, &role, &role, 1, 0, &chat, &n, &err), SILL_EUNSUPPORTED); /* has no template */
    sill_status status = sill_tokenize(t, NULL, 0, 0, ids, 64, &n, &err);
    CHECK_OK(status, err);
    CHECK_INT(n, 0);
    REFUSED(sill_tokenize(t, PROMPT, strlen(PROMPT), 0, ids, 1, &n, &err), SILL_ERANGE);
    CHECK(n > 1);
    size_t whole = n;
    status = sill_tokenize(t, PROMPT, strlen(PROMPT), 0, NULL, 0, &n, NULL); /* only the length is asked */
    CHECK_INT(status, SILL_ERANGE);
    CHECK_INT(n, whole);
    CHECK(sill_tokenize_bound(t, strlen(PROMPT)) >= whole);

    int32_t wrong[] = {-1, 512, INT_MAX, INT_MIN};
    for (size_t i = 0; i < SILL_ARRAY_LEN(wrong); i++)
        REFUSED(sill_detokenize(t, &wrong[i], 1, 0, text, sizeof text, &n, &err), SILL_ERANGE);
    REFUSED(sill_detokenize(NULL, ids, 1, 0, text, sizeof text, &n, &err), SILL_EINVAL);
    REFUSED(sill_detokenize(t, NULL, 1, 0, text, sizeof text, &n, &err), SILL_EINVAL);
    REFUSED(sill_detokenize(t, ids, 1, 0, text, sizeof text, NULL, &err), SILL_EINVAL);
    status = sill_tokenize(t, PROMPT, strlen(PROMPT), 0, ids, 64, &n, &err);
    CHECK_OK(status, err);
    REFUSED(sill_detokenize(t, ids, whole, 0, text, 3, &n, &err), SILL_ERANGE);
    CHECK(n >= strlen(PROMPT));
    CHECK(sill_detokenize_bound(t, ids, whole) >= n);
}

static void test_logits_edges(void) {
    int32_t ids[] = {1, 403, 407, -1, 512};
    float *out = sill__calloc(3 * 512, sizeof *out);
    err = (sill_error){0};
    REQUIRE(out);
    sill_status status = sill_logits(session, ids, 3, out, &err);
    CHECK_OK(status, err);
    CHECK(isfinite(out[0]) && isfinite(out[3 * 512 - 1]));
    REFUSED(sill_logits(NULL, ids, 3, out, &err), SILL_EINVAL);
    REFUSED(sill_logits(session, NULL, 3, out, &err), SILL_EINVAL);
    REFUSED(sill_logits(session, ids, 3, NULL, &err), SILL_EINVAL);
    REFUSED(sill_logits(session, ids + 2, 2, out, &err), SILL_ERANGE);
    REFUSED(sill_logits(session, ids + 4, 1, out, &err), SILL_ERANGE);
    REFUSED(sill_logits(session, ids, 1u << 30, out, &err), SILL_ERANGE);
    status = sill_logits(session, ids, 3, out, &err); /* and it still works */
    CHECK_OK(status, err);
    sill__free(out);
}

static void test_generate_refuses(void) {
    rows r = rows_of(PROMPT, 1);
    REFUSED(sill_generate(NULL, NULL, next, generated, 0, &r, &err), SILL_EINVAL);
    REFUSED(sill_generate(session, NULL, NULL, generated, 0, &r, &err), SILL_EINVAL);
    REFUSED(sill_generate(session, NULL, next, NULL, 0, &r, &err), SILL_EINVAL);
    const sill_generate_options wrong[] = {
        {.size = 0},
        {.size = sizeof wrong[0], .max_new_tokens = -1},
        {.size = sizeof wrong[0], .max_length = -1},
        {.size = sizeof wrong[0], .min_new_tokens = -1},
        {.size = sizeof wrong[0], .do_sample = 1, .temperature = -0.5f},
        {.size = sizeof wrong[0], .do_sample = 1, .temperature = NAN},
        {.size = sizeof wrong[0], .do_sample = 1, .top_k = -7},
        {.size = sizeof wrong[0], .do_sample = 1, .top_p = 1.5f},
        {.size = sizeof wrong[0], .do_sample = 1, .top_p = -0.1f},
        {.size = sizeof wrong[0], .do_sample = 1, .min_p = 2},
        {.size = sizeof wrong[0], .do_sample = 1, .typical_p = -1},
        {.size = sizeof wrong[0], .do_sample = 1, .epsilon_cutoff = 1.5f},
        {.size = sizeof wrong[0], .do_sample = 1, .eta_cutoff = -1},
        {.size = sizeof wrong[0], .repetition_penalty = -1},
        {.size = sizeof wrong[0], .no_repeat_ngram_size = -1},
        {.size = sizeof wrong[0], .num_return_sequences = -1},
        {.size = sizeof wrong[0], .num_return_sequences = 2}, /* greedy gives one */
        {.size = sizeof wrong[0], .long_policy = (sill_long)50},
        {.size = sizeof wrong[0], .stop = NULL, .n_stop = 1},
        {.size = sizeof wrong[0], .bias_ids = NULL, .n_bias = 1},
        {.size = sizeof wrong[0], .bad_words = NULL, .n_bad_words = 1},
        {.size = sizeof wrong[0], .prompt_lookup_num_tokens = -1},
        {.size = sizeof wrong[0], .prompt_lookup_num_tokens = 2, .max_matching_ngram_size = -1},
        {.size = sizeof wrong[0], .assistant = session},
        {.size = sizeof wrong[0], .prompt_lookup_num_tokens = 2, .num_beams = 2},
    };
    for (size_t i = 0; i < SILL_ARRAY_LEN(wrong); i++) {
        err = (sill_error){0};
        r = rows_of(PROMPT, 1);
        sill_status status = sill_generate(session, &wrong[i], next, generated, 0, &r, &err);
        if (!refused(status)) FAIL("options %zu: status %d, \"%s\"", i, status, err.msg);
    }
    char text[8];
    size_t n = 0;
    REFUSED(sill_generate_text(NULL, PROMPT, NULL, text, sizeof text, &n, &err), SILL_EINVAL);
    REFUSED(sill_generate_text(session, NULL, NULL, text, sizeof text, &n, &err), SILL_EINVAL);
    REFUSED(sill_generate_text(session, PROMPT, NULL, NULL, 8, &n, &err), SILL_EINVAL);
    REFUSED(sill_generate_text(session, PROMPT, NULL, text, sizeof text, &n, &err), SILL_ERANGE);
}

/* Rows that cannot be done are reported one by one, and the call goes on. */
static void test_bad_rows(void) {
    err = (sill_error){0};
    int32_t wrong_id = 9999;
    rows r = {.row = {.ids = &wrong_id, .n_ids = 1}, .count = 3};
    sill_status status = sill_generate(session, NULL, next, generated, 0, &r, &err);
    CHECK_OK(status, err);
    CHECK_INT(r.answers, 3);
    CHECK_INT(r.bad, 3);
    CHECK(strlen(r.error) > 8);
    r = (rows){.row = {.ids = &wrong_id, .n_ids = 1}, .count = 2};
    status = sill_score(session, NULL, next, scored, &r, &err);
    CHECK_OK(status, err);
    CHECK_INT(r.bad, 2);
    /* Longer than the context: an error by default, done under the other policies. */
    static char longer[8000];
    memset(longer, 'x', sizeof longer - 1);
    r = rows_of(longer, 2);
    sill_generate_options g = {.size = sizeof g, .max_new_tokens = 4};
    status = sill_generate(session, &g, next, generated, 0, &r, &err);
    CHECK_OK(status, err);
    CHECK_INT(r.bad, 2);
    g.long_policy = SILL_LONG_TRUNCATE;
    r = rows_of(longer, 2);
    status = sill_generate(session, &g, next, generated, 0, &r, &err);
    CHECK_OK(status, err);
    CHECK_INT(r.answers, 2);
    CHECK_INT(r.bad, 0);
    r = rows_of(longer, 2);
    status = sill_score(session, NULL, next, scored, &r, &err); /* windows by default */
    CHECK_OK(status, err);
    CHECK_INT(r.answers, 2);
    CHECK_INT(r.bad, 0);
}

static void test_cancel(void) {
    rows r = rows_of(PROMPT, 5);
    r.cancel_next = 1;
    REFUSED(sill_generate(session, NULL, next, generated, 0, &r, &err), SILL_ECANCELLED);
    REFUSED(sill_score(session, NULL, next, scored, &r, &err), SILL_ECANCELLED);
    r = rows_of(PROMPT, 5);
    r.cancel_done = 1;
    REFUSED(sill_generate(session, NULL, next, generated, 0, &r, &err), SILL_ECANCELLED);
    CHECK_INT(r.answers, 1);
    r = rows_of(PROMPT, 5);
    r.cancel_done = 1;
    REFUSED(sill_score(session, NULL, next, scored, &r, &err), SILL_ECANCELLED);
    CHECK_INT(r.answers, 1);
    /* A session is as good as new after a cancelled call. */
    err = (sill_error){0};
    char before[512], text[512];
    size_t n = 0;
    sill_status status = sill_generate_text(session, PROMPT, NULL, before, sizeof before, &n, &err);
    CHECK_OK(status, err);
    r = rows_of("Lily went", 3);
    r.cancel_done = 1;
    REFUSED(sill_generate(session, NULL, next, generated, 0, &r, &err), SILL_ECANCELLED);
    status = sill_generate_text(session, PROMPT, NULL, text, sizeof text, &n, &err);
    CHECK_OK(status, err);
    CHECK_STR(text, before);
}

static void test_score_and_classify_refuse(void) {
    rows r = rows_of(PROMPT, 1);
    REFUSED(sill_score(NULL, NULL, next, scored, &r, &err), SILL_EINVAL);
    REFUSED(sill_score(session, NULL, NULL, scored, &r, &err), SILL_EINVAL);
    REFUSED(sill_score(session, NULL, next, NULL, &r, &err), SILL_EINVAL);
    sill_score_options s = {.size = sizeof s, .stride = -1};
    REFUSED(sill_score(session, &s, next, scored, &r, &err), SILL_ERANGE);
    s = (sill_score_options){.size = sizeof s, .long_policy = (sill_long)-1};
    REFUSED(sill_score(session, &s, next, scored, &r, &err), SILL_EINVAL);
    s = (sill_score_options){0};
    REFUSED(sill_score(session, &s, next, scored, &r, &err), SILL_EINVAL);

    const char *labels[] = {"good", "bad", NULL};
    sill_classify_options c = {.size = sizeof c, .labels = labels, .n_labels = 2};
    REFUSED(sill_classify(NULL, &c, next, classified, &r, &err), SILL_EINVAL);
    REFUSED(sill_classify(session, &c, NULL, classified, &r, &err), SILL_EINVAL);
    REFUSED(sill_classify(session, &c, next, NULL, &r, &err), SILL_EINVAL);
    const sill_classify_options wrong[] = {
        {.size = 0, .labels = labels, .n_labels = 2},
        {.size = sizeof wrong[0], .labels = labels, .n_labels = 0},
        {.size = sizeof wrong[0], .labels = labels, .n_labels = 100000},
        {.size = sizeof wrong[0], .labels = labels, .n_labels = 3}, /* a NULL among them */
        {.size = sizeof wrong[0], .labels = labels, .n_labels = 2, .prompt = "no place for it"},
        {.size = sizeof wrong[0], .labels = labels, .n_labels = 2, .prob = (sill_prob)9},
        {.size = sizeof wrong[0], .labels = labels, .n_labels = 2, .long_policy = (sill_long)9},
    };
    for (size_t i = 0; i < SILL_ARRAY_LEN(wrong); i++) {
        err = (sill_error){0};
        r = rows_of(PROMPT, 1);
        sill_status status = sill_classify(session, &wrong[i], next, classified, &r, &err);
        if (!refused(status)) FAIL("options %zu: status %d, \"%s\"", i, status, err.msg);
    }
    /* No labels and no head. */
    err = (sill_error){0};
    sill_status status = sill_classify(session, NULL, next, classified, &r, &err);
    CHECK(status == SILL_EINVAL || status == SILL_EUNSUPPORTED);
    CHECK(strlen(err.msg) > 8);
}

static void test_no_rows(void) {
    err = (sill_error){0};
    rows r = rows_of(PROMPT, 0);
    const char *labels[] = {"good", "bad"};
    sill_classify_options c = {.size = sizeof c, .labels = labels, .n_labels = 2};
    sill_status status = sill_generate(session, NULL, next, generated, 0, &r, &err);
    CHECK_OK(status, err);
    status = sill_score(session, NULL, next, scored, &r, &err);
    CHECK_OK(status, err);
    status = sill_classify(session, &c, next, classified, &r, &err);
    CHECK_OK(status, err);
    CHECK_INT(r.answers, 0);
}

int main(int argc, char **argv) {
    sill_session_options so = {.size = sizeof so, .n_ctx = 256};
    if (sill_model_load(MODEL, NULL, &model, &err) != SILL_OK || sill_session_create(model, &so, &session, &err) != SILL_OK) {
        printf("FAIL loading %s: %s\n", MODEL, err.msg);
        return 1;
    }
    TEST(test_status_texts);
    TEST(test_free_null);
    TEST(test_load_refuses);
    TEST(test_session_refuses);
    TEST(test_older_structs);
    TEST(test_info);
    TEST(test_tokenizer_edges);
    TEST(test_logits_edges);
    TEST(test_generate_refuses);
    TEST(test_bad_rows);
    TEST(test_cancel);
    TEST(test_score_and_classify_refuse);
    TEST(test_no_rows);
    sill_session_free(session);
    sill_model_free(model);
    TEST_EXIT();
}
