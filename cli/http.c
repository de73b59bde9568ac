/*
 * http.c - see http.h. libcurl is loaded when something is to be fetched (dlopen), not linked: every Mac has it as
 * /usr/lib/libcurl.4.dylib, nearly every Linux as libcurl.so.4, builds for other systems need no headers of theirs, and the many who
 * never fetch anything need it nowhere. The numbers below are those of curl/curl.h; libcurl's interface has been the same since
 * 2006 (soname 4) and promises to stay so. Redirects are followed here, so that it is here that is seen where a token goes.
 */
#include "http.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#define MAX_REDIRECTS 10
#define MAX_URL 8192
#define MAX_PAGE ((uint64_t)1 << 20) /* bytes of an error's page that are waited for */

enum {
    OPT_WRITEDATA = 10001, OPT_URL = 10002, OPT_RANGE = 10007, OPT_ERRORBUFFER = 10010, OPT_USERAGENT = 10018, OPT_HTTPHEADER = 10023,
    OPT_HEADERDATA = 10029, OPT_XFERINFODATA = 10057, OPT_WRITEFUNCTION = 20011, OPT_HEADERFUNCTION = 20079, OPT_XFERINFOFUNCTION = 20219,
    OPT_LOW_SPEED_LIMIT = 19, OPT_LOW_SPEED_TIME = 20, OPT_NOPROGRESS = 43, OPT_NOBODY = 44, OPT_FOLLOWLOCATION = 52,
    OPT_CONNECTTIMEOUT = 78, OPT_NOSIGNAL = 99, OPT_PROTOCOLS = 181
};
enum { INFO_RESPONSE_CODE = 0x200002, INFO_REDIRECT_URL = 0x10001f, PROTOCOLS_HTTP_HTTPS = 3, GLOBAL_ALL = 3, ERROR_BYTES = 256 };

typedef struct api {
    void *library;
    int (*global_init)(long flags);
    void *(*easy_init)(void);
    int (*easy_setopt)(void *easy, int option, ...);
    int (*easy_perform)(void *easy);
    int (*easy_getinfo)(void *easy, int info, ...);
    void (*easy_reset)(void *easy);
    void (*easy_cleanup)(void *easy);
    const char *(*easy_strerror)(int code);
    void *(*slist_append)(void *list, const char *text);
    void (*slist_free_all)(void *list);
    const char *(*version)(void);
} api;

static bool find(api *c, const char *name, void *to) {
    void *p = dlsym(c->library, name);
    memcpy(to, &p, sizeof p); /* a function's address as an object's, as POSIX has it */
    return p != NULL;
}

/* False where there is none; stays loaded. */
static bool load(api *c) {
    static const char *const names[] = {
#ifdef __APPLE__
        "/usr/lib/libcurl.4.dylib", "libcurl.4.dylib",
#else
        "libcurl.so.4", "libcurl-gnutls.so.4",
#endif
    };
    const char *own = getenv("SILL_CURL_LIBRARY");
    memset(c, 0, sizeof *c);
    if (own) c->library = dlopen(own, RTLD_NOW | RTLD_LOCAL);
    for (size_t i = 0; !own && !c->library && i < SILL_ARRAY_LEN(names); i++) c->library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    return c->library && find(c, "curl_global_init", &c->global_init) && find(c, "curl_easy_init", &c->easy_init) &&
           find(c, "curl_easy_setopt", &c->easy_setopt) && find(c, "curl_easy_perform", &c->easy_perform) &&
           find(c, "curl_easy_getinfo", &c->easy_getinfo) && find(c, "curl_easy_reset", &c->easy_reset) &&
           find(c, "curl_easy_cleanup", &c->easy_cleanup) && find(c, "curl_easy_strerror", &c->easy_strerror) &&
           find(c, "curl_slist_append", &c->slist_append) && find(c, "curl_slist_free_all", &c->slist_free_all) &&
           find(c, "curl_version", &c->version);
}

const char *cli_http_version(void) {
    api c;
    return load(&c) ? c.version() : NULL;
}

