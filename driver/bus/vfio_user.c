// SPDX-License-Identifier: Apache-2.0
#include "driver/bus/vfio_user.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <millrace/lpu_spec.h>

#include "driver/bus/bus.h"
#include "driver/bus/pci.h"
#include "driver/bus/vfio_user_link.h"
#include "driver/mem/arena.h"
#include "driver/mem/pages.h"

#define MAPS        256u
#define VECTORS_MAX 64u   /* used; a device may have more */
#define PAGES_MAX   1024u /* doorbell pages, so queues, that can be mapped */
#define CAPS_BYTES  1024u /* of a region's capabilities */
#define RESTART_MS  2000  /* that a server may take to come back */
#define RETRY_MS    20

_Static_assert(MR_VU_DMA_READABLE == MR_DMA_READ && MR_VU_DMA_WRITABLE == MR_DMA_WRITE,
	       "one access");

struct map {
	uint64_t iova, bytes; /* 0 bytes = free entry */
	uint8_t *base;
	uint32_t access;
	int fd; /* the arena's */
};

struct vfio_user {
	struct mr_bus bus;
	struct vu_link link;
	char *path;
	uint16_t vendor, device;
	struct mr_pci_function pci;
	uint64_t bar2_bytes;
	uint8_t *page[PAGES_MAX]; /* a queue's doorbells, or NULL: by message */
	pthread_mutex_t map_lock; /* over map: the link's watcher looks there too */
	struct map map[MAPS];
	int fd[VECTORS_MAX]; /* -1 = not asked for yet; relaxed atomics: the watcher's too */
};

static struct vfio_user *vfio_user_of(struct mr_bus *bus)
{
	return (struct vfio_user *)bus; /* bus is the first member */
}

/* ---- regions ---------------------------------------------------------------------------------- */

static int read_region(struct vfio_user *v, uint32_t region, uint64_t at, void *to, uint32_t bytes)
{
	const struct mr_vu_access a = {at, region, bytes};
	uint8_t reply[sizeof(a) + 64];
	struct mr_vu_access got;
	struct vu_request r = {
		.command = MR_VU_REGION_READ,
		.in = &a,
		.in_bytes = sizeof(a),
		.reply = reply,
		.reply_min = (uint32_t)sizeof(a) + bytes,
		.reply_max = (uint32_t)sizeof(a) + bytes,
	};
	int status = bytes <= 64 ? mr_vu_request(&v->link, &r) : MR_E_RANGE;

	if (status)
		return status;
	memcpy(&got, reply, sizeof(got));
	if (got.count != bytes)
		return MR_E_PROTOCOL;
	memcpy(to, reply + sizeof(a), bytes);
	return 0;
}

static int write_region(struct vfio_user *v, uint32_t region, uint64_t at, const void *from,
			uint32_t bytes)
{
	const struct mr_vu_access a = {at, region, bytes};
	struct mr_vu_access reply;
	struct vu_request r = {
		.command = MR_VU_REGION_WRITE,
		.in = &a,
		.in_bytes = sizeof(a),
		.data = from,
		.data_bytes = bytes,
		.reply = &reply,
		.reply_min = sizeof(reply),
		.reply_max = sizeof(reply),
	};

	return mr_vu_request(&v->link, &r);
}

static int config_read(void *arg, uint32_t at, void *to, uint32_t bytes)
{
	return read_region(arg, MR_VU_CONFIG, at, to, bytes);
}

static int config_write(void *arg, uint32_t at, const void *from, uint32_t bytes)
{
	return write_region(arg, MR_VU_CONFIG, at, from, bytes);
}

static uint32_t vu_reg_read(struct mr_bus *bus, uint32_t offset)
{
	uint32_t value;

	return read_region(vfio_user_of(bus), MR_VU_BAR0, offset, &value, sizeof(value)) ? ~0u
											 : value;
}

static void vu_reg_write(struct mr_bus *bus, uint32_t offset, uint32_t value)
{
	/* Posted: what goes wrong is seen by the next read. */
	write_region(vfio_user_of(bus), MR_VU_BAR0, offset, &value, sizeof(value));
}

