/* agree_out.c - what `sill agree` found, as a table for people and as JSON; and texts and numbers as pages write them. */
#include <math.h>
#include <string.h>

#include "agree.h"

#define NAME_WIDTH 24
#define SHOWN_LABELS 40      /* in the table; JSON and the page have all */
#define SHOWN_CELLS 12
#define SHOWN_FEW 25

/* ---- texts and numbers */

static uint32_t code_point(const unsigned char *p, int n) {
    if (n == 1) return p[0];
    if (n == 2) return (uint32_t)(p[0] & 31) << 6 | (p[1] & 63);
    if (n == 3) return (uint32_t)(p[0] & 15) << 12 | (uint32_t)(p[1] & 63) << 6 | (p[2] & 63);
    return (uint32_t)(p[0] & 7) << 18 | (uint32_t)(p[1] & 63) << 12 | (uint32_t)(p[2] & 63) << 6 | (p[3] & 63);
}

/* Columns of a terminal that a character takes. */
static int columns_of(uint32_t c) {
    if ((c >= 0x300 && c < 0x370) || (c >= 0x200b && c <= 0x200f) || (c >= 0xfe00 && c <= 0xfe0f)) return 0;
    return (c >= 0x1100 && c < 0x1160) || (c >= 0x2e80 && c < 0xa4d0) || (c >= 0xac00 && c < 0xd7a4) || (c >= 0xf900 && c < 0xfb00) ||
           (c >= 0xfe30 && c < 0xfe70) || (c >= 0xff00 && c < 0xff61) || (c >= 0x1f300 && c < 0x1fb00) ? 2 : 1;
}

/* A character that is shown as U+FFFD: no UTF-8, control characters, and what turns the direction of text around. */
static bool is_bad(const unsigned char *p, int n) {
    if (n < 1) return true;
    const uint32_t c = code_point(p, n);
    return c < 32 || (c >= 127 && c < 160) || (c >= 0x202a && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069) || c == 0xfffe || c == 0xffff;
}

/* Up to WIDTH columns of a text, filled up with spaces: in front when RIGHT. */
static void put_cell(sill__str *s, const char *text, size_t n_bytes, int width, bool right) {
    const unsigned char *p = (const unsigned char *)text, *end = p + n_bytes;
    sill__str cell;
    int used = 0;
    sill__str_init(&cell, (size_t)1 << 16);
    while (p < end) {
        const int n = sill__utf8_step(p, end);
        const bool bad = is_bad(p, n);
        const int w = bad ? 1 : columns_of(code_point(p, n)), step = n < 0 ? -n : n;
        if (used + w > width - (p + step < end)) { /* room for the ellipsis where more follows */
            sill__str_puts(&cell, "\xe2\x80\xa6");
            used++;
            break;
        }
        if (bad) sill__str_puts(&cell, "\xef\xbf\xbd");
        else sill__str_put(&cell, p, (size_t)n);
        used += w;
        p += step;
    }
    if (right) sill__str_putf(s, "%*s", SILL_MAX(0, width - used), "");
    sill__str_put(s, cell.p ? cell.p : "", cell.n);
    if (!right) sill__str_putf(s, "%*s", SILL_MAX(0, width - used), "");
    sill__str_free(&cell);
}

static int width_of(agree_text t) {
    const unsigned char *p = (const unsigned char *)t.p, *end = p + t.n;
    int width = 0;
    while (p < end) {
        const int n = sill__utf8_step(p, end);
        width += is_bad(p, n) ? 1 : columns_of(code_point(p, n));
        p += n < 0 ? -n : n;
    }
    return width;
}