struct cli_http {
    api c;
    void *easy;
    char *endpoint, *token;
    const volatile int *stop;
    char error[ERROR_BYTES];
    const cli_http_request *request; /* the one under way */
    cli_http_head *head;
    bool refused;                    /* by the request's body */
    uint64_t page;                   /* bytes of an error's page */
};

/* "https://host:port" of a URL, in small letters; false when it has none, or characters that no URL has. */
static bool origin_of(const char *url, char out[300]) {
    const char *scheme = strstr(url, "://");
    for (const char *p = url; *p; p++)
        if ((unsigned char)*p <= ' ' || *p == 127) return false;
    if (!scheme) return false;
    size_t n = (size_t)(scheme - url) + 3 + strcspn(scheme + 3, "/?#");
    if (n >= 300 || memchr(url, '@', n)) return false;
    for (size_t i = 0; i < n; i++) out[i] = url[i] >= 'A' && url[i] <= 'Z' ? (char)(url[i] + 32) : url[i];
    out[n] = 0;
    return !strncmp(out, "https://", 8) || !strncmp(out, "http://", 7);
}

static bool is_loopback(const char *origin) {
    static const char *const hosts[] = {"127.0.0.1", "localhost", "[::1]"};
    const char *host = strstr(origin, "://") + 3;
    for (size_t i = 0; i < SILL_ARRAY_LEN(hosts); i++) {
        size_t n = strlen(hosts[i]);
        if (!strncmp(host, hosts[i], n) && (host[n] == 0 || host[n] == ':')) return true;
    }
    return false;
}

sill_status cli_http_open(const char *endpoint, const char *token, const volatile int *stop, cli_http **out, sill_error *err) {
    char origin[300];
    *out = NULL;
    if (!origin_of(endpoint, origin)) return sill__fail(err, SILL_EINVAL, "HF_ENDPOINT is \"%.200s\", expected https://HOST or http://HOST", endpoint);
    for (const char *p = token; p && *p; p++)
        if (*p <= ' ' || *p > '~') return sill__fail(err, SILL_EINVAL, "the token holds characters that no token has");
    cli_http *h = sill__calloc(1, sizeof *h);
    if (!h) return sill__fail(err, SILL_ENOMEM, "no memory to fetch anything");
    if (!load(&h->c) || h->c.global_init(GLOBAL_ALL) != 0 || !(h->easy = h->c.easy_init())) {
        sill__free(h);
        return sill__fail(err, SILL_EUNSUPPORTED, "libcurl is not on this machine, by which files are fetched (Debian: libcurl4; macOS has it); or "
                          "fetch the model with another program and name its directory with -m");
    }
    const bool safe = !strncmp(origin, "https://", 8) || is_loopback(origin);
    if (token && *token && !safe) sill__log(1, "%s is not HTTPS: the token is not sent", origin);
    h->stop = stop;
    h->endpoint = sill__strndup(origin, strlen(origin));
    if (token && *token && safe) h->token = sill__strndup(token, strlen(token));
    if (h->endpoint && (h->token || !token || !*token || !safe)) {
        *out = h;
        return SILL_OK;
    }
    cli_http_close(h);
    return sill__fail(err, SILL_ENOMEM, "no memory to fetch anything");
}

void cli_http_close(cli_http *h) {
    if (!h) return;
    if (h->easy) h->c.easy_cleanup(h->easy);
    sill__free(h->endpoint);
    sill__free(h->token);
    sill__free(h);
}

/* ---- what comes back */

/* The value of LINE if its name is this one, spaces left out; NULL otherwise. */
static const char *value_of(const char *line, size_t n, const char *name, size_t *n_value) {
    size_t k = strlen(name);
    if (n <= k || line[k] != ':' || strncasecmp(line, name, k)) return NULL;
    const char *p = line + k + 1, *end = line + n;
    while (p < end && (*p == ' ' || *p == '\t')) p++;
    while (end > p && (end[-1] == '\r' || end[-1] == '\n' || end[-1] == ' ')) end--;
    *n_value = (size_t)(end - p);
    return p;
}

