/*
 * keep.c - a corpus run into a file: begun, gone on with, found finished, or refused. Whatever moment it is killed at, the same
 * command comes to the same bytes:
 *  - while it runs, finished rows are in OUT.journal; OUT.partial is written from the start each time, in the input's order;
 *  - at the end OUT.partial becomes OUT, then OUT.run.json is written, then the journal goes. As long as there is a journal, the
 *    output is made again from it.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "record.h"

/* ---- what is there already */

/* Reads what is left of the input, for its digest. */
static sill_status digest_input(cli_run *run, uint64_t *n, char out[65], sill_error *err) {
    sill__corpus_row *row;
    sill__sha256 sha;
    uint8_t digest[32];
    *n = 0;
    sill__sha256_init(&sha);
    for (;;) {
        sill_status s = sill__reader_next(run->reader, &row, err);
        if (s != SILL_OK) return s;
        if (!row) break;
        sill__row_digest(row, digest);
        sill__sha256_update(&sha, digest, sizeof digest);
        sill__row_free(row);
        ++*n;
    }
    sill__sha256_final(&sha, digest);
    sill__sha256_hex(digest, out);
    return SILL_OK;
}

/* The output is there and finished: of this very run, or refused. */
static sill_status compare_finished(cli_run *run, const cli_record *r, sill_error *err) {
    char what[1024], sha[65];
    uint64_t n;
    struct stat st;
    const char *out = run->options->output;
    if (cli_settings_differ(&r->settings, &run->settings, what, sizeof what))
        return sill__fail(err, SILL_EINVAL, "%s exists, and is of another configuration: %s; --overwrite replaces it", out, what);
    if (stat(run->target, &st) != 0 || (uint64_t)st.st_size != r->output_bytes)
        return sill__fail(err, SILL_EINVAL, "%s exists, and was changed since its run; --overwrite replaces it", out);
    sill_status s = digest_input(run, &n, sha, err);
    if (s != SILL_OK) return s;
    if (n != r->input_rows || strcmp(sha, r->input_sha256))
        return sill__fail(err, SILL_EINVAL, "%s exists, and is of another input (%llu rows then, %llu now%s); --overwrite replaces it", out,
                          (unsigned long long)r->input_rows, (unsigned long long)n, n == r->input_rows ? ", and their contents differ" : "");
    if (strcmp(cli_identity_sha256(run->identity), r->model_sha256))
        return sill__fail(err, SILL_EINVAL, "%s exists, and is of another model (SHA-256 %.12s... then, %.12s... now); --overwrite "
                          "replaces it", out, r->model_sha256, cli_identity_sha256(run->identity));
    return SILL_OK;
}

static int answer_finished(cli_run *run) {
    sill_error err = {0};
    cli_record r;
    char *path = cli_record_path(run->target);
    sill_status s = path ? cli_record_read(path, &r, &err) : sill__fail(&err, SILL_ENOMEM, "no memory for a record");
    sill__free(path);
    if (s == SILL_ENOENT) return args_usage(run->command, "%s exists; --overwrite replaces it", run->options->output);
    if (s == SILL_OK) {
        s = compare_finished(run, &r, &err);
        int status = r.failed ? EXIT_ROWS : EXIT_OK;
        if (s == SILL_OK)
            cli_say("%s is finished: %llu rows%s, of %s; --overwrite computes it again", run->options->output, (unsigned long long)r.rows,
                    r.failed ? " (some failed)" : "", r.finished);
        cli_record_free(&r);
        if (s == SILL_OK) return status;
    }
    int status = cli_fail(&err);
    return s == SILL_EINVAL ? EXIT_USAGE : status;
}

/* ---- opening */

static sill_status check_model(cli_run *run, sill_error *err) {
    const char *was_id, *was = cli_journal_model(run->journal, &was_id), *id = cli_identity_id(run->identity);
    if (!strcmp(was_id, id)) return SILL_OK;
    if (was[0] && !strcmp(was, cli_identity_sha256(run->identity))) return SILL_OK; /* the same files in another place */
    return sill__fail(err, SILL_EINVAL, "%s.journal keeps rows of another model, or its files were changed or moved since%s; give the earlier "
                      "one to go on, or --overwrite to begin again", run->target, was[0] ? "" : " (before their SHA-256 was known)");
}

static sill_status open_journal(cli_run *run, sill_error *err) {
    const cli_corpus_options *o = run->options;
    cli_journal_options jo = {.target = run->target, .settings = &run->settings, .model_id = cli_identity_id(run->identity),
                              .tokens = &run->tokens, .long_rows = &run->long_rows, .overwrite = o->overwrite, .rows = o->journal_rows};
    sill_status s = cli_journal_open(&jo, &run->journal, err);
    if (s == SILL_OK && cli_journal_get_past(run->journal).resumed && (s = check_model(run, err)) != SILL_OK && o->overwrite) {
        cli_journal_close(run->journal, true);
        s = cli_journal_open(&jo, &run->journal, err);
    }
    return s;
}

