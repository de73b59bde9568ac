/*
 * pickle.c - a reader of Python pickles that runs nothing: a pickle is a program for a small stack machine, and of its
 * instructions those are known that build plain values; of what it may call, torch's tensors and storages and OrderedDict,
 * all made here. Anything else ends the reading, by its name. Values are numbers into one list, and nobody follows them by
 * recursion, so that a list that holds itself harms nobody.
 */
#include "format/internal.h"

#define MAX_VALUES (1u << 21)  /* of one pickle; a checkpoint with its optimizer has about 40 for each tensor */
#define MAX_MARKS 256u         /* containers that are being built at once */
#define MAX_PICKLE ((size_t)256 << 20)

enum { CALL_DICT, CALL_REBUILD, CALL_REBUILD_V2, CALL_PARAMETER, CALL_STORAGE }; /* storages: CALL_STORAGE + sill__type */

static const struct { const char *module, *name; int call; } allowed[] = {
    {"collections", "OrderedDict", CALL_DICT},
    {"torch._utils", "_rebuild_tensor", CALL_REBUILD},
    {"torch._utils", "_rebuild_tensor_v2", CALL_REBUILD_V2},
    {"torch._utils", "_rebuild_parameter", CALL_PARAMETER},
    {"torch", "FloatStorage", CALL_STORAGE + SILL__TYPE_F32},
    {"torch", "HalfStorage", CALL_STORAGE + SILL__TYPE_F16},
    {"torch", "BFloat16Storage", CALL_STORAGE + SILL__TYPE_BF16},
    {"torch", "DoubleStorage", CALL_STORAGE + SILL__TYPE_F64},
    {"torch", "LongStorage", CALL_STORAGE + SILL__TYPE_I64},
    {"torch", "IntStorage", CALL_STORAGE + SILL__TYPE_I32},
    {"torch", "ShortStorage", CALL_STORAGE + SILL__TYPE_I16},
    {"torch", "CharStorage", CALL_STORAGE + SILL__TYPE_I8},
    {"torch", "ByteStorage", CALL_STORAGE + SILL__TYPE_U8},
    {"torch", "BoolStorage", CALL_STORAGE + SILL__TYPE_BOOL},
};

typedef struct list { uint32_t *p; size_t n, cap; } list;

typedef struct machine {
    sill__pickle *k;
    const uint8_t *p, *start, *end;
    const char *path;
    list stack, memo;          /* memo: number + 1; 0: nothing */
    uint32_t marks[MAX_MARKS]; /* heights of the stack */
    uint32_t n_marks;
    size_t n_items;            /* of all containers: one that is remembered could be copied again and again */
    sill_error *err;
    sill_status status;
} machine;

/* ---- errors and memory */

static bool damaged(machine *m, const char *what) {
    if (m->status == SILL_OK)
        m->status = sill__fail(m->err, SILL_EFORMAT, "%s: at byte %zu of the pickle: %s; the file is damaged (fetch it again)", m->path,
                               (size_t)(m->p - m->start), what);
    return false;
}

static bool refused(machine *m, const char *what, const char *name, size_t n) {
    if (m->status == SILL_OK)
        m->status = sill__fail(m->err, SILL_EUNSUPPORTED, "%s: the pickle %s %s, which is not among what a checkpoint of weights needs "
                               "(tensors, storages, OrderedDict): nothing in it is run. Save the weights alone, with safetensors or "
                               "torch.save(model.state_dict(), ...)", m->path, what, sill__show(name, n).text);
    return false;
}

static bool no_memory(machine *m) {
    if (m->status == SILL_OK) m->status = sill__fail(m->err, SILL_ENOMEM, "%s: no memory for the pickle's values", m->path);
    return false;
}

static bool put(machine *m, list *l, uint32_t v) {
    if (l->n >= 2 * MAX_VALUES) return damaged(m, "more than the limit of 4194304 values at once");
    if (l->n == l->cap) {
        size_t cap = l->cap ? 2 * l->cap : 256;
        uint32_t *p = sill__realloc(l->p, cap * sizeof *p);
        if (!p) return no_memory(m);
        l->p = p;
        l->cap = cap;
    }
    l->p[l->n++] = v;
    return true;
}

