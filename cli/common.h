/*
 * common.h - what the commands share: their common options, messages, the model, interruption, and the run
 * of a corpus through a task.
 */
#ifndef SILL_CLI_COMMON_H
#define SILL_CLI_COMMON_H

#include <stdio.h>

#include "args.h"
#include "corpus/corpus.h"
#include "identity.h"
#include "journal.h"
#include "sill.h"

#define EXIT_OK 0
#define EXIT_FAILED 1
#define EXIT_USAGE 2
#define EXIT_ROWS 3
#define EXIT_NOFIT 4
#define EXIT_INTERRUPTED 5

/* ---- options. Zero or NULL is "not given" unless said otherwise. */
typedef struct cli_model_options {
    const char *model, *tokenizer, *device;
    int dtype, kv_dtype; /* sill_dtype, sill_kv_dtype */
    int32_t threads, batch_tokens, max_sequences, n_ctx;
    int32_t memory_mib;
    bool no_cache;
} cli_model_options;

/* A table, a text file or a directory as it is read. */
typedef struct cli_input_options {
    const char *text, *delimiter;
    int format, encoding;      /* sill__format, sill__encoding */
    int32_t max_row;           /* MiB */
} cli_input_options;

typedef struct cli_corpus_options {
    cli_input_options in;
    const char *id, *output;
    int output_format;         /* 0 auto, 1 csv, 2 tsv, 3 jsonl, 4 npy */
    bool overwrite, json;
    const char *shard;
    int32_t journal_rows;
    float progress;
} cli_corpus_options;

typedef struct cli_text_options {
    bool special;
    int long_policy; /* sill_long */
} cli_text_options;

typedef struct cli_general_options { bool quiet, verbose; } cli_general_options;
extern cli_general_options cli_general;

arg_table cli_model_table(cli_model_options *values);
/* Every command that reads a table takes these; COLUMN false: without --text, where a command names columns itself. */
arg_table cli_input_table(cli_input_options *values, bool column);
/* What a run writes, row by row. */
arg_table cli_output_table(cli_corpus_options *values);
/* What a command does with texts that are longer than the context; what it does by default comes first. */
typedef enum cli_long {
    CLI_LONG_CUT,        /* error, truncate */
    CLI_LONG_WINDOW,     /* window, error, truncate */
    CLI_LONG_SCORE,      /* window, error, truncate, split-mean */
    CLI_LONG_MEAN        /* error, truncate, window, split-mean */
} cli_long;
arg_table cli_text_table(cli_text_options *values, cli_long how);
arg_table cli_general_table(void);

/* ---- messages, all on stderr */
/* "sill: MESSAGE" (nothing with --quiet). */
void cli_say(const char *format, ...) SILL_PRINTF(1, 2);
/* "sill: error: MESSAGE"; returns the exit status of CODE. */
int cli_fail(const sill_error *err);
int cli_exit_status(sill_status code);
/* The same for a model that could not be planned or loaded: an option out of range is wrong usage. */
int cli_fail_model(const sill_error *err);
bool cli_is_terminal(FILE *stream);
/* The library's warnings and errors on stderr from now on. */
void cli_show_log(void);
/* stdout written and checked: EXIT_OK, or EXIT_FAILED with a message. */
int cli_flush_stdout(void);

/* All of standard input, at most MAX bytes; ECANCELLED when it is interrupted. Free with sill__free. */
sill_status cli_read_stdin(size_t max, char **text, size_t *n, sill_error *err);

/* ---- interruption: the first SIGINT or SIGTERM sets the flag, the second ends the process. */
void cli_catch_signals(void);
extern volatile int cli_stop;

/* ---- the model */
/* The path of what -m names: a path, or a name in the cache; NULL: the default model. */
sill_status cli_model_path(const char *name, char *path, size_t cap, sill_error *err);
typedef struct cli_engine {
    sill_model *model;
    sill_session *session;
    sill_model_info info;
    sill_plan_info plan;  /* the sizes that were left open as they were planned */
    const char *kv_dtype; /* the type of the KV cache */
    char path[1024];
    const char *tokenizer; /* what --tokenizer names; NULL: the model's own */
} cli_engine;
/* What a command asks of the context; checked before the model is loaded. */
typedef struct cli_needs {
    int32_t stride, min_ctx; /* 0: nothing */
    bool no_text;            /* also without a tokenizer */
    bool interactive;        /* one text at a time, waited for */
} cli_needs;
/* Plans, and refuses what would not fit or NEEDS (may be NULL) rule out; then loads. Returns -1 or the exit status,
 * the message said. */
