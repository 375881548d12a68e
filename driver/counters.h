/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The counters' one table: metrics, queues, devices, histograms. It is the process's own memory until
 * setup moves it into a mapped file, which tools read without asking the process. The loop feeds it through
 * the calls below, mr_count (driver/metrics.h) and mr_histogram_add (driver/histogram.h); none of them
 * locks, allocates or enters the kernel.
 */
#ifndef MR_DRIVER_COUNTERS_H
#define MR_DRIVER_COUNTERS_H

#include <stdint.h>

#include "driver/histogram.h"
#include "driver/metrics.h"

#define MR_COUNTERS_DEVICES 8

/* How many requests are in each stage now. */
struct mr_queues {
	uint32_t waiting; /* accepted, for a device */
	uint32_t prefilling;
	uint32_t handover; /* between prefill's end and the first step */
	uint32_t decoding;
	uint32_t paused;   /* for more input */
	uint32_t requests; /* the most that can be accepted at once */
	uint32_t reserved[2];
};
_Static_assert(sizeof(struct mr_queues) == 32, "no hole");

/* What the loop says about a device. */
struct mr_device_note {
	char name[32];   /* caps.name */
	uint32_t stages; /* MR_STAGE_* (driver/device.h) */
	uint32_t slots, slots_used;
	uint32_t batch; /* sequences in its last decode command, 0 = none yet */
	uint64_t kv_blocks, kv_blocks_used;
};

/* A device's row. */
struct mr_device_row {
	uint32_t
		version; /* odd while the loop changes the row (ROW_BEGIN, ROW_END); 0 = no device */
	uint32_t inflight; /* work posted and not ended */
	struct mr_device_note note;
	uint64_t busy_ns;       /* with work, up to busy_since_ns */
	uint64_t busy_since_ns; /* CLOCK_MONOTONIC, 0 = it has no work */
	uint64_t updated_ns;    /* CLOCK_MONOTONIC of the last change */
	uint64_t reserved[4];
};
_Static_assert(sizeof(struct mr_device_row) == 128, "whole cache lines");

/* The current tables. Readers in this process; the loop uses the calls below. */
extern struct mr_device_row *mr_device_rows; /* MR_COUNTERS_DEVICES of them */
extern struct mr_queues *mr_queues;

/* Only from the loop, like all below. @index is the device's place in the table; above 7 has no effect. */
void mr_device_note(uint32_t index, const struct mr_device_note *note, uint64_t now_ns);
/* One piece of work was posted to the device, or has ended: its utilisation is made from these two. */
void mr_device_posted(uint32_t index, uint64_t now_ns);
void mr_device_ended(uint32_t index, uint64_t now_ns);
void mr_queues_note(const struct mr_queues *queues);

#endif /* MR_DRIVER_COUNTERS_H */
