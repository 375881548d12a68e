// SPDX-License-Identifier: Apache-2.0
/* The logits of class D, from the CPU backend: what a device of that class must give bit for bit. */
#include <string.h>

#include "driver/cpu/cpu.h"
#include "driver/mem/arena.h"
#include "driver/model/model.h"
#include "tools/conform/reference.h"

/* One step: @token at @position. */
static int decode(struct mr_device *dev, struct mr_slot slot, uint32_t position, uint32_t token,
		  float *logits)
{
	const struct mr_decode_entry e = {
		.slot = slot, .position = position, .token = token, .flags = MR_DECODE_LOGITS};
	struct mr_event event;
	int status = dev->work->decode(dev, &e, 1, 1, 1);

	while (!status) {
		int events = dev->work->poll(dev, &event, 1);
		if (events < 0)
			return events;
		if (events && event.type == MR_EVENT_DONE)
			return event.status;
		if (events && event.logits)
			memcpy(logits, event.logits, 4ull * dev->caps.vocab);
	}
	return status;
}

int conform_reference(const struct mr_model *model, const uint32_t *tokens, uint32_t n,
		      float *logits)
{
	const struct mr_arena_options arena_options = {.node = -1, .no_huge = 1};
	struct mr_cpu_options options = {
		.slots = 2, .context = 128, .numerics = MR_NUMERICS_STRICT, .cpu = -1};
	const struct mr_slot_config config = {.owner = 1, .positions = n + 1};
	struct mr_device *dev = NULL;
	struct mr_slot slot;
	int status = mr_arena_create(&arena_options, &options.arena);

	if (!status)
		status = mr_cpu_open(&options, &dev);
	if (!status)
		status = dev->work->load(dev, model, NULL, NULL);
	if (!status)
		status = dev->mem->slot_open(dev, &config, &slot);
	for (uint32_t i = 0; !status && i < n; i++)
		status = decode(dev, slot, i, tokens[i], logits + (size_t)i * dev->caps.vocab);
	if (dev)
		dev->admin->close(dev);
	mr_arena_destroy(options.arena);
	return status;
}
