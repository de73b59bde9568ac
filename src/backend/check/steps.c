/* steps.c - the scripts of steps.h. */
#include "backend/check/steps.h"

/* Prefill of three ragged runs, then decoding with another prompt joining, across block borders. */
const check_script sill__chk_ragged = {"ragged", 4, {
    {3, {{2, 37}, {0, 1}, {4, 64}}}, {4, {{0, 1}, {2, 1}, {4, 1}, {1, 33}}}, {1, {{3, 5}}},
    {5, {{1, 1}, {3, 1}, {0, 30}, {2, 27}, {4, 1}}}}};
/* The same tokens on other ways. */
const check_script sill__chk_ways[N_CHECK_WAYS] = {
    {"alone", 5, {{1, {{0, 32}}}, {1, {{1, 34}}}, {1, {{2, 65}}}, {1, {{3, 6}}}, {1, {{4, 66}}}}},
    {"together", 1, {{5, {{4, 66}, {2, 65}, {1, 34}, {0, 32}, {3, 6}}}}},
    {"chunked", 5, {{3, {{0, 3}, {2, 31}, {3, 1}}}, {4, {{2, 1}, {0, 28}, {4, 11}, {3, 5}}}, {2, {{2, 33}, {1, 1}}},
                    {2, {{4, 54}, {1, 33}}}, {2, {{0, 1}, {4, 1}}}}},
};
/* One text, as it is made at a terminal. */
const check_script sill__chk_single = {"single", 4, {{1, {{0, 33}}}, {1, {{0, 1}}}, {1, {{0, 1}}}, {1, {{0, 1}}}}};
/* Many blocks of one sequence. */
const check_script sill__chk_long = {"long", 5, {{1, {{0, 200}}}, {1, {{0, 200}}}, {1, {{0, 199}}}, {1, {{0, 1}}}, {1, {{0, 1}}}}};
