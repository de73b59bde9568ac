/*
 * steps.h - one decode step, counted by the fake Metal: models of any width made as files without contents (all weights 0:
 * which bytes a kernel touches does not depend on them), and what a step of n sequences takes. Besides, a model of the time
 * that such counts imply on Apple's chips; nothing of it has been measured there.
 */
#ifndef TESTS_METAL_STEPS_H
#define TESTS_METAL_STEPS_H

#include <stdarg.h>
#include <sys/stat.h>

#include "metal.h"
#include "model/model.h"

/* kv_heads 0: GPT-2, with transposed matrices and biases; else Llama. */
typedef struct shape { const char *name; int32_t embd, layers, heads, kv_heads, head_dim, ff, vocab, ctx; } shape;

static const shape gpt2_small = {"GPT-2 small", 768, 12, 12, 0, 64, 3072, 50257, 1024};
static const shape gpt2_medium = {"GPT-2 medium", 1024, 24, 16, 0, 64, 4096, 50257, 1024};
static const shape gpt2_large = {"GPT-2 large", 1280, 36, 20, 0, 64, 5120, 50257, 1024};
static const shape gpt2_xl = {"GPT-2 XL", 1600, 48, 25, 0, 64, 6400, 50257, 1024};
static const shape llama_8b = {"Llama, 8 billion", 4096, 32, 32, 8, 128, 14336, 128256, 8192};
static const shape smollm2 = {"SmolLM2-135M", 576, 30, 9, 3, 64, 1536, 49152, 2048};

/* Of one step. ideal: the weights as they are computed with, and the keys and values of all positions. Of the bytes: those of
 * the buffers that hold weights, norms and biases, and of the KV cache; the others are activations. */
typedef struct counts { double dispatches, barriers, command_buffers, bytes, ideal, flops, weights, kv, weights_once, kv_once; } counts;

/* ------------------------------------------------------------------ made files */

typedef struct header { char *text; size_t n, cap; uint64_t bytes; } header;

static inline void put_tensor(header *h, uint64_t rows, uint64_t cols, const char *format, ...) {
    char name[96], dims[48];
    va_list ap;
    va_start(ap, format);
    vsnprintf(name, sizeof name, format, ap);
    va_end(ap);
    if (rows) snprintf(dims, sizeof dims, "[%llu,%llu]", (unsigned long long)rows, (unsigned long long)cols);
    else snprintf(dims, sizeof dims, "[%llu]", (unsigned long long)cols);
    const uint64_t bytes = SILL_MAX(rows, (uint64_t)1) * cols * 2;
    h->n += (size_t)snprintf(h->text + h->n, h->cap - h->n, "%s\"%s\":{\"dtype\":\"F16\",\"shape\":%s,\"data_offsets\":[%llu,%llu]}",
                             h->n > 1 ? "," : "", name, dims, (unsigned long long)h->bytes, (unsigned long long)(h->bytes + bytes));
    h->bytes += bytes;
}

static inline void put_gpt2(header *h, const shape *s) {
    const uint64_t n = (uint64_t)s->embd, ff = (uint64_t)s->ff;
    put_tensor(h, (uint64_t)s->vocab, n, "wte.weight");
    put_tensor(h, (uint64_t)s->ctx, n, "wpe.weight");
    for (int i = 0; i < s->layers; i++) {
        static const char *const norms[] = {"ln_1", "ln_2"};
        const struct { const char *name; uint64_t in, out; } linear[] = {
            {"attn.c_attn", n, 3 * n}, {"attn.c_proj", n, n}, {"mlp.c_fc", n, ff}, {"mlp.c_proj", ff, n}};
        for (int k = 0; k < 2; k++) {
            put_tensor(h, 0, n, "h.%d.%s.weight", i, norms[k]);
            put_tensor(h, 0, n, "h.%d.%s.bias", i, norms[k]);
        }
        for (int k = 0; k < 4; k++) {
            put_tensor(h, linear[k].in, linear[k].out, "h.%d.%s.weight", i, linear[k].name);
            put_tensor(h, 0, linear[k].out, "h.%d.%s.bias", i, linear[k].name);
        }
    }
    put_tensor(h, 0, n, "ln_f.weight");
    put_tensor(h, 0, n, "ln_f.bias");
}

