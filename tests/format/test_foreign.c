/*
 * test_foreign.c - checkpoints of torch.save, llm.c and TensorFlow that want to break their readers: pickles and archives
 * that are right but for one thing, every prefix, random flips, every allocation failing once. That right ones are read right
 * is tests/model/test_foreign.c's.
 */
#include "bundle_memory.h"
#include "test.h"

#define MODELS "tests/fixtures/model/"

static sill_status try_bytes(const void *data, size_t n, const char *path, sill_error *err) {
    uint8_t *p = malloc(n ? n : 1);
    sill__file *f = NULL;
    if (n) memcpy(p, data, n);
    memset(err, 0, sizeof *err);
    sill_status s = sill__file_open_memory(p, n, path, &f, err);
    if (s == SILL_OK ? !f || !walk_file(f) : f || err->code != s || (s != SILL_ENOMEM && !strstr(err->msg, path))) FAIL("%s: status %d, \"%s\"", path, (int)s, err->msg);
    sill__file_close(f);
    free(p);
    return s;
}

static char *fixture(const char *name, size_t *n) {
    char path[256], *p = NULL;
    sill_error e = {0};
    snprintf(path, sizeof path, MODELS "%s", name);
    if (sill__read_file(path, 1 << 20, &p, n, &e) != SILL_OK) FAIL("%s", e.msg);
    return p;
}

/* ---- archives */

typedef struct member { const char *name; const void *data; size_t n; } member;

static void put_number(sill__str *s, uint64_t v, int bytes) {
    for (int i = 0; i < bytes; i++) sill__str_put(s, (uint8_t[]){(uint8_t)(i < 8 ? v >> 8 * i : 0)}, 1);
}

/* What is wrong about an archive. */
enum { RIGHT, COMPRESSED, ENCRYPTED, OTHER_NAME, TWO_SIZES, PAST_END, AT_PAST_END, WRONG_SUM, TWICE, OVERLAP, MANY, BEHIND, PARTS };

static void put_archive(sill__str *s, const member *m, size_t n, int wrong) {
    size_t at[8];
    sill__str directory;
    sill__str_init(&directory, 1 << 20);
    for (size_t i = 0; i < n; i++) {
        const bool here = i == n - 1;
        size_t name = strlen(m[i].name), size = m[i].n + (here && wrong == PAST_END ? 10000 : 0);
        uint32_t crc = sill__crc32(0, m[i].data, m[i].n) + (wrong == WRONG_SUM && i == 0);
        const uint64_t method = here && wrong == COMPRESSED ? 8 : 0, flags = here && wrong == ENCRYPTED;
        at[i] = here && wrong == OVERLAP ? at[i - 1] : s->n;
        if (!(here && wrong == OVERLAP)) {
            put_number(s, 0x04034b50, 4);
            put_number(s, 20, 2), put_number(s, flags, 2), put_number(s, method, 2), put_number(s, 0, 4), put_number(s, crc, 4);
            put_number(s, m[i].n, 4), put_number(s, m[i].n, 4), put_number(s, name, 2), put_number(s, 0, 2);
            sill__str_put(s, m[i].name, name);
            if (here && wrong == OTHER_NAME) s->p[s->n - 1] ^= 1;
            sill__str_put(s, m[i].data, m[i].n);
        }
        for (int k = 0; k <= (here && wrong == TWICE); k++) {
            put_number(&directory, 0x02014b50, 4), put_number(&directory, 20, 2), put_number(&directory, 20, 2);
            put_number(&directory, flags, 2), put_number(&directory, method, 2), put_number(&directory, 0, 4), put_number(&directory, crc, 4);
            put_number(&directory, size, 4), put_number(&directory, size + (here && wrong == TWO_SIZES), 4), put_number(&directory, name, 2);
            put_number(&directory, 0, 12), put_number(&directory, here && wrong == AT_PAST_END ? 0x7fffffff : at[i], 4);
            sill__str_put(&directory, m[i].name, name);
        }
    }
    size_t begin = s->n;
    sill__str_put(s, directory.p, directory.n);
    put_number(s, 0x06054b50, 4), put_number(s, wrong == PARTS, 2), put_number(s, 0, 2);
    const uint64_t count = wrong == MANY ? 60000 : n + (wrong == TWICE);
    put_number(s, count, 2), put_number(s, count, 2), put_number(s, directory.n, 4), put_number(s, begin, 4), put_number(s, 0, 2);
    if (wrong == BEHIND) sill__str_put(s, "more", 4);
    sill__str_free(&directory);
}

