/*
 * test_ahead.c - decoding ahead of what is asked for, on the fake Metal: the same ids and numbers as one step at a time, in
 * any company, order and chunks, with tokens that the device draws and with the best ones; the tokens that the host would
 * draw; how many command buffers that takes, and how much is computed in vain; texts that end, are cancelled, fork or fail
 * while steps are under way; sessions of several threads.
 *
 * SILL_TEST_FULL=1: every option in every way, and that alone. TEST_SMALL=1, for emulators and compute-sanitizer: the same tests with fewer and
 * shorter texts.
 */
#include <pthread.h>

#include "../model/rig.h"

#include "engine/internal.h"
#include "metal.h"

#define GPT2 "tests/fixtures/task/gpt2"
#define LLAMA "tests/fixtures/task/llama"
#define STORIES "tests/fixtures/stories260K/stories260K.gguf"
enum { N_ROWS = 12, MOST = 160, N_EACH = 3 };

static sill_model *load(const char *path) {
    sill_model *m = NULL;
    sill_error err = {0};
    sill_model_options o = {.size = sizeof o, .device = "metal", .n_threads = 1};
    if (sill_model_load(path, &o, &m, &err) != SILL_OK) FAIL("%s: %s", path, err.msg);
    return m;
}

/* ------------------------------------------------------------ texts and ways */

typedef struct text { int n; int32_t ids[MOST]; float logprobs[MOST], tops[MOST]; char finish[8]; } text;
typedef struct result {
    text texts[N_ROWS][N_EACH];
    int n_done, n_failed, n_drafted, n_accepted;
    uint64_t n_used, n_lost, n_submitted, allocs[2];
    sill_status status;
    sill_error err;
} result;

/* How the rows are worked off. one_by_one: no step is ahead; on_host: the host draws; apart: memory that the host cannot
 * see; single: one step a submission. */
typedef struct way {
    int rows, sequences, batch;
    bool reversed, one_by_one, on_host, apart, single, interactive;
    int cancel_at; /* pieces */
} way;

typedef struct run { const way *w; int at, pieces; result *out; } run;

static void *not_shared(sill__device *d, sill__buf *b) {
    (void)d;
    (void)b;
    return NULL;
}

static sill__backend variants[8];

/* The model computed on with other operations. */
static const sill__backend *variant(const way *w) {
    sill__backend *v = &variants[w->one_by_one + 2 * w->on_host + 4 * w->apart];
    *v = *sill__backend_metal();
    if (w->one_by_one) v->take_ids = NULL;
    if (w->on_host) v->sample = NULL;
    if (w->apart) v->buf_map = not_shared;
    return v;
}

static int next_row(void *user, sill_row *row) {
    static const int32_t ids[] = {3, 91, 17, 60, 5, 200, 33, 8, 120, 7, 45, 11, 150, 29, 66, 2, 9, 14, 77, 31, 4, 88, 19, 55};
    run *r = user;
    if (r->at == r->w->rows) return 0;
    const int i = r->w->reversed ? r->w->rows - 1 - r->at : r->at;
    r->at++;
    *row = (sill_row){.index = (uint64_t)i, .key = 500u + 7u * (uint64_t)i, .ids = ids + i, .n_ids = (size_t)(2 + 5 * i % 11)};
    return 1;
}

static int on_text(void *user, const sill_generated *g) {
    run *r = user;
    if (!g->final) {
        r->out->allocs[r->pieces > 0] = sill__alloc_count();
        return ++r->pieces == r->w->cancel_at;
    }
    text *t = &r->out->texts[g->index][g->sequence < 0 ? 0 : g->sequence];
    if (g->status != SILL_OK) {
        r->out->n_failed++;
        r->out->err.code = g->status;
        snprintf(r->out->err.msg, sizeof r->out->err.msg, "%s", g->error);
        return 0;
    }
    r->out->n_done++;
    r->out->n_drafted += g->n_drafted;
    r->out->n_accepted += g->n_accepted;
    t->n = (int)g->n_ids;
    memcpy(t->ids, g->ids, g->n_ids * sizeof *t->ids);
    memcpy(t->logprobs, g->logprobs, g->n_ids * sizeof *t->logprobs);
    for (size_t i = 0; g->tops && i < g->n_ids; i++) t->tops[i] = g->tops[2 * i + 1].logprob;
    snprintf(t->finish, sizeof t->finish, "%s", g->finish_reason);
    return 0;
}

/* Generates in a session that is there already. */
static void generate_in(sill_session *s, const way *w, const sill_generate_options *o, result *out) {
    run r = {.w = w, .out = out};
    const sill__ahead *a = &s->ahead;
    const uint64_t used = a->n_used, lost = a->n_lost, submitted = a->n_submitted;
    memset(out, 0, sizeof *out);
    s->ahead.patience = w->single ? 0 : 1e9;
    out->status = sill_generate(s, o, next_row, on_text, 1, &r, &out->err);
    out->n_used = a->n_used - used;
    out->n_lost = a->n_lost - lost;
    out->n_submitted = a->n_submitted - submitted;
    CHECK_INT(s->blocks.n_free, s->blocks.n);
    CHECK_INT(a->n_steps, 0);
}

