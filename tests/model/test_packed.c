/*
 * test_packed.c - the packed copy on disk: the same numbers with it, without it, and whatever lies in its place; never
 * a load that fails because of it; nobody else's files; the limit on its size.
 */
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "test.h"

#define STORIES "tests/fixtures/stories260K/stories260K.gguf"
#define OTHER "tests/fixtures/model/llama-k-gguf.gguf"
#define QUANTIZED "tests/fixtures/model/gpt2-q8-gguf.gguf"
#define HUGE_PAGE ((size_t)2 << 20) /* where the data begins, and what the file's size is a multiple of */
#define N_IDS 5

/* What the library said of the copy. */
typedef enum seen { NOTHING, KEPT, MAPPED, READ, REFUSED, CANNOT } seen;
static _Thread_local seen at_load, at_free; /* copies are logged by the thread that loads or frees */
static char root[64], cache[128], packed[160], model[128];

static void listen(void *user, int level, const char *line) {
    seen *to = user ? user : &at_load;
    (void)level;
    if (strstr(line, "packed weights kept")) at_free = KEPT;
    else if (strstr(line, "cannot be kept")) at_free = CANNOT;
    else if (strstr(line, "weights mapped")) *to = MAPPED;
    else if (strstr(line, "weights read")) *to = READ;
    else if (strstr(line, "not what it should be")) *to = REFUSED;
}

static bool taken(void) { return at_load == MAPPED || at_load == READ; }

/* The logits of a few tokens; at_load and at_free tell what became of the copy. */
static sill_status run_with(const char *path, sill_dtype dtype, bool no_cache, float **logits, size_t *n, sill_error *err) {
    const int32_t ids[N_IDS] = {1, 20, 33, 4, 57};
    sill_model_options mo = {.size = sizeof mo, .dtype = dtype, .n_threads = 2, .no_cache = no_cache};
    sill_session_options so = {.size = sizeof so, .n_ctx = 32, .batch_tokens = 32, .max_sequences = 1};
    sill_model_info info;
    sill_model *m = NULL;
    sill_session *s = NULL;
    *logits = NULL;
    at_load = at_free = NOTHING;
    sill_status st = sill_model_load(path, &mo, &m, err);
    if (st == SILL_OK) st = sill_session_create(m, &so, &s, err);
    if (st == SILL_OK) {
        sill_model_get_info(m, &info, sizeof info);
        *n = (size_t)info.n_vocab * N_IDS;
        *logits = malloc(*n * sizeof **logits);
        st = sill_logits(s, ids, N_IDS, *logits, err);
    }
    sill_session_free(s);
    sill_model_free(m);
    return st;
}

/* The same numbers as without any copy, bit for bit. */
static bool same_as_without(const char *path, sill_dtype dtype) {
    sill_error err = {0};
    float *a = NULL, *b = NULL;
    size_t n = 0, k = 0;
    bool same = run_with(path, dtype, true, &b, &k, &err) == SILL_OK && at_load == NOTHING && at_free == NOTHING &&
                run_with(path, dtype, false, &a, &n, &err) == SILL_OK && n == k && !memcmp(a, b, n * sizeof *a);
    if (err.code != SILL_OK) FAIL("%s", err.msg);
    free(a);
    free(b);
    return same;
}

/* ---- files */

static void remove_all(const char *path) {
    char command[256];
    snprintf(command, sizeof command, "rm -rf '%s'", path);
    if (system(command) != 0) FAIL("cannot remove %s", path);
}

static void settle(void) { usleep(150000); } /* a file that changed this moment is not cached */

static void copy_file(const char *from, const char *to) {
    char command[512];
    snprintf(command, sizeof command, "cp '%s' '%s'", from, to);
    if (system(command) != 0) FAIL("cannot copy %s", from);
    settle();
}

/* How many files of the directory end so; the last one's path. */
static int count(const char *suffix, char path[512]) {
    int n = 0;
    DIR *d = opendir(packed);
    for (struct dirent *e; d && (e = readdir(d));) {
        size_t k = strlen(e->d_name), t = strlen(suffix);
        if (e->d_name[0] == '.' || k < t || strcmp(e->d_name + k - t, suffix)) continue;
        if (path) snprintf(path, 512, "%s/%s", packed, e->d_name);
        n++;
    }
    if (d) closedir(d);
    return n;
}

