/*
 * test_stories.c - stories260K, a trained Llama of 260 thousand parameters: the 200 greedy tokens that llama2.c's own
 * test expects, in f32, token for token.
 */
#include "base/json.h"
#include "rig.h"

#define STORIES "tests/fixtures/stories260K/"

static int read_ids(const char *path, const char *key, int32_t *ids, int max) {
    sill_error err = {0};
    char *text;
    size_t bytes;
    int n = 0;
    sill__json j;
    int64_t id;
    if (sill__read_file(path, 1 << 20, &text, &bytes, &err) != SILL_OK) return -1;
    sill__json_init(&j, text, bytes);
    if (sill__json_find(&j, key, (char *)NULL) && sill__json_enter(&j, SILL__JSON_ARRAY))
        while (n < max && sill__json_next_element(&j) && sill__json_int(&j, &id)) ids[n++] = (int32_t)id;
    sill__free(text);
    return n;
}

static void greedy_on(const char *device) {
    int32_t prompt[8], want[256], got[256];
    int n_prompt = read_ids(STORIES "greedy_200.json", "prompt_ids", prompt, 8);
    int n = read_ids(STORIES "greedy_200.json", "greedy_ids", want, 256);
    sill_model_options o = {.size = sizeof o, .device = device};
    sill_model *m = NULL;
    sill_error err = {0};
    rig r;
    CHECK_INT(n_prompt, 1);
    CHECK_INT(n, 200);
    if (sill_model_load(STORIES "stories260K.gguf", &o, &m, &err) != SILL_OK) {
        FAIL("%s: %s", device, err.msg);
        return;
    }
    sill_status s = rig_open(&r, m, SILL__KV_F32, 256, &err);
    CHECK_OK(s, err);
    if (s == SILL_OK) {
        s = rig_greedy(&r, prompt, n_prompt, got, n, &err);
        CHECK_OK(s, err);
        for (int i = 0; i < n; i++)
            if (got[i] != want[i]) {
                FAIL("%s: token %d is %d, expected %d", device, i, got[i], want[i]);
                break;
            }
        rig_close(&r);
    }
    sill_model_free(m);
}

static void test_greedy_ref(void) { greedy_on("ref"); }

static void test_greedy_cpu(void) {
    for (size_t i = 0; sill__cpu_isas[i]; i++) {
        if (!sill__cpu_isas[i]->available()) continue;
        setenv("SILL_CPU_ISA", sill__cpu_isas[i]->name, 1);
        greedy_on("cpu");
    }
    unsetenv("SILL_CPU_ISA");
}

int main(int argc, char **argv) {
    TEST(test_greedy_ref);
    TEST(test_greedy_cpu);
    TEST_EXIT();
}
