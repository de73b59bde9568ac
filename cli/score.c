/* score.c - `sill score`: log-probabilities of the rows' texts by token, word and text. */
#include <ctype.h>
#include <math.h>
#include <string.h>

#include "common.h"

typedef struct score_options {
    cli_model_options model;
    cli_corpus_options corpus;
    cli_text_options text;
    int per;
    bool bos;
    int32_t stride;
} score_options;

enum { PER_TEXT, PER_TOKEN, PER_WORD };

typedef struct score_task {
    int per;
    const sill_tokenizer *tokenizer;
    sill__str bytes; /* of one token, behind those of the one before it */
} score_task;

/* Bytes of token I of IDS as it stands behind token I - 1 (a word's first piece keeps its space that way). */
static bool token_bytes(score_task *t, const int32_t *ids, size_t i, const char **p, size_t *n) {
    size_t from = i ? i - 1 : 0, before = 0, all = 0;
    size_t bound = sill_detokenize_bound(t->tokenizer, ids + from, i - from + 1);
    sill__str_clear(&t->bytes);
    while (t->bytes.cap < bound + 1)
        if (!sill__str_put(&t->bytes, "                                ", 32)) return false;
    if (i && sill_detokenize(t->tokenizer, ids + from, 1, 0, t->bytes.p, bound, &before, NULL) != SILL_OK) return false;
    if (sill_detokenize(t->tokenizer, ids + from, i - from + 1, 0, t->bytes.p, bound, &all, NULL) != SILL_OK) return false;
    *p = t->bytes.p + SILL_MIN(before, all);
    *n = all - SILL_MIN(before, all);
    return true;
}

static void put_tokens(cli_run *run, sill__record *record, score_task *t, const sill_scored *r) {
    sill__str_clear(&run->json);
    sill__str_put(&run->json, "[", 1);
    for (size_t i = 0; i < r->n_ids; i++) {
        const char *p = "";
        size_t n = 0;
        if (i) sill__str_put(&run->json, ",", 1);
        if (!token_bytes(t, r->ids, i, &p, &n)) n = 0;
        sill__put_json_string(&run->json, p, n);
    }
    sill__str_put(&run->json, "]", 1);
    sill__record_json(record, run->json.p, run->json.n);
}

/* Words are what white space separates. A token belongs to the word of its first byte that is not white space;
 * a token of white space alone to the word behind it (at the end: the last one). A word's surprisal is the sum
 * of its tokens', so that the words of a text add up to the text. */
static void put_words(cli_run *run, sill__record *record, score_task *t, const sill_scored *r) {
    sill__str words, word;
    double sum = 0;
    bool any = false, blank_behind = true;
    size_t n_words = 0;
    sill__str_init(&words, (size_t)1 << 30);
    sill__str_init(&word, (size_t)1 << 30);
    sill__str_clear(&run->json);
    sill__str_put(&words, "[", 1);
    sill__str_put(&run->json, "[", 1);
    for (size_t i = 0; i <= r->n_ids; i++) {
        const char *p = "";
        size_t n = 0, k = 0;
        if (i < r->n_ids && !token_bytes(t, r->ids, i, &p, &n)) n = 0;
        while (k < n && cli_is_space(p[k])) k++;
        bool starts = any && k < n && (k > 0 || blank_behind);
        if (any && (starts || i == r->n_ids)) {
            if (n_words++) {
                sill__str_put(&words, ",", 1);
                sill__str_put(&run->json, ",", 1);
            }
            sill__put_json_string(&words, word.p, word.n);
            sill__put_json_f64(&run->json, sum);
            sill__str_clear(&word);
            sum = 0;
        }
        if (i == r->n_ids) break;
        if (k < n) any = true, blank_behind = cli_is_space(p[n - 1]);
        else if (n) blank_behind = true;
        size_t end = n;
        while (end > k && cli_is_space(p[end - 1])) end--;
        if (k < end) sill__str_put(&word, p + k, end - k);
        sum -= (double)r->logprobs[i]; /* NAN for a token without a log-probability: the word has no number */
    }
    sill__str_put(&words, "]", 1);
    sill__str_put(&run->json, "]", 1);
    sill__record_json(record, words.p, words.n);
    sill__record_json(record, run->json.p, run->json.n);
    sill__str_free(&words);
    sill__str_free(&word);
}

static int done(void *user, const sill_scored *r) {
    cli_run *run = user;
    score_task *t = run->task;
    if (r->status != SILL_OK) return sill__flow_fail(run->flow, r->index, r->error);
    sill__record *record = sill__flow_begin(run->flow, r->index, 0);
    if (!record) return 0;
    run->tokens += r->n_ids;
    double mean = r->n_scored ? r->sum_logprob / (double)r->n_scored : (double)NAN;
    sill__record_int(record, (int64_t)r->n_ids);
    sill__record_f64(record, r->n_scored ? r->sum_logprob : (double)NAN);
    sill__record_f64(record, mean);
    sill__record_f64(record, exp(-mean));
    if (t->per == PER_TOKEN) {
        cli_put_ids(run, record, r->ids, r->n_ids);
        put_tokens(run, record, t, r);
        cli_put_floats(run, record, r->logprobs, r->n_ids);
    } else if (t->per == PER_WORD) {
        put_words(run, record, t, r);
    }
    sill__record_end(record, NULL);
    return sill__flow_commit(run->flow);
}

