/* test_labels.c - codebooks and classification heads against what transformers makes of the same prompts and outputs
 * (tests/fixtures/task/labels.txt, made by tools/fixtures/make_labels.py), on the reference and on the fast backend; the tokens
 * that are computed for a row; multi-label. */
#include "records.h"

#include "engine/engine.h"

typedef struct want {
    test_rows source;
    const rec *r;
    int called;
    bool multi;
} want;

static int next_row(void *user, sill_row *row) { return test_next(&((want *)user)->source, row); }

static sill_codebook *book_of(const char *name) {
    char path[128];
    sill_error err = {0};
    sill_codebook *book = NULL;
    snprintf(path, sizeof path, FIXTURES "codebooks/%s.json", name);
    CHECK_OK(sill_codebook_load(path, &book, &err), err);
    return book;
}

/* ---- codebooks */

static void check_list(const rec *r, const char *key, const float *got, int n, double tolerance) {
    double expected[16];
    int m = rec_floats(r, key, expected, 16);
    if (m != n) FAIL("%s has %d numbers, expected %d", key, n, m);
    for (int i = 0; i < SILL_MIN(n, m); i++)
        if (!(fabs((double)got[i] - expected[i]) <= tolerance))
            FAIL("%s %s chat %s \"%s\": %s[%d] is %.9g, expected %.9g", rec_text(r, "model"), rec_text(r, "book"), rec_text(r, "chat"),
                 rec_text(r, "text") ? rec_text(r, "text") : "", key, i, (double)got[i], expected[i]);
}

static int check_book(void *user, const sill_classified *g) {
    want *w = user;
    float sums[16];
    double expected[16];
    int n = rec_floats(w->r, "sums", expected, 16);
    w->called++;
    if (g->status != SILL_OK) {
        FAIL("%s", g->error);
        return 0;
    }
    CHECK_INT(n, w->multi ? 2 * g->n_labels : g->n_labels);
    if (w->multi) {
        for (int i = 0; i < g->n_labels; i++) {
            CHECK_NEAR(g->logits[i], expected[i] - expected[g->n_labels + i], 4e-4);
            CHECK_INT(g->chosen[i], g->probs[i] >= 0.5f);
        }
    } else {
        memcpy(sums, g->logits, (size_t)n * sizeof *sums);
        check_list(w->r, "sums", sums, n, 2e-4);
        CHECK(!g->chosen);
    }
    check_list(w->r, "raw", g->raw, g->n_labels, 1e-4);
    check_list(w->r, "norm", g->norm, g->n_labels, 1e-4);
    check_list(w->r, "calibrated", g->calibrated, g->n_labels, 1e-4);
    CHECK(g->probs == g->norm);
    return 0;
}

static void check_prompt(const rec *r, const sill_model *m, const sill_classify_options *o, const char *text, int32_t label) {
    static int32_t want_ids[1024];
    int32_t *ids = NULL;
    size_t n = 0, n_prompt = 0;
    sill_error err = {0};
    int expected = rec_ints(r, "prompt", want_ids, 1024);
    CHECK_OK(sill_classify_prompt(m, o, text, strlen(text), label, &ids, &n, &n_prompt, &err), err);
    if ((int)n_prompt != expected) FAIL("%s %s chat %s: %d prompt ids, expected %d", rec_text(r, "model"), rec_text(r, "book"), rec_text(r, "chat"), (int)n_prompt, expected);
    for (int i = 0; i < SILL_MIN((int)n_prompt, expected); i++)
        if (ids[i] != want_ids[i]) {
            FAIL("%s %s chat %s: prompt id %d is %d, expected %d", rec_text(r, "model"), rec_text(r, "book"), rec_text(r, "chat"), i, ids[i], want_ids[i]);
            break;
        }
    CHECK(n > n_prompt);
    sill_free(ids);
}

