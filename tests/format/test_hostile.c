/*
 * test_hostile.c - files that want to break the readers: named malformations, every prefix, random flips,
 * and every allocation failing once. Built with the sanitizers too; files lie in exact blocks of memory.
 */
#include <unistd.h>

#include "test.h"
#include "walk.h"

#define DIR "tests/fixtures/format/"

/* Opens N bytes from a block of just that size. A file that opens is walked. */
static sill_status try_bytes(const void *data, size_t n, const char *path, sill_error *err) {
    uint8_t *p = malloc(n ? n : 1);
    sill__file *f = NULL;
    if (n) memcpy(p, data, n);
    memset(err, 0, sizeof *err);
    sill_status s = sill__file_open_memory(p, n, path, &f, err);
    if (s == SILL_OK) {
        if (!f || !walk_file(f)) FAIL("%s opened, but does not keep its promises", path);
    } else {
        if (f) FAIL("%s was refused and given out", path);
        if (err->code != s || !strstr(err->msg, path)) FAIL("%s: status %d with the message \"%s\"", path, (int)s, err->msg);
    }
    sill__file_close(f);
    free(p);
    return s;
}

/* ---- malformed GGUF files: one file that is right but for one thing */

#define BAD_GGUF(X)                                                                                          \
    X(GOOD, OK, "")                                                                                          \
    X(NESTED_FOUR_DEEP, OK, "")                                                                              \
    X(HOLE_BETWEEN_TENSORS, OK, "")                                                                          \
    X(EMPTY_TENSOR, OK, "")                                                                                  \
    X(LAST_PADDING_MISSING, OK, "")                                                                          \
    X(NO_TENSORS, OK, "")                                                                                    \
    X(BAD_MAGIC, EFORMAT, "neither a safetensors nor a GGUF file (it starts with the bytes 47 47 55 58)")     \
    X(VERSION_1, EUNSUPPORTED, "GGUF version 1; versions 2 and 3 are supported")                             \
    X(VERSION_4, EUNSUPPORTED, "GGUF version 4")                                                             \
    X(BIG_ENDIAN_FILE, EUNSUPPORTED, "a big-endian GGUF file")                                               \
    X(TENSOR_COUNT_OVER_LIMIT, EFORMAT, "18446744073709551615 tensors, more than the limit of 65536")        \
    X(TENSOR_COUNT_TOO_BIG, EFORMAT, "60000 tensors cannot be in the")                                       \
    X(META_COUNT_OVER_LIMIT, EFORMAT, "100000 metadata entries, more than the limit of 65536")               \
    X(META_COUNT_TOO_BIG, EFORMAT, "65536 metadata entries cannot be in the")                                \
    X(META_COUNT_ONE_MORE, ANY, "")                                                                          \
    X(KEY_LENGTH_PAST_END, EFORMAT, "a metadata key at byte 32 needs 1000000 bytes, but the file ends after") \
    X(KEY_LENGTH_HUGE, EFORMAT, "needs 18446744073709551615 bytes")                                          \
    X(KEY_EMPTY, EFORMAT, "a name of 0 bytes, expected 1 to 65535")                                          \
    X(KEY_TOO_LONG, EFORMAT, "a name of 70000 bytes, expected 1 to 65535")                                   \
    X(KEY_WITH_NUL, EFORMAT, "no NUL among them")                                                            \
    X(DUPLICATE_KEY, EFORMAT, "two metadata entries with the name k.number")                                 \
    X(VALUE_KIND_UNKNOWN, EFORMAT, "metadata k.number has the unknown type 13 (0 to 12 are known)")          \
    X(TRUNCATED_STRING, EFORMAT, "a metadata value at byte")                                                 \
    X(STRING_LENGTH_HUGE, EFORMAT, "needs 18446744073709551600 bytes")                                       \
    X(ARRAY_KIND_UNKNOWN, EFORMAT, "metadata k.array has the unknown type 4294967295")                       \
    X(ARRAY_COUNT_PAST_END, EFORMAT, "metadata k.array is an array of 100000 elements, more than the")       \
    X(ARRAY_SIZE_OVERFLOW, EFORMAT, "metadata k.array is an array of 4611686018427387905 elements")          \
    X(ARRAY_OF_STRINGS_CUT, EFORMAT, "needs 1152921504606846976 bytes")                                      \
    X(ARRAY_OF_ARRAYS_BOMB, EFORMAT, "metadata k.array nests arrays more than 4 deep")                       \
    X(NESTED_FIVE_DEEP, EFORMAT, "metadata k.array nests arrays more than 4 deep")                           \
    X(ARRAY_OF_ARRAYS_WIDE, EFORMAT, "metadata k.array is an array of 1099511627776 elements")               \
    X(ALIGNMENT_ZERO, EFORMAT, "an alignment of 0, expected a power of two up to 1048576")                   \
    X(ALIGNMENT_THREE, EFORMAT, "an alignment of 3,")                                                        \
    X(ALIGNMENT_HUGE, EFORMAT, "an alignment of 2147483648,")                                                \
    X(ALIGNMENT_WRONG_KIND, EFORMAT, "general.alignment is of type 10, expected 4")                          \
    X(TENSOR_NAME_EMPTY, EFORMAT, "a tensor info at byte")                                                   \
    X(TENSOR_NAME_TOO_LONG, EFORMAT, "a name of 512 bytes, expected 1 to 511")                               \
    X(DUPLICATE_NAME, EFORMAT, "two tensors with the name first")                                            \
    X(TOO_MANY_DIMS, EFORMAT, "tensor first has 5 dimensions, more than the limit of 4")                     \
    X(DIM_COUNT_HUGE, EFORMAT, "tensor first has 4294967295 dimensions")                                     \
    X(NEGATIVE_DIM, EFORMAT, "tensor first has the negative dimension -4")                                   \
    X(SIZE_OVERFLOW, EFORMAT, "the dimensions of tensor first multiply to more than 18446744073709551615")   \
    X(BYTES_OVERFLOW, EFORMAT, "the dimensions of tensor first multiply to more than 18446744073709551615")  \
    X(EMPTY_TIMES_HUGE, EFORMAT, "the dimensions of tensor first multiply to more than 18446744073709551615") \
    X(ROW_NOT_WHOLE_BLOCKS, EFORMAT, "tensor second of type Q4_1 has rows of 48 elements, not a multiple of 32") \
    X(TYPE_UNSUPPORTED, EUNSUPPORTED, "tensor second has the type IQ2_XXS, which is not supported")          \
    X(TYPE_UNKNOWN, EUNSUPPORTED, "tensor second has the unknown type number 99")                            \
    X(OFFSET_UNALIGNED, EFORMAT, "tensor second is at offset 36, not a multiple of the alignment 32")        \
    X(OFFSET_PAST_END, EFORMAT, "tensor second takes 40 bytes from byte 3200 of the data, but the file has") \
    X(OFFSET_HUGE, EFORMAT, "from byte 18446744073709551584 of the data")                                    \
    X(OVERLAP, EFORMAT, "begins at byte 0 of the data, overlapping the one that ends at byte")               \
    X(OVERLAP_INSIDE, EFORMAT, "tensor second begins at byte 32 of the data, overlapping the one that ends at byte 128") \
    X(DATA_CUT_OFF, EFORMAT, "tensor second takes 40 bytes from byte 32 of the data, but the file has 71 bytes") \
    X(SPLIT_FILE, EUNSUPPORTED, "one part of a model split into 3 GGUF files")

