/* SPDX-License-Identifier: Apache-2.0 */
/* SCORE: one pass a call, as DECODE does one step, so that other queues are served in between. */
#ifndef MR_FIRMWARE_SIM_SCORE_H
#define MR_FIRMWARE_SIM_SCORE_H

#include <stdint.h>

#include <millrace/lpu_spec.h>

struct sim;
struct sim_queue;
struct sim_slot;

struct sim_score {
	uint32_t active;
	uint32_t request;
	struct sim_slot *slot;
	uint32_t index;    /* of the slot */
	uint32_t position; /* of tokens[0] */
	uint32_t count;    /* tokens */
	uint32_t done;     /* tokens fed, and so records made */
	uint32_t stalled;  /* the wait for credit is counted */
	uint64_t cycles;   /* since the epoch's start */
	uint32_t *tokens;  /* [SIM_SCORE_MAX], from QUEUE_CREATE on */
};

int mr_sim_score_create(struct sim_score *s);
/* Forgets what runs, releases its slot, frees what create made. */
void mr_sim_score_stop(struct sim_score *s);

/* Checks a SCORE whole, then SIM_RUNNING, or why it is refused. */
int mr_sim_score_begin(struct sim *sim, struct sim_queue *q, const struct mr_lpu_cmd_score *cmd);
/* Ends the SCORE under way: MR_E_CANCELLED; *result = records made. */
int mr_sim_score_abort(struct sim_score *s, uint32_t *result);
/* 1 = there is record credit for the next pass. */
int mr_sim_score_ready(struct sim *sim, struct sim_queue *q);
/* One pass. SIM_RUNNING, 0 at the end, or why it ended early; *result = records made. */
int mr_sim_score_pass(struct sim *sim, struct sim_queue *q, uint32_t *result);

#endif /* MR_FIRMWARE_SIM_SCORE_H */
