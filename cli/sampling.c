/* sampling.c - the options of transformers' generate by their names, and their way into sill_generate_options. */
#include "sampling.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define INT_TOP 2147483647.0

static const char *const presets[] = {"none", "hf-4", "hf-5", NULL};

static const char *const early[] = {"false", "true", "never", NULL};

void cli_sampling_init(cli_sampling *s) {
    memset(s, 0, sizeof *s);
    s->o.size = sizeof s->o;
    s->top_k = s->o.min_new_tokens = s->o.min_length = s->o.no_repeat_ngram_size = -1;
    s->length_penalty = (float)NAN;
    s->early_stopping = -1;
    s->o.min_p = s->o.epsilon_cutoff = s->o.eta_cutoff = -1;
    s->default_new_tokens = 20;
}

arg_table cli_sampling_table(cli_sampling *s) {
    typedef cli_sampling t;
#define O(member) offsetof(t, o) + offsetof(sill_generate_options, member)
    static const arg_option options[] = {
        {"max-new-tokens", 0, ARG_INT, O(max_new_tokens), 1, INT_TOP, NULL, "N", "most new tokens (default 20)"},
        {"max-length", 0, ARG_INT, O(max_length), 2, INT_TOP, NULL, "N", "the same, prompt included; --max-new-tokens wins"},
        {"min-new-tokens", 0, ARG_INT, O(min_new_tokens), 0, INT_TOP, NULL, "N", "no end of text before N tokens"},
        {"min-length", 0, ARG_INT, O(min_length), 0, INT_TOP, NULL, "N", "the same, prompt included; --min-new-tokens wins"},
        {"do-sample", 0, ARG_FLAG, offsetof(t, do_sample), 0, 0, NULL, NULL, "draw at random instead of taking the likeliest"},
        {"greedy", 0, ARG_FLAG, offsetof(t, greedy), 0, 0, NULL, NULL, "take the likeliest token (the default)"},
        {"temperature", 0, ARG_ABOVE, O(temperature), 0, 1000, NULL, "T", "divides the logits (default 1)"},
        {"top-k", 0, ARG_INT, offsetof(t, top_k), 0, INT_TOP, NULL, "N", "only the N likeliest (default 50; 0: off)"},
        {"top-p", 0, ARG_ABOVE, O(top_p), 0, 1, NULL, "P", "only the likeliest that together reach P (default 1: off)"},
        {"min-p", 0, ARG_FLOAT, O(min_p), 0, 1, NULL, "P", "only those with at least P times the greatest probability"},
        {"typical-p", 0, ARG_ABOVE, O(typical_p), 0, 1, NULL, "P", "only the most typical that together reach P (default 1: off)"},
        {"epsilon-cutoff", 0, ARG_FLOAT, O(epsilon_cutoff), 0, 0.999999, NULL, "E", "only those with a probability of at least E"},
        {"eta-cutoff", 0, ARG_FLOAT, O(eta_cutoff), 0, 0.999999, NULL, "E", "the same with a bound that follows the entropy"},
        {"repetition-penalty", 0, ARG_ABOVE, O(repetition_penalty), 0, 1000, NULL, "R", "above 1: less of what was there (default 1)"},
        {"no-repeat-ngram-size", 0, ARG_INT, O(no_repeat_ngram_size), 0, INT_TOP, NULL, "N", "no N tokens in a row twice"},
        {"bad-words", 0, ARG_LIST, offsetof(t, bad_words), 0, 0, NULL, "A,B", "never these words, with and without a space in front"},
        {"logit-bias", 0, ARG_LIST, offsetof(t, bias), 0, 0, NULL, "ID=V", "adds V to the logit of token ID; may be repeated; 7:9=V: of 9 behind 7"},
        {"suppress-tokens", 0, ARG_LIST, offsetof(t, suppress), 0, 0, NULL, "ID,ID", "never these tokens"},
        {"begin-suppress-tokens", 0, ARG_LIST, offsetof(t, begin_suppress), 0, 0, NULL, "ID,ID", "not these as the first new token"},
        {"num-return-sequences", 0, ARG_INT, O(num_return_sequences), 1, 4096, NULL, "N", "N answers a prompt (with --do-sample or beams)"},
        {"seed", 0, ARG_U64, O(seed), 0, 0, NULL, "N", "of the random numbers (default 0: the same text every time)"},
        {"stop", 0, ARG_LIST, offsetof(t, stop), 0, 0, NULL, "S", "end before this string; may be repeated"},
        {"ignore-eos", 0, ARG_FLAG, offsetof(t, ignore_eos), 0, 0, NULL, NULL, "go on behind an end of text"},
        {"compat", 0, ARG_CHOICE, offsetof(t, compat), 0, 0, presets, "NAME",
         "what is not given as in the text-generation pipeline of transformers 4.57 (hf-4) or 5.23 (hf-5): 256 new tokens, "
         "sampling, temperature 0.7, and what the model's files set"},
        {"num-beams", 0, ARG_INT, O(num_beams), 1, 1024, NULL, "N", "beam search: the best of N texts that go on side by side (default 1)"},
        {"length-penalty", 0, ARG_FLOAT, offsetof(t, length_penalty), -1000, 1000, NULL, "P", "of beams: score = log-probability / length^P (default 1)"},
        {"early-stopping", 0, ARG_CHOICE, offsetof(t, early_stopping), 0, 0, early, "WHEN",
         "of beams: false (none of this length could be better; the default), true (N have ended), never (none could be)"},
        {"choices", 0, ARG_LIST, offsetof(t, choices), 0, 0, NULL, "A,B", "only one of these texts, to the byte; or a file with one a line"},
        {"regex", 0, ARG_TEXT, offsetof(t, regex), 0, 0, NULL, "PATTERN", "only a text that matches it whole (docs/CONSTRAINTS.md)"},
        {"json-schema", 0, ARG_TEXT, offsetof(t, schema), 0, 0, NULL, "FILE", "only JSON that is valid under the schema (a file, or the schema itself)"},
    };
#undef O
    return (arg_table){"generation", options, SILL_ARRAY_LEN(options), s};
}

