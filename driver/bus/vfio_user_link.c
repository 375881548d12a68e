// SPDX-License-Identifier: Apache-2.0
#include "driver/bus/vfio_user_link.h"

#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <millrace/status.h>

#define LOOK_MS   100   /* between two looks for commands of the server */
#define STRAY_MAX 1024u /* commands of the server between a request and its reply */

void mr_vu_why(struct vu_link *link, const char *format, ...)
{
	va_list args;

	if (!link->why || !link->why_bytes || link->why[0])
		return; /* the first reason is the cause */
	va_start(args, format);
	vsnprintf(link->why, link->why_bytes, format, args);
	va_end(args);
}

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* Gives the connection up. Returns the status that stands, the first one's. */
static int lose(struct vu_link *link, int status)
{
	int32_t none = 0;

	if (!__atomic_compare_exchange_n(&link->lost, &none, status, 0, __ATOMIC_SEQ_CST,
					 __ATOMIC_SEQ_CST))
		return none;
	/* Not closed: its number must not name another file while a thread looks at it. */
	shutdown(link->fd, SHUT_RDWR);
	if (link->on_lost)
		link->on_lost(link->arg, status);
	return status;
}

static int lost(const struct vu_link *link)
{
	return __atomic_load_n(&link->lost, __ATOMIC_RELAXED);
}

static int wait_for(struct vu_link *link, short events, uint64_t until)
{
	struct pollfd p = {.fd = link->fd, .events = events};

	for (;;) {
		uint64_t now = now_ms();
		int n = now < until ? poll(&p, 1, (int)(until - now)) : 0;
		if (n > 0)
			return 0;
		if (n == 0)
			return MR_E_TIMEOUT;
		if (errno != EINTR)
			return MR_E_IO;
	}
}

static int send_piece(struct vu_link *link, const void *from, size_t bytes, const int *fds,
		      uint32_t fd_count, uint64_t until)
{
	const uint8_t *at = from;

	while (bytes) {
		char control[CMSG_SPACE(MR_VU_FDS_MAX * sizeof(int))] = {0};
		struct iovec v = {(void *)(uintptr_t)at, bytes};
		struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};
		if (fd_count) {
			m.msg_control = control;
			m.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
			struct cmsghdr *c = CMSG_FIRSTHDR(&m);
			c->cmsg_level = SOL_SOCKET;
			c->cmsg_type = SCM_RIGHTS;
			c->cmsg_len = CMSG_LEN(fd_count * sizeof(int));
			memcpy(CMSG_DATA(c), fds, fd_count * sizeof(int));
		}
		ssize_t n = sendmsg(link->fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n > 0) {
			fd_count = 0; /* they went with the first byte */
			at += n;
			bytes -= (size_t)n;
			continue;
		}
		if (errno != EAGAIN && errno != EINTR)
			return MR_E_DISCONNECTED;
		int status = wait_for(link, POLLOUT, until);
		if (status)
			return status;
	}
	return 0;
}

static void close_fds(int *fds, uint32_t *count)
{
	while (*count)
		close(fds[--*count]);
}

static void take_fds(struct msghdr *m, int *fds, uint32_t *count)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < n; i++) {
			int fd;
			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
			if (*count < MR_VU_FDS_MAX)
				fds[(*count)++] = fd;
			else
				close(fd);
		}
	}
}

static int receive_piece(struct vu_link *link, void *to, size_t bytes, int *fds, uint32_t *fd_count,
			 uint64_t until)
{
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
		ssize_t n = recvmsg(link->fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
		if (n > 0) {
			take_fds(&m, fds, fd_count);
			at += n;
			bytes -= (size_t)n;
			continue;
		}
		if (n == 0 || (errno != EAGAIN && errno != EINTR))
			return MR_E_DISCONNECTED;
		int status = wait_for(link, POLLIN, until);
		if (status)
			return status;
	}
	return 0;
}

/* ---- commands of the server ------------------------------------------------------------------- */

static int answer(struct vu_link *link, const struct mr_vu_header *command, int error,
		  const void *access, const void *data, uint64_t bytes, uint64_t until)
{
	struct mr_vu_header head = {
		.id = command->id,
		.command = command->command,
		.bytes = sizeof(head),
		.flags = MR_VU_FLAG_REPLY | (error ? MR_VU_FLAG_ERROR : 0),
		.error = (uint32_t)error,
	};
	int status;

	if (command->flags & MR_VU_FLAG_NO_REPLY)
		return 0;
	if (!error)
		head.bytes += (uint32_t)(sizeof(struct mr_vu_dma_access) + bytes);
	status = send_piece(link, &head, sizeof(head), NULL, 0, until);
	if (!status && !error)
		status = send_piece(link, access, sizeof(struct mr_vu_dma_access), NULL, 0, until);
	if (!status && !error && bytes)
		status = send_piece(link, data, bytes, NULL, 0, until);
	return status;
}

