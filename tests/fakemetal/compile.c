/* MSL text -> a shared library of this machine: preprocessor, translator, and clang twice (once only to check address spaces).
 * What was compiled once is kept on disk under a hash of everything that went into it. */
#include "fake.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define EMBED(name, file) \
    __asm__(".section .rodata\n.globl fake_" #name "\n.hidden fake_" #name "\nfake_" #name ":\n.incbin \"" FAKEMETAL_SHIM "/" file "\"\n.byte 0\n.previous\n"); \
    extern const char fake_##name[];
EMBED(msl_abi, "msl_abi.h")
EMBED(msl, "msl.h")
EMBED(msl_simd, "msl_simd.h")
EMBED(msl_run, "msl_run.h")
static const struct { const char *name, *text; } shim[] = { { "msl_abi.h", fake_msl_abi }, { "msl.h", fake_msl }, { "msl_simd.h", fake_msl_simd }, { "msl_run.h", fake_msl_run } };
static const char *const headers[] = { "metal_stdlib", "metal_simdgroup", "metal_simdgroup_matrix", "metal_math", "metal_compute", "metal_atomic", "metal_common",
    "metal_integer", "metal_geometric", "metal_matrix", "metal_pack", "metal_relational", "metal_types", "metal_limits", "metal_numeric", "simd/simd.h" };

static const char *tool(void)
{
    static char found[512];
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&lock);
    const char *env = getenv("FAKEMETAL_CXX");
    if (env) snprintf(found, sizeof found, "%s", env);
    else if (!found[0]) {
        static const char *const names[] = { "clang++-19", "clang++-20", "clang++-21", "clang++-18", "clang++-17", "clang++-16", "clang++" };
        for (size_t i = 0; i < sizeof names / sizeof *names && !found[0]; i++) {
            char cmd[200];
            snprintf(cmd, sizeof cmd, "%s -dumpversion 2>/dev/null", names[i]);
            FILE *p = popen(cmd, "r");
            int major = 0;
            if (p) { if (fscanf(p, "%d", &major) != 1) major = 0; pclose(p); }
            if (major < 16) continue;
#if defined(__aarch64__)
            snprintf(found, sizeof found, "%s --target=aarch64-linux-gnu -march=armv8.4-a+fp16", names[i]);
#else
            snprintf(found, sizeof found, "%s -march=native", names[i]);
#endif
        }
    }
    pthread_mutex_unlock(&lock);
    return found[0] ? found : NULL;
}
const char *fake_compiler(void) { return tool(); }
/* Where libraries lie that were compiled on another machine (FAKEMETAL_PREBUILT): found there by the source and the translator
 * alone, and put there by a compiler that has made one. */
static const char *prebuilt(void) { const char *s = getenv("FAKEMETAL_PREBUILT"); return s && *s ? s : NULL; }
const char *fakemetal_compiler(void) { return tool() ? tool() : prebuilt(); }

