// SPDX-License-Identifier: Apache-2.0
/*
 * Fuzzes driver/lpu with a device that answers as the input says. From its front the input is a script of what the
 * host does; from its end, backwards, what the device does to each of its answers, which are sound to begin with:
 * below 160 as it is, else changed, lost, repeated, late, followed by a record or bytes of the input. The clock is
 * the target's own. Whatever comes, every call ends with a status that has a name, all accepted work ends once, and
 * once the device is honest again a reset brings it back; then nothing is left.
 */
#include <malloc.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <millrace/lpu_spec.h>

#include "driver/bus/bus.h"
#include "driver/lpu/lpu.h"
#include "driver/mem/arena.h"
#include "driver/model/model.h"
#include "firmware-sim/chips.h"
#include "userlib/spec/chip.h"

#define ACTIONS    48u
#define SLOTS      4u
#define MAPS       16u
#define HELD       64u
#define TIMEOUT_MS 16u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

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
	uint32_t mute;  /* doorbells are heard, nothing is done */
	uint32_t eager; /* each ASYNC_EVENT is answered at once */
	uint64_t ring[4];                          /* ADMIN_SQ, ADMIN_CQ */
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

/* The host. */
static struct mr_device *dev;
static struct mr_arena *arena;
static struct mr_slot slots[SLOTS];
static uint8_t under_way[ACTIONS + 1]; /* by tag: 1 = accepted, 2 = ended */

static void check(int holds, const char *what)
{
	if (holds)
		return;
	fprintf(stderr, "fuzz_lpu_driver: %s\n", what);
	abort();
}

