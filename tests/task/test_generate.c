/* test_generate.c - what generate promises beyond the right tokens: streaming, stop strings, lengths, rows that fail,
 * cancelling, sampling that depends on seed and key alone, and no memory taken while decoding. */
#include "records.h"

#include "engine/engine.h"

enum { MAX_OUT = 80 };

typedef struct out {
    int n_final, n_pieces;
    sill_status status;
    char error[512], text[4096], streamed[4096], finish[16];
    size_t n_bytes, n_streamed, n_ids, n_streamed_ids, n_prompt;
    int32_t ids[200], streamed_ids[200];
    float logprobs[200];
} out;

typedef struct call {
    test_rows source;
    out results[MAX_OUT]; /* row * n_return + sequence */
    int n_return, n_done, cancel_next_at, cancel_done_at, cancel_piece_at;
    uint64_t allocs_first, allocs_last;
    const char *stop;
    int tops;
} call;

static sill_model *gpt2, *llama;

static int next_row(void *user, sill_row *row) {
    call *c = user;
    if (c->cancel_next_at && c->source.at == c->cancel_next_at - 1) return -1;
    return test_next(&c->source, row);
}

static void check_tops(const call *c, const sill_generated *r) {
    for (size_t i = 0; i < r->n_ids; i++) {
        const sill_top *t = r->tops + i * (size_t)c->tops;
        for (int k = 1; k < c->tops; k++)
            CHECK(t[k - 1].logprob > t[k].logprob || (t[k - 1].logprob == t[k].logprob && t[k - 1].id < t[k].id));
        for (int k = 0; k < c->tops; k++)
            if (t[k].id == r->ids[i]) CHECK(t[k].logprob == r->logprobs[i]);
        CHECK(r->logprobs[i] <= t[0].logprob + 1e-6f);
    }
}

static int on_text(void *user, const sill_generated *r) {
    call *c = user;
    size_t slot = (size_t)r->index * (size_t)c->n_return + (size_t)SILL_MAX(0, r->sequence);
    if (slot >= MAX_OUT) {
        FAIL("row %d sequence %d", (int)r->index, r->sequence);
        return 1;
    }
    out *o = &c->results[slot];
    if (!r->final) {
        CHECK_INT(o->n_final, 0);
        CHECK(r->n_bytes > 0 && o->n_streamed + r->n_bytes < sizeof o->streamed);
        memcpy(o->streamed + o->n_streamed, r->text, r->n_bytes);
        o->n_streamed += r->n_bytes;
        memcpy(o->streamed_ids + o->n_streamed_ids, r->ids, r->n_ids * sizeof *r->ids);
        o->n_streamed_ids += r->n_ids;
        if (c->n_done == 0 && !c->allocs_first) c->allocs_first = sill__alloc_count();
        c->allocs_last = sill__alloc_count();
        o->n_pieces++;
        return c->cancel_piece_at && o->n_pieces == c->cancel_piece_at;
    }
    o->n_final++;
    o->status = r->status;
    o->n_prompt = r->n_prompt;
    if (r->status == SILL_OK) {
        CHECK(r->n_bytes < sizeof o->text && r->n_ids <= 200);
        memcpy(o->text, r->text, r->n_bytes);
        o->n_bytes = r->n_bytes;
        memcpy(o->ids, r->ids, r->n_ids * sizeof *r->ids);
        memcpy(o->logprobs, r->logprobs, r->n_ids * sizeof *r->logprobs);
        o->n_ids = r->n_ids;
        snprintf(o->finish, sizeof o->finish, "%s", r->finish_reason);
        if (c->tops) check_tops(c, r);
        else CHECK(!r->tops);
    } else {
        CHECK(r->error && r->error[0] && r->n_ids == 0 && r->n_bytes == 0);
        snprintf(o->error, sizeof o->error, "%s", r->error);
    }
    c->n_done++;
    return c->cancel_done_at && c->n_done == c->cancel_done_at;
}

