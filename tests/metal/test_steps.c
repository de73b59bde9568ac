/*
 * test_steps.c - what a decode step takes, counted by the fake Metal: dispatches a layer, command buffers, and the bytes that
 * dispatches read and write beside weights, keys and values; and that the time these imply keeps the targets of docs/METAL.md.
 *
 *   test_steps --table [MODEL [N]]   the tables of docs/METAL.md (half an hour), or the rows of one model, of N sequences
 */
#include "steps.h"

#define CTX 512

/* Two layers at full width, and what all layers take by them. */
static bool count_model(const shape *s, sill_dtype dtype, bool latency, int32_t n, counts *out) {
    counts c[2] = {{0}};
    for (int i = 0; i < 2; i++) {
        shape few = *s;
        sill_error err = {0};
        few.layers = i + 1;
        if (count_step(&few, dtype, latency, n, CTX, &c[i], &err) != SILL_OK) {
            FAIL("%s: %s", s->name, err.msg);
            return false;
        }
    }
    *out = scaled(&c[0], &c[1], s->layers);
    return true;
}

static const shape narrow_gpt2 = {"narrow GPT-2", 96, 6, 3, 0, 32, 384, 701, 1024};
static const shape narrow_llama = {"narrow Llama", 96, 7, 6, 2, 16, 256, 701, 1024};
static const sill_dtype types[] = {SILL_DTYPE_AUTO, SILL_DTYPE_Q8, SILL_DTYPE_Q4};

/* That layers are alike, so that one and two of them tell of all: whole models counted, to the byte. */
static void layers_are_alike(void) {
    const shape *const shapes[] = {&narrow_gpt2, &narrow_llama};
    NEEDS_FAKE();
    for (size_t i = 0; i < 2; i++)
        for (size_t t = 0; t < SILL_ARRAY_LEN(types); t++)
            for (int32_t n = 1; n <= 9; n += 8) {
                counts rule, whole;
                sill_error err = {0};
                if (!count_model(shapes[i], types[t], n == 1, n, &rule)) return;
                CHECK_OK(count_step(shapes[i], types[t], n == 1, n, CTX, &whole, &err), err);
                CHECK(whole.bytes > whole.ideal && rule.bytes == whole.bytes && rule.ideal == whole.ideal);
                CHECK(rule.dispatches == whole.dispatches && rule.barriers == whole.barriers && rule.flops == whole.flops);
            }
}

/* Weights, keys and values once, in any company; all else are the rows that kernels hand on. */
static void bytes_apart(void) {
    const shape *const shapes[] = {&narrow_gpt2, &narrow_llama};
    const int32_t lanes[] = {1, 16, 64, 1, 5, 32, 33}; /* the first two with all types */
    double worst = 0;
    NEEDS_FAKE();
    for (size_t i = 0; i < 2; i++)
        for (size_t t = 0; t < SILL_ARRAY_LEN(types); t++)
            for (size_t k = 0; k < (t ? 2 : SILL_ARRAY_LEN(lanes)); k++) {
                counts c;
                sill_error err = {0};
                const double n = lanes[k], tables = 2 * 2 * shapes[i]->embd * 4; /* rows looked up */
                CHECK_OK(count_step(shapes[i], types[t], k == 0, lanes[k], CTX, &c, &err), err);
                const double rest = c.bytes - c.weights - c.kv, formula = activations(shapes[i], n);
                worst = SILL_MAX(worst, (c.weights + c.kv) / c.ideal);
                CHECK(c.weights >= c.weights_once && c.weights <= c.weights_once + n * tables);
                CHECK(c.kv >= c.kv_once && c.kv <= c.kv_once * (1 + 2.0 / CTX));
                CHECK(c.weights + c.kv <= 1.03 * c.ideal);
                CHECK(rest >= formula && rest <= 1.03 * formula);
            }
    printf("  weights, keys and values: at most %.4f times what there is\n", worst);
}

/* A layer is five dispatches, six above 32 sequences; five or six more make a step, or four for each 64 sequences and two; one
 * command buffer. */
