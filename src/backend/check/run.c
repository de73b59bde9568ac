/*
 * run.c - all cases, one after the other: a thread of its own makes the inputs and the reference's answer of the next case
 * while the devices work on this one.
 */
#include "backend/check/internal.h"

#include "base/pool.h"

#include <math.h>
#include <stdio.h>

#define MAX_ERRORS 8 /* of a device, not wrong numbers: then it is left alone */

static const check_kind *const kinds[] = {&sill__check_linear, &sill__check_extras,    &sill__check_embed, &sill__check_norms,
                                          &sill__check_attention, &sill__check_head, &sill__check_layers};

/* ----------------------------------------------------------------- lines */

void sill__check_target_init(sill__check_target *t, const sill__backend *ops, sill__device *device, const char *isa) {
    memset(t, 0, sizeof *t);
    t->ops = ops;
    t->device = device;
    t->isa = isa;
    ops->describe(device, t->name, sizeof t->name);
}

sill__check_line *sill__check_line_of(sill__check_target *t, const char *name) {
    for (int i = 0; i < t->n_lines; i++)
        if (!strcmp(t->lines[i].name, name)) return &t->lines[i];
    if (t->n_lines == SILL__CHECK_MAX_LINES) return NULL;
    sill__check_line *line = &t->lines[t->n_lines++];
    snprintf(line->name, sizeof line->name, "%s", name);
    return line;
}

void sill__check_fail(sill__check_line *line, const char *format, ...) {
    va_list ap;
    if (!line || line->n_failed++) return;
    va_start(ap, format);
    vsnprintf(line->failed_at, sizeof line->failed_at, format, ap);
    va_end(ap);
    sill__plain(line->failed_at);
}

void sill__check_note(sill__check_line *line, const char *where, double error, double bound) {
    if (!line) return;
    double share = error == 0 ? 0 : bound > 0 ? error / bound : INFINITY;
    line->n_cases++;
    if (!(share <= 1)) sill__check_fail(line, "%s: error %.3g, bound %.3g", where, error, bound);
    if (line->n_cases > 1 && !(share > line->worst)) return;
    line->worst = share;
    line->worst_error = error;
    line->worst_bound = bound;
    snprintf(line->worst_at, sizeof line->worst_at, "%s", where);
}

const sill__check_line *sill__check_first_failed(const sill__check_target *t) {
    for (int i = 0; i < t->n_lines; i++)
        if (t->lines[i].n_failed) return &t->lines[i];
    return NULL;
}

bool sill__check_passed(const sill__check_target *t) {
    int32_t ran = 0;
    for (int i = 0; i < t->n_lines; i++) ran += t->lines[i].n_cases;
    return ran > 0 && !t->stopped && !sill__check_first_failed(t);
}

/* ------------------------------------------------------------- comparing */

static double rms(const float *b, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += (double)b[i] * b[i];
    return n ? sqrt(sum / (double)n) : 0;
}

/* Over SIZE; equal values, infinities too, are no difference. */
static double greatest(const float *a, const float *b, size_t n, double size) {
    double worst = 0, sum = 0;
    for (size_t i = 0; i < n; i++) { /* mostly this is all: what is no number makes the sum none */
        double d = fabs((double)a[i] - b[i]);
        worst = d > worst ? d : worst;
        sum += d;
    }
    if (isfinite(sum)) return worst == 0 ? 0 : size > 0 ? worst / size : INFINITY;
    worst = 0;
    for (size_t i = 0; i < n; i++) {
        if (a[i] == b[i]) continue;
        double d = fabs((double)a[i] - b[i]);
        if (!(d <= worst)) worst = d; /* what is no number stays */
        if (!isfinite(worst)) return INFINITY;
    }
    return worst == 0 ? 0 : size > 0 ? worst / size : INFINITY;
}

double sill__check_distance(const float *a, const float *b, size_t n) { return greatest(a, b, n, rms(b, n)); }

static double mean_error(const float *a, const float *b, size_t n) {
    double off = 0, all = 0;
    for (size_t i = 0; i < n; i++) {
        off += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        all += (double)b[i] * b[i];
    }
    if (!isfinite(off)) return INFINITY;
    return off == 0 ? 0 : all > 0 ? sqrt(off / all) : INFINITY;
}

static double error_of(const check_case *c, const check_out *o, const float *got) {
    double best = INFINITY;
    for (int v = 0; v < c->n_variants; v++) {
        if (!c->have[v]) continue;
        const float *want = o->want[v];
        double e = o->mean ? mean_error(got, want, o->n) : greatest(got, want, o->n, o->scale > 0 ? o->scale : rms(want, o->n));
        best = SILL_MIN(best, e);
    }
    return best;
}

