/*
 * matmul.metal - several rows of activations times a matrix, on simdgroup_matrix. Two shapes of tiles, and one order of
 * sums for both: the inputs are cut into MTL_SLICES slices (by their number alone), each slice is summed by 8x8 products
 * in ascending steps of 8 inputs from 0, and the slices are added in order. So an output does not depend on the tile that
 * computed it, nor on the rows beside it, and the host may choose by the number of rows.
 *
 * skinny: 8 or 16 rows, 16 outputs a group; each of the four SIMD groups takes a slice, with threadgroup memory of its
 * own, so that they never wait for each other until the end. matmul: 32 rows, 32 or 64 outputs a group; the four SIMD
 * groups share the tiles and walk the slices one after the other.
 *
 * Weights become f32 in threadgroup memory, as do the activations, normalized while they are loaded: the products are
 * those of the stored weights. What lies beyond the matrix is zero there. The next tile is loaded into registers before
 * the products of the last one.
 */

/* Blocks of (8 inputs, 8 outputs) of weights; kb: which 8 inputs of 32. */
static inline uint weight_block(uint step, uint kb, uint ob) { return kb * step + ob * 72; }

/* What a thread loads of a weight tile: 16 inputs of a row, or (transposed) 16 outputs of an input. */
struct weight_unit { device const uchar *p; uint row, at, stride; };

/* Unit u of a tile of `cols` outputs (whose first is `base`) and 32 inputs. */
static inline weight_unit weight_unit_of(constant mtl_mat_args &a, mat_weights w, uint base, uint cols, uint u) {
    weight_unit unit;
    if (mat_has(MTL_TRANSPOSED)) {
        unit.at = u / (cols / 16);
        unit.row = u % (cols / 16) * 16;
        unit.stride = a.strides[0];
        unit.p = w.p0;
        return unit;
    }
    unit.at = u % 2 * 16;
    unit.row = u / 2;
    unit.stride = 0;
    const uint r = column_row(a, base, unit.row, cols / 2);
    unit.p = weight_row(a, w, r == MTL_NO_ROW ? 0 : r);
    return unit;
}

static inline void load_unit(constant mtl_mat_args &a, mat_weights w, weight_unit unit, uint base, uint cols, uint k,
                             thread float4 *v) {
    const uint at = k + unit.at;
    if (!mat_has(MTL_TRANSPOSED)) {
        load_weights16(MAT_TYPE, mat_has(MTL_WIDE), unit.p, at, a.k, v);
    } else if (at >= a.k) {
        UNROLL for (uint j = 0; j < 4; j++) v[j] = float4(0.0f);
    } else if (MAT_PAIRS <= MTL_PAIRS_NEXT && !mat_has(MTL_PARTS)) {
        load_plain16(MAT_TYPE, mat_has(MTL_WIDE), unit.p + (ulong)at * unit.stride, base + unit.row, a.rows, v);
    } else { /* outputs that do not lie side by side */
        UNROLL for (uint e = 0; e < 16; e++) {
            const uint r = column_row(a, base, unit.row + e, cols / 2);
            float value = 0.0f;
            if (r != MTL_NO_ROW) value = load_plain(MAT_TYPE, weight_row(a, w, r) + (ulong)at * weight_stride(a, r), 0);
            v[e / 4][e & 3] = value;
        }
    }
}

static inline void store_unit(weight_unit unit, uint step, threadgroup float *wt, thread const float4 *v) {
    if (mat_has(MTL_TRANSPOSED)) {
        threadgroup float *to = wt + weight_block(step, unit.at / 8, unit.row / 8) + unit.at % 8 * 8;
        *(threadgroup float4 *)to = v[0];
        *(threadgroup float4 *)(to + 4) = v[1];
        *(threadgroup float4 *)(to + 72) = v[2];
        *(threadgroup float4 *)(to + 76) = v[3];
        return;
    }
    threadgroup float *to = wt + weight_block(step, unit.at / 8, unit.row / 8) + unit.row % 8;
    UNROLL for (uint j = 0; j < 4; j++)
        UNROLL for (uint e = 0; e < 4; e++) to[j / 2 * step + ((j & 1) * 4 + e) * 8] = v[j][e];
}