arg_table cli_sampling_table_chat(cli_sampling *s) {
    static arg_option own[64];
    arg_table table = cli_sampling_table(s);
    for (size_t i = 0; i < table.n && i < SILL_ARRAY_LEN(own); i++) {
        own[i] = table.options[i];
        if (!strcmp(own[i].name, "max-new-tokens")) own[i].help = "most new tokens an answer (default 256)";
        if (!strcmp(own[i].name, "max-length")) own[i].help = "most tokens of the conversation, its answer included";
        if (!strcmp(own[i].name, "choices") || !strcmp(own[i].name, "regex") || !strcmp(own[i].name, "json-schema") ||
            !strcmp(own[i].name, "num-return-sequences") || !strcmp(own[i].name, "num-beams") || !strcmp(own[i].name, "length-penalty") ||
            !strcmp(own[i].name, "early-stopping")) own[i].help = NULL; /* a turn has one answer */
    }
    table.options = own;
    table.n = SILL_MIN(table.n, SILL_ARRAY_LEN(own));
    return table;
}

/* The id at *p, which is then behind it; -1: none. */
static int32_t read_id(const char **p) {
    char *end;
    long id = **p >= '0' && **p <= '9' ? strtol(*p, &end, 10) : -1;
    if (id < 0 || (double)id > INT_TOP) return -1;
    *p = end;
    return (int32_t)id;
}

/* ID=VALUE, or ID:ID:...=VALUE, behind those there are. */
static bool read_bias(cli_sampling *s, const char *text) {
    const char *p = text;
    size_t from = s->o.n_bias_words ? s->bias_ends[s->o.n_bias_words - 1] : 0, at = from;
    for (;; p++) {
        if ((s->word_ids[at++] = read_id(&p)) < 0) return false;
        if (*p != ':') break;
    }
    char *end = NULL;
    double v = *p == '=' ? strtod(p + 1, &end) : 0; /* -inf: never; +inf and nan mean nothing */
    if (!end || end == p + 1 || *end || isnan(v) || (float)v == (float)INFINITY) return false;
    if (at == from + 1) {
        s->bias_ids[s->o.n_bias] = s->word_ids[from];
        s->bias_values[s->o.n_bias++] = (float)v;
    } else {
        s->bias_ends[s->o.n_bias_words] = at;
        s->word_values[s->o.n_bias_words++] = (float)v;
    }
    return true;
}

