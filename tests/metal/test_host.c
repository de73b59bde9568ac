/*
 * test_host.c - the host of the Metal backend on the fake Metal: opening, memory, steps in flight,
 * failures, the pipelines' cache. Kernels that look rows up and copy them are all that runs here.
 */
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "metal.h"

#define WIDTH 24
#define N_IDS 40

/* A table, a device, a queue and an output buffer. */
typedef struct world {
    sill__device *d;
    const sill__backend *ops;
    sill__weight *table;
    sill__queue *q;
    sill__buf *out;
    float values[N_IDS * WIDTH];
} world;

static const sill__queue_shape shape = {.max_tokens = 16, .max_out = 16, .max_width = WIDTH, .max_vocab = 64};

static bool world_open(world *w) {
    sill_error err = {0};
    memset(w, 0, sizeof *w);
    w->ops = sill__backend_metal();
    for (int i = 0; i < N_IDS * WIDTH; i++) w->values[i] = (float)i * 0.25f - 17;
    if (!(w->d = metal_device())) return false;
    sill__tensor t = {.name = "table", .type = SILL__TYPE_F32, .n_dims = 2, .dims = {N_IDS, WIDTH},
                      .data = (const uint8_t *)w->values, .bytes = sizeof w->values};
    sill__weight_src src = {.parts = {&t}, .n_parts = 1, .rows = N_IDS, .cols = WIDTH, .role = SILL__ROLE_EMBED, .name = "table"};
    CHECK_OK(w->ops->weight_import(w->d, &src, &w->table, &err), err);
    CHECK_OK(w->ops->queue_create(w->d, &shape, &w->q, &err), err);
    CHECK_OK(w->ops->buf_create(w->d, 8 * 16 * WIDTH * 4, &w->out, &err), err);
    return w->table && w->q && w->out;
}

static void world_close(world *w) {
    if (w->q) w->ops->queue_free(w->d, w->q);
    if (w->out) w->ops->buf_free(w->d, w->out);
    if (w->table) w->ops->weight_free(w->d, w->table);
    if (w->d) w->ops->close(w->d);
}

typedef struct step { int32_t ids[16], positions[16], blocks[4], n; sill__run run; sill__batch batch; } step;

static sill__batch *make_step(step *s, int32_t n, int32_t first_id) {
    memset(s, 0, sizeof *s);
    s->n = n;
    for (int32_t i = 0; i < n; i++) {
        s->ids[i] = (first_id + i) % N_IDS;
        s->positions[i] = i;
    }
    s->run = (sill__run){.first = 0, .n = n, .pos = 0, .blocks = s->blocks};
    s->batch = (sill__batch){.n_tokens = n, .n_runs = 1, .tokens = s->ids, .positions = s->positions, .runs = &s->run};
    return &s->batch;
}

static void look_up(world *w, sill__queue *q, size_t place) {
    w->ops->embed(q, &(sill__op_embed){.wte = w->table, .out = {w->out, place * 16 * WIDTH * 4}, .width = WIDTH});
}

static bool found(world *w, size_t place, int32_t n, int32_t first_id) {
    float rows[16 * WIDTH];
    if (w->ops->buf_read(w->d, (sill__ref){w->out, place * 16 * WIDTH * 4}, rows, (size_t)n * WIDTH * 4) != SILL_OK) return false;
    for (int32_t i = 0; i < n; i++)
        if (memcmp(rows + i * WIDTH, w->values + (first_id + i) % N_IDS * WIDTH, WIDTH * 4)) return false;
    return true;
}

/* ------------------------------------------------------------------ opening */

/* In a process of its own, since the runtime is found once. What it says goes through a pipe. */
static int child(void (*body)(char *, size_t), char *said, size_t cap) {
    int fds[2], status = -1;
    fflush(NULL);
    if (pipe(fds) != 0) return -1;
    pid_t pid = fork();
    if (pid == 0) {
        char text[512] = "";
        body(text, sizeof text);
        if (write(fds[1], text, strlen(text)) < 0) _exit(3);
        _exit(0);
    }
    close(fds[1]);
    ssize_t n = read(fds[0], said, cap - 1);
    said[n > 0 ? n : 0] = 0;
    close(fds[0]);
    waitpid(pid, &status, 0);
    return status;
}

static void open_and_say(char *said, size_t cap) {
    sill__device *d = NULL;
    sill_error err = {0};
    sill_status s = sill__backend_metal()->open(NULL, &d, &err);
    if (s == SILL_OK) sill__backend_metal()->describe(d, said, cap);
    else snprintf(said, cap, "%d %s", (int)s, err.msg);
}
static void without_library(char *said, size_t cap) {
    unsetenv("SILL_METAL_LIBRARY");
    open_and_say(said, cap);
}
static void with_a_wrong_library(char *said, size_t cap) {
    setenv("SILL_METAL_LIBRARY", "/nonexistent/libmetal.so", 1);
    open_and_say(said, cap);
}
static void with_a_foreign_library(char *said, size_t cap) {
    setenv("SILL_METAL_LIBRARY", "libm.so.6", 1);
    open_and_say(said, cap);
}
static void on_an_older_gpu(char *said, size_t cap) {
    fake.set("family", 1006);
    open_and_say(said, cap);
}

