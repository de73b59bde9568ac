/* What right kernels and right hosts get from the fake. */
#include "fakemetal/client.h"
#include <math.h>
#include <signal.h>

static oid lib, queue;
typedef struct { oid cb, e; } job;
static job begin(oid p)
{
    job j = { CALL0(oid, queue, "commandBuffer"), NULL };
    j.e = encoder(j.cb, 1);
    use(j.e, p);
    return j;
}
static void end(job j)
{
    CALL0(void, j.e, "endEncoding");
    CALL0(void, j.cb, "commit");
    CALL0(void, j.cb, "waitUntilCompleted");
    CHECK_INT(CALL0(unsigned long, j.cb, "status"), 4);
}
static oid specialized(const char *name, const uint32_t *width, const signed char *bias, const uint32_t *shift)
{
    oid v = made("MTLFunctionConstantValues"), e = NULL;
    if (width) CALL(void, v, "setConstantValue:type:atIndex:", (const void *, unsigned long, unsigned long), width, 33ul, 0ul);
    if (bias) CALL(void, v, "setConstantValue:type:atIndex:", (const void *, unsigned long, unsigned long), bias, 53ul, 1ul);
    if (shift) CALL(void, v, "setConstantValue:type:withName:", (const void *, unsigned long, oid), shift, 33ul, str("shift_given"));
    oid f = CALL(oid, lib, "newFunctionWithName:constantValues:error:", (oid, oid, oid *), str(name), v, &e);
    if (!f) { printf("  %s\n", reason(e)); return NULL; }
    return CALL(oid, dev, "newComputePipelineStateWithFunction:error:", (oid, oid *), f, &e);
}
static void both(void (*fn)(void))
{
    for (int s = 0; s < 2; s++) { set("schedule", s); fn(); }
    set("schedule", 0);
}

static void positions_one(void)
{
    const unsigned n[3] = { 5, 3, 2 }, per[3] = { 4, 2, 1 };
    oid b = buffer(5 * 3 * 2 * 20 * 4);
    job j = begin(pipeline(lib, "positions"));
    bind(j.e, b, 0, 0);
    CALL(void, j.e, "dispatchThreads:threadsPerThreadgroup:", (osize, osize), ((osize){ n[0], n[1], n[2] }), ((osize){ per[0], per[1], per[2] }));
    end(j);
    const uint32_t *o = contents(b);
    for (unsigned z = 0; z < n[2]; z++) for (unsigned y = 0; y < n[1]; y++) for (unsigned x = 0; x < n[0]; x++, o += 20) {
        const unsigned g[3] = { x / per[0], y / per[1], z }, tx = x % per[0], ty = y % per[1], w = g[0] ? 1 : 4, h = g[1] ? 1 : 2;
        const uint32_t want[20] = { g[0], g[1], g[2], tx, ty, 0, w, h, 1, 2, 2, 2, x, y, z, ty * w + tx, ty * w + tx, 0, 1, 5 };
        for (int k = 0; k < 20; k++) if (o[k] != want[k]) { FAIL("thread (%u,%u,%u), value %d: %u, expected %u", x, y, z, k, o[k], want[k]); return; }
    }
}
static void positions(void) { both(positions_one); }

static void collectives_one(void)
{
    oid b = buffer(64 * 16 * 4);
    job j = begin(pipeline(lib, "collectives"));
    bind(j.e, b, 0, 0);
    dispatch(j.e, 1, 64);
    end(j);
    for (unsigned t = 0; t < 64; t++) {
        const float *q = (const float *)contents(b) + t * 16, l = (float)(t % 32);
        const unsigned i = t % 32, quad = i / 4 * 4;
        const float want[16] = { 528, 32, 1, 6, (float)((i ^ 3) + 1), i < 31 ? l + 2 : 0, 1, l * (l + 1) / 2, (l + 1) * (l + 2) / 2, 1, 0, (float)0x55555555, (float)(4 * quad + 10), 496, 528 + 32 + 64, 32 };
        for (int k = 0; k < 16; k++) if (q[k] != want[k]) FAIL("lane %u, value %d: %g, expected %g", t, k, q[k], want[k]);
    }
}
static void collectives(void) { both(collectives_one); }

