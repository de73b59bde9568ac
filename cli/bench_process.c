/* bench_process.c - the measurements of `sill bench` that need a fresh process: this program starts itself again. */
#include "bench.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#ifdef __APPLE__
#include <mach-o/dyld.h>
#endif

extern char **environ;

static const char prompt[] = "The most important thing about a good film is not the story that it tells, nor the people who play "
                             "in it, but the light in which they are seen, and";

#define MAX_WORDS 40

typedef struct command { char *words[MAX_WORDS + 1]; int n; char numbers[8][16]; int n_numbers; char self[1024]; } command;

static void put(command *c, const char *word) {
    if (c->n < MAX_WORDS) c->words[c->n++] = (char *)(uintptr_t)word;
    c->words[c->n] = NULL;
}

static void put_number(command *c, const char *option, int32_t value) {
    char *text = c->numbers[c->n_numbers++];
    snprintf(text, sizeof c->numbers[0], "%d", (int)value);
    put(c, option);
    put(c, text);
}

static sill_status find_self(char *path, size_t cap, sill_error *err) {
#ifdef __APPLE__
    uint32_t size = (uint32_t)cap;
    if (_NSGetExecutablePath(path, &size) == 0) return SILL_OK;
#else
    ssize_t n = readlink("/proc/self/exe", path, cap - 1);
    if (n > 0) {
        path[n] = 0;
        return SILL_OK;
    }
#endif
    return sill__fail(err, SILL_EIO, "cannot tell where this program is, to start it again");
}

/* The words that every command begins with: the model and how it is run. */
static sill_status begin(command *c, const bench_run *run, const char *name, const char *path, sill_error *err) {
    static const char *const dtypes[] = {"auto", "f32", "f16", "bf16", "q8", "q4", "int8"}, *const kv[] = {"auto", "f32", "f16", "int8"};
    const cli_model_options *m = &run->o->model;
    memset(c, 0, sizeof *c);
    sill_status s = find_self(c->self, sizeof c->self, err);
    const char *words[] = {c->self, name, "-q", "-m", path, "--device", m->device ? m->device : "auto", "--dtype",
                           dtypes[m->dtype], "--kv-dtype", kv[m->kv_dtype]};
    for (size_t i = 0; i < SILL_ARRAY_LEN(words); i++) put(c, words[i]);
    if (m->no_cache) put(c, "--no-cache");
    if (m->threads) put_number(c, "--threads", m->threads);
    return s;
}

/* Seconds until the first byte of output, and the most memory that the process had. */
static sill_status run_once(const command *c, double *seconds, double *peak_bytes, sill_error *err) {
    posix_spawn_file_actions_t actions;
    int out[2], status = 0;
    char buffer[4096];
    pid_t pid;
    struct rusage usage;
    if (pipe(out) != 0) return sill__fail(err, SILL_EIO, "no pipe: %s", strerror(errno));
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, out[1], STDOUT_FILENO);
    posix_spawn_file_actions_addclose(&actions, out[0]);
    posix_spawn_file_actions_addclose(&actions, out[1]);
    double from = sill__now();
    int failed = posix_spawn(&pid, c->self, &actions, NULL, c->words, environ);
    posix_spawn_file_actions_destroy(&actions);
    close(out[1]);
    ssize_t n = 0;
    *seconds = -1;
    while (!failed && ((n = read(out[0], buffer, sizeof buffer)) > 0 || (n < 0 && errno == EINTR)))
        if (n > 0 && *seconds < 0) *seconds = sill__now() - from;
    close(out[0]);
    if (failed) return sill__fail(err, SILL_EIO, "cannot start %s again: %s", c->self, strerror(failed));
    while (wait4(pid, &status, 0, &usage) < 0)
        if (errno != EINTR) return sill__fail(err, SILL_EIO, "lost the process that was started: %s", strerror(errno));
    if (cli_stop) return sill__fail(err, SILL_ECANCELLED, "interrupted");
    if (!WIFEXITED(status) || WEXITSTATUS(status) || *seconds < 0)
        return sill__fail(err, SILL_EIO, "a fresh process of sill %s ended with status %d", c->words[1],
                          WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
#ifdef __APPLE__
    *peak_bytes = (double)usage.ru_maxrss;
#else
    *peak_bytes = (double)usage.ru_maxrss * 1024;
#endif
    return SILL_OK;
}

