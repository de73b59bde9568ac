/* Checked mode: clang calls fake_touch before each access that a kernel makes. It must lie in what is bound; the distinct bytes
 * of a dispatch are counted; two threads that touch the same bytes with nothing between to order them, and one of them writing,
 * are a race; so are two dispatches between which there is no barrier. All of this holds for any order of running. */
#include "fake.h"
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { WORKERS = 16, MAX_TOUCHED = 256, MAX_NAMES = 512 };
typedef struct fake_region { unsigned long lo, n; fake_buf *buf; bool cells; int index; } fake_region;

/* ---- who last wrote and read two bytes of device memory: dispatch 17 | many 1 | threadgroup 22 | thread 10 | barriers 8 | SIMD-group barriers 6 */
#define C_MANY (1ull << 46)
#define C_GROUP(c) ((c) >> 24 & 0x3fffff)
#define C_TID(c) ((unsigned)((c) >> 14 & 1023))
#define ANY_GROUP 0x3fffffull
struct fake_shadow {
    size_t words, map_bytes;
    uint64_t *rd[WORKERS], *wr[WORKERS];        /* a bit a byte, of this dispatch */
    size_t lo[WORKERS], hi[WORKERS];
    uint64_t *iread, *iwritten;                 /* of this interval between barriers */
    size_t ilo, ihi;
    uint64_t *wcell, *rcell;                    /* one for two bytes */
    size_t cell_bytes;
    bool touched;                               /* in the list of the interval */
};
static struct { uint64_t cmd; uint32_t encoder, interval; } now_at = { ~0ull, 0, 0 };
static fake_buf *touched[MAX_TOUCHED];          /* buffers with bits in iread, iwritten */
static size_t n_touched;
static struct { const char *kernel; fake_buf *buf; size_t lo, hi; bool write; } names[MAX_NAMES];
static size_t n_names;
static fake_region regions[MSL_BUFFERS + 64];
static unsigned n_regions;
static unsigned long code_lo, code_hi;

static void *map(size_t n)
{
    void *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) fake_die("no memory to check accesses with (FAKEMETAL_FAST=1 does without)");
    return p;
}
void fake_shadow_free(struct fake_shadow *s);
void fake_shadow_free(struct fake_shadow *s)
{
    if (!s) return;
    for (int i = 0; i < WORKERS; i++) { if (s->rd[i]) munmap(s->rd[i], s->map_bytes); if (s->wr[i]) munmap(s->wr[i], s->map_bytes); }
    if (s->iread) munmap(s->iread, s->map_bytes);
    if (s->iwritten) munmap(s->iwritten, s->map_bytes);
    if (s->wcell) { munmap(s->wcell, s->cell_bytes); munmap(s->rcell, s->cell_bytes); }
    free(s);
}
static struct fake_shadow *shadow(fake_buf *b)
{
    if (!b->shadow) {
        b->shadow = calloc(1, sizeof *b->shadow);
        if (!b->shadow) fake_die("out of memory");
        b->shadow->words = b->n / 64 + 2;
        b->shadow->map_bytes = b->shadow->words * 8;
    }
    return b->shadow;
}
const char *fake_source_line(const fake_lib *l, int line, char *out, size_t n)
{
    const char *p = l->source;
    for (int i = 1; p && i < line; i++) { p = strchr(p, '\n'); if (p) p++; }
    out[0] = 0;
    if (!p) return out;
    while (*p == ' ' || *p == '\t') p++;
    snprintf(out, n, "%.*s", (int)strcspn(p, "\n"), p);
    return out;
}
/* " at line 12 (text), called from line 40": what addr2line says of the running thread's last access */
const char *fake_where(const fake_worker *w, char *out, size_t n)
{
    Dl_info info;
    out[0] = 0;
    if (!w->m.pc || !dladdr((void *)(w->m.pc - 1), &info) || !info.dli_fname) return out;
    char cmd[900], text[300], src[160];
    snprintf(cmd, sizeof cmd, "{ llvm-symbolizer-19 --no-demangle --output-style=GNU --functions=none --obj='%s' 0x%lx || addr2line -i -e '%s' 0x%lx; } 2>/dev/null", info.dli_fname,
             w->m.pc - 1 - (unsigned long)info.dli_fbase, info.dli_fname, w->m.pc - 1 - (unsigned long)info.dli_fbase);
    FILE *p = popen(cmd, "r");
    if (!p) return out;
    int shown = 0;
    while (fgets(text, sizeof text, p)) {
        const char *at = strstr(text, "program_source:");
        const int line = at ? atoi(at + 15) : 0;
        if (line <= 0 || shown == 4) continue;
        const size_t used = strlen(out);
        snprintf(out + used, n - used, "%s line %d: %s", shown ? "; from" : " [", line, fake_source_line(w->run->fn->lib, line, src, sizeof src));
        shown++;
    }
    pclose(p);
    if (shown && strlen(out) + 2 < n) strcat(out, "]");
    return out;
}

