/*
 * sampler.c - see sampler.h. The row is kept as a list of candidates (ids ascending, scores): a filter shortens it,
 * so what comes after a top_k of 50 costs next to nothing. Thresholds on sorted sums are found by selection, not by
 * sorting the vocabulary.
 */
#include "engine/sampler.h"

#include <float.h>
#include <math.h>

struct sill__sampler {
    sill_generate_options o; /* after defaults */
    int32_t n_vocab, n_eos;
    int32_t eos[16];
    int32_t keep;            /* candidates that each filter leaves at least */
    const uint64_t *allowed; /* bits by id, or NULL */
    bool processors;         /* any that changes raw logits */
    int32_t n;               /* candidates left */
    int32_t *ids;            /* (n_vocab) ascending */
    float *scores;           /* (n_vocab) of the candidates */
    double *probs;           /* (n_vocab) */
    float *full;             /* (n_vocab) scores by id while processors work */
    uint32_t *seen, stamp;   /* (n_vocab) tokens of the history already penalized */
    double *keys, *weights;  /* (n_vocab) scratch of the selections */
};

/* ------------------------------------------------------------------ options */

static sill_status bad_float(sill_error *err, const char *name, float value, const char *limits) {
    return sill__fail(err, SILL_EINVAL, "%s is %g, expected %s", name, (double)value, limits);
}

static sill_status check_numbers(sill_generate_options *o, sill_error *err) {
    if (o->temperature == 0.0f) o->temperature = 1.0f;
    if (o->top_k == 0) o->top_k = 50;
    if (o->top_p == 0.0f) o->top_p = 1.0f;
    if (o->repetition_penalty == 0.0f) o->repetition_penalty = 1.0f;
    if (!(o->temperature > 0.0f) || !isfinite(o->temperature))
        return bad_float(err, "temperature", o->temperature, "above 0 (for the best token every time, leave do_sample off)");
    if (o->top_k < -1) return sill__fail(err, SILL_EINVAL, "top_k is %d, expected 1 or more, or -1 for off", o->top_k);
    if (!(o->top_p > 0.0f && o->top_p <= 1.0f)) return bad_float(err, "top_p", o->top_p, "above 0 and at most 1");
    if (!(o->min_p >= 0.0f && o->min_p <= 1.0f)) return bad_float(err, "min_p", o->min_p, "0 to 1");
    if (!(o->typical_p >= 0.0f && o->typical_p <= 1.0f)) return bad_float(err, "typical_p", o->typical_p, "0 to 1");
    if (!(o->epsilon_cutoff >= 0.0f && o->epsilon_cutoff < 1.0f))
        return bad_float(err, "epsilon_cutoff", o->epsilon_cutoff, "0 or more and under 1");
    if (!(o->eta_cutoff >= 0.0f && o->eta_cutoff < 1.0f))
        return bad_float(err, "eta_cutoff", o->eta_cutoff, "0 or more and under 1");
    if (!(o->repetition_penalty > 0.0f) || !isfinite(o->repetition_penalty))
        return bad_float(err, "repetition_penalty", o->repetition_penalty, "above 0");
    if (o->no_repeat_ngram_size < 0 || o->min_new_tokens < 0 || o->min_length < 0)
        return sill__fail(err, SILL_EINVAL, "no_repeat_ngram_size %d, min_new_tokens %d and min_length %d must not be negative",
                          o->no_repeat_ngram_size, o->min_new_tokens, o->min_length);
    if (o->min_new_tokens) o->min_length = 0;
    return SILL_OK;
}

static sill_status check_list(const int32_t *ids, size_t n, const char *what, int32_t n_vocab, sill_error *err) {
    for (size_t i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= n_vocab)
            return sill__fail(err, SILL_ERANGE, "%s id %d, which is outside the vocabulary of %d", what, ids[i], n_vocab);
    return SILL_OK;
}

