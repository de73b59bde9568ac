/* Metal Shading Language on the CPU: types and functions. Clang only (ext_vector_type, _Float16), no C++ library.
 * With MSL_CHECK the text is only parsed, and the address spaces are real: a pointer of the wrong one does not compile. */
#pragma once
#include "msl_abi.h"
#define MSL_INLINE static inline __attribute__((always_inline, unused))
#define MSL_TEMPLATE inline __attribute__((always_inline))
#ifdef MSL_CHECK
#define MSL_DEVICE __attribute__((address_space(1)))
#define MSL_CONSTANT __attribute__((address_space(2))) const
#define MSL_THREADGROUP __attribute__((address_space(3)))
#define MSL_TGVAR(id, type, name, dims) static __attribute__((address_space(3), unused)) type name dims
#define MSL_PCAST(T, ...) msl_pcast<T>(__VA_ARGS__)
#define MSL_FCONST(type, name) extern __attribute__((address_space(2))) const type name
#else
#define MSL_DEVICE
#define MSL_CONSTANT const
#define MSL_THREADGROUP
#define MSL_TGVAR(id, type, name, dims) typedef type msl_tg_##id dims; \
    static const msl_tg_entry msl_tge_##id __attribute__((section("msl_tg"), used)) = { id, sizeof(msl_tg_##id) }; \
    msl_tg_##id &name = *(msl_tg_##id *)msl_w()->rt->tgvar(msl_w(), id, sizeof(msl_tg_##id), alignof(msl_tg_##id), #name)
#define MSL_PCAST(T, ...) ((T)(__VA_ARGS__))
#define MSL_FCONST(type, name) static type name
#endif
#define MSL_THREAD

typedef signed char int8_t; typedef unsigned char uint8_t; typedef short int16_t; typedef unsigned short uint16_t;
typedef int int32_t; typedef unsigned uint32_t; typedef long int64_t; typedef unsigned long uint64_t;
typedef unsigned char uchar; typedef unsigned short ushort; typedef unsigned uint; typedef unsigned long ulong;
typedef unsigned long size_t; typedef long ptrdiff_t; typedef unsigned long uintptr_t; typedef long intptr_t;
typedef _Float16 half;
#define INFINITY __builtin_inff()
#define NAN __builtin_nanf("")
#define HUGE_VALF __builtin_inff()
#define MAXFLOAT 0x1.fffffep127f
#define FLT_MAX 0x1.fffffep127f
#define FLT_MIN 0x1p-126f
#define FLT_EPSILON 0x1p-23f
#define HALF_MAX ((half)65504.0f)
#define MAXHALF ((half)65504.0f)
#define HALF_MIN ((half)0x1p-14f)
#define M_PI_F 3.14159265358979323846f
#define M_1_PI_F 0.31830988618379067154f
#define M_2_PI_F 0.63661977236758134308f
#define M_2_SQRTPI_F 1.12837916709551257390f
#define M_SQRT2_F 1.41421356237309504880f
#define M_SQRT1_2_F 0.70710678118654752440f
#define M_LOG2E_F 1.4426950408889634074f
#define M_LN2_F 0.69314718055994530942f
#define M_E_F 2.71828182845904523536f
#define INT_MAX 0x7fffffff
#define INT_MIN (-0x7fffffff - 1)
#define UINT_MAX 0xffffffffu
#define USHRT_MAX 65535
#define SHRT_MAX 32767
#define UCHAR_MAX 255
#define CHAR_BIT 8
#define FLT_MANT_DIG 24

namespace msl {
template<class T> struct no_ref { typedef T t; };
template<class T> struct no_ref<T &> { typedef T t; };
template<class T> struct no_cv { typedef T t; };
template<class T> struct no_cv<const T> { typedef T t; };
template<class A, class B> struct same { static constexpr bool v = false; };
template<class A> struct same<A, A> { static constexpr bool v = true; };
template<class T> constexpr bool is_num = __is_arithmetic(T) || same<T, half>::v;
template<class T, T... I> struct seq {};
template<int N> using upto = __make_integer_seq<seq, int, N>;
template<bool B, class A, class C> struct pick { typedef A t; };
template<class A, class C> struct pick<false, A, C> { typedef C t; };
/* element type and count of a vector; T itself of anything else */
template<class T> struct elem { typedef T t; static constexpr int n = 1; static constexpr bool vec = false; };
template<class T, int N> struct elem<T __attribute__((ext_vector_type(N)))> { typedef T t; static constexpr int n = N; static constexpr bool vec = true; };
template<class T> using bare = typename no_cv<typename no_ref<T>::t>::t;
}

