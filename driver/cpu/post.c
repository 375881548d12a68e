// SPDX-License-Identifier: Apache-2.0
/*
 * Checks work and posts it to the compute thread, and takes its events. Whatever a job will touch is
 * checked here, so that running one cannot fail; only KV that comes from elsewhere is judged there.
 */
#include "driver/cpu/internal.h"

#include <string.h>
#include <unistd.h>

/* The place of the next job, filled with what all jobs have, or NULL: full. */
static struct job *job_new(struct cpu *cpu, enum job_type type, uint32_t events, uint64_t tag)
{
	struct job *job = &cpu->jobs[cpu->job_tail % CPU_JOBS];

	if (cpu->job_tail - cpu->job_done == CPU_JOBS || cpu->event_room < events)
		return NULL;
	job->type = type;
	job->tag = tag;
	job->epoch = cpu->queue.epoch;
	job->events = events;
	job->taken = job->ended = job->fed = job->tells = 0;
	return job;
}

/* It goes out with the next poll or arm: what is posted in one turn can then go in one pass. */
static void job_post(struct cpu *cpu, struct job *job)
{
	for (uint32_t i = 0; i < cpu_job_slots(job); i++)
		cpu->slots[job->entries[i].slot].inflight++;
	cpu->event_room -= job->events;
	cpu->telemetry.commands += job->type != JOB_FORK;
	cpu->job_tail++;
}

/* What prefill and score check alike: @fed of the @count tokens are fed. */
static int feed_check(struct cpu *cpu, const struct cpu_slot *s, const uint32_t *tokens,
		      uint32_t count, uint32_t fed, uint32_t position)
{
	int status = cpu_slot_writable(cpu, s, position);

	if (status)
		return status;
	if (fed > s->config.positions - position)
		return MR_E_CONTEXT_FULL;
	for (uint32_t i = 0; i < count; i++)
		if (tokens[i] >= cpu->dev.caps.vocab)
			return MR_E_RANGE;
	return 0;
}

static struct job_entry entry_of(struct mr_slot slot, uint32_t position)
{
	return (struct job_entry){
		.slot = slot.index, .generation = slot.generation, .position = position};
}

int cpu_prefill(struct mr_device *dev, struct mr_slot slot, const uint32_t *tokens, uint32_t count,
		uint32_t position, uint64_t tag)
{
	struct cpu *cpu = cpu_of(dev);
	struct cpu_slot *s = cpu_slot_of(cpu, slot);
	uint32_t tells = 0;
	struct job *job;
	int status;

	if (!s)
		return MR_E_STALE;
	if (!count || count > dev->caps.chunk_max)
		return MR_E_INVALID;
	status = feed_check(cpu, s, tokens, count, count, position);
	if (status)
		return status;
	if (s->config.flags & MR_SLOT_KV_EVENTS)
		tells = (count + CPU_ROWS - 1) / CPU_ROWS;
	job = job_new(cpu, JOB_PREFILL, tells * cpu->shape.layers + 1, tag);
	if (!job)
		return MR_E_FULL;
	job->count = count;
	job->tokens = tokens;
	job->tells = tells;
	job->entries[0] = entry_of(slot, position);
	cpu_slot_write(s, position, position + count);
	job_post(cpu, job);
	return 0;
}

int cpu_score(struct mr_device *dev, struct mr_slot slot, const uint32_t *tokens, uint32_t count,
	      uint32_t position, uint64_t tag)
{
	struct cpu *cpu = cpu_of(dev);
	struct cpu_slot *s = cpu_slot_of(cpu, slot);
	struct job *job;
	int status;

	if (!s)
		return MR_E_STALE;
	if (count < 2 || count > dev->caps.chunk_max)
		return MR_E_INVALID;
	status = feed_check(cpu, s, tokens, count, count - 1, position);
	if (status)
		return status;
	job = job_new(cpu, JOB_SCORE, count, tag);
	if (!job)
		return MR_E_FULL;
	job->count = count;
	memcpy(job->score, tokens, count * sizeof(*tokens));
	job->entries[0] = entry_of(slot, position);
	cpu_slot_write(s, position, position + count - 1);
	job_post(cpu, job);
	return 0;
}