/* Sequences of ids, one behind the other. */
static sill_status check_words(const int32_t *ids, const size_t *ends, size_t n, const char *what, int32_t n_vocab, sill_error *err) {
    size_t at = 0;
    for (size_t i = 0; i < n; at = ends[i++]) {
        if (ends[i] <= at) return sill__fail(err, SILL_EINVAL, "%s %zu is empty", what, i + 1);
        for (size_t k = at; k < ends[i]; k++)
            if (ids[k] < 0 || ids[k] >= n_vocab)
                return sill__fail(err, SILL_ERANGE, "%s %zu holds id %d, which is outside the vocabulary of %d", what, i + 1, ids[k],
                                  n_vocab);
    }
    return SILL_OK;
}

static sill_status check_biases(const float *values, size_t n, const char *what, sill_error *err) {
    for (size_t i = 0; i < n; i++)
        if (isnan(values[i]) || values[i] == INFINITY)
            return sill__fail(err, SILL_EINVAL, "%s %zu is %g, expected a number or -infinity", what, i + 1, (double)values[i]);
    return SILL_OK;
}

static sill_status check_ids(const sill_generate_options *o, int32_t n_vocab, sill_error *err) {
    sill_status st;
    if ((o->n_bias && (!o->bias_ids || !o->bias_values)) || (o->n_bad_words && (!o->bad_words || !o->bad_word_ends)) ||
        (o->n_suppress && !o->suppress_tokens) || (o->n_begin_suppress && !o->begin_suppress_tokens) ||
        (o->n_bias_words && (!o->bias_words || !o->bias_word_ends || !o->bias_word_values)))
        return sill__fail(err, SILL_EINVAL, "bias_ids, bias_values, bad_words, bad_word_ends, suppress_tokens, begin_suppress_tokens, "
                          "bias_words, bias_word_ends and bias_word_values must not be NULL when they are counted");
    if ((st = check_list(o->bias_ids, o->n_bias, "logit bias for", n_vocab, err)) != SILL_OK ||
        (st = check_biases(o->bias_values, o->n_bias, "logit bias", err)) != SILL_OK ||
        (st = check_words(o->bad_words, o->bad_word_ends, o->n_bad_words, "bad word", n_vocab, err)) != SILL_OK ||
        (st = check_list(o->suppress_tokens, o->n_suppress, "suppress_tokens hold", n_vocab, err)) != SILL_OK ||
        (st = check_list(o->begin_suppress_tokens, o->n_begin_suppress, "begin_suppress_tokens hold", n_vocab, err)) != SILL_OK ||
        (st = check_words(o->bias_words, o->bias_word_ends, o->n_bias_words, "biased sequence", n_vocab, err)) != SILL_OK)
        return st;
    return check_biases(o->bias_word_values, o->n_bias_words, "bias of sequence", err);
}

sill_status sill__sampler_create(const sill_generate_options *options, int32_t n_vocab, const int32_t *eos_ids,
                                 int32_t n_eos, sill__sampler **out, sill_error *err) {
    sill_status st;
    *out = NULL;
    sill__sampler *s = sill__calloc(1, sizeof *s);
    if (!s) return sill__fail(err, SILL_ENOMEM, "no memory for the sampler");
    s->o = *options;
    if ((st = check_numbers(&s->o, err)) != SILL_OK || (st = check_ids(&s->o, n_vocab, err)) != SILL_OK) goto fail;
    s->n_vocab = n_vocab;
    s->n_eos = SILL_MIN(n_eos, (int32_t)SILL_ARRAY_LEN(s->eos));
    s->keep = s->o.num_beams > 1 ? SILL_MAX(2, s->n_eos + 1) : 1;
    if (s->n_eos) memcpy(s->eos, eos_ids, (size_t)s->n_eos * sizeof *s->eos);
    s->processors = s->o.n_bias || s->o.n_bad_words || s->o.repetition_penalty != 1.0f || s->o.no_repeat_ngram_size ||
                    s->o.constraint || s->o.n_suppress || s->o.n_begin_suppress || s->o.n_bias_words ||
                    ((s->o.min_new_tokens || s->o.min_length) && s->n_eos);
    if (sill__sampler_needs_logits(s)) {
        size_t n = (size_t)n_vocab;
        s->ids = sill__calloc(n, sizeof *s->ids);
        s->scores = sill__calloc(n, sizeof *s->scores);
        s->probs = sill__calloc(n, sizeof *s->probs);
        s->full = sill__calloc(n, sizeof *s->full);
        s->seen = sill__calloc(n, sizeof *s->seen);
        s->keys = sill__calloc(n, sizeof *s->keys);
        s->weights = sill__calloc(n, sizeof *s->weights);
        if (!s->ids || !s->scores || !s->probs || !s->full || !s->seen || !s->keys || !s->weights) {
            st = sill__fail(err, SILL_ENOMEM, "no memory to sample from a vocabulary of %d", n_vocab);
            goto fail;
        }
    }
    *out = s;
    return SILL_OK;
fail:
    sill__sampler_free(s);
    return st;
}

