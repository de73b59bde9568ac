/* Runs a dispatch on the CPU: every GPU thread is a fiber with a stack of its own, switched by a few instructions; a barrier or
 * an operation of a SIMD-group parks a fiber until its peers arrive. A fiber that ends hands its stack to the next thread, so a
 * kernel without meetings costs a call a thread. Threadgroups are shared out to two workers. */
#include "fake.h"
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { ST_NEW, ST_RUN, ST_SIMD, ST_TG, ST_DONE };
enum { REDZONE = 64, STACK = 49152, STAGGER = 1088, ARENA = 131072, CANARY = 256 };
#define CANARY_WORD 0x5ac0ffee5ac0ffeeull
enum { STACKS_AT = 2 << 20, ARENA_AT = 1 << 20 };
_Static_assert(sizeof(fake_worker) < ARENA_AT, "the worker fits before its threadgroup memory");
_Static_assert(STACKS_AT + (size_t)MSL_MAX_THREADS * STACK + 64 * STAGGER < MSL_REGION, "the stacks fit into the region");

void fake_switch(void **save, void *load);
#if defined(__x86_64__)
__asm__(".text\n.globl fake_switch\n.hidden fake_switch\n.type fake_switch,@function\nfake_switch:\n"
        " push %rbp\n push %rbx\n push %r12\n push %r13\n push %r14\n push %r15\n mov %rsp,(%rdi)\n mov %rsi,%rsp\n"
        " pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbx\n pop %rbp\n ret\n.size fake_switch,.-fake_switch\n");
#elif defined(__aarch64__)
__asm__(".text\n.globl fake_switch\n.hidden fake_switch\n.type fake_switch,%function\nfake_switch:\n"
        " sub sp,sp,#160\n stp x19,x20,[sp]\n stp x21,x22,[sp,#16]\n stp x23,x24,[sp,#32]\n stp x25,x26,[sp,#48]\n"
        " stp x27,x28,[sp,#64]\n stp x29,x30,[sp,#80]\n stp d8,d9,[sp,#96]\n stp d10,d11,[sp,#112]\n stp d12,d13,[sp,#128]\n"
        " stp d14,d15,[sp,#144]\n mov x9,sp\n str x9,[x0]\n mov sp,x1\n ldp x19,x20,[sp]\n ldp x21,x22,[sp,#16]\n"
        " ldp x23,x24,[sp,#32]\n ldp x25,x26,[sp,#48]\n ldp x27,x28,[sp,#64]\n ldp x29,x30,[sp,#80]\n ldp d8,d9,[sp,#96]\n"
        " ldp d10,d11,[sp,#112]\n ldp d12,d13,[sp,#128]\n ldp d14,d15,[sp,#144]\n add sp,sp,#160\n ret\n.size fake_switch,.-fake_switch\n");
#else
#error "x86-64 or AArch64"
#endif

static const char *const op_names[] = {
#define NAME(id, name) name,
    MSL_OPS(NAME)
};
static int skip_line;                   /* the mutation: barriers of this line do nothing */
static int seen_lines[1024];
static char *seen_text[1024];
static size_t n_seen;

static fake_worker *of(msl_worker *w) { return (fake_worker *)(void *)w; }
/* The stacks are staggered by a little more than a cache line's worth each, or all of them would fall on the same cache sets. */
static char *stack_base(fake_worker *w, unsigned i) { return (char *)w + STACKS_AT + (size_t)i * STACK + (size_t)(i % 64) * STAGGER; }
static char *stack_top(fake_worker *w, unsigned i) { return stack_base(w, i) + STACK; }

void fake_kernel_die(fake_worker *w, int line, const char *f, ...)
{
    char text[600];
    va_list a;
    va_start(a, f);
    vsnprintf(text, sizeof text, f, a);
    va_end(a);
    const msl_thread *t = w->m.t;
    fake_die("kernel %s%s%.0d: thread (%u,%u,%u) of threadgroup (%u,%u,%u): %s", w->run->fn->k->name, line > 0 ? ", line " : "", line > 0 ? line : 0,
             t->pos[0], t->pos[1], t->pos[2], w->m.tgpos[0], w->m.tgpos[1], w->m.tgpos[2], text);
}

