/*
 * doctor.h - the facts that `sill doctor` tells: lines of a section, a name and a value.
 */
#ifndef SILL_CLI_DOCTOR_H
#define SILL_CLI_DOCTOR_H

#include "common.h"

#define DOCTOR_MAX_FACTS 160

typedef struct doctor_fact { const char *section; char name[48], value[600]; bool wrong; } doctor_fact; /* wrong: something to act on */
typedef struct doctor { doctor_fact facts[DOCTOR_MAX_FACTS]; int n; bool report; } doctor; /* report: to be shown to others */

void doctor_add(doctor *d, const char *section, const char *name, const char *format, ...) SILL_PRINTF(4, 5);
/* Marks the fact added last. */
void doctor_wrong(doctor *d);
/* PATH with ~ for the home directory; in a report what lies elsewhere is shown by its last name alone. */
void doctor_path(const doctor *d, const char *path, char *out, size_t cap);

/* doctor_system.c */
void doctor_versions(doctor *d);
void doctor_processor(doctor *d);
void doctor_memory(doctor *d);
void doctor_caches(doctor *d);
void doctor_environment(doctor *d);

#endif
