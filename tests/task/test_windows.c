/*
 * test_windows.c - embeddings, texts with a context, texts longer than the context and the beginnings of words against what
 * transformers makes of the same models (tests/fixtures/task/windows.txt, made by tools/fixtures/make_windows.py), on the
 * reference and on the fast backend; and the same bits in any company.
 */
#include "records.h"

#include "engine/engine.h"

#define MAX_IDS 1024
enum { MAX_ROWS = 40, MAX_WIDTH = 64 };

static const char *device;

typedef struct want {
    test_rows source;
    const rec *r;
    int called;
} want;

static int next_row(void *user, sill_row *row) { return test_next(&((want *)user)->source, row); }

static void check_values(const rec *r, const char *key, const float *got, int n, double tolerance) {
    double expected[MAX_IDS];
    int m = rec_floats(r, key, expected, MAX_IDS);
    if (m != n) FAIL("%s: %d numbers in %s, expected %d", rec_text(r, "model"), n, key, m);
    for (int i = 0; i < SILL_MIN(n, m); i++)
        if (isnan(expected[i]) ? !isnan(got[i]) : !(fabs((double)got[i] - expected[i]) <= tolerance))
            FAIL("%s %s: %s[%d] is %.9g, expected %.9g", rec_text(r, "model"), rec_text(r, "text"), key, i, (double)got[i], expected[i]);
}

static sill_long policy_of(const rec *r) { return !strcmp(rec_text(r, "long"), "window") ? SILL_LONG_WINDOW : SILL_LONG_SPLIT_MEAN; }

typedef sill_status run_fn(sill_session *s, const rec *r, want *w, sill_error *err);

/* All records of KIND, each in sessions of several shapes. */
static void run_records(const char *kind, run_fn *run, int least) {
    static const int shapes[][2] = {{7, 3}, {0, 8}, {1, 1}};
    recs rs;
    int n = 0;
    REQUIRE(recs_open_file(&rs, "windows.txt"));
    while (recs_next(&rs, kind)) {
        const rec *r = &rs.now;
        char path[128];
        static int32_t ids[MAX_IDS];
        snprintf(path, sizeof path, FIXTURES "%s", rec_text(r, "model"));
        sill_model *m = test_model(path, device, 2);
        REQUIRE(m);
        for (size_t k = 0; k < (strcmp(device, "metal") ? SILL_ARRAY_LEN(shapes) : 1); k++) {
            sill_error err = {0};
            sill_row row = {.text = rec_text(r, "text"), .context = rec_text(r, "context")};
            if (row.text) row.n_bytes = strlen(row.text);
            else row.ids = ids, row.n_ids = (size_t)rec_ints(r, "ids", ids, MAX_IDS);
            if (row.context) row.n_context_bytes = strlen(row.context);
            sill_session *s = test_session(m, (int)rec_number(r, "n_ctx"), shapes[k][0], shapes[k][1]);
            REQUIRE(s);
            want w = {.source = {.rows = &row, .n = 1}, .r = r};
            CHECK_OK(run(s, r, &w, &err), err);
            CHECK_INT(w.called, 1);
            sill_session_free(s);
        }
        sill_model_free(m);
        n++;
    }
    recs_close(&rs);
    if (n < least) FAIL("%d records of %s, expected %d", n, kind, least);
}

/* -------------------------------------------------------- against transformers */

static int on_embedded(void *user, const sill_embedded *g) {
    want *w = user;
    w->called++;
    if (g->status != SILL_OK) {
        FAIL("%s", g->error);
        return 0;
    }
    CHECK_INT(g->n_windows, rec_number(w->r, "windows"));
    check_values(w->r, "values", g->values, g->n_values, 2e-5);
    return 0;
}

static sill_status run_embed(sill_session *s, const rec *r, want *w, sill_error *err) {
    sill_embed_options o = {.size = sizeof o, .long_policy = policy_of(r),
                            .pooling = !strcmp(rec_text(r, "pooling"), "last") ? SILL_POOLING_LAST : SILL_POOLING_MEAN};
    return sill_embed(s, &o, next_row, on_embedded, w, err);
}

