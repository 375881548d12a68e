/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Slots and their KV in SRAM. A block of 16 positions has one id on all chips; on the chip that owns a
 * layer it holds that chip's layers one after the other. For each slot, layer and block the device knows how
 * many positions hold KV, so that a hole is refused and never attended to.
 *
 * A fork holds the same blocks as its source, counted in refs. Slots that hold a block hold the same blocks
 * before it, so along a slot refs never rise: where a position's block is not shared, none after it is.
 */
#ifndef MR_FIRMWARE_SIM_KV_H
#define MR_FIRMWARE_SIM_KV_H

#include <stdint.h>

#include <millrace/lpu_spec.h>

struct sim;
struct sim_queue;

struct sim_slot {
	uint32_t open, generation, owner, positions;
	uint32_t kv_end; /* no block holds KV at or above this position */
	uint32_t blocks; /* reserved */
	uint32_t user;   /* queue index + 1 whose DECODE or SCORE is under way, 0 = none */
	struct mr_sampling sampling;
	uint32_t history[MR_LPU_HISTORY_MAX]; /* ids fed last, oldest first */
	uint32_t history_count;
	/* allocated at ACTIVATE for the program's context */
	uint32_t *block;  /* [blocks_max] ids */
	uint8_t **kv;     /* [chips][blocks_max]: the block's memory on each chip */
	uint8_t *length;  /* [layers][blocks_max]: positions that hold KV */
	uint32_t *filled; /* [layers]: positions from 0 on without a hole */
};

struct sim_kv {
	struct sim_slot *slot; /* [slots], NULL = no program */
	uint32_t slots, open;
	uint32_t chips, layers, blocks_max;
	uint32_t *free_ids;                  /* stack */
	uint32_t *refs;                      /* [blocks]: slots that hold the block */
	uint32_t free_count, shared, blocks; /* shared: held by more than one slot */
	uint64_t layer_bytes;
	uint8_t *piece; /* layer_bytes: a block on its way to the host */
};

/* For the active-to-be program: 0 or MR_E_NO_MEMORY, and then mr_sim_kv_destroy. */
int mr_sim_kv_create(struct sim *sim);
void mr_sim_kv_destroy(struct sim_kv *kv);
/* Closes every slot. */
void mr_sim_kv_forget(struct sim_kv *kv);

/* The open slot, or NULL with *status MR_E_NOT_ACTIVE, MR_E_RANGE or MR_E_STALE. */
struct sim_slot *mr_sim_slot_get(struct sim *sim, uint32_t slot, uint32_t generation, int *status);
/* 1 = some layer lacks KV for a position below @position. */
int mr_sim_slot_missing(const struct sim_kv *kv, const struct sim_slot *slot, uint32_t position);
/* Every layer now holds KV for exactly the positions below @positions. */
void mr_sim_slot_set_filled(const struct sim_kv *kv, struct sim_slot *slot, uint32_t positions);
void mr_sim_slot_fed(struct sim_slot *slot, uint32_t token);
/*
 * May queue @q feed tokens at @position to @position + @count - 1? 0, MR_E_INVALID (it does already),
 * MR_E_BUSY, MR_E_CONTEXT_FULL or MR_E_TRUNCATED.
 */
int mr_sim_slot_writable(const struct sim_kv *kv, const struct sim_slot *slot,
			 const struct sim_queue *q, uint32_t position, uint32_t count);

int mr_sim_slot_set(struct sim *sim, const struct mr_lpu_cmd_slot_set *cmd);
int mr_sim_kv_write(struct sim *sim, struct sim_queue *q, const struct mr_lpu_cmd_kv_write *cmd,
		    uint32_t *result);
int mr_sim_kv_read(struct sim *sim, const struct mr_lpu_cmd_kv_read *cmd, uint32_t *result);
int mr_sim_kv_fork(struct sim *sim, const struct mr_lpu_cmd_kv_fork *cmd);
int mr_sim_kv_free(struct sim *sim, const struct mr_lpu_cmd_kv_free *cmd);

#endif /* MR_FIRMWARE_SIM_KV_H */
