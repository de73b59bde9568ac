/* isa_neon.c - the kernels compiled for AArch64 NEON. */
#include "backend/cpu/kernels.h"

#define ISA neon
#include "backend/cpu/simd_neon.h"
#include "backend/cpu/vec.inc"
#include "backend/cpu/mat.inc"
#include "backend/cpu/limits.inc"
