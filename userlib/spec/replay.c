// SPDX-License-Identifier: Apache-2.0
/*
 * The verifier of schedules: walks the ICU's queue and hands every instruction, at its cycle, to the rules of
 * replay_rules.c; adds the cycles up and compares them with the CLAIM. Twice: one slot with one KV block, and the largest
 * batch with whole tiles. Every time is affine in its body's register, so what holds at both ends holds between.
 */
#include <stdlib.h>
#include <string.h>

#include <millrace/status.h>

#include "userlib/spec/replay_parts.h"

#define TILES 2u /* of a slot in the larger replay: a second one finds what the first left */

int mr_replay_refuse(struct replay *r, const struct mr_isa *i, int status, const char *what)
{
	return mr_spec_why(r->why, status, "instruction %u, body %u, chip %u: %s: %s", r->index,
			   i->body, i->chip, mr_isa_name(i->op), what);
}

/* ---- the ICU's queue ---- */

struct sums {
	uint64_t base, slot, block, tile,
		last; /* last: length of the latest body in LOOP SLOTS alone */
	uint32_t bodies;
};

static int blank_icu(const struct mr_isa *i)
{
	return !i->chip && !i->peer && !i->rows && !i->interval && !i->cols && !i->address &&
	       !i->stride && i->src[0] == MR_ISA_NONE && i->src[1] == MR_ISA_NONE &&
	       i->src[2] == MR_ISA_NONE && i->dst == MR_ISA_NONE;
}

/* Loops nest as they may; the claim's four numbers. */
static int add_up(const struct mr_container *c, struct sums *s, struct mr_spec_why *why)
{
	uint32_t depth = 0;

	for (uint32_t k = 0; k < c->sched->icu; k++) {
		const struct mr_isa *i = &c->icu[k];
		int ok = blank_icu(i);

		if (ok && i->op == MR_I_NOP) {
			ok = i->form == MR_R_NONE    ? !i->slope
			     : i->form == MR_R_SLOTS ? depth == 0
						     : i->form == MR_R_BLOCKS && depth == 2;
			ok = ok && i->body == s->bodies++ && s->bodies < 65536;
			*(depth == 2 ? &s->tile : depth ? &s->slot : &s->base) += i->offset;
			if (depth == 1)
				s->last = i->offset;
			*(depth == 2 ? &s->block : &s->slot) += i->slope;
		} else if (ok && i->op == MR_I_LOOP) {
			ok = i->form == (depth == 0 ? MR_R_SLOTS : MR_R_TILES) && depth < 2 &&
			     !i->offset && !i->slope && !i->body;
			depth++;
		} else if (ok) {
			ok = i->op == MR_I_END && depth && !i->form && !i->offset && !i->slope &&
			     !i->body;
			depth--;
		}
		if (!ok)
			return mr_spec_why(why, MR_E_FORMAT, "the ICU's instruction %u", k);
	}
	/* A shape's program makes no tokens, and need not end in sampling. */
	if (!depth && !c->ref->vocab)
		return 0;
	if (depth || c->sched->icu < 3 || c->icu[c->sched->icu - 1].op != MR_I_END ||
	    c->icu[c->sched->icu - 2].op != MR_I_NOP)
		return mr_spec_why(why, MR_E_FORMAT, "the ICU's queue does not end in a loop");
	return 0;
}

static int check_claim(const struct mr_container *c, const struct sums *s, struct mr_spec_why *why)
{
	const struct mr_prog_claim *claim = c->claims;

	if (claim->base == s->base && claim->slot == s->slot && claim->block == s->block &&
	    claim->tile == s->tile && claim->record == s->last)
		return 0;
	return mr_spec_why(why, MR_E_SCHEDULE_VIOLATION,
			   "the claim is %llu + slots * (%llu + %llu a block + %llu a tile), the "
			   "schedule %llu + slots * (%llu + %llu + %llu)",
			   (unsigned long long)claim->base, (unsigned long long)claim->slot,
			   (unsigned long long)claim->block, (unsigned long long)claim->tile,
			   (unsigned long long)s->base, (unsigned long long)s->slot,
			   (unsigned long long)s->block, (unsigned long long)s->tile);
}

