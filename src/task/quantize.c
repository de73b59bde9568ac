/*
 * quantize.c - sill_quantize: plans the smaller file, writes it beside its final name, has its loss measured, and
 * gives it the name or takes it away. Every step that fails leaves nothing behind.
 */
#include "task/quantize.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "base/json.h"
#include "corpus/corpus.h"
#include "format/write.h"
#include "model/export.h"

#define FEW_TOKENS 100 /* with fewer the standard error itself is a guess: single tokens of text weigh too much in it */
#define FEW_ROWS 30    /* with fewer, what is so of these texts says little of others */

typedef struct job {
    const char *path;
    sill__output out;
    sill_quantize_options o;
    sill_certificate c;
} job;

static const char *const names[] = {"q8", "q4", "int8"};

const char *sill__certainty_name(sill_certainty c) {
    static const char *const all[] = {"high", "low", "none"};
    return all[c];
}

/* ---- the weights */

static void hash_model(const sill__file *f, job *j) {
    uint8_t digest[32];
    sill__file_hash(f, digest, &j->c.bytes_before);
    sill__sha256_hex(digest, j->c.before_sha256);
}

static sill_status export_file(job *j, const sill__file *f, const sill__config *config, const sill_tokenizer *t, sill_error *err) {
    static const sill__type body[] = {SILL__TYPE_Q8_0, SILL__TYPE_Q4_1};
    const bool directory = j->out.directory;
    sill__export e = {0};
    sill__out *out = NULL;
    char name[128];
    uint8_t digest[32];
    sill__model_base_name(j->path, name);
    sill_status s = directory ? sill__export_int8(f, config, &e, err)
                              : sill__export_gguf(f, config, t, name, body[j->o.to], SILL__TYPE_Q8_0, &e, err);
    if (s != SILL_OK) return s;
    if (!e.reduced)
        s = sill__fail(err, SILL_EUNSUPPORTED, "%s: nothing in it becomes smaller with %s: it is quantized already, or its rows are no "
                       "multiples of 32", j->path, names[j->o.to]);
    if (s == SILL_OK) hash_model(f, j);
    if (s == SILL_OK) s = sill__output_weights(&j->out, &out, err);
    if (s == SILL_OK) {
        s = directory ? sill__safetensors_write(e.copies, e.n, out, err) : sill__gguf_write(&e.head, e.copies, e.n, out, err);
        if (s != SILL_OK) {
            sill__out_drop(out);
        } else {
            j->c.bytes_after = out->n;
            s = sill__out_finish(out, digest, err);
        }
    }
    if (s == SILL_OK) sill__sha256_hex(digest, j->c.after_sha256);
    if (s == SILL_OK && directory) s = sill__model_dir_write(f, NULL, NULL, j->out.partial, true, err);
    sill__export_free(&e);
    return s;
}

static double limit_of(double asked, double none, double q4, double others, sill_quantize_to to) {
    return asked > 0 ? asked : asked < 0 ? none : to == SILL_QUANTIZE_Q4 ? q4 : others;
}

static double limit_of_changed(const sill_quantize_options *o) { return limit_of(o->max_changed, (double)INFINITY, 15, 5, o->to); }

/* So few texts that not even labels that all stay could be told from too many that change. */
static sill_status check_rows(const sill_quantize_options *o, sill_error *err) {
    const double allowed = limit_of_changed(o);
    double low, high;
    sill__wilson_95(0, o->n_texts, &low, &high);
    if (o->force || 100 * high <= allowed) return SILL_OK;
    return sill__fail(err, SILL_ERANGE, "%zu %s, but at least %.0f rows are needed to tell that no more than %.4g %% of labels "
                      "change, even if none does: nothing is written (more rows, --text FILE:COLUMN; --max-changed PERCENT allows more; "
                      "--force keeps the output all the same)", o->n_texts, o->n_texts == 1 ? "text is to be labelled" : "texts are to be "
                      "labelled", sill__rows_needed(allowed / 100), allowed);
}

