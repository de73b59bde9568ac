/*
 * codebook.c - reads codebooks (see codebook.h). Both forms are read into the same calls; what refers to labels (words, examples)
 * is settled when all is read, since JSON has no order. Every mistake is told by file and line.
 */
#include "task/codebook.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/json.h"

enum { MAX_NAME = 256, MAX_DESCRIPTION = 4096, MAX_TEXT = 65536 };

/* An example or a word as it was read: the names of its labels are looked up at the end. */
typedef struct pending { char **names; size_t n, line; char *text; } pending;
typedef struct pendings { pending *p; size_t n; } pendings;

typedef struct reader {
    sill_codebook *book;
    const char *file;
    pendings examples, words;
    size_t seen[8];      /* line of each key that may be given once; 0: not yet */
    sill_error *err;
} reader;

static sill_status wrong(const reader *r, size_t line, const char *format, ...) SILL_PRINTF(3, 4);
static sill_status wrong(const reader *r, size_t line, const char *format, ...) {
    char text[480];
    va_list ap;
    va_start(ap, format);
    vsnprintf(text, sizeof text, format, ap);
    va_end(ap);
    return line ? sill__fail(r->err, SILL_EFORMAT, "%.200s:%zu: %s", r->file, line, text)
                : sill__fail(r->err, SILL_EFORMAT, "%.200s: %s", r->file, text);
}

static sill_status no_memory(const reader *r) { return sill__fail(r->err, SILL_ENOMEM, "%.200s: no memory for the codebook", r->file); }

/* ---- what both forms come to */

/* Room for one more behind N items; NULL: no memory. Grown one by one: books are short. */
static void *more(void *items, size_t n, size_t size) {
    size_t bytes;
    return sill__mul(n + 1, size, &bytes) ? sill__realloc(items, bytes) : NULL;
}

static bool is_blank(char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }

/* Keeps a text as it stands; a prompt may end in a newline. */
static sill_status keep(const reader *r, size_t line, const char *what, const char *text, size_t n, size_t max, char **out) {
    size_t blank = 0;
    while (blank < n && is_blank(text[blank])) blank++;
    if (blank == n) return wrong(r, line, "%s is empty; write it, or leave the line out", what);
    if (memchr(text, 0, n)) return wrong(r, line, "%s holds a NUL character, which no label or prompt can have", what);
    if (n > max) return wrong(r, line, "%s has %zu bytes, more than the %zu that are read; make it shorter", what, n, max);
    return (*out = sill__strndup(text, n)) ? SILL_OK : no_memory(r);
}

/* The same without white space around it. */
static sill_status keep_name(const reader *r, size_t line, const char *what, const char *text, size_t n, char **out) {
    while (n && is_blank(text[n - 1])) n--;
    while (n && is_blank(*text)) text++, n--;
    return keep(r, line, what, text, n, MAX_NAME, out);
}

static const char *const keys[] = {"instruction", "prompt", "multi_label", "labels", "examples", "paraphrases", NULL};
enum { KEY_INSTRUCTION, KEY_PROMPT, KEY_MULTI, KEY_LABELS, KEY_EXAMPLES, KEY_PARAPHRASES };

static sill_status once(reader *r, int key, size_t line) {
    if (r->seen[key])
        return wrong(r, line, "%s is given twice (first in line %zu); keep one of them", keys[key], r->seen[key]);
    r->seen[key] = line;
    return SILL_OK;
}

static int count_holes(const char *text) {
    int n = 0;
    for (; (text = strstr(text, "{text}")); text++) n++;
    return n;
}

