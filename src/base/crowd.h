/*
 * crowd.h - how many threads to use on a machine that others use too. Threads that meet at barriers all wait for one that
 * has to share its core: from a point on, one thread fewer is faster.
 */
#ifndef SILL_BASE_CROWD_H
#define SILL_BASE_CROWD_H

#include "base/base.h"

/* State of one pool; zeroed but for n before its first use. Not thread-safe: the caller of the pool's work tells it. */
typedef struct sill__crowd {
    int n;                 /* threads there are */
    int fewer;             /* of these left out now */
    double ran, robbed;    /* seconds of work looked at, and of these how many the most robbed thread did not get */
    double retry_at;       /* when one more is tried again */
    double patience;       /* seconds until then, doubled by each vain attempt */
    bool trying;
    int falling;           /* times in a row that one fewer was not enough */
} sill__crowd;

/* Threads for the next piece of work, n / 2 (at least 1) to n. NOW: seconds. */
int sill__crowd_threads(sill__crowd *c, double now);
/* A piece of work took SECONDS, and for ROBBED of them the thread that got least was ready but had no core. */
void sill__crowd_saw(sill__crowd *c, double now, double seconds, double robbed);

#endif