static void dispatches_of_a_layer(void) {
    const shape *const shapes[] = {&narrow_gpt2, &narrow_llama};
    const int32_t lanes[] = {1, 1, 8, 32, 33, 64, 65, 128, 200};
    NEEDS_FAKE();
    for (size_t i = 0; i < 2; i++)
        for (size_t k = 0; k < SILL_ARRAY_LEN(lanes); k++) {
            counts c;
            sill_error err = {0};
            CHECK_OK(count_step(shapes[i], SILL_DTYPE_AUTO, k == 0, lanes[k], 64, &c, &err), err);
            const int32_t whole = lanes[k] / 64, rest = lanes[k] % 64, head = 4 * whole + (rest > 32 ? 4 : rest > 0 ? 3 : 0);
            CHECK_INT(c.dispatches, (lanes[k] > 32 ? 6 : 5) * shapes[i]->layers + 2 + head);
            CHECK_INT(c.command_buffers, 1);
            CHECK(c.barriers < c.dispatches);
        }
}

/* One sequence at full width and vocabulary. Narrow models would not do: what a step reads beside the weights, most of it
 * logits, grows with the vocabulary as the weights do with the width. */
static void bytes_and_time(void) {
    const struct { const shape *shape; sill_dtype dtype; double least; } wanted[] = {
        {&gpt2_small, SILL_DTYPE_AUTO, 0.65}, {&gpt2_large, SILL_DTYPE_AUTO, 0.75}, {&smollm2, SILL_DTYPE_Q8, 0}, {&smollm2, SILL_DTYPE_Q4, 0}};
    NEEDS_FAKE();
    for (size_t i = 0; i < SILL_ARRAY_LEN(wanted); i++) {
        counts c;
        if (!count_model(wanted[i].shape, wanted[i].dtype, true, 1, &c)) return;
        const speed s = predict(&chips[CHIP_M1_PRO], &slow_guess, &c, 1, wanted[i].dtype != SILL_DTYPE_AUTO);
        printf("  %s: %.1f MB, %.4f of weights and KV; M1 Pro at 5 us a dispatch: %.3f of the limit\n", wanted[i].shape->name, c.bytes / 1e6,
               c.bytes / c.ideal, s.share);
        CHECK(c.bytes >= c.ideal && c.bytes <= 1.03 * c.ideal);
        CHECK(s.share >= wanted[i].least);
    }
}

/* No command buffer is longer than 0.3 s of an M1, a step of a batch of prompts as long as all of them need, and
 * a step that decodes is one. docs/METAL.md has these numbers. */
static void long_steps(void) {
    static const struct { const shape *shape; struct { int32_t texts, tokens, pos; double least, most; int pieces; } steps[4]; } models[] = {
        {&gpt2_small, {{1, 512, 0, 0.06, 0.07, 1}}},
        {&gpt2_large, {{1, 512, 0, 0.49, 0.52, 2}}},
        {&gpt2_xl, {{1, 512, 0, 1, 1.1, 4}, {1, 512, 512, 1.1, 1.2, 4}, {1, 1, 1023, 0.05, 0.06, 1}, {64, 1, 511, 0.28, 0.3, 1}}},
        {&llama_8b, {{1, 512, 0, 4.6, 4.9, 17}, {1, 512, 7680, 7.2, 7.6, 32}, {1, 1, 4095, 0.25, 0.27, 1}}}};
    NEEDS_FAKE();
    fake.set("working-set", 64e9);
    for (size_t i = 0; i < SILL_ARRAY_LEN(models); i++) {
        bench b;
        sill_error err = {0};
        CHECK_OK(bench_open_for(&b, models[i].shape, SILL_DTYPE_AUTO, false, 512, 1, &err), err);
        for (int k = 0; k < 4 && b.host && models[i].steps[k].texts; k++) {
            sill__mtl_pieces p = {0};
            CHECK_OK(record_step(&b, models[i].steps[k].texts, models[i].steps[k].tokens, models[i].steps[k].pos, &p, &err), err);
            printf("  %s, %d times %d tokens behind %d: %.3f s of an M1, %d command buffers of at most %.3f s\n", models[i].shape->name,
                   models[i].steps[k].texts, models[i].steps[k].tokens, models[i].steps[k].pos, p.all, (int)p.n, p.longest);
            CHECK(p.all >= models[i].steps[k].least && p.all <= models[i].steps[k].most);
            CHECK(p.longest <= 0.3);
            CHECK_INT(p.n, models[i].steps[k].pieces);
        }
        bench_close(&b);
    }
    fake.set("working-set", (double)(10ull << 30));
}