static sill_status set_text(reader *r, int key, size_t line, const char *text, size_t n) {
    char **to = key == KEY_PROMPT ? &r->book->prompt : &r->book->instruction;
    sill_status s = once(r, key, line);
    if (s == SILL_OK) s = keep(r, line, keys[key], text, n, MAX_TEXT, to);
    if (s != SILL_OK) return s;
    int holes = count_holes(*to);
    if (key == KEY_PROMPT && holes != 1)
        return wrong(r, line, "the prompt holds {text} %s; it stands where the row's text goes, once", holes ? "more than once" : "nowhere");
    if (key == KEY_INSTRUCTION && holes) return wrong(r, line, "the instruction holds {text}; that is for the prompt");
    return SILL_OK;
}

static sill_status add_label(reader *r, size_t line, const char *name, size_t n, sill__book_label **out) {
    sill_codebook *b = r->book;
    char *kept = NULL;
    sill_status s = keep_name(r, line, "a label", name, n, &kept);
    if (s != SILL_OK) return s;
    for (size_t i = 0; i < b->n_labels; i++)
        if (!strcmp(b->labels[i].name, kept)) {
            s = wrong(r, line, "label \"%.80s\" is there already (line %zu); give each label once", kept, b->labels[i].line);
            sill__free(kept);
            return s;
        }
    if (b->n_labels == SILL__MAX_BOOK_LABELS) {
        sill__free(kept);
        return wrong(r, line, "more than %d labels; split the codebook", SILL__MAX_BOOK_LABELS);
    }
    sill__book_label *p = more(b->labels, b->n_labels, sizeof *p);
    if (!p) {
        sill__free(kept);
        return no_memory(r);
    }
    b->labels = p;
    p[b->n_labels] = (sill__book_label){.name = kept, .line = line};
    *out = &p[b->n_labels++];
    return SILL_OK;
}

static sill_status add_paraphrase(reader *r, size_t line, const char *text, size_t n) {
    sill_codebook *b = r->book;
    if (b->n_paraphrases == SILL__MAX_BOOK_PARAPHRASES)
        return wrong(r, line, "more than %d paraphrases; leave some out", SILL__MAX_BOOK_PARAPHRASES);
    char **p = more(b->paraphrases, b->n_paraphrases, sizeof *p);
    if (!p) return no_memory(r);
    b->paraphrases = p;
    sill_status s = keep(r, line, "a paraphrase", text, n, MAX_TEXT, &p[b->n_paraphrases]);
    if (s != SILL_OK) return s;
    return count_holes(p[b->n_paraphrases++]) > 1 ? wrong(r, line, "a paraphrase holds {text} more than once; of a prompt it has it once") : SILL_OK;
}

static sill_status add_pending(reader *r, pendings *to, size_t line, pending **out) {
    if (to == &r->examples && to->n == SILL__MAX_BOOK_EXAMPLES)
        return wrong(r, line, "more than %d examples; leave some out", SILL__MAX_BOOK_EXAMPLES);
    pending *p = more(to->p, to->n, sizeof *p);
    if (!p) return no_memory(r);
    to->p = p;
    p[to->n] = (pending){.line = line};
    *out = &p[to->n++];
    return SILL_OK;
}

static sill_status add_name(reader *r, pending *to, size_t line, const char *name, size_t n) {
    char **p = more(to->names, to->n, sizeof *p);
    if (!p) return no_memory(r);
    to->names = p;
    sill_status s = keep_name(r, line, "the label of an example", name, n, &p[to->n]);
    if (s == SILL_OK) to->n++;
    return s;
}

static void free_pendings(pendings *x) {
    for (size_t i = 0; i < x->n; i++) {
        for (size_t k = 0; k < x->p[i].n; k++) sill__free(x->p[i].names[k]);
        sill__free(x->p[i].names);
        sill__free(x->p[i].text);
    }
    sill__free(x->p);
}

/* ---- the end: what refers to what */

static int32_t find_label(const sill_codebook *b, const char *name) {
    for (size_t i = 0; i < b->n_labels; i++)
        if (!strcmp(b->labels[i].name, name)) return (int32_t)i;
    return -1;
}

