// SPDX-License-Identifier: Apache-2.0
/*
 * See vfio.h: from an address to a function under VFIO, step by step, each with a sentence for its failure.
 * What the kernel reports is bounded here; what the device's configuration space says is vfio_config.c's to judge.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/vfio.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <millrace/status.h>

#include "driver/bus/vfio_own.h"

#define INFO_BYTES 4096u /* room for the kernel's answers with their capabilities */

/* What sysfs says: is it there, behind an IOMMU, and vfio-pci's? */
static int find(struct vfio *v, const struct mr_vfio_options *o, const char *sysfs)
{
	struct mr_vfio_place *place = &v->facts.place;
	int status = mr_vfio_find(sysfs, o->address, place);

	if (status == MR_E_INVALID)
		return mr_vfio_fail(v, status, "'%s' is no PCI address such as 0000:01:00.0",
				    o->address);
	if (status)
		return mr_vfio_fail(v, status, "no PCI function %s here (lspci -D lists them)",
				    place->address);
	if (place->group < 0)
		return mr_vfio_fail(
			v, MR_E_NOT_SUPPORTED,
			"%s: no IOMMU translates for it: switch it on in the firmware and "
			"by intel_iommu=on (or amd_iommu=on) on the kernel's command line",
			place->address);
	if (!place->driver[0])
		return mr_vfio_fail(v, MR_E_NOT_FOUND,
				    "%s: no driver has it: bind the device to vfio-pci (driverctl "
				    "set-override %s vfio-pci)",
				    place->address, place->address);
	if (strcmp(place->driver, "vfio-pci"))
		return mr_vfio_fail(
			v, MR_E_BUSY,
			"%s: the kernel's driver %s has it: bind the device to vfio-pci "
			"(driverctl set-override %s vfio-pci)",
			place->address, place->driver, place->address);
	return 0;
}

static int open_failed(struct vfio *v, const char *path)
{
	switch (errno) {
	case ENOENT:
	case ENODEV:
		return mr_vfio_fail(v, MR_E_NOT_FOUND, "%s is not there: modprobe vfio-pci", path);
	case EACCES:
	case EPERM:
		return mr_vfio_fail(v, MR_E_PERMISSION,
				    "%s: this user may not open it: be root, or use the udev rule "
				    "70-millrace-vfio.rules and join its group",
				    path);
	case EBUSY:
		return mr_vfio_fail(v, MR_E_BUSY, "%s: another process has it open", path);
	default:
		return mr_vfio_fail(v, MR_E_IO, "%s: %s", path, strerror(errno));
	}
}

static int open_group(struct vfio *v, const char *sysfs, const char *dev)
{
	struct vfio_group_status state = {.argsz = sizeof(state)};
	const char *address = v->facts.place.address;
	int group = v->facts.place.group;
	char path[128], others[200];

	snprintf(path, sizeof(path), "%s/vfio", dev);
	v->container = open(path, O_RDWR | O_CLOEXEC);
	if (v->container < 0)
		return open_failed(v, path);
	if (ioctl(v->container, VFIO_GET_API_VERSION) != VFIO_API_VERSION)
		return mr_vfio_fail(v, MR_E_VERSION, "%s speaks another version of VFIO", path);
	if (ioctl(v->container, VFIO_CHECK_EXTENSION, VFIO_TYPE1v2_IOMMU) != 1)
		return mr_vfio_fail(v, MR_E_NOT_SUPPORTED,
				    "%s has no type-1 v2 IOMMU: modprobe vfio_iommu_type1", path);
	snprintf(path, sizeof(path), "%s/%d", dev, group);
	v->group = open(path, O_RDWR | O_CLOEXEC);
	if (v->group < 0)
		return open_failed(v, path);
	if (ioctl(v->group, VFIO_GROUP_GET_STATUS, &state))
		return mr_vfio_fail(v, MR_E_IO, "%s: state of group %d: %s", address, group,
				    strerror(errno));
	if (!(state.flags & VFIO_GROUP_FLAGS_VIABLE)) {
		int n = mr_vfio_group_others(sysfs, group, others, sizeof(others));
		return mr_vfio_fail(
			v, MR_E_BUSY,
			"%s: its IOMMU group %d is not viable: these devices share it and "
			"have drivers of the kernel: %s; bind them to vfio-pci, or unbind "
			"them",
			address, group, n > 0 ? others : "(none in sysfs)");
	}
	if (ioctl(v->group, VFIO_GROUP_SET_CONTAINER, &v->container) ||
	    ioctl(v->container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU))
		return mr_vfio_fail(v, errno == EPERM ? MR_E_PERMISSION : MR_E_IO,
				    "%s: the IOMMU does not take group %d: %s (without interrupt "
				    "remapping the kernel refuses: see dmesg)",
				    address, group, strerror(errno));
	return 0;
}

