/* The device and what it makes: libraries, functions with constants, pipelines and their archives, buffers, residency sets.
 * Every rule of Metal that a host can break ends the process with a message. */
#include "fake.h"
#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static fakemetal_totals made;
void fake_metal_totals(fakemetal_totals *t, bool reset)
{
    pthread_mutex_lock(&lock);
    t->allocated = made.allocated;
    t->allocated_peak = made.allocated_peak;
    t->buffers_made = made.buffers_made;
    t->pipelines_made = made.pipelines_made;
    t->libraries_made = made.libraries_made;
    if (reset) { const uint64_t a = made.allocated; memset(&made, 0, sizeof made); made.allocated = made.allocated_peak = a; }
    for (fake_buf *b = fake_buffers; b && reset; b = b->next) b->bytes_read = b->bytes_written = 0;
    pthread_mutex_unlock(&lock);
}
static void need(id o, const fake_class *c, const char *who)
{
    if (!o) fake_die("%s: nil where a %s is meant", who, c->name);
    if (o->isa != c) fake_die("%s: a %s where a %s is meant", who, o->isa->name, c->name);
}

/* ---- options of a library */
typedef struct { FAKE_HEAD; bool fast_set, fast, mode_set; long mode, language, functions; } Options;
static void opt_fast(id o, SEL s, OBJCBOOL v) { (void)s; ((Options *)o)->fast_set = true; ((Options *)o)->fast = v; }
static OBJCBOOL opt_get_fast(id o, SEL s) { (void)s; return !((Options *)o)->fast_set || ((Options *)o)->fast; }
static void opt_mode(id o, SEL s, long v) { (void)s; if (v < 0 || v > 2) fake_die("-[MTLCompileOptions setMathMode:] %ld", v); ((Options *)o)->mode_set = true; ((Options *)o)->mode = v; }
static long opt_get_mode(id o, SEL s) { (void)s; return ((Options *)o)->mode_set ? ((Options *)o)->mode : 2; }
static void opt_functions(id o, SEL s, long v) { (void)s; ((Options *)o)->functions = v; }
static void opt_language(id o, SEL s, NSUInteger v) { (void)s; ((Options *)o)->language = (long)v; }
static NSUInteger opt_get_language(id o, SEL s) { (void)s; return (NSUInteger)((Options *)o)->language; }
static void opt_ignored(id o, SEL s, NSUInteger v) { (void)o; (void)s; (void)v; }
FAKE_CLASS(fake_Options, "MTLCompileOptions", NULL, sizeof(Options), 0, M("setFastMathEnabled:", opt_fast), M("fastMathEnabled", opt_get_fast), M15("setMathMode:", opt_mode), M15("mathMode", opt_get_mode),
           M15("setMathFloatingPointFunctions:", opt_functions), M("setLanguageVersion:", opt_language), M("languageVersion", opt_get_language), M("setPreserveInvariance:", opt_ignored), M("setOptimizationLevel:", opt_ignored));
/* the newest language of an OS: 13 has 3.0, 14 3.1, 15 3.2 */
static long newest_language(void) { return 3 << 16 | (fake_set.os >= 15 ? 2 : fake_set.os >= 14 ? 1 : 0); }

