/* What clang takes as C++ and Apple's compiler refuses as MSL (Metal Shading Language Specification, sections 1.5 and 4), and
 * what this project does not want in a kernel. */
#include "translate.h"
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

static const struct { const char *word, *why; } banned[] = {
    { "double", "MSL has no double" }, { "goto", "MSL has no goto" }, { "new", "MSL has no new" }, { "delete", "MSL has no delete" },
    { "virtual", "MSL has no virtual functions" }, { "dynamic_cast", "MSL has no dynamic_cast" }, { "typeid", "MSL has no typeid" },
    { "try", "MSL has no exceptions" }, { "catch", "MSL has no exceptions" }, { "throw", "MSL has no exceptions" },
    { "thread_local", "MSL has no thread_local" }, { "register", "MSL has no register" }, { "asm", "MSL has no asm" }, { "__asm__", "MSL has no asm" },
    { "std", "MSL has no C++ standard library" }, { "printf", "MSL has no printf" }, { "noexcept", "MSL has no noexcept" },
    { "co_await", "MSL is C++14" }, { "concept", "MSL is C++14" }, { "requires", "MSL is C++14" }, { "consteval", "MSL is C++14" },
    { "bfloat", "bfloat needs Metal 3.1 and family Apple6 at least: read ushort and shift" },
    { "ray_data", "ray tracing is not used here" }, { "fast", "fast:: functions are not precise" }, { "erf", "MSL has no erf" }, { "erfc", "MSL has no erfc" },
    { "expm1", "MSL has no expm1" }, { "log1p", "MSL has no log1p" }, { "hypot", "MSL has no hypot" }, { "cbrt", "MSL has no cbrt" },
    { NULL, NULL } };
static const char *const spaces[] = { "device", "constant", "threadgroup", "thread", NULL };
static const char *const scalars[] = { "void", "bool", "char", "uchar", "short", "ushort", "int", "uint", "long", "ulong", "half", "float", "size_t",
    "int8_t", "uint8_t", "int16_t", "uint16_t", "int32_t", "uint32_t", "int64_t", "uint64_t", "unsigned", "signed", "atomic_uint", "atomic_int", NULL };
