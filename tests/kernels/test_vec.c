/*
 * Every vector kernel of every instruction set of this machine against double precision: functions over their whole
 * range, norms, rotary embedding, softmax sums and attention at odd sizes, with the bounds stated here.
 */
#include "backend/cpu/kernels.h"
#include "test.h"

static const sill__cpu_isa *isa;
static const sill__cpu_vec_kernels *vec;
static uint64_t seed = 1;

static float uniform(float low, float high) {
    return low + (high - low) * (float)(test_random(&seed) >> 8) * 0x1p-24f;
}
static void fill(float *x, int n, float low, float high) {
    for (int i = 0; i < n; i++) x[i] = uniform(low, high);
}
/* Spacing of floats at |x|. */
static double ulp(double x) {
    int e;
    frexp(fabs(x), &e);
    return ldexp(1, SILL_MAX(e, -125) - 24);
}

/* ------------------------------------------------------------------ functions */

static void exp_within_2_ulp(void) {
    enum { N = 4096 };
    static float x[N], y[N];
    double worst = 0;
    for (int round = 0; round < 40; round++) {
        for (int i = 0; i < N; i++)
            x[i] = round < 30 ? -104.0f + 192.7f * (float)(round * N + i) / (30.0f * N) : uniform(-1, 1);
        vec->exp(y, x, N);
        for (int i = 0; i < N; i++) worst = fmax(worst, fabs(y[i] - exp((double)x[i])) / ulp(exp((double)x[i])));
    }
    if (!(worst <= 2)) FAIL("%s: exp is off by %.3f ulp", isa->name, worst);
    float edge[7] = {-INFINITY, INFINITY, NAN, 0, -0.0f, -1000, 1000}, out[7];
    vec->exp(out, edge, 7);
    CHECK(out[0] == 0 && out[1] == INFINITY && out[2] != out[2] && out[3] == 1 && out[4] == 1);
    CHECK(out[5] == 0 && out[6] == INFINITY);
}

static double act_exact(sill__act act, double x) {
    switch (act) {
    case SILL__ACT_GELU_TANH: return x / (1 + exp(-2 * 0.79788456080286536 * (x + 0.044715 * x * x * x)));
    case SILL__ACT_GELU_ERF: return 0.5 * x * erfc(-x * 0.70710678118654752);
    case SILL__ACT_RELU: return x > 0 ? x : 0;
    case SILL__ACT_SILU: return x / (1 + exp(-x));
    case SILL__ACT_TANH: return tanh(x);
    default: return x;
    }
}

/* Every activation within 8 ulp of the larger of |f(x)| and |x| / 8, and 2e-6 absolute. */
static void activations(void) {
    enum { N = 1021 };
    static float x[N + 1], y[N + 1], bias[N];
    for (int act = SILL__ACT_NONE; act <= SILL__ACT_TANH; act++)
        for (int range = 0; range < 3; range++) {
            float r = (const float[]){1, 6, 40}[range];
            fill(x, N, -r, r);
            fill(bias, N, -0.5f, 0.5f);
            memcpy(y, x, sizeof y);
            y[N] = 77;
            vec->epilogue(y, range ? bias : NULL, (sill__act)act, N);
            CHECK(y[N] == 77);
            for (int i = 0; i < N; i++) {
                float in = range ? x[i] + bias[i] : x[i];
                double want = act_exact((sill__act)act, in), off = fabs(y[i] - want);
                if (!(off <= 8 * ulp(fmax(fabs(want), fabs(in) / 8)) && off <= 2e-6))
                    FAIL("%s: activation %d of %.9g is %.9g, not %.9g", isa->name, act, (double)in, (double)y[i], want);
            }
        }
    /* Small values must not be lost by cancellation, nor anything become NaN far out. */
    float far[5] = {-30, -1000, 1000, 1e30f, -1e30f}, out[5];
    for (int act = SILL__ACT_GELU_TANH; act <= SILL__ACT_TANH; act++) {
        memcpy(out, far, sizeof out);
        vec->epilogue(out, NULL, (sill__act)act, 5);
        for (int i = 0; i < 5; i++) CHECK(out[i] == out[i] && fabsf(out[i]) <= fabsf(far[i]));
    }
}