/*
 * The capability @id in the chain that begins at @at of a kernel's answer of @bytes, with at least @need bytes
 * behind its start; or NULL. Each lies behind the one before it, so that the walk ends.
 */
static const void *info_cap(const void *answer, uint32_t bytes, uint32_t at, uint16_t id,
			    uint32_t need)
{
	while (at && bytes >= need && at <= bytes - need) {
		const struct vfio_info_cap_header *head =
			(const void *)((const uint8_t *)answer + at);

		if (head->id == id)
			return head;
		at = head->next > at ? head->next : 0;
	}
	return NULL;
}

/* IOVAs that can be mapped, and in what pages. A kernel that does not say leaves us to try. */
static void read_apertures(struct vfio *v)
{
	const struct vfio_iommu_type1_info_cap_iova_range *ranges = NULL;
	struct vfio_iommu_type1_info *info = calloc(1, INFO_BYTES);

	v->page_bytes = 4096;
	if (!info)
		return;
	info->argsz = INFO_BYTES;
	if (!ioctl(v->container, VFIO_IOMMU_GET_INFO, info)) {
		if (info->flags & VFIO_IOMMU_INFO_PGSIZES && info->iova_pgsizes)
			v->page_bytes = info->iova_pgsizes & -info->iova_pgsizes;
		if (info->flags & VFIO_IOMMU_INFO_CAPS)
			ranges = info_cap(info, INFO_BYTES, info->cap_offset,
					  VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE, sizeof(*ranges));
	}
	if (ranges) {
		size_t room = (size_t)INFO_BYTES -
			      (size_t)((const uint8_t *)ranges->iova_ranges - (uint8_t *)info);
		for (uint32_t i = 0; i < ranges->nr_iovas && v->aperture_count < VFIO_APERTURES &&
				     (i + 1) * sizeof(*ranges->iova_ranges) <= room;
		     i++)
			v->apertures[v->aperture_count++] = (struct vfio_range){
				ranges->iova_ranges[i].start, ranges->iova_ranges[i].end};
	}
	free(info);
}

static int open_device(struct vfio *v)
{
	struct vfio_device_info info = {.argsz = sizeof(info)};
	const char *address = v->facts.place.address;

	v->device = ioctl(v->group, VFIO_GROUP_GET_DEVICE_FD, address);
	if (v->device < 0)
		return mr_vfio_fail(v, errno == EBUSY ? MR_E_BUSY : MR_E_IO,
				    "%s: vfio-pci does not open it: %s", address, strerror(errno));
	if (ioctl(v->device, VFIO_DEVICE_GET_INFO, &info) ||
	    !(info.flags & VFIO_DEVICE_FLAGS_PCI) ||
	    info.num_regions <= VFIO_PCI_CONFIG_REGION_INDEX)
		return mr_vfio_fail(v, MR_E_NOT_SUPPORTED, "%s: not a PCI function to vfio-pci",
				    address);
	v->facts.can_reset = (info.flags & VFIO_DEVICE_FLAGS_RESET) != 0;
	return 0;
}

union answer {
	struct vfio_region_info info;
	uint8_t bytes[INFO_BYTES];
};

/* @info has INFO_BYTES. */
static int region(struct vfio *v, uint32_t index, struct vfio_region_info *info)
{
	memset(info, 0, INFO_BYTES);
	info->argsz = INFO_BYTES;
	info->index = index;
	if (ioctl(v->device, VFIO_DEVICE_GET_REGION_INFO, info))
		return mr_vfio_fail(v, MR_E_IO, "%s: region %u: %s", v->facts.place.address, index,
				    strerror(errno));
	return 0;
}

