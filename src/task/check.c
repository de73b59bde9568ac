/* check.c - sill_check: the devices of this machine, what was found out about each, as JSON. */
#include "task/check.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define MAX_TARGETS 12
#define JSON_MAX ((size_t)4 << 20)
#define OPS_SHARE 0.8 /* of the time */

typedef struct opened { sill__device_options options; char isa[32], refused[400]; const char *name; } opened;

typedef struct check_run {
    sill_check_options o;
    sill__check_target *targets; /* (MAX_TARGETS) */
    opened how[MAX_TARGETS];
    int n;
    opened not_used[MAX_TARGETS];
    int n_not_used;
    double seconds;
} check_run;

/* --------------------------------------------------------------- devices */

static sill_status add(check_run *r, const sill__backend *b, const char *isa, sill_error *err) {
    if (r->n == MAX_TARGETS) return SILL_OK;
    opened *how = &r->how[r->n];
    sill__device *d;
    snprintf(how->isa, sizeof how->isa, "%s", isa ? isa : "");
    how->options = (sill__device_options){.n_threads = r->o.n_threads, .isa = isa ? how->isa : NULL};
    sill_status s = b->open(&how->options, &d, err);
    if (s != SILL_OK) return s;
    sill__check_target_init(&r->targets[r->n], b, d, how->options.isa);
    r->targets[r->n++].brief = !r->o.full;
    return SILL_OK;
}

/* In every form that this machine runs, unless one is forced. */
static sill_status add_forms(check_run *r, const sill__backend *b, sill_error *err) {
    const char *forced = getenv("SILL_CPU_ISA"), *isa;
    sill_status s = SILL_OK;
    if (!b->isa_at || (forced && *forced)) return add(r, b, NULL, err);
    for (int i = 0; (isa = b->isa_at(i)) && s == SILL_OK; i++) s = add(r, b, isa, err);
    return s;
}

static sill_status open_all(check_run *r, sill_error *err) {
    const sill__backend *b;
    const char *name = r->o.device && *r->o.device && strcmp(r->o.device, "all") ? r->o.device : NULL;
    if (name && !strcmp(name, "auto")) return sill__fail(err, SILL_EINVAL, "device auto is no device: name one, or all");
    if (name) {
        sill_status s = sill__backend_find(name, &b, err);
        if (s != SILL_OK) return s;
        return add_forms(r, b, err);
    }
    for (int i = 0; (b = sill__backend_at(i)); i++) {
        sill_error why = {.code = SILL_OK};
        if (b == sill__backend_ref()) continue;
        sill_status s = add_forms(r, b, &why);
        if (s != SILL_OK && b == sill__backend_cpu()) {
            if (err) *err = why;
            return s;
        }
        if (s != SILL_OK) {
            opened *no = &r->not_used[r->n_not_used++];
            no->name = b->name;
            snprintf(no->refused, sizeof no->refused, "%.390s", why.msg);
        }
    }
    return SILL_OK;
}

/* ---------------------------------------------------------------- report */

static void put_text(sill__str *s, const char *key, const char *text) {
    sill__str_putf(s, "\"%s\":", key);
    (void)sill__put_json_string(s, text, strlen(text));
}

static void put_number(sill__str *s, const char *key, double v) {
    if (isfinite(v)) sill__str_putf(s, ",\"%s\":%.4g", key, v);
    else sill__str_putf(s, ",\"%s\":null", key);
}

static void put_line(sill__str *s, const sill__check_line *l) {
    sill__str_puts(s, "{");
    put_text(s, "name", l->name);
    sill__str_putf(s, ",\"passed\":%s,\"cases\":%d,\"failed\":%d,\"not_offered\":%d", l->n_failed ? "false" : "true", l->n_cases,
                   l->n_failed, l->n_skipped);
    if (!l->bits && l->n_cases) {
        put_number(s, "share", l->worst);
        put_number(s, "error", l->worst_error);
        put_number(s, "bound", l->worst_bound);
        sill__str_puts(s, ",");
        put_text(s, "at", l->worst_at);
    }
    if (l->n_failed) sill__str_puts(s, ","), put_text(s, "first_failed", l->failed_at);
    if (l->n_skipped) sill__str_puts(s, ","), put_text(s, "why_not_offered", l->skipped_why);
    sill__str_puts(s, "}");
}

static void put_target(sill__str *s, const sill__check_target *t) {
    char detail[300] = "";
    if (t->ops->identify) t->ops->identify(t->device, detail, sizeof detail);
    sill__str_puts(s, "{");
    put_text(s, "device", t->name);
    sill__str_puts(s, ",");
    put_text(s, "detail", detail);
    sill__str_putf(s, ",\"threads\":%d,\"passed\":%s,\"stopped\":%s,\"shared\":%d,\"left_out\":%d,\"seconds\":%.2f,\"checks\":[\n", t->ops->n_threads(t->device),
                   sill__check_passed(t) ? "true" : "false", t->stopped ? "true" : "false", (int)t->n_shared, (int)t->n_left_out, t->seconds);
    for (int i = 0; i < t->n_lines; i++) {
        sill__str_puts(s, i ? ",\n  " : "  ");
        put_line(s, &t->lines[i]);
    }
    sill__str_puts(s, "]}");
}

