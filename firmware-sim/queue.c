// SPDX-License-Identifier: Apache-2.0
/*
 * Queues: doorbells to indices, commands in by DMA, completions and records out, interrupts. What a
 * host may get wrong here - indices that no ring can mean, rings that are not mapped - is counted; a ring
 * that cannot be written leaves the device nothing to say with, and is fatal.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "firmware-sim/device.h"

int mr_sim_zero(const void *p, size_t bytes)
{
	const uint8_t *b = p;

	for (size_t i = 0; i < bytes; i++)
		if (b[i])
			return 0;
	return 1;
}

int mr_sim_refuse(struct sim *sim, int status)
{
	struct mr_lpu_counters *c = &sim->counters;

	if (status >= 0)
		return status;
	c->refused++;
	switch (status) {
	case MR_E_NOT_SUPPORTED:
		c->bad_opcode++;
		break;
	case MR_E_INVALID:
		c->bad_reserved++;
		break;
	case MR_E_RANGE:
		c->bad_range++;
		break;
	}
	__atomic_store_n(&sim->regs.refused, (uint32_t)(c->refused + c->bad_doorbell),
			 __ATOMIC_RELAXED);
	return status;
}

/*
 * Takes a doorbell's value where it lies within @span of @base, else keeps @index and counts it, once for
 * each such value.
 */
static void take_index(struct sim *sim, uint32_t queue, uint32_t *index, uint32_t value,
		       uint32_t base, uint32_t span, uint32_t *bad_seen)
{
	if (value == *index)
		return;
	if (value - base <= span) {
		*index = value;
	} else if (value != *bad_seen) {
		*bad_seen = value;
		sim->counters.bad_doorbell++;
		mr_sim_event(sim, MR_LPU_EVENT_DOORBELL, queue);
		__atomic_store_n(&sim->regs.refused,
				 (uint32_t)(sim->counters.refused + sim->counters.bad_doorbell),
				 __ATOMIC_RELAXED);
	}
}

void mr_sim_queue_look(struct sim *sim, struct sim_queue *q)
{
	const struct sim_doorbells *db = sim_doorbells_of(&sim->regs, q->index);
	uint32_t word[3];

	if (!sim->features.shadow) {
		word[0] = __atomic_load_n(&db->sq_tail, __ATOMIC_SEQ_CST);
		word[1] = __atomic_load_n(&db->cq_head, __ATOMIC_SEQ_CST);
		word[2] = __atomic_load_n(&db->record_head, __ATOMIC_SEQ_CST);
	} else if (mr_sim_shadow_read(sim, q->index, word)) {
		return;
	}
	if (mr_sim_inject_doorbell(sim, q, word[0]))
		return;
	take_index(sim, q->index, &q->sq_tail, word[0], q->sq_head, q->entries, &q->bad_seen[0]);
	take_index(sim, q->index, &q->cq_head, word[1], q->cq_head, q->cq_tail - q->cq_head,
		   &q->bad_seen[1]);
	take_index(sim, q->index, &q->record_head, word[2], q->record_head,
		   q->record_tail - q->record_head, &q->bad_seen[2]);
}

uint32_t mr_sim_queue_room(const struct sim_queue *q)
{
	return q->live ? q->entries - (q->cq_tail - q->cq_head) : 0;
}

uint32_t mr_sim_queue_credit(struct sim *sim, struct sim_queue *q)
{
	mr_sim_queue_look(sim, q);
	return q->record_entries - (q->record_tail - q->record_head);
}

int mr_sim_queue_ready(struct sim *sim, struct sim_queue *q)
{
	if (!q->live)
		return 0;
	mr_sim_queue_look(sim, q);
	if (q->index && sim->inject.held == q->index)
		return 0;
	if (sim->fatal || !mr_sim_queue_room(q))
		return 0;
	if (q->abort)
		return 1;
	if (q->decode.active)
		return mr_sim_decode_ready(sim, q);
	if (q->score.active)
		return mr_sim_score_ready(sim, q);
	return q->sq_tail != q->sq_head;
}

static void raise_vector(struct sim *sim, struct sim_queue *q)
{
	struct sim_doorbells *db = sim_doorbells_of(&sim->regs, q->index);

	q->held = 0;
	if (!__atomic_exchange_n(&db->arm, 0, __ATOMIC_SEQ_CST))
		return;
	sim->counters.interrupts++;
	if (mr_sim_inject_vector(sim, q))
		return;
	uint64_t one = 1;
	/* Held, so that whoever takes the descriptor away may close it. */
	mr_sim_dma_hold(&sim->dma);
	int fd = sim->vector_fd[q->vector];
	if (fd >= 0 && write(fd, &one, sizeof(one)) != sizeof(one))
		sim->dma.faults++; /* an interrupt is a DMA write too */
	mr_sim_dma_release(&sim->dma);
}

/* An armed queue raises its vector after an entry, once; coalescing lets some more entries come first. */
static void interrupt(struct sim *sim, struct sim_queue *q)
{
	/*
	 * A full fence between the entry's phase and the look at arm: pairs with the host's arm, fence,
	 * look at the rings.
	 */
	if (!__atomic_fetch_or(&sim_doorbells_of(&sim->regs, q->index)->arm, 0, __ATOMIC_SEQ_CST)) {
		q->held = 0;
		return;
	}
	uint32_t entries = MR_LPU_COALESCE_ENTRIES(sim->features.coalesce[q->index]);
	if (!q->held++)
		q->held_us = entries > 1 ? mr_sim_now_us() : 0;
	if (q->held >= entries)
		raise_vector(sim, q);
}