static void books(const char *device) {
    recs rs;
    int n = 0, n_multi = 0, n_single = 0;
    REQUIRE(recs_open_file(&rs, "labels.txt"));
    while (recs_next(&rs, "book")) {
        const rec *r = &rs.now;
        int32_t words[16];
        sill_error err = {0};
        sill_codebook_info info;
        sill_codebook *book = book_of(rec_text(r, "book"));
        sill_model *m = model_of(r, device);
        sill_session *s = test_session(m, 0, 0, 3);
        REQUIRE(s && book);
        sill_codebook_get_info(book, &info, sizeof info);
        sill_classify_options o = {.size = sizeof o, .codebook = book, .no_chat = rec_number(r, "chat") == 0, .chat = rec_number(r, "chat") != 0};
        sill_row row = {.text = rec_text(r, "text") ? rec_text(r, "text") : ""};
        row.n_bytes = strlen(row.text);
        want w = {.source = {.rows = &row, .n = 1}, .r = r, .multi = info.multi_label != 0};
        int k = rec_ints(r, "words", words, 16);
        n_multi += w.multi && k == 2 && words[0] > 1;
        n_single += w.multi && k == 2 && words[0] == 1 && words[1] == 1;
        check_prompt(r, m, &o, row.text, w.multi ? info.n_labels - 1 : 0);
        CHECK_OK(sill_classify(s, &o, next_row, check_book, &w, &err), err);
        CHECK_INT(w.called, 1);
        sill_session_free(s);
        sill_codebook_free(book);
        n++;
    }
    recs_close(&rs);
    CHECK(n >= 90);
    CHECK(n_multi >= 10 && n_single >= 10); /* yes and no of several tokens, and of one */
}

/* ---- texts that are cut into pieces */

static int check_long(void *user, const sill_classified *g) {
    want *w = user;
    w->called++;
    if (g->status != SILL_OK) {
        FAIL("%s", g->error);
        return 0;
    }
    CHECK_INT(g->n_windows, rec_number(w->r, "windows"));
    CHECK(!g->truncated && g->n_tokens > 40);
    check_list(w->r, "raw", g->raw, g->n_labels, 1e-4);
    check_list(w->r, "norm", g->norm, g->n_labels, 1e-4);
    check_list(w->r, "calibrated", g->calibrated, g->n_labels, 1e-4);
    check_list(w->r, "logits", g->logits, g->n_labels, 4e-4);
    for (int32_t i = 0; i < g->n_labels; i++) CHECK(w->multi ? g->chosen[i] == (g->probs[i] >= 0.5f) : g->probs[i] <= g->probs[g->label]);
    return 0;
}

static void long_texts(const char *device) {
    recs rs;
    int n = 0;
    REQUIRE(recs_open_file(&rs, "labels.txt"));
    while (recs_next(&rs, "long")) {
        const rec *r = &rs.now;
        sill_error err = {0};
        sill_codebook_info info;
        sill_codebook *book = book_of(rec_text(r, "book"));
        sill_model *m = model_of(r, device);
        sill_session *s = test_session(m, (int)rec_number(r, "n_ctx"), 0, 3);
        REQUIRE(s && book);
        sill_codebook_get_info(book, &info, sizeof info);
        sill_classify_options o = {.size = sizeof o, .codebook = book, .no_chat = rec_number(r, "chat") == 0, .chat = rec_number(r, "chat") != 0,
                                   .long_policy = strcmp(rec_text(r, "long"), "window") ? SILL_LONG_SPLIT_MEAN : SILL_LONG_WINDOW};
        sill_row row = {.text = rec_text(r, "text"), .n_bytes = strlen(rec_text(r, "text"))};
        want w = {.source = {.rows = &row, .n = 1}, .r = r, .multi = info.multi_label != 0};
        CHECK_OK(sill_classify(s, &o, next_row, check_long, &w, &err), err);
        CHECK_INT(w.called, 1);
        sill_session_free(s);
        sill_codebook_free(book);
        n++;
    }
    recs_close(&rs);
    CHECK(n >= 60);
}

/* ---- heads */

static int check_head(void *user, const sill_classified *g) {
    want *w = user;
    const char *labels[8];
    const char *function = rec_text(w->r, "function"), *best = rec_text(w->r, "best");
    bool regression = strstr(rec_text(w->r, "model"), "regression") || strstr(rec_text(w->r, "model"), "values");
    w->called++;
    if (g->status != SILL_OK) {
        FAIL("%s", g->error);
        return 0;
    }
    int n = rec_split(rec_text(w->r, "labels"), labels, 8);
    check_list(w->r, "scores", g->probs, n, 1e-4);
    if (regression) CHECK_INT(g->label, -1);
    else CHECK_STR(labels[g->label], best);
    bool multi = !regression && n > 1 && (!strcmp(function, "sigmoid") || (!strcmp(function, "auto") && strstr(rec_text(w->r, "model"), "multi")));
    CHECK_INT(g->chosen != NULL, multi);
    for (int i = 0; multi && i < n; i++) CHECK_INT(g->chosen[i], g->probs[i] >= 0.7f);
    if (!strcmp(function, "none") || regression) CHECK(isnan(g->margin) && !g->needs_human);
    else CHECK(g->margin >= 0);
    return 0;
}

