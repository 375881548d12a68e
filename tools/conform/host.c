// SPDX-License-Identifier: Apache-2.0
/* The suite's host: memory, registers, queues, completions and records, by driver/bus alone. */
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "driver/bus/bus.h"
#include "tools/conform/conform.h"

uint64_t conform_now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

void conform_nap_us(uint64_t us)
{
	const struct timespec t = {(time_t)(us / 1000000), (long)(us % 1000000 * 1000)};

	nanosleep(&t, NULL);
}

void *conform_take(struct conform *t, size_t bytes)
{
	void *p = t->mem + t->used;

	bytes = (bytes + 63) / 64 * 64;
	if (bytes > CONFORM_MEM_BYTES - t->used)
		conform_stuck(t, "the suite needs more memory than it has");
	t->used += bytes;
	memset(p, 0, bytes);
	return p;
}

uint64_t conform_iova(const struct conform *t, const void *p)
{
	return t->iova + (uint64_t)((const uint8_t *)p - t->mem);
}

uint32_t conform_reg(struct conform *t, uint32_t offset)
{
	return t->bus->ops->reg_read(t->bus, offset);
}

void conform_reg_set(struct conform *t, uint32_t offset, uint32_t value)
{
	t->bus->ops->reg_write(t->bus, offset, value);
}

void conform_bell(struct conform *t, uint32_t queue, uint32_t offset, uint32_t value)
{
	t->bus->ops->doorbell(t->bus, queue, offset, value);
}

void conform_ring(struct conform *t, uint32_t queue, uint32_t offset, uint32_t value)
{
	if (t->shadow) {
		uint32_t *word = &t->shadow[queue].sq_tail + offset / 4;
		/* Pairs with the device's store of asleep and its look at the indices. */
		__atomic_store_n(word, value, __ATOMIC_SEQ_CST);
		if (!__atomic_load_n(&t->shadow[queue].asleep, __ATOMIC_SEQ_CST))
			return;
	}
	conform_bell(t, queue, offset, value);
}

void conform_bad_bell(struct conform *t, uint32_t queue, uint32_t value, uint32_t after)
{
	uint32_t was = conform_reg(t, MR_LPU_REG_REFUSED);

	conform_bell(t, queue, MR_LPU_DB_SQ_TAIL, value);
	/* A busy machine may not let a device in software look for long. */
	if (WAIT(conform_reg(t, MR_LPU_REG_REFUSED) != was, t->profile.wait_ms / 2))
		conform_nap_us(2000); /* and again, so that one that counts twice is found */
	conform_bell(t, queue, MR_LPU_DB_SQ_TAIL, after);
	conform_nap_us(2000);
}

/* ---- on and off ------------------------------------------------------------------------------- */

int conform_disable(struct conform *t)
{
	conform_reg_set(t, MR_LPU_REG_CONTROL, 0);
	t->shadow = NULL;
	return WAIT(conform_reg(t, MR_LPU_REG_STATUS) == 0, t->timeout_ms);
}

static void *rings(struct conform *t, uint32_t queue, uint32_t entries, uint32_t records)
{
	struct conform_queue *q = &t->q[queue];

	*q = (struct conform_queue){.entries = entries, .records = records};
	q->sq = conform_take(t, entries * sizeof(*q->sq));
	q->cq = conform_take(t, entries * sizeof(*q->cq));
	q->ring = records ? conform_take(t, records * sizeof(*q->ring)) : NULL;
	return q;
}

int conform_enable(struct conform *t, uint32_t entries)
{
	t->used = 0;
	memset(t->q, 0, sizeof(t->q));
	rings(t, 0, entries, 0);
	uint64_t sq = conform_iova(t, t->q[0].sq), cq = conform_iova(t, t->q[0].cq);
	conform_reg_set(t, MR_LPU_REG_ADMIN_ENTRIES, entries);
	conform_reg_set(t, MR_LPU_REG_ADMIN_SQ_LO, (uint32_t)sq);
	conform_reg_set(t, MR_LPU_REG_ADMIN_SQ_HI, (uint32_t)(sq >> 32));
	conform_reg_set(t, MR_LPU_REG_ADMIN_CQ_LO, (uint32_t)cq);
	conform_reg_set(t, MR_LPU_REG_ADMIN_CQ_HI, (uint32_t)(cq >> 32));
	conform_reg_set(t, MR_LPU_REG_CONTROL, MR_LPU_CONTROL_ENABLE);
	return WAIT(conform_reg(t, MR_LPU_REG_STATUS) == MR_LPU_STATUS_READY, t->timeout_ms);
}

void conform_again(struct conform *t)
{
	if (!conform_disable(t))
		conform_stuck(t, "READY or FATAL stays 1 after ENABLE was cleared");
	if (!conform_enable(t, 16))
		conform_stuck(t, "no READY after ENABLE was set (STATUS is %#x)",
			      conform_reg(t, MR_LPU_REG_STATUS));
}