static void swiglu_and_add(void) {
    for (int n = 1; n < 70; n++) {
        float g[70], u[70], y[70], z[70];
        fill(g, n, -8, 8);
        fill(u, n, -3, 3);
        y[n] = z[n] = 55;
        vec->swiglu(y, g, u, n);
        memcpy(z, g, (size_t)n * sizeof *z);
        vec->add(z, u, n);
        for (int i = 0; i < n; i++) {
            CHECK_NEAR(y[i], act_exact(SILL__ACT_SILU, g[i]) * u[i], 4e-6);
            CHECK(z[i] == g[i] + u[i]);
        }
        CHECK(y[n] == 55 && z[n] == 55);
    }
}

/* ---------------------------------------------------------------------- norms */

static void norms(void) {
    enum { MAX = 1601 };
    static float x[MAX + 1], y[MAX + 1], w[MAX], b[MAX];
    static const int sizes[] = {1, 2, 5, 15, 16, 17, 31, 48, 63, 64, 65, 127, 576, 768, 1601};
    for (size_t k = 0; k < SILL_ARRAY_LEN(sizes); k++)
        for (int rms = 0; rms < 2; rms++) {
            int n = sizes[k];
            double mean = 0, var = 0;
            fill(x, n, -2, 9); /* a mean far from 0, as in GPT-2's residual stream */
            fill(w, n, -1, 2);
            fill(b, n, -1, 1);
            y[n] = 33;
            if (rms) vec->norm_rms(y, x, w, NULL, n, 1e-5f);
            else vec->norm_layer(y, x, w, b, n, 1e-5f);
            for (int i = 0; i < n && !rms; i++) mean += (double)x[i] / n;
            for (int i = 0; i < n; i++) var += (x[i] - mean) * (x[i] - mean) / n;
            for (int i = 0; i < n; i++) {
                double want = (x[i] - mean) / sqrt(var + (double)1e-5f) * w[i] + (rms ? 0 : b[i]);
                CHECK_NEAR(y[i], want, n == 1 ? 1e-5 : 3e-6);
            }
            CHECK(y[n] == 33);
            float *in_place = x; /* y may be x */
            if (rms) vec->norm_rms(in_place, x, w, NULL, n, 1e-5f);
            else vec->norm_layer(in_place, x, w, b, n, 1e-5f);
            CHECK(!memcmp(in_place, y, (size_t)n * sizeof *y));
        }
}

static void rope_both_layouts(void) {
    for (int dims = 2; dims <= 130; dims += 2)
        for (int kind = SILL__ROPE_HALF; kind <= SILL__ROPE_ADJACENT; kind++) {
            float h[136], x[136], c[65], s[65];
            fill(h, 136, -3, 3);
            fill(c, 65, -1, 1);
            fill(s, 65, -1, 1);
            memcpy(x, h, sizeof x);
            vec->rope(h, c, s, dims, (sill__rope_kind)kind);
            for (int i = 0; i < dims / 2; i++) {
                int a = kind == SILL__ROPE_HALF ? i : 2 * i, b = kind == SILL__ROPE_HALF ? i + dims / 2 : 2 * i + 1;
                CHECK_NEAR(h[a], (double)x[a] * c[i] - (double)x[b] * s[i], 1e-6);
                CHECK_NEAR(h[b], (double)x[a] * s[i] + (double)x[b] * c[i], 1e-6);
            }
            CHECK(!memcmp(h + dims, x + dims, (size_t)(136 - dims) * sizeof *h));
        }
}

