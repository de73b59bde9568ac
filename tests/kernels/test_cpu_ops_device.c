/*
 * The CPU device around its ops: instruction sets by name, sizes told before, forks of KV blocks, sessions of several
 * threads on one device, errors that stay in the queue, and failing allocations.
 */
#include "ops_common.h"

#include <pthread.h>

static void fork_of_a_block_continues_with_the_same_bits(void) {
    static const step prompt = {2, {{0, 40}, {3, 9}}}, next = {2, {{3, 1}, {0, 6}}};
    static rows r;
    static results want, got;
    for (size_t k = 0; k < SILL_ARRAY_LEN(shapes); k++) {
        tensors t;
        world w;
        make_tensors(&shapes[k], &t);
        for (int fork = 0; fork < 2; fork++) {
            results *out = fork ? &got : &want;
            memset(out, 0, sizeof *out);
            if (world_open(&w, sill__backend_cpu(), NULL, 2, &shapes[k], &t)) {
                sill_error err = {0};
                int32_t spare = N_SEQS * BLOCKS_EACH;
                run_step(&w, &prompt, &r, false);
                if (fork) { /* positions 32 .. 39 go on in another block; the old one is overwritten by a stranger */
                    sill__batch none = {0};
                    w.ops->begin(w.queue, &none);
                    w.ops->kv_copy(w.queue, w.kv, w.blocks[0][1], spare, 8);
                    w.ops->kv_copy(w.queue, w.kv, w.blocks[0][0], w.blocks[0][1], 32);
                    CHECK_OK(w.ops->submit(w.queue, NULL, &err), err);
                    CHECK_OK(w.ops->wait(w.queue, 0, &err), err);
                    w.blocks[0][1] = spare;
                }
                run_step(&w, &next, &r, false);
                collect(&w, &r, out);
            }
            world_close(&w);
        }
        if (memcmp(&want, &got, sizeof want)) FAIL("%s: a forked sequence has other bits", shapes[k].name);
        free_tensors(&t);
    }
}

/* ------------------------------------------------------------------ sharing */

typedef struct session { world w; results out; rows r; } session;

static const step one[] = {{2, {{0, 40}, {2, 33}}}, {2, {{2, 1}, {0, 1}}}, {1, {{0, 5}}}};

static void *run_session(void *arg) {
    session *s = arg;
    for (size_t k = 0; k < SILL_ARRAY_LEN(one); k++) {
        sill_error err = {0};
        make_rows(&s->w, &one[k], &s->r); /* not run_step: its allocation count is the whole process's */
        s->w.ops->begin(s->w.queue, &s->r.batch);
        record(&s->w, &s->r, true);
        CHECK_OK(s->w.ops->submit(s->w.queue, NULL, &err), err);
        CHECK_OK(s->w.ops->wait(s->w.queue, 0, &err), err);
        for (int i = 0; i < one[k].n_parts; i++) s->w.lengths[one[k].parts[i].seq] += one[k].parts[i].n;
        collect(&s->w, &s->r, &s->out);
    }
    return NULL;
}

static void sessions_of_several_threads_share_a_device(void) {
    static session sessions[3];
    static world host;
    pthread_t threads[3];
    tensors t;
    make_tensors(&shapes[2], &t);
    REQUIRE(world_open(&host, sill__backend_cpu(), NULL, 2, &shapes[2], &t));
    for (int i = 0; i < 3; i++) REQUIRE(world_join(&sessions[i].w, &host));
    for (int i = 0; i < 3; i++) REQUIRE(pthread_create(&threads[i], NULL, run_session, &sessions[i]) == 0);
    for (int i = 0; i < 3; i++) pthread_join(threads[i], NULL);
    for (int i = 1; i < 3; i++) CHECK(!memcmp(&sessions[0].out, &sessions[i].out, sizeof sessions[0].out));
    CHECK(sessions[0].out.lse[0][0] != 0);
    for (int i = 0; i < 3; i++) world_close(&sessions[i].w);
    world_close(&host);
    free_tensors(&t);
}

/* ------------------------------------------------------------------- device */

