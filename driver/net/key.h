/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Key files of the wire: exactly 32 random bytes, readable by their owner alone. Setup only; used
 * by `millrace keys`, `serve` and `load`.
 */
#ifndef MR_DRIVER_NET_KEY_H
#define MR_DRIVER_NET_KEY_H

#include "driver/net/wire.h"

/* Makes a new key file, mode 0600. Returns 0, MR_E_EXISTS, MR_E_IO (errno), MR_E_INTERNAL (no
 * libsodium). */
int mr_key_create(const char *path, struct mr_wire_key *key);

/*
 * Reads a key file. Returns 0, MR_E_NOT_FOUND, MR_E_PERMISSION (group or others may read or write
 * it, or this user may not), MR_E_FORMAT (not a plain file of 32 bytes), MR_E_IO, MR_E_INTERNAL.
 */
int mr_key_load(const char *path, struct mr_wire_key *key);

#endif /* MR_DRIVER_NET_KEY_H */
