/* SPDX-License-Identifier: Apache-2.0 */
/* Faults that a run asks for by name (struct mr_sim_options.fault): damage to a loaded program's SRAM. */
#ifndef MR_FIRMWARE_SIM_FAULT_H
#define MR_FIRMWARE_SIM_FAULT_H

#include "firmware-sim/sram.h"
#include "userlib/spec/container.h"

/* 0, or MR_E_INVALID where @fault is not in the language that sim.h states. */
int mr_sim_fault_check(const char *fault);
/* Parts @fault into its sram faults and all others; each of @sram, @others holds as many bytes as @fault. */
void mr_sim_fault_split(const char *fault, char *sram, char *others);
/* Applies a checked @fault. 0, or MR_E_NOT_FOUND where the program has no such tensor or byte. */
int mr_sim_fault_apply(const char *fault, const struct mr_container *c,
		       const struct sim_sram *sram);

#endif /* MR_FIRMWARE_SIM_FAULT_H */
