/* test_beams.c - beam search against what transformers makes of the same models (tests/fixtures/task/beams.txt, made by
 * tools/fixtures/make_beams.py): ids and scores; and the same bits whatever else is in the batch. */
#include "records.h"

#include "engine/engine.h"

#include <math.h>

static const char *device;
enum { MOST = 8, NEW = 64 };

typedef struct got {
    int32_t ids[NEW];
    float logprobs[NEW], score;
    int n;
    char finish[8];
} got;

typedef struct run {
    test_rows source;
    got (*rows)[MOST]; /* by index and sequence */
    int called, failed;
    char error[512];
} run;

static int next_row(void *user, sill_row *row) { return test_next(&((run *)user)->source, row); }

static int take(void *user, const sill_generated *r) {
    run *w = user;
    w->called++;
    if (r->status != SILL_OK) {
        w->failed++;
        snprintf(w->error, sizeof w->error, "%s", r->error);
        return 0;
    }
    CHECK_INT(r->final, 1);
    got *g = &w->rows[r->index][r->sequence];
    g->n = (int)r->n_ids;
    g->score = r->score;
    if (r->n_ids <= NEW) memcpy(g->ids, r->ids, r->n_ids * sizeof *r->ids);
    if (r->n_ids <= NEW) memcpy(g->logprobs, r->logprobs, r->n_ids * sizeof *r->logprobs);
    snprintf(g->finish, sizeof g->finish, "%s", r->finish_reason);
    return 0;
}

typedef struct lists { int32_t prompt[128], bad[16], never[16], bias_ids[16]; float biases[16]; size_t ends[16]; int n_prompt; } lists;

static sill_generate_options options_of(const rec *r, lists *l) {
    sill_generate_options o = {.size = sizeof o, .bad_words = l->bad, .bad_word_ends = l->ends, .suppress_tokens = l->never};
    l->n_prompt = rec_ints(r, "prompt", l->prompt, 128);
    o.num_beams = (int32_t)rec_number(r, "num_beams");
    o.max_new_tokens = (int32_t)rec_number(r, "max_new_tokens");
    o.num_return_sequences = (int32_t)rec_number(r, "num_return_sequences");
    o.early_stopping = (int32_t)rec_number(r, "early_stopping");
    o.length_penalty = rec_text(r, "length_penalty") ? (float)rec_number(r, "length_penalty") : 1;
    if (o.length_penalty == 0) o.length_penalty = NAN;
    o.repetition_penalty = (float)rec_number(r, "repetition_penalty");
    o.no_repeat_ngram_size = (int32_t)rec_number(r, "no_repeat_ngram_size");
    o.min_new_tokens = (int32_t)rec_number(r, "min_new_tokens");
    o.min_length = (int32_t)rec_number(r, "min_length");
    o.n_suppress = (size_t)rec_ints(r, "suppress_tokens", l->never, 16);
    double values[16];
    o.n_bias = (size_t)rec_ints(r, "bias_ids", l->bias_ids, 16);
    for (int k = 0, m = rec_floats(r, "bias_values", values, 16); k < m; k++) l->biases[k] = (float)values[k];
    o.bias_ids = l->bias_ids;
    o.bias_values = l->biases;
    char *p = rec_text(r, "bad_words");
    for (size_t k = 0; p && *p;) {
        l->bad[k++] = (int32_t)strtol(p, &p, 10);
        if (*p != ':') l->ends[o.n_bad_words++] = k;
        if (*p) p++;
    }
    return o;
}

static bool runs(sill_session *s, const sill_generate_options *o, const sill_row *rows, int n, got (*out)[MOST]) {
    run w = {.source = {.rows = rows, .n = n}, .rows = out};
    sill_error err = {0};
    CHECK_OK(sill_generate(s, o, next_row, take, 0, &w, &err), err);
    CHECK_INT(w.called, n * SILL_MAX(1, o->num_return_sequences));
    if (w.failed) FAIL("%s", w.error);
    return !w.failed;
}

static void as_transformers(void) {
    recs rs;
    int n = 0, ended = 0;
    REQUIRE(recs_open_file(&rs, "beams.txt"));
    while (recs_next(&rs, "beams")) {
        const rec *r = &rs.now;
        lists l;
        static got out[1][MOST];
        sill_generate_options o = options_of(r, &l);
        memset(out, 0, sizeof out);
        sill_session *s = test_session(model_of(r, device), 0, 0, 8);
        REQUIRE(s);
        sill_row row = {.ids = l.prompt, .n_ids = (size_t)l.n_prompt};
        runs(s, &o, &row, 1, out);
        for (int i = 0; i < SILL_MAX(1, o.num_return_sequences); i++) {
            char key[16];
            int32_t ids[NEW];
            snprintf(key, sizeof key, "ids_%d", i);
            int m = rec_ints(r, key, ids, NEW);
            snprintf(key, sizeof key, "score_%d", i);
            bool same = m == out[0][i].n && !memcmp(ids, out[0][i].ids, (size_t)m * sizeof *ids);
            if (!same) FAIL("case %d, %s, %d beams, early %d, penalty %g: sequence %d is another (%d ids, expected %d)", n, rec_text(r, "model"),
                            o.num_beams, o.early_stopping, (double)o.length_penalty, i, out[0][i].n, m);
            CHECK_NEAR(out[0][i].score, rec_number(r, key), 1e-4 * SILL_MAX(1, fabs(rec_number(r, key))));
            ended += !strcmp(out[0][i].finish, "stop");
        }
        sill_session_free(s);
        n++;
    }
    recs_close(&rs);
    CHECK(n >= 100);
    CHECK(ended >= 30);
}

