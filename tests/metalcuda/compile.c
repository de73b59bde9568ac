/* The kernels' text -> a program for an NVIDIA GPU: the fake Metal's preprocessor and translator, this directory's headers in
 * place of its own for SIMD-groups and launching, clang for nvptx64, and ptxas where there is one (else the driver compiles PTX).
 * METALCUDA_CXX names the compiler, METALCUDA_ARCH the GPU (sm_90), METALCUDA_LIBDEVICE the library of functions,
 * METALCUDA_SKIP_LINE a source line whose barriers do nothing (to see that racecheck sees). Programs are kept in the directory
 * FAKEMETAL_PREBUILT, or beside the fake Metal's, under a hash of all that went into them but the compiler. */
#include "cuda.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define EMBED(name, file) \
    __asm__(".section .rodata\n.globl cuda_" #name "\n.hidden cuda_" #name "\ncuda_" #name ":\n.incbin \"" METALCUDA_SHIM "/" file "\"\n.byte 0\n.previous\n"); \
    extern const char cuda_##name[];
EMBED(msl_math, "msl_math.h")
EMBED(msl_simd, "msl_simd.h")
EMBED(msl_run, "msl_run.h")
EMBED(msl_launch, "msl_launch.h")

#define TAIL "\n#ifndef MSL_CHECK\n#line 1 \"launchers\"\n"      /* where the translator's own launchers begin */
#define FLAGS "-x c++ -std=c++17 --target=nvptx64-nvidia-cuda -nogpulib -nostdinc -fsigned-char -fno-exceptions -fno-rtti -Werror=return-type " \
              "-Werror=uninitialized -Wno-everything -fno-lax-vector-conversions -O3 -ffp-contract=off -fno-math-errno -gline-directives-only"

static const char *env(const char *name, const char *otherwise) { const char *s = getenv(name); return s && *s ? s : otherwise; }
static const char *libdevice(void)
{
    static const char *const places[] = { "/usr/local/cuda/nvvm/libdevice/libdevice.10.bc", "/opt/cuda/nvvm/libdevice/libdevice.10.bc",
        "/usr/lib/cuda/nvvm/libdevice/libdevice.10.bc", "/usr/lib/nvidia-cuda-toolkit/libdevice/libdevice.10.bc" };
    const char *named = getenv("METALCUDA_LIBDEVICE");
    if (named) return named;
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) if (access(places[i], R_OK) == 0) return places[i];
    return NULL;
}
static bool write_text(const char *dir, const char *name, const char *text)
{
    char path[700];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "wb");
    if (!f) return false;
    const size_t n = strlen(text);
    const bool ok = fwrite(text, 1, n, f) == n;
    return fclose(f) == 0 && ok;
}
/* The translated text without its tail, and an entry for each kernel. */
static bool write_program(const char *dir, const char *cpp, const msl_library *l)
{
    char path[700];
    const char *tail = strstr(cpp, TAIL);
    snprintf(path, sizeof path, "%s/gpu.cpp", dir);
    FILE *f = tail ? fopen(path, "wb") : NULL;
    if (!f) return false;
    fprintf(f, "#include \"msl_math.h\"\n%.*s\n#line 1 \"launchers\"\n#define MSL_SET_CONSTANTS ", (int)(tail - cpp), cpp);
    bool ok = true;
    for (unsigned i = 0; i < l->n_constants; i++) {
        if (l->constants[i].index >= 16 || l->constants[i].size != 4) { ok = false; continue; }  /* none is derived, all are uint */
        fprintf(f, "%s = l.constant[%u]; ", l->constants[i].name, l->constants[i].index);
    }
    fprintf(f, "\n");
    for (unsigned k = 0; k < l->n_kernels; k++) {
        const msl_kernel *m = &l->kernels[k];
        fprintf(f, "static constexpr msl_bind msl_binds_%s[] = {", m->name);
        for (int i = 0; i < m->n; i++) fprintf(f, "{'%c',%d,-1,nullptr},", m->bind[i].kind, m->bind[i].index);
        fprintf(f, "{0,0,-1,nullptr}};\nMSL_KERNEL(%s)\n", m->name);
    }
    return fclose(f) == 0 && ok;
}
static char *build(const fake_lib *lib, const char *dir, const char *out, char **log)
{
    char cubin[700], ptx[700];
    const char *bc = libdevice(), *arch = env("METALCUDA_ARCH", "sm_90"), *cxx = env("METALCUDA_CXX", "clang++-19"), *line = env("METALCUDA_SKIP_LINE", "-1");
    if (!bc) { *log = strdup("no libdevice.10.bc of a CUDA toolkit (METALCUDA_LIBDEVICE names one)"); return NULL; }
    char *cpp = fake_library_text(lib->source, "300", "", dir, log);
    if (!cpp) return NULL;
    bool ok = write_program(dir, cpp, lib->l) && write_text(dir, "msl.h", fake_msl) && write_text(dir, "msl_abi.h", fake_msl_abi) &&
              write_text(dir, "msl_math.h", cuda_msl_math) && write_text(dir, "msl_simd.h", cuda_msl_simd) && write_text(dir, "msl_run.h", cuda_msl_run) &&
              write_text(dir, "msl_launch.h", cuda_msl_launch);
    free(cpp);
    if (!ok) { *log = strdup("the kernels use what is not made for CUDA here (function constants other than uint 0 to 15), or the disk is full"); return NULL; }
    if (!fake_run_command(log, "cd '%s' && %s " FLAGS " -march=%s -Xclang -target-feature -Xclang +ptx80 -Xclang -mlink-builtin-bitcode -Xclang '%s' -DMSL_SKIP_LINE=%s -I. -S gpu.cpp -o gpu.ptx 2>&1", dir, cxx, arch, bc, line)) return NULL;
    snprintf(cubin, sizeof cubin, "%s.%s.cubin", out, arch);
    snprintf(ptx, sizeof ptx, "%s.%s.ptx", out, arch);
    const char *made = cubin;
    if (!fake_run_command(log, "cd '%s' && ptxas -arch %s --maxrregcount 128 -lineinfo -v gpu.ptx -o gpu.cubin >ptxas.log 2>&1 && cp gpu.cubin '%s' && cp ptxas.log '%s.log'", dir, arch, cubin, out)) {
        made = ptx;
        if (!fake_run_command(log, "cp '%s/gpu.ptx' '%s'", dir, ptx)) return NULL;
    }
    return strdup(made);
}
char *metalcuda_program(const fake_lib *lib, char **log)
{
    const char *tmp = getenv("TMPDIR"), *kept = getenv("FAKEMETAL_PREBUILT"), *arch = env("METALCUDA_ARCH", "sm_90");
    char dir[512], out[600], path[700], work[600];
    uint64_t h = 0xcbf29ce484222325ull;
    const char *const parts[] = { lib->source, fake_msl, fake_msl_abi, fake_translator_hash, cuda_msl_math, cuda_msl_simd, cuda_msl_run, cuda_msl_launch, env("METALCUDA_SKIP_LINE", "-1"), FLAGS };
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) h = fake_hash(h, parts[i]);
    *log = NULL;
    if (kept && *kept) snprintf(dir, sizeof dir, "%s", kept);
    else snprintf(dir, sizeof dir, "%s/fakemetal-%u", tmp && *tmp ? tmp : "/tmp", (unsigned)getuid());
    if (mkdir(dir, 0700) && errno != EEXIST) { *log = strdup("the directory of compiled kernels cannot be made"); return NULL; }
    snprintf(out, sizeof out, "%s/%016llx", dir, (unsigned long long)h);
    static const char *const kinds[] = { "cubin", "ptx" };
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s.%s.%s", out, arch, kinds[i]);
        if (access(path, R_OK) == 0) return strdup(path);
    }
    snprintf(work, sizeof work, "%s/XXXXXX", dir);
    if (!mkdtemp(work)) { *log = strdup("no directory to compile in"); return NULL; }
    char *r = build(lib, work, out, log), *none = NULL;
    if (!getenv("FAKEMETAL_KEEP")) fake_run_command(&none, "rm -rf '%s'", work);
    free(none);
    if (!r && !*log) *log = strdup("compiling failed");
    return r;
}
