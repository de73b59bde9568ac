/*
 * test_agree.c - statistics of coded data against scikit-learn, krippendorff, irrCAC, statsmodels and numpy
 * (tools/fixtures/make_agree.py), published examples, exhaustive samples of a small population, and the cases at the edge.
 */
#include "stats/stats.h"
#include "test.h"

#define MAX_CODES 4096

/* ---- the fixture: words behind each other */

static char *fixture, *at;

static bool open_fixture(void) {
    sill_error e = {0};
    size_t n;
    sill__free(fixture);
    fixture = NULL;
    if (sill__read_file("tests/fixtures/stats/agree.txt", 1 << 22, &fixture, &n, &e) != SILL_OK) {
        FAIL("%s", e.msg);
        return false;
    }
    at = fixture;
    return true;
}

/* The next line that begins with WORD; stops before one that begins with UNTIL. */
static bool next_line(const char *word, const char *until) {
    while (at && *at) {
        char *line = at, *end = strchr(at, '\n');
        const size_t n = strcspn(line, " \n");
        if (until && n == strlen(until) && !memcmp(line, until, n)) return false;
        if (n == strlen(word) && !memcmp(line, word, n)) {
            at = line + n;
            return true;
        }
        at = end ? end + 1 : NULL;
    }
    return false;
}

static double number(void) { return strtod(at, &at); }

static const char *word(void) {
    static char text[64];
    size_t n;
    while (*at == ' ') at++;
    n = strcspn(at, " \n");
    snprintf(text, sizeof text, "%.*s", (int)n, at);
    at += n;
    return text;
}

/* The line behind the current one. */
static void line_behind(void) { at = strchr(at, '\n') + 1; }

/* ---- agreement */

static int32_t codes[MAX_CODES];
static double values[64], scratch[SILL__SCRATCH(64)];

static double published(const char *name, const char *what) {
    static const struct { const char *name, *what; double value; } known[] = {
        {"krippendorff-A", "alpha_nominal", 0.095}, {"krippendorff-B", "alpha_nominal", 0.692},
        {"krippendorff-C-D", "alpha_nominal", 0.743}, {"krippendorff-C-D", "alpha_ordinal", 0.815},
        {"krippendorff-C-D", "alpha_interval", 0.849}, {"krippendorff-C-D", "alpha_ratio", 0.797},
        {"fleiss-1971", "fleiss", 0.430}, {"cohen-1960", "kappa", 0.492}};
    for (size_t i = 0; i < SILL_ARRAY_LEN(known); i++)
        if (!strcmp(known[i].name, name) && !strcmp(known[i].what, what)) return known[i].value;
    return NAN;
}

/* One expected line of a case; returns 0 when it is none. */
static int check_line(const sill__ratings *r, const char *name) {
    static const char *const levels[] = {"alpha_nominal", "alpha_ordinal", "alpha_interval", "alpha_ratio"};
    char what[64];
    double got = NAN, tolerance = 1e-12;
    int power = 0;
    snprintf(what, sizeof what, "%s", word());
    bool known = false;
    for (int i = 0; i < 4; i++)
        if (!strcmp(what, levels[i])) got = sill__alpha(r, (sill_level)i, NULL), known = true;
    if (!strcmp(what, "fleiss")) got = sill__fleiss(r, NULL, NULL), known = true;
    if (!strcmp(what, "percent_rounded")) got = sill__percent_all(r, NULL, NULL, NULL), tolerance = 5.1e-6, known = true;
    if (!strncmp(what, "kappa", 5)) {
        size_t a = (size_t)number(), b = (size_t)number();
        power = (int)number();
        got = sill__kappa(r, a, b, power, NULL);
        if (strcmp(what, "kappa")) tolerance = 5.1e-6;
        known = true;
    }
    if (!known) return 0;
    const double want = number(), paper = power ? NAN : published(name, what);
    if (!(fabs(got - want) <= tolerance)) FAIL("%s: %s is %.15g, expected %.15g", name, what, got, want);
    if (!isnan(paper) && !(fabs(got - paper) <= 0.0006)) FAIL("%s: %s is %.6g, published is %.3f", name, what, got, paper);
    return 1 + !isnan(paper);
}

