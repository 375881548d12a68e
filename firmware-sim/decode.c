// SPDX-License-Identifier: Apache-2.0
#include "firmware-sim/decode.h"

#include <stdlib.h>
#include <string.h>

#include "firmware-sim/device.h"
#include "firmware-sim/mutant.h"
#include "kernels/cpu/sample.h"

int mr_sim_decode_create(struct sim_decode *d)
{
	memset(d, 0, sizeof(*d));
	d->row = calloc(SIM_BATCH_MAX, sizeof(*d->row));
	d->forced = calloc((size_t)SIM_BATCH_MAX * SIM_STEPS_MAX, sizeof(*d->forced));
	d->pass = calloc(SIM_BATCH_MAX, sizeof(*d->pass));
	if (d->row && d->forced && d->pass)
		return 0;
	mr_sim_decode_stop(d);
	return MR_E_NO_MEMORY;
}

static void release(struct sim_decode *d, uint32_t count)
{
	if (MUTANT(Q_21) && d->active && d->step + 1 < d->steps)
		return;
	for (uint32_t i = 0; i < count; i++)
		d->row[i].slot->user = 0;
	d->active = 0;
}

void mr_sim_decode_stop(struct sim_decode *d)
{
	if (d->active)
		release(d, d->count);
	free(d->row);
	free(d->forced);
	free(d->pass);
	memset(d, 0, sizeof(*d));
}

int mr_sim_decode_abort(struct sim_decode *d, uint32_t *result)
{
	*result = d->records;
	if (MUTANT(AB_6))
		d->active = 0;
	else
		release(d, d->count);
	return MR_E_CANCELLED;
}

/* Options: room for what they ask for, and none without its number. */
static int check_options(const struct mr_lpu_cmd_decode *cmd, const struct mr_lpu_decode_entry *e,
			 uint32_t vocab)
{
	if (e->logits_iova && (e->logits_iova % 4 || cmd->logits_stride < 4ull * vocab))
		return MR_E_RANGE;
	if (e->mask_iova && (e->mask_iova % 4 ||
			     cmd->mask_stride < sizeof(struct mr_lpu_mask) + (vocab + 31) / 32 * 4))
		return MR_E_RANGE;
	return e->top_iova && (e->top_iova % 8 || !cmd->top) ? MR_E_RANGE : 0;
}

static int check_entry(struct sim *sim, struct sim_queue *q, const struct mr_lpu_cmd_decode *cmd,
		       const struct mr_lpu_decode_entry *e, uint32_t i)
{
	uint32_t vocab = sim->program.c.ref->vocab;
	struct sim_decode *d = &q->decode;
	uint32_t *forced = d->forced + (size_t)i * SIM_STEPS_MAX;
	int status;

	if (e->flags || !mr_sim_zero(e->reserved, sizeof(e->reserved)) ||
	    (!e->forced_count && e->forced_iova))
		return MR_E_INVALID;
	struct sim_slot *s = mr_sim_slot_get(sim, e->slot, e->generation, &status);
	if (!s)
		return status;
	if (MUTANT(T_12) && e->token >= vocab)
		return MR_E_INVALID;
	if (e->token >= vocab || (e->forced_count && e->forced_count != cmd->steps - 1) ||
	    check_options(cmd, e, vocab))
		return MR_E_RANGE;
	status = mr_sim_slot_writable(&sim->kv, s, q, e->position, cmd->steps);
	if (status)
		return status;
	status = e->forced_count ? mr_sim_dma_read(&sim->dma, e->forced_iova, forced,
						   e->forced_count * sizeof(*forced))
				 : 0;
	if (MUTANT(M_6))
		mr_sim_dma_read(&sim->dma, mr_sim_mutant_word + 8, &s->sampling, 64);
	for (uint32_t k = 0; !status && k < e->forced_count; k++)
		status = forced[k] < vocab ? 0 : MR_E_RANGE;
	if (status)
		return status;
	s->user = q->index + 1;
	d->row[i] = (struct sim_decode_row){
		.slot = s,
		.index = e->slot,
		.position = e->position,
		.token = e->token,
		.forced = e->forced_count != 0,
		.logits_iova = e->logits_iova,
		.mask_iova = e->mask_iova,
		.top_iova = e->top_iova,
	};
	return 0;
}

