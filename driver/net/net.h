/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The wire server: a front of the orchestrator whose clients are UDP endpoints behind a DPDK port. Opened and
 * polled by `millrace serve`; the protocol is <millrace/wire.h>.
 *
 * Threads: create and destroy are set-up calls of one thread. The front's poll, and the orchestrator's calls back
 * into the server, are all of the one thread that runs the loop; there is no lock. DPDK keeps a thread
 * of its own for device events, which touches no packet.
 */
#ifndef MR_DRIVER_NET_NET_H
#define MR_DRIVER_NET_NET_H

#include <stddef.h>
#include <stdint.h>

#include "driver/front.h"
#include "driver/net/key.h"

struct mr_arena;
struct mr_clock;
struct mr_net;
struct mr_sched;

#define MR_NET_WHY_BYTES 256

struct mr_net_options {
	/*
	 * A virtual device, "NAME,arguments", such as "net_memif0,role=server,socket=/run/m.sock,socket-abstract=no"
	 * or "net_af_packet0,iface=veth1"; NULL = the first port that EAL finds, then give eal_args "-a ADDRESS".
	 */
	const char *vdev;
	const char *eal_args; /* more EAL arguments, separated by blanks; NULL = none */
	int huge;             /* 1 = DPDK's memory on huge pages (root), 0 = --no-huge */
	struct mr_arena
		*arena; /* packets are a region of it; NULL = DPDK's own memory (zero-copy memif) */
	uint32_t ip;    /* IPv4 address to answer for, host order (mr_net_parse_ip) */
	uint16_t port;  /* UDP port; 0 = MR_WIRE_PORT */
	struct mr_wire_key key;       /* copied */
	struct mr_sched *sched;       /* must outlive the server */
	const struct mr_clock *clock; /* NULL = mr_clock_monotonic */
	uint32_t requests;            /* remembered at once, under way or ended; 0 = 512 */
	uint32_t
		answer_max; /* tokens that an answer may have; 0 = 4096. 16 bytes each are kept for RESEND */
	uint32_t assemble_ms; /* time that a prompt has to become complete; 0 = 1000 */
	uint32_t keep_ms;     /* time that an ended answer can be asked for again; 0 = 2000 */
};

/*
 * Opens the port and starts answering ARP and the wire. Returns 0; MR_E_INVALID (an argument that DPDK refuses),
 * MR_E_NOT_FOUND (no port), MR_E_NO_MEMORY or MR_E_DEVICE, with one sentence at @why (may be NULL, else
 * MR_NET_WHY_BYTES).
 */
int mr_net_create(const struct mr_net_options *options, struct mr_net **net, char *why);

/*
 * Cancels what is under way for its clients, closes the port, frees. Call it before mr_sched_destroy. NULL is
 * allowed.
 */
void mr_net_destroy(struct mr_net *net);

/* What the serve loop polls; valid until mr_net_destroy. */
struct mr_front mr_net_front(struct mr_net *net);

/* Requests that are known: being put together, under way, or ended and kept for RESEND. */
uint32_t mr_net_known(const struct mr_net *net);

/* "10.77.0.1" to host order. Returns 0 or MR_E_INVALID. */
int mr_net_parse_ip(const char *text, uint32_t *ip);

#endif /* MR_DRIVER_NET_NET_H */
