// SPDX-License-Identifier: Apache-2.0
/*
 * What is set on a device beside its work: queue and settings after each bring-up, features, firmware. Set-up
 * calls; they sleep.
 */
#include <string.h>

#include "driver/lpu/internal.h"

#define FIRMWARE_PIECE (64u << 10) /* of an image, in a command; less than the staging region */

static int has_feature(const struct lpu *lpu, uint32_t feature)
{
	return feature < 64 && lpu->id.opcodes_admin & 1ull << MR_LPU_FEATURES &&
	       lpu->id.features & 1ull << feature;
}

static int feature(struct lpu *lpu, uint32_t action, uint32_t feature_id, uint32_t queue,
		   uint32_t *value)
{
	struct mr_lpu_cmd_features cmd = {
		.head.opcode = MR_LPU_FEATURES,
		.feature = feature_id,
		.action = action,
		.value = action == MR_LPU_FEATURE_SET ? *value : 0,
		.queue = queue,
	};

	/* Shadow doorbells are this driver's own affair: it has to say where they lie. */
	if (!has_feature(lpu, feature_id) ||
	    (action == MR_LPU_FEATURE_SET && feature_id == MR_LPU_FEATURE_SHADOW))
		return MR_E_NOT_SUPPORTED;
	return mr_lpu_admin(lpu, &cmd, value);
}

int mr_lpu_feature_get(struct mr_device *dev, uint32_t id, uint32_t *value)
{
	return feature(lpu_of(dev), MR_LPU_FEATURE_GET, id,
		       id == MR_LPU_FEATURE_COALESCE ? IO_QUEUE : 0, value);
}

int mr_lpu_feature_set(struct mr_device *dev, uint32_t id, uint32_t value)
{
	return feature(lpu_of(dev), MR_LPU_FEATURE_SET, id,
		       id == MR_LPU_FEATURE_COALESCE ? IO_QUEUE : 0, &value);
}

int mr_lpu_start(struct lpu *lpu)
{
	uint32_t coalesce = lpu->coalesce;
	int status = mr_lpu_queue_create(lpu);

	if (!status)
		status = mr_lpu_shadow_start(lpu);
	/* A device that cannot do so interrupts more often, and no less. */
	if (!status && coalesce && has_feature(lpu, MR_LPU_FEATURE_COALESCE))
		status = feature(lpu, MR_LPU_FEATURE_SET, MR_LPU_FEATURE_COALESCE, IO_QUEUE,
				 &coalesce);
	if (!status)
		mr_lpu_events_start(lpu);
	return status;
}

static int firmware_command(struct lpu *lpu, uint32_t action, uint32_t slot, uint64_t offset,
			    uint64_t bytes)
{
	struct mr_lpu_cmd_firmware cmd = {
		.head.opcode = MR_LPU_FIRMWARE,
		.action = action,
		.slot = slot,
		.iova = bytes ? lpu->staging->iova : 0,
		.offset = offset,
		.bytes = bytes,
	};

	return mr_lpu_admin(lpu, &cmd, NULL);
}

int mr_lpu_firmware_download(struct mr_device *dev, const void *image, size_t bytes, uint32_t slot,
			     void (*percent)(void *arg, unsigned percent), void *arg)
{
	struct lpu *lpu = lpu_of(dev);
	int status = mr_lpu_staging(lpu);

	if (!(lpu->id.opcodes_admin & 1ull << MR_LPU_FIRMWARE))
		return MR_E_NOT_SUPPORTED;
	if (!bytes || bytes > lpu->id.firmware_max)
		return MR_E_TOO_LARGE;
	for (size_t at = 0; !status && at < bytes;) {
		size_t n = bytes - at < FIRMWARE_PIECE ? bytes - at : FIRMWARE_PIECE;
		memcpy(lpu->staging->base, (const uint8_t *)image + at, n);
		status = firmware_command(lpu, MR_LPU_FIRMWARE_DOWNLOAD, 0, at, n);
		at += n;
		if (!status && percent)
			percent(arg, (unsigned)(at * 100 / bytes));
	}
	return status ? status : firmware_command(lpu, MR_LPU_FIRMWARE_VERIFY, slot, 0, 0);
}

int mr_lpu_firmware_activate(struct mr_device *dev, uint32_t slot)
{
	struct lpu *lpu = lpu_of(dev);

	if (!(lpu->id.opcodes_admin & 1ull << MR_LPU_FIRMWARE))
		return MR_E_NOT_SUPPORTED;
	return firmware_command(lpu, MR_LPU_FIRMWARE_ACTIVATE, slot, 0, 0);
}

int mr_lpu_firmware_update(struct mr_device *dev, const void *image, size_t bytes, uint32_t slot)
{
	int status = mr_lpu_firmware_download(dev, image, bytes, slot, NULL, NULL);

	return status ? status : mr_lpu_firmware_activate(dev, slot);
}
