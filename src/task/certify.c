/*
 * certify.c - what a smaller model lost, on texts: perplexity before and after, the divergence of the next-token
 * distributions, agreement of the most probable token, labels that change.
 *
 * The models run one after the other over the same windows of tokens. The logits of the first wait in a file without a
 * name, so that memory holds one model and two rows of logits a position of one window.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "stats/stats.h"
#include "task/quantize.h"

#define WINDOW 256
#define MAX_TOKENS 4096
#define MIB(bytes) ((double)(bytes) / 1048576.0)
#define SEQUENCES 16 /* rows of logits that a step gives */

typedef struct window { size_t begin; int32_t n; } window; /* into the ids; all but the first are scored */

typedef struct certify {
    const sill_quantize_options *o;
    sill_certificate *c;
    int32_t width;
    uint64_t max_tokens;
    sill__ids ids;
    window *windows;
    size_t n_windows, cap;
    size_t n_scored;              /* tokens */
    size_t n_vocab;
    int fd;
    double *nll[2], *kl;          /* (n_scored) */
    uint64_t n_same;
    int32_t *labels[2];           /* (n_texts) */
    size_t n_labels, next_row;
    int which;                    /* model that runs: 0 before, 1 after */
} certify;

/* The series of Cornish and Fisher; the first two in closed form, since it does not do for them. */
double sill__student_975(size_t n) {
    const double z = 1.959963984540054, z2 = z * z, v = (double)n;
    if (n == 0) return INFINITY;
    if (n == 1) return 12.706204736432095;
    if (n == 2) return 4.302652729911275;
    return z + z * (z2 + 1) / (4 * v) + z * ((5 * z2 + 16) * z2 + 3) / (96 * v * v) +
           z * (((3 * z2 + 19) * z2 + 17) * z2 - 15) / (384 * v * v * v) +
           z * ((((79 * z2 + 776) * z2 + 1482) * z2 - 1920) * z2 - 945) / (92160 * v * v * v * v);
}

#define Z2 3.841458820694124 /* the square of the normal deviate of 95 % */

double sill__rows_needed(double share) { return share < 1 ? ceil(Z2 * (1 - share) / share) : 0; }

void sill__wilson_95(uint64_t k, uint64_t n, double *low, double *high) {
    const double z2 = Z2, all = (double)n, p = n ? (double)k / all : 0.5;
    const double centre = (all * p + z2 / 2) / (all + z2), half = sqrt(z2 * (all * p * (1 - p) + z2 / 4)) / (all + z2);
    *low = k ? fmax(centre - half, 0) : 0; /* exact at the ends, where both terms are the same */
    *high = k < n ? fmin(centre + half, 1) : 1;
}

static sill_status progress(const certify *t, const char *stage, double share, sill_error *err) {
    if (t->o->progress && t->o->progress(t->o->user, stage, share)) return sill__fail(err, SILL_ECANCELLED, "cancelled by the caller");
    return SILL_OK;
}

/* ---- windows */

static sill_status add_window(certify *t, size_t begin, size_t n, sill_error *err) {
    if (t->n_windows == t->cap) {
        size_t cap = t->cap ? 2 * t->cap : 64;
        window *p = sill__realloc(t->windows, cap * sizeof *p);
        if (!p) return sill__fail(err, SILL_ENOMEM, "no memory for %zu windows", cap);
        t->windows = p;
        t->cap = cap;
    }
    t->windows[t->n_windows++] = (window){begin, (int32_t)n};
    t->n_scored += n - 1;
    return SILL_OK;
}

/* Ids of text I behind what is in IDS; BOS where the model wants one. */
static sill_status text_ids(const sill_model *model, const sill_quantize_options *o, size_t i, sill__ids *ids, sill_error *err) {
    sill_status s = SILL_OK;
    sill_row row = {.text = o->texts[i], .n_bytes = o->text_bytes[i]};
    const int32_t bos = sill__tokenizer_bos(model->tokenizer);
    if (sill__tokenizer_add_bos(model->tokenizer) && bos >= 0) s = sill__ids_put(ids, &bos, 1, err);
    return s == SILL_OK ? sill__row_ids(model, &row, 0, ids, err) : s;
}