/* Activations lie as blocks of (8 rows, 8 inputs), block (rows / 8) * 4 + inputs / 8. */
static inline void store_inputs(uint t, uint at, threadgroup float *xt, thread const float4 *v) {
    threadgroup float *to = xt + (t / 8 * 4 + at / 8) * 64 + t % 8 * 8;
    *(threadgroup float4 *)to = v[0];
    *(threadgroup float4 *)(to + 4) = v[1];
    *(threadgroup float4 *)(to + 64) = v[2];
    *(threadgroup float4 *)(to + 68) = v[3];
}

/* Statistics of the rows [first, first + n) of the activations into threadgroup memory, by all SIMD groups. */
static inline void tile_stats(constant mtl_mat_args &a, device const float *x, device const float *gamma,
                              device const float *beta, device const int *rows, device const float4 *stats,
                              threadgroup float4 *to, uint first, uint n, uint sg, uint lane) {
    if (MAT_NORM == MTL_NORM_NONE && !mat_has(MTL_INT8_ROWS)) return;
    if (mat_has(MTL_STATS)) {
        if (sg == 0 && lane < n) to[lane] = stats[first + lane];
    } else {
        for (uint t = sg; t < n; t += 4) {
            const uint r = mat_has(MTL_GATHERED) ? (uint)rows[first + t] : first + t;
            const float4 s = row_stats(a, x + (ulong)r * a.k, gamma, beta, lane);
            if (lane == 0) to[t] = s;
        }
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
}

/* ------------------------------------------------------------------- skinny */

/* B blocks of 8 rows. */
template <uint B, typename O>
static inline void skinny_tile(constant mtl_mat_args &a, mat_weights w, O out, device const float *x,
                               device const float *gamma, device const float *beta, device const int *rows,
                               device const float4 *stats, threadgroup float *local, uint2 group, uint tid,
                               uint sg, uint lane) {
    const uint step = MTL_WEIGHT_STEP(16), own = 4 * step + B * 256;
    threadgroup float *wt = local + sg * own, *xt = wt + 4 * step;
    threadgroup float4 *row_of = (threadgroup float4 *)(local + 4 * own);
    const uint base = group.y * 16, first = group.x * (B * 8), n = min(a.n - first, B * 8);
    tile_stats(a, x, gamma, beta, rows, stats, row_of, first, n, sg, lane);

    /* A lane loads 16 inputs of one row of weights, and (B = 1: half of the lanes) of one row of activations. */
    const weight_unit unit = weight_unit_of(a, w, base, 16, lane);
    const uint t = lane / 2;
    const bool loads = t < B * 8, has_row = t < n;
    device const float *from = x;
    float4 st = float4(0.0f, 1.0f, 0.0f, 0.0f);
    if (has_row) {
        from += (ulong)(mat_has(MTL_GATHERED) ? (uint)rows[first + t] : first + t) * a.k;
        if (MAT_NORM != MTL_NORM_NONE || mat_has(MTL_INT8_ROWS)) st = row_of[t];
    }
    simdgroup_float8x8 acc[B][2];
    UNROLL for (uint i = 0; i < B; i++)
        UNROLL for (uint j = 0; j < 2; j++) acc[i][j] = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);

    const uint begin = sg * a.slice, end = min(begin + a.slice, a.k);
    float4 wv[4], xv[4];
    UNROLL for (uint j = 0; j < 4; j++) wv[j] = xv[j] = float4(0.0f);
    if (begin < end) {
        load_unit(a, w, unit, base, 16, begin, wv);
        if (has_row) load_inputs16(a, from, gamma, beta, st, begin + lane % 2 * 16, xv);
    }
    for (uint k = begin; k < end; k += 32) {
        simdgroup_barrier(mem_flags::mem_threadgroup);
        store_unit(unit, step, wt, wv);
        if (loads) store_inputs(t, lane % 2 * 16, xt, xv);
        simdgroup_barrier(mem_flags::mem_threadgroup);
        if (k + 32 < end) {
            load_unit(a, w, unit, base, 16, k + 32, wv);
            if (has_row) load_inputs16(a, from, gamma, beta, st, k + 32 + lane % 2 * 16, xv);
        }
        UNROLL for (uint kb = 0; kb < 4; kb++) {
            simdgroup_float8x8 mx[B], mw[2];
            UNROLL for (uint i = 0; i < B; i++) simdgroup_load(mx[i], xt + (i * 4 + kb) * 64, 8);
            UNROLL for (uint j = 0; j < 2; j++) simdgroup_load(mw[j], wt + weight_block(step, kb, j), 8);
            UNROLL for (uint i = 0; i < B; i++)
                UNROLL for (uint j = 0; j < 2; j++) simdgroup_multiply_accumulate(acc[i][j], mx[i], mw[j], acc[i][j]);
        }
    }
    simdgroup_barrier(mem_flags::mem_threadgroup); /* all lanes have loaded the last tile: not seen on the fake */
    UNROLL for (uint i = 0; i < B; i++)
        UNROLL for (uint j = 0; j < 2; j++) simdgroup_store(acc[i][j], wt + i * 128 + j * 8, 16);
    threadgroup_barrier(mem_flags::mem_threadgroup);
    const uint p = tid % 8, row = tid / 8;
    if (row >= n) return;
    const uint2 columns = pair_columns(p, 8), pair = pair_rows(a, base, p, 8);
    threadgroup const float *sums = local + row * 16;
    float v0 = sums[columns.x], v1 = sums[columns.y];
    for (uint s = 1; s < MTL_SLICES; s++) {
        v0 += sums[s * own + columns.x];
        v1 += sums[s * own + columns.y];
    }
    put(a, out, first + row, pair.x, pair.y, v0, v1);
}

