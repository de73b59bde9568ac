/* agree_data.c - reads the columns that `sill agree` compares: labels become numbers, the rows arrays. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "agree.h"
#include "pack.h"
#include "base/json.h"

#define MAX_SHOWN 12

typedef struct columns {
    size_t coders[AGREE_MAX_CODERS + 1]; /* slots; gold behind the coders */
    size_t n, weight, by;
    bool json_probs;
    size_t probs_slot;           /* JSONL: of the object */
    size_t *prob_slots;          /* CSV: one a label */
    agree_text *prob_labels;
    size_t n_probs;
} columns;

static int no_memory(void) {
    const sill_error err = {.code = SILL_ENOMEM};
    return cli_fail(&err);
}

/* ---- names */

static uint32_t *find_slot(const agree_names *names, const char *p, size_t n) {
    size_t i = (size_t)sill__hash64(p, n) & (names->n_slots - 1);
    for (;; i = (i + 1) & (names->n_slots - 1)) {
        const uint32_t at = names->slots[i];
        if (!at || (names->items[at - 1].n == n && !memcmp(names->items[at - 1].p, p, n))) return &names->slots[i];
    }
}

static bool grow_names(agree_names *names) {
    const size_t cap = names->cap ? 2 * names->cap : 64;
    agree_text *items = sill__realloc(names->items, cap * sizeof *items);
    if (!items) return false;
    names->items = items;
    names->cap = cap;
    uint32_t *slots = sill__calloc(4 * cap, sizeof *slots);
    if (!slots) return false;
    sill__free(names->slots);
    names->slots = slots;
    names->n_slots = 4 * cap;
    for (size_t i = 0; i < names->n; i++) *find_slot(names, items[i].p, items[i].n) = (uint32_t)i + 1;
    return true;
}

/* The number of a text, given one when it is new. ERANGE above names->max. */
static sill_status intern(agree_names *names, const char *p, size_t n, int32_t *out, sill_error *err) {
    if (names->n == names->cap && !grow_names(names)) return sill__fail(err, SILL_ENOMEM, "no memory for %zu names", names->n);
    uint32_t *slot = find_slot(names, p, n);
    if (!*slot) {
        if (names->n == names->max) return sill__fail(err, SILL_ERANGE, "more than %zu", names->max);
        char *copy = sill__strndup(p, n);
        if (!copy) return sill__fail(err, SILL_ENOMEM, "no memory for %zu names", names->n);
        names->items[names->n++] = (agree_text){copy, n};
        *slot = (uint32_t)names->n;
    }
    *out = (int32_t)*slot - 1;
    return SILL_OK;
}

static void free_names(agree_names *names) {
    for (size_t i = 0; i < names->n; i++) sill__free(names->items[i].p);
    sill__free(names->items);
    sill__free(names->slots);
    memset(names, 0, sizeof *names);
}

static bool to_number(const char *p, size_t n, double *out) {
    char text[64], *end;
    if (n == 0 || n >= sizeof text || memchr(p, 0, n)) return false;
    memcpy(text, p, n);
    text[n] = 0;
    if (strspn(text, "0123456789+-.eE") != n) return false; /* no hexadecimal, no nan */
    *out = strtod(text, &end);
    if (*out == 0) *out = 0; /* -0 */
    return !*end && isfinite(*out);
}

static const agree_text *sort_items;
static bool sort_numbers;

static int by_name(const void *a, const void *b) {
    const agree_text x = sort_items[*(const int32_t *)a], y = sort_items[*(const int32_t *)b];
    double u, v;
    if (sort_numbers && to_number(x.p, x.n, &u) && to_number(y.p, y.n, &v) && u != v) return u < v ? -1 : 1;
    const int order = memcmp(x.p, y.p, SILL_MIN(x.n, y.n));
    return order ? order : (x.n > y.n) - (x.n < y.n);
}

