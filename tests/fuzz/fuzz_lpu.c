// SPDX-License-Identifier: Apache-2.0
/*
 * Fuzzes the simulated device with raw commands. Input: a count, then as many times a byte that chooses the
 * queue and 64 bytes of a command; what is left lies at RAW_IOVA + 64 KiB for commands to point at. In the byte
 * also: what the hardware feels before the command. Whatever comes, the device must answer, or be stopped by a
 * ring that the commands themselves broke; and after each input CONTROL, or a function-level reset, must bring it
 * back.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>

#include <millrace/lpu_port.h>
#include <millrace/lpu_spec.h>

#include "driver/compile/compile.h"
#include "driver/model/model.h"
#include "firmware-sim/chips.h"
#include "firmware-sim/sim.h"

#define IOVA     0x10000000ull
#define BYTES    (1u << 20)
#define ENTRIES  16u
#define DATA     65536u
#define COMMANDS 64u
#define QUEUES   5u

/* Bits of the byte before a command. */
#define IO      1u
#define HOT     2u
#define ECC     4u
#define ASSERTS 8u
#define ARM     16u /* the queue's vector, which goes to an eventfd */
#define REGS    32u /* all are read, and one is written */
#define RINGS   64u /* a senseless index */
#define ON \
	128u /* the next command is not kept waiting; of the first: a function-level reset at the end */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct mr_lpu_port port;
static uint8_t *mem;
static uint32_t tail[2], head[2];
static struct mr_lpu_shadow *shadow; /* where the device may look for indices, or NULL */

static void check(int holds, const char *what)
{
	if (holds)
		return;
	fprintf(stderr, "fuzz_lpu: %s\n", what);
	abort();
}

static void nap(void)
{
	const struct timespec t = {.tv_nsec = 5000};

	nanosleep(&t, NULL);
}

static void control(uint32_t value)
{
	port.ops->reg_write(port.ctx, MR_LPU_REG_CONTROL, value);
	for (int i = 0; port.ops->reg_read(port.ctx, MR_LPU_REG_STATUS) != value; i++) {
		check(i < 1000000, "the device does not follow CONTROL");
		nap();
	}
}

/* An index by BAR2, and where shadow doorbells may be on. */
static void ring(uint32_t q, uint32_t offset, uint32_t value)
{
	if (shadow)
		__atomic_store_n(&shadow[q].sq_tail + offset / 4, value, __ATOMIC_SEQ_CST);
	port.ops->doorbell(port.ctx, q, offset, value);
}

/* A command that may turn shadow doorbells on: they have to hold what was told before. */
static void look_for_shadow(uint32_t q, const void *command)
{
	struct mr_lpu_cmd_features c;

	memcpy(&c, command, sizeof(c));
	if (q || c.head.opcode != MR_LPU_FEATURES || c.feature != MR_LPU_FEATURE_SHADOW ||
	    c.iova < IOVA + DATA || c.iova % 64 || c.iova > IOVA + BYTES - QUEUES * sizeof(*shadow))
		return;
	shadow = (void *)(mem + (c.iova - IOVA));
	for (uint32_t i = 0; i < 2; i++) {
		shadow[i].sq_tail = tail[i];
		shadow[i].cq_head = head[i];
	}
}

/* Posts and waits for at most @naps; gives all credit back. The status, or 1 for no answer. */
static int post_for(int naps, uint32_t q, const void *command)
{
	struct mr_lpu_completion *cq = (void *)(mem + q * 8192 + 4096);
	struct mr_lpu_completion *c = &cq[head[q] % ENTRIES];

	memcpy(mem + q * 8192 + tail[q]++ % ENTRIES * 64, command, 64);
	look_for_shadow(q, command);
	ring(q, MR_LPU_DB_SQ_TAIL, tail[q]);
	for (int i = 0; i < naps; i++) {
		if (__atomic_load_n(&c->phase, __ATOMIC_ACQUIRE) == !(head[q] / ENTRIES & 1)) {
			check(c->status <= -MR_E_INTERNAL, "a status without a name");
			ring(q, MR_LPU_DB_CQ_HEAD, ++head[q]);
			return -(int)c->status;
		}
		if (q) /* records: the ring is large enough for one command, credit for the next */
			ring(1, MR_LPU_DB_RECORD_HEAD, (uint32_t)i * 64);
		nap();
	}
	return 1;
}

/* A command of the input: it may have broken the ring that its answer would come by. */
static int post(uint32_t q, const void *command)
{
	return post_for(400, q, command);
}

/* A command of ours, which the device has to do; it may wait for a CPU. */
static void set_up(const void *command, const char *what)
{
	check(post_for(1000000, 0, command) == 0, what);
}