static sill_status cut_windows(certify *t, const sill_model *model, sill_error *err) {
    sill_status s = SILL_OK;
    for (size_t i = 0; s == SILL_OK && i < t->o->n_texts && t->n_scored < t->max_tokens; i++) {
        size_t at = t->ids.n;
        if ((s = text_ids(model, t->o, i, &t->ids, err)) != SILL_OK) break;
        t->c->n_texts++;
        for (; s == SILL_OK && t->ids.n - at >= 2 && t->n_scored < t->max_tokens; at += (size_t)t->width) {
            size_t n = SILL_MIN(SILL_MIN((size_t)t->width, t->ids.n - at), (size_t)(t->max_tokens - t->n_scored) + 1);
            s = add_window(t, at, n, err);
            if (t->ids.n - at <= (size_t)t->width) break;
        }
    }
    if (s == SILL_OK && t->n_scored < 2)
        s = sill__fail(err, SILL_EINVAL, "the text is too short to measure a loss: %zu tokens follow another", t->n_scored);
    return s;
}

/* The second model must read the texts as the first did: its tokenizer was written anew. */
static sill_status check_ids(const certify *t, const sill_model *model, sill_error *err) {
    sill__ids ids = {0};
    sill_status s = SILL_OK;
    for (uint64_t i = 0; s == SILL_OK && i < t->c->n_texts; i++) s = text_ids(model, t->o, (size_t)i, &ids, err);
    if (s == SILL_OK && (ids.n != t->ids.n || memcmp(ids.p, t->ids.p, ids.n * sizeof *ids.p)))
        s = sill__fail(err, SILL_EUNSUPPORTED, "the tokenizer as written cuts the text into other tokens than the original: this "
                       "tokenizer does not fit the format");
    sill__ids_free(&ids);
    return s;
}

/* ---- the spool */

/* Room for all logits that will wait there, before the first is computed. */
static sill_status check_disk(const certify *t, sill_error *err) {
    struct statvfs v;
    if (fstatvfs(t->fd, &v) != 0 || v.f_blocks == 0) return SILL_OK; /* the file system does not tell */
    const double need = (double)t->n_scored * (double)t->n_vocab * sizeof(float), room = (double)v.f_bavail * (double)v.f_frsize;
    if (need <= room) return SILL_OK;
    return sill__fail(err, SILL_EIO, "the logits of %zu tokens wait beside the output while the models are compared: %.1f MiB (tokens "
                      "x %zu of the vocabulary x 4 bytes), and %.1f MiB are free there: nothing is kept (fewer --tokens, or an output "
                      "on another disk)", t->n_scored, MIB(need), t->n_vocab, MIB(room));
}

static sill_status spool_io(int fd, bool to, void *data, size_t n, uint64_t at, sill_error *err) {
    const int why = to ? sill__pwrite_all(fd, data, n, at) : sill__pread_all(fd, data, n, at);
    if (!why) return SILL_OK;
    return sill__fail(err, SILL_EIO, "%s the logits that wait beside the output: %s", to ? "cannot write" : "cannot read", strerror(why));
}

/* ---- numbers */

static double log_sum_exp(const float *x, size_t n, size_t *best) {
    size_t b = 0;
    double sum = 0;
    for (size_t i = 1; i < n; i++)
        if (x[i] > x[b]) b = i;
    for (size_t i = 0; i < n; i++) sum += exp((double)x[i] - (double)x[b]);
    *best = b;
    return (double)x[b] + log(sum);
}

static double divergence(const float *p, double lse_p, const float *q, double lse_q, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        double lp = (double)p[i] - lse_p;
        if (lp > -745) sum += exp(lp) * (lp - ((double)q[i] - lse_q));
    }
    return sum > 0 ? sum : 0; /* rounding alone makes it negative */
}

static sill_status window_numbers(certify *t, const window *w, size_t at, const float *now, const float *before, sill_error *err) {
    for (int32_t i = 0; i + 1 < w->n; i++, at++) {
        const float *x = now + (size_t)i * t->n_vocab, *p = before ? before + (size_t)i * t->n_vocab : NULL;
        size_t best, best_before;
        double lse = log_sum_exp(x, t->n_vocab, &best);
        t->nll[t->which][at] = lse - (double)x[t->ids.p[w->begin + (size_t)i + 1]];
        if (!(fabs(lse) < INFINITY) || !(fabs(t->nll[t->which][at]) < INFINITY))
            return sill__overflowed("the log-probability of a token", t->nll[t->which][at], err);
        if (!p) continue;
        double lse_before = log_sum_exp(p, t->n_vocab, &best_before);
        t->kl[at] = divergence(p, lse_before, x, lse, t->n_vocab);
        t->n_same += best == best_before;
    }
    return SILL_OK;
}

