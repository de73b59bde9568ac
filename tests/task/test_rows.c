/* test_rows.c - what score and classify promise beyond the right numbers: texts that are too long, empty or broken, bad
 * options, cancelling, prompts and labels of every shape. */
#include "records.h"

#include "engine/engine.h"

enum { MAX_ROWS = 24 };

typedef struct call {
    test_rows source;
    int n_done, cancel_at;
    sill_scored scored[MAX_ROWS];
    sill_classified classified[MAX_ROWS];
    float logprobs[MAX_ROWS][256], logits[MAX_ROWS][16];
    char error[MAX_ROWS][512];
} call;

static sill_model *gpt2, *llama, *head;

static int next_row(void *user, sill_row *row) { return test_next(&((call *)user)->source, row); }

static int on_score(void *user, const sill_scored *r) {
    call *c = user;
    c->scored[r->index] = *r;
    snprintf(c->error[r->index], sizeof c->error[0], "%s", r->error ? r->error : "");
    if (r->status == SILL_OK && r->n_ids && r->n_ids <= 256) memcpy(c->logprobs[r->index], r->logprobs, r->n_ids * sizeof(float));
    double sum = 0;
    for (size_t i = 0; r->status == SILL_OK && i < r->n_ids; i++)
        if (!isnan(r->logprobs[i])) sum += r->logprobs[i];
    CHECK(sum == r->sum_logprob);
    return ++c->n_done == c->cancel_at;
}

static int on_label(void *user, const sill_classified *r) {
    call *c = user;
    c->classified[r->index] = *r;
    snprintf(c->error[r->index], sizeof c->error[0], "%s", r->error ? r->error : "");
    if (r->status == SILL_OK) memcpy(c->logits[r->index], r->logits, (size_t)r->n_labels * sizeof(float));
    else CHECK_INT(r->label, -1);
    return ++c->n_done == c->cancel_at;
}

static sill_status score(sill_session *s, const sill_score_options *o, sill_row *rows, int n, call *c) {
    sill_error err = {0};
    int cancel = c->cancel_at;
    memset(c, 0, sizeof *c);
    c->cancel_at = cancel;
    c->source = (test_rows){.rows = rows, .n = n};
    int32_t before = sill__session_free_blocks(s);
    sill_status st = sill_score(s, o, next_row, on_score, c, &err);
    CHECK_INT(sill__session_free_blocks(s), before);
    if (st != SILL_OK) CHECK(err.code == st && err.msg[0]);
    return st;
}

static sill_status classify(sill_session *s, const sill_classify_options *o, sill_row *rows, int n, call *c) {
    sill_error err = {0};
    int cancel = c->cancel_at;
    memset(c, 0, sizeof *c);
    c->cancel_at = cancel;
    c->source = (test_rows){.rows = rows, .n = n};
    int32_t before = sill__session_free_blocks(s);
    sill_status st = sill_classify(s, o, next_row, on_label, c, &err);
    CHECK_INT(sill__session_free_blocks(s), before);
    if (st != SILL_OK) CHECK(err.code == st && err.msg[0]);
    return st;
}

static sill_row text_row(uint64_t index, const char *text) {
    return (sill_row){.index = index, .text = text, .n_bytes = text ? strlen(text) : 0};
}