static sill_session *session_for(sill_model *m, const way *w) {
    sill_session *s = NULL;
    sill_error err = {0};
    sill_session_options o = {.size = sizeof o, .n_ctx = SILL_MIN(m->config.n_ctx, 192), .batch_tokens = w->batch,
                              .max_sequences = w->sequences, .interactive = w->interactive};
    m->ops = variant(w);
    CHECK_OK(sill_session_create(m, &o, &s, &err), err);
    return s;
}

static void generate(sill_model *m, const way *w, const sill_generate_options *o, result *out) {
    sill_session *s = session_for(m, w);
    if (s) {
        generate_in(s, w, o, out);
        CHECK_OK(out->status, out->err);
        CHECK_INT(out->n_done, w->rows * SILL_MAX(1, o->num_return_sequences));
    }
    sill_session_free(s);
    m->ops = sill__backend_metal();
}

/* The same texts; with `numbers`, to the last bit. */
static void compare(const char *what, const result *a, const result *b, bool numbers) {
    for (int i = 0; i < N_ROWS; i++)
        for (int k = 0; k < N_EACH; k++) {
            const text *x = &a->texts[i][k], *y = &b->texts[i][k];
            if (x->n != y->n || memcmp(x->ids, y->ids, sizeof x->ids) || strcmp(x->finish, y->finish))
                FAIL("%s: row %d, sequence %d has other ids", what, i, k);
            else if (numbers && (memcmp(x->logprobs, y->logprobs, sizeof x->logprobs) || memcmp(x->tops, y->tops, sizeof x->tops)))
                FAIL("%s: row %d, sequence %d has other log-probabilities", what, i, k);
            else if (!numbers)
                for (int j = 0; j < x->n; j++)
                    if (!(fabsf(x->logprobs[j] - y->logprobs[j]) <= 2e-5f)) FAIL("%s: row %d, token %d: %g, %g", what, i, j, (double)x->logprobs[j], (double)y->logprobs[j]);
        }
}

/* ------------------------------------------------------------ the same tokens */

typedef struct choice { const char *name; sill_generate_options o; } choice;
#define SAMPLED(...) {.size = sizeof(sill_generate_options), .max_new_tokens = 40, .ignore_eos = 1, .do_sample = 1, .seed = 11, __VA_ARGS__}
static const choice on_device[] = {
    {"best", {.size = sizeof(sill_generate_options), .max_new_tokens = 40, .ignore_eos = 1}},
    {"best with alternatives", {.size = sizeof(sill_generate_options), .max_new_tokens = 40, .ignore_eos = 1, .logprobs = 2}},
    {"temperature, top_k", SAMPLED(.temperature = 0.8f, .top_k = 40)},
    {"all", SAMPLED(.top_k = -1)},
    {"top_p", SAMPLED(.top_k = -1, .top_p = 0.9f)},
    {"min_p", SAMPLED(.top_k = -1, .min_p = 0.05f)},
    {"several", SAMPLED(.temperature = 1.5f, .top_k = 30, .top_p = 0.95f, .min_p = 0.02f, .logprobs = 2)},
};

static result want, got;
static bool full;            /* SILL_TEST_FULL: every option in every way */
static bool small;           /* TEST_SMALL: fewer and shorter texts */
static int n_rows = N_ROWS;

/* How many of something: all of it, by default, where the test is to be small. */
static int many(int all, int usual, int few) { return full ? all : small ? few : usual; }

/* Alone and one step at a time, then in N other ways (0: all). */
static void same_tokens(const char *path, const choice *c, size_t n) {
    const way ways[] = {
        {.rows = n_rows, .sequences = n_rows},
        {.rows = n_rows, .sequences = SILL_MIN(5, n_rows - 1), .batch = 13, .reversed = true},
        {.rows = n_rows, .sequences = n_rows, .one_by_one = true},
        {.rows = n_rows, .sequences = 1},
        {.rows = n_rows, .sequences = SILL_MIN(4, n_rows), .apart = true},
        {.rows = n_rows, .sequences = SILL_MIN(7, n_rows), .single = true},
    };
    static const char *const names[] = {"together", "turned, in chunks", "together, one by one", "alone", "memory apart", "single steps"};
    sill_model *m = load(path);
    char what[160];
    REQUIRE(m);
    generate(m, &(way){.rows = n_rows, .sequences = 1, .one_by_one = true}, &c->o, &want);
    for (size_t i = 0; i < (n ? n : SILL_ARRAY_LEN(ways)); i++) {
        generate(m, &ways[i], &c->o, &got);
        snprintf(what, sizeof what, "%s, %s, %s", path, c->name, names[i]);
        compare(what, &got, &want, true);
        if (ways[i].one_by_one) CHECK_INT(got.n_used, 0);
        else CHECK((int)got.n_used >= c->o.max_new_tokens - 1); /* at the least those of the last texts */
        CHECK_INT(got.n_lost, 0); /* all texts end where it was known */
    }
    /* The host draws the same from the same logits, but where a border lies within rounding. */
    if (c->o.do_sample && !n) {
        generate(m, &(way){.rows = n_rows, .sequences = SILL_MIN(6, n_rows), .on_host = true}, &c->o, &got);
        snprintf(what, sizeof what, "%s, %s, drawn by the host", path, c->name);
        compare(what, &got, &want, false);
        CHECK_INT(got.n_used, 0);
    }
    sill_model_free(m);
}

