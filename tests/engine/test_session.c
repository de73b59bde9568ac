/* test_session.c - sessions: plans that fit and plans that do not, refusals with numbers, allocations that fail, logits. */
#include "../task/records.h"

#include "engine/internal.h"

static sill_model *gpt2;

static void a_plan_tells_what_a_session_takes(void) {
    sill_plan_info p = {0};
    sill_error err = {0};
    sill_session_options o = {.size = sizeof o, .n_ctx = 100, .max_sequences = 3, .batch_tokens = 50};
    sill_model_options mo = {.size = sizeof mo, .n_threads = 2};
    CHECK_OK(sill_plan(FIXTURES "gpt2", &mo, &o, &p, &err), err);
    CHECK(p.n_ctx == 100 && p.max_sequences == 3 && p.batch_tokens == 50 && p.fits == 1);
    CHECK(p.total_bytes == p.weight_bytes + p.kv_bytes + p.scratch_bytes);
    /* at least one whole sequence: 100 positions, 2 layers, keys and values of 28 f32 */
    CHECK(p.kv_bytes >= 100u * 2 * 2 * 28 * 4);
    sill_session *s = test_session(gpt2, 100, 50, 3);
    REQUIRE(s);
    CHECK(s->layout.kv_bytes == p.kv_bytes && s->layout.scratch_bytes == p.scratch_bytes);
    CHECK(gpt2->weight_bytes == p.weight_bytes);
    sill_session_free(s);
    CHECK_OK(sill_plan(FIXTURES "gpt2", NULL, NULL, &p, &err), err);
    CHECK(p.n_ctx == 192 && p.max_sequences == 32 && p.batch_tokens == 512);
    CHECK_INT(sill_plan(FIXTURES "nothing", NULL, NULL, &p, &err), SILL_ENOENT);
    mo.dtype = (sill_dtype)99;
    CHECK_INT(sill_plan(FIXTURES "gpt2", &mo, NULL, &p, &err), SILL_EINVAL);
}

static void what_does_not_fit_is_made_smaller_or_refused(void) {
    sill_error err = {0};
    sill_session *s = NULL;
    sill_session_options o = {.size = sizeof o};
    uint64_t least = 0, previous = 0;
    for (uint64_t limit = 4096; limit < (uint64_t)64 << 20; limit += limit / 3) {
        o.memory_limit_bytes = limit;
        sill_status st = sill_session_create(gpt2, &o, &s, &err);
        sill_plan_info p;
        CHECK_INT(sill_plan(FIXTURES "gpt2", NULL, &o, &p, &err), SILL_OK);
        CHECK_INT(p.fits, st == SILL_OK);
        if (st == SILL_OK) {
            uint64_t takes = s->layout.kv_bytes + s->layout.scratch_bytes;
            CHECK(takes <= limit && takes >= previous);
            previous = takes;
            if (!least) least = limit;
            sill_session_free(s);
            continue;
        }
        CHECK_INT(st, SILL_ENOFIT);
        CHECK(!s && strstr(err.msg, "MiB") && !least);
    }
    CHECK(least > 4096);
    /* what is named is kept: refused, with a smaller choice */
    o = (sill_session_options){.size = sizeof o, .max_sequences = 64, .batch_tokens = 512, .memory_limit_bytes = least + least / 2};
    CHECK_INT(sill_session_create(gpt2, &o, &s, &err), SILL_ENOFIT);
    CHECK(strstr(err.msg, "would fit"));
    sill_plan_info p;
    sill_model_options mo = {.size = sizeof mo, .memory_limit_bytes = 1000};
    CHECK_OK(sill_plan(FIXTURES "gpt2", &mo, NULL, &p, &err), err);
    CHECK(!p.fits && p.advice[0] && p.available_bytes == 1000);
}

static void bad_options_are_refused(void) {
    sill_session_options bad[] = {{.n_ctx = -1}, {.n_ctx = 193}, {.batch_tokens = -1}, {.max_sequences = -5},
                                  {.batch_tokens = 1 << 20}, {.max_sequences = 100000},
                                  {.kv_dtype = (sill_kv_dtype)9}};
    sill_session *s = NULL;
    sill_error err = {0};
    for (size_t i = 0; i < SILL_ARRAY_LEN(bad); i++) {
        bad[i].size = sizeof bad[i];
        if (sill_session_create(gpt2, &bad[i], &s, &err) == SILL_OK || s || !err.msg[0]) FAIL("bad option %d was taken", (int)i);
    }
    sill_session_options o = {.size = 1};
    CHECK_INT(sill_session_create(gpt2, &o, &s, &err), SILL_EINVAL);
    CHECK_INT(sill_session_create(NULL, NULL, &s, &err), SILL_EINVAL);
    CHECK_INT(sill_session_create(gpt2, NULL, NULL, &err), SILL_EINVAL);
    sill_session_free(NULL);
}