static uint64_t hash(uint64_t h, const char *s) { for (; *s; s++) h = (h ^ (unsigned char)*s) * 0x100000001b3ull; return (h ^ 0xff) * 0x100000001b3ull; }
uint64_t fake_hash(uint64_t h, const char *s) { return hash(h, s); }
/* -march=native means another thing on another processor */
static uint64_t hash_cpu(uint64_t h)
{
    FILE *f = fopen("/proc/cpuinfo", "r");
    if (!f) return h;
    char line[8192];
    while (fgets(line, sizeof line, f)) if (!strncmp(line, "flags", 5) || !strncmp(line, "Features", 8) || !strncmp(line, "model name", 10)) { h = hash(h, line); if (line[0] != 'm') break; }
    fclose(f);
    return h;
}
static char *read_all(const char *path)
{
    FILE *f = fopen(path, "rb");
    if (!f) return NULL;
    size_t n = 0, cap = 1 << 16;
    char *s = malloc(cap);
    for (size_t k; s && (k = fread(s + n, 1, cap - n - 1, f)) > 0;) { n += k; if (cap - n < 2) s = realloc(s, cap *= 2); }
    fclose(f);
    if (s) s[n] = 0;
    return s;
}
static bool write_all(const char *dir, const char *name, const char *text)
{
    char path[700];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "wb");
    if (!f) return false;
    const size_t n = strlen(text);
    bool ok = fwrite(text, 1, n, f) == n;
    return fclose(f) == 0 && ok;
}
/* runs a command; false: it failed, and *log has what it said (nothing else of it is kept) */
__attribute__((format(printf, 2, 3))) bool fake_run_command(char **log, const char *f, ...)
{
    char *cmd = NULL;
    va_list a;
    va_start(a, f);
    const int r = vasprintf(&cmd, f, a);
    va_end(a);
    if (r < 0) return false;
    FILE *p = popen(cmd, "r");
    free(cmd);
    if (!p) return false;
    char *out = malloc(1 << 16);
    size_t n = out ? fread(out, 1, (1 << 16) - 1, p) : 0;
    if (out) out[n] = 0;
    char rest[4096];
    while (fread(rest, 1, sizeof rest, p) > 0) { }
    if (pclose(p) == 0) { free(out); return true; }
    free(*log);
    *log = out;
    return false;
}
static const char *cache_dir(void)
{
    static char dir[512];
    if (dir[0]) return dir;
    const char *env = getenv("FAKEMETAL_CACHE"), *tmp = getenv("TMPDIR");
    if (env && *env) snprintf(dir, sizeof dir, "%s", env);
    else snprintf(dir, sizeof dir, "%s/fakemetal-%u", tmp && *tmp ? tmp : "/tmp", (unsigned)getuid());
    if (mkdir(dir, 0700) && errno != EEXIST) fake_die("cannot make %s: %s (FAKEMETAL_CACHE names another place)", dir, strerror(errno));
    return dir;
}
static const char *metal_version(long language)
{
    static char v[48];
    const long major = language >> 16, minor = language & 0xffff;
    snprintf(v, sizeof v, "%ld", major * 100 + minor * 10);
    return v;
}
#define STRICT "-std=c++17 -nostdinc -nostdinc++ -fsigned-char -nostdlib++ -fno-exceptions -fno-rtti -Werror=return-type -Werror=uninitialized -Wno-everything " \
               "-fno-lax-vector-conversions -Xclang -ffloat16-excess-precision=none -ffp-contract=off -fno-math-errno"
#define CHECKED "-gline-tables-only -DMSL_CHECKED -fsanitize=kernel-address -mllvm -asan-instrumentation-with-call-threshold=0 -mllvm -asan-opt-same-temp=0 -mllvm -asan-stack=0 -mllvm -asan-globals=0 -mllvm -asan-kernel-mem-intrinsic-prefix=1"