static void instruction_sets_by_name(void) {
    sill__device *d = NULL;
    sill_error err = {0};
    char name[64], want[64];
    for (int i = 0; sill__cpu_isas[i]; i++) {
        sill__device_options options = {.n_threads = 1, .isa = sill__cpu_isas[i]->name};
        sill_status s = sill__backend_cpu()->open(&options, &d, &err);
        CHECK_INT(s, sill__cpu_isas[i]->available() ? SILL_OK : SILL_EUNSUPPORTED);
        if (s != SILL_OK) continue;
        sill__backend_cpu()->describe(d, name, sizeof name);
        snprintf(want, sizeof want, "cpu %s", sill__cpu_isas[i]->name);
        CHECK_STR(name, want);
        CHECK_INT(sill__backend_cpu()->n_threads(d), 1);
        sill__backend_cpu()->close(d);
    }
    setenv("SILL_CPU_ISA", "mmx", 1);
    CHECK_INT(sill__backend_cpu()->open(NULL, &d, &err), SILL_EUNSUPPORTED);
    CHECK(d == NULL && strstr(err.msg, "mmx") && strstr(err.msg, "scalar"));
    setenv("SILL_CPU_ISA", "scalar", 1);
    CHECK_OK(sill__backend_cpu()->open(NULL, &d, &err), err);
    sill__backend_cpu()->describe(d, name, sizeof name);
    CHECK_STR(name, "cpu scalar");
    CHECK_INT(sill__backend_cpu()->n_threads(d), sill__n_cores());
    sill__backend_cpu()->close(d);
    unsetenv("SILL_CPU_ISA");
}

static void backends_by_name(void) {
    const sill__backend *b = NULL;
    sill_error err = {0};
    CHECK_OK(sill__backend_find(NULL, &b, &err), err);
    CHECK_STR(b ? b->name : NULL, "cpu");
    CHECK_OK(sill__backend_find("auto", &b, &err), err);
    CHECK_STR(b ? b->name : NULL, "cpu");
    CHECK_OK(sill__backend_find("ref", &b, &err), err);
    CHECK_STR(b ? b->name : NULL, "ref");
    CHECK_INT(sill__backend_find("abacus", &b, &err), SILL_EUNSUPPORTED);
    CHECK(b == NULL && strstr(err.msg, "abacus") && strstr(err.msg, "ref"));
}

static void what_it_supports(void) {
    sill__device *d = NULL;
    sill_error err = {0};
    sill__type types[] = {SILL__TYPE_F32, SILL__TYPE_Q6_K, SILL__TYPE_I64};
    REQUIRE(sill__backend_cpu()->open(&(sill__device_options){.n_threads = 1}, &d, &err) == SILL_OK);
    const sill__backend *ops = sill__backend_cpu();
    sill__need need = {.types = types, .n_types = 2, .kv = SILL__KV_F16, .head_dim = 80};
    CHECK_OK(ops->supports(d, &need, &err), err);
    need.n_types = 3;
    CHECK_INT(ops->supports(d, &need, &err), SILL_EUNSUPPORTED);
    CHECK(strstr(err.msg, "I64") != NULL);
    need.n_types = 2;
    need.kv = SILL__KV_I8;
    CHECK_OK(ops->supports(d, &need, &err), err);
    need.kv = (sill__kv_type)3;
    CHECK_INT(ops->supports(d, &need, &err), SILL_EUNSUPPORTED);
    need.kv = SILL__KV_F32;
    need.training = true;
    CHECK_INT(ops->supports(d, &need, &err), SILL_EUNSUPPORTED);
    need.training = false;
    need.head_dim = SILL__MAX_HEAD_DIM + 1;
    CHECK_INT(ops->supports(d, &need, &err), SILL_EUNSUPPORTED);
    sill__kv_shape kv = {2, 3, 24, SILL__KV_F16, 5};
    CHECK_INT(ops->kv_bytes(d, &kv), 2 * 3 * 5 * 32 * 2 * (24 + 32));
    kv.type = SILL__KV_I8; /* codes and a scale each */
    CHECK_INT(ops->kv_bytes(d, &kv), 2 * 3 * 5 * 32 * (24 + 8 + 32 + 4));
    CHECK_INT(sill__backend_ref()->kv_bytes(NULL, &kv), 2 * 3 * 5 * 32 * 2 * (24 + 8));
    kv.n_blocks = 0;
    CHECK(ops->kv_bytes(d, &kv) == UINT64_MAX);
    CHECK(ops->queue_bytes(d, &(sill__queue_shape){0, 1, 8, 8, 0}) == UINT64_MAX);
    ops->close(d);
}

