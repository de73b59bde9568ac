/* test_base.c - hashes, random numbers, 16-bit floats and buffers against published values. */
#include "test.h"

#include "base/pool.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

static void sha256_of_published_messages(void) { /* FIPS 180-4 examples */
    static const char *text[] = {"", "abc", "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"};
    static const char *want[] = {"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
                                 "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
                                 "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"};
    for (int i = 0; i < 3; i++)
        for (size_t cut = 0; cut <= strlen(text[i]); cut++) {
            sill__sha256 s;
            uint8_t d[32];
            char hex[65];
            sill__sha256_init(&s);
            sill__sha256_update(&s, text[i], cut);
            sill__sha256_update(&s, text[i] + cut, strlen(text[i]) - cut);
            sill__sha256_final(&s, d);
            sill__sha256_hex(d, hex);
            CHECK_STR(hex, want[i]);
        }
}

static void philox_known_answers(void) { /* Random123's kat_vectors, philox4x32 10 rounds */
    uint32_t r[4];
    sill__philox(0, 0, 0, 0, r);
    CHECK(r[0] == 0x6627e8d5 && r[1] == 0xe169c58d && r[2] == 0xbc57ac4c && r[3] == 0x9b00dbd8);
    sill__philox(UINT64_MAX, UINT64_MAX, UINT32_MAX, UINT32_MAX, r);
    CHECK(r[0] == 0x408f276d && r[1] == 0x41c83b0e && r[2] == 0xa20bc7c6 && r[3] == 0x6d5451fd);
    sill__philox(0x299f31d0a4093822u, 0x0370734413198a2eu, 0x85a308d3, 0x243f6a88, r);
    CHECK(r[0] == 0xd16cfe09 && r[1] == 0x94fdcceb && r[2] == 0x5001e420 && r[3] == 0x24126ea1);
}

static void half_floats_round_trip(void) {
    for (uint32_t h = 0; h < 65536; h++) {
        float f = sill__f16_to_f32((uint16_t)h);
        if (f != f) CHECK((sill__f32_to_f16(f) & 0x7fff) > 0x7c00);
        else CHECK_INT(sill__f32_to_f16(f), h);
        f = sill__bf16_to_f32((uint16_t)h);
        if (f == f) CHECK_INT(sill__f32_to_bf16(f), h);
        else CHECK((sill__f32_to_bf16(f) & 0x7fff) > 0x7f80);
    }
    CHECK_INT(sill__f32_to_f16(65519.0f), 0x7bff);
    CHECK_INT(sill__f32_to_f16(65520.0f), 0x7c00);
    CHECK_INT(sill__f32_to_f16(0x1p-25f), 0);          /* half of the smallest, to even */
    CHECK_INT(sill__f32_to_f16(0x1.000002p-25f), 1);
    CHECK_INT(sill__f32_to_f16(1.0f + 0x1p-11f), 0x3c00); /* tie to even */
    CHECK_INT(sill__f32_to_f16(1.0f + 0x3p-11f), 0x3c02);
}

static void buffers_stop_at_their_maximum(void) {
    sill__str s;
    sill__str_init(&s, 10);
    CHECK(sill__str_puts(&s, "12345"));
    CHECK(sill__str_putf(&s, "%d", 67890));
    CHECK(!sill__str_puts(&s, "x"));
    CHECK(s.failed);
    CHECK_STR(s.p, "1234567890");
    sill__str_free(&s);
}

static void errors_carry_context(void) {
    sill_error e = {0};
    CHECK_INT(sill__fail(&e, SILL_EIO, "cannot read %d", 7), SILL_EIO);
    sill__fail_context(&e, "file %s", "a");
    CHECK_STR(e.msg, "file a: cannot read 7");
    CHECK_STR(sill_status_text(SILL_ENOFIT), "would not fit in memory");
}

