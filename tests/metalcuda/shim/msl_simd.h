/* MSL on CUDA: barriers, what a SIMD-group (a warp) does together, matrices. In place of the fake Metal's header of this name.
 * All 32 lanes take part in everything; a SIMD-group of fewer is refused by the host. */
#pragma once
#ifndef MSL_SKIP_LINE
#define MSL_SKIP_LINE -1                /* barriers of this source line do nothing: is the race then seen? */
#endif
namespace metal {
enum class mem_flags { mem_none = 0, mem_device = 1, mem_threadgroup = 2, mem_texture = 4 };
constexpr mem_flags operator|(mem_flags a, mem_flags b) { return (mem_flags)((int)a | (int)b); }
MSL_INLINE void threadgroup_barrier(mem_flags, int line = __builtin_LINE()) { if (line != MSL_SKIP_LINE) __syncthreads(); }
MSL_INLINE void simdgroup_barrier(mem_flags, int line = __builtin_LINE()) { if (line != MSL_SKIP_LINE) __nvvm_bar_warp_sync(0xffffffffu); }
MSL_INLINE unsigned msl_lane() { return __nvvm_read_ptx_sreg_laneid(); }

/* Values of any size go word by word. */
template<class T, class F> MSL_TEMPLATE T msl_words(T v, F f) {
    constexpr int n = (sizeof(T) + 3) / 4;
    int w[n] = {};
    __builtin_memcpy(w, &v, sizeof v);
    for (int i = 0; i < n; i++) w[i] = f(w[i]);
    T r;
    __builtin_memcpy(&r, w, sizeof r);
    return r;
}
template<class T> MSL_TEMPLATE T simd_shuffle(T v, ushort l) { return msl_words(v, [=](int x) { return __nvvm_shfl_sync_idx_i32(0xffffffffu, x, l, 31); }); }
template<class T> MSL_TEMPLATE T simd_shuffle_xor(T v, ushort m) { return msl_words(v, [=](int x) { return __nvvm_shfl_sync_bfly_i32(0xffffffffu, x, m, 31); }); }
template<class T> MSL_TEMPLATE T simd_shuffle_down(T v, ushort d) { return msl_words(v, [=](int x) { return __nvvm_shfl_sync_down_i32(0xffffffffu, x, d, 31); }); }
template<class T> MSL_TEMPLATE T simd_shuffle_up(T v, ushort d) { return msl_words(v, [=](int x) { return __nvvm_shfl_sync_up_i32(0xffffffffu, x, d, 0); }); }
template<class T> MSL_TEMPLATE T simd_broadcast(T v, ushort l) { return simd_shuffle(v, l); }
template<class T> MSL_TEMPLATE T simd_broadcast_first(T v) { return simd_shuffle(v, (ushort)0); }
template<class T> MSL_TEMPLATE T quad_shuffle_xor(T v, ushort m) { return simd_shuffle_xor(v, m); }
/* neighbours first, then pairs, ...: the fake Metal's order */
#define MSL_REDUCE(name, expr) template<class T> MSL_TEMPLATE T name(T v) { \
    for (ushort d = 1; d < 32; d = (ushort)(2 * d)) { const T o = simd_shuffle_xor(v, d), a = (msl_lane() & d) ? o : v, b = (msl_lane() & d) ? v : o; v = (T)(expr); } return v; }
MSL_REDUCE(simd_sum, a + b)
MSL_REDUCE(simd_product, a * b)
MSL_REDUCE(simd_max, max(a, b))
MSL_REDUCE(simd_min, min(a, b))
MSL_REDUCE(simd_and, a & b)
MSL_REDUCE(simd_or, a | b)
MSL_REDUCE(simd_xor, a ^ b)
MSL_INLINE bool simd_all(bool v) { return simd_and((int)v) != 0; }
MSL_INLINE bool simd_any(bool v) { return simd_or((int)v) != 0; }

/* A matrix of 8x8: two neighbours of a row in each lane. Products are plain fused multiply-adds, k in order from 0, one rounding
 * each, as on the fake Metal: no tensor cores, which round otherwise. */