static sill_status settle_words(reader *r) {
    for (size_t i = 0; i < r->words.n; i++) {
        pending *w = &r->words.p[i];
        int32_t label = find_label(r->book, w->names[0]);
        if (label < 0) return wrong(r, w->line, "a word for label \"%.80s\", which is not among the labels; name one of them", w->names[0]);
        if (r->book->labels[label].word) return wrong(r, w->line, "label \"%.80s\" has a word already; keep one", w->names[0]);
        r->book->labels[label].word = w->text;
        w->text = NULL;
    }
    return SILL_OK;
}

static sill_status settle_example(reader *r, pending *p) {
    sill_codebook *b = r->book;
    sill__book_example *all = more(b->examples, b->n_examples, sizeof *all);
    if (!all) return no_memory(r);
    b->examples = all;
    sill__book_example *e = &all[b->n_examples];
    *e = (sill__book_example){.line = p->line, .labels = sill__calloc(p->n + 1, sizeof(int32_t))};
    if (!e->labels) return no_memory(r);
    b->n_examples++;
    if (!b->multi_label && p->n != 1)
        return wrong(r, p->line, "an example with %zu labels; give it one, or set multi_label for texts of several labels", p->n);
    for (size_t k = 0; k < p->n; k++) {
        int32_t label = find_label(b, p->names[k]);
        if (label < 0)
            return wrong(r, p->line, "an example of label \"%.80s\", which is not among the labels; correct it, or add the label", p->names[k]);
        for (size_t i = 0; i < e->n_labels; i++)
            if (e->labels[i] == label) return wrong(r, p->line, "an example has the label \"%.80s\" twice; give it once", p->names[k]);
        e->labels[e->n_labels++] = label;
    }
    if (!p->text) return wrong(r, p->line, "an example without a text; give it one");
    e->text = p->text;
    p->text = NULL;
    return SILL_OK;
}

static sill_status settle(reader *r) {
    sill_codebook *b = r->book;
    sill_status s = SILL_OK;
    if (!b->n_labels) return wrong(r, r->seen[KEY_LABELS], "there are no labels; list them under \"labels\" (JSON) or in lines \"label NAME: "
                                                           "DESCRIPTION\"");
    if (b->n_labels == 1 && !b->multi_label)
        return wrong(r, b->labels[0].line, "one label alone is no choice; give at least two, or set multi_label");
    s = settle_words(r);
    for (size_t i = 0; s == SILL_OK && i < b->n_labels; i++)
        for (size_t k = 0; s == SILL_OK && k < i; k++) {
            const sill__book_label *x = &b->labels[i], *y = &b->labels[k];
            const char *w = x->word ? x->word : x->name, *v = y->word ? y->word : y->name;
            if (!strcmp(w, v) && !b->multi_label)
                s = wrong(r, x->line, "labels \"%.60s\" and \"%.60s\" are both said \"%.60s\"; give one another word", y->name, x->name, w);
        }
    for (size_t i = 0; s == SILL_OK && i < r->examples.n; i++) s = settle_example(r, &r->examples.p[i]);
    if (s == SILL_OK && !(b->names = sill__calloc(b->n_labels, sizeof *b->names))) s = no_memory(r);
    for (size_t i = 0; s == SILL_OK && i < b->n_labels; i++) b->names[i] = b->labels[i].name;
    return s;
}

/* ---- JSON */

typedef struct js { sill__json j; reader *r; sill__str text; } js;