static bool type_name(const tr *t, size_t i)
{
    return i < t->n && t->tok[i].kind == 'i' && (tr_in(t, i, scalars) || tr_vector_name(t->tok[i].s, t->tok[i].n) || tr_has(&t->types, &t->tok[i]) || tr_has(&t->structs, &t->tok[i]));
}
/* a pointer or reference in a parameter list without an address space */
static void parameters(tr *t, const tr_func *f)
{
    const size_t end = t->tok[f->open].match;
    size_t start = f->open + 1;
    for (size_t i = start; i <= end; i++) {
        if (i != end && (tr_is(t, i, "(") || tr_is(t, i, "["))) { i = t->tok[i].match; continue; }
        if (!tr_is(t, i, ",") && i != end) continue;
        bool ptr = false, as = false;
        for (size_t k = start; k < i; k++) {
            if (tr_is(t, k, "*") || tr_is(t, k, "&")) ptr = true;
            if (tr_in(t, k, spaces)) as = true;
            if (tr_is(t, k, "=")) break;
        }
        if (ptr && !as) tr_error(t, start, "pointer or reference parameter without an address space");
        start = i + 1;
    }
}
/* [const] T * name and (T *): locals and casts */
static void pointers(tr *t, const tr_func *f)
{
    for (size_t i = f->body; i < t->tok[f->body].match; i++) {
        if (!type_name(t, i)) continue;
        size_t next = tr_next(t, i), prev = tr_prev(t, i);
        if (tr_is(t, next, "const")) next = tr_next(t, next);
        if (!tr_is(t, next, "*") && !tr_is(t, next, "&")) continue;
        bool as = tr_in(t, tr_next(t, next), spaces);
        while (prev != SIZE_MAX && (tr_is(t, prev, "const") || tr_in(t, prev, spaces) || tr_is(t, prev, "struct"))) { as |= tr_in(t, prev, spaces); prev = tr_prev(t, prev); }
        if (as) continue;
        const size_t after = tr_next(t, next);
        const bool cast = tr_is(t, prev, "(") && tr_is(t, after, ")");
        const bool decl = t->tok[after].kind == 'i' && (tr_is(t, prev, ";") || tr_is(t, prev, "{") || tr_is(t, prev, "}") || (tr_is(t, prev, "(") && tr_is(t, tr_prev(t, prev), "for")));
        if (cast || decl) tr_error(t, i, "pointer or reference without an address space");
    }
}
static size_t find(const tr *t, size_t tok, size_t *overloads)
{
    size_t found = SIZE_MAX;
    *overloads = 0;
    for (size_t f = 0; f < t->n_funcs; f++) {
        const tr_tok *k = &t->tok[t->func[f].name];
        if (k->n == t->tok[tok].n && !memcmp(k->s, t->tok[tok].s, k->n)) { found = f; ++*overloads; }
    }
    return found;
}
static bool calls(tr *t, size_t f, unsigned char *state)
{
    state[f] = 1;
    for (size_t i = t->func[f].body; i < t->tok[t->func[f].body].match; i++) {
        if (t->tok[i].kind != 'i' || !(tr_is(t, i + 1, "(") || tr_is(t, i + 1, "<")) || tr_is(t, i - 1, ".")) continue;
        size_t n, g = find(t, i, &n);
        if (g == SIZE_MAX || n != 1) continue;          /* overloads: the name alone does not tell */
        if (t->func[g].kernel) { tr_error(t, i, "a kernel is called"); return false; }
        if (state[g] == 1) { tr_error(t, i, "recursion: '%.*s'", (int)t->tok[i].n, t->tok[i].s); return false; }
        if (state[g] == 0 && !calls(t, g, state)) return false;
    }
    state[f] = 2;
    return true;
}
static const char *const attributes[] = { "buffer", "threadgroup", "function_constant", "host_name", "kernel", "max_total_threads_per_threadgroup",
    "threadgroup_position_in_grid", "thread_position_in_threadgroup", "threads_per_threadgroup", "dispatch_threads_per_threadgroup",
    "threadgroups_per_grid", "thread_position_in_grid", "threads_per_grid", "thread_index_in_threadgroup", "thread_index_in_simdgroup",
    "simdgroup_index_in_threadgroup", "simdgroups_per_threadgroup", "dispatch_simdgroups_per_threadgroup", "threads_per_simdgroup", "thread_execution_width",
    NULL };
/* Whether the structure of that name has a member that points. */
static bool points(const tr *t, size_t name)
{
    for (size_t i = 0; i + 2 < t->n; i++) {
        if (!tr_is(t, i, "struct") || !tr_is(t, i + 2, "{") || t->tok[i + 1].n != t->tok[name].n || strncmp(t->tok[i + 1].s, t->tok[name].s, t->tok[name].n)) continue;
        for (size_t k = i + 3; k < t->tok[i + 2].match; k++) if (tr_is(t, k, "*") && type_name(t, tr_prev(t, k))) return true;
    }
    return false;
}
/* A structure with pointers behind a [[buffer]] is an argument buffer: the host would have to encode addresses. */
static void argument_buffers(tr *t, const tr_func *f)
{
    for (size_t i = f->open + 1, end = t->tok[f->open].match; i < end; i++) {
        if (t->tok[i].kind != 'i' || !tr_has(&t->structs, &t->tok[i]) || !points(t, i)) continue;
        for (size_t k = i; k < end && !tr_is(t, k, ","); k++)
            if (tr_is(t, k, "[") && tr_is(t, k + 1, "[") && tr_is(t, k + 2, "buffer")) { tr_error(t, i, "a structure with pointers in a buffer: argument buffers are not modelled"); break; }
    }
}
/* The pragmas that decide how sums are rounded. Metal's compile options have no switch for contraction: only a pragma in front of all
 * functions forbids it, which clang does not know, so that no number here tells when it is lost. */
