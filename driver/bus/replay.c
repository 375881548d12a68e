// SPDX-License-Identifier: Apache-2.0
#include "driver/bus/replay.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "driver/bus/bus_trace.h"

#define MAPS       512u
#define MEMORY_MAX (16ull << 30)
#define WAIT_MS    5000u
#define EARLY      64u /* admin completions that came before their turn */

struct map {
	uint64_t iova, bytes; /* bytes = 0: free */
	uint8_t *base;
};

struct replay {
	const struct mr_bus_replay_options *o;
	struct mr_bus_replay_result *out;
	struct mr_bus *bus;
	struct mr_bus_rings rings; /* heads are those of this device */
	struct map map[MAPS];
	uint64_t mapped;
	int enabled; /* was, once */
	uint32_t early_count;
	struct mr_lpu_completion early[EARLY];
};

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* Keeps the first sentence, and counts. */
__attribute__((format(printf, 2, 3))) static void differs(struct replay *r, const char *format, ...)
{
	va_list args;

	r->out->differences++;
	if (r->out->first[0])
		return;
	va_start(args, format);
	vsnprintf(r->out->first, sizeof(r->out->first), format, args);
	va_end(args);
}

/* Between two looks at what must come: 0, or why no more looks are to be taken. */
static int pause_until(struct replay *r, uint64_t until)
{
	const struct timespec nap = {.tv_nsec = 20000};
	int lost = __atomic_load_n(&r->bus->lost, __ATOMIC_RELAXED);

	if (lost)
		return lost;
	if (r->o->stop && __atomic_load_n(r->o->stop, __ATOMIC_RELAXED))
		return MR_E_CANCELLED;
	if (now_ms() >= until)
		return MR_E_TIMEOUT;
	nanosleep(&nap, NULL);
	return 0;
}

static uint64_t deadline(const struct replay *r)
{
	return now_ms() + (r->o->wait_ms ? r->o->wait_ms : WAIT_MS);
}

static int wait_status(struct replay *r, uint32_t want, const char *what)
{
	uint64_t until = deadline(r);
	int status = 0;

	for (;;) {
		uint32_t is = r->bus->ops->reg_read(r->bus, MR_LPU_REG_STATUS);
		if (is == want)
			return 0;
		status = pause_until(r, until);
		if (status == MR_E_TIMEOUT)
			differs(r, "STATUS %s: 0x%x recorded, still 0x%x here", what, want, is);
		if (status)
			return status;
	}
}

static void *at(const struct replay *r, uint64_t iova, uint64_t bytes)
{
	for (uint32_t i = 0; i < MAPS; i++) {
		const struct map *m = &r->map[i];
		if (m->bytes && iova >= m->iova && bytes <= m->bytes &&
		    iova - m->iova <= m->bytes - bytes)
			return m->base + (iova - m->iova);
	}
	return NULL;
}

static void zero(struct replay *r, uint64_t iova, uint64_t bytes)
{
	void *p = at(r, iova, bytes);

	if (p)
		memset(p, 0, bytes);
}

/* ---- what the host did ------------------------------------------------------------------------- */

static int map(struct replay *r, const struct mr_bus_trace_entry *e)
{
	uint64_t bytes, most = r->o->memory_max ? r->o->memory_max : MEMORY_MAX;
	uint32_t i = 0;

	memcpy(&bytes, e + 1, sizeof(bytes));
	while (i < MAPS && r->map[i].bytes)
		i++;
	if (i == MAPS || bytes > most - r->mapped) {
		differs(r, "the trace maps more memory than is given to it: %llu bytes more",
			(unsigned long long)bytes);
		return MR_E_RANGE;
	}
	uint8_t *base = r->o->memory(r->o->memory_arg, bytes);
	if (!base)
		return MR_E_NO_MEMORY;
	int status = r->bus->ops->dma_map(r->bus, e->at, base, bytes, e->value);
	if (status) {
		differs(r, "the map of %llu bytes at IOVA 0x%llx: %s", (unsigned long long)bytes,
			(unsigned long long)e->at, mr_status_name(status));
		return status;
	}
	r->mapped += bytes;
	r->map[i] = (struct map){e->at, bytes, base};
	return 0;
}