void agree_put_escaped(sill__str *s, agree_text t, size_t max) {
    const unsigned char *p = (const unsigned char *)t.p, *end = p + t.n;
    for (size_t i = 0; p < end; i++) {
        const int n = sill__utf8_step(p, end), step = n < 0 ? -n : n;
        if (max && i + 1 >= max && p + step < end) {
            sill__str_puts(s, "\xe2\x80\xa6");
            return;
        }
        if (is_bad(p, n)) sill__str_puts(s, "\xef\xbf\xbd");
        else if (*p == '&') sill__str_puts(s, "&amp;");
        else if (*p == '<') sill__str_puts(s, "&lt;");
        else if (*p == '>') sill__str_puts(s, "&gt;");
        else if (*p == '"') sill__str_puts(s, "&quot;");
        else if (*p == '\'') sill__str_puts(s, "&#39;");
        else sill__str_put(s, p, (size_t)n);
        p += step;
    }
}

void agree_put_number(sill__str *s, double value, int places) {
    char text[64];
    if (isnan(value)) {
        sill__str_puts(s, "-");
        return;
    }
    snprintf(text, sizeof text, "%.*f", places, value);
    sill__str_puts(s, text[0] == '-' && strspn(text, "-0.") == strlen(text) ? text + 1 : text); /* no minus zero */
}

void agree_put_count(sill__str *s, double value) {
    char digits[32];
    snprintf(digits, sizeof digits, "%.0f", value);
    for (size_t i = 0, n = strlen(digits); i < n; i++) {
        if (i && (n - i) % 3 == 0) sill__str_put(s, ",", 1);
        sill__str_put(s, &digits[i], 1);
    }
}

static void put_right(sill__str *s, int width, void (*put)(sill__str *, double), double value) {
    sill__str cell;
    sill__str_init(&cell, 256);
    put(&cell, value);
    put_cell(s, cell.p ? cell.p : "", cell.n, width, true);
    sill__str_free(&cell);
}

static void put_three(sill__str *s, double v) { agree_put_number(s, v, 3); }
static void put_percent(sill__str *s, double v) {
    agree_put_number(s, 100 * v, 1);
    if (!isnan(v)) sill__str_puts(s, "%");
}

static void put_interval(sill__str *s, double low, double high) {
    sill__str cell;
    sill__str_init(&cell, 256);
    if (!isnan(low)) {
        put_three(&cell, low);
        sill__str_puts(&cell, " to ");
        put_three(&cell, high);
    }
    put_cell(s, cell.p ? cell.p : "", cell.n, 18, true);
    sill__str_free(&cell);
}

/* ---- the table */

static void end_line(sill__str *s) {
    while (s->n && s->p[s->n - 1] == ' ') s->p[--s->n] = 0;
    sill__str_puts(s, "\n");
}

static void put_stat(sill__str *s, const char *name, const agree_stat *v, double n) {
    sill__str_puts(s, "  ");
    put_cell(s, name, strlen(name), 32, false);
    put_right(s, 8, put_three, v->value);
    if (isnan(v->value)) {
        sill__str_putf(s, "  undefined: %s\n", v->why ? v->why : "");
        return;
    }
    put_interval(s, v->low, v->high);
    if (!isnan(n)) put_right(s, 12, agree_put_count, n);
    end_line(s);
}

static void put_heading(sill__str *s, const agree_result *r, const char *left) {
    char interval[32];
    if (r->data->o->boot) snprintf(interval, sizeof interval, "%g %% interval", 100 * r->confidence);
    else interval[0] = 0;
    put_cell(s, left, strlen(left), 34, false);
    sill__str_putf(s, "%8s%18s%12s", "value", interval, "rows");
    end_line(s);
}