/* Sorts the names, as numbers when all are, and says in NEW_OF the number that each old number became. */
static bool sort_names(agree_names *names, int32_t **new_of) {
    int32_t *old_of = sill__calloc(names->n + 1, sizeof *old_of);
    agree_text *items = sill__calloc(names->n + 1, sizeof *items);
    *new_of = sill__calloc(names->n + 1, sizeof **new_of);
    const bool ok = old_of && items && *new_of;
    double number;
    sort_items = names->items;
    sort_numbers = true;
    for (size_t i = 0; i < names->n && sort_numbers; i++) sort_numbers = to_number(names->items[i].p, names->items[i].n, &number);
    for (size_t i = 0; ok && i < names->n; i++) old_of[i] = (int32_t)i;
    if (ok && names->n) qsort(old_of, names->n, sizeof *old_of, by_name);
    for (size_t i = 0; ok && i < names->n; i++) {
        items[i] = names->items[old_of[i]];
        (*new_of)[old_of[i]] = (int32_t)i;
    }
    if (ok && names->n) memcpy(names->items, items, names->n * sizeof *items);
    sill__free(old_of);
    sill__free(items);
    return ok;
}

/* ---- columns */

static bool is_missing(const agree_options *o, const sill__cell *c) {
    if (c->kind == SILL__CELL_MISSING || c->n == 0) return true;
    for (size_t i = 0; i < o->missing.n; i++)
        if (strlen(o->missing.items[i]) == c->n && !memcmp(o->missing.items[i], c->p, c->n)) return true;
    return false;
}

static int select_slot(sill__reader *reader, const char *name, size_t *slot) {
    sill_error err = {0};
    const char *const *names;
    size_t n;
    sill_status s = sill__reader_select(reader, name, slot, &err);
    if (s == SILL_OK && sill__reader_format(reader) == SILL__FORMAT_JSONL) { /* any name may be selected there */
        sill__str all;
        bool found = false;
        sill__str_init(&all, 400);
        if (sill__reader_columns(reader, &names, &n, &err) != SILL_OK) return cli_fail(&err);
        for (size_t i = 0; i < n; i++) {
            found = found || !strcmp(names[i], name);
            sill__str_putf(&all, "%s%s", i ? ", " : "", names[i]);
        }
        if (!found) s = sill__fail(&err, SILL_ENOENT, "no field '%s' in the first line; there are: %s", name, all.p ? all.p : "");
        sill__str_free(&all);
    }
    if (s == SILL_OK) return -1;
    const int status = cli_fail(&err);
    return s == SILL_ENOENT ? EXIT_USAGE : status;
}

static int add_coder(agree_data *d, const char *p, size_t n) {
    while (n && *p == ' ') p++, n--;
    while (n && p[n - 1] == ' ') n--;
    if (!n) return args_usage("agree", "--coders holds an empty name");
    for (size_t i = 0; i < d->n_coders; i++)
        if (d->coders[i].n == n && !memcmp(d->coders[i].p, p, n)) return args_usage("agree", "--coders holds '%s' twice", d->coders[i].p);
    if (d->n_coders == AGREE_MAX_CODERS) return args_usage("agree", "--coders holds more than %d columns", AGREE_MAX_CODERS);
    char *copy = sill__strndup(p, n);
    if (!copy) return no_memory();
    d->coders[d->n_coders++] = (agree_text){copy, n};
    return -1;
}

/* "a,b,c", or the name of one column that has commas in it. */
static int split_coders(agree_data *d, sill__reader *reader) {
    const char *const *names;
    size_t n;
    sill_error err = {0};
    if (sill__reader_columns(reader, &names, &n, &err) != SILL_OK) return cli_fail(&err);
    for (size_t i = 0; i < d->o->coders.n; i++) {
        const char *p = d->o->coders.items[i];
        bool whole = false;
        int status = -1;
        for (size_t k = 0; k < n; k++) whole = whole || !strcmp(names[k], p);
        if (whole) status = add_coder(d, p, strlen(p));
        while (!whole && status < 0) {
            const size_t m = strcspn(p, ",");
            status = add_coder(d, p, m);
            if (!p[m]) break;
            p += m + 1;
        }
        if (status >= 0) return status;
    }
    if (d->n_coders < 2 && !d->o->gold)
        return args_usage("agree", "--coders names %zu column; agreement takes two and more, or one and --gold COLUMN", d->n_coders);
    return -1;
}

