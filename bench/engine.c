/*
 * engine.c - sill as bench/compare.py drives it: `engine MODEL DTYPE THREADS [BATCH]` loads once, then answers every line
 * of work on stdin (bench/peers/common.py says which, and has the same prompts and texts) with one JSON line.
 */
#include <sill.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MAX_BATCH 64
#define MAX_TOKENS 2048
#define MAX_TEXTS 20000
#define TEXT_TOKENS 512

typedef struct work {
    int n_rows, n_prompt, salt, given, answers;
    int *lengths;             /* (n_rows) of the texts to classify, or NULL: prompts of n_prompt ids */
    int32_t *ids;             /* (n_rows, MAX_TOKENS or TEXT_TOKENS) */
    size_t stride;
    int32_t first[MAX_TEXTS]; /* ids of the first sequence, or labels of the texts */
    size_t n_first;
    char failure[256];
} work;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void fill(work *w, int32_t n_vocab) {
    for (int s = 0; s < w->n_rows; s++) {
        uint64_t x = 12345 + 7919 * ((uint64_t)s + 100 * (uint64_t)w->salt);
        for (int i = 0; i < (w->lengths ? w->lengths[s] : w->n_prompt); i++) {
            x = (1103515245 * x + 12345) % 2147483648u;
            w->ids[(size_t)s * w->stride + (size_t)i] = (int32_t)(x % (uint64_t)(n_vocab - 1));
        }
    }
}

static int next(void *user, sill_row *row) {
    work *w = user;
    if (w->given == w->n_rows) return 0;
    *row = (sill_row){.index = (uint64_t)w->given, .key = (uint64_t)w->given, .ids = w->ids + (size_t)w->given * w->stride,
                      .n_ids = (size_t)(w->lengths ? w->lengths[w->given] : w->n_prompt)};
    w->given++;
    return 1;
}

static int failed(work *w, const char *message) {
    snprintf(w->failure, sizeof w->failure, "%s", message ? message : "row failed");
    return 1;
}

static int done(void *user, const sill_generated *r) {
    work *w = user;
    if (!r->final) return 0;
    if (r->status != SILL_OK) return failed(w, r->error);
    if (r->index == 0) {
        w->n_first = r->n_ids < MAX_TEXTS ? r->n_ids : MAX_TEXTS;
        memcpy(w->first, r->ids, w->n_first * sizeof *r->ids);
    }
    w->answers++;
    return 0;
}

static int classified(void *user, const sill_classified *r) {
    work *w = user;
    if (r->status != SILL_OK) return failed(w, r->error);
    w->first[r->index] = r->label;
    w->answers++;
    return 0;
}

