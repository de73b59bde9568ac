/* check.c - `sill check`: the library's report of its devices as a page for people, or as its JSON. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"
#include "build_info.h"
#include "common.h"

#define MAX_DEVICES 12
#define MAX_LINES 96

typedef struct check_options { const char *device, *model, *output; int32_t threads; bool json, quick, full, overwrite; } check_options;

typedef struct cell { char text[16], detail[420]; bool failed; } cell;
typedef struct device { char name[64], detail[300]; bool passed, stopped; int64_t shared, left_out; double seconds; cell cells[MAX_LINES]; } device;
typedef struct page {
    char os[160], lines[MAX_LINES][48], not_used[MAX_DEVICES][480];
    device devices[MAX_DEVICES];
    int n_lines, n_devices, n_not_used;
    bool passed, quick;
    double seconds;
} page;

/* ------------------------------------------------------- reading the report */

static void text_of(sill__json *j, char *out, size_t cap) {
    sill__str s;
    sill__str_init(&s, 4096);
    if (sill__json_string(j, &s)) snprintf(out, cap, "%s", s.p ? s.p : "");
    sill__str_free(&s);
}

static int line_at(page *p, const char *name) {
    for (int i = 0; i < p->n_lines; i++)
        if (!strcmp(p->lines[i], name)) return i;
    if (p->n_lines == MAX_LINES) return -1;
    snprintf(p->lines[p->n_lines], sizeof p->lines[0], "%s", name);
    return p->n_lines++;
}

static void read_check(sill__json *j, page *p, device *d) {
    char key[32], name[48] = "", failed_at[220] = "", why[220] = "";
    int64_t cases = 0, failed = 0, skipped = 0;
    double share = 0;
    bool measured = false, number = true;
    sill__json_enter(j, SILL__JSON_OBJECT);
    while (sill__json_next_member(j, key, sizeof key, NULL)) {
        if (!strcmp(key, "name")) text_of(j, name, sizeof name);
        else if (!strcmp(key, "cases")) sill__json_int(j, &cases);
        else if (!strcmp(key, "failed")) sill__json_int(j, &failed);
        else if (!strcmp(key, "not_offered")) sill__json_int(j, &skipped);
        else if (!strcmp(key, "first_failed")) text_of(j, failed_at, sizeof failed_at);
        else if (!strcmp(key, "why_not_offered")) text_of(j, why, sizeof why);
        else if (!strcmp(key, "share")) {
            measured = true;
            number = sill__json_peek(j) == SILL__JSON_NUMBER;
            if (number) sill__json_double(j, &share);
        }
    }
    int i = line_at(p, name);
    if (i < 0) return;
    cell *c = &d->cells[i];
    c->failed = failed > 0;
    if (failed) snprintf(c->text, sizeof c->text, "FAIL");
    else if (!cases) snprintf(c->text, sizeof c->text, "not here");
    else if (measured && number) snprintf(c->text, sizeof c->text, "%.3f", share);
    else snprintf(c->text, sizeof c->text, "same");
    if (failed) snprintf(c->detail, sizeof c->detail, "%lld of %lld cases; %s", (long long)failed, (long long)cases, failed_at);
    else if (skipped) snprintf(c->detail, sizeof c->detail, "%lld cases are not offered: %s", (long long)skipped, why);
}

static void read_device(sill__json *j, page *p) {
    char key[32];
    device *d = &p->devices[p->n_devices++];
    sill__json_enter(j, SILL__JSON_OBJECT);
    while (sill__json_next_member(j, key, sizeof key, NULL)) {
        if (!strcmp(key, "device")) text_of(j, d->name, sizeof d->name);
        else if (!strcmp(key, "detail")) text_of(j, d->detail, sizeof d->detail);
        else if (!strcmp(key, "passed")) sill__json_bool(j, &d->passed);
        else if (!strcmp(key, "stopped")) sill__json_bool(j, &d->stopped);
        else if (!strcmp(key, "shared")) sill__json_int(j, &d->shared);
        else if (!strcmp(key, "left_out")) sill__json_int(j, &d->left_out);
        else if (!strcmp(key, "seconds")) sill__json_double(j, &d->seconds);
        else if (!strcmp(key, "checks") && sill__json_enter(j, SILL__JSON_ARRAY))
            while (sill__json_next_element(j)) read_check(j, p, d);
    }
}

