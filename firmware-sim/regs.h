/* SPDX-License-Identifier: Apache-2.0 */
/* BAR0 and BAR2 as words that host threads write and the device's thread reads, and the other way round. */
#ifndef MR_FIRMWARE_SIM_REGS_H
#define MR_FIRMWARE_SIM_REGS_H

#include <stdint.h>

#include <millrace/lpu_spec.h>

struct sim;

/* A queue's doorbell page. The host writes; arm is also cleared by the device when it raises the vector. */
struct sim_doorbells {
	uint32_t sq_tail, cq_head, record_head, arm;
} __attribute__((aligned(64)));

struct sim_regs {
	uint32_t control, status, heartbeat, refused, fatal_code;
	uint32_t admin_entries;
	uint32_t admin_sq[2], admin_cq[2]; /* low, high */
	uint8_t *bar2;                     /* MR_LPU_DOORBELL_STRIDE bytes a queue */
	int bar2_fd;                       /* sealed memfd behind it */
	uint32_t polled; /* host threads store to it without a wake-up; any thread */
};

/* BAR2's memory, made and given back: 0 or MR_E_NO_MEMORY. */
int mr_sim_regs_init(struct sim_regs *regs);
void mr_sim_regs_fini(struct sim_regs *regs);

/* @queue's page. */
static inline struct sim_doorbells *sim_doorbells_of(const struct sim_regs *regs, uint32_t queue)
{
	return (struct sim_doorbells *)(void *)(regs->bar2 +
						(size_t)queue * MR_LPU_DOORBELL_STRIDE);
}

/* Any thread. */
uint32_t mr_sim_reg_read(struct sim *sim, uint32_t offset);
void mr_sim_reg_write(struct sim *sim, uint32_t offset, uint32_t value);
void mr_sim_doorbell(struct sim *sim, uint32_t queue, uint32_t offset, uint32_t value);

/* 1 = a function-level reset is asked for, and the device is there to feel it. */
int mr_sim_reset_asked(const struct sim *sim);
/* The device's thread: acts on a change of CONTROL, and on resets. Returns 1 where there was one. */
int mr_sim_regs_poll(struct sim *sim);

#endif /* MR_FIRMWARE_SIM_REGS_H */