static void long_empty_and_broken_texts_are_scored_or_told(void) {
    static call c;
    static int32_t ids[200];
    sill_session *s = test_session(gpt2, 40, 16, 3);
    for (int i = 0; i < 200; i++) ids[i] = 3 + i * 13 % 300;
    sill_row rows[] = {{.index = 0, .ids = ids, .n_ids = 200}, text_row(1, ""), text_row(2, "a"), text_row(3, NULL),
                       {.index = 4, .ids = ids, .n_ids = 40}, {.index = 5, .ids = ids, .n_ids = 41}};
    sill_score_options o = {.size = sizeof o};
    REQUIRE(s && score(s, &o, rows, 6, &c) == SILL_OK);
    CHECK_INT(c.n_done, 6);
    CHECK_INT(c.scored[0].n_ids, 200);
    CHECK_INT(c.scored[0].n_scored, 199);
    CHECK_INT(c.scored[0].n_windows, 9); /* 40, then 20 more each */
    CHECK_INT(c.scored[1].n_ids, 0);
    CHECK_INT(c.scored[1].n_scored, 0);
    CHECK_INT(c.scored[2].n_scored, 0);
    CHECK(isnan(c.logprobs[2][0]));
    CHECK_INT(c.scored[3].status, SILL_EINVAL);
    CHECK_INT(c.scored[4].n_windows, 1);
    CHECK_INT(c.scored[5].n_windows, 2);
    o.bos = 1;
    REQUIRE(score(s, &o, rows, 6, &c) == SILL_OK);
    CHECK_INT(c.scored[1].n_scored, 0);
    CHECK_INT(c.scored[2].n_scored, 1);
    CHECK_INT(c.scored[2].n_ids, 1);
    CHECK_INT(c.scored[4].n_windows, 2); /* BOS takes a position */
    o = (sill_score_options){.size = sizeof o, .long_policy = SILL_LONG_ERROR};
    REQUIRE(score(s, &o, rows, 6, &c) == SILL_OK);
    CHECK_INT(c.scored[0].status, SILL_ERANGE);
    CHECK(strstr(c.error[0], "200") && strstr(c.error[0], "40"));
    CHECK_INT(c.scored[4].status, SILL_OK);
    CHECK_INT(c.scored[5].status, SILL_ERANGE);
    o.long_policy = SILL_LONG_TRUNCATE;
    REQUIRE(score(s, &o, rows, 6, &c) == SILL_OK);
    CHECK(c.scored[0].n_ids == 40 && c.scored[0].truncated && !c.scored[4].truncated);
    CHECK(!memcmp(c.logprobs[0] + 1, c.logprobs[4] + 1, 39 * sizeof(float)));
    sill_score_options bad[] = {{.stride = -1}, {.stride = 41}, {.long_policy = (sill_long)9}};
    for (int i = 0; i < 3; i++) {
        bad[i].size = sizeof bad[i];
        sill_status st = score(s, &bad[i], rows, 6, &c);
        CHECK(st == SILL_EINVAL || st == SILL_ERANGE);
    }
    c.cancel_at = 2;
    CHECK_INT(score(s, NULL, rows, 6, &c), SILL_ECANCELLED);
    c.cancel_at = 0;
    CHECK_INT(score(s, NULL, rows, 6, &c), SILL_OK);
    sill_session_free(s);
    s = test_session(head, 0, 0, 2);
    REQUIRE(s);
    CHECK_INT(score(s, NULL, rows, 1, &c), SILL_EUNSUPPORTED);
    sill_session_free(s);
}

/* Every stride gives every token exactly one log-probability. */
static void windows_of_every_stride(void) {
    static call c;
    static int32_t ids[60];
    sill_session *s = test_session(gpt2, 9, 7, 4);
    for (int i = 0; i < 60; i++) ids[i] = 3 + i * 13 % 300;
    for (int n = 2; n <= 60; n += 1 + n / 10)
        for (int stride = 1; stride <= 8; stride++) {
            sill_row row = {.index = 0, .ids = ids, .n_ids = (size_t)n};
            sill_score_options o = {.size = sizeof o, .stride = stride};
            REQUIRE(s && score(s, &o, &row, 1, &c) == SILL_OK);
            CHECK_INT(c.n_done, 1);
            CHECK_INT(c.scored[0].n_windows, n <= 9 ? 1 : 1 + (n - 9 + stride - 1) / stride);
            for (int i = 1; i < n; i++) CHECK(c.logprobs[0][i] < 0);
        }
    sill_session_free(s);
}

