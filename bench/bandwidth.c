/*
 * bandwidth.c - how fast this machine reads memory with N threads, in plain C: the limit that decoding is
 * held against. Reads a block much larger than the caches, with ordinary and with huge pages, and prints the
 * better of several runs of each as one JSON line. `bandwidth [THREADS [MIB]]`
 */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

typedef uint64_t lanes __attribute__((vector_size(64)));

typedef struct job { const lanes *from; size_t n; uint64_t sum; pthread_barrier_t *gate; } job;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Four running sums in registers, so that additions never wait for one another. */
static void *read_all(void *arg) {
    job *j = arg;
    pthread_barrier_wait(j->gate);
    lanes a = {0}, b = {0}, c = {0}, d = {0};
    for (size_t i = 0; i + 4 <= j->n; i += 4) {
        a += j->from[i];
        b += j->from[i + 1];
        c += j->from[i + 2];
        d += j->from[i + 3];
    }
    a += b + c + d;
    for (int i = 0; i < 8; i++) j->sum += a[i];
    pthread_barrier_wait(j->gate);
    return NULL;
}

static double measure(const char *block, size_t bytes, int n_threads, uint64_t *sum) {
    pthread_t threads[64];
    job jobs[64];
    pthread_barrier_t gate;
    size_t share = bytes / (size_t)n_threads / 256 * 256;
    pthread_barrier_init(&gate, NULL, (unsigned)n_threads + 1);
    for (int i = 0; i < n_threads; i++) {
        jobs[i] = (job){(const lanes *)(const void *)(block + share * (size_t)i), share / sizeof(lanes), 0, &gate};
        pthread_create(&threads[i], NULL, read_all, &jobs[i]);
    }
    pthread_barrier_wait(&gate);
    double from = now();
    pthread_barrier_wait(&gate);
    double seconds = now() - from;
    for (int i = 0; i < n_threads; i++) {
        pthread_join(threads[i], NULL);
        *sum += jobs[i].sum;
    }
    pthread_barrier_destroy(&gate);
    return (double)(share * (size_t)n_threads) / seconds / 1e9;
}

int main(int argc, char **argv) {
    int n_threads = argc > 1 ? (int)strtol(argv[1], NULL, 10) : 1;
    size_t bytes = (argc > 2 ? (size_t)strtoul(argv[2], NULL, 10) : 1024) << 20;
    if (n_threads < 1 || n_threads > 64 || bytes < 1 << 20) {
        fprintf(stderr, "usage: bandwidth [THREADS (1 to 64) [MIB]]\n");
        return 2;
    }
    double best[2] = {0, 0};
    uint64_t sum = 0;
    for (int huge = 0; huge < 2; huge++) {
        char *block = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (block == MAP_FAILED) {
            fprintf(stderr, "bandwidth: cannot map %zu MiB\n", bytes >> 20);
            return 1;
        }
#ifdef MADV_HUGEPAGE
        madvise(block, bytes, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
#endif
        memset(block, 1, bytes);
        for (int run = 0; run < 4; run++) {
            double got = measure(block, bytes, n_threads, &sum);
            if (got > best[huge]) best[huge] = got;
        }
        munmap(block, bytes);
    }
    printf("{\"threads\": %d, \"gb_per_s\": %.2f, \"gb_per_s_huge\": %.2f, \"sum\": %llu}\n", n_threads, best[0], best[1],
           (unsigned long long)sum);
    return 0;
}
