/* isa_avx2.c - the kernels compiled for AVX2, FMA, F16C. */
#include "backend/cpu/kernels.h"

#define ISA avx2
#include "backend/cpu/simd_avx2.h"
#include "backend/cpu/vec.inc"
#include "backend/cpu/mat.inc"
#include "backend/cpu/limits.inc"
