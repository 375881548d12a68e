/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An LPU behind the in-process port that answers in the doorbell's call: admin commands as a device would,
 * DECODE, SCORE and KV_READ with whatever the test says, anything else with success.
 */
#ifndef MR_TESTS_SUPPORT_LPU_LIAR_H
#define MR_TESTS_SUPPORT_LPU_LIAR_H

#include <millrace/lpu_port.h>
#include <millrace/lpu_spec.h>

#include "driver/device.h"
#include "driver/mem/arena.h"

struct liar {
	struct {
		uint64_t iova;
		uint8_t *base;
		size_t bytes;
	} map[32];
	uint32_t ready;
	struct mr_lpu_identify id;
	struct mr_lpu_cmd_queue_create io;
	uint64_t admin_sq, admin_cq;
	uint32_t head[2], done[2], record;
	uint32_t resets; /* function-level */
	uint32_t loads;  /* PROGRAM commands */
	uint32_t
		stuck; /* 1 = CONTROL does nothing, until a function-level reset; 2 = nor does that */
	uint32_t magic, version; /* registers; 0 = sound */
	uint32_t fatal;          /* STATUS says so while READY */
	uint8_t hash;            /* what the chip file's hash is off by */
	uint32_t gone;           /* 1 = every register reads as all ones */
	uint32_t beat, beats;    /* HEARTBEAT, and what each read adds to it */
	void (*abort)(struct liar *l, const struct mr_lpu_cmd_abort *c);
	/* answers ASYNC_EVENT and GET_LOG of a log beside CHIP, or NULL */
	void (*event)(struct liar *l, const struct mr_lpu_command *c);
	uint64_t (*now_ns)(void *arg); /* the driver's clock, or NULL */
	uint64_t clock;                /* for now_ns, which gets the liar */
	void (*decode)(struct liar *l, const struct mr_lpu_cmd_decode *c);
	void (*score)(struct liar *l, const struct mr_lpu_cmd_score *c);
	void (*read)(struct liar *l, const struct mr_lpu_cmd_kv_read *c);
};

/* What mr_lpu_open says to it. Its identity is the test's where it has a magic, else a sound one. */
int liar_open(struct liar *l, struct mr_arena *arena, struct mr_device **dev);
void *liar_at(struct liar *l, uint64_t iova);
/* A completion on queue @q. */
void liar_say(struct liar *l, uint32_t q, uint32_t request, uint16_t status, uint32_t result);
/* The record that an honest device would write for step @step of the first entry, to be spoilt. */
struct mr_lpu_record *liar_put(struct liar *l, const struct mr_lpu_cmd_decode *c, uint32_t step);
/* The same for the token after tokens[@i] of a SCORE. */
struct mr_lpu_record *liar_put_score(struct liar *l, const struct mr_lpu_cmd_score *c, uint32_t i);

#endif /* MR_TESTS_SUPPORT_LPU_LIAR_H */