static size_t line_at(const sill__json *j) {
    size_t line = 1;
    const char *p = j->p;
    while (p < j->end && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t' || *p == ':' || *p == ',')) p++; /* to the value */
    for (const char *q = j->start; q < p; q++) line += *q == '\n';
    return line;
}

/* What the scanner says is wrong. */
static sill_status malformed(js *x, size_t line) {
    if (sill__json_fail(&x->j, "", NULL) == SILL_ENOMEM) return no_memory(x->r);
    return wrong(x->r, line, "%s", x->j.message ? x->j.message : "a text that cannot be read");
}

/* A string into x->text; *line is where it stands. */
static sill_status json_text(js *x, const char *what, size_t *line) {
    sill__json_kind kind = sill__json_peek(&x->j);
    *line = line_at(&x->j);
    sill__str_clear(&x->text);
    if (x->j.message) return malformed(x, *line);
    if (kind != SILL__JSON_STRING) return wrong(x->r, *line, "%s must be a text in quotes", what);
    return sill__json_string(&x->j, &x->text) ? SILL_OK : malformed(x, *line);
}

static sill_status json_kept(js *x, const char *what, size_t max, char **out) {
    size_t line;
    sill_status s = json_text(x, what, &line);
    if (s == SILL_OK && *out) s = wrong(x->r, line, "%s is given twice; keep one of them", what);
    return s == SILL_OK ? keep(x->r, line, what, x->text.p ? x->text.p : "", x->text.n, max, out) : s;
}

static sill_status enter(js *x, const char *what, sill__json_kind kind) {
    sill__json_kind is = sill__json_peek(&x->j);
    if (!x->j.message && is != kind)
        return wrong(x->r, line_at(&x->j), "%s must be %s", what, kind == SILL__JSON_ARRAY ? "a list in brackets" : "an object in braces");
    return sill__json_enter(&x->j, kind) ? SILL_OK : malformed(x, line_at(&x->j));
}

/* After a loop over members or elements. */
static sill_status left(js *x) { return x->j.message ? malformed(x, line_at(&x->j)) : SILL_OK; }

/* One label: a text, or an object. */
static sill_status json_label(js *x) {
    sill__book_label l = {0}, *made;
    char key[64];
    sill_status s = SILL_OK;
    size_t line = line_at(&x->j);
    if (sill__json_peek(&x->j) == SILL__JSON_STRING) {
        if ((s = json_text(x, "a label", &line)) == SILL_OK) s = add_label(x->r, line, x->text.p ? x->text.p : "", x->text.n, &made);
        return s;
    }
    if ((s = enter(x, "a label", SILL__JSON_OBJECT)) != SILL_OK) return s;
    while (s == SILL_OK && sill__json_next_member(&x->j, key, sizeof key, NULL)) {
        if (!strcmp(key, "label")) s = json_kept(x, "label", MAX_NAME, &l.name);
        else if (!strcmp(key, "description")) s = json_kept(x, "description", MAX_DESCRIPTION, &l.description);
        else if (!strcmp(key, "word")) s = json_kept(x, "word", MAX_NAME, &l.word);
        else s = wrong(x->r, line_at(&x->j), "a label has no key \"%.60s\"; it has label, description, word", key);
    }
    if (s == SILL_OK) s = left(x);
    if (s == SILL_OK && !l.name) s = wrong(x->r, line, "a label without \"label\", its name; give it one");
    if (s == SILL_OK && (s = add_label(x->r, line, l.name, strlen(l.name), &made)) == SILL_OK) {
        made->description = l.description;
        made->word = l.word;
        l.description = l.word = NULL;
    }
    sill__free(l.name);
    sill__free(l.description);
    sill__free(l.word);
    return s;
}

static sill_status json_example(js *x) {
    pending *p;
    char key[64];
    size_t line = line_at(&x->j), at;
    sill_status s = enter(x, "an example", SILL__JSON_OBJECT);
    if (s == SILL_OK) s = add_pending(x->r, &x->r->examples, line, &p);
    bool has = false;
    while (s == SILL_OK && sill__json_next_member(&x->j, key, sizeof key, NULL)) {
        bool one = !strcmp(key, "label");
        if (!strcmp(key, "text")) {
            s = json_kept(x, "the text of an example", MAX_TEXT, &p->text);
        } else if (one || !strcmp(key, "labels")) {
            if (has) return wrong(x->r, line_at(&x->j), "an example has its labels twice; keep one of them");
            has = true;
            if (one) {
                if ((s = json_text(x, "the label of an example", &at)) == SILL_OK) s = add_name(x->r, p, at, x->text.p ? x->text.p : "", x->text.n);
                continue;
            }
            s = enter(x, "labels of an example", SILL__JSON_ARRAY);
            while (s == SILL_OK && sill__json_next_element(&x->j))
                if ((s = json_text(x, "the label of an example", &at)) == SILL_OK) s = add_name(x->r, p, at, x->text.p ? x->text.p : "", x->text.n);
            if (s == SILL_OK) s = left(x);
        } else {
            s = wrong(x->r, line_at(&x->j), "an example has no key \"%.60s\"; it has text, label, labels", key);
        }
    }
    if (s == SILL_OK) s = left(x);
    return s == SILL_OK && !has ? wrong(x->r, line, "an example without a label; give it one (or \"labels\": [] with multi_label)") : s;
}

static sill_status json_list(js *x, int key) {
    size_t n = 0, line = line_at(&x->j), at;
    sill_status s = once(x->r, key, line);
    if (s == SILL_OK) s = enter(x, keys[key], SILL__JSON_ARRAY);
    for (; s == SILL_OK && sill__json_next_element(&x->j); n++) {
        if (key == KEY_LABELS) s = json_label(x);
        else if (key == KEY_EXAMPLES) s = json_example(x);
        else if ((s = json_text(x, "a paraphrase", &at)) == SILL_OK) s = add_paraphrase(x->r, at, x->text.p ? x->text.p : "", x->text.n);
    }
    if (s == SILL_OK) s = left(x);
    return s == SILL_OK && !n ? wrong(x->r, line, "%s is an empty list; fill it, or leave it out", keys[key]) : s;
}

static sill_status read_json(reader *r, const char *text, size_t n) {
    js x = {.r = r};
    char key[64];
    size_t line;
    sill__json_init(&x.j, text, n);
    sill__str_init(&x.text, SILL__MAX_BOOK);
    sill_status s = enter(&x, "a codebook", SILL__JSON_OBJECT);
    while (s == SILL_OK && sill__json_next_member(&x.j, key, sizeof key, NULL)) {
        int k = 0;
        while (keys[k] && strcmp(keys[k], key)) k++;
        line = line_at(&x.j);
        if (!keys[k])
            s = wrong(r, line, "unknown key \"%.60s\"; a codebook has instruction, prompt, multi_label, labels, examples, paraphrases", key);
        else if (k == KEY_INSTRUCTION || k == KEY_PROMPT) {
            if ((s = json_text(&x, keys[k], &line)) == SILL_OK) s = set_text(r, k, line, x.text.p ? x.text.p : "", x.text.n);
        } else if (k == KEY_MULTI) {
            if ((s = once(r, k, line)) == SILL_OK && !sill__json_bool(&x.j, &r->book->multi_label)) s = wrong(r, line, "multi_label must be true or false");
        } else {
            s = json_list(&x, k);
        }
    }
    if (s == SILL_OK) s = left(&x);
    if (s == SILL_OK && !sill__json_finish(&x.j)) s = wrong(r, line_at(&x.j), "there is text behind the codebook's closing brace; remove it");
    sill__str_free(&x.text);
    return s;
}

/* ---- lines: "key: value", "key NAME: value"; an indented line goes on with the value of the one before */

static bool is_space(char c) { return c == ' ' || c == '\t'; }

static sill_status names_of(reader *r, pending *p, size_t line, const char *name, size_t n) {
    sill_status s = SILL_OK;
    while (s == SILL_OK && n) {
        const char *comma = r->book->multi_label ? memchr(name, ',', n) : NULL;
        size_t k = comma ? (size_t)(comma - name) : n;
        s = add_name(r, p, line, name, k);
        name += k + (comma != NULL);
        n -= k + (comma != NULL);
    }
    return s;
}

/* One entry. VALUE NULL: no colon. */
static sill_status entry(reader *r, size_t line, const char *key, size_t n_key, const char *name, size_t n_name, const char *value, size_t n_value) {
    static const char *const kinds[] = {"instruction", "prompt", "paraphrase", "multi_label", "label", "word", "example", NULL};
    int kind = 0;
    while (kinds[kind] && (strlen(kinds[kind]) != n_key || memcmp(kinds[kind], key, n_key))) kind++;
    if (!kinds[kind])
        return wrong(r, line, "unknown key \"%.*s\"; a codebook has lines that begin with instruction, prompt, multi_label, label, word, example, "
                     "paraphrase (a line that goes on with the one before is indented)", (int)SILL_MIN(n_key, 60), key);
    if (kind < 4 && n_name) return wrong(r, line, "%s takes no name in front of its colon; write \"%s: ...\"", kinds[kind], kinds[kind]);
    if (!value && kind != 4) return wrong(r, line, "%s has no colon; write \"%s%s: ...\"", kinds[kind], kinds[kind], kind > 4 ? " LABEL" : "");
    if (kind < 2) return set_text(r, kind, line, value, n_value);
    if (kind == 2) return add_paraphrase(r, line, value, n_value);
    if (kind == 3) {
        bool yes = n_value == 3 && !memcmp(value, "yes", 3), no = n_value == 2 && !memcmp(value, "no", 2);
        if (!yes && !no) return wrong(r, line, "multi_label is \"%.*s\"; it is yes or no", (int)SILL_MIN(n_value, 60), value);
        sill_status s = once(r, KEY_MULTI, line);
        r->book->multi_label = yes;
        return s == SILL_OK && r->examples.n ? wrong(r, line, "multi_label stands behind an example; put it in front of them") : s;
    }
    if (kind == 4) {
        sill__book_label *made;
        sill_status s = add_label(r, line, name, n_name, &made);
        return s == SILL_OK && value && n_value ? keep(r, line, "description", value, n_value, MAX_DESCRIPTION, &made->description) : s;
    }
    pending *p;
    sill_status s = add_pending(r, kind == 5 ? &r->words : &r->examples, line, &p);
    if (s == SILL_OK && !n_name && (kind == 5 || !r->book->multi_label))
        return wrong(r, line, "%s without a label; write \"%s LABEL: ...\"", kind == 5 ? "a word" : "an example", kinds[kind]);
    if (s == SILL_OK) s = kind == 5 ? add_name(r, p, line, name, n_name) : names_of(r, p, line, name, n_name);
    return s == SILL_OK ? keep(r, line, kind == 5 ? "word" : "the text of an example", value, n_value, kind == 5 ? MAX_NAME : MAX_TEXT, &p->text) : s;
}

/* The first line of an entry, cut. VALUE has the lines that go on with it. */
static sill_status cut_entry(reader *r, size_t line, const char *head, size_t n, const sill__str *further) {
    const char *colon = memchr(head, ':', n);
    size_t n_left = colon ? (size_t)(colon - head) : n, n_key = 0;
    while (n_left && is_space(head[n_left - 1])) n_left--;
    while (n_key < n_left && !is_space(head[n_key])) n_key++;
    const char *name = head + n_key;
    size_t n_name = n_left - n_key;
    while (n_name && is_space(*name)) name++, n_name--;
    sill__str value;
    sill_status s;
    sill__str_init(&value, SILL__MAX_BOOK + 16);
    const char *from = colon ? colon + 1 : NULL, *end = head + n;
    while (from && from < end && is_space(*from)) from++;
    while (from && end > from && is_space(end[-1])) end--;
    bool ok = !from || sill__str_put(&value, from, (size_t)(end - from));
    if (further->n && from == end) ok = ok && sill__str_put(&value, further->p + 1, further->n - 1); /* the value begins in the next line */
    else if (further->n) ok = ok && sill__str_put(&value, further->p, further->n);
    if (further->n && !colon) s = wrong(r, line, "a line is followed by indented ones and has no colon; write \"KEY: ...\"");
    else s = ok ? entry(r, line, head, n_key, name, n_name, colon ? (value.p ? value.p : "") : NULL, value.n) : no_memory(r);
    sill__str_free(&value);
    return s;
}

static sill_status read_lines(reader *r, const char *text, size_t n) {
    const char *end = text + n, *head = NULL;
    size_t line = 0, head_line = 0, n_head = 0;
    sill__str further;
    sill_status s = SILL_OK;
    sill__str_init(&further, SILL__MAX_BOOK + 16);
    for (const char *p = text, *next; s == SILL_OK && p < end; p = next) {
        const char *stop = memchr(p, '\n', (size_t)(end - p));
        next = stop ? stop + 1 : end;
        size_t k = (size_t)((stop ? stop : end) - p);
        line++;
        if (k && p[k - 1] == '\r') k--;
        size_t blank = 0;
        while (blank < k && is_space(p[blank])) blank++;
        if (blank == k || *p == '#') continue; /* an empty line, a comment */
        if (blank && !head) s = wrong(r, line, "an indented line goes on with the one before, and there is none; begin it at the margin");
        else if (blank && (!sill__str_put(&further, "\n", 1) || !sill__str_put(&further, p + blank, k - blank))) s = no_memory(r);
        if (blank) continue;
        if (head) s = cut_entry(r, head_line, head, n_head, &further);
        sill__str_clear(&further);
        head = p;
        n_head = k;
        head_line = line;
    }
    if (s == SILL_OK && head) s = cut_entry(r, head_line, head, n_head, &further);
    sill__str_free(&further);
    return s;
}

/* ---- the calls */

void sill_codebook_free(sill_codebook *b) {
    if (!b) return;
    for (size_t i = 0; i < b->n_labels; i++) {
        sill__free(b->labels[i].name);
        sill__free(b->labels[i].description);
        sill__free(b->labels[i].word);
    }
    for (size_t i = 0; i < b->n_examples; i++) {
        sill__free(b->examples[i].text);
        sill__free(b->examples[i].labels);
    }
    for (size_t i = 0; i < b->n_paraphrases; i++) sill__free(b->paraphrases[i]);
    sill__free(b->labels);
    sill__free(b->names);
    sill__free(b->examples);
    sill__free(b->paraphrases);
    sill__free(b->instruction);
    sill__free(b->prompt);
    sill__free(b);
}

sill_status sill_codebook_parse(const char *text, size_t n_bytes, const char *name, sill_codebook **out, sill_error *err) {
    if (out) *out = NULL;
    if (!text || !out) return sill__fail(err, SILL_EINVAL, "sill_codebook_parse: text and out must not be NULL");
    reader r = {.file = name ? name : "codebook", .err = err, .book = sill__calloc(1, sizeof(sill_codebook))};
    sill__sha256 sha;
    uint8_t digest[32];
    if (!r.book) return no_memory(&r);
    sill__sha256_init(&sha);
    sill__sha256_update(&sha, text, n_bytes);
    sill__sha256_final(&sha, digest);
    sill__sha256_hex(digest, r.book->sha256);
    if (n_bytes >= 3 && !memcmp(text, "\xef\xbb\xbf", 3)) text += 3, n_bytes -= 3;
    size_t at = 0;
    while (at < n_bytes && (is_space(text[at]) || text[at] == '\n' || text[at] == '\r')) at++;
    sill_status s = n_bytes > SILL__MAX_BOOK ? wrong(&r, 0, "%zu bytes, more than the %zu that a codebook may have; leave examples out", n_bytes, SILL__MAX_BOOK)
                    : at == n_bytes          ? wrong(&r, 0, "the codebook is empty; it needs labels")
                    : text[at] == '{' || text[at] == '[' ? read_json(&r, text, n_bytes)
                                             : read_lines(&r, text, n_bytes);
    if (s == SILL_OK) s = settle(&r);
    free_pendings(&r.examples);
    free_pendings(&r.words);
    if (s == SILL_OK) *out = r.book;
    else sill_codebook_free(r.book);
    return s;
}

sill_status sill_codebook_load(const char *path, sill_codebook **out, sill_error *err) {
    char *text = NULL;
    size_t n = 0;
    if (out) *out = NULL;
    if (!path || !out) return sill__fail(err, SILL_EINVAL, "sill_codebook_load: path and out must not be NULL");
    sill_status s = sill__read_file(path, SILL__MAX_BOOK, &text, &n, err);
    if (s == SILL_OK) s = sill_codebook_parse(text, n, path, out, err);
    sill__free(text);
    return s;
}

void sill_codebook_get_info(const sill_codebook *b, sill_codebook_info *info, size_t info_size) {
    sill_codebook_info all = {.n_labels = (int32_t)b->n_labels, .n_examples = (int32_t)b->n_examples, .n_paraphrases = (int32_t)b->n_paraphrases,
                              .multi_label = b->multi_label, .labels = b->names, .instruction = b->instruction, .prompt = b->prompt};
    memcpy(all.sha256, b->sha256, sizeof all.sha256);
    memset(info, 0, info_size);
    memcpy(info, &all, SILL_MIN(info_size, sizeof all));
}

/* ---- variants */

static bool copy_text(char **to, const char *from) { return !from || (*to = sill__strndup(from, strlen(from))); }

sill_status sill__codebook_vary(const sill_codebook *book, const int32_t *labels, const int32_t *examples, int32_t paraphrase,
                                sill_codebook **out, sill_error *err) {
    sill_codebook *b = sill__calloc(1, sizeof *b);
    const char *other = paraphrase < 0 ? NULL : book->paraphrases[paraphrase];
    bool is_prompt = other && strstr(other, "{text}");
    bool ok = b && (b->labels = sill__calloc(book->n_labels, sizeof *b->labels)) && (b->names = sill__calloc(book->n_labels, sizeof *b->names)) &&
              (b->examples = sill__calloc(book->n_examples + 1, sizeof *b->examples));
    *out = NULL;
    if (ok) b->multi_label = book->multi_label;
    ok = ok && copy_text(&b->instruction, other && !is_prompt ? other : book->instruction) && copy_text(&b->prompt, is_prompt ? other : book->prompt);
    for (size_t i = 0; ok && i < book->n_labels; i++) {
        const sill__book_label *from = &book->labels[labels ? labels[i] : (int32_t)i];
        sill__book_label *to = &b->labels[b->n_labels++];
        to->line = from->line;
        ok = copy_text(&to->name, from->name) && copy_text(&to->description, from->description) && copy_text(&to->word, from->word);
        b->names[i] = to->name;
    }
    for (size_t i = 0; ok && i < book->n_examples; i++) {
        const sill__book_example *from = &book->examples[examples ? examples[i] : (int32_t)i];
        sill__book_example *to = &b->examples[b->n_examples++];
        to->line = from->line;
        ok = copy_text(&to->text, from->text) && (to->labels = sill__calloc(from->n_labels + 1, sizeof *to->labels));
        for (size_t k = 0; ok && k < from->n_labels; k++) {
            int32_t at = 0;
            while (labels && labels[at] != from->labels[k]) at++;
            to->labels[to->n_labels++] = labels ? at : from->labels[k];
        }
    }
    if (!ok) {
        sill_codebook_free(b);
        return sill__fail(err, SILL_ENOMEM, "no memory for a variant of the codebook");
    }
    *out = b;
    return SILL_OK;
}
