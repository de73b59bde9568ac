/* Inside libmetalcuda: the fake Metal of tests/fakemetal whose kernels run on an NVIDIA GPU. compile.c makes a GPU program of the
 * kernels' text, cuda.c keeps buffers in the GPU's memory and launches. */
#ifndef METALCUDA_H
#define METALCUDA_H
#include "../fakemetal/fake.h"

/* The file of the GPU program (cubin, or PTX where there is no ptxas) of this library; to be freed. NULL: *log says why. */
char *metalcuda_program(const fake_lib *lib, char **log);
#endif