static int on_scored(void *user, const sill_scored *g) {
    want *w = user;
    static int32_t ids[MAX_IDS];
    int n = rec_ints(w->r, "ids", ids, MAX_IDS);
    w->called++;
    if (g->status != SILL_OK) {
        FAIL("%s", g->error);
        return 0;
    }
    CHECK_INT(g->n_ids, n);
    for (int i = 0; i < SILL_MIN(n, (int)g->n_ids); i++) CHECK_INT(g->ids[i], ids[i]);
    if (rec_text(w->r, "logprobs")) check_values(w->r, "logprobs", g->logprobs, (int)g->n_ids, 1e-4);
    if (rec_text(w->r, "context")) CHECK_INT(g->n_context, rec_number(w->r, "n_context"));
    if (rec_text(w->r, "boundaries") && g->boundaries) check_values(w->r, "boundaries", g->boundaries, (int)g->n_ids + 1, 1e-4);
    CHECK((g->boundaries != NULL) == (rec_text(w->r, "boundaries") != NULL));
    return 0;
}

static sill_status run_score(sill_session *s, const rec *r, want *w, sill_error *err) {
    sill_score_options o = {.size = sizeof o, .bos = (int32_t)rec_number(r, "bos"), .boundaries = rec_text(r, "boundaries") != NULL,
                            .long_policy = rec_text(r, "n_ctx") ? SILL_LONG_SPLIT_MEAN : SILL_LONG_DEFAULT};
    return sill_score(s, &o, next_row, on_scored, w, err);
}

static int on_label(void *user, const sill_classified *g) {
    want *w = user;
    w->called++;
    if (g->status != SILL_OK) {
        FAIL("%s", g->error);
        return 0;
    }
    CHECK_INT(g->n_windows, rec_number(w->r, "windows"));
    check_values(w->r, "logits", g->logits, g->n_labels, 1e-4);
    check_values(w->r, "probs", g->probs, g->n_labels, 1e-4);
    if (g->label >= 0)
        for (int32_t i = 0; i < g->n_labels; i++) CHECK(g->probs[i] <= g->probs[g->label]);
    return 0;
}

static sill_status run_head(sill_session *s, const rec *r, want *w, sill_error *err) {
    sill_classify_options o = {.size = sizeof o, .long_policy = policy_of(r)};
    return sill_classify(s, &o, next_row, on_label, w, err);
}

/* -------------------------------------------------------- beyond the numbers */

typedef struct many {
    test_rows source;
    int n_done, cancel_at;
    sill_embedded got[MAX_ROWS];
    float values[MAX_ROWS][MAX_WIDTH];
    char error[MAX_ROWS][512];
} many;

static int next_of_many(void *user, sill_row *row) { return test_next(&((many *)user)->source, row); }

static int keep(void *user, const sill_embedded *g) {
    many *c = user;
    c->got[g->index] = *g;
    snprintf(c->error[g->index], sizeof c->error[0], "%s", g->error ? g->error : "");
    if (g->values) memcpy(c->values[g->index], g->values, (size_t)g->n_values * sizeof(float));
    return ++c->n_done == c->cancel_at;
}

static sill_status embed(sill_session *s, const sill_embed_options *o, const sill_row *rows, int n, many *c, sill_error *err) {
    int cancel = c->cancel_at;
    memset(c, 0, sizeof *c);
    c->cancel_at = cancel;
    c->source = (test_rows){.rows = rows, .n = n};
    return sill_embed(s, o, next_of_many, keep, c, err);
}

