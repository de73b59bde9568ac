/* args.c - the option parser of args.h: long options with "=" or a space, letters, "--", help. */
#include "args.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "corpus/corpus.h"

int args_usage(const char *command, const char *format, ...) {
    char text[4096];
    va_list ap;
    va_start(ap, format);
    vsnprintf(text, sizeof text, format, ap);
    va_end(ap);
    sill__plain(text); /* it may quote a file */
    fprintf(stderr, "sill%s%s: %s", command ? " " : "", command ? command : "", text);
    fprintf(stderr, " (see: sill help%s%s)\n", command ? " " : "", command ? command : "");
    return 2;
}

/* ---- nearest name */

static size_t distance(const char *a, const char *b) {
    size_t row[64], n = strlen(b);
    if (strlen(a) > 60 || n > 60) return 99;
    for (size_t j = 0; j <= n; j++) row[j] = j;
    for (size_t i = 1; *a; a++, i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= n; j++) {
            size_t change = diagonal + (*a != b[j - 1]), up = row[j] + 1, left = row[j - 1] + 1;
            diagonal = row[j];
            row[j] = change < up ? (change < left ? change : left) : (up < left ? up : left);
        }
    }
    return row[n];
}

const char *args_nearest(const char *word, const char *const *names) {
    const char *best = NULL;
    size_t n = strlen(word), least = n < 5 ? 2 : 3;
    for (; *names; names++) {
        size_t d = distance(word, *names);
        if (n >= 3 && !strncmp(word, *names, n)) d = 1;
        if (d < least) {
            least = d;
            best = *names;
        }
    }
    return best;
}

/* ---- parsing */

static const arg_option *find(const arg_command *c, const char *name, size_t n, char letter, void **values) {
    for (size_t t = 0; t < sizeof c->tables / sizeof *c->tables; t++)
        for (size_t i = 0; i < c->tables[t].n; i++) {
            const arg_option *o = &c->tables[t].options[i];
            if (letter ? o->letter == letter : strlen(o->name) == n && !memcmp(o->name, name, n)) {
                *values = c->tables[t].values;
                return o;
            }
        }
    return NULL;
}

static int unknown(const arg_command *c, const char *given) {
    const char *names[256];
    char word[64];
    size_t n = 0;
    for (size_t t = 0; t < sizeof c->tables / sizeof *c->tables; t++)
        for (size_t i = 0; i < c->tables[t].n && n < 255; i++)
            if (c->tables[t].options[i].help) names[n++] = c->tables[t].options[i].name;
    names[n] = NULL;
    snprintf(word, sizeof word, "%.*s", (int)strcspn(given + 2, "="), given + 2);
    const char *near = given[1] == '-' ? args_nearest(word, names) : NULL;
    if (near) return args_usage(c->name, "unknown option '--%s'; did you mean --%s?", word, near);
    return args_usage(c->name, "unknown option '%.60s'", given);
}

static int bad_value(const arg_command *c, const arg_option *o, const char *value) {
    const char *kind = o->type == ARG_INT || o->type == ARG_U64 ? "a whole number" : "a number";
    if (o->type == ARG_INT && o->max < 2147483647)
        return args_usage(c->name, "--%s is '%.60s'; it takes %s from %.0f to %.0f", o->name, value, kind, o->min, o->max);
    if (o->type == ARG_U64) return args_usage(c->name, "--%s is '%.60s'; it takes %s from 0", o->name, value, kind);
    if (isinf(o->max) || o->max >= 2147483647)
        return args_usage(c->name, "--%s is '%.60s'; it takes %s %s %g", o->name, value, kind,
                          o->type == ARG_ABOVE ? "above" : "from", o->min);
    return args_usage(c->name, "--%s is '%.60s'; it takes %s %s %g to %g", o->name, value, kind,
                      o->type == ARG_ABOVE ? "above" : "from", o->min, o->max);
}

static int set_choice(const arg_command *c, const arg_option *o, const char *value, int *to) {
    char all[256] = "";
    size_t used = 0;
    for (int i = 0; o->choices[i]; i++) {
        if (!strcmp(o->choices[i], value)) {
            *to = i;
            return -1;
        }
        if (used < sizeof all)
            used += (size_t)snprintf(all + used, sizeof all - used, "%s%s", i ? ", " : "", o->choices[i]);
    }
    return args_usage(c->name, "--%s is '%.60s'; it takes one of: %s", o->name, value, all);
}