static void best_tokens(void) {
    choice best = on_device[0], tops = on_device[1];
    NEEDS_FAKE();
    if (small) best.o.max_new_tokens = tops.o.max_new_tokens = 8;
    same_tokens(GPT2, &best, small ? 2 : 0);
    same_tokens(LLAMA, &tops, (size_t)many(0, 2, 1));
}
static void drawn_tokens(void) {
    NEEDS_FAKE();
    for (size_t i = 2; i < SILL_ARRAY_LEN(on_device); i++) {
        const bool all = full || i + 1 == SILL_ARRAY_LEN(on_device);
        choice c = on_device[i];
        /* 26: the longer prompts still come to a second block of keys and values. */
        if (small) c.o.max_new_tokens = 6;
        else if (!all) c.o.max_new_tokens = 26;
        same_tokens(i % 2 ? GPT2 : LLAMA, &c, small ? 1 : all ? 0 : 2);
    }
}
static void drawn_tokens_of_stories(void) {
    NEEDS_FAKE();
    choice drawn = on_device[6];
    drawn.o.max_new_tokens = small ? 6 : 20;
    same_tokens(STORIES, &drawn, small ? 1 : 2);
}
/* Tokens that are guessed, and drawn by the device or best, are the same; only steps are fewer, and none are ahead. */
static void guessed_tokens(void) {
    NEEDS_FAKE();
    for (int drawn = 0; drawn < 2; drawn++) {
        sill_model *m = load(drawn ? GPT2 : LLAMA);
        REQUIRE(m);
        sill_generate_options o = on_device[drawn ? 6 : 1].o;
        if (small) o.max_new_tokens = 8;
        generate(m, &(way){.rows = n_rows, .sequences = 1, .one_by_one = true}, &o, &want);
        for (int by_model = 0; by_model < 2; by_model++) {
            sill_session *s = session_for(m, &(way){.sequences = n_rows});
            REQUIRE(s);
            o.assistant = by_model ? s : NULL;
            o.prompt_lookup_num_tokens = by_model ? 0 : 6;
            o.max_matching_ngram_size = 1;
            generate(m, &(way){.rows = n_rows, .sequences = 2 * n_rows + 3}, &o, &got);
            compare(by_model ? "guessed by itself" : "looked up", &got, &want, true);
            CHECK(got.n_drafted > 0);
            if (by_model) CHECK_INT(got.n_accepted, got.n_drafted);
            sill_session_free(s);
        }
        sill_model_free(m);
    }
}
/* With every access checked, and kernels that no barrier separates in both orders. */
static void accesses_and_schedules(void) {
    NEEDS_FAKE();
    for (int schedule = 0; schedule < 2; schedule++) {
        check_accesses(true);
        fake.set("schedule", schedule);
        choice best = on_device[0], drawn = on_device[6];
        best.o.max_new_tokens = drawn.o.max_new_tokens = many(33, 20, 5);
        if (full || (schedule == 0 && !small)) same_tokens(GPT2, &best, 2);
        same_tokens(LLAMA, &drawn, full || (schedule == 0 && !small) ? 2 : 1);
    }
    fake.set("schedule", 0);
    check_accesses(false);
}

