/* MSL that has been through the preprocessor -> C++ for shim/msl.h. It works on tokens and keeps every line where it was:
 *   - address spaces become macros, [[attributes]] go, and each kernel gets a launcher bound by its attributes;
 *   - threadgroup variables become references into the group's memory, function constants variables that a pipeline sets;
 *   - T(...) and (T)x for vector types become calls, floating literals get the type that MSL gives them (float);
 *   - what clang would take and Apple's compiler would not is refused (lint.c). */
#include "translate.h"
#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void tr_error(tr *t, size_t i, const char *f, ...)
{
    char text[400];
    va_list a;
    va_start(a, f);
    vsnprintf(text, sizeof text, f, a);
    va_end(a);
    t->errors++;
    tr_put(&t->log, "program_source:%d: error: %s\n", i < t->n ? t->tok[i].line : 0, text);
}
void tr_put(tr_text *o, const char *f, ...)
{
    va_list a;
    va_start(a, f);
    int n = vsnprintf(NULL, 0, f, a);
    va_end(a);
    if (o->n + (size_t)n + 1 > o->cap) {
        o->cap = (o->n + (size_t)n + 1) * 2;
        o->s = realloc(o->s, o->cap);
        if (!o->s) abort();
    }
    va_start(a, f);
    vsnprintf(o->s + o->n, (size_t)n + 1, f, a);
    va_end(a);
    o->n += (size_t)n;
}
static void put_n(tr_text *o, const char *s, size_t n)
{
    if (o->n + n + 1 > o->cap) {
        o->cap = (o->n + n + 1) * 2;
        o->s = realloc(o->s, o->cap);
        if (!o->s) abort();
    }
    memcpy(o->s + o->n, s, n);
    o->n += n;
    o->s[o->n] = 0;
}
bool tr_is(const tr *t, size_t i, const char *w) { return i < t->n && t->tok[i].n == strlen(w) && !memcmp(t->tok[i].s, w, t->tok[i].n); }
bool tr_in(const tr *t, size_t i, const char *const *list)
{
    for (; *list; list++) if (tr_is(t, i, *list)) return true;
    return false;
}
static void replace(tr *t, size_t i, const char *f, ...)
{
    va_list a;
    va_start(a, f);
    if (vasprintf(&t->tok[i].rep, f, a) < 0) abort();
    va_end(a);
}
static void append(tr *t, size_t i, const char *s)
{
    char *old = t->tok[i].after;
    if (asprintf(&t->tok[i].after, "%s%s", old ? old : "", s) < 0) abort();
    free(old);
}
static void drop(tr *t, size_t from, size_t to) { for (size_t i = from; i < to; i++) if (t->tok[i].kind != 'D') t->tok[i].gone = true; }

/* ---- tokens */
static bool id_start(int c) { return isalpha(c) || c == '_' || c == '$'; }
static void tokenize(tr *t, const char *s)
{
    size_t cap = 0;
    int line = 1;
    bool bol = true;
    const char *ws = s;
    while (*s) {
        if (*s == '\n') { line++; bol = true; s++; continue; }
        if (isspace((unsigned char)*s)) { s++; continue; }
        if (t->n + 2 > cap) { cap = cap ? cap * 2 : 4096; t->tok = realloc(t->tok, cap * sizeof *t->tok); if (!t->tok) abort(); }
        tr_tok *k = &t->tok[t->n++];
        *k = (tr_tok){ .s = s, .ws = ws, .ws_n = (size_t)(s - ws), .line = line, .match = SIZE_MAX };
        const char *b = s;
        if (bol && *s == '#') {         /* a line marker or a pragma */
            while (*s && *s != '\n') s++;
            k->kind = 'D';
            int l;
            if (sscanf(b, "# %d", &l) == 1) line = l - 1;   /* the newline that follows adds one */
        } else if (id_start((unsigned char)*s)) {
            while (isalnum((unsigned char)*s) || *s == '_' || *s == '$') s++;
            k->kind = 'i';
        } else if (isdigit((unsigned char)*s) || (*s == '.' && isdigit((unsigned char)s[1]))) {
            while (isalnum((unsigned char)*s) || *s == '.' || *s == '_' || ((*s == '+' || *s == '-') && strchr("eEpP", s[-1]) && !(b[0] == '0' && (b[1] | 32) == 'x' && strchr("eE", s[-1])))) s++;
            k->kind = '0';
        } else if (*s == '"' || *s == '\'') {
            const char q = *s++;
            while (*s && *s != q) { if (*s == '\\' && s[1]) s++; s++; }
            if (*s) s++;
            k->kind = '"';
        } else {
            static const char *const ops[] = { "<<=", ">>=", "...", "->*", "::", "->", "++", "--", "&&", "||", "==", "!=", "<=", "+=", "-=", "*=", "/=", "%=", "&=", "|=", "^=", "<<", NULL };
            size_t n = 1;
            for (int i = 0; ops[i]; i++) if (!strncmp(s, ops[i], strlen(ops[i]))) { n = strlen(ops[i]); break; }
            s += n;
            k->kind = 'p';
        }
        k->n = (size_t)(s - b);
        bol = false;
        ws = s;
    }
    t->tail = ws;
}
static void match_brackets(tr *t)
{
    size_t *stack = malloc((t->n + 1) * sizeof *stack), sp = 0;
    if (!stack) abort();
    for (size_t i = 0; i < t->n; i++) {
        if (t->tok[i].kind != 'p' || t->tok[i].n != 1) continue;
        const char c = *t->tok[i].s;
        if (c == '(' || c == '[' || c == '{') stack[sp++] = i;
        else if (c == ')' || c == ']' || c == '}') {
            const char want = c == ')' ? '(' : c == ']' ? '[' : '{';
            if (!sp || *t->tok[stack[sp - 1]].s != want) { tr_error(t, i, "unbalanced '%c'", c); break; }
            t->tok[i].match = stack[--sp];
            t->tok[stack[sp]].match = i;
        }
    }
    if (sp && !t->errors) tr_error(t, stack[sp - 1], "unclosed '%c'", *t->tok[stack[sp - 1]].s);
    free(stack);
}
size_t tr_next(const tr *t, size_t i) { do i++; while (i < t->n && t->tok[i].kind == 'D'); return i; }
size_t tr_prev(const tr *t, size_t i) { while (i-- > 0) if (t->tok[i].kind != 'D') return i; return SIZE_MAX; }
/* i at '<' of a template argument list: the '>' that closes it, or i when it is a comparison */
size_t tr_angle(const tr *t, size_t i)
{
    int d = 0;
    for (size_t k = i; k < t->n; k++) {
        if (tr_is(t, k, "<")) d++;
        else if (tr_is(t, k, ">")) { if (--d == 0) return k; }
        else if (tr_is(t, k, "(") || tr_is(t, k, "[")) k = t->tok[k].match;
        else if (tr_is(t, k, ";") || tr_is(t, k, "{") || tr_is(t, k, "}") || tr_is(t, k, "&&") || tr_is(t, k, "||")) return i;
    }
    return i;
}