/* ---- libraries and functions */
static void lib_dealloc(id o) { dlclose(((fake_lib *)o)->so); free(((fake_lib *)o)->source); }
static int find_extent(struct dl_phdr_info *i, size_t n, void *p)
{
    (void)n;
    fake_lib *l = p;
    const unsigned long at = (unsigned long)(uintptr_t)l->l;
    unsigned long lo = ~0ul, hi = 0;
    for (int k = 0; k < i->dlpi_phnum; k++) {
        if (i->dlpi_phdr[k].p_type != PT_LOAD) continue;
        const unsigned long a = i->dlpi_addr + i->dlpi_phdr[k].p_vaddr, b = a + i->dlpi_phdr[k].p_memsz;
        if (a < lo) lo = a;
        if (b > hi) hi = b;
    }
    if (at < lo || at >= hi) return 0;
    l->lo = lo;
    l->hi = hi;
    return 1;
}
static id dev_lib(id d, SEL s, id src, id opt, id *err)
{
    (void)d; (void)s;
    if (!src) fake_die("newLibraryWithSource: nil");
    const Options *o = (const Options *)opt;
    if (opt) need(opt, &fake_Options, "newLibraryWithSource:options:");
    const bool safe = o && (fake_set.os >= 15 ? o->mode_set && o->mode == 0 : o->fast_set && !o->fast);
    if (!safe) fake_die("newLibraryWithSource: the math mode is not safe (%s)", fake_set.os >= 15 ? "setMathMode: MTLMathModeSafe" : "setFastMathEnabled: NO");
    if (fake_set.os >= 15 && o->functions != 1) fake_die("newLibraryWithSource: mathFloatingPointFunctions is not precise");
    const long language = o->language ? o->language : newest_language();
    if (language > newest_language()) fake_die("newLibraryWithSource: language version %ld.%ld is newer than this macOS", language >> 16, language & 0xffff);
    if (fake_fault("library")) { if (err) *err = fake_error("MTLLibraryErrorDomain", 3, "program_source:1:1: error: an injected fault"); return NULL; }
    char *log = NULL, *path = fake_library_path(fake_str(src), language, &log);
    void *so = path ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : NULL;
    if (!so) {
        if (err) *err = fake_error("MTLLibraryErrorDomain", 3, path ? dlerror() : log);
        free(log);
        free(path);
        return NULL;
    }
    free(path);
    const msl_library *l = dlsym(so, "msl_library_table");
    if (!l || l->abi != MSL_ABI) fake_die("the compiled library is of another version");
    fake_lib *r = (fake_lib *)fake_new(&fake_Lib, sizeof *r);
    r->so = so;
    r->l = l;
    r->source = strdup(fake_str(src));
    dl_iterate_phdr(find_extent, r);
    pthread_mutex_lock(&lock);
    made.libraries_made++;
    pthread_mutex_unlock(&lock);
    if (err) *err = NULL;
    return (id)r;
}
static fake_fn *function(id l, id name)
{
    need(l, &fake_Lib, "newFunctionWithName:");
    if (!name) fake_die("newFunctionWithName: nil");
    const msl_library *t = ((fake_lib *)l)->l;
    for (unsigned i = 0; i < t->n_kernels; i++)
        if (!strcmp(t->kernels[i].name, fake_str(name))) {
            if (fake_fault("function")) return NULL;
            fake_fn *f = (fake_fn *)fake_new(&fake_Fn, sizeof *f);
            f->lib = (fake_lib *)fake_retain(l);
            f->k = &t->kernels[i];
            return f;
        }
    return NULL;
}
static bool needs(const msl_kernel *k, unsigned c) { return k->needs[c / 64] >> (c % 64) & 1; }
static id lib_fn(id l, SEL s, id name) { (void)s; return (id)function(l, name); }
typedef struct { FAKE_HEAD; struct { bool set; unsigned type; unsigned char v[8]; } at[256]; struct { char *name; unsigned type; unsigned char v[8]; } by[32]; int n_by; } Constants;
static unsigned type_size(unsigned type)
{
    switch (type) {
        case 3: case 29: case 33: return 4;
        case 16: case 37: case 41: return 2;
        case 45: case 49: case 53: return 1;
        case 81: case 85: return 8;
        default: fake_die("MTLFunctionConstantValues: MTLDataType %u", type);
    }
}
static void cst_dealloc(id o) { Constants *c = (Constants *)o; for (int i = 0; i < c->n_by; i++) free(c->by[i].name); }
static void cst_set(id o, SEL s, const void *v, NSUInteger type, NSUInteger i)
{
    (void)s;
    Constants *c = (Constants *)o;
    if (i >= 256) fake_die("setConstantValue:type:atIndex: %lu", i);
    if (!v) fake_die("setConstantValue: NULL");
    c->at[i].set = true;
    c->at[i].type = (unsigned)type;
    memcpy(c->at[i].v, v, type_size((unsigned)type));
}
static void cst_range(id o, SEL s, const void *v, NSUInteger type, NSRange r)
{
    for (NSUInteger i = 0; i < r.n; i++) cst_set(o, s, (const char *)v + i * type_size((unsigned)type), type, r.at + i);
}
static void cst_name(id o, SEL s, const void *v, NSUInteger type, id name)
{
    (void)s;
    Constants *c = (Constants *)o;
    if (c->n_by == 32) fake_die("too many constants by name");
    c->by[c->n_by].name = strdup(fake_str(name));
    c->by[c->n_by].type = (unsigned)type;
    memcpy(c->by[c->n_by++].v, v, type_size((unsigned)type));
}
static void cst_reset(id o, SEL s) { (void)s; Constants *c = (Constants *)o; memset(c->at, 0, sizeof c->at); c->n_by = 0; }
FAKE_CLASS(fake_Constants, "MTLFunctionConstantValues", cst_dealloc, sizeof(Constants), 0, M("setConstantValue:type:atIndex:", cst_set), M("setConstantValues:type:withRange:", cst_range), M("setConstantValue:type:withName:", cst_name), M("reset", cst_reset));
static id lib_fn_const(id l, SEL s, id name, id values, id *err)
{
    (void)s;
    if (!values) fake_die("newFunctionWithName:constantValues: nil");
    need(values, &fake_Constants, "newFunctionWithName:constantValues:");
    fake_fn *f = function(l, name);
    if (!f) { if (err) *err = fake_error("MTLLibraryErrorDomain", 5, "Function was not found in the library"); return NULL; }
    const msl_library *t = f->lib->l;
    const Constants *c = (const Constants *)values;
    f->specialized = true;
    f->values = calloc(t->n_constants + 1, 8);
    f->defined = calloc(t->n_constants + 1, 1);
    for (unsigned i = 0; i < t->n_constants; i++) {
        const msl_constant *k = &t->constants[i];
        if (k->index == ~0u) continue;
        const unsigned char *v = NULL;
        unsigned type = 0;
        if (c->at[k->index].set) { v = c->at[k->index].v; type = c->at[k->index].type; }
        for (int b = 0; b < c->n_by; b++) if (!strcmp(c->by[b].name, k->name)) { v = c->by[b].v; type = c->by[b].type; }
        if (!v) {
            if (needs(f->k, i)) {
                char text[300];
                snprintf(text, sizeof text, "function %s: constant %s (index %u) has no value", f->k->name, k->name, k->index);
                if (err) *err = fake_error("MTLLibraryErrorDomain", 3, text);
                fake_release((id)f);
                return NULL;
            }
            continue;
        }
        if (type != k->type) fake_die("function %s: constant %s (index %u) has another type (%u) than the value (%u)", f->k->name, k->name, k->index, k->type, type);
        memcpy(f->values + 8 * i, v, type_size(type));
        f->defined[i] = 1;
    }
    if (err) *err = NULL;
    return (id)f;
}
static id lib_names(id l, SEL s);
static id fn_name(id f, SEL s) { (void)s; return fake_string(((fake_fn *)f)->k->name); }
static NSUInteger fn_type(id f, SEL s) { (void)f; (void)s; return 3; }      /* MTLFunctionTypeKernel */
static void fn_dealloc(id o) { fake_fn *f = (fake_fn *)o; fake_release((id)f->lib); free(f->values); free(f->defined); }
static void obj_label(id o, SEL s, id l) { (void)o; (void)s; if (l) (void)fake_str(l); }
static id obj_no_label(id o, SEL s) { (void)o; (void)s; return NULL; }
FAKE_CLASS(fake_Lib, "MTLLibrary", lib_dealloc, 0, 0, M("newFunctionWithName:", lib_fn), M("newFunctionWithName:constantValues:error:", lib_fn_const), M("functionNames", lib_names), M("setLabel:", obj_label), M("label", obj_no_label));
FAKE_CLASS(fake_Fn, "MTLFunction", fn_dealloc, 0, 0, M("name", fn_name), M("functionType", fn_type), M("setLabel:", obj_label), M("label", obj_no_label));
static id lib_names(id l, SEL s)
{
    (void)s;
    const msl_library *t = ((fake_lib *)l)->l;
    id names[512];
    unsigned n = 0;
    for (; n < t->n_kernels && n < 512; n++) names[n] = fake_string(t->kernels[n].name);
    return fake_array(names, n);
}