/* ------------------------------------------------------------------- matmul */

/* C outputs. */
template <uint C, typename O>
static inline void matmul_tile(constant mtl_mat_args &a, mat_weights w, O out, device const float *x,
                               device const float *gamma, device const float *beta, device const int *rows,
                               device const float4 *stats, threadgroup float *local, uint2 group, uint tid,
                               uint sg, uint lane) {
    const uint step = MTL_WEIGHT_STEP(C), pitch = C + 4;
    threadgroup float *wt = local, *xt = local + 4 * step;
    threadgroup float4 *row_of = (threadgroup float4 *)(xt + 16 * 64);
    const uint base = group.y * C, first = group.x * MTL_TILE_TOKENS, n = min(a.n - first, MTL_TILE_TOKENS);
    tile_stats(a, x, gamma, beta, rows, stats, row_of, first, n, sg, lane);

    /* 64 outputs: all threads load weights, the first half activations as well; 32: one half each. */
    const bool loads_w = tid < C * 2, loads_x = C == 64 ? tid < 64 : tid >= 64;
    const weight_unit unit = weight_unit_of(a, w, base, C, loads_w ? tid : 0);
    const uint t = tid % 64 / 2, at = tid % 2 * 16;
    const bool has_row = loads_x && t < n;
    device const float *from = x;
    float4 st = float4(0.0f, 1.0f, 0.0f, 0.0f);
    if (has_row) {
        from += (ulong)(mat_has(MTL_GATHERED) ? (uint)rows[first + t] : first + t) * a.k;
        if (MAT_NORM != MTL_NORM_NONE || mat_has(MTL_INT8_ROWS)) st = row_of[t];
    }
    float4 wv[4], xv[4];
    UNROLL for (uint j = 0; j < 4; j++) wv[j] = xv[j] = float4(0.0f);
    if (loads_w) load_unit(a, w, unit, base, C, 0, wv);
    if (has_row) load_inputs16(a, from, gamma, beta, st, at, xv);

    /* SIMD group: rows 16 * (sg / 2), outputs C / 2 * (sg % 2). A thread finishes C / 8 pairs of outputs. */
    simdgroup_float8x8 acc[2][C / 16];
    float total[C / 4];
    const uint p = tid % (C / 2);
    const uint2 columns = pair_columns(p, C / 2);
    for (uint s = 0; s < MTL_SLICES; s++) {
        const uint begin = s * a.slice, end = min(begin + a.slice, a.k);
        UNROLL for (uint i = 0; i < 2; i++)
            UNROLL for (uint j = 0; j < C / 16; j++) acc[i][j] = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
        for (uint k = begin; k < end; k += 32) {
            threadgroup_barrier(mem_flags::mem_threadgroup);
            if (loads_w) store_unit(unit, step, wt, wv);
            if (loads_x) store_inputs(t, at, xt, xv);
            threadgroup_barrier(mem_flags::mem_threadgroup);
            if (k + 32 < a.k) {
                if (loads_w) load_unit(a, w, unit, base, C, k + 32, wv);
                if (has_row) load_inputs16(a, from, gamma, beta, st, k + 32 + at, xv);
            }
            UNROLL for (uint kb = 0; kb < 4; kb++) {
                simdgroup_float8x8 mx[2], mw[C / 16];
                UNROLL for (uint i = 0; i < 2; i++) simdgroup_load(mx[i], xt + ((sg / 2 * 2 + i) * 4 + kb) * 64, 8);
                UNROLL for (uint j = 0; j < C / 16; j++) simdgroup_load(mw[j], wt + weight_block(step, kb, sg % 2 * (C / 16) + j), 8);
                UNROLL for (uint i = 0; i < 2; i++)
                    UNROLL for (uint j = 0; j < C / 16; j++) simdgroup_multiply_accumulate(acc[i][j], mx[i], mw[j], acc[i][j]);
            }
        }
        /* The slice's sums go where the tiles were, and each thread adds its own. */
        threadgroup_barrier(mem_flags::mem_threadgroup);
        UNROLL for (uint i = 0; i < 2; i++)
            UNROLL for (uint j = 0; j < C / 16; j++)
                simdgroup_store(acc[i][j], local + (sg / 2 * 16 + i * 8) * pitch + sg % 2 * (C / 2) + j * 8, pitch);
        threadgroup_barrier(mem_flags::mem_threadgroup);
        UNROLL for (uint i = 0; i < C / 8; i++) {
            threadgroup const float *sums = local + (tid / (C / 2) + i * (256 / C)) * pitch;
            total[2 * i] = s == 0 ? sums[columns.x] : total[2 * i] + sums[columns.x];
            total[2 * i + 1] = s == 0 ? sums[columns.y] : total[2 * i + 1] + sums[columns.y];
        }
    }
    const uint2 pair = pair_rows(a, base, p, C / 2);
    UNROLL for (uint i = 0; i < C / 8; i++) {
        const uint row = tid / (C / 2) + i * (256 / C);
        if (row < n) put(a, out, first + row, pair.x, pair.y, total[2 * i], total[2 * i + 1]);
    }
}