/* ----------------------------------------------------------------- cases */

/* What the reference makes of a case. */
static void refer(check_case *c, int v) {
    sill__device *device = NULL;
    const sill__backend *ref = sill__backend_ref();
    check_bench b;
    float *outs[CHECK_MAX_OUTS];
    for (int i = 0; i < c->n_outs && c->status == SILL_OK; i++) {
        outs[i] = c->outs[i].want[v] = sill__arena_alloc(&c->arena, (c->outs[i].n + 1) * sizeof *outs[i]);
        if (!outs[i]) c->status = sill__fail(&c->err, SILL_ENOMEM, "no memory for a check of %s", c->name);
    }
    if (c->status == SILL_OK) c->status = ref->open(NULL, &device, &c->err);
    if (c->status != SILL_OK) return;
    sill__chk_bench_open(&b, ref, device);
    c->kind->run(c, &b, v, outs);
    c->status = b.status;
    c->err = b.err;
    sill__chk_bench_close(&b);
    c->have[v] = true;
    ref->close(device);
}

static void prepare(void *arg) {
    check_case *c = arg;
    c->status = c->kind->make(c) ? SILL_OK : sill__fail(&c->err, SILL_ENOMEM, "no memory for a check of %s", c->name);
    if (c->first >= c->n_variants) c->first = 0;
    if (c->status == SILL_OK) refer(c, c->first);
}

static void note_error(sill__check_target *t, const check_case *c, const char *line, const sill_error *err) {
    sill__check_line *l = sill__check_line_of(t, line);
    if (!l) return;
    l->n_cases++;
    l->worst = INFINITY;
    sill__check_fail(l, "%.80s: %.110s", c->name, err->msg);
}

static void note_bits(sill__check_target *t, const check_case *c, check_bench *b, float *const *outs, int *errors) {
    sill__check_line *l = sill__check_line_of(t, c->kind->bits_line);
    c->kind->bits(c, b, outs);
    if (!sill__chk_ok(b)) {
        note_error(t, c, c->kind->bits_line, &b->err);
        (*errors)++;
    } else if (l) {
        l->bits = true;
        l->n_cases++;
        if (b->differs[0]) sill__check_fail(l, "%s: %s", c->name, b->differs);
    }
}

/* The outputs' errors; whether all are within their bounds. */
static bool measure(const check_case *c, float *const *outs, double *errors) {
    bool within = true;
    for (int i = 0; i < c->n_outs; i++) {
        errors[i] = error_of(c, &c->outs[i], outs[i]);
        within = within && errors[i] <= c->outs[i].bound;
    }
    return within;
}

/* One case on one device. */
static sill_status examine(sill__check_target *t, check_case *c, int *errors, sill_error *err) {
    check_bench b;
    sill_error why = {.code = SILL_OK};
    float *outs[CHECK_MAX_OUTS] = {NULL};
    double found[CHECK_MAX_OUTS];
    sill__arena arena = {0};
    if (t->ops->supports(t->device, &c->need, &why) != SILL_OK) {
        for (int i = 0; i < c->n_outs; i++) {
            sill__check_line *l = sill__check_line_of(t, c->outs[i].line);
            if (l && !l->n_skipped++) snprintf(l->skipped_why, sizeof l->skipped_why, "%s: %.110s", c->name, why.msg);
        }
        return SILL_OK;
    }
    for (int i = 0; i < c->n_outs; i++)
        if (!(outs[i] = sill__arena_alloc(&arena, (c->outs[i].n + 1) * sizeof *outs[i]))) {
            sill__arena_free(&arena);
            return sill__fail(err, SILL_ENOMEM, "no memory for a check of %s", c->name);
        }
    sill__chk_bench_open(&b, t->ops, t->device);
    c->kind->run(c, &b, 0, outs);
    bool ok = sill__chk_ok(&b);
    if (!ok) {
        note_error(t, c, c->outs[0].line, &b.err);
        ++*errors;
    }
    bool within = ok && measure(c, outs, found);
    for (int v = 0; ok && !within && v < c->n_variants && c->status == SILL_OK; v++) {
        if (c->have[v]) continue;
        refer(c, v);
        c->first = v;
        within = c->status == SILL_OK && measure(c, outs, found);
    }
    for (int i = 0; ok && i < c->n_outs && c->status == SILL_OK; i++)
        if (c->outs[i].n) sill__check_note(sill__check_line_of(t, c->outs[i].line), c->name, found[i], c->outs[i].bound);
    if (ok && c->kind->bits && !c->no_bits) note_bits(t, c, &b, outs, errors);
    sill__chk_bench_close(&b);
    sill__arena_free(&arena);
    if (c->status != SILL_OK && err) *err = c->err;
    return c->status;
}

