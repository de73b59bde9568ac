/*
 * attention.metal - causal attention over KV blocks, grouped-query: a matrix kernel for batches and prompts, a vector
 * kernel for the next token of one sequence.
 *
 * Same bits in the matrix kernel: a query row (one head of one token) walks its KV blocks from position 0, renewing its
 * softmax state once a block. Its scores are sums over the head in steps of 8 in order, its weighted values sums over
 * the block in steps of 8 in order, both by 8x8 matrix products, in which a row's elements depend on that row alone;
 * positions it must not see have the weight 0. So neither company, nor the cut into chunks, nor the place in a tile
 * enter. What is not finite would (0 times infinity): such values are kept out of the products and make the rows that
 * see them NaN.
 */

#define ATTN_TYPE FC0
#define ATTN_DIM FC1
#define ATTN_GROUP FC2 /* query heads that share a head of keys and values */

#define ATTN_ROWS 32       /* query rows of a threadgroup: four tiles of 8, one a SIMD group */
#define ATTN_SLICE 64      /* values of a head that are staged at once */
#define ATTN_STRIDE 68     /* of a staged position */
#define ATTN_MAX_SLICES (MTL_MAX_HEAD_DIM / ATTN_SLICE)

/* The run and the first query row in it of tile number `tile`, runs one after the other. False: there is no such tile.
 * Called by whole SIMD groups, lanes looking at 32 runs at once. */
static inline bool attn_find_tile(device const mtl_run *runs, uint n_runs, uint tile, uint lane, thread uint &run,
                                  thread uint &row) {
    uint before = 0;
    for (uint r = 0; r < n_runs; r += 32) {
        const uint own = r + lane < n_runs ? ((uint)runs[r + lane].n * ATTN_GROUP + ATTN_ROWS - 1) / ATTN_ROWS : 0;
        uint sum = own;
        for (uint d = 1; d < 32; d *= 2) {
            const uint left = simd_shuffle_up(sum, (ushort)d);
            if (lane >= d) sum += left;
        }
        const uint all = simd_shuffle(sum, (ushort)31);
        if (tile < before + all) {
            const uint at = tile - before;
            uint found = at >= sum - own && at < sum ? lane : 32;
            for (uint d = 16; d > 0; d /= 2) found = min(found, simd_shuffle_xor(found, (ushort)d));
            run = r + found;
            row = (at - simd_shuffle(sum - own, (ushort)found)) * ATTN_ROWS;
            return true;
        }
        before += all;
    }
    return false;
}

/* Values [first, first + 64) of positions 0 .. 31 of a panel to threadgroup memory, those from n_slots on and those
 * beyond the head 0. A SIMD group takes eight positions. With `clean`, what is not finite becomes 0, and the bits of
 * its positions are returned (in all lanes). */
static inline uint attn_stage(threadgroup float *stage, device const uchar *panel, uint first, uint n_slots, bool clean,
                              uint simd, uint lane) {
    uint odd = 0;
    for (uint k = 0; k < 4; k++) {
        const uint slot = simd * 8 + k * 2 + lane / 16, i = lane % 16 * 4;
        float4 v = float4(0.0f);
        if (slot < n_slots && first + i < ATTN_DIM) v = kv_load4(panel, ATTN_TYPE, ATTN_DIM, slot, first + i);
        if (clean) {
            const float4 zero = v * 0.0f; /* NaN where v is not finite */
            if (!(zero.x + zero.y + zero.z + zero.w == 0.0f)) odd |= 1u << slot;
            v = float4(zero.x == 0.0f ? v.x : 0.0f, zero.y == 0.0f ? v.y : 0.0f, zero.z == 0.0f ? v.z : 0.0f,
                       zero.w == 0.0f ? v.w : 0.0f);
        }
        *(threadgroup float4 *)(stage + slot * ATTN_STRIDE + i) = v;
    }
    if (clean)
        for (uint d = 16; d > 0; d /= 2) odd |= simd_shuffle_xor(odd, (ushort)d);
    return odd;
}

/* Renews the state of a query row with its scores of a block, which become weights: 0 from `seen` on. Four lanes take a
 * row, columns lane % 4, + 4, ... Returns what the earlier sums shrink by. A row that sees nothing keeps its state to the
 * bit. */