static int parse_bias(cli_sampling *s, const char *command) {
    size_t n = s->bias.n, ids = 0;
    if (!n) return -1;
    for (size_t i = 0; i < n; i++) ids += strlen(s->bias.items[i]) + 1;
    s->bias_ids = sill__calloc(n, sizeof *s->bias_ids);
    s->bias_values = sill__calloc(n, sizeof *s->bias_values);
    s->word_ids = sill__calloc(ids, sizeof *s->word_ids);
    s->bias_ends = sill__calloc(n, sizeof *s->bias_ends);
    s->word_values = sill__calloc(n, sizeof *s->word_values);
    if (!s->bias_ids || !s->bias_values || !s->word_ids || !s->bias_ends || !s->word_values)
        return args_usage(command, "no memory for %zu biases", n);
    for (size_t i = 0; i < n; i++)
        if (!read_bias(s, s->bias.items[i]))
            return args_usage(command, "--logit-bias is '%.60s'; it takes ID=VALUE, such as 50256=-100 or 50256=-inf, or ID:ID=VALUE",
                              s->bias.items[i]);
    s->o.bias_ids = s->bias_ids;
    s->o.bias_values = s->bias_values;
    s->o.bias_words = s->word_ids;
    s->o.bias_word_ends = s->bias_ends;
    s->o.bias_word_values = s->word_values;
    return -1;
}

/* Lists of ids, separated by commas. */
static int parse_ids(const arg_list *list, const char *name, const char *command, int32_t **ids, size_t *n) {
    size_t cap = 0;
    if (!list->n) return -1;
    for (size_t i = 0; i < list->n; i++) cap += strlen(list->items[i]) + 1;
    if (!(*ids = sill__calloc(cap, sizeof **ids))) return args_usage(command, "no memory for --%s", name);
    for (size_t i = 0; i < list->n; i++)
        for (const char *p = list->items[i];; p++) {
            if (((*ids)[(*n)++] = read_id(&p)) < 0 || (*p && *p != ','))
                return args_usage(command, "--%s is '%.60s'; it takes token ids, separated by commas", name, list->items[i]);
            if (!*p) break;
        }
    return -1;
}

/* Options that only say how to draw at random, given without --do-sample: transformers warns too. */
static void say_unused(const cli_sampling *s) {
    const sill_generate_options *o = &s->o;
    const struct { const char *name; bool given; } all[] = {
        {"temperature", o->temperature != 0}, {"top-k", s->top_k >= 0}, {"top-p", o->top_p != 0}, {"min-p", o->min_p > 0},
        {"typical-p", o->typical_p != 0}, {"epsilon-cutoff", o->epsilon_cutoff > 0}, {"eta-cutoff", o->eta_cutoff > 0}};
    char names[160] = "";
    size_t used = 0;
    for (size_t i = 0; i < SILL_ARRAY_LEN(all); i++)
        if (all[i].given) used += (size_t)snprintf(names + used, sizeof names - used, "%s--%s", used ? ", " : "", all[i].name);
    if (used) cli_say("warning: without --do-sample these have no effect: %s", names);
}

/* Whether the lengths and the number of answers go together. */
static int check_values(const sill_generate_options *o, int32_t default_new_tokens, const char *command) {
    if (o->num_beams > 1 && o->num_return_sequences > o->num_beams)
        return args_usage(command, "--num-return-sequences %d is more than --num-beams %d", (int)o->num_return_sequences, (int)o->num_beams);
    if (o->num_beams <= 1 && o->num_return_sequences > 1 && !o->do_sample)
        return args_usage(command, "--num-return-sequences %d needs --do-sample or as many --num-beams: greedy gives the same text every "
                          "time", (int)o->num_return_sequences);
    if (o->max_new_tokens && o->min_new_tokens > o->max_new_tokens)
        return args_usage(command, "--min-new-tokens %d is more than --max-new-tokens %d", (int)o->min_new_tokens,
                          (int)o->max_new_tokens);
    if (!o->max_new_tokens && o->max_length && o->min_new_tokens >= o->max_length)
        return args_usage(command, "--min-new-tokens %d do not fit --max-length %d, which counts the prompt too",
                          (int)o->min_new_tokens, (int)o->max_length);
    if (!o->max_new_tokens && !o->max_length && o->min_new_tokens > default_new_tokens)
        return args_usage(command, "--min-new-tokens %d is more than the %d new tokens there are by default; give "
                          "--max-new-tokens too", (int)o->min_new_tokens, (int)default_new_tokens);
    return -1;
}