/* stride = n_ctx: each window is a text of its own, and its first token has no log-probability. */
static void windows_side_by_side(void) {
    static call c, d;
    static int32_t ids[60];
    sill_session *s = test_session(gpt2, 9, 7, 4);
    for (int i = 0; i < 60; i++) ids[i] = 3 + i * 13 % 300;
    for (int n = 1; n <= 40; n++) {
        sill_row row = {.index = 0, .ids = ids, .n_ids = (size_t)n};
        sill_score_options o = {.size = sizeof o, .stride = 9};
        REQUIRE(s && score(s, &o, &row, 1, &c) == SILL_OK);
        CHECK_INT(c.scored[0].status, SILL_OK);
        CHECK_INT(c.scored[0].n_scored, n - (n + 8) / 9);
        for (int at = 0; at < n; at += 9) {
            sill_row part = {.index = 0, .ids = ids + at, .n_ids = (size_t)SILL_MIN(9, n - at)};
            REQUIRE(score(s, NULL, &part, 1, &d) == SILL_OK);
            CHECK(isnan(c.logprobs[0][at]));
            CHECK(!memcmp(c.logprobs[0] + at + 1, d.logprobs[0] + 1, (part.n_ids - 1) * sizeof(float)));
        }
    }
    sill_session_free(s);
}

static void long_texts_for_labels(void) {
    static call c;
    static const char *labels[] = {"good", "bad", "the end"};
    char text[600];
    for (size_t i = 0; i < sizeof text - 1; i++) text[i] = "the film \xc3\xa9 "[i % 12];
    text[sizeof text - 1] = 0;
    sill_session *s = test_session(gpt2, 80, 0, 3);
    sill_row rows[] = {text_row(0, text), text_row(1, "short"), text_row(2, NULL), text_row(3, "")};
    sill_classify_options o = {.size = sizeof o, .labels = labels, .n_labels = 3, .no_chat = 1, .prompt = "Say: {text}\nIt is"};
    REQUIRE(s && classify(s, &o, rows, 4, &c) == SILL_OK);
    CHECK_INT(c.n_done, 4);
    CHECK_INT(c.classified[0].status, SILL_ERANGE);
    CHECK(strstr(c.error[0], "tokens") && strstr(c.error[0], "80"));
    CHECK_INT(c.classified[1].status, SILL_OK);
    CHECK_INT(c.classified[2].status, SILL_EINVAL);
    CHECK_INT(c.classified[3].status, SILL_OK);
    CHECK_INT(c.classified[3].n_tokens, 0);
    CHECK_INT(c.classified[3].needs_human, 1);
    CHECK(c.classified[3].label >= 0);
    o.needs_human_below = -1;
    REQUIRE(classify(s, &o, rows, 4, &c) == SILL_OK);
    CHECK_INT(c.classified[3].needs_human, 0);
    o.needs_human_below = 0;
    o.long_policy = SILL_LONG_TRUNCATE;
    REQUIRE(classify(s, &o, rows, 4, &c) == SILL_OK);
    CHECK(c.classified[0].status == SILL_OK && c.classified[0].truncated && !c.classified[1].truncated);
    CHECK(c.classified[0].n_tokens > 80);
    /* the template alone is too long */
    o.prompt = text;
    char *long_template = malloc(700);
    snprintf(long_template, 700, "%s{text}", text);
    o.prompt = long_template;
    CHECK(classify(s, &o, rows, 4, &c) != SILL_OK);
    free(long_template);
    sill_session_free(s);
}

/* A regression head gives a value: no label, no margin, nobody to ask. */
static void a_regression_head_has_no_label(void) {
    static call c;
    static int32_t ids[3] = {3, 4, 5};
    sill_model *m = test_model(FIXTURES "head-gpt2-regression", "cpu", 1);
    sill_session *s = test_session(m, 0, 0, 2);
    sill_row row = {.index = 0, .ids = ids, .n_ids = 3};
    sill_classify_options o = {.size = sizeof o, .needs_human_below = 5};
    REQUIRE(s && classify(s, &o, &row, 1, &c) == SILL_OK);
    const sill_classified *r = &c.classified[0];
    CHECK_INT(r->status, SILL_OK);
    CHECK_INT(r->n_labels, 1);
    CHECK_INT(r->label, -1);
    CHECK_INT(r->needs_human, 0);
    CHECK(isnan(r->margin) && isnan(r->entropy));
    sill_session_free(s);
    sill_model_free(m);
}