/* ---- names of types */
static const char *const vector_scalars[] = { "float", "half", "char", "uchar", "short", "ushort", "int", "uint", "long", "ulong", "bool", NULL };
bool tr_vector_name(const char *s, size_t n)
{
    if (n > 7 && !memcmp(s, "packed_", 7)) { s += 7; n -= 7; }
    if (n < 4 || s[n - 1] < '2' || s[n - 1] > '4') return false;
    for (int i = 0; vector_scalars[i]; i++) if (strlen(vector_scalars[i]) == n - 1 && !memcmp(s, vector_scalars[i], n - 1)) return true;
    return false;
}
static void add_name(tr_names *l, const tr_tok *k)
{
    for (size_t i = 0; i < l->n; i++) if (strlen(l->s[i]) == k->n && !memcmp(l->s[i], k->s, k->n)) return;
    l->s = realloc(l->s, (l->n + 1) * sizeof *l->s);
    if (!l->s) abort();
    l->s[l->n++] = strndup(k->s, k->n);
}
bool tr_has(const tr_names *l, const tr_tok *k)
{
    for (size_t i = 0; i < l->n; i++) if (strlen(l->s[i]) == k->n && !memcmp(l->s[i], k->s, k->n)) return true;
    return false;
}
/* types whose T(...) and (T)x are rewritten */
static bool castable(const tr *t, size_t i) { return t->tok[i].kind == 'i' && (tr_vector_name(t->tok[i].s, t->tok[i].n) || tr_has(&t->types, &t->tok[i])); }

static char *text_of(const tr *t, size_t from, size_t to)
{
    tr_text o = { 0 };
    tr_put(&o, "%s", "");
    for (size_t i = from; i < to; i++) {
        const tr_tok *k = &t->tok[i];
        if (k->gone || k->dead || k->kind == 'D') continue;
        if (o.n) put_n(&o, " ", 1);
        if (k->rep) tr_put(&o, "%s", k->rep); else put_n(&o, k->s, k->n);
        if (k->after) tr_put(&o, "%s", k->after);
    }
    return o.s;
}

/* ---- declarations at program scope */
static size_t attr_end(const tr *t, size_t i) { return tr_is(t, i, "[") && tr_is(t, i + 1, "[") && t->tok[i].match < t->n ? t->tok[i].match + 1 : i; }

static void template_params(tr *t, size_t from, size_t to)
{
    for (size_t i = from; i < to; i++)
        if ((tr_is(t, i, "typename") || tr_is(t, i, "class")) && i + 1 < to && t->tok[i + 1].kind == 'i') add_name(&t->types, &t->tok[i + 1]);
}
static const struct { const char *attr; char kind; bool three; } builtins[] = {
    { "threadgroup_position_in_grid", 'p', true }, { "thread_position_in_threadgroup", 'i', true }, { "threads_per_threadgroup", 'n', true },
    { "dispatch_threads_per_threadgroup", 'd', true }, { "threadgroups_per_grid", 'g', true }, { "thread_position_in_grid", 'G', true },
    { "threads_per_grid", 'N', true }, { "thread_index_in_threadgroup", 'l', false }, { "thread_index_in_simdgroup", 'L', false },
    { "simdgroup_index_in_threadgroup", 's', false }, { "simdgroups_per_threadgroup", 'S', false },
    { "dispatch_simdgroups_per_threadgroup", 'D', false }, { "threads_per_simdgroup", 'w', false }, { "thread_execution_width", 'w', false },
    { NULL, 0, false } };
