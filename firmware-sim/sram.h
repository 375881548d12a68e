/* SPDX-License-Identifier: Apache-2.0 */
/* The chips' SRAM: a byte array each, of the chip file's size, backed by memory as it is touched. */
#ifndef MR_FIRMWARE_SIM_SRAM_H
#define MR_FIRMWARE_SIM_SRAM_H

#include <stdint.h>

#define SIM_CHIPS_MAX 64u

struct sim_sram {
	uint8_t *chip[SIM_CHIPS_MAX];
	uint64_t bytes; /* of each */
	uint32_t chips;
};

/* 0 or MR_E_NO_MEMORY; after either, mr_sim_sram_fini. */
int mr_sim_sram_init(struct sim_sram *sram, uint32_t chips, uint64_t bytes);
void mr_sim_sram_fini(struct sim_sram *sram);

/* The byte at @address of @chip; both were checked by the container's verifier. */
static inline uint8_t *sim_sram_at(const struct sim_sram *sram, uint32_t chip, uint64_t address)
{
	return sram->chip[chip] + address;
}

#endif /* MR_FIRMWARE_SIM_SRAM_H */