#define SILL_ANY (-1)
typedef enum bad_gguf {
#define X(name, status, text) name,
    BAD_GGUF(X)
#undef X
    N_BAD_GGUF
} bad_gguf;

static void u32(sill__str *s, uint64_t v) {
    uint8_t b[4] = {(uint8_t)v, (uint8_t)(v >> 8), (uint8_t)(v >> 16), (uint8_t)(v >> 24)};
    sill__str_put(s, b, 4);
}
static void u64(sill__str *s, uint64_t v) {
    u32(s, v);
    u32(s, v >> 32);
}
static void text(sill__str *s, const char *z, size_t n) {
    u64(s, n);
    sill__str_put(s, z, n);
}
static void zeros(sill__str *s, size_t n) {
    while (n--) sill__str_put(s, "", 1);
}

static void gguf_metadata(sill__str *s, bad_gguf c) {
    static char big[70000];
    memset(big, 'k', sizeof big);
    if (c == KEY_LENGTH_PAST_END) u64(s, 1000000);
    else if (c == KEY_LENGTH_HUGE) u64(s, UINT64_MAX);
    else if (c == KEY_EMPTY) text(s, "", 0);
    else if (c == KEY_TOO_LONG) text(s, big, sizeof big);
    else if (c == KEY_WITH_NUL) text(s, "k\0x", 3);
    else text(s, "k.number", 8);
    u32(s, c == VALUE_KIND_UNKNOWN ? 13 : 4);
    u32(s, 77);

    text(s, c == DUPLICATE_KEY ? "k.number" : "k.string", 8);
    u32(s, 8);
    if (c == TRUNCATED_STRING) u64(s, 99999);
    else if (c == STRING_LENGTH_HUGE) u64(s, UINT64_MAX - 15);
    else text(s, "hello", 5);

    text(s, "k.array", 7);
    u32(s, 9);
    if (c == ARRAY_KIND_UNKNOWN) u32(s, UINT32_MAX), u64(s, 2);
    else if (c == ARRAY_COUNT_PAST_END) u32(s, 0), u64(s, 100000);
    else if (c == ARRAY_SIZE_OVERFLOW) u32(s, 5), u64(s, ((uint64_t)1 << 62) + 1);
    else if (c == ARRAY_OF_STRINGS_CUT) u32(s, 8), u64(s, 2), text(s, "a", 1), u64(s, (uint64_t)1 << 60);
    else if (c == ARRAY_OF_ARRAYS_WIDE) u32(s, 9), u64(s, (uint64_t)1 << 40);
    else if (c == ARRAY_OF_ARRAYS_BOMB || c == NESTED_FOUR_DEEP || c == NESTED_FIVE_DEEP) {
        for (int i = 0; i < (c == NESTED_FOUR_DEEP ? 3 : c == NESTED_FIVE_DEEP ? 4 : 2000); i++) u32(s, 9), u64(s, 1);
        u32(s, 0);
        u64(s, 0);
    } else u32(s, 4), u64(s, 2), u32(s, 1), u32(s, 2);

    if (c == SPLIT_FILE) {
        text(s, "split.count", 11);
        u32(s, 2);
        sill__str_put(s, "\3", 2);
    } else {
        text(s, "general.alignment", 17);
        u32(s, c == ALIGNMENT_WRONG_KIND ? 10 : 4);
        u32(s, c == ALIGNMENT_ZERO ? 0 : c == ALIGNMENT_THREE ? 3 : c == ALIGNMENT_HUGE ? (uint64_t)1 << 31 : 32);
        if (c == ALIGNMENT_WRONG_KIND) u32(s, 0);
    }
}