static int unmap(struct replay *r, uint64_t iova)
{
	for (uint32_t i = 0; i < MAPS; i++)
		if (r->map[i].bytes && r->map[i].iova == iova) {
			r->map[i].bytes = 0;
			return r->bus->ops->dma_unmap(r->bus, iova);
		}
	return 0;
}

static int memory(struct replay *r, const struct mr_bus_trace_entry *e)
{
	void *p = at(r, e->at, e->bytes);

	if (!p) {
		differs(r, "the trace has memory at IOVA 0x%llx, which it did not map",
			(unsigned long long)e->at);
		return MR_E_RANGE;
	}
	memcpy(p, e + 1, e->bytes);
	return 0;
}

static void enable(struct replay *r)
{
	const struct mr_bus_ring *q = &r->rings.queue[0];

	r->enabled = 1;
	r->early_count = 0;
	zero(r, q->cq, q->entries * sizeof(struct mr_lpu_completion));
}

static void submit(struct replay *r, uint32_t queue, uint32_t tail)
{
	struct mr_bus_ring *ring = &r->rings.queue[queue];
	struct mr_lpu_command c;

	if (!ring->live || tail - ring->sq_tail > ring->entries)
		return;
	for (; ring->sq_tail != tail; ring->sq_tail++) {
		const void *p =
			at(r, ring->sq + ring->sq_tail % ring->entries * sizeof(c), sizeof(c));
		r->out->commands++;
		if (!p || queue)
			continue;
		memcpy(&c, p, sizeof(c));
		uint32_t made = mr_bus_rings_command(&r->rings, &c);
		if (!made)
			continue;
		const struct mr_bus_ring *q = &r->rings.queue[made];
		zero(r, q->cq, q->entries * sizeof(struct mr_lpu_completion));
		zero(r, q->records, q->record_entries * sizeof(struct mr_lpu_record));
	}
}

static void doorbell(struct replay *r, const struct mr_bus_trace_entry *e)
{
	struct mr_bus_ring *ring = &r->rings.queue[e->queue];
	uint32_t value = e->value;

	if (e->at == MR_LPU_DB_SQ_TAIL)
		submit(r, e->queue, value);
	/* Events come when they come, so the admin queue's head is this device's own. */
	if (ring->live && e->at == MR_LPU_DB_CQ_HEAD && !e->queue)
		value = ring->cq_head;
	r->bus->ops->doorbell(r->bus, e->queue, (uint32_t)e->at, value);
}

/* ---- what the device did ----------------------------------------------------------------------- */

/* The latest command of that request id, into @c; 0 = there is none. */
static int command_of(const struct replay *r, uint32_t queue, uint32_t request,
		      struct mr_lpu_command *c)
{
	const struct mr_bus_ring *ring = &r->rings.queue[queue];
	uint32_t n = ring->sq_tail < ring->entries ? ring->sq_tail : ring->entries;

	for (uint32_t i = 1; i <= n; i++) {
		const void *p = at(r, ring->sq + (ring->sq_tail - i) % ring->entries * sizeof(*c),
				   sizeof(*c));
		if (!p)
			continue;
		memcpy(c, p, sizeof(*c));
		if (c->head.request == request)
			return 1;
	}
	return 0;
}

static const char *name_of(const struct replay *r, uint32_t queue, uint32_t request)
{
	struct mr_lpu_command c;

	return command_of(r, queue, request, &c) ? mr_bus_opcode_name(c.head.opcode) : "no command";
}

static int is_event(const struct replay *r, uint32_t queue, uint32_t request)
{
	struct mr_lpu_command c;

	return !queue && command_of(r, queue, request, &c) && c.head.opcode == MR_LPU_ASYNC_EVENT;
}

/* The completion @ahead of the next one, where it is there: 1. */
static int peek_completion(const struct replay *r, uint32_t queue, uint32_t ahead,
			   struct mr_lpu_completion *c)
{
	const struct mr_bus_ring *ring = &r->rings.queue[queue];
	uint32_t index = ring->cq_head + ahead, phase = !(index / ring->entries & 1);
	const struct mr_lpu_completion *shared =
		at(r, ring->cq + index % ring->entries * sizeof(*c), sizeof(*c));

