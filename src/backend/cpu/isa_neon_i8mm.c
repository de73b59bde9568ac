/* isa_neon_i8mm.c - the kernels compiled for NEON with the int8 and bf16 matrix products. */
#include "backend/cpu/kernels.h"

#define ISA neon_i8mm
#include "backend/cpu/simd_neon.h"
#include "backend/cpu/vec.inc"
#include "backend/cpu/mat.inc"
#include "backend/cpu/limits.inc"
