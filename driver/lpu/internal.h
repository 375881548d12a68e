/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The LPU driver's inside. One I/O queue, one thread. Memory: every region below is the arena's and mapped
 * for the device; after load nothing is allocated. What the device writes is checked before it is used.
 */
#ifndef MR_DRIVER_LPU_INTERNAL_H
#define MR_DRIVER_LPU_INTERNAL_H

#include <stdint.h>

#include <millrace/lpu_spec.h>

#include "driver/bus/bus.h"
#include "driver/lpu/fifo.h"
#include "driver/lpu/lpu.h"
#include "driver/lpu/recover.h"
#include "driver/mem/arena.h"
#include "driver/mem/blocks.h"
#include "userlib/spec/chip.h"

#define ADMIN_ENTRIES 16u
#define EVENT_BYTES   4096u /* room for a log page that an event names */
#define IO_QUEUE      1u    /* the one that this driver makes */
#define IO_VECTOR     1u

enum pending_kind {
	PENDING_CLOSE, /* these two make no event */
	PENDING_OPEN,
	PENDING_FENCE,
	PENDING_IMPORT,
	PENDING_READ,
	PENDING_DECODE,
	PENDING_SCORE,
};

/* What waits for an admin command's completion. */
enum admin_kind {
	ADMIN_FREE, /* no command */
	ADMIN_WAIT, /* mr_lpu_admin */
	ADMIN_EVENT,
	ADMIN_LOG,
	ADMIN_ABORT,
};

/* A command that the device has not completed, by its place in the submission ring. */
struct pending {
	enum pending_kind kind;
	uint32_t request;
	int32_t status;   /* what the driver itself found wrong with its records */
	uint32_t aborted; /* the driver asked for its end */
	uint32_t early;   /* its completion came before that of an older command: */
	struct mr_lpu_completion completion;
	uint64_t tag;
	uint64_t param_end; /* room to give back, in each fifo */
	uint64_t rows_end;
	uint64_t row_first; /* logits row of step 0 of the first entry that asked */
	uint64_t entries_end;
	uint32_t entry_first; /* in lpu->entries */
	uint32_t entry_count;
	uint32_t slot, generation; /* of all but a DECODE and a FENCE */
	/* DECODE: which record must come next */
	uint32_t steps, step, cursor;
	/* SCORE: its tokens but the first, in command memory, and the position of the next */
	const uint32_t *given;
	uint32_t given_count, position;
	/* READ: what its descriptors must say */
	uint32_t layer, block, count, owner, receiver;
	uint32_t records; /* taken */
	uint64_t cycles;  /* of the latest record */
	/* DECODE: what the program claims of steps before this one, and of it; and whose record that is */
	uint64_t claimed, claim;
	uint32_t claim_step; /* 1 + the step that claim is of */
};

/* An entry of a DECODE under way. */
struct decode_entry {
	uint32_t slot, generation;
	uint32_t position; /* of its next record */
	uint32_t stopped;
	uint32_t spoilt;    /* a record was: what follows it is nobody's */
	uint64_t cycles;    /* at its last record */
	uint64_t predicted; /* the same, as the program claims */
	float *logits;      /* of the next record, or NULL */
};

struct slot {
	uint32_t open;
	uint32_t generation;
	uint32_t positions;
	uint32_t blocks; /* of block[] */
	uint32_t
		end; /* positions that hold KV once all that is posted has run; no less than that */
	uint32_t writer; /* request of the latest command that writes its KV */
	int32_t status;  /* why the device refused to open it, 0 = it did not */
	uint32_t *block; /* [blocks_max] in lpu.kv */
};

struct lpu {
	struct mr_device dev;
	struct mr_arena *arena;
	struct mr_bus *bus;
	uint64_t timeout_ns;
	uint64_t ready_ns; /* that a change of READY may take */
	uint32_t want_slots, want_context, want_batch;
	struct mr_lpu_identify id;
	struct mr_chip chip;

	const struct mr_region *commands, *records, *readback, *logits, *staging, *kv_read;

	/* admin queue: set-up, and events.c's commands that nobody waits for */
	struct mr_lpu_command *admin_sq;
	struct mr_lpu_completion *admin_cq;
	uint32_t admin_tail, admin_head;
	struct {
		enum admin_kind kind;
		uint32_t request;
	} admin[ADMIN_ENTRIES];
	uint32_t event_logs;                  /* bit n: log n is to be read for an event */
	uint32_t event_log;                   /* that is being read, 0 = none */
	uint64_t lines_ns;                    /* start of the time that lines are counted in */
	uint32_t lines[MR_LPU_LOG_POWER + 1]; /* about events, by log */
	struct mr_lpu_health health;          /* as last read */