	if (!shared || (__atomic_load_n(&shared->phase, __ATOMIC_ACQUIRE) & 1) != phase)
		return 0;
	*c = *shared;
	return 1;
}

static int take_completion(struct replay *r, uint32_t queue, struct mr_lpu_completion *c)
{
	if (!peek_completion(r, queue, 0, c))
		return 0;
	r->rings.queue[queue].cq_head++;
	return 1;
}

/* Has every command of @queue ended? Then *@c is the first that ended with an error, or else the last. */
static int all_ended(const struct replay *r, uint32_t queue, struct mr_lpu_completion *c)
{
	const struct mr_bus_ring *ring = &r->rings.queue[queue];
	uint32_t n = ring->sq_tail - ring->cq_head;
	struct mr_lpu_completion next;

	memset(c, 0, sizeof(*c));
	if (!n || n > ring->entries)
		return 0;
	for (uint32_t i = 0; i < n; i++) {
		if (!peek_completion(r, queue, i, &next))
			return 0;
		if (!c->status)
			*c = next;
	}
	return 1;
}

/* The admin completion of @request: its commands may end out of order, and events between them. */
static int next_admin(struct replay *r, uint32_t request, uint64_t until,
		      struct mr_lpu_completion *c)
{
	for (uint32_t i = 0; i < r->early_count; i++)
		if (r->early[i].request == request) {
			*c = r->early[i];
			r->early[i] = r->early[--r->early_count];
			return 0;
		}
	for (;;) {
		if (!take_completion(r, 0, c)) {
			int status = pause_until(r, until);
			if (status)
				return status;
		} else if (is_event(r, 0, c->request)) {
			r->out->events++;
			/* The host that was recorded may never have seen it: its place is given back. */
			r->bus->ops->doorbell(r->bus, 0, MR_LPU_DB_CQ_HEAD,
					      r->rings.queue[0].cq_head);
		} else if (c->request == request) {
			return 0;
		} else if (r->early_count < EARLY) {
			r->early[r->early_count++] = *c;
		}
	}
}

static int next_completion(struct replay *r, uint32_t queue, uint32_t request,
			   struct mr_lpu_completion *c)
{
	uint64_t until = deadline(r);
	int status = 0;

	if (!queue)
		return next_admin(r, request, until, c);
	while (!status && !take_completion(r, queue, c))
		status = pause_until(r, until);
	return status;
}

static int result_counts(const struct replay *r, uint32_t queue, uint32_t request)
{
	struct mr_lpu_command c;
	struct mr_lpu_cmd_get_log log;

	if (r->o->exact || queue || !command_of(r, queue, request, &c) ||
	    c.head.opcode != MR_LPU_GET_LOG)
		return 1;
	memcpy(&log, &c, sizeof(log));
	return log.log != MR_LPU_LOG_ERRORS && log.log != MR_LPU_LOG_CRASH;
}

static int completion(struct replay *r, uint32_t queue, uint32_t index,
		      const struct mr_lpu_completion *want)
{
	const char *name = name_of(r, queue, want->request);
	struct mr_lpu_completion got;

	if (is_event(r, queue, want->request)) {
		r->out->events++;
		return 0;
	}
	int status = next_completion(r, queue, want->request, &got);
	if (status) {
		differs(r, "completion %u of queue %u (%s, request %u) does not come: %s", index,
			queue, name, want->request, mr_status_name(status));
		return status;
	}
	r->out->completions++;
	if (got.request != want->request)
		differs(r,
			"completion %u of queue %u: request %u (%s) recorded, request %u (%s) here",
			index, queue, want->request, name, got.request,
			name_of(r, queue, got.request));
	else if (got.status != want->status)
		differs(r,
			"completion %u of queue %u (%s, request %u): status %s recorded, %s here",
			index, queue, name, want->request, mr_status_name(-(int)want->status),
			mr_status_name(-(int)got.status));
	else if (got.result != want->result && result_counts(r, queue, want->request))
		differs(r,
			"completion %u of queue %u (%s, request %u): result %u recorded, %u here",
			index, queue, name, want->request, want->result, got.result);
	return 0;
}