static void put_pairs(sill__str *s, const agree_result *r) {
    const agree_data *d = r->data;
    const bool weighted = d->o->level != SILL_LEVEL_NOMINAL;
    const size_t n = SILL_MIN(r->n_pairs, (size_t)SHOWN_LABELS);
    sill__str_puts(s, "\n");
    put_heading(s, r, "Cohen's kappa");
    for (size_t i = 0; i < n; i++) {
        const agree_pair *p = &r->pairs[i];
        char name[256];
        snprintf(name, sizeof name, "%.110s - %.110s", d->coders[p->a].p, d->coders[p->b].p);
        put_stat(s, name, &p->kappa, p->n);
        if (weighted && !isnan(p->kappa.value)) {
            put_stat(s, "    weighted, linear", &p->linear, NAN);
            put_stat(s, "    weighted, quadratic", &p->quadratic, NAN);
        }
        put_stat(s, "    same label", &p->percent, NAN);
    }
    if (n < r->n_pairs) sill__str_putf(s, "  and %zu more pairs (--json has all)\n", r->n_pairs - n);
}

static void put_agreement(sill__str *s, const agree_result *r) {
    char name[64];
    put_heading(s, r, "agreement");
    put_stat(s, "percent agreement", &r->percent, r->n_units);
    snprintf(name, sizeof name, "Krippendorff's alpha, %s", agree_levels[r->data->o->level]);
    put_stat(s, name, &r->alpha, r->n_units);
    put_stat(s, "Fleiss' kappa", &r->fleiss, r->n_complete);
    if (r->n_pairs > 1) put_stat(s, "Cohen's kappa, mean of pairs", &r->mean_kappa, NAN);
    put_pairs(s, r);
}

static int label_width(const agree_result *r) {
    int width = 8;
    for (size_t k = 0; k < r->data->labels.n; k++) width = SILL_MAX(width, width_of(r->data->labels.items[k]));
    return SILL_MIN(width, NAME_WIDTH);
}

static void put_distribution(sill__str *s, const agree_result *r) {
    const agree_data *d = r->data;
    const size_t k = d->labels.n, shown = SILL_MIN(k, (size_t)SHOWN_LABELS), coders = SILL_MIN(d->n_coders, (size_t)6);
    const int width = label_width(r);
    sill__str_puts(s, "\nlabels");
    sill__str_putf(s, "%*s", width + 2 - 6, "");
    for (size_t c = 0; c < coders; c++) {
        sill__str_puts(s, "  ");
        put_cell(s, d->coders[c].p, d->coders[c].n, 16, true);
    }
    end_line(s);
    for (size_t i = 0; i < shown; i++) {
        sill__str_puts(s, "  ");
        put_cell(s, d->labels.items[i].p, d->labels.items[i].n, width, false);
        for (size_t c = 0; c < coders; c++) {
            double n = 0;
            for (size_t j = 0; j < k; j++) n += r->counts[c * k + j];
            put_right(s, 11, agree_put_count, r->counts[c * k + i]);
            put_right(s, 7, put_percent, n > 0 ? r->counts[c * k + i] / n : NAN);
        }
        end_line(s);
    }
    if (shown < k) sill__str_putf(s, "  and %zu more labels (--json has all)\n", k - shown);
    if (coders < d->n_coders) sill__str_putf(s, "  and %zu more coders (--json has all)\n", d->n_coders - coders);
}

static void put_labels(sill__str *s, const agree_result *r, const agree_versus *v) {
    const agree_data *d = r->data;
    const int width = label_width(r);
    size_t shown = 0, unused = 0;
    sill__str_putf(s, "\n  %-*s%10s%10s%11s%9s%9s\n", width, "label", "gold", "given", "precision", "recall", "F1");
    for (size_t k = 0; k < d->labels.n && shown < SHOWN_LABELS; k++) {
        const sill__label_score *l = &v->labels[k];
        if (!(l->n_gold + l->n_given > 0)) continue;
        sill__str_puts(s, "  ");
        put_cell(s, d->labels.items[k].p, d->labels.items[k].n, width, false);
        put_right(s, 10, agree_put_count, l->n_gold);
        put_right(s, 10, agree_put_count, l->n_given);
        put_right(s, 11, put_three, l->precision);
        put_right(s, 9, put_three, l->recall);
        put_right(s, 9, put_three, l->f1);
        unused += isnan(l->precision) || isnan(l->recall);
        end_line(s);
        shown++;
    }
    const sill__averages *of[] = {&v->scores.macro, &v->scores.weighted, &v->scores.micro};
    static const char *const names[] = {"macro", "weighted", "micro"};
    for (int i = 0; i < 3; i++) {
        sill__str_putf(s, "  %-*s%20s", width, names[i], "");
        put_right(s, 11, put_three, of[i]->precision);
        put_right(s, 9, put_three, of[i]->recall);
        put_right(s, 9, put_three, of[i]->f1);
        end_line(s);
    }
    if (unused) sill__str_puts(s, "  - : undefined, the label is never given or not in gold; counted as 0 in macro and weighted\n");
}