/* An empty cache and a model of our own to change. */
static void start_in(const char *parent) {
    if (root[0]) remove_all(root);
    snprintf(root, sizeof root, "%s/sill_packed_XXXXXX", parent);
    if (!mkdtemp(root)) FAIL("no directory in %s", parent);
    snprintf(cache, sizeof cache, "%s/a/b", root);
    snprintf(packed, sizeof packed, "%s/packed", cache);
    snprintf(model, sizeof model, "%s/model.gguf", root);
    setenv("SILL_CACHE", cache, 1);
    setenv("SILL_PACKED_MIN_MIB", "0", 1);
    unsetenv("SILL_PACKED_MAX_MIB");
    sill_set_log(listen, NULL);
    copy_file(STORIES, model);
}
static void start(void) { start_in("/tmp"); }

/* ---- tests */

static void kept_and_taken(void) {
    struct stat st;
    char path[512];
    CHECK(same_as_without(model, SILL_DTYPE_AUTO));
    CHECK(at_load == NOTHING && at_free == KEPT);
    CHECK_INT(count("", path), 1);
    REQUIRE(stat(path, &st) == 0);
    CHECK_INT(st.st_mode & 07777, 0600);
    CHECK_INT(st.st_size % (off_t)HUGE_PAGE, 0);
    REQUIRE(stat(packed, &st) == 0);
    CHECK_INT(st.st_mode & 07777, 0700);
    for (int i = 0; i < 3; i++) {
        CHECK(same_as_without(model, SILL_DTYPE_AUTO));
        CHECK(taken() && at_free == NOTHING);
    }
    CHECK_INT(count("", NULL), 1);
}

static void test_kept_and_taken(void) {
    start();
    kept_and_taken();
}

/* A file system in memory keeps files in small pages as a rule: there the copy is read. */
static void test_kept_in_memory(void) {
    if (access("/dev/shm", W_OK) != 0) SKIP("this machine has no /dev/shm");
    start_in("/dev/shm");
    kept_and_taken();
}

/* What was computed otherwise is another copy. */
static void test_one_copy_for_each_form(void) {
    start();
    CHECK(same_as_without(model, SILL_DTYPE_AUTO));
    CHECK(same_as_without(model, SILL_DTYPE_BF16));
    CHECK(at_load == NOTHING && at_free == KEPT);
    setenv("SILL_CPU_ISA", "scalar", 1);
    CHECK(same_as_without(model, SILL_DTYPE_AUTO));
    CHECK(at_load == NOTHING && at_free == KEPT);
    unsetenv("SILL_CPU_ISA");
    CHECK(same_as_without(OTHER, SILL_DTYPE_AUTO));
    CHECK(at_load == NOTHING && at_free == KEPT);
    CHECK(same_as_without(OTHER, SILL_DTYPE_F32));
    CHECK(same_as_without(QUANTIZED, SILL_DTYPE_AUTO));
    CHECK_INT(count(".packed", NULL), 6);
    CHECK(same_as_without(model, SILL_DTYPE_BF16));
    CHECK(taken());
    CHECK(same_as_without(QUANTIZED, SILL_DTYPE_AUTO));
    CHECK(taken());
}

/* Runs with a copy that was meddled with: not taken, the same numbers, and whole again behind it. */
static void refused_and_repaired(const char *what) {
    CHECK(same_as_without(model, SILL_DTYPE_AUTO));
    if (taken()) FAIL("taken although %s", what);
    if (at_free != KEPT) FAIL("not kept again although %s", what);
    CHECK(same_as_without(model, SILL_DTYPE_AUTO));
    if (!taken()) FAIL("not taken although it was made again (%s)", what);
    CHECK_INT(count("", NULL), 1);
}

static void flip(const char *path, off_t at, int bit) {
    uint8_t byte = 0;
    int fd = open(path, O_RDWR);
    if (pread(fd, &byte, 1, at) != 1) FAIL("nothing at %lld", (long long)at);
    byte ^= (uint8_t)(1 << bit);
    if (pwrite(fd, &byte, 1, at) != 1) FAIL("cannot write at %lld", (long long)at);
    close(fd);
}

static void damaged(void) {
    char path[512], what[64];
    CHECK(same_as_without(model, SILL_DTYPE_AUTO));
    REQUIRE(count("", path) == 1);
    /* magic, version, byte order, key (both ends), offset, size, number of checksums, their sum, the header's, the first
     * checksum; data: first and last bytes, and some between */
    const off_t places[] = {0, 7, 8, 12, 16, 47, 48, 56, 64, 72, 80, 88, (off_t)HUGE_PAGE, (off_t)HUGE_PAGE + 63, (off_t)HUGE_PAGE + 4096,
                            (off_t)HUGE_PAGE + 1000001, 2 * (off_t)HUGE_PAGE - 1};
    for (size_t i = 0; i < SILL_ARRAY_LEN(places); i++) {
        flip(path, places[i], (int)i % 8);
        snprintf(what, sizeof what, "a bit of byte %lld was flipped", (long long)places[i]);
        refused_and_repaired(what);
    }
}

