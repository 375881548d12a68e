// SPDX-License-Identifier: Apache-2.0
/* Builds a timeline of a trace's records. Any order and any loss of records gives a timeline that holds together. */
#include <stdlib.h>
#include <string.h>

#include <millrace/status.h>

#include "tools/timeline.h"

const char *const phase_names[PHASE_COUNT] = {
	"tokenise", "queue", "prefill", "hand-over", "first step", "decode", "end",
};
const char *const work_names[WORK_KINDS] = {"chunk", "hand-over", "step"};

#define OPEN_MAX 4096 /* pieces of work under way at once that are told apart */

struct builder {
	struct timeline *t;
	uint64_t *table; /* by owner: index of its latest turn + 1, 0 = none; open addressing */
	uint64_t mask;
	uint64_t device_free[UINT16_MAX + 1]; /* when the device ended its last work */
	uint64_t device_from[UINT16_MAX + 1]; /* when it began it */
	struct work *open;                    /* begun and not ended, in order */
	uint64_t open_count, open_from;
};

static uint64_t *place_of(struct builder *b, uint32_t owner)
{
	uint64_t at = owner * 0x9e3779b97f4a7c15u >> 20 & b->mask;

	while (b->table[at] && b->t->turns[b->table[at] - 1].owner != owner)
		at = (at + 1) & b->mask;
	return &b->table[at];
}

static struct turn *begin_turn(struct builder *b, uint32_t owner, uint64_t ns)
{
	struct turn *turn = &b->t->turns[b->t->turn_count];

	*turn = (struct turn){.owner = owner, .partial = 1, .unfinished = 1};
	turn->edge[0] = ns;
	*place_of(b, owner) = ++b->t->turn_count;
	return turn;
}

/* A later edge; what happened before its phase stays before. */
static void reach(struct turn *turn, enum phase phase, uint64_t ns)
{
	turn->edge[phase + 1] = ns > turn->edge[phase + 1] ? ns : turn->edge[phase + 1];
}

static void add_to_turn(struct builder *b, const struct mr_trace_record *r)
{
	uint64_t index = *place_of(b, r->owner);
	struct turn *turn = index ? &b->t->turns[index - 1] : NULL;

	/* The next turn of a sequence; a second arrival before anything happened is the same one. */
	if (!turn || (r->event == MR_T_arrival && turn->edge[PHASE_QUEUE] != 0)) {
		if (turn)
			turn->unfinished = 0;
		turn = begin_turn(b, r->owner, r->ns);
	}
	switch (r->event) {
	case MR_T_arrival:
		turn->partial = 0;
		break;
	case MR_T_tokenised:
		turn->prompt_tokens = r->value;
		break;
	case MR_T_queued:
		turn->partial = 0;
		reach(turn, PHASE_TOKENISE, r->ns);
		break;
	case MR_T_chunk_begin:
		if (!turn->edge[PHASE_QUEUE + 1])
			reach(turn, PHASE_QUEUE, r->ns);
		break;
	case MR_T_chunk_end:
		reach(turn, PHASE_PREFILL, r->ns);
		break;
	case MR_T_handover_end:
		reach(turn, PHASE_HANDOVER, r->ns);
		break;
	case MR_T_token:
		if (turn->tokens++ == 0)
			reach(turn, PHASE_FIRST, r->ns);
		reach(turn, PHASE_DECODE, r->ns);
		break;
	case MR_T_egress:
		turn->egress += (uint32_t)r->value;
		break;
	case MR_T_end:
		turn->status = (int32_t)(0u - (uint32_t)(r->value >> 32));
		turn->unfinished = 0;
		reach(turn, PHASE_END, r->ns);
		break;
	default:
		break;
	}
}

static void begin_work(struct builder *b, const struct mr_trace_record *r, enum work_kind kind)
{
	b->open[b->open_count++] = (struct work){
		.kind = kind,
		.owner = r->owner,
		.device = r->device,
		.from_ns = r->ns,
		.value = r->value,
	};
}

/*
 * Devices run their work in order, so a piece begins when the one before it has ended; but where both ended at
 * the same time they went together.
 */
static void close_work(struct builder *b, struct work w, uint64_t ns)
{
	uint64_t *free_ns = &b->device_free[w.device], *last = &b->device_from[w.device];

	w.together = *free_ns && ns == *free_ns;
	if (w.together)
		w.from_ns = *last;
	else
		w.from_ns = w.from_ns > *free_ns ? w.from_ns : *free_ns;
	w.to_ns = ns > w.from_ns ? ns : w.from_ns;
	*free_ns = w.to_ns;
	*last = w.from_ns;
	b->t->works[b->t->work_count++] = w;
}

