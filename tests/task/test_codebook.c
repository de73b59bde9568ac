/* test_codebook.c - codebooks read: both forms, every mistake with its line, no memory, damaged files. */
#include "records.h"

#include "task/codebook.h"

static sill_status parse(const char *text, sill_codebook **book, sill_error *err) {
    memset(err, 0, sizeof *err);
    return sill_codebook_parse(text, strlen(text), "b", book, err);
}

static const char json[] =
    "{\n \"examples\": [{\"text\": \" a: b\\n#c\", \"label\": \"in favour\"}, {\"label\": \"against\", \"text\": \"no\"}],\n"
    " \"labels\": [{\"label\": \"in favour\", \"description\": \"wants it: now\", \"word\": \"for\"}, \"against\"],\n"
    " \"instruction\": \"Say what\\nit is.\", \"prompt\": \"T: {text}\\nS:\", \"paraphrases\": [\"X {text} Y\", \"Other words.\"]\n}\n";
static const char lines[] =
    "\xef\xbb\xbf# a comment\r\n"
    "instruction: Say what\r\n"
    "   it is.\r\n"
    "\r\n"
    "prompt:\r\n"
    "  T: {text}\r\n"
    "\tS:\r\n"
    "label in favour:  wants it: now \r\n"
    "label against\r\n"
    "word in favour: for\r\n"
    "# another\r\n"
    "example in favour: a: b\r\n"
    "  #c\r\n"
    "example   against :no\r\n"
    "paraphrase: X {text} Y\r\n"
    "paraphrase: Other words.";

static void check_book(const sill_codebook *b, bool is_json) {
    CHECK_STR(b->instruction, "Say what\nit is.");
    CHECK_STR(b->prompt, "T: {text}\nS:");
    CHECK_INT(b->n_labels, 2);
    CHECK_STR(b->labels[0].name, "in favour");
    CHECK_STR(b->labels[0].description, "wants it: now");
    CHECK_STR(b->labels[0].word, "for");
    CHECK_STR(b->labels[1].name, "against");
    CHECK(!b->labels[1].description && !b->labels[1].word && !b->multi_label);
    CHECK_INT(b->n_examples, 2);
    CHECK_STR(b->examples[0].text, is_json ? " a: b\n#c" : "a: b\n#c"); /* JSON is kept as it stands */
    CHECK(b->examples[0].n_labels == 1 && b->examples[0].labels[0] == 0 && b->examples[1].labels[0] == 1);
    CHECK_STR(b->examples[1].text, "no");
    CHECK_INT(b->n_paraphrases, 2);
    CHECK_STR(b->paraphrases[0], "X {text} Y");
}

static void both_forms(void) {
    sill_error err;
    sill_codebook *b = NULL, *l = NULL, *again = NULL;
    sill_codebook_info info;
    CHECK_OK(parse(json, &b, &err), err);
    CHECK_OK(parse(lines, &l, &err), err);
    REQUIRE(b && l);
    check_book(b, true);
    check_book(l, false);
    sill_codebook_get_info(l, &info, sizeof info);
    CHECK(info.n_labels == 2 && info.n_examples == 2 && info.n_paraphrases == 2 && !strcmp(info.labels[1], "against") && !strcmp(info.prompt, l->prompt));
    CHECK(strlen(info.sha256) == 64 && strcmp(b->sha256, l->sha256));
    CHECK_OK(parse(json, &again, &err), err);
    CHECK_STR(again->sha256, b->sha256);
    sill_codebook_free(again);
    sill_codebook_free(b);
    sill_codebook_free(l);
    const char *multi = "multi_label: yes\nlabel a\nlabel b\nexample a, b: both\nexample: none\nexample b: one\n";
    CHECK_OK(parse(multi, &b, &err), err);
    REQUIRE(b);
    CHECK(b->multi_label && b->examples[0].n_labels == 2 && b->examples[1].n_labels == 0 && b->examples[2].labels[0] == 1);
    sill_codebook_free(b);
}