static void take_text(const char *line, size_t n, const char *name, char *out, size_t cap) {
    size_t k;
    const char *p = value_of(line, n, name, &k);
    if (!p) return;
    if (k >= cap) k = 0; /* longer than anything that is meant */
    for (size_t i = 0; i < k; i++) out[i] = p[i] >= 32 && p[i] < 127 ? p[i] : '?'; /* shown on a terminal, which control characters would steer */
    out[k] = 0;
}

static void take_size(const char *line, size_t n, const char *name, int64_t *out) {
    char text[24] = "", *rest;
    take_text(line, n, name, text, sizeof text);
    if (!text[0] || strspn(text, "0123456789") != strlen(text)) return;
    long long v = strtoll(text, &rest, 10);
    if (v >= 0 && v < INT64_MAX) *out = v;
}

static size_t on_header(char *line, size_t size, size_t count, void *user) {
    cli_http *h = user;
    const size_t n = size * count;
    cli_http_head *head = h->head;
    if (n > 5 && !strncmp(line, "HTTP/", 5)) { /* another answer begins: a proxy's, "100 Continue" */
        *head = (cli_http_head){.length = -1, .linked_size = -1};
        const char *space = memchr(line, ' ', n);
        for (const char *p = space ? space + 1 : line + n; p < line + n && *p >= '0' && *p <= '9' && head->status < 1000; p++)
            head->status = 10 * head->status + (*p - '0'); /* no NUL stands behind the line */
        head->ranges = head->status == 206;
    }
    take_size(line, n, "Content-Length", &head->length);
    take_size(line, n, "X-Linked-Size", &head->linked_size);
    take_text(line, n, "ETag", head->etag, sizeof head->etag);
    take_text(line, n, "X-Linked-Etag", head->linked_etag, sizeof head->linked_etag);
    take_text(line, n, "X-Repo-Commit", head->commit, sizeof head->commit);
    take_text(line, n, "X-Error-Message", head->error, sizeof head->error);
    return n;
}

static size_t on_body(char *bytes, size_t size, size_t count, void *user) {
    cli_http *h = user;
    const size_t n = size * count;
    if (!h->request->body || (h->head->status != 200 && h->head->status != 206)) /* of an error's page nothing is kept, nor its end waited for */
        return (h->page += n) > MAX_PAGE ? 0 : n;
    if (h->request->body(h->request->user, h->head, bytes, n)) return n;
    h->refused = true;
    return 0;
}

static int on_progress(void *user, int64_t down, int64_t downloaded, int64_t up, int64_t uploaded) {
    const cli_http *h = user;
    (void)down, (void)downloaded, (void)up, (void)uploaded;
    return h->stop && *h->stop;
}

/* ---- one request */

/* Seconds without a byte after which a transfer is given up, by huggingface_hub's variable. */
static long silence(void) {
    const char *text = getenv("HF_HUB_DOWNLOAD_TIMEOUT");
    long n = text && strspn(text, "0123456789") == strlen(text) && strlen(text) < 7 ? strtol(text, NULL, 10) : 0;
    return n > 0 ? n : 30;
}

/* How much of a URL messages show: what stands behind ? in addresses of large files is a key to them. */
static int shown(const char *url) { return (int)strcspn(url, "?"); }

