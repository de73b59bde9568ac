/* convert.c - `sill convert`: a model in another file format. */
#include <string.h>

#include "common.h"

typedef struct convert_options {
    const char *output, *tokenizer;
    bool overwrite;
} convert_options;

static const char notes[] =
    "MODEL is whatever the other commands take: a directory as on the hub, safetensors, PyTorch's pytorch_model.bin, nanoGPT's ckpt.pt,\n"
    "llm.c's .bin, OpenAI's TensorFlow checkpoint (model.ckpt.index). OUT's ending says what is written: .gguf for llama.cpp, with the\n"
    "tokenizer in it; .safetensors for the weights alone; else a directory that transformers loads, with config.json and the\n"
    "tokenizer's files. Types stay as they are stored (vectors of a GGUF become f32); sill quantize makes weights smaller. From a GGUF\n"
    "only a GGUF is written. nanoGPT computes GELU exactly, llama.cpp's GPT-2 by tanh: such a model is not written as GGUF.\n"
    "--overwrite replaces a directory only if it holds nothing but files that sill writes.\n";

int cli_convert(int argc, char **argv) {
    static convert_options o;
    static const arg_option own[] = {
        {"output", 'o', ARG_TEXT, offsetof(convert_options, output), 0, 0, NULL, "OUT", "OUT.gguf, OUT.safetensors, or a directory"},
        {"tokenizer", 0, ARG_TEXT, offsetof(convert_options, tokenizer), 0, 0, NULL, "PATH",
         "tokenizer of a model that brings none: a directory, tokenizer.json, vocab.json, vocab.bpe"},
        {"overwrite", 0, ARG_FLAG, offsetof(convert_options, overwrite), 0, 0, NULL, NULL, "replace OUT if it exists"},
    };
    const arg_command command = {"convert", "MODEL -o OUT", "Writes a model as safetensors or GGUF.",
                                 {{"convert", own, SILL_ARRAY_LEN(own), &o}, cli_general_table()}, notes, 1, 1};
    char **models, path[1024];
    int n;
    sill_error err = {0};
    int status = args_parse(&command, argc, argv, &models, &n);
    if (status >= 0) return status;
    if (!o.output || !*o.output) return args_usage("convert", "-o OUT is needed");
    if (!strcmp(o.output, "-")) return args_usage("convert", "a model cannot be written to standard output");
    cli_show_log();
    if (cli_model_path(models[0], path, sizeof path, &err) != SILL_OK) return cli_fail(&err);
    sill_status s = sill_convert(path, o.output, &(sill_convert_options){.size = sizeof(sill_convert_options), .overwrite = o.overwrite,
                                                                        .tokenizer = o.tokenizer}, &err);
    if (s == SILL_EINVAL) return cli_fail_model(&err);
    return s == SILL_OK ? EXIT_OK : cli_fail(&err);
}