static void read_not_used(sill__json *j, page *p) {
    char key[32], name[32] = "", why[400] = "";
    sill__json_enter(j, SILL__JSON_OBJECT);
    while (sill__json_next_member(j, key, sizeof key, NULL)) {
        if (!strcmp(key, "device")) text_of(j, name, sizeof name);
        else if (!strcmp(key, "why")) text_of(j, why, sizeof why);
    }
    snprintf(p->not_used[p->n_not_used++], sizeof p->not_used[0], "%s: %s", name, why);
}

static void read_report(const char *json, page *p) {
    char key[32];
    sill__json j;
    sill__json_init(&j, json, strlen(json));
    sill__json_enter(&j, SILL__JSON_OBJECT);
    while (sill__json_next_member(&j, key, sizeof key, NULL)) {
        if (!strcmp(key, "os")) text_of(&j, p->os, sizeof p->os);
        else if (!strcmp(key, "passed")) sill__json_bool(&j, &p->passed);
        else if (!strcmp(key, "quick")) sill__json_bool(&j, &p->quick);
        else if (!strcmp(key, "seconds")) sill__json_double(&j, &p->seconds);
        else if (!strcmp(key, "devices") && sill__json_enter(&j, SILL__JSON_ARRAY))
            while (p->n_devices < MAX_DEVICES && sill__json_next_element(&j)) read_device(&j, p);
        else if (!strcmp(key, "not_used") && sill__json_enter(&j, SILL__JSON_ARRAY))
            while (p->n_not_used < MAX_DEVICES && sill__json_next_element(&j)) read_not_used(&j, p);
    }
}

/* ------------------------------------------------------------------ the page */

static void print_table(const page *p, FILE *to) {
    fprintf(to, "%-34s", "worst error / bound");
    for (int d = 0; d < p->n_devices; d++) fprintf(to, " %*s", (int)SILL_MAX(strlen(p->devices[d].name), (size_t)8), p->devices[d].name);
    fprintf(to, "\n");
    for (int i = 0; i < p->n_lines; i++) {
        fprintf(to, "%-34s", p->lines[i]);
        for (int d = 0; d < p->n_devices; d++) {
            const device *v = &p->devices[d];
            fprintf(to, " %*s", (int)SILL_MAX(strlen(v->name), (size_t)8), v->cells[i].text[0] ? v->cells[i].text : "-");
        }
        fprintf(to, "\n");
    }
}

static void print_details(const page *p, FILE *to) {
    for (int d = 0; d < p->n_devices; d++)
        for (int i = 0; i < p->n_lines; i++) {
            const cell *c = &p->devices[d].cells[i];
            if (c->detail[0]) fprintf(to, "%s, %s: %s\n", p->devices[d].name, p->lines[i], c->detail);
        }
    for (int i = 0; i < p->n_not_used; i++) fprintf(to, "not used: %s\n", p->not_used[i]);
}

static void print_page(const page *p, FILE *to) {
    fprintf(to, "sill %s (%s) on %s\n", sill_version(), SILL_BUILD_COMMIT, p->os);
    for (int d = 0; d < p->n_devices; d++)
        if (p->devices[d].detail[0]) fprintf(to, "%s: %s\n", p->devices[d].name, p->devices[d].detail);
    fprintf(to, "\n");
    print_table(p, to);
    fprintf(to, "\n");
    print_details(p, to);
    for (int d = 0; d < p->n_devices; d++) {
        const device *v = &p->devices[d];
        fprintf(to, "%-20s %s in %.1f s%s\n", v->name, v->passed ? "PASSED" : "FAILED", v->seconds,
                v->stopped ? "; stopped: too many errors of the device" : "");
    }
    for (int d = 0; d < p->n_devices; d++) {
        if (p->devices[d].left_out)
            fprintf(to, "%s: not taken by itself here, so without the %lld largest cases (--full has them)\n", p->devices[d].name,
                    (long long)p->devices[d].left_out);
        if (p->devices[d].shared)
            fprintf(to, "%s: without the %lld largest cases of code that it shares with a set above\n", p->devices[d].name,
                    (long long)p->devices[d].shared);
    }
    fprintf(to, "%s in %.1f s%s\n", p->passed ? "passed" : "FAILED", p->seconds, p->quick ? " (quick: operations only)" : "");
    for (int d = 0; d < p->n_devices && p->passed; d++)
        if (!strncmp(p->devices[d].name, "metal", 5))
            fprintf(to, "Nothing of Metal had run on Apple hardware when this was written: please send this page, `sill bench` and "
                        "`sill doctor --report`, also when all is well (docs/METAL.md).\n");
    if (!p->passed)
        fprintf(to, "Please report this page together with what `sill doctor --report` prints. `--device auto` leaves out a GPU that "
                    "failed; --device cpu is right where its column passed.\n");
}

