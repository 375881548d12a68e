/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The CPU backend: the embedded default for prefill and a decode device of its own. Generated tokens are in
 * class D, prompts in a class P where the CPU has one and unless the caller says otherwise. Its KV
 * blocks live in a KV region of the arena, so that an LPU or a GPU can take them by DMA without a copy.
 */
#ifndef MR_DRIVER_CPU_CPU_H
#define MR_DRIVER_CPU_CPU_H

#include "driver/device.h"

struct mr_arena;
struct mr_kernels;

struct mr_cpu_options {
	struct mr_arena *arena; /* KV and weights go there; must outlive the device */
	uint32_t slots;         /* 0 = 256 */
	uint32_t context;       /* positions a slot; 0 = the model's */
	uint64_t kv_tokens; /* tokens of KV in all; 0 = 16,384 or what one context needs, if more */
	const char *kernels; /* "scalar", "avx2", ...; NULL = the widest path (or MR_CPU) */
	const struct mr_kernels *table; /* tests: these kernels, instead of a name; NULL = none */
	enum mr_numerics numerics;      /* which class P is used, where the kernels have one */
	int cpu; /* pin the compute thread there; -1 = not pinned, or by threads */
	/*
	 * Compute threads; 0 = 1. Two and more are pinned to cores of their own, the highest first, where
	 * there are as many; the bits do not depend on it.
	 */
	uint32_t threads;
	uint32_t
		apart; /* 1 = each work has passes of its own, to measure what sharing them gains */
};

/*
 * Returns 0, MR_E_NO_MEMORY, MR_E_INVALID for too many threads, or MR_E_NOT_SUPPORTED for a kernel path
 * that this CPU lacks.
 */
int mr_cpu_open(const struct mr_cpu_options *options, struct mr_device **dev);

#endif /* MR_DRIVER_CPU_CPU_H */
