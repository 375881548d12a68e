/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Registered buffers: a memfd of the caller's, given to the server over the connection's socket, and taken
 * back. Not the fast path; everything has a bound in time.
 */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include "userlib/own.h"

#define ANSWER_NS 5000000000ull

static int ask(struct mr_ring *ring, const struct mr_register *message, int fd)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int))];
	} control = {0};
	struct iovec part = {.iov_base = (void *)message, .iov_len = sizeof(*message)};
	struct msghdr m = {.msg_iov = &part, .msg_iovlen = 1};

	if (fd >= 0) {
		m.msg_control = &control;
		m.msg_controllen = sizeof(control);
		control.header.cmsg_level = SOL_SOCKET;
		control.header.cmsg_type = SCM_RIGHTS;
		control.header.cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(&control.header), &fd, sizeof(fd));
	}
	while (sendmsg(ring->own->socket, &m, MSG_NOSIGNAL | MSG_DONTWAIT) != sizeof(*message))
		if (errno != EINTR)
			return errno == EPIPE || errno == ECONNRESET ? MR_E_DISCONNECTED : MR_E_IO;
	return 0;
}

static int answer(struct mr_ring *ring, struct mr_register *reply)
{
	struct pollfd ready = {.fd = ring->own->socket, .events = POLLIN};
	uint64_t deadline = ring_now() + ANSWER_NS, now;
	ssize_t n;

	while ((now = ring_now()) < deadline) {
		if (poll(&ready, 1, (int)((deadline - now) / 1000000 + 1)) < 0 && errno != EINTR)
			return MR_E_IO;
		n = recv(ring->own->socket, reply, sizeof(*reply), MSG_DONTWAIT);
		if (n == sizeof(*reply))
			return reply->magic == MR_REGISTER_MAGIC ? 0 : MR_E_PROTOCOL;
		if (n == 0)
			return MR_E_DISCONNECTED;
		if (n > 0)
			return MR_E_PROTOCOL;
		if (errno != EAGAIN && errno != EINTR)
			return MR_E_DISCONNECTED;
	}
	return MR_E_TIMEOUT;
}

static int exchange(struct mr_ring *ring, uint32_t op, uint32_t buffer, int fd)
{
	const struct mr_register message = {
		.magic = MR_REGISTER_MAGIC, .version = MR_RING_VERSION, .op = op, .buffer = buffer};
	struct mr_register reply;
	int rc;

	if (!(ring->own->features & MR_FEATURE_BUFFERS) || ring->own->socket < 0)
		return MR_E_NOT_SUPPORTED;
	rc = ask(ring, &message, fd);
	if (!rc)
		mr_ring_kick(ring); /* the server may sleep: it looks at its sockets as it wakes */
	if (!rc)
		rc = answer(ring, &reply);
	return rc ? rc : reply.status;
}

int mr_ring_register(struct mr_ring *ring, uint32_t buffer, int fd)
{
	return fd < 0 ? MR_E_INVALID : exchange(ring, MR_REGISTER_ADD, buffer, fd);
}

int mr_ring_unregister(struct mr_ring *ring, uint32_t buffer)
{
	return exchange(ring, MR_REGISTER_DROP, buffer, -1);
}
