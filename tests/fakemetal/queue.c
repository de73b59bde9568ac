/* Command queues, command buffers, encoders, events: what is encoded is kept and runs late, when somebody waits for it, in an
 * order that shows what is missing: dispatches that no barrier separates run last to first (in the second schedule first to last). */
#include "fake.h"
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct Fence { FAKE_HEAD; uint64_t by; bool updated; const struct Queue *q; const struct Enc *encoder; } Fence; /* by: the encoder that last updated it when it ran; q: whose it is; encoder: that encoded the last update */
typedef struct Event { FAKE_HEAD; uint64_t value; int polls; bool shared; } Event;
enum { OP_DISPATCH, OP_COPY, OP_FILL, OP_SIGNAL, OP_WAIT, OP_FENCE_UPDATE, OP_FENCE_WAIT };
typedef struct Op {
    int kind;
    uint32_t encoder, interval;
    bool concurrent;
    fake_pso *pso;
    fake_binding bind[MSL_BUFFERS];
    size_t tgmem[MSL_BUFFERS];
    MTLSize groups, threads, grid;
    bool exact;
    fake_buf *src, *dst;                /* copies and fills */
    size_t src_at, dst_at, bytes;
    unsigned char value;
    Event *event;
    Fence *fence;
    uint64_t event_value;
} Op;
typedef struct Queue { FAKE_HEAD; struct Cmd *first, *last; unsigned open; unsigned max; id sets[32]; int n_sets; struct Queue *next; } Queue;
typedef struct Cmd {
    FAKE_HEAD;
    Queue *q;
    Op *op; size_t n_op, cap_op, at;
    int status;                         /* MTLCommandBufferStatus: 0 not enqueued, 1 enqueued, 2 committed, 3 scheduled, 4 completed, 5 error */
    char error[300];
    long error_code;
    size_t whole;                       /* so much of it runs: all, but for one that fails */
    struct Enc *open;
    bool retains, enqueued;
    bool fresh;                         /* committed when all before it had completed */
    uint32_t encoders;
    uint64_t number;
    double t0, t1;
    void **bytes; size_t n_bytes;
    void *done[16], *scheduled[16]; int n_done, n_scheduled;
    id *held; size_t n_held;
    int polls;
    struct Cmd *next;
} Cmd;
typedef struct Enc { FAKE_HEAD; Cmd *cb; bool ended, concurrent, blit; uint32_t interval; Op cur; id used[64]; int n_used; } Enc;

static pthread_mutex_t lock;            /* of everything here; held while kernels run */
static uint64_t running, previous;      /* encoders, as they run */
static bool ordered;                    /* what runs now comes after all that ran before */
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static Queue *queues;
static fakemetal_totals counts;
static uint64_t numbers, serials, barriers_seen;
static long skip_memory_barrier = -1;
static fakemetal_dispatch *list;
static size_t n_list, cap_list;
static bool keep;
__attribute__((constructor)) static void begin(void)
{
    pthread_mutexattr_t a;
    pthread_mutexattr_init(&a);
    pthread_mutexattr_settype(&a, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&lock, &a);
    const char *s = getenv("FAKEMETAL_SKIP_MEMORY_BARRIER");
    if (s) skip_memory_barrier = atol(s);
}
static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
static void label(id o, SEL s, id l) { (void)o; (void)s; if (l) (void)fake_str(l); }
static id no_label(id o, SEL s) { (void)o; (void)s; return NULL; }

/* ---- queues and command buffers */
id fake_queue_new(id d)
{
    (void)d;
    Queue *q = (Queue *)fake_new(&fake_Queue, sizeof *q);
    q->max = 64;
    pthread_mutex_lock(&lock);
    q->next = queues;
    queues = q;
    pthread_mutex_unlock(&lock);
    return (id)q;
}
static bool progress(void);
static void queue_dealloc(id o)
{
    Queue *q = (Queue *)o;
    pthread_mutex_lock(&lock);
    if (q->first) fake_die("a command queue was freed with committed command buffers that have not run");
    for (Queue **p = &queues; *p; p = &(*p)->next) if (*p == q) { *p = q->next; break; }
    for (int i = 0; i < q->n_sets; i++) fake_release(q->sets[i]);
    pthread_mutex_unlock(&lock);
}
static id queue_command(id o, bool retains)
{
    Queue *q = (Queue *)o;
    pthread_mutex_lock(&lock);
    while (q->open >= q->max) {
        if (!q->first) fake_die("-[MTLCommandQueue commandBuffer]: would wait for ever, %u command buffers of this queue are neither committed nor freed", q->open);
        if (!progress()) fake_die("-[MTLCommandQueue commandBuffer]: would wait for ever for an event");
    }
    q->open++;
    pthread_mutex_unlock(&lock);
    Cmd *c = (Cmd *)fake_new(&fake_Cmd, sizeof *c);
    c->q = (Queue *)fake_retain(o);
    c->retains = retains;
    return fake_autorelease((id)c);
}
static id q_command(id o, SEL s) { (void)s; return queue_command(o, true); }
static id q_command_unretained(id o, SEL s) { (void)s; return queue_command(o, false); }
typedef struct { FAKE_HEAD; OBJCBOOL retains; } CmdDesc;
static void cd_retains(id o, SEL s, OBJCBOOL v) { (void)s; ((CmdDesc *)o)->retains = !v; }
static void cd_ignored(id o, SEL s, NSUInteger v) { (void)o; (void)s; (void)v; }
FAKE_CLASS(fake_CmdDesc, "MTLCommandBufferDescriptor", NULL, sizeof(CmdDesc), 0, M("setRetainedReferences:", cd_retains), M("setErrorOptions:", cd_ignored));
static id q_command_desc(id o, SEL s, id d) { (void)s; if (!fake_is(d, &fake_CmdDesc)) fake_die("commandBufferWithDescriptor: not a descriptor"); return queue_command(o, !((CmdDesc *)d)->retains); }
static void q_add_set(id o, SEL s, id set)
{
    (void)s;
    Queue *q = (Queue *)o;
    if (!fake_is(set, &fake_Residency)) fake_die("addResidencySet: not a residency set");
    if (q->n_sets == 32) fake_die("addResidencySet: more than 32 on one queue");
    q->sets[q->n_sets++] = fake_retain(set);
}
static void q_remove_set(id o, SEL s, id set)
{
    (void)s;
    Queue *q = (Queue *)o;
    for (int i = 0; i < q->n_sets; i++) if (q->sets[i] == set) { q->sets[i] = q->sets[--q->n_sets]; fake_release(set); return; }
    fake_die("removeResidencySet: it is not on this queue");
}
FAKE_CLASS(fake_Queue, "MTLCommandQueue", queue_dealloc, 0, 0, M("commandBuffer", q_command), M("commandBufferWithUnretainedReferences", q_command_unretained), M("commandBufferWithDescriptor:", q_command_desc),
           M("setLabel:", label), M("label", no_label), M15("addResidencySet:", q_add_set), M15("removeResidencySet:", q_remove_set));