/* What the device would draw otherwise stays with the host, one step at a time. */
static void options_of_the_host(void) {
    static const int32_t ids[] = {4, 9}, bad[] = {12};
    static const float values[] = {-2.0f, 3.0f};
    static const size_t ends[] = {1};
    const choice choices[] = {
        {"typical_p", SAMPLED(.typical_p = 0.8f)},
        {"epsilon_cutoff", SAMPLED(.epsilon_cutoff = 0.01f)},
        {"eta_cutoff", SAMPLED(.eta_cutoff = 0.01f)},
        {"repetition_penalty", SAMPLED(.repetition_penalty = 1.2f)},
        {"no_repeat_ngram_size", SAMPLED(.no_repeat_ngram_size = 2)},
        {"bias", SAMPLED(.bias_ids = ids, .bias_values = values, .n_bias = 2)},
        {"bad words", SAMPLED(.bad_words = bad, .bad_word_ends = ends, .n_bad_words = 1)},
        {"min_new_tokens", {.size = sizeof(sill_generate_options), .max_new_tokens = 12, .min_new_tokens = 8, .do_sample = 1}},
        {"best, repetition_penalty", {.size = sizeof(sill_generate_options), .max_new_tokens = 12, .repetition_penalty = 1.2f}},
    };
    NEEDS_FAKE();
    sill_model *m = load(GPT2);
    REQUIRE(m);
    for (size_t i = 0; i < SILL_ARRAY_LEN(choices); i++) {
        sill_generate_options o = choices[i].o;
        o.max_new_tokens = 12;
        generate(m, &(way){.rows = 5, .sequences = 5, .on_host = true, .one_by_one = true}, &o, &want);
        generate(m, &(way){.rows = 5, .sequences = 2}, &o, &got);
        compare(choices[i].name, &got, &want, true);
        CHECK_INT(got.n_used, 0);
    }
    sill_model_free(m);
}

/* --------------------------------------------------------------- what it takes */

static void command_buffers(void) {
    NEEDS_FAKE();
    const int most = full ? N_ROWS : 3, n = small ? 20 : 150;
    sill_model *m = load(GPT2);
    REQUIRE(m);
    for (int drawn = 0; drawn < 2; drawn++)
        for (int rows = 1; rows <= (drawn ? most : 1); rows += most - 1) {
            sill_generate_options o = {.size = sizeof o, .max_new_tokens = n, .ignore_eos = 1, .do_sample = drawn};
            way w = {.rows = rows, .sequences = rows, .interactive = rows == 1};
            sill_session *s = session_for(m, &w);
            REQUIRE(s);
            generate_in(s, &w, &o, &want); /* makes the pipelines */
            for (int single = 1; single >= 0; single--) {
                w.single = single;
                s->ahead.run = 0;
                fake.reset();
                generate_in(s, &w, &o, &got);
                CHECK_OK(got.status, got.err);
                const fakemetal_totals t = fake_totals();
                CHECK_INT(got.n_used, n - 1);
                CHECK_INT(got.n_lost, 0);
                CHECK_INT(t.command_buffers, got.n_submitted + 1); /* and one for the prompts */
                CHECK_INT(t.buffers_made, 0);
                CHECK_INT(t.pipelines_made, 0);
                CHECK_INT(sill__mtl_queue_counts(s->queue).grown, 0);
                CHECK_INT(got.allocs[1] - got.allocs[0], 0);
                if (single) CHECK_INT(got.n_submitted, n - 1);
                else CHECK((int)got.n_submitted <= (small ? n - 1 : 105)); /* several steps in one from the 64th on */
                compare("again", &got, &want, true);
                printf("  %s, %2d texts: %d command buffers for %d steps, %d kernels\n", drawn ? "drawn" : "best", rows,
                       (int)t.command_buffers, n, (int)t.dispatches);
            }
            sill_session_free(s);
        }
    sill_model_free(m);
}

/* Ends of text that nobody can foresee: what is computed in vain is a small share, and nothing else changes. */
static void ends_of_texts(void) {
    NEEDS_FAKE();
    sill_model *m = load(GPT2);
    REQUIRE(m);
    sill_generate_options o = {.size = sizeof o, .max_new_tokens = many(120, 80, 16), .do_sample = 1, .top_k = 60, .seed = 3};
    m->config.eos_ids[0] = -1;
    generate(m, &(way){.rows = n_rows, .sequences = n_rows}, &o, &want);
    m->config.eos_ids[0] = want.texts[0][0].ids[small ? 7 : 30];
    m->config.n_eos = 1;
    static result one;
    generate(m, &(way){.rows = n_rows, .sequences = 1, .one_by_one = true}, &o, &one);
    int n_ended = 0, n_steps = 0;
    for (int i = 0; i < n_rows; i++) {
        n_ended += !strcmp(one.texts[i][0].finish, "stop");
        n_steps += one.texts[i][0].n;
    }
    CHECK(n_ended >= 1);
    for (int sequences = 1; sequences <= n_rows; sequences += sequences == 1 ? SILL_MIN(3, n_rows - 1) : 8) {
        generate(m, &(way){.rows = n_rows, .sequences = sequences}, &o, &got);
        compare("with ends", &got, &one, true);
        printf("  %d of %d texts end by themselves, %2d together: %d steps ahead, %d in vain\n", n_ended, n_rows, sequences,
               (int)got.n_used, (int)got.n_lost);
        CHECK((int)got.n_lost <= 2 * n_ended + (int)got.n_used / 16);
        if (sequences == 1) CHECK((int)got.n_used >= n_steps - 2 * n_rows);
    }
    sill_model_free(m);
}