static inline float attn_soften(threadgroup float *row, int seen, float scale, uint lane, thread float &most,
                                thread float &total) {
    float v[8], top = most, sum = 0.0f;
    UNROLL for (uint k = 0; k < 8; k++) {
        const uint c = lane % 4 + 4 * k;
        v[k] = (int)c < seen ? row[c] * scale : -INFINITY;
        top = larger(top, v[k]);
    }
    top = larger(top, simd_shuffle_xor(top, (ushort)1));
    top = larger(top, simd_shuffle_xor(top, (ushort)2));
    UNROLL for (uint k = 0; k < 8; k++) {
        const uint c = lane % 4 + 4 * k;
        const float weight = (int)c < seen ? precise::exp(v[k] - top) : 0.0f;
        sum += weight;
        row[c] = weight;
    }
    sum += simd_shuffle_xor(sum, (ushort)1);
    sum += simd_shuffle_xor(sum, (ushort)2);
    const float less = seen <= 0 ? 1.0f : most == -INFINITY ? 0.0f : precise::exp(most - top);
    total = fma(total, less, sum);
    most = top;
    return less;
}

/* Adds a block's weighted values, 16 of the staged ones, to a tile's sums behind their shrinking: lane l has value
 * l % 16 of rows 4 (l / 16) .. + 3. */
static inline void attn_add(threadgroup const float *weights, threadgroup const float *values, uint n_eights,
                            threadgroup float *product, threadgroup const float *shrink, thread float *sums, uint lane) {
    simdgroup_float8x8 left = make_filled_simdgroup_matrix<float, 8>(0.0f);
    simdgroup_float8x8 right = make_filled_simdgroup_matrix<float, 8>(0.0f);
    for (uint k = 0; k < n_eights; k++) {
        simdgroup_float8x8 weight, value;
        simdgroup_load(weight, weights + k * 8, 32);
        simdgroup_load(value, values + k * 8 * ATTN_STRIDE, ATTN_STRIDE);
        simdgroup_multiply_accumulate(left, weight, value, left);
        simdgroup_load(value, values + k * 8 * ATTN_STRIDE + 8, ATTN_STRIDE);
        simdgroup_multiply_accumulate(right, weight, value, right);
    }
    simdgroup_store(left, product, 16);
    simdgroup_store(right, product + 8, 16);
    simdgroup_barrier(mem_flags::mem_threadgroup);
    UNROLL for (uint r = 0; r < 4; r++)
        sums[r] = fma(sums[r], shrink[lane / 16 * 4 + r], product[(lane / 16 * 4 + r) * 16 + lane % 16]);
    simdgroup_barrier(mem_flags::mem_threadgroup);
}

/* Grid (tiles, n_kv_heads), 128 threads. Query rows of a run and a KV head: token by token, in each the heads that
 * share the KV head. A threadgroup takes 32 of them; where fewer are left, the SIMD groups share tiles: they split
 * positions of the scores and values of the head, never a sum. */
