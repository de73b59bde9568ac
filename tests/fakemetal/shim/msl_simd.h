/* MSL on the CPU: barriers, what a SIMD-group does together, matrices, atomics. */
#pragma once
namespace metal {
enum class mem_flags { mem_none = 0, mem_device = 1, mem_threadgroup = 2, mem_texture = 4 };
constexpr mem_flags operator|(mem_flags a, mem_flags b) { return (mem_flags)((int)a | (int)b); }
MSL_INLINE void threadgroup_barrier(mem_flags f, int line = __builtin_LINE()) { msl_w()->rt->barrier(msl_w(), (unsigned)f, line); }
MSL_INLINE void simdgroup_barrier(mem_flags f, int line = __builtin_LINE()) { msl_w()->rt->simd_barrier(msl_w(), (unsigned)f, line); }

/* Every lane puts its value down, and the last to arrive works for all of them. Two sets of slots take turns: a lane can be one
 * operation ahead of another, never two. */
template<class T, class F> MSL_TEMPLATE T msl_collect(T v, int op, int line, F f) {
    static_assert(sizeof(T) <= 16, "a SIMD-group operation on more than 16 bytes");
    msl_worker *w = msl_w(); msl_thread *t = w->t; msl_sg &s = w->sg[t->sg];
    const unsigned par = t->par, lane = t->lane; t->par = (unsigned char)(par ^ 1);
    __builtin_memcpy(s.slot[par][lane], &v, sizeof v);
    if (w->rt->meet(w, op, line)) {
        T r = f(s.slot[par], s.lanes);
        __builtin_memcpy(s.res[par], &r, sizeof r);
    }
    T r; __builtin_memcpy(&r, s.res[par], sizeof r);
    return r;
}
typedef unsigned char msl_slots[32][16];
template<class T> MSL_TEMPLATE T msl_slot(const msl_slots &s, unsigned i) { T v; __builtin_memcpy(&v, s[i], sizeof v); return v; }
/* a reduction: neighbours first, then pairs, ... */
template<class T, class F> MSL_TEMPLATE T msl_tree(const msl_slots &s, unsigned lanes, F f) {
    T a[32]; unsigned n = 0;
    for (unsigned i = 0; i < 32; i++) if (lanes >> i & 1) a[n++] = msl_slot<T>(s, i);
    for (unsigned w = 1; w < n; w *= 2) for (unsigned i = 0; i + w < n; i += 2 * w) a[i] = f(a[i], a[i + w]);
    return a[0];
}
#define MSL_REDUCE(name, OP, expr) template<class T> MSL_TEMPLATE T name(T v, int line = __builtin_LINE()) { \
    return msl_collect(v, MSL_OP_##OP, line, [](const msl_slots &s, unsigned l) { return msl_tree<T>(s, l, [](T a, T b) { return (T)(expr); }); }); }
MSL_REDUCE(simd_sum, SUM, a + b)
MSL_REDUCE(simd_product, PRODUCT, a * b)
MSL_REDUCE(simd_max, MAX, max(a, b))
MSL_REDUCE(simd_min, MIN, min(a, b))
MSL_REDUCE(simd_and, AND, a & b)
MSL_REDUCE(simd_or, OR, a | b)
MSL_REDUCE(simd_xor, XOR, a ^ b)
MSL_INLINE bool simd_all(bool v, int line = __builtin_LINE()) { return msl_collect((int)v, MSL_OP_ALL, line, [](const msl_slots &s, unsigned l) { return msl_tree<int>(s, l, [](int a, int b) { return a & b; }); }); }
MSL_INLINE bool simd_any(bool v, int line = __builtin_LINE()) { return msl_collect((int)v, MSL_OP_ANY, line, [](const msl_slots &s, unsigned l) { return msl_tree<int>(s, l, [](int a, int b) { return a | b; }); }); }
struct simd_vote { typedef ulong vote_t; vote_t v; explicit simd_vote(vote_t x = 0) : v(x) {} explicit operator vote_t() const { return v; } bool all() const { return v == 0xffffffffu; } bool any() const { return v != 0; } };
MSL_INLINE simd_vote simd_ballot(bool v, int line = __builtin_LINE()) {
    return simd_vote(msl_collect((ulong)v, MSL_OP_BALLOT, line, [](const msl_slots &s, unsigned l) { ulong r = 0; for (unsigned i = 0; i < 32; i++) if (l >> i & 1) r |= msl_slot<ulong>(s, i) << i; return r; }));
}
/* the same, each lane taking a value of its own out of the slots */
template<class T, class F> MSL_TEMPLATE T msl_exchange(T v, int op, int line, F from) {
    static_assert(sizeof(T) <= 16, "a SIMD-group operation on more than 16 bytes");
    msl_worker *w = msl_w(); msl_thread *t = w->t; msl_sg &s = w->sg[t->sg];
    const unsigned par = t->par, lane = t->lane; t->par = (unsigned char)(par ^ 1);
    __builtin_memcpy(s.slot[par][lane], &v, sizeof v);
    (void)w->rt->meet(w, op, line);
    const unsigned i = from(lane);
    if (i > 31 || !(s.lanes >> i & 1)) { T r; __builtin_memset(&r, 0xff, sizeof r); return r; }   /* undefined: a NaN */
    return msl_slot<T>(s.slot[par], i);
}
template<class T> MSL_TEMPLATE T simd_shuffle(T v, ushort l, int line = __builtin_LINE()) { return msl_exchange(v, MSL_OP_SHUFFLE, line, [=](unsigned) { return (unsigned)l; }); }
template<class T> MSL_TEMPLATE T simd_shuffle_xor(T v, ushort m, int line = __builtin_LINE()) { return msl_exchange(v, MSL_OP_SHUFFLE_XOR, line, [=](unsigned i) { return i ^ m; }); }
template<class T> MSL_TEMPLATE T simd_shuffle_down(T v, ushort d, int line = __builtin_LINE()) { return msl_exchange(v, MSL_OP_SHUFFLE_DOWN, line, [=](unsigned i) { return i + d; }); }
template<class T> MSL_TEMPLATE T simd_shuffle_up(T v, ushort d, int line = __builtin_LINE()) { return msl_exchange(v, MSL_OP_SHUFFLE_UP, line, [=](unsigned i) { return i - d; }); }
template<class T> MSL_TEMPLATE T simd_broadcast(T v, ushort l, int line = __builtin_LINE()) { return msl_exchange(v, MSL_OP_BROADCAST, line, [=](unsigned) { return (unsigned)l; }); }
template<class T> MSL_TEMPLATE T simd_broadcast_first(T v, int line = __builtin_LINE()) { return msl_exchange(v, MSL_OP_BROADCAST_FIRST, line, [](unsigned) { return 0u; }); }
template<class T> MSL_TEMPLATE T quad_shuffle(T v, ushort l, int line = __builtin_LINE()) { return msl_exchange(v, MSL_OP_QUAD_SHUFFLE, line, [=](unsigned i) { return (i & ~3u) | (l & 3u); }); }
template<class T> MSL_TEMPLATE T quad_shuffle_xor(T v, ushort m, int line = __builtin_LINE()) { return msl_exchange(v, MSL_OP_QUAD_SHUFFLE, line, [=](unsigned i) { return (i & ~3u) | ((i ^ m) & 3u); }); }
template<class T> MSL_TEMPLATE T quad_broadcast(T v, ushort l, int line = __builtin_LINE()) { return quad_shuffle(v, l, line); }
template<class T> MSL_TEMPLATE T quad_sum(T v, int line = __builtin_LINE()) { v = v + quad_shuffle_xor(v, 1, line); return v + quad_shuffle_xor(v, 2, line); }
template<class T> MSL_TEMPLATE T quad_max(T v, int line = __builtin_LINE()) { v = max(v, quad_shuffle_xor(v, 1, line)); return max(v, quad_shuffle_xor(v, 2, line)); }
template<class T> MSL_TEMPLATE T quad_min(T v, int line = __builtin_LINE()) { v = min(v, quad_shuffle_xor(v, 1, line)); return min(v, quad_shuffle_xor(v, 2, line)); }
template<class T> MSL_TEMPLATE T msl_prefix(T v, bool incl, int op, int line) {
    msl_worker *w = msl_w(); msl_thread *t = w->t; msl_sg &s = w->sg[t->sg];
    const unsigned par = t->par, lane = t->lane; t->par = (unsigned char)(par ^ 1);
    __builtin_memcpy(s.slot[par][lane], &v, sizeof v);
    (void)w->rt->meet(w, op, line);
    T r = (T)0;
    for (unsigned i = 0; i < lane + incl; i++) if (s.lanes >> i & 1) r = (T)(r + msl_slot<T>(s.slot[par], i));
    return r;
}
template<class T> MSL_TEMPLATE T simd_prefix_inclusive_sum(T v, int line = __builtin_LINE()) { return msl_prefix(v, true, MSL_OP_PREFIX_IN, line); }
template<class T> MSL_TEMPLATE T simd_prefix_exclusive_sum(T v, int line = __builtin_LINE()) { return msl_prefix(v, false, MSL_OP_PREFIX_EX, line); }

/* Matrices of 8x8 spread over the lanes. Lane 0, the leader, keeps the whole matrix in its own copy of the variable and does the
 * work at the time it comes by; the other lanes only count along, so no meeting is needed and a product costs one. Their own
 * two elements are handed out, and collected again, by a meeting where thread_elements() is used. */
typedef float msl_row __attribute__((ext_vector_type(8)));
MSL_INLINE unsigned msl_mrow(unsigned l) { return ((l >> 2) & 4) | ((l >> 1) & 3); }      /* lane -> row, and column of the first */
MSL_INLINE unsigned msl_mcol(unsigned l) { return ((l >> 1) & 4) | ((l & 1) << 1); }     /* of its two neighbours */
MSL_INLINE bool msl_matrix_op(unsigned long what, int line) {     /* true: the leader, who does it */
    msl_worker *w = msl_w(); msl_thread *t = w->t;
    t->mat_hash = (t->mat_hash ^ what ^ (unsigned long)line << 32) * 0x9e3779b97f4a7c15ul;
    if (t->lane != 0) return false;
    if (w->sg[t->sg].lanes != 0xffffffffu) w->rt->fail(w, line, "a matrix operation in a SIMD-group of less than 32 threads");
    return true;
}
template<class T, int Cols, int Rows> struct simdgroup_matrix {
    static_assert(Cols == 8 && Rows == 8, "simdgroup_matrix is 8x8");
    static_assert(msl::same<T, float>::v || msl::same<T, half>::v, "simdgroup_matrix of float or half");
    typedef T storage_type __attribute__((ext_vector_type(2)));
    msl_row m[8];                       /* the leader's: the whole matrix */
    storage_type e;
    bool spread;                        /* e holds, m does not */
    MSL_TEMPLATE simdgroup_matrix() : spread(false) { if (msl_w()->t->lane == 0) for (int i = 0; i < 8; i++) m[i] = NAN; }
    MSL_TEMPLATE explicit simdgroup_matrix(T diagonal) : spread(false) { if (msl_w()->t->lane == 0) for (int i = 0; i < 8; i++) { m[i] = 0.0f; m[i][i] = (float)diagonal; } }
    MSL_TEMPLATE simdgroup_matrix(const simdgroup_matrix &o) { copy(o); }
    MSL_TEMPLATE simdgroup_matrix &operator=(const simdgroup_matrix &o) { copy(o); return *this; }
    MSL_TEMPLATE void copy(const simdgroup_matrix &o) {
        spread = o.spread;
        if (spread) e = o.e;
        else if (msl_w()->t->lane == 0) for (int i = 0; i < 8; i++) m[i] = o.m[i];
    }
    MSL_TEMPLATE storage_type &thread_elements(int line = __builtin_LINE()) {
        if (!spread) {
            msl_worker *w = msl_w(); msl_thread *t = w->t; msl_sg &s = w->sg[t->sg];
            s.matrix[t->lane] = this;
            (void)w->rt->meet(w, MSL_OP_ELEMENTS, line);
            const auto *lead = (const simdgroup_matrix *)s.matrix[0];
            const unsigned l = t->lane;
            e = storage_type{(T)lead->m[msl_mrow(l)][msl_mcol(l)], (T)lead->m[msl_mrow(l)][msl_mcol(l) + 1]};
            (void)w->rt->meet(w, MSL_OP_ELEMENTS, line);    /* nobody changes its own before all have read */
            spread = true;
        }
        return e;
    }
    MSL_TEMPLATE void gather(int line) const {
        if (!spread) return;
        msl_worker *w = msl_w(); msl_thread *t = w->t; msl_sg &s = w->sg[t->sg];
        auto *self = const_cast<simdgroup_matrix *>(this);
        s.matrix[t->lane] = this;
        if (w->rt->meet(w, MSL_OP_GATHER, line)) {
            auto *lead = const_cast<simdgroup_matrix *>((const simdgroup_matrix *)s.matrix[0]);
            for (unsigned l = 0; l < 32; l++) for (unsigned i = 0; i < 2; i++)
                lead->m[msl_mrow(l)][msl_mcol(l) + i] = (float)((const simdgroup_matrix *)s.matrix[l])->e[i];
        }
        (void)w->rt->meet(w, MSL_OP_GATHER, line);
        self->spread = false;
    }
};
typedef simdgroup_matrix<float, 8, 8> simdgroup_float8x8;
typedef simdgroup_matrix<half, 8, 8> simdgroup_half8x8;
template<class T, int C, int R> MSL_TEMPLATE simdgroup_matrix<T, C, R> make_filled_simdgroup_matrix(T v) {
    simdgroup_matrix<T, C, R> r; if (msl_w()->t->lane == 0) for (int i = 0; i < 8; i++) r.m[i] = (float)v; return r;
}
template<class T, int N> MSL_TEMPLATE simdgroup_matrix<T, N, N> make_filled_simdgroup_matrix(T v) { return make_filled_simdgroup_matrix<T, N, N>(v); }
template<class T, int C, int R = C> MSL_TEMPLATE simdgroup_matrix<T, C, R> make_diagonal_simdgroup_matrix(T v) { return simdgroup_matrix<T, C, R>(v); }
template<class P> struct msl_pointee;
template<class T> struct msl_pointee<T *> { typedef msl::bare<decltype(T())> t; };
template<class T, class P> MSL_TEMPLATE void simdgroup_load(simdgroup_matrix<T, 8, 8> &d, P src, ulong ld = 8, ulong2 org = ulong2{0, 0}, bool transpose = false, int line = __builtin_LINE()) {
    static_assert(msl::same<msl::bare<decltype(src[0] + 0 * 0)>, void>::v || sizeof(src[0]) == sizeof(T), "simdgroup_load from another element type");
    d.spread = false;
    if (!msl_matrix_op((ulong)src ^ ld << 1 ^ (ulong)transpose ^ org.x << 20 ^ org.y << 40, line)) return;
    P p = src + org.y * ld + org.x;
    if (transpose) { for (unsigned r = 0; r < 8; r++) for (unsigned c = 0; c < 8; c++) d.m[c][r] = (float)(T)p[r * ld + c]; }
    else for (unsigned r = 0; r < 8; r++) for (unsigned c = 0; c < 8; c++) d.m[r][c] = (float)(T)p[r * ld + c];
}
template<class T, class P> MSL_TEMPLATE void simdgroup_store(const simdgroup_matrix<T, 8, 8> &d, P dst, ulong ld = 8, ulong2 org = ulong2{0, 0}, bool transpose = false, int line = __builtin_LINE()) {
    static_assert(sizeof(dst[0]) == sizeof(T), "simdgroup_store to another element type");
    d.gather(line);
    if (!msl_matrix_op((ulong)dst ^ ld << 1 ^ (ulong)transpose ^ org.x << 20 ^ org.y << 40 ^ 1ul << 60, line)) return;
    P p = dst + org.y * ld + org.x;
    if (transpose) { for (unsigned r = 0; r < 8; r++) for (unsigned c = 0; c < 8; c++) p[r * ld + c] = (T)d.m[c][r]; }
    else for (unsigned r = 0; r < 8; r++) for (unsigned c = 0; c < 8; c++) p[r * ld + c] = (T)d.m[r][c];
}
/* k in order from 0, one rounding a step */
template<class D, class A, class B, class C> MSL_TEMPLATE void simdgroup_multiply_accumulate(simdgroup_matrix<D, 8, 8> &d, const simdgroup_matrix<A, 8, 8> &a, const simdgroup_matrix<B, 8, 8> &b, const simdgroup_matrix<C, 8, 8> &c, int line = __builtin_LINE()) {
    a.gather(line); b.gather(line); c.gather(line); d.spread = false;
    if (!msl_matrix_op(2, line)) return;
    for (unsigned r = 0; r < 8; r++) {
        const msl_row x = a.m[r]; msl_row s = c.m[r];
        for (unsigned k = 0; k < 8; k++) s = __builtin_elementwise_fma((msl_row)x[k], b.m[k], s);
        if constexpr (msl::same<D, half>::v) for (unsigned i = 0; i < 8; i++) s[i] = (float)(half)s[i];
        d.m[r] = s;
    }
}
template<class D, class A, class B> MSL_TEMPLATE void simdgroup_multiply(simdgroup_matrix<D, 8, 8> &d, const simdgroup_matrix<A, 8, 8> &a, const simdgroup_matrix<B, 8, 8> &b, int line = __builtin_LINE()) {
    simdgroup_multiply_accumulate(d, a, b, make_filled_simdgroup_matrix<D, 8, 8>((D)0), line);
}

/* atomics: relaxed only, as in MSL */
enum memory_order { memory_order_relaxed };
template<class T> struct atomic { T v; };
typedef atomic<int> atomic_int; typedef atomic<uint> atomic_uint; typedef atomic<float> atomic_float;
#define MSL_ATOMIC_GUARD msl_worker *w = msl_w(); (void)w; struct on { msl_thread *t; MSL_TEMPLATE on(msl_thread *x) : t(x) { t->atomic++; } MSL_TEMPLATE ~on() { t->atomic--; } } guard(w->t)
template<class P> using msl_atomic_value = msl::bare<decltype(((P)nullptr)->v)>;
template<class P> MSL_TEMPLATE auto atomic_load_explicit(P p, memory_order) -> msl_atomic_value<P> { MSL_ATOMIC_GUARD; msl_atomic_value<P> r; __atomic_load((msl_atomic_value<P> *)&p->v, &r, __ATOMIC_RELAXED); return r; }
template<class P, class V> MSL_TEMPLATE void atomic_store_explicit(P p, V x, memory_order) { MSL_ATOMIC_GUARD; msl_atomic_value<P> v = (msl_atomic_value<P>)x; __atomic_store((msl_atomic_value<P> *)&p->v, &v, __ATOMIC_RELAXED); }
template<class P, class V> MSL_TEMPLATE auto atomic_exchange_explicit(P p, V x, memory_order) -> msl_atomic_value<P> { MSL_ATOMIC_GUARD; msl_atomic_value<P> v = (msl_atomic_value<P>)x, r; __atomic_exchange((msl_atomic_value<P> *)&p->v, &v, &r, __ATOMIC_RELAXED); return r; }
#define MSL_FETCH(name, builtin) template<class P, class V> MSL_TEMPLATE auto atomic_fetch_##name##_explicit(P p, V x, memory_order) -> msl_atomic_value<P> { \
    MSL_ATOMIC_GUARD; return builtin((msl_atomic_value<P> *)&p->v, (msl_atomic_value<P>)x, __ATOMIC_RELAXED); }
MSL_FETCH(add, __atomic_fetch_add) MSL_FETCH(sub, __atomic_fetch_sub) MSL_FETCH(and, __atomic_fetch_and) MSL_FETCH(or, __atomic_fetch_or)
MSL_FETCH(xor, __atomic_fetch_xor) MSL_FETCH(max, __atomic_fetch_max) MSL_FETCH(min, __atomic_fetch_min)
template<class P, class E, class V> MSL_TEMPLATE bool atomic_compare_exchange_weak_explicit(P p, E e, V x, memory_order, memory_order) { MSL_ATOMIC_GUARD; msl_atomic_value<P> v = (msl_atomic_value<P>)x; return __atomic_compare_exchange((msl_atomic_value<P> *)&p->v, e, &v, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED); }
} /* metal */
