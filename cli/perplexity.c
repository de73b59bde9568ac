/* perplexity.c - `sill perplexity`: of a whole plain text, or of all rows of a file together. */
#include <math.h>
#include <string.h>

#include "common.h"

typedef struct perplexity_options {
    cli_model_options model;
    cli_corpus_options corpus;
    cli_text_options text;
    bool bos, json;
    int32_t stride;
} perplexity_options;

typedef struct totals {
    sill__reader *reader;   /* rows, or NULL: one text */
    size_t slot;
    const char *text;
    size_t n_bytes;
    bool given;
    const sill_tokenizer *tokenizer;
    uint64_t lost;          /* bytes without a token */
    sill__corpus_row **rows; /* in flight, by row number & mask; a row is freed when its result is there */
    size_t n_rows_cap;
    __int128 sum;           /* of log-probabilities, in units of 2^-64: the order of the rows leaves no trace */
    uint64_t n_scored, n_tokens, n_windows, n_texts, n_failed, n_words, n_bytes_scored; /* of the texts scored */
    sill_status status;
    sill_error err;
} totals;

/* Rows in flight are few, and their numbers are near each other: a small table that grows when they clash. */
static bool keep_row(totals *t, sill__corpus_row *row) {
    for (;;) {
        if (t->n_rows_cap && !t->rows[row->number & (t->n_rows_cap - 1)]) {
            t->rows[row->number & (t->n_rows_cap - 1)] = row;
            return true;
        }
        size_t cap = t->n_rows_cap ? t->n_rows_cap * 2 : 64;
        sill__corpus_row **rows = cap > (size_t)1 << 24 ? NULL : sill__calloc(cap, sizeof *rows);
        if (!rows) return false;
        for (size_t i = 0; i < t->n_rows_cap; i++)
            if (t->rows[i]) rows[t->rows[i]->number & (cap - 1)] = t->rows[i];
        sill__free(t->rows);
        t->rows = rows;
        t->n_rows_cap = cap;
    }
}

static void drop_row(totals *t, uint64_t number) {
    if (!t->n_rows_cap) return;
    sill__corpus_row **at = &t->rows[number & (t->n_rows_cap - 1)];
    if (*at && (*at)->number == number) {
        sill__row_free(*at);
        *at = NULL;
    }
}

static void bad_row(totals *t, uint64_t number, const char *message) {
    if (t->n_failed++ < 20) cli_say("row %llu: %s", (unsigned long long)number, message);
}

static int next(void *user, sill_row *row) {
    totals *t = user;
    sill__corpus_row *r;
    if (cli_stop) return -1;
    memset(row, 0, sizeof *row);
    if (!t->reader) {
        if (t->given) return 0;
        t->given = true;
        row->text = t->text;
        row->n_bytes = t->n_bytes;
        t->lost += cli_lost_bytes(t->tokenizer, row->text, row->n_bytes);
        return 1;
    }
    for (;;) {
        if ((t->status = sill__reader_next(t->reader, &r, &t->err)) != SILL_OK) return -1;
        if (!r) return 0;
        const sill__cell *cell = &r->cells[t->slot];
        if (r->error || cell->kind == SILL__CELL_MISSING || cell->kind == SILL__CELL_JSON) {
            bad_row(t, r->number, r->error ? r->error : cell->kind == SILL__CELL_JSON
                    ? "the row's text is a JSON array or object, not a text" : "the row has no text");
            sill__row_free(r);
            continue;
        }
        if (!keep_row(t, r)) {
            sill__row_free(r);
            t->status = sill__fail(&t->err, SILL_ENOMEM, "no memory for rows in flight");
            return -1;
        }
        row->index = row->key = r->number;
        row->text = cell->p;
        row->n_bytes = cell->n;
        t->lost += cli_lost_bytes(t->tokenizer, row->text, row->n_bytes);
        return 1;
    }
}

static uint64_t count_words(const char *p, size_t n) {
    uint64_t words = 0;
    for (size_t i = 0; i < n; i++) words += !cli_is_space(p[i]) && (i == 0 || cli_is_space(p[i - 1]));
    return words;
}

/* The text of row NUMBER, which is in flight. */
static void count_text(totals *t, uint64_t number) {
    const char *text = t->text;
    size_t n = t->n_bytes;
    if (t->reader) {
        const sill__corpus_row *row = t->rows[number & (t->n_rows_cap - 1)];
        text = row->cells[t->slot].p;
        n = row->cells[t->slot].n;
    }
    t->n_words += count_words(text, n);
    t->n_bytes_scored += n;
}

