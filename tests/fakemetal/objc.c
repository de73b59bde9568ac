/* The Objective-C runtime, as far as a Metal host needs it: objc_msgSend looks the method up and jumps to it with every argument
 * register and the stack untouched, so a method is a C function with the real signature, structures by value included. Objects
 * that were freed stay as tombs: a message to one is found out. */
#include "fake.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static pthread_mutex_t lock;
__attribute__((constructor)) static void begin(void)
{
    pthread_mutexattr_t a;
    pthread_mutexattr_init(&a);
    pthread_mutexattr_settype(&a, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&lock, &a);
    fake_settings_load();
}
static uint64_t live, unpooled;
static const char *born[64];            /* names of classes with living objects, for the report at the end */
static long born_n[64];
static fake_class dead_class = { .name = "freed object" };
static __thread struct { id *o; size_t n, cap; int depth; } pool;

static void count(const fake_class *c, long by)
{
    for (int i = 0; i < 64; i++) {
        if (!born[i]) born[i] = c->name;
        if (born[i] == c->name) { born_n[i] += by; return; }
    }
}
static void prepare(fake_class *c);
id fake_new(fake_class *c, size_t size)
{
    id o = calloc(1, size);
    if (!o) fake_die("out of memory");
    o->isa = o->was = c;
    o->rc = 1;
    pthread_mutex_lock(&lock);
    prepare(c);
    live++;
    count(c, 1);
    pthread_mutex_unlock(&lock);
    return o;
}
static bool is_class(id o) { return ((fake_class *)(void *)o)->self == (fake_class *)(void *)o; }
static void check(id o, const char *what)
{
    if (o && o->isa == &dead_class) fake_die("%s: message to a freed %s", what, o->was->name);
}
id fake_retain(id o)
{
    if (!o || is_class(o)) return o;
    check(o, "retain");
    __atomic_add_fetch(&o->rc, 1, __ATOMIC_RELAXED);
    return o;
}
void fake_release(id o)
{
    if (!o || is_class(o)) return;
    check(o, "release");
    if (__atomic_sub_fetch(&o->rc, 1, __ATOMIC_ACQ_REL) > 0) return;
    if (o->isa->dealloc) o->isa->dealloc(o);
    pthread_mutex_lock(&lock);
    live--;
    count(o->isa, -1);
    o->isa = &dead_class;               /* never given back: use after free is seen */
    pthread_mutex_unlock(&lock);
}
id fake_autorelease(id o)
{
    if (!o || is_class(o)) return o;
    check(o, "autorelease");
    if (!pool.depth) {
        __atomic_add_fetch(&unpooled, 1, __ATOMIC_RELAXED);
        if (getenv("FAKEMETAL_UNPOOLED_STOPS")) fake_die("%s autoreleased without a pool", o->isa->name);
        return o;
    }
    if (pool.n == pool.cap) {
        pool.cap = pool.cap ? pool.cap * 2 : 256;
        pool.o = realloc(pool.o, pool.cap * sizeof *pool.o);
        if (!pool.o) fake_die("out of memory");
    }
    pool.o[pool.n++] = o;
    return o;
}
bool fake_is(id o, const fake_class *c) { return o && o->isa == c; }
EXPORT void *objc_autoreleasePoolPush(void) { pool.depth++; return (void *)(uintptr_t)(pool.n << 8 | (unsigned)(pool.depth & 255)); }
EXPORT void objc_autoreleasePoolPop(void *token)
{
    const size_t to = (uintptr_t)token >> 8;
    if (pool.depth == 0) fake_die("objc_autoreleasePoolPop without a pool on this thread");
    if (((uintptr_t)token & 255) != (unsigned)(pool.depth & 255)) fake_die("objc_autoreleasePoolPop of a pool that is not the innermost one");
    while (pool.n > to) fake_release(pool.o[--pool.n]);
    pool.depth--;
}
void fake_pool_enter(void **token) { *token = objc_autoreleasePoolPush(); }
void fake_pool_leave(void *token) { objc_autoreleasePoolPop(token); }
EXPORT id objc_retain(id o) { return fake_retain(o); }
EXPORT void objc_release(id o) { fake_release(o); }
EXPORT id objc_autorelease(id o) { return fake_autorelease(o); }
EXPORT id objc_retainAutoreleasedReturnValue(id o) { return fake_retain(o); }