static void logits_in_any_chunks(void) {
    enum { N = 77, V = 340 };
    static float want[N * V], got[N * V];
    static const int batches[] = {1, 7, 64, 512}, sequences[] = {1, 5, 32, 200};
    int32_t ids[N + 200], bad[] = {1, 400};
    sill_error err = {0};
    for (int i = 0; i < N + 200; i++) ids[i] = 3 + i * 31 % 300;
    int32_t vocab = gpt2->config.n_vocab;
    REQUIRE(vocab <= V);
    for (int i = 0; i < 4; i++)
        for (int k = 0; k < 4; k++) {
            sill_session *s = test_session(gpt2, 0, batches[i], sequences[k]);
            REQUIRE(s);
            float *out = i + k ? got : want;
            CHECK_OK(sill_logits(s, ids, N, out, &err), err);
            CHECK(!memcmp(want, out, (size_t)N * (size_t)vocab * sizeof *out));
            CHECK_OK(sill_logits(s, ids, 0, NULL, &err), err);
            CHECK_INT(sill_logits(s, bad, 2, got, &err), SILL_ERANGE);
            CHECK_INT(sill_logits(s, ids, 193, got, &err), SILL_ERANGE);
            CHECK_INT(sill__session_free_blocks(s), s->blocks.n);
            sill_session_free(s);
        }
}

typedef struct one_text { const int32_t *ids; size_t n; bool given; float values[64]; } one_text;

static int one_text_next(void *user, sill_row *row) {
    one_text *t = user;
    if (t->given) return 0;
    t->given = true;
    row->ids = t->ids;
    row->n_ids = t->n;
    return 1;
}

static int one_text_done(void *user, const sill_embedded *r) {
    one_text *t = user;
    CHECK_INT(r->status, SILL_OK);
    if (r->status == SILL_OK) memcpy(t->values, r->values, (size_t)SILL_MIN(64, r->n_values) * sizeof(float));
    return 0;
}

/* Every position's hidden state is that of the text up to there, which sill_embed gives (compared with transformers elsewhere). */
static void hidden_states_in_any_chunks(void) {
    enum { N = 77 };
    static float want[N * 64], got[N * 64];
    static const int batches[] = {1, 7, 64, 512};
    const int32_t width = gpt2->config.n_embd;
    int32_t ids[N + 200], bad[] = {1, 400};
    sill_error err = {0};
    REQUIRE(width <= 64);
    for (int i = 0; i < N + 200; i++) ids[i] = 3 + i * 31 % 300;
    for (int i = 0; i < 4; i++) {
        sill_session *s = test_session(gpt2, 0, batches[i], 4);
        REQUIRE(s);
        float *out = i ? got : want;
        CHECK_OK(sill_hidden_states(s, ids, N, out, &err), err);
        CHECK(!memcmp(want, out, (size_t)N * (size_t)width * sizeof *out));
        CHECK_OK(sill_hidden_states(s, ids, 0, NULL, &err), err);
        CHECK_INT(sill_hidden_states(s, bad, 2, got, &err), SILL_ERANGE);
        CHECK_INT(sill_hidden_states(s, ids, 193, got, &err), SILL_ERANGE);
        CHECK_INT(sill_hidden_states(s, ids, 3, NULL, &err), SILL_EINVAL);
        CHECK_INT(sill_hidden_states(NULL, ids, 3, got, &err), SILL_EINVAL);
        CHECK_INT(sill__session_free_blocks(s), s->blocks.n);
        for (int n = 1; n <= N; n += 19) {
            one_text text = {.ids = ids, .n = (size_t)n};
            const sill_embed_options o = {.size = sizeof o, .pooling = SILL_POOLING_LAST};
            CHECK_OK(sill_embed(s, &o, one_text_next, one_text_done, &text, &err), err);
            CHECK(!memcmp(text.values, want + (size_t)(n - 1) * (size_t)width, (size_t)width * sizeof(float)));
        }
        sill_session_free(s);
    }
}