/* ---- pipelines */
typedef struct { FAKE_HEAD; id fn, archives; NSUInteger max_threads; bool full_simd; } PsoDesc;
static void pd_dealloc(id o) { fake_release(((PsoDesc *)o)->fn); fake_release(((PsoDesc *)o)->archives); }
static void pd_fn(id o, SEL s, id f) { (void)s; if (f) need(f, &fake_Fn, "setComputeFunction:"); fake_retain(f); fake_release(((PsoDesc *)o)->fn); ((PsoDesc *)o)->fn = f; }
static id pd_get_fn(id o, SEL s) { (void)s; return ((PsoDesc *)o)->fn; }
static void pd_archives(id o, SEL s, id a) { (void)s; fake_array_count(a); fake_retain(a); fake_release(((PsoDesc *)o)->archives); ((PsoDesc *)o)->archives = a; }
static void pd_max(id o, SEL s, NSUInteger n) { (void)s; if (n > 1024) fake_die("setMaxTotalThreadsPerThreadgroup: %lu", n); ((PsoDesc *)o)->max_threads = n; }
static void pd_full(id o, SEL s, OBJCBOOL v) { (void)s; ((PsoDesc *)o)->full_simd = v; }
static void pd_ignored(id o, SEL s, NSUInteger v) { (void)o; (void)s; (void)v; }
FAKE_CLASS(fake_PsoDesc, "MTLComputePipelineDescriptor", pd_dealloc, sizeof(PsoDesc), 0, M("setComputeFunction:", pd_fn), M("computeFunction", pd_get_fn), M("setBinaryArchives:", pd_archives), M("setLabel:", obj_label),
           M("setMaxTotalThreadsPerThreadgroup:", pd_max), M("setThreadGroupSizeIsMultipleOfThreadExecutionWidth:", pd_full), M("setSupportIndirectCommandBuffers:", pd_ignored));