static sill_status perform(cli_http *h, const char *url, const char *origin, sill_error *err) {
    char authorization[1024], range[48];
    void *headers = NULL;
    const api *c = &h->c;
    const bool own = h->token && !strcmp(origin, h->endpoint);
    snprintf(range, sizeof range, "%llu-", (unsigned long long)h->request->from);
    c->easy_reset(h->easy);
    h->error[0] = 0;
    h->page = 0;
    if (own && (size_t)snprintf(authorization, sizeof authorization, "Authorization: Bearer %s", h->token) >= sizeof authorization)
        return sill__fail(err, SILL_EINVAL, "the token is longer than any token");
    if (own && !(headers = c->slist_append(NULL, authorization))) return sill__fail(err, SILL_ENOMEM, "no memory to fetch anything");
    int code = c->easy_setopt(h->easy, OPT_URL, url);
    if (!code) code = c->easy_setopt(h->easy, OPT_PROTOCOLS, (long)PROTOCOLS_HTTP_HTTPS);
    if (!code && headers) code = c->easy_setopt(h->easy, OPT_HTTPHEADER, headers);
    if (!code && h->request->head_only) code = c->easy_setopt(h->easy, OPT_NOBODY, 1L);
    if (!code && h->request->from) code = c->easy_setopt(h->easy, OPT_RANGE, range);
    if (!code) code = c->easy_setopt(h->easy, OPT_FOLLOWLOCATION, 0L);
    if (!code) code = c->easy_setopt(h->easy, OPT_NOSIGNAL, 1L);
    if (!code) code = c->easy_setopt(h->easy, OPT_CONNECTTIMEOUT, 30L);
    if (!code) code = c->easy_setopt(h->easy, OPT_LOW_SPEED_LIMIT, 1L); /* nothing at all for so long */
    if (!code) code = c->easy_setopt(h->easy, OPT_LOW_SPEED_TIME, silence());
    if (!code) code = c->easy_setopt(h->easy, OPT_USERAGENT, "sill");
    if (!code) code = c->easy_setopt(h->easy, OPT_ERRORBUFFER, h->error);
    if (!code) code = c->easy_setopt(h->easy, OPT_HEADERFUNCTION, on_header);
    if (!code) code = c->easy_setopt(h->easy, OPT_HEADERDATA, (void *)h);
    if (!code) code = c->easy_setopt(h->easy, OPT_WRITEFUNCTION, on_body);
    if (!code) code = c->easy_setopt(h->easy, OPT_WRITEDATA, (void *)h);
    if (!code) code = c->easy_setopt(h->easy, OPT_XFERINFOFUNCTION, on_progress);
    if (!code) code = c->easy_setopt(h->easy, OPT_XFERINFODATA, (void *)h);
    if (!code) code = c->easy_setopt(h->easy, OPT_NOPROGRESS, 0L);
    if (!code) code = c->easy_perform(h->easy);
    if (headers) c->slist_free_all(headers);
    if (h->stop && *h->stop) return sill__fail(err, SILL_ECANCELLED, "interrupted");
    if (h->refused) return SILL_EIO; /* told by the body's taker */
    if (h->page > MAX_PAGE) return SILL_OK;  /* its status says what there is to know */
    return code ? sill__fail(err, SILL_EIO, "%.*s: %s", shown(url), url, h->error[0] ? h->error : c->easy_strerror(code)) : SILL_OK;
}

sill_status cli_http_run(cli_http *h, const cli_http_request *request, cli_http_head *head, sill_error *err) {
    char url[MAX_URL], origin[300], next_origin[300];
    h->request = request;
    h->head = head;
    h->refused = false;
    *head = (cli_http_head){.length = -1, .linked_size = -1};
    if ((size_t)snprintf(url, sizeof url, "%s", request->url) >= sizeof url || !origin_of(url, origin))
        return sill__fail(err, SILL_EINVAL, "%.200s is no address", request->url);
    for (int hops = 0;; hops++) {
        const char *next = NULL;
        sill_status s = perform(h, url, origin, err);
        if (s != SILL_OK) return s;
        if (head->status < 300 || head->status >= 400) return SILL_OK;
        if (h->c.easy_getinfo(h->easy, INFO_REDIRECT_URL, &next) != 0 || !next || !origin_of(next, next_origin))
            return sill__fail(err, SILL_EIO, "%.*s: a redirect to nowhere (status %ld)", shown(url), url, head->status);
        if (request->local_redirects && strcmp(next_origin, origin)) return SILL_OK;
        if (hops == MAX_REDIRECTS) return sill__fail(err, SILL_EIO, "%s: more than %d redirects", request->url, MAX_REDIRECTS);
        if (!strncmp(origin, "https://", 8) && strncmp(next_origin, "https://", 8))
            return sill__fail(err, SILL_EIO, "%.*s: a redirect from HTTPS to %s, which is not followed", shown(url), url, next_origin);
        if ((size_t)snprintf(url, sizeof url, "%s", next) >= sizeof url) return sill__fail(err, SILL_EIO, "%s: a redirect to a very long address", request->url);
        memcpy(origin, next_origin, sizeof origin);
    }
}