static const float four[4] = {1, 2, 3, 4};

/* The archive of this pickle and the storage "0" of four floats. */
static sill_status try_pickle(const void *pickle, size_t n, int wrong, sill_error *err) {
    const member m[] = {{"a/data.pkl", pickle, n}, {"a/data/0", four, sizeof four}};
    sill__str s;
    sill__str_init(&s, 1 << 20);
    put_archive(&s, m, 2, wrong);
    sill_status status = try_bytes(s.p, s.n, "x.bin", err);
    sill__str_free(&s);
    return status;
}

#define STORAGE(key, n) "(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0" key "X\3\0\0\0cpu" n "tQ"
#define TENSOR(storage, offset, dims, strides)                                                               \
    "ctorch._utils\n_rebuild_tensor_v2\n(" storage offset dims strides "\x89" "ccollections\nOrderedDict\n)RtR"
#define NAMED(value) "\x80\2}q\0X\1\0\0\0w" value "s."
#define WHOLE TENSOR(STORAGE("0", "K\4"), "K\0", "K\4\x85", "K\1\x85")

typedef struct bad { const char *name, *pickle; size_t n; sill_status status; const char *text; } bad;
#define BAD(name, pickle, status, text) {name, pickle, sizeof pickle - 1, SILL_##status, text}

