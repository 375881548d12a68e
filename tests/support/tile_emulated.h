/* SPDX-License-Identifier: Apache-2.0 */
/* The emulated tile unit and the amx path over it, for tests on a CPU that has AVX-512 with VNNI. */
#ifndef MR_TESTS_TILE_EMULATED_H
#define MR_TESTS_TILE_EMULATED_H

#include <stdint.h>

#include "kernels/cpu/kernels.h"

/* Class D with int8 tiles; its prompt is class P-amx-bf16. Named "amx-emulated". */
extern const struct mr_kernels kernels_emulated;

/* Whether this CPU can run it. */
static inline int kernels_emulated_runnable(void)
{
	return mr_kernels_select("avx512") != NULL;
}

/* Tile products made so far, by all threads: that a path used the unit at all. */
uint64_t tile_emulated_products(void);

#endif /* MR_TESTS_TILE_EMULATED_H */