static void put_confusion(sill__str *s, const agree_result *r, const agree_versus *v) {
    const agree_data *d = r->data;
    const size_t k = d->labels.n;
    const int width = label_width(r);
    if (k > SHOWN_CELLS) {
        sill__str_putf(s, "\n  the confusion matrix of %zu labels is in --json and --html\n", k);
        return;
    }
    sill__str_putf(s, "\n  %-*s", SILL_MAX(width, 12), "gold \\ given");
    for (size_t j = 0; j < k; j++) {
        sill__str_puts(s, " ");
        put_cell(s, d->labels.items[j].p, d->labels.items[j].n, 10, true);
    }
    end_line(s);
    for (size_t i = 0; i < k; i++) {
        sill__str_puts(s, "  ");
        put_cell(s, d->labels.items[i].p, d->labels.items[i].n, SILL_MAX(width, 12), false);
        for (size_t j = 0; j < k; j++) put_right(s, 11, agree_put_count, v->cells[i * k + j]);
        end_line(s);
    }
}

static void put_prevalence(sill__str *s, const agree_result *r, const agree_versus *v) {
    const agree_data *d = r->data;
    const int width = label_width(r);
    const size_t shown = SILL_MIN(d->labels.n, (size_t)SHOWN_LABELS);
    sill__str_puts(s, "\n  share of each label in ");
    agree_put_count(s, v->n_all);
    sill__str_puts(s, " rows, corrected by ");
    agree_put_count(s, v->n_sample);
    sill__str_puts(s, " with gold\n");
    sill__str_putf(s, "  %-*s%10s%11s%9s   %g %% interval\n", width, "label", "as given", "corrected", "s.e.", 100 * r->confidence);
    for (size_t k = 0; k < shown; k++) {
        const sill__prevalence *p = &v->prevalence[k];
        sill__str_puts(s, "  ");
        put_cell(s, d->labels.items[k].p, d->labels.items[k].n, width, false);
        put_right(s, 10, put_three, p->machine);
        put_right(s, 11, put_three, p->corrected);
        put_right(s, 9, put_three, p->se);
        put_interval(s, p->low, p->high);
        end_line(s);
    }
    if (v->n_sample < 2) sill__str_puts(s, "  no standard error: it takes two rows with gold\n");
    else if (v->n_sample < 30) sill__str_puts(s, "  few rows with gold: the intervals are rough\n");
}

static void put_versus(sill__str *s, const agree_result *r, const agree_versus *v) {
    const agree_data *d = r->data;
    char heading[300];
    static const char undefined[] = "only one label was given, so nothing could differ";
    const agree_stat accuracy = {v->scores.accuracy, v->intervals[0].low, v->intervals[0].high, NULL},
                     kappa = {v->scores.kappa, v->intervals[1].low, v->intervals[1].high, undefined},
                     f1 = {v->scores.macro.f1, v->intervals[4].low, v->intervals[4].high, NULL};
    sill__str_puts(s, "\n");
    snprintf(heading, sizeof heading, "%.120s against gold (%.120s)", d->coders[v->coder].p, d->o->gold);
    if (!(v->n_sample > 0)) {
        sill__str_putf(s, "%s: no row has both\n", heading);
        return;
    }
    put_heading(s, r, heading);
    put_stat(s, "accuracy", &accuracy, v->n_sample);
    put_stat(s, "macro F1", &f1, NAN);
    put_stat(s, "Cohen's kappa", &kappa, NAN);
    put_labels(s, r, v);
    put_confusion(s, r, v);
    if (v->n_sample < v->n_all) put_prevalence(s, r, v);
}

