/*
 * dequant.metal - weights as they lie in memory become f32: the values of src/format/types.c, bit for bit, 16 at a
 * time. Loads ask for no more alignment than the formats give: 2 bytes for most block types, 4 for Q4_1, Q4_K, Q5_K.
 */

#define MAT_TYPE FC0
#define MAT_SHAPE FC1
#define MAT_PAIRS FC2
#define MAT_NORM FC3
#define MAT_ACT FC4
#define MAT_FLAGS FC5
#define MAT_ROPE FC6
#define MAT_KV FC7

/* ----------------------------------------------------------------- loading */

static inline uint2 load8_by2(device const uchar *p) { return as_type<uint2>(ushort4(*(device const packed_ushort4 *)p)); }
static inline uint4 load16_by2(device const uchar *p) { return uint4(load8_by2(p), load8_by2(p + 8)); }
static inline uint2 load8_by4(device const uchar *p) { return uint2(*(device const packed_uint2 *)p); }
static inline uint4 load16_by4(device const uchar *p) { return uint4(*(device const packed_uint4 *)p); }
static inline uint load4_by2(device const uchar *p) { return as_type<uint>(ushort2(*(device const packed_ushort2 *)p)); }
static inline float load_half(device const uchar *p) { return (float)*(device const half *)p; }

static inline float4 load_floats(device const float *p) { return float4(*(device const packed_float4 *)p); }

/* Four unsigned or signed bytes. */
static inline float4 bytes4(uint v) { return float4(as_type<uchar4>(v)); }
static inline float4 codes4(uint v) { return float4(as_type<char4>(v)); }
static inline float4 halves4(uint2 v) { return float4(as_type<half4>(v)); }
static inline float4 brains4(uint2 v) { return as_type<float4>(uint4(v.x << 16, v.x & 0xffff0000u, v.y << 16, v.y & 0xffff0000u)); }
/* Bits 0 to 3 become bit 4 of the four bytes. */
static inline uint spread4(uint bits) { return (((bits & 15u) * 0x00204081u) & 0x01010101u) << 4; }

/* One value of a plain type, element i behind p. */
static inline float load_plain(uint type, device const uchar *p, uint i) {
    if (type == MTL_TYPE_F32) return ((device const float *)p)[i];
    if (type == MTL_TYPE_F16) return (float)((device const half *)p)[i];
    if (type == MTL_TYPE_BF16) return as_type<float>((uint)((device const ushort *)p)[i] << 16);
    return (float)((device const char *)p)[i];
}

static inline uint plain_bytes(uint type) { return type == MTL_TYPE_F32 ? 4 : type == MTL_TYPE_I8 ? 1 : 2; }

/* Eight values of a 2-byte type. */
static inline void load_plain8(uint type, bool wide, device const uchar *p, thread float4 &a, thread float4 &b) {
    const uint4 v = wide ? load16_by4(p) : load16_by2(p);
    a = type == MTL_TYPE_F16 ? halves4(v.xy) : brains4(v.xy);
    b = type == MTL_TYPE_F16 ? halves4(v.zw) : brains4(v.zw);
}

/* Sixteen values of a plain type from element i on, 0 from element n on. */
static inline void load_plain16(uint type, bool wide, device const uchar *p, uint i, uint n, thread float4 *v) {
    if (i + 16 > n) {
        UNROLL for (uint j = 0; j < 4; j++) {
            float4 few = float4(0.0f);
            UNROLL for (uint e = 0; e < 4; e++)
                if (i + 4 * j + e < n) few[e] = load_plain(type, p, i + 4 * j + e);
            v[j] = few;
        }
    } else if (type == MTL_TYPE_F32) {
        UNROLL for (uint j = 0; j < 4; j++) v[j] = load_floats((device const float *)p + i + 4 * j);
    } else if (type == MTL_TYPE_I8) {
        if (wide) {
            const uint4 u = load16_by4(p + i);
            UNROLL for (uint j = 0; j < 4; j++) v[j] = codes4(u[j]);
        } else {
            UNROLL for (uint j = 0; j < 4; j++)
                UNROLL for (uint e = 0; e < 4; e++) v[j][e] = load_plain(type, p, i + 4 * j + e);
        }
    } else {
        load_plain8(type, wide, p + 2 * i, v[0], v[1]);
        load_plain8(type, wide, p + 2 * i + 16, v[2], v[3]);
    }
}