static void hold(Cmd *c, void *o)
{
    if (!o || !c->retains) return;
    c->held = realloc(c->held, (c->n_held + 1) * sizeof *c->held);
    if (!c->held) fake_die("out of memory");
    c->held[c->n_held++] = fake_retain((id)o);
}
static Op *add_op(Cmd *c, const Op *op)
{
    if (c->n_op == c->cap_op) {
        c->cap_op = c->cap_op ? c->cap_op * 2 : 16;
        c->op = realloc(c->op, c->cap_op * sizeof *c->op);
        if (!c->op) fake_die("out of memory");
    }
    c->op[c->n_op] = *op;
    return &c->op[c->n_op++];
}
static void cmd_empty(Cmd *c)
{
    for (size_t i = 0; i < c->n_bytes; i++) free(c->bytes[i]);
    for (size_t i = 0; i < c->n_held; i++) fake_release(c->held[i]);
    free(c->bytes);
    free(c->held);
    free(c->op);
    c->bytes = NULL;
    c->held = NULL;
    c->op = NULL;
    c->n_bytes = c->n_held = c->n_op = c->cap_op = 0;
}
static void cmd_dealloc(id o)
{
    Cmd *c = (Cmd *)o;
    if (c->open) fake_die("a command buffer was freed with an open encoder");
    if (c->status == 2 || c->status == 3) fake_die("a committed command buffer was freed");
    for (int i = 0; i < c->n_done; i++) fake_block_release(c->done[i]);
    for (int i = 0; i < c->n_scheduled; i++) fake_block_release(c->scheduled[i]);
    if (c->status < 4) { pthread_mutex_lock(&lock); c->q->open--; pthread_mutex_unlock(&lock); }
    cmd_empty(c);
    fake_release((id)c->q);
}
static id encoder(id o, fake_class *k, bool concurrent, bool blit)
{
    Cmd *c = (Cmd *)o;
    if (c->open) fake_die("an encoder is still open on this command buffer");
    if (c->status >= 2) fake_die("encoding into a command buffer after commit");
    Enc *e = (Enc *)fake_new(k, sizeof *e);
    e->cb = c;
    e->concurrent = concurrent;
    e->blit = blit;
    e->cur.encoder = c->encoders++;
    e->cur.concurrent = concurrent;
    c->open = e;
    return fake_autorelease((id)e);
}
static id cb_encoder(id o, SEL s) { (void)s; return encoder(o, &fake_Enc, false, false); }
static id cb_encoder_type(id o, SEL s, NSUInteger type) { (void)s; if (type > 1) fake_die("computeCommandEncoderWithDispatchType: %lu", type); return encoder(o, &fake_Enc, type == 1, false); }
static id cb_blit(id o, SEL s) { (void)s; return encoder(o, &fake_Blit, false, true); }
static void enc_dealloc(id o) { if (!((Enc *)o)->ended) fake_die("an encoder was freed before endEncoding"); }