static sill_status generate(sill_session *s, const sill_generate_options *o, sill_row *rows, int n, int stream, call *c) {
    sill_error err = {0};
    c->source = (test_rows){.rows = rows, .n = n};
    c->n_return = o ? SILL_MAX(1, o->num_return_sequences) : 1;
    int32_t before = sill__session_free_blocks(s);
    sill_status st = sill_generate(s, o, next_row, on_text, stream, c, &err);
    CHECK_INT(sill__session_free_blocks(s), before); /* nothing is kept, whatever happened */
    if (st != SILL_OK) CHECK(err.code == st && err.msg[0]);
    return st;
}

static sill_row text_row(uint64_t index, const char *text) {
    return (sill_row){.index = index, .key = index, .text = text, .n_bytes = text ? strlen(text) : 0};
}

static void streams_whole_characters(void) {
    sill_session *s = test_session(gpt2, 0, 0, 8);
    sill_row rows[6];
    static const char *texts[] = {"The film", "I like", "She said that", "caf\xc3\xa9", "a", "the sky and the sun"};
    for (int k = 0; k < 6; k++) rows[k] = text_row((uint64_t)k, texts[k]);
    for (int mode = 0; mode < 3; mode++) {
        sill_generate_options o = {.size = sizeof o, .max_new_tokens = 60, .ignore_eos = 1, .do_sample = mode > 0, .seed = 3,
                                   .num_return_sequences = mode == 2 ? 3 : 0, .temperature = 1.5f};
        call *c = calloc(1, sizeof *c);
        REQUIRE(s && generate(s, &o, rows, 6, 1, c) == SILL_OK);
        CHECK_INT(c->n_done, 6 * c->n_return);
        for (int k = 0; k < 6 * c->n_return; k++) {
            out *r = &c->results[k];
            CHECK_INT(r->n_final, 1);
            CHECK_INT(r->n_ids, 60);
            CHECK_STR(r->finish, "length");
            CHECK(r->n_streamed == r->n_bytes && !memcmp(r->streamed, r->text, r->n_bytes));
            CHECK(r->n_streamed_ids <= r->n_ids && !memcmp(r->streamed_ids, r->ids, r->n_streamed_ids * sizeof *r->ids));
            CHECK(r->n_pieces > 1);
        }
        free(c);
    }
    sill_session_free(s);
}

/* Pieces end on whole characters: a model that is made to write the two bytes of an e-acute as two tokens. */
static void holds_back_partial_characters(void) {
    sill_session *s = test_session(gpt2, 0, 0, 2);
    int32_t ids[4], bias_ids[340], n_bias = 0;
    float bias[340];
    size_t n = 0;
    sill_error err = {0};
    REQUIRE(s);
    CHECK_OK(sill_tokenize(sill_model_tokenizer(gpt2), "\xc3", 1, 0, ids, 4, &n, &err), err);
    CHECK_INT(n, 1);
    for (int32_t i = 0; i < 340; i++) { /* nothing but the first byte of a character, for ever */
        if (i == ids[0]) continue;
        bias_ids[n_bias] = i;
        bias[n_bias++] = -INFINITY;
    }
    sill_row row = text_row(0, "x");
    sill_generate_options o = {.size = sizeof o, .max_new_tokens = 1, .bias_ids = bias_ids, .bias_values = bias,
                               .n_bias = (size_t)n_bias};
    call *c = calloc(1, sizeof *c);
    REQUIRE(generate(s, &o, &row, 1, 1, c) == SILL_OK);
    CHECK_INT(c->results[0].n_bytes, 1);
    CHECK_INT(c->results[0].n_pieces, 1); /* at the end it has to come */
    memset(c, 0, sizeof *c);
    o.max_new_tokens = 4;
    REQUIRE(generate(s, &o, &row, 1, 1, c) == SILL_OK);
    CHECK(!memcmp(c->results[0].text, "\xc3\xc3\xc3\xc3", 4));
    CHECK_INT(c->results[0].n_streamed, 4);
    free(c);
    sill_session_free(s);
}