/* The columns of probabilities: PREFIX and a label. prob_raw_X and the like, which classify --all-probs adds, are not
 * those of a label raw_X where there is a prob_X. */
static int find_probs(agree_data *d, sill__reader *reader, columns *c) {
    const char *prefix = d->o->prob ? d->o->prob : "prob_";
    static const char *const kinds[] = {"raw_", "norm_", "calibrated_"};
    const char *const *names;
    size_t n, m = strlen(prefix);
    sill_error err = {0};
    if (sill__reader_columns(reader, &names, &n, &err) != SILL_OK) return cli_fail(&err);
    if (sill__reader_format(reader) == SILL__FORMAT_JSONL) {
        const char *name = d->o->prob ? d->o->prob : "probs";
        bool found = d->o->prob != NULL;
        for (size_t i = 0; i < n && !found; i++) found = !strcmp(names[i], name);
        if (!found) return -1;
        c->json_probs = d->has_probs = true;
        return select_slot(reader, name, &c->probs_slot);
    }
    c->prob_slots = sill__calloc(n, sizeof *c->prob_slots);
    c->prob_labels = sill__calloc(n, sizeof *c->prob_labels);
    if (!c->prob_slots || !c->prob_labels) return no_memory();
    for (size_t i = 0; i < n; i++) {
        if (strncmp(names[i], prefix, m) || !names[i][m]) continue;
        bool other = false;
        for (size_t k = 0; k < SILL_ARRAY_LEN(kinds) && !d->o->prob; k++)
            for (size_t j = 0; j < n && !strncmp(names[i] + m, kinds[k], strlen(kinds[k])); j++)
                other = other || (!strncmp(names[j], prefix, m) && !strcmp(names[j] + m, names[i] + m + strlen(kinds[k])));
        if (other) continue;
        const int status = select_slot(reader, names[i], &c->prob_slots[c->n_probs]);
        if (status >= 0) return status;
        c->prob_labels[c->n_probs].n = strlen(names[i] + m);
        if (!(c->prob_labels[c->n_probs++].p = sill__strndup(names[i] + m, strlen(names[i] + m)))) return no_memory();
    }
    d->has_probs = c->n_probs > 0;
    if (c->n_probs || !d->o->prob) return -1;
    return args_usage("agree", "no column begins with '%s'; --prob takes what stands before the label, as in prob_LABEL", prefix);
}

static void free_columns(columns *c) {
    for (size_t i = 0; i < c->n_probs; i++) sill__free(c->prob_labels[i].p);
    sill__free(c->prob_labels);
    sill__free(c->prob_slots);
}

static int find_columns(agree_data *d, sill__reader *reader, columns *c) {
    int status = split_coders(d, reader);
    for (size_t i = 0; status < 0 && i < d->n_coders; i++) status = select_slot(reader, d->coders[i].p, &c->coders[i]);
    c->n = d->n_coders;
    if (status < 0 && d->o->gold) status = select_slot(reader, d->o->gold, &c->coders[c->n++]);
    if (status < 0 && d->o->weight) status = select_slot(reader, d->o->weight, &c->weight);
    if (status < 0 && d->o->by) status = select_slot(reader, d->o->by, &c->by);
    if (status < 0 && d->o->gold) status = find_probs(d, reader, c);
    return status;
}

/* ---- rows */

static bool grow(void **p, size_t n, size_t bytes) {
    size_t all;
    void *q = sill__mul(n, bytes, &all) ? sill__realloc(*p, all) : NULL;
    if (q) *p = q;
    return q != NULL;
}

static sill_status want_row(agree_data *d, size_t n_columns, sill_error *err) {
    if (d->n_rows < d->cap_rows) return SILL_OK;
    const size_t cap = d->cap_rows ? 2 * d->cap_rows : 4096;
    bool ok = cap < INT32_MAX;
    for (size_t i = 0; i < n_columns; i++) ok = ok && grow((void **)&d->codes[i], cap, sizeof(int32_t));
    if (d->o->by) ok = ok && grow((void **)&d->group, cap, sizeof(int32_t));
    if (d->o->weight) ok = ok && grow((void **)&d->weight, cap, sizeof(double));
    if (!ok) return sill__fail(err, SILL_ENOMEM, "no memory for %zu rows", cap);
    d->cap_rows = cap;
    return SILL_OK;
}

