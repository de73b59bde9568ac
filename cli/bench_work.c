/* bench_work.c - the measurements of `sill bench` inside this process: limits of the machine, prefill, decode, classify. */
#include "bench.h"

#include <math.h>
#include <string.h>

#define READ_BYTES ((size_t)512 << 20) /* well beyond any cache */
#define SECONDS_EACH 0.15              /* of a limit */

bench_row bench_empty_row(const char *test, const char *unit) {
    return (bench_row){.test = test, .unit = unit, .batch = -1, .n_prompt = -1, .n_gen = -1, .value = (double)NAN, .mean = (double)NAN,
                       .spread = (double)NAN, .tokens_per_s = (double)NAN, .bandwidth_share = (double)NAN, .peak_share = (double)NAN, .reps = -1};
}

void bench_row_times(bench_row *row, const sill__times *t, double work) {
    double mean = t->sum / t->n;
    row->value = work > 0 ? work / t->best : t->best;
    row->mean = work > 0 ? work / mean : mean;
    row->spread = t->n > 1 ? t->worst / t->best - 1 : (double)NAN; /* one measurement tells nothing of it */
    row->reps = t->n;
}

/* ---- limits */

static sill_status interrupted(sill_error *err) { return sill__fail(err, SILL_ECANCELLED, "interrupted"); }

/* Reads once more, since a shared machine's bandwidth changes by the minute: the highest of the run's is kept. */
static void read_again(bench_run *run) {
    if (!run->block[0]) return;
    sill__times t = sill__cpu_limits_read(run->pool, run->isa, run->block[run->best_block], READ_BYTES, SECONDS_EACH / 2);
    run->read_rate = (double)READ_BYTES / t.best;
}

static bool on_gpu(const bench_run *run) {
    return strncmp(run->engine.info.device, "cpu", 3) && strcmp(run->engine.info.device, "ref");
}

/* Of the CPU as the session uses it; beside a GPU, which shares its memory, of all cores in their best instruction set. */
static sill_status limits_open(bench_run *run, sill_error *err) {
    const char *space = strchr(run->engine.info.device, ' ');
    run->isa = sill__cpu_limits_isa(space && !on_gpu(run) ? space + 1 : NULL);
    if (!run->isa) run->isa = sill__cpu_limits_isa("scalar");
    sill_status s = sill__pool_create(!on_gpu(run) ? run->engine.info.n_threads : sill__n_cores(), &run->pool, err);
    uint64_t available = sill__available_bytes();
    if (s != SILL_OK) return s;
    if (available && available < 4 * READ_BYTES)
        return sill__fail(err, SILL_ENOFIT, "measuring the bandwidth takes %zu MiB, and %.0f MiB are free; --no-limits leaves it out",
                          2 * READ_BYTES >> 20, (double)available / 1048576.0);
    for (int i = 0; i < 2; i++)
        if (!(run->block[i] = sill__cpu_limits_block(READ_BYTES, i == 1))) return sill__fail(err, SILL_ENOMEM, "no memory to measure the bandwidth");
    return SILL_OK;
}

sill_status bench_limits(bench_run *run, bool print, sill_error *err) {
    static const char *const reads[] = {"read_small_pages", "read_huge_pages"}, *const peaks[] = {"peak_f32", "peak_bf16", "peak_int8"};
    sill_status s = limits_open(run, err);
    if (s != SILL_OK) return s;
    for (int i = 0; i < 2; i++) {
        bench_row row = bench_empty_row(reads[i], "GB/s");
        sill__times t = sill__cpu_limits_read(run->pool, run->isa, run->block[i], READ_BYTES, SECONDS_EACH);
        bench_row_times(&row, &t, (double)READ_BYTES / 1e9);
        if (row.value * 1e9 > run->read_rate) run->read_rate = row.value * 1e9, run->best_block = i;
        if (print) bench_out_row(&run->out, &row);
    }
    for (int i = 0; i < SILL__LIMIT_COUNT; i++) {
        bench_row row = bench_empty_row(peaks[i], "Gop/s");
        sill__times t;
        double done = sill__cpu_limits_ops(run->pool, run->isa, (sill__limit)i, SECONDS_EACH, &t);
        if (done <= 0) continue;
        bench_row_times(&row, &t, done / 1e9);
        run->ops[i] = row.value * 1e9;
        if (print) bench_out_row(&run->out, &row);
    }
    bench_row row = bench_empty_row("barrier", "ns");
    sill__times t = sill__cpu_limits_barrier(run->pool, SECONDS_EACH);
    t.best *= 1e9, t.worst *= 1e9, t.sum *= 1e9;
    bench_row_times(&row, &t, 0);
    if (print && sill__pool_size(run->pool) > 1) bench_out_row(&run->out, &row);
    return cli_stop ? interrupted(err) : SILL_OK;
}