/* Bytes of the logits of one window. */
static bool window_bytes(const certify *t, size_t *bytes) {
    return sill__mul((size_t)t->width, t->n_vocab, bytes) && sill__mul(*bytes, sizeof(float), bytes);
}

/* What the limit leaves a session beside the weights and MORE bytes; 0: there is no limit. */
static uint64_t limit_beside(const certify *t, const sill_model *model, uint64_t more) {
    const uint64_t limit = t->o->memory_limit_bytes, taken = model->weight_bytes + more;
    return !limit ? 0 : limit > taken ? limit - taken : 1;
}

/* A session that leaves room for the logits of a window, of both models while the second runs. */
static sill_status make_session(const certify *t, sill_model *model, sill_session **session, sill_error *err) {
    const uint64_t room = t->o->memory_limit_bytes ? 0 : sill__available_bytes(); /* 0: another limit, or the system does not tell */
    size_t bytes;
    sill_error why = {0};
    if (!window_bytes(t, &bytes) || !sill__mul(bytes, 1 + (size_t)t->which, &bytes))
        return sill__fail(err, SILL_ERANGE, "windows of %d tokens are too long", t->width);
    if (room && bytes >= room)
        return sill__fail(err, SILL_ENOFIT, "the logits of windows of %d tokens need %.1f MiB, and %.1f MiB are free; --window N makes "
                          "them shorter", t->width, MIB(bytes), MIB(room));
    const sill_session_options so = {.size = sizeof so, .n_ctx = t->width, .max_sequences = SEQUENCES, .batch_tokens = SEQUENCES,
                                     .memory_limit_bytes = limit_beside(t, model, bytes)};
    sill_status s = sill_session_create(model, &so, session, &why);
    if (s == SILL_ENOFIT)
        return sill__fail(err, s, "beside the weights (%.1f MiB) and the logits of windows of %d tokens (%.1f MiB; --window N makes them "
                          "shorter) %s", MIB(model->weight_bytes), t->width, MIB(bytes), why.msg);
    if (s != SILL_OK && err) *err = why;
    return s;
}

static sill_status run_windows(certify *t, sill_session *session, sill_error *err) {
    size_t bytes, at = 0;
    sill_status s = SILL_OK;
    float *logits, *before = NULL;
    if (!window_bytes(t, &bytes)) return sill__fail(err, SILL_ERANGE, "windows of %d tokens are too long", t->width);
    logits = sill__alloc(bytes);
    if (t->which) before = sill__alloc(bytes);
    if (!logits || (t->which && !before)) s = sill__fail(err, SILL_ENOMEM, "no memory for the logits of %d tokens", t->width);
    for (size_t i = 0; s == SILL_OK && i < t->n_windows; i++) {
        const window *w = &t->windows[i];
        size_t n = (size_t)(w->n - 1), size = n * t->n_vocab * sizeof *logits;
        uint64_t place = (uint64_t)at * t->n_vocab * sizeof *logits;
        s = progress(t, t->which ? "measuring the new model" : "measuring the original", (double)i / (double)t->n_windows, err);
        if (s == SILL_OK) s = sill_logits(session, t->ids.p + w->begin, n, logits, err);
        if (s == SILL_OK) s = spool_io(t->fd, !t->which, t->which ? before : logits, size, place, err);
        if (s == SILL_OK) s = window_numbers(t, w, at, logits, before, err);
        at += n;
    }
    sill__free(before);
    sill__free(logits);
    return s;
}

/* ---- labels */

static int next_text(void *user, sill_row *row) {
    certify *t = user;
    if (t->next_row == t->o->n_texts) return 0;
    row->index = row->key = t->next_row;
    row->text = t->o->texts[t->next_row];
    row->n_bytes = t->o->text_bytes[t->next_row++];
    return progress(t, t->which ? "labels of the new model" : "labels of the original", (double)t->next_row / (double)t->o->n_texts, NULL) == SILL_OK ? 1 : -1;
}