#define MSL_VECTORS(X) X(float) X(half) X(char) X(uchar) X(short) X(ushort) X(int) X(uint) X(long) X(ulong)
#define MSL_VEC_TYPES(T) typedef T T##2 __attribute__((ext_vector_type(2))); typedef T T##3 __attribute__((ext_vector_type(3))); \
    typedef T T##4 __attribute__((ext_vector_type(4)));
MSL_VECTORS(MSL_VEC_TYPES)
typedef bool bool2 __attribute__((ext_vector_type(2))); typedef bool bool3 __attribute__((ext_vector_type(3))); typedef bool bool4 __attribute__((ext_vector_type(4)));
/* packed vectors: the scalar's alignment. Three elements: a struct, since a vector of three takes the room of four. */
#define MSL_PACKED(T) typedef T packed_##T##2 __attribute__((ext_vector_type(2), aligned(__alignof__(T)))); \
    typedef T packed_##T##4 __attribute__((ext_vector_type(4), aligned(__alignof__(T)))); \
    struct packed_##T##3 { T x, y, z; packed_##T##3() = default; packed_##T##3(T##3 v) : x(v.x), y(v.y), z(v.z) {} \
        operator T##3() const { return T##3{x, y, z}; } };
MSL_VECTORS(MSL_PACKED)

/* What T(args), and (T)x for a vector type, become. */
namespace msl {
template<class V, class A> MSL_TEMPLATE void put(V &r, int &n, A a) {
    if constexpr (elem<A>::vec) { for (int i = 0; i < elem<A>::n; i++) r[n++] = (typename elem<V>::t)a[i]; }
    else r[n++] = (typename elem<V>::t)a;
}
template<class A> constexpr int width() { return elem<A>::n; }
}
template<class T> MSL_TEMPLATE constexpr T msl_make() { return T{}; }
template<class T, class A> MSL_TEMPLATE constexpr T msl_make(A a) {
    if constexpr (msl::elem<T>::vec && msl::elem<A>::vec) {
        static_assert(msl::elem<T>::n == msl::elem<A>::n, "a vector is made from one of another width");
        return __builtin_convertvector(a, T);
    } else if constexpr (msl::elem<T>::vec && msl::is_num<A>) return (T)(typename msl::elem<T>::t)a;
    else return (T)a;
}
template<class T, class A, class B, class... R> MSL_TEMPLATE T msl_make(A a, B b, R... r) {
    if constexpr (msl::elem<T>::vec) {
        static_assert(msl::width<A>() + msl::width<B>() + (0 + ... + msl::width<R>()) == msl::elem<T>::n, "number of elements of a vector constructor");
        T v{}; int n = 0; msl::put(v, n, a); msl::put(v, n, b); (msl::put(v, n, r), ...);
        return v;
    } else return T(a, b, r...);
}

#ifdef MSL_CHECK
/* (space T *)x: x has to be in that space already */
template<class P> struct msl_space { static constexpr int v = -1; };
template<class T> struct msl_space<T *> { static constexpr int v = 0; };
template<class T> struct msl_space<__attribute__((address_space(1))) T *> { static constexpr int v = 1; };
template<class T> struct msl_space<__attribute__((address_space(2))) T *> { static constexpr int v = 2; };
template<class T> struct msl_space<__attribute__((address_space(3))) T *> { static constexpr int v = 3; };
template<class P, class A> P msl_pcast(A a) { static_assert(msl_space<P>::v == msl_space<A>::v, "a cast to another address space"); return (P)a; }
MSL_INLINE msl_worker *msl_w() { return nullptr; }
#elif defined(MSL_ELSEWHERE)               /* another machine's headers take over (tests/metalcuda) */
MSL_INLINE msl_worker *msl_w() { return nullptr; }
#else
/* The stack pointer tells the worker: every kernel thread runs on a stack inside its worker's region. */
MSL_INLINE msl_worker *msl_w() {
    unsigned long sp;
#if defined(__x86_64__)
    asm("mov %%rsp,%0" : "=r"(sp));
#elif defined(__aarch64__)
    asm("mov %0,sp" : "=r"(sp));
#else
#error "x86-64 or AArch64"
#endif
    return (msl_worker *)(sp & ~(unsigned long)(MSL_REGION - 1));
}
#endif

