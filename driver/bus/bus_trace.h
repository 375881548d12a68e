/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A bus trace: what passed between the driver and a device, in a file (Documentation/lpu-trace.rst). The
 * format, its check, and what both of its users must know of a device's rings and of the memory that commands name.
 * Written by record.c, played by replay.c, read by tools/ and tests. A file is not trusted.
 */
#ifndef MR_DRIVER_BUS_BUS_TRACE_H
#define MR_DRIVER_BUS_BUS_TRACE_H

#include <stddef.h>
#include <stdint.h>

#include <millrace/lpu_spec.h>

#define MR_BUS_TRACE_MAGIC   0x314352545542524dull /* "MRBUTRC1" */
#define MR_BUS_TRACE_VERSION 1u
#define MR_BUS_TRACE_QUEUES  65u /* with the admin queue */

struct mr_bus_trace_header {
	uint64_t magic;
	uint32_t version;
	uint32_t header_bytes; /* sizeof(struct mr_bus_trace_header) */
	uint64_t start_ns;     /* CLOCK_REALTIME when time_ns was 0 */
	uint64_t reserved[5];
};
_Static_assert(sizeof(struct mr_bus_trace_header) == 64, "header");

enum mr_bus_trace_kind {
	MR_BUS_TRACE_REG_READ =
		1, /* at: offset; value: what was read. Repeats that read the same are left out */
	MR_BUS_TRACE_REG_WRITE, /* at: offset; value */
	MR_BUS_TRACE_DOORBELL,  /* queue; at: MR_LPU_DB_*; value */
	MR_BUS_TRACE_MAP,       /* at: IOVA; value: MR_DMA_*; payload: u64 length */
	MR_BUS_TRACE_UNMAP,     /* at: IOVA */
	MR_BUS_TRACE_MEMORY,    /* at: IOVA; payload: what the device finds there from now on */
	MR_BUS_TRACE_COMPLETIONS, /* queue; value: index of the first; payload: struct mr_lpu_completion[] */
	MR_BUS_TRACE_RECORDS, /* queue; value: index of the first; payload: struct mr_lpu_record[] */
	MR_BUS_TRACE_IRQ,     /* value: vector that the host asked an eventfd for */
	MR_BUS_TRACE_RESET,   /* function-level; value: magnitude of its status */
	MR_BUS_TRACE_END, /* the last entry; value: 0, or the magnitude of why nothing more was recorded */
	MR_BUS_TRACE_KINDS
};

/* Followed by @bytes of payload and zeros up to a multiple of 8. */
struct mr_bus_trace_entry {
	uint16_t kind;
	uint16_t queue;
	uint32_t bytes;   /* of the payload */
	uint64_t time_ns; /* since start_ns, CLOCK_MONOTONIC; never less than the entry before */
	uint64_t at;
	uint32_t value;
	uint32_t reserved;
};
_Static_assert(sizeof(struct mr_bus_trace_entry) == 32, "entry");

/*
 * Checks a whole file, @trace 8-byte aligned. 0, MR_E_FORMAT, MR_E_VERSION, MR_E_TRUNCATED (no END) or
 * MR_E_RANGE, with a sentence in @why (may be NULL) that names the byte.
 */
int mr_bus_trace_check(const void *trace, size_t bytes, char *why, size_t why_bytes);
/* Entry after @entry, or the first one where that is NULL; NULL after END. Of a checked trace. */
const struct mr_bus_trace_entry *mr_bus_trace_next(const void *trace,
						   const struct mr_bus_trace_entry *entry);

/* ---- rings and the memory that commands name -------------------------------------------------- */

struct mr_bus_ring {
	int live;
	uint64_t sq, cq, records; /* IOVAs; records = 0 on the admin queue */
	uint32_t entries, record_entries;
	uint32_t sq_tail, cq_head, record_head; /* as the doorbells said; free-running */
};

struct mr_bus_rings {
	uint32_t entries, sq_lo, sq_hi, cq_lo, cq_hi; /* the admin registers */
	struct mr_bus_ring queue[MR_BUS_TRACE_QUEUES];
	uint64_t kv_bytes; /* of a KV block of one layer, as the program says; 0 = not known */
};

void mr_bus_rings_reset(struct mr_bus_rings *r);
/* A register was written. 1 = the admin queue is new. */
int mr_bus_rings_register(struct mr_bus_rings *r, uint32_t offset, uint32_t value);
/* A command of queue 0 is on its way. The queue that it makes, or 0. */
uint32_t mr_bus_rings_command(struct mr_bus_rings *r, const struct mr_lpu_command *c);

struct mr_bus_inputs {
	/* Host address of [@iova, @iova + @bytes), or NULL. */
	const void *(*at)(void *arg, uint64_t iova, uint64_t bytes);
	void (*found)(void *arg, uint64_t iova, const void *base, uint64_t bytes);
	void *arg;
};
/*
 * Tells all memory that the device may read for @c of queue @queue, but the command itself; what is not mapped is
 * left out, as the device refuses it too. Also learns kv_bytes from a program's first piece. 0, or
 * MR_E_NOT_SUPPORTED where that cannot be known when the doorbell rings: token masks, shadow doorbells, KV
 * blocks of a program whose payload is not known.
 */
int mr_bus_inputs(struct mr_bus_rings *r, uint32_t queue, const struct mr_lpu_command *c,
		  const struct mr_bus_inputs *inputs);

/* "DECODE", or "opcode" for one without a name. */
const char *mr_bus_opcode_name(uint32_t opcode);

#endif /* MR_DRIVER_BUS_BUS_TRACE_H */