/* Is it the device that was asked for? Leaves it decoding memory and mastering nothing. */
static int identify(struct vfio *v, const struct mr_vfio_options *o)
{
	const char *address = v->facts.place.address;
	struct mr_vfio_function *f = &v->facts.function;
	uint8_t config[MR_VFIO_CONFIG_BYTES];
	union answer answer;
	int status = region(v, VFIO_PCI_CONFIG_REGION_INDEX, &answer.info);

	if (status)
		return status;
	v->config_at = answer.info.offset;
	ssize_t got = pread(v->device, config, sizeof(config), (off_t)v->config_at);
	if (got < 0)
		return mr_vfio_fail(v, MR_E_IO, "%s: its configuration space: %s", address,
				    strerror(errno));
	status = mr_vfio_config_parse(config, (size_t)got, f);
	if (status)
		return mr_vfio_fail(v, status, "%s: its configuration space: %s", address,
				    mr_strerror(status));
	if ((o->vendor != MR_VFIO_ANY_ID && o->vendor != f->vendor) ||
	    (o->device != MR_VFIO_ANY_ID && o->device != f->device))
		return mr_vfio_fail(v, MR_E_VERSION,
				    "%s is a %04x:%04x, not the %04x:%04x that was asked for",
				    address, f->vendor, f->device, o->vendor, o->device);
	v->command = (uint16_t)((f->command & ~MR_VFIO_COMMAND_MASTER) | MR_VFIO_COMMAND_MEMORY |
				MR_VFIO_COMMAND_NOINTX);
	return mr_vfio_master(v, 0);
}

static int open_bar(struct vfio *v, int which, uint32_t index, uint64_t least, int by_calls)
{
	struct vfio_bar *bar = &v->bar[which];
	union answer answer;
	const struct vfio_region_info *info = &answer.info;
	int status = region(v, index, &answer.info);

	if (status)
		return status;
	if (info->size < least)
		return mr_vfio_fail(v, MR_E_TRUNCATED,
				    "%s: BAR%u has %llu bytes, and must have %llu at least",
				    v->facts.place.address, index, (unsigned long long)info->size,
				    (unsigned long long)least);
	bar->bytes = info->size;
	bar->at = info->offset;
	/* A region that may be mapped only in parts is reached by calls. */
	if (!by_calls && info->size && info->flags & VFIO_REGION_INFO_FLAG_MMAP &&
	    !(info->flags & VFIO_REGION_INFO_FLAG_CAPS &&
	      info_cap(info, INFO_BYTES, info->cap_offset, VFIO_REGION_INFO_CAP_SPARSE_MMAP,
		       sizeof(struct vfio_info_cap_header)))) {
		void *map = mmap(NULL, info->size, PROT_READ | PROT_WRITE, MAP_SHARED, v->device,
				 (off_t)info->offset);
		if (map != MAP_FAILED)
			bar->map = map;
	}
	v->facts.bar_bytes[which] = info->size;
	v->facts.mapped[which] = bar->map != NULL;
	return 0;
}

/* MSI-X where the function has it, else MSI, else none: then irq_fd says so. */
static void choose_irqs(struct vfio *v)
{
	static const uint32_t kinds[] = {VFIO_PCI_MSIX_IRQ_INDEX, VFIO_PCI_MSI_IRQ_INDEX};

	for (int i = 0; i < 2 && !v->irq_count; i++) {
		struct vfio_irq_info info = {.argsz = sizeof(info), .index = kinds[i]};

		if (ioctl(v->device, VFIO_DEVICE_GET_IRQ_INFO, &info) ||
		    !(info.flags & VFIO_IRQ_INFO_EVENTFD))
			continue;
		v->irq_index = kinds[i];
		v->irq_count = info.count < VFIO_VECTORS ? info.count : VFIO_VECTORS;
		v->facts.is_msix = i == 0 && info.count;
		v->facts.vectors = info.count;
	}
}

int mr_bus_vfio_open(const struct mr_vfio_options *o, struct mr_bus **bus, char *why,
		     size_t why_bytes)
{
	const char *sysfs = o->sysfs ? o->sysfs : "/sys";
	struct vfio *v = calloc(1, sizeof(*v));
	int status;

	*bus = NULL;
	if (why_bytes)
		why[0] = 0;
	if (!v)
		return MR_E_NO_MEMORY;
	v->bus.ops = &mr_vfio_ops;
	v->container = v->group = v->device = -1;
	memset(v->fd, 0xff, sizeof(v->fd));
	status = find(v, o, sysfs);
	if (!status)
		status = open_group(v, sysfs, o->dev ? o->dev : "/dev/vfio");
	if (!status) {
		read_apertures(v);
		status = open_device(v);
	}
	if (!status)
		status = identify(v, o);
	if (!status)
		status = open_bar(v, BAR_REGISTERS, VFIO_PCI_BAR0_REGION_INDEX, o->bar0_min,
				  o->by_calls);
	if (!status)
		status = open_bar(v, BAR_DOORBELLS, VFIO_PCI_BAR2_REGION_INDEX, o->bar2_min,
				  o->by_calls);
	if (status) {
		snprintf(why, why_bytes, "%s", v->why);
		mr_vfio_ops.close(&v->bus);
		return status;
	}
	choose_irqs(v);
	*bus = &v->bus;
	return 0;
}
