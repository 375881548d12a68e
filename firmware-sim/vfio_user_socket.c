// SPDX-License-Identifier: Apache-2.0
/* The server's transports: over a Unix socket, whose clients are waited for, and over plain bytes. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "firmware-sim/vfio_user.h"
#include "userlib/spec/vfio_user.h"

#define SEND_MS 10000 /* a client that takes no answer for so long is gone */

static int address_of(const char *path, struct sockaddr_un *a)
{
	size_t n = strlen(path);

	memset(a, 0, sizeof(*a));
	a->sun_family = AF_UNIX;
	if (!n || n >= sizeof(a->sun_path))
		return MR_E_INVALID;
	memcpy(a->sun_path, path, n);
	return 0;
}

/* A socket file that nobody answers at is what a killed server left. */
static int left_behind(const char *path, const struct sockaddr_un *a)
{
	struct stat st;
	int fd, dead;

	if (stat(path, &st) || !S_ISSOCK(st.st_mode))
		return 0;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	dead = fd >= 0 && connect(fd, (const struct sockaddr *)a, sizeof(*a)) &&
	       errno == ECONNREFUSED;
	if (fd >= 0)
		close(fd);
	return dead;
}

int mr_vfio_user_listen(const char *path)
{
	struct sockaddr_un a;
	int status = address_of(path, &a);
	int fd;

	if (status)
		return status;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return MR_E_IO;
	status = bind(fd, (const struct sockaddr *)&a, sizeof(a)) ? -1 : 0;
	if (status && errno == EADDRINUSE) {
		if (!left_behind(path, &a)) {
			close(fd);
			return MR_E_BUSY;
		}
		unlink(path);
		status = bind(fd, (const struct sockaddr *)&a, sizeof(a)) ? -1 : 0;
	}
	if (status || listen(fd, 4)) {
		int why = errno;
		close(fd);
		errno = why;
		return MR_E_IO;
	}
	return fd;
}

/* Until @fd has @events or stop_fd is readable: 0, MR_E_CANCELLED, MR_E_IO, or MR_E_TIMEOUT. */
static int wait_for(int fd, short events, int stop_fd, int ms)
{
	struct pollfd p[2] = {{.fd = stop_fd, .events = POLLIN}, {.fd = fd, .events = events}};

	for (;;) {
		int n = poll(p, 2, ms);

		if (n < 0 && errno != EINTR)
			return MR_E_IO;
		if (!n)
			return MR_E_TIMEOUT;
		if (n > 0 && p[0].revents)
			return MR_E_CANCELLED;
		if (n > 0 && p[1].revents)
			return 0;
	}
}

int mr_vfio_user_accept(int listener, int stop_fd)
{
	for (;;) {
		int status = wait_for(listener, POLLIN, stop_fd, -1);
		int fd;

		if (status)
			return status;
		fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (fd >= 0)
			return fd;
		if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
			return MR_E_IO;
	}
}

/* Descriptors of @m to fds; what has no place is closed. */
static void take_fds(struct msghdr *m, int *fds, uint32_t max, uint32_t *count)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < n; i++) {
			int fd;
			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
			if (max && *count < max)
				fds[(*count)++] = fd;
			else
				close(fd);
		}
	}
}

static int socket_receive(void *ctx, void *to, size_t bytes, int *fds, uint32_t max,
			  uint32_t *count)
{
	struct mr_vfio_user_socket *s = ctx;
	uint8_t *at = to;

	while (bytes) {
		char control[CMSG_SPACE(MR_VU_FDS_MAX * sizeof(int))];
		struct iovec v = {at, bytes};
		struct msghdr m = {
			.msg_iov = &v,
			.msg_iovlen = 1,
			.msg_control = control,
			.msg_controllen = sizeof(control),
		};
		ssize_t n = recvmsg(s->fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
		if (n > 0) {
			take_fds(&m, fds, max, count);
			at += n;
			bytes -= (size_t)n;
			continue;
		}
		if (n == 0 || (errno != EAGAIN && errno != EINTR))
			return MR_E_DISCONNECTED;
		int status = wait_for(s->fd, POLLIN, s->stop_fd, -1);
		if (status)
			return status == MR_E_CANCELLED ? status : MR_E_DISCONNECTED;
	}
	return 0;
}

static int socket_send(void *ctx, const void *from, size_t bytes, int fd)
{
	struct mr_vfio_user_socket *s = ctx;
	const uint8_t *at = from;

	while (bytes) {
		char control[CMSG_SPACE(sizeof(int))] = {0};
		struct iovec v = {(void *)(uintptr_t)at, bytes};
		struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};
		if (fd >= 0) {
			m.msg_control = control;
			m.msg_controllen = sizeof(control);
			struct cmsghdr *c = CMSG_FIRSTHDR(&m);
			c->cmsg_level = SOL_SOCKET;
			c->cmsg_type = SCM_RIGHTS;
			c->cmsg_len = CMSG_LEN(sizeof(fd));
			memcpy(CMSG_DATA(c), &fd, sizeof(fd));
		}
		ssize_t n = sendmsg(s->fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n > 0) {
			fd = -1; /* it went with the first byte */
			at += n;
			bytes -= (size_t)n;
			continue;
		}
		if (errno != EAGAIN && errno != EINTR)
			return MR_E_DISCONNECTED;
		int status = wait_for(s->fd, POLLOUT, s->stop_fd, SEND_MS);
		if (status)
			return status == MR_E_CANCELLED ? status : MR_E_DISCONNECTED;
	}
	return 0;
}

struct mr_vfio_user_transport mr_vfio_user_socket_transport(struct mr_vfio_user_socket *socket)
{
	return (struct mr_vfio_user_transport){socket_receive, socket_send, socket};
}

/* One transfer's outcome: 1 = go on, 0 = wait, or a negative status. */
static int passed(ssize_t n)
{
	if (n > 0)
		return 1;
	return n < 0 && (errno == EAGAIN || errno == EINTR) ? 0 : MR_E_DISCONNECTED;
}

static int stream_receive(void *ctx, void *to, size_t bytes, int *fds, uint32_t max,
			  uint32_t *count)
{
	struct mr_vfio_user_stream *s = ctx;
	uint8_t *at = to;

	while (bytes) {
		int status = wait_for(s->in, POLLIN, s->stop_fd, -1);
		if (status)
			return status == MR_E_CANCELLED ? status : MR_E_DISCONNECTED;
		ssize_t n = read(s->in, at, bytes);
		status = passed(n);
		if (status < 0)
			return status;
		at += status ? n : 0;
		bytes -= status ? (size_t)n : 0;
	}
	return 0;
}

static int stream_send(void *ctx, const void *from, size_t bytes, int fd)
{
	struct mr_vfio_user_stream *s = ctx;
	const uint8_t *at = from;

	while (bytes) {
		int status = wait_for(s->out, POLLOUT, s->stop_fd, SEND_MS);
		if (status)
			return status == MR_E_CANCELLED ? status : MR_E_DISCONNECTED;
		ssize_t n = write(s->out, at, bytes);
		status = passed(n);
		if (status < 0)
			return status;
		at += status ? n : 0;
		bytes -= status ? (size_t)n : 0;
	}
	return 0;
}

struct mr_vfio_user_transport mr_vfio_user_stream_transport(struct mr_vfio_user_stream *stream)
{
	return (struct mr_vfio_user_transport){stream_receive, stream_send, stream};
}