#define SUM_UNIT 0x1p-64

static int done(void *user, const sill_scored *r) {
    totals *t = user;
    if (r->status != SILL_OK) {
        bad_row(t, r->index, r->error);
    } else if (!(fabs(r->sum_logprob) < 0x1p+60)) { /* far above any text's; also not a number */
        bad_row(t, r->index, "its log-probability is not a finite number");
    } else {
        t->sum += (__int128)(r->sum_logprob / SUM_UNIT);
        t->n_scored += r->n_scored;
        t->n_tokens += r->n_ids;
        t->n_windows += (uint64_t)r->n_windows;
        t->n_texts++;
        count_text(t, r->index);
    }
    drop_row(t, r->index);
    return cli_stop;
}

static int print(const perplexity_options *o, const totals *t) {
    double nll = t->n_scored ? -((double)t->sum * SUM_UNIT) / (double)t->n_scored : (double)NAN;
    double whole = -((double)t->sum * SUM_UNIT), bits = NAN, word = NAN;
    char perplexity[32], mean[32], by_word[32], by_byte[32];
    if (o->text.long_policy != SILL_LONG_TRUNCATE) { /* cut texts have fewer words than they say */
        if (t->n_words) word = exp(whole / (double)t->n_words);
        if (t->n_bytes_scored) bits = whole / (double)t->n_bytes_scored / 0.69314718055994530942;
    }
    sill__f64_text(exp(nll), perplexity);
    sill__f64_text(nll, mean);
    sill__f64_text(word, by_word);
    sill__f64_text(bits, by_byte);
    if (o->json || o->corpus.json)
        printf("{\"perplexity\":%s,\"n_tokens\":%llu,\"nll\":%s,\"word_perplexity\":%s,\"n_words\":%llu,"
               "\"bits_per_byte\":%s,\"n_bytes\":%llu}\n", perplexity[0] ? perplexity : "null", (unsigned long long)t->n_scored,
               mean[0] ? mean : "null", by_word[0] ? by_word : "null", (unsigned long long)t->n_words,
               by_byte[0] ? by_byte : "null", (unsigned long long)t->n_bytes_scored);
    else printf("%s\n", perplexity[0] ? perplexity : "nan");
    if (isfinite(word)) cli_say("perplexity by word: %.6g (%llu words), %.5f bits per byte", word, (unsigned long long)t->n_words, bits);
    return cli_flush_stdout();
}

static int nothing(const char *why) {
    fprintf(stderr, "sill: error: nothing to score: %s\n", why);
    return EXIT_FAILED;
}

static int run_perplexity(const perplexity_options *o, totals *t) {
    cli_engine engine;
    sill_error err = {0};
    sill_score_options so = {.size = sizeof so, .bos = o->bos, .long_policy = (sill_long)o->text.long_policy, .stride = o->stride,
                             .tokenize_flags = o->text.special ? SILL_TOKENIZE_SPECIAL : 0};
    int status = cli_engine_open("perplexity", &o->model, &(cli_needs){.stride = o->stride, .min_ctx = 2}, &engine);
    if (status >= 0) return status;
    t->tokenizer = sill_model_tokenizer(engine.model);
    double started = sill__now();
    sill_status s = sill_score(engine.session, &so, next, done, t, &err);
    double seconds = sill__now() - started;
    cli_say_lost(t->lost);
    if (cli_stop) {
        fprintf(stderr, "sill: interrupted\n");
        status = EXIT_INTERRUPTED;
    } else if (t->status != SILL_OK || s != SILL_OK) {
        status = cli_fail(t->status != SILL_OK ? &t->err : &err);
    } else if (!t->n_scored && t->n_failed) {
        fprintf(stderr, "sill: error: nothing to score: %llu rows failed, and the others have no token to score\n",
                (unsigned long long)t->n_failed);
        status = EXIT_FAILED;
    } else if (!t->n_scored) {
        status = nothing(t->n_tokens ? "no text has a second token; --bos scores the first too" : "there is no text");
    } else {
        status = print(o, t);
        cli_say("perplexity: %llu of %llu tokens scored, %llu text%s in %llu window%s, %.2f s, %.0f tokens/s",
                (unsigned long long)t->n_scored, (unsigned long long)t->n_tokens, (unsigned long long)t->n_texts,
                t->n_texts == 1 ? "" : "s", (unsigned long long)t->n_windows, t->n_windows == 1 ? "" : "s", seconds,
                seconds > 0 ? (double)t->n_tokens / seconds : 0.0);
        if (status == EXIT_OK && t->n_failed) status = EXIT_ROWS;
    }
    cli_engine_close(&engine);
    return status;
}

