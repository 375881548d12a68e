/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The copy ledger: payload bytes on the data path move only through mr_copy, which counts them under
 * a site, so that "one copy of the prompt" is a number and not a belief. memcpy itself is refused by
 * lint in driver/net, driver/ring and driver/sched.
 */
#ifndef MR_DRIVER_MEM_COPY_H
#define MR_DRIVER_MEM_COPY_H

#include <string.h>

#include "driver/metrics.h"

enum mr_copy_site {
	MR_COPY_PROMPT_RING = MR_M_copy_prompt_ring,
	MR_COPY_PROMPT_WIRE = MR_M_copy_prompt_wire,
	MR_COPY_TOKEN_WIRE = MR_M_copy_token_wire,
	MR_COPY_IDS_SCHED = MR_M_copy_ids_sched,
};
#define MR_COPY_SITES_FIRST MR_M_copy_prompt_ring
#define MR_COPY_SITES       (MR_M_copy_weights_lpu - MR_M_copy_prompt_ring + 1)

/* Copies @n bytes and counts them under @site. Only from the site's owner thread. */
static inline void mr_copy(enum mr_copy_site site, void *dst, const void *src, size_t n)
{
	memcpy(dst, src, n);
	mr_count((enum mr_metric)site, n);
}

#endif /* MR_DRIVER_MEM_COPY_H */