/* Rows of every length, some in windows, alone, in company, shuffled, in chunks and with threads. */
static void same_bits_of(const char *path, sill_dtype dtype, int32_t vocab) {
    static const struct { int batch, sequences, threads; bool reversed; } ways[] = {{512, 64, 1, false}, {7, 16, 2, true}, {1, 3, 1, true},
                                                                                  {64, 2, 4, false}, {33, 5, 3, true}};
    static int32_t ids[MAX_ROWS][200];
    static many first, other;
    sill_row rows[MAX_ROWS];
    uint64_t random = 7;
    for (int i = 0; i < MAX_ROWS; i++) {
        int n = 1 + (int)(test_random(&random) % (i % 3 ? 180 : 20));
        for (int k = 0; k < n; k++) ids[i][k] = (int32_t)(test_random(&random) % (uint32_t)vocab);
        rows[i] = (sill_row){.index = (uint64_t)i, .ids = ids[i], .n_ids = (size_t)n};
    }
    for (int variant = 0; variant < 4; variant++) {
        sill_embed_options o = {.size = sizeof o, .pooling = variant & 1 ? SILL_POOLING_LAST : SILL_POOLING_MEAN,
                                .long_policy = variant & 2 ? SILL_LONG_WINDOW : SILL_LONG_SPLIT_MEAN, .normalize = variant == 2};
        for (size_t k = 0; k < (strcmp(device, "metal") ? SILL_ARRAY_LEN(ways) : 2); k++) {
            sill_error err = {0};
            sill_model_options mo = {.size = sizeof mo, .device = device, .dtype = dtype, .n_threads = ways[k].threads};
            sill_model *m = NULL;
            CHECK_OK(sill_model_load(path, &mo, &m, &err), err);
            REQUIRE(m);
            sill_session *s = test_session(m, 60, ways[k].batch, ways[k].sequences);
            REQUIRE(s);
            many *c = k ? &other : &first;
            if (k == 0) { /* each alone */
                for (int i = 0; i < MAX_ROWS; i++) {
                    CHECK_OK(embed(s, &o, rows + i, 1, &other, &err), err);
                    memcpy(first.values[i], other.values[i], sizeof first.values[i]);
                }
            } else {
                sill_row turned[MAX_ROWS];
                for (int i = 0; i < MAX_ROWS; i++) turned[i] = rows[ways[k].reversed ? MAX_ROWS - 1 - i : i];
                CHECK_OK(embed(s, &o, turned, MAX_ROWS, c, &err), err);
                CHECK_INT(c->n_done, MAX_ROWS);
                for (int i = 0; i < MAX_ROWS; i++)
                    if (memcmp(first.values[i], other.values[i], sizeof first.values[i])) {
                        FAIL("%s dtype %d: row %d differs with batch %d, %d sequences, variant %d", path, (int)dtype, i, ways[k].batch,
                             ways[k].sequences, variant);
                        break;
                    }
            }
            sill_session_free(s);
            sill_model_free(m);
        }
    }
}

static void same_bits(void) {
    same_bits_of(FIXTURES "gpt2", SILL_DTYPE_AUTO, 300);
    if (!strcmp(device, "metal")) return; /* a fake is slow */
    same_bits_of(FIXTURES "llama", SILL_DTYPE_BF16, 512);
    same_bits_of(FIXTURES "gpt2", SILL_DTYPE_INT8, 300);
    same_bits_of("tests/fixtures/model/llama-blocks-gguf.gguf", SILL_DTYPE_AUTO, 61);
}

static void rows_that_fail_and_options_that_are_refused(void) {
    static many c;
    static int32_t ids[70];
    sill_error err = {0};
    sill_model *m = test_model(FIXTURES "gpt2", device, 1);
    sill_session *s = test_session(m, 40, 0, 3);
    for (int i = 0; i < 70; i++) ids[i] = 3 + i;
    int32_t unknown[] = {3, 1 << 20};
    sill_row rows[] = {{.index = 0, .ids = ids, .n_ids = 70}, {.index = 1, .text = "", .n_bytes = 0}, {.index = 2, .text = NULL},
                       {.index = 3, .ids = ids, .n_ids = 40}, {.index = 4, .ids = unknown, .n_ids = 2}, {.index = 5, .text = "a", .n_bytes = 1}};
    sill_embed_options o = {.size = sizeof o, .normalize = 1};
    REQUIRE(s);
    CHECK_OK(embed(s, &o, rows, 6, &c, &err), err);
    CHECK_INT(c.n_done, 6);
    CHECK_INT(c.got[0].status, SILL_ERANGE);
    CHECK(strstr(c.error[0], "70") && strstr(c.error[0], "40") && strstr(c.error[0], "split-mean"));
    CHECK_INT(c.got[1].status, SILL_EINVAL);
    CHECK(strstr(c.error[1], "empty"));
    CHECK_INT(c.got[2].status, SILL_EINVAL);
    CHECK_INT(c.got[3].status, SILL_OK);
    CHECK_INT(c.got[4].status, SILL_ERANGE);
    CHECK_INT(c.got[5].status, SILL_OK);
    double square = 0;
    for (int k = 0; k < c.got[5].n_values; k++) square += (double)c.values[5][k] * (double)c.values[5][k];
    CHECK_NEAR(square, 1, 1e-6);
    o.long_policy = SILL_LONG_TRUNCATE;
    float whole[MAX_WIDTH];
    memcpy(whole, c.values[3], sizeof whole);
    CHECK_OK(embed(s, &o, rows, 6, &c, &err), err);
    CHECK(c.got[0].truncated && !c.got[3].truncated && !memcmp(c.values[0], whole, (size_t)c.got[0].n_values * sizeof(float)));
    sill_embed_options bad[] = {{.pooling = (sill_pooling)5}, {.long_policy = (sill_long)9}, {.pooling = (sill_pooling)-1}};
    for (size_t i = 0; i < SILL_ARRAY_LEN(bad); i++) {
        bad[i].size = sizeof bad[i];
        CHECK_INT(embed(s, &bad[i], rows, 6, &c, &err), SILL_EINVAL);
        CHECK_INT(c.n_done, 0);
    }
    CHECK_INT(sill_embed(s, NULL, NULL, keep, &c, &err), SILL_EINVAL);
    c.cancel_at = 2;
    CHECK_INT(embed(s, NULL, rows, 6, &c, &err), SILL_ECANCELLED);
    c.cancel_at = 0;
    CHECK_OK(embed(s, NULL, rows, 6, &c, &err), err);
    sill_session_free(s);
    sill_model_free(m);
}