int mr_sim_decode_begin(struct sim *sim, struct sim_queue *q, const struct mr_lpu_cmd_decode *cmd)
{
	struct mr_lpu_decode_entry entries[SIM_BATCH_MAX];
	struct sim_decode *d = &q->decode;
	uint32_t done = 0;
	int status;

	if (cmd->reserved0 || !mr_sim_zero(cmd->reserved, sizeof(cmd->reserved)))
		return MR_E_INVALID;
	if (sim->program.state != SIM_PROGRAM_ACTIVE)
		return MR_E_NOT_ACTIVE;
	if (!cmd->count || cmd->count > sim->program.c.header->batch ||
	    cmd->count > q->record_entries || !cmd->steps || cmd->steps > SIM_STEPS_MAX ||
	    cmd->logits_stride % 4 || cmd->mask_stride % 4 ||
	    (cmd->top > SIM_TOP_MAX && !MUTANT(T_23)) || cmd->top > sim->program.c.ref->vocab)
		return MR_E_RANGE;
	status = mr_sim_dma_read(&sim->dma, cmd->entries_iova, entries,
				 cmd->count * sizeof(entries[0]));
	while (!status && done < cmd->count) {
		status = check_entry(sim, q, cmd, &entries[done], done);
		done += !status;
	}
	if (status && MUTANT(T_1) && done) {
		struct mr_lpu_record early = {.slot = (uint16_t)d->row[0].index};
		mr_sim_queue_record(sim, q, &early);
	}
	if (status) {
		release(d, done);
		return status;
	}
	for (uint32_t i = 0; i < done; i++)
		if (d->row[i].slot->kv_end > d->row[i].position)
			mr_sim_slot_set_filled(&sim->kv, d->row[i].slot, d->row[i].position);
	d->active = 1;
	d->request = cmd->head.request;
	d->count = cmd->count;
	d->steps = cmd->steps;
	d->step = 0;
	d->stride = cmd->logits_stride;
	d->mask_stride = cmd->mask_stride;
	d->top = cmd->top;
	d->stalled = 0;
	d->records = 0;
	d->cycles = 0;
	d->begun_us = mr_sim_now_us();
	return SIM_RUNNING;
}

uint64_t mr_sim_decode_wait(struct sim *sim, struct sim_queue *q, uint64_t now_us)
{
	const struct sim_decode *d = &q->decode;
	uint32_t blocks[SIM_BATCH_MAX];
	uint64_t due;

	if (!d->active || !(sim->paced_us > 0))
		return 0;
	for (uint32_t i = 0; i < d->count; i++)
		blocks[i] = d->row[i].position / MR_KV_BLOCK_TOKENS + 1;
	due = d->begun_us +
	      (uint64_t)(sim->paced_us * (double)(d->cycles + mr_claim_cycles(sim->program.c.claims,
									      blocks, d->count)));
	return due > now_us ? due - now_us : 0;
}

int mr_sim_decode_ready(struct sim *sim, struct sim_queue *q)
{
	struct sim_decode *d = &q->decode;
	uint32_t live = 0;

	for (uint32_t i = 0; i < d->count; i++)
		live += !d->row[i].stopped;
	if (sim->paced_us > 0 && mr_sim_decode_wait(sim, q, mr_sim_now_us()))
		return 0;
	int ready = mr_sim_queue_credit(sim, q) >= live || MUTANT(Q_8);
	if (MUTANT(Q_9) && ready && d->stalled)
		d->step++;
	if (!ready && !d->stalled)
		sim->counters.credit_stalls++;
	d->stalled = !ready;
	return ready;
}

