/*
 * first_use.c - what was found out about a device, kept in the cache directory: one small file a device, named by a hash of
 * everything that it holds for. Whatever is wrong with it means checking again.
 */
#include "backend/check/check.h"
#include "check_build.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define FILE_BYTES 2048
#define SUFFIX ".check"
#define KEEP_BYTES (64 * FILE_BYTES)
#define MAX_KEY 700
#define HEADER "sill check 2\n"

void sill__check_key(const sill__backend *ops, const sill__device *device, char *out, size_t cap) {
    char name[96] = "", detail[300] = "", os[160];
    ops->describe(device, name, sizeof name);
    if (ops->identify) ops->identify(device, detail, sizeof detail);
    sill__os_version(os, sizeof os);
    snprintf(out, cap, "sill %s (%s); %s; %s; %s", sill_version(), SILL_CHECK_BUILD, name, detail[0] ? detail : "-", os);
    sill__plain(out);
}

static void file_name(const char *key, char out[64]) {
    sill__sha256 hash;
    uint8_t digest[32];
    char hex[65];
    sill__sha256_init(&hash);
    sill__sha256_update(&hash, key, strlen(key));
    sill__sha256_final(&hash, digest);
    sill__sha256_hex(digest, hex);
    snprintf(out, 64, "%.32s" SUFFIX, hex);
}

/* The next line of TEXT, cut off in place. */
static char *take_line(char **text) {
    char *line = *text, *end = line ? strchr(line, '\n') : NULL;
    if (!end) return NULL;
    *end = 0;
    *text = end + 1;
    return line;
}

static bool parse(char *text, const char *key, sill__check_record *r) {
    if (strncmp(text, HEADER, sizeof HEADER - 1)) return false;
    text += sizeof HEADER - 1;
    char *verdict = take_line(&text), *level = take_line(&text), *when = take_line(&text), *what = take_line(&text);
    char *of = take_line(&text), *uses = take_line(&text);
    memset(r, 0, sizeof *r);
    if (!uses || strcmp(of, key) || (strcmp(verdict, "passed") && strcmp(verdict, "failed"))) return false;
    r->verdict = !strcmp(verdict, "passed") ? SILL__CHECK_PASSED : SILL__CHECK_FAILED;
    r->full = !strcmp(level, "full");
    snprintf(r->when, sizeof r->when, "%s", when);
    snprintf(r->what, sizeof r->what, "%s", what);
    for (; *uses && r->n_uses < SILL__CHECK_USES; uses += *uses == ' ') r->uses[r->n_uses++] = strtoull(uses, &uses, 16);
    return *uses == 0;
}

bool sill__check_recall(const sill__backend *ops, const sill__device *device, sill__check_record *record) {
    char key[MAX_KEY], name[64], text[FILE_BYTES + 1];
    memset(record, 0, sizeof *record);
    sill__check_key(ops, device, key, sizeof key);
    file_name(key, name);
    int dir = sill__cache_dir("checked", false), fd = dir >= 0 ? sill__cache_open(dir, name, FILE_BYTES) : -1;
    const bool whole = fd >= 0 && sill__pread_all(fd, text, FILE_BYTES, 0) == 0;
    if (fd >= 0) close(fd);
    if (dir >= 0) close(dir);
    if (!whole) return false;
    text[FILE_BYTES] = 0;
    if (parse(text, key, record)) return true;
    memset(record, 0, sizeof *record);
    return false;
}

void sill__check_keep(const sill__backend *ops, const sill__device *device, const sill__check_record *r) {
    char key[MAX_KEY], name[64], temp[128], text[FILE_BYTES], uses[SILL__CHECK_USES * 17 + 1] = "";
    if (r->verdict == SILL__CHECK_UNKNOWN) return;
    sill__check_key(ops, device, key, sizeof key);
    file_name(key, name);
    memset(text, '\n', sizeof text);
    for (int32_t i = 0; i < r->n_uses; i++)
        snprintf(uses + strlen(uses), sizeof uses - strlen(uses), "%s%llx", i ? " " : "", (unsigned long long)r->uses[i]);
    int n = snprintf(text, sizeof text, HEADER "%s\n%s\n%s\n%s\n%s\n%s\n", r->verdict == SILL__CHECK_PASSED ? "passed" : "failed",
                     r->full ? "full" : "first use", r->when, r->what, key, uses);
    if (n < 0 || (size_t)n >= sizeof text) return;
    text[n] = '\n';
    int dir = sill__cache_dir("checked", true);
    if (dir < 0) return;
    int fd = sill__cache_begin(dir, name, FILE_BYTES, temp, sizeof temp);
    if (fd >= 0) {
        bool whole = sill__write_all(fd, text, FILE_BYTES, NULL) == 0;
        if (sill__cache_end(dir, fd, temp, name, whole)) sill__cache_trim(dir, SUFFIX, name, KEEP_BYTES);
    }
    close(dir);
}