static void on(const char *name) {
    device = name;
    run_records("embed", run_embed, 28);
    run_records("context", run_score, 28);
    run_records("split", run_score, 4);
    run_records("boundaries", run_score, 8);
    run_records("head", run_head, 20);
}

#ifndef WINDOWS_ON_METAL /* tests/metal/test_windows.c has the rest */
/* -------------------------------------------------------- rows that share a context */

enum { MAX_ENDINGS = 60 };
typedef struct endings {
    test_rows source;
    int n_done;
    size_t n_ids[MAX_ENDINGS], n_context[MAX_ENDINGS];
    float lp[MAX_ENDINGS][64], bounds[MAX_ENDINGS][65];
    uint64_t computed;
} endings;

static int next_ending(void *user, sill_row *row) { return test_next(&((endings *)user)->source, row); }

static int keep_ending(void *user, const sill_scored *g) {
    endings *e = user;
    e->n_done++;
    if (g->status != SILL_OK) {
        FAIL("row %d: %s", (int)g->index, g->error);
        return 0;
    }
    e->n_ids[g->index] = g->n_ids;
    e->n_context[g->index] = g->n_context;
    memcpy(e->lp[g->index], g->logprobs, SILL_MIN(g->n_ids, 64) * sizeof(float));
    if (g->boundaries) memcpy(e->bounds[g->index], g->boundaries, SILL_MIN(g->n_ids + 1, 65) * sizeof(float));
    return 0;
}

static void score_endings(sill_session *s, const sill_score_options *o, const sill_row *rows, int n, endings *e) {
    sill_error err = {0};
    uint64_t before = sill__session_n_computed(s);
    e->source = (test_rows){.rows = rows, .n = n};
    CHECK_OK(sill_score(s, o, next_ending, keep_ending, e, &err), err);
    e->computed = sill__session_n_computed(s) - before;
}

/* What a shared context leaves to compute, counted by hand: it once but for its last token, which each text has. Rows of which
 * nothing is to be computed do not count. */
static size_t once(const sill_row *rows, int n, bool boundaries) {
    const sill_row *first = NULL;
    size_t sum = 0;
    for (int i = 0, company = 0; i < n; i++) {
        const size_t c = rows[i].n_context_ids, t = rows[i].n_ids;
        if (!t || (c + t < 2 && !boundaries)) continue;
        const bool same = first && c >= 2 && company < 32 && c == first->n_context_ids && !memcmp(rows[i].context_ids, first->context_ids, c * sizeof(int32_t));
        company = same ? company + 1 : 1;
        if (!same) first = &rows[i];
        sum += (same ? 1 : c) + t - !boundaries;
    }
    return sum;
}

/* Rows with contexts of their own and shared ones, of every length, some empty: the same bits alone, in company, shuffled, in
 * chunks, in the smallest session, with threads, with and without sharing; and as many tokens computed as there must be. */