/* ---- running */
static pthread_t runner;
static bool runner_started, runner_wanted;
static void *run_async(void *p)
{
    (void)p;
    pthread_mutex_lock(&lock);
    for (;;) {
        while (!runner_wanted) pthread_cond_wait(&changed, &lock);
        runner_wanted = false;
        void *token;
        fake_pool_enter(&token);
        while (progress()) { pthread_mutex_unlock(&lock); pthread_mutex_lock(&lock); }
        fake_pool_leave(token);
    }
    return NULL;
}
static void wake_runner(void)
{
    if (!runner_started) {
        runner_started = true;
        if (pthread_create(&runner, NULL, run_async, NULL)) fake_die("no thread");
        pthread_detach(runner);
    }
    runner_wanted = true;
    pthread_cond_broadcast(&changed);
}
static void cb_enqueue(id o, SEL s)
{
    (void)s;
    Cmd *c = (Cmd *)o;
    pthread_mutex_lock(&lock);
    if (c->status != 0) fake_die("-[MTLCommandBuffer enqueue]: twice, or after commit");
    c->status = 1;
    c->enqueued = true;
    c->next = NULL;
    if (c->q->last) c->q->last->next = c; else c->q->first = c;
    c->q->last = c;
    fake_retain(o);
    pthread_mutex_unlock(&lock);
}
static void cb_commit(id o, SEL s)
{
    Cmd *c = (Cmd *)o;
    pthread_mutex_lock(&lock);
    if (c->open) fake_die("-[MTLCommandBuffer commit] with an open encoder");
    if (c->status >= 2) fake_die("-[MTLCommandBuffer commit]: second commit");
    if (!c->enqueued) cb_enqueue(o, s);
    for (int i = 0; i < c->q->n_sets; i++) fake_residency_check(c->q->sets[i]);
    c->status = 2;
    c->number = ++numbers;
    c->fresh = c->q->first == c;
    counts.command_buffers++;
    if (fake_set.async || c->n_done || c->n_scheduled) wake_runner();
    pthread_mutex_unlock(&lock);
}
static void alive(const void *o, const fake_class *c, const Op *op, const char *what, int i)
{
    if (o && ((const struct fake_obj *)o)->isa != c) fake_die("kernel %s: %s %d was freed before the command buffer ran", op->pso ? op->pso->fn->k->name : "-", what, i);
}
static void record(const Op *op, Cmd *c, const fake_run *r, double seconds)
{
    counts.dispatches++;
    counts.bytes_read += r->bytes_read;
    counts.bytes_written += r->bytes_written;
    if (!keep && !fake_set.keep_all) return;
    if (n_list == cap_list) {
        cap_list = cap_list ? cap_list * 2 : 256;
        list = realloc(list, cap_list * sizeof *list);
        if (!list) fake_die("out of memory");
    }
    fakemetal_dispatch *d = &list[n_list++];
    memset(d, 0, sizeof *d);
    snprintf(d->kernel, sizeof d->kernel, "%s", r->fn->k->name);
    memcpy(d->groups, r->groups, sizeof d->groups);
    memcpy(d->threads, r->threads, sizeof d->threads);
    d->command_buffer = c->number;
    d->encoder = op->encoder;
    d->interval = op->interval;
    d->bytes_read = r->bytes_read;
    d->bytes_written = r->bytes_written;
    d->seconds = seconds;
}
static void constants(const fake_fn *f)
{
    const msl_library *l = f->lib->l;
    for (unsigned i = 0; i < l->n_constants; i++) {
        const msl_constant *k = &l->constants[i];
        if (k->index == ~0u) continue;
        if (f->values && f->defined[i]) memcpy(k->at, f->values + 8 * i, k->size); else memset(k->at, 0xa5, k->size);
        *k->defined = f->values && f->defined[i];
    }
    l->init_constants();
}
static bool constant_true(const fake_fn *f, int i) { return i < 0 || *(const unsigned char *)f->lib->l->constants[i].at != 0; }
static void run_dispatch(Cmd *c, Op *op)
{
    alive(op->pso, &fake_Pso, op, "its pipeline", 0);
    const fake_fn *f = op->pso->fn;
    fake_run r = { .fn = f, .exact = op->exact, .cmd = c->number, .encoder = op->encoder, .interval = op->interval, .concurrent = op->concurrent, .ordered = ordered, .serial = ++serials };
    constants(f);
    for (int i = 0; i < f->k->n; i++) {
        const msl_bind *b = &f->k->bind[i];
        const msl_param *p = &f->k->param[i];
        if (strchr("pinGdgN", b->kind)) {       /* positions and sizes: all the dimensions that are dispatched */
            const MTLSize *g = &op->groups, *t = &op->threads;
            const NSUInteger y = (strchr("inGdN", b->kind) ? t->h : 1) * (strchr("pGgN", b->kind) ? g->h : 1), z = (strchr("inGdN", b->kind) ? t->d : 1) * (strchr("pGgN", b->kind) ? g->d : 1);
            if ((p->align < 2 && y > 1) || (p->align < 3 && z > 1)) fake_die("kernel %s: parameter %s has %u dimension%s, the dispatch has more", f->k->name, b->name, p->align, p->align == 1 ? "" : "s");
            continue;
        }
        if ((b->kind != 'b' && b->kind != 't') || !constant_true(f, b->fc)) continue;
        if (b->kind == 't') {
            r.uses_tg[b->index] = true;
            if (!op->tgmem[b->index]) fake_die("kernel %s: threadgroup memory %d (%s) has no length", f->k->name, b->index, b->name);
            if (p->ref && op->tgmem[b->index] < p->size) fake_die("kernel %s: threadgroup memory %d (%s) has %zu bytes, its type %u", f->k->name, b->index, b->name, op->tgmem[b->index], p->size);
            continue;
        }
        fake_binding *v = &op->bind[b->index];
        if (!v->p && !v->buf) fake_die("kernel %s: buffer %d (%s) is not bound", f->k->name, b->index, b->name);
        if (v->buf) {
            alive(v->buf, &fake_Buf, op, "buffer", b->index);
            v->p = v->buf->p + v->at;
            const size_t rest = v->buf->n - v->at;
            if (v->n > rest) fake_die("kernel %s: buffer %d (%s) is said to have %zu bytes, from its offset on it has %zu", f->k->name, b->index, b->name, v->n, rest);
            if (v->n == 0) v->n = rest;
            if (b->constant && v->at % 256) fake_die("kernel %s: buffer %d (%s) is in the constant address space: offset %zu is not a multiple of 256, which not every Mac takes", f->k->name, b->index, b->name, v->at);
            if (b->constant && v->n > 65536) fake_die("kernel %s: buffer %d (%s) is in the constant address space with %zu bytes, at most 64 KB", f->k->name, b->index, b->name, v->n);
            if (v->buf->read_only && !p->konst) fake_die("kernel %s: buffer %d (%s) is memory that is mapped for reading, and the kernel may write it", f->k->name, b->index, b->name);
            if ((uintptr_t)v->p % (p->align < 4 ? 4 : p->align)) fake_die("kernel %s: buffer %d (%s): offset %zu is not a multiple of %u", f->k->name, b->index, b->name, v->at, p->align < 4 ? 4 : p->align);
        } else if (!p->konst) fake_die("kernel %s: setBytes for buffer %d (%s), which the kernel may write", f->k->name, b->index, b->name);
        if (v->n < p->size && (p->ref || v->n == 0)) fake_die("kernel %s: buffer %d (%s) has %zu bytes, its type %u", f->k->name, b->index, b->name, v->n, p->size);
        r.bind[b->index] = *v;
    }
    memcpy(r.tgmem, op->tgmem, sizeof r.tgmem);
    const MTLSize *g[3] = { &op->groups, &op->threads, &op->grid };
    uint32_t *to[3] = { r.groups, r.threads, r.grid };
    for (int i = 0; i < 3; i++) { to[i][0] = (uint32_t)g[i]->w; to[i][1] = (uint32_t)g[i]->h; to[i][2] = (uint32_t)g[i]->d; }
    const double t = now();
    if (fake_elsewhere) fake_elsewhere->dispatch(&r);
    else fake_run_dispatch(&r);
    for (int i = 0; i < MSL_BUFFERS && !fake_elsewhere; i++) {
        const fake_buf *b = r.bind[i].buf;
        if (!b || !b->map) continue;
        for (const unsigned char *p = (const unsigned char *)b->p + b->n; (uintptr_t)p % 16384; p++)
            if (*p != 0xa5) fake_die("kernel %s: wrote past the end of buffer %d (%zu bytes)", f->k->name, i, b->n);
    }
    record(op, c, &r, now() - t);
}
static void enter(const Cmd *c, const Op *op)
{
    const uint64_t e = c->number << 16 | op->encoder;
    if (e == running) return;
    ordered = running >> 16 != c->number && c->fresh;
    previous = running;
    running = e;
}
static void run_simple(Op *op)
{
    if (op->kind == OP_FENCE_UPDATE || op->kind == OP_FENCE_WAIT) {
        alive(op->fence, &fake_Fence, op, "fence", 0);
        if (op->kind == OP_FENCE_UPDATE) op->fence->by = running;
        else if (op->fence->by == previous) ordered = true;
        return;
    }
    if (op->kind == OP_COPY) {
        alive(op->src, &fake_Buf, op, "copy", 0);
        alive(op->dst, &fake_Buf, op, "copy", 1);
        memcpy(op->dst->p + op->dst_at, op->src->p + op->src_at, op->bytes);
    } else if (op->kind == OP_FILL) {
        alive(op->dst, &fake_Buf, op, "fill", 0);
        memset(op->dst->p + op->dst_at, op->value, op->bytes);
    } else if (op->kind == OP_SIGNAL) {
        if (op->event->value < op->event_value) op->event->value = op->event_value;
        pthread_cond_broadcast(&changed);
    }
}
static void finish(Cmd *c)
{
    if (fake_elsewhere) fake_elsewhere->finish();
    c->t1 = now();
    Queue *q = c->q;
    q->first = c->next;
    if (!q->first) q->last = NULL;
    q->open--;
    c->status = c->error[0] ? 5 : 4;
    pthread_cond_broadcast(&changed);
    cmd_empty(c);
    for (int i = 0; i < c->n_scheduled; i++) ((fake_block *)c->scheduled[i])->invoke(c->scheduled[i], c);
    for (int i = 0; i < c->n_done; i++) ((fake_block *)c->done[i])->invoke(c->done[i], c);
    fake_release((id)c);
}
/* false: it waits for an event */
static bool run_some(Cmd *c)
{
    if (c->status == 2) {
        c->t0 = now();
        c->status = 3;
        c->whole = fake_ending(&c->error_code, c->error, sizeof c->error) ? c->n_op / 2 : c->n_op;
    }
    while (c->at < c->n_op) {
        Op *op = &c->op[c->at];
        if (op->kind != OP_WAIT && op->kind != OP_SIGNAL) enter(c, op);
        if (c->at >= c->whole && (op->kind == OP_DISPATCH || op->kind == OP_COPY || op->kind == OP_FILL)) { c->at++; continue; }
        if (op->kind == OP_WAIT) { if (op->event->value < op->event_value) return false; c->at++; continue; }
        if (op->kind != OP_DISPATCH) { run_simple(op); c->at++; continue; }
        size_t end = c->at + 1;
        while (end < c->whole && c->op[end].kind == OP_DISPATCH && c->op[end].encoder == op->encoder && c->op[end].interval == op->interval && op->concurrent) end++;
        if (fake_set.schedule & 1) for (size_t k = c->at; k < end; k++) run_dispatch(c, &c->op[k]);
        else for (size_t k = end; k-- > c->at;) run_dispatch(c, &c->op[k]);
        c->at = end;
    }
    return true;
}
/* Runs a command buffer of some queue as far as it goes; false: nothing can be done. The lock is held. */
static bool progress(void)
{
    for (Queue *q = queues; q; q = q->next) {
        Cmd *c = q->first;
        if (!c || c->status < 2) continue;
        const size_t at = c->at;
        if (run_some(c)) { finish(c); return true; }
        if (c->at != at) return true;
    }
    return false;
}
static void cb_wait(id o, SEL s)
{
    (void)s;
    Cmd *c = (Cmd *)o;
    pthread_mutex_lock(&lock);
    if (c->status < 2) fake_die("-[MTLCommandBuffer waitUntilCompleted] before commit: would wait for ever");
    while (c->status < 4) if (!progress()) fake_die("-[MTLCommandBuffer waitUntilCompleted]: would wait for ever, for an event or a command buffer enqueued before it");
    pthread_mutex_unlock(&lock);
}
static void cb_wait_scheduled(id o, SEL s) { (void)s; if (((Cmd *)o)->status < 2) fake_die("-[MTLCommandBuffer waitUntilScheduled] before commit: would wait for ever"); }
static NSUInteger cb_status(id o, SEL s)
{
    (void)s;
    Cmd *c = (Cmd *)o;
    pthread_mutex_lock(&lock);
    if ((c->status == 2 || c->status == 3) && ++c->polls > 2) (void)progress();
    const int r = c->status;
    pthread_mutex_unlock(&lock);
    return (NSUInteger)r;
}
static id cb_error(id o, SEL s) { (void)s; Cmd *c = (Cmd *)o; return c->error[0] ? fake_error("MTLCommandBufferErrorDomain", c->error_code, c->error) : NULL; }
static double cb_t0(id o, SEL s) { if (((Cmd *)o)->status < 4) fake_die("-[MTLCommandBuffer %s]: it has not completed", s); return ((Cmd *)o)->t0; }
static double cb_t1(id o, SEL s) { (void)cb_t0(o, s); return ((Cmd *)o)->t1; }
static void cb_handler(id o, SEL s, void *b) { (void)s; Cmd *c = (Cmd *)o; if (c->status >= 2) fake_die("addCompletedHandler: after commit"); if (c->n_done == 16) fake_die("too many handlers"); c->done[c->n_done++] = fake_block_copy(b); }
static void cb_scheduled(id o, SEL s, void *b) { (void)s; Cmd *c = (Cmd *)o; if (c->status >= 2) fake_die("addScheduledHandler: after commit"); if (c->n_scheduled == 16) fake_die("too many handlers"); c->scheduled[c->n_scheduled++] = fake_block_copy(b); }
static OBJCBOOL cb_retained(id o, SEL s) { (void)s; return ((Cmd *)o)->retains; }
static id cb_queue(id o, SEL s) { (void)s; return (id)((Cmd *)o)->q; }
static void cb_event(Cmd *c, id e, uint64_t v, int kind)
{
    if (!fake_is(e, &fake_Event) && !fake_is(e, &fake_SharedEvent)) fake_die("an event is meant");
    if (c->open) fake_die("an event is encoded while an encoder is open");
    if (c->status >= 2) fake_die("an event is encoded after commit");
    Op op = { .kind = kind, .event = (Event *)e, .event_value = v };
    add_op(c, &op);
    c->held = realloc(c->held, (c->n_held + 1) * sizeof *c->held);
    if (!c->held) fake_die("out of memory");
    c->held[c->n_held++] = fake_retain(e);
}
static void cb_signal(id o, SEL s, id e, uint64_t v) { (void)s; cb_event((Cmd *)o, e, v, OP_SIGNAL); }
static void cb_wait_event(id o, SEL s, id e, uint64_t v) { (void)s; cb_event((Cmd *)o, e, v, OP_WAIT); }
static void cb_use_set(id o, SEL s, id set) { (void)o; (void)s; if (!fake_is(set, &fake_Residency)) fake_die("useResidencySet: not a residency set"); hold((Cmd *)o, set); }
static void nothing_1(id o, SEL s, id a) { (void)o; (void)s; (void)a; }
static void nothing(id o, SEL s) { (void)o; (void)s; }
FAKE_CLASS(fake_Cmd, "MTLCommandBuffer", cmd_dealloc, 0, 0, M("computeCommandEncoder", cb_encoder), M("computeCommandEncoderWithDispatchType:", cb_encoder_type), M("blitCommandEncoder", cb_blit), M("enqueue", cb_enqueue), M("commit", cb_commit),
           M("waitUntilCompleted", cb_wait), M("waitUntilScheduled", cb_wait_scheduled), M("status", cb_status), M("error", cb_error), M("GPUStartTime", cb_t0), M("GPUEndTime", cb_t1), M("kernelStartTime", cb_t0), M("kernelEndTime", cb_t1),
           M("addCompletedHandler:", cb_handler), M("addScheduledHandler:", cb_scheduled), M("retainedReferences", cb_retained), M("commandQueue", cb_queue), M("encodeSignalEvent:value:", cb_signal), M("encodeWaitForEvent:value:", cb_wait_event),
           M15("useResidencySet:", cb_use_set), M("setLabel:", label), M("label", no_label), M("pushDebugGroup:", nothing_1), M("popDebugGroup", nothing));