static inline void put_llama(header *h, const shape *s) {
    const uint64_t n = (uint64_t)s->embd, q = (uint64_t)(s->heads * s->head_dim), kv = (uint64_t)(s->kv_heads * s->head_dim);
    const uint64_t ff = (uint64_t)s->ff;
    put_tensor(h, (uint64_t)s->vocab, n, "model.embed_tokens.weight");
    for (int i = 0; i < s->layers; i++) {
        const struct { const char *name; uint64_t out, in; } linear[] = {
            {"self_attn.q_proj", q, n}, {"self_attn.k_proj", kv, n}, {"self_attn.v_proj", kv, n}, {"self_attn.o_proj", n, q},
            {"mlp.gate_proj", ff, n}, {"mlp.up_proj", ff, n}, {"mlp.down_proj", n, ff}};
        put_tensor(h, 0, n, "model.layers.%d.input_layernorm.weight", i);
        put_tensor(h, 0, n, "model.layers.%d.post_attention_layernorm.weight", i);
        for (int k = 0; k < 7; k++) put_tensor(h, linear[k].out, linear[k].in, "model.layers.%d.%s.weight", i, linear[k].name);
    }
    put_tensor(h, 0, n, "model.norm.weight");
}

/* A directory with a configuration and f16 weights that take no room on the disk. */
static inline bool make_model(const shape *s, const char *dir) {
    char path[400], config[900];
    header h = {.cap = 1 << 20, .n = 1};
    if (!(h.text = malloc(h.cap)) || mkdir(dir, 0700) != 0) return false;
    h.text[0] = '{';
    if (s->kv_heads) put_llama(&h, s);
    else put_gpt2(&h, s);
    h.text[h.n++] = '}';
    while (h.n % 8) h.text[h.n++] = ' ';
    const uint64_t n = h.n;
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    FILE *f = fopen(path, "wb");
    bool ok = f && fwrite(&n, 8, 1, f) == 1 && fwrite(h.text, 1, h.n, f) == h.n && fflush(f) == 0 &&
              ftruncate(fileno(f), (off_t)(8 + n + h.bytes)) == 0;
    if (f) fclose(f);
    free(h.text);
    if (s->kv_heads)
        snprintf(config, sizeof config, "{\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"llama\",\"hidden_size\":%d,"
                 "\"num_hidden_layers\":%d,\"num_attention_heads\":%d,\"num_key_value_heads\":%d,\"head_dim\":%d,\"intermediate_size\":%d,"
                 "\"vocab_size\":%d,\"max_position_embeddings\":%d,\"hidden_act\":\"silu\",\"rms_norm_eps\":1e-05,\"rope_theta\":10000.0,"
                 "\"tie_word_embeddings\":true}", s->embd, s->layers, s->heads, s->kv_heads, s->head_dim, s->ff, s->vocab, s->ctx);
    else
        snprintf(config, sizeof config, "{\"architectures\":[\"GPT2LMHeadModel\"],\"model_type\":\"gpt2\",\"n_embd\":%d,\"n_layer\":%d,"
                 "\"n_head\":%d,\"n_inner\":%d,\"vocab_size\":%d,\"n_positions\":%d,\"activation_function\":\"gelu_new\","
                 "\"layer_norm_epsilon\":1e-05,\"tie_word_embeddings\":true}", s->embd, s->layers, s->heads, s->ff, s->vocab, s->ctx);
    snprintf(path, sizeof path, "%s/config.json", dir);
    f = fopen(path, "wb");
    ok = ok && f && fputs(config, f) >= 0;
    if (f) fclose(f);
    return ok;
}

/* -------------------------------------------------------------------- counting */

typedef struct bench {
    sill_model *m;
    sill__queue *q;
    sill__kv *kv;
    sill__buf *work, *out;
    sill__work places;
    int32_t *host; /* tokens, positions, output rows, rows taken from, blocks */
} bench;

static inline void bench_close(bench *b) {
    const sill__backend *ops = sill__backend_metal();
    if (!b->m) return;
    if (b->q) ops->queue_free(b->m->device, b->q);
    if (b->kv) ops->kv_free(b->m->device, b->kv);
    if (b->work) ops->buf_free(b->m->device, b->work);
    if (b->out) ops->buf_free(b->m->device, b->out);
    sill_model_free(b->m);
    free(b->host);
    *b = (bench){0};
}

