/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The counters' one table: metrics, queues, devices, histograms. It is the process's own memory until
 * setup moves it into a mapped file, which tools read without asking the process, also when it hangs or has
 * died. The loop feeds it through the calls below, mr_count (driver/metrics.h) and mr_histogram_add
 * (driver/histogram.h); none of them locks, allocates or enters the kernel.
 *
 * The file is struct mr_counters_file, in this machine's byte order. It belongs to one running server: the
 * writer holds an flock on it. Growth: a changed layout or list of names changes the table hash, and a reader
 * of another build refuses the file with MR_E_VERSION.
 */
#ifndef MR_DRIVER_COUNTERS_H
#define MR_DRIVER_COUNTERS_H

#include <stddef.h>
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

/*
 * Only from the loop, or from setup before it runs, like all below. @index is the device's place in the table,
 * prefill devices first; one above 7 has no effect. The device takes this name in the trace too.
 */
void mr_device_note(uint32_t index, const struct mr_device_note *note, uint64_t now_ns);
/* One piece of work was posted to the device, or has ended: its utilisation is made from these two. */
void mr_device_posted(uint32_t index, uint64_t now_ns);
void mr_device_ended(uint32_t index, uint64_t now_ns);
/* Of a device's row only the KV blocks. */
void mr_device_kv(uint32_t index, uint64_t blocks, uint64_t used, uint64_t now_ns);
void mr_queues_note(const struct mr_queues *queues);

/* ---- the file ---- */

#define MR_COUNTERS_MAGIC   0x31544e554f43524du /* "MRCOUNT1" */
#define MR_COUNTERS_VERSION 1u
#define MR_COUNTERS_BEAT_NS \
	100000000u /* the loop's heartbeat comes at least this often while it runs */

enum mr_counters_state {
	MR_SERVER_STARTING,
	MR_SERVER_SERVING,
	MR_SERVER_DRAINING,
	MR_SERVER_STOPPED
};

struct mr_counters_header {
	uint64_t magic; /* stored last; 0 = the file is being made */
	uint32_t version;
	uint32_t header_bytes; /* of this structure */
	uint64_t file_bytes;
	uint64_t table_hash; /* of names, units and sizes (mr_counters_hash) */
	uint32_t pid;
	uint32_t state; /* enum mr_counters_state */
	uint64_t
		process_start; /* of the pid, in clock ticks since boot (/proc/PID/stat): it may be reused */
	uint64_t start_real_ns; /* CLOCK_REALTIME when the file was made */
	uint64_t beat_real_ns;  /* CLOCK_REALTIME of the last heartbeat */
	uint64_t beat_ns;       /* CLOCK_MONOTONIC of the last heartbeat */
	uint32_t metric_count, device_count, histogram_count, bucket_count;
	uint32_t metrics_offset, queues_offset, devices_offset,
		histograms_offset; /* bytes from the start */
	char program[32];          /* "millrace 0.1.0" */
	char model[64];
	char listen[160]; /* where clients connect, for people */
	uint64_t reserved[19];
};
_Static_assert(sizeof(struct mr_counters_header) == 512, "no hole");

struct mr_counters_file {
	struct mr_counters_header header;
	uint64_t metrics[(MR_METRIC_COUNT + 7) / 8 * 8];
	struct mr_queues queues;
	uint64_t reserved[4];
	struct mr_device_row devices[MR_COUNTERS_DEVICES];
	struct mr_histogram_data histograms[MR_HISTOGRAM_COUNT];
};
_Static_assert(sizeof(struct mr_counters_file) % 64 == 0, "whole cache lines");

/* A hash of all that a reader must agree on with the writer. */
uint64_t mr_counters_hash(void);

/*
 * Setup only, while no loop or compute thread runs. Makes the file and moves the table into it, with what
 * was counted so far. MR_E_BUSY: a running server holds @path; MR_E_EXISTS: it is a file of something else;
 * MR_E_NOT_FOUND, MR_E_PERMISSION, MR_E_IO (errno). @path's folder should be a tmpfs, or write-back may stall
 * the loop.
 */
int mr_counters_create(const char *path);
/* Moves the table back into the process, with its values. The file stays, in state stopped. */
void mr_counters_close(void);
/* What the header tells people; @model and @listen may be NULL. Cut where too long. */
void mr_counters_describe(const char *model, const char *listen);
/* Setup and loop. @now_ns is CLOCK_MONOTONIC. */
void mr_counters_set_state(enum mr_counters_state state, uint64_t now_ns);
/* From the loop, as often as it likes: writes at most once in MR_COUNTERS_BEAT_NS, and then returns 1. */
int mr_counters_beat(uint64_t now_ns);

/* ---- readers (driver/counters_read.c) ---- */

/*
 * Checks @size bytes that claim to be a counters file and makes its text safe to print. Returns 0, or
 * MR_E_EMPTY (being made), MR_E_TRUNCATED, MR_E_FORMAT (no counters file), MR_E_VERSION (of another build),
 * MR_E_RANGE (a header that contradicts itself).
 */
int mr_counters_check(struct mr_counters_file *file, uint64_t size);
/* Reads a snapshot of @path: those of mr_counters_check, or MR_E_NOT_FOUND, MR_E_PERMISSION, MR_E_IO. */
int mr_counters_read(const char *path, struct mr_counters_file *out);
/* 1 = the process that wrote @file still runs. */
int mr_counters_alive(const struct mr_counters_file *file);

#endif /* MR_DRIVER_COUNTERS_H */