/* ---- selectors and classes */
static const char **sels;
static size_t n_sels, sels_cap;
static uint32_t sel_hash(const char *s) { uint32_t h = 2166136261u; for (; *s; s++) h = (h ^ (unsigned char)*s) * 16777619u; return h; }
EXPORT SEL sel_registerName(const char *name)
{
    pthread_mutex_lock(&lock);
    if (n_sels * 2 >= sels_cap) {
        size_t cap = sels_cap ? sels_cap * 2 : 512;
        const char **t = calloc(cap, sizeof *t);
        if (!t) fake_die("out of memory");
        for (size_t i = 0; i < sels_cap; i++)
            if (sels[i]) { size_t k = sel_hash(sels[i]) & (cap - 1); while (t[k]) k = (k + 1) & (cap - 1); t[k] = sels[i]; }
        free(sels);
        sels = t;
        sels_cap = cap;
    }
    size_t k = sel_hash(name) & (sels_cap - 1);
    while (sels[k] && strcmp(sels[k], name)) k = (k + 1) & (sels_cap - 1);
    if (!sels[k]) { sels[k] = strdup(name); n_sels++; }
    SEL r = sels[k];
    pthread_mutex_unlock(&lock);
    return r;
}
EXPORT const char *sel_getName(SEL s) { return s; }
static fake_class *classes[64];
static size_t n_classes;
static void prepare(fake_class *c)
{
    if (c->ready) return;
    c->self = c;
    c->isa_slot = c;
    for (size_t i = 0; i < c->n_methods && i < sizeof c->sel / sizeof *c->sel; i++) c->sel[i] = sel_registerName(c->methods[i].sel + 1);
    if (c->n_methods > sizeof c->sel / sizeof *c->sel) fake_die("class %s has too many methods", c->name);
    c->ready = true;
}
void fake_class_add(fake_class *c)
{
    pthread_mutex_lock(&lock);
    prepare(c);
    classes[n_classes++] = c;
    pthread_mutex_unlock(&lock);
}
void fake_metal_classes(void);
static void foundation_classes(void);
EXPORT id objc_getClass(const char *name)
{
    id r = NULL;
    pthread_mutex_lock(&lock);
    if (!n_classes) { foundation_classes(); fake_metal_classes(); }
    for (size_t i = 0; i < n_classes; i++) if (!strcmp(classes[i]->name, name) && classes[i]->since <= fake_set.os) r = (id)(void *)classes[i];
    pthread_mutex_unlock(&lock);
    return r;
}
EXPORT id objc_lookUpClass(const char *name) { return objc_getClass(name); }
EXPORT id object_getClass(id o) { return o ? is_class(o) ? o : (id)(void *)o->isa : NULL; }
EXPORT const char *class_getName(id c) { return c ? ((fake_class *)(void *)c)->name : "nil"; }
EXPORT const char *object_getClassName(id o) { return o ? (is_class(o) ? (fake_class *)(void *)o : o->isa)->name : "nil"; }