/* A command whose header has come: DMA by message, else refused. 0, or the connection's end. */
static int serve_command(struct vu_link *link, const struct mr_vu_header *head, uint64_t until)
{
	uint32_t bytes = head->bytes - (uint32_t)sizeof(*head), fd_count = 0;
	struct mr_vu_dma_access a = {0};
	int fds[MR_VU_FDS_MAX];
	int status;

	if (bytes > sizeof(link->in))
		return MR_E_PROTOCOL;
	status = bytes ? receive_piece(link, link->in, bytes, fds, &fd_count, until) : 0;
	close_fds(fds, &fd_count);
	if (status)
		return status;
	if (head->command != MR_VU_DMA_READ && head->command != MR_VU_DMA_WRITE)
		return answer(link, head, ENOTSUP, NULL, NULL, 0, until);
	if (bytes < sizeof(a))
		return answer(link, head, EINVAL, NULL, NULL, 0, until);
	memcpy(&a, link->in, sizeof(a));
	int write = head->command == MR_VU_DMA_WRITE;
	if (!a.count || a.count > MR_VU_XFER_MAX || bytes - sizeof(a) != (write ? a.count : 0))
		return answer(link, head, EINVAL, NULL, NULL, 0, until);
	void *at = link->memory(link->arg, a.address, a.count,
				write ? MR_VU_DMA_WRITABLE : MR_VU_DMA_READABLE);
	if (!at)
		return answer(link, head, EFAULT, NULL, NULL, 0, until);
	if (!write)
		return answer(link, head, 0, &a, at, a.count, until);
	memcpy(at, link->in + sizeof(a), a.count);
	return answer(link, head, 0, &a, NULL, 0, until);
}

/* ---- requests --------------------------------------------------------------------------------- */

static int status_of(uint32_t error)
{
	switch (error) {
	case EEXIST:
		return MR_E_EXISTS;
	case ENOENT:
		return MR_E_NOT_FOUND;
	case ENOMEM:
	case ENOSPC:
		return MR_E_NO_MEMORY;
	case EPERM:
	case EACCES:
		return MR_E_PERMISSION;
	case ENOTSUP:
	case ENOTTY:
	case ENOSYS:
		return MR_E_NOT_SUPPORTED;
	case ETIMEDOUT:
		return MR_E_TIMEOUT;
	default:
		return MR_E_INVALID;
	}
}

/* The header of the reply to @id: the server's own commands before it are served. */
static int receive_head(struct vu_link *link, struct mr_vu_header *head, const struct vu_request *r,
			int *fds, uint32_t *fd_count, uint64_t until)
{
	for (uint32_t i = 0; i < STRAY_MAX; i++) {
		int status = receive_piece(link, head, sizeof(*head), fds, fd_count, until);

		if (status)
			return status;
		if (head->bytes < sizeof(*head))
			return MR_E_PROTOCOL;
		if ((head->flags & MR_VU_FLAG_TYPE) == MR_VU_FLAG_REPLY)
			return head->id == link->id && head->command == r->command ? 0
										   : MR_E_PROTOCOL;
		if (head->flags & MR_VU_FLAG_TYPE)
			return MR_E_PROTOCOL;
		close_fds(fds, fd_count);
		status = serve_command(link, head, until);
		if (status)
			return status;
	}
	return MR_E_PROTOCOL;
}

static int receive_reply(struct vu_link *link, struct vu_request *r, int *fds, uint32_t *fd_count,
			 int *refused, uint64_t until)
{
	struct mr_vu_header head;
	int status = receive_head(link, &head, r, fds, fd_count, until);
	uint32_t bytes;

	if (status)
		return status;
	bytes = head.bytes - (uint32_t)sizeof(head);
	if (head.flags & MR_VU_FLAG_ERROR) {
		*refused = status_of(head.error);
		return bytes ? MR_E_PROTOCOL : 0;
	}
	if (bytes < r->reply_min || bytes > r->reply_max)
		return MR_E_PROTOCOL;
	if (r->reply_max)
		memset(r->reply, 0, r->reply_max);
	r->reply_bytes = bytes;
	return bytes ? receive_piece(link, r->reply, bytes, fds, fd_count, until) : 0;
}