static void matrices_one(void)
{
    oid a = buffer(8 * 16 * 2), b = buffer(8 * 16 * 4), c = buffer(2 * 64 * 4);
    uint16_t *ha = contents(a);
    float *fb = contents(b), fa[128];
    for (int i = 0; i < 128; i++) {
        static const uint16_t halves[4] = { 0x3c00, 0xbc00, 0x4000, 0x3800 };       /* 1, -1, 2, 0.5 */
        static const float same[4] = { 1, -1, 2, 0.5f };
        ha[i] = halves[i * 7 / 3 % 4];
        fa[i] = same[i * 7 / 3 % 4];
        fb[i] = (float)(i % 11 - 5);
    }
    job j = begin(pipeline(lib, "matrices"));
    bind(j.e, a, 0, 0);
    bind(j.e, b, 0, 1);
    bind(j.e, c, 0, 2);
    CALL(void, j.e, "setThreadgroupMemoryLength:atIndex:", (unsigned long, unsigned long), 512ul, 0ul);
    dispatch(j.e, 1, 64);
    end(j);
    for (int s = 0; s < 2; s++) for (int r = 0; r < 8; r++) for (int k = 0; k < 8; k++) {
        float want = 0;
        for (int i = 0; i < 16; i++) want += fa[r * 16 + i] * fb[k * 16 + i];
        const float got = ((const float *)contents(c))[s * 64 + r * 8 + k];
        if (got != 3 * want) FAIL("(%d,%d): %g, expected %g", r, k, got, 3 * want);
    }
}
static void matrices(void) { both(matrices_one); }