static void put_report(sill__str *s, const check_run *r, bool passed) {
    char os[160];
    sill__os_version(os, sizeof os);
    sill__str_puts(s, "{");
    put_text(s, "sill", sill_version());
    sill__str_puts(s, ",");
    put_text(s, "os", os);
    sill__str_putf(s, ",\"passed\":%s,\"quick\":%s,\"seconds\":%.2f,\"devices\":[\n", passed ? "true" : "false",
                   r->o.quick ? "true" : "false", r->seconds);
    for (int i = 0; i < r->n; i++) {
        if (i) sill__str_puts(s, ",\n");
        put_target(s, &r->targets[i]);
    }
    sill__str_puts(s, "],\"not_used\":[");
    for (int i = 0; i < r->n_not_used; i++) {
        sill__str_puts(s, i ? ",{" : "{");
        put_text(s, "device", r->not_used[i].name);
        sill__str_puts(s, ",");
        put_text(s, "why", r->not_used[i].refused);
        sill__str_puts(s, "}");
    }
    sill__str_puts(s, "]}\n");
}

/* ------------------------------------------------------------------- run */

static int ops_progress(void *user, double share) {
    const check_run *r = user;
    return r->o.progress ? r->o.progress(r->o.user, share * OPS_SHARE) : 0;
}

static int models_progress(void *user, double share) {
    const check_run *r = user;
    return r->o.progress ? r->o.progress(r->o.user, OPS_SHARE + (1 - OPS_SHARE) * share) : 0;
}

static sill_status check_all(check_run *r, sill_error *err) {
    sill__check_level level = r->o.quick ? SILL__CHECK_QUICK : SILL__CHECK_FULL;
    const sill__device_options *devices[MAX_TARGETS];
    for (int i = 0; i < r->n; i++) devices[i] = &r->how[i].options;
    sill_status s = sill__check_ops(r->targets, r->n, level, ops_progress, r, err);
    if (s == SILL_OK && !r->o.quick) s = sill__check_models(r->targets, devices, r->n, level, models_progress, r, err);
    for (int i = 0; i < r->n && s == SILL_OK && r->o.model; i++) {
        if (!r->targets[i].stopped) s = sill__check_model_file(&r->targets[i], devices[i], r->o.model, err);
        if (s == SILL_OK && models_progress(r, (double)i / r->n)) s = sill__fail(err, SILL_ECANCELLED, "the check was cancelled");
    }
    if (s == SILL_OK && models_progress(r, 1)) s = sill__fail(err, SILL_ECANCELLED, "the check was cancelled");
    for (int i = 0; i < r->n && s == SILL_OK; i++) {
        sill__check_record record;
        sill__check_record_make(&record, &r->targets[i], !r->o.quick);
        sill__check_keep(r->targets[i].ops, r->targets[i].device, &record);
    }
    return s;
}

sill_status sill_check(const sill_check_options *options, char **json, int32_t *passed, sill_error *err) {
    sill__str report;
    bool right = true;
    double from = sill__now();
    if (!json || !passed) return sill__fail(err, SILL_EINVAL, "sill_check needs a place for the report and for the verdict");
    *json = NULL;
    *passed = 0;
    check_run *r = sill__calloc(1, sizeof *r);
    if (!r) return sill__fail(err, SILL_ENOMEM, "no memory for a check");
    sill_status s = sill__options_read(options, &r->o, sizeof r->o, "sill_check_options", err);
    if (s == SILL_OK && r->o.n_threads < 0) s = sill__fail(err, SILL_EINVAL, "%d threads; 0 means all cores", r->o.n_threads);
    if (s == SILL_OK && !(r->targets = sill__calloc(MAX_TARGETS, sizeof *r->targets)))
        s = sill__fail(err, SILL_ENOMEM, "no memory for a check");
    if (s == SILL_OK) s = open_all(r, err);
    if (s == SILL_OK) s = check_all(r, err);
    if (s == SILL_OK) {
        for (int i = 0; i < r->n; i++) right = right && sill__check_passed(&r->targets[i]);
        r->seconds = sill__now() - from;
        sill__str_init(&report, JSON_MAX);
        put_report(&report, r, right && r->n > 0);
        if (report.failed) {
            sill__str_free(&report);
            s = sill__fail(err, SILL_ENOMEM, "no memory for the report");
        } else {
            *json = report.p;
            *passed = right && r->n > 0;
        }
    }
    for (int i = 0; i < r->n; i++) r->targets[i].ops->close(r->targets[i].device);
    sill__free(r->targets);
    sill__free(r);
    return s;
}