static void kernel_param(tr *t, tr_func *f, size_t from, size_t to)
{
    if (f->n_params == 40) { tr_error(t, from, "more than 40 parameters"); return; }
    tr_param *p = &f->param[f->n_params++];
    *p = (tr_param){ .kind = 0, .index = 0, .name = SIZE_MAX, .fc = SIZE_MAX };
    bool ptr = false, ref = false, dev = false, cst = false, tg = false;
    const char *type = "";
    size_t type_n = 0;
    static const char *const dims3[] = { "ushort", "uint", "ushort2", "uint2", "ushort3", "uint3", NULL };
    size_t at_attr = to;
    for (size_t i = from; i < to; i++) {
        if (attr_end(t, i) != i) {
            if (at_attr == to) at_attr = i;
            const size_t end = attr_end(t, i);
            for (size_t j = i + 2; j + 2 < end; j++) {
                const bool call = tr_is(t, j + 1, "(");
                if (tr_is(t, j, "buffer") && call) { p->kind = 'b'; p->index = atoi(t->tok[j + 2].s); if (t->tok[j + 2].kind != '0' || p->index > 30) tr_error(t, j, "buffer index"); }
                else if (tr_is(t, j, "threadgroup") && call) { p->kind = 't'; p->index = atoi(t->tok[j + 2].s); if (t->tok[j + 2].kind != '0' || p->index > 30) tr_error(t, j, "threadgroup index"); }
                else if (tr_is(t, j, "function_constant") && call) p->fc = j + 2;
                else if (t->tok[j].kind == 'i') {
                    int z = 0;
                    while (builtins[z].attr && !tr_is(t, j, builtins[z].attr)) z++;
                    if (!builtins[z].attr) tr_error(t, j, "attribute '%.*s' of a kernel parameter is not known", (int)t->tok[j].n, t->tok[j].s);
                    else {
                        p->kind = builtins[z].kind;
                        bool ok = false;
                        for (int y = 0; dims3[y] && (y < 2 || builtins[z].three); y++) ok |= strlen(dims3[y]) == type_n && !memcmp(dims3[y], type, type_n);
                        if (!ok) tr_error(t, j, "'%.*s' as the type of [[%s]]: %s", (int)type_n, type, builtins[z].attr, builtins[z].three ? "ushort, uint or vectors of two or three of them" : "ushort or uint");
                    }
                }
                if (call) j = t->tok[j + 1].match;
            }
            i = end - 1;
            continue;
        }
        if (tr_is(t, i, "*")) ptr = true;
        else if (tr_is(t, i, "&")) ref = true;
        else if (tr_is(t, i, "device")) dev = true;
        else if (tr_is(t, i, "constant")) cst = true;
        else if (tr_is(t, i, "threadgroup")) tg = true;
        else if (t->tok[i].kind == 'i' && !tr_is(t, i, "const")) {
            if (at_attr != to) tr_error(t, i, "'%.*s' after the attribute", (int)t->tok[i].n, t->tok[i].s);
            if (type_n == 0) { type = t->tok[i].s; type_n = t->tok[i].n; }
            p->name = i;
        }
    }
    if (p->kind == 0) { tr_error(t, from, "kernel parameter '%.*s' has no attribute such as [[buffer(0)]]", p->name < t->n ? (int)t->tok[p->name].n : 0, p->name < t->n ? t->tok[p->name].s : ""); return; }
    const bool mem = p->kind == 'b' || p->kind == 't';
    if (mem && !ptr && !ref) tr_error(t, from, "a parameter bound to a buffer is a pointer or a reference");
    if (!mem && (ptr || ref)) tr_error(t, from, "a built-in parameter is passed by value");
    if (p->kind == 'b' && dev + cst != 1) tr_error(t, from, "[[buffer]] parameter needs the address space device or constant");
    if (p->kind == 't' && !tg) tr_error(t, from, "[[threadgroup]] parameter needs the address space threadgroup");
    for (int i = 0; i + 1 < f->n_params; i++)
        if (!mem && f->param[i].kind == p->kind) tr_error(t, from, "two parameters with the same attribute");
    for (int i = 0; i + 1 < f->n_params; i++)
        if (mem && f->param[i].kind == p->kind && f->param[i].index == p->index && f->param[i].fc == SIZE_MAX && p->fc == SIZE_MAX)
            tr_error(t, from, "two parameters at [[%s(%d)]]", p->kind == 'b' ? "buffer" : "threadgroup", p->index);
}
static void kernel_params(tr *t, tr_func *f)
{
    size_t start = f->open + 1;
    int angle = 0;
    for (size_t i = start; i <= t->tok[f->open].match; i++) {
        if (tr_is(t, i, "<")) angle++;
        else if (tr_is(t, i, ">")) angle--;
        else if (i != t->tok[f->open].match && (tr_is(t, i, "(") || tr_is(t, i, "["))) i = t->tok[i].match;
        else if ((tr_is(t, i, ",") && angle == 0) || i == t->tok[f->open].match) {
            if (i > start) kernel_param(t, f, start, i);
            start = i + 1;
        }
    }
}
static void function_found(tr *t, size_t start, size_t open, size_t brace, bool is_template)
{
    t->func = realloc(t->func, (t->n_funcs + 1) * sizeof *t->func);
    if (!t->func) abort();
    tr_func *f = &t->func[t->n_funcs++];
    *f = (tr_func){ .start = start, .name = tr_prev(t, open), .open = open, .body = brace, .is_template = is_template };
    for (size_t i = start; i < open; i++) {
        if (tr_is(t, i, "kernel")) f->kernel = true;
        if (tr_is(t, i, "max_total_threads_per_threadgroup")) f->max_threads = (unsigned)atoi(t->tok[i + 2].s);
    }
    for (size_t i = t->tok[open].match + 1; i < brace; i++)
        if (tr_is(t, i, "max_total_threads_per_threadgroup")) f->max_threads = (unsigned)atoi(t->tok[i + 2].s);
    if (f->kernel) {
        if (!tr_is(t, tr_prev(t, f->name), "void")) tr_error(t, f->name, "a kernel returns void");
        kernel_params(t, f);
    }
}
static void variable_found(tr *t, size_t from, size_t to)
{
    size_t name = SIZE_MAX, eq = to, fc = SIZE_MAX, cst = SIZE_MAX;
    bool ce = false;
    for (size_t i = from; i < to; i++) {
        if (attr_end(t, i) != i) {
            for (size_t j = i; j < attr_end(t, i); j++) if (tr_is(t, j, "function_constant")) fc = j + 2;
            i = attr_end(t, i) - 1;
            continue;
        }
        if (tr_is(t, i, "=") || tr_is(t, i, "{")) { eq = i; break; }
        if (tr_is(t, i, "[")) { i = t->tok[i].match; continue; }
        if (tr_is(t, i, "<")) { i = tr_angle(t, i); continue; }
        if (tr_is(t, i, "constant")) cst = i;
        if (tr_is(t, i, "constexpr")) ce = true;
        if (t->tok[i].kind == 'i') name = i;
    }
    if (name == SIZE_MAX) return;
    if (cst == SIZE_MAX) { tr_error(t, name, "program-scope variable '%.*s' must be in the constant address space", (int)t->tok[name].n, t->tok[name].s); return; }
    bool derived = false;
    for (size_t i = eq; i < to; i++) derived |= tr_is(t, i, "is_function_constant_defined") || tr_has(&t->constants, &t->tok[i]);
    if (fc == SIZE_MAX && !derived) {
        if (eq == to) tr_error(t, name, "'%.*s' in the constant address space needs a value or [[function_constant(n)]]", (int)t->tok[name].n, t->tok[name].s);
        return;
    }
    if (fc != SIZE_MAX && (ce || eq != to)) { tr_error(t, name, "a function constant is neither constexpr nor initialized"); return; }
    add_name(&t->constants, &t->tok[name]);
    t->constant = realloc(t->constant, (t->n_constants + 1) * sizeof *t->constant);
    if (!t->constant) abort();
    tr_constant *c = &t->constant[t->n_constants++];
    *c = (tr_constant){ .name = name, .from = from, .to = to, .eq = eq, .index = fc == SIZE_MAX ? -1 : atoi(t->tok[fc].s) };
    if (fc != SIZE_MAX) for (size_t i = 0; i + 1 < t->n_constants; i++) if (t->constant[i].index == c->index) tr_error(t, name, "function constant %d is declared twice", c->index);
}
static void instantiation_found(tr *t, size_t from, size_t to)
{
    size_t host = SIZE_MAX, name = SIZE_MAX, close = 0;
    bool kernel = false;
    for (size_t i = from; i < to; i++) {
        if (tr_is(t, i, "host_name")) host = i + 2;
        if (tr_is(t, i, "kernel")) kernel = true;
        if (attr_end(t, i) != i) { for (size_t j = i; j < attr_end(t, i); j++) { if (tr_is(t, j, "host_name")) host = j + 2; if (tr_is(t, j, "kernel")) kernel = true; } i = attr_end(t, i) - 1; continue; }
        if (tr_is(t, i, "decltype")) { i = t->tok[i + 1].match; continue; }
        if (tr_is(t, i, "(")) break;
        if (t->tok[i].kind == 'i' && tr_is(t, i + 1, "<")) { name = i; close = tr_angle(t, i + 1); i = close; }
    }
    if (!kernel || name == SIZE_MAX) return;
    if (host == SIZE_MAX) { tr_error(t, from, "an instantiated kernel needs [[host_name(\"...\")]]"); return; }
    t->inst = realloc(t->inst, (t->n_insts + 1) * sizeof *t->inst);
    if (!t->inst) abort();
    t->inst[t->n_insts++] = (tr_inst){ .host = host, .name = name, .close = close };
    drop(t, from, to + 1);
}
static void scope(tr *t, size_t i, size_t end, bool in_struct)
{
    while (i < end) {
        if (t->tok[i].kind == 'D' || tr_is(t, i, ";") || (in_struct && (tr_is(t, i, ":") || tr_is(t, i, "public") || tr_is(t, i, "private")))) { i++; continue; }
        if (tr_is(t, i, "namespace")) {
            size_t b = i;
            while (b < end && !tr_is(t, b, "{") && !tr_is(t, b, ";")) b++;
            if (tr_is(t, b, "{")) { scope(t, b + 1, t->tok[b].match, false); i = t->tok[b].match + 1; } else i = b + 1;
            continue;
        }
        const size_t start = i;
        bool is_template = false, type = false, is_typedef = tr_is(t, i, "typedef"), is_using = tr_is(t, i, "using"), eq = false, parens = false, other = tr_is(t, i, "static_assert") || tr_is(t, i, "extern");
        size_t open = SIZE_MAX, last_id = SIZE_MAX;
        bool explicit_inst = tr_is(t, i, "template") && !tr_is(t, tr_next(t, i), "<");
        for (; i < end; i++) {
            if (t->tok[i].kind == 'D') continue;
            if (tr_is(t, i, "template") && tr_is(t, tr_next(t, i), "<")) {
                size_t lt = tr_next(t, i), gt = tr_angle(t, lt);
                template_params(t, lt, gt);
                is_template = true;
                i = gt;
            } else if (attr_end(t, i) != i) i = attr_end(t, i) - 1;
            else if (tr_is(t, i, "struct") || tr_is(t, i, "class") || tr_is(t, i, "union") || tr_is(t, i, "enum")) {
                type = true;
                size_t nm = tr_next(t, i);
                if (tr_is(t, nm, "class")) nm = tr_next(t, nm);
                if (t->tok[nm].kind == 'i') add_name(&t->structs, &t->tok[nm]);
            } else if (tr_is(t, i, "(")) { if (open == SIZE_MAX && !eq) { open = i; parens = true; } i = t->tok[i].match; }
            else if (tr_is(t, i, "[")) i = t->tok[i].match;
            else if (tr_is(t, i, "=")) { eq = true; if (is_using && last_id != SIZE_MAX) add_name(&t->types, &t->tok[last_id]); }
            else if (tr_is(t, i, "{")) {
                if (open != SIZE_MAX && !eq && !is_typedef) { function_found(t, start, open, i, is_template); i = t->tok[i].match; break; }
                if (type) scope(t, i + 1, t->tok[i].match, true);
                i = t->tok[i].match;
            } else if (tr_is(t, i, ";")) break;
            else if (t->tok[i].kind == 'i') last_id = i;
        }
        if (is_typedef && last_id != SIZE_MAX) add_name(type ? &t->structs : &t->types, &t->tok[last_id]);
        if (explicit_inst) instantiation_found(t, start, i);
        else if (!tr_is(t, i, "}") && !in_struct && !is_typedef && !is_using && !other && !(type && !eq) && !(parens && open != SIZE_MAX)) variable_found(t, start, i);
        i++;
    }
}

