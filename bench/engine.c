/*
 * engine.c - sill as bench/decode.py drives it: `engine MODEL DTYPE THREADS` loads once, then for every line
 * "BATCH PROMPT NEW" on stdin continues BATCH prompts of PROMPT ids by NEW greedy tokens and prints one JSON line
 * with the seconds and the ids of the first sequence. The prompts are those of bench/peers/common.py.
 */
#include <sill.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MAX_BATCH 64
#define MAX_TOKENS 2048

typedef struct work {
    int batch, n_prompt, given, answers;
    int32_t prompts[MAX_BATCH][MAX_TOKENS], first[MAX_TOKENS];
    size_t n_first;
    char failure[256];
} work;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void fill(work *w, int32_t n_vocab) {
    for (int s = 0; s < w->batch; s++) {
        uint64_t x = 12345 + 7919 * (uint64_t)s;
        for (int i = 0; i < w->n_prompt; i++) {
            x = (1103515245 * x + 12345) % 2147483648u;
            w->prompts[s][i] = (int32_t)(x % (uint64_t)(n_vocab - 1));
        }
    }
}

static int next(void *user, sill_row *row) {
    work *w = user;
    if (w->given == w->batch) return 0;
    *row = (sill_row){.index = (uint64_t)w->given, .key = (uint64_t)w->given, .ids = w->prompts[w->given], .n_ids = (size_t)w->n_prompt};
    w->given++;
    return 1;
}

static int done(void *user, const sill_generated *r) {
    work *w = user;
    if (!r->final) return 0;
    if (r->status != SILL_OK) {
        snprintf(w->failure, sizeof w->failure, "%s", r->error ? r->error : "row failed");
        return 1;
    }
    if (r->index == 0) {
        w->n_first = r->n_ids < MAX_TOKENS ? r->n_ids : MAX_TOKENS;
        memcpy(w->first, r->ids, w->n_first * sizeof *r->ids);
    }
    w->answers++;
    return 0;
}

static sill_dtype dtype_of(const char *name) {
    return !strcmp(name, "f32") ? SILL_DTYPE_F32 : !strcmp(name, "f16") ? SILL_DTYPE_F16 : !strcmp(name, "bf16") ? SILL_DTYPE_BF16 : SILL_DTYPE_AUTO;
}

static int serve(sill_session *session, int32_t n_vocab, work *w, sill_error *err) {
    char line[256];
    while (fgets(line, sizeof line, stdin)) {
        int n_new = 0;
        w->given = w->answers = 0;
        if (sscanf(line, "%d %d %d", &w->batch, &w->n_prompt, &n_new) != 3 || w->batch < 1 || w->batch > MAX_BATCH ||
            w->n_prompt < 1 || n_new < 1 || w->n_prompt + n_new > MAX_TOKENS) {
            fprintf(stderr, "engine: not a task: %s", line);
            return 2;
        }
        fill(w, n_vocab);
        sill_generate_options options = {.size = sizeof options, .max_new_tokens = n_new, .ignore_eos = 1, .no_bos = 1};
        double from = now();
        sill_status status = sill_generate(session, &options, next, done, 0, w, err);
        double seconds = now() - from;
        if (status != SILL_OK || w->answers != w->batch) {
            fprintf(stderr, "engine: %s\n", w->failure[0] ? w->failure : err->msg);
            return 1;
        }
        printf("{\"seconds\": %.6f, \"ids\": [", seconds);
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
        fprintf(stderr, "usage: engine MODEL f32|bf16|f16|auto THREADS [BATCH]\n");
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
        printf("{\"ready\": \"sill %s, %s, %s\", \"load_seconds\": %.3f, \"weight_bytes\": %" PRIu64 "}\n", sill_version(), info.device,
               info.dtype, now() - from, info.weight_bytes);
        fflush(stdout);
        rc = serve(session, info.n_vocab, w, &err);
    } else {
        fprintf(stderr, "engine: %s\n", err.msg);
    }
    sill_session_free(session);
    sill_model_free(model);
    free(w);
    return rc;
}