static void stop_strings_cut_and_never_leak(void) {
    sill_session *s = test_session(gpt2, 0, 0, 2);
    sill_row row = text_row(0, "The film");
    sill_generate_options o = {.size = sizeof o, .max_new_tokens = 40, .ignore_eos = 1, .do_sample = 1, .seed = 11,
                               .temperature = 2.0f, .top_k = -1};
    call *c = calloc(1, sizeof *c), *d = calloc(1, sizeof *d);
    REQUIRE(s && generate(s, &o, &row, 1, 0, c) == SILL_OK);
    const out *whole = &c->results[0];
    REQUIRE(whole->n_bytes > 30);
    int cut_inside = 0;
    for (size_t at = 0; at + 5 < whole->n_bytes; at += 3)
        for (size_t len = 1; len <= 5; len++) {
            char stop[8] = {0};
            memcpy(stop, whole->text + at, len);
            if (strlen(stop) != len) continue;
            const char *stops[] = {"\x01never\x01", stop};
            o.stop = stops;
            o.n_stop = 2;
            memset(d, 0, sizeof *d);
            if (generate(s, &o, &row, 1, 1, d) != SILL_OK) return;
            size_t first = 0;
            while (memcmp(whole->text + first, stop, len)) first++;
            CHECK_INT(d->results[0].n_bytes, first);
            CHECK(!memcmp(d->results[0].text, whole->text, first));
            CHECK_STR(d->results[0].finish, "stop");
            CHECK(d->results[0].n_streamed == first && !memcmp(d->results[0].streamed, whole->text, first));
            CHECK(!memcmp(d->results[0].ids, whole->ids, d->results[0].n_ids * sizeof(int32_t)));
            cut_inside += first > 0;
        }
    CHECK(cut_inside > 10);
    free(c);
    free(d);
    sill_session_free(s);
}

static void length_rules(void) {
    sill_session *s = test_session(gpt2, 0, 0, 4);
    int32_t ids[250];
    for (int i = 0; i < 250; i++) ids[i] = 3 + i % 300;
    sill_row rows[3] = {{.index = 0, .ids = ids, .n_ids = 10}, {.index = 1, .ids = ids, .n_ids = 40},
                        {.index = 2, .ids = ids, .n_ids = 250}};
    sill_generate_options o = {.size = sizeof o, .ignore_eos = 1};
    call *c = calloc(1, sizeof *c), *d = calloc(1, sizeof *d);
    REQUIRE(s && generate(s, NULL, rows, 1, 0, c) == SILL_OK); /* the default: 20 */
    CHECK(c->results[0].n_ids <= 20);
    memset(c, 0, sizeof *c);
    o.max_length = 30;
    REQUIRE(generate(s, &o, rows, 3, 0, c) == SILL_OK);
    CHECK_INT(c->results[0].n_ids, 20);
    CHECK_INT(c->results[1].status, SILL_ERANGE);
    CHECK(strstr(c->results[1].error, "40 tokens") && strstr(c->results[1].error, "30"));
    CHECK_INT(c->results[2].status, SILL_ERANGE);
    memset(c, 0, sizeof *c);
    o.max_new_tokens = 7; /* wins over max_length */
    REQUIRE(generate(s, &o, rows, 3, 0, c) == SILL_OK);
    CHECK_INT(c->results[0].n_ids, 7);
    CHECK_INT(c->results[1].n_ids, 7);
    CHECK_INT(c->results[2].status, SILL_ERANGE);
    CHECK(strstr(c->results[2].error, "250") && strstr(c->results[2].error, "192"));
    o.long_policy = SILL_LONG_TRUNCATE; /* keeps the end */
    memset(c, 0, sizeof *c);
    REQUIRE(generate(s, &o, rows, 3, 0, c) == SILL_OK);
    CHECK_INT(c->results[2].n_prompt, 185);
    sill_row tail = {.index = 0, .ids = ids + 65, .n_ids = 185};
    REQUIRE(generate(s, &o, &tail, 1, 0, d) == SILL_OK);
    CHECK(c->results[2].n_ids == 7 && !memcmp(c->results[2].ids, d->results[0].ids, 7 * sizeof(int32_t)));
    memset(c, 0, sizeof *c); /* up to the very last position */
    o.max_new_tokens = 182;
    REQUIRE(generate(s, &o, rows, 1, 0, c) == SILL_OK);
    CHECK_INT(c->results[0].n_ids, 182);
    free(c);
    free(d);
    sill_session_free(s);
}

