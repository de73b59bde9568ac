/* registry.c - the backends of this build, by name. */
#include "backend/backend.h"

#include <stdio.h>

const sill__backend *sill__backend_at(int i) {
#ifdef SILL_METAL
    if (i-- == 0) return sill__backend_metal();
#endif
    return i == 0 ? sill__backend_cpu() : i == 1 ? sill__backend_ref() : NULL;
}

sill_status sill__backend_find(const char *name, const sill__backend **out, sill_error *err) {
    char names[64] = "auto";
    const sill__backend *b;
    *out = NULL;
    for (int i = 0; (b = sill__backend_at(i)); i++) {
        size_t n = strlen(names);
        snprintf(names + n, sizeof names - n, ", %s", b->name);
        if (!*out && (!name || !*name || !strcmp(name, "auto") || !strcmp(name, b->name))) *out = b;
    }
    if (*out) return SILL_OK;
    return sill__fail(err, SILL_EUNSUPPORTED, "device \"%.40s\" is not in this build; there are: %s", name, names);
}