	uint32_t coalesce;            /* as struct mr_lpu_options says */
	struct mr_lpu_shadow *shadow; /* by queue, those of all that the device has */
	int shadow_on, no_shadow;

	/* I/O queue: free-running indices */
	uint32_t entries, record_entries;
	struct mr_lpu_command *sq;
	struct mr_lpu_completion *cq;
	struct mr_lpu_record *ring;
	struct pending *pending; /* [entries] */
	uint32_t sq_tail, sq_rung, cq_head, cq_told, record_head, record_told;
	uint32_t sq_done; /* commands that have ended; [sq_done, sq_tail) are under way */
	uint32_t cq_spoilt, ring_spoilt; /* index + 1 of a place that was counted as garbage */

	/* room for what commands name, in @commands */
	uint8_t *params;
	struct fifo param_room;
	struct decode_entry *decodes;
	struct fifo decode_room;
	/* logits rows in @logits; given back at the poll after their event */
	struct fifo row_room;
	uint64_t rows_done;
	uint64_t row_bytes;

	/* the program */
	int loaded;
	struct mr_blocks kv; /* the driver's copy of the device's account */
	uint32_t *tables;    /* of all slots' block[] */
	uint64_t kv_layer_bytes;
	uint32_t layers, vocab;
	struct slot *slots; /* [caps.slots] */
	uint32_t slots_open, next_slot;

	int reading;    /* a KV_READ is under way */
	int abort_vain; /* the device said of an ABORT that it knows no such command */
	uint32_t armed; /* since the latest arm: 1 = nothing was taken, 2 = something was */
	int lost;       /* the status that poll gives from now on, 0 = the device is there */
	/* of the latest KV_READ that ended well, out of the device's reach */
	struct mr_kv_desc read_descs[MR_KV_DESCS_MAX];
	/* what a reset ended and poll has not yet told: [ended_next, ended_count) */
	struct pending *ended; /* [entries] */
	uint32_t ended_next, ended_count;
	char why[256];              /* of the last load that failed */
	uint64_t seen_ns;           /* of this poll's records, 0 = not looked at the clock yet */
	uint32_t idle_polls, slept; /* slept: armed since the last look at the clock */
	struct mr_recover recover;
	const struct mr_model *model; /* of the program */
	uint64_t (*now_ns)(void *arg);
	void *clock_arg;
	void (*log)(void *arg, const char *line);
	void *log_arg;
	struct mr_telemetry seen;
};

static inline struct lpu *lpu_of(struct mr_device *dev)
{
	return (struct lpu *)dev; /* dev is the first member */
}

uint64_t mr_lpu_monotonic_ns(void *arg); /* CLOCK_MONOTONIC */

static inline uint64_t mr_lpu_now_ns(const struct lpu *lpu)
{
	return lpu->now_ns(lpu->clock_arg);
}

/* 0, or why the bus gave the device up. */
static inline int mr_lpu_bus_lost(const struct lpu *lpu)
{
	return __atomic_load_n(&lpu->bus->lost, __ATOMIC_RELAXED);
}

/* admin.c */
int mr_lpu_enable(struct lpu *lpu);
int mr_lpu_disable(struct lpu *lpu); /* 0, or READY did not go away */
/*
 * Runs one admin command and waits for it, sleeping between looks. 0 and *result, the device's status, or
 * MR_E_TIMEOUT, MR_E_PROTOCOL. @result may be NULL. request is filled in.
 */
int mr_lpu_admin(struct lpu *lpu, void *command, uint32_t *result);
/* Posts an admin command that nobody waits for: 0, or MR_E_FULL. request is filled in. */
int mr_lpu_admin_post(struct lpu *lpu, void *command, enum admin_kind kind);
/* 1 = an admin completion came: copied to @c, its command's kind to @kind (ADMIN_FREE = there is none). */
int mr_lpu_admin_take(struct lpu *lpu, struct mr_lpu_completion *c, enum admin_kind *kind);
int mr_lpu_read_identity(struct lpu *lpu);
int mr_lpu_read_chip(struct lpu *lpu);

/* manage.c: the I/O queue, shadow doorbells, settings and events, after each bring-up. */
int mr_lpu_start(struct lpu *lpu);

