/*
 * Readers, writers and the flow, by themselves. As `test_corpus --convert IN OUT [IN-FORMAT OUT-FORMAT]` it copies
 * a file row by row with the field n (the row's number), for the comparison with Python's csv and json in
 * test_oracle.py; `--generate N PATH` writes N rows, and `--rss PATH` reads them and prints the peak memory.
 */
#include "test.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#include "corpus/corpus.h"

static char dir[] = "/tmp/sill_corpus_XXXXXX";

static const char *in_dir(const char *name) {
    static char paths[4][256];
    static int i;
    i = (i + 1) % 4;
    snprintf(paths[i], sizeof paths[i], "%s/%s", dir, name);
    return paths[i];
}

static const char *file_of(const char *name, const char *bytes, size_t n) {
    const char *path = in_dir(name);
    FILE *f = fopen(path, "wb");
    if (f) {
        fwrite(bytes, 1, n, f);
        fclose(f);
    }
    return path;
}

static char *slurp(const char *path) {
    static char *data;
    size_t n;
    sill__free(data);
    data = NULL;
    if (sill__read_file(path, 1 << 26, &data, &n, NULL) != SILL_OK) return NULL;
    return data;
}

/* All rows of BYTES as text: cells in [] (missing: -), errors behind an exclamation mark, rows end in ;. */
static const char *rows_of(const char *name, const char *bytes, size_t n, const sill__reader_options *o,
                           const char *select) {
    static char out[1 << 16];
    sill_error err = {0};
    sill__reader *r;
    size_t used = 0, slot;
    out[0] = 0;
    if (sill__reader_open(file_of(name, bytes, n), o, &r, &err) != SILL_OK) {
        const char *base = strrchr(err.msg, '/');
        snprintf(out, sizeof out, "error %d: %s", err.code, base ? base + 1 : err.msg);
        return out;
    }
    if (select && sill__reader_select(r, select, &slot, &err) != SILL_OK) {
        snprintf(out, sizeof out, "select: %d", err.code);
        sill__reader_free(r);
        return out;
    }
    for (;;) {
        sill__corpus_row *row;
        if (sill__reader_next(r, &row, &err) != SILL_OK) {
            used += (size_t)snprintf(out + used, sizeof out - used, "fatal %d", err.code);
            break;
        }
        if (!row) break;
        for (size_t i = 0; i < row->n_cells && used + 4096 < sizeof out; i++) {
            const sill__cell *c = &row->cells[i];
            if (c->kind == SILL__CELL_MISSING) used += (size_t)snprintf(out + used, sizeof out - used, "-");
            else used += (size_t)snprintf(out + used, sizeof out - used, "[%.*s]", (int)SILL_MIN(c->n, (size_t)200), c->p);
        }
        if (row->error && used + 4096 < sizeof out)
            used += (size_t)snprintf(out + used, sizeof out - used, "!%llu:%s", (unsigned long long)row->line, row->error);
        if (used + 4096 < sizeof out) used += (size_t)snprintf(out + used, sizeof out - used, ";");
        sill__row_free(row);
    }
    sill__reader_free(r);
    return out;
}
#define CSV(bytes) rows_of("a.csv", bytes, sizeof(bytes) - 1, NULL, NULL)
#define JSONL(bytes) rows_of("a.jsonl", bytes, sizeof(bytes) - 1, NULL, "t")
#define TXT(bytes) rows_of("a.txt", bytes, sizeof(bytes) - 1, NULL, NULL)