static int run_score(const score_options *o, cli_run *run, cli_engine *engine) {
    static const char *const fields[] = {"n_tokens", "sum_logprob", "mean_logprob", "perplexity"};
    static const char *const by_token[] = {"ids", "tokens", "logprobs"}, *const by_word[] = {"words", "surprisals"};
    const char *all[8];
    size_t n = 0;
    sill_error err = {0};
    sill_status s;
    score_task t = {.per = o->per, .tokenizer = sill_model_tokenizer(engine->model)};
    sill_score_options so = {.size = sizeof so, .bos = o->bos, .long_policy = (sill_long)o->text.long_policy, .stride = o->stride,
                             .tokenize_flags = o->text.special ? SILL_TOKENIZE_SPECIAL : 0};
    for (size_t i = 0; i < SILL_ARRAY_LEN(fields); i++) all[n++] = fields[i];
    for (size_t i = 0; o->per == PER_TOKEN && i < SILL_ARRAY_LEN(by_token); i++) all[n++] = by_token[i];
    for (size_t i = 0; o->per == PER_WORD && i < SILL_ARRAY_LEN(by_word); i++) all[n++] = by_word[i];
    sill__str_init(&t.bytes, (size_t)1 << 30);
    run->task = &t;
    run->tokenizer = t.tokenizer;
    run->engine = engine;
    run->model_path = engine->path;
    char stride[32];
    snprintf(stride, sizeof stride, "%d", (int)(o->stride ? o->stride : engine->plan.n_ctx / 2));
    const cli_default defaults[] = {{"long", "window"}, {"stride", stride}, {NULL, NULL}};
    run->defaults = defaults;
    int status = cli_run_output(run, all, n, 1);
    if (status < 0) {
        do s = sill_score(engine->session, &so, cli_run_next, done, run, &err);
        while (s == SILL_OK && sill__flow_more(run->flow));
        status = cli_run_end(run, s, &err, engine);
    }
    sill__str_free(&t.bytes);
    return status;
}

static const char notes[] =
    "Adds n_tokens, sum_logprob, mean_logprob and perplexity (of the tokens that have a log-probability; natural\n"
    "logarithms); --per token also ids, tokens, logprobs; --per word also words, surprisals (in nats).\n"
    "The first token has no log-probability (null) unless --bos puts the beginning-of-text token in front of it: also\n"
    "where a model's own tokenizer adds that token (TinyLlama), and there --bos is transformers' model(**tokenizer(text)).\n"
    "A word is what white space separates; its surprisal is minus the sum of its tokens' log-probabilities (white\n"
    "space in front counts with the word; no correction for the probability of a word's end); null where a token\n"
    "has none. Texts above the context are scored in windows that overlap (--long window, --stride).\n"
    "Blank lines of a plain-text file are skipped and counted.\n";

int cli_score(int argc, char **argv) {
    static score_options o;
    static const char *const pers[] = {"text", "token", "word", NULL};
    static const arg_option own[] = {
        {"per", 0, ARG_CHOICE, offsetof(score_options, per), 0, 0, pers, "UNIT", "text, token or word (default text)"},
        {"bos", 0, ARG_FLAG, offsetof(score_options, bos), 0, 0, NULL, NULL, "beginning of text in front, so that the first token is scored too"},
        {"stride", 0, ARG_INT, offsetof(score_options, stride), 1, 1 << 24, NULL, "N", "tokens that each further window adds (default: half the context)"},
    };
    const arg_command command = {
        "score", "FILE [--text COLUMN] [--per token|word|text]", "Log-probabilities of the texts of a file under a model.",
        {{"scores", own, SILL_ARRAY_LEN(own), &o}, cli_corpus_table(&o.corpus), cli_text_table(&o.text, true),
         cli_model_table(&o.model), cli_general_table()},
        notes, 1, 1};
    char **files;
    int n;
    cli_run run;
    cli_engine engine = {0};
    int status = args_parse(&command, argc, argv, &files, &n);
    if (status < 0) status = cli_check_long("score", &o.text, true);
    if (status < 0) status = cli_run_input(&run, "score", files[0], &o.corpus, NULL);
    if (status >= 0) return status;
    status = cli_engine_open("score", &o.model, &(cli_needs){.stride = o.stride, .min_ctx = 2}, &engine);
    if (status < 0) status = run_score(&o, &run, &engine);
    cli_run_free(&run);
    cli_engine_close(&engine);
    return status;
}