static void bos_and_empty_prompts(void) {
    sill_session *s = test_session(llama, 0, 0, 4), *g = test_session(gpt2, 0, 0, 4);
    sill_row row = text_row(0, ""), one = text_row(0, "a");
    sill_generate_options o = {.size = sizeof o, .max_new_tokens = 3};
    call *c = calloc(1, sizeof *c);
    REQUIRE(s && g && generate(s, &o, &row, 1, 0, c) == SILL_OK);
    CHECK_INT(c->results[0].n_prompt, 1); /* BOS */
    memset(c, 0, sizeof *c);
    REQUIRE(generate(g, &o, &row, 1, 0, c) == SILL_OK);
    CHECK_INT(c->results[0].status, SILL_OK);
    CHECK_INT(c->results[0].n_prompt, 1); /* GPT-2 starts from its end of text */
    memset(c, 0, sizeof *c);
    REQUIRE(generate(s, &o, &one, 1, 0, c) == SILL_OK);
    size_t with = c->results[0].n_prompt;
    o.no_bos = 1;
    memset(c, 0, sizeof *c);
    REQUIRE(generate(s, &o, &one, 1, 0, c) == SILL_OK);
    CHECK_INT(c->results[0].n_prompt, with - 1);
    free(c);
    sill_session_free(s);
    sill_session_free(g);
}

static void bad_rows_do_not_end_the_run(void) {
    sill_session *s = test_session(gpt2, 0, 0, 2);
    int32_t bad[] = {3, 999}, negative[] = {-1};
    sill_row rows[] = {text_row(0, "The film"), text_row(1, NULL), {.index = 2, .ids = bad, .n_ids = 2}, text_row(3, "I like"),
                       {.index = 4, .ids = negative, .n_ids = 1}};
    call *c = calloc(1, sizeof *c);
    REQUIRE(s && generate(s, NULL, rows, 5, 0, c) == SILL_OK);
    CHECK_INT(c->n_done, 5);
    CHECK_INT(c->results[0].status, SILL_OK);
    CHECK_INT(c->results[1].status, SILL_EINVAL);
    CHECK_INT(c->results[2].status, SILL_ERANGE);
    CHECK(strstr(c->results[2].error, "999"));
    CHECK_INT(c->results[3].status, SILL_OK);
    CHECK_INT(c->results[4].status, SILL_ERANGE);
    free(c);
    /* a row in which every token becomes forbidden */
    sill_generate_options o = {.size = sizeof o, .max_new_tokens = 5};
    int32_t all[340];
    float minus[340];
    for (int i = 0; i < 340; i++) {
        all[i] = i;
        minus[i] = -INFINITY;
    }
    o.bias_ids = all;
    o.bias_values = minus;
    o.n_bias = 340;
    c = calloc(1, sizeof *c);
    REQUIRE(generate(s, &o, rows, 1, 0, c) == SILL_OK);
    CHECK_INT(c->results[0].status, SILL_ERANGE);
    free(c);
    sill_session_free(s);
}

static void cancelling_leaves_the_session_usable(void) {
    sill_session *s = test_session(gpt2, 0, 16, 3);
    sill_row rows[8];
    for (int i = 0; i < 8; i++) rows[i] = text_row((uint64_t)i, "She said that the film was good");
    for (int mode = 0; mode < 9; mode++) {
        call *c = calloc(1, sizeof *c);
        sill_generate_options o = {.size = sizeof o, .max_new_tokens = 12, .do_sample = 1, .ignore_eos = 1,
                                   .num_return_sequences = mode % 2 ? 3 : 1};
        if (mode / 3 == 0) c->cancel_next_at = 1 + 3 * (mode % 3);
        if (mode / 3 == 1) c->cancel_done_at = 1 + mode % 3;
        if (mode / 3 == 2) c->cancel_piece_at = 1 + mode % 3;
        REQUIRE(s);
        CHECK_INT(generate(s, &o, rows, 8, 1, c), SILL_ECANCELLED);
        memset(c, 0, sizeof *c);
        CHECK_INT(generate(s, &o, rows, 8, 1, c), SILL_OK);
        CHECK_INT(c->n_done, 8 * c->n_return);
        free(c);
    }
    sill_session_free(s);
}