static void test_damaged(void) {
    start();
    damaged();
}

static void test_damaged_in_memory(void) {
    if (access("/dev/shm", W_OK) != 0) SKIP("this machine has no /dev/shm");
    start_in("/dev/shm");
    damaged();
}

static void test_wrong_size(void) {
    char path[512];
    start();
    CHECK(same_as_without(model, SILL_DTYPE_AUTO));
    REQUIRE(count("", path) == 1);
    const off_t sizes[] = {0, 1, 87, (off_t)HUGE_PAGE, 2 * (off_t)HUGE_PAGE - 1, 2 * (off_t)HUGE_PAGE + 1, 3 * (off_t)HUGE_PAGE};
    for (size_t i = 0; i < SILL_ARRAY_LEN(sizes); i++) {
        CHECK(truncate(path, sizes[i]) == 0);
        refused_and_repaired("its size is wrong");
    }
}

/* The copy of another model under this one's name. */
static void test_foreign_contents(void) {
    char mine[512], command[1200];
    start();
    CHECK(same_as_without(model, SILL_DTYPE_AUTO));
    REQUIRE(count("", mine) == 1);
    snprintf(command, sizeof command, "cp '%s' '%s/mine'", mine, root);
    CHECK(system(command) == 0);
    CHECK(same_as_without(QUANTIZED, SILL_DTYPE_AUTO));
    unlink(mine);
    char other[512];
    REQUIRE(count("", other) == 1);
    snprintf(command, sizeof command, "mv '%s' '%s'", other, mine);
    CHECK(system(command) == 0);
    refused_and_repaired("it is another model's");
}

static void test_not_ours(void) {
    char path[512], aside[256];
    start();
    CHECK(same_as_without(model, SILL_DTYPE_AUTO));
    REQUIRE(count("", path) == 1);
    CHECK(chmod(path, 0620) == 0);
    refused_and_repaired("others may write it");
    snprintf(aside, sizeof aside, "%s/aside", root);
    CHECK(rename(path, aside) == 0 && symlink(aside, path) == 0);
    refused_and_repaired("it is a symbolic link");
    CHECK(access(aside, F_OK) == 0);
    CHECK(unlink(path) == 0 && mkfifo(path, 0600) == 0);
    refused_and_repaired("it is a pipe");
    if (geteuid() == 0) {
        CHECK(chown(path, 12345, (gid_t)-1) == 0);
        refused_and_repaired("it is another user's");
    }
    /* The directory: not taken from and not written to. */
    CHECK(chmod(packed, 0777) == 0);
    CHECK(same_as_without(model, SILL_DTYPE_AUTO));
    CHECK(at_load == NOTHING && at_free == NOTHING);
    CHECK(chmod(packed, 0700) == 0);
    CHECK(same_as_without(model, SILL_DTYPE_AUTO));
    CHECK(taken());
    snprintf(aside, sizeof aside, "%s/real", root);
    CHECK(rename(packed, aside) == 0 && symlink(aside, packed) == 0);
    CHECK(same_as_without(model, SILL_DTYPE_AUTO));
    CHECK(at_load == NOTHING && at_free == NOTHING);
}

static void test_no_place(void) {
    static const char *const places[] = {"/dev/null/cache", "/proc/nothing/here"};
    start();
    for (size_t i = 0; i < SILL_ARRAY_LEN(places); i++) {
        setenv("SILL_CACHE", places[i], 1);
        CHECK(same_as_without(model, SILL_DTYPE_AUTO));
        CHECK(at_load == NOTHING && at_free == NOTHING);
    }
    setenv("SILL_CACHE", cache, 1);
    if (geteuid() != 0) { /* nothing is read-only for root */
        char parent[160];
        snprintf(parent, sizeof parent, "%s/a", root);
        CHECK(mkdir(parent, 0500) == 0);
        CHECK(same_as_without(model, SILL_DTYPE_AUTO));
        CHECK(at_load == NOTHING && at_free == NOTHING);
        CHECK(chmod(parent, 0700) == 0);
    }
}