static void cases_are_those_of_others(void) {
    int n_cases = 0, n_lines = 0, n_published = 0;
    if (!open_fixture()) return;
    while (next_line("case", "gold")) {
        char name[64];
        snprintf(name, sizeof name, "%s", word());
        sill__ratings r = {.n_coders = (size_t)number(), .codes = codes, .scratch = scratch};
        r.n_units = (size_t)number();
        r.n_labels = (size_t)number();
        line_behind();
        const char *what = word();
        if (!strcmp(what, "values")) {
            for (size_t k = 0; k < r.n_labels; k++) values[k] = number();
            r.values = values;
            line_behind();
            what = word();
        }
        REQUIRE(!strcmp(what, "codes") && r.n_coders * r.n_units <= MAX_CODES && r.n_labels <= 64);
        for (size_t i = 0; i < r.n_coders * r.n_units; i++) codes[i] = (int32_t)number();
        for (;;) {
            line_behind();
            char *line = at;
            const int did = check_line(&r, name);
            if (!did) {
                at = line;
                break;
            }
            n_lines++;
            n_published += did == 2;
        }
        n_cases++;
    }
    CHECK_INT(n_cases, 14);
    CHECK_INT(n_published, 8);
    CHECK(n_lines > 150);
}

/* Units that count several times are units that stand there several times, at every level. */
static void counted_units_are_repeated_ones(void) {
    static const int32_t few[] = {0, 1, 2, -1, 2, 0, 1, 1, 2, 0, -1, 1};
    const double times[] = {3, 1, 2, 0};
    int32_t many[18];
    sill__ratings a = {.n_coders = 3, .n_units = 4, .n_labels = 3, .codes = few, .times = times, .scratch = scratch},
                  b = {.n_coders = 3, .n_units = 6, .n_labels = 3, .codes = many, .scratch = scratch};
    for (int c = 0; c < 3; c++)
        for (int u = 0, k = 0; u < 4; u++)
            for (int t = 0; t < (int)times[u]; t++) many[c * 6 + k++] = few[c * 4 + u];
    for (int level = 0; level < 4; level++) CHECK_NEAR(sill__alpha(&a, (sill_level)level, NULL), sill__alpha(&b, (sill_level)level, NULL), 1e-14);
    for (int power = 0; power < 3; power++) CHECK_NEAR(sill__kappa(&a, 0, 1, power, NULL), sill__kappa(&b, 0, 1, power, NULL), 1e-14);
    CHECK_NEAR(sill__fleiss(&a, NULL, NULL), sill__fleiss(&b, NULL, NULL), 1e-14);
    CHECK_NEAR(sill__percent_all(&a, NULL, NULL, NULL), sill__percent_all(&b, NULL, NULL, NULL), 1e-14);
}

static void what_is_undefined_says_so(void) {
    static const int32_t same[] = {1, 1, 1, 1}, apart[] = {0, -1, -1, 1}, agree[] = {0, 1, 2, 0, 1, 2}, one[] = {0, 1};
    const char *why = NULL;
    sill__ratings r = {.n_coders = 2, .n_units = 2, .n_labels = 2, .codes = same, .scratch = scratch};
    for (int level = 0; level < 4; level++) {
        why = NULL;
        CHECK(isnan(sill__alpha(&r, (sill_level)level, &why)) && why && strstr(why, "only one label"));
    }
    CHECK(isnan(sill__kappa(&r, 0, 1, 0, &why)) && strstr(why, "only one label"));
    CHECK(isnan(sill__fleiss(&r, NULL, &why)) && strstr(why, "only one label"));
    CHECK(sill__percent(&r, 0, 1, NULL, &why) == 1 && sill__percent_all(&r, NULL, NULL, &why) == 1);
    r.codes = apart;
    CHECK(isnan(sill__alpha(&r, SILL_LEVEL_NOMINAL, &why)) && strstr(why, "no unit has two"));
    CHECK(isnan(sill__kappa(&r, 0, 1, 2, &why)) && strstr(why, "coded by both"));
    CHECK(isnan(sill__percent(&r, 0, 1, NULL, &why)) && strstr(why, "coded by both"));
    CHECK(isnan(sill__fleiss(&r, NULL, &why)) && strstr(why, "by all coders"));
    CHECK(isnan(sill__percent_all(&r, NULL, NULL, &why)) && strstr(why, "no unit has two"));
    r = (sill__ratings){.n_coders = 2, .n_units = 3, .n_labels = 3, .codes = agree, .scratch = scratch};
    for (int level = 0; level < 4; level++) CHECK(sill__alpha(&r, (sill_level)level, NULL) == 1);
    CHECK(sill__kappa(&r, 0, 1, 0, NULL) == 1 && sill__kappa(&r, 0, 1, 1, NULL) == 1 && sill__kappa(&r, 0, 1, 2, NULL) == 1);
    CHECK_NEAR(sill__fleiss(&r, NULL, NULL), 1, 1e-15);
    r = (sill__ratings){.n_coders = 2, .n_units = 1, .n_labels = 2, .codes = one, .scratch = scratch}; /* a single unit */
    CHECK(sill__alpha(&r, SILL_LEVEL_NOMINAL, NULL) == 0 && sill__kappa(&r, 0, 1, 0, NULL) == 0);
    r.n_units = 0;
    CHECK(isnan(sill__alpha(&r, SILL_LEVEL_RATIO, &why)) && isnan(sill__percent_all(&r, NULL, NULL, &why)));
}

