/*
 * test_session.c - the same references as test_parity.c through the public calls: sill_logits, sill_score,
 * sill_classify with a model's own head.
 */
#include "rig.h"

static const char *const names[] = {"gpt2-one", "gpt2-shards", "gpt2-padded", "llama-gqa42", "llama-gqa93", "llama-llama3"};
static const char *const class_names[] = {"gpt2-class", "llama-class"};

typedef struct feed {
    const rig_ref *f;
    const char *name;
    int32_t next, done;
} feed;

static int next_row(void *user, sill_row *row) {
    feed *f = user;
    if (f->next == f->f->n_sequences) return 0;
    *row = (sill_row){.index = (uint64_t)f->next, .ids = f->f->sequences[f->next].ids, .n_ids = (size_t)f->f->sequences[f->next].n};
    f->next++;
    return 1;
}

static int on_score(void *user, const sill_scored *r) {
    feed *f = user;
    int32_t n = f->f->sequences[r->index].n;
    f->done++;
    if (r->status != SILL_OK) {
        FAIL("%s: row %d: %s", f->name, (int)r->index, r->error);
        return 0;
    }
    CHECK_INT(r->n_ids, n);
    CHECK_INT(r->n_scored, n - 1);
    if (n > 1) {
        double want = f->f->sequences[r->index].loss;
        CHECK_NEAR(-r->sum_logprob / (double)r->n_scored, want, 1e-5 * want);
    }
    return 0;
}

static int on_class(void *user, const sill_classified *r) {
    feed *f = user;
    size_t n = (size_t)f->f->n_labels;
    f->done++;
    if (r->status != SILL_OK) {
        FAIL("%s: row %d: %s", f->name, (int)r->index, r->error);
        return 0;
    }
    CHECK_INT(r->n_labels, f->f->n_labels);
    double d = rig_distance(r->logits, f->f->sequences[r->index].classes, n);
    if (!(d <= 1e-4)) FAIL("%s: class logits of row %d differ by %.3g", f->name, (int)r->index, d);
    return 0;
}

static bool open_session(const char *name, const char *device, sill_model **m, sill_session **s) {
    char path[256];
    sill_error err = {0};
    sill_model_options o = {.size = sizeof o, .device = device};
    *m = NULL;
    *s = NULL;
    snprintf(path, sizeof path, FIXTURES "%s", name);
    if (sill_model_load(path, &o, m, &err) == SILL_OK && sill_session_create(*m, NULL, s, &err) == SILL_OK) return true;
    FAIL("%s: %s", name, err.msg);
    sill_model_free(*m);
    return false;
}

static void logits_and_losses(const char *name, const char *device) {
    sill_model *m;
    sill_session *s;
    sill_error err = {0};
    rig_ref f;
    if (!rig_ref_open(&f, name)) return;
    if (open_session(name, device, &m, &s)) {
        float *out = calloc(64 * (size_t)f.n_vocab, sizeof *out);
        for (int32_t k = 0; k < f.n_sequences; k++) {
            size_t n = (size_t)f.sequences[k].n, vocab = (size_t)f.n_vocab;
            CHECK_OK(sill_logits(s, f.sequences[k].ids, n, out, &err), err);
            for (size_t i = 0; i < n; i++) {
                double d = rig_distance(out + i * vocab, f.sequences[k].logits + i * vocab, vocab);
                if (!(d <= 1e-4)) FAIL("%s on %s: logits of row %zu differ by %.3g", name, device, i, d);
            }
        }
        free(out);
        feed all = {.f = &f, .name = name};
        CHECK_OK(sill_score(s, NULL, next_row, on_score, &all, &err), err);
        CHECK_INT(all.done, f.n_sequences);
        sill_session_free(s);
        sill_model_free(m);
    }
    sill__free(f.data);
}

static void test_logits_and_losses(void) {
    for (size_t i = 0; i < SILL_ARRAY_LEN(names); i++) {
        logits_and_losses(names[i], "cpu");
        logits_and_losses(names[i], "ref");
    }
}

static void test_class_heads(void) {
    for (size_t i = 0; i < 2 * SILL_ARRAY_LEN(class_names); i++) {
        sill_model *m;
        sill_session *s;
        sill_error err = {0};
        rig_ref f;
        if (!rig_ref_open(&f, class_names[i / 2])) continue;
        if (open_session(class_names[i / 2], i % 2 ? "ref" : "cpu", &m, &s)) {
            feed all = {.f = &f, .name = class_names[i / 2]};
            CHECK_OK(sill_classify(s, NULL, next_row, on_class, &all, &err), err);
            CHECK_INT(all.done, f.n_sequences);
            sill_session_free(s);
            sill_model_free(m);
        }
        sill__free(f.data);
    }
}

int main(int argc, char **argv) {
    TEST(test_logits_and_losses);
    TEST(test_class_heads);
    TEST_EXIT();
}
