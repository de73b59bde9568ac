/*
 * guess.c - what speculative decoding brings: `guess MODEL DTYPE N_NEW ROUNDS [DRAFT]` continues each prompt of bench/guess.txt, then
 * all of them together, without guesses, by prompt lookup and, where one is named, with a draft model, in turns; the fastest
 * round of each counts. Tokens/s behind the first piece of text, in brackets how many times as fast as without; guesses a token of the
 * text, and the share of them that was right. Whoever makes other ids is told.
 */
#include <sill.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MAX_PROMPTS 16
#define N_WAYS 7

typedef struct prompt { char name[32], text[8192]; } prompt;
typedef struct way { const char *name; int32_t lookup, draft, sampled; } way;
typedef struct job {
    const prompt *prompts;
    int n, at, tokens, drafted, accepted;
    double first, last;
    uint64_t sum; /* of the ids, in whatever order the rows end */
} job;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int fail(const char *message) {
    fprintf(stderr, "guess: %s\n", message);
    exit(1);
}

static int next(void *user, sill_row *row) {
    job *j = user;
    if (j->at == j->n) return 0;
    const char *text = j->prompts[j->at].text;
    *row = (sill_row){.index = (uint64_t)j->at, .key = (uint64_t)j->at, .text = text, .n_bytes = strlen(text)};
    j->at++;
    return 1;
}

static int done(void *user, const sill_generated *r) {
    job *j = user;
    if (r->status != SILL_OK) return fail(r->error);
    j->last = now();
    if (j->first == 0) j->first = j->last;
    if (!r->final) return 0;
    j->tokens += (int)r->n_ids;
    j->drafted += r->n_drafted;
    j->accepted += r->n_accepted;
    uint64_t h = r->index + 1;
    for (size_t i = 0; i < r->n_ids; i++) h = h * 6364136223846793005u + (uint64_t)r->ids[i];
    j->sum += h;
    return 0;
}

static int read_prompts(prompt *out) {
    char line[4096];
    size_t used = 0;
    int n = 0;
    FILE *f = fopen("bench/guess.txt", "r");
    while (f && fgets(line, sizeof line, f)) {
        if (!strncmp(line, "### ", 4)) {
            if (n == MAX_PROMPTS) break;
            snprintf(out[n++].name, sizeof out->name, "%.*s", (int)strcspn(line + 4, "\n"), line + 4);
            used = 0;
        } else if (n && used + strlen(line) < sizeof out->text) {
            memcpy(out[n - 1].text + used, line, strlen(line) + 1);
            used += strlen(line);
        }
    }
    if (f) fclose(f);
    return n;
}

static void measure(sill_session *s, sill_session *draft, const prompt *prompts, int n, int32_t n_new, int rounds) {
    const way ways[N_WAYS] = {{"without", 0, 0, 0}, {"lookup 3", 3, 0, 0}, {"lookup 10", 10, 0, 0}, {"draft 3", 0, 3, 0}, {"draft 5", 0, 5, 0},
                              {"sampled, without", 0, 0, 1}, {"sampled, draft 5", 0, 5, 1}};
    job best[N_WAYS] = {{0}};
    double rate[N_WAYS] = {0};
    sill_error err = {0};
    for (int round = 0; round < rounds; round++)
        for (int i = 0; i < N_WAYS; i++) {
            if (!draft && (ways[i].draft || ways[i].sampled)) continue;
            sill_generate_options o = {.size = sizeof o, .max_new_tokens = n_new, .tokenize_flags = SILL_TOKENIZE_SPECIAL,
                                       .prompt_lookup_num_tokens = ways[i].lookup, .assistant = ways[i].draft ? draft : NULL,
                                       .num_assistant_tokens = ways[i].draft, .do_sample = ways[i].sampled, .temperature = 0.7f};
            job j = {.prompts = prompts, .n = n};
            if (sill_generate(s, &o, next, done, 1, &j, &err) != SILL_OK) fail(err.msg);
            const double r = (j.tokens - n) / (j.last - j.first);
            if (r > rate[i]) rate[i] = r;
            best[i] = j;
        }
    for (int i = 0; i < N_WAYS; i++) {
        if (rate[i] == 0) continue;
        const int base = ways[i].sampled ? 5 : 0;
        printf("%-10s %-17s %7.1f tokens/s (%.2f), %d tokens, %.2f guesses a token, %.0f %% right%s\n", n == 1 ? prompts->name : "together",
               ways[i].name, rate[i], rate[i] / rate[base], best[i].tokens, (double)best[i].drafted / best[i].tokens,
               best[i].drafted ? 100.0 * best[i].accepted / best[i].drafted : 0.0, best[i].sum == best[base].sum ? "" : "  OTHER IDS");
    }
    fflush(stdout);
}

static sill_session *open_model(const char *path, const char *dtype, sill_model **m) {
    static const char *const names[] = {"auto", "f32", "f16", "bf16", "q8", "q4", "int8"};
    sill_model_options mo = {.size = sizeof mo, .device = "cpu"};
    sill_session_options so = {.size = sizeof so, .n_ctx = 1024};
    sill_session *s = NULL;
    sill_error err = {0};
    for (int i = 0; i < (int)(sizeof names / sizeof *names); i++)
        if (!strcmp(dtype, names[i])) mo.dtype = (sill_dtype)i;
    if (sill_model_load(path, &mo, m, &err) != SILL_OK || sill_session_create(*m, &so, &s, &err) != SILL_OK) fail(err.msg);
    return s;
}

int main(int argc, char **argv) {
    static prompt prompts[MAX_PROMPTS];
    sill_model *model = NULL, *small = NULL;
    const int n = read_prompts(prompts);
    if (argc < 5 || n == 0) return fail("guess MODEL DTYPE N_NEW ROUNDS [DRAFT], beside bench/guess.txt");
    const int n_new = (int)strtol(argv[3], NULL, 10), rounds = (int)strtol(argv[4], NULL, 10);
    sill_session *s = open_model(argv[1], argv[2], &model), *draft = argc > 5 ? open_model(argv[5], "auto", &small) : NULL;
    for (int i = 0; i < n; i++) measure(s, draft, prompts + i, 1, n_new, rounds);
    measure(s, draft, prompts, n, n_new, rounds);
    sill_session_free(draft);
    sill_session_free(s);
    sill_model_free(small);
    sill_model_free(model);
    return 0;
}