/* What can be refused before any work. *T: the tokenizer, which texts need, and a GGUF made of safetensors keeps. */
static sill_status check(const job *j, const sill__file *f, const sill__config *config, sill_tokenizer **t, sill_error *err) {
    sill_error why = {0};
    const sill__output_reads reads = {.file = f, .model = j->path, .text = j->o.text_path};
    sill_status s = sill__output_check(&j->out, &reads, err);
    if (s == SILL_OK && j->o.n_texts && (j->o.n_labels || config->n_labels)) s = check_rows(&j->o, err);
    if (s != SILL_OK || !(j->o.n_texts || (sill__file_get_kind(f) != SILL__FILE_GGUF && !j->out.directory))) return s;
    s = sill__tokenizer_from_file(f, t, &why);
    if (s == SILL_ENOENT && !j->o.n_texts) return SILL_OK; /* a model alone */
    if (s == SILL_ENOENT)
        return sill__fail(err, SILL_EUNSUPPORTED, "%s has no tokenizer: texts cannot be read with it, and no loss be measured; put the "
                          "tokenizer.json (or vocab.json and merges.txt) that it was published with beside its config.json", j->path);
    if (s != SILL_OK && err) *err = why;
    return s;
}

static sill_status write_model(job *j, sill_error *err) {
    sill__file *f = NULL;
    sill__config config;
    sill_tokenizer *t = NULL;
    sill_plan_info plan;
    sill_model_options mo = {.size = sizeof mo, .dtype = SILL_DTYPE_F32};
    sill_status s = sill_plan(j->path, &mo, NULL, &plan, err); /* every tensor is there and has its shape */
    if (s == SILL_OK) s = sill__file_open(j->path, &f, err);
    if (s != SILL_OK) return s;
    s = sill__config_read(f, &config, err);
    if (s == SILL_OK) {
        s = check(j, f, &config, &t, err);
        if (s == SILL_OK && j->o.progress && j->o.progress(j->o.user, "writing", 0))
            s = sill__fail(err, SILL_ECANCELLED, "cancelled by the caller");
        if (s == SILL_OK) s = export_file(j, f, &config, t, err);
        sill_tokenizer_free(t);
        sill__config_free(&config);
    }
    sill__file_close(f);
    return s;
}

/* ---- the certificate */

static void put_number(sill__str *s, const char *key, double v) {
    sill__str_putf(s, ", \"%s\": ", key);
    sill__put_json_f64(s, v);
}

static void put_model(sill__str *s, const char *key, const char *path, const char *sha, uint64_t bytes, const char *dtype) {
    sill__str_putf(s, ",\n  \"%s\": {\"path\": ", key);
    sill__put_json_string(s, path, strlen(path));
    sill__str_putf(s, ", \"sha256\": \"%s\", \"bytes\": %llu, \"computed_as\": ", sha, (unsigned long long)bytes);
    sill__put_json_string(s, dtype, strlen(dtype));
    sill__str_puts(s, "}");
}

static void put_pair(sill__str *s, const char *key, double value, double se) {
    sill__str_putf(s, "\"%s\": {\"value\": ", key);
    sill__put_json_f64(s, value);
    put_number(s, "standard_error", se);
    sill__str_puts(s, "}");
}