static void gguf_infos(sill__str *s, bad_gguf c) {
    static char long_name[512];
    memset(long_name, 'n', sizeof long_name);
    if (c == TENSOR_NAME_EMPTY) text(s, "", 0);
    else if (c == TENSOR_NAME_TOO_LONG) text(s, long_name, 512);
    else text(s, "first", 5);
    uint64_t d0 = c == NEGATIVE_DIM ? (uint64_t)-4 : c == SIZE_OVERFLOW ? (uint64_t)1 << 40 : c == BYTES_OVERFLOW ? (uint64_t)1 << 61
                  : c == EMPTY_TIMES_HUGE ? (uint64_t)1 << 40 : c == EMPTY_TENSOR ? 0 : c == OVERLAP_INSIDE ? 16 : 4;
    u32(s, c == TOO_MANY_DIMS ? 5 : c == DIM_COUNT_HUGE ? UINT32_MAX : c == EMPTY_TIMES_HUGE ? 4 : 2);
    u64(s, d0);
    u64(s, c == SIZE_OVERFLOW || c == EMPTY_TIMES_HUGE ? (uint64_t)1 << 40 : c == BYTES_OVERFLOW ? 2 : c == OVERLAP_INSIDE ? 2 : 1);
    if (c == EMPTY_TIMES_HUGE) u64(s, (uint64_t)1 << 40), u64(s, 0);
    u32(s, 0);
    u64(s, 0);

    text(s, c == DUPLICATE_NAME ? "first" : "second", c == DUPLICATE_NAME ? 5 : 6);
    u32(s, 1);
    u64(s, c == ROW_NOT_WHOLE_BLOCKS ? 48 : 64);
    u32(s, c == TYPE_UNSUPPORTED ? 16 : c == TYPE_UNKNOWN ? 99 : 3);
    u64(s, c == OFFSET_UNALIGNED ? 36 : c == OFFSET_PAST_END ? 3200 : c == OFFSET_HUGE ? UINT64_MAX - 31
           : c == HOLE_BETWEEN_TENSORS ? 64 : c == OVERLAP ? 0 : 32);
}