static const bad pickles[] = {
    BAD("good", NAMED(WHOLE), OK, ""),
    BAD("good, protocol 4", "\x80\4\x95\0\0\0\0\0\0\0\0}\x94\x8c\1w" WHOLE "s.", OK, ""),
    BAD("a parameter", NAMED("ctorch._utils\n_rebuild_parameter\n(" WHOLE "\x89" "ccollections\nOrderedDict\n)RtR"), OK, ""),
    BAD("of Python 2", "\x80\2" "ccollections\nOrderedDict\n(]](U\1w" WHOLE "eatR.", OK, ""),
    BAD("metadata as state", "\x80\2" "ccollections\nOrderedDict\n)RX\1\0\0\0w" WHOLE "s}X\1\0\0\0m}sb.", OK, ""),
    BAD("a list in itself", "\x80\2}q\0(X\1\0\0\0l]q\1h\1aX\1\0\0\0w" WHOLE "u.", OK, ""),
    BAD("a dictionary in itself", "\x80\2}q\0(X\1\0\0\0lh\0X\1\0\0\0w" WHOLE "u.", OK, ""),
    BAD("rows repeated", NAMED(TENSOR(STORAGE("0", "K\4"), "K\0", "K\3K\4\x86", "K\0K\1\x86")), OK, ""),
    BAD("turned", NAMED(TENSOR(STORAGE("0", "K\4"), "K\0", "K\2K\2\x86", "K\1K\2\x86")), OK, ""),
    BAD("empty", NAMED(TENSOR(STORAGE("0", "K\4"), "K\xff", "K\0\x85", "K\1\x85")), OK, ""),
    BAD("os.system", "\x80\2" "cos\nsystem\nX\4\0\0\0true\x85R.", EUNSUPPORTED, "asks for os.system, which is not among"),
    BAD("posix.system", "\x80\2" "cposix\nsystem\nX\4\0\0\0true\x85R.", EUNSUPPORTED, "asks for posix.system"),
    BAD("eval by protocol 4", "\x80\4\x8c\10builtins\x8c\4eval\x93\x8c\1" "1\x85R.", EUNSUPPORTED, "asks for builtins.eval"),
    BAD("beside a tensor", NAMED(WHOLE "sX\1\0\0\0x" "cnumpy.core.multiarray\nscalar\n"), EUNSUPPORTED, "asks for numpy.core.multiarray.scalar"),
    BAD("an unused name", "\x80\2" "cbuiltins\nexec\n0}.", EUNSUPPORTED, "asks for builtins.exec"),
    BAD("a name of control characters", "\x80\2" "c\33[2J\nx\n.", EUNSUPPORTED, "asks for ?[2J.x"),
    BAD("NEWOBJ", "\x80\2" "ccollections\nOrderedDict\n)\x81.", EUNSUPPORTED, "the instruction 0x81"),
    BAD("INST", "\x80\2(ios\nsystem\n.", EUNSUPPORTED, "the instruction 0x69"),
    BAD("OBJ", "\x80\2(o.", EUNSUPPORTED, "the instruction 0x6f"),
    BAD("EXT1", "\x80\2\x82\1.", EUNSUPPORTED, "the instruction 0x82"),
    BAD("PERSID", "\x80\2P0\n.", EUNSUPPORTED, "the instruction 0x50"),
    BAD("a module beside it", "\x80\2(X\6\0\0\0moduleNNNNtQ.", EUNSUPPORTED, "keeps beside itself module"),
    BAD("a view of old", NAMED(TENSOR("(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0" "0X\3\0\0\0cpuK\4X\1\0\0\0vtQ", "K\0", "K\4\x85", "K\1\x85")),
        EUNSUPPORTED, "a view of a storage"),
    BAD("a storage called", "\x80\2" "ctorch\nFloatStorage\n)R.", EUNSUPPORTED, "a storage by itself"),
    BAD("past its storage", NAMED(TENSOR(STORAGE("0", "K\4"), "K\1", "K\4\x85", "K\1\x85")), EFORMAT, "reaches past the 4 elements"),
    BAD("a long step", NAMED(TENSOR(STORAGE("0", "K\4"), "K\0", "K\2\x85", "K\4\x85")), EFORMAT, "reaches past"),
    BAD("a step that overflows", NAMED(TENSOR(STORAGE("0", "K\4"), "K\0", "K\3\x85", "\x8a\10\xff\xff\xff\xff\xff\xff\xff\x7f\x85")), EFORMAT, "reaches past"),
    BAD("a place that overflows", NAMED(TENSOR(STORAGE("0", "K\4"), "\x8a\10\xff\xff\xff\xff\xff\xff\xff\x7f", "K\3\x85", "K\1\x85")), EFORMAT, "reaches past"),
    BAD("dimensions that overflow", NAMED(TENSOR(STORAGE("0", "K\4"), "K\0", "\x8a\5\0\0\0\0\1\x8a\5\0\0\0\0\1\x86", "K\0K\0\x86")), EFORMAT, "reaches past"),
    BAD("a small file, a large copy", NAMED(TENSOR(STORAGE("0", "K\4"), "K\0", "M\xff\xffK\4\x86", "K\0K\1\x86")), EFORMAT, "need more memory than the file has"),
    BAD("a negative dimension", NAMED(TENSOR(STORAGE("0", "K\4"), "K\0", "J\xff\xff\xff\xff\x85", "K\1\x85")), EFORMAT, "no number from 0 up"),
    BAD("a negative place", NAMED(TENSOR(STORAGE("0", "K\4"), "J\xff\xff\xff\xff", "K\4\x85", "K\1\x85")), EFORMAT, "no number from 0 up"),
    BAD("strides that are missing", NAMED(TENSOR(STORAGE("0", "K\4"), "K\0", "K\2K\2\x86", "K\1\x85")), EFORMAT, "another number of strides"),
    BAD("five dimensions", NAMED(TENSOR(STORAGE("0", "K\4"), "K\0", "(K\1K\1K\1K\1K\4t", "(K\4K\4K\4K\4K\1t")), EUNSUPPORTED, "more than 4 dimensions"),
    BAD("nine dimensions", NAMED(TENSOR(STORAGE("0", "K\4"), "K\0", "(K\1K\1K\1K\1K\1K\1K\1K\1K\1t", "(K\1t")), EFORMAT, "more than 8 dimensions"),
    BAD("a storage that is not there", NAMED(TENSOR(STORAGE("7", "K\4"), "K\0", "K\4\x85", "K\1\x85")), EFORMAT, "the storage 7 is not in the archive"),
    BAD("a storage of another size", NAMED(TENSOR(STORAGE("0", "K\5"), "K\0", "K\4\x85", "K\1\x85")), EFORMAT, "has 16 bytes in the file"),
    BAD("a huge storage", NAMED(TENSOR(STORAGE("0", "\x8a\10\xff\xff\xff\xff\xff\xff\xff\x7f"), "K\0", "K\4\x85", "K\1\x85")), EFORMAT, "has 16 bytes in the file"),
    BAD("a value that nobody remembered", "\x80\2h\5.", EFORMAT, "was not remembered"),
    BAD("a memo of two thousand millions", "\x80\2}r\xff\xff\xff\x7f.", EFORMAT, "a memo beyond the limit"),
    BAD("a long text", "\x80\2X\xff\xff\xff\xff" "abc.", EFORMAT, "ends in"),
    BAD("a very long text", "\x80\4\x8d\xff\xff\xff\xff\xff\xff\xff\xff" "abc.", EFORMAT, "too long"),
    BAD("nothing on the stack", "\x80\2R.", EFORMAT, "nothing on the stack"),
    BAD("nothing above the mark", "\x80\2}(0.", EFORMAT, "nothing on the stack"),
    BAD("no mark", "\x80\2}u.", EFORMAT, "no mark"),
    BAD("a key alone", "\x80\2}(K\1u.", EFORMAT, "a key without a value"),
    BAD("a list of a dictionary", "\x80\2}K\1a.", EFORMAT, "items for what is no list"),
    BAD("a call of a number", "\x80\2K\1)R.", EFORMAT, "a call of what is no function"),
    BAD("two values", "\x80\2}}.", EFORMAT, "does not end with one value"),
    BAD("no end", "\x80\2}", EFORMAT, "no end"),
    BAD("protocol 0", "\x80\0}.", EFORMAT, "a protocol other than"),
    BAD("a number", "\x80\2K\1.", EUNSUPPORTED, "is no dictionary of tensors"),
    BAD("no tensors", "\x80\2}X\5\0\0\0epochK\1s.", EUNSUPPORTED, "its first key is epoch"),
    BAD("a name of nothing", "\x80\2}X\0\0\0\0" WHOLE "s.", EFORMAT, "expected 1 to 511"),
    BAD("a name twice", NAMED(WHOLE "sX\1\0\0\0w" WHOLE), EFORMAT, "two tensors with the name w"),
    BAD("nanoGPT without sizes", "\x80\2}(X\5\0\0\0model}X\12\0\0\0model_args}u.", EFORMAT, "model_args lack one of"),
};

