/* bench.c - `sill bench`: how fast is it here. Options, and the order of the measurements. */
#include "bench.h"

#include <stdlib.h>
#include <string.h>

#include "model/model.h"

static const char *const test_names[] = {"limits", "start", "prefill", "decode", "classify", "process", "memory", NULL};

/* ---- options */

static int read_tests(bench_options *o) {
    const char *at = o->tests;
    if (!at) {
        for (int i = 0; i < BENCH_TESTS; i++) o->wanted[i] = true;
        return -1;
    }
    for (;;) {
        size_t n = strcspn(at, ",");
        int i = 0;
        while (test_names[i] && (strlen(test_names[i]) != n || memcmp(test_names[i], at, n))) i++;
        if (!test_names[i])
            return args_usage("bench", "--tests has '%.*s'; there are: limits, start, prefill, decode, classify, process, memory",
                              (int)SILL_MIN(n, (size_t)40), at);
        o->wanted[i] = true;
        if (!at[n]) return -1;
        at += n + 1;
    }
}

static int read_batches(bench_options *o) {
    const char *at = o->batches ? o->batches : "1,2,4,8,16,32";
    for (;;) {
        char *end;
        long v = strtol(at, &end, 10);
        if (end == at || (*end && *end != ',') || v < 1 || v > 1024)
            return args_usage("bench", "--batches is '%.60s'; it takes numbers from 1 to 1024 with commas between", o->batches);
        if (o->n_batches == BENCH_MAX_BATCHES) return args_usage("bench", "--batches has more than %d numbers", BENCH_MAX_BATCHES);
        o->batch[o->n_batches++] = (int32_t)v;
        if (!*end) return -1;
        at = end + 1;
    }
}

/* Sizes that were asked for are measured or refused; those left open fit any context. */
static sill_status choose_sizes(bench_options *o, int32_t n_ctx, sill_error *err) {
    const int32_t n_prompt = o->n_prompt ? o->n_prompt : 32, n_gen = o->n_gen ? o->n_gen : 32;
    if ((o->n_prompt || o->n_gen) && (o->wanted[BENCH_DECODE] || o->wanted[BENCH_MEMORY]) && n_prompt + n_gen > n_ctx)
        return sill__fail(err, SILL_ERANGE, "--n-prompt %d and --n-gen %d make %d tokens, and the context has %d", (int)n_prompt,
                          (int)n_gen, (int)(n_prompt + n_gen), (int)n_ctx);
    if (o->n_prompt && o->wanted[BENCH_START] && n_prompt + 1 > n_ctx)
        return sill__fail(err, SILL_ERANGE, "--n-prompt %d and a first token do not fit the context of %d", (int)n_prompt, (int)n_ctx);
    if (o->n_prefill && o->wanted[BENCH_PREFILL] && o->n_prefill + 1 > n_ctx)
        return sill__fail(err, SILL_ERANGE, "--n-prefill %d and a first token do not fit the context of %d", (int)o->n_prefill, (int)n_ctx);
    if (!o->n_prompt) o->n_prompt = SILL_MAX(SILL_MIN(n_prompt, n_ctx - 2), 1);
    if (!o->n_gen) o->n_gen = SILL_MAX(SILL_MIN(n_gen, n_ctx - o->n_prompt), 2);
    if (!o->n_prefill) o->n_prefill = SILL_MAX(SILL_MIN(512, n_ctx - 1), 1);
    return SILL_OK;
}

/* The session's context: what the longest test needs, or what the model has. */
static sill_status choose_ctx(bench_run *run, const char *path, sill_error *err) {
    bench_options *o = run->o;
    sill_model_options mo;
    sill_session_options so;
    sill_plan_info plan;
    int32_t need, most = 1;
    for (int i = 0; i < o->n_batches; i++) most = SILL_MAX(most, o->batch[i]);
    cli_fill_options(&o->model, &mo, &so);
    sill_status s = sill_plan(path, &mo, &so, &plan, err);
    if (s != SILL_OK) return s;
    if ((s = choose_sizes(o, plan.n_ctx, err)) != SILL_OK) return s;
    need = SILL_MAX(o->n_prompt + o->n_gen, o->wanted[BENCH_PREFILL] ? o->n_prefill + 1 : 0);
    if (o->wanted[BENCH_CLASSIFY]) need = SILL_MAX(need, 512 + 32);
    run->n_ctx = SILL_MIN(need, plan.n_ctx);
    if (run->n_ctx < 8) return sill__fail(err, SILL_ERANGE, "a context of %d tokens is too short to measure anything", (int)run->n_ctx);
    o->model.n_ctx = run->n_ctx;
    if (!o->model.max_sequences && most > 32) o->model.max_sequences = most;
    return SILL_OK;
}