/* One step with a span of every kind: each gets what it gets alone. */
static void one_step_of_every_kind(void) {
    int32_t ids[12] = {5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}, targets[3] = {4, 5, 6};
    sill_session *s = test_session(gpt2, 0, 0, 8);
    sill_error err = {0};
    float saved[6][400];
    REQUIRE(s);
    for (int together = 0; together < 2; together++) {
        sill__span spans[6];
        for (int i = 0; i < 6; i++)
            spans[i] = (sill__span){.seq = sill__seq_new(s), .tokens = ids + i, .n = 1 + i, .first_out = 1 + i};
        spans[0].want_logits = true;
        spans[1].n_top = 5;
        spans[2].first_out = 0;
        spans[2].targets = ids + 3;
        spans[3].last_targets = targets;
        spans[3].n_last_targets = 3;
        spans[4].want_hidden = true;
        spans[5].want_logits = true;
        spans[5].n_top = 2;
        if (together) CHECK_OK(sill__step(s, spans, 6, &err), err);
        for (int i = 0; i < 6; i++) {
            if (!together) CHECK_OK(sill__step(s, &spans[i], 1, &err), err);
            float got[400] = {0};
            if (spans[i].logits) memcpy(got, spans[i].logits, 300 * sizeof *got);
            if (spans[i].lse) got[300] = *spans[i].lse;
            for (int k = 0; k < spans[i].n_top; k++) {
                got[310 + k] = spans[i].top_logprobs[k];
                got[330 + k] = (float)spans[i].top_ids[k];
            }
            if (spans[i].target_logprobs) memcpy(got + 340, spans[i].target_logprobs, 3 * sizeof *got);
            if (spans[i].hidden) memcpy(got + 350, spans[i].hidden, 28 * sizeof *got);
            CHECK((spans[i].logits != NULL) == spans[i].want_logits && (spans[i].hidden != NULL) == spans[i].want_hidden);
            if (!together) memcpy(saved[i], got, sizeof got);
            else if (memcmp(saved[i], got, sizeof got)) FAIL("span %d gives something else among others", i);
            sill__seq_free(s, spans[i].seq);
        }
    }
    sill_session_free(s);
}

static int next_two(void *user, sill_row *row) {
    int *n = user;
    if (*n == 2) return 0;
    *row = (sill_row){.index = (uint64_t)*n, .text = "The film was", .n_bytes = 12};
    (*n)++;
    return 1;
}
static int ignore_generated(void *user, const sill_generated *r) { (void)user; (void)r; return 0; }
static int ignore_scored(void *user, const sill_scored *r) { (void)user; (void)r; return 0; }
static int ignore_classified(void *user, const sill_classified *r) { (void)user; (void)r; return 0; }

static sill_status everything(sill_session *s, int what, sill_error *err) {
    static const char *labels[] = {"good", "a"};
    sill_generate_options g = {.size = sizeof g, .do_sample = 1, .num_return_sequences = 2, .max_new_tokens = 4};
    sill_classify_options c = {.size = sizeof c, .labels = labels, .n_labels = 2, .no_chat = 1, .prompt = "{text}"};
    int n = 0;
    if (what == 0) return sill_generate(s, &g, next_two, ignore_generated, 1, &n, err);
    if (what == 1) return sill_score(s, NULL, next_two, ignore_scored, &n, err);
    return sill_classify(s, &c, next_two, ignore_classified, &n, err);
}

/* Every allocation fails once: a clean refusal, nothing kept, and the session works afterwards. */
static void every_allocation_may_fail(void) {
    sill_session *s = NULL;
    sill_error err = {0};
    sill_session_options o = {.size = sizeof o, .max_sequences = 2, .batch_tokens = 32};
    sill_status st = SILL_ENOMEM;
    uint64_t n = 1;
    for (; st != SILL_OK && n < 1000; n++) {
        sill__alloc_fail_at(n);
        st = sill_session_create(gpt2, &o, &s, &err);
        sill__alloc_fail_at(0);
        if (st != SILL_OK) CHECK(st == SILL_ENOMEM && s == NULL);
    }
    CHECK(n > 8 && st == SILL_OK);
    REQUIRE(s);
    for (int what = 0; what < 3; what++) {
        st = SILL_ENOMEM;
        for (n = 1; st != SILL_OK && n < 1000; n++) {
            sill__alloc_fail_at(n);
            st = everything(s, what, &err);
            sill__alloc_fail_at(0);
            if (st != SILL_OK) CHECK_INT(st, SILL_ENOMEM);
            CHECK_INT(sill__session_free_blocks(s), s->blocks.n);
        }
        if (n < 4 || st != SILL_OK) FAIL("task %d: %d allocations, status %d", what, (int)n, st);
    }
    sill_session_free(s);
}

int main(int argc, char **argv) {
    gpt2 = test_model(FIXTURES "gpt2", "cpu", 2);
    TEST(a_plan_tells_what_a_session_takes);
    TEST(what_does_not_fit_is_made_smaller_or_refused);
    TEST(bad_options_are_refused);
    TEST(logits_in_any_chunks);
    TEST(hidden_states_in_any_chunks);
    TEST(one_step_of_every_kind);
    TEST(every_allocation_may_fail);
    sill_model_free(gpt2);
    TEST_EXIT();
}
