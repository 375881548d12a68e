/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PROGRAM: a container comes in pieces, in order. Its metadata is opened and verified as soon as it is whole;
 * only then are segments taken, straight to SRAM, hashed as they lie there; ACTIVATE makes it run.
 */
#ifndef MR_FIRMWARE_SIM_PROGRAM_H
#define MR_FIRMWARE_SIM_PROGRAM_H

#include <sodium.h>
#include <stdint.h>

#include <millrace/lpu_spec.h>

#include "firmware-sim/choice.h"
#include "userlib/spec/container.h"

struct sim;
struct walker;
struct exec;

enum sim_program_state {
	SIM_PROGRAM_NONE,
	SIM_PROGRAM_META,     /* BEGIN came: metadata is coming */
	SIM_PROGRAM_DATA,     /* metadata verified: segments are coming, or all are there */
	SIM_PROGRAM_VERIFIED, /* hash of the segments matched */
	SIM_PROGRAM_ACTIVE,
};

struct sim_program {
	enum sim_program_state state;
	uint64_t total, received; /* bytes of the container */
	uint8_t *meta;
	uint64_t meta_room;
	uint32_t segment; /* the next byte belongs to it or comes before it */
	crypto_hash_sha256_state hash;
	struct mr_container c; /* into meta; from DATA on */
	struct walker *walker; /* while ACTIVE: this of a reference, */
	struct exec *exec;     /* this of a schedule */
	void *sample_scratch;
	struct sim_choice choice;
	const char *fault; /* struct mr_sim_options.fault, checked, or NULL */
};

int mr_sim_program_command(struct sim *sim, const struct mr_lpu_cmd_program *cmd);
/* Drops what is loaded or active. Slots must be gone. */
void mr_sim_program_drop(struct sim *sim);

#endif /* MR_FIRMWARE_SIM_PROGRAM_H */
