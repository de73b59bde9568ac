/* test_chat.c - which chat templates are recognised, and that hostile ones neither take long nor pass for one. */
#include "test.h"

#include "task/chat.h"
#include "tokenizer/internal.h"

#define GPT2 "tests/fixtures/task/gpt2"
#define DEFAULT_SYSTEM "{{ '<|im_start|>system\\nYou are kind.<|im_end|>\\n' }}"

static sill_tokenizer *with_template(const char *template, size_t n) {
    sill_tokenizer *t = NULL;
    sill_error err = {0};
    CHECK_OK(sill_tokenizer_load(GPT2, &t, &err), err);
    if (t) CHECK_OK(sill__tok_set_template(t, template, n, &err), err);
    return t;
}

static sill__chat_form form_of(sill_tokenizer *t, bool *has_system) {
    sill__chat c;
    sill_error err = {0};
    CHECK_OK(sill__chat_init(&c, t, &err), err);
    sill__chat_form form = c.form;
    *has_system = c.has_system;
    if (c.has_system) CHECK_STR(c.system.p, "You are kind.");
    sill__chat_free(&c);
    return form;
}

static void the_system_message_of_the_template(void) {
    static const struct { const char *text; bool has; } cases[] = {
        {DEFAULT_SYSTEM, true},
        {"<|im_start|>system' + x + '<|im_end|>' <|im_start|>system\nYou are kind.<|im_end|>", true},
        {"<|im_end|><|im_start|>system\\nYou are kind.", false},
        {"<|im_start|>system\\n' + m + '<|im_end|>", false},
        {"<|im_start|>system\\n{{ m }}<|im_end|>", false},
    };
    for (size_t i = 0; i < SILL_ARRAY_LEN(cases); i++) {
        sill_tokenizer *t = with_template(cases[i].text, strlen(cases[i].text));
        bool has = false;
        REQUIRE(t);
        CHECK_INT(form_of(t, &has), SILL__CHAT_CHATML);
        if (has != cases[i].has) FAIL("case %zu", i);
        sill_tokenizer_free(t);
    }
}

static void control_tokens_are_special_or_none(void) {
    sill_tokenizer *t = with_template(DEFAULT_SYSTEM, strlen(DEFAULT_SYSTEM));
    bool has;
    REQUIRE(t);
    int32_t id = sill__tokenizer_find(t, "<|im_end|>", 10);
    REQUIRE(id >= 0 && sill__tokenizer_is_special(t, id));
    CHECK_INT(form_of(t, &has), SILL__CHAT_CHATML);
    t->tokens[id].attr = SILL__ATTR_UNUSED; /* text of a message could then become it */
    CHECK_INT(form_of(t, &has), SILL__CHAT_NONE);
    sill_tokenizer_free(t);
}

static void templates_beyond_any_size(void) {
    static const char unit[] = "<|im_start|>system\\n", end[] = "<|im_end|>";
    for (size_t total = (size_t)65536; total <= (size_t)1 << 20; total <<= 4) {
        char *text = malloc(total);
        bool has;
        for (size_t i = 0; i < total; i++) text[i] = unit[i % (sizeof unit - 1)];
        memcpy(text, end, sizeof end - 1); /* none of the starts has an end behind it */
        sill_tokenizer *t = with_template(text, total);
        REQUIRE(t);
        for (int i = 0; i < 50; i++) {
            CHECK_INT(form_of(t, &has), total > 65536 ? SILL__CHAT_NONE : SILL__CHAT_CHATML);
            CHECK(!has);
        }
        sill_tokenizer_free(t);
        free(text);
    }
}

int main(int argc, char **argv) {
    TEST(the_system_message_of_the_template);
    TEST(control_tokens_are_special_or_none);
    TEST(templates_beyond_any_size);
    TEST_EXIT();
}