static void pragma(tr *t, size_t i, bool *off)
{
    char text[200];
    size_t n = 0;
    for (size_t k = 0; k < t->tok[i].n && n + 1 < sizeof text; k++) if (!isspace((unsigned char)t->tok[i].s[k])) text[n++] = t->tok[i].s[k];
    text[n] = 0;
    if (!strncmp(text, "#pragmaclangfp", 14) || !strncmp(text, "#pragmaSTDCFP_CONTRACT", 22)) { tr_error(t, i, "'%.*s': in MSL it is #pragma METAL fp", (int)t->tok[i].n, t->tok[i].s); return; }
    if (strncmp(text, "#pragmaMETALfp", 14)) return;
    if (!strcmp(text + 14, "contract(off)")) *off = true;
    else if (strcmp(text + 14, "math_mode(safe)"))
        tr_error(t, i, "'%.*s': of #pragma METAL fp only contract(off) and math_mode(safe) are taken", (int)t->tok[i].n, t->tok[i].s);
}
static void pragmas(tr *t)
{
    const size_t first = t->n_funcs ? t->func[0].start : 0;
    bool off = false, late = false;
    for (size_t i = 0; i < t->n; i++) if (t->tok[i].kind == 'D') pragma(t, i, i < first ? &off : &late);
    if (t->n_funcs && !off) tr_error(t, first, "no #pragma METAL fp contract(off) in front of the first function: products and sums may be fused");
}
void tr_lint(tr *t)
{
    pragmas(t);
    for (size_t i = 0; i < t->n; i++) {
        if (t->tok[i].kind == 'i') {
            for (int b = 0; banned[b].word; b++)
                if (tr_is(t, i, banned[b].word) && (strcmp(banned[b].word, "fast") || tr_is(t, i + 1, "::")) &&
                    (strncmp(banned[b].why, "MSL has no e", 12) || tr_is(t, i + 1, "(")))
                    tr_error(t, i, "'%s': %s", banned[b].word, banned[b].why);
            if (tr_is(t, i, "long") && (tr_is(t, i + 1, "long") || tr_is(t, i + 1, "double"))) tr_error(t, i, "'long %s' is not in MSL", tr_is(t, i + 1, "long") ? "long" : "double");
            if (tr_is(t, i, "__attribute__") && !(tr_is(t, i + 3, "always_inline") || tr_is(t, i + 3, "__always_inline__") || tr_is(t, i + 3, "noinline") || tr_is(t, i + 3, "packed") || tr_is(t, i + 3, "aligned")))
                tr_error(t, i, "__attribute__ other than always_inline, noinline, packed, aligned");
        }
        if (tr_is(t, i, "[") && tr_is(t, i + 1, "[") && t->tok[i].match < t->n && t->tok[i + 1].match + 1 == t->tok[i].match) {
            bool first = true;
            for (size_t k = i + 2; k < t->tok[i + 1].match; k++) {
                if (tr_is(t, k, "(")) { k = t->tok[k].match; continue; }
                if (tr_is(t, k, ",")) { first = true; continue; }
                if (first && tr_is(t, k, "id")) tr_error(t, k, "[[id]]: argument buffers are not modelled");
                else if (first && !tr_in(t, k, attributes)) tr_error(t, k, "attribute '%.*s' is not known", (int)t->tok[k].n, t->tok[k].s);
                first = false;
            }
        } else if (tr_is(t, i, "[") && t->tok[i].match < t->n) {
            const size_t close = t->tok[i].match, p = tr_prev(t, i);
            if ((tr_is(t, i + 1, "&") || tr_is(t, i + 1, "=") || close == i + 1) && (tr_is(t, close + 1, "(") || tr_is(t, close + 1, "{")) && p != SIZE_MAX && t->tok[p].kind != 'i' && !tr_is(t, p, "]") && !tr_is(t, p, ")"))
                tr_error(t, i, "a lambda: Metal before 3.2 has none");
        }
    }
    for (size_t i = 0; i + 3 < t->n; i++)
        if ((tr_is(t, i, "struct") || tr_is(t, i, "class")) && tr_is(t, i + 2, ":")) tr_error(t, i, "a derived class");
    unsigned char *state = calloc(t->n_funcs + 1, 1);
    if (!state) abort();
    for (size_t f = 0; f < t->n_funcs; f++) {
        if (tr_is(t, t->func[f].name, "main")) tr_error(t, t->func[f].name, "a function is not to be named main");
        parameters(t, &t->func[f]);
        pointers(t, &t->func[f]);
        argument_buffers(t, &t->func[f]);
        if (state[f] == 0) calls(t, f, state);
        for (size_t i = t->func[f].body; i < t->tok[t->func[f].body].match; i++)
            if (tr_is(t, i, "static") && !tr_is(t, i + 1, "constexpr") && !tr_is(t, i + 1, "constant") && !tr_is(t, i + 1, "const"))
                tr_error(t, i, "a static variable in a function");
    }
    free(state);
}