static void build_gguf(sill__str *s, bad_gguf c) {
    sill__str_puts(s, c == BAD_MAGIC ? "GGUX" : "GGUF");
    u32(s, c == VERSION_1 ? 1 : c == VERSION_4 ? 4 : c == BIG_ENDIAN_FILE ? 3u << 24 : 3);
    u64(s, c == TENSOR_COUNT_OVER_LIMIT ? UINT64_MAX : c == TENSOR_COUNT_TOO_BIG ? 60000 : c == NO_TENSORS ? 0 : 2);
    u64(s, c == META_COUNT_OVER_LIMIT ? 100000 : c == META_COUNT_TOO_BIG ? 65536 : c == META_COUNT_ONE_MORE ? 5 : 4);
    gguf_metadata(s, c);
    if (c == NO_TENSORS) return;
    gguf_infos(s, c);
    while (s->n % 32) zeros(s, 1);
    zeros(s, c == HOLE_BETWEEN_TENSORS || c == OVERLAP_INSIDE ? 128 : 72);
    if (c == DATA_CUT_OFF) s->n--;
    else if (c != LAST_PADDING_MISSING && c != OVERLAP_INSIDE) zeros(s, 24);
}

static void malformed_gguf_files(void) {
    static const struct { const char *name, *want; int status; } cases[] = {
#define X(name, status, want) {#name, want, SILL_##status},
        BAD_GGUF(X)
#undef X
    };
    for (int c = 0; c < N_BAD_GGUF; c++) {
        char path[80];
        sill__str s;
        sill_error e;
        snprintf(path, sizeof path, "dir/%s.gguf", cases[c].name);
        sill__str_init(&s, 1 << 20);
        build_gguf(&s, (bad_gguf)c);
        sill_status got = try_bytes(s.p, s.n, path, &e);
        if (cases[c].status != SILL_ANY && (int)got != cases[c].status) FAIL("%s: status %d (%s)", cases[c].name, (int)got, e.msg);
        if (!strstr(e.msg, cases[c].want)) FAIL("%s: \"%s\" does not hold \"%s\"", cases[c].name, e.msg, cases[c].want);
        sill__str_free(&s);
    }
}

/* ---- malformed safetensors files */

#define T(name, dtype, shape, begin, end)                                                                    \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" begin "," end "]}"

