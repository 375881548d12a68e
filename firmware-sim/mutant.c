// SPDX-License-Identifier: Apache-2.0
#include "firmware-sim/mutant.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "firmware-sim/dma.h"

#ifdef MR_MUTANTS
uint64_t mr_sim_mutant_word;

int mr_sim_mutant(const char *rule)
{
	static const char *chosen;

	/* Set before the first thread starts and never after, so that every thread sees the same. */
	if (!chosen)
		chosen = getenv("MR_MUTANT") ? getenv("MR_MUTANT") : "";
	for (size_t i = 0; rule[i]; i++)
		if ((rule[i] == '_' ? '-' : rule[i]) != chosen[i])
			return 0;
	return !chosen[strlen(rule)];
}

static struct {
	uint64_t iova;
	size_t bytes;
	uint8_t at[4096];
} kept;

void mr_sim_mutant_pause(void)
{
	const struct timespec t = {.tv_nsec = 300000};

	nanosleep(&t, NULL);
}

void mr_sim_mutant_defer(struct sim_dma *dma, uint64_t iova, const void *from, size_t bytes)
{
	mr_sim_mutant_flush(dma);
	if (bytes > sizeof(kept.at))
		return;
	kept.iova = iova;
	kept.bytes = bytes;
	memcpy(kept.at, from, bytes);
}

void mr_sim_mutant_flush(struct sim_dma *dma)
{
	size_t bytes = kept.bytes;

	if (!bytes)
		return;
	kept.bytes = 0;
	mr_sim_mutant_pause();
	mr_sim_dma_write(dma, kept.iova, kept.at, bytes);
}
#endif
