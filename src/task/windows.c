/* windows.c - see windows.h. */
#include "task/windows.h"

static sill_status row_failed(void *user, uint64_t index, const sill_error *why, sill_error *err) {
    sill__windows *w = user;
    sill__windows_row none = {.index = index};
    return w->done(w->task, &none, NULL, why, err);
}

/* The windows of a text that is longer than the session, one behind the other in row->wide. */
static sill_status cut(sill__windows *w, sill__windows_row *row, sill_error *why) {
    size_t n = row->ids.n - row->front, bytes;
    row->body = (size_t)w->n_ctx - row->front;
    row->step = w->long_policy == SILL_LONG_SPLIT_MEAN ? row->body : SILL_MAX(row->body / 2, 1);
    row->stride = (size_t)w->n_ctx;
    size_t count = 1 + (n - row->body + row->step - 1) / row->step;
    if (count > INT32_MAX || !sill__mul(count, row->stride, &bytes))
        return sill__fail(why, SILL_ERANGE, "a text of %zu tokens has too many windows of %d", n, w->n_ctx);
    row->n_windows = (int32_t)count;
    row->wide.n = 0;
    sill_status st = sill__ids_reserve(&row->wide, count * row->stride, why);
    for (size_t i = 0; st == SILL_OK && i < count; i++) {
        size_t begin = i * row->step, end = SILL_MIN(begin + row->body, n);
        if (row->front) st = sill__ids_put(&row->wide, row->ids.p, row->front, why);
        if (st == SILL_OK) st = sill__ids_put(&row->wide, row->ids.p + row->front + begin, end - begin, why);
    }
    return st;
}

/* Reads a row into a slot. The errors are the row's. */
static sill_status read_row(sill__windows *w, const sill_row *in, sill__windows_row *row, sill_error *why) {
    size_t n, bytes;
    row->index = in->index;
    row->truncated = false;
    row->ids.n = 0;
    row->n_open = 0;
    row->n_windows = 1;
    sill_status st = sill__row_ids(sill__session_model(w->session), in, w->flags, &row->ids, why);
    if (st != SILL_OK) return st;
    row->front = !in->ids && (w->flags & SILL_TOKENIZE_BOS) && row->ids.n;
    row->n_tokens = row->ids.n - row->front;
    if (row->ids.n == 0) return sill__fail(why, SILL_EINVAL, "the text is empty: it has no token to %s", w->what);
    if (row->ids.n > (size_t)w->n_ctx) {
        if (w->long_policy == SILL_LONG_ERROR || w->n_ctx <= (int32_t)row->front)
            return sill__fail(why, SILL_ERANGE, "the text has %zu tokens, more than the %d that fit into the session's %d positions; shorten "
                              "the text or choose the long policy truncate, window or split-mean (--long truncate)", row->ids.n, w->n_ctx, w->n_ctx);
        if (w->long_policy == SILL_LONG_TRUNCATE) {
            row->ids.n = (size_t)w->n_ctx;
            row->truncated = true;
        } else if ((st = cut(w, row, why)) != SILL_OK) {
            return st;
        }
    }
    if (!sill__mul((size_t)row->n_windows, (size_t)w->width, &n) || !sill__mul(n, sizeof *row->parts, &bytes))
        return sill__fail(why, SILL_ERANGE, "a text of %zu tokens has too many windows", row->ids.n);
    if (n > row->parts_cap) {
        double *p = sill__realloc(row->parts, bytes);
        if (!p) return sill__fail(why, SILL_ENOMEM, "no memory for the results of %d windows", row->n_windows);
        row->parts = p;
        row->parts_cap = n;
    }
    memset(row->parts, 0, bytes);
    return SILL_OK;
}

static size_t window_length(const sill__windows_row *row, int32_t i) {
    size_t from = (size_t)i * row->stride;
    return row->n_windows == 1 ? row->ids.n : SILL_MIN(row->stride, row->wide.n - from);
}

/* The first token of window I that no window before it has; where they lie side by side the BOS is one of its own. */
static size_t first_added(const sill__windows_row *row, int32_t i) {
    return i == 0 || row->step == row->body ? 0 : row->front + row->body - row->step;
}

static void next_window(sill__windows *w, sill__lane *lane) {
    sill__windows_row *row = w->current;
    const int32_t i = w->n_started++, pad = sill__session_model(w->session)->config.pad_id;
    lane->tokens = row->n_windows == 1 ? row->ids.p : row->wide.p + (size_t)i * row->stride;
    lane->n = (int32_t)window_length(row, i);
    /* transformers' heads take the rightmost token that is not padding, the first if all are. */
    while (w->scores && pad >= 0 && lane->n > 1 && lane->tokens[lane->n - 1] == pad) lane->n--;
    lane->max_length = lane->n;
    lane->want_scores = w->scores;
    lane->all_hidden = !w->scores && w->all_tokens;
    lane->want_hidden = !w->scores && !w->all_tokens;
    lane->user = row;
    lane->index = i;
    row->n_open++;
    if (w->n_started == row->n_windows) w->current = NULL;
}

