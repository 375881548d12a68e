// SPDX-License-Identifier: Apache-2.0
/*
 * The compute thread: runs jobs in order. A pass over the weights takes up to CPU_ROWS rows; a reset is
 * noticed between layers.
 */
#include "driver/cpu/internal.h"

#include <string.h>
#include <time.h>

#include "driver/mem/arena.h"
#include "driver/metrics.h"
#include "userlib/spec/crc32c.h"

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* KV of @layer is written up to the last row, for whoever takes it over while the pass goes on. */
static void tell_layer(struct cpu *cpu, const struct job *job, uint32_t layer,
		       const struct mr_row *last)
{
	const struct mr_event event = {
		.type = MR_EVENT_KV,
		.tag = job->tag,
		.slot = {job->entries[0].slot, job->entries[0].generation},
		.position = last->position + 1,
		.layer = layer,
	};

	if (job->kv_events)
		cpu_queue_publish(cpu, &event);
}

/* @layers layers over the rows in cpu->x, in @class. 0, or MR_E_DEVICE where a reset came. */
static int forward(struct cpu *cpu, const struct cpu_class *class, const struct job *job,
		   const struct mr_row *rows, uint32_t n, uint32_t layers)
{
	for (uint32_t l = 0; l < layers; l++) {
		if (cpu_queue_cancelled(cpu, job))
			return MR_E_DEVICE;
		mr_layer_forward(class->kern, &cpu->shape, &class->layers[l], rows, n,
				 l * cpu->layer_bytes, cpu->x, cpu->ws);
		tell_layer(cpu, job, l, &rows[n - 1]);
	}
	return 0;
}

/* Nobody reads what the last layer makes of a prompt, only its K and V. */
static int run_prefill(struct cpu *cpu, const struct job *job)
{
	const struct cpu_slot *s = &cpu->slots[job->entries[0].slot];
	uint32_t last = cpu->shape.layers - 1;
	struct mr_row rows[CPU_ROWS];

	for (uint32_t done = 0, n; done < job->count; done += n) {
		int status;

		n = job->count - done < CPU_ROWS ? job->count - done : CPU_ROWS;
		for (uint32_t i = 0; i < n; i++)
			rows[i] = (struct mr_row){s->kv, job->entries[0].position + done + i};
		mr_embed(cpu->kern, &cpu->embd, job->tokens + done, n, cpu->x);
		status = forward(cpu, &cpu->prompt, job, rows, n, last);
		if (status)
			return status;
		mr_layer_kv_only(cpu->prompt.kern, &cpu->shape, &cpu->prompt.layers[last], rows, n,
				 last * cpu->layer_bytes, cpu->x, cpu->ws);
		tell_layer(cpu, job, last, &rows[n - 1]);
		mr_count(MR_M_cpu_prefill_tokens, n);
		if (cpu->prompt.kern != cpu->kern)
			mr_count(MR_M_cpu_prefill_tokens_p, n);
	}
	return 0;
}

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

/* What a decode knows of an entry from step to step. */
struct run {
	uint32_t entry; /* of the job */
	uint32_t token; /* to be fed */
};

static void remember(struct cpu_slot *s, uint32_t token)
{
	if (s->history_count == MR_SAMPLE_HISTORY) {
		memmove(s->history, s->history + 1, (MR_SAMPLE_HISTORY - 1) * sizeof(uint32_t));
		s->history_count--;
	}
	s->history[s->history_count++] = token;
}

static uint32_t is_stop(const struct mr_sampling *sampling, uint32_t token)
{
	for (uint32_t i = 0; i < sampling->stop_count; i++)
		if (sampling->stop[i] == token)
			return 1;
	return 0;
}

/* Rows of a step, sampled by all threads. */
struct sampling {
	struct cpu *cpu;
	const struct job *job;
	const struct run *run;
	uint32_t step, rows;
	struct mr_team *team; /* NULL = the compute thread alone */
	uint32_t token[CPU_ROWS];
	float logprob[CPU_ROWS];
};

static void sample_rank(void *arg, uint32_t rank)
{
	struct sampling *a = arg;
	struct cpu *cpu = a->cpu;
	uint32_t vocab = cpu->shape.vocab;

	for (uint32_t i = rank; i < a->rows; i += mr_team_active(a->team)) {
		const struct job_entry *e = &a->job->entries[a->run[i].entry];
		struct cpu_slot *s = &cpu->slots[e->slot];

		remember(s, a->run[i].token);
		a->token[i] = mr_sample(cpu->logits + (size_t)i * vocab, vocab, &s->config.sampling,
					e->position + a->step + 1, s->history, s->history_count,
					(char *)cpu->scratch + rank * mr_sample_scratch(vocab),
					&a->logprob[i]);
	}
}

/* A row's event, and what is fed next. Returns 1 where it stopped. */
static uint32_t finish_row(struct cpu *cpu, const struct job *job, uint32_t step, struct run *run,
			   const float *logits, uint32_t token, float logprob)
{
	const struct job_entry *e = &job->entries[run->entry];
	struct cpu_slot *s = &cpu->slots[e->slot];
	struct mr_event event = {
		.type = MR_EVENT_TOKEN,
		.tag = job->tag,
		.slot = {e->slot, e->generation},
		.position = e->position + step + 1,
		.token = token,
		.logprob = logprob,
		.logits = e->logits ? logits : NULL,
	};

	event.stopped = is_stop(&s->config.sampling, event.token);
	event.seen_ns = now_ns();
	cpu_queue_publish(cpu, &event);
	run->token =
		e->forced && step + 1 < job->steps ? job->forced[run->entry][step] : event.token;
	return event.stopped;
}

