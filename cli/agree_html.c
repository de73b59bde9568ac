/*
 * agree_html.c - the page of `sill agree`: one file that needs nothing else and runs no script. What comes from the data is
 * escaped (agree_put_escaped), and the page forbids itself to load anything.
 */
#include <math.h>
#include <string.h>

#include "agree.h"

#define put sill__str_putf

static const char head[] =
    "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
    "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n";

static const char style[] =
    "<style>\n"
    ":root{color-scheme:light dark;--bg:#fff;--fg:#1b1f24;--soft:#59636e;--line:#d8dce1;--card:#f5f6f8;--accent:#0072b2;--warm:#c04a00}\n"
    "@media(prefers-color-scheme:dark){:root{--bg:#14171b;--fg:#e7eaee;--soft:#a3adb8;--line:#363d46;--card:#1d2126;--accent:#56b4e9;--warm:#f28e4b}}\n"
    "@media print{:root{color-scheme:light;--bg:#fff;--fg:#1b1f24;--soft:#59636e;--line:#d8dce1;--card:#f5f6f8;--accent:#0072b2;--warm:#c04a00}\n"
    "main{max-width:none;padding:0}section{break-inside:avoid-page}*{print-color-adjust:exact;-webkit-print-color-adjust:exact}}\n"
    "body{margin:0;background:var(--bg);color:var(--fg);font:16px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif}\n"
    "main{max-width:940px;margin:0 auto;padding:32px 24px 64px}\n"
    "h1{font-size:28px;line-height:1.25;margin:0 0 4px;overflow-wrap:anywhere}h2{font-size:21px;margin:44px 0 8px;padding-top:16px;border-top:1px solid var(--line);overflow-wrap:anywhere}"
    "h3{font-size:16px;margin:28px 0 6px}\n"
    "p{margin:6px 0 12px;max-width:72ch}.soft,p.note{color:var(--soft)}p.note{font-size:14px}\n"
    ".cards{display:flex;flex-wrap:wrap;gap:12px;margin:20px 0 0;padding:0;list-style:none}\n"
    ".cards li{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:12px 16px;min-width:120px}\n"
    ".cards b{display:block;font-size:26px;line-height:1.2;font-weight:600;font-variant-numeric:tabular-nums}\n"
    ".cards span{color:var(--soft);font-size:14px}\n"
    "table{border-collapse:collapse;margin:10px 0;font-size:14px;font-variant-numeric:tabular-nums}\n"
    "th,td{padding:5px 12px;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap}\n"
    "th{color:var(--soft);font-weight:600}th:first-child,td:first-child{text-align:left;padding-left:0;white-space:normal;overflow-wrap:anywhere;max-width:340px}\n"
    "tr.sum td{color:var(--soft)}.wide{overflow-x:auto}figure{margin:12px 0;overflow-x:auto}\n"
    "figcaption{color:var(--soft);font-size:14px;margin-top:2px;max-width:72ch}\n"
    ".legend{display:flex;flex-wrap:wrap;gap:4px 18px;font-size:14px;max-width:none}.legend span{display:inline-flex;align-items:center;gap:6px}\n"
    "svg{display:block;font-size:12px}svg text{fill:var(--fg);unicode-bidi:isolate}svg text.soft,svg .soft{fill:var(--soft)}svg .num{font-variant-numeric:tabular-nums}\n"
    "svg text.ink{fill:var(--bg)}.grid{stroke:var(--line)}.axis{stroke:var(--soft)}.ideal{stroke:var(--soft);stroke-dasharray:5 4}\n"
    ".range{stroke:var(--accent);stroke-width:3;stroke-linecap:round;stroke-opacity:.5}.dot{fill:var(--accent);stroke:var(--bg)}\n"
    ".ring{fill:none;stroke:var(--warm);stroke-width:2}.bar{fill:var(--accent);fill-opacity:.45}.gap{stroke:var(--warm);stroke-width:2}\n"
    ".cell{fill:var(--card);stroke:var(--line)}.heat{fill:var(--accent)}.part{stroke:var(--bg);stroke-width:.6}\n"
    "</style>\n";

