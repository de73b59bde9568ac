/*
 * hub.h - the cache of models that huggingface_hub keeps, and shares with whoever follows its layout: blobs/HASH, snapshots/COMMIT/FILE
 * (symbolic links to blobs), refs/REVISION (the commit that a name means).
 */
#ifndef SILL_CLI_HUB_H
#define SILL_CLI_HUB_H

#include "base/base.h"

#define CLI_HUB_PATH 4096
#define CLI_HUB_REVISION 200 /* bytes of a revision */

/* "gpt2", "owner/name": what names a model there. */
bool cli_hub_is_name(const char *name, size_t n);
/* $HF_HOME, $XDG_CACHE_HOME/huggingface or ~/.cache/huggingface, where the token is kept; false when it does not fit. */
bool cli_hub_home(char *out, size_t cap);
/* $HF_HUB_CACHE, or hub in that directory; false when it does not fit. */
bool cli_hub_root(char *out, size_t cap);
/* The directory of the model in the cache. */
bool cli_hub_folder(char *out, size_t cap, const char *name, size_t n);
/* The snapshot of NAME, or NAME@REVISION (default: main), that is there; false when there is none. */
bool cli_hub_find(const char *name, char *out, size_t cap);
/* The commit that a revision means, as the cache knows it: itself, or what refs/ says. */
bool cli_hub_commit(const char *folder, const char *revision, char commit[41]);
bool cli_hub_is_commit(const char *text);
/* A revision as it may be: a branch, a tag, a commit. */
bool cli_hub_is_revision(const char *text);

#endif
