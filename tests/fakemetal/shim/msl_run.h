/* MSL on the CPU: what the launchers that the translator appends are made of, and the callbacks of the checked mode. */
#pragma once
/* kinds of parameters: b buffer, t threadgroup memory; p i n g G N: positions and sizes of three dimensions; the rest scalars */
template<class A> struct msl_arg {
    static MSL_TEMPLATE A get(msl_worker *w, const msl_bind &b) {
        if constexpr (__is_pointer(A)) return (A)(b.kind == 't' ? w->tgmem[b.index] : w->buf[b.index]);
        else if constexpr (__is_reference(A)) return *(typename msl::no_ref<A>::t *)(b.kind == 't' ? w->tgmem[b.index] : w->buf[b.index]);
        else {
            const msl_thread *t = w->t;
            if constexpr (msl::elem<A>::vec) {
                A r;
                for (int i = 0; i < msl::elem<A>::n; i++) r[i] = (typename msl::elem<A>::t)three(w, t, b.kind, i);
                return r;
            } else switch (b.kind) {
                case 'l': return (A)t->tid;
                case 'L': return (A)t->lane;
                case 's': return (A)t->sg;
                case 'S': return (A)w->n_sg;
                case 'D': return (A)((w->nominal[0] * w->nominal[1] * w->nominal[2] + 31) / 32);
                case 'w': return (A)32;
                default: return (A)three(w, t, b.kind, 0);
            }
        }
    }
    static MSL_TEMPLATE unsigned three(const msl_worker *w, const msl_thread *t, char kind, int i) {
        switch (kind) {
            case 'p': return w->tgpos[i];
            case 'i': return t->pos[i];
            case 'n': return w->tpt[i];
            case 'd': return w->nominal[i];
            case 'g': return w->tgs[i];
            case 'N': return w->grid[i];
            default: return w->tgpos[i] * w->nominal[i] + t->pos[i];        /* G */
        }
    }
};
template<class A> struct msl_param_of { static constexpr msl_param v = { 0, (unsigned)msl::elem<A>::n, 0, 0 }; };
template<class T> struct msl_param_of<T *> { static constexpr msl_param v = { sizeof(T), alignof(T), 0, __is_const(T) }; };
template<class T> struct msl_param_of<T &> { static constexpr msl_param v = { sizeof(T), alignof(T), 1, __is_const(T) }; };
template<> struct msl_param_of<void *> { static constexpr msl_param v = { 1, 1, 0, 0 }; };
template<> struct msl_param_of<const void *> { static constexpr msl_param v = { 1, 1, 0, 1 }; };
template<class F, F f, const msl_bind *B> struct msl_entry;
template<class... A, void (*f)(A...), const msl_bind *B> struct msl_entry<void (*)(A...), f, B> {
    template<int... I> static MSL_TEMPLATE void call(msl_worker *w, msl::seq<int, I...>) { f(msl_arg<A>::get(w, B[I])...); }
    static void body(msl_worker *w) { call(w, msl::upto<(int)sizeof...(A)>{}); }
    static constexpr msl_param param[sizeof...(A) + 1] = { msl_param_of<A>::v..., { 0, 0, 0, 0 } };
    static constexpr int n = (int)sizeof...(A);
};
template<class T> constexpr unsigned msl_type_code() {      /* MTLDataType */
    if constexpr (msl::same<T, float>::v) return 3; else if constexpr (msl::same<T, half>::v) return 16;
    else if constexpr (msl::same<T, int>::v) return 29; else if constexpr (msl::same<T, uint>::v) return 33;
    else if constexpr (msl::same<T, short>::v) return 37; else if constexpr (msl::same<T, ushort>::v) return 41;
    else if constexpr (msl::same<T, char>::v) return 45; else if constexpr (msl::same<T, uchar>::v) return 49;
    else if constexpr (msl::same<T, bool>::v) return 53; else return 0;
}
#ifdef MSL_CHECKED
/* clang calls these before every access that is not to the thread's own variables (-fsanitize=kernel-address, all outlined) */
extern "C" {
/* the worker and the stacks in its region are no memory of the GPU */
#define MSL_TOUCH(a, n, write) msl_worker *w = msl_w(); if ((a) - (unsigned long)w < MSL_REGION && (a) - w->tg_base >= w->tg_size) return; \
    w->pc = (unsigned long)__builtin_return_address(0); w->rt->touch(w, a, n, write);
#define MSL_HOOK __attribute__((visibility("hidden"), no_sanitize("kernel-address"), no_sanitize("address")))
#define MSL_ACCESS(n) \
    MSL_HOOK void __asan_load##n##_noabort(unsigned long a) { MSL_TOUCH(a, n, 0) } \
    MSL_HOOK void __asan_store##n##_noabort(unsigned long a) { MSL_TOUCH(a, n, 1) }
MSL_ACCESS(1) MSL_ACCESS(2) MSL_ACCESS(4) MSL_ACCESS(8) MSL_ACCESS(16)
MSL_HOOK void __asan_loadN_noabort(unsigned long a, unsigned long n) { MSL_TOUCH(a, n, 0) }
MSL_HOOK void __asan_storeN_noabort(unsigned long a, unsigned long n) { MSL_TOUCH(a, n, 1) }
MSL_HOOK void *__asan_memcpy(void *d, const void *s, unsigned long n) { msl_worker *w = msl_w(); w->pc = (unsigned long)__builtin_return_address(0); w->rt->touch(w, (unsigned long)s, n, 0); w->rt->touch(w, (unsigned long)d, n, 1); return __builtin_memcpy(d, s, n); }
MSL_HOOK void *__asan_memset(void *d, int c, unsigned long n) { msl_worker *w = msl_w(); w->pc = (unsigned long)__builtin_return_address(0); w->rt->touch(w, (unsigned long)d, n, 1); return __builtin_memset(d, c, n); }
MSL_HOOK void __asan_handle_no_return(void) {}
}
#endif