static void pickles_are_refused_by_name(void) {
    for (size_t i = 0; i < SILL_ARRAY_LEN(pickles); i++) {
        sill_error e = {0};
        const bad *b = &pickles[i];
        sill_status s = try_pickle(b->pickle, b->n, RIGHT, &e);
        if (s != b->status || !strstr(e.msg, b->text)) FAIL("%s: status %d, \"%s\"", b->name, (int)s, e.msg);
        for (size_t k = 0; k < b->n; k++) CHECK(try_pickle(b->pickle, k, RIGHT, &e) != SILL_OK); /* every prefix */
    }
}

/* Each is small, and would be large without a limit. */
static void pickles_have_limits(void) {
    sill_error e = {0};
    sill__str s;
    sill__str_init(&s, (size_t)64 << 20);
    sill__str_put(&s, "\x80\2", 2);
    for (int i = 0; i < 300; i++) sill__str_puts(&s, "(");
    CHECK_INT(try_pickle(s.p, s.n, RIGHT, &e), SILL_EFORMAT);
    CHECK(strstr(e.msg, "more than 256 containers in each other"));
    sill__str_clear(&s);
    sill__str_put(&s, "\x80\2](", 4); /* a list of 20,000, then an OrderedDict of it again and again */
    for (int i = 0; i < 20000; i++) sill__str_puts(&s, "NN\x86");
    sill__str_put(&s, "eq\0", 3);
    for (int i = 0; i < 2000; i++) sill__str_put(&s, "ccollections\nOrderedDict\nh\0\x85R0", 30);
    CHECK_INT(try_pickle(s.p, s.n, RIGHT, &e), SILL_EFORMAT);
    if (!strstr(e.msg, "more than the limit of 8388608 items")) FAIL("%s", e.msg);
    sill__str_free(&s);
}