static void opening(void) {
    char said[512];
    NEEDS_FAKE();
    child(open_and_say, said, sizeof said);
    CHECK(!strncmp(said, "metal ", 6));
    child(without_library, said, sizeof said);
    CHECK(strstr(said, "macOS") && atoi(said) == SILL_EUNSUPPORTED);
    child(with_a_wrong_library, said, sizeof said);
    CHECK(strstr(said, "/nonexistent/libmetal.so") && atoi(said) == SILL_EUNSUPPORTED);
    child(with_a_foreign_library, said, sizeof said);
    CHECK(strstr(said, "objc_msgSend") && atoi(said) == SILL_EUNSUPPORTED);
    child(on_an_older_gpu, said, sizeof said);
    CHECK(strstr(said, "Apple silicon") && atoi(said) == SILL_EUNSUPPORTED);
}

static void refuses_broken_kernels(void) {
    sill__queue *q = NULL;
    sill_error err = {0};
    NEEDS_FAKE();
    sill__mtl_forget();
    sill__device *d = metal_device();
    REQUIRE(d);
    fake.fault("library", 1, 1);
    CHECK_INT(sill__backend_metal()->queue_create(d, &shape, &q, &err), SILL_EDEVICE);
    CHECK(q == NULL && strstr(err.msg, "refused the kernels"));
    /* The compiler is not asked again: the text is the same. */
    CHECK_INT(sill__backend_metal()->queue_create(d, &shape, &q, &err), SILL_EDEVICE);
    CHECK_INT(sill__mtl_made_so_far().libraries, 1);
    sill__backend_metal()->close(d);
    sill__mtl_forget();
}

/* -------------------------------------------------------------------- steps */

static void several_steps_in_flight(void) {
    world w;
    step s[11];
    sill__ticket tickets[11];
    sill_error err = {0};
    NEEDS_FAKE();
    if (!world_open(&w)) return;
    for (int i = 0; i < 8; i++) {
        w.ops->begin(w.q, make_step(&s[i], 1 + i, 3 * i));
        look_up(&w, w.q, (size_t)i);
        CHECK_OK(w.ops->submit(w.q, &tickets[i], &err), err);
        CHECK_INT(tickets[i], i + 1);
        memset(s[i].ids, 0x7f, sizeof s[i].ids); /* copied by begin */
    }
    CHECK_OK(w.ops->wait(w.q, tickets[2], &err), err);
    for (int i = 0; i < 3; i++) CHECK(found(&w, (size_t)i, 1 + i, 3 * i));
    CHECK_OK(w.ops->wait(w.q, tickets[1], &err), err);
    CHECK_OK(w.ops->wait(w.q, 0, &err), err);
    for (int i = 0; i < 8; i++) CHECK(found(&w, (size_t)i, 1 + i, 3 * i));
    /* An empty step takes a ticket and no command buffer. */
    sill__mtl_counts before = sill__mtl_queue_counts(w.q);
    CHECK_INT(before.commands, 8);
    CHECK_INT(before.dispatches, 8);
    w.ops->begin(w.q, make_step(&s[0], 1, 0));
    CHECK_OK(w.ops->submit(w.q, &tickets[8], &err), err);
    CHECK_INT(tickets[8], 9);
    CHECK_OK(w.ops->wait(w.q, tickets[8], &err), err);
    CHECK_INT(sill__mtl_queue_counts(w.q).commands, 8);
    world_close(&w);
}

/* A step that reads what the one before it wrote, and two calls of one step that do. */
/* Steps behind another are one submission, each with its own batch, and read what those in front of them put out. */
static void steps_behind_another(void) {
    enum { N = 5 }; /* as many as a place has room for */
    world w;
    step s;
    sill__ticket ticket = 0;
    sill_error err = {0};
    NEEDS_FAKE();
    if (!world_open(&w)) return;
    CHECK(!w.ops->begin_behind(w.q, make_step(&s, 2, 0))); /* behind nothing */
    for (int round = 0; round < 3; round++) {
        const uint64_t before = sill__mtl_queue_counts(w.q).commands, grown = sill__mtl_queue_counts(w.q).grown;
        for (int k = 0; k < N; k++) {
            sill__batch *b = make_step(&s, 2 + k, 5 * round + 3 * k);
            if (k == 0) w.ops->begin(w.q, b);
            else CHECK(w.ops->begin_behind(w.q, b));
            look_up(&w, w.q, (size_t)k);
            memset(&s, 0, sizeof s); /* it was copied */
        }
        CHECK(!w.ops->begin_behind(w.q, make_step(&s, 2, 0)));
        CHECK_OK(w.ops->submit(w.q, &ticket, &err), err);
        CHECK_INT(ticket, round + 1);
        CHECK(!w.ops->begin_behind(w.q, make_step(&s, 2, 0))); /* the submission is closed */
        CHECK_OK(w.ops->wait(w.q, ticket, &err), err);
        for (int k = 0; k < N; k++) CHECK(found(&w, (size_t)k, 2 + k, 5 * round + 3 * k));
        CHECK_INT(sill__mtl_queue_counts(w.q).commands - before, 1);
        CHECK_INT(sill__mtl_queue_counts(w.q).grown - grown, 0);
    }
    w.ops->begin(w.q, make_step(&s, 2, 0)); /* an error in one of them is told by the submit of all */
    look_up(&w, w.q, 0);
    make_step(&s, 2, 0);
    s.ids[1] = N_IDS;
    CHECK(w.ops->begin_behind(w.q, &s.batch));
    look_up(&w, w.q, 1);
    CHECK(!w.ops->begin_behind(w.q, make_step(&s, 2, 0)));
    CHECK_INT(w.ops->submit(w.q, &ticket, &err), SILL_ERANGE);
    world_close(&w);
}

