/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The device of fuzz_lpu_driver, which alone includes this: a bus whose registers, completions, records, pages and
 * events are sound until the input says otherwise. It works within the driver's calls, on the caller's thread: at a
 * doorbell, a register, a look at the clock.
 */
#ifndef MR_TESTS_FUZZ_SPOILT_DEVICE_H
#define MR_TESTS_FUZZ_SPOILT_DEVICE_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <millrace/lpu_spec.h>

#include "driver/bus/bus.h"
#include "driver/mem/arena.h"
#include "driver/model/model.h"
#include "firmware-sim/chips.h"
#include "userlib/spec/chip.h"

#define SLOTS 4u
#define MAPS  16u
#define HELD  64u

static const uint8_t *front, *back; /* what is left of the input */

static struct mr_model *model;
static struct mr_chip chip;
static const struct mr_sim_builtin_chip *chip_text;

/* The device. */
static struct {
	struct mr_bus bus;
	struct {
		uint64_t iova;
		uint8_t *base;
		size_t bytes;
		uint32_t access;
	} map[MAPS];
	uint32_t status, beat, beats, stuck;
	uint32_t mute;    /* doorbells are heard, nothing is done */
	uint32_t eager;   /* each ASYNC_EVENT is answered at once */
	uint64_t ring[4]; /* ADMIN_SQ, ADMIN_CQ */
	struct mr_lpu_cmd_queue_create io;
	struct mr_lpu_shadow *shadow;
	uint32_t tail[2], head[2], done[2], record;
	struct mr_lpu_command held[HELD];
	uint8_t held_queue[HELD];
	uint32_t held_count;
	uint32_t event[16], events; /* request ids of ASYNC_EVENTs */
	int honest, running, irq;
	uint64_t clock;
	uint32_t looks; /* at the clock, since the last action */
} d;

static void check(int holds, const char *what)
{
	if (holds)
		return;
	fprintf(stderr, "fuzz_lpu_driver: %s\n", what);
	abort();
}

static void named(int status)
{
	check(status <= 0 && status >= MR_E_SCHEDULE_VIOLATION, "a status without a name");
}

static uint32_t host(unsigned bytes)
{
	uint32_t v = 0;

	for (unsigned i = 0; i < bytes && front < back; i++)
		v |= (uint32_t)*front++ << 8 * i;
	return v;
}

static uint32_t device(unsigned bytes)
{
	uint32_t v = 0;

	for (unsigned i = 0; i < bytes && front < back && !d.honest; i++)
		v |= (uint32_t) * --back << 8 * i;
	return v;
}

/*
 * In place of libc's: nobody sleeps, since time is the target's own; and pages come as they are touched, since a run
 * touches few of the arena's.
 */
int nanosleep(const struct timespec *wanted, struct timespec *left)
{
	return 0;
}

int madvise(void *base, size_t bytes, int advice)
{
	return 0;
}

int mlock(const void *base, size_t bytes)
{
	return -1;
}

/* ---- the device ------------------------------------------------------------------------------- */

/* Host memory with @access, or NULL: what an IOMMU would say. */
static void *reach(uint64_t iova, size_t bytes, uint32_t access)
{
	for (unsigned i = 0; i < MAPS; i++)
		if (d.map[i].base && iova - d.map[i].iova < d.map[i].bytes &&
		    bytes <= d.map[i].bytes - (iova - d.map[i].iova) && d.map[i].access & access)
			return d.map[i].base + (iova - d.map[i].iova);
	return NULL;
}

/* What a command of the driver names must be there. */
static void *at(uint64_t iova, size_t bytes, uint32_t access)
{
	void *p = reach(iova, bytes, access);

	check(p != NULL, "a command names memory that is not mapped");
	return p;
}

