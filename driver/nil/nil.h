/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The nil device: prefill, imports and decodes complete at once, tokens count upwards. It makes no
 * sense of anything and so measures the orchestrator and the rings alone.
 */
#ifndef MR_DRIVER_NIL_NIL_H
#define MR_DRIVER_NIL_NIL_H

#include "driver/device.h"

struct mr_nil_options {
	uint32_t slots;   /* 0 = 1024 */
	uint32_t context; /* 0 = 8192 */
	uint32_t vocab;   /* 0 = 49152 */
};

int mr_nil_open(const struct mr_nil_options *options, struct mr_device **dev);

#endif /* MR_DRIVER_NIL_NIL_H */