[[max_total_threads_per_threadgroup(128)]]
kernel void attention_tiles(constant mtl_attention_args &a [[buffer(0)]], device const float *q [[buffer(1)]],
                            device const uchar *kv [[buffer(2)]], device const mtl_run *runs [[buffer(3)]],
                            device const int *tables [[buffer(4)]], device float *out [[buffer(5)]],
                            uint2 group [[threadgroup_position_in_grid]],
                            uint simd [[simdgroup_index_in_threadgroup]], uint lane [[thread_index_in_simdgroup]]) {
    threadgroup float4 stage4[32 * ATTN_STRIDE / 4]; /* float4: for its alignment */
    threadgroup float *stage = (threadgroup float *)stage4;
    threadgroup float scores[ATTN_ROWS * 32];   /* then the weights */
    threadgroup float products[4 * 8 * 16];     /* of a SIMD group, on the way to its sums */
    threadgroup float shrink[ATTN_ROWS];        /* at last the totals */
    threadgroup uint odd[4];

    uint run_at = group.x, row0 = 0;
    if (a.one_tile_each == 0 && !attn_find_tile(runs, a.n_runs, group.x, lane, run_at, row0)) return;
    const uint run_first = (uint)runs[run_at].first, kv_head = group.y;
    const uint n_rows = min((uint)runs[run_at].n * ATTN_GROUP - row0, (uint)ATTN_ROWS);
    const int run_pos = runs[run_at].pos, last = run_pos + (int)((row0 + n_rows - 1) / ATTN_GROUP);
    device const int *table = tables + runs[run_at].table;
    /* Tiles that have rows; `parts` SIMD groups work on each. */
    const uint parts = n_rows <= 8 ? 4 : n_rows <= 16 ? 2 : 1, tile = simd / parts * 8, part = simd % parts;
    const bool active = tile < n_rows;
    threadgroup float *own = scores + tile * 32, *product = products + simd * 8 * 16;

    /* The queries, by way of `stage`, into matrices. */
    simdgroup_float8x8 queries[MTL_MAX_HEAD_DIM / 8];
    UNROLL for (uint s = 0; s < ATTN_MAX_SLICES; s++) {
        if (s * ATTN_SLICE >= ATTN_DIM) continue;
        for (uint r = simd; r < ATTN_ROWS; r += 4) {
            const uint row = row0 + r, token = run_first + row / ATTN_GROUP, head = kv_head * ATTN_GROUP + row % ATTN_GROUP;
            for (uint i = lane; i < ATTN_SLICE; i += 32) {
                float v = 0.0f;
                if (r < n_rows && s * ATTN_SLICE + i < ATTN_DIM)
                    v = q[((ulong)token * a.n_heads + head) * ATTN_DIM + s * ATTN_SLICE + i];
                stage[r * ATTN_STRIDE + i] = v;
            }
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);
        UNROLL for (uint k = 0; k < 8; k++)
            if (s * ATTN_SLICE + k * 8 < ATTN_DIM)
                simdgroup_load(queries[s * 8 + k], stage + tile * ATTN_STRIDE + k * 8, ATTN_STRIDE);
        threadgroup_barrier(mem_flags::mem_threadgroup);
    }

    /* Row lane / 4 of the tile is softened by this lane; a row that is not there sees nothing. */
    const uint soft = tile + lane / 4;
    const int position = soft < n_rows ? run_pos + (int)((row0 + soft) / ATTN_GROUP) : -1;
    float most = -INFINITY, total = 0.0f, sums[ATTN_MAX_SLICES * 16];
    UNROLL for (uint i = 0; i < ATTN_MAX_SLICES * 16; i++) sums[i] = 0.0f;

    for (int start = 0; start <= last; start += MTL_KV_BLOCK) {
        const uint block = (uint)table[start / MTL_KV_BLOCK];
        const uint n_slots = (uint)min(last + 1 - start, MTL_KV_BLOCK), n_eights = (n_slots + 7) / 8;
        const int seen = min(position + 1 - start, MTL_KV_BLOCK);
        device const uchar *keys =
            kv + kv_panel_at(ATTN_TYPE, ATTN_DIM, a.n_layers, a.n_kv_heads, block, a.layer, 0, kv_head);
        device const uchar *values =
            kv + kv_panel_at(ATTN_TYPE, ATTN_DIM, a.n_layers, a.n_kv_heads, block, a.layer, 1, kv_head);

        simdgroup_float8x8 score[4];
        UNROLL for (uint j = 0; j < 4; j++) score[j] = make_filled_simdgroup_matrix<float, 8>(0.0f);
        UNROLL for (uint s = 0; s < ATTN_MAX_SLICES; s++) {
            if (s * ATTN_SLICE >= ATTN_DIM) continue;
            attn_stage(stage, keys, s * ATTN_SLICE, n_slots, false, simd, lane);
            threadgroup_barrier(mem_flags::mem_threadgroup);
            UNROLL for (uint k = 0; k < 8; k++)
                UNROLL for (uint j = 0; j < 4; j++) {
                    const uint eight = part + j * parts;
                    if (!active || s * ATTN_SLICE + k * 8 >= ATTN_DIM || eight >= n_eights) continue;
                    simdgroup_float8x8 key;
                    simdgroup_load(key, stage + eight * 8 * ATTN_STRIDE + k * 8, ATTN_STRIDE, ulong2(0, 0), true);
                    simdgroup_multiply_accumulate(score[j], queries[s * 8 + k], key, score[j]);
                }
            if ((s + 1) * ATTN_SLICE < ATTN_DIM) threadgroup_barrier(mem_flags::mem_threadgroup);
        }
        UNROLL for (uint j = 0; j < 4; j++)
            if (active && part + j * parts < n_eights) simdgroup_store(score[j], own + (part + j * parts) * 8, 32);
        threadgroup_barrier(mem_flags::mem_threadgroup);
        if (active && part == 0) {
            const float less = attn_soften(scores + soft * 32, seen, a.scale, lane, most, total);
            if (lane % 4 == 0) shrink[soft] = less;
        }

        uint odd_slots = 0;
        UNROLL for (uint s = 0; s < ATTN_MAX_SLICES; s++) {
            if (s * ATTN_SLICE >= ATTN_DIM) continue;
            const uint mine = attn_stage(stage, values, s * ATTN_SLICE, n_slots, true, simd, lane);
            if (lane == 0) odd[simd] = mine;
            threadgroup_barrier(mem_flags::mem_threadgroup); /* of the weights as well */
            odd_slots |= odd[0] | odd[1] | odd[2] | odd[3];
            UNROLL for (uint c = 0; c < 4; c++) {
                const uint at = (part + c * parts) * 16;
                if (!active || at >= ATTN_SLICE || s * ATTN_SLICE + at >= ATTN_DIM) continue;
                attn_add(own, stage + at, n_eights, product, shrink + tile, sums + s * 16 + c * 4, lane);
            }
            threadgroup_barrier(mem_flags::mem_threadgroup);
        }
        /* Positions 0 .. seen - 1 of the block are this row's. */
        if (odd_slots != 0 && seen > 0 && (odd_slots & (0xffffffffu >> (32 - seen))) != 0) total = NAN;
    }

    if (active && part == 0 && lane % 4 == 0) shrink[soft] = total;
    threadgroup_barrier(mem_flags::mem_threadgroup);
    UNROLL for (uint c = 0; c < ATTN_MAX_SLICES * 4; c++) {
        const uint at = (part + c % 4 * parts) * 16 + lane % 16, i = c / 4 * ATTN_SLICE + at;
        if (!active || at >= ATTN_SLICE || i >= ATTN_DIM) continue;
        UNROLL for (uint r = 0; r < 4; r++) {
            const uint in_group = tile + lane / 16 * 4 + r, row = row0 + in_group;
            if (in_group >= n_rows) continue;
            const uint token = run_first + row / ATTN_GROUP, head = kv_head * ATTN_GROUP + row % ATTN_GROUP;
            out[((ulong)token * a.n_heads + head) * ATTN_DIM + i] = sums[c * 4 + r] / shrink[in_group];
        }
    }
}