static void say(uint32_t q, struct mr_lpu_completion c)
{
	uint32_t entries = q ? d.io.entries : 16;
	struct mr_lpu_completion *cq = at(q ? d.io.cq_iova : d.ring[1], entries * sizeof(c), 2);

	c.phase |= !(d.done[q] / entries & 1);
	cq[d.done[q]++ % entries] = c;
}

static void put(struct mr_lpu_record r)
{
	struct mr_lpu_record *ring =
		at(d.io.record_iova, d.io.record_entries * sizeof(r), MR_DMA_WRITE);

	r.phase = d.record / d.io.record_entries + 1;
	ring[d.record++ % d.io.record_entries] = r;
}

/* Changes bytes of what the device is about to write. */
static void change(void *what, size_t bytes)
{
	uint8_t *p = what;

	for (uint32_t n = device(1) % 4 + 1; n; n--) {
		uint32_t i = device(2) % (uint32_t)bytes;
		p[i] ^= (uint8_t)device(1);
	}
}

static void page(const struct mr_lpu_command *c, void *from, size_t bytes, int spoilt)
{
	const struct mr_lpu_cmd_get_log *log = (const void *)c;
	uint8_t *to;

	if (bytes > log->bytes)
		bytes = log->bytes;
	to = at(log->iova, bytes, MR_DMA_WRITE);
	memcpy(to, from, bytes);
	if (spoilt && bytes)
		change(to, bytes);
}

static uint32_t get_log(const struct mr_lpu_command *c, int spoilt)
{
	static const uint32_t sizes[] = {0, 256, 0, 64, 112, 192, 256, 64};
	uint32_t log = ((const struct mr_lpu_cmd_get_log *)(const void *)c)->log;
	uint64_t zeros[64];

	if (log == MR_LPU_LOG_CHIP) {
		page(c, (void *)(uintptr_t)chip_text->text,
		     (size_t)(chip_text->end - chip_text->text), spoilt);
		return (uint32_t)(chip_text->end - chip_text->text);
	}
	memset(zeros, 0x31, sizeof(zeros));
	page(c, zeros, log < 8 ? sizes[log] : 0, spoilt);
	return log < 8 ? sizes[log] : 0;
}

static void identify(const struct mr_lpu_command *c, int spoilt)
{
	struct mr_lpu_identify id = {
		.magic = MR_LPU_MAGIC,
		.version = MR_LPU_VERSION,
		.product = "fuzz",
		.chips = 2,
		.slots_max = SLOTS,
		.queues_max = 1,
		.ring_entries_max = 4096,
		.batch_max = 8,
		.steps_max = 8,
		.context_max = 128,
		.kv_block_tokens = MR_KV_BLOCK_TOKENS,
		.kv_type = MR_LPU_KV_FP16,
		.chip_bytes = (uint32_t)(chip_text->end - chip_text->text),
		.cycle_ps = 1000,
		.opcodes_admin = 0x7fe,
		.opcodes_io = 0xfe,
		.score_max = 8,
		.async_max = 4,
		.features = 0xfe,
		.logs = 0xfe,
		.firmware_max = 4096,
		.firmware_slots = 2,
	};

	memcpy(id.chip_hash, chip.hash, sizeof(id.chip_hash));
	page(c, &id, sizeof(id), spoilt);
}

