/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control plane: the socket, who may connect, the handshake, and hang-ups. Everything is
 * non-blocking and hangs off one epoll set, which is also what the loop sleeps on.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "driver/ring/internal.h"

#define HELLO_NS   2000000000u /* how long a connection may stay silent */
#define ACCEPT_MAX 8           /* connections accepted in one control turn */
#define BACKLOG    64

/* What an event of the epoll set is about; the low half is an index. */
enum { TAG_LISTEN, TAG_PENDING, TAG_CLIENT, TAG_WAKE };

static uint64_t tag(uint32_t kind, uint32_t index)
{
	return (uint64_t)kind << 32 | index;
}

static int watch(struct mr_ring_server *server, int fd, uint32_t events, uint64_t data)
{
	struct epoll_event event = {.events = events, .data.u64 = data};

	return epoll_ctl(server->epoll_fd, EPOLL_CTL_ADD, fd, &event) ? MR_E_IO : 0;
}

/* ---- the socket ---- */

/* A socket file that nobody listens on any more is removed; anything else stays. */
static int clear_path(const struct sockaddr_un *address)
{
	struct stat st;
	int fd, rc;

	if (lstat(address->sun_path, &st))
		return errno == ENOENT ? 0 : MR_E_IO;
	if (!S_ISSOCK(st.st_mode))
		return MR_E_EXISTS;
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return MR_E_IO;
	rc = connect(fd, (const struct sockaddr *)address, sizeof(*address)) ? errno : 0;
	close(fd);
	if (rc != ECONNREFUSED)
		return MR_E_BUSY;
	return unlink(address->sun_path) && errno != ENOENT ? MR_E_PERMISSION : 0;
}

int mr_ring_listen(struct mr_ring_server *server)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct stat st;
	int rc;

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", server->path);
	rc = clear_path(&address);
	if (rc)
		return rc;
	server->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	server->listen_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (server->epoll_fd < 0 || server->listen_fd < 0)
		return MR_E_IO;
	/* The file gets these permissions less umask as it is made, and exactly these then. */
	fchmod(server->listen_fd, server->options.socket_mode);
	if (bind(server->listen_fd, (const struct sockaddr *)&address, sizeof(address))) {
		rc = errno;
		return rc == EACCES || rc == EPERM || rc == EROFS ? MR_E_PERMISSION : MR_E_IO;
	}
	if (stat(server->path, &st))
		return MR_E_IO;
	server->path_device = st.st_dev;
	server->path_inode = st.st_ino;
	if (chmod(server->path, server->options.socket_mode) || listen(server->listen_fd, BACKLOG))
		return MR_E_IO;
	return watch(server, server->listen_fd, EPOLLIN, tag(TAG_LISTEN, 0));
}

void mr_ring_unlisten(struct mr_ring_server *server)
{
	struct stat st;

	for (uint32_t i = 0; i < RING_PENDING_MAX; i++)
		if (server->pending[i].fd >= 0)
			close(server->pending[i].fd);
	if (server->path_inode && !lstat(server->path, &st) && st.st_dev == server->path_device &&
	    st.st_ino == server->path_inode)
		unlink(server->path);
	if (server->listen_fd >= 0)
		close(server->listen_fd);
	if (server->epoll_fd >= 0)
		close(server->epoll_fd);
}

/* ---- the handshake ---- */

/* Sends the welcome, with the descriptors where @client is not NULL. 0 or -1. */
static int welcome(const struct mr_ring_server *server, int socket, int status,
		   const struct ring_client *client)
{
	struct mr_welcome reply = {.magic = MR_WELCOME_MAGIC,
				   .version = MR_RING_VERSION,
				   .status = status,
				   .supported = server->features};
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int) * MR_FD_COUNT)];
	} control = {0};
	struct iovec part = {.iov_base = &reply, .iov_len = sizeof(reply)};
	struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
	int *fds;

	if (client) {
		reply.features = client->features;
		reply.memory_bytes = client->mem.bytes;
		reply.vocab_bytes = server->vocab_bytes;
		reply.client = client->id;
		message.msg_control = &control;
		message.msg_controllen = sizeof(control);
		control.header.cmsg_level = SOL_SOCKET;
		control.header.cmsg_type = SCM_RIGHTS;
		control.header.cmsg_len = CMSG_LEN(sizeof(int) * MR_FD_COUNT);
		fds = (int *)CMSG_DATA(&control.header);
		fds[MR_FD_MEMORY] = client->mem.fd;
		fds[MR_FD_SQ] = client->sq_fd;
		fds[MR_FD_CQ] = client->cq_fd;
		fds[MR_FD_VOCAB] = server->vocab_fd;
	}
	return sendmsg(socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT) == sizeof(reply) ? 0 : -1;
}

static void turn_away(const struct mr_ring_server *server, int socket, int status)
{
	mr_count(MR_M_ring_bad_hello, 1);
	(void)welcome(server, socket, status, NULL);
	close(socket);
}

