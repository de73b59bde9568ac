/* test_read.c - well-formed files written by the formats' own packages: values, metadata, directories. */
#include <sys/stat.h>
#include <unistd.h>

#include "format/internal.h"
#include "test.h"

#define DIR "tests/fixtures/format/"

static bool same_bits(const float *a, const float *b, size_t n, size_t *at) {
    for (size_t i = 0; i < n; i++) {
        uint32_t x = sill__f32_bits(a[i]), y = sill__f32_bits(b[i]);
        if (a[i] != a[i] && b[i] != b[i]) continue; /* any NaN */
        if (x != y) {
            *at = i;
            return false;
        }
    }
    return true;
}

static void every_type_dequantizes_to_the_bit(void) {
    static const struct { const char *name; sill__type type; uint64_t rows, cols; } want[] = {
        {"f32", SILL__TYPE_F32, 3, 64},   {"f16", SILL__TYPE_F16, 3, 64},    {"bf16", SILL__TYPE_BF16, 3, 64},
        {"q4_0", SILL__TYPE_Q4_0, 3, 256}, {"q4_1", SILL__TYPE_Q4_1, 3, 256}, {"q5_0", SILL__TYPE_Q5_0, 3, 256},
        {"q5_1", SILL__TYPE_Q5_1, 3, 256}, {"q8_0", SILL__TYPE_Q8_0, 3, 256}, {"q4_k", SILL__TYPE_Q4_K, 3, 1024},
        {"q5_k", SILL__TYPE_Q5_K, 3, 1024}, {"q6_k", SILL__TYPE_Q6_K, 3, 1024}, {"int8", SILL__TYPE_I8, 2, 4},
        {"int16", SILL__TYPE_I16, 2, 4},  {"int32", SILL__TYPE_I32, 2, 4},   {"int64", SILL__TYPE_I64, 2, 4},
        {"float64", SILL__TYPE_F64, 2, 4}};
    sill_error e = {0};
    sill__file *f;
    char *text;
    size_t bytes, used = 0, at = 0;
    REQUIRE(sill__file_open(DIR "types.gguf", &f, &e) == SILL_OK);
    REQUIRE(sill__read_file(DIR "types.f32", 1 << 20, &text, &bytes, &e) == SILL_OK);
    CHECK_INT(sill__file_n_tensors(f), SILL_ARRAY_LEN(want));
    for (size_t i = 0; i < SILL_ARRAY_LEN(want); i++) {
        const sill__tensor *t = sill__file_find(f, want[i].name);
        const sill__type_info *info = sill__type_get(want[i].type);
        REQUIRE(t);
        CHECK_INT(t->type, want[i].type);
        CHECK(t->n_dims == 2 && t->dims[0] == want[i].rows && t->dims[1] == want[i].cols);
        size_t n = (size_t)sill__tensor_elements(t), row = sill__row_bytes(t->type, t->dims[1]);
        CHECK_INT(row * t->dims[0], t->bytes);
        REQUIRE(used + n * 4 <= bytes);
        float *expected = malloc(n * 4), *got = malloc(n * 4);
        uint8_t *unaligned = malloc(t->bytes + 1);
        memcpy(expected, text + used, n * 4);
        used += n * 4;
        sill__dequant(t->type, t->data, got, n);
        if (!same_bits(got, expected, n, &at))
            FAIL("%s element %zu is %a, expected %a", t->name, at, (double)got[at], (double)expected[at]);
        /* Any address, and any number of blocks at a time. */
        memcpy(unaligned + 1, t->data, t->bytes);
        memset(got, 0x55, n * 4);
        for (size_t k = 0; k < n; k += info->block)
            sill__dequant(t->type, unaligned + 1 + k / info->block * info->block_bytes, got + k, info->block);
        CHECK(same_bits(got, expected, n, &at));
        free(unaligned);
        free(expected);
        free(got);
    }
    CHECK_INT(used, bytes);
    sill__free(text);
    sill__file_close(f);
}

static void row_sizes(void) {
    CHECK_INT(sill__row_bytes(SILL__TYPE_F32, 3), 12);
    CHECK_INT(sill__row_bytes(SILL__TYPE_Q4_1, 576), 360);
    CHECK_INT(sill__row_bytes(SILL__TYPE_Q4_1, 575), 0);
    CHECK_INT(sill__row_bytes(SILL__TYPE_Q6_K, 256), 210);
    CHECK_INT(sill__row_bytes(SILL__TYPE_F64, UINT64_MAX / 4), 0);
    CHECK_INT(sill__row_bytes(SILL__TYPE_COUNT, 32), 0);
    CHECK(sill__type_get(SILL__TYPE_COUNT) == NULL);
    for (int i = 0; i < SILL__TYPE_COUNT; i++) CHECK(sill__type_get((sill__type)i)->name && sill__type_get((sill__type)i)->block);
}