/* A label's own text, or that of the number it is. */
static sill_status read_label(agree_data *d, const sill__corpus_row *row, const sill__cell *cell, const char *column, int32_t *code,
                              sill_error *err) {
    char text[32];
    const char *p = cell->p;
    size_t n = cell->n;
    double number;
    *code = -1;
    if (is_missing(d->o, cell)) return SILL_OK;
    if (d->numeric) {
        if (!to_number(p, n, &number))
            return sill__fail(err, SILL_EFORMAT, "row %llu (line %llu), column %s: '%.*s' is no number, which --level %s takes%s; a text "
                              "for no label is named with --missing", (unsigned long long)row->number, (unsigned long long)row->line, column,
                              (int)SILL_MIN(n, (size_t)60), p, agree_levels[d->o->level],
                              d->o->level == SILL_LEVEL_ORDINAL ? " unless --order LOWEST,...,HIGHEST names the labels" : "");
        if (d->o->level == SILL_LEVEL_RATIO && number < 0)
            return sill__fail(err, SILL_ERANGE, "row %llu (line %llu), column %s: %g is below 0, which --level ratio does not take",
                              (unsigned long long)row->number, (unsigned long long)row->line, column, number);
        sill__f64_text(number, text);
        p = text;
        n = strlen(text);
    }
    const size_t before = d->labels.n;
    sill_status s = intern(&d->labels, p, n, code, err);
    if (s == SILL_OK && d->order_text && d->labels.n > before)
        return sill__fail(err, SILL_ERANGE, "row %llu (line %llu), column %s: '%.*s' is not in --order %s", (unsigned long long)row->number,
                          (unsigned long long)row->line, column, (int)SILL_MIN(n, (size_t)60), p, d->order_text);
    if (s == SILL_ERANGE)
        return sill__fail(err, s, "column %s: the columns hold more than %zu different labels by row %llu; is it a column of labels? (--level "
                          "interval takes up to %d different numbers)", column, d->labels.max, (unsigned long long)row->number, AGREE_MAX_VALUES);
    return s;
}

static bool same_label(const agree_data *d, const sill__cell *gold, const char *p, size_t n) {
    double x, y;
    if (d->numeric && to_number(gold->p, gold->n, &x) && to_number(p, n, &y)) return x == y;
    return gold->n == n && !memcmp(gold->p, p, n);
}

typedef struct prob_sums { double best, sum, brier; bool hit, gold_seen; size_t n; } prob_sums;

static bool add_prob(const agree_data *d, prob_sums *s, const sill__cell *gold, const char *label, size_t n, double p) {
    const bool is_gold = same_label(d, gold, label, n);
    if (!(p >= 0 && p <= 1.000001)) return false;
    if (!s->n || p > s->best) {
        s->best = p;
        s->hit = is_gold;
    }
    s->gold_seen = s->gold_seen || is_gold;
    s->brier += (p - is_gold) * (p - is_gold);
    s->sum += p;
    s->n++;
    return true;
}

static bool read_json_probs(const agree_data *d, const sill__cell *cell, const sill__cell *gold, prob_sums *s) {
    char label[4096];
    size_t n;
    double p;
    sill__json j;
    sill__json_init(&j, cell->p, cell->n);
    if (!sill__json_enter(&j, SILL__JSON_OBJECT)) return false;
    while (sill__json_next_member(&j, label, sizeof label, &n))
        if (!sill__json_double(&j, &p) || !add_prob(d, s, gold, label, SILL_MIN(n, sizeof label - 1), p)) return false;
    return sill__json_finish(&j);
}

