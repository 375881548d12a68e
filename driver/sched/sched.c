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
	TAILQ_INIT(&s->free_sequences);
	TAILQ_INIT(&s->ring[FOREGROUND]);
	TAILQ_INIT(&s->ring[BACKGROUND]);
	TAILQ_INIT(&s->due);
	TAILQ_INIT(&s->joining);
	TAILQ_INIT(&s->handing);
	TAILQ_INIT(&s->decoding[FOREGROUND]);
	TAILQ_INIT(&s->decoding[BACKGROUND]);
	TAILQ_INIT(&s->scoring);
	TAILQ_INIT(&s->ending);
}

static uint32_t power_of_two(uint32_t at_least)
{
	uint32_t n = 1;

	while (n < at_least)
		n *= 2;
	return n;
}

static uint32_t default_to(uint32_t value, uint32_t otherwise)
{
	return value ? value : otherwise;
}

static void free_all(struct mr_sched *s)
{
	for (int id = 0; id < POOLS; id++)
		if (s->pool[id].dev)
			mr_kv_destroy(&s->pool[id]);
	mr_token_work_destroy(s->work);
	free(s->entries);
	free(s->sequences);
	free(s->accounts);
	free(s->prefixes);
	free(s->texts);
	free(s->ids);
	free(s->progress);
	free(s->request_buckets);
	free(s->sequence_buckets);
	free(s->account_buckets);
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
	uint32_t places = power_of_two(2 * (s->requests + s->sequence_count));
	size_t buffers = (size_t)s->requests + s->sequence_count + s->prefix_count;
	int status;

	s->bucket_mask = places - 1;
	s->account_count = s->sequence_count;
	s->entries = touched(s->requests, sizeof(*s->entries));
	s->sequences = touched(s->sequence_count, sizeof(*s->sequences));
	s->accounts = touched(s->account_count, sizeof(*s->accounts));
	s->prefixes = touched(s->prefix_count, sizeof(*s->prefixes));
	s->texts = touched(s->requests, MR_PROMPT_BYTES_MAX);
	s->ids = touched(buffers, s->context * sizeof(*s->ids));
	s->progress = touched(s->sequence_count, 2 * s->layers * sizeof(*s->progress));
	s->request_buckets = touched(places, sizeof(struct entry *));
	s->sequence_buckets = touched(places, sizeof(struct sequence *));
	s->account_buckets = touched(places, sizeof(struct account *));
	s->by_slot = touched(s->decode->caps.slots, sizeof(struct sequence *));
	s->batch = touched(s->batch_max, sizeof(struct sequence *));
	s->decode_entries = touched(s->batch_max, sizeof(*s->decode_entries));
	if (!s->entries || !s->sequences || !s->accounts || !s->prefixes || !s->texts || !s->ids ||
	    !s->progress || !s->request_buckets || !s->sequence_buckets || !s->account_buckets ||
	    !s->by_slot || !s->batch || !s->decode_entries)
		return MR_E_NO_MEMORY;
	status = mr_kv_create(s, DEC, s->decode);
	if (status == 0 && !s->shared)
		status = mr_kv_create(s, PRE, s->prefill);
	if (status == 0 && s->model->tokenizer)
		status = mr_token_work_create(s->model->tokenizer, MR_PROMPT_BYTES_MAX, &s->work);
	return status;
}

static void fill_pools(struct mr_sched *s)
{
	uint32_t *ids = s->ids, *progress = s->progress;

	for (uint32_t i = s->requests; i-- > 0; ids += s->context) {
		struct entry *e = &s->entries[i];

		e->index = i;
		e->request.text = s->texts + (size_t)i * MR_PROMPT_BYTES_MAX;
		e->own = ids;
		mr_sched_put(s, e);
	}
	for (uint32_t i = s->sequence_count; i-- > 0; ids += s->context) {
		struct sequence *q = &s->sequences[i];

		q->index = i;
		q->tokens = ids;
		q->ready = progress;
		q->sent = progress + s->layers;
		progress += 2 * s->layers;
		s->in_state[FREE]++;
		TAILQ_INSERT_HEAD(&s->free_sequences, q, link);
	}
	for (uint32_t i = 0; i < s->prefix_count; i++, ids += s->context)
		s->prefixes[i].tokens = ids;
	for (uint32_t i = s->account_count; i-- > 0;) {
		s->accounts[i].hash_next = s->free_accounts;
		s->free_accounts = &s->accounts[i];
	}
}

