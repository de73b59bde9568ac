/* tokenize.c - `sill tokenize` and `sill detokenize`: token ids of the rows' texts, and texts of ids. */
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "common.h"

typedef struct tokenize_options {
    const char *model, *ids;
    cli_corpus_options corpus;
    cli_text_options text;
    bool bos, skip_special;
} tokenize_options;

typedef struct buffers { int32_t *ids; char *text; size_t ids_cap, text_cap; } buffers;

static sill_status open_tokenizer(const char *model, char path[1024], sill_tokenizer **out, sill_error *err) {
    sill_status s = cli_model_path(model, path, 1024, err);
    return s == SILL_OK ? sill_tokenizer_load(path, out, err) : s;
}

static bool want_ids(buffers *b, size_t n) {
    int32_t *p;
    size_t bytes;
    if (n <= b->ids_cap) return true;
    if (!sill__mul(n, sizeof *p, &bytes) || !(p = sill__realloc(b->ids, bytes))) return false;
    b->ids = p;
    b->ids_cap = n;
    return true;
}

/* ---- rows, one at a time */

typedef sill_status (*row_fn)(cli_run *run, const tokenize_options *o, const sill_tokenizer *t, buffers *b,
                              const sill_row *row, sill_error *err);

static sill_status row_to_ids(cli_run *run, const tokenize_options *o, const sill_tokenizer *t, buffers *b,
                              const sill_row *row, sill_error *err) {
    size_t n;
    uint32_t flags = (o->text.special ? SILL_TOKENIZE_SPECIAL : 0) | (o->bos ? SILL_TOKENIZE_BOS : 0);
    if (!want_ids(b, sill_tokenize_bound(t, row->n_bytes))) return sill__fail(err, SILL_ENOMEM, "no memory for the row's tokens");
    sill_status s = sill_tokenize(t, row->text, row->n_bytes, flags, b->ids, b->ids_cap, &n, err);
    if (s != SILL_OK) return s;
    sill__record *record = sill__flow_begin(run->flow, row->index, 0);
    run->tokens += n;
    cli_put_ids(run, record, b->ids, n);
    sill__record_end(record, NULL);
    return SILL_OK;
}

/* "[1, 2]", or numbers between spaces and commas. */
static sill_status parse_ids(buffers *b, const char *p, size_t n_bytes, size_t *n, sill_error *err) {
    const char *end = p + n_bytes, *all = p;
    *n = 0;
    while (p < end && strchr(" \t\r\n", *p) && *p) p++;
    while (end > p && strchr(" \t\r\n", end[-1]) && end[-1]) end--;
    bool opens = p < end && *p == '[', closes = end - p > opens && end[-1] == ']';
    if (opens != closes)
        return sill__fail(err, SILL_EFORMAT, "'%.*s' has a bracket at one end only: is it cut off?",
                          (int)SILL_MIN(n_bytes, (size_t)20), all);
    p += opens;
    end -= closes;
    while (p < end) {
        char c = *p;
        if (c == ' ' || c == ',' || c == '\t') {
            p++;
            continue;
        }
        int64_t id = 0;
        const char *from = p;
        while (p < end && *p >= '0' && *p <= '9' && id <= INT32_MAX) id = id * 10 + (*p++ - '0');
        if (p == from || id > INT32_MAX || (p < end && *p != ' ' && *p != ',' && *p != '\t'))
            return sill__fail(err, SILL_EFORMAT, "'%.*s' is not a list of token ids", (int)SILL_MIN(end - from, 20), from);
        if (*n == b->ids_cap && !want_ids(b, b->ids_cap ? b->ids_cap * 2 : 256))
            return sill__fail(err, SILL_ENOMEM, "no memory for the row's tokens");
        b->ids[(*n)++] = (int32_t)id;
    }
    return SILL_OK;
}

static sill_status row_to_text(cli_run *run, const tokenize_options *o, const sill_tokenizer *t, buffers *b,
                               const sill_row *row, sill_error *err) {
    size_t n, bytes;
    sill_status s = parse_ids(b, row->text, row->n_bytes, &n, err);
    if (s != SILL_OK) return s;
    for (size_t i = 0; i < n; i++)
        if (b->ids[i] >= sill_tokenizer_n_vocab(t))
            return sill__fail(err, SILL_ERANGE, "token id %d is outside the vocabulary of %d", (int)b->ids[i],
                              (int)sill_tokenizer_n_vocab(t));
    size_t bound = sill_detokenize_bound(t, b->ids, n);
    if (bound > b->text_cap) {
        char *p = sill__realloc(b->text, bound);
        if (!p) return sill__fail(err, SILL_ENOMEM, "no memory for the row's text");
        b->text = p;
        b->text_cap = bound;
    }
    s = sill_detokenize(t, b->ids, n, o->skip_special ? SILL_DETOKENIZE_SKIP_SPECIAL : 0, b->text, b->text_cap, &bytes, err);
    if (s != SILL_OK) return s;
    sill__record *record = sill__flow_begin(run->flow, row->index, 0);
    run->tokens += n;
    sill__record_text(record, b->text, bytes);
    sill__record_end(record, NULL);
    return SILL_OK;
}