/* The probabilities of a row that has gold: what calibration needs of them. Rows without any are left out. */
static sill_status read_probs(agree_data *d, const columns *c, const sill__corpus_row *row, sill_error *err) {
    const sill__cell *gold = &row->cells[c->coders[d->n_coders]];
    prob_sums s = {0};
    bool ok = true, none = true;
    double p;
    if (c->json_probs) {
        const sill__cell *cell = &row->cells[c->probs_slot];
        if (is_missing(d->o, cell)) return SILL_OK;
        none = false;
        ok = cell->kind == SILL__CELL_JSON && read_json_probs(d, cell, gold, &s);
    }
    for (size_t i = 0; i < c->n_probs; i++) none = none && is_missing(d->o, &row->cells[c->prob_slots[i]]);
    if (none) return SILL_OK;
    for (size_t i = 0; ok && i < c->n_probs; i++) {
        const sill__cell *cell = &row->cells[c->prob_slots[i]];
        ok = to_number(cell->p, cell->n, &p) && add_prob(d, &s, gold, c->prob_labels[i].p, c->prob_labels[i].n, p);
    }
    if (!ok || !s.n)
        return sill__fail(err, SILL_EFORMAT, "row %llu (line %llu): its probabilities are not all numbers from 0 to 1",
                          (unsigned long long)row->number, (unsigned long long)row->line);
    if (d->n_probs == d->cap_probs) {
        const size_t cap = d->cap_probs ? 2 * d->cap_probs : 1024;
        if (!grow((void **)&d->confidence, cap, sizeof(double)) || !grow((void **)&d->brier, cap, sizeof(double)) || !grow((void **)&d->hit, cap, 1))
            return sill__fail(err, SILL_ENOMEM, "no memory for %zu rows", cap);
        d->cap_probs = cap;
    }
    d->n_odd_sums += fabs(s.sum - 1) > 0.01;
    d->confidence[d->n_probs] = SILL_MIN(s.best, 1);
    d->brier[d->n_probs] = s.brier + (s.gold_seen ? 0 : 1);
    d->hit[d->n_probs++] = s.hit;
    return SILL_OK;
}

static sill_status read_weight(agree_data *d, const sill__corpus_row *row, const sill__cell *cell, bool has_gold, sill_error *err) {
    double *w = &d->weight[d->n_rows];
    *w = 0;
    if (!has_gold) return SILL_OK;
    if (!is_missing(d->o, cell) && to_number(cell->p, cell->n, w) && *w >= 1) return SILL_OK;
    return sill__fail(err, SILL_ERANGE, "row %llu (line %llu), column %s: '%.*s' is no weight; of a row with gold it is 1 / its probability of "
                      "being drawn, so a number from 1", (unsigned long long)row->number, (unsigned long long)row->line, d->o->weight,
                      (int)SILL_MIN(cell->n, (size_t)40), cell->n ? cell->p : "");
}

static sill_status read_row(agree_data *d, const columns *c, const sill__corpus_row *row, sill_error *err) {
    if (row->error) {
        if (d->n_failed < SILL_ARRAY_LEN(d->failures))
            snprintf(d->failures[d->n_failed], sizeof d->failures[0], "row %llu (line %llu): %s", (unsigned long long)row->number,
                     (unsigned long long)row->line, row->error);
        d->n_failed++;
        return SILL_OK;
    }
    sill_status s = want_row(d, c->n, err);
    for (size_t i = 0; s == SILL_OK && i < c->n; i++)
        s = read_label(d, row, &row->cells[c->coders[i]], i < d->n_coders ? d->coders[i].p : d->o->gold, &d->codes[i][d->n_rows], err);
    const bool has_gold = s == SILL_OK && d->o->gold && d->codes[d->n_coders][d->n_rows] >= 0;
    if (s == SILL_OK && d->o->weight) s = read_weight(d, row, &row->cells[c->weight], has_gold, err);
    if (s == SILL_OK && d->o->by) {
        const sill__cell *cell = &row->cells[c->by];
        s = intern(&d->groups, cell->n ? cell->p : "", cell->n, &d->group[d->n_rows], err);
        if (s == SILL_ERANGE)
            s = sill__fail(err, s, "column %s, which --by names, holds more than %d different values", d->o->by, AGREE_MAX_GROUPS);
    }
    if (has_gold && d->has_probs) s = read_probs(d, c, row, err);
    d->n_rows += s == SILL_OK;
    return s;
}