int cli_sampling_check(cli_sampling *s, const char *command) {
    int status = -1;
    if (s->do_sample && s->greedy) return args_usage(command, "--do-sample and --greedy exclude each other");
    if ((s->choices.n != 0) + (s->regex != NULL) + (s->schema != NULL) > 1)
        return args_usage(command, "--choices, --regex and --json-schema exclude each other");
    s->o.do_sample = s->do_sample;
    if (!s->compat) status = check_values(&s->o, s->default_new_tokens, command); /* else when the preset is known */
    if (status >= 0) return status;
    if (!s->do_sample && (!s->compat || s->greedy)) say_unused(s);
    s->o.ignore_eos = s->ignore_eos;
    s->o.top_k = s->top_k < 0 ? 0 : s->top_k == 0 ? -1 : s->top_k;
    for (size_t i = 0; i < s->stop.n; i++)
        if (!s->stop.items[i][0]) return args_usage(command, "--stop is empty");
    if (s->early_stopping >= 0) s->o.early_stopping = s->early_stopping;
    /* Not given is NaN here, and 0 a value; in the library it is the other way round. */
    s->o.length_penalty = isnan(s->length_penalty) ? 0 : s->length_penalty == 0 ? (float)NAN : s->length_penalty;
    s->o.stop = s->stop.items;
    s->o.n_stop = s->stop.n;
    if ((status = parse_ids(&s->suppress, "suppress-tokens", command, &s->suppress_ids, &s->o.n_suppress)) >= 0 ||
        (status = parse_ids(&s->begin_suppress, "begin-suppress-tokens", command, &s->begin_ids, &s->o.n_begin_suppress)) >= 0)
        return status;
    s->o.suppress_tokens = s->suppress_ids;
    s->o.begin_suppress_tokens = s->begin_ids;
    return parse_bias(s, command);
}

/* The lists of ids of the model's files; they are the model's. */
static void take_lists(cli_sampling *s, const sill_generate_options *p) {
    sill_generate_options *o = &s->o;
    if (!s->bad_words.n) {
        o->bad_words = p->bad_words;
        o->bad_word_ends = p->bad_word_ends;
        o->n_bad_words = p->n_bad_words;
    }
    if (!s->suppress.n) {
        o->suppress_tokens = p->suppress_tokens;
        o->n_suppress = p->n_suppress;
    }
    if (!s->begin_suppress.n) {
        o->begin_suppress_tokens = p->begin_suppress_tokens;
        o->n_begin_suppress = p->n_begin_suppress;
    }
    if (!s->bias.n) {
        o->bias_words = p->bias_words;
        o->bias_word_ends = p->bias_word_ends;
        o->bias_word_values = p->bias_word_values;
        o->n_bias_words = p->n_bias_words;
    }
}

/* The preset's values where none was given. */
static int take_preset(cli_sampling *s, const char *command, const sill_model *model) {
    sill_generate_options p = {.size = sizeof p}, *o = &s->o;
    sill_error err = {0};
    if (sill_generate_preset(model, presets[s->compat], &p, &err) != SILL_OK) return cli_fail(&err);
    if (!o->max_new_tokens && !o->max_length) {
        o->max_new_tokens = p.max_new_tokens;
        o->max_length = p.max_length;
    }
    if (!s->do_sample && !s->greedy) o->do_sample = p.do_sample;
    if (!o->temperature) o->temperature = p.temperature;
    if (!o->top_k) o->top_k = p.top_k;
    if (!o->top_p) o->top_p = p.top_p;
    if (!o->typical_p) o->typical_p = p.typical_p;
    if (!o->repetition_penalty) o->repetition_penalty = p.repetition_penalty;
    if (!o->num_beams) o->num_beams = p.num_beams;
    if (isnan(s->length_penalty) && p.num_beams) o->length_penalty = p.length_penalty;
    if (s->early_stopping < 0 && p.num_beams) o->early_stopping = p.early_stopping;
    if (!o->num_return_sequences) o->num_return_sequences = p.num_return_sequences;
    if (o->min_new_tokens < 0) o->min_new_tokens = p.min_new_tokens;
    if (o->min_length < 0) o->min_length = p.min_length;
    if (o->no_repeat_ngram_size < 0) o->no_repeat_ngram_size = p.no_repeat_ngram_size;
    if (o->min_p < 0) o->min_p = p.min_p;
    if (o->epsilon_cutoff < 0) o->epsilon_cutoff = p.epsilon_cutoff;
    if (o->eta_cutoff < 0) o->eta_cutoff = p.eta_cutoff;
    take_lists(s, &p);
    return check_values(o, s->default_new_tokens, command);
}