static sill_status write_record(const job *j, sill_error *err) {
    const sill_certificate *c = &j->c;
    const char *text = j->o.text_name ? j->o.text_name : "", *commit = j->o.commit ? j->o.commit : "";
    sill__str s;
    sill__str_init(&s, (size_t)1 << 20);
    sill__str_putf(&s, "{\n  \"program\": \"sill %s\", \"commit\": ", sill_version());
    sill__put_json_string(&s, commit, strlen(commit));
    sill__str_putf(&s, ",\n  \"to\": \"%s\"", names[j->o.to]);
    put_model(&s, "before", j->path, c->before_sha256, c->bytes_before, c->before_dtype);
    put_model(&s, "after", j->out.out, c->after_sha256, c->bytes_after, c->after_dtype);
    sill__str_puts(&s, ",\n  \"text\": {\"name\": ");
    sill__put_json_string(&s, text, strlen(text));
    sill__str_putf(&s, ", \"sha256\": \"%s\", \"texts\": %llu, \"windows\": %llu, \"window_tokens\": %d, \"tokens_scored\": %llu}",
                   c->text_sha256, (unsigned long long)c->n_texts, (unsigned long long)c->n_windows, c->window,
                   (unsigned long long)c->n_tokens);
    if (c->n_tokens) {
        sill__str_puts(&s, ",\n  \"perplexity\": {");
        put_pair(&s, "before", c->perplexity_before, c->perplexity_before_se);
        sill__str_puts(&s, ", ");
        put_pair(&s, "after", c->perplexity_after, c->perplexity_after_se);
        sill__str_puts(&s, ", ");
        put_pair(&s, "loss_percent", c->loss_percent, c->loss_percent_se);
        put_number(&s, "loss_percent_low", c->loss_percent_low);
        put_number(&s, "loss_percent_high", c->loss_percent_high);
        sill__str_putf(&s, ", \"certainty\": \"%s\"", sill__certainty_name(c->certainty_of_loss));
        sill__str_puts(&s, "},\n  \"kl_divergence\": {\"unit\": \"nats\"");
        put_number(&s, "mean", c->kl_mean);
        put_number(&s, "standard_error", c->kl_mean_se);
        put_number(&s, "p99", c->kl_p99);
        put_number(&s, "max", c->kl_max);
        sill__str_puts(&s, "},\n  \"top1_agreement\": ");
        sill__put_json_f64(&s, c->top1_agreement);
    }
    if (c->n_rows + c->n_rows_failed) {
        sill__str_putf(&s, ",\n  \"labels\": {\"rows\": %llu, \"failed\": %llu, \"changed\": %llu, \"lost\": %llu", (unsigned long long)c->n_rows,
                       (unsigned long long)c->n_rows_failed, (unsigned long long)c->n_changed, (unsigned long long)c->n_rows_lost);
        put_number(&s, "changed_percent", c->changed_percent);
        put_number(&s, "changed_percent_low", c->changed_percent_low);
        put_number(&s, "changed_percent_high", c->changed_percent_high);
        sill__str_putf(&s, ", \"certainty\": \"%s\"", sill__certainty_name(c->certainty_of_labels));
        put_number(&s, "krippendorff_alpha", c->alpha);
        sill__str_puts(&s, "}");
    }
    sill__str_puts(&s, ",\n  \"threshold_percent\": ");
    sill__put_json_f64(&s, c->max_loss);
    put_number(&s, "threshold_kl_mean", c->max_kl);
    put_number(&s, "threshold_top1_agreement", c->min_agreement);
    put_number(&s, "threshold_changed_percent", c->max_changed);
    sill__str_putf(&s, ", \"certainty\": \"%s\", \"passed\": %s, \"forced\": %s\n}\n", sill__certainty_name(c->certainty), c->passed ? "true" : "false", c->forced ? "true" : "false");
    sill_status st = s.failed ? sill__fail(err, SILL_ENOMEM, "no memory for the certificate")
                              : sill__put_file(j->out.record_partial, s.p, s.n, err);
    sill__str_free(&s);
    return st;
}

static void hash_texts(job *j) {
    sill__sha256 h;
    uint8_t digest[32];
    sill__sha256_init(&h);
    for (size_t i = 0; i < j->o.n_texts; i++) {
        uint8_t length[8];
        for (int b = 0; b < 8; b++) length[b] = (uint8_t)((uint64_t)j->o.text_bytes[i] >> 8 * b);
        if (j->o.n_texts > 1) sill__sha256_update(&h, length, sizeof length);
        sill__sha256_update(&h, j->o.texts[i], j->o.text_bytes[i]);
    }
    sill__sha256_final(&h, digest);
    sill__sha256_hex(digest, j->c.text_sha256);
}

/* By the interval of the paired loss in logarithms, where it has one width around any loss. */
static sill_certainty certainty_of_loss(const sill_certificate *c) {
    const double limit = log1p(c->max_loss / 100), margin = log1p(c->loss_percent_high / 100) - log1p(c->loss_percent / 100);
    if (!c->n_tokens) return SILL_CERTAINTY_HIGH;
    if (isfinite(limit) && !(margin <= limit)) return SILL_CERTAINTY_NONE;
    return c->n_tokens < FEW_TOKENS || !(c->loss_percent_high <= c->max_loss) ? SILL_CERTAINTY_LOW : SILL_CERTAINTY_HIGH;
}

