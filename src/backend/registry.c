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
        const bool any = !name || !*name || !strcmp(name, "auto"); /* the one that always opens stands for it */
        if (any ? b == sill__backend_cpu() : !strcmp(name, b->name)) *out = b;
    }
    if (*out) return SILL_OK;
    return sill__fail(err, SILL_EUNSUPPORTED, "device \"%.40s\" is not in this build; there are: %s", name, names);
}

uint64_t sill__device_available(const sill__backend *ops, const sill__device *device, uint64_t limit) {
    uint64_t system = limit ? limit : sill__available_bytes(), room = ops->room ? ops->room(device) : UINT64_MAX;
    if (system == 0 && room == UINT64_MAX) return 0;
    return SILL_MAX(system ? SILL_MIN(system, room) : room, 1);
}
