/*
 * tokenizer.c - speed of sill's tokenizer in CPU time: MB/s on a text file, seconds to load the vocabulary, and
 * the inputs that make careless tokenizers slow; and by the clock, the text's lines shared by one thread, two, and so on
 * to all cores. bench/tokenizer.py runs it beside tiktoken and tokenizers.
 *
 *   bench/tokenizer TOKENIZER TEXT [SECONDS]     one JSON object a line
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/base.h"
#include "base/pool.h"
#include "sill.h"

#define MEGA ((size_t)1 << 20)
#define LONGEST_LINE ((size_t)1 << 16)
#define MOST_THREADS 64

static sill_tokenizer *tokenizer;
static sill_error err;

/* CPU time: one thread does all the work, and other processes' shares are not its fault. */
static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Best time of one pass within the given seconds, at least three passes. */
static double best_of(const char *text, size_t n, double seconds, size_t *n_ids) {
    size_t cap = sill_tokenize_bound(tokenizer, n);
    int32_t *ids = malloc(cap * sizeof *ids);
    double best = 1e9, start = now();
    for (int i = 0; ids && (i < 3 || now() - start < seconds); i++) {
        double t = now();
        if (sill_tokenize(tokenizer, text, n, 0, ids, cap, n_ids, &err) != SILL_OK) {
            fprintf(stderr, "%s\n", err.msg);
            exit(1);
        }
        t = now() - t;
        if (t < best) best = t;
    }
    free(ids);
    return best;
}

static void report(const char *test, const char *text, size_t n, double seconds) {
    size_t n_ids = 0;
    double t = best_of(text, n, seconds, &n_ids);
    printf("{\"test\": \"%s\", \"bytes\": %zu, \"tokens\": %zu, \"seconds\": %.6f, \"mb_per_s\": %.2f}\n", test, n, n_ids, t,
           (double)n / t / 1e6);
    fflush(stdout);
}

/* Lines of a text by several threads: thread I takes those that begin in its part of the bytes. */
typedef struct lines { const char *text; size_t n; int32_t *ids[MOST_THREADS]; } lines;

static void some_lines(void *arg, int i, int n) {
    const lines *l = arg;
    size_t at = l->n * (size_t)i / (size_t)n, end = l->n * (size_t)(i + 1) / (size_t)n, n_ids;
    while (i > 0 && at < end && l->text[at - 1] != '\n') at++;
    while (at < end) {
        const char *stop = memchr(l->text + at, '\n', l->n - at);
        size_t bytes = (stop ? (size_t)(stop - l->text) : l->n) - at;
        if (bytes > LONGEST_LINE ||
            sill_tokenize(tokenizer, l->text + at, bytes, 0, l->ids[i], LONGEST_LINE + 8, &n_ids, NULL) != SILL_OK) {
            fprintf(stderr, "a line of %zu bytes could not be tokenized\n", bytes);
            exit(1);
        }
        at += bytes + 1;
    }
}

static void report_threads(const char *text, size_t n, double seconds) {
    int cores = sill__n_cores();
    for (int k = 1; k <= SILL_MIN(cores, MOST_THREADS); k++) {
        lines l = {.text = text, .n = n};
        sill__pool *pool;
        double best = 1e9;
        for (int i = 0; i < k; i++) {
            l.ids[i] = malloc((LONGEST_LINE + 8) * sizeof *l.ids[i]);
            if (!l.ids[i]) exit(1);
        }
        if (sill__pool_create(k, &pool, &err) != SILL_OK) exit(1);
        for (double end = sill__now() + seconds; sill__now() < end;) {
            double t = sill__now();
            sill__pool_run(pool, some_lines, &l);
            t = sill__now() - t;
            best = SILL_MIN(best, t);
        }
        printf("{\"test\": \"lines\", \"threads\": %d, \"mb_per_s\": %.2f}\n", k, (double)n / best / 1e6);
        sill__pool_free(pool);
        for (int i = 0; i < k; i++) free(l.ids[i]);
    }
}

static void repeat(char *buffer, const char *unit, size_t n) {
    for (size_t i = 0; i < MEGA; i++) buffer[i] = unit[i % n];
}

int main(int argc, char **argv) {
    static const struct { const char *name, *unit; } hard[] = {
        {"one letter", "a"}, {"spaces", " "}, {"digits", "1"}, {"ab", "ab"}, {"line ends", "\n"},
        {"emoji", "\xf0\x9f\x98\x80"}, {"cjk", "\xe6\x97\xa5\xe6\x9c\xac\xe8\xaa\x9e"}, {"dots", "."}, {"apostrophes", "'"},
        {"special-like", "<|endoftext"},
    };
    double seconds = argc > 3 ? strtod(argv[3], NULL) : 1.0, load = 1e9;
    char *text = NULL, *buffer = malloc(MEGA);
    size_t n = 0;
    uint64_t x = 1;
    if (argc < 3 || !buffer) {
        fprintf(stderr, "usage: tokenizer TOKENIZER TEXT [SECONDS]\n");
        return 2;
    }
    for (int i = 0; i < 10; i++) {
        double t = now();
        sill_tokenizer_free(tokenizer);
        if (sill_tokenizer_load(argv[1], &tokenizer, &err) != SILL_OK) {
            fprintf(stderr, "%s\n", err.msg);
            return 1;
        }
        t = now() - t;
        if (i == 0) printf("{\"test\": \"first load\", \"seconds\": %.6f}\n", t);
        load = SILL_MIN(load, t);
    }
    printf("{\"test\": \"load\", \"seconds\": %.6f}\n", load);
    if (sill__read_file(argv[2], (size_t)1 << 30, &text, &n, &err) != SILL_OK) {
        fprintf(stderr, "%s\n", err.msg);
        return 1;
    }
    report("text", text, n, seconds);
    report_threads(text, n, seconds);
    for (size_t i = 0; i < SILL_ARRAY_LEN(hard); i++) {
        repeat(buffer, hard[i].unit, strlen(hard[i].unit));
        report(hard[i].name, buffer, MEGA, 0);
    }
    for (size_t i = 0; i < MEGA; i++) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        buffer[i] = (char)(x >> 56);
    }
    report("random bytes", buffer, MEGA, 0);
    for (size_t i = 0; i < MEGA; i++) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        buffer[i] = (char)('a' + (x >> 56) % 26);
    }
    report("random letters", buffer, MEGA, 0);
    sill_tokenizer_free(tokenizer);
    sill__free(text);
    free(buffer);
    return 0;
}
