// SPDX-License-Identifier: Apache-2.0
/*
 * One pass over the weights for rows of several jobs: a DECODE's step, tokens of prompts, tokens to be scored.
 * In a numeric class a row's bits do not depend on its company; so which rows meet is a matter of time alone.
 * Where prompts are in another class than the rows with logits, each layer is gone through for these first,
 * then for those: where both classes read the same weights, they find them in the cache. What the rows of a pass make is told to the host at its end, all at
 * once, so that what it posts in answer can meet in the next one. On the compute thread.
 */
#include "driver/cpu/internal.h"

#include <string.h>
#include <time.h>

#include "driver/metrics.h"

/* Rows kept for the oldest job where DECODEs would take all: a block, so that no prompt starves. */
#define OLDEST_ROWS 16u

/* Rows of one job. */
struct part {
	struct job *job;
	uint32_t first, count;
	uint32_t tell; /* 1 = the host hears of each layer */
};

struct pass {
	uint32_t epoch;
	struct cpu_class class; /* of the rows with logits; the others are in cpu->prompt */
	struct part parts[CPU_ROWS];
	uint32_t part_count;
	uint32_t rows;
	uint32_t
		heads; /* the first so many rows have logits made; the others leave only their KV */
	struct mr_row row[CPU_ROWS];
	uint32_t ids[CPU_ROWS];
	const struct part *part_of[CPU_ROWS]; /* of a row with logits */
	uint32_t token[CPU_ROWS];
	float logprob[CPU_ROWS];
};

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint32_t least(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

/* ---- which rows ---- */

/* Rows that @job could use now. */
static uint32_t wanted(const struct job *job)
{
	return job->type == JOB_DECODE  ? job->live
	       : job->type == JOB_SCORE ? job->count - 1 - job->fed
					: job->count - job->fed;
}

static struct cpu_class class_of(const struct cpu *cpu, const struct job *job)
{
	return cpu_class_of_step(cpu, job->type == JOB_DECODE ? job->live : 1);
}

/* Whether @job can be in @p: its rows with logits are of one class, the oldest one's. */
static int fits(const struct cpu *cpu, const struct pass *p, const struct job *job)
{
	return job->type == JOB_PREFILL || class_of(cpu, job).kern == p->class.kern;
}

static void add(struct pass *p, struct job *job, uint32_t count)
{
	p->parts[p->part_count++] = (struct part){.job = job, .count = count};
	p->rows += count;
}

/* A DECODE goes whole and before prompts, as its tokens are waited for; but the oldest job always goes. */
static void choose(const struct cpu *cpu, struct pass *p, struct job *const *jobs, uint32_t count)
{
	uint32_t kept = jobs[0]->type == JOB_DECODE ? 0 : least(wanted(jobs[0]), OLDEST_ROWS);

	_Static_assert(CPU_ROWS >= CPU_BATCH_MAX, "a step fits a pass");
	p->class = cpu_class_of_step(cpu, 1);
	for (uint32_t i = count; i-- > 0;)
		if (jobs[i]->type != JOB_PREFILL)
			p->class = class_of(cpu, jobs[i]);
	for (uint32_t i = 0; i < count; i++)
		if (jobs[i]->type == JOB_DECODE && p->rows + jobs[i]->live + kept <= CPU_ROWS &&
		    fits(cpu, p, jobs[i]))
			add(p, jobs[i], jobs[i]->live);
	for (uint32_t i = 0; i < count && p->rows < CPU_ROWS; i++)
		if (jobs[i]->type != JOB_DECODE && fits(cpu, p, jobs[i]))
			add(p, jobs[i], least(wanted(jobs[i]), CPU_ROWS - p->rows));
}

static void fill_part(const struct cpu *cpu, struct pass *p, const struct part *part)
{
	const struct job *job = part->job;
	const uint32_t *tokens = job->type == JOB_SCORE ? job->score : job->tokens;

	for (uint32_t i = 0; i < part->count; i++) {
		uint32_t at = part->first + i;
		const struct job_row *r = &job->rows[i];
		const struct job_entry *e = &job->entries[job->type == JOB_DECODE ? r->entry : 0];
		uint32_t ahead = job->type == JOB_DECODE ? job->fed : job->fed + i;

		p->ids[at] = job->type == JOB_DECODE ? r->token : tokens[job->fed + i];
		p->row[at] = (struct mr_row){cpu->slots[e->slot].kv, e->position + ahead};
		p->part_of[at] = part;
	}
}

/* Rows with logits first. */
static void lay_out(const struct cpu *cpu, struct pass *p)
{
	uint32_t at = 0;

	for (int kv_only = 0; kv_only < 2; kv_only++) {
		for (uint32_t i = 0; i < p->part_count; i++) {
			struct part *part = &p->parts[i];

			if ((part->job->type == JOB_PREFILL) != kv_only)
				continue;
			part->first = at;
			at += part->count;
			fill_part(cpu, p, part);
		}
		if (!kv_only)
			p->heads = at;
	}
}

/* ---- layers ---- */

/* Only so many passes of a prefill tell as had room reserved for it: its last one does in any case. */
static void choose_tellers(struct pass *p)
{
	for (uint32_t i = 0; i < p->part_count; i++) {
		struct part *part = &p->parts[i];
		struct job *job = part->job;
		uint32_t after = wanted(job) - part->count;

		part->tell = job->tells > (after + CPU_ROWS - 1) / CPU_ROWS;
	}
}

/* KV of @layer is written up to each part's last row, for whoever takes it over while the pass goes on. */
static void tell_layer(struct cpu *cpu, const struct pass *p, uint32_t layer)
{
	uint32_t events = cpu->event_tail;

	for (uint32_t i = 0; i < p->part_count; i++) {
		const struct part *part = &p->parts[i];
		const struct job_entry *e = &part->job->entries[0];
		const struct mr_event event = {
			.type = MR_EVENT_KV,
			.tag = part->job->tag,
			.slot = {e->slot, e->generation},
			.position = p->row[part->first + part->count - 1].position + 1,
			.layer = layer,
		};

		if (part->tell)
			cpu_queue_put(cpu, &event);
	}
	if (cpu->event_tail != events)
		cpu_queue_publish(cpu);
}

/* Layer @l in @class over @count rows from @first on. */
static void layer_rows(struct cpu *cpu, const struct pass *p, const struct cpu_class *class,
		       uint32_t l, uint32_t first, uint32_t count)
{
	if (count)
		mr_layer_forward(class->kern, &cpu->shape, &class->layers[l], p->row + first, count,
				 l * cpu->layer_bytes, cpu->x + (size_t)first * cpu->shape.width,
				 cpu->ws);
}

/* All layers. 0, or -1 where a reset came. */
static int forward(struct cpu *cpu, const struct pass *p)
{
	uint32_t last = cpu->shape.layers - 1, prompts = p->rows - p->heads;
	int one_class = p->class.kern == cpu->prompt.kern;

	mr_embed(cpu->kern, &cpu->embd, p->ids, p->rows, cpu->x);
	for (uint32_t l = 0; l < last; l++) {
		if (cpu_queue_epoch(cpu) != p->epoch)
			return -1;
		layer_rows(cpu, p, &p->class, l, 0, one_class ? p->rows : p->heads);
		if (!one_class)
			layer_rows(cpu, p, &cpu->prompt, l, p->heads, prompts);
		tell_layer(cpu, p, l);
	}
	if (cpu_queue_epoch(cpu) != p->epoch)
		return -1;
	/* Nobody reads what the last layer makes of a prompt, only its K and V. */
	layer_rows(cpu, p, &p->class, last, 0, p->heads);
	if (prompts)
		mr_layer_kv_only(cpu->prompt.kern, &cpu->shape, &cpu->prompt.layers[last],
				 p->row + p->heads, prompts, last * cpu->layer_bytes,
				 cpu->x + (size_t)p->heads * cpu->shape.width, cpu->ws);
	tell_layer(cpu, p, last);
	return 0;
}

/* ---- tokens ---- */

static void remember(struct cpu_slot *s, uint32_t token)
{
	if (s->history_count == MR_SAMPLE_HISTORY) {
		memmove(s->history, s->history + 1, (MR_SAMPLE_HISTORY - 1) * sizeof(uint32_t));
		s->history_count--;
	}
	s->history[s->history_count++] = token;
}

/* What all threads share while tokens are drawn or weighed, a row at a time. */
struct sampling {
	struct cpu *cpu;
	struct pass *pass;
	struct mr_team *team; /* NULL = the compute thread alone */
};

static void sample_row(struct cpu *cpu, struct pass *p, uint32_t at, void *scratch)
{
	const struct part *part = p->part_of[at];
	const struct job *job = part->job;
	uint32_t vocab = cpu->shape.vocab, i = at - part->first;
	const float *logits = cpu->logits + (size_t)at * vocab;
	struct cpu_slot *s;

	if (job->type == JOB_SCORE) {
		p->token[at] = job->score[job->fed + i + 1];
		p->logprob[at] = mr_logprob(logits, vocab, p->token[at]);
		return;
	}
	s = &cpu->slots[job->entries[job->rows[i].entry].slot];
	remember(s, job->rows[i].token);
	p->token[at] = mr_sample(logits, vocab, &s->config.sampling, p->row[at].position + 1,
				 s->history, s->history_count, scratch, &p->logprob[at]);
}

static void sample_rank(void *arg, uint32_t rank)
{
	struct sampling *a = arg;
	void *scratch = (char *)a->cpu->scratch + rank * mr_sample_scratch(a->cpu->shape.vocab);

	for (uint32_t at = rank; at < a->pass->heads; at += mr_team_active(a->team))
		sample_row(a->cpu, a->pass, at, scratch);
}

/* Logits of the first rows, and the token of each. 0, or -1 where a reset came. */
static int make_tokens(struct cpu *cpu, struct pass *p)
{
	struct sampling sampling = {cpu, p, p->heads > 1 ? cpu->team : NULL};

	if (!p->heads)
		return 0;
	if (cpu_queue_wait_logits(cpu, p->epoch))
		return -1;
	mr_head_forward(p->class.kern, &cpu->shape, cpu->output_norm, &p->class.output, cpu->x,
			p->heads, cpu->logits, cpu->ws);
	mr_count(MR_M_cpu_logits, p->heads);
	mr_team_run(sampling.team, sample_rank, &sampling);
	return 0;
}

/* ---- what has been made ---- */

static uint32_t is_stop(const struct mr_sampling *sampling, uint32_t token)
{
	for (uint32_t i = 0; i < sampling->stop_count; i++)
		if (sampling->stop[i] == token)
			return 1;
	return 0;
}

/* A row's event, and what is fed next. Returns 1 where it stopped. */
static uint32_t finish_row(struct cpu *cpu, const struct pass *p, struct job *job,
			   struct job_row *row, uint32_t at)
{
	const struct job_entry *e = &job->entries[job->type == JOB_DECODE ? row->entry : 0];
	const struct cpu_slot *s = &cpu->slots[e->slot];
	struct mr_event event = {
		.type = MR_EVENT_TOKEN,
		.tag = job->tag,
		.slot = {e->slot, e->generation},
		.position = p->row[at].position + 1,
		.token = p->token[at],
		.logprob = p->logprob[at],
		.seen_ns = now_ns(),
	};

	if (job->type == JOB_DECODE) {
		event.logits = e->logits ? cpu->logits + (size_t)at * cpu->shape.vocab : NULL;
		event.stopped = is_stop(&s->config.sampling, event.token);
		row->token = e->forced && job->fed + 1 < job->steps
				     ? job->forced[row->entry][job->fed]
				     : event.token;
	}
	cpu_queue_put(cpu, &event);
	return event.stopped;
}

static void finish_decode(struct cpu *cpu, const struct pass *p, const struct part *part)
{
	struct job *job = part->job;

	job->live = 0;
	for (uint32_t i = 0; i < part->count; i++)
		if (!finish_row(cpu, p, job, &job->rows[i], part->first + i))
			job->rows[job->live++] = job->rows[i];
	if (++job->fed == job->steps || !job->live)
		cpu_job_end(cpu, job, 0);
	mr_count(MR_M_cpu_decode_tokens, part->count);
	if (p->class.kern != cpu->kern)
		mr_count(MR_M_cpu_decode_tokens_p, part->count);
	__atomic_store_n(&cpu->steps, cpu->steps + 1, __ATOMIC_RELAXED);
}

static void finish_part(struct cpu *cpu, const struct pass *p, const struct part *part)
{
	struct job *job = part->job;

	if (job->type == JOB_DECODE) {
		finish_decode(cpu, p, part);
		return;
	}
	for (uint32_t i = 0; job->type == JOB_SCORE && i < part->count; i++)
		finish_row(cpu, p, job, NULL, part->first + i);
	job->tells -= part->tell;
	job->fed += part->count;
	if (!wanted(job))
		cpu_job_end(cpu, job, 0);
	mr_count(job->type == JOB_SCORE ? MR_M_cpu_score_tokens : MR_M_cpu_prefill_tokens,
		 part->count);
	if (job->type == JOB_PREFILL && cpu->prompt.kern != cpu->kern)
		mr_count(MR_M_cpu_prefill_tokens_p, part->count);
}

void cpu_pass(struct cpu *cpu, struct job *const *jobs, uint32_t count)
{
	struct pass p = {.epoch = jobs[0]->epoch};

	choose(cpu, &p, jobs, count);
	lay_out(cpu, &p);
	choose_tellers(&p);
	if (forward(cpu, &p) || make_tokens(cpu, &p))
		return;
	for (uint32_t i = 0; i < p.part_count; i++)
		finish_part(cpu, &p, &p.parts[i]);
	mr_count(MR_M_cpu_passes, 1);
	mr_count(MR_M_cpu_passes_mixed, p.part_count > 1);
}
