/*
 * agree_plots.c - the plots of `sill agree`'s page: inline SVG without scripts. Colours are the page's variables, so that dark
 * and light, screen and paper share one drawing; those of labels are Okabe and Ito's, which colour-blind people tell apart.
 */
#include <math.h>
#include <string.h>

#include "agree.h"

#define N_COLOURS 8
#define MAX_NAME 40          /* characters beside a dot */
#define put sill__str_putf

static const char *const colours[N_COLOURS] = {"#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#a6a6a6"};
static const char *const on_colours[N_COLOURS] = {"#fff", "#111", "#111", "#111", "#111", "#111", "#111", "#111"};

/* About how wide a text is at 12 px, cut to MAX characters. */
static double text_width(agree_text t, size_t max) {
    const unsigned char *p = (const unsigned char *)t.p, *end = p + t.n;
    double width = 0;
    for (size_t i = 0; p < end && i < max; i++) {
        const int n = sill__utf8_step(p, end);
        width += n >= 3 ? 12.5 : *p == 'm' || *p == 'w' || (*p >= 'A' && *p <= 'Z') ? 8.6 : 6.8;
        p += n < 0 ? -n : n;
    }
    return width;
}

static double widest(const agree_text *texts, size_t n, size_t max) {
    double width = 0;
    for (size_t i = 0; i < n; i++) width = fmax(width, text_width(texts[i], max));
    return width;
}

static void put_text(sill__str *s, double x, double y, const char *more, agree_text t, size_t max) {
    put(s, "<text x=\"%.1f\" y=\"%.1f\" %s>", x, y, more);
    if (text_width(t, t.n + 1) > text_width(t, max)) {
        sill__str_puts(s, "<title>");
        agree_put_escaped(s, t, 0);
        sill__str_puts(s, "</title>");
    }
    agree_put_escaped(s, t, max);
    sill__str_puts(s, "</text>\n");
}

static void begin(sill__str *s, double width, double height, const char *what) {
    put(s, "<svg width=\"%.0f\" height=\"%.0f\" viewBox=\"0 0 %.0f %.0f\" role=\"img\" aria-label=\"%s\">\n", width, height, width, height, what);
}

/* A step of 1, 2 or 5 times a power of ten that cuts RANGE into at most N pieces. */
static double nice_step(double range, int n) {
    double step = pow(10, floor(log10(range / n)));
    if (step * n < range) step *= 2;
    if (step * n < range) step *= 2.5;
    if (step * n < range) step *= 2;
    return step;
}

/* ---- estimates with their intervals */

typedef struct forest { sill__str *s; double low, high, left, width, y; } forest;

static double x_of(const forest *f, double value) { return f->left + (value - f->low) / (f->high - f->low) * f->width; }

static void put_estimate(forest *f, agree_text name, const agree_stat *v) {
    sill__str *s = f->s;
    put_text(s, f->left - 12, f->y + 4, "text-anchor=\"end\"", name, MAX_NAME);
    if (isnan(v->value)) {
        put(s, "<text x=\"%.1f\" y=\"%.1f\" class=\"soft\">undefined: %s</text>\n", f->left + 8, f->y + 4, v->why ? v->why : "");
    } else {
        if (!isnan(v->low))
            put(s, "<line x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\" class=\"range\"/>\n", x_of(f, v->low), x_of(f, v->high), f->y, f->y);
        put(s, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"5\" class=\"dot\"/>\n", x_of(f, v->value), f->y);
        put(s, "<text x=\"%.1f\" y=\"%.1f\" class=\"num\">", f->left + f->width + 14, f->y + 4);
        agree_put_number(s, v->value, 3);
        if (!isnan(v->low)) {
            sill__str_puts(s, " <tspan class=\"soft\">");
            agree_put_number(s, v->low, 3);
            sill__str_puts(s, " to ");
            agree_put_number(s, v->high, 3);
            sill__str_puts(s, "</tspan>");
        }
        sill__str_puts(s, "</text>\n");
    }
    f->y += 28;
}

