// SPDX-License-Identifier: Apache-2.0
#include "firmware-sim/shadow.h"

#include "firmware-sim/device.h"
#include "firmware-sim/mutant.h"

static uint64_t page_of(const struct sim *sim, uint32_t index)
{
	return sim->features.shadow_iova + index * sizeof(struct mr_lpu_shadow);
}

int mr_sim_shadow_check(struct sim *sim, uint64_t iova)
{
	for (uint32_t q = 0; q <= SIM_IO_QUEUES; q++) {
		uint64_t at = iova + q * sizeof(struct mr_lpu_shadow);
		uint32_t word[3];
		if (mr_sim_dma_load(&sim->dma, at, word, 3) ||
		    mr_sim_dma_store(&sim->dma, at + offsetof(struct mr_lpu_shadow, asleep), 0))
			return MR_E_DMA_FAULT;
	}
	return 0;
}

int mr_sim_shadow_read(struct sim *sim, uint32_t index, uint32_t word[3])
{
	uint64_t at = page_of(sim, index);
	int status = mr_sim_dma_load(&sim->dma, at, word, 3);

	if (status && !MUTANT(W_6))
		mr_sim_crash(sim, MR_LPU_CRASH_RING, &sim->queue[index], at, "shadow doorbells");
	return status;
}

void mr_sim_shadow_asleep(struct sim *sim, uint32_t asleep)
{
	for (uint32_t q = 0; sim->features.shadow && q <= SIM_IO_QUEUES; q++) {
		uint64_t at = page_of(sim, q) + offsetof(struct mr_lpu_shadow, asleep);
		/* Sequentially consistent, as the host's store of an index and its look at this word. */
		if (MUTANT(W_3) && q == 2)
			continue;
		if (sim->queue[q].live && mr_sim_dma_store(&sim->dma, at, asleep) && !MUTANT(W_6))
			mr_sim_crash(sim, MR_LPU_CRASH_RING, &sim->queue[q], at,
				     "shadow doorbells");
	}
}