static void vu_doorbell(struct mr_bus *bus, uint32_t queue, uint32_t offset, uint32_t value)
{
	struct vfio_user *v = vfio_user_of(bus);

	if (offset > MR_LPU_DOORBELL_STRIDE - sizeof(value))
		return;
	if (queue < PAGES_MAX && v->page[queue])
		/* Pairs with the device's acquire of the doorbell: what was written before is there. */
		__atomic_store_n((uint32_t *)(void *)(v->page[queue] + offset), value,
				 __ATOMIC_RELEASE);
	else
		write_region(v, MR_VU_BAR2, (uint64_t)queue * MR_LPU_DOORBELL_STRIDE + offset,
			     &value, sizeof(value));
}

struct region {
	struct mr_vu_region_info info;
	uint8_t caps[CAPS_BYTES];
	uint32_t bytes; /* of info and caps that came */
	int fd;         /* -1 = none; the caller's */
};

static int region_info(struct vfio_user *v, uint32_t index, struct region *out)
{
	const struct mr_vu_region_info ask = {.argsz = sizeof(out->info) + CAPS_BYTES,
					      .index = index};
	int fds[MR_VU_FDS_MAX];
	struct vu_request r = {
		.command = MR_VU_DEVICE_GET_REGION_INFO,
		.in = &ask,
		.in_bytes = sizeof(ask),
		.reply = out,
		.reply_min = sizeof(out->info),
		.reply_max = sizeof(out->info) + CAPS_BYTES,
		.reply_fds = fds,
	};
	int status = mr_vu_request(&v->link, &r);

	out->fd = -1;
	if (status)
		return status;
	out->bytes = r.reply_bytes;
	for (uint32_t i = 0; i < r.reply_fd_count; i++)
		if (!i && out->info.flags & MR_VU_REGION_MMAP)
			out->fd = fds[i];
		else
			close(fds[i]);
	return out->info.index == index ? 0 : MR_E_PROTOCOL;
}

/* ---- BAR2 ------------------------------------------------------------------------------------- */

static void unmap_pages(struct vfio_user *v)
{
	for (uint32_t i = 0; i < PAGES_MAX; i++)
		if (v->page[i]) {
			munmap(v->page[i], MR_LPU_DOORBELL_STRIDE);
			v->page[i] = NULL;
		}
}

/* The pages of [@at, @at + @bytes) of BAR2. One that cannot be mapped is reached by message. */
static void map_area(struct vfio_user *v, const struct region *r, uint64_t at, uint64_t bytes)
{
	const uint64_t page = MR_LPU_DOORBELL_STRIDE;

	if (at % page || at > v->bar2_bytes || bytes > v->bar2_bytes - at ||
	    r->info.offset > INT64_MAX / 2 || r->info.offset % page)
		return;
	for (; bytes >= page && at / page < PAGES_MAX; at += page, bytes -= page) {
		void *p = v->page[at / page] ? MAP_FAILED
					     : mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_SHARED,
						    r->fd, (off_t)(r->info.offset + at));
		if (p != MAP_FAILED)
			v->page[at / page] = p;
	}
}

/* A file that the server can cut short would turn a doorbell into a SIGBUS: then by message. */
static int file_holds(const struct region *r)
{
	int seals = fcntl(r->fd, F_GET_SEALS);
	struct stat st;

	return seals >= 0 && seals & F_SEAL_SHRINK && !fstat(r->fd, &st) &&
	       r->info.offset <= (uint64_t)st.st_size &&
	       r->info.size <= (uint64_t)st.st_size - r->info.offset;
}

/* A capability at @at of the region's answer, at least @bytes long, to @to. */
static int cap_at(const struct region *r, uint32_t at, void *to, size_t bytes)
{
	if (at < sizeof(r->info) || at > r->bytes || bytes > r->bytes - at)
		return MR_E_PROTOCOL;
	memcpy(to, r->caps + (at - sizeof(r->info)), bytes);
	return 0;
}

static int map_sparse(struct vfio_user *v, const struct region *r, uint32_t at)
{
	struct mr_vu_sparse sparse;
	struct mr_vu_area area;
	int status = cap_at(r, at, &sparse, sizeof(sparse));

	at += (uint32_t)sizeof(sparse);
	for (uint32_t i = 0; !status && i < sparse.areas; i++, at += (uint32_t)sizeof(area)) {
		status = cap_at(r, at, &area, sizeof(area));
		if (!status)
			map_area(v, r, area.offset, area.size);
	}
	return status;
}

