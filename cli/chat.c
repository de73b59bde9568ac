/*
 * chat.c - `sill chat`: a conversation with an instruct model. A line of standard input is a turn; answers go to
 * standard output. Every turn is computed from the whole conversation, so an answer depends on the texts alone.
 */
#include <stdlib.h>
#include <string.h>

#include "sampling.h"

typedef struct chat_options {
    cli_model_options model;
    cli_sampling sampling;
    const char *system;
} chat_options;

typedef struct chat {
    const chat_options *o;
    cli_engine *engine;
    char **roles_contents; /* contents; roles alternate behind an optional system text */
    size_t n, cap, first;  /* first: 1 when there is a system text */
    const int32_t *ids;
    size_t n_ids;
    bool given, stream, refused; /* refused: this turn alone failed, and the conversation goes on */
    uint64_t n_refused;
    sill__str answer;
    sill_status row_status;
    char message[512];
} chat;

static bool add_message(chat *c, const char *text, size_t n) {
    if (c->n == c->cap) {
        size_t cap = c->cap ? c->cap * 2 : 16;
        char **p = sill__realloc(c->roles_contents, cap * sizeof *p);
        if (!p) return false;
        c->roles_contents = p;
        c->cap = cap;
    }
    c->roles_contents[c->n] = sill__strndup(text, n);
    return c->roles_contents[c->n++] != NULL;
}

static void drop_messages(chat *c, size_t from, size_t n) {
    for (size_t i = from; i < from + n; i++) sill__free(c->roles_contents[i]);
    memmove(c->roles_contents + from, c->roles_contents + from + n, (c->n - from - n) * sizeof *c->roles_contents);
    c->n -= n;
}

static int next(void *user, sill_row *row) {
    chat *c = user;
    if (cli_stop) return -1;
    if (c->given) return 0;
    c->given = true;
    memset(row, 0, sizeof *row);
    row->key = c->n;
    row->ids = c->ids;
    row->n_ids = c->n_ids;
    return 1;
}

static int done(void *user, const sill_generated *r) {
    chat *c = user;
    if (r->status != SILL_OK) {
        c->row_status = r->status;
        snprintf(c->message, sizeof c->message, "%s", r->error ? r->error : sill_status_text(r->status));
    } else if (r->final) {
        sill__str_put(&c->answer, r->text, r->n_bytes);
    } else {
        fwrite(r->text, 1, r->n_bytes, stdout);
        fflush(stdout);
    }
    return cli_stop;
}

/* Positions for the conversation and an answer: the context, or --max-length where it alone bounds the answer. */
static size_t room_of(const chat *c) {
    const sill_generate_options *o = &c->o->sampling.o;
    size_t room = (size_t)(c->o->model.n_ctx ? c->o->model.n_ctx : c->engine->info.n_ctx);
    return o->max_new_tokens || !o->max_length ? room : SILL_MIN(room, (size_t)o->max_length);
}

/* The ids of the conversation without the N messages behind the system text. */
static sill_status ids_without(chat *c, size_t n, int32_t **ids, size_t *n_ids, sill_error *err) {
    const char **roles = sill__calloc(2 * c->n, sizeof *roles), **contents = roles + c->n;
    size_t used = 0;
    if (!roles) return sill__fail(err, SILL_ENOMEM, "no memory for the conversation");
    for (size_t i = 0; i < c->n; i++) {
        if (i >= c->first && i < c->first + n) continue;
        roles[used] = i < c->first ? "system" : (i - c->first) % 2 ? "assistant" : "user";
        contents[used++] = c->roles_contents[i];
    }
    sill_status s = sill_chat_ids(c->engine->model, roles, contents, used, ids, n_ids, err);
    sill__free(roles);
    return s;
}