/* Logits out, token drawn, record out; the row then stands at its next position or has stopped. */
static int finish_row(struct sim *sim, struct sim_queue *q, struct sim_decode_row *row,
		      const uint32_t *forced, const float *logits, uint64_t cycle)
{
	struct sim_decode *d = &q->decode;
	struct sim_slot *s = row->slot;
	uint32_t vocab = sim->program.c.ref->vocab;
	struct mr_lpu_record record = {
		.cycle = cycle + MUTANT(T_15),
		.position = row->position + 1 + MUTANT(T_5),
		.generation = s->generation,
		.slot = (uint16_t)row->index,
	};
	const float *choice = logits;
	int status = 0;

	/* Before the token counts as fed: where the mask is late, the host decodes the step again. */
	if (row->mask_iova) {
		status = mr_sim_choice_read(
			sim, row->mask_iova + (uint64_t)d->step * d->mask_stride, record.position);
		if (MUTANT(T_21) && status)
			mr_sim_slot_fed(s, row->token);
		if (status)
			return status;
		choice = MUTANT(T_18) ? logits : mr_sim_choice_apply(sim, logits);
	}
	mr_sim_slot_fed(s, row->token);
	mr_sim_slot_set_filled(&sim->kv, s, row->position + 1);
	if (row->logits_iova && MUTANT(M_2))
		mr_sim_mutant_defer(&sim->dma, row->logits_iova, logits, 4ull * vocab);
	else if (row->logits_iova)
		status = mr_sim_dma_write(&sim->dma,
					  row->logits_iova +
						  (uint64_t)d->step *
							  (MUTANT(T_16) ? 4 * vocab : d->stride),
					  logits, 4ull * vocab);
	if (!status && row->top_iova)
		status = mr_sim_choice_top(sim, logits, d->top,
					   row->top_iova + (uint64_t)d->step * d->top *
								   sizeof(struct mr_lpu_top));
	if (status)
		return status;
	if (MUTANT(T_10))
		s->sampling.seed++;
	record.token = mr_sample(choice, vocab, &s->sampling, record.position, s->history,
				 s->history_count, sim->program.sample_scratch, &record.logprob);
	if (row->mask_iova && !MUTANT(T_19)) {
		record.logprob = mr_logprob(logits, vocab, record.token);
		sim->counters.masked++;
	}
	for (uint32_t k = 0; k < s->sampling.stop_count && !MUTANT(T_7); k++)
		row->stopped |= s->sampling.stop[k] == record.token;
	record.status = row->stopped ? MR_LPU_RECORD_STOPPED : 0;
	status = mr_sim_queue_record(sim, q, &record);
	d->records += !status;
	row->position++;
	row->token = row->forced && d->step + 1 < d->steps && !MUTANT(T_14) ? forced[d->step]
									    : record.token;
	return status;
}

int mr_sim_decode_step(struct sim *sim, struct sim_queue *q, uint32_t *result)
{
	struct sim_decode *d = &q->decode;
	uint64_t start = d->cycles;
	uint32_t live = 0;
	int status;

	if (MUTANT(T_6) && d->count > 1 && d->step == 1) {
		struct sim_decode_row first = d->row[0];
		d->row[0] = d->row[1];
		d->row[1] = first;
	}
	/* A stopped slot keeps its place, and so its cycles. */
	for (uint32_t i = 0; i < d->count; i++)
		d->pass[i] = (struct sim_row){d->row[i].slot, d->row[i].token, d->row[i].position,
					      d->row[i].stopped};
	status = mr_sim_pass(sim, d->pass, d->count);
	for (uint32_t i = 0; i < d->count; i++) {
		struct sim_decode_row *row = &d->row[i];
		if (MUTANT(T_8) && row->stopped)
			start--;
		if (row->stopped || status)
			continue;
		if (MUTANT(T_11))
			((float *)(uintptr_t)sim->pass.logits[i])[0] *= 1.0000002f;
		status = finish_row(sim, q, row, d->forced + (size_t)i * SIM_STEPS_MAX,
				    sim->pass.logits[i], start + sim->pass.record[i]);
	}
	d->cycles += sim->pass.cycles;
	live = 0;
	for (uint32_t i = 0; i < d->count; i++)
		live += !d->row[i].stopped;
	sim->counters.steps += 1 + MUTANT(L_6);
	sim->counters.cycles += d->cycles - start;
	*result = d->records;
	if (!status && ++d->step < d->steps && (live || MUTANT(T_9)))
		return SIM_RUNNING;
	release(d, d->count);
	return status;
}
