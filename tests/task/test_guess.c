/* test_guess.c - speculative decoding: the ids, log-probabilities (to the bit), alternatives, texts and ends of generating
 * without, over samplers, processors, stop strings, constraints, batches and kinds of guesses, good and bad; prompt lookup
 * against transformers' (tests/fixtures/task/lookup.txt, made by tools/fixtures/make_lookup.py). */
#include "records.h"

#include "task/generate.h"

enum { ROWS = 10, SEQS = 3, NEW = 64, TEXT = 1024 };
#define STORIES "tests/fixtures/stories260K/stories260K.gguf"
#define MODELS "tests/fixtures/model/"

typedef struct got {
    int n, drafted, accepted, n_final;
    size_t n_bytes, n_streamed;
    sill_status status;
    int32_t ids[NEW];
    float logprobs[NEW];
    sill_top tops[NEW][2];
    char text[TEXT], streamed[TEXT], finish[8], error[256];
} got;

typedef struct run {
    test_rows source;
    got (*out)[SEQS];
    int tops, cancel_at, called;
} run;

static const char *device;

static int next_row(void *user, sill_row *row) { return test_next(&((run *)user)->source, row); }

static int take(void *user, const sill_generated *r) {
    run *w = user;
    got *g = &w->out[r->index][SILL_MAX(0, r->sequence)];
    if (++w->called == w->cancel_at) return 1;
    if (!r->final) {
        if (g->n_streamed + r->n_bytes <= TEXT) memcpy(g->streamed + g->n_streamed, r->text, r->n_bytes);
        g->n_streamed += r->n_bytes;
        return 0;
    }
    g->n_final++;
    g->status = r->status;
    if (r->status != SILL_OK) {
        snprintf(g->error, sizeof g->error, "%s", r->error);
        return 0;
    }
    if (r->n_ids > NEW || r->n_bytes > TEXT) {
        FAIL("%zu ids, %zu bytes", r->n_ids, r->n_bytes);
        return 1;
    }
    g->n = (int)r->n_ids;
    g->drafted = r->n_drafted;
    g->accepted = r->n_accepted;
    memcpy(g->ids, r->ids, r->n_ids * sizeof *r->ids);
    memcpy(g->logprobs, r->logprobs, r->n_ids * sizeof *r->logprobs);
    if (w->tops) memcpy(g->tops, r->tops, r->n_ids * sizeof *g->tops);
    memcpy(g->text, r->text, g->n_bytes = r->n_bytes);
    snprintf(g->finish, sizeof g->finish, "%s", r->finish_reason);
    return 0;
}

static void generate(sill_session *s, const sill_generate_options *o, const sill_row *rows, int n, bool stream, got (*out)[SEQS]) {
    run w = {.source = {.rows = rows, .n = n}, .out = out, .tops = o->logprobs};
    sill_error err = {0};
    const int32_t free = sill__session_free_blocks(s), theirs = o->assistant ? sill__session_free_blocks(o->assistant) : 0;
    memset(out, 0, (size_t)n * sizeof *out);
    CHECK_OK(sill_generate(s, o, next_row, take, stream, &w, &err), err);
    CHECK_INT(sill__session_free_blocks(s), free);
    if (o->assistant) CHECK_INT(sill__session_free_blocks(o->assistant), theirs);
}

static bool same(const got *a, const got *b) {
    const size_t n = (size_t)a->n;
    return a->n == b->n && a->n_final == 1 && b->n_final == 1 && a->status == b->status && !strcmp(a->error, b->error) &&
           !memcmp(a->ids, b->ids, n * sizeof *a->ids) && !memcmp(a->logprobs, b->logprobs, n * sizeof *a->logprobs) &&
           !memcmp(a->tops, b->tops, n * sizeof *a->tops) && a->n_bytes == b->n_bytes && !memcmp(a->text, b->text, a->n_bytes) &&
           !strcmp(a->finish, b->finish);
}

typedef struct totals { int drafted, accepted, stopped, full, rows; } totals;