static void put_cell(sill__str *s, double value, int places) {
    sill__str_puts(s, "<td>");
    agree_put_number(s, value, places);
    sill__str_puts(s, "</td>");
}

static void put_count_cell(sill__str *s, double value) {
    sill__str_puts(s, "<td>");
    agree_put_count(s, value);
    sill__str_puts(s, "</td>");
}

static void put_name_cell(sill__str *s, agree_text t) {
    sill__str_puts(s, "<tr><td><bdi>");
    agree_put_escaped(s, t, 200);
    sill__str_puts(s, "</bdi></td>");
}

static void put_interval_cell(sill__str *s, double low, double high) {
    sill__str_puts(s, "<td class=\"soft\">");
    if (!isnan(low)) {
        agree_put_number(s, low, 3);
        sill__str_puts(s, " to ");
        agree_put_number(s, high, 3);
    }
    sill__str_puts(s, "</td>");
}

static agree_text of_string(const char *text) { return (agree_text){(char *)text, strlen(text)}; }

static void put_card(sill__str *s, const char *what, double value, int places) {
    if (isnan(value)) return;
    sill__str_puts(s, "<li><b>");
    if (places) agree_put_number(s, value, places);
    else agree_put_count(s, value);
    put(s, "</b><span>%s</span></li>\n", what);
}

static void put_top(sill__str *s, const agree_result *r) {
    const agree_data *d = r->data;
    sill__str_puts(s, head);
    sill__str_puts(s, "<title>Agreement: ");
    agree_put_escaped(s, of_string(d->file), 80);
    sill__str_puts(s, "</title>\n");
    sill__str_puts(s, style);
    sill__str_puts(s, "</head>\n<body>\n<main>\n<h1>Agreement in <bdi>");
    agree_put_escaped(s, of_string(strcmp(d->file, "-") ? d->file : "standard input"), 120);
    sill__str_puts(s, "</bdi></h1>\n<p class=\"soft\">Coded by ");
    for (size_t i = 0; i < d->n_coders; i++) {
        sill__str_puts(s, i ? ", <bdi>" : "<bdi>");
        agree_put_escaped(s, d->coders[i], 60);
        sill__str_puts(s, "</bdi>");
    }
    if (d->o->gold) {
        sill__str_puts(s, "; right labels: <bdi>");
        agree_put_escaped(s, of_string(d->o->gold), 60);
        sill__str_puts(s, "</bdi>");
    }
    put(s, "; %s labels.</p>\n<ul class=\"cards\">\n", agree_levels[d->o->level]);
    put_card(s, "rows", (double)d->n_rows, 0);
    put_card(s, "labels", (double)d->labels.n, 0);
    if (d->n_coders > 1) put_card(s, "Krippendorff\xe2\x80\x99s alpha", r->alpha.value, 3);
    if (r->n_versus) {
        put_card(s, "rows with gold", r->versus[0].n_sample, 0);
        put_card(s, "accuracy", r->versus[0].scores.accuracy, 3);
        put_card(s, "macro F1", r->versus[0].scores.macro.f1, 3);
    }
    if (d->n_probs) put_card(s, "calibration error", r->ece.value, 3);
    sill__str_puts(s, "</ul>\n");
    if (d->n_failed) put(s, "<p class=\"note\">%llu rows could not be used and are left out.</p>\n", (unsigned long long)d->n_failed);
}