static void vectors(void)
{
    struct { uint32_t n; float scale; uint32_t two[2]; } args = { 3, 0.5f, { 1, 9 } };
    const float x[12] = { 1, 2, 3, 4, 5, 6, 7, 8, -1, 2, -3, 4 };
    static const uint16_t h[12] = { 0x3c00, 0x4000, 0x4200, 0x4400, 0x4500, 0x4600, 0x4700, 0x4800, 0xbc00, 0x4000, 0xc200, 0x4400 };
    for (int half = 0; half < 2; half++) {
        oid a = buffer(sizeof x), o = buffer(8 * 3 * 4);
        if (half) memcpy(contents(a), h, sizeof h); else memcpy(contents(a), x, sizeof x);
        job j = begin(pipeline(lib, half ? "vectors_half" : "vectors_float"));
        bind(j.e, a, 0, 0);
        bind(j.e, o, 0, 1);
        bytes(j.e, &args, sizeof args, 2);
        dispatch(j.e, 1, 32);
        end(j);
        static const float table[4] = { 0.5f, 1.5f, 2.5f, 3.5f };
        for (int i = 0; i < 3; i++) {
            float f[4], y = 0;
            for (int k = 0; k < 4; k++) { f[k] = x[4 * i + k] * 0.5f; y += f[k]; }
            uint32_t bits;
            memcpy(&bits, &f[0], 4);
            const float *q = (const float *)contents(o) + 8 * i;
            CHECK_NEAR(q[0], y, 0);
            CHECK_NEAR(q[1], fmaxf(f[0], 2) + fminf(f[1], 0.25f), 0);
            CHECK_NEAR(q[2], (float)(bits >> 23), 0);
            CHECK_NEAR(q[3], 2 * f[3] + 9, 0);
            CHECK_NEAR(q[4], f[0] > 0 && f[1] > 0 && f[2] > 0 && f[3] > 0 ? 1 : 2, 0);
            CHECK_NEAR(q[5], f[0] > 1.5f ? -x[4 * i] : f[0], 0);
            CHECK_NEAR(q[6], f[0] * 3 + 1 + fminf(fmaxf(f[1], 0), 1) + 1e-3f * table[i & 3], 1e-6);
            CHECK_NEAR(q[7], 6 + f[0] + f[3], 0);
        }
    }
}
static void function_constants(void)
{
    const uint32_t width = 100, shift = 3;
    signed char yes = 1, no = 0;
    oid o = buffer(32 * 4), bias = buffer(32 * 4);
    for (uint32_t i = 0; i < 32; i++) ((uint32_t *)contents(bias))[i] = i;
    for (int k = 0; k < 3; k++) {
        oid p = specialized("constants", &width, k == 1 ? &no : &yes, k == 2 ? &shift : NULL);
        REQUIRE(p);
        job j = begin(p);
        bind(j.e, o, 0, 0);
        if (k != 1) bind(j.e, bias, 0, 1);
        dispatch(j.e, 1, 32);
        end(j);
        for (uint32_t i = 0; i < 32; i++) CHECK_INT(((uint32_t *)contents(o))[i], 100 + (k == 1 ? 0 : i) + (k == 2 ? 8 : 128));
    }
    CHECK(specialized("constants", NULL, &yes, NULL) == NULL);
}
static void packed_blocks(void)
{
    struct { uint8_t d[2]; int8_t q[32]; } w[32];
    oid b = buffer(sizeof w), o = buffer(32 * 4);
    int sum[32] = { 0 };
    for (int i = 0; i < 32; i++) {
        w[i].d[0] = 0;
        w[i].d[1] = 0x38;               /* 0.5 */
        for (int k = 0; k < 32; k++) { w[i].q[k] = (int8_t)(i * 7 - k * 5); sum[i] += w[i].q[k]; }
    }
    memcpy(contents(b), w, sizeof w);
    job j = begin(pipeline(lib, "blocks"));
    bind(j.e, b, 0, 0);
    bind(j.e, o, 0, 1);
    dispatch(j.e, 1, 32);
    end(j);
    for (int i = 0; i < 32; i++) CHECK_NEAR(((float *)contents(o))[i], 0.5f * (float)sum[i] + 0.5f, 0);
}
static void atomics_one(void)
{
    oid n = buffer(4), o = buffer(4096 * 4);
    *(uint32_t *)contents(n) = 0;
    job j = begin(pipeline(lib, "counting"));
    bind(j.e, n, 0, 0);
    bind(j.e, o, 0, 1);
    dispatch(j.e, 64, 64);
    end(j);
    char seen[4096] = { 0 };
    CHECK_INT(*(uint32_t *)contents(n), 4096);
    for (int i = 0; i < 4096; i++) { uint32_t v = ((uint32_t *)contents(o))[i]; if (v >= 4096 || seen[v]) FAIL("number %u", v); else seen[v] = 1; }
}
static void atomics(void) { both(atomics_one); }
static void groups_one(void)
{
    oid x = buffer(50 * 256 * 4), o = buffer(50 * 4);
    for (int i = 0; i < 50 * 256; i++) ((float *)contents(x))[i] = (float)(i % 17);
    job j = begin(pipeline(lib, "sum_of_group"));
    bind(j.e, x, 0, 0);
    bind(j.e, o, 0, 1);
    dispatch(j.e, 50, 256);
    end(j);
    for (int g = 0; g < 50; g++) {
        float want = 0;
        for (int i = 0; i < 256; i++) want += (float)((g * 256 + i) % 17);
        CHECK_NEAR(((float *)contents(o))[g], want, 0);
    }
}
static void groups(void)
{
    for (int workers = 1; workers <= 2; workers++) { set("workers", workers); both(groups_one); }
    CHECK_INT(CALL0(unsigned long, pipeline(lib, "sum_of_group"), "staticThreadgroupMemoryLength"), 128 + 16);
}
static void counted_bytes(void)
{
    fakemetal_totals t;
    fakemetal_dispatch d[4];
    oid x = buffer(1 << 16), o = buffer(1 << 16);
    memset(contents(x), 0, 1 << 16);
    ((void (*)(bool))dlsym(o_lib, "fakemetal_keep_dispatches"))(true);
    counters_reset();
    job j = begin(pipeline(lib, "copied"));
    bind(j.e, x, 256, 0);
    bind(j.e, o, 512, 1);
    dispatch(j.e, 4, 128);
    CALL(void, j.e, "memoryBarrierWithScope:", (unsigned long), 1ul);
    dispatch(j.e, 2, 64);
    end(j);
    totals(&t);
    CHECK_INT(t.dispatches, 2);
    CHECK_INT(t.command_buffers, 1);
    CHECK_INT(t.barriers, 1);
    CHECK_INT(t.bytes_read, 256 * 4 + 64 * 4);
    CHECK_INT(t.bytes_written, 512 * 4 + 128 * 4);
    CHECK_INT(((size_t (*)(fakemetal_dispatch *, size_t))dlsym(o_lib, "fakemetal_dispatches"))(d, 4), 2);
    CHECK_STR(d[0].kernel, "copied");
    CHECK_INT(d[0].groups[0], 4);
    CHECK_INT(d[1].threads[0], 64);
    CHECK_INT(d[0].bytes_read, 1024);
    CHECK_INT(d[1].interval, 1);
    uint64_t rd = 1, wr = 1;
    FAKE(buffer_bytes, void (*)(struct fake_obj *, uint64_t *, uint64_t *))(x, &rd, &wr);
    CHECK(rd == t.bytes_read && wr == 0);
    FAKE(buffer_bytes, void (*)(struct fake_obj *, uint64_t *, uint64_t *))(o, &rd, &wr);
    CHECK(rd == 0 && wr == t.bytes_written);
    counters_reset();
    FAKE(buffer_bytes, void (*)(struct fake_obj *, uint64_t *, uint64_t *))(o, &rd, &wr);
    CHECK(rd == 0 && wr == 0);
    ((void (*)(bool))dlsym(o_lib, "fakemetal_keep_dispatches"))(false);
}