static void put_calibration(sill__str *s, const agree_result *r) {
    const size_t n = (size_t)r->data->o->bins;
    sill__str_puts(s, "\n");
    put_heading(s, r, "calibration of the first choice");
    put_stat(s, "expected calibration error", &r->ece, r->calibration.n);
    put_stat(s, "Brier score", &r->brier, NAN);
    sill__str_puts(s, "  greatest error of a bin             ");
    put_three(s, r->calibration.mce);
    sill__str_puts(s, "\n\n  probability          rows  mean probability  accuracy\n");
    for (size_t i = 0; i < n; i++) {
        const sill__bin *b = &r->bins[i];
        if (!(b->n > 0)) continue;
        char range[32];
        snprintf(range, sizeof range, "%.2f to %.2f", (double)i / (double)n, (double)(i + 1) / (double)n);
        sill__str_putf(s, "  %-15s", range);
        put_right(s, 10, agree_put_count, b->n);
        put_right(s, 18, put_three, b->confidence / b->n);
        put_right(s, 10, put_three, b->hits / b->n);
        end_line(s);
    }
}

static void put_groups(sill__str *s, const agree_result *r) {
    const agree_data *d = r->data;
    const size_t k = d->labels.n, labels = SILL_MIN(k, (size_t)8), groups = SILL_MIN(d->groups.n, (size_t)SHOWN_FEW);
    sill__str_puts(s, "\n");
    put_cell(s, d->coders[0].p, d->coders[0].n, NAME_WIDTH, false);
    sill__str_puts(s, "      rows");
    for (size_t i = 0; i < labels; i++) {
        sill__str_puts(s, " ");
        put_cell(s, d->labels.items[i].p, d->labels.items[i].n, 10, true);
    }
    sill__str_putf(s, "   by %.100s", d->o->by);
    end_line(s);
    for (size_t g = 0; g < groups; g++) {
        double n = 0;
        for (size_t i = 0; i < k; i++) n += r->by[g * k + i];
        sill__str_puts(s, "  ");
        put_cell(s, d->groups.items[g].n ? d->groups.items[g].p : "(empty)", d->groups.items[g].n ? d->groups.items[g].n : 7, NAME_WIDTH - 2, false);
        put_right(s, 10, agree_put_count, n);
        for (size_t i = 0; i < labels; i++) put_right(s, 11, put_percent, n > 0 ? r->by[g * k + i] / n : NAN);
        end_line(s);
    }
    if (groups < d->groups.n || labels < k) sill__str_puts(s, "  (not all shown: --json and --html have the rest)\n");
}

static void plain(sill__str *s) {
    for (char *p = s->p, *line; p && *p; p = line) { /* names of columns may hold anything */
        line = strchr(p, '\n');
        if (line) *line = 0;
        sill__plain(p);
        if (line) *line++ = '\n';
        else break;
    }
}