static void heads(const char *device) {
    static const char *const names[] = {"auto", "softmax", "sigmoid", "none"};
    recs rs;
    int n = 0;
    REQUIRE(recs_open_file(&rs, "labels.txt"));
    while (recs_next(&rs, "head")) {
        int32_t ids[64];
        sill_error err = {0};
        sill_model_info info;
        sill_model *m = model_of(&rs.now, device);
        sill_session *s = test_session(m, 0, 0, 3);
        REQUIRE(s);
        sill_model_get_info(m, &info, sizeof info);
        bool regression = !strcmp(info.problem_type, "regression");
        CHECK_INT(regression, strstr(rec_text(&rs.now, "model"), "regression") || strstr(rec_text(&rs.now, "model"), "values"));
        sill_row row = {.ids = ids, .n_ids = (size_t)rec_ints(&rs.now, "ids", ids, 64)};
        sill_classify_options o = {.size = sizeof o, .threshold = 0.7f};
        for (int i = 0; i < 4; i++)
            if (!strcmp(rec_text(&rs.now, "function"), names[i])) o.head_function = (sill_head_function)i;
        want w = {.source = {.rows = &row, .n = 1}, .r = &rs.now};
        if (regression && (o.head_function == SILL_HEAD_SIGMOID || o.head_function == SILL_HEAD_SOFTMAX)) {
            CHECK_INT(sill_classify(s, &o, next_row, check_head, &w, &err), SILL_EUNSUPPORTED); /* its values are no labels */
        } else {
            CHECK_OK(sill_classify(s, &o, next_row, check_head, &w, &err), err);
            CHECK_INT(w.called, 1);
        }
        sill_session_free(s);
        n++;
    }
    recs_close(&rs);
    CHECK(n >= 90);
}

/* ---- what is computed */

enum { N_ROWS = 9 };
typedef struct kept { test_rows source; int n; float probs[N_ROWS][4], margin[N_ROWS]; int32_t human[N_ROWS], chosen[N_ROWS]; uint64_t tokens; } kept;

static int next_kept(void *user, sill_row *row) { return test_next(&((kept *)user)->source, row); }
static int keep(void *user, const sill_classified *g) {
    kept *k = user;
    CHECK_INT(g->status, SILL_OK);
    if (g->status != SILL_OK) return 0;
    memcpy(k->probs[g->index], g->probs, (size_t)g->n_labels * sizeof(float));
    k->margin[g->index] = g->margin;
    k->human[g->index] = g->needs_human;
    k->chosen[g->index] = g->n_chosen;
    k->n++;
    return 0;
}

static const char *const texts[N_ROWS] = {"the film was good", "a bad story", "", "war and money and war", "x", "no", "yes yes", "It is a film about the sea.", "good"};

static void run(sill_model *m, const sill_classify_options *o, int batch, int sequences, kept *k) {
    sill_row rows[N_ROWS];
    sill_error err = {0};
    sill_session *s = test_session(m, 0, batch, sequences);
    REQUIRE(s);
    memset(k, 0, sizeof *k);
    for (int i = 0; i < N_ROWS; i++) rows[i] = (sill_row){.index = (uint64_t)i, .text = texts[i], .n_bytes = strlen(texts[i])};
    k->source = (test_rows){.rows = rows, .n = N_ROWS};
    int32_t before = sill__session_free_blocks(s);
    CHECK_OK(sill_classify(s, o, next_kept, keep, k, &err), err);
    CHECK_INT(k->n, N_ROWS);
    CHECK_INT(sill__session_free_blocks(s), before);
    k->tokens = sill__session_n_computed(s);
    sill_session_free(s);
}

static size_t prompt_tokens(sill_model *m, const sill_classify_options *o, const char *text, int32_t label, int32_t **ids) {
    size_t n, n_prompt = 0;
    sill_error err = {0};
    CHECK_OK(sill_classify_prompt(m, o, text, strlen(text), label, ids, &n, &n_prompt, &err), err);
    return n_prompt;
}

