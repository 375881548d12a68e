/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A DPDK port with one receive and one transmit queue that speaks UDP: EAL's start, set-up, bursts,
 * ARP, and packet buffers. The server's front (net.c) and the client (client.c) each own one.
 *
 * Threads: everything here is called by the port's one polling thread, but for set-up and close.
 */
#ifndef MR_DRIVER_NET_PORT_H
#define MR_DRIVER_NET_PORT_H

#include <stdint.h>

#include "driver/net/frame.h"

#define PORT_BURST 32

struct mr_arena;
struct rte_mbuf;
struct rte_mempool;

struct port_options {
	const char *
		vdev; /* "NAME,arguments" of a virtual device; NULL = the first port found by EAL */
	const char *eal_args;   /* more EAL arguments, by blanks; NULL = none. First start only */
	int huge;               /* 1 = --in-memory (huge pages), 0 = --no-huge. First start only */
	struct mr_arena *arena; /* packet memory is a region of it; NULL = DPDK's own */
	uint32_t ip;            /* ours */
	uint16_t udp_port;      /* ours */
};

struct port {
	uint16_t id;
	uint16_t ident;             /* of the next IPv4 header */
	uint32_t rx_count, rx_next; /* of the burst in rx[] */
	uint32_t tx_count;
	struct frame_end self;
	struct rte_mempool *pool;
	char vdev[64];  /* name, "" where the port is EAL's own */
	void *external; /* packet memory registered with DPDK, or NULL */
	uint64_t external_bytes;
	struct rte_mbuf *rx[PORT_BURST];
	struct rte_mbuf *tx[PORT_BURST];
};

/*
 * Starts EAL if it is not running in this process, then the port. Returns 0, MR_E_INVALID (arguments that DPDK
 * refuses), MR_E_NOT_FOUND (no port), MR_E_NO_MEMORY or MR_E_DEVICE; @why gets one sentence.
 */
int mr_port_open(struct port *port, const struct port_options *options, char *why,
		 size_t why_bytes);
void mr_port_close(struct port *port);

/*
 * The next frame received, whatever it is; 0 when there is none. ARP requests are answered on the way and what
 * is not for us is counted. @in points into a packet that stays valid until the next call. The caller bounds how
 * many it takes in a turn.
 */
int mr_port_receive(struct port *port, struct frame_in *in);

/*
 * A packet to fill: room for a UDP payload of a whole frame, or NULL when the transmit queue and the pool
 * are full (counted; try again next turn). Give it to mr_port_send at once.
 */
void *mr_port_payload(struct port *port);
void mr_port_send(struct port *port, const struct frame_end *to, uint32_t payload_bytes);
void mr_port_ask(struct port *port, uint32_t ip); /* ARP request */
/* Hands what was queued to the PMD. */
void mr_port_flush(struct port *port);

#endif /* MR_DRIVER_NET_PORT_H */