static void csv_plain(void) {
    CHECK_STR(CSV("a,b\n1,2\n3,4\n"), "[1][2];[3][4];");
    CHECK_STR(CSV("a,b\n1,2\n3,4"), "[1][2];[3][4];");
    CHECK_STR(CSV("a,b\r\n1,2\r\n3,4\r\n"), "[1][2];[3][4];");
    CHECK_STR(CSV("a,b\r1,2\r3,4\r"), "[1][2];[3][4];");
    CHECK_STR(CSV("\xef\xbb\xbf""a,b\n1,2\n"), "[1][2];");
    CHECK_STR(CSV("a\n\"\"\nx\n"), "[];[x];");
    CHECK_STR(CSV("a,b\n,\n"), "[][];");
}
static void csv_values_are_kept(void) {
    CHECK_STR(CSV("a,b\n  x , y\t\n"), "[  x ][ y\t];");
    CHECK_STR(CSV("a,b\n\" x \",\"1,2\"\n"), "[ x ][1,2];");
    CHECK_STR(CSV("a,b\n\"l1\r\nl2\nl3\rl4\",z\n"), "[l1\r\nl2\nl3\rl4][z];");
    CHECK_STR(CSV("a,b\n\"say \"\"hi\"\"\",5\" disk\n"), "[say \"hi\"][5\" disk];");
    CHECK_STR(CSV("a,b\n\"abc\"def,\"q\" \n"), "[abcdef][q ];");
    sill__reader_options bytes = {.encoding = SILL__ENCODING_BYTES};
    CHECK_STR(rows_of("a.csv", "a,b\n\xff\xfe,\xc3\x28\n", 10, &bytes, NULL), "[\xff\xfe][\xc3\x28];");
}
static void encodings(void) {
    sill__reader_options latin = {.encoding = SILL__ENCODING_LATIN1}, windows = {.encoding = SILL__ENCODING_WINDOWS1252};
    static const char bad[] = "a,b\nx,\xe9t\xe9\n\xc3\xa9,y\n\"\xed\xa0\x80\",z\n";
#define WHY(n, byte) "byte " #n " of the row (" #byte ") is no character of utf-8; is the file in another encoding (--encoding latin-1 or windows-1252)?;"
    CHECK_STR(rows_of("a.csv", bad, sizeof bad - 1, NULL, NULL), "[x][\xef\xbf\xbdt\xef\xbf\xbd]!2:" WHY(3, 0xe9) "[\xc3\xa9][y];"
              "[\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd][z]!4:" WHY(2, 0xed));
    CHECK_STR(JSONL("{\"t\":\"\xe9\"}\n{\"t\":\"b\"}\n"), "[\xef\xbf\xbd]!1:" WHY(7, 0xe9) "[b];");
    CHECK_STR(TXT("ok\n\xe4\xbd\n"), "[ok];[\xef\xbf\xbd]!2:" WHY(1, 0xe4));
    CHECK_STR(CSV("a,\xe9\n1,2\n"), "error 4: a.csv: the header: byte 3 of the row (0xe9) is no character of utf-8; is the file in another encoding "
              "(--encoding latin-1 or windows-1252)?");
    CHECK_STR(rows_of("a.csv", "\xe9,b\n\x80\xff,\"\xe4\n\"\n", 12, &latin, NULL), "[\xc2\x80\xc3\xbf][\xc3\xa4\n];");
    CHECK_STR(rows_of("a.csv", "\xe9,b\n\x80\xff,\x9f\n", 9, &windows, "\xc3\xa9"), "[\xe2\x82\xac\xc3\xbf][\xc5\xb8];");
    CHECK_STR(rows_of("a.csv", "a\nx\x81\n", 5, &windows, NULL), "[x\xef\xbf\xbd]!2:byte 2 of the row (0x81) is no character of windows-1252;");
    CHECK_STR(rows_of("a.jsonl", "{\"t\":\"\xe9\\u00e9\"}\n", 16, &latin, "t"), "[\xc3\xa9\xc3\xa9];");
    CHECK_STR(rows_of("a.csv", "\xef\xbb\xbf""a\n1\n", 7, &latin, NULL), "error 4: a.csv begins with the byte order mark of UTF-8, and --encoding says "
              "latin-1; leave --encoding out");
}
/* Every byte in every encoding (tests/cli/test_input.py compares what comes out with Python). */
static void a_byte_is_at_most_three(void) {
    sill__str s;
    sill__str_init(&s, 10000);
    for (int e = SILL__ENCODING_UTF8; e <= SILL__ENCODING_BYTES; e++)
        for (int c = 0; c < 256; c++) {
            char text[20];
            const char *out;
            size_t n, bad;
            memset(text, 'a', sizeof text);
            text[13] = (char)c;
            CHECK(sill__decode((sill__encoding)e, text, sizeof text, &s, &out, &n, &bad));
            CHECK(n >= sizeof text && n <= sizeof text + 2 && !memcmp(out, "aaaaaaaaaaaaa", 13) && out[n - 1] == 'a');
            CHECK((bad == 13) == ((e == SILL__ENCODING_UTF8 && c > 127) ||
                                  (e == SILL__ENCODING_WINDOWS1252 && (c == 0x81 || c == 0x8d || c == 0x8f || c == 0x90 || c == 0x9d))));
        }
    sill__str_free(&s);
}
static void csv_nul_bytes_are_kept(void) {
    sill_error err = {0};
    sill__reader *r;
    sill__corpus_row *row;
    CHECK_OK(sill__reader_open(file_of("n.csv", "a,b\nx\0y,\"\0\"\n", 13), NULL, &r, &err), err);
    REQUIRE(sill__reader_next(r, &row, &err) == SILL_OK && row && row->n_cells == 2);
    CHECK(row->cells[0].n == 3 && !memcmp(row->cells[0].p, "x\0y", 3));
    CHECK(row->cells[1].n == 1 && row->cells[1].p[0] == 0);
    sill__row_free(row);
    sill__reader_free(r);
}
static void csv_blank_lines_are_no_rows(void) {
    CHECK_STR(CSV("\n\na,b\n\n1,2\r\n\r\n\r3,4\n\n"), "[1][2];[3][4];");
    CHECK_STR(CSV("a,b\n \n"), "[ ]-!2:the row has 1 value, the header names 2 columns;");
}
static void csv_ragged_rows(void) {
    CHECK_STR(CSV("a,b\n1\n1,2,3\n1,2\n"), "[1]-!2:the row has 1 value, the header names 2 columns;"
              "[1][2]!3:the row has 3 values, the header names 2 columns;[1][2];");
}
static void csv_unterminated_quote_costs_one_row(void) {
    CHECK_STR(CSV("a,b\n1,2\n3,\"four\n5,6\n7,8\n"),
              "[1][2];[3][four]!3:a quote opened on line 3 is not closed within the file;[5][6];[7][8];");
    CHECK_STR(CSV("a,b\n1,\"x"), "[1][x]!2:a quote opened on line 2 is not closed within the file;");
    CHECK_STR(CSV("a,b\r\n1,\"x\r\n2,y\r\n"),
              "[1][x]!2:a quote opened on line 2 is not closed within the file;[2][y];");
}
static void csv_row_limit(void) {
    sill__reader_options o = {.max_row_bytes = 70000};
    size_t n = 300000;
    char *p = malloc(n + 100);
    REQUIRE(p);
    /* A long plain row, a long quoted one (its other lines are read as rows of their own), one within the limit. */
    size_t at = (size_t)snprintf(p, 100, "a,b\n");
    memset(p + at, 'x', 100000);
    at += 100000;
    at += (size_t)snprintf(p + at, 100, ",1\n\"");
    memset(p + at, '\n', 100000);
    at += 100000;
    at += (size_t)snprintf(p + at, 100, "2,\"\"\n");
    memset(p + at, '"', 60000);
    at += 60000;
    at += (size_t)snprintf(p + at, 100, ",3\n4,4\n");
    const char *rows = rows_of("long.csv", p, at, &o, NULL);
    CHECK(!strncmp(rows, "--!2:the row is longer than 70000 bytes; --max-row allows more;", 63));
    CHECK(strstr(rows, "!3:a quote opened on line 3 is not closed within 70000 bytes; close it, or let --max-row allow longer rows;") != NULL);
    CHECK(strlen(rows) > 8 && !strcmp(rows + strlen(rows) - 7, "[4][4];"));
    CHECK(strstr(rows, "[2][];[\"\"\"") != NULL && strstr(rows, "\"][3];") != NULL);
    free(p);
}
static void csv_many_open_quotes_end(void) {
    /* Every line opens a quote that the doubled quotes behind it keep open: bounded work, an error at the end. */
    size_t n = 3000000, at = 4;
    char *p = malloc(n);
    REQUIRE(p);
    memcpy(p, "a,b\n", 4);
    while (at + 8 < n) {
        memcpy(p + at, "\"\"\"\n", 4);
        at += 4;
    }
    const char *rows = rows_of("quotes.csv", p, at, NULL, NULL);
    CHECK(rows[0] != 0);
    free(p);
}
static void csv_header(void) {
    CHECK_STR(CSV(""), "error 4: a.csv is empty: the first line must name the columns");
    CHECK_STR(CSV("\n\n"), "error 4: a.csv is empty: the first line must name the columns");
    CHECK_STR(CSV("a,b\n"), "");
    CHECK_STR(CSV("a,\"b\n1,2\n"), "error 4: a.csv: the header line opens a quote that never closes");
    CHECK_STR(rows_of("a.csv", "a,b\n1,2\n", 8, NULL, "c"), "select: 6");
    CHECK_STR(rows_of("a.csv", "a,a\n1,2\n", 8, NULL, "a"), "select: 4");
    CHECK_STR(CSV("\xff\xfe""a\0"), "error 4: a.csv is UTF-16; convert it first: iconv -f UTF-16 -t UTF-8");
    CHECK_STR(CSV("\xfe\xff\0a"), "error 4: a.csv is UTF-16; convert it first: iconv -f UTF-16 -t UTF-8");
    CHECK_STR(CSV("\xff\xfe\0\0a"), "error 4: a.csv is UTF-32; convert it first: iconv -f UTF-32 -t UTF-8");
    CHECK_STR(CSV("PK\3\4 "), "error 5: a.csv is a zip archive (as are Excel's .xlsx); unpack it, or save it as CSV");
    CHECK(!strncmp(CSV("\xfd""7zXZ"), "error 5", 7));
    CHECK(!strncmp(CSV("\x1f\x8b\x08\x00"), "error 5", 7));
    CHECK(!strncmp(rows_of("a.dat", "a\n", 2, NULL, NULL), "error 1", 7));
}
static void csv_delimiters(void) {
    sill__reader_options semicolon = {.delimiter = ';'}, tsv = {.format = SILL__FORMAT_TSV};
    CHECK_STR(CSV("a;b\n1,5;2\n"), "[1,5][2];");
    CHECK_STR(CSV("a\tb\n1,5\t2\n"), "[1,5][2];");
    CHECK_STR(CSV("a;\"b\nc\"\n1;2\n"), "[1][2];");
    CHECK_STR(CSV("a;b,c\n1;2,3\n"), "[1;2][3];");
    CHECK_STR(CSV("\"a;b\"\n1;2\n"), "[1;2];");
    CHECK_STR(rows_of("a.csv", "a,x;b\n1;2\n", 10, &semicolon, NULL), "[1][2];");
    CHECK_STR(rows_of("a.tsv", "a\tb\n1,\t\"2\t3\"\n", 13, &tsv, NULL), "[1,][2\t3];");
}
static void csv_split_anywhere(void) {
    /* The same rows through a pipe that delivers one byte at a time. */
    static const char text[] = "a,b\r\n1,\"x\r\ny\"\r\n\r\n\"p\"\"q\",\r\n3,4\r5,6";
    sill_error err = {0};
    sill__reader *r;
    sill__reader_options o = {.format = SILL__FORMAT_CSV};
    char out[200] = "", *p = out;
    int fds[2], keep = dup(0);
    REQUIRE(pipe(fds) == 0);
    pid_t child = fork();
    if (child == 0) {
        close(fds[0]);
        for (size_t i = 0; i < sizeof text - 1; i++) {
            if (write(fds[1], text + i, 1) != 1) _exit(1);
            usleep(200);
        }
        _exit(0);
    }
    close(fds[1]);
    dup2(fds[0], 0);
    CHECK_OK(sill__reader_open("-", &o, &r, &err), err);
    for (sill__corpus_row *row; sill__reader_next(r, &row, &err) == SILL_OK && row; sill__row_free(row))
        for (size_t i = 0; i < row->n_cells; i++)
            p += snprintf(p, (size_t)(out + sizeof out - p), "[%.*s]", (int)row->cells[i].n, row->cells[i].p);
    CHECK_STR(out, "[1][x\r\ny][p\"q][][3][4][5][6]");
    sill__reader_free(r);
    dup2(keep, 0);
    close(fds[0]);
    close(keep);
}
static void txt_lines(void) {
    CHECK_STR(TXT("a\n b \r\n\n\nc\rd\n\"q"), "[a];[ b ];[c\rd];[\"q];");
    CHECK_STR(TXT("a,\"b\r\n\r\nc\"\r\r\nd\n"), "[a,\"b];[c\"\r];[d];");
    CHECK_STR(TXT(""), "");
    CHECK_STR(TXT("\n"), "");
}
static void jsonl_values(void) {
    CHECK_STR(JSONL("{\"t\":\"x\\ny\"}\n\n  \n {\"a\":1 , \"t\" : 2.50} \r\n{\"t\":null}\n{}\n"), "[x\ny];[2.50];-;-;");
    CHECK_STR(JSONL("{\"t\":[1, 2]}\n{\"t\":{\"a\":\"}\"}}\n{\"t\":true}"), "[[1, 2]];[{\"a\":\"}\"}];[true];");
    CHECK_STR(JSONL("{\"t\":\"1\",\"t\":\"2\"}\n{\"x\":NaN,\"t\":-Infinity}\n"), "[2];[-Infinity];");
    CHECK_STR(JSONL("{\"t\":\"\\ud83d\\ude00 \\ud800!\"}\n"), "[\xf0\x9f\x98\x80 \xef\xbf\xbd!];");
}
static void jsonl_bad_lines(void) {
    const char *rows = JSONL("[1]\n{\"t\":\"a\"}\n{\"t\":\n{\"t\":\"b\"} x\n{\"t\":\"c\n{\"t\":\"d\"}\n");
    CHECK(strstr(rows, "-!1:") == rows);
    CHECK(strstr(rows, ";[a];-!3:") != NULL);
    CHECK(strstr(rows, ";-!4:") != NULL && strstr(rows, ";-!5:") != NULL);
    CHECK(strlen(rows) > 4 && !strcmp(rows + strlen(rows) - 5, ";[d];"));
}
static void lone_surrogates_are_counted(void) {
    static const char text[] = "{\"t\":\"\\ud800 \\udc00\\ud83d\\ude00\\ud800\\ud800\\udc00\"}\n{\"o\":\"\\ud800\",\"t\":\"\\\\ud800\"}\n";
    sill_error err = {0};
    sill__reader *r;
    size_t slot;
    CHECK_OK(sill__reader_open(file_of("s.jsonl", text, sizeof text - 1), NULL, &r, &err), err);
    CHECK_OK(sill__reader_select(r, "t", &slot, &err), err);
    for (sill__corpus_row *row; sill__reader_next(r, &row, &err) == SILL_OK && row; sill__row_free(row)) {}
    CHECK_INT(sill__reader_get_stats(r).lone_surrogates, 3);
    sill__reader_free(r);
}