static size_t same_ids(const int32_t *a, size_t n_a, const int32_t *b, size_t n_b) {
    size_t n = 0;
    while (n < n_a && n < n_b && a[n] == b[n]) n++;
    return n;
}

/* What all rows begin with is computed once: exactly so many tokens go through the model as are left of the prompts, and the words'
 * tokens behind their first. */
static void the_prefix_is_computed_once(void) {
    static kept shared, anew;
    for (int chat = 0; chat < 2; chat++) {
        sill_model *m = test_model(FIXTURES "labels-gpt2", "cpu", 2);
        sill_codebook *book = book_of("film");
        sill_classify_options o = {.size = sizeof o, .codebook = book, .no_chat = !chat};
        int32_t *first, *other, *ids;
        size_t n_first = prompt_tokens(m, &o, "a", 0, &first), n_other = prompt_tokens(m, &o, "1", 0, &other);
        size_t prefix = same_ids(first, n_first, other, n_other), whole = 0, rest = 0;
        size_t more = 0; /* tokens of the words that continue forks */
        for (int32_t label = 0; label < 3; label++) {
            size_t n = 0, n_prompt = 0;
            sill_error err = {0};
            CHECK_OK(sill_classify_prompt(m, &o, "a", 1, label, &ids, &n, &n_prompt, &err), err);
            if (n - n_prompt > 1) more += n - n_prompt - 1;
            sill_free(ids);
        }
        CHECK(prefix > 60 && more > 0);
        for (int i = -1; i < N_ROWS; i++) { /* the content-free text is a row too */
            size_t n = prompt_tokens(m, &o, i < 0 ? "N/A" : texts[i], 0, &ids);
            whole += n + more;
            rest += n - SILL_MIN(same_ids(ids, n, first, prefix), n - 1) + more;
            sill_free(ids);
        }
        run(m, &o, 0, 4, &shared);
        CHECK_INT(shared.tokens, prefix + rest);
        o.no_shared_prefix = 1;
        run(m, &o, 0, 4, &anew);
        CHECK_INT(anew.tokens, whole);
        CHECK(anew.tokens > 3 * shared.tokens);
        CHECK(!memcmp(shared.probs, anew.probs, sizeof shared.probs)); /* the same bits */
        sill_free(first);
        sill_free(other);
        sill_codebook_free(book);
        sill_model_free(m);
    }
}

/* The questions of all labels are forks of one prompt: the text is computed once a row, the prefix once. */
static void questions_share_the_text(void) {
    static kept shared, anew, small;
    sill_model *m = test_model(FIXTURES "labels-gpt2", "cpu", 2);
    sill_codebook *book = book_of("topics");
    sill_classify_options o = {.size = sizeof o, .codebook = book, .no_chat = 1};
    int32_t *first, *other, *ids[3];
    size_t n_first = prompt_tokens(m, &o, "a", 0, &first), n_other = prompt_tokens(m, &o, "1", 0, &other);
    size_t prefix = same_ids(first, n_first, other, n_other), expected = prefix;
    for (int i = -1; i < N_ROWS; i++) {
        size_t n[3], common = 1000;
        for (int k = 0; k < 3; k++) n[k] = prompt_tokens(m, &o, i < 0 ? "N/A" : texts[i], k, &ids[k]);
        for (int k = 0; k < 3; k++) common = SILL_MIN(common, same_ids(ids[0], n[0], ids[k], n[k]));
        common = SILL_MIN(common, SILL_MIN(n[0], SILL_MIN(n[1], n[2])) - 1);
        expected += common - SILL_MIN(same_ids(ids[0], common, first, prefix), common - 1);
        for (int k = 0; k < 3; k++) {
            expected += n[k] - common;
            sill_free(ids[k]);
        }
    }
    run(m, &o, 0, 4, &shared);
    CHECK_INT(shared.tokens, expected);
    o.no_shared_prefix = 1;
    run(m, &o, 0, 4, &anew);
    CHECK(anew.tokens > 2 * shared.tokens);
    run(m, &o, 5, 1, &small); /* pieces of 5 tokens, one sequence at a time */
    CHECK(!memcmp(shared.probs, anew.probs, sizeof shared.probs) && !memcmp(shared.probs, small.probs, sizeof shared.probs));
    sill_free(first);
    sill_free(other);
    sill_codebook_free(book);
    sill_model_free(m);
}

/* ---- long texts in company */