static const struct { const char *name, *header; size_t data; int status; const char *want; } bad_safetensors[] = {
    {"GOOD", "{" T("a", "F32", "[2]", "0", "8") "," T("b", "U8", "[3]", "8", "11") "}  \n", 11, SILL_OK, ""},
    {"NO_TENSORS", "{}", 0, SILL_OK, ""},
    {"ONLY_METADATA", "{\"__metadata__\":{\"k\":\"v\"}}", 0, SILL_OK, ""},
    {"METADATA_OF_ANY_FORM", "{\"__metadata__\":[[{\"k\":null}]]," T("a", "U8", "[1]", "0", "1") "}", 1, SILL_OK, ""},
    {"UNKNOWN_FIELD", "{\"a\":{\"dtype\":\"U8\",\"x\":{\"y\":[1]},\"shape\":[1],\"data_offsets\":[0,1]}}", 1, SILL_OK, ""},
    {"ZERO_ELEMENTS", "{" T("a", "F32", "[0]", "0", "0") "," T("b", "F32", "[3,0]", "0", "0") "}", 0, SILL_OK, ""},
    {"SCALAR", "{" T("a", "F64", "[]", "0", "8") "}", 8, SILL_OK, ""},
    {"NOT_AN_OBJECT", "{\"a\":3}", 0, SILL_EFORMAT, "at byte 5: an object was expected here"},
    {"DUPLICATE_NAME", "{" T("a", "U8", "[1]", "0", "1") "," T("a", "U8", "[1]", "1", "2") "}", 2, SILL_EFORMAT, "two tensors with the name a"},
    {"DUPLICATE_NAME_ESCAPED", "{" T("a", "U8", "[1]", "0", "1") "," T("\\u0061", "U8", "[1]", "1", "2") "}", 2, SILL_EFORMAT, "two tensors with the name a"},
    {"DUPLICATE_METADATA", "{\"__metadata__\":{},\"__metadata__\":{}}", 0, SILL_EFORMAT, "two __metadata__"},
    {"DUPLICATE_FIELD", "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"shape\":[1],\"data_offsets\":[0,1]}}", 1, SILL_EFORMAT, "tensor a has two fields shape"},
    {"NAME_EMPTY", "{" T("", "U8", "[1]", "0", "1") "}", 1, SILL_EFORMAT, "has 0 bytes, expected 1 to 511"},
    {"NAME_WITH_NUL", "{" T("a\\u0000b", "U8", "[1]", "0", "1") "}", 1, SILL_EFORMAT, "tensor name a?b has 3 bytes"},
    {"NO_DTYPE", "{\"a\":{\"shape\":[1],\"data_offsets\":[0,1]}}", 1, SILL_EFORMAT, "tensor a has no field dtype"},
    {"NO_SHAPE", "{\"a\":{\"dtype\":\"U8\",\"data_offsets\":[0,1]}}", 1, SILL_EFORMAT, "tensor a has no field shape"},
    {"NO_OFFSETS", "{\"a\":{\"dtype\":\"U8\",\"shape\":[1]}}", 1, SILL_EFORMAT, "tensor a has no field data_offsets"},
    {"DTYPE_UNSUPPORTED", "{" T("a", "F8_E4M3", "[1]", "0", "1") "}", 1, SILL_EUNSUPPORTED, "tensor a has the type F8_E4M3, which is not supported"},
    {"DTYPE_LOWER_CASE", "{" T("a", "f32", "[1]", "0", "4") "}", 4, SILL_EUNSUPPORTED, "the type f32"},
    {"DTYPE_LONG", "{" T("a", "FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF", "[1]", "0", "4") "}", 4, SILL_EFORMAT, "a string longer than allowed"},
    {"DTYPE_NUMBER", "{\"a\":{\"dtype\":7,\"shape\":[1],\"data_offsets\":[0,1]}}", 1, SILL_EFORMAT, "a string was expected here"},
    {"NEGATIVE_DIM", "{" T("a", "U8", "[-1]", "0", "1") "}", 1, SILL_EFORMAT, "tensor a has the negative dimension -1"},
    {"FRACTIONAL_DIM", "{" T("a", "U8", "[1.5]", "0", "1") "}", 1, SILL_EFORMAT, "an integer was expected here"},
    {"DIM_NAN", "{" T("a", "U8", "[NaN]", "0", "1") "}", 1, SILL_EFORMAT, "out of range"},
    {"DIM_TOO_BIG", "{" T("a", "U8", "[99999999999999999999]", "0", "1") "}", 1, SILL_EFORMAT, "out of range"},
    {"TOO_MANY_DIMS", "{" T("a", "U8", "[1,1,1,1,1]", "0", "1") "}", 1, SILL_EUNSUPPORTED, "tensor a has more than 4 dimensions"},
    {"SIZE_OVERFLOW", "{" T("a", "U8", "[4294967296,4294967296,4]", "0", "1") "}", 1, SILL_EFORMAT, "the dimensions of tensor a multiply to more than"},
    {"BYTES_OVERFLOW", "{" T("a", "F64", "[4611686018427387904]", "0", "0") "}", 0, SILL_EFORMAT, "the dimensions of tensor a multiply to more than"},
    {"EMPTY_TIMES_HUGE", "{" T("a", "U8", "[0,4294967296,4294967296,4]", "0", "0") "}", 0, SILL_EFORMAT, "the dimensions of tensor a multiply to more than"},
    {"SPAN_TOO_SHORT", "{" T("a", "F32", "[2]", "0", "7") "}", 7, SILL_EFORMAT, "tensor a takes 7 bytes in the file, but its shape and type need 8"},
    {"SPAN_TOO_LONG", "{" T("a", "F32", "[2]", "0", "9") "}", 9, SILL_EFORMAT, "tensor a takes 9 bytes"},
    {"OFFSETS_BACKWARDS", "{" T("a", "U8", "[1]", "1", "0") "}", 1, SILL_EFORMAT, "tensor a end (0) before they begin (1)"},
    {"OFFSETS_NEGATIVE", "{" T("a", "U8", "[1]", "-1", "0") "}", 1, SILL_EFORMAT, "data_offsets of tensor a are not two numbers from 0 up"},
    {"OFFSETS_THREE", "{" T("a", "U8", "[1]", "0,1", "1") "}", 1, SILL_EFORMAT, "not two numbers"},
    {"OFFSETS_ONE", "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0]}}", 1, SILL_EFORMAT, "are 1 numbers, expected 2"},
    {"OFFSET_PAST_END", "{" T("a", "F32", "[100]", "0", "400") "}", 399, SILL_EFORMAT, "tensor a ends at byte 400 of the data, but the file has 399 bytes"},
    {"OFFSET_HUGE", "{" T("a", "U8", "[1]", "9223372036854775806", "9223372036854775807") "}", 1, SILL_EFORMAT, "ends at byte 9223372036854775807"},
    {"OVERLAP", "{" T("a", "U8", "[4]", "0", "4") "," T("b", "U8", "[4]", "3", "7") "}", 7, SILL_EFORMAT, "tensor b begins at byte 3 of the data, overlapping the one that ends at byte 4"},
    {"SAME_BYTES_TWICE", "{" T("a", "U8", "[4]", "0", "4") "," T("b", "U8", "[4]", "0", "4") "}", 4, SILL_EFORMAT, "overlapping the one that ends at byte 4"},
    {"HOLE", "{" T("a", "U8", "[4]", "0", "4") "," T("b", "U8", "[4]", "5", "9") "}", 9, SILL_EFORMAT, "tensor b begins at byte 5 of the data, leaving a hole behind byte 4"},
    {"HOLE_AT_START", "{" T("a", "U8", "[4]", "1", "5") "}", 5, SILL_EFORMAT, "leaving a hole behind byte 0"},
    {"EMPTY_INSIDE", "{" T("a", "U8", "[4]", "0", "4") "," T("b", "U8", "[0]", "2", "2") "}", 4, SILL_EFORMAT, "tensor b begins at byte 2"},
    {"DATA_LEFT_OVER", "{" T("a", "U8", "[4]", "0", "4") "}", 5, SILL_EFORMAT, "the tensors end at byte 4 of the data, but the file has 5 bytes of data"},
    {"TRUNCATED_STRING", "{\"a", 0, SILL_EFORMAT, "the text ends in the middle of a value"},
    {"TRAILING_TEXT", "{} {}", 0, SILL_EFORMAT, "text behind the end of the value"},
    {"TRAILING_ESCAPE", "{}\\0", 0, SILL_EFORMAT, "text behind the end of the value"},
    {"CONTROL_IN_NAME", "{" T("a\x01", "U8", "[1]", "0", "1") "}", 1, SILL_EFORMAT, "a control character inside a string"},
    {"SHAPE_NESTED", "{" T("a", "U8", "[[1]]", "0", "1") "}", 1, SILL_EFORMAT, "a number was expected here"},
};

