/*
 * llmc.c - llm.c's checkpoints (gpt2_124M.bin, gpt2_124M_bf16.bin, model_*.bin): 256 numbers of 32 bits, then all
 * parameters in one order, those of one kind layer by layer. The vocabulary's rows are padded there to a multiple of 128; the
 * padding is left out here, as it is by llm.c where probabilities are computed.
 */
#include <stdio.h>

#include "format/internal.h"

#define MAGIC 20240326u
#define HEADER_BYTES 1024u

static uint32_t number(const sill__map *map, int i) {
    uint32_t v = 0;
    for (int b = 0; b < 4; b++) v |= (uint32_t)map->data[4 * i + b] << 8 * b;
    return v;
}

bool sill__llmc_is(const sill__map *map) { return map->bytes >= HEADER_BYTES && number(map, 0) == MAGIC; }

typedef struct kind { const char *name; uint64_t rows, cols; bool outer; } kind; /* cols 0: a vector; outer: not once a layer */

typedef struct reader {
    sill__file *f;
    const sill__map *map;
    const char *path;
    sill__type type;
    uint64_t at;
} reader;

/* The next ROWS rows of the file, of which KEPT are the tensor. */
static sill_status add(reader *r, const char *name, uint64_t rows, uint64_t kept, uint64_t cols, sill_error *err) {
    sill__tensor *t;
    const uint64_t bytes = rows * (cols ? cols : 1) * sill__type_get(r->type)->block_bytes; /* dimensions are below 2^24 */
    if (bytes > r->map->bytes - r->at)
        return sill__fail(err, SILL_EFORMAT, "%s: the header tells of more parameters than the file holds: it ends in %s, after %zu bytes; "
                          "it is cut off or damaged (fetch it again)", r->path, name, r->map->bytes);
    sill_status s = sill__file_tensor_new(r->f, r->path, name, strlen(name), &t, err);
    if (s != SILL_OK) return s;
    t->type = r->type;
    t->n_dims = cols ? 2 : 1;
    t->dims[0] = kept;
    t->dims[1] = cols;
    t->bytes = (size_t)(kept * (cols ? cols : 1) * sill__type_get(r->type)->block_bytes);
    t->data = r->map->data + r->at;
    t->map = r->map;
    r->at += bytes;
    r->f->n_tensors++;
    return SILL_OK;
}

sill_status sill__llmc_read(sill__file *f, const sill__map *map, const char *path, sill_error *err) {
    static const struct { const char *name; uint32_t max; } fields[] = {
        {"max_seq_len", 1 << 20}, {"vocab_size", 1 << 22}, {"num_layers", 1024}, {"num_heads", 1024}, {"channels", 65536},
        {"padded_vocab_size", 1 << 22}};
    const uint32_t version = number(map, 1), ctx = number(map, 2), vocab = number(map, 3), layers = number(map, 4), heads = number(map, 5);
    const uint64_t c = number(map, 6), padded = number(map, 7);
    reader r = {.f = f, .map = map, .path = path, .type = version == 3 ? SILL__TYPE_F32 : SILL__TYPE_BF16, .at = HEADER_BYTES};
    char name[96];
    f->kind = SILL__FILE_LLMC;
    f->linear = true;
    if (version != 3 && version != 5)
        return sill__fail(err, SILL_EUNSUPPORTED, "%s: an llm.c checkpoint of version %u; 3 (float32) and 5 (bfloat16), which llm.c has written "
                          "since May 2024, are supported", path, version);
    for (int i = 0; i < (int)SILL_ARRAY_LEN(fields); i++)
        if (number(map, 2 + i) < 1 || number(map, 2 + i) > fields[i].max)
            return sill__fail(err, SILL_EFORMAT, "%s: %s is %u, expected 1 to %u", path, fields[i].name, number(map, 2 + i), fields[i].max);
    if (padded < vocab)
        return sill__fail(err, SILL_EFORMAT, "%s: padded_vocab_size %u is less than vocab_size %u", path, number(map, 7), vocab);
    const kind kinds[] = {
        {"ln_1.weight", c, 0, false}, {"ln_1.bias", c, 0, false}, {"attn.c_attn.weight", 3 * c, c, false}, {"attn.c_attn.bias", 3 * c, 0, false},
        {"attn.c_proj.weight", c, c, false}, {"attn.c_proj.bias", c, 0, false}, {"ln_2.weight", c, 0, false}, {"ln_2.bias", c, 0, false},
        {"mlp.c_fc.weight", 4 * c, c, false}, {"mlp.c_fc.bias", 4 * c, 0, false}, {"mlp.c_proj.weight", c, 4 * c, false},
        {"mlp.c_proj.bias", c, 0, false}, {"ln_f.weight", c, 0, true}, {"ln_f.bias", c, 0, true}};
    sill_status s = add(&r, "transformer.wte.weight", padded, vocab, c, err);
    if (s == SILL_OK) s = add(&r, "transformer.wpe.weight", ctx, ctx, c, err);
    for (size_t k = 0; k < SILL_ARRAY_LEN(kinds); k++)
        for (uint32_t i = 0; s == SILL_OK && i < (kinds[k].outer ? 1 : layers); i++) {
            if (kinds[k].outer) snprintf(name, sizeof name, "transformer.%s", kinds[k].name);
            else snprintf(name, sizeof name, "transformer.h.%u.%s", i, kinds[k].name);
            s = add(&r, name, kinds[k].rows, kinds[k].rows, kinds[k].cols, err);
        }
    if (s == SILL_OK && r.at != map->bytes)
        s = sill__fail(err, SILL_EFORMAT, "%s: %llu bytes behind the last parameter; the header does not fit the file", path,
                       (unsigned long long)(map->bytes - r.at));
    return s == SILL_OK ? sill__file_set_gpt2(f, layers, heads, (int64_t)c, ctx, vocab, "gelu_new", err) : s;
}