char *fake_library_text(const char *source, const char *version, const char *macros, const char *tmp, char **log)
{
    char path[700];
    const char *cxx = tool();
    if (!cxx) { *log = strdup("no clang++ 16 or later to compile kernels with (FAKEMETAL_CXX names one; tools/deps.sh --test installs one)"); return NULL; }
    snprintf(path, sizeof path, "%s/simd", tmp);
    mkdir(path, 0700);
    bool ok = write_all(tmp, "program_source", source);
    for (size_t i = 0; i < sizeof shim / sizeof *shim; i++) ok = ok && write_all(tmp, shim[i].name, shim[i].text);
    for (size_t i = 0; i < sizeof headers / sizeof *headers; i++) ok = ok && write_all(tmp, headers[i], "\n");
    if (!ok) { *log = strdup("cannot write the files to be compiled"); return NULL; }
    if (!fake_run_command(log, "cd '%s' && %s -x c++ -std=c++14 -undef -nostdinc -nostdinc++ -I. -D__METAL__=1 -D__METAL_MACOS__=1 -D__METAL_VERSION__=%s -D__HAVE_SIMDGROUP_MATRIX__=1 %s -E program_source -o k.i 2>&1", tmp, cxx, version, macros)) return NULL;
    snprintf(path, sizeof path, "%s/k.i", tmp);
    char *text = read_all(path);
    if (!text) { *log = strdup("the preprocessor's output is not there"); return NULL; }
    char *cpp = fake_translate(text, log);
    free(text);
    return cpp;
}
static char *build(const char *source, const char *cxx, const char *version, const char *tmp, const char *out, char **log)
{
    /* UNROLL: the kernels' hint for registers that this machine does not have; it would take ten times as long to compile. */
    char path[700], *cpp = fake_library_text(source, version, "-DUNROLL= -DUNROLL_4=", tmp, log);
    if (!cpp) return NULL;
    const bool ok = write_all(tmp, "k.cpp", cpp);
    free(cpp);
    if (!ok) { *log = strdup("cannot write the translated text"); return NULL; }
    /* both at once: the check of address spaces, and the library */
    if (!fake_run_command(log, "cd '%s' || exit 1; %s " STRICT " -DMSL_CHECK -fsyntax-only -I. k.cpp >check.log 2>&1 & c=$!; %s " STRICT " -O2 -fvisibility=hidden -fPIC -shared %s -I. k.cpp -o k.so -lm >build.log 2>&1; b=$?; "
                  "wait $c; c=$?; if [ $b = 0 ]; then cat check.log; else cat build.log; fi; [ $b = 0 ] && [ $c = 0 ]", tmp, cxx, cxx, fake_set.fast ? "" : CHECKED)) return NULL;
    snprintf(path, sizeof path, "%s/k.so", tmp);
    if (rename(path, out)) { *log = strdup("cannot move the compiled library into the cache"); return NULL; }
    return strdup(out);
}
char *fake_library_path(const char *source, long language, char **log)
{
    const char *cxx = tool();
    char ready[600] = "";
    *log = NULL;
    if (prebuilt()) {
        uint64_t h = hash(hash(hash(0xcbf29ce484222325ull, source), metal_version(language)), fake_translator_hash);
        for (size_t i = 0; i < sizeof shim / sizeof *shim; i++) h = hash(h, shim[i].text);
        snprintf(ready, sizeof ready, "%s/%016llx.so", prebuilt(), (unsigned long long)h);
        if (access(ready, R_OK) == 0) return strdup(ready);
    }
    if (!cxx) { *log = strdup("no clang++ 16 or later to compile kernels with (FAKEMETAL_CXX names one; tools/deps.sh --test installs one)"); return NULL; }
    const char *version = metal_version(language);
    uint64_t h = hash(0xcbf29ce484222325ull, source);
    h = hash(hash(hash(hash(h, cxx), version), STRICT CHECKED), fake_set.fast ? "fast" : "checked");
    for (size_t i = 0; i < sizeof shim / sizeof *shim; i++) h = hash(h, shim[i].text);
    h = hash(hash_cpu(h), fake_translator_hash);
    static uint64_t bad;                                    /* what did not compile is not tried again in this process */
    static char *why;
    if (bad == h && why) { *log = strdup(why); return NULL; }
    char out[600], lock[640];
    snprintf(out, sizeof out, "%s/%016llx.so", cache_dir(), (unsigned long long)h);
    if (access(out, R_OK) == 0) return strdup(out);
    snprintf(lock, sizeof lock, "%s.lock", out);            /* two processes that want the same: one compiles */
    int fd = open(lock, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    if (fd >= 0) (void)flock(fd, LOCK_EX);
    char *r = NULL;
    if (access(out, R_OK) == 0) r = strdup(out);
    else {
        char tmp[600];
        snprintf(tmp, sizeof tmp, "%s/XXXXXX", cache_dir());
        if (!mkdtemp(tmp)) *log = strdup("cannot make a directory in the cache");
        else {
            r = build(source, cxx, version, tmp, out, log);
            char *none = NULL;
            if (!getenv("FAKEMETAL_KEEP")) fake_run_command(&none, "rm -rf '%s'", tmp);
            free(none);
        }
    }
    if (fd >= 0) { unlink(lock); close(fd); }
    char *none = NULL;
    if (r && ready[0]) fake_run_command(&none, "mkdir -p '%s' && cp '%s' '%s'", prebuilt(), r, ready);
    free(none);
    if (!r && !*log) *log = strdup("compiling failed");
    if (!r) { free(why); why = strdup(*log); bad = h; }
    return r;
}
char *fakemetal_compile(const char *source)
{
    char *log = NULL, *path = fake_library_path(source, 3 << 16, &log);
    if (!path) return log;
    free(path);
    free(log);
    return NULL;
}
/* A change of the translator makes other libraries; one of what it refuses must not find those that were taken before. */
__asm__(".section .rodata\n.globl fake_translator_hash\n.hidden fake_translator_hash\nfake_translator_hash:\n.incbin \"" FAKEMETAL_SHIM "/../translate.c\"\n.incbin \"" FAKEMETAL_SHIM "/../lint.c\"\n.byte 0\n.previous\n");