void sill__check_record_make(sill__check_record *r, const sill__check_target *t, bool full) {
    const sill__check_line *failed = sill__check_first_failed(t);
    time_t now = (time_t)(sill__clock_ns() / 1000000000u);
    struct tm utc;
    memset(r, 0, sizeof *r);
    r->verdict = sill__check_passed(t) ? SILL__CHECK_PASSED : SILL__CHECK_FAILED;
    r->full = full;
    if (gmtime_r(&now, &utc)) strftime(r->when, sizeof r->when, "%Y-%m-%dT%H:%M:%SZ", &utc);
    if (failed) snprintf(r->what, sizeof r->what, "%s: %.150s", failed->name, failed->failed_at);
    sill__plain(r->what);
}

/* Of all that its check goes by. */
static uint64_t hash_of(const sill__use *use) {
    char text[200];
    int n = 0;
    for (int i = 0; i <= SILL__COMPUTE_INT8; i++) n += snprintf(text + n, sizeof text - (size_t)n, "%x ", use->types[i]);
    n += snprintf(text + n, sizeof text - (size_t)n, "%x %d %d %d %d %d %d %d %d %d %d %d", use->embed_types, (int)use->type, (int)use->as,
                  (int)use->compute, (int)use->kv, (int)use->norm, (int)use->act, (int)use->rope, (int)use->rope_dims, (int)use->group,
                  (int)SILL_MIN(use->n_kv_heads, 2), (int)use->head_dim);
    return sill__hash64(text, (size_t)n);
}

static bool holds(const sill__check_record *r, uint64_t use) {
    bool found = r->n_uses == 0 || use == 0 || r->verdict != SILL__CHECK_PASSED;
    for (int32_t i = 0; i < r->n_uses; i++) found = found || r->uses[i] == use;
    return found;
}

sill_status sill__check_first_use(const sill__backend *ops, sill__device *device, const sill__use *use, sill__check_record *record,
                                  sill_error *err) {
    const uint64_t hash = use ? hash_of(use) : 0;
    const bool known = sill__check_recall(ops, device, record);
    if (known && holds(record, hash)) return SILL_OK;
    const sill__check_record earlier = *record;
    sill__check_target *t = sill__calloc(1, sizeof *t);
    if (!t) return sill__fail(err, SILL_ENOMEM, "no memory for the check of a device");
    sill__check_target_init(t, ops, device, NULL);
    t->use = use;
    sill__log(2, "device %s is checked before its first use", t->name);
    sill_status s = sill__check_ops(t, 1, SILL__CHECK_QUICK, NULL, NULL, err);
    if (s == SILL_OK) {
        sill__check_record_make(record, t, false);
        if (use && record->verdict == SILL__CHECK_PASSED) { /* the newest first; the oldest are forgotten */
            record->uses[record->n_uses++] = hash;
            for (int32_t i = 0; known && i < earlier.n_uses && record->n_uses < SILL__CHECK_USES; i++)
                record->uses[record->n_uses++] = earlier.uses[i];
        }
        sill__check_keep(ops, device, record);
    }
    sill__free(t);
    return s;
}

void sill__check_record_text(const sill__check_record *r, char *out, size_t cap) {
    if (r->verdict == SILL__CHECK_UNKNOWN) snprintf(out, cap, "not checked");
    else snprintf(out, cap, "%s %s (%s)", r->verdict == SILL__CHECK_PASSED ? "passed" : "failed", r->when, r->full ? "sill check" : "first use");
}
