/* doctor.c - `sill doctor`: what this machine offers, what is not used and why, and what is kept where. */
#include "doctor.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "backend/check/check.h"

typedef struct doctor_options { bool json, report; } doctor_options;

void doctor_add(doctor *d, const char *section, const char *name, const char *format, ...) {
    va_list ap;
    if (d->n == DOCTOR_MAX_FACTS) return;
    doctor_fact *f = &d->facts[d->n++];
    f->section = section;
    snprintf(f->name, sizeof f->name, "%s", name);
    va_start(ap, format);
    vsnprintf(f->value, sizeof f->value, format, ap);
    va_end(ap);
    sill__plain(f->name);
    sill__plain(f->value);
}

void doctor_wrong(doctor *d) {
    if (d->n) d->facts[d->n - 1].wrong = true;
}

void doctor_path(const doctor *d, const char *path, char *out, size_t cap) {
    const char *home = getenv("HOME"), *last = strrchr(path, '/');
    size_t n = home ? strlen(home) : 0;
    while (n && home[n - 1] == '/') n--;
    if (n && !strncmp(path, home, n) && (path[n] == '/' || !path[n])) snprintf(out, cap, "~%s", path + n);
    else if (d->report && last) snprintf(out, cap, "(elsewhere)%s", last);
    else snprintf(out, cap, "%s", path);
}

/* A message may name files: in a report no directories. */
static void without_paths(const doctor *d, const char *message, char *out, size_t cap) {
    size_t at = 0;
    while (*message && at + 1 < cap) {
        bool path = d->report && *message == '/' && (at == 0 || strchr(" (\"'", out[at - 1]));
        size_t n = path ? strcspn(message, " )\"';,") : 1;
        if (path && n > 1) {
            char word[1024], shown[600];
            snprintf(word, sizeof word, "%.*s", (int)n, message);
            doctor_path(d, word, shown, sizeof shown);
            at += (size_t)snprintf(out + at, cap - at, "%s", shown);
        } else {
            out[at++] = *message;
        }
        message += n;
    }
    out[SILL_MIN(at, cap - 1)] = 0;
}

/* ---- devices */

/* What "auto" makes of it. Nothing is checked here: that compiles kernels, for a model all of which is known. */
typedef enum outlook { NOT_TAKEN, TAKEN, TAKEN_ONCE_CHECKED } outlook;

static outlook outlook_of(const sill__backend *b, sill__check_verdict verdict) {
    if (b == sill__backend_ref()) return NOT_TAKEN;
    if (!sill__check_is_wanted(b)) return TAKEN;
    return verdict == SILL__CHECK_FAILED ? NOT_TAKEN : verdict == SILL__CHECK_UNKNOWN ? TAKEN_ONCE_CHECKED : TAKEN;
}

static outlook tell_device(doctor *d, const sill__backend *b) {
    char name[96], detail[300] = "", state[80], why[520];
    sill__device *device = NULL;
    sill_error err = {0};
    sill__check_record record;
    if (b->open(NULL, &device, &err) != SILL_OK) {
        without_paths(d, err.msg, why, sizeof why);
        doctor_add(d, "devices", b->name, "not used: %s", why);
        return NOT_TAKEN;
    }
    b->describe(device, name, sizeof name);
    if (b->identify) b->identify(device, detail, sizeof detail);
    (void)sill__check_recall(b, device, &record);
    sill__check_record_text(&record, state, sizeof state);
    uint64_t room = b->room ? b->room(device) : UINT64_MAX;
    if (b == sill__backend_ref()) doctor_add(d, "devices", b->name, "the slow scalar reference, one thread");
    else if (room < UINT64_MAX)
        doctor_add(d, "devices", b->name, "%s%s%s; room for %.0f MiB; check: %s", name, detail[0] ? "; " : "", detail, (double)room / 1048576.0, state);
    else
        doctor_add(d, "devices", b->name, "%s%s%s, %d threads; check: %s", name, detail[0] ? "; " : "", detail, (int)b->n_threads(device), state);
    b->close(device);
    if (!strcmp(b->name, "metal") && !record.full)
        doctor_add(d, "devices", "note", "nothing of Metal has run on Apple hardware yet: please run `sill check` and `sill bench` and "
                   "send them with `sill doctor --report` (docs/METAL.md)");
    if (record.verdict == SILL__CHECK_FAILED) {
        doctor_wrong(d);
        doctor_add(d, "devices", "wrong", "%s: %s. --device auto does not take it; `sill check --device %s` checks it again", b->name, record.what, b->name);
        doctor_wrong(d);
    }
    return outlook_of(b, record.verdict);
}

/* The device that "auto" takes, NULL: none. */
static const sill__backend *tell_devices(doctor *d) {
    static const char *const known[] = {"metal", "cuda"};
    const sill__backend *b, *first = NULL;
    outlook how = NOT_TAKEN;
    for (size_t i = 0; i < SILL_ARRAY_LEN(known); i++)
        if (sill__backend_find(known[i], &b, NULL) != SILL_OK) doctor_add(d, "devices", known[i], "not in this build");
    for (int i = 0; (b = sill__backend_at(i)); i++) {
        const outlook o = tell_device(d, b);
        if (first || o == NOT_TAKEN) continue;
        first = b;
        how = o;
    }
    if (!first) {
        doctor_add(d, "devices", "auto", "takes none");
        doctor_wrong(d);
    } else if (how == TAKEN) {
        doctor_add(d, "devices", "auto", "takes %s", first->name);
    } else {
        doctor_add(d, "devices", "auto", "takes %s if that passes the check before its first use, which comes with the first model (of what that takes); "
                   "`sill check --device %s` checks all of it", first->name, first->name);
    }
    return first;
}