void bench_limits_free(bench_run *run) {
    for (int i = 0; i < 2; i++) sill__free_pages(run->block[i], READ_BYTES);
    sill__pool_free(run->pool);
}

/* The limit of this type's products: int8 for blocks, bf16 where it is multiplied natively, else f32. */
static double peak_rate(const bench_run *run) {
    const char *dtype = run->engine.info.dtype;
    if (strncmp(run->engine.info.device, "cpu", 3)) return 0;
    if (strstr(dtype, "int8") || dtype[0] == 'q') return run->ops[SILL__LIMIT_INT8];
    if (!strcmp(dtype, "bf16") && run->ops[SILL__LIMIT_BF16] > 0) return run->ops[SILL__LIMIT_BF16];
    return run->ops[SILL__LIMIT_FMA];
}

/* Operations of the matrix products for one token through all layers; the head's are separate. */
static double layer_ops(const sill_model_info *m) {
    double width = m->n_embd, q = (double)m->n_heads * m->head_dim, kv = (double)m->n_kv_heads * m->head_dim;
    double mlp = (strcmp(m->family, "llama") ? 2.0 : 3.0) * width * m->n_ff;
    return 2.0 * m->n_layers * (width * (q + 2 * kv) + q * width + mlp);
}

static double head_ops(const sill_model_info *m) { return 2.0 * m->n_embd * (double)m->n_vocab; }

/* ---- rows of ids that look random: the same numbers as in bench/peers/common.py */

typedef struct source {
    int32_t n_rows, given, answers, n_vocab, salt;
    const int32_t *lengths; /* of each row, or NULL: n_prompt */
    int32_t n_prompt, cap;
    int32_t *ids;           /* (rows in flight, cap), by row number modulo n_slots */
    int32_t n_slots;
    uint64_t tokens;
    sill_status status;
    sill_error err;
} source;

static int next(void *user, sill_row *row) {
    source *w = user;
    if (cli_stop) return -1;
    if (w->given == w->n_rows) return 0;
    int32_t n = w->lengths ? w->lengths[w->given] : w->n_prompt, *ids = w->ids + (size_t)(w->given % w->n_slots) * (size_t)w->cap;
    uint64_t x = 12345 + 7919 * ((uint64_t)w->given + 100 * (uint64_t)w->salt);
    for (int32_t i = 0; i < n; i++) {
        x = (1103515245 * x + 12345) % 2147483648u;
        ids[i] = (int32_t)(x % (uint64_t)(w->n_vocab - 1));
    }
    memset(row, 0, sizeof *row);
    row->index = row->key = (uint64_t)w->given++;
    row->ids = ids;
    row->n_ids = (size_t)n;
    w->tokens += (uint64_t)n;
    return 1;
}

static int finished(source *w, sill_status status, const char *message) {
    w->answers++;
    if (status == SILL_OK || w->status != SILL_OK) return cli_stop;
    w->status = sill__fail(&w->err, status, "%s", message ? message : "a row failed");
    return 1;
}

static int generated(void *user, const sill_generated *r) { return r->final ? finished(user, r->status, r->error) : cli_stop; }
static int classified(void *user, const sill_classified *r) { return finished(user, r->status, r->error); }