/* ---- numbers */

static void floats_read_back(void) {
    uint64_t state = 7;
    char text[32];
    static const struct { double value; const char *text; } known[] = {
        {0, "0"}, {-0.0, "-0"}, {1, "1"}, {50, "50"}, {-2.5, "-2.5"}, {0.1, "0.1"}, {1e20, "1e20"}, {1e-7, "1e-7"},
        {123456, "123456"}, {1e15, "1000000000000000"}, {0.001, "0.001"}, {100, "100"}, {1.0 / 3, "0.3333333333333333"},
        {1e5, "100000"}, {12345678.9, "12345678.9"},
    };
    for (size_t i = 0; i < SILL_ARRAY_LEN(known); i++) {
        sill__f64_text(known[i].value, text);
        CHECK_STR(text, known[i].text);
    }
    sill__f32_text(0.1f, text);
    CHECK_STR(text, "0.1");
    sill__f32_text(16777216.0f, text);
    CHECK_STR(text, "16777216");
    sill__f32_text(NAN, text);
    CHECK_STR(text, "");
    for (int i = 0; i < 200000; i++) {
        uint32_t bits = test_random(&state);
        float f = sill__bits_f32(bits);
        uint64_t wide = (uint64_t)bits << 32 | test_random(&state);
        double d;
        memcpy(&d, &wide, 8);
        if (isfinite(f)) {
            sill__f32_text(f, text);
            if (strtof(text, NULL) != f || strlen(text) > 20) FAIL("%a is written %s", (double)f, text);
        }
        if (i % 10 == 0 && isfinite(d)) {
            sill__f64_text(d, text);
            if (strtod(text, NULL) != d) FAIL("%a is written %s", d, text);
        }
    }
}
static void json_strings(void) {
    sill__str s;
    sill__str_init(&s, 1000);
    static const char text[] = "a\"\\\n\x01\x7f\0\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80|\xff|\xc3|\xe2\x82|\xf0\x9f\x98|\xed\xa0\x80|\xc0\x80";
    CHECK_INT(sill__put_json_string(&s, text, sizeof text - 1), 1 + 1 + 2 + 3 + 3 + 2);
    CHECK_STR(s.p, "\"a\\\"\\\\\\n\\u0001\\u007f\\u0000\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80|\xef\xbf\xbd|\xef\xbf\xbd|\xef\xbf\xbd|"
              "\xef\xbf\xbd|\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd|\xef\xbf\xbd\xef\xbf\xbd\"");
    sill__str_free(&s);
}

