/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the driver does about a device that makes no progress: it looks at the heartbeat, aborts the oldest
 * command, resets the controller, then the function, then gives up. Each step has a bound. Time and device are
 * reached through calls, so that tests run it in a time of their own.
 *
 *            progress                         progress
 *          +----------+                     +-----------+
 *          v          |                     v           |
 *   IDLE --+-> WATCH -+-> stall_ns passed: heartbeat ---+-- ABORT --> abort_ns passed: LOST
 *    ^           |   ^      | moves, less than slow_ns         (poll says MR_E_TIMEOUT)
 *    |           |   +------+                                     |
 *    |           +--> FATAL, or not READY: LOST (MR_E_DEVICE)     |
 *    |                                        |                   |
 *    +--- controller reset ---- mr_recover_reset ----------------+
 *    +--- function reset   ----- where that failed
 *    DEAD ---------------------- where that failed too: given up, until a later reset succeeds
 */
#ifndef MR_DRIVER_LPU_RECOVER_H
#define MR_DRIVER_LPU_RECOVER_H

#include <stdint.h>

enum mr_recover_state {
	MR_RECOVER_IDLE,  /* there was progress, or nothing is under way */
	MR_RECOVER_WATCH, /* none since since_ns */
	MR_RECOVER_ABORT, /* the oldest command is asked to end, since since_ns */
	MR_RECOVER_LOST,  /* until mr_recover_reset */
	MR_RECOVER_DEAD,  /* the last reset failed, the function's too */
};

struct mr_recover_ops {
	uint64_t (*now_ns)(void *ctx);
	uint32_t (*status)(void *ctx); /* registers STATUS and HEARTBEAT */
	uint32_t (*heartbeat)(void *ctx);
	/* Asks for the oldest command's end, does not wait; 0, or it cannot. */
	int (*end_oldest)(void *ctx);
	int (*controller)(
		void *ctx); /* these two may sleep, and end in bounded time: 0 or why not */
	int (*function)(void *ctx);
};

struct mr_recover {
	const struct mr_recover_ops *ops;
	void *ctx;
	uint64_t stall_ns; /* without progress, until the heartbeat is looked at */
	uint64_t slow_ns;  /* without progress, until a device whose heart beats is aborted too */
	uint64_t abort_ns; /* that an abort may take */
	/* its own */
	enum mr_recover_state state;
	uint64_t since_ns, first_ns; /* of this look, and of the first without progress */
	uint64_t seen_ns;            /* of the last look at STATUS */
	uint64_t beat_ns;            /* of the latest look at HEARTBEAT */
	uint32_t beat, alive;        /* HEARTBEAT at the latest look, and whether it had moved */
	uint32_t said;               /* STATUS at the latest look */
	uint32_t waited;             /* stall_ns passed, and the heart beat */
	uint32_t slow;               /* times that it did, and progress came in the end */
	uint32_t stalls, aborts, controller_resets, function_resets;
};

/* Something came from the device. */
void mr_recover_progress(struct mr_recover *r);
/*
 * Nothing came, and work is under way: 0, or from now on the status of a lost device. Never sleeps. STATUS is
 * read 16 times in stall_ns, so that a device that has given up need not be waited for.
 */
int mr_recover_tick(struct mr_recover *r);
/* The device is lost for another reason than a tick's: as after a tick that said so. */
void mr_recover_lose(struct mr_recover *r);
/* Brings the device back: 0, or why the function reset failed. A DEAD one may have come back by then. */
int mr_recover_reset(struct mr_recover *r);

#endif /* MR_DRIVER_LPU_RECOVER_H */