static int check_hello(const struct mr_ring_server *server, const struct mr_hello *hello,
		       ssize_t bytes)
{
	if (bytes != sizeof(*hello) || hello->magic != MR_HELLO_MAGIC)
		return MR_E_PROTOCOL;
	if (hello->version != MR_RING_VERSION || hello->bytes != sizeof(*hello))
		return MR_E_VERSION;
	if (hello->reserved[0] || hello->reserved[1])
		return MR_E_INVALID;
	if (hello->required & ~server->features)
		return MR_E_VERSION;
	if (hello->sq_entries > MR_SQ_ENTRIES_MAX || hello->cq_entries > MR_CQ_ENTRIES_MAX ||
	    hello->data_bytes > MR_DATA_BYTES_MAX)
		return MR_E_RANGE;
	return 0;
}

/* Makes a client of a connection that said hello well. Takes @socket over. */
static void admit(struct mr_ring_server *server, int socket, const struct mr_hello *hello)
{
	struct ring_client *client;
	int rc = mr_ring_client_create(server, hello, socket, &client);

	if (rc) {
		turn_away(server, socket, rc);
		return;
	}
	mr_count(MR_M_ring_clients, 1);
	/* The eventfd is edge-triggered: waking the loop is all that it is for, nobody reads it. */
	if (watch(server, socket,
		  EPOLLRDHUP | (client->features & MR_FEATURE_BUFFERS ? EPOLLIN : 0),
		  tag(TAG_CLIENT, client->place)) ||
	    watch(server, client->sq_fd, EPOLLIN | EPOLLET, tag(TAG_WAKE, client->place)) ||
	    welcome(server, socket, 0, client)) {
		mr_ring_client_hang_up(client);
		return;
	}
	close(client->mem.fd);
	client->mem.fd = -1;
}

static void hear(struct mr_ring_server *server, struct ring_pending *pending)
{
	struct mr_hello hello;
	int fd = pending->fd;
	ssize_t n;
	int rc;

	/* recv, not recvmsg: descriptors that a client sends are dropped by the kernel. */
	n = recv(fd, &hello, sizeof(hello), MSG_DONTWAIT | MSG_TRUNC);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	epoll_ctl(server->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
	pending->fd = -1;
	rc = check_hello(server, &hello, n);
	if (rc)
		turn_away(server, fd, rc);
	else
		admit(server, fd, &hello);
}

static int user_ok(const struct mr_ring_server *server, int fd)
{
	struct ucred peer;
	socklen_t bytes = sizeof(peer);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &bytes))
		return 0;
	if (peer.uid == 0 || peer.uid == geteuid())
		return 1;
	for (uint32_t i = 0; i < server->options.uid_count; i++)
		if (peer.uid == server->options.uids[i])
			return 1;
	return 0;
}

static int accept_some(struct mr_ring_server *server, uint64_t now_ns)
{
	int work = 0;

	while (work < ACCEPT_MAX) {
		uint32_t i = 0;
		int fd = accept4(server->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

		if (fd < 0)
			break;
		work++;
		while (i < RING_PENDING_MAX && server->pending[i].fd >= 0)
			i++;
		if (!user_ok(server, fd))
			turn_away(server, fd, MR_E_PERMISSION);
		else if (i == RING_PENDING_MAX || watch(server, fd, EPOLLIN, tag(TAG_PENDING, i)))
			turn_away(server, fd, MR_E_FULL);
		else
			server->pending[i] = (struct ring_pending){.fd = fd, .since_ns = now_ns};
	}
	return work;
}

/* A client's socket has ended, or says something. */
static void heard(struct ring_client *client, uint32_t events)
{
	if ((events & ~(uint32_t)EPOLLIN) || mr_ring_buffer_message(client))
		mr_ring_client_hang_up(client);
}

int mr_ring_control(struct mr_ring_server *server, uint64_t now_ns)
{
	struct epoll_event events[32];
	int count = epoll_wait(server->epoll_fd, events, 32, 0);
	int work = count > 0 ? count : 0;

	for (int i = 0; i < count; i++) {
		uint32_t index = (uint32_t)events[i].data.u64;

		switch (events[i].data.u64 >> 32) {
		case TAG_LISTEN:
			accept_some(server, now_ns);
			break;
		case TAG_PENDING:
			if (server->pending[index].fd >= 0)
				hear(server, &server->pending[index]);
			break;
		case TAG_CLIENT:
			if (server->clients[index])
				heard(server->clients[index], events[i].events);
			break;
		default: /* a kick: it has woken the loop, and the loop looks at every ring */
			break;
		}
	}
	for (uint32_t i = 0; i < RING_PENDING_MAX; i++)
		if (server->pending[i].fd >= 0 && now_ns - server->pending[i].since_ns > HELLO_NS) {
			epoll_ctl(server->epoll_fd, EPOLL_CTL_DEL, server->pending[i].fd, NULL);
			turn_away(server, server->pending[i].fd, MR_E_TIMEOUT);
			server->pending[i].fd = -1;
		}
	return work;
}