static void put_weighted(sill__str *s, const agree_result *r) {
    const agree_data *d = r->data;
    put(s, "<h3>Weighted kappas</h3>\n<div class=\"wide\"><table><tr><th>pair</th><th>rows</th><th>linear</th><th>%g&#8239;%% interval</th><th>quadratic</th>"
           "<th>%g&#8239;%% interval</th></tr>\n", 100 * r->confidence, 100 * r->confidence);
    for (size_t i = 0; i < r->n_pairs; i++) {
        const agree_pair *p = &r->pairs[i];
        sill__str_puts(s, "<tr><td><bdi>");
        agree_put_escaped(s, d->coders[p->a], 60);
        sill__str_puts(s, "</bdi> \xe2\x80\x93 <bdi>");
        agree_put_escaped(s, d->coders[p->b], 60);
        sill__str_puts(s, "</bdi></td>");
        put_count_cell(s, p->n);
        put_cell(s, p->linear.value, 3);
        put_interval_cell(s, p->linear.low, p->linear.high);
        put_cell(s, p->quadratic.value, 3);
        put_interval_cell(s, p->quadratic.low, p->quadratic.high);
        sill__str_puts(s, "</tr>\n");
    }
    sill__str_puts(s, "</table></div>\n");
}

static void put_agreement(sill__str *s, const agree_result *r) {
    sill__str_puts(s, "<section>\n<h2>Agreement of the coders</h2>\n<p>");
    agree_put_count(s, r->n_units);
    sill__str_puts(s, " rows have labels of two coders or more (");
    agree_put_count(s, r->n_values);
    sill__str_puts(s, " labels), ");
    agree_put_count(s, r->n_complete);
    sill__str_puts(s, " of all.</p>\n<figure>");
    agree_plot_estimates(s, r);
    if (r->data->o->boot) put(s, "<figcaption>Points: estimates; bars: %g&#8239;%% intervals. ", 100 * r->confidence);
    else sill__str_puts(s, "<figcaption>");
    sill__str_puts(s, "Krippendorff (2018) asks alpha to reach 0.800, and 0.667 where tentative conclusions will do.");
    if (r->n_pairs > 30) sill__str_puts(s, " The first 30 pairs are shown; --json has all.");
    sill__str_puts(s, "</figcaption></figure>\n");
    if (r->data->o->level != SILL_LEVEL_NOMINAL) put_weighted(s, r);
    sill__str_puts(s, "</section>\n");
}

static void put_distribution(sill__str *s, const agree_result *r) {
    const agree_data *d = r->data;
    const size_t k = d->labels.n, shown = SILL_MIN(k, (size_t)200);
    sill__str_puts(s, "<section>\n<h2>Labels</h2>\n<div class=\"wide\"><table><tr><th>label</th>");
    for (size_t c = 0; c < d->n_coders; c++) {
        sill__str_puts(s, "<th colspan=\"2\"><bdi>");
        agree_put_escaped(s, d->coders[c], 40);
        sill__str_puts(s, "</bdi></th>");
    }
    sill__str_puts(s, "</tr>\n");
    for (size_t i = 0; i < shown; i++) {
        put_name_cell(s, d->labels.items[i]);
        for (size_t c = 0; c < d->n_coders; c++) {
            double n = 0;
            for (size_t j = 0; j < k; j++) n += r->counts[c * k + j];
            put_count_cell(s, r->counts[c * k + i]);
            if (n > 0) put(s, "<td class=\"soft\">%.1f&#8239;%%</td>", 100 * r->counts[c * k + i] / n);
            else sill__str_puts(s, "<td></td>");
        }
        sill__str_puts(s, "</tr>\n");
    }
    sill__str_puts(s, "</table></div>\n");
    if (shown < k) put(s, "<p class=\"note\">and %zu more labels</p>\n", k - shown);
    sill__str_puts(s, "</section>\n");
}

static void put_averages(sill__str *s, const char *name, const sill__averages *a, const sill__interval *in) {
    put(s, "<tr class=\"sum\"><td>%s</td><td></td><td></td>", name);
    put_cell(s, a->precision, 3);
    put_cell(s, a->recall, 3);
    put_cell(s, a->f1, 3);
    put_interval_cell(s, in ? in->low : NAN, in ? in->high : NAN);
    sill__str_puts(s, "</tr>\n");
}