/* The same of the share of labels that change: none of so many rows must be told from too many. */
static sill_certainty certainty_of_labels(const sill_certificate *c) {
    double low, high;
    if (!c->n_rows && !c->n_rows_failed) return SILL_CERTAINTY_HIGH;
    sill__wilson_95(0, c->n_rows, &low, &high);
    if (!(100 * high <= c->max_changed)) return SILL_CERTAINTY_NONE;
    return c->n_rows < FEW_ROWS || !(c->changed_percent_high <= c->max_changed) ? SILL_CERTAINTY_LOW : SILL_CERTAINTY_HIGH;
}

static sill_status too_few(const sill_certificate *c, sill_error *err) {
    if (c->certainty_of_loss == SILL_CERTAINTY_NONE)
        return sill__fail(err, SILL_ERANGE, "%llu tokens are too few to tell: the loss of %.2f %% may as well be %.3g to %.3g %%, and "
                          "%.4g %% are allowed: nothing is kept (more text, --tokens, or --max-loss PERCENT; --force keeps it all "
                          "the same)", (unsigned long long)c->n_tokens, c->loss_percent, c->loss_percent_low, c->loss_percent_high,
                          c->max_loss);
    return sill__fail(err, SILL_ERANGE, "the labels of %llu texts are too few to tell: %llu change, which may as well be %.3g to %.3g %% "
                      "of all, and %.4g %% are allowed: nothing is kept (more rows of --text, or --max-changed PERCENT; --force keeps "
                      "it all the same)", (unsigned long long)c->n_rows, (unsigned long long)c->n_changed, c->changed_percent_low,
                      c->changed_percent_high, c->max_changed);
}

/* Limits of four things, since a perplexity alone can be right by luck: a model that finds other words may even gain on a text.
 * Rows that only the original can label are no matter of degree, and a comparison of nothing is none. */
static sill_status judge(job *j, sill_error *err) {
    sill_certificate *c = &j->c;
    char more[80] = "";
    c->max_loss = limit_of(j->o.max_loss, (double)INFINITY, 10, 2, j->o.to);
    c->max_kl = limit_of(j->o.max_kl, (double)INFINITY, 0.5, 0.1, j->o.to);
    c->min_agreement = limit_of(j->o.min_agreement, 0, 0.6, 0.8, j->o.to);
    c->max_changed = limit_of_changed(&j->o);
    const bool cheap = !c->n_tokens || c->loss_percent <= c->max_loss, near = !c->n_tokens || c->kl_mean <= c->max_kl,
               agrees = !c->n_tokens || c->top1_agreement >= c->min_agreement,
               labels = !c->n_rows || c->changed_percent <= c->max_changed, compared = c->n_tokens || c->n_rows;
    c->certainty_of_loss = certainty_of_loss(c);
    c->certainty_of_labels = certainty_of_labels(c);
    c->certainty = SILL_MAX(c->certainty_of_loss, c->certainty_of_labels);
    c->passed = compared && !c->n_rows_lost && cheap && near && agrees && labels && c->certainty != SILL_CERTAINTY_NONE;
    c->forced = !c->passed && j->o.force;
    if (c->passed || c->forced) return SILL_OK;
    if (!compared)
        return sill__fail(err, SILL_ERANGE, "nothing was compared: of %llu texts the original labels none: nothing is kept (--force "
                          "keeps it all the same)", (unsigned long long)c->n_rows_failed);
    if (c->n_rows_lost)
        return sill__fail(err, SILL_ERANGE, "%s cannot label %llu of %llu rows that the original labels: nothing is kept (--force keeps "
                          "it all the same)", names[j->o.to], (unsigned long long)c->n_rows_lost, (unsigned long long)c->n_rows);
    if (c->n_tokens && c->n_rows)
        snprintf(more, sizeof more, "; %llu of %llu labels change", (unsigned long long)c->n_changed, (unsigned long long)c->n_rows);
    if (!cheap)
        return sill__fail(err, SILL_ERANGE, "%s costs %.2f %% of perplexity, more than the %.4g %% allowed%s: nothing is kept (--max-loss "
                          "PERCENT allows more, --force keeps it all the same)", names[j->o.to], c->loss_percent, c->max_loss, more);
    if (!near)
        return sill__fail(err, SILL_ERANGE, "%s moves the next-token distributions by %.4g nats in the mean, more than the %.4g "
                          "allowed%s: nothing is kept (--max-kl NATS allows more, --force keeps it all the same)", names[j->o.to],
                          c->kl_mean, c->max_kl, more);
    if (!agrees)
        return sill__fail(err, SILL_ERANGE, "with %s the first choice stays the same for %.2f %% of the tokens, fewer than the %.4g %% "
                          "asked%s: nothing is kept (--min-agreement PERCENT allows fewer, --force keeps it all the same)",
                          names[j->o.to], 100 * c->top1_agreement, 100 * c->min_agreement, more);
    if (!labels)
        return sill__fail(err, SILL_ERANGE, "with %s %llu of %llu labels change, %.2f %%, more than the %.4g %% allowed: nothing is kept "
                          "(--max-changed PERCENT allows more, --force keeps it all the same)", names[j->o.to],
                          (unsigned long long)c->n_changed, (unsigned long long)c->n_rows, c->changed_percent, c->max_changed);
    return too_few(c, err);
}

