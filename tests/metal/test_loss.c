/*
 * test_loss.c - a GPU that fails or is taken away while a session decodes, on the fake Metal: the step says what happened, so
 * does every later step of the session, and the process goes on with another session, on the GPU where that still works and
 * on the CPU in any case.
 */
#include "engine/internal.h"
#include "metal.h"

#define MODEL "tests/fixtures/task/llama"
#define N 24 /* tokens that are decoded */

typedef struct run { int32_t ids[N + 1]; float logprobs[N + 1]; int32_t n; sill_status status; sill_error err; } run;

static sill_model *load(const char *device, sill_error *err) {
    sill_model *m = NULL;
    sill_model_options o = {.size = sizeof o, .device = device, .dtype = SILL_DTYPE_F32, .n_threads = 2};
    return sill_model_load(MODEL, &o, &m, err) == SILL_OK ? m : NULL;
}

/* The best ids behind a prompt; ends at the first failed step, N ids at most. */
static void decode(sill_session *s, sill__seq seq, run *r) {
    int32_t prompt[9];
    memset(r, 0, sizeof *r);
    for (int32_t i = 0; i < 9; i++) prompt[i] = (i * 7 + 1) % sill__session_model(s)->config.n_vocab;
    sill__span span = {.seq = seq, .tokens = prompt, .n = 9, .first_out = 9, .n_top = 1};
    while (r->n < N) {
        r->status = sill__step(s, &span, 1, &r->err);
        if (r->status != SILL_OK) return;
        r->ids[r->n] = span.top_ids[0];
        r->logprobs[r->n++] = span.top_logprobs[0];
        span = (sill__span){.seq = seq, .tokens = &r->ids[r->n - 1], .n = 1, .first_out = 1, .n_top = 1};
    }
}

static sill_session *session(sill_model *m) {
    sill_session *s = NULL;
    sill_error err = {0};
    sill_session_options o = {.size = sizeof o, .n_ctx = 96, .batch_tokens = 64, .max_sequences = 2};
    CHECK_OK(sill_session_create(m, &o, &s, &err), err);
    return s;
}

/* All of it with a new session on a model of this device. */
static void whole(sill_model *m, run *r) {
    sill_session *s = session(m);
    memset(r, 0, sizeof *r);
    if (!s) return;
    decode(s, sill__seq_new(s), r);
    CHECK_OK(r->status, r->err);
    CHECK_INT(r->n, N);
    sill_session_free(s);
}

/* The n-th command buffer of a session ends so; prompts and steps that run ahead of their tokens are met. */
static void interrupted(const char *what, long nth, sill_status status, bool for_good, const run *want, const run *on_cpu) {
    sill_error err = {0};
    run r;
    sill_model *m = load("metal", &err), *cpu = load("cpu", &err);
    if (!m || !cpu) {
        FAIL("%s", err.msg);
        sill_model_free(m);
        sill_model_free(cpu);
        return;
    }
    sill_session *s = session(m), *other = session(m);
    if (s && other) {
        fake.fault(what, nth, 1);
        decode(s, sill__seq_new(s), &r);
        CHECK_INT(r.status, status);
        if (!strstr(r.err.msg, "the GPU's work")) FAIL("%s at %ld: %s", what, nth, r.err.msg);
        CHECK(r.n < nth && !memcmp(r.ids, want->ids, (size_t)r.n * 4) && !memcmp(r.logprobs, want->logprobs, (size_t)r.n * 4));
        for (int again = 0; again < 3; again++) { /* the sequence, and another one */
            sill__seq seq = again ? sill__seq_new(s) : 0;
            int32_t id = 1;
            sill__span span = {.seq = seq, .tokens = &id, .n = 1, .first_out = 1, .n_top = 1};
            memset(&err, 0, sizeof err);
            CHECK_INT(sill__step(s, &span, 1, &err), status);
            CHECK(strstr(err.msg, for_good ? "start it anew" : "make a new one"));
            if (again) sill__seq_free(s, seq);
        }
        decode(other, sill__seq_new(other), &r); /* a session that was there before */
        if (for_good) CHECK(r.status == SILL_EDEVICE && r.n == 0 && strstr(r.err.msg, "start it anew"));
        else CHECK(r.n == N && !memcmp(r.ids, want->ids, sizeof r.ids));
    }
    if (!for_good) {
        whole(m, &r);
        CHECK(!memcmp(r.ids, want->ids, sizeof r.ids) && !memcmp(r.logprobs, want->logprobs, sizeof r.logprobs));
    }
    whole(cpu, &r);
    CHECK(!memcmp(r.ids, on_cpu->ids, sizeof r.ids) && !memcmp(r.logprobs, on_cpu->logprobs, sizeof r.logprobs));
    sill_session_free(s);
    sill_session_free(other);
    sill_model_free(m);
    if (for_good) {
        memset(&err, 0, sizeof err);
        CHECK(!load("metal", &err) && err.code == SILL_EDEVICE && strstr(err.msg, "--device cpu"));
    }
    sill_model_free(cpu);
    fake.fault(what, 1, 0);
    sill__mtl_forget(); /* as in a new process */
}

