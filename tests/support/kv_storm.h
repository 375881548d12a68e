/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random opens, forks, writes, closes and resets on any device, against a model that lists who holds which
 * KV block: statuses must be the model's, and so must the count of blocks in use whenever no work is under
 * way. Fails by cmocka's assertions.
 */
#ifndef MR_TESTS_SUPPORT_KV_STORM_H
#define MR_TESTS_SUPPORT_KV_STORM_H

#include "driver/device.h"

#define KV_STORM_SLOTS   12u  /* that the storm opens at most */
#define KV_STORM_CONTEXT 256u /* positions of a slot at most */

struct kv_storm {
	struct mr_device *dev;
	uint32_t blocks; /* in the pool, for the storm */
	uint32_t kept;   /* blocks that the caller holds besides when no work is under way */
	uint32_t rounds;
	uint64_t seed;
	uint32_t resets;                      /* one in so many rounds is a reset */
	void (*drain)(struct mr_device *dev); /* takes events until no work is under way */
};

void kv_storm(const struct kv_storm *storm);
uint64_t kv_blocks_used(struct mr_device *dev);

#endif /* MR_TESTS_SUPPORT_KV_STORM_H */
