/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Plays a bus trace (bus_trace.h) on a device: the same registers, mappings, memory, commands and doorbells, at the
 * same IOVAs over memory of its own; and compares what the device answers with what the trace has. The host's
 * waiting is not repeated: where the trace has completions or records, they are waited for. Used by
 * tools/ and tests.
 *
 * Compared: MAGIC, VERSION; STATUS, waited for, from the first time that the device was enabled on; each completion's request,
 * result and status; each record but its cycle; whether a reset succeeded. Not compared: other registers,
 * sq_head, interrupts, what else the device writes (logs, logits, KV), ASYNC_EVENTs, which come when they come, and
 * the lengths of the logs ERRORS and CRASH, which tell of more than the trace.
 */
#ifndef MR_DRIVER_BUS_REPLAY_H
#define MR_DRIVER_BUS_REPLAY_H

#include <stddef.h>
#include <stdint.h>

#include "driver/bus/bus.h"

struct mr_bus_replay_options {
	const void *trace; /* 8-byte aligned; checked first */
	size_t bytes;
	struct mr_bus *bus; /* stays the caller's */
	/* Zeroed memory, page-aligned, that @bus can map; it must stay until mr_bus_replay has returned. */
	void *(*memory)(void *arg, size_t bytes);
	void *memory_arg;
	uint64_t memory_max; /* of all mappings together; 0 = 16 GiB */
	uint64_t wait_ms;    /* for what the trace says must come; 0 = 5000 */
	int exact;           /* 1 = cycles and log lengths too */
	const int *stop;     /* not NULL: ends with MR_E_CANCELLED once it is not 0 */
};

struct mr_bus_replay_result {
	uint64_t entries; /* of the trace, played */
	uint64_t commands, completions, records;
	uint64_t events; /* ASYNC_EVENTs' completions on either side */
	uint64_t differences;
	uint64_t cut;    /* magnitude of why the trace itself ends early; 0 = it does not */
	char first[320]; /* the first difference, or why the replay ended early; "" = none */
};

/*
 * 0 = played to its end: see differences. Else why it could not go on: what mr_bus_trace_check says; MR_E_RANGE
 * (a mapping or memory that cannot be), MR_E_NO_MEMORY, MR_E_TIMEOUT (what must come did not), MR_E_DISCONNECTED, MR_E_CANCELLED, or what the bus said.
 * The device is reset first and disabled afterwards.
 */
int mr_bus_replay(const struct mr_bus_replay_options *options, struct mr_bus_replay_result *result);

#endif /* MR_DRIVER_BUS_REPLAY_H */
