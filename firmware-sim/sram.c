// SPDX-License-Identifier: Apache-2.0
#include "firmware-sim/sram.h"

#include <string.h>
#include <sys/mman.h>

#include <millrace/status.h>

int mr_sim_sram_init(struct sim_sram *sram, uint32_t chips, uint64_t bytes)
{
	memset(sram, 0, sizeof(*sram));
	sram->bytes = bytes;
	for (uint32_t c = 0; c < chips; c++) {
		void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		if (p == MAP_FAILED)
			return MR_E_NO_MEMORY;
		/* Weights are streamed through at every step: fewer TLB misses where the host can. */
		madvise(p, bytes, MADV_HUGEPAGE);
		sram->chip[sram->chips++] = p;
	}
	return 0;
}

void mr_sim_sram_fini(struct sim_sram *sram)
{
	for (uint32_t c = 0; c < sram->chips; c++)
		munmap(sram->chip[c], sram->bytes);
	sram->chips = 0;
}