/* A stop string is found in the text behind its tokens. */
static void stop_strings(void) {
    NEEDS_FAKE();
    sill_model *m = load(STORIES);
    REQUIRE(m);
    const char *stop[] = {" the", "a"};
    sill_generate_options o = {.size = sizeof o, .max_new_tokens = 60, .do_sample = 1, .stop = stop, .n_stop = 2};
    generate(m, &(way){.rows = 6, .sequences = 1, .one_by_one = true}, &o, &want);
    generate(m, &(way){.rows = 6, .sequences = 4}, &o, &got);
    compare("stop strings", &got, &want, true);
    CHECK(got.n_used > 0);
    sill_model_free(m);
}

/* Several sequences of a prompt: the first tokens are the host's, the others the device's. */
static void forks(void) {
    NEEDS_FAKE();
    const int rows = small ? 2 : 6;
    for (int i = small; i < 2; i++) {
        sill_model *m = load(i ? LLAMA : GPT2);
        REQUIRE(m);
        sill_generate_options o = {.size = sizeof o, .max_new_tokens = many(40, 24, 8), .do_sample = 1, .num_return_sequences = N_EACH, .top_p = 0.9f, .logprobs = 2};
        generate(m, &(way){.rows = rows, .sequences = 1, .one_by_one = true}, &o, &want);
        generate(m, &(way){.rows = rows, .sequences = 9}, &o, &got);
        compare("forks", &got, &want, true);
        CHECK(got.n_used > (small ? 2 : 10));
        generate(m, &(way){.rows = rows, .sequences = 4, .reversed = true, .batch = 16}, &o, &got);
        compare("forks, turned", &got, &want, true);
        generate(m, &(way){.rows = rows, .sequences = 4, .on_host = true}, &o, &got);
        compare("forks, drawn by the host", &got, &want, false);
        sill_model_free(m);
    }
}

static void cancelled(void) {
    NEEDS_FAKE();
    sill_model *m = load(GPT2);
    REQUIRE(m);
    const sill_generate_options *o = &on_device[3].o;
    way w = {.rows = N_ROWS, .sequences = 6};
    sill_session *s = session_for(m, &w);
    REQUIRE(s);
    generate_in(s, &w, o, &want);
    for (int at = 1; at < 60; at += full ? 13 : 26) {
        way stopped = w;
        stopped.cancel_at = at;
        generate_in(s, &stopped, o, &got);
        CHECK_INT(got.status, SILL_ECANCELLED);
        generate_in(s, &w, o, &got);
        CHECK_OK(got.status, got.err);
        compare("after a cancelled call", &got, &want, true);
    }
    sill_session_free(s);
    m->ops = sill__backend_metal();
    sill_model_free(m);
}

/* ------------------------------------------------------------ step by step */

/* Decodes N tokens of one sequence by its best tokens; a step that fails is asked for again, but for one that the GPU did
 * not finish, which ends the session. failed: at which one that was (-1: none). */
static void decode(sill_session *s, int n, int32_t n_more, int32_t *out, int *failed, sill_error *err) {
    int32_t prompt[] = {7, 31, 5, 90, 2};
    sill__seq seq = sill__seq_new(s);
    *failed = -1;
    for (int i = 0; i < n; i++) {
        sill__span p = {.seq = seq, .tokens = i ? &out[i - 1] : prompt, .n = i ? 1 : 5, .n_top = 1, .n_more = SILL_MIN(n_more, n - 1 - i)};
        p.first_out = p.n;
        const int32_t before = sill__seq_length(s, seq);
        sill_error why = {0};
        sill_status st = sill__step(s, &p, 1, &why);
        if (st != SILL_OK) {
            CHECK(*failed < 0);
            CHECK_INT(sill__seq_length(s, seq), before);
            *failed = i;
            *err = why;
            st = sill__step(s, &p, 1, &why);
            if (!strncmp(err->msg, "the GPU's work ", 15)) {
                CHECK_INT(st, SILL_EDEVICE);
                break;
            }
        }
        CHECK_OK(st, why);
        if (st != SILL_OK) break;
        out[i] = p.top_ids[0];
    }
    sill__seq_free(s, seq);
    CHECK_INT(s->blocks.n_free, s->blocks.n);
}

