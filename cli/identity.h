/* identity.h - which model it is: SHA-256 of its files, made in a thread beside the run and remembered in the cache. */
#ifndef SILL_CLI_IDENTITY_H
#define SILL_CLI_IDENTITY_H

#include "base/base.h"

typedef struct cli_file_hash { char *name; uint64_t bytes; char sha256[65]; bool tokenizer; } cli_file_hash;
typedef struct cli_identity cli_identity;

/* Begins with the files that make up the model at PATH, a file or a directory; its tokenizer's are at TOKENIZER unless that is NULL.
 * NULL: no memory. */
cli_identity *cli_identity_start(const char *path, const char *tokenizer, const volatile int *stop);
/* Device, inode, size and time of the last change of every file, as a text: the same text, the same files. */
const char *cli_identity_id(const cli_identity *identity);
bool cli_identity_ready(cli_identity *identity);
/* Waits. The only file's SHA-256, or that of the list that sha256sum would write of them; "" when a file could not be read. */
const char *cli_identity_sha256(cli_identity *identity);
/* Of the tokenizer's files alone; a GGUF holds both. */
const char *cli_identity_tokenizer(cli_identity *identity);
const cli_file_hash *cli_identity_files(cli_identity *identity, size_t *n);
/* Ends it, finished or not; may be NULL. */
void cli_identity_free(cli_identity *identity);

#endif
