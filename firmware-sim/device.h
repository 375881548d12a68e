/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The simulator's inside: one struct sim, its parts by subject, one file each. Unless it says otherwise, a
 * field belongs to the device's thread, and functions are called on it.
 */
#ifndef MR_FIRMWARE_SIM_DEVICE_H
#define MR_FIRMWARE_SIM_DEVICE_H

#include <pthread.h>
#include <stdint.h>

#include <millrace/lpu_port.h>
#include <millrace/lpu_spec.h>

#include "firmware-sim/decode.h"
#include "firmware-sim/dma.h"
#include "firmware-sim/kv.h"
#include "firmware-sim/log.h"
#include "firmware-sim/mail.h"
#include "firmware-sim/program.h"
#include "firmware-sim/regs.h"
#include "firmware-sim/score.h"
#include "firmware-sim/sram.h"
#include "userlib/spec/chip.h"

#define SIM_IO_QUEUES   4u
#define SIM_RING_MAX    16384u
#define SIM_BATCH_MAX   256u
#define SIM_STEPS_MAX   256u
#define SIM_SCORE_MAX   4096u
#define SIM_CONTEXT_MAX 131072u
#define SIM_VECTORS     (SIM_IO_QUEUES + 1)
#define SIM_BAR2_BYTES  32768u /* a power of two that holds all doorbell pages */

/* A command that goes on: no completion yet. Never leaves the simulator. */
#define SIM_RUNNING 1

struct sim_queue {
	uint32_t index; /* 0 = admin */
	uint32_t live;
	uint32_t entries;
	uint32_t record_entries; /* 0 for admin */
	uint32_t vector;
	uint16_t opcode; /* of the latest command */
	uint64_t sq_iova, cq_iova, record_iova;
	/* free-running; the host's are its last doorbells that made sense */
	uint32_t sq_head, sq_tail;
	uint32_t cq_head, cq_tail;
	uint32_t record_head, record_tail;
	uint32_t bad_seen[3];     /* last senseless doorbell values, so that each counts once */
	struct sim_decode decode; /* one of the two is active, or none */
	struct sim_score score;
};

struct sim {
	struct mr_chip chip;
	char *chip_text;
	uint32_t chip_bytes;
	uint32_t chips;
	uint32_t slots_max;
	const struct mr_kernels *kernels;
	uint32_t spin_us;

	struct sim_regs regs;
	struct sim_dma dma;
	struct sim_sram sram;
	struct sim_program program;
	struct sim_kv kv;
	struct sim_queue queue[SIM_IO_QUEUES + 1];
	struct mr_lpu_counters counters;
	struct sim_log log;
	int vector_fd[SIM_VECTORS]; /* any thread, under dma.lock */
	struct sim_mail mail;
	uint32_t fatal;

	pthread_t thread;
	uint32_t parked; /* futex; see thread.c */
	uint32_t stop;   /* any thread */
};

/* thread.c: the device's loop, and how the host's threads wake it. */
int mr_sim_thread_start(struct sim *sim, int cpu);
void mr_sim_thread_stop(struct sim *sim);
void mr_sim_wake(struct sim *sim); /* any thread; after whatever the device is to see */

/* queue.c: takes commands, writes completions and records. */
int mr_sim_queue_ready(struct sim *sim,
		       struct sim_queue *q); /* 1 = mr_sim_queue_run would do something */
int mr_sim_queue_run(struct sim *sim, struct sim_queue *q); /* at most one command or decode step */
void mr_sim_queue_stop(struct sim *sim, struct sim_queue *q); /* forgets it; no DMA follows */
int mr_sim_queue_record(struct sim *sim, struct sim_queue *q, struct mr_lpu_record *record);
uint32_t mr_sim_queue_credit(struct sim *sim,
			     struct sim_queue *q); /* records that there is room for */

/*
 * Commands: a negative mr_status, 0, or SIM_RUNNING. *result goes to the completion. Reserved fields of
 * the opcode are checked by its own function.
 */
int mr_sim_admin_command(struct sim *sim, const struct mr_lpu_command *cmd, uint32_t *result);
int mr_sim_io_command(struct sim *sim, struct sim_queue *q, const struct mr_lpu_command *cmd,
		      uint32_t *result);

/* Counts and returns @status: each way of being refused has a counter of its own. */
int mr_sim_refuse(struct sim *sim, int status);

/* 1 = all @bytes at @p are 0. */
int mr_sim_zero(const void *p, size_t bytes);

/* CONTROL.ENABLE went from 1 to 0: queues, slots and running commands are forgotten, the program stays. */
void mr_sim_disable(struct sim *sim);

#endif /* MR_FIRMWARE_SIM_DEVICE_H */
