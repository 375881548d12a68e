// SPDX-License-Identifier: Apache-2.0
/*
 * The client's memory: files that it passes, mapped here and made known to the device. A file that the client
 * could cut short would turn the device's next access into a SIGBUS, so only one that is sealed against
 * shrinking is taken. Memory without a descriptor is noted and never given to the device: its DMA there
 * faults (the protocol's DMA_READ and DMA_WRITE are not used).
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "firmware-sim/vfio_user_server.h"

#define PAGE 4096u

static int errno_of(int status)
{
	switch (status) {
	case 0:
		return 0;
	case MR_E_EXISTS:
		return EEXIST;
	case MR_E_FULL:
		return ENOSPC;
	default:
		return EINVAL;
	}
}

static struct vu_map *free_entry(struct mr_vfio_user *s, uint64_t iova, uint64_t bytes, int *error)
{
	struct vu_map *entry = NULL;

	*error = 0;
	for (uint32_t i = 0; i < VU_MAPS; i++) {
		struct vu_map *m = &s->map[i];
		/* Last bytes, so that a range up to 2^64 compares. */
		if (m->bytes && iova <= m->iova + (m->bytes - 1) && m->iova <= iova + (bytes - 1))
			*error = EEXIST;
		if (!m->bytes && !entry)
			entry = m;
	}
	if (!entry && !*error)
		*error = ENOSPC;
	return entry;
}

/* Maps the file @fd into *@entry: 0 or an errno. */
static int map_file(struct mr_vfio_user *s, const struct mr_vu_dma_map *c, int fd,
		    struct vu_map *entry)
{
	int prot = PROT_READ | (c->flags & MR_VU_DMA_WRITABLE ? PROT_WRITE : 0);
	int seals = fcntl(fd, F_GET_SEALS);
	struct stat st;

	if (fstat(fd, &st) || seals < 0 || !(seals & F_SEAL_SHRINK)) {
		mr_vu_say(s, "DMA_MAP: the file is not sealed against shrinking; pass a memfd with "
			     "F_SEAL_SHRINK");
		return EPERM;
	}
	if (c->offset > (uint64_t)st.st_size || c->size > (uint64_t)st.st_size - c->offset) {
		mr_vu_say(s, "DMA_MAP: %llu bytes at %llu are not in a file of %llu",
			  (unsigned long long)c->size, (unsigned long long)c->offset,
			  (unsigned long long)st.st_size);
		return EINVAL;
	}
	/* munmap of huge pages wants whole ones. */
	uint64_t page = (uint64_t)st.st_blksize > PAGE ? (uint64_t)st.st_blksize : PAGE;
	entry->mapped = (c->size + page - 1) / page * page;
	entry->base = mmap(NULL, entry->mapped, prot, MAP_SHARED, fd, (off_t)c->offset);
	if (entry->base == MAP_FAILED) {
		entry->base = NULL;
		return errno;
	}
	return 0;
}

int mr_vu_dma_map(struct mr_vfio_user *s, struct vu_message *m)
{
	const uint32_t known = MR_VU_DMA_READABLE | MR_VU_DMA_WRITABLE;
	struct vu_map *entry;
	struct mr_vu_dma_map c;
	int error;

	if (m->in_bytes != sizeof(c) || m->fd_count > 1)
		return EINVAL;
	memcpy(&c, m->in, sizeof(c));
	if (!c.size || c.address + (c.size - 1) < c.address || c.flags & ~known || !c.flags ||
	    (c.address | c.size | c.offset) % PAGE)
		return EINVAL;
	entry = free_entry(s, c.address, c.size, &error);
	if (error)
		return error;
	if (m->fd_count) {
		error = map_file(s, &c, m->fds[0], entry);
		if (!error) {
			error = errno_of(s->o.port->ops->dma_map(s->o.port->ctx, c.address,
								 entry->base, c.size, c.flags));
			if (error)
				munmap(entry->base, entry->mapped);
		}
		if (error) {
			entry->base = NULL;
			return error;
		}
	}
	entry->iova = c.address;
	entry->bytes = c.size;
	return 0;
}

static void forget(struct mr_vfio_user *s, struct vu_map *entry)
{
	if (entry->base) {
		s->o.port->ops->dma_unmap(s->o.port->ctx, entry->iova);
		munmap(entry->base, entry->mapped);
	}
	memset(entry, 0, sizeof(*entry));
}

void mr_vu_dma_forget(struct mr_vfio_user *s)
{
	for (uint32_t i = 0; i < VU_MAPS; i++)
		if (s->map[i].bytes)
			forget(s, &s->map[i]);
}

int mr_vu_dma_unmap(struct mr_vfio_user *s, struct vu_message *m)
{
	struct mr_vu_dma_unmap c;
	int error = ENOENT;

	if (m->in_bytes < sizeof(c))
		return EINVAL;
	memcpy(&c, m->in, sizeof(c));
	if (c.flags & ~MR_VU_UNMAP_ALL)
		return ENOTSUP; /* no account of written pages is kept */
	if (m->in_bytes != sizeof(c))
		return EINVAL;
	if (c.flags & MR_VU_UNMAP_ALL) {
		if (c.address || c.size)
			return EINVAL;
		mr_vu_dma_forget(s);
		error = 0;
	}
	for (uint32_t i = 0; error && i < VU_MAPS; i++) {
		struct vu_map *entry = &s->map[i];
		if (entry->bytes && entry->iova == c.address && entry->bytes == c.size) {
			forget(s, entry);
			error = 0;
		}
	}
	if (!error) {
		memcpy(m->out, &c, sizeof(c));
		m->out_bytes = sizeof(c);
	}
	return error;
}
