/* SPDX-License-Identifier: Apache-2.0 */
/* What driver/counters*.c share; nobody else includes it. */
#ifndef MR_DRIVER_COUNTERS_OWN_H
#define MR_DRIVER_COUNTERS_OWN_H

#include "driver/counters.h"

/* Copies the current tables to these places and makes them the current ones. */
void mr_counters_move(uint64_t *metrics, struct mr_queues *queues, struct mr_device_row *devices,
		      struct mr_histogram_data *histograms);
/* The same, to the process's own memory. */
void mr_counters_move_back(void);

/* When process @pid started, in clock ticks since boot; 0 = there is no such process. */
uint64_t mr_counters_process_start(uint32_t pid);

#endif /* MR_DRIVER_COUNTERS_OWN_H */
