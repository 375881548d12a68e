// SPDX-License-Identifier: Apache-2.0
/* Interrupts: MSI-X vectors to eventfds that the client passes. There is no INTx and no MSI. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "firmware-sim/vfio_user_server.h"

int mr_vu_irq_info(struct mr_vfio_user *s, struct vu_message *m)
{
	struct mr_vu_irq_info c;

	if (m->in_bytes != sizeof(c))
		return EINVAL;
	memcpy(&c, m->in, sizeof(c));
	if (c.argsz < sizeof(c) || c.index >= MR_VU_IRQS)
		return EINVAL;
	c.argsz = sizeof(c);
	c.flags = c.index == MR_VU_MSIX ? MR_VU_IRQ_EVENTFD : 0;
	c.count = c.index == MR_VU_MSIX ? s->o.vectors : 0;
	memcpy(m->out, &c, sizeof(c));
	m->out_bytes = sizeof(c);
	return 0;
}

static void assign(struct mr_vfio_user *s, uint32_t vector, int fd)
{
	s->o.port->ops->irq(s->o.port->ctx, vector, fd);
	if (s->irq[vector] >= 0)
		close(s->irq[vector]);
	s->irq[vector] = fd;
}

void mr_vu_irq_forget(struct mr_vfio_user *s)
{
	for (uint32_t i = 0; i < s->o.vectors; i++)
		if (s->irq[i] >= 0)
			assign(s, i, -1);
}

/* The device writes to it and must never wait there: an eventfd, and not a blocking one. */
static int eventfd_ok(int fd)
{
	char path[64], what[64];
	ssize_t n;
	int flags;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	n = readlink(path, what, sizeof(what) - 1);
	if (n < 0)
		return 0;
	what[n] = 0;
	flags = fcntl(fd, F_GETFL);
	return !strcmp(what, "anon_inode:[eventfd]") && flags >= 0 &&
	       (flags & O_NONBLOCK || !fcntl(fd, F_SETFL, flags | O_NONBLOCK));
}

static int take_eventfds(struct mr_vfio_user *s, struct vu_message *m,
			 const struct mr_vu_irq_set *c)
{
	if (m->fd_count && m->fd_count != c->count)
		return EINVAL;
	for (uint32_t i = 0; i < m->fd_count; i++)
		if (!eventfd_ok(m->fds[i]))
			return EINVAL;
	for (uint32_t i = 0; i < c->count; i++) {
		assign(s, c->start + i, m->fd_count ? m->fds[i] : -1);
		if (m->fd_count)
			m->fds[i] = -1;
	}
	return 0;
}

static void trigger(struct mr_vfio_user *s, uint32_t vector)
{
	const uint64_t one = 1;

	if (s->irq[vector] >= 0 && write(s->irq[vector], &one, sizeof(one)) != sizeof(one))
		mr_vu_say(s, "vector %u: its eventfd is full", vector);
}

int mr_vu_irq_set(struct mr_vfio_user *s, struct vu_message *m)
{
	const uint8_t *which;
	struct mr_vu_irq_set c;

	if (m->in_bytes < sizeof(c))
		return EINVAL;
	memcpy(&c, m->in, sizeof(c));
	which = m->in + sizeof(c);
	uint32_t left = m->in_bytes - (uint32_t)sizeof(c);
	uint32_t vectors = c.index == MR_VU_MSIX ? s->o.vectors : 0;
	uint32_t data = c.flags & 7;
	if (c.index >= MR_VU_IRQS || c.start > vectors || c.count > vectors - c.start ||
	    (c.flags & ~7u) != MR_VU_SET_TRIGGER)
		return EINVAL;
	if (data == MR_VU_SET_DATA_EVENTFD)
		return take_eventfds(s, m, &c);
	if (data == MR_VU_SET_DATA_NONE && !c.count && !c.start && c.index == MR_VU_MSIX)
		mr_vu_irq_forget(s);
	else if (data == MR_VU_SET_DATA_BOOL ? left < c.count : data != MR_VU_SET_DATA_NONE)
		return EINVAL;
	for (uint32_t i = 0; i < c.count; i++)
		if (data == MR_VU_SET_DATA_NONE || which[i])
			trigger(s, c.start + i);
	return 0;
}