bool fake_buffer_in_flight(const fake_buf *b)
{
    bool r = false;
    pthread_mutex_lock(&lock);
    for (const Queue *q = queues; q; q = q->next)
        for (const Cmd *c = q->first; c; c = c->next)
            for (size_t i = 0; i < c->n_op && c->status >= 2; i++)
                for (int k = 0; k < MSL_BUFFERS; k++) r |= c->op[i].kind == OP_DISPATCH && c->op[i].bind[k].buf == b;
    pthread_mutex_unlock(&lock);
    return r;
}

/* ---- events and fences */
static id event_new(fake_class *k) { return fake_new(k, sizeof(Event)); }
id fake_event_new(id d, SEL s);
id fake_shared_event_new(id d, SEL s);
id fake_fence_new(id d, SEL s);
id fake_event_new(id d, SEL s) { (void)d; (void)s; return event_new(&fake_Event); }
id fake_shared_event_new(id d, SEL s) { (void)d; (void)s; return event_new(&fake_SharedEvent); }
id fake_fence_new(id d, SEL s) { (void)d; (void)s; return fake_new(&fake_Fence, sizeof(Fence)); }
static uint64_t ev_value(id o, SEL s)
{
    (void)s;
    Event *e = (Event *)o;
    pthread_mutex_lock(&lock);
    if (++e->polls > 2) (void)progress();
    const uint64_t v = e->value;
    pthread_mutex_unlock(&lock);
    return v;
}
static void ev_set(id o, SEL s, uint64_t v) { (void)s; pthread_mutex_lock(&lock); ((Event *)o)->value = v; if (fake_set.async) wake_runner(); pthread_mutex_unlock(&lock); }
static OBJCBOOL ev_wait(id o, SEL s, uint64_t v, uint64_t ms)
{
    (void)s; (void)ms;
    Event *e = (Event *)o;
    pthread_mutex_lock(&lock);
    while (e->value < v && progress()) { }
    const bool ok = e->value >= v;
    pthread_mutex_unlock(&lock);
    return ok;
}
FAKE_CLASS(fake_Event, "MTLEvent", NULL, 0, 0, M("setLabel:", label), M("label", no_label));
FAKE_CLASS(fake_SharedEvent, "MTLSharedEvent", NULL, 0, 0, M("signaledValue", ev_value), M("setSignaledValue:", ev_set), M("waitUntilSignaledValue:timeoutMS:", ev_wait), M("setLabel:", label), M("label", no_label));
FAKE_CLASS(fake_Fence, "MTLFence", NULL, 0, 0, M("setLabel:", label), M("label", no_label));