void agree_put_table(sill__str *s, const agree_result *r) {
    const agree_data *d = r->data;
    char name[128];
    snprintf(name, sizeof name, "%s", strcmp(d->file, "-") ? d->file : "standard input");
    sill__str_puts(s, name);
    sill__str_puts(s, ": ");
    agree_put_count(s, (double)d->n_rows);
    sill__str_putf(s, " rows, %zu coder%s, %zu label%s", d->n_coders, d->n_coders == 1 ? "" : "s", d->labels.n, d->labels.n == 1 ? "" : "s");
    if (d->n_failed) sill__str_putf(s, "; %llu rows cannot be used", (unsigned long long)d->n_failed);
    sill__str_puts(s, "\n\n");
    if (d->n_coders > 1) put_agreement(s, r);
    put_distribution(s, r);
    for (size_t i = 0; i < r->n_versus; i++) put_versus(s, r, &r->versus[i]);
    if (d->n_probs) put_calibration(s, r);
    if (d->o->by) put_groups(s, r);
    if (d->o->boot)
        sill__str_putf(s, "\nintervals: %d resamples of the rows, seed %llu%s\n", (int)d->o->boot, (unsigned long long)d->o->seed,
                       r->n_versus ? "; corrected shares: normal" : "");
    plain(s);
}

/* ---- JSON */

static void key(sill__str *s, const char *name) { sill__str_putf(s, "\"%s\":", name); }

static void json_text(sill__str *s, const char *name, agree_text t) {
    if (name) key(s, name);
    sill__put_json_string(s, t.p, t.n);
}

static void json_number(sill__str *s, const char *name, double v) {
    key(s, name);
    sill__put_json_f64(s, v);
}

static void json_stat(sill__str *s, const char *name, double value, double low, double high, const char *why) {
    key(s, name);
    sill__str_puts(s, "{");
    json_number(s, "value", value);
    if (isnan(value)) {
        sill__str_puts(s, ",");
        json_text(s, "why", (agree_text){(char *)(why ? why : "nothing to count"), strlen(why ? why : "nothing to count")});
    } else {
        sill__str_puts(s, ",");
        json_number(s, "low", low);
        sill__str_puts(s, ",");
        json_number(s, "high", high);
    }
    sill__str_puts(s, "}");
}

static void json_agree_stat(sill__str *s, const char *name, const agree_stat *v) { json_stat(s, name, v->value, v->low, v->high, v->why); }

static void json_agreement(sill__str *s, const agree_result *r) {
    const agree_data *d = r->data;
    sill__str_puts(s, ",\n \"agreement\":{");
    json_number(s, "rows", r->n_units);
    sill__str_puts(s, ",");
    json_number(s, "values", r->n_values);
    sill__str_puts(s, ",");
    json_number(s, "complete_rows", r->n_complete);
    sill__str_puts(s, ",\n  ");
    json_agree_stat(s, "percent", &r->percent);
    sill__str_puts(s, ",\n  ");
    json_agree_stat(s, "krippendorff_alpha", &r->alpha);
    sill__str_puts(s, ",\n  ");
    json_agree_stat(s, "fleiss_kappa", &r->fleiss);
    sill__str_puts(s, ",\n  ");
    json_agree_stat(s, "mean_cohen_kappa", &r->mean_kappa);
    sill__str_puts(s, "},\n \"pairs\":[");
    for (size_t i = 0; i < r->n_pairs; i++) {
        const agree_pair *p = &r->pairs[i];
        sill__str_puts(s, i ? ",\n  {\"coders\":[" : "\n  {\"coders\":[");
        json_text(s, NULL, d->coders[p->a]);
        sill__str_puts(s, ",");
        json_text(s, NULL, d->coders[p->b]);
        sill__str_puts(s, "],");
        json_number(s, "rows", p->n);
        sill__str_puts(s, ",");
        json_agree_stat(s, "percent", &p->percent);
        sill__str_puts(s, ",");
        json_agree_stat(s, "kappa", &p->kappa);
        if (d->o->level != SILL_LEVEL_NOMINAL) {
            sill__str_puts(s, ",");
            json_agree_stat(s, "kappa_linear", &p->linear);
            sill__str_puts(s, ",");
            json_agree_stat(s, "kappa_quadratic", &p->quadratic);
        }
        sill__str_puts(s, "}");
    }
    sill__str_puts(s, "]");
}