/* ---- the scheduler */
static unsigned lowest(unsigned m) { return (unsigned)__builtin_ctz(m); }
static unsigned highest(unsigned m) { return 31u - (unsigned)__builtin_clz(m); }
/* The next thread that can run, NULL: none. First of the same SIMD-group, which so runs as far ahead of the others as barriers
 * allow (a missing one shows), then of the next one: upwards, or downwards in the second schedule. */
static msl_thread *pick(fake_worker *w)
{
    const msl_thread *t = w->m.t;
    unsigned g = t->sg, ready = w->m.sg[g].ready;
    if (ready == 0) {
        unsigned others = w->sg_ready;
        if (others == 0) return NULL;
        if (w->down) { unsigned below = others & ((1u << g) - 1); g = highest(below ? below : others); }
        else { unsigned above = g == 31 ? 0 : others & ~((2u << g) - 1); g = lowest(above ? above : others); }
        ready = w->m.sg[g].ready;
        return &w->m.thread[g * 32 + (w->down ? highest(ready) : lowest(ready))];
    }
    const unsigned l = t->lane;
    unsigned m = w->down ? ready & ((1u << l) - 1) : l == 31 ? 0 : ready & ~((2u << l) - 1);
    if (m == 0) m = ready;
    return &w->m.thread[g * 32 + (w->down ? highest(m) : lowest(m))];
}
static void unready(fake_worker *w, msl_thread *t)
{
    msl_sg *s = &w->m.sg[t->sg];
    s->ready &= ~(1u << t->lane);
    if (s->ready == 0) w->sg_ready &= ~(1u << t->sg);
}
static void ready(fake_worker *w, unsigned sg, unsigned mask) { w->m.sg[sg].ready |= mask; if (mask) w->sg_ready |= 1u << sg; }
static const char *where(fake_worker *w, const msl_thread *t, char *out, size_t n)
{
    (void)w;
    if (t->state == ST_DONE) snprintf(out, n, "thread %u returned", t->tid);
    else snprintf(out, n, "thread %u waits in %s of line %d", t->tid, t->state == ST_TG ? "threadgroup_barrier" : t->op < MSL_N_OPS ? op_names[t->op] : "?", t->line);
    return out;
}
__attribute__((noreturn)) static void stuck(fake_worker *w)
{
    const msl_thread *a = NULL, *b = NULL;
    for (unsigned i = 0; i < w->m.n; i++) {
        const msl_thread *t = &w->m.thread[i];
        if (t->state == ST_DONE) { if (!b) b = t; continue; }
        if (!a) a = t;
        else if (t->state != a->state || t->line != a->line || t->op != a->op) { b = t; break; }
    }
    char p[160], q[160];
    fake_kernel_die(w, 0, "divergence: %s, %s; %u of %u threads returned", a ? where(w, a, p, sizeof p) : "nobody waits", b ? where(w, b, q, sizeof q) : "nobody is elsewhere",
                    w->m.n - w->live, w->m.n);
}
__attribute__((noreturn)) static void fiber_main(void);
static void *fresh_stack(fake_worker *w, unsigned i)
{
    char *top = stack_top(w, i);
    void **sp = (void **)(top - 64);
#if defined(__x86_64__)
    *--sp = NULL;                       /* at entry rsp is 8 past a multiple of 16 */
    sp -= 7;
    memset(sp, 0, 7 * sizeof *sp);
    sp[6] = (void *)(uintptr_t)fiber_main;
#else
    sp -= 20;
    memset(sp, 0, 20 * sizeof *sp);
    sp[11] = (void *)(uintptr_t)fiber_main;
#endif
    return sp;
}
static void check_stack(fake_worker *w, unsigned i)
{
    const uint64_t *p = (const uint64_t *)(void *)stack_base(w, i);
    for (unsigned k = 0; k < CANARY / 8; k++)
        if (p[k] != CANARY_WORD) fake_kernel_die(w, 0, "a thread uses more than %d bytes of its own memory", STACK - CANARY);
}
/* Leaves the running thread, whose state is set already. */
static void leave(fake_worker *w)
{
    msl_thread *t = w->m.t, *u = pick(w);
    if (*(const uint64_t *)(void *)stack_base(w, t->stack) != CANARY_WORD) check_stack(w, t->stack);
    if (!u) stuck(w);
    w->m.t = u;
    if (u->state == ST_NEW) {
        if (w->n_free == 0) fake_kernel_die(w, 0, "no stack left");
        u->stack = w->free_stack[--w->n_free];
        u->sp = fresh_stack(w, u->stack);
        u->state = ST_RUN;
    }
    fake_switch(&t->sp, u->sp);
}
__attribute__((noreturn)) static void fiber_main(void)
{
    uintptr_t here = (uintptr_t)__builtin_frame_address(0);
    fake_worker *w = (fake_worker *)(here & ~(uintptr_t)(MSL_REGION - 1));
    for (;;) {
        w->body(&w->m);
        msl_thread *t = w->m.t;
        msl_sg *s = &w->m.sg[t->sg];
        t->state = ST_DONE;
        w->live--;
        s->done |= 1u << t->lane;
        unready(w, t);
        if (s->waiting) stuck(w);
        if (s->done == s->lanes) {
            const unsigned lo = t->sg * 32u;
            for (unsigned i = 0; i < 32; i++)
                if ((s->lanes >> i & 1) && w->m.thread[lo + i].mat_hash != t->mat_hash)
                    fake_kernel_die(w, 0, "lanes %u and %u of a SIMD-group made different matrix operations, or with different arguments", t->lane, i);
        }
        msl_thread *u = pick(w);
        if (!u) {
            if (w->live) stuck(w);
            check_stack(w, t->stack);
            w->free_stack[w->n_free++] = t->stack;
            void *gone;
            fake_switch(&gone, w->main_sp);
        }
        w->m.t = u;
        if (u->state == ST_NEW) { u->stack = t->stack; u->state = ST_RUN; continue; }
        check_stack(w, t->stack);
        w->free_stack[w->n_free++] = t->stack;
        void *gone;
        fake_switch(&gone, u->sp);
    }
}

