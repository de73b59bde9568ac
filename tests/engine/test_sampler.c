/* test_sampler.c - the sampler against transformers' processors (tests/fixtures/engine/sampler.txt, made by
 * tools/fixtures/make_sampler.py), and its draws against the distribution that it says it draws from. */
#include "test.h"

#include "engine/sampler.h"

static const int32_t eos[] = {3, 5};

/* The same numbers as make_sampler.py's logits(). */
static void make_logits(const char *kind, int32_t n, uint64_t seed, float *x) {
    uint64_t state = seed;
    for (int32_t i = 0; i < n; i++) {
        float u = (float)(test_random(&state) >> 8) / 16777216.0f;
        x[i] = (u - 0.5f) * 16.0f;
    }
    for (int32_t i = 0; i < n; i++) {
        if (!strcmp(kind, "flat")) x[i] *= 0.125f;
        else if (!strcmp(kind, "ties")) x[i] = rintf(x[i]);
        else if (!strcmp(kind, "cubed")) x[i] = x[i] * x[i] * x[i] * 0.03125f;
        else if (!strcmp(kind, "extreme")) {
            if (i % 7 == 3) x[i] = -INFINITY;
            else if (i % 11 == 5) x[i] *= 1024.0f;
            else if (i % 13 == 6) x[i] = -3e38f;
        }
    }
}

static void make_history(int32_t vocab, uint64_t seed, int32_t n, int32_t *ids) {
    uint64_t state = seed + 77;
    for (int32_t i = 0; i < n; i++) ids[i] = (int32_t)(test_random(&state) % (uint32_t)vocab);
    for (int32_t i = n / 2; i < n; i++) ids[i] = ids[i - n / 2];
}

typedef struct test_case {
    char name[64], kind[16];
    int32_t vocab, hist, n_new;
    uint64_t seed;
    sill_generate_options o;
    int32_t bias_ids[8], bad[128], words[128], suppress[8], begin[8];
    float bias[8], values[16];
    size_t bad_ends[16], word_ends[16];
} test_case;

/* Words of ids between commas. */
static size_t parse_words(const char *p, int32_t *ids, size_t *ends) {
    size_t n = 0;
    for (size_t at = 0; *p;) {
        char *end;
        ids[at++] = (int32_t)strtol(p, &end, 10);
        if (*end != ':') ends[n++] = at;
        p = *end ? end + 1 : end;
    }
    return n;
}

static void parse_lists(test_case *c, const char *key, char *value) {
    size_t ends[16];
    if (!strcmp(key, "suppress")) c->o.n_suppress = parse_words(value, c->suppress, ends);
    if (!strcmp(key, "begin")) c->o.n_begin_suppress = parse_words(value, c->begin, ends);
    if (!strcmp(key, "bad")) c->o.n_bad_words = parse_words(value, c->bad, c->bad_ends);
    if (!strcmp(key, "words")) c->o.n_bias_words = parse_words(value, c->words, c->word_ends);
    if (!strcmp(key, "values"))
        for (size_t i = 0; *value; i++, value += *value == ',') c->values[i] = strtof(value, &value);
    if (!strcmp(key, "bias")) {
        for (char *p = value; p && *p; p = strchr(p, ',') ? strchr(p, ',') + 1 : NULL) {
            c->bias_ids[c->o.n_bias] = (int32_t)strtol(p, &p, 10);
            c->bias[c->o.n_bias++] = strtof(p + 1, &p);
        }
    }
}