/* Tokens of the prompt; its bytes where the model has no tokenizer of its own. */
static int32_t prompt_tokens(const char *path) {
    sill_tokenizer *tokenizer;
    int32_t ids[256];
    size_t n = sizeof prompt - 1;
    if (sill_tokenizer_load(path, &tokenizer, NULL) != SILL_OK) return (int32_t)n;
    if (sill_tokenize(tokenizer, prompt, sizeof prompt - 1, 0, ids, 256, &n, NULL) != SILL_OK) n = sizeof prompt - 1;
    sill_tokenizer_free(tokenizer);
    return (int32_t)n;
}

sill_status bench_process_measure(bench_run *run, const char *path, sill_error *err) {
    command c;
    double t, peak;
    run->first_token_prompt = prompt_tokens(path);
    sill_status s = begin(&c, run, "generate", path, err);
    put_number(&c, "--ctx", SILL_MIN(run->n_ctx, run->first_token_prompt + 32));
    put_number(&c, "--max-new-tokens", 1);
    put(&c, "--ignore-eos");
    put(&c, "--long");
    put(&c, "truncate");
    put(&c, prompt);
    if (s == SILL_OK) s = run_once(&c, &t, &peak, err); /* the file comes into the page cache */
    for (int i = 0; s == SILL_OK && i < run->o->reps + 2; i++) {
        s = run_once(&c, &t, &peak, err);
        sill__times_add(&run->first_token, t);
        sill__times_add(&run->first_token_memory, peak / 1048576.0);
    }
    return s;
}

sill_status bench_process(bench_run *run, sill_error *err) {
    bench_row row = bench_empty_row("first_token_process", "s"), memory = bench_empty_row("first_token_memory", "MiB");
    (void)err;
    row.batch = memory.batch = 1, row.n_gen = memory.n_gen = 1;
    row.n_prompt = memory.n_prompt = run->first_token_prompt;
    bench_row_times(&row, &run->first_token, 0);
    bench_out_row(&run->out, &row);
    bench_row_times(&memory, &run->first_token_memory, 0);
    bench_out_row(&run->out, &memory);
    return SILL_OK;
}

static int32_t largest_batch(const bench_options *o) {
    int32_t most = 1;
    for (int i = 0; i < o->n_batches; i++) most = SILL_MAX(most, o->batch[i]);
    return most;
}

/* A process that prefills and decodes the largest batch. */
sill_status bench_memory_measure(bench_run *run, const char *path, sill_error *err) {
    command c;
    double seconds;
    char batch[16];
    snprintf(batch, sizeof batch, "%d", (int)largest_batch(run->o));
    sill_status s = begin(&c, run, "bench", path, err);
    put_number(&c, "--n-prompt", run->o->n_prompt);
    put_number(&c, "--n-gen", run->o->n_gen);
    put_number(&c, "--n-prefill", SILL_MIN(run->o->n_prefill, run->n_ctx - 1));
    put_number(&c, "--reps", 1);
    put_number(&c, "--ctx", run->n_ctx);
    put(&c, "--no-limits");
    put(&c, "--batches");
    put(&c, batch);
    put(&c, "--tests");
    put(&c, "prefill,decode");
    return s == SILL_OK ? run_once(&c, &seconds, &run->peak_memory, err) : s;
}

sill_status bench_memory(bench_run *run, sill_error *err) {
    static const char *const names[] = {"memory_weights", "memory_kv", "memory_planned", "memory_peak"};
    sill_model_options mo;
    sill_session_options so;
    sill_plan_info plan;
    cli_fill_options(&run->o->model, &mo, &so);
    sill_status s = sill_plan(run->engine.path, &mo, &so, &plan, err);
    if (s != SILL_OK) return s;
    const double bytes[] = {(double)plan.weight_bytes, (double)plan.kv_bytes, (double)plan.total_bytes, run->peak_memory};
    for (int i = 0; i < 4; i++) {
        bench_row row = bench_empty_row(names[i], "MiB");
        row.batch = largest_batch(run->o);
        row.value = row.mean = bytes[i] / 1048576.0;
        row.reps = 1;
        bench_out_row(&run->out, &row);
    }
    return SILL_OK;
}
