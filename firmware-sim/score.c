// SPDX-License-Identifier: Apache-2.0
#include "firmware-sim/score.h"

#include <stdlib.h>
#include <string.h>

#include "firmware-sim/device.h"
#include "firmware-sim/mutant.h"
#include "kernels/cpu/sample.h"

int mr_sim_score_create(struct sim_score *s)
{
	memset(s, 0, sizeof(*s));
	s->tokens = calloc(SIM_SCORE_MAX, sizeof(*s->tokens));
	return s->tokens ? 0 : MR_E_NO_MEMORY;
}

static void release(struct sim_score *s)
{
	s->slot->user = 0;
	s->active = 0;
}

void mr_sim_score_stop(struct sim_score *s)
{
	if (s->active)
		release(s);
	free(s->tokens);
	memset(s, 0, sizeof(*s));
}

int mr_sim_score_begin(struct sim *sim, struct sim_queue *q, const struct mr_lpu_cmd_score *cmd)
{
	struct sim_score *s = &q->score;
	int status;

	if (!mr_sim_zero(cmd->reserved, sizeof(cmd->reserved)))
		return MR_E_INVALID;
	struct sim_slot *slot = mr_sim_slot_get(sim, cmd->slot, cmd->generation, &status);
	if (!slot)
		return status;
	if (cmd->count < 2 || cmd->count > SIM_SCORE_MAX)
		return MR_E_RANGE;
	status = mr_sim_slot_writable(&sim->kv, slot, q, cmd->position, cmd->count - 1);
	if (!status)
		status = mr_sim_dma_read(&sim->dma, cmd->tokens_iova, s->tokens,
					 cmd->count * sizeof(*s->tokens));
	for (uint32_t i = 0; !status && i < cmd->count; i++)
		status = s->tokens[i] < sim->program.c.ref->vocab || MUTANT(X_1) ? 0 : MR_E_RANGE;
	if (status)
		return status;
	if (slot->kv_end > cmd->position)
		mr_sim_slot_set_filled(&sim->kv, slot, cmd->position);
	slot->user = q->index + 1;
	s->active = 1;
	s->request = cmd->head.request;
	s->slot = slot;
	s->index = cmd->slot;
	s->position = cmd->position;
	s->count = cmd->count;
	s->done = s->stalled = 0;
	s->cycles = 0;
	return SIM_RUNNING;
}

int mr_sim_score_abort(struct sim_score *s, uint32_t *result)
{
	*result = s->done;
	release(s);
	return MR_E_CANCELLED;
}

static uint32_t smaller(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

static uint32_t rows_of(const struct sim *sim, const struct sim_queue *q)
{
	uint32_t most = smaller(sim->program.c.header->batch, q->record_entries);

	if (MUTANT(X_7))
		most--;

	return smaller(most, q->score.count - 1 - q->score.done);
}

int mr_sim_score_ready(struct sim *sim, struct sim_queue *q)
{
	int ready = mr_sim_queue_credit(sim, q) >= rows_of(sim, q);

	if (!ready && !q->score.stalled)
		sim->counters.credit_stalls++;
	q->score.stalled = !ready;
	return ready;
}

int mr_sim_score_pass(struct sim *sim, struct sim_queue *q, uint32_t *result)
{
	uint32_t vocab = sim->program.c.ref->vocab, rows = rows_of(sim, q);
	struct sim_score *s = &q->score;
	struct sim_decode *d = &q->decode; /* idle: its rows are free */
	const uint32_t *given = s->tokens + s->done + 1;
	uint32_t position = s->position + s->done;
	uint64_t start = s->cycles;
	int status;

	for (uint32_t i = 0; i < rows; i++)
		d->pass[i] = (struct sim_row){s->slot, s->tokens[s->done + i], position + i, 0};
	status = mr_sim_pass(sim, d->pass, rows);
	mr_sim_slot_set_filled(&sim->kv, s->slot, position + rows + MUTANT(X_4));
	for (uint32_t i = 0; MUTANT(X_5) && i < rows; i++)
		mr_sim_slot_fed(s->slot, given[i]);
	for (uint32_t i = 0; i < rows && !status; i++) {
		struct mr_lpu_record record = {
			.cycle = (MUTANT(X_9) ? 0 : start) + sim->pass.record[i] + MUTANT(X_8),
			.token = given[i] ^ (MUTANT(X_6) && i == 1),
			.position = position + i + 1,
			.generation = s->slot->generation,
			.slot = (uint16_t)s->index,
			.logprob = mr_logprob(sim->pass.logits[i], vocab, given[i]) +
				   (MUTANT(X_10) ? 1e-3f : 0),
		};
		status = mr_sim_queue_record(sim, q, &record);
		s->done += !status;
	}
	s->cycles += sim->pass.cycles;
	*result = s->done;
	sim->counters.score_passes++;
	sim->counters.score_records += s->done + s->position - position;
	sim->counters.cycles += s->cycles - start;
	if (!status && s->done + 1 < s->count)
		return SIM_RUNNING;
	release(s);
	return status;
}