/* ---- what every object answers */
static id m_retain(id o, SEL s) { (void)s; return fake_retain(o); }
static void m_release(id o, SEL s) { (void)s; fake_release(o); }
static id m_autorelease(id o, SEL s) { (void)s; return fake_autorelease(o); }
static NSUInteger m_count(id o, SEL s) { (void)s; return (NSUInteger)o->rc; }
static id m_class(id o, SEL s) { (void)s; return object_getClass(o); }
static id m_init(id o, SEL s) { (void)s; return o; }
static id m_alloc(id o, SEL s)
{
    (void)s;
    fake_class *c = (fake_class *)(void *)o;
    if (!c->size) fake_die("+[%s alloc]: such objects come from Metal", c->name);
    return fake_new(c, c->size);
}
static id m_description(id o, SEL s) { (void)s; char t[120]; snprintf(t, sizeof t, "<%s: %p>", object_getClassName(o), (void *)o); return fake_string(t); }
static OBJCBOOL m_equal(id o, SEL s, id p) { (void)s; return o == p; }
static OBJCBOOL m_kind(id o, SEL s, id c) { (void)s; return object_getClass(o) == c; }
static OBJCBOOL m_responds(id o, SEL s, SEL q);
static const struct { const char *name; IMP imp; char of; } root[] = {
#define R(n, f, of) { n, (IMP)(void (*)(void))f, of }
    R("retain", m_retain, 'b'), R("release", m_release, 'b'), R("autorelease", m_autorelease, 'b'), R("retainCount", m_count, 'o'), R("class", m_class, 'b'),
    R("init", m_init, 'o'), R("alloc", m_alloc, 'c'), R("new", m_alloc, 'c'), R("description", m_description, 'o'), R("debugDescription", m_description, 'o'),
    R("isEqual:", m_equal, 'o'), R("isKindOfClass:", m_kind, 'o'), R("respondsToSelector:", m_responds, 'b') };
static IMP find(id o, SEL sel)
{
    const bool cls = is_class(o);
    fake_class *c = cls ? (fake_class *)(void *)o : o->isa;
    for (size_t i = 0; i < c->n_methods; i++)
        if (c->sel[i] == sel && (c->methods[i].sel[0] == '+') == cls && c->methods[i].since <= fake_set.os) return c->methods[i].imp;
    for (size_t i = 0; i < sizeof root / sizeof *root; i++)
        if (!strcmp(root[i].name, sel) && (root[i].of == 'b' || (root[i].of == 'c') == cls) && !(root[i].of == 'c' && !c->size)) return root[i].imp;
    return NULL;
}
static OBJCBOOL m_responds(id o, SEL s, SEL q) { (void)s; return q && find(o, q) != NULL; }
static uintptr_t m_nil(id o, SEL s) { (void)o; (void)s; return 0; }
IMP fake_lookup(id o, SEL sel);
__attribute__((used, visibility("hidden"))) IMP fake_lookup(id o, SEL sel)
{
    if (!o) return (IMP)(void (*)(void))m_nil;
    if (!sel) fake_die("objc_msgSend without a selector");
    if (o->isa == &dead_class) fake_die("-[%s %s]: message to a freed object", o->was->name, sel);
    IMP i = find(o, sel);
    if (!i) fake_die("%c[%s %s]: unrecognized selector%s", is_class(o) ? '+' : '-', object_getClassName(o), sel, fake_set.os < 15 ? " (of this macOS)" : "");
    return i;
}
#if defined(__x86_64__)
__asm__(".text\n.globl objc_msgSend\n.type objc_msgSend,@function\nobjc_msgSend:\n"
        " push %rdi\n push %rsi\n push %rdx\n push %rcx\n push %r8\n push %r9\n push %rax\n sub $128,%rsp\n"
        " movups %xmm0,(%rsp)\n movups %xmm1,16(%rsp)\n movups %xmm2,32(%rsp)\n movups %xmm3,48(%rsp)\n"
        " movups %xmm4,64(%rsp)\n movups %xmm5,80(%rsp)\n movups %xmm6,96(%rsp)\n movups %xmm7,112(%rsp)\n"
        " call fake_lookup\n mov %rax,%r11\n"
        " movups (%rsp),%xmm0\n movups 16(%rsp),%xmm1\n movups 32(%rsp),%xmm2\n movups 48(%rsp),%xmm3\n"
        " movups 64(%rsp),%xmm4\n movups 80(%rsp),%xmm5\n movups 96(%rsp),%xmm6\n movups 112(%rsp),%xmm7\n"
        " add $128,%rsp\n pop %rax\n pop %r9\n pop %r8\n pop %rcx\n pop %rdx\n pop %rsi\n pop %rdi\n jmp *%r11\n.size objc_msgSend,.-objc_msgSend\n");