static void page_blocks_are_zero_and_aligned(void) {
    size_t sizes[] = {0, 1, 4096, ((size_t)2 << 20) - 1, (size_t)2 << 20, ((size_t)5 << 20) + 3};
    for (size_t i = 0; i < SILL_ARRAY_LEN(sizes); i++) {
        uint8_t *p = sill__alloc_pages(sizes[i]);
        REQUIRE(p);
        CHECK(((uintptr_t)p & 63) == 0);
        if (sizes[i] >= (size_t)2 << 20) CHECK(((uintptr_t)p & (((size_t)2 << 20) - 1)) == 0);
        for (size_t k = 0; k < sizes[i]; k += 997) CHECK_INT(p[k], 0);
        sill__free_pages(p, sizes[i]);
    }
}

static char logged[200];
static void keep_line(void *user, int level, const char *line) { (void)user; (void)level; snprintf(logged, sizeof logged, "%s", line); }

static void messages_hold_no_control_characters(void) {
    static const char raw[] = "a\033[2Jb\r\nc\x7f" "d\xc2\x9b" "e\x9b" "f \xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80 \xe2\x82";
    static const char plain[] = "a?[2Jb??c?d??e?f \xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80 ??";
    sill_error err = {0};
    sill__fail(&err, SILL_EINVAL, "%s", raw);
    CHECK_STR(err.msg, plain);
    sill__fail(&err, SILL_EINVAL, "x");
    sill__fail_context(&err, "%s", "\033c");
    CHECK_STR(err.msg, "?c: x");
    sill_set_log(keep_line, NULL);
    sill__log(1, "%s", raw);
    sill_set_log(NULL, NULL);
    CHECK_STR(logged, plain);
}

#ifdef __linux__
static char root[64];
static void put_file(const char *name, const char *text) {
    char path[256];
    snprintf(path, sizeof path, "%s/%s", root, name);
    for (char *p = path + strlen(root) + 1; (p = strchr(p, '/')); p++) {
        *p = 0;
        mkdir(path, 0755);
        *p = '/';
    }
    FILE *f = fopen(path, "w");
    REQUIRE(f);
    fputs(text, f);
    fclose(f);
}

