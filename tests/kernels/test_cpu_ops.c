/*
 * The CPU backend's whole op list. Small models of odd shapes run ragged batches (a) against the reference backend, every
 * intermediate result within a stated normalized error, under every instruction set; (b) against themselves: the same bits
 * for a sequence alone and in company, for any chunking, 1 to 8 threads, with and without kept logits.
 */
#include "ops_common.h"

/* ---------------------------------------------------------- (a) the reference */

/* Prefill of three ragged runs, then decoding with another prompt joining, across block borders. */
static const step ragged[] = {
    {3, {{2, 37}, {0, 1}, {4, 64}}}, {4, {{0, 1}, {2, 1}, {4, 1}, {1, 33}}}, {1, {{3, 5}}},
    {5, {{1, 1}, {3, 1}, {0, 30}, {2, 27}, {4, 1}}},
};

static void compare(const world *cpu, const world *ref, const rows *r, const char *isa) {
    const shape *s = cpu->s;
    for (int t = 0; t < N_TRACES; t++) {
        const float *a = trace(cpu, t), *b = trace(ref, t);
        size_t n = cpu->widths[t] * (size_t)(t < T_HIDDEN ? r->batch.n_tokens : r->batch.n_out);
        double off = 0, all = 0;
        for (size_t i = 0; i < n; i++) {
            off += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
            all += (double)b[i] * b[i];
        }
        if (!(off <= s->bound * all)) FAIL("%s %s: %s has normalized error %.3g", s->name, isa, trace_names[t], off / all);
    }
    for (int32_t i = 0; i < r->batch.n_out; i++) /* the best are the best where the order is clear */
        for (int k = 0; k + 1 < N_TOP; k++) {
            const float *lp = trace(ref, T_TOP) + i * N_TOP;
            float margin = 20 * (float)sqrt(s->bound) * 10;
            if ((k == 0 || lp[k - 1] - lp[k] > margin) && lp[k] - lp[k + 1] > margin)
                CHECK_INT(top_ids(cpu)[i * N_TOP + k], top_ids(ref)[i * N_TOP + k]);
        }
}

static void ops_against_reference(const char *isa, const shape *s) {
    static rows r;
    tensors t;
    world cpu, ref;
    make_tensors(s, &t);
    bool cpu_open = world_open(&cpu, sill__backend_cpu(), isa, 2, s, &t);
    bool ref_open = world_open(&ref, sill__backend_ref(), NULL, 1, s, &t);
    if (cpu_open && ref_open)
        for (size_t k = 0; k < SILL_ARRAY_LEN(ragged); k++) {
            run_step(&cpu, &ragged[k], &r, true);
            run_step(&ref, &ragged[k], &r, true);
            compare(&cpu, &ref, &r, isa);
        }
    world_close(&cpu);
    world_close(&ref);
    free_tensors(&t);
}

/* ------------------------------------------------------------- (b) same bits */

static const step alone[] = {{1, {{0, 40}}}, {1, {{1, 1}}}, {1, {{2, 66}}}, {1, {{3, 33}}}, {1, {{4, 12}}}};
static const step together[] = {{5, {{4, 12}, {2, 66}, {1, 1}, {0, 40}, {3, 33}}}};
static const step chunked[] = {
    {3, {{0, 3}, {2, 31}, {3, 1}}}, {4, {{2, 1}, {0, 30}, {4, 11}, {3, 31}}}, {2, {{2, 33}, {3, 1}}},
    {4, {{1, 1}, {0, 1}, {2, 1}, {4, 1}}}, {1, {{0, 6}}},
};

static void run_plan(const char *isa, int n_threads, const shape *s, const tensors *t, const step *steps, size_t n,
                     bool keep_logits, results *out) {
    static rows r;
    world w;
    memset(out, 0, sizeof *out);
    if (world_open(&w, sill__backend_cpu(), isa, n_threads, s, t))
        for (size_t k = 0; k < n; k++) {
            run_step(&w, &steps[k], &r, keep_logits);
            collect(&w, &r, out);
        }
    world_close(&w);
}

static void same_bits(const char *isa, const shape *s) {
    static results want, got;
    tensors t;
    make_tensors(s, &t);
    run_plan(isa, 1, s, &t, alone, SILL_ARRAY_LEN(alone), true, &want);
    for (int n_threads = 1; n_threads <= 8; n_threads += n_threads < 3 ? 1 : 5)
        for (int plan = 0; plan < 3; plan++) {
            const step *steps = plan == 0 ? alone : plan == 1 ? together : chunked;
            size_t n = plan == 0 ? SILL_ARRAY_LEN(alone) : plan == 1 ? 1 : SILL_ARRAY_LEN(chunked);
            run_plan(isa, n_threads, s, &t, steps, n, plan == 2, &got);
            if (memcmp(&want, &got, sizeof want))
                FAIL("%s %s: other bits with %d threads, %s", s->name, isa, n_threads,
                     plan == 0 ? "alone" : plan == 1 ? "together" : "chunked");
        }
    free_tensors(&t);
}

/* Runs a test for each shape under each instruction set of this machine. */
#define EACH(fn)                                                                                                       \
    do {                                                                                                               \
        for (size_t s_ = 0; s_ < SILL_ARRAY_LEN(shapes); s_++)                                                         \
            for (int i_ = 0; sill__cpu_isas[i_]; i_++) {                                                               \
                const char *isa_ = sill__cpu_isas[i_]->name;                                                           \
                char name_[96];                                                                                        \
                snprintf(name_, sizeof name_, "cpu_" #fn "_%s_%s", shapes[s_].name, isa_);                             \
                if (argc > 1 && strcmp(argv[1], name_)) continue;                                                      \
                test_failures = 0;                                                                                     \
                if (!sill__cpu_isas[i_]->available()) {                                                                \
                    printf("SKIP %s: this processor lacks it\n", name_);                                               \
                    continue;                                                                                          \
                }                                                                                                      \
                fn(isa_, &shapes[s_]);                                                                                 \
                if (test_failures) test_bad++;                                                                         \
                if (test_failures) printf("FAIL %s (%d checks)\n", name_, test_failures);                              \
                else printf("PASS %s\n", name_);                                                                       \
                fflush(stdout);                                                                                        \
            }                                                                                                          \
    } while (0)

int main(int argc, char **argv) {
    (void)test_skipped;
    EACH(ops_against_reference);
    EACH(same_bits);
    TEST_EXIT();
}