static int map_pages(struct vfio_user *v, const struct region *r)
{
	uint32_t at = r->info.flags & MR_VU_REGION_CAPS ? r->info.cap_offset : 0;
	struct mr_vu_cap cap;

	if (r->fd < 0)
		return r->info.flags & MR_VU_REGION_MMAP ? MR_E_PROTOCOL : 0;
	if (r->info.flags & MR_VU_REGION_CAPS && !at)
		return MR_E_PROTOCOL;
	if (!file_holds(r))
		return 0;
	for (uint32_t i = 0; at && i < CAPS_BYTES / sizeof(cap); i++, at = cap.next) {
		int status = cap_at(r, at, &cap, sizeof(cap));
		if (status)
			return status;
		if (cap.id == MR_VU_CAP_SPARSE)
			return map_sparse(v, r, at + (uint32_t)sizeof(cap));
	}
	if (at)
		return MR_E_PROTOCOL; /* a list without an end */
	map_area(v, r, 0, v->bar2_bytes);
	return 0;
}

/* ---- bring-up --------------------------------------------------------------------------------- */

static int check_device(struct vfio_user *v)
{
	struct mr_vu_device_info info = {.argsz = sizeof(info)};
	uint8_t reply[sizeof(info) + 64]; /* later versions may say more */
	struct vu_request r = {
		.command = MR_VU_DEVICE_GET_INFO,
		.in = &info,
		.in_bytes = sizeof(info),
		.reply = reply,
		.reply_min = sizeof(info),
		.reply_max = sizeof(reply),
	};
	int status = mr_vu_request(&v->link, &r);

	if (status)
		return status;
	memcpy(&info, reply, sizeof(info));
	if (!(info.flags & MR_VU_DEVICE_PCI) || info.regions <= MR_VU_CONFIG ||
	    info.irqs <= MR_VU_MSIX) {
		mr_vu_why(&v->link,
			  "the server's device is no PCI function with MSI-X: point at an LPU");
		return MR_E_NOT_SUPPORTED;
	}
	return 0;
}

static int check_config(struct vfio_user *v)
{
	const struct mr_pci_config config = {config_read, config_write, v};
	struct region r;
	int status = region_info(v, MR_VU_CONFIG, &r);

	if (!status && r.fd >= 0)
		close(r.fd);
	if (!status && r.info.size < 256) {
		mr_vu_why(&v->link, "a configuration space of %llu bytes, less than the 256 of PCI",
			  (unsigned long long)r.info.size);
		status = MR_E_PROTOCOL;
	}
	if (!status)
		status = mr_pci_read(&config, v->vendor, v->device, &v->pci, v->link.why,
				     v->link.why_bytes);
	return status;
}

/* BAR @index has @least bytes or more, a power of two. */
static int check_bar(struct vfio_user *v, uint32_t index, uint64_t least, struct region *r)
{
	int status = region_info(v, index, r);
	uint64_t bytes = r->info.size;

	if (status)
		return status;
	if (bytes < least || bytes & (bytes - 1)) {
		mr_vu_why(&v->link,
			  "BAR%u has %llu bytes; an LPU's is a power of two of at least %llu: the "
			  "device is truncated or another one",
			  index, (unsigned long long)bytes, (unsigned long long)least);
		status = MR_E_NOT_SUPPORTED;
	} else if ((r->info.flags & 3) != (MR_VU_REGION_READS | MR_VU_REGION_WRITES)) {
		mr_vu_why(&v->link, "BAR%u cannot be read and written", index);
		status = MR_E_NOT_SUPPORTED;
	}
	if (status && r->fd >= 0) {
		close(r->fd);
		r->fd = -1;
	}
	return status;
}