/* ---- the default model */

static void tell_plan(doctor *d, const sill_plan_info *plan) {
    doctor_add(d, "default model", "needs", "%.0f MiB on %s: weights %.0f, KV cache %.0f, scratch %.0f; %s", (double)plan->total_bytes / 1048576.0,
               plan->device, (double)plan->weight_bytes / 1048576.0, (double)plan->kv_bytes / 1048576.0, (double)plan->scratch_bytes / 1048576.0,
               plan->fits ? "fits" : "does not fit");
}

/* On the device that "auto" takes, by its name: that checks nothing. Where it does not take the model, on the CPU. */
static void tell_model(doctor *d, const sill__backend *device) {
    char path[1024], shown[600], message[520];
    sill_error err = {0};
    sill_plan_info plan = {0};
    if (cli_model_path(NULL, path, sizeof path, &err) != SILL_OK) {
        without_paths(d, err.msg, message, sizeof message);
        doctor_add(d, "default model", "file", "%s", message);
        doctor_wrong(d);
        return;
    }
    doctor_path(d, path, shown, sizeof shown);
    doctor_add(d, "default model", "file", "%s", shown);
    sill_model_options mo = {.size = sizeof mo, .device = device ? device->name : "cpu"};
    sill_status st = sill_plan(path, &mo, NULL, &plan, &err);
    if ((st != SILL_OK || !plan.fits) && device && device != sill__backend_cpu()) {
        without_paths(d, st == SILL_OK ? plan.advice : err.msg, message, sizeof message);
        doctor_add(d, "default model", "passed over", "%s: %s%s", device->name, st == SILL_OK ? "it does not fit; " : "", message);
        mo.device = "cpu";
        st = sill_plan(path, &mo, NULL, &plan, &err);
    }
    if (st == SILL_OK) {
        tell_plan(d, &plan);
    } else {
        without_paths(d, err.msg, message, sizeof message);
        doctor_add(d, "default model", "needs", "cannot be planned: %s", message);
    }
    if (st != SILL_OK || !plan.fits) doctor_wrong(d);
}

/* ---- output */

static void print_page(const doctor *d) {
    const char *section = "";
    if (d->report) printf("```\n");
    for (int i = 0; i < d->n; i++) {
        const doctor_fact *f = &d->facts[i];
        if (strcmp(section, f->section)) printf("%s%s\n", i ? "\n" : "", f->section);
        section = f->section;
        printf("%s %-18s %s\n", f->wrong ? "!" : " ", f->name, f->value);
    }
    if (d->report) printf("```\n");
}

static void put_string(sill__str *s, const char *text) { (void)sill__put_json_string(s, text, strlen(text)); }

static int print_json(const doctor *d) {
    sill__str s;
    const char *section = "";
    sill__str_init(&s, 1 << 20);
    for (int i = 0; i < d->n; i++) {
        const doctor_fact *f = &d->facts[i];
        bool fresh = strcmp(section, f->section) != 0;
        if (fresh) {
            sill__str_puts(&s, i ? "},\n" : "{");
            put_string(&s, f->section);
            sill__str_puts(&s, ":{");
        }
        section = f->section;
        sill__str_puts(&s, fresh ? "" : ",");
        put_string(&s, f->name);
        sill__str_puts(&s, ":");
        put_string(&s, f->value);
    }
    sill__str_puts(&s, "}}\n");
    bool ok = !s.failed && fwrite(s.p, 1, s.n, stdout) == s.n;
    sill__str_free(&s);
    return ok ? EXIT_OK : EXIT_FAILED;
}

int cli_doctor(int argc, char **argv) {
    static doctor_options o;
    static doctor d;
    static const arg_option own[] = {
        {"report", 0, ARG_FLAG, offsetof(doctor_options, report), 0, 0, NULL, NULL, "to be pasted into a report: no names of your files, no directories"},
        {"json", 0, ARG_FLAG, offsetof(doctor_options, json), 0, 0, NULL, NULL, "as JSON"},
    };
    const arg_command command = {
        "doctor", "", "Devices and why one is not used, memory, processor, caches, models, versions. A line with ! asks for something to be done.",
        {{"doctor", own, SILL_ARRAY_LEN(own), &o}, cli_general_table()}, NULL, 0, 0};
    char **args;
    int n, status = args_parse(&command, argc, argv, &args, &n);
    if (status >= 0) return status;
    cli_show_log();
    d.report = o.report;
    doctor_versions(&d);
    const sill__backend *device = tell_devices(&d);
    doctor_processor(&d);
    doctor_memory(&d);
    tell_model(&d, device);
    doctor_caches(&d);
    doctor_environment(&d);
    if (o.json && print_json(&d) != EXIT_OK) return EXIT_FAILED;
    if (!o.json) print_page(&d);
    return cli_flush_stdout();
}
