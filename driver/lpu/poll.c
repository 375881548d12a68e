// SPDX-License-Identifier: Apache-2.0
/*
 * Records and completions to events. The device is not trusted: a record must be the next one that the
 * oldest DECODE or SCORE can make, a completion must answer the oldest command; what is not is counted and
 * dropped.
 *
 * Which command does a visible record belong to? Records of a command are visible before its completion,
 * that before the records of the next. So: see the record (acquire), then look at the oldest completion. Where
 * it is there and as many records were taken as it says, the record is the next one's; else the oldest's.
 * And the other way round: a completion that is there while no record was makes us look for one again.
 */
#include <math.h>
#include <unistd.h>

#include "driver/lpu/internal.h"
#include "driver/metrics.h"

#define STALL_POLLS 4096u /* empty polls between two looks at the clock */

static const struct mr_lpu_completion *peek_completion(const struct lpu *lpu)
{
	const struct mr_lpu_completion *c = &lpu->cq[lpu->cq_head % lpu->entries];
	uint32_t phase = !(lpu->cq_head / lpu->entries & 1);

	/* Pairs with the device's write of the phase, last of the entry. */
	return (__atomic_load_n(&c->phase, __ATOMIC_ACQUIRE) & 1) == phase ? c : NULL;
}

static const struct mr_lpu_record *peek_record(const struct lpu *lpu)
{
	const struct mr_lpu_record *r = &lpu->ring[lpu->record_head % lpu->record_entries];
	uint32_t lap = lpu->record_head / lpu->record_entries + 1;

	/* Pairs with the device's write of the lap, last of the record. */
	return __atomic_load_n(&r->phase, __ATOMIC_ACQUIRE) == lap ? r : NULL;
}

static struct pending *oldest(struct lpu *lpu)
{
	return lpu->cq_head == lpu->sq_tail ? NULL : &lpu->pending[lpu->cq_head % lpu->entries];
}

/* On to the next record that @p can make: next entry that has not stopped, then next step. */
static void advance(struct lpu *lpu, struct pending *p)
{
	for (uint32_t turn = 0; turn <= p->entry_count; turn++) {
		if (++p->cursor == p->entry_count) {
			p->cursor = 0;
			p->step++;
		}
		if (!lpu->decodes[p->entry_first + p->cursor].stopped)
			return;
	}
	p->step = p->steps; /* all have stopped: no further record */
}

/*
 * The cycle that the program claims for the record at the cursor. A slot that has stopped keeps its place and its
 * cycles, at the position where it stopped.
 */
static uint64_t predict(struct lpu *lpu, struct pending *p)
{
	const struct mr_cycles *c = &lpu->dev.caps.cycles;

	if (p->claim_step != p->step + 1) {
		p->claimed += p->claim;
		p->claim = c->base;
		for (uint32_t i = 0; i < p->entry_count; i++) {
			/* Fed at position - 1; entries before the cursor have stopped, so none moved on. */
			uint32_t blocks = (lpu->decodes[p->entry_first + i].position - 1) / 16 + 1;

			p->claim += c->slot + c->block * blocks + c->tile * ((blocks + 15) / 16);
		}
		p->claim_step = p->step + 1;
	}
	return p->claimed + p->claim - (p->entry_count - 1 - p->cursor) * c->record;
}

/* A record of a DECODE: 0, or 1 where it cannot be. */
static int decoded(struct lpu *lpu, struct pending *p, const struct mr_lpu_record *r,
		   struct mr_event *event)
{
	struct decode_entry *d = &lpu->decodes[p->entry_first + p->cursor];
	uint32_t stopped = (r->status & MR_LPU_RECORD_STOPPED) != 0;

	if (p->step >= p->steps || r->slot != d->slot || r->generation != d->generation ||
	    r->position != d->position || r->token >= lpu->vocab ||
	    r->status & ~MR_LPU_RECORD_STOPPED)
		return 1;
	event->stopped = stopped;
	event->cycles = r->cycle - d->cycles;
	if (lpu->dev.caps.cycles.base) {
		uint64_t predicted = predict(lpu, p);

		event->predicted = predicted - d->predicted;
		d->predicted = predicted;
		mr_count(MR_M_lpu_cycles_off, predicted != r->cycle);
	}
	event->logits = d->logits;
	d->cycles = r->cycle;
	d->position++;
	d->stopped = stopped;
	if (d->logits)
		d->logits = (float *)(void *)((uint8_t *)d->logits + lpu->row_bytes);
	advance(lpu, p);
	return 0;
}

/* A record of a SCORE: 0, or 1 where it cannot be. */
static int scored(struct pending *p, const struct mr_lpu_record *r, struct mr_event *event)
{
	if (!p->given_count || r->slot != p->slot || r->generation != p->generation ||
	    r->position != p->position || r->token != *p->given || r->status)
		return 1;
	event->cycles = r->cycle - p->cycles;
	p->position++;
	p->given++;
	p->given_count--;
	return 0;
}