static int take_record(struct replay *r, uint32_t queue, struct mr_lpu_record *out)
{
	struct mr_bus_ring *ring = &r->rings.queue[queue];
	uint32_t lap = ring->record_head / ring->record_entries + 1;
	const struct mr_lpu_record *shared =
		at(r, ring->records + ring->record_head % ring->record_entries * sizeof(*out),
		   sizeof(*out));

	if (!shared || __atomic_load_n(&shared->phase, __ATOMIC_ACQUIRE) != lap)
		return 0;
	*out = *shared;
	ring->record_head++;
	return 1;
}

static void compare_records(struct replay *r, uint32_t queue, uint32_t index,
			    const struct mr_lpu_record *want, const struct mr_lpu_record *got)
{
	const struct {
		const char *name;
		uint64_t want, got;
	} field[] = {
		{"token", want->token, got->token},
		{"position", want->position, got->position},
		{"generation", want->generation, got->generation},
		{"slot", want->slot, got->slot},
		{"status", want->status, got->status},
		{"cycle", r->o->exact ? want->cycle : 0, r->o->exact ? got->cycle : 0},
	};

	for (size_t i = 0; i < sizeof(field) / sizeof(field[0]); i++)
		if (field[i].want != field[i].got) {
			differs(r,
				"record %u of queue %u (slot %u, position %u): %s %llu recorded, "
				"%llu here",
				index, queue, want->slot, want->position, field[i].name,
				(unsigned long long)field[i].want,
				(unsigned long long)field[i].got);
			return;
		}
	if (memcmp(&want->logprob, &got->logprob, sizeof(want->logprob)))
		differs(r,
			"record %u of queue %u (slot %u, position %u, token %u): log-probability "
			"%.9g recorded, %.9g here",
			index, queue, want->slot, want->position, want->token,
			(double)want->logprob, (double)got->logprob);
}

static int record(struct replay *r, uint32_t queue, uint32_t index,
		  const struct mr_lpu_record *want)
{
	uint64_t until = deadline(r);
	struct mr_lpu_completion c;
	struct mr_lpu_record got;
	int status = 0;

	while (!status && !take_record(r, queue, &got)) {
		/* Records are visible before their command's completion: after all of these none comes. */
		int ended = all_ended(r, queue, &c);
		if (take_record(r, queue, &got))
			break;
		if (ended) {
			differs(r,
				"record %u of queue %u (slot %u, position %u) does not come: %s of "
				"request %u ended with %s here",
				index, queue, want->slot, want->position,
				name_of(r, queue, c.request), c.request,
				mr_status_name(-(int)c.status));
			return MR_E_TIMEOUT;
		}
		status = pause_until(r, until);
	}
	if (status) {
		differs(r, "record %u of queue %u (slot %u, position %u) does not come: %s", index,
			queue, want->slot, want->position, mr_status_name(status));
		return status;
	}
	r->out->records++;
	compare_records(r, queue, index, want, &got);
	return 0;
}

/* Completions or records of the trace, each waited for. */
static int answers(struct replay *r, const struct mr_bus_trace_entry *e)
{
	int of_records = e->kind == MR_BUS_TRACE_RECORDS, status = 0;
	size_t size = of_records ? sizeof(struct mr_lpu_record) : sizeof(struct mr_lpu_completion);
	const struct mr_bus_ring *ring = &r->rings.queue[e->queue];

	if (!ring->live || (of_records && !ring->record_entries)) {
		differs(r, "the trace has answers of queue %u, which was not created", e->queue);
		return MR_E_RANGE;
	}
	for (uint32_t i = 0; !status && i < e->bytes / size; i++) {
		const uint8_t *p = (const uint8_t *)(e + 1) + i * size;
		struct mr_lpu_completion c;
		struct mr_lpu_record rec;

		if (of_records) {
			memcpy(&rec, p, sizeof(rec));
			status = record(r, e->queue, e->value + i, &rec);
		} else {
			memcpy(&c, p, sizeof(c));
			status = completion(r, e->queue, e->value + i, &c);
		}
	}
	return status;
}

