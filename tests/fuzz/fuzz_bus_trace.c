// SPDX-License-Identifier: Apache-2.0
/*
 * Bus traces: a file that the check takes is played on a device that answers at once and at random, from the file's own
 * bytes: nothing is read or written outside the file and the maps, and every replay ends.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <millrace/status.h>

#include "driver/bus/bus_trace.h"
#include "driver/bus/replay.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MEMORY_MAX (4u << 20)

static const uint8_t *input;
static size_t input_bytes, input_at;
static uint8_t *memory[16];
static size_t memory_bytes[16];
static uint32_t maps;

static void must(int truth)
{
	if (!truth)
		abort();
}

static uint32_t next(void)
{
	uint32_t v = 0;

	for (int i = 0; i < 4 && input_bytes; i++)
		v = v << 8 | input[input_at++ % input_bytes];
	return v;
}

static uint32_t reg_read(struct mr_bus *bus, uint32_t offset)
{
	must(offset < MR_LPU_BAR0_BYTES && offset % 4 == 0);
	return offset == MR_LPU_REG_STATUS ? next() & 1 : next();
}

static void reg_write(struct mr_bus *bus, uint32_t offset, uint32_t value)
{
	must(offset < MR_LPU_BAR0_BYTES && offset % 4 == 0);
}

/* The device writes something somewhere: a phase that fits, often. */
static void doorbell(struct mr_bus *bus, uint32_t queue, uint32_t offset, uint32_t value)
{
	must(queue < MR_BUS_TRACE_QUEUES && offset <= MR_LPU_DB_ARM);
	for (uint32_t i = 0; maps && i < 4; i++) {
		uint32_t m = next() % maps, what = next();
		uint32_t at = next() % (uint32_t)(memory_bytes[m] / 16) * 16;
		memory[m][at + 12] = (uint8_t)(what & 3);
		memory[m][at] = (uint8_t)(what >> 8);
	}
}

static int dma_map(struct mr_bus *bus, uint64_t iova, void *base, size_t bytes, uint32_t access)
{
	must(base == memory[maps - 1] && bytes && iova + bytes > iova && access && access <= 3);
	return next() % 8 ? 0 : MR_E_EXISTS;
}

static int dma_unmap(struct mr_bus *bus, uint64_t iova)
{
	return 0;
}

static int irq_fd(struct mr_bus *bus, uint32_t vector)
{
	return MR_E_RANGE;
}

static int reset(struct mr_bus *bus)
{
	return next() & 1 ? MR_E_NOT_SUPPORTED : 0;
}

static void *give(void *arg, size_t bytes)
{
	if (maps == 16)
		return NULL;
	memory_bytes[maps] = (bytes + 4095) / 4096 * 4096;
	memory[maps] = aligned_alloc(4096, memory_bytes[maps]);
	must(memory[maps] != NULL);
	memset(memory[maps], 0, memory_bytes[maps]);
	return memory[maps++];
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct mr_bus_ops ops = {
		.reg_read = reg_read,
		.reg_write = reg_write,
		.doorbell = doorbell,
		.dma_map = dma_map,
		.dma_unmap = dma_unmap,
		.irq_fd = irq_fd,
		.reset = reset,
	};
	/* An allocation of just the size, aligned, so that a read beyond the end is seen. */
	uint8_t *trace = malloc(size ? size : 1);
	struct mr_bus bus = {.ops = &ops};
	struct mr_bus_replay_result result;
	const struct mr_bus_replay_options o = {
		.trace = trace,
		.bytes = size,
		.bus = &bus,
		.memory = give,
		.memory_max = MEMORY_MAX,
		.wait_ms = 1,
	};
	char why[200] = "";

	must(trace != NULL);
	if (size)
		memcpy(trace, data, size);
	input = data;
	input_bytes = size;
	input_at = maps = 0;
	int status = mr_bus_trace_check(trace, size, why, sizeof(why));
	if (status)
		must(why[0] && (status == MR_E_FORMAT || status == MR_E_VERSION ||
				status == MR_E_TRUNCATED || status == MR_E_RANGE));
	int played = mr_bus_replay(&o, &result);
	must(!status || played == status);
	must(memchr(result.first, 0, sizeof(result.first)) != NULL);
	must(played || !result.differences == !result.first[0]);
	while (maps)
		free(memory[--maps]);
	free(trace);
	return 0;
}