/* What the constraint is made of: a file's contents, else the text itself. */
static sill_status constraint_text(const char *given, sill__str *out, sill_error *err) {
    char *text = NULL;
    size_t n = 0;
    if (!sill__is_file(given)) {
        sill__str_puts(out, given);
        return SILL_OK;
    }
    sill_status st = sill__read_file(given, (size_t)16 << 20, &text, &n, err);
    if (st == SILL_OK) sill__str_put(out, text, n);
    sill__free(text);
    return st;
}

/* The choices of all --choices: of files the lines, else what stands between commas. Cut in place. */
static sill_status read_choices(cli_sampling *s, sill__str *text, sill_error *err) {
    size_t n = 0;
    for (size_t i = 0; i < s->choices.n; i++) {
        sill__str one;
        sill__str_init(&one, (size_t)64 << 20);
        const bool file = sill__is_file(s->choices.items[i]);
        sill_status st = constraint_text(s->choices.items[i], &one, err);
        for (size_t k = 0; k < one.n; k++) {
            if (one.p[k] == '\0') one.p[k] = '?';
            if (one.p[k] == (file ? '\n' : ',')) one.p[k] = '\0';
            if (file && one.p[k] == '\r') one.p[k] = '\0';
        }
        sill__str_put(text, one.p, one.n);
        sill__str_put(text, "\0", 1);
        sill__str_free(&one);
        if (st != SILL_OK) return st;
    }
    if (text->failed || !(s->choice_texts = sill__calloc(text->n + 1, sizeof *s->choice_texts)))
        return sill__fail(err, SILL_ENOMEM, "no memory for the choices");
    for (const char *p = text->p; p < text->p + text->n; p += strlen(p) + 1)
        if (*p) s->choice_texts[n++] = p;
    return sill_constraint_choices(s->model, s->choice_texts, n, &s->constraint, err);
}

static void digest(const sill__str *text, char hex[65]) {
    sill__sha256 sha;
    uint8_t bytes[32];
    sill__sha256_init(&sha);
    sill__sha256_update(&sha, text->p, text->n);
    sill__sha256_final(&sha, bytes);
    sill__sha256_hex(bytes, hex);
}

static int make_constraint(cli_sampling *s, const cli_engine *engine) {
    sill__str text;
    sill_error err = {0};
    sill_status st = SILL_OK;
    if (!s->choices.n && !s->regex && !s->schema) return -1;
    sill__str_init(&text, (size_t)64 << 20);
    s->model = engine->model;
    if (s->choices.n) st = read_choices(s, &text, &err);
    if (s->regex) st = sill_constraint_regex(engine->model, s->regex, strlen(s->regex), &s->constraint, &err);
    if (s->regex) sill__str_puts(&text, s->regex);
    if (s->schema && (st = constraint_text(s->schema, &text, &err)) == SILL_OK)
        st = sill_constraint_json_schema(engine->model, text.p, text.n, &s->constraint, &err);
    digest(&text, s->constraint_sha256);
    sill__str_free(&text);
    s->o.constraint = s->constraint;
    return st == SILL_OK ? -1 : cli_fail(&err);
}

/* One word as ids behind those there are; SPACE: with a space in front. */
static sill_status add_word(cli_sampling *s, const sill_tokenizer *t, const char *word, size_t n, bool space,
                            size_t *used, size_t cap, sill_error *err) {
    size_t n_ids = 0, from = s->o.n_bad_words ? s->bad_ends[s->o.n_bad_words - 1] : 0;
    sill__str text;
    sill__str_init(&text, SIZE_MAX / 2);
    if (space) sill__str_put(&text, " ", 1);
    sill__str_put(&text, word, n);
    sill_status status = text.failed ? sill__fail(err, SILL_ENOMEM, "no memory for bad words")
                                     : sill_tokenize(t, text.p, text.n, SILL_TOKENIZE_NO_PREFIX, s->bad_ids + from,
                                                     cap - from, &n_ids, err);
    sill__str_free(&text);
    if (status != SILL_OK || !n_ids) return status;
    s->bad_ends[s->o.n_bad_words++] = from + n_ids;
    *used = from + n_ids;
    return SILL_OK;
}

