// SPDX-License-Identifier: Apache-2.0
/*
 * The PCI function: configuration space (one MSI-X and one PCI Express capability), BAR0 registers, BAR2
 * doorbells, BAR4 MSI-X table and pending bits. The client maps BAR2 where the device has a memfd of it; all
 * else is trapped. Masking of vectors is the client's own business: the table is memory and nothing more.
 */
#include <errno.h>
#include <string.h>

#include <millrace/lpu_spec.h>

#include "firmware-sim/vfio_user_server.h"

#define MSIX_AT      0x50u
#define EXPRESS_AT   0x70u
#define EXPRESS_CTRL (EXPRESS_AT + 8)
#define PBA_AT       0x800u
#define BAR_64BIT    0x4u

static void put16(uint8_t *at, uint32_t value)
{
	uint16_t v = (uint16_t)value;

	memcpy(at, &v, sizeof(v));
}

static void put32(uint8_t *at, uint32_t value)
{
	memcpy(at, &value, sizeof(value));
}

static uint64_t bar_bytes(const struct mr_vfio_user *s, uint32_t bar)
{
	switch (bar) {
	case MR_VU_BAR0:
		return MR_LPU_BAR0_BYTES;
	case MR_VU_BAR2:
		return s->bar2_bytes;
	case MR_VU_BAR4:
		return VU_BAR4_BYTES;
	default:
		return 0;
	}
}

static uint64_t region_bytes(const struct mr_vfio_user *s, uint32_t region)
{
	return region == MR_VU_CONFIG ? MR_PCI_CONFIG_BYTES : bar_bytes(s, region);
}

void mr_vu_pci_init(struct mr_vfio_user *s)
{
	uint8_t *c = s->config, *w = s->writable;

	memset(c, 0, sizeof(s->config));
	memset(w, 0, sizeof(s->writable));
	memset(s->bar4, 0, sizeof(s->bar4));
	put16(c + MR_PCI_VENDOR, s->o.vendor);
	put16(c + MR_PCI_DEVICE, s->o.device);
	put16(w + MR_PCI_COMMAND,
	      MR_PCI_COMMAND_MEMORY | MR_PCI_COMMAND_MASTER | MR_PCI_COMMAND_NOINTX);
	put16(c + MR_PCI_STATUS, MR_PCI_STATUS_CAPS);
	put32(c + MR_PCI_CLASS, MR_PCI_CLASS_LPU << 8 | 1);
	put16(c + 0x2c, s->o.vendor); /* subsystem */
	put16(c + 0x2e, s->o.device);
	for (uint32_t bar = 0; bar < 6; bar += 2) {
		uint64_t mask = ~(bar_bytes(s, bar) - 1);
		put32(c + MR_PCI_BAR0 + bar * 4, BAR_64BIT);
		memcpy(w + MR_PCI_BAR0 + bar * 4, &mask, sizeof(mask));
	}
	c[MR_PCI_CAPS] = MSIX_AT;
	w[0x3c] = 0xff; /* interrupt line: the host's note to itself */

	c[MSIX_AT] = MR_PCI_CAP_MSIX;
	c[MSIX_AT + 1] = EXPRESS_AT;
	put16(c + MSIX_AT + 2, s->o.vectors - 1);
	put16(w + MSIX_AT + 2, MR_PCI_MSIX_ENABLE | 0x4000); /* enable, mask all */
	put32(c + MSIX_AT + 4, 0 | MR_VU_BAR4);
	put32(c + MSIX_AT + 8, PBA_AT | MR_VU_BAR4);

	c[EXPRESS_AT] = MR_PCI_CAP_EXPRESS;
	put16(c + EXPRESS_AT + 2, 2);                           /* version 2, endpoint */
	put32(c + EXPRESS_AT + 4, MR_PCI_EXPRESS_FLR | 0x8000); /* role-based errors */
	put16(w + EXPRESS_CTRL, 0x7fff);
	put32(c + EXPRESS_AT + 12, 0x11); /* link: one lane of 2.5 GT/s can be, */
	put16(c + EXPRESS_AT + 18, 0x11); /* and is */
}

int mr_vu_reset(struct mr_vfio_user *s)
{
	int status = s->o.port->ops->reset(s->o.port->ctx);

	mr_vu_pci_init(s);
	mr_vu_say(s, "reset: %s", status ? mr_status_name(status) : "done");
	return status == 0 ? 0 : status == MR_E_TIMEOUT ? ETIMEDOUT : ENOTSUP;
}

static int write_config(struct mr_vfio_user *s, uint32_t at, const uint8_t *from, uint32_t bytes)
{
	/* Initiate Function Level Reset reads as 0; writing 1 is the command. */
	if (at <= EXPRESS_CTRL + 1 && at + bytes > EXPRESS_CTRL + 1 &&
	    from[EXPRESS_CTRL + 1 - at] & MR_PCI_EXPRESS_RESET >> 8)
		return mr_vu_reset(s);
	for (uint32_t i = 0; i < bytes; i++)
		s->config[at + i] = (uint8_t)((s->config[at + i] & ~s->writable[at + i]) |
					      (from[i] & s->writable[at + i]));
	return 0;
}