/* 1 = it does not complete now. */
static int admin(const struct mr_lpu_command *c, int spoilt, struct mr_lpu_completion *out)
{
	const struct mr_lpu_cmd_features *f = (const void *)c;

	switch (c->head.opcode) {
	case MR_LPU_IDENTIFY:
		identify(c, spoilt);
		break;
	case MR_LPU_GET_LOG:
		out->result = get_log(c, spoilt);
		break;
	case MR_LPU_QUEUE_CREATE:
		memcpy(&d.io, c, sizeof(d.io));
		d.head[1] = d.tail[1] = d.done[1] = d.record = 0;
		break;
	case MR_LPU_FEATURES:
		out->result = f->value;
		if (f->feature != MR_LPU_FEATURE_SHADOW)
			break;
		d.shadow = at(f->iova, 2 * sizeof(*d.shadow), 3);
		d.shadow[0].asleep = d.shadow[1].asleep = !(device(1) & 1);
		break;
	case MR_LPU_ASYNC_EVENT:
		if (d.eager) {
			out->result = MR_LPU_EVENT(MR_LPU_EVENT_ECC, MR_LPU_LOG_HEALTH, 1);
			break;
		}
		if (d.events < 16)
			d.event[d.events++] = c->head.request;
		return 1;
	case MR_LPU_ABORT:
		out->result = 1;
		say(1,
		    (struct mr_lpu_completion){
			    .request = ((const struct mr_lpu_cmd_abort *)(const void *)c)->target,
			    .status = -MR_E_CANCELLED});
		d.held_count = 0;
		break;
	}
	return 0;
}

static void record(uint32_t slot, uint32_t generation, uint32_t position, uint32_t token,
		   uint32_t cycle, int spoilt)
{
	struct mr_lpu_record r = {.cycle = cycle,
				  .token = token,
				  .position = position,
				  .generation = generation,
				  .slot = (uint16_t)slot,
				  .logprob = -1};

	if (spoilt && device(1) & 1)
		change(&r, sizeof(r));
	put(r);
}

static void decode(const struct mr_lpu_cmd_decode *c, int spoilt, struct mr_lpu_completion *out)
{
	const struct mr_lpu_decode_entry *e = at(c->entries_iova, c->count * sizeof(*e), 1);

	for (uint32_t step = 0; step < c->steps; step++)
		for (uint32_t i = 0; i < c->count; i++) {
			if (e[i].logits_iova)
				at(e[i].logits_iova + step * c->logits_stride, c->logits_stride, 2);
			if (e[i].forced_iova)
				at(e[i].forced_iova, e[i].forced_count * sizeof(uint32_t), 1);
			record(e[i].slot, e[i].generation, e[i].position + step + 1, 1, step + 1,
			       spoilt);
		}
	out->result = c->steps * c->count;
}

static void score(const struct mr_lpu_cmd_score *c, int spoilt, struct mr_lpu_completion *out)
{
	const uint32_t *tokens = at(c->tokens_iova, c->count * sizeof(*tokens), 1);

	for (uint32_t i = 1; i < c->count; i++)
		record(c->slot, c->generation, c->position + i, tokens[i], i, spoilt);
	out->result = c->count - 1;
}

static void kv_read(const struct mr_lpu_cmd_kv_read *c, int spoilt, struct mr_lpu_completion *out)
{
	struct mr_kv_desc *to = at(c->descs_iova, c->count * sizeof(*to), 2);
	uint64_t bytes = mr_kv_layer_bytes(&model->shape);

	at(c->iova, c->count * bytes, 2);
	for (uint32_t i = 0; i < c->count; i++)
		to[i] = (struct mr_kv_desc){.iova = c->iova + i * bytes,
					    .block = c->block + i,
					    .layer = (uint16_t)c->layer,
					    .length = 16,
					    .owner = c->owner,
					    .generation = c->receiver};
	if (spoilt)
		change(to, c->count * sizeof(*to));
	out->result = c->count;
}

static void work(const struct mr_lpu_command *c, int spoilt, struct mr_lpu_completion *out)
{
	const struct mr_lpu_cmd_slot_set *s = (const void *)c;

	if (c->head.opcode == MR_LPU_DECODE)
		decode((const void *)c, spoilt, out);
	else if (c->head.opcode == MR_LPU_SCORE)
		score((const void *)c, spoilt, out);
	else if (c->head.opcode == MR_LPU_KV_READ)
		kv_read((const void *)c, spoilt, out);
	else if (c->head.opcode == MR_LPU_SLOT_SET || c->head.opcode == MR_LPU_KV_FORK)
		at(s->param_iova, s->param_bytes, 1);
}

