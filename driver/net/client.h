/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The wire's client over a DPDK port: sends prompts, puts answers together, asks again for what was lost.
 * Used by `millrace load` and by the tests; a client on an ordinary socket needs <millrace/wire.h> alone.
 *
 * Threads: one thread opens, sends, polls and closes. Nothing allocates after open.
 */
#ifndef MR_DRIVER_NET_CLIENT_H
#define MR_DRIVER_NET_CLIENT_H

#include <stddef.h>
#include <stdint.h>

#include "driver/net/net.h"

struct mr_net_client;

/* One answer's events, from mr_net_client_poll, tokens in order of index. @tag is the prompt's. */
struct mr_net_client_ops {
	void (*token)(void *arg, uint64_t tag, uint32_t index, const struct mr_wire_token *token);
	/*
	 * Exactly once for each prompt sent. @status: 0, or why there is no whole answer: what the server said,
	 * or MR_E_TIMEOUT when it said nothing for timeout_ms. @done is NULL where no DONE came; @limit is
	 * what an MR_E_TOO_LARGE passed, else 0.
	 */
	void (*end)(void *arg, uint64_t tag, int status, uint32_t limit,
		    const struct mr_wire_done *done, const uint64_t *copies);
};

struct mr_net_client_options {
	const char *vdev; /* as in struct mr_net_options */
	const char *eal_args;
	int huge;
	uint32_t ip; /* ours, host order */
	uint32_t server_ip;
	uint16_t port;        /* ours; 0 = 40000 */
	uint16_t server_port; /* 0 = MR_WIRE_PORT */
	struct mr_wire_key key;
	uint32_t requests;            /* at once; 0 = 64 */
	uint32_t retry_ms;            /* silence after which it asks again; 0 = 200 */
	uint32_t timeout_ms;          /* silence after which it gives up; 0 = 10000 */
	uint64_t first_request;       /* names count up from here; 0 = the real-time clock */
	const struct mr_clock *clock; /* NULL = mr_clock_monotonic */
	const struct mr_net_client_ops *ops;
	void *arg;
};

struct mr_net_prompt {
	const char *text; /* must stay until the prompt's end event */
	uint32_t bytes;   /* above MR_WIRE_PROMPT_MAX it is the server that refuses */
	uint32_t max_tokens;
	uint32_t flags; /* MR_WIRE_* */
	struct mr_sampling sampling;
	uint64_t tag; /* the caller's */
};

struct mr_net_client_stats {
	uint64_t resends;  /* times it asked again for tokens */
	uint64_t repeated; /* fragments sent again */
	uint64_t dropped;  /* datagrams malformed, unauthentic or of no request */
	uint64_t
		heard_ns; /* when the last authentic datagram came, by options.clock; 0 = none did */
};

/* Errors and @why as mr_net_create. */
int mr_net_client_open(const struct mr_net_client_options *options, struct mr_net_client **client,
		       char *why);
/* Forgets what is under way, without events. NULL is allowed. */
void mr_net_client_close(struct mr_net_client *client);

/* 1 once the server's address is resolved; poll until then. */
int mr_net_client_ready(const struct mr_net_client *client);

/* Sends a prompt. Returns 0, MR_E_FULL (as many under way as options.requests), MR_E_BUSY (not ready) or MR_E_INVALID (empty). */
int mr_net_client_send(struct mr_net_client *client, const struct mr_net_prompt *prompt);

/* Asks the server to end the prompt sent with @tag; its end event follows. 0 or MR_E_NOT_FOUND. */
int mr_net_client_cancel(struct mr_net_client *client, uint64_t tag);

/* One turn: takes datagrams, makes events, asks again. Returns how much was done. */
int mr_net_client_poll(struct mr_net_client *client);

/* Prompts under way. */
uint32_t mr_net_client_active(const struct mr_net_client *client);
struct mr_net_client_stats mr_net_client_stats(const struct mr_net_client *client);

#endif /* MR_DRIVER_NET_CLIENT_H */