/* A new value on the stack; its place moves with the next one. */
static sill__py *push(machine *m, sill__py_kind kind) {
    sill__pickle *k = m->k;
    if (k->n == MAX_VALUES) {
        damaged(m, "more than the limit of 2097152 values");
        return NULL;
    }
    if (k->n == k->cap) {
        size_t cap = k->cap ? 2 * k->cap : 256;
        sill__py *p = sill__realloc(k->values, cap * sizeof *p);
        if (!p) {
            no_memory(m);
            return NULL;
        }
        k->values = p;
        k->cap = cap;
    }
    if (!put(m, &m->stack, (uint32_t)k->n)) return NULL;
    sill__py *v = &k->values[k->n++];
    memset(v, 0, sizeof *v);
    v->kind = kind;
    return v;
}

/* How many values lie above the last mark. */
static size_t above_mark(const machine *m) { return m->stack.n - (m->n_marks ? m->marks[m->n_marks - 1] : 0); }

static bool pop(machine *m, uint32_t *v) {
    if (above_mark(m) == 0) return damaged(m, "nothing on the stack");
    *v = m->stack.p[--m->stack.n];
    return true;
}

/* The value on top, of this kind. */
static sill__py *top(machine *m, sill__py_kind kind, const char *what) {
    if (above_mark(m) == 0 || m->k->values[m->stack.p[m->stack.n - 1]].kind != kind) {
        damaged(m, what);
        return NULL;
    }
    return &m->k->values[m->stack.p[m->stack.n - 1]];
}

/* Appends N values from FROM to the container V. */
static bool append(machine *m, sill__py *v, const uint32_t *from, size_t n) {
    size_t need = v->n + n;
    if (n == 0) return true;
    if ((m->n_items += n) > 4 * (size_t)MAX_VALUES) return damaged(m, "more than the limit of 8388608 items");
    if (need > v->cap) {
        size_t cap = SILL_MAX(need, 2 * (size_t)v->cap);
        uint32_t *p = cap <= UINT32_MAX ? sill__realloc(v->u.items, cap * sizeof *p) : NULL;
        if (!p) return no_memory(m);
        v->u.items = p;
        v->cap = (uint32_t)cap;
    }
    memcpy(v->u.items + v->n, from, n * sizeof *from);
    v->n = (uint32_t)need;
    return true;
}

/* ---- arguments of instructions */

static bool take(machine *m, size_t n, const uint8_t **p) {
    if ((size_t)(m->end - m->p) < n) return damaged(m, "an instruction that the pickle ends in");
    *p = m->p;
    m->p += n;
    return true;
}

/* A number of N bytes, little endian. */
static bool number(machine *m, int n, uint64_t *out) {
    const uint8_t *p;
    if (!take(m, (size_t)n, &p)) return false;
    *out = 0;
    for (int i = 0; i < n; i++) *out |= (uint64_t)p[i] << 8 * i;
    return true;
}

static bool push_int(machine *m, int64_t i) {
    sill__py *v = push(m, SILL__PY_INT);
    if (v) v->u.i = i;
    return v != NULL;
}

static bool push_text(machine *m, int length_bytes) {
    uint64_t n;
    const uint8_t *p;
    if (!number(m, length_bytes, &n) || (n > UINT32_MAX && !damaged(m, "a text that is too long")) || !take(m, (size_t)n, &p)) return false;
    sill__py *v = push(m, SILL__PY_TEXT);
    if (!v) return false;
    v->u.text = (const char *)p;
    v->n = (uint32_t)n;
    return true;
}