#define ATTN_SIMDS 8 /* SIMD groups among which the vector kernel splits a sequence: block b goes to b % 8 */

/* Grid (n_heads, n_tokens), 256 threads. A SIMD group looks at four positions at once, eight lanes each, and joins the
 * states in the order of the SIMD groups. */
[[max_total_threads_per_threadgroup(256)]]
kernel void attention_vector(constant mtl_attention_args &a [[buffer(0)]], device const float *q [[buffer(1)]],
                             device const uchar *kv [[buffer(2)]], device const mtl_run *runs [[buffer(3)]],
                             device const int *tables [[buffer(4)]], device const int *row_run [[buffer(5)]],
                             device const int *positions [[buffer(6)]], device float *out [[buffer(7)]],
                             uint2 group [[threadgroup_position_in_grid]],
                             uint simd [[simdgroup_index_in_threadgroup]], uint lane [[thread_index_in_simdgroup]]) {
    threadgroup float partial[ATTN_SIMDS * MTL_MAX_HEAD_DIM];
    threadgroup float tops[ATTN_SIMDS], totals[ATTN_SIMDS];
    const uint head = group.x, row = group.y, kv_head = head / ATTN_GROUP, fourth = lane / 8, share = lane % 8;
    const int position = positions[row];
    const uint n_blocks = (uint)position / MTL_KV_BLOCK + 1;
    device const int *table = tables + runs[row_run[row]].table;
    device const float *x = q + ((ulong)row * a.n_heads + head) * ATTN_DIM;

    float4 query[MTL_MAX_HEAD_DIM / 32], sums[MTL_MAX_HEAD_DIM / 32];
    UNROLL for (uint c = 0; c < MTL_MAX_HEAD_DIM / 32; c++) {
        query[c] = sums[c] = float4(0.0f);
        UNROLL for (uint k = 0; k < 4; k++) {
            const uint i = (c * 8 + share) * 4 + k;
            if (c * 32 < ATTN_DIM && i < ATTN_DIM) query[c][k] = x[i];
        }
    }
    float most = -INFINITY, total = 0.0f;
    for (uint b = simd; b < n_blocks; b += ATTN_SIMDS) {
        const uint block = (uint)table[b], n = (uint)min(position + 1 - (int)b * MTL_KV_BLOCK, MTL_KV_BLOCK);
        device const uchar *keys =
            kv + kv_panel_at(ATTN_TYPE, ATTN_DIM, a.n_layers, a.n_kv_heads, block, a.layer, 0, kv_head);
        device const uchar *values =
            kv + kv_panel_at(ATTN_TYPE, ATTN_DIM, a.n_layers, a.n_kv_heads, block, a.layer, 1, kv_head);
        float own = -INFINITY; /* score of position 4 * share + fourth */
        for (uint k = 0; k < 8; k++) {
            const uint slot = 4 * k + fourth;
            float s = 0.0f;
            if (slot < n)
                UNROLL for (uint c = 0; c < MTL_MAX_HEAD_DIM / 32; c++) {
                    const uint i = (c * 8 + share) * 4;
                    if (c * 32 < ATTN_DIM && i < ATTN_DIM) {
                        const float4 v = kv_load4(keys, ATTN_TYPE, ATTN_DIM, slot, i);
                        s = fma(query[c].x, v.x, s);
                        s = fma(query[c].y, v.y, s);
                        s = fma(query[c].z, v.z, s);
                        s = fma(query[c].w, v.w, s);
                    }
                }
            s += simd_shuffle_xor(s, (ushort)4);
            s += simd_shuffle_xor(s, (ushort)2);
            s += simd_shuffle_xor(s, (ushort)1);
            if (k == share && slot < n) own = s * a.scale;
        }
        const float top = larger(most, simd_largest(own));
        const float weight = 4 * share + fourth < n ? precise::exp(own - top) : 0.0f;
        const float less = most == -INFINITY ? 0.0f : precise::exp(most - top);
        total = fma(total, less, simd_total(weight));
        most = top;
        UNROLL for (uint c = 0; c < MTL_MAX_HEAD_DIM / 32; c++) sums[c] *= less;
        for (uint k = 0; k < 8; k++) {
            const uint slot = 4 * k + fourth;
            const float w = simd_shuffle(weight, (ushort)(fourth * 8 + k));
            if (slot < n)
                UNROLL for (uint c = 0; c < MTL_MAX_HEAD_DIM / 32; c++) {
                    const uint i = (c * 8 + share) * 4;
                    if (c * 32 < ATTN_DIM && i < ATTN_DIM) {
                        const float4 v = kv_load4(values, ATTN_TYPE, ATTN_DIM, slot, i);
                        sums[c] = float4(fma(w, v.x, sums[c].x), fma(w, v.y, sums[c].y), fma(w, v.z, sums[c].z),
                                         fma(w, v.w, sums[c].w));
                    }
                }
        }
    }
    UNROLL for (uint c = 0; c < MTL_MAX_HEAD_DIM / 32; c++) {
        if (c * 32 >= ATTN_DIM) continue;
        UNROLL for (uint k = 0; k < 4; k++) {
            float v = sums[c][k];
            v += simd_shuffle_xor(v, (ushort)8);
            v += simd_shuffle_xor(v, (ushort)16);
            if (fourth == 0) partial[simd * MTL_MAX_HEAD_DIM + (c * 8 + share) * 4 + k] = v;
        }
    }
    if (lane == 0) {
        tops[simd] = most;
        totals[simd] = total;
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    const uint i = simd * 32 + lane, n_used = min(n_blocks, (uint)ATTN_SIMDS);
    if (i >= ATTN_DIM) return;
    float top = tops[0], sum = 0.0f, v = 0.0f;
    for (uint s = 1; s < n_used; s++) top = larger(top, tops[s]);
    for (uint s = 0; s < n_used; s++) {
        const float less = precise::exp(tops[s] - top);
        sum = fma(totals[s], less, sum);
        v = fma(partial[s * MTL_MAX_HEAD_DIM + i], less, v);
    }
    out[((ulong)row * a.n_heads + head) * ATTN_DIM + i] = v / sum;
}
