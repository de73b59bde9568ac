/*
 * args.h - what host and kernels share: read as C by the host, and put in front of the kernels' text (without its
 * include lines). Structs of kernels' arguments have 4-byte members only (8-byte ones at multiples of 8, padding
 * named), so that both sides lay them out alike. args_mat.h and args_vec.h hold those of the kernels.
 */
#ifndef SILL_MTL_ARGS_H
#define SILL_MTL_ARGS_H

#ifndef __METAL_VERSION__
#include <stdint.h>
#endif

#define MTL_KV_BLOCK 32

/* A run of the batch on the device (sill__run): its KV blocks are tables[table + i]. */
struct mtl_run { int32_t first, n, pos, table; };

/* Of step.metal. */
struct mtl_take_ids_args { uint32_t n; };

#endif
