/* hub.c - see hub.h. What is read here are names; nothing is written. */
#include "hub.h"

#include <stdio.h>
#include <stdlib.h>

static bool plain(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.';
}

bool cli_hub_is_name(const char *name, size_t n) {
    int slashes = 0;
    if (n == 0 || n > 96) return false;
    for (size_t i = 0; i < n; i++) {
        const bool first = i == 0 || name[i - 1] == '/', last = i + 1 == n || name[i + 1] == '/';
        if (name[i] == '/' ? ++slashes > 1 || first || i + 1 == n : !plain(name[i])) return false;
        if ((first || last) && (name[i] == '.' || name[i] == '-')) return false;
        if (i > 0 && (name[i] == '.' || name[i] == '-') && name[i - 1] == name[i]) return false; /* "..", and "--", which stands for "/" */
    }
    return true;
}

bool cli_hub_is_commit(const char *text) { return strlen(text) == 40 && strspn(text, "0123456789abcdef") == 40; }

bool cli_hub_is_revision(const char *text) {
    size_t n = strlen(text);
    if (n == 0 || n > CLI_HUB_REVISION || text[0] == '/' || text[n - 1] == '/' || strstr(text, "..") || strstr(text, "//")) return false;
    for (size_t i = 0; i < n; i++)
        if (!plain(text[i]) && text[i] != '/') return false;
    return text[0] != '.' && text[0] != '-' && !strstr(text, "/.");
}

static bool fits(int n, size_t cap) { return n >= 0 && (size_t)n < cap; }

bool cli_hub_home(char *out, size_t cap) {
    const char *home = getenv("HF_HOME"), *cache = getenv("XDG_CACHE_HOME"), *user = getenv("HOME");
    if (home && *home) return fits(snprintf(out, cap, "%s", home), cap);
    if (cache && *cache) return fits(snprintf(out, cap, "%s/huggingface", cache), cap);
    return user && *user && fits(snprintf(out, cap, "%s/.cache/huggingface", user), cap);
}

bool cli_hub_root(char *out, size_t cap) {
    char home[CLI_HUB_PATH];
    const char *own = getenv("HF_HUB_CACHE");
    if (!own || !*own) own = getenv("HUGGINGFACE_HUB_CACHE");
    if (own && *own) return fits(snprintf(out, cap, "%s", own), cap);
    return cli_hub_home(home, sizeof home) && fits(snprintf(out, cap, "%s/hub", home), cap);
}

bool cli_hub_folder(char *out, size_t cap, const char *name, size_t n) {
    char root[CLI_HUB_PATH];
    const char *slash = memchr(name, '/', n);
    if (!cli_hub_root(root, sizeof root)) return false;
    if (!slash) return fits(snprintf(out, cap, "%s/models--%.*s", root, (int)n, name), cap);
    return fits(snprintf(out, cap, "%s/models--%.*s--%.*s", root, (int)(slash - name), name, (int)(n - (size_t)(slash - name) - 1), slash + 1), cap);
}

bool cli_hub_commit(const char *folder, const char *revision, char commit[41]) {
    char path[CLI_HUB_PATH], *text = NULL;
    size_t n = 0;
    if (cli_hub_is_commit(revision)) return memcpy(commit, revision, 41) != NULL;
    if (!cli_hub_is_revision(revision) || !fits(snprintf(path, sizeof path, "%s/refs/%s", folder, revision), sizeof path) || !sill__is_file(path) ||
        sill__read_file(path, 256, &text, &n, NULL) != SILL_OK)
        return false;
    while (n > 0 && (text[n - 1] == '\n' || text[n - 1] == '\r' || text[n - 1] == ' ')) n--;
    text[n] = 0;
    bool ok = cli_hub_is_commit(text);
    if (ok) memcpy(commit, text, 41);
    sill__free(text);
    return ok;
}

bool cli_hub_find(const char *name, char *out, size_t cap) {
    char folder[CLI_HUB_PATH], commit[41];
    const char *at = strchr(name, '@');
    const size_t n = at ? (size_t)(at - name) : strlen(name);
    return cli_hub_is_name(name, n) && cli_hub_folder(folder, sizeof folder, name, n) && cli_hub_commit(folder, at ? at + 1 : "main", commit) &&
           fits(snprintf(out, cap, "%s/snapshots/%s", folder, commit), cap) && sill__is_dir(out);
}