static void answer(uint32_t q, const struct mr_lpu_command *c, uint32_t op)
{
	struct mr_lpu_completion out = {.request = c->head.request};
	uint32_t word;
	int spoilt = op >= 160;

	if (q)
		work(c, spoilt && op & 8, &out);
	else if (admin(c, spoilt && op & 8, &out))
		return;
	switch (spoilt ? op % 8 : 8) {
	case 0: /* another status, or result */
		out.status = (uint16_t)device(1);
		break;
	case 1:
		out.result = device(3);
		break;
	case 2:
		change(&out, sizeof(out));
		break;
	case 3: /* lost */
		return;
	case 4:
		say(q, out);
		break;
	case 5: /* a record of nothing */
		word = device(4);
		if (q)
			record(word & 7, word >> 3 & 7, word >> 6 & 127, word >> 13, 1, 1);
		break;
	}
	say(q, out);
}

static void hear(uint32_t q, const struct mr_lpu_command *c)
{
	uint32_t op = device(1);

	if (op >= 240 && d.held_count < HELD) { /* late */
		d.held[d.held_count] = *c;
		d.held_queue[d.held_count++] = (uint8_t)q;
	} else {
		answer(q, c, op);
	}
}

/* Any of those held, so that they come out of order. */
static void let_go(uint32_t which)
{
	struct mr_lpu_command c;
	uint32_t i;

	if (!d.held_count)
		return;
	i = which % d.held_count;
	c = d.held[i];
	d.held[i] = d.held[--d.held_count];
	uint8_t q = d.held_queue[i];
	d.held_queue[i] = d.held_queue[d.held_count];
	answer(q, &c, device(1) % 240);
}

static void run(void)
{
	if (d.running || d.mute || d.status != MR_LPU_STATUS_READY || d.bus.lost)
		return;
	d.running = 1;
	for (uint32_t q = 0; q < 2; q++) {
		if (d.shadow)
			d.tail[q] = d.shadow[q].sq_tail;
		uint32_t entries = q ? d.io.entries : 16;
		check(d.tail[q] - d.head[q] <= entries, "a doorbell that no ring could mean");
		while (d.head[q] != d.tail[q]) {
			const struct mr_lpu_command *sq =
				at(q ? d.io.sq_iova : d.ring[0], entries * sizeof(*sq), 1);
			hear(q, &sq[d.head[q]++ % entries]);
		}
	}
	d.running = 0;
}

static void stop(uint32_t status)
{
	d.status = status;
	memset(&d.io, 0, sizeof(d.io));
	memset(d.tail, 0, sizeof(d.tail));
	memset(d.head, 0, sizeof(d.head));
	memset(d.done, 0, sizeof(d.done));
	d.shadow = NULL;
	d.record = d.held_count = d.events = d.mute = 0;
}

static uint32_t reg_read(struct mr_bus *bus, uint32_t offset)
{
	run();
	if (d.bus.lost)
		return ~0u;
	switch (offset) {
	case MR_LPU_REG_MAGIC:
		return MR_LPU_MAGIC ^ (device(1) == 255);
	case MR_LPU_REG_VERSION:
		return MR_LPU_VERSION ^ (device(1) == 255) << 16;
	case MR_LPU_REG_CAPS:
		return 14 ^ device(1);
	case MR_LPU_REG_TIMEOUT_MS:
		return 16 + device(1) * device(1) * device(1);
	case MR_LPU_REG_STATUS:
		return d.status;
	case MR_LPU_REG_HEARTBEAT:
		return d.beat += d.beats;
	default:
		return 0;
	}
}

