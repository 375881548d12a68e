// SPDX-License-Identifier: Apache-2.0
/* The files of firmware-sim/chips/, taken in by the assembler (the build runs in the repository's root). */
#include "firmware-sim/chips.h"

#include <stddef.h>
#include <string.h>

#define CHIP_FILE(name)                                           \
	__asm__(".pushsection .rodata\n"                          \
		"sim_chip_" #name ":\n"                           \
		".incbin \"firmware-sim/chips/" #name ".chip\"\n" \
		"sim_chip_" #name "_end:\n"                       \
		".popsection\n");                                 \
	extern const char sim_chip_##name[], sim_chip_##name##_end[]

CHIP_FILE(mr1);
CHIP_FILE(tsp1);
CHIP_FILE(lp30);
CHIP_FILE(tiny);

static const struct mr_sim_builtin_chip chips[] = {
	{"mr1", sim_chip_mr1, sim_chip_mr1_end},
	{"tsp1", sim_chip_tsp1, sim_chip_tsp1_end},
	{"lp30", sim_chip_lp30, sim_chip_lp30_end},
	{"tiny", sim_chip_tiny, sim_chip_tiny_end},
};

const struct mr_sim_builtin_chip *mr_sim_builtin_chip(const char *name)
{
	for (size_t i = 0; i < sizeof(chips) / sizeof(chips[0]); i++)
		if (!strcmp(chips[i].name, name))
			return &chips[i];
	return NULL;
}
