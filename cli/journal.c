/*
 * journal.c - OUT.journal, an SQLite database of the rows that are finished: number, digest of the row's contents, results as
 * they are written. Rows with the same contents stay apart by their numbers; all are of the one configuration that is kept
 * beside them.
 *  - One process uses it, with the lock of lock.c held. SQLite's own locks are left out (VFS "unix-none"): network file systems
 *    of clusters often have none. A rollback journal and synchronous=FULL, since WAL needs shared memory.
 *  - Rows go into a transaction as they finish, in whatever order, and it is committed about once a second, but never for more
 *    than a fiftieth of the time: what a kill costs is what finished since.
 */
#include "journal.h"

#if defined(__has_include)
#if !__has_include(<sqlite3.h>)
#error "sqlite3.h is missing: tools/deps.sh installs it (Debian: libsqlite3-dev)"
#endif
#endif
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define APPLICATION 0x73696c6c /* "sill", in the header of the file */
#define LAYOUT 1
#define SAVE_SECONDS 1.0
#define SAVE_SHARE 50      /* a commit took this part of the time at most */
#define SAVE_BYTES ((size_t)64 << 20)

struct cli_journal {
    sqlite3 *db;
    sqlite3_stmt *get, *put;
    char *path;
    bool overwrite, open, broken; /* open: inside a transaction */
    int32_t every;
    uint64_t rows, unsaved, last, on_disk, seen;
    size_t unsaved_bytes;
    double opened;
    double saved, cost;       /* when the last commit was over, and how long it took */
    const uint64_t *tokens, *long_rows;
    cli_journal_past past;
    char model[65], *model_id;
    sill__store store;
};

static sill_status fail(cli_journal *j, sill_error *err) {
    int code = j->db ? sqlite3_errcode(j->db) : SQLITE_NOMEM;
    j->broken = true;
    if (code == SQLITE_NOTADB || code == SQLITE_CORRUPT)
        return sill__fail(err, SILL_EIO, "%s is damaged, or no journal of sill (%s); move it away to begin again", j->path, sqlite3_errmsg(j->db));
    return sill__fail(err, code == SQLITE_NOMEM ? SILL_ENOMEM : SILL_EIO, "%s: %s", j->path, j->db ? sqlite3_errmsg(j->db) : "no memory");
}

static sill_status run(cli_journal *j, const char *sql, sill_error *err) {
    return sqlite3_exec(j->db, sql, NULL, NULL, NULL) == SQLITE_OK ? SILL_OK : fail(j, err);
}

static sill_status number(cli_journal *j, const char *sql, int64_t *out, sill_error *err) {
    sqlite3_stmt *q = NULL;
    *out = 0;
    bool ok = sqlite3_prepare_v2(j->db, sql, -1, &q, NULL) == SQLITE_OK && sqlite3_step(q) == SQLITE_ROW;
    if (ok) *out = sqlite3_column_int64(q, 0);
    sill_status s = ok ? SILL_OK : fail(j, err);
    sqlite3_finalize(q);
    return s;
}

/* ---- settings and facts: table (kind, name, value) */

static sill_status put_fact(cli_journal *j, const char *kind, const char *name, const char *value, sill_error *err) {
    sqlite3_stmt *q = NULL;
    bool ok = sqlite3_prepare_v2(j->db, "INSERT OR REPLACE INTO facts VALUES (?1, ?2, ?3)", -1, &q, NULL) == SQLITE_OK &&
              sqlite3_bind_text(q, 1, kind, -1, SQLITE_STATIC) == SQLITE_OK && sqlite3_bind_text(q, 2, name, -1, SQLITE_STATIC) == SQLITE_OK &&
              sqlite3_bind_text(q, 3, value, -1, SQLITE_STATIC) == SQLITE_OK && sqlite3_step(q) == SQLITE_DONE;
    sill_status s = ok ? SILL_OK : fail(j, err);
    sqlite3_finalize(q);
    return s;
}