static int set_value(const arg_command *c, const arg_option *o, void *values, const char *value) {
    void *to = (char *)values + o->offset;
    char *end;
    errno = 0;
    switch (o->type) {
        case ARG_INT: {
            long v = strtol(value, &end, 10);
            if (end == value || *end || errno || (double)v < o->min || (double)v > o->max) return bad_value(c, o, value);
            *(int32_t *)to = (int32_t)v;
            return -1;
        }
        case ARG_U64: {
            unsigned long long v = strtoull(value, &end, 10);
            if (end == value || *end || errno || strchr(value, '-')) return bad_value(c, o, value);
            *(uint64_t *)to = v;
            return -1;
        }
        case ARG_FLOAT:
        case ARG_ABOVE: {
            double v = strtod(value, &end);
            if (end == value || *end || !isfinite(v) || v < o->min || v > o->max || (o->type == ARG_ABOVE && v <= o->min))
                return bad_value(c, o, value);
            if ((float)v == 0 && (v != 0 || errno == ERANGE)) /* 0 would mean the default */
                return args_usage(c->name, "--%s is '%.60s', too small for a number of 32 bits", o->name, value);
            *(float *)to = (float)v;
            return -1;
        }
        case ARG_TEXT: *(const char **)to = value; return -1;
        case ARG_LIST: {
            arg_list *list = to;
            if (list->n == ARG_LIST_MAX)
                return args_usage(c->name, "--%s is given more than %d times", o->name, ARG_LIST_MAX);
            list->items[list->n++] = value;
            return -1;
        }
        case ARG_CHOICE: return set_choice(c, o, value, to);
        default: return -1;
    }
}

/* The command parsed last, for records of what was asked. */
static arg_command parsed;
static bool given[SILL_ARRAY_LEN(parsed.tables)][64];
static char **positional;
static int n_positional;

static void note_given(const arg_command *c, const arg_option *o) {
    for (size_t t = 0; t < SILL_ARRAY_LEN(c->tables); t++)
        for (size_t i = 0; i < SILL_MIN(c->tables[t].n, SILL_ARRAY_LEN(given[0])); i++)
            if (&c->tables[t].options[i] == o) given[t][i] = true;
}

/* One option at argv[*i]; moves *i when its value is the next argument. */
static int parse_option(const arg_command *c, int argc, char **argv, int *i) {
    const char *a = argv[*i], *value = NULL;
    bool is_long = a[1] == '-';
    size_t n = is_long ? strcspn(a + 2, "=") : 1;
    void *values = NULL;
    if (!strcmp(a, "--help") || !strcmp(a, "-h")) {
        args_help(c);
        if (fflush(stdout) == 0 && !ferror(stdout)) return 0;
        fprintf(stderr, "sill: error: cannot write to standard output\n");
        return 1;
    }
    const arg_option *o = find(c, a + 2, n, is_long ? 0 : a[1], &values);
    if (!o) return unknown(c, a);
    if (is_long && a[2 + n] == '=') value = a + 3 + n;
    if (!is_long && a[2]) value = a + 2;
    if (o->type == ARG_LATER) return args_usage(c->name, "--%s is not in this version", o->name);
    note_given(c, o);
    if (o->type == ARG_FLAG || o->type == ARG_UNFLAG) {
        if (value && (is_long || *value == '-')) return args_usage(c->name, "--%s takes no value", o->name);
        *(bool *)((char *)values + o->offset) = o->type == ARG_FLAG;
        if (!value) return -1;
        *++argv[*i] = '-'; /* -qv: the other letters */
        return parse_option(c, argc, argv, i);
    }
    if (!value) {
        if (*i + 1 >= argc) return args_usage(c->name, "--%s needs a value: %s", o->name, o->meta ? o->meta : "VALUE");
        value = argv[++*i];
    }
    return set_value(c, o, values, value);
}

