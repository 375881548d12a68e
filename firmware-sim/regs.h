/* SPDX-License-Identifier: Apache-2.0 */
/* BAR0 and BAR2 as words that host threads write and the device's thread reads, and the other way round. */
#ifndef MR_FIRMWARE_SIM_REGS_H
#define MR_FIRMWARE_SIM_REGS_H

#include <stdint.h>

struct sim;

/* A queue's doorbell page. The host writes; arm is also cleared by the device when it raises the vector. */
struct sim_doorbells {
	uint32_t sq_tail, cq_head, record_head, arm;
} __attribute__((aligned(64)));

struct sim_regs {
	uint32_t control, status, heartbeat, refused, fatal_code;
	uint32_t admin_entries;
	uint32_t admin_sq[2], admin_cq[2]; /* low, high */
	struct sim_doorbells db[5];        /* SIM_IO_QUEUES + 1 */
};

/* Any thread. */
uint32_t mr_sim_reg_read(struct sim *sim, uint32_t offset);
void mr_sim_reg_write(struct sim *sim, uint32_t offset, uint32_t value);
void mr_sim_doorbell(struct sim *sim, uint32_t queue, uint32_t offset, uint32_t value);

/* The device's thread: acts on a change of CONTROL, and on resets. Returns 1 where there was one. */
int mr_sim_regs_poll(struct sim *sim);

#endif /* MR_FIRMWARE_SIM_REGS_H */
