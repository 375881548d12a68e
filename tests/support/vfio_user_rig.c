// SPDX-License-Identifier: Apache-2.0
#include "support/vfio_user_rig.h"

#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "firmware-sim/sim.h"

static int rig_receive(void *ctx, void *to, size_t bytes, int *fds, uint32_t max, uint32_t *count)
{
	struct vu_rig *rig = ctx;

	return rig->transport.receive(rig->transport.ctx, to, bytes, fds, max, count);
}

static int rig_send(void *ctx, const void *from, size_t bytes, int fd)
{
	struct vu_rig *rig = ctx;
	struct mr_vu_header head;
	uint8_t *copy;
	int status = 0;

	rig->replies++;
	if (!rig->spoil)
		return rig->transport.send(rig->transport.ctx, from, bytes, fd);
	copy = calloc(1, bytes + 8192);
	memcpy(copy, from, bytes);
	memcpy(&head, from, sizeof(head));
	if (!rig->spoil(rig, &head, copy, &bytes)) {
		memcpy(copy, &head, sizeof(head) < bytes ? sizeof(head) : bytes);
		status = rig->transport.send(rig->transport.ctx, copy, bytes, fd);
	}
	free(copy);
	return status;
}

static void *serve(void *arg)
{
	struct vu_rig *rig = arg;
	int fd;

	while ((fd = mr_vfio_user_accept(rig->listener, rig->stop_fd)) >= 0) {
		const struct mr_vfio_user_transport spoilt = {rig_receive, rig_send, rig};
		rig->socket = (struct mr_vfio_user_socket){fd, rig->stop_fd};
		rig->transport = mr_vfio_user_socket_transport(&rig->socket);
		rig->replies = 0;
		__atomic_store_n(&rig->ended, mr_vfio_user_serve(rig->server, &spoilt),
				 __ATOMIC_RELAXED);
		close(fd);
	}
	return NULL;
}

void vu_rig_serve(struct vu_rig *rig)
{
	rig->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	rig->listener = mr_vfio_user_listen(rig->path);
	assert_true(rig->listener >= 0);
	assert_int_equal(pthread_create(&rig->thread, NULL, serve, rig), 0);
}

void vu_rig_start(struct vu_rig *rig, int trapped)
{
	const struct mr_sim_options sim = {.chip_path = "tiny"};
	struct mr_vfio_user_options o = {.port = &rig->port, .doorbell_fd = -1};

	memset(rig, 0, sizeof(*rig));
	strcpy(rig->folder, "/tmp/mr-vu-XXXXXX");
	assert_non_null(mkdtemp(rig->folder));
	snprintf(rig->path, sizeof(rig->path), "%s/s", rig->folder);
	assert_int_equal(mr_sim_create(&sim, &rig->port), 0);
	if (!trapped)
		o.doorbell_fd = mr_sim_doorbell_fd(&rig->port, &o.doorbell_bytes);
	assert_int_equal(mr_vfio_user_create(&o, &rig->server), 0);
	vu_rig_serve(rig);
}

void vu_rig_stop_server(struct vu_rig *rig)
{
	const uint64_t one = 1;

	assert_int_equal(write(rig->stop_fd, &one, sizeof(one)), sizeof(one));
	pthread_join(rig->thread, NULL);
	close(rig->listener);
	close(rig->stop_fd);
	unlink(rig->path);
}

void vu_rig_stop(struct vu_rig *rig)
{
	vu_rig_stop_server(rig);
	mr_vfio_user_destroy(rig->server);
	rig->port.ops->close(rig->port.ctx);
	rmdir(rig->folder);
}

/* ---- a raw client ------------------------------------------------------------------------------ */

int vu_memfd(size_t bytes, int sealed)
{
	int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	assert_true(fd >= 0 && !ftruncate(fd, (off_t)bytes));
	if (sealed)
		assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK), 0);
	return fd;
}

int vu_raw_connect(const struct vu_rig *rig, int version)
{
	struct {
		struct mr_vu_version v;
		char json[64];
	} ask = {{MR_VU_MAJOR, MR_VU_MINOR}, "{\"capabilities\":{}}"};
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	uint8_t out[512];
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	memcpy(a.sun_path, rig->path, strlen(rig->path));
	assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	if (version)
		assert_int_equal(vu_raw_do(fd, MR_VU_VERSION, &ask,
					   (uint32_t)(sizeof(ask.v) + strlen(ask.json) + 1), out,
					   sizeof(out)),
				 0);
	return fd;
}

void vu_raw_send(int fd, uint16_t command, uint32_t flags, const void *in, uint32_t bytes,
		 const int *fds, uint32_t fd_count)
{
	struct mr_vu_header head = {77, command, (uint32_t)sizeof(head) + bytes, flags, 0};
	char control[CMSG_SPACE(32 * sizeof(int))] = {0};
	struct iovec v[2] = {{&head, sizeof(head)}, {(void *)(uintptr_t)in, bytes}};
	struct msghdr m = {.msg_iov = v, .msg_iovlen = 2};

	if (fd_count) {
		m.msg_control = control;
		m.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
		struct cmsghdr *c = CMSG_FIRSTHDR(&m);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(fd_count * sizeof(int));
		memcpy(CMSG_DATA(c), fds, fd_count * sizeof(int));
	}
	sendmsg(fd, &m, MSG_NOSIGNAL);
}

static int take(int fd, void *to, size_t bytes, int *got_fd)
{
	uint8_t *at = to;

	while (bytes) {
		char control[CMSG_SPACE(sizeof(int))];
		struct pollfd p = {.fd = fd, .events = POLLIN};
		struct iovec v = {at, bytes};
		struct msghdr m = {.msg_iov = &v,
				   .msg_iovlen = 1,
				   .msg_control = control,
				   .msg_controllen = sizeof(control)};
		assert_int_equal(poll(&p, 1, 20000), 1);
		ssize_t n = recvmsg(fd, &m, MSG_CMSG_CLOEXEC);
		if (n <= 0)
			return -1;
		struct cmsghdr *c = CMSG_FIRSTHDR(&m);
		if (c) {
			int got;
			memcpy(&got, CMSG_DATA(c), sizeof(got));
			if (got_fd)
				*got_fd = got;
			else
				close(got);
		}
		at += n;
		bytes -= (size_t)n;
	}
	return 0;
}

int vu_raw_reply(int fd, uint16_t command, void *out, uint32_t room, uint32_t *bytes, int *got_fd)
{
	struct mr_vu_header head;

	if (got_fd)
		*got_fd = -1;
	if (take(fd, &head, sizeof(head), got_fd))
		return -1;
	assert_int_equal(head.id, 77);
	assert_int_equal(head.command, command);
	assert_true(head.flags & MR_VU_FLAG_REPLY);
	uint32_t n = head.bytes - (uint32_t)sizeof(head);
	if (head.flags & MR_VU_FLAG_ERROR) {
		assert_int_equal(n, 0);
		assert_int_not_equal(head.error, 0);
		return (int)head.error;
	}
	assert_true(n <= room);
	if (n)
		assert_int_equal(take(fd, out, n, got_fd), 0);
	if (bytes)
		*bytes = n;
	return 0;
}

int vu_raw_do(int fd, uint16_t command, const void *in, uint32_t bytes, void *out, uint32_t room)
{
	vu_raw_send(fd, command, 0, in, bytes, NULL, 0);
	return vu_raw_reply(fd, command, out, room, NULL, NULL);
}