/* A turn that has no room even alone: says how long one may be. ALONE: tokens of the conversation that is this turn. */
static sill_status refuse_turn(chat *c, size_t alone, sill_error *err) {
    const sill_tokenizer *t = sill_model_tokenizer(c->engine->model);
    const char *text = c->roles_contents[c->n - 1];
    size_t n = 0, room = room_of(c), cap = sill_tokenize_bound(t, strlen(text)), bytes;
    int32_t *ids = sill__mul(cap, sizeof *ids, &bytes) ? sill__alloc(bytes) : NULL;
    if (!ids) return sill__fail(err, SILL_ENOMEM, "no memory for the turn's tokens");
    sill_status s = sill_tokenize(t, text, strlen(text), SILL_TOKENIZE_NO_PREFIX, ids, cap, &n, err);
    sill__free(ids);
    if (s != SILL_OK) return s;
    size_t form = alone - SILL_MIN(n, alone); /* the system text, and what the template adds */
    c->refused = true;
    if (room < form + 2)
        return sill__fail(err, SILL_ERANGE, "a conversation of %zu tokens has no room for a turn: its form and the system text take %zu",
                          room, form);
    return sill__fail(err, SILL_ERANGE, "this turn has about %zu tokens; it may have %zu, so that one for the answer is left "
                      "of %zu. It is left out", n, room - form - 1, room);
}

/* The ids of the conversation; the oldest turns leave it while it is too long for the context. */
static sill_status render(chat *c, int32_t **ids, size_t *n, sill_error *err) {
    size_t room = room_of(c), answer = SILL_MIN((size_t)c->o->sampling.o.max_new_tokens, room / 4);
    sill_status s = ids_without(c, c->n - c->first - 1, ids, n, err); /* this turn alone: without room nothing else helps */
    if (s != SILL_OK) return s;
    sill_free(*ids);
    *ids = NULL;
    if (*n >= room) return refuse_turn(c, *n, err);
    for (;;) {
        s = ids_without(c, 0, ids, n, err);
        if (s != SILL_OK || *n + SILL_MAX(answer, (size_t)1) <= room || c->n < c->first + 3) return s;
        sill_free(*ids);
        *ids = NULL;
        drop_messages(c, c->first, 2);
        cli_say("the conversation is longer than %zu tokens; its oldest turn is left out", room);
    }
}

static sill_status answer_turn(chat *c, sill_error *err) {
    int32_t *ids = NULL;
    sill_status s = render(c, &ids, &c->n_ids, err);
    if (s != SILL_OK) return s;
    sill_generate_options g = c->o->sampling.o; /* an answer has what room there is */
    size_t left = room_of(c) - c->n_ids;
    g.max_new_tokens = (int32_t)(g.max_new_tokens ? SILL_MIN((size_t)g.max_new_tokens, left) : left);
    g.max_length = 0;
    c->ids = ids;
    c->given = false;
    c->row_status = SILL_OK;
    sill__str_clear(&c->answer);
    s = sill_generate(c->engine->session, &g, next, done, c->stream, c, err);
    sill_free(ids);
    if (s == SILL_OK && c->row_status != SILL_OK) {
        c->refused = c->row_status != SILL_ENOMEM;
        s = sill__fail(err, c->row_status, "%s", c->message);
    }
    if (s != SILL_OK) return s;
    if (!c->stream) fwrite(c->answer.p ? c->answer.p : "", 1, c->answer.n, stdout);
    putchar('\n');
    fflush(stdout);
    return add_message(c, c->answer.p ? c->answer.p : "", c->answer.n) ? SILL_OK
                                                                        : sill__fail(err, SILL_ENOMEM, "no memory for the conversation");
}

/* One turn; one that fails by itself is taken back. Returns -1 or the exit status. */
static int take_turn(chat *c, const char *line, size_t n) {
    sill_error err = {0};
    sill_status s = SILL_OK;
    bool added = false;
    c->refused = false;
    if (memchr(line, 0, n)) {
        c->refused = true;
        s = sill__fail(&err, SILL_EINVAL, "this turn holds a NUL byte, which a conversation cannot; it is left out");
    } else if (!(added = add_message(c, line, n))) {
        s = sill__fail(&err, SILL_ENOMEM, "no memory for the conversation");
    } else {
        s = answer_turn(c, &err);
    }
    if (s == SILL_OK || cli_stop) return -1;
    int status = cli_fail(&err);
    if (!c->refused) return status;
    if (added) drop_messages(c, c->n - 1, 1);
    c->n_refused++;
    return -1;
}