#elif defined(__aarch64__)
__asm__(".text\n.globl objc_msgSend\n.type objc_msgSend,%function\nobjc_msgSend:\n"
        " sub sp,sp,#224\n stp x0,x1,[sp]\n stp x2,x3,[sp,#16]\n stp x4,x5,[sp,#32]\n stp x6,x7,[sp,#48]\n stp x8,x30,[sp,#64]\n"
        " stp q0,q1,[sp,#80]\n stp q2,q3,[sp,#112]\n stp q4,q5,[sp,#144]\n stp q6,q7,[sp,#176]\n bl fake_lookup\n mov x16,x0\n"
        " ldp q0,q1,[sp,#80]\n ldp q2,q3,[sp,#112]\n ldp q4,q5,[sp,#144]\n ldp q6,q7,[sp,#176]\n"
        " ldp x0,x1,[sp]\n ldp x2,x3,[sp,#16]\n ldp x4,x5,[sp,#32]\n ldp x6,x7,[sp,#48]\n ldp x8,x30,[sp,#64]\n add sp,sp,#224\n br x16\n.size objc_msgSend,.-objc_msgSend\n");
#endif

/* ---- blocks */
EXPORT void *_NSConcreteStackBlock[32], *_NSConcreteGlobalBlock[32], *_NSConcreteMallocBlock[32];
void *fake_block_copy(const void *b)
{
    const fake_block *s = b;
    if (!s) return NULL;
    if (s->flags & (1 << 28)) return (void *)(uintptr_t)b;         /* BLOCK_IS_GLOBAL */
    if (!s->descriptor || s->descriptor->size < sizeof *s || s->descriptor->size > 4096) fake_die("a block without a sane descriptor");
    fake_block *c = malloc(s->descriptor->size);
    if (!c) fake_die("out of memory");
    memcpy(c, s, s->descriptor->size);
    if (s->flags & (1 << 25)) s->descriptor->copy(c, s);           /* BLOCK_HAS_COPY_DISPOSE */
    c->isa = _NSConcreteMallocBlock;
    return c;
}
void fake_block_release(const void *b)
{
    fake_block *s = (fake_block *)(uintptr_t)b;
    if (!s || (s->flags & (1 << 28))) return;
    if (s->flags & (1 << 25)) s->descriptor->dispose(s);
    free(s);
}
EXPORT void *_Block_copy(const void *b) { return fake_block_copy(b); }
EXPORT void _Block_release(const void *b) { fake_block_release(b); }

/* ---- Foundation */
typedef struct { FAKE_HEAD; char *s; } Str;
static void str_dealloc(id o) { free(((Str *)o)->s); ((Str *)o)->s = NULL; }
static id str_new(const char *p, size_t n)
{
    Str *o = (Str *)fake_new(&fake_NSString, sizeof *o);
    o->s = strndup(p, n);
    return (id)o;
}
static id str_with(id c, SEL s, const char *p) { (void)c; (void)s; if (!p) fake_die("+stringWithUTF8String: NULL"); return fake_autorelease(str_new(p, strlen(p))); }
static id str_init(id o, SEL s, const char *p) { (void)s; if (!p) fake_die("-initWithUTF8String: NULL"); ((Str *)o)->s = strdup(p); return o; }
static id str_init_bytes(id o, SEL s, const char *p, NSUInteger n, NSUInteger enc) { (void)s; if (enc != 4) fake_die("-initWithBytes:length:encoding: encoding %lu", enc); ((Str *)o)->s = strndup(p, n); return o; }
static const char *str_chars(id o, SEL s) { (void)s; return fake_str(o); }
static NSUInteger str_length(id o, SEL s) { (void)s; NSUInteger n = 0; for (const char *p = fake_str(o); *p; p++) n += (*p & 0xc0) != 0x80; return n; }
static NSUInteger str_bytes(id o, SEL s, NSUInteger enc) { (void)s; (void)enc; return strlen(fake_str(o)); }
static OBJCBOOL str_same(id o, SEL s, id p) { (void)s; return p && !strcmp(fake_str(o), fake_str(p)); }
FAKE_CLASS(fake_NSString, "NSString", str_dealloc, sizeof(Str), 0, C("stringWithUTF8String:", str_with), M("initWithUTF8String:", str_init), M("initWithBytes:length:encoding:", str_init_bytes),
           M("UTF8String", str_chars), M("length", str_length), M("lengthOfBytesUsingEncoding:", str_bytes), M("isEqualToString:", str_same));
