/* npy.c - numpy's .npy, version 1.0: magic, length of the header, a Python dict, spaces, a line end; then the values. The
 * header always has the same length, so that the number of rows can be written when it is known. */
#include <math.h>
#include <stdio.h>

#include "corpus/corpus.h"

void sill__npy_header(uint64_t rows, size_t width, char out[SILL__NPY_HEADER]) {
    const size_t n = SILL__NPY_HEADER - 10;
    char text[SILL__NPY_HEADER];
    snprintf(text, sizeof text, "{'descr': '<f4', 'fortran_order': False, 'shape': (%llu, %zu), }", (unsigned long long)rows, width);
    memset(out, ' ', SILL__NPY_HEADER);
    memcpy(out, "\x93NUMPY\x01\x00", 8);
    out[8] = (char)(n & 255);
    out[9] = (char)(n >> 8);
    memcpy(out + 10, text, SILL_MIN(strlen(text), n - 1));
    out[SILL__NPY_HEADER - 1] = '\n';
}

void sill__npy_put(sill__str *s, const float *values, size_t n) {
    for (size_t i = 0; i < n; i++) {
        const float value = values ? values[i] : NAN;
        uint32_t bits;
        memcpy(&bits, &value, 4);
        if (!values) bits = 0x7fc00000u; /* one NaN, whatever the machine's is */
        const unsigned char bytes[4] = {(unsigned char)bits, (unsigned char)(bits >> 8), (unsigned char)(bits >> 16), (unsigned char)(bits >> 24)};
        sill__str_put(s, bytes, 4);
    }
}