void sill__sampler_free(sill__sampler *s) {
    if (!s) return;
    sill__free(s->weights);
    sill__free(s->keys);
    sill__free(s->seen);
    sill__free(s->full);
    sill__free(s->probs);
    sill__free(s->scores);
    sill__free(s->ids);
    sill__free(s);
}

bool sill__sampler_needs_logits(const sill__sampler *s) { return s->o.do_sample || s->processors; }

bool sill__sampler_row(const sill__sampler *s, sill__sample_row *row) {
    const sill_generate_options *o = &s->o;
    *row = (sill__sample_row){.temperature = o->temperature, .top_p = o->top_p, .min_p = o->min_p, .top_k = o->top_k, .seed = o->seed};
    return o->do_sample && !s->processors && !(o->typical_p > 0.0f && o->typical_p < 1.0f) && !(o->epsilon_cutoff > 0.0f) &&
           !(o->eta_cutoff > 0.0f);
}

/* --------------------------------------------------- processors (all modes) */

static void penalize_repetition(sill__sampler *s, const int32_t *history, int32_t n) {
    float p = s->o.repetition_penalty;
    if (++s->stamp == 0) {
        memset(s->seen, 0, (size_t)s->n_vocab * sizeof *s->seen);
        s->stamp = 1;
    }
    for (int32_t i = 0; i < n; i++) {
        int32_t id = history[i];
        if (id < 0 || id >= s->n_vocab || s->seen[id] == s->stamp) continue;
        s->seen[id] = s->stamp;
        s->full[id] = s->full[id] < 0 ? s->full[id] * p : s->full[id] / p;
    }
}

/* Forbids every token that would complete an n-gram which the history holds already. */
static void forbid_ngrams(sill__sampler *s, const int32_t *history, int32_t n) {
    int32_t size = s->o.no_repeat_ngram_size;
    if (n < size) return;
    const int32_t *tail = history + n - (size - 1);
    for (int32_t i = 0; i + size <= n; i++)
        if (!memcmp(history + i, tail, (size_t)(size - 1) * sizeof *history)) {
            int32_t id = history[i + size - 1];
            if (id >= 0 && id < s->n_vocab) s->full[id] = -INFINITY;
        }
}

static bool is_eos(const sill__sampler *s, int32_t id) {
    for (int32_t i = 0; i < s->n_eos; i++)
        if (s->eos[i] == id) return true;
    return false;
}

/* The last HEAD ids of the history are those of WORD. */
static bool ends_in(const int32_t *history, int32_t n, const int32_t *word, size_t head) {
    return head <= (size_t)n && !memcmp(history + (size_t)n - head, word, head * sizeof *word);
}

/* A sequence of one id is biased always. */
static void add_biases(sill__sampler *s, const int32_t *history, int32_t n) {
    const sill_generate_options *o = &s->o;
    size_t at = 0;
    for (size_t i = 0; i < o->n_bias; i++) s->full[o->bias_ids[i]] += o->bias_values[i];
    for (size_t i = 0; i < o->n_bias_words; at = o->bias_word_ends[i++]) {
        const int32_t *word = o->bias_words + at;
        size_t head = o->bias_word_ends[i] - at - 1;
        if (ends_in(history, n, word, head)) s->full[word[head]] += o->bias_word_values[i];
    }
}

static void forbid_list(sill__sampler *s, const int32_t *ids, size_t n) {
    for (size_t i = 0; i < n; i++) s->full[ids[i]] = -INFINITY;
}