static void put_grid(const forest *f, double top, double bottom, bool percent) {
    const double step = nice_step(f->high - f->low, 6);
    for (double v = ceil(f->low / step - 1e-9) * step; v <= f->high + 1e-9; v += step) {
        put(f->s, "<line x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\" class=\"%s\"/>\n", x_of(f, v), x_of(f, v), top, bottom, fabs(v) < 1e-9 ? "axis" : "grid");
        put(f->s, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\" class=\"soft\">", x_of(f, v), bottom + 18);
        agree_put_number(f->s, percent ? 100 * v : v, percent ? (step < 0.00999 ? 1 : 0) : step < 0.0999 ? 2 : 1);
        put(f->s, "%s</text>\n", percent ? " %" : "");
    }
}

static agree_text of_string(const char *text) { return (agree_text){(char *)text, strlen(text)}; }

void agree_plot_estimates(sill__str *s, const agree_result *r) {
    const agree_data *d = r->data;
    const size_t n_pairs = SILL_MIN(r->n_pairs, (size_t)30);
    const size_t rows = 3 + (r->n_pairs > 1) + n_pairs;
    char names[30][200], alpha[64];
    agree_stat low = r->percent;
    forest f = {.s = s, .low = 0, .high = 1, .left = 196, .width = 440, .y = 26};
    for (size_t i = 0; i < n_pairs; i++) {
        const agree_pair *p = &r->pairs[i];
        snprintf(names[i], sizeof names[i], "Cohen\xe2\x80\x99s kappa, %.80s \xe2\x80\x93 %.80s", d->coders[p->a].p, d->coders[p->b].p);
        f.left = fmax(f.left, text_width((agree_text){names[i], strlen(names[i])}, MAX_NAME) + 16);
        if (!isnan(p->kappa.value)) f.low = fmin(f.low, isnan(p->kappa.low) ? p->kappa.value : p->kappa.low);
    }
    const agree_stat *all[] = {&r->alpha, &r->fleiss, &low};
    for (int i = 0; i < 3; i++)
        if (!isnan(all[i]->value)) f.low = fmin(f.low, isnan(all[i]->low) ? all[i]->value : all[i]->low);
    if (f.low < 0) f.low = fmax(-1, floor(f.low * 10) / 10);
    begin(s, f.left + f.width + 200, 28.0 * (double)rows + 46, "Agreement with intervals");
    put_grid(&f, 10, 28.0 * (double)rows + 12, false);
    snprintf(alpha, sizeof alpha, "Krippendorff\xe2\x80\x99s alpha, %s", agree_levels[d->o->level]);
    put_estimate(&f, of_string(alpha), &r->alpha);
    put_estimate(&f, of_string("Fleiss\xe2\x80\x99 kappa"), &r->fleiss);
    put_estimate(&f, of_string("percent agreement"), &r->percent);
    if (r->n_pairs > 1) put_estimate(&f, of_string("Cohen\xe2\x80\x99s kappa, mean of pairs"), &r->mean_kappa);
    for (size_t i = 0; i < n_pairs; i++) put_estimate(&f, of_string(names[i]), &r->pairs[i].kappa);
    sill__str_puts(s, "</svg>\n");
}

/* ---- confusion matrix */