static void put_scores(sill__str *s, const agree_result *r, const agree_versus *v) {
    const agree_data *d = r->data;
    bool undefined = false;
    put(s, "<h3>By label</h3>\n<div class=\"wide\"><table><tr><th>label</th><th>gold</th><th>given</th><th>precision</th><th>recall</th><th>F1</th><th>%s</th></tr>\n",
        d->o->boot ? "interval of F1" : "");
    for (size_t k = 0; k < d->labels.n; k++) {
        const sill__label_score *l = &v->labels[k];
        if (!(l->n_gold + l->n_given > 0)) continue;
        undefined = undefined || isnan(l->precision) || isnan(l->recall);
        put_name_cell(s, d->labels.items[k]);
        put_count_cell(s, l->n_gold);
        put_count_cell(s, l->n_given);
        put_cell(s, l->precision, 3);
        put_cell(s, l->recall, 3);
        put_cell(s, l->f1, 3);
        put_interval_cell(s, v->intervals[10 + 3 * k].low, v->intervals[10 + 3 * k].high);
        sill__str_puts(s, "</tr>\n");
    }
    put_averages(s, "macro", &v->scores.macro, &v->intervals[4]);
    put_averages(s, "weighted", &v->scores.weighted, &v->intervals[7]);
    put_averages(s, "micro", &v->scores.micro, NULL);
    sill__str_puts(s, "</table></div>\n");
    if (undefined) sill__str_puts(s, "<p class=\"note\">- : undefined, the label is never given or not in gold; macro and weighted count it as 0.</p>\n");
}

static void put_stat_row(sill__str *s, const char *name, double value, const sill__interval *in, const char *why) {
    put_name_cell(s, of_string(name));
    put_cell(s, value, 3);
    if (isnan(value)) put(s, "<td class=\"soft\">undefined: %s</td>", why);
    else put_interval_cell(s, in->low, in->high);
    sill__str_puts(s, "</tr>\n");
}

static void put_prevalence(sill__str *s, const agree_result *r, const agree_versus *v) {
    const agree_data *d = r->data;
    sill__str_puts(s, "<h3>Share of each label in all rows</h3>\n<p>");
    agree_put_count(s, v->n_all);
    sill__str_puts(s, " rows have a label of this coder; ");
    agree_put_count(s, v->n_sample);
    put(s, " of them have gold%s. Corrected: the share as given, plus the mean difference between gold and given labels in the gold rows.</p>\n<figure>",
        d->weight ? ", weighted by how they were drawn" : "");
    agree_plot_prevalence(s, r, v);
    put(s, "<figcaption>Dots: corrected, with %g&#8239;%% intervals; rings: as given. The correction holds if the gold rows are a random sample of the rows%s.</figcaption></figure>\n",
        100 * r->confidence, d->weight ? " with the given weights" : "");
    if (d->labels.n > 40) sill__str_puts(s, "<p class=\"note\">The first 40 labels are shown; --json has all.</p>\n");
}

static void put_versus(sill__str *s, const agree_result *r, const agree_versus *v) {
    const agree_data *d = r->data;
    sill__str_puts(s, "<section>\n<h2><bdi>");
    agree_put_escaped(s, d->coders[v->coder], 60);
    sill__str_puts(s, "</bdi> against gold</h2>\n");
    if (!(v->n_sample > 0)) {
        sill__str_puts(s, "<p>No row has both.</p>\n</section>\n");
        return;
    }
    sill__str_puts(s, "<div class=\"wide\"><table><tr><th>");
    agree_put_count(s, v->n_sample);
    put(s, " rows</th><th>value</th><th>");
    if (d->o->boot) put(s, "%g&#8239;%% interval", 100 * r->confidence);
    sill__str_puts(s, "</th></tr>\n");
    put_stat_row(s, "accuracy", v->scores.accuracy, &v->intervals[0], "");
    put_stat_row(s, "Cohen\xe2\x80\x99s kappa", v->scores.kappa, &v->intervals[1], "only one label was given");
    put_stat_row(s, "macro F1", v->scores.macro.f1, &v->intervals[4], "");
    put_stat_row(s, "weighted F1", v->scores.weighted.f1, &v->intervals[7], "");
    sill__str_puts(s, "</table></div>\n<h3>Confusion matrix</h3>\n");
    if (d->labels.n <= 30) {
        sill__str_puts(s, "<figure>");
        agree_plot_confusion(s, r, v);
        sill__str_puts(s, "<figcaption>Rows: gold; columns: given. Colour: share of the gold label.</figcaption></figure>\n");
    } else {
        put(s, "<p class=\"note\">Not drawn for %zu labels; --json has it.</p>\n", d->labels.n);
    }
    put_scores(s, r, v);
    if (v->n_sample < v->n_all) put_prevalence(s, r, v);
    sill__str_puts(s, "</section>\n");
}