/* ---- when all is read */

static sill_status sort_labels(agree_data *d, sill_error *err) {
    int32_t *new_of = NULL;
    const size_t n_columns = d->n_coders + (d->o->gold ? 1 : 0);
    bool ok = d->order_text || sort_names(&d->labels, &new_of);
    for (size_t i = 0; ok && new_of && i < n_columns; i++)
        for (size_t u = 0; u < d->n_rows; u++)
            if (d->codes[i][u] >= 0) d->codes[i][u] = new_of[d->codes[i][u]];
    sill__free(new_of);
    new_of = NULL;
    if (ok && d->o->by) ok = sort_names(&d->groups, &new_of);
    for (size_t u = 0; ok && d->o->by && u < d->n_rows; u++) d->group[u] = new_of[d->group[u]];
    sill__free(new_of);
    if (ok && d->numeric) {
        ok = (d->values = sill__calloc(d->labels.n + 1, sizeof *d->values)) != NULL;
        for (size_t k = 0; ok && k < d->labels.n; k++) to_number(d->labels.items[k].p, d->labels.items[k].n, &d->values[k]);
        if (d->o->level == SILL_LEVEL_ORDINAL) { /* their order is what counts */
            sill__free(d->values);
            d->values = NULL;
        }
    }
    return ok ? SILL_OK : sill__fail(err, SILL_ENOMEM, "no memory for %zu labels", d->labels.n);
}

/* Letters and digits without spaces around, small: what people would take for the same label. */
static bool look_alike(agree_text a, agree_text b) {
    double x, y;
    if (to_number(a.p, a.n, &x) && to_number(b.p, b.n, &y)) return x == y;
    while (a.n && cli_is_space(*a.p)) a.p++, a.n--;
    while (b.n && cli_is_space(*b.p)) b.p++, b.n--;
    while (a.n && cli_is_space(a.p[a.n - 1])) a.n--;
    while (b.n && cli_is_space(b.p[b.n - 1])) b.n--;
    for (size_t i = 0; i < a.n && a.n == b.n; i++) {
        const char c = a.p[i], e = b.p[i];
        if (c != e && ((c | 32) != (e | 32) || (c | 32) < 'a' || (c | 32) > 'z')) return false;
    }
    return a.n == b.n;
}

static void warn(const agree_data *d) {
    size_t said = 0;
    for (size_t i = 0; !d->numeric && i < d->labels.n && said < 3; i++)
        for (size_t j = i + 1; j < d->labels.n && said < 3; j++)
            if (look_alike(d->labels.items[i], d->labels.items[j])) {
                cli_say("warning: the labels '%s' and '%s' count as two", d->labels.items[i].p, d->labels.items[j].p);
                said++;
            }
    if (d->n_odd_sums) cli_say("warning: the probabilities of %zu rows do not sum to 1", d->n_odd_sums);
    for (size_t i = 0; i < d->n_failed && i < SILL_ARRAY_LEN(d->failures); i++) cli_say("%s", d->failures[i]);
    if (d->n_failed > SILL_ARRAY_LEN(d->failures)) cli_say("... and %llu more rows that cannot be used", (unsigned long long)d->n_failed - SILL_ARRAY_LEN(d->failures));
}

static int check_enough(const agree_data *d) {
    sill__str s;
    if (!d->n_rows) return args_usage("agree", "%s has no row that can be used", d->file);
    for (size_t i = 0; i < d->n_coders + (d->o->gold ? 1 : 0); i++) {
        size_t u = 0;
        while (u < d->n_rows && d->codes[i][u] < 0) u++;
        if (u == d->n_rows && (i == d->n_coders || d->n_coders == 1))
            return args_usage("agree", "column %s has no label in any row", i < d->n_coders ? d->coders[i].p : d->o->gold);
        if (u == d->n_rows) cli_say("warning: %s has no label in any row", d->coders[i].p);
    }
    for (size_t u = 0; u < d->n_rows; u++) {
        size_t m = 0;
        for (size_t i = 0; i < d->n_coders; i++) m += d->codes[i][u] >= 0;
        if (m >= 2 || (m && d->o->gold && d->codes[d->n_coders][u] >= 0)) return -1;
    }
    sill__str_init(&s, 2000);
    for (size_t i = 0; i < d->n_coders; i++) sill__str_putf(&s, "%s%s", i ? ", " : "", d->coders[i].p);
    if (d->o->gold) sill__str_putf(&s, " and gold %s", d->o->gold);
    const int status = args_usage("agree", "no row has labels from two of %s: nothing can be compared", s.p);
    sill__str_free(&s);
    return status;
}