void agree_plot_confusion(sill__str *s, const agree_result *r, const agree_versus *v) {
    const agree_data *d = r->data;
    const size_t k = d->labels.n, max = 18;
    const double cell = k <= 8 ? 76 : k <= 15 ? 50 : 38, names = widest(d->labels.items, k, max), left = names + 24;
    const bool slant = names > cell - 8;
    const double top = slant ? 26 + 0.58 * names : 34, width = left + cell * (double)k + (slant ? 0.82 * names : 0) + 10;
    begin(s, width, top + cell * (double)k + 10, "Confusion matrix");
    for (size_t j = 0; j < k; j++) {
        char more[96];
        const double x = left + cell * ((double)j + 0.5);
        if (slant) snprintf(more, sizeof more, "transform=\"rotate(-35 %.1f %.1f)\"", x - 2, top - 10);
        else snprintf(more, sizeof more, "text-anchor=\"middle\"");
        put_text(s, slant ? x - 2 : x, top - 10, more, d->labels.items[j], max);
    }
    for (size_t i = 0; i < k; i++) {
        const double y = top + cell * (double)i;
        put_text(s, left - 10, y + cell / 2 + 4, "text-anchor=\"end\"", d->labels.items[i], max);
        for (size_t j = 0; j < k; j++) {
            const double n = v->cells[i * k + j], share = v->labels[i].n_gold > 0 ? n / v->labels[i].n_gold : 0, x = left + cell * (double)j;
            put(s, "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" class=\"cell\"/><rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" "
                   "class=\"heat\" fill-opacity=\"%.3f\"/>\n", x + 1, y + 1, cell - 2, cell - 2, x + 1, y + 1, cell - 2, cell - 2, 0.95 * share);
            const char *ink = share > 0.55 ? "ink" : n > 0 ? "num" : "soft";
            put(s, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\" class=\"%s\"%s>", x + cell / 2, y + cell / 2 + (k <= 8 && n > 0 ? -1 : 4), ink,
                k > 15 ? " font-size=\"10\"" : k <= 8 ? " font-size=\"15\"" : "");
            agree_put_count(s, n);
            sill__str_puts(s, "</text>\n");
            if (k <= 8 && n > 0)
                put(s, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\" class=\"%s\" font-size=\"11\">%.0f %%</text>\n", x + cell / 2, y + cell / 2 + 16,
                    share > 0.55 ? "ink" : share > 0.3 ? "num" : "soft", 100 * share);
        }
    }
    sill__str_puts(s, "</svg>\n");
}

/* ---- reliability diagram */

void agree_plot_reliability(sill__str *s, const agree_result *r) {
    const size_t n = (size_t)r->data->o->bins;
    const double left = 62, top = 14, side = 380, below = top + side + 24, tall = 70;
    double most = 1;
    for (size_t i = 0; i < n; i++) most = fmax(most, r->bins[i].n);
    begin(s, left + side + 30, below + tall + 52, "Reliability diagram");
    for (int i = 0; i <= 5; i++) {
        const double at = i / 5.0, y = top + side * (1 - at), x = left + side * at;
        put(s, "<line x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\" class=\"%s\"/>", left, left + side, y, y, i ? "grid" : "axis");
        put(s, "<line x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\" class=\"grid\"/>", x, x, top, below + tall);
        put(s, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\" class=\"soft\">%.1f</text>", left - 8, y + 4, at);
        put(s, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\" class=\"soft\">%.1f</text>\n", x, below + tall + 18, at);
    }
    put(s, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" class=\"ideal\"/>\n", left, top + side, left + side, top);
    for (size_t i = 0; i < n; i++) {
        const sill__bin *b = &r->bins[i];
        const double x = left + side * (double)i / (double)n, w = side / (double)n, h = tall * b->n / most;
        if (!(b->n > 0)) continue;
        const double mean = b->confidence / b->n, right = b->hits / b->n, px = left + side * mean, py = top + side * (1 - right);
        put(s, "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" class=\"bar\"/>\n", x + 1, below + tall - h, fmax(w - 2, 1), h);
        put(s, "<line x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\" class=\"gap\"/>", px, px, py, top + side * (1 - mean));
        put(s, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"%.1f\" class=\"dot\"><title>", px, py, 3.5 + 6 * sqrt(b->n / most));
        agree_put_count(s, b->n);
        put(s, " rows, mean probability %.3f, %.3f right</title></circle>\n", mean, right);
    }
    put(s, "<line x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\" class=\"axis\"/>\n", left, left + side, below + tall, below + tall);
    put(s, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\" class=\"soft\">", left - 8, below + 10);
    agree_put_count(s, most);
    put(s, "</text><text x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\" class=\"soft\">rows</text>\n", left - 8, below + tall);
    put(s, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">probability of the first choice</text>\n", left + side / 2, below + tall + 40);
    put(s, "<text transform=\"translate(16 %.1f) rotate(-90)\" text-anchor=\"middle\">share that is right</text>\n</svg>\n", top + side / 2);
}

