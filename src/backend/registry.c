/* registry.c - the backends of this build, by name. */
#include "backend/backend.h"

sill_status sill__backend_find(const char *name, const sill__backend **out, sill_error *err) {
    *out = NULL;
    if (!name || !*name || !strcmp(name, "auto") || !strcmp(name, "cpu")) *out = sill__backend_cpu();
    else if (!strcmp(name, "ref")) *out = sill__backend_ref();
    if (*out) return SILL_OK;
    return sill__fail(err, SILL_EUNSUPPORTED, "device \"%.40s\" is not in this build; there are: auto, cpu, ref", name);
}