static int reg_read(struct replay *r, const struct mr_bus_trace_entry *e)
{
	const struct mr_bus_trace_entry *next = mr_bus_trace_next(r->o->trace, e);
	uint32_t value;

	if (e->at == MR_LPU_REG_STATUS) {
		/* Before the host enabled it, a device told of whoever had it before. */
		if (!r->enabled || (next->kind == e->kind && next->at == e->at))
			return 0;
		return wait_status(r, e->value, "of the trace");
	}
	value = r->bus->ops->reg_read(r->bus, (uint32_t)e->at);
	if ((e->at == MR_LPU_REG_MAGIC || e->at == MR_LPU_REG_VERSION) && value != e->value)
		differs(r, "register %s: 0x%x recorded, 0x%x here",
			e->at == MR_LPU_REG_MAGIC ? "MAGIC" : "VERSION", e->value, value);
	return 0;
}

static int reset(struct replay *r, const struct mr_bus_trace_entry *e)
{
	int status = r->bus->ops->reset(r->bus);

	mr_bus_rings_reset(&r->rings);
	if (!status != !e->value)
		differs(r, "function-level reset: %s recorded, %s here",
			mr_status_name(-(int)e->value), mr_status_name(status));
	return 0;
}

static int play(struct replay *r, const struct mr_bus_trace_entry *e)
{
	switch (e->kind) {
	case MR_BUS_TRACE_REG_READ:
		return reg_read(r, e);
	case MR_BUS_TRACE_REG_WRITE:
		if (mr_bus_rings_register(&r->rings, (uint32_t)e->at, e->value))
			enable(r);
		r->bus->ops->reg_write(r->bus, (uint32_t)e->at, e->value);
		return 0;
	case MR_BUS_TRACE_DOORBELL:
		doorbell(r, e);
		return 0;
	case MR_BUS_TRACE_MAP:
		return map(r, e);
	case MR_BUS_TRACE_UNMAP:
		return unmap(r, e->at);
	case MR_BUS_TRACE_MEMORY:
		return memory(r, e);
	case MR_BUS_TRACE_IRQ:
		if (r->bus->ops->irq_fd(r->bus, e->value) < 0)
			differs(r, "vector %u cannot be asked for here", e->value);
		return 0;
	case MR_BUS_TRACE_RESET:
		return reset(r, e);
	case MR_BUS_TRACE_END:
		r->out->cut = e->value;
		return 0;
	default:
		return answers(r, e);
	}
}

/* Whoever had the device before has left nothing. */
static int begin(struct replay *r)
{
	int status = r->bus->ops->reset(r->bus);

	if (status && status != MR_E_NOT_SUPPORTED)
		return status;
	r->bus->ops->reg_write(r->bus, MR_LPU_REG_CONTROL, 0);
	return wait_status(r, 0, "after a reset");
}

int mr_bus_replay(const struct mr_bus_replay_options *o, struct mr_bus_replay_result *out)
{
	const struct mr_bus_trace_entry *e = NULL;
	struct replay *r;
	int status;

	memset(out, 0, sizeof(*out));
	status = mr_bus_trace_check(o->trace, o->bytes, out->first, sizeof(out->first));
	if (status)
		return status;
	r = calloc(1, sizeof(*r));
	if (!r)
		return MR_E_NO_MEMORY;
	r->o = o;
	r->out = out;
	r->bus = o->bus;
	status = begin(r);
	while (!status && (e = mr_bus_trace_next(o->trace, e))) {
		status = play(r, e);
		out->entries += !status;
		if (!status)
			status = __atomic_load_n(&r->bus->lost, __ATOMIC_RELAXED);
		if (!status && o->stop && __atomic_load_n(o->stop, __ATOMIC_RELAXED))
			status = MR_E_CANCELLED;
	}
	r->bus->ops->reg_write(r->bus, MR_LPU_REG_CONTROL, 0);
	/* What a device that does not stop may still write must stay mapped as long as the bus is open. */
	if (!wait_status(r, 0, "at the end"))
		for (uint32_t i = 0; i < MAPS; i++)
			if (r->map[i].bytes)
				r->bus->ops->dma_unmap(r->bus, r->map[i].iova);
	free(r);
	return status;
}
