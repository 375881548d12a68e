// SPDX-License-Identifier: Apache-2.0
/* What the empty slots of a device's ops tables hold: one honest answer each. */
#include "driver/device.h"

int mr_unsupported_reset(struct mr_device *dev)
{
	return MR_E_NOT_SUPPORTED;
}

int mr_unsupported_telemetry(struct mr_device *dev, struct mr_telemetry *out)
{
	return MR_E_NOT_SUPPORTED;
}

int mr_unsupported_kv_export(struct mr_device *dev, struct mr_slot slot, uint32_t layer,
			     uint32_t block, uint32_t owner, uint32_t generation,
			     struct mr_kv_desc *out, uint32_t max)
{
	return MR_E_NOT_SUPPORTED;
}

int mr_unsupported_kv_import(struct mr_device *dev, struct mr_slot slot,
			     const struct mr_kv_desc *descs, uint32_t count, uint64_t tag)
{
	return MR_E_NOT_SUPPORTED;
}

int mr_unsupported_kv_fork(struct mr_device *dev, struct mr_slot from, uint32_t positions,
			   const struct mr_slot_config *config, struct mr_slot *slot)
{
	return MR_E_NOT_SUPPORTED;
}

int mr_unsupported_prefill(struct mr_device *dev, struct mr_slot slot, const uint32_t *tokens,
			   uint32_t count, uint32_t position, uint64_t tag)
{
	return MR_E_NOT_SUPPORTED;
}

int mr_unsupported_decode(struct mr_device *dev, const struct mr_decode_entry *entries,
			  uint32_t count, uint32_t steps, uint64_t tag)
{
	return MR_E_NOT_SUPPORTED;
}

int mr_unsupported_score(struct mr_device *dev, struct mr_slot slot, const uint32_t *tokens,
			 uint32_t count, uint32_t position, uint64_t tag)
{
	return MR_E_NOT_SUPPORTED;
}

int mr_unsupported_arm(struct mr_device *dev)
{
	return MR_E_NOT_SUPPORTED;
}