static sill_status take(void *user, const sill_row *in, sill_error *why) {
    sill__windows *w = user;
    sill__windows_row *row = NULL;
    for (int32_t i = 0; i < w->n_rows && !row; i++)
        if (!w->rows[i].used) row = &w->rows[i];
    if (!row) return SILL__BUG(why, "no slot for a row");
    sill_status st = read_row(w, in, row, why);
    if (st != SILL_OK) return st;
    row->used = true;
    w->current = row;
    w->n_started = 0;
    return SILL_OK;
}

static sill_status next_lane(void *user, sill__lane *lane, bool *got, sill_error *err) {
    sill__windows *w = user;
    const sill__pull pull = {.next = w->next, .user = w->user, .task = w, .take = take, .failed = row_failed};
    *got = true;
    sill_status st = w->current ? SILL_OK : sill__row_pull(&pull, got, err);
    if (st == SILL_OK && *got) next_window(w, lane);
    return st;
}

static sill_status refuse(void *user, sill__lane *lane, int64_t need, int64_t have, sill_error *err) {
    (void)user;
    (void)lane;
    (void)need;
    (void)have;
    return SILL__BUG(err, "a window is longer than the session"); /* the pool always holds n_ctx positions */
}

static sill_status deliver(sill__windows *w, sill__windows_row *row, sill_error *err) {
    double weight = 0;
    row->used = false;
    for (int32_t k = 0; k < w->width; k++) w->mean[k] = 0;
    for (int32_t i = 0; i < row->n_windows; i++) {
        const double *part = row->parts + (size_t)i * (size_t)w->width;
        weight += (double)(window_length(row, i) - first_added(row, i));
        for (int32_t k = 0; k < w->width; k++) w->mean[k] += part[k];
    }
    if (row->n_windows > 1 || w->all_tokens)
        for (int32_t k = 0; k < w->width; k++) w->mean[k] /= weight;
    return w->done(w->task, row, w->mean, NULL, err);
}

static sill_status rows_done(void *user, sill__lane *lane, const sill__span *span, int32_t at, bool last, sill__fed *then,
                             sill_error *err) {
    sill__windows *w = user;
    sill__windows_row *row = lane->user;
    double *part = row->parts + (size_t)lane->index * (size_t)w->width;
    const size_t first = first_added(row, lane->index), width = (size_t)w->width;
    if (lane->all_hidden)
        for (int32_t i = 0; i < span->n; i++)
            if ((size_t)(at + i) >= first)
                for (size_t k = 0; k < width; k++) part[k] += (double)span->hidden[(size_t)i * width + k];
    if (!last) return SILL_OK;
    *then = SILL__FED_DONE;
    if (!lane->all_hidden) {
        const float *result = w->scores ? span->scores : span->hidden;
        const double weight = row->n_windows == 1 ? 1.0 : (double)(window_length(row, lane->index) - first);
        if (w->take) w->take(w->task, result, weight, part);
        else for (size_t k = 0; k < width; k++) part[k] = weight * (double)result[k];
    }
    row->n_open--;
    return row->n_open == 0 && row != w->current ? deliver(w, row, err) : SILL_OK;
}

sill_status sill__windows_run(sill__windows *w, sill_error *err) {
    if (w->long_policy == SILL_LONG_DEFAULT) w->long_policy = SILL_LONG_ERROR;
    if ((unsigned)w->long_policy > SILL_LONG_SPLIT_MEAN)
        return sill__fail(err, SILL_EINVAL, "long_policy %d is none of sill_long's values", (int)w->long_policy);
    w->n_ctx = sill__session_n_ctx(w->session);
    w->n_rows = sill__session_max_sequences(w->session) + 2;
    w->rows = sill__calloc((size_t)w->n_rows, sizeof *w->rows);
    w->mean = sill__calloc((size_t)w->width, sizeof *w->mean);
    sill__task task = {.user = w, .next = next_lane, .refuse = refuse, .rows = rows_done};
    sill_status st = w->rows && w->mean ? sill__sched_run(w->session, &task, err)
                                        : sill__fail(err, SILL_ENOMEM, "no memory for %d rows", w->n_rows);
    for (int32_t i = 0; w->rows && i < w->n_rows; i++) {
        sill__ids_free(&w->rows[i].ids);
        sill__ids_free(&w->rows[i].wide);
        sill__free(w->rows[i].parts);
    }
    sill__free(w->rows);
    sill__free(w->mean);
    return st;
}
