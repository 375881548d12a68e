/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The simulated LPU: registers, queues, DMA, SRAM, programs, decode and a cycle count, on a thread of its
 * own, behind the in-process port. Made by tools/ and tests; driver/ never sees this header.
 *
 * Everything that lpu_spec.h lets a host do wrong ends in a named status and a counter.
 */
#ifndef MR_FIRMWARE_SIM_SIM_H
#define MR_FIRMWARE_SIM_SIM_H

#include <stddef.h>
#include <stdint.h>

#include <millrace/lpu_port.h>

#define MR_SIM_FAULT_US 20000u

enum mr_sim_fault_kind {
	MR_SIM_FAULT_LATE,      /* late: a completion is held back */
	MR_SIM_FAULT_LOST,      /* lost: one is never written, and its place stays empty */
	MR_SIM_FAULT_REPEATED,  /* repeated: one is written twice */
	MR_SIM_FAULT_REORDERED, /* reordered: two change places */
	MR_SIM_FAULT_CORRUPTED, /* corrupted: one has a senseless request, status or result */
	MR_SIM_FAULT_RECORD,    /* record: a token record has a token that there is not */
	MR_SIM_FAULT_GARBAGE, /* garbage: over the next record's or completion's place, for a while */
	MR_SIM_FAULT_INTERRUPT, /* interrupt: one is lost */
	MR_SIM_FAULT_DOORBELL,  /* doorbell: a queue's are no longer heard, until a reset */
	MR_SIM_FAULT_ECC,       /* ecc: a word of SRAM was wrong and is corrected */
	MR_SIM_FAULT_ECC_LOST,  /* ecc-lost: one is lost; the DECODE or SCORE that met it ends */
	MR_SIM_FAULT_DMA,       /* dma: a command's first read of host memory is refused */
	MR_SIM_FAULT_LINK,    /* link: down until a function-level reset; registers read all ones */
	MR_SIM_FAULT_ASSERT,  /* assert: the firmware gives up, with a dump */
	MR_SIM_FAULT_HANG,    /* hang: the firmware stands still until a function-level reset */
	MR_SIM_FAULT_SLOW,    /* slow: a step waits */
	MR_SIM_FAULT_REMOVAL, /* removal: taken out; no reset works until "plug" */
	MR_SIM_FAULT_KINDS,
};
const char *mr_sim_fault_name(enum mr_sim_fault_kind kind);

struct mr_sim_options {
	/* A chip file, or the name of one that is built in ("mr1", "tsp1", "lp30", "tiny"); NULL = "mr1". */
	const char *chip_path;
	uint32_t chips; /* of the group, 1 to 64; 0 = 2 */
	/*
	 * Faults, comma-separated, applied when a program is activated, or NULL:
	 *   sram-zero=TENSOR         the tensor's bytes in SRAM become 0
	 *   sram-flip=TENSOR:OFFSET  the lowest bit of that byte of the tensor is inverted
	 * TENSOR is a name of the model with or without ".weight". One that the program lacks: ACTIVATE
	 * answers E_NOT_FOUND.
	 *
	 * And faults of the device as such:
	 *   KIND[@[UNIT:]N][=MICROSECONDS]     one of enum mr_sim_fault_kind by name, once
	 *   random=EVERY[:KIND+KIND...]        one of these (of all) about every EVERY commands, by @seed
	 *   off                                forgets what waits and what is random
	 *   plug                               puts a device back that was removed
	 *   @FILE                              alone: the same from a file, one a line; # begins a comment
	 * It strikes at the first chance that its kind has from the N-th UNIT on (command, completion, step; of
	 * I/O queues, from power-on), without N from now on. MICROSECONDS (20000): how long what is late,
	 * slow or spoilt stays so.
	 */
	const char *fault;
	/*
	 * `UNIT.latency=+N`: the executor's unit (mem, mxm, vxm, c2c) takes N cycles more than the chip file
	 * says, which no schedule survives: E_SCHEDULE_VIOLATION. NULL = none.
	 */
	const char *perturb;
	/*
	 * Above 0: a step's records come no earlier than this times the time that their cycles take, from the
	 * start of their command. 0 = as soon as they are computed.
	 */
	double paced;
	uint64_t seed;       /* of random faults */
	uint32_t slots;      /* 0 = 256 */
	const char *kernels; /* path of class D; NULL = the widest */
	uint32_t spin_us;    /* how long the device looks for work before it sleeps; 0 = 30 */
	int cpu;             /* pin the device's thread to cpu - 1; 0 = not pinned */
	/* For tests: no thread; the device runs on the caller's, in mr_sim_turn, by the caller's clock. */
	int manual;
	uint64_t (*now_us)(void *arg); /* NULL = CLOCK_MONOTONIC */
	void *clock_arg;
	char *why; /* where create fails: one sentence; may be NULL */
	size_t why_bytes;
};

/*
 * Powers a device on: its thread runs until the port's close. Returns 0, MR_E_NOT_FOUND (chip file),
 * MR_E_FORMAT, MR_E_RANGE, MR_E_INVALID (chips, fault), MR_E_NOT_SUPPORTED (kernels) or MR_E_NO_MEMORY.
 */
int mr_sim_create(const struct mr_sim_options *options, struct mr_lpu_port *port);

/*
 * On a @port that mr_sim_create made (else MR_E_NOT_SUPPORTED), from any thread but in its close:
 * the memfd of BAR2, *@bytes long, for others to map. It stays the device's, which from then on looks at it by
 * itself, at least once in a millisecond.
 */
int mr_sim_doorbell_fd(const struct mr_lpu_port *port, size_t *bytes);
/* Writes *@byte to SRAM and gives back the one that was there. 0, MR_E_RANGE, or MR_E_TIMEOUT (busy for 10 s). */
int mr_sim_poke(const struct mr_lpu_port *port, uint32_t chip, uint64_t address, uint8_t *byte);
/* Applies struct mr_sim_options.fault to the active program, now. MR_E_INVALID, MR_E_NOT_ACTIVE, MR_E_NOT_FOUND. */
int mr_sim_damage(const struct mr_lpu_port *port, const char *fault);

/* Hands over faults of the device as such; any thread. MR_E_INVALID, MR_E_FULL, MR_E_NOT_FOUND (a script). */
int mr_sim_fault(const struct mr_lpu_port *port, const char *list);
/* How many of @kind have struck since power-on; any thread. */
uint64_t mr_sim_injected(const struct mr_lpu_port *port, enum mr_sim_fault_kind kind);
/* A manual device does what is next: 0 = nothing was. */
int mr_sim_turn(const struct mr_lpu_port *port);

/*
 * What the device's hardware feels, for @port as mr_sim_create made it; any thread, while it runs. Until told,
 * nothing has a temperature, draws power or loses bits, and the logs say 0.
 */
void mr_sim_sense(const struct mr_lpu_port *port, uint32_t temperature_mk, uint32_t power_mw);
/* So many more words of SRAM were wrong: corrected, or not. */
void mr_sim_ecc(const struct mr_lpu_port *port, uint64_t corrected, uint64_t uncorrected);
/* The firmware asserts: a crash dump and STATUS.FATAL. */
void mr_sim_assert(const struct mr_lpu_port *port);

#endif /* MR_FIRMWARE_SIM_SIM_H */
