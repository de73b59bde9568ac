/* choose.c - which device a model runs on. */
#include "backend/backend.h"

sill_status sill__device_open(const char *name, const sill__device_options *options, const sill__backend **ops,
                              sill__device **out, sill_error *err) {
    const sill__backend *b;
    bool any = !name || !*name || !strcmp(name, "auto");
    sill_status s = SILL_EUNSUPPORTED;
    *ops = NULL;
    *out = NULL;
    if (!any) {
        s = sill__backend_find(name, ops, err);
        return s == SILL_OK ? (*ops)->open(options, out, err) : s;
    }
    for (int i = 0; (b = sill__backend_at(i)) && b != sill__backend_ref(); i++) {
        sill_error why = {.code = SILL_OK};
        *ops = b;
        if ((s = b->open(options, out, &why)) == SILL_OK) break;
        if (b == sill__backend_cpu() && err) *err = why;
        else sill__log(2, "device %s cannot be used: %s", b->name, why.msg);
    }
    return s;
}