#define RECORDED_BLOCKS 256 /* of a text that is recorded and not run */

/* For steps of N tokens over n_blocks blocks of keys and values. */
static inline sill_status bench_open_for(bench *b, const shape *s, sill_dtype dtype, bool latency, int32_t n, int32_t n_blocks, sill_error *err) {
    const sill__backend *ops = sill__backend_metal();
    const int32_t q_width = s->heads * s->head_dim, kv_width = (s->kv_heads ? s->kv_heads : s->heads) * s->head_dim;
    char dir[] = "/tmp/sill-steps-XXXXXX", model[64], command[96];
    sill__file *file = NULL;
    *b = (bench){0};
    if (!mkdtemp(dir)) return sill__fail(err, SILL_EIO, "no directory for a model");
    snprintf(model, sizeof model, "%s/model", dir);
    sill_status st = make_model(s, model) ? SILL_OK : sill__fail(err, SILL_EIO, "the model cannot be written");
    if (st == SILL_OK) st = sill__file_open(model, &file, err);
    if (st == SILL_OK) st = sill__model_load_on(file, ops, NULL, dtype, &b->m, err);
    snprintf(command, sizeof command, "rm -r %s", dir);
    if (system(command) != 0 && st == SILL_OK) st = sill__fail(err, SILL_EIO, "%s stays behind", dir);
    if (st != SILL_OK) return st;
    sill__device *d = b->m->device;
    const sill__queue_shape queue = {.max_tokens = n, .max_out = n, .max_vocab = s->vocab, .path = latency ? SILL__PATH_LATENCY : SILL__PATH_BATCH,
                                     .max_width = SILL_MAX(q_width + 2 * kv_width, 2 * s->ff)};
    const sill__kv_shape kv = {.n_layers = s->layers, .n_kv_heads = s->kv_heads ? s->kv_heads : s->heads, .head_dim = s->head_dim,
                               .type = SILL__KV_F16, .n_blocks = n_blocks};
    const size_t rows = (size_t)n * 4, x = rows * (size_t)s->embd, qs = rows * (size_t)q_width, ff = rows * (size_t)s->ff;
    if ((st = ops->queue_create(d, &queue, &b->q, err)) != SILL_OK || (st = ops->kv_create(d, &kv, &b->kv, err)) != SILL_OK ||
        (st = ops->buf_create(d, x + 2 * qs + ff, &b->work, err)) != SILL_OK || (st = ops->buf_create(d, 3 * rows, &b->out, err)) != SILL_OK)
        return st;
    b->places = (sill__work){{b->work, 0}, {b->work, x}, {b->work, x + qs}, {b->work, x + 2 * qs}, b->kv};
    b->host = calloc((size_t)n * 4 + SILL_MAX((size_t)n_blocks, (size_t)RECORDED_BLOCKS), sizeof *b->host);
    return b->host ? SILL_OK : SILL_ENOMEM;
}

/* For steps of N sequences with ctx positions each. */
static inline sill_status bench_open(bench *b, const shape *s, sill_dtype dtype, bool latency, int32_t n, int32_t ctx, sill_error *err) {
    const sill_status st = bench_open_for(b, s, dtype, latency, n, n * ((ctx + SILL__KV_BLOCK - 1) / SILL__KV_BLOCK), err);
    if (st == SILL_OK) memset(mtl_buffer_contents(b->kv->buffer), 0, b->kv->bytes);
    return st;
}

/* A greedy step as engine/ahead.c has it: tokens from the step in front, the best one and its log-probability of each row. */
static inline sill_status greedy_step(bench *b, int32_t n, int32_t ctx, sill_error *err) {
    const sill__backend *ops = sill__backend_metal();
    const int32_t each = (ctx + SILL__KV_BLOCK - 1) / SILL__KV_BLOCK;
    int32_t *tokens = b->host, *positions = tokens + n, *rows = positions + n, *from = rows + n, *blocks = from + n;
    sill__run *runs = calloc((size_t)n, sizeof *runs);
    if (!runs) return SILL_ENOMEM;
    for (int32_t i = 0; i < n; i++) {
        positions[i] = ctx - 1;
        rows[i] = from[i] = i;
        for (int32_t k = 0; k < each; k++) blocks[i * each + k] = i * each + k;
        runs[i] = (sill__run){.first = i, .n = 1, .pos = ctx - 1, .blocks = blocks + i * each};
    }
    const sill__batch batch = {.n_tokens = n, .n_runs = n, .n_out = n, .tokens = tokens, .positions = positions, .runs = runs, .out_rows = rows};
    ops->begin(b->q, &batch);
    ops->take_ids(b->q, (sill__ref){b->out, 0}, from);
    sill__model_forward(b->m, b->q, &b->places);
    ops->head(b->q, &(sill__op_head){.in = b->places.x, .norm = b->m->norm_f, .w = b->m->head, .n_vocab = b->m->config.n_vocab, .n_top = 1,
                                     .top_ids = {b->out, (size_t)n * 4}, .top_logprobs = {b->out, (size_t)n * 8}});
    sill_status st = ops->submit(b->q, NULL, err);
    if (st == SILL_OK) st = ops->wait(b->q, 0, err);
    free(runs);
    return st;
}

