// SPDX-License-Identifier: Apache-2.0
/* See frame.h. Fields are read and written by byte offset, as the RFCs draw them (826, 791, 768). */
#include "driver/net/frame.h"

#include <stdbool.h>

enum { ETH_TYPE = 12, ETH_BYTES = 14, ETHER_IPV4 = 0x0800, ETHER_ARP = 0x0806 };
enum { IP_BYTES = 20, IP_TTL = 64, IP_PROTO_UDP = 17, UDP_BYTES = 8 };
enum { ARP_OP_REQUEST = 1, ARP_OP_REPLY = 2 };
#define IP_DONT_FRAGMENT  0x4000u
#define IP_MORE_OR_OFFSET 0x3fffu

static uint16_t get16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static uint32_t get32(const uint8_t *p)
{
	return (uint32_t)get16(p) << 16 | get16(p + 2);
}

static void put16(uint8_t *p, unsigned v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static void put32(uint8_t *p, uint32_t v)
{
	put16(p, v >> 16);
	put16(p + 2, v & 0xffff);
}

static void put_mac(uint8_t *p, const uint8_t *mac)
{
	for (int i = 0; i < FRAME_MAC_BYTES; i++)
		p[i] = mac[i];
}

static bool same_mac(const uint8_t *a, const uint8_t *b)
{
	for (int i = 0; i < FRAME_MAC_BYTES; i++)
		if (a[i] != b[i])
			return false;
	return true;
}

/* One's complement sum of big-endian words (RFC 1071), not yet folded. */
static uint64_t sum(const uint8_t *p, size_t bytes)
{
	uint64_t s = 0;

	for (; bytes >= 4; p += 4, bytes -= 4)
		s += get32(p);
	for (; bytes >= 2; p += 2, bytes -= 2)
		s += get16(p);
	if (bytes)
		s += (uint64_t)p[0] << 8;
	return s;
}

static uint16_t fold(uint64_t s)
{
	while (s >> 16)
		s = (s & 0xffff) + (s >> 16);
	return (uint16_t)~s;
}

/* Of a UDP header and its payload, with the pseudo header out of @ip. */
static uint16_t udp_checksum(const uint8_t *ip, const uint8_t *udp, size_t udp_bytes)
{
	return fold(sum(ip + 12, 8) + IP_PROTO_UDP + udp_bytes + sum(udp, udp_bytes));
}

static void parse_arp(const struct frame_end *self, const uint8_t *arp, size_t bytes,
		      struct frame_in *in)
{
	/* Ethernet, IPv4, address lengths 6 and 4. */
	if (bytes < FRAME_ARP_BYTES - ETH_BYTES || get16(arp) != 1 ||
	    get16(arp + 2) != ETHER_IPV4 || get16(arp + 4) != 0x0604 || get32(arp + 24) != self->ip)
		return;
	put_mac(in->from.mac, arp + 8);
	in->from.ip = get32(arp + 14);
	if (get16(arp + 6) == ARP_OP_REQUEST)
		in->kind = FRAME_ARP_REQUEST;
	else if (get16(arp + 6) == ARP_OP_REPLY)
		in->kind = FRAME_ARP_REPLY;
}

static void parse_udp(const struct frame_end *self, const uint8_t *ip, size_t bytes,
		      struct frame_in *in)
{
	const uint8_t *udp = ip + IP_BYTES;
	size_t ip_bytes, udp_bytes;

	if (bytes < IP_BYTES + UDP_BYTES || ip[0] != 0x45 || ip[9] != IP_PROTO_UDP ||
	    get32(ip + 16) != self->ip || fold(sum(ip, IP_BYTES)) != 0)
		return;
	ip_bytes = get16(ip + 2);
	if (ip_bytes < IP_BYTES + UDP_BYTES || ip_bytes > bytes ||
	    (get16(ip + 6) & IP_MORE_OR_OFFSET) || get16(udp + 2) != self->port)
		return;
	in->kind = FRAME_BAD;
	udp_bytes = get16(udp + 4);
	if (udp_bytes < UDP_BYTES || udp_bytes > ip_bytes - IP_BYTES)
		return;
	if (get16(udp + 6) != 0 && udp_checksum(ip, udp, udp_bytes) != 0)
		return;
	in->kind = FRAME_UDP;
	in->from.ip = get32(ip + 12);
	in->from.port = get16(udp);
	in->payload = udp + UDP_BYTES;
	in->payload_bytes = (uint32_t)(udp_bytes - UDP_BYTES);
}

void mr_frame_parse(const struct frame_end *self, const uint8_t *frame, size_t bytes,
		    struct frame_in *in)
{
	static const uint8_t broadcast[FRAME_MAC_BYTES] = {255, 255, 255, 255, 255, 255};

	*in = (struct frame_in){.kind = FRAME_OTHER};
	if (bytes < ETH_BYTES || (!same_mac(frame, self->mac) && !same_mac(frame, broadcast)))
		return;
	put_mac(in->from.mac, frame + FRAME_MAC_BYTES);
	if (get16(frame + ETH_TYPE) == ETHER_ARP)
		parse_arp(self, frame + ETH_BYTES, bytes - ETH_BYTES, in);
	else if (get16(frame + ETH_TYPE) == ETHER_IPV4)
		parse_udp(self, frame + ETH_BYTES, bytes - ETH_BYTES, in);
}

static void put_ethernet(uint8_t *frame, const uint8_t *to, const uint8_t *from, unsigned type)
{
	put_mac(frame, to);
	put_mac(frame + FRAME_MAC_BYTES, from);
	put16(frame + ETH_TYPE, type);
}

size_t mr_frame_udp(const struct frame_end *self, const struct frame_end *to, uint16_t ident,
		    uint8_t *frame, size_t payload_bytes)
{
	uint8_t *ip = frame + ETH_BYTES, *udp = ip + IP_BYTES;
	size_t udp_bytes = UDP_BYTES + payload_bytes;
	uint16_t checksum;

	put_ethernet(frame, to->mac, self->mac, ETHER_IPV4);
	put16(ip, 0x4500);
	put16(ip + 2, (unsigned)(IP_BYTES + udp_bytes));
	put16(ip + 4, ident);
	put16(ip + 6, IP_DONT_FRAGMENT);
	put16(ip + 8, IP_TTL << 8 | IP_PROTO_UDP);
	put16(ip + 10, 0);
	put32(ip + 12, self->ip);
	put32(ip + 16, to->ip);
	put16(ip + 10, fold(sum(ip, IP_BYTES)));
	put16(udp, self->port);
	put16(udp + 2, to->port);
	put16(udp + 4, (unsigned)udp_bytes);
	put16(udp + 6, 0);
	/* 0 would mean "no checksum"; its other spelling means the same sum. */
	checksum = udp_checksum(ip, udp, udp_bytes);
	put16(udp + 6, checksum ? checksum : 0xffff);
	return ETH_BYTES + IP_BYTES + udp_bytes;
}

static size_t put_arp(const struct frame_end *self, const uint8_t *mac, uint32_t ip, unsigned op,
		      uint8_t *frame)
{
	uint8_t *arp = frame + ETH_BYTES;

	put16(arp, 1);
	put16(arp + 2, ETHER_IPV4);
	put16(arp + 4, 0x0604);
	put16(arp + 6, op);
	put_mac(arp + 8, self->mac);
	put32(arp + 14, self->ip);
	put_mac(arp + 18, mac);
	put32(arp + 24, ip);
	return FRAME_ARP_BYTES;
}

size_t mr_frame_arp_request(const struct frame_end *self, uint32_t ip, uint8_t *frame)
{
	static const uint8_t broadcast[FRAME_MAC_BYTES] = {255, 255, 255, 255, 255, 255};
	static const uint8_t unknown[FRAME_MAC_BYTES];

	put_ethernet(frame, broadcast, self->mac, ETHER_ARP);
	return put_arp(self, unknown, ip, ARP_OP_REQUEST, frame);
}

size_t mr_frame_arp_reply(const struct frame_end *self, const struct frame_end *to, uint8_t *frame)
{
	put_ethernet(frame, to->mac, self->mac, ETHER_ARP);
	return put_arp(self, to->mac, to->ip, ARP_OP_REPLY, frame);
}