int cpu_kv_fork(struct mr_device *dev, struct mr_slot from, uint32_t positions,
		const struct mr_slot_config *config, struct mr_slot *slot)
{
	struct cpu *cpu = cpu_of(dev);
	struct cpu_slot *parent = cpu_slot_of(cpu, from), *s;
	struct job *job = NULL;
	int status;

	if (!parent)
		return MR_E_STALE;
	if (positions > parent->posted)
		return MR_E_TRUNCATED;
	if (config->positions < positions)
		return MR_E_INVALID;
	/* Also where nothing is copied: its end says that what is shared has been written. */
	if (positions % 16 || positions > parent->written) {
		job = job_new(cpu, JOB_FORK, 1, 0);
		if (!job)
			return MR_E_FULL;
	}
	status = cpu_slot_open_over(cpu, config, parent, positions / 16, slot);
	if (status)
		return status;
	s = &cpu->slots[slot->index];
	s->posted = positions;
	if (!job) {
		s->written = positions;
		return 0;
	}
	job->count = positions;
	job->entries[0] = entry_of(*slot, 0);
	job->entries[1] = entry_of(from, 0); /* keeps the parent's blocks until the copy has run */
	job_post(cpu, job);
	return 0;
}

int cpu_kv_import(struct mr_device *dev, struct mr_slot slot, const struct mr_kv_desc *descs,
		  uint32_t count, uint64_t tag)
{
	struct cpu *cpu = cpu_of(dev);
	struct cpu_slot *s = cpu_slot_of(cpu, slot);
	struct job *job;

	if (!s)
		return MR_E_STALE;
	if (!count || count > MR_KV_DESCS_MAX)
		return MR_E_INVALID;
	for (uint32_t i = 0; i < count; i++)
		if (descs[i].block < s->block_count &&
		    mr_blocks_shared(&cpu->pool, s->blocks[descs[i].block]))
			return MR_E_BUSY;
	job = job_new(cpu, JOB_IMPORT, 1, tag);
	if (!job)
		return MR_E_FULL;
	job->count = count;
	memcpy(job->descs, descs, count * sizeof(*descs));
	job->entries[0] = entry_of(slot, 0);
	for (uint32_t i = 0; i < count; i++) {
		uint64_t end = (uint64_t)descs[i].block * 16 + descs[i].length;

		/* What is out of range fails when it runs. */
		if (end <= s->config.positions && end > s->posted)
			s->posted = (uint32_t)end;
	}
	job_post(cpu, job);
	return 0;
}

static int entry_check(struct cpu *cpu, const struct mr_decode_entry *e, uint32_t steps)
{
	struct cpu_slot *s = cpu_slot_of(cpu, e->slot);
	int status;

	if (!s)
		return MR_E_STALE;
	if ((e->flags & ~MR_DECODE_LOGITS) || s->marked == cpu->decodes ||
	    (e->forced_count && (e->forced_count != steps - 1 || !e->forced)))
		return MR_E_INVALID;
	s->marked = cpu->decodes;
	status = cpu_slot_writable(cpu, s, e->position);
	if (status)
		return status;
	if (e->token >= cpu->dev.caps.vocab)
		return MR_E_RANGE;
	if (steps > s->config.positions - e->position)
		return MR_E_CONTEXT_FULL;
	for (uint32_t i = 0; i < e->forced_count; i++)
		if (e->forced[i] >= cpu->dev.caps.vocab)
			return MR_E_RANGE;
	return 0;
}

int cpu_decode(struct mr_device *dev, const struct mr_decode_entry *entries, uint32_t count,
	       uint32_t steps, uint64_t tag)
{
	struct cpu *cpu = cpu_of(dev);
	struct job *job;

	if (!count || count > dev->caps.batch_max || !steps || steps > dev->caps.steps_max)
		return MR_E_INVALID;
	if (!++cpu->decodes)
		cpu->decodes = 1; /* 0 marks no slot */
	for (uint32_t i = 0; i < count; i++) {
		int status = entry_check(cpu, &entries[i], steps);

		if (status)
			return status;
	}
	job = job_new(cpu, JOB_DECODE, count * steps + 1, tag);
	if (!job)
		return MR_E_FULL;
	job->count = job->live = count;
	job->steps = steps;
	for (uint32_t i = 0; i < count; i++) {
		const struct mr_decode_entry *e = &entries[i];

		job->entries[i] = (struct job_entry){
			.slot = e->slot.index,
			.generation = e->slot.generation,
			.position = e->position,
			.logits = e->flags & MR_DECODE_LOGITS,
			.forced = e->forced_count != 0,
		};
		job->rows[i] = (struct job_row){i, e->token};
		if (e->forced_count)
			memcpy(job->forced[i], e->forced, e->forced_count * sizeof(uint32_t));
		cpu_slot_write(&cpu->slots[e->slot.index], e->position, e->position + steps);
	}
	job_post(cpu, job);
	return 0;
}

