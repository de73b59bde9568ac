/* crowd.c - the decision of crowd.h: where one thread of n loses more than 1/n of its time, n - 1 threads are faster. */
#include "base/crowd.h"

#define WINDOW 0.03        /* seconds of work that a decision rests on: several time slices of a scheduler */
#define MARGIN 0.05        /* of a thread: what a change must promise */
#define SHORT 0.25         /* seconds until the first attempt to go back */
#define LONG 4.0           /* the longest such wait */

int sill__crowd_threads(sill__crowd *c, double now) {
    if (c->fewer && !c->trying && now >= c->retry_at) {
        c->trying = true;
        c->fewer--;
        c->ran = c->robbed = 0;
    }
    return c->n - c->fewer;
}

/* Fewer threads did not help: whatever keeps them waiting is not what this cures. All are used for a while. */
static void give_up(sill__crowd *c, double now) {
    c->fewer = c->falling = 0;
    c->patience = LONG;
    c->retry_at = now + LONG;
}

void sill__crowd_saw(sill__crowd *c, double now, double seconds, double robbed) {
    int n = c->n - c->fewer;
    c->ran += seconds;
    c->robbed += robbed;
    if (c->ran < WINDOW) return;
    const bool too_many = n > 1 && c->robbed > c->ran * (1.0 / n + MARGIN);
    c->ran = c->robbed = 0;
    if (!c->fewer && now < c->retry_at) return;
    c->falling = too_many && !c->trying ? c->falling + 1 : 0;
    if (too_many && (c->falling > SILL_MAX(2, c->n / 4) || 2 * (n - 1) < c->n)) {
        give_up(c, now);
    } else if (too_many) {
        c->patience = c->trying ? SILL_MIN(2 * c->patience, LONG) : SHORT;
        c->fewer++;
    } else if (c->trying) {
        c->patience = SHORT;
    }
    if (c->fewer && (too_many || c->trying)) c->retry_at = now + c->patience;
    c->trying = false;
}
