/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs payload `schedule`: moves bytes between SRAM, streams and the host as the instructions say, and counts
 * cycles with timing code of its own. It knows no model. Called by program.c (create), decode.c and score.c
 * (a step), on the device's thread.
 *
 * It trusts addresses and shapes, which the verifier checked, but no time: a row that is not on its stream in
 * the cycle in which it is taken ends the step in MR_E_SCHEDULE_VIOLATION. That is what a wrong latency does.
 */
#ifndef MR_FIRMWARE_SIM_EXEC_H
#define MR_FIRMWARE_SIM_EXEC_H

#include <stdint.h>

#include "firmware-sim/sram.h"
#include "userlib/spec/chip.h"
#include "userlib/spec/isa.h"

struct mr_kernels;
struct exec;

/* A chip's places beyond what the instructions say. */
struct exec_chip {
	uint64_t table_address;
	uint32_t table_stride;
	uint64_t kv_address, kv_block_bytes;
};

struct exec_program {
	const struct mr_isa *icu, *inst; /* must stay */
	uint32_t icu_count, inst_count;
	uint32_t chips, slots; /* slots: the most of a step */
	const struct exec_chip *chip;
	const struct mr_chip *timing;
};

/* A slot's row of the slot table. */
struct exec_slot {
	uint32_t token, position;
	const uint32_t *blocks; /* ids of position / 16 + 1 KV blocks */
};

/* 0, MR_E_NO_MEMORY, MR_E_NOT_SUPPORTED (a product in no class D type), or MR_E_FORMAT where the ICU's queue makes no sense. */
int mr_exec_create(const struct exec_program *program, const struct sim_sram *sram,
		   const struct mr_kernels *kernels, struct exec **exec);
void mr_exec_destroy(struct exec *exec);

/*
 * One step: n slots. Where it returns 0, *cycles is what it took, record[i] the cycle in which slot i's record
 * ended, logits[i] its row in SRAM until the next step. Else MR_E_SCHEDULE_VIOLATION, and mr_exec_why says where.
 */
int mr_exec_step(struct exec *exec, const struct exec_slot *slots, uint32_t n, uint64_t *record,
		 const float **logits, uint64_t *cycles);
const char *mr_exec_why(const struct exec *exec);

/* Called for each instruction as it starts, for timelines; NULL = nobody looks. Ends at @end. */
typedef void (*mr_exec_watch)(void *arg, const struct mr_isa *inst, uint64_t start, uint64_t end);
void mr_exec_watched(struct exec *exec, mr_exec_watch watch, void *arg);

#endif /* MR_FIRMWARE_SIM_EXEC_H */