static void prompts_and_labels_that_are_refused(void) {
    static call c;
    static const char *labels[] = {"good", "bad"}, *same[] = {"good", "good"}, *empty[] = {"good", ""};
    sill_session *s = test_session(gpt2, 0, 0, 3);
    sill_row row = text_row(0, "x");
    sill_classify_options bad[] = {
        {.labels = labels, .n_labels = 2, .prompt = "no place"}, {.labels = labels, .n_labels = 2, .prompt = "{text} {text}"},
        {.labels = same, .n_labels = 2}, {.labels = empty, .n_labels = 2}, {.labels = labels, .n_labels = 0},
        {.labels = NULL}, {.labels = labels, .n_labels = 2, .long_policy = (sill_long)9},
        {.labels = labels, .n_labels = 2, .prob = (sill_prob)7}};
    for (size_t i = 0; i < SILL_ARRAY_LEN(bad); i++) {
        bad[i].size = sizeof bad[i];
        REQUIRE(s);
        if (classify(s, &bad[i], &row, 1, &c) == SILL_OK) FAIL("bad options %d were taken", (int)i);
        CHECK_INT(c.n_done, 0);
    }
    sill_session_free(s);
    s = test_session(head, 0, 0, 3);
    sill_classify_options o = {.size = sizeof o, .labels = labels, .n_labels = 2};
    REQUIRE(s);
    CHECK_INT(classify(s, &o, &row, 1, &c), SILL_EUNSUPPORTED);
    CHECK_INT(classify(s, NULL, &row, 1, &c), SILL_OK); /* no tokenizer: the row fails, not the run */
    CHECK_INT(c.classified[0].status, SILL_EUNSUPPORTED);
    static int32_t ids[50];
    for (int i = 0; i < 50; i++) ids[i] = 1 + i;
    sill_row rows[] = {{.index = 0, .ids = ids, .n_ids = 50}, {.index = 1, .ids = ids, .n_ids = 0}, {.index = 2, .ids = ids, .n_ids = 40}};
    CHECK_INT(classify(s, NULL, rows, 3, &c), SILL_OK);
    CHECK_INT(c.classified[0].status, SILL_ERANGE);
    CHECK_INT(c.classified[1].status, SILL_EINVAL);
    CHECK_INT(c.classified[2].status, SILL_OK);
    o = (sill_classify_options){.size = sizeof o, .long_policy = SILL_LONG_TRUNCATE};
    CHECK_INT(classify(s, &o, rows, 3, &c), SILL_OK);
    CHECK(c.classified[0].truncated && !memcmp(c.logits[0], c.logits[2], 3 * sizeof(float)));
    sill_session_free(s);
}

/* Ids in the place of text give what the text gives where its tokens do not merge with the template's. */
static void ids_in_a_prompt(void) {
    static call c, d;
    static const char *labels[] = {"good", "bad", "the end"};
    int32_t ids[32];
    size_t n = 0;
    sill_error err = {0};
    for (int chat = 0; chat < 2; chat++) {
        sill_session *s = test_session(gpt2, 0, 0, 3);
        CHECK_OK(sill_tokenize(sill_model_tokenizer(gpt2), " the film", 9, 0, ids, 32, &n, &err), err);
        sill_row text = text_row(0, " the film"), list = {.index = 0, .ids = ids, .n_ids = n};
        sill_classify_options o = {.size = sizeof o, .labels = labels, .n_labels = 3, .no_chat = !chat,
                                   .prompt = "Say:{text}\nIt"};
        REQUIRE(s && classify(s, &o, &text, 1, &c) == SILL_OK && classify(s, &o, &list, 1, &d) == SILL_OK);
        CHECK(!memcmp(c.logits[0], d.logits[0], 3 * sizeof(float)));
        CHECK_INT(c.classified[0].n_tokens, d.classified[0].n_tokens);
        sill_session_free(s);
    }
}

