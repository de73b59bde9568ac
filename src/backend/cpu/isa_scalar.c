/* isa_scalar.c - the kernels compiled for plain C. */
#include "backend/cpu/kernels.h"

#define ISA scalar
#include "backend/cpu/simd_scalar.h"
#include "backend/cpu/vec.inc"
#include "backend/cpu/mat.inc"
#include "backend/cpu/limits.inc"
