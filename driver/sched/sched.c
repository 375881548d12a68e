// SPDX-License-Identifier: Apache-2.0
/*
 * The orchestrator's frame: making and ending it, and the turn, which takes the devices' events to the
 * stages and then lets each stage post.
 */
#include "driver/sched/sched.h"

#include <stdlib.h>

#include "driver/model/tokenizer.h"
#include "driver/sched/internal.h"

#define EVENTS_A_POLL   64
#define DESTROY_WAIT_NS 5000000000u

static void init_lists(struct mr_sched *s)
{
	TAILQ_INIT(&s->free);
	TAILQ_INIT(&s->waiting);
	TAILQ_INIT(&s->joining);
	TAILQ_INIT(&s->handover);
	TAILQ_INIT(&s->decoding);
	TAILQ_INIT(&s->ending);
}

static uint32_t power_of_two(uint32_t at_least)
{
	uint32_t n = 1;

	while (n < at_least)
		n *= 2;
	return n;
}

static uint32_t least(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

static uint32_t default_to(uint32_t value, uint32_t otherwise)
{
	return value ? value : otherwise;
}

static void free_all(struct mr_sched *s)
{
	mr_token_work_destroy(s->work);
	free(s->entries);
	free(s->texts);
	free(s->tokens);
	free(s->buckets);
	free(s->by_slot);
	free(s->batch);
	free(s->decode_entries);
	free(s);
}

/* Allocated and touched, so that the first requests do not pay for page faults. */
static void *touched(size_t count, size_t bytes)
{
	void *p = malloc(count * bytes);

	if (p)
		memset(p, 0, count * bytes);
	return p;
}

static int allocate(struct mr_sched *s)
{
	uint32_t places = power_of_two(2 * s->requests);

	s->bucket_mask = places - 1;
	s->entries = touched(s->requests, sizeof(*s->entries));
	s->texts = touched(s->requests, MR_PROMPT_BYTES_MAX);
	s->tokens = touched(s->requests, s->context * sizeof(*s->tokens));
	s->buckets = touched(places, sizeof(struct entry *));
	s->by_slot = touched(s->decode->caps.slots, sizeof(struct entry *));
	s->batch = touched(s->batch_max, sizeof(struct entry *));
	s->decode_entries = touched(s->batch_max, sizeof(*s->decode_entries));
	if (!s->entries || !s->texts || !s->tokens || !s->buckets || !s->by_slot || !s->batch ||
	    !s->decode_entries)
		return MR_E_NO_MEMORY;
	if (s->model->tokenizer)
		return mr_token_work_create(s->model->tokenizer, MR_PROMPT_BYTES_MAX, &s->work);
	return 0;
}

static void fill_pool(struct mr_sched *s)
{
	for (uint32_t i = s->requests; i-- > 0;) {
		struct entry *e = &s->entries[i];

		e->index = i;
		e->request.text = s->texts + (size_t)i * MR_PROMPT_BYTES_MAX;
		e->request.tokens = s->tokens + (size_t)i * s->context;
		mr_sched_pool_put(s, e);
	}
}

static int options_ok(const struct mr_sched_options *o)
{
	return o->model && o->prefill && o->decode && o->requests <= 1u << 20 &&
	       (o->prefill->caps.stages & MR_STAGE_PREFILL) &&
	       (o->decode->caps.stages & MR_STAGE_DECODE) && o->model->shape.layers > 0 &&
	       o->prefill->caps.chunk_max > 0 && o->decode->caps.batch_max > 0 &&
	       o->prefill->caps.context > 0 && o->decode->caps.context > 0;
}

int mr_sched_create(const struct mr_sched_options *o, struct mr_sched **sched)
{
	struct mr_sched *s;
	int status;

	if (!options_ok(o))
		return MR_E_INVALID;
	s = calloc(1, sizeof(*s));
	if (!s)
		return MR_E_NO_MEMORY;
	s->model = o->model;
	s->prefill = o->prefill;
	s->decode = o->decode;
	s->shared = o->prefill == o->decode;
	s->clock = o->clock ? *o->clock : mr_clock_monotonic;
	s->layers = o->model->shape.layers;
	s->requests = default_to(o->requests, 256);
	s->context = least(o->prefill->caps.context, o->decode->caps.context);
	if (o->model->shape.context)
		s->context = least(s->context, o->model->shape.context);
	s->batch_max = least(default_to(o->batch_max, UINT32_MAX), o->decode->caps.batch_max);
	s->chunk = least(default_to(o->chunk, 128), o->prefill->caps.chunk_max);
	s->steps = least(default_to(o->steps, 1), default_to(o->decode->caps.steps_max, 1));
	s->next_owner = 1;
	init_lists(s);
	status = allocate(s);
	if (status < 0) {
		free_all(s);
		return status;
	}
	fill_pool(s);
	*sched = s;
	return 0;
}

static void on_done(struct mr_sched *s, const struct mr_event *event)
{
	uint32_t index = (uint32_t)event->tag;
	struct entry *e = index < s->requests ? &s->entries[index] : NULL;
	uint64_t kind = event->tag >> 32;

	if (kind == TAG_DECODE && s->batch_count)
		mr_sched_decode_done(s, event->status);
	else if (kind == TAG_PREFILL && e && e->inflight && s->prefilling == e)
		mr_sched_prefill_done(s, e, event->status);
	else if (kind == TAG_IMPORT && e && e->inflight)
		mr_sched_import_done(s, e, event->status);
	else
		mr_count(MR_M_sched_bad_event, 1);
}

/* Reset has freed every slot of @dev, and their indices may be given out anew. */
static void forget_slots(struct mr_sched *s, struct entry *e, const struct mr_device *dev)
{
	if (dev == s->decode && e->decode_open) {
		s->by_slot[e->decode_slot.index] = NULL;
		e->decode_open = 0;
		s->decode_slots--;
	}
	if (dev == s->prefill && e->prefill_open) {
		e->prefill_open = 0;
		s->prefill_slots--;
	}
}

/*
 * A device that is lost is reset; work that was posted to it then ends by its DONE events. Where it does not
 * come back, no event will, nothing of it can touch an entry any more, and all requests end here.
 */
static void on_lost(struct mr_sched *s, struct mr_device *dev, int status)
{
	int back = dev->admin->reset(dev);

	if (back < 0) {
		s->dead = status;
		s->batch_count = 0;
	}
	for (uint32_t i = 0; i < s->requests; i++) {
		struct entry *e = &s->entries[i];
		int here = (dev == s->decode && e->decode_open) ||
			   (dev == s->prefill && e->prefill_open);

		if (e->stage <= STAGE_FILLING || (back == 0 && !here))
			continue;
		mr_sched_end(s, e, status, MR_FINISH_ERROR);
		forget_slots(s, e, dev);
		if (back < 0 && e->inflight) {
			e->inflight = 1;
			mr_sched_work_done(s, e);
		}
	}
}

static int take_events(struct mr_sched *s, struct mr_device *dev)
{
	struct mr_event events[EVENTS_A_POLL];
	int count, did = 0;

	do {
		count = dev->work->poll(dev, events, EVENTS_A_POLL);
		if (count < 0) {
			if (!s->dead)
				on_lost(s, dev, count);
			return did + 1;
		}
		for (int i = 0; i < count; i++) {
			if (events[i].type == MR_EVENT_TOKEN)
				mr_sched_decode_token(s, &events[i]);
			else
				on_done(s, &events[i]);
		}
		did += count;
	} while (count == EVENTS_A_POLL);
	return did;
}

int mr_sched_poll(struct mr_sched *s)
{
	int did = 0;

	s->dirty = 0;
	if (!s->dead) {
		did += take_events(s, s->decode);
		if (!s->shared)
			did += take_events(s, s->prefill);
		/* Decode first: its device is the one that a token waits for. */
		did += mr_sched_reap(s);
		did += mr_sched_decode_turn(s);
		did += mr_sched_handover_turn(s);
		did += mr_sched_prefill_turn(s);
	}
	return did + mr_sched_reap(s);
}

uint32_t mr_sched_context(const struct mr_sched *s)
{
	return s->context;
}

uint32_t mr_sched_active(const struct mr_sched *s)
{
	return s->active;
}

/* A device that cannot wake anybody has to be polled while it may hold work. */
static int arm(const struct mr_sched *s, struct mr_device *dev)
{
	int status = dev->work->arm(dev);

	return status < 0 ? s->active > 0 : status;
}

int mr_sched_arm(struct mr_sched *s)
{
	int busy;

	if (s->dirty)
		return 1;
	if (s->dead)
		return 0;
	busy = arm(s, s->decode);
	if (!busy && !s->shared)
		busy = arm(s, s->prefill);
	return busy;
}

void mr_sched_destroy(struct mr_sched *s)
{
	uint64_t until;

	if (!s)
		return;
	/* Wall time, whatever clock the requests run on: the devices' threads run in it. */
	until = mr_clock_monotonic.now_ns(NULL) + DESTROY_WAIT_NS;
	for (uint32_t i = 0; i < s->requests; i++)
		if (s->entries[i].stage > STAGE_FILLING)
			mr_sched_end(s, &s->entries[i], MR_E_CANCELLED, MR_FINISH_CANCEL);
	while (s->active && mr_clock_monotonic.now_ns(NULL) < until)
		mr_sched_poll(s);
	if (s->active) {
		/* The devices still name our memory: after a reset, or as dead ones, they do not. */
		on_lost(s, s->decode, MR_E_TIMEOUT);
		if (!s->shared)
			on_lost(s, s->prefill, MR_E_TIMEOUT);
		mr_sched_poll(s);
	}
	free_all(s);
}
