/* common.c - the options that commands share, messages, signals, and finding and loading the model. */
#include "common.h"

#include "backend/backend.h"
#include "hub.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DEFAULT_MODEL "SmolLM2-135M-Instruct.Q4_1.gguf"

cli_general_options cli_general;
volatile int cli_stop;

/* ---- options */

static const char *const dtypes[] = {"auto", "f32", "f16", "bf16", "q8", "q4", "int8", NULL};
static const char *const kv_dtypes[] = {"auto", "f32", "f16", "int8", NULL};
static const char *const formats[] = {"auto", "csv", "tsv", "jsonl", "txt", "file", NULL};
const char *const cli_encodings[] = {"utf-8", "latin-1", "windows-1252", "bytes", NULL};
static const char *const output_formats[] = {"auto", "csv", "tsv", "jsonl", "npy", NULL};
static const char *const policies[] = {"default", "error", "truncate", "window", "split-mean", NULL};

#define AT(type, member) offsetof(type, member)

arg_table cli_model_table(cli_model_options *values) {
    typedef cli_model_options t;
    static const arg_option options[] = {
        {"model", 'm', ARG_TEXT, AT(t, model), 0, 0, NULL, "MODEL",
         "a directory as on the hub, a .gguf or .safetensors file, a checkpoint (PyTorch; GPT-2 of nanoGPT, llm.c, TensorFlow), or a name in "
         "the cache (default: SmolLM2-135M-Instruct)"},
        {"tokenizer", 0, ARG_TEXT, AT(t, tokenizer), 0, 0, NULL, "PATH", "tokenizer of a model that brings none: a directory, tokenizer.json, vocab.json, vocab.bpe"},
        {"device", 0, ARG_TEXT, AT(t, device), 0, 0, NULL, "NAME", "auto, metal (Apple GPUs), cpu, or ref, the slow scalar reference (default auto)"},
        {"dtype", 0, ARG_CHOICE, AT(t, dtype), 0, 0, dtypes, "TYPE",
         "type computed with: auto (as stored), f32 (the parity path), f16, bf16; of floating-point weights also q8, q4, int8"},
        {"kv-dtype", 0, ARG_CHOICE, AT(t, kv_dtype), 0, 0, kv_dtypes, "TYPE", "type of the KV cache: auto, f32, f16, int8"},
        {"threads", 0, ARG_INT, AT(t, threads), 1, 1024, NULL, "N", "threads (default: the physical cores)"},
        {"ctx", 0, ARG_INT, AT(t, n_ctx), 1, 1 << 24, NULL, "N", "longest sequence in tokens (default: the model's)"},
        {"batch-tokens", 0, ARG_INT, AT(t, batch_tokens), 1, 65536, NULL, "N", "most tokens in one batch"},
        {"max-sequences", 0, ARG_INT, AT(t, max_sequences), 1, 4096, NULL, "N", "most texts in flight"},
        {"no-cache", 0, ARG_FLAG, AT(t, no_cache), 0, 0, NULL, NULL, "neither take nor keep a packed copy of the weights in the cache"},
        {"memory", 0, ARG_INT, AT(t, memory_mib), 1, INT32_MAX, NULL, "MIB", "refuse what needs more in all (default: what the system has free)"},
    };
    return (arg_table){"model", options, SILL_ARRAY_LEN(options), values};
}

arg_table cli_input_table(cli_input_options *values, bool column) {
    typedef cli_input_options t;
    static const arg_option options[] = {
        {"text", 0, ARG_TEXT, AT(t, text), 0, 0, NULL, "COLUMN", "column (or JSONL field) of the text; not for plain text"},
        {"format", 0, ARG_CHOICE, AT(t, format), 0, 0, formats, "FORMAT",
         "of the input: csv, tsv, jsonl, txt (a line a row), file (a text file a row; so a directory is read) (default: by the "
         "extension, .gz or .zst left out; txt from standard input)"},
        {"encoding", 0, ARG_CHOICE, AT(t, encoding), 0, 0, cli_encodings, "NAME",
         "of the input: utf-8 (the default), latin-1, windows-1252; bytes: nothing is checked. The output is UTF-8"},
        {"delimiter", 0, ARG_TEXT, AT(t, delimiter), 0, 0, NULL, "CHAR",
         "of a CSV (default ','; ';' or a tab when the header has no ',' but one of those)"},
        {"max-row", 0, ARG_INT, AT(t, max_row), 1, 256, NULL, "MIB", "longest row (or file of a directory) that is read (default 16)"},
    };
    return (arg_table){"input", column ? options : options + 1, SILL_ARRAY_LEN(options) - !column, values};
}