static void parse_case(char *line, test_case *c) {
    memset(c, 0, sizeof *c);
    c->o.size = sizeof c->o;
    c->o.do_sample = 1;
    char *save = NULL, *word = strtok_r(line, " \n", &save);
    word = strtok_r(NULL, " \n", &save);
    snprintf(c->name, sizeof c->name, "%s", word);
    while ((word = strtok_r(NULL, " \n", &save))) {
        char *value = strchr(word, '=');
        *value++ = 0;
        double d = strtod(value, NULL);
        if (!strcmp(word, "kind")) snprintf(c->kind, sizeof c->kind, "%s", value);
        else if (!strcmp(word, "vocab")) c->vocab = (int32_t)d;
        else if (!strcmp(word, "seed")) c->seed = (uint64_t)d;
        else if (!strcmp(word, "hist")) c->hist = (int32_t)d;
        else if (!strcmp(word, "new")) c->n_new = (int32_t)d;
        else if (!strcmp(word, "temperature")) c->o.temperature = (float)d;
        else if (!strcmp(word, "top_k")) c->o.top_k = (int32_t)d;
        else if (!strcmp(word, "top_p")) c->o.top_p = (float)d;
        else if (!strcmp(word, "min_p")) c->o.min_p = (float)d;
        else if (!strcmp(word, "typical_p")) c->o.typical_p = (float)d;
        else if (!strcmp(word, "epsilon_cutoff")) c->o.epsilon_cutoff = (float)d;
        else if (!strcmp(word, "eta_cutoff")) c->o.eta_cutoff = (float)d;
        else if (!strcmp(word, "repetition_penalty")) c->o.repetition_penalty = (float)d;
        else if (!strcmp(word, "no_repeat_ngram_size")) c->o.no_repeat_ngram_size = (int32_t)d;
        else if (!strcmp(word, "min_new_tokens")) c->o.min_new_tokens = (int32_t)d;
        else if (!strcmp(word, "num_beams")) c->o.num_beams = (int32_t)d;
        else if (!strcmp(word, "min_length")) c->o.min_length = (int32_t)d;
        else if (strstr("bias bad words values suppress begin", word)) parse_lists(c, word, value);
        else FAIL("%s: option %s is unknown to the test", c->name, word);
    }
    c->o.bias_ids = c->bias_ids;
    c->o.bias_values = c->bias;
    c->o.bad_words = c->bad;
    c->o.bad_word_ends = c->bad_ends;
    c->o.suppress_tokens = c->suppress;
    c->o.begin_suppress_tokens = c->begin;
    c->o.bias_words = c->words;
    c->o.bias_word_ends = c->word_ends;
    c->o.bias_word_values = c->values;
}

static int descending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x < y) - (x > y);
}

static void check_case(const test_case *c, FILE *f) {
    char line[256];
    sill_error err = {0};
    sill__sampler *s = NULL;
    float *logits = malloc((size_t)c->vocab * sizeof *logits);
    int32_t hist[64];
    const int32_t *ids;
    const double *probs;
    make_logits(c->kind, c->vocab, c->seed, logits);
    make_history(c->vocab, c->seed, c->hist, hist);
    CHECK_OK(sill__sampler_create(&c->o, c->vocab, eos, 2, &s, &err), err);
    CHECK_OK(sill__sampler_filter(s, logits, hist, c->hist, c->n_new, &err), err);
    int32_t n = sill__sampler_left(s, &ids, &probs), want = -1;
    if (!fgets(line, sizeof line, f) || sscanf(line, "left %d", &want) != 1 || n != want)
        FAIL("%s: %d ids left, expected %d", c->name, n, want);
    double sum = 0;
    for (int32_t i = 0; i < n; i++) sum += probs[i];
    CHECK_NEAR(sum, 1, 1e-9);
    double *sorted = malloc((size_t)SILL_MAX(n, 1) * sizeof *sorted);
    memcpy(sorted, probs, (size_t)n * sizeof *sorted);
    qsort(sorted, (size_t)n, sizeof *sorted, descending);
    for (int32_t i = 0; i < SILL_MIN(want, 400); i++) {
        int32_t id;
        double p;
        if (!fgets(line, sizeof line, f) || sscanf(line, "%d %lf", &id, &p) != 2) FAIL("%s: the fixture is cut", c->name);
        else if (i < n && id == -1 && fabs(sorted[i] - p) > 1e-6)
            FAIL("%s: the probability of rank %d is %.9g, expected %.9g", c->name, i, sorted[i], p);
        else if (i < n && id != -1 && (ids[i] != id || fabs(probs[i] - p) > 1e-6))
            FAIL("%s: place %d is id %d with %.9g, expected id %d with %.9g", c->name, i, ids[i], probs[i], id, p);
    }
    sill__sampler_free(s);
    free(sorted);
    free(logits);
}