static void json_averages(sill__str *s, const char *name, const sill__averages *a) {
    sill__str_puts(s, ",\n   ");
    key(s, name);
    sill__str_puts(s, "{");
    json_number(s, "precision", a->precision);
    sill__str_puts(s, ",");
    json_number(s, "recall", a->recall);
    sill__str_puts(s, ",");
    json_number(s, "f1", a->f1);
    sill__str_puts(s, "}");
}

static void json_labels(sill__str *s, const agree_result *r, const agree_versus *v) {
    const agree_data *d = r->data;
    static const char *const names[] = {"precision", "recall", "f1"};
    static const char *const whys[] = {"the label is never given", "the label is not in gold", "the label is in neither"};
    sill__str_puts(s, ",\n   \"labels\":[");
    for (size_t k = 0; k < d->labels.n; k++) {
        const sill__label_score *l = &v->labels[k];
        const double of[] = {l->precision, l->recall, l->f1};
        sill__str_puts(s, k ? ",\n    {" : "\n    {");
        json_text(s, "label", d->labels.items[k]);
        sill__str_puts(s, ",");
        json_number(s, "gold", l->n_gold);
        sill__str_puts(s, ",");
        json_number(s, "given", l->n_given);
        for (size_t i = 0; i < 3; i++) {
            sill__str_puts(s, ",");
            json_stat(s, names[i], of[i], v->intervals[8 + 3 * k + i].low, v->intervals[8 + 3 * k + i].high, whys[i]);
        }
        sill__str_puts(s, "}");
    }
    sill__str_puts(s, "],\n   \"confusion\":[");
    for (size_t i = 0; i < d->labels.n; i++) {
        sill__str_puts(s, i ? ",[" : "[");
        for (size_t j = 0; j < d->labels.n; j++) sill__str_putf(s, "%s%.0f", j ? "," : "", v->cells[i * d->labels.n + j]);
        sill__str_puts(s, "]");
    }
    sill__str_puts(s, "],\n   \"prevalence\":[");
    for (size_t k = 0; k < d->labels.n; k++) {
        const sill__prevalence *p = &v->prevalence[k];
        sill__str_puts(s, k ? ",\n    {" : "\n    {");
        json_text(s, "label", d->labels.items[k]);
        const double of[] = {p->machine, p->corrected, p->se, p->low, p->high};
        static const char *const keys[] = {"given", "corrected", "se", "low", "high"};
        for (size_t i = 0; i < 5; i++) {
            sill__str_puts(s, ",");
            json_number(s, keys[i], of[i]);
        }
        sill__str_puts(s, "}");
    }
    sill__str_puts(s, "]");
}

static void json_gold(sill__str *s, const agree_result *r) {
    sill__str_puts(s, ",\n \"gold\":[");
    for (size_t i = 0; i < r->n_versus; i++) {
        const agree_versus *v = &r->versus[i];
        sill__str_puts(s, i ? ",\n  {" : "\n  {");
        json_text(s, "coder", r->data->coders[v->coder]);
        sill__str_puts(s, ",");
        json_number(s, "rows", v->n_sample);
        sill__str_puts(s, ",");
        json_number(s, "labelled_rows", v->n_all);
        sill__str_puts(s, ",\n   ");
        json_stat(s, "accuracy", v->scores.accuracy, v->intervals[0].low, v->intervals[0].high, "no row has both");
        sill__str_puts(s, ",");
        json_stat(s, "kappa", v->scores.kappa, v->intervals[1].low, v->intervals[1].high,
                  v->n_sample > 0 ? "only one label was given, so nothing could differ" : "no row has both");
        sill__str_puts(s, ",");
        json_stat(s, "macro_f1", v->scores.macro.f1, v->intervals[4].low, v->intervals[4].high, "no row has both");
        sill__str_puts(s, ",");
        json_stat(s, "weighted_f1", v->scores.weighted.f1, v->intervals[7].low, v->intervals[7].high, "no row has both");
        json_averages(s, "macro", &v->scores.macro);
        json_averages(s, "weighted", &v->scores.weighted);
        json_averages(s, "micro", &v->scores.micro);
        json_labels(s, r, v);
        sill__str_puts(s, "}");
    }
    sill__str_puts(s, "]");
}