/* The job at @place has ended. A failed one wrote no KV that counts. Returns whether the caller posted it. */
static int job_end(struct cpu *cpu, uint32_t place, int32_t status)
{
	struct job *job = &cpu->jobs[place];
	struct cpu_slot *s = &cpu->slots[job->entries[0].slot];

	if (!status && job->type == JOB_PREFILL)
		cpu_slot_written(s, job->entries[0].position + job->count);
	if (!status && job->type == JOB_FORK)
		cpu_slot_written(s, job->count);
	for (uint32_t d = 0; !status && job->type == JOB_IMPORT && d < job->count; d++)
		cpu_slot_written(s, job->descs[d].block * 16 + job->descs[d].length);
	for (uint32_t i = 0; i < cpu_job_slots(job); i++)
		cpu_slot_work_done(cpu, job->entries[i].slot);
	cpu->event_room += job->events;
	job->taken = 1;
	while (cpu->job_done != cpu->job_tail && cpu->jobs[cpu->job_done % CPU_JOBS].taken)
		cpu->job_done++;
	if (job->type == JOB_FORK)
		return 0;
	cpu->telemetry.completions++;
	cpu->telemetry.errors += status != 0;
	return 1;
}

/* A layer of a prefill's pass: those above it still are where the pass before left them. */
static void layer_written(struct cpu *cpu, const struct mr_event *e)
{
	struct cpu_slot *s = &cpu->slots[e->slot.index];

	if (e->layer + 1 == cpu->shape.layers) {
		cpu_slot_written(s, e->position);
		return;
	}
	s->ahead = e->layer + 1;
	s->ahead_position = e->position < s->posted ? e->position : s->posted;
}

static void disarm(struct cpu *cpu)
{
	uint64_t count;

	if (!cpu->armed)
		return;
	cpu->armed = 0;
	/* Cleared by the compute thread: it has written wait_fd, or is about to. */
	if (!__atomic_exchange_n(&cpu->queue.armed, 0, __ATOMIC_SEQ_CST))
		cpu->wakes_owed++;
	/* One read takes all writes so far; where one is still to come, the next disarm asks again. */
	if (cpu->wakes_owed && read(cpu->dev.wait_fd, &count, sizeof(count)) == sizeof(count))
		cpu->wakes_owed -= (uint32_t)count;
}

int cpu_poll(struct mr_device *dev, struct mr_event *events, uint32_t max)
{
	struct cpu *cpu = cpu_of(dev);
	uint32_t waiting = cpu_queue_events(cpu), count = 0, place;

	cpu_queue_post(cpu);
	disarm(cpu);
	cpu_queue_release(cpu);
	for (; waiting && count < max; waiting--) {
		struct mr_event *e = &events[count];

		*e = cpu->events[cpu->event_head++ & (cpu->event_cap - 1)];
		cpu->logits_taken += e->logits != NULL;
		switch (e->type) {
		case MR_EVENT_DONE:
			place = e->position;
			e->position = 0;
			count += (uint32_t)job_end(cpu, place, e->status);
			continue;
		case MR_EVENT_KV:
			layer_written(cpu, e);
			break;
		case MR_EVENT_TOKEN:
			cpu_slot_written(&cpu->slots[e->slot.index], e->position);
			cpu->telemetry.records++;
			break;
		}
		count++;
	}
	return (int)count;
}

int cpu_arm(struct mr_device *dev)
{
	struct cpu *cpu = cpu_of(dev);

	cpu_queue_post(cpu);
	cpu->armed = 1;
	__atomic_store_n(&cpu->queue.armed, 1, __ATOMIC_SEQ_CST);
	if (!cpu_queue_events(cpu))
		return 0;
	disarm(cpu);
	return 1;
}