static void same_distribution_as_transformers(void) {
    FILE *f = fopen("tests/fixtures/engine/sampler.txt", "r");
    char line[1024];
    int n = 0;
    REQUIRE(f);
    while (fgets(line, sizeof line, f)) {
        test_case c;
        if (strncmp(line, "case ", 5)) {
            FAIL("expected a case, got %s", line);
            break;
        }
        parse_case(line, &c);
        check_case(&c, f);
        n++;
    }
    fclose(f);
    CHECK_INT(n, 195);
}

static void draws_follow_the_distribution(void) {
    enum { V = 60, DRAWS = 100000 };
    float logits[V];
    int32_t counts[V] = {0};
    sill_generate_options o = {.size = sizeof o, .do_sample = 1, .seed = 1234, .top_k = 20, .temperature = 1.5f};
    sill_error err = {0};
    sill__sampler *s = NULL;
    const int32_t *ids;
    const double *probs;
    make_logits("plain", V, 5, logits);
    CHECK_OK(sill__sampler_create(&o, V, eos, 2, &s, &err), err);
    REQUIRE(s);
    CHECK_OK(sill__sampler_filter(s, logits, NULL, 0, 0, &err), err);
    int32_t n = sill__sampler_left(s, &ids, &probs);
    CHECK_INT(n, 20);
    for (uint32_t i = 0; i < DRAWS; i++) {
        /* rows, sequences and steps all vary, as in a run */
        int32_t id = sill__sampler_draw(s, i / 1000, i / 100 % 10, i % 100);
        REQUIRE(id >= 0 && id < V);
        counts[id]++;
    }
    double chi = 0;
    int32_t cells = 0, total = 0;
    for (int32_t i = 0; i < n; i++) {
        double expected = probs[i] * DRAWS;
        total += counts[ids[i]];
        if (expected < 5) continue;
        chi += (counts[ids[i]] - expected) * (counts[ids[i]] - expected) / expected;
        cells++;
    }
    CHECK_INT(total, DRAWS); /* nothing outside the filter */
    CHECK(cells >= 10);
    /* mean + 4 deviations of chi-square; a fixed seed, so it passes always or never */
    if (chi > cells + 4 * sqrt(2.0 * cells)) FAIL("chi-square is %g for %d cells", chi, cells);
    int32_t other = 0;
    for (uint32_t i = 0; i < 100; i++) other += sill__sampler_draw(s, 0, 0, i) != sill__sampler_draw(s, 1, 0, i);
    CHECK(other > 20); /* another row is another stream */
    sill__sampler_free(s);
}

static void greedy_takes_the_lowest_of_equals(void) {
    float logits[8] = {1, 7, 3, 7, 7, 0, 0, 0};
    int32_t hist[] = {1, 1};
    sill_generate_options o = {.size = sizeof o};
    sill_error err = {0};
    sill__sampler *s = NULL;
    CHECK_OK(sill__sampler_create(&o, 8, eos, 2, &s, &err), err);
    CHECK(!sill__sampler_needs_logits(s));
    sill__sampler_free(s);
    o.repetition_penalty = 2;
    CHECK_OK(sill__sampler_create(&o, 8, eos, 2, &s, &err), err);
    CHECK(sill__sampler_needs_logits(s));
    CHECK_OK(sill__sampler_filter(s, logits, hist, 2, 0, &err), err);
    CHECK_INT(sill__sampler_draw(s, 0, 0, 0), 3);
    sill__sampler_free(s);
}

/* Quotients beyond a float: still the softmax, in which all but the best have gone and equals share. */
static void temperatures_next_to_zero(void) {
    static const float temperatures[] = {1e-38f, 1e-45f, 1e-30f}, shifts[] = {0, -60000, 60000};
    for (size_t t = 0; t < SILL_ARRAY_LEN(temperatures); t++)
        for (size_t k = 0; k < SILL_ARRAY_LEN(shifts); k++) {
            float logits[6] = {3, 20, 19.5f, 20, -4, 1};
            double p[6] = {0};
            sill_generate_options o = {.size = sizeof o, .do_sample = 1, .temperature = temperatures[t], .top_k = -1};
            sill_error err = {0};
            sill__sampler *s = NULL;
            const int32_t *ids;
            const double *probs;
            for (int i = 0; i < 6; i++) logits[i] += shifts[k];
            CHECK_OK(sill__sampler_create(&o, 6, eos, 0, &s, &err), err);
            REQUIRE(s);
            CHECK_OK(sill__sampler_filter(s, logits, NULL, 0, 0, &err), err);
            int32_t n = sill__sampler_left(s, &ids, &probs);
            for (int32_t i = 0; i < n; i++) p[ids[i]] = probs[i];
            for (int i = 0; i < 6; i++) CHECK_NEAR(p[i], i == 1 || i == 3 ? 0.5 : 0, 1e-6);
            for (uint32_t i = 0; i < 20; i++) CHECK(sill__sampler_draw(s, 0, 0, i) % 2 == 1);
            sill__sampler_free(s);
        }
}

