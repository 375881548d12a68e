/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Waiting for completions: looking for a while, then sleeping on the eventfd under the wake-up
 * word's protocol (CQ_SLEEP); and noticing that the server is gone.
 */
#include <errno.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "userlib/own.h"

#define LOOK_EVERY_NS 10000000u

void mr_ring_kick(struct mr_ring *ring)
{
	/*
	 * Whoever clears the word owes the write; so each sleep costs one write, whichever thread
	 * comes first. Acquire-release keeps the write after the clearing.
	 */
	if (__atomic_exchange_n(&ring->header->sq_need_wakeup, 0, __ATOMIC_ACQ_REL))
		(void)!eventfd_write(ring->own->sq_fd, 1);
}

int mr_ring_fd(const struct mr_ring *ring)
{
	return ring->own->cq_fd;
}

int mr_ring_arm(struct mr_ring *ring)
{
	/* Relaxed: the fence orders it before the look at the ring. CQ_SLEEP. */
	__atomic_store_n(&ring->header->cq_need_wakeup, MR_WAKEUP_ENTRY, __ATOMIC_RELAXED);
	mr_ring_fence();
	if (!mr_ring_peek(ring))
		return 0;
	mr_ring_disarm(ring);
	return 1;
}

void mr_ring_disarm(struct mr_ring *ring)
{
	/* Relaxed: a late or lost clearing costs one needless write to the eventfd. */
	__atomic_store_n(&ring->header->cq_need_wakeup, 0, __ATOMIC_RELAXED);
}

/* Sleeps until woken, hung up or @deadline; at most silent_ns, so that a hung server is noticed. */
static int doze(struct mr_ring *ring, uint64_t now, uint64_t deadline)
{
	struct mr_ring_private *own = ring->own;
	struct pollfd fds[2] = {{.fd = own->cq_fd, .events = POLLIN},
				{.fd = own->socket, .events = POLLRDHUP}};
	uint64_t ns = deadline - now < own->silent_ns ? deadline - now : own->silent_ns;
	struct timespec t = {.tv_sec = (time_t)(ns / 1000000000u),
			     .tv_nsec = (long)(ns % 1000000000u)};
	eventfd_t count;
	int ready;

	if (mr_ring_arm(ring))
		return 0;
	ready = ppoll(fds, 2, &t, NULL);
	mr_ring_disarm(ring);
	if (ready < 0)
		return errno == EINTR ? 0 : MR_E_IO;
	if (fds[0].revents & POLLIN)
		(void)!eventfd_read(own->cq_fd, &count);
	if (fds[1].revents & (POLLHUP | POLLRDHUP | POLLERR))
		own->gone = 1;
	return 0;
}

int mr_ring_wait(struct mr_ring *ring, int64_t timeout_ns)
{
	struct mr_ring_private *own = ring->own;
	uint64_t now, deadline, spin;
	unsigned turn;
	int rc;

	if (timeout_ns < 0)
		return MR_E_INVALID;
	if (mr_ring_peek(ring))
		return 0;
	if (own->gone)
		return MR_E_DISCONNECTED;
	if (!timeout_ns)
		return MR_E_TIMEOUT;
	now = ring_now();
	deadline = now + (uint64_t)timeout_ns;
	spin = now + own->spin_ns;
	for (turn = 0; now < spin && now < deadline; turn++) {
		if (mr_ring_peek(ring))
			return 0;
		__builtin_ia32_pause();
		if (turn % 16 == 15)
			now = ring_now();
	}
	for (;;) {
		/* What was published before the hang-up is still to be had. */
		if (mr_ring_peek(ring))
			return 0;
		if (own->gone)
			return MR_E_DISCONNECTED;
		if (now >= deadline)
			return MR_E_TIMEOUT;
		rc = doze(ring, now, deadline);
		if (rc)
			return rc;
		now = ring_now();
		if (!own->gone)
			(void)mr_ring_check(ring);
	}
}

int mr_ring_check(struct mr_ring *ring)
{
	struct mr_ring_private *own = ring->own;
	struct pollfd fd = {.fd = own->socket, .events = POLLRDHUP};
	uint64_t beat, now;

	if (own->gone)
		return MR_E_DISCONNECTED;
	/* Relaxed: a time, orders nothing. HEARD. */
	beat = __atomic_load_n(&ring->header->heartbeat, __ATOMIC_RELAXED);
	now = ring_now();
	if (beat != own->beat) {
		own->beat = beat;
		own->beat_ns = now;
		return 0;
	}
	if (now - own->beat_ns < LOOK_EVERY_NS || now - own->looked_ns < LOOK_EVERY_NS)
		return 0;
	own->looked_ns = now;
	if (poll(&fd, 1, 0) == 1 && (fd.revents & (POLLHUP | POLLRDHUP | POLLERR)))
		own->gone = 1;
	else if (__atomic_load_n(&ring->header->sq_need_wakeup, __ATOMIC_RELAXED))
		own->beat_ns = now; /* it sleeps, and has said so */
	else if (now - own->beat_ns > own->silent_ns)
		own->gone = 1;
	return own->gone ? MR_E_DISCONNECTED : 0;
}
