/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A prompt being put together from its fragments, straight into the memory that it is parsed from: one
 * counted copy. No network, no clock; used by intake.c and by the fuzz target.
 */
#ifndef MR_DRIVER_NET_ASSEMBLE_H
#define MR_DRIVER_NET_ASSEMBLE_H

#include "driver/net/wire.h"

struct assembly {
	uint64_t have;                /* bit k = fragment k is in text */
	char *text;                   /* MR_WIRE_PROMPT_MAX bytes, the caller's */
	struct mr_wire_submit params; /* of the first fragment that came; offset means nothing */
};

enum assembly_result {
	ASSEMBLY_MORE,        /* taken; others are missing */
	ASSEMBLY_COMPLETE,    /* taken; the prompt is whole: told once */
	ASSEMBLY_DUPLICATE,   /* has come already; dropped, even where its bytes differ */
	ASSEMBLY_CONTRADICTS, /* other parameters than the first; dropped */
};

/* @in: a checked SUBMIT, the first one for this prompt. Takes no bytes yet: call mr_assembly_add with it. */
void mr_assembly_start(struct assembly *a, char *text, const struct mr_wire_in *in);
enum assembly_result mr_assembly_add(struct assembly *a, const struct mr_wire_in *in);
/* Bits of all fragments of a prompt of @total bytes, 1 to MR_WIRE_PROMPT_MAX. */
uint64_t mr_assembly_all(uint32_t total);

#endif /* MR_DRIVER_NET_ASSEMBLE_H */