static sill_status put_count(cli_journal *j, const char *name, uint64_t value, sill_error *err) {
    char text[32];
    snprintf(text, sizeof text, "%llu", (unsigned long long)value);
    return put_fact(j, "fact", name, text, err);
}

static void take_fact(cli_journal *j, const char *name, const char *value) {
    if (!strcmp(name, "model_sha256")) snprintf(j->model, sizeof j->model, "%s", value);
    else if (!strcmp(name, "started")) snprintf(j->past.started, sizeof j->past.started, "%s", value);
    else if (!strcmp(name, "seconds")) j->past.seconds = strtod(value, NULL);
    else if (!strcmp(name, "tokens")) j->past.tokens = strtoull(value, NULL, 10);
    else if (!strcmp(name, "long_rows")) j->past.long_rows = strtoull(value, NULL, 10);
    else if (!strcmp(name, "sessions")) j->past.sessions = strtoull(value, NULL, 10);
    else if (!strcmp(name, "model_id")) {
        sill__free(j->model_id);
        j->model_id = sill__strndup(value, strlen(value));
    }
}

static sill_status read_facts(cli_journal *j, cli_settings *settings, sill_error *err) {
    sqlite3_stmt *q = NULL;
    int code = sqlite3_prepare_v2(j->db, "SELECT kind, name, value FROM facts ORDER BY rowid", -1, &q, NULL);
    while (code == SQLITE_OK || code == SQLITE_ROW) {
        if ((code = sqlite3_step(q)) != SQLITE_ROW) break;
        const char *kind = (const char *)sqlite3_column_text(q, 0), *name = (const char *)sqlite3_column_text(q, 1),
                   *value = (const char *)sqlite3_column_text(q, 2);
        if (!kind || !name || !value) continue;
        if (!strcmp(kind, "setting")) cli_settings_put(settings, name, value);
        else take_fact(j, name, value);
    }
    sill_status s = code == SQLITE_DONE ? SILL_OK : fail(j, err);
    sqlite3_finalize(q);
    return s == SILL_OK && settings->failed ? sill__fail(err, SILL_ENOMEM, "no memory for settings") : s;
}

static sill_status begin_new(cli_journal *j, const cli_settings *settings, const char *model_id, sill_error *err) {
    char now[32];
    time_t t = time(NULL);
    strftime(now, sizeof now, "%Y-%m-%dT%H:%M:%SZ", gmtime(&t));
    sill_status s = run(j, "BEGIN; CREATE TABLE facts (kind TEXT, name TEXT, value TEXT, UNIQUE (kind, name));"
                        "CREATE TABLE rows (number INTEGER PRIMARY KEY, digest BLOB NOT NULL, records INTEGER NOT NULL, error TEXT, "
                        "results BLOB NOT NULL);", err);
    for (size_t i = 0; s == SILL_OK && i < settings->n; i++) s = put_fact(j, "setting", settings->items[i].name, settings->items[i].value, err);
    if (s == SILL_OK) s = put_fact(j, "fact", "started", now, err);
    if (s == SILL_OK) s = put_fact(j, "fact", "model_id", model_id, err);
    if (s == SILL_OK) s = run(j, "PRAGMA user_version = 1; COMMIT", err);
    take_fact(j, "started", now);
    take_fact(j, "model_id", model_id);
    return s;
}

/* ---- opening */

static sill_status open_db(cli_journal *j, sill_error *err) {
    if (sqlite3_open_v2(j->path, &j->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, "unix-none") != SQLITE_OK) return fail(j, err);
    sqlite3_extended_result_codes(j->db, 0);
    return run(j, "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = DELETE; PRAGMA synchronous = FULL; PRAGMA fullfsync = ON", err);
}

static void close_db(cli_journal *j) {
    sqlite3_finalize(j->get);
    sqlite3_finalize(j->put);
    sqlite3_close(j->db);
    j->get = j->put = NULL;
    j->db = NULL;
}