void conform_flr(struct conform *t)
{
	int status = t->bus->ops->reset(t->bus);

	t->loaded = 0;
	t->shadow = NULL;
	if (status)
		conform_stuck(t, "function-level reset: %s", mr_status_name(status));
	if (!conform_enable(t, 16))
		conform_stuck(t, "no READY after a function-level reset");
}

/* ---- commands ---------------------------------------------------------------------------------- */

uint32_t conform_place(struct conform *t, uint32_t queue, void *command)
{
	struct conform_queue *q = &t->q[queue];
	struct mr_lpu_head *head = command;

	if (t->started_us && conform_now_us() - t->started_us > t->profile.scenario_ms * 1000)
		conform_stuck(t, "the scenario takes longer than %llu ms",
			      (unsigned long long)t->profile.scenario_ms);
	head->request = ++t->request;
	memcpy(&q->sq[q->tail++ % q->entries], command, sizeof(struct mr_lpu_command));
	return head->request;
}

uint32_t conform_post(struct conform *t, uint32_t queue, void *command)
{
	uint32_t request = conform_place(t, queue, command);

	conform_ring(t, queue, MR_LPU_DB_SQ_TAIL, t->q[queue].tail);
	return request;
}

static int known_status(uint32_t status)
{
	static const uint8_t known[] = {0,  1,  2,  3,  4,  5,  6,  7,  13, 14, 15, 16,
					17, 18, 19, 20, 21, 22, 23, 25, 26, 27, 29, 33};

	return memchr(known, (int)status, sizeof(known)) && status < 256;
}

static uint32_t phase_of(uint32_t index, uint32_t entries)
{
	return !(index / entries & 1);
}

int conform_completion(struct conform *t, uint32_t queue, uint64_t ms,
		       struct mr_lpu_completion *out)
{
	struct conform_queue *q = &t->q[queue];
	struct mr_lpu_completion *c = &q->cq[q->head % q->entries];
	uint32_t want = phase_of(q->head, q->entries);

	if (!WAIT((__atomic_load_n(&c->phase, __ATOMIC_ACQUIRE) & 1) == want, ms))
		return 0;
	*out = *c;
	q->head++;
	conform_expect(t, "C-4", out->phase <= 1, "phase is %#x", out->phase);
	conform_expect(t, "G-1", out->phase <= 1, "phase is %#x", out->phase);
	conform_expect(t, "C-13", known_status(out->status), "status %u is not in the table",
		       out->status);
	/* The device may have read on meanwhile, and never less than it completes. */
	uint16_t read = out->sq_head, least = (uint16_t)(q->head - 0);
	if (!q->out_of_order)
		conform_expect(t, "C-2", (uint16_t)(read - least) <= (uint16_t)(q->tail - least),
			       "sq_head is %u, the host has written %u and taken %u", read, q->tail,
			       q->head);
	return 1;
}

void conform_credit(struct conform *t, uint32_t queue)
{
	conform_ring(t, queue, MR_LPU_DB_CQ_HEAD, t->q[queue].head);
}

int conform_wait(struct conform *t, uint32_t queue, uint32_t request)
{
	struct mr_lpu_completion c;

	if (!conform_completion(t, queue, t->profile.wait_ms, &c))
		conform_stuck(t, "no completion on queue %u within %llu ms", queue,
			      (unsigned long long)t->profile.wait_ms);
	conform_credit(t, queue);
	conform_expect(t, "C-1", c.request == request, "request %u came back as %u", request,
		       c.request);
	if (c.request != request)
		conform_stuck(t, "a completion of request %u instead of %u", c.request, request);
	t->result = c.result;
	return -(int)c.status;
}

int conform_do(struct conform *t, uint32_t queue, void *command)
{
	return conform_wait(t, queue, conform_post(t, queue, command));
}

int conform_record(struct conform *t, uint32_t queue, uint64_t ms, struct mr_lpu_record *out)
{
	struct conform_queue *q = &t->q[queue];
	struct mr_lpu_record *r = &q->ring[q->record_head % q->records];
	uint32_t lap = q->record_head / q->records + 1;

	if (!WAIT(__atomic_load_n(&r->phase, __ATOMIC_ACQUIRE) == lap, ms))
		return 0;
	*out = *r;
	q->record_head++;
	return 1;
}

void conform_record_credit(struct conform *t, uint32_t queue)
{
	conform_ring(t, queue, MR_LPU_DB_RECORD_HEAD, t->q[queue].record_head);
}

/* ---- admin ----------------------------------------------------------------------------------------- */

