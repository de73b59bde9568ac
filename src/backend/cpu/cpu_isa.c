/*
 * cpu_isa.c - the instruction sets that this build has bodies for, best first, and whether this machine runs them.
 */
#include "backend/cpu/kernels.h"

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#endif

static bool always(void) { return true; }

#if defined(__x86_64__)
/* A bit of CPUID: register 0..3 is eax..edx. */
static bool cpuid_bit(unsigned leaf, unsigned sub, int reg, int bit) {
    unsigned r[4];
    return __get_cpuid_count(leaf, sub, &r[0], &r[1], &r[2], &r[3]) && (r[reg] >> bit & 1u);
}

/* Whether the system saves these registers (bits of XCR0). The compilers' __builtin_cpu_supports is not asked: in zig's
 * run-time library it is always false. */
static bool saved(unsigned bits) {
    unsigned low, high;
    if (!cpuid_bit(1, 0, 2, 27)) return false; /* OSXSAVE: xgetbv may be used */
    __asm__ __volatile__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (low & bits) == bits;
}

static bool have_avx2(void) { /* AVX, FMA, F16C; AVX2; the halves of the 256-bit registers */
    return cpuid_bit(1, 0, 2, 28) && cpuid_bit(1, 0, 2, 12) && cpuid_bit(1, 0, 2, 29) && cpuid_bit(7, 0, 1, 5) && saved(0x06);
}
static bool have_avx512(void) { /* F, DQ, BW, VL; masks and the 512-bit registers */
#ifdef __APPLE__
    const bool kept = true; /* macOS saves them from a thread's first use on; before it XCR0 does not show them */
#else
    const bool kept = saved(0xe6);
#endif
    return have_avx2() && kept && cpuid_bit(7, 0, 1, 16) && cpuid_bit(7, 0, 1, 17) && cpuid_bit(7, 0, 1, 30) && cpuid_bit(7, 0, 1, 31);
}
static bool have_avx512vnni(void) { /* since Cascade Lake and Ice Lake */
    return have_avx512() && cpuid_bit(7, 0, 2, 11);
}
static bool have_avx512bf16(void) { /* since Cooper Lake, Sapphire Rapids and Zen 4 */
    return have_avx512vnni() && cpuid_bit(7, 1, 0, 5);
}
#elif defined(__aarch64__)
#if defined(__APPLE__)
static bool feature(const char *name) {
    int have = 0;
    size_t size = sizeof have;
    return sysctlbyname(name, &have, &size, NULL, 0) == 0 && have;
}
static bool have_dotprod(void) {
    return feature("hw.optional.arm.FEAT_DotProd") && feature("hw.optional.arm.FEAT_FP16");
}
static bool have_i8mm(void) {
    return have_dotprod() && feature("hw.optional.arm.FEAT_I8MM") && feature("hw.optional.arm.FEAT_BF16");
}
#elif defined(__linux__)
/* Bits of the kernel's HWCAP words (its user ABI; older headers lack the names). */
static bool have_dotprod(void) {
    unsigned long caps = getauxval(AT_HWCAP);
    return (caps >> 20 & 1u) && (caps >> 10 & 1u); /* ASIMDDP, ASIMDHP */
}
static bool have_i8mm(void) {
    unsigned long caps = getauxval(AT_HWCAP2);
    return have_dotprod() && (caps >> 13 & 1u) && (caps >> 14 & 1u); /* I8MM, BF16 */
}
#else
static bool have_dotprod(void) { return false; }
static bool have_i8mm(void) { return false; }
#endif
#endif

#define ISA(id, own, have) \
    static const sill__cpu_isa isa_##id = {#id, SILL__OWN_##own, have, &sill__cpu_mat_##id, &sill__cpu_vec_##id, &sill__cpu_limits_##id};

ISA(scalar, ALL, always)
#if defined(__x86_64__)
ISA(avx2, ALL, have_avx2)
ISA(avx512, CODES, have_avx512)
ISA(avx512vnni, BF16, have_avx512vnni)
ISA(avx512bf16, ALL, have_avx512bf16)
#elif defined(__aarch64__)
ISA(neon, CODES, always)
ISA(neon_dotprod, CODES, have_dotprod)
ISA(neon_i8mm, ALL, have_i8mm)
#endif

const sill__cpu_isa *const sill__cpu_isas[] = {
#if defined(__x86_64__)
    &isa_avx512bf16, &isa_avx512vnni, &isa_avx512, &isa_avx2,
#elif defined(__aarch64__)
    &isa_neon_i8mm, &isa_neon_dotprod, &isa_neon,
#endif
    &isa_scalar, NULL,
};

static int place_of(const char *name) {
    int i = 0;
    while (sill__cpu_isas[i] && strcmp(sill__cpu_isas[i]->name, name)) i++;
    return i;
}

bool sill__cpu_isa_shares(const char *isa, const char *other, sill__type type, sill__compute compute) {
    const bool codes = sill__type_get(type)->block > 1 || compute == SILL__COMPUTE_INT8 || compute == SILL__COMPUTE_BLOCK_I8;
    int last = place_of(isa), first = place_of(other);
    if (!sill__cpu_isas[last] || first >= last) return false;
    for (int i = first + 1; i <= last; i++) {
        const sill__isa_own own = sill__cpu_isas[i]->own;
        if (own == SILL__OWN_ALL || (own == SILL__OWN_CODES && codes) || (own == SILL__OWN_BF16 && compute == SILL__COMPUTE_BF16)) return false;
    }
    return true;
}
