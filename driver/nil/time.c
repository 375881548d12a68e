// SPDX-License-Identifier: Apache-2.0
/* When the nil device's events are due, and how they come out: the oldest due time first. */
#include "driver/nil/internal.h"

#include <time.h>

uint64_t nil_monotonic(void *arg)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

uint64_t nil_now(const struct nil *nil)
{
	return nil->timed ? nil->now_ns(nil->arg) : 0;
}

uint64_t nil_jittered(struct nil *nil, uint64_t cost)
{
	int64_t by;

	if (!nil->jitter)
		return cost;
	nil->seed = nil->seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	by = (int64_t)(nil->seed >> 48) - 32768; /* 2^-15ths */
	return cost + (uint64_t)((__int128)cost * nil->jitter * by >> 31);
}

uint32_t nil_room(const struct nil_engine *engine)
{
	return NIL_EVENTS - (engine->tail - engine->head);
}

struct nil_record *nil_event(struct nil_engine *engine, enum mr_event_type type,
			     struct mr_slot slot, uint64_t tag, uint64_t due)
{
	struct nil_record *r = &engine->records[engine->tail++ % NIL_EVENTS];

	*r = (struct nil_record){.event = {.type = type, .slot = slot, .tag = tag}, .due = due};
	return r;
}

/* Of work that has not ended by now only its DONE is left, with MR_E_DEVICE. */
void nil_engine_reset(struct nil_engine *engine, uint64_t now)
{
	uint32_t to = engine->head;

	for (uint32_t i = engine->head; i != engine->tail; i++) {
		struct nil_record r = engine->records[i % NIL_EVENTS];

		if (r.due > now) {
			if (r.event.type != MR_EVENT_DONE)
				continue;
			r.event.status = MR_E_DEVICE;
			r.due = now;
		}
		engine->records[to++ % NIL_EVENTS] = r;
	}
	engine->tail = to;
	engine->busy = now;
}

static uint64_t due_of(const struct nil_engine *engine)
{
	return engine->head == engine->tail ? UINT64_MAX
					    : engine->records[engine->head % NIL_EVENTS].due;
}

uint64_t mr_nil_next_ns(const struct mr_device *dev)
{
	const struct nil *nil = (const struct nil *)dev;
	uint64_t compute = due_of(&nil->compute), dma = due_of(&nil->dma);

	return dma < compute ? dma : compute;
}

/* What the caller learns by the event counts as written from now on. */
static void learn(struct nil *nil, const struct nil_record *r)
{
	const struct mr_event *e = &r->event;
	struct nil_slot *s = nil_slot_of(nil, e->slot);
	uint32_t reach = e->type == MR_EVENT_DONE ? r->reach : e->position;

	if (!s || !reach)
		return;
	reach = reach < s->filled ? reach : s->filled;
	if (e->type == MR_EVENT_KV && e->layer + 1 < nil->layers) {
		s->ahead = e->layer + 1;
		s->ahead_position = reach;
		return;
	}
	s->written = reach > s->written ? reach : s->written;
}

int nil_poll(struct mr_device *dev, struct mr_event *events, uint32_t max)
{
	struct nil *nil = nil_of(dev);
	uint64_t now = nil_now(nil);
	uint32_t count = 0;

	for (; count < max; count++) {
		uint64_t compute = due_of(&nil->compute), dma = due_of(&nil->dma);
		struct nil_engine *engine = dma < compute ? &nil->dma : &nil->compute;
		const struct nil_record *r;

		if (engine->head == engine->tail || due_of(engine) > now)
			break;
		r = &engine->records[engine->head++ % NIL_EVENTS];
		learn(nil, r);
		events[count] = r->event;
	}
	if (nil->closing != NIL_NONE)
		nil_slots_sweep(nil, now);
	nil->telemetry.completions += count;
	return (int)count;
}

int nil_arm(struct mr_device *dev)
{
	uint64_t next = mr_nil_next_ns(dev);

	return next != UINT64_MAX && next <= nil_now(nil_of(dev));
}