/* Registers and doorbells take aligned 32-bit accesses, here also several in a row. */
static int words(uint64_t offset, uint32_t bytes)
{
	return offset % 4 == 0 && bytes % 4 == 0;
}

static int read_region(struct mr_vfio_user *s, const struct mr_vu_access *a, uint8_t *to)
{
	const struct mr_lpu_port *port = s->o.port;

	switch (a->region) {
	case MR_VU_BAR0:
		if (!words(a->offset, a->count))
			return EINVAL;
		for (uint32_t i = 0; i < a->count; i += 4)
			put32(to + i, port->ops->reg_read(port->ctx, (uint32_t)a->offset + i));
		return 0;
	case MR_VU_BAR2:
		memset(to, 0, a->count); /* write-only */
		return 0;
	case MR_VU_BAR4:
		memcpy(to, s->bar4 + a->offset, a->count);
		return 0;
	default:
		memcpy(to, s->config + a->offset, a->count);
		return 0;
	}
}

static int write_region(struct mr_vfio_user *s, const struct mr_vu_access *a, const uint8_t *from)
{
	const struct mr_lpu_port *port = s->o.port;
	uint32_t value;

	switch (a->region) {
	case MR_VU_BAR0:
	case MR_VU_BAR2:
		if (!words(a->offset, a->count))
			return EINVAL;
		for (uint32_t i = 0; i < a->count; i += 4) {
			uint32_t at = (uint32_t)a->offset + i;
			memcpy(&value, from + i, sizeof(value));
			if (a->region == MR_VU_BAR0)
				port->ops->reg_write(port->ctx, at, value);
			else
				port->ops->doorbell(port->ctx, at / MR_LPU_DOORBELL_STRIDE,
						    at % MR_LPU_DOORBELL_STRIDE, value);
		}
		return 0;
	case MR_VU_BAR4:
		if (a->offset < PBA_AT && a->count <= PBA_AT - a->offset) /* pending bits are not */
			memcpy(s->bar4 + a->offset, from, a->count);
		return 0;
	default:
		return write_config(s, (uint32_t)a->offset, from, a->count);
	}
}

static int access_ok(const struct mr_vfio_user *s, const struct mr_vu_access *a)
{
	uint64_t bytes = region_bytes(s, a->region);

	return a->count && a->count <= MR_VU_XFER_MAX && a->count <= bytes &&
	       a->offset <= bytes - a->count;
}

int mr_vu_region_read(struct mr_vfio_user *s, struct vu_message *m)
{
	struct mr_vu_access a;
	int error;

	if (m->in_bytes != sizeof(a))
		return EINVAL;
	memcpy(&a, m->in, sizeof(a));
	if (!access_ok(s, &a))
		return EINVAL;
	error = read_region(s, &a, m->out + sizeof(a));
	memcpy(m->out, &a, sizeof(a));
	m->out_bytes = (uint32_t)sizeof(a) + a.count;
	return error;
}

int mr_vu_region_write(struct mr_vfio_user *s, struct vu_message *m)
{
	struct mr_vu_access a;

	if (m->in_bytes < sizeof(a))
		return EINVAL;
	memcpy(&a, m->in, sizeof(a));
	if (!access_ok(s, &a) || m->in_bytes - sizeof(a) != a.count)
		return EINVAL;
	memcpy(m->out, &a, sizeof(a));
	m->out_bytes = sizeof(a);
	return write_region(s, &a, m->in + sizeof(a));
}

int mr_vu_region_write_multi(struct mr_vfio_user *s, struct vu_message *m)
{
	uint64_t count, done = 0;

	if (m->in_bytes < sizeof(count))
		return EINVAL;
	memcpy(&count, m->in, sizeof(count));
	if (count > VU_IN_BYTES / sizeof(struct mr_vu_write) ||
	    m->in_bytes != sizeof(count) + count * sizeof(struct mr_vu_write))
		return EINVAL;
	for (; done < count; done++) {
		struct mr_vu_write w;
		memcpy(&w, m->in + sizeof(count) + done * sizeof(w), sizeof(w));
		const struct mr_vu_access a = {w.offset, w.region, w.count};
		if (w.count > sizeof(w.data) || !access_ok(s, &a) || write_region(s, &a, w.data))
			break;
	}
	memcpy(m->out, &done, sizeof(done));
	m->out_bytes = sizeof(done);
	return done == count ? 0 : EINVAL;
}

int mr_vu_region_info(struct mr_vfio_user *s, struct vu_message *m)
{
	struct mr_vu_region_info c;

	if (m->in_bytes != sizeof(c))
		return EINVAL;
	memcpy(&c, m->in, sizeof(c));
	if (c.argsz < sizeof(c) || c.index >= MR_VU_REGIONS)
		return EINVAL;
	c = (struct mr_vu_region_info){
		.argsz = sizeof(c), .index = c.index, .size = region_bytes(s, c.index)};
	if (c.size)
		c.flags = MR_VU_REGION_READS | MR_VU_REGION_WRITES;
	if (c.index == MR_VU_BAR2 && s->o.doorbell_fd >= 0) {
		c.flags |= MR_VU_REGION_MMAP;
		m->out_fd = s->o.doorbell_fd;
	}
	memcpy(m->out, &c, sizeof(c));
	m->out_bytes = sizeof(c);
	return 0;
}
