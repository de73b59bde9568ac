/*
 * sample.metal - sampling on the device, as src/engine/sampler.c does it on the host: temperature, top_k (ties stay),
 * top_p (of equal ones at the border the lower ids stay), min_p, then a draw along ascending ids with the same Philox
 * counters. Scores are the same f32 numbers; sums of probabilities are f32 here, so a choice can differ where a border
 * of top_p, min_p or of the draw falls within their rounding.
 *
 * One threadgroup a row. With a top_k of at most 512 few candidates are left: the k-th largest of the threads' maxima
 * is a bound for them. They are listed in threadgroup memory and looked at by all. Otherwise the whole row is gone
 * through again and again, each thread taking a stretch of ids, and borders are found bit by bit.
 */

#define SAMPLE_THREADS 512
#define SAMPLE_SIMDS (SAMPLE_THREADS / 32)
#define SAMPLE_LIST 1024

/* The first two of the four words of sill__philox. */
static inline uint2 sample_philox(uint4 keys, uint sequence, uint step) { /* seed low, high; row key low, high */
    uint k0 = keys.x, k1 = keys.y, c0 = step, c1 = sequence, c2 = keys.z, c3 = keys.w;
    for (uint round = 0; round < 10; round++) {
        const uint high0 = mulhi(0xD2511F53u, c0), low0 = 0xD2511F53u * c0;
        const uint high1 = mulhi(0xCD9E8D57u, c2), low1 = 0xCD9E8D57u * c2;
        c0 = high1 ^ c1 ^ k0;
        c1 = low1;
        c2 = high0 ^ c3 ^ k1;
        c3 = low0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return uint2(c0, c1);
}

/* A row's uniform number times `whole`: 48 of its 53 bits in two parts. */
static inline float sample_mark(device const mtl_sample_row *row, float whole) {
    const uint2 r =
        sample_philox(uint4(row->seed_low, row->seed_high, row->key_low, row->key_high), row->sequence, row->step);
    const float high = (float)(r.x >> 8) * 5.9604644775390625e-8f;                                /* 2^-24 */
    const float low = (float)(((r.x & 255u) << 16) | (r.y >> 16)) * 3.552713678800501e-15f; /* 2^-48 */
    return fma(high, whole, low * whole);
}

/* Numbers whose order is that of the scores. */
static inline uint sample_key(float score) {
    const uint bits = as_type<uint>(score + 0.0f);
    return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}

/* Sum over all threads before this one, and over all. */
static inline float sample_before(float v, threadgroup float *part, uint simd, uint lane, thread float &all) {
    float sum = v;
    for (uint d = 1; d < 32; d *= 2) {
        const float left = simd_shuffle_up(sum, (ushort)d);
        if (lane >= d) sum += left;
    }
    float before = simd_shuffle_up(sum, (ushort)1);
    if (lane == 0) before = 0.0f;
    if (lane == 31) part[simd] = sum;
    threadgroup_barrier(mem_flags::mem_threadgroup);
    float base = 0.0f, total = 0.0f;
    for (uint i = 0; i < SAMPLE_SIMDS; i++) {
        if (i == simd) base = total;
        total += part[i];
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    all = total;
    return base + before;
}

/* A row of logits as scores behind the temperature. */
struct sample_scores {
    device const float *logits;
    float from, temperature, best;
};
static inline float sample_score(thread const sample_scores &s, uint i) { return (s.logits[i] - s.from) / s.temperature; }
static inline float sample_weight(thread const sample_scores &s, float score) {
    return score == -INFINITY ? 0.0f : precise::exp(score - s.best);
}

/* The largest key that candidates of `need` mass (or number: by_mass false) reach or exceed; 0 where all do not. Only
 * candidates with keys of `least` and more count. [lo, hi): this thread's. Three bits a pass. */
static inline uint sample_border(thread const sample_scores &s, uint lo, uint hi, uint least, float need, bool by_mass,
                                 threadgroup float *part, uint simd, uint lane) {
    uint key = 0;
    for (int shift = 30; shift >= 0; shift -= 3) { /* of 32 bits: two, then ten times three */
        float mass[7];
        UNROLL for (uint d = 0; d < 7; d++) mass[d] = 0.0f;
        for (uint i = lo; i < hi; i++) {
            const float score = sample_score(s, i);
            const uint own = sample_key(score);
            if (score == -INFINITY || own < least || own < key) continue;
            const float weight = by_mass ? sample_weight(s, score) : 1.0f;
            const uint digit = (own - key) >> shift;
            UNROLL for (uint d = 0; d < 7; d++)
                if (digit > d) mass[d] += weight;
        }
        uint digit = 0;
        UNROLL for (uint d = 0; d < 7; d++) {
            const float all = group_total(mass[d], part, simd, SAMPLE_SIMDS, lane);
            if (all >= need && (shift < 30 || d < 3)) digit = d + 1;
        }
        key += digit << shift;
    }
    return key;
}

static inline void sample_tell(constant mtl_sample_args &a, device int *ids, device float *logprobs, uint row, int id,
                               float x, float highest, float log_sum) {
    ids[row] = id;
    if (a.want_logprobs != 0) logprobs[row] = id < 0 ? NAN : (x - highest) - log_sum;
}

/* Grid (rows), 512 threads. The id is -1 where a logit is NaN or
 * +infinity, -2 where no token is left; logprobs are of the whole distribution, before the filters. */
[[max_total_threads_per_threadgroup(SAMPLE_THREADS)]]
kernel void sample_rows(constant mtl_sample_args &a [[buffer(0)]], device const float *logits [[buffer(1)]],
                   device const mtl_sample_row *rows [[buffer(2)]], device int *ids [[buffer(3)]],
                   device float *logprobs [[buffer(4)]], uint row [[threadgroup_position_in_grid]],
                   uint simd [[simdgroup_index_in_threadgroup]], uint lane [[thread_index_in_simdgroup]]) {
    threadgroup float part[SAMPLE_SIMDS];
    threadgroup float maxima[SAMPLE_THREADS];
    threadgroup float list[SAMPLE_LIST], weights[SAMPLE_LIST], left[SAMPLE_LIST];
    threadgroup uint list_ids[SAMPLE_LIST];
    const uint at = simd * 32 + lane, n = a.n_vocab;
    device const mtl_sample_row *o = rows + row;
    device const float *x = logits + (ulong)row * n;

    /* The largest logit, and whether all are numbers. */
    float own = -INFINITY;
    for (uint i = at; i < n; i += SAMPLE_THREADS) own = larger(own, x[i]);
    const float highest = group_largest(own, part, simd, SAMPLE_SIMDS, lane);
    if (!(highest < INFINITY) || highest == -INFINITY) {
        if (at == 0) sample_tell(a, ids, logprobs, row, highest == -INFINITY ? -2 : -1, 0.0f, 0.0f, 0.0f);
        return;
    }
    float log_sum = 0.0f;
    if (a.want_logprobs != 0) {
        float sum = 0.0f;
        for (uint i = at; i < n; i += SAMPLE_THREADS) sum += precise::exp(x[i] - highest);
        log_sum = precise::log(group_total(sum, part, simd, SAMPLE_SIMDS, lane));
    }
    /* Where the best quotient would overflow, the scores count from the best one. */
    sample_scores s;
    s.logits = x;
    s.temperature = o->temperature;
    s.from = fabs(highest / s.temperature) < INFINITY ? 0.0f : highest;
    s.best = (highest - s.from) / s.temperature;
    const uint each = (n + SAMPLE_THREADS - 1) / SAMPLE_THREADS, lo = min(at * each, n), hi = min(lo + each, n);
    const bool want_top_k = o->top_k > 0 && (uint)o->top_k < n;
    const float top_p = o->top_p, min_p = o->min_p;

    /* Few candidates: list them, in the order of their ids. */
    uint n_list = 0;
    if (want_top_k && o->top_k <= SAMPLE_THREADS) {
        maxima[at] = own;
        threadgroup_barrier(mem_flags::mem_threadgroup);
        uint before = 0;
        for (uint i = 0; i < SAMPLE_THREADS; i++)
            if (maxima[i] > own || (maxima[i] == own && i < at)) before++;
        if (before == (uint)o->top_k - 1) left[0] = own; /* one thread's */
        threadgroup_barrier(mem_flags::mem_threadgroup);
        const float bound = (left[0] - s.from) / s.temperature; /* of scores: two logits can give the same one */
        uint count = 0;
        for (uint i = lo; i < hi; i++)
            if (sample_score(s, i) >= bound && sample_score(s, i) > -INFINITY) count++;
        float all;
        uint to = (uint)sample_before((float)count, part, simd, lane, all);
        if (all <= (float)SAMPLE_LIST) {
            n_list = (uint)all;
            for (uint i = lo; i < hi; i++)
                if (sample_score(s, i) >= bound && sample_score(s, i) > -INFINITY) {
                    list[to] = sample_score(s, i);
                    list_ids[to++] = i;
                }
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);
    }
    if (n_list > 0) {
        for (uint i = at; i < n_list; i += SAMPLE_THREADS) {
            uint above = 0;
            for (uint j = 0; j < n_list; j++)
                if (list[j] > list[i]) above++;
            weights[i] = above < (uint)o->top_k ? sample_weight(s, list[i]) : -1.0f;
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);
        float whole = 0.0f;
        for (uint j = 0; j < n_list; j++)
            if (weights[j] >= 0.0f) whole += weights[j];
        for (uint i = at; i < n_list; i += SAMPLE_THREADS) {
            float above = 0.0f, weight = weights[i];
            uint equal = 0; /* those before it */
            for (uint j = 0; j < n_list; j++) {
                if (list[j] > list[i]) above += max(weights[j], 0.0f);
                if (list[j] == list[i] && j < i) equal++;
            }
            if (top_p < 1.0f && above + (float)equal * weight >= top_p * whole && (equal > 0 || above > 0.0f)) weight = -1.0f;
            if (weight < min_p) weight = -1.0f;
            left[i] = weight;
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);
        if (at != 0) return;
        float sum = 0.0f;
        for (uint j = 0; j < n_list; j++) sum += max(left[j], 0.0f);
        const float mark = sample_mark(o, sum);
        uint chosen = 0;
        sum = 0.0f;
        for (uint j = 0; j < n_list; j++) {
            if (!(left[j] > 0.0f)) continue;
            chosen = j;
            sum += left[j];
            if (mark < sum) break;
        }
        const uint id = list_ids[chosen];
        sample_tell(a, ids, logprobs, row, (int)id, x[id], highest, log_sum);
        return;
    }

    /* Many: borders as keys. */
    uint least = 0;
    if (want_top_k) least = sample_border(s, lo, hi, 0, (float)o->top_k, false, part, simd, lane);
    float border = -INFINITY, stay = 0.0f;
    if (top_p < 1.0f) {
        float sum = 0.0f;
        for (uint i = lo; i < hi; i++) {
            const float score = sample_score(s, i);
            if (sample_key(score) >= least) sum += sample_weight(s, score);
        }
        const float need = top_p * group_total(sum, part, simd, SAMPLE_SIMDS, lane);
        const uint key = sample_border(s, lo, hi, least, need, true, part, simd, lane);
        float above = 0.0f, equal = 0.0f, value = -INFINITY;
        for (uint i = lo; i < hi && key > 0; i++) {
            const float score = sample_score(s, i);
            const uint own_key = sample_key(score);
            if (own_key < least || score == -INFINITY) continue;
            if (own_key > key) above += sample_weight(s, score);
            if (own_key == key) {
                equal += 1.0f;
                value = score;
            }
        }
        above = group_total(above, part, simd, SAMPLE_SIMDS, lane);
        equal = group_total(equal, part, simd, SAMPLE_SIMDS, lane);
        border = group_largest(value, part, simd, SAMPLE_SIMDS, lane);
        const float weight = sample_weight(s, border);
        while (stay < equal && (above + stay * weight < need || (stay == 0.0f && above == 0.0f))) stay += 1.0f;
    }
    /* Twice along the own stretch: its mass, then the one that the mark falls on. */
    float ties = 0.0f, nothing;
    if (border > -INFINITY) {
        for (uint i = lo; i < hi; i++)
            if (sample_score(s, i) == border) ties += 1.0f;
        ties = sample_before(ties, part, simd, lane, nothing);
    }
    float sum = 0.0f, whole = 0.0f, tie = ties;
    int last = -1;
    for (uint i = lo; i < hi; i++) {
        const float score = sample_score(s, i), weight = sample_weight(s, score);
        if (sample_key(score) < least || score < border || weight < min_p || !(weight > 0.0f)) continue;
        if (border > -INFINITY && score == border && !(tie++ < stay)) continue;
        sum += weight;
        last = (int)i;
    }
    const float before = sample_before(sum, part, simd, lane, whole), mark = sample_mark(o, whole);
    int id = HEAD_NOBODY;
    if (last >= 0 && mark < before + sum) {
        float along = before;
        tie = ties;
        id = last;
        for (uint i = lo; i < hi; i++) {
            const float score = sample_score(s, i), weight = sample_weight(s, score);
            if (sample_key(score) < least || score < border || weight < min_p || !(weight > 0.0f)) continue;
            if (border > -INFINITY && score == border && !(tie++ < stay)) continue;
            along += weight;
            if (mark < along) {
                id = (int)i;
                break;
            }
        }
    }
    /* The first thread's; where rounding leaves none, the last id of all. */
    int first = id, end_id = last;
    for (uint d = 16; d > 0; d /= 2) {
        first = min(first, simd_shuffle_xor(first, (ushort)d));
        end_id = max(end_id, simd_shuffle_xor(end_id, (ushort)d));
    }
    if (lane == 0) {
        list_ids[simd] = (uint)first;
        list_ids[SAMPLE_SIMDS + simd] = (uint)(end_id + 1);
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    if (at != 0) return;
    uint chosen = HEAD_NOBODY, end = 0;
    for (uint i = 0; i < SAMPLE_SIMDS; i++) {
        chosen = min(chosen, list_ids[i]);
        end = max(end, list_ids[SAMPLE_SIMDS + i]);
    }
    if (chosen == HEAD_NOBODY) chosen = end - 1;
    sample_tell(a, ids, logprobs, row, (int)chosen, x[chosen], highest, log_sum);
}
