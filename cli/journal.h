/*
 * journal.h - what lets a run go on where it was ended: the lock of an output, the settings that its results depend
 * on, and the journal beside it, OUT.journal, which keeps every finished row.
 */
#ifndef SILL_CLI_JOURNAL_H
#define SILL_CLI_JOURNAL_H

#include "corpus/corpus.h"

/* ---- settings: names and values, compared when a run goes on (settings.c) */
typedef struct cli_setting { char *name, *value; } cli_setting;
typedef struct cli_settings { cli_setting *items; size_t n, cap; bool failed; } cli_settings;
void cli_settings_put(cli_settings *settings, const char *name, const char *value);
void cli_settings_putf(cli_settings *settings, const char *name, const char *format, ...) SILL_PRINTF(3, 4);
const char *cli_settings_get(const cli_settings *settings, const char *name); /* NULL: not there */
void cli_settings_free(cli_settings *settings);
/* SHA-256 over names and values in their order. */
void cli_settings_sha256(const cli_settings *settings, char out[65]);
/* Says in OUT what differs ("--labels was 'a,b', is 'a,c'; ..."): the number of differences. */
size_t cli_settings_differ(const cli_settings *was, const cli_settings *is, char *out, size_t cap);

/* ---- the lock: TARGET.lock with host and process, which works where files cannot be locked (lock.c) */
typedef struct cli_lock { char *path; } cli_lock;
/* EINVAL where another process holds it, with what to do; one of a process of this host that is no more is taken over. */
sill_status cli_lock_take(cli_lock *lock, const char *target, sill_error *err);
void cli_lock_drop(cli_lock *lock);

/* ---- the journal (journal.c): SQLite, used by one process at a time, which the lock sees to */
typedef struct cli_journal cli_journal;
typedef struct cli_journal_options {
    const char *target;            /* TARGET.journal */
    const cli_settings *settings;
    const char *model_id;          /* which files the model is, as cli_identity says; and what is known of their contents */
    const uint64_t *tokens, *long_rows; /* counted by this session */
    bool overwrite;                /* of other settings: begun anew; changed rows are computed again */
    int32_t rows;                  /* most rows that a kill costs; 0: what finishes in about a second */
} cli_journal_options;
/* Opens it, or begins one. EINVAL: it is of other settings. */
sill_status cli_journal_open(const cli_journal_options *options, cli_journal **out, sill_error *err);
bool cli_journal_exists(const char *target);
/* Whether the run goes on, and with how many rows; sessions before this one, their seconds, when the first began. */
typedef struct cli_journal_past { bool resumed; uint64_t rows, sessions, tokens, long_rows; double seconds; char started[32]; } cli_journal_past;
cli_journal_past cli_journal_get_past(const cli_journal *journal);
/* The model of the rows that are kept: its SHA-256 ("": not known when it was written) and its model_id. */
const char *cli_journal_model(const cli_journal *journal, const char **model_id);
/* From now on it is this model. */
sill_status cli_journal_set_model(cli_journal *journal, const char *model_id, const char *sha256, sill_error *err);
const sill__store *cli_journal_store(cli_journal *journal);
/* Rows kept so far, those not yet on the disk among them; rows on the disk that the input has not shown yet. */
uint64_t cli_journal_rows(const cli_journal *journal);
uint64_t cli_journal_unseen(const cli_journal *journal);
/* Writes what is not on the disk yet, with the time since it was opened. */
sill_status cli_journal_save(cli_journal *journal, sill_error *err);
void cli_journal_close(cli_journal *journal, bool remove); /* may be NULL */

#endif