/* One record to @event. 0, or 1 where it is none that @p could make (then no event). */
static int take_record(struct lpu *lpu, struct pending *p, const struct mr_lpu_record *shared,
		       struct mr_event *event)
{
	/* Read once: the device could write it again. */
	const struct mr_lpu_record r = *shared;

	lpu->record_head++;
	lpu->seen.records++;
	mr_count(MR_M_lpu_records, 1);
	if (!p || p->kind < PENDING_DECODE)
		return 1;
	p->records++;
	*event = (struct mr_event){
		.type = MR_EVENT_TOKEN,
		.tag = p->tag,
		.slot = {r.slot, r.generation},
		.position = r.position,
		.token = r.token,
		.logprob = r.logprob,
	};
	if (r.cycle < p->cycles || isnan(r.logprob) ||
	    (p->kind == PENDING_DECODE ? decoded(lpu, p, &r, event) : scored(p, &r, event))) {
		p->status = MR_E_PROTOCOL;
		return 1;
	}
	p->cycles = r.cycle;
	return 0;
}

/* What @p's end says about its slots: one that stopped early holds less than was expected of it. */
static void settle_slots(struct lpu *lpu, const struct pending *p, int status)
{
	struct slot *s = &lpu->slots[p->slot];

	if (p->kind == PENDING_OPEN && status && s->open && s->generation == p->generation)
		s->status = status;
	for (uint32_t i = 0; p->kind == PENDING_DECODE && !status && i < p->entry_count; i++) {
		const struct decode_entry *d = &lpu->decodes[p->entry_first + i];
		s = &lpu->slots[d->slot];
		if (s->generation == d->generation && s->writer == p->request)
			s->end = d->position - 1;
	}
}

/* Stale for the device, where the driver sent no other slot than its own: because it refused to open one. */
static int why_stale(const struct lpu *lpu, const struct pending *p)
{
	const struct decode_entry *d = &lpu->decodes[p->entry_first];
	int status = MR_E_STALE;

	if (p->kind == PENDING_IMPORT || p->kind == PENDING_READ || p->kind == PENDING_SCORE)
		return lpu->slots[p->slot].generation == p->generation && lpu->slots[p->slot].status
			       ? lpu->slots[p->slot].status
			       : MR_E_STALE;
	for (uint32_t i = 0; p->kind == PENDING_DECODE && i < p->entry_count; i++)
		if (lpu->slots[d[i].slot].generation == d[i].generation &&
		    lpu->slots[d[i].slot].status)
			status = lpu->slots[d[i].slot].status;
	return status;
}

/* The end of @p. Returns 1 where that makes an event. */
static int end(struct lpu *lpu, const struct pending *p, int status, struct mr_event *event)
{
	if (status)
		lpu->seen.errors++;
	if (p->kind == PENDING_DECODE)
		lpu->seen.steps += p->step;
	if (p->kind == PENDING_READ)
		lpu->reading = 0;
	lpu->seen.cycles += p->cycles;
	mr_count(MR_M_lpu_cycles, p->cycles);
	if (p->kind > PENDING_OPEN)
		*event = (struct mr_event){
			.type = MR_EVENT_DONE,
			.status = status,
			.tag = p->tag,
			.slot = {p->slot, p->generation},
			.cycles = p->cycles,
		};
	lpu->seen.completions++;
	return p->kind > PENDING_OPEN;
}

/* Ends the oldest command and gives back what it held. */
static int retire(struct lpu *lpu, struct pending *p, int status, struct mr_event *event)
{
	fifo_give(&lpu->param_room, p->param_end);
	fifo_give(&lpu->decode_room, p->entries_end);
	lpu->rows_done = p->rows_end;
	lpu->cq_head++;
	status = p->status ? p->status : status;
	if (status == MR_E_STALE)
		status = why_stale(lpu, p);
	/* Nobody but recovery ends a command early. */
	if (status == MR_E_CANCELLED)
		status = MR_E_TIMEOUT;
	settle_slots(lpu, p, status);
	return end(lpu, p, status, event);
}

/* A visible completion of @p: its verdict, or MR_E_PROTOCOL where it contradicts what was seen. */
static int verdict(const struct lpu *lpu, const struct pending *p,
		   const struct mr_lpu_completion *shared)
{
	const struct mr_lpu_completion c = *shared;
	int status = -(int)c.status;

	if (c.request != p->request || status < MR_E_SCHEDULE_VIOLATION ||
	    (status == MR_E_CANCELLED && !p->aborted))
		return MR_E_PROTOCOL;
	/* Success means that every record came that was to come. */
	if (p->kind >= PENDING_DECODE && !status &&
	    (c.result != p->records || p->step < p->steps || p->given_count))
		return MR_E_PROTOCOL;
	if (p->kind == PENDING_READ && !status && c.result != p->count)
		return MR_E_PROTOCOL;
	return status || p->kind != PENDING_READ ? status : mr_lpu_read_check(lpu, p);
}