MSL_INLINE unsigned msl_mrow(unsigned l) { return ((l >> 2) & 4) | ((l >> 1) & 3); }
MSL_INLINE unsigned msl_mcol(unsigned l) { return ((l >> 1) & 4) | ((l & 1) << 1); }
MSL_INLINE unsigned msl_mlane(unsigned row, unsigned col) { return (row & 4) << 2 | (col & 4) << 1 | (row & 3) << 1 | (col & 2) >> 1; }
template<class T, int Cols, int Rows> struct simdgroup_matrix {
    static_assert(Cols == 8 && Rows == 8, "simdgroup_matrix is 8x8");
    static_assert(msl::same<T, float>::v || msl::same<T, half>::v, "simdgroup_matrix of float or half");
    typedef T storage_type __attribute__((ext_vector_type(2)));
    storage_type e;
    MSL_TEMPLATE simdgroup_matrix() : e(storage_type{(T)NAN, (T)NAN}) {}
    MSL_TEMPLATE explicit simdgroup_matrix(T d) {
        const unsigned r = msl_mrow(msl_lane()), c = msl_mcol(msl_lane());
        e = storage_type{r == c ? d : (T)0, r == c + 1 ? d : (T)0};
    }
    MSL_TEMPLATE storage_type &thread_elements() { return e; }
};
typedef simdgroup_matrix<float, 8, 8> simdgroup_float8x8;
typedef simdgroup_matrix<half, 8, 8> simdgroup_half8x8;
template<class T, int C, int R> MSL_TEMPLATE simdgroup_matrix<T, C, R> make_filled_simdgroup_matrix(T v) { simdgroup_matrix<T, C, R> r; r.e = {v, v}; return r; }
template<class T, int N> MSL_TEMPLATE simdgroup_matrix<T, N, N> make_filled_simdgroup_matrix(T v) { return make_filled_simdgroup_matrix<T, N, N>(v); }
template<class T, int C, int R = C> MSL_TEMPLATE simdgroup_matrix<T, C, R> make_diagonal_simdgroup_matrix(T v) { return simdgroup_matrix<T, C, R>(v); }
template<class T, class P> MSL_TEMPLATE void simdgroup_load(simdgroup_matrix<T, 8, 8> &d, P src, ulong ld = 8, ulong2 org = ulong2{0, 0}, bool transpose = false) {
    static_assert(sizeof(src[0]) == sizeof(T), "simdgroup_load from another element type");
    const unsigned r = msl_mrow(msl_lane()), c = msl_mcol(msl_lane());
    P p = src + org.y * ld + org.x;
    if (transpose) d.e = {(T)p[c * ld + r], (T)p[(c + 1) * ld + r]};
    else d.e = {(T)p[r * ld + c], (T)p[r * ld + c + 1]};
}
template<class T, class P> MSL_TEMPLATE void simdgroup_store(const simdgroup_matrix<T, 8, 8> &d, P dst, ulong ld = 8, ulong2 org = ulong2{0, 0}, bool transpose = false) {
    static_assert(sizeof(dst[0]) == sizeof(T), "simdgroup_store to another element type");
    const unsigned r = msl_mrow(msl_lane()), c = msl_mcol(msl_lane());
    P p = dst + org.y * ld + org.x;
    if (transpose) { p[c * ld + r] = d.e.x; p[(c + 1) * ld + r] = d.e.y; }
    else { p[r * ld + c] = d.e.x; p[r * ld + c + 1] = d.e.y; }
}
template<class D, class A, class B, class C> MSL_TEMPLATE void simdgroup_multiply_accumulate(simdgroup_matrix<D, 8, 8> &d, const simdgroup_matrix<A, 8, 8> &a, const simdgroup_matrix<B, 8, 8> &b, const simdgroup_matrix<C, 8, 8> &c) {
    const unsigned row = msl_mrow(msl_lane()), col = msl_mcol(msl_lane());
    float x = (float)c.e.x, y = (float)c.e.y;
    for (unsigned k = 0; k < 8; k++) {
        const unsigned from_a = msl_mlane(row, k & 6), from_b = msl_mlane(k, col);
        const float w = simd_shuffle((float)(k & 1 ? a.e.y : a.e.x), (ushort)from_a);
        x = __builtin_fmaf(w, simd_shuffle((float)b.e.x, (ushort)from_b), x);
        y = __builtin_fmaf(w, simd_shuffle((float)b.e.y, (ushort)from_b), y);
    }
    d.e = {(D)x, (D)y};
}
template<class D, class A, class B> MSL_TEMPLATE void simdgroup_multiply(simdgroup_matrix<D, 8, 8> &d, const simdgroup_matrix<A, 8, 8> &a, const simdgroup_matrix<B, 8, 8> &b) {
    simdgroup_multiply_accumulate(d, a, b, make_filled_simdgroup_matrix<D, 8, 8>((D)0));
}
} /* metal */