/* sha256sum's answer for a file of "label a\nlabel b\n". */
static void the_hash_is_that_of_the_bytes(void) {
    sill_error err;
    sill_codebook *b = NULL;
    CHECK_OK(parse("label a\nlabel b\n", &b, &err), err);
    REQUIRE(b);
    CHECK_STR(b->sha256, "5660271668a49214af5130e07f368e94fe39fb37fd97fa145848116bb0d1a625");
    sill_codebook_free(b);
}

#define J(members) "{\n" members "}"
#define AB "\"labels\": [\"a\", \"b\"],\n"

static void mistakes_are_told_by_line(void) {
    static const struct { const char *text, *says[3]; } cases[] = {
        {"", {"b: ", "empty", "labels"}},
        {" \n\n", {"b: ", "empty"}},
        {"[1]", {"b:1: ", "object"}},
        {"{", {"b:1: ", "ends"}},
        {J("\"labels\": [\"a\",\n\"b\"]\n") "\nx", {"b:5: ", "behind"}},
        {J(AB "\"lables\": 1"), {"b:3: ", "unknown key \"lables\"", "instruction, prompt"}},
        {J(AB "\"labels\": [\"c\"]"), {"b:3: ", "twice", "line 2"}},
        {J("\"labels\": [\"a\",\n\"b\",\n\"a\"]"), {"b:4: ", "\"a\" is there already (line 2)"}},
        {J("\"labels\": []"), {"b:2: ", "empty list"}},
        {J(AB "\"examples\": []"), {"b:3: ", "empty list"}},
        {J("\"labels\": {\"a\": 1}"), {"b:2: ", "list in brackets"}},
        {J("\"labels\": [\"a\", 3]"), {"b:2: ", "a label must be an object"}},
        {J("\"labels\": [\"a\", \" \"]"), {"b:2: ", "a label is empty"}},
        {J("\"labels\": [\"a\", \"b\\u0000\"]"), {"b:2: ", "NUL"}},
        {J("\"labels\": [\"only\"]"), {"b:2: ", "no choice"}},
        {J("\"labels\": [{\"label\": \"a\", \"desc\": \"x\"}]"), {"b:2: ", "no key \"desc\"", "description"}},
        {J("\"labels\": [{\"label\": \"a\", \"label\": \"x\"}]"), {"b:2: ", "twice"}},
        {J("\"labels\": [{\"description\": \"x\"}]"), {"b:2: ", "without \"label\""}},
        {J("\"labels\": [\"a\", {\"label\": \"b\",\n\"word\": \"a\"}]"), {"b:2: ", "both said \"a\""}},
        {J(AB "\"examples\": [\n{\"text\": \"x\",\n\"label\": \"c\"}]"), {"b:4: ", "label \"c\", which is not among the labels"}},
        {J(AB "\"examples\": [{\"text\": \"x\"}]"), {"b:3: ", "without a label"}},
        {J(AB "\"examples\": [{\"label\": \"a\"}]"), {"b:3: ", "without a text"}},
        {J(AB "\"examples\": [{\"text\": \"x\", \"label\": \"a\", \"labels\": []}]"), {"b:3: ", "labels twice"}},
        {J(AB "\"examples\": [{\"text\": \"x\", \"labels\": [\"a\", \"b\"]}]"), {"b:3: ", "2 labels", "multi_label"}},
        {J(AB "\"multi_label\": true,\n\"examples\": [{\"text\": \"x\", \"labels\": [\"a\", \"a\"]}]"), {"b:4: ", "\"a\" twice"}},
        {J(AB "\"multi_label\": \"yes\""), {"b:3: ", "true or false"}},
        {J(AB "\"prompt\": \"text\""), {"b:3: ", "{text} nowhere"}},
        {J(AB "\"prompt\": \"{text} {text}\""), {"b:3: ", "more than once"}},
        {J(AB "\"instruction\": \"{text}\""), {"b:3: ", "instruction holds {text}"}},
        {J(AB "\"instruction\": \"\""), {"b:3: ", "instruction is empty"}},
        {J(AB "\"paraphrases\": [\"{text} {text}\"]"), {"b:3: ", "paraphrase holds {text} more than once"}},
        {J(AB "\"prompt\": \"\n\""), {"b:3: ", "control character"}},
        {"labels: a", {"b:1: ", "unknown key \"labels\"", "label, word"}},
        {"label a\nlabel b\nlabel a: again", {"b:3: ", "(line 1)"}},
        {"label a\n  # c\nlabel b", {"b:1: ", "no colon"}},
        {"  label a", {"b:1: ", "indented"}},
        {"label\nlabel b", {"b:1: ", "a label is empty"}},
        {"label a\nlabel b\nprompt x: {text}", {"b:3: ", "takes no name"}},
        {"label a\nlabel b\nprompt", {"b:3: ", "no colon"}},
        {"label a\nlabel b\nprompt:\n", {"b:3: ", "prompt is empty"}},
        {"label a\nlabel b\nprompt: {text}\nprompt: {text}", {"b:4: ", "twice (first in line 3)"}},
        {"label a\nlabel b\nexample: x", {"b:3: ", "example without a label"}},
        {"label a\nlabel b\nexample a, b: x", {"b:3: ", "label \"a, b\", which is not"}},
        {"label a\nlabel b\nexample a:", {"b:3: ", "is empty"}},
        {"label a\nlabel b\nword c: x", {"b:3: ", "word for label \"c\""}},
        {"label a\nlabel b\nword a: x\nword a: y", {"b:4: ", "a word already"}},
        {"label a\nlabel b\nmulti_label: maybe", {"b:3: ", "yes or no"}},
        {"instruction: x", {"b: ", "no labels"}},
    };
    for (size_t i = 0; i < SILL_ARRAY_LEN(cases); i++) {
        sill_error err;
        sill_codebook *book = (sill_codebook *)&err;
        sill_status s = parse(cases[i].text, &book, &err);
        if (s != SILL_EFORMAT || book) FAIL("case %zu: status %d: %s", i, (int)s, cases[i].text);
        for (int k = 0; k < 3 && cases[i].says[k]; k++)
            if (k ? !strstr(err.msg, cases[i].says[k]) : strncmp(err.msg, cases[i].says[k], strlen(cases[i].says[k])) != 0)
                FAIL("case %zu: \"%s\" does not say \"%s\"", i, err.msg, cases[i].says[k]);
    }
}