static int talk(chat *c) {
    bool terminal = cli_is_terminal(stdin);
    char *line = NULL;
    size_t cap = 0;
    int status = -1;
    if (terminal) cli_say("a line is a turn; /reset begins anew, /exit or Ctrl-D ends");
    while (status < 0) {
        if (terminal) fputs("> ", stderr);
        ssize_t n = getline(&line, &cap, stdin);
        if (cli_stop || n < 0) break;
        while (n && (line[n - 1] == '\n' || line[n - 1] == '\r')) n--;
        line[n] = 0;
        if (!n) continue;
        bool command = line[0] == '/' && strlen(line) == (size_t)n;
        if (command && (!strcmp(line, "/exit") || !strcmp(line, "/quit"))) break;
        if (command && !strcmp(line, "/reset")) {
            drop_messages(c, c->first, c->n - c->first);
            continue;
        }
        status = take_turn(c, line, (size_t)n);
        if (cli_stop) break;
    }
    free(line);
    if (cli_stop) {
        fprintf(stderr, "\nsill: interrupted\n");
        return EXIT_INTERRUPTED;
    }
    if (status < 0) status = cli_flush_stdout();
    return status == EXIT_OK && c->n_refused ? EXIT_ROWS : status;
}

int cli_chat(int argc, char **argv) {
    static chat_options o;
    static const arg_option own[] = {
        {"system", 0, ARG_TEXT, offsetof(chat_options, system), 0, 0, NULL, "TEXT", "instruction in front of the conversation"},
    };
    cli_sampling_init(&o.sampling);
    o.sampling.default_new_tokens = 256;
    const arg_command command = {
        "chat", "[-m MODEL] [--system TEXT]",
        "A conversation with an instruct model: every line of standard input is a turn, the answer goes to standard output. "
        "An answer has at most 256 tokens unless --max-new-tokens or --max-length says otherwise. A turn that cannot be "
        "answered (too long, say) is refused, and the conversation goes on; the exit status is 3 then.",
        {{"conversation", own, SILL_ARRAY_LEN(own), &o}, cli_sampling_table_chat(&o.sampling), cli_model_table(&o.model),
         cli_general_table()},
        NULL, 0, 0};
    char **args;
    int n;
    cli_engine engine = {0};
    chat c = {.o = &o, .engine = &engine};
    int status = args_parse(&command, argc, argv, &args, &n);
    if (status < 0) status = cli_sampling_check(&o.sampling, "chat");
    if (status < 0 && o.sampling.o.num_return_sequences > 1) status = args_usage("chat", "a turn has one answer");
    if (status < 0 && o.sampling.o.num_beams > 1) status = args_usage("chat", "a turn is written as it is made, and beams are whole at the end only");
    if (status < 0) status = cli_engine_open("chat", &o.model, &(cli_needs){.interactive = true}, &engine);
    if (status < 0 && !engine.info.is_instruct)
        status = args_usage("chat", "%s is not an instruct model (it has no chat template that is known here); see sill generate",
                            engine.path);
    if (status < 0) status = cli_sampling_prepare(&o.sampling, "chat", &engine);
    sill_generate_options *g = &o.sampling.o;
    if (status < 0 && o.sampling.compat && g->num_return_sequences > 1)
        status = args_usage("chat", "a turn has one answer, and the model's files ask for %d", (int)g->num_return_sequences);
    if (status < 0 && g->num_beams > 1)
        status = args_usage("chat", "the model's files ask for %d beams; give --num-beams 1", (int)g->num_beams);
    if (!g->max_new_tokens && !g->max_length) g->max_new_tokens = o.sampling.default_new_tokens;
    if (status < 0) {
        sill__str_init(&c.answer, (size_t)1 << 28);
        c.stream = cli_is_terminal(stdout);
        c.first = o.system != NULL;
        status = o.system && !add_message(&c, o.system, strlen(o.system)) ? EXIT_FAILED : talk(&c);
    }
    for (size_t i = 0; i < c.n; i++) sill__free(c.roles_contents[i]);
    sill__free(c.roles_contents);
    sill__str_free(&c.answer);
    cli_sampling_free(&o.sampling);
    cli_engine_close(&engine);
    return status;
}
