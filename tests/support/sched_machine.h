/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A container and the executor (or, of payload `reference`, the walker) without a device around them: what tests run that
 * change programs which no verifier would let through. Slot s has KV blocks of its own.
 */
#ifndef MR_TESTS_SUPPORT_SCHED_MACHINE_H
#define MR_TESTS_SUPPORT_SCHED_MACHINE_H

#include <stdint.h>

#include "firmware-sim/exec.h"
#include "firmware-sim/walker.h"
#include "userlib/spec/container.h"

#define MACHINE_SLOTS 64u

struct machine {
	struct mr_container c;
	struct mr_chip timing; /* change it before the first step */
	struct sim_sram sram;
	struct exec *exec;
	struct walker *walker;
	uint32_t *ids;   /* [slots][blocks] */
	uint8_t **kv;    /* [slots][chips][blocks] */
	uint32_t blocks; /* of a slot */
	uint64_t record[MACHINE_SLOTS], cycles;
	const float *logits[MACHINE_SLOTS];
};

/* Loads @container, which must stay and may be changed until the first step. */
void machine_open(struct machine *m, const void *container, size_t bytes,
		  const struct mr_chip *chip);
void machine_close(struct machine *m);
/* A token of each of @n slots. The executor's status; the walker's is 0. */
int machine_step(struct machine *m, const uint32_t *tokens, const uint32_t *positions, uint32_t n);
/* What the claim says of the step: the cycle of slot @i's record. */
uint64_t machine_claim(const struct machine *m, const uint32_t *positions, uint32_t n, uint32_t i);

#endif /* MR_TESTS_SUPPORT_SCHED_MACHINE_H */