static void power_up(void)
{
	struct mr_lpu_cmd_queue_create io = {
		.head = {MR_LPU_QUEUE_CREATE, 0, 1},
		.queue = 1,
		.entries = ENTRIES,
		.sq_iova = IOVA + 8192,
		.cq_iova = IOVA + 8192 + 4096,
		.record_iova = IOVA + 16384,
		.record_entries = 512,
		.vector = 1,
	};

	memset(mem, 0, BYTES);
	memset(tail, 0, sizeof(tail));
	memset(head, 0, sizeof(head));
	shadow = NULL;
	port.ops->reg_write(port.ctx, MR_LPU_REG_ADMIN_ENTRIES, ENTRIES);
	port.ops->reg_write(port.ctx, MR_LPU_REG_ADMIN_SQ_LO, (uint32_t)IOVA);
	port.ops->reg_write(port.ctx, MR_LPU_REG_ADMIN_CQ_LO, (uint32_t)IOVA + 4096);
	control(MR_LPU_CONTROL_ENABLE);
	set_up(&io, "the I/O queue");
}

/* A program is there, whether or not the last input's commands dropped it. */
static void load(void)
{
	static struct mr_program program;
	struct mr_lpu_cmd_program c = {.head = {MR_LPU_PROGRAM, 0, 1}};

	if (!program.container) {
		const struct mr_sim_builtin_chip *b = mr_sim_builtin_chip("tiny");
		struct mr_model *model;
		struct mr_chip chip;
		check(!mr_chip_parse(b->text, (size_t)(b->end - b->text), &chip, NULL, 0), "chip");
		check(!mr_model_open("tests/tiny.gguf", &model, NULL, 0), "tests/tiny.gguf");
		struct mr_compile_options o = {
			.chip = &chip, .chips = 2, .batch = 8, .context = 128};
		check(!mr_compile(model, &o, &program, NULL, 0), "compile");
		mr_model_close(model);
	}
	c.action = MR_LPU_PROGRAM_BEGIN;
	c.bytes = program.bytes;
	set_up(&c, "BEGIN");
	for (uint64_t at = 0; at < program.bytes; at += c.bytes) {
		c.action = MR_LPU_PROGRAM_WRITE;
		c.bytes = program.bytes - at < DATA ? program.bytes - at : DATA;
		c.iova = IOVA + DATA;
		c.offset = at;
		memcpy(mem + DATA, (const uint8_t *)program.container + at, c.bytes);
		set_up(&c, "WRITE");
	}
	c.bytes = c.iova = c.offset = 0;
	c.action = MR_LPU_PROGRAM_VERIFY;
	set_up(&c, "VERIFY");
	c.action = MR_LPU_PROGRAM_ACTIVATE;
	set_up(&c, "ACTIVATE");
}

static void feel(uint8_t what, const uint8_t *command)
{
	uint32_t word;

	memcpy(&word, command + 8, sizeof(word));
	if (what & HOT)
		mr_sim_sense(&port, word, word / 3);
	if (what & ECC)
		mr_sim_ecc(&port, word & 1, word >> 1 & 1);
	if (what & ASSERTS)
		mr_sim_assert(&port);
	if (what & ARM)
		port.ops->doorbell(port.ctx, what & IO, MR_LPU_DB_ARM, 1);
	if (what & RINGS)
		port.ops->doorbell(port.ctx, word % 8, word % 6 * 4, word);
	if (!(what & REGS))
		return;
	for (uint32_t at = 0; at < 0x48; at += 4)
		port.ops->reg_read(port.ctx, at);
	/* ENABLE aside: that is for the end. */
	if (word % 0x44 / 4 * 4 != MR_LPU_REG_CONTROL)
		port.ops->reg_write(port.ctx, word % 0x44 / 4 * 4, word);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t count = size ? data[0] % COMMANDS : 0;
	int loaded = 0;

	if (!mem) {
		const struct mr_sim_options o = {.chip_path = "tiny", .slots = 8};
		check(!mr_sim_create(&o, &port), "power on");
		mem = aligned_alloc(4096, BYTES);
		check(mem && !port.ops->dma_map(port.ctx, IOVA, mem, BYTES, 3), "memory");
		int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
		check(fd >= 0 && !port.ops->irq(port.ctx, 0, fd) && !port.ops->irq(port.ctx, 1, fd),
		      "interrupts");
	}
	power_up();
	if (size < 1 + count * 65)
		count = size ? (size - 1) / 65 : 0;
	size_t used = size ? 1 + count * 65 : 0;
	for (size_t i = 0; i < count; i++)
		loaded |= (data[1 + i * 65] & IO) != 0;
	if (loaded)
		load();
	memcpy(mem + DATA, data + used, size - used < BYTES - DATA ? size - used : BYTES - DATA);
	for (size_t i = 0; i < count; i++) {
		feel(data[1 + i * 65], data + 2 + i * 65);
		if (i && data[1 + i * 65] & ON)
			post_for(0, data[1 + i * 65] & IO, data + 2 + i * 65);
		else if (post(data[1 + i * 65] & IO, data + 2 + i * 65) == 1)
			break;
	}
	if (count && data[1] & ON)
		check(!port.ops->reset(port.ctx), "function-level reset");
	control(0);
	return 0;
}