/* Large values, as years are: nothing is lost by cancellation. */
static void far_from_zero(void) {
    static const int32_t c[] = {0, 1, 2, 1, 0, 2, 0, 1, 1, 1, 0, 2};
    static const double near[] = {0, 1, 2}, far[] = {1e9, 1e9 + 1, 1e9 + 2};
    sill__ratings a = {.n_coders = 2, .n_units = 6, .n_labels = 3, .codes = c, .values = near, .scratch = scratch}, b = a;
    b.values = far;
    CHECK_NEAR(sill__alpha(&b, SILL_LEVEL_INTERVAL, NULL), sill__alpha(&a, SILL_LEVEL_INTERVAL, NULL), 1e-9);
    CHECK_NEAR(sill__kappa(&b, 0, 1, 2, NULL), sill__kappa(&a, 0, 1, 2, NULL), 1e-9);
}

/* ---- gold */

static void scores_are_scikit_learns(void) {
    int n = 0;
    if (!open_fixture()) return;
    while (next_line("gold", NULL)) {
        double cells[64];
        sill__label_score labels[8];
        sill__scores s;
        word();
        number();
        const size_t k = (size_t)number();
        REQUIRE(k <= 8 && next_line("cells", "gold"));
        for (size_t i = 0; i < k * k; i++) cells[i] = number();
        sill__score_cells(cells, k, labels, &s);
        for (size_t i = 0; i < k; i++) {
            REQUIRE(next_line("label", "gold"));
            number();
            const double got[] = {labels[i].precision, labels[i].recall, labels[i].f1};
            for (int j = 0; j < 3; j++) {
                const double want = number();
                if (!(isnan(want) ? isnan(got[j]) : fabs(got[j] - want) <= 1e-12)) FAIL("label %zu: %g, expected %g", i, got[j], want);
            }
        }
        const sill__averages *averages[] = {&s.macro, &s.micro, &s.weighted};
        static const char *const names[] = {"macro", "micro", "weighted"};
        for (int i = 0; i < 3; i++) {
            REQUIRE(next_line(names[i], "gold"));
            CHECK_NEAR(averages[i]->precision, number(), 1e-12);
            CHECK_NEAR(averages[i]->recall, number(), 1e-12);
            CHECK_NEAR(averages[i]->f1, number(), 1e-12);
        }
        REQUIRE(next_line("accuracy", "gold"));
        CHECK_NEAR(s.accuracy, number(), 1e-12);
        REQUIRE(next_line("kappa", "gold"));
        CHECK_NEAR(s.kappa, number(), 1e-12);
        n++;
    }
    CHECK_INT(n, 5);
    sill__scores none;
    const double zero[4] = {0}, one[4] = {5, 0, 0, 0};
    sill__score_cells(zero, 2, NULL, &none);
    CHECK(isnan(none.accuracy) && isnan(none.macro.f1) && isnan(none.weighted.f1) && isnan(none.kappa));
    sill__score_cells(one, 2, NULL, &none);
    CHECK(none.accuracy == 1 && none.macro.f1 == 1 && isnan(none.kappa));
}