int args_parse(const arg_command *c, int argc, char **argv, char ***args, int *n_args) {
    int n = 0;
    bool options = true;
    parsed = *c;
    memset(given, 0, sizeof given);
    for (int i = 0; i < argc; i++) {
        if (options && !strcmp(argv[i], "--")) {
            options = false;
        } else if (options && argv[i][0] == '-' && argv[i][1]) {
            int status = parse_option(c, argc, argv, &i);
            if (status >= 0) return status;
        } else {
            argv[n++] = argv[i];
        }
    }
    if (n < c->min_args) return args_usage(c->name, "an argument is missing; usage: sill %s %s", c->name, c->synopsis);
    if (c->max_args >= 0 && n > c->max_args) return args_usage(c->name, "'%.60s' is one argument too many", argv[c->max_args]);
    *args = positional = argv;
    *n_args = n_positional = n;
    return -1;
}

char **args_positional(int *n) {
    *n = n_positional;
    return positional;
}

static void visit(const arg_option *o, const void *values, args_visit_fn fn, void *user) {
    const void *from = (const char *)values + o->offset;
    char text[64];
    switch (o->type) {
        case ARG_FLAG: fn(user, o, *(const bool *)from ? "" : NULL); break;
        case ARG_INT: snprintf(text, sizeof text, "%d", (int)*(const int32_t *)from); fn(user, o, text); break;
        case ARG_U64: snprintf(text, sizeof text, "%llu", (unsigned long long)*(const uint64_t *)from); fn(user, o, text); break;
        case ARG_FLOAT:
        case ARG_ABOVE: sill__f32_text(*(const float *)from, text); fn(user, o, text); break;
        case ARG_TEXT: fn(user, o, *(const char *const *)from); break;
        case ARG_CHOICE: fn(user, o, o->choices[*(const int *)from]); break;
        case ARG_LIST:
            for (size_t i = 0; i < ((const arg_list *)from)->n; i++) fn(user, o, ((const arg_list *)from)->items[i]);
            break;
        default: break;
    }
}

const char *args_visit(args_visit_fn fn, void *user) {
    for (size_t t = 0; t < SILL_ARRAY_LEN(parsed.tables); t++)
        for (size_t i = 0; i < SILL_MIN(parsed.tables[t].n, SILL_ARRAY_LEN(given[0])); i++) {
            const arg_option *o = &parsed.tables[t].options[i];
            if (o->type == ARG_LATER || o->type == ARG_UNFLAG) continue;
            if (given[t][i]) visit(o, parsed.tables[t].values, fn, user);
            else fn(user, o, NULL);
        }
    return parsed.name;
}

/* ---- help */

static void put_wrapped(const char *text, int indent, int column) {
    bool space = false;
    while (*text) {
        size_t n = strcspn(text, " \n");
        if (column + space + (int)n > 98 && column > indent) {
            printf("\n%*s", indent, "");
            column = indent;
            space = false;
        }
        column += printf("%s%.*s", space ? " " : "", (int)n, text);
        text += n;
        space = *text == ' ';
        if (*text == '\n') {
            printf("\n%*s", indent, "");
            column = indent;
        }
        if (*text) text++;
    }
    putchar('\n');
}

static void put_option(const arg_option *o) {
    char left[96];
    int used = o->letter ? snprintf(left, sizeof left, "  -%c, --%s", o->letter, o->name)
                         : snprintf(left, sizeof left, "      --%s", o->name);
    if (o->meta) snprintf(left + used, sizeof left - (size_t)used, " %s", o->meta);
    printf("%-34s", left);
    if (strlen(left) >= 34) printf("\n%34s", "");
    put_wrapped(o->help, 34, 34);
}

void args_help(const arg_command *c) {
    printf("usage: sill %s %s\n\n", c->name, c->synopsis);
    put_wrapped(c->about, 0, 0);
    for (size_t t = 0; t < sizeof c->tables / sizeof *c->tables; t++) {
        if (!c->tables[t].n) continue;
        printf("\n%s:\n", c->tables[t].title);
        for (size_t i = 0; i < c->tables[t].n; i++)
            if (c->tables[t].options[i].help) put_option(&c->tables[t].options[i]);
    }
    printf("  -h, --help                      this text\n");
    if (c->notes) printf("\n%s", c->notes);
    printf("\nexit status: 0 done; 1 failed; 2 wrong usage; 3 done, but some rows failed (they are listed and have\n"
           "their error column filled); 4 would not fit in memory; 5 interrupted: finished rows are kept beside OUT,\n"
           "in OUT.journal, and the same command goes on from there\n");
}