static void shared_contexts_of(const char *path, sill_dtype dtype, int32_t vocab, bool words) {
    static const struct { int batch, sequences, threads, n_ctx; bool shuffled, shared; } ways[] = {
        {512, 64, 1, 64, false, true}, {7, 16, 2, 64, false, true}, {1, 1, 1, 64, false, true}, {64, 2, 4, 60, false, true},
        {33, 5, 3, 64, true, true},    {512, 64, 2, 64, false, false}, {16, 1, 1, 48, false, true}};
    static int32_t ids[MAX_ENDINGS][90];
    static endings first, other;
    sill_row rows[MAX_ENDINGS], mixed[MAX_ENDINGS];
    uint64_t random = 11;
    for (int i = 0, n_context = 0, left = 0; i < MAX_ENDINGS; i++, left--) {
        bool fresh = left == 0;
        if (fresh) left = i == 6 ? 40 : 1 + (int)(test_random(&random) % 5);
        if (fresh) n_context = (int)(test_random(&random) % 33);
        int n_text = (int)(test_random(&random) % 16);
        for (int k = 0; k < n_context + n_text; k++)
            ids[i][k] = k < n_context && !fresh ? ids[i - 1][k] : (int32_t)(test_random(&random) % (uint32_t)vocab);
        rows[i] = (sill_row){.index = (uint64_t)i, .context_ids = ids[i], .n_context_ids = (size_t)n_context, .ids = ids[i] + n_context,
                             .n_ids = (size_t)n_text};
    }
    for (int boundaries = 0; boundaries < 1 + words; boundaries++) {
        uint64_t alone = 0;
        memset(&first, 0, sizeof first);
        for (size_t k = 0; k < SILL_ARRAY_LEN(ways); k++) {
            sill_score_options o = {.size = sizeof o, .boundaries = boundaries, .no_shared_prefix = !ways[k].shared};
            sill_error err = {0};
            sill_model_options mo = {.size = sizeof mo, .device = device, .dtype = dtype, .n_threads = ways[k].threads};
            sill_model *m = NULL;
            CHECK_OK(sill_model_load(path, &mo, &m, &err), err);
            REQUIRE(m);
            sill_session *s = test_session(m, ways[k].n_ctx, ways[k].batch, ways[k].sequences);
            REQUIRE(s);
            memcpy(mixed, rows, sizeof mixed);
            for (int i = MAX_ENDINGS - 1; ways[k].shuffled && i > 0; i--) {
                int j = (int)(test_random(&random) % (uint32_t)(i + 1));
                sill_row t = mixed[i];
                mixed[i] = mixed[j];
                mixed[j] = t;
            }
            for (int i = 0; k == 0 && i < MAX_ENDINGS; i++) {
                score_endings(s, &o, rows + i, 1, &first);
                alone += first.computed;
            }
            memset(&other, 0, sizeof other);
            score_endings(s, &o, mixed, MAX_ENDINGS, &other);
            CHECK_INT(other.n_done, MAX_ENDINGS);
            for (int i = 0; i < MAX_ENDINGS; i++) {
                CHECK_INT(other.n_context[i], rows[i].n_context_ids);
                if (other.n_ids[i] != rows[i].n_ids || memcmp(first.lp[i], other.lp[i], sizeof first.lp[i]) ||
                    memcmp(first.bounds[i], other.bounds[i], sizeof first.bounds[i])) {
                    FAIL("%s dtype %d, way %d, boundaries %d: row %d differs", path, (int)dtype, (int)k, boundaries, i);
                    break;
                }
            }
            if (ways[k].shared && ways[k].n_ctx > 48) CHECK_INT(other.computed, once(mixed, MAX_ENDINGS, boundaries));
            if (k == 0) CHECK(other.computed * 3 < alone * 2);
            if (!ways[k].shared) CHECK_INT(other.computed, alone);
            sill_session_free(s);
            sill_model_free(m);
        }
    }
}

static void shared_contexts(void) {
    shared_contexts_of(FIXTURES "gpt2", SILL_DTYPE_AUTO, 300, true);
    shared_contexts_of(FIXTURES "llama", SILL_DTYPE_BF16, 512, true);
    shared_contexts_of(FIXTURES "gpt2", SILL_DTYPE_INT8, 300, true);
    shared_contexts_of("tests/fixtures/model/llama-blocks-gguf.gguf", SILL_DTYPE_AUTO, 61, false); /* no tokenizer: nothing tells where words begin */
}

