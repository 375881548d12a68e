/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Philox-4x32-10, the counter-based generator of Salmon et al. (2011): 128 random bits as a
 * function of a 128-bit counter and a 64-bit key, with no state. For the sampler and its test.
 */
#ifndef MR_KERNELS_CPU_PHILOX_H
#define MR_KERNELS_CPU_PHILOX_H

#include <stdint.h>

static inline void mr_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4])
{
	uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
	uint32_t k0 = key[0], k1 = key[1];

	for (int round = 0; round < 10; round++) {
		uint64_t p0 = UINT64_C(0xd2511f53) * c0, p1 = UINT64_C(0xcd9e8d57) * c2;

		c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
		c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
		c1 = (uint32_t)p1;
		c3 = (uint32_t)p0;
		k0 += 0x9e3779b9; /* the Weyl sequences of the golden ratio and of sqrt(3) - 1 */
		k1 += 0xbb67ae85;
	}
	out[0] = c0;
	out[1] = c1;
	out[2] = c2;
	out[3] = c3;
}

#endif /* MR_KERNELS_CPU_PHILOX_H */