enum { N_LONG = 24 };
typedef struct longs {
    test_rows source;
    int n;
    int32_t windows[N_LONG];
    float probs[N_LONG][3][4], logits[N_LONG][4];
    char error[N_LONG][256];
} longs;

static int next_long(void *user, sill_row *row) { return test_next(&((longs *)user)->source, row); }
static int keep_long(void *user, const sill_classified *g) {
    longs *k = user;
    k->n++;
    k->windows[g->index] = g->status == SILL_OK ? g->n_windows : 0;
    snprintf(k->error[g->index], sizeof k->error[0], "%s", g->error ? g->error : "");
    for (int32_t i = 0; g->status == SILL_OK && i < g->n_labels; i++) {
        k->probs[g->index][0][i] = g->raw[i];
        k->probs[g->index][1][i] = g->norm[i];
        k->probs[g->index][2][i] = g->calibrated[i];
        k->logits[g->index][i] = g->logits[i];
    }
    return 0;
}

static void label_long(sill_session *s, const sill_classify_options *o, const sill_row *rows, int n, longs *k) {
    sill_error err = {0};
    int32_t before = sill__session_free_blocks(s);
    k->source = (test_rows){.rows = rows, .n = n};
    CHECK_OK(sill_classify(s, o, next_long, keep_long, k, &err), err);
    CHECK_INT(sill__session_free_blocks(s), before);
}

/* The same bits alone, in company, in chunks, backwards, with one text at a time and without the shared prefix; a text of one piece
 * as it is without the policy; rows of ids too. */
static void long_texts_in_company(void) {
    static const struct { int batch, sequences; bool turned, anew; } ways[] = {{0, 8, false, false}, {5, 3, true, false}, {0, 1, false, true}};
    static const char *const books_of[] = {"film", "topics"};
    static char words[N_LONG][700];
    static int32_t ids[200];
    static longs alone, all;
    sill_row rows[N_LONG], turned[N_LONG];
    uint64_t random = 5;
    for (int i = 0; i < N_LONG; i++) {
        static const char *const some[] = {"war ", "good ", "The film was ", "x", "\n\n", "\xe6\x98\xa0\xe7\x94\xbb ", "yes, ", "   ", "money\n"};
        for (int k = (int)(test_random(&random) % (i % 3 ? 60 : 3)); k >= 0; k--)
            strcat(words[i], some[test_random(&random) % SILL_ARRAY_LEN(some)]);
        rows[i] = (sill_row){.index = (uint64_t)i, .text = words[i], .n_bytes = strlen(words[i])};
    }
    for (int i = 0; i < 200; i++) ids[i] = 3 + i * 7 % 300;
    rows[4] = (sill_row){.index = 4, .ids = ids, .n_ids = 200};
    rows[9] = (sill_row){.index = 9, .ids = ids, .n_ids = 7};
    for (size_t b = 0; b < 2; b++)
        for (int policy = SILL_LONG_WINDOW; policy <= SILL_LONG_SPLIT_MEAN; policy++) {
            sill_model *m = test_model(FIXTURES "labels-gpt2", "cpu", 2);
            sill_codebook *book = book_of(books_of[b]);
            sill_classify_options o = {.size = sizeof o, .codebook = book, .no_chat = 1, .long_policy = (sill_long)policy};
            int32_t *prompt;
            const size_t n_prompt = prompt_tokens(m, &o, "", 0, &prompt);
            const int n_ctx = 30 + (int)SILL_MAX(n_prompt, b ? (size_t)180 : 0);
            sill_free(prompt);
            int several = 0, single = 0;
            memset(&alone, 0, sizeof alone);
            for (size_t k = 0; k < SILL_ARRAY_LEN(ways); k++) {
                sill_session *s = test_session(m, n_ctx, ways[k].batch, ways[k].sequences);
                REQUIRE(s && book);
                o.no_shared_prefix = ways[k].anew;
                for (int i = 0; i < N_LONG; i++) {
                    turned[i] = rows[ways[k].turned ? N_LONG - 1 - i : i];
                    if (k == 0) label_long(s, &o, rows + i, 1, &alone);
                }
                memset(&all, 0, sizeof all);
                label_long(s, &o, turned, N_LONG, &all);
                CHECK_INT(all.n, N_LONG);
                CHECK(!memcmp(all.windows, alone.windows, sizeof all.windows) && !memcmp(all.probs, alone.probs, sizeof all.probs) &&
                      !memcmp(all.logits, alone.logits, sizeof all.logits));
                sill_session_free(s);
            }
            o.long_policy = SILL_LONG_ERROR;
            sill_session *s = test_session(m, n_ctx, 0, 4);
            memset(&all, 0, sizeof all);
            label_long(s, &o, rows, N_LONG, &all);
            for (int i = 0; i < N_LONG; i++) {
                several += alone.windows[i] > 1;
                single += alone.windows[i] == 1;
                CHECK(alone.windows[i] > 0);
                CHECK(alone.windows[i] > 1 ? strstr(all.error[i], "split-mean") != NULL : !memcmp(all.probs[i], alone.probs[i], sizeof all.probs[i]));
            }
            if (several < 5 || single < 5) FAIL("%s: %d texts in pieces, %d not", books_of[b], several, single);
            /* No room for a piece; the content-free text is never cut. */
            o.long_policy = (sill_long)policy;
            o.content_free = words[0];
            sill_session *tight = test_session(m, n_ctx - 30, 0, 2);
            sill_error err = {0};
            all.source = (test_rows){.rows = rows, .n = 1};
            if (b == 0 && tight) CHECK(sill_classify(tight, &o, next_long, keep_long, &all, &err) == SILL_ERANGE && strstr(err.msg, "content-free input"));
            sill_session_free(tight);
            sill_session_free(s);
            sill_codebook_free(book);
            sill_model_free(m);
        }
}

