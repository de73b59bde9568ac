/*
 * vec.metal - what goes through rows of activations: looking rows of tables up, norms and gathering, the way of q, k
 * and v behind their product, copies of KV blocks.
 */

/* ------------------------------------------------------------------ tables */

static inline float half_at(device const uchar *p) { return (float)*(device const half *)p; }

/* Scale and minimum j of the eight pairs of 6 bits in 12 bytes (Q4_K, Q5_K). */
static inline float2 embed_scale_min(device const uchar *s, uint j) {
    if (j < 4) return float2((float)(s[j] & 63), (float)(s[j + 4] & 63));
    return float2((float)((s[j + 4] & 15) | (s[j - 4] >> 6 << 4)), (float)((s[j + 4] >> 4) | (s[j] >> 6 << 4)));
}

static inline float embed_k(device const uchar *b, uint i, bool five) {
    const uint g = i / 32, at = i % 32, shift = 4 * (g & 1);
    const float2 scale = embed_scale_min(b + 4, g);
    const float d = half_at(b) * scale.x, m = half_at(b + 2) * scale.y;
    device const uchar *low = b + (five ? 48 : 16) + 32 * (g >> 1);
    uint code = (uint)(low[at] >> shift) & 15;
    if (five) code |= ((uint)(b[16 + at] >> g) & 1) << 4;
    return d * (float)code - m;
}

static inline float embed_q6_k(device const uchar *b, uint i) {
    const uint part = i / 128, g = (i % 128) / 32, at = i % 32;
    device const uchar *low = b + 64 * part + 32 * (g & 1), *high = b + 128 + 32 * part;
    const int code = (int)(((uint)(low[at] >> (4 * (g >> 1))) & 15) | (((uint)(high[at] >> (2 * g)) & 3) << 4)) - 32;
    const float d = half_at(b + 208) * (float)((device const char *)b)[192 + 8 * part + 2 * g + (at >= 16 ? 1 : 0)];
    return d * (float)code;
}

/* Value i of a stored row, every product and sum rounded to f32 as in src/format/types.c. */
static inline float embed_value(device const uchar *row, uint type, uint i) {
    const uint at = i % 32, nibble = at % 16;
    device const uchar *b;
    uint code;
    switch (type) {
    case MTL_TYPE_F32: return ((device const float *)row)[i];
    case MTL_TYPE_F16: return (float)((device const half *)row)[i];
    case MTL_TYPE_BF16: return as_type<float>((uint)((device const ushort *)row)[i] << 16);
    case MTL_TYPE_Q8_0:
        b = row + (i / 32) * 34;
        return (float)((device const char *)b)[2 + at] * half_at(b);
    case MTL_TYPE_Q4_0:
        b = row + (i / 32) * 18;
        code = (uint)(b[2 + nibble] >> (at < 16 ? 0 : 4)) & 15;
        return (float)((int)code - 8) * half_at(b);
    case MTL_TYPE_Q4_1:
        b = row + (i / 32) * 20;
        code = (uint)(b[4 + nibble] >> (at < 16 ? 0 : 4)) & 15;
        return (float)code * half_at(b) + half_at(b + 2);
    case MTL_TYPE_Q5_0:
        b = row + (i / 32) * 22;
        code = ((uint)(b[6 + nibble] >> (at < 16 ? 0 : 4)) & 15) | (((uint)(b[2 + at / 8] >> (at % 8)) & 1) << 4);
        return (float)((int)code - 16) * half_at(b);
    case MTL_TYPE_Q5_1:
        b = row + (i / 32) * 24;
        code = ((uint)(b[8 + nibble] >> (at < 16 ? 0 : 4)) & 15) | (((uint)(b[4 + at / 8] >> (at % 8)) & 1) << 4);
        return (float)code * half_at(b) + half_at(b + 2);
    case MTL_TYPE_Q4_K: return embed_k(row + (i / 256) * 144, i % 256, false);
    case MTL_TYPE_Q5_K: return embed_k(row + (i / 256) * 176, i % 256, true);
    case MTL_TYPE_Q6_K: return embed_q6_k(row + (i / 256) * 210, i % 256);
    default: return NAN;
    }
}

#define EMBED_TYPE FC0
#define EMBED_POSITIONS FC1 /* there is a table of positions */
#define EMBED_POSITION_TYPE FC2

/* Grid (width / 128, n_tokens). An id or position outside its table gives NaN. */
kernel void embed_rows(constant mtl_embed_args &a [[buffer(0)]], device const uchar *wte [[buffer(1)]],
                  device const uchar *wpe [[buffer(2)]], device const int *tokens [[buffer(3)]],
                  device const int *positions [[buffer(4)]], device float *out [[buffer(5)]],
                  uint2 group [[threadgroup_position_in_grid]], uint2 thread_at [[thread_position_in_threadgroup]]) {
    const uint i = group.x * 128 + thread_at.x, row = group.y;
    if (i >= a.width) return;
    const uint token = (uint)tokens[row];
    float v = NAN;
    if (token < a.n_ids) v = embed_value(wte + (ulong)token * a.wte_row, EMBED_TYPE, i);
    if (EMBED_POSITIONS != 0) {
        const uint position = (uint)positions[row];
        v = position < a.n_positions ? v + embed_value(wpe + (ulong)position * a.wpe_row, EMBED_POSITION_TYPE, i) : NAN;
    }
    out[(ulong)row * a.width + i] = v;
}

/* ------------------------------------------------------------------- norms */

#define NORM_KIND FC0
#define NORM_WEIGHT FC1 /* there is a weight, a bias; rows are gathered */
#define NORM_BIAS FC2
#define NORM_GATHER FC3

