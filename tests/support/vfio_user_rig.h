/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A simulated LPU served over vfio-user by a thread of this process, whose answers a test may spoil on their way
 * to the client.
 */
#ifndef MR_TESTS_SUPPORT_VFIO_USER_RIG_H
#define MR_TESTS_SUPPORT_VFIO_USER_RIG_H

#include <pthread.h>
#include <stdint.h>

#include <millrace/lpu_port.h>

#include "firmware-sim/vfio_user.h"
#include "userlib/spec/vfio_user.h"

struct vu_rig {
	char folder[32], path[64];
	struct mr_lpu_port port;
	struct mr_vfio_user *server;
	struct mr_vfio_user_socket socket;
	struct mr_vfio_user_transport transport; /* of the connection, unspoilt */
	int listener, stop_fd;
	pthread_t thread;
	/*
	 * Before a reply of @head.command goes: may change header and payload ([@bytes], the header
	 * included) and how much is sent; 1 = do not send it. On the server's thread; NULL = honest.
	 */
	int (*spoil)(struct vu_rig *rig, struct mr_vu_header *head, uint8_t *message,
		     size_t *bytes);
	void *arg;
	uint32_t replies; /* so far */
	int32_t ended;    /* what the last connection's serve said; relaxed atomics */
};

/* Powers a "tiny" LPU on and serves it; @trapped: without a page of BAR2. */
void vu_rig_start(struct vu_rig *rig, int trapped);
/* Ends the server, keeps the device: connections break. Then it may be served again. */
void vu_rig_stop_server(struct vu_rig *rig);
void vu_rig_serve(struct vu_rig *rig);
void vu_rig_stop(struct vu_rig *rig);

/* ---- a raw client ------------------------------------------------------------------------------ */

/* Connects; with @version also agrees on one. The descriptor. */
int vu_raw_connect(const struct vu_rig *rig, int version);
/* Sends a command, with @fds. */
void vu_raw_send(int fd, uint16_t command, uint32_t flags, const void *in, uint32_t bytes,
		 const int *fds, uint32_t fd_count);
/*
 * The next reply: its payload to @out, how much to *@bytes, a descriptor that came to *@got_fd (-1 = none); all
 * may be NULL. The errno in it, 0, or -1 where the server has closed.
 */
int vu_raw_reply(int fd, uint16_t command, void *out, uint32_t room, uint32_t *bytes, int *got_fd);
/* Both. */
int vu_raw_do(int fd, uint16_t command, const void *in, uint32_t bytes, void *out, uint32_t room);
/* A memfd of @bytes, sealed against shrinking where @sealed. */
int vu_memfd(size_t bytes, int sealed);

#endif /* MR_TESTS_SUPPORT_VFIO_USER_RIG_H */
