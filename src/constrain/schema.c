/*
 * schema.c - the regular expression of a JSON schema's values: the subset that docs/CONSTRAINTS.md states, everything else refused
 * by name. Objects have all their properties in the schema's order; texts are written as Python's json.dumps writes them, with
 * ", " and ": ". Validity of what comes out is tested with the jsonschema package.
 */
#include "constrain/constrain.h"

#include "base/json.h"

#define DEPTH_MAX 16
#define COUNT_MAX 10000
#define NAME_MAX 256

#define CHARACTER "(?:[^\"\\\\\\x00-\\x1f\\x7f]|\\\\[\"\\\\/bfnrt]|\\\\u(?:[0-9a-cefA-CEF][0-9a-fA-F]{3}|[dD][0-7][0-9a-fA-F]{2}))"
#define INTEGER "(?:0|-?[1-9][0-9]{0,14})"
#define NUMBER "(?:-?(?:0|[1-9][0-9]{0,14})(?:\\.[0-9]{1,15})?(?:[eE][+-]?[0-9]{1,2})?)"

/* What a schema says of one value. Places in the text stay where they are; at.p NULL: not said. */
typedef struct said {
    sill__json type, properties, required, items, values, constant, any;
    int64_t min_items, max_items, min_length, max_length; /* -1: not said */
} said;

typedef struct writer { sill__str *out; const char *schema; sill_error *err; } writer;

static sill_status value(writer *w, sill__json j, int depth);

void sill__pattern_literal(sill__str *out, const char *text, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (text[i] && strchr("\\.[](){}*+?|^$", text[i])) sill__str_put(out, "\\", 1);
        sill__str_put(out, text + i, 1);
    }
}

static sill_status malformed(writer *w, const sill__json *j) { return sill__json_fail(j, "the JSON schema", w->err); }

static sill_status refuse(writer *w, const char *key, const char *why) {
    return sill__fail(w->err, SILL_EUNSUPPORTED, "the JSON schema: \"%.60s\" %s", key, why);
}

/* ------------------------------------------------------------- reading */

static sill_status read_count(writer *w, const char *key, sill__json *j, int64_t *out) {
    if (sill__json_peek(j) != SILL__JSON_NUMBER || !sill__json_int(j, out) || *out < 0 || *out > COUNT_MAX)
        return refuse(w, key, "is no whole number from 0 to 10000");
    return SILL_OK;
}

static bool same(const char *key, size_t n, const char *name) { return n == strlen(name) && !memcmp(key, name, n); }

static sill_status read_member(writer *w, const char *key, size_t n, sill__json *j, said *s) {
    static const char *const notes[] = {"title", "description", "$schema", "$id", "$comment", "default", "examples", "deprecated", "readOnly",
                                        "writeOnly"};
    struct { const char *name; sill__json *to; } places[] = {{"type", &s->type}, {"properties", &s->properties}, {"required", &s->required},
        {"items", &s->items}, {"enum", &s->values}, {"const", &s->constant}, {"anyOf", &s->any}};
    struct { const char *name; int64_t *to; } counts[] = {{"minItems", &s->min_items}, {"maxItems", &s->max_items},
                                                          {"minLength", &s->min_length}, {"maxLength", &s->max_length}};
    for (size_t i = 0; i < SILL_ARRAY_LEN(places); i++)
        if (same(key, n, places[i].name)) {
            *places[i].to = *j;
            return sill__json_skip(j) ? SILL_OK : malformed(w, j);
        }
    for (size_t i = 0; i < SILL_ARRAY_LEN(counts); i++)
        if (same(key, n, counts[i].name)) return read_count(w, key, j, counts[i].to);
    for (size_t i = 0; i < SILL_ARRAY_LEN(notes); i++)
        if (same(key, n, notes[i])) return sill__json_skip(j) ? SILL_OK : malformed(w, j);
    if (same(key, n, "additionalProperties")) { /* none are written */
        sill__json_kind kind = sill__json_peek(j);
        if (kind != SILL__JSON_TRUE && kind != SILL__JSON_FALSE && kind != SILL__JSON_OBJECT) return refuse(w, key, "is neither true, false nor a schema");
        return sill__json_skip(j) ? SILL_OK : malformed(w, j);
    }
    return refuse(w, key, "is not supported");
}

static sill_status read_schema(writer *w, sill__json *j, said *s) {
    char key[NAME_MAX];
    size_t n;
    sill_status st = SILL_OK;
    memset(s, 0, sizeof *s);
    s->min_items = s->max_items = s->min_length = s->max_length = -1;
    if (sill__json_peek(j) != SILL__JSON_OBJECT) return sill__fail(w->err, SILL_EUNSUPPORTED, "the JSON schema: a schema is no object (true and false are not supported)");
    if (!sill__json_enter(j, SILL__JSON_OBJECT)) return malformed(w, j);
    while (st == SILL_OK && sill__json_next_member(j, key, sizeof key, &n)) st = read_member(w, key, SILL_MIN(n, sizeof key - 1), j, s);
    return st == SILL_OK && j->message ? malformed(w, j) : st;
}

