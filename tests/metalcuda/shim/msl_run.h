/* MSL on CUDA: threadgroup variables are shared memory, function constants are set at the start of each kernel, and a kernel is
 * entered with one argument. In place of the fake Metal's header of this name. Clang compiles all of it as plain C++ for nvptx64. */
#pragma once
#include "msl_launch.h"
#define MSL_SHARED __attribute__((address_space(3), loader_uninitialized))
#undef MSL_TGVAR
#define MSL_TGVAR(id, type, name, dims) typedef type msl_tg_##id dims; static MSL_SHARED msl_tg_##id msl_tgs_##id; \
    msl_tg_##id &name = *(msl_tg_##id *)&msl_tgs_##id
#undef MSL_FCONST
#define MSL_FCONST(type, name) static MSL_SHARED type name
extern __attribute__((address_space(3), aligned(16))) unsigned char msl_dynamic[];

template<class A> struct msl_arg {
    static MSL_TEMPLATE A get(const msl_launch &l, const msl_bind &b) {
        if constexpr (__is_pointer(A)) return (A)(b.kind == 't' ? (void *)(msl_dynamic + l.tg_at[b.index]) : (void *)l.buf[b.index]);
        else if constexpr (__is_reference(A)) return *(typename msl::no_ref<A>::t *)(b.kind == 't' ? (void *)(msl_dynamic + l.tg_at[b.index]) : (void *)l.buf[b.index]);
        else if constexpr (msl::elem<A>::vec) {
            A r;
            for (int i = 0; i < msl::elem<A>::n; i++) r[i] = (typename msl::elem<A>::t)three(l, b.kind, i);
            return r;
        } else {
            const unsigned tid = at(0) + size(0) * (at(1) + size(1) * at(2)), n = size(0) * size(1) * size(2);
            switch (b.kind) {
                case 'l': return (A)tid;
                case 'L': return (A)(tid % 32);
                case 's': return (A)(tid / 32);
                case 'S': return (A)((n + 31) / 32);
                case 'D': return (A)((l.nominal[0] * l.nominal[1] * l.nominal[2] + 31) / 32);
                case 'w': return (A)32;
                default: return (A)three(l, b.kind, 0);
            }
        }
    }
    static MSL_TEMPLATE unsigned at(int i) { return i == 0 ? __nvvm_read_ptx_sreg_tid_x() : i == 1 ? __nvvm_read_ptx_sreg_tid_y() : __nvvm_read_ptx_sreg_tid_z(); }
    static MSL_TEMPLATE unsigned size(int i) { return i == 0 ? __nvvm_read_ptx_sreg_ntid_x() : i == 1 ? __nvvm_read_ptx_sreg_ntid_y() : __nvvm_read_ptx_sreg_ntid_z(); }
    static MSL_TEMPLATE unsigned group(int i) { return i == 0 ? __nvvm_read_ptx_sreg_ctaid_x() : i == 1 ? __nvvm_read_ptx_sreg_ctaid_y() : __nvvm_read_ptx_sreg_ctaid_z(); }
    static MSL_TEMPLATE unsigned groups(int i) { return i == 0 ? __nvvm_read_ptx_sreg_nctaid_x() : i == 1 ? __nvvm_read_ptx_sreg_nctaid_y() : __nvvm_read_ptx_sreg_nctaid_z(); }
    static MSL_TEMPLATE unsigned three(const msl_launch &l, char kind, int i) {
        switch (kind) {
            case 'p': return group(i);
            case 'i': return at(i);
            case 'n': return size(i);
            case 'd': return l.nominal[i];
            case 'g': return groups(i);
            case 'N': return l.grid[i];
            default: return group(i) * l.nominal[i] + at(i);       /* G */
        }
    }
};
template<class F, F f, const msl_bind *B> struct msl_entry;
template<class... A, void (*f)(A...), const msl_bind *B> struct msl_entry<void (*)(A...), f, B> {
    template<int... I> static MSL_TEMPLATE void call(const msl_launch &l, msl::seq<int, I...>) { f(msl_arg<A>::get(l, B[I])...); }
    static MSL_TEMPLATE void run(const msl_launch &l) { call(l, msl::upto<(int)sizeof...(A)>{}); }
};
/* MSL_SET_CONSTANTS and the msl_binds are made by compile.c from the library's tables. */
#define MSL_KERNEL(name) \
    extern "C" __attribute__((visibility("protected"))) [[clang::nvptx_kernel]] void msl_kernel_##name(msl_launch l) { \
        if (msl_arg<unsigned>::at(0) == 0 && msl_arg<unsigned>::at(1) == 0 && msl_arg<unsigned>::at(2) == 0) { MSL_SET_CONSTANTS } \
        __syncthreads(); \
        msl_entry<decltype(&name), &name, msl_binds_##name>::run(l); }