/* ---- handlers, events, archives, residency */
static int handled;
struct block_layout { void *isa; int flags, reserved; void (*invoke)(struct block_layout *, oid); const void *descriptor; };
static void on_done(struct block_layout *b, oid cb) { (void)b; __atomic_store_n(&handled, CALL0(unsigned long, cb, "status") == 4 ? 1 : -1, __ATOMIC_RELEASE); }
static void handlers(void)
{
    static const struct { unsigned long reserved, size; } descriptor = { 0, sizeof(struct block_layout) };
    struct block_layout b = { dlsym(o_lib, "_NSConcreteStackBlock"), 0, 0, on_done, &descriptor };
    oid x = buffer(256), o = buffer(256);
    job j = begin(pipeline(lib, "copied"));
    bind(j.e, x, 0, 0);
    bind(j.e, o, 0, 1);
    dispatch(j.e, 1, 32);
    CALL0(void, j.e, "endEncoding");
    CALL(void, j.cb, "addCompletedHandler:", (void *), (void *)&b);
    CALL0(void, j.cb, "commit");
    for (int i = 0; i < 20000 && !__atomic_load_n(&handled, __ATOMIC_ACQUIRE); i++) usleep(1000);
    CHECK_INT(handled, 1);
}
static void events(void)
{
    oid q2 = CALL0(oid, dev, "newCommandQueue"), ev = CALL0(oid, dev, "newSharedEvent");
    oid waits = CALL0(oid, q2, "commandBuffer"), signals = CALL0(oid, queue, "commandBuffer");
    CALL(void, waits, "encodeWaitForEvent:value:", (oid, uint64_t), ev, (uint64_t)3);
    CALL0(void, waits, "commit");
    CHECK_INT(CALL(signed char, ev, "waitUntilSignaledValue:timeoutMS:", (uint64_t, uint64_t), (uint64_t)3, (uint64_t)1), 0);
    CALL(void, signals, "encodeSignalEvent:value:", (oid, uint64_t), ev, (uint64_t)3);
    CALL0(void, signals, "commit");
    CALL0(void, waits, "waitUntilCompleted");
    CHECK_INT(CALL0(uint64_t, ev, "signaledValue"), 3);
    CHECK_INT(CALL0(unsigned long, signals, "status"), 4);
}
static void use_function(oid pd, const char *name)
{
    oid f = CALL(oid, lib, "newFunctionWithName:", (oid), str(name));
    CALL(void, pd, "setComputeFunction:", (oid), f);
}
static void use_archive(oid pd, oid a)
{
    oid list = CALL(oid, o_class("NSArray"), "arrayWithObject:", (oid), a);
    CALL(void, pd, "setBinaryArchives:", (oid), list);
}
static void archives(void)
{
    char path[256];
    oid e = NULL, d = made("MTLBinaryArchiveDescriptor"), pd = made("MTLComputePipelineDescriptor");
    snprintf(path, sizeof path, "/tmp/fakemetal-archive-%d", (int)getpid());
    oid a = CALL(oid, dev, "newBinaryArchiveWithDescriptor:error:", (oid, oid *), d, &e);
    REQUIRE(a);
    use_function(pd, "copied");
    use_archive(pd, a);
    oid url = CALL(oid, o_class("NSURL"), "fileURLWithPath:", (oid), str(path));
    CHECK_INT(CALL(signed char, a, "serializeToURL:error:", (oid, oid *), url, &e), 0);
    CHECK(strstr(reason(e), "without functions"));
#define PIPE(options) CALL(oid, dev, "newComputePipelineStateWithDescriptor:options:reflection:error:", (oid, unsigned long, oid *, oid *), pd, options, NULL, &e)
    CHECK(PIPE(4ul) == NULL);
    CHECK(PIPE(0ul) != NULL);
    CHECK_INT(CALL(signed char, a, "addComputePipelineFunctionsWithDescriptor:error:", (oid, oid *), pd, &e), 1);
    CHECK(PIPE(4ul) != NULL);
    CHECK_INT(CALL(signed char, a, "serializeToURL:error:", (oid, oid *), url, &e), 1);
    CALL(void, d, "setUrl:", (oid), url);
    a = CALL(oid, dev, "newBinaryArchiveWithDescriptor:error:", (oid, oid *), d, &e);
    REQUIRE(a);
    use_archive(pd, a);
    CHECK(PIPE(4ul) != NULL);
    use_function(pd, "blocks");
    CHECK(PIPE(4ul) == NULL);
    CHECK_INT(truncate(path, 30), 0);
    CHECK(CALL(oid, dev, "newBinaryArchiveWithDescriptor:error:", (oid, oid *), d, &e) == NULL);
    unlink(path);
}
static void objects_are_counted(void)
{
    fakemetal_totals a, b;
    void *pool = o_push();
    totals(&a);
    oid x = buffer(100), y = CALL(oid, dev, "newBufferWithLength:options:", (unsigned long, unsigned long), 100ul, 2ul << 4);
    CHECK(contents(y) == NULL);         /* private */
    CHECK((uintptr_t)contents(x) % 16384 == 0);
    CHECK(isnan(((float *)contents(x))[0]));
    totals(&b);
    CHECK_INT(b.live_objects - a.live_objects, 2);
    CHECK_INT(b.allocated - a.allocated, 200);
    CALL0(void, x, "release");
    CALL0(void, y, "release");
    o_pop_(pool);
    totals(&b);
    CHECK_INT(b.live_objects, a.live_objects);
    CHECK_INT(b.allocated, a.allocated);
}
static void barriers_are_mutated(void)
{
    int lines[64];
    void (*skip)(int) = (void (*)(int))dlsym(o_lib, "fakemetal_skip_barrier");
    size_t (*seen)(int *, size_t) = (size_t(*)(int *, size_t))dlsym(o_lib, "fakemetal_barriers");
    skip(-1);
    groups_one();
    const size_t n = seen(lines, 64);
    CHECK_INT(n, 2);
    for (size_t i = 0; i < n; i++) {
        skip(lines[i]);
        stopped("a barrier less", groups_one, "race: ");
    }
    skip(0);
}
int main(int argc, char **argv)
{
    setenv("FAKEMETAL_QUIET", "1", 1);
    if (!client_open(argv[0])) return 0;
    char *text = slurp("tests/fakemetal/right.metal");
    oid err = NULL;
    lib = text ? library(text, &err) : NULL;
    free(text);
    if (!lib) { printf("FAIL library: %s\n", reason(err)); return 1; }
    queue = CALL0(oid, dev, "newCommandQueue");
    TEST(positions);
    TEST(collectives);
    TEST(matrices);
    TEST(vectors);
    TEST(function_constants);
    TEST(packed_blocks);
    TEST(atomics);
    TEST(groups);
    TEST(counted_bytes);
    TEST(handlers);
    TEST(events);
    TEST(archives);
    TEST(objects_are_counted);
    TEST(barriers_are_mutated);
    TEST_EXIT();
}