/* What was read and written of the buffers that hold weights. */
static inline double weights_moved(const sill_model *m) {
    mtl_id seen[512];
    size_t n = 0;
    double bytes = 0;
    const sill__weight *all[3] = {m->wte, m->wpe, m->head};
    seen[n++] = m->vectors->buffer;
    for (int32_t i = -1; i < m->config.n_layers; i++) {
        const sill__weight *layer[4] = {0};
        if (i >= 0) memcpy(layer, (const sill__weight *[]){m->layers[i].qkv, m->layers[i].attn_out, m->layers[i].mlp_in, m->layers[i].mlp_out}, sizeof layer);
        for (int k = 0; k < (i < 0 ? 3 : 4); k++) {
            const sill__weight *w = i < 0 ? all[k] : layer[k];
            for (int p = 0; w && p < w->n_parts; p++) {
                size_t at = 0;
                while (at < n && seen[at] != w->parts[p].buffer) at++;
                if (at == n && n < SILL_ARRAY_LEN(seen)) seen[n++] = w->parts[p].buffer;
            }
        }
    }
    for (size_t i = 0; i < n; i++) {
        uint64_t rd, wr;
        fake.buffer_bytes((struct fake_obj *)seen[i], &rd, &wr);
        bytes += (double)(rd + wr);
    }
    return bytes;
}

/* Activations of a step, by what five kernels a layer must hand on, in bytes: x, q, attention and feed-forward of n rows, each
 * written once and read where it is needed (x by qkv, the feed-forward and both residuals, which write it too), and the logits. */
static inline double activations(const shape *s, double n) {
    const double q = s->heads * s->head_dim, layer = 6.0 * s->embd + 4 * q + 2.0 * s->ff;
    const double stats = n > 32 ? s->embd + 8 : 0; /* rows read once more for their norm's statistics, which are written and read */
    return 4 * n * (s->layers * (layer + stats) + 2 * s->embd + 2.0 * s->vocab + stats);
}

static inline double weights_of(const sill__weight *w) { return (double)w->rows * w->cols; }

static inline sill_status count_step(const shape *s, sill_dtype dtype, bool latency, int32_t n, int32_t ctx, counts *out, sill_error *err) {
    bench b;
    sill_status st = bench_open(&b, s, dtype, latency, n, ctx, err);
    fake.reset();
    if (st == SILL_OK) st = greedy_step(&b, n, ctx, err);
    if (st == SILL_OK) {
        const fakemetal_totals t = fake_totals();
        double weights = weights_of(b.m->head);
        const double position = 2.0 * s->layers * (s->kv_heads ? s->kv_heads : s->heads) * s->head_dim * 2;
        for (int32_t i = 0; i < s->layers; i++)
            weights += weights_of(b.m->layers[i].qkv) + weights_of(b.m->layers[i].attn_out) + weights_of(b.m->layers[i].mlp_in) +
                       weights_of(b.m->layers[i].mlp_out);
        *out = (counts){.dispatches = (double)t.dispatches, .barriers = (double)t.barriers, .command_buffers = (double)t.command_buffers,
                        .bytes = (double)(t.bytes_read + t.bytes_written), .flops = 2 * n * weights,
                        .ideal = (double)b.m->weight_bytes + position * n * ctx, .weights = weights_moved(b.m)};
        out->weights_once = (double)b.m->weight_bytes;
        out->kv_once = position * n * ctx;
        uint64_t rd, wr;
        fake.buffer_bytes((struct fake_obj *)b.kv->buffer, &rd, &wr);
        out->kv = (double)(rd + wr);
    }
    bench_close(&b);
    return st;
}