/* ---- intervals: dispatches with no barrier between them */
static void forget(bool all)
{
    size_t kept = 0;
    for (size_t i = 0; i < n_touched; i++) {
        fake_buf *b = touched[i];
        struct fake_shadow *s = b->shadow;
        if (!all && (b->options >> 8 & 3) == 1) { touched[kept++] = b; continue; }      /* untracked, and nothing orders */
        if (s && s->touched) {
            const size_t from = s->ilo / 64, n = (s->ihi / 64 - from + 1) * 8;
            if (s->ihi > s->ilo) { memset(s->iread + from, 0, n); memset(s->iwritten + from, 0, n); }
            s->ilo = SIZE_MAX;
            s->ihi = 0;
            s->touched = false;
        }
    }
    n_touched = kept;
    if (all) n_names = 0;
}
void fake_check_buffer_gone(fake_buf *b)
{
    for (size_t i = 0; i < n_touched; i++) if (touched[i] == b) touched[i--] = touched[--n_touched];
    for (size_t i = 0; i < n_names; i++) if (names[i].buf == b) names[i--] = names[--n_names];
}
static void region_add(const void *p, size_t n, fake_buf *b, int index, bool cells)
{
    if (n_regions == sizeof regions / sizeof *regions) fake_die("too many regions");
    regions[n_regions++] = (fake_region){ (unsigned long)p, n, b, cells, index };
}
void fake_check_begin(fake_run *r)
{
    if (now_at.cmd != r->cmd || now_at.encoder != r->encoder) forget(r->ordered);
    else if (now_at.interval != r->interval || !r->concurrent) forget(true);
    now_at.cmd = r->cmd;
    now_at.encoder = r->encoder;
    now_at.interval = r->interval;
    const msl_kernel *k = r->fn->k;
    bool writable[MSL_BUFFERS] = { false };
    for (int i = 0; i < k->n; i++) if (k->bind[i].kind == 'b' && !k->param[i].konst) writable[k->bind[i].index] = true;
    n_regions = 0;
    for (int i = 0; i < MSL_BUFFERS; i++) {
        const fake_binding *b = &r->bind[i];
        if (!b->p) continue;
        bool cells = false;
        if (b->buf && fake_set.races)
            for (int j = 0; j < MSL_BUFFERS; j++) cells |= writable[j] && r->bind[j].buf == b->buf;
        if (b->buf) {
            struct fake_shadow *s = shadow(b->buf);
            if (cells && !s->wcell) {
                s->cell_bytes = (b->buf->n / 2 + 16) * 8;
                s->wcell = map(s->cell_bytes);
                s->rcell = map(s->cell_bytes);
            }
            for (unsigned w = 0; w < fake_set.workers && w < WORKERS; w++) {
                if (!s->rd[w]) { s->rd[w] = map(s->map_bytes); s->wr[w] = map(s->map_bytes); }
                s->lo[w] = SIZE_MAX;
                s->hi[w] = 0;
            }
        }
        region_add(b->p, b->n, b->buf, i, cells);
    }
    code_lo = r->fn->lib->lo;
    code_hi = r->fn->lib->hi;
}
static size_t bits(uint64_t x) { return (size_t)__builtin_popcountll(x); }
__attribute__((noreturn)) static void hazard(const fake_run *r, fake_buf *b, size_t word, uint64_t which, bool writes, const char *did)
{
    const size_t at = word * 64 + (size_t)__builtin_ctzll(which);
    const char *who = "another dispatch";
    for (size_t i = 0; i < n_names; i++) if (names[i].buf == b && names[i].lo <= at && at < names[i].hi && (names[i].write || writes)) who = names[i].kernel;
    fake_die("kernel %s %s byte %zu of a buffer of %zu bytes, which %s %s with no barrier, fence or wait between them", r->fn->k->name, writes ? "writes" : "reads", at, b->n, who, did);
}
static void settle(fake_run *r, fake_buf *b, bool others)
{
    struct fake_shadow *s = b->shadow;
    size_t lo = SIZE_MAX, hi = 0;
    for (unsigned w = 0; w < fake_set.workers && w < WORKERS; w++) { if (s->lo[w] < lo) lo = s->lo[w]; if (s->hi[w] > hi) hi = s->hi[w]; }
    if (hi <= lo) return;
    if (!s->iread) { s->iread = map(s->map_bytes); s->iwritten = map(s->map_bytes); s->ilo = SIZE_MAX; s->ihi = 0; }
    const bool check = fake_set.races && s->touched && others;
    bool wrote = false;
    for (size_t i = lo / 64; i <= (hi - 1) / 64; i++) {
        uint64_t rd = 0, wr = 0;
        for (unsigned w = 0; w < fake_set.workers && w < WORKERS; w++) { rd |= s->rd[w][i]; wr |= s->wr[w][i]; s->rd[w][i] = s->wr[w][i] = 0; }
        if (!(rd | wr)) continue;
        b->bytes_read += bits(rd);
        b->bytes_written += bits(wr);
        r->bytes_read += bits(rd);
        r->bytes_written += bits(wr);
        if (check) {
            if (rd & s->iwritten[i]) hazard(r, b, i, rd & s->iwritten[i], false, "wrote");
            if (wr & s->iwritten[i]) hazard(r, b, i, wr & s->iwritten[i], true, "wrote");
            if (wr & s->iread[i]) hazard(r, b, i, wr & s->iread[i], true, "read");
        }
        s->iread[i] |= rd;
        s->iwritten[i] |= wr;
        wrote |= wr != 0;
    }
    for (unsigned w = 0; w < fake_set.workers && w < WORKERS; w++) { s->lo[w] = SIZE_MAX; s->hi[w] = 0; }
    if (lo < s->ilo) s->ilo = lo;
    if (hi > s->ihi) s->ihi = hi;
    if (!s->touched) {
        if (n_touched == MAX_TOUCHED) forget(true);
        s->touched = true;
        touched[n_touched++] = b;
    }
    if (n_names < MAX_NAMES) { names[n_names].kernel = r->fn->k->name; names[n_names].buf = b; names[n_names].lo = lo; names[n_names].hi = hi; names[n_names++].write = wrote; }
}
void fake_check_end(fake_run *r)
{
    for (unsigned i = 0; i < n_regions; i++) {
        bool before = false;
        for (unsigned j = 0; j < i; j++) before |= regions[j].buf == regions[i].buf;
        if (regions[i].buf && !before) settle(r, regions[i].buf, true);
    }
}