/* What a task's call and its rows came to. */
static sill_status outcome(source *w, sill_status s, sill_error *err) {
    if (cli_stop) return interrupted(err);
    if (w->status != SILL_OK) *err = w->err;
    return w->status != SILL_OK ? w->status : s;
}

sill_status bench_generate(bench_run *run, int32_t batch, int32_t n_prompt, int32_t n_gen, double *seconds, sill_error *err) {
    source w = {.n_rows = batch, .n_vocab = run->engine.info.n_vocab, .n_prompt = n_prompt, .cap = n_prompt, .n_slots = batch};
    sill_generate_options o = {.size = sizeof o, .max_new_tokens = n_gen, .ignore_eos = 1, .no_bos = 1};
    w.ids = sill__calloc((size_t)batch * (size_t)n_prompt, sizeof *w.ids);
    if (!w.ids) return sill__fail(err, SILL_ENOMEM, "no memory for %d prompts", (int)batch);
    double from = sill__now();
    sill_status s = sill_generate(run->engine.session, &o, next, generated, 0, &w, err);
    *seconds = sill__now() - from;
    sill__free(w.ids);
    return outcome(&w, s, err);
}

sill_status bench_prefill(bench_run *run, sill_error *err) {
    const int32_t n = SILL_MIN(run->o->n_prefill, run->n_ctx - 1);
    bench_row row = bench_empty_row("prefill", "tokens/s");
    sill__times times = {0};
    double t, peak = peak_rate(run);
    sill_status s = bench_generate(run, 1, n, 1, &t, err);
    for (int i = 0; s == SILL_OK && i < run->o->reps; i++) {
        s = bench_generate(run, 1, n, 1, &t, err);
        sill__times_add(&times, t);
    }
    if (s != SILL_OK) return s;
    row.batch = 1, row.n_prompt = n, row.n_gen = 1;
    bench_row_times(&row, &times, n);
    row.tokens_per_s = row.value;
    if (peak > 0) row.peak_share = (layer_ops(&run->engine.info) * n + head_ops(&run->engine.info)) / times.best / peak;
    bench_out_row(&run->out, &row);
    return SILL_OK;
}

/* Tokens a second behind the first: the time of the whole less that of the first token, each at its best. */
static sill_status decode(bench_run *run, const char *test, int32_t batch, sill_error *err) {
    const int32_t n_prompt = SILL_MIN(run->o->n_prompt, run->n_ctx - 2), n_gen = SILL_MIN(run->o->n_gen, run->n_ctx - n_prompt);
    bench_row row = bench_empty_row(test, "tokens/s");
    sill__times first = {0}, whole = {0};
    double t, rate = 0, peak = peak_rate(run);
    sill_status s = bench_generate(run, batch, n_prompt, 2, &t, err);
    for (int i = 0; s == SILL_OK && i < run->o->reps; i++) {
        read_again(run);
        rate = SILL_MAX(rate, run->read_rate);
        s = bench_generate(run, batch, n_prompt, 1, &t, err);
        sill__times_add(&first, t);
        if (s == SILL_OK) s = bench_generate(run, batch, n_prompt, n_gen, &t, err);
        sill__times_add(&whole, t);
    }
    if (s != SILL_OK) return s;
    sill__times rest = whole;
    rest.best -= first.best, rest.worst -= first.best, rest.sum -= first.best * whole.n;
    double tokens = (double)batch * (n_gen - 1);
    row.batch = batch, row.n_prompt = n_prompt, row.n_gen = n_gen;
    if (rest.best > 0) bench_row_times(&row, &rest, tokens);
    row.tokens_per_s = row.value;
    if (rate > 0) row.bandwidth_share = row.value / batch * (double)run->engine.info.weight_bytes / rate;
    if (peak > 0) row.peak_share = row.value * (layer_ops(&run->engine.info) + head_ops(&run->engine.info)) / peak;
    bench_out_row(&run->out, &row);
    return SILL_OK;
}