/* A command buffer fails: the first step that was in it says so, none before. */
static void failing_steps(void) {
    enum { N = 110 };
    static int32_t right[N], ids[N];
    int failed;
    sill_error err = {0};
    NEEDS_FAKE();
    sill_model *m = load(GPT2);
    REQUIRE(m);
    for (int k = 0; k <= 70; k += k < 5 ? 1 : k == 66 ? 4 : 61) {
        sill_session *s = session_for(m, &(way){.sequences = 1});
        REQUIRE(s);
        s->ahead.patience = 1e9;
        fake.fault("command-buffer", k, k > 0);
        decode(s, N, k ? N : 0, k ? ids : right, &failed, &err);
        fake.fault("command-buffer", 1, 0);
        sill_session_free(s);
        if (k == 0) CHECK(failed < 0);
        if (k == 0) continue;
        CHECK(failed >= 0 && !strncmp(err.msg, "the GPU's work ", 15));
        /* One step a command buffer until 64 ahead were used and one more is under way, then two. */
        CHECK_INT(failed, k <= 66 ? k - 1 : 66 + 2 * (k - 67));
        CHECK(failed >= 0 && !memcmp(ids, right, (size_t)failed * sizeof *ids));
    }
    sill_model_free(m);
}

/* Steps of several command buffers, more than are committed at once: the same texts, and the step that any of them fails in is
 * the one that says so. */
static void in_pieces(void) {
    enum { N = 12 };
    static int32_t right[N], ids[N];
    int failed;
    sill_error err = {0};
    NEEDS_FAKE();
    sill_model *m = load(GPT2);
    REQUIRE(m);
    for (int drawn = 0; drawn < 2; drawn++) {
        const sill_generate_options o = {.size = sizeof o, .max_new_tokens = small ? 8 : 24, .do_sample = drawn, .temperature = drawn ? 0.8f : 0, .seed = 5};
        const way w = {.rows = 5, .sequences = 3, .batch = 16};
        sill__mtl_piece_seconds(0);
        fake.reset();
        generate(m, &w, &o, &want);
        const fakemetal_totals one = fake_totals();
        for (int k = 0; k < 2; k++) { /* every call by itself, or some together */
            sill__mtl_piece_seconds(k ? 1e-6 : 1e-12);
            fake.reset();
            generate(m, &w, &o, &got);
            const fakemetal_totals t = fake_totals();
            CHECK(got.n_used > 0);
            printf("  %s: %d command buffers for %d kernels, not %d for %d\n", drawn ? "drawn" : "best", (int)t.command_buffers, (int)t.dispatches,
                   (int)one.command_buffers, (int)one.dispatches);
            CHECK(k ? t.command_buffers > one.command_buffers && t.command_buffers < t.dispatches : t.command_buffers == t.dispatches);
            compare("in pieces", &got, &want, true);
        }
    }
    sill__mtl_piece_seconds(1e-12);
    int n_first = 0, n_each = 0;
    for (int k = 0; k < 10; k++) { /* none fails; then of each of the first steps the first, one in the middle, the last */
        sill_session *s = session_for(m, &(way){.sequences = 1});
        REQUIRE(s);
        s->ahead.patience = 0; /* one step a submission */
        const int at = (k - 1) / 3, in = (k - 1) % 3, size = at ? n_each : n_first;
        const int fault = (at ? n_first + (at - 1) * n_each : 0) + (in == 0 ? 1 : in == 1 ? size / 2 : size);
        fake.reset();
        fake.fault("command-buffer", k ? fault : 1, k > 0);
        decode(s, k ? N : 1, k ? N : 0, k ? ids : right, &failed, &err);
        fake.fault("command-buffer", 1, 0);
        if (k == 0) {
            n_first = (int)fake_totals().command_buffers;
            sill_session_free(s);
            REQUIRE((s = session_for(m, &(way){.sequences = 1})));
            fake.reset();
            decode(s, N, N, right, &failed, &err);
            CHECK_INT(failed, -1);
            n_each = ((int)fake_totals().command_buffers - n_first) / (N - 1);
            CHECK_INT(n_first + (N - 1) * n_each, fake_totals().command_buffers);
            CHECK(n_each > 8);
            printf("  %d command buffers for the prompt, %d for each step\n", n_first, n_each);
        } else {
            CHECK_INT(failed, at);
            CHECK(!strncmp(err.msg, "the GPU's work ", 15));
            CHECK(failed < 0 || !memcmp(ids, right, (size_t)failed * sizeof *ids));
        }
        sill_session_free(s);
    }
    sill__mtl_piece_seconds(0);
    sill_model_free(m);
}

/* A step ahead that cannot even be submitted: nothing is said before somebody asks for it. */
static void failing_submits(void) {
    enum { N = 20 };
    int32_t right[N], ids[N];
    int failed, n_seen = 0;
    sill_error err = {0};
    NEEDS_FAKE();
    for (long k = 0; k < 60; k++) {
        sill__mtl_forget();
        fake.fault("pipeline", k, k > 0);
        sill_model *m = load(GPT2);
        REQUIRE(m);
        sill_session *s = session_for(m, &(way){.sequences = 1});
        REQUIRE(s);
        decode(s, N, N, k ? ids : right, &failed, &err);
        fake.fault("pipeline", 1, 0);
        sill_session_free(s);
        sill_model_free(m);
        if (k == 0) {
            CHECK(failed < 0);
            continue;
        }
        CHECK(!memcmp(ids, right, sizeof ids));
        if (failed < 0) break; /* all of them were made */
        CHECK(failed <= 1 && strstr(err.msg, "injected fault"));
        n_seen += failed == 1;
    }
    CHECK(failed < 0 && n_seen >= 1); /* that of take_ids is made for the step ahead */
}