/* ---- bodies ---- */

/* Bodies ascend, chips and queues exist: what the replay relies on to find its way. */
static int check_order(const struct mr_container *c, uint32_t bodies, struct mr_spec_why *why)
{
	uint32_t body = 0;

	for (uint32_t k = 0; k < c->sched->instructions; k++) {
		const struct mr_isa *i = &c->instructions[k];

		if (i->body < body || i->body >= bodies || i->chip >= c->sched->chips ||
		    mr_isa_queue(i) >= MR_ISA_QUEUES || mr_isa_queue(i) == MR_ISA_ICU ||
		    mr_isa_queue(i) == MR_ISA_SXM)
			return mr_spec_why(why, MR_E_FORMAT, "instruction %u: body, chip or queue",
					   k);
		body = i->body;
	}
	return 0;
}

static void begin_body(struct replay *r)
{
	for (uint32_t k = 0; k < r->c->sched->chips; k++) {
		struct replay_chip *p = &r->part[k];

		memset(p->skew, 0, sizeof(p->skew));
		p->read_count = 0;
		p->ports[0] = p->ports[1] = p->ports[2] = 0;
	}
	r->records = r->samples = 0;
}

/* A body leaves nothing under way. */
static int end_body(struct replay *r)
{
	uint32_t chips = r->c->sched->chips;

	for (uint32_t k = 0; k < chips; k++) {
		struct replay_chip *p = &r->part[k];

		memset(p->queue, 0, sizeof(p->queue));
		for (uint32_t s = 0; s < r->chip->streams; s++) {
			if (p->stream[s].there && !p->stream[s].taken)
				return mr_spec_why(
					r->why, MR_E_SCHEDULE_VIOLATION,
					"body %u, chip %u: nobody took the rows on stream %u",
					r->body, k, s);
			p->stream[s].there = 0;
		}
		if (p->summing || (p->installed && !p->used))
			return mr_spec_why(r->why, MR_E_SCHEDULE_VIOLATION,
					   "body %u, chip %u: weights or sums that nothing used",
					   r->body, k);
	}
	for (uint32_t k = 0; k < chips * chips; k++)
		if (r->flight[k].there)
			return mr_spec_why(r->why, MR_E_SCHEDULE_VIOLATION,
					   "body %u: nobody received what chip %u sent", r->body,
					   k / chips);
	return 0;
}

/* Body @icu->body, whose instructions begin at *at; *at goes on to the next body's. */
static int run_body(struct replay *r, const struct mr_isa *icu, uint32_t *at)
{
	uint64_t value = icu->form == MR_R_SLOTS    ? r->slots
			 : icu->form == MR_R_BLOCKS ? r->blocks
						    : 0;
	int status = 0;

	r->body = icu->body;
	r->body_end = r->now + icu->offset + icu->slope * value;
	begin_body(r);
	if (r->body_end > UINT32_MAX - 2)
		return mr_spec_why(r->why, MR_E_RANGE, "a step of more cycles than 32 bits hold");
	for (; !status && *at < r->c->sched->instructions &&
	       r->c->instructions[*at].body == icu->body;
	     ++*at) {
		const struct mr_isa *i = &r->c->instructions[*at];
		uint64_t *skew = &r->part[i->chip].skew[mr_isa_queue(i)];
		uint64_t start = r->now + i->offset + i->slope * value + *skew;

		r->index = *at;
		r->effort += 32;
		if (i->op == MR_I_NOP)
			*skew += i->offset;
		else if (start < r->part[i->chip].queue[mr_isa_queue(i)])
			status = mr_replay_refuse(r, i, MR_E_SCHEDULE_VIOLATION,
						  "starts before the one ahead of it");
		else
			status = mr_replay_rule(r, i, start);
		if (!status && r->effort > REPLAY_EFFORT)
			status = mr_spec_why(r->why, MR_E_TOO_LARGE, "more than a device replays");
		r->part[i->chip].queue[mr_isa_queue(i)] = start;
	}
	r->now = r->body_end;
	return status ? status : end_body(r);
}

