/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the LPU's tests share: an arena, a simulated device and its driver over tests/tiny.gguf; and a raw
 * host (rings without the driver) that can send what the driver never would.
 */
#ifndef MR_TESTS_SUPPORT_LPU_RIG_H
#define MR_TESTS_SUPPORT_LPU_RIG_H

#include <millrace/lpu_port.h>
#include <millrace/lpu_spec.h>

#include "driver/compile/compile.h"
#include "driver/device.h"
#include "driver/mem/arena.h"
#include "driver/model/model.h"
#include "firmware-sim/sim.h"
#include "userlib/spec/container.h"

struct lpu_rig_options {
	const char *chip; /* NULL = "tiny" */
	uint32_t chips;   /* 0 = 2 */
	const char *fault;
	uint32_t context, slots, batch;
	int no_load;
	uint64_t timeout_ms; /* 0 = the driver's */
	uint32_t coalesce;
	void (*log)(void *arg, const char *line);
};

struct lpu_rig {
	struct mr_model *model;
	struct mr_arena *arena;
	struct mr_device *dev;
	struct mr_lpu_port port; /* the simulator's, for mr_sim_sense and the like */
};

/* Opens everything and loads the model; a failure ends the test. */
void lpu_rig_open(struct lpu_rig *rig, const struct lpu_rig_options *options);
void lpu_rig_close(struct lpu_rig *rig);

/* Polls @dev until DONE of @tag (or @max events); returns how many events came. Ends the test after 20 s. */
uint32_t lpu_rig_wait(struct mr_device *dev, uint64_t tag, struct mr_event *events, uint32_t max);

/* Opens a slot, greedy, owner 7, or ends the test. */
struct mr_slot lpu_rig_slot(struct mr_device *dev, uint32_t positions);

/* ---- the raw host: a device, one admin queue of 8, one I/O queue of 8 with 8 records ------------- */

#define RAW_IOVA    0x10000000ull /* of host->mem: read and write */
#define RAW_RO_IOVA 0x20000000ull /* of host->ro: the device may only read */
#define RAW_BYTES   (1u << 20)
#define RAW_ENTRIES 8u
#define RAW_QUEUES  5u /* with the admin queue */

struct raw_host {
	struct mr_lpu_port port;
	uint8_t *mem, *ro; /* RAW_BYTES each */
	struct mr_lpu_command *sq[RAW_QUEUES];
	struct mr_lpu_completion *cq[RAW_QUEUES];
	struct mr_lpu_record *records; /* of queue 1 */
	struct mr_lpu_record *ring[RAW_QUEUES];
	uint32_t tail[RAW_QUEUES], head[RAW_QUEUES];
	uint32_t record_head;         /* of queue 1 */
	struct mr_lpu_shadow *shadow; /* NULL = doorbells by BAR2 */
	uint32_t rung;                /* writes to BAR2 */
};

/* Powers a device on and enables it; with @io also creates queue 1. */
void raw_open(struct raw_host *h, const struct mr_sim_options *options, int io);
void raw_close(struct raw_host *h);
/* Powers nothing on: rings zeroed, ENABLE set, READY waited for. For after a reset. */
void raw_enable(struct raw_host *h);
/* Creates queue @q: what the device said. */
int raw_queue(struct raw_host *h, uint32_t q);
/* Waits for STATUS to be @want. */
void raw_wait_status(struct raw_host *h, uint32_t want);
/* Writes an index (MR_LPU_DB_*) of @q, by shadow doorbell where they are on. */
void raw_ring(struct raw_host *h, uint32_t q, uint32_t offset, uint32_t value);
/* Reads a log into @out from its start: bytes. Through h->mem + 65536. */
uint32_t raw_log(struct raw_host *h, uint32_t log, void *out, uint32_t bytes);
/* FEATURES: the status; *value is what it is set to where @set, and what the device said. */
int raw_feature(struct raw_host *h, uint32_t feature, uint32_t queue, int set, uint32_t *value);
uint64_t raw_iova(const struct raw_host *h, const void *p); /* of something in h->mem */
void raw_post(struct raw_host *h, uint32_t queue, const void *command);
/* The next completion, waited for; CQ_HEAD is told where @credit. */
struct mr_lpu_completion raw_complete(struct raw_host *h, uint32_t queue, int credit);
/* 1 = a completion came within @ms. */
int raw_completed(struct raw_host *h, uint32_t queue, unsigned ms);
/* Posts and waits; the status as a negative mr_status. */
int raw_do(struct raw_host *h, uint32_t queue, const void *command, uint32_t *result);
struct mr_lpu_counters raw_counters(struct raw_host *h);
/* Sends a container from @bytes in pieces of 64 KiB: the first status that is not 0, and the action. */
int raw_program(struct raw_host *h, const void *container, uint64_t bytes, uint32_t *action);

/* ---- a raw host with tests/tiny.gguf active: batch 4, context 128 -------------------------------- */

struct raw_loaded {
	struct raw_host h;
	struct mr_model *model;
	struct mr_program program;
	struct mr_container c;
};

void raw_load(struct raw_loaded *l, uint32_t chips);
void raw_unload(struct raw_loaded *l);
/* SLOT_SET: greedy, owner 7; the param lies at h.mem + 20480. The status. */
int raw_slot_set(struct raw_loaded *l, uint32_t slot, uint32_t generation, uint32_t positions);
/* The next record, waited for some 20 ms: 1, or 0 where none came. Credit is the caller's to give. */
int raw_record(struct raw_loaded *l, struct mr_lpu_record *out);

#endif /* MR_TESTS_SUPPORT_LPU_RIG_H */
