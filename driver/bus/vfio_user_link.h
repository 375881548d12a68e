/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vfio-user's messages over one socket: a request and its checked reply, commands of the server in between, and
 * a thread that notices when the server goes. Used by vfio_user.c alone.
 */
#ifndef MR_DRIVER_BUS_VFIO_USER_LINK_H
#define MR_DRIVER_BUS_VFIO_USER_LINK_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

#include "userlib/spec/vfio_user.h"

/* A request: payload in two pieces, descriptors; the reply's payload goes to @reply. */
struct vu_request {
	uint16_t command;
	const void *in;
	uint32_t in_bytes;
	const void *data; /* behind @in */
	uint32_t data_bytes;
	const int *fds;
	uint32_t fd_count;
	void *reply;
	uint32_t reply_min; /* bytes that a reply has at least; the rest of @reply is zeroed */
	uint32_t reply_max;
	uint32_t reply_bytes; /* out */
	int *reply_fds;       /* out, the caller's: up to MR_VU_FDS_MAX; NULL = none is taken */
	uint32_t reply_fd_count;
};

struct vu_link {
	pthread_mutex_t
		lock; /* over the socket: a request with its reply, or a look of the watcher */
	int fd;
	uint32_t timeout_ms;
	uint16_t id;
	uint32_t xfer_max; /* of the server, once VERSION is done */
	int32_t lost;      /* as mr_bus.lost; any thread */
	int stop[2];       /* a pipe that ends the watcher */
	pthread_t watcher;
	int watching;
	/*
	 * A DMA_READ or DMA_WRITE of the server: where @bytes at @address lie, with that access, or NULL. Under
	 * the lock.
	 */
	void *(*memory)(void *arg, uint64_t address, uint64_t bytes, uint32_t access);
	/* The link is lost: called once, from any thread. */
	void (*on_lost)(void *arg, int status);
	void *arg;
	uint8_t in[MR_VU_XFER_MAX + 64]; /* a command of the server */
	char *why;                       /* of the open under way, or NULL */
	size_t why_bytes;
};

/* One sentence for whoever opens. */
__attribute__((format(printf, 2, 3))) void mr_vu_why(struct vu_link *link, const char *format, ...);

/* @link's timeout, memory, on_lost and arg are set. Connects and agrees on a version: 0 or a status. */
int mr_vu_link_open(struct vu_link *link, const char *path);
/* Starts the watcher: from now on the loss of the server is noticed without a request. */
int mr_vu_link_watch(struct vu_link *link);
void mr_vu_link_close(struct vu_link *link);

/*
 * 0; MR_E_NOT_SUPPORTED, MR_E_EXISTS, MR_E_NOT_FOUND, MR_E_NO_MEMORY, MR_E_PERMISSION or MR_E_INVALID where
 * the server answers with an errno; link->lost where the connection is or gets lost.
 */
int mr_vu_request(struct vu_link *link, struct vu_request *request);

#endif /* MR_DRIVER_BUS_VFIO_USER_LINK_H */
