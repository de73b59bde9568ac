/*
 * objc.h - Metal from C: every method that is called, as a C function with the types of that method. Nothing of Apple's
 * is needed to build this, and nothing is linked: objc.c finds the Objective-C runtime and Metal when a device opens.
 *
 * A row of MTL_METHODS gives a method's result, our name, its selector and the types of its arguments; the function
 * mtl_NAME(object, ...) sends it. Methods that return structs of more than 16 bytes are sent otherwise: none is here.
 */
#ifndef SILL_METAL_OBJC_H
#define SILL_METAL_OBJC_H

#include "base/base.h"

typedef struct objc_object *mtl_id;
typedef struct objc_selector *mtl_sel;
typedef unsigned long mtl_uint; /* NSUInteger */
typedef signed char mtl_bool;   /* BOOL: signed char or bool, a byte that holds 0 or 1 both ways */
typedef struct mtl_size { mtl_uint width, height, depth; } mtl_size;

/* Values of Metal's enumerations that are used. */
enum {
    MTL_STORAGE_SHARED = 0,       /* MTLResourceStorageModeShared */
    MTL_UNTRACKED = 1 << 8,       /* MTLResourceHazardTrackingModeUntracked */
    MTL_DISPATCH_CONCURRENT = 1,  /* MTLDispatchTypeConcurrent */
    MTL_BARRIER_BUFFERS = 1,      /* MTLBarrierScopeBuffers */
    MTL_DATA_UINT = 33,           /* MTLDataTypeUInt */
    MTL_STATUS_COMPLETED = 4, MTL_STATUS_ERROR = 5, /* MTLCommandBufferStatus */
    MTL_FAMILY_APPLE7 = 1007,     /* MTLGPUFamilyApple7: M1; 1008: M2; 1009: M3 */
    MTL_LANGUAGE_3_0 = 3 << 16,   /* MTLLanguageVersion3_0: macOS 13 */
    MTL_MATH_SAFE = 0,            /* MTLMathModeSafe (macOS 15) */
    MTL_MATH_FUNCTIONS_PRECISE = 1 /* MTLMathFloatingPointFunctionsPrecise (macOS 15) */
};