/* Whether a target before this one has run this very code on a large case. */
static bool shared(const sill__check_target *targets, int k, const check_case *c) {
    const sill__check_target *t = &targets[k];
    for (int i = 0; c->large && t->isa && t->ops->isa_shares && i < k; i++)
        if (targets[i].ops == t->ops && targets[i].isa && !targets[i].stopped &&
            t->ops->isa_shares(t->isa, targets[i].isa, c->types[0], c->need.compute))
            return true;
    return false;
}

static bool left_out(sill__check_target *targets, int k, const check_case *c) {
    sill__check_target *t = &targets[k];
    if (shared(targets, k, c)) return ++t->n_shared;
    for (int i = 0; c->large && t->brief && i < k; i++)
        if (targets[i].ops == t->ops && !targets[i].stopped) return ++t->n_left_out;
    return false;
}

static bool pick(check_case *c, const char *only, sill__check_level level, const sill__use *use, int *kind, int *i) {
    for (; *kind < (int)SILL_ARRAY_LEN(kinds); ++*kind, *i = 0) {
        if (only && strcmp(only, kinds[*kind]->name)) continue;
        do {
            memset(c, 0, sizeof *c);
            c->kind = kinds[*kind];
            c->level = level;
            c->use = level == SILL__CHECK_QUICK ? use : NULL;
            if (!c->kind->pick(c, level, (*i)++)) c->kind = NULL;
        } while (c->kind && c->skip);
        if (c->kind) return true;
    }
    return false;
}

static int count(const char *only, sill__check_level level, const sill__use *use) {
    int n = 0, kind = 0, i = 0;
    check_case c;
    while (pick(&c, only, level, use, &kind, &i)) n++;
    return n;
}

static sill_status run(const char *only, sill__check_target *targets, int n_targets, sill__check_level level,
                       sill__check_progress progress, void *user, sill_error *err) {
    check_case *cases = sill__calloc(2, sizeof *cases);
    const sill__use *use = n_targets > 0 ? targets[0].use : NULL;
    int total = count(only, level, use), done = 0, kind = 0, i = 0, errors[64] = {0}, first[SILL__COMPUTE_INT8 + 1] = {0};
    sill_status s = SILL_OK;
    if (!cases) return sill__fail(err, SILL_ENOMEM, "no memory for a check");
    if (n_targets > (int)SILL_ARRAY_LEN(errors)) n_targets = (int)SILL_ARRAY_LEN(errors);
    bool more = pick(&cases[0], only, level, use, &kind, &i);
    if (more) prepare(&cases[0]);
    while (more && s == SILL_OK) {
        check_case *now = &cases[done % 2], *next = &cases[(done + 1) % 2];
        sill__aside aside;
        more = pick(next, only, level, use, &kind, &i);
        next->first = first[now->need.compute]; /* what devices did with the last one */
        bool beside = more && sill__aside_start(&aside, prepare, next);
        s = now->status;
        if (s != SILL_OK && err) *err = now->err;
        for (int k = 0; k < n_targets && s == SILL_OK; k++) {
            double from = sill__now();
            if (targets[k].stopped) continue;
            if (left_out(targets, k, now)) continue;
            s = examine(&targets[k], now, &errors[k], err);
            targets[k].stopped = errors[k] >= MAX_ERRORS;
            targets[k].seconds += sill__now() - from;
        }
        first[now->need.compute] = now->first;
        if (beside) sill__aside_join(&aside);
        else if (more) prepare(next);
        sill__arena_free(&now->arena);
        done++;
        if (s == SILL_OK && progress && progress(user, (double)done / total))
            s = sill__fail(err, SILL_ECANCELLED, "the check was cancelled");
    }
    sill__arena_free(&cases[0].arena);
    sill__arena_free(&cases[1].arena);
    sill__free(cases);
    return s;
}

sill_status sill__check_ops(sill__check_target *targets, int n_targets, sill__check_level level,
                            sill__check_progress progress, void *user, sill_error *err) {
    return run(NULL, targets, n_targets, level, progress, user, err);
}

sill_status sill__check_kind(const char *kind, sill__check_target *targets, int n_targets, sill__check_level level,
                             sill_error *err) {
    return run(kind, targets, n_targets, level, NULL, NULL, err);
}