int cli_engine_open(const char *command, const cli_model_options *options, const cli_needs *needs, cli_engine *engine);
/* What the options themselves rule out: types and devices that are not in this version. -1 or the exit status. */
int cli_check_model(const char *command, const cli_model_options *options);
/* --long POLICY that the command has not. -1 or the exit status. */
int cli_check_long(const char *command, const cli_text_options *options, cli_long how);
#define CLI_MAX_LABELS 1024
#define CLI_MAX_SHARDS 1000000u
/* Cuts LIST, "a,b,c", in place into at least LEAST (1 or 2) different labels of CLI_MAX_LABELS at most, spaces around them
 * left out; one that begins with a quote ends with one, and may hold commas. Below 0: done, else an exit status, and COMMAND's user is told. */
int cli_split_labels(const char *command, char *list, size_t least, const char **labels, size_t *n_labels);
/* How many bytes of a text the vocabulary leaves out (it has no tokens for them). Cheap for ordinary text. */
size_t cli_lost_bytes(const sill_tokenizer *tokenizer, const char *text, size_t n);
/* What separates words: ASCII white space. */
static inline bool cli_is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }
/* One warning when N is not 0. */
void cli_say_lost(uint64_t n);
void cli_engine_close(cli_engine *engine);
void cli_fill_options(const cli_model_options *o, sill_model_options *mo, sill_session_options *so);

/* ---- a corpus run: input, output and what lies between (run.c) */
typedef struct cli_default { const char *name, *value; } cli_default; /* of an option that was not given (a flag: that it is on); ends with NULL */
typedef struct cli_progress {
    bool bar;            /* on a terminal; else lines */
    double started, last, every;
    double first_share;  /* of the input that was there when the first row was computed */
    bool running;
} cli_progress;
typedef struct cli_run {
    const char *command;
    const cli_corpus_options *options;
    const char *input;   /* FILE, or NULL */
    sill__reader *reader;
    sill__writer *writer;
    sill__flow *flow;
    size_t text_slot, id_slot, context_slot;
    bool has_context;
    const sill_tokenizer *tokenizer; /* when set: bytes that it loses are counted */
    uint64_t lost;
    uint64_t tokens;     /* read and made, counted by the command */
    uint64_t long_rows;  /* longer than the context, but not refused: counted by the command */
    uint64_t long_before; /* in the sessions before */
    int long_policy;     /* sill_long, for the summary */
    bool json_text;      /* a JSON array or object is a text too (ids); set behind cli_run_input */
    size_t vector;       /* values of a vector, where results are vectors */
    double started;
    cli_progress progress;
    sill__str json;      /* scratch for values made of JSON */
    void *task;          /* the command's own */
    /* Set by the command before cli_run_output: what computes, and what options that were not given mean. */
    const cli_engine *engine; /* its model is NULL where a tokenizer alone is used, of the file at its path */
    const cli_default *defaults;
    const char *codebook_sha256, *constraint_sha256; /* NULL: none */
    /* What makes it go on where it was ended (keep.c). */
    int32_t n_sequences;
    unsigned shard, shards;
    char *target;        /* the file that is written; NULL: a pipe, standard output */
    cli_lock lock;
    cli_settings settings;
    cli_identity *identity;
    cli_journal *journal;
    bool opened;         /* OUT.partial is this run's */
    bool model_kept;     /* the journal knows the model's SHA-256 */
} cli_run;

/* A replay (sill verify): the command that runs computes these rows only, keeps no journal, and tells what it ran with. */
typedef struct cli_replaying {
    const uint64_t *rows; /* ascending; NULL: no replay */
    size_t n_rows;
    cli_settings settings;
    char input_sha256[65], model_sha256[65];
    uint64_t input_rows;
    const uint64_t *uneven;
    size_t n_uneven;
} cli_replaying;
extern cli_replaying cli_replay;
int cli_run_command(const char *name, int argc, char **argv);

/* keep.c: the journal and the record of a run. -1 to go on, else the exit status, the message said: what there is is
 * finished, or not this run's. */