static void softmax_sums(void) {
    static float x[3000];
    for (int n = 1; n < 3000; n += n < 80 ? 1 : 371) {
        float max, sum;
        double want = 0, top = -INFINITY;
        fill(x, n, -20, 5);
        vec->softmax_stats(x, n, &max, &sum);
        for (int i = 0; i < n; i++) top = fmax(top, x[i]);
        for (int i = 0; i < n; i++) want += exp(x[i] - top);
        CHECK(max == (float)top);
        CHECK_NEAR(sum / want, 1, 4e-6); /* one chain of 3,000 roundings where there are no lanes */
    }
    float none[3] = {-INFINITY, -INFINITY, -INFINITY}, max = 0, sum = 1;
    vec->softmax_stats(none, 3, &max, &sum);
    CHECK(max == -INFINITY && sum == 0);
}

/* ------------------------------------------------------------------ attention */

#define MAX_POSITIONS 150
#define MAX_DIM 128
typedef struct cache {
    sill__kv_type type;
    int dim, n_positions;
    size_t stride, v_at;
    int32_t blocks[MAX_POSITIONS / 32 + 1];
    float k[MAX_POSITIONS][MAX_DIM], v[MAX_POSITIONS][MAX_DIM]; /* as stored: rounded */
    uint8_t *tiles;
    size_t bytes;
} cache;

/* What the cache makes of a head's n values; int8: k's range in 255 steps, v in 127 steps of its largest value. */
static void stored(sill__kv_type type, bool is_k, const float *x, float *out, int n) {
    float low = x[0], high = x[0];
    for (int i = 0; i < n; i++) {
        low = fminf(low, x[i]);
        high = fmaxf(high, x[i]);
    }
    float span = is_k ? high - low : fmaxf(-low, high), inv = span > 0 ? (is_k ? 255 : 127) / span : 0;
    for (int i = 0; i < n; i++) {
        if (type == SILL__KV_F32) out[i] = x[i];
        else if (type == SILL__KV_F16) out[i] = sill__f16_to_f32(sill__f32_to_f16(x[i]));
        else if (is_k) out[i] = low + (128 + rintf(x[i] * inv + (-low * inv - 128))) * (span / 255);
        else out[i] = rintf(x[i] * inv) * (span / 127);
    }
}

/* Blocks in scattered order; what lies behind the last position is NaN, which must never be seen. */
static void make_cache(cache *c, sill__kv_type type, int dim, int n_positions) {
    c->type = type;
    c->dim = dim;
    c->n_positions = n_positions;
    c->v_at = sill__k_tile_bytes(type, dim);
    c->stride = c->v_at + sill__v_tile_bytes(type, dim);
    int n_blocks = (n_positions + 31) / 32;
    c->bytes = c->stride * (size_t)(n_blocks + 2);
    c->tiles = sill__alloc_pages(c->bytes);
    for (int b = 0; b < n_blocks; b++) c->blocks[b] = (b * 7 + 3) % (n_blocks + 2);
    for (int b = 0, used = 0; b < n_blocks; b++) { /* distinct */
        while (used & 1 << c->blocks[b]) c->blocks[b] = (c->blocks[b] + 1) % (n_blocks + 2);
        used |= 1 << c->blocks[b];
    }
    memset(c->tiles, 0xff, c->bytes);
    for (int p = 0; p < n_positions; p++) {
        uint8_t *tile = c->tiles + (size_t)c->blocks[p / 32] * c->stride;
        float k[MAX_DIM], v[MAX_DIM];
        fill(k, dim, -2, 2);
        fill(v, dim, -2, 2);
        if (p % 29 == 5) memset(v, 0, sizeof v);
        if (p % 31 == 7) fill(k, dim, 3, 3); /* all the same */
        stored(type, true, k, c->k[p], dim);
        stored(type, false, v, c->v[p], dim);
        vec->kv_put(type, tile, tile + c->v_at, p % 32, 1, k, v, 0, dim);
    }
}