/* ---- writing */

static sill__encoding copy_encoding; /* of IN */

/* Copies IN to OUT with the fields given; every 4th row fails. */
static sill_status copy(const char *in, sill__format in_format, const sill__writer_options *wo, bool finish,
                        const char **note, sill_error *err) {
    static const char *const fields[] = {"n", "label"};
    static char note_text[300];
    sill__reader_options ro = {.format = in_format, .encoding = copy_encoding};
    sill__reader *r = NULL;
    sill__writer *w = NULL;
    sill__record record;
    sill__corpus_row *row;
    sill_status s = sill__reader_open(in, &ro, &r, err);
    if (s == SILL_OK) s = sill__writer_open(wo, r, fields, 2, &w, err);
    if (s != SILL_OK) {
        sill__reader_free(r);
        return s;
    }
    sill__record_init(&record, w);
    while (s == SILL_OK && (s = sill__reader_next(r, &row, err)) == SILL_OK && row) {
        sill__str_clear(&record.out);
        sill__record_begin(&record, row);
        if (row->error || row->number % 4 == 0) {
            sill__record_end(&record, row->error ? row->error : "fourth");
        } else {
            sill__record_int(&record, (int64_t)row->number);
            sill__record_text(&record, "x,\"y\"", 5);
            sill__record_end(&record, NULL);
        }
        s = sill__writer_put(w, record.out.p, record.out.n, err);
        if (s == SILL_OK) s = sill__writer_end_row(w, err);
        sill__row_free(row);
    }
    if (note) {
        *note = NULL;
        if (sill__writer_note(w, 0)) {
            snprintf(note_text, sizeof note_text, "%s", sill__writer_note(w, 0));
            *note = note_text;
        }
    }
    if (s == SILL_OK && finish) s = sill__writer_finish(w, err);
    sill__record_free(&record);
    sill__writer_free(w);
    sill__reader_free(r);
    return s;
}

