/*
 * test_merge.c - the merge engine, which takes three ways by length, against the definition: look for the lowest
 * rank, the leftmost among equals, join, and again. Random vocabularies: in order, out of order, with equal ranks.
 */
#include "tok_test.h"

#include "tokenizer/internal.h"

static size_t merge_by_definition(const sill_tokenizer *t, uint32_t *sym, size_t n) {
    for (;;) {
        const sill__merge_slot *best = NULL;
        size_t at = 0;
        for (size_t i = 0; i + 1 < n; i++) {
            const sill__merge_slot *m = sill__tok_find_merge(t, sym[i], sym[i + 1]);
            if (m && (!best || m->rank < best->rank)) {
                best = m;
                at = i;
            }
        }
        if (!best) return n;
        sym[at] = best->id;
        for (size_t i = at + 1; i + 1 < n; i++) sym[i] = sym[i + 1];
        n--;
    }
}

/* A vocabulary of random joinings of letters. SPM: ranks from scores, of which there are few, so that many are equal. */
static sill_tokenizer *random_vocabulary(uint64_t *state, int n_letters, int n_merged, bool spm, bool in_order) {
    enum { MAX = 256 };
    static char text[MAX][24];
    static int left[MAX], right[MAX], order[MAX];
    float scores[MAX];
    sill_error err = {0};
    sill_tokenizer *t = sill__tok_new();
    int n = 0;
    if (!t) return NULL;
    t->kind = spm ? SILL__TOK_BPE_SPM : SILL__TOK_BPE_BYTES;
    for (; n < n_letters; n++) snprintf(text[n], sizeof text[n], "%c", 'a' + n);
    for (int tries = 0; n < n_letters + n_merged && tries < 5000; tries++) {
        int a = (int)(test_random(state) % (uint32_t)n), b = (int)(test_random(state) % (uint32_t)n), same = 0;
        char joined[48];
        snprintf(joined, sizeof joined, "%s%s", text[a], text[b]);
        if (strlen(joined) >= sizeof text[0]) continue;
        for (int i = 0; i < n; i++) same |= !strcmp(text[i], joined);
        if (same) continue;
        memcpy(text[n], joined, sizeof text[n]);
        left[n] = a;
        right[n] = b;
        n++;
    }
    for (int i = 0; i < n; i++) CHECK_OK(sill__tok_put_written(t, i, text[i], strlen(text[i]), SILL__ATTR_NORMAL, &err), err);
    CHECK_OK(sill__tok_index(t, 16, &err), err);
    for (int i = n_letters; i < n; i++) order[i] = i;
    for (int i = n - 1; i > n_letters && !in_order; i--) {
        int k = n_letters + (int)(test_random(state) % (uint32_t)(i - n_letters + 1)), swap = order[i];
        order[i] = order[k];
        order[k] = swap;
    }
    if (spm) {
        for (int i = 0; i < n; i++) scores[i] = -(float)(in_order ? i / 3 : (int)(test_random(state) % 8));
        CHECK_OK(sill__tok_merges_from_scores(t, scores, &err), err);
    } else {
        for (int i = n_letters; i < n; i++) {
            const char *a = text[left[order[i]]], *b = text[right[order[i]]];
            CHECK_OK(sill__tok_merge_written(t, a, strlen(a), b, strlen(b), (uint32_t)(i - n_letters), &err), err);
        }
    }
    CHECK_OK(sill__tok_finish(t, &err), err);
    return t;
}

static void compare(uint64_t seed, int rounds, bool spm, bool in_order) {
    static const size_t lengths[] = {2, 3, 9, 47, 48, 49, 60, 200, 1023, 1024, 1300, 2500};
    enum { MOST = 2500 };
    static uint32_t want[MOST], got[MOST];
    for (int r = 0; r < rounds; r++) {
        int n_letters = 1 + (int)(test_random(&seed) % 4), n_merged = 1 + (int)(test_random(&seed) % 120);
        sill_tokenizer *t = random_vocabulary(&seed, n_letters, n_merged, spm, in_order);
        REQUIRE(t);
        for (size_t k = 0; k < SILL_ARRAY_LEN(lengths); k++) {
            sill_error err = {0};
            size_t n = lengths[k], m = n;
            uint32_t run = 1 + test_random(&seed) % 6; /* runs of one letter make pairs overlap */
            for (size_t i = 0; i < n; i++)
                want[i] = got[i] = i && test_random(&seed) % run ? want[i - 1] : test_random(&seed) % (uint32_t)n_letters;
            size_t n_want = merge_by_definition(t, want, n);
            CHECK_OK(sill__bpe_merge(t, got, &m, &err), err);
            if (m != n_want || memcmp(want, got, m * sizeof *want))
                FAIL("round %d, %zu symbols: %zu tokens, expected %zu", r, n, m, n_want);
        }
        sill_tokenizer_free(t);
    }
}

static void merges_in_order(void) { compare(1, 40, false, true); }
static void merges_out_of_order(void) { compare(2, 40, false, false); }
static void merges_by_score(void) { compare(3, 30, true, true); }
static void merges_by_score_with_many_equal(void) { compare(4, 30, true, false); }

/* Equal scores: the leftmost pair, not the token of the lower id. Ids from sentencepiece 0.2.3. */
static void equal_scores_from_the_left(void) {
    static const char *const text[] = {"a", "b", "c", "bc", "ab"};
    static const float scores[] = {-3, -3, -3, -1, -1};
    sill_error err = {0};
    sill_tokenizer *t = sill__tok_new();
    REQUIRE(t);
    t->kind = SILL__TOK_BPE_SPM;
    for (int i = 0; i < 5; i++) CHECK_OK(sill__tok_put_written(t, i, text[i], strlen(text[i]), SILL__ATTR_NORMAL, &err), err);
    CHECK_OK(sill__tok_index(t, 0, &err), err);
    CHECK_OK(sill__tok_merges_from_scores(t, scores, &err), err);
    CHECK_OK(sill__tok_finish(t, &err), err);
    CHECK_IDS(t, "abc", 0, 4, 2);
    CHECK_IDS(t, "cabcab", 0, 2, 4, 2, 4);
    sill_tokenizer_free(t);
}

int main(int argc, char **argv) {
    TEST(merges_in_order);
    TEST(merges_out_of_order);
    TEST(merges_by_score);
    TEST(merges_by_score_with_many_equal);
    TEST(equal_scores_from_the_left);
    TEST_EXIT();
}