static int run_rows(cli_run *run, const tokenize_options *o, const char *field, row_fn fn) {
    sill_tokenizer *t = NULL;
    sill_error err = {0};
    buffers b = {0};
    sill_row row;
    int more;
    int status = -1;
    cli_engine engine = {0};
    run->engine = &engine;
    if (open_tokenizer(o->model, engine.path, &t, &err) != SILL_OK) status = cli_fail(&err);
    if (status < 0) status = cli_run_output(run, &field, 1, 1);
    if (status < 0) {
        if (fn == row_to_ids) run->tokenizer = t;
        do {
            while ((more = cli_run_next(run, &row)) == 1) {
                sill_error row_err = {0};
                if (fn(run, o, t, &b, &row, &row_err) == SILL_OK) sill__flow_commit(run->flow);
                else sill__flow_fail(run->flow, row.index, row_err.msg);
            }
        } while (more == 0 && sill__flow_more(run->flow));
        status = cli_run_end(run, more < 0 ? SILL_ECANCELLED : SILL_OK, &err);
    }
    cli_run_free(run);
    sill_tokenizer_free(t);
    sill__free(b.ids);
    sill__free(b.text);
    return status;
}

#define MODEL_HELP "a model's directory or .gguf file, a tokenizer.json, or a name in the cache (default: SmolLM2-135M-Instruct)"

int cli_tokenize(int argc, char **argv) {
    static tokenize_options o;
    static const arg_option own[] = {
        {"model", 'm', ARG_TEXT, offsetof(tokenize_options, model), 0, 0, NULL, "MODEL", MODEL_HELP},
        {"bos", 0, ARG_FLAG, offsetof(tokenize_options, bos), 0, 0, NULL, NULL, "beginning of text in front"},
        {"special", 0, ARG_FLAG, offsetof(tokenize_options, text.special), 0, 0, NULL, NULL, "control tokens in a text count as such"},
        {"no-special", 0, ARG_UNFLAG, offsetof(tokenize_options, text.special), 0, 0, NULL, NULL, "a text never becomes a control token (the default)"},
    };
    const arg_command command = {
        "tokenize", "FILE [--text COLUMN]", "Adds ids, the token ids of every row's text.",
        {{"tokenizer", own, SILL_ARRAY_LEN(own), &o}, cli_input_table(&o.corpus.in, true), cli_output_table(&o.corpus), cli_general_table()}, NULL, 1, 1};
    char **files;
    int n;
    cli_run run;
    int status = args_parse(&command, argc, argv, &files, &n);
    if (status < 0) status = cli_run_input(&run, "tokenize", files[0], &o.corpus, NULL);
    return status < 0 ? run_rows(&run, &o, "ids", row_to_ids) : status;
}

int cli_detokenize(int argc, char **argv) {
    static tokenize_options o;
    static const arg_option own[] = {
        {"model", 'm', ARG_TEXT, offsetof(tokenize_options, model), 0, 0, NULL, "MODEL", MODEL_HELP},
        {"ids", 0, ARG_TEXT, offsetof(tokenize_options, ids), 0, 0, NULL, "COLUMN", "column of the ids: a JSON array or numbers (default ids)"},
        {"skip-special", 0, ARG_FLAG, offsetof(tokenize_options, skip_special), 0, 0, NULL, NULL, "leave control tokens out"},
    };
    const arg_command command = {
        "detokenize", "FILE [--ids COLUMN]", "Adds text, the bytes that every row's token ids stand for. A line of a .txt file is one list of ids.",
        {{"tokenizer", own, SILL_ARRAY_LEN(own), &o}, cli_input_table(&o.corpus.in, true), cli_output_table(&o.corpus), cli_general_table()}, NULL, 1, 1};
    char **files;
    int n;
    cli_run run;
    int status = args_parse(&command, argc, argv, &files, &n);
    if (status >= 0) return status;
    if (o.corpus.in.text) return args_usage("detokenize", "--text is for texts; the column of the ids is named with --ids");
    bool is_stdin = !strcmp(files[0], "-");
    sill__format format = o.corpus.in.format ? (sill__format)o.corpus.in.format : is_stdin ? SILL__FORMAT_TXT : sill__format_of_path(files[0]);
    if (format != SILL__FORMAT_TXT) o.corpus.in.text = o.ids ? o.ids : "ids";
    status = cli_run_input(&run, "detokenize", files[0], &o.corpus, "ids");
    run.json_text = true; /* a JSONL row's [1,2] is what is read here */
    return status < 0 ? run_rows(&run, &o, "text", row_to_text) : status;
}