static void write_csv_from_csv(void) {
    sill_error err = {0};
    sill__writer_options wo = {.path = in_dir("o.csv"), .overwrite = true};
    static const char text[] = "a,\"b \"\"q\"\"\"\n 1 ,\"x\ny\"\n2\n,z\n5,6\n";
    CHECK_OK(copy(file_of("w.csv", text, sizeof text - 1), 0, &wo, true, NULL, &err), err);
    CHECK_STR(slurp(in_dir("o.csv")), "a,\"b \"\"q\"\"\",n,label,error\n 1 ,\"x\ny\",1,\"x,\"\"y\"\"\",\n"
              "2,,,,\"the row has 1 value, the header names 2 columns\"\n,z,3,\"x,\"\"y\"\"\",\n5,6,,,fourth\n");
}
static void write_jsonl_keeps_the_lines_bytes(void) {
    sill_error err = {0};
    sill__writer_options wo = {.path = in_dir("o.jsonl"), .overwrite = true};
    static const char text[] = " {\"a\": 0.10, \"u\":\"\\ud800\\u00e9\", \"b\" : NaN }\r\n{ }\n{\"label\":1,\"sill_label\":{}}\n[]\n{\"error\":[],\"n\":\"\"}\n";
    CHECK_OK(copy(file_of("w.jsonl", text, sizeof text - 1), 0, &wo, true, NULL, &err), err);
    char *out = slurp(in_dir("o.jsonl"));
    REQUIRE(out);
    CHECK(strstr(out, "{\"a\": 0.10, \"u\":\"\\ud800\\u00e9\", \"b\" : NaN,\"n\":1,\"label\":\"x,\\\"y\\\"\",\"error\":null}\n") == out);
    CHECK(strstr(out, "\n{\"n\":2,\"label\":\"x,\\\"y\\\"\",\"error\":null}\n") != NULL);
    /* A later row with a name of ours: its own value stays, ours is left out, and the row says so. */
    CHECK(strstr(out, "\n{\"label\":1,\"sill_label\":{},\"n\":null,\"error\":\"the row has a field 'label', which") != NULL);
    CHECK(strstr(out, "\n{\"n\":null,\"label\":null,\"error\":\"") != NULL);
    CHECK(strstr(out, "\n{\"error\":[],\"n\":\"\",\"label\":null,\"sill_error\":\"the row has a field 'n', which") != NULL);
}
static void jsonl_names_are_settled_by_the_first_row(void) {
    sill_error err = {0};
    const char *note;
    sill__writer_options wo = {.path = in_dir("o.jsonl"), .overwrite = true};
    static const char text[] = "{\"label\":1,\"sill_label\":2,\"error\":3}\n{\"a\":1}\n{\"sill_error\":4}\n";
    CHECK_OK(copy(file_of("w.jsonl", text, sizeof text - 1), 0, &wo, true, &note, &err), err);
    char *out = slurp(in_dir("o.jsonl"));
    REQUIRE(out);
    CHECK(strstr(out, "{\"label\":1,\"sill_label\":2,\"error\":3,\"n\":1,\"sill_sill_label\":\"x,\\\"y\\\"\",\"sill_error\":null}\n") == out);
    CHECK(strstr(out, "\n{\"a\":1,\"n\":2,\"sill_sill_label\":\"x,\\\"y\\\"\",\"sill_error\":null}\n") != NULL);
    CHECK(strstr(out, "\n{\"sill_error\":4,\"n\":null,\"sill_sill_label\":null,\"sill_sill_error\":\"the row has") != NULL);
    CHECK_STR(note, "there is a column 'label' already; the new one is 'sill_sill_label'");
}
static void empty_objects_with_white_space(void) {
    sill_error err = {0};
    sill__writer_options wo = {.path = in_dir("o.jsonl"), .overwrite = true};
    static const char text[] = "{\r}\n{ \t}\n{}\n{\"a\":1\r }\n";
    CHECK_OK(copy(file_of("w.jsonl", text, sizeof text - 1), 0, &wo, true, NULL, &err), err);
    char *out = slurp(in_dir("o.jsonl"));
    REQUIRE(out);
    CHECK_INT(strchr(out, '\r') != NULL, 0);
    CHECK(!strncmp(out, "{\"n\":", 5) && strstr(out, "\n{\"a\":1,\"n\":"));
}
static void broken_line_with_a_taken_name(void) {
    sill_error err = {0};
    sill__writer_options wo = {.path = in_dir("o.jsonl"), .overwrite = true};
    static const char text[] = "{\"label\":1,\"error\":2,}\n";
    CHECK_OK(copy(file_of("w.jsonl", text, sizeof text - 1), 0, &wo, true, NULL, &err), err);
    char *out = slurp(in_dir("o.jsonl"));
    CHECK(out && strstr(out, "{\"n\":null,\"sill_label\":null,\"sill_error\":\"byte ") == out);
}
static void write_csv_from_jsonl(void) {
    sill_error err = {0};
    const char *note;
    sill__writer_options wo = {.path = in_dir("o.csv"), .overwrite = true};
    static const char text[] = "{\"a\":\"x\",\"n\":[1,2]}\n{\"n\":true,\"c\":1,\"a\":null}\n";
    CHECK_OK(copy(file_of("w.jsonl", text, sizeof text - 1), 0, &wo, true, &note, &err), err);
    CHECK_STR(slurp(in_dir("o.csv")), "a,n,sill_n,label,error\nx,\"[1,2]\",1,\"x,\"\"y\"\"\",\n,true,2,\"x,\"\"y\"\"\",\n");
    CHECK_STR(note, "there is a column 'n' already; the new one is 'sill_n'");
}
static void write_jsonl_from_txt(void) {
    sill_error err = {0};
    sill__writer_options wo = {.path = in_dir("o.jsonl"), .overwrite = true};
    CHECK_OK(copy(file_of("w.txt", "a \xc3\xa9\tb\n", 7), 0, &wo, true, NULL, &err), err);
    CHECK_STR(slurp(in_dir("o.jsonl")), "{\"text\":\"a \xc3\xa9\\tb\",\"n\":1,\"label\":\"x,\\\"y\\\"\",\"error\":null}\n");
}
static void names_that_are_twice_in_a_header(void) {
    sill_error err = {0};
    const char *note;
    sill__writer_options wo = {.path = in_dir("o.jsonl"), .overwrite = true};
    CHECK_OK(copy(file_of("w.csv", "a,a,a_2,a\n1,2,3,4\n", 18), 0, &wo, true, &note, &err), err);
    CHECK_STR(slurp(in_dir("o.jsonl")), "{\"a\":\"1\",\"a_2\":\"2\",\"a_2_2\":\"3\",\"a_3\":\"4\",\"n\":1,\"label\":\"x,\\\"y\\\"\",\"error\":null}\n");
    CHECK_STR(note, "there is a column 'a' already; the new one is 'a_2'");
    wo.path = in_dir("o.csv");
    CHECK_OK(copy(file_of("w.csv", "a,a\n1,2\n", 8), 0, &wo, true, &note, &err), err);
    CHECK_STR(slurp(in_dir("o.csv")), "a,a,n,label,error\n1,2,1,\"x,\"\"y\"\"\",\n");
}
static void nothing_half_written(void) {
    sill_error err = {0};
    char in[256], out[256];
    snprintf(in, sizeof in, "%s", file_of("w.csv", "a\n1\n", 4));
    snprintf(out, sizeof out, "%s", in_dir("h.csv"));
    sill__writer_options wo = {.path = out};
    CHECK_OK(copy(in, 0, &wo, false, NULL, &err), err);
    CHECK(!sill__is_file(wo.path));
    CHECK_STR(slurp(in_dir("h.csv.partial")), "a,n,label,error\n1,1,\"x,\"\"y\"\"\",\n");
    CHECK_INT(copy(in, 0, &wo, true, NULL, &err), SILL_EINVAL); /* the partial file of another run */
    CHECK(strstr(err.msg, "--overwrite") != NULL);
    wo.overwrite = true;
    CHECK_OK(copy(in, 0, &wo, true, NULL, &err), err);
    CHECK(sill__is_file(wo.path) && !sill__is_file(in_dir("h.csv.partial")));
    wo.overwrite = false;
    CHECK_INT(copy(in, 0, &wo, true, NULL, &err), SILL_EINVAL);
    CHECK_STR(slurp(wo.path), "a,n,label,error\n1,1,\"x,\"\"y\"\"\",\n");
    /* Without a row nothing is left behind. */
    snprintf(out, sizeof out, "%s", in_dir("none.csv"));
    CHECK_OK(copy(file_of("w0.csv", "a\n", 2), 0, &wo, false, NULL, &err), err);
    CHECK(!sill__is_file(in_dir("none.csv")) && !sill__is_file(in_dir("none.csv.partial")));
    /* Its own input as output. */
    wo.path = in;
    CHECK_INT(copy(in, 0, &wo, true, NULL, &err), SILL_EINVAL);
    wo.overwrite = true;
    CHECK_INT(copy(in, 0, &wo, true, NULL, &err), SILL_EINVAL);
    CHECK(strstr(err.msg, "is the input") != NULL);
    CHECK_STR(slurp(in), "a\n1\n");
}