/* A container whose file cache fills its limit has room all the same; limits further down count too. */
static void available_memory_heeds_cgroups(void) {
    snprintf(root, sizeof root, "/tmp/sill-test-XXXXXX");
    REQUIRE(mkdtemp(root));
    put_file("proc/meminfo", "MemTotal: 16000000 kB\nMemAvailable:    8000000 kB\n");
    CHECK(sill__available_bytes_under(root) == 8000000ull * 1024);
    put_file("sys/fs/cgroup/memory.max", "2147483648\n");
    put_file("sys/fs/cgroup/memory.current", "2147000000\n");
    put_file("sys/fs/cgroup/memory.stat", "anon 1000\nfile 2000000000\ninactive_file 1900000000\n");
    CHECK(sill__available_bytes_under(root) == 2147483648ull - 247000000);
    put_file("proc/self/cgroup", "4:memory:/a/b\n0::/user.slice/run-1.scope\n");
    put_file("sys/fs/cgroup/user.slice/memory.max", "max\n");
    put_file("sys/fs/cgroup/user.slice/run-1.scope/memory.max", "100000000\n");
    put_file("sys/fs/cgroup/user.slice/run-1.scope/memory.current", "30000000\n");
    CHECK(sill__available_bytes_under(root) == 70000000);
    put_file("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "50000000\n");
    put_file("sys/fs/cgroup/memory/a/memory.usage_in_bytes", "60000000\n");
    put_file("sys/fs/cgroup/memory/a/memory.stat", "total_inactive_file 20000000\n");
    CHECK(sill__available_bytes_under(root) == 10000000);
    char command[128];
    snprintf(command, sizeof command, "rm -r %s", root);
    CHECK_INT(system(command), 0);
}
#endif

static void on_alarm(int number) { (void)number; }

enum { PIPED = 4 << 20, KEPT = 1 << 20 };
typedef struct reading { int fd; size_t most, n; bool same; } reading;
static uint8_t byte_at(size_t i) { return (uint8_t)(i * 2654435761u >> 13); }
static void read_pipe(void *arg) {
    reading *r = arg;
    uint8_t some[7001];
    ssize_t k;
    r->same = true;
    while (r->n < r->most && (k = read(r->fd, some, sizeof some)) > 0)
        for (ssize_t i = 0; i < k; i++, r->n++) r->same = r->same && some[i] == byte_at(r->n);
    close(r->fd);
}

/* A pipe takes a little at a time, and signals that restart nothing break off the calls. */
static void whole_writes_survive_interruption(void) {
    const size_t most[] = {SIZE_MAX, KEPT};
    struct sigaction alarmed = {.sa_handler = on_alarm}, ignored = {.sa_handler = SIG_IGN}, old[2];
    const struct itimerval often = {{0, 300}, {0, 300}}, never = {{0, 0}, {0, 0}};
    uint8_t *bytes = sill__alloc(PIPED);
    REQUIRE(bytes);
    for (size_t i = 0; i < PIPED; i++) bytes[i] = byte_at(i);
    sigaction(SIGALRM, &alarmed, &old[0]);
    sigaction(SIGPIPE, &ignored, &old[1]);
    for (int i = 0; i < 2; i++) { /* to the end; to a reader that leaves */
        int ends[2];
        size_t done = 0;
        sill__aside reader;
        REQUIRE(pipe(ends) == 0);
        reading r = {.fd = ends[0], .most = most[i]};
        REQUIRE(sill__aside_start(&reader, read_pipe, &r));
        setitimer(ITIMER_REAL, &often, NULL);
        int why = sill__write_all(ends[1], bytes, PIPED, &done);
        setitimer(ITIMER_REAL, &never, NULL);
        close(ends[1]);
        sill__aside_join(&reader);
        CHECK(r.same);
        CHECK(i ? why == EPIPE && done >= KEPT && done < PIPED : why == 0 && done == PIPED && r.n == PIPED);
    }
    sigaction(SIGALRM, &old[0], NULL);
    sigaction(SIGPIPE, &old[1], NULL);
    sill__free(bytes);
}

static void whole_reads_and_writes_in_files(void) {
    char path[] = "/tmp/sill-test-XXXXXX", back[8] = "";
    int fd = mkstemp(path);
    REQUIRE(fd >= 0);
    unlink(path);
    CHECK(sill__pwrite_all(fd, "weights", 7, 5) == 0);
    CHECK(sill__pread_all(fd, back, 7, 5) == 0);
    CHECK_STR(back, "weights");
    CHECK(sill__pread_all(fd, back, 7, 6) == EIO); /* the file ends before */
    CHECK(sill__pread_all(fd, back, 0, 100) == 0);
    CHECK(sill__write_all(fd, "", 0, NULL) == 0);
    close(fd);
    CHECK(sill__pread_all(fd, back, 1, 0) == EBADF && sill__pwrite_all(fd, back, 1, 0) == EBADF);
#ifdef __linux__
    size_t done = 1;
    fd = open("/dev/full", O_WRONLY);
    CHECK(fd >= 0 && sill__write_all(fd, "a", 1, &done) == ENOSPC && done == 0);
    close(fd);
#endif
}

int main(int argc, char **argv) {
    TEST(sha256_of_published_messages);
    TEST(philox_known_answers);
    TEST(half_floats_round_trip);
    TEST(buffers_stop_at_their_maximum);
    TEST(errors_carry_context);
    TEST(page_blocks_are_zero_and_aligned);
    TEST(messages_hold_no_control_characters);
    TEST(whole_writes_survive_interruption);
    TEST(whole_reads_and_writes_in_files);
#ifdef __linux__
    TEST(available_memory_heeds_cgroups);
#endif
    TEST_EXIT();
}
