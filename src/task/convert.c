/*
 * convert.c - sill_convert: a model in another file format, its weights as they are. The output is written beside its final name,
 * and gets it when it is whole.
 */
#include <stdio.h>

#include "model/export.h"
#include "task/quantize.h"

typedef struct job {
    const char *path;
    sill_convert_options o;
    sill__output out;
    bool gguf;
} job;

static sill_status write_weights(job *j, const sill__file *f, const sill__config *config, const sill_tokenizer *t, sill_error *err) {
    sill__export e = {0};
    sill__out *out = NULL;
    char name[128];
    sill__model_base_name(j->path, name);
    /* No matrix becomes smaller than f32 where f32 is what is asked for. */
    sill_status s = j->gguf ? sill__export_gguf(f, config, t, name, SILL__TYPE_F32, SILL__TYPE_F32, &e, err)
                            : sill__export_plain(f, config, &e, err);
    if (s != SILL_OK) return s;
    s = sill__output_weights(&j->out, &out, err);
    if (s == SILL_OK) {
        s = j->gguf ? sill__gguf_write(&e.head, e.copies, e.n, out, err) : sill__safetensors_write(e.copies, e.n, out, err);
        if (s != SILL_OK) sill__out_drop(out);
        else s = sill__out_finish(out, NULL, err);
    }
    sill__export_free(&e);
    return s;
}

static sill_status load_tokenizer(const job *j, const sill__file *f, sill_tokenizer **t, sill_error *err) {
    sill_error why = {0};
    if (j->o.tokenizer) return sill_tokenizer_load(j->o.tokenizer, t, err);
    sill_status s = sill__tokenizer_from_file(f, t, &why);
    if (s == SILL_ENOENT) return SILL_OK; /* a model alone */
    if (s != SILL_OK && err) *err = why;
    return s;
}

static sill_status write_model(job *j, sill_error *err) {
    sill__file *f = NULL;
    sill__config config;
    sill_tokenizer *t = NULL;
    sill_plan_info plan;
    sill_status s = sill_plan(j->path, &(sill_model_options){.size = sizeof(sill_model_options)}, NULL, &plan, err); /* every tensor is there */
    if (s == SILL_OK) s = sill__file_open(j->path, &f, err);
    if (s != SILL_OK) return s;
    s = sill__config_read(f, &config, err);
    if (s == SILL_OK) {
        s = sill__output_check(&j->out, &(sill__output_reads){.file = f, .model = j->path, .text = j->o.tokenizer}, err);
        if (s == SILL_OK) s = load_tokenizer(j, f, &t, err);
        if (s == SILL_OK) s = write_weights(j, f, &config, t, err);
        if (s == SILL_OK && j->out.directory) s = sill__model_dir_write(f, j->o.tokenizer, t, j->out.partial, false, err);
        sill_tokenizer_free(t);
        sill__config_free(&config);
    }
    sill__file_close(f);
    return s;
}

sill_status sill_convert(const char *path, const char *out, const sill_convert_options *options, sill_error *err) {
    if (!path || !*path || !out || !*out) return sill__fail(err, SILL_EINVAL, "sill_convert needs a model and an output");
    job *j = sill__calloc(1, sizeof *j);
    if (!j) return sill__fail(err, SILL_ENOMEM, "no memory to convert %s", path);
    j->path = path;
    j->out.lock = -1;
    sill_status s = sill__options_read(options, &j->o, sizeof j->o, "sill_convert_options", err);
    if (s == SILL_OK) {
        j->gguf = sill__ends_with(out, strlen(out), ".gguf");
        j->out.directory = !j->gguf && !sill__ends_with(out, strlen(out), ".safetensors");
        j->out.overwrite = j->o.overwrite;
        j->out.program = "sill convert";
        snprintf(j->out.kind, sizeof j->out.kind, "a name %s", j->gguf ? "in .gguf" : j->out.directory ? "of no ending" : "in .safetensors");
        s = sill__output_names(&j->out, out, err);
    }
    if (s == SILL_OK) s = write_model(j, err);
    if (s == SILL_OK) s = sill__output_publish(&j->out, false, err);
    sill__output_end(&j->out);
    sill__free(j);
    return s;
}