static int check_bars(struct vfio_user *v)
{
	const struct mr_pci_function *f = &v->pci;
	struct region r;
	int status = check_bar(v, MR_VU_BAR0, MR_LPU_BAR0_BYTES, &r);

	if (!status && r.fd >= 0)
		close(r.fd);
	/* The admin queue's page and one I/O queue's. */
	if (!status)
		status = check_bar(v, MR_VU_BAR2, 2ull * MR_LPU_DOORBELL_STRIDE, &r);
	if (status)
		return status;
	v->bar2_bytes = r.info.size;
	status = map_pages(v, &r);
	if (r.fd >= 0)
		close(r.fd);
	if (status) {
		mr_vu_why(&v->link, "BAR2's description is not what vfio-user says");
		return status;
	}
	if (f->table_bar >= 6)
		status = MR_E_NOT_SUPPORTED;
	else
		status = region_info(v, f->table_bar, &r);
	if (!status && r.fd >= 0)
		close(r.fd);
	if (!status &&
	    (f->table_at > r.info.size || f->vectors * 16ull > r.info.size - f->table_at))
		status = MR_E_NOT_SUPPORTED;
	if (status == MR_E_NOT_SUPPORTED)
		mr_vu_why(&v->link, "the MSI-X table of %u vectors is not inside BAR%u", f->vectors,
			  f->table_bar);
	return status;
}

static int check_irqs(struct vfio_user *v)
{
	struct mr_vu_irq_info info = {.argsz = sizeof(info), .index = MR_VU_MSIX}, reply;
	struct vu_request r = {
		.command = MR_VU_DEVICE_GET_IRQ_INFO,
		.in = &info,
		.in_bytes = sizeof(info),
		.reply = &reply,
		.reply_min = sizeof(reply),
		.reply_max = sizeof(reply),
	};
	int status = mr_vu_request(&v->link, &r);

	if (status)
		return status;
	if (!(reply.flags & MR_VU_IRQ_EVENTFD) || reply.count < 2) {
		mr_vu_why(&v->link,
			  "%u MSI-X vectors with eventfds; an LPU has one for the admin queue and "
			  "one "
			  "for others at least",
			  reply.flags & MR_VU_IRQ_EVENTFD ? reply.count : 0);
		return MR_E_NOT_SUPPORTED;
	}
	if (v->pci.vectors > reply.count)
		v->pci.vectors = reply.count;
	return 0;
}

static int enable(struct vfio_user *v)
{
	const struct mr_pci_config config = {config_read, config_write, v};
	uint32_t magic, version;
	int status = mr_pci_enable(&config, &v->pci);

	if (!status)
		status = read_region(v, MR_VU_BAR0, MR_LPU_REG_MAGIC, &magic, sizeof(magic));
	if (!status)
		status = read_region(v, MR_VU_BAR0, MR_LPU_REG_VERSION, &version, sizeof(version));
	if (status)
		return status;
	if (magic != MR_LPU_MAGIC || version >> 16 != MR_LPU_VERSION >> 16) {
		mr_vu_why(&v->link,
			  "PCI %04x:%04x says magic %08x, version %u.%u; this driver knows LPUs "
			  "(%08x) of version %u.x",
			  v->pci.vendor, v->pci.device, magic, version >> 16, version & 0xffff,
			  MR_LPU_MAGIC, MR_LPU_VERSION >> 16);
		return MR_E_VERSION;
	}
	return 0;
}

static int bring_up(struct vfio_user *v)
{
	int status = mr_vu_link_open(&v->link, v->path);

	if (status)
		return status;
	status = check_device(v);
	if (!status)
		status = check_config(v);
	if (!status)
		status = check_bars(v);
	if (!status)
		status = check_irqs(v);
	if (!status)
		status = enable(v);
	if (!status)
		status = mr_vu_link_watch(&v->link);
	if (status) {
		mr_vu_why(&v->link, "%s: the server does not answer as vfio-user says; restart it",
			  v->path);
		mr_vu_link_close(&v->link);
		unmap_pages(v);
	}
	return status;
}

/* ---- memory ----------------------------------------------------------------------------------- */

static int send_map(struct vfio_user *v, const struct map *m)
{
	const struct mr_vu_dma_map c = {
		.argsz = sizeof(c),
		.flags = m->access,
		.address = m->iova,
		.size = m->bytes,
	};
	struct vu_request r = {
		.command = MR_VU_DMA_MAP,
		.in = &c,
		.in_bytes = sizeof(c),
		.fds = &m->fd,
		.fd_count = 1,
	};

	return mr_vu_request(&v->link, &r);
}