static void samples_depend_on_seed_and_key_alone(void) {
    sill_row rows[8];
    sill_generate_options o = {.size = sizeof o, .max_new_tokens = 8, .do_sample = 1, .ignore_eos = 1, .seed = 42,
                               .num_return_sequences = 5, .temperature = 1.3f};
    call *first = calloc(1, sizeof *first), *c = calloc(1, sizeof *c);
    for (int i = 0; i < 8; i++) rows[i] = text_row((uint64_t)i, i % 2 ? "The film was" : "I");
    for (int sequences = 1; sequences <= 8; sequences += 3) {
        sill_session *s = test_session(gpt2, 0, sequences == 1 ? 1 : 40, sequences);
        memset(c, 0, sizeof *c);
        REQUIRE(s && generate(s, &o, rows, 8, 0, c) == SILL_OK);
        CHECK_INT(c->n_done, 40);
        if (sequences == 1) memcpy(first, c, sizeof *c);
        for (int i = 0; i < 40; i++)
            CHECK(!memcmp(c->results[i].ids, first->results[i].ids, 8 * sizeof(int32_t)) && c->results[i].n_ids == 8);
        sill_session_free(s);
    }
    int same_row = 0, same_key = 0;
    for (int k = 1; k < 5; k++) same_row += !memcmp(first->results[0].ids, first->results[k].ids, 8 * sizeof(int32_t));
    for (int i = 2; i < 8; i += 2) same_key += !memcmp(first->results[0].ids, first->results[i * 5].ids, 8 * sizeof(int32_t));
    CHECK_INT(same_row, 0);
    CHECK_INT(same_key, 0);
    rows[0].key = 6; /* row 6 has the same text: with its key, its sample */
    sill_session *s = test_session(gpt2, 0, 0, 4);
    memset(c, 0, sizeof *c);
    REQUIRE(s && generate(s, &o, rows, 1, 0, c) == SILL_OK);
    CHECK(!memcmp(c->results[0].ids, first->results[30].ids, 8 * sizeof(int32_t)));
    o.seed = 43;
    memset(c, 0, sizeof *c);
    REQUIRE(generate(s, &o, rows, 1, 0, c) == SILL_OK);
    CHECK(memcmp(c->results[0].ids, first->results[30].ids, 8 * sizeof(int32_t)));
    sill_session_free(s);
    free(first);
    free(c);
}

/* More and longer rows than the pool of blocks holds at once: all end, none fails. */
static void a_small_pool_serves_everyone(void) {
    static const int limits[] = {1, 3, 9};
    sill_row rows[16];
    int32_t ids[100];
    for (int i = 0; i < 100; i++) ids[i] = 3 + i * 7 % 300;
    for (int i = 0; i < 16; i++) rows[i] = (sill_row){.index = (uint64_t)i, .key = (uint64_t)i, .ids = ids, .n_ids = (size_t)(1 + i * 6)};
    for (int k = 0; k < 3; k++)
        for (int n_return = 1; n_return <= 5; n_return += 2) {
            sill_session *s = test_session(gpt2, 0, 64, limits[k]);
            call *c = calloc(1, sizeof *c);
            sill_generate_options o = {.size = sizeof o, .max_new_tokens = 90, .do_sample = 1, .ignore_eos = 1,
                                       .num_return_sequences = n_return};
            REQUIRE(s && generate(s, &o, rows, 16, 0, c) == SILL_OK);
            CHECK_INT(c->n_done, 16 * n_return);
            for (int i = 0; i < 16 * n_return; i++) {
                CHECK_INT(c->results[i].status, SILL_OK);
                CHECK_INT(c->results[i].n_ids, 90);
            }
            free(c);
            sill_session_free(s);
        }
}

