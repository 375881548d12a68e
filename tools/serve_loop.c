// SPDX-License-Identifier: Apache-2.0
/*
 * The one loop of a server: fronts, orchestrator, devices. Where a turn found nothing to do it may sleep:
 * adaptive spins first, for about as long as waking up would take, and then sleeps on everybody's
 * descriptors after each was armed, so that nothing that comes in between is missed.
 */
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include "driver/metrics.h"
#include "tools/serve.h"

#define SPIN_NS        50000u     /* waking a halted core costs some 20 us, and its caches */
#define SLEEP_NS       100000000u /* bound of every sleep: a signal that just missed it */
#define SLEEP_BLIND_NS 50000u     /* with a source that cannot wake us: front.h's promise */

static uint64_t now(void)
{
	return mr_clock_monotonic.now_ns(NULL);
}

static int watch(int epoll, int fd)
{
	struct epoll_event event = {.events = EPOLLIN};

	if (fd < 0)
		return 0;
	/* Two sources may share one descriptor. */
	if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) && errno != EEXIST)
		return MR_E_IO;
	return 0;
}

int serve_loop_open(struct serve_loop *loop)
{
	int status = 0;

	loop->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (loop->epoll < 0)
		return MR_E_IO;
	for (uint32_t i = 0; i < loop->front_count && !status; i++)
		status = watch(loop->epoll, loop->fronts[i].wait_fd);
	for (int i = 0; i < 2 && !status; i++)
		status = loop->devices[i] ? watch(loop->epoll, loop->devices[i]->wait_fd) : 0;
	if (status)
		serve_loop_close(loop);
	return status;
}

void serve_loop_close(struct serve_loop *loop)
{
	if (loop->epoll >= 0)
		close(loop->epoll);
	loop->epoll = -1;
}

/* How long everybody agrees to sleep, in ns; 0 = not at all. */
static uint64_t agree(struct serve_loop *loop)
{
	uint64_t ns = SLEEP_NS;

	for (uint32_t i = 0; i < loop->front_count; i++) {
		if (loop->fronts[i].arm(loop->fronts[i].ctx))
			return 0;
		if (loop->fronts[i].wait_fd < 0)
			ns = SLEEP_BLIND_NS;
	}
	if (mr_sched_arm(loop->sched))
		return 0;
	for (int i = 0; i < 2; i++)
		if (loop->devices[i] && loop->devices[i]->wait_fd < 0 &&
		    mr_sched_active(loop->sched))
			ns = SLEEP_BLIND_NS;
	return ns;
}

static void rest(struct serve_loop *loop, uint64_t at)
{
	struct epoll_event events[4];
	struct timespec limit = {0};
	uint64_t ns;

	if (loop->idle_since == 0)
		loop->idle_since = at;
	if (loop->poll == SERVE_BUSY ||
	    (loop->poll == SERVE_ADAPTIVE && at - loop->idle_since < SPIN_NS)) {
		__builtin_ia32_pause();
		return;
	}
	ns = agree(loop);
	if (ns == 0)
		return;
	limit.tv_nsec = (long)ns;
	/* Whoever woke us says so itself at its next poll; the kernel's list is not needed. */
	(void)epoll_pwait2(loop->epoll, events, 4, &limit, NULL);
	loop->turn_began = 0;
}

int serve_loop_turn(struct serve_loop *loop)
{
	uint64_t began = loop->turn_began ? loop->turn_began : now(), ended;
	int did = 0;

	for (uint32_t i = 0; i < loop->front_count; i++)
		did += loop->fronts[i].poll(loop->fronts[i].ctx);
	did += mr_sched_poll(loop->sched);
	ended = now();
	mr_metric_max(MR_M_sched_cycle_max_ns, ended - began);
	if (loop->observe)
		serve_observe_beat(loop->observe, ended);
	loop->turn_began = ended;
	if (did > 0)
		loop->idle_since = 0;
	else
		rest(loop, ended);
	return did;
}
