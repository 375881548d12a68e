// SPDX-License-Identifier: Apache-2.0
/*
 * ABORT. A command that waits in its submission ring gets a mark at its place there and ends when its turn
 * comes, so that the order of completions holds; one that runs ends before its next step or pass.
 */
#include "firmware-sim/device.h"
#include "firmware-sim/mutant.h"

static int mark(struct sim *sim, struct sim_queue *q, uint32_t target)
{
	struct mr_lpu_head head;

	mr_sim_queue_look(sim, q);
	for (uint32_t i = q->sq_head; i != q->sq_tail; i++) {
		uint32_t at = i % q->entries;
		if (mr_sim_dma_read(&sim->dma, q->sq_iova + at * sizeof(struct mr_lpu_command),
				    &head, sizeof(head)))
			return 0;
		if (head.request == target) {
			q->aborted[at] = 1;
			if (MUTANT(AB_2))
				q->aborted[(i + 1) % q->entries] = 1;
			return 1;
		}
	}
	return 0;
}

int mr_sim_abort(struct sim *sim, const struct mr_lpu_cmd_abort *cmd, uint32_t *result)
{
	if (!mr_sim_zero(cmd->reserved, sizeof(cmd->reserved)))
		return MR_E_INVALID;
	if (cmd->queue > SIM_IO_QUEUES)
		return MR_E_RANGE;
	struct sim_queue *q = &sim->queue[cmd->queue];
	if (!q->live)
		return MUTANT(AB_7) ? 0 : MR_E_NOT_FOUND;
	if (MUTANT(AB_8) && !cmd->queue)
		return 0;
	if (MUTANT(AB_5) && cmd->queue && !(q->decode.active && q->decode.request == cmd->target)) {
		*result = 1;
		mr_sim_queue_complete(sim, q, cmd->target, MR_E_CANCELLED, 0);
		return 0;
	}
	if (!cmd->queue) {
		*result = (uint32_t)mr_sim_events_abort(sim, cmd->target);
	} else if ((q->decode.active && q->decode.request == cmd->target) ||
		   (q->score.active && q->score.request == cmd->target)) {
		q->abort = 1;
		*result = 1;
	} else {
		*result = (uint32_t)mark(sim, q, cmd->target);
	}
	return 0;
}