static int vu_dma_map(struct mr_bus *bus, uint64_t iova, void *base, size_t bytes, uint32_t access)
{
	struct vfio_user *v = vfio_user_of(bus);
	struct map m = {iova, bytes, base, access, mr_pages_fd(base)};
	struct map *entry = NULL;
	int status;

	if (m.fd < 0)
		return MR_E_NOT_SUPPORTED; /* the arena is not shareable */
	if (!bytes || !access)
		return MR_E_INVALID;
	for (uint32_t i = 0; i < MAPS && !entry; i++)
		if (!v->map[i].bytes)
			entry = &v->map[i];
	if (!entry)
		return MR_E_FULL;
	status = send_map(v, &m);
	if (status)
		return status;
	pthread_mutex_lock(&v->map_lock);
	*entry = m;
	pthread_mutex_unlock(&v->map_lock);
	return 0;
}

static int vu_dma_unmap(struct mr_bus *bus, uint64_t iova)
{
	struct vfio_user *v = vfio_user_of(bus);
	struct mr_vu_dma_unmap c = {.argsz = sizeof(c), .address = iova}, reply;
	struct vu_request r = {
		.command = MR_VU_DMA_UNMAP,
		.in = &c,
		.in_bytes = sizeof(c),
		.reply = &reply,
		.reply_max = sizeof(reply), /* some servers answer without it */
	};

	for (uint32_t i = 0; i < MAPS; i++) {
		struct map *m = &v->map[i];
		if (!m->bytes || m->iova != iova)
			continue;
		c.size = m->bytes;
		pthread_mutex_lock(&v->map_lock);
		m->bytes = 0;
		pthread_mutex_unlock(&v->map_lock);
		/* A server that is gone uses nothing more of it. */
		return __atomic_load_n(&v->link.lost, __ATOMIC_RELAXED)
			       ? 0
			       : mr_vu_request(&v->link, &r);
	}
	return MR_E_NOT_FOUND;
}

/* DMA by message: see vfio_user_link.h. */
static void *memory_at(void *arg, uint64_t address, uint64_t bytes, uint32_t access)
{
	struct vfio_user *v = arg;
	void *at = NULL;

	pthread_mutex_lock(&v->map_lock);
	for (uint32_t i = 0; i < MAPS; i++) {
		const struct map *m = &v->map[i];
		if (m->bytes && address >= m->iova && address - m->iova < m->bytes &&
		    bytes <= m->bytes - (address - m->iova) && m->access & access)
			at = m->base + (address - m->iova);
	}
	pthread_mutex_unlock(&v->map_lock);
	return at;
}

/* ---- interrupts, reset, close ------------------------------------------------------------------ */

static int send_irq(struct vfio_user *v, uint32_t vector, int fd)
{
	const struct mr_vu_irq_set c = {
		.argsz = sizeof(c),
		.flags = MR_VU_SET_DATA_EVENTFD | MR_VU_SET_TRIGGER,
		.index = MR_VU_MSIX,
		.start = vector,
		.count = 1,
	};
	struct vu_request r = {
		.command = MR_VU_DEVICE_SET_IRQS,
		.in = &c,
		.in_bytes = sizeof(c),
		.fds = &fd,
		.fd_count = 1,
	};

	return mr_vu_request(&v->link, &r);
}

static int vu_irq_fd(struct mr_bus *bus, uint32_t vector)
{
	struct vfio_user *v = vfio_user_of(bus);
	int fd, status;

	if (vector >= v->pci.vectors || vector >= VECTORS_MAX)
		return MR_E_RANGE;
	if (v->fd[vector] >= 0)
		return v->fd[vector];
	fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (fd < 0)
		return MR_E_IO;
	status = send_irq(v, vector, fd);
	if (status) {
		close(fd);
		return status;
	}
	__atomic_store_n(&v->fd[vector], fd, __ATOMIC_SEQ_CST);
	return fd;
}