/* ---- meetings, called by kernels */
static int meet(msl_worker *mw, int op, int line)
{
    fake_worker *w = of(mw);
    msl_thread *t = mw->t;
    msl_sg *s = &mw->sg[t->sg];
    if (s->done) { t->op = (unsigned short)op; t->line = line; t->state = ST_SIMD; stuck(w); }
    if (s->waiting == 0) {
        s->op = op; s->line = line; s->mat_hash = t->mat_hash;
    } else {
        if (s->op != op || s->line != line)
            fake_kernel_die(w, line, "%s, but other lanes of its SIMD-group are in %s of line %d", op_names[op], op_names[s->op], s->line);
        if (s->mat_hash != t->mat_hash)
            fake_kernel_die(w, line, "lanes of a SIMD-group made different matrix operations, or with different arguments, before %s", op_names[op]);
    }
    s->waiting |= 1u << t->lane;
    if (s->waiting == s->lanes) {
        const unsigned others = s->waiting & ~(1u << t->lane);
        s->waiting = 0;
        const unsigned lo = t->sg * 32u;
        for (unsigned m = others; m; m &= m - 1) mw->thread[lo + lowest(m)].state = ST_RUN;
        ready(w, t->sg, others);
        t->mat_hash = 0;
        return 1;
    }
    t->state = ST_SIMD;
    t->op = (unsigned short)op;
    t->line = line;
    unready(w, t);
    leave(w);
    t->mat_hash = 0;
    return 0;
}
static bool skipped(const fake_worker *w, int line)
{
    size_t n = __atomic_load_n(&n_seen, __ATOMIC_RELAXED);
    for (size_t i = 0; i < n; i++)
        if (seen_lines[i] == line) return line == skip_line;
    if (n < sizeof seen_lines / sizeof *seen_lines) {
        char text[200];
        seen_lines[n] = line;
        seen_text[n] = strdup(fake_source_line(w->run->fn->lib, line, text, sizeof text));
        __atomic_store_n(&n_seen, n + 1, __ATOMIC_RELAXED);
    }
    return line == skip_line;
}
static void simd_barrier(msl_worker *mw, unsigned flags, int line)
{
    if (skipped(of(mw), line)) return;
    msl_sg *s = &mw->sg[mw->t->sg];
    if (meet(mw, MSL_OP_BARRIER, line) && (flags & 3)) s->epoch++;
}
static void barrier(msl_worker *mw, unsigned flags, int line)
{
    fake_worker *w = of(mw);
    if (skipped(w, line)) return;
    msl_thread *t = mw->t;
    msl_sg *s = &mw->sg[t->sg];
    if (s->waiting || s->done) { t->state = ST_TG; t->line = line; unready(w, t); stuck(w); }
    if (w->tg_waiting == 0) { w->tg_line = line; w->tg_flags = flags; }
    else if (w->tg_line != line)
        fake_kernel_die(w, line, "threadgroup_barrier, but other threads are in the one of line %d", w->tg_line);
    if (++w->tg_waiting == w->m.n) {
        w->tg_waiting = 0;
        for (unsigned i = 0; i < w->m.n; i++) {
            msl_thread *o = &mw->thread[i];
            if (mw->thread[i & ~31u].mat_hash != o->mat_hash)
                fake_kernel_die(w, line, "lanes of a SIMD-group made different matrix operations, or with different arguments, before this barrier");
            if (o->state == ST_TG) o->state = ST_RUN;
        }
        for (unsigned i = 0; i < w->m.n; i++) mw->thread[i].mat_hash = 0;
        for (unsigned g = 0; g < w->m.n_sg; g++) ready(w, g, mw->sg[g].lanes);
        if (flags & 2) w->epoch_tg++;
        if (flags & 1) w->epoch_dev++;
        return;
    }
    t->state = ST_TG;
    t->line = line;
    unready(w, t);
    leave(w);
}
static unsigned long tg_reserve(fake_worker *w, unsigned long size, unsigned long align)
{
    unsigned long at = (w->tg_used + align - 1) / align * align;
    w->tg_used = at + size + REDZONE;
    w->tg_bytes += (size + 15) / 16 * 16;
    if (w->tg_bytes > MSL_TG_MEMORY || w->tg_used > ARENA)
        fake_die("kernel %s: %lu bytes of threadgroup memory, more than %d", w->run->fn->k->name, w->tg_bytes, MSL_TG_MEMORY);
    w->tg_range[w->n_tg_ranges].at = w->m.tg_base + at;
    w->tg_range[w->n_tg_ranges++].n = size;
    memset((char *)w->m.tg_base + at, 0xff, size);      /* NaN: what nobody wrote is seen */
    return at;
}
static void *tgvar(msl_worker *mw, unsigned idn, unsigned long size, unsigned long align, const char *name)
{
    fake_worker *w = of(mw);
    for (unsigned i = 0; i < w->n_tgvars; i++)
        if (w->tgvar[i].id == idn) return (char *)mw->tg_base + w->tgvar[i].at;
    if (w->n_tgvars == 64) fake_kernel_die(w, 0, "more than 64 threadgroup variables");
    unsigned long at = tg_reserve(w, size, align < 16 ? 16 : align);
    w->tgvar[w->n_tgvars].id = idn;
    w->tgvar[w->n_tgvars].at = at;
    w->tgvar[w->n_tgvars].size = size;
    w->tgvar[w->n_tgvars++].name = name;
    return (char *)mw->tg_base + at;
}
static void kernel_fail(msl_worker *mw, int line, const char *what) { fake_kernel_die(of(mw), line, "%s", what); }
const msl_rt fake_rt = { meet, barrier, simd_barrier, tgvar, kernel_fail, fake_touch };