/* ---- inside functions */
static const char *const not_values[] = { "return", "case", "else", "do", "in", NULL };
static void threadgroup_variable(tr *t, const tr_func *f, size_t i, size_t end)
{
    size_t p = tr_next(t, i), type_from = p, name = SIZE_MAX;
    for (; p < end; p = tr_next(t, p)) {
        if (tr_is(t, p, "*") || tr_is(t, p, "&")) return;                /* a pointer into threadgroup memory */
        if (tr_is(t, p, "<")) { p = tr_angle(t, p); continue; }
        if (tr_is(t, p, "::")) continue;
        if (t->tok[p].kind != 'i') break;
        name = p;
    }
    if (name == SIZE_MAX || name == type_from) return;
    if (!f->kernel) { tr_error(t, i, "a threadgroup variable in a function that is no kernel"); return; }
    int depth = 0;
    for (size_t k = f->body; k < i; k++) depth += tr_is(t, k, "{") - tr_is(t, k, "}");
    if (depth != 1) tr_error(t, i, "a threadgroup variable not at the outermost scope of its kernel");
    char *type = text_of(t, type_from, name);
    const int id = t->n_tgvars++;
    tr_text o = { 0 };
    tr_put(&o, "using msl_tgt_%d = %s;", id, type);
    free(type);
    int k = 0;
    while (p <= end) {                   /* NAME [dims] , ... ; */
        size_t dims = tr_next(t, name);
        p = dims;
        while (tr_is(t, p, "[")) p = tr_next(t, t->tok[p].match);
        if (tr_is(t, p, "=") || tr_is(t, p, "{")) { tr_error(t, p, "a threadgroup variable cannot be initialized"); break; }
        char *d = text_of(t, dims, p);
        tr_put(&o, " MSL_TGVAR(%d, msl_tgt_%d, %.*s, %s);", id * 16 + k++, id, (int)t->tok[name].n, t->tok[name].s, d);
        free(d);
        if (!tr_is(t, p, ",")) break;
        name = tr_next(t, p);
    }
    drop(t, i, end + 1);
    t->tok[i].gone = false;
    replace(t, i, "%s", o.s);
    free(o.s);
}
/* is the pair of parentheses at i a cast? Only names, *, <> and :: in it, a type first, and an operand behind it */
static bool is_cast(const tr *t, size_t i)
{
    static const char *const types[] = { "device", "constant", "threadgroup", "thread", "const", "float", "half", "int", "uint", "short", "ushort", "char", "uchar", "long", "ulong", "bool", "size_t", "unsigned", "vec", NULL };
    static const char *const unary[] = { "-", "+", "!", "~", "*", "&", "++", "--", "(", NULL };
    const size_t close = t->tok[i].match, next = close < t->n ? tr_next(t, close) : t->n, first = tr_next(t, i);
    if (close >= t->n || next >= t->n || !(tr_in(t, first, types) || castable(t, first) || tr_has(&t->structs, &t->tok[first]))) return false;
    int angle = 0;
    for (size_t k = first; k < close; k++) {
        angle += tr_is(t, k, "<") - tr_is(t, k, ">");
        if (t->tok[k].kind != 'i' && !tr_is(t, k, "*") && !tr_is(t, k, "::") && !tr_is(t, k, "<") && !tr_is(t, k, ">") && !(angle && (t->tok[k].kind == '0' || tr_is(t, k, ",")))) return false;
    }
    return t->tok[next].kind == 'i' || t->tok[next].kind == '0' || tr_in(t, next, unary);
}
/* a token before '(' after which it is a cast, not a call or an index */
static bool before_cast(const tr *t, size_t i)
{
    const size_t p = tr_prev(t, i);
    if (p == SIZE_MAX) return true;
    if (t->tok[p].kind == 'i') return tr_in(t, p, not_values);
    if (tr_is(t, p, ")")) return is_cast(t, t->tok[p].match) && before_cast(t, t->tok[p].match);
    return !tr_is(t, p, "]") && !tr_is(t, p, ">");
}
/* i: where an operand of a cast begins; its last token */
static size_t operand_end(const tr *t, size_t i)
{
    static const char *const unary[] = { "-", "+", "!", "~", "*", "&", "++", "--", NULL };
    while (tr_in(t, i, unary)) i = tr_next(t, i);
    if (tr_is(t, i, "(")) {
        if (is_cast(t, i)) return operand_end(t, tr_next(t, t->tok[i].match));
        i = t->tok[i].match;
    }
    for (;;) {
        size_t n = tr_next(t, i);
        if (t->tok[i].kind == 'i' && tr_is(t, n, "<")) {
            const size_t gt = tr_angle(t, n), after = gt == n ? n : tr_next(t, gt);
            if (gt != n && (tr_is(t, after, "(") || tr_is(t, after, "::") || tr_is(t, after, "{"))) { i = gt; n = after; }
        }
        if (tr_is(t, n, "(") || tr_is(t, n, "[")) i = t->tok[n].match;
        else if (tr_is(t, n, ".") || tr_is(t, n, "->") || tr_is(t, n, "::")) i = tr_next(t, n);
        else if (tr_is(t, n, "++") || tr_is(t, n, "--")) i = n;
        else return i;
    }
}
static void casts(tr *t, size_t i)
{
    /* (space T *) x: a check that x is in the same space */
    if (tr_is(t, i, "(") && t->tok[i].match < t->n) {
        const size_t close = t->tok[i].match, next = tr_next(t, close);
        static const char *const spaces[] = { "device", "constant", "threadgroup", "thread", NULL };
        bool space = false;
        for (size_t k = i + 1; k < close; k++) space |= tr_in(t, k, spaces);
        if (space && tr_is(t, tr_prev(t, close), "*") && is_cast(t, i) && before_cast(t, i)) {
            replace(t, i, "MSL_PCAST(");
            replace(t, close, ", ");
            append(t, operand_end(t, next), ")");
        }
        return;
    }
    /* T(...) */
    size_t last = i;
    if (tr_is(t, i, "vec") && tr_is(t, i + 1, "<")) { last = tr_angle(t, i + 1); if (last == i + 1) return; }
    else if (!castable(t, i)) return;
    const size_t next = tr_next(t, last), prev = tr_prev(t, i);
    static const char *const decl[] = { "const", "device", "constant", "threadgroup", "thread", "operator", "struct", "typename", "static", "inline", "constexpr", "::", "~", NULL };
    if (tr_is(t, next, "(") && !tr_in(t, prev, decl)) {
        replace(t, i, "msl_make<%.*s", (int)t->tok[i].n, t->tok[i].s);
        append(t, last, ">");
        return;
    }
    /* (T) x */
    if (!tr_is(t, next, ")") || !tr_is(t, prev, "(")) return;
    const size_t after = tr_next(t, next);
    if (!is_cast(t, prev) || !before_cast(t, prev)) return;
    replace(t, prev, "msl_make<");
    replace(t, next, ">(");
    append(t, operand_end(t, after), ")");
}
static void literal(tr *t, size_t i)
{
    const tr_tok *k = &t->tok[i];
    const bool hex = k->n > 2 && k->s[0] == '0' && (k->s[1] | 32) == 'x';
    bool fl = memchr(k->s, '.', k->n) || (hex ? memchr(k->s, 'p', k->n) || memchr(k->s, 'P', k->n) : memchr(k->s, 'e', k->n) || memchr(k->s, 'E', k->n));
    const int c = k->s[k->n - 1] | 32;
    if (!fl) {
        if (!hex && (c == 'f' || c == 'h')) tr_error(t, i, "'%.*s': a floating literal needs a point or an exponent", (int)k->n, k->s);
        return;
    }
    if (c == 'l') { tr_error(t, i, "'%.*s': MSL has no long double", (int)k->n, k->s); return; }
    if (c == 'h') replace(t, i, "((half)%.*sf)", (int)k->n - 1, k->s);
    else if (c != 'f' || (hex && !memchr(k->s, 'p', k->n) && !memchr(k->s, 'P', k->n))) replace(t, i, "%.*sf", (int)k->n, k->s);
}
static const struct { const char *word, *to; } qualifiers[] = {
    { "device", "MSL_DEVICE" }, { "constant", "MSL_CONSTANT" }, { "threadgroup", "MSL_THREADGROUP" }, { "thread", "MSL_THREAD" }, { "kernel", "" }, { NULL, NULL } };