/* Of texts: where a token holds bytes of both, the text's begin before the context's end, and what is shared is shorter. */
static void shared_contexts_of_texts(void) {
    static const char *const contexts[] = {"The film was", "The film was", "The film was", "The film was ", "The film was ", "The film",
                                           "", "", "I say that", "I say that", "I say that"};
    static const char *const some[] = {" good", "n't", " a long and winding road to nowhere", "good", "bad", " was good", "The film", "A",
                                       "", " it is so", "'s"};
    static endings all, alone;
    sill_row rows[SILL_ARRAY_LEN(some)];
    const int n = (int)SILL_ARRAY_LEN(some);
    for (int bos = 0; bos < 2; bos++) {
        sill_model *m = test_model(FIXTURES "gpt2", device, 1);
        sill_session *s = test_session(m, 64, 0, 4);
        sill_score_options o = {.size = sizeof o, .bos = bos};
        memset(&all, 0, sizeof all);
        memset(&alone, 0, sizeof alone);
        REQUIRE(s);
        for (int i = 0; i < n; i++) {
            rows[i] = (sill_row){.index = (uint64_t)i, .context = contexts[i], .n_context_bytes = strlen(contexts[i]), .text = some[i],
                                 .n_bytes = strlen(some[i])};
            score_endings(s, &o, rows + i, 1, &alone);
        }
        score_endings(s, &o, rows, n, &all);
        CHECK(!memcmp(all.n_ids, alone.n_ids, sizeof all.n_ids) && !memcmp(all.n_context, alone.n_context, sizeof all.n_context));
        CHECK(!memcmp(all.lp, alone.lp, sizeof all.lp));
        CHECK(all.n_context[0] > 1 && all.n_ids[2] > 3);
        sill_session_free(s);
        sill_model_free(m);
    }
}

/* -------------------------------------------------------- score: contexts and boundaries in windows */

typedef struct scores { test_rows source; int n; sill_scored got; float lp[300], bounds[301]; char error[512]; } scores;
static int next_score(void *user, sill_row *row) { return test_next(&((scores *)user)->source, row); }
static int keep_score(void *user, const sill_scored *g) {
    scores *c = user;
    c->got = *g;
    c->n++;
    snprintf(c->error, sizeof c->error, "%s", g->error ? g->error : "");
    for (size_t i = 0; g->status == SILL_OK && i < g->n_ids && i < 300; i++) c->lp[i] = g->logprobs[i];
    for (size_t i = 0; g->boundaries && i <= g->n_ids && i < 301; i++) c->bounds[i] = g->boundaries[i];
    return 0;
}
static void one(sill_session *s, const sill_score_options *o, const sill_row *row, scores *c) {
    sill_error err = {0};
    memset(c, 0, sizeof *c);
    c->source = (test_rows){.rows = row, .n = 1};
    CHECK_OK(sill_score(s, o, next_score, keep_score, c, &err), err);
    CHECK_INT(c->n, 1);
}