static void order_is_kept(void) {
    world w;
    step s;
    sill_error err = {0};
    const sill__norm none = {.kind = SILL__NORM_NONE};
    NEEDS_FAKE();
    if (!world_open(&w)) return;
    for (int round = 0; round < 3; round++) {
        w.ops->begin(w.q, make_step(&s, 4, round));
        look_up(&w, w.q, 0);
        CHECK_OK(w.ops->submit(w.q, NULL, &err), err);
        for (size_t i = 0; i < 3; i++) {
            w.ops->begin(w.q, make_step(&s, 4, 0));
            for (size_t k = 2 * i; k < 2 * i + 2; k++)
                w.ops->tap(w.q, &(sill__op_tap){.in = {w.out, k * 16 * WIDTH * 4}, .out = {w.out, (k + 1) * 16 * WIDTH * 4},
                                                .norm = none, .width = WIDTH});
            CHECK_OK(w.ops->submit(w.q, NULL, &err), err);
        }
        CHECK_OK(w.ops->wait(w.q, 0, &err), err);
        CHECK(found(&w, 6, 4, round));
    }
    CHECK_INT(sill__mtl_queue_counts(w.q).barriers, 9);
    world_close(&w);
}

static void wrong_batches(void) {
    world w;
    step s;
    sill_error err = {0};
    NEEDS_FAKE();
    if (!world_open(&w)) return;
    make_step(&s, 4, 0);
    s.ids[2] = N_IDS;
    w.ops->begin(w.q, &s.batch);
    look_up(&w, w.q, 0);
    CHECK_INT(w.ops->submit(w.q, NULL, &err), SILL_ERANGE);
    CHECK(strstr(err.msg, "40"));
    make_step(&s, 4, 0);
    s.batch.n_tokens = 17;
    w.ops->begin(w.q, &s.batch);
    CHECK_INT(w.ops->submit(w.q, NULL, &err), SILL_ERANGE);
    make_step(&s, 4, 0);
    s.run.first = 1;
    w.ops->begin(w.q, &s.batch);
    CHECK_INT(w.ops->submit(w.q, NULL, &err), SILL_EINVAL);
    make_step(&s, 4, 0);
    int32_t row = 4;
    s.batch.n_out = 1;
    s.batch.out_rows = &row;
    w.ops->begin(w.q, &s.batch);
    CHECK_INT(w.ops->submit(w.q, NULL, &err), SILL_EINVAL);
    /* An output that does not fit; the error waits over the next begin and is told once. */
    w.ops->begin(w.q, make_step(&s, 16, 0));
    w.ops->embed(w.q, &(sill__op_embed){.wte = w.table, .out = {w.out, 8 * 16 * WIDTH * 4 - 4}, .width = WIDTH});
    w.ops->begin(w.q, make_step(&s, 16, 0));
    CHECK_INT(w.ops->wait(w.q, 0, &err), SILL_EINVAL);
    CHECK_OK(w.ops->wait(w.q, 0, &err), err);
    w.ops->begin(w.q, make_step(&s, 16, 0));
    look_up(&w, w.q, 0);
    CHECK_OK(w.ops->submit(w.q, NULL, &err), err);
    CHECK_OK(w.ops->wait(w.q, 0, &err), err);
    CHECK(found(&w, 0, 16, 0));
    world_close(&w);
}

static void failures_of_the_gpu(void) {
    world w;
    step s;
    sill__buf *b = NULL;
    sill_error err = {0};
    NEEDS_FAKE();
    if (!world_open(&w)) return;
    fake.fault("command-buffer", 2, 1);
    for (int i = 0; i < 3; i++) {
        w.ops->begin(w.q, make_step(&s, 2, i));
        look_up(&w, w.q, (size_t)i);
        CHECK_OK(w.ops->submit(w.q, NULL, &err), err);
    }
    sill_status st = w.ops->wait(w.q, 0, &err);
    CHECK(st == SILL_EDEVICE || st == SILL_ENOMEM);
    CHECK(!strncmp(err.msg, "the GPU's work ", 15));
    printf("  %s\n", err.msg);
    CHECK_OK(w.ops->wait(w.q, 1, &err), err); /* the step in front of it */
    CHECK_INT(w.ops->wait(w.q, 3, &err), st); /* the one behind it ran, on what that left */
    CHECK(found(&w, 0, 2, 0));
    CHECK(found(&w, 2, 2, 2));
    w.ops->queue_free(w.d, w.q);
    w.q = NULL;
    CHECK_OK(w.ops->queue_create(w.d, &shape, &w.q, &err), err);
    fake.fault("buffer", 1, 1);
    CHECK_INT(w.ops->buf_create(w.d, 1000, &b, &err), SILL_ENOMEM);
    CHECK(b == NULL && strstr(err.msg, "no memory"));
    sill__queue *q = NULL;
    for (int i = 1; i < 10; i++) { /* a queue that cannot be made whole leaves nothing behind */
        uint64_t live = fake_totals().live_objects;
        fake.fault(i < 9 ? "buffer" : "queue", i < 9 ? i : 1, 1);
        CHECK(w.ops->queue_create(w.d, &shape, &q, &err) != SILL_OK && q == NULL);
        fake.fault(i < 9 ? "buffer" : "queue", 1, 0);
        CHECK_INT(fake_totals().live_objects, live);
    }
    world_close(&w);
}

