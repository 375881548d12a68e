// SPDX-License-Identifier: Apache-2.0
/*
 * See port.h. Packet memory: with an arena, packets lie in a PACKETS region of it, external memory to DPDK, for a
 * physical NIC (which DMAs there) as for virtual devices (which copy). The exception is zero-copy memif, which
 * shares DPDK's own memory with its peer and nothing else: open the port without an arena there.
 */
/* For rte_dev_dma_map: experimental in 22.11, and the only way to show external memory to a device. */
#define ALLOW_EXPERIMENTAL_API
#include "driver/net/port.h"

#include <rte_dev.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>
#include <rte_memory.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <millrace/status.h>

#include "driver/mem/arena.h"
#include "driver/metrics.h"
#include "driver/net/eal.h"

#define POOL_PACKETS 2047 /* a power of two minus one wastes nothing in the pool's ring */
#define POOL_CACHE   64
#define RING_PACKETS 256
#define DATA_ROOM    RTE_MBUF_DEFAULT_BUF_SIZE
#define FRAME_MAX    1514
/* A packet's memory with mempool's header and padding, and what is lost at page ends: 2.5 KiB and a half. */
#define POOL_REGION ((size_t)(POOL_PACKETS + 1) * 4096)

__attribute__((format(printf, 4, 5))) static int fail(int status, char *why, size_t why_bytes,
						      const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(why, why_bytes, format, args);
	va_end(args);
	return status;
}

/* Finds or makes the port that the options name. */
static int find_port(struct port *port, const char *vdev, char *why, size_t why_bytes)
{
	size_t name = vdev ? strcspn(vdev, ",") : 0;
	int err;

	if (!vdev) {
		port->id = (uint16_t)rte_eth_find_next(0);
		if (port->id >= RTE_MAX_ETHPORTS)
			return fail(MR_E_NOT_FOUND, why, why_bytes,
				    "DPDK found no port: name one by --vdev or --eal '-a ADDRESS'");
		return 0;
	}
	if (name == 0 || name >= sizeof(port->vdev))
		return fail(MR_E_INVALID, why, why_bytes, "'%s' names no virtual device", vdev);
	snprintf(port->vdev, sizeof(port->vdev), "%.*s", (int)name, vdev);
	err = rte_eal_hotplug_add("vdev", port->vdev, vdev[name] ? vdev + name + 1 : "");
	if (err != 0) {
		port->vdev[0] = 0;
		return fail(MR_E_INVALID, why, why_bytes, "DPDK refuses the device '%s': %s", vdev,
			    rte_strerror(-err));
	}
	if (rte_eth_dev_get_port_by_name(port->vdev, &port->id) != 0)
		return fail(MR_E_NOT_FOUND, why, why_bytes, "'%s' is not a network device",
			    port->vdev);
	return 0;
}

/* Whole packets, headers and data, in a region of the arena that DPDK and the port are told of. */
static int pool_in_arena(struct port *port, struct mr_arena *arena, const char *name, char *why,
			 size_t why_bytes)
{
	struct rte_eth_dev_info info;
	const struct mr_region *region;
	int status = mr_arena_region(arena, MR_REGION_PACKETS, POOL_REGION, &region);

	if (status != 0)
		return fail(status, why, why_bytes, "no memory for packets");
	if (rte_extmem_register(region->base, region->bytes, NULL, 0, region->page_bytes) != 0)
		return fail(MR_E_NO_MEMORY, why, why_bytes,
			    "DPDK does not take the arena's packet region: %s",
			    rte_strerror(rte_errno));
	port->external = region->base;
	port->external_bytes = region->bytes;
	/* ENOTSUP: the device does no DMA. */
	if (rte_eth_dev_info_get(port->id, &info) != 0 ||
	    (rte_dev_dma_map(info.device, region->base, (uintptr_t)region->base, region->bytes) !=
		     0 &&
	     rte_errno != ENOTSUP))
		return fail(MR_E_DMA_FAULT, why, why_bytes,
			    "the port cannot reach the arena's packet region: %s",
			    rte_strerror(rte_errno));
	port->pool = rte_mempool_create_empty(
		name, POOL_PACKETS, sizeof(struct rte_mbuf) + DATA_ROOM, POOL_CACHE,
		sizeof(struct rte_pktmbuf_pool_private), SOCKET_ID_ANY, 0);
	if (!port->pool)
		return 0;
	rte_pktmbuf_pool_init(port->pool, NULL);
	if (rte_mempool_populate_virt(port->pool, region->base, region->bytes, region->page_bytes,
				      NULL, NULL) < POOL_PACKETS)
		return fail(MR_E_NO_MEMORY, why, why_bytes, "packets do not fit their region");
	rte_mempool_obj_iter(port->pool, rte_pktmbuf_init, NULL);
	return 0;
}