/* One event into @event: 1; something else was done: 0; nothing is there: -1. */
static int step(struct lpu *lpu, struct mr_event *event)
{
	if (lpu->ended_next < lpu->ended_count)
		return end(lpu, &lpu->ended[lpu->ended_next++], MR_E_DEVICE, event);

	const struct mr_lpu_record *record = peek_record(lpu);
	struct pending *p = oldest(lpu);
	const struct mr_lpu_completion *c = p ? peek_completion(lpu) : NULL;

	/* The last records may have come between the two looks: before the completion, so seen now. */
	if (c && !record)
		record = peek_record(lpu);
	if (c && (!record || p->kind < PENDING_DECODE || p->records >= c->result)) {
		int status = verdict(lpu, p, c);
		if (status == MR_E_PROTOCOL)
			mr_count(MR_M_lpu_bad_completion, 1);
		return retire(lpu, p, status, event);
	}
	if (!record)
		return -1;
	if (take_record(lpu, p, record, event)) {
		mr_count(MR_M_lpu_bad_completion, 1);
		return 0;
	}
	event->seen_ns = mr_lpu_monotonic_ns(NULL);
	return 1;
}

/* Gives credit back: records at once, since a device may wait for them. */
static void tell(struct lpu *lpu)
{
	if (lpu->record_told != lpu->record_head) {
		mr_lpu_doorbell(lpu, IO_QUEUE, MR_LPU_DB_RECORD_HEAD, lpu->record_head);
		lpu->record_told = lpu->record_head;
	}
	if (lpu->cq_told != lpu->cq_head) {
		mr_lpu_doorbell(lpu, IO_QUEUE, MR_LPU_DB_CQ_HEAD, lpu->cq_head);
		lpu->cq_told = lpu->cq_head;
	}
}

/* No progress for long: is the device slow, or gone? */
static void watch(struct lpu *lpu)
{
	/* A loop that sleeps polls rarely: then each empty poll looks. */
	if (lpu->cq_head == lpu->sq_tail || (!lpu->slept && ++lpu->idle_polls % STALL_POLLS))
		return;
	lpu->slept = 0;
	lpu->lost = mr_recover_tick(&lpu->recover);
}

int mr_lpu_settle(struct lpu *lpu)
{
	uint64_t until = mr_lpu_now_ns(lpu) + lpu->timeout_ns;
	struct mr_event event;

	for (uint32_t i = lpu->cq_head; i != lpu->sq_tail; i++)
		if (lpu->pending[i % lpu->entries].kind > PENDING_OPEN)
			return MR_E_BUSY;
	mr_lpu_ring(lpu);
	while (oldest(lpu)) {
		if (mr_lpu_bus_lost(lpu))
			return mr_lpu_bus_lost(lpu);
		if (mr_lpu_now_ns(lpu) > until)
			return MR_E_TIMEOUT;
		step(lpu, &event); /* nothing but quiet commands: no event is lost */
		tell(lpu);
	}
	mr_recover_progress(&lpu->recover);
	return lpu->ended_next < lpu->ended_count ? MR_E_BUSY : 0;
}

int mr_lpu_poll(struct mr_device *dev, struct mr_event *events, uint32_t max)
{
	struct lpu *lpu = lpu_of(dev);
	uint32_t n = 0;
	int done = 0;

	if (lpu->lost)
		return lpu->lost;
	/* Logits handed out by the last poll end here. */
	fifo_give(&lpu->row_room, lpu->rows_done);
	mr_lpu_ring(lpu);
	while (n < max) {
		int got = step(lpu, &events[n]);
		if (got < 0)
			break;
		n += (uint32_t)got;
		done = 1;
	}
	tell(lpu);
	mr_lpu_events_look(lpu);
	if (done)
		mr_recover_progress(&lpu->recover);
	else if (mr_lpu_bus_lost(lpu))
		lpu->lost = mr_lpu_bus_lost(lpu); /* what had come before was told first */
	else
		watch(lpu);
	return (int)n;
}

/* Between the arming and the look at the rings; pairs with the device's, between a phase and ARM. */
static void full_fence(void)
{
#ifdef MR_TSAN
	/* TSan does not see fences; it sees this. */
	static uint32_t word;
	__atomic_fetch_add(&word, 1, __ATOMIC_SEQ_CST);
#else
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
#endif
}

int mr_lpu_arm(struct mr_device *dev)
{
	struct lpu *lpu = lpu_of(dev);
	uint64_t count;

	if (lpu->lost || lpu->ended_next < lpu->ended_count)
		return 1;
	lpu->slept = 1;
	mr_lpu_ring(lpu);
	/* What an earlier arming left: the descriptor is not blocking, and empty is as good. */
	ssize_t drained = read(dev->wait_fd, &count, sizeof(count));
	(void)drained;
	lpu->bus->ops->doorbell(lpu->bus, IO_QUEUE, MR_LPU_DB_ARM, 1);
	/* The read returns when the doorbell has arrived; then the rings are looked at once more. */
	lpu->bus->ops->reg_read(lpu->bus, MR_LPU_REG_STATUS);
	full_fence();
	return mr_lpu_bus_lost(lpu) || peek_record(lpu) || (oldest(lpu) && peek_completion(lpu));
}
