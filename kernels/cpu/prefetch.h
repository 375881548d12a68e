/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fetches lines into the first cache, or the second. In assembly, because gcc 12 takes a loop of nothing but
 * __builtin_prefetch for an empty one and drops it.
 */
#ifndef MR_KERNELS_CPU_PREFETCH_H
#define MR_KERNELS_CPU_PREFETCH_H

#include <stddef.h>

static inline void mr_prefetch_l1(const void *p, size_t bytes)
{
	for (size_t i = 0; i < bytes; i += 64)
		__asm__ __volatile__("prefetcht0 %0" : : "m"(((const char *)p)[i]));
}

static inline void mr_prefetch_l2(const void *p, size_t bytes)
{
	for (size_t i = 0; i < bytes; i += 64)
		__asm__ __volatile__("prefetcht1 %0" : : "m"(((const char *)p)[i]));
}

#endif /* MR_KERNELS_CPU_PREFETCH_H */
