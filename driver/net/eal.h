/* SPDX-License-Identifier: Apache-2.0 */
/* EAL, DPDK's run time, started once a process by the first port that opens (driver/net/port.c). */
#ifndef MR_DRIVER_NET_EAL_H
#define MR_DRIVER_NET_EAL_H

#include <stddef.h>

/*
 * Starts EAL unless it runs already. @eal_args: more arguments, separated by blanks, or NULL; a physical port is
 * given as "-a 0000:01:00.0". @huge: 1 = huge pages (--in-memory), 0 = none (--no-huge, any user).
 * Returns 0 or MR_E_INVALID, with one sentence at @why.
 */
int mr_eal_start(const char *eal_args, int huge, char *why, size_t why_bytes);

#endif /* MR_DRIVER_NET_EAL_H */
