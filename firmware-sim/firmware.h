/* SPDX-License-Identifier: Apache-2.0 */
/*
 * FIRMWARE: images come in pieces, are verified into one of two slots, and run from the next reset on. The
 * simulator is what it is whatever image "runs": only its version string changes.
 */
#ifndef MR_FIRMWARE_SIM_FIRMWARE_H
#define MR_FIRMWARE_SIM_FIRMWARE_H

#include <stdint.h>

#include <millrace/lpu_spec.h>

#define SIM_FIRMWARE_MAX   (1u << 20)
#define SIM_FIRMWARE_SLOTS 2u

struct sim;

struct sim_firmware {
	uint8_t *image; /* SIM_FIRMWARE_MAX, from the first DOWNLOAD on */
	uint64_t received;
	uint32_t running, next, updates; /* slots from 1 */
	uint32_t told;                   /* running when the host last heard */
	char version[SIM_FIRMWARE_SLOTS][32];
};

void mr_sim_firmware_start(struct sim_firmware *f);
void mr_sim_firmware_stop(struct sim_firmware *f);
/* At a reset: the next one runs; what was downloaded and not verified is forgotten. */
void mr_sim_firmware_reset(struct sim_firmware *f);
int mr_sim_firmware_command(struct sim *sim, const struct mr_lpu_cmd_firmware *cmd);
void mr_sim_firmware_log(const struct sim_firmware *f, struct mr_lpu_firmware_log *out);

#endif /* MR_FIRMWARE_SIM_FIRMWARE_H */
