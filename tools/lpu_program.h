/* SPDX-License-Identifier: Apache-2.0 */
/* What the commands of `millrace lpu` about programs share: opening one, and walking through its cycles. */
#ifndef MR_TOOLS_LPU_PROGRAM_H
#define MR_TOOLS_LPU_PROGRAM_H

#include <stdint.h>

#include "driver/compile/compile.h"
#include "userlib/spec/container.h"

/* Zero means the default. */
struct lpu_options {
	const char *file,
		*model;   /* a container, or a model to compile; neither = MR_MODEL or the cache */
	const char *chip; /* mr1 */
	uint32_t chips, batch, context;
	uint32_t reference;       /* compile payload `reference` */
	uint32_t split;           /* enum mr_split */
	uint32_t slots, position; /* of the step that is looked at: 1, 0 */
};

enum {
	LPU_OPT_CHIP = 0x200,
	LPU_OPT_CHIPS,
	LPU_OPT_BATCH,
	LPU_OPT_CONTEXT,
	LPU_OPT_SLOTS,
	LPU_OPT_POSITION,
	LPU_OPT_OWN
};
/* clang-format off: a list of initialisers, not a block of code */
#define LPU_LONG_OPTIONS                                                                          \
	{"model", required_argument, NULL, 'm'}, {"chip", required_argument, NULL, LPU_OPT_CHIP}, \
		{"chips", required_argument, NULL, LPU_OPT_CHIPS},                                \
		{"batch", required_argument, NULL, LPU_OPT_BATCH},                                \
	{                                                                                         \
		"context", required_argument, NULL, LPU_OPT_CONTEXT                               \
	}
/* clang-format on */
#define LPU_HELP                                                                          \
	"  -m, --model FILE  GGUF (default: $MR_MODEL, then what `make model` fetched)\n" \
	"  --chip FILE       a chip file, mr1 (default), tsp1, lp30 or tiny\n"            \
	"  --chips N         of the group, 1 to 64 (default: 2)\n"                        \
	"  --batch N         most slots of a step (default: 64)\n"                        \
	"  --context N       positions of a slot (default: the model's)\n"
#define LPU_STEP_HELP                                                        \
	"  --slots N         look at a step of so many slots (default: 1)\n" \
	"  --position N      whose tokens are at this position (default: 0)\n"
/* 1 = taken, 0 = not one of them, -1 = refused. */
int lpu_option(int option, const char *value, struct lpu_options *o);

struct lpu_program {
	struct mr_chip chip;
	struct mr_program program;
	struct mr_container c;
	double compile_s; /* 0 = read from a file */
};
/* 0, or -1 after a line on stderr. Compiles a schedule where @o names no file. */
int lpu_open(const struct lpu_options *o, struct lpu_program *p);
void lpu_close(struct lpu_program *p);
int lpu_chip(const char *name, struct mr_chip *chip);

/* Calls @each for every instruction of the step that @o looks at, with its cycles. Schedules only. */
struct lpu_span {
	const struct mr_isa *inst;
	uint64_t start, end; /* of what its unit is busy with */
	uint64_t done;       /* when its result is there */
	uint64_t body_start, body_end;
};
void lpu_walk(const struct lpu_program *p, const struct lpu_options *o,
	      void (*each)(void *arg, const struct lpu_span *span), void *arg);
/* The claim's cycles of that step. */
uint64_t lpu_step_cycles(const struct lpu_program *p, const struct lpu_options *o);

#endif /* MR_TOOLS_LPU_PROGRAM_H */
