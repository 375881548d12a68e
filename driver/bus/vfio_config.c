// SPDX-License-Identifier: Apache-2.0
/* See vfio_pci.h: configuration space, bounded and without trust. */
#include "driver/bus/vfio_pci.h"

#include <string.h>

#include <millrace/status.h>

#define HEADER_BYTES 64u
#define STATUS       0x06u
#define STATUS_CAPS  0x10u
#define HEADER_TYPE  0x0eu
#define CAPS_POINTER 0x34u

#define CAP_MSI     0x05u
#define CAP_EXPRESS 0x10u
#define CAP_MSIX    0x11u
#define CAP_AF      0x13u

static uint32_t le16(const uint8_t *p)
{
	return p[0] | (uint32_t)p[1] << 8;
}

static uint32_t le32(const uint8_t *p)
{
	return le16(p) | le16(p + 2) << 16;
}

/* 1 where the capability at @at, of @need bytes, lies inside. */
static int inside(uint32_t at, uint32_t need, size_t bytes)
{
	return at + need <= bytes;
}

static int capability(const uint8_t *config, size_t bytes, uint32_t at, struct mr_vfio_function *f)
{
	const uint8_t *cap = config + at;

	switch (cap[0]) {
	case CAP_MSI:
		if (!inside(at, 10, bytes) || (le16(cap + 2) >> 1 & 7) > 5)
			return MR_E_FORMAT;
		f->msi = (uint8_t)at;
		f->msi_vectors = (uint16_t)(1u << (le16(cap + 2) >> 1 & 7));
		return 0;
	case CAP_MSIX:
		if (!inside(at, 12, bytes) || (le32(cap + 4) & 7) > 5)
			return MR_E_FORMAT;
		f->msix = (uint8_t)at;
		f->msix_vectors = (uint16_t)((le16(cap + 2) & 0x7ff) + 1);
		f->msix_bar = (uint8_t)(le32(cap + 4) & 7);
		f->msix_offset = le32(cap + 4) & ~7u;
		return 0;
	case CAP_EXPRESS:
		if (!inside(at, 8, bytes))
			return MR_E_FORMAT;
		f->express = (uint8_t)at;
		f->flr |= le32(cap + 4) >> 28 & 1;
		return 0;
	case CAP_AF:
		if (!inside(at, 6, bytes))
			return MR_E_FORMAT;
		f->flr |=
			(cap[3] & 3) == 3; /* transactions pending can be read, and FLR is there */
		return 0;
	default:
		return 0;
	}
}

int mr_vfio_config_parse(const uint8_t *config, size_t bytes, struct mr_vfio_function *out)
{
	uint64_t seen = 0; /* bit n: a capability at 4 * n was visited */

	memset(out, 0, sizeof(*out));
	if (bytes < HEADER_BYTES)
		return MR_E_TRUNCATED;
	if (bytes > MR_VFIO_CONFIG_BYTES)
		bytes = MR_VFIO_CONFIG_BYTES;
	out->vendor = (uint16_t)le16(config);
	out->device = (uint16_t)le16(config + 2);
	out->command = (uint16_t)le16(config + MR_VFIO_COMMAND);
	if (out->vendor == 0xffff)
		return MR_E_DISCONNECTED;
	if (config[HEADER_TYPE] & 0x7f)
		return MR_E_NOT_SUPPORTED;
	if (!(le16(config + STATUS) & STATUS_CAPS))
		return 0;
	for (uint32_t at = config[CAPS_POINTER] & ~3u; at; at = config[at + 1] & ~3u) {
		if (at < HEADER_BYTES || !inside(at, 2, bytes) || seen >> (at / 4) & 1)
			return MR_E_FORMAT;
		seen |= 1ull << (at / 4);
		int status = capability(config, bytes, at, out);
		if (status)
			return status;
	}
	return 0;
}