static void while_decoding(void) {
    static const struct { const char *what; sill_status status; bool for_good; } endings[] = {
        {"timeout", SILL_EDEVICE, false}, {"page-fault", SILL_EDEVICE, false}, {"out-of-memory", SILL_ENOMEM, false},
        {"internal", SILL_EDEVICE, false}, {"access-revoked", SILL_EDEVICE, true}, {"device-removed", SILL_EDEVICE, true}};
    static const long nths[] = {1, 2, 5, 17};
    run want, on_cpu;
    sill_error err = {0};
    NEEDS_FAKE();
    sill_model *m = load("metal", &err), *cpu = load("cpu", &err);
    if (!m || !cpu) FAIL("%s", err.msg);
    else whole(m, &want), whole(cpu, &on_cpu);
    sill_model_free(m);
    sill_model_free(cpu);
    if (!m || !cpu || want.n != N) return;
    CHECK(!memcmp(want.ids, on_cpu.ids, sizeof want.ids));
    for (size_t i = 0; i < SILL_ARRAY_LEN(endings); i++)
        for (size_t k = 0; k < (i == 0 || i == 4 ? SILL_ARRAY_LEN(nths) : 1); k++)
            interrupted(endings[i].what, nths[i == 0 || i == 4 ? k : 2], endings[i].status, endings[i].for_good, &want, &on_cpu);
}

/* A fork's copy of a partial block goes without a wait: where it fails, no step goes on from it, the second try neither. */
static void a_fork_that_fails(void) {
    sill_error err = {0};
    NEEDS_FAKE();
    sill_model *m = load("metal", &err);
    if (!m) {
        FAIL("%s", err.msg);
        return;
    }
    sill_session *s = session(m);
    if (s) {
        int32_t ids[10] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, id = 3;
        sill__seq seq = sill__seq_new(s);
        sill__span span = {.seq = seq, .tokens = ids, .n = 10, .first_out = 10, .n_top = 1};
        CHECK_OK(sill__step(s, &span, 1, &err), err);
        fake.fault("timeout", 1, 1);
        sill__seq fork = sill__seq_fork(s, seq, 7);
        for (int again = 0; again < 2; again++) {
            span = (sill__span){.seq = fork, .tokens = &id, .n = 1, .first_out = 1, .n_top = 1};
            CHECK_INT(sill__step(s, &span, 1, &err), SILL_EDEVICE);
            CHECK(strstr(err.msg, "Timeout"));
        }
    }
    sill_session_free(s);
    sill_model_free(m);
}

int main(int argc, char **argv) {
    fake_open(argv[0]);
    if (fake.handle) fake.set("fast", 1);
    TEST(while_decoding);
    TEST(a_fork_that_fails);
    TEST(nothing_is_left);
    TEST_EXIT();
}