/* ---- encoders */
static Enc *enc(id o, const char *what)
{
    Enc *e = (Enc *)o;
    if (e->ended) fake_die("%s after endEncoding", what);
    return e;
}
static void e_pipeline(id o, SEL s, id p)
{
    if (!fake_is(p, &fake_Pso)) fake_die("setComputePipelineState: %s", p ? p->isa->name : "nil");
    enc(o, s)->cur.pso = (fake_pso *)p;
}
static void e_buffer(id o, SEL s, id b, NSUInteger at, NSUInteger i)
{
    Enc *e = enc(o, s);
    if (i >= MSL_BUFFERS) fake_die("setBuffer: index %lu, at most 30", i);
    if (b && b->isa != &fake_Buf) fake_die("setBuffer: a %s", b->isa->name);
    if (b && at >= ((fake_buf *)b)->n) fake_die("setBuffer: offset %lu of a buffer of %zu bytes (index %lu)", at, ((fake_buf *)b)->n, i);
    if (at % 4) fake_die("setBuffer: offset %lu is not a multiple of 4 (index %lu)", at, i);
    e->cur.bind[i] = (fake_binding){ .buf = (fake_buf *)b, .at = at };
}
/* How many bytes of a bound buffer the next dispatches mean; 0: all to its end. For hosts that bind parts of large buffers. */
EXPORT void fakemetal_extent(id o, NSUInteger i, NSUInteger n)
{
    Enc *e = enc(o, "fakemetal_extent");
    if (i >= MSL_BUFFERS || !e->cur.bind[i].buf) fake_die("fakemetal_extent: no buffer at index %lu", i);
    e->cur.bind[i].n = n;
}
static void e_buffers(id o, SEL s, const id *b, const NSUInteger *at, NSRange r) { for (NSUInteger i = 0; i < r.n; i++) e_buffer(o, s, b[i], at[i], r.at + i); }
static void e_offset(id o, SEL s, NSUInteger at, NSUInteger i)
{
    Enc *e = enc(o, s);
    if (i >= MSL_BUFFERS || !e->cur.bind[i].buf) fake_die("setBufferOffset: no buffer at index %lu", i);
    e_buffer(o, s, (id)e->cur.bind[i].buf, at, i);
}
static void e_bytes(id o, SEL s, const void *p, NSUInteger n, NSUInteger i)
{
    Enc *e = enc(o, s);
    if (i >= MSL_BUFFERS) fake_die("setBytes: index %lu, at most 30", i);
    if (!p || !n || n > 4096) fake_die("setBytes: %lu bytes at index %lu (1 to 4096)", n, i);
    Cmd *c = e->cb;
    c->bytes = realloc(c->bytes, (c->n_bytes + 1) * sizeof *c->bytes);
    void *m = aligned_alloc(64, (n + 63) / 64 * 64);
    if (!c->bytes || !m) fake_die("out of memory");
    memset(m, 0xff, (n + 63) / 64 * 64);
    memcpy(m, p, n);
    c->bytes[c->n_bytes++] = m;
    e->cur.bind[i] = (fake_binding){ .p = m, .n = n };
}
static void e_tg(id o, SEL s, NSUInteger n, NSUInteger i)
{
    Enc *e = enc(o, s);
    if (i >= MSL_BUFFERS) fake_die("setThreadgroupMemoryLength: index %lu", i);
    if (n % 16) fake_die("setThreadgroupMemoryLength: %lu is not a multiple of 16", n);
    e->cur.tgmem[i] = n;
}
static void e_barrier(id o, SEL s, NSUInteger scope)
{
    Enc *e = enc(o, s);
    if (!(scope & 1)) fake_die("memoryBarrierWithScope: %lu does not have buffers", scope);
    counts.barriers++;
    if ((long)++barriers_seen == skip_memory_barrier) return;
    e->cur.interval++;
}
static void e_barrier_resources(id o, SEL s, const id *r, NSUInteger n)
{
    for (NSUInteger i = 0; i < n; i++) if (!fake_is(r[i], &fake_Buf)) fake_die("memoryBarrierWithResources: not a buffer");
    e_barrier(o, s, 1);
}
static void dispatch(Enc *e, MTLSize g, MTLSize t, bool exact)
{
    Op *op = &e->cur;
    if (!op->pso) fake_die("dispatch without a pipeline");
    const char *name = op->pso->fn->k->name;
    if (!g.w || !g.h || !g.d) fake_die("kernel %s: empty grid %lu x %lu x %lu", name, g.w, g.h, g.d);
    if (!t.w || !t.h || !t.d) fake_die("kernel %s: empty threadgroup %lu x %lu x %lu", name, t.w, t.h, t.d);
    if (t.w > 1024 || t.h > 1024 || t.d > 1024 || t.w * t.h * t.d > op->pso->max_threads)
        fake_die("kernel %s: %lu threads a threadgroup, its pipeline takes %u", name, t.w * t.h * t.d, op->pso->max_threads);
    if (op->pso->needs_full_simd && t.w * t.h * t.d % 32) fake_die("kernel %s: %lu threads, not a multiple of 32 as its pipeline promised", name, t.w * t.h * t.d);
    size_t tg = op->pso->static_tg;
    for (int i = 0; i < MSL_BUFFERS; i++) {
        for (int k = 0; k < op->pso->fn->k->n; k++) if (op->pso->fn->k->bind[k].kind == 't' && op->pso->fn->k->bind[k].index == i) tg += op->tgmem[i];
        if (op->bind[i].buf) { alive(op->bind[i].buf, &fake_Buf, op, "buffer", i); hold(e->cb, op->bind[i].buf); }
    }
    if (tg > MSL_TG_MEMORY) fake_die("kernel %s: %zu bytes of threadgroup memory (%zu of them its own variables), at most %d", name, tg, op->pso->static_tg, MSL_TG_MEMORY);
    hold(e->cb, op->pso);
    op->kind = OP_DISPATCH;
    op->exact = exact;
    op->threads = t;
    if (exact) {
        op->grid = g;
        op->groups = (MTLSize){ (g.w + t.w - 1) / t.w, (g.h + t.h - 1) / t.h, (g.d + t.d - 1) / t.d };
    } else {
        op->groups = g;
        op->grid = (MTLSize){ g.w * t.w, g.h * t.h, g.d * t.d };
    }
    if (op->grid.w > UINT32_MAX || op->grid.h > UINT32_MAX || op->grid.d > UINT32_MAX) fake_die("kernel %s: a grid of more than 2^32 threads", name);
    if (!e->concurrent) op->interval++;
    add_op(e->cb, op);
}
static void e_dispatch(id o, SEL s, MTLSize g, MTLSize t) { dispatch(enc(o, s), g, t, false); }
static void e_dispatch_threads(id o, SEL s, MTLSize g, MTLSize t)
{
    if (fake_set.family < 1004) fake_die("dispatchThreads: groups of several sizes need a GPU of family Apple4 or later");
     dispatch(enc(o, s), g, t, true);
}
static void e_end(id o, SEL s)
{
    Enc *e = enc(o, s);
    e->ended = true;
    for (size_t i = 0; i < e->cb->n_op; i++) if (e->cb->op[i].kind == OP_FENCE_UPDATE && e->cb->op[i].fence->encoder == e) e->cb->op[i].fence->encoder = NULL;
    e->cb->open = NULL;
    counts.encoders++;
}
static void fence(id o, SEL s, id f, int kind)
{
    Enc *e = enc(o, s);
    if (!fake_is(f, &fake_Fence)) fake_die("%s: not a fence", s);
    Fence *n = (Fence *)f;
    if (n->q && n->q != e->cb->q) fake_die("%s: a fence keeps the order within one command queue; between two it takes an event", s);
    n->q = e->cb->q;
    if (kind == OP_FENCE_WAIT && n->updated && n->encoder == e) fake_die("waitForFence: behind updateFence of the same fence in one encoder");
    if (kind == OP_FENCE_UPDATE) { n->updated = true; n->encoder = e; }
    else if (!n->updated) fake_die("waitForFence: a fence that no encoder updated");
    Op op = { .kind = kind, .fence = n, .encoder = e->cur.encoder };
    hold(e->cb, f);
    add_op(e->cb, &op);
}
static void e_fence_update(id o, SEL s, id f) { fence(o, s, f, OP_FENCE_UPDATE); }
static void e_fence_wait(id o, SEL s, id f) { fence(o, s, f, OP_FENCE_WAIT); }
static void e_use(id o, SEL s, id r, NSUInteger usage) { Enc *e = enc(o, s); if (!fake_is(r, &fake_Buf)) fake_die("useResource: not a buffer"); if (!usage || usage > 7) fake_die("useResource: usage %lu", usage); hold(e->cb, r); }
static void e_use_many(id o, SEL s, const id *r, NSUInteger n, NSUInteger usage) { for (NSUInteger i = 0; i < n; i++) e_use(o, s, r[i], usage); }
static NSUInteger e_type(id o, SEL s) { (void)s; return ((Enc *)o)->concurrent; }
FAKE_CLASS(fake_Enc, "MTLComputeCommandEncoder", enc_dealloc, 0, 0, M("setComputePipelineState:", e_pipeline), M("setBuffer:offset:atIndex:", e_buffer), M("setBuffers:offsets:withRange:", e_buffers), M("setBufferOffset:atIndex:", e_offset),
           M("setBytes:length:atIndex:", e_bytes), M("setThreadgroupMemoryLength:atIndex:", e_tg), M("memoryBarrierWithScope:", e_barrier), M("memoryBarrierWithResources:count:", e_barrier_resources),
           M("dispatchThreadgroups:threadsPerThreadgroup:", e_dispatch), M("dispatchThreads:threadsPerThreadgroup:", e_dispatch_threads), M("endEncoding", e_end), M("updateFence:", e_fence_update), M("waitForFence:", e_fence_wait),
           M("useResource:usage:", e_use), M("useResources:count:usage:", e_use_many), M("dispatchType", e_type), M("setLabel:", label), M("label", no_label), M("pushDebugGroup:", nothing_1), M("popDebugGroup", nothing), M("insertDebugSignpost:", nothing_1));
