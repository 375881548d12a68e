/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connecting: the handshake over the server's Unix socket and the four descriptors that come of it.
 * Everything has a bound in time; what the server sends is checked before it is used.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "userlib/own.h"

int mr_ring_path(char *path, size_t bytes)
{
	const char *direct = getenv("MILLRACE_SOCKET");
	const char *run = getenv("XDG_RUNTIME_DIR");
	int n;

	if (direct && *direct)
		n = snprintf(path, bytes, "%s", direct);
	else
		n = snprintf(path, bytes, "%s/millrace.sock", run && *run ? run : "/run");
	return n < 0 || (size_t)n >= bytes ? MR_E_TOO_LARGE : n;
}

static int socket_error(int error)
{
	switch (error) {
	case ENOENT:
	case ECONNREFUSED:
	case ENOTDIR:
		return MR_E_NOT_FOUND;
	case EACCES:
	case EPERM:
		return MR_E_PERMISSION;
	case ENOMEM:
	case ENOBUFS:
		return MR_E_NO_MEMORY;
	case EPIPE:
	case ECONNRESET:
		return MR_E_PROTOCOL;
	default:
		return MR_E_IO;
	}
}

static int open_socket(const char *path, uint64_t deadline)
{
	const struct timespec pause = {.tv_nsec = 1000000};
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd, rc;

	if (path) {
		rc = snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
		if (rc < 0 || (size_t)rc >= sizeof(address.sun_path))
			return MR_E_TOO_LARGE;
	} else {
		rc = mr_ring_path(address.sun_path, sizeof(address.sun_path));
		if (rc < 0)
			return rc;
	}
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return socket_error(errno);
	while (connect(fd, (const struct sockaddr *)&address, sizeof(address))) {
		/* EAGAIN: the server's backlog is full; there is nothing to poll for. */
		rc = errno == EAGAIN || errno == EINTR ? 0 : socket_error(errno);
		if (!rc && ring_now() >= deadline)
			rc = MR_E_TIMEOUT;
		if (rc) {
			close(fd);
			return rc;
		}
		nanosleep(&pause, NULL);
	}
	return fd;
}

static void close_all(const int *fds, int count)
{
	for (int i = 0; i < count; i++)
		close(fds[i]);
}

/* Takes the welcome and its descriptors out of one message. Returns how many came. */
static int receive(int fd, struct mr_welcome *welcome, int fds[MR_FD_COUNT])
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int) * MR_FD_COUNT)];
	} control;
	struct iovec part = {.iov_base = welcome, .iov_len = sizeof(*welcome)};
	struct msghdr message = {.msg_iov = &part,
				 .msg_iovlen = 1,
				 .msg_control = &control,
				 .msg_controllen = sizeof(control)};
	struct cmsghdr *c;
	int count = 0;
	ssize_t n;

	n = recvmsg(fd, &message, MSG_CMSG_CLOEXEC);
	if (n < 0)
		return socket_error(errno);
	for (c = CMSG_FIRSTHDR(&message); c; c = CMSG_NXTHDR(&message, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS || count)
			continue;
		count = (int)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		memcpy(fds, CMSG_DATA(c), (size_t)count * sizeof(int));
	}
	if (n != sizeof(*welcome) || (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) ||
	    welcome->magic != MR_WELCOME_MAGIC) {
		close_all(fds, count);
		return MR_E_PROTOCOL;
	}
	return count;
}

static int shake(int fd, const struct mr_ring_options *options, uint64_t deadline,
		 struct mr_welcome *welcome, int fds[MR_FD_COUNT])
{
	struct mr_hello hello = {.magic = MR_HELLO_MAGIC,
				 .version = MR_RING_VERSION,
				 .bytes = sizeof(hello),
				 .features = options->features | options->required,
				 .required = options->required,
				 .sq_entries = options->sq_entries,
				 .cq_entries = options->cq_entries,
				 .data_bytes = options->data_bytes};
	struct pollfd ready = {.fd = fd, .events = POLLIN};
	uint64_t now;
	int rc;