/* Without room: a limit on the size of files, met before the write (its signal would end the process) or in it. */
static void test_no_room(void) {
    for (int ignored = 0; ignored < 2; ignored++) {
        start();
        fflush(stdout);
        pid_t child = fork();
        if (child == 0) {
            struct rlimit limit = {HUGE_PAGE + 100, HUGE_PAGE + 100};
            signal(SIGXFSZ, ignored ? SIG_IGN : SIG_DFL);
            setrlimit(RLIMIT_FSIZE, &limit);
            bool same = same_as_without(model, SILL_DTYPE_AUTO);
            _exit(!same || at_free != (ignored ? CANNOT : NOTHING));
        }
        int status = -1;
        CHECK(waitpid(child, &status, 0) == child);
        CHECK_INT(status, 0);
        CHECK_INT(count("", NULL), 0);
    }
}

static void test_changed_model(void) {
    struct stat st;
    start();
    CHECK(same_as_without(model, SILL_DTYPE_AUTO));
    CHECK(at_free == KEPT);
    /* Another time stamp. */
    REQUIRE(stat(model, &st) == 0);
    struct timespec times[2] = {{st.st_mtime - 1000, 0}, {st.st_mtime - 1000, 0}};
    CHECK(utimensat(AT_FDCWD, model, times, 0) == 0);
    settle();
    refused_and_repaired("the model's time changed");
    /* Other contents in the same file, of the same size, under the same time stamp. */
    char path[512];
    CHECK(count("", path) == 1);
    for (off_t at = st.st_size - 100000; at < st.st_size - 90000; at += 4) flip(model, at + 2, 6);
    CHECK(utimensat(AT_FDCWD, model, times, 0) == 0);
    settle();
    refused_and_repaired("the model's contents changed");
    /* Another size. */
    CHECK(truncate(model, st.st_size + 4096) == 0);
    settle();
    refused_and_repaired("the model's size changed");
    /* A change of this moment could be followed by one that its time does not show. */
    CHECK(utimensat(AT_FDCWD, model, NULL, 0) == 0);
    float *logits;
    size_t n;
    sill_error err = {0};
    CHECK(run_with(model, SILL_DTYPE_AUTO, false, &logits, &n, &err) == SILL_OK);
    CHECK(at_load == NOTHING && at_free == NOTHING);
    free(logits);
}

static void test_limits(void) {
    char path[512];
    start();
    setenv("SILL_PACKED_MAX_MIB", "0", 1);
    CHECK(same_as_without(model, SILL_DTYPE_AUTO));
    CHECK(at_free == NOTHING && count("", NULL) == 0);
    setenv("SILL_PACKED_MAX_MIB", "3", 1); /* the file has 4 */
    CHECK(same_as_without(model, SILL_DTYPE_AUTO));
    CHECK(at_free == NOTHING && count("", NULL) == 0);
    unsetenv("SILL_PACKED_MIN_MIB"); /* too small to be worth it */
    setenv("SILL_PACKED_MAX_MIB", "8", 1);
    CHECK(same_as_without(model, SILL_DTYPE_AUTO));
    CHECK(at_free == NOTHING && count("", NULL) == 0);
    setenv("SILL_PACKED_MIN_MIB", "0", 1);
    CHECK(same_as_without(model, SILL_DTYPE_AUTO));
    CHECK(at_free == KEPT && count("", path) == 1);
    /* A copy long unused, and one of an hour ago that was left behind; other files are nobody's business. */
    struct timespec old[2] = {{1000000000, 0}, {1000000000, 0}};
    char left[600], notes[600];
    snprintf(left, sizeof left, "%s.77.0.new", path);
    snprintf(notes, sizeof notes, "%s/notes.txt", packed);
    copy_file(STORIES, left);
    copy_file(STORIES, notes);
    CHECK(utimensat(AT_FDCWD, left, old, 0) == 0 && utimensat(AT_FDCWD, path, old, 0) == 0 &&
          utimensat(AT_FDCWD, notes, old, 0) == 0);
    CHECK(same_as_without(QUANTIZED, SILL_DTYPE_AUTO));
    CHECK_INT(count(".packed", NULL), 2);
    CHECK_INT(count(".new", NULL), 0);
    CHECK(same_as_without(OTHER, SILL_DTYPE_AUTO)); /* a third: the oldest goes */
    CHECK_INT(count(".packed", NULL), 2);
    CHECK(access(path, F_OK) != 0 && access(notes, F_OK) == 0);
    settle(); /* times of files have a coarse clock */
    CHECK(same_as_without(QUANTIZED, SILL_DTYPE_AUTO));
    CHECK(taken());
    settle();
    CHECK(same_as_without(model, SILL_DTYPE_AUTO)); /* OTHER goes, since QUANTIZED was used last */
    CHECK(same_as_without(QUANTIZED, SILL_DTYPE_AUTO));
    CHECK(taken());
    setenv("SILL_PACKED_MAX_MIB", "many", 1); /* the default */
    CHECK(same_as_without(OTHER, SILL_DTYPE_AUTO));
    CHECK(at_free == KEPT && count(".packed", NULL) == 3);
}