static void attend_exact(const cache *c, const float *q, int n, float scale, double *out) {
    double score[MAX_POSITIONS], top = -INFINITY, sum = 0;
    for (int p = 0; p < n; p++) {
        score[p] = 0;
        for (int i = 0; i < c->dim; i++) score[p] += (double)q[i] * c->k[p][i];
        score[p] *= scale;
        top = fmax(top, score[p]);
    }
    for (int i = 0; i < c->dim; i++) out[i] = 0;
    for (int p = 0; p < n; p++) {
        double e = exp(score[p] - top);
        sum += e;
        for (int i = 0; i < c->dim; i++) out[i] += e * c->v[p][i];
    }
    for (int i = 0; i < c->dim; i++) out[i] /= sum;
}

static void attention_of_type(sill__kv_type type) {
    enum { MANY = SILL__ATTEND_QUERIES };
    static const int dims[] = {1, 2, 5, 15, 16, 17, 24, 33, 48, 64, 80, 96, 128};
    static const int lengths[] = {1, 31, 32, 33, 64, 97, 150};
    static cache c;
    static float q[MANY][MAX_DIM], alone[MANY][MAX_DIM], together[MANY][MAX_DIM];
    for (size_t d = 0; d < SILL_ARRAY_LEN(dims); d++)
        for (size_t l = 0; l < SILL_ARRAY_LEN(lengths); l++) {
            int dim = dims[d], length = lengths[l];
            float *scratch = sill__alloc_pages(sill__attend_floats(dim) * sizeof(float)), scale = 1 / sqrtf((float)dim);
            const float *in[MANY];
            float *out1[MANY], *out2[MANY];
            int32_t n[MANY];
            double want[MAX_DIM];
            make_cache(&c, type, dim, length);
            sill__attend a = {type, c.tiles, c.stride, c.v_at, c.blocks, dim, scale, scratch, NULL};
            for (int i = 0; i < MANY; i++) {
                fill(q[i], dim, -3, 3);
                in[i] = q[i];
                out1[i] = alone[i];
                out2[i] = together[i];
                n[i] = SILL_MAX(1, length - (i * 5) % 23); /* ragged, as at the diagonal */
                vec->attend(&a, 1, &out1[i], &in[i], &n[i]);
                attend_exact(&c, q[i], n[i], scale, want);
                for (int k = 0; k < dim; k++) CHECK_NEAR(alone[i][k], want[k], 4e-6);
            }
            for (int many = 2; many <= MANY; many += 7) {
                memset(together, 0x55, sizeof together);
                vec->attend(&a, many, out2, in, n);
                for (int i = 0; i < many; i++)
                    if (memcmp(together[i], alone[i], (size_t)dim * sizeof(float)))
                        FAIL("%s: query %d of %d has other bits than alone (head_dim %d, %d positions)", isa->name, i,
                             many, dim, n[i]);
            }
            for (int i = 0; i < MANY; i++) n[i] = length; /* queries of a group of heads */
            for (int i = 0; i < MANY; i++) vec->attend(&a, 1, &out1[i], &in[i], &n[i]);
            vec->attend(&a, MANY, out2, in, n);
            for (int i = 0; i < MANY; i++) CHECK(!memcmp(together[i], alone[i], (size_t)dim * sizeof(float)));
            sill__free_pages(scratch, sill__attend_floats(dim) * sizeof(float));
            sill__free_pages(c.tiles, c.bytes);
        }
}

static void attention_f32(void) { attention_of_type(SILL__KV_F32); }
static void attention_f16(void) { attention_of_type(SILL__KV_F16); }
static void attention_int8(void) { attention_of_type(SILL__KV_I8); }

/* The codes, scales and offsets of one position are a function of its values alone, bit for bit those of their definition,
 * and nothing is off by more than half a step. What is not finite is not lost. */