/* On a GPU one text that somebody waits for takes kernels of its own. */
static sill_status decode_interactive(bench_run *run, sill_error *err) {
    sill_session *others = run->engine.session;
    sill_model_options mo;
    sill_session_options so;
    const uint64_t weights = run->engine.info.weight_bytes;
    cli_fill_options(&run->o->model, &mo, &so);
    so.interactive = so.max_sequences = 1;
    if (so.memory_limit_bytes) so.memory_limit_bytes = so.memory_limit_bytes > weights ? so.memory_limit_bytes - weights : 1;
    sill_status s = sill_session_create(run->engine.model, &so, &run->engine.session, err);
    if (s == SILL_OK) {
        s = decode(run, "decode_interactive", 1, err);
        sill_session_free(run->engine.session);
    }
    run->engine.session = others;
    return s;
}

sill_status bench_decode(bench_run *run, sill_error *err) {
    sill_status s = SILL_OK;
    for (int i = 0; s == SILL_OK && i < run->o->n_batches; i++) s = decode(run, "decode", run->o->batch[i], err);
    return s == SILL_OK && on_gpu(run) ? decode_interactive(run, err) : s;
}

/* Ragged texts: lengths of a Lomax distribution with shape 3 and mean 30, cut at 512 (or the context). */
static uint64_t fill_lengths(int32_t *lengths, int32_t n, int32_t most) {
    uint64_t x = 1, sum = 0;
    for (int32_t i = 0; i < n; i++) {
        x = (1103515245 * x + 12345) % 2147483648u;
        lengths[i] = 1 + (int32_t)(58.0 * (pow(1.0 - (double)x / 2147483648.0, -1.0 / 3.0) - 1.0));
        lengths[i] = SILL_MIN(lengths[i], most);
        sum += (uint64_t)lengths[i];
    }
    return sum;
}

sill_status bench_classify(bench_run *run, sill_error *err) {
    static const char *const labels[] = {"positive", "negative"};
    const bool head = run->engine.info.n_labels > 0;
    const int32_t n = run->o->n_texts, cap = SILL_MIN(512, head ? run->n_ctx : run->n_ctx - 32);
    sill_classify_options o = {.size = sizeof o, .labels = head ? NULL : labels, .n_labels = head ? 0 : 2, .no_chat = 1};
    bench_row row = bench_empty_row(head ? "classify_head" : "classify_labels", "texts/s");
    sill__times times = {0};
    sill_status s = SILL_OK;
    if (cap < 1) return sill__fail(err, SILL_ERANGE, "a context of %d tokens has no room for texts to classify", (int)run->n_ctx);
    int32_t *lengths = sill__calloc((size_t)n, sizeof *lengths), *ids = sill__calloc((size_t)n * (size_t)cap, sizeof *ids);
    if (!lengths || !ids) s = sill__fail(err, SILL_ENOMEM, "no memory for %d texts", (int)n);
    uint64_t tokens = s == SILL_OK ? fill_lengths(lengths, n, cap) : 0;
    for (int i = 0; s == SILL_OK && i < run->o->reps; i++) {
        source w = {.n_rows = n, .n_vocab = run->engine.info.n_vocab, .lengths = lengths, .cap = cap, .ids = ids, .n_slots = n, .salt = 7};
        double from = sill__now();
        s = outcome(&w, sill_classify(run->engine.session, &o, next, classified, &w, err), err);
        sill__times_add(&times, sill__now() - from);
    }
    sill__free(ids);
    sill__free(lengths);
    if (s != SILL_OK) return s;
    row.batch = n, row.n_prompt = (int32_t)((tokens + (uint64_t)n / 2) / (uint64_t)n);
    bench_row_times(&row, &times, n);
    row.tokens_per_s = (double)tokens / times.best;
    if (head && peak_rate(run) > 0) row.peak_share = layer_ops(&run->engine.info) * row.tokens_per_s / peak_rate(run);
    bench_out_row(&run->out, &row);
    return SILL_OK;
}