/* the functions and constants that a kernel can reach, by name */
static void reach(const tr *t, size_t from, size_t to, unsigned char *fseen, unsigned long *needs, unsigned char *cseen)
{
    for (size_t i = from; i < to; i++) {
        if (t->tok[i].kind != 'i') continue;
        for (size_t c = 0; c < t->n_constants; c++) {
            const tr_tok *k = &t->tok[t->constant[c].name];
            if (cseen[c] || k->n != t->tok[i].n || memcmp(k->s, t->tok[i].s, k->n)) continue;
            /* a constant only asked about with is_function_constant_defined need not be there */
            if (i >= 2 && tr_is(t, i - 2, "is_function_constant_defined")) continue;
            cseen[c] = 1;
            if (t->constant[c].index >= 0) needs[c / 64] |= 1ul << c % 64;
            else {                       /* guarded by is_function_constant_defined: optional */
                bool guarded = false;
                for (size_t k2 = t->constant[c].eq; k2 < t->constant[c].to; k2++) guarded |= tr_is(t, k2, "is_function_constant_defined");
                if (!guarded) reach(t, t->constant[c].eq, t->constant[c].to, fseen, needs, cseen);
            }
        }
        for (size_t f = 0; f < t->n_funcs; f++) {
            const tr_tok *k = &t->tok[t->func[f].name];
            if (fseen[f] || k->n != t->tok[i].n || memcmp(k->s, t->tok[i].s, k->n)) continue;
            fseen[f] = 1;
            reach(t, t->func[f].start, t->tok[t->func[f].body].match, fseen, needs, cseen);
        }
    }
}
/* whether a parameter is declared in the constant address space */
static bool in_constant(const tr *t, const tr_param *p)
{
    if (p->name >= t->n) return false;
    for (size_t i = tr_prev(t, p->name); i != SIZE_MAX && !tr_is(t, i, ",") && !tr_is(t, i, "("); i = tr_prev(t, i)) if (tr_is(t, i, "constant")) return true;
    return false;
}
static void emit_kernel(tr *t, tr_text *o, tr_text *table, const tr_func *f, const char *host, const char *target, int serial)
{
    tr_put(o, "static constexpr msl_bind msl_b%d[] = {", serial);
    for (int i = 0; i < f->n_params; i++) {
        const tr_param *p = &f->param[i];
        int fc = -1;
        if (p->fc != SIZE_MAX) {
            for (size_t c = 0; c < t->n_constants; c++) { const tr_tok *k = &t->tok[t->constant[c].name]; if (k->n == t->tok[p->fc].n && !memcmp(k->s, t->tok[p->fc].s, k->n)) fc = (int)c; }
            if (fc < 0) tr_error(t, p->fc, "[[function_constant]] of a parameter names no function constant");
        }
        tr_put(o, "{'%c',%d,%d,\"%.*s\",%d},", p->kind ? p->kind : 'b', p->index, fc, p->name < t->n ? (int)t->tok[p->name].n : 0, p->name < t->n ? t->tok[p->name].s : "", in_constant(t, p));
    }
    tr_put(o, "{0,0,-1,nullptr,0}};\ntypedef msl_entry<decltype(&%s), &%s, msl_b%d> msl_e%d;\n", target, target, serial, serial);
    unsigned char *fs = calloc(t->n_funcs + 1, 1), *cs = calloc(t->n_constants + 1, 1);
    unsigned long needs[4] = { 0 };
    if (!fs || !cs) abort();
    reach(t, f->start, t->tok[f->body].match, fs, needs, cs);
    free(fs);
    free(cs);
    tr_put(table, "{%s, &msl_e%d::body, msl_b%d, msl_e%d::param, msl_e%d::n, %uu, {%luul,%luul,%luul,%luul}, %uu, %uu},\n", host, serial, serial, serial, serial, f->max_threads, needs[0], needs[1], needs[2], needs[3], f->tg_from, f->tg_to);
}
static void emit_tables(tr *t, tr_text *o)
{
    tr_text table = { 0 };
    tr_put(&table, "%s", "");
    tr_put(o, "\n#ifndef MSL_CHECK\n#line 1 \"launchers\"\n");
    int serial = 0;
    for (size_t i = 0; i < t->n_funcs; i++) {
        const tr_func *f = &t->func[i];
        if (!f->kernel || f->is_template) continue;
        char name[128], host[132];
        snprintf(name, sizeof name, "%.*s", (int)t->tok[f->name].n, t->tok[f->name].s);
        snprintf(host, sizeof host, "\"%s\"", name);
        emit_kernel(t, o, &table, f, host, name, serial++);
    }
    for (size_t i = 0; i < t->n_insts; i++) {
        const tr_inst *in = &t->inst[i];
        const tr_func *f = NULL;
        for (size_t k = 0; k < t->n_funcs; k++) { const tr_tok *a = &t->tok[t->func[k].name], *b = &t->tok[in->name]; if (t->func[k].kernel && t->func[k].is_template && a->n == b->n && !memcmp(a->s, b->s, a->n)) f = &t->func[k]; }
        if (!f) { tr_error(t, in->name, "no kernel template of this name"); continue; }
        for (size_t k = in->name; k <= in->close; k++) t->tok[k].gone = false;
        char *target = text_of(t, in->name, in->close + 1), host[132];
        snprintf(host, sizeof host, "%.*s", (int)t->tok[in->host].n, t->tok[in->host].s);
        emit_kernel(t, o, &table, f, host, target, serial++);
        free(target);
    }
    tr_put(o, "static const msl_kernel msl_kernel_table[] = {\n%s{nullptr,nullptr,nullptr,nullptr,0,0,{0,0,0,0},0,0}};\nstatic const msl_constant msl_constant_table[] = {\n", table.s);
    for (size_t c = 0; c < t->n_constants; c++) {
        const tr_tok *k = &t->tok[t->constant[c].name];
        const int n = (int)k->n;
        if (t->constant[c].index >= 0) tr_put(o, "{\"%.*s\",%du,msl_type_code<decltype(%.*s)>(),&%.*s,sizeof %.*s,&msl_defined_%.*s,0},\n", n, k->s, t->constant[c].index, n, k->s, n, k->s, n, k->s, n, k->s);
        else tr_put(o, "{\"%.*s\",~0u,msl_type_code<decltype(%.*s)>(),&%.*s,sizeof %.*s,nullptr,1},\n", n, k->s, n, k->s, n, k->s, n, k->s);
    }
    tr_put(o, "{nullptr,0,0,nullptr,0,nullptr,0}};\nstatic void msl_init_constants() {\n");
    for (size_t c = 0; c < t->n_constants; c++) {
        const tr_constant *k = &t->constant[c];
        if (k->index >= 0) continue;
        for (size_t i = k->eq; i <= k->to; i++) t->tok[i].gone = false;
        char *e = text_of(t, k->eq, k->to);
        tr_put(o, "%.*s %s;\n", (int)t->tok[k->name].n, t->tok[k->name].s, e);
        free(e);
    }
    tr_put(o, "}\nextern \"C\" { extern const msl_tg_entry __start_msl_tg[] __attribute__((weak, visibility(\"hidden\"))), __stop_msl_tg[] __attribute__((weak, visibility(\"hidden\"))); }\nextern \"C\" __attribute__((visibility(\"default\"))) const msl_library msl_library_table = { MSL_ABI, msl_kernel_table, %du, msl_constant_table, %zuu, msl_init_constants, __start_msl_tg, __stop_msl_tg };\n#endif\n", serial, t->n_constants);
    free(table.s);
}
static void constants(tr *t)
{
    for (size_t c = 0; c < t->n_constants; c++) {
        tr_constant *k = &t->constant[c];
        size_t tf = k->from;
        static const char *const skip[] = { "static", "constant", "constexpr", "const", "inline", NULL };
        while (tr_in(t, tf, skip)) tf++;
        char *type = text_of(t, tf, k->name);
        for (size_t i = k->eq; i < k->to; i++)
            if (tr_is(t, i, "is_function_constant_defined")) {
                const tr_tok *a = &t->tok[i + 2];
                drop(t, i, i + 4);
                t->tok[i].gone = false;
                replace(t, i, "(msl_defined_%.*s != 0)", (int)a->n, a->s);
                t->tok[i + 1].dead = t->tok[i + 2].dead = t->tok[i + 3].dead = true;
            }
        drop(t, k->from, k->to + 1);
        t->tok[k->from].gone = false;
        const int n = (int)t->tok[k->name].n;
        if (k->index >= 0) replace(t, k->from, "static unsigned char msl_defined_%.*s; MSL_FCONST(%s, %.*s);", n, t->tok[k->name].s, type, n, t->tok[k->name].s);
        else replace(t, k->from, "MSL_FCONST(%s, %.*s);", type, n, t->tok[k->name].s);
        free(type);
    }
}
char *fake_translate(const char *text, char **log)
{
    tr tt = { 0 }, *t = &tt;
    tr_put(&t->log, "%s", "");
    tokenize(t, text);
    match_brackets(t);
    if (!t->errors) {
        scope(t, 0, t->n, false);
        tr_lint(t);
    }
    tr_text o = { 0 };
    if (!t->errors) {
        for (size_t f = 0; f < t->n_funcs; f++) {
            t->func[f].tg_from = (unsigned)t->n_tgvars;
            for (size_t i = t->func[f].body; i < t->tok[t->func[f].body].match; i++)
                if (tr_is(t, i, "threadgroup")) {
                    const size_t p = tr_prev(t, i);
                    size_t end = i;
                    while (end < t->n && !tr_is(t, end, ";")) end = tr_is(t, end, "(") || tr_is(t, end, "[") || tr_is(t, end, "{") ? t->tok[end].match + 1 : end + 1;
                    if (tr_is(t, p, ";") || tr_is(t, p, "{") || tr_is(t, p, "}") || tr_is(t, p, ")")) threadgroup_variable(t, &t->func[f], i, end);
                }
            t->func[f].tg_to = (unsigned)t->n_tgvars;
        }
        for (size_t i = 0; i < t->n; i++) {
            if (t->tok[i].kind == '0') literal(t, i);
            if (t->tok[i].kind == 'i' || tr_is(t, i, "(")) casts(t, i);
            for (int q = 0; qualifiers[q].word && !t->tok[i].rep; q++) if (tr_is(t, i, qualifiers[q].word)) replace(t, i, "%s", qualifiers[q].to);
        }
        constants(t);
        for (size_t i = 0; i < t->n; i++) if (attr_end(t, i) != i) drop(t, i, attr_end(t, i));
        tr_put(&o, "#include \"msl.h\"\n#line 1 \"program_source\"\n");
        for (size_t i = 0; i < t->n; i++) {
            const tr_tok *k = &t->tok[i];
            put_n(&o, k->ws, k->ws_n);
            if (k->gone || k->dead) continue;
            if (k->rep) tr_put(&o, "%s", k->rep); else put_n(&o, k->s, k->n);
            if (k->after) tr_put(&o, "%s", k->after);
        }
        emit_tables(t, &o);
    }
    for (size_t i = 0; i < t->n; i++) { free(t->tok[i].rep); free(t->tok[i].after); }
    tr_names *lists[] = { &t->types, &t->structs, &t->constants };
    for (int l = 0; l < 3; l++) { for (size_t i = 0; i < lists[l]->n; i++) free(lists[l]->s[i]); free(lists[l]->s); }
    free(t->tok);
    free(t->func);
    free(t->constant);
    free(t->inst);
    if (t->errors) { free(o.s); *log = t->log.s; return NULL; }
    free(t->log.s);
    return o.s;
}