/* LONG1, LONG4: two's complement of any length. Beyond 64 bits only torch's magic number is met: its lowest 64 bits. */
static bool push_long(machine *m, int length_bytes) {
    uint64_t n, v = 0;
    const uint8_t *p;
    if (!number(m, length_bytes, &n) || !take(m, (size_t)n, &p)) return false;
    for (size_t i = 0; i < n && i < 8; i++) v |= (uint64_t)p[i] << 8 * i;
    if (n > 0 && n < 8 && p[n - 1] & 0x80) v |= UINT64_MAX << 8 * n;
    return push_int(m, (int64_t)v);
}

static bool push_float(machine *m) {
    const uint8_t *p;
    uint64_t bits = 0;
    if (!take(m, 8, &p)) return false;
    for (int i = 0; i < 8; i++) bits = bits << 8 | p[i];
    sill__py *v = push(m, SILL__PY_FLOAT);
    if (v) memcpy(&v->u.f, &bits, 8);
    return v != NULL;
}

/* ---- containers */

/* The N values on top as one tuple. */
static bool tuple(machine *m, size_t n) {
    if (above_mark(m) < n) return damaged(m, "a tuple of more than there is");
    size_t at = m->stack.n - n;
    sill__py *v = push(m, SILL__PY_TUPLE);
    if (!v || !append(m, v, m->stack.p + at, n)) return false;
    m->stack.p[at] = m->stack.p[m->stack.n - 1];
    m->stack.n = at + 1;
    return true;
}

static bool mark(machine *m) {
    if (m->n_marks == MAX_MARKS) return damaged(m, "more than 256 containers in each other");
    m->marks[m->n_marks++] = (uint32_t)m->stack.n;
    return true;
}

/* Takes the last mark away: *n values lie above it. */
static bool unmark(machine *m, size_t *n) {
    if (m->n_marks == 0) return damaged(m, "no mark on the stack");
    *n = m->stack.n - m->marks[--m->n_marks];
    return true;
}

/* The N values on top go into the container below them. */
static bool fill(machine *m, size_t n, sill__py_kind kind) {
    if (above_mark(m) < n + 1) return damaged(m, "nothing to put values into");
    const uint32_t *items = m->stack.p + m->stack.n - n;
    sill__py *v = &m->k->values[items[-1]];
    if (v->kind != kind) return damaged(m, kind == SILL__PY_DICT ? "keys for what is no dictionary" : "items for what is no list");
    if (kind == SILL__PY_DICT && n % 2) return damaged(m, "a key without a value");
    if (!append(m, v, items, n)) return false;
    m->stack.n -= n;
    return true;
}

/* ---- what may be called */

static bool push_callable(machine *m, const char *module, size_t n_module, const char *name, size_t n_name) {
    char full[160];
    for (size_t i = 0; i < SILL_ARRAY_LEN(allowed); i++)
        if (strlen(allowed[i].module) == n_module && !memcmp(allowed[i].module, module, n_module) &&
            strlen(allowed[i].name) == n_name && !memcmp(allowed[i].name, name, n_name)) {
            sill__py *v = push(m, SILL__PY_CALLABLE);
            if (v) v->u.i = allowed[i].call;
            return v != NULL;
        }
    size_t a = SILL_MIN(n_module, (size_t)79), b = SILL_MIN(n_name, (size_t)79);
    memcpy(full, module, a);
    full[a] = '.';
    memcpy(full + a + 1, name, b);
    return refused(m, "asks for", full, a + 1 + b);
}

/* GLOBAL: two lines. */
static bool global(machine *m) {
    const char *lines[2];
    size_t n[2];
    for (int i = 0; i < 2; i++) {
        const uint8_t *stop = memchr(m->p, '\n', (size_t)(m->end - m->p));
        if (!stop) return damaged(m, "a name without its end");
        lines[i] = (const char *)m->p;
        n[i] = (size_t)(stop - m->p);
        m->p = stop + 1;
    }
    return push_callable(m, lines[0], n[0], lines[1], n[1]);
}