static void archives_are_refused_by_name(void) {
    static const struct { int wrong; sill_status status; const char *text; } cases[] = {
        {RIGHT, SILL_OK, ""},
        {COMPRESSED, SILL_EUNSUPPORTED, "a/data/0 is compressed (method 8)"},
        {ENCRYPTED, SILL_EUNSUPPORTED, "a/data/0 is encrypted"},
        {OTHER_NAME, SILL_EFORMAT, "another name or method where it is stored"},
        {TWO_SIZES, SILL_EFORMAT, "has two sizes (16 and 17)"},
        {PAST_END, SILL_EFORMAT, "past the end"},
        {AT_PAST_END, SILL_EFORMAT, "is not at byte 2147483647"},
        {WRONG_SUM, SILL_EFORMAT, "the checksum of data.pkl is wrong"},
        {TWICE, SILL_EFORMAT, "members of the ZIP archive overlap"},
        {OVERLAP, SILL_EFORMAT, "another name or method where it is stored"},
        {MANY, SILL_EFORMAT, "60000 members cannot be in the"},
        {BEHIND, SILL_EFORMAT, "the ZIP archive has no end"},
        {PARTS, SILL_EUNSUPPORTED, "in several parts"}};
    for (size_t i = 0; i < SILL_ARRAY_LEN(cases); i++) {
        sill_error e = {0};
        sill_status s = try_pickle(NAMED(WHOLE), sizeof NAMED(WHOLE) - 1, cases[i].wrong, &e);
        if (s != cases[i].status || !strstr(e.msg, cases[i].text)) FAIL("case %d: status %d, \"%s\"", cases[i].wrong, (int)s, e.msg);
    }
    sill_error e = {0};
    const member other[] = {{"word/document.xml", "<x/>", 4}};
    sill__str s;
    sill__str_init(&s, 1 << 20);
    put_archive(&s, other, 1, RIGHT);
    CHECK_INT(try_bytes(s.p, s.n, "x.docx", &e), SILL_EUNSUPPORTED);
    CHECK(strstr(e.msg, "not one of torch.save"));
    sill__str_free(&s);
}

/* ---- prefixes and flips of real files */

static const char *const files[] = {"gpt2-torch/pytorch_model.bin", "gpt2-torch-old/pytorch_model.bin", "gpt2-torch-views/pytorch_model.bin",
                                    "gpt2-nanogpt/ckpt.pt", "gpt2-llmc/model.bin", "gpt2-llmc-bf16/model.bin"};

static void prefixes(void) {
    for (size_t i = 0; i < SILL_ARRAY_LEN(files); i++) {
        sill_error e;
        size_t n;
        char *p = fixture(files[i], &n);
        REQUIRE(p);
        CHECK_INT(try_bytes(p, n, "x.bin", &e), SILL_OK);
        for (size_t k = 0; k < n; k += k < 2000 || k + 2000 > n ? 1 : 37) CHECK(try_bytes(p, k, "x.bin", &e) != SILL_OK);
        sill__free(p);
    }
}

/* Flips, most of them where a reader looks: the head and the end of the file. */
static void flips(void) {
    for (size_t i = 0; i < SILL_ARRAY_LEN(files); i++) {
        uint64_t state = 20261129 + i;
        size_t n;
        int opened = 0;
        char *p = fixture(files[i], &n);
        REQUIRE(p);
        for (int k = 0; k < 3000; k++) {
            char *q = malloc(n);
            sill_error e;
            memcpy(q, p, n);
            for (unsigned m = 1 + test_random(&state) % 3; m--;) {
                size_t edge = SILL_MIN(n, (size_t)3000), at = test_random(&state) % edge;
                if (test_random(&state) & 1) at = n - 1 - at;
                q[at] = (char)(q[at] ^ 1 << test_random(&state) % 8);
            }
            sill_status s = try_bytes(q, n, "x.bin", &e);
            opened += s == SILL_OK;
            if (s != SILL_OK && s != SILL_EFORMAT && s != SILL_EUNSUPPORTED) FAIL("%s: status %d (%s)", files[i], (int)s, e.msg);
            free(q);
        }
        CHECK(opened > 10);
        sill__free(p);
    }
}