static void b_range(const char *what, id b, size_t at, size_t n)
{
    if (!fake_is(b, &fake_Buf)) fake_die("%s: not a buffer", what);
    if (at + n > ((fake_buf *)b)->n || at + n < at) fake_die("%s: %zu bytes at %zu of a buffer of %zu", what, n, at, ((fake_buf *)b)->n);
}
static void b_copy(id o, SEL s, id src, NSUInteger sa, id dst, NSUInteger da, NSUInteger n)
{
    Enc *e = enc(o, s);
    b_range("copyFromBuffer", src, sa, n);
    b_range("copyFromBuffer", dst, da, n);
    if (sa % 4 || da % 4 || n % 4) fake_die("copyFromBuffer: offsets and size are multiples of 4 on macOS");
    if (src == dst && sa < da + n && da < sa + n) fake_die("copyFromBuffer: the ranges overlap");
    hold(e->cb, src);
    hold(e->cb, dst);
    Op op = { .kind = OP_COPY, .src = (fake_buf *)src, .dst = (fake_buf *)dst, .src_at = sa, .dst_at = da, .bytes = n, .encoder = e->cur.encoder };
    add_op(e->cb, &op);
}
static void b_fill(id o, SEL s, id dst, NSRange r, uint8_t v)
{
    Enc *e = enc(o, s);
    b_range("fillBuffer", dst, r.at, r.n);
    if (r.at % 4 || r.n % 4) fake_die("fillBuffer: the range is in multiples of 4 on macOS");
    hold(e->cb, dst);
    Op op = { .kind = OP_FILL, .dst = (fake_buf *)dst, .dst_at = r.at, .bytes = r.n, .value = v, .encoder = e->cur.encoder };
    add_op(e->cb, &op);
}
FAKE_CLASS(fake_Blit, "MTLBlitCommandEncoder", enc_dealloc, 0, 0, M("copyFromBuffer:sourceOffset:toBuffer:destinationOffset:size:", b_copy), M("fillBuffer:range:value:", b_fill), M("endEncoding", e_end), M("updateFence:", e_fence_update),
           M("waitForFence:", e_fence_wait), M("setLabel:", label), M("label", no_label));