/* A bad word of one token is forbidden always (unless it ends the text), a longer one where its head was made. */
static void forbid_words(sill__sampler *s, const int32_t *history, int32_t n) {
    size_t at = 0;
    for (size_t i = 0; i < s->o.n_bad_words; at = s->o.bad_word_ends[i++]) {
        const int32_t *word = s->o.bad_words + at;
        size_t head = s->o.bad_word_ends[i] - at - 1;
        if (head == 0 ? is_eos(s, word[0]) : !ends_in(history, n, word, head)) continue;
        s->full[word[head]] = -INFINITY;
    }
}

/* ------------------------------------------------------- filters (sampling) */

/* Keeps the candidates whose score passes; order stays. */
static void keep_from(sill__sampler *s, float least) {
    int32_t n = 0;
    for (int32_t i = 0; i < s->n; i++)
        if (s->scores[i] >= least) {
            s->ids[n] = s->ids[i];
            s->scores[n++] = s->scores[i];
        }
    s->n = n;
}

static float best_score(const sill__sampler *s) {
    float best = s->scores[0];
    for (int32_t i = 1; i < s->n; i++) best = s->scores[i] > best ? s->scores[i] : best;
    return best;
}

/* probs = softmax of the candidates' scores. */
static void softmax(sill__sampler *s) {
    double best = best_score(s), sum = 0;
    for (int32_t i = 0; i < s->n; i++) sum += s->probs[i] = exp((double)s->scores[i] - best);
    for (int32_t i = 0; i < s->n; i++) s->probs[i] /= sum;
}

static double entropy(const sill__sampler *s) {
    double h = 0;
    for (int32_t i = 0; i < s->n; i++)
        if (s->probs[i] > 0) h -= s->probs[i] * log(s->probs[i]);
    return h;
}

/* The k-th largest score, by a heap of the k largest with the least at its root. */
static float kth_score(sill__sampler *s, int32_t k) {
    float *heap = s->full;
    if (k >= s->n) return -FLT_MAX;
    int32_t size = 0;
    for (int32_t i = 0; i < s->n; i++) {
        float x = s->scores[i];
        int32_t at;
        if (size < k) {
            for (at = size++; at > 0 && heap[(at - 1) / 2] > x; at = (at - 1) / 2) heap[at] = heap[(at - 1) / 2];
            heap[at] = x;
        } else if (x > heap[0]) {
            for (at = 0; 2 * at + 1 < k;) {
                int32_t child = 2 * at + 1;
                if (child + 1 < k && heap[child + 1] < heap[child]) child++;
                if (heap[child] >= x) break;
                heap[at] = heap[child];
                at = child;
            }
            heap[at] = x;
        }
    }
    return heap[0];
}

static void filter_top_k(sill__sampler *s, int32_t k) { keep_from(s, kth_score(s, SILL_MAX(k, s->keep))); }

/* The score that each filter leaves at least. */
static float kept_score(sill__sampler *s) { return s->keep == 1 ? best_score(s) : kth_score(s, s->keep); }

static double median3(double a, double b, double c) {
    if ((a <= b && b <= c) || (c <= b && b <= a)) return b;
    return (b <= a && a <= c) || (c <= a && a <= b) ? a : c;
}

/* Among n (key, weight) pairs in s->keys and s->weights: the least key v such that all weights with keys <= v sum
 * to `mass` or more (the largest key where they never do). *below: the sum of those with keys < v. By partition
 * around pivots, as in quickselect; reorders both arrays. */
static double mass_key(sill__sampler *s, int32_t n, double mass, double *below) {
    double *k = s->keys, *w = s->weights, sum = 0;
    int32_t lo = 0, hi = n;
    for (;;) {
        double pivot = median3(k[lo], k[lo + (hi - lo) / 2], k[hi - 1]), less = 0, same = 0;
        int32_t lt = lo, i = lo, gt = hi; /* [lo, lt) < pivot, [lt, i) == pivot, [gt, hi) > pivot */
        while (i < gt) {
            int32_t with = i;
            if (k[i] < pivot) {
                less += w[i];
                with = lt++;
            } else if (k[i] > pivot) {
                with = --gt;
            } else {
                same += w[i];
            }
            double key = k[i], weight = w[i];
            k[i] = k[with];
            w[i] = w[with];
            k[with] = key;
            w[with] = weight;
            if (with < gt) i++;
        }
        if (lt > lo && sum + less >= mass) {
            hi = lt;
        } else if (sum + less + same >= mass || gt == hi) {
            *below = sum + less;
            return pivot;
        } else {
            sum += less + same;
            lo = gt;
        }
    }
}