static size_t static_threadgroup(const fake_fn *f)
{
    size_t sum = 0;
    for (unsigned i = f->k->tg_from * 16; i < f->k->tg_to * 16; i++) {
        size_t most = 0;                /* of the instances of a template: the largest */
        for (const msl_tg_entry *e = f->lib->l->tg; e && e < f->lib->l->tg_end; e++) if (e->id == i && e->size > most) most = e->size;
        sum += (most + 15) / 16 * 16;
    }
    return sum;
}
static id pipeline(id fn, id *err, NSUInteger max_threads, bool full)
{
    need(fn, &fake_Fn, "newComputePipelineState");
    fake_fn *f = (fake_fn *)fn;
    if (err) *err = NULL;
    if (fake_fault("pipeline")) { if (err) *err = fake_error("AGXMetalFake", 3, "an injected fault: the pipeline cannot be made"); return NULL; }
    if (!f->specialized)
        for (unsigned i = 0; i < f->lib->l->n_constants; i++)
            if (needs(f->k, i) && f->lib->l->constants[i].index != ~0u) {
                char text[300];
                snprintf(text, sizeof text, "function %s needs function constants (%s, index %u): newFunctionWithName:constantValues:error:", f->k->name, f->lib->l->constants[i].name, f->lib->l->constants[i].index);
                if (err) *err = fake_error("AGXMetalFake", 3, text);
                return NULL;
            }
    fake_pso *p = (fake_pso *)fake_new(&fake_Pso, sizeof *p);
    p->fn = (fake_fn *)fake_retain(fn);
    p->max_threads = fake_set.max_threads;
    if (f->k->max_threads && f->k->max_threads < p->max_threads) p->max_threads = f->k->max_threads;
    if (max_threads && max_threads < p->max_threads) p->max_threads = (unsigned)max_threads;
    p->needs_full_simd = full;
    p->static_tg = static_threadgroup(f);
    if (p->static_tg > MSL_TG_MEMORY) {
        char text[200];
        snprintf(text, sizeof text, "Threadgroup memory size (%zu) exceeds the maximum threadgroup memory allowed (%d)", p->static_tg, MSL_TG_MEMORY);
        if (err) *err = fake_error("AGXMetalFake", 3, text);
        fake_release((id)p);
        return NULL;
    }
    pthread_mutex_lock(&lock);
    made.pipelines_made++;
    pthread_mutex_unlock(&lock);
    return (id)p;
}
static id dev_pso(id d, SEL s, id fn, id *err) { (void)d; (void)s; return pipeline(fn, err, 0, false); }
/* An archive is the list of the functions in it, each known by its text, its name and the values of its constants. */
typedef struct { FAKE_HEAD; char *text; } Archive;
static void archive_key(const fake_fn *f, char *out, size_t n)
{
    uint64_t h = 0xcbf29ce484222325ull;
    for (const char *p = f->lib->source; *p; p++) h = (h ^ (unsigned char)*p) * 0x100000001b3ull;
    for (unsigned i = 0; f->values && i < 8 * f->lib->l->n_constants; i++) h = (h ^ f->values[i] ^ (uint64_t)f->defined[i / 8] << 8) * 0x100000001b3ull;
    snprintf(out, n, "%016llx %s\n", (unsigned long long)h, f->k->name);
}
static bool archive_has(id a, const fake_fn *f)
{
    char key[200];
    archive_key(f, key, sizeof key);
    return strstr(((Archive *)a)->text, key) != NULL;
}
static id dev_pso_desc(id d, SEL s, id desc, NSUInteger options, id *refl, id *err)
{
    (void)d; (void)s;
    need(desc, &fake_PsoDesc, "newComputePipelineStateWithDescriptor:");
    PsoDesc *p = (PsoDesc *)desc;
    if (refl) *refl = NULL;
    if (options > 7) fake_die("newComputePipelineStateWithDescriptor:options: %lu", options);
    need(p->fn, &fake_Fn, "newComputePipelineStateWithDescriptor: computeFunction");
    bool hit = false;
    for (size_t i = 0; i < fake_array_count(p->archives); i++) {
        need(fake_array_at(p->archives, i), &fake_Archive, "binaryArchives");
        hit |= archive_has(fake_array_at(p->archives, i), (fake_fn *)p->fn);
    }
    if ((options & 4) && !hit) {        /* MTLPipelineOptionFailOnBinaryArchiveMiss */
        if (err) *err = fake_error("AGXMetalFake", 3, "the function is in no archive");
        return NULL;
    }
    return pipeline(p->fn, err, p->max_threads, p->full_simd);
}
static void pso_dealloc(id o) { fake_release((id)((fake_pso *)o)->fn); }
static NSUInteger pso_max(id o, SEL s) { (void)s; return ((fake_pso *)o)->max_threads; }
static NSUInteger pso_width(id o, SEL s) { (void)o; (void)s; return 32; }
static NSUInteger pso_static(id o, SEL s) { (void)s; return ((fake_pso *)o)->static_tg; }
FAKE_CLASS(fake_Pso, "MTLComputePipelineState", pso_dealloc, 0, 0, M("maxTotalThreadsPerThreadgroup", pso_max), M("threadExecutionWidth", pso_width), M("staticThreadgroupMemoryLength", pso_static), M("label", obj_no_label));

