/*
 * mat.metal - what the products share, whichever kernel computes them: where a row of weights lies, which two rows are
 * finished together, how activations are prepared (norm, LLM.int8), and what happens to a sum: bias, activation, gate,
 * residual; for qkv rotation and the writing of keys and values.
 */

/* Up to three parts, one above the other. */
struct mat_weights { device const uchar *p0, *p1, *p2; };

static inline bool mat_has(uint flag) { return (MAT_FLAGS & flag) != 0; }

/* Where row r of a product begins; transposed: where the column of row r begins. */
static inline device const uchar *weight_row(constant mtl_mat_args &a, mat_weights w, uint r) {
    device const uchar *p = w.p0;
    uint stride = a.strides[0];
    if (mat_has(MTL_PARTS) && r >= a.starts[0]) {
        const bool third = r >= a.starts[1];
        p = third ? w.p2 : w.p1;
        stride = a.strides[third ? 2 : 1];
        r -= a.starts[third ? 1 : 0];
    }
    if (mat_has(MTL_TRANSPOSED)) return p + r * plain_bytes(MAT_TYPE);
    return p + (ulong)r * stride;
}

/* Bytes from one storage row to the next where row r lies. */
static inline uint weight_stride(constant mtl_mat_args &a, uint r) {
    if (!mat_has(MTL_PARTS) || r < a.starts[0]) return a.strides[0];
    return a.strides[r < a.starts[1] ? 1 : 2];
}

/* The rows of pair p among those of the tile whose first row (counted over pairs) is `base`; `apart`: pairs of the tile. */
static inline uint2 pair_rows(constant mtl_mat_args &a, uint base, uint p, uint apart) {
    uint r0, r1;
    if (MAT_PAIRS == MTL_PAIRS_GATE) {
        r0 = base / 2 + p;
        if (r0 >= a.rows / 2) return uint2(MTL_NO_ROW, MTL_NO_ROW);
        r1 = a.rows / 2 + r0;
    } else if (MAT_PAIRS == MTL_PAIRS_ROTARY) {
        const uint pair = base / 2 + p, half_dim = a.head_dim / 2, half_rope = a.rope_dims / 2;
        if (pair >= a.rows / 2) return uint2(MTL_NO_ROW, MTL_NO_ROW);
        const uint head = pair / half_dim * a.head_dim, i = pair % half_dim;
        r0 = head + (i < half_rope ? i : 2 * i);
        r1 = r0 + (i < half_rope ? half_rope : 1);
    } else if (MAT_PAIRS == MTL_PAIRS_NEXT) {
        r0 = base + 2 * p;
        r1 = r0 + 1;
    } else {
        r0 = base + p;
        r1 = r0 + apart;
    }
    return uint2(r0 < a.rows ? r0 : MTL_NO_ROW, r1 < a.rows ? r1 : MTL_NO_ROW);
}

/* The columns of a tile that pair p is in, and the row of column c. */
static inline uint2 pair_columns(uint p, uint apart) {
    return MAT_PAIRS == MTL_PAIRS_NEXT ? uint2(2 * p, 2 * p + 1) : uint2(p, p + apart);
}
static inline uint column_row(constant mtl_mat_args &a, uint base, uint c, uint apart) {
    if (MAT_PAIRS <= MTL_PAIRS_NEXT) return base + c < a.rows ? base + c : MTL_NO_ROW;
    const uint2 rows = pair_rows(a, base, c < apart ? c : c - apart, apart);
    return c < apart ? rows.x : rows.y;
}

/* -------------------------------------------------------------- activations */

/* Four inputs from k on, normalized. stats: mean, 1 / deviation; step and its inverse for LLM.int8. */
static inline float4 normed4(float4 x, float4 stats, device const float *gamma, device const float *beta, uint k) {
    if (MAT_NORM == MTL_NORM_NONE) return x;
    const float4 g = mat_has(MTL_HAS_GAMMA) ? load_floats(gamma + k) : float4(1.0f);
    const float4 b = mat_has(MTL_HAS_BETA) ? load_floats(beta + k) : float4(0.0f);
    return fma((x - stats.x) * stats.y, g, b);
}
static inline float normed1(float x, float4 stats, device const float *gamma, device const float *beta, uint k) {
    if (MAT_NORM == MTL_NORM_NONE) return x;
    return norm_value(x, stats.x, stats.y, mat_has(MTL_HAS_GAMMA) ? gamma[k] : 1.0f, mat_has(MTL_HAS_BETA) ? beta[k] : 0.0f);
}