static const char notes[] =
    "A .txt file (or standard input) is one text, line ends included, as in the usual WikiText-2 numbers; the rows\n"
    "of a CSV, TSV or JSONL file (--text COLUMN), or the .txt files of a directory, are texts of their own, whose\n"
    "tokens are averaged together.\n"
    "Longer texts than the context (--ctx) are read in windows that overlap: each adds --stride tokens, which are\n"
    "scored given those before them in the window. --ctx 512 --stride 512 gives windows without overlap.\n"
    "Prints the perplexity; --json: perplexity, n_tokens (those scored), nll (mean, in nats; perplexity is exp(nll)),\n"
    "word_perplexity (the exponential of minus the sum of log-probabilities by word, n_words of them, between white\n"
    "space), bits_per_byte, n_bytes; null with --long truncate. All of them leave out what the first token costs\n"
    "unless --bos scores it. Without --bos a tokenizer that adds the token by itself (TinyLlama's) adds none here;\n"
    "with it the number is that of transformers' model(**tokenizer(text), labels=...).loss.\n";

int cli_perplexity(int argc, char **argv) {
    static perplexity_options o;
    static const arg_option own[] = {
        {"bos", 0, ARG_FLAG, offsetof(perplexity_options, bos), 0, 0, NULL, NULL, "beginning of text in front, so that the first token is scored too"},
        {"stride", 0, ARG_INT, offsetof(perplexity_options, stride), 1, 1 << 24, NULL, "N", "tokens that each further window adds (default: half the context)"},
        {"json", 0, ARG_FLAG, offsetof(perplexity_options, json), 0, 0, NULL, NULL, "the result as JSON"},
    };
    const arg_command command = {
        "perplexity", "FILE [--text COLUMN]", "Perplexity of a text, or of all rows of a file, under a model.",
        {{"perplexity", own, SILL_ARRAY_LEN(own), &o}, cli_input_table(&o.corpus.in, true), cli_text_table(&o.text, CLI_LONG_WINDOW), cli_model_table(&o.model), cli_general_table()},
        notes, 1, 1};
    char **files;
    int n;
    sill__corpus_row *text = NULL;
    sill_error err = {0};
    totals t = {0};
    int status = args_parse(&command, argc, argv, &files, &n);
    if (status < 0) status = cli_check_long("perplexity", &o.text, CLI_LONG_WINDOW);
    if (status >= 0) return status;
    bool is_stdin = !strcmp(files[0], "-");
    sill__format format = o.corpus.in.format ? (sill__format)o.corpus.in.format : is_stdin ? SILL__FORMAT_TXT : sill__format_of_path(files[0]);
    if (sill__is_dir(files[0])) format = SILL__FORMAT_AUTO;
    else if (format == SILL__FORMAT_FILE) format = SILL__FORMAT_TXT;
    if (format == SILL__FORMAT_TXT && o.corpus.in.text) return args_usage("perplexity", "--text needs CSV, TSV or JSONL, not plain text");
    if (format == SILL__FORMAT_TXT) {
        if (cli_read_text(files[0], (sill__encoding)o.corpus.in.encoding, &text, &err) != SILL_OK) return cli_fail(&err);
        t.text = text->cells[1].p;
        t.n_bytes = text->cells[1].n;
        status = t.n_bytes ? run_perplexity(&o, &t) : nothing("the text is empty");
    } else {
        cli_run run;
        status = cli_run_input(&run, "perplexity", files[0], &o.corpus, NULL);
        if (status >= 0) return status;
        t.reader = run.reader;
        t.slot = run.text_slot;
        status = run_perplexity(&o, &t);
        for (size_t i = 0; i < t.n_rows_cap; i++) sill__row_free(t.rows[i]);
        sill__free(t.rows);
        cli_run_free(&run);
    }
    sill__row_free(text);
    return status;
}