void conform_fill_in_queue(struct conform *t, uint32_t queue, uint32_t entries, uint32_t records,
			   struct mr_lpu_cmd_queue_create *cmd)
{
	struct conform_queue *q = rings(t, queue, entries, records);

	*cmd = (struct mr_lpu_cmd_queue_create){
		.head = {MR_LPU_QUEUE_CREATE},
		.queue = queue,
		.entries = entries,
		.sq_iova = conform_iova(t, q->sq),
		.cq_iova = conform_iova(t, q->cq),
		.record_iova = conform_iova(t, q->ring),
		.record_entries = records,
		.vector = queue,
	};
}

int conform_queue(struct conform *t, uint32_t queue, uint32_t entries, uint32_t records)
{
	struct mr_lpu_cmd_queue_create cmd;

	conform_fill_in_queue(t, queue, entries, records, &cmd);
	return conform_do(t, 0, &cmd);
}

int conform_program_step(struct conform *t, uint32_t action, uint64_t bytes)
{
	return DO(0, mr_lpu_cmd_program, {MR_LPU_PROGRAM}, .action = action, .bytes = bytes);
}

#define PIECE 65536u

int conform_program_write(struct conform *t, const void *bytes, uint64_t offset, uint64_t count)
{
	int status = 0;

	for (uint64_t at = 0; !status && at < count; at += PIECE) {
		uint64_t n = count - at < PIECE ? count - at : PIECE;
		memcpy(t->load, (const uint8_t *)bytes + at, n);
		status = DO(0, mr_lpu_cmd_program, {MR_LPU_PROGRAM}, .action = MR_LPU_PROGRAM_WRITE,
			    .iova = t->load_iova, .offset = offset + at, .bytes = n);
	}
	return status;
}

int conform_load(struct conform *t)
{
	int status = conform_program_step(t, MR_LPU_PROGRAM_BEGIN, t->program_bytes);

	if (!status)
		status = conform_program_write(t, t->program, 0, t->program_bytes);
	if (!status)
		status = conform_program_step(t, MR_LPU_PROGRAM_VERIFY, 0);
	if (!status)
		status = conform_program_step(t, MR_LPU_PROGRAM_ACTIVATE, 0);
	t->loaded = !status;
	return status;
}

int conform_has(const struct conform *t, uint32_t opcode)
{
	return (opcode < 0x80 ? t->id.opcodes_admin >> (opcode & 63)
			      : t->id.opcodes_io >> (opcode & 63)) &
	       1;
}

void conform_need(struct conform *t, uint32_t opcode)
{
	if (!conform_has(t, opcode))
		conform_skip(t, "the device does not have opcode %#x", opcode);
}

void conform_need_feature(struct conform *t, uint32_t feature)
{
	conform_need(t, MR_LPU_FEATURES);
	if (!(t->id.features >> feature & 1))
		conform_skip(t, "the device does not have feature %u", feature);
}

void conform_need_log(struct conform *t, uint32_t log)
{
	if (!(t->id.logs >> log & 1))
		conform_skip(t, "the device does not have log %u", log);
}

uint32_t conform_log(struct conform *t, uint32_t log, void *out, uint32_t bytes)
{
	size_t mark = t->used;
	uint8_t *room = conform_take(t, bytes);
	int status = DO(0, mr_lpu_cmd_get_log, {MR_LPU_GET_LOG}, .iova = conform_iova(t, room),
			.bytes = bytes, .log = log);

	if (status)
		conform_stuck(t, "GET_LOG of log %u: %s", log, mr_status_name(status));
	memcpy(out, room, bytes);
	t->used = mark;
	return t->result;
}

struct mr_lpu_counters conform_counters(struct conform *t)
{
	struct mr_lpu_counters c;

	conform_log(t, MR_LPU_LOG_COUNTERS, &c, sizeof(c));
	return c;
}

int conform_feature(struct conform *t, uint32_t feature, uint32_t queue, uint32_t value)
{
	return DO(0, mr_lpu_cmd_features, {MR_LPU_FEATURES}, .feature = feature,
		  .action = MR_LPU_FEATURE_SET, .value = value, .queue = queue);
}

uint32_t conform_feature_get(struct conform *t, uint32_t feature, uint32_t queue)
{
	int status = DO(0, mr_lpu_cmd_features, {MR_LPU_FEATURES}, .feature = feature,
			.action = MR_LPU_FEATURE_GET, .queue = queue);

	if (status)
		conform_stuck(t, "FEATURES, GET of %u: %s", feature, mr_status_name(status));
	return t->result;
}

int conform_fence(struct conform *t, uint32_t queue)
{
	return DO(queue, mr_lpu_command, {MR_LPU_FENCE});
}