static void gguf_metadata(void) {
    sill_error e = {0};
    sill__file *f;
    int64_t i;
    double d;
    bool b;
    const char *s;
    size_t n;
    REQUIRE(sill__file_open(DIR "tiny.gguf", &f, &e) == SILL_OK);
    CHECK_INT(sill__file_get_kind(f), SILL__FILE_GGUF);
    CHECK_STR(sill__file_dir(f), "");
    CHECK_STR(sill__file_path(f), DIR "tiny.gguf");
    CHECK(sill__meta_int(f, "k.u8", &i) && i == 200);
    CHECK(sill__meta_int(f, "k.i8", &i) && i == -100);
    CHECK(sill__meta_int(f, "k.u16", &i) && i == 60000);
    CHECK(sill__meta_int(f, "k.i16", &i) && i == -30000);
    CHECK(sill__meta_int(f, "k.u32", &i) && i == 4000000000);
    CHECK(sill__meta_int(f, "k.i32", &i) && i == -2000000000);
    CHECK(sill__meta_int(f, "k.small", &i) && i == (int64_t)1 << 62);
    CHECK(sill__meta_int(f, "k.i64", &i) && i == INT64_MIN);
    CHECK(!sill__meta_int(f, "k.u64", &i)); /* 2^63 does not fit */
    CHECK(!sill__meta_int(f, "k.f32", &i) && !sill__meta_int(f, "k.string", &i) && !sill__meta_int(f, "absent", &i));
    CHECK(sill__meta_float(f, "k.f32", &d) && d == 0.5);
    CHECK(sill__meta_float(f, "k.f64", &d) && d == 0.1);
    CHECK(!sill__meta_float(f, "k.u8", &d));
    CHECK(sill__meta_bool(f, "k.true", &b) && b);
    CHECK(sill__meta_bool(f, "k.false", &b) && !b);
    CHECK(!sill__meta_bool(f, "k.u8", &b));
    CHECK(sill__meta_string(f, "k.string", &s, &n) && n == 8 && !memcmp(s, "text, \xc3\xa9", 8));
    CHECK(sill__meta_string(f, "general.architecture", &s, &n) && n == 4 && !memcmp(s, "test", 4));
    CHECK(!sill__meta_string(f, "k.strings", &s, &n));

    const sill__meta *m = sill__file_find_meta(f, "k.strings");
    static const char *const texts[] = {"a", "", "long enough"};
    size_t at = 0, k = 0;
    REQUIRE(m && m->kind == SILL__META_ARRAY && m->element == SILL__META_STRING);
    CHECK_INT(m->n, 3);
    for (; sill__meta_next_string(m, &at, &s, &n); k++) CHECK(k < 3 && n == strlen(texts[k]) && !memcmp(s, texts[k], n));
    CHECK_INT(k, 3);
    CHECK_INT(at, m->bytes);
    m = sill__file_find_meta(f, "k.ints");
    REQUIRE(m);
    CHECK(m->element == SILL__META_I32 && m->n == 3 && m->bytes == 12 && (int8_t)m->data[4] == -2);
    m = sill__file_find_meta(f, "k.nested");
    REQUIRE(m);
    CHECK(m->element == SILL__META_ARRAY && m->n == 2 && m->bytes == 2 * 12 + 3 * 4);
    at = 0;
    CHECK(!sill__meta_next_string(m, &at, &s, &n));
    CHECK_INT(sill__file_n_meta(f), 20);
    for (size_t j = 0; j < sill__file_n_meta(f); j++)
        CHECK(sill__file_find_meta(f, sill__file_meta(f, j)->key) == sill__file_meta(f, j));
    CHECK(sill__file_meta(f, 20) == NULL && sill__file_tensor(f, 3) == NULL);

    const sill__tensor *t = sill__file_find(f, "cube");
    float y[64];
    REQUIRE(t);
    CHECK(t->n_dims == 3 && t->dims[0] == 2 && t->dims[1] == 3 && t->dims[2] == 2 && t->type == SILL__TYPE_F16);
    sill__dequant(t->type, t->data, y, 12);
    for (int j = 0; j < 12; j++) CHECK(y[j] == (float)j);
    t = sill__file_find(f, "quantized");
    REQUIRE(t);
    CHECK(t->dims[0] == 2 && t->dims[1] == 32 && t->map->bytes == 960);
    CHECK(sill__file_find(f, "cub") == NULL && sill__file_find(f, "") == NULL);
    sill__file_close(f);
}

