// SPDX-License-Identifier: Apache-2.0
/* Memory that is not mapped, or not with the access that is needed. */
#include <string.h>

#include "tools/conform/conform.h"

#define NOWHERE 0x7f0000000000ull

SCENARIO(dma_is_refused, CONFORM_PROGRAM | CONFORM_QUEUE, "D-4 D-5 D-6 E-1")
{
	uint8_t *edge = t->mem + CONFORM_MEM_BYTES - 64;
	struct mr_lpu_decode_entry *e = conform_entries(t, 1);

	const uint64_t unread[] = {NOWHERE, t->wo_iova};
	MUST(conform_slot(t, 1, 0, 5, 32) == 0);
	*(struct mr_lpu_slot_param *)(void *)t->wo =
		(struct mr_lpu_slot_param){.owner = 1, .positions = 16};
	for (int i = 0; i < 2; i++) {
		uint64_t at = unread[i];
		STATUS("D-4",
		       DO(1, mr_lpu_cmd_slot_set, {MR_LPU_SLOT_SET}, .slot = 1, .generation = 1,
			  .param_iova = at, .param_bytes = sizeof(struct mr_lpu_slot_param)),
		       MR_E_DMA_FAULT);
		STATUS("D-4",
		       DO(1, mr_lpu_cmd_kv_write, {MR_LPU_KV_WRITE}, .generation = 5,
			  .descs_iova = at, .count = 1),
		       MR_E_DMA_FAULT);
		STATUS("D-4",
		       DO(1, mr_lpu_cmd_decode, {MR_LPU_DECODE}, .entries_iova = at, .count = 1,
			  .steps = 1),
		       MR_E_DMA_FAULT);
		memset(e, 0, sizeof(*e));
		e->generation = 5;
		e->forced_count = 1;
		e->forced_iova = at;
		uint32_t request = conform_decode_post(t, 1, e, 1, 2);
		STATUS("D-4", conform_wait(t, 1, request), MR_E_DMA_FAULT);
		STATUS("E-1", conform_fence(t, 1), 0);
	}
	const uint64_t unwritten[] = {NOWHERE, t->ro_iova};
	memset(t->ro, 0x5a, 4096);
	for (int i = 0; i < 2; i++) {
		STATUS("D-5",
		       DO(0, mr_lpu_cmd_identify, {MR_LPU_IDENTIFY}, .iova = unwritten[i],
			  .bytes = 512),
		       MR_E_DMA_FAULT);
		STATUS("D-5",
		       DO(0, mr_lpu_cmd_get_log, {MR_LPU_GET_LOG}, .iova = unwritten[i],
			  .bytes = 64, .log = MR_LPU_LOG_COUNTERS),
		       MR_E_DMA_FAULT);
		STATUS("E-1", conform_fence(t, 1), 0);
	}
	int same = 1;
	for (int i = 0; i < 4096; i++)
		same &= t->ro[i] == 0x5a;
	EXPECT("D-6", same);
	/* Half of it would fit: none of it may be there. */
	memset(edge, 0x5a, 64);
	STATUS("D-5",
	       DO(0, mr_lpu_cmd_identify, {MR_LPU_IDENTIFY}, .iova = conform_iova(t, edge),
		  .bytes = 512),
	       MR_E_DMA_FAULT);
	for (int i = 0; i < 64; i++)
		same &= edge[i] == 0x5a;
	EXPECT("D-6", same);
	EXPECT("E-1", conform_reg(t, MR_LPU_REG_STATUS) == MR_LPU_STATUS_READY);
}
