/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the serve loop needs of a front besides struct mr_front_ops: the ring server (driver/ring) and the
 * wire server (driver/net) each hand tools/serve one of these.
 */
#ifndef MR_DRIVER_FRONT_H
#define MR_DRIVER_FRONT_H

struct mr_front {
	void *ctx;
	/* One turn: takes input, submits requests, sends what is due. Returns how much was done. */
	int (*poll)(void *ctx);
	/* Before the loop sleeps: 0 = may sleep on wait_fd (or for at most 50 us where it is -1), 1 = do not. */
	int (*arm)(void *ctx);
	int wait_fd;
};

#endif /* MR_DRIVER_FRONT_H */