/* ---- flow */

/* Answers rows in a scrambled order, as a scheduler would; WINDOW small forces the task to be called again. */
static void flow_in_input_order(void) {
    static const char *const fields[] = {"sequence", "n"};
    sill_error err = {0};
    sill__reader *r = NULL;
    sill__writer *w = NULL;
    sill__flow *f = NULL;
    sill__writer_options wo = {.path = in_dir("f.csv"), .overwrite = true};
    size_t slot, calls = 0;
    uint64_t state = 3;
    const char *path = in_dir("f_in.csv");
    FILE *file = fopen(path, "w");
    REQUIRE(file);
    fprintf(file, "t,u\n");
    for (int i = 1; i <= 1000; i++) fprintf(file, i % 17 == 0 ? "ragged\n" : "text %d,u\n", i);
    fclose(file);
    REQUIRE(sill__reader_open(path, NULL, &r, &err) == SILL_OK);
    REQUIRE(sill__reader_select(r, "t", &slot, &err) == SILL_OK);
    REQUIRE(sill__writer_open(&wo, r, fields, 2, &w, &err) == SILL_OK);
    sill__flow_options fo = {.text_slot = slot, .n_sequences = 2, .window_rows = 50};
    REQUIRE(sill__flow_create(r, w, &fo, &f, &err) == SILL_OK);
    uint64_t last = 0, max_ahead = 0;
    do {
        uint64_t open[64];
        int32_t left[64], n = 0;
        bool more = true;
        calls++;
        while (more || n) {
            sill_row row;
            while (more && n < 16) {
                more = sill__flow_next(f, &row) == 1;
                if (!more) break;
                char want[32];
                snprintf(want, sizeof want, "text %d", (int)row.index);
                if (row.n_bytes != strlen(want) || memcmp(row.text, want, row.n_bytes)) FAIL("row %d", (int)row.index);
                open[n] = row.index;
                left[n++] = row.index % 13 == 0 ? -1 : 2;
                max_ahead = SILL_MAX(max_ahead, row.index - sill__flow_get_counts(f).written);
            }
            if (!n) break;
            /* The oldest row of a call is answered last: everything else waits behind it. */
            int i = n == 1 || !more ? (int)(test_random(&state) % (unsigned)n) : 1 + (int)(test_random(&state) % (unsigned)(n - 1));
            uint64_t index = open[i];
            if (left[i] < 0) {
                sill__flow_fail(f, index, "thirteen");
            } else {
                sill__record *rec = sill__flow_begin(f, index, left[i] - 1);
                REQUIRE(rec);
                sill__record_int(rec, left[i] - 1);
                sill__record_int(rec, (int64_t)index);
                sill__record_end(rec, NULL);
                sill__flow_commit(f);
                if (--left[i] > 0) continue;
            }
            CHECK(sill__flow_begin(f, index, 0) == NULL);
            open[i] = open[--n];
            left[i] = left[n];
        }
    } while (sill__flow_more(f));
    CHECK_INT(sill__flow_status(f, &err), SILL_OK);
    CHECK(calls > 5);
    CHECK(max_ahead <= 51);
    sill__flow_counts c = sill__flow_get_counts(f);
    CHECK_INT(c.rows, 1000);
    CHECK_INT(c.failed, 1000 / 17 + 1000 / 13 - 1000 / (13 * 17));
    CHECK(sill__flow_failure(f, 0) && strstr(sill__flow_failure(f, 0), "(line "));
    CHECK_OK(sill__writer_finish(w, &err), err);
    /* Order: n = 1 1 2 2 ...; failures one line. */
    char *out = slurp(wo.path), *line = out ? strchr(out, '\n') : NULL;
    int lines = 0;
    for (; line && line[1]; line = strchr(line + 1, '\n'), lines++) {
        char *end = strchr(line + 1, '\n');
        uint64_t n = last + (lines == 0 || 1);
        (void)n;
        int a, b;
        if (sscanf(line + 1, "text %d,u,%d,", &a, &b) == 2) {
            if (a != (int)last + (b == 0)) FAIL("line %d: text %d behind %d", lines, a, (int)last);
            last = (uint64_t)a;
        } else if (end) {
            last++;
        }
    }
    CHECK_INT(last, 1000);
    sill__flow_free(f);
    sill__writer_free(w);
    sill__reader_free(r);
}

