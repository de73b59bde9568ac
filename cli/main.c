/* main.c - finds the command and hands over to it; help and version. */
#include <stdio.h>
#include <string.h>

#include "build_info.h"
#include "common.h"

static const struct { const char *name; cli_command_fn run; const char *what; } commands[] = {
    {"generate", cli_generate, "continue prompts: arguments, a file of them, or standard input"},
    {"chat", cli_chat, "talk with an instruct model"},
    {"classify", cli_classify, "label the rows of a file, with all label probabilities"},
    {"stability", cli_stability, "how far labels depend on the prompt: paraphrases, orders of labels and examples"},
    {"agree", cli_agree, "how far coders agree, and how right they are: kappa, alpha, F1, calibration"},
    {"score", cli_score, "log-probabilities of texts by token, word or text"},
    {"embed", cli_embed, "a vector for every row of a file, as .npy, JSON Lines or CSV"},
    {"perplexity", cli_perplexity, "perplexity of a text or of the rows of a file"},
    {"tokenize", cli_tokenize, "token ids of texts"},
    {"detokenize", cli_detokenize, "texts of token ids"},
    {"quantize", cli_quantize, "a smaller model, with a certificate of what was lost"},
    {"convert", cli_convert, "a model as safetensors or GGUF, whatever file it is in"},
    {"verify", cli_verify, "whether a run's results come out the same again: a sample of its rows"},
    {"merge", cli_merge, "the outputs of shards as one file"},
    {"pull", cli_pull, "a model from a hub into the cache, where -m NAME finds it"},
    {"inspect", cli_inspect, "what is in a model file"},
    {"plan", cli_plan, "what a model will need in memory, before it is loaded"},
    {"check", cli_check, "whether this machine computes right: every operation and small models"},
    {"doctor", cli_doctor, "devices, memory, caches, versions: what works here and why not"},
    {"bench", cli_bench, "how fast a model is on this machine"},
};

static void overview(FILE *to) {
    fprintf(to, "sill %s - language models on the computer you have\n\nusage: sill COMMAND [OPTIONS] [ARGUMENTS]\n\n",
            sill_version());
    for (size_t i = 0; i < SILL_ARRAY_LEN(commands); i++) fprintf(to, "  %-12s %s\n", commands[i].name, commands[i].what);
    fprintf(to, "\nsill help COMMAND shows a command's options; sill --version the version.\n"
                "Results go to standard output or -o FILE, messages to standard error. A run that is interrupted (Ctrl-C, exit\n"
                "status 5) keeps its finished rows in FILE.journal, and the same command goes on from there.\n");
}

static int find_command(const char *name) {
    for (size_t i = 0; i < SILL_ARRAY_LEN(commands); i++)
        if (!strcmp(commands[i].name, name)) return (int)i;
    return -1;
}

int cli_run_command(const char *name, int argc, char **argv) {
    int i = find_command(name);
    return i < 0 ? EXIT_USAGE : commands[i].run(argc, argv);
}

static int unknown_command(const char *name) {
    const char *names[SILL_ARRAY_LEN(commands) + 1] = {NULL};
    for (size_t i = 0; i < SILL_ARRAY_LEN(commands); i++) names[i] = commands[i].name;
    const char *near = args_nearest(name, names);
    if (near) return args_usage(NULL, "unknown command '%.60s'; did you mean %s?", name, near);
    return args_usage(NULL, "unknown command '%.60s'", name);
}

int main(int argc, char **argv) {
    if (argc < 2) {
        overview(stderr);
        return EXIT_USAGE;
    }
    const char *name = argv[1];
    if (!strcmp(name, "--version") || !strcmp(name, "version")) {
        printf("sill %s (%s)\n", sill_version(), SILL_BUILD_COMMIT);
        return cli_flush_stdout();
    }
    if (!strcmp(name, "help") || !strcmp(name, "--help") || !strcmp(name, "-h")) {
        if (argc < 3) {
            overview(stdout);
            return cli_flush_stdout();
        }
        char ask[] = "--help", *ask_argv[] = {ask, NULL};
        int i = find_command(argv[2]);
        return i < 0 ? unknown_command(argv[2]) : commands[i].run(1, ask_argv);
    }
    int i = find_command(name);
    if (i < 0) return unknown_command(name);
    cli_catch_signals();
    return commands[i].run(argc - 2, argv + 2);
}
