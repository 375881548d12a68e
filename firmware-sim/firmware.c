// SPDX-License-Identifier: Apache-2.0
#include "firmware-sim/firmware.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "firmware-sim/device.h"
#include "firmware-sim/mutant.h"

void mr_sim_firmware_start(struct sim_firmware *f)
{
	memcpy(f->version[0], "firmware-sim", sizeof("firmware-sim"));
	f->running = f->next = f->told = 1;
}

void mr_sim_firmware_stop(struct sim_firmware *f)
{
	free(f->image);
	f->image = NULL;
}

void mr_sim_firmware_reset(struct sim_firmware *f)
{
	f->running = f->next;
	f->received = 0;
}

static int drop(struct sim_firmware *f, int status)
{
	if (!MUTANT(FW_2))
		f->received = 0;
	return status;
}

static int download(struct sim *sim, const struct mr_lpu_cmd_firmware *cmd)
{
	struct sim_firmware *f = &sim->firmware;

	if (!cmd->offset)
		f->received = 0;
	if (!cmd->bytes || (cmd->offset != f->received && !MUTANT(FW_1)) ||
	    cmd->bytes > SIM_FIRMWARE_MAX - f->received)
		return drop(f, MR_E_RANGE);
	if (!f->image)
		f->image = malloc(SIM_FIRMWARE_MAX);
	if (!f->image)
		return MR_E_NO_MEMORY;
	int status = mr_sim_dma_read(&sim->dma, cmd->iova, f->image + f->received, cmd->bytes);
	if (status)
		return drop(f, status);
	f->received += cmd->bytes;
	return 0;
}

/* What is wrong with the image that was downloaded. */
static int check(const struct sim *sim, const struct mr_lpu_firmware_image *h)
{
	const struct sim_firmware *f = &sim->firmware;
	unsigned char digest[32];

	if (f->received < sizeof(*h))
		return MR_E_TRUNCATED;
	if (h->magic != MR_LPU_FIRMWARE_MAGIC || !mr_sim_zero(h->reserved, sizeof(h->reserved)) ||
	    !h->version[0] || !memchr(h->version, 0, sizeof(h->version)))
		return MR_E_FORMAT;
	if (h->format != MR_LPU_FIRMWARE_FORMAT)
		return MR_E_VERSION;
	if (h->bytes != f->received - sizeof(*h))
		return h->bytes > f->received - sizeof(*h) ? MR_E_TRUNCATED : MR_E_FORMAT;
	if (memcmp(h->product, sim->chip.name, sizeof(h->product)))
		return MR_E_NOT_SUPPORTED;
	crypto_hash_sha256(digest, f->image + sizeof(*h), h->bytes);
	return memcmp(digest, h->sha256, sizeof(digest)) && !MUTANT(FW_4) ? MR_E_CHECKSUM : 0;
}

static int verify(struct sim *sim, uint32_t slot)
{
	struct sim_firmware *f = &sim->firmware;
	struct mr_lpu_firmware_image h;
	int status;

	if (!f->received)
		return MR_E_NOT_ACTIVE;
	if (slot == f->running && !MUTANT(FW_3))
		return drop(f, MR_E_BUSY);
	memcpy(&h, f->image, f->received < sizeof(h) ? f->received : sizeof(h));
	status = check(sim, &h);
	if (!status || MUTANT(FW_5)) {
		memcpy(f->version[slot - 1], h.version, sizeof(h.version));
		f->updates++;
	}
	return drop(f, status);
}

int mr_sim_firmware_command(struct sim *sim, const struct mr_lpu_cmd_firmware *cmd)
{
	struct sim_firmware *f = &sim->firmware;
	int downloads = cmd->action == MR_LPU_FIRMWARE_DOWNLOAD;

	if (!mr_sim_zero(cmd->reserved, sizeof(cmd->reserved)) || (downloads && cmd->slot) ||
	    (!downloads && (cmd->iova || cmd->offset || cmd->bytes)))
		return MR_E_INVALID;
	if (downloads)
		return download(sim, cmd);
	if ((cmd->action != MR_LPU_FIRMWARE_VERIFY && cmd->action != MR_LPU_FIRMWARE_ACTIVATE) ||
	    !cmd->slot || cmd->slot > SIM_FIRMWARE_SLOTS)
		return MR_E_RANGE;
	if (cmd->action == MR_LPU_FIRMWARE_VERIFY)
		return verify(sim, cmd->slot);
	if (!f->version[cmd->slot - 1][0] && !MUTANT(FW_6))
		return MR_E_NOT_FOUND;
	f->next = cmd->slot;
	if (MUTANT(FW_7))
		f->running = cmd->slot;
	return 0;
}

void mr_sim_firmware_log(const struct sim_firmware *f, struct mr_lpu_firmware_log *out)
{
	*out = (struct mr_lpu_firmware_log){
		.slots = SIM_FIRMWARE_SLOTS,
		.running = f->running,
		.next = f->next,
		.updates = f->updates,
	};
	memcpy(out->version, f->version, sizeof(f->version));
}