/* ---- what is said of the probabilities */

static void thresholds(void) {
    static kept k;
    sill_model *m = test_model(FIXTURES "labels-gpt2", "cpu", 2);
    const char *labels[] = {"good", "about war", "bad"};
    sill_classify_options o = {.size = sizeof o, .labels = labels, .n_labels = 3, .multi_label = 1, .no_chat = 1, .needs_human_below = -1};
    for (int step = 0; step < 5; step++) {
        o.threshold = 0.1f + 0.2f * (float)step;
        o.min_confidence = 0.55f + 0.05f * (float)step;
        run(m, &o, 0, 4, &k);
        for (int i = 0; i < N_ROWS; i++) {
            int chosen = 0;
            float margin = 2, confidence = 1;
            for (int j = 0; j < 3; j++) {
                float p = k.probs[i][j];
                chosen += p >= o.threshold;
                margin = fminf(margin, 2 * fabsf(p - o.threshold));
                confidence = fminf(confidence, fmaxf(p, 1 - p));
            }
            CHECK_INT(k.chosen[i], chosen);
            CHECK_NEAR(k.margin[i], margin, 1e-6);
            CHECK_INT(k.human[i], confidence < o.min_confidence);
        }
    }
    o = (sill_classify_options){.size = sizeof o, .labels = labels, .n_labels = 3, .no_chat = 1, .needs_human_below = -1, .min_confidence = 0.5f};
    run(m, &o, 0, 4, &k);
    for (int i = 0; i < N_ROWS; i++) CHECK_INT(k.human[i], fmaxf(k.probs[i][0], fmaxf(k.probs[i][1], k.probs[i][2])) < 0.5f);
    sill_model_free(m);
}

static sill_status status_of(sill_model *m, const sill_classify_options *o, sill_error *err) {
    static kept k;
    sill_model_info info;
    sill_model_get_info(m, &info, sizeof info);
    sill_session *s = test_session(m, SILL_MIN(100, info.n_ctx), 0, 2);
    sill_row row = {.text = "a", .n_bytes = 1};
    memset(&k, 0, sizeof k);
    memset(err, 0, sizeof *err);
    k.source = (test_rows){.rows = &row, .n = 1};
    int32_t before = sill__session_free_blocks(s);
    sill_status st = sill_classify(s, o, next_kept, keep, &k, err);
    CHECK_INT(sill__session_free_blocks(s), before);
    sill_session_free(s);
    return st;
}

