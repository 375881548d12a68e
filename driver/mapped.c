// SPDX-License-Identifier: Apache-2.0
/* Making, mapping and reading the files of counters and trace. */
#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <millrace/status.h>

#include "driver/mapped.h"

static int from_errno(void)
{
	switch (errno) {
	case ENOENT:
	case ENOTDIR:
		return MR_E_NOT_FOUND;
	case EACCES:
	case EPERM:
	case ELOOP:
		return MR_E_PERMISSION;
	default:
		return MR_E_IO;
	}
}

/* An empty file, or one that a server left behind: nothing else is written over. */
static int check_old(int fd, uint64_t magic)
{
	uint64_t first = 0;
	struct stat st;

	if (fstat(fd, &st))
		return MR_E_IO;
	if (!S_ISREG(st.st_mode))
		return MR_E_EXISTS;
	if (st.st_uid != geteuid())
		return MR_E_PERMISSION;
	if (st.st_size == 0)
		return 0;
	if (mr_mapped_read(fd, &first, sizeof(first), 0) != (int64_t)sizeof(first))
		return MR_E_EXISTS;
	return first == magic || first == 0 ? 0 : MR_E_EXISTS;
}

static int map(int fd, uint64_t magic, struct mr_mapped *out)
{
	int status;

	if (flock(fd, LOCK_EX | LOCK_NB))
		return errno == EWOULDBLOCK ? MR_E_BUSY : MR_E_IO;
	status = check_old(fd, magic);
	if (status)
		return status;
	if (ftruncate(fd, 0))
		return MR_E_IO;
	/* Allocated now, so that a full file system is an error here and not a SIGBUS in the loop. */
	errno = posix_fallocate(fd, 0, (off_t)out->bytes);
	if (errno)
		return MR_E_IO;
	out->at = mmap(NULL, out->bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
	return out->at == MAP_FAILED ? MR_E_IO : 0;
}

int mr_mapped_create(const char *path, uint64_t magic, uint64_t bytes, struct mr_mapped *out)
{
	struct mr_mapped m = {.bytes = bytes};
	int status;

	m.fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
	if (m.fd < 0)
		return errno == EISDIR ? MR_E_EXISTS : from_errno();
	status = map(m.fd, magic, &m);
	if (status) {
		close(m.fd);
		return status;
	}
	*out = m;
	return 0;
}

void mr_mapped_close(struct mr_mapped *m)
{
	if (!m->at)
		return;
	munmap(m->at, m->bytes);
	close(m->fd);
	*m = (struct mr_mapped){.fd = -1};
}

int64_t mr_mapped_read(int fd, void *out, uint64_t bytes, uint64_t at)
{
	uint64_t got = 0;

	while (got < bytes) {
		ssize_t n = pread(fd, (char *)out + got, bytes - got, (off_t)(at + got));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -1;
		if (n == 0)
			break;
		got += (uint64_t)n;
	}
	return (int64_t)got;
}

int mr_mapped_open(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO must not hold us */
	struct stat st;

	if (fd < 0)
		return from_errno();
	if (fstat(fd, &st) || !S_ISREG(st.st_mode)) {
		close(fd);
		return MR_E_FORMAT;
	}
	return fd;
}

void mr_mapped_text(char *text, uint64_t bytes)
{
	text[bytes - 1] = '\0';
	for (char *p = text; *p; p++)
		if ((unsigned char)*p < 0x20 || (unsigned char)*p >= 0x7f)
			*p = '?';
}

uint64_t mr_mapped_hash(uint64_t hash, const void *bytes, uint64_t n)
{
	const unsigned char *p = bytes;

	for (uint64_t i = 0; i < n; i++)
		hash = (hash ^ p[i]) * 0x100000001b3u;
	return hash;
}