const char *fake_str(id o)
{
    if (!o) return NULL;
    check(o, "string");
    if (o->isa != &fake_NSString) fake_die("%s where an NSString is meant", o->isa->name);
    return ((Str *)o)->s ? ((Str *)o)->s : "";
}
id fake_string(const char *t) { return fake_autorelease(str_new(t, strlen(t))); }

typedef struct { FAKE_HEAD; char *text, *domain; long code; } Err;
static void err_dealloc(id o) { free(((Err *)o)->text); free(((Err *)o)->domain); }
static id err_text(id o, SEL s) { (void)s; return fake_string(((Err *)o)->text); }
static id err_domain(id o, SEL s) { (void)s; return fake_string(((Err *)o)->domain); }
static long err_code(id o, SEL s) { (void)s; return ((Err *)o)->code; }
FAKE_CLASS(fake_NSError, "NSError", err_dealloc, 0, 0, M("localizedDescription", err_text), M("domain", err_domain), M("code", err_code), M("description", err_text), M("localizedFailureReason", m_nil));
id fake_error(const char *domain, long code, const char *text)
{
    Err *e = (Err *)fake_new(&fake_NSError, sizeof *e);
    e->text = strdup(text);
    e->domain = strdup(domain);
    e->code = code;
    return fake_autorelease((id)e);
}
typedef struct { FAKE_HEAD; char *path; } Url;
static void url_dealloc(id o) { free(((Url *)o)->path); }
static id url_file(id c, SEL s, id path) { (void)c; (void)s; if (!path) fake_die("+fileURLWithPath: nil"); Url *u = (Url *)fake_new(&fake_NSURL, sizeof *u); u->path = strdup(fake_str(path)); return fake_autorelease((id)u); }
static id url_init(id o, SEL s, id path) { (void)s; if (!path) fake_die("-initFileURLWithPath: nil"); ((Url *)o)->path = strdup(fake_str(path)); return o; }
static id url_path(id o, SEL s) { (void)s; return fake_string(((Url *)o)->path); }
FAKE_CLASS(fake_NSURL, "NSURL", url_dealloc, sizeof(Url), 0, C("fileURLWithPath:", url_file), M("initFileURLWithPath:", url_init), M("path", url_path));
const char *fake_url_path(id u) { if (!u) return NULL; check(u, "URL"); if (u->isa != &fake_NSURL) fake_die("%s where an NSURL is meant", u->isa->name); return ((Url *)u)->path; }

typedef struct { FAKE_HEAD; id *o; size_t n; } Arr;
static void arr_dealloc(id o) { Arr *a = (Arr *)o; for (size_t i = 0; i < a->n; i++) fake_release(a->o[i]); free(a->o); }
static id arr_with(id c, SEL s, id *o, NSUInteger n)
{
    (void)c; (void)s;
    Arr *a = (Arr *)fake_new(&fake_NSArray, sizeof *a);
    a->o = calloc(n ? n : 1, sizeof *a->o);
    a->n = n;
    for (size_t i = 0; i < n; i++) { if (!o[i]) fake_die("+arrayWithObjects:count: nil at %zu", i); a->o[i] = fake_retain(o[i]); }
    return fake_autorelease((id)a);
}
static id arr_one(id c, SEL s, id o) { return arr_with(c, s, &o, 1); }
static NSUInteger arr_count(id o, SEL s) { (void)s; return ((Arr *)o)->n; }
static id arr_at(id o, SEL s, NSUInteger i) { (void)s; Arr *a = (Arr *)o; if (i >= a->n) fake_die("-[NSArray objectAtIndex:] %lu of %zu", i, a->n); return a->o[i]; }
FAKE_CLASS(fake_NSArray, "NSArray", arr_dealloc, 0, 0, C("arrayWithObjects:count:", arr_with), C("arrayWithObject:", arr_one), M("count", arr_count), M("objectAtIndex:", arr_at), M("objectAtIndexedSubscript:", arr_at));
size_t fake_array_count(id a) { if (!a) return 0; check(a, "array"); if (a->isa != &fake_NSArray) fake_die("%s where an NSArray is meant", a->isa->name); return ((Arr *)a)->n; }
id fake_array(id *o, size_t n) { return arr_with(NULL, NULL, o, n); }
id fake_array_at(id a, size_t i) { return ((Arr *)a)->o[i]; }