/* What is below the threshold becomes step * code, the rest is rounded to f16. */
static inline float int8_value(float y, float4 stats) {
    return fabs(y) < MTL_INT8_OUTLIER ? stats.z * rint(y * stats.w) : (float)(half)y;
}
static inline float4 int8_stats(float4 stats, float most) {
    stats.z = most < 1e-30f ? 0.0f : most / 127.0f;
    stats.w = most < 1e-30f ? 0.0f : 127.0f / most;
    return stats;
}

/* A row's statistics, by one SIMD group; in all lanes. */
static inline float4 row_stats(constant mtl_mat_args &a, device const float *x, device const float *gamma,
                               device const float *beta, uint lane) {
    float mean = 0.0f, scale = 1.0f, most = 0.0f;
    if (MAT_NORM != MTL_NORM_NONE) norm_stats(x, a.k, MAT_NORM, a.eps, lane, mean, scale);
    float4 stats = float4(mean, scale, 0.0f, 0.0f);
    if (mat_has(MTL_INT8_ROWS)) {
        for (uint k = lane; k < a.k; k += 32) {
            const float y = fabs(normed1(x[k], stats, gamma, beta, k));
            if (y < MTL_INT8_OUTLIER) most = max(most, y);
        }
        stats = int8_stats(stats, simd_largest(most));
    }
    return stats;
}

static inline float prepared1(float x, float4 stats, device const float *gamma, device const float *beta, uint k) {
    const float y = normed1(x, stats, gamma, beta, k);
    return mat_has(MTL_INT8_ROWS) ? int8_value(y, stats) : y;
}

/* Sixteen prepared inputs from k on; 0 from a.k on. */
static inline void load_inputs16(constant mtl_mat_args &a, device const float *x, device const float *gamma,
                                 device const float *beta, float4 stats, uint k, thread float4 *v) {
    UNROLL for (uint j = 0; j < 4; j++) {
        const uint at = k + 4 * j;
        float4 y = float4(0.0f);
        if (at + 4 <= a.k) {
            y = normed4(load_floats(x + at), stats, gamma, beta, at);
            if (mat_has(MTL_INT8_ROWS)) {
                UNROLL for (uint e = 0; e < 4; e++) y[e] = int8_value(y[e], stats);
            }
        } else {
            UNROLL for (uint e = 0; e < 4; e++)
                if (at + e < a.k) y[e] = prepared1(x[at + e], stats, gamma, beta, at + e);
        }
        v[j] = y;
    }
}

/* ------------------------------------------------------------------ outputs */

struct linear_out { device float *out; device const float *bias, *scales; };
struct qkv_out {
    device float *q;
    device const float *bias, *scales, *inv_freq;
    device const int *positions, *row_run, *tables;
    device const mtl_run *runs;
    device uchar *kv;
};

static inline float finished(constant mtl_mat_args &a, device const float *bias, device const float *scales, uint r, float v) {
    if (MAT_TYPE == MTL_TYPE_I8) v *= scales[a.first + r];
    return mat_has(MTL_HAS_BIAS) ? v + bias[a.first + r] : v;
}

static inline void put_value(device float *to, float v) { *to = mat_has(MTL_RESIDUAL) ? *to + v : v; }

/* The sums v0 and v1 of rows r0 and r1 (MTL_NO_ROW: none) for row t of the activations. */
static inline void put(constant mtl_mat_args &a, linear_out o, uint t, uint r0, uint r1, float v0, float v1) {
    device float *to = o.out + (ulong)t * a.out_stride + a.first;
    if (r0 == MTL_NO_ROW) return;
    v0 = activate(MAT_ACT, finished(a, o.bias, o.scales, r0, v0));
    if (MAT_PAIRS == MTL_PAIRS_GATE) {
        put_value(to + r0, v0 * finished(a, o.bias, o.scales, r1, v1));
        return;
    }
    put_value(to + r0, v0);
    if (r1 != MTL_NO_ROW) put_value(to + r1, activate(MAT_ACT, finished(a, o.bias, o.scales, r1, v1)));
}

