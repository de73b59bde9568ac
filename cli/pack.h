/* pack.h - compressed files: what the program gives to the library's readers and writers. */
#ifndef SILL_CLI_PACK_H
#define SILL_CLI_PACK_H

#include "corpus/corpus.h"

/* gzip and zstd; NULL at the end. */
extern const sill__codec *const cli_codecs[];
/* Of the library that packs: other versions may make other bytes. Static storage. */
const char *cli_codec_version(const sill__codec *codec);

#endif
