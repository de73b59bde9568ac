/*
 * head.metal - what is wanted of the output head's logits: log-sum-exp, log-probabilities of targets, the k best. Two
 * steps: a threadgroup for each 2,048 logits of a row keeps them in registers and leaves their maximum, the sum of
 * exponentials and the best; a threadgroup a row joins these. The logits are read once (and those of targets again).
 * Every order depends on the vocabulary's size alone.
 */

#define HEAD_CHUNK 2048
#define HEAD_EACH (HEAD_CHUNK / 256)
#define HEAD_NOBODY 0x7fffffff /* id of a place for which there is no logit */

/* Ties go to the lower id. */
static inline bool head_better(float a, int a_id, float b, int b_id) { return a > b || (a == b && a_id < b_id); }

/* The best of a threadgroup of 256, in all of its threads. `values` and `ids` hold 8 each and are not to be written
 * before the next barrier. */
static inline void head_best(thread float &value, thread int &id, threadgroup float *values, threadgroup int *ids,
                             uint simd, uint lane) {
    for (uint d = 16; d > 0; d /= 2) {
        const float other = simd_shuffle_xor(value, (ushort)d);
        const int other_id = simd_shuffle_xor(id, (ushort)d);
        if (head_better(other, other_id, value, id)) {
            value = other;
            id = other_id;
        }
    }
    if (lane == 0) {
        values[simd] = value;
        ids[simd] = id;
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (uint i = 0; i < 8; i++)
        if (head_better(values[i], ids[i], value, id)) {
            value = values[i];
            id = ids[i];
        }
}

/* Grid (chunks, rows), 256 threads. stats: (rows, chunks, 2) maximum and sum of e^(x - maximum); best: (rows, chunks,
 * n_top) bits of the value, id. A NaN makes the sum one, and counts as the least among the best. */
[[max_total_threads_per_threadgroup(256)]]
kernel void head_chunks(constant mtl_head_args &a [[buffer(0)]], device const float *logits [[buffer(1)]],
                        device float *stats [[buffer(2)]], device uint2 *best [[buffer(3)]],
                        uint2 group [[threadgroup_position_in_grid]], uint simd [[simdgroup_index_in_threadgroup]],
                        uint lane [[thread_index_in_simdgroup]]) {
    threadgroup float values[2 * 8];
    threadgroup int ids[2 * 8];
    const uint from = group.x * HEAD_CHUNK + simd * 32 + lane, at = group.y * a.n_chunks + group.x;
    device const float *row = logits + (ulong)group.y * a.stride;
    float x[HEAD_EACH], top = -INFINITY, sum = 0.0f;
    UNROLL for (uint k = 0; k < HEAD_EACH; k++) {
        x[k] = from + 256 * k < a.n_vocab ? row[from + 256 * k] : -INFINITY;
        top = larger(top, x[k]);
    }
    top = group_largest(top, values, simd, 8, lane);
    const float base = top == -INFINITY ? 0.0f : top;
    UNROLL for (uint k = 0; k < HEAD_EACH; k++) sum += precise::exp(x[k] - base);
    sum = group_total(sum, values, simd, 8, lane);
    if (simd == 0 && lane == 0) {
        stats[2 * at] = top;
        stats[2 * at + 1] = sum;
    }
    float last = INFINITY;
    int last_id = -1;
    for (uint t = 0; t < a.n_top; t++) {
        float value = -INFINITY;
        int id = HEAD_NOBODY;
        UNROLL for (uint k = 0; k < HEAD_EACH; k++) {
            const int own_id = (int)(from + 256 * k);
            const float own = x[k] != x[k] ? -INFINITY : x[k];
            if ((uint)own_id < a.n_vocab && head_better(last, last_id, own, own_id) &&
                head_better(own, own_id, value, id)) {
                value = own;
                id = own_id;
            }
        }
        head_best(value, id, values + t % 2 * 8, ids + t % 2 * 8, simd, lane);
        if (simd == 0 && lane == 0) best[(ulong)at * a.n_top + t] = uint2(as_type<uint>(value), (uint)id);
        last = value;
        last_id = id;
    }
}

#define HEAD_LSE FC0 /* what is wanted: log-sum-exp; targets; log-probabilities of the best */
#define HEAD_TARGETS FC1
#define HEAD_TOP_LOGPROBS FC2

/* Grid (rows), 256 threads, at most 256 chunks. starts: (rows + 1), counted from first_target, where the targets and
 * their output begin. The list of a chunk is in order: each
 * thread holds the head of one. A log-probability is (x - maximum) - log(sum): nothing is lost for large logits. */
[[max_total_threads_per_threadgroup(256)]]
kernel void head_join(constant mtl_head_args &a [[buffer(0)]], device const float *logits [[buffer(1)]],
                      device const float *stats [[buffer(2)]], device const uint2 *best [[buffer(3)]],
                      device const int *starts [[buffer(4)]], device const int *targets [[buffer(5)]],
                      device float *lse [[buffer(6)]], device float *target_logprobs [[buffer(7)]],
                      device int *top_ids [[buffer(8)]], device float *top_logprobs [[buffer(9)]],
                      uint row [[threadgroup_position_in_grid]], uint simd [[simdgroup_index_in_threadgroup]],
                      uint lane [[thread_index_in_simdgroup]]) {
    threadgroup float values[2 * 8];
    threadgroup int ids[2 * 8];
    const uint chunk = simd * 32 + lane, at = row * a.n_chunks + chunk;
    float top = -INFINITY, sum = 0.0f;
    if (chunk < a.n_chunks) {
        top = stats[2 * at];
        sum = stats[2 * at + 1];
    }
    float base = group_largest(top, values, simd, 8, lane);
    if (base == -INFINITY) base = 0.0f;
    const float log_sum = precise::log(group_total(sum * precise::exp(top - base), values, simd, 8, lane));
    if (HEAD_LSE != 0 && chunk == 0) lse[row] = base + log_sum;
    if (HEAD_TARGETS != 0)
        for (uint t = (uint)starts[row] - a.first_target + chunk; t < (uint)starts[row + 1] - a.first_target; t += 256)
            target_logprobs[t] = (logits[(ulong)row * a.stride + (uint)targets[t]] - base) - log_sum;
    uint next = 0;
    for (uint t = 0; t < a.n_top; t++) {
        float value = -INFINITY;
        int id = HEAD_NOBODY;
        if (chunk < a.n_chunks && next < a.n_top) {
            const uint2 own = best[(ulong)at * a.n_top + next];
            value = as_type<float>(own.x);
            id = (int)own.y;
        }
        const int own_id = id;
        head_best(value, id, values + t % 2 * 8, ids + t % 2 * 8, simd, lane);
        if (own_id == id) next++;
        if (chunk == 0) {
            top_ids[row * a.n_top + t] = id == HEAD_NOBODY ? -1 : id;
            if (HEAD_TOP_LOGPROBS != 0)
                top_logprobs[row * a.n_top + t] = id == HEAD_NOBODY ? -INFINITY : (value - base) - log_sum;
        }
    }
}