static void json_calibration(sill__str *s, const agree_result *r) {
    sill__str_puts(s, ",\n \"calibration\":{");
    json_number(s, "rows", r->calibration.n);
    sill__str_puts(s, ",");
    json_agree_stat(s, "ece", &r->ece);
    sill__str_puts(s, ",");
    json_number(s, "mce", r->calibration.mce);
    sill__str_puts(s, ",");
    json_agree_stat(s, "brier", &r->brier);
    sill__str_puts(s, ",");
    json_number(s, "accuracy", r->calibration.accuracy);
    sill__str_puts(s, ",");
    json_number(s, "confidence", r->calibration.confidence);
    sill__str_puts(s, ",\n  \"bins\":[");
    for (int32_t i = 0; i < r->data->o->bins; i++) {
        const sill__bin *b = &r->bins[i];
        sill__str_puts(s, i ? "," : "");
        sill__str_putf(s, "{\"rows\":%.0f,", b->n);
        json_number(s, "confidence", b->n > 0 ? b->confidence / b->n : NAN);
        sill__str_puts(s, ",");
        json_number(s, "accuracy", b->n > 0 ? b->hits / b->n : NAN);
        sill__str_puts(s, "}");
    }
    sill__str_puts(s, "]}");
}

static void json_counts(sill__str *s, const char *name, const agree_text *texts, size_t n, const double *counts, size_t k) {
    for (size_t i = 0; i < n; i++) {
        sill__str_puts(s, i ? ",\n  {" : "\n  {");
        json_text(s, name, texts[i]);
        sill__str_puts(s, ",\"counts\":[");
        for (size_t j = 0; j < k; j++) sill__str_putf(s, "%s%.0f", j ? "," : "", counts[i * k + j]);
        sill__str_puts(s, "]}");
    }
}

void agree_put_json(sill__str *s, const agree_result *r) {
    const agree_data *d = r->data;
    sill__str_puts(s, "{");
    json_text(s, "file", (agree_text){(char *)d->file, strlen(d->file)});
    sill__str_putf(s, ",\"rows\":%zu,\"failed_rows\":%llu,\"level\":\"%s\",\"resamples\":%d,\"seed\":%llu,", d->n_rows, (unsigned long long)d->n_failed,
                   agree_levels[d->o->level], (int)d->o->boot, (unsigned long long)d->o->seed);
    json_number(s, "confidence", r->confidence);
    sill__str_puts(s, ",\n \"labels\":[");
    for (size_t k = 0; k < d->labels.n; k++) {
        sill__str_puts(s, k ? "," : "");
        json_text(s, NULL, d->labels.items[k]);
    }
    sill__str_puts(s, "],\n \"coders\":[");
    json_counts(s, "coder", d->coders, d->n_coders, r->counts, d->labels.n);
    sill__str_puts(s, "]");
    if (d->n_coders > 1) json_agreement(s, r);
    if (d->o->gold) json_gold(s, r);
    if (d->n_probs) json_calibration(s, r);
    if (d->o->by) {
        sill__str_puts(s, ",\n \"by\":{");
        json_text(s, "column", (agree_text){(char *)d->o->by, strlen(d->o->by)});
        sill__str_puts(s, ",");
        json_text(s, "coder", d->coders[0]);
        sill__str_puts(s, ",\"values\":[");
        json_counts(s, "value", d->groups.items, d->groups.n, r->by, d->labels.n);
        sill__str_puts(s, "]}");
    }
    sill__str_puts(s, "}\n");
}