/* ---- binary archives */
typedef struct { FAKE_HEAD; char *path; } ArchiveDesc;
static void ad_dealloc(id o) { free(((ArchiveDesc *)o)->path); }
static void ad_url(id o, SEL s, id u) { (void)s; free(((ArchiveDesc *)o)->path); const char *p = fake_url_path(u); ((ArchiveDesc *)o)->path = p ? strdup(p) : NULL; }
FAKE_CLASS(fake_ArchiveDesc, "MTLBinaryArchiveDescriptor", ad_dealloc, sizeof(ArchiveDesc), 0, M("setUrl:", ad_url));
static id dev_archive(id d, SEL s, id desc, id *err)
{
    (void)d; (void)s;
    need(desc, &fake_ArchiveDesc, "newBinaryArchiveWithDescriptor:");
    const char *path = ((ArchiveDesc *)desc)->path;
    static const char head[] = "fake Metal archive\n", end[] = "end of archive\n";
    char *text = NULL;
    size_t n = 0, cap = 1 << 20;
    if (err) *err = NULL;
    if (path) {
        FILE *f = fopen(path, "rb");
        text = calloc(1, cap);
        if (f && text) n = fread(text, 1, cap - 1, f);
        if (f) fclose(f);
        if (!f || !text || n < sizeof head + sizeof end - 2 || strncmp(text, head, sizeof head - 1) || strcmp(text + n - (sizeof end - 1), end)) {     /* none, or torn */
            if (err) *err = fake_error("MTLBinaryArchiveDomain", 1, f ? "Invalid file" : "File not found");
            free(text);
            return NULL;
        }
        text[n - (sizeof end - 1)] = 0;
        memmove(text, text + sizeof head - 1, n - (sizeof head - 1) - (sizeof end - 1) + 1);
    }
    if (fake_fault("archive")) { if (err) *err = fake_error("MTLBinaryArchiveDomain", 1, "an injected fault"); free(text); return NULL; }
    Archive *a = (Archive *)fake_new(&fake_Archive, sizeof *a);
    a->text = text ? text : strdup("");
    return (id)a;
}
static OBJCBOOL ar_add(id o, SEL s, id desc, id *err)
{
    (void)s;
    need(desc, &fake_PsoDesc, "addComputePipelineFunctionsWithDescriptor:");
    if (err) *err = NULL;
    if (fake_fault("archive")) { if (err) *err = fake_error("MTLBinaryArchiveDomain", 4, "an injected fault"); return 0; }
    Archive *a = (Archive *)o;
    char *t = NULL, key[200];
    need(((PsoDesc *)desc)->fn, &fake_Fn, "addComputePipelineFunctionsWithDescriptor: computeFunction");
    archive_key((fake_fn *)((PsoDesc *)desc)->fn, key, sizeof key);
    if (asprintf(&t, "%s%s", a->text, key) < 0) return 0;
    free(a->text);
    a->text = t;
    return 1;
}
static OBJCBOOL ar_write(id o, SEL s, id url, id *err)
{
    (void)s;
    const char *path = fake_url_path(url);
    if (err) *err = NULL;
    if (!((Archive *)o)->text[0]) { if (err) *err = fake_error("MTLBinaryArchiveDomain", 4, "an archive without functions is not written"); return 0; }
    FILE *f = path && !fake_fault("archive") ? fopen(path, "wb") : NULL;
    if (!f) { if (err) *err = fake_error("MTLBinaryArchiveDomain", 1, "the archive cannot be written"); return 0; }
    fprintf(f, "fake Metal archive\n%send of archive\n", ((Archive *)o)->text);
    return fclose(f) == 0;
}
static void ar_dealloc(id o) { free(((Archive *)o)->text); }
FAKE_CLASS(fake_Archive, "MTLBinaryArchive", ar_dealloc, 0, 0, M("addComputePipelineFunctionsWithDescriptor:error:", ar_add), M("serializeToURL:error:", ar_write), M("setLabel:", obj_label));

/* ---- buffers */
fake_buf *fake_buffers;
void fakemetal_buffer_bytes(struct fake_obj *o, uint64_t *rd, uint64_t *wr)
{
    need((id)o, &fake_Buf, "fakemetal_buffer_bytes");
    *rd = ((fake_buf *)o)->bytes_read;
    *wr = ((fake_buf *)o)->bytes_written;
}
static uint64_t buffer_ids;
static const size_t page = 16384;       /* of Apple silicon */
static void buf_link(fake_buf *b)
{
    pthread_mutex_lock(&lock);
    b->id = ++buffer_ids;
    b->next = fake_buffers;
    if (fake_buffers) fake_buffers->prev = b;
    fake_buffers = b;
    made.buffers_made++;
    if (b->map) {
        made.allocated += b->n;
        if (made.allocated > made.allocated_peak) made.allocated_peak = made.allocated;
    }
    pthread_mutex_unlock(&lock);
}
fake_buf *fake_buffer_at(const void *p, size_t n)
{
    fake_buf *r = NULL;
    pthread_mutex_lock(&lock);
    for (fake_buf *b = fake_buffers; b && !r; b = b->next) if ((const char *)p >= b->p && (const char *)p + n <= b->p + b->n) r = b;
    pthread_mutex_unlock(&lock);
    return r;
}
static void options(const char *who, NSUInteger o)
{
    const NSUInteger mode = o >> 4 & 15, cache = o & 15, hazard = o >> 8 & 3;
    if (mode == 1) fake_die("%s: storage mode managed is for Macs with memory of their own on the GPU", who);
    if (mode == 3) fake_die("%s: a buffer cannot be memoryless", who);
    if (mode > 3 || cache > 1 || hazard > 2 || o >> 10) fake_die("%s: resource options 0x%lx", who, o);
}
static id dev_buf(id d, SEL s, NSUInteger n, NSUInteger o)
{
    (void)d; (void)s;
    if (n == 0) fake_die("newBufferWithLength: 0");
    options("newBufferWithLength:", o);
    if (n > fake_set.max_buffer || fake_fault("buffer")) return NULL;
    const size_t full = (n + page - 1) / page * page;
    char *map = mmap(NULL, full + 3 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED) return NULL;
    char *p = (char *)(((uintptr_t)map + 2 * page - 1) / page * page);     /* an unmapped page before it and after it */
    if (mprotect(p, full, PROT_READ | PROT_WRITE)) { munmap(map, full + 3 * page); return NULL; }
    memset(p, 0xff, n);                 /* NaN: nobody relies on zeros */
    memset(p + n, 0xa5, full - n);
    fake_buf *b = (fake_buf *)fake_new(&fake_Buf, sizeof *b);
    b->p = p;
    b->n = n;
    b->map = map;
    b->map_bytes = full + 3 * page;
    b->options = o;
    buf_link(b);
    return (id)b;
}
static id dev_buf_bytes(id d, SEL s, const void *p, NSUInteger n, NSUInteger o)
{
    if (!p) fake_die("newBufferWithBytes: NULL");
    if ((o >> 4 & 15) == 2) fake_die("newBufferWithBytes: into private storage");
    id b = dev_buf(d, s, n, o);
    if (b) memcpy(((fake_buf *)b)->p, p, n);
    return b;
}
/* The mapping that holds p, from /proc/self/maps: whether it holds n bytes but for a part of the last page (pages are smaller here
 * than on Apple silicon), and whether it may be written. False: not known. */