static void put_safetensors(sill__str *s, const char *header, size_t n, size_t data) {
    u64(s, n);
    sill__str_put(s, header, n);
    zeros(s, data);
}

static void malformed_safetensors_files(void) {
    for (size_t c = 0; c < SILL_ARRAY_LEN(bad_safetensors); c++) {
        char path[80];
        sill__str s;
        sill_error e;
        snprintf(path, sizeof path, "dir/%s.safetensors", bad_safetensors[c].name);
        sill__str_init(&s, 1 << 20);
        put_safetensors(&s, bad_safetensors[c].header, strlen(bad_safetensors[c].header), bad_safetensors[c].data);
        sill_status got = try_bytes(s.p, s.n, path, &e);
        if ((int)got != bad_safetensors[c].status) FAIL("%s: status %d (%s)", bad_safetensors[c].name, (int)got, e.msg);
        if (!strstr(e.msg, bad_safetensors[c].want)) FAIL("%s: \"%s\" does not hold \"%s\"", bad_safetensors[c].name, e.msg, bad_safetensors[c].want);
        sill__str_free(&s);
    }
}

/* Header lengths, deep nesting, names at their limit: what does not fit the table. */
static void safetensors_limits(void) {
    sill__str s;
    sill_error e;
    static const uint64_t lengths[] = {3, 100, 99999999, 100000000, 100000001, UINT32_MAX};
    for (size_t i = 0; i < SILL_ARRAY_LEN(lengths); i++) { /* HEADER_TOO_BIG, HEADER_PAST_END */
        sill__str_init(&s, 1000);
        u64(&s, lengths[i]);
        sill__str_puts(&s, "{}");
        CHECK_INT(try_bytes(s.p, s.n, "length.safetensors", &e), SILL_EFORMAT);
        CHECK(strstr(e.msg, lengths[i] > 100000000 ? "more than the limit of 100000000" : "but the file has only 10;"));
        sill__str_free(&s);
    }
    for (int depth = 62; depth < 66; depth++) { /* DEPTH: one level is the header's own */
        sill__str h;
        sill__str_init(&s, 1000);
        sill__str_init(&h, 1000);
        sill__str_puts(&h, "{\"__metadata__\":");
        for (int i = 0; i < depth; i++) sill__str_puts(&h, "[");
        for (int i = 0; i < depth; i++) sill__str_puts(&h, "]");
        sill__str_puts(&h, "}");
        put_safetensors(&s, h.p, h.n, 0);
        CHECK_INT(try_bytes(s.p, s.n, "depth.safetensors", &e), depth <= 63 ? SILL_OK : SILL_EFORMAT);
        CHECK(depth <= 63 || strstr(e.msg, "more than 64 levels of nesting"));
        sill__str_free(&s);
        sill__str_free(&h);
    }
    for (int n = 510; n <= 514; n++) { /* NAME_TOO_LONG */
        sill__str h;
        sill__str_init(&s, 2000);
        sill__str_init(&h, 2000);
        sill__str_puts(&h, "{\"");
        for (int i = 0; i < n; i++) sill__str_puts(&h, "n");
        sill__str_puts(&h, "\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}");
        put_safetensors(&s, h.p, h.n, 1);
        CHECK_INT(try_bytes(s.p, s.n, "name.safetensors", &e), n <= 511 ? SILL_OK : SILL_EFORMAT);
        sill__str_free(&s);
        sill__str_free(&h);
    }
}

