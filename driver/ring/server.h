/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The server's side of the ring ABI (userlib/include/millrace/ring.h): a front of the orchestrator
 * for clients on this host. tools/cmd_serve.c creates it and runs it through struct mr_front.
 *
 *   listen.c   control plane: socket, credentials, handshake, hang-ups
 *   client.c   a connection's state: made, hung up on, freed when its last request has ended
 *   memory.c   the memfds: ring memory of a client, vocabulary of all
 *   buffer.c   buffers that clients register
 *   server.c   the loop's turn: takes SQEs from every client, gives credit, arms and wakes
 *   sqe.c      checks one SQE, copied out of hostile memory; operations that are answered at once
 *   request.c  operations that become requests: parameters, input, continuations
 *   cq.c       writes CQEs; keeps room so that an answer is never lost
 *
 * Threads: mr_ring_server_create and _destroy are set-up calls; all else is the one thread of the
 * loop. On the data path nothing locks, allocates or makes a system call, except to wake a client
 * that asked for it. Accepting a client allocates and makes system calls, never a blocking one.
 */
#ifndef MR_DRIVER_RING_SERVER_H
#define MR_DRIVER_RING_SERVER_H

#include <stdint.h>

#include "driver/front.h"

struct mr_model;
struct mr_sched;
struct mr_ring_server;

struct mr_ring_server_options {
	const char *socket_path;      /* replaced if nobody listens there; removed at destroy */
	struct mr_sched *sched;       /* NULL = NOP only: all else is MR_E_NOT_SUPPORTED */
	const struct mr_model *model; /* NULL = an empty vocabulary, token ids unchecked */
	uint32_t sq_entries;          /* default for clients that do not ask; 0 = 256 */
	uint32_t cq_entries;          /* 0 = 4096 */
	uint64_t data_bytes;          /* 0 = 1 MiB */
	uint32_t clients_max;         /* 0 = 64 */
	uint32_t requests_max; /* under way for one client; 0 = 256; at most a quarter of cq_entries
				*/
	uint32_t socket_mode;  /* permissions of the socket file; 0 = 0600 */
	uint32_t uid_count;    /* entries of uids */
	const uint32_t *uids;  /* users let in besides root and our own */
	uint32_t first_index; /* where rings start; 0 = 2^32 - 256, so that all of them wrap soon */
};

/*
 * Listens. Returns 0; MR_E_INVALID, MR_E_TOO_LARGE (the path), MR_E_BUSY (a server listens there
 * already), MR_E_PERMISSION, MR_E_NO_MEMORY or MR_E_IO.
 */
int mr_ring_server_create(const struct mr_ring_server_options *options,
			  struct mr_ring_server **server);

/* What the loop calls. The context is the server; it lives until destroy. */
struct mr_front mr_ring_server_front(struct mr_ring_server *server);

/* Connections now. */
uint32_t mr_ring_server_clients(const struct mr_ring_server *server);

/*
 * Hangs up on every client and frees. Requests must have ended: destroy the orchestrator first.
 * NULL is allowed.
 */
void mr_ring_server_destroy(struct mr_ring_server *server);

#endif /* MR_DRIVER_RING_SERVER_H */