static void put_calibration(sill__str *s, const agree_result *r) {
    sill__str_puts(s, "<section>\n<h2>Calibration</h2>\n<p>");
    agree_put_count(s, r->calibration.n);
    sill__str_puts(s, " rows have gold and probabilities. Expected calibration error ");
    agree_put_number(s, r->ece.value, 3);
    if (!isnan(r->ece.low)) {
        sill__str_puts(s, " (");
        agree_put_number(s, r->ece.low, 3);
        sill__str_puts(s, " to ");
        agree_put_number(s, r->ece.high, 3);
        sill__str_puts(s, ")");
    }
    sill__str_puts(s, ", greatest of a bin ");
    agree_put_number(s, r->calibration.mce, 3);
    sill__str_puts(s, "; Brier score ");
    agree_put_number(s, r->brier.value, 3);
    sill__str_puts(s, ".</p>\n<figure>");
    agree_plot_reliability(s, r);
    put(s, "<figcaption>Each dot is one of %d bins of probability, larger with more rows; on the dashed line probabilities are what they say. Orange: the "
           "error of the bin.</figcaption></figure>\n</section>\n", (int)r->data->o->bins);
}

static void put_methods(sill__str *s, const agree_result *r) {
    const agree_options *o = r->data->o;
    sill__str_puts(s, "<section>\n<h2>How the numbers are made</h2>\n<p class=\"note\">");
    if (r->data->n_coders > 1)
        sill__str_puts(s, "Krippendorff\xe2\x80\x99s alpha (2011) over rows with two labels or more; Fleiss\xe2\x80\x99 kappa (1971) over rows that all coded; "
                          "Cohen\xe2\x80\x99s kappa (1960; weighted 1968) over rows that both coded; percent agreement: mean share of a row\xe2\x80\x99s pairs that agree. ");
    if (o->boot)
        put(s, "Intervals are percentiles of %d resamples of the rows (Philox, seed %llu). ", (int)o->boot, (unsigned long long)o->seed);
    if (r->n_versus)
        sill__str_puts(s, "Precision, recall and F1 as in scikit-learn. Corrected shares: the difference estimator (S\xc3\xa4rndal, Swensson and Wretman 1992), "
                          "its standard error for sampling without replacement, normal intervals. ");
    if (r->data->n_probs)
        put(s, "Calibration error (Guo et al. 2017): %d bins of equal width of the greatest probability. Brier score: summed over labels. ", (int)o->bins);
    put(s, "Made by sill %s.</p>\n</section>\n", sill_version());
}

void agree_put_html(sill__str *s, const agree_result *r) {
    const agree_data *d = r->data;
    put_top(s, r);
    if (d->n_coders > 1) put_agreement(s, r);
    if (d->o->by) {
        sill__str_puts(s, "<section>\n<h2>Labels of <bdi>");
        agree_put_escaped(s, d->coders[0], 60);
        sill__str_puts(s, "</bdi> by <bdi>");
        agree_put_escaped(s, of_string(d->o->by), 60);
        sill__str_puts(s, "</bdi></h2>\n");
        agree_plot_groups(s, r);
        sill__str_puts(s, "</section>\n");
    }
    for (size_t i = 0; i < r->n_versus; i++) put_versus(s, r, &r->versus[i]);
    if (d->n_probs) put_calibration(s, r);
    put_distribution(s, r);
    put_methods(s, r);
    sill__str_puts(s, "</main>\n</body>\n</html>\n");
}