static int options_ok(const struct mr_sched_options *o)
{
	return o->model && o->prefill && o->decode && o->requests <= 1u << 20 &&
	       o->sequences <= 1u << 20 && o->prefixes <= 1u << 16 &&
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
	s->one_class = !strcmp(o->prefill->caps.class_prefill, o->decode->caps.class_decode);
	s->clock = o->clock ? *o->clock : mr_clock_monotonic;
	s->layers = o->model->shape.layers;
	s->requests = default_to(o->requests, 256);
	s->sequence_count = default_to(o->sequences, 2 * s->requests);
	s->prefix_count = default_to(o->prefixes, 16);
	s->context = least(o->prefill->caps.context, o->decode->caps.context);
	if (o->model->shape.context)
		s->context = least(s->context, o->model->shape.context);
	s->batch_max = least(default_to(o->batch_max, UINT32_MAX), o->decode->caps.batch_max);
	s->background_max = s->batch_max;
	s->chunk = least(default_to(o->chunk, 128), o->prefill->caps.chunk_max);
	s->steps = least(default_to(o->steps, 1), default_to(o->decode->caps.steps_max, 1));
	s->itl_ns = o->itl_ns;
	s->client_blocks = o->client_blocks;
	s->no_cache = o->no_cache;
	s->next_owner = 1;
	init_lists(s);
	status = allocate(s);
	if (status < 0) {
		free_all(s);
		return status;
	}
	fill_pools(s);
	*sched = s;
	return 0;
}

/* The sequence that a tag names, where it has work under way. */
static struct sequence *sequence_of(struct mr_sched *s, uint64_t tag)
{
	uint32_t index = (uint32_t)tag;
	struct sequence *q = index < s->sequence_count ? &s->sequences[index] : NULL;

	return q && q->inflight ? q : NULL;
}

static int on_done(struct mr_sched *s, const struct mr_event *event)
{
	struct sequence *q = sequence_of(s, event->tag);

	switch (event->tag >> 32) {
	case TAG_DECODE:
		if (!s->batch_count)
			return 0;
		mr_sched_decode_done(s, event->status);
		return 1;
	case TAG_PREFILL:
		if (!q || !q->chunk)
			return 0;
		mr_sched_prefill_done(s, q, event->status);
		return 1;
	case TAG_IMPORT:
		if (!q || !q->imports)
			return 0;
		mr_sched_import_done(s, q, event->status);
		return 1;
	case TAG_SCORE:
		if (!q || q->entry->request.op != MR_REQUEST_SCORE)
			return 0;
		mr_sched_score_done(s, q, event->status);
		return 1;
	default:
		return 0;
	}
}

static void on_event(struct mr_sched *s, const struct mr_event *event)
{
	uint64_t kind = event->tag >> 32;
	struct sequence *q = sequence_of(s, event->tag);
	int known = 1;

	if (event->type == MR_EVENT_TOKEN && kind == TAG_SCORE) {
		known = q && q->entry->request.op == MR_REQUEST_SCORE;
		if (known)
			mr_sched_score_token(s, q, event);
	} else if (event->type == MR_EVENT_TOKEN) {
		mr_sched_decode_token(s, event);
	} else if (event->type == MR_EVENT_KV) {
		known = kind == TAG_PREFILL && q && q->chunk && !s->shared;
		if (known && !q->ending)
			mr_sched_kv_event(s, q, event);
	} else {
		known = on_done(s, event);
	}
	if (!known)
		mr_count(MR_M_sched_bad_event, 1);
}

/* What becomes of a request whose KV on the device is lost. */
static void go_on(struct mr_sched *s, struct sequence *q, enum pool_id id, int32_t status)
{
	if (id == DEC && q->decoding)
		return; /* its DONE is to come */
	if (id == DEC && q->state == QUEUED)
		return;
	if (id == DEC && q->hand_on == &s->handing)
		mr_sched_handover_lost(s, q, status);
	else if (id != DEC || q->state != DECODING || !mr_sched_again(s, q, status))
		mr_sched_end(s, q, status, MR_FINISH_ERROR);
}

/* Chunks name tokens of sequences that will not be for much longer: their ends are waited for. */
static void end_chunks(struct mr_sched *s)
{
	uint64_t until = mr_clock_monotonic.now_ns(NULL) + DESTROY_WAIT_NS;
	struct mr_event events[EVENTS_A_POLL];

	while (s->chunks && mr_clock_monotonic.now_ns(NULL) < until) {
		int count = s->prefill->work->poll(s->prefill, events, EVENTS_A_POLL);

		if (count < 0)
			return; /* lost as well: nothing is under way there */
		for (int i = 0; i < count; i++)
			s->chunks -= events[i].type == MR_EVENT_DONE && s->chunks;
	}
}

