/*
 * test_threads.c - the thread contract of sill.h: one model and one tokenizer shared by sessions of several threads,
 * each of which gets what it would get alone. Run under the thread sanitizer by tools/test_all.sh.
 */
#include <pthread.h>
#include "test.h"

#define MODEL "tests/fixtures/stories260K/stories260K.gguf"
#define N_THREADS 4
#define N_ROUNDS 3

static const char *const prompts[N_THREADS] = {"Once upon a time", "Lily had a red ball", "The dog was", "One day, Tim and his mom"};

typedef struct task {
    sill_model *model;
    const char *prompt;
    char text[N_ROUNDS][512];
    int32_t ids[256];
    size_t n_ids;
    sill_status status;
    sill_error err;
} task;

static void *work(void *arg) {
    task *t = arg;
    for (int round = 0; round < N_ROUNDS && t->status == SILL_OK; round++) {
        sill_session *session = NULL;
        sill_session_options so = {.size = sizeof so, .n_ctx = 128};
        sill_generate_options o = {.size = sizeof o, .max_new_tokens = 24};
        size_t n = 0;
        t->status = sill_tokenize(sill_model_tokenizer(t->model), t->prompt, strlen(t->prompt), SILL_TOKENIZE_BOS, t->ids,
                                  SILL_ARRAY_LEN(t->ids), &t->n_ids, &t->err);
        if (t->status == SILL_OK) t->status = sill_session_create(t->model, &so, &session, &t->err);
        if (t->status == SILL_OK)
            t->status = sill_generate_text(session, t->prompt, &o, t->text[round], sizeof t->text[round], &n, &t->err);
        sill_session_free(session);
    }
    return NULL;
}

static void try_with(int32_t n_pool) {
    static task alone[N_THREADS], together[N_THREADS];
    pthread_t threads[N_THREADS];
    sill_error err = {0};
    sill_model *model = NULL;
    sill_model_options mo = {.size = sizeof mo, .n_threads = n_pool};
    sill_status status = sill_model_load(MODEL, &mo, &model, &err);
    CHECK_OK(status, err);
    REQUIRE(status == SILL_OK);
    for (int i = 0; i < N_THREADS; i++) alone[i] = together[i] = (task){.model = model, .prompt = prompts[i]};
    for (int i = 0; i < N_THREADS; i++) work(&alone[i]);
    for (int i = 0; i < N_THREADS; i++) REQUIRE(!pthread_create(&threads[i], NULL, work, &together[i]));
    for (int i = 0; i < N_THREADS; i++) pthread_join(threads[i], NULL);
    for (int i = 0; i < N_THREADS; i++) {
        CHECK_OK(alone[i].status, alone[i].err);
        CHECK_OK(together[i].status, together[i].err);
        CHECK(strlen(alone[i].text[0]) > 10);
        CHECK_INT(together[i].n_ids, alone[i].n_ids);
        for (int r = 0; r < N_ROUNDS; r++) CHECK_STR(together[i].text[r], alone[i].text[0]);
    }
    sill_model_free(model);
}

static void test_sessions_share_a_model(void) { try_with(1); }
static void test_sessions_share_a_pool(void) { try_with(2); }

static void *load(void *arg) {
    task *t = arg;
    sill_model *model = NULL;
    t->status = sill_model_load(MODEL, NULL, &model, &t->err);
    sill_model_free(model);
    return NULL;
}

static void test_loading_at_once(void) {
    task tasks[N_THREADS] = {0};
    pthread_t threads[N_THREADS];
    for (int i = 0; i < N_THREADS; i++) REQUIRE(!pthread_create(&threads[i], NULL, load, &tasks[i]));
    for (int i = 0; i < N_THREADS; i++) pthread_join(threads[i], NULL);
    for (int i = 0; i < N_THREADS; i++) CHECK_OK(tasks[i].status, tasks[i].err);
}

int main(int argc, char **argv) {
    TEST(test_sessions_share_a_model);
    TEST(test_sessions_share_a_pool);
    TEST(test_loading_at_once);
    TEST_EXIT();
}
