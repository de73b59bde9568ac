/* Settings from the environment, faults to inject, and how a mistake ends the process. */
#include "fake.h"
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

fake_settings fake_set = { .os = 15.0, .family = 1007, .working_set = 10ull << 30, .max_buffer = 8ull << 30, .max_threads = MSL_MAX_THREADS,
    .races = true, .workers = 2, .error_code = 1 };
char fake_doing[160];
const fake_executor *fake_elsewhere;

void fake_die(const char *f, ...)
{
    char text[900];
    va_list a;
    va_start(a, f);
    vsnprintf(text, sizeof text, f, a);
    va_end(a);
    static int dying;                   /* one thread tells; another that finds its own mistake meanwhile waits for the end */
    if (__atomic_exchange_n(&dying, 1, __ATOMIC_ACQ_REL)) for (;;) pause();
    fprintf(stderr, "fake Metal: %s\n", text);
    fflush(NULL);
    abort();
}
static double number(const char *name, double otherwise)
{
    const char *s = getenv(name);
    return s && *s ? strtod(s, NULL) : otherwise;
}
int fakemetal_set(const char *what, double v)
{
    if (!strcmp(what, "os")) fake_set.os = v;
    else if (!strcmp(what, "family")) fake_set.family = (long)v;
    else if (!strcmp(what, "working-set")) fake_set.working_set = (uint64_t)v;
    else if (!strcmp(what, "max-buffer")) fake_set.max_buffer = (uint64_t)v;
    else if (!strcmp(what, "max-threads")) fake_set.max_threads = (unsigned)v;
    else if (!strcmp(what, "schedule")) fake_set.schedule = (unsigned)v;
    else if (!strcmp(what, "async")) fake_set.async = v != 0;
    else if (!strcmp(what, "races")) fake_set.races = v != 0;
    else if (!strcmp(what, "workers")) fake_set.workers = (unsigned)v;
    else if (!strcmp(what, "error-code")) fake_set.error_code = (long)v;
    else if (!strcmp(what, "fast")) fake_set.fast = v != 0;
    else return -1;
    return 0;
}
void fake_settings_load(void)
{
    static const struct { const char *env, *what; } map[] = { { "FAKEMETAL_OS", "os" }, { "FAKEMETAL_FAMILY", "family" }, { "FAKEMETAL_WORKING_SET", "working-set" },
        { "FAKEMETAL_MAX_BUFFER", "max-buffer" }, { "FAKEMETAL_MAX_THREADS", "max-threads" }, { "FAKEMETAL_SCHEDULE", "schedule" }, { "FAKEMETAL_ASYNC", "async" },
        { "FAKEMETAL_RACES", "races" }, { "FAKEMETAL_WORKERS", "workers" }, { "FAKEMETAL_FAST", "fast" } };
    for (size_t i = 0; i < sizeof map / sizeof *map; i++) {
        const double v = number(map[i].env, -1e300);
        if (v > -1e299) fakemetal_set(map[i].what, v);
    }
    fake_set.path = getenv("FAKEMETAL_REPORT");
    fake_set.keep_all = fake_set.path != NULL;
    fakemetal_skip_barrier((int)number("FAKEMETAL_SKIP_BARRIER", 0));
    const char *f = getenv("FAKEMETAL_FAULT");          /* what:after[:times] */
    if (f) {
        char what[64];
        long after = 1, times = 1;
        if (sscanf(f, "%63[^:]:%ld:%ld", what, &after, &times) < 1 || fakemetal_fault(what, after, times)) fake_die("FAKEMETAL_FAULT=%s is not understood", f);
    }
}

static struct { const char *what; long after, times; } faults[] = { { "command-buffer", 0, 0 }, { "buffer", 0, 0 }, { "library", 0, 0 }, { "pipeline", 0, 0 },
    { "queue", 0, 0 }, { "residency-set", 0, 0 }, { "archive", 0, 0 }, { "function", 0, 0 } };
static pthread_mutex_t fault_lock = PTHREAD_MUTEX_INITIALIZER;
/* How command buffers end that Metal does not run to their end: MTLCommandBufferError and macOS's words where they are known. After
 * those that are for good no command buffer of the process is run any more. */
static const struct { const char *what; long code; const char *text; bool for_good; } endings[] = {
    { "internal", 1, "Discarded (victim of GPU error/recovery) (00000005:kIOGPUCommandBufferCallbackErrorInnocentVictim)", false },
    { "timeout", 2, "Caused GPU Timeout Error (00000002:kIOGPUCommandBufferCallbackErrorTimeout)", false },
    { "page-fault", 3, "Caused GPU Address Fault Error (0000000b:kIOGPUCommandBufferCallbackErrorPageFault)", false },
    { "access-revoked", 4, "Ignored (for causing prior/excessive GPU errors) (00000004:kIOGPUCommandBufferCallbackErrorSubmissionsIgnored)", true },
    { "not-permitted", 7, "Insufficient Permission (to submit GPU work from background) (00000006:kIOGPUCommandBufferCallbackErrorBackgroundExecutionNotPermitted)", false },
    { "out-of-memory", 8, "Insufficient Memory (00000008:kIOGPUCommandBufferCallbackErrorOutOfMemory)", false },
    { "invalid-resource", 9, "Invalid Resource (00000009:kIOGPUCommandBufferCallbackErrorInvalidResource)", false },
    { "device-removed", 11, "the device was removed", true }, { "stack-overflow", 12, "stack overflow", false } };
#define N_ENDINGS (sizeof endings / sizeof *endings)
static struct { long after, times; bool gone; } ending[N_ENDINGS];
static int ending_named(const char *what)
{
    for (int i = 0; i < (int)N_ENDINGS; i++) if (!strcmp(endings[i].what, what)) return i;
    return -1;
}
int fakemetal_fault(const char *what, long after, long times)
{
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++)
        if (!strcmp(faults[i].what, what)) { faults[i].after = after; faults[i].times = times; return 0; }
    const int e = ending_named(what);
    if (e >= 0) { ending[e].after = after; ending[e].times = times; ending[e].gone = false; return 0; }
    return -1;
}
bool fake_ending(long *code, char *text, size_t cap)
{
    size_t i;
    pthread_mutex_lock(&fault_lock);
    for (i = 0; i < N_ENDINGS && !ending[i].gone; i++) {}
    for (size_t k = 0; i == N_ENDINGS && k < N_ENDINGS; k++) {
        if (ending[k].times <= 0) continue;
        if (ending[k].after > 1) { ending[k].after--; continue; }
        ending[k].times--;
        ending[k].gone = endings[k].for_good;
        i = k;
        break;
    }
    pthread_mutex_unlock(&fault_lock);
    if (i < N_ENDINGS) { *code = endings[i].code; snprintf(text, cap, "%s", endings[i].text); return true; }
    if (!fake_fault("command-buffer")) return false;
    *code = fake_set.error_code;
    snprintf(text, cap, "an injected fault: the command buffer failed");
    return true;
}
bool fake_fault(const char *what)
{
    bool fail = false;
    pthread_mutex_lock(&fault_lock);
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        if (strcmp(faults[i].what, what) || faults[i].times <= 0) continue;
        if (faults[i].after > 1) { faults[i].after--; continue; }
        faults[i].times--;
        fail = true;
    }
    pthread_mutex_unlock(&fault_lock);
    return fail;
}