static void kv_int8_codes(void) {
    static const float sizes[] = {1, 3e-39f, 1e-31f, 1e-20f, 70000, 1e30f};
    enum { DIM = 37, MAX = 48 };
    for (size_t s = 0; s < SILL_ARRAY_LEN(sizes); s++)
        for (int slot = 0; slot < 32; slot += 31) {
            _Alignas(64) uint8_t k_tile[DIM * 32 + 256], v_tile[MAX * 32 + 128];
            float k[DIM], v[DIM], low = INFINITY, high = -INFINITY, scale, offset, v_scale;
            memset(k_tile, 0x5a, sizeof k_tile);
            memset(v_tile, 0x5a, sizeof v_tile);
            fill(k, DIM, -0.5f * sizes[s], sizes[s]);
            for (int i = 0; i < DIM; i++) v[i] = -k[i];
            vec->kv_put(SILL__KV_I8, k_tile, v_tile, slot, 1, k, v, 0, DIM);
            for (int i = 0; i < DIM; i++) low = fminf(low, k[i]), high = fmaxf(high, k[i]);
            float span = high - low, inv = span > 1e-30f ? 255 / span : 0, amax = fmaxf(-low, high);
            float v_inv = amax > 1e-30f ? 127 / amax : 0;
            memcpy(&scale, k_tile + DIM * 32 + 4 * slot, 4);
            memcpy(&offset, k_tile + DIM * 32 + 128 + 4 * slot, 4);
            memcpy(&v_scale, v_tile + MAX * 32 + 4 * slot, 4);
            CHECK(scale == span / 255 && offset == low + 128 * scale && v_scale == amax / 127);
            for (int i = 0; i < DIM; i++) {
                int a = (int8_t)k_tile[i * 32 + slot], b = (int8_t)v_tile[slot * MAX + i];
                double step = scale, off = fabs((double)offset + step * a - k[i]);
                CHECK_INT(a, (int)rintf(k[i] * inv + (-low * inv - 128)));
                CHECK_INT(b, (int)rintf(v[i] * v_inv));
                CHECK(span <= 1e-30f ? off <= 1e-30 : off <= 0.501 * step);
                CHECK(amax <= 1e-30f || fabs((double)v_scale * b - v[i]) <= 0.5001 * (double)v_scale);
                CHECK(k_tile[i * 32 + (slot + 1) % 32] == 0x5a); /* nobody else's */
            }
            for (int bad = 0; bad < 3; bad++) {
                float kept = k[bad * 13], both[2];
                k[bad * 13] = bad == 0 ? NAN : bad == 1 ? INFINITY : -INFINITY;
                vec->kv_put(SILL__KV_I8, k_tile, v_tile, slot, 1, k, k, 0, DIM);
                memcpy(&both[0], k_tile + DIM * 32 + 4 * slot, 4);
                memcpy(&both[1], v_tile + MAX * 32 + 4 * slot, 4);
                CHECK(both[0] != both[0] && both[1] != both[1]);
                k[bad * 13] = kept;
            }
        }
}

/* Positions written together lie as those written one by one, and nothing beside them is touched. */
static void kv_positions_together(void) {
    enum { MAX = 80, LD = 100 };
    static float k[32 * LD], v[32 * LD];
    static const int dims[] = {1, 5, 16, 24, 40, 64, 80};
    for (int type = SILL__KV_F32; type <= SILL__KV_I8; type++)
        for (size_t d = 0; d < SILL_ARRAY_LEN(dims); d++)
            for (int slot = 0; slot < 32; slot += 7)
                for (int n = 1; slot + n <= 32; n += 5) {
                    _Alignas(64) static uint8_t one[2][32 * (MAX * 4 + 8)], all[2][32 * (MAX * 4 + 8)];
                    fill(k, 32 * LD, -2, 2);
                    fill(v, 32 * LD, -2, 2);
                    memset(one, 0x5a, sizeof one);
                    memset(all, 0x5a, sizeof all);
                    for (int p = 0; p < n; p++)
                        vec->kv_put((sill__kv_type)type, one[0], one[1], slot + p, 1, k + p * LD, v + p * LD, 0, dims[d]);
                    vec->kv_put((sill__kv_type)type, all[0], all[1], slot, n, k, v, LD, dims[d]);
                    CHECK(!memcmp(one, all, sizeof one));
                    if (type == SILL__KV_F32) CHECK(!memcmp((float *)(void *)all[1] + slot * (int)sill__kv_dim(dims[d]), v, 4 * (size_t)dims[d]));
                }
}