/* Both ways; what was guessed and came true is added up. */
static void compare(sill_session *s, const sill_generate_options *with, const sill_row *rows, int n, const char *what, totals *t) {
    static got plain[ROWS][SEQS], fast[ROWS][SEQS];
    sill_generate_options without = *with;
    const int sequences = SILL_MAX(1, with->num_return_sequences);
    without.prompt_lookup_num_tokens = 0;
    without.assistant = NULL;
    generate(s, &without, rows, n, false, plain);
    generate(s, with, rows, n, true, fast);
    for (int i = 0; i < n; i++)
        for (int k = 0; k < sequences; k++) {
            const got *a = &plain[i][k], *b = &fast[i][k];
            if (!same(a, b))
                FAIL("%s: row %d of %d, sequence %d, seed %d: %d ids, %s %s; with guesses %d, %s %s", what, i, n, k, (int)with->seed, a->n,
                     a->finish, a->error, b->n, b->finish, b->error);
            CHECK_INT(a->drafted, 0);
            CHECK(b->accepted >= 0 && b->accepted <= b->drafted);
            CHECK(b->accepted < SILL_MAX(1, b->n)); /* the first is never guessed */
            CHECK(b->n_streamed == b->n_bytes && !memcmp(b->streamed, b->text, b->n_bytes));
            if (with->max_new_tokens) CHECK(b->n <= with->max_new_tokens);
            t->drafted += b->drafted;
            t->accepted += b->accepted;
            t->stopped += !strcmp(b->finish, "stop");
            t->full += !strcmp(b->finish, "length");
            t->rows++;
        }
}

/* ------------------------------------------------------------- lookup */

static void lookup_as_transformers(void) {
    recs rs;
    int n = 0, some = 0;
    REQUIRE(recs_open_file(&rs, "lookup.txt"));
    while (recs_next(&rs, "lookup")) {
        int32_t ids[64], found[64], n_found;
        const int m = rec_ints(&rs.now, "ids", ids, 64), expected = rec_ints(&rs.now, "found", found, 64);
        const int32_t at = sill__prompt_lookup(ids, m, (int32_t)rec_number(&rs.now, "max_ngram"), (int32_t)rec_number(&rs.now, "most"), &n_found);
        CHECK_INT(n_found, expected);
        CHECK(at >= 0 && at + n_found <= m);
        if (n_found == expected) CHECK(!memcmp(ids + at, found, (size_t)expected * sizeof *ids));
        some += expected > 0;
        n++;
    }
    recs_close(&rs);
    CHECK_INT(n, 305);
    CHECK(some > 200 && some < n);
}

/* ------------------------------------------------------ the same bits */

/* Rows of ids that repeat themselves, of many lengths. */
static int32_t row_ids[ROWS][100];
static void make_rows(sill_row *rows, int n, int vocab, int longest) {
    for (int i = 0; i < n; i++) {
        const int m = 1 + i * (longest - 1) / SILL_MAX(1, n - 1), period = 3 + i;
        for (int k = 0; k < m; k++) row_ids[i][k] = 3 + (i * 31 + k % period * 7) % (vocab - 3);
        rows[i] = (sill_row){.index = (uint64_t)i, .key = 100 + (uint64_t)i, .ids = row_ids[i], .n_ids = (size_t)m};
    }
}

static const int32_t bad_ids[] = {9, 10, 11}, never_ids[] = {12, 14}, bias_ids[] = {0, 2, 17};
static const float biases[] = {1.5f, 1.5f, 2};
static const size_t bad_ends[] = {1, 3};

/* Samplers and processors; 0 to N_OPTIONS - 1. */
enum { N_OPTIONS = 13 };
static sill_generate_options options_of(int i) {
    sill_generate_options o = {.size = sizeof o, .max_new_tokens = 40, .seed = (uint64_t)i};
    switch (i) {
    case 1: o.logprobs = 2; break;
    case 2: o.repetition_penalty = 1.2f; break;
    case 3: o.no_repeat_ngram_size = 3; break;
    case 4: o.bad_words = bad_ids, o.bad_word_ends = bad_ends, o.n_bad_words = 2, o.suppress_tokens = never_ids, o.n_suppress = 2; break;
    case 5: o.bias_ids = bias_ids, o.bias_values = biases, o.n_bias = 3, o.logprobs = 2; break;
    case 6: o.ignore_eos = 1, o.max_new_tokens = 61; break;
    case 7: o.do_sample = 1, o.top_k = -1, o.temperature = 0.3f; break;
    case 8: o.do_sample = 1, o.top_k = 5, o.top_p = 0.9f, o.logprobs = 2; break;
    case 9: o.do_sample = 1, o.typical_p = 0.8f, o.repetition_penalty = 1.1f; break;
    case 10: o.do_sample = 1, o.num_return_sequences = SEQS, o.temperature = 0.5f, o.top_k = -1; break;
    case 11: o.do_sample = 1, o.eta_cutoff = 0.01f, o.min_p = 0.02f, o.min_new_tokens = 20; break;
    case 12: o.do_sample = 1, o.top_k = -1, o.bias_ids = bias_ids, o.bias_values = biases, o.n_bias = 2, o.max_new_tokens = 60; break;
    }
    return o;
}