static int run_step(struct cpu *cpu, const struct job *job, uint32_t step, struct run *run,
		    uint32_t *live)
{
	struct mr_row rows[CPU_ROWS];
	uint32_t ids[CPU_ROWS], n = *live, left = 0;
	struct sampling sampling = {cpu, job, run, step, n, n > 1 ? cpu->team : NULL};
	const struct cpu_class class = cpu_class_of_step(cpu, n);
	int status;

	for (uint32_t i = 0; i < n; i++) {
		const struct job_entry *e = &job->entries[run[i].entry];

		ids[i] = run[i].token;
		rows[i] = (struct mr_row){cpu->slots[e->slot].kv, e->position + step};
	}
	mr_embed(cpu->kern, &cpu->embd, ids, n, cpu->x);
	status = forward(cpu, &class, job, rows, n, cpu->shape.layers);
	if (status)
		return status;
	if (cpu_queue_wait_logits(cpu, job))
		return MR_E_DEVICE;
	mr_head_forward(class.kern, &cpu->shape, cpu->output_norm, &class.output, cpu->x, n,
			cpu->logits, cpu->ws);
	mr_team_run(sampling.team, sample_rank, &sampling);
	for (uint32_t i = 0; i < n; i++) {
		uint32_t stop = finish_row(cpu, job, step, &run[i],
					   cpu->logits + (size_t)i * cpu->shape.vocab,
					   sampling.token[i], sampling.logprob[i]);

		if (!stop)
			run[left++] = run[i];
	}
	*live = left;
	mr_count(MR_M_cpu_decode_tokens, n);
	if (class.kern != cpu->kern)
		mr_count(MR_M_cpu_decode_tokens_p, n);
	__atomic_store_n(&cpu->steps, cpu->steps + 1, __ATOMIC_RELAXED);
	return 0;
}

static int run_decode(struct cpu *cpu, const struct job *job)
{
	struct run run[CPU_BATCH_MAX];
	uint32_t live = job->count;
	int status = 0;

	for (uint32_t i = 0; i < live; i++)
		run[i] = (struct run){i, job->entries[i].token};
	for (uint32_t step = 0; step < job->steps && live && !status; step++)
		status = run_step(cpu, job, step, run, &live);
	return status;
}

/* Up to CPU_ROWS tokens in one pass over the weights, each with the logits that its own row makes. */
static int run_score(struct cpu *cpu, const struct job *job)
{
	const struct job_entry *e = &job->entries[0];
	const struct cpu_slot *s = &cpu->slots[e->slot];
	const struct cpu_class class = cpu_class_of_step(cpu, 1);
	struct mr_row rows[CPU_ROWS];

	_Static_assert(CPU_ROWS <= CPU_BATCH_MAX, "cpu->logits has a row for each");
	for (uint32_t done = 0, fed = job->count - 1, n; done < fed; done += n) {
		int status;

		n = fed - done < CPU_ROWS ? fed - done : CPU_ROWS;
		for (uint32_t i = 0; i < n; i++)
			rows[i] = (struct mr_row){s->kv, e->position + done + i};
		mr_embed(cpu->kern, &cpu->embd, job->score + done, n, cpu->x);
		status = forward(cpu, &class, job, rows, n, cpu->shape.layers);
		if (status)
			return status;
		if (cpu_queue_wait_logits(cpu, job))
			return MR_E_DEVICE;
		mr_head_forward(cpu->kern, &cpu->shape, cpu->output_norm, &cpu->output, cpu->x, n,
				cpu->logits, cpu->ws);
		for (uint32_t i = 0; i < n; i++) {
			const float *logits = cpu->logits + (size_t)i * cpu->shape.vocab;
			struct mr_event event = {
				.type = MR_EVENT_TOKEN,
				.tag = job->tag,
				.slot = {e->slot, e->generation},
				.position = rows[i].position + 1,
				.token = job->score[done + i + 1],
				.seen_ns = now_ns(),
			};

			event.logprob = mr_logprob(logits, cpu->shape.vocab, event.token);
			cpu_queue_publish(cpu, &event);
		}
		mr_count(MR_M_cpu_score_tokens, n);
	}
	return 0;
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

static int run_job(struct cpu *cpu, const struct job *job)
{
	if (cpu_queue_cancelled(cpu, job))
		return MR_E_DEVICE;
	switch (job->type) {
	case JOB_PREFILL:
		return run_prefill(cpu, job);
	case JOB_IMPORT:
		return run_import(cpu, job);
	case JOB_DECODE:
		return run_decode(cpu, job);
	case JOB_SCORE:
		return run_score(cpu, job);
	case JOB_FORK:
		return run_fork(cpu, job);
	}
	return MR_E_INTERNAL;
}

void *cpu_compute(void *arg)
{
	struct cpu *cpu = arg;
	const struct job *job;
	uint64_t parks = 0, solos = 0; /* counted so far */

	mr_numerics_enter();
	for (uint32_t taken = 0; (job = cpu_queue_next(cpu, taken)) != NULL; taken++) {
		struct mr_event done = {.type = MR_EVENT_DONE, .tag = job->tag};

		if (job->type != JOB_DECODE)
			done.slot =
				(struct mr_slot){job->entries[0].slot, job->entries[0].generation};
		done.status = run_job(cpu, job);
		mr_count(MR_M_cpu_jobs, 1);
		mr_count(cpu->path, 1);
		mr_count(MR_M_cpu_parks, mr_team_parks(cpu->team) - parks);
		mr_count(MR_M_cpu_solos, mr_team_solos(cpu->team) - solos);
		parks = mr_team_parks(cpu->team);
		solos = mr_team_solos(cpu->team);
		done.seen_ns = now_ns();
		cpu_queue_publish(cpu, &done);
	}
	return NULL;
}