static void remove_files(const cli_journal *j) {
    sill__str s;
    sill__str_init(&s, 65536);
    if (sill__str_putf(&s, "%s-journal", j->path)) unlink(s.p);
    sill__str_free(&s);
    unlink(j->path);
}

/* SQLite would follow a link, and wait for what a pipe brings. */
static sill_status check_place(const cli_journal *j, sill_error *err) {
    struct stat st;
    if (lstat(j->path, &st) != 0 || S_ISREG(st.st_mode)) return SILL_OK;
    return sill__fail(err, SILL_EINVAL, "%s is %s, not a journal of sill; remove it", j->path, S_ISLNK(st.st_mode) ? "a symbolic link" : "no regular file");
}

/* What the file is: *IS_NEW when nothing was ever kept in it. */
static sill_status look(cli_journal *j, bool *is_new, sill_error *err) {
    int64_t application, layout, tables;
    sill_status s = number(j, "PRAGMA application_id", &application, err);
    if (s == SILL_OK) s = number(j, "PRAGMA user_version", &layout, err);
    if (s == SILL_OK) s = number(j, "SELECT count(*) FROM sqlite_master", &tables, err);
    if (s != SILL_OK) return s;
    *is_new = tables == 0 && layout == 0;
    if (*is_new || (application == APPLICATION && layout == LAYOUT)) return SILL_OK;
    return sill__fail(err, SILL_EINVAL, "%s is no journal that this version of sill reads; move it away to begin again", j->path);
}

static sill_status compare(cli_journal *j, const cli_journal_options *o, bool *again, sill_error *err) {
    cli_settings was = {0};
    char what[1024];
    sill_status s = read_facts(j, &was, err);
    *again = false;
    if (s == SILL_OK && cli_settings_differ(&was, o->settings, what, sizeof what)) {
        const char *device = cli_settings_get(&was, "device"), *now = cli_settings_get(o->settings, "device");
        bool other = device && now && strcmp(device, now);
        if (o->overwrite) *again = true;
        else
            s = sill__fail(err, SILL_EINVAL, "%s keeps rows of another configuration: %s. Give the earlier command to go on, or "
                           "--overwrite to begin again%s", j->path, what, other ? "; devices and instruction sets differ in the last "
                           "places: SILL_CPU_ISA and --device choose the earlier one" : "");
    }
    cli_settings_free(&was);
    return s;
}

static sill_status start(cli_journal *j, const cli_journal_options *o, sill_error *err) {
    bool is_new = true, again = false;
    int64_t n = 0, last = 0;
    sill_status s = check_place(j, err);
    if (s == SILL_OK) s = open_db(j, err);
    if (s == SILL_OK) s = look(j, &is_new, err);
    if (s == SILL_OK && !is_new) s = compare(j, o, &again, err);
    if (s == SILL_OK && again) {
        close_db(j);
        remove_files(j);
        memset(&j->past, 0, sizeof j->past);
        j->model[0] = 0;
        is_new = true;
        s = open_db(j, err);
    }
    if (s == SILL_OK && is_new) s = run(j, "PRAGMA application_id = 0x73696c6c", err);
    if (s == SILL_OK && is_new) s = begin_new(j, o->settings, o->model_id, err);
    if (s == SILL_OK) s = number(j, "SELECT count(*) FROM rows", &n, err);
    if (s == SILL_OK) s = number(j, "SELECT coalesce(max(number), 0) FROM rows", &last, err);
    if (s != SILL_OK) return s;
    j->past.resumed = !is_new;
    j->past.rows = j->rows = j->on_disk = (uint64_t)n;
    j->last = (uint64_t)last;
    if (sqlite3_prepare_v3(j->db, "SELECT digest, records, error, results FROM rows WHERE number = ?1", -1, SQLITE_PREPARE_PERSISTENT,
                           &j->get, NULL) != SQLITE_OK ||
        sqlite3_prepare_v3(j->db, "INSERT OR REPLACE INTO rows VALUES (?1, ?2, ?3, ?4, ?5)", -1, SQLITE_PREPARE_PERSISTENT, &j->put,
                           NULL) != SQLITE_OK)
        return fail(j, err);
    return SILL_OK;
}