static int exchange(struct vu_link *link, struct vu_request *r, int *fds, uint32_t *fd_count,
		    int *refused)
{
	uint64_t until = now_ms() + link->timeout_ms;
	struct mr_vu_header head = {
		.id = ++link->id,
		.command = r->command,
		.bytes = (uint32_t)sizeof(head) + r->in_bytes + r->data_bytes,
	};
	int status = send_piece(link, &head, sizeof(head), r->fds, r->fd_count, until);

	if (!status && r->in_bytes)
		status = send_piece(link, r->in, r->in_bytes, NULL, 0, until);
	if (!status && r->data_bytes)
		status = send_piece(link, r->data, r->data_bytes, NULL, 0, until);
	return status ? status : receive_reply(link, r, fds, fd_count, refused, until);
}

int mr_vu_request(struct vu_link *link, struct vu_request *r)
{
	int fds[MR_VU_FDS_MAX], refused = 0, status;
	uint32_t fd_count = 0;

	pthread_mutex_lock(&link->lock);
	status = lost(link);
	if (!status) {
		status = exchange(link, r, fds, &fd_count, &refused);
		/* A late or half reply would be taken for the next one's: nothing goes on after it. */
		if (status)
			status = lose(link, status);
	}
	pthread_mutex_unlock(&link->lock);
	if (!status && !refused && r->reply_fds) {
		memcpy(r->reply_fds, fds, fd_count * sizeof(fds[0]));
		r->reply_fd_count = fd_count;
	} else {
		close_fds(fds, &fd_count);
	}
	return status ? status : refused;
}

/* ---- the watcher ------------------------------------------------------------------------------ */

/*
 * A command of the server while no request is out. Looked for now and then, not whenever the socket is readable:
 * that it is for every reply, too.
 */
static void look(struct vu_link *link)
{
	struct mr_vu_header head;
	uint32_t fd_count = 0;
	int fds[MR_VU_FDS_MAX];
	int status = 0;

	pthread_mutex_lock(&link->lock);
	ssize_t n = lost(link) ? 0 : recv(link->fd, &head, sizeof(head), MSG_PEEK | MSG_DONTWAIT);
	if (n > 0) {
		uint64_t until = now_ms() + link->timeout_ms;
		status = receive_piece(link, &head, sizeof(head), fds, &fd_count, until);
		close_fds(fds, &fd_count);
		/* No request is out, so no reply can be. */
		if (!status && (head.bytes < sizeof(head) || head.flags & MR_VU_FLAG_TYPE))
			status = MR_E_PROTOCOL;
		if (!status)
			status = serve_command(link, &head, until);
	} else if (n == 0 && !lost(link)) {
		status = MR_E_DISCONNECTED;
	}
	if (status)
		lose(link, status);
	pthread_mutex_unlock(&link->lock);
}

static void *watch(void *arg)
{
	struct vu_link *link = arg;
	struct pollfd p[2] = {{.fd = link->stop[0], .events = POLLIN},
			      {.fd = link->fd, .events = POLLRDHUP}};

	while (!lost(link)) {
		int n = poll(p, 2, LOOK_MS);
		if (n > 0 && p[0].revents)
			break;
		if (n > 0)
			lose(link, MR_E_DISCONNECTED);
		else if (n == 0)
			look(link);
	}
	return NULL;
}

int mr_vu_link_watch(struct vu_link *link)
{
	if (pipe2(link->stop, O_CLOEXEC))
		return MR_E_IO;
	if (pthread_create(&link->watcher, NULL, watch, link)) {
		close(link->stop[0]);
		close(link->stop[1]);
		return MR_E_NO_MEMORY;
	}
	pthread_setname_np(link->watcher, "vfio-user");
	link->watching = 1;
	return 0;
}

void mr_vu_link_close(struct vu_link *link)
{
	if (link->watching) {
		close(link->stop[1]); /* the other end becomes readable */
		pthread_join(link->watcher, NULL);
		close(link->stop[0]);
		link->watching = 0;
	}
	if (link->fd >= 0)
		close(link->fd);
	link->fd = -1;
}

/* ---- open ------------------------------------------------------------------------------------- */