static sill_status prepare_bad_words(cli_sampling *s, const sill_tokenizer *t, sill_error *err) {
    size_t cap = 0, words = 0, used = 0;
    sill_status status = SILL_OK;
    for (size_t i = 0; i < s->bad_words.n; i++)
        for (const char *p = s->bad_words.items[i];; p++) {
            size_t n = strcspn(p, ",");
            cap += 2 * sill_tokenize_bound(t, n + 1);
            words += 2;
            p += n;
            if (!*p) break;
        }
    s->bad_ids = sill__calloc(cap, sizeof *s->bad_ids);
    s->bad_ends = sill__calloc(words, sizeof *s->bad_ends);
    if (!s->bad_ids || !s->bad_ends) return sill__fail(err, SILL_ENOMEM, "no memory for bad words");
    for (size_t i = 0; i < s->bad_words.n; i++)
        for (const char *p = s->bad_words.items[i];; p++) {
            size_t n = strcspn(p, ",");
            if (n) status = add_word(s, t, p, n, false, &used, cap, err);
            if (n && status == SILL_OK) status = add_word(s, t, p, n, true, &used, cap, err);
            if (status != SILL_OK) return status;
            p += n;
            if (!*p) break;
        }
    s->o.bad_words = s->bad_ids;
    s->o.bad_word_ends = s->bad_ends;
    return SILL_OK;
}

static int check_ids(const int32_t *ids, size_t n, const char *name, const char *command, const cli_engine *engine) {
    for (size_t i = 0; i < n; i++)
        if (ids[i] >= engine->info.n_vocab)
            return args_usage(command, "--%s names token %d; the model's are 0 to %d", name, (int)ids[i], (int)engine->info.n_vocab - 1);
    return -1;
}

int cli_sampling_prepare(cli_sampling *s, const char *command, const cli_engine *engine) {
    sill_error err = {0};
    sill_generate_options *o = &s->o;
    int status = s->compat ? take_preset(s, command, engine->model) : -1;
    if (status >= 0) return status;
    o->min_new_tokens = SILL_MAX(0, o->min_new_tokens);
    o->min_length = SILL_MAX(0, o->min_length);
    o->no_repeat_ngram_size = SILL_MAX(0, o->no_repeat_ngram_size);
    o->min_p = SILL_MAX(0.0f, o->min_p);
    o->epsilon_cutoff = SILL_MAX(0.0f, o->epsilon_cutoff);
    o->eta_cutoff = SILL_MAX(0.0f, o->eta_cutoff);
    size_t n_words = o->n_bias_words ? o->bias_word_ends[o->n_bias_words - 1] : 0;
    if ((status = check_ids(s->bias_ids, o->n_bias, "logit-bias", command, engine)) >= 0 ||
        (status = check_ids(o->bias_words, n_words, "logit-bias", command, engine)) >= 0 ||
        (status = check_ids(o->suppress_tokens, o->n_suppress, "suppress-tokens", command, engine)) >= 0 ||
        (status = check_ids(o->begin_suppress_tokens, o->n_begin_suppress, "begin-suppress-tokens", command, engine)) >= 0)
        return status;
    if ((status = make_constraint(s, engine)) >= 0 || !s->bad_words.n) return status;
    const sill_tokenizer *t = sill_model_tokenizer(engine->model);
    return prepare_bad_words(s, t, &err) == SILL_OK ? -1 : cli_fail(&err);
}

void cli_sampling_free(cli_sampling *s) {
    sill__free(s->bias_ids);
    sill_constraint_free(s->constraint);
    sill__free(s->choice_texts);
    sill__free(s->bias_values);
    sill__free(s->word_ids);
    sill__free(s->bias_ends);
    sill__free(s->word_values);
    sill__free(s->suppress_ids);
    sill__free(s->begin_ids);
    sill__free(s->bad_ids);
    sill__free(s->bad_ends);
}
