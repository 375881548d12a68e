/* SPDX-License-Identifier: Apache-2.0 */
/* Chip files that are built in, so that a program finds them wherever it is installed. */
#ifndef MR_FIRMWARE_SIM_CHIPS_H
#define MR_FIRMWARE_SIM_CHIPS_H

struct mr_sim_builtin_chip {
	const char *name;
	const char *text, *end;
};

/* The chip named @name, or NULL. */
const struct mr_sim_builtin_chip *mr_sim_builtin_chip(const char *name);

#endif /* MR_FIRMWARE_SIM_CHIPS_H */