static void end_work(struct builder *b, const struct mr_trace_record *r, enum work_kind kind)
{
	for (uint64_t i = b->open_from; i < b->open_count && i - b->open_from < OPEN_MAX; i++) {
		struct work *w = &b->open[i];

		if (w->kind != kind || w->owner != r->owner || w->device != r->device)
			continue;
		w->status = r->value;
		close_work(b, *w, r->ns);
		/* Few are open at once, and mostly the first ends. */
		memmove(&b->open[b->open_from + 1], &b->open[b->open_from],
			(i - b->open_from) * sizeof(*w));
		b->open_from++;
		return;
	}
	b->t->unmatched++;
}

static void take(struct builder *b, const struct mr_trace_record *r)
{
	struct timeline *t = b->t;

	t->first_ns = r->ns < t->first_ns ? r->ns : t->first_ns;
	t->last_ns = r->ns > t->last_ns ? r->ns : t->last_ns;
	switch (r->event) {
	case MR_T_chunk_begin:
		begin_work(b, r, WORK_CHUNK);
		break;
	case MR_T_chunk_end:
		end_work(b, r, WORK_CHUNK);
		break;
	case MR_T_handover_begin:
		begin_work(b, r, WORK_HANDOVER);
		break;
	case MR_T_handover_end:
		end_work(b, r, WORK_HANDOVER);
		break;
	case MR_T_step_begin:
		begin_work(b, r, WORK_STEP);
		break;
	case MR_T_step_end:
		end_work(b, r, WORK_STEP);
		break;
	default:
		break;
	}
	if (r->event != MR_T_step_begin && r->event != MR_T_step_end)
		add_to_turn(b, r);
}

/* Edges that were not reached take the place of the one before; an unfinished turn lasts until now. */
static void settle(struct timeline *t)
{
	for (uint64_t i = 0; i < t->turn_count; i++) {
		struct turn *turn = &t->turns[i];
		enum phase open = PHASE_TOKENISE;

		for (int p = 1; p <= PHASE_COUNT; p++) {
			if (turn->edge[p])
				open = p < PHASE_COUNT ? (enum phase)p : PHASE_END;
			if (turn->edge[p] < turn->edge[p - 1])
				turn->edge[p] = turn->edge[p - 1];
		}
		for (int p = open + 1; turn->unfinished && p <= PHASE_COUNT; p++)
			if (turn->edge[p] < t->last_ns)
				turn->edge[p] = t->last_ns;
	}
}

static int allocate(struct builder *b, uint64_t n)
{
	uint64_t size = 16;

	while (size < 2 * n)
		size *= 2;
	b->mask = size - 1;
	b->table = calloc(size, sizeof(*b->table));
	b->open = calloc(n + 1, sizeof(*b->open));
	b->t->turns = calloc(n + 1, sizeof(*b->t->turns));
	b->t->works = calloc(n + 1, sizeof(*b->t->works));
	return b->table && b->open && b->t->turns && b->t->works ? 0 : MR_E_NO_MEMORY;
}

int timeline_build(const struct mr_trace *trace, struct timeline *out)
{
	struct builder *b = calloc(1, sizeof(*b));
	int status;

	*out = (struct timeline){.trace = trace, .first_ns = UINT64_MAX};
	if (!b)
		return MR_E_NO_MEMORY;
	b->t = out;
	status = allocate(b, trace->count);
	for (uint64_t i = 0; !status && i < trace->count; i++)
		take(b, &trace->records[i]);
	while (!status && b->open_from < b->open_count) {
		b->open[b->open_from].unfinished = 1;
		close_work(b, b->open[b->open_from++], out->last_ns);
	}
	if (trace->count == 0)
		out->first_ns = 0;
	settle(out);
	free(b->table);
	free(b->open);
	free(b);
	if (status)
		timeline_free(out);
	return status;
}

void timeline_free(struct timeline *t)
{
	free(t->turns);
	free(t->works);
	*t = (struct timeline){0};
}

const char *timeline_device(const struct timeline *t, uint32_t device)
{
	static char name[32];

	if (device < MR_TRACE_DEVICES && t->trace->header.devices[device][0])
		return t->trace->header.devices[device];
	snprintf(name, sizeof(name), "device %u", device);
	return name;
}
