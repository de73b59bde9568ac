/* Dispatches on an NVIDIA GPU through the CUDA driver, which is looked for when a device opens (libcuda.so.1).
 *
 * Memory. Each buffer has a copy in the GPU's memory, of exactly its size, so that compute-sanitizer sees an access beyond it.
 * Which of the two is newer is known from page protections: while both agree the host's pages are read-only, after a kernel that
 * may write they are not to be touched; a fault brings the copy, or notes that the host writes. So the host's code runs as it is,
 * as if memory were shared. Buffers over memory of the host's own (the model's file) are copied once and only read.
 *
 * Order. Dispatches of one interval go to several streams, which meet at a barrier: what lacks one really runs at once.
 *
 * METALCUDA_STREAMS (4); METALCUDA_POISON=0: memory that the host never wrote stays unwritten on the GPU, for initcheck;
 * METALCUDA_STUB=1: no GPU, copies in the host's memory and kernels on the CPU, to test all but the kernels. */
#include "cuda.h"
#include "shim/msl_launch.h"
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

/* ---- the driver */
typedef uint64_t gpu_ptr;
typedef struct CUctx_st *gpu_context;
typedef struct CUmod_st *gpu_module;
typedef struct CUfunc_st *gpu_function;
typedef struct CUstream_st *gpu_stream;
typedef struct CUevent_st *gpu_event;
#define DRIVER(X) \
    X(init, "cuInit", unsigned) X(device, "cuDeviceGet", int *, int) X(device_name, "cuDeviceGetName", char *, int, int) \
    X(retain, "cuDevicePrimaryCtxRetain", gpu_context *, int) X(current, "cuCtxSetCurrent", gpu_context) X(sync, "cuCtxSynchronize", void) \
    X(alloc, "cuMemAlloc_v2", gpu_ptr *, size_t) X(release, "cuMemFree_v2", gpu_ptr) X(to_gpu, "cuMemcpyHtoD_v2", gpu_ptr, const void *, size_t) \
    X(to_gpu_async, "cuMemcpyHtoDAsync_v2", gpu_ptr, const void *, size_t, gpu_stream) X(to_host, "cuMemcpyDtoH_v2", void *, gpu_ptr, size_t) \
    X(load, "cuModuleLoad", gpu_module *, const char *) X(function, "cuModuleGetFunction", gpu_function *, gpu_module, const char *) \
    X(launch, "cuLaunchKernel", gpu_function, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, gpu_stream, void **, void **) \
    X(stream_new, "cuStreamCreate", gpu_stream *, unsigned) X(event_new, "cuEventCreate", gpu_event *, unsigned) \
    X(event_record, "cuEventRecord", gpu_event, gpu_stream) X(stream_wait, "cuStreamWaitEvent", gpu_stream, gpu_event, unsigned) \
    X(error_text, "cuGetErrorString", int, const char **)
#define FIELD(name, symbol, ...) int (*name)(__VA_ARGS__);
static struct { DRIVER(FIELD) } cu;
static bool stub;
static gpu_context context;
static char device_text[160];
static __thread bool attached;

__attribute__((noreturn)) static void fail(const char *what, int code)
{
    const char *text = "unknown";
    if (cu.error_text) cu.error_text(code, &text);
    fake_die("CUDA: %s: %s (%d)%s%s", what, text, code, fake_doing[0] ? ", in or before " : "", fake_doing);
}
#define CALL(f, ...) do { const int code_ = cu.f(__VA_ARGS__); if (code_) fail(#f, code_); } while (0)
static void attach(void)
{
    if (attached || stub) return;
    CALL(current, context);
    attached = true;
}

/* ---- the driver's stand-in */
static int stub_alloc(gpu_ptr *p, size_t n) { void *m = malloc(n); *p = (gpu_ptr)(uintptr_t)m; return m ? 0 : 2; }
static int stub_release(gpu_ptr p) { free((void *)(uintptr_t)p); return 0; }
static int stub_to_gpu(gpu_ptr d, const void *s, size_t n) { memcpy((void *)(uintptr_t)d, s, n); return 0; }
static int stub_to_host(void *d, gpu_ptr s, size_t n) { memcpy(d, (void *)(uintptr_t)s, n); return 0; }
static int stub_sync(void) { return 0; }

/* ---- buffers */
enum { HOST_NEWER, SAME, GPU_NEWER };
typedef struct mirror { fake_buf *b; gpu_ptr gpu; size_t bytes; int state; struct mirror *next, *prev; } mirror;
static mirror *mirrors;
static pthread_mutex_t lock;            /* recursive: of all here */
static bool poison = true;
static uint64_t uploaded, downloaded, launches;
static const size_t page = 16384;