/* ------------------------------------------------------------- writing */

static void put(writer *w, const char *text) { sill__str_puts(w->out, text); }

/* The JSON value at J as json.dumps would space it; what stands in its strings and numbers stays as it is written. */
static sill_status literal(writer *w, sill__json *j) {
    const char *p = j->p;
    bool in_string = false;
    if (!sill__json_skip(j)) return malformed(w, j);
    while (p < j->p && strchr(" \t\r\n,:", *p)) p++; /* what stood before the value */
    for (; p < j->p; p++) {
        if (!in_string && strchr(" \t\r\n", *p)) continue;
        sill__pattern_literal(w->out, p, 1);
        if (in_string && *p == '\\' && p + 1 < j->p) sill__pattern_literal(w->out, ++p, 1);
        else if (*p == '"') in_string = !in_string;
        else if (!in_string && (*p == ',' || *p == ':')) put(w, " ");
    }
    return SILL_OK;
}

static sill_status literals(writer *w, sill__json j) {
    sill_status st = SILL_OK;
    bool any = false;
    if (sill__json_peek(&j) != SILL__JSON_ARRAY || !sill__json_enter(&j, SILL__JSON_ARRAY)) return refuse(w, "enum", "is no array");
    put(w, "(?:");
    while (st == SILL_OK && sill__json_next_element(&j)) {
        if (any) put(w, "|");
        any = true;
        st = literal(w, &j);
    }
    put(w, ")");
    if (st == SILL_OK && j.message) return malformed(w, &j);
    return st == SILL_OK && !any ? refuse(w, "enum", "is empty") : st;
}

static void bounds(writer *w, int64_t least, int64_t most) {
    if (least <= 0 && most < 0) put(w, "*");
    else if (most < 0) sill__str_putf(w->out, "{%d,}", (int)least);
    else sill__str_putf(w->out, "{%d,%d}", (int)SILL_MAX(least, 0), (int)most);
}

static sill_status string(writer *w, const said *s) {
    if (s->max_length >= 0 && s->min_length > s->max_length) return refuse(w, "minLength", "is more than maxLength");
    put(w, "\"" CHARACTER);
    bounds(w, s->min_length, s->max_length);
    put(w, "\"");
    return SILL_OK;
}

static sill_status array(writer *w, const said *s, int depth) {
    const int64_t least = SILL_MAX(s->min_items, 0), most = s->max_items;
    sill_status st = SILL_OK;
    if (most >= 0 && least > most) return refuse(w, "minItems", "is more than maxItems");
    if (!s->items.p && most != 0) return refuse(w, "items", "is missing: an array of anything is not supported");
    put(w, "\\[");
    if (most != 0) {
        if (least == 0) put(w, "(?:");
        st = value(w, s->items, depth + 1);
        if (st == SILL_OK && most != 1) {
            put(w, "(?:, ");
            st = value(w, s->items, depth + 1);
            put(w, ")");
            bounds(w, least - 1, most < 0 ? -1 : most - 1);
        }
        if (least == 0) put(w, ")?");
    }
    put(w, "\\]");
    return st;
}

/* Every name that is required must be a property. */
static sill_status check_required(writer *w, const said *s) {
    sill__json j = s->required;
    sill_status st = SILL_OK;
    if (!j.p) return SILL_OK;
    if (sill__json_peek(&j) != SILL__JSON_ARRAY || !sill__json_enter(&j, SILL__JSON_ARRAY)) return refuse(w, "required", "is no array");
    while (st == SILL_OK && sill__json_next_element(&j)) {
        sill__str name;
        sill__str_init(&name, NAME_MAX);
        bool is = sill__json_peek(&j) == SILL__JSON_STRING && sill__json_string(&j, &name), found = false;
        sill__json p = s->properties;
        char key[NAME_MAX];
        size_t n;
        if (is && p.p && sill__json_peek(&p) == SILL__JSON_OBJECT && sill__json_enter(&p, SILL__JSON_OBJECT))
            while (!found && sill__json_next_member(&p, key, sizeof key, &n)) found = n == name.n && n < sizeof key && (!n || !memcmp(key, name.p, n));
        sill__str_free(&name);
        if (!found) st = refuse(w, "required", "names something that is no property");
    }
    return st;
}

