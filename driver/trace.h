/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The trace: what happened to each request and on each device, and when. A ring of 32-byte records in
 * memory or in a mapped file, written by the loop alone and read by anyone, also after the server died.
 * The newest records overwrite the oldest. `millrace trace` turns a file into a picture.
 *
 * A record is good when its sequence word reads the same before and after the rest was read, and is that
 * of its place: the writer stores 0 there first (TRACE_TAKE) and the record's number last (TRACE_PUBLISH).
 *
 * Threads: mr_trace and mr_trace_at only from the loop. Setup opens and closes while no loop runs.
 */
#ifndef MR_DRIVER_TRACE_H
#define MR_DRIVER_TRACE_H

#include <stdint.h>

enum mr_trace_event {
#define X(id, value, help) MR_T_##id,
#include "driver/trace.def"
#undef X
	MR_TRACE_EVENT_COUNT
};

struct mr_trace_info {
	const char *name;
	const char *value; /* what it means */
	const char *help;
};
extern const struct mr_trace_info mr_trace_info[MR_TRACE_EVENT_COUNT];

struct mr_trace_record {
	uint64_t sequence; /* 1 for the first record ever, then counting; 0 = being written */
	uint64_t ns;       /* CLOCK_MONOTONIC, or the clock that the caller went by */
	uint64_t value;    /* by the event (trace.def) */
	uint32_t owner;    /* the sequence's id; 0 = none: a device's own event */
	uint16_t event;    /* enum mr_trace_event */
	uint16_t device; /* index in the device table (driver/counters.h), or MR_TRACE_NO_DEVICE */
};
_Static_assert(sizeof(struct mr_trace_record) == 32, "two records a cache line");
#define MR_TRACE_NO_DEVICE 0xffffu

/* The writer. records == NULL: tracing is off, and mr_trace costs one branch. */
struct mr_trace_writer {
	struct mr_trace_record *records;
	uint64_t mask; /* entries - 1 */
	uint64_t next; /* records written so far */
};
extern struct mr_trace_writer mr_trace_writer;

/* Writes one record with the time stamp @ns. (driver/trace.c) */
void mr_trace_write(enum mr_trace_event event, uint32_t owner, uint32_t device, uint64_t value,
		    uint64_t ns);
/* CLOCK_MONOTONIC in ns by the time stamp counter: no system call. Loop only. */
uint64_t mr_trace_now(void);

/* The caller has read its clock already: @ns is when it happened, which may be earlier than now. */
static inline void mr_trace_at(enum mr_trace_event event, uint32_t owner, uint32_t device,
			       uint64_t value, uint64_t ns)
{
	if (__builtin_expect(mr_trace_writer.records != NULL, 0))
		mr_trace_write(event, owner, device, value, ns);
}

/* It happens now. */
static inline void mr_trace(enum mr_trace_event event, uint32_t owner, uint32_t device,
			    uint64_t value)
{
	if (__builtin_expect(mr_trace_writer.records != NULL, 0))
		mr_trace_write(event, owner, device, value, mr_trace_now());
}

/* The value of MR_T_end. @status is 0 or a negative enum mr_status. */
static inline uint64_t mr_trace_end_value(int32_t status, uint32_t tokens)
{
	return (uint64_t)(uint32_t)-status << 32 | tokens;
}

/* Starts a ring of @entries (a power of two, 0 = 65,536) in memory. MR_E_BUSY: one runs already. */
int mr_trace_open(uint32_t entries);
void mr_trace_close(void);

#endif /* MR_DRIVER_TRACE_H */
