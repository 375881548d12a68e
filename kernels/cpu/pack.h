/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Weight layouts: rows interleaved by 16, so that a vector lane is an output row. Made once at load (by
 * driver/cpu) or at compile time (by driver/compile); the LPU's chip `mr1` holds the same bytes in SRAM.
 *
 * Rows are padded to a multiple of 16 with zeros; cols is a multiple of 32. For each group of 16 rows, for
 * each block of 32 columns in order:
 *   Q4_1X16, 320 bytes: 256 of nibbles, then 16 FP16 scales, then 16 FP16 minima. Nibble bytes are 4
 *     groups g of 64; byte 4r+j of group g holds, for row r, column 4g+j in its low nibble and column
 *     16+4g+j in its high nibble.
 *   Q8_0X16, 544 bytes: 512 of int8 in 8 groups g of 64 (byte 4r+j of group g is row r, column 4g+j),
 *     then 16 FP16 scales.
 */
#ifndef MR_KERNELS_CPU_PACK_H
#define MR_KERNELS_CPU_PACK_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/cpu/layer.h"

#define MR_Q4_1X16_BYTES 320u /* of 16 rows by 32 columns */
#define MR_Q8_0X16_BYTES 544u

/* Bytes of a packed matrix; a multiple of 32. */
size_t mr_pack_bytes(enum mr_packing packing, uint32_t rows, uint32_t cols);

/* Packs GGUF blocks (Q4_1 or Q8_0 rows, as the packing says) of a (rows, cols) matrix into @dst. */
void mr_pack(enum mr_packing packing, const void *gguf_blocks, uint32_t rows, uint32_t cols,
	     void *dst);

#endif /* MR_KERNELS_CPU_PACK_H */