/* Four rows a threadgroup, one a SIMD group. */
kernel void norm_rows(constant mtl_norm_args &a [[buffer(0)]], device const float *in [[buffer(1)]],
                      device const float *weight [[buffer(2)]], device const float *bias [[buffer(3)]],
                      device const int *rows [[buffer(4)]], device float *out [[buffer(5)]],
                      uint group [[threadgroup_position_in_grid]], uint simd [[simdgroup_index_in_threadgroup]],
                      uint lane [[thread_index_in_simdgroup]]) {
    const uint i = group * 4 + simd;
    if (i >= a.n) return;
    device const float *x = in + (ulong)(NORM_GATHER != 0 ? (uint)rows[i] : i) * a.width;
    device float *y = out + (ulong)i * a.width;
    if (NORM_KIND == MTL_NORM_NONE) {
        for (uint c = lane; c < a.width; c += 32) y[c] = x[c];
        return;
    }
    float mean, scale;
    norm_stats(x, a.width, NORM_KIND, a.eps, lane, mean, scale);
    for (uint c = lane; c < a.width; c += 32)
        y[c] = norm_value(x[c], mean, scale, NORM_WEIGHT != 0 ? weight[c] : 1.0f, NORM_BIAS != 0 ? bias[c] : 0.0f);
}

/* ----------------------------------------------------------------- q, k, v */

#define ROPE_KIND FC0
#define ROPE_DIMS FC1
#define ROPE_KV_TYPE FC2
#define ROPE_HEAD_DIM FC3

/* One head of one row a SIMD group, four a threadgroup: grid (heads / 4, n_tokens). */
kernel void rope_kv(constant mtl_rope_kv_args &a [[buffer(0)]], device const float *in [[buffer(1)]],
                    device const float *inv_freq [[buffer(2)]], device const int *positions [[buffer(3)]],
                    device const int *row_run [[buffer(4)]], device const mtl_run *runs [[buffer(5)]],
                    device const int *tables [[buffer(6)]], device float *q [[buffer(7)]],
                    device uchar *kv [[buffer(8)]], uint2 group [[threadgroup_position_in_grid]],
                    uint simd [[simdgroup_index_in_threadgroup]], uint lane [[thread_index_in_simdgroup]]) {
    const uint heads = a.n_heads + 2 * a.n_kv_heads, head = group.x * 4 + simd, row = group.y, dim = ROPE_HEAD_DIM;
    if (head >= heads) return;
    const int position = positions[row];
    device const float *x = in + ((ulong)row * heads + head) * dim;
    const bool turned = head < a.n_heads + a.n_kv_heads;
    float y[MTL_MAX_HEAD_DIM / 32];
    for (uint i = lane, n = 0; i < dim; i += 32, n++) {
        uint pair;
        const uint other = rope_partner(ROPE_KIND, ROPE_DIMS, i, pair);
        float v = x[i];
        if (turned && other != i) {
            float first = x[min(i, other)], second = x[max(i, other)];
            rope_pair(first, second, position, inv_freq[pair], a.rope_scale);
            v = i < other ? first : second;
        }
        y[n] = v;
    }
    if (head < a.n_heads) {
        device float *to = q + ((ulong)row * a.n_heads + head) * dim;
        for (uint i = lane, n = 0; i < dim; i += 32, n++) to[i] = y[n];
        return;
    }
    const uint which = turned ? 0 : 1, kv_head = head - a.n_heads - which * a.n_kv_heads;
    const uint slot = (uint)position % MTL_KV_BLOCK;
    const int block = tables[runs[row_run[row]].table + position / MTL_KV_BLOCK];
    device uchar *panel =
        kv + kv_panel_at(ROPE_KV_TYPE, dim, a.n_layers, a.n_kv_heads, (uint)block, a.layer, which, kv_head);
    if (ROPE_KV_TYPE == MTL_KV_I8) kv_store_i8(panel, dim, slot, which == 1, y, lane);
    else
        for (uint i = lane, n = 0; i < dim; i += 32, n++) kv_store(panel, ROPE_KV_TYPE, dim, slot, i, y[n]);
}

#define COPY_TYPE FC0
#define COPY_HEAD_DIM FC1

/* A panel of one layer's k or v of one head a threadgroup: `n` positions from one block to another. */
kernel void kv_copy(constant mtl_kv_copy_args &a [[buffer(0)]], device uchar *kv [[buffer(1)]],
                    uint panel [[threadgroup_position_in_grid]], uint thread_at [[thread_position_in_threadgroup]]) {
    const uint dim = COPY_HEAD_DIM, n = a.n * dim;
    const ulong size = kv_panel_bytes(COPY_TYPE, dim), each = (ulong)a.n_panels * size;
    device uchar *from = kv + (ulong)a.from * each + (ulong)panel * size;
    device uchar *to = kv + (ulong)a.to * each + (ulong)panel * size;
    for (uint i = thread_at; i < n; i += 128) {
        if (COPY_TYPE == MTL_KV_F32) ((device uint *)to)[i] = ((device const uint *)from)[i];
        else if (COPY_TYPE == MTL_KV_F16) ((device ushort *)to)[i] = ((device const ushort *)from)[i];
        else to[i] = from[i];
    }
    if (COPY_TYPE != MTL_KV_I8) return;
    for (uint i = thread_at; i < 2 * a.n; i += 128)
        ((device uint *)(to + MTL_KV_BLOCK * dim))[i] = ((device const uint *)(from + MTL_KV_BLOCK * dim))[i];
}
