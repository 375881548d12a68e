/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Faults of the device as such: what a broken link, a broken firmware or broken SRAM does to a host. sim.h states
 * the language. A fault waits until its point is reached, then for the first chance that its kind has there, does
 * its harm once, and is counted. The device's thread does all this; other threads hand faults over under a lock.
 */
#ifndef MR_FIRMWARE_SIM_INJECT_H
#define MR_FIRMWARE_SIM_INJECT_H

#include <pthread.h>
#include <stdint.h>

#include <millrace/lpu_spec.h>

#include "firmware-sim/sim.h"

struct sim;
struct sim_queue;

#define SIM_FAULTS_MAX 256u

enum sim_fault_unit { SIM_AT_COMMAND, SIM_AT_COMPLETION, SIM_AT_STEP };

struct sim_fault {
	enum mr_sim_fault_kind kind;
	enum sim_fault_unit unit;
	uint64_t at; /* which of the units, from power-on; 0 = now */
	uint64_t us;
};

/* The link, seen by host threads. */
enum sim_link { SIM_LINK_UP, SIM_LINK_DOWN, SIM_REMOVED };

struct sim_inject {
	pthread_mutex_t lock;
	/* under the lock */
	struct sim_fault waiting[SIM_FAULTS_MAX];
	uint32_t count;
	/* any thread, atomic */
	uint32_t fresh; /* 1 = something is in waiting, or "off" was said */
	uint32_t off;   /* 1 = what is armed is to be forgotten */
	uint32_t link;  /* enum sim_link */
	uint64_t injected[MR_SIM_FAULT_KINDS];
	/* the device thread's */
	uint32_t armed[MR_SIM_FAULT_KINDS];
	uint64_t us[MR_SIM_FAULT_KINDS]; /* of the one that was armed last */
	uint64_t units[3];               /* commands, completions, steps of I/O queues */
	uint64_t seed;                   /* of a xorshift generator */
	uint64_t every;                  /* a random fault in so many commands; 0 = none; atomic */
	uint32_t kinds;                  /* of those: bit n = kind n */
	uint32_t hung;
	uint32_t stuck;        /* queue whose doorbells are not heard, 0 = none */
	uint32_t held;         /* queue that does nothing, 0 = none, */
	uint64_t held_until;   /* until then, by mr_sim_time_us */
	uint32_t begun;        /* the step that it was about to make is counted */
	uint32_t late, behind; /* entry waits for held_until; for queue @behind's next completion */
	struct mr_lpu_completion entry; /* its request, status and result */
};

/* What a list in sim.h's language says, but for its sram faults. */
struct sim_faults {
	struct sim_fault fault[SIM_FAULTS_MAX];
	uint32_t count;
	uint64_t every; /* random=..., 0 = nothing said */
	uint32_t kinds;
	int plug, off;
};

/* 0, MR_E_INVALID, MR_E_FULL (too many), MR_E_NOT_FOUND or MR_E_TOO_LARGE (a script). */
int mr_sim_faults_parse(const char *list, struct sim_faults *out);

int mr_sim_inject_start(struct sim *sim, uint64_t seed);
void mr_sim_inject_stop(struct sim *sim);
/* Any thread. MR_E_FULL where too many wait. */
int mr_sim_inject_add(struct sim *sim, const struct sim_faults *faults);

/* What a turn begins with: 1 = something was done; -1 = the device is gone or hung, and does nothing. */
int mr_sim_inject_turn(struct sim *sim);
/* 1 = a turn would find something to do. */
int mr_sim_inject_ready(struct sim *sim);
/* Microseconds until a held queue goes on, 0 = none is. */
uint64_t mr_sim_inject_wait_us(struct sim *sim);
/* What was under way of faults ends with the queues; a function-level reset also wakes a hung firmware. */
void mr_sim_inject_reset(struct sim *sim, int function);

/* Host threads: 1 = registers read all ones, writes go nowhere. */
static inline int sim_inject_gone(const struct sim_inject *f)
{
	return __atomic_load_n(&f->link, __ATOMIC_RELAXED) != SIM_LINK_UP;
}

/* The points. Each returns 0 where nothing happens. */
/* A new SQ_TAIL of @q was seen: 1 = it is not heard, nor any later one. */
int mr_sim_inject_doorbell(struct sim *sim, const struct sim_queue *q, uint32_t tail);
/* @cmd of @q was fetched: 1 = it is not run, a negative status = its end. */
int mr_sim_inject_command(struct sim *sim, struct sim_queue *q, const struct mr_lpu_command *cmd);
/* A step or pass of @q is due: 1 = not now. */
int mr_sim_inject_step(struct sim *sim, struct sim_queue *q);
/* A record of @q, before it is written. */
void mr_sim_inject_record(struct sim *sim, struct sim_queue *q, struct mr_lpu_record *record);
/* @q's vector is due: 1 = it is lost. */
int mr_sim_inject_vector(struct sim *sim, const struct sim_queue *q);

/* What becomes of a completion. */
enum sim_completion_fate { SIM_WRITE, SIM_WRITE_TWICE, SIM_SKIP, SIM_KEEP };
/* @entry of @q is due; it may be changed. SIM_SKIP: its place stays empty. SIM_KEEP: it is written later. */
enum sim_completion_fate mr_sim_inject_completion(struct sim *sim, struct sim_queue *q,
						  struct mr_lpu_completion *entry);

#endif /* MR_FIRMWARE_SIM_INJECT_H */