static bool one_region(const char *p, size_t n, bool *whole, bool *writable)
{
    FILE *f = fopen("/proc/self/maps", "r");
    char text[600], rights[8];
    unsigned long lo, hi, end = 0;
    bool found = false;
    while (f && fgets(text, sizeof text, f)) {
        if (sscanf(text, "%lx-%lx %7s", &lo, &hi, rights) != 3) continue;
        if (!found && (unsigned long)p >= lo && (unsigned long)p < hi) {
            found = true;
            *writable = rights[1] == 'w';
            end = hi;
        }
    }
    if (f) fclose(f);
    *whole = end + page > (unsigned long)p + n;
    return found;
}
static id dev_buf_nocopy(id d, SEL s, void *p, NSUInteger n, NSUInteger o, void *blk)
{
    (void)d; (void)s;
    if (!n || !p) fake_die("newBufferWithBytesNoCopy: pointer %p, length %lu", p, n);
    if ((uintptr_t)p % page || n % page) fake_die("newBufferWithBytesNoCopy: pointer %p or length %lu is not a multiple of Apple silicon's page of %zu", p, n, page);
    options("newBufferWithBytesNoCopy:", o);
    if ((o >> 4 & 15) != 0) fake_die("newBufferWithBytesNoCopy: only shared storage");
    bool whole = true, writable = true;
    if (one_region(p, n, &whole, &writable) && !whole) fake_die("newBufferWithBytesNoCopy: the %lu bytes at %p lie in more than one mapping", n, p);
    if (n > fake_set.max_buffer || fake_fault("buffer")) return NULL;
    fake_buf *b = (fake_buf *)fake_new(&fake_Buf, sizeof *b);
    b->p = p;
    b->n = n;
    b->options = o;
    b->read_only = !writable;
    b->deallocator = fake_block_copy(blk);
    buf_link(b);
    return (id)b;
}
void fake_shadow_free(struct fake_shadow *s);
static void buf_dealloc(id o)
{
    fake_buf *b = (fake_buf *)o;
    pthread_mutex_lock(&lock);
    if (b->next) b->next->prev = b->prev;
    if (b->prev) b->prev->next = b->next; else fake_buffers = b->next;
    if (b->map) made.allocated -= b->n;
    pthread_mutex_unlock(&lock);
    if (b->deallocator) {
        ((void (*)(void *, void *, NSUInteger))((fake_block *)b->deallocator)->invoke)(b->deallocator, b->p, b->n);
        fake_block_release(b->deallocator);
    }
    if (fake_elsewhere) fake_elsewhere->gone(b);
    if (b->map) munmap(b->map, b->map_bytes);
    fake_check_buffer_gone(b);
    fake_shadow_free(b->shadow);
    b->p = NULL;
}
static void *buf_contents(id o, SEL s) { (void)s; fake_buf *b = (fake_buf *)o; return (b->options >> 4 & 15) == 2 ? NULL : b->p; }
static NSUInteger buf_length(id o, SEL s) { (void)s; return ((fake_buf *)o)->n; }
static NSUInteger buf_allocated(id o, SEL s) { (void)s; return (((fake_buf *)o)->n + page - 1) / page * page; }
static uint64_t buf_address(id o, SEL s) { (void)s; return (uint64_t)(uintptr_t)((fake_buf *)o)->p; }
static NSUInteger buf_mode(id o, SEL s) { (void)s; return ((fake_buf *)o)->options >> 4 & 15; }
static NSUInteger buf_options(id o, SEL s) { (void)s; return ((fake_buf *)o)->options; }
static NSUInteger buf_hazard(id o, SEL s) { (void)s; const NSUInteger h = ((fake_buf *)o)->options >> 8 & 3; return h ? h : 2; }
static void buf_modified(id o, SEL s, NSRange r) { (void)o; (void)r; fake_die("-[MTLBuffer %s]: only for managed storage", s); }
static NSUInteger buf_purge(id o, SEL s, NSUInteger v) { (void)o; (void)s; (void)v; return 2; }
FAKE_CLASS(fake_Buf, "MTLBuffer", buf_dealloc, 0, 0, M("contents", buf_contents), M("length", buf_length), M("allocatedSize", buf_allocated), M("gpuAddress", buf_address), M("storageMode", buf_mode),
           M("resourceOptions", buf_options), M("hazardTrackingMode", buf_hazard), M("didModifyRange:", buf_modified), M("setPurgeableState:", buf_purge), M("setLabel:", obj_label), M("label", obj_no_label));