static bool stack_global(machine *m) {
    uint32_t name, module;
    if (!pop(m, &name) || !pop(m, &module)) return false;
    const sill__py *a = &m->k->values[module], *b = &m->k->values[name];
    if (a->kind != SILL__PY_TEXT || b->kind != SILL__PY_TEXT) return damaged(m, "a name that is no text");
    return push_callable(m, a->u.text, a->n, b->u.text, b->n);
}

/* The numbers of a tuple, none negative. */
static bool sizes(machine *m, const sill__py *v, int64_t out[SILL__PY_DIMS], int *n) {
    if (v->kind != SILL__PY_TUPLE) return damaged(m, "the shape of a tensor is no tuple");
    if (v->n > SILL__PY_DIMS) return damaged(m, "a tensor of more than 8 dimensions");
    for (uint32_t i = 0; i < v->n; i++) {
        const sill__py *x = &m->k->values[v->u.items[i]];
        if (x->kind != SILL__PY_INT || x->u.i < 0) return damaged(m, "a dimension or stride of a tensor is no number from 0 up");
        out[i] = x->u.i;
    }
    *n = (int)v->n;
    return true;
}

/* _rebuild_tensor(storage, offset, size, stride), _rebuild_tensor_v2(the same, requires_grad, backward_hooks, ...) */
static bool rebuild(machine *m, const sill__py *args, bool v2) {
    if (args->n < (v2 ? 6u : 4u) || args->n > (v2 ? 7u : 4u)) return damaged(m, "a tensor of another number of parts");
    const sill__py *storage = &m->k->values[args->u.items[0]], *offset = &m->k->values[args->u.items[1]];
    int n_strides;
    sill__py_tensor *t = sill__arena_alloc(&m->k->tensors, sizeof *t);
    if (!t) return no_memory(m);
    t->storage = args->u.items[0];
    if (storage->kind != SILL__PY_STORAGE) return damaged(m, "a tensor without a storage");
    if (offset->kind != SILL__PY_INT || offset->u.i < 0) return damaged(m, "the place of a tensor is no number from 0 up");
    t->offset = offset->u.i;
    if (!sizes(m, &m->k->values[args->u.items[2]], t->dims, &t->n_dims) ||
        !sizes(m, &m->k->values[args->u.items[3]], t->strides, &n_strides))
        return false;
    if (n_strides != t->n_dims) return damaged(m, "a tensor with another number of strides than dimensions");
    sill__py *v = push(m, SILL__PY_TENSOR);
    if (v) v->u.tensor = t;
    return v != NULL;
}

/* OrderedDict(), or of Python 2: OrderedDict([[key, value], ...]). */
static bool ordered_dict(machine *m, const sill__py *args) {
    if (args->n > 1) return damaged(m, "an OrderedDict of two things");
    uint32_t pairs = args->n ? args->u.items[0] : 0;
    bool some = args->n == 1;
    sill__py *v = push(m, SILL__PY_DICT);
    if (!v) return false;
    const sill__py *from = some ? &m->k->values[pairs] : NULL;
    if (some && from->kind != SILL__PY_LIST && from->kind != SILL__PY_TUPLE) return damaged(m, "an OrderedDict of what is no list");
    for (uint32_t i = 0; some && i < from->n; i++) {
        const sill__py *pair = &m->k->values[from->u.items[i]];
        if ((pair->kind != SILL__PY_LIST && pair->kind != SILL__PY_TUPLE) || pair->n != 2) return damaged(m, "an OrderedDict of what are no pairs");
        if (!append(m, v, pair->u.items, 2)) return false;
    }
    return true;
}

static bool reduce(machine *m) {
    uint32_t args, callable;
    if (!pop(m, &args) || !pop(m, &callable)) return false;
    const sill__py *a = &m->k->values[args], *c = &m->k->values[callable];
    if (c->kind != SILL__PY_CALLABLE || a->kind != SILL__PY_TUPLE) return damaged(m, "a call of what is no function");
    if (c->u.i == CALL_DICT) return ordered_dict(m, a);
    if (c->u.i == CALL_REBUILD || c->u.i == CALL_REBUILD_V2) return rebuild(m, a, c->u.i == CALL_REBUILD_V2);
    if (c->u.i >= CALL_STORAGE) return refused(m, "makes", "a storage by itself", 19);
    if (a->n != 3 || m->k->values[a->u.items[0]].kind != SILL__PY_TENSOR) return damaged(m, "a parameter without a tensor");
    return put(m, &m->stack, a->u.items[0]);
}