#define MTL_METHODS(M0, M1, M2, M3, M4)                                                                          \
    M0(mtl_id, retain, "retain")                                                                                 \
    M0(void, release, "release")                                                                                 \
    M0(mtl_id, alloc, "alloc")                                                                                   \
    M0(mtl_id, init, "init")                                                                                     \
    M1(mtl_bool, responds, "respondsToSelector:", mtl_sel)                                                       \
    /* Foundation */                                                                                             \
    M1(mtl_id, string_with, "stringWithUTF8String:", const char *)                                               \
    M0(const char *, string_utf8, "UTF8String")                                                                  \
    M1(mtl_id, url_with_path, "fileURLWithPath:", mtl_id)                                                        \
    M1(mtl_id, array_with, "arrayWithObject:", mtl_id)                                                           \
    M0(mtl_id, error_text, "localizedDescription")                                                               \
    M0(long, error_code, "code")                                                                                 \
    /* MTLDevice */                                                                                              \
    M0(mtl_id, device_name, "name")                                                                              \
    M0(mtl_bool, device_unified, "hasUnifiedMemory")                                                             \
    M0(uint64_t, device_working_set, "recommendedMaxWorkingSetSize")                                             \
    M0(mtl_uint, device_max_buffer, "maxBufferLength")                                                           \
    M1(mtl_bool, device_is_family, "supportsFamily:", long)                                                      \
    M0(mtl_id, device_new_queue, "newCommandQueue")                                                              \
    M0(mtl_id, device_new_fence, "newFence")                                                                     \
    M3(mtl_id, device_new_library, "newLibraryWithSource:options:error:", mtl_id, mtl_id, mtl_id *)              \
    M4(mtl_id, device_new_pipeline, "newComputePipelineStateWithDescriptor:options:reflection:error:", mtl_id,   \
       mtl_uint, mtl_id *, mtl_id *)                                                                             \
    M2(mtl_id, device_new_archive, "newBinaryArchiveWithDescriptor:error:", mtl_id, mtl_id *)                    \
    M2(mtl_id, device_new_buffer, "newBufferWithLength:options:", mtl_uint, mtl_uint)                            \
    M4(mtl_id, device_wrap_buffer, "newBufferWithBytesNoCopy:length:options:deallocator:", void *, mtl_uint,     \
       mtl_uint, mtl_id)                                                                                         \
    M2(mtl_id, device_new_residency, "newResidencySetWithDescriptor:error:", mtl_id, mtl_id *)                   \
    /* MTLCompileOptions; mathMode and its companion since macOS 15, in place of fastMathEnabled */              \
    M1(void, options_language, "setLanguageVersion:", mtl_uint)                                                  \
    M1(void, options_fast_math, "setFastMathEnabled:", mtl_bool)                                                 \
    M1(void, options_math_mode, "setMathMode:", long)                                                            \
    M1(void, options_math_functions, "setMathFloatingPointFunctions:", long)                                     \
    /* MTLLibrary, MTLFunctionConstantValues, MTLComputePipelineDescriptor, MTLComputePipelineState */           \
    M3(mtl_id, library_new_function, "newFunctionWithName:constantValues:error:", mtl_id, mtl_id, mtl_id *)      \
    M3(void, constants_set, "setConstantValue:type:atIndex:", const void *, mtl_uint, mtl_uint)                  \
    M1(void, descriptor_function, "setComputeFunction:", mtl_id)                                                 \
    M1(void, descriptor_archives, "setBinaryArchives:", mtl_id)                                                  \
    M0(mtl_uint, pipeline_max_threads, "maxTotalThreadsPerThreadgroup")                                          \
    M0(mtl_uint, pipeline_width, "threadExecutionWidth")                                                         \
    M0(mtl_uint, pipeline_local_bytes, "staticThreadgroupMemoryLength")                                          \
    /* MTLBinaryArchiveDescriptor, MTLBinaryArchive */                                                           \
    M1(void, archive_url, "setUrl:", mtl_id)                                                                     \
    M2(mtl_bool, archive_add, "addComputePipelineFunctionsWithDescriptor:error:", mtl_id, mtl_id *)              \
    M2(mtl_bool, archive_write, "serializeToURL:error:", mtl_id, mtl_id *)                                       \
    /* MTLBuffer, MTLResidencySet (macOS 15) */                                                                  \
    M0(void *, buffer_contents, "contents")                                                                      \
    M1(void, residency_add, "addAllocation:", mtl_id)                                                            \
    M1(void, residency_remove, "removeAllocation:", mtl_id)                                                      \
    M0(void, residency_request, "requestResidency")                                                              \
    M0(void, residency_end, "endResidency")                                                                      \
    /* MTLCommandQueue, MTLCommandBuffer; commit is the residency set's as well */                               \
    M0(mtl_id, queue_commands, "commandBufferWithUnretainedReferences")                                          \
    M1(void, queue_add_residency, "addResidencySet:", mtl_id)                                                    \
    M1(mtl_id, commands_encoder, "computeCommandEncoderWithDispatchType:", mtl_uint)                             \
    M0(void, commit, "commit")                                                                                   \
    M0(void, commands_wait, "waitUntilCompleted")                                                                \
    M0(mtl_uint, commands_status, "status")                                                                      \
    M0(mtl_id, commands_error, "error")                                                                          \
    M0(double, commands_start, "GPUStartTime")                                                                   \
    M0(double, commands_end, "GPUEndTime")                                                                       \
    /* MTLComputeCommandEncoder */                                                                               \
    M1(void, encoder_pipeline, "setComputePipelineState:", mtl_id)                                               \
    M3(void, encoder_buffer, "setBuffer:offset:atIndex:", mtl_id, mtl_uint, mtl_uint)                            \
    M3(void, encoder_bytes, "setBytes:length:atIndex:", const void *, mtl_uint, mtl_uint)                        \
    M2(void, encoder_local, "setThreadgroupMemoryLength:atIndex:", mtl_uint, mtl_uint)                           \
    M2(void, encoder_dispatch, "dispatchThreadgroups:threadsPerThreadgroup:", mtl_size, mtl_size)                \
    M1(void, encoder_barrier, "memoryBarrierWithScope:", mtl_uint)                                               \
    M1(void, encoder_wait_fence, "waitForFence:", mtl_id)                                                        \
    M1(void, encoder_update_fence, "updateFence:", mtl_id)                                                       \
    M0(void, encoder_end, "endEncoding")