/* ---- workers */
static fake_worker *workers[16];
static fake_worker *worker_make(unsigned index)
{
    char *p = mmap(NULL, 2 * (size_t)MSL_REGION, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) fake_die("no address space for the stacks");
    char *base = (char *)(((uintptr_t)p + MSL_REGION - 1) & ~(uintptr_t)(MSL_REGION - 1));
    if (mprotect(base, MSL_REGION, PROT_READ | PROT_WRITE)) fake_die("no memory for the stacks");
    fake_worker *w = (fake_worker *)(void *)base;
    w->index = index;
    w->rt = fake_rt;
    w->m.rt = &w->rt;
    w->m.tg_base = (unsigned long)base + ARENA_AT;
    w->m.tg_size = ARENA;
    for (unsigned i = 0; i < MSL_MAX_THREADS; i++) {
        w->free_stack[MSL_MAX_THREADS - 1 - i] = (unsigned short)i;
        uint64_t *c = (uint64_t *)(void *)stack_base(w, i);
        for (unsigned k = 0; k < CANARY / 8; k++) c[k] = CANARY_WORD;
    }
    w->n_free = MSL_MAX_THREADS;
    fake_check_worker(w, ARENA);
    return w;
}
static void run_group(fake_worker *w, uint64_t number)
{
    fake_run *r = w->run;
    msl_worker *m = &w->m;
    m->tgpos[0] = (unsigned)(number % r->groups[0]);
    m->tgpos[1] = (unsigned)(number / r->groups[0] % r->groups[1]);
    m->tgpos[2] = (unsigned)(number / ((uint64_t)r->groups[0] * r->groups[1]));
    m->n = 1;
    for (int i = 0; i < 3; i++) {
        m->tpt[i] = r->threads[i];
        if (r->exact && m->tgpos[i] == r->groups[i] - 1) m->tpt[i] = r->grid[i] - m->tgpos[i] * r->threads[i];
        m->n *= m->tpt[i];
    }
    m->n_sg = (m->n + 31) / 32;
    w->group = number;
    w->live = m->n;
    w->tg_waiting = 0;
    w->epoch_tg++;                      /* never the same in two groups */
    w->epoch_dev = 1;
    w->tg_serial++;
    w->tg_used = REDZONE;
    w->tg_bytes = 0;
    w->n_tgvars = w->n_tg_ranges = w->last_tg = 0;
    for (int i = 0; i < MSL_BUFFERS; i++)
        m->tgmem[i] = r->uses_tg[i] && r->tgmem[i] ? (char *)m->tg_base + tg_reserve(w, r->tgmem[i], 64) : NULL;
    unsigned x = 0, y = 0, z = 0;
    for (unsigned i = 0; i < m->n; i++) {
        msl_thread *t = &m->thread[i];
        t->tid = i;
        t->pos[0] = x; t->pos[1] = y; t->pos[2] = z;
        if (++x == m->tpt[0]) { x = 0; if (++y == m->tpt[1]) { y = 0; z++; } }
        t->lane = (unsigned char)(i % 32);
        t->sg = (unsigned char)(i / 32);
        t->state = ST_NEW;
        t->par = 0;
        t->atomic = 0;
        t->mat_hash = 0;
    }
    w->sg_ready = m->n_sg == 32 ? ~0u : (1u << m->n_sg) - 1;
    for (unsigned g = 0; g < m->n_sg; g++) {
        msl_sg *s = &m->sg[g];
        unsigned lanes = m->n - g * 32 < 32 ? (1u << (m->n - g * 32)) - 1 : ~0u;
        s->lanes = s->ready = lanes;
        s->done = s->waiting = 0;
        s->epoch = 1;
    }
    unsigned first = w->down ? m->n - 1 : 0;
    m->t = &m->thread[first];
    m->t->state = ST_RUN;
    m->t->stack = w->free_stack[--w->n_free];
    fake_switch(&w->main_sp, fresh_stack(w, m->t->stack));
}