static int make_pool(struct port *port, struct mr_arena *arena, char *why, size_t why_bytes)
{
	char name[RTE_MEMPOOL_NAMESIZE];
	int status = 0;

	snprintf(name, sizeof(name), "packets%u", port->id);
	if (arena)
		status = pool_in_arena(port, arena, name, why, why_bytes);
	else
		port->pool = rte_pktmbuf_pool_create(name, POOL_PACKETS, POOL_CACHE, 0, DATA_ROOM,
						     SOCKET_ID_ANY);
	if (status == 0 && !port->pool)
		return fail(MR_E_NO_MEMORY, why, why_bytes, "no memory for packets: %s",
			    rte_strerror(rte_errno));
	return status;
}

static int start_port(struct port *port, char *why, size_t why_bytes)
{
	struct rte_eth_conf conf = {0};
	struct rte_ether_addr mac;
	uint16_t rx = RING_PACKETS, tx = RING_PACKETS;
	int err;

	err = rte_eth_dev_configure(port->id, 1, 1, &conf);
	if (err == 0)
		err = rte_eth_dev_adjust_nb_rx_tx_desc(port->id, &rx, &tx);
	if (err == 0)
		err = rte_eth_rx_queue_setup(port->id, 0, rx,
					     (unsigned)rte_eth_dev_socket_id(port->id), NULL,
					     port->pool);
	if (err == 0)
		err = rte_eth_tx_queue_setup(port->id, 0, tx,
					     (unsigned)rte_eth_dev_socket_id(port->id), NULL);
	if (err == 0)
		err = rte_eth_dev_start(port->id);
	if (err == 0)
		err = rte_eth_macaddr_get(port->id, &mac);
	if (err != 0)
		return fail(MR_E_DEVICE, why, why_bytes, "the port does not start: %s",
			    /* memif's bare -1 is no errno. */
			    err == -1 ? "nobody listens at the other end" : rte_strerror(-err));
	for (int i = 0; i < FRAME_MAC_BYTES; i++)
		port->self.mac[i] = mac.addr_bytes[i];
	return 0;
}

int mr_port_open(struct port *port, const struct port_options *options, char *why, size_t why_bytes)
{
	int status;

	*port = (struct port){.id = RTE_MAX_ETHPORTS};
	port->self.ip = options->ip;
	port->self.port = options->udp_port;
	status = mr_eal_start(options->eal_args, options->huge, why, why_bytes);
	if (status == 0)
		status = find_port(port, options->vdev, why, why_bytes);
	if (status == 0)
		status = make_pool(port, options->arena, why, why_bytes);
	if (status == 0)
		status = start_port(port, why, why_bytes);
	if (status != 0)
		mr_port_close(port);
	return status;
}

void mr_port_close(struct port *port)
{
	rte_pktmbuf_free_bulk(port->rx, port->rx_count);
	rte_pktmbuf_free_bulk(port->tx, port->tx_count);
	port->rx_count = port->tx_count = 0;
	if (port->id < RTE_MAX_ETHPORTS) {
		rte_eth_dev_stop(port->id);
		if (!port->vdev[0])
			rte_eth_dev_close(port->id);
	}
	if (port->vdev[0])
		rte_eal_hotplug_remove("vdev", port->vdev);
	rte_mempool_free(port->pool);
	if (port->external)
		rte_extmem_unregister(port->external, port->external_bytes);
	*port = (struct port){.id = RTE_MAX_ETHPORTS};
}

/* Drops the burst that was handed out and takes the next one. */
static uint32_t next_burst(struct port *port)
{
	rte_pktmbuf_free_bulk(port->rx, port->rx_count);
	port->rx_next = 0;
	port->rx_count = rte_eth_rx_burst(port->id, 0, port->rx, PORT_BURST);
	return port->rx_count;
}

