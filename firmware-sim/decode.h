/* SPDX-License-Identifier: Apache-2.0 */
/* DECODE: one step a call, so that other queues are served between steps and credit can be waited for. */
#ifndef MR_FIRMWARE_SIM_DECODE_H
#define MR_FIRMWARE_SIM_DECODE_H

#include <stdint.h>

#include <millrace/lpu_spec.h>

#include "firmware-sim/pass.h"

struct sim;
struct sim_queue;
struct sim_slot;

struct sim_decode_row {
	struct sim_slot *slot;
	uint32_t index;
	uint32_t position; /* of the token to be fed */
	uint32_t token;
	uint32_t stopped;
	uint32_t forced;                           /* 1 = forced[] of this row holds */
	uint64_t logits_iova, mask_iova, top_iova; /* of step 0 */
};

struct sim_decode {
	uint32_t active;
	uint32_t request;
	uint32_t count, steps, step;
	uint32_t stride, mask_stride, top;
	uint32_t stalled; /* the wait for credit is counted */
	uint32_t records;
	uint64_t cycles;            /* since the epoch's start */
	uint64_t begun_us;          /* wall time of it */
	struct sim_decode_row *row; /* [SIM_BATCH_MAX], with the two below from QUEUE_CREATE on */
	uint32_t *forced;           /* [SIM_BATCH_MAX][SIM_STEPS_MAX] */
	struct sim_row *pass;
};

int mr_sim_decode_create(struct sim_decode *d);
/* Forgets what runs, releases the slots it uses, frees what create made. */
void mr_sim_decode_stop(struct sim_decode *d);

/* Checks a DECODE whole, then SIM_RUNNING, or why it is refused. */
int mr_sim_decode_begin(struct sim *sim, struct sim_queue *q, const struct mr_lpu_cmd_decode *cmd);
/* Where records are paced: microseconds until those of the next step are due, 0 = they are. */
uint64_t mr_sim_decode_wait(struct sim *sim, struct sim_queue *q, uint64_t now_us);
/* 1 = there is record credit for the next step. */
int mr_sim_decode_ready(struct sim *sim, struct sim_queue *q);
/* Ends the DECODE under way: MR_E_CANCELLED; *result = records made. */
int mr_sim_decode_abort(struct sim_decode *d, uint32_t *result);
/* One step. SIM_RUNNING, 0 at the end, or why it ended early; *result = records made. */
int mr_sim_decode_step(struct sim *sim, struct sim_queue *q, uint32_t *result);

#endif /* MR_FIRMWARE_SIM_DECODE_H */
