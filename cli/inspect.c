/* inspect.c - `sill inspect`: what is in a model file; the library's JSON as it is, or as a table for people. */
#include <string.h>

#include "base/json.h"
#include "common.h"

typedef struct inspect_options { const char *model; bool json; } inspect_options;

static void put_value(sill__json *j, sill__str *s) {
    sill__json_kind kind = sill__json_peek(j);
    const char *from = j->p;
    if (kind == SILL__JSON_STRING) {
        sill__json_string(j, s);
        return;
    }
    sill__json_skip(j);
    while (from < j->p && (*from == ' ' || *from == '\n')) from++;
    for (; from < j->p; from++)
        if (*from != '\n' && *from != '"') sill__str_put(s, from, 1);
}

static bool is_container(sill__json_kind kind) { return kind == SILL__JSON_OBJECT || kind == SILL__JSON_ARRAY; }

/* True when the array at J holds objects: it is shown as rows. */
static bool holds_objects(sill__json j) {
    return sill__json_enter(&j, SILL__JSON_ARRAY) && sill__json_next_element(&j) && sill__json_peek(&j) == SILL__JSON_OBJECT;
}

static void print_rows(sill__json *j, int indent) {
    char key[200];
    sill__json_enter(j, SILL__JSON_ARRAY);
    while (sill__json_next_element(j)) {
        printf("%*s", indent, "");
        if (sill__json_peek(j) != SILL__JSON_OBJECT || !sill__json_enter(j, SILL__JSON_OBJECT)) break;
        for (int column = 0; sill__json_next_member(j, key, sizeof key, NULL); column++) {
            sill__str s;
            sill__str_init(&s, 4096);
            put_value(j, &s);
            if (column == 0) printf("%-46s", s.p ? s.p : "");
            else printf(" %-14s", s.p ? s.p : "");
            sill__str_free(&s);
        }
        putchar('\n');
    }
}

static void print_members(sill__json *j, int indent) {
    char key[200];
    if (!sill__json_enter(j, SILL__JSON_OBJECT)) return;
    while (sill__json_next_member(j, key, sizeof key, NULL)) {
        sill__json_kind kind = sill__json_peek(j);
        if (kind == SILL__JSON_OBJECT && indent < 20) {
            printf("%*s%s:\n", indent, "", key);
            print_members(j, indent + 2);
        } else if (kind == SILL__JSON_ARRAY && holds_objects(*j)) {
            printf("%*s%s:\n", indent, "", key);
            print_rows(j, indent + 2);
        } else {
            sill__str s;
            sill__str_init(&s, 1 << 20);
            put_value(j, &s);
            const char *text = s.p ? s.p : "";
            bool cut = s.n > 160 && is_container(kind);
            printf("%*s%-*s %.*s%s\n", indent, "", 24 - indent > 0 ? 24 - indent : 1, key, cut ? 160 : (int)SILL_MIN(s.n, (size_t)2000),
                   text, cut || s.n > 2000 ? " ..." : "");
            sill__str_free(&s);
        }
    }
}

int cli_inspect(int argc, char **argv) {
    static inspect_options o;
    static const arg_option own[] = {
        {"model", 'm', ARG_TEXT, offsetof(inspect_options, model), 0, 0, NULL, "MODEL", "the same as the argument"},
        {"json", 0, ARG_FLAG, offsetof(inspect_options, json), 0, 0, NULL, NULL, "as JSON"},
    };
    const arg_command command = {
        "inspect", "[MODEL]", "What is in a model: family, shapes, types, tokenizer, metadata, tensors. Reads headers only.",
        {{"inspect", own, SILL_ARRAY_LEN(own), &o}, cli_general_table()}, NULL, 0, 1};
    char **args, path[1024], *json = NULL;
    int n;
    sill_error err = {0};
    int status = args_parse(&command, argc, argv, &args, &n);
    if (status >= 0) return status;
    if (n && o.model) return args_usage("inspect", "'%s' and -m %s both name a model", args[0], o.model);
    sill_status s = cli_model_path(n ? args[0] : o.model, path, sizeof path, &err);
    if (s == SILL_OK) s = sill_inspect(path, &json, &err);
    if (s != SILL_OK) return cli_fail(&err);
    if (o.json) {
        printf("%s%s", json, json[0] && json[strlen(json) - 1] == '\n' ? "" : "\n");
    } else {
        sill__json j;
        sill__json_init(&j, json, strlen(json));
        print_members(&j, 0);
    }
    sill_free(json);
    return cli_flush_stdout();
}
