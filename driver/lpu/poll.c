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
#define AHEAD       6u    /* records to fetch ahead of the one taken */

/* A ring has a power of two of entries: no division on the data path. */
static uint32_t place(uint32_t index, uint32_t entries)
{
	return index & (entries - 1);
}

/* What lies at place @index has a phase that is neither the old nor the new one: counted once. */
static void spoilt(struct lpu *lpu, uint32_t *seen, uint32_t index, const char *ring)
{
	if (*seen == index + 1)
		return;
	*seen = index + 1;
	mr_count(MR_M_lpu_garbage, 1);
	mr_lpu_say(lpu, "%s: garbage in the %s ring, at %u", lpu->dev.caps.name, ring, index);
}

static const struct mr_lpu_completion *peek_completion(struct lpu *lpu)
{
	const struct mr_lpu_completion *c = &lpu->cq[place(lpu->cq_head, lpu->entries)];
	uint32_t want = !(lpu->cq_head & lpu->entries);
	/* Pairs with the device's write of the phase, last of the entry. */
	uint32_t phase = __atomic_load_n(&c->phase, __ATOMIC_ACQUIRE);

	if (phase > 1)
		spoilt(lpu, &lpu->cq_spoilt, lpu->cq_head, "completion");
	return phase == want ? c : NULL;
}

static const struct mr_lpu_record *peek_record(struct lpu *lpu)
{
	const struct mr_lpu_record *r = &lpu->ring[place(lpu->record_head, lpu->record_entries)];
	uint32_t lap = (lpu->record_head >> __builtin_ctz(lpu->record_entries)) + 1;
	/* Pairs with the device's write of the lap, last of the record. */
	uint32_t phase = __atomic_load_n(&r->phase, __ATOMIC_ACQUIRE);

	if (phase != lap && phase != lap - 1)
		spoilt(lpu, &lpu->ring_spoilt, lpu->record_head, "record");
	return phase == lap ? r : NULL;
}

static struct pending *oldest(struct lpu *lpu)
{
	return lpu->sq_done == lpu->sq_tail ? NULL
					    : &lpu->pending[place(lpu->sq_done, lpu->entries)];
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

enum record_is { GOOD, BAD, IDLE };

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

/*
 * A record of a DECODE. One that cannot be takes the place of the one that was due, so that those after it do
 * not look spoilt too; but for its entry they come to nothing, for the token between is missing.
 */
static enum record_is decoded(struct lpu *lpu, struct pending *p, const struct mr_lpu_record *r,
			      struct mr_event *event)
{
	struct decode_entry *d = &lpu->decodes[p->entry_first + p->cursor];
	uint32_t stopped = (r->status & MR_LPU_RECORD_STOPPED) != 0;