static uint32_t end_of(const struct mr_container *c, uint32_t loop)
{
	uint32_t depth = 0, k = loop;

	do {
		depth += c->icu[k].op == MR_I_LOOP;
		depth -= c->icu[k].op == MR_I_END;
		k++;
	} while (depth);
	return k - 1;
}

static int run_range(struct replay *r, uint32_t from, uint32_t to, uint32_t *at)
{
	int status = 0;

	for (uint32_t k = from; !status && k < to; k++) {
		const struct mr_isa *icu = &r->c->icu[k];
		uint32_t first = *at, end, times;

		if (icu->op == MR_I_NOP) {
			status = run_body(r, icu, at);
			continue;
		}
		end = end_of(r->c, k);
		int slots = icu->form == MR_R_SLOTS;
		times = slots ? r->slots : r->blocks == 1 ? 1 : TILES;
		*(slots ? &r->in_slot : &r->in_tile) = 1;
		for (uint32_t t = 0; !status && t < times; t++) {
			if (slots)
				r->slot = t;
			*at = first;
			status = run_range(r, k + 1, end, at);
		}
		*(slots ? &r->in_slot : &r->in_tile) = 0;
		k = end;
	}
	return status;
}

static int replay(struct replay *r, uint32_t slots, uint32_t blocks)
{
	uint32_t chips = r->c->sched->chips, at = 0;
	int status;

	for (uint32_t k = 0; k < chips; k++) {
		struct replay_chip *p = &r->part[k];
		uint32_t *word = p->word;
		struct kv_part *kv = p->kv;
		struct busy *read = p->read;
		uint32_t room = p->read_room;

		memset(p, 0, sizeof(*p));
		p->word = word;
		p->kv = kv;
		p->read = read;
		p->read_room = room;
		memset(word, 0, r->c->sched_chips[k].work_bytes / 4 * sizeof(*word));
	}
	memset(r->flight, 0, (size_t)chips * chips * sizeof(*r->flight));
	memset(r->link_free, 0, (size_t)chips * chips * sizeof(*r->link_free));
	r->slots = slots;
	r->blocks = blocks;
	r->now = r->slot = r->in_slot = r->in_tile = 0;
	status = run_range(r, 0, r->c->sched->icu, &at);
	if (!status && r->c->ref->vocab && (r->records != 1 || r->record_end != r->now))
		status = mr_spec_why(r->why, MR_E_SCHEDULE_VIOLATION,
				     "the program does not end with one RECORD");
	return status;
}

/* ---- the payload's own tables ---- */

static int check_chips(const struct mr_container *c, const struct mr_chip *chip,
		       struct mr_spec_why *why)
{
	uint64_t blocks = (c->header->context + MR_ISA_BLOCK - 1ull) / MR_ISA_BLOCK;

	if (chip->streams > REPLAY_STREAMS || chip->read_ports > REPLAY_PORTS ||
	    chip->write_ports > REPLAY_PORTS || chip->vector_alus > REPLAY_PORTS)
		return mr_spec_why(why, MR_E_NOT_SUPPORTED, "the chip's streams or ports");
	for (int i = 0; i < 5; i++)
		if (c->sched->reserved[i] || c->sched->reserved0)
			return mr_spec_why(why, MR_E_FORMAT, "schedule's reserved fields");
	for (uint32_t k = 0; k < c->sched->chips; k++) {
		const struct mr_sched_chip *s = &c->sched_chips[k];
		uint64_t segments = 0, kv = c->chips[k].kv_address;

		for (uint32_t i = 0; i < c->header->segments; i++)
			if (c->segments[i].chip == k)
				segments = c->segments[i].address + c->segments[i].bytes;
		if (s->work_address % MR_PROG_ALIGN || s->work_bytes % MR_PROG_ALIGN ||
		    s->work_address < segments || s->work_address > kv ||
		    s->work_bytes > kv - s->work_address || s->reserved0 || s->reserved[0] ||
		    s->reserved[1] || s->reserved[2] || s->reserved[3])
			return mr_spec_why(why, MR_E_FORMAT, "chip %u: work area", k);
		if (!c->ref->vocab)
			continue;
		if (s->table_address % 8 || s->table_stride % 4 ||
		    s->table_stride < sizeof(struct mr_isa_slot) + 4 * blocks ||
		    s->table_address < s->work_address ||
		    (uint64_t)s->table_stride * c->header->batch > s->work_bytes ||
		    s->table_address - s->work_address >
			    s->work_bytes - (uint64_t)s->table_stride * c->header->batch)
			return mr_spec_why(why, MR_E_FORMAT, "chip %u: slot table", k);
	}
	return 0;
}