/* ---- a dispatch on all workers */
static struct { pthread_mutex_t lock; pthread_cond_t go, done; uint64_t round; unsigned busy, started; fake_run *run; uint64_t next, total, born[16]; } crew = {
    .lock = PTHREAD_MUTEX_INITIALIZER, .go = PTHREAD_COND_INITIALIZER, .done = PTHREAD_COND_INITIALIZER };
static __thread fake_worker *mine;      /* for the signal handler */
static void work(fake_worker *w, fake_run *r)
{
    mine = w;
    w->run = r;
    w->down = fake_set.schedule & 1;
    w->body = r->fn->k->body;
    w->last_region = 0;
    w->n_read = w->n_written = 0;
    for (int i = 0; i < MSL_BUFFERS; i++) w->m.buf[i] = (void *)(uintptr_t)r->bind[i].p;
    for (int i = 0; i < 3; i++) {
        w->m.tgs[i] = r->groups[i];
        w->m.nominal[i] = r->threads[i];
        w->m.grid[i] = r->grid[i];
    }
    for (;;) {
        uint64_t k = __atomic_fetch_add(&crew.next, 1, __ATOMIC_RELAXED);
        if (k >= crew.total) break;
        run_group(w, w->down ? crew.total - 1 - k : k);
    }
    mine = NULL;
}
__attribute__((noreturn)) static void *helper(void *p)
{
    unsigned index = (unsigned)(uintptr_t)p;
    pthread_mutex_lock(&crew.lock);
    uint64_t seen = crew.born[index];
    for (;;) {
        while (crew.round == seen) pthread_cond_wait(&crew.go, &crew.lock);
        seen = crew.round;
        fake_run *r = crew.run;
        pthread_mutex_unlock(&crew.lock);
        work(workers[index], r);
        pthread_mutex_lock(&crew.lock);
        if (--crew.busy == 0) pthread_cond_signal(&crew.done);
    }
}
static struct sigaction old_segv, old_bus;
static void on_fault(int sig, siginfo_t *si, void *ctx)
{
    (void)ctx;
    fake_worker *w = mine;
    if (!w) {                           /* not ours: as if we had not been there */
        sigaction(sig, sig == SIGSEGV ? &old_segv : &old_bus, NULL);
        return;
    }
    const char *p = si->si_addr;
    if (p >= (char *)w && p < (char *)w + MSL_REGION) fake_kernel_die(w, 0, "a thread's own memory overflowed");
    for (int i = 0; i < MSL_BUFFERS; i++) {
        const fake_binding *b = &w->run->bind[i];
        if (b->buf && p >= b->buf->p - (1 << 20) && p < b->buf->p + b->buf->n + (1 << 20))
            fake_kernel_die(w, 0, "access %ld bytes from the start of buffer %d, which has %zu bytes from its offset %zu", (long)(p - (const char *)b->p), i, b->n, b->at);
    }
    fake_kernel_die(w, 0, "access to address %p, which is in no buffer", (const void *)p);
}
void fake_run_dispatch(fake_run *r)
{
    static bool installed;
    if (!installed) {
        installed = true;
        struct sigaction sa = { 0 };
        sa.sa_sigaction = on_fault;
        sa.sa_flags = SA_SIGINFO;
        sigaction(SIGSEGV, &sa, &old_segv);
        sigaction(SIGBUS, &sa, &old_bus);
    }
    unsigned n = fake_set.workers < 1 ? 1 : fake_set.workers > 16 ? 16 : fake_set.workers;
    uint64_t total = (uint64_t)r->groups[0] * r->groups[1] * r->groups[2];
    if (total < n || total * r->threads[0] * r->threads[1] * r->threads[2] < 256) n = 1;
    for (unsigned i = 0; i < n; i++) if (!workers[i]) workers[i] = worker_make(i);
    snprintf(fake_doing, sizeof fake_doing, "kernel %s", r->fn->k->name);
    if (!fake_set.fast) fake_check_begin(r);
    pthread_mutex_lock(&crew.lock);
    crew.next = 0;
    crew.total = total;
    if (n > 1) {
        while (crew.started < n - 1) {
            pthread_t t;
            sigset_t all, old;
            sigfillset(&all);
            sigdelset(&all, SIGSEGV);
            sigdelset(&all, SIGBUS);
            pthread_sigmask(SIG_BLOCK, &all, &old);     /* the program's signals are for its own threads */
            crew.born[++crew.started] = crew.round;
            if (pthread_create(&t, NULL, helper, (void *)(uintptr_t)crew.started)) fake_die("no thread");
            pthread_detach(t);
            pthread_sigmask(SIG_SETMASK, &old, NULL);
        }
        crew.run = r;
        crew.busy = crew.started;
        for (unsigned i = 1; i <= crew.started; i++) if (!workers[i]) workers[i] = worker_make(i);
        crew.round++;
        pthread_cond_broadcast(&crew.go);
    }
    pthread_mutex_unlock(&crew.lock);
    work(workers[0], r);
    if (n > 1) {
        pthread_mutex_lock(&crew.lock);
        while (crew.busy) pthread_cond_wait(&crew.done, &crew.lock);
        pthread_mutex_unlock(&crew.lock);
    }
    if (!fake_set.fast) fake_check_end(r);
    fake_doing[0] = 0;
}

/* FAKEMETAL_BARRIERS=file: the kernel barriers that ran, for tools/metal_mutate.sh */
__attribute__((destructor)) static void write_barriers(void)
{
    const char *path = getenv("FAKEMETAL_BARRIERS");
    FILE *f = path && n_seen ? fopen(path, "a") : NULL;
    if (!f) return;
    for (size_t i = 0; i < n_seen; i++) fprintf(f, "%d\t%s\n", seen_lines[i], seen_text[i] ? seen_text[i] : "");
    fclose(f);
}
void fakemetal_skip_barrier(int line)
{
    skip_line = line > 0 ? line : 0;
    if (line < 0) n_seen = 0;
}
size_t fakemetal_barriers(int *lines, size_t max)
{
    for (size_t i = 0; i < n_seen && i < max; i++) lines[i] = seen_lines[i];
    return n_seen;
}
