/* isa_avx512vnni.c - the kernels compiled for AVX-512 with VNNI. */
#include "backend/cpu/kernels.h"

#define ISA avx512vnni
#include "backend/cpu/simd_avx512.h"
#include "backend/cpu/vec.inc"
#include "backend/cpu/mat.inc"
#include "backend/cpu/limits.inc"
