/* What a CUDA kernel that was made of an MSL one gets: cuda.c fills it, msl_run.h reads it. */
#pragma once
#define MSL_LAUNCH_CONSTANTS 16
struct msl_launch {
    unsigned long long buf[31];                         /* addresses of buffers, offsets applied */
    unsigned tg_at[31];                                 /* where each piece of threadgroup memory lies in the dynamic one */
    unsigned constant[MSL_LAUNCH_CONSTANTS];            /* function constants by their index */
    unsigned nominal[3], grid[3];
    unsigned padding;
};
