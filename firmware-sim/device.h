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
#include "firmware-sim/events.h"
#include "firmware-sim/features.h"
#include "firmware-sim/firmware.h"
#include "firmware-sim/inject.h"
#include "firmware-sim/kv.h"
#include "firmware-sim/log.h"
#include "firmware-sim/mail.h"
#include "firmware-sim/pass.h"
#include "firmware-sim/program.h"
#include "firmware-sim/regs.h"
#include "firmware-sim/score.h"
#include "firmware-sim/sense.h"
#include "firmware-sim/shadow.h"
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
	uint16_t opcode; /* of the latest command, and its id */
	uint32_t request;
	uint64_t sq_iova, cq_iova, record_iova;
	/* free-running; the host's are its last doorbells that made sense */
	uint32_t sq_head, sq_tail;
	uint32_t cq_head, cq_tail;
	uint32_t record_head, record_tail;
	uint32_t bad_seen[3];     /* last senseless doorbell values, so that each counts once */
	uint8_t *aborted;         /* [entries], I/O: the command there ends unstarted */
	uint32_t abort;           /* the DECODE or SCORE under way ends */
	uint32_t held;            /* entries since the vector could have been raised */
	uint64_t held_us;         /* when the first of them was made */
	struct sim_decode decode; /* one of the two is active, or none */
	struct sim_score score;
};

struct sim {
	struct mr_chip chip;
	struct mr_chip timing; /* the chip, perturbed where asked: what the executor runs by */
	char *chip_text;
	uint32_t chip_bytes;
	uint32_t chips;
	uint32_t slots_max;
	const struct mr_kernels *kernels;
	uint32_t spin_us;
	double paced_us; /* wall microseconds a cycle, 0 = not paced */

	struct sim_regs regs;
	struct sim_dma dma;
	struct sim_sram sram;
	struct sim_program program;
	struct sim_pass pass;
	struct sim_kv kv;
	struct sim_queue queue[SIM_IO_QUEUES + 1];
	struct mr_lpu_counters counters;
	struct sim_log log;
	struct sim_features features;
	struct sim_events events;
	struct sim_firmware firmware;
	struct sim_sense sense;
	struct sim_inject inject;
	char *damage; /* the sram faults of the options, program.fault */
	int manual;
	uint64_t (*now_us)(void *arg);
	void *clock_arg;
	int vector_fd[SIM_VECTORS]; /* any thread, by mr_sim_dma_lock or _hold */
	struct sim_mail mail;
	uint32_t fatal;          /* MR_LPU_CRASH_*, 0 = none */
	uint32_t reset_asked;    /* MR_LPU_RESET_* of a RESET that has completed */
	uint32_t function_reset; /* any thread: 1 = asked for, the device's thread clears it */

	pthread_t thread;
	uint32_t idle;   /* turns without work in a row */
	uint32_t parked; /* futex; see thread.c */
	uint32_t stop;   /* any thread */
};

/* thread.c: the device's loop, and how the host's threads wake it. */
int mr_sim_thread_start(struct sim *sim, int cpu);
void mr_sim_thread_stop(struct sim *sim);
int mr_sim_thread_turn(struct sim *sim); /* one round: 0 = there was nothing to do */
void mr_sim_wake(struct sim *sim);       /* any thread; after whatever the device is to see */

/* queue.c: takes commands, writes completions and records. */
int mr_sim_queue_ready(struct sim *sim,
		       struct sim_queue *q); /* 1 = mr_sim_queue_run would do something */
int mr_sim_queue_run(struct sim *sim, struct sim_queue *q); /* at most one command or decode step */
void mr_sim_queue_stop(struct sim *sim, struct sim_queue *q); /* forgets it; no DMA follows */
int mr_sim_queue_record(struct sim *sim, struct sim_queue *q, struct mr_lpu_record *record);
void mr_sim_queue_complete(struct sim *sim, struct sim_queue *q, uint32_t request, int status,
			   uint32_t result);
/* Writes @entry as @q's next: its request, status and result. */
void mr_sim_queue_write(struct sim *sim, struct sim_queue *q,
			const struct mr_lpu_completion *entry);
void mr_sim_queue_look(struct sim *sim, struct sim_queue *q); /* takes the host's indices */
uint32_t mr_sim_queue_room(const struct sim_queue *q); /* completions that there is room for */
/* Raises a vector that coalescing held back for long enough. Microseconds until it will be, 0 = none. */
uint64_t mr_sim_queue_timer(struct sim *sim, struct sim_queue *q, uint64_t now_us);
uint32_t mr_sim_queue_credit(struct sim *sim,
			     struct sim_queue *q); /* records that there is room for */

/*
 * Commands: a negative mr_status, 0, or SIM_RUNNING. *result goes to the completion. Reserved fields of
 * the opcode are checked by its own function.
 */
int mr_sim_admin_command(struct sim *sim, const struct mr_lpu_command *cmd, uint32_t *result);
int mr_sim_io_command(struct sim *sim, struct sim_queue *q, const struct mr_lpu_command *cmd,
		      uint32_t *result);

/* abort.c: *result = 1 where the command will end with MR_E_CANCELLED. */
int mr_sim_abort(struct sim *sim, const struct mr_lpu_cmd_abort *cmd, uint32_t *result);

uint64_t mr_sim_now_us(void);
/* The same by the options' clock. */
static inline uint64_t mr_sim_time_us(const struct sim *sim)
{
	return sim->now_us ? sim->now_us(sim->clock_arg) : mr_sim_now_us();
}

/* Counts and returns @status: each way of being refused has a counter of its own. */
int mr_sim_refuse(struct sim *sim, int status);

/* 1 = all @bytes at @p are 0. */
int mr_sim_zero(const void *p, size_t bytes);

/*
 * CONTROL.ENABLE went from 1 to 0: queues, slots, features and running commands are forgotten, the program
 * stays, the next firmware runs.
 */
void mr_sim_disable(struct sim *sim);

#endif /* MR_FIRMWARE_SIM_DEVICE_H */