/* A context changes nothing of what the text's tokens are given: they score as in the whole, in windows too. */
static void contexts_in_windows(void) {
    static scores a, b;
    static int32_t ids[200];
    sill_model *m = test_model(FIXTURES "gpt2", device, 1);
    sill_session *s = test_session(m, 24, 7, 3);
    REQUIRE(s);
    for (int i = 0; i < 200; i++) ids[i] = 3 + i * 13 % 300;
    for (int stride = 5; stride <= 24; stride += 6)
        for (int n_context = 0; n_context <= 90; n_context += 9)
            for (int n_text = 0; n_text <= 60; n_text += 20) {
                sill_score_options o = {.size = sizeof o, .stride = SILL_MIN(stride, 24)};
                sill_row whole = {.ids = ids, .n_ids = (size_t)(n_context + n_text)};
                sill_row parts = {.ids = ids + n_context, .n_ids = (size_t)n_text, .context_ids = ids, .n_context_ids = (size_t)n_context};
                one(s, &o, &whole, &a);
                one(s, &o, &parts, &b);
                CHECK_INT(b.got.n_ids, n_text);
                CHECK_INT(b.got.n_context, n_context);
                if (memcmp(a.lp + n_context, b.lp, (size_t)n_text * sizeof(float)))
                    FAIL("context %d, text %d, stride %d differ", n_context, n_text, stride);
            }
    /* policies */
    sill_row row = {.ids = ids + 50, .n_ids = 20, .context_ids = ids, .n_context_ids = 50};
    sill_row cut = {.ids = ids + 50, .n_ids = 20, .context_ids = ids + 46, .n_context_ids = 4};
    sill_score_options o = {.size = sizeof o, .long_policy = SILL_LONG_TRUNCATE};
    one(s, &o, &row, &a);
    one(s, &o, &cut, &b);
    CHECK(a.got.truncated && !b.got.truncated && a.got.n_context == 4 && !memcmp(a.lp, b.lp, 20 * sizeof(float)));
    row.n_ids = 60;
    one(s, &o, &row, &a);
    CHECK(a.got.n_context == 1 && a.got.n_ids == 23 && a.got.n_scored == 23);
    o.bos = 1;
    one(s, &o, &row, &a);
    CHECK(a.got.n_context == 0 && a.got.n_ids == 23 && a.got.n_scored == 23);
    o = (sill_score_options){.size = sizeof o, .long_policy = SILL_LONG_ERROR};
    one(s, &o, &row, &a);
    CHECK(a.got.status == SILL_ERANGE && strstr(a.error, "110"));
    o.long_policy = SILL_LONG_SPLIT_MEAN;
    one(s, &o, &row, &a);
    CHECK(a.got.status == SILL_ERANGE && strstr(a.error, "cannot be split"));
    sill_row mixed = {.text = "a", .n_bytes = 1, .context_ids = ids, .n_context_ids = 3};
    one(s, NULL, &mixed, &a);
    CHECK_INT(a.got.status, SILL_EINVAL);
    o.stride = 5;
    sill_error err = {0};
    CHECK_INT(sill_score(s, &o, next_score, keep_score, &a, &err), SILL_EINVAL);
    sill_session_free(s);
    sill_model_free(m);
}

/* With boundaries the log-probabilities are the same numbers, to rounding, in windows of every kind; all are at most 1. */
static void boundaries_in_windows(void) {
    static scores a, b;
    static int32_t ids[120];
    sill_model *m = test_model(FIXTURES "llama", device, 1);
    REQUIRE(m);
    for (int i = 0; i < 120; i++) ids[i] = 3 + i * 13 % 400;
    for (int n = 1; n <= 120; n += 17)
        for (int stride = 0; stride <= 24; stride += 8)
            for (int bos = 0; bos < 2; bos++) {
                sill_session *s = test_session(m, 24, 16, 5);
                REQUIRE(s);
                sill_row row = {.ids = ids, .n_ids = (size_t)n};
                sill_score_options o = {.size = sizeof o, .stride = stride, .bos = bos};
                if (stride == 24) o.long_policy = SILL_LONG_SPLIT_MEAN;
                one(s, &o, &row, &a);
                o.boundaries = 1;
                one(s, &o, &row, &b);
                CHECK_INT(b.got.n_scored, a.got.n_scored);
                for (int i = 0; i < n; i++) {
                    if (isnan(a.lp[i])) CHECK(isnan(b.lp[i]) && isnan(b.bounds[i]));
                    else CHECK(fabsf(a.lp[i] - b.lp[i]) < 1e-4f && b.bounds[i] <= 1e-6f && b.bounds[i] > -50);
                }
                if (n > 1 && stride != 24) CHECK(b.bounds[n] <= 1e-6f);
                sill_session_free(s);
            }
    sill_model_free(m);
}

static void ref_as_transformers(void) { on("ref"); }
static void cpu_as_transformers(void) { on("cpu"); }

int main(int argc, char **argv) {
    device = "cpu";
    TEST(ref_as_transformers);
    TEST(cpu_as_transformers);
    TEST(same_bits);
    TEST(rows_that_fail_and_options_that_are_refused);
    TEST(contexts_in_windows);
    TEST(boundaries_in_windows);
    TEST(shared_contexts);
    TEST(shared_contexts_of_texts);
    TEST_EXIT();
}
#endif
