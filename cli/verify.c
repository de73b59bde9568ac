/* verify.c - `sill verify`: a sample of the rows of a finished run computed again, by its record, and compared to the bit. */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "build_info.h"
#include "results.h"

typedef struct verify_options { int32_t rows; uint64_t seed; const char *input, *model; } verify_options;

typedef struct verification {
    const verify_options *o;
    cli_record record;
    char *output;            /* the file that the record is of */
    uint64_t *rows;          /* the sample, ascending */
    size_t n_rows, n_differ;
    uint64_t differ[10];
    char **argv;             /* of the replay; owns its texts */
    int argc;
    char dir[64], made[128]; /* where the replay writes */
    bool output_changed;
} verification;

/* ---- which rows */

static int by_number(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* Without repetition, by the seed alone (Floyd's way: for the i-th of n, a number up to i, or i itself). */
static sill_status pick_rows(verification *v, sill_error *err) {
    unsigned shard, shards;
    uint64_t all = v->record.rows, want = SILL_MIN(all, (uint64_t)(v->o->rows ? v->o->rows : 20));
    (void)cli_record_shard(&v->record, &shard, &shards);
    v->rows = sill__calloc((size_t)want + 1, sizeof *v->rows);
    if (!v->rows) return sill__fail(err, SILL_ENOMEM, "no memory for %llu rows", (unsigned long long)want);
    for (uint64_t i = all - want; i < all; i++) {
        uint64_t at = (uint64_t)(sill__uniform(v->o->seed, i, 0, 0) * (double)(i + 1)), number;
        for (int again = 0; again < 2; again++) {
            number = (again ? i : SILL_MIN(at, i)) * shards + shard;
            bool there = false;
            for (size_t k = 0; k < v->n_rows; k++) there = there || v->rows[k] == number;
            if (!there) break;
        }
        v->rows[v->n_rows++] = number;
    }
    qsort(v->rows, v->n_rows, sizeof *v->rows, by_number);
    return SILL_OK;
}

/* ---- the replay */

/* A record may come from anybody: only what a run writes into it is given to a command again. */
static sill_status check_arguments(const cli_record *r, sill_error *err) {
    static const char *const commands[] = {"classify", "embed", "generate", "score", "tokenize"};
    bool known = false;
    char name[64];
    for (size_t i = 0; i < SILL_ARRAY_LEN(commands); i++) known = known || !strcmp(r->command, commands[i]);
    if (!known) return sill__fail(err, SILL_EFORMAT, "the record is of '%.40s', which is no command that keeps records", r->command);
    for (size_t i = 1; i < r->n_arguments && strcmp(r->arguments[i], "--") != 0; i++) {
        const char *a = r->arguments[i];
        snprintf(name, sizeof name, "%.*s", (int)SILL_MIN(strcspn(a, "="), sizeof name - 1), a);
        if (strncmp(name, "--", 2) != 0 || cli_record_leaves_out(name + 2))
            return sill__fail(err, SILL_EFORMAT, "the record's arguments hold '%.60s', which no run writes there: was it changed?", a);
    }
    return SILL_OK;
}

static bool add(verification *v, const char *before, const char *text) {
    sill__str s;
    char **p = sill__realloc(v->argv, ((size_t)v->argc + 2) * sizeof *p);
    if (!p) return false;
    v->argv = p;
    sill__str_init(&s, (size_t)1 << 30);
    sill__str_puts(&s, before);
    sill__str_puts(&s, text);
    p[v->argc] = s.failed ? NULL : sill__strndup(s.p ? s.p : "", s.n);
    sill__str_free(&s);
    if (!p[v->argc]) return false;
    p[++v->argc] = NULL;
    return true;
}

/* The arguments of then, with the input and the model where they are now. */
static bool make_arguments(verification *v) {
    const cli_record *r = &v->record;
    const char *input = v->o->input ? v->o->input : r->input, *model = v->o->model ? v->o->model : r->model;
    const char *format = cli_settings_get(&r->settings, "output format"), *read_as = cli_settings_get(&r->settings, "input format");
    bool words = false, ok = add(v, "--output=", v->made) && add(v, "--output-format=", format ? format : "csv") && add(v, "", "--quiet");
    if (read_as && input) ok = ok && add(v, "--format=", read_as);
    if (model) ok = ok && add(v, "--model=", model);
    for (size_t i = 1; ok && i < r->n_arguments; i++) {
        const char *a = r->arguments[i];
        bool rows = strcmp(r->command, "generate") != 0;
        if (!words && (!strncmp(a, "--model=", 8) || !strncmp(a, "--format=", 9) || !strncmp(a, "--output-format=", 16))) {
            if (!strncmp(a, "--format=", 9) && !input) ok = add(v, "", a);
        } else if (!words && !strncmp(a, "--file=", 7)) ok = add(v, "--file=", input ? input : a + 7);
        else if (words && rows) ok = add(v, "", input ? input : a);
        else ok = add(v, "", a);
        words = words || !strcmp(a, "--");
    }
    return ok;
}

static sill_status prepare(verification *v, const char *given, sill_error *err) {
    const char *tail = ".run.json", *tmp = getenv("TMPDIR");
    size_t n = strlen(given), k = strlen(tail);
    bool is_record = n > k && !strcmp(given + n - k, tail);
    v->output = sill__strndup(given, is_record ? n - k : n);
    char *path = v->output ? cli_record_path(v->output) : NULL;
    sill_status s = path ? cli_record_read(path, &v->record, err) : sill__fail(err, SILL_ENOMEM, "no memory for a record");
    sill__free(path);
    if (s == SILL_ENOENT) return sill__fail(err, SILL_ENOENT, "%s has no record of its run (%s.run.json) beside it", v->output, v->output);
    if (s != SILL_OK) return s;
    if (!v->o->input && !v->record.input && cli_settings_get(&v->record.settings, "input format") && strcmp(v->record.command, "generate"))
        return sill__fail(err, SILL_EINVAL, "the run read standard input; give a file with the same rows as --input FILE");
    if (snprintf(v->dir, sizeof v->dir, "%s/sill_verify_XXXXXX", tmp && *tmp ? tmp : "/tmp") >= (int)sizeof v->dir || !mkdtemp(v->dir))
        return sill__fail(err, SILL_EIO, "no directory for the replay in %s", tmp && *tmp ? tmp : "/tmp");
    snprintf(v->made, sizeof v->made, "%s/rows", v->dir);
    s = check_arguments(&v->record, err);
    if (s == SILL_OK) s = pick_rows(v, err);
    return s == SILL_OK && !make_arguments(v) ? sill__fail(err, SILL_ENOMEM, "no memory for a replay") : s;
}

/* ---- the comparison */

static sill_status compare(verification *v, sill_error *err) {
    cli_results was = {0}, is = {0};
    char sha[65];
    uint64_t n, n_now, last = v->record.input_rows;
    unsigned shard, shards;
    size_t at = 0;
    (void)cli_record_shard(&v->record, &shard, &shards);
    sill_status s = cli_results_open(&was, v->output, &v->record, v->record.uneven, v->record.n_uneven, err);
    if (s == SILL_OK) s = cli_results_open(&is, v->made, &v->record, cli_replay.uneven, cli_replay.n_uneven, err);
    if (s == SILL_OK) s = cli_results_header(&was, err);
    if (s == SILL_OK) s = cli_results_header(&is, err);
    for (uint64_t row = shard; s == SILL_OK && row <= last; row += shards) {
        s = cli_results_row(&was, row, &n, err);
        if (s != SILL_OK || at == v->n_rows || v->rows[at] != row) continue;
        at++;
        s = cli_results_row(&is, row, &n_now, err);
        if (s != SILL_OK || (was.text.n == is.text.n && !memcmp(was.text.p, is.text.p, is.text.n))) continue;
        if (v->n_differ < SILL_ARRAY_LEN(v->differ)) v->differ[v->n_differ] = row;
        v->n_differ++;
    }
    if (s == SILL_OK) {
        bool end = cli_results_at_end(&was);
        if (at < v->n_rows) s = sill__fail(err, SILL_EFORMAT, "the record says %llu rows, of an input of %llu: was it changed?",
                                           (unsigned long long)v->record.rows, (unsigned long long)v->record.input_rows);
        cli_results_sha256(&was, sha);
        v->output_changed = strcmp(sha, v->record.output_sha256) != 0 || !end;
    }
    cli_results_close(&was);
    cli_results_close(&is);
    return s;
}

/* A line on standard output; what it quotes of a record is shown, not done, by a terminal. */
static SILL_PRINTF(1, 2) void tell(const char *format, ...) {
    char text[4096];
    va_list ap;
    va_start(ap, format);
    vsnprintf(text, sizeof text, format, ap);
    va_end(ap);
    sill__plain(text);
    puts(text);
}

static void say_device(const char *when, const cli_settings *s) {
    const char *names[] = {"device", "dtype", "version", "commit"}, *v[4];
    for (int i = 0; i < 4; i++) v[i] = cli_settings_get(s, names[i]) ? cli_settings_get(s, names[i]) : "none";
    tell("%s: %s, computed in %s, sill %s (%s)", when, v[0], v[1], v[2], v[3]);
}

static bool differs(const verification *v, const char *name) {
    const char *was = cli_settings_get(&v->record.settings, name), *is = cli_settings_get(&cli_replay.settings, name);
    return was && is && strcmp(was, is);
}

static int report(const verification *v) {
    bool input = strcmp(v->record.input_sha256, cli_replay.input_sha256) != 0;
    bool model = strcmp(v->record.model_sha256, cli_replay.model_sha256) != 0;
    bool codebook = differs(v, "codebook sha256");
    tell("%s: %zu of %zu rows (of %llu) come out the same, to the bit", v->output, v->n_rows - v->n_differ, v->n_rows,
           (unsigned long long)v->record.rows);
    for (size_t i = 0; i < SILL_MIN(v->n_differ, SILL_ARRAY_LEN(v->differ)); i++) tell("row %llu differs", (unsigned long long)v->differ[i]);
    if (input) tell("the input is not the one of the run: its rows have another SHA-256");
    if (codebook) tell("the codebook is not the one of the run: it has another SHA-256");
    if (model) tell("the model is not the one of the run: SHA-256 %.16s... then, %.16s... now", v->record.model_sha256, cli_replay.model_sha256);
    if (v->output_changed) tell("%s was changed since the run: its SHA-256 is another than the record says", v->output);
    say_device("then", &v->record.settings);
    say_device("now", &cli_replay.settings);
    if (v->n_differ && !input && !model && !codebook) {
        if (differs(v, "device"))
            tell("that may be why: results are the same bits for one device and instruction set, and differ in the last places between them "
                 "(SILL_CPU_ISA, --device choose the earlier one)");
        else if (differs(v, "commit") || differs(v, "version")) tell("that may be why: it was another version of sill");
        else if (!v->output_changed)
            tell("nothing that is recorded differs: one of the two computed wrong, or the model's files were read wrong; sill check tells "
                 "whether this machine computes right");
    }
    return v->n_differ || input || model || codebook || v->output_changed ? EXIT_FAILED : EXIT_OK;
}

static int replay(verification *v) {
    sill_error err = {0};
    cli_general_options general = cli_general;
    cli_replay.rows = v->rows;
    cli_replay.n_rows = v->n_rows;
    char **argv = sill__calloc((size_t)v->argc + 1, sizeof *argv); /* the parser moves them about */
    if (!argv) return EXIT_FAILED;
    memcpy(argv, v->argv, (size_t)v->argc * sizeof *argv);
    int status = cli_run_command(v->record.command, v->argc, argv);
    sill__free(argv);
    cli_general = general;
    if (status != EXIT_OK && status != EXIT_ROWS) return status;
    sill_status s = compare(v, &err);
    status = s == SILL_OK ? report(v) : cli_fail(&err);
    return s == SILL_OK && cli_flush_stdout() != EXIT_OK ? EXIT_FAILED : status;
}

static const char notes[] =
    "RECORD is OUT.run.json, which a run with -o OUT leaves, beside OUT. The sample is the same for the same --seed.\n"
    "Status 0: all rows of the sample agree; 1: some do not, or the input, the model or OUT is another than then.\n";

int cli_verify(int argc, char **argv) {
    static verify_options o;
    static const arg_option own[] = {
        {"rows", 0, ARG_INT, offsetof(verify_options, rows), 1, INT32_MAX, NULL, "N", "size of the sample (default 20)"},
        {"seed", 0, ARG_U64, offsetof(verify_options, seed), 0, 0, NULL, "N", "of the sample (default 0)"},
        {"input", 0, ARG_TEXT, offsetof(verify_options, input), 0, 0, NULL, "FILE", "where the input is now (default: where it was)"},
        {"model", 'm', ARG_TEXT, offsetof(verify_options, model), 0, 0, NULL, "MODEL", "where the model is now (default: where it was)"},
    };
    const arg_command command = {"verify", "RECORD", "Computes a sample of a run's rows again and says whether the bits agree.",
                                 {{"sample", own, SILL_ARRAY_LEN(own), &o}, cli_general_table()}, notes, 1, 1};
    char **files;
    int n;
    sill_error err = {0};
    verification v = {.o = &o};
    int status = args_parse(&command, argc, argv, &files, &n);
    if (status >= 0) return status;
    sill_status s = prepare(&v, files[0], &err);
    if (s == SILL_OK) {
        status = replay(&v);
    } else {
        status = cli_fail(&err);
        if (s == SILL_EINVAL) status = EXIT_USAGE;
    }
    if (v.made[0]) unlink(v.made);
    if (v.dir[0]) rmdir(v.dir);
    for (int i = 0; i < v.argc; i++) sill__free(v.argv[i]);
    sill__free(v.argv);
    sill__free(v.rows);
    sill__free(v.output);
    sill__free((void *)(uintptr_t)cli_replay.uneven);
    cli_settings_free(&cli_replay.settings);
    cli_record_free(&v.record);
    return status;
}
