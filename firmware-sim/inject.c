// SPDX-License-Identifier: Apache-2.0
/* What faults do, at each point of the device where they can strike. inject_parse.c reads the language. */
#include "firmware-sim/inject.h"

#include <string.h>

#include "firmware-sim/device.h"
#include "firmware-sim/mutant.h"

/* A phase that is neither the old nor the new one of any place. */
#define GARBAGE_PHASE 0xdeadbee0u

static uint64_t draw(struct sim_inject *f)
{
	f->seed ^= f->seed << 13;
	f->seed ^= f->seed >> 7;
	f->seed ^= f->seed << 17;
	return f->seed;
}

/* The points of what is waiting that have been reached. */
static void arm_due(struct sim_inject *f)
{
	if (!__atomic_load_n(&f->fresh, __ATOMIC_ACQUIRE))
		return;
	pthread_mutex_lock(&f->lock);
	if (f->off)
		memset(f->armed, 0, sizeof(f->armed));
	f->off = 0;
	for (uint32_t i = 0; i < f->count;) {
		const struct sim_fault w = f->waiting[i];
		if (w.at > f->units[w.unit]) {
			i++;
			continue;
		}
		f->armed[w.kind]++;
		f->us[w.kind] = w.us;
		f->waiting[i] = f->waiting[--f->count];
	}
	if (!f->count)
		__atomic_store_n(&f->fresh, 0, __ATOMIC_RELAXED);
	pthread_mutex_unlock(&f->lock);
}

static void reach(struct sim_inject *f, enum sim_fault_unit unit)
{
	f->units[unit]++;
	arm_due(f);
}

/* One that is armed strikes: 1, and it is counted. */
static int strike(struct sim_inject *f, enum mr_sim_fault_kind kind)
{
	if (!f->armed[kind])
		return 0;
	f->armed[kind]--;
	__atomic_add_fetch(&f->injected[kind], 1, __ATOMIC_RELAXED);
	return 1;
}

static void hold(struct sim *sim, const struct sim_queue *q, enum mr_sim_fault_kind kind)
{
	sim->inject.held = q->index;
	sim->inject.held_until = mr_sim_time_us(sim) + sim->inject.us[kind];
}

static void draw_one(struct sim_inject *f)
{
	uint32_t kind;
	uint64_t every = __atomic_load_n(&f->every, __ATOMIC_ACQUIRE);

	if (!every || draw(f) % every)
		return;
	do
		kind = (uint32_t)(draw(f) % MR_SIM_FAULT_KINDS);
	while (!(f->kinds >> kind & 1));
	f->armed[kind]++;
	f->us[kind] = MR_SIM_FAULT_US;
}

static void feel_ecc(struct sim *sim, uint64_t *words)
{
	__atomic_add_fetch(words, 1, __ATOMIC_RELAXED);
	__atomic_store_n(&sim->sense.changed, 1, __ATOMIC_SEQ_CST);
}

int mr_sim_inject_turn(struct sim *sim)
{
	struct sim_inject *f = &sim->inject;

	arm_due(f);
	if (f->hung || __atomic_load_n(&f->link, __ATOMIC_SEQ_CST) != SIM_LINK_UP)
		return -1;
	int did = strike(f, MR_SIM_FAULT_ECC);
	if (did)
		feel_ecc(sim, &sim->sense.ecc_corrected);
	if (!f->held || mr_sim_time_us(sim) < f->held_until)
		return did;
	struct sim_queue *q = &sim->queue[f->held];
	f->held = 0;
	if (f->late) {
		f->late = 0;
		mr_sim_queue_write(sim, q, &f->entry);
	}
	return 1;
}

int mr_sim_inject_ready(struct sim *sim)
{
	struct sim_inject *f = &sim->inject;

	return __atomic_load_n(&f->link, __ATOMIC_SEQ_CST) == SIM_LINK_UP && !f->hung && f->held &&
	       mr_sim_time_us(sim) >= f->held_until;
}

uint64_t mr_sim_inject_wait_us(struct sim *sim)
{
	uint64_t now = mr_sim_time_us(sim);

	if (!sim->inject.held)
		return 0;
	return now < sim->inject.held_until ? sim->inject.held_until - now : 1;
}

void mr_sim_inject_reset(struct sim *sim, int function)
{
	struct sim_inject *f = &sim->inject;
	uint32_t down = SIM_LINK_DOWN;

	f->held = f->late = f->behind = f->stuck = f->begun = 0;
	if (!function)
		return;
	f->hung = 0;
	__atomic_compare_exchange_n(&f->link, &down, SIM_LINK_UP, 0, __ATOMIC_SEQ_CST,
				    __ATOMIC_SEQ_CST);
}

int mr_sim_inject_doorbell(struct sim *sim, const struct sim_queue *q, uint32_t tail)
{
	struct sim_inject *f = &sim->inject;

	if (!q->index)
		return 0;
	if (f->stuck)
		return f->stuck == q->index;
	if (!f->armed[MR_SIM_FAULT_DOORBELL] || tail == q->sq_tail)
		return 0;
	f->stuck = q->index;
	return strike(f, MR_SIM_FAULT_DOORBELL);
}

static int reads_memory(uint32_t opcode)
{
	return opcode == MR_LPU_SLOT_SET || opcode == MR_LPU_KV_WRITE || opcode == MR_LPU_KV_FORK ||
	       opcode == MR_LPU_DECODE || opcode == MR_LPU_SCORE;
}