static size_t mapped(const mirror *m) { return (m->b->n + page - 1) / page * page; }
static void protect(const mirror *m, int how) { if (mprotect(m->b->p, mapped(m), how)) fake_die("mprotect of a buffer of %zu bytes", m->b->n); }
/* Pages that the host never wrote are as the fake Metal left them: all ones. */
static bool untouched(const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++) if (p[i] != (char)0xff) return false;
    return true;
}
static void upload(mirror *m)
{
    const char *p = m->b->p;
    for (size_t at = 0, n; at < m->b->n; at += n) {
        n = m->b->n - at;
        if (!poison && m->b->map) {     /* page by page */
            if (n > 4096) n = 4096;
            if (untouched(p + at, n)) continue;
        }
        CALL(to_gpu, m->gpu + at, p + at, n);
        uploaded += n;
    }
}
static mirror *mirror_of(fake_buf *b)
{
    mirror *m = b->elsewhere;
    if (m) return m;
    m = calloc(1, sizeof *m);
    if (!m) fake_die("out of memory");
    m->b = b;
    m->bytes = b->n;
    CALL(alloc, &m->gpu, b->n);
    m->next = mirrors;
    if (mirrors) mirrors->prev = m;
    mirrors = m;
    return b->elsewhere = m;
}
/* In front of a kernel. */
static void to_gpu(mirror *m)
{
    if (m->state != HOST_NEWER) return;
    if (m->b->map) protect(m, PROT_READ);               /* from here on a write is seen */
    upload(m);
    m->state = SAME;
}
static void written_by_gpu(mirror *m)
{
    if (!m->b->map) fake_die("%s: writes a buffer over the host's own memory, which is only read here", fake_doing);
    if (m->state == GPU_NEWER) return;
    protect(m, PROT_NONE);
    m->state = GPU_NEWER;
}
/* The pages are made beside and then put in their place at once: other threads never see half of them. */
static void to_host(mirror *m)
{
    const size_t full = mapped(m);
    char *fresh = mmap(NULL, full, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (fresh == MAP_FAILED) fake_die("out of memory");
    CALL(sync);
    CALL(to_host, fresh, m->gpu, m->b->n);
    downloaded += m->b->n;
    memset(fresh + m->b->n, 0xa5, full - m->b->n);
    if (mprotect(fresh, full, PROT_READ) || mremap(fresh, full, full, MREMAP_MAYMOVE | MREMAP_FIXED, m->b->p) == MAP_FAILED) fake_die("mremap of %zu bytes", full);
    m->state = SAME;
}
static void gone(fake_buf *b)
{
    mirror *m = b->elsewhere;
    if (!m) return;
    pthread_mutex_lock(&lock);
    attach();
    CALL(sync);
    CALL(release, m->gpu);
    if (m->next) m->next->prev = m->prev;
    if (m->prev) m->prev->next = m->next; else mirrors = m->next;
    free(m);
    b->elsewhere = NULL;
    pthread_mutex_unlock(&lock);
}
static struct sigaction old_fault;
static void on_fault(int sig, siginfo_t *si, void *ctx)
{
    const char *p = si->si_addr;
    bool ours = false;
    pthread_mutex_lock(&lock);
    for (mirror *m = mirrors; m && !ours; m = m->next) {
        if (!m->b->map || p < m->b->p || p >= m->b->p + mapped(m)) continue;
        ours = true;
        attach();
        bool write = true;
#if defined(__x86_64__)
        write = ((ucontext_t *)ctx)->uc_mcontext.gregs[REG_ERR] & 2;
#else
        (void)ctx;
#endif
        if (m->state == GPU_NEWER) to_host(m);
        else if (write && m->state == SAME) {
            protect(m, PROT_READ | PROT_WRITE);
            m->state = HOST_NEWER;
        }                               /* else another thread was here first */
    }
    pthread_mutex_unlock(&lock);
    if (!ours) sigaction(sig, &old_fault, NULL);
}

/* ---- opening */
static const char *name(void)
{
    static int tried;                   /* 1: there is one, -1: none */
    pthread_mutex_lock(&lock);
    if (tried == 0 && stub) {
        cu.alloc = stub_alloc; cu.release = stub_release; cu.to_gpu = stub_to_gpu; cu.to_host = stub_to_host; cu.sync = stub_sync;
        snprintf(device_text, sizeof device_text, "no GPU (CPU)");
        tried = 1;
    } else if (tried == 0) {
        void *so = dlopen("libcuda.so.1", RTLD_NOW | RTLD_GLOBAL);
        const char *missing = so ? NULL : "libcuda.so.1";
#define FIND(name, symbol, ...) if (so && !(*(void **)(void *)&cu.name = dlsym(so, symbol))) missing = symbol;
        DRIVER(FIND)
        int device = 0, r = missing ? -1 : cu.init(0);
        if (!r) r = cu.device(&device, 0);
        if (!r) r = cu.device_name(device_text, (int)sizeof device_text - 1, device);
        if (!r) r = cu.retain(&context, device);
        tried = r ? -1 : 1;
        if (missing) fprintf(stderr, "metal on CUDA: this machine has no NVIDIA driver (%s)\n", missing);
        else if (r) { const char *t = "unknown"; cu.error_text(r, &t); fprintf(stderr, "metal on CUDA: this machine's driver gives no GPU: %s (%d)\n", t, r); }
    }
    if (tried == 1) {
        struct sigaction now, mine = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO };
        sigaction(SIGSEGV, NULL, &now);
        if (now.sa_sigaction != on_fault) { old_fault = now; sigaction(SIGSEGV, &mine, NULL); }
        attach();
    }
    pthread_mutex_unlock(&lock);
    return tried == 1 ? device_text : NULL;
}