/* Each way in which Metal ends a command buffer that it could not run. */
static void endings_of_command_buffers(void) {
    static const struct { const char *what; long code; sill_status status; bool for_good; const char *said[2]; } endings[] = {
        {"internal", 1, SILL_EDEVICE, false, {"failed", "victim of GPU error/recovery"}},
        {"timeout", 2, SILL_EDEVICE, false, {"took longer than the system allows", "Caused GPU Timeout Error"}},
        {"page-fault", 3, SILL_EDEVICE, false, {"touched memory that is not its own", "Address Fault"}},
        {"access-revoked", 4, SILL_EDEVICE, true, {"is no longer taken by the system", "Ignored"}},
        {"not-permitted", 7, SILL_EDEVICE, false, {"may not run now", "Insufficient Permission"}},
        {"out-of-memory", 8, SILL_ENOMEM, false, {"ran out of memory", "Insufficient Memory"}},
        {"invalid-resource", 9, SILL_EDEVICE, false, {"named memory that it may not use", "Invalid Resource"}},
        {"device-removed", 11, SILL_EDEVICE, true, {"is no longer taken by the system", "removed"}},
        {"stack-overflow", 12, SILL_EDEVICE, false, {"ran out of stack", "stack overflow"}},
    };
    world w;
    step s;
    char code[24];
    NEEDS_FAKE();
    for (size_t i = 0; i < SILL_ARRAY_LEN(endings); i++) {
        sill_error err = {0};
        sill__queue *q = NULL;
        sill__device *d = NULL;
        if (!world_open(&w)) return;
        w.ops->begin(w.q, make_step(&s, 2, 0));
        look_up(&w, w.q, 0);
        fake.fault(endings[i].what, 1, 1);
        CHECK_OK(w.ops->submit(w.q, NULL, &err), err);
        CHECK_INT(w.ops->wait(w.q, 0, &err), endings[i].status);
        snprintf(code, sizeof code, "(code %ld)", endings[i].code);
        if (!strstr(err.msg, endings[i].said[0]) || !strstr(err.msg, endings[i].said[1]) || !strstr(err.msg, code))
            FAIL("%s: %s", endings[i].what, err.msg);
        for (int again = 0; again < 3; again++) { /* and every later step, with the reason */
            memset(&err, 0, sizeof err);
            w.ops->begin(w.q, make_step(&s, 2, 0));
            look_up(&w, w.q, 0);
            CHECK_INT(w.ops->submit(w.q, NULL, &err), endings[i].status);
            CHECK(strstr(err.msg, endings[i].for_good ? "start it anew" : code));
            CHECK_INT(w.ops->wait(w.q, 0, &err), endings[i].status);
        }
        if (endings[i].for_good) { /* no other session, and no other device, gets on */
            CHECK_INT(w.ops->queue_create(w.d, &shape, &q, &err), SILL_EDEVICE);
            CHECK(q == NULL && strstr(err.msg, "--device cpu"));
            CHECK_INT(w.ops->open(NULL, &d, &err), SILL_EDEVICE);
            CHECK(d == NULL && strstr(err.msg, "--device cpu"));
            world_close(&w);
            sill__mtl_forget();
            fake.fault(endings[i].what, 1, 0);
            if (!world_open(&w)) return; /* as in a new process */
        } else {
            w.ops->queue_free(w.d, w.q);
            w.q = NULL;
            CHECK_OK(w.ops->queue_create(w.d, &shape, &w.q, &err), err);
        }
        REQUIRE(w.q);
        w.ops->begin(w.q, make_step(&s, 2, 5));
        look_up(&w, w.q, 0);
        CHECK_OK(w.ops->submit(w.q, NULL, &err), err);
        CHECK_OK(w.ops->wait(w.q, 0, &err), err);
        CHECK(found(&w, 0, 2, 5));
        world_close(&w);
    }
}

/* ------------------------------------------- steps of several command buffers */

/* N calls, each of which reads what the one in front of it wrote; what they put out in the end lies at (n - 1) % 8. */
static void record_chain(world *w, int n) {
    const sill__norm none = {.kind = SILL__NORM_NONE};
    look_up(w, w->q, 0);
    for (size_t i = 0; i + 1 < (size_t)n; i++)
        w->ops->tap(w->q, &(sill__op_tap){.in = {w->out, i % 8 * 16 * WIDTH * 4}, .out = {w->out, (i + 1) % 8 * 16 * WIDTH * 4},
                                          .norm = none, .width = WIDTH});
}

/* Every call a command buffer of its own, more of them than may be under way at once: in order, whoever waits for what. */
static void steps_in_pieces(void) {
    static const int lengths[] = {1, 2, 3, 8, 9, 40, 100, 8, 8, 8, 8, 8, 8, 8};
    static const double systems[] = {13.0, 15.0, 26.0};
    world w;
    step s;
    sill_error err = {0};
    NEEDS_FAKE();
    sill__mtl_piece_seconds(1e-12);
    for (int k = 0; k < 6; k++) {
        sill__mtl_forget();
        fake.set("os", systems[k / 2]);
        fake.set("schedule", k % 2);
        if (!world_open(&w)) return;
        for (int i = 0; i < (int)SILL_ARRAY_LEN(lengths); i++) {
            const sill__mtl_counts before = sill__mtl_queue_counts(w.q);
            w.ops->begin(w.q, make_step(&s, 4, i));
            record_chain(&w, lengths[i]);
            CHECK_INT(sill__mtl_queue_pieces(w.q).n, lengths[i]);
            CHECK_OK(w.ops->submit(w.q, NULL, &err), err);
            CHECK_INT(sill__mtl_queue_counts(w.q).commands - before.commands, lengths[i]);
            CHECK_INT(sill__mtl_queue_counts(w.q).barriers, 0);
            if (i >= 7) continue; /* those are under way together */
            CHECK_OK(w.ops->wait(w.q, 0, &err), err);
            CHECK(found(&w, (size_t)(lengths[i] - 1) % 8, 4, i));
        }
        CHECK_OK(w.ops->wait(w.q, 0, &err), err);
        CHECK(found(&w, 7, 4, (int)SILL_ARRAY_LEN(lengths) - 1));
        CHECK_INT(sill__mtl_queue_counts(w.q).grown, 0);
        world_close(&w);
    }
    fake.set("os", 15.0);
    fake.set("schedule", 0);
    sill__mtl_piece_seconds(0);
}

