/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ASYNC_EVENT: commands that wait for something to tell, and what waits for a command. An event of a type
 * is kept once: the latest info stands. After it was told, its type is silent until its log has been read.
 */
#ifndef MR_FIRMWARE_SIM_EVENTS_H
#define MR_FIRMWARE_SIM_EVENTS_H

#include <stdint.h>

#include <millrace/lpu_spec.h>

#define SIM_ASYNC_MAX 4u

struct sim;

struct sim_events {
	uint32_t request[SIM_ASYNC_MAX]; /* of the commands that wait, oldest first */
	uint32_t count;
	uint32_t waiting; /* bit n: an event of type n is to be told */
	uint32_t silent;  /* bit n: one was told and its log was not read since */
	uint16_t info[8]; /* by type */
};

int mr_sim_async_event(struct sim *sim, const struct mr_lpu_cmd_async_event *cmd);
/* Something happened: told now or later, where the feature EVENTS has its bit. */
void mr_sim_event(struct sim *sim, uint32_t type, uint32_t info);
/* 1 = mr_sim_events_run would complete a command. */
int mr_sim_events_ready(const struct sim *sim);
void mr_sim_events_run(struct sim *sim);
/* The host has read @log. */
void mr_sim_events_heard(struct sim *sim, uint32_t log);
/* Ends the command that waits with request @target, with MR_E_CANCELLED: 1, or 0 where there is none. */
int mr_sim_events_abort(struct sim *sim, uint32_t target);

#endif /* MR_FIRMWARE_SIM_EVENTS_H */
