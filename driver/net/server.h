/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The wire server's insides, shared by its three files: net.c (life, index, time limits), intake.c
 * (datagrams to requests) and egress.c (tokens to datagrams).
 *
 * Life of a call (one request as this front sees it)
 *   FREE      in net->free
 *   FILLING   fragments come; in net->filling by age; holds the orchestrator's entry
 *   ACTIVE    submitted; the orchestrator owns its entry until end()
 *   ENDED     kept for RESEND; in net->ended by age; the oldest makes room when none is free
 */
#ifndef MR_DRIVER_NET_SERVER_H
#define MR_DRIVER_NET_SERVER_H

#include <stdbool.h>
#include <sys/queue.h>

#include "driver/net/assemble.h"
#include "driver/net/net.h"
#include "driver/net/port.h"
#include "driver/sched/sched.h"

enum call_state { CALL_FREE, CALL_FILLING, CALL_ACTIVE, CALL_ENDED };

/* Datagrams that one RESEND is answered with at most; the client asks again for more. */
#define RESEND_DATAGRAMS 8

struct call {
	enum call_state state;
	bool dirty; /* in net->dirty: tokens or the end are not sent yet */
	bool done_sent;
	uint32_t made;              /* tokens in history */
	uint32_t sent;              /* of them, given to the port */
	uint64_t key;               /* the client's name for the request */
	uint32_t owner;             /* ACTIVE, ENDED: the sequence's id in the trace */
	uint64_t deadline_ns;       /* FILLING: to be complete; ENDED: forgotten */
	struct mr_request *request; /* FILLING, ACTIVE */
	struct assembly assembly;
	struct frame_end from;          /* whose first fragment came; answers go there */
	struct mr_wire_token *history;  /* net->answer_max entries */
	struct mr_wire_done done;       /* ENDED */
	uint64_t copies[MR_COPY_SITES]; /* ENDED; token bytes go on counting while sent */
	struct call *hash_next;
	TAILQ_ENTRY(call) link; /* free, filling or ended */
	TAILQ_ENTRY(call) dirty_link;
};
TAILQ_HEAD(call_list, call);

struct mr_net {
	struct port port;
	struct mr_wire_key key;
	struct mr_sched *sched;
	const struct mr_clock *clock;
	uint64_t assemble_ns, keep_ns;
	uint32_t answer_max;
	uint32_t call_count, known;
	uint32_t bucket_mask;
	bool blocked; /* the last flush left something because the port took no more */
	struct call *calls;
	struct call **buckets;
	struct mr_wire_token *history;
	struct call_list free, filling, ended, dirty;
};

static inline uint64_t mr_net_now(const struct mr_net *net)
{
	return net->clock->now_ns(net->clock->arg);
}

/* net.c: the index of calls by name. */
struct call *mr_net_find(const struct mr_net *net, uint64_t key);
/* A call named @key, which nobody has; the oldest ended one is given up for it. NULL = all are under way. */
struct call *mr_net_take(struct mr_net *net, uint64_t key);
void mr_net_forget(struct mr_net *net, struct call *call);

/* intake.c: one datagram from @from. */
void mr_net_intake(struct mr_net *net, const struct frame_in *frame);

/* egress.c */
extern const struct mr_front_ops mr_net_ops;
void mr_net_mark(struct mr_net *net, struct call *call);
/* Sends what is due for every dirty call; returns how many datagrams. */
int mr_net_egress(struct mr_net *net);
/* TOKENS of [@first, @first + @count) to the call's client; returns how many tokens went out. */
uint32_t mr_net_send_tokens(struct mr_net *net, struct call *call, uint32_t first, uint32_t count);
bool mr_net_send_done(struct mr_net *net, struct call *call);
void mr_net_send_error(struct mr_net *net, const struct frame_end *to, uint64_t key, int status,
		       uint32_t limit);
void mr_net_send_want(struct mr_net *net, const struct call *call);

#endif /* MR_DRIVER_NET_SERVER_H */