/* As many calls as the work allows are one command buffer; a call that is longer is one by itself. */
static void pieces_by_work(void) {
    world w;
    step s;
    sill_error err = {0};
    NEEDS_FAKE();
    if (!world_open(&w)) return;
    w.ops->begin(w.q, make_step(&s, 4, 0));
    record_chain(&w, 21);
    const sill__mtl_pieces whole = sill__mtl_queue_pieces(w.q);
    CHECK_INT(whole.n, 1); /* short ones are not divided */
    CHECK(whole.all > 0 && whole.longest == whole.all);
    const double tap = 2 * 4 * WIDTH * 4 / 60e9; /* reads and writes four rows */
    CHECK(whole.all > 20 * tap && whole.all < 22.5 * tap);
    world_close(&w);
    for (int each = 1; each <= 7; each++) {
        sill__mtl_piece_seconds((each + 0.5) * tap);
        if (!world_open(&w)) break;
        w.ops->begin(w.q, make_step(&s, 4, each));
        record_chain(&w, 21);
        const sill__mtl_pieces p = sill__mtl_queue_pieces(w.q);
        CHECK(p.n >= (uint64_t)(20 / each) && p.n <= (uint64_t)(20 / each + 2));
        CHECK(p.longest <= (each + 0.5) * tap);
        CHECK_OK(w.ops->submit(w.q, NULL, &err), err);
        CHECK_INT(sill__mtl_queue_counts(w.q).commands, p.n);
        CHECK_INT(sill__mtl_queue_counts(w.q).barriers + p.n, 21);
        CHECK_OK(w.ops->wait(w.q, 0, &err), err);
        CHECK(found(&w, 20 % 8, 4, each));
        world_close(&w);
    }
    sill__mtl_piece_seconds(0);
}

/* Any of a step's command buffers fails: the step says so, those in front of it are right, later ones are refused; what was
 * not committed by then is not committed any more. The last round: the step in front of a long one fails. */
static void failures_of_pieces(void) {
    static const struct { int length, fault; bool by_submit; } rounds[] = {{3, 1, false}, {3, 2, false}, {3, 3, false}, {12, 12, false},
        {40, 1, true}, {40, 2, true}, {40, 32, true}, {40, 33, false}, {40, 40, false}, {40, 0, true}};
    world w;
    step s;
    NEEDS_FAKE();
    sill__mtl_piece_seconds(1e-12);
    const uint64_t live = fake_totals().live_objects;
    for (size_t i = 0; i < SILL_ARRAY_LEN(rounds); i++) {
        const int length = rounds[i].length, fault = rounds[i].fault;
        sill_error err = {0}, why = {0};
        sill__ticket first, second;
        if (!world_open(&w)) return;
        const sill__norm none = {.kind = SILL__NORM_NONE};
        fake.fault("command-buffer", 2 + fault, 1); /* two are the step in front */
        w.ops->begin(w.q, make_step(&s, 2, 7));
        look_up(&w, w.q, 7);
        w.ops->tap(w.q, &(sill__op_tap){.in = {w.out, 7 * 16 * WIDTH * 4}, .out = {w.out, 6 * 16 * WIDTH * 4}, .norm = none, .width = WIDTH});
        CHECK_OK(w.ops->submit(w.q, &first, &err), err);
        w.ops->begin(w.q, make_step(&s, 2, 0));
        record_chain(&w, SILL_MIN(length, 6));
        for (int k = 6; k < length; k++)
            w.ops->tap(w.q, &(sill__op_tap){.in = {w.out, 5 * 16 * WIDTH * 4}, .out = {w.out, 4 * 16 * WIDTH * 4}, .norm = none, .width = WIDTH});
        const sill_status st = w.ops->submit(w.q, &second, &err);
        const uint64_t made = sill__mtl_queue_counts(w.q).commands;
        CHECK_INT(st, rounds[i].by_submit ? SILL_EDEVICE : SILL_OK);
        CHECK(rounds[i].by_submit ? made < 2 + (uint64_t)length : made == 2 + (uint64_t)length);
        if (fault) CHECK_OK(w.ops->wait(w.q, first, &why), why);
        else CHECK_INT(w.ops->wait(w.q, first, &why), SILL_EDEVICE);
        if (fault) CHECK(found(&w, 6, 2, 7));
        CHECK_INT(w.ops->wait(w.q, second, st == SILL_OK ? &err : &why), SILL_EDEVICE);
        CHECK(!strncmp(err.msg, "the GPU's work ", 15));
        w.ops->begin(w.q, make_step(&s, 2, 0));
        look_up(&w, w.q, 0);
        CHECK_INT(w.ops->submit(w.q, NULL, &err), SILL_EDEVICE);
        CHECK(strstr(err.msg, "in doubt"));
        fake.fault("command-buffer", 1, 0);
        world_close(&w);
        sill__mtl_forget();
        CHECK(fake_totals().live_objects <= live);
    }
    sill__mtl_piece_seconds(0);
}

/* ------------------------------------------------------------------- memory */

