/* test_isa.c - the instruction sets that the library finds are those that the system lists. */
#include "test.h"

#include "backend/cpu/kernels.h"

/* WORD in the line of /proc/cpuinfo that begins with "flags". */
static bool listed(const char *line, const char *word) {
    const size_t n = strlen(word);
    for (const char *p = line; (p = strstr(p, word)); p += n)
        if (p > line && p[-1] == ' ' && (p[n] == ' ' || p[n] == '\n')) return true;
    return false;
}

static bool all_listed(const char *line, const char *const *words) {
    for (; *words; words++)
        if (!listed(line, *words)) return false;
    return true;
}

static void test_as_the_system_lists(void) {
    static char line[16384];
    static const char *const avx2[] = {"avx", "avx2", "fma", "f16c", NULL};
    static const char *const avx512[] = {"avx", "avx2", "fma", "f16c", "avx512f", "avx512dq", "avx512bw", "avx512vl", NULL};
    static const char *const vnni[] = {"avx2", "fma", "f16c", "avx512f", "avx512dq", "avx512bw", "avx512vl", "avx512_vnni", NULL};
    static const char *const bf16[] = {"avx2", "fma", "f16c", "avx512f", "avx512dq", "avx512bw", "avx512vl", "avx512_vnni",
                                       "avx512_bf16", NULL};
    static const struct { const char *name; const char *const *words; } sets[] = {
        {"avx2", avx2}, {"avx512", avx512}, {"avx512vnni", vnni}, {"avx512bf16", bf16}};
    bool found = false;
    FILE *f = fopen("/proc/cpuinfo", "r");
    while (f && !found && fgets(line, sizeof line, f)) found = !strncmp(line, "flags", 5);
    if (f) fclose(f);
#if !defined(__x86_64__)
    found = false; /* under qemu-user the list is that of the machine around */
#endif
    if (!found) SKIP("this machine does not list its instruction sets in x86's words");
    for (size_t k = 0; k < SILL_ARRAY_LEN(sets); k++) {
        const sill__cpu_isa *isa = NULL;
        for (int i = 0; sill__cpu_isas[i] && !isa; i++)
            if (!strcmp(sill__cpu_isas[i]->name, sets[k].name)) isa = sill__cpu_isas[i];
        if (!isa) FAIL("this build has no %s", sets[k].name);
        else if (isa->available() != all_listed(line, sets[k].words))
            FAIL("%s is %s, which is not what the system lists", isa->name, isa->available() ? "available" : "not available");
    }
}

static void test_the_reference_is_always_there(void) {
    bool scalar = false;
    for (int i = 0; sill__cpu_isas[i]; i++) scalar |= !strcmp(sill__cpu_isas[i]->name, "scalar") && sill__cpu_isas[i]->available();
    CHECK(scalar);
}

int main(int argc, char **argv) {
    TEST(test_as_the_system_lists);
    TEST(test_the_reference_is_always_there);
    TEST_EXIT();
}