arg_table cli_output_table(cli_corpus_options *values) {
    typedef cli_corpus_options t;
    static const arg_option options[] = {
        {"id", 0, ARG_TEXT, AT(t, id), 0, 0, NULL, "COLUMN", "column that keys the random numbers of a row (default: its number)"},
        {"output", 'o', ARG_TEXT, AT(t, output), 0, 0, NULL, "OUT",
         "results: .csv, .tsv or .jsonl, compressed with .gz or .zst behind it, of embed also .npy (default: standard output)"},
        {"output-format", 0, ARG_CHOICE, AT(t, output_format), 0, 0, output_formats, "FORMAT",
         "csv, tsv, jsonl; npy of embed (default: by OUT's extension, else as the input)"},
        {"json", 0, ARG_FLAG, AT(t, json), 0, 0, NULL, NULL, "results as JSON Lines"},
        {"overwrite", 0, ARG_FLAG, AT(t, overwrite), 0, 0, NULL, NULL, "replace OUT if it exists"},
        {"shard", 0, ARG_TEXT, AT(t, shard), 0, 0, NULL, "I/N",
         "only every N-th row, from row I on (no random sample: of rows that take turns an even N has one kind); sill merge joins the outputs"},
        {"journal-rows", 0, ARG_INT, AT(t, journal_rows), 1, INT32_MAX, NULL, "N",
         "finished rows that a kill may cost (default: those of about a second)"},
        {"progress", 0, ARG_ABOVE, AT(t, progress), 0, 1e6, NULL, "SECONDS", "between lines of progress where there is no terminal (default 30)"},
    };
    return (arg_table){"output", options, SILL_ARRAY_LEN(options), values};
}

#define TEXT_OPTIONS \
    {"special", 0, ARG_FLAG, AT(t, special), 0, 0, NULL, NULL, "control tokens such as <|endoftext|> in a text count as such"}, \
    {"no-special", 0, ARG_UNFLAG, AT(t, special), 0, 0, NULL, NULL, "a text never becomes a control token"}

arg_table cli_text_table(cli_text_options *values, cli_long how) {
    typedef cli_text_options t;
#define TABLE(list) {TEXT_OPTIONS, {"long", 0, ARG_CHOICE, AT(t, long_policy), 0, 0, policies, "POLICY", "texts longer than the context: " list}}
    static const arg_option options[][3] = {TABLE("error, truncate"), TABLE("error, truncate, window (the default here)"),
                                            TABLE("error, truncate, window (the default here), split-mean"),
                                            TABLE("error (the default here), truncate, window, split-mean")};
    return (arg_table){"texts", options[how], SILL_ARRAY_LEN(options[how]), values};
#undef TABLE
}

arg_table cli_general_table(void) {
    typedef cli_general_options t;
    static const arg_option options[] = {
        {"quiet", 'q', ARG_FLAG, AT(t, quiet), 0, 0, NULL, NULL, "no messages but errors"},
        {"verbose", 'v', ARG_FLAG, AT(t, verbose), 0, 0, NULL, NULL, "more messages"},
        {"fast", 0, ARG_LATER, 0, 0, 0, NULL, NULL, NULL},
    };
    return (arg_table){"general", options, SILL_ARRAY_LEN(options), &cli_general};
}

/* ---- messages */

bool cli_is_terminal(FILE *stream) { return isatty(fileno(stream)) == 1; }

void cli_say(const char *format, ...) {
    char text[4096];
    va_list ap;
    if (cli_general.quiet) return;
    va_start(ap, format);
    vsnprintf(text, sizeof text, format, ap);
    va_end(ap);
    sill__plain(text);
    fprintf(stderr, "sill: %s\n", text);
}

int cli_exit_status(sill_status code) {
    return code == SILL_OK ? EXIT_OK : code == SILL_ENOFIT ? EXIT_NOFIT : code == SILL_ECANCELLED ? EXIT_INTERRUPTED : EXIT_FAILED;
}

int cli_fail(const sill_error *err) {
    bool colour = cli_is_terminal(stderr) && !getenv("NO_COLOR");
    fprintf(stderr, "sill: %serror:%s %s\n", colour ? "\033[1;31m" : "", colour ? "\033[0m" : "",
            err->msg[0] ? err->msg : sill_status_text(err->code));
    return cli_exit_status(err->code);
}

int cli_fail_model(const sill_error *err) {
    int status = cli_fail(err);
    return err->code == SILL_EINVAL || err->code == SILL_ERANGE ? EXIT_USAGE : status;
}