static void freed_under_way(void) {
    world w;
    step s;
    sill__buf *b = NULL;
    sill_error err = {0};
    NEEDS_FAKE();
    if (!world_open(&w)) return;
    CHECK_OK(w.ops->buf_create(w.d, 16 * WIDTH * 4, &b, &err), err);
    w.ops->begin(w.q, make_step(&s, 4, 0));
    w.ops->embed(w.q, &(sill__op_embed){.wte = w.table, .out = {b, 0}, .width = WIDTH});
    CHECK_OK(w.ops->submit(w.q, NULL, &err), err);
    uint64_t live = fake_totals().live_objects;
    w.ops->buf_free(w.d, b); /* the step has not run: the fake would stop at a buffer that is gone */
    CHECK_INT(fake_totals().live_objects, live);
    CHECK_OK(w.ops->wait(w.q, 0, &err), err);
    CHECK(fake_totals().live_objects < live);
    world_close(&w);
    /* Nor under the last of a step's command buffers, nor in a step that some of its own were waited for. */
    for (int length = 3; length <= 30; length += 27) {
        sill__mtl_piece_seconds(1e-12);
        if (!world_open(&w)) break;
        CHECK_OK(w.ops->buf_create(w.d, 16 * WIDTH * 4, &b, &err), err);
        w.ops->begin(w.q, make_step(&s, 4, 0));
        record_chain(&w, length);
        w.ops->embed(w.q, &(sill__op_embed){.wte = w.table, .out = {b, 0}, .width = WIDTH});
        CHECK_OK(w.ops->submit(w.q, NULL, &err), err);
        live = fake_totals().live_objects;
        w.ops->buf_free(w.d, b);
        CHECK_INT(fake_totals().live_objects, live);
        CHECK_OK(w.ops->wait(w.q, 0, &err), err);
        CHECK(fake_totals().live_objects < live);
        world_close(&w);
    }
    sill__mtl_piece_seconds(0);
}

/* One thread's buffers enter and leave the residency set while another commits steps: the fake stops at a command buffer that
 * is committed between an addition and its request. */
static void *comes_and_goes(void *arg) {
    world *w = arg;
    sill_error err = {0};
    for (int i = 0; i < 4000; i++) {
        sill__buf *b = NULL;
        if (w->ops->buf_create(w->d, 64, &b, &err) != SILL_OK) return (void *)"no buffer";
        w->ops->buf_free(w->d, b);
    }
    return NULL;
}

static void memory_beside_steps(void) {
    world w;
    step s;
    pthread_t thread;
    void *said = "not joined";
    sill_error err = {0};
    NEEDS_FAKE();
    if (!world_open(&w)) return;
    REQUIRE(!pthread_create(&thread, NULL, comes_and_goes, &w));
    for (int i = 0; i < 4000; i++) {
        w.ops->begin(w.q, make_step(&s, 1, i));
        look_up(&w, w.q, 0);
        CHECK_OK(w.ops->submit(w.q, NULL, &err), err);
        if (i % 8 == 7) CHECK_OK(w.ops->wait(w.q, 0, &err), err);
    }
    pthread_join(thread, &said);
    CHECK(!said);
    CHECK(found(&w, 0, 1, 3999 % N_IDS));
    world_close(&w);
}

static void memory_stays_flat(void) {
    world w;
    step s;
    sill_error err = {0};
    NEEDS_FAKE();
    if (!world_open(&w)) return;
    for (int i = 0; i < 200; i++) {
        w.ops->begin(w.q, make_step(&s, 1 + i % 16, i));
        look_up(&w, w.q, (size_t)i % 8);
        CHECK_OK(w.ops->submit(w.q, NULL, &err), err);
        if (i % 5 == 4) CHECK_OK(w.ops->wait(w.q, 0, &err), err);
        if (i != 20) continue;
        CHECK_OK(w.ops->wait(w.q, 0, &err), err);
        fake.reset();
        sill__alloc_fail_at(1); /* from here on nothing may be asked for */
    }
    CHECK_OK(w.ops->wait(w.q, 0, &err), err);
    sill__alloc_fail_at(0);
    fakemetal_totals t = fake_totals();
    CHECK_INT(t.buffers_made, 0);
    CHECK_INT(t.pipelines_made, 0);
    CHECK_INT(t.unpooled, 0);
    CHECK_INT(sill__mtl_queue_counts(w.q).grown, 0);
    uint64_t live = t.live_objects;
    w.ops->begin(w.q, make_step(&s, 3, 0));
    look_up(&w, w.q, 0);
    CHECK_OK(w.ops->submit(w.q, NULL, &err), err);
    CHECK_OK(w.ops->wait(w.q, 0, &err), err);
    CHECK_INT(fake_totals().live_objects, live);
    world_close(&w);
}

/* Longer block tables than the queue began with: it grows, and stays. */
static void tables_grow(void) {
    world w;
    step s;
    sill_error err = {0};
    int32_t *blocks = calloc(20000, sizeof *blocks);
    NEEDS_FAKE();
    if (!world_open(&w)) return;
    for (int i = 0; i < 12; i++) {
        make_step(&s, 2, i);
        s.run.pos = 32 * 15000;
        s.run.blocks = blocks;
        w.ops->begin(w.q, &s.batch);
        look_up(&w, w.q, 0);
        CHECK_OK(w.ops->submit(w.q, NULL, &err), err);
    }
    CHECK_OK(w.ops->wait(w.q, 0, &err), err);
    CHECK(found(&w, 0, 2, 11));
    CHECK_INT(sill__mtl_queue_counts(w.q).grown, 4);
    free(blocks);
    world_close(&w);
}