static void gguf_version_2_reads_as_3(void) {
    sill_error e = {0};
    sill__file *f;
    char *p;
    size_t n;
    REQUIRE(sill__read_file(DIR "tiny.gguf", 1 << 20, &p, &n, &e) == SILL_OK);
    p[4] = 2;
    CHECK_OK(sill__file_open_memory(p, n, "two.gguf", &f, &e), e);
    CHECK_INT(sill__file_n_tensors(f), 3);
    sill__file_close(f);
    sill__free(p);
}

static void safetensors_values(void) {
    static const struct { const char *name, *type; int n_dims; uint64_t dims[4]; size_t n; float v[6]; } want[] = {
        {"f32", "F32", 2, {2, 3}, 6, {0, 1, 2, 3, 4, 5}}, {"f16", "F16", 1, {3}, 3, {1, -2, 0.5f}},
        {"bf16", "BF16", 2, {2, 1}, 2, {1, -3}},          {"f64", "F64", 1, {1}, 1, {0.25f}},
        {"i64", "I64", 1, {2}, 2, {-1, 7}},               {"i32", "I32", 1, {1}, 1, {-9}},
        {"i16", "I16", 1, {1}, 1, {-8}},                  {"i8", "I8", 1, {3}, 3, {-7, 0, 7}},
        {"u8", "U8", 1, {2}, 2, {200, 1}},                {"bool", "BOOL", 4, {1, 1, 2, 1}, 2, {1, 0}},
        {"scalar", "F32", 0, {0}, 1, {42}},               {"empty", "F32", 3, {3, 0, 2}, 0, {0}},
        {"\xc3\xa9 \"quoted\"", "F32", 1, {1}, 1, {3}}};
    sill_error e = {0};
    sill__file *f;
    REQUIRE(sill__file_open(DIR "tiny.safetensors", &f, &e) == SILL_OK);
    CHECK_INT(sill__file_get_kind(f), SILL__FILE_SAFETENSORS);
    CHECK_STR(sill__file_dir(f), "tests/fixtures/format");
    CHECK_INT(sill__file_n_tensors(f), SILL_ARRAY_LEN(want));
    CHECK_INT(sill__file_n_meta(f), 0);
    CHECK(sill__file_find_meta(f, "general.architecture") == NULL);
    CHECK(sill__file_find(f, "__metadata__") == NULL);
    for (size_t i = 0; i < SILL_ARRAY_LEN(want); i++) {
        const sill__tensor *t = sill__file_find(f, want[i].name);
        float y[6];
        REQUIRE(t);
        CHECK_STR(sill__type_get(t->type)->name, want[i].type);
        CHECK_INT(t->n_dims, want[i].n_dims);
        CHECK(!memcmp(t->dims, want[i].dims, sizeof t->dims));
        CHECK_INT(sill__tensor_elements(t), want[i].n);
        sill__dequant(t->type, t->data, y, want[i].n);
        for (size_t k = 0; k < want[i].n; k++)
            if (y[k] != want[i].v[k]) FAIL("%s[%zu] is %g, expected %g", t->name, k, (double)y[k], (double)want[i].v[k]);
    }
    sill__file_close(f);
}

static void shards_make_one_model(void) {
    sill_error e = {0};
    sill__file *f;
    float y[3];
    REQUIRE(sill__file_open(DIR "sharded", &f, &e) == SILL_OK);
    CHECK_INT(sill__file_n_tensors(f), 3);
    CHECK_STR(sill__file_dir(f), DIR "sharded");
    CHECK_STR(sill__file_path(f), DIR "sharded/model.safetensors.index.json");
    const sill__tensor *a = sill__file_find(f, "a"), *b = sill__file_find(f, "b"), *c = sill__file_find(f, "c");
    REQUIRE(a && b && c);
    CHECK(a->map == b->map && a->map != c->map);
    sill__dequant(c->type, c->data, y, 3);
    CHECK(y[0] == 5 && y[1] == 6 && y[2] == 7);
    sill__dequant(b->type, b->data, y, 2);
    CHECK(y[0] == 3 && y[1] == 4);
    sill__file_close(f);
}

/* ---- directories made here */

static char dir[256], from[1024];