/* ---- rows */

static sill_status get_row(void *user, const sill__corpus_row *row, const uint8_t digest[32], bool *found, sill__kept *out, sill_error *err) {
    cli_journal *j = user;
    *found = false;
    if (row->number > j->last) return SILL_OK;
    sqlite3_reset(j->get);
    if (sqlite3_bind_int64(j->get, 1, (sqlite3_int64)row->number) != SQLITE_OK) return fail(j, err);
    int code = sqlite3_step(j->get);
    if (code == SQLITE_DONE) return SILL_OK;
    if (code != SQLITE_ROW) return fail(j, err);
    j->seen++;
    const void *was = sqlite3_column_blob(j->get, 0);
    if (!was || sqlite3_column_bytes(j->get, 0) != 32 || memcmp(was, digest, 32)) {
        sqlite3_reset(j->get);
        if (j->overwrite) return SILL_OK;
        return sill__fail(err, SILL_EINVAL, "row %llu (line %llu) of the input is not what it was when its result was made (%s); bring "
                          "the input back, or give --overwrite to compute changed rows anew", (unsigned long long)row->number,
                          (unsigned long long)row->line, j->path);
    }
    const void *bytes = sqlite3_column_blob(j->get, 3); /* in this order: asking for a type may move the bytes */
    out->n = (size_t)sqlite3_column_bytes(j->get, 3);
    out->bytes = bytes;
    sqlite3_int64 n_records = sqlite3_column_int64(j->get, 1);
    if (n_records < 0 || n_records > INT32_MAX)
        return sill__fail(err, SILL_EFORMAT, "%s is damaged: row %llu has %lld lines of results; remove it to begin anew", j->path,
                          (unsigned long long)row->number, (long long)n_records);
    out->n_records = (uint32_t)n_records;
    out->error = (const char *)sqlite3_column_text(j->get, 2);
    *found = true;
    return SILL_OK;
}

static sill_status commit(cli_journal *j, sill_error *err) {
    if (!j->open) return SILL_OK;
    double from = sill__now();
    char text[64];
    sqlite3_reset(j->get);
    snprintf(text, sizeof text, "%.3f", j->past.seconds + from - j->opened);
    sill_status s = put_fact(j, "fact", "seconds", text, err);
    if (s == SILL_OK) s = put_count(j, "sessions", j->past.sessions + 1, err); /* also where it is killed later */
    if (s == SILL_OK) s = put_count(j, "tokens", j->past.tokens + (j->tokens ? *j->tokens : 0), err);
    if (s == SILL_OK) s = put_count(j, "long_rows", j->past.long_rows + (j->long_rows ? *j->long_rows : 0), err);
    if (s != SILL_OK || run(j, "COMMIT", err) != SILL_OK) {
        sqlite3_exec(j->db, "ROLLBACK", NULL, NULL, NULL);
        j->open = false;
        j->rows -= j->unsaved;
        return err ? err->code : SILL_EIO;
    }
    j->open = false;
    j->saved = sill__now();
    j->cost = j->saved - from;
    j->unsaved = j->unsaved_bytes = 0;
    return SILL_OK;
}

static bool is_time(const cli_journal *j) {
    if (j->every) return j->unsaved >= (uint64_t)j->every;
    double since = sill__now() - j->saved;
    return since >= SILL_MAX(SAVE_SECONDS, SAVE_SHARE * j->cost) || j->unsaved_bytes >= SAVE_BYTES;
}