/* ---- labels by the values of a column */

typedef struct shares { size_t order[N_COLOURS], n; bool rest; } shares; /* labels with a colour; the others share the last one */

/* Up to eight labels have colours of their own; of more, the seven most frequent. */
static void choose(const agree_result *r, shares *c) {
    const size_t k = r->data->labels.n;
    c->rest = k > N_COLOURS;
    for (size_t i = 0; i < k && !c->rest; i++) c->order[c->n++] = i;
    while (c->rest && c->n < N_COLOURS - 1) {
        size_t best = k;
        for (size_t i = 0; i < k; i++) {
            bool taken = false;
            for (size_t j = 0; j < c->n; j++) taken = taken || c->order[j] == i;
            if (!taken && (best == k || r->counts[i] > r->counts[best])) best = i;
        }
        c->order[c->n++] = best;
    }
}

/* Share of a group from label number I of the choice on; the last stands for the rest. */
static double share_of(const agree_result *r, const shares *c, size_t group, size_t i, double n) {
    const double *counts = r->by + group * r->data->labels.n;
    double sum = 0;
    if (i < c->n) return counts[c->order[i]] / n;
    for (size_t j = 0; j < c->n; j++) sum += counts[c->order[j]];
    return (n - sum) / n;
}

static double group_rows(const agree_result *r, size_t group) {
    double n = 0;
    for (size_t j = 0; j < r->data->labels.n; j++) n += r->by[group * r->data->labels.n + j];
    return n;
}

static void put_legend(sill__str *s, const agree_result *r, const shares *c) {
    sill__str_puts(s, "<p class=\"legend\">");
    for (size_t i = 0; i < c->n + c->rest; i++) {
        put(s, "<span><svg width=\"14\" height=\"14\" aria-hidden=\"true\"><rect width=\"14\" height=\"14\" rx=\"2\" fill=\"%s\"/></svg> <bdi>",
            colours[i < c->n ? i : N_COLOURS - 1]);
        if (i < c->n) agree_put_escaped(s, r->data->labels.items[c->order[i]], 60);
        else put(s, "%zu others", r->data->labels.n - c->n);
        sill__str_puts(s, "</bdi></span> ");
    }
    sill__str_puts(s, "</p>\n");
}

static bool all_numbers(const agree_names *names) {
    for (size_t i = 0; i < names->n; i++)
        if (!names->items[i].n || strspn(names->items[i].p, "0123456789-.") != names->items[i].n) return false;
    return true;
}

/* Numbers, as years are, go from left to right. */
static void put_columns(sill__str *s, const agree_result *r, const shares *c) {
    const agree_names *g = &r->data->groups;
    const double w = fmax(5, fmin(64, 760 / (double)g->n)), left = 52, top = 8, tall = 260, name = widest(g->items, g->n, 10) + 10;
    const size_t every = (size_t)ceil(name / w);
    begin(s, left + w * (double)g->n + name, top + tall + 34, "Labels by column");
    for (int i = 0; i <= 4; i++) {
        const double y = top + tall * (1 - i / 4.0);
        put(s, "<line x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\" class=\"%s\"/>", left - 4, left + w * (double)g->n, y, y, i ? "grid" : "axis");
        put(s, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\" class=\"soft\">%d %%</text>\n", left - 8, y + 4, 25 * i);
    }
    for (size_t i = 0; i < g->n; i++) {
        const double n = group_rows(r, i), x = left + w * (double)i;
        double y = top + tall;
        for (size_t j = 0; n > 0 && j < c->n + c->rest; j++) {
            const double h = tall * share_of(r, c, i, j, n);
            if (!(h > 0)) continue;
            y -= h;
            put(s, "<rect x=\"%.1f\" y=\"%.2f\" width=\"%.1f\" height=\"%.2f\" fill=\"%s\" class=\"part\"/>", x + 0.5, y, w - 1, h, colours[j < c->n ? j : N_COLOURS - 1]);
        }
        if (i % every == 0) put_text(s, x + w / 2, top + tall + 20, "text-anchor=\"middle\" class=\"soft\"", g->items[i], 10);
    }
    sill__str_puts(s, "\n</svg>\n");
}