static const struct { int batch, sequences; } shapes[] = {{2, 2}, {8, 4}, {64, 9}, {0, 32}};

static void same_with_lookup(void) {
    static const char *const paths[] = {FIXTURES "gpt2", FIXTURES "llama", MODELS "gpt2-base"};
    static const int vocabs[] = {340, 512, 61}, longest[] = {90, 60, 20}, tokens[] = {1, 3, 10, 60}, ngrams[] = {1, 2, 4, 0};
    sill_row rows[ROWS];
    totals t = {0};
    for (size_t p = 0; p < SILL_ARRAY_LEN(paths); p++) {
        sill_model *m = test_model(paths[p], device, 2);
        REQUIRE(m);
        make_rows(rows, ROWS, vocabs[p], longest[p]);
        for (size_t k = 0; k < SILL_ARRAY_LEN(shapes); k++) {
            sill_session *s = test_session(m, 0, shapes[k].batch, shapes[k].sequences);
            REQUIRE(s);
            for (int i = 0; i < N_OPTIONS; i++) {
                sill_generate_options o = options_of(i);
                if (p == 2) o.max_new_tokens = SILL_MIN(o.max_new_tokens, 44); /* up to the end of the context */
                const int n = i % 3 ? ROWS : 1 + i % ROWS; /* fewer leave room for more guesses */
                o.prompt_lookup_num_tokens = tokens[(i + (int)k) % 4];
                o.max_matching_ngram_size = ngrams[i % 4];
                compare(s, &o, rows, n, paths[p], &t);
            }
            sill_session_free(s);
        }
        sill_model_free(m);
    }
    CHECK(t.rows > 1000);
    CHECK(t.accepted > t.rows && t.accepted < t.drafted); /* both happen, often */
    CHECK(t.stopped > 50 && t.full > 50);
}

/* A model that guesses for itself is always right, drawn tokens and processors included. */
static void same_with_itself(void) {
    sill_row rows[ROWS];
    totals t = {0};
    sill_model *m = test_model(FIXTURES "gpt2", device, 2);
    REQUIRE(m);
    make_rows(rows, ROWS, 340, 90);
    for (size_t k = 0; k < SILL_ARRAY_LEN(shapes); k++) {
        sill_session *s = test_session(m, 0, shapes[k].batch, shapes[k].sequences), *a = test_session(m, 0, k % 2 ? 16 : 0, 8);
        REQUIRE(s && a);
        for (int i = 0; i < N_OPTIONS; i++) {
            totals now = {0};
            sill_generate_options o = options_of(i);
            o.assistant = a;
            o.num_assistant_tokens = 1 + i;
            compare(s, &o, rows, i % 2 ? ROWS : 2, "itself", &now);
            if (now.accepted != now.drafted) FAIL("options %d: %d of %d guesses were right", i, now.accepted, now.drafted);
            t.drafted += now.drafted;
            t.stopped += now.stopped;
            if (k == 3) CHECK(now.drafted > 0);
        }
        sill_session_free(a);
        sill_session_free(s);
    }
    sill_model_free(m);
    CHECK(t.drafted > 2000);
    CHECK(t.stopped > 20);
}

/* One of other weights, and a shorter context than the texts become: guesses are wrong, or there are none. */
static void same_with_a_bad_assistant(void) {
    sill_row rows[ROWS];
    totals t = {0};
    sill_model *m = test_model(MODELS "gpt2-base", device, 2), *bad = test_model(MODELS "gpt2-made", device, 2);
    REQUIRE(m && bad);
    make_rows(rows, ROWS, 61, 20);
    for (size_t k = 0; k < SILL_ARRAY_LEN(shapes); k++) {
        sill_session *s = test_session(m, 0, shapes[k].batch, shapes[k].sequences);
        sill_session *a = test_session(bad, k % 2 ? 0 : 24, k % 2 ? 0 : 5, k % 2 ? 16 : 2); /* the small ones have no room for all rows */
        REQUIRE(s && a);
        for (int i = 0; i < N_OPTIONS; i++) {
            sill_generate_options o = options_of(i);
            o.assistant = a;
            o.max_new_tokens = SILL_MIN(o.max_new_tokens, 44);
            compare(s, &o, rows, ROWS, "another model", &t);
        }
        sill_session_free(a);
        sill_session_free(s);
    }
    sill_model_free(bad);
    sill_model_free(m);
    CHECK(t.drafted > 1000);
    CHECK(t.accepted < t.drafted / 4);
}

/* ---------------------------------------------------------------- texts */