namespace metal {
using ::float2; using ::float3; using ::float4; using ::half2; using ::half3; using ::half4; using ::half;
template<class T, int N> using vec = T __attribute__((ext_vector_type(N)));
template<class T> struct msl_id { typedef T t; };
template<class T> using msl_as_is = typename msl_id<T>::t;
template<class T> struct numeric_limits;
template<> struct numeric_limits<float> { static constexpr float infinity() { return INFINITY; } static constexpr float max() { return FLT_MAX; } static constexpr float lowest() { return -FLT_MAX; }
    static constexpr float min() { return FLT_MIN; } static constexpr float epsilon() { return FLT_EPSILON; } static constexpr float quiet_NaN() { return NAN; } };
template<> struct numeric_limits<half> { static constexpr half infinity() { return (half)INFINITY; } static constexpr half max() { return HALF_MAX; } static constexpr half lowest() { return -HALF_MAX; } };
template<> struct numeric_limits<int> { static constexpr int max() { return INT_MAX; } static constexpr int min() { return INT_MIN; } static constexpr int lowest() { return INT_MIN; } };
template<> struct numeric_limits<uint> { static constexpr uint max() { return UINT_MAX; } static constexpr uint min() { return 0; } static constexpr uint lowest() { return 0; } };

template<class To, class From> MSL_TEMPLATE To as_type(From f) {
    static_assert(sizeof(To) == sizeof(From), "as_type of another size");
    return __builtin_bit_cast(To, f);
}

/* half goes through float: one rounding, at the end */
MSL_INLINE float msl_up(half x) { return (float)x; }
MSL_INLINE float2 msl_up(half2 x) { return __builtin_convertvector(x, float2); }
MSL_INLINE float3 msl_up(half3 x) { return __builtin_convertvector(x, float3); }
MSL_INLINE float4 msl_up(half4 x) { return __builtin_convertvector(x, float4); }
#define MSL_PAIRS(X) X(float, half) X(float2, half2) X(float3, half3) X(float4, half4)
#define MSL_DEF1(F, H, name, expr) MSL_INLINE F name(F x) { return expr; } MSL_INLINE H name(H h) { F x = msl_up(h); return msl_make<H>((F)(expr)); }
#define MSL_DEF2(F, H, name, expr) MSL_INLINE F name(F x, F y) { return expr; } \
    MSL_INLINE H name(H g, H h) { F x = msl_up(g), y = msl_up(h); return msl_make<H>((F)(expr)); }
#define MSL_DEF3(F, H, name, expr) MSL_INLINE F name(F x, F y, F z) { return expr; } \
    MSL_INLINE H name(H g, H h, H i) { F x = msl_up(g), y = msl_up(h), z = msl_up(i); return msl_make<H>((F)(expr)); }
#define MSL_MAP1(F, H, name, f) MSL_INLINE F name(F x) { return f(x); } MSL_INLINE H name(H x) { return (H)f((F)x); }
/* functions that clang knows for vectors */
#define MSL_BUILTIN1(X) X(exp, exp) X(exp2, exp2) X(log, log) X(log2, log2) X(log10, log10) X(sin, sin) X(cos, cos) X(sqrt, sqrt) \
    X(floor, floor) X(ceil, ceil) X(trunc, trunc) X(round, round) X(rint, roundeven)
#define MSL_B1(name, f) MSL_DEF1(float, half, name, __builtin_elementwise_##f(x)) MSL_DEF1(float2, half2, name, __builtin_elementwise_##f(x)) \
    MSL_DEF1(float3, half3, name, __builtin_elementwise_##f(x)) MSL_DEF1(float4, half4, name, __builtin_elementwise_##f(x))
MSL_BUILTIN1(MSL_B1)
#define MSL_ALL_F(DEF, name, expr) DEF(float, half, name, expr) DEF(float2, half2, name, expr) DEF(float3, half3, name, expr) DEF(float4, half4, name, expr)
MSL_ALL_F(MSL_DEF1, fabs, __builtin_elementwise_abs(x))
MSL_ALL_F(MSL_DEF1, abs, __builtin_elementwise_abs(x))
MSL_ALL_F(MSL_DEF1, rsqrt, 1.0f / __builtin_elementwise_sqrt(x))
MSL_ALL_F(MSL_DEF1, exp10, __builtin_elementwise_exp2(x * 3.32192809488736234787f))
MSL_ALL_F(MSL_DEF1, fract, x - __builtin_elementwise_floor(x))
MSL_ALL_F(MSL_DEF1, saturate, __builtin_elementwise_max(__builtin_elementwise_min(x, (decltype(x))1.0f), (decltype(x))0.0f))
MSL_ALL_F(MSL_DEF2, fmax, __builtin_elementwise_max(x, y))
MSL_ALL_F(MSL_DEF2, fmin, __builtin_elementwise_min(x, y))
MSL_ALL_F(MSL_DEF2, max, __builtin_elementwise_max(x, y))
MSL_ALL_F(MSL_DEF2, min, __builtin_elementwise_min(x, y))
MSL_ALL_F(MSL_DEF2, pow, __builtin_elementwise_pow(x, y))
MSL_ALL_F(MSL_DEF2, powr, __builtin_elementwise_pow(x, y))
MSL_ALL_F(MSL_DEF2, copysign, __builtin_elementwise_copysign(x, y))
MSL_ALL_F(MSL_DEF3, fma, __builtin_elementwise_fma(x, y, z))
MSL_ALL_F(MSL_DEF3, clamp, __builtin_elementwise_min(__builtin_elementwise_max(x, y), z))
MSL_ALL_F(MSL_DEF3, mix, x + (y - x) * z)
#define MSL_LIBM1(X) X(tan) X(asin) X(acos) X(atan) X(sinh) X(cosh) X(tanh) X(asinh) X(acosh) X(atanh)
#define MSL_L1(name) MSL_INLINE float name(float x) { return __builtin_##name##f(x); } MSL_INLINE half name(half x) { return (half)__builtin_##name##f((float)x); } \
    MSL_INLINE float2 name(float2 x) { return float2{name(x.x), name(x.y)}; } MSL_INLINE float4 name(float4 x) { return float4{name(x.x), name(x.y), name(x.z), name(x.w)}; }
MSL_LIBM1(MSL_L1)
MSL_INLINE float atan2(float y, float x) { return __builtin_atan2f(y, x); }
MSL_INLINE float fmod(float x, float y) { return __builtin_fmodf(x, y); }
MSL_INLINE float ldexp(float x, int n) { return __builtin_ldexpf(x, n); }
MSL_INLINE float sign(float x) { return x > 0.0f ? 1.0f : x < 0.0f ? -1.0f : x == 0.0f ? x : 0.0f; }
MSL_INLINE float step(float edge, float x) { return x < edge ? 0.0f : 1.0f; }
MSL_INLINE bool isnan(float x) { return __builtin_isnan(x); }
MSL_INLINE bool isinf(float x) { return __builtin_isinf(x); }
MSL_INLINE bool isfinite(float x) { return __builtin_isfinite(x); }
MSL_INLINE bool isnan(half x) { return __builtin_isnan((float)x); }
MSL_INLINE bool isinf(half x) { return __builtin_isinf((float)x); }
MSL_INLINE bool signbit(float x) { return __builtin_signbitf(x); }
template<class P> MSL_TEMPLATE float sincos(float x, P &&c) { c = __builtin_cosf(x); return __builtin_sinf(x); }
template<class P> MSL_TEMPLATE float frexp(float x, P &&e) { int n = 0; float r = __builtin_frexpf(x, &n); e = n; return r; }
template<class P> MSL_TEMPLATE float modf(float x, P &&i) { i = __builtin_truncf(x); return x - __builtin_truncf(x); }
MSL_INLINE float max3(float a, float b, float c) { return max(max(a, b), c); }
MSL_INLINE float min3(float a, float b, float c) { return min(min(a, b), c); }

/* integers */
#define MSL_INT1(T) MSL_INLINE T max(T x, T y) { return __builtin_elementwise_max(x, y); } MSL_INLINE T min(T x, T y) { return __builtin_elementwise_min(x, y); } \
    MSL_INLINE T clamp(T x, T l, T h) { return __builtin_elementwise_min(__builtin_elementwise_max(x, l), h); }
#define MSL_INTS(T) MSL_INT1(T) MSL_INT1(T##2) MSL_INT1(T##3) MSL_INT1(T##4)
MSL_INTS(char) MSL_INTS(uchar) MSL_INTS(short) MSL_INTS(ushort) MSL_INTS(int) MSL_INTS(uint) MSL_INTS(long) MSL_INTS(ulong)
#define MSL_ABS(T) MSL_INLINE T abs(T x) { return __builtin_elementwise_abs(x); } MSL_INLINE T##2 abs(T##2 x) { return __builtin_elementwise_abs(x); } MSL_INLINE T##4 abs(T##4 x) { return __builtin_elementwise_abs(x); }
MSL_ABS(char) MSL_ABS(short) MSL_ABS(int) MSL_ABS(long)
MSL_INLINE uint abs(uint x) { return x; }
MSL_INLINE uint popcount(uint x) { return (uint)__builtin_popcount(x); }
MSL_INLINE ulong popcount(ulong x) { return (ulong)__builtin_popcountl(x); }
MSL_INLINE uint clz(uint x) { return x ? (uint)__builtin_clz(x) : 32; }
MSL_INLINE int clz(int x) { return x ? __builtin_clz((uint)x) : 32; }
MSL_INLINE ulong clz(ulong x) { return x ? (ulong)__builtin_clzl(x) : 64; }
MSL_INLINE uint ctz(uint x) { return x ? (uint)__builtin_ctz(x) : 32; }
MSL_INLINE int ctz(int x) { return x ? __builtin_ctz((uint)x) : 32; }
MSL_INLINE ulong ctz(ulong x) { return x ? (ulong)__builtin_ctzl(x) : 64; }
MSL_INLINE uint reverse_bits(uint x) { return __builtin_bitreverse32(x); }
MSL_INLINE uint rotate(uint x, uint n) { return __builtin_rotateleft32(x, n); }
MSL_INLINE uint mulhi(uint a, uint b) { return (uint)((ulong)a * b >> 32); }
MSL_INLINE int mulhi(int a, int b) { return (int)((long)a * b >> 32); }
MSL_INLINE ulong mulhi(ulong a, ulong b) { return (ulong)((unsigned __int128)a * b >> 64); }
MSL_INLINE uint extract_bits(uint x, uint at, uint n) { return n == 0 ? 0 : x << (32 - at - n) >> (32 - n); }

/* vectors */
#define MSL_DOT(T, N) MSL_INLINE T dot(T##N a, T##N b) { T s = a[0] * b[0]; for (int i = 1; i < N; i++) s = s + a[i] * b[i]; return s; }
MSL_DOT(float, 2) MSL_DOT(float, 3) MSL_DOT(float, 4) MSL_DOT(half, 2) MSL_DOT(half, 3) MSL_DOT(half, 4)
MSL_INLINE float length(float2 a) { return sqrt(dot(a, a)); }
MSL_INLINE float length(float4 a) { return sqrt(dot(a, a)); }
template<class M, int N> MSL_TEMPLATE bool any(vec<M, N> m) { bool r = false; for (int i = 0; i < N; i++) r |= m[i] != 0; return r; }
template<class M, int N> MSL_TEMPLATE bool all(vec<M, N> m) { bool r = true; for (int i = 0; i < N; i++) r &= m[i] != 0; return r; }
template<class T> MSL_TEMPLATE T select(T a, T b, bool c) { return c ? b : a; }
template<class T, int N, class M> MSL_TEMPLATE vec<T, N> select(vec<T, N> a, vec<T, N> b, vec<M, N> c) {
    vec<T, N> r; for (int i = 0; i < N; i++) r[i] = c[i] ? b[i] : a[i]; return r;
}
MSL_INLINE half4 unpack_unorm4x8_to_half(uint x) { return half4{(half)((x & 255) / 255.0f), (half)((x >> 8 & 255) / 255.0f), (half)((x >> 16 & 255) / 255.0f), (half)((x >> 24) / 255.0f)}; }

/* columns of vectors, as far as dequantizers use them */
template<class T, int C, int R> struct matrix {
    vec<T, R> c[C];
    matrix() = default;
    explicit matrix(T v) { for (int i = 0; i < C; i++) for (int j = 0; j < R; j++) c[i][j] = i == j ? v : (T)0; }
    template<class I> MSL_TEMPLATE vec<T, R> &operator[](I i) { return c[i]; }
    template<class I> MSL_TEMPLATE const vec<T, R> &operator[](I i) const { return c[i]; }
};
typedef matrix<float, 4, 4> float4x4; typedef matrix<half, 4, 4> half4x4; typedef matrix<float, 2, 4> float2x4; typedef matrix<half, 2, 4> half2x4;

/* precise:: is what the whole library is compiled for; fast:: is refused by the translator */

namespace precise {
using metal::exp; using metal::exp2; using metal::exp10; using metal::log; using metal::log2; using metal::log10; using metal::sin; using metal::cos;
using metal::sqrt; using metal::rsqrt; using metal::tan; using metal::asin; using metal::acos; using metal::atan; using metal::sinh; using metal::cosh;
using metal::tanh; using metal::pow; using metal::powr; using metal::atan2; using metal::fmod; using metal::ceil; using metal::floor; using metal::round;
using metal::rint; using metal::trunc; using metal::fabs; using metal::fmax; using metal::fmin; using metal::sincos; using metal::fma; using metal::max; using metal::min;

}
} /* metal */
#include "msl_simd.h"
#ifndef MSL_CHECK
#include "msl_run.h"
#endif