int cli_flush_stdout(void) {
    if (fflush(stdout) == 0 && !ferror(stdout)) return EXIT_OK;
    fprintf(stderr, "sill: error: cannot write to standard output\n");
    return EXIT_FAILED;
}

sill_status cli_read_stdin(size_t max, char **text, size_t *n, sill_error *err) {
    sill__str s;
    char buffer[16384];
    sill_status status = SILL_OK;
    sill__str_init(&s, max);
    while (status == SILL_OK) {
        struct pollfd p = {.fd = STDIN_FILENO, .events = POLLIN};
        if (cli_stop) {
            status = sill__fail(err, SILL_ECANCELLED, "interrupted while reading standard input");
            break;
        }
        int ready = poll(&p, 1, 250); /* a signal just before it would not end it: look up now and then */
        if (ready == 0 || (ready < 0 && errno == EINTR)) continue;
        ssize_t k = read(STDIN_FILENO, buffer, sizeof buffer);
        if (k == 0) break;
        if (k < 0 && errno != EINTR) status = sill__fail(err, SILL_EIO, "standard input: %s", strerror(errno));
        else if (k > 0 && !sill__str_put(&s, buffer, (size_t)k))
            status = sill__fail(err, SILL_ERANGE, "standard input is longer than the %zu bytes that are read at once", max);
    }
    *n = s.n;
    *text = status == SILL_OK ? sill__strndup(s.p ? s.p : "", s.n) : NULL;
    sill__str_free(&s);
    return status == SILL_OK && !*text ? sill__fail(err, SILL_ENOMEM, "no memory for standard input") : status;
}

static void log_line(void *user, int level, const char *line) {
    (void)user;
    if ((cli_general.quiet && level > 0) || (level > 1 && !cli_general.verbose)) return;
    fprintf(stderr, "sill: %s%s\n", level == 0 ? "error: " : level == 1 ? "warning: " : "", line);
}

void cli_show_log(void) { sill_set_log(log_line, NULL); }

/* ---- signals */

static void on_signal(int number) {
    (void)number;
    cli_stop = 1;
}

void cli_catch_signals(void) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    action.sa_flags = (int)SA_RESETHAND; /* the second one ends the process */
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    signal(SIGXFSZ, SIG_IGN); /* past a limit on file sizes, writing fails as on a full disk */
}

/* ---- the model */

/* A file or directory of the cache whose name is NAME, or begins with NAME and a dot. */
static bool find_cached(const char *dir, const char *name, char *path, size_t cap) {
    char found[256] = "";
    size_t n = strlen(name);
    DIR *d = opendir(dir);
    if (!d) return false;
    for (struct dirent *e; (e = readdir(d));) {
        size_t m = strlen(e->d_name);
        bool exact = !strcmp(e->d_name, name);
        bool prefix = m > n && !strncmp(e->d_name, name, n) && e->d_name[n] == '.' && m > 5 && !strcmp(e->d_name + m - 5, ".gguf");
        if (e->d_name[0] == '.' || m >= sizeof found || !(exact || prefix)) continue;
        if (exact || !found[0] || strcmp(e->d_name, found) < 0) memcpy(found, e->d_name, m + 1);
        if (exact) break;
    }
    closedir(d);
    return found[0] && sill__path_join(path, cap, dir, found);
}

sill_status cli_model_path(const char *name, char *path, size_t cap, sill_error *err) {
    char dir[900];
    if (!sill__cache_path(dir, sizeof dir, "models")) return sill__fail(err, SILL_ERANGE, "the cache directory's name is too long");
    if (!name) {
        if (!sill__path_join(path, cap, dir, DEFAULT_MODEL)) return sill__fail(err, SILL_ERANGE, "%s is too long", dir);
        if (sill__is_file(path)) return SILL_OK;
        return sill__fail(err, SILL_ENOENT, "the default model is not there yet (%s); fetch it with `make model` or "
                          "tools/fetch_model.sh, or name a model with -m", path);
    }
    if (strlen(name) >= cap) return sill__fail(err, SILL_ERANGE, "the model's path is too long");
    memcpy(path, name, strlen(name) + 1);
    if (sill__is_file(path) || sill__is_dir(path)) return SILL_OK;
    if (!strchr(name, '/') && find_cached(dir, name, path, cap)) return SILL_OK;
    if (cli_hub_find(name, path, cap)) return SILL_OK;
    const char *at = strchr(name, '@');
    const bool known = cli_hub_is_name(name, at ? (size_t)(at - name) : strlen(name));
    return sill__fail(err, SILL_ENOENT, "no model '%s': not a file or directory here, and not in %s%s%s%s", name, dir,
                      known ? "; sill pull " : "", known ? name : "", known ? " fetches one of that name from a hub" : "");
}

