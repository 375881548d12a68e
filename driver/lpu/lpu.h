/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The LPU driver: brings a device behind a bus up (identify, queues, records), loads a program compiled
 * for its chip, and serves struct mr_device on top.
 */
#ifndef MR_DRIVER_LPU_LPU_H
#define MR_DRIVER_LPU_LPU_H

#include "driver/device.h"

struct mr_arena;
struct mr_bus; /* driver/bus/bus.h */

struct mr_lpu_options {
	struct mr_arena *arena; /* queues, records, readback; must outlive the device */
	struct mr_bus *bus;	/* owned by the device once open succeeds, closed with it */
	uint32_t queue_entries; /* of the I/O queue; 0 = 1024 */
	uint32_t slots;		/* to ask for; 0 = all that the device has */
	uint32_t context;	/* positions a slot the program is compiled for; 0 = the model's */
	uint32_t batch_max;	/* 0 = 64 */
	uint64_t timeout_ms;	/* for admin commands; 0 = 5000 */
};

/*
 * Returns 0, MR_E_VERSION (not a device this driver knows), MR_E_TIMEOUT, MR_E_PROTOCOL, MR_E_NO_MEMORY or
 * what the bus said.
 */
int mr_lpu_open(const struct mr_lpu_options *options, struct mr_device **dev);

#endif /* MR_DRIVER_LPU_LPU_H */