/* Keeps the most probable while those above sum to less than p. Of equal ones at the border the lower ids stay (in
 * transformers which of them stay is left to an unstable sort). */
static void filter_top_p(sill__sampler *s, double p) {
    double below;
    softmax(s);
    for (int32_t i = 0; i < s->n; i++) {
        s->keys[i] = -(double)s->scores[i];
        s->weights[i] = s->probs[i];
    }
    float border = (float)-mass_key(s, s->n, p, &below), kept = kept_score(s);
    if (s->keep > 1 && kept <= border) {
        keep_from(s, kept);
        return;
    }
    int32_t n_equal = 0, stay = 0, n = 0;
    double q = 0;
    for (int32_t i = 0; i < s->n; i++)
        if (s->scores[i] == border) {
            n_equal++;
            q = s->probs[i];
        }
    while (stay < n_equal && (below + stay * q < p || (stay == 0 && below == 0))) stay++;
    for (int32_t i = 0; i < s->n; i++) {
        if (s->scores[i] < border || (s->scores[i] == border && stay-- <= 0)) continue;
        s->ids[n] = s->ids[i];
        s->scores[n++] = s->scores[i];
    }
    s->n = n;
}

/* Drops candidates less probable than `least`; the best (with its ties) always stays. */
static void filter_least(sill__sampler *s, double least) {
    float kept = kept_score(s);
    int32_t n = 0;
    for (int32_t i = 0; i < s->n; i++)
        if (s->probs[i] >= least || s->scores[i] >= kept) {
            s->ids[n] = s->ids[i];
            s->scores[n++] = s->scores[i];
        }
    s->n = n;
}

/* The least key that leaves s->keep candidates. */
static double kept_key(const sill__sampler *s) {
    double least[SILL_ARRAY_LEN(s->eos) + 1];
    int32_t n = 0, k = SILL_MIN(s->keep, s->n);
    for (int32_t i = 0; i < s->n; i++) {
        int32_t at = n < k ? n++ : k;
        for (; at > 0 && least[at - 1] > s->keys[i]; at--)
            if (at < k) least[at] = least[at - 1];
        if (at < k) least[at] = s->keys[i];
    }
    return least[k - 1];
}

/* Keeps the candidates whose surprise is nearest to the entropy until they sum to `mass` (ties stay). */
static void filter_typical(sill__sampler *s, double mass) {
    double below;
    int32_t n = 0;
    softmax(s);
    double h = entropy(s), best = best_score(s), sum = 0;
    for (int32_t i = 0; i < s->n; i++) sum += exp((double)s->scores[i] - best);
    double lse = best + log(sum);
    for (int32_t i = 0; i < s->n; i++) {
        /* f32, as the tie of two tokens is one of f32 numbers there */
        s->keys[i] = (float)fabs(lse - (double)s->scores[i] - h);
        s->weights[i] = s->probs[i];
    }
    double kept = kept_key(s), border = mass_key(s, s->n, mass, &below);
    border = SILL_MAX(border, kept);
    for (int32_t i = 0; i < s->n; i++)
        if ((float)fabs(lse - (double)s->scores[i] - h) <= border) {
            s->ids[n] = s->ids[i];
            s->scores[n++] = s->scores[i];
        }
    s->n = n;
}