static void bad_options_are_refused(void) {
    float nan = NAN, one = 1;
    int32_t id = 99, ok = 1;
    size_t none = 0, first = 1;
    sill_generate_options bad[] = {
        {.temperature = -1}, {.temperature = INFINITY}, {.top_k = -2}, {.top_p = 1.5f}, {.top_p = -0.1f}, {.min_p = 2},
        {.typical_p = -1}, {.epsilon_cutoff = 1}, {.eta_cutoff = -1}, {.repetition_penalty = -1},
        {.no_repeat_ngram_size = -1}, {.min_new_tokens = -1}, {.n_bias = 1}, {.n_bias = 1, .bias_ids = &id, .bias_values = &one},
        {.n_bias = 1, .bias_ids = &ok, .bias_values = &nan}, {.n_bad_words = 1, .bad_words = &ok, .bad_word_ends = &none},
        {.min_length = -1}, {.n_suppress = 1}, {.n_suppress = 1, .suppress_tokens = &id}, {.n_begin_suppress = 1},
        {.n_begin_suppress = 1, .begin_suppress_tokens = &id}, {.n_bias_words = 1},
        {.n_bias_words = 1, .bias_words = &ok, .bias_word_ends = &none, .bias_word_values = &one},
        {.n_bias_words = 1, .bias_words = &id, .bias_word_ends = &first, .bias_word_values = &one},
        {.n_bias_words = 1, .bias_words = &ok, .bias_word_ends = &first, .bias_word_values = &nan},
        {.top_p = NAN}, {.temperature = NAN}, {.min_p = NAN}, {.typical_p = NAN}, {.epsilon_cutoff = NAN},
        {.eta_cutoff = NAN}, {.repetition_penalty = NAN}};
    for (size_t i = 0; i < SILL_ARRAY_LEN(bad); i++) {
        sill_error err = {0};
        sill__sampler *s = NULL;
        bad[i].size = sizeof bad[i];
        sill_status st = sill__sampler_create(&bad[i], 8, eos, 2, &s, &err);
        if ((st != SILL_EINVAL && st != SILL_ERANGE) || s || !err.msg[0]) FAIL("bad option %zu gave status %d", i, st);
        sill__sampler_free(s);
    }
}

static void a_row_without_a_token_fails(void) {
    float logits[4] = {1, 2, 3, 4}, minus[4] = {-INFINITY, -INFINITY, -INFINITY, -INFINITY};
    int32_t all[4] = {0, 1, 2, 3};
    sill_generate_options o = {.size = sizeof o, .bias_ids = all, .bias_values = minus, .n_bias = 4};
    sill_error err = {0};
    sill__sampler *s = NULL;
    CHECK_OK(sill__sampler_create(&o, 4, eos, 0, &s, &err), err);
    REQUIRE(s);
    CHECK_INT(sill__sampler_filter(s, logits, NULL, 0, 0, &err), SILL_ERANGE);
    logits[2] = NAN;
    CHECK_INT(sill__sampler_filter(s, logits, NULL, 0, 0, &err), SILL_EDEVICE);
    sill__sampler_free(s);
}

int main(int argc, char **argv) {
    TEST(same_distribution_as_transformers);
    TEST(draws_follow_the_distribution);
    TEST(greedy_takes_the_lowest_of_equals);
    TEST(temperatures_next_to_zero);
    TEST(bad_options_are_refused);
    TEST(a_row_without_a_token_fails);
    TEST_EXIT();
}
