/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Registered buffers: memfds of the client's own, from which prompts are copied as from the data area. They come
 * over the connection's socket; listen.c calls this when there is something to read. Control plane: it maps and
 * unmaps, never blocks, and is done at most once a turn for a client.
 *
 * A file that its client can still cut short would make our next access a SIGBUS, so it must be sealed against
 * shrinking; and it must be a memfd of 4 KiB pages, where a hole that the client punches reads zeros. On huge
 * pages it might find none free, which is a SIGBUS again. Nothing is ever mapped for a device.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "driver/ring/internal.h"

static int check_file(int fd, uint64_t *bytes)
{
	int seals = fcntl(fd, F_GET_SEALS);
	struct statfs fs;
	struct stat st;

	if (seals < 0 || fstatfs(fd, &fs) || fstat(fd, &st))
		return MR_E_FORMAT;
	if (fs.f_type == HUGETLBFS_MAGIC)
		return MR_E_NOT_SUPPORTED;
	if (fs.f_type != TMPFS_MAGIC)
		return MR_E_FORMAT;
	if (!(seals & F_SEAL_SHRINK))
		return MR_E_PERMISSION;
	if (st.st_size < 1 || (uint64_t)st.st_size > MR_BUFFER_BYTES_MAX)
		return MR_E_RANGE;
	*bytes = (uint64_t)st.st_size;
	return 0;
}

static int add(struct ring_client *client, uint32_t number, int fd)
{
	struct ring_area *area;
	uint64_t bytes;
	void *base;
	int rc;

	if (number < 1 || number > MR_BUFFERS_MAX)
		return MR_E_RANGE;
	area = &client->areas[number];
	if (area->base)
		return MR_E_EXISTS;
	if (fd < 0)
		return MR_E_PROTOCOL;
	rc = check_file(fd, &bytes);
	if (rc)
		return rc;
	/* Private: a shared mapping of a write-sealed file is refused by kernels before 6.7. */
	base = mmap(NULL, bytes, PROT_READ, MAP_PRIVATE | MAP_NORESERVE, fd, 0);
	if (base == MAP_FAILED)
		return MR_E_NO_MEMORY;
	*area = (struct ring_area){.base = base, .bytes = bytes};
	mr_count(MR_M_ring_buffers, 1);
	return 0;
}

static int drop(struct ring_client *client, uint32_t number)
{
	struct ring_area *area;

	if (number < 1 || number > MR_BUFFERS_MAX)
		return MR_E_RANGE;
	area = &client->areas[number];
	if (!area->base)
		return MR_E_NOT_FOUND;
	munmap((void *)area->base, area->bytes);
	*area = (struct ring_area){0};
	return 0;
}

void mr_ring_buffers_drop(struct ring_client *client)
{
	for (uint32_t i = 1; i <= MR_BUFFERS_MAX; i++)
		(void)drop(client, i);
}

static int act(struct ring_client *client, const struct mr_register *ask, ssize_t bytes, int fd)
{
	if (bytes != sizeof(*ask) || ask->magic != MR_REGISTER_MAGIC)
		return MR_E_PROTOCOL;
	if (ask->version != MR_RING_VERSION)
		return MR_E_VERSION;
	for (unsigned i = 0; i < sizeof(ask->reserved) / sizeof(ask->reserved[0]); i++)
		if (ask->reserved[i])
			return MR_E_INVALID;
	if (ask->status || ask->bytes)
		return MR_E_INVALID;
	switch (ask->op) {
	case MR_REGISTER_ADD:
		return add(client, ask->buffer, fd);
	case MR_REGISTER_DROP:
		return drop(client, ask->buffer);
	default:
		return MR_E_NOT_SUPPORTED;
	}
}

/* One message and the first descriptor with it; others are closed. Returns its bytes, or -1 and errno. */
static ssize_t receive(int socket, struct mr_register *ask, int *fd)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int) * 4)];
	} control;
	struct iovec part = {.iov_base = ask, .iov_len = sizeof(*ask)};
	struct msghdr message = {.msg_iov = &part,
				 .msg_iovlen = 1,
				 .msg_control = &control,
				 .msg_controllen = sizeof(control)};
	ssize_t bytes = recvmsg(socket, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC | MSG_TRUNC);
	struct cmsghdr *c;

	*fd = -1;
	for (c = bytes < 0 ? NULL : CMSG_FIRSTHDR(&message); c; c = CMSG_NXTHDR(&message, c)) {
		size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		const int *fds = (const int *)CMSG_DATA(c);

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < count; i++) {
			if (*fd < 0)
				*fd = fds[i];
			else
				close(fds[i]);
		}
	}
	return bytes;
}

int mr_ring_buffer_message(struct ring_client *client)
{
	struct mr_register ask = {0}, reply;
	ssize_t bytes;
	int fd;

	bytes = receive(client->socket, &ask, &fd);
	if (bytes < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -1;
	if (bytes == 0)
		return -1; /* its end */
	reply = (struct mr_register){.magic = MR_REGISTER_MAGIC,
				     .version = MR_RING_VERSION,
				     .op = ask.op,
				     .buffer = ask.buffer,
				     .status = act(client, &ask, bytes, fd)};
	if (fd >= 0)
		close(fd);
	if (reply.status)
		mr_count(MR_M_ring_bad_buffer, 1);
	else if (ask.op == MR_REGISTER_ADD)
		reply.bytes = client->areas[ask.buffer].bytes;
	/* Who does not read its answers until no more fit has broken the protocol. */
	return send(client->socket, &reply, sizeof(reply), MSG_NOSIGNAL | MSG_DONTWAIT) ==
			       sizeof(reply)
		       ? 0
		       : -1;
}