/*
 * A device that is lost is reset; work that was posted to it then ends by its DONE events. Where it does not
 * come back, no event will, nothing of it can touch a sequence any more, and all that goes on ends here.
 * Sequences have their tokens: those that go on are computed again now, paused ones when they are asked for.
 */
static void on_lost(struct mr_sched *s, struct mr_device *dev, int status)
{
	enum pool_id id = dev == s->decode ? DEC : PRE;
	int back = dev->admin->reset(dev);

	if (back < 0) {
		if (id == DEC && !s->shared)
			end_chunks(s);
		s->dead = status;
		s->batch_count = 0;
		s->chunks = 0;
	}
	for (uint32_t i = 0; i < s->sequence_count; i++) {
		struct sequence *q = &s->sequences[i];

		if (q->state == FREE || (back == 0 && !q->kv[id]))
			continue;
		if (back < 0)
			mr_sched_end(s, q, status, MR_FINISH_ERROR);
		else if (q->entry && !q->ending)
			go_on(s, q, id, status);
		if (id == DEC)
			q->fed = 0;
		if (back < 0 && q->inflight) {
			q->inflight = 1;
			q->imports = q->chunk = 0;
			mr_sched_work_done(s, q);
		}
	}
	mr_kv_lost(s, id);
}

static int take_events(struct mr_sched *s, struct mr_device *dev)
{
	struct mr_event events[EVENTS_A_POLL];
	int count, did = 0, lost = 0;

	do {
		count = dev->work->poll(dev, events, EVENTS_A_POLL);
		if (count < 0) {
			did++;
			if (s->dead || lost++)
				return did;
			on_lost(s, dev, count);
			continue; /* the ends of what was under way */
		}
		/* One look at the clock for all: a token costs little more than that. */
		if (count)
			s->events_ns = now_ns(s);
		for (int i = 0; i < count; i++)
			on_event(s, &events[i]);
		did += count;
	} while (count == EVENTS_A_POLL || (count < 0 && !s->dead));
	return did;
}

static void note_queues(const struct mr_sched *s)
{
	const struct mr_queues queues = {
		.waiting = s->in_state[QUEUED],
		.prefilling = s->in_state[PREFILLING],
		.handover = s->in_state[HANDOVER],
		.decoding = s->in_state[DECODING] + s->in_state[SCORING],
		.paused = s->in_state[PAUSED],
		.requests = s->requests,
	};

	mr_queues_note(&queues);
}

/* A device that waits for all of a turn's work need not wait for what the fronts do after it. */
static void begin_work(const struct mr_sched *s)
{
	if (s->decode->caps.pass_rows)
		s->decode->work->poll(s->decode, NULL, 0);
	if (!s->shared && s->prefill->caps.pass_rows)
		s->prefill->work->poll(s->prefill, NULL, 0);
}

int mr_sched_poll(struct mr_sched *s)
{
	int did = 0;

	s->dirty = s->batch_fresh = 0;
	if (!s->dead) {
		did += take_events(s, s->decode);
		if (!s->shared)
			did += take_events(s, s->prefill);
		/* Decode first: its device is the one that a token waits for. */
		did += mr_sched_reap(s);
		did += mr_sched_decode_turn(s);
		did += mr_sched_score_turn(s);
		did += mr_sched_handover_turn(s);
		did += mr_sched_prefill_turn(s);
		if (did)
			begin_work(s);
	}
	did += mr_sched_reap(s);
	if (did)
		note_queues(s);
	return did;
}

void mr_sched_drop_cache(struct mr_sched *s)
{
	if (!s->shared)
		mr_kv_forget(s, PRE, 0);
	mr_kv_forget(s, DEC, 0);
}

int mr_sched_scores(const struct mr_sched *s)
{
	return (s->decode->caps.stages & MR_STAGE_SCORE) != 0;
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
	for (uint32_t i = 0; i < s->sequence_count; i++)
		if (s->sequences[i].state != FREE)
			mr_sched_end(s, &s->sequences[i], MR_E_CANCELLED, MR_FINISH_CANCEL);
	while (s->live && mr_clock_monotonic.now_ns(NULL) < until)
		mr_sched_poll(s);
	if (s->live) {
		/* The devices still name our memory: after a reset, or as dead ones, they do not. */
		on_lost(s, s->decode, MR_E_TIMEOUT);
		if (!s->shared)
			on_lost(s, s->prefill, MR_E_TIMEOUT);
		mr_sched_poll(s);
	}
	free_all(s);
}