/* The first error stays until it is told, over later begins, and nothing is run after it. */
static void errors_stay_in_the_queue(void) {
    static const step st = {1, {{0, 4}}};
    static rows r;
    tensors t;
    world w;
    make_tensors(&shapes[0], &t);
    if (world_open(&w, sill__backend_cpu(), NULL, 1, &shapes[0], &t))
        for (int bad = 0; bad < 7; bad++) {
            static const char *const words[] = {"token id 1009", "position 70", "KV block 99", "output row",
                                                "target id", "gate and up", "do not fit"};
            sill_error err = {0};
            make_rows(&w, &st, &r);
            int32_t blocks[BLOCKS_EACH] = {99, 99, 99};
            if (bad == 0) r.tokens[2] = 1009;
            if (bad == 1) r.positions[3] = MAX_LEN;
            if (bad == 2) r.runs[0].blocks = blocks;
            if (bad == 3) r.out_rows[0] = 4;
            if (bad == 4) r.targets[1] = -1;
            w.ops->begin(w.queue, &r.batch);
            if (bad == 5)
                w.ops->linear(w.queue, &(sill__op_linear){.in = w.x, .out = w.x, .w = w.in, .act = SILL__ACT_SWIGLU});
            if (bad == 6)
                w.ops->linear(w.queue, &(sill__op_linear){.in = w.x, .out = {w.memory, (size_t)1 << 40}, .w = w.in});
            record(&w, &r, true);
            CHECK(w.ops->submit(w.queue, NULL, &err) != SILL_OK);
            CHECK_INT(w.ops->wait(w.queue, 0, NULL), SILL_OK); /* told once */
            if (!strstr(err.msg, words[bad]))
                FAIL("case %d: message is \"%s\"", bad, err.msg);
            if (bad != 1) continue;
            w.ops->begin(w.queue, &r.batch);
            record(&w, &r, true);
            r.positions[3] = 3;
            w.ops->begin(w.queue, &r.batch);
            CHECK(w.ops->submit(w.queue, NULL, &err) != SILL_OK && strstr(err.msg, words[bad]));
        }
    w.lengths[0] = 0;
    run_step(&w, &st, &r, true); /* and the queue works again */
    world_close(&w);
    free_tensors(&t);
}

static void failing_allocations_leave_nothing(void) {
    tensors t;
    make_tensors(&shapes[2], &t);
    const shape *s = &shapes[2];
    const sill__backend *ops = sill__backend_cpu();
    int failed = 0;
    for (uint64_t n = 1; n <= 30; n++) {
        sill__device *d = NULL;
        sill__weight *weight = NULL;
        sill__queue *q = NULL;
        sill__kv *kv = NULL;
        sill__kv_shape shape_of = {2, 1, 24, SILL__KV_F32, 4};
        sill__weight_src src = {.parts = {&t.in}, .n_parts = 1, .rows = 2 * (uint64_t)s->n_ff, .cols = (uint64_t)s->width};
        sill_error err = {0};
        sill__alloc_fail_at(n);
        bool ok = ops->open(&(sill__device_options){.n_threads = 2}, &d, &err) == SILL_OK &&
                  ops->weight_import(d, &src, &weight, &err) == SILL_OK &&
                  ops->kv_create(d, &shape_of, &kv, &err) == SILL_OK &&
                  ops->queue_create(d, &(sill__queue_shape){8, 8, 100, 100, 0}, &q, &err) == SILL_OK;
        sill__alloc_fail_at(0);
        failed += !ok;
        CHECK(ok || err.code == SILL_ENOMEM);
        if (d) {
            ops->queue_free(d, q);
            ops->kv_free(d, kv);
            ops->weight_free(d, weight);
            ops->close(d);
        }
    }
    CHECK(failed >= 8 && failed < 30);
    free_tensors(&t);
}

int main(int argc, char **argv) {
    TEST(fork_of_a_block_continues_with_the_same_bits);
    TEST(sessions_of_several_threads_share_a_device);
    TEST(instruction_sets_by_name);
    TEST(backends_by_name);
    TEST(what_it_supports);
    TEST(errors_stay_in_the_queue);
    TEST(failing_allocations_leave_nothing);
    TEST_EXIT();
}
