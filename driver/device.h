/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Devices as the orchestrator sees them: three small ops tables and a caps record, nothing else.
 * Backends: lpu (driver/lpu), cpu (driver/cpu), nil (driver/nil, completes at once and so measures our
 * own overhead), later cuda. driver/sched includes this file and no backend's.
 *
 * Concepts
 *   slot        a sequence's place on a device: its KV, its sampling state, its generation. A slot index
 *               is reused; its generation then differs, and anything that names the old one is refused
 *               with MR_E_STALE.
 *   position    index of a token in its sequence, from 0. Prefill writes KV for positions 0 to n-2 of a
 *               prompt of n tokens; the first DECODE is fed token n-1. So one sampler makes every token.
 *   step        the making of one token for every entry of a batch.
 *   tag         the caller's 64 bits, brought back in the event that completes the work.
 *
 * Work is posted and never waits: a call returns 0, or a negative mr_status and then has no effect and
 * makes no event. MR_E_FULL means "take events, then try again". Work that names the same slot runs in the
 * order in which it was posted, and so does all work of a device without caps.pass_rows. One with them takes
 * works of different slots together, may end a later one first, and begins what was posted with the next
 * poll (of any number of events, 0 too) or arm, so that what one turn posts goes together. Every accepted
 * prefill, import, decode and score makes exactly one MR_EVENT_DONE, also after an error or a reset. A slot
 * is written only at or beyond what it shares with another one (kv_fork): going back into a shared block is
 * MR_E_BUSY.
 *
 * Threads: one thread posts and polls (the orchestrator's loop). load and close are set-up calls that may
 * block, allocate and log.
 *
 * An empty slot of an ops table holds a function that returns MR_E_NOT_SUPPORTED (mr_unsupported_* below),
 * never NULL.
 */
#ifndef MR_DRIVER_DEVICE_H
#define MR_DRIVER_DEVICE_H

#include <stdint.h>

#include <millrace/lpu_spec.h> /* struct mr_kv_desc, MR_KV_BLOCK_TOKENS */
#include <millrace/sampling.h>
#include <millrace/status.h>

struct mr_model; /* driver/model/model.h */
struct mr_device;

#define MR_STAGE_PREFILL 1u
#define MR_STAGE_DECODE  2u
#define MR_STAGE_SCORE   4u

/* In which numeric classes (numerics.rst) a device that has more than D computes. */
enum mr_numerics {
	MR_NUMERICS_EXACT, /* generated tokens in D; prompts in its class P, or D where it has none */
	MR_NUMERICS_STRICT, /* all in D */
	MR_NUMERICS_FAST, /* class P for large decode batches too: bits then depend on the batch */
};

/* What a device can do; filled by its constructor and by load, constant afterwards. */
struct mr_caps {
	char name[32];      /* "lpu:mr1x2", "cpu:avx2": what tables and logs print */
	uint32_t stages;    /* MR_STAGE_* */
	uint32_t slots;     /* slots that can be open at once */
	uint32_t context;   /* positions a slot can hold */
	uint32_t batch_max; /* entries a DECODE may have */
	uint32_t steps_max; /* steps a DECODE may have */
	uint32_t chunk_max; /* tokens a prefill call may have */
	/*
	 * Rows (entries of a DECODE, tokens of prompts) of different works that go through the model
	 * together where they wait together; 0 = one work at a time.
	 */
	uint32_t pass_rows;
	uint32_t vocab;     /* ids, after load */
	uint64_t kv_tokens; /* tokens of KV in all slots together */
	uint64_t cycle_ps;  /* picoseconds a cycle of mr_event.cycles, 0 = the device counts none */
	uint32_t latency_exact; /* 1 = cycles come from a static schedule, 0 = estimated */
	/* Cycles of a step, see mr_cycles_of_step; after load. All 0 = the device claims none. */
	struct mr_cycles {
		uint64_t base, slot, block, tile;
		uint64_t record; /* from a slot's record to the next slot's */
	} cycles;
	char class_prefill[16]; /* numeric class of prefill: "D", "P-cuda-fp16"; "" = cannot */
	char class_decode
		[16];         /* numeric class of decode; "D|P-..." where it depends on the batch */
	uint64_t class_bytes; /* weights held besides, for class_prefill alone; after load */
};

/*
 * Prediction: the cycles of one step whose slots attend to @positions[i] positions, the one they are at included; 0
 * where the device claims none. A slot's record is there record * (slots after it) earlier. Exact where
 * caps.latency_exact.
 */
static inline uint64_t mr_cycles_of_step(const struct mr_cycles *c, const uint32_t *positions,
					 uint32_t slots)
{
	uint64_t cycles = c->base;

	for (uint32_t i = 0; i < slots; i++)
		cycles += c->slot + c->block * ((positions[i] + 15) / 16) +
			  c->tile * ((positions[i] + 255) / 256);
	return cycles;
}

/* The same of @steps steps one after the other, each slot a position further at each. */
static inline uint64_t mr_cycles_of_steps(const struct mr_cycles *c, const uint32_t *positions,
					  uint32_t slots, uint32_t steps)
{
	uint64_t cycles = 0;

	for (uint32_t s = 0; s < steps; s++) {
		cycles += c->base;
		for (uint32_t i = 0; i < slots; i++)
			cycles += c->slot + c->block * ((positions[i] + s + 15) / 16) +
				  c->tile * ((positions[i] + s + 255) / 256);
	}
	return cycles;
}

struct mr_slot {
	uint32_t index;
	uint32_t generation;
};

struct mr_slot_config {
	uint32_t owner;     /* the sequence's id; KV descriptors must name it */
	uint32_t positions; /* positions to reserve room for: prompt and answer together */
	struct mr_sampling sampling;
	uint32_t flags;         /* MR_SLOT_* */
	uint32_t history_count; /* 0 to MR_LPU_HISTORY_MAX */
	const uint32_t
		*history; /* ids of the answer so far, oldest first, as if DECODE had been fed
				  * them: for penalties. Read before the call returns; NULL = none */
};
#define MR_SLOT_KV_EVENTS 1u /* its prefill tells of each layer's KV by MR_EVENT_KV */

struct mr_decode_entry {
	struct mr_slot slot;
	uint32_t position;      /* of @token: the number of positions whose KV is there */
	uint32_t token;         /* fed at step 0 */
	const uint32_t *forced; /* fed at step 1, 2, ... instead of the sampled ids; NULL = none */
	uint32_t forced_count;  /* 0, or steps - 1; read before the call returns */
	uint32_t flags;         /* MR_DECODE_* */
};
#define MR_DECODE_LOGITS 1u /* bring each step's logits with its token event */

enum mr_event_type {
	MR_EVENT_TOKEN, /* one token of one entry */
	MR_EVENT_DONE,  /* the posted work named by tag has ended, well or not */
	MR_EVENT_KV, /* KV of `layer` is written for positions below `position`: may be exported */
};

struct mr_event {
	enum mr_event_type type;
	int32_t status; /* 0, or why it failed; for DONE of the whole work */
	uint64_t tag;   /* of the work that made it */
	struct mr_slot slot;
	uint32_t position; /* TOKEN: of the new token; KV: see there */
	uint32_t layer;    /* KV */
	uint32_t token;    /* TOKEN */
	uint32_t stopped; /* TOKEN: 1 = a stop token of the slot; no further step was made for it */
	float logprob;    /* TOKEN: ln p(token) before penalties and temperature */
	uint64_t cycles;  /* TOKEN: of this step; DONE: of the whole work; 0 = unknown */
	uint64_t predicted;  /* TOKEN of a DECODE: what caps.cycles say of it before it runs */
	uint64_t seen_ns;    /* TOKEN: CLOCK_MONOTONIC when the driver saw the device's record */
	const float *logits; /* TOKEN: vocab floats until the next poll; NULL = not asked for */
};

struct mr_telemetry {
	uint64_t commands, completions, records, errors, steps, cycles;
	uint64_t kv_blocks_used, kv_blocks;
};

struct mr_admin_ops {
	/* Ends all work with MR_E_DEVICE, frees every slot, makes the device ready again. */
	int (*reset)(struct mr_device *dev);
	int (*telemetry)(struct mr_device *dev, struct mr_telemetry *out);
	/* Frees the device; no work may be under way. */
	void (*close)(struct mr_device *dev);
};

struct mr_memory_ops {
	/*
	 * Takes a slot. MR_E_FULL: no slot free; MR_E_KV_EXHAUSTED: no room for @config->positions now;
	 * MR_E_CONTEXT_FULL: never any room.
	 */
	int (*slot_open)(struct mr_device *dev, const struct mr_slot_config *config,
			 struct mr_slot *slot);
	/* Gives it back; work already posted on it ends first. MR_E_STALE for one that is not open. */
	int (*slot_close)(struct mr_device *dev, struct mr_slot slot);
	/*
	 * Describes KV that prefill wrote: descriptors of @layer for blocks from @block on, at most @max,
	 * with CRC. @owner, @generation: what the receiving slot expects. Returns how many.
	 * The memory stays valid and unchanged until slot_close.
	 */
	int (*kv_export)(struct mr_device *dev, struct mr_slot slot, uint32_t layer, uint32_t block,
			 uint32_t owner, uint32_t generation, struct mr_kv_desc *out, uint32_t max);
	/*
	 * Takes KV over, by DMA. Descriptors are read before the call returns; the blocks they name must
	 * stay until the DONE event. At most MR_KV_DESCS_MAX. A stale, short or corrupt one fails all.
	 */
	int (*kv_import)(struct mr_device *dev, struct mr_slot slot, const struct mr_kv_desc *descs,
			 uint32_t count, uint64_t tag);
	/*
	 * Takes a second slot over the first @positions positions of @from, as they will be when all
	 * work posted so far has run. Whole blocks are shared by reference; a block in which
	 * @positions ends is copied, so that neither slot writes what the other reads. Room is needed
	 * only beyond the shared blocks. @from may be closed, or go on, at once. Statuses as
	 * slot_open, and MR_E_STALE (@from), MR_E_TRUNCATED (@from has fewer positions).
	 */
	int (*kv_fork)(struct mr_device *dev, struct mr_slot from, uint32_t positions,
		       const struct mr_slot_config *config, struct mr_slot *slot);
};

struct mr_work_ops {
	/* Brings @model's weights to the device. Blocks; @progress (may be NULL) gets 0 to 100. */
	int (*load)(struct mr_device *dev, const struct mr_model *model,
		    void (*progress)(void *arg, unsigned percent), void *arg);
	/*
	 * Writes KV for @count tokens at positions @position and on. @tokens must stay until the DONE
	 * event. count is 1 to caps.chunk_max.
	 */
	int (*prefill)(struct mr_device *dev, struct mr_slot slot, const uint32_t *tokens,
		       uint32_t count, uint32_t position, uint64_t tag);
	/* @steps steps for each of @count entries; a slot may appear once. Entries are read at once. */
	int (*decode)(struct mr_device *dev, const struct mr_decode_entry *entries, uint32_t count,
		      uint32_t steps, uint64_t tag);
	/*
	 * Log-probabilities of given tokens: feeds @tokens[0] to [count - 2] at @position and on, and
	 * makes a TOKEN event for each of @tokens[1] to [count - 1] with ln p(it) after all before
	 * it, sampling left aside. KV of what was fed is in the slot afterwards, so a caller that
	 * wants its sequence unchanged scores on a fork. count is 2 to caps.chunk_max.
	 */
	int (*score)(struct mr_device *dev, struct mr_slot slot, const uint32_t *tokens,
		     uint32_t count, uint32_t position, uint64_t tag);
	/* Takes at most @max events in order; returns how many, or a negative status for a lost device. */
	int (*poll)(struct mr_device *dev, struct mr_event *events, uint32_t max);
	/*
	 * Before the loop sleeps: asks for @wait_fd to become readable at the next event. Returns 0 when
	 * armed, 1 when events are there already (then do not sleep). Disarmed by poll.
	 */
	int (*arm)(struct mr_device *dev);
};

struct mr_device {
	const struct mr_admin_ops *admin;
	const struct mr_memory_ops *mem;
	const struct mr_work_ops *work;
	struct mr_caps caps;
	int wait_fd; /* an eventfd for arm, or -1 where the device is always polled */
};

/* What empty slots of the tables hold: each returns MR_E_NOT_SUPPORTED. (driver/device.c) */
int mr_unsupported_reset(struct mr_device *dev);
int mr_unsupported_telemetry(struct mr_device *dev, struct mr_telemetry *out);
int mr_unsupported_kv_export(struct mr_device *dev, struct mr_slot slot, uint32_t layer,
			     uint32_t block, uint32_t owner, uint32_t generation,
			     struct mr_kv_desc *out, uint32_t max);
int mr_unsupported_kv_import(struct mr_device *dev, struct mr_slot slot,
			     const struct mr_kv_desc *descs, uint32_t count, uint64_t tag);
int mr_unsupported_kv_fork(struct mr_device *dev, struct mr_slot from, uint32_t positions,
			   const struct mr_slot_config *config, struct mr_slot *slot);
int mr_unsupported_prefill(struct mr_device *dev, struct mr_slot slot, const uint32_t *tokens,
			   uint32_t count, uint32_t position, uint64_t tag);
int mr_unsupported_decode(struct mr_device *dev, const struct mr_decode_entry *entries,
			  uint32_t count, uint32_t steps, uint64_t tag);
int mr_unsupported_score(struct mr_device *dev, struct mr_slot slot, const uint32_t *tokens,
			 uint32_t count, uint32_t position, uint64_t tag);
int mr_unsupported_arm(struct mr_device *dev);

#endif /* MR_DRIVER_DEVICE_H */
