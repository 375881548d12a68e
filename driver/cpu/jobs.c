// SPDX-License-Identifier: Apache-2.0
/*
 * The compute thread. Before each pass over the weights it looks through the jobs that wait: one may run when
 * no earlier one that has not ended names a slot of its own, so work on a slot keeps its order, and other work
 * goes beside it. Imports and forks run at once; the rows of all others that may go make the pass (pass.c). A
 * reset is noticed here and between layers.
 */
#include "driver/cpu/internal.h"

#include <string.h>
#include <time.h>

#include "driver/mem/arena.h"
#include "driver/metrics.h"
#include "userlib/spec/crc32c.h"

static int import_one(struct cpu *cpu, const struct job_entry *e, const struct mr_kv_desc *d)
{
	const struct cpu_slot *s = &cpu->slots[e->slot];
	const void *from;
	uint8_t *to;

	if (d->generation != e->generation || d->owner != s->config.owner)
		return MR_E_STALE;
	if (d->layer >= cpu->shape.layers || !d->length || d->length > 16 || d->reserved ||
	    (uint64_t)d->block * 16 + d->length > s->config.positions)
		return MR_E_RANGE;
	from = mr_arena_at(cpu->arena, d->iova, cpu->layer_bytes);
	if (!from)
		return MR_E_DMA_FAULT;
	to = s->kv[d->block] + d->layer * cpu->layer_bytes;
	memcpy(to, from, cpu->layer_bytes);
	/* Of the copy: what was read is what was checked. */
	return mr_crc32c(0, to, cpu->layer_bytes) == d->crc32c ? 0 : MR_E_CHECKSUM;
}

static int run_import(struct cpu *cpu, const struct job *job)
{
	int status = 0;

	for (uint32_t i = 0; i < job->count && !status; i++)
		status = import_one(cpu, &job->entries[0], &job->descs[i]);
	return status;
}

/* The block in which the fork ends, with all layers, after what its parent's earlier jobs wrote there. */
static int run_fork(struct cpu *cpu, const struct job *job)
{
	const struct cpu_slot *to = &cpu->slots[job->entries[0].slot];
	const struct cpu_slot *from = &cpu->slots[job->entries[1].slot];

	if (job->count % 16)
		memcpy(to->kv[job->count / 16], from->kv[job->count / 16], cpu->block_bytes);
	return 0;
}

void cpu_job_end(struct cpu *cpu, struct job *job, int32_t status)
{
	struct mr_event done = {
		.type = MR_EVENT_DONE,
		.status = status,
		.tag = job->tag,
		.position = (uint32_t)(job - cpu->jobs), /* for cpu_poll alone */
	};
	struct timespec t;

	if (job->type != JOB_DECODE)
		done.slot = (struct mr_slot){job->entries[0].slot, job->entries[0].generation};
	clock_gettime(CLOCK_MONOTONIC, &t);
	done.seen_ns = (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
	job->ended = 1;
	cpu_queue_put(cpu, &done);
	mr_count(MR_M_cpu_jobs, 1);
	mr_count(cpu->path, 1);
}

/* Takes @job's slots, or notes that they are waited for. Returns 0 where an earlier job has one of them. */
static int claim(struct cpu *cpu, const struct job *job)
{
	int free = 1;

	for (uint32_t i = 0; i < cpu_job_slots(job); i++) {
		struct cpu_slot *s = &cpu->slots[job->entries[i].slot];

		free &= s->claimed != cpu->scan;
		s->claimed = cpu->scan;
	}
	return free;
}

static void unclaim(struct cpu *cpu, const struct job *job)
{
	for (uint32_t i = 0; i < cpu_job_slots(job); i++)
		cpu->slots[job->entries[i].slot].claimed = 0;
}

/* Runs what needs no pass; fills @jobs with those that can go in one, oldest first. Returns how many. */
static uint32_t scan(struct cpu *cpu, uint32_t tail, struct job **jobs)
{
	/* Read after the tail: whatever of these jobs is of another epoch was posted before a reset. */
	uint32_t epoch = cpu_queue_epoch(cpu), count = 0, ran = 0;

	cpu->scan++;
	for (uint32_t i = cpu->job_first; i != tail; i++) {
		struct job *job = &cpu->jobs[i % CPU_JOBS];

		if (cpu->options.apart && count + ran)
			break;
		if (job->ended)
			continue;
		if (job->epoch != epoch) {
			cpu_job_end(cpu, job, MR_E_DEVICE);
			continue;
		}
		if (!claim(cpu, job))
			continue;
		if (job->type != JOB_IMPORT && job->type != JOB_FORK) {
			jobs[count++] = job;
			continue;
		}
		ran++;
		cpu_job_end(cpu, job,
			    job->type == JOB_IMPORT ? run_import(cpu, job) : run_fork(cpu, job));
		unclaim(cpu, job);
	}
	return count;
}

/* Tells the host of what ended. The places are no longer looked at before it can use them anew. */
static void publish(struct cpu *cpu, uint32_t tail)
{
	while (cpu->job_first != tail && cpu->jobs[cpu->job_first % CPU_JOBS].ended)
		cpu->job_first++;
	cpu_queue_publish(cpu);
}

void *cpu_compute(void *arg)
{
	struct cpu *cpu = arg;
	struct job *jobs[CPU_JOBS];
	uint64_t parks = 0, solos = 0; /* counted so far */
	uint32_t tail;

	mr_numerics_enter();
	while (!cpu_queue_wait(cpu, &tail)) {
		uint32_t events = cpu->event_tail, count = scan(cpu, tail, jobs);

		if (cpu->event_tail != events)
			publish(cpu, tail);
		if (!count)
			continue;
		cpu_pass(cpu, jobs, count);
		mr_count(MR_M_cpu_parks, mr_team_parks(cpu->team) - parks);
		mr_count(MR_M_cpu_solos, mr_team_solos(cpu->team) - solos);
		parks = mr_team_parks(cpu->team);
		solos = mr_team_solos(cpu->team);
		publish(cpu, tail);
	}
	return NULL;
}