/* A fork inside a block sees its own positions only: the rest of the block does not matter. */
static void attention_sees_only_its_positions(void) {
    static cache c;
    enum { DIM = 24, N = 70 };
    float *scratch = sill__alloc_pages(sill__attend_floats(DIM) * sizeof(float)), q[DIM], before[DIM], after[DIM];
    for (int type = SILL__KV_F32; type <= SILL__KV_I8; type++) {
        make_cache(&c, (sill__kv_type)type, DIM, 96);
        sill__attend a = {(sill__kv_type)type, c.tiles, c.stride, c.v_at, c.blocks, DIM, 0.2f, scratch, NULL};
        const float *in = q;
        float *out = before;
        int32_t n = N;
        fill(q, DIM, -3, 3);
        vec->attend(&a, 1, &out, &in, &n);
        for (int p = N; p < 96; p++) {
            uint8_t *tile = c.tiles + (size_t)c.blocks[p / 32] * c.stride;
            float junk[DIM];
            for (int i = 0; i < DIM; i++) junk[i] = i % 2 ? INFINITY : NAN;
            vec->kv_put((sill__kv_type)type, tile, tile + c.v_at, p % 32, 1, junk, junk, 0, DIM);
        }
        out = after;
        vec->attend(&a, 1, &out, &in, &n);
        CHECK(!memcmp(before, after, sizeof before));
        sill__free_pages(c.tiles, c.bytes);
    }
    sill__free_pages(scratch, sill__attend_floats(DIM) * sizeof(float));
}

/* Runs one test under every instruction set that the machine has, as a test of its own name. */
#define EACH_ISA(fn)                                                                                                   \
    do {                                                                                                               \
        for (int i_ = 0; sill__cpu_isas[i_]; i_++) {                                                                   \
            char name_[96];                                                                                            \
            isa = sill__cpu_isas[i_];                                                                                  \
            vec = isa->vec;                                                                                            \
            snprintf(name_, sizeof name_, "vec_" #fn "_%s", isa->name);                                                \
            if (argc > 1 && strcmp(argv[1], name_)) continue;                                                          \
            test_failures = 0;                                                                                         \
            if (!isa->available()) {                                                                                   \
                printf("SKIP %s: this processor lacks it\n", name_);                                                   \
                continue;                                                                                              \
            }                                                                                                          \
            fn();                                                                                                      \
            if (test_failures) test_bad++;                                                                             \
            if (test_failures) printf("FAIL %s (%d checks)\n", name_, test_failures);                                  \
            else printf("PASS %s\n", name_);                                                                           \
            fflush(stdout);                                                                                            \
        }                                                                                                              \
    } while (0)

int main(int argc, char **argv) {
    (void)test_skipped;
    EACH_ISA(exp_within_2_ulp);
    EACH_ISA(activations);
    EACH_ISA(swiglu_and_add);
    EACH_ISA(norms);
    EACH_ISA(rope_both_layouts);
    EACH_ISA(softmax_sums);
    EACH_ISA(attention_f32);
    EACH_ISA(attention_f16);
    EACH_ISA(attention_int8);
    EACH_ISA(kv_int8_codes);
    EACH_ISA(kv_positions_together);
    EACH_ISA(attention_sees_only_its_positions);
    TEST_EXIT();
}