/* One failed sequence is one line with an error; those that come later are written too, and the row counts once. */
static void flow_fails_one_sequence(void) {
    static const char *const fields[] = {"sequence"};
    sill_error err = {0};
    sill__reader *r = NULL;
    sill__writer *w = NULL;
    sill__flow *f = NULL;
    sill_row row;
    sill__writer_options wo = {.path = in_dir("q.csv"), .overwrite = true};
    REQUIRE(sill__reader_open(file_of("q_in.csv", "t\na\n", 4), NULL, &r, &err) == SILL_OK);
    REQUIRE(sill__writer_open(&wo, r, fields, 1, &w, &err) == SILL_OK);
    sill__flow_options fo = {.n_sequences = 4};
    REQUIRE(sill__flow_create(r, w, &fo, &f, &err) == SILL_OK);
    CHECK_INT(sill__flow_next(f, &row), 1);
    static const int order[] = {2, 1, 3, 0};
    for (int i = 0; i < 4; i++) {
        if (i == 1 || i == 2) {
            CHECK_INT(sill__flow_fail_sequence(f, 1, order[i], "overflow"), 0);
            continue;
        }
        sill__record *rec = sill__flow_begin(f, 1, order[i]);
        REQUIRE(rec);
        sill__record_int(rec, order[i]);
        sill__record_end(rec, NULL);
        CHECK_INT(sill__flow_commit(f), 0);
    }
    CHECK_INT(sill__flow_get_counts(f).failed, 1);
    CHECK_INT(sill__flow_get_counts(f).written, 1);
    CHECK_OK(sill__writer_finish(w, &err), err);
    CHECK_STR(slurp(wo.path), "t,sequence,error\na,0,\na,,overflow\na,2,\na,,overflow\n");
    sill__flow_free(f);
    sill__writer_free(w);
    sill__reader_free(r);
}
static volatile int stop_now;
static void flow_stops(void) {
    static const char *const fields[] = {"n"};
    sill_error err = {0};
    sill__reader *r = NULL;
    sill__writer *w = NULL;
    sill__flow *f = NULL;
    sill_row row;
    sill__writer_options wo = {.path = in_dir("s.csv"), .overwrite = true};
    REQUIRE(sill__reader_open(file_of("s_in.csv", "t\na\nb\nc\n", 8), NULL, &r, &err) == SILL_OK);
    REQUIRE(sill__writer_open(&wo, r, fields, 1, &w, &err) == SILL_OK);
    sill__flow_options fo = {.stop = &stop_now};
    REQUIRE(sill__flow_create(r, w, &fo, &f, &err) == SILL_OK);
    CHECK_INT(sill__flow_next(f, &row), 1);
    CHECK_INT(sill__flow_next(f, &row), 1);
    sill__record_end(sill__flow_begin(f, 1, 0), NULL);
    CHECK_INT(sill__flow_commit(f), 0);
    stop_now = 1;
    CHECK_INT(sill__flow_next(f, &row), -1);
    CHECK(!sill__flow_more(f));
    sill__flow_free(f);
    sill__writer_free(w);
    sill__reader_free(r);
    CHECK(!sill__is_file(wo.path));
    CHECK_STR(slurp(in_dir("s.csv.partial")), "t,n,error\na,,\n");
}

/* A pipe on which nothing comes: the signal ends the wait, and so does a flag set before it. */
static void on_alarm(int number) {
    (void)number;
    stop_now = 1;
}
static void reading_stops(void) {
    sill_error err = {0};
    sill__reader *r = NULL;
    sill__corpus_row *row = NULL;
    int ends[2], saved = dup(0);
    struct sigaction action = {.sa_handler = on_alarm}, old;
    struct itimerval soon = {.it_value = {.tv_usec = 50000}};
    sill__reader_options ro = {.format = SILL__FORMAT_TXT, .stop = &stop_now};
    REQUIRE(saved >= 0 && pipe(ends) == 0 && dup2(ends[0], 0) == 0);
    REQUIRE(write(ends[1], "a\nbc", 4) == 4);
    sigaction(SIGALRM, &action, &old);
    stop_now = 0;
    REQUIRE(sill__reader_open("-", &ro, &r, &err) == SILL_OK);
    CHECK_OK(sill__reader_next(r, &row, &err), err);
    CHECK(row && row->cells[0].n == 1);
    sill__row_free(row);
    setitimer(ITIMER_REAL, &soon, NULL);
    CHECK_INT(sill__reader_next(r, &row, &err), SILL_ECANCELLED);
    CHECK_INT(stop_now, 1);
    CHECK_INT(sill__reader_next(r, &row, &err), SILL_ECANCELLED);
    sill__reader_free(r);
    CHECK_INT(sill__reader_open("-", &ro, &r, &err), SILL_ECANCELLED);
    CHECK(r == NULL);
    sigaction(SIGALRM, &old, NULL);
    stop_now = 0;
    dup2(saved, 0);
    close(saved);
    close(ends[0]);
    close(ends[1]);
}
static void compressed_by_name(void) {
    sill_error err = {0};
    sill__reader *r = NULL;
    CHECK_INT(sill__reader_open(file_of("x.txt.gz", "\x1f\x8b", 2), NULL, &r, &err), SILL_EUNSUPPORTED);
    CHECK(strstr(err.msg, "use: gzip -dc ") && strstr(err.msg, "x.txt.gz | sill ... -") && !strstr(err.msg, "--format"));
    CHECK_INT(sill__reader_open(file_of("x.CSV.ZST", "\x28\xb5\x2f\xfd", 4), NULL, &r, &err), SILL_EUNSUPPORTED);
    CHECK(strstr(err.msg, "use: zstd -dc "));
    CHECK_INT(sill__reader_open(in_dir("none.txt.gz"), NULL, &r, &err), SILL_ENOENT);
    CHECK_INT(sill__reader_open(file_of("x.csv.bz2", "", 0), NULL, &r, &err), SILL_EUNSUPPORTED);
    CHECK(strstr(err.msg, "use: bzip2 -dc ") && strstr(err.msg, "--format csv"));
    sill__writer_options wo = {.path = in_dir("x.csv.gz")};
    CHECK_INT(copy(file_of("x.csv", "a\n1\n", 4), 0, &wo, true, NULL, &err), SILL_EUNSUPPORTED);
}

