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

#include "driver/lpu/lpu.h"
#include "tests/fuzz/spoilt_device.h"

#define ACTIONS    48u
#define TIMEOUT_MS 16u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The host. */
static struct mr_device *dev;
static struct mr_arena *arena;
static struct mr_slot slots[SLOTS];
static uint8_t under_way[ACTIONS + 1]; /* by tag: 1 = accepted, 2 = ended */

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
		check(got <= (int)sizeof(image) && got >= MR_E_SCHEDULE_VIOLATION,
		      "a log without an end");
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
	uint32_t a, b, more;
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
		a = host(1);
		b = host(1);
		accepted(dev->work->score(dev, *slot, tokens, a % 10, b, tag), tag);
		break;
	case 7:
		a = host(1);
		b = host(1);
		more = host(1);
		status = mr_lpu_kv_read(dev, *slot, a % 4, b % 4, more % 6, 3, 5, &descs, tag);
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
