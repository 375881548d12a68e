/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ethernet, ARP, IPv4 and UDP, as much as the wire needs, in plain memory: no DPDK, no state, so that it
 * can be fuzzed. Used by driver/net/port.c for every frame.
 *
 * IPv4 addresses and ports are in host order. Frames with a VLAN tag, IP options or IP fragments are
 * nobody's here.
 */
#ifndef MR_DRIVER_NET_FRAME_H
#define MR_DRIVER_NET_FRAME_H

#include <stddef.h>
#include <stdint.h>

#define FRAME_MAC_BYTES 6
#define FRAME_UDP_BYTES (14 + 20 + 8) /* headers before a UDP payload */
#define FRAME_ARP_BYTES (14 + 28)

/* One end of a UDP conversation. */
struct frame_end {
	uint8_t mac[FRAME_MAC_BYTES];
	uint16_t port;
	uint32_t ip;
};

enum frame_kind {
	FRAME_OTHER,       /* not for us, or broken below UDP: not counted as ours */
	FRAME_BAD,         /* UDP to our port with a wrong checksum or length */
	FRAME_UDP,         /* @from and payload are filled */
	FRAME_ARP_REQUEST, /* asks for our address; @from holds who asks */
	FRAME_ARP_REPLY,   /* tells us @from's MAC */
};

struct frame_in {
	enum frame_kind kind;
	uint32_t payload_bytes;
	const uint8_t *payload;
	struct frame_end from;
};

/* What the frame of @bytes bytes is to the host at @self. UDP without a checksum (0) is taken. */
void mr_frame_parse(const struct frame_end *self, const uint8_t *frame, size_t bytes,
		    struct frame_in *in);

/*
 * Writes the headers around a UDP payload of @payload_bytes that already lies at
 * frame + FRAME_UDP_BYTES, checksums included; returns the frame's length.
 */
size_t mr_frame_udp(const struct frame_end *self, const struct frame_end *to, uint16_t ident,
		    uint8_t *frame, size_t payload_bytes);

/* Writes an ARP request for @ip, or the reply to @to; FRAME_ARP_BYTES at @frame. Returns the length. */
size_t mr_frame_arp_request(const struct frame_end *self, uint32_t ip, uint8_t *frame);
size_t mr_frame_arp_reply(const struct frame_end *self, const struct frame_end *to, uint8_t *frame);

#endif /* MR_DRIVER_NET_FRAME_H */
