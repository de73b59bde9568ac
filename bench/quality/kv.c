/*
 * kv.c - what the type of the KV cache costs: `kv MODEL TEXT [WINDOWS [TOKENS]]` reads TEXT (- for stdin), and for every
 * type prints the perplexity of the first WINDOWS windows of TOKENS tokens (4 of 512) and, against f32, the mean, 99th percentile
 * and maximum of the KL divergence over positions and how often the best token is the same. Weights and activations are f32.
 */
#include <sill.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define MAX_TEXT ((size_t)8 << 20)

typedef struct totals { double loss, kl, *each; size_t n, n_losses, same; } totals;

static size_t best(const float *x, size_t n) {
    size_t b = 0;
    for (size_t i = 1; i < n; i++)
        if (x[i] > x[b]) b = i;
    return b;
}

static double log_sum(const float *x, size_t n, float top) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += exp((double)(x[i] - top));
    return log(sum) + (double)top;
}

/* One position: `want` are the logits with an f32 cache, next the id that follows (-1: none). */
static void add(totals *t, const float *want, const float *got, size_t n_vocab, int32_t next) {
    size_t a = best(want, n_vocab), b = best(got, n_vocab);
    double za = log_sum(want, n_vocab, want[a]), zb = log_sum(got, n_vocab, got[b]), kl = 0;
    for (size_t i = 0; i < n_vocab; i++) {
        double p = (double)want[i] - za;
        kl += exp(p) * (p - ((double)got[i] - zb));
    }
    if (next >= 0) {
        t->loss += zb - (double)got[next];
        t->n_losses++;
    }
    t->each[t->n++] = kl;
    t->kl += kl;
    t->same += a == b;
}

static int rising(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static int fail(const char *what, const sill_error *err) {
    fprintf(stderr, "kv: %s%s%s\n", what, err ? ": " : "", err ? err->msg : "");
    return 1;
}

static int measure(sill_model *m, const int32_t *ids, size_t windows, size_t tokens, size_t n_vocab) {
    static const sill_kv_dtype types[] = {SILL_KV_F32, SILL_KV_F16, SILL_KV_INT8};
    static const char *const names[] = {"f32", "f16", "int8"};
    sill_session *sessions[3] = {NULL};
    float *want = malloc(tokens * n_vocab * sizeof *want), *got = malloc(tokens * n_vocab * sizeof *got);
    totals t[3] = {{0}};
    sill_error err = {0};
    int rc = want && got ? 0 : fail("no memory", NULL);
    for (int k = 0; k < 3 && !rc; k++) {
        sill_session_options o = {.size = sizeof o, .n_ctx = (int32_t)tokens, .batch_tokens = 64, .max_sequences = 64,
                                  .kv_dtype = types[k]};
        t[k].each = malloc(windows * tokens * sizeof *t[k].each);
        if (!t[k].each || sill_session_create(m, &o, &sessions[k], &err) != SILL_OK) rc = fail("session", &err);
    }
    for (size_t w = 0; w < windows && !rc; w++)
        for (int k = 0; k < 3 && !rc; k++) {
            const int32_t *x = ids + w * tokens;
            if (sill_logits(sessions[k], x, tokens, k ? got : want, &err) != SILL_OK) rc = fail("logits", &err);
            for (size_t i = 0; i < tokens && !rc; i++)
                add(&t[k], want + i * n_vocab, (k ? got : want) + i * n_vocab, n_vocab, i + 1 < tokens ? x[i + 1] : -1);
        }
    for (int k = 0; k < 3 && !rc; k++) {
        qsort(t[k].each, t[k].n, sizeof *t[k].each, rising);
        printf("{\"kv\": \"%s\", \"positions\": %zu, \"perplexity\": %.5f, \"kl_mean\": %.3g, \"kl_99\": %.3g, \"kl_max\": %.3g, "
               "\"same_top\": %.5f}\n", names[k], t[k].n, exp(t[k].loss / (double)t[k].n_losses), t[k].kl / (double)t[k].n,
               t[k].each[t[k].n * 99 / 100], t[k].each[t[k].n - 1], (double)t[k].same / (double)t[k].n);
    }
    for (int k = 0; k < 3; k++) {
        sill_session_free(sessions[k]);
        free(t[k].each);
    }
    free(want);
    free(got);
    return rc;
}

int main(int argc, char **argv) {
    sill_error err = {0};
    sill_model *m = NULL;
    sill_model_info info;
    size_t windows = argc > 3 ? strtoul(argv[3], NULL, 10) : 4, tokens = argc > 4 ? strtoul(argv[4], NULL, 10) : 512, n_ids = 0;
    if (argc < 3 || windows < 1 || tokens < 2) {
        fprintf(stderr, "usage: kv MODEL TEXT [WINDOWS [TOKENS]]\n");
        return 2;
    }
    FILE *f = argv[2][0] == '-' && !argv[2][1] ? stdin : fopen(argv[2], "rb");
    char *text = malloc(MAX_TEXT);
    if (!f || !text) return fail("cannot read the text", NULL);
    size_t n = fread(text, 1, MAX_TEXT, f);
    sill_model_options o = {.size = sizeof o, .dtype = SILL_DTYPE_F32};
    if (sill_model_load(argv[1], &o, &m, &err) != SILL_OK) return fail(argv[1], &err);
    sill_model_get_info(m, &info, sizeof info);
    const sill_tokenizer *tokenizer = sill_model_tokenizer(m);
    if (!tokenizer) return fail("the model has no tokenizer", NULL);
    size_t cap = sill_tokenize_bound(tokenizer, n);
    int32_t *ids = malloc(cap * sizeof *ids);
    if (!ids || sill_tokenize(tokenizer, text, n, 0, ids, cap, &n_ids, &err) != SILL_OK) return fail("tokens", &err);
    if (n_ids / tokens < windows) windows = n_ids / tokens;
    if (!windows) return fail("the text is shorter than a window", NULL);
    int rc = measure(m, ids, windows, tokens, (size_t)info.n_vocab);
    free(ids);
    free(text);
    if (f != stdin) fclose(f);
    sill_model_free(m);
    return rc;
}
