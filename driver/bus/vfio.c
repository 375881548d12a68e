// SPDX-License-Identifier: Apache-2.0
/* See vfio.h: the bus's calls on a function that vfio_open.c opened. */
#include "driver/bus/vfio.h"

#include <errno.h>
#include <linux/vfio.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <millrace/lpu_spec.h>

#include "driver/bus/vfio_own.h"
#include "driver/mem/arena.h"

static struct vfio *vfio_of(struct mr_bus *bus)
{
	return (struct vfio *)bus; /* bus is the first member */
}

int mr_vfio_fail(struct vfio *v, int status, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(v->why, sizeof(v->why), format, args);
	va_end(args);
	return status;
}

int mr_vfio_master(struct vfio *v, int on)
{
	uint16_t command = v->command | (on ? MR_VFIO_COMMAND_MASTER : 0);

	v->mastering = on;
	if (pwrite(v->device, &command, sizeof(command), (off_t)(v->config_at + MR_VFIO_COMMAND)) !=
	    sizeof(command))
		return mr_vfio_fail(v, MR_E_IO, "%s: its command register cannot be written: %s",
				    v->facts.place.address, strerror(errno));
	return 0;
}

/* ---- registers and doorbells ----------------------------------------------------------------- */

static int reachable(const struct vfio_bar *bar, uint64_t offset)
{
	return !(offset & 3) && offset < bar->bytes && bar->bytes - offset >= 4;
}

/* The store is one aligned MOV to uncached memory: it stays behind all earlier stores to DMA memory. */
static void write32(struct vfio *v, const struct vfio_bar *bar, uint64_t offset, uint32_t value)
{
	if (!reachable(bar, offset))
		return;
	if (bar->map)
		__atomic_store_n((uint32_t *)(void *)(bar->map + offset), value, __ATOMIC_RELEASE);
	else if (pwrite(v->device, &value, sizeof(value), (off_t)(bar->at + offset)) < 0)
		mr_vfio_fail(v, MR_E_IO, "%s: a register cannot be written: %s",
			     v->facts.place.address, strerror(errno));
}

/*
 * All ones are what a read gives that nobody answers. Is the function gone from its bus? Its class is asked, since
 * the kernel answers for its ids itself.
 */
static int gone(struct vfio *v)
{
	uint32_t class_code = UINT32_MAX;

	if (pread(v->device, &class_code, sizeof(class_code),
		  (off_t)(v->config_at + MR_VFIO_CLASS)) == sizeof(class_code) &&
	    class_code != UINT32_MAX)
		return 0;
	__atomic_store_n(&v->bus.lost, MR_E_DISCONNECTED, __ATOMIC_RELAXED);
	mr_vfio_fail(v, MR_E_DISCONNECTED,
		     "%s: it is gone from its bus: was it pulled, or its power lost?",
		     v->facts.place.address);
	return 1;
}

static uint32_t vfio_reg_read(struct mr_bus *bus, uint32_t offset)
{
	struct vfio *v = vfio_of(bus);
	const struct vfio_bar *bar = &v->bar[BAR_REGISTERS];
	uint32_t value = UINT32_MAX;

	if (!reachable(bar, offset))
		return value;
	if (bar->map)
		value = __atomic_load_n((uint32_t *)(void *)(bar->map + offset), __ATOMIC_ACQUIRE);
	else if (pread(v->device, &value, sizeof(value), (off_t)(bar->at + offset)) !=
		 sizeof(value))
		value = UINT32_MAX;
	if (value == UINT32_MAX)
		gone(v);
	return value;
}

static void vfio_reg_write(struct mr_bus *bus, uint32_t offset, uint32_t value)
{
	struct vfio *v = vfio_of(bus);

	if (!v->mastering && v->map_count)
		mr_vfio_master(v, 1);
	write32(v, &v->bar[BAR_REGISTERS], offset, value);
}

static void vfio_doorbell(struct mr_bus *bus, uint32_t queue, uint32_t offset, uint32_t value)
{
	struct vfio *v = vfio_of(bus);

	write32(v, &v->bar[BAR_DOORBELLS], (uint64_t)queue * MR_LPU_DOORBELL_STRIDE + offset,
		value);
}

/* ---- DMA ------------------------------------------------------------------------------------- */

static struct vfio_range *map_at(struct vfio *v, uint64_t iova)
{
	for (uint32_t i = 0; i < v->map_count; i++)
		if (v->maps[i].first == iova)
			return &v->maps[i];
	return NULL;
}

static int translated(const struct vfio *v, uint64_t first, uint64_t last)
{
	for (uint32_t i = 0; i < v->aperture_count; i++)
		if (first >= v->apertures[i].first && last <= v->apertures[i].last)
			return 1;
	return !v->aperture_count;
}