void cli_fill_options(const cli_model_options *o, sill_model_options *mo, sill_session_options *so) {
    uint64_t limit = (uint64_t)o->memory_mib << 20;
    *mo = (sill_model_options){.size = sizeof *mo, .device = o->device, .dtype = (sill_dtype)o->dtype, .n_threads = o->threads,
                               .memory_limit_bytes = limit, .no_cache = o->no_cache, .tokenizer = o->tokenizer};
    *so = (sill_session_options){.size = sizeof *so, .n_ctx = o->n_ctx, .batch_tokens = o->batch_tokens,
                                 .max_sequences = o->max_sequences, .kv_dtype = (sill_kv_dtype)o->kv_dtype,
                                 .memory_limit_bytes = limit};
}

int cli_check_model(const char *command, const cli_model_options *o) {
    const sill__backend *b;
    char names[64] = "auto";
    if (!o->device || sill__backend_find(o->device, &b, NULL) == SILL_OK) return -1;
    for (int i = 0; (b = sill__backend_at(i)); i++) {
        size_t n = strlen(names);
        snprintf(names + n, sizeof names - n, ", %s", b->name);
    }
    if (!strncmp(o->device, "cuda", 4))
        return args_usage(command, "--device %.40s is not in this version; there are: %s", o->device, names);
    return args_usage(command, "--device is '%.40s'; it takes one of: %s", o->device, names);
}

int cli_check_long(const char *command, const cli_text_options *o, cli_long how) {
    const bool window = how != CLI_LONG_CUT, split = how == CLI_LONG_SCORE || how == CLI_LONG_MEAN;
    if ((o->long_policy == SILL_LONG_SPLIT_MEAN && !split) || (o->long_policy == SILL_LONG_WINDOW && !window))
        return args_usage(command, "--long %s is not for %s; it takes one of: default, error, truncate%s", policies[o->long_policy], command,
                          window ? ", window" : "");
    return -1;
}

static sill_status refuse_unfit(const cli_engine *engine, const sill_plan_info *p, bool limited, sill_error *err) {
    const double mib = 1048576.0;
    return sill__fail(err, SILL_ENOFIT, "%s needs %.1f MiB (weights %.1f, KV %.1f, scratch %.1f) for %d sequences, %d tokens "
                      "a batch and n_ctx %d, but %.1f MiB are %s; %s", engine->path, (double)p->total_bytes / mib,
                      (double)p->weight_bytes / mib, (double)p->kv_bytes / mib, (double)p->scratch_bytes / mib,
                      (int)p->max_sequences, (int)p->batch_tokens, (int)p->n_ctx, (double)p->available_bytes / mib,
                      limited ? "allowed" : "free", p->advice);
}

static int check_needs(const char *command, const cli_needs *needs, int32_t n_ctx) {
    if (needs && n_ctx < needs->min_ctx)
        return args_usage(command, "--ctx %d is too short: %s needs at least %d positions", (int)n_ctx, command, (int)needs->min_ctx);
    if (needs && needs->stride > n_ctx)
        return args_usage(command, "--stride %d is more than the context of %d tokens", (int)needs->stride, (int)n_ctx);
    return -1;
}

int cli_engine_open(const char *command, const cli_model_options *options, const cli_needs *needs, cli_engine *engine) {
    sill_model_options mo;
    sill_session_options so;
    sill_plan_info plan = {0};
    sill_error err = {0};
    memset(engine, 0, sizeof *engine);
    int status = cli_check_model(command, options);
    if (status >= 0) return status;
    cli_fill_options(options, &mo, &so);
    so.interactive = needs && needs->interactive;
    cli_show_log();
    sill_status s = cli_model_path(options->model, engine->path, sizeof engine->path, &err);
    if (s == SILL_OK) s = sill_plan(engine->path, &mo, &so, &plan, &err);
    if (s == SILL_OK && (status = check_needs(command, needs, plan.n_ctx)) >= 0) return status;
    if (s == SILL_OK && !plan.fits) s = refuse_unfit(engine, &plan, mo.memory_limit_bytes != 0, &err);
    if (s == SILL_OK && plan.passed_over[0]) {
        sill__log(1, "device %s is used, since %s", plan.device, plan.passed_over);
        mo.device = plan.device;
    }
    if (s == SILL_OK) s = sill_model_load(engine->path, &mo, &engine->model, &err);
    if (s == SILL_OK) sill_model_get_info(engine->model, &engine->info, sizeof engine->info);
    if (s == SILL_OK && !(needs && needs->no_text) && !sill_model_tokenizer(engine->model))
        s = sill__fail(&err, SILL_EUNSUPPORTED, "%s has no tokenizer (tokenizer.json, or vocab.json and merges.txt): texts "
                       "cannot be read with it; --tokenizer PATH names one elsewhere (of GPT-2: any directory with vocab.json and "
                       "merges.txt, or encoder.json and vocab.bpe)", engine->path);
    if (so.memory_limit_bytes) { /* the limit is for both: the session gets what the weights leave (0 would be no limit) */
        uint64_t weights = engine->info.weight_bytes;
        so.memory_limit_bytes = so.memory_limit_bytes > weights ? so.memory_limit_bytes - weights : 1;
    }
    engine->tokenizer = options->tokenizer;
    engine->plan = plan;
    engine->kv_dtype = kv_dtypes[options->kv_dtype ? options->kv_dtype : strcmp(engine->info.dtype, "f32") ? SILL_KV_F16 : SILL_KV_F32];
    if (s == SILL_OK) s = sill_session_create(engine->model, &so, &engine->session, &err);
    if (s == SILL_OK) return -1;
    cli_engine_close(engine);
    return cli_fail_model(&err);
}