static void too_much_of_everything(void) {
    sill_error err;
    sill_codebook *b;
    sill__str s;
    sill__str_init(&s, (size_t)8 << 20);
    for (int what = 0; what < 5; what++) {
        static const char *const says[] = {"more than 1024 labels", "more than the 256", "more than 1000 examples", "more than 100 paraphrases", "more than the"};
        sill__str_clear(&s);
        sill__str_puts(&s, "label a\nlabel b\n");
        if (what == 0) for (int i = 0; i < 1023; i++) sill__str_putf(&s, "label x%d\n", i);
        if (what == 1) for (int i = 0; i < 100; i++) sill__str_puts(&s, i ? "abc" : "label ");
        if (what == 2) for (int i = 0; i < 1001; i++) sill__str_puts(&s, "example a: x\n");
        if (what == 3) for (int i = 0; i < 101; i++) sill__str_puts(&s, "paraphrase: x\n");
        if (what == 4) for (int i = 0; i < 400000; i++) sill__str_puts(&s, "# a comment\n");
        sill_status st = parse(s.p, &b, &err);
        if (st != SILL_EFORMAT || !strstr(err.msg, says[what])) FAIL("%d: %d %s", what, (int)st, err.msg);
    }
    sill__str_free(&s);
}

/* Every beginning, every byte changed: an answer or an error, never more (sanitizers look on). */
static void damaged_books(void) {
    const char *texts[] = {json, lines};
    char copy[2048];
    sill_error err = {0};
    sill_codebook *b;
    for (int t = 0; t < 2; t++) {
        size_t n = strlen(texts[t]);
        for (size_t i = 0; i <= n; i++)
            if (sill_codebook_parse(texts[t], i, NULL, &b, &err) == SILL_OK) sill_codebook_free(b);
        for (size_t i = 0; i < n; i++)
            for (int bit = 0; bit < 8; bit++) {
                memcpy(copy, texts[t], n);
                copy[i] ^= (char)(1 << bit);
                if (sill_codebook_parse(copy, n, NULL, &b, &err) == SILL_OK) sill_codebook_free(b);
            }
    }
}