/* Why the kernel took no map of @bytes. */
static int map_refused(struct vfio *v, uint64_t iova, size_t bytes)
{
	const char *address = v->facts.place.address;
	struct rlimit limit = {0};

	switch (errno) {
	case EEXIST:
		return mr_vfio_fail(v, MR_E_EXISTS, "%s: IOVA 0x%llx is mapped already", address,
				    (unsigned long long)iova);
	case ENOMEM:
		getrlimit(RLIMIT_MEMLOCK, &limit);
		return mr_vfio_fail(
			v, MR_E_NO_MEMORY,
			"%s: %zu KiB could not be pinned for DMA: RLIMIT_MEMLOCK is %llu KiB; "
			"raise it "
			"(LimitMEMLOCK=infinity in a systemd unit, memlock in limits.conf)",
			address, bytes >> 10, (unsigned long long)limit.rlim_cur >> 10);
	case ENOSPC:
		return mr_vfio_fail(v, MR_E_FULL,
				    "%s: the kernel allows no more mappings: raise "
				    "vfio_iommu_type1.dma_entry_limit, or use larger pages",
				    address);
	case EINVAL:
		return mr_vfio_fail(v, MR_E_INVALID,
				    "%s: the kernel refuses to map %zu bytes at IOVA 0x%llx",
				    address, bytes, (unsigned long long)iova);
	default:
		return mr_vfio_fail(v, MR_E_IO, "%s: DMA map: %s", address, strerror(errno));
	}
}

static int vfio_dma_map(struct mr_bus *bus, uint64_t iova, void *base, size_t bytes,
			uint32_t access)
{
	struct vfio *v = vfio_of(bus);
	struct vfio_iommu_type1_dma_map map = {
		.argsz = sizeof(map),
		.flags = (access & MR_DMA_READ ? VFIO_DMA_MAP_FLAG_READ : 0) |
			 (access & MR_DMA_WRITE ? VFIO_DMA_MAP_FLAG_WRITE : 0),
		.vaddr = (uintptr_t)base,
		.iova = iova,
		.size = bytes,
	};

	if (!bytes || iova + bytes - 1 < iova || !access ||
	    access & ~(MR_DMA_READ | MR_DMA_WRITE) ||
	    (iova | (uintptr_t)base | bytes) & (v->page_bytes - 1))
		return mr_vfio_fail(
			v, MR_E_INVALID,
			"%s: a map of %zu bytes at IOVA 0x%llx: not whole pages of %llu, "
			"or no access",
			v->facts.place.address, bytes, (unsigned long long)iova,
			(unsigned long long)v->page_bytes);
	if (v->map_count == VFIO_MAPS)
		return mr_vfio_fail(v, MR_E_FULL, "%s: %u maps are all that this bus keeps",
				    v->facts.place.address, VFIO_MAPS);
	if (!translated(v, iova, iova + bytes - 1))
		return mr_vfio_fail(
			v, MR_E_RANGE,
			"%s: IOVA 0x%llx lies outside what the IOMMU translates (up to 0x%llx)",
			v->facts.place.address, (unsigned long long)iova,
			(unsigned long long)v->apertures[v->aperture_count - 1].last);
	if (ioctl(v->container, VFIO_IOMMU_MAP_DMA, &map))
		return map_refused(v, iova, bytes);
	v->maps[v->map_count++] = (struct vfio_range){iova, iova + bytes - 1};
	return 0;
}

static int vfio_dma_unmap(struct mr_bus *bus, uint64_t iova)
{
	struct vfio *v = vfio_of(bus);
	struct vfio_range *range = map_at(v, iova);

	if (!range)
		return MR_E_NOT_FOUND;
	if (v->map_count == 1 && v->mastering)
		mr_vfio_master(v, 0);
	struct vfio_iommu_type1_dma_unmap unmap = {
		.argsz = sizeof(unmap),
		.iova = iova,
		.size = range->last - range->first + 1,
	};
	*range = v->maps[--v->map_count];
	if (ioctl(v->container, VFIO_IOMMU_UNMAP_DMA, &unmap))
		return mr_vfio_fail(v, MR_E_IO, "%s: DMA unmap: %s", v->facts.place.address,
				    strerror(errno));
	return 0;
}

/* ---- interrupts ------------------------------------------------------------------------------ */