static bool same_bits(const got *a, const got *b) {
    return a->n == b->n && !memcmp(a->ids, b->ids, (size_t)a->n * sizeof *a->ids) && !strcmp(a->finish, b->finish) &&
           !memcmp(a->logprobs, b->logprobs, (size_t)a->n * sizeof *a->logprobs) && !memcmp(&a->score, &b->score, sizeof a->score);
}

/* Rows alone and together, in small batches and sessions that hold one row's beams or many. */
static void same_bits_in_company(void) {
    enum { ROWS = 12 };
    static got alone[ROWS][MOST], all[ROWS][MOST];
    static const struct { int batch, sequences; } shapes[] = {{8, 4}, {64, 9}, {0, 32}};
    int32_t ids[ROWS][96];
    sill_row rows[ROWS];
    sill_model *m = test_model(FIXTURES "gpt2", device, 2);
    REQUIRE(m);
    for (int i = 0; i < ROWS; i++) {
        int n = 1 + i * 7;
        for (int k = 0; k < n; k++) ids[i][k] = 3 + (i * 31 + k * k * 7) % 300;
        rows[i] = (sill_row){.index = (uint64_t)i, .key = 100 + (uint64_t)i, .ids = ids[i], .n_ids = (size_t)n};
    }
    for (int mode = 0; mode < 4; mode++) {
        sill_generate_options o = {.size = sizeof o, .num_beams = 4, .num_return_sequences = 3, .max_new_tokens = 40, .early_stopping = mode % 3,
                                   .repetition_penalty = mode >= 2 ? 1.2f : 0, .do_sample = mode == 3, .top_k = mode == 3 ? -1 : 0,
                                   .logprobs = mode == 1 ? 2 : 0, .seed = 5};
        for (int i = 0; i < ROWS; i++) {
            sill_session *s = test_session(m, 0, 0, 4);
            runs(s, &o, &rows[i], 1, alone);
            sill_session_free(s);
        }
        for (size_t k = 0; k < SILL_ARRAY_LEN(shapes); k++) {
            sill_session *s = test_session(m, 0, shapes[k].batch, shapes[k].sequences);
            const int32_t blocks = sill__session_free_blocks(s);
            memset(all, 0, sizeof all);
            runs(s, &o, rows, ROWS, all);
            CHECK_INT(sill__session_free_blocks(s), blocks); /* nothing is left behind */
            sill_session_free(s);
            for (int i = 0; i < ROWS; i++)
                for (int q = 0; q < 3; q++)
                    if (!same_bits(&alone[i][q], &all[i][q])) FAIL("mode %d, shape %zu: row %d, sequence %d differs", mode, k, i, q);
        }
    }
    sill_model_free(m);
}

/* Drawn continuations: of one new token with two beams the results are the first two of draws without replacement. */
static void drawn_as_they_should_be(void) {
    enum { ROWS = 4000, V = 340 };
    static double p[V], counts[V];
    static float logits[V];
    static got out[ROWS][MOST];
    static sill_row rows[ROWS];
    int32_t ids[] = {51, 258, 70};
    sill_error err = {0};
    sill_model *m = test_model(FIXTURES "gpt2", device, 2);
    sill_session *s = test_session(m, 0, 0, 32);
    REQUIRE(s);
    float last[3 * V];
    memset(counts, 0, sizeof counts);
    CHECK_OK(sill_logits(s, ids, 3, last, &err), err);
    memcpy(logits, last + 2 * V, sizeof logits);
    double best = -1e9, sum = 0, chi = 0;
    for (int i = 0; i < V; i++) best = SILL_MAX(best, (double)logits[i]);
    for (int i = 0; i < V; i++) sum += p[i] = exp(((double)logits[i] - best) / 1.5);
    for (int i = 0; i < V; i++) p[i] /= sum;
    for (int i = 0; i < ROWS; i++) rows[i] = (sill_row){.index = (uint64_t)i, .key = (uint64_t)i, .ids = ids, .n_ids = 3};
    sill_generate_options o = {.size = sizeof o, .num_beams = 2, .num_return_sequences = 2, .max_new_tokens = 1, .do_sample = 1, .top_k = -1,
                               .temperature = 1.5f, .seed = 77};
    runs(s, &o, rows, ROWS, out);
    for (int i = 0; i < ROWS; i++) {
        CHECK(out[i][0].ids[0] != out[i][1].ids[0] && out[i][0].score >= out[i][1].score);
        for (int k = 0; k < 2; k++) counts[out[i][k].ids[0]]++;
    }
    int cells = 0;
    for (int i = 0; i < V; i++) {
        double q = p[i];
        for (int j = 0; j < V; j++) q += j == i ? 0 : p[j] * p[i] / (1 - p[j]);
        if (q * ROWS < 5) continue;
        chi += (counts[i] - q * ROWS) * (counts[i] - q * ROWS) / (q * ROWS);
        cells++;
    }
    CHECK(cells >= 10);
    if (chi > cells + 4 * sqrt(2.0 * cells)) FAIL("chi-square is %g for %d cells", chi, cells);
    sill_session_free(s);
    sill_model_free(m);
}