static void no_memory(void) {
    const char *texts[] = {json, lines};
    for (int t = 0; t < 2; t++)
        for (uint64_t n = 1;; n++) {
            sill_error err = {0};
            sill_codebook *b = NULL;
            sill__alloc_fail_at(n);
            sill_status s = sill_codebook_parse(texts[t], strlen(texts[t]), "b", &b, &err);
            sill__alloc_fail_at(0);
            if (s == SILL_OK) {
                CHECK(n > 20);
                sill_codebook_free(b);
                break;
            }
            CHECK_INT(s, SILL_ENOMEM);
            CHECK(!b);
            REQUIRE(n < 1000);
        }
}

static void variants(void) {
    sill_error err;
    sill_codebook *b = NULL, *v = NULL;
    int32_t labels[] = {1, 0}, examples[] = {1, 0};
    CHECK_OK(parse(json, &b, &err), err);
    REQUIRE(b);
    CHECK_OK(sill__codebook_vary(b, labels, examples, 0, &v, &err), err);
    REQUIRE(v);
    CHECK_STR(v->labels[0].name, "against");
    CHECK_STR(v->labels[1].word, "for");
    CHECK_STR(v->names[1], "in favour");
    CHECK_STR(v->examples[0].text, "no");
    CHECK(v->examples[0].labels[0] == 0 && v->examples[1].labels[0] == 1);
    CHECK_STR(v->prompt, "X {text} Y");
    CHECK_STR(v->instruction, b->instruction);
    sill_codebook_free(v);
    CHECK_OK(sill__codebook_vary(b, NULL, NULL, 1, &v, &err), err);
    REQUIRE(v);
    CHECK_STR(v->instruction, "Other words.");
    CHECK_STR(v->prompt, b->prompt);
    CHECK(v->examples[0].labels[0] == 0);
    sill_codebook_free(v);
    for (uint64_t n = 1; n < 100; n++) {
        sill__alloc_fail_at(n);
        sill_status s = sill__codebook_vary(b, labels, examples, 0, &v, &err);
        sill__alloc_fail_at(0);
        if (s == SILL_OK) {
            CHECK(n > 10);
            sill_codebook_free(v);
            break;
        }
        CHECK(s == SILL_ENOMEM && !v);
    }
    sill_codebook_free(b);
}

static void files(void) {
    sill_error err = {0};
    sill_codebook *b;
    CHECK_INT(sill_codebook_load("tests/fixtures/task/codebooks/none.json", &b, &err), SILL_ENOENT);
    CHECK(strstr(err.msg, "none.json") && !b);
    CHECK_INT(sill_codebook_load(NULL, &b, &err), SILL_EINVAL);
    CHECK_INT(sill_codebook_parse(NULL, 0, NULL, &b, &err), SILL_EINVAL);
    sill_codebook_free(NULL);
}

int main(int argc, char **argv) {
    TEST(both_forms);
    TEST(the_hash_is_that_of_the_bytes);
    TEST(mistakes_are_told_by_line);
    TEST(too_much_of_everything);
    TEST(damaged_books);
    TEST(no_memory);
    TEST(variants);
    TEST(files);
    TEST_EXIT();
}
