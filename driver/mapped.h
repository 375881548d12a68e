/* SPDX-License-Identifier: Apache-2.0 */
/* Files that a running server writes through a mapping and that others read: counters.h and trace.h. */
#ifndef MR_DRIVER_MAPPED_H
#define MR_DRIVER_MAPPED_H

#include <stdint.h>

struct mr_mapped {
	void *at; /* @bytes of zeros at first; NULL = none */
	uint64_t bytes;
	int fd; /* holds the lock */
};

/*
 * Makes @path, or takes over one that begins with @magic or was never finished, and maps it. The caller stores
 * @magic into the first word when the rest is there. No link is followed. MR_E_BUSY: a running server holds
 * it; MR_E_EXISTS: a file of something else; MR_E_NOT_FOUND, MR_E_PERMISSION, MR_E_IO (errno).
 */
int mr_mapped_create(const char *path, uint64_t magic, uint64_t bytes, struct mr_mapped *out);
/* The file stays. */
void mr_mapped_close(struct mr_mapped *mapped);

/*
 * Reads from @fd at @at, never more than @bytes; returns how much there was, or -1. Readers use this and no
 * mapping: a file that another program cuts short is then an error with a name and not a SIGBUS.
 */
int64_t mr_mapped_read(int fd, void *out, uint64_t bytes, uint64_t at);
/* Opens a regular file for that. A descriptor, or MR_E_NOT_FOUND, MR_E_PERMISSION, MR_E_FORMAT, MR_E_IO. */
int mr_mapped_open(const char *path);

/* Ends the text and takes out what would speak to a terminal: it comes from a file. */
void mr_mapped_text(char *text, uint64_t bytes);
/* FNV-1a, for the hash of what writer and reader must agree on. */
#define MR_MAPPED_HASH 0xcbf29ce484222325u
uint64_t mr_mapped_hash(uint64_t hash, const void *bytes, uint64_t n);

#endif /* MR_DRIVER_MAPPED_H */