/* ---- residency sets (macOS 15) */
typedef struct { FAKE_HEAD; fake_buf **b; size_t n, cap, committed; fake_buf **now; bool pending, unrequested; } Residency; /* unrequested: committed additions behind the last requestResidency */
static void rs_dealloc(id o) { Residency *r = (Residency *)o; for (size_t i = 0; i < r->n; i++) fake_release((id)r->b[i]); free(r->b); free(r->now); }
static void rs_add(id o, SEL s, id a)
{
    (void)s;
    need(a, &fake_Buf, "addAllocation:");
    Residency *r = (Residency *)o;
    for (size_t i = 0; i < r->n; i++) if (r->b[i] == (fake_buf *)a) return;
    if (r->n == r->cap) { r->cap = r->cap ? r->cap * 2 : 16; r->b = realloc(r->b, r->cap * sizeof *r->b); if (!r->b) fake_die("out of memory"); }
    r->b[r->n++] = (fake_buf *)fake_retain(a);
    r->pending = true;
}
static void rs_add_many(id o, SEL s, id const *a, NSUInteger n) { for (NSUInteger i = 0; i < n; i++) rs_add(o, s, a[i]); }
static void rs_remove(id o, SEL s, id a)
{
    (void)s;
    Residency *r = (Residency *)o;
    if (fake_buffer_in_flight((fake_buf *)a)) fake_die("removeAllocation: a buffer that a committed command buffer uses");
    for (size_t i = 0; i < r->n; i++) if (r->b[i] == (fake_buf *)a) { r->b[i] = r->b[--r->n]; fake_release(a); r->pending = true; return; }
}
static void rs_remove_all(id o, SEL s) { (void)s; Residency *r = (Residency *)o; for (size_t i = 0; i < r->n; i++) fake_release((id)r->b[i]); r->n = 0; r->pending = true; }
static void rs_commit(id o, SEL s)
{
    (void)s;
    Residency *r = (Residency *)o;
    for (size_t i = 0; i < r->n && !r->unrequested; i++) {      /* one that was not there before */
        size_t k = 0;
        while (k < r->committed && r->now[k] != r->b[i]) k++;
        r->unrequested = k == r->committed;
    }
    r->now = realloc(r->now, (r->n + 1) * sizeof *r->now);
    if (!r->now) fake_die("out of memory");
    if (r->n) memcpy(r->now, r->b, r->n * sizeof *r->b);
    r->committed = r->n;
    r->pending = false;
}
static void rs_request(id o, SEL s) { (void)s; ((Residency *)o)->unrequested = false; }
static void rs_end(id o, SEL s) { (void)o; (void)s; }
void fake_residency_check(id set)
{
    const Residency *r = (const Residency *)set;
    if (r->pending) fake_die("-[MTLCommandBuffer commit]: a residency set of its queue has additions or removals that were not committed");
    if (r->unrequested) fake_die("-[MTLCommandBuffer commit]: a residency set of its queue was committed with additions and requestResidency did not follow");
}
static uint64_t rs_size(id o, SEL s) { (void)s; Residency *r = (Residency *)o; uint64_t n = 0; for (size_t i = 0; i < r->committed; i++) n += r->now[i]->n; return n; }
static NSUInteger rs_count(id o, SEL s) { (void)s; return ((Residency *)o)->n; }
static OBJCBOOL rs_contains(id o, SEL s, id a) { (void)s; Residency *r = (Residency *)o; for (size_t i = 0; i < r->n; i++) if (r->b[i] == (fake_buf *)a) return 1; return 0; }
bool fake_residency_has(id set, const fake_buf *b) { Residency *r = (Residency *)set; for (size_t i = 0; i < r->committed; i++) if (r->now[i] == b) return true; return false; }
FAKE_CLASS(fake_Residency, "MTLResidencySet", rs_dealloc, 0, 15, M("addAllocation:", rs_add), M("addAllocations:count:", rs_add_many), M("removeAllocation:", rs_remove), M("removeAllAllocations", rs_remove_all), M("commit", rs_commit),
           M("requestResidency", rs_request), M("endResidency", rs_end), M("allocatedSize", rs_size), M("allocationCount", rs_count), M("containsAllocation:", rs_contains), M("label", obj_no_label));
