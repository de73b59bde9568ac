/* bench_out.c - measurements as a Markdown table, CSV or JSON Lines, with the machine, the commit and the model's hash. */
#include "bench.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>
#ifdef __APPLE__
#include <sys/sysctl.h>
#endif

#include "build_info.h"
#include "task/quantize.h"

static int cannot_write(const char *file, const char *why) {
    fprintf(stderr, "sill: error: cannot write %s: %s\n", file, why);
    return EXIT_FAILED;
}

/* A file is written beside its place, with the rights of the one it replaces; a device or a pipe is written to. */
static int open_file(bench_out *out, const char *file, bool overwrite) {
    struct stat st;
    const bool exists = stat(file, &st) == 0;
    if (exists && S_ISDIR(st.st_mode)) return args_usage("bench", "%s is a directory", file);
    if (exists && !overwrite) return args_usage("bench", "%s exists; --overwrite replaces it", file);
    if (exists && access(file, W_OK) != 0) return cannot_write(file, strerror(errno));
    if (exists && !S_ISREG(st.st_mode)) {
        out->to = fopen(file, "w");
        return out->to ? -1 : cannot_write(file, strerror(errno));
    }
    char *target = exists ? realpath(file, NULL) : NULL; /* of a link, the file that it leads to */
    const int n = snprintf(out->path, sizeof out->path, "%s", target ? target : file);
    free(target);
    if (n < 0 || (size_t)n >= sizeof out->path) return cannot_write(file, strerror(ENAMETOOLONG));
    snprintf(out->temp, sizeof out->temp, "%s.partial-XXXXXX", out->path);
    const mode_t mask = umask(0);
    umask(mask);
    int fd = mkstemp(out->temp);
    if (fd < 0) return cannot_write(file, strerror(errno));
    if (fchmod(fd, exists ? st.st_mode & 0777 : 0666 & ~mask) == 0 && fcntl(fd, F_SETFD, FD_CLOEXEC) == 0 && (out->to = fdopen(fd, "w")))
        return -1;
    const int why = errno;
    close(fd);
    unlink(out->temp);
    return cannot_write(file, strerror(why));
}

int bench_out_open(bench_out *out, const bench_options *o) {
    static const char *const names[] = {"md", "csv", "jsonl"};
    const char *file = o->output;
    memset(out, 0, sizeof *out);
    out->to = stdout;
    out->format = o->format ? o->format : BENCH_MD;
    if (!file || !strcmp(file, "-")) return -1;
    const char *dot = strrchr(file, '.');
    for (int i = 0; i < 3; i++) {
        if (!strcmp(file, names[i])) { /* -o jsonl: that form, on standard output */
            if (o->format && o->format != i + 1) return args_usage("bench", "-o %s and --format %s exclude each other", file, names[o->format - 1]);
            out->format = i + 1;
            return -1;
        }
        if (!o->format && dot && !strcmp(dot + 1, names[i])) out->format = i + 1;
    }
    if (!o->format && !strpbrk(file, "./"))
        return args_usage("bench", "-o %.60s is none of md, csv, jsonl; for a file of that name give --format too, or ./%.60s", file, file);
    return open_file(out, file, o->overwrite);
}

/* The processor as it calls itself, its cores and memory. */
static void describe_machine(char *out, size_t cap) {
    char name[96] = "";
    struct utsname system;
#ifdef __APPLE__
    size_t size = sizeof name;
    if (sysctlbyname("machdep.cpu.brand_string", name, &size, NULL, 0) != 0) name[0] = 0;
#else
    char line[256];
    FILE *f = fopen("/proc/cpuinfo", "r");
    while (f && !name[0] && fgets(line, sizeof line, f)) {
        const char *colon = strchr(line, ':');
        if (!strncmp(line, "model name", 10) && colon) snprintf(name, sizeof name, "%.*s", (int)strcspn(colon + 2, "\n"), colon + 2);
    }
    if (f) fclose(f);
#endif
    if (!name[0] && uname(&system) == 0) snprintf(name, sizeof name, "%.60s", system.machine);
    double bytes = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
    snprintf(out, cap, "%s, %d cores, %.0f GiB", name, sill__n_cores(), bytes / 1073741824.0);
}