static int take_label(void *user, const sill_classified *r) {
    certify *t = user;
    t->labels[t->which][r->index] = r->status == SILL_OK ? r->label : -1;
    t->n_labels = (size_t)r->n_labels;
    return 0;
}

static sill_status run_labels(certify *t, sill_model *model, sill_error *err) {
    sill_session_options so = {.size = sizeof so, .memory_limit_bytes = limit_beside(t, model, 0)};
    sill_classify_options co = {.size = sizeof co, .labels = t->o->n_labels ? t->o->labels : NULL, .n_labels = t->o->n_labels, .prompt = t->o->prompt,
                                .long_policy = SILL_LONG_TRUNCATE};
    sill_session *session = NULL;
    t->next_row = 0;
    for (size_t i = 0; i < t->o->n_texts; i++) t->labels[t->which][i] = -1;
    sill_status s = sill_session_create(model, &so, &session, err);
    if (s == SILL_OK) s = sill_classify(session, &co, next_text, take_label, t, err);
    sill_session_free(session);
    return s;
}

static sill_status count_labels(certify *t, sill_error *err) {
    size_t n = t->o->n_texts, bytes;
    int32_t *both = sill__mul(n, 2 * sizeof *both, &bytes) ? sill__alloc(bytes) : NULL;
    double *scratch = sill__calloc(SILL__SCRATCH(t->n_labels), sizeof *scratch);
    if (!both || !scratch) {
        sill__free(both);
        sill__free(scratch);
        return sill__fail(err, SILL_ENOMEM, "no memory for %zu labels", n);
    }
    for (size_t i = 0; i < n; i++) {
        const int32_t before = t->labels[0][i], after = t->labels[1][i];
        const bool ok = before >= 0 && after >= 0;
        both[i] = ok ? before : -1;
        both[n + i] = ok ? after : -1;
        t->c->n_rows += before >= 0;
        t->c->n_rows_failed += before < 0;
        t->c->n_rows_lost += before >= 0 && after < 0;
        t->c->n_changed += before >= 0 && before != after;
    }
    sill__wilson_95(t->c->n_changed, t->c->n_rows, &t->c->changed_percent_low, &t->c->changed_percent_high);
    t->c->changed_percent = t->c->n_rows ? 100 * (double)t->c->n_changed / (double)t->c->n_rows : (double)NAN;
    t->c->changed_percent_low *= 100;
    t->c->changed_percent_high *= 100;
    const sill__ratings ratings = {.n_coders = 2, .n_units = n, .n_labels = t->n_labels, .codes = both, .scratch = scratch};
    t->c->alpha = sill__alpha(&ratings, SILL_LEVEL_NOMINAL, NULL);
    /* one label only, and the same from both: nothing was lost */
    if (isnan(t->c->alpha) && t->c->n_rows > t->c->n_rows_lost) t->c->alpha = 1;
    sill__free(both);
    sill__free(scratch);
    return SILL_OK;
}

/* ---- one model, then the other */

static sill_status allocate(certify *t, sill_error *err) {
    bool ok = true;
    for (int i = 0; i < 2; i++) ok = (t->nll[i] = sill__calloc(t->n_scored, sizeof(double))) && ok;
    t->kl = sill__calloc(t->n_scored, sizeof(double));
    return ok && t->kl ? SILL_OK : sill__fail(err, SILL_ENOMEM, "no memory for %zu tokens", t->n_scored);
}