/* The watcher or a failed request. Sleepers on an interrupt wake up and find `lost`. */
static void on_lost(void *arg, int status)
{
	struct vfio_user *v = arg;
	const uint64_t one = 1;

	__atomic_store_n(&v->bus.lost, status, __ATOMIC_SEQ_CST);
	for (uint32_t i = 0; i < VECTORS_MAX; i++) {
		int fd = __atomic_load_n(&v->fd[i], __ATOMIC_SEQ_CST);
		ssize_t n = fd >= 0 ? write(fd, &one, sizeof(one)) : 0;
		(void)n; /* full is as good: it is readable */
	}
}

/* A new connection, for which a server that is being restarted has a while: what the old one knew is told again. */
static int reconnect(struct vfio_user *v)
{
	const struct timespec nap = {.tv_nsec = RETRY_MS * 1000000};
	int status;

	mr_vu_link_close(&v->link);
	unmap_pages(v);
	status = bring_up(v);
	for (int i = 0; status == MR_E_NOT_FOUND && i < RESTART_MS / RETRY_MS; i++) {
		nanosleep(&nap, NULL);
		status = bring_up(v);
	}
	for (uint32_t i = 0; !status && i < MAPS; i++)
		if (v->map[i].bytes)
			status = send_map(v, &v->map[i]);
	for (uint32_t i = 0; !status && i < VECTORS_MAX; i++)
		if (v->fd[i] >= 0)
			status = i < v->pci.vectors ? send_irq(v, i, v->fd[i]) : MR_E_RANGE;
	if (status)
		mr_vu_link_close(&v->link);
	return status;
}

static int vu_reset(struct mr_bus *bus)
{
	struct vfio_user *v = vfio_user_of(bus);
	const struct mr_pci_config config = {config_read, config_write, v};
	struct vu_request r = {.command = MR_VU_DEVICE_RESET};
	int status = 0;

	if (__atomic_load_n(&v->link.lost, __ATOMIC_SEQ_CST)) {
		status = reconnect(v);
		__atomic_store_n(&v->bus.lost, status, __ATOMIC_SEQ_CST);
		/* So that the next reset tries again. */
		__atomic_store_n(&v->link.lost, status, __ATOMIC_SEQ_CST);
	}
	if (!status)
		status = mr_vu_request(&v->link, &r);
	return status ? status : mr_pci_enable(&config, &v->pci);
}

static void vu_close(struct mr_bus *bus)
{
	struct vfio_user *v = vfio_user_of(bus);

	mr_vu_link_close(&v->link);
	unmap_pages(v);
	for (uint32_t i = 0; i < VECTORS_MAX; i++)
		if (v->fd[i] >= 0)
			close(v->fd[i]);
	pthread_mutex_destroy(&v->link.lock);
	pthread_mutex_destroy(&v->map_lock);
	free(v->path);
	free(v);
}

static const struct mr_bus_ops vfio_user_ops = {
	.reg_read = vu_reg_read,
	.reg_write = vu_reg_write,
	.doorbell = vu_doorbell,
	.dma_map = vu_dma_map,
	.dma_unmap = vu_dma_unmap,
	.irq_fd = vu_irq_fd,
	.reset = vu_reset,
	.close = vu_close,
};

int mr_bus_vfio_user_open(const struct mr_vfio_user_bus_options *o, struct mr_bus **bus)
{
	struct vfio_user *v = calloc(1, sizeof(*v));
	int status;

	*bus = NULL;
	if (o->why && o->why_bytes)
		o->why[0] = 0;
	if (!v)
		return MR_E_NO_MEMORY;
	v->bus.ops = &vfio_user_ops;
	v->path = strdup(o->path);
	v->vendor = o->vendor;
	v->device = o->device;
	for (uint32_t i = 0; i < VECTORS_MAX; i++)
		v->fd[i] = -1;
	pthread_mutex_init(&v->map_lock, NULL);
	pthread_mutex_init(&v->link.lock, NULL);
	v->link.fd = -1;
	v->link.timeout_ms = o->timeout_ms ? o->timeout_ms : 5000;
	v->link.memory = memory_at;
	v->link.on_lost = on_lost;
	v->link.arg = v;
	v->link.why = o->why;
	v->link.why_bytes = o->why_bytes;
	status = v->path ? bring_up(v) : MR_E_NO_MEMORY;
	v->link.why = NULL;
	if (status) {
		vu_close(&v->bus);
		return status;
	}
	*bus = &v->bus;
	return 0;
}