static void calibration_is_scikit_learns(void) {
    int n_cases = 0;
    if (!open_fixture()) return;
    while (next_line("calibration", NULL)) {
        sill__bin bins[16] = {{0}};
        sill__calibration c;
        const size_t n_bins = (size_t)number(), n = (size_t)number();
        const double ece = number(), mce = number();
        REQUIRE(n_bins <= 16 && next_line("pairs", NULL));
        for (size_t i = 0; i < n; i++) {
            const double p = number(), hit = number();
            sill__bin *b = &bins[sill__bin_of(p, n_bins)];
            b->n++;
            b->confidence += p;
            b->hits += hit;
        }
        sill__calibrate(bins, n_bins, &c);
        CHECK_NEAR(c.ece, ece, 1e-12);
        CHECK_NEAR(c.mce, mce, 1e-12);
        CHECK(c.n == (double)n);
        n_cases++;
    }
    CHECK_INT(n_cases, 3);
    for (size_t n = 1; n <= 20; n++)
        for (size_t i = 1; i <= n; i++) { /* an edge belongs to the bin below it */
            CHECK_INT(sill__bin_of((double)i / (double)n, n), i - 1);
            if (i < n) CHECK_INT(sill__bin_of(nextafter((double)i / (double)n, 2), n), i);
        }
    CHECK_INT(sill__bin_of(0, 10), 0);
    CHECK_INT(sill__bin_of(1.0000001, 10), 9);
}

/* Every sample of 3 of 7 rows: the mean of the estimates is the truth, and the mean of the squared standard errors is their
 * variance over all samples. That is what a design promises, and needs no formula of anybody. */
static void difference_estimator_is_unbiased(void) {
    static const uint8_t truth[] = {1, 0, 1, 1, 0, 0, 1}, machine[] = {1, 1, 0, 1, 0, 1, 0};
    double sum = 0, squares = 0, errors = 0, n = 0;
    for (int a = 0; a < 7; a++)
        for (int b = a + 1; b < 7; b++)
            for (int c = b + 1; c < 7; c++) {
                const uint8_t g[] = {truth[a], truth[b], truth[c]}, m[] = {machine[a], machine[b], machine[c]};
                const double w[] = {7.0 / 3, 7.0 / 3, 7.0 / 3};
                sill__prevalence p, q;
                sill__correct_prevalence(7, 4.0 / 7, g, m, NULL, 3, 0.95, &p);
                sill__correct_prevalence(7, 4.0 / 7, g, m, w, 3, 0.95, &q); /* equal weights are no weights */
                CHECK_NEAR(p.corrected, q.corrected, 1e-14);
                CHECK_NEAR(p.se, q.se, 1e-14);
                sum += p.corrected;
                squares += p.corrected * p.corrected;
                errors += p.se * p.se;
                n++;
            }
    CHECK_INT(n, 35);
    CHECK_NEAR(sum / n, 4.0 / 7, 1e-13);
    CHECK_NEAR(errors / n, squares / n - sum / n * (sum / n), 1e-13);
}

static void prevalence_at_the_edges(void) {
    static const uint8_t g[] = {1, 0, 1, 1}, m[] = {1, 1, 0, 0};
    const double w[] = {2, 2, 8, 4};
    sill__prevalence p;
    sill__correct_prevalence(4, 0.5, g, m, NULL, 4, 0.95, &p); /* the sample is everything */
    CHECK(p.corrected == 0.75 && p.se == 0);
    sill__correct_prevalence(100, 0.5, g, m, NULL, 1, 0.95, &p);
    CHECK(p.corrected == 0.5 && isnan(p.se) && isnan(p.low));
    sill__correct_prevalence(16, 0.5, g, m, w, 4, 0.9, &p);
    const double mean = (0 - 2 + 8 + 4) / 16.0, d[] = {0 - mean, -1 - mean, 1 - mean, 1 - mean};
    double v = 0;
    for (int i = 0; i < 4; i++) v += (1 - 1 / w[i]) * w[i] * w[i] * d[i] * d[i];
    CHECK_NEAR(p.corrected, 0.5 + mean, 1e-15);
    CHECK_NEAR(p.se, sqrt(4.0 / 3 * v) / 16, 1e-15);
    CHECK_NEAR(p.low, p.corrected - 1.6448536269514722 * p.se, 1e-12);
    CHECK(p.high <= 1);
    CHECK_NEAR(sill__normal_quantile(0.975), 1.959963984540054, 1e-13); /* scipy.stats.norm.ppf */
    CHECK_NEAR(sill__normal_quantile(0.9995), 3.2905267314919255, 1e-12);
    CHECK_NEAR(sill__normal_quantile(0.5), 0, 1e-15);
}