static void refusals(void) {
    int32_t id = 5;
    sill_row row = {.ids = &id, .n_ids = 1};
    sill_model *m = test_model(FIXTURES "gpt2", device, 1);
    sill_session *s = test_session(m, 0, 0, 4);
    REQUIRE(s);
    sill_generate_options bad[] = {{.num_beams = -1}, {.num_beams = 5}, {.num_beams = 2000}, {.num_beams = 2, .num_return_sequences = 3},
                                   {.num_beams = 2, .length_penalty = INFINITY}, {.num_beams = 2, .early_stopping = 3},
                                   {.num_beams = 2, .early_stopping = -1}};
    for (size_t i = 0; i < SILL_ARRAY_LEN(bad); i++) {
        run w = {.source = {.rows = &row, .n = 1}};
        sill_error err = {0};
        bad[i].size = sizeof bad[i];
        sill_status st = sill_generate(s, &bad[i], next_row, take, 0, &w, &err);
        if ((st != SILL_EINVAL && st != SILL_ERANGE) || w.called || !err.msg[0]) FAIL("bad option %zu gave status %d", i, st);
    }
    /* More beams than there are continuations: those that there are, the rest told. */
    static int32_t most[338];
    static got out[1][MOST];
    for (int i = 0; i < 338; i++) most[i] = i + 2;
    sill_generate_options o = {.size = sizeof o, .num_beams = 4, .num_return_sequences = 4, .max_new_tokens = 1, .suppress_tokens = most,
                               .n_suppress = 338};
    run w = {.source = {.rows = &row, .n = 1}, .rows = out};
    sill_error err = {0};
    CHECK_OK(sill_generate(s, &o, next_row, take, 0, &w, &err), err);
    CHECK(w.called == 4 && w.failed == 2 && out[0][0].n == 1 && out[0][1].n == 1 && strstr(w.error, "only 2 sequences"));
    sill_session_free(s);
    sill_model_free(m);
}

typedef struct watched { test_rows source; int pieces, results, cancel_at; } watched;

static int next_watched(void *user, sill_row *row) { return test_next(&((watched *)user)->source, row); }

static int watch(void *user, const sill_generated *r) {
    watched *w = user;
    if (r->final) {
        w->results++;
        return 0;
    }
    CHECK(r->status == SILL_OK && r->n_bytes == 0 && r->n_ids == 0 && r->text && r->index == 40 && r->n_prompt == 70);
    return ++w->pieces == w->cancel_at;
}

/* A stream of beams is empty pieces, at each of which the call can be cancelled: also while the prompt is read. */
static void cancelled_between_steps(void) {
    int32_t ids[70];
    for (int k = 0; k < 70; k++) ids[k] = 3 + k * 4;
    sill_row row = {.index = 40, .key = 1, .ids = ids, .n_ids = 70};
    sill_generate_options o = {.size = sizeof o, .num_beams = 4, .max_new_tokens = 60, .ignore_eos = 1, .num_return_sequences = 2};
    sill_model *m = test_model(FIXTURES "gpt2", device, 2);
    sill_session *s = test_session(m, 0, 16, 4);
    REQUIRE(s);
    const int32_t blocks = sill__session_free_blocks(s);
    for (int at = 0; at <= 64; at++) { /* 5 steps read the prompt, 59 go on behind it */
        watched w = {.source = {.rows = &row, .n = 1}, .cancel_at = at};
        sill_error err = {0};
        sill_status st = sill_generate(s, &o, next_watched, watch, 1, &w, &err);
        CHECK_INT(st, at ? SILL_ECANCELLED : SILL_OK);
        CHECK_INT(w.pieces, at ? at : 64);
        CHECK_INT(w.results, at ? 0 : 2);
        CHECK_INT(sill__session_free_blocks(s), blocks);
    }
    sill_session_free(s);
    sill_model_free(m);
}

int main(int argc, char **argv) {
    static const char *const devices[] = {"ref", "cpu"};
    for (size_t i = 0; i < SILL_ARRAY_LEN(devices); i++) {
        device = devices[i];
        TEST(as_transformers);
        TEST(same_bits_in_company);
        TEST(drawn_as_they_should_be);
        TEST(refusals);
        TEST(cancelled_between_steps);
        free_models();
    }
    TEST_EXIT();
}