static int connect_to(struct vu_link *link, const char *path)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	size_t n = strlen(path);

	if (!n || n >= sizeof(a.sun_path)) {
		mr_vu_why(link, "'%s' is no name that a socket can have", path);
		return MR_E_INVALID;
	}
	memcpy(a.sun_path, path, n);
	link->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (link->fd < 0)
		return MR_E_IO;
	/* A full backlog is EAGAIN at once on a Unix socket: the server serves others. */
	for (uint64_t until = now_ms() + link->timeout_ms;; usleep(1000)) {
		if (!connect(link->fd, (const struct sockaddr *)&a, sizeof(a)))
			return 0;
		if (errno != EAGAIN && errno != EINTR)
			break;
		if (now_ms() > until) {
			mr_vu_why(link, "%s takes no connection: it serves others", path);
			return MR_E_TIMEOUT;
		}
	}
	int error = errno;
	mr_vu_why(link, "%s: %s: start 'millrace lpu sim --socket %s' or name its socket", path,
		  strerror(error), path);
	return error == EACCES || error == EPERM ? MR_E_PERMISSION : MR_E_NOT_FOUND;
}

/* A capability of the server as a number, 0 < n < 2^32, or @otherwise where it names none; 0 = not a number. */
static uint32_t capability(const struct json_object *caps, const char *name, uint32_t otherwise)
{
	struct json_object *o;

	if (!caps || !json_object_object_get_ex(caps, name, &o))
		return otherwise;
	int64_t n = json_object_is_type(o, json_type_int) ? json_object_get_int64(o) : 0;
	return n > 0 && n <= UINT32_MAX ? (uint32_t)n : 0;
}

static int take_capabilities(struct vu_link *link, const char *text, uint32_t bytes)
{
	struct json_tokener *tok;
	struct json_object *root = NULL, *caps = NULL;
	int status = 0;

	link->xfer_max = MR_VU_XFER_DEFAULT;
	if (!bytes)
		return 0;
	tok = text[bytes - 1] ? NULL : json_tokener_new_ex(8);
	root = tok ? json_tokener_parse_ex(tok, text, (int)bytes) : NULL;
	if (!root || !json_object_is_type(root, json_type_object) ||
	    (json_object_object_get_ex(root, "capabilities", &caps) &&
	     !json_object_is_type(caps, json_type_object)))
		status = MR_E_PROTOCOL;
	if (!status) {
		link->xfer_max = capability(caps, MR_VU_CAP_XFER, MR_VU_XFER_DEFAULT);
		if (link->xfer_max < 4 || !capability(caps, MR_VU_CAP_FDS, MR_VU_FDS_DEFAULT))
			status = MR_E_PROTOCOL;
	}
	json_object_put(root);
	if (tok)
		json_tokener_free(tok);
	if (status)
		mr_vu_why(link, "the server's capabilities are not what vfio-user says");
	return status;
}

static int agree(struct vu_link *link)
{
	const struct mr_vu_version ours = {MR_VU_MAJOR, MR_VU_MINOR};
	uint8_t reply[sizeof(ours) + MR_VU_VERSION_BYTES_MAX];
	struct mr_vu_version theirs;
	char caps[256];
	struct vu_request r = {
		.command = MR_VU_VERSION,
		.in = &ours,
		.in_bytes = sizeof(ours),
		.data = caps,
		.reply = reply,
		.reply_min = sizeof(theirs),
		.reply_max = sizeof(reply),
	};
	int status;

	r.data_bytes = (uint32_t)snprintf(caps, sizeof(caps),
					  "{\"capabilities\":{\"" MR_VU_CAP_FDS "\":%u,"
					  "\"" MR_VU_CAP_XFER "\":%u}}",
					  MR_VU_FDS_MAX, MR_VU_XFER_MAX) +
		       1;
	status = mr_vu_request(link, &r);
	if (status == MR_E_NOT_SUPPORTED || status == MR_E_INVALID) {
		mr_vu_why(link, "the server refused vfio-user %u.%u", ours.major, ours.minor);
		return MR_E_VERSION;
	}
	if (status) {
		mr_vu_why(link, "no answer to the version: does it serve another client? is this a "
				"vfio-user server?");
		return status;
	}
	memcpy(&theirs, reply, sizeof(theirs));
	if (theirs.major != ours.major || theirs.minor > ours.minor) {
		mr_vu_why(link,
			  "the server answered with vfio-user %u.%u, this driver speaks %u.%u",
			  theirs.major, theirs.minor, ours.major, ours.minor);
		return MR_E_VERSION;
	}
	return take_capabilities(link, (const char *)reply + sizeof(theirs),
				 r.reply_bytes - (uint32_t)sizeof(theirs));
}

int mr_vu_link_open(struct vu_link *link, const char *path)
{
	int status;

	link->fd = -1;
	link->id = 0;
	__atomic_store_n(&link->lost, 0, __ATOMIC_SEQ_CST);
	status = connect_to(link, path);
	if (!status)
		status = agree(link);
	if (status)
		mr_vu_link_close(link);
	return status;
}