/* ---- bootstrap */

static void quantiles_are_numpys(void) {
    const double x[] = {1, 2, 4, 8};
    CHECK_NEAR(sill__quantile(x, 4, 0.5), 3, 1e-12);
    CHECK_NEAR(sill__quantile(x, 4, 0.99), 7.88, 1e-12);
    CHECK_NEAR(sill__quantile(x, 1, 0.99), 1, 1e-12);
    CHECK(isnan(sill__quantile(x, 0, 0.5)));
}

/* The same resamples drawn by numpy, with statistics by krippendorff and statsmodels. */
static void intervals_are_numpys(void) {
    sill_error e = {0};
    REQUIRE(open_fixture() && next_line("bootstrap", NULL));
    sill_agree_options o = {.size = sizeof o, .level = SILL_LEVEL_ORDINAL, .seed = (uint64_t)number()};
    o.n_bootstrap = (int32_t)number();
    o.confidence = number();
    const size_t coders = (size_t)number(), units = (size_t)number(), labels = (size_t)number();
    REQUIRE(next_line("codes", NULL));
    for (size_t i = 0; i < coders * units; i++) codes[i] = (int32_t)number();
    for (int threads = 1; threads <= 3; threads++) {
        char *here = at;
        sill_agreement a;
        o.n_threads = threads;
        REQUIRE(sill_agree(codes, coders, units, labels, &o, &a, &e) == SILL_OK);
        const sill_estimate *of[] = {&a.alpha, &a.percent, &a.fleiss};
        for (int i = 0; i < 3; i++) {
            REQUIRE(next_line("interval", NULL));
            word();
            CHECK_NEAR(of[i]->low, number(), 1e-12);
            CHECK_NEAR(of[i]->high, number(), 1e-12);
            CHECK(of[i]->low < of[i]->value && of[i]->value < of[i]->high);
        }
        at = here;
    }
}

static void seldom(void *user, int thread, const double *times, double *stats) {
    (void)thread;
    (void)times;
    const int every = *(int *)user;
    static int n;
    stats[0] = n++ % every ? 1 : NAN;
}

static void undefined_resamples_are_counted(void) {
    sill__interval i;
    sill_error e = {0};
    int every = 40;
    const volatile int stop = 1;
    sill__bootstrap b = {.n_items = 3, .n_patterns = 3, .n_stats = 1, .n_replicates = 200, .n_threads = 1, .confidence = 0.9, .fn = seldom, .user = &every};
    REQUIRE(sill__bootstrap_run(&b, &i, &e) == SILL_OK);
    CHECK(i.n_undefined == 5 && i.low == 1 && i.high == 1);
    every = 10; /* one in ten: no interval */
    REQUIRE(sill__bootstrap_run(&b, &i, &e) == SILL_OK);
    CHECK(i.n_undefined == 20 && isnan(i.low) && isnan(i.high));
    b.stop = &stop;
    CHECK_INT(sill__bootstrap_run(&b, &i, &e), SILL_ECANCELLED);
}

/* ---- sill_agree */

