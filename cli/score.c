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
    bool bos, corrected, no_shared_prefix;
    int32_t stride;
    const char *context;
} score_options;

enum { PER_TEXT, PER_TOKEN, PER_WORD };

typedef struct score_task {
    int per;
    bool corrected, context;
    const sill_tokenizer *tokenizer;
    sill_score_options so;
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

/* The surprisal of words corrected for where they end (Pimentel and Meister 2024; Oh and Schuler 2024): white space stands in
 * front of a word's first token, so it is this token that tells that the word before has ended. Its probability of being
 * such a token goes to the word before. White space alone belongs to the word that follows. */
typedef struct correction { double word, next; bool passed; } correction; /* passed: the word has ended, the next not begun */

static void correct(correction *c, const sill_scored *r, size_t i, bool any, bool blank_front, bool blank_behind) {
    const double s = -(double)r->logprobs[i];
    if (any && !c->passed && (blank_front || blank_behind)) {
        const double boundary = blank_front ? (double)r->boundaries[i] : 0; /* white space at the end of a token: it is certain */
        c->word -= boundary;
        c->next = boundary;
        c->passed = true;
    }
    if (c->passed) c->next += s;
    else c->word += s;
}

/* The next word begins. */
static void turn(correction *c) {
    c->word = c->next;
    c->next = 0;
    c->passed = false;
}

static double last_corrected(const correction *c, const sill_scored *r, bool blank_behind) {
    return c->word + c->next - (blank_behind ? 0 : (double)r->boundaries[r->n_ids]);
}

static void put_word(sill__str *list, size_t n, const sill__str *word) {
    if (n) sill__str_put(list, ",", 1);
    sill__put_json_string(list, word->p, word->n);
}

static void put_sum(sill__str *list, size_t n, double value) {
    if (n) sill__str_put(list, ",", 1);
    sill__put_json_f64(list, value);
}

/* Words are what white space separates. A token belongs to the word of its first byte that is not white space;
 * a token of white space alone to the word that follows (at the end: to the last one). A word's surprisal is the sum of its tokens', so that the words
 * of a text add up to the text. */
static void put_words(cli_run *run, sill__record *record, score_task *t, const sill_scored *r) {
    sill__str words, word, corrected;
    double sum = 0, blank = 0; /* of the word; of white space alone behind it */
    correction c = {0};
    bool any = false, blank_behind = true;
    size_t n_words = 0;
    sill__str_init(&words, (size_t)1 << 30);
    sill__str_init(&word, (size_t)1 << 30);
    sill__str_init(&corrected, (size_t)1 << 30);
    sill__str_clear(&run->json);
    sill__str_put(&words, "[", 1);
    sill__str_put(&run->json, "[", 1);
    sill__str_put(&corrected, "[", 1);
    for (size_t i = 0; i <= r->n_ids; i++) {
        const char *p = "";
        size_t n = 0, k = 0;
        if (i < r->n_ids && !token_bytes(t, r->ids, i, &p, &n)) n = 0;
        while (k < n && cli_is_space(p[k])) k++;
        bool starts = any && k < n && (k > 0 || blank_behind);
        if (r->boundaries && i < r->n_ids) correct(&c, r, i, any, k > 0, blank_behind);
        if (any && (starts || i == r->n_ids)) {
            put_word(&words, n_words, &word);
            put_sum(&run->json, n_words, i == r->n_ids ? sum + blank : sum);
            if (r->boundaries) put_sum(&corrected, n_words, i == r->n_ids ? last_corrected(&c, r, blank_behind) : c.word);
            turn(&c);
            n_words++;
            sill__str_clear(&word);
            sum = blank;
            blank = 0;
        }
        if (i == r->n_ids) break;
        if (k < n) any = true, blank_behind = cli_is_space(p[n - 1]);
        else if (n) blank_behind = true;
        size_t end = n;
        while (end > k && cli_is_space(p[end - 1])) end--;
        if (k < end) sill__str_put(&word, p + k, end - k);
        *(any && k == n && n ? &blank : &sum) -= (double)r->logprobs[i]; /* NAN for a token without a log-probability: the word has no number */
    }
    sill__str_put(&words, "]", 1);
    sill__str_put(&run->json, "]", 1);
    sill__str_put(&corrected, "]", 1);
    sill__record_json(record, words.p, words.n);
    sill__record_json(record, run->json.p, run->json.n);
    if (t->corrected) sill__record_json(record, corrected.p, corrected.n);
    sill__str_free(&words);
    sill__str_free(&word);
    sill__str_free(&corrected);
}

static int done(void *user, const sill_scored *r) {
    cli_run *run = user;
    score_task *t = run->task;
    if (r->status != SILL_OK) return sill__flow_fail(run->flow, r->index, r->error);
    sill__record *record = sill__flow_begin(run->flow, r->index, 0);
    if (!record) return 0;
    run->tokens += r->n_ids + r->n_context;
    run->long_rows += r->truncated || r->n_windows > 1;
    double mean = r->n_scored ? r->sum_logprob / (double)r->n_scored : (double)NAN;
    sill__record_int(record, (int64_t)r->n_ids);
    if (t->context) sill__record_int(record, (int64_t)r->n_context);
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

static sill_status rows(cli_run *run, sill_error *err) {
    const score_task *t = run->task;
    return sill_score(run->engine->session, &t->so, cli_run_next, done, run, err);
}

static int run_score(const score_options *o, cli_run *run, const cli_engine *engine) {
    static const char *const fields[] = {"sum_logprob", "mean_logprob", "perplexity"};
    static const char *const by_token[] = {"ids", "tokens", "logprobs"}, *const by_word[] = {"words", "surprisals", "corrected_surprisals"};
    const char *all[10];
    size_t n = 0;
    score_task t = {.per = o->per, .corrected = o->corrected, .context = o->context != NULL, .tokenizer = sill_model_tokenizer(engine->model)};
    t.so = (sill_score_options){.size = sizeof t.so, .bos = o->bos, .long_policy = (sill_long)o->text.long_policy, .stride = o->stride,
                                .boundaries = o->corrected, .no_shared_prefix = o->no_shared_prefix,
                                .tokenize_flags = o->text.special ? SILL_TOKENIZE_SPECIAL : 0};
    all[n++] = "n_tokens";
    if (o->context) all[n++] = "n_context";
    for (size_t i = 0; i < SILL_ARRAY_LEN(fields); i++) all[n++] = fields[i];
    for (size_t i = 0; o->per == PER_TOKEN && i < SILL_ARRAY_LEN(by_token); i++) all[n++] = by_token[i];
    for (size_t i = 0; o->per == PER_WORD && i < SILL_ARRAY_LEN(by_word) - !o->corrected; i++) all[n++] = by_word[i];
    sill__str_init(&t.bytes, (size_t)1 << 30);
    char stride[32];
    bool split = o->text.long_policy == SILL_LONG_SPLIT_MEAN;
    snprintf(stride, sizeof stride, "%d", (int)(o->stride ? o->stride : engine->plan.n_ctx / (split ? 1 : 2)));
    const cli_default defaults[] = {{"long", "window"}, {"stride", stride}, {NULL, NULL}};
    const cli_work work = {.fields = all, .n_fields = n, .defaults = defaults, .long_policy = o->text.long_policy, .task = &t, .rows = rows};
    int status = cli_run_rows(run, engine, &work);
    sill__str_free(&t.bytes);
    return status;
}

static const char notes[] =
    "Adds n_tokens, sum_logprob, mean_logprob and perplexity (of the tokens that have a log-probability; natural\n"
    "logarithms); --per token also ids, tokens, logprobs; --per word also words, surprisals (in nats).\n"
    "The first token has no log-probability (null) unless --bos puts the beginning-of-text token in front of it: also\n"
    "where a model's own tokenizer adds that token (TinyLlama), and there --bos is transformers' model(**tokenizer(text)).\n"
    "--context COLUMN: the text's log-probability given the context in front of it (a label, an ending, a last word),\n"
    "and n_context, the context's tokens. Both are tokenized as one string; the text's tokens begin where those of the\n"
    "context alone end, white space at the context's end counts with the text. Rows that follow each other with the same\n"
    "context share its computation, to the same bits.\n"
    "A word is what white space separates; its surprisal is minus the sum of its tokens' log-probabilities (white\n"
    "space in front counts with the word); null where a token has none. --corrected adds corrected_surprisals: white\n"
    "space in front of the next word is what tells that a word has ended, so the probability of that goes from the next\n"
    "word to it (Pimentel and Meister 2024, Oh and Schuler 2024). It takes full logits, and a few times as long.\n"
    "Texts above the context: --long window (default) scores them in windows that overlap (--stride), split-mean as pieces\n"
    "of their own, of which each begins like a text, truncate their beginning (of a context: its end), error not at all.\n"
    "The summary and the record (long_rows) say how many rows that are.\n"
    "Blank lines of a plain-text file are skipped and counted.\n";

int cli_score(int argc, char **argv) {
    static score_options o;
    static const char *const pers[] = {"text", "token", "word", NULL};
    static const arg_option own[] = {
        {"per", 0, ARG_CHOICE, offsetof(score_options, per), 0, 0, pers, "UNIT", "text, token or word (default text)"},
        {"bos", 0, ARG_FLAG, offsetof(score_options, bos), 0, 0, NULL, NULL, "beginning of text in front, so that the first token is scored too"},
        {"context", 0, ARG_TEXT, offsetof(score_options, context), 0, 0, NULL, "COLUMN", "what stands before the text: the text alone is scored, given it"},
        {"no-shared-prefix", 0, ARG_FLAG, offsetof(score_options, no_shared_prefix), 0, 0, NULL, NULL, "compute a context again for every row (the same results, more slowly)"},
        {"corrected", 0, ARG_FLAG, offsetof(score_options, corrected), 0, 0, NULL, NULL, "with --per word: also surprisals corrected for where words end"},
        {"stride", 0, ARG_INT, offsetof(score_options, stride), 1, 1 << 24, NULL, "N", "tokens that each further window adds (default: half the context)"},
    };
    const arg_command command = {
        "score", "FILE [--text COLUMN] [--per token|word|text]", "Log-probabilities of the texts of a file under a model.",
        {{"scores", own, SILL_ARRAY_LEN(own), &o}, cli_input_table(&o.corpus.in, true), cli_output_table(&o.corpus), cli_text_table(&o.text, CLI_LONG_SCORE),
         cli_model_table(&o.model), cli_general_table()},
        notes, 1, 1};
    char **files;
    int n;
    cli_run run;
    cli_engine engine = {0};
    int status = args_parse(&command, argc, argv, &files, &n);
    if (status < 0) status = cli_check_long("score", &o.text, CLI_LONG_SCORE);
    if (status < 0 && o.corrected && o.per != PER_WORD) status = args_usage("score", "--corrected is for --per word");
    if (status < 0 && o.stride && o.text.long_policy == SILL_LONG_SPLIT_MEAN)
        status = args_usage("score", "--stride is for --long window; split-mean has pieces side by side");
    if (status < 0) status = cli_run_input(&run, "score", files[0], &o.corpus, NULL);
    if (status >= 0) return status;
    if (o.context && (status = cli_run_select(&run, o.context, &run.context_slot)) >= 0) {
        cli_run_free(&run);
        return status;
    }
    run.has_context = o.context != NULL;
    status = cli_engine_open("score", &o.model, &(cli_needs){.stride = o.stride, .min_ctx = 2}, &engine);
    if (status < 0) status = run_score(&o, &run, &engine);
    cli_run_free(&run);
    cli_engine_close(&engine);
    return status;
}