/* TENSOR_COUNT: one more than the limit. */
static void too_many_tensors(void) {
    sill__str s, h;
    sill_error e;
    sill__str_init(&h, 16 << 20);
    sill__str_puts(&h, "{");
    for (unsigned i = 0; i <= SILL__MAX_TENSORS; i++)
        sill__str_putf(&h, "%s\"%x\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}", i ? "," : "", i);
    sill__str_puts(&h, "}");
    sill__str_init(&s, 16 << 20);
    put_safetensors(&s, h.p, h.n, 0);
    CHECK_INT(try_bytes(s.p, s.n, "many.safetensors", &e), SILL_EFORMAT);
    CHECK_STR(e.msg, "many.safetensors: more than the limit of 65536 tensors");
    sill__str_free(&s);
    sill__str_free(&h);
}

/* What a message shows of a hostile name cannot steer a terminal. */
static void messages_are_printable(void) {
    sill__str s;
    sill_error e;
    const char *h = "{" T("\\u001b[31m\\u0007\\u009b\xff\xfe", "F8", "[1]", "0", "1") "}";
    sill__str_init(&s, 1000);
    put_safetensors(&s, h, strlen(h), 1);
    CHECK_INT(try_bytes(s.p, s.n, "x.safetensors", &e), SILL_EUNSUPPORTED);
    for (const char *p = e.msg; *p; p++) CHECK(*p >= 32 && *p < 127);
    CHECK(strstr(e.msg, "tensor ?[31m????? has"));
    CHECK_STR(sill__show("0123456789012345678901234567890123456789012345678901234567890123456789", 70).text,
              "012345678901234567890123456789012345678901234567890123456789...");
    sill__str_free(&s);
}

/* ---- every prefix, random flips */

static char *fixture(const char *name, size_t *n) {
    char path[256], *p = NULL;
    sill_error e = {0};
    snprintf(path, sizeof path, DIR "%s", name);
    if (sill__read_file(path, 1 << 20, &p, n, &e) != SILL_OK) FAIL("%s", e.msg);
    return p;
}

static void every_prefix(void) {
    sill_error e;
    size_t n;
    char *p = fixture("tiny.safetensors", &n);
    REQUIRE(p);
    CHECK_INT(try_bytes(p, n, "x.safetensors", &e), SILL_OK);
    for (size_t k = 0; k < n; k++) CHECK(try_bytes(p, k, "x.safetensors", &e) != SILL_OK);
    sill__free(p);
    p = fixture("tiny.gguf", &n);
    REQUIRE(p);
    for (size_t k = 0; k <= n; k++) /* the last 24 bytes are padding behind the last tensor */
        CHECK_INT(try_bytes(p, k, "x.gguf", &e) == SILL_OK, k >= n - 24);
    sill__free(p);
}