/* In the copy's place, not in the copy itself: other processes have that mapped. */
static void put_damaged(const char *path) {
    char command[1200], aside[256];
    snprintf(aside, sizeof aside, "%s/damaged", root);
    snprintf(command, sizeof command, "cp '%s' '%s' && chmod 600 '%s'", path, aside, aside);
    if (system(command) != 0) return; /* just removed by another */
    flip(aside, (off_t)HUGE_PAGE + 5, 3);
    rename(aside, path);
}

static void test_processes_at_once(void) {
    enum { N = 6 };
    pid_t child[N];
    start();
    fflush(stdout);
    for (int i = 0; i < N; i++) {
        child[i] = fork();
        if (child[i] != 0) continue;
        bool same = true;
        for (int k = 0; k < 6 && same; k++) {
            char path[512];
            if (k == 2 && i == 0 && count(".packed", path)) unlink(path);
            if (k == 3 && i == 1 && count(".packed", path)) put_damaged(path);
            same = same_as_without(model, SILL_DTYPE_AUTO);
        }
        _exit(!same);
    }
    for (int i = 0; i < N; i++) {
        int status = -1;
        CHECK(waitpid(child[i], &status, 0) == child[i]);
        CHECK_INT(status, 0);
    }
    CHECK_INT(count(".new", NULL), 0);
    same_as_without(model, SILL_DTYPE_AUTO);
    CHECK(same_as_without(model, SILL_DTYPE_AUTO));
    CHECK(taken());
    CHECK_INT(count("", NULL), 1);
}

static void *run_thread(void *ok) {
    float *logits;
    size_t n;
    *(bool *)ok = run_with(model, SILL_DTYPE_AUTO, false, &logits, &n, NULL) == SILL_OK;
    free(logits);
    return NULL;
}

static void ignore(void *user, int level, const char *line) { (void)user, (void)level, (void)line; }

static void test_threads_at_once(void) {
    enum { N = 4 };
    pthread_t threads[N];
    bool ok[N];
    start();
    sill_set_log(ignore, NULL);
    for (int i = 0; i < N; i++) CHECK(pthread_create(&threads[i], NULL, run_thread, &ok[i]) == 0);
    for (int i = 0; i < N; i++) {
        pthread_join(threads[i], NULL);
        CHECK(ok[i]);
    }
    sill_set_log(listen, NULL);
    CHECK(same_as_without(model, SILL_DTYPE_AUTO));
    CHECK(taken());
    CHECK_INT(count("", NULL), 1);
}

/* The n-th allocation fails while there is a copy, and while there is none: ENOMEM or the right numbers. */
static void test_no_memory(void) {
    float *want, *got;
    size_t n, k;
    sill_error err = {0};
    start();
    CHECK(run_with(model, SILL_DTYPE_AUTO, true, &want, &n, &err) == SILL_OK);
    for (int copy = 0; copy < 2; copy++) {
        int failed = 0;
        for (uint64_t i = 1; i < 400; i++) {
            if (!copy) remove_all(cache);
            sill__alloc_fail_at(i);
            sill_status s = run_with(model, SILL_DTYPE_AUTO, false, &got, &k, &err);
            sill__alloc_fail_at(0);
            if (s == SILL_OK && (k != n || memcmp(got, want, n * sizeof *got))) FAIL("other numbers at allocation %d", (int)i);
            if (s != SILL_OK && s != SILL_ENOMEM) FAIL("allocation %d: %s", (int)i, err.msg);
            failed += s != SILL_OK;
            free(got);
        }
        CHECK(failed > 10);
        CHECK(run_with(model, SILL_DTYPE_AUTO, false, &got, &k, &err) == SILL_OK);
        CHECK(k == n && !memcmp(got, want, n * sizeof *got));
        free(got);
    }
    free(want);
}

int main(int argc, char **argv) {
    TEST(test_kept_and_taken);
    TEST(test_kept_in_memory);
    TEST(test_one_copy_for_each_form);
    TEST(test_damaged);
    TEST(test_damaged_in_memory);
    TEST(test_wrong_size);
    TEST(test_foreign_contents);
    TEST(test_not_ours);
    TEST(test_no_place);
    TEST(test_no_room);
    TEST(test_changed_model);
    TEST(test_limits);
    TEST(test_processes_at_once);
    TEST(test_threads_at_once);
    TEST(test_no_memory);
    if (root[0]) remove_all(root);
    TEST_EXIT();
}