/* Tells the kernel where vectors [start, start + count) go. 0; how many the host gives, and none is on; or MR_E_IO. */
static int set_vectors(struct vfio *v, uint32_t start, uint32_t count)
{
	union {
		struct vfio_irq_set set;
		uint8_t bytes[sizeof(struct vfio_irq_set) + VFIO_VECTORS * sizeof(int32_t)];
	} u = {.set = {
		       .argsz = (uint32_t)(sizeof(u.set) + count * sizeof(int32_t)),
		       .flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER,
		       .index = v->irq_index,
		       .start = start,
		       .count = count,
	       }};

	memcpy(u.bytes + sizeof(u.set), &v->fd[start], count * sizeof(int32_t));
	int got = ioctl(v->device, VFIO_DEVICE_SET_IRQS, &u.set);
	if (got < 0)
		return mr_vfio_fail(v, MR_E_IO, "%s: its interrupts cannot be switched on: %s",
				    v->facts.place.address, strerror(errno));
	return got;
}

static int no_vector(struct vfio *v, uint32_t vector)
{
	return mr_vfio_fail(v, MR_E_RANGE, "%s: it has no interrupt vector %u, only %u of %s",
			    v->facts.place.address, vector, v->irq_count,
			    v->facts.is_msix ? "MSI-X" : "MSI");
}

/*
 * The first vector asked for switches the function's interrupts on, with places for all that the host
 * gives, since the kernel cannot add places later; the others join one by one.
 */
static int switch_on(struct vfio *v, uint32_t vector)
{
	int got = set_vectors(v, v->irq_on ? vector : 0, v->irq_on ? 1 : v->irq_count);

	if (got <= 0)
		return got;
	v->irq_count = (uint32_t)got < v->irq_count ? (uint32_t)got : v->irq_count;
	if (vector >= v->irq_count)
		return no_vector(v, vector);
	got = set_vectors(v, 0, v->irq_count);
	return got > 0 ? no_vector(v, vector) : got;
}

static int vfio_irq_fd(struct mr_bus *bus, uint32_t vector)
{
	struct vfio *v = vfio_of(bus);
	int status;

	if (vector >= v->irq_count)
		return no_vector(v, vector);
	if (v->fd[vector] >= 0)
		return v->fd[vector];
	int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (fd < 0)
		return mr_vfio_fail(v, MR_E_IO, "no eventfd: %s", strerror(errno));
	v->fd[vector] = fd;
	status = switch_on(v, vector);
	if (status) {
		close(fd);
		v->fd[vector] = -1;
		return status;
	}
	v->irq_on = 1;
	return fd;
}

/* ---- the end --------------------------------------------------------------------------------- */

static int vfio_reset(struct mr_bus *bus)
{
	struct vfio *v = vfio_of(bus);
	int status = mr_vfio_master(v, 0);

	if (status)
		return status;
	if (gone(v))
		return MR_E_DISCONNECTED;
	__atomic_store_n(&v->bus.lost, 0, __ATOMIC_RELAXED); /* back again, if it was gone */
	if (!v->facts.can_reset)
		return mr_vfio_fail(v, MR_E_NOT_SUPPORTED,
				    "%s: the kernel knows no way to reset it alone",
				    v->facts.place.address);
	if (ioctl(v->device, VFIO_DEVICE_RESET))
		return mr_vfio_fail(v, MR_E_IO, "%s: reset: %s", v->facts.place.address,
				    strerror(errno));
	return mr_vfio_master(v, 0);
}

static void vfio_close(struct mr_bus *bus)
{
	struct vfio *v = vfio_of(bus);
	struct vfio_irq_set off = {
		.argsz = sizeof(off),
		.flags = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER,
		.index = v->irq_index,
	};

	if (v->device >= 0) {
		mr_vfio_master(v, 0);
		if (v->irq_on)
			ioctl(v->device, VFIO_DEVICE_SET_IRQS, &off);
	}
	for (int i = 0; i < BARS; i++)
		if (v->bar[i].map)
			munmap(v->bar[i].map, v->bar[i].bytes);
	if (v->device >= 0)
		close(v->device);
	if (v->group >= 0)
		close(v->group); /* takes it out of the container, which unmaps what is left */
	if (v->container >= 0)
		close(v->container);
	for (int i = 0; i < VFIO_VECTORS; i++)
		if (v->fd[i] >= 0)
			close(v->fd[i]);
	free(v);
}

const struct mr_bus_ops mr_vfio_ops = {
	.reg_read = vfio_reg_read,
	.reg_write = vfio_reg_write,
	.doorbell = vfio_doorbell,
	.dma_map = vfio_dma_map,
	.dma_unmap = vfio_dma_unmap,
	.irq_fd = vfio_irq_fd,
	.reset = vfio_reset,
	.close = vfio_close,
};

const struct mr_vfio_facts *mr_bus_vfio_facts(const struct mr_bus *bus)
{
	return &((const struct vfio *)bus)->facts;
}

const char *mr_bus_vfio_why(const struct mr_bus *bus)
{
	return ((const struct vfio *)bus)->why;
}