static void filters(sill__sampler *s) {
    const sill_generate_options *o = &s->o;
    if (o->temperature != 1.0f) {
        /* Where the best quotient would overflow, the scores count from the best one: that is the same softmax. */
        float best = best_score(s), from = isfinite(best / o->temperature) ? 0.0f : best;
        for (int32_t i = 0; i < s->n; i++) s->scores[i] = (s->scores[i] - from) / o->temperature;
        keep_from(s, -FLT_MAX); /* a very low score may have become -infinity */
        if (s->n == 0) return;
    }
    if (o->top_k > 0) filter_top_k(s, o->top_k);
    if (o->top_p < 1.0f) filter_top_p(s, o->top_p);
    if (o->min_p > 0.0f) {
        double best = 0;
        softmax(s);
        for (int32_t i = 0; i < s->n; i++) best = s->probs[i] > best ? s->probs[i] : best;
        filter_least(s, (double)o->min_p * best);
    }
    if (o->typical_p > 0.0f && o->typical_p < 1.0f) filter_typical(s, o->typical_p);
    if (o->epsilon_cutoff > 0.0f) {
        softmax(s);
        filter_least(s, o->epsilon_cutoff);
    }
    if (o->eta_cutoff > 0.0f) {
        softmax(s);
        double e = o->eta_cutoff, eta = sqrt(e) * exp(-entropy(s));
        filter_least(s, eta < e ? eta : e);
    }
}

void sill__sampler_allow(sill__sampler *s, const uint64_t *mask) { s->allowed = mask; }

sill_status sill__sampler_filter(sill__sampler *s, const float *logits, const int32_t *history, int32_t n_history,
                                 int32_t n_new, sill_error *err) {
    const sill_generate_options *o = &s->o;
    memcpy(s->full, logits, (size_t)s->n_vocab * sizeof *s->full);
    add_biases(s, history, n_history);
    if (o->repetition_penalty != 1.0f) penalize_repetition(s, history, n_history);
    if (o->no_repeat_ngram_size) forbid_ngrams(s, history, n_history);
    if (o->n_bad_words) forbid_words(s, history, n_history);
    if (n_new < o->min_new_tokens || n_history < o->min_length)
        for (int32_t i = 0; i < s->n_eos; i++)
            if (s->eos[i] >= 0 && s->eos[i] < s->n_vocab) s->full[s->eos[i]] = -INFINITY;
    forbid_list(s, o->suppress_tokens, o->n_suppress);
    if (n_new == 0) forbid_list(s, o->begin_suppress_tokens, o->n_begin_suppress);
    s->n = 0;
    for (int32_t i = 0; i < s->n_vocab; i++) {
        float x = s->full[i];
        if (s->allowed && !(s->allowed[i / 64] >> (i % 64) & 1)) continue;
        if (!(x < INFINITY))
            return sill__fail(err, SILL_EDEVICE, "the logit of id %d is %g: the model's numbers overflowed (not a number); "
                              "try dtype f32", i, (double)x);
        if (x == -INFINITY) continue;
        s->ids[s->n] = i;
        s->scores[s->n++] = x;
    }
    if (s->n && o->do_sample) filters(s);
    if (s->n == 0)
        return sill__fail(err, SILL_ERANGE, "every token is forbidden here by the bias, bad words, n-gram or constraint options");
    if (o->do_sample) softmax(s);
    return SILL_OK;
}

int32_t sill__sampler_draw(const sill__sampler *s, uint64_t row_key, uint32_t sequence, uint32_t step) {
    if (!s->o.do_sample) {
        int32_t best = 0;
        for (int32_t i = 1; i < s->n; i++)
            if (s->scores[i] > s->scores[best]) best = i;
        return s->ids[best];
    }
    double u = sill__uniform(s->o.seed, row_key, sequence, step), sum = 0;
    int32_t last = 0;
    for (int32_t i = 0; i < s->n; i++) {
        if (!(s->probs[i] > 0)) continue;
        last = i;
        sum += s->probs[i];
        if (u < sum) return s->ids[i];
    }
    return s->ids[last]; /* the sum is 1 but for rounding */
}

int32_t sill__sampler_scores(const sill__sampler *s, const int32_t **ids, const float **scores) {
    *ids = s->ids;
    *scores = s->scores;
    return s->n;
}

int32_t sill__sampler_left(const sill__sampler *s, const int32_t **ids, const double **probs) {
    *ids = s->ids;
    *probs = s->probs;
    return s->n;
}