static const char *const texts[ROWS] = {
    "Once upon a time, there was a little girl named Lily.", "One day, Tim and his mom went to the park. One day, Tim and",
    "The cat saw a dog. The dog saw a cat. The cat saw a dog. The", "A", "She said, \"I like it!\" He said, \"I like it!\" She said,",
    "Ben had a ball. Ben had a big ball. Ben had a red ball. Ben", "They played and played and played and",
    "Mom was happy. Dad was happy. Mom was happy.", "The sun was hot. The bird sang. The sun was", "Sam likes cake. Sam likes"};

static void text_rows(sill_row *rows) {
    for (int i = 0; i < ROWS; i++) rows[i] = (sill_row){.index = (uint64_t)i, .key = (uint64_t)i, .text = texts[i], .n_bytes = strlen(texts[i])};
}

/* Stop strings and constraints, types of keys and values, an assistant that is nearly the model. */
static void same_texts(void) {
    static const char *const stops[] = {"was", " the ", ". ", "happy"};
    static const char regex[] = "( [a-z]+){2,9}[.!]";
    static const sill_kv_dtype kvs[] = {SILL_KV_F32, SILL_KV_F16, SILL_KV_INT8};
    sill_error err = {0};
    sill_row rows[ROWS];
    sill_constraint *c = NULL;
    totals lookup = {0}, near = {0};
    sill_model *m = test_model(STORIES, device, 2);
    REQUIRE(m);
    CHECK_OK(sill_constraint_regex(m, regex, sizeof regex - 1, &c, &err), err);
    text_rows(rows);
    for (int k = 0; k < 3; k++) {
        sill_session *s = test_session_kv(m, 0, 0, k ? 32 : 7, kvs[k]), *a = test_session_kv(m, 0, 0, 12, SILL_KV_INT8);
        REQUIRE(s && a);
        for (int i = 0; i < 10; i++) {
            sill_generate_options o = {.size = sizeof o, .max_new_tokens = 30 + i * 3, .seed = (uint64_t)i, .do_sample = i % 2, .temperature = 0.6f};
            if (i % 3 == 1) o.stop = stops, o.n_stop = 1 + (size_t)i % 4;
            if (i % 3 == 2) o.constraint = c;
            if (i > 6) o.min_new_tokens = 10;
            o.prompt_lookup_num_tokens = 10;
            compare(s, &o, rows, i % 4 ? ROWS : 3, "stories260K", &lookup);
            o.prompt_lookup_num_tokens = 0;
            o.assistant = a;
            compare(s, &o, rows, i % 4 ? ROWS : 3, "stories260K and nearly itself", &near);
        }
        sill_session_free(a);
        sill_session_free(s);
    }
    sill_constraint_free(c);
    sill_model_free(m);
    CHECK(lookup.accepted > 100 && lookup.stopped > 50);
    CHECK(near.accepted > near.drafted / 2 && near.accepted < near.drafted);
}

/* ------------------------------------------------------------- the ends */

/* Every number of new tokens, so that the end falls on each place of an accepted span; and the context's end. */
static void never_more_than_asked(void) {
    sill_row rows[ROWS];
    totals t = {0};
    sill_model *m = test_model(MODELS "gpt2-base", device, 1);
    REQUIRE(m);
    make_rows(rows, ROWS, 61, 40);
    sill_session *s = test_session(m, 64, 0, 32), *a = test_session(m, 64, 0, 32);
    REQUIRE(s && a);
    for (int n = 1; n <= 24; n++) {
        sill_generate_options o = {.size = sizeof o, .max_new_tokens = n, .ignore_eos = 1, .assistant = a, .num_assistant_tokens = 8};
        const uint64_t before = sill__session_n_computed(s);
        uint64_t fed = 0;
        totals now = {0};
        compare(s, &o, rows, ROWS, "lengths", &now);
        CHECK_INT(now.full, ROWS);
        CHECK_INT(now.accepted, now.drafted);
        /* all guesses came true, so each token was computed once, in both calls, and none beyond those asked for */
        for (int i = 0; i < ROWS; i++) fed += rows[i].n_ids + (size_t)n - 1;
        CHECK_INT(sill__session_n_computed(s) - before, 2 * fed);
        o.assistant = NULL;
        o.prompt_lookup_num_tokens = 30;
        o.max_matching_ngram_size = 3;
        compare(s, &o, rows, ROWS, "lengths", &t);
        o.max_new_tokens = 0;
        o.max_length = 64 - n % 20;
        compare(s, &o, rows, ROWS, "the context's end", &t);
    }
    sill_session_free(a);
    sill_session_free(s);
    sill_model_free(m);
}