static const char *in_dir(const char *name) {
    static char path[512];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return path;
}

static void make_dir(void) {
    const char *tmp = getenv("TMPDIR");
    snprintf(dir, sizeof dir, "%s/sill-format-XXXXXX", tmp ? tmp : "/tmp");
    if (!mkdtemp(dir)) dir[0] = 0;
    if (!getcwd(from, sizeof from)) from[0] = 0;
}

static void put(const char *name, const void *data, size_t n) {
    FILE *f = fopen(in_dir(name), "wb");
    if (!f || fwrite(data, 1, n, f) != n) FAIL("cannot write %s", name);
    if (f) fclose(f);
}

static void copy(const char *fixture, const char *name) {
    char *p, path[512];
    size_t n;
    sill_error e = {0};
    snprintf(path, sizeof path, DIR "%s", fixture);
    if (sill__read_file(path, 1 << 20, &p, &n, &e) != SILL_OK) {
        FAIL("%s", e.msg);
        return;
    }
    put(name, p, n);
    sill__free(p);
}

static void drop(const char *name) { unlink(in_dir(name)); }

/* Opening PATH fails with CODE and a message that holds TEXT. */
static void refused(const char *path, sill_status code, const char *text) {
    sill_error e = {0};
    sill__file *f = (sill__file *)&e;
    sill_status s = sill__file_open(path, &f, &e);
    CHECK_INT(s, code);
    CHECK(f == NULL);
    if (!strstr(e.msg, text) || e.code != code) FAIL("the message is \"%s\", expected to hold \"%s\"", e.msg, text);
    if (s == SILL_OK) sill__file_close(f);
    CHECK_INT(sill__file_open(path, &f, NULL), code);
}

static void opens(const char *path, const char *file, sill__file_kind kind) {
    sill_error e = {0};
    sill__file *f = NULL;
    CHECK_OK(sill__file_open(path, &f, &e), e);
    if (!f) return;
    CHECK_INT(sill__file_get_kind(f), kind);
    CHECK_STR(sill__file_path(f), file);
    sill__file_close(f);
}

static void directories(void) {
    char slash[300];
    make_dir();
    REQUIRE(dir[0]);
    refused("", SILL_EINVAL, "empty");
    refused(in_dir("absent"), SILL_ENOENT, "absent: no such file");
    refused(dir, SILL_ENOENT, "holds no model.safetensors, model.safetensors.index.json or .gguf file");
    copy("tiny.safetensors", "tf_model.h5"); /* contents do not matter: the name is not looked for */
    refused(dir, SILL_EUNSUPPORTED, "only tf_model.h5, which is not supported");
    copy("tiny.safetensors", "pytorch_model.bin"); /* contents decide here too */
    opens(dir, in_dir("pytorch_model.bin"), SILL__FILE_SAFETENSORS);
    copy("tiny.gguf", "b.gguf");
    opens(dir, in_dir("b.gguf"), SILL__FILE_GGUF);
    copy("tiny.gguf", "a.gguf");
    refused(dir, SILL_EINVAL, "holds 2 .gguf files; name one of them (a.gguf, for example)");
    copy("tiny.safetensors", "model.safetensors");
    opens(dir, in_dir("model.safetensors"), SILL__FILE_SAFETENSORS);
    snprintf(slash, sizeof slash, "%s/", dir);
    opens(slash, in_dir("model.safetensors"), SILL__FILE_SAFETENSORS);
    put("model.safetensors.index.json", "{}", 2); /* the single file comes first */
    opens(dir, in_dir("model.safetensors"), SILL__FILE_SAFETENSORS);
    /* Contents decide, not names. */
    copy("tiny.gguf", "named.safetensors");
    opens(in_dir("named.safetensors"), in_dir("named.safetensors"), SILL__FILE_GGUF);
    copy("tiny.safetensors", "c.gguf");
    opens(in_dir("c.gguf"), in_dir("c.gguf"), SILL__FILE_SAFETENSORS);
    CHECK_INT(chdir(dir), 0);
    sill_error e = {0};
    sill__file *f = NULL;
    CHECK_OK(sill__file_open("model.safetensors", &f, &e), e);
    if (f) CHECK_STR(sill__file_dir(f), ".");
    sill__file_close(f);
    CHECK_INT(chdir(from), 0);
    static const char *const made[] = {"a.gguf", "b.gguf", "c.gguf", "named.safetensors", "model.safetensors",
                                       "pytorch_model.bin", "tf_model.h5", "model.safetensors.index.json"};
    for (size_t i = 0; i < SILL_ARRAY_LEN(made); i++) drop(made[i]);
    mkdir(in_dir("model.safetensors"), 0700);
    refused(dir, SILL_ENOENT, "holds no model.safetensors");
    rmdir(in_dir("model.safetensors"));
    mkfifo(in_dir("pipe"), 0600);
    refused(in_dir("pipe"), SILL_ENOENT, "not a regular one"); /* and does not wait for a writer */
    drop("pipe");
    rmdir(dir);
}