static void allocation_failures_are_statuses(void) {
    sill_error err = {0};
    static const char text[] = "{\"a\":\"x\",\"n\":[1,2]}\n{\"n\":true,\"c\":1,\"a\":null}\nbroken\n";
    char csv[256], jsonl[256], files[256];
    snprintf(files, sizeof files, "%s/texts/below", dir);
    for (char *slash = strchr(files + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        (void)mkdir(files, 0777);
        *slash = '/';
    }
    (void)mkdir(files, 0777);
    (void)file_of("texts/b.txt", "b", 1);
    (void)file_of("texts/below/a.txt", "\xe9 a\n", 4);
    *strrchr(files, '/') = 0;
    snprintf(csv, sizeof csv, "%s", file_of("m.csv", "a,b\n1,\"2\n\"\n3\n", 14));
    snprintf(jsonl, sizeof jsonl, "%s", file_of("m.jsonl", text, sizeof text - 1));
    for (int k = 0; k < 8; k++) {
        sill__writer_options wo = {.path = in_dir(k & 1 ? "m_o.csv" : "m_o.jsonl"), .overwrite = true};
        copy_encoding = k & 4 ? SILL__ENCODING_LATIN1 : SILL__ENCODING_UTF8;
        int n = 1;
        for (;; n++) {
            sill__alloc_fail_at((uint64_t)n);
            sill_status s = copy(k > 5 ? files : k & 2 ? csv : jsonl, 0, &wo, true, NULL, &err);
            sill__alloc_fail_at(0);
            if (s == SILL_OK && n > 60) break;
            if (n > 2000) break;
        }
        CHECK(n < 2000);
    }
    copy_encoding = SILL__ENCODING_UTF8;
    CHECK_STR(slurp(in_dir("m_o.csv")), "file,text,n,label,error\nb.txt,b,1,\"x,\"\"y\"\"\",\nbelow/a.txt,\"\xc3\xa9 a\n\",2,\"x,\"\"y\"\"\",\n");
}

/* ---- modes for other programs */

static int convert(char **argv, int argc) {
    sill_error err = {0};
    static const struct { const char *name; sill__format f; } names[] = {
        {"csv", SILL__FORMAT_CSV}, {"tsv", SILL__FORMAT_TSV}, {"jsonl", SILL__FORMAT_JSONL}, {"txt", SILL__FORMAT_TXT}};
    sill__format in = 0, out = 0;
    for (size_t i = 0; i < SILL_ARRAY_LEN(names); i++) {
        if (argc > 2 && !strcmp(argv[2], names[i].name)) in = names[i].f;
        if (argc > 3 && !strcmp(argv[3], names[i].name)) out = names[i].f;
    }
    sill__writer_options wo = {.path = argv[1], .format = out, .overwrite = true};
    copy_encoding = SILL__ENCODING_BYTES; /* the oracle is asked for any bytes */
    sill_status s = copy(argv[0], in, &wo, true, NULL, &err);
    if (s != SILL_OK) fprintf(stderr, "%s\n", err.msg);
    return s != SILL_OK;
}
static int generate(long n, const char *path) {
    FILE *f = fopen(path, "w");
    if (!f) return 1;
    fprintf(f, "id,text\n");
    for (long i = 0; i < n; i++)
        fprintf(f, "%ld,\"row %ld, %s\"\n", i, i, i % 50 ? "some words" : "a longer text with a \"\"quote\"\" and a line\nend");
    return fclose(f) != 0;
}
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#endif

static int peak_memory(const char *path, const char *out) {
    struct rusage u;
    sill_error err = {0};
    sill__writer_options wo = {.path = out, .overwrite = true};
    if (copy(path, 0, &wo, true, NULL, &err) != SILL_OK) return 1;
    getrusage(RUSAGE_SELF, &u);
#ifdef __APPLE__
    u.ru_maxrss /= 1024;
#endif
#ifdef SANITIZED
    printf("sanitized\n"); /* a sanitizer keeps what was freed */
#else
    printf("%ld\n", u.ru_maxrss);
#endif
    return 0;
}

int main(int argc, char **argv) {
    if (argc > 3 && !strcmp(argv[1], "--convert")) return convert(argv + 2, argc - 2);
    if (argc > 3 && !strcmp(argv[1], "--generate")) return generate(strtol(argv[2], NULL, 10), argv[3]);
    if (argc > 3 && !strcmp(argv[1], "--rss")) return peak_memory(argv[2], argv[3]);
    if (!mkdtemp(dir)) return 1;
    TEST(csv_plain);
    TEST(csv_values_are_kept);
    TEST(encodings);
    TEST(a_byte_is_at_most_three);
    TEST(csv_nul_bytes_are_kept);
    TEST(csv_blank_lines_are_no_rows);
    TEST(csv_ragged_rows);
    TEST(csv_unterminated_quote_costs_one_row);
    TEST(csv_row_limit);
    TEST(csv_many_open_quotes_end);
    TEST(csv_header);
    TEST(csv_delimiters);
    TEST(csv_split_anywhere);
    TEST(txt_lines);
    TEST(jsonl_values);
    TEST(jsonl_bad_lines);
    TEST(lone_surrogates_are_counted);
    TEST(floats_read_back);
    TEST(json_strings);
    TEST(write_csv_from_csv);
    TEST(write_jsonl_keeps_the_lines_bytes);
    TEST(jsonl_names_are_settled_by_the_first_row);
    TEST(empty_objects_with_white_space);
    TEST(broken_line_with_a_taken_name);
    TEST(write_csv_from_jsonl);
    TEST(write_jsonl_from_txt);
    TEST(names_that_are_twice_in_a_header);
    TEST(nothing_half_written);
    TEST(flow_in_input_order);
    TEST(flow_fails_one_sequence);
    TEST(flow_stops);
    TEST(reading_stops);
    TEST(compressed_by_name);
    TEST(allocation_failures_are_statuses);
    char command[300];
    snprintf(command, sizeof command, "rm -rf %s", dir);
    if (system(command)) return 1;
    TEST_EXIT();
}