	if (send(fd, &hello, sizeof(hello), MSG_NOSIGNAL) != sizeof(hello))
		return socket_error(errno);
	for (;;) {
		now = ring_now();
		if (now >= deadline)
			return MR_E_TIMEOUT;
		rc = poll(&ready, 1, (int)((deadline - now) / 1000000 + 1));
		if (rc > 0)
			break;
		if (rc < 0 && errno != EINTR)
			return MR_E_IO;
	}
	rc = receive(fd, welcome, fds);
	if (rc < 0)
		return rc;
	if (welcome->status || rc != MR_FD_COUNT) {
		close_all(fds, rc);
		return welcome->status < 0 ? welcome->status : MR_E_PROTOCOL;
	}
	return 0;
}

/* A file that says another size, or that could shrink under us, is refused. */
static void *map_sealed(int fd, uint64_t bytes, int protection, int flags)
{
	int seals = fcntl(fd, F_GET_SEALS);
	struct stat st;
	void *p;

	if (!bytes || bytes > SIZE_MAX / 2 || fstat(fd, &st) || (uint64_t)st.st_size != bytes ||
	    seals < 0 || !(seals & F_SEAL_SHRINK))
		return NULL;
	p = mmap(NULL, bytes, protection, flags, fd, 0);
	return p == MAP_FAILED ? NULL : p;
}

static int take_vocab(struct mr_ring_private *own, int fd, uint64_t bytes)
{
	const struct mr_vocab_header *h;
	uint64_t entries;

	/* Private: a shared mapping of a write-sealed file is refused by kernels before 6.7. */
	own->vocab_map = map_sealed(fd, bytes, PROT_READ, MAP_PRIVATE);
	if (!own->vocab_map)
		return MR_E_PROTOCOL;
	own->vocab_map_bytes = bytes;
	h = own->vocab_map;
	if (bytes < sizeof(*h) || h->magic != MR_VOCAB_MAGIC || h->version != MR_RING_VERSION)
		return MR_E_PROTOCOL;
	entries = (uint64_t)h->count * sizeof(struct mr_vocab_entry);
	if (entries > bytes - sizeof(*h) || h->bytes > bytes - sizeof(*h) - entries)
		return MR_E_PROTOCOL;
	own->vocab = (const struct mr_vocab_entry *)(h + 1);
	own->vocab_text = (const char *)(own->vocab + h->count);
	own->vocab_text_bytes = h->bytes;
	own->vocab_count = h->count;
	return 0;
}

/* Takes @fds and @fd over, also where it fails. */
static int build(int fd, const int fds[MR_FD_COUNT], const struct mr_welcome *welcome,
		 struct mr_ring **ring)
{
	const int kept[3] = {fd, fds[MR_FD_SQ], fds[MR_FD_CQ]};
	void *memory;
	int rc = MR_E_PROTOCOL;

	memory = map_sealed(fds[MR_FD_MEMORY], welcome->memory_bytes, PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_POPULATE);
	if (memory)
		rc = mr_ring_attach(memory, welcome->memory_bytes, kept, ring);
	if (rc) {
		if (memory)
			munmap(memory, welcome->memory_bytes);
		close_all(fds, MR_FD_COUNT);
		close(fd);
		return rc;
	}
	rc = take_vocab((*ring)->own, fds[MR_FD_VOCAB], welcome->vocab_bytes);
	close(fds[MR_FD_MEMORY]);
	close(fds[MR_FD_VOCAB]);
	if (rc)
		mr_ring_disconnect(*ring);
	return rc;
}

int mr_ring_connect(const struct mr_ring_options *options, struct mr_ring **ring)
{
	static const struct mr_ring_options none;
	struct mr_welcome welcome;
	struct mr_ring *made = NULL;
	int fds[MR_FD_COUNT];
	uint64_t deadline;
	int fd, rc;

	*ring = NULL;
	if (!options)
		options = &none;
	if (options->reserved)
		return MR_E_INVALID;
	deadline = ring_now() + (options->timeout_ms ? options->timeout_ms : 5000) * 1000000ull;
	fd = open_socket(options->path, deadline);
	if (fd < 0)
		return fd;
	rc = shake(fd, options, deadline, &welcome, fds);
	if (rc) {
		close(fd);
		return rc;
	}
	rc = build(fd, fds, &welcome, &made);
	if (rc)
		return rc;
	if (options->spin_us)
		made->own->spin_ns = options->spin_us * 1000ull;
	if (options->silent_ms)
		made->own->silent_ns = options->silent_ms * 1000000ull;
	*ring = made;
	return 0;
}
