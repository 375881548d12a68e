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
#include "firmware-sim/mutant.h"

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
	__atomic_store_n(&sim->regs.refused,
			 (uint32_t)(c->refused + (MUTANT(R_10) ? 0 : c->bad_doorbell)),
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
	if (MUTANT(Q_2) && index == &sim->queue[queue].sq_tail)
		span += 16;
	if (MUTANT(Q_3) && index != &sim->queue[queue].sq_tail)
		span += 16;
	if (value - base <= span) {
		*index = value + (MUTANT(Q_1) && queue && index == &sim->queue[queue].sq_tail);
	} else if (value != *bad_seen) {
		if (!MUTANT(Q_4))
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

	if (!sim->features.shadow || MUTANT(W_1)) {
		word[0] = __atomic_load_n(&db->sq_tail, __ATOMIC_SEQ_CST);
		word[1] = __atomic_load_n(&db->cq_head, __ATOMIC_SEQ_CST);
		word[2] = __atomic_load_n(&db->record_head, __ATOMIC_SEQ_CST);
	} else if (mr_sim_shadow_read(sim, q->index, word)) {
		return;
	}
	if (mr_sim_inject_doorbell(sim, q, word[0]))
		return;
	if (MUTANT(W_2) && sim->features.shadow && (int32_t)(db->sq_tail - word[0]) > 0)
		word[0] = db->sq_tail;
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
	if ((sim->fatal && !MUTANT(R_11)) || (!mr_sim_queue_room(q) && !MUTANT(Q_7)))
		return 0;
	if (q->abort && !MUTANT(AB_4))
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
	if (MUTANT(Q_13) || (MUTANT(W_5) && sim->features.shadow))
		return;
	if (!__atomic_exchange_n(&db->arm, MUTANT(Q_14), __ATOMIC_SEQ_CST) && !MUTANT(Q_15))
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
	if (!__atomic_fetch_or(&sim_doorbells_of(&sim->regs, q->index)->arm, 0, __ATOMIC_SEQ_CST) &&
	    !MUTANT(Q_15)) {
		q->held = 0;
		return;
	}
	uint32_t entries = MR_LPU_COALESCE_ENTRIES(sim->features.coalesce[q->index]);
	if (MUTANT(FE_8))
		entries = 0;
	if (MUTANT(FE_9) && entries)
		entries += 100;
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
	if (MUTANT(FE_10))
		return 0;
	raise_vector(sim, q);
	return 0;
}

/* What a command's end says beside its completion. */
static void tell(struct sim *sim, const struct sim_queue *q, uint32_t request, int status)
{
	if (MUTANT(E_1) && status == MR_E_DMA_FAULT)
		mr_sim_crash(sim, MR_LPU_CRASH_ASSERT, q, 0, "a mutant");
	if (status == MR_E_CANCELLED)
		sim->counters.aborted++;
	if (status == MR_E_MASK_LATE)
		sim->counters.mask_late++;
	if (!mr_sim_refuse(sim, status))
		return;
	mr_sim_log_error(&sim->log, q, request, status);
	if ((status == MR_E_DMA_FAULT && !MUTANT(EV_3)) || status == MR_E_DEVICE)
		mr_sim_event(sim, MR_LPU_EVENT_ERROR, (uint32_t)-status);
}

/* What mutants make of a completion. */
static void mutate(const struct sim_queue *q, struct mr_lpu_completion *entry)
{
	if (MUTANT(C_1) && q->opcode == MR_LPU_FENCE)
		entry->request++;
	if (MUTANT(C_2))
		entry->sq_head--;
	if (MUTANT(C_3) && q->opcode == MR_LPU_FENCE)
		entry->result = 7;
	if (MUTANT(C_4))
		entry->phase |= 2;
	if (MUTANT(C_13) && entry->status == -MR_E_INVALID)
		entry->status = 77;
	if (MUTANT(Q_5))
		entry->phase = 1;
	if (MUTANT(Q_12) && q->opcode == MR_LPU_FENCE)
		entry->request ^= 1;
	if (MUTANT(E_3) && q->opcode == MR_LPU_DECODE)
		entry->result = 0;
}

void mr_sim_queue_write(struct sim *sim, struct sim_queue *q, const struct mr_lpu_completion *e)
{
	struct mr_lpu_completion entry = {
		.request = e->request,
		.result = e->result,
		.sq_head = (uint16_t)q->sq_head,
		.status = e->status,
		.phase = !(q->cq_tail / q->entries & 1),
	};
	uint64_t at = q->cq_iova + (uint64_t)(q->cq_tail % q->entries) * sizeof(entry);

	mutate(q, &entry);
	if (MUTANT(M_5)) {
		interrupt(sim, q);
		mr_sim_mutant_pause();
	}
	if (MUTANT(M_4) && q->opcode == MR_LPU_DECODE && q->sq_head != q->sq_tail) {
		mr_sim_mutant_defer(&sim->dma, at, &entry, sizeof(entry));
		q->cq_tail++;
		return;
	}
	if (mr_sim_dma_publish(&sim->dma, at, &entry, sizeof(entry))) {
		if (MUTANT(E_2))
			return;
		mr_sim_crash(sim, MR_LPU_CRASH_RING, q, at, "completion ring");
		return;
	}
	q->cq_tail++;
	sim->counters.completions += !MUTANT(L_7);
	interrupt(sim, q);
	if (MUTANT(M_2) || MUTANT(M_3))
		mr_sim_mutant_flush(&sim->dma);
	if (MUTANT(Q_20) && q->opcode == MR_LPU_QUEUE_DELETE && !e->status) {
		for (int i = 0; i < 10; i++)
			mr_sim_mutant_pause();
		mr_sim_dma_write(&sim->dma, sim->queue[1].record_iova, sim, 64);
	}
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
	record->phase = MUTANT(Q_6) ? 1 : q->record_tail / q->record_entries + 1;
	if (MUTANT(M_3)) {
		mr_sim_mutant_defer(&sim->dma, at, record, sizeof(*record));
		q->record_tail++;
		return 0;
	}
	struct mr_lpu_record out =
		*record; /* what a fault does to it is not what the device goes on with */
	mr_sim_inject_record(sim, q, &out);
	int status = mr_sim_dma_publish(&sim->dma, at, &out, sizeof(out));
	if (status)
		return status;
	q->record_tail++;
	sim->counters.records++;
	interrupt(sim, q);
	if (MUTANT(M_4))
		mr_sim_mutant_flush(&sim->dma);
	return 0;
}

int mr_sim_queue_run(struct sim *sim, struct sim_queue *q)
{
	struct mr_lpu_command cmd;
	uint32_t result = 0;
	int status;

	if ((q->decode.active || q->score.active) && !(MUTANT(C_12) && q->sq_head != q->sq_tail)) {
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
	if (MUTANT(Q_11) && q->index == 1 && q->sq_tail - q->sq_head + (place & 1) >= 2)
		place ^= 1;
	uint64_t at = q->sq_iova + (uint64_t)place * sizeof(cmd);
	if (mr_sim_dma_read(&sim->dma, at, &cmd, sizeof(cmd))) {
		if (MUTANT(E_2))
			return 0;
		mr_sim_crash(sim, MR_LPU_CRASH_RING, q, at, "submission ring");
		return 1;
	}
	q->sq_head++;
	sim->counters.commands++;
	q->opcode = cmd.head.opcode;
	q->request = cmd.head.request;
	if (MUTANT(C_11) && cmd.head.opcode > 0xf000)
		return 1;
	if (MUTANT(EV_2) && q->index == 0 && sim->events.count && cmd.head.opcode == MR_LPU_GET_LOG)
		return 1;
	int harm = mr_sim_inject_command(sim, q, &cmd);
	if (harm > 0)
		return 1;
	if (q->aborted && q->aborted[place] && !MUTANT(AB_3))
		status = MUTANT(AB_1) ? 0 : MR_E_CANCELLED;
	else if (harm < 0)
		status = harm;
	else if (MUTANT(C_8) ? cmd.head.flags & 0x7fff : cmd.head.flags)
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
	if (MUTANT(C_10) && q->index && q->sq_head % 64 == 0)
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