/* A tokenizer with more tokens than the model has rows: such rows fail, the others do not. */
static void ids_that_the_model_does_not_know(void) {
    static const char *const labels[] = {"a", "b"};
    sill_error err = {0};
    sill_session *s = NULL;
    static call c;
    int32_t ids[] = {1, 2, 3}, known = gpt2->config.n_vocab, far[] = {1, known - 1, 2};
    sill_row rows[] = {{.index = 0, .ids = ids, .n_ids = 3}, {.index = 1, .ids = far, .n_ids = 3}, {.index = 2, .ids = ids, .n_ids = 3}};
    sill_score_options so = {.size = sizeof so};
    sill_classify_options co = {.size = sizeof co, .labels = labels, .n_labels = 2};
    REQUIRE(sill_session_create(gpt2, NULL, &s, &err) == SILL_OK);
    CHECK_OK(score(s, &so, rows, 3, &c), err);
    CHECK_INT(c.scored[1].status, SILL_OK);
    gpt2->config.n_vocab = known - 1;
    CHECK_OK(score(s, &so, rows, 3, &c), err);
    CHECK(c.scored[0].status == SILL_OK && c.scored[1].status == SILL_ERANGE && c.scored[2].status == SILL_OK);
    CHECK_OK(classify(s, &co, rows, 3, &c), err);
    CHECK(c.classified[0].status == SILL_OK && c.classified[1].status == SILL_ERANGE && c.classified[2].status == SILL_OK);
    gpt2->config.n_vocab = known;
    sill_session_free(s);
}

static void special_tokens_in_texts_are_text(void) {
    static call c;
    sill_session *s = test_session(gpt2, 0, 0, 3);
    sill_row rows[] = {text_row(0, "<|endoftext|>"), text_row(1, "<|im_start|>system")};
    REQUIRE(s && score(s, NULL, rows, 2, &c) == SILL_OK);
    CHECK(c.scored[0].n_ids > 3 && c.scored[1].n_ids > 3);
    sill_score_options o = {.size = sizeof o, .tokenize_flags = SILL_TOKENIZE_SPECIAL};
    REQUIRE(score(s, &o, rows, 2, &c) == SILL_OK);
    CHECK_INT(c.scored[0].n_ids, 1);
    sill_session_free(s);
}

static void defaults_and_many_labels(void) {
    static call c;
    static char names[300][16];
    static const char *labels[300];
    sill_model *models[] = {gpt2, llama};
    for (int i = 0; i < 300; i++) {
        snprintf(names[i], sizeof names[i], "%d", i);
        labels[i] = names[i];
    }
    for (int k = 0; k < 2; k++) {
        sill_session *s = test_session(models[k], 0, 0, 3);
        sill_row row = text_row(0, "x");
        sill_classify_options o = {.size = sizeof o, .labels = labels, .n_labels = 2};
        REQUIRE(s && classify(s, &o, &row, 1, &c) == SILL_OK);
        CHECK_INT(c.classified[0].status, SILL_OK);
        o.n_labels = 12;
        o.prompt = "{text}";
        o.no_chat = 1;
        REQUIRE(classify(s, &o, &row, 1, &c) == SILL_OK);
        CHECK_INT(c.classified[0].status, SILL_OK);
        o.needs_human_below = -1;
        REQUIRE(classify(s, &o, &row, 1, &c) == SILL_OK);
        CHECK_INT(c.classified[0].needs_human, 0);
        o.needs_human_below = 2;
        REQUIRE(classify(s, &o, &row, 1, &c) == SILL_OK);
        CHECK_INT(c.classified[0].needs_human, 1);
        c.cancel_at = 1;
        CHECK_INT(classify(s, &o, &row, 1, &c), SILL_ECANCELLED);
        c.cancel_at = 0;
        sill_session_free(s);
    }
}

int main(int argc, char **argv) {
    gpt2 = test_model(FIXTURES "gpt2", "cpu", 1);
    llama = test_model(FIXTURES "llama", "cpu", 1);
    head = test_model(FIXTURES "head-gpt2", "cpu", 1);
    TEST(long_empty_and_broken_texts_are_scored_or_told);
    TEST(windows_of_every_stride);
    TEST(windows_side_by_side);
    TEST(long_texts_for_labels);
    TEST(a_regression_head_has_no_label);
    TEST(prompts_and_labels_that_are_refused);
    TEST(ids_in_a_prompt);
    TEST(ids_that_the_model_does_not_know);
    TEST(special_tokens_in_texts_are_text);
    TEST(defaults_and_many_labels);
    sill_model_free(gpt2);
    sill_model_free(llama);
    sill_model_free(head);
    TEST_EXIT();
}
