/* isa_avx512.c - the kernels compiled for AVX-512 F, BW, VL, DQ. */
#include "backend/cpu/kernels.h"

#define ISA avx512
#include "backend/cpu/simd_avx512.h"
#include "backend/cpu/vec.inc"
#include "backend/cpu/mat.inc"
#include "backend/cpu/limits.inc"