static void no_memory(void) {
    for (size_t i = 0; i < SILL_ARRAY_LEN(files); i++) {
        sill_error e;
        size_t n;
        char *p = fixture(files[i], &n);
        REQUIRE(p);
        uint64_t before = sill__alloc_count();
        CHECK_INT(try_bytes(p, n, "x.bin", &e), SILL_OK);
        uint64_t count = sill__alloc_count() - before;
        for (uint64_t k = 1; k <= count; k++) {
            sill__alloc_fail_at(k);
            sill_status s = try_bytes(p, n, "x.bin", &e);
            sill__alloc_fail_at(0);
            if (s != SILL_ENOMEM) FAIL("%s: allocation %llu of %llu failed, and the status is %d", files[i], (unsigned long long)k,
                                       (unsigned long long)count, (int)s);
        }
        sill__free(p);
    }
}

/* ---- TensorFlow */

static void tensorflow(void) {
    sill_error e;
    size_t n, n_data;
    bool ok;
    uint64_t state = 7;
    int whole = 0;
    char *p = fixture("gpt2-tensorflow/model.ckpt.index", &n), *data = fixture("gpt2-tensorflow/model.ckpt.data-00000-of-00001", &n_data);
    REQUIRE(p && data);
    CHECK_INT(read_bundle(p, n, data, n_data, &ok, &e), SILL_ENOENT);
    CHECK(ok && strstr(e.msg, "hparams.json"));
    for (size_t k = 0; k < n; k++) CHECK_INT(read_bundle(p, k, data, n_data, &ok, &e), SILL_EFORMAT);
    for (size_t k = 0; k < n_data; k += 997) CHECK_INT(read_bundle(p, n, data, k, &ok, &e), SILL_EFORMAT);
    data[n_data / 2] ^= 1;
    CHECK_INT(read_bundle(p, n, data, n_data, &ok, &e), SILL_EFORMAT);
    CHECK(strstr(e.msg, "the checksum of variable model/"));
    data[n_data / 2] ^= 1;
    for (int i = 0; i < 3000; i++) { /* what gets past the checksums is the fuzzer's */
        char *q = malloc(n);
        memcpy(q, p, n);
        size_t at = test_random(&state) % n;
        q[at] = (char)(q[at] ^ 1 << test_random(&state) % 8);
        sill_status s = read_bundle(q, n, data, n_data, &ok, &e);
        CHECK(ok && (s == SILL_ENOENT || s == SILL_EFORMAT || s == SILL_EUNSUPPORTED));
        whole += s == SILL_ENOENT;
        free(q);
    }
    CHECK(whole < 300);
    sill__free(p);
    sill__free(data);
}

static void put_varint(sill__str *s, uint64_t v) {
    for (; v > 127; v >>= 7) put_number(s, v | 128, 1);
    put_number(s, v, 1);
}

static void put_entry(sill__str *s, size_t shared, const char *more, const void *value, size_t n) {
    put_varint(s, shared), put_varint(s, strlen(more)), put_varint(s, n);
    sill__str_puts(s, more);
    sill__str_put(s, value, n);
}

/* ENTRIES as a block at the end of S: no restarts, not compressed, its checksum. *AT and *N are what tells of it. */
static void put_block(sill__str *s, const sill__str *entries, size_t *at, size_t *n) {
    *at = s->n;
    sill__str_put(s, entries->p, entries->n);
    put_number(s, 0, 4);
    *n = s->n - *at;
    put_number(s, 0, 1);
    const uint32_t crc = sill__crc32c(0, s->p + *at, *n + 1);
    put_number(s, (crc >> 15 | crc << 17) + 0xa282ead8u, 4);
}