/* A call whose results in flight would not fit under the session's limit is refused; a smaller one runs. */
static void too_large_a_call_is_refused(void) {
    sill_session_options so = {.size = sizeof so, .max_sequences = 4, .batch_tokens = 32};
    sill_row rows[2] = {text_row(0, "The film"), text_row(1, "I")};
    sill_session *s = NULL;
    sill_error err = {0};
    call *c = calloc(1, sizeof *c);
    REQUIRE(c);
    for (so.memory_limit_bytes = 65536; !s; so.memory_limit_bytes += 4096) /* the least that a session can be made with */
        if (sill_session_create(gpt2, &so, &s, &err) != SILL_OK) REQUIRE(err.code == SILL_ENOFIT);
    sill_generate_options o = {.size = sizeof o, .max_length = 190, .logprobs = 100};
    CHECK_INT(sill_generate(s, &o, next_row, on_text, 0, c, &err), SILL_ENOFIT);
    CHECK(strstr(err.msg, "MiB") && strstr(err.msg, "logprobs"));
    CHECK_INT(c->n_done, 0);
    o = (sill_generate_options){.size = sizeof o, .do_sample = 1, .num_return_sequences = 4};
    CHECK_INT(generate(s, &o, rows, 2, 0, c), SILL_OK); /* the usual call is in the plan */
    CHECK_INT(c->n_done, 8);
    o = (sill_generate_options){.size = sizeof o, .max_length = 190};
    memset(c, 0, sizeof *c);
    CHECK_INT(generate(s, &o, rows, 2, 0, c), SILL_OK);
    CHECK_INT(c->n_done, 2);
    free(c);
    sill_session_free(s);
}

/* With ignore_eos an end of text is a token like others, for min_new_tokens too. */
static void ends_of_text_ignored_are_tokens(void) {
    sill_session *s = test_session(gpt2, 0, 0, 2);
    sill_row row = text_row(0, "The film");
    int32_t eos = gpt2->config.eos_ids[0];
    float bias = 1000;
    call *c = calloc(1, sizeof *c);
    REQUIRE(s && c && gpt2->config.n_eos > 0);
    for (int mode = 0; mode < 4; mode++) {
        sill_generate_options o = {.size = sizeof o, .max_new_tokens = 6, .min_new_tokens = mode % 2 ? 3 : 0, .bias_ids = &eos,
                                   .bias_values = &bias, .n_bias = 1, .ignore_eos = mode / 2};
        memset(c, 0, sizeof *c);
        CHECK_INT(generate(s, &o, &row, 1, 0, c), SILL_OK);
        CHECK_INT(c->results[0].n_ids, mode / 2 ? 6 : mode % 2 ? 4 : 1);
        for (size_t i = 0; i < c->results[0].n_ids; i++)
            CHECK((c->results[0].ids[i] == eos) == (mode / 2 || i >= (mode % 2 ? 3u : 0u)));
    }
    free(c);
    sill_session_free(s);
}

static void tells_alternatives(void) {
    sill_session *s = test_session(gpt2, 0, 0, 2);
    sill_row row = text_row(0, "The film");
    for (int mode = 0; mode < 4; mode++) {
        sill_generate_options o = {.size = sizeof o, .max_new_tokens = 10, .logprobs = 1 + 4 * (mode / 2), .do_sample = mode % 2};
        call *c = calloc(1, sizeof *c);
        c->tops = o.logprobs;
        REQUIRE(s && generate(s, &o, &row, 1, 0, c) == SILL_OK);
        CHECK_INT(c->n_done, 1);
        free(c);
    }
    sill_session_free(s);
}

static void bad_options_are_refused(void) {
    sill_session *s = test_session(gpt2, 0, 0, 2);
    const char *empty[] = {""};
    sill_row row = text_row(0, "x");
    sill_generate_options bad[] = {
        {.max_new_tokens = -1}, {.max_length = -2}, {.num_return_sequences = 2}, {.num_return_sequences = -1},
        {.logprobs = 1000}, {.long_policy = SILL_LONG_WINDOW}, {.n_stop = 1}, {.n_stop = 1, .stop = empty},
        {.do_sample = 1, .temperature = -1}, {.do_sample = 1, .top_p = 2}, {.do_sample = 1, .num_return_sequences = 100000}};
    REQUIRE(s);
    for (size_t i = 0; i < SILL_ARRAY_LEN(bad); i++) {
        call *c = calloc(1, sizeof *c);
        bad[i].size = sizeof bad[i];
        sill_status st = generate(s, &bad[i], &row, 1, 0, c);
        if (st != SILL_EINVAL && st != SILL_ERANGE) FAIL("bad option %d gave status %d", (int)i, st);
        CHECK_INT(c->n_done, 0);
        free(c);
    }
    sill_generate_options wrong = {.size = 3};
    call *c = calloc(1, sizeof *c);
    CHECK_INT(generate(s, &wrong, &row, 1, 0, c), SILL_EINVAL);
    free(c);
    char text[4];
    size_t n = 0;
    sill_error err = {0};
    CHECK_INT(sill_generate_text(s, "The film", NULL, text, sizeof text, &n, &err), SILL_ERANGE);
    CHECK(n >= sizeof text);
    char big[512];
    CHECK_OK(sill_generate_text(s, "The film", NULL, big, sizeof big, &n, &err), err);
    CHECK(n < sizeof big && big[n] == 0);
    sill_session_free(s);
}