typedef struct { long major, minor, patch; } Version;
static fake_class fake_NSProcessInfo, fake_PoolClass;
static id info_shared(id c, SEL s) { (void)c; (void)s; static id o; if (!o) { o = fake_new(&fake_NSProcessInfo, sizeof *o); pthread_mutex_lock(&lock); live--; count(&fake_NSProcessInfo, -1); pthread_mutex_unlock(&lock); } return o; }
static OBJCBOOL info_at_least(id o, SEL s, Version v) { (void)o; (void)s; const long major = (long)fake_set.os, minor = (long)((fake_set.os - (double)major) * 10 + 0.5); return major > v.major || (major == v.major && minor >= v.minor); }
static id info_text(id o, SEL s) { (void)o; (void)s; char t[60]; snprintf(t, sizeof t, "Version %.1f (Build FAKE)", fake_set.os); return fake_string(t); }
static long info_zero(id o, SEL s) { (void)o; (void)s; return 0; }
static const fake_method info_methods[] = { C("processInfo", info_shared), M("isOperatingSystemAtLeastVersion:", info_at_least), M("operatingSystemVersionString", info_text), M("thermalState", info_zero), M("isLowPowerModeEnabled", info_zero) };
static fake_class fake_NSProcessInfo = { .name = "NSProcessInfo", .methods = info_methods, .n_methods = sizeof info_methods / sizeof *info_methods };
/* NSAutoreleasePool: the same pools */
typedef struct { FAKE_HEAD; void *token; } Pool;
static id pool_init(id o, SEL s) { (void)s; ((Pool *)o)->token = objc_autoreleasePoolPush(); return o; }
static id pool_new(id c, SEL s) { (void)c; return pool_init(fake_new(&fake_PoolClass, sizeof(Pool)), s); }
static void pool_drain(id o, SEL s) { (void)s; void *t = ((Pool *)o)->token; fake_release(o); objc_autoreleasePoolPop(t); }
static const fake_method pool_methods[] = { C("new", pool_new), M("init", pool_init), M("drain", pool_drain), M("release", pool_drain) };
static fake_class fake_PoolClass = { .name = "NSAutoreleasePool", .methods = pool_methods, .n_methods = 4, .size = sizeof(Pool) };
static void foundation_classes(void)
{
    fake_class_add(&fake_NSString);
    fake_class_add(&fake_NSError);
    fake_class_add(&fake_NSURL);
    fake_class_add(&fake_NSArray);
    fake_class_add(&fake_NSProcessInfo);
    fake_class_add(&fake_PoolClass);
}

void fake_objc_totals(fakemetal_totals *t) { t->live_objects = live; t->unpooled = unpooled; }
__attribute__((destructor)) static void end(void)
{
    if (!live && !unpooled) return;
    if (getenv("FAKEMETAL_QUIET")) return;
    fprintf(stderr, "fake Metal: %llu objects leaked", (unsigned long long)live);
    for (int i = 0; i < 64 && born[i]; i++) if (born_n[i] > 0) fprintf(stderr, ", %ld %s", born_n[i], born[i]);
    fprintf(stderr, "; %llu autoreleased without a pool\n", (unsigned long long)unpooled);
}