static sill_status hash_model(const char *path, char out[65], sill_error *err) {
    const size_t step = (size_t)4 << 20;
    sill__file *file;
    sill__map map = {0};
    sill__sha256 sha;
    uint8_t digest[32];
    sill_status s = sill__file_open(path, &file, err);
    if (s != SILL_OK) return s;
    s = sill__map_open(sill__file_path(file), &map, err);
    sill__sha256_init(&sha);
    for (size_t at = 0; s == SILL_OK && at < map.bytes; at += step) {
        sill__sha256_update(&sha, map.data + at, SILL_MIN(step, map.bytes - at));
        if (cli_stop) s = sill__fail(err, SILL_ECANCELLED, "interrupted");
    }
    sill__sha256_final(&sha, digest);
    sill__sha256_hex(digest, out);
    sill__map_close(&map);
    sill__file_close(file);
    return s;
}

sill_status bench_out_describe(bench_out *out, const cli_engine *engine, bool hash, sill_error *err) {
    size_t n = strlen(engine->path);
    while (n > 1 && engine->path[n - 1] == '/') n--;
    size_t from = n;
    while (from && engine->path[from - 1] != '/') from--;
    snprintf(out->model, sizeof out->model, "%.*s", (int)SILL_MIN(n - from, (size_t)255), engine->path + from);
    snprintf(out->device, sizeof out->device, "%s", engine->info.device);
    snprintf(out->dtype, sizeof out->dtype, "%s", engine->info.dtype);
    out->threads = engine->info.n_threads;
    describe_machine(out->machine, sizeof out->machine);
    return hash ? hash_model(engine->path, out->sha256, err) : SILL_OK;
}

/* ---- rows */

/* The columns in their order: X(name, kind, value). Kinds: s text, i a whole number or nothing below 0, d a number. */
#define COLUMNS(X)                                                                                                     \
    X("test", s, r->test) X("model", s, o->model) X("device", s, o->device) X("dtype", s, o->dtype)                    \
    X("threads", i, o->threads) X("batch", i, r->batch) X("n_prompt", i, r->n_prompt) X("n_gen", i, r->n_gen)          \
    X("value", d, r->value) X("unit", s, r->unit) X("mean", d, r->mean) X("spread", d, r->spread) X("reps", i, r->reps) \
    X("tokens_per_s", d, r->tokens_per_s) X("bandwidth_share", d, r->bandwidth_share) X("peak_share", d, r->peak_share) \
    X("commit", s, SILL_BUILD_COMMIT) X("version", s, sill_version()) X("machine", s, o->machine)                      \
    X("model_sha256", s, o->sha256)

static void json_s(sill__str *s, const char *v) { sill__put_json_string(s, v, strlen(v)); }
static void json_i(sill__str *s, int64_t v) {
    if (v >= 0) sill__str_putf(s, "%lld", (long long)v);
    else sill__str_puts(s, "null");
}
static void json_d(sill__str *s, double v) {
    if (isfinite(v)) sill__str_putf(s, "%.6g", v);
    else sill__str_puts(s, "null");
}
static void csv_s(sill__str *s, const char *v) {
    if (!v[strcspn(v, ",\"\r\n")]) {
        sill__str_puts(s, v);
        return;
    }
    sill__str_puts(s, "\"");
    for (; *v; v++) {
        if (*v == '"') sill__str_puts(s, "\"");
        sill__str_put(s, v, 1);
    }
    sill__str_puts(s, "\"");
}
static void csv_i(sill__str *s, int64_t v) {
    if (v >= 0) sill__str_putf(s, "%lld", (long long)v);
}
static void csv_d(sill__str *s, double v) {
    if (isfinite(v)) sill__str_putf(s, "%.6g", v);
}

