/* Host mistakes that the fake has to stop, each in a child of its own. */
#include "fakemetal/client.h"
#include <signal.h>
#include <sys/mman.h>

static oid lib, twice, queue;
static void encode(oid e, oid b)
{
    uint32_t n = 16;
    use(e, twice);
    bind(e, b, 0, 0);
    bytes(e, &n, sizeof n, 1);
}
static oid command(void) { return CALL0(oid, queue, "commandBuffer"); }
static void run(oid cb) { CALL0(void, cb, "commit"); CALL0(void, cb, "waitUntilCompleted"); }
#define END(e) CALL0(void, e, "endEncoding")

static void good(void)
{
    oid b = buffer(64), cb = command(), e = encoder(cb, 1);
    for (int i = 0; i < 16; i++) ((float *)contents(b))[i] = (float)i;
    encode(e, b);
    dispatch(e, 1, 32);
    END(e);
    run(cb);
    for (int i = 0; i < 16; i++) if (((float *)contents(b))[i] != 2 * (float)i) _exit(1);
}
static void unbound(void) { oid cb = command(), e = encoder(cb, 1); uint32_t n = 1; use(e, twice); bytes(e, &n, 4, 1); dispatch(e, 1, 32); END(e); run(cb); }
static void unbound_bytes(void) { oid cb = command(), e = encoder(cb, 1); use(e, twice); bind(e, buffer(64), 0, 0); dispatch(e, 1, 32); END(e); run(cb); }
static void long_bytes(void) { static char p[5000]; bytes(encoder(command(), 1), p, sizeof p, 0); }
static void many_threads(void) { oid e = encoder(command(), 1); encode(e, buffer(64)); dispatch(e, 1, 2048); }
static void threads_of_kernel(void) { oid e = encoder(command(), 1); use(e, pipeline(lib, "at_most_64")); bind(e, buffer(1024), 0, 0); dispatch(e, 1, 128); }
static void empty_grid(void) { oid e = encoder(command(), 1); encode(e, buffer(64)); dispatch(e, 0, 32); }
static void no_pipeline(void) { oid e = encoder(command(), 1); dispatch(e, 1, 32); }
static void open_encoder(void) { oid cb = command(); (void)encoder(cb, 1); CALL0(void, cb, "commit"); }
static void second_encoder(void) { oid cb = command(); (void)encoder(cb, 1); (void)encoder(cb, 1); }
static void after_end(void) { oid e = encoder(command(), 1); encode(e, buffer(64)); END(e); dispatch(e, 1, 32); }
static void double_end(void) { oid e = encoder(command(), 1); END(e); END(e); }
static void double_commit(void) { oid cb = command(); CALL0(void, cb, "commit"); CALL0(void, cb, "commit"); }
static void wait_first(void) { CALL0(void, command(), "waitUntilCompleted"); }
static void encode_after_commit(void) { oid cb = command(); CALL0(void, cb, "commit"); (void)encoder(cb, 1); }
static void freed_open(void) { void *pool = o_push(); (void)encoder(command(), 1); o_pop_(pool); }
static void over_release(void) { oid b = buffer(64); CALL0(void, b, "release"); CALL0(void, b, "release"); }
static void use_freed(void) { oid b = buffer(64); CALL0(void, b, "release"); (void)contents(b); }
static void freed_in_flight(void)
{
    oid b = buffer(64), cb = CALL0(oid, queue, "commandBufferWithUnretainedReferences"), e = encoder(cb, 1);
    encode(e, b);
    dispatch(e, 1, 32);
    END(e);
    CALL0(void, cb, "commit");
    CALL0(void, b, "release");
    CALL0(void, cb, "waitUntilCompleted");
}
static void retained_in_flight(void)
{
    oid b = buffer(64), cb = command(), e = encoder(cb, 1);
    encode(e, b);
    dispatch(e, 1, 32);
    END(e);
    CALL0(void, cb, "commit");
    CALL0(void, b, "release");
    CALL0(void, cb, "waitUntilCompleted");
}
static void read_early(void)
{
    oid b = buffer(64), cb = command(), e = encoder(cb, 1);
    for (int i = 0; i < 16; i++) ((float *)contents(b))[i] = 1;
    encode(e, b);
    dispatch(e, 1, 32);
    END(e);
    CALL0(void, cb, "commit");
    if (((float *)contents(b))[0] != 1) abort();        /* nothing has run before the wait */
}
static void misaligned_no_copy(void)
{
    char *p = mmap(NULL, 1 << 16, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    p += 4096 - (uintptr_t)p % 16384 % 4096;
    p += (uintptr_t)p % 16384 ? 0 : 4096;
    CALL(oid, dev, "newBufferWithBytesNoCopy:length:options:deallocator:", (void *, unsigned long, unsigned long, void *), p, 16384ul, 0ul, NULL);
}
static void odd_length_no_copy(void)
{
    char *p = mmap(NULL, 1 << 16, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    p = (char *)(((uintptr_t)p + 16383) / 16384 * 16384);
    CALL(oid, dev, "newBufferWithBytesNoCopy:length:options:deallocator:", (void *, unsigned long, unsigned long, void *), p, 10000ul, 0ul, NULL);
}
static oid no_copy(void *p, size_t n) { return CALL(oid, dev, "newBufferWithBytesNoCopy:length:options:deallocator:", (void *, unsigned long, unsigned long, void *), p, n, 0ul, NULL); }
/* n pages of 16 KB at a multiple of it */
static char *pages(int n, int rights)
{
    char *p = mmap(NULL, (size_t)(n + 1) << 14, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    p += 16384 - (uintptr_t)p % 16384;
    mprotect(p, (size_t)n << 14, rights);
    return p;
}
static void no_copy_of_two(void)
{
    char *p = pages(4, PROT_READ | PROT_WRITE);
    mprotect(p, 32768, PROT_READ);
    (void)no_copy(p, 65536);
}
static void no_copy_of_one(void) { if (!no_copy(pages(4, PROT_READ), 65536)) abort(); }
static void no_copy_written(void) { oid cb = command(), e = encoder(cb, 1); encode(e, no_copy(pages(1, PROT_READ), 16384)); dispatch(e, 1, 32); END(e); run(cb); }
static void constant_bound(size_t bytes, size_t at, bool extent)
{
    oid cb = command(), e = encoder(cb, 1), b = buffer(bytes);
    encode(e, buffer(64));
    *(uint32_t *)((char *)contents(b) + at) = 16;
    bind(e, b, at, 1);
    if (extent) FAKE(extent, void (*)(oid, unsigned long, unsigned long))(e, 1, 4);
    dispatch(e, 1, 32);
    END(e);
    run(cb);
}
static void constant_offset(void) { constant_bound(512, 16, false); }
static void constant_long(void) { constant_bound(1 << 17, 0, false); }
static void constant_right(void) { constant_bound(1 << 17, 256, true); }
static void threads_of_old(void)
{
    oid e = encoder(command(), 1);
    encode(e, buffer(64));
    set("family", 1003);
    CALL(void, e, "dispatchThreads:threadsPerThreadgroup:", (osize, osize), ((osize){ 20, 1, 1 }), ((osize){ 32, 1, 1 }));
}
/* A set on the queue; steps: a add, c commit, r request, x a command buffer, w that is waited for, d remove */
static void resident(const char *steps)
{
    oid d = made("MTLResidencySetDescriptor"), s = CALL(oid, dev, "newResidencySetWithDescriptor:error:", (oid, oid *), d, NULL), b = buffer(64), cb = NULL;
    CALL(void, queue, "addResidencySet:", (oid), s);
    for (; *steps; steps++) {
        if (*steps == 'a') CALL(void, s, "addAllocation:", (oid), b);
        else if (*steps == 'd') CALL(void, s, "removeAllocation:", (oid), b);
        else if (*steps == 'c') CALL0(void, s, "commit");
        else if (*steps == 'r') CALL0(void, s, "requestResidency");
        else if (*steps == 'w') CALL0(void, cb, "waitUntilCompleted");
        else {
            oid e = encoder(cb = command(), 1);
            encode(e, b);
            dispatch(e, 1, 32);
            END(e);
            CALL0(void, cb, "commit");
        }
    }
}
static void not_committed(void) { resident("ax"); }
static void not_requested(void) { resident("racx"); }
static void removed_in_flight(void) { resident("acrxd"); }
static void not_committed_again(void) { resident("acrxwdx"); }
static void resident_right(void) { resident("acrxxwwdcacrxw"); }
static void managed(void) { CALL(oid, dev, "newBufferWithLength:options:", (unsigned long, unsigned long), 64ul, 1ul << 4); }
static void memoryless(void) { CALL(oid, dev, "newBufferWithLength:options:", (unsigned long, unsigned long), 64ul, 3ul << 4); }
static void empty_buffer(void) { (void)buffer(0); }
static void odd_offset(void) { bind(encoder(command(), 1), buffer(64), 2, 0); }
static void far_offset(void) { bind(encoder(command(), 1), buffer(64), 64, 0); }
static void index_31(void) { bind(encoder(command(), 1), buffer(64), 0, 31); }
static void type_alignment(void) { oid cb = command(), e = encoder(cb, 1); use(e, pipeline(lib, "aligned")); bind(e, buffer(64), 8, 0); dispatch(e, 1, 32); END(e); run(cb); }
static void small_struct(void) { oid cb = command(), e = encoder(cb, 1); uint16_t n = 1; encode(e, buffer(64)); bytes(e, &n, 2, 1); dispatch(e, 1, 32); END(e); run(cb); }
static void bytes_to_write(void) { oid cb = command(), e = encoder(cb, 1); float x[16] = { 0 }; encode(e, buffer(64)); bytes(e, x, sizeof x, 0); dispatch(e, 1, 32); END(e); run(cb); }
static void odd_tg(void) { CALL(void, encoder(command(), 1), "setThreadgroupMemoryLength:atIndex:", (unsigned long, unsigned long), 20ul, 0ul); }
static void no_tg(void) { oid cb = command(), e = encoder(cb, 1); use(e, pipeline(lib, "outside_tg")); bind(e, buffer(256), 0, 0); dispatch(e, 1, 32); END(e); run(cb); }
static void big_tg(void) { oid e = encoder(command(), 1); use(e, pipeline(lib, "outside_tg")); bind(e, buffer(256), 0, 0); CALL(void, e, "setThreadgroupMemoryLength:atIndex:", (unsigned long, unsigned long), 32784ul, 0ul); dispatch(e, 1, 32); }
static void both_tg(void) { oid e = encoder(command(), 1); use(e, pipeline(lib, "too_much_tg")); bind(e, buffer(256), 0, 0); CALL(void, e, "setThreadgroupMemoryLength:atIndex:", (unsigned long, unsigned long), 16384ul, 0ul); dispatch(e, 1, 32); }
static void flat_position(void)
{
    oid cb = command(), e = encoder(cb, 1);
    encode(e, buffer(64));
    CALL(void, e, "dispatchThreadgroups:threadsPerThreadgroup:", (osize, osize), ((osize){ 1, 2, 1 }), ((osize){ 32, 1, 1 }));
    END(e);
    run(cb);
}
static void past_extent(void)
{
    oid cb = command(), e = encoder(cb, 1);
    encode(e, buffer(64));
    ((void (*)(oid, unsigned long, unsigned long))dlsym(o_lib, "fakemetal_extent"))(e, 0, 32);
    dispatch(e, 1, 32);
    END(e);
    run(cb);
}
static void unknown_selector(void) { CALL0(void, queue, "status"); }
static void wrong_kind(void) { use(encoder(command(), 1), queue); }
static void fast_math(void)
{
    oid e = NULL, o = made("MTLCompileOptions");
    CALL(oid, dev, "newLibraryWithSource:options:error:", (oid, oid, oid *), str("kernel void k() {}"), o, &e);
}
static void fast_math_13(void)
{
    set("os", 13);
    oid e = NULL, o = made("MTLCompileOptions");
    CALL(oid, dev, "newLibraryWithSource:options:error:", (oid, oid, oid *), str("kernel void k() {}"), o, &e);
}
static void no_options(void) { oid e = NULL; CALL(oid, dev, "newLibraryWithSource:options:error:", (oid, oid, oid *), str("kernel void k() {}"), NULL, &e); }
static void math_mode_13(void) { set("os", 13); CALL(void, made("MTLCompileOptions"), "setMathMode:", (long), 0l); }
static void residency_13(void) { set("os", 13); CALL(oid, dev, "newResidencySetWithDescriptor:error:", (oid, oid *), NULL, NULL); }
static void new_language(void)
{
    oid e = NULL, o = safe_options();
    set("os", 13);
    CALL(void, o, "setFastMathEnabled:", (signed char), 0);
    CALL(void, o, "setLanguageVersion:", (unsigned long), 3ul << 16 | 2);
    CALL(oid, dev, "newLibraryWithSource:options:error:", (oid, oid, oid *), str("kernel void k() {}"), o, &e);
}
static void constant_type(void)
{
    oid v = made("MTLFunctionConstantValues"), e = NULL;
    float f = 1;
    CALL(void, v, "setConstantValue:type:atIndex:", (const void *, unsigned long, unsigned long), &f, 3ul, 0ul);
    CALL(oid, lib, "newFunctionWithName:constantValues:error:", (oid, oid, oid *), str("needs_kind"), v, &e);
}
static void unordered(unsigned long type, bool barrier, bool untracked, int encoders, bool fence, bool wait)
{
    oid b = CALL(oid, dev, "newBufferWithLength:options:", (unsigned long, unsigned long), 64ul, untracked ? 1ul << 8 : 0ul), cb = command(), f = CALL0(oid, dev, "newFence");
    oid e = encoder(cb, type);
    encode(e, b);
    dispatch(e, 1, 32);
    if (barrier) CALL(void, e, "memoryBarrierWithScope:", (unsigned long), 1ul);
    if (fence) CALL(void, e, "updateFence:", (oid), f);
    if (encoders == 2) {
        END(e);
        if (wait) { run(cb); cb = command(); }
        e = encoder(cb, type);
        if (fence) CALL(void, e, "waitForFence:", (oid), f);
        encode(e, b);
    }
    dispatch(e, 1, 32);
    END(e);
    run(cb);
}
static void concurrent(void) { unordered(1, false, false, 1, false, false); }
static void concurrent_barrier(void) { unordered(1, true, false, 1, false, false); }
static void serial(void) { unordered(0, false, false, 1, false, false); }
static void tracked_encoders(void) { unordered(1, false, false, 2, false, false); }
static void untracked_encoders(void) { unordered(1, false, true, 2, false, false); }
static void untracked_fence(void) { unordered(1, false, true, 2, true, false); }
static void untracked_wait(void) { unordered(1, false, true, 2, false, true); }
static void fence_never_updated(void) { CALL(void, encoder(command(), 1), "waitForFence:", (oid), CALL0(oid, dev, "newFence")); }
static void fence_of_two_queues(void)
{
    oid f = CALL0(oid, dev, "newFence"), e = encoder(command(), 1), other = CALL0(oid, dev, "newCommandQueue");
    CALL(void, e, "updateFence:", (oid), f);
    END(e);
    CALL(void, encoder(CALL0(oid, other, "commandBuffer"), 1), "waitForFence:", (oid), f);
}
static void fence_of_itself(void)
{
    oid f = CALL0(oid, dev, "newFence"), e = encoder(command(), 1);
    CALL(void, e, "updateFence:", (oid), f);
    CALL(void, e, "waitForFence:", (oid), f);
}
static void times_too_early(void)
{
    oid cb = command(), e = encoder(cb, 1);
    END(e);
    CALL0(void, cb, "commit");
    CALL0(double, cb, "GPUEndTime");
}
static void many_open(void) { for (int i = 0; i < 65; i++) (void)command(); }
static void event_never(void)
{
    oid ev = CALL0(oid, dev, "newSharedEvent"), cb = command();
    CALL(void, cb, "encodeWaitForEvent:value:", (oid, uint64_t), ev, (uint64_t)1);
    run(cb);
}
static void pool_order(void) { void *a = o_push(); (void)o_push(); o_pop_(a); }
static void null_constants(void) { CALL(void, made("MTLFunctionConstantValues"), "setConstantValue:type:atIndex:", (const void *, unsigned long, unsigned long), NULL, 33ul, 0ul); }
static void archive_of_nothing(void) { CALL(oid, dev, "newBinaryArchiveWithDescriptor:error:", (oid, oid *), NULL, NULL); }
static void modified(void) { orange r = { 0, 4 }; CALL(void, buffer(64), "didModifyRange:", (orange), r); }
static void copy_past(void)
{
    oid e = CALL0(oid, command(), "blitCommandEncoder");
    CALL(void, e, "copyFromBuffer:sourceOffset:toBuffer:destinationOffset:size:", (oid, unsigned long, oid, unsigned long, unsigned long), buffer(64), 0ul, buffer(64), 32ul, 64ul);
}

#define CASE(fn, text) stopped(#fn, fn, text)
static void host_mistakes(void)
{
    CASE(good, NULL);
    CASE(unbound, "buffer 0 (x) is not bound");
    CASE(unbound_bytes, "buffer 1 (n) is not bound");
    CASE(long_bytes, "setBytes: 5000 bytes");
    CASE(many_threads, "2048 threads a threadgroup");
    CASE(threads_of_kernel, "128 threads a threadgroup, its pipeline takes 64");
    CASE(empty_grid, "empty grid");
    CASE(no_pipeline, "dispatch without a pipeline");
    CASE(open_encoder, "commit] with an open encoder");
    CASE(second_encoder, "an encoder is still open");
    CASE(after_end, "after endEncoding");
    CASE(double_end, "after endEncoding");
    CASE(double_commit, "second commit");
    CASE(wait_first, "before commit: would wait for ever");
    CASE(encode_after_commit, "after commit");
    CASE(freed_open, "freed before endEncoding");
    CASE(over_release, "message to a freed object");
    CASE(use_freed, "message to a freed object");
    CASE(freed_in_flight, "was freed before the command buffer ran");
    CASE(retained_in_flight, NULL);
    CASE(read_early, NULL);
    CASE(misaligned_no_copy, "Apple silicon's page");
    CASE(odd_length_no_copy, "Apple silicon's page");
    CASE(no_copy_of_two, "lie in more than one mapping");
    CASE(no_copy_of_one, NULL);
    CASE(no_copy_written, "mapped for reading, and the kernel may write it");
    CASE(constant_offset, "offset 16 is not a multiple of 256");
    CASE(constant_long, "131072 bytes, at most 64 KB");
    CASE(constant_right, NULL);
    CASE(threads_of_old, "family Apple4");
    CASE(not_committed, "additions or removals that were not committed");
    CASE(not_requested, "requestResidency did not follow");
    CASE(removed_in_flight, "that a committed command buffer uses");
    CASE(not_committed_again, "additions or removals that were not committed");
    CASE(resident_right, NULL);
    CASE(managed, "storage mode managed");
    CASE(memoryless, "cannot be memoryless");
    CASE(empty_buffer, "newBufferWithLength: 0");
    CASE(odd_offset, "not a multiple of 4");
    CASE(far_offset, "offset 64 of a buffer of 64 bytes");
    CASE(index_31, "index 31");
    CASE(type_alignment, "offset 8 is not a multiple of 16");
    CASE(small_struct, "has 2 bytes, its type 4");
    CASE(bytes_to_write, "setBytes for buffer 0 (x), which the kernel may write");
    CASE(odd_tg, "not a multiple of 16");
    CASE(no_tg, "threadgroup memory 0 (t) has no length");
    CASE(big_tg, "32784 bytes of threadgroup memory");
    CASE(both_tg, "40960 bytes of threadgroup memory (24576 of them");
    CASE(flat_position, "parameter i has 1 dimension, the dispatch has more");
    CASE(past_extent, "of buffer 0 (x), which is bound with 32 bytes");
    CASE(unknown_selector, "-[MTLCommandQueue status]: unrecognized selector");
    CASE(wrong_kind, "setComputePipelineState: MTLCommandQueue");
    CASE(fast_math, "math mode is not safe");
    CASE(fast_math_13, "setFastMathEnabled: NO");
    CASE(no_options, "math mode is not safe");
    CASE(math_mode_13, "unrecognized selector");
    CASE(residency_13, "unrecognized selector");
    CASE(new_language, "language version 3.2");
    CASE(constant_type, "has another type");
    CASE(fence_never_updated, "a fence that no encoder updated");
    CASE(fence_of_two_queues, "within one command queue");
    CASE(fence_of_itself, "behind updateFence of the same fence");
    CASE(times_too_early, "GPUEndTime]: it has not completed");
    CASE(many_open, "64 command buffers");
    CASE(event_never, "would wait for ever");
    CASE(pool_order, "not the innermost");
    CASE(null_constants, "setConstantValue: NULL");
    CASE(archive_of_nothing, "nil where a MTLBinaryArchiveDescriptor");
    CASE(modified, "only for managed storage");
    CASE(copy_past, "64 bytes at 32 of a buffer of 64");
}
static void order_of_dispatches(void)
{
    static const char text[] = "with no barrier, fence or wait between them";
    CASE(concurrent, text);
    CASE(concurrent_barrier, NULL);
    CASE(serial, NULL);
    CASE(tracked_encoders, NULL);
    CASE(untracked_encoders, text);
    CASE(untracked_fence, NULL);
    CASE(untracked_wait, NULL);
}
static void unset_constants(void)
{
    oid e = NULL, v = made("MTLFunctionConstantValues"), f = CALL(oid, lib, "newFunctionWithName:", (oid), str("needs_kind"));
    CHECK(f != NULL);
    CHECK(CALL(oid, dev, "newComputePipelineStateWithFunction:error:", (oid, oid *), f, &e) == NULL);
    CHECK(strstr(reason(e), "kind, index 0"));
    CHECK(CALL(oid, lib, "newFunctionWithName:constantValues:error:", (oid, oid, oid *), str("needs_kind"), v, &e) == NULL);
    CHECK(strstr(reason(e), "constant kind (index 0) has no value"));
    CHECK(CALL(oid, lib, "newFunctionWithName:constantValues:error:", (oid, oid, oid *), str("twice"), v, &e) != NULL);
    CHECK(CALL(oid, lib, "newFunctionWithName:", (oid), str("no_such")) == NULL);
    CHECK(pipeline(lib, "far_too_much_tg") == NULL);
}
static void honest_selectors(void)
{
    osel mode = o_sel("setMathMode:"), set_ = o_sel("newResidencySetWithDescriptor:error:");
    oid o = made("MTLCompileOptions");
    CHECK(CALL(signed char, o, "respondsToSelector:", (osel), mode) == 1);
    CHECK(CALL(signed char, dev, "respondsToSelector:", (osel), set_) == 1);
    CHECK(o_class("MTLResidencySetDescriptor") != NULL);
    set("os", 14);
    CHECK(CALL(signed char, o, "respondsToSelector:", (osel), mode) == 0);
    CHECK(CALL(signed char, dev, "respondsToSelector:", (osel), set_) == 0);
    CHECK(o_class("MTLResidencySetDescriptor") == NULL);
    set("os", 15);
    CHECK(CALL(signed char, dev, "respondsToSelector:", (osel), o_sel("newFence")) == 1);
    CHECK(CALL(signed char, dev, "respondsToSelector:", (osel), o_sel("newFences")) == 0);
    CHECK(CALL(signed char, dev, "supportsFamily:", (long), 1007l) == 1);
    CHECK(CALL(signed char, dev, "supportsFamily:", (long), 1008l) == 0);
    CHECK(o_class("NoSuchClass") == NULL);
    CHECK(CALL0(unsigned long, NULL, "length") == 0);
}
static void injected_faults(void)
{
    oid e = NULL;
    fault("buffer", 2, 1);
    oid a = buffer(64), b = buffer(64), c = buffer(64);
    CHECK(a && !b && c);
    fault("pipeline", 1, 1);
    CHECK(pipeline(lib, "twice") == NULL);
    CHECK(pipeline(lib, "twice") != NULL);
    fault("library", 1, 1);
    CHECK(library("kernel void k() {}", &e) == NULL && strstr(reason(e), "injected"));
    fault("queue", 1, 1);
    CHECK(CALL0(oid, dev, "newCommandQueue") == NULL);
    fault("command-buffer", 1, 1);
    set("error-code", 8);
    oid cb = command(), en = encoder(cb, 1);
    encode(en, a);
    dispatch(en, 1, 32);
    END(en);
    run(cb);
    CHECK_INT(CALL0(unsigned long, cb, "status"), 5);
    CHECK_INT(CALL0(long, CALL0(oid, cb, "error"), "code"), 8);
    CHECK(CALL(oid, dev, "newBufferWithLength:options:", (unsigned long, unsigned long), 1ul << 40, 0ul) == NULL);
}
/* How a command buffer ended: 0, or the error's code. */
static long ending(oid b)
{
    oid cb = command(), e = encoder(cb, 1);
    encode(e, b);
    dispatch(e, 1, 32);
    END(e);
    run(cb);
    return CALL0(unsigned long, cb, "status") == 4 ? 0 : CALL0(long, CALL0(oid, cb, "error"), "code");
}
static void injected_endings(void)
{
    static const struct { const char *what; long code; int for_good; } endings[] = { { "internal", 1, 0 }, { "timeout", 2, 0 }, { "page-fault", 3, 0 },
        { "access-revoked", 4, 1 }, { "not-permitted", 7, 0 }, { "out-of-memory", 8, 0 }, { "invalid-resource", 9, 0 }, { "device-removed", 11, 1 }, { "stack-overflow", 12, 0 } };
    oid b = buffer(64);
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        fault(endings[i].what, 2, 1);
        CHECK_INT(ending(b), 0);
        CHECK_INT(ending(b), endings[i].code);
        CHECK_INT(ending(b), endings[i].for_good ? endings[i].code : 0);
        fault(endings[i].what, 1, 0);
        CHECK_INT(ending(b), 0);
    }
}
int main(int argc, char **argv)
{
    setenv("FAKEMETAL_QUIET", "1", 1);
    if (!client_open(argv[0])) return 0;
    char *text = slurp("tests/fakemetal/mistakes.metal");
    oid err = NULL;
    lib = text ? library(text, &err) : NULL;
    if (!lib) { printf("FAIL library: %s\n", reason(err)); return 1; }
    twice = pipeline(lib, "twice");
    queue = CALL0(oid, dev, "newCommandQueue");
    TEST(host_mistakes);
    TEST(order_of_dispatches);
    TEST(unset_constants);
    TEST(honest_selectors);
    TEST(injected_faults);
    TEST(injected_endings);
    free(text);
    TEST_EXIT();
}
