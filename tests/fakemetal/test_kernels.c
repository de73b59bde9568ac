/* Kernel mistakes: what the compiler has to refuse, and what has to be found when it runs. */
#include "fakemetal/client.h"
#include <signal.h>

static oid lib, queue;
#define HEAD_ALONE "#include <metal_stdlib>\nusing namespace metal;\n"
#define OFF "#pragma METAL fp contract(off)\n"
#define HEAD HEAD_ALONE OFF
#define KERNEL(body) HEAD "kernel void k(device float *x [[buffer(0)]], uint i [[thread_position_in_grid]]) { " body " }\n"

static void refused(const char *what, const char *source, const char *text)
{
    oid e = NULL, l = library(source, &e);
    if (l) FAIL("%s: taken", what);
    else if (!strstr(reason(e), text)) FAIL("%s: said \"%s\", expected \"%s\"", what, reason(e), text);
    else if (!strstr(reason(e), "program_source:")) FAIL("%s: no line in \"%s\"", what, reason(e));
}
static void refused_texts(void)
{
    refused("double", KERNEL("double d = 1.0; x[i] = d;"), "MSL has no double");
    refused("long double", KERNEL("x[i] = 1.0l;"), "no long double");
    refused("goto", KERNEL("goto end; end: x[i] = 0;"), "MSL has no goto");
    refused("new", KERNEL("x[i] = *new float;"), "MSL has no new");
    refused("recursion", HEAD "float f(float a) { return a > 1.0f ? f(a - 1.0f) : a; }\n" "kernel void k(device float *x [[buffer(0)]]) { x[0] = f(3.0f); }", "recursion");
    refused("mutual recursion", HEAD "float g(float a);\nfloat f(float a) { return g(a); }\nfloat g(float a) { return f(a); }\nkernel void k(device float *x [[buffer(0)]]) { x[0] = f(3.0f); }", "recursion");
    refused("global variable", HEAD "float g = 1.0f;\nkernel void k(device float *x [[buffer(0)]]) { x[0] = g; }", "must be in the constant address space");
    refused("constant without value", HEAD "constant float g;\nkernel void k(device float *x [[buffer(0)]]) { x[0] = g; }", "needs a value");
    refused("id", HEAD "struct s { float a [[id(0)]]; };\nkernel void k(device float *x [[buffer(0)]], constant s &v [[buffer(1)]]) { x[0] = v.a; }", "argument buffers are not modelled");
    refused("pointer in a buffer", HEAD "struct s { device const float *a; uint n; };\nkernel void k(device float *x [[buffer(0)]], constant s &v [[buffer(1)]]) { x[0] = v.a[0]; }", "argument buffers are not modelled");
    refused("threadgroup in a function", HEAD "float f() { threadgroup float t[4]; return t[0]; }\nkernel void k(device float *x [[buffer(0)]]) { x[0] = f(); }", "in a function that is no kernel");
    refused("threadgroup in a block", KERNEL("if (i < 4) { threadgroup float t[4]; t[i] = 0; x[i] = t[i]; }"), "not at the outermost scope");
    refused("threadgroup with a value", KERNEL("threadgroup float t = 1.0f; x[i] = t;"), "cannot be initialized");
    refused("local pointer without a space", KERNEL("float *p = x; p[i] = 0;"), "without an address space");
    refused("cast without a space", KERNEL("x[i] = ((float2 *)x)[i].x;"), "without an address space");
    refused("parameter without a space", HEAD "float f(float *p) { return p[0]; }\nkernel void k(device float *x [[buffer(0)]]) { x[0] = 1; }", "without an address space");
    refused("kernel parameter without an attribute", HEAD "kernel void k(device float *x) { x[0] = 1; }", "has no attribute");
    refused("kernel parameter without a space", HEAD "kernel void k(float *x [[buffer(0)]]) { x[0] = 1; }", "address space");
    refused("buffer by value", HEAD "kernel void k(float x [[buffer(0)]]) { }", "a pointer or a reference");
    refused("two at one index", HEAD "kernel void k(device float *x [[buffer(0)]], device float *y [[buffer(0)]]) { x[0] = y[0]; }", "two parameters at [[buffer(0)]]");
    refused("index 31", HEAD "kernel void k(device float *x [[buffer(31)]]) { x[0] = 0; }", "buffer index");
    refused("unknown attribute", HEAD "kernel void k(device float *x [[buffer(0)]], uint i [[thread_position]]) { x[i] = 0; }", "is not known");
    refused("type of a position", HEAD "kernel void k(device float *x [[buffer(0)]], int i [[thread_position_in_grid]]) { x[i] = 0; }", "'int' as the type");
    refused("vector for a scalar", HEAD "kernel void k(device float *x [[buffer(0)]], uint2 i [[thread_index_in_simdgroup]]) { x[i.x] = 0; }", "'uint2' as the type");
    refused("result", HEAD "kernel int k(device float *x [[buffer(0)]]) { return 0; }", "a kernel returns void");
    refused("lambda", KERNEL("auto f = [&](float a) { return a; }; x[i] = f(1.0f);"), "a lambda");
    refused("static", KERNEL("static int n = 0; x[i] = n;"), "a static variable");
    refused("std", KERNEL("x[i] = std::abs(1.0f);"), "no C++ standard library");
    refused("erf", KERNEL("x[i] = erf(1.0f);"), "MSL has no erf");
    refused("fast", KERNEL("x[i] = fast::exp(1.0f);"), "fast::");
    refused("bfloat", KERNEL("bfloat b = 0; x[i] = b;"), "bfloat");
    refused("virtual", HEAD "struct S { virtual float f(); };\nkernel void k(device float *x [[buffer(0)]]) { x[0] = 0; }", "no virtual");
    refused("constant initialized", HEAD "constant uint c [[function_constant(0)]] = 3;\nkernel void k(device float *x [[buffer(0)]]) { x[0] = c; }", "neither constexpr nor initialized");
    refused("constant twice", HEAD "constant uint c [[function_constant(0)]];\nconstant uint d [[function_constant(0)]];\nkernel void k(device float *x [[buffer(0)]]) { x[0] = c + d; }", "declared twice");
    refused("derived class", HEAD "struct A { float x; };\nstruct B : A { float y; };\nkernel void k(device float *x [[buffer(0)]]) { x[0] = 1; }", "a derived class");
    refused("attribute twice", HEAD "kernel void k(device float *x [[buffer(0)]], uint i [[threads_per_simdgroup]], uint j [[thread_execution_width]]) { x[0] = i + j; }", "two parameters with the same attribute");
    refused("main", HEAD "float main(float a) { return a; }\nkernel void k(device float *x [[buffer(0)]]) { x[0] = main(1.0f); }", "named main");
    refused("hexadecimal half", KERNEL("x[i] = 1h;"), "needs a point");
    refused("kernel called", HEAD "kernel void a(device float *x [[buffer(0)]]) { x[0] = 1; }\nkernel void k(device float *x [[buffer(0)]]) { a(x); }", "a kernel is called");
    refused("unclosed", HEAD "kernel void k(device float *x [[buffer(0)]]) { x[0] = (1; }", "unbalanced");
    refused("syntax", KERNEL("x[i] = 1 +;"), "error:");
}
#define SUM "kernel void k(device float *x [[buffer(0)]]) { x[0] = x[0] * x[1] + x[2]; }\n"
static void refused_pragmas(void)
{
    const char *lost = "no #pragma METAL fp contract(off) in front of the first function", *only = "only contract(off) and math_mode(safe) are taken";
    refused("contraction not forbidden", HEAD_ALONE SUM, lost);
    refused("forbidden in a comment", HEAD_ALONE "// " OFF SUM, lost);
    refused("forbidden for another compiler", HEAD_ALONE "#ifndef __METAL__\n" OFF "#endif\n" SUM, lost);
    refused("forbidden too late", HEAD_ALONE "float f(float a) { return a * a + a; }\n" OFF SUM, lost);
    refused("forbidden inside", HEAD_ALONE "kernel void k(device float *x [[buffer(0)]]) {\n" OFF " x[0] = x[0] * x[1] + x[2]; }\n", lost);
    refused("contract(on)", HEAD "#pragma METAL fp contract(on)\n" SUM, only);
    refused("contract(fast)", HEAD SUM "#pragma METAL fp contract( fast )\n", only);
    refused("contract(fast) alone", HEAD_ALONE "#pragma METAL fp contract(fast)\n" SUM, only);
    refused("math_mode(fast)", HEAD "#pragma METAL fp math_mode(fast)\n" SUM, only);
    refused("math_mode(relaxed) inside", HEAD "kernel void k(device float *x [[buffer(0)]]) {\n# pragma METAL  fp math_mode(relaxed)\n x[0] = 1.0f; }\n", only);
    refused("by an operator", HEAD "_Pragma(\"METAL fp contract(on)\")\n" SUM, only);
    refused("clang's", HEAD "#pragma clang fp contract(fast)\n" SUM, "in MSL it is #pragma METAL fp");
    refused("C's", HEAD "#pragma STDC FP_CONTRACT ON\n" SUM, "in MSL it is #pragma METAL fp");
    oid e = NULL, l = library(HEAD_ALONE "#pragma METAL fp math_mode(safe)\n#  pragma METAL fp contract (off)\n" SUM, &e);
    if (!l) FAIL("safe pragmas: %s", reason(e));
    else CALL0(void, l, "release");
}
static void refused_address_spaces(void)
{
    refused("device pointer from threadgroup memory", KERNEL("threadgroup float t[4]; device float *p = t; p[0] = 0; x[i] = p[0];"), "error:");
    refused("thread pointer from device memory", HEAD "float f(const thread float *p) { return p[0]; }\nkernel void k(device float *x [[buffer(0)]]) { x[0] = f(x); }", "error:");
    refused("constant made device", HEAD "kernel void k(device float *x [[buffer(0)]], constant float *c [[buffer(1)]]) { device const float *p = c; x[0] = p[0]; }", "error:");
    refused("write to constant", HEAD "kernel void k(constant float *c [[buffer(0)]]) { c[0] = 1.0f; }", "error:");
    refused("cast to another space", KERNEL("threadgroup float t[4]; t[0] = 0; device const float4 *p = (device const float4 *)t; x[i] = p[0].x;"), "error:");
}
static void refused_types(void)
{
    refused("vectors of different kinds", KERNEL("int4 a = int4(1); float4 f = a; x[i] = f.x;"), "error:");
    refused("number of elements", KERNEL("float4 f = float4(1.0f, 2.0f); x[i] = f.x;"), "number of elements");
    refused("max of a float and an int", KERNEL("x[i] = max(x[i], 0);"), "ambiguous");
    refused("matrix of another size", "#include <metal_simdgroup_matrix>\n" KERNEL("simdgroup_matrix<float, 4, 4> m; x[i] = 0;"), "8x8");
    refused("load of another type", "#include <metal_simdgroup_matrix>\n" KERNEL("simdgroup_half8x8 m; simdgroup_load(m, x, 8); simdgroup_store(m, x, 8);"), "another element type");
    refused("shuffle of a structure", HEAD "struct S { float a[8]; };\n" "kernel void k(device float *x [[buffer(0)]]) { S s; s.a[0] = 1; s = simd_shuffle(s, 1); x[0] = s.a[0]; }", "more than 16 bytes");
}

