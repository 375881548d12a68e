// SPDX-License-Identifier: Apache-2.0
/*
 * Queues: doorbells to indices, commands in by DMA, completions and records out, interrupts. What a
 * host may get wrong here - indices that no ring can mean, rings that are not mapped - is counted; a ring
 * that cannot be written leaves the device nothing to say with, and is fatal.
 */
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
static void take_index(struct sim *sim, uint32_t *index, const uint32_t *doorbell, uint32_t base,
		       uint32_t span, uint32_t *bad_seen)
{
	uint32_t value = __atomic_load_n(doorbell, __ATOMIC_SEQ_CST);

	if (value == *index)
		return;
	if (value - base <= span) {
		*index = value;
	} else if (value != *bad_seen) {
		*bad_seen = value;
		sim->counters.bad_doorbell++;
		__atomic_store_n(&sim->regs.refused,
				 (uint32_t)(sim->counters.refused + sim->counters.bad_doorbell),
				 __ATOMIC_RELAXED);
	}
}

static void take_doorbells(struct sim *sim, struct sim_queue *q)
{
	struct sim_doorbells *db = sim_doorbells_of(&sim->regs, q->index);

	take_index(sim, &q->sq_tail, &db->sq_tail, q->sq_head, q->entries, &q->bad_seen[0]);
	take_index(sim, &q->cq_head, &db->cq_head, q->cq_head, q->cq_tail - q->cq_head,
		   &q->bad_seen[1]);
	take_index(sim, &q->record_head, &db->record_head, q->record_head,
		   q->record_tail - q->record_head, &q->bad_seen[2]);
}

uint32_t mr_sim_queue_credit(struct sim *sim, struct sim_queue *q)
{
	take_doorbells(sim, q);
	return q->record_entries - (q->record_tail - q->record_head);
}

int mr_sim_queue_ready(struct sim *sim, struct sim_queue *q)
{
	if (!q->live)
		return 0;
	take_doorbells(sim, q);
	if (q->cq_tail - q->cq_head >= q->entries)
		return 0;
	if (q->decode.active)
		return mr_sim_decode_ready(sim, q);
	if (q->score.active)
		return mr_sim_score_ready(sim, q);
	return q->sq_tail != q->sq_head;
}

/* An armed queue raises its vector after an entry, once. */
static void interrupt(struct sim *sim, struct sim_queue *q)
{
	struct sim_doorbells *db = sim_doorbells_of(&sim->regs, q->index);

	/*
	 * The exchange is a full fence between the entry's phase and the look at arm: pairs with the
	 * host's arm, fence, look at the rings.
	 */
	if (!__atomic_exchange_n(&db->arm, 0, __ATOMIC_SEQ_CST))
		return;
	uint64_t one = 1;
	/* Under the lock, so that whoever takes the descriptor away may close it. */
	pthread_rwlock_rdlock(&sim->dma.lock);
	int fd = sim->vector_fd[q->vector];
	if (fd >= 0 && write(fd, &one, sizeof(one)) != sizeof(one))
		sim->dma.faults++; /* an interrupt is a DMA write too */
	pthread_rwlock_unlock(&sim->dma.lock);
}

static void complete(struct sim *sim, struct sim_queue *q, uint32_t request, int status,
		     uint32_t result)
{
	struct mr_lpu_completion entry = {
		.request = request,
		.result = result,
		.sq_head = (uint16_t)q->sq_head,
		.status = (uint16_t)-status,
		.phase = !(q->cq_tail / q->entries & 1),
	};
	uint64_t at = q->cq_iova + (uint64_t)(q->cq_tail % q->entries) * sizeof(entry);

	if (mr_sim_refuse(sim, status))
		mr_sim_log_error(&sim->log, q, request, status);
	if (mr_sim_dma_publish(&sim->dma, at, &entry, sizeof(entry))) {
		sim->fatal = 1;
		return;
	}
	q->cq_tail++;
	sim->counters.completions++;
	interrupt(sim, q);
}

int mr_sim_queue_record(struct sim *sim, struct sim_queue *q, struct mr_lpu_record *record)
{
	uint64_t at =
		q->record_iova + (uint64_t)(q->record_tail % q->record_entries) * sizeof(*record);

	/* Never 0: a ring has 2 entries or more, so laps end before 2^32. */
	record->phase = q->record_tail / q->record_entries + 1;
	int status = mr_sim_dma_publish(&sim->dma, at, record, sizeof(*record));
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
		status = decodes ? mr_sim_decode_step(sim, q, &result)
				 : mr_sim_score_pass(sim, q, &result);
		if (status != SIM_RUNNING)
			complete(sim, q, request, status, result);
		return 1;
	}
	uint64_t at = q->sq_iova + (uint64_t)(q->sq_head % q->entries) * sizeof(cmd);
	if (mr_sim_dma_read(&sim->dma, at, &cmd, sizeof(cmd))) {
		sim->fatal = 1;
		return 1;
	}
	q->sq_head++;
	sim->counters.commands++;
	q->opcode = cmd.head.opcode;
	if (cmd.head.flags)
		status = MR_E_INVALID;
	else if (q->index == 0)
		status = mr_sim_admin_command(sim, &cmd, &result);
	else
		status = mr_sim_io_command(sim, q, &cmd, &result);
	/* QUEUE_DELETE or a fatal fault may have ended this queue. */
	if (status != SIM_RUNNING && q->live)
		complete(sim, q, cmd.head.request, status, result);
	return 1;
}

void mr_sim_queue_stop(struct sim *sim, struct sim_queue *q)
{
	mr_sim_decode_stop(&q->decode);
	mr_sim_score_stop(&q->score);
	q->live = 0;
}
