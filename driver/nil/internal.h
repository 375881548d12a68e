/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The nil device's parts: nil.c opens, resets and closes it; slots.c has slots, KV blocks, forks and
 * exports; work.c checks work and makes its events; time.c says when events are due and hands them out.
 */
#ifndef MR_DRIVER_NIL_INTERNAL_H
#define MR_DRIVER_NIL_INTERNAL_H

#include "driver/mem/blocks.h"
#include "driver/nil/nil.h"

#define NIL_STEPS_MAX   16u
#define NIL_BATCH_MAX   256u
#define NIL_CHUNK_MAX   4096u
#define NIL_SLOTS_MAX   65536u
#define NIL_CONTEXT_MAX (1u << 20)
#define NIL_LAYERS_MAX  1024u
/* A power of two; more than a whole DECODE, SCORE or prefill with KV events makes. */
#define NIL_EVENTS 8192u

#define NIL_NONE UINT32_MAX

struct nil_slot {
	uint32_t generation; /* odd while open, so that 0 never names an open slot */
	uint32_t filled;     /* positions that have KV once all posted work has run */
	uint32_t written;    /* positions of which a polled event said that they have KV */
	uint32_t ahead;      /* layers that have KV up to ahead_position */
	uint32_t ahead_position;
	uint32_t base;     /* positions from a fork: written as of base_due */
	uint32_t marked;   /* number of the decode that named it last */
	uint32_t next;     /* in the list of closing slots */
	uint64_t base_due; /* ns */
	uint64_t ready;    /* ns: when its last posted work ends */
	uint32_t *blocks;  /* its numbers in the pool */
	uint32_t block_count;
	uint32_t positions;
	uint32_t owner;
	uint32_t flags;
	struct mr_sampling sampling;
};

struct nil_record {
	struct mr_event event;
	uint64_t due;
	uint32_t reach; /* DONE: positions that its slot has KV for then */
};

/* An engine that does one work at a time, in order, and the events of its work in the order of due times. */
struct nil_engine {
	struct nil_record *records; /* NIL_EVENTS */
	uint32_t head, tail;        /* free-running: next to take, next to fill */
	uint64_t busy;              /* ns: when it is free again */
};

struct nil {
	struct mr_device dev; /* first: a struct mr_device * is a struct nil * */
	struct mr_nil_costs costs;
	uint64_t (*now_ns)(void *arg);
	void *arg;
	uint32_t timed; /* 0 = work takes no time, and nobody asks for it */
	uint32_t import_parallel;
	uint32_t jitter; /* 2^-16ths */
	uint64_t seed;
	uint32_t layers; /* 0 = not known */

	struct nil_slot *slots;
	uint32_t *slot_blocks; /* all slots' lists */
	uint32_t *free_slots;  /* a stack */
	uint32_t free_count;
	uint32_t closing; /* slots that were closed before their work ended: a list */
	struct mr_blocks pool;

	struct nil_engine compute, dma;
	uint32_t decodes; /* number of the last one, for nil_slot.marked */
	float *logits;    /* vocab zeros */
	struct mr_telemetry telemetry;
};

static inline struct nil *nil_of(struct mr_device *dev)
{
	return (struct nil *)dev;
}

static inline struct nil_slot *nil_slot_of(struct nil *nil, struct mr_slot slot)
{
	if (slot.index >= nil->dev.caps.slots || !(slot.generation & 1) ||
	    nil->slots[slot.index].generation != slot.generation)
		return NULL;
	return &nil->slots[slot.index];
}

/* slots.c */
int nil_slot_open(struct mr_device *dev, const struct mr_slot_config *config, struct mr_slot *slot);
int nil_slot_close(struct mr_device *dev, struct mr_slot slot);
int nil_kv_fork(struct mr_device *dev, struct mr_slot from, uint32_t positions,
		const struct mr_slot_config *config, struct mr_slot *slot);
int nil_kv_export(struct mr_device *dev, struct mr_slot slot, uint32_t layer, uint32_t block,
		  uint32_t owner, uint32_t generation, struct mr_kv_desc *out, uint32_t max);
/* Whether the slot may be written from @position on: 0, MR_E_INVALID (a gap), MR_E_BUSY (shared). */
int nil_slot_writable(const struct nil *nil, const struct nil_slot *s, uint32_t position);
/* Posted work writes positions @from to @to - 1; what lay beyond is gone. */
void nil_slot_write(struct nil_slot *s, uint32_t from, uint32_t to);
void nil_slots_sweep(struct nil *nil, uint64_t now); /* frees closed slots whose work has ended */
void nil_slots_close_all(struct nil *nil);

/* work.c */
int nil_kv_import(struct mr_device *dev, struct mr_slot slot, const struct mr_kv_desc *descs,
		  uint32_t count, uint64_t tag);
int nil_prefill(struct mr_device *dev, struct mr_slot slot, const uint32_t *tokens, uint32_t count,
		uint32_t position, uint64_t tag);
int nil_decode(struct mr_device *dev, const struct mr_decode_entry *entries, uint32_t count,
	       uint32_t steps, uint64_t tag);
int nil_score(struct mr_device *dev, struct mr_slot slot, const uint32_t *tokens, uint32_t count,
	      uint32_t position, uint64_t tag);

/* time.c */
uint64_t nil_monotonic(void *arg);
uint64_t nil_now(const struct nil *nil);               /* 0 where work takes no time */
uint64_t nil_jittered(struct nil *nil, uint64_t cost); /* ns */
uint32_t nil_room(const struct nil_engine *engine);
struct nil_record *nil_event(struct nil_engine *engine, enum mr_event_type type,
			     struct mr_slot slot, uint64_t tag, uint64_t due);
void nil_engine_reset(struct nil_engine *engine, uint64_t now);
int nil_poll(struct mr_device *dev, struct mr_event *events, uint32_t max);
int nil_arm(struct mr_device *dev);

#endif /* MR_DRIVER_NIL_INTERNAL_H */