/* ---- from nothing to the first token, in this process */

static int start(bench_run *run) {
    bench_row load = bench_empty_row("load", "s"), first = bench_empty_row("first_token", "s");
    const int32_t n_prompt = SILL_MIN(run->o->n_prompt, run->n_ctx - 1), reps = run->o->wanted[BENCH_START] ? run->o->reps : 1;
    const bool quiet = cli_general.quiet;
    sill__times loads = {0}, firsts = {0};
    sill_error err = {0};
    for (int i = 0; i < reps; i++) {
        double from = sill__now(), t;
        cli_general.quiet = quiet || i > 0; /* what loading says, it says once */
        int status = cli_engine_open("bench", &run->o->model, &(cli_needs){.no_text = true}, &run->engine);
        cli_general.quiet = quiet;
        if (status >= 0) return status;
        sill__times_add(&loads, sill__now() - from);
        if (!run->o->wanted[BENCH_START] || run->engine.info.n_labels) break;
        if (bench_generate(run, 1, n_prompt, 1, &t, &err) != SILL_OK) return cli_fail(&err);
        sill__times_add(&firsts, sill__now() - from);
        if (i + 1 < reps) cli_engine_close(&run->engine);
    }
    if (bench_out_describe(&run->out, &run->engine, run->out.format != BENCH_MD || run->out.to != stdout, &err) != SILL_OK) return cli_fail(&err);
    if (!run->o->wanted[BENCH_START]) return -1;
    bench_row_times(&load, &loads, 0);
    bench_out_row(&run->out, &load);
    if (!firsts.n) return -1;
    first.batch = 1, first.n_prompt = n_prompt, first.n_gen = 1;
    bench_row_times(&first, &firsts, 0);
    bench_out_row(&run->out, &first);
    return -1;
}

/* ---- all of it */

/* A model with a classification head has no words to continue with; one without a tokenizer has none to begin with. */
static int drop_what_cannot_be(bench_run *run, const char *path) {
    sill__file *file;
    sill__config config;
    sill_tokenizer *tokenizer = NULL;
    sill_error err = {0};
    if (sill__file_open(path, &file, &err) != SILL_OK) return cli_fail_model(&err);
    if (bench_out_check(&run->out, file, &err) != SILL_OK) {
        sill__file_close(file);
        return args_usage("bench", "%s", err.msg);
    }
    sill_status s = sill__config_read(file, &config, &err);
    const bool head = s == SILL_OK && config.n_labels > 0, mute = sill_tokenizer_load(path, &tokenizer, NULL) != SILL_OK;
    if (s == SILL_OK) sill__config_free(&config);
    sill_tokenizer_free(tokenizer);
    sill__file_close(file);
    if (s != SILL_OK) return cli_fail_model(&err);
    const bool not_here[BENCH_TESTS] = {[BENCH_PREFILL] = head, [BENCH_DECODE] = head, [BENCH_PROCESS] = head || mute,
                                        [BENCH_MEMORY] = head, [BENCH_CLASSIFY] = mute && !head};
    for (int i = 0; i < BENCH_TESTS; i++) {
        if (not_here[i] && run->o->tests && run->o->wanted[i])
            return args_usage("bench", "--tests %s is not for this model: it has %s", test_names[i],
                              head ? "a classification head" : "no tokenizer");
        if (not_here[i]) run->o->wanted[i] = false;
    }
    return -1;
}

static int measure(bench_run *run) {
    static sill_status (*const tests[BENCH_TESTS])(bench_run *, sill_error *) = {
        [BENCH_PREFILL] = bench_prefill, [BENCH_DECODE] = bench_decode, [BENCH_CLASSIFY] = bench_classify,
        [BENCH_PROCESS] = bench_process, [BENCH_MEMORY] = bench_memory};
    sill_error err = {0};
    char path[1024];
    int status = cli_check_model("bench", &run->o->model);
    if (status >= 0) return status;
    if (cli_model_path(run->o->model.model, path, sizeof path, &err) != SILL_OK) return cli_fail(&err);
    if ((status = drop_what_cannot_be(run, path)) >= 0) return status;
    sill_status s = choose_ctx(run, path, &err);
    if (s != SILL_OK) return cli_fail_model(&err);
    if (run->o->wanted[BENCH_PROCESS]) s = bench_process_measure(run, path, &err);
    if (s == SILL_OK && run->o->wanted[BENCH_MEMORY]) s = bench_memory_measure(run, path, &err);
    if (s != SILL_OK) return cli_fail(&err);
    if ((status = start(run)) >= 0) return status;
    if (!run->o->no_limits) s = bench_limits(run, run->o->wanted[BENCH_LIMITS], &err);
    for (int i = BENCH_PREFILL; s == SILL_OK && i < BENCH_TESTS; i++)
        if (run->o->wanted[i]) s = tests[i](run, &err);
    return s == SILL_OK ? EXIT_OK : cli_fail(&err);
}