/* Where no block is free for the next position, nothing is computed ahead; the step itself fails as always. */
static void blocks_run_out(void) {
    sill_error err = {0};
    int32_t ids[48] = {0};
    static const int32_t ahead[] = {2, 2, 1, 0}; /* up to the block's end */
    NEEDS_FAKE();
    sill_model *m = load(GPT2);
    REQUIRE(m);
    sill_session *s = session_for(m, &(way){.sequences = 1});
    REQUIRE(s);
    sill__seq seq = sill__seq_new(s);
    int32_t taken[8], n_taken = 0;
    REQUIRE(s->blocks.n <= 8);
    while (s->blocks.n_free > 1) taken[n_taken++] = sill__blocks_take(&s->blocks);
    sill__span p = {.seq = seq, .tokens = ids, .n = 29, .first_out = 29, .n_top = 1, .n_more = 100};
    for (int i = 0; i < 4; i++) {
        CHECK_OK(sill__step(s, &p, 1, &err), err);
        CHECK_INT(sill__session_n_ahead(s), ahead[i]);
        CHECK(p.top_ids);
        int32_t id = p.top_ids ? p.top_ids[0] : 0;
        ids[40 + i] = id;
        p = (sill__span){.seq = seq, .tokens = &ids[40 + i], .n = 1, .first_out = 1, .n_top = 1, .n_more = 99 - i};
    }
    CHECK_INT(sill__step(s, &p, 1, &err), SILL_ENOFIT);
    while (n_taken > 0) sill__blocks_drop(&s->blocks, taken[--n_taken]);
    CHECK_OK(sill__step(s, &p, 1, &err), err);
    CHECK_INT(sill__session_n_ahead(s), 2);
    sill__seq_free(s, seq);
    CHECK_INT(s->blocks.n_free, s->blocks.n);
    sill_session_free(s);
    sill_model_free(m);
}

/* A number of a sequence that ended is another's: its steps ahead are not. */
static void numbers_of_sequences(void) {
    int32_t ids[16], id = 0;
    float first = 0;
    sill_error err = {0};
    NEEDS_FAKE();
    sill_model *m = load(GPT2);
    REQUIRE(m);
    sill_session *s = session_for(m, &(way){.sequences = 4});
    REQUIRE(s);
    for (int32_t i = 0; i < 16; i++) ids[i] = (i * 31 + 2) % m->config.n_vocab;
    for (int round = 0; round < 2; round++) {
        sill__seq parent = sill__seq_new(s), seq = sill__seq_new(s), before = seq;
        sill__span p = {.seq = parent, .tokens = ids, .n = 14, .first_out = 14, .n_top = 1};
        CHECK_OK(sill__step(s, &p, 1, &err), err);
        p = (sill__span){.seq = seq, .tokens = ids + 2, .n = 10, .first_out = 10, .n_top = 1, .n_more = round ? 40 : 0};
        for (int k = 0; k < 3; k++) { /* from 10 to 12 tokens, two more on the way in the second round */
            CHECK_OK(sill__step(s, &p, 1, &err), err);
            id = p.top_ids[0];
            p = (sill__span){.seq = seq, .tokens = &id, .n = 1, .first_out = 1, .n_top = 1, .n_more = round ? 39 - k : 0};
        }
        CHECK_INT(sill__session_n_ahead(s), round ? 2 : 0);
        sill__seq_free(s, seq);
        CHECK_INT(sill__session_n_ahead(s), 0);
        seq = sill__seq_fork(s, parent, 12); /* the same number, as long, and the same token comes next */
        CHECK_INT(seq, before);
        p = (sill__span){.seq = seq, .tokens = &id, .n = 1, .first_out = 1, .n_top = 1, .n_more = round ? 30 : 0};
        CHECK_OK(sill__step(s, &p, 1, &err), err);
        if (round) CHECK(p.top_logprobs[0] == first && first < 0);
        first = p.top_logprobs[0];
        sill__seq_free(s, seq);
        sill__seq_free(s, parent);
    }
    CHECK_INT(s->blocks.n_free, s->blocks.n);
    sill_session_free(s);
    sill_model_free(m);
}