static void every_prefix_as_a_file(void) { /* the same through the map of a real file */
    char path[300];
    const char *tmp = getenv("TMPDIR");
    size_t n;
    static const char *const names[] = {"tiny.safetensors", "tiny.gguf"};
    snprintf(path, sizeof path, "%s/sill-prefix-XXXXXX", tmp ? tmp : "/tmp");
    int fd = mkstemp(path);
    REQUIRE(fd >= 0);
    for (int i = 0; i < 2; i++) {
        char *p = fixture(names[i], &n);
        REQUIRE(p);
        CHECK_INT(ftruncate(fd, 0), 0);
        CHECK_INT(pwrite(fd, p, n, 0), n);
        for (size_t k = n + 1; k-- > 0;) {
            sill__file *f;
            sill_error e = {0};
            CHECK_INT(ftruncate(fd, (off_t)k), 0);
            sill_status s = sill__file_open(path, &f, &e);
            CHECK_INT(s == SILL_OK, k >= n - (i ? 24 : 0));
            if (s == SILL_OK) CHECK(walk_file(f));
            sill__file_close(f);
        }
        sill__free(p);
    }
    close(fd);
    unlink(path);
}

static void flips_of(const char *name, const char *path, uint64_t seed) {
    size_t n;
    int opened = 0, refused = 0;
    uint64_t state = seed;
    char *p = fixture(name, &n);
    REQUIRE(p);
    printf("  seed %llu for %s\n", (unsigned long long)seed, name);
    for (int i = 0; i < 10000; i++) {
        char *q = malloc(n);
        sill_error e;
        memcpy(q, p, n);
        for (unsigned k = 1 + test_random(&state) % 3; k--;) {
            size_t at = test_random(&state) % n;
            if (test_random(&state) & 1) q[at] = (char)(q[at] ^ 1 << test_random(&state) % 8);
            else q[at] = (char)test_random(&state);
        }
        sill_status s = try_bytes(q, n, path, &e);
        if (s == SILL_OK) opened++;
        else refused++;
        if (s != SILL_OK && s != SILL_EFORMAT && s != SILL_EUNSUPPORTED) FAIL("flip %d: status %d (%s)", i, (int)s, e.msg);
        free(q);
    }
    CHECK(opened > 100 && refused > 1000);
    sill__free(p);
}

static void ten_thousand_flips_of_safetensors(void) { flips_of("tiny.safetensors", "x.safetensors", 20240613); }
static void ten_thousand_flips_of_gguf(void) { flips_of("tiny.gguf", "x.gguf", 20240614); }

/* ---- every allocation fails once */

static void every_allocation_fails_once(void) {
    static const char *const paths[] = {DIR "tiny.gguf", DIR "types.gguf", DIR "tiny.safetensors", DIR "sharded"};
    for (size_t i = 0; i < SILL_ARRAY_LEN(paths); i++) {
        unsigned n = 1;
        for (; n < 1000; n++) {
            sill__file *f = (sill__file *)&n;
            sill_error e = {0};
            sill__alloc_fail_at(n);
            sill_status s = sill__file_open(paths[i], &f, &e);
            sill__alloc_fail_at(0);
            if (s == SILL_OK) {
                CHECK(walk_file(f));
                sill__file_close(f);
                break;
            }
            CHECK(f == NULL && e.msg[0]);
            if (s != SILL_ENOMEM || e.code != s || !strstr(e.msg, "no memory")) FAIL("%s, allocation %u: %s", paths[i], n, e.msg);
        }
        CHECK(n > 5 && n < 1000);
    }
}

int main(int argc, char **argv) {
    TEST(malformed_gguf_files);
    TEST(malformed_safetensors_files);
    TEST(safetensors_limits);
    TEST(too_many_tensors);
    TEST(messages_are_printable);
    TEST(every_prefix);
    TEST(every_prefix_as_a_file);
    TEST(ten_thousand_flips_of_safetensors);
    TEST(ten_thousand_flips_of_gguf);
    TEST(every_allocation_fails_once);
    TEST_EXIT();
}