static int set_order(agree_data *d) {
    sill_error err = {0};
    const char *p = d->order_text;
    for (size_t m; p; p = p[m] ? p + m + 1 : NULL) {
        int32_t code;
        const size_t before = d->labels.n;
        while (*p == ' ') p++;
        m = strcspn(p, ",");
        if (!m) return args_usage("agree", "--order holds an empty label");
        if (intern(&d->labels, p, m, &code, &err) != SILL_OK) return args_usage("agree", "--order holds %s labels", err.msg);
        if (d->labels.n == before) return args_usage("agree", "--order holds '%.*s' twice", (int)SILL_MIN(m, (size_t)60), p);
    }
    return -1;
}

static int open_reader(const agree_options *o, const char *file, sill__reader **reader) {
    if (!strcmp(file, "-") && !o->in.format) return args_usage("agree", "standard input needs --format csv, tsv or jsonl");
    int status = cli_open_reader("agree", file, &o->in, NULL, reader);
    if (status >= 0) return status;
    if (sill__reader_format(*reader) == SILL__FORMAT_TXT || sill__reader_format(*reader) == SILL__FORMAT_FILE) return args_usage("agree", "%s is plain text, which has no columns", file);
    return -1;
}

int agree_read(agree_data *d, const char *file) {
    sill__reader *reader = NULL;
    sill_error err = {0};
    sill_status s = SILL_OK;
    columns c = {0};
    const int level = d->o->level;
    d->file = file;
    d->order_text = d->o->order;
    d->numeric = level != SILL_LEVEL_NOMINAL && !d->order_text;
    d->labels.max = d->o->gold || level < SILL_LEVEL_INTERVAL ? AGREE_MAX_LABELS : level == SILL_LEVEL_INTERVAL ? AGREE_MAX_VALUES : AGREE_MAX_RATIOS;
    d->groups.max = AGREE_MAX_GROUPS;
    int status = d->order_text ? set_order(d) : -1;
    if (status < 0) status = open_reader(d->o, file, &reader);
    if (status < 0 && d->o->html && strcmp(d->o->html, "-") && sill__reader_is_file(reader, d->o->html))
        status = args_usage("agree", "--html %s is the input; give it another name", d->o->html);
    if (status < 0) status = find_columns(d, reader, &c);
    for (sill__corpus_row *row = NULL; status < 0 && s == SILL_OK;) {
        s = sill__reader_next(reader, &row, &err);
        if (s != SILL_OK || !row) break;
        s = read_row(d, &c, row, &err);
        sill__row_free(row);
        if (cli_stop && s == SILL_OK) s = sill__fail(&err, SILL_ECANCELLED, "interrupted while reading %s", file);
    }
    if (status < 0 && s == SILL_OK) s = sort_labels(d, &err);
    if (s != SILL_OK) status = cli_fail(&err);
    if (status < 0) warn(d);
    if (status < 0) status = check_enough(d);
    free_columns(&c);
    sill__reader_free(reader);
    return status;
}

void agree_data_free(agree_data *d) {
    free_names(&d->labels);
    free_names(&d->groups);
    for (size_t i = 0; i < d->n_coders; i++) sill__free(d->coders[i].p);
    for (size_t i = 0; i < SILL_ARRAY_LEN(d->codes); i++) sill__free(d->codes[i]);
    sill__free(d->group);
    sill__free(d->weight);
    sill__free(d->values);
    sill__free(d->confidence);
    sill__free(d->brier);
    sill__free(d->hit);
}