/* ------------------------------------------------------------------- the tables */

typedef struct row { const shape *shape; sill_dtype dtype; const char *type; bool latency; int32_t n; counts c; } row;

static void print_counts(const row *r) {
    printf("| %s | %s | %s, %d | %.0f | %.0f | %.1f | %.1f | %.3f |\n", r->shape->name, r->type, r->latency ? "latency" : "corpus", r->n,
           r->c.dispatches, r->c.barriers, r->c.bytes / 1e6, r->c.ideal / 1e6, r->c.bytes / r->c.ideal);
    fflush(stdout);
}

static void print_times(const row *r) {
    printf("| %s | %s | %s, %d |", r->shape->name, r->type, r->latency ? "latency" : "corpus", r->n);
    for (size_t i = 0; i < SILL_ARRAY_LEN(chips); i++) {
        const speed slow = predict(&chips[i], &slow_guess, &r->c, r->n, r->dtype != SILL_DTYPE_AUTO);
        const speed fast = predict(&chips[i], &fast_guess, &r->c, r->n, r->dtype != SILL_DTYPE_AUTO);
        printf(" %.0f to %.0f (%.0f to %.0f %%)%s |", slow.tokens_per_s, fast.tokens_per_s, 100 * slow.share, 100 * fast.share,
               slow.by_arithmetic ? " *" : "");
    }
    printf("\n");
}

static int print_tables(const char *only, int32_t only_n) {
    static row rows[24];
    const struct { const shape *shape; sill_dtype dtype; const char *type; } models[] = {
        {&gpt2_small, SILL_DTYPE_AUTO, "f16"}, {&gpt2_medium, SILL_DTYPE_AUTO, "f16"}, {&gpt2_large, SILL_DTYPE_AUTO, "f16"},
        {&smollm2, SILL_DTYPE_AUTO, "f16"}, {&smollm2, SILL_DTYPE_Q8, "q8"}, {&smollm2, SILL_DTYPE_Q4, "Q4_1, head q8"}};
    const int32_t lanes[] = {1, 8, 32, 64};
    int n = 0;
    if (fake_missing()) return 1;
    printf("| model | weights | path, sequences | dispatches | barriers | MB counted | MB of weights and KV | ratio |\n"
           "| --- | --- | --- | --- | --- | --- | --- | --- |\n");
    for (size_t i = 0; i < SILL_ARRAY_LEN(models); i++)
        for (size_t k = 0; k < SILL_ARRAY_LEN(lanes); k++) {
            if ((only && strcmp(only, models[i].shape->name)) || (only_n && only_n != lanes[k])) continue;
            row *r = &rows[n++];
            *r = (row){.shape = models[i].shape, .dtype = models[i].dtype, .type = models[i].type, .latency = k == 0, .n = lanes[k]};
            if (!count_model(r->shape, r->dtype, r->latency, r->n, &r->c)) return 1;
            print_counts(r);
        }
    printf("\n| model | weights | path, sequences |");
    for (size_t i = 0; i < SILL_ARRAY_LEN(chips); i++) printf(" %s |", chips[i].name);
    printf("\n| --- | --- | --- | --- | --- | --- |\n");
    for (int i = 0; i < n; i++) print_times(&rows[i]);
    return 0;
}

int main(int argc, char **argv) {
    fake_open(argv[0]);
    if (argc > 1 && !strcmp(argv[1], "--table")) return print_tables(argc > 2 ? argv[2] : NULL, argc > 3 ? atoi(argv[3]) : 0);
    TEST(layers_are_alike);
    TEST(bytes_apart);
    TEST(dispatches_of_a_layer);
    TEST(bytes_and_time);
    TEST(long_steps);
    TEST_EXIT();
}