static sill_status object(writer *w, const said *s, int depth) {
    sill__json j = s->properties;
    char key[NAME_MAX];
    size_t n;
    bool any = false;
    sill_status st = check_required(w, s);
    if (st != SILL_OK) return st;
    put(w, "\\{");
    if (j.p && (sill__json_peek(&j) != SILL__JSON_OBJECT || !sill__json_enter(&j, SILL__JSON_OBJECT))) return refuse(w, "properties", "is no object");
    while (st == SILL_OK && j.p && sill__json_next_member(&j, key, sizeof key, &n)) {
        sill__str name;
        if (n >= sizeof key) return refuse(w, "properties", "has a name of more than 255 bytes");
        sill__str_init(&name, 8 * NAME_MAX);
        sill__put_json_string(&name, key, n);
        if (any) put(w, ", ");
        any = true;
        sill__pattern_literal(w->out, name.p, name.n);
        bool failed = name.failed;
        sill__str_free(&name);
        if (failed) return sill__fail(w->err, SILL_ENOMEM, "no memory for the JSON schema");
        put(w, ": ");
        st = value(w, j, depth + 1);
        if (st == SILL_OK && !sill__json_skip(&j)) return malformed(w, &j);
    }
    if (st == SILL_OK && j.p && j.message) return malformed(w, &j);
    put(w, "\\}");
    return st;
}

static sill_status of_type(writer *w, const said *s, sill__json *j, int depth) {
    sill__str name;
    sill_status st = SILL_OK;
    if (sill__json_peek(j) != SILL__JSON_STRING) return refuse(w, "type", "is neither a name nor an array of names");
    sill__str_init(&name, NAME_MAX);
    if (!sill__json_string(j, &name)) st = malformed(w, j);
    else if (same(name.p, name.n, "string")) st = string(w, s);
    else if (same(name.p, name.n, "integer")) put(w, INTEGER);
    else if (same(name.p, name.n, "number")) put(w, NUMBER);
    else if (same(name.p, name.n, "boolean")) put(w, "(?:true|false)");
    else if (same(name.p, name.n, "null")) put(w, "null");
    else if (same(name.p, name.n, "array")) st = array(w, s, depth);
    else if (same(name.p, name.n, "object")) st = object(w, s, depth);
    else st = refuse(w, "type", "is none of string, integer, number, boolean, null, array, object");
    sill__str_free(&name);
    return st;
}

/* One alternative for each element of the array at J. */
static sill_status each(writer *w, const said *s, sill__json j, const char *key, int depth) {
    sill_status st = SILL_OK;
    bool any = false;
    if (sill__json_peek(&j) != SILL__JSON_ARRAY || !sill__json_enter(&j, SILL__JSON_ARRAY)) return refuse(w, key, "is no array");
    put(w, "(?:");
    while (st == SILL_OK && sill__json_next_element(&j)) {
        if (any) put(w, "|");
        any = true;
        st = s ? of_type(w, s, &j, depth) : value(w, j, depth + 1);
        if (st == SILL_OK && !s && !sill__json_skip(&j)) return malformed(w, &j);
    }
    put(w, ")");
    if (st == SILL_OK && j.message) return malformed(w, &j);
    return st == SILL_OK && !any ? refuse(w, key, "is empty") : st;
}

static sill_status value(writer *w, sill__json j, int depth) {
    said s;
    if (depth > DEPTH_MAX) return sill__fail(w->err, SILL_EUNSUPPORTED, "the JSON schema is more than %d schemas deep", DEPTH_MAX);
    if (w->out->failed || w->out->n > (size_t)8 << 20) return sill__fail(w->err, SILL_ERANGE, "the JSON schema is too large");
    sill_status st = read_schema(w, &j, &s);
    if (st != SILL_OK) return st;
    const int ways = (s.values.p != NULL) + (s.constant.p != NULL) + (s.any.p != NULL);
    if (ways > 1 || (ways && s.type.p && s.any.p)) return refuse(w, "enum", ", const, anyOf and type are not supported beside each other");
    if (s.values.p) return literals(w, s.values);
    if (s.constant.p) return literal(w, &s.constant);
    if (s.any.p) return each(w, NULL, s.any, "anyOf", depth);
    if (!s.type.p) {
        if (!s.properties.p) return refuse(w, "type", "is missing: a value of any type is not supported");
        return object(w, &s, depth);
    }
    if (sill__json_peek(&s.type) == SILL__JSON_ARRAY) return each(w, &s, s.type, "type", depth);
    return of_type(w, &s, &s.type, depth);
}

sill_status sill__schema_pattern(const char *schema, size_t n, sill__str *out, sill_error *err) {
    writer w = {.out = out, .schema = schema, .err = err};
    sill__json j;
    sill__json_init(&j, schema, n);
    sill__json check = j;
    if (!sill__json_skip(&check) || !sill__json_finish(&check)) return sill__json_fail(&check, "the JSON schema", err);
    sill_status st = value(&w, j, 0);
    return st == SILL_OK && out->failed ? sill__fail(err, SILL_ENOMEM, "no memory for the JSON schema") : st;
}
