/* test_kv.c - sequences in KV blocks against a plain model of them: random appends, forks, cuts and frees, after each of which
 * the reference counts must be those that the sequences imply; and what a forked sequence computes must be, bit for bit,
 * what the same tokens give from the start. */
#include "../task/records.h"

#include "engine/internal.h"

enum { MAX_SEQS = 12, CTX = 125 };

static int n_shared_cuts;

typedef struct shadow { bool used; sill__seq seq; int32_t n, tokens[CTX]; } shadow;

static void check_invariants(const sill_session *s, const shadow *all) {
    int32_t refs[256] = {0}, used = 0, n_used_handles = 0;
    REQUIRE(s->blocks.n <= 256);
    for (int i = 0; i < MAX_SEQS; i++) {
        if (!all[i].used) continue;
        const sill__seq_state *q = &s->seqs[all[i].seq];
        n_used_handles++;
        CHECK(q->used);
        CHECK_INT(q->n_tokens, all[i].n);
        CHECK_INT(q->n_blocks, sill__blocks_needed(all[i].n));
        CHECK_INT(sill__seq_length(s, all[i].seq), all[i].n);
        for (int32_t b = 0; b < q->n_blocks; b++) {
            REQUIRE(q->blocks[b] >= 0 && q->blocks[b] < s->blocks.n);
            refs[q->blocks[b]]++;
            /* a block that is not full belongs to one sequence */
            if ((b + 1) * SILL__KV_BLOCK > q->n_tokens) CHECK_INT(s->blocks.refs[q->blocks[b]], 1);
        }
    }
    for (int32_t b = 0; b < s->blocks.n; b++) {
        CHECK_INT(s->blocks.refs[b], refs[b]);
        used += refs[b] > 0;
    }
    for (int32_t i = 0; i < s->blocks.n_free; i++) CHECK_INT(s->blocks.refs[s->blocks.stack[i]], 0);
    CHECK_INT(s->blocks.n_free, s->blocks.n - used);
    CHECK_INT(sill__session_free_blocks(s), s->blocks.n_free);
    int32_t handles = 0;
    for (int32_t i = 0; i < s->layout.n_handles; i++) handles += s->seqs[i].used;
    CHECK_INT(handles, n_used_handles);
}

/* Appends n random tokens; the last row's logits must be those of the whole sequence computed afresh. */
static void append(sill_session *s, sill_session *fresh, shadow *h, int32_t n, uint64_t *random, bool compare) {
    static float all[CTX * 512];
    sill_error err = {0};
    n = SILL_MIN(n, CTX - h->n);
    if (n <= 0) return;
    int32_t need = sill__seq_blocks_for(s, h->seq, n), before = sill__session_free_blocks(s);
    for (int32_t i = 0; i < n; i++) h->tokens[h->n + i] = (int32_t)(test_random(random) % 300);
    sill__span span = {.seq = h->seq, .tokens = h->tokens + h->n, .n = n, .first_out = n, .want_logits = true};
    sill_status st = sill__step(s, &span, 1, &err);
    if (need > before) {
        CHECK_INT(st, SILL_ENOFIT);
        CHECK_INT(sill__session_free_blocks(s), before);
        return;
    }
    CHECK_OK(st, err);
    h->n += n;
    CHECK_INT(sill__session_free_blocks(s), before - need);
    if (!compare || st != SILL_OK) return;
    int32_t vocab = s->layout.n_vocab;
    CHECK_OK(sill_logits(fresh, h->tokens, (size_t)h->n, all, &err), err);
    if (memcmp(all + (size_t)(h->n - 1) * (size_t)vocab, span.logits, (size_t)vocab * sizeof(float)))
        FAIL("the logits after %d tokens differ from those computed at once", h->n);
}

/* Cuts to n positions, which needs a block where the one in which they end is another's too. */
static void cut(sill_session *s, shadow *h, int32_t n) {
    const sill__seq_state *q = &s->seqs[h->seq];
    const int32_t whole = n / SILL__KV_BLOCK, before = sill__session_free_blocks(s);
    int32_t given_back = 0, own = 0;
    for (int32_t b = whole; b < q->n_blocks; b++) given_back += s->blocks.refs[q->blocks[b]] == 1 && b * SILL__KV_BLOCK >= n;
    if (n % SILL__KV_BLOCK) own = s->blocks.refs[q->blocks[whole]] > 1;
    n_shared_cuts += own;
    if (sill__seq_truncate(s, h->seq, n)) {
        CHECK_INT(sill__session_free_blocks(s), before + given_back - own);
        h->n = n;
    } else {
        CHECK(own && before == 0 && given_back == 0);
        CHECK_INT(sill__session_free_blocks(s), before);
    }
}