/* ('storage', type, key, where it was, elements[, view]) */
static bool persistent(machine *m) {
    uint32_t id;
    if (!pop(m, &id)) return false;
    const sill__py *t = &m->k->values[id], *x[6] = {NULL};
    if (t->kind != SILL__PY_TUPLE || t->n < 5 || t->n > 6) return damaged(m, "a storage of another number of parts");
    for (uint32_t i = 0; i < t->n; i++) x[i] = &m->k->values[t->u.items[i]];
    if (x[0]->kind != SILL__PY_TEXT || x[0]->n != 7 || memcmp(x[0]->u.text, "storage", 7))
        return x[0]->kind == SILL__PY_TEXT ? refused(m, "keeps beside itself", x[0]->u.text, x[0]->n) : damaged(m, "a storage without its name");
    if (x[1]->kind != SILL__PY_CALLABLE || x[1]->u.i < CALL_STORAGE || x[2]->kind != SILL__PY_TEXT || x[4]->kind != SILL__PY_INT ||
        x[4]->u.i < 0)
        return damaged(m, "a storage without type, key or size");
    if (x[5] && x[5]->kind != SILL__PY_NONE) return refused(m, "holds", "a view of a storage, as torch before 0.4 wrote them", 51);
    const uint32_t key = t->u.items[2];
    const int64_t call = x[1]->u.i, n = x[4]->u.i;
    sill__py *v = push(m, SILL__PY_STORAGE);
    if (!v) return false;
    v->u.storage.key = key;
    v->u.storage.type = (sill__type)(call - CALL_STORAGE);
    v->n64 = (uint64_t)n;
    return true;
}

/* The state of an OrderedDict is its _metadata: passed over. Nothing else that is read has a state. */
static bool build(machine *m) {
    uint32_t state;
    return pop(m, &state) && (top(m, SILL__PY_DICT, "a state for what has none") != NULL);
}

/* ---- the memo */

static bool memo_put(machine *m, uint64_t at) {
    if (at >= MAX_VALUES) return damaged(m, "a memo beyond the limit of 2097152 values");
    if (above_mark(m) == 0) return damaged(m, "nothing to remember");
    while (m->memo.n <= at)
        if (!put(m, &m->memo, 0)) return false;
    m->memo.p[at] = m->stack.p[m->stack.n - 1] + 1;
    return true;
}

static bool memo_get(machine *m, uint64_t at) {
    if (at >= m->memo.n || m->memo.p[at] == 0) return damaged(m, "a value that was not remembered");
    return put(m, &m->stack, m->memo.p[at] - 1);
}

/* ---- the instructions */

static bool push_plain(machine *m, sill__py_kind kind, int64_t i) {
    sill__py *v = push(m, kind);
    if (v && kind == SILL__PY_BOOL) v->u.i = i;
    return v != NULL;
}