int conform_irq(struct conform *t, uint32_t vector)
{
	int fd = t->bus->ops->irq_fd(t->bus, vector);
	uint64_t n;

	if (fd < 0)
		conform_stuck(t, "no interrupt for vector %u: %s", vector, mr_status_name(fd));
	while (read(fd, &n, sizeof(n)) == sizeof(n))
		;
	return fd;
}

uint64_t conform_raised(int fd, uint64_t ms)
{
	uint64_t n = 0;

	return WAIT(read(fd, &n, sizeof(n)) == sizeof(n) || n, ms) ? n : 0;
}

/* ---- slots ------------------------------------------------------------------------------------------- */

uint32_t conform_vocab(const struct conform *t)
{
	return t->c.ref->vocab;
}

struct mr_lpu_slot_param *conform_param(struct conform *t, uint32_t positions)
{
	struct mr_lpu_slot_param *p = conform_take(t, sizeof(*p));

	p->owner = 7;
	p->positions = positions;
	return p;
}

static int slot_set(struct conform *t, uint32_t queue, uint32_t slot, uint32_t generation,
		    const struct mr_lpu_slot_param *p)
{
	return DO(queue, mr_lpu_cmd_slot_set, {MR_LPU_SLOT_SET}, .slot = slot,
		  .generation = generation, .param_iova = conform_iova(t, p),
		  .param_bytes = sizeof(*p));
}

int conform_slot_with(struct conform *t, uint32_t slot, uint32_t generation,
		      const struct mr_lpu_slot_param *param)
{
	return slot_set(t, 1, slot, generation, param);
}

int conform_slot(struct conform *t, uint32_t queue, uint32_t slot, uint32_t generation,
		 uint32_t positions)
{
	return slot_set(t, queue, slot, generation, conform_param(t, positions));
}

int conform_free(struct conform *t, uint32_t slot, uint32_t generation)
{
	return DO(1, mr_lpu_cmd_kv_free, {MR_LPU_KV_FREE}, .slot = slot, .generation = generation);
}

struct mr_lpu_decode_entry *conform_entries(struct conform *t, uint32_t count)
{
	return conform_take(t, count * sizeof(struct mr_lpu_decode_entry));
}

uint32_t conform_decode_post(struct conform *t, uint32_t queue,
			     const struct mr_lpu_decode_entry *entries, uint32_t count,
			     uint32_t steps)
{
	return POST(queue, mr_lpu_cmd_decode, {MR_LPU_DECODE},
		    .entries_iova = conform_iova(t, entries), .count = count, .steps = steps);
}

int conform_decode(struct conform *t, uint32_t slot, uint32_t generation, uint32_t position,
		   uint32_t token, uint32_t steps, struct mr_lpu_record *out)
{
	size_t mark = t->used;
	struct mr_lpu_decode_entry *e = conform_entries(t, 1);
	struct mr_lpu_record r;
	struct mr_lpu_completion c;

	*e = (struct mr_lpu_decode_entry){
		.slot = slot, .generation = generation, .position = position, .token = token};
	uint32_t request = conform_decode_post(t, 1, e, 1, steps), got = 0;
	int ended = 0, came;
	do {
		/* Whichever is there first; records with credit, so that it goes on. */
		if (!WAIT((came = got < steps && conform_record(t, 1, 0, &r)) ||
				  (ended = conform_completion(t, 1, 0, &c)),
			  t->profile.wait_ms))
			conform_stuck(t, "a DECODE stopped after %u records of %u", got, steps);
		if (came) {
			conform_record_credit(t, 1);
			if (out)
				out[got] = r;
			got++;
		}
	} while (!ended);
	conform_credit(t, 1);
	if (c.request != request)
		conform_stuck(t, "a completion of request %u instead of %u", c.request, request);
	/* What the completion found visible must be taken too. */
	while (got < steps && conform_record(t, 1, 0, &r)) {
		conform_record_credit(t, 1);
		if (out)
			out[got] = r;
		got++;
	}
	t->result = c.result;
	t->used = mark;
	return -(int)c.status;
}

void conform_fill(struct conform *t, uint32_t slot, uint32_t generation, uint32_t n)
{
	for (uint32_t at = 0; at < n; at++) {
		int status = conform_decode(t, slot, generation, at, 20 + at % 64, 1, NULL);
		if (status)
			conform_stuck(t, "DECODE at position %u: %s", at, mr_status_name(status));
	}
}

uint64_t conform_claim(const struct conform *t, const uint32_t *positions, uint32_t n)
{
	const struct mr_prog_claim *claim = &t->c.claims[0];
	uint64_t cycles = claim->base;

	for (uint32_t i = 0; i < n; i++) {
		uint64_t blocks = positions[i] / MR_KV_BLOCK_TOKENS + 1;
		cycles += claim->slot + claim->block * blocks + claim->tile * ((blocks + 15) / 16);
	}
	return cycles;
}
