/* The checks of each access that a kernel makes (checked mode). */
#include "fake.h"
#include <stdlib.h>
#include <string.h>
struct fake_shadow { int unused; };
void fake_shadow_free(struct fake_shadow *s);
void fake_shadow_free(struct fake_shadow *s) { free(s); }
void fake_check_begin(fake_run *r) { (void)r; }
void fake_check_end(fake_run *r) { (void)r; }
void fake_touch(msl_worker *mw, unsigned long a, unsigned long n, int write)
{
    (void)write;
    fake_worker *w = (fake_worker *)(void *)mw;
    if (a - (unsigned long)w < MSL_REGION) {
        if (a - mw->tg_base >= mw->tg_size) return;
        for (unsigned i = 0; i < w->n_tg_ranges; i++) if (a - w->tg_range[i].at < w->tg_range[i].n && a - w->tg_range[i].at + n <= w->tg_range[i].n) return;
        fake_kernel_die(w, 0, "access to %lu bytes of threadgroup memory outside of every variable", n);
    }
}