/* what shows only when it runs */
static const char *run_kernel;
static size_t run_bytes, run_bytes2;
static unsigned long run_groups, run_threads, run_tg;
static void run_it(void)
{
    oid p = pipeline(lib, run_kernel), cb = CALL0(oid, queue, "commandBuffer"), e = encoder(cb, 1);
    if (!p) _exit(7);
    use(e, p);
    oid a = buffer(run_bytes);
    memset(contents(a), 0, run_bytes);
    bind(e, a, 0, 0);
    if (run_bytes2) bind(e, buffer(run_bytes2), 0, 1);
    if (run_tg) CALL(void, e, "setThreadgroupMemoryLength:atIndex:", (unsigned long, unsigned long), run_tg, 0ul);
    dispatch(e, run_groups, run_threads);
    CALL0(void, e, "endEncoding");
    CALL0(void, cb, "commit");
    CALL0(void, cb, "waitUntilCompleted");
}
static void running(const char *kernel, size_t n, size_t n2, unsigned long groups, unsigned long threads, unsigned long tg, const char *text)
{
    run_kernel = kernel;
    run_bytes = n;
    run_bytes2 = n2;
    run_groups = groups;
    run_threads = threads;
    run_tg = tg;
    for (int schedule = 0; schedule < 2; schedule++) {
        set("schedule", schedule);
        stopped(kernel, run_it, text);
    }
    set("schedule", 0);
}
static void found_running(void)
{
    running("reads_past", 256, 256, 2, 32, 0, "of buffer 0 (x), which is bound with 256 bytes");
    running("reads_past", 260, 256, 2, 32, 0, NULL);
    running("reads_before", 256, 256, 2, 32, 0, "reads 4 bytes at -4 of buffer 0 (x)");
    running("writes_past", 256, 0, 2, 32, 0, "writes 4 bytes at 256 of buffer 0 (y)");
    running("half_barrier", 256, 0, 1, 64, 0, "divergence:");
    running("half_sum", 256, 0, 1, 64, 0, "divergence:");
    running("two_barriers", 256, 0, 1, 64, 0, "other threads are in the one of line");
    running("no_barrier", 256, 0, 1, 64, 0, "race: ");
    running("barrier_of_other_memory", 256, 0, 1, 64, 0, "race: ");
    running("no_simd_barrier", 256, 0, 1, 32, 0, "race: ");
    running("device_race", 512, 0, 1, 64, 0, "with nothing between to order them");
    running("groups_race", 512, 0, 4, 64, 0, "with nothing between to order them");
    running("outside_tg", 512, 0, 1, 64, 128, "threadgroup memory outside of every variable");
    running("outside_tg", 512, 0, 1, 64, 256, NULL);
    running("too_much_tg", 512, 0, 1, 64, 256, NULL);
    running("different_matrices", 1024, 0, 1, 32, 0, "different matrix operations");
    running("different_matrices", 1024, 0, 1, 24, 0, "SIMD-group of less than 32 threads");
    running("returned_early", 1024, 0, 1, 32, 0, "divergence:");
    running("deep", 1024, 0, 1, 32, 0, "own memory");
    running("twice", 1024, 4, 1, 32, 0, NULL);
}
/* The same without the checks of each access: guard pages, the order of running and the bytes behind a buffer are left. */
static void found_running_fast(void)
{
    set("fast", 1);
    oid kept = lib, err = NULL;
    char *text = slurp("tests/fakemetal/mistakes.metal");
    lib = library(text, &err);
    free(text);
    REQUIRE(lib);
    running("writes_past", 256, 0, 2, 32, 0, "wrote past the end of buffer 0");
    running("half_barrier", 256, 0, 1, 64, 0, "divergence:");
    running("returned_early", 1024, 0, 1, 32, 0, "divergence:");
    running("reads_past", 16384, 1 << 20, 8192, 32, 0, "kernel reads_past");
    running("twice", 1024, 4, 1, 32, 0, NULL);
    CALL0(void, lib, "release");
    lib = kept;
    set("fast", 0);
}
int main(int argc, char **argv)
{
    setenv("FAKEMETAL_QUIET", "1", 1);
    if (!client_open(argv[0])) return 0;
    char *text = slurp("tests/fakemetal/mistakes.metal");
    oid err = NULL;
    lib = text ? library(text, &err) : NULL;
    free(text);
    if (!lib) { printf("FAIL library: %s\n", reason(err)); return 1; }
    queue = CALL0(oid, dev, "newCommandQueue");
    TEST(refused_texts);
    TEST(refused_pragmas);
    TEST(refused_address_spaces);
    TEST(refused_types);
    TEST(found_running);
    TEST(found_running_fast);
    TEST_EXIT();
}
