/* MSL on CUDA, put in front of the fake Metal's msl.h: the functions that clang lowers to calls of a C library become those of
 * NVIDIA's libdevice, the precise ones. */
#pragma once
#define MSL_ELSEWHERE
namespace msl_nv {
template<class T> struct width { static constexpr int n = 0; };
template<class T, int N> struct width<T __attribute__((ext_vector_type(N)))> { static constexpr int n = N; };
}
#define MSL_NV1(name) extern "C" float __nv_##name##f(float); namespace msl_nv { \
    template<class T> static inline __attribute__((always_inline, unused)) T name(T x) { \
        if constexpr (width<T>::n == 0) return __nv_##name##f(x); \
        else { T r; for (int i = 0; i < width<T>::n; i++) r[i] = __nv_##name##f(x[i]); return r; } } }
#define MSL_NV2(name) extern "C" float __nv_##name##f(float, float); namespace msl_nv { \
    template<class T> static inline __attribute__((always_inline, unused)) T name(T x, T y) { \
        if constexpr (width<T>::n == 0) return __nv_##name##f(x, y); \
        else { T r; for (int i = 0; i < width<T>::n; i++) r[i] = __nv_##name##f(x[i], y[i]); return r; } } }
MSL_NV1(exp) MSL_NV1(exp2) MSL_NV1(log) MSL_NV1(log2) MSL_NV1(log10) MSL_NV1(sin) MSL_NV1(cos) MSL_NV2(pow)
MSL_NV1(tan) MSL_NV1(asin) MSL_NV1(acos) MSL_NV1(atan) MSL_NV1(sinh) MSL_NV1(cosh) MSL_NV1(tanh) MSL_NV1(asinh) MSL_NV1(acosh)
MSL_NV1(atanh) MSL_NV2(atan2) MSL_NV2(fmod)
#define __builtin_elementwise_exp msl_nv::exp
#define __builtin_elementwise_exp2 msl_nv::exp2
#define __builtin_elementwise_log msl_nv::log
#define __builtin_elementwise_log2 msl_nv::log2
#define __builtin_elementwise_log10 msl_nv::log10
#define __builtin_elementwise_sin msl_nv::sin
#define __builtin_elementwise_cos msl_nv::cos
#define __builtin_elementwise_pow msl_nv::pow
#define __builtin_tanf __nv_tanf
#define __builtin_asinf __nv_asinf
#define __builtin_acosf __nv_acosf
#define __builtin_atanf __nv_atanf
#define __builtin_sinhf __nv_sinhf
#define __builtin_coshf __nv_coshf
#define __builtin_tanhf __nv_tanhf
#define __builtin_asinhf __nv_asinhf
#define __builtin_acoshf __nv_acoshf
#define __builtin_atanhf __nv_atanhf
#define __builtin_atan2f __nv_atan2f
#define __builtin_fmodf __nv_fmodf
#define __builtin_sinf __nv_sinf
#define __builtin_cosf __nv_cosf