static int show_progress(void *user, double share) {
    const bool *bar = user;
    if (*bar) fprintf(stderr, "\rchecking %3.0f %%", share * 100);
    if (*bar && share >= 1) fprintf(stderr, "\r              \r");
    return cli_stop;
}

static int write_out(const check_options *o, const char *json, const page *p) {
    bool to_stdout = !o->output || !strcmp(o->output, "-");
    FILE *to = to_stdout ? stdout : fopen(o->output, "w");
    if (!to) {
        fprintf(stderr, "sill: error: cannot write %s\n", o->output);
        return EXIT_FAILED;
    }
    if (o->json) fputs(json, to);
    else print_page(p, to);
    if (to_stdout) return cli_flush_stdout();
    bool ok = !ferror(to);
    if (fclose(to) == 0 && ok) return EXIT_OK;
    fprintf(stderr, "sill: error: cannot write %s\n", o->output);
    return EXIT_FAILED;
}

int cli_check(int argc, char **argv) {
    static check_options o;
    static const arg_option own[] = {
        {"device", 0, ARG_TEXT, offsetof(check_options, device), 0, 0, NULL, "NAME", "cpu (in every instruction set of this machine), metal; default: all that open"},
        {"model", 'm', ARG_TEXT, offsetof(check_options, model), 0, 0, NULL, "MODEL", "this model too, on a short text"},
        {"quick", 0, ARG_FLAG, offsetof(check_options, quick), 0, 0, NULL, NULL, "operations only, of which a first use of a GPU has its model's"},
        {"full", 0, ARG_FLAG, offsetof(check_options, full), 0, 0, NULL, NULL, "the largest shapes on the instruction sets that are not taken by themselves too"},
        {"threads", 0, ARG_INT, offsetof(check_options, threads), 1, 1024, NULL, "N", "threads (default: the physical cores)"},
        {"output", 'o', ARG_TEXT, offsetof(check_options, output), 0, 0, NULL, "FILE", "the report (default: standard output)"},
        {"overwrite", 0, ARG_FLAG, offsetof(check_options, overwrite), 0, 0, NULL, NULL, "replace FILE if it exists"},
        {"json", 0, ARG_FLAG, offsetof(check_options, json), 0, 0, NULL, NULL, "as JSON"},
    };
    const arg_command command = {
        "check", "", "Whether this machine computes right: every operation with every type over odd shapes, and small models, against "
        "the scalar reference; the same bits alone, in company and with one thread. Ends with status 1 when anything is wrong.",
        {{"check", own, SILL_ARRAY_LEN(own), &o}, cli_general_table()}, NULL, 0, 0};
    char **args, path[1024], *json = NULL;
    int n, status = args_parse(&command, argc, argv, &args, &n);
    bool bar;
    int32_t passed = 0;
    sill_error err = {0};
    sill_status s = SILL_OK;
    if (status >= 0) return status;
    if (o.device && !strcmp(o.device, "auto")) return args_usage("check", "--device auto is no device; name one, or leave it out for all");
    if (o.quick && o.full) return args_usage("check", "--quick and --full are opposites; give one");
    if (o.output && strcmp(o.output, "-") && !o.overwrite && access(o.output, F_OK) == 0)
        return args_usage("check", "%s exists; --overwrite replaces it", o.output);
    cli_model_options model = {.device = o.device && strcmp(o.device, "all") ? o.device : NULL};
    if ((status = cli_check_model("check", &model)) >= 0) return status;
    if (o.model && (s = cli_model_path(o.model, path, sizeof path, &err)) != SILL_OK) return cli_fail(&err);
    cli_show_log();
    bar = cli_is_terminal(stderr) && !cli_general.quiet;
    sill_check_options options = {.size = sizeof options, .device = o.device, .model = o.model ? path : NULL, .quick = o.quick, .full = o.full,
                                  .n_threads = o.threads, .progress = show_progress, .user = &bar};
    s = sill_check(&options, &json, &passed, &err);
    if (s != SILL_OK) return cli_fail(&err);
    page *p = sill__calloc(1, sizeof *p);
    if (p) read_report(json, p);
    status = p ? write_out(&o, json, p) : EXIT_FAILED;
    sill__free(p);
    sill_free(json);
    return status == EXIT_OK && !passed ? EXIT_FAILED : status;
}