/* A step of n_runs texts with N tokens each behind POS others, recorded as the engine does it and not run: into how many command
 * buffers it goes, and how long these are. At most RECORDED_BLOCKS blocks a
 * text, which are all the first. */
static inline sill_status record_step(bench *b, int32_t n_runs, int32_t n, int32_t pos, sill__mtl_pieces *out, sill_error *err) {
    const sill__backend *ops = sill__backend_metal();
    const int32_t n_blocks = (pos + n + SILL__KV_BLOCK - 1) / SILL__KV_BLOCK, total = n_runs * n;
    int32_t *tokens = b->host, *positions = tokens + total, *rows = positions + total, *blocks = rows + 2 * total;
    sill__run *runs = calloc((size_t)n_runs, sizeof *runs);
    if (!runs) return SILL_ENOMEM;
    for (int32_t i = 0; i < n_blocks; i++) blocks[i] = 0;
    for (int32_t i = 0; i < total; i++) {
        tokens[i] = 0;
        positions[i] = pos + i % n;
    }
    for (int32_t r = 0; r < n_runs; r++) {
        rows[r] = r * n + n - 1;
        runs[r] = (sill__run){.first = r * n, .n = n, .pos = pos, .blocks = blocks};
    }
    const sill__batch batch = {.n_tokens = total, .n_runs = n_runs, .n_out = n_runs, .tokens = tokens, .positions = positions, .runs = runs, .out_rows = rows};
    ops->begin(b->q, &batch);
    sill__model_forward(b->m, b->q, &b->places);
    ops->head(b->q, &(sill__op_head){.in = b->places.x, .norm = b->m->norm_f, .w = b->m->head, .n_vocab = b->m->config.n_vocab, .n_top = 1,
                                     .top_ids = {b->out, 0}, .top_logprobs = {b->out, (size_t)total * 4}});
    *out = sill__mtl_queue_pieces(b->q);
    free(runs);
    return sill__mtl_ok(b->q) ? SILL_OK : ops->submit(b->q, NULL, err);
}

/* Of all layers, from models of one and two: layers are alike. */
static inline counts scaled(const counts *one, const counts *two, int32_t layers) {
    const double k = layers - 1;
#define SCALED(field) .field = one->field + k * (two->field - one->field)
    return (counts){SCALED(dispatches), SCALED(barriers), SCALED(bytes), SCALED(ideal), SCALED(flops), SCALED(weights), SCALED(kv), SCALED(weights_once), SCALED(kv_once), .command_buffers = one->command_buffers};
#undef SCALED
}

/* ----------------------------------------------------------------------- time */

/* GB/s and TFLOP/s by the makers' figures; the share of the peak that products reach (docs/METAL.md says from where). */
typedef struct chip { const char *name; double bandwidth, peak, reached_f16, reached_blocks; } chip;
static const chip chips[] = {{"M1", 68, 2.62, 0.59, 0.59}, {"M1 Pro", 200, 5.3, 0.72, 0.65}, {"M2 Pro", 200, 5.73, 0.72, 0.65}};
enum { CHIP_M1, CHIP_M1_PRO, CHIP_M2_PRO };

/* What is not known: the share of the bandwidth that is reached, and a dispatch's price. */
typedef struct guess { double reached, dispatch; } guess;
static const guess slow_guess = {0.88, 5e-6}, fast_guess = {0.95, 2e-6};
#define COMMAND_BUFFER 20e-6 /* s */

typedef struct speed { double seconds, tokens_per_s, share; bool by_arithmetic; } speed;

static inline speed predict(const chip *c, const guess *g, const counts *n, double tokens, bool blocks) {
    const double bytes = n->bytes / (c->bandwidth * 1e9 * g->reached);
    const double sums = n->flops / (c->peak * 1e12 * (blocks ? c->reached_blocks : c->reached_f16));
    const double seconds = SILL_MAX(bytes, sums) + n->dispatches * g->dispatch + n->command_buffers * COMMAND_BUFFER;
    return (speed){.seconds = seconds, .tokens_per_s = tokens / seconds, .share = n->ideal / (c->bandwidth * 1e9) / seconds, .by_arithmetic = sums > bytes};
}

#endif
