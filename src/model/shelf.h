/*
 * shelf.h - blocks of memory that live as long as a model: what its files' options point to.
 */
#ifndef SILL_MODEL_SHELF_H
#define SILL_MODEL_SHELF_H

#include <stddef.h>

typedef struct sill__shelf sill__shelf;

sill__shelf *sill__shelf_make(void); /* NULL: no memory */
void sill__shelf_free(sill__shelf *shelf); /* NULL is allowed */
/* A copy of N bytes, aligned for any type; where there is an equal one already, that one. From any thread. NULL: no memory. */
const void *sill__shelf_put(sill__shelf *shelf, const void *bytes, size_t n);

#endif