/* ---- labels */

/* The label at *PP, which goes on behind its comma (NULL: it was the last). "a,b" in quotes is one label, as in a CSV. NULL:
 * something stands behind the closing quote, or there is none. */
static char *cut_label(char **pp) {
    char *p = *pp + strspn(*pp, " "), *out = p, *to = p;
    if (*p == '"') {
        for (p++; *p && (*p != '"' || p[1] == '"'); p++) {
            if (*p == '"') p++;
            *to++ = *p;
        }
        if (!*p) return NULL;
        p += 1 + strspn(p + 1, " ");
        if (*p && *p != ',') return NULL;
    } else {
        p += strcspn(p, ",");
        for (to = p; to > out && to[-1] == ' ';) to--;
    }
    *pp = *p ? p + 1 : NULL;
    *to = 0;
    return out;
}

int cli_split_labels(const char *command, char *list, size_t least, const char **labels, size_t *n_labels) {
    for (char *p = list; p;) {
        const char *label = cut_label(&p);
        if (!label) return args_usage(command, "--labels has a quote that does not close, or something between it and the comma");
        if (!*label) return args_usage(command, "--labels holds an empty label");
        if (*n_labels == CLI_MAX_LABELS) return args_usage(command, "--labels holds more than %d labels", CLI_MAX_LABELS);
        for (size_t i = 0; i < *n_labels; i++)
            if (!strcmp(labels[i], label)) return args_usage(command, "--labels holds '%s' twice", label);
        labels[(*n_labels)++] = label;
    }
    return *n_labels < least ? args_usage(command, "--labels needs at least two labels, separated by commas") : -1;
}

/* ---- bytes that a vocabulary has no tokens for */

/* Valid UTF-8 without rare control characters: then no byte-level vocabulary in use loses any of it. */
static bool is_ordinary(const unsigned char *p, size_t n) {
    for (const unsigned char *end = p + n; p < end;) {
        int step = sill__utf8_step(p, end);
        if (step < 0 || (*p < ' ' && *p != '\t' && *p != '\n' && *p != '\r')) return false;
        p += step;
    }
    return true;
}

size_t cli_lost_bytes(const sill_tokenizer *t, const char *text, size_t n) {
    size_t bytes, n_ids = 0, kept = n, cap = sill_tokenize_bound(t, n);
    if (!text || is_ordinary((const unsigned char *)text, n) || !sill__mul(cap, sizeof(int32_t), &bytes)) return 0;
    int32_t *ids = sill__alloc(bytes);
    if (ids && sill_tokenize(t, text, n, 0, ids, cap, &n_ids, NULL) == SILL_OK) {
        char *back = sill__alloc(sill_detokenize_bound(t, ids, n_ids) + 1);
        if (!back || sill_detokenize(t, ids, n_ids, 0, back, sill_detokenize_bound(t, ids, n_ids), &kept, NULL) != SILL_OK)
            kept = n;
        sill__free(back);
    }
    sill__free(ids);
    return kept < n ? n - kept : 0;
}

void cli_say_lost(uint64_t n) {
    if (n) cli_say("warning: %llu bytes of the texts have no token in this model's vocabulary and are left out", (unsigned long long)n);
}

void cli_engine_close(cli_engine *engine) {
    sill_session_free(engine->session);
    sill_model_free(engine->model);
    engine->session = NULL;
    engine->model = NULL;
}
