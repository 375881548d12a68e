// SPDX-License-Identifier: Apache-2.0
#include "driver/lpu/recover.h"

#include <millrace/lpu_spec.h>
#include <millrace/status.h>

void mr_recover_progress(struct mr_recover *r)
{
	r->slow += r->state == MR_RECOVER_WATCH && r->waited;
	if (r->state == MR_RECOVER_WATCH || r->state == MR_RECOVER_ABORT)
		r->state = MR_RECOVER_IDLE;
}

static void enter(struct mr_recover *r, enum mr_recover_state state, uint64_t now)
{
	r->state = state;
	r->since_ns = now;
}

static int lose(struct mr_recover *r, int status)
{
	r->state = MR_RECOVER_LOST;
	return status;
}

/* A device that was taken out reads as all ones, which is not READY either. */
static int gone(struct mr_recover *r, uint64_t now)
{
	if (now - r->seen_ns < r->stall_ns / 16)
		return 0;
	if (r->seen_ns == r->first_ns) {
		r->beat = r->ops->heartbeat(r->ctx);
		r->beat_ns = now;
	}
	r->seen_ns = now;
	r->said = r->ops->status(r->ctx);
	return r->said != MR_LPU_STATUS_READY;
}

/* stall_ns have passed: does its firmware run? */
static int look(struct mr_recover *r, uint64_t now)
{
	uint32_t beat = r->ops->heartbeat(r->ctx);

	r->alive = beat != r->beat;
	r->beat = beat;
	r->beat_ns = now;
	if (r->alive && now - r->first_ns < r->slow_ns) {
		r->waited = 1;
		r->since_ns = now;
		return 0;
	}
	r->stalls++;
	if (r->ops->end_oldest(r->ctx))
		return lose(r, MR_E_TIMEOUT);
	r->aborts++;
	enter(r, MR_RECOVER_ABORT, now);
	return 0;
}

int mr_recover_tick(struct mr_recover *r)
{
	uint64_t now = r->ops->now_ns(r->ctx);

	switch (r->state) {
	case MR_RECOVER_IDLE:
		/* No register is read yet: on some buses that is a system call and a wait. */
		r->first_ns = r->seen_ns = now;
		r->waited = 0;
		enter(r, MR_RECOVER_WATCH, now);
		return 0;
	case MR_RECOVER_WATCH:
		if (gone(r, now))
			return lose(r, MR_E_DEVICE);
		/* A loop that polls rarely has looked only now: time must pass for a beat. */
		return now - r->since_ns < r->stall_ns || now - r->beat_ns < r->stall_ns / 16
			       ? 0
			       : look(r, now);
	case MR_RECOVER_ABORT:
		if (gone(r, now))
			return lose(r, MR_E_DEVICE);
		return now - r->since_ns < r->abort_ns ? 0 : lose(r, MR_E_TIMEOUT);
	default:
		return MR_E_DEVICE;
	}
}

void mr_recover_lose(struct mr_recover *r)
{
	r->state = MR_RECOVER_LOST;
}

int mr_recover_reset(struct mr_recover *r)
{
	int status;

	r->controller_resets++;
	status = r->ops->controller(r->ctx);
	if (status) {
		r->function_resets++;
		status = r->ops->function(r->ctx);
	}
	r->state = status ? MR_RECOVER_DEAD : MR_RECOVER_IDLE;
	return status;
}