/* Another token than the one that was foreseen: the steps ahead are for nothing, and harm nothing. */
static void other_futures(void) {
    enum { N = 40 };
    int32_t out[2][N];
    float probs[2][N];
    sill_error err = {0};
    NEEDS_FAKE();
    sill_model *m = load(LLAMA);
    REQUIRE(m);
    sill_session *s = session_for(m, &(way){.sequences = 1});
    REQUIRE(s);
    for (int ahead = 0; ahead < 2; ahead++) {
        int32_t id = 9;
        sill__seq seq = sill__seq_new(s);
        for (int i = 0; i < N; i++) {
            sill__span p = {.seq = seq, .tokens = &id, .n = 1, .first_out = 1, .n_top = 2, .n_more = ahead ? N - 1 - i : 0};
            CHECK_OK(sill__step(s, &p, 1, &err), err);
            id = out[ahead][i] = p.top_ids[i % 5 == 3]; /* the second best now and then */
            probs[ahead][i] = p.top_logprobs[1];
        }
        sill__seq_free(s, seq);
    }
    CHECK(!memcmp(out[0], out[1], sizeof out[0]) && !memcmp(probs[0], probs[1], sizeof probs[0]));
    CHECK(s->ahead.n_used > 20 && s->ahead.n_lost >= 8);
    sill_session_free(s);
    sill_model_free(m);
}

/* Freed with work under way: nothing is left, and nothing is used that is gone. */
static void sessions_end(void) {
    int32_t ids[] = {7, 31, 5};
    sill_error err = {0};
    NEEDS_FAKE();
    sill_model *m = load(GPT2);
    REQUIRE(m);
    uint64_t live = 0;
    for (int made = 0; made < 3; made++) {
        if (made == 1) live = fake_totals().live_objects; /* all pipelines are there */
        sill_session *s = session_for(m, &(way){.sequences = 1});
        REQUIRE(s);
        sill__seq seq = sill__seq_new(s);
        sill__span p = {.seq = seq, .tokens = ids, .n = 3, .first_out = 3, .n_top = 1, .n_more = 20};
        CHECK_OK(sill__step(s, &p, 1, &err), err);
        CHECK_INT(sill__session_n_ahead(s), 2);
        if (made == 1) sill__seq_free(s, seq);
        sill_session_free(s);
    }
    CHECK_INT(fake_totals().live_objects, live);
    sill_model_free(m);
}

/* ---------------------------------------------------------------- threads */

typedef struct worker { sill_model *m; int i; result out; } worker;

static void *work(void *arg) {
    worker *w = arg;
    const way how = {.rows = small ? 3 : 6, .sequences = 1 + w->i};
    sill_session *s = NULL;
    sill_session_options so = {.size = sizeof so, .n_ctx = 128, .max_sequences = how.sequences, .batch_tokens = 64};
    w->out.status = sill_session_create(w->m, &so, &s, &w->out.err);
    sill_generate_options o = on_device[w->i % 2 ? 0 : 6].o;
    if (small) o.max_new_tokens = 8;
    if (s) generate_in(s, &how, &o, &w->out);
    sill_session_free(s);
    return NULL;
}

static void threads_share_a_model(void) {
    enum { N = 4 };
    static worker alone[N], together[N];
    pthread_t threads[N];
    NEEDS_FAKE();
    sill_model *m = load(LLAMA);
    REQUIRE(m);
    for (int i = 0; i < N; i++) alone[i] = together[i] = (worker){.m = m, .i = i};
    for (int i = 0; i < 2; i++) work(&alone[i]); /* the others have the same options: the same texts, whatever the company */
    for (int i = 0; i < N; i++) REQUIRE(!pthread_create(&threads[i], NULL, work, &together[i]));
    for (int i = 0; i < N; i++) pthread_join(threads[i], NULL);
    for (int i = 0; i < N; i++) {
        CHECK_OK(together[i].out.status, together[i].out.err);
        CHECK_INT(together[i].out.n_done, small ? 3 : 6);
        CHECK(together[i].out.n_used > (small ? 5 : 20));
        compare("threads", &together[i].out, &alone[i % 2].out, true);
    }
    sill_model_free(m);
}

int main(int argc, char **argv) {
    const char *whole = getenv("SILL_TEST_FULL");
    full = whole && whole[0] == '1';
    small = !full && getenv("TEST_SMALL");
    if (small) n_rows = 3;
    fake_open(argv[0]);
    check_accesses(false);
    TEST(best_tokens);
    TEST(drawn_tokens);
    TEST(drawn_tokens_of_stories);
    TEST(command_buffers);
    TEST(ends_of_texts);
    TEST(forks);
    TEST(cancelled);
    TEST(accesses_and_schedules);
    if (!full) { /* those that are the same either way */
        TEST(options_of_the_host);
        TEST(guessed_tokens);
        TEST(stop_strings);
        TEST(failing_steps);
        TEST(in_pieces);
        TEST(failing_submits);
        TEST(blocks_run_out);
        TEST(numbers_of_sequences);
        TEST(other_futures);
        TEST(sessions_end);
        TEST(threads_share_a_model);
    }
    TEST(nothing_is_left);
    TEST_EXIT();
}