static inline void put_head(constant mtl_mat_args &a, qkv_out o, uint t, uint position, uint head, uint i, float v) {
    if (head < a.n_heads) {
        o.q[((ulong)t * a.n_heads + head) * a.head_dim + i] = v;
        return;
    }
    const uint which = head < a.n_heads + a.n_kv_heads ? 0 : 1, kv_head = head - a.n_heads - which * a.n_kv_heads;
    const uint block = (uint)o.tables[o.runs[o.row_run[t]].table + (int)(position / MTL_KV_BLOCK)];
    device uchar *panel = o.kv + kv_panel_at(MAT_KV, a.head_dim, a.n_layers, a.n_kv_heads, block, a.layer, which, kv_head);
    kv_store(panel, MAT_KV, a.head_dim, position % MTL_KV_BLOCK, i, v);
}

static inline void put(constant mtl_mat_args &a, qkv_out o, uint t, uint r0, uint r1, float v0, float v1) {
    if (r0 == MTL_NO_ROW) return;
    const uint position = (uint)o.positions[t], row = a.first + r0, head = row / a.head_dim, i = row - head * a.head_dim;
    v0 = finished(a, o.bias, o.scales, r0, v0);
    if (r1 != MTL_NO_ROW) v1 = finished(a, o.bias, o.scales, r1, v1);
    if (MAT_PAIRS == MTL_PAIRS_APART) {
        put_head(a, o, t, position, head, i, v0);
        if (r1 != MTL_NO_ROW) put_head(a, o, t, position, (a.first + r1) / a.head_dim, (a.first + r1) % a.head_dim, v1);
        return;
    }
    /* A pair is within a head, and whole. */
    const uint pair = MAT_PAIRS == MTL_PAIRS_NEXT ? i / 2 : i;
    if (pair < a.rope_dims / 2 && head < a.n_heads + a.n_kv_heads)
        rope_pair(v0, v1, (int)position, o.inv_freq[pair], a.rope_scale);
    put_head(a, o, t, position, head, i, v0);
    put_head(a, o, t, position, head, i + (MAT_PAIRS == MTL_PAIRS_ROTARY && i < a.rope_dims / 2 ? a.rope_dims / 2 : 1), v1);
}

/* --------------------------------------------------------- rows on their own */

/* Statistics of rows, for tiles: four rows a group. */
kernel void mat_stats(constant mtl_mat_args &a [[buffer(0)]], device const float *x [[buffer(1)]],
                      device const float *gamma [[buffer(2)]], device const float *beta [[buffer(3)]],
                      device const int *rows [[buffer(4)]], device float4 *stats [[buffer(5)]],
                      uint group [[threadgroup_position_in_grid]], uint sg [[simdgroup_index_in_threadgroup]],
                      uint lane [[thread_index_in_simdgroup]]) {
    const uint t = group * 4 + sg;
    if (t >= a.n) return;
    const uint r = mat_has(MTL_GATHERED) ? (uint)rows[t] : t;
    const float4 s = row_stats(a, x + (ulong)r * a.k, gamma, beta, lane);
    if (lane == 0) stats[t] = s;
}

/* Gathered and prepared rows (n, k): where a kernel cannot prepare them as it reads. Four rows a group. */
kernel void mat_prepare(constant mtl_mat_args &a [[buffer(0)]], device const float *x [[buffer(1)]],
                        device const float *gamma [[buffer(2)]], device const float *beta [[buffer(3)]],
                        device const int *rows [[buffer(4)]], device float *out [[buffer(5)]],
                        uint group [[threadgroup_position_in_grid]], uint sg [[simdgroup_index_in_threadgroup]],
                        uint lane [[thread_index_in_simdgroup]]) {
    const uint t = group * 4 + sg;
    if (t >= a.n) return;
    device const float *from = x + (ulong)(mat_has(MTL_GATHERED) ? (uint)rows[t] : t) * a.k;
    const float4 s = row_stats(a, from, gamma, beta, lane);
    for (uint k = lane; k < a.k; k += 32) out[(ulong)t * a.k + k] = prepared1(from[k], s, gamma, beta, k);
}