/* An index of one block with these ENTRIES behind the header, over DATA. */
static sill_status try_index(const sill__str *entries, const void *data, size_t n_data, sill_error *err) {
    sill__str s, block, handle;
    size_t at, n;
    bool ok;
    sill__str_init(&s, (size_t)64 << 20), sill__str_init(&block, (size_t)64 << 20), sill__str_init(&handle, 64);
    put_entry(&block, 0, "", "\x08\x01", 2);
    sill__str_put(&block, entries->p, entries->n);
    put_block(&s, &block, &at, &n);
    put_varint(&handle, at), put_varint(&handle, n);
    sill__str_clear(&block);
    put_entry(&block, 0, "z", handle.p, handle.n);
    put_block(&s, &block, &at, &n);
    sill__str_clear(&handle);
    put_varint(&handle, 0), put_varint(&handle, 0), put_varint(&handle, at), put_varint(&handle, n);
    while (handle.n < 40) put_number(&handle, 0, 1);
    sill__str_put(&s, handle.p, 40);
    sill__str_put(&s, "\x57\xfb\x80\x8b\x24\x75\x47\xdb", 8);
    sill_status status = read_bundle(s.p, s.n, data, n_data, &ok, err);
    CHECK(ok);
    sill__str_free(&s), sill__str_free(&block), sill__str_free(&handle);
    return status;
}

/* What a small index could ask for: names without end of what is not kept, sums of the same bytes again and again. */
static void tensorflow_has_limits(void) {
    const float values[16] = {1, 2, 3};
    const char *const names[] = {"model/ln_f/b", "model/ln_f/g", "model/wte"};
    char long_name[512] = "";
    sill_error e = {0};
    sill__str entries, value;
    sill__str_init(&entries, (size_t)64 << 20), sill__str_init(&value, 1000);
    memset(long_name, 'a', 511);
    put_entry(&entries, 0, long_name, "", 0);
    for (int i = 0; i < 50000; i++) put_entry(&entries, 511, "", "", 0); /* of type 0: passed over */
    const uint64_t before = sill__alloc_count();
    CHECK_INT(try_index(&entries, values, sizeof values, &e), SILL_ENOENT); /* hparams.json alone is missing */
    CHECK(sill__alloc_count() - before < 200);
    for (int n = 1; n <= 3; n++) { /* variables of half the data's bytes: two fit */
        sill__str_clear(&entries), sill__str_clear(&value);
        sill__str_put(&value, "\x08\x01\x12\x04\x12\x02\x08\x08\x28\x20\x35", 11); /* float, 8, 32 bytes, the checksum */
        const uint32_t half = sill__crc32c(0, values, 32);
        put_number(&value, (half >> 15 | half << 17) + 0xa282ead8u, 4);
        for (int i = 0; i < n; i++) put_entry(&entries, 0, names[i], value.p, value.n);
        CHECK_INT(try_index(&entries, values, sizeof values, &e), n < 3 ? SILL_ENOENT : SILL_EFORMAT);
        CHECK(strstr(e.msg, n < 3 ? "hparams.json" : "some overlap"));
    }
    sill__str_free(&entries), sill__str_free(&value);
}

static void sums(void) { /* of the published check values of "123456789" */
    CHECK_INT(sill__crc32(0, "123456789", 9), 0xcbf43926u);
    CHECK_INT(sill__crc32c(0, "123456789", 9), 0xe3069283u);
    CHECK_INT(sill__crc32c(sill__crc32c(0, "1234", 4), "56789", 5), 0xe3069283u);
    uint8_t zeros[128] = {0}; /* long ones go by tables */
    uint32_t parts = 0;
    CHECK_INT(sill__crc32(0, zeros, 128), 0xc2a8fa9du);
    for (size_t i = 0; i < 128; i++) zeros[i] = (uint8_t)(i * 37);
    for (size_t i = 0; i < 128; i += 16) parts = sill__crc32c(parts, zeros + i, 16);
    CHECK_INT(sill__crc32c(0, zeros, 128), parts);
}

int main(int argc, char **argv) {
    TEST(sums);
    TEST(pickles_are_refused_by_name);
    TEST(pickles_have_limits);
    TEST(archives_are_refused_by_name);
    TEST(prefixes);
    TEST(flips);
    TEST(no_memory);
    TEST(tensorflow);
    TEST(tensorflow_has_limits);
    TEST_EXIT();
}
