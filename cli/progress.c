/* progress.c - how far a run is: a bar on a terminal, else a line now and then; nothing with --quiet. */
#include <string.h>
#include <unistd.h>

#include "common.h"

#define EVERY 30.0

void cli_progress_begin(cli_run *run) {
    cli_progress *p = &run->progress;
    const cli_corpus_options *o = run->options;
    bool to_file = o->output && strcmp(o->output, "-") != 0, terminal = cli_is_terminal(stderr);
    p->running = !cli_general.quiet && !cli_replay.rows && (to_file || !cli_is_terminal(stdout));
    p->bar = p->running && terminal;
    p->every = p->bar ? 0.1 : o->progress > 0 ? (double)o->progress : EVERY;
    p->started = p->last = sill__now();
    p->first_share = -1;
}

static void put_left(char *out, size_t cap, double seconds) {
    if (seconds < 100) snprintf(out, cap, "%.0f s", seconds);
    else if (seconds < 5400) snprintf(out, cap, "%.0f min", seconds / 60);
    else snprintf(out, cap, "%.1f h", seconds / 3600);
}

void cli_progress_tick(cli_run *run) {
    cli_progress *p = &run->progress;
    if (!p->running) return;
    double now = sill__now();
    sill__flow_counts c = sill__flow_get_counts(run->flow);
    sill__reader_stats stats = sill__reader_get_stats(run->reader);
    double share = stats.bytes_total ? SILL_MIN(1.0, (double)stats.bytes_done / (double)stats.bytes_total) : 0;
    share *= c.rows ? (double)c.written / (double)c.rows : 0; /* the reader is ahead by rows that are not finished */
    if (p->first_share < 0 && c.rows > c.kept) { /* what was there already took no time */
        p->first_share = c.kept ? share : 0;
        p->started = now;
    }
    if (now - p->last < p->every) return;
    p->last = now;
    double seconds = now - p->started;
    char line[256], left[32];
    size_t n = (size_t)snprintf(line, sizeof line, "%s: %llu rows", run->command, (unsigned long long)c.written);
    if (c.failed) n += (size_t)snprintf(line + n, sizeof line - n, ", %llu failed", (unsigned long long)c.failed);
    if (seconds > 0 && c.written >= c.kept) n += (size_t)snprintf(line + n, sizeof line - n, ", %.1f rows/s", (double)(c.written - c.kept) / seconds);
    if (seconds > 0 && run->tokens) n += (size_t)snprintf(line + n, sizeof line - n, ", %.0f tokens/s", (double)run->tokens / seconds);
    double done = share - SILL_MAX(0.0, p->first_share);
    if (done > 0.005) {
        int cells = (int)(share * 20);
        put_left(left, sizeof left, seconds * (1 - share) / done);
        if (p->bar) n += (size_t)snprintf(line + n, sizeof line - n, " [%.*s%*s]", cells, "####################", 20 - cells, "");
        n += (size_t)snprintf(line + n, sizeof line - n, "%s %.0f %%, %s left", p->bar ? "" : ",", share * 100, left);
    }
    if (p->bar) fprintf(stderr, "\r\033[K%s", line);
    else fprintf(stderr, "sill: %s\n", line);
    fflush(stderr);
}

void cli_progress_end(cli_run *run) {
    if (run->progress.bar) fputs("\r\033[K", stderr);
    run->progress.running = false;
}
