/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CRC-32C (Castagnoli), the checksum in KV descriptors: the CPU backend and the LPU driver put it
 * there, whoever takes the block checks it. Any thread.
 */
#ifndef MR_USERLIB_SPEC_CRC32C_H
#define MR_USERLIB_SPEC_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/*
 * CRC-32C of @bytes bytes at @data, going on from @crc: 0 for a new sum, else what an earlier call
 * over the bytes before these returned. mr_crc32c(0, "123456789", 9) is 0xe3069283.
 */
uint32_t mr_crc32c(uint32_t crc, const void *data, size_t bytes);

#endif /* MR_USERLIB_SPEC_CRC32C_H */