/* A table in a mapped file is read where it lies, if its place suits; else it is copied. */
static void mapped_files(void) {
    char path[] = "/tmp/sill-metal-XXXXXX";
    const size_t at[] = {32, 20000, 40004, 60002}, table = N_IDS * WIDTH * 4;
    world w;
    step s;
    sill_error err = {0};
    sill__map map;
    NEEDS_FAKE();
    if (!world_open(&w)) return;
    int fd = mkstemp(path);
    for (size_t i = 0; i < 4; i++) CHECK(pwrite(fd, w.values, table, (off_t)at[i]) == (ssize_t)table);
    close(fd);
    CHECK_OK(sill__map_open(path, &map, &err), err);
    CHECK((uintptr_t)map.handle % 16384 == 0);
    for (size_t i = 0; i < 4; i++) {
        const bool suits = at[i] % 8 == 0;
        sill__tensor t = {.name = "table", .type = SILL__TYPE_F32, .n_dims = 2, .dims = {N_IDS, WIDTH}, .data = map.data + at[i],
                          .bytes = table, .map = &map};
        sill__weight_src src = {.parts = {&t}, .n_parts = 1, .rows = N_IDS, .cols = WIDTH, .role = SILL__ROLE_EMBED};
        sill__weight *own = w.table;
        uint64_t before = fake_totals().allocated;
        w.table = NULL;
        CHECK_OK(w.ops->weight_import(w.d, &src, &w.table, &err), err);
        CHECK((fake_totals().allocated > before) == !suits);
        CHECK_INT(w.ops->weight_bytes(w.d, &src), suits ? 0 : table);
        if (w.table) {
            w.ops->begin(w.q, make_step(&s, 9, 30));
            look_up(&w, w.q, 0);
            CHECK_OK(w.ops->submit(w.q, NULL, &err), err);
            CHECK_OK(w.ops->wait(w.q, 0, &err), err);
            CHECK(found(&w, 0, 9, 30));
            w.ops->weight_free(w.d, w.table);
        }
        w.table = own;
    }
    world_close(&w);
    sill__map_close(&map);
    unlink(path);
}

/* Many tensors of a file together: windows over stretches, none larger than a buffer may be. */
static void windows_of_a_file(void) {
    char path[] = "/tmp/sill-metal-XXXXXX";
    enum { N = 24 };
    const size_t table = N_IDS * WIDTH * 4;
    world w;
    sill__map map;
    sill__tensor t[N];
    sill__weight_src src[N];
    const sill__weight_src *srcs[N];
    sill__weight *weights[N] = {0}, **to[N];
    sill_error err = {0};
    NEEDS_FAKE();
    fake.set("max-buffer", 1 << 20);
    if (!world_open(&w)) return;
    int fd = mkstemp(path);
    for (size_t i = 0; i < N; i++) CHECK(pwrite(fd, w.values, table, (off_t)(i * 200000)) == (ssize_t)table);
    close(fd);
    CHECK_OK(sill__map_open(path, &map, &err), err);
    for (size_t i = 0; i < N; i++) {
        size_t k = (i * 7) % N;
        t[i] = (sill__tensor){.name = "table", .type = SILL__TYPE_F32, .n_dims = 2, .dims = {N_IDS, WIDTH},
                              .data = map.data + k * 200000, .bytes = table, .map = &map};
        src[i] = (sill__weight_src){.parts = {&t[i]}, .n_parts = 1, .rows = N_IDS, .cols = WIDTH, .role = SILL__ROLE_EMBED};
        srcs[i] = &src[i];
        to[i] = &weights[i];
    }
    fake.reset();
    CHECK_OK(w.ops->weights_import(w.d, srcs, to, N, true, &err), err);
    uint64_t made = fake_totals().buffers_made;
    CHECK_INT(made, 4); /* of six each: a seventh would make more than 1 MiB */
    for (size_t i = 0; i < N; i++) {
        step s;
        sill__weight *own = w.table;
        REQUIRE(weights[i]);
        w.table = weights[i];
        w.ops->begin(w.q, make_step(&s, 5, (int32_t)i));
        look_up(&w, w.q, 0);
        CHECK_OK(w.ops->submit(w.q, NULL, &err), err);
        CHECK_OK(w.ops->wait(w.q, 0, &err), err);
        CHECK(found(&w, 0, 5, (int32_t)i));
        w.table = own;
        w.ops->weight_free(w.d, weights[i]);
    }
    world_close(&w);
    sill__map_close(&map);
    unlink(path);
    fake.set("max-buffer", (double)(8ull << 30));
}

static void room_of_the_device(void) {
    world w;
    sill__buf *b = NULL;
    sill_error err = {0};
    NEEDS_FAKE();
    fake.set("working-set", 64 << 20);
    if (!world_open(&w)) return;
    uint64_t room = w.ops->room(w.d);
    CHECK(room > 0 && room < 64 << 20);
    CHECK_INT(sill__device_available(w.ops, w.d, 0), room);
    CHECK_INT(sill__device_available(w.ops, w.d, 1000), 1000);
    CHECK_INT(sill__device_available(sill__backend_ref(), NULL, 1000), 1000);
    CHECK_OK(w.ops->buf_create(w.d, 1 << 20, &b, &err), err);
    CHECK_INT(w.ops->room(w.d), room - (1 << 20));
    w.ops->buf_free(w.d, b);
    CHECK_INT(w.ops->room(w.d), room);
    for (size_t bytes = 0; bytes < 20; bytes += 3) { /* what is freed is what was counted */
        CHECK_OK(w.ops->buf_create(w.d, bytes, &b, &err), err);
        w.ops->buf_free(w.d, b);
        CHECK_INT(w.ops->room(w.d), room);
    }
    world_close(&w);
    fake.set("working-set", (double)(10ull << 30));
}

/* ---------------------------------------------------- systems and what is kept */