static void put_rows(sill__str *s, const agree_result *r, const shares *c) {
    const agree_names *g = &r->data->groups;
    const double left = fmax(60, widest(g->items, g->n, 26) + 18), width = 560;
    begin(s, left + width + 90, 28.0 * (double)g->n + 10, "Labels by column");
    for (size_t i = 0; i < g->n; i++) {
        const double n = group_rows(r, i), y = 6 + 28.0 * (double)i;
        double x = left;
        put_text(s, left - 10, y + 15, "text-anchor=\"end\"", g->items[i].n ? g->items[i] : of_string("(empty)"), 26);
        for (size_t j = 0; n > 0 && j < c->n + c->rest; j++) {
            const double share = share_of(r, c, i, j, n);
            const size_t colour = j < c->n ? j : N_COLOURS - 1;
            if (!(share > 0)) continue;
            put(s, "<rect x=\"%.2f\" y=\"%.1f\" width=\"%.2f\" height=\"22\" fill=\"%s\" class=\"part\"/>", x, y, width * share, colours[colour]);
            if (width * share > 40)
                put(s, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\" style=\"fill:%s\" font-size=\"11\">%.0f %%</text>", x + width * share / 2, y + 15, on_colours[colour], 100 * share);
            x += width * share;
        }
        put(s, "<text x=\"%.1f\" y=\"%.1f\" class=\"soft num\">", left + width + 10, y + 15);
        agree_put_count(s, n);
        sill__str_puts(s, "</text>\n");
    }
    sill__str_puts(s, "</svg>\n");
}

void agree_plot_groups(sill__str *s, const agree_result *r) {
    shares c = {.n = 0};
    choose(r, &c);
    put_legend(s, r, &c);
    sill__str_puts(s, "<div class=\"wide\">");
    if (r->data->groups.n > 1 && all_numbers(&r->data->groups)) put_columns(s, r, &c);
    else put_rows(s, r, &c);
    sill__str_puts(s, "</div>\n");
}

/* ---- shares as given and corrected */

void agree_plot_prevalence(sill__str *s, const agree_result *r, const agree_versus *v) {
    const agree_data *d = r->data;
    const size_t n = SILL_MIN(d->labels.n, (size_t)40);
    double high = 0.05;
    for (size_t k = 0; k < n; k++) {
        const sill__prevalence *p = &v->prevalence[k];
        high = fmax(high, fmax(p->machine, isnan(p->high) ? p->corrected : p->high));
    }
    const double step = nice_step(high, 6);
    forest f = {.s = s, .high = fmin(1, ceil(high / step - 1e-9) * step), .left = fmax(80, widest(d->labels.items, n, 26) + 20), .width = 420, .y = 26};
    begin(s, f.left + f.width + 230, 28.0 * (double)n + 46, "Shares as given and corrected");
    put_grid(&f, 10, 28.0 * (double)n + 12, true);
    for (size_t k = 0; k < n; k++, f.y += 28) {
        const sill__prevalence *p = &v->prevalence[k];
        const double corrected = fmin(fmax(p->corrected, 0), 1);
        put_text(s, f.left - 12, f.y + 4, "text-anchor=\"end\"", d->labels.items[k], 26);
        if (!isnan(p->low)) put(s, "<line x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\" class=\"range\"/>\n", x_of(&f, p->low), x_of(&f, p->high), f.y, f.y);
        put(s, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"5\" class=\"dot\"/>", x_of(&f, corrected), f.y);
        put(s, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"5\" class=\"ring\"/>\n", x_of(&f, p->machine), f.y);
        put(s, "<text x=\"%.1f\" y=\"%.1f\" class=\"num\">%.1f %% <tspan class=\"soft\">(given %.1f %%)</tspan></text>\n", f.left + f.width + 14, f.y + 4, 100 * corrected, 100 * p->machine);
    }
    sill__str_puts(s, "</svg>\n");
}