/* ---- threadgroup memory */
struct fake_tgcell { uint32_t wep, rep; uint16_t wtid, wsge, rtid, rsge; };     /* rtid: a thread, 0x8000 | SIMD-group, or 0xffff: several */
__attribute__((noreturn)) static void tg_race(fake_worker *w, unsigned long a, int write, const char *did, unsigned who)
{
    char t[700], name[80] = "threadgroup memory";
    for (unsigned i = 0; i < w->n_tgvars; i++)
        if (a - w->m.tg_base - w->tgvar[i].at < w->tgvar[i].size) snprintf(name, sizeof name, "%s, byte %lu", w->tgvar[i].name, a - w->m.tg_base - w->tgvar[i].at);
    if (who == 0xffff) fake_kernel_die(w, 0, "race: %s %s, which threads of several SIMD-groups %s since the last barrier%s", write ? "writes" : "reads", name, did, fake_where(w, t, sizeof t));
    if (who & 0x8000) fake_kernel_die(w, 0, "race: %s %s, which threads of SIMD-group %u %s since the last barrier%s", write ? "writes" : "reads", name, who & 0x7fff, did, fake_where(w, t, sizeof t));
    fake_kernel_die(w, 0, "race: %s %s, which thread %u %s since the last barrier%s", write ? "writes" : "reads", name, who, did, fake_where(w, t, sizeof t));
}
static void touch_tg(fake_worker *w, unsigned long a, unsigned long n, int write)
{
    msl_worker *m = &w->m;
    unsigned i = w->last_tg;
    if (i >= w->n_tg_ranges || a - w->tg_range[i].at >= w->tg_range[i].n || a - w->tg_range[i].at + n > w->tg_range[i].n) {
        for (i = 0; i < w->n_tg_ranges; i++) if (a - w->tg_range[i].at < w->tg_range[i].n && a - w->tg_range[i].at + n <= w->tg_range[i].n) break;
        if (i == w->n_tg_ranges) {
            char t[700];
            fake_kernel_die(w, 0, "%s %lu bytes of threadgroup memory outside of every variable%s", write ? "writes" : "reads", n, fake_where(w, t, sizeof t));
        }
        w->last_tg = i;
    }
    const msl_thread *t = m->t;
    if (!fake_set.races || n < 2 || t->atomic) return;
    const uint32_t ep = w->epoch_tg;
    const uint16_t tid = (uint16_t)t->tid, sge = (uint16_t)m->sg[t->sg].epoch;
    struct fake_tgcell *c = &w->tgcell[(a - m->tg_base) / 2], *end = &w->tgcell[(a - m->tg_base + n + 1) / 2];
    for (; c < end; c++) {
        if (c->wep == ep && c->wtid != tid && !(c->wtid >> 5 == t->sg && c->wsge != sge)) tg_race(w, a, write, "wrote", c->wtid);
        if (write) {
            if (c->rep == ep && c->rtid != tid) {
                const bool own = c->rtid == 0xffff ? false : c->rtid & 0x8000 ? (c->rtid & 31) == t->sg : c->rtid >> 5 == t->sg;
                if (!(own && c->rsge != sge)) tg_race(w, a, 1, "read", c->rtid);
            }
            c->wep = ep;
            c->wtid = tid;
            c->wsge = sge;
        } else if (c->rep != ep || c->rtid == tid) {
            c->rep = ep;
            c->rtid = tid;
            c->rsge = sge;
        } else if (c->rtid != 0xffff) {
            const bool own = c->rtid & 0x8000 ? (c->rtid & 31) == t->sg : c->rtid >> 5 == t->sg;
            if (!own) c->rtid = 0xffff;
            else if (c->rsge != sge) { c->rtid = tid; c->rsge = sge; }
            else c->rtid = (uint16_t)(0x8000 | t->sg);
        }
    }
}
void fake_check_worker(fake_worker *w, size_t arena)
{
    w->tgcell = map(arena / 2 * sizeof *w->tgcell);
}