/* ----------------------------------------------------------------- kernels */

[[max_total_threads_per_threadgroup(MTL_THREADS)]]
kernel void skinny(constant mtl_mat_args &a [[buffer(0)]], device const uchar *w0 [[buffer(1)]],
                   device const uchar *w1 [[buffer(2)]], device const uchar *w2 [[buffer(3)]],
                   device const float *scales [[buffer(4)]], device const float *x [[buffer(5)]],
                   device const float *gamma [[buffer(6)]], device const float *beta [[buffer(7)]],
                   device const float *bias [[buffer(8)]],
                   device float *out [[buffer(9)]], device const int *rows [[buffer(10)]],
                   device const float4 *stats [[buffer(11)]], threadgroup float *local [[threadgroup(0)]],
                   uint2 group [[threadgroup_position_in_grid]], uint tid [[thread_index_in_threadgroup]],
                   uint sg [[simdgroup_index_in_threadgroup]], uint lane [[thread_index_in_simdgroup]]) {
    const mat_weights w = {w0, w1, w2};
    const linear_out o = {out, bias, scales};
    if (MAT_SHAPE == 1) skinny_tile<1, linear_out>(a, w, o, x, gamma, beta, rows, stats, local, group, tid, sg, lane);
    else skinny_tile<2, linear_out>(a, w, o, x, gamma, beta, rows, stats, local, group, tid, sg, lane);
}