static void one_step(void) {
    world w;
    step s;
    sill_error err = {0};
    if (!world_open(&w)) return;
    w.ops->begin(w.q, make_step(&s, 5, 2));
    look_up(&w, w.q, 3);
    CHECK_OK(w.ops->submit(w.q, NULL, &err), err);
    CHECK_OK(w.ops->wait(w.q, 0, &err), err);
    CHECK(found(&w, 3, 5, 2));
    world_close(&w);
}

static void older_and_newer_systems(void) {
    NEEDS_FAKE();
    const double systems[] = {13.0, 14.0, 15.0, 26.0};
    for (size_t i = 0; i < SILL_ARRAY_LEN(systems); i++) {
        sill__mtl_forget();
        fake.set("os", systems[i]);
        one_step();
    }
    fake.set("os", 15.0);
}

/* A pipeline may take fewer threads than its kernel is given (registers): the step fails with both numbers, nothing runs, and the
 * queue goes on. `embed_rows` is given 128. */
static void pipelines_with_fewer_threads(void) {
    world w;
    step s;
    sill_error err = {0};
    const float kept = 5.0f;
    float is = 0;
    NEEDS_FAKE();
    sill__mtl_forget();
    fake.set("max-threads", 64);
    if (world_open(&w)) {
        CHECK_OK(w.ops->buf_write(w.d, (sill__ref){w.out, 0}, &kept, sizeof kept), err);
        for (int round = 0; round < 2; round++) {
            w.ops->begin(w.q, make_step(&s, 2, 0));
            look_up(&w, w.q, 0);
            CHECK_INT(w.ops->submit(w.q, NULL, &err), SILL_EDEVICE);
            CHECK(strstr(err.msg, "with at most 64 threads, not 128"));
        }
        printf("  %s\n", err.msg);
        CHECK_INT(sill__mtl_queue_counts(w.q).commands, 0);
        CHECK_OK(w.ops->buf_read(w.d, (sill__ref){w.out, 0}, &is, sizeof is), err);
        CHECK(is == kept);
        CHECK_OK(w.ops->wait(w.q, 0, &err), err);
        world_close(&w);
    }
    sill__mtl_forget();
    fake.set("max-threads", 128); /* just enough */
    one_step();
    sill__mtl_forget();
    fake.set("max-threads", 512); /* as many as any kernel is given, and as the back end on NVIDIA GPUs takes */
}

static void a_step_leaves_nothing(void) {
    NEEDS_FAKE();
    one_step();
    nothing_is_left();
}

static int n_archives(const char *dir, char *first, size_t cap) {
    char command[300];
    int n = 0;
    snprintf(command, sizeof command, "ls -A %s/metal 2>/dev/null", dir);
    FILE *f = popen(command, "r");
    for (char line[200]; f && fgets(line, sizeof line, f); n++) {
        line[strcspn(line, "\n")] = 0;
        snprintf(first, cap, "%s/metal/%s", dir, line);
    }
    if (f) pclose(f);
    return n;
}

static void the_cache_of_pipelines(void) {
    char dir[] = "/tmp/sill-metal-cache-XXXXXX", file[400] = "", command[300];
    struct stat st;
    NEEDS_FAKE();
    REQUIRE(mkdtemp(dir));
    setenv("SILL_CACHE", dir, 1);
    setenv("SILL_METAL_CACHE", "1", 1);
    sill__mtl_forget();
    one_step();
    CHECK_INT(sill__mtl_made_so_far().from_archive, 0);
    CHECK_INT(n_archives(dir, file, sizeof file), 1);
    CHECK(stat(file, &st) == 0 && (st.st_mode & 077) == 0 && st.st_size > 0);
    sill__mtl_forget(); /* another process */
    one_step();
    CHECK_INT(sill__mtl_made_so_far().pipelines, 1);
    CHECK_INT(sill__mtl_made_so_far().from_archive, 1);
    /* A torn one is thrown away and made again. */
    CHECK(truncate(file, st.st_size / 2) == 0);
    sill__mtl_forget();
    one_step();
    CHECK_INT(n_archives(dir, file, sizeof file), 1);
    sill__mtl_forget();
    one_step();
    CHECK_INT(sill__mtl_made_so_far().from_archive, 1);
    /* One that others may write is not read. */
    CHECK(chmod(file, 0666) == 0);
    sill__mtl_forget();
    one_step();
    CHECK_INT(sill__mtl_made_so_far().from_archive, 0);
    /* Where no archive can be made all works without. */
    sill__mtl_forget();
    fake.fault("archive", 1, 100);
    one_step();
    fake.fault("archive", 1, 0);
    sill__mtl_forget();
    setenv("SILL_METAL_CACHE", "0", 1);
    unsetenv("SILL_CACHE");
    snprintf(command, sizeof command, "rm -rf %s", dir);
    CHECK(system(command) == 0);
}

int main(int argc, char **argv) {
    fake_open(argv[0]);
    TEST(opening);
    TEST(refuses_broken_kernels);
    TEST(several_steps_in_flight);
    TEST(steps_behind_another);
    TEST(order_is_kept);
    TEST(wrong_batches);
    TEST(failures_of_the_gpu);
    TEST(endings_of_command_buffers);
    TEST(steps_in_pieces);
    TEST(pieces_by_work);
    TEST(failures_of_pieces);
    TEST(freed_under_way);
    TEST(memory_beside_steps);
    TEST(memory_stays_flat);
    TEST(tables_grow);
    TEST(mapped_files);
    TEST(windows_of_a_file);
    TEST(room_of_the_device);
    TEST(older_and_newer_systems);
    TEST(pipelines_with_fewer_threads);
    TEST(the_cache_of_pipelines);
    TEST(a_step_leaves_nothing);
    TEST_EXIT();
}