typedef struct { FAKE_HEAD; NSUInteger capacity; } ResidencyDesc;
static void rd_capacity(id o, SEL s, NSUInteger n) { (void)s; ((ResidencyDesc *)o)->capacity = n; }
FAKE_CLASS(fake_ResidencyDesc, "MTLResidencySetDescriptor", NULL, sizeof(ResidencyDesc), 15, M("setInitialCapacity:", rd_capacity), M("setLabel:", obj_label));
static id dev_residency(id d, SEL s, id desc, id *err)
{
    (void)d; (void)s;
    need(desc, &fake_ResidencyDesc, "newResidencySetWithDescriptor:");
    if (err) *err = NULL;
    if (fake_fault("residency-set")) { if (err) *err = fake_error("MTLDeviceError", 1, "an injected fault: no residency set"); return NULL; }
    return fake_new(&fake_Residency, sizeof(Residency));
}

/* ---- the device */
static id device;
static id dev_name(id d, SEL s) { (void)d; (void)s; return fake_string(fake_elsewhere ? fake_elsewhere->name() : "Fake Apple GPU (CPU)"); }
static OBJCBOOL dev_yes(id d, SEL s) { (void)d; (void)s; return 1; }
static OBJCBOOL dev_no(id d, SEL s) { (void)d; (void)s; return 0; }
static uint64_t dev_working_set(id d, SEL s) { (void)d; (void)s; return fake_set.working_set; }
static NSUInteger dev_max_buffer(id d, SEL s) { (void)d; (void)s; return fake_set.max_buffer; }
static NSUInteger dev_tg_memory(id d, SEL s) { (void)d; (void)s; return MSL_TG_MEMORY; }
static NSUInteger dev_allocated(id d, SEL s) { (void)d; (void)s; return made.allocated; }
static uint64_t dev_registry(id d, SEL s) { (void)d; (void)s; return 0x100000abc; }
static OBJCBOOL dev_family(id d, SEL s, long f) { (void)d; (void)s; return (f >= 1001 && f <= fake_set.family) || f == 2002 || (f >= 3001 && f <= 3003) || (f == 5001 && fake_set.family >= 1007); }
static NSUInteger dev_arguments(id d, SEL s) { (void)d; (void)s; return 1; }
id fake_event_new(id d, SEL s);
id fake_shared_event_new(id d, SEL s);
id fake_fence_new(id d, SEL s);
static id dev_queue(id d, SEL s) { (void)s; return fake_fault("queue") ? NULL : fake_queue_new(d); }
static id dev_queue_n(id d, SEL s, NSUInteger n) { if (n < 1) fake_die("newCommandQueueWithMaxCommandBufferCount: 0"); return dev_queue(d, s); }
FAKE_CLASS(fake_Device, "MTLDevice", NULL, 0, 0, M("name", dev_name), M("hasUnifiedMemory", dev_yes), M("recommendedMaxWorkingSetSize", dev_working_set), M("maxBufferLength", dev_max_buffer), M("maxThreadgroupMemoryLength", dev_tg_memory),
           M("currentAllocatedSize", dev_allocated), M("registryID", dev_registry), M("supportsFamily:", dev_family), M("isLowPower", dev_no), M("isHeadless", dev_no), M("isRemovable", dev_no), M("argumentBuffersSupport", dev_arguments),
           M("newCommandQueue", dev_queue), M("newCommandQueueWithMaxCommandBufferCount:", dev_queue_n), M("newLibraryWithSource:options:error:", dev_lib), M("newComputePipelineStateWithFunction:error:", dev_pso),
           M("newComputePipelineStateWithDescriptor:options:reflection:error:", dev_pso_desc), M("newBufferWithLength:options:", dev_buf), M("newBufferWithBytes:length:options:", dev_buf_bytes),
           M("newBufferWithBytesNoCopy:length:options:deallocator:", dev_buf_nocopy), M15("newResidencySetWithDescriptor:error:", dev_residency), M("newBinaryArchiveWithDescriptor:error:", dev_archive),
           M("newEvent", fake_event_new), M("newSharedEvent", fake_shared_event_new), M("newFence", fake_fence_new));
EXPORT id MTLCreateSystemDefaultDevice(void)
{
    if (getenv("FAKEMETAL_NO_DEVICE") || (fake_elsewhere && !fake_elsewhere->name())) return NULL;
    pthread_mutex_lock(&lock);
    id r = device && device->isa == &fake_Device ? device : NULL;
    pthread_mutex_unlock(&lock);
    if (r) return fake_retain(r);
    device = fake_new(&fake_Device, sizeof(struct fake_obj));
    return device;
}
void fake_metal_classes(void);
void fake_metal_classes(void)
{
    fake_class *all[] = { &fake_Options, &fake_Constants, &fake_PsoDesc, &fake_ArchiveDesc, &fake_ResidencyDesc, &fake_CmdDesc };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) fake_class_add(all[i]);
}