int mr_sim_inject_command(struct sim *sim, struct sim_queue *q, const struct mr_lpu_command *cmd)
{
	struct sim_inject *f = &sim->inject;
	uint32_t opcode = cmd->head.opcode;

	if (!q->index)
		return 0;
	reach(f, SIM_AT_COMMAND);
	draw_one(f);
	if (f->behind)
		return 0; /* this one's completion comes first, whatever else is to happen */
	if (strike(f, MR_SIM_FAULT_REMOVAL)) {
		__atomic_store_n(&f->link, SIM_REMOVED, __ATOMIC_SEQ_CST);
		return 1;
	}
	if (strike(f, MR_SIM_FAULT_LINK)) {
		__atomic_store_n(&f->link, SIM_LINK_DOWN, __ATOMIC_SEQ_CST);
		return 1;
	}
	if (strike(f, MR_SIM_FAULT_HANG)) {
		f->hung = 1;
		return 1;
	}
	if (strike(f, MR_SIM_FAULT_ASSERT)) {
		mr_sim_crash(sim, MR_LPU_CRASH_ASSERT, q, 0, "injected");
		return 1;
	}
	if ((opcode == MR_LPU_DECODE || opcode == MR_LPU_SCORE) &&
	    strike(f, MR_SIM_FAULT_ECC_LOST)) {
		feel_ecc(sim, &sim->sense.ecc_uncorrected);
		return MUTANT(E_4) ? 0 : MR_E_DEVICE;
	}
	if (reads_memory(opcode) && strike(f, MR_SIM_FAULT_DMA)) {
		sim->dma.faults++;
		return MR_E_DMA_FAULT;
	}
	return 0;
}

/* Over the place of the next record or completion, which is whole again when the real one comes. */
static void scribble(struct sim *sim, const struct sim_queue *q)
{
	uint32_t words[8];
	uint64_t at;
	uint32_t bytes;

	for (int i = 0; i < 8; i++)
		words[i] = (uint32_t)draw(&sim->inject);
	if (draw(&sim->inject) % 2) {
		bytes = sizeof(struct mr_lpu_record);
		at = q->record_iova + (uint64_t)(q->record_tail % q->record_entries) * bytes;
	} else {
		bytes = sizeof(struct mr_lpu_completion);
		at = q->cq_iova + (uint64_t)(q->cq_tail % q->entries) * bytes;
	}
	words[bytes / 4 - 1] = GARBAGE_PHASE;
	mr_sim_dma_publish(&sim->dma, at, words, bytes);
}

int mr_sim_inject_step(struct sim *sim, struct sim_queue *q)
{
	struct sim_inject *f = &sim->inject;

	if (f->begun) {
		f->begun = 0; /* it was held, and goes on */
		return 0;
	}
	reach(f, SIM_AT_STEP);
	if (f->held)
		return 0; /* another queue is */
	if (strike(f, MR_SIM_FAULT_GARBAGE)) {
		scribble(sim, q);
		hold(sim, q, MR_SIM_FAULT_GARBAGE);
	} else if (strike(f, MR_SIM_FAULT_SLOW)) {
		hold(sim, q, MR_SIM_FAULT_SLOW);
	} else {
		return 0;
	}
	f->begun = 1;
	return 1;
}

void mr_sim_inject_record(struct sim *sim, struct sim_queue *q, struct mr_lpu_record *record)
{
	(void)q;
	/* No vocabulary is as large. */
	if (strike(&sim->inject, MR_SIM_FAULT_RECORD))
		record->token |= 0x80000000u;
}

int mr_sim_inject_vector(struct sim *sim, const struct sim_queue *q)
{
	return q->index && strike(&sim->inject, MR_SIM_FAULT_INTERRUPT);
}

/* A command waits that ends as soon as it is begun. */
static int quick_next(struct sim *sim, struct sim_queue *q)
{
	uint64_t at =
		q->sq_iova + (uint64_t)(q->sq_head % q->entries) * sizeof(struct mr_lpu_command);
	struct mr_lpu_head head;

	if (q->sq_head == q->sq_tail || mr_sim_dma_read(&sim->dma, at, &head, sizeof(head)))
		return 0;
	return head.opcode != MR_LPU_DECODE && head.opcode != MR_LPU_SCORE;
}

/* No word of it that a check could not see, and no request that another command could have. */
static void corrupt(struct sim_inject *f, struct mr_lpu_completion *e, uint32_t opcode)
{
	int counted =
		!e->status && e->result && (opcode == MR_LPU_DECODE || opcode == MR_LPU_SCORE);

	switch (draw(f) % (counted ? 3 : 2)) {
	case 0:
		e->request ^= 0x80000000u;
		break;
	case 1:
		e->status = 0x7abc;
		break;
	default:
		e->result = (uint32_t)(draw(f) % e->result);
	}
}

enum sim_completion_fate mr_sim_inject_completion(struct sim *sim, struct sim_queue *q,
						  struct mr_lpu_completion *e)
{
	struct sim_inject *f = &sim->inject;

	if (!q->index)
		return SIM_WRITE;
	reach(f, SIM_AT_COMPLETION);
	if (f->behind || f->held)
		return SIM_WRITE;
	if (strike(f, MR_SIM_FAULT_LATE)) {
		hold(sim, q, MR_SIM_FAULT_LATE);
		f->entry = *e;
		f->late = 1;
		return SIM_KEEP;
	}
	if (strike(f, MR_SIM_FAULT_LOST))
		return SIM_SKIP;
	if (mr_sim_queue_room(q) > 1 && strike(f, MR_SIM_FAULT_REPEATED))
		return SIM_WRITE_TWICE;
	if (f->armed[MR_SIM_FAULT_REORDERED] && mr_sim_queue_room(q) > 1 && quick_next(sim, q)) {
		strike(f, MR_SIM_FAULT_REORDERED);
		f->entry = *e;
		f->behind = q->index;
		return SIM_KEEP;
	}
	if (strike(f, MR_SIM_FAULT_CORRUPTED))
		corrupt(f, e, q->opcode);
	return SIM_WRITE;
}