static sill_status run_model(certify *t, const char *path, sill_error *err) {
    sill_model_options mo = {.size = sizeof mo, .device = t->o->device, .n_threads = t->o->n_threads,
                             .dtype = t->which ? SILL_DTYPE_AUTO : SILL_DTYPE_F32, .memory_limit_bytes = t->o->memory_limit_bytes,
                             .no_cache = 1};
    sill_model_info info;
    sill_model *model = NULL;
    sill_session *session = NULL;
    sill_status s = progress(t, t->which ? "loading the new model" : "loading the original", 0, err);
    if (s == SILL_OK) s = sill_model_load(path, &mo, &model, err);
    if (s != SILL_OK) return s;
    sill_model_get_info(model, &info, sizeof info);
    memcpy(t->which ? t->c->after_dtype : t->c->before_dtype, info.dtype, sizeof info.dtype);
    const bool speaks = model->head != NULL;
    if (!sill_model_tokenizer(model))
        s = sill__fail(err, SILL_EUNSUPPORTED, "%s has no tokenizer: texts cannot be read with it, and no loss be measured", path);
    t->width = SILL_MIN(t->o->window ? t->o->window : WINDOW, info.n_ctx);
    t->n_vocab = (size_t)info.n_vocab;
    if (s == SILL_OK && speaks) {
        if (!t->which) s = cut_windows(t, model, err);
        if (s == SILL_OK && !t->which) s = check_disk(t, err);
        if (s == SILL_OK && !t->which) s = allocate(t, err);
        if (s == SILL_OK && t->which) s = check_ids(t, model, err);
        if (s == SILL_OK) s = make_session(t, model, &session, err);
        if (s == SILL_OK) s = run_windows(t, session, err);
        sill_session_free(session);
    }
    if (!speaks) t->c->n_texts = t->o->n_texts;
    if (s == SILL_OK && (t->o->n_labels || !speaks)) s = run_labels(t, model, err);
    sill_model_free(model);
    return s;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Mean and its standard error, tokens taken as independent. */
static void mean_of(const double *x, const double *minus, size_t n, double *mean, double *se) {
    double sum = 0, squares = 0;
    for (size_t i = 0; i < n; i++) sum += x[i] - (minus ? minus[i] : 0);
    *mean = sum / (double)n;
    for (size_t i = 0; i < n; i++) {
        double d = x[i] - (minus ? minus[i] : 0) - *mean;
        squares += d * d;
    }
    *se = n > 1 ? sqrt(squares / (double)(n - 1) / (double)n) : (double)NAN;
}

static void summarize(certify *t) {
    sill_certificate *c = t->c;
    size_t n = t->n_scored;
    double mean, se;
    c->n_tokens = n;
    c->n_windows = t->n_windows;
    c->window = t->width;
    mean_of(t->nll[0], NULL, n, &mean, &se);
    c->perplexity_before = exp(mean);
    c->perplexity_before_se = exp(mean) * se;
    mean_of(t->nll[1], NULL, n, &mean, &se);
    c->perplexity_after = exp(mean);
    c->perplexity_after_se = exp(mean) * se;
    mean_of(t->nll[1], t->nll[0], n, &mean, &se);
    c->loss_percent = 100 * (exp(mean) - 1);
    c->loss_percent_se = 100 * exp(mean) * se;
    const double margin = sill__student_975(n - 1) * se;
    c->loss_percent_low = 100 * (exp(mean - margin) - 1);
    c->loss_percent_high = 100 * (exp(mean + margin) - 1);
    mean_of(t->kl, NULL, n, &c->kl_mean, &c->kl_mean_se);
    qsort(t->kl, n, sizeof *t->kl, by_value);
    c->kl_p99 = sill__quantile(t->kl, n, 0.99);
    c->kl_max = t->kl[n - 1];
    c->top1_agreement = (double)t->n_same / (double)n;
}

sill_status sill__certify(const char *before, const char *after, const char *spool, const sill_quantize_options *o,
                          sill_certificate *c, sill_error *err) {
    certify t = {.o = o, .c = c, .fd = -1, .max_tokens = o->max_tokens ? (uint64_t)o->max_tokens : MAX_TOKENS};
    sill_status s = SILL_OK;
    c->alpha = c->changed_percent = c->changed_percent_low = c->changed_percent_high = NAN;
    t.fd = open(spool, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (t.fd < 0) return sill__fail(err, SILL_EIO, "cannot create %s: %s", spool, strerror(errno));
    unlink(spool);
    for (int i = 0; i < 2; i++)
        if (!(t.labels[i] = sill__calloc(o->n_texts + 1, sizeof(int32_t)))) s = sill__fail(err, SILL_ENOMEM, "no memory for labels");
    for (t.which = 0; s == SILL_OK && t.which < 2; t.which++) s = run_model(&t, t.which ? after : before, err);
    if (s == SILL_OK && t.n_scored) summarize(&t);
    if (s == SILL_OK && t.n_labels) s = count_labels(&t, err);
    close(t.fd);
    for (int i = 0; i < 2; i++) {
        sill__free(t.nll[i]);
        sill__free(t.labels[i]);
    }
    sill__free(t.kl);
    sill__free(t.windows);
    sill__ids_free(&t.ids);
    return s;
}
