/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a host thread asks of the device's thread and waits for: a changed byte of SRAM, damage to the loaded
 * program. One at a time; not on the data path.
 */
#ifndef MR_FIRMWARE_SIM_MAIL_H
#define MR_FIRMWARE_SIM_MAIL_H

#include <pthread.h>
#include <stdint.h>

struct sim;

enum sim_mail_kind {
	SIM_MAIL_NONE,
	SIM_MAIL_POKE,
	SIM_MAIL_DAMAGE,
};

struct sim_mail {
	pthread_mutex_t lock; /* one sender at a time */
	/* seq_cst: the kind from the sender, SIM_MAIL_NONE from the device once the rest is its answer */
	uint32_t kind;
	int32_t status;
	uint32_t chip;
	uint64_t address;
	uint8_t byte; /* to be written; then the one that was there */
	const char *fault;
};

/* Any thread but the device's. The device's status, or MR_E_TIMEOUT where it is busy for 10 seconds. */
int mr_sim_mail_poke(struct sim *sim, uint32_t chip, uint64_t address, uint8_t *byte);
int mr_sim_mail_damage(struct sim *sim, const char *fault);

/* The device's thread: answers what is there. Returns 1 where something was. */
int mr_sim_mail_poll(struct sim *sim);

#endif /* MR_FIRMWARE_SIM_MAIL_H */
