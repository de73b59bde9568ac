/*
 * matvec.metal - one row of activations times a matrix: what a single interactive sequence decodes with. Every byte of
 * the weights is read once, neighbouring lanes reading neighbouring pieces of 8 or 16 bytes.
 *
 * matvec: rows along memory. A SIMD group takes 2 or 4 rows at once and keeps its piece of the activations in registers
 * for all of them; lanes split the inputs, and one sum over the lanes ends a row.
 * matvec_t: plain types stored (cols, rows). Lanes lie along the outputs, and groups of lanes and SIMD groups split the
 * inputs.
 */

#ifndef UNROLL_4
#define UNROLL_4 _Pragma("clang loop unroll_count(4)")
#endif

/* ---------------------------------------------------------- the activations */

/* The row, normalized, in threadgroup memory; zeros up to a multiple of 32. */
static inline void stage_row(constant mtl_mat_args &a, device const float *x, device const float *gamma,
                             device const float *beta, threadgroup float *xs, threadgroup float *part, uint tid, uint sg,
                             uint n_sg, uint lane) {
    const uint step = n_sg * 32, padded = (a.k + 31) / 32 * 32;
    float4 stats = float4(0.0f, 1.0f, 0.0f, 0.0f);
    float sum = 0.0f;
    for (uint k = tid; k < padded; k += step) {
        const float v = k < a.k ? x[k] : 0.0f;
        xs[k] = v; /* each thread reads what itself has written, until the end */
        sum += v;
    }
    if (MAT_NORM == MTL_NORM_LAYER) stats.x = group_total(sum, part, sg, n_sg, lane) / (float)a.k;
    if (MAT_NORM != MTL_NORM_NONE) {
        float square = 0.0f;
        for (uint k = tid; k < a.k; k += step) {
            const float d = xs[k] - stats.x;
            square = fma(d, d, square);
        }
        stats.y = 1.0f / precise::sqrt(group_total(square, part, sg, n_sg, lane) / (float)a.k + a.eps);
    }
    float most = 0.0f;
    for (uint k = tid; k < a.k; k += step) {
        const float y = normed1(xs[k], stats, gamma, beta, k);
        xs[k] = y;
        if (fabs(y) < MTL_INT8_OUTLIER) most = max(most, fabs(y));
    }
    if (mat_has(MTL_INT8_ROWS)) {
        stats = int8_stats(stats, group_largest(most, part, sg, n_sg, lane));
        for (uint k = tid; k < a.k; k += step) xs[k] = int8_value(xs[k], stats);
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
}

static inline float4 input4(device const float *x, threadgroup const float *xs, uint k) {
    return mat_has(MTL_STAGED) ? *(threadgroup const float4 *)(xs + k) : load_floats(x + k);
}
static inline float input1(device const float *x, threadgroup const float *xs, uint k) {
    return mat_has(MTL_STAGED) ? xs[k] : x[k];
}

/* ------------------------------------------------------------ pieces of rows */

/* A lane's piece of a row: 8 values of the plain types and Q8_0, 16 of I8 and the other blocks of 32 (8 and the 8 that
 * share their bytes), 32 of the blocks of 256. */
template <uint T>
static inline void piece_inputs(device const float *x, threadgroup const float *xs, uint c, thread float4 *v) {
    if (T <= MTL_TYPE_Q8_0) {
        UNROLL for (uint j = 0; j < 2; j++) v[j] = input4(x, xs, c * 8 + 4 * j);
    } else if (T == MTL_TYPE_I8) {
        UNROLL for (uint j = 0; j < 4; j++) v[j] = input4(x, xs, c * 16 + 4 * j);
    } else if (T <= MTL_TYPE_Q5_1) {
        const uint k = c / 2 * 32 + (c & 1) * 8;
        UNROLL for (uint j = 0; j < 4; j++) v[j] = input4(x, xs, k + (j & 2) * 8 + (j & 1) * 4);
    } else if (T == MTL_TYPE_Q6_K) {
        const uint k = c / 4 * 128 + (c & 3) * 8;
        UNROLL for (uint j = 0; j < 8; j++) v[j] = input4(x, xs, k + j / 2 * 32 + (j & 1) * 4);
    } else {
        const uint k = c / 2 * 64 + (c & 1) * 16;
        UNROLL for (uint j = 0; j < 8; j++) v[j] = input4(x, xs, k + j / 4 * 32 + (j & 3) * 4);
    }
}

/* The sums of four lines of products, added to acc. */
template <uint T>
static inline float4 piece_plain(device const uchar *row, uint c, thread const float4 *v, float4 acc) {
    float4 a, b;
    if (T == MTL_TYPE_F32) {
        a = load_floats((device const float *)row + c * 8);
        b = load_floats((device const float *)row + c * 8 + 4);
    } else {
        load_plain8(T, mat_has(MTL_WIDE), row + c * 16, a, b);
    }
    return fma(b, v[1], fma(a, v[0], acc));
}

static inline float4 piece_i8(device const uchar *row, uint c, thread const float4 *v, float4 acc) {
    float4 w[4];
    load_plain16(MTL_TYPE_I8, mat_has(MTL_WIDE), row, c * 16, c * 16 + 16, w);
    UNROLL for (uint j = 0; j < 4; j++) acc = fma(w[j], v[j], acc);
    return acc;
}

static inline float4 piece_q8_0(device const uchar *row, uint c, thread const float4 *v, float4 acc) {
    device const uchar *p = row + c / 4 * 34;
    const uint2 u = load8_by2(p + 2 + (c & 3) * 8);
    return fma(float4(load_half(p)), fma(codes4(u.y), v[1], codes4(u.x) * v[0]), acc);
}

/* Q4_0, Q4_1, Q5_0, Q5_1: eight bytes, whose low halves are 8 values, their high halves those 16 further on. */
template <uint T>
static inline float4 piece_nibbles(device const uchar *row, uint c, thread const float4 *v, float4 acc) {
    const bool five = T == MTL_TYPE_Q5_0 || T == MTL_TYPE_Q5_1, offset = T == MTL_TYPE_Q4_1 || T == MTL_TYPE_Q5_1;
    device const uchar *p = row + c / 2 * (16 + (five ? 4 : 0) + (offset ? 4 : 2));
    const uint part = c & 1;
    const float d = load_half(p), m = offset ? load_half(p + 2) : 0.0f;
    p += offset ? 4 : 2;
    uint high = 0;
    if (five) {
        high = load4_by2(p) >> 8 * part;
        p += 4;
    }
    const uint2 u = load8_by2(p + 8 * part);
    float4 sum = bytes4((u.x & 0x0f0f0f0fu) | (five ? spread4(high) : 0u)) * v[0];
    sum = fma(bytes4((u.y & 0x0f0f0f0fu) | (five ? spread4(high >> 4) : 0u)), v[1], sum);
    sum = fma(bytes4((u.x >> 4 & 0x0f0f0f0fu) | (five ? spread4(high >> 16) : 0u)), v[2], sum);
    sum = fma(bytes4((u.y >> 4 & 0x0f0f0f0fu) | (five ? spread4(high >> 20) : 0u)), v[3], sum);
    acc = fma(float4(d), sum, acc);
    return fma(float4(offset ? m : d * (five ? -16.0f : -8.0f)), (v[0] + v[1]) + (v[2] + v[3]), acc);
}

/* Q4_K, Q5_K: sixteen bytes, whose low halves are of one group of 32, their high halves of the next. */
template <uint T>
static inline float4 piece_k(device const uchar *row, uint c, thread const float4 *v, float4 acc) {
    const bool five = T == MTL_TYPE_Q5_K;
    device const uchar *p = row + c / 8 * (five ? 176 : 144);
    const uint pair = (c & 7) / 2, part = c & 1;
    const uint4 u = load16_by4(p + (five ? 48 : 16) + 32 * pair + 16 * part);
    uint4 high = uint4(0u);
    if (five) high = load16_by4(p + 16 + 16 * part);
    const float d = load_half(p), m = load_half(p + 2);
    UNROLL for (uint g = 0; g < 2; g++) {
        const float2 scale = k_scale(p + 4, 2 * pair + g);
        float4 sum = float4(0.0f);
        UNROLL for (uint j = 0; j < 4; j++) {
            const uint q = ((u[j] >> 4 * g) & 0x0f0f0f0fu) | (five ? ((high[j] >> (2 * pair + g)) & 0x01010101u) << 4 : 0u);
            sum = fma(bytes4(q), v[4 * g + j], sum);
        }
        acc = fma(float4(d * scale.x), sum, acc);
        acc = fma(float4(-m * scale.y), (v[4 * g] + v[4 * g + 1]) + (v[4 * g + 2] + v[4 * g + 3]), acc);
    }
    return acc;
}

/* Q6_K: eight positions of the four groups of 32 of half a block. */
static inline float4 piece_q6_k(device const uchar *row, uint c, thread const float4 *v, float4 acc) {
    device const uchar *p = row + c / 8 * 210;
    const uint top = (c & 7) / 4, at = (c & 3) * 8;
    const float d = load_half(p + 208);
    const uint2 high = load8_by2(p + 128 + 32 * top + at);
    uint2 low[2];
    low[0] = load8_by2(p + 64 * top + at);
    low[1] = load8_by2(p + 64 * top + 32 + at);
    UNROLL for (uint g = 0; g < 4; g++) {
        const float scale = d * (float)((device const char *)p)[192 + 8 * top + 2 * g + at / 16];
        const uint2 q = ((low[g & 1] >> 4 * (g / 2)) & 0x0f0f0f0fu) | (((high >> 2 * g) & 0x03030303u) << 4);
        acc = fma(float4(scale), fma(bytes4(q.y) - 32.0f, v[2 * g + 1], (bytes4(q.x) - 32.0f) * v[2 * g]), acc);
    }
    return acc;
}

template <uint T>
static inline float4 piece(device const uchar *row, uint c, thread const float4 *v, float4 acc) {
    if (T <= MTL_TYPE_BF16) return piece_plain<T>(row, c, v, acc);
    if (T == MTL_TYPE_I8) return piece_i8(row, c, v, acc);
    if (T == MTL_TYPE_Q8_0) return piece_q8_0(row, c, v, acc);
    if (T == MTL_TYPE_Q6_K) return piece_q6_k(row, c, v, acc);
    if (T <= MTL_TYPE_Q5_1) return piece_nibbles<T>(row, c, v, acc);
    return piece_k<T>(row, c, v, acc);
}

/* ------------------------------------------------------------- rows and sums */

/* The sums of R rows, in all lanes. N: values of a piece. */
template <uint T, uint N, uint R>
static inline void matvec_sums(constant mtl_mat_args &a, mat_weights w, thread const uint *rows,
                               device const float *x, threadgroup const float *xs, uint lane,
                               thread float *sums) {
    device const uchar *from[R];
    float4 acc[R];
    UNROLL for (uint r = 0; r < R; r++) {
        from[r] = weight_row(a, w, rows[r]);
        acc[r] = float4(0.0f);
    }
    const uint whole = a.k / N;
    for (uint c = lane; c < whole; c += 32) {
        float4 v[N / 4];
        piece_inputs<T>(x, xs, c, v);
        UNROLL for (uint r = 0; r < R; r++) acc[r] = piece<T>(from[r], c, v, acc[r]);
    }
    for (uint k = whole * N + lane; k < a.k; k += 32) { /* plain types: fewer than a piece */
        const float v = input1(x, xs, k);
        UNROLL for (uint r = 0; r < R; r++) acc[r].x = fma(load_plain(T, from[r], k), v, acc[r].x);
    }
    UNROLL for (uint r = 0; r < R; r++) sums[r] = simd_total((acc[r].x + acc[r].y) + (acc[r].z + acc[r].w));
}

template <uint R, typename O>
static inline void matvec_rows(constant mtl_mat_args &a, mat_weights w, O out, uint t, uint unit,
                               device const float *x, threadgroup const float *xs, uint lane) {
    uint rows[R];
    float sums[R];
    uint2 pairs[R / 2];
    UNROLL for (uint p = 0; p < R / 2; p++) {
        pairs[p] = pair_rows(a, unit * R, p, R / 2);
        rows[p] = pairs[p].x == MTL_NO_ROW ? 0 : pairs[p].x;
        rows[p + R / 2] = pairs[p].y == MTL_NO_ROW ? rows[p] : pairs[p].y;
    }
    switch (MAT_TYPE) {
    case MTL_TYPE_F32: matvec_sums<MTL_TYPE_F32, 8, R>(a, w, rows, x, xs, lane, sums); break;
    case MTL_TYPE_F16: matvec_sums<MTL_TYPE_F16, 8, R>(a, w, rows, x, xs, lane, sums); break;
    case MTL_TYPE_BF16: matvec_sums<MTL_TYPE_BF16, 8, R>(a, w, rows, x, xs, lane, sums); break;
    case MTL_TYPE_Q8_0: matvec_sums<MTL_TYPE_Q8_0, 8, R>(a, w, rows, x, xs, lane, sums); break;
    case MTL_TYPE_Q4_0: matvec_sums<MTL_TYPE_Q4_0, 16, R>(a, w, rows, x, xs, lane, sums); break;
    case MTL_TYPE_Q4_1: matvec_sums<MTL_TYPE_Q4_1, 16, R>(a, w, rows, x, xs, lane, sums); break;
    case MTL_TYPE_Q5_0: matvec_sums<MTL_TYPE_Q5_0, 16, R>(a, w, rows, x, xs, lane, sums); break;
    case MTL_TYPE_Q5_1: matvec_sums<MTL_TYPE_Q5_1, 16, R>(a, w, rows, x, xs, lane, sums); break;
    case MTL_TYPE_Q4_K: matvec_sums<MTL_TYPE_Q4_K, 32, R>(a, w, rows, x, xs, lane, sums); break;
    case MTL_TYPE_Q5_K: matvec_sums<MTL_TYPE_Q5_K, 32, R>(a, w, rows, x, xs, lane, sums); break;
    case MTL_TYPE_Q6_K: matvec_sums<MTL_TYPE_Q6_K, 32, R>(a, w, rows, x, xs, lane, sums); break;
    default: matvec_sums<MTL_TYPE_I8, 16, R>(a, w, rows, x, xs, lane, sums); break;
    }
    UNROLL for (uint p = 0; p < R / 2; p++)
        if (lane == p) put(a, out, t, pairs[p].x, pairs[p].y, sums[p], sums[p + R / 2]);
}

/* One row of activations; every SIMD group has its own rows of weights. */
template <typename O>
static inline void matvec_body(constant mtl_mat_args &a, mat_weights w, O out, device const float *x,
                               device const float *gamma, device const float *beta, threadgroup float *local,
                               uint group, uint tid, uint sg, uint n_sg, uint lane) {
    threadgroup float *xs = local + 32;
    if (mat_has(MTL_STAGED)) stage_row(a, x, gamma, beta, xs, local, tid, sg, n_sg, lane);
    const uint unit = group * n_sg + sg;
    if (MAT_SHAPE == 4) {
        if (unit * 4 < a.rows) matvec_rows<4, O>(a, w, out, 0, unit, x, xs, lane);
    } else {
        if (unit * 2 < a.rows) matvec_rows<2, O>(a, w, out, 0, unit, x, xs, lane);
    }
}

/* Stored (cols, rows): V outputs a lane, L lanes side by side. */
template <uint T, uint V, uint L, typename O>
static inline void matvec_t_rows(constant mtl_mat_args &a, mat_weights w, O out, device const float *x,
                               threadgroup float *xs, threadgroup float *part, uint group, uint tid, uint sg,
                               uint n_sg, uint lane) {
    const uint base = group * (V * L), first = base + lane % L * V, step = n_sg * (32 / L);
    const bool wide = mat_has(MTL_WIDE), whole = first + V <= a.rows;
    float4 acc[2];
    acc[0] = acc[1] = float4(0.0f);
    UNROLL_4 for (uint k = sg * (32 / L) + lane / L; k < a.k; k += step) { /* four loads in flight */
        device const uchar *p = w.p0 + (ulong)k * a.strides[0];
        const float4 v = float4(input1(x, xs, k));
        if (!whole) {
            UNROLL for (uint e = 0; e < V; e++)
                if (first + e < a.rows) acc[e / 4][e & 3] = fma(load_plain(T, p, first + e), v.x, acc[e / 4][e & 3]);
        } else if (T == MTL_TYPE_F32) {
            acc[0] = fma(load_floats((device const float *)p + first), v, acc[0]);
        } else {
            float4 lower, upper;
            load_plain8(T, wide, p + 2 * first, lower, upper);
            acc[0] = fma(lower, v, acc[0]);
            acc[1] = fma(upper, v, acc[1]);
        }
    }
    UNROLL for (uint j = 0; j < V / 4; j++)
        UNROLL for (uint e = 0; e < 4; e++) {
            float s = acc[j][e];
            UNROLL for (uint far = L; far < 32; far *= 2) s += simd_shuffle_xor(s, (ushort)far);
            if (lane < L) part[sg * (V * L) + lane * V + 4 * j + e] = s;
        }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    if (tid >= V * L / 2) return;
    float v0 = part[tid], v1 = part[tid + V * L / 2];
    for (uint s = 1; s < n_sg; s++) {
        v0 += part[s * (V * L) + tid];
        v1 += part[s * (V * L) + tid + V * L / 2];
    }
    const uint2 rows = pair_rows(a, base, tid, V * L / 2);
    put(a, out, 0, rows.x, rows.y, v0, v1);
}

template <typename O>
static inline void matvec_t_body(constant mtl_mat_args &a, mat_weights w, O out, device const float *x,
                               device const float *gamma, device const float *beta, threadgroup float *local,
                               uint group, uint tid, uint sg, uint n_sg, uint lane) {
    threadgroup float *part = local + 32, *xs = part + n_sg * 64;
    if (mat_has(MTL_STAGED)) stage_row(a, x, gamma, beta, xs, local, tid, sg, n_sg, lane);
    if (MAT_TYPE == MTL_TYPE_F32) {
        if (MAT_SHAPE == 4) matvec_t_rows<MTL_TYPE_F32, 4, 4, O>(a, w, out, x, xs, part, group, tid, sg, n_sg, lane);
        else matvec_t_rows<MTL_TYPE_F32, 4, 8, O>(a, w, out, x, xs, part, group, tid, sg, n_sg, lane);
    } else if (MAT_TYPE == MTL_TYPE_F16) {
        if (MAT_SHAPE == 4) matvec_t_rows<MTL_TYPE_F16, 8, 4, O>(a, w, out, x, xs, part, group, tid, sg, n_sg, lane);
        else matvec_t_rows<MTL_TYPE_F16, 8, 8, O>(a, w, out, x, xs, part, group, tid, sg, n_sg, lane);
    } else {
        if (MAT_SHAPE == 4) matvec_t_rows<MTL_TYPE_BF16, 8, 4, O>(a, w, out, x, xs, part, group, tid, sg, n_sg, lane);
        else matvec_t_rows<MTL_TYPE_BF16, 8, 8, O>(a, w, out, x, xs, part, group, tid, sg, n_sg, lane);
    }
}

/* ----------------------------------------------------------------- kernels */

[[max_total_threads_per_threadgroup(MTL_VEC_THREADS)]]
kernel void matvec(constant mtl_mat_args &a [[buffer(0)]], device const uchar *w0 [[buffer(1)]],
                   device const uchar *w1 [[buffer(2)]], device const uchar *w2 [[buffer(3)]],
                   device const float *scales [[buffer(4)]], device const float *x [[buffer(5)]],
                   device const float *gamma [[buffer(6)]], device const float *beta [[buffer(7)]],
                   device const float *bias [[buffer(8)]],
                   device float *out [[buffer(9)]], device const int *rows [[buffer(10)]],
                   threadgroup float *local [[threadgroup(0)]], uint group [[threadgroup_position_in_grid]],
                   uint tid [[thread_index_in_threadgroup]], uint sg [[simdgroup_index_in_threadgroup]],
                   uint n_sg [[simdgroups_per_threadgroup]], uint lane [[thread_index_in_simdgroup]]) {
    const mat_weights w = {w0, w1, w2};
    const linear_out o = {out, bias, scales};
    if (mat_has(MTL_GATHERED)) x += (ulong)rows[0] * a.k;
    if (mat_has(MTL_TRANSPOSED)) matvec_t_body<linear_out>(a, w, o, x, gamma, beta, local, group, tid, sg, n_sg, lane);
    else matvec_body<linear_out>(a, w, o, x, gamma, beta, local, group, tid, sg, n_sg, lane);
}

[[max_total_threads_per_threadgroup(MTL_VEC_THREADS)]]
kernel void matvec_qkv(constant mtl_mat_args &a [[buffer(0)]], device const uchar *w0 [[buffer(1)]],
                       device const uchar *w1 [[buffer(2)]], device const uchar *w2 [[buffer(3)]],
                       device const float *scales [[buffer(4)]], device const float *x [[buffer(5)]],
                       device const float *gamma [[buffer(6)]], device const float *beta [[buffer(7)]],
                       device const float *bias [[buffer(8)]],
                       device float *q [[buffer(9)]], device const int *positions [[buffer(10)]],
                       device const int *row_run [[buffer(11)]], device const mtl_run *runs [[buffer(12)]],
                       device const int *tables [[buffer(13)]], device const float *inv_freq [[buffer(14)]],
                       device uchar *kv [[buffer(15)]], threadgroup float *local [[threadgroup(0)]],
                       uint group [[threadgroup_position_in_grid]], uint tid [[thread_index_in_threadgroup]],
                       uint sg [[simdgroup_index_in_threadgroup]], uint n_sg [[simdgroups_per_threadgroup]],
                       uint lane [[thread_index_in_simdgroup]]) {
    const mat_weights w = {w0, w1, w2};
    const qkv_out o = {q, bias, scales, inv_freq, positions, row_run, tables, runs, kv};
    if (mat_has(MTL_TRANSPOSED)) matvec_t_body<qkv_out>(a, w, o, x, gamma, beta, local, group, tid, sg, n_sg, lane);
    else matvec_body<qkv_out>(a, w, o, x, gamma, beta, local, group, tid, sg, n_sg, lane);
}
