/*
 * check.h - whether a device computes what it should: every operation with every weight type and odd shapes against the
 * scalar reference, and against itself for the same bits. Written against backend.h alone, so that it holds for any
 * backend; nothing here is needed to run a model. Whole models are checked in task/check.c.
 */
#ifndef SILL_CHECK_H
#define SILL_CHECK_H

#include "backend/backend.h"

typedef enum sill__check_level {
    SILL__CHECK_QUICK, /* the first-use check: each operation and type (of a model, see use) once or twice, with few pipelines to be made */
    SILL__CHECK_FULL
} sill__check_level;

/* One line of the report: cases of one operation and type. */
typedef struct sill__check_line {
    char name[40];
    int32_t n_cases, n_failed, n_skipped; /* skipped: the device says that it does not offer them */
    double worst;          /* the greatest error over its bound; above 1: failed; infinite: no number, or an error */
    double worst_error, worst_bound;
    bool bits;             /* a line of same bits: there is no error, only n_failed */
    char worst_at[96];     /* the case of the greatest error */
    char failed_at[200];   /* the first case that failed, and how */
    char skipped_why[200];
} sill__check_line;

#define SILL__CHECK_MAX_LINES 96

/* A device that is checked, and what came out. */
typedef struct sill__check_target {
    const sill__backend *ops;
    sill__device *device;
    char name[64];         /* as describe says */
    const char *isa;       /* that it was opened with, where its backend has several; else NULL */
    bool brief;            /* without large cases, if a target before it is of the same backend */
    int32_t n_shared;      /* large cases left out, since a target before it has run the code that it shares with it */
    int32_t n_left_out;    /* large cases left out because it is brief */
    int n_lines;
    sill__check_line lines[SILL__CHECK_MAX_LINES];
    bool stopped;          /* a failing device is not asked everything: its errors came too often */
    const sill__use *use;  /* QUICK: what this model takes, and no more; of the first target, for all. NULL: everything */
    double seconds;        /* that this device took */
} sill__check_target;

void sill__check_target_init(sill__check_target *t, const sill__backend *ops, sill__device *device, const char *isa);
/* The line of that name, made where there is none; NULL when there are too many. */
sill__check_line *sill__check_line_of(sill__check_target *t, const char *name);
void sill__check_note(sill__check_line *line, const char *where, double error, double bound);
void sill__check_fail(sill__check_line *line, const char *format, ...) SILL_PRINTF(2, 3);
/* Whether all cases passed, and at least one ran. */
bool sill__check_passed(const sill__check_target *t);
/* The first failed line; NULL: none. */
const sill__check_line *sill__check_first_failed(const sill__check_target *t);

/* Called between cases with the share that is done; non-zero cancels. */
typedef int (*sill__check_progress)(void *user, double share);

/* Checks the operations of all targets. An error is returned when the check itself could not run (memory, cancelled);
 * what a device does wrong, its errors included, is in its lines. */
sill_status sill__check_ops(sill__check_target *targets, int n_targets, sill__check_level level,
                            sill__check_progress progress, void *user, sill_error *err);
/* The same, one kind of cases alone: product, fused, embedding, norm, attention, head, layers. */
sill_status sill__check_kind(const char *kind, sill__check_target *targets, int n_targets, sill__check_level level,
                             sill_error *err);

/* How far a (n) is from b: the greatest difference over the root mean square of b; not a number: infinite. */
double sill__check_distance(const float *a, const float *b, size_t n);

/* ------------------------------------------------------------ first use */

typedef enum sill__check_verdict { SILL__CHECK_UNKNOWN, SILL__CHECK_PASSED, SILL__CHECK_FAILED } sill__check_verdict;

/* What is known of a device, kept in checked/ of the cache directory. */
#define SILL__CHECK_USES 32
typedef struct sill__check_record {
    sill__check_verdict verdict;
    bool full;             /* by `sill check`, not by the first-use check */
    char when[24];         /* UTC, "2026-11-22T14:10:00Z" */
    char what[200];        /* failed: the line and its first failed case */
    int32_t n_uses;        /* passed: the models that it holds for, by their hashes; none: for any */
    uint64_t uses[SILL__CHECK_USES];
} sill__check_record;

/* What the record of a device goes by: sill and its kernels, the device, its driver, the operating system. */
void sill__check_key(const sill__backend *ops, const sill__device *device, char *out, size_t cap);
/* The record of an earlier check, if there is one for exactly this device and these versions. */
bool sill__check_recall(const sill__backend *ops, const sill__device *device, sill__check_record *record);
void sill__check_keep(const sill__backend *ops, const sill__device *device, const sill__check_record *record);
/* Recalls, or runs the quick check with what USE takes (NULL: everything) and keeps its result beside those of other uses.
 * A device that failed one is not asked again. A status other than OK: it could not run, nothing is kept. */
sill_status sill__check_first_use(const sill__backend *ops, sill__device *device, const sill__use *use, sill__check_record *record,
                                  sill_error *err);
/* Whether "auto" takes it only after that check. Nothing is checked before the CPU is used: it is what others fall back to, and what the
 * tests of every change run on. (choose.c) */
bool sill__check_is_wanted(const sill__backend *ops);
/* What a check found, as a record of now. */
void sill__check_record_make(sill__check_record *record, const sill__check_target *target, bool full);
/* "passed 2026-11-22T14:10:00Z (first use)", "failed ...", "not checked". */
void sill__check_record_text(const sill__check_record *record, char *out, size_t cap);

#endif
