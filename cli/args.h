/*
 * args.h - the command line's option parser. A command declares tables of options; parsing fills the structs
 * they point into, checks types and ranges, and writes the help text.
 */
#ifndef SILL_CLI_ARGS_H
#define SILL_CLI_ARGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum arg_type {
    ARG_FLAG,   /* bool: set to true */
    ARG_UNFLAG, /* bool: set to false */
    ARG_INT,    /* int32_t within [min, max] */
    ARG_U64,    /* uint64_t */
    ARG_FLOAT,  /* float within [min, max] */
    ARG_ABOVE,  /* float within (min, max] */
    ARG_TEXT,   /* const char * */
    ARG_LIST,   /* arg_list: may be given again */
    ARG_CHOICE, /* int: index in choices */
    ARG_LATER   /* known, but refused: not in this version */
} arg_type;

#define ARG_LIST_MAX 256
typedef struct arg_list { const char *items[ARG_LIST_MAX]; size_t n; } arg_list;

typedef struct arg_option {
    const char *name;   /* without the dashes */
    char letter;        /* 0: none */
    arg_type type;
    size_t offset;      /* of the value in the table's struct */
    double min, max;
    const char *const *choices; /* ends with NULL */
    const char *meta;   /* name of the value in the help */
    const char *help;   /* NULL: not shown */
} arg_option;

typedef struct arg_table {
    const char *title;
    const arg_option *options;
    size_t n;
    void *values;       /* the struct that the offsets point into */
} arg_table;

typedef struct arg_command {
    const char *name, *synopsis, *about;
    arg_table tables[10]; /* ends with one that has no options */
    const char *notes;  /* behind the options in the help */
    int min_args, max_args; /* positional arguments; max -1: any number */
} arg_command;

/* Parses argv[0 .. argc) (behind the command's name). *args gets the positional arguments, in place of argv.
 * Returns -1 to go on, else the exit status (0: help was asked for and printed). */
int args_parse(const arg_command *command, int argc, char **argv, char ***args, int *n_args);
void args_help(const arg_command *command);
/* Calls FN for each option of the command that was parsed last, in the tables' order, with its value as the parser reads it
 * back: NULL where it was not given, "" for a flag; a list's items one by one. What is not in this version is left out, and
 * what only takes a flag back. Returns the command's name. */
typedef void (*args_visit_fn)(void *user, const arg_option *option, const char *value);
const char *args_visit(args_visit_fn fn, void *user);
/* Its positional arguments. */
char **args_positional(int *n);
/* "sill NAME: MESSAGE (sill help NAME)" on stderr; returns 2. */
int args_usage(const char *command, const char *format, ...)
#if defined(__GNUC__) || defined(__clang__)
    __attribute__((format(printf, 2, 3)))
#endif
    ;
/* The name of LIST nearest to WORD, or NULL when none is near. NAMES ends with NULL. */
const char *args_nearest(const char *word, const char *const *names);

#endif