/* Areas ascend by chip and address, in the work areas, and lie side by side. */
static int check_areas(const struct mr_container *c, struct mr_spec_why *why)
{
	uint64_t end = 0;

	for (uint32_t k = 0; k < c->sched->areas; k++) {
		const struct mr_sched_area *a = &c->areas[k];
		const struct mr_sched_chip *s;

		if (a->chip >= c->sched->chips || (k && a->chip < a[-1].chip) ||
		    !memchr(a->name, 0, sizeof(a->name)) || a->reserved[0] || a->reserved[1] ||
		    a->reserved[2])
			return mr_spec_why(why, MR_E_FORMAT, "area %u: chip or name", k);
		s = &c->sched_chips[a->chip];
		if (!k || a->chip != a[-1].chip)
			end = s->work_address;
		if (a->address < end)
			return mr_spec_why(why, MR_E_FORMAT, "area %u (%s) lies over another", k,
					   a->name);
		if (!a->bytes || a->address % 8 || a->address > s->work_address + s->work_bytes ||
		    a->bytes > s->work_address + s->work_bytes - a->address)
			return mr_spec_why(why, MR_E_FORMAT, "area %u (%s): outside the work area",
					   k, a->name);
		end = a->address + a->bytes;
	}
	return 0;
}

static int make_room(struct replay *r)
{
	uint32_t chips = r->c->sched->chips;

	r->part = calloc(chips, sizeof(*r->part));
	r->flight = calloc((size_t)chips * chips, sizeof(*r->flight));
	r->link_free = calloc((size_t)chips * chips, sizeof(*r->link_free));
	if (!r->part || !r->flight || !r->link_free)
		return MR_E_NO_MEMORY;
	for (uint32_t k = 0; k < chips; k++) {
		r->part[k].word = calloc(r->c->sched_chips[k].work_bytes / 4 + 1, sizeof(uint32_t));
		r->part[k].kv = calloc(REPLAY_KV, sizeof(*r->part[k].kv));
		if (!r->part[k].word || !r->part[k].kv)
			return MR_E_NO_MEMORY;
	}
	return 0;
}

int mr_schedule_verify(const struct mr_container *c, const struct mr_chip *chip,
		       struct mr_spec_why *why)
{
	struct replay r = {.c = c, .chip = chip, .why = why};
	struct sums sums = {0};
	int status = check_chips(c, chip, why);

	if (!status)
		status = check_areas(c, why);
	if (!status)
		status = add_up(c, &sums, why);
	if (!status)
		status = check_order(c, sums.bodies, why);
	if (!status)
		status = check_claim(c, &sums, why);
	if (!status)
		status = make_room(&r);
	if (!status)
		status = replay(&r, 1, 1);
	if (!status)
		status = replay(&r, c->header->batch, MR_ISA_TILE / MR_ISA_BLOCK);
	for (uint32_t k = 0; r.part && k < c->sched->chips; k++) {
		free(r.part[k].word);
		free(r.part[k].kv);
		free(r.part[k].read);
	}
	free(r.part);
	free(r.flight);
	free(r.link_free);
	return status;
}