/* A call that its user ends gives everything back, wherever that happens. */
static void cancelled(void) {
    static got out[ROWS][SEQS];
    sill_row rows[ROWS];
    sill_model *m = test_model(FIXTURES "gpt2", device, 1);
    REQUIRE(m);
    make_rows(rows, ROWS, 340, 60);
    sill_session *s = test_session(m, 0, 0, 12), *a = test_session(m, 0, 0, 12);
    REQUIRE(s && a);
    const int32_t free = sill__session_free_blocks(s), theirs = sill__session_free_blocks(a);
    for (int at = 1; at < 60; at += 3) {
        run w = {.source = {.rows = rows, .n = ROWS}, .out = out, .cancel_at = at};
        sill_error err = {0};
        sill_generate_options o = {.size = sizeof o, .max_new_tokens = 30, .ignore_eos = 1, .assistant = a, .do_sample = 1,
                                   .num_return_sequences = at % 2 ? 2 : 1};
        memset(out, 0, sizeof out);
        CHECK_INT(sill_generate(s, &o, next_row, take, 1, &w, &err), SILL_ECANCELLED);
        CHECK_INT(sill__session_free_blocks(s), free);
        CHECK_INT(sill__session_free_blocks(a), theirs);
    }
    sill_session_free(a);
    sill_session_free(s);
    sill_model_free(m);
}

static void refused(sill_session *s, sill_generate_options o, sill_status status, const char *words) {
    run w = {0};
    sill_error err = {0};
    CHECK_INT(sill_generate(s, &o, next_row, take, 0, &w, &err), status);
    if (!strstr(err.msg, words)) FAIL("\"%s\" does not say \"%s\"", err.msg, words);
}

static void refusals(void) {
    sill_model *m = test_model(FIXTURES "gpt2", "ref", 1), *other = test_model(MODELS "gpt2-base", "ref", 1);
    sill_model_options foreign = {.size = sizeof foreign, .device = "ref", .tokenizer = FIXTURES "labels-gpt2"};
    sill_error err = {0};
    sill_model *l = NULL, *head = test_model(FIXTURES "head-gpt2", "ref", 1);
    sill_session *s = test_session(m, 0, 0, 4), *one = test_session(m, 0, 0, 1), *b = test_session(other, 0, 0, 4);
    CHECK_OK(sill_model_load(FIXTURES "gpt2", &foreign, &l, &err), err); /* as many ids, of other texts */
    sill_session *t = test_session(l, 0, 0, 4), *h = test_session(head, 0, 0, 4);
    sill_generate_options o = {.size = sizeof o};
    REQUIRE(s && one && b && t && h);
#define WITH(...) ((o = (sill_generate_options){.size = sizeof o, __VA_ARGS__}))
    refused(s, WITH(.prompt_lookup_num_tokens = -1), SILL_EINVAL, "prompt_lookup_num_tokens -1");
    refused(s, WITH(.prompt_lookup_num_tokens = 1, .max_matching_ngram_size = -2), SILL_EINVAL, "max_matching_ngram_size -2");
    refused(s, WITH(.num_assistant_tokens = -3), SILL_EINVAL, "num_assistant_tokens -3");
    refused(s, WITH(.prompt_lookup_num_tokens = 4, .num_beams = 2), SILL_EINVAL, "num_beams must be 1");
    refused(s, WITH(.prompt_lookup_num_tokens = 4, .assistant = one), SILL_EINVAL, "not by both");
    refused(s, WITH(.assistant = s), SILL_EINVAL, "another session");
    refused(s, WITH(.assistant = b), SILL_EINVAL, "another vocabulary");
    refused(s, WITH(.assistant = t), SILL_EINVAL, "another vocabulary");
    refused(s, WITH(.assistant = h), SILL_EUNSUPPORTED, "classification head");
    refused(one, WITH(.prompt_lookup_num_tokens = 4), SILL_ERANGE, "1 sequences");
#undef WITH
    sill_session *all[] = {s, one, b, t, h};
    sill_model *models[] = {m, other, l, head};
    for (size_t i = 0; i < SILL_ARRAY_LEN(all); i++) sill_session_free(all[i]);
    for (size_t i = 0; i < SILL_ARRAY_LEN(models); i++) sill_model_free(models[i]);
}

int main(int argc, char **argv) {
    TEST(lookup_as_transformers);
    TEST(refusals);
    device = "cpu";
    TEST(same_with_lookup);
    TEST(same_with_itself);
    TEST(same_with_a_bad_assistant);
    TEST(same_texts);
    TEST(never_more_than_asked);
    TEST(cancelled);
    TEST_EXIT();
}
