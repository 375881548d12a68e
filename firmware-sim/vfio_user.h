/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Serves a device as a PCI function over vfio-user (userlib/spec/vfio_user.h): any struct mr_lpu_port, the
 * simulator's or a vendor's. Called by tools/ and tests, one connection after another; the device keeps its
 * state between them, but no mapping and no interrupt of a client that has left.
 *
 * The client is not trusted: a message that cannot be is answered with an errno, one that leaves no way to go
 * on (a size that cannot be, a header cut short) ends the connection; both are counted.
 */
#ifndef MR_FIRMWARE_SIM_VFIO_USER_H
#define MR_FIRMWARE_SIM_VFIO_USER_H

#include <stddef.h>
#include <stdint.h>

#include <millrace/lpu_port.h>

/* Ids that no vendor has registered: those of the simulated device. */
#define MR_SIM_PCI_VENDOR 0xf00du
#define MR_SIM_PCI_DEVICE 0x4c50u

/*
 * How bytes and descriptors come and go. Both return 0, or MR_E_DISCONNECTED (the end, or the connection is
 * broken) or MR_E_CANCELLED (the server is to stop).
 */
struct mr_vfio_user_transport {
	/*
	 * Exactly @bytes to @to. Descriptors that came with them go to fds[*count], room for @max; those
	 * beyond are closed. They are the caller's then. @max = 0: none is taken, *count is not touched.
	 */
	int (*receive)(void *ctx, void *to, size_t bytes, int *fds, uint32_t max, uint32_t *count);
	/* All of [@from, @from + @bytes), with @fd, which stays the caller's, unless it is -1. */
	int (*send)(void *ctx, const void *from, size_t bytes, int fd);
	void *ctx;
};

struct mr_vfio_user_options {
	const struct mr_lpu_port *port; /* the caller's; must outlive the server */
	int doorbell_fd;         /* memfd of BAR2 that the device polls, or -1: trapped only */
	size_t doorbell_bytes;   /* BAR2's size, a power of two; 0 = 32768 */
	uint32_t vectors;        /* of MSI-X, 1 to 64; 0 = 5 */
	uint16_t vendor, device; /* 0 = the simulator's */
	void (*log)(void *arg, const char *line); /* NULL = silent */
	void *log_arg;
};

struct mr_vfio_user_stats {
	uint64_t connections, messages;
	uint64_t refused; /* messages answered with an errno */
	uint64_t broken;  /* connections ended by a message that cannot be */
};

struct mr_vfio_user;

/* 0, MR_E_INVALID or MR_E_NO_MEMORY. */
int mr_vfio_user_create(const struct mr_vfio_user_options *options, struct mr_vfio_user **server);
/*
 * One connection, from its first byte until the client leaves (0), breaks the protocol (MR_E_PROTOCOL), or the
 * transport says that the server is to stop (MR_E_CANCELLED). May sleep.
 */
int mr_vfio_user_serve(struct mr_vfio_user *server, const struct mr_vfio_user_transport *transport);
void mr_vfio_user_stats(const struct mr_vfio_user *server, struct mr_vfio_user_stats *out);
void mr_vfio_user_destroy(struct mr_vfio_user *server); /* NULL is allowed */

/* ---- Unix sockets, and plain bytes (vfio_user_socket.c) ----------------------------------------- */

/*
 * Listens at @path, in place of a socket that no server answers at any more: a descriptor, or MR_E_BUSY
 * (another server), MR_E_INVALID (longer than a socket's name may be), MR_E_IO (errno).
 */
int mr_vfio_user_listen(const char *path);
/* Waits for a client: a descriptor, MR_E_IO, or MR_E_CANCELLED once @stop_fd is readable. */
int mr_vfio_user_accept(int listener, int stop_fd);

struct mr_vfio_user_socket {
	int fd;
	int stop_fd; /* readable = stop; -1 = never */
};
/* The transport of a connected socket; @socket must outlive it. */
struct mr_vfio_user_transport mr_vfio_user_socket_transport(struct mr_vfio_user_socket *socket);

/* Bytes alone, over pipes, files or a terminal: no descriptor comes, and none goes. */
struct mr_vfio_user_stream {
	int in, out;
	int stop_fd; /* as above */
};
struct mr_vfio_user_transport mr_vfio_user_stream_transport(struct mr_vfio_user_stream *stream);

#endif /* MR_FIRMWARE_SIM_VFIO_USER_H */