/* ---- device memory */
static bool conflict(uint64_t c, uint64_t me)
{
    if ((c ^ me) >> 47) return false;                           /* another dispatch */
    if (C_GROUP(c) != C_GROUP(me)) return true;
    if (c & C_MANY) return (c >> 6 & 255) == (me >> 6 & 255);
    if (C_TID(c) == C_TID(me) || (c >> 6 & 255) != (me >> 6 & 255)) return false;       /* a barrier between them */
    return C_TID(c) >> 5 != C_TID(me) >> 5 || (c & 63) == (me & 63);
}
__attribute__((noreturn)) static void race(fake_worker *w, const fake_region *g, unsigned long a, int write, const char *did, uint64_t c)
{
    char t[700], who[80];
    if (C_GROUP(c) == ANY_GROUP) snprintf(who, sizeof who, "several threadgroups");
    else if (C_GROUP(c) != (w->group & ANY_GROUP)) snprintf(who, sizeof who, "threadgroup %llu", (unsigned long long)C_GROUP(c));
    else if (c & C_MANY) snprintf(who, sizeof who, "several threads of this threadgroup");
    else snprintf(who, sizeof who, "thread %u of this threadgroup", C_TID(c));
    fake_kernel_die(w, 0, "race: %s byte %lu of buffer %d, which %s %s with nothing between to order them%s", write ? "writes" : "reads", a - g->lo, g->index, who, did, fake_where(w, t, sizeof t));
}
static void touch_cells(fake_worker *w, const fake_region *g, unsigned long a, unsigned long n, int write)
{
    const msl_thread *t = w->m.t;
    if (n < 2 || t->atomic) return;
    struct fake_shadow *s = g->buf->shadow;
    const uint64_t me = (w->run->serial & 0x1ffff) << 47 | (w->group & ANY_GROUP) << 24 | (uint64_t)t->tid << 14 | (uint64_t)(w->epoch_dev & 255) << 6 | (w->m.sg[t->sg].epoch & 63);
    const size_t off = a - (unsigned long)g->buf->p;
    for (size_t i = off / 2, end = (off + n + 1) / 2; i < end; i++) {
        const uint64_t c = __atomic_load_n(&s->wcell[i], __ATOMIC_RELAXED), r = __atomic_load_n(&s->rcell[i], __ATOMIC_RELAXED);
        if (conflict(c, me)) race(w, g, a, write, "wrote", c);
        if (write) {
            if (conflict(r, me)) race(w, g, a, 1, "read", r);
            __atomic_store_n(&s->wcell[i], me, __ATOMIC_RELAXED);
        } else {
            uint64_t v = me;
            if (!((r ^ me) >> 47)) {                            /* read before in this dispatch */
                if (C_GROUP(r) != C_GROUP(me)) v = me | ANY_GROUP << 24;
                else if (((r ^ me) & 0xffffff) == 0 && !(r & C_MANY)) continue;
                else if ((r >> 6 & 255) == (me >> 6 & 255)) v = me | C_MANY;
            }
            if (v != r) __atomic_store_n(&s->rcell[i], v, __ATOMIC_RELAXED);
        }
    }
}
static void mark(uint64_t *m, size_t off, unsigned long n)
{
    while (n > 0) {
        const unsigned at = off & 63, k = n < 64 - at ? (unsigned)n : 64 - at;
        m[off >> 6] |= (k == 64 ? ~0ull : ((1ull << k) - 1)) << at;
        off += k;
        n -= k;
    }
}
__attribute__((noreturn)) static void outside(fake_worker *w, unsigned long a, unsigned long n, int write)
{
    char t[700];
    const char *verb = write ? "writes" : "reads";
    const fake_region *best = NULL;
    unsigned long gap = 1ul << 40;
    for (unsigned i = 0; i < n_regions; i++) {
        const fake_region *g = &regions[i];
        const unsigned long d = a < g->lo ? g->lo - a : a >= g->lo + g->n ? a - (g->lo + g->n) : 0;
        if (d < gap) { gap = d; best = g; }
    }
    if (!a || !best) fake_kernel_die(w, 0, "%s %lu bytes at address 0x%lx, which is in nothing that is bound%s", verb, n, a, fake_where(w, t, sizeof t));
    const char *name = "";
    for (int i = 0; i < w->run->fn->k->n; i++) if (w->run->fn->k->bind[i].kind == 'b' && w->run->fn->k->bind[i].index == best->index) name = w->run->fn->k->bind[i].name;
    fake_kernel_die(w, 0, "%s %lu bytes at %ld of buffer %d (%s), which is bound with %lu bytes%s", verb, n, (long)(a - best->lo), best->index, name, best->n, fake_where(w, t, sizeof t));
}
void fake_touch(msl_worker *mw, unsigned long a, unsigned long n, int write)
{
    fake_worker *w = (fake_worker *)(void *)mw;
    if (a - (unsigned long)w < MSL_REGION) {
        if (a - mw->tg_base < mw->tg_size) touch_tg(w, a, n, write);
        return;
    }
    unsigned i = w->last_region;
    if (i >= n_regions || a - regions[i].lo >= regions[i].n || a - regions[i].lo + n > regions[i].n) {
        for (i = 0; i < n_regions; i++) if (a - regions[i].lo < regions[i].n && a - regions[i].lo + n <= regions[i].n) break;
        if (i == n_regions) {
            if (a >= code_lo && a + n <= code_hi) return;       /* constants of the library */
            outside(w, a, n, write);
        }
        w->last_region = i;
    }
    const fake_region *g = &regions[i];
    if (!g->buf) return;
    struct fake_shadow *s = g->buf->shadow;
    const size_t off = a - (unsigned long)g->buf->p;
    mark(write ? s->wr[w->index] : s->rd[w->index], off, n);
    if (off < s->lo[w->index]) s->lo[w->index] = off;
    if (off + n > s->hi[w->index]) s->hi[w->index] = off + n;
    if (g->cells) touch_cells(w, g, a, n, write);
}
