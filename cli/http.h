/*
 * http.h - requests over HTTP by libcurl, which is looked for when it is needed (http.c says why).
 */
#ifndef SILL_CLI_HTTP_H
#define SILL_CLI_HTTP_H

#include "base/base.h"

typedef struct cli_http cli_http;

/* What a response's head says; strings are "" where it does not. */
typedef struct cli_http_head {
    long status;
    bool ranges;              /* 206: the body begins where it was asked to */
    int64_t length;           /* Content-Length; -1 */
    int64_t linked_size;      /* X-Linked-Size; -1 */
    char etag[256], linked_etag[256], commit[64], error[160];
} cli_http_head;

typedef struct cli_http_request {
    const char *url;
    bool head_only;
    bool local_redirects;     /* redirects to other hosts are not followed: their head is the answer */
    uint64_t from;            /* first byte wanted */
    /* Gets the body of an answer of status 200 or 206, in pieces; false ends the transfer. */
    bool (*body)(void *user, const cli_http_head *head, const void *bytes, size_t n);
    void *user;
} cli_http_request;

/* TOKEN (may be NULL) is sent to the host of ENDPOINT alone, and only over HTTPS or to this machine. EUNSUPPORTED: no libcurl here. */
sill_status cli_http_open(const char *endpoint, const char *token, const volatile int *stop, cli_http **out, sill_error *err);
/* One request, redirects followed (at most 10, never from HTTPS to HTTP). OK: there was an answer, whatever its status; EIO: no whole
 * answer; ECANCELLED. *HEAD is filled in any case. */
sill_status cli_http_run(cli_http *http, const cli_http_request *request, cli_http_head *head, sill_error *err);
void cli_http_close(cli_http *http);
/* libcurl's version line; NULL where there is none. */
const char *cli_http_version(void);

#endif
