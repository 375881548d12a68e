/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of driver/ring share: the server, a client's connection, a request's slot.
 *
 * A client's memory is hostile. Nothing that the client can write is read twice, and nothing read from
 * it is used before it is checked; sizes, masks and indices below are private copies.
 */
#ifndef MR_DRIVER_RING_INTERNAL_H
#define MR_DRIVER_RING_INTERNAL_H

#include <stddef.h>
#include <stdint.h>

#include <millrace/ring.h>

#include "driver/metrics.h"
#include "driver/ring/server.h"
#include "driver/sched/sched.h"

#define RING_PENDING_MAX 16u /* connections that have not said hello yet */

/* CQEs that must be unclaimed for an SQE that makes a request: its end's, and its CANCEL's. */
#define RING_REQUEST_ROOM 2u

/* How a refusal names a field. */
#define RING_FIELD(name) ((uint32_t)offsetof(struct mr_sqe, name))
#define RING_PARAM(name) (MR_FIELD_PARAMS + (uint32_t)offsetof(struct mr_params, name))
#define RING_STOPS(name)                                        \
	(MR_FIELD_PARAMS + (uint32_t)sizeof(struct mr_params) + \
	 (uint32_t)offsetof(struct mr_stops, name))
#define RING_CONTINUATIONS(name) \
	(MR_FIELD_CONTINUATIONS + (uint32_t)offsetof(struct mr_continuations, name))

/* Ring memory as the server holds it. */
struct ring_memory {
	struct mr_ring_header *header;
	struct mr_sqe *sq;
	struct mr_cqe *cq;
	const unsigned char *data;
	size_t bytes;
	uint64_t data_bytes;
	uint32_t sq_mask;
	uint32_t cq_mask;
	int fd; /* -1 once the client has it */
};

/* A request under way: its room in the completion queue. */
struct ring_slot {
	uint32_t promised; /* CQEs set aside for its tokens or scores */
	uint32_t cancel;   /* 1 = one is set aside for the DONE of the SQE that ends it early */
	uint32_t live;     /* its place in client->live */
	uint32_t scored;   /* continuations given to the client */
	uint32_t overrun;  /* 1 = an answer had no room: cannot happen while credit is kept */
};

/* What data may come from. */
struct ring_area {
	const unsigned char *base; /* NULL = not there */
	uint64_t bytes;
};

struct ring_client {
	struct mr_ring_server *server;
	struct ring_memory mem;
	uint64_t id;
	uint64_t features;                          /* granted */
	struct ring_area areas[MR_BUFFERS_MAX + 1]; /* 0 = the data area, the others registered */
	int socket;
	int sq_fd;
	int cq_fd;
	uint32_t place; /* in server->clients */

	uint32_t sq_index; /* next SQE to take */
	uint32_t cq_index; /* next CQE to write */
	uint32_t cq_head;  /* last credit of the client that made sense */
	uint32_t promised; /* CQEs set aside for tokens, all slots together */
	uint32_t cancels;  /* CQEs set aside for CANCELs, all slots together */
	uint32_t looked;   /* SQEs before this one were looked at while sq_index waits for room */
	uint64_t *ahead;   /* one bit an SQE place: taken before its turn */
	uint32_t owed;     /* MR_WAKEUP_*: published since the client was last woken */
	uint32_t stalled;  /* 1 = something lacked room while cq_head was stalled_head */
	uint32_t stalled_head;
	uint32_t broken; /* 1 = to be hung up on: it wrote what no client writes */
	uint32_t dead;   /* 1 = hung up; freed when live_count is 0 */

	struct ring_slot *slots; /* requests_max */
	uint32_t *live;          /* slots in use are live[0..live_count), the others follow */
	uint32_t live_count;     /* also the CQEs set aside, one for each end */
	uint32_t requests_max;
};

struct ring_pending {
	int fd; /* -1 = free */
	uint64_t since_ns;
};

struct mr_ring_server {
	struct mr_ring_server_options options; /* defaults filled in */
	char path[108];
	uint64_t path_device, path_inode; /* of the socket file, so that only ours is removed */
	int listen_fd;
	int epoll_fd;
	int vocab_fd;
	uint64_t vocab_bytes;
	uint64_t features; /* MR_FEATURE_* that this server has */
	uint32_t vocab_count;
	uint32_t client_count;
	uint32_t place_end; /* clients[] is empty from here on */
	uint32_t asleep;    /* 1 = armed since the last turn */
	uint64_t ticked_ns; /* coarse clock at the last control turn */
	uint64_t next_id;
	struct ring_client **clients; /* clients_max, NULL = free */
	struct ring_pending pending[RING_PENDING_MAX];
};

