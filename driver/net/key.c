// SPDX-License-Identifier: Apache-2.0
/* See key.h. The file's mode is checked on the open descriptor, so that it cannot change in
 * between. */
#include "driver/net/key.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <sys/stat.h>
#include <unistd.h>

#include <millrace/status.h>

int mr_key_create(const char *path, struct mr_wire_key *key)
{
	int fd, good;

	if (sodium_init() < 0)
		return MR_E_INTERNAL;
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return errno == EEXIST ? MR_E_EXISTS : MR_E_IO;
	randombytes_buf(key->bytes, sizeof(key->bytes));
	mr_wire_key_id(key);
	good = write(fd, key->bytes, sizeof(key->bytes)) == (ssize_t)sizeof(key->bytes) &&
	       fsync(fd) == 0;
	if (close(fd) != 0 || !good) {
		unlink(path);
		return MR_E_IO;
	}
	return 0;
}

static int read_key(int fd, struct mr_wire_key *key)
{
	uint8_t more;
	struct stat st;

	if (fstat(fd, &st) != 0)
		return MR_E_IO;
	if (!S_ISREG(st.st_mode))
		return MR_E_FORMAT;
	if (st.st_mode & (S_IRWXG | S_IRWXO))
		return MR_E_PERMISSION;
	if (read(fd, key->bytes, sizeof(key->bytes)) != (ssize_t)sizeof(key->bytes) ||
	    read(fd, &more, 1) != 0)
		return MR_E_FORMAT;
	mr_wire_key_id(key);
	return 0;
}

int mr_key_load(const char *path, struct mr_wire_key *key)
{
	int fd, status;

	if (sodium_init() < 0)
		return MR_E_INTERNAL;
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return errno == ENOENT   ? MR_E_NOT_FOUND
		       : errno == EACCES ? MR_E_PERMISSION
					 : MR_E_IO;
	status = read_key(fd, key);
	close(fd);
	return status;
}