/* A number as people read it: four figures. */
static void show(char *out, size_t cap, double v, const char *unit) {
    if (!isfinite(v)) snprintf(out, cap, " ");
    else snprintf(out, cap, "%.*f%s%s", fabs(v) < 1 ? 4 : fabs(v) < 10 ? 3 : fabs(v) < 100 ? 2 : fabs(v) < 1000 ? 1 : 0, v,
                  *unit ? " " : "", unit);
}

static void show_share(char *out, size_t cap, double v) {
    if (isfinite(v)) snprintf(out, cap, "%.0f %%", v * 100);
    else snprintf(out, cap, " ");
}

static void md_row(bench_out *o, const bench_row *r) {
    char value[48], mean[48], spread[16], band[16], peak[16], size[3][16];
    const int32_t sizes[3] = {r->batch, r->n_prompt, r->n_gen};
    if (!o->n_rows) {
        fprintf(o->to, "%s, %s on %s, %d threads; %s; sill %s (%s)\n\n", o->model, o->dtype, o->device, (int)o->threads, o->machine,
                sill_version(), SILL_BUILD_COMMIT);
        if (o->sha256[0]) fprintf(o->to, "sha256 of the model: %s\n\n", o->sha256);
        fprintf(o->to, "| test | batch | prompt | new | best | mean | spread | of bandwidth | of peak |\n"
                       "| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n");
    }
    for (int i = 0; i < 3; i++) {
        if (sizes[i] >= 0) snprintf(size[i], sizeof size[i], "%d", (int)sizes[i]);
        else snprintf(size[i], sizeof size[i], " ");
    }
    show(value, sizeof value, r->value, r->unit);
    show(mean, sizeof mean, r->mean, "");
    show_share(spread, sizeof spread, r->spread);
    show_share(band, sizeof band, r->bandwidth_share);
    show_share(peak, sizeof peak, r->peak_share);
    fprintf(o->to, "| %s | %s | %s | %s | %s | %s | %s | %s | %s |\n", r->test, size[0], size[1], size[2], value, mean, spread, band, peak);
}

void bench_out_row(bench_out *o, const bench_row *r) {
    sill__str s;
    sill__str_init(&s, 1 << 16);
    if (o->format == BENCH_MD) {
        md_row(o, r);
    } else if (o->format == BENCH_JSONL) {
#define X(name, kind, v) sill__str_puts(&s, s.n ? ",\"" name "\":" : "{\"" name "\":"); json_##kind(&s, v);
        COLUMNS(X)
#undef X
        sill__str_puts(&s, "}\n");
    } else {
        if (!o->n_rows) {
#define X(name, kind, v) sill__str_puts(&s, s.n ? "," name : name);
            COLUMNS(X)
#undef X
            sill__str_puts(&s, "\n");
        }
        size_t start = s.n;
#define X(name, kind, v) if (s.n > start) sill__str_puts(&s, ","); csv_##kind(&s, v);
        COLUMNS(X)
#undef X
        sill__str_puts(&s, "\n");
    }
    if (s.n) fwrite(s.p, 1, s.n, o->to);
    sill__str_free(&s);
    fflush(o->to);
    o->n_rows++;
}

sill_status bench_out_check(const bench_out *out, const sill__file *model, sill_error *err) {
    const sill__output_reads reads = {.file = model};
    struct stat st;
    const char *what = out->path[0] && stat(out->path, &st) == 0 ? sill__output_is_read(&reads, &st) : NULL;
    return what ? sill__fail(err, SILL_EINVAL, "%s is %s; name another output", out->path, what) : SILL_OK;
}

int bench_out_close(bench_out *o, bool keep) {
    if (o->to == stdout) return cli_flush_stdout();
    int why = ferror(o->to) ? EIO : 0;
    if (fclose(o->to) != 0) why = errno;
    if (!why && keep && o->temp[0] && rename(o->temp, o->path) != 0) why = errno;
    if (o->temp[0] && (why || !keep)) unlink(o->temp);
    return why ? cannot_write(o->path[0] ? o->path : "the results", strerror(why)) : EXIT_OK;
}
