/*
 * objc.c - finds the Objective-C runtime and Metal. On macOS they are the system's own; elsewhere only the library that
 * SILL_METAL_LIBRARY names, which is how the backend is tested without a Mac.
 */
#include "backend/metal/objc.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>

sill__mtl_runtime sill__mtl_rt;

static pthread_once_t once = PTHREAD_ONCE_INIT;
static sill_error failure; /* code SILL_OK: the runtime is there */

#define MTL_TEXT0(r, name, sel) sel,
#define MTL_TEXT1(r, name, sel, a) sel,
#define MTL_TEXT2(r, name, sel, a, b) sel,
#define MTL_TEXT3(r, name, sel, a, b, c) sel,
#define MTL_TEXT4(r, name, sel, a, b, c, d) sel,
static const char *const selectors[MTL_SEL_COUNT] = {MTL_METHODS(MTL_TEXT0, MTL_TEXT1, MTL_TEXT2, MTL_TEXT3, MTL_TEXT4)};

/* The handles stay open: code of these libraries may run in threads of theirs until the process ends. */
static bool open_libraries(void **objc, void **metal) {
#ifdef __APPLE__
    /* Without CoreGraphics in the process MTLCreateSystemDefaultDevice gives no device. */
    (void)dlopen("/System/Library/Frameworks/CoreGraphics.framework/CoreGraphics", RTLD_NOW | RTLD_GLOBAL);
    *objc = dlopen("/usr/lib/libobjc.A.dylib", RTLD_NOW | RTLD_GLOBAL);
    void *foundation = dlopen("/System/Library/Frameworks/Foundation.framework/Foundation", RTLD_NOW | RTLD_GLOBAL);
    *metal = dlopen("/System/Library/Frameworks/Metal.framework/Metal", RTLD_NOW | RTLD_GLOBAL);
    if (*objc && foundation && *metal) return true;
#else
    const char *path = getenv("SILL_METAL_LIBRARY");
    if (!path || !*path) {
        sill__fail(&failure, SILL_EUNSUPPORTED, "device \"metal\" is for macOS; this is another system");
        return false;
    }
    *objc = *metal = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (*objc) return true;
#endif
    const char *why = dlerror();
    sill__fail(&failure, SILL_EUNSUPPORTED, "Metal cannot be loaded: %s", why ? why : "no reason given");
    return false;
}

/* dlsym gives an object pointer for a function; POSIX says that they convert. */
static bool find(void *library, const char *name, void *to) {
    void *symbol = dlsym(library, name);
    if (!symbol) sill__fail(&failure, SILL_EUNSUPPORTED, "Metal cannot be used: the system has no %s", name);
    memcpy(to, &symbol, sizeof symbol);
    return symbol != NULL;
}

static void open_once(void) {
    void *objc = NULL, *metal = NULL;
    mtl_sel (*selector)(const char *) = NULL;
    sill__mtl_runtime *r = &sill__mtl_rt;
    if (!open_libraries(&objc, &metal) || !find(objc, "objc_msgSend", &r->send) ||
        !find(objc, "objc_getClass", &r->get_class) || !find(objc, "sel_registerName", &selector) ||
        !find(objc, "objc_autoreleasePoolPush", &r->pool_push) || !find(objc, "objc_autoreleasePoolPop", &r->pool_pop) ||
        !find(metal, "MTLCreateSystemDefaultDevice", &r->default_device))
        return;
#ifndef __APPLE__
    void *extent = dlsym(metal, "fakemetal_extent");
    memcpy(&r->extent, &extent, sizeof extent);
#endif
    for (int i = 0; i < MTL_SEL_COUNT; i++) r->sel[i] = selector(selectors[i]);
}

sill_status sill__mtl_runtime_open(sill_error *err) {
    pthread_once(&once, open_once);
    if (failure.code != SILL_OK && err) *err = failure;
    return failure.code;
}