static void random_run(const char *path, const char *device, sill_kv_dtype kv, uint64_t seed, int steps) {
    sill_model *m = test_model(path, device, 1);
    sill_session *s = test_session_kv(m, CTX, 64, 4, kv), *fresh = test_session_kv(m, CTX, 0, 8, kv);
    shadow all[MAX_SEQS] = {0};
    uint64_t random = seed;
    REQUIRE(s && fresh);
    CHECK_INT(s->layout.n_handles, 12);
    for (int step = 0; step < steps && !test_failures; step++) {
        shadow *h = &all[test_random(&random) % MAX_SEQS], *p = &all[test_random(&random) % MAX_SEQS];
        uint32_t what = test_random(&random) % 10;
        if (!h->used && what < 4 && p->used) {
            int32_t n = (int32_t)(test_random(&random) % (uint32_t)(p->n + 1));
            h->seq = sill__seq_fork(s, p->seq, n);
            h->used = h->seq >= 0;
            h->n = n;
            memcpy(h->tokens, p->tokens, sizeof h->tokens);
            if (!h->used) CHECK(n % SILL__KV_BLOCK && sill__session_free_blocks(s) == 0);
        } else if (!h->used) {
            h->seq = sill__seq_new(s);
            h->used = true;
            h->n = 0;
            CHECK(h->seq >= 0);
        } else if (what < 2) {
            sill__seq_free(s, h->seq);
            h->used = false;
        } else if (what < 5 && h->n) {
            cut(s, h, (int32_t)(test_random(&random) % (uint32_t)(h->n + 1)));
        } else {
            append(s, fresh, h, 1 + (int32_t)(test_random(&random) % 50), &random, step % 4 == 0);
        }
        check_invariants(s, all);
    }
    for (int i = 0; i < MAX_SEQS; i++)
        if (all[i].used) sill__seq_free(s, all[i].seq);
    memset(all, 0, sizeof all);
    check_invariants(s, all);
    CHECK_INT(s->blocks.n_free, s->blocks.n);
    sill_session_free(fresh);
    sill_session_free(s);
    sill_model_free(m);
}

static void random_operations_ref(void) { random_run(FIXTURES "gpt2", "ref", SILL_KV_AUTO, 1, 400); }
static void random_operations_cpu(void) {
    for (uint64_t seed = 2; seed < 5; seed++)
        random_run(seed % 2 ? FIXTURES "gpt2" : FIXTURES "llama", "cpu", SILL_KV_AUTO, seed, 1500);
}
/* Forks inside a block take the codes and scales along. */
static void random_operations_int8(void) {
    random_run(FIXTURES "llama", "ref", SILL_KV_INT8, 5, 400);
    for (uint64_t seed = 6; seed < 9; seed++)
        random_run(seed % 2 ? FIXTURES "gpt2" : FIXTURES "llama", "cpu", SILL_KV_INT8, seed, 1500);
}

static void random_operations_f16(void) {
    random_run(FIXTURES "gpt2", "ref", SILL_KV_F16, 10, 400);
    for (uint64_t seed = 11; seed < 14; seed++)
        random_run(seed % 2 ? FIXTURES "gpt2" : FIXTURES "llama", "cpu", SILL_KV_F16, seed, 1500);
    CHECK(n_shared_cuts > 30); /* of all runs together */
}

/* A cut inside of a shared block needs one of its own, which may be the one that it gives back. */
static void cuts_without_a_block(void) {
    sill_model *m = test_model(FIXTURES "gpt2", "ref", 1);
    sill_session *s = test_session(m, CTX, 128, 1), *fresh = test_session(m, CTX, 0, 8);
    shadow a = {0}, b = {0}, c = {0};
    uint64_t random = 3;
    REQUIRE(s && fresh);
    CHECK_INT(s->blocks.n, 6);
    a.seq = sill__seq_new(s);
    append(s, fresh, &a, 96, &random, false);
    b = a;
    b.seq = sill__seq_fork(s, a.seq, 96);
    c.seq = sill__seq_new(s);
    append(s, fresh, &c, 96, &random, false);
    CHECK_INT(sill__session_free_blocks(s), 0);
    CHECK(!sill__seq_truncate(s, a.seq, 70));
    CHECK(!sill__seq_truncate(s, a.seq, 1));
    CHECK_INT(sill__seq_length(s, a.seq), 96);
    CHECK(sill__seq_truncate(s, c.seq, 64));
    append(s, fresh, &a, 20, &random, true); /* takes the last */
    CHECK_INT(sill__session_free_blocks(s), 0);
    CHECK(sill__seq_truncate(s, a.seq, 70)); /* gives it back, and takes it for the rest of a shared one */
    a.n = 70;
    CHECK_INT(sill__session_free_blocks(s), 0);
    append(s, fresh, &a, 26, &random, true); /* up to the block's end; b's own stays as it was */
    CHECK(sill__seq_truncate(s, c.seq, 32));
    append(s, fresh, &b, 1, &random, true);
    sill_session_free(fresh);
    sill_session_free(s);
    sill_model_free(m);
}

static void handles_run_out_without_harm(void) {
    sill_model *m = test_model(FIXTURES "gpt2", "ref", 1);
    sill_session *s = test_session(m, 0, 0, 1);
    sill__seq seqs[64];
    int n = 0;
    REQUIRE(s);
    while (n < 64 && (seqs[n] = sill__seq_new(s)) >= 0) n++;
    CHECK_INT(n, s->layout.n_handles);
    CHECK_INT(sill__seq_fork(s, seqs[0], 0), -1);
    for (int i = 0; i < n; i++) sill__seq_free(s, seqs[i]);
    sill__seq_free(s, seqs[0]); /* twice: nothing happens */
    sill__seq_free(s, -1);
    CHECK(sill__seq_new(s) >= 0);
    CHECK_INT(sill__seq_fork(s, 0, 1), -1); /* longer than the parent */
    CHECK(sill__seq_truncate(s, 0, 0));
    CHECK(!sill__seq_truncate(s, 0, 1));
    CHECK(!sill__seq_truncate(s, 0, -1));
    CHECK(!sill__seq_truncate(s, 63, 0));
    sill_session_free(s);
    sill_model_free(m);
}

int main(int argc, char **argv) {
    TEST(random_operations_ref);
    TEST(random_operations_cpu);
    TEST(random_operations_int8);
    TEST(random_operations_f16);
    TEST(cuts_without_a_block);
    TEST(handles_run_out_without_harm);
    TEST_EXIT();
}