/* ---- launching */
enum { STREAMS = 16, RING = 4096, SLOT = 4096 };
static struct { char *source; gpu_module module; } programs[16];
static struct { const msl_kernel *k; gpu_function f; } functions[256];
static unsigned n_programs, n_functions, n_streams = 4, in_interval, ring_at;
static gpu_stream streams[STREAMS];
static gpu_event events[STREAMS];
static bool used[STREAMS];
static gpu_ptr ring;
static uint64_t last_cmd, last_place;

static gpu_module program_of(const fake_lib *lib)
{
    for (unsigned i = 0; i < n_programs; i++) if (!strcmp(programs[i].source, lib->source)) return programs[i].module;
    if (n_programs == 16) fake_die("more than 16 libraries of kernels");
    char *log, *path = metalcuda_program(lib, &log);
    if (!path) fake_die("the kernels do not become a CUDA program: %s", log);
    programs[n_programs].source = strdup(lib->source);
    if (!stub) CALL(load, &programs[n_programs].module, path);
    free(path);
    return programs[n_programs++].module;
}
static gpu_function function_of(const fake_run *r)
{
    for (unsigned i = 0; i < n_functions; i++) if (functions[i].k == r->fn->k) return functions[i].f;
    char symbol[200];
    gpu_function f;
    gpu_module m = program_of(r->fn->lib);
    snprintf(symbol, sizeof symbol, "msl_kernel_%s", r->fn->k->name);
    CALL(function, &f, m, symbol);
    if (n_functions == 256) n_functions = 0;
    functions[n_functions].k = r->fn->k;
    functions[n_functions++].f = f;
    return f;
}
/* A stream that comes after all that ran before a barrier. */
static unsigned next_stream(const fake_run *r)
{
    const uint64_t place = (uint64_t)r->encoder << 32 | r->interval;
    if (!streams[0])
        for (unsigned i = 0; i < n_streams; i++) { CALL(stream_new, &streams[i], 0); CALL(event_new, &events[i], 2); } /* without timing */
    if (r->cmd != last_cmd || place != last_place || !r->concurrent) {
        for (unsigned i = 0; i < n_streams; i++) if (used[i]) CALL(event_record, events[i], streams[i]);
        for (unsigned k = 0; k < n_streams; k++)
            for (unsigned i = 0; i < n_streams; i++) if (used[i] && i != k) CALL(stream_wait, streams[k], events[i], 0);
        memset(used, 0, sizeof used);
        in_interval = 0;
    }
    last_cmd = r->cmd;
    last_place = place;
    const unsigned s = in_interval++ % n_streams;
    used[s] = true;
    return s;
}
/* What setBytes gave lies in a ring of the GPU's memory. */
static gpu_ptr put_bytes(const fake_binding *b, gpu_stream s)
{
    if (!ring) CALL(alloc, &ring, (size_t)RING * SLOT);
    if (ring_at % RING == 0) CALL(sync);
    const gpu_ptr at = ring + (gpu_ptr)(ring_at++ % RING) * SLOT;
    CALL(to_gpu_async, at, b->p, (b->n + 15) / 16 * 16, s);
    return at;
}
static bool takes(const fake_run *r, int i)
{
    const int fc = r->fn->k->bind[i].fc;
    return r->fn->k->bind[i].kind == 'b' && (fc < 0 || *(const unsigned char *)r->fn->lib->l->constants[fc].at != 0);
}
static void on_stub(const fake_run *r)
{
    fake_run copy = *r;
    for (int i = 0; i < MSL_BUFFERS; i++)
        if (r->bind[i].buf) copy.bind[i] = (fake_binding){ .p = (char *)(uintptr_t)((mirror *)r->bind[i].buf->elsewhere)->gpu + r->bind[i].at, .n = r->bind[i].n };
    fake_run_dispatch(&copy);
}
static void dispatch(fake_run *r)
{
    const msl_kernel *k = r->fn->k;
    const msl_library *l = r->fn->lib->l;
    struct msl_launch at = { .padding = 0 };
    const unsigned n = r->threads[0] * r->threads[1] * r->threads[2];
    pthread_mutex_lock(&lock);
    attach();
    snprintf(fake_doing, sizeof fake_doing, "kernel %s", k->name);
    if (n % 32 || (r->exact && (r->grid[0] % r->threads[0] || r->grid[1] % r->threads[1] || r->grid[2] % r->threads[2])))
        fake_die("kernel %s: SIMD-groups of less than 32 threads are not made for CUDA here", k->name);
    for (int i = 0; i < k->n; i++) if (takes(r, i) && r->bind[k->bind[i].index].buf) to_gpu(mirror_of(r->bind[k->bind[i].index].buf));
    for (int i = 0; i < k->n; i++) if (takes(r, i) && r->bind[k->bind[i].index].buf && !k->param[i].konst) written_by_gpu(mirror_of(r->bind[k->bind[i].index].buf));
    launches++;
    if (stub) {
        program_of(r->fn->lib);
        on_stub(r);
        pthread_mutex_unlock(&lock);
        return;
    }
    const unsigned s = next_stream(r);
    size_t shared = 0;
    for (int i = 0; i < MSL_BUFFERS; i++) {
        at.tg_at[i] = (unsigned)shared;
        shared += (r->tgmem[i] + 15) / 16 * 16;
        const fake_binding *b = &r->bind[i];
        if (b->buf) at.buf[i] = mirror_of(b->buf)->gpu + b->at;
        else if (b->p) at.buf[i] = put_bytes(b, streams[s]);
    }
    for (unsigned i = 0; i < l->n_constants; i++)
        if (r->fn->defined && r->fn->defined[i] && l->constants[i].index < MSL_LAUNCH_CONSTANTS) memcpy(&at.constant[l->constants[i].index], r->fn->values + 8 * i, 4);
    memcpy(at.nominal, r->threads, sizeof at.nominal);
    memcpy(at.grid, r->grid, sizeof at.grid);
    void *params[] = { &at };
    CALL(launch, function_of(r), r->groups[0], r->groups[1], r->groups[2], r->threads[0], r->threads[1], r->threads[2], (unsigned)shared, streams[s], params, NULL);
    pthread_mutex_unlock(&lock);
}
static void finish(void)
{
    pthread_mutex_lock(&lock);
    attach();
    CALL(sync);
    fake_doing[0] = 0;
    pthread_mutex_unlock(&lock);
}
static const fake_executor executor = { name, dispatch, finish, gone };
__attribute__((constructor)) static void begin(void)
{
    pthread_mutexattr_t a;
    pthread_mutexattr_init(&a);
    pthread_mutexattr_settype(&a, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&lock, &a);
    const char *s = getenv("METALCUDA_STREAMS"), *p = getenv("METALCUDA_POISON"), *t = getenv("METALCUDA_STUB");
    if (s && atoi(s) >= 1 && atoi(s) <= STREAMS) n_streams = (unsigned)atoi(s);
    poison = !p || *p != '0';
    stub = t && *t == '1';
    setenv("FAKEMETAL_FAST", "1", 1);   /* the fake Metal's own library is needed for its tables alone */
    fake_set.fast = true;
    if (fake_set.max_threads > 512) fake_set.max_threads = 512;         /* 128 registers a thread */
    fake_elsewhere = &executor;
}
__attribute__((destructor)) static void end(void)
{
    if (getenv("METALCUDA_TOTALS")) fprintf(stderr, "metal on CUDA (%s): %llu kernels, %.1f MiB to the GPU, %.1f MiB back\n", device_text, (unsigned long long)launches,
                                            (double)uploaded / 1048576, (double)downloaded / 1048576);
}