[[max_total_threads_per_threadgroup(MTL_THREADS)]]
kernel void skinny_qkv(constant mtl_mat_args &a [[buffer(0)]], device const uchar *w0 [[buffer(1)]],
                       device const uchar *w1 [[buffer(2)]], device const uchar *w2 [[buffer(3)]],
                       device const float *scales [[buffer(4)]], device const float *x [[buffer(5)]],
                       device const float *gamma [[buffer(6)]], device const float *beta [[buffer(7)]],
                       device const float *bias [[buffer(8)]],
                       device float *q [[buffer(9)]], device const int *positions [[buffer(10)]],
                       device const int *row_run [[buffer(11)]], device const mtl_run *runs [[buffer(12)]],
                       device const int *tables [[buffer(13)]], device const float *inv_freq [[buffer(14)]],
                       device uchar *kv [[buffer(15)]], device const float4 *stats [[buffer(16)]],
                       threadgroup float *local [[threadgroup(0)]], uint2 group [[threadgroup_position_in_grid]],
                       uint tid [[thread_index_in_threadgroup]], uint sg [[simdgroup_index_in_threadgroup]],
                       uint lane [[thread_index_in_simdgroup]]) {
    const mat_weights w = {w0, w1, w2};
    const qkv_out o = {q, bias, scales, inv_freq, positions, row_run, tables, runs, kv};
    if (MAT_SHAPE == 1) skinny_tile<1, qkv_out>(a, w, o, x, gamma, beta, positions, stats, local, group, tid, sg, lane);
    else skinny_tile<2, qkv_out>(a, w, o, x, gamma, beta, positions, stats, local, group, tid, sg, lane);
}

[[max_total_threads_per_threadgroup(MTL_THREADS)]]
kernel void matmul(constant mtl_mat_args &a [[buffer(0)]], device const uchar *w0 [[buffer(1)]],
                   device const uchar *w1 [[buffer(2)]], device const uchar *w2 [[buffer(3)]],
                   device const float *scales [[buffer(4)]], device const float *x [[buffer(5)]],
                   device const float *gamma [[buffer(6)]], device const float *beta [[buffer(7)]],
                   device const float *bias [[buffer(8)]],
                   device float *out [[buffer(9)]], device const int *rows [[buffer(10)]],
                   device const float4 *stats [[buffer(11)]], threadgroup float *local [[threadgroup(0)]],
                   uint2 group [[threadgroup_position_in_grid]], uint tid [[thread_index_in_threadgroup]],
                   uint sg [[simdgroup_index_in_threadgroup]], uint lane [[thread_index_in_simdgroup]]) {
    const mat_weights w = {w0, w1, w2};
    const linear_out o = {out, bias, scales};
    if (MAT_SHAPE == 32) matmul_tile<32, linear_out>(a, w, o, x, gamma, beta, rows, stats, local, group, tid, sg, lane);
    else matmul_tile<64, linear_out>(a, w, o, x, gamma, beta, rows, stats, local, group, tid, sg, lane);
}

[[max_total_threads_per_threadgroup(MTL_THREADS)]]
kernel void matmul_qkv(constant mtl_mat_args &a [[buffer(0)]], device const uchar *w0 [[buffer(1)]],
                       device const uchar *w1 [[buffer(2)]], device const uchar *w2 [[buffer(3)]],
                       device const float *scales [[buffer(4)]], device const float *x [[buffer(5)]],
                       device const float *gamma [[buffer(6)]], device const float *beta [[buffer(7)]],
                       device const float *bias [[buffer(8)]],
                       device float *q [[buffer(9)]], device const int *positions [[buffer(10)]],
                       device const int *row_run [[buffer(11)]], device const mtl_run *runs [[buffer(12)]],
                       device const int *tables [[buffer(13)]], device const float *inv_freq [[buffer(14)]],
                       device uchar *kv [[buffer(15)]], device const float4 *stats [[buffer(16)]],
                       threadgroup float *local [[threadgroup(0)]], uint2 group [[threadgroup_position_in_grid]],
                       uint tid [[thread_index_in_threadgroup]], uint sg [[simdgroup_index_in_threadgroup]],
                       uint lane [[thread_index_in_simdgroup]]) {
    const mat_weights w = {w0, w1, w2};
    const qkv_out o = {q, bias, scales, inv_freq, positions, row_run, tables, runs, kv};
    if (MAT_SHAPE == 32) matmul_tile<32, qkv_out>(a, w, o, x, gamma, beta, positions, stats, local, group, tid, sg, lane);
    else matmul_tile<64, qkv_out>(a, w, o, x, gamma, beta, positions, stats, local, group, tid, sg, lane);
}