/* memory.c */
int mr_ring_memory_create(const struct mr_ring_server *server, const struct mr_hello *hello,
			  const struct ring_client *client, struct ring_memory *mem);
void mr_ring_memory_destroy(struct ring_memory *mem);
/* Makes server->vocab_fd. */
int mr_ring_vocab_create(struct mr_ring_server *server);

/* client.c */
int mr_ring_client_create(struct mr_ring_server *server, const struct mr_hello *hello, int socket,
			  struct ring_client **client);
/* Ends the connection and cancels what is under way. Not from inside the orchestrator's calls. */
void mr_ring_client_hang_up(struct ring_client *client);
void mr_ring_client_free(struct ring_client *client);
/* A slot; RING_REQUEST_ROOM CQEs are set aside. The caller checked live_count and the room. */
uint32_t mr_ring_slot_take(struct ring_client *client);
void mr_ring_slot_give(struct ring_client *client, uint32_t slot);

/* listen.c */
int mr_ring_listen(struct mr_ring_server *server);
void mr_ring_unlisten(struct mr_ring_server *server);
/* The control plane's turn: accepts, shakes hands, notices hang-ups. Never blocks. */
int mr_ring_control(struct mr_ring_server *server, uint64_t now_ns);

/* buffer.c */
/* Reads a message of the client's from its socket and answers it. 0, or -1 where it is to be hung up on. */
int mr_ring_buffer_message(struct ring_client *client);
/* Unmaps all that are registered. */
void mr_ring_buffers_drop(struct ring_client *client);

/* sqe.c */
/* Acts on an entry, already a private copy; writes its answer, if that is due at once. */
void mr_ring_take(struct ring_client *client, const struct mr_sqe *sqe);
/* How many CQEs must be unclaimed before it is taken. */
uint32_t mr_ring_room_of(const struct mr_sqe *sqe);
/*
 * Acts on a CANCEL or RELEASE that ends a request under way, out of the CQE set aside for it; 1 = done, 0 = it
 * is none, and waits for its turn.
 */
int mr_ring_take_ahead(struct ring_client *client, const struct mr_sqe *sqe);
/* Answers with ERROR, and counts why; with the numbers behind it, where there are any. */
void mr_ring_refuse(struct ring_client *client, const struct mr_sqe *sqe, int status,
		    uint32_t field);
void mr_ring_refuse_for(struct ring_client *client, const struct mr_sqe *sqe, int status,
			uint32_t field, uint64_t wanted, uint64_t there);
/* MR_FEATURE_* that a server over @sched has; NULL = none. */
uint64_t mr_ring_features_of(const struct mr_sched *sched);

/* request.c */
/* SUBMIT, APPEND, FORK, SCORE: a request of the orchestrator's, or a refusal. */
void mr_ring_request(struct ring_client *client, const struct mr_sqe *sqe);

/* cq.c */
extern const struct mr_front_ops mr_ring_front_ops; /* their `front` is a struct ring_client */
/* How many CQEs are neither the client's nor set aside. */
uint32_t mr_ring_cq_unclaimed(const struct ring_client *client);
/* The same, after a look at the client's credit where that is less than @want. */
uint32_t mr_ring_cq_room(struct ring_client *client, uint32_t want);
/* Something lacks room: counted once, and the client's credit will wake the server. */
void mr_ring_cq_stall(struct ring_client *client);
/* Whether cq_head has moved since the client stalled (or makes no sense: then it is broken). */
int mr_ring_cq_moved(struct ring_client *client);
/* Writes and publishes; the caller knows that there is room. @cqe->published is filled in here. */
void mr_ring_cq_write(struct ring_client *client, const struct mr_cqe *cqe);
/* The DONE of an SQE that makes no request. */
void mr_ring_cq_done(struct ring_client *client, const struct mr_sqe *sqe);
/* CQ_WAKE for all that was published since the last time. */
void mr_ring_cq_wake(struct ring_client *client);

/* The full fence of the wake-up words: earlier stores before later loads. */
static inline void mr_ring_full_fence(void)
{
#ifdef MR_TSAN
	/* ThreadSanitizer has no model of fences; it knows read-modify-writes of one word. */
	extern uint32_t mr_ring_fence_word;
	__atomic_fetch_add(&mr_ring_fence_word, 1, __ATOMIC_SEQ_CST);
#else
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
#endif
}

#endif /* MR_DRIVER_RING_INTERNAL_H */