static void named(int status)
{
	check(status <= 0 && status >= MR_E_INTERNAL, "a status without a name");
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
		v |= (uint32_t)*--back << 8 * i;
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
		page(c, (void *)(uintptr_t)chip_text->text, (size_t)(chip_text->end - chip_text->text),
		     spoilt);
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
		say(1, (struct mr_lpu_completion){.request = ((const struct mr_lpu_cmd_abort *)
								      (const void *)c)->target,
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
		out.result = device(2) | device(1) << 24;
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
		if (q)
			record(device(1) % 8, device(1), device(1), device(1), 1, 1);
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

/* ---- the host --------------------------------------------------------------------------------- */

static void take_events(uint32_t max)
{
	struct mr_event e[16];
	int n = dev->work->poll(dev, e, max < 16 ? max : 16);

	if (n < 0) {
		named(n);
		return;
	}
	for (int i = 0; i < n; i++) {
		check(e[i].tag <= ACTIONS && under_way[e[i].tag] == 1,
		      "an event of work that is not under way");
		if (e[i].type == MR_EVENT_DONE) {
			named(e[i].status);
			under_way[e[i].tag] = 2;
		} else {
			check(e[i].type == MR_EVENT_TOKEN && e[i].token < dev->caps.vocab &&
				      e[i].slot.index < SLOTS && e[i].logprob == e[i].logprob,
			      "a token that cannot be");
		}
	}
}

static void accepted(int status, uint64_t tag)
{
	named(status);
	if (!status)
		under_way[tag] = 1;
}

static struct mr_slot_config config(void)
{
	static const uint32_t history[2] = {1, 2};
	struct mr_slot_config c = {.owner = 7, .positions = host(1) % 80};

	c.history_count = host(1) % 4 ? 0 : 2;
	c.history = history;
	return c;
}

static void post_decode(uint64_t tag)
{
	static const uint32_t forced[8] = {1, 1, 1, 1, 1, 1, 1, 1};
	struct mr_decode_entry e[SLOTS] = {0};
	uint32_t count = host(1) % (SLOTS + 1), steps = host(1) % 9, flags = host(1);

	for (uint32_t i = 0; i < count; i++)
		e[i] = (struct mr_decode_entry){
			.slot = slots[(i + flags) % SLOTS],
			.position = host(1) % 64,
			.token = flags >> 5,
			.forced = forced,
			.forced_count = flags & 4 && steps ? steps - 1 : 0,
			.flags = flags & 8 ? MR_DECODE_LOGITS : 0,
		};
	accepted(dev->work->decode(dev, e, count, steps, tag), tag);
}

static void import(struct mr_slot slot, uint64_t tag)
{
	struct mr_kv_desc k[4] = {0};
	uint32_t count = host(1) % 5;

	for (uint32_t i = 0; i < count; i++)
		k[i] = (struct mr_kv_desc){.block = host(1) % 6, .length = 16, .owner = 7};
	accepted(dev->mem->kv_import(dev, slot, k, count, tag), tag);
}

static void set_up_calls(uint32_t which)
{
	uint8_t image[300] = {0};
	struct mr_telemetry seen;
	uint32_t value = host(1);
	int got;

	switch (which % 5) {
	case 0:
		got = mr_lpu_log(dev, host(1), image, sizeof(image));
		check(got <= (int)sizeof(image) && got >= MR_E_INTERNAL, "a log without an end");
		break;
	case 1:
		named(mr_lpu_feature_get(dev, host(1), &value));
		break;
	case 2:
		named(mr_lpu_feature_set(dev, host(1), value));
		break;
	case 3:
		named(mr_lpu_firmware_update(dev, image, value, 2));
		break;
	case 4:
		named(dev->admin->telemetry(dev, &seen));
		check(seen.kv_blocks_used <= seen.kv_blocks, "more blocks in use than there are");
		break;
	}
}

static void act(uint64_t tag)
{
	static const uint32_t tokens[8] = {1, 2, 3, 4, 5, 6, 7, 8};
	const struct mr_kv_desc *descs;
	struct mr_slot_config c;
	uint32_t op = host(1), which = op / 16;
	struct mr_slot *slot = &slots[which % SLOTS], made;
	int status;

	switch (op % 16) {
	case 0:
		take_events(16);
		break;
	case 1:
		c = config();
		status = dev->mem->slot_open(dev, &c, &made);
		named(status);
		if (!status)
			slots[made.index % SLOTS] = made;
		break;
	case 2:
		named(dev->mem->slot_close(dev, *slot));
		break;
	case 3:
		c = config();
		status = dev->mem->kv_fork(dev, *slot, host(1), &c, &made);
		named(status);
		if (!status)
			slots[made.index % SLOTS] = made;
		break;
	case 4:
		import(*slot, tag);
		break;
	case 5:
		post_decode(tag);
		break;
	case 6:
		status = dev->work->score(dev, *slot, tokens, host(1) % 10, host(1), tag);
		accepted(status, tag);
		break;
	case 7:
		status = mr_lpu_kv_read(dev, *slot, host(1) % 4, host(1) % 4, host(1) % 6, 3, 5,
					&descs, tag);
		accepted(status, tag);
		break;
	case 8: /* a loop that sleeps */
		for (uint32_t i = 0; i < which; i++) {
			int armed = dev->work->arm(dev);
			check(armed == 0 || armed == 1, "arm");
			d.clock += TIMEOUT_MS * 300000ull;
			take_events(4);
		}
		break;
	case 9:
		tell_event();
		break;
	case 10:
		let_go(which);
		break;
	case 11:
		scribble();
		break;
	case 12:
		named(dev->admin->reset(dev));
		break;
	case 13:
		set_up_calls(which);
		break;
	case 14:
		registers(which);
		break;
	case 15:
		take_events(1);
		named(dev->work->load(dev, model, NULL, NULL));
		break;
	}
}

/* The device is honest from here on: a reset brings it back, and what was accepted has ended once. */
static void come_back(void)
{
	d.honest = 1;
	d.bus.lost = 0;
	d.stuck = d.mute = d.eager = d.looks = 0;
	for (int i = 0; i < 64; i++)
		take_events(16);
	d.looks = 0;
	named(dev->admin->reset(dev));
	for (int i = 0; i < 64; i++)
		take_events(16);
	d.looks = 0;
	check(dev->admin->reset(dev) == 0, "an honest device cannot be reset");
	take_events(16);
	for (uint64_t tag = 0; tag <= ACTIONS; tag++)
		check(under_way[tag] != 1, "accepted work has not ended");
	struct mr_telemetry seen;
	check(!dev->admin->telemetry(dev, &seen) && !seen.kv_blocks_used, "blocks are left");
}

static void set_up(void)
{
	char why[128] = "";

	if (mr_model_open("tests/tiny.gguf", &model, why, sizeof(why)))
		check(0, "tests/tiny.gguf opens; run from the top of the tree");
	chip_text = mr_sim_builtin_chip("tiny");
	check(!mr_chip_parse(chip_text->text, (size_t)(chip_text->end - chip_text->text), &chip,
			     NULL, 0),
	      "chip");
}

static void log_line(void *arg, const char *line)
{
	check(strlen(line) < 256, "a line without an end");
}

static void one(void)
{
	const struct mr_arena_options options = {.node = -1, .no_huge = 1};
	uint32_t how = host(1);
	int status;

	memset(&d, 0, sizeof(d));
	memset(slots, 0, sizeof(slots));
	memset(under_way, 0, sizeof(under_way));
	d.bus.ops = &bus_ops;
	d.beats = 1;
	d.irq = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	check(d.irq >= 0 && !mr_arena_create(&options, &arena), "arena");
	struct mr_lpu_options o = {.arena = arena,
				   .bus = &d.bus,
				   .slots = how & 1 ? 3 : 0,
				   .queue_entries = how & 2 ? 16 : 0,
				   .context = 64,
				   .timeout_ms = TIMEOUT_MS,
				   .coalesce = how & 4 ? MR_LPU_COALESCE(8, 50) : 0,
				   .now_ns = now_ns,
				   .log = log_line};
	status = mr_lpu_open(&o, &dev);
	named(status);
	if (status) {
		bus_close(&d.bus);
	} else {
		if (!(how & 8))
			named(dev->work->load(dev, model, NULL, NULL));
		for (uint64_t tag = 0; tag < ACTIONS && front < back; tag++) {
			d.looks = 0;
			act(tag);
		}
		come_back();
		dev->admin->close(dev);
	}
	for (unsigned i = 0; i < MAPS; i++)
		check(!d.map[i].base, "a mapping is left");
	mr_arena_destroy(arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t before, after = 0;

	if (!model)
		set_up();
	/* malloc's caches, of 7 pieces a size, count as used: they fill up once, a leak grows each time. */
	for (int turn = 0; turn < 32; turn++) {
		before = mallinfo2().uordblks;
		front = data;
		back = data + size;
		one();
		after = mallinfo2().uordblks;
		if (after <= before)
			return 0;
	}
	check(0, "memory is left");
	return 0;
}