static void foreign_files_are_refused_by_name(void) {
    static const struct { const char *name, *data; size_t n; sill_status code; const char *text; } files[] = {
        {"pytorch_model.bin", "PK\3\4\0\0\0\0\0\0 ", 11, SILL_EFORMAT, "the ZIP archive has no end"},
        {"old.pt", "\x80\2\x8a\nl\xfc\x9c", 7, SILL_EUNSUPPORTED, "pickle, but not one of torch.save"},
        {"weights.h5", "\x89HDF\r\n\x1a\n1234", 12, SILL_EUNSUPPORTED, "HDF5"},
        {"ggml.bin", "tjgg\3\0\0\0....", 12, SILL_EUNSUPPORTED, "GGJT"},
        {"ggml-model.bin", "lmgg\3\0\0\0....", 12, SILL_EUNSUPPORTED, "GGML"},
        {"model.onnx", "\x08\x07\x12\x07pytorch", 11, SILL_EUNSUPPORTED, "ONNX"},
        {"debug_state.bin", "\xc7\xd7\x34\1\2\0\0\0", 8, SILL_EUNSUPPORTED, "debug states"},
        {"model.ckpt.data-00000-of-00001", "\1\2\3\4", 4, SILL_EUNSUPPORTED, "TensorFlow checkpoint"},
        {"checkpoint", "model_checkpoint_path: \"model.ckpt\"", 34, SILL_EUNSUPPORTED, "TensorFlow checkpoint"},
        {"flax_model.msgpack", "\xde\0\1\2\3", 5, SILL_EUNSUPPORTED, "Flax"},
        {"saved_model.pb", "\x08\1\x13", 3, SILL_EUNSUPPORTED, "TensorFlow"},
        {"model.safetensors", "version https://git-lfs.github.com/spec/v1\noid sha256:00", 56, SILL_EUNSUPPORTED, "git lfs pull"},
        {"page.gguf", "<!DOCTYPE html><html>", 21, SILL_EUNSUPPORTED, "web page"},
        {"config.json", "{\"model_type\":\"gpt2\"}", 21, SILL_EUNSUPPORTED, "JSON text"},
        {"model.gz", "\x1f\x8b\x08\0....", 8, SILL_EUNSUPPORTED, "gzip"},
        {"x.npy", "\x93NUMPY\1\0", 8, SILL_EUNSUPPORTED, "NumPy"},
        {"empty.safetensors", "", 0, SILL_EFORMAT, "empty"},
        {"short.safetensors", "\1\2\3", 3, SILL_EFORMAT, "too few"},
        {"noise", "\1\2\3\4\5\6\7\x08\x09", 9, SILL_EFORMAT, "neither a safetensors nor a GGUF file (it starts with the bytes 01 02 03 04)"}};
    make_dir();
    REQUIRE(dir[0]);
    for (size_t i = 0; i < SILL_ARRAY_LEN(files); i++) {
        put(files[i].name, files[i].data, files[i].n);
        refused(in_dir(files[i].name), files[i].code, files[i].text);
        refused(in_dir(files[i].name), files[i].code, files[i].name);
        drop(files[i].name);
    }
    rmdir(dir);
    refused(DIR "big-endian.gguf", SILL_EUNSUPPORTED, "big-endian GGUF");
}