/* events.c: asynchronous events, and the logs that they name. Nothing here sleeps. */
void mr_lpu_events_start(struct lpu *lpu); /* after each bring-up */
void mr_lpu_events_look(struct lpu *lpu);  /* takes what has come */
/* An admin completion that mr_lpu_admin was not waiting for. */
void mr_lpu_events_admin(struct lpu *lpu, enum admin_kind kind, const struct mr_lpu_completion *c);
__attribute__((format(printf, 2, 3))) void mr_lpu_say(const struct lpu *lpu, const char *format,
						      ...);

/* lifeline.c: what recover.c asks of the device */
void mr_lpu_recover_init(struct lpu *lpu);

/* queue.c: the I/O queue */
int mr_lpu_queue_init(struct lpu *lpu);   /* memory; once */
int mr_lpu_queue_create(struct lpu *lpu); /* on the device, after each enable */
/* Place and pending record of the next command, or NULL where the queue is full. */
struct mr_lpu_command *mr_lpu_next(struct lpu *lpu, uint32_t keep, struct pending **pending);
/* Hands the command that mr_lpu_next gave over; @now = 1 rings the doorbell at once. */
void mr_lpu_submit(struct lpu *lpu, int now);
/* Shadow doorbells, where the device has them: after each mr_lpu_queue_create. 0 or what the device said. */
int mr_lpu_shadow_start(struct lpu *lpu);
/* Tells an index: in the shadow, where that is on and the device awake, else by BAR2. */
void mr_lpu_doorbell(struct lpu *lpu, uint32_t queue, uint32_t offset, uint32_t value);
void mr_lpu_ring(struct lpu *lpu); /* tells the device what it has not been told */

/* program.c */
int mr_lpu_load(struct mr_device *dev, const struct mr_model *model,
		void (*progress)(void *arg, unsigned percent), void *arg);
int mr_lpu_staging(struct lpu *lpu); /* room for what goes to the device in pieces: 0 or why not */
/* The program once more, after a reset that took it. 0 or why not. */
int mr_lpu_reload(struct lpu *lpu);

/* slots.c */
/* Room for the account of a program's KV blocks: 0 or MR_E_NO_MEMORY. */
int mr_lpu_slots_create(struct lpu *lpu, uint32_t kv_blocks);
void mr_lpu_slots_destroy(struct lpu *lpu);
/* All are closed, all blocks free. */
void mr_lpu_slots_forget(struct lpu *lpu);
int mr_lpu_slot_open(struct mr_device *dev, const struct mr_slot_config *config,
		     struct mr_slot *slot);
int mr_lpu_slot_close(struct mr_device *dev, struct mr_slot slot);
int mr_lpu_kv_import(struct mr_device *dev, struct mr_slot slot, const struct mr_kv_desc *descs,
		     uint32_t count, uint64_t tag);
/* Room for KV_READ, once kv_layer_bytes is known: 0 or what the arena said. */
int mr_lpu_read_room(struct lpu *lpu);
/* The KV_READ @p has ended well: takes its descriptors. MR_E_PROTOCOL where they are not what was asked for. */
int mr_lpu_read_take(struct lpu *lpu, const struct pending *p);
int mr_lpu_kv_fork(struct mr_device *dev, struct mr_slot from, uint32_t positions,
		   const struct mr_slot_config *config, struct mr_slot *slot);
/* 0, MR_E_NOT_ACTIVE, MR_E_STALE, or why the device refused to open it. */
int mr_lpu_slot_check(const struct lpu *lpu, struct mr_slot slot);
/* May @count tokens be fed at @position? 0, MR_E_CONTEXT_FULL, or MR_E_BUSY for a shared block. */
int mr_lpu_slot_writable(const struct lpu *lpu, uint32_t slot, uint32_t position, uint32_t count);

/* decode.c */
int mr_lpu_decode(struct mr_device *dev, const struct mr_decode_entry *entries, uint32_t count,
		  uint32_t steps, uint64_t tag);
int mr_lpu_score(struct mr_device *dev, struct mr_slot slot, const uint32_t *tokens, uint32_t count,
		 uint32_t position, uint64_t tag);

/* poll.c */
int mr_lpu_poll(struct mr_device *dev, struct mr_event *events, uint32_t max);
int mr_lpu_arm(struct mr_device *dev);
/* Waits for commands that make no event. MR_E_BUSY where others are under way or events wait. May sleep. */
int mr_lpu_settle(struct lpu *lpu);

#endif /* MR_DRIVER_LPU_INTERNAL_H */