/* ------------------------------------------------------------------ blocks */

/* Scale and minimum of group g of Q4_K and Q5_K, out of 12 bytes. */
static inline float2 k_scale(device const uchar *s, uint g) {
    if (g < 4) return float2((float)(s[g] & 63), (float)(s[g + 4] & 63));
    return float2((float)((s[g + 4] & 15) | (s[g - 4] >> 6 << 4)), (float)((s[g + 4] >> 4) | (s[g] >> 6 << 4)));
}

/* 16 values of blocks of 32: half h of block b. */
static inline void load_block16(uint type, device const uchar *row, uint b, uint h, thread float4 *v) {
    if (type == MTL_TYPE_Q8_0) {
        device const uchar *p = row + b * 34;
        const float d = load_half(p);
        const uint4 u = load16_by2(p + 2 + 16 * h);
        UNROLL for (uint j = 0; j < 4; j++) v[j] = codes4(u[j]) * d;
        return;
    }
    const bool five = type == MTL_TYPE_Q5_0 || type == MTL_TYPE_Q5_1, offset = type == MTL_TYPE_Q4_1 || type == MTL_TYPE_Q5_1;
    device const uchar *p = row + b * (16 + (five ? 4 : 0) + (offset ? 4 : 2));
    const float d = load_half(p);
    p += 2;
    float m = 0.0f;
    if (offset) {
        m = load_half(p);
        p += 2;
    }
    uint high = 0;
    if (five) {
        high = load4_by2(p) >> 16 * h;
        p += 4;
    }
    const uint4 u = load16_by2(p);
    UNROLL for (uint j = 0; j < 4; j++) {
        const float4 q = bytes4(((u[j] >> 4 * h) & 0x0f0f0f0fu) | (five ? spread4(high >> 4 * j) : 0u));
        v[j] = offset ? fma(q, float4(d), float4(m)) : (q - (five ? 16.0f : 8.0f)) * d;
    }
}

/* 16 values of blocks of 256: part s (0 .. 15) of block b. */
static inline void load_super16(uint type, device const uchar *row, uint b, uint s, thread float4 *v) {
    const uint g = s / 2, h = s & 1;
    if (type == MTL_TYPE_Q6_K) {
        device const uchar *p = row + b * 210;
        const float d = load_half(p + 208) * (float)((device const char *)p)[192 + s];
        const uint top = g / 4, in = g & 3;
        const uint4 low = load16_by2(p + 64 * top + 32 * (in & 1) + 16 * h);
        const uint4 high = load16_by2(p + 128 + 32 * top + 16 * h);
        UNROLL for (uint j = 0; j < 4; j++) {
            const uint q = ((low[j] >> 4 * (in >> 1)) & 0x0f0f0f0fu) | (((high[j] >> 2 * in) & 0x03030303u) << 4);
            v[j] = (bytes4(q) - 32.0f) * d;
        }
        return;
    }
    const bool five = type == MTL_TYPE_Q5_K;
    device const uchar *p = row + b * (five ? 176 : 144);
    const float2 scale = k_scale(p + 4, g);
    const float d = load_half(p) * scale.x, m = load_half(p + 2) * scale.y;
    const uint4 u = load16_by4(p + (five ? 48 : 16) + 32 * (g / 2) + 16 * h);
    uint4 high = uint4(0u);
    if (five) high = load16_by4(p + 16 + 16 * h);
    UNROLL for (uint j = 0; j < 4; j++) {
        const uint q = ((u[j] >> 4 * (g & 1)) & 0x0f0f0f0fu) | (five ? ((high[j] >> g) & 0x01010101u) << 4 : 0u);
        v[j] = fma(bytes4(q), float4(d), float4(-m));
    }
}

/* Sixteen weights of a row from input k on, a multiple of 16; 0 from input n on. */
static inline void load_weights16(uint type, bool wide, device const uchar *row, uint k, uint n, thread float4 *v) {
    if (type <= MTL_TYPE_BF16 || type == MTL_TYPE_I8) {
        load_plain16(type, wide, row, k, n, v);
    } else if (k >= n) {
        UNROLL for (uint j = 0; j < 4; j++) v[j] = float4(0.0f);
    } else if (type <= MTL_TYPE_Q5_1) {
        load_block16(type, row, k / 32, k / 16 & 1, v);
    } else {
        load_super16(type, row, k / 256, k / 16 & 15, v);
    }
}