int cli_keep_open(cli_run *run, const char *const *fields, size_t n_fields) {
    sill_error err = {0};
    if (!run->target && !cli_replay.rows) return -1;
    cli_record_settings(run, fields, n_fields);
    run->identity = cli_identity_start(run->engine->path, run->engine->tokenizer, &cli_stop);
    if (run->settings.failed || !run->identity) {
        sill__fail(&err, SILL_ENOMEM, "no memory to keep rows");
        return cli_fail(&err);
    }
    if (cli_replay.rows) {
        cli_replay.settings = run->settings;
        memset(&run->settings, 0, sizeof run->settings);
        return -1;
    }
    sill_status s = cli_lock_take(&run->lock, run->target, &err);
    if (s == SILL_OK && sill__is_file(run->target) && !cli_journal_exists(run->target) && !run->options->overwrite) return answer_finished(run);
    if (s == SILL_OK) s = open_journal(run, &err);
    if (s != SILL_OK) {
        int status = cli_fail(&err);
        return s == SILL_EINVAL ? EXIT_USAGE : status;
    }
    cli_journal_past past = cli_journal_get_past(run->journal);
    run->long_before = past.long_rows;
    if (past.resumed) cli_say("goes on: %llu finished rows are in %s.journal", (unsigned long long)past.rows, run->target);
    return -1;
}

/* ---- while it runs, and the end */

static sill_status keep_model(cli_run *run, sill_error *err) {
    if (run->model_kept) return SILL_OK;
    const char *sha = cli_identity_sha256(run->identity);
    if (!sha[0]) return SILL_OK; /* could not be read, or was interrupted */
    run->model_kept = true;
    return cli_journal_set_model(run->journal, cli_identity_id(run->identity), sha, err);
}

void cli_keep_tick(cli_run *run) {
    sill_error err = {0};
    if (run->journal && !run->model_kept && cli_identity_ready(run->identity)) (void)keep_model(run, &err); /* the next write says what is wrong */
}

sill_status cli_keep_finish(cli_run *run, sill_error *err) {
    cli_record r;
    double seconds = sill__now() - run->started;
    if (!run->journal) return sill__writer_finish(run->writer, err);
    uint64_t unseen = run->options->overwrite ? 0 : cli_journal_unseen(run->journal);
    if (unseen)
        return sill__fail(err, SILL_EINVAL, "the input is shorter than it was: it does not have %llu of the rows in %s.journal; bring it "
                          "back, or give --overwrite for the rows that are left", (unsigned long long)unseen, run->target);
    sill_status s = keep_model(run, err);
    if (s == SILL_OK) s = cli_journal_save(run->journal, err);
    if (s == SILL_OK && !cli_identity_sha256(run->identity)[0])
        s = cli_stop ? sill__fail(err, SILL_ECANCELLED, "interrupted") : sill__fail(err, SILL_EIO, "%s: the model's files cannot be read, or "
                                                                                    "were changed while it ran", run->engine->path);
    if (s == SILL_OK) s = sill__writer_finish(run->writer, err);
    if (s == SILL_OK) s = cli_record_of_run(run, seconds, &r, err);
    if (s != SILL_OK) return s;
    char *path = cli_record_path(run->target);
    s = path ? cli_record_write(path, &r, err) : sill__fail(err, SILL_ENOMEM, "no memory for a record");
    sill__free(path);
    cli_record_free(&r);
    if (s != SILL_OK) return s;
    cli_journal_close(run->journal, true);
    run->journal = NULL;
    return SILL_OK;
}

sill_status cli_keep_save(cli_run *run, sill_error *err) {
    return run->journal ? cli_journal_save(run->journal, err) : SILL_OK;
}

/* A journal without rows only says that OUT.partial, if there is one, is this run's. */
static bool is_worthless(const cli_run *run) {
    sill__str partial;
    if (!run->journal || cli_journal_rows(run->journal) || cli_journal_get_past(run->journal).resumed) return false;
    sill__str_init(&partial, 65536);
    bool left = run->opened && sill__str_putf(&partial, "%s.partial", run->target) && sill__is_file(partial.p);
    sill__str_free(&partial);
    return !left;
}

void cli_keep_free(cli_run *run) {
    cli_journal_close(run->journal, is_worthless(run));
    run->journal = NULL;
    cli_lock_drop(&run->lock);
    cli_identity_free(run->identity);
    run->identity = NULL;
    cli_settings_free(&run->settings);
    sill__free(run->target);
    run->target = NULL;
}