static bool step(machine *m, uint8_t op) {
    uint64_t n = 0;
    size_t k;
    uint32_t v;
    const uint8_t *p;
    switch (op) {
    case 0x80: /* PROTO */
        return number(m, 1, &n) && ((n >= 2 && n <= 5) || damaged(m, "a protocol other than 2 to 5"));
    case 0x95: return take(m, 8, &p); /* FRAME */
    case '}': return push_plain(m, SILL__PY_DICT, 0);
    case ']': return push_plain(m, SILL__PY_LIST, 0);
    case ')': return tuple(m, 0);
    case 0x85: case 0x86: case 0x87: return tuple(m, op - 0x84u);
    case '(': return mark(m);
    case 't': return unmark(m, &k) && tuple(m, k);
    case 'a': return fill(m, 1, SILL__PY_LIST);
    case 'e': return unmark(m, &k) && fill(m, k, SILL__PY_LIST);
    case 's': return fill(m, 2, SILL__PY_DICT);
    case 'u': return unmark(m, &k) && fill(m, k, SILL__PY_DICT);
    case 'N': return push_plain(m, SILL__PY_NONE, 0);
    case 0x88: case 0x89: return push_plain(m, SILL__PY_BOOL, op == 0x88);
    case 'K': return number(m, 1, &n) && push_int(m, (int64_t)n);
    case 'M': return number(m, 2, &n) && push_int(m, (int64_t)n);
    case 'J': return number(m, 4, &n) && push_int(m, (int32_t)(uint32_t)n);
    case 0x8a: return push_long(m, 1);
    case 0x8b: return push_long(m, 4);
    case 'G': return push_float(m);
    case 'X': case 'T': case 'B': return push_text(m, 4);
    case 0x8c: case 'U': case 'C': return push_text(m, 1);
    case 0x8d: return push_text(m, 8);
    case 'q': return number(m, 1, &n) && memo_put(m, n);
    case 'r': return number(m, 4, &n) && memo_put(m, n);
    case 0x94: return memo_put(m, m->memo.n);
    case 'h': return number(m, 1, &n) && memo_get(m, n);
    case 'j': return number(m, 4, &n) && memo_get(m, n);
    case 'c': return global(m);
    case 0x93: return stack_global(m);
    case 'R': return reduce(m);
    case 'Q': return persistent(m);
    case 'b': return build(m);
    case '0': return pop(m, &v);
    default: break;
    }
    char name[] = "instruction 0x00";
    name[14] = "0123456789abcdef"[op >> 4];
    name[15] = "0123456789abcdef"[op & 15];
    return refused(m, "has the", name, sizeof name - 1);
}

sill_status sill__pickle_read(sill__pickle *k, const uint8_t *p, size_t n, const char *path, size_t *used, sill_error *err) {
    machine m = {.k = k, .p = p, .start = p, .end = p + SILL_MIN(n, MAX_PICKLE), .path = path, .err = err};
    bool done = false;
    memset(k, 0, sizeof *k);
    while (!done && m.status == SILL_OK) {
        if (m.p == m.end) damaged(&m, n > MAX_PICKLE ? "no end within the limit of 256 MiB" : "no end");
        else if (*m.p == '.') done = true;
        else if (m.p++, !step(&m, m.p[-1]) && m.status == SILL_OK) damaged(&m, "an instruction that cannot be");
    }
    if (m.status == SILL_OK && (m.n_marks || m.stack.n != 1)) damaged(&m, "it does not end with one value");
    if (m.status == SILL_OK) {
        k->top = m.stack.p[0];
        *used = (size_t)(m.p + 1 - m.start);
    }
    sill__free(m.stack.p);
    sill__free(m.memo.p);
    return m.status;
}

void sill__pickle_free(sill__pickle *k) {
    for (size_t i = 0; i < k->n; i++) {
        sill__py *v = &k->values[i];
        if (v->kind == SILL__PY_TUPLE || v->kind == SILL__PY_LIST || v->kind == SILL__PY_DICT) sill__free(v->u.items);
    }
    sill__free(k->values);
    sill__arena_free(&k->tensors);
    memset(k, 0, sizeof *k);
}

const sill__py *sill__py_get(const sill__pickle *k, const sill__py *v, const char *key) {
    if (!v || v->kind != SILL__PY_DICT) return NULL;
    for (uint32_t i = v->n; i >= 2; i -= 2) {
        const sill__py *name = &k->values[v->u.items[i - 2]];
        if (name->kind == SILL__PY_TEXT && name->n == strlen(key) && !memcmp(name->u.text, key, name->n)) return &k->values[v->u.items[i - 1]];
    }
    return NULL;
}