int cli_keep_open(cli_run *run, const char *const *fields, size_t n_fields);
/* Now and then, while it runs. */
void cli_keep_tick(cli_run *run);
/* All rows are written: the output gets its name, its record is written, the journal goes. */
sill_status cli_keep_finish(cli_run *run, sill_error *err);
/* The run ends before that: what is finished is kept. */
sill_status cli_keep_save(cli_run *run, sill_error *err);
void cli_keep_free(cli_run *run);
/* progress.c */
void cli_progress_begin(cli_run *run);
void cli_progress_tick(cli_run *run);
void cli_progress_end(cli_run *run);

/* Opens FILE and finds its columns; refuses what can be refused before a model is loaded. Returns -1 or the exit
 * status. TXT_COLUMN names the column of plain text. */
int cli_run_input(cli_run *run, const char *command, const char *file, const cli_corpus_options *options,
                  const char *txt_column);
/* The same with rows that are texts in memory, as column COLUMN. */
int cli_run_texts(cli_run *run, const char *command, const cli_corpus_options *options, const char *column,
                  const char *const *texts, const size_t *n_bytes, size_t n);
/* FILE ("-": standard input), unpacked and in UTF-8, as one text of at most 1 GiB: the row's last cell. Free with
 * sill__row_free. */
sill_status cli_read_text(const char *file, sill__encoding encoding, sill__corpus_row **row, sill_error *err);
extern const char *const cli_encodings[]; /* choices of --encoding, in the enum's order */
/* FILE as the options say, refused by COMMAND's usage where they are wrong. -1 or the exit status, with the message told.
 * TXT_COLUMN: see sill__reader_options. */
int cli_open_reader(const char *command, const char *file, const cli_input_options *options, const char *txt_column, sill__reader **reader);
/* A further column that the command reads. -1 or the exit status. */
int cli_run_select(cli_run *run, const char *column, size_t *slot);
/* The format that results will have. */
sill__format cli_run_output_format(const cli_run *run);
/* A command's task over all rows. */
typedef struct cli_work {
    const char *const *fields; /* (n_fields) that results have */
    size_t n_fields;
    int32_t n_sequences;       /* results a row; 0: 1 */
    const cli_default *defaults; /* see cli_run */
    int long_policy;           /* sill_long, for the summary */
    void *task;                /* becomes run->task */
    /* Pulls rows with cli_run_next until it returns 0 (which is not always the end: then it is called again), and answers them. */
    sill_status (*rows)(cli_run *run, sill_error *err);
} cli_work;
/* Opens the output, runs and ends: the exit status. */
int cli_run_rows(cli_run *run, const cli_engine *engine, const cli_work *work);
/* Opens the output and the flow. */
int cli_run_output(cli_run *run, const char *const *fields, size_t n_fields, int32_t n_sequences);
/* The next row (a sill_next_fn whose user is the run). */
int cli_run_next(void *run, sill_row *row);
/* Ends the run: STATUS of the task. Frees everything and returns the exit status. */
int cli_run_end(cli_run *run, sill_status status, const sill_error *err);
/* Frees everything after an early failure. */
void cli_run_free(cli_run *run);

/* JSON lists into run->json and then into the record. */
void cli_put_ids(cli_run *run, sill__record *record, const int32_t *ids, size_t n);
void cli_put_floats(cli_run *run, sill__record *record, const float *values, size_t n);

/* ---- commands */
typedef int (*cli_command_fn)(int argc, char **argv);
int cli_generate(int argc, char **argv);
int cli_chat(int argc, char **argv);
int cli_score(int argc, char **argv);
int cli_perplexity(int argc, char **argv);
int cli_embed(int argc, char **argv);
int cli_classify(int argc, char **argv);
int cli_tokenize(int argc, char **argv);
int cli_detokenize(int argc, char **argv);
int cli_inspect(int argc, char **argv);
int cli_plan(int argc, char **argv);
int cli_bench(int argc, char **argv);
int cli_check(int argc, char **argv);
int cli_doctor(int argc, char **argv);
int cli_quantize(int argc, char **argv);
int cli_convert(int argc, char **argv);
int cli_pull(int argc, char **argv);
int cli_agree(int argc, char **argv);
int cli_stability(int argc, char **argv);
int cli_verify(int argc, char **argv);
int cli_merge(int argc, char **argv);

#endif
