/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A bus around another one that records what passes (bus_trace.h): registers, doorbells, mappings, the memory
 * that commands name, and the completions and records that the host has taken. Opened by tools/ for --record.
 *
 * It writes a file on the data path, so it is for bring-up and co-simulation, not for service. What a command names
 * is copied when its doorbell rings; so the driver must use no shadow doorbells (mr_lpu_options.no_shadow).
 * Completions and records are copied when the host gives their places back. An interrupt itself is not
 * seen. Where the bound is reached, the disk is full or something cannot be recorded, the trace ends there with
 * the reason, and the device goes on. One thread at a time, as its caller's rules for a bus have it.
 */
#ifndef MR_DRIVER_BUS_RECORD_H
#define MR_DRIVER_BUS_RECORD_H

#include <stdint.h>

#include "driver/bus/bus.h"

struct mr_bus_record_stats {
	uint64_t entries, bytes;
	int status; /* 0, or why the trace ends early: MR_E_TOO_LARGE, MR_E_NOT_SUPPORTED, MR_E_IO */
};

/*
 * Writes @path anew, readable to its owner alone, and wraps @inner, which is the new bus's from then on.
 * @bytes_max: 0 = 1 GiB. @stats (may be NULL) is filled at close and must stay until then. 0, MR_E_IO (errno says
 * why) or MR_E_NO_MEMORY.
 */
int mr_bus_record_open(const char *path, uint64_t bytes_max, struct mr_bus *inner,
		       struct mr_bus_record_stats *stats, struct mr_bus **bus);

#endif /* MR_DRIVER_BUS_RECORD_H */