#define MTL_NAME0(r, name, sel) MTL_SEL_##name,
#define MTL_NAME1(r, name, sel, a) MTL_SEL_##name,
#define MTL_NAME2(r, name, sel, a, b) MTL_SEL_##name,
#define MTL_NAME3(r, name, sel, a, b, c) MTL_SEL_##name,
#define MTL_NAME4(r, name, sel, a, b, c, d) MTL_SEL_##name,
enum { MTL_METHODS(MTL_NAME0, MTL_NAME1, MTL_NAME2, MTL_NAME3, MTL_NAME4) MTL_SEL_COUNT };

/* The runtime, found once a process. */
typedef struct sill__mtl_runtime {
    void (*send)(void);                    /* objc_msgSend, to be cast */
    mtl_id (*get_class)(const char *name);
    mtl_id (*default_device)(void);        /* MTLCreateSystemDefaultDevice */
    void *(*pool_push)(void);
    void (*pool_pop)(void *pool);
    void (*extent)(mtl_id encoder, mtl_uint index, mtl_uint bytes); /* the fake's alone: how much of a bound buffer is meant */
    mtl_sel sel[MTL_SEL_COUNT];
} sill__mtl_runtime;
extern sill__mtl_runtime sill__mtl_rt;
/* EUNSUPPORTED where there is no Metal, with the reason. Safe from any thread; the answer is kept. */
sill_status sill__mtl_runtime_open(sill_error *err);

#define MTL_CALL0(r, name, sel_)                                                                                 \
    static inline r mtl_##name(mtl_id o) {                                                                       \
        return ((r(*)(mtl_id, mtl_sel))sill__mtl_rt.send)(o, sill__mtl_rt.sel[MTL_SEL_##name]);                  \
    }
#define MTL_CALL1(r, name, sel_, A)                                                                              \
    static inline r mtl_##name(mtl_id o, A a) {                                                                  \
        return ((r(*)(mtl_id, mtl_sel, A))sill__mtl_rt.send)(o, sill__mtl_rt.sel[MTL_SEL_##name], a);            \
    }
#define MTL_CALL2(r, name, sel_, A, B)                                                                           \
    static inline r mtl_##name(mtl_id o, A a, B b) {                                                             \
        return ((r(*)(mtl_id, mtl_sel, A, B))sill__mtl_rt.send)(o, sill__mtl_rt.sel[MTL_SEL_##name], a, b);      \
    }
#define MTL_CALL3(r, name, sel_, A, B, C)                                                                        \
    static inline r mtl_##name(mtl_id o, A a, B b, C c) {                                                        \
        return ((r(*)(mtl_id, mtl_sel, A, B, C))sill__mtl_rt.send)(o, sill__mtl_rt.sel[MTL_SEL_##name], a, b, c); \
    }
#define MTL_CALL4(r, name, sel_, A, B, C, D)                                                                     \
    static inline r mtl_##name(mtl_id o, A a, B b, C c, D d) {                                                   \
        return ((r(*)(mtl_id, mtl_sel, A, B, C, D))sill__mtl_rt.send)(o, sill__mtl_rt.sel[MTL_SEL_##name], a, b, \
                                                                      c, d);                                     \
    }
MTL_METHODS(MTL_CALL0, MTL_CALL1, MTL_CALL2, MTL_CALL3, MTL_CALL4)

static inline mtl_id mtl_class(const char *name) { return sill__mtl_rt.get_class(name); }
/* [[Name alloc] init]; the caller's to release. NULL where the class is not known. */
static inline mtl_id mtl_new(const char *name) { return mtl_init(mtl_alloc(mtl_class(name))); }
/* Autoreleased. */
static inline mtl_id mtl_string(const char *text) { return mtl_string_with(mtl_class("NSString"), text); }
static inline bool mtl_has(mtl_id o, int sel) { return mtl_responds(o, sill__mtl_rt.sel[sel]); }

#endif