static sill_dtype dtype_of(const char *name) {
    static const struct { const char *name; sill_dtype dtype; } all[] = {
        {"f32", SILL_DTYPE_F32}, {"f16", SILL_DTYPE_F16}, {"bf16", SILL_DTYPE_BF16},
        {"q8", SILL_DTYPE_Q8}, {"q4", SILL_DTYPE_Q4}, {"int8", SILL_DTYPE_INT8}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (!strcmp(name, all[i].name)) return all[i].dtype;
    return SILL_DTYPE_AUTO;
}

/* Reads a line into the work; the number of new tokens, 0 for texts to classify, -1 where it is not a task. */
static int read_task(work *w, const char *line) {
    int n_new = 0, ignored;
    w->given = w->answers = 0;
    free(w->lengths);
    free(w->ids);
    w->lengths = NULL;
    w->ids = NULL;
    if (sscanf(line, "generate %d %d %d %d", &w->n_rows, &w->n_prompt, &n_new, &w->salt) == 4) {
        if (w->n_rows < 1 || w->n_rows > MAX_BATCH || w->n_prompt < 1 || n_new < 1 || w->n_prompt + n_new > MAX_TOKENS) return -1;
        w->stride = MAX_TOKENS;
    } else if (sscanf(line, "classify %d %d", &w->n_rows, &ignored) == 2) {
        uint64_t x = 1;
        if (w->n_rows < 1 || w->n_rows > MAX_TEXTS || !(w->lengths = calloc((size_t)w->n_rows, sizeof *w->lengths))) return -1;
        for (int i = 0; i < w->n_rows; i++) {
            x = (1103515245 * x + 12345) % 2147483648u;
            int n = 1 + (int)(58.0 * (pow(1.0 - (double)x / 2147483648.0, -1.0 / 3.0) - 1.0));
            w->lengths[i] = n < TEXT_TOKENS ? n : TEXT_TOKENS;
        }
        w->stride = TEXT_TOKENS;
        w->salt = 7;
        n_new = 0;
    } else {
        return -1;
    }
    w->ids = calloc((size_t)w->n_rows * w->stride, sizeof *w->ids);
    return w->ids ? n_new : -1;
}

static int serve(sill_session *session, int32_t n_vocab, work *w, sill_error *err) {
    char line[256];
    while (fgets(line, sizeof line, stdin)) {
        int n_new = read_task(w, line);
        uint64_t tokens = 0;
        if (n_new < 0) {
            fprintf(stderr, "engine: not a task: %s", line);
            return 2;
        }
        fill(w, n_vocab);
        sill_generate_options options = {.size = sizeof options, .max_new_tokens = n_new, .ignore_eos = 1, .no_bos = 1};
        sill_classify_options heads = {.size = sizeof heads};
        double from = now();
        sill_status status = n_new ? sill_generate(session, &options, next, done, 0, w, err) : sill_classify(session, &heads, next, classified, w, err);
        double seconds = now() - from;
        if (status != SILL_OK || w->answers != w->n_rows) {
            fprintf(stderr, "engine: %s\n", w->failure[0] ? w->failure : err->msg);
            return 1;
        }
        if (!n_new) w->n_first = (size_t)w->n_rows;
        for (int i = 0; w->lengths && i < w->n_rows; i++) tokens += (uint64_t)w->lengths[i];
        printf("{\"seconds\": %.6f, \"tokens\": %" PRIu64 ", \"ids\": [", seconds, tokens);
        for (size_t i = 0; i < w->n_first; i++) printf("%s%" PRId32, i ? ", " : "", w->first[i]);
        printf("]}\n");
        fflush(stdout);
    }
    return 0;
}

int main(int argc, char **argv) {
    sill_error err = {0};
    sill_model *model = NULL;
    sill_session *session = NULL;
    int rc = 1;
    if (argc < 4) {
        fprintf(stderr, "usage: engine MODEL auto|f32|f16|bf16|q8|q4|int8 THREADS [BATCH]\n");
        return 2;
    }
    work *w = calloc(1, sizeof *w);
    sill_model_options mo = {.size = sizeof mo, .dtype = dtype_of(argv[2]), .n_threads = (int32_t)strtol(argv[3], NULL, 10)};
    sill_session_options so = {.size = sizeof so, .n_ctx = 640};
    if (argc > 4) so.max_sequences = (int32_t)strtol(argv[4], NULL, 10);
    double from = now();
    if (w && sill_model_load(argv[1], &mo, &model, &err) == SILL_OK && sill_session_create(model, &so, &session, &err) == SILL_OK) {
        sill_model_info info;
        sill_model_get_info(model, &info, sizeof info);
        printf("{\"ready\": \"sill %s, %s, %s\", \"start_seconds\": 0, \"load_seconds\": %.3f, \"weight_bytes\": %" PRIu64 "}\n", sill_version(), info.device,
               info.dtype, now() - from, info.weight_bytes);
        fflush(stdout);
        rc = serve(session, info.n_vocab, w, &err);
    } else {
        fprintf(stderr, "engine: %s\n", err.msg);
    }
    sill_session_free(session);
    sill_model_free(model);
    if (w) {
        free(w->ids);
        free(w->lengths);
    }
    free(w);
    return rc;
}