static void the_interface(void) {
    static const int32_t c[] = {0, 1, 1, -1, 0, 1, 0, 1}, wrong[] = {0, 2, 0, 0};
    const double falling[] = {2, 1}, negative[] = {-1, 1};
    sill_agreement a;
    sill_error e = {0};
    sill_agree_options o = {.size = sizeof o, .n_bootstrap = -1};
    REQUIRE(sill_agree(c, 2, 4, 2, &o, &a, &e) == SILL_OK);
    CHECK(a.n_units == 3 && a.n_values == 6 && isnan(a.alpha.low) && isnan(a.kappa.high));
    CHECK_NEAR(a.percent.value, 2.0 / 3, 1e-15);
    CHECK_NEAR(a.kappa.value, 0.4, 1e-15);
    CHECK_NEAR(a.weighted.value, a.kappa.value, 1e-15); /* two labels: nothing to weigh */
    REQUIRE(sill_agree(c, 2, 4, 2, NULL, &a, &e) == SILL_OK);
    CHECK(!isnan(a.percent.low));
    REQUIRE(sill_agree(c, 2, 0, 2, NULL, &a, &e) == SILL_OK);
    CHECK(a.n_units == 0 && isnan(a.alpha.value) && isnan(a.percent.value) && isnan(a.alpha.low));
    CHECK(sill_agree(NULL, 2, 4, 2, NULL, &a, &e) == SILL_EINVAL);
    CHECK(sill_agree(c, 1, 4, 2, NULL, &a, &e) == SILL_EINVAL && strstr(e.msg, "two and more"));
    CHECK(sill_agree(c, 2, 4, 2, NULL, NULL, &e) == SILL_EINVAL);
    CHECK(sill_agree(c, 2, 4, 0, NULL, &a, &e) == SILL_ERANGE);
    CHECK(sill_agree(c, SIZE_MAX / 2, 4, 2, NULL, &a, &e) == SILL_ERANGE);
    CHECK(sill_agree(wrong, 2, 2, 2, NULL, &a, &e) == SILL_ERANGE && strstr(e.msg, "coder 0 gave unit 1 the code 2"));
    o.values = falling;
    CHECK(sill_agree(c, 2, 4, 2, &o, &a, &e) == SILL_ERANGE && strstr(e.msg, "ascend"));
    o.values = negative;
    o.level = SILL_LEVEL_RATIO;
    CHECK(sill_agree(c, 2, 4, 2, &o, &a, &e) == SILL_ERANGE && strstr(e.msg, "from 0"));
    o = (sill_agree_options){.size = sizeof o, .confidence = 1};
    CHECK(sill_agree(c, 2, 4, 2, &o, &a, &e) == SILL_ERANGE);
    o = (sill_agree_options){.size = sizeof o, .level = (sill_level)4};
    CHECK(sill_agree(c, 2, 4, 2, &o, &a, &e) == SILL_EINVAL);
    o = (sill_agree_options){.size = sizeof o, .n_bootstrap = INT32_MAX};
    CHECK(sill_agree(c, 2, 4, 2, &o, &a, &e) == SILL_ERANGE);
}

static void memory_may_run_out(void) {
    static const int32_t c[] = {0, 1, 1, 0, 0, 1};
    sill_agree_options o = {.size = sizeof o, .n_bootstrap = 10, .n_threads = 2};
    sill_agreement a;
    sill_error e = {0};
    int failed = 0;
    for (uint64_t n = 1; n < 40; n++) {
        sill__alloc_fail_at(n);
        const sill_status s = sill_agree(c, 2, 3, 2, &o, &a, &e);
        sill__alloc_fail_at(0);
        if (s == SILL_OK) break;
        CHECK(s == SILL_ENOMEM && e.msg[0]);
        failed++;
    }
    CHECK(failed >= 5);
}

int main(int argc, char **argv) {
    TEST(cases_are_those_of_others);
    TEST(counted_units_are_repeated_ones);
    TEST(what_is_undefined_says_so);
    TEST(far_from_zero);
    TEST(scores_are_scikit_learns);
    TEST(calibration_is_scikit_learns);
    TEST(difference_estimator_is_unbiased);
    TEST(prevalence_at_the_edges);
    TEST(quantiles_are_numpys);
    TEST(intervals_are_numpys);
    TEST(undefined_resamples_are_counted);
    TEST(the_interface);
    TEST(memory_may_run_out);
    sill__free(fixture);
    TEST_EXIT();
}