static sill_status run(job *j, sill_error *err) {
    const bool measured = j->o.n_texts > 0;
    sill_status s = write_model(j, err);
    if (s == SILL_OK && measured) {
        hash_texts(j);
        s = sill__certify(j->path, j->out.partial, j->out.spool, &j->o, &j->c, err);
        if (s == SILL_OK) s = judge(j, err);
        if (s == SILL_OK) s = write_record(j, err);
    }
    if (s == SILL_OK) s = sill__output_publish(&j->out, measured, err);
    sill__output_end(&j->out);
    return s;
}

sill_status sill_quantize(const char *path, const char *out, const sill_quantize_options *options, sill_certificate *certificate,
                          sill_error *err) {
    if (!path || !*path || !out || !*out) return sill__fail(err, SILL_EINVAL, "sill_quantize needs a model and an output");
    job *j = sill__calloc(1, sizeof *j);
    if (!j) return sill__fail(err, SILL_ENOMEM, "no memory to quantize %s", path);
    j->path = path;
    j->out.lock = -1;
    j->c.alpha = j->c.changed_percent = j->c.changed_percent_low = j->c.changed_percent_high = NAN;
    sill_status s = sill__options_read(options, &j->o, sizeof j->o, "sill_quantize_options", err);
    if (s == SILL_OK && (unsigned)j->o.to > SILL_QUANTIZE_INT8) s = sill__fail(err, SILL_EINVAL, "no type to quantize to has the number %d", (int)j->o.to);
    if (s == SILL_OK && (j->o.max_tokens < 0 || j->o.window < 0 || j->o.window == 1))
        s = sill__fail(err, SILL_EINVAL, "max_tokens %d or window %d is out of range", j->o.max_tokens, j->o.window);
    if (s == SILL_OK && (isnan(j->o.max_loss) || isnan(j->o.max_kl) || !(j->o.min_agreement <= 1) || isnan(j->o.max_changed)))
        s = sill__fail(err, SILL_EINVAL, "max_loss %g, max_kl %g, min_agreement %g or max_changed %g is out of range", j->o.max_loss,
                       j->o.max_kl, j->o.min_agreement, j->o.max_changed);
    if (s == SILL_OK && j->o.n_texts && (!j->o.texts || !j->o.text_bytes)) s = sill__fail(err, SILL_EINVAL, "%zu texts, but no pointers to them", j->o.n_texts);
    if (s == SILL_OK) {
        j->out.directory = j->o.to == SILL_QUANTIZE_INT8;
        j->out.overwrite = j->o.overwrite;
        j->out.program = "sill quantize";
        snprintf(j->out.kind, sizeof j->out.kind, "--to %s", names[j->o.to]);
        s = sill__output_names(&j->out, out, err);
    }
    if (s == SILL_OK) s = run(j, err);
    if (certificate) *certificate = j->c;
    sill__free(j);
    return s;
}
