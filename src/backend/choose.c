/* choose.c - which device a model runs on: for "auto" the first that opens and computes right, and that is said. */
#include "backend/check/check.h"

#include <stdio.h>
#include <stdlib.h>

#define MAX_BACKENDS 8

bool sill__check_is_wanted(const sill__backend *b) {
    const char *wanted = getenv("SILL_FIRST_USE_CHECK");
    return b != sill__backend_cpu() && b != sill__backend_ref() && !(wanted && !strcmp(wanted, "0"));
}

static void say(bool announce, int level, const char *format, ...) SILL_PRINTF(3, 4);
static void say(bool announce, int level, const char *format, ...) {
    char line[700];
    va_list ap;
    if (!announce) return;
    va_start(ap, format);
    vsnprintf(line, sizeof line, format, ap);
    va_end(ap);
    sill__log(level, "%s", line);
}

/* What the check of its first use says of an open device; UNKNOWN: it could not be run, *err says why. */
static sill__check_verdict verdict_of(const sill__backend *b, sill__device *d, const sill__device_options *options,
                                      sill__check_record *record, sill_error *err) {
    return sill__check_first_use(b, d, options ? options->use : NULL, record, err) == SILL_OK ? record->verdict : SILL__CHECK_UNKNOWN;
}

sill_status sill__device_choose(const sill__backend *const *list, const sill__device_options *options, bool announce,
                                const sill__backend **ops, sill__device **out, sill_error *err) {
    *ops = NULL;
    *out = NULL;
    for (; list[0] && list[1]; list++) {
        sill_error why = {.code = SILL_OK};
        sill__check_record record = {.verdict = SILL__CHECK_UNKNOWN};
        sill__device *d = NULL;
        if (list[0]->open(options, &d, &why) != SILL_OK) {
            say(announce, 2, "device %s cannot be used: %s", list[0]->name, why.msg);
            continue;
        }
        sill__check_verdict verdict = sill__check_is_wanted(list[0]) ? verdict_of(list[0], d, options, &record, &why) : SILL__CHECK_PASSED;
        if (verdict == SILL__CHECK_PASSED) {
            *ops = list[0];
            *out = d;
            return SILL_OK;
        }
        if (verdict == SILL__CHECK_FAILED)
            say(announce, 0, "device %s computes wrong and is not used; the CPU is, which is slower (%s). Please report what "
                "`sill check --device %s` and `sill doctor --report` print", list[0]->name, record.what, list[0]->name);
        else
            say(announce, 1, "device %s could not be checked and is not used, the CPU is: %s", list[0]->name, why.msg);
        list[0]->close(d);
    }
    if (!list[0]) return sill__fail(err, SILL_EUNSUPPORTED, "there is no device");
    *ops = list[0];
    return list[0]->open(options, out, err);
}

static bool is_auto(const char *name) { return !name || !*name || !strcmp(name, "auto"); }

/* What "auto" tries; where BEHIND is among them, those behind it. */
static void list_auto(const sill__backend *behind, const sill__backend *list[MAX_BACKENDS + 1]) {
    const sill__backend *b;
    int n = 0;
    for (int i = 0; n < MAX_BACKENDS && (b = sill__backend_at(i)) && b != sill__backend_ref(); i++) {
        list[n++] = b;
        if (b == behind) n = 0;
    }
    list[n] = NULL;
}

bool sill__device_may_pass(const char *name, const sill__backend *ops, sill_status s) {
    const sill__backend *list[MAX_BACKENDS + 1];
    list_auto(ops, list);
    return is_auto(name) && ops && list[0] && list[0] != ops &&
           (s == SILL_EUNSUPPORTED || s == SILL_ENOFIT || s == SILL_ENOMEM || s == SILL_EDEVICE);
}

sill_status sill__device_open(const char *name, const sill__device_options *options, bool announce, const sill__backend *behind,
                              const sill__backend **ops, sill__device **out, sill_error *err) {
    const sill__backend *list[MAX_BACKENDS + 1];
    sill__check_record record = {.verdict = SILL__CHECK_UNKNOWN};
    sill_error why = {.code = SILL_OK};
    *out = NULL;
    if (is_auto(name)) {
        list_auto(behind, list);
        return sill__device_choose(list, options, announce, ops, out, err);
    }
    sill_status s = sill__backend_find(name, ops, err);
    if (s == SILL_OK) s = (*ops)->open(options, out, err);
    if (s != SILL_OK || !announce || !sill__check_is_wanted(*ops)) return s;
    sill__check_verdict verdict = verdict_of(*ops, *out, options, &record, &why);
    if (verdict == SILL__CHECK_FAILED)
        say(true, 0, "device %s computes wrong: do not trust these numbers (%s). Please report what `sill check --device %s` and "
            "`sill doctor --report` print; --device cpu is right", (*ops)->name, record.what, (*ops)->name);
    if (verdict == SILL__CHECK_UNKNOWN) say(true, 1, "device %s could not be checked: %s", (*ops)->name, why.msg);
    return s;
}
