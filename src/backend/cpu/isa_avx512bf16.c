/* isa_avx512bf16.c - the kernels compiled for AVX-512 with VNNI and BF16. */
#include "backend/cpu/kernels.h"

#define ISA avx512bf16
#include "backend/cpu/simd_avx512.h"
#include "backend/cpu/vec.inc"
#include "backend/cpu/mat.inc"
#include "backend/cpu/limits.inc"