static void nothing_is_allocated_while_decoding(void) {
    sill_model *models[] = {gpt2, llama};
    for (int k = 0; k < 2; k++)
        for (int mode = 0; mode < 3; mode++) {
            sill_session *s = test_session(models[k], 0, 0, 16);
            sill_row rows[4];
            static const char *texts[] = {"The film", "I like", "She said that", "the sky and the sun"};
            const char *stop[] = {"\x01\x02"};
            for (int i = 0; i < 4; i++) rows[i] = text_row((uint64_t)i, texts[i]);
            sill_generate_options o = {.size = sizeof o, .max_new_tokens = 60, .ignore_eos = 1, .do_sample = mode > 0,
                                       .num_return_sequences = mode == 2 ? 3 : 0, .logprobs = 3, .stop = stop, .n_stop = 1,
                                       .repetition_penalty = 1.1f, .no_repeat_ngram_size = 4, .top_p = 0.95f, .min_p = 0.01f};
            call *c = calloc(1, sizeof *c);
            c->tops = 3;
            REQUIRE(s && generate(s, &o, rows, 4, 1, c) == SILL_OK);
            CHECK(c->results[0].n_pieces > 5);
            CHECK(c->allocs_first > 0);
            CHECK_INT(c->allocs_last - c->allocs_first, 0);
            free(c);
            sill_session_free(s);
        }
}

static void greedy_decoding_needs_no_logits(void) {
    sill_session *s = test_session(gpt2, 0, 0, 1);
    int32_t prompt[] = {5, 9, 30}, token;
    sill_error err = {0};
    REQUIRE(s);
    sill__seq seq = sill__seq_new(s);
    sill__span span = {.seq = seq, .tokens = prompt, .n = 3, .first_out = 3, .n_top = 1};
    CHECK_OK(sill__step(s, &span, 1, &err), err);
    uint64_t before = sill__alloc_count();
    for (int i = 0; i < 100; i++) {
        token = span.top_ids[0];
        span = (sill__span){.seq = seq, .tokens = &token, .n = 1, .first_out = 1, .n_top = 1};
        CHECK_OK(sill__step(s, &span, 1, &err), err);
        CHECK(!span.logits && span.top_logprobs[0] <= 0);
    }
    CHECK_INT(sill__alloc_count() - before, 0);
    sill__seq_free(s, seq);
    sill_session_free(s);
}

int main(int argc, char **argv) {
    gpt2 = test_model(FIXTURES "gpt2", "cpu", 1);
    llama = test_model(FIXTURES "llama", "cpu", 1);
    TEST(streams_whole_characters);
    TEST(holds_back_partial_characters);
    TEST(stop_strings_cut_and_never_leak);
    TEST(length_rules);
    TEST(bos_and_empty_prompts);
    TEST(bad_rows_do_not_end_the_run);
    TEST(cancelling_leaves_the_session_usable);
    TEST(samples_depend_on_seed_and_key_alone);
    TEST(a_small_pool_serves_everyone);
    TEST(too_large_a_call_is_refused);
    TEST(ends_of_text_ignored_are_tokens);
    TEST(tells_alternatives);
    TEST(bad_options_are_refused);
    TEST(nothing_is_allocated_while_decoding);
    TEST(greedy_decoding_needs_no_logits);
    sill_model_free(gpt2);
    sill_model_free(llama);
    TEST_EXIT();
}