	if (p->step >= p->steps)
		return BAD;
	int bad = r->slot != d->slot || r->generation != d->generation ||
		  r->position != d->position || r->token >= lpu->vocab ||
		  r->status & ~MR_LPU_RECORD_STOPPED || r->cycle < p->cycles || isnan(r->logprob);
	event->stopped = stopped;
	event->cycles = r->cycle - d->cycles;
	if (lpu->dev.caps.cycles.base) {
		uint64_t predicted = predict(lpu, p);

		event->predicted = predicted - d->predicted;
		d->predicted = predicted;
		mr_count(MR_M_lpu_cycles_off, !bad && predicted != r->cycle);
	}
	event->logits = d->logits;
	if (!bad)
		d->cycles = r->cycle;
	d->position++;
	d->stopped = stopped && !bad;
	d->spoilt |= (uint32_t)bad;
	if (d->logits)
		d->logits = (float *)(void *)((uint8_t *)d->logits + lpu->row_bytes);
	advance(lpu, p);
	return bad ? BAD : d->spoilt ? IDLE : GOOD;
}

/* A record of a SCORE, in the same way. */
static enum record_is scored(struct pending *p, const struct mr_lpu_record *r,
			     struct mr_event *event)
{
	if (!p->given_count)
		return BAD;
	int bad = r->slot != p->slot || r->generation != p->generation ||
		  r->position != p->position || r->token != *p->given || r->status ||
		  r->cycle < p->cycles || isnan(r->logprob);
	event->cycles = r->cycle - p->cycles;
	p->position++;
	p->given++;
	p->given_count--;
	return bad ? BAD : p->status ? IDLE : GOOD;
}

/* One record: to @event where it is GOOD. */
static enum record_is take_record(struct lpu *lpu, struct pending *p,
				  const struct mr_lpu_record *shared, struct mr_event *event)
{
	/* Read once: the device could write it again. */
	const struct mr_lpu_record r = *shared;

	lpu->record_head++;
	/* A step of some slots comes as a burst, two records a line: the lines come side by side. */
	__builtin_prefetch(&lpu->ring[place(lpu->record_head + AHEAD, lpu->record_entries)]);
	lpu->seen.records++;
	mr_count(MR_M_lpu_records, 1);
	if (!p || p->kind < PENDING_DECODE)
		return BAD;
	p->records++;
	*event = (struct mr_event){
		.type = MR_EVENT_TOKEN,
		.tag = p->tag,
		.slot = {r.slot, r.generation},
		.position = r.position,
		.token = r.token,
		.logprob = r.logprob,
	};
	enum record_is is =
		p->kind == PENDING_DECODE ? decoded(lpu, p, &r, event) : scored(p, &r, event);
	if (is == BAD)
		p->status = MR_E_PROTOCOL;
	else
		p->cycles = r.cycle;
	return is;
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

/* Ends the oldest command, whose completion has been taken, and gives back what it held. */
static int retire(struct lpu *lpu, struct pending *p, int status, struct mr_event *event)
{
	fifo_give(&lpu->param_room, p->param_end);
	fifo_give(&lpu->decode_room, p->entries_end);
	lpu->rows_done = p->rows_end;
	lpu->sq_done++;
	status = p->status ? p->status : status;
	if (status == MR_E_DMA_FAULT)
		mr_count(MR_M_lpu_dma_faults, 1);
	if (status == MR_E_STALE)
		status = why_stale(lpu, p);
	/* Nobody but recovery ends a command early. */
	if (status == MR_E_CANCELLED)
		status = MR_E_TIMEOUT;
	settle_slots(lpu, p, status);
	return end(lpu, p, status, event);
}

/* A completion of @p: its verdict, or MR_E_PROTOCOL where it contradicts what was seen. */
static int verdict(struct lpu *lpu, const struct pending *p, const struct mr_lpu_completion *c)
{
	int status = -(int)c->status;

	if (c->request != p->request || status < MR_E_SCHEDULE_VIOLATION ||
	    (status == MR_E_CANCELLED && !p->aborted))
		return MR_E_PROTOCOL;
	/* Success means that every record came that was to come. */
	if (p->kind >= PENDING_DECODE && !status &&
	    (c->result != p->records || p->step < p->steps || p->given_count))
		return MR_E_PROTOCOL;
	if (p->kind == PENDING_READ && !status && c->result != p->count)
		return MR_E_PROTOCOL;
	return status || p->kind != PENDING_READ ? status : mr_lpu_read_take(lpu, p);
}

/*
 * A completion that is not the oldest command's: 1 = it is taken and counted. A command's request is its index
 * in the submission ring, so that what was, is and will be can be told apart. One that answers to nothing is
 * taken for the oldest command's, spoilt, where there is one: 0.
 */
static int stray(struct lpu *lpu, const struct mr_lpu_completion *c)
{
	uint32_t ahead = c->request - lpu->sq_done, behind = lpu->sq_done - c->request;
	struct pending *p = &lpu->pending[c->request % lpu->entries];

	if (ahead && ahead < lpu->sq_tail - lpu->sq_done && !p->early) {
		p->early = 1;
		p->completion = *c;
		mr_count(MR_M_lpu_reordered, 1);
	} else if ((behind && behind <= lpu->entries) ||
		   (ahead && ahead < lpu->sq_tail - lpu->sq_done)) {
		mr_count(MR_M_lpu_repeated, 1);
	} else if (lpu->sq_done == lpu->sq_tail) {
		mr_count(MR_M_lpu_bad_completion, 1);
	} else {
		return 0;
	}
	lpu->cq_head++;
	return 1;
}

/* @p can make no further record. */
static int recorded(const struct pending *p)
{
	return p->kind < PENDING_DECODE || (p->kind == PENDING_DECODE && p->step >= p->steps) ||
	       (p->kind == PENDING_SCORE && !p->given_count);
}

static void lose_command(struct lpu *lpu, int status)
{
	mr_count(MR_M_lpu_lost_commands, 1);
	mr_lpu_say(lpu, "%s has lost a command, or its completion", lpu->dev.caps.name);
	mr_recover_lose(&lpu->recover);
	lpu->lost = status;
}

enum stepped { NOTHING = -1, DROPPED = 0, ENDED, EVENT };

/* What is next: an event into @event, a command that ended without one, an entry dropped, or nothing. */
static enum stepped step(struct lpu *lpu, struct mr_event *event)
{
	if (lpu->ended_next < lpu->ended_count)
		return end(lpu, &lpu->ended[lpu->ended_next++], MR_E_DEVICE, event) ? EVENT : ENDED;

	const struct mr_lpu_record *record = peek_record(lpu);
	struct pending *p = oldest(lpu);
	const struct mr_lpu_completion *shared = p && p->early ? NULL : peek_completion(lpu);
	struct mr_lpu_completion c;

	if (shared) {
		c = *shared; /* read once: the device could write it again */
		if ((!p || c.request != p->request) && stray(lpu, &c))
			return DROPPED;
	} else if (p && p->early) {
		c = p->completion;
	}
	int there = shared || (p && p->early);
	/* The last records may have come between the two looks: before the completion, so seen now. */
	if (there && !record)
		record = peek_record(lpu);
	/* Its result says how many records there are; of a command that did not fail, we know. */
	if (there && (!record || p->kind < PENDING_DECODE ||
		      (p->records >= c.result && (c.status || recorded(p))))) {
		int status = verdict(lpu, p, &c);
		/* Where a record was bad, that is counted already. */
		if (status == MR_E_PROTOCOL && p->status != MR_E_PROTOCOL)
			mr_count(MR_M_lpu_bad_completion, 1);
		lpu->cq_head += shared != NULL;
		return retire(lpu, p, status, event) ? EVENT : ENDED;
	}
	if (!record)
		return NOTHING;
	/* A later command's, and so seen after the completion that is not there. */
	if (p && !there && recorded(p)) {
		lose_command(lpu, MR_E_PROTOCOL);
		return NOTHING;
	}
	enum record_is is = take_record(lpu, p, record, event);
	if (is == BAD)
		mr_count(MR_M_lpu_bad_record, 1);
	if (is != GOOD)
		return DROPPED;
	if (!lpu->seen_ns)
		lpu->seen_ns = mr_lpu_monotonic_ns(NULL);
	event->seen_ns = lpu->seen_ns;
	return EVENT;
}

/*
 * Gives credit back: records at once, since a device may wait for them. A place for a completion is kept for each
 * command, so there it is soon enough when a quarter of the ring is free: what the device looks at for the next
 * command is not written a second time.
 */
static void tell(struct lpu *lpu)
{
	if (lpu->record_told != lpu->record_head) {
		mr_lpu_doorbell(lpu, IO_QUEUE, MR_LPU_DB_RECORD_HEAD, lpu->record_head);
		lpu->record_told = lpu->record_head;
	}
	if (lpu->cq_head - lpu->cq_told >= (lpu->entries + 3) / 4) {
		mr_lpu_doorbell(lpu, IO_QUEUE, MR_LPU_DB_CQ_HEAD, lpu->cq_head);
		lpu->cq_told = lpu->cq_head;
	}
}

static void note_loss(struct lpu *lpu)
{
	uint32_t said = lpu->recover.said;

	if (lpu->lost != MR_E_DEVICE)
		return;
	mr_count(said == UINT32_MAX ? MR_M_lpu_gone : MR_M_lpu_fatal, 1);
	mr_lpu_say(lpu, "%s %s", lpu->dev.caps.name,
		   said == UINT32_MAX ? "does not answer: it was taken out, or its link is down"
				      : "has stopped: STATUS says FATAL, or not READY");
}

/* No progress for long: is the device slow, or gone? */
static void watch(struct lpu *lpu)
{
	/* A loop that sleeps polls rarely: then each empty poll looks. */
	if (lpu->sq_done == lpu->sq_tail || (!lpu->slept && ++lpu->idle_polls % STALL_POLLS))
		return;
	lpu->slept = 0;
	lpu->lost = mr_recover_tick(&lpu->recover);
	note_loss(lpu);
}

/*
 * The device does not know the command that it was to abort. Had it ended, its completion would have come
 * before ABORT's own: it never saw the command, or its completion went astray.
 */
static void in_vain(struct lpu *lpu)
{
	lpu->abort_vain = 0;
	if (lpu->recover.state != MR_RECOVER_ABORT || peek_record(lpu) || peek_completion(lpu))
		return;
	lose_command(lpu, MR_E_TIMEOUT);
}

int mr_lpu_settle(struct lpu *lpu)
{
	uint64_t until = mr_lpu_now_ns(lpu) + lpu->timeout_ns;
	struct mr_event event;

	for (uint32_t i = lpu->sq_done; i != lpu->sq_tail; i++)
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
	uint32_t n = 0, dropped = 0;
	int done = 0;

	/* One that was given up still tells what its last reset ended. */
	while (lpu->lost && n < max && lpu->ended_next < lpu->ended_count)
		n += step(lpu, &events[n]) == EVENT;
	if (lpu->lost)
		return n ? (int)n : lpu->lost;
	/* Logits handed out by the last poll end here. */
	fifo_give(&lpu->row_room, lpu->rows_done);
	lpu->seen_ns = 0;
	mr_lpu_ring(lpu);
	/* What is dropped is no progress, and a device could write it for ever. */
	while (n < max && dropped < lpu->entries) {
		enum stepped got = step(lpu, &events[n]);
		if (got == NOTHING)
			break;
		n += got == EVENT;
		dropped += got == DROPPED;
		done |= got != DROPPED;
		lpu->armed <<= lpu->armed == 1;
	}
	tell(lpu);
	mr_lpu_events_look(lpu);
	if (lpu->lost)
		return (int)n;
	if (done) {
		uint32_t slow = lpu->recover.slow;
		mr_recover_progress(&lpu->recover);
		mr_count(MR_M_lpu_slow, lpu->recover.slow - slow);
	} else if (mr_lpu_bus_lost(lpu)) {
		lpu->lost = mr_lpu_bus_lost(lpu); /* what had come before was told first */
	} else {
		watch(lpu);
	}
	if (lpu->abort_vain)
		in_vain(lpu);
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
	ssize_t drained = -1;

	if (lpu->lost || lpu->ended_next < lpu->ended_count)
		return 1;
	lpu->slept = 1;
	mr_lpu_ring(lpu);
	/* What an earlier arming left: the descriptor is not blocking, and empty is as good. */
	if (lpu->armed == 2 || !(peek_record(lpu) || peek_completion(lpu)))
		drained = read(dev->wait_fd, &count, sizeof(count));
	/* Entries came since that arming, and nobody said so. Coalescing may yet say it. */
	if (lpu->armed == 2 && drained < 0 && !lpu->coalesce)
		mr_count(MR_M_lpu_lost_interrupts, 1);
	lpu->armed = 0;
	if (peek_record(lpu) || peek_completion(lpu))
		return 1; /* no need to ask for what nobody will wait for */
	lpu->bus->ops->doorbell(lpu->bus, IO_QUEUE, MR_LPU_DB_ARM, 1);
	/* The read returns when the doorbell has arrived; then the rings are looked at once more. */
	lpu->bus->ops->reg_read(lpu->bus, MR_LPU_REG_STATUS);
	full_fence();
	if (peek_record(lpu) || peek_completion(lpu))
		return 1; /* with or without an interrupt */
	lpu->armed = 1;
	return mr_lpu_bus_lost(lpu) != 0;
}