static void reg_write(struct mr_bus *bus, uint32_t offset, uint32_t value)
{
	if (offset >= MR_LPU_REG_ADMIN_SQ_LO && offset <= MR_LPU_REG_ADMIN_CQ_HI) {
		uint32_t i = (offset - MR_LPU_REG_ADMIN_SQ_LO) / 8;
		d.ring[i] = offset & 4 ? (d.ring[i] & ~0u) | (uint64_t)value << 32 : value;
	}
	if (offset == MR_LPU_REG_CONTROL && !d.stuck)
		stop(value ? MR_LPU_STATUS_READY : 0);
}

static void doorbell(struct mr_bus *bus, uint32_t q, uint32_t offset, uint32_t value)
{
	check(q < 2, "a doorbell of no queue");
	if (offset == MR_LPU_DB_SQ_TAIL && d.status == MR_LPU_STATUS_READY && !d.shadow)
		d.tail[q] = value;
	run();
}

static int dma_map(struct mr_bus *bus, uint64_t iova, void *base, size_t bytes, uint32_t access)
{
	unsigned i = 0;

	if (device(1) == 255)
		return MR_E_FULL;
	while (d.map[i].base)
		check(++i < MAPS, "more regions than a driver needs");
	d.map[i].iova = iova;
	d.map[i].base = base;
	d.map[i].bytes = bytes;
	d.map[i].access = access;
	return 0;
}

static int dma_unmap(struct mr_bus *bus, uint64_t iova)
{
	for (unsigned i = 0; i < MAPS; i++)
		if (d.map[i].base && d.map[i].iova == iova) {
			d.map[i].base = NULL;
			return 0;
		}
	return MR_E_NOT_FOUND;
}

static int irq_fd(struct mr_bus *bus, uint32_t vector)
{
	return device(1) == 255 ? MR_E_RANGE : d.irq;
}

static int bus_reset(struct mr_bus *bus)
{
	if (device(1) >= 240)
		return MR_E_TIMEOUT;
	d.bus.lost = 0;
	d.stuck = 0;
	stop(0);
	return 0;
}

static void bus_close(struct mr_bus *bus)
{
	close(d.irq);
	d.irq = -1;
}

static const struct mr_bus_ops bus_ops = {
	reg_read, reg_write, doorbell, dma_map, dma_unmap, irq_fd, bus_reset, bus_close,
};

/* The longer a call waits, the faster time goes: a limit of a minute costs a hundred looks. */
static uint64_t now_ns(void *arg)
{
	run();
	d.clock += 1000000ull << (d.looks < 160 ? d.looks / 8 : 20);
	check(++d.looks < 100000, "a call that does not end");
	return d.clock;
}

/* Bytes of the input anywhere in memory that the device may write. */
static void scribble(void)
{
	uint32_t i = host(1) % MAPS, offset = host(3), bytes = host(1) % 64;

	if (!d.map[i].base || !(d.map[i].access & MR_DMA_WRITE))
		return;
	for (; bytes; bytes--)
		d.map[i].base[offset++ % d.map[i].bytes] = (uint8_t)host(1);
}

static void registers(uint32_t how)
{
	switch (how % 8) {
	case 0:
		d.status = host(1);
		break;
	case 1:
		d.status = ~0u;
		break;
	case 2:
		d.beats = !d.beats;
		break;
	case 3:
		d.stuck = 1;
		break;
	case 4:
		d.mute = 1;
		break;
	case 5:
		d.bus.lost = MR_E_DISCONNECTED;
		break;
	case 6:
		d.mute = 0;
		break;
	case 7:
		d.eager = 1;
		break;
	}
}

static void tell_event(void)
{
	uint32_t known = host(1), result = host(3);

	if (!d.events || d.status != MR_LPU_STATUS_READY || d.bus.lost)
		return;
	if (known & 1)
		result = MR_LPU_EVENT(known / 2 % 6 + 1, result % 8, result >> 16);
	say(0, (struct mr_lpu_completion){.request = d.event[--d.events], .result = result});
}

#endif /* MR_TESTS_FUZZ_SPOILT_DEVICE_H */