static struct rte_mbuf *take(struct port *port)
{
	struct rte_mbuf *packet;

	if (port->tx_count == PORT_BURST)
		mr_port_flush(port);
	packet = port->tx_count < PORT_BURST ? rte_pktmbuf_alloc(port->pool) : NULL;
	if (!packet) {
		mr_count(MR_M_wire_tx_full, 1);
		return NULL;
	}
	/* Not queued before its length is set. */
	port->tx[port->tx_count] = packet;
	return packet;
}

static void queue(struct port *port, struct rte_mbuf *packet, size_t bytes)
{
	packet->data_len = (uint16_t)bytes;
	packet->pkt_len = (uint32_t)bytes;
	port->tx_count++;
}

static void answer_arp(struct port *port, const struct frame_end *to)
{
	struct rte_mbuf *packet = take(port);

	if (packet)
		queue(port, packet,
		      mr_frame_arp_reply(&port->self, to, rte_pktmbuf_mtod(packet, uint8_t *)));
}

int mr_port_receive(struct port *port, struct frame_in *in)
{
	struct rte_mbuf *packet;

	if (port->rx_next == port->rx_count && next_burst(port) == 0)
		return 0;
	packet = port->rx[port->rx_next++];
	if (port->rx_next < port->rx_count)
		rte_prefetch0(rte_pktmbuf_mtod(port->rx[port->rx_next], void *));
	/* A frame in several segments is longer than any of ours. */
	if (packet->nb_segs != 1)
		*in = (struct frame_in){.kind = FRAME_OTHER};
	else
		mr_frame_parse(&port->self, rte_pktmbuf_mtod(packet, const uint8_t *),
			       packet->data_len, in);
	switch (in->kind) {
	case FRAME_BAD:
		mr_count(MR_M_wire_bad_format, 1);
		mr_count(MR_M_wire_rx_datagrams, 1);
		break;
	case FRAME_UDP:
		mr_count(MR_M_wire_rx_datagrams, 1);
		break;
	case FRAME_ARP_REQUEST:
		answer_arp(port, &in->from);
		break;
	case FRAME_ARP_REPLY:
		break;
	case FRAME_OTHER:
		mr_count(MR_M_wire_rx_other, 1);
		break;
	}
	return 1;
}

void *mr_port_payload(struct port *port)
{
	struct rte_mbuf *packet = take(port);

	_Static_assert(DATA_ROOM - RTE_PKTMBUF_HEADROOM >= FRAME_MAX, "a whole frame fits");
	return packet ? rte_pktmbuf_mtod(packet, uint8_t *) + FRAME_UDP_BYTES : NULL;
}

void mr_port_send(struct port *port, const struct frame_end *to, uint32_t payload_bytes)
{
	struct rte_mbuf *packet = port->tx[port->tx_count];

	queue(port, packet,
	      mr_frame_udp(&port->self, to, port->ident++, rte_pktmbuf_mtod(packet, uint8_t *),
			   payload_bytes));
	mr_count(MR_M_wire_tx_datagrams, 1);
}

void mr_port_ask(struct port *port, uint32_t ip)
{
	struct rte_mbuf *packet = take(port);

	if (packet)
		queue(port, packet,
		      mr_frame_arp_request(&port->self, ip, rte_pktmbuf_mtod(packet, uint8_t *)));
}

void mr_port_flush(struct port *port)
{
	struct rte_eth_link link;
	uint32_t sent;

	if (port->tx_count == 0)
		return;
	sent = rte_eth_tx_burst(port->id, 0, port->tx, (uint16_t)port->tx_count);
	if (sent == 0 && rte_eth_link_get_nowait(port->id, &link) == 0 &&
	    link.link_status == RTE_ETH_LINK_DOWN) {
		/* Nobody is there: old frames must not greet the next peer. */
		rte_pktmbuf_free_bulk(port->tx, port->tx_count);
		sent = port->tx_count;
	}
	for (uint32_t i = sent; i < port->tx_count; i++)
		port->tx[i - sent] = port->tx[i];
	port->tx_count -= sent;
}