static sill_status put_row(void *user, uint64_t number, const uint8_t digest[32], const sill__kept *kept, sill_error *err) {
    cli_journal *j = user;
    if (j->broken) return sill__fail(err, SILL_EIO, "%s: an earlier write failed", j->path);
    if (!j->open && run(j, "BEGIN", err) != SILL_OK) return err->code;
    j->open = true;
    sqlite3_reset(j->put);
    if (sqlite3_bind_int64(j->put, 1, (sqlite3_int64)number) != SQLITE_OK ||
        sqlite3_bind_blob64(j->put, 2, digest, 32, SQLITE_STATIC) != SQLITE_OK ||
        sqlite3_bind_int64(j->put, 3, kept->n_records) != SQLITE_OK ||
        (kept->error ? sqlite3_bind_text(j->put, 4, kept->error, -1, SQLITE_STATIC) : sqlite3_bind_null(j->put, 4)) != SQLITE_OK ||
        sqlite3_bind_blob64(j->put, 5, kept->bytes ? kept->bytes : "", kept->n, SQLITE_STATIC) != SQLITE_OK ||
        sqlite3_step(j->put) != SQLITE_DONE)
        return fail(j, err);
    sqlite3_reset(j->put);
    j->rows++;
    j->unsaved++;
    j->unsaved_bytes += kept->n;
    return is_time(j) ? commit(j, err) : SILL_OK;
}

/* ---- the interface */

bool cli_journal_exists(const char *target) {
    sill__str s;
    struct stat st;
    sill__str_init(&s, 65536);
    bool is = sill__str_putf(&s, "%s.journal", target) && stat(s.p, &st) == 0;
    sill__str_free(&s);
    return is;
}

sill_status cli_journal_open(const cli_journal_options *o, cli_journal **out, sill_error *err) {
    cli_journal *j = sill__calloc(1, sizeof *j);
    sill__str path;
    *out = NULL;
    if (!j) return sill__fail(err, SILL_ENOMEM, "no memory for a journal");
    sill__str_init(&path, 65536);
    if (sill__str_putf(&path, "%s.journal", o->target)) j->path = sill__strndup(path.p, path.n);
    sill__str_free(&path);
    j->overwrite = o->overwrite;
    j->every = o->rows;
    j->tokens = o->tokens;
    j->long_rows = o->long_rows;
    j->store = (sill__store){get_row, put_row, j};
    sill_status s = j->path ? start(j, o, err) : sill__fail(err, SILL_ENOMEM, "no memory for a journal");
    if (s != SILL_OK) {
        cli_journal_close(j, false);
        return s;
    }
    j->opened = j->saved = sill__now();
    *out = j;
    return SILL_OK;
}

cli_journal_past cli_journal_get_past(const cli_journal *j) { return j->past; }

const char *cli_journal_model(const cli_journal *j, const char **model_id) {
    *model_id = j->model_id ? j->model_id : "";
    return j->model;
}

sill_status cli_journal_set_model(cli_journal *j, const char *model_id, const char *sha256, sill_error *err) {
    if (!j->open && run(j, "BEGIN", err) != SILL_OK) return err->code;
    j->open = true;
    sill_status s = put_fact(j, "fact", "model_id", model_id, err);
    if (s == SILL_OK) s = put_fact(j, "fact", "model_sha256", sha256, err);
    if (s != SILL_OK) return s;
    take_fact(j, "model_id", model_id);
    take_fact(j, "model_sha256", sha256);
    return commit(j, err);
}

const sill__store *cli_journal_store(cli_journal *j) { return &j->store; }
uint64_t cli_journal_rows(const cli_journal *j) { return j->rows; }
uint64_t cli_journal_unseen(const cli_journal *j) { return j->on_disk - j->seen; }

sill_status cli_journal_save(cli_journal *j, sill_error *err) {
    if (j->broken) return sill__fail(err, SILL_EIO, "%s: an earlier write failed", j->path);
    if (!j->open && run(j, "BEGIN", err) != SILL_OK) return err->code;
    j->open = true;
    return commit(j, err);
}

void cli_journal_close(cli_journal *j, bool remove) {
    if (!j) return;
    if (j->db && j->open) sqlite3_exec(j->db, "ROLLBACK", NULL, NULL, NULL);
    close_db(j);
    if (remove) remove_files(j);
    sill__free(j->model_id);
    sill__free(j->path);
    sill__free(j);
}
