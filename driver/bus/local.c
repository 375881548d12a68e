// SPDX-License-Identifier: Apache-2.0
/*
 * The bus to a device in this process. Nothing but the port's calls: what makes the port is given at run
 * time and unknown here.
 */
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <millrace/lpu_port.h>

#include "driver/bus/bus.h"
#include "driver/mem/arena.h"

_Static_assert(MR_PORT_DMA_READ == MR_DMA_READ && MR_PORT_DMA_WRITE == MR_DMA_WRITE, "one access");

#define VECTORS 16

struct local {
	struct mr_bus bus;
	struct mr_lpu_port port;
	int fd[VECTORS]; /* -1 = not asked for yet */
};

static struct local *local_of(struct mr_bus *bus)
{
	return (struct local *)bus; /* bus is the first member */
}

static uint32_t local_reg_read(struct mr_bus *bus, uint32_t offset)
{
	struct local *l = local_of(bus);

	return l->port.ops->reg_read(l->port.ctx, offset);
}

static void local_reg_write(struct mr_bus *bus, uint32_t offset, uint32_t value)
{
	struct local *l = local_of(bus);

	l->port.ops->reg_write(l->port.ctx, offset, value);
}

static void local_doorbell(struct mr_bus *bus, uint32_t queue, uint32_t offset, uint32_t value)
{
	struct local *l = local_of(bus);

	l->port.ops->doorbell(l->port.ctx, queue, offset, value);
}

static int local_dma_map(struct mr_bus *bus, uint64_t iova, void *base, size_t bytes,
			 uint32_t access)
{
	struct local *l = local_of(bus);

	return l->port.ops->dma_map(l->port.ctx, iova, base, bytes, access);
}

static int local_dma_unmap(struct mr_bus *bus, uint64_t iova)
{
	struct local *l = local_of(bus);

	return l->port.ops->dma_unmap(l->port.ctx, iova);
}

static int local_irq_fd(struct mr_bus *bus, uint32_t vector)
{
	struct local *l = local_of(bus);

	if (vector >= VECTORS)
		return MR_E_RANGE;
	if (l->fd[vector] >= 0)
		return l->fd[vector];
	int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (fd < 0)
		return MR_E_IO;
	int status = l->port.ops->irq(l->port.ctx, vector, fd);
	if (status) {
		close(fd);
		return status;
	}
	l->fd[vector] = fd;
	return fd;
}

static int local_reset(struct mr_bus *bus)
{
	struct local *l = local_of(bus);

	return l->port.ops->reset(l->port.ctx);
}

static void local_close(struct mr_bus *bus)
{
	struct local *l = local_of(bus);

	l->port.ops->close(l->port.ctx); /* no interrupt after it, so the descriptors may go */
	for (int i = 0; i < VECTORS; i++)
		if (l->fd[i] >= 0)
			close(l->fd[i]);
	free(l);
}

static const struct mr_bus_ops local_ops = {
	.reg_read = local_reg_read,
	.reg_write = local_reg_write,
	.doorbell = local_doorbell,
	.dma_map = local_dma_map,
	.dma_unmap = local_dma_unmap,
	.irq_fd = local_irq_fd,
	.reset = local_reset,
	.close = local_close,
};

int mr_bus_local_open(const struct mr_lpu_port *port, struct mr_bus **bus)
{
	struct local *l = calloc(1, sizeof(*l));

	if (!l)
		return MR_E_NO_MEMORY;
	l->bus.ops = &local_ops;
	l->port = *port;
	for (int i = 0; i < VECTORS; i++)
		l->fd[i] = -1;
	*bus = &l->bus;
	return 0;
}