static void bad_options(void) {
    sill_model *m = test_model(FIXTURES "labels-gpt2", "cpu", 1), *llama = test_model(FIXTURES "labels-llama", "cpu", 1),
               *plain = test_model("tests/fixtures/stories260K/stories260K.gguf", "cpu", 1), *head = test_model(FIXTURES "head-gpt2", "cpu", 1);
    sill_codebook *book = book_of("plain"), *film = book_of("film");
    const char *labels[] = {"a", "b"};
    sill_error err;
    const struct { sill_model *m; sill_classify_options o; sill_status status; const char *says; } cases[] = {
        {m, {.labels = labels, .n_labels = 2, .codebook = book}, SILL_EINVAL, "its own labels"},
        {m, {.codebook = book, .chat = 1, .no_chat = 1}, SILL_EINVAL, "exclude"},
        {plain, {.codebook = book, .chat = 1}, SILL_EUNSUPPORTED, "no chat template"},
        {head, {.codebook = book}, SILL_EUNSUPPORTED, "no language-model head"},
        {m, {.codebook = book, .threshold = 1.5f}, SILL_ERANGE, "threshold"},
        {m, {.codebook = book, .threshold = NAN}, SILL_ERANGE, "threshold"},
        {m, {.codebook = book, .min_confidence = -1}, SILL_ERANGE, "min_confidence"},
        {m, {.codebook = book, .multi_label = 1, .prompt = "{text} yes?"}, SILL_EINVAL, "{label} nowhere"},
        {m, {.codebook = book, .multi_label = 1, .prompt = "{label}: {text}"}, SILL_EINVAL, "in front of {text}"},
        {head, {.head_function = (sill_head_function)7}, SILL_EINVAL, "head_function"},
        {head, {.multi_label = 1, .head_function = SILL_HEAD_SOFTMAX}, SILL_EINVAL, "sigmoid"},
        {m, {.codebook = film, .chat = 1}, SILL_ERANGE, "before the row's text"},
    };
    for (size_t i = 0; i < SILL_ARRAY_LEN(cases); i++) {
        sill_classify_options o = cases[i].o;
        o.size = sizeof o;
        sill_status st = status_of(cases[i].m, &o, &err);
        if (st != cases[i].status || !strstr(err.msg, cases[i].says)) FAIL("case %zu: status %d, \"%s\"", i, (int)st, err.msg);
    }
    sill_classify_options o = {.size = sizeof o, .codebook = book, .multi_label = 1, .no_chat = 1, .prompt = "{text}{label}"};
    int32_t *ids;
    size_t n, n_prompt;
    CHECK_INT(sill_classify_prompt(m, &o, "x", 1, 2, &ids, &n, &n_prompt, &err), SILL_ERANGE);
    sill_codebook_free(book);
    sill_codebook_free(film);
    sill_model_free(m);
    sill_model_free(llama);
    sill_model_free(plain);
    sill_model_free(head);
}

/* A text that is too long is cut for the longest question, or its row fails. */
static void long_texts_of_several_labels(void) {
    static char text[4000];
    static kept k;
    sill_model *m = test_model(FIXTURES "labels-gpt2", "cpu", 2);
    const char *labels[] = {"good", "about the war of the sea and the sky and the sun and money"};
    sill_classify_options o = {.size = sizeof o, .labels = labels, .n_labels = 2, .multi_label = 1, .no_chat = 1, .long_policy = SILL_LONG_TRUNCATE};
    sill_error err = {0};
    sill_session *s = test_session(m, 160, 0, 2);
    for (size_t i = 0; i + 1 < sizeof text; i++) text[i] = i % 7 ? (char)('a' + i % 23) : ' ';
    sill_row rows[] = {{.index = 0, .text = text, .n_bytes = strlen(text)}, {.index = 1, .text = "x", .n_bytes = 1}};
    k.source = (test_rows){.rows = rows, .n = 2};
    CHECK_OK(sill_classify(s, &o, next_kept, keep, &k, &err), err);
    CHECK_INT(k.n, 2);
    CHECK(k.probs[0][0] > 0 && k.probs[0][1] > 0);
    sill_session_free(s);
    sill_model_free(m);
}

static void ref_books(void) { books("ref"); }
static void cpu_books(void) { books("cpu"); }
static void ref_long_texts(void) { long_texts("ref"); }
static void cpu_long_texts(void) { long_texts("cpu"); }
static void ref_heads(void) { heads("ref"); }
static void cpu_heads(void) { heads("cpu"); }

int main(int argc, char **argv) {
    TEST(ref_books);
    TEST(cpu_books);
    TEST(ref_long_texts);
    TEST(cpu_long_texts);
    TEST(long_texts_in_company);
    TEST(ref_heads);
    TEST(cpu_heads);
    TEST(the_prefix_is_computed_once);
    TEST(questions_share_the_text);
    TEST(thresholds);
    TEST(bad_options);
    TEST(long_texts_of_several_labels);
    free_models();
    TEST_EXIT();
}