/* ---- counters */
void fake_metal_totals(fakemetal_totals *t, bool reset);
void fakemetal_totals_get(fakemetal_totals *t)
{
    pthread_mutex_lock(&lock);
    *t = counts;
    pthread_mutex_unlock(&lock);
    fake_metal_totals(t, false);
    fake_objc_totals(t);
}
void fakemetal_counters_reset(void)
{
    fakemetal_totals t;
    pthread_mutex_lock(&lock);
    memset(&counts, 0, sizeof counts);
    n_list = 0;
    pthread_mutex_unlock(&lock);
    fake_metal_totals(&t, true);
}
size_t fakemetal_dispatches(fakemetal_dispatch *out, size_t max)
{
    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < n_list && i < max; i++) out[i] = list[i];
    const size_t n = n_list;
    pthread_mutex_unlock(&lock);
    return n;
}
void fakemetal_keep_dispatches(bool on) { keep = on; }
__attribute__((destructor)) static void write_report(void)
{
    FILE *f = fake_set.path ? fopen(fake_set.path, "a") : NULL;
    if (!f) return;
    for (size_t i = 0; i < n_list; i++) {
        const fakemetal_dispatch *d = &list[i];
        fprintf(f, "{\"command_buffer\":%llu,\"encoder\":%u,\"interval\":%u,\"kernel\":\"%s\",\"groups\":[%u,%u,%u],\"threads\":[%u,%u,%u],\"bytes_read\":%llu,\"bytes_written\":%llu,\"seconds\":%.6f}\n", (unsigned long long)d->command_buffer, d->encoder,
                d->interval, d->kernel, d->groups[0], d->groups[1], d->groups[2], d->threads[0], d->threads[1], d->threads[2], (unsigned long long)d->bytes_read, (unsigned long long)d->bytes_written, d->seconds);
    }
    fclose(f);
}