static void broken_indexes_are_refused(void) {
    static const struct { const char *index, *text; sill_status code; } cases[] = {
        {"{\"weight_map\":{\"a\":\"../model-00001-of-00002.safetensors\"}}", "shard name ../model-00001", SILL_EFORMAT},
        {"{\"weight_map\":{\"a\":\"/etc/passwd\"}}", "shard name /etc/passwd", SILL_EFORMAT},
        {"{\"weight_map\":{\"a\":\"..\"}}", "shard name ..", SILL_EFORMAT},
        {"{\"weight_map\":{\"a\":\"\"}}", "shard name", SILL_EFORMAT},
        {"{\"weight_map\":{\"a\":\"x\\u0000y\"}}", "shard name x?y", SILL_EFORMAT},
        {"{\"weight_map\":{\"a\":\"absent.safetensors\"}}", "absent.safetensors: no such file", SILL_ENOENT},
        {"{\"weight_map\":{\"a\":\"one.safetensors\",\"c\":\"one.safetensors\"}}", "tensor c is not in one.safetensors", SILL_EFORMAT},
        {"{\"weight_map\":{\"a\":\"two.safetensors\",\"c\":\"one.safetensors\"}}", "tensor a is not in two.safetensors", SILL_EFORMAT},
        {"{\"weight_map\":{\"a\":\"one.safetensors\",\"b\":\"copy.safetensors\"}}", "two tensors with the name a", SILL_EFORMAT},
        {"{\"weight_map\":{\"a\":\"note.safetensors\"}}", "Git LFS pointer", SILL_EUNSUPPORTED},
        {"{\"weight_map\":{}}", "the weight_map is empty", SILL_EFORMAT},
        {"{\"weight_map\":[]}", "an object was expected here", SILL_EFORMAT},
        {"{\"weight_map\":{\"a\":7}}", "a string was expected here", SILL_EFORMAT},
        {"{\"other\":{}}", "no weight_map", SILL_EFORMAT},
        {"[", "no weight_map", SILL_EFORMAT},
        {"{\"weight_map\":{\"a\":\"one.safetensors\"", "the text ends", SILL_EFORMAT},
        {"", "at byte 0", SILL_EFORMAT}};
    make_dir();
    REQUIRE(dir[0]);
    copy("sharded/model-00001-of-00002.safetensors", "one.safetensors");
    copy("sharded/model-00001-of-00002.safetensors", "copy.safetensors");
    copy("sharded/model-00002-of-00002.safetensors", "two.safetensors");
    put("note.safetensors", "version https://git-lfs.github.com/spec/v1\n", 43);
    for (size_t i = 0; i < SILL_ARRAY_LEN(cases); i++) {
        put("model.safetensors.index.json", cases[i].index, strlen(cases[i].index));
        refused(dir, cases[i].code, cases[i].text);
    }
    const char *good = "{\"weight_map\":{\"c\":\"two.safetensors\",\"a\":\"one.safetensors\"}}";
    put("model.safetensors.index.json", good, strlen(good)); /* tensors beyond the map are no harm */
    opens(dir, in_dir("model.safetensors.index.json"), SILL__FILE_SAFETENSORS);
    drop("one.safetensors");
    drop("copy.safetensors");
    drop("two.safetensors");
    drop("note.safetensors");
    drop("model.safetensors.index.json");
    rmdir(dir);
}

static void names_are_found_among_many(void) {
    enum { N = 5000 };
    sill__str s;
    sill_error e = {0};
    sill__file *f;
    char name[32];
    sill__str_init(&s, 1 << 24);
    sill__str_put(&s, "\0\0\0\0\0\0\0\0{", 9);
    for (int i = 0; i < N; i++)
        sill__str_putf(&s, "%s\"t.%d\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[%d,%d]}", i ? "," : "", i * 7 % N, N - 1 - i, N - i);
    sill__str_puts(&s, "}");
    uint64_t header = s.n - 8;
    memcpy(s.p, &header, 8);
    for (int i = 0; i < N; i++) {
        char c = (char)(i & 127);
        sill__str_put(&s, &c, 1);
    }
    CHECK_OK(sill__file_open_memory(s.p, s.n, "many.safetensors", &f, &e), e);
    REQUIRE(f);
    CHECK_INT(sill__file_n_tensors(f), N);
    for (int i = 0; i < N; i++) {
        snprintf(name, sizeof name, "t.%d", i * 7 % N);
        const sill__tensor *t = sill__file_find(f, name);
        REQUIRE(t);
        CHECK_STR(t->name, name);
        CHECK_INT(t->data[0], (N - 1 - i) & 127);
    }
    CHECK(sill__file_find(f, "t.5000") == NULL);
    sill__file_close(f);
    sill__str_free(&s);
}

int main(int argc, char **argv) {
    TEST(every_type_dequantizes_to_the_bit);
    TEST(row_sizes);
    TEST(gguf_metadata);
    TEST(gguf_version_2_reads_as_3);
    TEST(safetensors_values);
    TEST(shards_make_one_model);
    TEST(directories);
    TEST(foreign_files_are_refused_by_name);
    TEST(broken_indexes_are_refused);
    TEST(names_are_found_among_many);
    TEST_EXIT();
}