uint64_t mr_sim_queue_timer(struct sim *sim, struct sim_queue *q, uint64_t now_us)
{
	uint64_t us = MR_LPU_COALESCE_US(sim->features.coalesce[q->index]);

	if (!q->live || !q->held)
		return 0;
	if (now_us - q->held_us < us)
		return us - (now_us - q->held_us);
	raise_vector(sim, q);
	return 0;
}

/* What a command's end says beside its completion. */
static void tell(struct sim *sim, const struct sim_queue *q, uint32_t request, int status)
{
	if (status == MR_E_CANCELLED)
		sim->counters.aborted++;
	if (status == MR_E_MASK_LATE)
		sim->counters.mask_late++;
	if (!mr_sim_refuse(sim, status))
		return;
	mr_sim_log_error(&sim->log, q, request, status);
	if (status == MR_E_DMA_FAULT || status == MR_E_DEVICE)
		mr_sim_event(sim, MR_LPU_EVENT_ERROR, (uint32_t)-status);
}

void mr_sim_queue_write(struct sim *sim, struct sim_queue *q, const struct mr_lpu_completion *e)
{
	const struct mr_lpu_completion entry = {
		.request = e->request,
		.result = e->result,
		.sq_head = (uint16_t)q->sq_head,
		.status = e->status,
		.phase = !(q->cq_tail / q->entries & 1),
	};
	uint64_t at = q->cq_iova + (uint64_t)(q->cq_tail % q->entries) * sizeof(entry);

	if (mr_sim_dma_publish(&sim->dma, at, &entry, sizeof(entry))) {
		mr_sim_crash(sim, MR_LPU_CRASH_RING, q, at, "completion ring");
		return;
	}
	q->cq_tail++;
	sim->counters.completions++;
	interrupt(sim, q);
}

void mr_sim_queue_complete(struct sim *sim, struct sim_queue *q, uint32_t request, int status,
			   uint32_t result)
{
	struct mr_lpu_completion entry = {
		.request = request, .result = result, .status = (uint16_t)-status};

	tell(sim, q, request, status);
	uint32_t behind = sim->inject.behind;
	const struct mr_lpu_completion kept = sim->inject.entry;
	switch (mr_sim_inject_completion(sim, q, &entry)) {
	case SIM_KEEP:
		return;
	case SIM_SKIP:
		q->cq_tail++;
		return;
	case SIM_WRITE_TWICE:
		mr_sim_queue_write(sim, q, &entry);
		break;
	case SIM_WRITE:
		break;
	}
	mr_sim_queue_write(sim, q, &entry);
	if (behind && behind == q->index) {
		sim->inject.behind = 0;
		mr_sim_queue_write(sim, q, &kept);
	}
}

int mr_sim_queue_record(struct sim *sim, struct sim_queue *q, struct mr_lpu_record *record)
{
	uint64_t at =
		q->record_iova + (uint64_t)(q->record_tail % q->record_entries) * sizeof(*record);

	/* Never 0: a ring has 2 entries or more, so laps end before 2^32. */
	record->phase = q->record_tail / q->record_entries + 1;
	struct mr_lpu_record out =
		*record; /* what a fault does to it is not what the device goes on with */
	mr_sim_inject_record(sim, q, &out);
	int status = mr_sim_dma_publish(&sim->dma, at, &out, sizeof(out));
	if (status)
		return status;
	q->record_tail++;
	sim->counters.records++;
	interrupt(sim, q);
	return 0;
}

int mr_sim_queue_run(struct sim *sim, struct sim_queue *q)
{
	struct mr_lpu_command cmd;
	uint32_t result = 0;
	int status;

	if (q->decode.active || q->score.active) {
		int decodes = q->decode.active != 0;
		uint32_t request = decodes ? q->decode.request : q->score.request;
		if (!q->abort && mr_sim_inject_step(sim, q))
			return 1;
		if (q->abort && decodes)
			status = mr_sim_decode_abort(&q->decode, &result);
		else if (q->abort)
			status = mr_sim_score_abort(&q->score, &result);
		else
			status = decodes ? mr_sim_decode_step(sim, q, &result)
					 : mr_sim_score_pass(sim, q, &result);
		if (status != SIM_RUNNING) {
			q->abort = 0;
			mr_sim_queue_complete(sim, q, request, status, result);
		}
		return 1;
	}
	uint32_t place = q->sq_head % q->entries;
	uint64_t at = q->sq_iova + (uint64_t)place * sizeof(cmd);
	if (mr_sim_dma_read(&sim->dma, at, &cmd, sizeof(cmd))) {
		mr_sim_crash(sim, MR_LPU_CRASH_RING, q, at, "submission ring");
		return 1;
	}
	q->sq_head++;
	sim->counters.commands++;
	q->opcode = cmd.head.opcode;
	q->request = cmd.head.request;
	int harm = mr_sim_inject_command(sim, q, &cmd);
	if (harm > 0)
		return 1;
	if (q->aborted && q->aborted[place])
		status = MR_E_CANCELLED;
	else if (harm < 0)
		status = harm;
	else if (cmd.head.flags)
		status = MR_E_INVALID;
	else if (q->index == 0)
		status = mr_sim_admin_command(sim, &cmd, &result);
	else
		status = mr_sim_io_command(sim, q, &cmd, &result);
	if (q->aborted)
		q->aborted[place] = 0;
	/* QUEUE_DELETE or a fatal fault may have ended this queue. */
	if (status != SIM_RUNNING && q->live)
		mr_sim_queue_complete(sim, q, cmd.head.request, status, result);
	return 1;
}

void mr_sim_queue_stop(struct sim *sim, struct sim_queue *q)
{
	mr_sim_decode_stop(&q->decode);
	mr_sim_score_stop(&q->score);
	free(q->aborted);
	q->aborted = NULL;
	q->abort = q->held = 0;
	q->live = 0;
}
