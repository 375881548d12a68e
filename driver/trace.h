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
/* CLOCK_MONOTONIC in ns: by the vDSO from the time stamp counter, no system call. */
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

/* ---- setup: while no loop runs ---- */

#define MR_TRACE_ENTRIES     (1u << 18) /* the usual size: 8 MiB */
#define MR_TRACE_ENTRIES_MAX (1u << 24)
#define MR_TRACE_DEVICES     8

/*
 * Starts a ring of @entries (a power of two; 0 = MR_TRACE_ENTRIES) in memory, or in a file that stays when
 * the process ends. MR_E_BUSY: one runs already, here or in the server that holds @path; MR_E_EXISTS: a file
 * of something else; MR_E_NOT_FOUND, MR_E_PERMISSION, MR_E_IO (errno).
 */
int mr_trace_open(uint32_t entries);
int mr_trace_create(const char *path, uint32_t entries);
void mr_trace_close(void);
/* What readers call a device; called by mr_device_note. */
void mr_trace_name(uint32_t device, const char *name);

/* ---- the file: this header, then the records ---- */

#define MR_TRACE_MAGIC   0x314543415254524du /* "MRTRACE1" */
#define MR_TRACE_VERSION 1u

struct mr_trace_header {
	uint64_t magic; /* stored last; 0 = the file is being made */
	uint32_t version;
	uint32_t header_bytes; /* of this structure */
	uint64_t table_hash;   /* of the events' names */
	uint64_t entries;
	uint32_t record_bytes;
	uint32_t pid;
	uint64_t start_ns;      /* CLOCK_MONOTONIC when the trace began */
	uint64_t start_real_ns; /* CLOCK_REALTIME of the same instant */
	char devices[MR_TRACE_DEVICES][32];
	uint64_t reserved[25];
};
_Static_assert(sizeof(struct mr_trace_header) == 512, "no hole");

/* ---- readers (driver/trace_read.c) ---- */

/* A file's records, oldest first. */
struct mr_trace {
	struct mr_trace_header header;
	struct mr_trace_record *records;
	uint64_t count;
	uint64_t lost;   /* older ones that were overwritten */
	uint64_t broken; /* places that held no whole record: written while read, or damaged */
};

/*
 * Reads @path; free with mr_trace_free. MR_E_EMPTY (being made), MR_E_TRUNCATED, MR_E_FORMAT (no trace file),
 * MR_E_VERSION (of another build), MR_E_RANGE (a header that contradicts itself), MR_E_NOT_FOUND,
 * MR_E_PERMISSION, MR_E_IO, MR_E_NO_MEMORY.
 */
int mr_trace_read(const char *path, struct mr_trace *out);
/* The same from memory: @size bytes that claim to be a file. */
int mr_trace_parse(const void *bytes, uint64_t size, struct mr_trace *out);
void mr_trace_free(struct mr_trace *trace);
/* Of the events' names: what writer and reader must agree on. */
uint64_t mr_trace_hash(void);

#endif /* MR_DRIVER_TRACE_H */
