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
	return job;
}

static void job_post(struct cpu *cpu, struct job *job)
{
	uint32_t slots = job->type == JOB_DECODE ? job->count : 1;

	for (uint32_t i = 0; i < slots; i++)
		cpu->slots[job->entries[i].slot].inflight++;
	cpu->event_room -= job->events;
	cpu->telemetry.commands++;
	cpu->job_tail++;
	cpu_queue_post(cpu);
}

static void raise_to(uint32_t *value, uint32_t to)
{
	if (to > *value)
		*value = to;
}

int cpu_prefill(struct mr_device *dev, struct mr_slot slot, const uint32_t *tokens, uint32_t count,
		uint32_t position, uint64_t tag)
{
	struct cpu *cpu = cpu_of(dev);
	struct cpu_slot *s = cpu_slot_of(cpu, slot);
	struct job *job;

	if (!s)
		return MR_E_STALE;
	if (!count || count > dev->caps.chunk_max || position > s->posted)
		return MR_E_INVALID;
	if (count > s->config.positions - position)
		return MR_E_CONTEXT_FULL;
	for (uint32_t i = 0; i < count; i++)
		if (tokens[i] >= dev->caps.vocab)
			return MR_E_RANGE;
	job = job_new(cpu, JOB_PREFILL, 1, tag);
	if (!job)
		return MR_E_FULL;
	job->count = count;
	job->tokens = tokens;
	job->entries[0] = (struct job_entry){
		.slot = slot.index,
		.generation = slot.generation,
		.position = position,
	};
	raise_to(&s->posted, position + count);
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
	job = job_new(cpu, JOB_IMPORT, 1, tag);
	if (!job)
		return MR_E_FULL;
	job->count = count;
	memcpy(job->descs, descs, count * sizeof(*descs));
	job->entries[0] = (struct job_entry){.slot = slot.index, .generation = slot.generation};
	for (uint32_t i = 0; i < count; i++) {
		uint64_t end = (uint64_t)descs[i].block * 16 + descs[i].length;

		/* What is out of range fails when it runs. */
		if (end <= s->config.positions)
			raise_to(&s->posted, (uint32_t)end);
	}
	job_post(cpu, job);
	return 0;
}

static int entry_check(struct cpu *cpu, const struct mr_decode_entry *e, uint32_t steps)
{
	struct cpu_slot *s = cpu_slot_of(cpu, e->slot);

	if (!s)
		return MR_E_STALE;
	if (e->position > s->posted || (e->flags & ~MR_DECODE_LOGITS) ||
	    s->marked == cpu->decodes ||
	    (e->forced_count && (e->forced_count != steps - 1 || !e->forced)))
		return MR_E_INVALID;
	s->marked = cpu->decodes;
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
	job->count = count;
	job->steps = steps;
	for (uint32_t i = 0; i < count; i++) {
		const struct mr_decode_entry *e = &entries[i];

		job->entries[i] = (struct job_entry){
			.slot = e->slot.index,
			.generation = e->slot.generation,
			.position = e->position,
			.token = e->token,
			.logits = e->flags & MR_DECODE_LOGITS,
			.forced = e->forced_count != 0,
		};
		if (e->forced_count)
			memcpy(job->forced[i], e->forced, e->forced_count * sizeof(uint32_t));
		raise_to(&cpu->slots[e->slot.index].posted, e->position + steps);
	}
	job_post(cpu, job);
	return 0;
}

/* The oldest job has ended. A failed one wrote no KV that counts. */
static void job_end(struct cpu *cpu, int32_t status)
{
	const struct job *job = &cpu->jobs[cpu->job_done % CPU_JOBS];
	uint32_t slots = job->type == JOB_DECODE ? job->count : 1;

	for (uint32_t i = 0; i < slots; i++) {
		const struct job_entry *e = &job->entries[i];
		struct cpu_slot *s = &cpu->slots[e->slot];

		if (!status && job->type == JOB_PREFILL)
			raise_to(&s->written, e->position + job->count);
		for (uint32_t d = 0; !status && job->type == JOB_IMPORT && d < job->count; d++)
			raise_to(&s->written, job->descs[d].block * 16 + job->descs[d].length);
		cpu_slot_work_done(cpu, e->slot);
	}
	cpu->event_room += job->events;
	cpu->telemetry.completions++;
	cpu->telemetry.errors += status != 0;
	cpu->job_done++;
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
	uint32_t n = cpu_queue_events(cpu), i;

	disarm(cpu);
	cpu_queue_release(cpu);
	if (n > max)
		n = max;
	for (i = 0; i < n; i++) {
		struct mr_event *e = &events[i];

		*e = cpu->events[cpu->event_head++ % CPU_EVENTS];
		cpu->logits_taken += e->logits != NULL;
		if (e->type == MR_EVENT_DONE) {
			job_end(cpu, e->status);
			continue;
		}
		cpu->telemetry.records++;
		raise_to(&cpu->slots[e->slot.index].written, e->position);
	}
	return (int)n;
}

int cpu_arm(struct mr_device *dev)
{
	struct cpu *cpu = cpu_of(dev);

	cpu->armed = 1;
	__atomic_store_n(&cpu->queue.armed, 1, __ATOMIC_SEQ_CST);
	if (!cpu_queue_events(cpu))
		return 0;
	disarm(cpu);
	return 1;
}
