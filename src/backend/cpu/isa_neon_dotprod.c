/* isa_neon_dotprod.c - the kernels compiled for NEON with the dot product. */
#include "backend/cpu/kernels.h"

#define ISA neon_dotprod
#include "backend/cpu/simd_neon.h"
#include "backend/cpu/vec.inc"
#include "backend/cpu/mat.inc"
#include "backend/cpu/limits.inc"