static const char notes[] =
    "Tests: limits (reading memory with ordinary and huge pages, multiply-adds, a barrier of all threads), start (loading,\n"
    "and from there to the first token), prefill, decode (every batch), classify (ragged texts of 30 tokens in the mean,\n"
    "with the model's head or two labels), process (a fresh process of sill generate to its first token), memory (the most\n"
    "that a process took, and what was planned). The prompts are random ids. Of several repetitions the best counts; mean\n"
    "and spread (slowest against fastest; none of one repetition) stand beside it. Decoding is counted behind the first\n"
    "token. Shares are of the limits measured in the same run: bytes of weights against bandwidth, multiply-adds of the\n"
    "products against the peak of their type. Beside a GPU the limits are those of all the CPU's cores: the bandwidth of the\n"
    "memory that both share, as far as the CPU gets, and no share of a peak; and decode_interactive is one text as chat and\n"
    "generate decode it, by kernels that batches do not take.\n"
    "Fields of csv and jsonl: test, model, device, dtype, threads, batch, n_prompt, n_gen, value, unit, mean, spread, reps,\n"
    "tokens_per_s, bandwidth_share, peak_share, commit, version, machine, model_sha256 (the file's, or a sharded index's).\n";

int cli_bench(int argc, char **argv) {
    static bench_options o = {.reps = 3, .n_texts = 100};
    static bench_run run;
    static const char *const formats[] = {"auto", "md", "csv", "jsonl", NULL};
    typedef bench_options t;
    static const arg_option own[] = {
        {"tests", 0, ARG_TEXT, offsetof(t, tests), 0, 0, NULL, "LIST", "limits,start,prefill,decode,classify,process,memory (default: all)"},
        {"batches", 0, ARG_TEXT, offsetof(t, batches), 0, 0, NULL, "LIST", "sequences decoded at once (default 1,2,4,8,16,32)"},
        {"reps", 0, ARG_INT, offsetof(t, reps), 1, 1000, NULL, "N", "repetitions (default 3)"},
        {"n-prompt", 0, ARG_INT, offsetof(t, n_prompt), 1, 65536, NULL, "N", "tokens of the prompts that are decoded from (default 32)"},
        {"n-gen", 0, ARG_INT, offsetof(t, n_gen), 2, 65536, NULL, "N", "tokens decoded (default 32)"},
        {"n-prefill", 0, ARG_INT, offsetof(t, n_prefill), 1, 65536, NULL, "N", "tokens of the prompt that is prefilled (default 512, or what the context holds)"},
        {"n-texts", 0, ARG_INT, offsetof(t, n_texts), 1, 100000, NULL, "N", "texts classified (default 100)"},
        {"no-limits", 0, ARG_FLAG, offsetof(t, no_limits), 0, 0, NULL, NULL, "do not measure the machine's limits: no shares"},
        {"format", 0, ARG_CHOICE, offsetof(t, format), 0, 0, formats, "FORMAT", "md, csv, jsonl (default: by OUT's extension, else md)"},
        {"output", 'o', ARG_TEXT, offsetof(t, output), 0, 0, NULL, "OUT", "a file (without an extension: with --format, or as ./OUT), or just md, csv or jsonl for that form on standard output"},
        {"overwrite", 0, ARG_FLAG, offsetof(t, overwrite), 0, 0, NULL, NULL, "replace OUT if it exists"},
    };
    const arg_command command = {
        "bench", "[OPTIONS]", "How fast a model is on this machine, and how near to the machine's limits.",
        {{"bench", own, SILL_ARRAY_LEN(own), &o}, cli_model_table(&o.model), cli_general_table()}, notes, 0, 0};
    char **args;
    int n, status = args_parse(&command, argc, argv, &args, &n);
    if (status < 0) status = read_tests(&o);
    if (status < 0) status = read_batches(&o);
    if (status < 0) status = bench_out_open(&run.out, &o);
    if (status >= 0) return status;
    run.o = &o;
    status = measure(&run);
    bench_limits_free(&run);
    cli_engine_close(&run.engine);
    int closed = bench_out_close(&run.out, status == EXIT_OK);
    return status == EXIT_OK ? closed : status;
}
